//! `kv_copy`: whole blocks of a cache to other blocks.

use super::{KvBlocks, KvFormat, KvShape, spec};
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Launch, Level, Needs, Params, Prepared, Random,
    Recorder, Rule, Variant, defines, index32, params, tier,
};
use crate::tensor::{DType, Tensor};

params! {
    pub(super) struct KvCopyParams { pairs: u32, blocks: u32, k4: u32, v4: u32, scales4: u32, tiles: u32 }
}

pub static KV_COPY: KernelSpec = KernelSpec {
    name: "kv_copy",
    family: "kv",
    replaces: &[],
    params: KvCopyParams::FIELDS,
    bindings: &[
        Binding { name: "pairs", access: Access::Read },
        Binding { name: "k", access: Access::ReadWrite },
        Binding { name: "v", access: Access::ReadWrite },
        Binding { name: "scales", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "kv/kv_copy.wgsl", || vec![variant()])],
    cases,
};

const THREADS: u32 = 128;

fn variant() -> Variant {
    let needs = Needs { threads: THREADS, ..Needs::default() };
    Variant { defines: defines![THREADS = Def::Num(THREADS)], needs }
}

/// Blocks to copy within a cache.
#[derive(Clone, Copy, Debug)]
pub struct KvCopy<'a> {
    /// U32 \[n, 2\]: from, to. No block is written twice, and none that is written is read. Pairs with a number past
    /// the last block are skipped.
    pub pairs: &'a Tensor,
    pub cache: &'a KvBlocks,
}

/// Records the copying of blocks, codes and scales as they are.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) naming the argument, [`Error::Limit`](crate::Error::Limit) from 2³¹ workgroups.
///
/// ```no_run
/// use wgmarlin::Gpu;
/// use wgmarlin::kv::{self, KvBlocks, KvCopy, KvFormat, KvShape};
/// let gpu = Gpu::new()?;
/// let shape = KvShape { blocks: 4, kv_heads: 1, block: 16, d: 8, d_v: 8 };
/// let cache = KvBlocks::new(&gpu, KvFormat::E4m3, shape)?;
/// // Block 3 to block 0, block 1 to block 2.
/// let pairs = gpu.tensor(&[2, 2], &[3u32, 0, 1, 2])?;
/// gpu.run(|r| kv::record_copy(r, &KvCopy { pairs: &pairs, cache: &cache }))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_copy(recorder: &mut Recorder<'_, '_>, request: &KvCopy<'_>) -> Result<()> {
    let kernel = KV_COPY.name;
    let KvCopy { pairs, cache } = *request;
    cache.check_written(kernel)?;
    let count = pairs.rows();
    pairs.expect(kernel, "pairs", &[DType::U32], &[count, 2])?;
    if cache.shape.blocks == 0 {
        return Ok(());
    }
    // Fits, as the words of the whole cache do. Blocks have a multiple of 8 rows.
    let [k4, v4, scales4] = cache.shape.block_words(cache.format).map(|words| (words / 4) as u32);
    let tiles = (k4 + v4 + scales4).div_ceil(THREADS);
    let groups = index32(kernel, "workgroups", count.saturating_mul(tiles as usize))?;
    let (tier, defines, needs) = recorder.choose(&KV_COPY, |_| Ok(variant().into()))?;
    recorder.launch(Launch {
        spec: &KV_COPY,
        tier,
        defines,
        needs,
        binds: &[pairs, &cache.k, &cache.v, &cache.scales],
        params: KvCopyParams {
            // Not more than workgroups.
            pairs: count as u32,
            blocks: cache.shape.blocks as u32,
            k4,
            v4,
            scales4,
            tiles,
        },
        groups: u64::from(groups),
    })
}

/// (level, pairs, blocks, Hkv, rows of a block, D, Dv)
type Shape = (Level, usize, usize, usize, usize, usize, usize);

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[Shape] = &[
        (Quick, 2, 7, 2, 8, 64, 64),
        (Full, 1, 2, 1, 8, 8, 8),
        (Full, 5, 11, 3, 24, 40, 80),
        (Full, 3, 9, 1, 256, 256, 8),
        (Perf, 256, 1024, 8, 16, 128, 128),
    ];
    let mut all = Vec::new();
    for format in [KvFormat::F16, KvFormat::Int8, KvFormat::Fp4] {
        all.extend(shapes.iter().map(|&shape| case(shape, format)));
    }
    // More workgroups than one grid dimension holds.
    all.push(case((Full, 66_000, 132_001, 1, 8, 8, 8), KvFormat::Int4));
    all
}

/// Random words; blocks in scrambled order, one pair in five past the end. Other blocks must stay as they were.
fn case(shape: Shape, format: KvFormat) -> Case {
    let (level, pairs, blocks, kv_heads, block, d, d_v) = shape;
    let label = format!("{pairs} of {blocks}×{block}, {kv_heads} heads × {d}, {d_v}");
    Case::new(level, format.name(), label, move |gpu, copies| {
        let mut random = Random::new((pairs * 31 + blocks * 7 + d) as u64);
        let shape = KvShape { blocks, kv_heads, block, d, d_v };
        let words = shape.block_words(format);
        let cost = Cost { bytes: (2 * 4 * pairs * words.iter().sum::<usize>()) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let cache = spec::empty(gpu, format, shape)?;
            let order = random.order(blocks);
            let mut moves: Vec<[u32; 2]> = order.chunks_exact(2).map(|c| [c[0], c[1]]).take(pairs).collect();
            moves.iter_mut().skip(2).step_by(5).for_each(|pair| pair[pair[0] as usize % 2] = blocks as u32);
            let pairs_gpu = gpu.tensor(&[moves.len(), 2], moves.as_flattened())?;
            let mut checks = Vec::new();
            for (name, pool, words) in
                [("k", &cache.k, words[0]), ("v", &cache.v, words[1]), ("scales", &cache.scales, words[2])]
            {
                let values: Vec<u32> = (0..blocks * words).map(|_| random.next_u64() as u32).collect();
                if words == 0 {
                    continue;
                }
                gpu.write(pool, &values)?;
                let moves = moves.clone();
                let want = move || {
                    let mut want: Vec<f64> = values.iter().map(|&word| f64::from(word)).collect();
                    for [from, to] in moves.iter().map(|pair| pair.map(|n| n as usize)) {
                        if from.max(to) < blocks {
                            want.copy_within(from * words..(from + 1) * words, to * words);
                        }
                    }
                    want
                };
                checks.push(Check::new(name, pool, Rule::Exact, want));
            }
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                record_copy(recorder, &KvCopy { pairs: &pairs_gpu, cache: &cache })
            };
            Ok((launch, checks))
        })
    })
}
