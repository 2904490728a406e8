//! A cache of all layers and many sequences, with its bookkeeping.

use std::ops::Range;

use super::pages::{OP, Pages, Sequence};
use super::{
    Context, KvBlocks, KvCopy, KvFormat, KvMove, KvShape, KvWrite, record, record_copy, record_move,
};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{Recorder, index32};
use crate::tensor::{DType, Tensor};

/// Sizes of a [`KvCache`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    pub layers: usize,
    /// The pool of each layer: all have the same blocks in use.
    pub pool: KvShape,
    /// Most rows of a sequence.
    pub context: usize,
    /// Most sequences of a step.
    pub sequences: usize,
    /// Most new rows of a step, of all its sequences together.
    pub tokens: usize,
}

impl CacheShape {
    /// A block for each of `sequences` sequences, as long as the context: memory is set aside for the longest.
    /// `tokens` as above.
    pub fn contiguous(
        layers: usize,
        [kv_heads, d, d_v]: [usize; 3],
        sequences: usize,
        context: usize,
        tokens: usize,
    ) -> CacheShape {
        let block = context.max(1).checked_next_multiple_of(8).unwrap_or(usize::MAX);
        let pool = KvShape { blocks: sequences, kv_heads, block, d, d_v };
        CacheShape { layers, pool, context, sequences, tokens }
    }
}

/// Keys and values of several layers and any number of sequences, in blocks that sequences take as they grow and may
/// share: a prompt that many begin with is kept once ([`KvCache::fork`]), and whoever writes into a block that others
/// have too gets a copy of it first.
///
/// Work goes in steps. [`KvCache::step`] makes room for new rows and says where they go; then, for every layer,
/// [`KvCache::write`] puts them there and attention reads [`KvCache::layer`] with the step's context. A step's passes
/// must be submitted before the next step is made, as its tables lie in the same memory.
///
/// ```no_run
/// use wgmarlin::attention::{self, AttentionPaged, Options};
/// use wgmarlin::kv::{CacheShape, KvCache, KvFormat, KvShape};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// let pool = KvShape { blocks: 64, kv_heads: 1, block: 16, d: 8, d_v: 8 };
/// let shape = CacheShape { layers: 2, pool, context: 128, sequences: 4, tokens: 64 };
/// let mut cache = KvCache::new(&gpu, KvFormat::Int8, shape)?;
/// let (a, b) = (cache.add(), cache.add());
/// // One new token each.
/// let step = cache.step(&[(a, 1), (b, 1)])?;
/// let kv = gpu.tensor(&[2, 1, 8], &[0.5f32; 16])?;
/// let q = gpu.tensor(&[2, 1, 4, 8], &[0.5f32; 64])?;
/// let out = gpu.alloc(DType::F32, &[2, 1, 4, 8])?;
/// let workspace = gpu.alloc(DType::F32, &[attention::workspace_len(&gpu, 2, 1, 4, 1, 8, 128)])?;
/// gpu.run(|r| {
///     for layer in 0..2 {
///         cache.write(r, layer, &step, &kv, &kv)?;
///         let (q, context, out, workspace) = (&q, step.context(), &out, &workspace);
///         let (cache, options) = (cache.layer(layer)?, Options::causal(1.0 / 8f32.sqrt()));
///         attention::record_paged(r, &AttentionPaged { q, cache, context, out, options, workspace })?;
///     }
///     Ok(())
/// })?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub struct KvCache {
    gpu: Gpu,
    shape: CacheShape,
    layers: Vec<KvBlocks>,
    pages: Pages,
    /// U32 \[sequences, columns\], rows at aligned offsets.
    table: Tensor,
    /// U32 \[tokens\]
    slots: Tensor,
    positions: Tensor,
    /// U32 \[sequences, 2\]
    copies: Tensor,
    steps: u64,
}

/// Where the new rows of a step go, sequence by sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// U32 \[tokens\]: the slots of [`KvWrite`].
    pub slots: Tensor,
    /// U32 \[tokens\]: each token's place in its sequence, for rotary embedding.
    pub positions: Tensor,
    /// One for each sequence of the step, in order.
    pub parts: Vec<StepPart>,
    table: Tensor,
    longest: usize,
    copies: Option<Tensor>,
    number: u64,
}

