//! Keys and values of one sequence: plain tensors of the activations' type, or a `KvCache` of any format.

use wgmarlin::attention::{self, AttentionDecode, AttentionPaged, Options};
use wgmarlin::attention_diff::{self, AttentionDiff, AttentionDiffPaged, Difference, Scratch};
use wgmarlin::kv::{CacheShape, KvCache, KvFormat, KvShape, Sequence, Step};
use wgmarlin::{DType, Gpu, Recorder, Tensor};

use crate::config::Description;
use crate::error::Result;

/// What the user asks of the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kv {
    /// That of the activations by default.
    pub format: Option<KvFormat>,
    /// Rows of a block; all in one by default.
    pub block: Option<usize>,
}

pub struct Cache {
    pub context: usize,
    store: Store,
}

enum Store {
    /// `[context, width of all KV heads]` per layer.
    Rows(Vec<(Tensor, Tensor)>),
    Blocks(Box<Blocks>),
}

struct Blocks {
    cache: KvCache,
    sequence: Sequence,
    /// Where the tokens of the next pass go.
    step: Step,
}

impl Kv {
    /// The format of a cache in blocks unless the user names one.
    pub fn own(activations: DType) -> KvFormat {
        if activations == DType::F16 { KvFormat::F16 } else { KvFormat::F32 }
    }
}

impl Cache {
    pub fn new(gpu: &Gpu, d: &Description, kv: Kv, activations: DType, context: usize) -> Result<Cache> {
        let store = match kv {
            Kv { format: None, block: None } => {
                let one = || gpu.alloc(activations, &[context, d.kv_width()]);
                Store::Rows((0..d.layers).map(|_| Ok((one()?, one()?))).collect::<wgmarlin::Result<_>>()?)
            }
            Kv { format, block } => {
                let own = Kv::own(activations);
                let mut shape = CacheShape::contiguous(d.layers, d.kv_shape(), 1, context, context);
                if let Some(block) = block {
                    shape.pool = KvShape { blocks: context.div_ceil(block), block, ..shape.pool };
                }
                let mut cache = KvCache::new(gpu, format.unwrap_or(own), shape)?;
                let sequence = cache.add();
                let step = cache.step(&[(sequence, 0)])?;
                Store::Blocks(Box::new(Blocks { cache, sequence, step }))
            }
        };
        Ok(Cache { context, store })
    }

    pub fn bytes(&self) -> u64 {
        match &self.store {
            Store::Rows(layers) => layers.iter().map(|(k, v)| k.bytes() + v.bytes()).sum(),
            Store::Blocks(blocks) => blocks.cache.bytes(),
        }
    }

    /// For the report: nothing for plain tensors.
    pub fn kind(&self) -> String {
        match &self.store {
            Store::Rows(_) => String::new(),
            Store::Blocks(blocks) => {
                let cache = &blocks.cache;
                let format = cache.layer(0).map_or("empty", |layer| layer.format.name());
                format!(", {format} in blocks of {}", cache.shape().pool.block)
            }
        }
    }

    /// Makes room for the tokens `past..past + rows` of the sequence, and forgets those behind.
    pub fn advance(&mut self, past: usize, rows: usize) -> wgmarlin::Result<()> {
        if let Store::Blocks(blocks) = &mut self.store {
            let Blocks { cache, sequence, step } = &mut **blocks;
            let has = cache.rows(*sequence)?.min(past);
            cache.truncate(*sequence, has)?;
            // Only a warm-up starts behind what is there.
            cache.step(&[(*sequence, past - has)])?;
            *step = cache.step(&[(*sequence, rows)])?;
        }
        Ok(())
    }

    /// Records that of a pass's rows those of accepted drafts come first, in all layers: `path` as
    /// [`KvCache::keep`] takes it.
    pub fn keep(&self, r: &mut Recorder<'_, '_>, path: &Tensor) -> wgmarlin::Result<()> {
        match &self.store {
            Store::Rows(_) => Err(wgmarlin::Error::Unsupported {
                what: "drafts".to_string(),
                need: "a cache in blocks".to_string(),
                have: "this one is of plain tensors".to_string(),
            }),
            Store::Blocks(blocks) => {
                let Blocks { cache, step, .. } = &**blocks;
                (0..cache.shape().layers).try_for_each(|layer| cache.keep(r, layer, step, path))
            }
        }
    }

