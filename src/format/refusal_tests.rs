//! Input that quantising and packing refuse.

use super::*;
use half::f16;

fn quantise(values: &[f32], n: usize, k: usize, format: Format, group: Group) -> String {
    let refused =
        |search| PackedMatrix::quantise(values, n, k, format, group, search).unwrap_err().to_string();
    let [first, second] = [ScaleSearch::AbsMax, ScaleSearch::Mse].map(refused);
    assert_eq!(first, second);
    first
}

fn says(error: String, needle: &str) {
    assert!(error.contains(needle), "{error} lacks {needle}");
}

#[test]
fn shapes_and_values() {
    for &format in Format::ALL {
        let group = format.default_group();
        says(quantise(&[], 0, 32, format, group), "n is 0");
        says(quantise(&[], 16, 0, format, group), "k is 0");
        says(quantise(&[0.0; 63], 2, 32, format, group), "values is 63");
        says(quantise(&[0.0; 64], usize::MAX, 32, format, group), "n * k");
        says(quantise(&[0.0; 64], 1, usize::MAX & !31, format, group), "n * k");
        says(quantise(&[0.0; 64], 1 << 56, 32, format, group), "n * k");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let values = [[0.0; 53].as_slice(), &[bad; 11]].concat();
            says(quantise(&values, 2, 32, format, group), "row 1, column 21");
        }
        if format != Format::F32 {
            let mut values = [1.0; 64];
            values[40] = -f32::MAX;
            says(quantise(&values, 2, 32, format, group), "row 1, column 8");
            says(quantise(&[f32::MAX; 32], 1, 32, format, group), "small enough");
        }
    }
}

#[test]
fn groups() {
    for &format in Format::ALL.iter().filter(|f| f.is_quantised()) {
        for size in [0, 8, 24, 144, 256] {
            says(quantise(&[0.0; 768], 1, 768, format, Group::Size(size)), "group");
        }
        if let Group::Size(size) = format.default_group() {
            let k = size + size / 2;
            says(quantise(&vec![0.0; k], 1, k, format, Group::Size(size)), "divisor of k");
        }
        if let Some(size) = format.fixed_group() {
            for other in [Group::WholeK, Group::Size(48 - size), Group::Size(64), Group::Size(128)] {
                says(quantise(&[1.0; 384], 1, 384, format, other), &format!("Size({size})"));
            }
        }
        if format.bits() == 3 {
            for size in [16, 48, 80, 112] {
                says(quantise(&vec![1.0; size], 1, size, format, Group::Size(size)), "multiple of 32");
            }
        }
    }
}

#[test]
fn parts() {
    let one = || vec![f16::ONE; 2];
    // Two rows of eight words with one word set.
    let row = |at: usize, word: u32| (0..16).map(|i| if i == at { word } else { 0 }).collect::<Vec<u32>>();
    let fails = |format, words: Vec<u32>, scales: Vec<f16>, zeros: Vec<f16>, needle: &str| {
        let error = PackedMatrix::from_parts(format, 2, 20, Group::WholeK, words, scales, zeros);
        says(error.unwrap_err().to_string(), needle);
    };
    for &format in Format::ALL.iter().filter(|f| f.fixed_group().is_none()) {
        let row_words = if format.bits() == 3 { 3 } else { (20 * format.bits()).div_ceil(256) * 8 };
        let words = vec![0; 2 * row_words];
        let scales = || if format.is_quantised() { one() } else { vec![] };
        let zeros = || if format.has_zeros() { one() } else { vec![] };
        fails(format, vec![0; 2 * row_words - 1], scales(), zeros(), "words is");
        fails(format, words.clone(), vec![f16::ONE; 3], zeros(), "scales is 3");
        fails(format, words.clone(), scales(), vec![f16::ONE], "zeros is 1");
        for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
            if format.is_quantised() {
                fails(format, words.clone(), vec![f16::ONE, bad], zeros(), "scales[1]");
            }
            if format.has_zeros() {
                fails(format, words.clone(), scales(), vec![bad, f16::ONE], "zeros[0]");
            }
        }
        // The last bit of a row is padding.
        let mut padded = words;
        padded[2 * row_words - 1] = 1 << 31;
        fails(format, padded, scales(), zeros(), "words of row 1");
    }
    // 20 elements of 4 bits end in the middle of word 2.
    fails(Format::Fp4, row(10, 1 << 16), one(), vec![], "words of row 1");
    fails(Format::Fp4, row(3, 1), one(), vec![], "words of row 0");
    let group = PackedMatrix::from_parts(Format::Int4, 1, 20, Group::Size(16), vec![0; 8], one(), vec![]);
    says(group.unwrap_err().to_string(), "group");
    let byte = vec![0x80, 0, 0, 0, 0, 0, 0, 0];
    let matrix = PackedMatrix::from_parts(Format::Int8, 1, 16, Group::Size(16), byte, vec![f16::ONE], vec![]);
    assert_eq!(matrix.unwrap().unpack()[0], -128.0);
    for (format, code) in
        [(Format::E4m3, 0x7f), (Format::E4m3, 0xff), (Format::E5m2, 0x7c), (Format::E5m2, 0xfe)]
    {
        fails(format, row(9, code << 8), one(), vec![], "words of row 1: element 5");
    }
}

#[test]
fn byte_scales() {
    let fails = |format, words, scales: Vec<u8>, tensor, needle: &str| {
        let error = PackedMatrix::from_byte_scales(format, 1, 32, vec![0; words], scales, tensor);
        says(error.unwrap_err().to_string(), needle);
    };
    fails(Format::Mxfp4, 8, vec![255], 1.0, "scales[0]");
    fails(Format::Mxfp4, 8, vec![127], 2.0, "tensor_scale");
    fails(Format::Mxfp4, 8, vec![127; 2], 1.0, "scales is 2");
    fails(Format::Mxfp4, 7, vec![127], 1.0, "words is 7");
    fails(Format::Nvfp4, 8, vec![0x38, 0x7f], 1.0, "scales[1]");
    for tensor in [f32::NAN, f32::INFINITY, -1.0, 0.0, 1e-40, 3e31] {
        fails(Format::Nvfp4, 8, vec![0x38; 2], tensor, "tensor_scale");
    }
    for &format in Format::ALL.iter().filter(|f| f.fixed_group().is_none()) {
        fails(format, 8, vec![0x38; 2], 1.0, "format");
    }
    for (format, group) in [(Format::Nvfp4, 16), (Format::Mxfp4, 32)] {
        let wrong = PackedMatrix::from_parts(format, 1, 32, Group::Size(group), vec![0; 8], vec![], vec![]);
        says(wrong.unwrap_err().to_string(), "format");
    }
}
