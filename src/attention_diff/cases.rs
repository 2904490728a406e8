//! Cases of both kernels, and of the whole: `diff_queries`, attention and `diff_combine` together.

use super::cpu::{self, Subtraction};
use super::spec::DTYPES;
use super::{
    AttentionDiff, AttentionDiffPaged, Difference, Lambda, Scratch, SubNorm, pad_queries, record,
    record_combine, record_paged,
};
use crate::attention::{self, Options, Problem};
use crate::device::Gpu;
use crate::error::Result;
use crate::kernel::Level::{Full, Perf, Quick};
use crate::kernel::{Case, Check, Cost, Level, Prepared, Random, Recorder, Rule};
use crate::kv::{self, Context, KvBlocks, KvFormat, KvShape, KvWrite};
use crate::tensor::{DType, Tensor};

pub(super) fn queries_cases() -> Vec<Case> {
    // Heads of all tokens, and their width; the last has more workgroups than one grid dimension holds.
    let shapes = [
        (Quick, 3, 32),
        (Quick, 5, 12),
        (Full, 1, 4),
        (Full, 7, 128),
        (Full, 33, 20),
        (Full, 1_050_000, 4),
        (Perf, 2048 * 16, 64),
    ];
    let all = DTYPES.into_iter().flat_map(|dtype| shapes.map(|shape| queries_case(shape, dtype)));
    all.collect()
}

fn queries_case((level, heads, d): (Level, usize, usize), dtype: DType) -> Case {
    Case::new(level, dtype.wgsl(), format!("{heads} heads×{d}"), move |gpu, copies| {
        let mut random = Random::new((heads * 31 + d) as u64);
        let cost = Cost { bytes: (heads * 6 * d * dtype.size()) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let q = random.values(heads * 2 * d, dtype);
            let q_gpu = gpu.floats(dtype, &[heads, 2, d], &q)?;
            let out = gpu.output(dtype, &[heads, 2, 2 * d])?;
            let want = move || {
                let pad = |(n, x): (usize, &f32)| if n / d == 0 || n / d == 3 { f64::from(*x) } else { 0.0 };
                let twice = |pair: &[f32]| [&pair[..d], &pair[..d], &pair[d..], &pair[d..]].concat();
                q.chunks(2 * d)
                    .flat_map(|pair| twice(pair).iter().enumerate().map(pad).collect::<Vec<_>>())
                    .collect()
            };
            let check = Check::new("out", &out, Rule::stored_in(dtype), want);
            Ok((move |r: &mut Recorder<'_, '_>| pad_queries(r, &q_gpu, &out), vec![check]))
        })
    })
}

/// Where λ comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
enum LambdaOf {
    One,
    Heads,
    /// Vectors of this length, for all heads or for each.
    Vectors(usize),
    VectorsOfHeads(usize),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum NormOf {
    None,
    Ones,
    Weights,
}

/// A [`Difference`], and what the reference needs to know of it.
struct Operands {
    /// λ, or its vectors q1, k1, q2, k2.
    lambda: Vec<Tensor>,
    weight: Option<Tensor>,
    norm: NormOf,
    twin: Subtraction,
}

const INIT: f32 = 0.35;
const FACTOR: f32 = 1.0 - INIT;
const EPS: f32 = 1e-5;

impl Operands {
    fn new(
        gpu: &Gpu,
        random: &mut Random,
        (of, norm): (LambdaOf, NormOf),
        (heads, d_v, dtype): (usize, usize, DType),
    ) -> Result<Operands> {
        let (count, d, each) = match of {
            LambdaOf::One => (1, 1, 1),
            LambdaOf::Heads => (1, 1, heads),
            LambdaOf::Vectors(d) => (4, d, 1),
            LambdaOf::VectorsOfHeads(d) => (4, d, heads),
        };
        // Exponents of about ±1.
        let size = if count == 4 { 0.9 / (d as f32).powf(0.25) } else { 1.0 };
        let vectors: Vec<Vec<f32>> =
            (0..count).map(|_| (0..each * d).map(|_| size * random.normal()).collect()).collect();
        let shape: &[usize] = match of {
            LambdaOf::One | LambdaOf::Heads => &[each],
            LambdaOf::Vectors(_) => &[d],
            LambdaOf::VectorsOfHeads(_) => &[each, d],
        };
        let tensors = vectors.iter().map(|v| gpu.tensor(shape, v)).collect::<Result<_>>()?;
        let lambda = match &vectors[..] {
            [q1, k1, q2, k2] => {
                let of = |n: usize| {
                    let [q1, k1, q2, k2] = [q1, k1, q2, k2].map(|v| &v[n * d..][..d]);
                    cpu::lambda([q1, q2], [k1, k2], INIT)
                };
                (0..each).map(of).collect()
            }
            given => given[0].iter().map(|&l| f64::from(l)).collect(),
        };
        let weights = (norm == NormOf::Weights).then(|| random.values(d_v, dtype));
        let weight = weights.as_ref().map(|w| gpu.floats(dtype, &[d_v], w)).transpose()?;
        let twin =
            Subtraction { lambda, norm: (norm != NormOf::None).then_some((EPS, weights)), factor: FACTOR };
        Ok(Operands { lambda: tensors, weight, norm, twin })
    }

