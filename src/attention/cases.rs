//! Cases of `attention` and `attention_decode` over tensors.

use super::cpu::Problem;
use super::decode::record_split;
use super::extra::{BiasOf, Extra, PLAIN};
use super::paged_cases::paged_cases;
use super::plan::Splits;
use super::spec::DTYPES;
use super::{Attention, AttentionDecode, record};
use crate::kernel::{Case, Cost, Level, Prepared, Random, Recorder, round_to};
use crate::tensor::DType;
use crate::tree::Growth;

/// Operands of a case.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Data {
    Normal,
    /// Scores eight times as wide as usual: the maxima of rows rise several times, by some units.
    Steep,
    /// Integers whose scores reach ±6·10⁴ and beyond and are exact in f32, each key twice: the softmax is all but
    /// one-hot, and an error of scaling or an overflow of exp shows. Values reach ±5·10⁴.
    Large,
}

use Data::{Large, Normal, Steep};
use Level::{Full, Perf, Quick};

/// (level, B, Sq, Hq, Hkv, D, kv_len, rows behind it, causal, data)
type Shape = (Level, usize, usize, usize, usize, usize, usize, usize, bool, Data);

/// Heads or rows that make more workgroups than one grid dimension holds. Software GPUs need seconds for so many, so
/// the attention cases among them have no keys (every group must write its zeros) and only f32 is run.
pub(super) const MANY: usize = 66_000;

pub(super) fn prefill_cases() -> Vec<Case> {
    let shapes: &[Shape] = &[
        (Quick, 1, 5, 2, 1, 64, 7, 2, true, Normal),
        (Quick, 2, 33, 3, 1, 80, 37, 0, false, Normal),
        (Full, 1, 1, 1, 1, 8, 1, 0, false, Normal),
        (Full, 1, 1, 1, 1, 8, 0, 4, false, Normal),
        (Full, 3, 63, 1, 1, 8, 31, 1, false, Normal),
        (Full, 1, 64, 2, 2, 40, 32, 0, true, Normal),
        (Full, 1, 65, 2, 2, 40, 33, 5, true, Normal),
        (Full, 2, 127, 3, 1, 64, 129, 3, true, Normal),
        (Full, 1, 9, 16, 2, 128, 700, 9, true, Normal),
        (Full, 1, 33, 8, 1, 64, 3000, 1, true, Normal),
        (Full, 1, 300, 1, 1, 32, 1, 2, true, Normal),
        (Full, 1, 22, 16, 1, 128, 65, 0, true, Normal),
        (Full, 2, 17, 3, 3, 80, 130, 30, true, Normal),
        (Full, 1, 40, 4, 2, 96, 100, 1, false, Normal),
        (Full, 1, 67, 2, 1, 192, 50, 2, true, Normal),
        (Full, 1, 70, 2, 1, 256, 95, 3, true, Normal),
        (Full, 1, 30, 2, 2, 248, 20, 0, true, Normal),
        (Full, 1, 37, 2, 1, 64, 45, 3, true, Large),
        (Full, 1, 70, 2, 1, 64, 300, 0, true, Steep),
        // Enough workgroups for tiles of twice the rows.
        (Full, 1, 65, 132, 132, 32, 70, 2, true, Normal),
        (Full, 1, 75, 132, 66, 64, 150, 3, true, Steep),
        (Full, 1, 1, MANY, MANY, 8, 0, 1, true, Normal),
        (Perf, 1, 2048, 32, 8, 128, 2048, 0, true, Normal),
        (Perf, 1, 4096, 32, 8, 128, 4096, 0, true, Normal),
    ];
    let mut all = plain_cases(shapes, Call::Prefill);
    all.extend(DTYPES.into_iter().flat_map(|dtype| extra_cases(dtype, Call::Prefill)));
    all
}

