//! All codes of all formats, rounding, scale search and layout. What is refused is in `refusal_tests.rs`.

use super::*;
use half::f16;

const SEARCHES: [ScaleSearch; 2] = [ScaleSearch::AbsMax, ScaleSearch::Mse];
const GROUPS: [Group; 4] = [Group::Size(16), Group::Size(32), Group::Size(128), Group::WholeK];

fn quantised() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|f| f.is_quantised())
}

/// Every quantised format with every group that it has in rows of `k`.
fn grouped(k: usize) -> impl Iterator<Item = (Format, Group)> {
    quantised().flat_map(move |f| GROUPS.into_iter().filter(move |&g| f.allows(g, k)).map(move |g| (f, g)))
}

/// Roughly normal values from a fixed linear congruential generator.
fn random(count: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 0.05).collect()
}

fn pack(values: &[f32], k: usize, format: Format, group: Group, search: ScaleSearch) -> PackedMatrix {
    PackedMatrix::quantise(values, values.len() / k, k, format, group, search).unwrap()
}

fn error_of(matrix: &PackedMatrix, values: &[f32]) -> f64 {
    matrix.unpack().iter().zip(values).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// The parameters of element `i`: scale and zero point.
fn parameters(matrix: &PackedMatrix, i: usize) -> (f32, f32) {
    let (row, group) = (i / matrix.k, i % matrix.k / matrix.group);
    let zero = matrix.zeros.get(row * matrix.groups() + group).map_or(0.0, |z| z.to_f32());
    (matrix.scale(row, group), zero)
}

/// Every code at every place of a word (3 bits: of three words); 0 in place of codes that are no numbers. The scale of
/// formats with bytes is the power of two below `scale`.
fn all_codes(format: Format, scale: f32, zero: f32) -> (PackedMatrix, Vec<u32>) {
    let (bits, n) = (format.bits(), 1usize << format.bits());
    let k = if bits == 3 { 96 } else { 256 / bits };
    let codes = (0..n * k).map(|i| ((i / k + i % k) % n) as u32);
    let codes: Vec<u32> = codes.map(|code| if format.is_finite(code) { code } else { 0 }).collect();
    let row_words = k * bits / 32;
    let mut words = vec![0u32; n * row_words];
    for (i, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            let at = i % k * bits + bit;
            words[i / k * row_words + at / 32] |= (code >> bit & 1) << (at % 32);
        }
    }
    let exponent = (scale.to_bits() >> 23) as u8;
    let matrix = match format.fixed_group() {
        Some(32) => PackedMatrix::from_byte_scales(format, n, k, words, vec![exponent; n * k / 32], 1.0),
        Some(_) => {
            // E4M3's 1.5 and the rest of the scale.
            let tensor = f32::from_bits(u32::from(exponent) << 23) / 1.5;
            PackedMatrix::from_byte_scales(format, n, k, words, vec![0x3c; n * k / 16], tensor)
        }
        None => {
            let zeros = vec![f16::from_f32(zero); if format.has_zeros() { n } else { 0 }];
            PackedMatrix::from_parts(format, n, k, Group::WholeK, words, vec![f16::from_f32(scale); n], zeros)
        }
    };
    (matrix.unwrap(), codes)
}

#[test]
fn names_and_properties() {
    for &format in Format::ALL {
        assert_eq!(Format::parse(format.name()), Some(format));
        assert_eq!(format.is_quantised(), !matches!(format, Format::F32 | Format::F16 | Format::Bf16));
        assert_eq!(format.has_zeros(), matches!(format, Format::Int4Zero | Format::Int8Zero));
        assert!(format.allows(format.default_group(), 32));
    }
    assert_eq!(
        Format::ALL.iter().map(|f| f.bits()).collect::<Vec<_>>(),
        [32, 16, 16, 4, 4, 4, 8, 8, 8, 8, 4, 3, 3, 2, 4, 4]
    );
    assert_eq!(Format::parse("int5"), None);
}

