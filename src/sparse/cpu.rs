//! The reference in f64: kept values decoded one by one, from the formats' definitions.

use half::f16;
use rayon::prelude::*;

use super::SparseMatrix;
use crate::format::Format;
use crate::matmul::{Activation, activate};

/// Selected elements (flat indices into \[M, N\]) of activation(a · Wᵀ + bias) + residual; `a` is \[M, K\].
pub fn gemm_sparse(
    a: &[f32],
    matrix: &SparseMatrix,
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    at: &[usize],
) -> Vec<f64> {
    let (n, k) = (matrix.n, matrix.k);
    at.par_iter()
        .map(|&i| {
            let (m, row) = (i / n, i % n);
            let mut sum = bias.map_or(0.0, |b| f64::from(b[row]));
            for e in 0..matrix.row_kept() {
                let (column, weight) = element(matrix, row, e);
                sum += f64::from(a[m * k + column]) * weight;
            }
            activate(sum, activation) + residual.map_or(0.0, |r| f64::from(r[i]))
        })
        .collect()
}

/// Column and weight of a row's `e`th kept value.
pub(super) fn element(matrix: &SparseMatrix, row: usize, e: usize) -> (usize, f64) {
    const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let (column, code) = matrix.kept(row, e);
    let value = match matrix.format {
        Format::Fp4 if code & 8 != 0 => -E2M1[(code & 7) as usize],
        Format::Fp4 => E2M1[(code & 7) as usize],
        Format::Int4 => f64::from(code) - 8.0,
        _ => f16::from_bits(code as u16).to_f64(),
    };
    let scale = match column.checked_div(matrix.group) {
        Some(group) => matrix.scales[row * matrix.groups() + group].to_f64(),
        None => 1.0,
    };
    (column, value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Group;
    use crate::sparse::Pattern;

    #[test]
    fn closed_forms() {
        // Row 0 keeps columns 1 and 2 of the first block and 0 and 3 of the second; row 1 columns 0, 1 and 2, 3.
        let half = f16::from_f32;
        let layout = (Pattern::TwoOfFour, Format::Int4, Group::WholeK);
        let indices = vec![0b11_00_10_01, 0, 0b11_10_01_00, 0];
        let values = vec![0xf79a, 0, 0, 0, 0x8888, 0, 0, 0];
        let scales = vec![half(0.5), half(2.0)];
        let matrix = SparseMatrix::from_parts(layout, 2, 8, values, indices, scales).expect("legal");
        let a = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];
        let got = gemm_sparse(&a, &matrix, Some(&[0.5, 0.0]), Activation::None, Some(&[0.0, 7.0]), &[0, 1]);
        // Codes minus 8: 2, 1, -1, 7.
        assert_eq!(got, [0.5 * (20.0 + 100.0 - 1e4 + 7e7) + 0.5, 7.0]);
        let relu = gemm_sparse(&a.map(|x| -x), &matrix, None, Activation::Relu, None, &[0]);
        assert_eq!(relu, [0.0]);
    }
}
