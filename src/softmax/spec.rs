//! Declaration and cases of `softmax`.

use super::{Softmax, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule, Tier,
    Variant, defines, params, round_to, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct SoftmaxParams { rows: u32, units: u32, scale: f32 }
}

pub static SOFTMAX: KernelSpec = KernelSpec {
    name: "softmax",
    family: "softmax",
    replaces: &[],
    params: SoftmaxParams::FIELDS,
    bindings: &[
        Binding { name: "x", access: Access::ReadWrite },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "softmax/softmax.wgsl", || variants(Tier::Base)),
        tier!(Subgroup, "softmax/softmax.wgsl", || variants(Tier::Subgroup)),
    ],
    cases,
};

const THREADS: u32 = 256;

/// `wide`: vectors of four, for rows that are a multiple of four.
pub(super) fn variant(tier: Tier, dtype: DType, wide: bool) -> Variant {
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            T = Def::Word(dtype.wgsl()),
            UNIT = Def::Type(unit(dtype, wide)),
            VALUE = Def::Type(unit(DType::F32, wide)),
            WIDTH = Def::Num(if wide { 4 } else { 1 }),
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
    dtypes.into_iter().flat_map(|t| [false, true].map(|wide| variant(tier, t, wide))).collect()
}

/// What the rows look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Data {
    Normal,
    /// Far from zero, where exp would overflow without the maximum.
    Far,
    /// Half of the columns, and all of the first row, −∞.
    Masked,
    /// Normal, with the result written over the input.
    InPlace,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for data in [Data::Normal, Data::Far, Data::Masked, Data::InPlace] {
            cases.push(case(Quick, dtype, 3, 576, data, 0.7));
            cases.push(case(Quick, dtype, 3, 331, data, -1.0));
        }
        for cols in [1, 2, 3, 4, 5, 255, 256, 257, 1020, 1023, 1024, 1025, 1028, 4096] {
            cases.push(case(Full, dtype, 5, cols, Data::Normal, 4.0));
        }
        // Peaked, so that f16 results are not all subnormal.
        cases.push(case(Full, dtype, 2, 128_256, Data::Normal, 4.0));
        cases.push(case(Full, dtype, 1, 128_255, Data::Far, 4.0));
        cases.push(case(Full, dtype, 5, 100, Data::Normal, 0.0));
        cases.push(case(Perf, dtype, 4096, 4096, Data::Normal, 1.0));
        cases.push(case(Perf, dtype, 32, 128_256, Data::Normal, 4.0));
    }
    // More than 65535 workgroups.
    cases.push(case(Full, DType::F16, 65_537, 3, Data::Normal, 1.0));
    cases
}

fn case(level: Level, dtype: DType, rows: usize, cols: usize, data: Data, scale: f32) -> Case {
    Case::new(level, dtype.wgsl(), format!("{rows}×{cols} {data:?} · {scale}"), move |gpu, copies| {
        let mut random = Random::new((rows * 31 + cols) as u64);
        let values = (rows * cols) as u64;
        let cost = Cost { bytes: 2 * values * dtype.size() as u64, flops: 5 * values };
        Prepared::sets(copies, cost, || {
            let mut x = random.values(rows * cols, dtype);
            for (i, value) in x.iter_mut().enumerate() {
                *value = match data {
                    Data::Far => round_to(*value + 900.0, dtype),
                    Data::Masked if i < cols || i % 2 == 0 => f32::NEG_INFINITY * scale.signum(),
                    _ => *value,
                };
            }
            let x_gpu = gpu.floats(dtype, &[rows, cols], &x)?;
            let out = if data == Data::InPlace { x_gpu.clone() } else { gpu.output(dtype, &[rows, cols])? };
            let check =
                Check::new("out", &out, Rule::stored_in(dtype), move || cpu::softmax(&x, cols, scale));
            let launch =
                move |r: &mut crate::Recorder<'_, '_>| record(r, &Softmax { x: &x_gpu, out: &out, scale });
            Ok((launch, vec![check]))
        })
    })
}
