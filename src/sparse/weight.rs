//! A compressed matrix on the GPU.

use std::ops::Range;

use rayon::prelude::*;

use super::matrix::{SparseMatrix, packet};
use super::pattern::Pattern;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::kernel::index32;
use crate::matmul::{arrange_fp4, group_shift, upload_halves};
use crate::tensor::Tensor;

/// A matrix \[N, K\] with N:M sparsity, as the kernels read it. One that is larger than a storage binding may be is split by rows;
/// the kernels then record one launch per part.
#[derive(Clone, Debug)]
pub struct SparseWeight {
    pattern: Pattern,
    format: Format,
    n: usize,
    k: usize,
    group: usize,
    value_words: usize,
    index_words: usize,
    parts: Vec<Part>,
}

/// Some rows of a weight.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub rows: Range<usize>,
    pub values: Tensor,
    pub indices: Tensor,
    /// Two halves a word; the values again where the format has none, as something must be bound.
    pub scales: Tensor,
}

const KERNEL: &str = "SparseWeight::upload";

impl SparseWeight {
    /// Uploads a compressed matrix. Blocks until the copy is queued.
    ///
    /// # Errors
    /// [`Error::Limit`] if a single row is over the binding limit or an index would pass 32 bits, [`Error::OutOfMemory`].
    pub fn upload(gpu: &Gpu, matrix: &SparseMatrix) -> Result<SparseWeight> {
        SparseWeight::upload_in_parts(gpu, matrix, gpu.caps().max_binding)
    }

    /// As [`SparseWeight::upload`], with parts of at most `max_bytes` bytes of values.
    ///
    /// # Errors
    /// As [`SparseWeight::upload`].
    pub fn upload_in_parts(gpu: &Gpu, matrix: &SparseMatrix, max_bytes: u64) -> Result<SparseWeight> {
        let SparseMatrix { pattern, format, n, k, group, value_words, index_words, .. } = *matrix;
        index32(KERNEL, "k", k)?;
        // The wider of the two arrays, and columns, must stay within the binding limit and 32-bit indices.
        let row_bytes = value_words.max(index_words) as u64 * 4;
        let max = max_bytes.min(gpu.caps().max_binding);
        let rows = (max / row_bytes).min((1 << 31) / k as u64).min(n as u64) as usize;
        if rows == 0 {
            let what = format!("{KERNEL}: one row of [{n}, {k}] {} {}", pattern.name(), format.name());
            return Err(Error::Limit { what, name: "bytes of a part", need: row_bytes, max });
        }
        let groups = matrix.groups();
        let mut parts = Vec::new();
        for first in (0..n).step_by(rows) {
            let rows = first..(first + rows).min(n);
            let words = |all: &[u32], width: usize, arrange: fn(u32) -> u32| -> Result<Tensor> {
                let part = &all[rows.start * width..rows.end * width];
                let part: Vec<u32> = part.par_iter().map(|&word| arrange(word)).collect();
                gpu.tensor(&[part.len()], &part)
            };
            let pairs = if pattern == Pattern::TwoOfFour { arrange_pairs } else { |word| word };
            let codes = match (format, pattern) {
                (Format::Fp4, Pattern::TwoOfFour) => |word| arrange_fp4(first_then_second(word)),
                (Format::Fp4, _) => arrange_fp4,
                (Format::Int4, Pattern::TwoOfFour) => first_then_second,
                _ => |word| word,
            };
            let values = words(&matrix.values, value_words, codes)?;
            let indices = words(&matrix.indices, index_words, pairs)?;
            let scales = if groups == 0 {
                values.clone()
            } else {
                upload_halves(gpu, &matrix.scales[rows.start * groups..rows.end * groups])?
            };
            parts.push(Part { rows, values, indices, scales });
        }
        Ok(SparseWeight { pattern, format, n, k, group, value_words, index_words, parts })
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
    /// Columns that share a scale; K for one scale a row, 0 for `F16`.
    pub fn group(&self) -> usize {
        self.group
    }
    /// Bytes of values, indices and scales.
    pub fn bytes(&self) -> u64 {
        (self.n * (4 * (self.value_words + self.index_words) + 2 * self.groups())) as u64
    }
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
    /// 16-byte packets of kept values in a row.
    pub(super) fn packets(&self) -> usize {
        self.value_words / 4
    }
    pub(super) fn index_words(&self) -> usize {
        self.index_words
    }
    pub(super) fn groups(&self) -> usize {
        self.k.checked_div(self.group).unwrap_or(0)
    }
    /// log2 of the group; 31 for one group a row.
    pub(super) fn group_shift(&self) -> u32 {
        group_shift(self.group, self.k)
    }
    /// Scales that a packet spans: a power of two.
    pub(super) fn packet_scales(&self) -> u32 {
        let columns = packet(self.format) / self.pattern.kept() * self.pattern.block();
        match self.group {
            group if group == 0 || group == self.k => 1,
            group => (columns / group).max(1) as u32,
        }
    }
    pub(super) fn check_device(&self, kernel: &'static str, what: &str, gpu: &Gpu) -> Result<()> {
        self.parts.iter().try_for_each(|p| p.values.check_device(kernel, what, gpu))
    }
}

/// Makes the second position of each pair of 2:4 one less, so that a pair is a number below 11. Padding stays 0.
fn arrange_pairs(word: u32) -> u32 {
    let empty = !(word | word >> 1 | word >> 2 | word >> 3) & 0x1111_1111;
    word - (0x4444_4444 & !(empty << 2))
}

/// Brings the first codes of the four pairs of a word before their second ones: decoding finds those in one word that are four apart.
fn first_then_second(word: u32) -> u32 {
    (0..4).fold(0, |out, pair| {
        out | (word >> (8 * pair) & 15) << (4 * pair) | (word >> (8 * pair + 4) & 15) << (4 * pair + 16)
    })
}

#[cfg(test)]
mod tests {
    use super::{arrange_pairs, first_then_second};

    #[test]
    fn pairs_become_numbers_below_11() {
        let pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
        let code = |(i, j): (u32, u32)| i | j << 2;
        for (a, b) in pairs.into_iter().flat_map(|a| pairs.map(|b| (a, b))) {
            let want = |(i, j): (u32, u32)| i + 4 * (j - 1);
            assert!(want(a) < 11);
            assert_eq!(arrange_pairs(code(a) << 28 | code(b) << 4), want(a) << 28 | want(b) << 4);
        }
        assert_eq!(arrange_pairs(0), 0);
    }

    #[test]
    fn first_codes_come_before_second_ones() {
        assert_eq!(first_then_second(0x7654_3210), 0x7531_6420);
        let places = (0..32).map(|bit| first_then_second(1 << bit));
        assert_eq!(places.fold(0, |all, word| all ^ word), u32::MAX);
    }
}
