//! All codes of all formats, rounding, scale search, layout, and refused input.

use super::*;
use half::f16;

const QUANTISED: [Format; 4] = [Format::Fp4, Format::Int4, Format::Int4Zero, Format::Int8];
const SEARCHES: [ScaleSearch; 2] = [ScaleSearch::AbsMax, ScaleSearch::Mse];

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

/// One row per parameter pair that holds every code in every position of a word.
fn all_codes(format: Format, scale: f32, zero: f32) -> (PackedMatrix, Vec<u32>) {
    let (count, per_word) = (1usize << format.bits(), 32 / format.bits());
    let k = count * per_word;
    let codes: Vec<u32> = (0..k).map(|e| ((e / per_word + e % per_word) % count) as u32).collect();
    let words: Vec<u32> = codes
        .chunks(per_word)
        .map(|c| c.iter().enumerate().map(|(i, code)| code << (i * format.bits())).sum())
        .collect();
    let zeros = if format.has_zeros() { vec![f16::from_f32(zero)] } else { vec![] };
    let scales = vec![f16::from_f32(scale)];
    (PackedMatrix::from_parts(format, 1, k, Group::WholeK, words, scales, zeros).unwrap(), codes)
}

#[test]
fn names_and_properties() {
    for &format in Format::ALL {
        assert_eq!(Format::parse(format.name()), Some(format));
        assert_eq!(format.is_quantised(), !matches!(format, Format::F32 | Format::F16 | Format::Bf16));
        assert_eq!(format.has_zeros(), matches!(format, Format::Int4Zero | Format::Int8Zero));
    }
    assert_eq!(
        Format::ALL.iter().map(|f| f.bits()).collect::<Vec<_>>(),
        [32, 16, 16, 4, 4, 4, 8, 8, 8, 8, 4, 3, 3, 2, 4, 4]
    );
    assert_eq!(Format::parse("int5"), None);
}

#[test]
fn every_code_in_every_position_decodes_and_returns() {
    for (scale, zero) in [(1.0, 0.0), (0.0123, 7.3), (6e-8, 15.0), (500.0, -3.25)] {
        for format in QUANTISED {
            let (matrix, codes) = all_codes(format, scale, zero);
            let (s, z) = (f16::from_f32(scale).to_f32(), f16::from_f32(zero).to_f32());
            let values = matrix.unpack();
            for (e, &code) in codes.iter().enumerate() {
                let want = match format {
                    Format::Fp4 => {
                        let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][code as usize % 8];
                        if code < 8 { magnitude * s } else { -magnitude * s }
                    }
                    Format::Int4 => (code as f32 - 8.0) * s,
                    Format::Int4Zero => (code as f32 - z) * s,
                    _ => f32::from(code as u8 as i8) * s,
                };
                assert_eq!(matrix.code(0, e), code);
                assert_eq!(values[e].to_bits(), want.to_bits(), "{format:?} code {code}");
            }
            // Quantising never gives int8's -128, and only the search finds an int4 scale from its -8.
            let lowest = if format == Format::Int8 { -127.0 * s } else { f32::NEG_INFINITY };
            let values: Vec<f32> = values.iter().map(|v| v.max(lowest)).collect();
            let search = if format == Format::Int4 { ScaleSearch::Mse } else { ScaleSearch::AbsMax };
            let again = pack(&values, codes.len(), format, Group::WholeK, search);
            assert_eq!((&again.scales, &again.zeros), (&matrix.scales, &matrix.zeros), "{format:?}");
            for (e, &code) in codes.iter().enumerate() {
                let want = if format == Format::Int8 && code == 128 { 129 } else { code };
                assert_eq!(again.code(0, e), want, "{format:?} scale {scale} zero {zero}");
            }
        }
    }
}

#[test]
fn idempotent_on_representable_values() {
    let values = random(8 * 256, 1);
    for &format in Format::ALL {
        for group in [Group::Size(64), Group::WholeK].into_iter().filter(|&g| format.allows(g, 256)) {
            let first = pack(&values, 256, format, group, ScaleSearch::AbsMax);
            let searches = if QUANTISED.contains(&format) { &SEARCHES[..] } else { &[] };
            for &search in searches {
                assert_eq!(pack(&first.unpack(), 256, format, group, search), first, "{format:?}");
            }
        }
    }
}

