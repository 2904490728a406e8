//! The reference: a plain gather.

/// The reference: rows of `table` (`cols` wide) at `ids`, scaled; zeros for an id past the table.
pub fn embed(ids: &[u32], table: &[f32], cols: usize, scale: f32) -> Vec<f64> {
    let mut out = Vec::with_capacity(ids.len() * cols);
    for &id in ids {
        for c in 0..cols {
            let value = table.get(id as usize * cols + c).copied().unwrap_or(0.0);
            out.push(f64::from(value) * f64::from(scale));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn gathers_scales_and_zeroes() {
        let out = super::embed(&[1, 2, 0, u32::MAX], &[1.0, 2.0, 3.0, 4.0], 2, 0.5);
        assert_eq!(out, [1.5, 2.0, 0.0, 0.0, 0.5, 1.0, 0.0, 0.0]);
    }
}
