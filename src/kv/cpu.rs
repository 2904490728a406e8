//! The reference: every row by itself, the nearest code found by trying all of them.

use half::{bf16, f16};

use super::KvFormat;

/// Values of the non-negative codes of a quantised format, in rising order.
fn magnitudes(format: KvFormat) -> Vec<f64> {
    let float = |codes: i32, mantissa: i32, bias: i32| -> Vec<f64> {
        let steps = 1 << mantissa;
        (0..codes)
            .map(|c| match c / steps {
                0 => f64::from(c) / f64::from(steps) * 2f64.powi(1 - bias),
                e => (1.0 + f64::from(c % steps) / f64::from(steps)) * 2f64.powi(e - bias),
            })
            .collect()
    };
    match format {
        KvFormat::E4m3 => float(127, 3, 7),
        KvFormat::Fp4 => float(8, 1, 1),
        KvFormat::Int8 => (0..128).map(f64::from).collect(),
        KvFormat::Int4 => (0..8).map(f64::from).collect(),
        KvFormat::F32 | KvFormat::F16 | KvFormat::Bf16 => Vec::new(),
    }
}

/// The f16 bits of a row's scale.
pub fn scale(format: KvFormat, row: &[f32]) -> u16 {
    if !format.quantised() {
        return 0;
    }
    let most = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // The shader's f32 product, so that the f16 is the same everywhere.
    f16::from_f32((most * (1.0 / format.largest())).min(65504.0)).to_bits()
}

/// The stored code of each element of a row: bits of a float format, or sign and magnitude as the format has them.
fn codes(format: KvFormat, row: &[f32]) -> Vec<u32> {
    let scale = f64::from(f16::from_bits(scale(format, row)));
    let values = magnitudes(format);
    let nearest = |x: f32| {
        if scale == 0.0 {
            return 0;
        }
        let off = |c: usize| (values[c] * scale - f64::from(x.abs())).abs();
        // Of two at the same distance, the even one.
        let better = |a: usize, b: usize| off(b) < off(a) || (off(b) == off(a) && b.is_multiple_of(2));
        (1..values.len()).fold(0, |best, c| if better(best, c) { c } else { best })
    };
    let code = |&x: &f32| {
        let signed = |bias: i32| {
            let size = nearest(x) as i32;
            (bias + if x < 0.0 { -size } else { size }) as u32
        };
        let negative = u32::from(x < 0.0 && scale != 0.0);
        match format {
            KvFormat::F32 => x.to_bits(),
            KvFormat::F16 => f16::from_f32(x).to_bits().into(),
            KvFormat::Bf16 => bf16::from_f32(x).to_bits().into(),
            KvFormat::E4m3 => nearest(x) as u32 | negative << 7,
            KvFormat::Fp4 => nearest(x) as u32 | negative << 3,
            KvFormat::Int8 => signed(128),
            KvFormat::Int4 => signed(8),
        }
    };
    row.iter().map(code).collect()
}

/// Where the bits of code `i` of eight FP4 codes go: the sign, then the lowest bit of the magnitude.
fn fp4_place(i: usize) -> (u32, u32) {
    let half = if i < 4 { 0 } else { 16 };
    (half + [15, 12, 14, 13][i % 4], half + [9, 6, 3, 0][i % 4])
}

/// A row as the cache stores it.
pub fn pack(format: KvFormat, row: &[f32]) -> Vec<u32> {
    let codes = codes(format, row);
    let per_word = 32 / format.bits();
    let word = |codes: &[u32]| {
        let part = |(i, code): (usize, &u32)| match format {
            KvFormat::Fp4 => {
                let (sign, size) = fp4_place(i);
                (code >> 3) << sign | (code & 7) << size
            }
            _ => code << (i * format.bits()),
        };
        codes.iter().enumerate().map(part).fold(0, |word, part| word | part)
    };
    codes.chunks(per_word).map(word).collect()
}

