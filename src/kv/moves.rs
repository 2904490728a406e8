//! `kv_move`: rows at the end of sequences, brought together.

use super::{Context, KvBlocks, KvFormat, KvShape, cpu, spec};
use crate::error::{Error, Result};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Launch, Level, Needs, Params, Prepared, Random,
    Recorder, Rule, Variant, defines, index32, params, tier,
};
use crate::tensor::{DType, Tensor};

params! {
    pub(super) struct KvMoveParams {
        all: u32, nodes: u32, kv_len: u32, kv_heads: u32, k_words: u32, v_words: u32, scales: u32, block: u32,
        blocks: u32, table: u32,
    }
}

pub static KV_MOVE: KernelSpec = KernelSpec {
    name: "kv_move",
    family: "kv",
    replaces: &[],
    params: KvMoveParams::FIELDS,
    bindings: &[
        Binding { name: "path", access: Access::Read },
        Binding { name: "table", access: Access::Read },
        Binding { name: "k", access: Access::ReadWrite },
        Binding { name: "v", access: Access::ReadWrite },
        Binding { name: "scales", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "kv/kv_move.wgsl", || vec![variant()])],
    cases,
};

const THREADS: u32 = 64;

fn variant() -> Variant {
    let needs = Needs { threads: THREADS, ..Needs::default() };
    Variant { defines: defines![THREADS = Def::Num(THREADS)], needs }
}

/// Rows to keep of the last ones of each sequence: those of the drafts that were accepted.
#[derive(Clone, Copy, Debug)]
pub struct KvMove<'a> {
    /// U32 \[B, nodes\], as [`tree`](crate::tree) walks give it: of the last `nodes` rows of a sequence, row path\[i\] moves
    /// to place i. In ascending order; what follows a number that is no node (`u32::MAX`), or below its place, is ignored.
    pub path: &'a Tensor,
    /// With the rows of the nodes. Blocks that they lie in belong to one sequence only.
    pub context: Context<'a>,
    pub cache: &'a KvBlocks,
}

/// Records the move, codes and scales as they are. The rows behind the moved ones keep what they have: sequences are
/// shortened by whoever keeps their lengths.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Value`] naming the argument, [`Error::Limit`] from 2³¹ threads.
///
/// ```no_run
/// use wgmarlin::Gpu;
/// use wgmarlin::kv::{self, Context, KvBlocks, KvFormat, KvMove, KvShape};
/// let gpu = Gpu::new()?;
/// let shape = KvShape { blocks: 4, kv_heads: 1, block: 16, d: 8, d_v: 8 };
/// let cache = KvBlocks::new(&gpu, KvFormat::E4m3, shape)?;
/// // The last four of twenty rows in blocks 3 and 0 are nodes; the first and the last two of them were accepted.
/// let table = gpu.tensor(&[1, 3], &[20u32, 3, 0])?;
/// let path = gpu.tensor(&[1, 4], &[0, 2, 3, u32::MAX])?;
/// let context = Context::Paged { table: &table, longest: 20 };
/// gpu.run(|r| kv::record_move(r, &KvMove { path: &path, context, cache: &cache }))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_move(recorder: &mut Recorder<'_, '_>, request: &KvMove<'_>) -> Result<()> {
    let kernel = KV_MOVE.name;
    let KvMove { path, context, cache } = *request;
    let KvShape { blocks, kv_heads, block, d, d_v } = cache.shape;
    cache.check_written(kernel)?;
    path.expect(kernel, "path", &[DType::U32], path.shape())?;
    let &[b, nodes] = path.shape() else {
        return Err(Error::shape(kernel, "path", path.shape(), "[B, nodes]"));
    };
    let kv_len = context.check(kernel, b, blocks, block)?;
    if kv_len < nodes {
        let want = format!("at least the {nodes} nodes of path");
        return Err(Error::value(kernel, "rows of the longest sequence", kv_len, want));
    }
    index32(kernel, "nodes of all sequences", path.len())?;
    let [k_words, v_words] = [d, d_v].map(|d| cache.format.row_words(d));
    let scales = usize::from(cache.format.quantised());
    let words = kv_heads.saturating_mul(k_words + v_words + scales);
    let all = index32(kernel, "threads", if nodes == 0 { 0 } else { b.saturating_mul(words) })?;
    let (tier, defines, needs) = recorder.choose(&KV_MOVE, |_| Ok(variant().into()))?;
    // Bounded by lengths that were checked, here and when the cache was made.
    let [nodes, kv_len, kv_heads, k_words, v_words, scales, block, blocks] =
        [nodes, kv_len, kv_heads, k_words, v_words, scales, block, blocks].map(|n| n as u32);
    let table = context.table().map_or(0, |table| table.cols() as u32);
    recorder.launch(Launch {
        spec: &KV_MOVE,
        tier,
        defines,
        needs,
        binds: &[path, context.table().unwrap_or(path), &cache.k, &cache.v, &cache.scales],
        params: KvMoveParams {
            all,
            nodes,
            kv_len,
            kv_heads,
            k_words,
            v_words,
            scales,
            block: block.max(1),
            blocks,
            table,
        },
        groups: u64::from(all.div_ceil(THREADS)),
    })
}

