//! Declaration and cases of `attention_probs`.

use super::cases::{MANY, cached};
use super::cpu::{self, Problem};
use super::extra::{BiasOf, Extra, PLAIN};
use super::probs::{AttentionProbs, record_probs};
use super::spec::{DTYPES, read, write};
use crate::kernel::Level::{Full, Perf, Quick};
use crate::kernel::{
    Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder, Rule, Variant,
    defines, params, tier,
};
use crate::tensor::DType;
use crate::tree::Growth;

params! {
    pub(super) struct ProbsParams {
        sq: u32, kv_len: u32, capacity: u32, heads: u32, kv_heads: u32, d4: u32, tiles: u32, groups: u32,
        causal: u32, scale: f32, window: u32, soft_cap: f32, sinks: u32, lse: u32, bias: u32,
        bias_b: u32, bias_h: u32, bias_q: u32,
    }
}

/// One tier serves: it is for analysis, and bound by what it writes.
pub static ATTENTION_PROBS: KernelSpec = KernelSpec {
    name: "attention_probs",
    family: "attention",
    replaces: &["attention", "simdgroup_attention"],
    params: ProbsParams::FIELDS,
    bindings: &[read("q"), read("k"), read("bias"), read("sinks"), write("out"), write("lse")],
    tiers: &[tier!(Base, "attention/attention_probs.wgsl", || DTYPES.map(variant).into())],
    cases,
};

/// Folded rows of a workgroup.
pub(super) const ROWS: u32 = 32;

pub(super) fn variant(dtype: DType) -> Variant {
    Variant {
        defines: defines![KIND = Def::Word(dtype.wgsl())],
        needs: Needs {
            f16: dtype == DType::F16,
            // Slices of Q and K, a maximum and a total for each thread.
            workgroup_storage: 256 * (16 + 16 + 8),
            threads: 256,
            ..Needs::default()
        },
    }
}

/// (level, B, Sq, Hq, Hkv, D, kv_len, rows behind it, causal, what else)
type Shape = (Level, usize, usize, usize, usize, usize, usize, usize, bool, Extra);

fn cases() -> Vec<Case> {
    let some = Extra { sinks: true, lse: true, soft_cap: Some(2.0), window: Some(20), ..PLAIN };
    let bias = |of| Extra { bias: Some(of), ..some };
    let tree = Extra { tree: Some(Growth::Depth(6)), window: Some(4), ..PLAIN };
    let shapes: &[Shape] = &[
        (Quick, 1, 5, 2, 1, 64, 7, 2, true, PLAIN),
        (Quick, 2, 20, 4, 2, 40, 50, 3, true, bias(BiasOf::All)),
        (Full, 1, 1, 1, 1, 8, 1, 0, false, PLAIN),
        (Full, 1, 2, 2, 1, 8, 0, 3, true, some),
        (Full, 3, 31, 1, 1, 32, 31, 1, true, PLAIN),
        (Full, 1, 32, 2, 2, 128, 32, 0, false, Extra { window: None, ..bias(BiasOf::Queries) }),
        (Full, 1, 33, 3, 1, 256, 97, 5, true, some),
        // The first queries see nothing.
        (Full, 2, 40, 2, 1, 80, 9, 0, true, Extra { lse: true, ..PLAIN }),
        (Full, 1, 70, 16, 1, 64, 300, 0, true, Extra { window: Some(1), ..bias(BiasOf::Heads) }),
        (Full, 2, 45, 6, 2, 64, 130, 2, true, tree),
        (Full, 1, 1, MANY, MANY, 8, 1, 0, true, PLAIN),
        (Perf, 1, 1024, 32, 8, 128, 1024, 0, true, PLAIN),
    ];
    let runs = |shape: &Shape, dtype: DType| match dtype {
        DType::F32 => true,
        DType::F16 => shape.3 < MANY,
        _ => shape.0 != Full,
    };
    let of = |dtype| shapes.iter().filter(move |shape| runs(shape, dtype)).map(move |&shape| (shape, dtype));
    DTYPES.into_iter().flat_map(of).map(|(shape, dtype)| case(shape, dtype)).collect()
}

fn case((level, b, sq, hq, hkv, d, kv_len, spare, causal, extra): Shape, dtype: DType) -> Case {
    let mask = if causal { ", causal" } else { "" };
    let label = format!("{b}×{sq} over {kv_len}, heads {hq}/{hkv}×{d}{mask}{}", extra.label());
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((sq * 31 + kv_len * 7 + d + hq) as u64);
        let (lens, capacity, scale) = (vec![kv_len; b], kv_len + spare, 1.0 / (d as f32).sqrt());
        let plain = Problem { sq, hq, hkv, d, capacity, lens, causal, scale, ..Problem::default() };
        let bytes = b * (sq * hq + kv_len * hkv) * d * dtype.size() + b * hq * sq * kv_len * 4;
        let cost = Cost { bytes: bytes as u64, flops: (4 * plain.pairs() * d) as u64 };
        Prepared::sets(copies, cost, || {
            let mut p = plain.clone();
            let q = random.values(b * sq * hq * d, dtype);
            let k = cached(&p, random.values(b * capacity * hkv * d, dtype), d);
            let extras = extra.apply(gpu, &mut p, &mut random)?;
            let q_gpu = gpu.floats(dtype, &[b, sq, hq, d], &q)?;
            let k_gpu = gpu.floats(dtype, &[b, capacity, hkv, d], &k)?;
            let out = gpu.output(DType::F32, &[b, hq, sq, kv_len])?;
            let mut checks = extras.lse_checks(&p, &q, &k);
            let want = move || cpu::probabilities(&q, &k, &p);
            checks.push(Check::new("out", &out, Rule::stored_in(DType::F32), want));
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (q, k, out, options) = (&q_gpu, &k_gpu, &out, extras.options());
                record_probs(recorder, &AttentionProbs { q, k, out, kv_len, options })
            };
            Ok((launch, checks))
        })
    })
}