/// Read back by `code`, decoded by `unpack` and by the twin of the GPU's decoder, which shares no code with it.
#[test]
fn every_code_in_every_position_decodes() {
    for (scale, zero) in [(1.0, 0.0), (0.0123, 7.3), (6e-8, 15.0), (500.0, -3.25)] {
        for format in quantised() {
            let (matrix, codes) = all_codes(format, scale, zero);
            let values = matrix.unpack();
            let places: Vec<usize> = (0..values.len()).collect();
            let twin = crate::dequant::dequant(&matrix, &places);
            for (i, &code) in codes.iter().enumerate() {
                assert_eq!(matrix.code(i / matrix.k, i % matrix.k), code, "{format:?}");
                let want = twin[i] as f32;
                assert_eq!(values[i].to_bits(), want.to_bits(), "{format:?} code {code} scale {scale}");
            }
        }
    }
}

#[test]
fn every_code_returns() {
    for (scale, zero) in [(1.0, 0.0), (0.0123, 7.3), (6e-8, 15.0), (500.0, -3.25)] {
        for format in quantised() {
            let (matrix, codes) = all_codes(format, scale, zero);
            // Quantising never gives int8's -128, and E5M2's codes beyond 448 are for the larger values of a clipped group.
            let unused = |code: u32| match format {
                Format::Int8 => code == 0x80,
                Format::E5m2 => code & 0x7f > 0x5f,
                _ => false,
            };
            let values: Vec<f32> =
                matrix.unpack().iter().zip(&codes).map(|(&v, &c)| if unused(c) { 0.0 } else { v }).collect();
            // Only the search finds the scale of a group that uses the lowest code of an integer format.
            let lowest = matches!(format, Format::Int4 | Format::Int3 | Format::Int2);
            let search = if lowest { ScaleSearch::Mse } else { ScaleSearch::AbsMax };
            let group = format.fixed_group().map_or(Group::WholeK, Group::Size);
            // One row, as a row of 8-bit codes does not hold them all.
            let again = pack(&values, values.len(), format, group, search);
            for (i, &code) in codes.iter().enumerate() {
                let want = if unused(code) { 0 } else { code };
                assert_eq!(again.code(0, i), want, "{format:?} scale {scale} zero {zero} at {i}");
            }
        }
    }
}

#[test]
fn idempotent_on_representable_values() {
    let values = random(8 * 256, 1);
    for (format, group) in grouped(256) {
        let first = pack(&values, 256, format, group, ScaleSearch::AbsMax);
        for search in SEARCHES {
            let again = pack(&first.unpack(), 256, format, group, search);
            assert_eq!(again.unpack(), first.unpack(), "{format:?} {group:?}");
        }
    }
}

#[test]
fn codes_are_the_nearest() {
    let values = random(4 * 128, 2);
    for (format, group) in grouped(128) {
        for search in SEARCHES {
            let matrix = pack(&values, 128, format, group, search);
            for (i, (&value, got)) in values.iter().zip(matrix.unpack()).enumerate() {
                let (scale, zero) = parameters(&matrix, i);
                let best = (0..1u32 << format.bits())
                    .filter(|&code| format.is_finite(code) && (format != Format::Int8 || code != 128))
                    .map(|code| ((format.codec().decode)(code, scale, zero) - value).abs())
                    .fold(f32::INFINITY, f32::min);
                let slack = 1e-6 * (value.abs() + scale);
                assert!((got - value).abs() <= best + slack, "{format:?} {group:?} {value} {got} {best}");
            }
        }
    }
}

/// The codes of `values` when `extremes` fix the scale at 1 (and the zero point at 0).
fn codes_at_unit_scale(format: Format, extremes: &[f32], values: &[f32]) -> Vec<u32> {
    let mut row: Vec<f32> = extremes.iter().chain(values).copied().collect();
    row.resize(32, 0.0);
    let group = format.fixed_group().map_or(Group::WholeK, Group::Size);
    let matrix = pack(&row, 32, format, group, ScaleSearch::AbsMax);
    assert_eq!(matrix.scale(0, 0), 1.0, "{format:?}");
    (extremes.len()..extremes.len() + values.len()).map(|e| matrix.code(0, e)).collect()
}

