//! Declarations and cases of `attention_merge` and `merge_lse`, which share a shader.

use super::cases::MANY;
use super::cpu;
use super::merge::{MergeLse, Parts, merge, record_merge};
use super::plan::MAX_SPLITS;
use super::spec::{DTYPES, read, write};
use crate::kernel::Level::{Full, Perf, Quick};
use crate::kernel::{
    Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder, Rule, Tier,
    Variant, defines, params, tier,
};
use crate::tensor::DType;
use std::sync::Arc;

params! {
    pub(super) struct MergeParams { rows: u32, splits: u32, d4: u32, heads: u32, sinks: u32, lse: u32 }
}

/// Vec4s of a row that one workgroup merges.
const COLUMNS: u32 = 8;

/// Workgroups for `rows` rows of width `d`.
pub(super) fn groups(rows: u32, d: u32) -> u64 {
    u64::from(rows) * u64::from((d / 4).div_ceil(COLUMNS))
}

/// The second launch of a split decode.
pub static ATTENTION_MERGE: KernelSpec = KernelSpec {
    name: "attention_merge",
    family: "attention",
    replaces: &[],
    params: MergeParams::FIELDS,
    bindings: &[read("sums"), read("sinks"), write("out"), write("lse")],
    tiers: &[
        tier!(Base, "attention/attention_merge.wgsl", || variants(Tier::Base, false)),
        tier!(Subgroup, "attention/attention_merge.wgsl", || variants(Tier::Subgroup, false)),
    ],
    cases: merge_cases,
};

/// The merge of results that a caller has over parts of the keys.
pub static MERGE_LSE: KernelSpec = KernelSpec {
    name: "merge_lse",
    family: "attention",
    replaces: &[],
    params: MergeParams::FIELDS,
    bindings: &[read("parts"), read("lses"), read("sinks"), write("out"), write("lse")],
    tiers: &[
        tier!(Base, "attention/attention_merge.wgsl", || variants(Tier::Base, true)),
        tier!(Subgroup, "attention/attention_merge.wgsl", || variants(Tier::Subgroup, true)),
    ],
    cases: lse_cases,
};

/// `lses`: for results with their lse.
pub(super) fn variant(tier: Tier, dtype: DType, lses: bool) -> Variant {
    const THREADS: u32 = MAX_SPLITS as u32;
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            LSES = Def::Flag(lses),
            KIND = Def::Word(dtype.wgsl()),
            THREADS = Def::Num(THREADS),
            COLUMNS = Def::Num(COLUMNS),
            EARLY = Def::Num(4),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // The reduction's scratch, the weights, a vec4 for each thread.
            workgroup_storage: THREADS * 4 * (1 + 1 + 4),
            threads: THREADS,
            ..Needs::default()
        },
    }
}

fn variants(tier: Tier, lses: bool) -> Vec<Variant> {
    DTYPES.map(|dtype| variant(tier, dtype, lses)).into()
}

/// (level, rows, parts, D, with sinks and sums)
type Shape = (Level, usize, usize, usize, bool);

const SHAPES: &[Shape] = &[
    (Quick, 4, 3, 64, false),
    (Quick, 6, 2, 64, true),
    (Full, 1, 2, 8, false),
    (Full, 3, 31, 40, true),
    (Full, 2, 255, 80, false),
    (Full, 5, 256, 256, true),
    (Full, MANY, 2, 8, false),
    (Perf, 32, 50, 128, false),
];

fn cases(of: fn(Shape, DType) -> Case) -> Vec<Case> {
    let shapes =
        |dtype| SHAPES.iter().filter(move |s| s.1 < MANY || dtype == DType::F32).map(move |&s| (s, dtype));
    DTYPES.into_iter().flat_map(shapes).map(|(shape, dtype)| of(shape, dtype)).collect()
}

fn merge_cases() -> Vec<Case> {
    cases(merge_case)
}

fn lse_cases() -> Vec<Case> {
    cases(lse_case)
}

/// Sinks of two heads.
const SINKS: [f32; 2] = [1.5, -0.5];