    /// Of the next pass, behind `past` tokens.
    pub fn keys(&self, past: usize) -> Keys<'_> {
        match &self.store {
            Store::Rows(layers) => Keys::Rows { layers, past },
            Store::Blocks(blocks) => Keys::Blocks { cache: &blocks.cache, step: &blocks.step },
        }
    }
}

/// Where a pass puts its keys and values, and finds those before.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// Behind the first `past` rows of one sequence.
    Rows { layers: &'a [(Tensor, Tensor)], past: usize },
    /// Where the step says; its sequences have equally many new tokens each.
    Blocks { cache: &'a KvCache, step: &'a Step },
}

/// What attention reads and writes, a row for each token.
#[derive(Clone, Copy)]
pub struct Mixing<'a> {
    /// Queries of width D, of all heads.
    pub q: &'a Tensor,
    /// Keys and values as [`Keys::place`] says.
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub out: &'a Tensor,
    pub options: Options<'a>,
    pub workspace: &'a Tensor,
    /// Of differential attention.
    pub difference: Option<(Difference<'a>, Scratch<'a>)>,
}

impl<'a> Keys<'a> {
    /// Where a layer's new keys and values go, and the first row: the cache itself, or `new` to be put there.
    pub fn place(self, layer: usize, new: (&'a Tensor, &'a Tensor)) -> (&'a Tensor, &'a Tensor, usize) {
        match self {
            Keys::Rows { layers, past } => (&layers[layer].0, &layers[layer].1, past),
            Keys::Blocks { .. } => (new.0, new.1, 0),
        }
    }

    /// Records the attention of a layer, after its keys and values were placed.
    pub fn attend(
        self,
        r: &mut Recorder<'_, '_>,
        d: &Description,
        layer: usize,
        mixing: &Mixing<'_>,
    ) -> wgmarlin::Result<()> {
        let Mixing { q, k, v, out, options, workspace, difference } = *mixing;
        let (rows, kv_rows) = (q.rows(), k.rows());
        let [kv_heads, width, _] = d.kv_shape();
        let (heads, sequences) = (d.heads / 2, self.sequences());
        let queries = rows / sequences.max(1);
        if let Keys::Blocks { cache, step } = self {
            let shape = [kv_rows, kv_heads, width];
            cache.write(r, layer, step, &k.reshape(&shape)?, &v.reshape(&shape)?)?;
        }
        let Some((difference, scratch)) = difference else {
            let shape = [sequences, queries, d.heads, d.head_dim];
            let (q, out) = (&q.reshape(&shape)?, &out.reshape(&shape)?);
            return match self {
                Keys::Rows { past, .. } => {
                    let shape = [1, kv_rows, kv_heads, width];
                    let (k, v, kv_len) = (&k.reshape(&shape)?, &v.reshape(&shape)?, past + rows);
                    attention::record_any(r, &AttentionDecode { q, k, v, out, kv_len, options, workspace })
                }
                Keys::Blocks { cache, step } => {
                    let (cache, context) = (cache.layer(layer)?, step.context());
                    let request = AttentionPaged { q, cache, context, out, options, workspace };
                    attention::record_paged(r, &request)
                }
            };
        };
        let q = &q.reshape(&[sequences, queries, heads, 2, d.head_dim])?;
        let out = &out.reshape(&[sequences, queries, heads, width])?;
        match self {
            Keys::Rows { past, .. } => {
                let k = &k.reshape(&[1, kv_rows, kv_heads, 2, d.head_dim])?;
                let (v, kv_len) = (&v.reshape(&[1, kv_rows, kv_heads, width])?, past + rows);
                let request = AttentionDiff { q, k, v, out, kv_len, options, difference, scratch };
                attention_diff::record(r, &request)
            }
            Keys::Blocks { cache, step } => {
                let (cache, context) = (cache.layer(layer)?, step.context());
                let request = AttentionDiffPaged { q, cache, context, out, options, difference, scratch };
                attention_diff::record_paged(r, &request)
            }
        }
    }

    /// Sequences of a pass.
    fn sequences(self) -> usize {
        match self {
            Keys::Rows { .. } => 1,
            Keys::Blocks { step, .. } => step.parts.len(),
        }
    }
}
