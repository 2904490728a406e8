//! The packed matrix and its layout.

use super::scale::LARGEST;
use super::{Format, Group, ScaleFormat, ScaleSearch, Scaling, quantise};
use crate::error::{Error, Result};
use half::f16;
use rayon::prelude::*;

const OP: &str = "packed matrix";

/// A weight matrix `[n, k]` in one [`Format`].
///
/// # Layout
///
/// * `words`: row-major `[n][row_words]`, with `row_words = ceil(k * bits / 32)` rounded up to a multiple of
///   8, so every row starts on a 32-byte boundary (3-bit formats: of 3, 32 elements). The codes of a row are one stream
///   of bits: element `e` is at bits `e * bits` to `e * bits + bits - 1`, bit `b` is bit `b % 32` of word `b / 32`.
///   The bits after the last element are 0.
/// * `scales`, `zeros`: row-major `[n][k / group]`, f16. Only formats with [`ScaleFormat::F16`] have the former, only
///   [`Format::Int4Zero`] and [`Format::Int8Zero`] the latter. A zero point is in units of codes and need not be an
///   integer; after [`quantise`](Self::quantise) its magnitude may be as large as 65504.
/// * `scale_bytes`: row-major `[n][k / group]`, the scales of MXFP4 and NVFP4.
/// * `tensor_scales`: `[n]`, the tensor scale of NVFP4, once a row, so that matrices of one launch may differ
///   ([`interleave`](Self::interleave)).
///
/// Host words; on a little-endian machine their bytes are what a GPU buffer `array<u32>` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMatrix {
    pub format: Format,
    /// Rows (output features).
    pub n: usize,
    /// Columns (input features), in elements.
    pub k: usize,
    /// Elements that share a scale: `k` for [`Group::WholeK`], 0 for a dense format.
    pub group: usize,
    /// Words from one row to the next.
    pub row_words: usize,
    pub words: Vec<u32>,
    pub scales: Vec<f16>,
    pub zeros: Vec<f16>,
    pub scale_bytes: Vec<u8>,
    pub tensor_scales: Vec<f32>,
}

impl PackedMatrix {
    /// Quantises `values`, row-major `[n, k]`; for a dense format rounds them to nearest, ties to even, and
    /// ignores `group` and `search`. Codes are the nearest ones to `value / scale` with the scale already
    /// rounded as it is stored, ties to even. An all-zero group gets the scale 0. Runs on all rayon threads.
    ///
    /// # Errors
    ///
    /// `Error::Shape` for `n` or `k` of 0 and for a wrong `values.len()`; `Error::Value` for an `n * k`
    /// that overflows, for a group size that is not supported or does not divide `k`, and for a value
    /// that is not finite or too large for the format (with its row and column).
    pub fn quantise(
        values: &[f32],
        n: usize,
        k: usize,
        format: Format,
        group: Group,
        search: ScaleSearch,
    ) -> Result<Self> {
        quantise::quantise(values, n, k, format, group, search)
    }

    /// Rows of `a` and `b` in turn: a\[0\], b\[0\], a\[1\], b\[1\], … — one `[2n, k]` matrix of two equal ones, as
    /// [`GateUp`](crate::matmul::GateUp) takes it.
    ///
    /// # Errors
    /// `Error::Shape` if format, shape or group differ.
    pub fn interleave(a: &Self, b: &Self) -> Result<Self> {
        let like = |m: &Self| (m.format, m.n, m.k, m.group);
        if like(a) != like(b) {
            let want = format!("{:?} like the first", like(a));
            return Err(Error::shape("PackedMatrix::interleave", "second matrix", like(b), want));
        }
        fn merge<T: Copy>(a: &[T], b: &[T], row: usize) -> Vec<T> {
            let rows = a.chunks(row.max(1)).zip(b.chunks(row.max(1)));
            rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
        }
        Ok(PackedMatrix {
            n: 2 * a.n,
            words: merge(&a.words, &b.words, a.row_words),
            scales: merge(&a.scales, &b.scales, a.groups()),
            zeros: merge(&a.zeros, &b.zeros, a.groups()),
            scale_bytes: merge(&a.scale_bytes, &b.scale_bytes, a.groups()),
            tensor_scales: merge(&a.tensor_scales, &b.tensor_scales, 1),
            ..*a
        })
    }