    fn difference(&self) -> Difference<'_> {
        let lambda = match &self.lambda[..] {
            [q1, k1, q2, k2] => Lambda::Learned { q: [q1, q2], k: [k1, k2], init: INIT },
            given => Lambda::Given(&given[0]),
        };
        let norm = SubNorm { weight: self.weight.as_ref(), eps: EPS };
        Difference { lambda, norm: (self.norm != NormOf::None).then_some(norm), factor: FACTOR }
    }
}

pub(super) fn combine_cases() -> Vec<Case> {
    use LambdaOf::{Heads, One, Vectors, VectorsOfHeads};
    use NormOf::{None, Ones, Weights};
    let shapes = [
        (Quick, 3, 4, 64, Heads, None),
        (Quick, 2, 2, 128, Vectors(64), Ones),
        (Full, 1, 1, 8, One, None),
        (Full, 5, 3, 40, VectorsOfHeads(20), Weights),
        (Full, 7, 2, 256, VectorsOfHeads(128), Ones),
        (Full, 2, 5, 248, Vectors(1), None),
        (Full, 3, 3, 24, Heads, Weights),
        // More workgroups than one grid dimension holds.
        (Full, 22_000, 3, 8, Heads, Ones),
        (Perf, 2048, 16, 128, Vectors(64), Weights),
    ];
    let mut all: Vec<Case> = DTYPES
        .into_iter()
        .flat_map(|dtype| {
            shapes.map(|(level, n, h, d_v, l, norm)| combine_case((level, n, h, d_v), (l, norm), dtype))
        })
        .collect();
    all.extend(DTYPES.into_iter().flat_map(whole_cases));
    all
}

fn combine_case(
    (level, tokens, heads, d_v): (Level, usize, usize, usize),
    how: (LambdaOf, NormOf),
    dtype: DType,
) -> Case {
    let label = format!("{tokens}×{heads} heads×{d_v}, lambda {:?}, norm {:?}", how.0, how.1);
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((tokens * 31 + heads * 7 + d_v) as u64);
        let elements = tokens * heads * d_v;
        let cost = Cost { bytes: (3 * elements * dtype.size()) as u64, flops: (6 * elements) as u64 };
        Prepared::sets(copies, cost, || {
            let parts = random.values(2 * elements, dtype);
            let operands = Operands::new(gpu, &mut random, how, (heads, d_v, dtype))?;
            let parts_gpu = gpu.floats(dtype, &[1, tokens, 2 * heads, d_v], &parts)?;
            let out = gpu.output(dtype, &[1, tokens, heads, d_v])?;
            let twin = operands.twin.clone();
            let want = move || {
                let half = |s: usize| -> Vec<f64> {
                    parts.chunks(d_v).skip(s).step_by(2).flatten().map(|&x| f64::from(x)).collect()
                };
                cpu::combine(&half(0), &half(1), d_v, &twin)
            };
            let check = Check::new("out", &out, Rule::stored_in(dtype), want);
            let launch = move |r: &mut Recorder<'_, '_>| {
                record_combine(r, &parts_gpu, &out, &operands.difference(), Option::None)
            };
            Ok((launch, vec![check]))
        })
    })
}

