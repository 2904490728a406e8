//! The reference: each query by itself, in f64, scores and softmax over the whole row of keys at once.

use rayon::prelude::*;

/// What the reference needs to know of a request: [B, Sq, Hq, D] queries over the first `kv_len` of [B, C, Hkv, D].
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub b: usize,
    pub sq: usize,
    pub hq: usize,
    pub hkv: usize,
    pub d: usize,
    pub capacity: usize,
    pub kv_len: usize,
    pub causal: bool,
    pub scale: f32,
}

impl Problem {
    /// The number of keys that query `i` sees: all, or those up to the query when the last query meets the last key.
    pub(super) fn visible(&self, i: usize) -> usize {
        if self.causal { (i + 1 + self.kv_len).saturating_sub(self.sq).min(self.kv_len) } else { self.kv_len }
    }
}

/// The reference: plain softmax over all scores of a row, rows in parallel. A row that sees no key is 0.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], p: &Problem) -> Vec<f64> {
    let row = |n: usize| {
        let (b, i, h) = (n / p.hq / p.sq, n / p.hq % p.sq, n % p.hq);
        let query = &q[n * p.d..][..p.d];
        let at = |j: usize| ((b * p.capacity + j) * p.hkv + h / (p.hq / p.hkv)) * p.d;
        let dot =
            |j: usize| query.iter().zip(&k[at(j)..]).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let scores: Vec<f64> = (0..p.visible(i)).map(|j| dot(j) * f64::from(p.scale)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut out = vec![0.0; p.d];
        for (j, weight) in weights.iter().enumerate() {
            out.iter_mut().zip(&v[at(j)..]).for_each(|(o, &x)| *o += weight / total * f64::from(x));
        }
        out
    };
    (0..p.b * p.sq * p.hq).into_par_iter().flat_map_iter(row).collect()
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

    #[test]
    fn closed_forms() {
        let p =
            Problem { b: 1, sq: 2, hq: 1, hkv: 1, d: 2, capacity: 3, kv_len: 2, causal: false, scale: 0.5 };
        // Equal keys give the mean of the values; the third row lies behind kv_len.
        let k = [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::NAN];
        let v = [2.0, 0.0, 4.0, 8.0, f32::NAN, f32::NAN];
        let q = [1.0, 2.0, -3.0, 0.0];
        assert_eq!(attention(&q, &k, &v, &p), [3.0, 4.0, 3.0, 4.0]);
        // The first of two causal queries sees one key only; with one key, it sees none.
        let causal = Problem { causal: true, ..p };
        assert_eq!(attention(&q, &k, &v, &causal), [2.0, 0.0, 3.0, 4.0]);
        assert_eq!(attention(&q, &k, &v, &Problem { kv_len: 1, ..causal }), [0.0, 0.0, 2.0, 0.0]);
        // Scores 0 and ln 3 weigh the values 1 : 3.
        let k = [0.0, 0.0, 2.0 * 3f32.ln(), 0.0, 0.0, 0.0];
        let out = attention(&[1.0, 0.0], &k, &v, &Problem { sq: 1, ..p });
        assert!((out[0] - 3.5).abs() < 1e-7 && (out[1] - 6.0).abs() < 1e-7);
    }

    #[test]
    fn merging_weighs_by_two_to_the_maximum() {
        let out = merge(&[1.0, 10.0], &[[0.0, 1.0], [3f32.log2(), 1.0]], 2, 1);
        assert!((out[0] - 31.0 / 4.0).abs() < 1e-6);
        assert_eq!(merge(&[0.0, 0.0], &[[-1e30, 0.0]; 2], 2, 1), [0.0]);
    }
}
