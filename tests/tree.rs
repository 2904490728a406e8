//! Trees of drafts: each branch gets what it would get in a run of its own, and what is accepted is as if it had always
//! been there.

use wgmarlin::attention::{self, AttentionDecode, AttentionPaged, Options};
use wgmarlin::kernel::Random;
use wgmarlin::kv::{CacheShape, KvCache, KvFormat, KvShape, Sequence, Step};
use wgmarlin::tree::{self, ROOT, Tree, TreeMask};
use wgmarlin::{DType, Error, Gpu, Tensor};

const HQ: usize = 6;
const HKV: usize = 2;
const D: usize = 40;
const DV: usize = 24;
const CONTEXT: usize = 37;
const WINDOW: usize = 5;

/// Queries, keys and values of a sequence of tokens.
#[derive(Clone)]
struct Text([Vec<f32>; 3]);

const WIDTHS: [usize; 3] = [HQ * D, HKV * D, HKV * DV];

impl Text {
    fn new(seed: u64, tokens: usize) -> Text {
        let mut random = Random::new(seed);
        Text(WIDTHS.map(|width| random.values(tokens * width, DType::F32)))
    }

    /// Some of its tokens, in any order.
    fn of(&self, tokens: impl Iterator<Item = usize> + Clone) -> Text {
        let rows = |n: usize| tokens.clone().flat_map(move |t| &self.0[n][t * WIDTHS[n]..][..WIDTHS[n]]);
        Text([0, 1, 2].map(|n| rows(n).copied().collect()))
    }

    fn tokens(&self) -> usize {
        self.0[0].len() / WIDTHS[0]
    }
}

/// `nodes` nodes of up to four children each, and the branch of every one.
fn random_tree(seed: u64, nodes: usize) -> (Tree, Vec<Vec<usize>>) {
    let mut random = Random::new(seed);
    let mut parents: Vec<u32> = Vec::new();
    let mut branches: Vec<Vec<usize>> = Vec::new();
    for node in 0..nodes {
        let parent = (node > 0).then(|| node - 1 - random.below(node.min(4)));
        let mut branch = parent.map_or(Vec::new(), |parent| branches[parent].clone());
        branch.push(node);
        branches.push(branch);
        parents.push(parent.map_or(ROOT, |parent| parent as u32));
    }
    (Tree::new(&parents).expect("well formed"), branches)
}

fn chain(nodes: usize) -> Tree {
    let parents: Vec<u32> = (0..nodes as u32).map(|n| n.wrapping_sub(1)).collect();
    Tree::new(&parents).expect("well formed")
}

fn close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= 3e-6, "{what}: element {i}: {x} and {y}");
    }
}

struct Bench(Gpu);

impl Bench {
    fn new() -> Bench {
        Bench(Gpu::new().expect("an adapter"))
    }

    fn tensor(&self, shape: &[usize], values: &[f32]) -> Tensor {
        self.0.tensor(shape, values).expect("fits")
    }

    fn empty(&self, shape: &[usize]) -> Tensor {
        self.0.alloc(DType::F32, shape).expect("fits")
    }

    fn workspace(&self, queries: usize) -> Tensor {
        self.empty(&[attention::workspace_len(&self.0, 1, queries, HQ, HKV, DV, 300)])
    }

    /// The mask, made on the GPU.
    fn mask(&self, tree: &Tree) -> Tensor {
        let nodes = tree.parents().len();
        let parents = &self.0.tensor(&[1, nodes], tree.parents()).expect("fits");
        let mask = self.0.alloc(DType::U32, &[1, nodes, nodes.div_ceil(32)]).expect("fits");
        let depths = &self.0.alloc(DType::U32, &[1, nodes]).expect("fits");
        self.0.run(|r| tree::record_mask(r, &TreeMask { parents, mask: &mask, depths })).expect("runs");
        assert_eq!(self.0.read::<u32>(depths).expect("reads"), tree.depths());
        assert_eq!(self.0.read::<u32>(&mask).expect("reads"), tree.mask());
        mask
    }

    /// The last `queries` of a text over all of its keys, from plain tensors.
    fn plain(&self, text: &Text, queries: usize, options: Options<'_>) -> Vec<f32> {
        let (len, [q, k, v]) = (text.tokens(), &text.0);
        let q = &self.tensor(&[1, queries, HQ, D], &q[(len - queries) * WIDTHS[0]..]);
        let (k, v) = (&self.tensor(&[1, len, HKV, D], k), &self.tensor(&[1, len, HKV, DV], v));
        let (out, workspace) = (&self.empty(&[1, queries, HQ, DV]), &self.workspace(queries));
        let request = AttentionDecode { q, k, v, out, kv_len: len, options, workspace };
        self.0.run(|r| attention::record_any(r, &request)).expect("runs");
        self.0.read(out).expect("reads")
    }

