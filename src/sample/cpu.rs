//! The reference: probabilities in f64 and a draw by the same generator.

use super::Choice;

/// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..10 {
        let (p, q) = (0xd251_1f53 * u64::from(a), 0xcd9e_8d57 * u64::from(c));
        (a, b, c, d) = ((q >> 32) as u32 ^ b ^ k, q as u32, (p >> 32) as u32 ^ d ^ l, p as u32);
        (k, l) = (k.wrapping_add(0x9e37_79b9), l.wrapping_add(0xbb67_ae85));
    }
    [a, b, c, d]
}

/// The probabilities of one row after all filters; 0 for what is filtered out, and for all of a row of NaN.
pub fn probabilities(row: &[f32], choice: &Choice) -> Vec<f64> {
    // As the request's documentation says, infinities count as ±1e38.
    let value = |i: usize| f64::from(row[i].clamp(-1e38, 1e38));
    let mut order: Vec<usize> = (0..row.len()).filter(|&i| !row[i].is_nan()).collect();
    // Stable: ties stay in order of index.
    order.sort_by(|&a, &b| row[b].partial_cmp(&row[a]).unwrap_or(std::cmp::Ordering::Equal));
    if choice.top_k > 0 {
        order.truncate(choice.top_k);
    }
    let top = order.first().map_or(0.0, |&i| value(i));
    let mut weights = vec![0.0; row.len()];
    for &i in &order {
        weights[i] = ((value(i) - top) / f64::from(choice.temperature)).exp();
    }
    let whole: f64 = order.iter().map(|&i| weights[i]).sum();
    let mut reached = 0.0;
    for &i in &order {
        if choice.top_p < 1.0 && reached >= f64::from(choice.top_p) * whole {
            weights[i] = 0.0;
        }
        reached += weights[i];
    }
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        weights.iter_mut().for_each(|w| *w /= total);
    }
    weights
}

/// The reference: one index for each row of `cols` logits.
pub fn sample(logits: &[f32], cols: usize, choice: &Choice) -> Vec<f64> {
    let key = [choice.seed as u32, (choice.seed >> 32) as u32];
    let draw = |(row, logits): (usize, &[f32])| {
        let word = philox4x32([row as u32, choice.step, 0, 0], key)[0];
        let u = f64::from(word) / 2f64.powi(32);
        let mut sum = 0.0;
        let mut chosen = 0;
        for (i, p) in probabilities(logits, choice).into_iter().enumerate() {
            sum += p;
            if p > 0.0 {
                // Where rounding keeps the sum below u, the last candidate is meant.
                chosen = i;
                if sum > u {
                    break;
                }
            }
        }
        chosen as f64
    };
    logits.chunks(cols.max(1)).enumerate().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Random123's known-answer file.
        for (counter, key, want) in super::super::tests::PHILOX {
            assert_eq!(philox4x32(counter, key), want);
        }
    }

    #[test]
    fn filters_keep_what_they_should() {
        let plain = Choice { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0, step: 0 };
        let ln = |p: [f32; 5]| p.map(f32::ln);
        let row = ln([0.1, 0.3, 0.3, 0.2, 0.1]);
        let rounded = |row: &[f32], choice: &Choice| {
            probabilities(row, choice).iter().map(|p| (p * 1000.0).round() / 1000.0).collect::<Vec<_>>()
        };
        assert_eq!(rounded(&row, &plain), [0.1, 0.3, 0.3, 0.2, 0.1]);
        // Ties go to the lowest index.
        assert_eq!(rounded(&row, &Choice { top_k: 1, ..plain }), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(rounded(&row, &Choice { top_k: 4, ..plain }), [0.111, 0.333, 0.333, 0.222, 0.0]);
        assert_eq!(rounded(&row, &Choice { top_p: 0.55, ..plain }), [0.0, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(rounded(&row, &Choice { top_p: 0.65, ..plain }), [0.0, 0.375, 0.375, 0.25, 0.0]);
        // top-p counts what top-k left: 0.6 of 0.8 is 0.75.
        let both = Choice { top_k: 3, top_p: 0.74, ..plain };
        assert_eq!(rounded(&row, &both), [0.0, 0.5, 0.5, 0.0, 0.0]);
        let hot = rounded(&[0.0, 2.0], &Choice { temperature: 2.0, ..plain });
        assert_eq!(hot, [0.269, 0.731]);
        let odd = [f32::NAN, f32::NEG_INFINITY, 3.0];
        assert_eq!(rounded(&odd, &plain), [0.0, 0.0, 1.0]);
        assert_eq!(rounded(&[f32::NAN; 2], &plain), [0.0, 0.0]);
    }
}
