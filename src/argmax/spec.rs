//! Declaration and cases of `argmax`.

use super::{Argmax, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule, Tier,
    Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct ArgmaxParams { rows: u32, cols: u32 }
}

pub static ARGMAX: KernelSpec = KernelSpec {
    name: "argmax",
    family: "argmax",
    replaces: &["sampling"],
    params: ArgmaxParams::FIELDS,
    bindings: &[
        Binding { name: "logits", access: Access::Read },
        Binding { name: "index", access: Access::ReadWrite },
    ],
    tiers: &[
        tier!(Base, "argmax/argmax.wgsl", || variants(Tier::Base)),
        tier!(Subgroup, "argmax/argmax.wgsl", || variants(Tier::Subgroup)),
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
            WIDTH = Def::Num(if wide { 4 } else { 1 }),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            workgroup_storage: THREADS * 8,
            threads: THREADS,
            ..Needs::default()
        },
    }
}

fn variants(tier: Tier) -> Vec<Variant> {
    let dtypes = [DType::F32, DType::F16];
    dtypes.into_iter().flat_map(|t| [false, true].map(|wide| variant(tier, t, wide))).collect()
}

/// What the logits look like.
#[derive(Clone, Copy, Debug)]
enum Data {
    Normal,
    /// A few values only, so that most rows have ties for the first place.
    Ties,
    /// All below zero, with NaN and infinities of both signs strewn in.
    Special,
    AllNan,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for data in [Data::Normal, Data::Ties, Data::Special, Data::AllNan] {
            cases.push(case(Quick, dtype, 5, 576, data));
            cases.push(case(Quick, dtype, 3, 331, data));
        }
        for cols in [1, 2, 3, 4, 5, 1020, 1023, 1024, 1025, 1028, 4096, 4100, 8191, 32_000] {
            cases.push(case(Full, dtype, 4, cols, Data::Ties));
        }
        cases.push(case(Full, dtype, 1, 128_256, Data::Ties));
        cases.push(case(Full, dtype, 2, 262_144, Data::Special));
        cases.push(case(Full, dtype, 1024, 100, Data::Normal));
        cases.push(case(Perf, dtype, 1, 128_256, Data::Normal));
        cases.push(case(Perf, dtype, 256, 128_256, Data::Normal));
    }
    // More than 65535 workgroups.
    cases.push(case(Full, DType::F16, 65_537, 5, Data::Ties));
    cases
}

fn case(level: Level, dtype: DType, rows: usize, cols: usize, data: Data) -> Case {
    Case::new(level, dtype.wgsl(), format!("{rows}×{cols} {data:?}"), move |gpu, copies| {
        let mut random = Random::new((rows * 31 + cols) as u64);
        let cost = Cost { bytes: (rows * (cols * dtype.size() + 4)) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let mut logits = random.values(rows * cols, dtype);
            for value in &mut logits {
                *value = match (data, random.below(16)) {
                    (Data::Normal, _) => *value,
                    (Data::Ties, n) => (n % 5) as f32 * if n < 5 { -0.0 } else { 0.25 },
                    (Data::AllNan, _) | (Data::Special, 0..3) => f32::NAN,
                    (Data::Special, 3..5) => f32::NEG_INFINITY,
                    (Data::Special, _) => -value.abs(),
                };
            }
            if let (Data::Special, Some(last)) = (data, logits.last_mut()) {
                *last = f32::INFINITY;
            }
            let logits_gpu = gpu.floats(dtype, &[rows, cols], &logits)?;
            let index = gpu.output(DType::U32, &[rows])?;
            let check = Check::new("index", &index, Rule::Exact, move || cpu::argmax(&logits, cols));
            let launch = move |r: &mut crate::Recorder<'_, '_>| {
                record(r, &Argmax { logits: &logits_gpu, index: &index })
            };
            Ok((launch, vec![check]))
        })
    })
}
