//! The reference: the packer of the host, and the words that an upload makes of its matrix.

use std::ops::Range;

use half::f16;

use crate::error::Result;
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::matmul::arrange_fp4;

/// The reference: what [`PackedMatrix::quantise`] makes of the weights of a dense matrix.
///
/// # Errors
/// As [`PackedMatrix::quantise`].
pub fn quantize(
    values: &PackedMatrix,
    format: Format,
    group: Group,
    search: ScaleSearch,
) -> Result<PackedMatrix> {
    PackedMatrix::quantise(&values.unpack(), values.n, values.k, format, group, search)
}

/// Words of codes and of scales of some rows as they lie in GPU memory. `tail` stands behind an odd number of scales.
pub(super) fn uploaded(matrix: &PackedMatrix, rows: &Range<usize>, tail: u16) -> [Vec<f64>; 2] {
    let words = &matrix.words[rows.start * matrix.row_words..rows.end * matrix.row_words];
    let scales = &matrix.scales[rows.start * matrix.groups()..rows.end * matrix.groups()];
    let arranged = |&word: &u32| if matrix.format == Format::Fp4 { arrange_fp4(word) } else { word };
    let bits = |half: Option<&f16>| u32::from(half.map_or(tail, |half| half.to_bits()));
    [
        words.iter().map(|word| f64::from(arranged(word))).collect(),
        scales.chunks(2).map(|pair| f64::from(bits(pair.first()) | bits(pair.get(1)) << 16)).collect(),
    ]
}
