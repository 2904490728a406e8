//! Frequencies of sampled walks, and wrong calls.

use super::cpu::{self, Accepted, Draws};
use super::{ROOT, Tree, TreeAccept, TreeMask, TreeSampled, record_accept, record_mask, record_sampled};
use crate::kernel::Random;
use crate::{DType, Gpu, Tensor};

const TREES: usize = 2048;
const COLS: usize = 6;
/// Two levels of three drafts for the first token, and two and one for the second.
const PARENTS: [u32; 7] = [ROOT, 0, 0, 0, 1, 1, 2];
const NODES: usize = PARENTS.len();

/// The model's distribution of the token after `last`, or that of its drafts.
fn distribution(last: usize, draft: bool) -> [f32; COLS] {
    let logit = |x: usize| ((x * (last + 2) + 3 * usize::from(draft)) as f32 * 0.9).sin() * 1.5;
    let weights: [f32; COLS] = std::array::from_fn(|x| logit(x).exp());
    weights.map(|w| w / weights.iter().sum::<f32>())
}

/// Trees of drafts that were drawn from their distributions, or are the first tokens in order.
struct Drafts {
    tokens: Vec<u32>,
    target: Vec<f32>,
    drafts: Option<Vec<f32>>,
}

impl Drafts {
    fn new(drawn: bool) -> Drafts {
        let mut random = Random::new(3);
        let mut tokens: Vec<u32> = Vec::new();
        let (mut target, mut drafts) = (Vec::new(), Vec::new());
        for n in 0..TREES * NODES {
            let first = n / NODES * NODES;
            let parent = PARENTS[n - first] as usize;
            tokens.push(match drawn {
                _ if parent >= NODES => 0,
                false => (n - first) as u32 % COLS as u32,
                true => {
                    let mut unit = 0.5 + 0.5 * random.unit();
                    let row = distribution(tokens[first + parent] as usize, true);
                    let passes = |p: &f32| {
                        unit -= p;
                        unit < 0.0
                    };
                    row.iter().position(passes).unwrap_or(COLS - 1) as u32
                }
            });
            target.extend(distribution(tokens[n] as usize, false));
            drafts.extend(distribution(tokens[n] as usize, true));
        }
        Drafts { tokens, target, drafts: drawn.then_some(drafts) }
    }

    fn on_the_cpu(&self, seed: u64) -> Vec<Accepted> {
        let walk = |n: usize| {
            let rows = n * NODES * COLS..(n + 1) * NODES * COLS;
            let (tokens, draws) = (&self.tokens[n * NODES..][..NODES], Draws { seed, step: 1, sequence: n });
            let drafts = self.drafts.as_ref().map(|d| &d[rows.clone()]);
            cpu::sampled(&PARENTS, tokens, &self.target[rows], drafts, COLS, draws)
        };
        (0..TREES).map(walk).collect()
    }

    fn on_the_gpu(&self, gpu: &Gpu, seed: u64) -> Vec<Accepted> {
        let rows = [TREES, NODES, COLS];
        let parents = &gpu.tensor(&[TREES, NODES], &PARENTS.repeat(TREES)).expect("fits");
        let tokens = &gpu.tensor(&[TREES, NODES], &self.tokens).expect("fits");
        let target = &gpu.tensor(&rows, &self.target).expect("fits");
        let drafts = self.drafts.as_ref().map(|d| gpu.tensor(&rows, d).expect("fits"));
        let make = |shape: &[usize]| gpu.alloc(DType::U32, shape).expect("fits");
        let (path, accepted, next) = (&make(&[TREES, NODES]), &make(&[TREES]), &make(&[TREES]));
        let drafts = drafts.as_ref();
        let request = TreeSampled { parents, tokens, target, drafts, seed, step: 1, path, accepted, next };
        gpu.run(|r| record_sampled(r, &request)).expect("runs");
        let read = |tensor: &Tensor| gpu.read::<u32>(tensor).expect("reads");
        let (path, accepted) = (read(path), read(accepted));
        let walks = path.chunks(NODES).zip(accepted).zip(read(next));
        walks
            .map(|((path, n), next)| (path[..n as usize].iter().map(|&n| n as usize).collect(), next))
            .collect()
    }
}

