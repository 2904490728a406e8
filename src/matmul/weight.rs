//! A weight matrix on the GPU.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::spec::packet;
use rayon::prelude::*;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::format::{Format, Group, PackedMatrix, ScaleFormat, Shape};
use crate::tensor::{DType, Tensor};

/// A matrix \[N, K\] in any [`Format`], as the matrix kernels read it. One that is larger than a storage binding
/// may be is split by rows; the kernels then record one launch per part.
#[derive(Clone, Debug)]
pub struct Weight {
    format: Format,
    n: usize,
    k: usize,
    group: usize,
    row_words: usize,
    /// Clones have the same memory, so they share what is known of it.
    small_scales: Arc<AtomicBool>,
    parts: Vec<Part>,
}

/// Some rows of a weight.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub rows: Range<usize>,
    pub words: Tensor,
    /// Two halves or four bytes a word; the words again where the format has none, as something must be bound.
    pub scales: Tensor,
    /// Likewise; for NVFP4 the tensor scale of each row, f32.
    pub zeros: Tensor,
}

const KERNEL: &str = "Weight::upload";

impl Weight {
    /// Uploads a packed matrix. Blocks until the copy is queued.
    ///
    /// # Errors
    /// [`Error::Value`] if the group is not a power of two (or the whole row), [`Error::Limit`] if a single row is
    /// over the binding limit or an index would pass 32 bits, [`Error::OutOfMemory`]. Fields of the matrix that do not fit
    /// together, and parameters that are no finite numbers, are refused as by
    /// [`PackedMatrix::from_parts`](crate::format::PackedMatrix::from_parts).
    pub fn upload(gpu: &Gpu, matrix: &PackedMatrix) -> Result<Weight> {
        Weight::upload_in_parts(gpu, matrix, gpu.caps().max_binding)
    }

    /// As [`Weight::upload`], with parts of at most `max_bytes` bytes of codes: for tests, and for callers that
    /// want smaller buffers.
    ///
    /// # Errors
    /// As [`Weight::upload`].
    pub fn upload_in_parts(gpu: &Gpu, matrix: &PackedMatrix, max_bytes: u64) -> Result<Weight> {
        matrix.check(KERNEL)?;
        let PackedMatrix { format, n, k, group, row_words, .. } = *matrix;
        let small = format == Format::Fp4 && matrix.scales.iter().all(|s| s.to_f32().abs() < 4.0);
        let small_scales = Arc::new(AtomicBool::new(small));
        let mut weight = Weight { format, n, k, group, row_words, small_scales, parts: Vec::new() };
        let rows = weight.rows_of_parts(gpu, KERNEL, max_bytes)?;
        let groups = matrix.groups();
        for first in (0..n).step_by(rows) {
            let rows = first..(first + rows).min(n);
            let words = &matrix.words[rows.start * row_words..rows.end * row_words];
            let words = match format {
                Format::Fp4 | Format::Mxfp4 | Format::Nvfp4 => {
                    let arranged: Vec<u32> = words.par_iter().map(|&w| arrange_fp4(w)).collect();
                    gpu.tensor(&[words.len()], &arranged)?
                }
                Format::Int3 | Format::Nf3 => {
                    let arranged: Vec<u32> = words
                        .par_chunks_exact(3)
                        .flat_map_iter(|w| arrange_three_bits([w[0], w[1], w[2]]))
                        .collect();
                    gpu.tensor(&[words.len()], &arranged)?
                }
                _ => gpu.tensor(&[words.len()], words)?,
            };
            let halves = |values: &[half::f16]| -> Result<Tensor> {
                if values.is_empty() {
                    return Ok(words.clone());
                }
                upload_halves(gpu, &values[rows.start * groups..rows.end * groups])
            };
            let (scales, zeros) = match format.scales() {
                ScaleFormat::E8m0 | ScaleFormat::E4m3 => {
                    let mut bytes = matrix.scale_bytes[rows.start * groups..rows.end * groups].to_vec();
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                    let scales =
                        gpu.tensor(&[bytes.len() / 4], &bytemuck::pod_collect_to_vec::<_, u32>(&bytes))?;
                    let tensor = matrix.tensor_scales.get(rows.clone()).unwrap_or_default();
                    let bits: Vec<u32> = tensor.iter().map(|t| t.to_bits()).collect();
                    let zeros =
                        if bits.is_empty() { words.clone() } else { gpu.tensor(&[bits.len()], &bits)? };
                    (scales, zeros)
                }
                _ => (halves(&matrix.scales)?, halves(&matrix.zeros)?),
            };
            weight.parts.push(Part { rows, words, scales, zeros });
        }
        Ok(weight)
    }

