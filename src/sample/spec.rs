//! Declaration and cases of `sample`.

use super::{Choice, Sample, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule,
    Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct SampleParams {
        rows: u32,
        cols: u32,
        top_k: u32,
        top_p: u32,
        seed_low: u32,
        seed_high: u32,
        step: u32,
        inv_temperature: f32,
    }
}

pub static SAMPLE: KernelSpec = KernelSpec {
    name: "sample",
    family: "sample",
    replaces: &["sampling"],
    params: SampleParams::FIELDS,
    bindings: &[
        Binding { name: "logits", access: Access::Read },
        Binding { name: "index", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "sample/sample.wgsl", variants)],
    cases,
};

const THREADS: u32 = 256;
/// Keys that a workgroup lists.
const ROOM: u32 = 2048;

/// `wide`: vectors of four, for rows that are a multiple of four.
pub(super) fn variant(dtype: DType, wide: bool) -> Variant {
    Variant {
        defines: defines![
            T = Def::Word(dtype.wgsl()),
            UNIT = Def::Type(unit(dtype, wide)),
            WIDTH = Def::Num(if wide { 4 } else { 1 }),
            THREADS = Def::Num(THREADS),
            ROOM = Def::Num(ROOM),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // Two histogram words and a scan's pair for each thread, listed keys, and the values that all share.
            workgroup_storage: THREADS * 16 + ROOM * 4 + 28,
            threads: THREADS,
            ..Needs::default()
        },
    }
}

fn variants() -> Vec<Variant> {
    let dtypes = [DType::F32, DType::F16];
    dtypes.into_iter().flat_map(|t| [false, true].map(|wide| variant(t, wide))).collect()
}

/// What the logits look like.
#[derive(Clone, Copy, Debug)]
enum Data {
    /// Normal with deviation 4.
    Normal,
    /// Four values only: the filters must cut among equals.
    Ties,
    /// Normal, with NaN and −∞ strewn in.
    Special,
    AllNan,
    /// Two columns far above all others.
    Far,
    /// All the same: how many a filter keeps shows in every draw.
    Equal,
    /// Close together and rising, in f32 all different.
    Rising,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let plain = Choice { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0x0123_4567_89ab_cdef, step: 3 };
    let choices = [
        plain,
        Choice { temperature: 0.7, top_k: 40, ..plain },
        Choice { temperature: 1.5, top_p: 0.9, step: 9, ..plain },
        Choice { temperature: 0.9, top_k: 50, top_p: 0.83, seed: 7, ..plain },
    ];
    let hard = [
        Choice { top_k: 1, ..plain },
        Choice { top_p: 1e-9, ..plain },
        Choice { temperature: 40.0, top_k: 300, top_p: 0.37, step: u32::MAX, ..plain },
        Choice { temperature: 0.01, top_k: 3, top_p: 0.999, ..plain },
        Choice { temperature: 1e-30, top_p: 0.5, ..plain },
        Choice { temperature: 1e30, top_k: usize::MAX, ..plain },
    ];
    let all = [Data::Normal, Data::Ties, Data::Special, Data::AllNan, Data::Far];
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for choice in choices {
            cases.push(case(Quick, dtype, 6, 576, Data::Normal, choice));
            cases.push(case(Quick, dtype, 6, 331, Data::Ties, choice));
            for data in all {
                cases.push(case(Full, dtype, 8, 2500, data, choice));
                cases.push(case(Full, dtype, 8, 1027, data, choice));
            }
            for cols in [1, 2, 3, 4, 5, 1023, 1024, 1025, 1028] {
                cases.push(case(Full, dtype, 8, cols, Data::Normal, choice));
            }
            cases.push(case(Full, dtype, 2, 128_256, Data::Normal, choice));
            cases.push(case(Full, dtype, 1, 262_144, Data::Ties, choice));
            cases.push(case(Full, dtype, 1, 262_143, Data::Normal, choice));
            // A threshold that is off by 2^-16 draws another column.
            cases.push(case(Full, dtype, 2, 262_144, Data::Equal, choice));
        }
        // As many close together as a workgroup lists, and one more.
        for cols in [ROOM, ROOM + 1].map(|n| n as usize) {
            for choice in [hard[0], choices[3]] {
                cases.push(case(Full, dtype, 8, cols, Data::Rising, choice));
            }
        }
        for choice in hard {
            for data in all {
                cases.push(case(Full, dtype, 8, 1000, data, choice));
            }
        }
        for choice in choices {
            cases.push(case(Perf, dtype, 32, 128_256, Data::Normal, choice));
        }
        cases.push(case(Perf, dtype, 1, 128_256, Data::Normal, choices[1]));
        cases.push(case(Full, dtype, 1024, 60, Data::Normal, choices[3]));
    }
    // More than 65535 workgroups.
    cases.push(case(Full, DType::F32, 65_537, 3, Data::Normal, plain));
    cases
}

fn case(level: Level, dtype: DType, rows: usize, cols: usize, data: Data, choice: Choice) -> Case {
    let Choice { temperature, top_k, top_p, step, .. } = choice;
    let top_k_label = if top_k == usize::MAX { "all".to_string() } else { top_k.to_string() };
    let label = format!("{rows}×{cols} {data:?} T {temperature} k {top_k_label} p {top_p} step {step}");
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((rows * 31 + cols) as u64);
        let cost = Cost { bytes: (rows * (cols * dtype.size() + 4)) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let mut logits: Vec<f32> = random.values(rows * cols, dtype).iter().map(|v| 4.0 * v).collect();
            for (i, value) in logits.iter_mut().enumerate() {
                *value = match (data, random.below(16)) {
                    (Data::Special, 0..3) | (Data::AllNan, _) => f32::NAN,
                    (Data::Special, 3..6) => f32::NEG_INFINITY,
                    (Data::Equal, _) => 1.5,
                    (Data::Rising, _) => 1.5 + (i % cols) as f32 / cols as f32 * 0.1,
                    (Data::Ties, n) => (n % 4) as f32 * 0.5 - 1.0,
                    (Data::Far, _) if i % cols == cols / 2 || i % cols == cols / 3 => *value + 40_000.0,
                    (Data::Far, _) => *value - 20_000.0,
                    _ => *value,
                };
                *value = crate::kernel::round_to(*value, dtype);
            }
            let logits_gpu = gpu.floats(dtype, &[rows, cols], &logits)?;
            let index = gpu.output(DType::U32, &[rows])?;
            let check = Check::new("index", &index, Rule::Exact, move || cpu::sample(&logits, cols, &choice));
            let launch = move |r: &mut crate::Recorder<'_, '_>| {
                record(r, &Sample { logits: &logits_gpu, index: &index, choice })
            };
            Ok((launch, vec![check]))
        })
    })
}