/// Of the codebooks to the lower code, as their entries have no order of evenness.
#[test]
fn ties_go_to_the_even_code() {
    let ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -0.75, -2.5, -5.0];
    for format in [Format::Fp4, Format::Mxfp4] {
        assert_eq!(codes_at_unit_scale(format, &[6.0], &ties), [0, 2, 2, 4, 4, 6, 6, 8, 10, 12, 14]);
        assert_eq!(codes_at_unit_scale(format, &[6.0], &[0.26, 0.74, 4.99, 5.01]), [1, 1, 6, 7]);
    }
    let tiny = f32::powi(2.0, -10);
    for (format, extremes, values, codes) in [
        (Format::Int4, &[7.0][..], &[0.5, 1.5, -0.5, -6.5][..], &[8, 10, 8, 2][..]),
        (Format::Int4Zero, &[0.0, 15.0], &[0.5, 1.5, 14.5], &[0, 2, 14]),
        (Format::Int8, &[127.0], &[0.5, 1.5, -0.5, -2.5], &[0, 2, 0, 254]),
        (Format::Int8Zero, &[0.0, 255.0], &[0.5, 1.5, 254.5], &[0, 2, 254]),
        (Format::Int3, &[3.0], &[0.5, 1.5, -0.5, -2.5], &[4, 6, 4, 2]),
        (Format::Int2, &[1.0], &[0.5, -0.5, 0.51, -0.51], &[2, 2, 3, 1]),
        (Format::E4m3, &[448.0], &[1.0625, 1.1875, -1.0625, tiny, 3.0 * tiny], &[0x38, 0x3a, 0xb8, 0, 2]),
        (Format::E5m2, &[448.0], &[1.125, 1.375, -1.125, tiny / 128.0], &[0x3c, 0x3e, 0xbc, 0]),
        (Format::Nf4, &[1.0], &[0.5 * 0.079_580_3, -0.5 * 0.091_050_036], &[7, 6]),
        (Format::Nf3, &[1.0], &[0.5 * 0.183_337_53, -0.5 * 0.246_931_4], &[3, 2]),
    ] {
        assert_eq!(codes_at_unit_scale(format, extremes, values), codes, "{format:?}");
    }
    let (f16_half, bf16_half) = (f32::powi(2.0, -11), f32::powi(2.0, -8));
    for (format, half, one) in [(Format::F16, f16_half, 0x3c00), (Format::Bf16, bf16_half, 0x3f80)] {
        let values = [1.0 + half, 1.0 + 3.0 * half, 1.0 + half * 1.001];
        let matrix = pack(&values, 3, format, Group::WholeK, ScaleSearch::AbsMax);
        assert_eq!([0, 1, 2].map(|e| matrix.code(0, e)), [one, one + 2, one + 1]);
    }
}

#[test]
fn mse_is_never_worse_than_absmax() {
    for seed in 0..20 {
        let mut values = random(256, seed);
        values[17] *= 1.0 + seed as f32; // an outlier, which clipping trades off
        if seed % 3 == 0 {
            values.iter_mut().for_each(|v| *v = *v * 1e-3 + 0.7); // narrow
        }
        for (format, group) in grouped(256) {
            let [absmax, mse] = SEARCHES.map(|s| error_of(&pack(&values, 256, format, group, s), &values));
            assert!(mse <= absmax * (1.0 + 1e-12), "{format:?} {group:?} {seed}: {mse} > {absmax}");
        }
    }
    // What four bits or fewer gain by it; the steps of FP8 are relative, and NVFP4's scales are fitted anyway.
    let values = random(16384, 5);
    for format in quantised().filter(|f| f.bits() <= 4 && *f != Format::Nvfp4) {
        let group = format.fixed_group().map_or(Group::Size(128), Group::Size);
        let [absmax, mse] = SEARCHES.map(|s| error_of(&pack(&values, 128, format, group, s), &values));
        assert!(mse < 0.97 * absmax, "{format:?}: {mse} against {absmax}");
    }
}

#[test]
fn zero_and_constant_groups() {
    let constants = [1.0f32, -1.0, 0.1, -0.1, 0.012345, -3.4567e-3, 1234.567, -65000.0, 3e5, -3.5e5];
    for format in quantised() {
        let group = format.default_group();
        // What the largest magnitude becomes, or less.
        let largest = match format {
            Format::Nf4 | Format::Nf3 | Format::Int2 => 1.0,
            Format::Int3 => 3.0,
            _ => 6.0,
        };
        let tolerance = match format {
            Format::Int4Zero | Format::Int8Zero => 2e-5,
            // Powers of two alone.
            Format::Mxfp4 => 0.25,
            _ => f32::powi(2.0, -8),
        };
        for search in SEARCHES {
            let zeros = pack(&[0.0; 64], 64, format, group, search);
            assert_eq!(zeros.unpack(), [0.0; 64]);
            assert!((0..zeros.groups()).all(|g| zeros.scale(0, g) < 1e-37), "{format:?}");
            for constant in constants.into_iter().filter(|c| c.abs() <= largest * 65504.0) {
                for got in pack(&[constant; 64], 64, format, group, search).unpack() {
                    let off = (got - constant).abs();
                    assert!(off <= tolerance * constant.abs(), "{format:?} {constant} {got}");
                }
            }
        }
    }
}