    /// A weight whose contents are undefined until [`quantize`](crate::quantize) fills it.
    ///
    /// # Errors
    /// [`Error::Shape`] for `n` or `k` of 0, [`Error::Value`] for a group that the format or the kernels do not take or that
    /// does not divide `k`, else as [`Weight::upload`].
    pub fn alloc(gpu: &Gpu, format: Format, n: usize, k: usize, group: Group) -> Result<Weight> {
        let max_bytes = gpu.caps().max_binding;
        Weight::alloc_in_parts(gpu, format, (n, k), group, max_bytes, |words| gpu.alloc(DType::U32, &[words]))
    }

    /// As [`Weight::alloc`], in parts of at most `max_bytes` bytes of codes, each tensor of so many words from `make`.
    pub(crate) fn alloc_in_parts(
        gpu: &Gpu,
        format: Format,
        (n, k): (usize, usize),
        group: Group,
        max_bytes: u64,
        make: impl Fn(usize) -> Result<Tensor>,
    ) -> Result<Weight> {
        const KERNEL: &str = "Weight::alloc";
        let Shape { group, row_words, .. } = Shape::new(KERNEL, format, n, k, group)?;
        // Nobody knows the scales yet.
        let small_scales = Arc::default();
        let mut weight = Weight { format, n, k, group, row_words, small_scales, parts: Vec::new() };
        let step = weight.rows_of_parts(gpu, KERNEL, max_bytes)?;
        let groups = weight.groups();
        for first in (0..n).step_by(step) {
            let rows = first..(first + step).min(n);
            let words = make(rows.len() * row_words)?;
            let parameters = |count: usize, bytes: usize| match count * bytes {
                0 => Ok(words.clone()),
                bytes => make(bytes.div_ceil(4)),
            };
            let scales = parameters(rows.len() * groups, format.scales().bytes())?;
            let zeros = match format.scales() {
                ScaleFormat::E4m3 => make(rows.len())?,
                _ => parameters(rows.len() * groups, if format.has_zeros() { 2 } else { 0 })?,
            };
            weight.parts.push(Part { rows, words, scales, zeros });
        }
        Ok(weight)
    }

    /// A dense weight in the memory of a tensor, without a copy: what changes the one changes the other.
    ///
    /// `values` is \[N, K\], in the dtype that the format names. A row is a multiple of 32 bytes.
    ///
    /// # Errors
    /// [`Error::Value`] for a quantised format, [`Error::Shape`] for another dtype, for other than two dimensions, and for
    /// rows of other lengths, [`Error::ForeignTensor`], else as [`Weight::upload`].
    pub fn from_tensor(gpu: &Gpu, format: Format, values: &Tensor) -> Result<Weight> {
        Weight::from_tensor_in_parts(gpu, format, values, gpu.caps().max_binding)
    }

    /// As [`Weight::from_tensor`], in parts of at most `max_bytes` bytes.
    pub(crate) fn from_tensor_in_parts(
        gpu: &Gpu,
        format: Format,
        values: &Tensor,
        max_bytes: u64,
    ) -> Result<Weight> {
        const KERNEL: &str = "Weight::from_tensor";
        let dtype = match format {
            Format::F32 => DType::F32,
            Format::F16 => DType::F16,
            Format::Bf16 => DType::Bf16,
            _ => return Err(Error::value(KERNEL, "format", format.name(), "f32, f16 or bf16")),
        };
        values.expect(KERNEL, "values", &[dtype], values.shape())?;
        values.check_device(KERNEL, "values", gpu)?;
        let row_bytes = values.cols() * dtype.size();
        let &[n, k] = values.shape() else {
            return Err(Error::shape(KERNEL, "values", values.shape(), "two dimensions"));
        };
        if n == 0 || k == 0 || !row_bytes.is_multiple_of(32) {
            return Err(Error::shape(KERNEL, "values", values.shape(), "rows of a multiple of 32 bytes"));
        }
        let mut weight = Weight {
            format,
            n,
            k,
            group: 0,
            row_words: row_bytes / 4,
            small_scales: Arc::default(),
            parts: Vec::new(),
        };
        let rows = weight.rows_of_parts(gpu, KERNEL, max_bytes)?;
        // Eight rows of 32 bytes or more begin where a binding may.
        let rows = if rows < n && rows > 8 { rows & !7 } else { rows };
        for first in (0..n).step_by(rows) {
            let rows = first..(first + rows).min(n);
            let words = values.rows_view(gpu, first, rows.len())?;
            weight.parts.push(Part { rows, scales: words.clone(), zeros: words.clone(), words });
        }
        Ok(weight)
    }