pub(super) fn decode_cases() -> Vec<Case> {
    let shapes: &[Shape] = &[
        (Quick, 1, 1, 4, 1, 64, 130, 6, true, Normal),
        (Quick, 2, 5, 3, 1, 80, 37, 0, true, Normal),
        (Full, 1, 1, 1, 1, 8, 1, 0, false, Normal),
        (Full, 1, 2, 1, 1, 8, 0, 4, false, Normal),
        (Full, 3, 1, 2, 2, 40, 127, 1, true, Normal),
        (Full, 1, 2, 2, 2, 40, 128, 0, true, Normal),
        (Full, 1, 2, 3, 3, 192, 129, 5, true, Normal),
        (Full, 1, 8, 6, 2, 64, 5, 3, true, Normal),
        (Full, 2, 8, 16, 2, 128, 255, 3, true, Normal),
        (Full, 1, 5, 16, 1, 128, 257, 9, false, Normal),
        (Full, 1, 1, 32, 4, 128, 700, 9, true, Normal),
        (Full, 1, 1, 1, 1, 256, 600, 2, true, Normal),
        (Full, 3, 2, 8, 1, 256, 513, 2, true, Normal),
        (Full, 1, 3, 2, 1, 64, 301, 3, true, Large),
        (Full, 1, 2, 8, 2, 128, 1500, 1, true, Steep),
        (Full, 1, 1, MANY, MANY, 8, 0, 1, true, Normal),
        (Perf, 1, 1, 32, 8, 128, 4096, 0, true, Normal),
        (Perf, 1, 1, 32, 8, 128, 32_768, 0, true, Normal),
        (Perf, 16, 1, 32, 8, 128, 4096, 0, true, Normal),
    ];
    let mut all = plain_cases(shapes, Call::Decode(None));
    // As the adapter would never split them: many and short, more splits than fit a subgroup, one.
    let forced: &[(u32, Shape)] = &[
        (7, (Full, 2, 8, 3, 1, 40, 20, 1, true, Normal)),
        (100, (Full, 1, 1, 4, 2, 128, 700, 2, true, Normal)),
        (256, (Full, 1, 2, 1, 1, 80, 256, 0, true, Normal)),
        (1, (Full, 1, 1, 8, 1, 128, 1100, 2, true, Normal)),
    ];
    for dtype in DTYPES {
        let some = forced.iter().filter(|(_, shape)| runs(shape, dtype));
        all.extend(some.map(|(n, shape)| attention_case(*shape, PLAIN, dtype, Call::Decode(Some(*n)))));
        all.extend(extra_cases(dtype, Call::Decode(None)));
    }
    all.extend(paged_cases());
    all
}

/// Whether a shape is run in that dtype. bf16 differs from f16 in how elements are read and stored, not in what edges
/// there are: a few shapes serve. (It cannot hold the integers of [`Large`].)
fn runs(&(level, _, _, heads, _, d, ..): &Shape, dtype: DType) -> bool {
    match dtype {
        DType::F16 => heads < MANY,
        DType::Bf16 => heads < MANY && (level != Full || d > 192),
        _ => true,
    }
}

fn plain_cases(shapes: &[Shape], call: Call) -> Vec<Case> {
    let of = |dtype| shapes.iter().filter(move |shape| runs(shape, dtype)).map(move |&shape| (shape, dtype));
    DTYPES.into_iter().flat_map(of).map(|(shape, dtype)| attention_case(shape, PLAIN, dtype, call)).collect()
}

#[derive(Clone, Copy)]
enum Call {
    Prefill,
    /// With the planned number of splits, or at most this many.
    Decode(Option<u32>),
}

