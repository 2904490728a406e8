//! N:M patterns and the choice of what is kept.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// How many of every so many consecutive weights of a row are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pattern {
    /// 2:4, the pattern of NVIDIA's sparse tensor cores (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021).
    TwoOfFour,
    OneOfFour,
    TwoOfEight,
    FourOfEight,
}

impl Pattern {
    pub const ALL: [Pattern; 4] =
        [Pattern::TwoOfFour, Pattern::OneOfFour, Pattern::TwoOfEight, Pattern::FourOfEight];

    /// Kept weights of a block: n.
    pub const fn kept(self) -> usize {
        match self {
            Pattern::OneOfFour => 1,
            Pattern::TwoOfFour | Pattern::TwoOfEight => 2,
            Pattern::FourOfEight => 4,
        }
    }

    /// Columns of a block: m.
    pub const fn block(self) -> usize {
        match self {
            Pattern::TwoOfFour | Pattern::OneOfFour => 4,
            Pattern::TwoOfEight | Pattern::FourOfEight => 8,
        }
    }

    /// Bits of a position in a block: 2 or 3.
    pub const fn index_bits(self) -> usize {
        if self.block() == 4 { 2 } else { 3 }
    }

    /// `n:m`.
    pub const fn name(self) -> &'static str {
        match self {
            Pattern::TwoOfFour => "2:4",
            Pattern::OneOfFour => "1:4",
            Pattern::TwoOfEight => "2:8",
            Pattern::FourOfEight => "4:8",
        }
    }

    /// The pattern of this [`name`](Pattern::name); `None` for any other string.
    pub fn parse(name: &str) -> Option<Pattern> {
        Pattern::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Sets all but the weights of highest score in every block of `values`, row-major \[n, k\], to 0. The score is |w|, or with
/// `importance` (\[k\], one a column, not negative) |w| · importance: with the norms of the activations that is Wanda (Sun
/// et al., "A Simple and Effective Pruning Approach for Large Language Models", 2023). Of equal scores the first is kept.
///
/// # Errors
/// [`Error::Shape`] for an empty matrix, a wrong length and a `k` that is no multiple of the block; [`Error::Value`] for a
/// value or an importance that is not finite, and for a negative importance.
///
/// ```
/// use wgmarlin::sparse::{Pattern, prune};
/// let mut row = [0.1, -3.0, 2.0, 0.5];
/// prune(&mut row, 1, 4, Pattern::TwoOfFour, None)?;
/// assert_eq!(row, [0.0, -3.0, 2.0, 0.0]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn prune(
    values: &mut [f32],
    n: usize,
    k: usize,
    pattern: Pattern,
    importance: Option<&[f32]>,
) -> Result<()> {
    let keep = positions("prune", values, n, k, pattern, importance)?;
    let blocks = values.par_chunks_mut(pattern.block()).zip(keep.par_chunks(pattern.kept()));
    blocks.for_each(|(block, keep)| {
        for (i, value) in block.iter_mut().enumerate() {
            if !keep.iter().any(|&at| usize::from(at) == i) {
                *value = 0.0;
            }
        }
    });
    Ok(())
}

/// n·k after the checks that everything about sparse matrices shares.
pub(super) fn checked_elements(op: &'static str, n: usize, k: usize, pattern: Pattern) -> Result<usize> {
    for (name, size) in [("n", n), ("k", k)] {
        if size == 0 {
            return Err(Error::shape(op, name, size, "at least 1"));
        }
    }
    if !k.is_multiple_of(pattern.block()) {
        let want = format!("a multiple of {}, the block of {}", pattern.block(), pattern.name());
        return Err(Error::shape(op, "k", k, want));
    }
    // In bytes of f32, with room for the padding of rows.
    let bytes = k.checked_add(256).and_then(|k| k.checked_mul(n)).and_then(|n| n.checked_mul(4));
    match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
        Some(_) => Ok(n * k),
        None => Err(Error::value(op, "n * k", (n, k), "a matrix that fits the address space")),
    }
}

/// For every block the positions of the kept weights, ascending.
pub(super) fn positions(
    op: &'static str,
    values: &[f32],
    n: usize,
    k: usize,
    pattern: Pattern,
    importance: Option<&[f32]>,
) -> Result<Vec<u8>> {
    let elements = checked_elements(op, n, k, pattern)?;
    if values.len() != elements {
        return Err(Error::shape(op, "values", values.len(), format!("n * k = {n} * {k} elements")));
    }
    if let Some(at) = values.par_iter().position_first(|v| !v.is_finite()) {
        let what = format!("values at row {}, column {}", at / k, at % k);
        return Err(Error::value(op, what, values[at], "finite"));
    }
    if let Some(importance) = importance {
        if importance.len() != k {
            return Err(Error::shape(op, "importance", importance.len(), format!("k = {k} elements")));
        }
        if let Some(at) = importance.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
            let what = format!("importance[{at}]");
            return Err(Error::value(op, what, importance[at], "finite and at least 0"));
        }
    }
    let (block, kept) = (pattern.block(), pattern.kept());
    let mut keep = vec![0u8; elements / block * kept];
    keep.par_chunks_mut(kept).zip(values.par_chunks(block)).enumerate().for_each(
        |(index, (keep, values))| {
            let first = index * block % k;
            // f64, as the product of two large f32 would be infinite and lose the order.
            let mut scores = [0.0f64; 8];
            for (i, (score, &value)) in scores.iter_mut().zip(values).enumerate() {
                let factor = importance.map_or(1.0, |all| f64::from(all[first + i]));
                *score = f64::from(value.abs()) * factor;
            }
            let mut order = [0u8, 1, 2, 3, 4, 5, 6, 7];
            let order = &mut order[..block];
            // Stable: of equal scores the first comes first.
            order.sort_by(|&a, &b| scores[usize::from(b)].total_cmp(&scores[usize::from(a)]));
            keep.copy_from_slice(&order[..kept]);
            keep.sort_unstable();
        },
    );
    Ok(keep)
}