#[test]
fn narrow_groups_far_from_zero() {
    for (offset, width) in
        [(100.0f32, 1e-3), (-100.0, 0.1), (1.0, 1e-5), (-1.0, 0.02), (5e4, 1.0), (0.01, 1e-6)]
    {
        let values: Vec<f32> = random(64, 9).iter().map(|v| offset + v * 10.0 * width).collect();
        for format in quantised().filter(|f| f.has_zeros()) {
            let matrix = pack(&values, 64, format, Group::Size(32), ScaleSearch::AbsMax);
            assert!(matrix.zeros.iter().all(|z| z.is_finite()));
            let worst = matrix.unpack().iter().zip(&values).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 0.1 * width + 3e-5 * offset.abs(), "{format:?} {offset} {width}: {worst}");
        }
    }
}

#[test]
fn extreme_scales() {
    for format in quantised().filter(|f| f.scales() == ScaleFormat::F16) {
        for search in SEARCHES {
            // Scales that underflow f16 become its least positive value.
            for tiny in [1e-8f32, 1e-30, f32::from_bits(1)] {
                let values = [tiny, -tiny, 0.0, tiny / 2.0].repeat(8);
                let matrix = pack(&values, 32, format, Group::Size(32), search);
                assert_eq!(matrix.scales, [f16::MIN_POSITIVE_SUBNORMAL], "{format:?} {tiny}");
                let half_step = f32::powi(2.0, -25);
                assert!(matrix.unpack().iter().zip(&values).all(|(a, b)| (a - b).abs() <= half_step));
            }
            let values = [65504.0f32, -65504.0, 0.0, 1.0].repeat(8);
            let got = pack(&values, 32, format, Group::Size(32), search).unpack();
            assert!(got.iter().zip(&values).all(|(a, b)| (a - b).abs() <= 5000.0), "{format:?} {got:?}");
        }
    }
    let values = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0];
    let got = pack(&values, 4, Format::F32, Group::WholeK, ScaleSearch::Mse).unpack();
    assert!(got.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn ragged_rows_are_padded_with_zeros() {
    for &format in Format::ALL {
        for k in [1, 7, 31, 33, 50, 130].into_iter().filter(|&k| format.allows(Group::WholeK, k)) {
            let values: Vec<f32> = random(3 * k, 11).iter().map(|v| v + 1.0).collect();
            let matrix = pack(&values, k, format, Group::WholeK, ScaleSearch::AbsMax);
            let unit = if format.bits() == 3 { 3 } else { 8 };
            assert_eq!(matrix.row_words, (k * format.bits()).div_ceil(32 * unit) * unit);
            assert_eq!(matrix.words.len(), 3 * matrix.row_words);
            assert_eq!((matrix.group, matrix.groups()), if format.is_quantised() { (k, 1) } else { (0, 0) });
            assert_eq!(matrix.scales.len(), 3 * matrix.groups());
            let parameters = matrix.scales.len() + matrix.zeros.len();
            assert_eq!(matrix.bytes(), (matrix.words.len() * 4 + parameters * 2) as u64);
            assert_eq!((matrix.code(3, 0), matrix.code(0, k)), (0, 0));
            let tolerance = if format.bits() < 4 { 0.6 } else { 0.3 };
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < tolerance;
            assert!(matrix.unpack().iter().zip(&values).all(near), "{format:?} {k}");
            let PackedMatrix { words, scales, zeros, .. } = matrix.clone();
            let parts = PackedMatrix::from_parts(format, 3, k, Group::WholeK, words, scales, zeros);
            assert_eq!(parts.unwrap(), matrix);
        }
    }
}