    pub fn format(&self) -> Format {
        self.format
    }
    /// Rows: output features.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Columns: input features.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Elements that share a scale; K for one scale a row, 0 for dense formats.
    pub fn group(&self) -> usize {
        self.group
    }
    /// Bytes of codes, scales and zeros.
    pub fn bytes(&self) -> u64 {
        let scales = self.format.scales().bytes();
        let tensor = if self.format.scales() == ScaleFormat::E4m3 { 4 } else { 0 };
        let zeros = if self.format.has_zeros() { 2 } else { 0 };
        let groups = self.k.checked_div(self.group).unwrap_or(0);
        (self.n * (self.row_words * 4 + groups * (scales + zeros) + tensor)) as u64
    }
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
    /// Packets from one row to the next.
    pub(crate) fn packets(&self) -> usize {
        self.padded_k() / packet(self.format) as usize
    }
    /// Elements from one row to the next.
    pub(crate) fn padded_k(&self) -> usize {
        self.row_words * 32 / self.format.bits()
    }
    /// log2 of the group; 31 for one group a row.
    pub(crate) fn group_shift(&self) -> u32 {
        group_shift(self.group, self.k)
    }
    pub(crate) fn groups(&self) -> usize {
        self.k.checked_div(self.group).unwrap_or(0)
    }
    /// Whether a packet spans two groups.
    pub(crate) fn split_packet(&self) -> bool {
        self.format.is_quantised() && self.group < packet(self.format) as usize && self.group < self.k
    }
    /// FP4 whose scales are halves also times 2¹⁴, the unit of codes as they are decoded: that spares a product for each pair.
    pub(crate) fn small_scales(&self) -> bool {
        self.small_scales.load(Ordering::Relaxed)
    }
    /// From now on launches may find any scales.
    pub(crate) fn forget_scales(&self) {
        self.small_scales.store(false, Ordering::Relaxed);
    }
    /// Rows of each part but the last.
    fn rows_of_parts(&self, gpu: &Gpu, kernel: &'static str, max_bytes: u64) -> Result<usize> {
        let Weight { format, n, k, group, row_words, .. } = *self;
        if format.is_quantised() && group != k && !group.is_power_of_two() {
            return Err(Error::value(kernel, "group", group, "16, 32, 64, 128 or the whole row"));
        }
        let row_bytes = row_words as u64 * 4;
        // Shaders index with 32 bits; 2³¹ elements a part also keeps byte offsets of drivers in range.
        let rows = (max_bytes.min(gpu.caps().max_binding) / row_bytes)
            .min((1u64 << 31) / k.max(1) as u64)
            .min(n as u64) as usize;
        // Rows whose sums are stored at once (`spec::sums`) stay together.
        let rows = match rows {
            _ if rows == n => rows,
            4.. => rows & !3,
            2 | 3 => 2,
            _ => rows,
        };
        if rows == 0 {
            let what = format!("{kernel}: one row of [{n}, {k}] {}", format.name());
            let max = max_bytes.min(gpu.caps().max_binding);
            return Err(Error::Limit { what, name: "bytes of a part", need: row_bytes, max });
        }
        Ok(rows)
    }
    pub(crate) fn check_device(&self, kernel: &'static str, what: &str, gpu: &Gpu) -> Result<()> {
        self.parts.iter().try_for_each(|p| p.words.check_device(kernel, what, gpu))
    }
}

/// log2 of a group of a row of `k`; 31 for one group a row, and for none.
pub(crate) fn group_shift(group: usize, k: usize) -> u32 {
    if group == 0 || group == k { 31 } else { group.trailing_zeros() }
}

