//! The reference: each query by itself, in f64, scores and softmax over the whole row of keys at once.

use std::ops::Range;

use rayon::prelude::*;

/// What the reference needs to know of a request: [B, Sq, Hq, D] queries over the first rows of [B, C, Hkv, D] keys and
/// [B, C, Hkv, Dv] values.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    pub sq: usize,
    pub hq: usize,
    pub hkv: usize,
    pub d: usize,
    pub d_v: usize,
    pub capacity: usize,
    /// Keys of each sequence, of the capacity.
    pub lens: Vec<usize>,
    pub causal: bool,
    pub scale: f32,
    pub window: Option<usize>,
    pub soft_cap: Option<f32>,
}

impl Problem {
    /// The keys that query `i` of sequence `b` sees: all, or those up to the query when the last query meets the last
    /// key, and no more than the window.
    pub(super) fn visible(&self, b: usize, i: usize) -> Range<usize> {
        let len = self.lens[b];
        if !self.causal {
            return 0..len;
        }
        let end = (i + 1 + len).saturating_sub(self.sq).min(len);
        self.window.map_or(0, |window| (i + 1 + len).saturating_sub(self.sq + window))..end
    }

    /// Pairs of a query and a key that it sees.
    pub(super) fn pairs(&self) -> usize {
        let of = |b| (0..self.sq).map(|i| self.visible(b, i).len()).sum::<usize>();
        (0..self.lens.len()).map(of).sum::<usize>() * self.hq
    }
}

/// The reference: plain softmax over all scores of a row, rows in parallel. A row that sees no key is 0.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], p: &Problem) -> Vec<f64> {
    let row = |n: usize| {
        let (b, i, h) = (n / p.hq / p.sq, n / p.hq % p.sq, n % p.hq);
        let query = &q[n * p.d..][..p.d];
        let at = |j: usize| (b * p.capacity + j) * p.hkv + h / (p.hq / p.hkv);
        let score = |j: usize| {
            let key = &k[at(j) * p.d..];
            let dot: f64 = query.iter().zip(key).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            let cap = |s: f64, cap: f32| f64::from(cap) * (s / f64::from(cap)).tanh();
            p.soft_cap.map_or(dot * f64::from(p.scale), |c| cap(dot * f64::from(p.scale), c))
        };
        let keys = p.visible(b, i);
        let scores: Vec<f64> = keys.clone().map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; p.d_v];
        for (j, weight) in keys.zip(&weights) {
            let value = &v[at(j) * p.d_v..];
            out.iter_mut().zip(value).for_each(|(o, &x)| *o += weight / total * f64::from(x));
        }
        out
    };
    (0..p.lens.len() * p.sq * p.hq).into_par_iter().flat_map_iter(row).collect()
}

/// The reference of the merge: Σ 2^max·sums / Σ 2^max·total over the splits of each row.
/// `sums` is [rows, splits, D], `stats` [rows, splits, (max, total)].
pub(super) fn merge(sums: &[f32], stats: &[[f32; 2]], splits: usize, d: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (sums, stats) in sums.chunks(splits * d).zip(stats.chunks(splits)) {
        let most = stats.iter().map(|s| f64::from(s[0])).fold(f64::NEG_INFINITY, f64::max);
        let weight = |s: &[f32; 2]| (f64::from(s[0]) - most).exp2();
        let total: f64 = stats.iter().map(|s| weight(s) * f64::from(s[1])).sum();
        for c in 0..d {
            let sum: f64 = stats.iter().zip(sums.chunks(d)).map(|(s, x)| weight(s) * f64::from(x[c])).sum();
            out.push(if total > 0.0 { sum / total } else { 0.0 });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_keys() -> Problem {
        let lens = vec![2];
        Problem { sq: 2, hq: 1, hkv: 1, d: 2, d_v: 2, capacity: 3, lens, scale: 0.5, ..Problem::default() }
    }

    #[test]
    fn closed_forms() {
        let p = two_keys();
        // Equal keys give the mean of the values; the third row lies behind the keys.
        let k = [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::NAN];
        let v = [2.0, 0.0, 4.0, 8.0, f32::NAN, f32::NAN];
        let q = [1.0, 2.0, -3.0, 0.0];
        assert_eq!(attention(&q, &k, &v, &p), [3.0, 4.0, 3.0, 4.0]);
        // The first of two causal queries sees one key only; with one key, it sees none.
        let causal = Problem { causal: true, ..p.clone() };
        assert_eq!(attention(&q, &k, &v, &causal), [2.0, 0.0, 3.0, 4.0]);
        let one = Problem { lens: vec![1], ..causal.clone() };
        assert_eq!(attention(&q, &k, &v, &one), [0.0, 0.0, 2.0, 0.0]);
        // A window of one key shows a query only itself.
        let narrow = Problem { window: Some(1), ..causal };
        assert_eq!(attention(&q, &k, &v, &narrow), [2.0, 0.0, 4.0, 8.0]);
        // Scores 0 and ln 3 weigh the values 1 : 3.
        let k = [0.0, 0.0, 2.0 * 3f32.ln(), 0.0, 0.0, 0.0];
        let p = Problem { sq: 1, ..p };
        let out = attention(&[1.0, 0.0], &k, &v, &p);
        assert!((out[0] - 3.5).abs() < 1e-7 && (out[1] - 6.0).abs() < 1e-7);
        // Bent into ±ln 3, scores 0 and +large weigh 1 : 3 too.
        let capped = Problem { soft_cap: Some(3f32.ln()), ..p };
        let out = attention(&[1e6, 0.0], &k, &v, &capped);
        assert!((out[0] - 3.5).abs() < 1e-6 && (out[1] - 6.0).abs() < 1e-6);
    }

    #[test]
    fn sequences_have_their_own_lengths() {
        let p = Problem { lens: vec![0, 1, 3], d: 1, d_v: 1, sq: 1, ..two_keys() };
        let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        assert_eq!(attention(&[0.0; 3], &v, &v, &p), [0.0, 4.0, 8.0]);
        assert_eq!(p.pairs(), 4);
    }

    #[test]
    fn merging_weighs_by_two_to_the_maximum() {
        let out = merge(&[1.0, 10.0], &[[0.0, 1.0], [3f32.log2(), 1.0]], 2, 1);
        assert!((out[0] - 31.0 / 4.0).abs() < 1e-6);
        assert_eq!(merge(&[0.0, 0.0], &[[-1e30, 0.0]; 2], 2, 1), [0.0]);
    }
}