/// Where keys and values are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// In tensors, with so many rows behind the last key.
    Tensors(usize),
    /// In scrambled blocks of so many rows.
    Blocks(KvFormat, usize),
}

/// The whole of differential attention.
#[derive(Clone)]
struct Whole {
    level: Level,
    sq: usize,
    /// Hq, Hkv, D and Dv.
    sizes: [usize; 4],
    /// Keys of each sequence; in tensors, all alike.
    lens: Vec<usize>,
    place: Place,
    causal: bool,
    window: Option<usize>,
    soft_cap: Option<f32>,
    /// Heads of the bias, if there is one.
    bias: Option<usize>,
    /// Sinks and LSE.
    extras: bool,
    how: (LambdaOf, NormOf),
}

fn whole_cases(dtype: DType) -> Vec<Case> {
    use Place::{Blocks, Tensors};
    let plain = |level, sq, sizes: [usize; 4], lens: &[usize], place| {
        let (lens, how) = (lens.to_vec(), (LambdaOf::Vectors(sizes[2]), NormOf::Ones));
        let (causal, window, soft_cap, bias, extras) = (true, None, None, None, false);
        Whole { level, sq, sizes, lens, place, causal, window, soft_cap, bias, extras, how }
    };
    let heads = (LambdaOf::Heads, NormOf::None);
    let all = |whole: Whole| Whole { window: Some(9), soft_cap: Some(1.5), extras: true, ..whole };
    let mut wholes = vec![
        plain(Quick, 5, [4, 2, 32, 64], &[7; 2], Tensors(2)),
        plain(Quick, 1, [4, 1, 32, 64], &[70, 130], Blocks(KvFormat::F32, 16)),
        Whole { how: heads, ..plain(Full, 1, [3, 1, 64, 128], &[300], Tensors(0)) },
        // Queries that see no key; no key at all.
        Whole { how: heads, ..plain(Full, 12, [2, 2, 32, 64], &[5], Tensors(3)) },
        Whole { how: heads, ..plain(Full, 3, [2, 1, 32, 64], &[0], Tensors(4)) },
        Whole { causal: false, ..plain(Full, 33, [6, 2, 4, 8], &[65], Tensors(1)) },
        plain(Full, 70, [4, 2, 128, 256], &[90], Tensors(0)),
        plain(Full, 9, [3, 3, 20, 40], &[129; 2], Tensors(7)),
        all(plain(Full, 20, [4, 2, 32, 64], &[40; 2], Tensors(0))),
        Whole { bias: Some(8), ..all(plain(Full, 20, [4, 2, 32, 64], &[40; 2], Tensors(0))) },
        Whole {
            bias: Some(1),
            causal: false,
            how: heads,
            ..plain(Full, 2, [4, 1, 32, 64], &[200], Tensors(0))
        },
        all(plain(Full, 3, [4, 2, 32, 64], &[77, 0, 12], Blocks(KvFormat::Int8, 8))),
        Whole { bias: Some(8), ..all(plain(Full, 2, [4, 2, 32, 64], &[77, 3], Blocks(KvFormat::F16, 8))) },
        plain(Full, 21, [4, 2, 32, 64], &[60, 21, 33], Blocks(KvFormat::Fp4, 24)),
        plain(Perf, 1, [16, 4, 64, 128], &[32_768], Tensors(0)),
        plain(Perf, 2048, [16, 4, 64, 128], &[2048], Tensors(0)),
    ];
    if dtype == DType::F16 {
        // The same code runs; these cover every load and store.
        wholes.retain(|w| w.level != Full || w.sq == 20 || w.sq == 3);
    }
    wholes.into_iter().map(|whole| whole_case(whole, dtype)).collect()
}