/// Two halves a word, the last one padded with 0.
pub(crate) fn upload_halves(gpu: &Gpu, values: &[half::f16]) -> Result<Tensor> {
    let mut values = values.to_vec();
    values.resize(values.len().next_multiple_of(2), half::f16::ZERO);
    gpu.tensor(&[values.len() / 2], &bytemuck::pod_collect_to_vec::<_, u32>(&values))
}

/// Moves the bits of eight FP4 codes to where `decode` in `wgsl/common/weight.wgsl` wants them. Codes j and j + 4 share
/// the places of the low and the high half: magnitudes at bits 11..9, 8..6, 5..3, 2..0 and signs at 15, 12, 14, 13 for
/// j = 0..3.
pub(crate) fn arrange_fp4(word: u32) -> u32 {
    const SIGN: [u32; 4] = [15, 12, 14, 13];
    (0..8).fold(0, |out, i: u32| {
        let code = word >> (4 * i) & 15;
        let (pair, half) = (i % 4, i / 4 * 16);
        out | (code & 7) << (half + 9 - 3 * pair) | (code >> 3) << (half + SIGN[pair as usize])
    })
}

/// Moves 32 3-bit codes, four chunks of eight, to where `wgsl/common/weight/three_bits.wgsl` wants them. Each byte has two codes, at bits 0..2 and
/// 3..5, which leaves two bits of each. Those of the first word have the lower bits of the second chunk's odd codes, those of
/// the third word the lower bits of the third chunk's even codes, and those of the second word the upper bits of both.
fn arrange_three_bits(words: [u32; 3]) -> [u32; 3] {
    let string = words.into_iter().rev().fold(0u128, |all, word| all << 32 | u128::from(word));
    let mut out = [0; 3];
    for e in 0..32 {
        let code = (string >> (3 * e)) as u32 & 7;
        let (chunk, byte, odd) = (e / 8, e % 8 / 2 * 8, e % 2);
        match (chunk, odd) {
            (1, 1) => {
                out[0] |= (code & 3) << (byte + 6);
                out[1] |= (code >> 2) << (byte + 6);
            }
            (2, 0) => {
                out[2] |= (code & 3) << (byte + 6);
                out[1] |= (code >> 2) << (byte + 7);
            }
            _ => out[[0, 1, 1, 2][chunk]] |= code << (byte + 3 * odd),
        }
    }
    out
}

/// dtypes that activations may have.
pub(crate) const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::Bf16];

#[cfg(test)]
mod tests {
    use super::{arrange_fp4, arrange_three_bits};

    /// Every bit of a word has a place of its own, so the arrangement is invertible.
    #[test]
    fn fp4_arrangement_is_a_permutation_of_bits() {
        let places: Vec<u32> = (0..32).map(|bit| arrange_fp4(1 << bit)).collect();
        assert!(places.iter().all(|p| p.count_ones() == 1));
        assert_eq!(places.iter().fold(0, |all, p| all | p), u32::MAX);
        assert_eq!(arrange_fp4(0x0123_4567) | arrange_fp4(0xfedc_ba98), u32::MAX);
    }

    #[test]
    fn three_bit_arrangement_is_a_permutation_of_bits() {
        let mut seen = [0; 3];
        for (word, bit) in (0..3).flat_map(|word| (0..32).map(move |bit| (word, bit))) {
            let mut one = [0; 3];
            one[word] = 1 << bit;
            let place = arrange_three_bits(one);
            assert_eq!(place.iter().map(|w: &u32| w.count_ones()).sum::<u32>(), 1);
            seen = [0, 1, 2].map(|i| seen[i] | place[i]);
        }
        assert_eq!(seen, [u32::MAX; 3]);
        // Codes 0 to 7 in turn: those of the first chunk and of the last are 0 to 7.
        let codes = arrange_three_bits([0x88fa_c688, 0xc688_fac6, 0xfac6_88fa]);
        let chunk: u32 = (0..8).map(|i| i << (8 * (i / 2) + 3 * (i % 2))).sum();
        assert_eq!([codes[0], codes[2]].map(|word| word & 0x3f3f_3f3f), [chunk; 2]);
    }
}