/// χ² of the first tokens against the model's distribution, and of the second ones where the first was a draft; both
/// within four deviations of their means.
fn follow_the_model(drafts: &Drafts, walks: &[Accepted]) {
    let mut first = [0u32; COLS];
    let mut second = [[0u32; COLS]; COLS];
    for (n, (path, next)) in walks.iter().enumerate() {
        let token = |i: usize| path.get(i).map_or(*next, |node| drafts.tokens[n * NODES + node]) as usize;
        first[token(1)] += 1;
        if path.len() > 1 {
            second[token(1)][token(2)] += 1;
        }
    }
    let (mut sum, mut free) = chi_square(&first, &distribution(0, false));
    check(sum, free, "first tokens");
    (sum, free) = (0.0, 0);
    for (last, counts) in second.iter().enumerate().filter(|(_, c)| c.iter().sum::<u32>() > 100) {
        let of_one = chi_square(counts, &distribution(last, false));
        (sum, free) = (sum + of_one.0, free + of_one.1);
    }
    check(sum, free, "second tokens");
    // Drafts are accepted, and rejected, often enough to matter.
    let accepted = second.iter().flatten().sum::<u32>() as usize;
    assert!((TREES / 8..TREES * 19 / 20).contains(&accepted), "{accepted} of {TREES} have a draft accepted");
}

fn chi_square(counts: &[u32; COLS], distribution: &[f32; COLS]) -> (f64, usize) {
    let all = f64::from(counts.iter().sum::<u32>());
    let of =
        |(&count, &p): (&u32, &f32)| (f64::from(count) - all * f64::from(p)).powi(2) / (all * f64::from(p));
    (counts.iter().zip(distribution).map(of).sum(), COLS - 1)
}

fn check(sum: f64, free: usize, what: &str) {
    let bound = free as f64 + 4.0 * (2.0 * free as f64).sqrt();
    assert!(sum < bound, "{what}: chi square {sum} over {bound}");
}

#[test]
fn sampled_walks_follow_the_model_s_distribution() {
    let gpu = Gpu::new().expect("an adapter");
    for drawn in [false, true] {
        let drafts = Drafts::new(drawn);
        for seed in [1, 1 << 40] {
            let walks = drafts.on_the_gpu(&gpu, seed);
            follow_the_model(&drafts, &walks);
            let twin = drafts.on_the_cpu(seed);
            follow_the_model(&drafts, &twin);
            assert_eq!(walks, twin);
        }
    }
    let drafts = Drafts::new(true);
    assert_eq!(drafts.on_the_gpu(&gpu, 7), drafts.on_the_gpu(&gpu, 7));
}

/// The test above can fail: drafts that are thought to be drawn like the model's own tokens are always accepted.
#[test]
#[should_panic(expected = "chi square")]
fn other_distributions_are_noticed() {
    let mut drafts = Drafts::new(true);
    drafts.drafts = Some(drafts.target.clone());
    let walks = drafts.on_the_cpu(1);
    follow_the_model(&drafts, &walks);
}

