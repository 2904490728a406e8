//! Declarations and cases of `rms_norm` and `layer_norm`.

use super::{LayerNorm, RmsNorm, cpu, record, record_layer};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder,
    Rule, Tier, Variant, defines, params, round_to, tier,
};
use crate::tensor::DType;

params! {
    pub(super) struct RmsNormParams { rows: u32, cols: u32, eps: f32, base: f32 }
}

params! {
    pub(super) struct LayerNormParams { rows: u32, cols: u32, eps: f32, biased: u32 }
}

pub static RMS_NORM: KernelSpec = KernelSpec {
    name: "rms_norm",
    family: "norm",
    replaces: &["fusion/norm_linear", "fusion/attention_residual"],
    params: RmsNormParams::FIELDS,
    bindings: &[
        Binding { name: "x", access: Access::ReadWrite },
        Binding { name: "residual", access: Access::Read },
        Binding { name: "weight", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "norm/rms_norm.wgsl", || variants(Tier::Base)),
        tier!(Subgroup, "norm/rms_norm.wgsl", || variants(Tier::Subgroup)),
    ],
    cases,
};

pub static LAYER_NORM: KernelSpec = KernelSpec {
    name: "layer_norm",
    family: "norm",
    replaces: &[],
    params: LayerNormParams::FIELDS,
    bindings: &[
        Binding { name: "x", access: Access::ReadWrite },
        Binding { name: "residual", access: Access::Read },
        Binding { name: "weight", access: Access::Read },
        Binding { name: "bias", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "norm/layer_norm.wgsl", || variants(Tier::Base)),
        tier!(Subgroup, "norm/layer_norm.wgsl", || variants(Tier::Subgroup)),
    ],
    cases: layer_cases,
};

const THREADS: u32 = 256;
/// Epsilon of the cases.
const EPS: f32 = 1e-5;

/// Of both kernels.
pub(super) fn variant(tier: Tier, dtype: DType, residual: bool) -> Variant {
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            T = Def::Type(dtype.wgsl()),
            RESIDUAL = Def::Flag(residual),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            workgroup_storage: THREADS * 4,
            threads: THREADS,
            ..Needs::default()
        },
    }
}

fn variants(tier: Tier) -> Vec<Variant> {
    let dtypes = [DType::F32, DType::F16];
    dtypes.into_iter().flat_map(|t| [false, true].map(|r| variant(tier, t, r))).collect()
}

/// What a case asks for beyond x / rms(x) · weight.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    None,
    Residual,
    UnitOffset,
    InPlace,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: [(Level, &[usize]); 8] = [
        (Quick, &[3, 256]),
        (Quick, &[2, 1000]),
        (Full, &[1, 1]),
        (Full, &[5, 255]),
        (Full, &[5, 257]),
        (Full, &[7, 4096]),
        (Full, &[66_000, 3]),
        (Perf, &[4096, 4096]),
    ];
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for (level, shape) in shapes {
            cases.push(case(level, dtype, shape, Extra::None));
            if level != Perf {
                cases.push(case(level, dtype, shape, Extra::Residual));
            }
        }
        cases.push(case(Full, dtype, &[3, 1000], Extra::UnitOffset));
        // Heads one by one, as QK-norm does it.
        cases.push(case(Full, dtype, &[5, 6, 64], Extra::InPlace));
        cases.push(case(Perf, dtype, &[4096, 32, 128], Extra::InPlace));
    }
    cases
}

