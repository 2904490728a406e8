//! The reference: each query by itself, in f64, scores and softmax over the whole row of keys at once.

use rayon::prelude::*;

use crate::kernel::Random;

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
    /// [B, Hq, Sq, keys] as far as they are not 1, and these four sizes.
    pub bias: Option<(Vec<f32>, [usize; 4])>,
    /// \[Hq\]
    pub sinks: Option<Vec<f32>>,
    /// For each sequence, or for all, the parents of the nodes that are its queries and last keys; a node whose parent
    /// does not come before it has none.
    pub tree: Option<Vec<Vec<u32>>>,
}

impl Problem {
    /// The keys that query `i` of sequence `b` sees: all, or those up to the query when the last query meets the last
    /// key, and no more than the window. In a tree, all before the nodes, and the node's branch.
    pub(super) fn visible(&self, b: usize, i: usize) -> Vec<usize> {
        let len = self.lens[b];
        if !self.causal {
            return (0..len).collect();
        }
        let mut keys: Vec<usize> = match &self.tree {
            None => (0..(i + 1 + len).saturating_sub(self.sq).min(len)).collect(),
            Some(trees) => {
                let (parents, context) = (&trees[b % trees.len()], len - self.sq);
                let mut branch = vec![i];
                while let Some(&node) = branch.last()
                    && (parents[node] as usize) < node
                {
                    branch.push(parents[node] as usize);
                }
                (0..context).chain(branch.into_iter().rev().map(|node| context + node)).collect()
            }
        };
        if let Some(window) = self.window {
            keys.drain(..keys.len().saturating_sub(window));
        }
        keys
    }

    /// Pairs of a query and a key that it sees.
    pub(crate) fn pairs(&self) -> usize {
        let of = |b| (0..self.sq).map(|i| self.visible(b, i).len()).sum::<usize>();
        (0..self.lens.len()).map(of).sum::<usize>() * self.hq
    }
}

/// A query: its sequence, its place there, its head.
type Query = (usize, usize, usize);

impl Problem {
    fn query(&self, n: usize) -> Query {
        (n / self.hq / self.sq, n / self.hq % self.sq, n % self.hq)
    }

    fn queries(&self) -> usize {
        self.lens.len() * self.sq * self.hq
    }

    /// The rows of the output to compare: all, of real shapes some hundred with the first and the last among them.
    pub fn compared(&self) -> Vec<usize> {
        const MANY: usize = 1 << 20;
        let all = self.queries();
        if self.pairs() <= MANY || all <= 256 {
            return (0..all).collect();
        }
        let mut random = Random::new(all as u64);
        (0..254).map(|_| random.below(all)).chain([0, all - 1]).collect()
    }

    /// The row of the cache that holds key `j` of a query.
    fn row(&self, (b, _, h): Query, j: usize) -> usize {
        (b * self.capacity + j) * self.hkv + h / (self.hq / self.hkv)
    }

    /// Scores of the keys that a query sees, and of the sink behind them.
    fn scores(&self, query: &[f32], k: &[f32], (b, i, h): Query) -> Vec<f64> {
        let score = |j: usize| {
            let key = &k[self.row((b, i, h), j) * self.d..];
            let dot: f64 = query.iter().zip(key).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            let score = dot * f64::from(self.scale);
            let capped = self.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
            let bias = self.bias.as_ref().map_or(0.0, |(bias, [of_b, of_h, of_q, keys])| {
                bias[((b % of_b * of_h + h % of_h) * of_q + i % of_q) * keys + j]
            });
            capped + f64::from(bias)
        };
        let sink = self.sinks.as_ref().map(|sinks| f64::from(sinks[h]));
        self.visible(b, i).into_iter().map(score).chain(sink).collect()
    }
}

/// The largest of the scores, and Σ exp(score − largest).
fn sum(scores: &[f64]) -> (f64, f64) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (most, scores.iter().map(|s| (s - most).exp()).sum())
}

/// The reference: plain softmax over all scores of a row, rows in parallel. A row that sees no key is 0.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], p: &Problem) -> Vec<f64> {
    attention_rows(q, k, v, p, &(0..p.queries()).collect::<Vec<_>>())
}

/// As [`attention`], of some rows.
pub fn attention_rows(q: &[f32], k: &[f32], v: &[f32], p: &Problem, rows: &[usize]) -> Vec<f64> {
    let row = |&n: &usize| {
        let query = p.query(n);
        let scores = p.scores(&q[n * p.d..][..p.d], k, query);
        let (most, total) = sum(&scores);
        let mut out = vec![0.0; p.d_v];
        for (j, score) in p.visible(query.0, query.1).into_iter().zip(&scores) {
            let weight = (score - most).exp() / total;
            let value = &v[p.row(query, j) * p.d_v..];
            out.iter_mut().zip(value).for_each(|(o, &x)| *o += weight * f64::from(x));
        }
        out
    };
    rows.par_iter().flat_map_iter(row).collect()
}