fn extra_cases(dtype: DType, call: Call) -> Vec<Case> {
    let window = |n| Extra { window: Some(n), ..PLAIN };
    let cap = |cap| Extra { soft_cap: Some(cap), ..PLAIN };
    let bias = |of| Extra { bias: Some(of), ..PLAIN };
    let (sunk, summed) = (Extra { sinks: true, ..PLAIN }, Extra { lse: true, ..PLAIN });
    let all = Extra {
        window: Some(70),
        soft_cap: Some(2.0),
        bias: Some(BiasOf::All),
        tree: None,
        sinks: true,
        lse: true,
        d_v: 0,
    };
    let tree = |of| Extra { tree: Some(of), ..PLAIN };
    let branches = Extra { tree: Some(Growth::Depth(4)), bias: None, ..all };
    let shapes: &[(Shape, Extra)] = &[
        ((Quick, 2, 3, 4, 2, 64, 150, 3, true, Normal), all),
        ((Full, 1, 5, 3, 1, 40, 133, 3, true, Normal), window(1)),
        ((Full, 1, 7, 2, 2, 64, 300, 0, true, Normal), window(2)),
        ((Full, 1, 8, 4, 1, 96, 700, 0, true, Normal), window(130)),
        ((Full, 1, 4, 2, 2, 8, 90, 0, true, Normal), window(90)),
        // Queries before the first key see nothing, with and without a window.
        ((Full, 1, 8, 2, 1, 16, 5, 0, true, Normal), Extra { lse: true, ..window(3) }),
        ((Full, 1, 8, 2, 1, 16, 5, 0, true, Normal), Extra { d_v: 80, ..sunk }),
        ((Full, 2, 3, 2, 1, 64, 0, 2, true, Normal), all),
        ((Full, 2, 6, 8, 2, 128, 301, 1, false, Normal), cap(0.5)),
        ((Full, 1, 3, 2, 1, 64, 64, 0, true, Large), cap(30.0)),
        ((Full, 2, 1, 6, 2, 64, 200, 1, true, Normal), bias(BiasOf::Heads)),
        ((Full, 3, 4, 2, 1, 128, 70, 1, false, Normal), bias(BiasOf::Queries)),
        ((Full, 1, 2, 2, 1, 64, 300, 3, true, Large), Extra { sinks: true, ..summed }),
        ((Full, 2, 7, 3, 3, 32, 65, 0, true, Normal), summed),
        ((Full, 1, 4, 2, 1, 192, 40, 1, true, Normal), Extra { d_v: 128, ..PLAIN }),
        ((Full, 2, 4, 2, 1, 40, 140, 1, true, Normal), Extra { d_v: 256, ..all }),
        ((Quick, 2, 5, 4, 2, 64, 150, 3, true, Normal), tree(Growth::Depth(8))),
        ((Full, 2, 7, 6, 2, 64, 301, 1, true, Normal), branches),
        ((Full, 1, 6, 3, 1, 40, 92, 0, true, Normal), tree(Growth::Chain)),
        ((Full, 3, 8, 4, 4, 128, 120, 2, true, Normal), tree(Growth::Star)),
        ((Full, 3, 3, 2, 1, 80, 90, 1, true, Normal), tree(Growth::Star)),
        // Enough workgroups for tiles of twice the rows.
        ((Full, 1, 6, 132, 66, 96, 90, 1, true, Normal), all),
        ((Full, 1, 6, 132, 66, 128, 80, 0, true, Normal), tree(Growth::Depth(9))),
        // Nodes deeper than the window.
        ((Full, 2, 8, 2, 1, 96, 200, 0, true, Normal), Extra { window: Some(3), ..tree(Growth::Depth(6)) }),
    ];
    let some = shapes.iter().filter(|(shape, extra)| runs(shape, dtype) || (extra.d_v > 192));
    some.map(|&(shape, extra)| attention_case(shape, extra, dtype, call)).collect()
}

