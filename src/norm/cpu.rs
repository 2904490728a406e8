//! The reference in f64.

/// The reference: (normalised rows, sums with the residual). With `unit_offset`, weights are their distance from 1.
pub fn rms_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    unit_offset: bool,
    eps: f32,
) -> (Vec<f64>, Vec<f64>) {
    let base = if unit_offset { 1.0 } else { 0.0 };
    let sums: Vec<f64> = match residual {
        Some(r) => x.iter().zip(r).map(|(&x, &r)| f64::from(x) + f64::from(r)).collect(),
        None => x.iter().map(|&x| f64::from(x)).collect(),
    };
    let mut out = Vec::with_capacity(sums.len());
    for row in sums.chunks(weight.len().max(1)) {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        out.extend(row.iter().zip(weight).map(|(v, &w)| v * scale * (base + f64::from(w))));
    }
    (out, sums)
}

#[cfg(test)]
mod tests {
    #[test]
    fn closed_forms() {
        // A constant row normalises to the weights; an alternating residual cancels.
        let (out, _) = super::rms_norm(&[3.0; 4], None, &[1.0, 2.0, -1.0, 0.5], false, 0.0);
        assert_eq!(out, [1.0, 2.0, -1.0, 0.5]);
        let (out, _) = super::rms_norm(&[3.0; 4], None, &[1.0, 2.0, -1.0, 0.5], true, 0.0);
        assert_eq!(out, [2.0, 3.0, 0.0, 1.5]);
        let (out, sums) = super::rms_norm(&[3.0, 4.0], Some(&[0.0, -4.0]), &[1.0, 1.0], false, 0.0);
        assert_eq!(sums, [3.0, 0.0]);
        assert!((out[0] - 2f64.sqrt()).abs() < 1e-15 && out[1] == 0.0);
    }
}