    fn cache(&self, format: KvFormat, block: Option<usize>) -> KvCache {
        let mut shape = CacheShape::contiguous(1, [HKV, D, DV], 2, 300, 300);
        if let Some(block) = block {
            shape.pool = KvShape { blocks: 80, block, ..shape.pool };
        }
        KvCache::new(&self.0, format, shape).expect("fits")
    }

    /// Adds a text to a sequence.
    fn feed(&self, cache: &mut KvCache, sequence: Sequence, text: &Text) -> Step {
        let n = text.tokens();
        let step = cache.step(&[(sequence, n)]).expect("room");
        let (k, v) = (self.tensor(&[n, HKV, D], &text.0[1]), self.tensor(&[n, HKV, DV], &text.0[2]));
        self.0.run(|r| cache.write(r, 0, &step, &k, &v)).expect("runs");
        step
    }

    /// The queries of a text at the end of a step's sequence.
    fn attend(&self, cache: &KvCache, step: &Step, text: &Text, options: Options<'_>) -> Vec<f32> {
        let n = text.tokens();
        let q = &self.tensor(&[1, n, HQ, D], &text.0[0]);
        let (out, workspace) = (&self.empty(&[1, n, HQ, DV]), &self.workspace(n));
        let (cache, context) = (cache.layer(0).expect("a layer"), step.context());
        let request = AttentionPaged { q, cache, context, out, options, workspace };
        self.0.run(|r| attention::record_paged(r, &request)).expect("runs");
        self.0.read(out).expect("reads")
    }
}

fn causal(window: Option<usize>) -> Options<'static> {
    Options { window, ..Options::causal(0.2) }
}

#[test]
fn a_chain_is_causal() {
    let bench = Bench::new();
    for nodes in [1, 6, 33, 70] {
        let (text, mask) = (Text::new(7, CONTEXT + nodes), bench.mask(&chain(nodes)));
        let drafts = text.of(CONTEXT..CONTEXT + nodes);
        for window in [None, Some(WINDOW), Some(40)] {
            let what = format!("{nodes} nodes, window {window:?}");
            let (plain, options) = (causal(window), Options { tree: Some(&mask), ..causal(window) });
            close(&bench.plain(&text, nodes, options), &bench.plain(&text, nodes, plain), &what);
            for (format, block) in [(KvFormat::F32, Some(8)), (KvFormat::Int8, None)] {
                let mut cache = bench.cache(format, block);
                let sequence = cache.add();
                let step = bench.feed(&mut cache, sequence, &text);
                let of = |options| bench.attend(&cache, &step, &drafts, options);
                close(&of(options), &of(plain), &what);
            }
        }
    }
}

#[test]
fn a_branch_gets_what_it_gets_in_a_run_of_its_own() {
    let bench = Bench::new();
    for nodes in [5, 8, 40] {
        let (tree, branches) = random_tree(nodes as u64, nodes);
        let (text, mask) = (Text::new(8, CONTEXT + nodes), bench.mask(&tree));
        let drafts = text.of(CONTEXT..CONTEXT + nodes);
        for window in [None, Some(WINDOW), Some(2)] {
            let (plain, options) = (causal(window), Options { tree: Some(&mask), ..causal(window) });
            let whole = bench.plain(&text, nodes, options);
            let mut cache = bench.cache(KvFormat::Fp4, Some(16));
            let sequence = cache.add();
            let step = bench.feed(&mut cache, sequence, &text);
            let cached = bench.attend(&cache, &step, &drafts, options);
            for (node, branch) in branches.iter().enumerate() {
                let what = format!("node {node} of {nodes}, window {window:?}");
                let alone = text.of((0..CONTEXT).chain(branch.iter().map(|node| CONTEXT + node)));
                let own = node * HQ * DV..(node + 1) * HQ * DV;
                close(&whole[own.clone()], &bench.plain(&alone, 1, plain), &what);
                let mut cache = bench.cache(KvFormat::Fp4, None);
                let sequence = cache.add();
                let step = bench.feed(&mut cache, sequence, &alone);
                close(&cached[own], &bench.attend(&cache, &step, &drafts.of(node..node + 1), plain), &what);
            }
        }
    }
}

