//! The references: plain walks over parents, and acceptance as the papers write it, in f64.

use crate::sample::philox4x32;

/// The branch of a node, from its root down to itself. A parent that does not come before its child is none.
pub fn branch(parents: &[u32], node: usize) -> Vec<usize> {
    let mut branch = match parents[node] as usize {
        parent if parent < node => self::branch(parents, parent),
        _ => Vec::new(),
    };
    branch.push(node);
    branch
}

/// The reference of `tree_mask`: the words and the depths of the nodes of trees of so many.
pub fn masks(parents: &[u32], nodes: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut words, mut depths) = (Vec::new(), Vec::new());
    for (parents, node) in parents.chunks(nodes).flat_map(|tree| (0..tree.len()).map(move |n| (tree, n))) {
        let branch = branch(parents, node);
        words.extend((0..nodes.div_ceil(32)).map(|word| {
            let bits = branch.iter().filter(|&&n| n / 32 == word);
            bits.map(|n| 2f64.powi(*n as i32 % 32)).sum::<f64>()
        }));
        depths.push(branch.len() as f64 - 1.0);
    }
    (words, depths)
}

/// The nodes that were accepted, from the root on, and the token that follows the last.
pub type Accepted = (Vec<usize>, u32);

/// The reference of `tree_accept`, for one tree: from node 0 down, always to the first child whose token is the best.
pub fn accept(parents: &[u32], tokens: &[u32], best: &[u32]) -> Accepted {
    let mut path = vec![0];
    loop {
        let node = path[path.len() - 1];
        let child =
            (node + 1..parents.len()).find(|&c| parents[c] as usize == node && tokens[c] == best[node]);
        match child {
            Some(child) => path.push(child),
            None => return (path, best[node]),
        }
    }
}

/// Where the random numbers of a sampled walk come from.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    pub seed: u64,
    pub step: u32,
    /// Number of the sequence.
    pub sequence: usize,
}

impl Draws {
    /// Uniform in 0..1.
    fn unit(self, node: usize, purpose: u32) -> f64 {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let word = philox4x32([self.sequence as u32, self.step, node as u32, purpose], key)[0];
        f64::from(word) / 2f64.powi(32)
    }
}

/// The reference of `tree_sampled`, for one tree: `target` are rows of `cols` probabilities, one for each node; `drafts`
/// likewise, for what a node's children were drawn from, or `None` where drafts are certain.
pub fn sampled(
    parents: &[u32],
    tokens: &[u32],
    target: &[f32],
    drafts: Option<&[f32]>,
    cols: usize,
    draws: Draws,
) -> Accepted {
    let mut path = vec![0];
    loop {
        let node = path[path.len() - 1];
        let row = |all: &[f32]| all[node * cols..][..cols].iter().map(|&p| f64::from(p)).collect::<Vec<_>>();
        let mut rest = normalised(row(target));
        let mut accepted = None;
        for child in (node + 1..parents.len()).filter(|&c| parents[c] as usize == node) {
            let token = tokens[child] as usize;
            let draft = drafts.map_or_else(|| (0..cols).map(|x| f64::from(x == token)).collect(), row);
            let (p, q) = (rest.get(token).unwrap_or(&0.0), draft.get(token).unwrap_or(&0.0));
            if token < cols && draws.unit(child, 1) * q < *p {
                accepted = Some(child);
                break;
            }
            if token < cols {
                rest = normalised(rest.iter().zip(&draft).map(|(p, q)| (p - q).max(0.0)).collect());
            }
        }
        match accepted {
            Some(child) => path.push(child),
            None => return (path, pick(&rest, draws.unit(node, 2))),
        }
    }
}

fn normalised(mut weights: Vec<f64>) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        weights.iter_mut().for_each(|w| *w /= total);
    }
    weights
}

/// The first index at which the running sum passes `unit`; the last that has any weight where rounding keeps it below.
fn pick(weights: &[f64], unit: f64) -> u32 {
    let (mut sum, mut chosen) = (0.0, 0);
    for (i, &weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        sum += weight;
        chosen = i as u32;
        if sum > unit {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::{ROOT, Tree};
    use super::*;

    /// 0 has the children 1 and 2, 1 has 3, 2 has 4.
    const PARENTS: [u32; 5] = [ROOT, 0, 0, 1, 2];

    #[test]
    fn masks_and_depths() {
        let (words, depths) = ([0b00001, 0b00011, 0b00101, 0b01011, 0b10101], [0, 1, 1, 2, 2]);
        assert_eq!(masks(&PARENTS, 5), (words.map(f64::from).into(), depths.map(f64::from).into()));
        let tree = Tree::new(&PARENTS).expect("well formed");
        assert_eq!((tree.mask(), tree.depths()), (words.into(), depths.into()));
        // Itself, a later one, none: all are roots.
        let (words, depths) = masks(&[7, 1, 1, u32::MAX, 9, 0], 4);
        assert_eq!(words, [1.0, 2.0, 6.0, 8.0, 1.0, 3.0]);
        assert_eq!(depths, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        // A word's last bit, and the next word's first.
        let chain: Vec<u32> = (0..33).map(|n: u32| n.wrapping_sub(1)).collect();
        let tree = Tree::new(&chain).expect("well formed");
        let words: Vec<f64> = tree.mask().into_iter().map(f64::from).collect();
        assert_eq!(masks(&chain, 33).0, words);
        assert_eq!(words[64..], [4_294_967_295.0, 1.0]);
    }

    #[test]
    fn greedy_walks() {
        let tokens = [9, 5, 6, 7, 8];
        assert_eq!(accept(&PARENTS, &tokens, &[6, 0, 8, 0, 3]), (vec![0, 2, 4], 3));
        assert_eq!(accept(&PARENTS, &tokens, &[5, 8, 0, 0, 0]), (vec![0, 1], 8));
        assert_eq!(accept(&PARENTS, &tokens, &[4, 0, 0, 0, 0]), (vec![0], 4));
        // Of two drafts of the same token, the first.
        assert_eq!(accept(&PARENTS, &[9, 5, 5, 7, 8], &[5, 7, 8, 2, 1]), (vec![0, 1, 3], 2));
    }

    #[test]
    fn sampled_walks() {
        let draws = |sequence| Draws { seed: 1, step: 2, sequence };
        // What the target is sure of is accepted, whatever the draft's probability.
        let sure = [0.0, 1.0, 0.0, 1.0];
        for n in 0..100 {
            assert_eq!(sampled(&[ROOT, 0], &[0, 1], &sure, None, 2, draws(n)), (vec![0, 1], 1));
            assert_eq!(sampled(&[ROOT, 0], &[0, 1], &sure, Some(&[0.5; 4]), 2, draws(n)), (vec![0, 1], 1));
            // What it excludes is not, nor what is no token; what remains is drawn from.
            assert_eq!(sampled(&[ROOT, 0, 0], &[0, 0, 7], &sure, None, 2, draws(n)), (vec![0], 1));
        }
    }
}
