//! Frequencies, and the reference with angles in f64.

use super::Pairing;

/// Frequencies θ^(-2i/rotary), i < rotary/2, of the original rotary embedding.
pub fn inv_freq(rotary: usize, theta: f32) -> Vec<f32> {
    (0..rotary / 2).map(|i| f64::from(theta).powf(-2.0 * i as f64 / rotary as f64) as f32).collect()
}

/// The reference for one of q and k: `x` is \[T, heads, head_dim\], with one position a token.
pub fn rope(
    x: &[f32],
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    inv_freq: &[f32],
    pairing: Pairing,
    mscale: f32,
) -> Vec<f64> {
    let mut out: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    for (token, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            let start = (token * heads + head) * head_dim;
            for (i, &frequency) in inv_freq.iter().enumerate() {
                let (a, b) = match pairing {
                    Pairing::HalfSplit => (start + i, start + i + inv_freq.len()),
                    Pairing::Interleaved => (start + 2 * i, start + 2 * i + 1),
                };
                let (sin, cos) = (f64::from(position) * f64::from(frequency)).sin_cos();
                let (first, second) = (out[a], out[b]);
                out[a] = f64::from(mscale) * (first * cos - second * sin);
                out[b] = f64::from(mscale) * (second * cos + first * sin);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies() {
        assert_eq!(inv_freq(4, 10_000.0), [1.0, 0.01]);
        assert_eq!(inv_freq(0, 10_000.0), []);
    }

    #[test]
    fn a_quarter_turn_swaps_the_pair() {
        let quarter = [std::f32::consts::FRAC_PI_2];
        for (pairing, x) in [(Pairing::HalfSplit, [3.0, 4.0, 9.0]), (Pairing::Interleaved, [3.0, 4.0, 9.0])] {
            let out = rope(&x, 1, 3, &[1], &quarter, pairing, 2.0);
            // The third element lies outside the rotary part: neither turned nor scaled.
            for (got, want) in out.iter().zip([-8.0, 6.0, 9.0]) {
                assert!((got - want).abs() < 1e-6, "{out:?}");
            }
        }
        let out = rope(&[1.0, 2.0, 3.0, 4.0], 1, 4, &[1], &[quarter[0], 0.0], Pairing::HalfSplit, 1.0);
        for (got, want) in out.iter().zip([-3.0, 2.0, 1.0, 4.0]) {
            assert!((got - want).abs() < 1e-6, "{out:?}");
        }
    }
}