impl Step {
    /// The context of all its sequences, which then have equally many queries each.
    pub fn context(&self) -> Context<'_> {
        Context::Paged { table: &self.table, longest: self.longest }
    }
}

/// One sequence of a [`Step`].
#[derive(Clone, Debug)]
pub struct StepPart {
    pub sequence: Sequence,
    /// Its new rows among those of the step.
    pub tokens: Range<usize>,
    /// Its rows, the new ones included.
    pub rows: usize,
    table: Tensor,
}

impl StepPart {
    /// The context of this sequence alone.
    pub fn context(&self) -> Context<'_> {
        Context::Paged { table: &self.table, longest: self.rows }
    }
}

/// A sequence in host memory.
#[derive(Clone, Debug)]
pub struct Swapped {
    format: KvFormat,
    layers: usize,
    pool: KvShape,
    rows: usize,
    /// For each layer K, V and scales of its blocks.
    words: Vec<Vec<u32>>,
}

impl Swapped {
    /// Rows of the sequence.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl KvCache {
    /// Allocates the pools of all layers; no sequence has any row.
    ///
    /// # Errors
    /// As [`KvBlocks::new`]; [`Error::Limit`] for more blocks, tokens or sequences than 32-bit indices reach.
    pub fn new(gpu: &Gpu, format: KvFormat, shape: CacheShape) -> Result<KvCache> {
        let CacheShape { layers, pool, context, sequences, tokens } = shape;
        let layers = (0..layers).map(|_| KvBlocks::new(gpu, format, pool)).collect::<Result<Vec<_>>>()?;
        // A layerless cache has not been checked.
        let pool = KvShape { block: pool.block.max(1), ..pool };
        let block = pool.block;
        let blocks = index32(OP, "number of blocks", pool.blocks)?;
        index32(OP, "rows of all blocks", pool.blocks.saturating_mul(block))?;
        // Positions are signed in shaders.
        index32(OP, "rows of a sequence", context)?;
        let words = 1 + context.div_ceil(block).min(pool.blocks);
        let aligned = usize::try_from(gpu.caps().offset_alignment / 4).unwrap_or(1).max(1);
        let columns = words.next_multiple_of(aligned);
        index32(OP, "words of tables", sequences.saturating_mul(columns))?;
        let make = |shape: &[usize]| gpu.alloc(DType::U32, shape);
        Ok(KvCache {
            gpu: gpu.clone(),
            shape: CacheShape { pool, ..shape },
            layers,
            pages: Pages::new(blocks, block, context),
            table: make(&[sequences, columns])?,
            slots: make(&[tokens])?,
            positions: make(&[tokens])?,
            copies: make(&[sequences, 2])?,
            steps: 0,
        })
    }

    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// The blocks of a layer.
    ///
    /// # Errors
    /// [`Error::Value`] if there is no such layer.
    pub fn layer(&self, layer: usize) -> Result<&KvBlocks> {
        let want = || format!("below {}", self.layers.len());
        self.layers.get(layer).ok_or_else(|| Error::value(OP, "layer", layer, want()))
    }