/// The values of a stored row, under the f16 bits of its scale.
pub fn unpack(format: KvFormat, words: &[u32], scale: u16) -> Vec<f64> {
    let scale = f64::from(f16::from_bits(scale));
    let values = magnitudes(format);
    let per_word = 32 / format.bits();
    let mask = u32::MAX >> (32 - format.bits());
    let value = |word: u32, i: usize| {
        let code = (word >> (i * format.bits())) & mask;
        let float = |negative: bool, size: u32| {
            scale * values.get(size as usize).map_or(f64::NAN, |v| if negative { -v } else { *v })
        };
        match format {
            KvFormat::F32 => f64::from(f32::from_bits(code)),
            KvFormat::F16 => f64::from(f16::from_bits(code as u16)),
            KvFormat::Bf16 => f64::from(bf16::from_bits(code as u16)),
            KvFormat::E4m3 => float(code >> 7 == 1, code & 127),
            KvFormat::Fp4 => {
                let (sign, size) = fp4_place(i);
                float((word >> sign) & 1 == 1, (word >> size) & 7)
            }
            KvFormat::Int8 => scale * (f64::from(code) - 128.0),
            KvFormat::Int4 => scale * (f64::from(code) - 8.0),
        }
    };
    words.iter().flat_map(|&word| (0..per_word).map(move |i| (word, i))).map(|(w, i)| value(w, i)).collect()
}

/// The reference of `kv_move`: of a sequence of `len` rows, which row gets what other row's contents, as
/// (to, from).
pub fn kept(path: &[u32], len: usize) -> Vec<(usize, usize)> {
    let nodes = path.len();
    let Some(first) = len.checked_sub(nodes) else { return Vec::new() };
    let named = path.iter().enumerate().map(|(place, &node)| (place, node as usize));
    let valid = named.take_while(|&(place, node)| (place..nodes).contains(&node));
    valid.map(|(place, node)| (first + place, first + node)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_values_come_back() {
        for format in KvFormat::ALL {
            let mut row: Vec<f32> = magnitudes(format).iter().map(|&v| v as f32).collect();
            row.extend(row.clone().iter().map(|v| -v));
            row.extend([1.0, -0.5]);
            row.resize(row.len().next_multiple_of(8), 0.0);
            let words = pack(format, &row);
            assert_eq!(words.len(), format.row_words(row.len()));
            let back = unpack(format, &words, scale(format, &row));
            // INT8 and INT4 have no 0.5: it is a tie, which goes to the even 0.
            let want = |x: f32| if x == -0.5 && magnitudes(format).get(1) == Some(&1.0) { 0.0 } else { x };
            let want: Vec<f64> = row.iter().map(|&x| f64::from(want(x))).collect();
            assert_eq!(back, want, "{}", format.name());
        }
    }

    #[test]
    fn layouts_and_ties() {
        assert_eq!(pack(KvFormat::F16, &[1.0, -2.0]), [0xc000_3c00]);
        assert_eq!(pack(KvFormat::Bf16, &[1.0, -2.0]), [0xc000_3f80]);
        assert_eq!(pack(KvFormat::Int4, &[7.0, -7.0, 0.5, 1.5, 2.5, -0.5, 3.0, 0.0]), [0x8b8a_a81f]);
        assert_eq!(pack(KvFormat::E4m3, &[448.0, -1.0, 0.0, 2f32.powi(-9)]), [0x0100_b87e]);
        // The largest magnitude first, at bits 11..9; a negative 0.5 third, its sign at bit 14.
        assert_eq!(pack(KvFormat::Fp4, &[6.0, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0]), [0x4e08]);
        assert_eq!(unpack(KvFormat::Int8, &pack(KvFormat::Int8, &[0.0; 4]), 0), [0.0; 4]);
    }

    #[test]
    fn accepted_rows_move_to_the_front() {
        assert_eq!(kept(&[0, 2, 3, u32::MAX], 10), [(6, 6), (7, 8), (8, 9)]);
        assert_eq!(kept(&[2, 0, 3], 3), [(0, 2)]);
        assert_eq!(kept(&[0, 1], 1), []);
    }
}