/// The reference of the probabilities [B, Hq, Sq, keys]: those of the keys that a query sees, zeros between them.
pub fn probabilities(q: &[f32], k: &[f32], p: &Problem) -> Vec<f64> {
    let keys = p.lens.iter().copied().max().unwrap_or(0);
    let mut out = vec![0.0; p.queries() * keys];
    for n in 0..p.queries() {
        let (b, i, h) = p.query(n);
        let scores = p.scores(&q[n * p.d..][..p.d], k, (b, i, h));
        let (most, total) = sum(&scores);
        for (j, score) in p.visible(b, i).into_iter().zip(&scores) {
            out[((b * p.hq + h) * p.sq + i) * keys + j] = (score - most).exp() / total;
        }
    }
    out
}

/// The reference of the LSE output: ln Σ exp(score), or the −1e30 that stands for ln 0.
pub fn lse(q: &[f32], k: &[f32], p: &Problem) -> Vec<f64> {
    let row = |n: usize| {
        let (most, total) = sum(&p.scores(&q[n * p.d..][..p.d], k, p.query(n)));
        if total > 0.0 { most + total.ln() } else { f64::from(-1e30f32) }
    };
    (0..p.queries()).into_par_iter().map(row).collect()
}

/// The reference of the merge: Σ 2^max·sums / Σ 2^max·total over the splits of each row.
/// `sums` is [rows, splits, D], `stats` [rows, splits, (max, total)], `sink` (of the natural logarithm) of each row, if
/// there are any. Gives the rows and ln of their totals.
pub(super) fn merge(
    sums: &[f32],
    stats: &[[f32; 2]],
    splits: usize,
    d: usize,
    sink: impl Fn(usize) -> Option<f32>,
) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for (row, (sums, stats)) in sums.chunks(splits * d).zip(stats.chunks(splits)).enumerate() {
        let sink = sink(row).map_or(f64::from(-1e30f32), |s| f64::from(s) / std::f64::consts::LN_2);
        let most = stats.iter().map(|s| f64::from(s[0])).fold(sink, f64::max);
        let weight = |s: &[f32; 2]| (f64::from(s[0]) - most).exp2();
        let of_sink = if sink > -1e29 { (sink - most).exp2() } else { 0.0 };
        let total = stats.iter().map(|s| weight(s) * f64::from(s[1])).sum::<f64>() + of_sink;
        for c in 0..d {
            let sum: f64 = stats.iter().zip(sums.chunks(d)).map(|(s, x)| weight(s) * f64::from(x[c])).sum();
            out.push(if total > 0.0 { sum / total } else { 0.0 });
        }
        let ln = (most + total.log2()) * std::f64::consts::LN_2;
        lse.push(if total > 0.0 { ln } else { f64::from(-1e30f32) });
    }
    (out, lse)
}

