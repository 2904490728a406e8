//! Declaration and cases of `rms_norm`.

use super::{RmsNorm, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder,
    Rule, Tier, Variant, defines, params, tier,
};
use crate::tensor::DType;

params! {
    pub(super) struct RmsNormParams { rows: u32, cols: u32, eps: f32 }
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

const THREADS: u32 = 256;
/// Epsilon of the cases.
const EPS: f32 = 1e-5;

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

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes = [
        (Quick, 3, 256),
        (Quick, 2, 1000),
        (Full, 1, 1),
        (Full, 5, 255),
        (Full, 5, 257),
        (Full, 7, 4096),
        (Full, 66_000, 3),
        (Perf, 4096, 4096),
    ];
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for (level, rows, cols) in shapes {
            cases.push(case(level, dtype, rows, cols, false));
            if level != Perf {
                cases.push(case(level, dtype, rows, cols, true));
            }
        }
    }
    cases
}

fn case(level: Level, dtype: DType, rows: usize, cols: usize, with_residual: bool) -> Case {
    let label = format!("{rows}×{cols}{}", if with_residual { " + residual" } else { "" });
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new(rows as u64 * 31 + cols as u64);
        let weight = random.values(cols, dtype);
        let weight_gpu = gpu.floats(dtype, &[cols], &weight)?;
        let streams = if with_residual { 4 } else { 2 };
        let cost = Cost {
            bytes: ((streams * rows * cols + cols) * dtype.size()) as u64,
            flops: (4 * rows * cols) as u64,
        };
        Prepared::sets(copies, cost, || {
            let x = random.values(rows * cols, dtype);
            let residual = with_residual.then(|| random.values(rows * cols, dtype));
            let x_gpu = gpu.floats(dtype, &[rows, cols], &x)?;
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(dtype, &[rows, cols], r)).transpose()?;
            let out = gpu.output(dtype, &[rows, cols])?;
            let twin = {
                let weight = weight.clone();
                move || cpu::rms_norm(&x, residual.as_deref(), &weight, EPS)
            };
            let (sums, rule) = (twin.clone(), Rule::stored_in(dtype));
            let mut checks = vec![Check::new("out", &out, rule, move || twin().0)];
            if with_residual {
                checks.push(Check::new("x", &x_gpu, rule, move || sums().1));
            }
            let weight = weight_gpu.clone();
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let residual = residual_gpu.as_ref();
                record(recorder, &RmsNorm { x: &x_gpu, residual, weight: &weight, out: &out, eps: EPS })
            };
            Ok((launch, checks))
        })
    })
}