#[test]
fn codes_are_the_nearest() {
    let values = random(4 * 128, 2);
    for format in QUANTISED {
        for search in SEARCHES {
            let matrix = pack(&values, 128, format, Group::Size(32), search);
            let decoded = matrix.unpack();
            for (i, &value) in values.iter().enumerate() {
                let scale = matrix.scales[i / 32].to_f32();
                let zero = matrix.zeros.get(i / 32).map_or(0.0, |z| z.to_f32());
                let best = (0..1u32 << format.bits())
                    .filter(|&code| format != Format::Int8 || code != 128)
                    .map(|code| ((format.codec().decode)(code, scale, zero) - value).abs())
                    .fold(f32::INFINITY, f32::min);
                let slack = 1e-6 * (value.abs() + scale);
                assert!((decoded[i] - value).abs() <= best + slack, "{format:?} {value}");
            }
        }
    }
}

/// The codes of `values` when `extremes` fix the scale at 1 (and the zero point at 0).
fn codes_at_unit_scale(format: Format, extremes: &[f32], values: &[f32]) -> Vec<u32> {
    let row: Vec<f32> = extremes.iter().chain(values).copied().collect();
    let matrix = pack(&row, row.len(), format, Group::WholeK, ScaleSearch::AbsMax);
    assert_eq!(matrix.scales, [f16::ONE]);
    (extremes.len()..row.len()).map(|e| matrix.code(0, e)).collect()
}

#[test]
fn ties_go_to_the_even_code() {
    let ties = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -0.75, -2.5, -5.0];
    assert_eq!(codes_at_unit_scale(Format::Fp4, &[6.0], &ties), [0, 2, 2, 4, 4, 6, 6, 8, 10, 12, 14]);
    assert_eq!(codes_at_unit_scale(Format::Fp4, &[6.0], &[0.26, 0.74, 4.99, 5.01]), [1, 1, 6, 7]);
    assert_eq!(codes_at_unit_scale(Format::Int4, &[7.0], &[0.5, 1.5, -0.5, -6.5]), [8, 10, 8, 2]);
    assert_eq!(codes_at_unit_scale(Format::Int4Zero, &[0.0, 15.0], &[0.5, 1.5, 14.5]), [0, 2, 14]);
    assert_eq!(codes_at_unit_scale(Format::Int8, &[127.0], &[0.5, 1.5, -0.5, -2.5]), [0, 2, 0, 254]);
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
        for format in QUANTISED {
            for group in [Group::Size(16), Group::Size(128), Group::WholeK] {
                let [absmax, mse] =
                    SEARCHES.map(|s| error_of(&pack(&values, 256, format, group, s), &values));
                assert!(mse <= absmax * (1.0 + 1e-12), "{format:?} {group:?} {seed}: {mse} > {absmax}");
            }
        }
    }
    let values = random(16384, 5);
    for format in [Format::Fp4, Format::Int4, Format::Int4Zero] {
        let [absmax, mse] =
            SEARCHES.map(|s| error_of(&pack(&values, 128, format, Group::WholeK, s), &values));
        assert!(mse < 0.97 * absmax, "{format:?}: {mse} against {absmax}");
    }
}