fn whole_case(w: Whole, dtype: DType) -> Case {
    let [hq, hkv, d, d_v] = w.sizes;
    let mut label = format!("attention {} over {:?}, heads {hq}/{hkv}×{d}, {d_v}", w.sq, w.lens);
    label += &match w.place {
        Place::Tensors(behind) => format!(" + {behind}"),
        Place::Blocks(format, block) => format!(", {} in blocks of {block}", format.name()),
    };
    label += if w.causal { ", causal" } else { "" };
    label += &w.window.map_or(String::new(), |n| format!(", window {n}"));
    label += &w.soft_cap.map_or(String::new(), |cap| format!(", cap {cap}"));
    label += &w.bias.map_or(String::new(), |n| format!(", bias of {n} heads"));
    label += if w.extras { ", sinks, lse" } else { "" };
    label += &format!(", lambda {:?}, norm {:?}", w.how.0, w.how.1);
    Case::new(w.level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((w.sq * 31 + d) as u64);
        let (b, longest) = (w.lens.len(), w.lens.iter().copied().max().unwrap_or(0));
        let capacity = longest + if let Place::Tensors(behind) = w.place { behind } else { 0 };
        let (lens, sq) = (w.lens.clone(), w.sq);
        let scale = 1.0 / (d as f32).sqrt();
        let mut p = Problem { sq, hq, hkv, d, d_v, capacity, lens, scale, ..Problem::default() };
        (p.causal, p.window, p.soft_cap) = (w.causal, w.window, w.soft_cap);
        p.sinks = w.extras.then(|| random.values(2 * hq, DType::F32));
        p.bias = w.bias.map(|heads| {
            let shape = [b, heads, sq, longest];
            (random.values(shape.iter().product(), DType::F32), shape)
        });
        let bytes = b * (longest * hkv + sq * hq) * (2 * d + d_v) * dtype.size();
        let cost = Cost { bytes: bytes as u64, flops: (4 * p.pairs() * (d + d_v)) as u64 };
        Prepared::sets(copies, cost, || {
            let q = random.values(b * sq * hq * 2 * d, dtype);
            let mut k = random.values(b * capacity * hkv * 2 * d, dtype);
            let mut v = random.values(b * capacity * hkv * d_v, dtype);
            let q_gpu = gpu.floats(dtype, &[b, sq, hq, 2, d], &q)?;
            let keys = Keys::new(gpu, &w, &mut random, (&mut k, &mut v), capacity, dtype)?;
            let operands = Operands::new(gpu, &mut random, w.how, (hq, d_v, dtype))?;
            let sinks = p.sinks.as_ref().map(|sinks| gpu.tensor(&[2 * hq], sinks)).transpose()?;
            let bias = p.bias.as_ref().map(|(values, shape)| gpu.tensor(shape, values)).transpose()?;
            let lse = w.extras.then(|| gpu.output(DType::F32, &[b, sq, 2 * hq])).transpose()?;
            let out = gpu.output(dtype, &[b, sq, hq, d_v])?;
            let queries = gpu.output(dtype, &[b * sq * hq * 4 * d])?;
            let parts = gpu.output(dtype, &[b * sq * hq * 2 * d_v])?;
            let room = attention::merged_workspace_len(gpu, b, sq, 2 * hq, hkv, d_v, longest);
            let workspace = gpu.output(DType::F32, &[room])?;
            let mut checks = Vec::new();
            if let Some(lse) = &lse {
                let (q, k, p) = (q.clone(), k.clone(), p.clone());
                checks
                    .push(Check::new("lse", lse, Rule::stored_in(DType::F32), move || cpu::lse(&q, &k, &p)));
            }
            // In f16 both results are rounded before one is subtracted from the other.
            let rule = if dtype == DType::F16 { Rule::Normalised(1e-3) } else { Rule::stored_in(dtype) };
            let (twin, problem) = (operands.twin.clone(), p.clone());
            let want = move || cpu::attention_diff(&q, &k, &v, &problem, &twin);
            checks.push(Check::new("out", &out, rule, want));
            let (causal, window, soft_cap) = (w.causal, w.window, w.soft_cap);
            let launch = move |r: &mut Recorder<'_, '_>| {
                let (bias, sinks, lse) = (bias.as_ref(), sinks.as_ref(), lse.as_ref());
                let options = Options { causal, window, soft_cap, bias, sinks, lse, ..Options::full(scale) };
                let difference = operands.difference();
                let scratch = Scratch { queries: &queries, parts: &parts, workspace: &workspace };
                let (q, out) = (&q_gpu, &out);
                let Keys { k, v, blocks } = &keys;
                match blocks {
                    None => {
                        let kv_len = longest;
                        record(r, &AttentionDiff { q, k, v, out, kv_len, options, difference, scratch })
                    }
                    Some(Blocks { slots, cache, table }) => {
                        r.at_any_tier(|r| kv::record(r, &KvWrite { k, v, slots, cache }))?;
                        let context = Context::Paged { table, longest };
                        let request =
                            AttentionDiffPaged { q, cache, context, out, options, difference, scratch };
                        record_paged(r, &request)
                    }
                }
            };
            Ok((launch, checks))
        })
    })
}

