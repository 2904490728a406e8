//! Cases of `attention_varlen`.

use super::Options;
use super::cases::MANY;
use super::cpu::{self, Problem};
use super::spec::DTYPES;
use super::varlen::{AttentionVarlen, Sequences, record_varlen};
use crate::kernel::Level::{Full, Perf, Quick};
use crate::kernel::{Case, Check, Cost, Level, Prepared, Random, Recorder, Rule};
use crate::tensor::DType;

#[derive(Clone, Copy)]
struct Shape {
    level: Level,
    /// (queries, keys) of each sequence.
    lens: &'static [(usize, usize)],
    hq: usize,
    hkv: usize,
    d: usize,
    d_v: usize,
    causal: bool,
    /// With a window, a soft-cap, sinks and sums.
    more: bool,
}

const fn causal(level: Level, lens: &'static [(usize, usize)], hq: usize, hkv: usize, d: usize) -> Shape {
    Shape { level, lens, hq, hkv, d, d_v: d, causal: true, more: false }
}

/// Edges of tiles, more queries than keys, and sequences without queries, keys or both, first, last and between.
const RAGGED: &[(usize, usize)] =
    &[(0, 0), (64, 64), (1, 33), (0, 40), (65, 31), (17, 0), (63, 129), (3, 3), (1, 1), (40, 300), (0, 0)];
const SHAPES: &[Shape] = &[
    causal(Quick, &[(5, 5), (0, 3), (2, 9)], 2, 1, 64),
    Shape { more: true, ..causal(Quick, &[(33, 40), (7, 0), (1, 70)], 4, 2, 64) },
    causal(Full, RAGGED, 3, 1, 40),
    Shape { causal: false, d_v: 96, ..causal(Full, RAGGED, 2, 2, 72) },
    Shape { more: true, d_v: 256, ..causal(Full, RAGGED, 8, 1, 128) },
    causal(Full, &[(30, 30)], 2, 2, 256),
    // Enough workgroups for tiles of twice the rows.
    Shape { more: true, ..causal(Full, &[(70, 80), (10, 40)], 132, 66, 40) },
    causal(Full, &[(1, 0)], MANY, MANY, 8),
    causal(Perf, &[(2048, 2048), (1, 4096), (1024, 1024), (512, 4096), (4096, 4096)], 32, 8, 128),
];

pub(super) fn varlen_cases() -> Vec<Case> {
    let runs = |shape: &Shape, dtype: DType| match dtype {
        DType::F32 => true,
        DType::F16 => shape.hq < MANY,
        _ => shape.level != Full,
    };
    let of = |dtype| SHAPES.iter().filter(move |shape| runs(shape, dtype)).map(move |&shape| (shape, dtype));
    DTYPES.into_iter().flat_map(of).map(|(shape, dtype)| case(shape, dtype)).collect()
}

fn case(shape: Shape, dtype: DType) -> Case {
    let Shape { level, lens, hq, hkv, d, d_v, causal, more } = shape;
    let places: Vec<String> = lens.iter().take(12).map(|(sq, len)| format!("{sq}/{len}")).collect();
    let mut label = format!("{} of {}, heads {hq}/{hkv}×{d}", lens.len(), places.join(" "));
    label += &if d_v == d { String::new() } else { format!(", values of {d_v}") };
    label += if causal { ", causal" } else { "" };
    label += if more { ", window 50, cap 2, sinks, lse" } else { "" };
    let (window, soft_cap) = (more.then_some(50), more.then_some(2.0));
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let (queries, keys) = lens.iter().fold((0, 0), |sum, len| (sum.0 + len.0, sum.1 + len.1));
        let mut random = Random::new((queries * 31 + keys * 7 + d + hq) as u64);
        let sinks = more.then(|| random.values(hq, DType::F32));
        let scale = 1.0 / (d as f32).sqrt();
        // Each sequence by itself.
        let alone = |&(sq, len): &(usize, usize)| {
            let (lens, capacity, sinks) = (vec![len], len, sinks.clone());
            let plain = Problem { sq, hq, hkv, d, d_v, capacity, lens, causal, scale, ..Problem::default() };
            Problem { window, soft_cap, sinks, ..plain }
        };
        let problems: Vec<Problem> = lens.iter().map(alone).collect();
        let pairs: usize = problems.iter().map(Problem::pairs).sum();
        let bytes = (queries * hq + keys * hkv) * (d + d_v) * dtype.size();
        let cost = Cost { bytes: bytes as u64, flops: (2 * pairs * (d + d_v)) as u64 };
        Prepared::sets(copies, cost, || {
            let q = random.values(queries * hq * d, dtype);
            let k = random.values(keys * hkv * d, dtype);
            let v = random.values(keys * hkv * d_v, dtype);
            let q_gpu = gpu.floats(dtype, &[queries, hq, d], &q)?;
            let k_gpu = gpu.floats(dtype, &[keys, hkv, d], &k)?;
            let v_gpu = gpu.floats(dtype, &[keys, hkv, d_v], &v)?;
            let sinks_gpu = sinks.as_ref().map(|sinks| gpu.tensor(&[hq], sinks)).transpose()?;
            let out = gpu.output(dtype, &[queries, hq, d_v])?;
            let lse = more.then(|| gpu.output(DType::F32, &[queries, hq])).transpose()?;
            let sequences = Sequences::new(gpu, lens)?;
            let mut checks = Vec::new();
            if let Some(lse) = &lse {
                let (problems, q, k) = (problems.clone(), q.clone(), k.clone());
                // All queries have the sink at least.
                let want = move || each(&problems, |p, [q_at, k_at, _]| cpu::lse(&q[q_at..], &k[k_at..], p));
                checks.push(Check::new("lse", lse, Rule::stored_in(DType::F32), want));
            }
            let problems = problems.clone();
            let want = move || {
                each(&problems, |p, [q_at, k_at, v_at]| cpu::attention(&q[q_at..], &k[k_at..], &v[v_at..], p))
            };
            checks.push(Check::new("out", &out, Rule::stored_in(dtype), want));
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (q, k, v, out, sequences) = (&q_gpu, &k_gpu, &v_gpu, &out, &sequences);
                let (sinks, lse) = (sinks_gpu.as_ref(), lse.as_ref());
                let options = Options { causal, window, soft_cap, sinks, lse, ..Options::full(scale) };
                record_varlen(recorder, &AttentionVarlen { q, k, v, out, sequences, options })
            };
            Ok((launch, checks))
        })
    })
}

/// What each sequence gives, from where its queries, keys and values start.
fn each(problems: &[Problem], of: impl Fn(&Problem, [usize; 3]) -> Vec<f64>) -> Vec<f64> {
    let mut at = [0; 3];
    let mut all = Vec::new();
    for p in problems {
        all.extend(of(p, at));
        let len = p.lens[0];
        at = [at[0] + p.sq * p.hq * p.d, at[1] + len * p.hkv * p.d, at[2] + len * p.hkv * p.d_v];
    }
    all
}