fn attention_case(shape: Shape, extra: Extra, dtype: DType, call: Call) -> Case {
    let (level, b, sq, hq, hkv, d, kv_len, spare, causal, data) = shape;
    // Few queries are what decoding takes; tiles of many have edges.
    let sq = if matches!(call, Call::Prefill) && extra != PLAIN { 11 * sq + 1 } else { sq };
    let capacity = kv_len + spare;
    let scale = match data {
        Normal => 1.0 / (d as f32).sqrt(),
        Steep => 8.0 / (d as f32).sqrt(),
        Large => 1.0,
    };
    let d_v = if extra.d_v == 0 { d } else { extra.d_v };
    let mut label = format!("{b}×{sq} over {kv_len}/{capacity}, heads {hq}/{hkv}×{d}");
    if causal {
        label += ", causal";
    }
    label += match data {
        Normal => "",
        Steep => ", steep scores",
        Large => ", large scores",
    };
    label += &extra.label();
    if let Call::Decode(Some(n)) = call {
        label += &format!(", {n} splits");
    }
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((sq * 31 + kv_len * 7 + d + hq) as u64);
        let lens = vec![kv_len; b];
        let mut p = Problem { sq, hq, hkv, d, d_v, capacity, lens, causal, scale, ..Problem::default() };
        let elements = b * (sq * hq + kv_len * hkv) * (d + d_v);
        let flops = (2 * p.pairs() * (d + d_v)) as u64;
        Prepared::sets(copies, Cost { bytes: (elements * dtype.size()) as u64, flops }, || {
            let (q, k) = match data {
                Normal | Steep => (
                    random.values(b * sq * hq * d, dtype),
                    cached(&p, random.values(b * capacity * hkv * d, dtype), d),
                ),
                Large => {
                    let (q, k) = large(&mut random, b * sq * hq * d, b * capacity * hkv, hkv, d);
                    (q, cached(&p, k, d))
                }
            };
            let edge = if data == Large { 15_000.0 } else { 1.0 };
            let v = (0..b * capacity * hkv * d_v).map(|_| round_to(edge * random.normal(), dtype)).collect();
            let v = cached(&p, v, d_v);
            let extras = extra.apply(gpu, &mut p, &mut random)?;
            let q_gpu = gpu.floats(dtype, &[b, sq, hq, d], &q)?;
            let k_gpu = gpu.floats(dtype, &[b, capacity, hkv, d], &k)?;
            let v_gpu = gpu.floats(dtype, &[b, capacity, hkv, d_v], &v)?;
            let out = gpu.output(dtype, &[b, sq, hq, d_v])?;
            let splits = match call {
                Call::Decode(most) => most,
                Call::Prefill => None,
            };
            let room = match (call, splits) {
                (Call::Prefill, _) => 0,
                (_, Some(most)) => {
                    Splits::of(kv_len as u32, most).workspace((b * sq * hq) as u64, d_v as u64) as usize
                }
                // As an application sizes it: for the capacity.
                _ => extra.workspace(gpu, [b, sq, hq, hkv], d_v, capacity),
            };
            let workspace = gpu.output(DType::F32, &[room])?;
            let checks = extras.checks(&p, q, k, v, &out);
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (q, k, v, out, workspace) = (&q_gpu, &k_gpu, &v_gpu, &out, &workspace);
                let options = extras.options();
                match call {
                    Call::Prefill => record(recorder, &Attention { q, k, v, out, kv_len, options }),
                    Call::Decode(_) => {
                        let request = AttentionDecode { q, k, v, out, kv_len, options, workspace };
                        record_split(recorder, &request, splits)
                    }
                }
            };
            Ok((launch, checks))
        })
    })
}

/// Values of a cache, NaN behind the keys: nothing of that may be used.
pub(super) fn cached(p: &Problem, mut values: Vec<f32>, d: usize) -> Vec<f32> {
    for (batch, len) in values.chunks_mut((p.capacity * p.hkv * d).max(1)).zip(&p.lens) {
        batch[len * p.hkv * d..].fill(f32::NAN);
    }
    values
}

/// Queries and keys (`rows` of them, `heads` at a time) of [`Large`].
pub(super) fn large(
    random: &mut Random,
    queries: usize,
    rows: usize,
    heads: usize,
    d: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut integer = |most: usize| random.below(2 * most + 1) as f32 - most as f32;
    let q = (0..queries).map(|_| integer(8)).collect();
    let mut k: Vec<f32> = (0..rows * d).map(|_| integer(2000)).collect();
    for pair in k.chunks_exact_mut(2 * heads * d) {
        let (first, second) = pair.split_at_mut(heads * d);
        second.copy_from_slice(first);
    }
    (q, k)
}
