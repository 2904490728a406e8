//! KV caches: storage in blocks, in seven formats, and the kernels that write new rows into it, copy blocks, and bring
//! the rows of accepted drafts together.
//!
//! [`KvCache`] is a whole cache with its bookkeeping: layers, sequences, who owns which block. What it is made of can be
//! used alone:
//!
//! A [`KvBlocks`] holds the keys and values of one layer as blocks of rows. Which blocks a sequence owns stands in a
//! *table*, so one pool serves many sequences of any length ("PagedAttention", Kwon et al., 2023). A contiguous cache
//! is the special case of one block per sequence, as long as the context.
//!
//! # Layout
//! K is u32 \[blocks, Hkv, block, words of a row\], V likewise: the rows of a (block, head) follow each other, so a
//! workgroup that decodes one head reads memory in sequence, and neighbouring lanes read neighbouring 4 to 16 bytes.
//! The first element of a word is in its low bits. `scales` is u32 \[blocks, Hkv, block\]: the f16 scale of the K row in
//! the low half, that of the V row in the high half; a float format has none. value = scale · code, with
//!
//! | format | bits | code |
//! |---|---|---|
//! | f32, f16, bf16 | 32, 16, 16 | the value; rounded to nearest, ties to even |
//! | e4m3 | 8 | OCP FP8 E4M3, largest 448 |
//! | int8 | 8 | −127..=127, stored plus 128 |
//! | int4 | 4 | −7..=7, stored plus 8 |
//! | fp4 | 4 | OCP E2M1, largest 6; eight codes of a word are arranged as [`KvFormat::Fp4`] says |
//!
//! A row's scale is max|x| / largest code, rounded to f16; codes are the nearest, ties to the even code.

mod cache;
mod copy;
pub mod cpu;
mod moves;
mod pages;
mod spec;
#[cfg(test)]
mod tests;

pub use cache::{CacheShape, KvCache, Step, StepPart, Swapped};
pub use copy::{KV_COPY, KvCopy, record_copy};
pub use moves::{KV_MOVE, KvMove, record_move};
pub use pages::Sequence;
pub use spec::KV_WRITE;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, Tier, index32};
use crate::tensor::{DType, Tensor};

/// How the rows of a cache are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KvFormat {
    F32,
    F16,
    Bf16,
    /// 8-bit float E4M3.
    E4m3,
    Int8,
    Int4,
    /// 4-bit float E2M1. Codes 0..=3 of eight are in the low half of their word, 4..=7 in the high half, each half
    /// `s0 s2 s3 s1 | m0 m0 m0 | m1 m1 m1 | m2 m2 m2 | m3 m3 m3` from its bit 15 down: with one or two shifts, signs
    /// and magnitudes stand as in an f16.
    Fp4,
}

impl KvFormat {
    pub const ALL: [KvFormat; 7] = [
        KvFormat::F32,
        KvFormat::F16,
        KvFormat::Bf16,
        KvFormat::E4m3,
        KvFormat::Int8,
        KvFormat::Int4,
        KvFormat::Fp4,
    ];

    /// The name in shaders, audit rows and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Bf16 => "bf16",
            KvFormat::E4m3 => "e4m3",
            KvFormat::Int8 => "int8",
            KvFormat::Int4 => "int4",
            KvFormat::Fp4 => "fp4",
        }
    }

    pub fn parse(name: &str) -> Option<KvFormat> {
        KvFormat::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Bits of an element.
    pub const fn bits(self) -> usize {
        match self {
            KvFormat::F32 => 32,
            KvFormat::F16 | KvFormat::Bf16 => 16,
            KvFormat::E4m3 | KvFormat::Int8 => 8,
            KvFormat::Int4 | KvFormat::Fp4 => 4,
        }
    }

    /// Whether rows have scales.
    pub const fn quantised(self) -> bool {
        self.bits() <= 8
    }

    /// The largest code's value, 0 for float formats.
    pub(crate) const fn largest(self) -> f32 {
        match self {
            KvFormat::E4m3 => 448.0,
            KvFormat::Int8 => 127.0,
            KvFormat::Int4 => 7.0,
            KvFormat::Fp4 => 6.0,
            _ => 0.0,
        }
    }

    /// Words of a row of `d` elements (a multiple of 8).
    pub(crate) const fn row_words(self, d: usize) -> usize {
        d / 8 * (self.bits() / 4)
    }
}

/// Sizes of a [`KvBlocks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvShape {
    pub blocks: usize,
    pub kv_heads: usize,
    /// Rows (tokens) of a block; a multiple of 8.
    pub block: usize,
    /// Elements of a row of K, a multiple of 8 from 8 to 256.
    pub d: usize,
    /// Elements of a row of V, likewise.
    pub d_v: usize,
}

