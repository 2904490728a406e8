//! Declarations of the products with more fused into them: an RMS norm before, three outputs behind.

use super::fused_cases as cases;
use super::gemv_fragments::gemv_fragment_variants;
use super::msl::msl_variants;
use super::plan::flag;
use super::spec::{FIELDS, coop_variants, fragment_variants, gemm_variants, gemv_variants};
use crate::format::Format;
use crate::kernel::{Access, Binding, Def, KernelSpec, Tier, Variant, tier};

const A: Binding = read("a");
const W: Binding = read("w");
const SCALES: Binding = read("scales");
const ZEROS: Binding = read("zeros");
const BIAS: Binding = read("bias");
const AUX: Binding = read("aux");
const GAMMA: Binding = read("gamma");
const OUT: Binding = write("out");
const OUT_K: Binding = write("out_k");
const OUT_V: Binding = write("out_v");

const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

const fn write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite }
}

/// RMSNorm and a product, 1 to 8 rows.
pub static NORM_QGEMV: KernelSpec = KernelSpec {
    name: "norm_qgemv",
    family: "matmul",
    replaces: &["fusion/norm_linear", "fusion/attention_residual"],
    params: FIELDS,
    bindings: &[A, W, SCALES, ZEROS, BIAS, AUX, OUT, GAMMA],
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv(Tier::Base, false, &NORM_QGEMV)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv(Tier::Subgroup, false, &NORM_QGEMV)),
        tier!(Msl, "matmul/gemv.metal", || gemv(Tier::Msl, false, &NORM_QGEMV)),
    ],
    cases: cases::norm_qgemv,
};

/// RMSNorm and the first half of a gated MLP, 1 to 8 rows.
pub static NORM_GATE_UP_GEMV: KernelSpec = KernelSpec {
    name: "norm_gate_up_gemv",
    family: "matmul",
    replaces: &["fusion/gated_mlp"],
    params: FIELDS,
    bindings: &[A, W, SCALES, ZEROS, BIAS, AUX, OUT, GAMMA],
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv(Tier::Base, true, &NORM_GATE_UP_GEMV)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv(Tier::Subgroup, true, &NORM_GATE_UP_GEMV)),
        tier!(Msl, "matmul/gemv.metal", || gemv(Tier::Msl, true, &NORM_GATE_UP_GEMV)),
    ],
    cases: cases::norm_gate_up_gemv,
};

/// One product with three outputs, any number of rows.
pub static QKV: KernelSpec = KernelSpec {
    name: "qkv",
    family: "matmul",
    replaces: &["fusion/norm_linear"],
    params: FIELDS,
    bindings: &[A, W, SCALES, ZEROS, BIAS, OUT, OUT_K, OUT_V],
    tiers: &[
        tier!(Base, "matmul/gemm.wgsl", || all(gemm_variants(Format::ALL, false), &QKV)),
        tier!(Coop, "matmul/gemm_coop.wgsl", || all(coop_variants(Format::ALL, false), &QKV)),
        tier!(Spirv, "matmul/gemm_coop.wgsl", || all(fragment_variants(false), &QKV)),
        tier!(Msl, "matmul/gemm.metal", || all(msl_variants(Format::ALL, false), &QKV)),
    ],
    cases: cases::qkv,
};

/// The same, 1 to 8 rows.
pub static QKV_GEMV: KernelSpec = KernelSpec {
    name: "qkv_gemv",
    family: "matmul",
    replaces: &["fusion/norm_linear"],
    params: FIELDS,
    bindings: &[A, W, SCALES, ZEROS, BIAS, OUT, OUT_K, OUT_V],
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv(Tier::Base, false, &QKV_GEMV)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv(Tier::Subgroup, false, &QKV_GEMV)),
        tier!(Spirv, "matmul/gemv_fragments.wgsl", || all(gemv_fragment_variants(false), &QKV_GEMV)),
        tier!(Msl, "matmul/gemv.metal", || gemv(Tier::Msl, false, &QKV_GEMV)),
    ],
    cases: cases::qkv_gemv,
};

/// RMSNorm and one product with three outputs, 1 to 8 rows.
pub static NORM_QKV_GEMV: KernelSpec = KernelSpec {
    name: "norm_qkv_gemv",
    family: "matmul",
    replaces: &["fusion/norm_linear"],
    params: FIELDS,
    bindings: &[A, W, SCALES, ZEROS, BIAS, OUT, OUT_K, OUT_V, GAMMA],
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv(Tier::Base, false, &NORM_QKV_GEMV)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv(Tier::Subgroup, false, &NORM_QKV_GEMV)),
        tier!(Msl, "matmul/gemv.metal", || gemv(Tier::Msl, false, &NORM_QKV_GEMV)),
    ],
    cases: cases::norm_qkv_gemv,
};

fn gemv(tier: Tier, pair: bool, spec: &KernelSpec) -> Vec<Variant> {
    all(gemv_variants(tier, pair), spec)
}

/// With outputs of the dtype of `a`, except where [`NORM_QGEMV`] makes logits.
fn all(variants: Vec<Variant>, spec: &KernelSpec) -> Vec<Variant> {
    let of = |v: &Variant, name: &str| v.defines.iter().find(|d| d.0 == name).map(|d| d.1);
    let kept = |v: &Variant| spec.name == "norm_qgemv" || of(v, "TA") == of(v, "TO");
    // Those by pairs of halves have no norm.
    let norm = has(spec, "gamma");
    let pairs = |v: &Variant| flag(&v.defines, "HALVES") && !flag(&v.defines, "BYTES");
    variants.into_iter().filter(|v| kept(v) && !(norm && pairs(v))).map(|v| fuse(v, spec)).collect()
}

/// Whether a kernel has such a binding; `gamma` is that of a norm.
pub(super) fn has(spec: &KernelSpec, binding: &str) -> bool {
    spec.bindings.iter().any(|b| b.name == binding)
}

/// Fuses into a plain specialisation what `spec` has bindings for.
pub(super) fn fuse(mut variant: Variant, spec: &KernelSpec) -> Variant {
    let (norm, split) = (has(spec, "gamma"), has(spec, "out_k"));
    for (name, value) in &mut variant.defines {
        match *name {
            "NORM" => *value = Def::Flag(norm),
            // With gains activations are no longer halves.
            "HALVES" if norm => *value = Def::Flag(false),
            "SPLIT" => *value = Def::Flag(split),
            _ => {}
        }
    }
    if norm && variant.needs.workgroup_storage > 0 {
        // A block of eight sums more from each of at most threads / 8 subgroups.
        variant.needs.workgroup_storage += variant.needs.threads * 4;
    }
    variant
}