    /// Wraps parts that are already packed, for example from a checkpoint, in the layout above. Every code
    /// that is a number is accepted (`int8` -128 too), and so is every finite scale.
    ///
    /// # Errors
    ///
    /// As [`quantise`](Self::quantise) for `n`, `k` and `group`; `Error::Shape` for a wrong length of
    /// `words`, `scales` or `zeros`; `Error::Value` for a scale or zero point that is not finite, for an FP8 code that is
    /// not a number, for padding bits that are not 0, and for a format whose scales are bytes.
    pub fn from_parts(
        format: Format,
        n: usize,
        k: usize,
        group: Group,
        words: Vec<u32>,
        scales: Vec<f16>,
        zeros: Vec<f16>,
    ) -> Result<Self> {
        if format.fixed_group().is_some() {
            let want = "a format with f16 scales or none; from_byte_scales takes the others";
            return Err(Error::value(OP, "format", format.name(), want));
        }
        let matrix = Self::empty(format, n, k, group)?;
        PackedMatrix { words, scales, zeros, ..matrix }.checked()
    }

    /// As [`from_parts`](Self::from_parts) for MXFP4 and NVFP4: one byte a group, and the tensor scale (1 for MXFP4).
    ///
    /// # Errors
    ///
    /// As [`from_parts`](Self::from_parts); `Error::Value` for another format, for a byte over
    /// [`ScaleFormat::largest_byte`] (NaN, negative E4M3, powers of two over 2^113), and for a tensor scale that is not
    /// a normal positive number, at most 2^104.
    pub fn from_byte_scales(
        format: Format,
        n: usize,
        k: usize,
        words: Vec<u32>,
        scales: Vec<u8>,
        tensor_scale: f32,
    ) -> Result<Self> {
        let Some(group) = format.fixed_group() else {
            return Err(Error::value(OP, "format", format.name(), "mxfp4 or nvfp4"));
        };
        let matrix = Self::empty(format, n, k, Group::Size(group))?;
        if format.scales() != ScaleFormat::E4m3 && tensor_scale != 1.0 {
            return Err(Error::value(OP, "tensor_scale", tensor_scale, "1, as the format has none"));
        }
        let rows = if format.scales() == ScaleFormat::E4m3 { n } else { 0 };
        let tensor_scales = vec![tensor_scale; rows];
        PackedMatrix { words, scale_bytes: scales, tensor_scales, ..matrix }.checked()
    }

    /// A matrix without words and parameters.
    fn empty(format: Format, n: usize, k: usize, group: Group) -> Result<Self> {
        let Shape { group, row_words, .. } = Shape::new(OP, format, n, k, group)?;
        Ok(PackedMatrix {
            format,
            n,
            k,
            group,
            row_words,
            words: Vec::new(),
            scales: Vec::new(),
            zeros: Vec::new(),
            scale_bytes: Vec::new(),
            tensor_scales: Vec::new(),
        })
    }

    fn checked(self) -> Result<Self> {
        self.check(OP)?;
        let Self { format, n, k, .. } = self;
        if matches!(format, Format::E4m3 | Format::E5m2)
            && let Some(at) = (0..n * k).find(|at| !format.is_finite(self.code(at / k, at % k)))
        {
            let (row, column) = (at / k, at % k);
            let what = format!("words of row {row}: element {column}");
            return Err(Error::value(OP, what, format!("{:#04x}", self.code(row, column)), "a number"));
        }
        Ok(self)
    }

