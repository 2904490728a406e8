//! Cases of `attention_decode` and `attention_paged` over the blocks of a cache, in every format.

use super::AttentionPaged;
use super::blocks::record_tiles;
use super::cases::{Data, large};
use super::cpu::Problem;
use super::decode::record_paged_split;
use super::extra::{BiasOf, Extra, PLAIN};
use super::plan::Splits;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::Level::{Full, Perf, Quick};
use crate::kernel::{Case, Cost, Level, Prepared, Random, Recorder, round_to};
use crate::kv::{self, Context, KvBlocks, KvFormat, KvShape};
use crate::tensor::{DType, Tensor};
use crate::tree::Growth;
use Data::{Large, Normal};

/// A call over blocks.
#[derive(Clone)]
struct Shape {
    level: Level,
    sq: usize,
    hq: usize,
    hkv: usize,
    d: usize,
    d_v: usize,
    lens: Vec<usize>,
    /// Rows of a block; in a contiguous cache, beyond those of the longest sequence.
    block: usize,
    paged: bool,
    causal: bool,
    extra: Extra,
    data: Data,
    splits: Option<u32>,
    /// Through `attention_paged`.
    tiles: bool,
    /// Blocks of the pool before those of the sequences; if there are any, the pool lies behind [`BEFORE`] bytes of its buffer.
    others: usize,
}

/// Decoding of causal queries of width 64.
fn shape(level: Level, sq: usize, hq: usize, hkv: usize, lens: &[usize], block: usize) -> Shape {
    let (lens, extra) = (lens.to_vec(), PLAIN);
    let (d, paged, causal, data, splits, tiles) = (64, true, true, Normal, None, false);
    Shape { level, sq, hq, hkv, d, d_v: d, lens, block, paged, causal, extra, data, splits, tiles, others: 0 }
}

/// Sequences at the end of a pool of nearly 2 GiB in f16 (no binding may be larger), which begins 2 GiB into its buffer.
fn beyond(sq: usize) -> Shape {
    Shape { d: 256, d_v: 8, others: 15_500, ..shape(Full, sq, 4, 1, &[300, 0, 700], 256) }
}
/// As matrices take it, of 2 GiB for V too.
fn beyond_for_matrices(sq: usize) -> Shape {
    Shape { d: 64, d_v: 64, others: 65_000, ..beyond(sq) }
}
const BEFORE: u64 = 1 << 31;

/// Cases of `attention_paged`.
pub(super) fn tile_cases() -> Vec<Case> {
    let wide = |d, d_v, shape| Shape { d, d_v, ..shape };
    let contiguous = |shape| Shape { paged: false, ..shape };
    let some = Extra { sinks: true, lse: true, soft_cap: Some(2.0), window: Some(40), ..PLAIN };
    let tree = |of| Extra { tree: Some(of), ..PLAIN };
    let each = [
        // The last block is half full, the second sequence is empty, in the third the first queries see nothing.
        Shape { extra: some, ..shape(Quick, 10, 4, 2, &[90, 0, 7], 8) },
        shape(Full, 65, 2, 1, &[300, 70], 24),
        Shape { extra: tree(Growth::Depth(8)), ..shape(Full, 64, 4, 2, &[64, 300, 91], 16) },
    ];
    let more = [
        wide(8, 256, shape(Full, 33, 6, 2, &[40, 70, 64], 32)),
        wide(256, 40, shape(Full, 9, 16, 1, &[129, 300], 256)),
        wide(80, 192, shape(Full, 64, 1, 1, &[64, 128, 127], 16)),
        wide(40, 72, contiguous(Shape { causal: false, ..shape(Full, 12, 9, 3, &[131; 3], 5) })),
        Shape { data: Large, ..shape(Full, 20, 2, 1, &[77, 21], 64) },
        Shape {
            extra: Extra { window: Some(20), lse: true, soft_cap: Some(2.0), ..tree(Growth::Depth(30)) },
            ..shape(Full, 70, 3, 1, &[130, 77], 8)
        },
        contiguous(Shape { extra: tree(Growth::Chain), ..shape(Full, 33, 2, 2, &[200; 2], 8) }),
        wide(128, 40, Shape { extra: tree(Growth::Star), ..shape(Full, 9, 4, 1, &[9, 40, 10], 8) }),
        Shape { extra: tree(Growth::Star), ..shape(Full, 130, 1, 1, &[200], 32) },
        // More workgroups than one grid dimension holds.
        wide(8, 8, shape(Full, 1, 66_000, 66_000, &[3], 8)),
    ];
    // Enough workgroups for tiles of twice the rows.
    let many = Shape { extra: some, ..shape(Full, 40, 132, 66, &[100, 60], 16) };
    let real = wide(128, 128, shape(Perf, 2048, 32, 8, &[2048], 16));
    let of = |shape: &Shape, format, dtype| case(Shape { tiles: true, ..shape.clone() }, format, dtype);
    let mut all = Vec::new();
    for format in KvFormat::ALL {
        all.extend(each.iter().map(|shape| of(shape, format, DType::F32)));
        all.extend([&each[0], &real].map(|shape| of(shape, format, DType::F16)));
    }
    all.push(of(&beyond(20), KvFormat::F16, DType::F16));
    all.extend(more.iter().map(|shape| of(shape, KvFormat::Int8, DType::F32)));
    all.extend([KvFormat::Bf16, KvFormat::Int4].map(|format| of(&each[0], format, DType::Bf16)));
    all.extend([KvFormat::F16, KvFormat::Int8].map(|format| of(&many, format, DType::F16)));
    all.extend(more[2..5].iter().map(|shape| of(shape, KvFormat::Int8, DType::F16)));
    all
}