/// Keys and values on the GPU: all there is, or new rows for a cache.
struct Keys {
    k: Tensor,
    v: Tensor,
    blocks: Option<Blocks>,
}

struct Blocks {
    slots: Tensor,
    cache: KvBlocks,
    table: Tensor,
}

impl Keys {
    /// Changes the values to what a cache of their format holds. Rows that belong to no sequence stay: they are not to
    /// be read.
    fn new(
        gpu: &Gpu,
        w: &Whole,
        random: &mut Random,
        (k, v): (&mut [f32], &mut [f32]),
        capacity: usize,
        dtype: DType,
    ) -> Result<Keys> {
        let ([_, hkv, d, d_v], b) = (w.sizes, w.lens.len());
        let (format, block) = match w.place {
            Place::Tensors(_) => {
                let k = gpu.floats(dtype, &[b, capacity, hkv, 2, d], k)?;
                let v = gpu.floats(dtype, &[b, capacity, hkv, d_v], v)?;
                return Ok(Keys { k, v, blocks: None });
            }
            Place::Blocks(format, block) => (format, block),
        };
        let rows = b * capacity;
        let (k_gpu, v_gpu) =
            (gpu.floats(dtype, &[rows, hkv, 2 * d], k)?, gpu.floats(dtype, &[rows, hkv, d_v], v)?);
        for row in k.chunks_mut(2 * d).chain(v.chunks_mut(d_v)) {
            let (words, scale) = (kv::cpu::pack(format, row), kv::cpu::scale(format, row));
            row.iter_mut().zip(kv::cpu::unpack(format, &words, scale)).for_each(|(x, y)| *x = y as f32);
        }
        let columns = 1 + capacity.div_ceil(block);
        let blocks = b * (columns - 1) + 1;
        let order = random.order(blocks);
        let (mut table, mut slots) = (Vec::new(), Vec::new());
        for (n, &len) in w.lens.iter().enumerate() {
            let own = &order[n * (columns - 1)..][..columns - 1];
            table.push(len as u32);
            table.extend(own);
            // Past its end a sequence writes nowhere.
            let slot = |j: usize| {
                if j < len { own[j / block] * block as u32 + (j % block) as u32 } else { u32::MAX }
            };
            slots.extend((0..capacity).map(slot));
        }
        let cache = KvBlocks::new(gpu, format, KvShape { blocks, kv_heads: hkv, block, d: 2 * d, d_v })?;
        let table = gpu.tensor(&[b, columns], &table)?;
        let blocks = Blocks { slots: gpu.tensor(&[rows], &slots)?, cache, table };
        Ok(Keys { k: k_gpu, v: v_gpu, blocks: Some(blocks) })
    }
}