    /// Checks all but the codes: the fields are public, and kernels trust lengths and parameters.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let Self { format, n, k, .. } = *self;
        let whole = self.group == k && format.fixed_group().is_none();
        let group = if whole { Group::WholeK } else { Group::Size(self.group) };
        let shape = Shape::new(op, format, n, k, group)?;
        let there = |yes: bool| if yes { shape.parameters } else { 0 };
        let tensors = if format.scales() == ScaleFormat::E4m3 { n } else { 0 };
        for (name, got, want) in [
            ("group", self.group, shape.group),
            ("row_words", self.row_words, shape.row_words),
            ("words", self.words.len(), shape.words),
            ("scales", self.scales.len(), there(format.scales() == ScaleFormat::F16)),
            ("zeros", self.zeros.len(), there(format.has_zeros())),
            ("scales", self.scale_bytes.len(), there(format.fixed_group().is_some())),
            ("tensor_scales", self.tensor_scales.len(), tensors),
        ] {
            if got != want {
                let want = format!("{want} for [{n}, {k}] {} in groups of {}", format.name(), shape.group);
                return Err(Error::shape(op, name, got, want));
            }
        }
        for (name, values) in [("scales", &self.scales), ("zeros", &self.zeros)] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::value(op, format!("{name}[{i}]"), values[i], "finite"));
            }
        }
        let largest = format.scales().largest_byte();
        if let Some(i) = self.scale_bytes.iter().position(|&byte| byte > largest) {
            let (what, got) = (format!("scales[{i}]"), self.scale_bytes[i]);
            return Err(Error::value(op, what, got, format!("at most {largest}")));
        }
        let good = |t: f32| t.is_normal() && t > 0.0 && t <= LARGEST / 512.0;
        if let Some(&tensor) = self.tensor_scales.iter().find(|&&t| !good(t)) {
            return Err(Error::value(op, "tensor_scale", tensor, "positive, normal and at most 2^104"));
        }
        if let Some(row) = (0..n).find(|&row| !self.padding_is_zero(row)) {
            return Err(Error::value(op, format!("words of row {row}"), "padding", "0 after element k"));
        }
        Ok(())
    }

    /// The dequantised weights, row-major `[n, k]`, in f32 arithmetic. Runs on all rayon threads.
    pub fn unpack(&self) -> Vec<f32> {
        let decode = self.format.codec().decode;
        let group = if self.format.is_quantised() { self.group.max(1) } else { self.k.max(1) };
        let groups = self.groups();
        let zero = |index: usize| self.zeros.get(index).map_or(0.0, |v| v.to_f32());
        let mut out = vec![0.0f32; self.n * self.k];
        out.par_chunks_mut(self.k.max(1)).enumerate().for_each(|(row, out)| {
            let words = self.row(row);
            for (index, chunk) in out.chunks_mut(group).enumerate() {
                let scale = self.scale(row, index);
                let zero = zero(row * groups + index);
                for (offset, value) in chunk.iter_mut().enumerate() {
                    *value = decode(self.code_of(words, index * group + offset), scale, zero);
                }
            }
        });
        out
    }

    /// The scale of a group, with the tensor scale; 0 outside the matrix and for dense formats.
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        if row >= self.n || group >= self.groups() {
            return 0.0;
        }
        let index = row * self.groups() + group;
        match self.scale_bytes.get(index) {
            Some(&byte) => {
                let tensor = self.tensor_scales.get(row).copied().unwrap_or(1.0);
                Scaling { format: self.format.scales(), tensor }.value(byte)
            }
            None => self.scales.get(index).map_or(0.0, |v| v.to_f32()),
        }
    }

    /// The code of one element, in the low [`Format::bits`] bits; 0 outside the matrix, like the padding.
    pub fn code(&self, row: usize, col: usize) -> u32 {
        if row < self.n && col < self.k { self.code_of(self.row(row), col) } else { 0 }
    }

    /// Groups (scales) in a row; 0 for a dense format.
    pub fn groups(&self) -> usize {
        self.k.checked_div(self.group).unwrap_or(0)
    }

    /// Bytes of codes, scales and zeros together.
    pub fn bytes(&self) -> u64 {
        let words = self.words.len() + self.tensor_scales.len();
        (4 * words + 2 * (self.scales.len() + self.zeros.len()) + self.scale_bytes.len()) as u64
    }

    fn row(&self, row: usize) -> &[u32] {
        self.words.get(row * self.row_words..(row + 1) * self.row_words).unwrap_or(&[])
    }

    fn code_of(&self, row: &[u32], col: usize) -> u32 {
        let bits = self.format.bits();
        let get = |at: usize| u64::from(row.get(at).copied().unwrap_or(0));
        let at = col * bits;
        let pair = get(at / 32) | get(at / 32 + 1) << 32;
        (pair >> (at % 32)) as u32 & (u32::MAX >> (32 - bits))
    }

    fn padding_is_zero(&self, row: usize) -> bool {
        let used = self.k * self.format.bits();
        let row = self.row(row);
        let partial = row.get(used / 32).is_none_or(|word| word >> (used % 32) == 0);
        partial && row.iter().skip(used / 32 + 1).all(|&word| word == 0)
    }
}

/// Checked sizes of a packed matrix.
pub(crate) struct Shape {
    pub group: usize,
    pub row_words: usize,
    /// `n * k`
    pub elements: usize,
    /// `n * row_words`
    pub words: usize,
    /// `n * groups`; 0 for a dense format.
    pub parameters: usize,
}

impl Shape {
    pub fn new(op: &'static str, format: Format, n: usize, k: usize, group: Group) -> Result<Self> {
        for (name, size) in [("n", n), ("k", k)] {
            if size == 0 {
                return Err(Error::shape(op, name, size, "at least 1"));
            }
        }
        let overflow = || Error::value(op, "n * k", (n, k), "a matrix that fits the address space");
        let elements = n.checked_mul(k).ok_or_else(overflow)?;
        let row_words = k.checked_mul(format.bits()).ok_or_else(overflow)?.div_ceil(32);
        let row_words = row_words
            .checked_next_multiple_of(if format.bits() == 3 { 3 } else { 8 })
            .ok_or_else(overflow)?;
        // In bytes, so that neither the words nor the unpacked f32 values overflow an allocation.
        let bytes = row_words.max(k).checked_mul(n).and_then(|words| words.checked_mul(4));
        bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(overflow)?;
        let group = group.resolve(op, format, k)?;
        let parameters = n * k.checked_div(group).unwrap_or(0);
        Ok(Shape { group, row_words, elements, words: n * row_words, parameters })
    }
}