impl KvShape {
    /// What all memory of a cache depends on.
    fn check(self, op: &'static str, format: KvFormat) -> Result<()> {
        let KvShape { blocks, kv_heads, block, d, d_v } = self;
        for (what, n) in [("d", d), ("d_v", d_v)] {
            if n == 0 || n % 8 != 0 || n > 256 {
                return Err(Error::shape(op, what, n, "a multiple of 8 from 8 to 256"));
            }
        }
        if block == 0 || block % 8 != 0 {
            return Err(Error::shape(op, "block", block, "a multiple of 8"));
        }
        if kv_heads == 0 {
            return Err(Error::shape(op, "kv_heads", kv_heads, "at least 1"));
        }
        let rows = blocks.checked_mul(kv_heads).and_then(|n| n.checked_mul(block)).unwrap_or(usize::MAX);
        // Rows have at least one word, so rows and words alike fit an index.
        let widest = rows.saturating_mul(format.row_words(d.max(d_v)));
        index32(op, "words of K or V", widest).map(drop)
    }

    /// Words of K, of V and of scales of a block.
    pub(crate) fn block_words(self, format: KvFormat) -> [usize; 3] {
        let rows = self.kv_heads * self.block;
        let scale = usize::from(format.quantised());
        [format.row_words(self.d), format.row_words(self.d_v), scale].map(|words| rows * words)
    }
}

/// Keys and values of one layer: a pool of blocks. See the [module](self) for the layout. Clones share the memory.
#[derive(Clone, Debug)]
pub struct KvBlocks {
    pub format: KvFormat,
    pub shape: KvShape,
    /// U32 \[blocks, Hkv, block, words of a row\].
    pub k: Tensor,
    /// U32, likewise.
    pub v: Tensor,
    /// U32 \[blocks, Hkv, block\]; empty for float formats.
    pub scales: Tensor,
}

impl KvBlocks {
    /// Allocates a pool; its contents are undefined until they are written.
    ///
    /// # Errors
    /// [`Error::Shape`] for sizes outside of what [`KvShape`] says, [`Error::Limit`] or [`Error::OutOfMemory`] if K or
    /// V does not fit in one binding.
    ///
    /// ```no_run
    /// use wgmarlin::Gpu;
    /// use wgmarlin::kv::{KvBlocks, KvFormat, KvShape};
    /// let gpu = Gpu::new()?;
    /// let shape = KvShape { blocks: 64, kv_heads: 8, block: 16, d: 128, d_v: 128 };
    /// let cache = KvBlocks::new(&gpu, KvFormat::Int8, shape)?;
    /// println!("{} bytes", cache.bytes());
    /// # Ok::<(), wgmarlin::Error>(())
    /// ```
    pub fn new(gpu: &Gpu, format: KvFormat, shape: KvShape) -> Result<KvBlocks> {
        shape.check("KvBlocks", format)?;
        let KvShape { blocks, kv_heads, block, d, d_v } = shape;
        let make = |words| gpu.alloc(DType::U32, &[blocks, kv_heads, block, words]);
        let scaled = if format.quantised() { blocks } else { 0 };
        Ok(KvBlocks {
            format,
            shape,
            k: make(format.row_words(d))?,
            v: make(format.row_words(d_v))?,
            scales: gpu.alloc(DType::U32, &[scaled, kv_heads, block])?,
        })
    }

    /// Bytes of GPU memory.
    pub fn bytes(&self) -> u64 {
        self.k.bytes() + self.v.bytes() + self.scales.bytes()
    }

    /// Checks the public fields against each other.
    pub(crate) fn check(&self, kernel: &'static str) -> Result<()> {
        self.shape.check(kernel, self.format)?;
        let KvShape { blocks, kv_heads, block, d, d_v } = self.shape;
        let rows = |words| [blocks, kv_heads, block, words];
        self.k.expect(kernel, "cache's k", &[DType::U32], &rows(self.format.row_words(d)))?;
        self.v.expect(kernel, "cache's v", &[DType::U32], &rows(self.format.row_words(d_v)))?;
        let scaled = if self.format.quantised() { blocks } else { 0 };
        self.scales.expect(kernel, "cache's scales", &[DType::U32], &[scaled, kv_heads, block])
    }

    /// Likewise, of a cache that is written.
    pub(crate) fn check_written(&self, kernel: &'static str) -> Result<()> {
        self.check(kernel)?;
        let [k, v, scales] = [&self.k, &self.v, &self.scales];
        if k.overlaps(v) || k.overlaps(scales) || v.overlaps(scales) {
            return Err(Error::shape(kernel, "cache's k, v and scales", "memory in common", "apart"));
        }
        Ok(())
    }
}

/// Which rows of a [`KvBlocks`] belong to each of B sequences.
#[derive(Clone, Copy, Debug)]
pub enum Context<'a> {
    /// Sequence b has the first `kv_len` rows of block b.
    Contiguous { kv_len: usize },
    /// The sequences have blocks in any order, some of them perhaps in common.
    Paged {
        /// U32 \[B or more, 1 + n\]: for each sequence the number of its rows, then that of up to n blocks, in order.
        table: &'a Tensor,
        /// No sequence has more rows than this, which is at most n blocks. It is what kernels are planned for.
        longest: usize,
    },
}

