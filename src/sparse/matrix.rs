//! The compressed matrix on the host.

use half::f16;
use rayon::prelude::*;

use super::pattern::{Pattern, checked_elements, positions};
use crate::error::{Error, Result};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};

const OP: &str = "sparse matrix";

/// The formats that kept values may have.
pub const FORMATS: [Format; 3] = [Format::F16, Format::Fp4, Format::Int4];

/// How [`SparseMatrix::from_dense`] compresses.
#[derive(Clone, Copy, Debug)]
pub struct Compress<'a> {
    pub pattern: Pattern,
    /// `F16`, `Fp4` or `Int4`.
    pub format: Format,
    /// 16, 32, 64 or 128 **original** columns, or the whole row; ignored by `F16`.
    pub group: Group,
    pub search: ScaleSearch,
    /// \[k\]: see [`prune`](super::prune).
    pub importance: Option<&'a [f32]>,
}

/// A weight matrix \[n, k\] of which every block of m consecutive columns keeps n: see [`Pattern`].
///
/// # Layout
///
/// The kept values of a row, numbered in the order of their columns, are padded with zeros to a multiple of a *packet*, that
/// is 16 bytes: 32 4-bit codes or 8 halves.
/// * `values`: row-major `[n][value_words]`. Kept value e is in word `e * bits / 32`, from bit `e * bits % 32` up.
/// * `indices`: row-major `[n][index_words]`, a string of 2 bits (blocks of 4) or 3 bits (blocks of 8) a kept value: its
///   position in its block, strictly ascending within a block. Bit b of the string is bit `b % 32` of word `b / 32`, so a
///   position of 3 bits may lie in two words.
/// * `scales`: row-major `[n][k / group]`, f16; none for `F16`. Groups count original columns.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseMatrix {
    pub(super) pattern: Pattern,
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Columns that share a scale: `k` for [`Group::WholeK`], 0 for `F16`.
    pub(super) group: usize,
    pub(super) value_words: usize,
    pub(super) index_words: usize,
    pub(super) values: Vec<u32>,
    pub(super) indices: Vec<u32>,
    pub(super) scales: Vec<f16>,
}

impl SparseMatrix {
    /// Prunes and quantises `values`, row-major \[n, k\]. A matrix that is sparse already keeps its weights. Scales are
    /// fitted to what is kept.
    ///
    /// # Errors
    /// As [`prune`](super::prune) and [`PackedMatrix::quantise`]; [`Error::Value`] for a format or group that is not
    /// supported.
    ///
    /// ```
    /// use wgmarlin::format::{Format, Group, ScaleSearch};
    /// use wgmarlin::sparse::{Compress, Pattern, SparseMatrix};
    /// let how = Compress {
    ///     pattern: Pattern::TwoOfFour,
    ///     format: Format::Fp4,
    ///     group: Group::WholeK,
    ///     search: ScaleSearch::AbsMax,
    ///     importance: None,
    /// };
    /// let matrix = SparseMatrix::from_dense(&[0.5, 6.0, -3.0, 0.0], 1, 4, &how)?;
    /// assert_eq!(matrix.unpack(), [0.0, 6.0, -3.0, 0.0]);
    /// # Ok::<(), wgmarlin::Error>(())
    /// ```
    pub fn from_dense(values: &[f32], n: usize, k: usize, how: &Compress<'_>) -> Result<Self> {
        let Compress { pattern, format, group, search, importance } = *how;
        let mut matrix = SparseMatrix::empty(pattern, format, n, k, group)?;
        let keep = positions(OP, values, n, k, pattern, importance)?;
        // Zeros do not move the scale of a symmetric format, so the pruned matrix is quantised as a dense one.
        let mut pruned = vec![0.0; values.len()];
        let (block, kept) = (pattern.block(), pattern.kept());
        for (index, keep) in keep.chunks(kept).enumerate() {
            for &at in keep {
                let at = index * block + usize::from(at);
                pruned[at] = values[at];
            }
        }
        let dense = PackedMatrix::quantise(&pruned, n, k, format, group, search)?;
        let row_kept = k / block * kept;
        let (bits, index_bits) = (format.bits(), pattern.index_bits());
        let rows = matrix.values.par_chunks_mut(matrix.value_words);
        let rows = rows.zip(matrix.indices.par_chunks_mut(matrix.index_words));
        rows.zip(keep.par_chunks(row_kept)).enumerate().for_each(|(row, ((values, indices), keep))| {
            for (e, &at) in keep.iter().enumerate() {
                let column = e / kept * block + usize::from(at);
                put(values, e * bits, dense.code(row, column));
                put(indices, e * index_bits, u32::from(at));
            }
        });
        matrix.scales = dense.scales;
        Ok(matrix)
    }

