//! The formats with fixed groups, codebooks, 8-bit floats or codes that straddle words.

use super::*;
use half::f16;

const SEARCHES: [ScaleSearch; 2] = [ScaleSearch::AbsMax, ScaleSearch::Mse];

fn quantised() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|f| f.is_quantised())
}

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * i * 7 + i) as f32 * 0.61).sin() * (1.0 + (i % 11) as f32)).collect()
}

fn pack(values: &[f32], k: usize, format: Format, search: ScaleSearch) -> PackedMatrix {
    PackedMatrix::quantise(values, values.len() / k, k, format, format.default_group(), search).unwrap()
}

/// Every code of every format at every place, read back by `code` and decoded by `unpack`.
#[test]
fn all_codes_unpack() {
    for format in quantised() {
        let (bits, count) = (format.bits(), 1usize << format.bits());
        let k = if bits == 3 { 96 } else { 256 / bits };
        let code = |row: usize, at: usize| {
            let code = ((row + at) % count) as u32;
            if format.is_finite(code) { code } else { 0 }
        };
        let row_words = k * bits / 32;
        let mut words = vec![0u32; count * row_words];
        for (row, words) in words.chunks_mut(row_words).enumerate() {
            for bit in 0..k * bits {
                words[bit / 32] |= (code(row, bit / bits) >> (bit % bits) & 1) << (bit % 32);
            }
        }
        let matrix = match format.fixed_group() {
            Some(group) => {
                let byte = if group == 32 { 126 } else { 0x30 };
                PackedMatrix::from_byte_scales(format, count, k, words, vec![byte; count * k / group], 1.0)
            }
            None => {
                let zeros = vec![f16::from_f32(2.5); if format.has_zeros() { count } else { 0 }];
                let scales = vec![f16::from_f32(0.5); count];
                PackedMatrix::from_parts(format, count, k, Group::WholeK, words, scales, zeros)
            }
        }
        .unwrap();
        let values = matrix.unpack();
        for (i, value) in values.iter().enumerate() {
            let (row, at) = (i / k, i % k);
            assert_eq!(matrix.code(row, at), code(row, at), "{format:?}");
            let want = (format.codec().decode)(code(row, at), 0.5, 2.5);
            assert_eq!(value.to_bits(), want.to_bits(), "{format:?} code {}", code(row, at));
        }
        let places: Vec<usize> = (0..values.len()).collect();
        let twin = crate::dequant::dequant(&matrix, &places);
        assert!(twin.iter().zip(&values).all(|(a, b)| *a == f64::from(*b)), "{format:?}");
    }
}

#[test]
fn codes_are_the_nearest_and_the_search_never_worse() {
    let values = wave(4 * 128);
    for format in quantised() {
        let mut errors = Vec::new();
        for search in SEARCHES {
            let matrix = pack(&values, 128, format, search);
            let decoded = matrix.unpack();
            let mut error = 0.0;
            for (i, (&value, &got)) in values.iter().zip(&decoded).enumerate() {
                let index = i / matrix.group;
                let scale = matrix.scale(i / 128, i % 128 / matrix.group);
                let zero = matrix.zeros.get(index).map_or(0.0, |z| z.to_f32());
                let best = (0..1u32 << format.bits())
                    .filter(|&code| format.is_finite(code) && (format != Format::Int8 || code != 128))
                    .map(|code| ((format.codec().decode)(code, scale, zero) - value).abs())
                    .fold(f32::INFINITY, f32::min);
                let slack = 1e-6 * (value.abs() + scale);
                assert!((got - value).abs() <= best + slack, "{format:?} {value} {got} {best}");
                error += f64::from(got - value).powi(2);
            }
            errors.push(error);
        }
        assert!(errors[1] <= errors[0] * (1.0 + 1e-12), "{format:?} {errors:?}");
    }
}

#[test]
fn zeros_stay_zeros() {
    for format in quantised() {
        let unpacked = pack(&[0.0; 128], 64, format, ScaleSearch::Mse).unpack();
        assert!(unpacked.iter().all(|v| *v == 0.0), "{format:?}");
    }
}

#[test]
fn groups_that_formats_refuse() {
    for (format, group, needle) in [
        (Format::Int3, Group::Size(16), "multiple of 32"),
        (Format::Nf3, Group::Size(48), "multiple of 32"),
        (Format::Mxfp4, Group::Size(16), "Size(32)"),
        (Format::Mxfp4, Group::WholeK, "Size(32)"),
        (Format::Nvfp4, Group::Size(32), "Size(16)"),
    ] {
        let error =
            PackedMatrix::quantise(&[1.0; 96], 1, 96, format, group, ScaleSearch::AbsMax).unwrap_err();
        assert!(error.to_string().contains("group") && error.to_string().contains(needle), "{error}");
    }
}

#[test]
fn byte_scales_that_are_refused() {
    let fails = |format, words, scales: Vec<u8>, tensor, needle: &str| {
        let error =
            PackedMatrix::from_byte_scales(format, 1, 32, vec![0; words], scales, tensor).unwrap_err();
        assert!(error.to_string().contains(needle), "{error} lacks {needle}");
    };
    fails(Format::Mxfp4, 8, vec![255], 1.0, "scales[0]");
    fails(Format::Mxfp4, 8, vec![127], 2.0, "tensor_scale");
    fails(Format::Mxfp4, 8, vec![127; 2], 1.0, "scales is 2");
    fails(Format::Mxfp4, 7, vec![127], 1.0, "words is 7");
    fails(Format::Nvfp4, 8, vec![0x38, 0x7f], 1.0, "scales[1]");
    fails(Format::Nvfp4, 8, vec![0x38; 2], f32::NAN, "tensor_scale");
    fails(Format::Nvfp4, 8, vec![0x38; 2], f32::INFINITY, "tensor_scale");
    fails(Format::Int4, 8, vec![0x38; 2], 1.0, "format");
    let nan = [vec![0x7f], vec![0; 7]].concat();
    let error = PackedMatrix::from_parts(Format::E4m3, 1, 32, Group::WholeK, nan, vec![f16::ONE], vec![]);
    assert!(error.unwrap_err().to_string().contains("element 0"));
    let wrong = PackedMatrix::from_parts(Format::Nvfp4, 1, 32, Group::Size(16), vec![0; 8], vec![], vec![]);
    assert!(wrong.unwrap_err().to_string().contains("format"));
}