#[test]
fn zero_and_constant_groups() {
    for format in QUANTISED {
        for search in SEARCHES {
            let zeros = pack(&[0.0; 64], 64, format, Group::Size(32), search);
            assert_eq!(zeros.unpack(), [0.0; 64]);
            assert_eq!(zeros.scales, [f16::ZERO; 2]);
            for constant in [1.0f32, -1.0, 0.1, -0.1, 0.012345, -3.4567e-3, 1234.567, -65000.0, 3e5, -3.5e5] {
                let got = pack(&[constant; 48], 48, format, Group::Size(16), search).unpack();
                let tolerance = if format == Format::Int4Zero { 2e-5 } else { f32::powi(2.0, -8) };
                for value in got {
                    assert!(
                        (value - constant).abs() <= tolerance * constant.abs(),
                        "{format:?} {constant} {value}"
                    );
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
        let matrix = pack(&values, 64, Format::Int4Zero, Group::Size(32), ScaleSearch::AbsMax);
        assert!(matrix.zeros.iter().all(|z| z.is_finite()));
        let worst = matrix.unpack().iter().zip(&values).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 0.1 * width + 3e-5 * offset.abs(), "{offset} {width}: {worst}");
    }
}

#[test]
fn extreme_scales() {
    for format in QUANTISED {
        for search in SEARCHES {
            // Scales that underflow f16 become its least positive value.
            for tiny in [1e-8f32, 1e-30, f32::from_bits(1)] {
                let values = [tiny, -tiny, 0.0, tiny / 2.0].repeat(4);
                let matrix = pack(&values, 16, format, Group::Size(16), search);
                assert_eq!(matrix.scales, [f16::MIN_POSITIVE_SUBNORMAL], "{format:?} {tiny}");
                assert!(
                    matrix.unpack().iter().zip(&values).all(|(a, b)| (a - b).abs() <= f32::powi(2.0, -25))
                );
            }
            let values = [65504.0f32, -65504.0, 0.0, 1.0].repeat(4);
            let got = pack(&values, 16, format, Group::Size(16), search).unpack();
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
            let unpacked = matrix.unpack();
            assert!(
                unpacked
                    .iter()
                    .zip(&values)
                    .all(|(a, b)| (a - b).abs() < if format.bits() < 4 { 0.6 } else { 0.3 }),
                "{format:?} {k}"
            );
            let PackedMatrix { words, scales, zeros, .. } = matrix.clone();
            let parts = PackedMatrix::from_parts(format, 3, k, Group::WholeK, words, scales, zeros);
            assert_eq!(parts.unwrap(), matrix);
        }
    }
}

#[test]
fn quantise_errors() {
    let fails = |values: &[f32], n, k, format, group, needle: &str| {
        for search in SEARCHES {
            let error = PackedMatrix::quantise(values, n, k, format, group, search).unwrap_err();
            assert!(error.to_string().contains(needle), "{error} lacks {needle}");
        }
    };
    for &format in Format::ALL.iter().filter(|f| f.allows(Group::Size(16), 32) && f.fixed_group().is_none()) {
        fails(&[], 0, 16, format, Group::WholeK, "n is 0");
        fails(&[], 16, 0, format, Group::WholeK, "k is 0");
        fails(&[0.0; 31], 2, 16, format, Group::WholeK, "values is 31");
        fails(&[0.0; 16], usize::MAX, 2, format, Group::WholeK, "n * k");
        fails(&[0.0; 16], 1, usize::MAX, format, Group::WholeK, "n * k");
        fails(&[0.0; 16], 1 << 61, 1, format, Group::WholeK, "n * k");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let values = [[0.0; 53].as_slice(), &[bad; 11]].concat();
            fails(&values, 2, 32, format, Group::Size(16), "row 1, column 21");
        }
    }
    for format in QUANTISED {
        for size in [0, 8, 24, 144, 256] {
            fails(&[0.0; 768], 1, 768, format, Group::Size(size), "group");
        }
        fails(&[0.0; 48], 1, 48, format, Group::Size(32), "divisor of k");
    }
    for format in [Format::F16, Format::Bf16, Format::Fp4, Format::Int4, Format::Int4Zero, Format::Int8] {
        let mut values = [1.0; 64];
        values[40] = -f32::MAX;
        fails(&values, 2, 32, format, Group::Size(16), "row 1, column 8");
        fails(&[f32::MAX; 16], 1, 16, format, Group::Size(16), "small enough");
    }
}

#[test]
fn from_parts_errors() {
    let one = || vec![f16::ONE; 2];
    // Two rows of eight words with one word set.
    let row = |at: usize, word: u32| (0..16).map(|i| if i == at { word } else { 0 }).collect::<Vec<u32>>();
    let fails = |format, words: Vec<u32>, scales: Vec<f16>, zeros: Vec<f16>, needle: &str| {
        let error = PackedMatrix::from_parts(format, 2, 20, Group::WholeK, words, scales, zeros).unwrap_err();
        assert!(error.to_string().contains(needle), "{error} lacks {needle}");
    };
    fails(Format::Int4, vec![0; 15], one(), vec![], "words is 15");
    fails(Format::Int4, vec![0; 16], vec![f16::ONE], vec![], "scales is 1");
    fails(Format::Int4, vec![0; 16], one(), one(), "zeros is 2");
    fails(Format::Int4Zero, vec![0; 16], one(), vec![], "zeros is 0");
    fails(Format::F16, vec![0; 32], one(), vec![], "scales is 2");
    fails(Format::Int8, vec![0; 16], vec![f16::ONE, f16::NAN], vec![], "scales[1]");
    fails(Format::Int4Zero, vec![0; 16], one(), vec![f16::INFINITY, f16::ONE], "zeros[0]");
    // 20 elements of 4 bits end in the middle of word 2.
    fails(Format::Fp4, row(10, 1 << 16), one(), vec![], "words of row 1");
    fails(Format::Fp4, row(3, 1), one(), vec![], "words of row 0");
    let group = PackedMatrix::from_parts(Format::Int4, 1, 20, Group::Size(16), vec![0; 8], one(), vec![]);
    assert!(group.is_err());
    let byte = vec![0x80, 0, 0, 0, 0, 0, 0, 0];
    let matrix = PackedMatrix::from_parts(Format::Int8, 1, 16, Group::Size(16), byte, vec![f16::ONE], vec![]);
    assert_eq!(matrix.unwrap().unpack()[0], -128.0);
}