fn case(level: Level, dtype: DType, shape: &[usize], extra: Extra) -> Case {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let options = match extra {
        Extra::None => "",
        Extra::Residual => " + residual",
        Extra::UnitOffset => ", 1 + weight",
        Extra::InPlace => ", in place",
    };
    let shape = shape.to_vec();
    Case::new(level, dtype.wgsl(), sizes.join("×") + options, move |gpu, copies| {
        let (len, cols) = (shape.iter().product(), shape.last().copied().unwrap_or(1));
        let mut random = Random::new((len * 31 + cols) as u64);
        let weight = random.values(cols, dtype);
        let weight_gpu = gpu.floats(dtype, &[cols], &weight)?;
        let streams = if extra == Extra::Residual { 4 } else { 2 };
        let cost = Cost { bytes: ((streams * len + cols) * dtype.size()) as u64, flops: (4 * len) as u64 };
        Prepared::sets(copies, cost, || {
            let x = random.values(len, dtype);
            let residual = (extra == Extra::Residual).then(|| random.values(len, dtype));
            let x_gpu = gpu.floats(dtype, &shape, &x)?;
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(dtype, &shape, r)).transpose()?;
            let out = if extra == Extra::InPlace { x_gpu.clone() } else { gpu.output(dtype, &shape)? };
            let unit_offset = extra == Extra::UnitOffset;
            let twin = {
                let weight = weight.clone();
                move || cpu::rms_norm(&x, residual.as_deref(), &weight, unit_offset, EPS)
            };
            let (sums, rule) = (twin.clone(), Rule::stored_in(dtype));
            let mut checks = vec![Check::new("out", &out, rule, move || twin().0)];
            if extra == Extra::Residual {
                checks.push(Check::new("x", &x_gpu, rule, move || sums().1));
            }
            let weight = weight_gpu.clone();
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (residual, norm) = (residual_gpu.as_ref(), RmsNorm::new(&x_gpu, &weight, &out, EPS));
                record(recorder, &RmsNorm { residual, unit_offset, ..norm })
            };
            Ok((launch, checks))
        })
    })
}

fn layer_cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    // Level, shape, residual, bias, and where the rows lie.
    let shapes: [(Level, &[usize], bool, bool, f32); 10] = [
        (Quick, &[3, 256], false, true, 0.0),
        (Quick, &[2, 1000], true, false, 0.5),
        (Full, &[1, 1], false, true, 0.0),
        (Full, &[5, 255], true, true, 0.0),
        (Full, &[5, 257], false, false, -0.5),
        (Full, &[7, 4096], true, true, 0.0),
        // Far from zero, where Σx² − n·mean² has no digits left.
        (Full, &[3, 2, 384], false, true, 1000.0),
        (Full, &[66_000, 3], false, true, 0.0),
        (Perf, &[4096, 4096], false, true, 0.0),
        (Perf, &[4096, 4096], true, true, 0.0),
    ];
    let dtypes = [DType::F32, DType::F16].into_iter();
    dtypes.flat_map(|dtype| shapes.map(|shape| layer_case(shape, dtype))).collect()
}

fn layer_case(
    (level, shape, with_residual, with_bias, centre): (Level, &[usize], bool, bool, f32),
    dtype: DType,
) -> Case {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut label = sizes.join("×");
    label += if with_residual { " + residual" } else { "" };
    label += if with_bias { ", bias" } else { "" };
    label += &if centre == 0.0 { String::new() } else { format!(", around {centre}") };
    let shape = shape.to_vec();
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let (len, cols) = (shape.iter().product(), shape.last().copied().unwrap_or(1));
        let mut random = Random::new((len * 31 + cols) as u64);
        let (weight, bias) = (random.values(cols, dtype), random.values(cols, dtype));
        let (weight_gpu, bias_gpu) =
            (gpu.floats(dtype, &[cols], &weight)?, gpu.floats(dtype, &[cols], &bias)?);
        let streams = if with_residual { 4 } else { 2 };
        let cost = Cost { bytes: ((streams * len + cols) * dtype.size()) as u64, flops: (7 * len) as u64 };
        Prepared::sets(copies, cost, || {
            let x: Vec<f32> = random.values(len, dtype).iter().map(|x| round_to(x + centre, dtype)).collect();
            let residual = with_residual.then(|| random.values(len, dtype));
            let x_gpu = gpu.floats(dtype, &shape, &x)?;
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(dtype, &shape, r)).transpose()?;
            let out = gpu.output(dtype, &shape)?;
            let twin = {
                let (weight, bias) = (weight.clone(), with_bias.then(|| bias.clone()));
                move || cpu::layer_norm(&x, residual.as_deref(), &weight, bias.as_deref(), EPS)
            };
            let (sums, rule) = (twin.clone(), Rule::stored_in(dtype));
            let mut checks = vec![Check::new("out", &out, rule, move || twin().0)];
            if with_residual {
                checks.push(Check::new("x", &x_gpu, rule, move || sums().1));
            }
            let (weight, bias) = (weight_gpu.clone(), bias_gpu.clone());
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (residual, bias) = (residual_gpu.as_ref(), with_bias.then_some(&bias));
                let request = LayerNorm { x: &x_gpu, residual, weight: &weight, bias, out: &out, eps: EPS };
                record_layer(recorder, &request)
            };
            Ok((launch, checks))
        })
    })
}
