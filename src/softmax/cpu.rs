//! The reference in f64.

/// The reference: softmax of `scale · x` over rows of `cols`.
pub fn softmax(x: &[f32], cols: usize, scale: f32) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(cols.max(1)) {
        // What scales to −∞ counts as 1e30 of x, so that a row of nothing else is uniform.
        let (sign, factor) = (f64::from(scale.signum()), f64::from(scale.abs()));
        let scaled: Vec<f64> = row.iter().map(|&v| (f64::from(v) * sign).max(-1e30) * factor).collect();
        let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scaled.iter().map(|v| (v - most).exp()).sum();
        out.extend(scaled.iter().map(|v| (v - most).exp() / sum));
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn closed_forms() {
        let near = |got: Vec<f64>, want: &[f64]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-7), "{got:?} for {want:?}");
        };
        near(super::softmax(&[5.0, 5.0, 1e4, 1e4], 2, 1.0), &[0.5; 4]);
        near(super::softmax(&[0.0, 2f32.ln()], 2, 1.0), &[1.0 / 3.0, 2.0 / 3.0]);
        near(super::softmax(&[0.0, 2f32.ln()], 2, -2.0), &[0.8, 0.2]);
        near(super::softmax(&[f32::NEG_INFINITY, 1.0], 2, 1.0), &[0.0, 1.0]);
        near(super::softmax(&[f32::NEG_INFINITY; 2], 2, 1.0), &[0.5, 0.5]);
    }
}