/// (level, rows of each sequence, nodes, Hkv, rows of a block, or 0 for one block a sequence, D, Dv)
type Shape = (Level, &'static [usize], usize, usize, usize, usize, usize);

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[Shape] = &[
        (Quick, &[20, 37, 9], 9, 2, 8, 64, 64),
        (Quick, &[70, 70], 16, 1, 0, 40, 80),
        (Full, &[1], 1, 1, 8, 8, 8),
        // The third sequence is shorter than its nodes.
        (Full, &[64, 300, 10], 64, 3, 16, 40, 8),
        (Full, &[200], 130, 1, 24, 8, 256),
        (Full, &[33, 33, 33], 33, 2, 0, 256, 64),
        (Perf, &[4096; 16], 64, 8, 16, 128, 128),
    ];
    let formats = [KvFormat::F32, KvFormat::F16, KvFormat::Int8, KvFormat::Fp4];
    let mut all: Vec<Case> =
        formats.iter().flat_map(|&format| shapes.iter().map(move |&shape| case(shape, format))).collect();
    // More workgroups than one grid dimension holds.
    all.push(case((Full, &[3], 2, 1_400_000, 0, 8, 8), KvFormat::Fp4));
    all
}

/// Random words, in blocks in scrambled order; every third path is out of order. All other rows must stay as they were.
fn case(shape: Shape, format: KvFormat) -> Case {
    let (level, lens, nodes, kv_heads, block, d, d_v) = shape;
    let place = if block == 0 { "contiguous".to_string() } else { format!("blocks of {block}") };
    let rows = if lens.len() > 4 { format!("{}×{}", lens.len(), lens[0]) } else { format!("{lens:?}") };
    let label = format!("{nodes} nodes of {rows}, {place}, {kv_heads} heads × {d}, {d_v}");
    Case::new(level, format.name(), label, move |gpu, copies| {
        let longest = lens.iter().copied().max().unwrap_or(0);
        let (paged, block) = (block > 0, if block > 0 { block } else { (longest + 3).next_multiple_of(8) });
        let columns = longest.div_ceil(block);
        let blocks = if paged { lens.len() * columns + 1 } else { lens.len() };
        let mut random = Random::new((longest * 31 + nodes * 7 + d) as u64);
        let shape = KvShape { blocks, kv_heads, block, d, d_v };
        let words = shape.block_words(format).map(|words| words / (kv_heads * block));
        // About half of the nodes move.
        let moved = lens.len() * nodes / 2 * kv_heads * words.iter().sum::<usize>();
        let cost = Cost { bytes: (2 * 4 * moved) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let cache = spec::empty(gpu, format, shape)?;
            let order = random.order(blocks);
            let table: Vec<Vec<u32>> = (0..lens.len())
                .map(|n| if paged { order[n * columns..][..columns].to_vec() } else { vec![n as u32] })
                .collect();
            let paths: Vec<Vec<u32>> =
                (0..lens.len()).map(|n| path(&mut random, nodes, n % 3 == 2)).collect();
            let path_gpu = gpu.tensor(&[lens.len(), nodes], &paths.concat())?;
            let lines = table.iter().zip(lens).flat_map(|(line, &len)| {
                [len as u32].into_iter().chain(line.iter().copied()).collect::<Vec<u32>>()
            });
            let table_gpu = gpu.tensor(&[lens.len(), 1 + table[0].len()], &lines.collect::<Vec<u32>>())?;
            let mut checks = Vec::new();
            for (name, pool, words) in
                [("k", &cache.k, words[0]), ("v", &cache.v, words[1]), ("scales", &cache.scales, words[2])]
            {
                let size = blocks * kv_heads * block * words;
                let values: Vec<u32> = (0..size).map(|_| random.next_u64() as u32).collect();
                if words == 0 {
                    continue;
                }
                gpu.write(pool, &values)?;
                let (table, paths) = (table.clone(), paths.clone());
                let want = move || {
                    let mut want = values.clone();
                    for ((line, path), &len) in table.iter().zip(&paths).zip(lens) {
                        let place = |row: usize, head: usize| {
                            ((line[row / block] as usize * kv_heads + head) * block + row % block) * words
                        };
                        for (i, node) in cpu::kept(path, len) {
                            for head in 0..kv_heads {
                                let (from, to) = (place(node, head), place(i, head));
                                want[to..to + words].copy_from_slice(&values[from..from + words]);
                            }
                        }
                    }
                    want.into_iter().map(f64::from).collect()
                };
                checks.push(Check::new(name, pool, Rule::Exact, want));
            }
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let context = match paged {
                    true => Context::Paged { table: &table_gpu, longest },
                    false => Context::Contiguous { kv_len: longest },
                };
                record_move(recorder, &KvMove { path: &path_gpu, context, cache: &cache })
            };
            Ok((launch, checks))
        })
    })
}

/// Some of the nodes in ascending order, then padding; or, out of order, some number behind them that must not count.
fn path(random: &mut Random, nodes: usize, disorder: bool) -> Vec<u32> {
    let mut path: Vec<u32> = (0..nodes as u32).filter(|&node| node == 0 || random.below(2) == 0).collect();
    if disorder {
        path.truncate(nodes / 2 + 1);
        path.push(0);
    }
    path.resize(nodes, u32::MAX);
    path
}