pub(super) fn paged_cases() -> Vec<Case> {
    let wide = |d, d_v, shape| Shape { d, d_v, ..shape };
    let narrow = |n, shape| Shape { extra: Extra { window: Some(n), ..PLAIN }, ..shape };
    let contiguous = |shape| Shape { paged: false, ..shape };
    let all = Extra {
        window: Some(40),
        soft_cap: Some(2.0),
        bias: Some(BiasOf::All),
        tree: None,
        sinks: true,
        lse: true,
        d_v: 0,
    };
    let tree = |of| Extra { tree: Some(of), ..PLAIN };
    // In every format, with as few specialisations as serve: drivers need seconds for each.
    let each = [
        // The last block of the first sequence is half full, the second sequence is empty.
        shape(Quick, 1, 4, 1, &[20, 0, 37], 8),
        contiguous(shape(Quick, 2, 2, 1, &[30, 30], 2)),
        wide(128, 128, shape(Full, 1, 8, 1, &[3000, 1, 511, 256], 16)),
        narrow(1, shape(Full, 2, 4, 2, &[9, 100, 1], 8)),
        narrow(70, shape(Full, 4, 2, 2, &[3, 333], 256)),
        Shape { data: Large, ..shape(Full, 2, 2, 1, &[300, 77], 64) },
        Shape { splits: Some(9), ..shape(Full, 1, 9, 3, &[40, 700, 5], 40) },
        Shape { extra: all, ..shape(Full, 2, 4, 2, &[90, 0, 33], 8) },
        Shape { extra: tree(Growth::Depth(4)), ..shape(Full, 8, 4, 2, &[8, 333, 30], 8) },
    ];
    let more = [
        shape(Full, 1, 1, 1, &[1], 8),
        wide(8, 256, shape(Full, 3, 6, 2, &[2, 70, 64], 32)),
        wide(256, 40, shape(Full, 1, 16, 1, &[129, 300], 256)),
        wide(80, 192, shape(Full, 8, 2, 2, &[5, 128, 127], 24)),
        wide(128, 128, contiguous(shape(Full, 2, 16, 2, &[515, 515], 5))),
        contiguous(Shape { causal: false, ..shape(Full, 4, 9, 3, &[131; 3], 5) }),
        Shape { extra: tree(Growth::Star), ..shape(Full, 1, 4, 1, &[1, 70], 8) },
        wide(
            128,
            128,
            contiguous(Shape { extra: tree(Growth::Chain), ..shape(Full, 5, 8, 2, &[300; 2], 3) }),
        ),
        Shape {
            extra: Extra { window: Some(3), ..tree(Growth::Star) },
            ..shape(Full, 7, 2, 1, &[20, 7, 100], 16)
        },
        // More nodes than tiles can take with sinks.
        Shape {
            extra: Extra { sinks: true, lse: true, ..tree(Growth::Depth(8)) },
            ..shape(Full, 64, 2, 1, &[90, 64], 16)
        },
        // A piece of a prompt.
        shape(Full, 37, 3, 1, &[90, 37, 20], 16),
    ];
    // How lanes divide the rows of codes: by width, by rows of queries, and by their dtype. Several steps of one split, or many.
    let one = |shape| Shape { splits: Some(1), ..shape };
    let codes = [
        wide(128, 128, one(shape(Full, 1, 4, 1, &[700, 0, 65], 16))),
        wide(128, 128, shape(Full, 2, 2, 2, &[333, 1], 24)),
        wide(80, 96, one(shape(Full, 1, 3, 1, &[301], 8))),
        wide(96, 80, contiguous(one(shape(Full, 1, 1, 1, &[450], 3)))),
        wide(256, 256, shape(Full, 1, 8, 2, &[130, 37], 8)),
        wide(256, 144, shape(Full, 1, 16, 1, &[77], 8)),
        wide(120, 128, one(shape(Full, 1, 4, 1, &[200], 8))),
        wide(64, 64, one(shape(Full, 1, 16, 1, &[270], 16))),
        wide(128, 128, Shape { extra: all, ..shape(Full, 3, 2, 2, &[190, 50], 16) }),
    ];
    let real = [
        wide(128, 128, shape(Perf, 1, 32, 8, &[32_768], 16)),
        wide(128, 128, contiguous(shape(Perf, 1, 32, 8, &[32_768], 0))),
        wide(128, 128, shape(Perf, 1, 32, 8, &[4096; 16], 16)),
        // Chats: what is fixed counts.
        wide(128, 128, shape(Perf, 1, 32, 8, &[1024], 16)),
        wide(128, 128, shape(Perf, 1, 32, 8, &[4096], 16)),
    ];
    let mut all = Vec::new();
    for format in KvFormat::ALL {
        all.extend(each.iter().map(|shape| case(shape.clone(), format, DType::F32)));
        all.extend(each[..3].iter().chain(&real).map(|shape| case(shape.clone(), format, DType::F16)));
    }
    for shape in [beyond(1), beyond_for_matrices(1)] {
        all.extend([KvFormat::F16, KvFormat::Int8].map(|format| case(shape.clone(), format, DType::F16)));
    }
    all.extend(more.iter().map(|shape| case(shape.clone(), KvFormat::Int8, DType::F32)));
    for format in KvFormat::ALL.into_iter().filter(|format| format.quantised()) {
        all.extend(codes.iter().map(|shape| case(shape.clone(), format, DType::F16)));
        all.extend(codes[..1].iter().map(|shape| case(shape.clone(), format, DType::F32)));
    }
    // Many long sequences, so that the bytes count and what is fixed does not.
    let many = wide(128, 128, contiguous(shape(Perf, 1, 32, 8, &[32_768; 16], 0)));
    // f16 queries, as matrices take them: the cases that every format has, and splits so long that rows are looked up again.
    let long = one(shape(Full, 1, 4, 1, &[9000, 40], 16));
    for format in super::coop::FORMATS {
        all.extend(
            each[3..7].iter().chain([&long, &many]).map(|shape| case(shape.clone(), format, DType::F16)),
        );
    }
    for format in [KvFormat::Bf16, KvFormat::Int4] {
        all.extend(each[..2].iter().map(|shape| case(shape.clone(), format, DType::Bf16)));
    }
    all
}