    /// Wraps parts that are compressed already, for example from a checkpoint, in the layout above.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty matrix, a `k` that is no multiple of the block and wrong lengths; [`Error::Value`] for
    /// a format or group that is not supported, positions that do not ascend within a block, values or scales that are not
    /// finite, and padding that is not 0.
    pub fn from_parts(
        (pattern, format, group): (Pattern, Format, Group),
        n: usize,
        k: usize,
        values: Vec<u32>,
        indices: Vec<u32>,
        scales: Vec<f16>,
    ) -> Result<Self> {
        let shape = SparseMatrix::empty(pattern, format, n, k, group)?;
        let lengths = [
            ("values", values.len(), n * shape.value_words),
            ("indices", indices.len(), n * shape.index_words),
            ("scales", scales.len(), n * shape.groups()),
        ];
        for (name, got, want) in lengths {
            if got != want {
                let unit = if name == "scales" { "elements" } else { "words" };
                return Err(Error::shape(OP, name, got, format!("{want} {unit}")));
            }
        }
        if let Some(at) = scales.iter().position(|s| !s.is_finite()) {
            return Err(Error::value(OP, format!("scales[{at}]"), scales[at], "finite"));
        }
        let matrix = SparseMatrix { values, indices, scales, ..shape };
        match (0..n).into_par_iter().find_map_first(|row| matrix.wrong(row)) {
            Some(error) => Err(error),
            None => Ok(matrix),
        }
    }

    /// The weights, row-major \[n, k\], pruned ones as 0, in f32 arithmetic.
    pub fn unpack(&self) -> Vec<f32> {
        let SparseMatrix { format, n, k, group, .. } = *self;
        let zero = if format == Format::Int4 { 8 } else { 0 };
        let bits = format.bits();
        let row_words = (k * bits).div_ceil(32).next_multiple_of(8);
        let mut words = vec![0u32; n * row_words];
        words.par_chunks_mut(row_words).enumerate().for_each(|(row, words)| {
            (0..k).for_each(|column| put(words, column * bits, zero));
            for e in 0..self.row_kept() {
                let (column, code) = self.kept(row, e);
                // What is there are the bits of `zero`.
                put(words, column * bits, code ^ zero);
            }
        });
        let (scales, zeros) = (self.scales.clone(), Vec::new());
        let (scale_bytes, tensor_scales) = (Vec::new(), Vec::new());
        PackedMatrix { format, n, k, group, row_words, words, scales, zeros, scale_bytes, tensor_scales }
            .unpack()
    }

    pub fn pattern(&self) -> Pattern {
        self.pattern
    }
    pub fn format(&self) -> Format {
        self.format
    }
    /// Rows: output features.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Columns: input features, kept or not.
    pub fn k(&self) -> usize {
        self.k
    }
    /// The kept values: see the layout above.
    pub fn values(&self) -> &[u32] {
        &self.values
    }
    /// Their positions.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }
    /// The scales of the groups.
    pub fn scales(&self) -> &[f16] {
        &self.scales
    }

    /// Kept values of a row.
    pub fn row_kept(&self) -> usize {
        self.k / self.pattern.block() * self.pattern.kept()
    }

    /// Column and code of a row's `e`th kept value; past the end whatever the padding holds.
    pub fn kept(&self, row: usize, e: usize) -> (usize, u32) {
        let (bits, index_bits) = (self.format.bits(), self.pattern.index_bits());
        let words = self.values.get(row * self.value_words..).unwrap_or(&[]);
        let indices = self.indices.get(row * self.index_words..).unwrap_or(&[]);
        let block = e / self.pattern.kept() * self.pattern.block();
        (block + get(indices, e * index_bits, index_bits) as usize, get(words, e * bits, bits))
    }

