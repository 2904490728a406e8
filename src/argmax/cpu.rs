//! The reference: a plain scan of each row.

/// The reference: per row of `cols`, the lowest index of the greatest value; NaN never wins; 0 if all are NaN.
pub fn argmax(logits: &[f32], cols: usize) -> Vec<f64> {
    let best = |row: &[f32]| {
        let mut best: Option<(usize, f32)> = None;
        for (i, &value) in row.iter().enumerate() {
            if !value.is_nan() && best.is_none_or(|(_, most)| value > most) {
                best = Some((i, value));
            }
        }
        best.map_or(0.0, |(i, _)| i as f64)
    };
    logits.chunks(cols.max(1)).map(best).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ties_signs_and_nan() {
        let nan = f32::NAN;
        assert_eq!(super::argmax(&[1.0, 3.0, 3.0, -5.0, -2.0, -2.0], 3), [1.0, 1.0]);
        assert_eq!(super::argmax(&[nan, -1.0, nan, nan, nan, nan, -0.0, 0.0, nan], 3), [1.0, 0.0, 0.0]);
        assert_eq!(super::argmax(&[nan, f32::NEG_INFINITY], 2), [1.0]);
    }
}
