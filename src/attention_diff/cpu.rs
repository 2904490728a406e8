//! The reference in f64: two attentions, each with its own queries and keys, then their difference, normalised.

use crate::attention::{self, Problem};

/// What the reference needs to know of a [`super::Difference`].
#[derive(Clone, Debug)]
pub struct Subtraction {
    /// One for each head.
    pub lambda: Vec<f64>,
    /// Epsilon and weights, if there are any.
    pub norm: Option<(f32, Option<Vec<f32>>)>,
    pub factor: f32,
}

/// λ of its four vectors.
pub fn lambda(q: [&[f32]; 2], k: [&[f32]; 2], init: f32) -> f64 {
    let exp = |i: usize| -> f64 {
        let products = q[i].iter().zip(k[i]).map(|(&q, &k)| f64::from(q) * f64::from(k));
        products.sum::<f64>().exp()
    };
    exp(0) - exp(1) + f64::from(init)
}

/// \[tokens · Hq, Dv\] of the results of the first and of the second softmax.
pub fn combine(first: &[f64], second: &[f64], d_v: usize, how: &Subtraction) -> Vec<f64> {
    let mut out = Vec::with_capacity(first.len());
    for (n, (first, second)) in first.chunks(d_v).zip(second.chunks(d_v)).enumerate() {
        let lambda = how.lambda[n % how.lambda.len()];
        let mut row: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - lambda * b).collect();
        if let Some((eps, weight)) = &how.norm {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / d_v as f64;
            let rms = (mean + f64::from(*eps)).sqrt();
            for (c, x) in row.iter_mut().enumerate() {
                *x *= weight.as_ref().map_or(1.0, |w| f64::from(w[c])) / rms;
            }
        }
        out.extend(row.iter().map(|x| x * f64::from(how.factor)));
    }
    out
}

/// The whole: \[B, Sq, Hq, 2, D\] queries over \[B, C, Hkv, 2, D\] keys and \[B, C, Hkv, Dv\] values. `p` has Hq heads of
/// width D, but the bias and sinks of 2·Hq.
pub fn attention_diff(q: &[f32], k: &[f32], v: &[f32], p: &Problem, how: &Subtraction) -> Vec<f64> {
    let [first, second] =
        [0, 1].map(|s| attention::attention(&half(q, p.d, s), &half(k, p.d, s), v, &of(p, s)));
    combine(&first, &second, p.d_v, how)
}

/// The LSE output of both softmaxes, \[B, Sq, Hq, 2\].
pub fn lse(q: &[f32], k: &[f32], p: &Problem) -> Vec<f64> {
    let [first, second] = [0, 1].map(|s| attention::lse(&half(q, p.d, s), &half(k, p.d, s), &of(p, s)));
    first.into_iter().zip(second).flat_map(|(a, b)| [a, b]).collect()
}

/// The first or the second of each pair of rows.
fn half(x: &[f32], d: usize, s: usize) -> Vec<f32> {
    x.chunks(d).skip(s).step_by(2).flatten().copied().collect()
}

/// The problem of one of the two softmaxes.
fn of(p: &Problem, s: usize) -> Problem {
    let bias = p.bias.as_ref().map(|(values, [b, heads, queries, keys])| match heads {
        1 => (values.clone(), [*b, 1, *queries, *keys]),
        heads => (half(values, queries * keys, s), [*b, heads / 2, *queries, *keys]),
    });
    Problem { bias, sinks: p.sinks.as_ref().map(|sinks| half(sinks, 1, s)), ..p.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // exp(0.5 · 2) − exp(0) + 0.25.
        let value = lambda([&[0.5, 1.0], &[0.0, 3.0]], [&[2.0, 0.0], &[1.0, 0.0]], 0.25);
        assert!((value - (1f64.exp() - 0.75)).abs() < 1e-12);

        // The two keys of the first softmax are alike, of the second 1 : 3; λ of the second head is 0.
        let p =
            Problem { sq: 1, hq: 2, hkv: 1, d: 1, d_v: 2, capacity: 2, lens: vec![2], ..Problem::default() };
        let p = Problem { scale: 1.0, ..p };
        let (q, k, v) = ([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 3f32.ln()], [2.0, 0.0, 4.0, 8.0]);
        let plain = Subtraction { lambda: vec![0.5, 0.0], norm: None, factor: 2.0 };
        let near = |got: &[f64], want: &[f64]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} is not {want:?}");
        };
        near(&attention_diff(&q, &k, &v, &p, &plain), &[2.0 * (3.0 - 1.75), 2.0 * (4.0 - 3.0), 6.0, 8.0]);
        let normed = Subtraction { norm: Some((0.0, Some(vec![1.0, 3.0]))), ..plain.clone() };
        let rms = ((9.0 + 16.0) / 2f64).sqrt();
        near(&attention_diff(&q, &k, &v, &p, &normed)[2..], &[6.0 / rms, 3.0 * 8.0 / rms]);
        near(&lse(&q, &k, &p), &[2f64.ln(), 4f64.ln(), 2f64.ln(), 4f64.ln()]);
        // A sink of 2 halves what the first softmax of the first head gives.
        let sunk = Problem { sinks: Some(vec![2f32.ln(), -1e30, -1e30, -1e30]), ..p };
        near(&attention_diff(&q, &k, &v, &sunk, &plain), &[2.0 * (1.5 - 1.75), 2.0 * (2.0 - 3.0), 6.0, 8.0]);
    }
}