    /// Groups (scales) in a row; 0 for `F16`.
    pub fn groups(&self) -> usize {
        self.k.checked_div(self.group).unwrap_or(0)
    }

    /// Bytes of values, indices and scales.
    pub fn bytes(&self) -> u64 {
        4 * (self.values.len() + self.indices.len()) as u64 + 2 * self.scales.len() as u64
    }

    /// All zeros, with the checks of the shape.
    fn empty(pattern: Pattern, format: Format, n: usize, k: usize, group: Group) -> Result<Self> {
        checked_elements(OP, n, k, pattern)?;
        if !FORMATS.contains(&format) {
            return Err(Error::value(OP, "format", format.name(), "f16, fp4 or int4"));
        }
        let group = match group {
            _ if !format.is_quantised() => 0,
            Group::WholeK => k,
            Group::Size(size) if !matches!(size, 16 | 32 | 64 | 128) => {
                return Err(Error::value(OP, "group", size, "16, 32, 64, 128 or the whole row"));
            }
            Group::Size(size) if !k.is_multiple_of(size) => {
                return Err(Error::value(OP, "group", size, format!("a divisor of k = {k}")));
            }
            Group::Size(size) => size,
        };
        let packet = packet(format);
        let kept = (k / pattern.block() * pattern.kept()).next_multiple_of(packet);
        let value_words = kept / packet * 4;
        let index_words = (kept * pattern.index_bits()).div_ceil(32);
        Ok(SparseMatrix {
            pattern,
            format,
            n,
            k,
            group,
            value_words,
            index_words,
            values: vec![0; n * value_words],
            indices: vec![0; n * index_words],
            scales: Vec::new(),
        })
    }

    /// What is wrong with a row of parts from outside.
    fn wrong(&self, row: usize) -> Option<Error> {
        let (kept, count) = (self.pattern.kept(), self.row_kept());
        let mut before = 0;
        for e in 0..count {
            let (column, code) = self.kept(row, e);
            if !e.is_multiple_of(kept) && column <= before {
                let what = format!("indices of row {row}, kept value {e}");
                let block = self.pattern.block();
                return Some(Error::value(OP, what, column % block, format!("over {}", before % block)));
            }
            before = column;
            if self.format == Format::F16 && !f16::from_bits(code as u16).is_finite() {
                let what = format!("values of row {row}, kept value {e}");
                return Some(Error::value(OP, what, f16::from_bits(code as u16), "finite"));
            }
        }
        let clean = |words: &[u32], width: usize, used: usize| {
            let row = words.get(row * width..(row + 1) * width).unwrap_or(&[]);
            let partial = row.get(used / 32).is_none_or(|word| word >> (used % 32) == 0);
            partial && row.iter().skip(used / 32 + 1).all(|&word| word == 0)
        };
        for (name, words, width, bits) in [
            ("values", &self.values, self.value_words, self.format.bits()),
            ("indices", &self.indices, self.index_words, self.pattern.index_bits()),
        ] {
            if !clean(words, width, count * bits) {
                let what = format!("{name} of row {row}");
                return Some(Error::value(OP, what, "padding", format!("0 after kept value {count}")));
            }
        }
        None
    }
}

/// Kept values in 16 bytes.
pub(super) const fn packet(format: Format) -> usize {
    if matches!(format, Format::F16) { 8 } else { 32 }
}

/// Exclusive-ors a field of up to 16 bits into a string of bits.
fn put(words: &mut [u32], bit: usize, value: u32) {
    let wide = u64::from(value) << (bit % 32);
    for (word, part) in words.iter_mut().skip(bit / 32).zip([wide as u32, (wide >> 32) as u32]) {
        *word ^= part;
    }
}

/// A field of a string of bits.
fn get(words: &[u32], bit: usize, width: usize) -> u32 {
    let word = |i: usize| u64::from(words.get(bit / 32 + i).copied().unwrap_or(0));
    ((word(0) | word(1) << 32) >> (bit % 32)) as u32 & ((1 << width) - 1)
}