#[test]
fn wrong_trees_name_the_node() {
    let error = |parents: &[u32]| Tree::new(parents).err().map_or("accepted".to_string(), |e| e.to_string());
    assert_eq!(error(&[ROOT, 0, ROOT, 2]), "accepted");
    assert_eq!(error(&[]), "accepted");
    assert_eq!(error(&[0]), "Tree: parent of node 0 = 0, must be ROOT or one of the 0 nodes before it");
    assert!(error(&[ROOT, 2, 0]).contains("parent of node 1 = 2"));
    assert!(error(&[ROOT, 0, 77]).contains("parent of node 2 = 77"));
}

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let ints = |shape: &[usize]| make(DType::U32, shape);
    let text = |result: crate::Result<()>| result.err().map_or("accepted".to_string(), |e| e.to_string());
    let all = |results: Vec<(crate::Result<()>, &str)>| {
        for (result, want) in results {
            let got = text(result);
            assert!(got.contains(want), "{got} lacks {want}");
        }
    };
    let (nodes, row, one) = (ints(&[2, 33]), ints(&[33]), ints(&[2]));
    let floats = make(DType::F32, &[2, 33]);

    let good = TreeMask { parents: &nodes, mask: &ints(&[2, 33, 2]), depths: &ints(&[2, 33]) };
    let mask = |request: TreeMask<'_>| gpu.run(|r| record_mask(r, &request));
    all(vec![
        (mask(good), "accepted"),
        (mask(TreeMask { parents: &floats, ..good }), "tree_mask: parents's dtype is F32"),
        (mask(TreeMask { parents: &row, ..good }), "tree_mask: parents is [33], needs [B, nodes]"),
        (
            mask(TreeMask { mask: &ints(&[2, 33, 1]), ..good }),
            "tree_mask: mask is [2, 33, 1], needs [2, 33, 2]",
        ),
        (mask(TreeMask { depths: &one, ..good }), "tree_mask: depths is [2], needs [2, 33]"),
    ]);

    let (parents, tokens, best) = (&nodes, &ints(&[2, 33]), &ints(&[2, 33]));
    let (path, accepted, next) = (&ints(&[2, 33]), &ints(&[2]), &ints(&[2]));
    let good = TreeAccept { parents, tokens, best, path, accepted, next };
    let walk = |request: TreeAccept<'_>| gpu.run(|r| record_accept(r, &request));
    all(vec![
        (walk(good), "accepted"),
        (walk(TreeAccept { parents: &ints(&[2, 0]), ..good }), "parents is [2, 0], needs at least one node"),
        (walk(TreeAccept { tokens: &row, ..good }), "tree_accept: tokens is [33], needs [2, 33]"),
        (walk(TreeAccept { best: &floats, ..good }), "tree_accept: best's dtype is F32"),
        (walk(TreeAccept { path: &one, ..good }), "tree_accept: path is [2], needs [2, 33]"),
        (walk(TreeAccept { accepted: &row, ..good }), "tree_accept: accepted is [33], needs [2]"),
        (walk(TreeAccept { next: &row, ..good }), "tree_accept: next is [33], needs [2]"),
        (walk(TreeAccept { path: tokens, ..good }), "one is read, one is written"),
    ]);

    let target = &make(DType::F32, &[2, 33, 5]);
    let good = TreeSampled { parents, tokens, target, drafts: None, seed: 1, step: 2, path, accepted, next };
    let sampled = |request: TreeSampled<'_>| gpu.run(|r| record_sampled(r, &request));
    let many = ints(&[2, super::MAX_NODES + 1]);
    all(vec![
        (sampled(good), "accepted"),
        (
            sampled(TreeSampled { target: &floats, ..good }),
            "tree_sampled: target is [2, 33], needs [2, 33, 33]",
        ),
        (
            sampled(TreeSampled { target: &make(DType::F16, &[2, 33, 5]), ..good }),
            "tree_sampled: target's dtype is F16",
        ),
        (
            sampled(TreeSampled { target: &make(DType::F32, &[2, 33, 0]), ..good }),
            "tree_sampled: target is [2, 33, 0], needs 1 to 262144 columns",
        ),
        (
            sampled(TreeSampled { drafts: Some(&make(DType::F32, &[2, 33, 4])), ..good }),
            "tree_sampled: drafts is [2, 33, 4], needs [2, 33, 5]",
        ),
        (
            sampled(TreeSampled { parents: &many, tokens: &many, path: &many, ..good }),
            "needs at most 1024 nodes",
        ),
    ]);
}