/// Rows of a cache that differ; they come again from there on, so that real sizes need no minutes of packing.
const DISTINCT: usize = 1021;

/// Keys or values: as the cache stores them, and as they read.
struct Rows {
    words: Vec<Vec<u32>>,
    scales: Vec<u16>,
    values: Vec<Vec<f32>>,
}

impl Rows {
    fn new(format: KvFormat, values: &[f32], d: usize) -> Rows {
        let words: Vec<Vec<u32>> = values.chunks(d).map(|row| kv::cpu::pack(format, row)).collect();
        let scales: Vec<u16> = values.chunks(d).map(|row| kv::cpu::scale(format, row)).collect();
        // Exact: scales have 11 bits, codes no more than 8.
        let unpack = |(words, &scale): (&Vec<u32>, &u16)| {
            kv::cpu::unpack(format, words, scale).into_iter().map(|x| x as f32).collect()
        };
        let values = words.iter().zip(&scales).map(unpack).collect();
        Rows { words, scales, values }
    }
}

/// A cache whose sequences lie in scrambled blocks, with what the reference needs of it. All that belongs to no row is
/// NaN, or a number past the last block.
struct Operands {
    cache: KvBlocks,
    table: Tensor,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn operands(
    gpu: &Gpu,
    s: &Shape,
    format: KvFormat,
    k: &Rows,
    v: &Rows,
    random: &mut Random,
) -> Result<Operands> {
    let longest = s.lens.iter().copied().max().unwrap_or(0);
    let block = if s.paged { s.block } else { (longest + s.block).next_multiple_of(8) };
    let columns = if s.paged { longest.div_ceil(block) + 1 } else { 1 };
    let owned: Vec<usize> = s.lens.iter().map(|len| if s.paged { len.div_ceil(block) } else { 1 }).collect();
    let blocks = owned.iter().sum::<usize>() + 2;
    let order = if s.paged { random.order(blocks) } else { (0..blocks as u32).collect() };
    let shape = KvShape { blocks: s.others + blocks, kv_heads: s.hkv, block, d: s.d, d_v: s.d_v };
    let (k_words, v_words) = (format.row_words(s.d), format.row_words(s.d_v));
    let rows = blocks * s.hkv * block;
    let mut pool = (vec![u32::MAX; rows * k_words], vec![u32::MAX; rows * v_words]);
    let mut scales = vec![u32::MAX; if format.quantised() { rows } else { 0 }];
    let mut table = vec![u32::MAX; s.lens.len() * (1 + columns)];
    let (mut k_all, mut v_all) = (Vec::new(), Vec::new());
    let mut first = 0;
    for (n, (&len, owned)) in s.lens.iter().zip(owned).enumerate() {
        let own = &order[first..first + owned];
        first += owned;
        let line = &mut table[n * (1 + columns)..][..1 + columns];
        line[0] = len as u32;
        line[1..].iter_mut().zip(own).for_each(|(to, block)| *to = s.others as u32 + block);
        for (j, head) in (0..longest).flat_map(|j| (0..s.hkv).map(move |head| (j, head))) {
            let row = ((n * longest + j) * s.hkv + head) % k.words.len();
            k_all.extend(&k.values[row]);
            v_all.extend(&v.values[row]);
            if j < len {
                let at = (own[j / block] as usize * s.hkv + head) * block + j % block;
                pool.0[at * k_words..][..k_words].copy_from_slice(&k.words[row]);
                pool.1[at * v_words..][..v_words].copy_from_slice(&v.words[row]);
                if let Some(scale) = scales.get_mut(at) {
                    *scale = u32::from(k.scales[row]) | u32::from(v.scales[row]) << 16;
                }
            }
        }
    }
    let placed = |words: &[u32], row_words| place(gpu, s.others, words, [blocks, s.hkv, block, row_words]);
    let scaled = if scales.is_empty() { 0 } else { blocks };
    let scales = place(gpu, s.others * scaled.min(1), &scales, [scaled, s.hkv, block, 1])?;
    let cache = KvBlocks {
        format,
        shape,
        k: placed(&pool.0, k_words)?,
        v: placed(&pool.1, v_words)?,
        scales: scales.reshape(&scales.shape()[..3])?,
    };
    Ok(Operands { cache, table: gpu.tensor(&[s.lens.len(), 1 + columns], &table)?, k: k_all, v: v_all })
}

/// Blocks in a pool, behind so many others.
fn place(gpu: &Gpu, others: usize, words: &[u32], shape: [usize; 4]) -> Result<Tensor> {
    let [blocks, heads, block, row_words] = shape;
    if others == 0 {
        return gpu.tensor(&shape, words);
    }
    let block_bytes = (4 * heads * block * row_words) as u64;
    // No tensor of ours is larger than a binding may be, but a caller's buffer can.
    let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("pool"),
        size: BEFORE + (others + blocks) as u64 * block_bytes,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let at = BEFORE + others as u64 * block_bytes;
    gpu.queue().write_buffer(&buffer, at, bytemuck::cast_slice(words));
    Tensor::from_buffer(gpu, buffer, BEFORE, DType::U32, &[others + blocks, heads, block, row_words])
}

fn case(s: Shape, format: KvFormat, dtype: DType) -> Case {
    let place = if s.paged { format!("blocks of {}", s.block) } else { "contiguous".to_string() };
    let lens =
        if s.lens.len() > 4 { format!("{}×{}", s.lens.len(), s.lens[0]) } else { format!("{:?}", s.lens) };
    let mut label =
        format!("{} {} over {lens}, {place}, heads {}/{}×{}", s.sq, dtype.wgsl(), s.hq, s.hkv, s.d);
    label += &if s.d_v == s.d { String::new() } else { format!(", {}", s.d_v) };
    label += if s.causal { ", causal" } else { "" };
    label += if s.data == Large { ", large scores" } else { "" };
    label += &s.extra.label();
    label += &s.splits.map_or(String::new(), |n| format!(", {n} splits"));
    label += if s.others > 0 { ", beyond 2 GiB" } else { "" };
    Case::new(s.level, format.name(), label, move |gpu, copies| {
        let device = gpu.caps().device_type;
        if s.others > 0 && device != wgpu::DeviceType::DiscreteGpu {
            let (what, need) = ("a cache of more than 2 GiB".into(), "a GPU with memory of its own".into());
            return Err(Error::Unsupported { what, need, have: format!("{device:?}") });
        }
        let b = s.lens.len();
        let longest = s.lens.iter().copied().max().unwrap_or(0);
        let scale = if s.data == Large { 1.0 } else { 1.0 / (s.d as f32).sqrt() };
        let (lens, &Shape { sq, hq, hkv, d, d_v, causal, .. }) = (s.lens.clone(), &s);
        let mut p =
            Problem { sq, hq, hkv, d, d_v, capacity: longest, lens, causal, scale, ..Problem::default() };
        let cost = cost(&p, format, dtype);
        let mut random = Random::new((sq * 31 + longest * 7 + d + hq) as u64);
        let distinct = (b * longest * hkv).clamp(1, DISTINCT);
        Prepared::sets(copies, cost, || {
            let queries = b * sq * hq * d;
            let (q, keys) = match s.data {
                Normal | Data::Steep => {
                    (random.values(queries, dtype), random.values(distinct * d, DType::F32))
                }
                Large => large(&mut random, queries, distinct, hkv, d),
            };
            let values = random.values(distinct * d_v, DType::F32);
            let (k, v) = (Rows::new(format, &keys, d), Rows::new(format, &values, d_v));
            let Operands { cache, table, k, v } = operands(gpu, &s, format, &k, &v, &mut random)?;
            let q: Vec<f32> = q.into_iter().map(|x| round_to(x, dtype)).collect();
            let q_gpu = gpu.floats(dtype, &[b, sq, hq, d], &q)?;
            let out = gpu.output(dtype, &[b, sq, hq, d_v])?;
            let room = match s.splits {
                Some(most) => {
                    Splits::of(longest as u32, most).workspace((b * sq * hq) as u64, d_v as u64) as usize
                }
                None => s.extra.workspace(gpu, [b, sq, hq, hkv], d_v, longest),
            };
            let workspace = gpu.output(DType::F32, &[room])?;
            let extras = s.extra.apply(gpu, &mut p, &mut random)?;
            let checks = extras.checks(&p, q, k, v, &out);
            let (paged, splits, tiles) = (s.paged, s.splits, s.tiles);
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let context = match paged {
                    true => Context::Paged { table: &table, longest },
                    false => Context::Contiguous { kv_len: longest },
                };
                let (q, cache, out, workspace, options) =
                    (&q_gpu, &cache, &out, &workspace, extras.options());
                let request = AttentionPaged { q, cache, context, out, options, workspace };
                match tiles {
                    true => record_tiles(recorder, &request),
                    false => record_paged_split(recorder, &request, splits),
                }
            };
            Ok((launch, checks))
        })
    })
}

fn cost(p: &Problem, format: KvFormat, dtype: DType) -> Cost {
    let keys: usize = p.lens.iter().map(|&len| p.window.map_or(len, |n| len.min(n + p.sq - 1))).sum();
    let scale = if format.quantised() { 4 } else { 0 };
    let row = 4 * (format.row_words(p.d) + format.row_words(p.d_v)) + scale;
    let bytes = keys * p.hkv * row + p.lens.len() * p.sq * p.hq * (p.d + p.d_v) * dtype.size();
    Cost { bytes: bytes as u64, flops: (2 * p.pairs() * (p.d + p.d_v)) as u64 }
}