/// Rows of two heads, with sinks and sums if `more`.
fn merge_case((level, rows, splits, d, more): Shape, dtype: DType) -> Case {
    let label = format!("{rows} rows, {splits} splits × {d}{}", if more { ", sinks, lse" } else { "" });
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((rows * 7 + splits * 3 + d) as u64);
        let bytes = 4 * rows * splits * (d + 2) + rows * d * dtype.size();
        let cost = Cost { bytes: bytes as u64, flops: (2 * rows * splits * d) as u64 };
        Prepared::sets(copies, cost, || {
            let mut sums = random.values(rows * splits * d, DType::F32);
            // Every fifth split of a row, and the whole of the last row, saw no key.
            let mut stats: Vec<[f32; 2]> =
                (0..rows * splits).map(|_| [4.0 * random.normal(), 1.5 + random.unit()]).collect();
            for i in (0..rows * splits).filter(|i| i % 5 == 4 || i / splits == rows - 1) {
                stats[i] = [-1e30, 0.0];
                sums[i * d..][..d].fill(0.0);
            }
            let mut all = sums.clone();
            all.extend(stats.as_flattened());
            all.resize(all.len().next_multiple_of(4), f32::NAN);
            let workspace = gpu.tensor(&[all.len()], &all)?;
            let (out, lse) = (gpu.output(dtype, &[rows, d])?, gpu.output(DType::F32, &[rows])?);
            let sinks = more.then_some(SINKS);
            let sinks_gpu = gpu.tensor(&[2], &sinks.unwrap_or_default())?;
            let twin = Arc::new(cpu::merge(&sums, &stats, splits, d, |row| sinks.map(|s| s[row % 2])));
            let same = twin.clone();
            let mut checks = vec![Check::new("out", &out, Rule::stored_in(dtype), move || twin.0.clone())];
            if more {
                checks.push(Check::new("lse", &lse, Rule::stored_in(DType::F32), move || same.1.clone()));
            }
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (workspace, out, rows, splits, d) =
                    (&workspace, &out, rows as u32, splits as u32, d as u32);
                let parts = Parts { workspace, out, rows, splits, d, heads: 2 };
                merge(recorder, &parts, more.then_some(&sinks_gpu), more.then_some(&lse))
            };
            Ok((launch, checks))
        })
    })
}

/// Rows of two heads, or of one if they are odd, with sinks and sums if `more`.
fn lse_case((level, rows, parts, d, more): Shape, dtype: DType) -> Case {
    let label = format!("{rows} rows, {parts} parts × {d}{}", if more { ", sinks, lse" } else { "" });
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((rows * 5 + parts * 3 + d) as u64);
        let bytes = rows * parts * (d * dtype.size() + 4) + rows * d * dtype.size();
        let cost = Cost { bytes: bytes as u64, flops: (2 * rows * parts * d) as u64 };
        let heads = 2 - rows % 2;
        Prepared::sets(copies, cost, || {
            let mut results = random.values(rows * parts * d, dtype);
            let mut lses: Vec<f32> = (0..rows * parts).map(|_| 4.0 * random.normal()).collect();
            // Every fifth part of all rows, and all parts of the last row, saw no key.
            for i in (0..rows * parts).filter(|i| i / rows % 5 == 4 || i % rows == rows - 1) {
                lses[i] = -1e30;
                results[i * d..][..d].fill(0.0);
            }
            let results_gpu = gpu.floats(dtype, &[parts, 1, rows / heads, heads, d], &results)?;
            let lses_gpu = gpu.tensor(&[parts, 1, rows / heads, heads], &lses)?;
            let out = gpu.output(dtype, &[1, rows / heads, heads, d])?;
            let lse = gpu.output(DType::F32, &[1, rows / heads, heads])?;
            let sinks_gpu = gpu.tensor(&[heads], &SINKS[..heads])?;
            let sink = move |row: usize| more.then(|| SINKS[row % heads]);
            let twin = Arc::new(cpu::merge_lse(&results, &lses, rows, d, sink));
            let same = twin.clone();
            let mut checks = vec![Check::new("out", &out, Rule::stored_in(dtype), move || twin.0.clone())];
            if more {
                checks.push(Check::new("lse", &lse, Rule::stored_in(DType::F32), move || same.1.clone()));
            }
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (parts, lses, out) = (&results_gpu, &lses_gpu, &out);
                let (sinks, lse) = (more.then_some(&sinks_gpu), more.then_some(&lse));
                record_merge(recorder, &MergeLse { parts, lses, out, sinks, lse })
            };
            Ok((launch, checks))
        })
    })
}
