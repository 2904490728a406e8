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
    let sums = add(x, residual);
    let mut out = Vec::with_capacity(sums.len());
    for row in sums.chunks(weight.len().max(1)) {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        out.extend(row.iter().zip(weight).map(|(v, &w)| v * scale * (base + f64::from(w))));
    }
    (out, sums)
}

/// The reference of layer normalisation: (normalised rows, sums with the residual).
pub fn layer_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
) -> (Vec<f64>, Vec<f64>) {
    let sums = add(x, residual);
    let mut out = Vec::with_capacity(sums.len());
    for row in sums.chunks(weight.len().max(1)) {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let deviation = (variance + f64::from(eps)).sqrt();
        for (c, v) in row.iter().enumerate() {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[c]));
            out.push((v - mean) / deviation * f64::from(weight[c]) + bias);
        }
    }
    (out, sums)
}

fn add(x: &[f32], residual: Option<&[f32]>) -> Vec<f64> {
    match residual {
        Some(r) => x.iter().zip(r).map(|(&x, &r)| f64::from(x) + f64::from(r)).collect(),
        None => x.iter().map(|&x| f64::from(x)).collect(),
    }
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

    #[test]
    fn layer_norm_in_closed_form() {
        // 1 and 3 are one deviation from their mean, with ε = 3 half of one.
        let (out, _) = super::layer_norm(&[1.0, 3.0], None, &[2.0, 5.0], None, 0.0);
        assert_eq!(out, [-2.0, 5.0]);
        let (out, sums) =
            super::layer_norm(&[0.0, 3.0], Some(&[1.0, 0.0]), &[2.0, 4.0], Some(&[1.0, -1.0]), 3.0);
        assert_eq!((out, sums), (vec![0.0, 1.0], vec![1.0, 3.0]));
    }
}