    /// Bytes of GPU memory in all pools.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(KvBlocks::bytes).sum()
    }

    /// Blocks that no sequence has.
    pub fn free_blocks(&self) -> usize {
        self.pages.available()
    }

    /// A new sequence without rows.
    pub fn add(&mut self) -> Sequence {
        self.pages.add()
    }

    /// A new sequence that begins with the first `rows` of another. It takes no memory until one of the two writes into
    /// a block that both have.
    ///
    /// # Errors
    /// [`Error::Value`] for a sequence that is not of this cache, or has fewer rows.
    pub fn fork(&mut self, sequence: Sequence, rows: usize) -> Result<Sequence> {
        self.pages.fork(sequence, rows)
    }

    /// Forgets all but the first `rows` of a sequence: drafts that were not accepted.
    ///
    /// # Errors
    /// As [`KvCache::fork`].
    pub fn truncate(&mut self, sequence: Sequence, rows: usize) -> Result<()> {
        self.pages.truncate(sequence, rows)
    }

    /// Forgets a sequence.
    ///
    /// # Errors
    /// [`Error::Value`] for a sequence that is not of this cache.
    pub fn free(&mut self, sequence: Sequence) -> Result<()> {
        self.pages.free(sequence)
    }

    /// Rows of a sequence.
    ///
    /// # Errors
    /// As [`KvCache::free`].
    pub fn rows(&self, sequence: Sequence) -> Result<usize> {
        self.pages.rows(sequence)
    }

    /// The blocks of a sequence, in order.
    ///
    /// # Errors
    /// As [`KvCache::free`].
    pub fn blocks(&self, sequence: Sequence) -> Result<&[u32]> {
        self.pages.blocks(sequence)
    }

    /// Makes room for new rows at the end of each of some sequences, and writes down where they go. The rows count from
    /// here on: [`KvCache::write`] must follow.
    ///
    /// # Errors
    /// [`Error::CacheFull`] if there are too few free blocks, [`Error::Value`] for a sequence that is unknown, comes
    /// twice, or would pass the context, [`Error::Shape`] for more sequences or rows than the cache was made for. No
    /// sequence has changed then.
    pub fn step(&mut self, new: &[(Sequence, usize)]) -> Result<Step> {
        let most = self.shape.sequences;
        if new.len() > most {
            return Err(Error::shape(
                OP,
                "number of sequences of a step",
                new.len(),
                format!("at most {most}"),
            ));
        }
        let (tokens, most) = (new.iter().fold(0usize, |n, new| n.saturating_add(new.1)), self.shape.tokens);
        if tokens > most {
            return Err(Error::shape(OP, "number of rows of a step", tokens, format!("at most {most}")));
        }
        let copies = self.pages.append(new)?;
        self.steps += 1;
        let (columns, block) = (self.table.cols(), self.shape.pool.block);
        let mut table = vec![0u32; new.len() * columns];
        let (mut slots, mut positions, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut longest = 0;
        for (n, &(sequence, added)) in new.iter().enumerate() {
            let (rows, blocks) = (self.pages.rows(sequence)?, self.pages.blocks(sequence)?);
            longest = longest.max(rows);
            // Blocks, slots and rows fit: they were checked when the cache was made.
            let line = &mut table[n * columns..][..columns];
            line[0] = rows as u32;
            line[1..=blocks.len()].copy_from_slice(blocks);
            parts.push(StepPart {
                sequence,
                tokens: slots.len()..slots.len() + added,
                rows,
                table: self.table.rows_view(&self.gpu, n, 1)?,
            });
            for row in rows - added..rows {
                slots.push(blocks[row / block] * block as u32 + (row % block) as u32);
                positions.push(row as u32);
            }
        }
        let put = |tensor: &Tensor, rows: usize, data: &[u32]| {
            let view = tensor.rows_view(&self.gpu, 0, rows)?;
            self.gpu.write(&view, data).map(|()| view)
        };
        Ok(Step {
            slots: put(&self.slots, tokens, &slots)?,
            positions: put(&self.positions, tokens, &positions)?,
            parts,
            table: put(&self.table, new.len(), &table)?,
            longest,
            copies: match copies.len() {
                0 => None,
                n => Some(put(&self.copies, n, copies.as_flattened())?),
            },
            number: self.steps,
        })
    }

    /// Records the writing of a step's new rows into a layer: \[tokens, Hkv, D\] keys and \[tokens, Hkv, Dv\] values. Blocks
    /// that are shared no longer are copied first.
    ///
    /// # Errors
    /// As [`record`]; [`Error::Value`] for an unknown layer, or a step that is not the latest of this cache.
    pub fn write(
        &self,
        recorder: &mut Recorder<'_, '_>,
        layer: usize,
        step: &Step,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<()> {
        let cache = self.of_step(layer, step)?;
        let rows = KvWrite { k, v, slots: &step.slots, cache };
        let Some(pairs) = &step.copies else { return record(recorder, &rows) };
        recorder.all_or_nothing(|recorder| {
            record_copy(recorder, &KvCopy { pairs, cache })?;
            record(recorder, &rows)
        })
    }

    /// Records, for a layer, that of the new rows of a step those of accepted drafts come first: `path`, U32 \[sequences,
    /// rows of each\], names them as [`KvMove::path`] says. [`KvCache::truncate`] then forgets the others.
    ///
    /// # Errors
    /// As [`record_move`] and [`KvCache::write`].
    pub fn keep(
        &self,
        recorder: &mut Recorder<'_, '_>,
        layer: usize,
        step: &Step,
        path: &Tensor,
    ) -> Result<()> {
        let cache = self.of_step(layer, step)?;
        record_move(recorder, &KvMove { path, context: step.context(), cache })
    }

    /// A layer, for the latest step.
    fn of_step(&self, layer: usize, step: &Step) -> Result<&KvBlocks> {
        let ours = step.slots.storage.id == self.slots.storage.id;
        if !ours || step.number != self.steps {
            let want = format!("this cache's latest, {}", self.steps);
            return Err(Error::value(OP, "step", step.number, want));
        }
        self.layer(layer)
    }

    /// Moves a sequence to host memory, and frees its blocks. What was submitted before is in it.
    ///
    /// # Errors
    /// [`Error::Value`] for a sequence that is not of this cache; what reading can give, and the sequence stays.
    pub fn swap_out(&mut self, sequence: Sequence) -> Result<Swapped> {
        let (rows, blocks) = (self.pages.rows(sequence)?, self.pages.blocks(sequence)?);
        let mut words = Vec::new();
        for (pool, of_block) in self.pools() {
            let staging = self.gpu.alloc(DType::U32, &[blocks.len() * of_block])?;
            self.move_blocks(pool, &staging, blocks, of_block, Way::Out);
            words.push(self.gpu.read::<u32>(&staging)?);
        }
        self.pages.free(sequence)?;
        let (format, layers) = (self.layers.first().map_or(KvFormat::F32, |l| l.format), self.layers.len());
        Ok(Swapped { format, layers, pool: self.shape.pool, rows, words })
    }

    /// Brings a sequence back, into whatever blocks are free; its name is a new one. Steps of before can no longer be written.
    ///
    /// # Errors
    /// [`Error::CacheFull`] if there are too few, [`Error::Value`] for one of a cache of another format or shape (only
    /// the number of blocks may differ); what writing can give.
    pub fn swap_in(&mut self, swapped: &Swapped) -> Result<Sequence> {
        let Swapped { format, layers, pool, rows, ref words } = *swapped;
        let of = |format, layers, pool: KvShape| (format, layers, KvShape { blocks: 0, ..pool });
        let own_format = self.layers.first().map_or(KvFormat::F32, |l| l.format);
        let (has, want) = (of(format, layers, pool), of(own_format, self.layers.len(), self.shape.pool));
        if has != want {
            return Err(Error::value(
                OP,
                "format, layers and shape of what was swapped",
                has,
                format!("{want:?}"),
            ));
        }
        // It may get blocks that a step has rows of, as its sequences were freed since.
        self.steps += 1;
        let sequence = self.pages.add();
        let brought = self.pages.append(&[(sequence, rows)]).and_then(|_| {
            let blocks = self.pages.blocks(sequence)?;
            for ((pool, of_block), words) in self.pools().zip(words) {
                let staging = self.gpu.tensor(&[words.len()], words)?;
                self.move_blocks(pool, &staging, blocks, of_block, Way::In);
            }
            Ok(sequence)
        });
        if brought.is_err() {
            self.pages.free(sequence)?;
        }
        brought
    }

    /// The memory of all layers, and the words of a block in it.
    fn pools(&self) -> impl Iterator<Item = (&Tensor, usize)> {
        self.layers.iter().flat_map(|layer| {
            let words = layer.shape.block_words(layer.format);
            [&layer.k, &layer.v, &layer.scales].into_iter().zip(words)
        })
    }

    /// Copies whole blocks from or to a tensor that has them one behind the other.
    fn move_blocks(&self, pool: &Tensor, staging: &Tensor, blocks: &[u32], words: usize, way: Way) {
        let bytes = 4 * words as u64;
        if bytes == 0 || blocks.is_empty() {
            return;
        }
        let mut encoder =
            self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (n, &block) in blocks.iter().enumerate() {
            let (here, there) = (pool.offset() + u64::from(block) * bytes, n as u64 * bytes);
            let (from, to) = match way {
                Way::Out => ((pool, here), (staging, there)),
                Way::In => ((staging, there), (pool, here)),
            };
            encoder.copy_buffer_to_buffer(from.0.buffer(), from.1, to.0.buffer(), to.1, bytes);
        }
        self.gpu.queue().submit([encoder.finish()]);
    }
}

#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}
