//! The references in f64.

/// The reference of addition.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect()
}

/// The reference of multiplication.
pub fn mul(a: &[f32], b: &[f32]) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).collect()
}

/// The reference of the scaled copy.
pub fn scaled_copy(a: &[f32], scale: f32) -> Vec<f64> {
    a.iter().map(|&a| f64::from(a) * f64::from(scale)).collect()
}

/// The reference of the soft cap.
pub fn soft_cap(a: &[f32], cap: f32) -> Vec<f64> {
    let cap = f64::from(cap);
    a.iter().map(|&a| cap * (f64::from(a) / cap).tanh()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        assert_eq!(add(&[1.0, 2.0], &[0.5, -2.0]), [1.5, 0.0]);
        assert_eq!(mul(&[1.0, 2.0], &[0.5, -2.0]), [0.5, -4.0]);
        assert_eq!(scaled_copy(&[1.0, 2.0], -3.0), [-3.0, -6.0]);
        // tanh(ln 2) = (4 − 1) / (4 + 1).
        let capped = soft_cap(&[0.0, 2.0 * 2f32.ln(), 1e30], 2.0);
        assert!(capped[0] == 0.0 && (capped[1] - 1.2).abs() < 1e-7 && capped[2] == 2.0);
    }
}