/// The reference of the merge of results with their lse: each row by itself, Σ exp(lse)·part / Σ exp(lse).
/// `parts` is [P, rows, D], `lses` [P, rows], `sink` that of each row, if there are any. Gives the rows and ln of their totals.
pub fn merge_lse(
    parts: &[f32],
    lses: &[f32],
    rows: usize,
    d: usize,
    sink: impl Fn(usize) -> Option<f32>,
) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let seen: Vec<usize> = (row..lses.len()).step_by(rows).filter(|&p| lses[p] > -1e29).collect();
        let sums = seen.iter().map(|&p| f64::from(lses[p])).chain(sink(row).map(f64::from));
        let (most, total) = sum(&sums.collect::<Vec<_>>());
        let value = |c: usize| {
            let of = |&p: &usize| (f64::from(lses[p]) - most).exp() * f64::from(parts[p * d + c]);
            seen.iter().map(of).sum::<f64>() / total
        };
        out.extend((0..d).map(|c| if seen.is_empty() { 0.0 } else { value(c) }));
        lse.push(if total > 0.0 { most + total.ln() } else { f64::from(-1e30f32) });
    }
    (out, lse)
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
    fn rows_of_real_shapes_are_sampled() {
        let small = Problem { sq: 3, lens: vec![2, 1], ..two_keys() };
        assert_eq!(small.compared(), [0, 1, 2, 3, 4, 5]);
        let large = Problem { sq: 300, hq: 8, hkv: 2, lens: vec![900], ..two_keys() };
        let rows = large.compared();
        assert!(rows.len() == 256 && rows.iter().all(|&row| row < 2400) && rows.ends_with(&[0, 2399]));
        let (q, k) = ([0.0, 1.0, 2.0, -1.0, 0.5, 3.0], [1.0, 0.5, 2.0, 1.5, -1.0, 0.0]);
        let p = Problem { sq: 3, lens: vec![3], ..two_keys() };
        let all = attention(&q, &k, &k, &p);
        assert_eq!(attention_rows(&q, &k, &k, &p, &[2, 0]), [&all[4..6], &all[..2]].concat());
    }

    #[test]
    fn bias_sinks_and_sums() {
        // Equal scores of 0: a bias of ln 3 on the second key weighs the values 1 : 3, a sink of ln 4 halves that.
        let (k, v) = ([0.0; 4], [4.0, 0.0, 8.0, 4.0]);
        let bias = Some((vec![0.0, 3f32.ln(), 0.0], [1, 1, 1, 3]));
        let p = Problem { sq: 1, bias, ..two_keys() };
        let near = |got: Vec<f64>, want: &[f64]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} is not {want:?}");
        };
        near(attention(&[1.0, 1.0], &k, &v, &p), &[7.0, 3.0]);
        near(lse(&[1.0, 1.0], &k, &p), &[4f64.ln()]);
        let sunk = Problem { sinks: Some(vec![4f32.ln()]), ..p.clone() };
        near(attention(&[1.0, 1.0], &k, &v, &sunk), &[3.5, 1.5]);
        near(lse(&[1.0, 1.0], &k, &sunk), &[8f64.ln()]);
        // Without keys, there is only the sink.
        let none = Problem { lens: vec![0], ..sunk };
        near(attention(&[1.0, 1.0], &k, &v, &none), &[0.0, 0.0]);
        near(lse(&[1.0, 1.0], &k, &none), &[4f64.ln()]);
        assert_eq!(lse(&[1.0, 1.0], &k, &Problem { sinks: None, ..none }), [f64::from(-1e30f32)]);
    }

    #[test]
    fn nodes_see_the_context_and_their_branch() {
        // Behind one key of context: 0 has the children 1 and 3, 1 has 2; 4 is a root too.
        let tree = Some(vec![vec![9, 0, 1, 0, 4]]);
        let p = Problem { sq: 5, lens: vec![6], capacity: 6, causal: true, tree, ..two_keys() };
        let seen = |p: &Problem| (0..5).map(|i| p.visible(0, i)).collect::<Vec<_>>();
        assert_eq!(seen(&p), [vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3], vec![0, 1, 4], vec![0, 5]]);
        // A window counts along the branch.
        let narrow = Problem { window: Some(2), ..p };
        assert_eq!(seen(&narrow), [[0, 1], [1, 2], [2, 3], [1, 4], [0, 5]]);
    }

    #[test]
    fn probabilities_of_equal_keys_are_equal() {
        let p = Problem { causal: true, ..two_keys() };
        let k = [1.0, 1.0, 1.0, 1.0, f32::NAN, f32::NAN];
        let q = [1.0, 2.0, -3.0, 0.0];
        assert_eq!(probabilities(&q, &k, &p), [1.0, 0.0, 0.5, 0.5]);
        // A sink whose score is theirs takes a third.
        let sunk = Problem { sinks: Some(vec![-1.5]), ..p };
        let got = probabilities(&q, &k, &sunk);
        assert!((got[2] - 1.0 / 3.0).abs() < 1e-7 && (got[3] - 1.0 / 3.0).abs() < 1e-7);
    }

    #[test]
    fn merging_weighs_by_two_to_the_maximum() {
        let near = |got: &[f64], want: f64| assert!((got[0] - want).abs() < 1e-6, "{got:?} is not {want}");
        let parts = [[0.0, 1.0], [3f32.log2(), 1.0]];
        let (out, lse) = merge(&[1.0, 10.0], &parts, 2, 1, |_| None);
        near(&out, 31.0 / 4.0);
        near(&lse, 4f64.ln());
        let (out, lse) = merge(&[1.0, 10.0], &parts, 2, 1, |_| Some(4f32.ln()));
        near(&out, 31.0 / 8.0);
        near(&lse, 8f64.ln());
        let (out, lse) = merge(&[0.0, 0.0], &[[-1e30, 0.0]; 2], 2, 1, |_| None);
        assert_eq!((out, lse), (vec![0.0], vec![f64::from(-1e30f32)]));
    }

    #[test]
    fn merging_results_weighs_by_their_sums() {
        // Two rows of one column; the second row saw nothing in the first part.
        let (parts, lses) = ([0.0, 0.0, 4.0, 7.0], [0.0, -1e30, 3f32.ln(), 2.0]);
        let near = |got: &[f64], want: [f64; 2]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} is not {want:?}");
        };
        let (out, lse) = merge_lse(&parts, &lses, 2, 1, |_| None);
        near(&out, [3.0, 7.0]);
        near(&lse, [4f64.ln(), 2.0]);
        let (out, lse) = merge_lse(&parts, &lses, 2, 1, |row| Some([4f32.ln(), 2.0][row]));
        near(&out, [1.5, 3.5]);
        near(&lse, [8f64.ln(), 2.0 + 2f64.ln()]);
        let (out, lse) = merge_lse(&parts[..1], &[-1e30], 1, 1, |_| None);
        assert_eq!((out, lse), (vec![0.0], vec![f64::from(-1e30f32)]));
    }
}