impl<'a> Context<'a> {
    /// The table, if there is one.
    pub(crate) fn table(self) -> Option<&'a Tensor> {
        match self {
            Context::Contiguous { .. } => None,
            Context::Paged { table, .. } => Some(table),
        }
    }

    /// Checks it against a cache; the rows of the longest sequence.
    pub(crate) fn check(self, kernel: &'static str, b: usize, blocks: usize, block: usize) -> Result<usize> {
        match self {
            Context::Contiguous { kv_len } => {
                if b > blocks {
                    let want = format!("at most the cache's {blocks} blocks, one for each");
                    return Err(Error::shape(kernel, "number of sequences B", b, want));
                }
                if kv_len > block {
                    let want = format!("at most the {block} rows of a block");
                    return Err(Error::value(kernel, "kv_len", kv_len, want));
                }
                Ok(kv_len)
            }
            Context::Paged { table, longest } => {
                table.expect(kernel, "table", &[DType::U32], table.shape())?;
                let &[rows, columns] = table.shape() else {
                    return Err(Error::shape(kernel, "table", table.shape(), "[B, 1 + blocks]"));
                };
                if rows < b || columns == 0 {
                    let want = format!("[{b} or more, 1 + blocks]");
                    return Err(Error::shape(kernel, "table", table.shape(), want));
                }
                index32(kernel, "words of table", table.len())?;
                let room = if blocks == 0 { 0 } else { (columns - 1).saturating_mul(block) };
                // Positions are signed in shaders.
                let room = room.min(i32::MAX as usize);
                if longest > room {
                    let want = format!("at most the {room} rows that a row of table has room for");
                    return Err(Error::value(kernel, "longest", longest, want));
                }
                Ok(longest)
            }
        }
    }
}

/// New rows for a cache.
#[derive(Clone, Copy, Debug)]
pub struct KvWrite<'a> {
    /// \[tokens, Hkv, D\], f32 or f16, finite.
    pub k: &'a Tensor,
    /// \[tokens, Hkv, Dv\], like `k`.
    pub v: &'a Tensor,
    /// U32 \[tokens\]: where each token goes, number of the block × rows of a block + row in the block. Different for
    /// each token; a slot past the end of the cache is skipped, so `u32::MAX` pads.
    pub slots: &'a Tensor,
    pub cache: &'a KvBlocks,
}

/// Records the writing of new rows, quantised on the way.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] from 2³¹ elements of k or v.
///
/// ```no_run
/// use wgmarlin::Gpu;
/// use wgmarlin::kv::{self, KvBlocks, KvFormat, KvShape, KvWrite};
/// let gpu = Gpu::new()?;
/// let shape = KvShape { blocks: 4, kv_heads: 1, block: 16, d: 8, d_v: 8 };
/// let cache = KvBlocks::new(&gpu, KvFormat::E4m3, shape)?;
/// let k = gpu.tensor(&[2, 1, 8], &[0.5f32; 16])?;
/// let v = gpu.tensor(&[2, 1, 8], &[0.25f32; 16])?;
/// // The sixth row of block 3 and the first of block 0.
/// let slots = gpu.tensor(&[2], &[3 * 16 + 5u32, 0])?;
/// gpu.run(|r| kv::record(r, &KvWrite { k: &k, v: &v, slots: &slots, cache: &cache }))?;
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record(recorder: &mut Recorder<'_, '_>, request: &KvWrite<'_>) -> Result<()> {
    let kernel = KV_WRITE.name;
    let KvWrite { k, v, slots, cache } = *request;
    let KvShape { blocks, kv_heads, block, d, d_v } = cache.shape;
    cache.check_written(kernel)?;
    let tokens = slots.len();
    k.expect(kernel, "k", &[DType::F32, DType::F16], &[tokens, kv_heads, d])?;
    v.expect(kernel, "v", &[k.dtype()], &[tokens, kv_heads, d_v])?;
    slots.expect(kernel, "slots", &[DType::U32], &[tokens])?;
    index32(kernel, "elements of k", k.len())?;
    index32(kernel, "elements of v", v.len())?;
    // Bounded by the lengths that were checked, here and when the cache was made.
    let [tokens, kv_heads, d8, e8, block, capacity] =
        [tokens, kv_heads, d / 8, d_v / 8, block, blocks * block].map(|n| n as u32);
    let team = d8.max(e8).next_power_of_two();
    if tokens == 0 {
        return Ok(());
    }
    let rows = tokens * kv_heads;
    let (tier, defines, needs) = recorder.choose(&KV_WRITE, |_| Ok(spec::variant(cache.format).into()))?;
    debug_assert_eq!(tier, Tier::Base);
    let largest = cache.format.largest();
    let groups = rows.div_ceil(spec::THREADS / team);
    recorder.launch(Launch {
        spec: &KV_WRITE,
        tier,
        defines,
        needs,
        binds: &[k, v, slots, &cache.k, &cache.v, &cache.scales],
        params: spec::KvWriteParams {
            rows,
            kv_heads,
            d8,
            e8,
            block,
            capacity,
            team,
            half: u32::from(k.dtype() == DType::F16),
            per_largest: if largest > 0.0 { 1.0 / largest } else { 0.0 },
        },
        groups: u64::from(groups),
    })
}
