//! The reference: codes decoded one by one.

use rayon::prelude::*;

use crate::format::{Format, PackedMatrix};

/// The reference: elements of the matrix at flat indices into \[N, K\], from their codes and the formats' definitions.
/// Finite values only: infinities and NaNs of the dense formats are read as if they were numbers.
pub fn dequant(matrix: &PackedMatrix, at: &[usize]) -> Vec<f64> {
    at.par_iter().map(|&i| element(matrix, i / matrix.k, i % matrix.k)).collect()
}

fn element(matrix: &PackedMatrix, row: usize, col: usize) -> f64 {
    let code = matrix.code(row, col);
    let group = |values: &[half::f16]| {
        let index = row * (matrix.k / matrix.group) + col / matrix.group;
        values.get(index).map_or(0.0, |v| float(u32::from(v.to_bits()), 5, 10))
    };
    let byte = || {
        let index = row * (matrix.k / matrix.group) + col / matrix.group;
        matrix.scale_bytes.get(index).map_or(0, |&b| u32::from(b))
    };
    let q = f64::from(code);
    match matrix.format {
        Format::F32 => float(code, 8, 23),
        Format::F16 => float(code, 5, 10),
        Format::Bf16 => float(code, 8, 7),
        Format::Fp4 => float(code, 2, 1) * group(&matrix.scales),
        Format::Int4 => (q - 8.0) * group(&matrix.scales),
        Format::Int4Zero => (q - group(&matrix.zeros)) * group(&matrix.scales),
        Format::Int8 => (if code < 128 { q } else { q - 256.0 }) * group(&matrix.scales),
        Format::Int8Zero => (q - group(&matrix.zeros)) * group(&matrix.scales),
        Format::E4m3 => float(code, 4, 3) * group(&matrix.scales),
        Format::E5m2 => float(code, 5, 2) * group(&matrix.scales),
        Format::Int3 => (q - 4.0) * group(&matrix.scales),
        Format::Int2 => (q - 2.0) * group(&matrix.scales),
        Format::Nf4 | Format::Nf3 => {
            let value = matrix.format.codebook().and_then(|values| values.get(code as usize));
            value.map_or(0.0, |&v| f64::from(v)) * group(&matrix.scales)
        }
        Format::Mxfp4 => float(code, 2, 1) * 2f64.powi(byte() as i32 - 127),
        Format::Nvfp4 => {
            let tensor = matrix.tensor_scales.get(row).map_or(0.0, |&t| f64::from(t));
            float(code, 2, 1) * float(byte(), 4, 3) * tensor
        }
    }
}

/// A binary floating-point number of the IEEE 754 kind: a sign, a biased exponent, a mantissa.
fn float(bits: u32, exponent_bits: i32, mantissa_bits: i32) -> f64 {
    let field = |from: i32, width: i32| bits >> from & ((1 << width) - 1);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let mantissa = f64::from(field(0, mantissa_bits)) * 2f64.powi(-mantissa_bits);
    let magnitude = match field(mantissa_bits, exponent_bits) as i32 {
        0 => mantissa * 2f64.powi(1 - bias),
        exponent => (1.0 + mantissa) * 2f64.powi(exponent - bias),
    };
    if field(mantissa_bits + exponent_bits, 1) == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::format::Group;

    #[test]
    fn floats_are_what_their_standards_say() {
        // OCP MX v1.0, table 5.
        let e2m1: Vec<f64> = (0..8).map(|code| float(code, 2, 1)).collect();
        assert_eq!(e2m1, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(float(15, 2, 1), -6.0);
        for bits in 0..=u16::MAX {
            let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(!h.is_finite() || float(bits.into(), 5, 10) == h.to_f64(), "{h}");
            assert!(!b.is_finite() || float(bits.into(), 8, 7) == b.to_f64(), "{b}");
        }
        for value in [0.1f32, -3.75e20, f32::MIN_POSITIVE / 8.0, f32::MAX] {
            assert_eq!(float(value.to_bits(), 8, 23), f64::from(value));
        }
    }

    #[test]
    fn codes_scales_and_zeros() {
        let half = f16::from_f32;
        let get = |format, codes: u32, zeros| {
            let words = [codes].into_iter().chain([0; 7]).collect();
            let k = 32 / Format::bits(format);
            PackedMatrix::from_parts(format, 1, k, Group::WholeK, words, vec![half(0.5)], zeros)
                .map(|m| dequant(&m, &(0..k).collect::<Vec<_>>()))
                .unwrap_or_default()
        };
        let want = [-4.0, -3.5, -3.0, -2.5, 0.0, 0.5, 3.0, 3.5];
        assert_eq!(get(Format::Int4, 0xfe98_3210, vec![]), want);
        assert_eq!(get(Format::Int4Zero, 0xfe98_3210, vec![half(1.5)])[..3], [-0.75, -0.25, 0.25]);
        assert_eq!(get(Format::Int8, 0xff80_7f01, vec![]), [0.5, 63.5, -64.0, -0.5]);
        assert_eq!(get(Format::Fp4, 0x9876_5432, vec![])[..7], [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, -0.0]);
    }
}