#[test]
fn what_is_accepted_is_as_if_it_had_always_been_there() {
    let bench = Bench::new();
    let nodes = 20;
    let (_, branches) = random_tree(4, nodes);
    let branch = branches.iter().max_by_key(|branch| branch.len()).expect("a branch");
    let (text, new) = (Text::new(9, CONTEXT + nodes), Text::new(10, 1));
    let mut path: Vec<u32> = branch.iter().map(|&node| node as u32).collect();
    path.resize(nodes, u32::MAX);
    let path = bench.0.tensor(&[1, nodes], &path).expect("fits");
    for format in KvFormat::ALL {
        for block in [None, Some(8), Some(24)] {
            let mut cache = bench.cache(format, block);
            let sequence = cache.add();
            bench.feed(&mut cache, sequence, &text.of(0..CONTEXT));
            // Another sequence has the context too: its rows must stay.
            let other = cache.fork(sequence, CONTEXT).expect("known");
            let step = bench.feed(&mut cache, sequence, &text.of(CONTEXT..CONTEXT + nodes));
            bench.0.run(|r| cache.keep(r, 0, &step, &path)).expect("runs");
            cache.truncate(sequence, CONTEXT + branch.len()).expect("known");
            let kept = bench.feed(&mut cache, sequence, &new);
            let got = bench.attend(&cache, &kept, &new, causal(None));
            let others = bench.feed(&mut cache, other, &new);
            let got_other = bench.attend(&cache, &others, &new, causal(None));

            let mut fresh = bench.cache(format, block);
            let lone = |accepted: &[usize], fresh: &mut KvCache| {
                let sequence = fresh.add();
                let rows = (0..CONTEXT).chain(accepted.iter().map(|node| CONTEXT + node));
                bench.feed(fresh, sequence, &text.of(rows));
                let step = bench.feed(fresh, sequence, &new);
                bench.attend(fresh, &step, &new, causal(None))
            };
            assert_eq!(got, lone(branch, &mut fresh), "{} in {block:?}", format.name());
            assert_eq!(got_other, lone(&[], &mut fresh), "{} in {block:?}", format.name());
        }
    }
}

/// A mask without any bit, and no context: no node sees a key, not even its own.
#[test]
fn nodes_that_see_nothing_give_nothing() {
    let bench = Bench::new();
    for nodes in [5, 40] {
        let text = Text::new(12, nodes);
        let mask = bench.0.tensor(&[1, nodes, nodes.div_ceil(32)], &vec![0u32; nodes * nodes.div_ceil(32)]);
        let mask = mask.expect("fits");
        let options = Options { tree: Some(&mask), ..causal(None) };
        let nothing = vec![0.0; nodes * HQ * DV];
        assert_eq!(bench.plain(&text, nodes, options), nothing);
        let mut cache = bench.cache(KvFormat::Int4, Some(8));
        let sequence = cache.add();
        let step = bench.feed(&mut cache, sequence, &text);
        assert_eq!(bench.attend(&cache, &step, &text, options), nothing);
    }
}

#[test]
fn only_the_latest_step_s_rows_can_be_kept() {
    let bench = Bench::new();
    let mut cache = bench.cache(KvFormat::F16, Some(8));
    let sequence = cache.add();
    let path = bench.0.tensor(&[1, 2], &[0u32, 1]).expect("fits");
    let old = cache.step(&[(sequence, 2)]).expect("room");
    let step = cache.step(&[(sequence, 2)]).expect("room");
    let keep = |layer, step: &Step| match bench.0.run(|r| cache.keep(r, layer, step, &path)) {
        Ok(()) => "accepted".to_string(),
        Err(error) => error.to_string(),
    };
    assert_eq!(keep(0, &step), "accepted");
    assert!(keep(0, &old).contains("step = 1, must be this cache's latest, 2"));
    assert!(keep(1, &step).contains("layer = 1, must be below 1"));
}

#[test]
fn wrong_masks_are_named() {
    let bench = Bench::new();
    let text = Text::new(11, 40);
    let run = |queries: usize, options: Options<'_>| {
        let (q, k) = (bench.empty(&[1, queries, HQ, D]), bench.tensor(&[1, 40, HKV, D], &text.0[1]));
        let v = &bench.tensor(&[1, 40, HKV, DV], &text.0[2]);
        let (out, workspace) = (bench.empty(&[1, queries, HQ, DV]), bench.workspace(queries));
        let request =
            AttentionDecode { q: &q, k: &k, v, out: &out, kv_len: 40, options, workspace: &workspace };
        bench.0.run(|r| attention::record_any(r, &request))
    };
    let (mask, bias) = (bench.mask(&chain(8)), bench.empty(&[1, 1, 1, 40]));
    let tree = Options { tree: Some(&mask), ..causal(None) };
    run(8, tree).expect("a right call");
    let named = |result: Result<(), Error>, want: &str| {
        let error = result.expect_err(want).to_string();
        assert!(error.starts_with("attention") && error.contains(want), "{error} is not {want}");
    };
    named(run(7, tree), "tree is [1, 8, 1], needs [1, 7, 1]");
    named(run(33, tree), "tree is [1, 8, 1], needs [1, 33, 2]");
    named(run(8, Options { causal: false, ..tree }), "must be None without a causal mask");
    named(run(8, Options { bias: Some(&bias), ..tree }), "must be None with a bias");
    named(run(8, Options { tree: Some(&bias), ..tree }), "tree's dtype is F32");
    let long = bench.mask(&chain(41));
    named(
        run(41, Options { tree: Some(&long), ..tree }),
        "number of keys = 40, must be at least the 41 nodes",
    );
}
