//! Keys and values of one sequence: plain tensors of the activations' type, or a `KvCache` of any format.

use wgmarlin::attention::{self, AttentionDecode, AttentionPaged, Options};
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
    /// `[context, kv_heads · head_dim]` per layer.
    Rows(Vec<(Tensor, Tensor)>),
    Blocks(Box<Blocks>),
}

struct Blocks {
    cache: KvCache,
    sequence: Sequence,
    /// Where the tokens of the next pass go.
    step: Step,
}

impl Cache {
    pub fn new(gpu: &Gpu, d: &Description, kv: Kv, activations: DType, context: usize) -> Result<Cache> {
        let Description { layers, kv_heads, head_dim, .. } = *d;
        let store = match kv {
            Kv { format: None, block: None } => {
                let one = || gpu.alloc(activations, &[context, d.kv_width()]);
                Store::Rows((0..layers).map(|_| Ok((one()?, one()?))).collect::<wgmarlin::Result<_>>()?)
            }
            Kv { format, block } => {
                let own = if activations == DType::F16 { KvFormat::F16 } else { KvFormat::F32 };
                let mut shape =
                    CacheShape::contiguous(layers, [kv_heads, head_dim, head_dim], 1, context, context);
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

    /// Where a layer's new keys and values go, and the first row: the cache itself, or `new` to be put there.
    pub fn place<'a>(
        &'a self,
        layer: usize,
        past: usize,
        new: (&'a Tensor, &'a Tensor),
    ) -> (&'a Tensor, &'a Tensor, usize) {
        match &self.store {
            Store::Rows(layers) => (&layers[layer].0, &layers[layer].1, past),
            Store::Blocks(_) => (new.0, new.1, 0),
        }
    }

    /// Records attention of \[1, rows, heads, D\] queries at the end of `kv_len` tokens, the last of which were placed
    /// in `k` and `v`.
    pub fn attend(
        &self,
        r: &mut Recorder<'_, '_>,
        layer: usize,
        [q, k, v, out]: [&Tensor; 4],
        kv_heads: usize,
        kv_len: usize,
        workspace: &Tensor,
    ) -> wgmarlin::Result<()> {
        let (rows, head_dim) = (k.rows(), q.cols());
        let options = Options::causal(1.0 / (head_dim as f32).sqrt());
        match &self.store {
            Store::Rows(_) => {
                let (k, v) = (
                    &k.reshape(&[1, rows, kv_heads, head_dim])?,
                    &v.reshape(&[1, rows, kv_heads, head_dim])?,
                );
                attention::record_any(r, &AttentionDecode { q, k, v, out, kv_len, options, workspace })
            }
            Store::Blocks(blocks) => {
                let Blocks { cache, step, .. } = &**blocks;
                let shape = [rows, kv_heads, head_dim];
                cache.write(r, layer, step, &k.reshape(&shape)?, &v.reshape(&shape)?)?;
                let (cache, context) = (cache.layer(layer)?, step.context());
                attention::record_paged(r, &AttentionPaged { q, cache, context, out, options, workspace })
            }
        }
    }
}
