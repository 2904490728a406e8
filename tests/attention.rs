//! Attention and caches: what must be equal, whatever the kernel, the layout or the order of work.

use wgmarlin::attention::{
    self, AttentionDecode, AttentionPaged, AttentionProbs, AttentionVarlen, MergeLse, Options, Sequences,
};
use wgmarlin::kernel::Random;
use wgmarlin::kv::{CacheShape, Context, KvCache, KvFormat, KvShape, Sequence, Step};
use wgmarlin::{DType, Error, Gpu, Tensor};

const HQ: usize = 6;
const HKV: usize = 2;
const D: usize = 40;
const DV: usize = 24;
const SCALE: f32 = 0.2;
const LAYERS: usize = 2;

/// Queries, keys and values of one sequence: a token's values depend on the sequence and its place only.
#[derive(Clone)]
struct Text {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Text {
    fn new(seed: u64, tokens: usize) -> Text {
        let mut random = Random::new(seed);
        let mut values = |n: usize| random.values(tokens * n, DType::F32);
        Text { q: values(HQ * D), k: values(HKV * D), v: values(HKV * DV) }
    }
}

/// Part of the rows of each text, one behind the other.
fn rows(texts: &[(&[f32], std::ops::Range<usize>)], row: usize) -> Vec<f32> {
    texts.iter().flat_map(|(all, r)| &all[r.start * row..r.end * row]).copied().collect()
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= 3e-6, "element {i}: {x} and {y}");
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

    fn read(&self, tensor: &Tensor) -> Vec<f32> {
        self.0.read(tensor).expect("reads")
    }

    fn workspace(&self, b: usize, sq: usize, longest: usize) -> Tensor {
        self.empty(&[attention::merged_workspace_len(&self.0, b, sq, HQ, HKV, DV, longest)])
    }

    /// Queries `range` of a text over its first `range.end` keys, from plain tensors. At most 8 are decoded.
    fn plain(&self, text: &Text, range: std::ops::Range<usize>, options: Options<'_>) -> Vec<f32> {
        let (n, len) = (range.len(), range.end);
        let q = &self.tensor(&[1, n, HQ, D], &rows(&[(&text.q, range)], HQ * D));
        let k = &self.tensor(&[1, len, HKV, D], &text.k[..len * HKV * D]);
        let v = &self.tensor(&[1, len, HKV, DV], &text.v[..len * HKV * DV]);
        let (out, workspace) = (&self.empty(&[1, n, HQ, DV]), &self.workspace(1, n, len));
        let request = AttentionDecode { q, k, v, out, kv_len: len, options, workspace };
        self.0.run(|r| attention::record_any(r, &request)).expect("runs");
        self.read(out)
    }

    fn cache(&self, format: KvFormat, block: usize, blocks: usize) -> KvCache {
        let pool = KvShape { blocks, kv_heads: HKV, block, d: D, d_v: DV };
        let shape = CacheShape { layers: LAYERS, pool, context: 300, sequences: 8, tokens: 300 };
        KvCache::new(&self.0, format, shape).expect("fits")
    }

    /// Writes the next rows of each text into all layers; every layer has those of the one before, doubled.
    fn write(&self, cache: &KvCache, step: &Step, texts: &[&Text]) {
        let part = |of: fn(&Text) -> &[f32], row: usize| {
            let of = |(text, part): (&&Text, &wgmarlin::kv::StepPart)| {
                rows(&[(of(text), part.rows - part.tokens.len()..part.rows)], row)
            };
            texts.iter().zip(&step.parts).flat_map(of).collect::<Vec<_>>()
        };
        let (mut k, mut v) = (part(|t| &t.k, HKV * D), part(|t| &t.v, HKV * DV));
        let tokens = step.slots.len();
        for layer in 0..LAYERS {
            let (new_k, new_v) = (self.tensor(&[tokens, HKV, D], &k), self.tensor(&[tokens, HKV, DV], &v));
            self.0.run(|r| cache.write(r, layer, step, &new_k, &new_v)).expect("runs");
            k.iter_mut().chain(&mut v).for_each(|x| *x *= 2.0);
        }
    }

    /// Adds `new` rows to each sequence.
    fn feed(&self, cache: &mut KvCache, new: &[(Sequence, usize)], texts: &[&Text]) -> Step {
        let step = cache.step(new).expect("room");
        self.write(cache, &step, texts);
        step
    }

    /// The last `n` queries of each text in a layer.
    fn attend(
        &self,
        cache: &KvCache,
        layer: usize,
        context: Context<'_>,
        ends: &[(&Text, usize)],
        n: usize,
    ) -> Vec<f32> {
        let queries: Vec<_> = ends.iter().map(|(text, end)| (&text.q[..], end - n..*end)).collect();
        let b = ends.len();
        let q = &self.tensor(&[b, n, HQ, D], &rows(&queries, HQ * D));
        let (out, workspace) = (&self.empty(&[b, n, HQ, DV]), &self.workspace(b, n, 300));
        let (cache, options) = (cache.layer(layer).expect("a layer"), Options::causal(SCALE));
        let request = AttentionPaged { q, cache, context, out, options, workspace };
        self.0.run(|r| attention::record_paged(r, &request)).expect("runs");
        self.read(out)
    }

    /// What query `end - 1` of a text gives in a contiguous cache of its own.
    fn alone(&self, format: KvFormat, text: &Text, end: usize) -> [Vec<f32>; LAYERS] {
        let shape = CacheShape::contiguous(LAYERS, [HKV, D, DV], 1, 300, 300);
        let mut cache = KvCache::new(&self.0, format, shape).expect("fits");
        let sequence = cache.add();
        let step = self.feed(&mut cache, &[(sequence, end)], &[text]);
        self.last(&cache, &step, &[text])
    }

    /// The last query of each sequence, in both layers.
    fn last(&self, cache: &KvCache, step: &Step, texts: &[&Text]) -> [Vec<f32>; LAYERS] {
        let ends: Vec<_> = texts.iter().zip(&step.parts).map(|(text, part)| (*text, part.rows)).collect();
        [0, 1].map(|layer| self.attend(cache, layer, step.context(), &ends, 1))
    }
}

#[test]
fn each_of_many_sequences_gets_what_it_gets_alone() {
    let bench = Bench::new();
    let lens = [1, 8, 31, 64, 77, 200];
    let texts: Vec<Text> = (0..).zip(lens).map(|(seed, len)| Text::new(seed, len + 3)).collect();
    let texts: Vec<&Text> = texts.iter().collect();
    for (format, block) in
        [(KvFormat::F32, 8), (KvFormat::F16, 24), (KvFormat::Int8, 16), (KvFormat::Fp4, 64)]
    {
        let mut cache = bench.cache(format, block, 70);
        let all: Vec<Sequence> = lens.iter().map(|_| cache.add()).collect();
        // In pieces, so that blocks of all are mixed.
        let mut step = None;
        for piece in 0..7 {
            let new: Vec<_> =
                all.iter().zip(lens).map(|(&s, len)| (s, len * (piece + 1) / 7 - len * piece / 7)).collect();
            step = Some(bench.feed(&mut cache, &new, &texts));
        }
        for _ in 0..3 {
            step = Some(bench.feed(&mut cache, &all.iter().map(|&s| (s, 1)).collect::<Vec<_>>(), &texts));
        }
        let together = bench.last(&cache, &step.expect("steps"), &texts);
        let row = HQ * DV;
        for (n, (text, len)) in texts.iter().zip(lens).enumerate() {
            for (together, alone) in together.iter().zip(bench.alone(format, text, len + 3)) {
                close(&together[n * row..][..row], &alone);
            }
            if format == KvFormat::F32 {
                let plain = bench.plain(text, len + 2..len + 3, Options::causal(SCALE));
                close(&together[0][n * row..][..row], &plain);
            }
        }
    }
}

#[test]
fn forks_share_and_go_their_own_ways() {
    [KvFormat::F32, KvFormat::Bf16, KvFormat::Int4].into_iter().for_each(fork);
}

fn fork(format: KvFormat) {
    let bench = Bench::new();
    let prompt = Text::new(1, 21);
    let own = |seed| {
        let (mut text, tail) = (prompt.clone(), Text::new(seed, 9));
        for (all, tail, row) in
            [(&mut text.q, tail.q, HQ * D), (&mut text.k, tail.k, HKV * D), (&mut text.v, tail.v, HKV * DV)]
        {
            all.truncate(13 * row);
            all.extend(tail);
        }
        text
    };
    // A fork at its end, two in the middle of a block.
    let texts = [prompt.clone(), own(2), own(3)];
    let texts: Vec<&Text> = texts.iter().collect();
    let mut cache = bench.cache(format, 8, 8);
    let (a, filler) = (cache.add(), cache.add());
    bench.feed(&mut cache, &[(filler, 8)], &[&Text::new(9, 8)]);
    bench.feed(&mut cache, &[(a, 20)], &texts[..1]);
    let (b, c) = (cache.fork(a, 13).expect("rows"), cache.fork(a, 13).expect("rows"));
    assert_eq!(cache.free_blocks(), 4);
    let step = bench.feed(&mut cache, &[(a, 1), (b, 9), (c, 9)], &texts);
    assert_eq!(cache.free_blocks(), 0);
    let got = bench.last(&cache, &step, &texts);
    for (n, text) in texts.iter().enumerate() {
        let end = step.parts[n].rows;
        for (got, alone) in got.iter().zip(bench.alone(format, text, end)) {
            close(&got[n * HQ * DV..][..HQ * DV], &alone);
        }
    }
    // Nothing is left, and a step that does not fit changes nothing.
    let error = cache.step(&[(a, 1), (b, 3)]).expect_err("full");
    assert!(matches!(error, Error::CacheFull { need: 1, free: 0 }), "{error}");
    assert_eq!((cache.rows(a).expect("known"), cache.rows(b).expect("known")), (21, 22));
    assert_eq!(bench.last(&cache, &step, &texts), got);

    // Out to the host and back, into other blocks.
    let out = cache.swap_out(b).expect("reads");
    assert!(cache.rows(b).is_err() && out.rows() == 22);
    let taken = cache.blocks(c).expect("known").to_vec();
    assert!(matches!(cache.swap_in(&out), Err(Error::CacheFull { need: 3, free: 2 })));
    cache.free(filler).expect("known");
    let b = cache.swap_in(&out).expect("room");
    assert_eq!(cache.blocks(c).expect("known"), taken);
    let step = cache.step(&[(a, 0), (b, 0), (c, 0)]).expect("nothing new");
    assert_eq!(bench.last(&cache, &step, &texts), got);
}

#[test]
fn reading_a_prompt_in_pieces_is_reading_it_at_once() {
    let bench = Bench::new();
    let text = Text::new(5, 150);
    let whole = bench.plain(&text, 0..150, Options::causal(SCALE));
    let mut cache = bench.cache(KvFormat::F32, 16, 12);
    let sequence = cache.add();
    let mut parts = Vec::new();
    for piece in [37, 1, 90, 22] {
        let step = bench.feed(&mut cache, &[(sequence, piece)], &[&text]);
        let part = &step.parts[0];
        parts.extend(bench.attend(&cache, 0, part.context(), &[(&text, part.rows)], piece));
    }
    close(&parts, &whole);
    // Back to the 128th, as after drafts that were refused.
    cache.truncate(sequence, 127).expect("rows");
    let step = bench.feed(&mut cache, &[(sequence, 2)], &[&text]);
    close(&bench.last(&cache, &step, &[&text])[0], &whole[128 * HQ * DV..129 * HQ * DV]);
}

#[test]
fn decoding_is_a_row_of_prefill_under_all_options() {
    let bench = Bench::new();
    let text = Text::new(6, 90);
    let mut random = Random::new(7);
    let bias_rows = random.values(HQ * 90 * 90, DType::F32);
    let (bias, sinks) =
        (bench.tensor(&[1, HQ, 90, 90], &bias_rows), bench.tensor(&[HQ], &random.values(HQ, DType::F32)));
    let all = Options {
        window: Some(33),
        soft_cap: Some(1.5),
        bias: Some(&bias),
        sinks: Some(&sinks),
        ..Options::causal(SCALE)
    };
    let whole = bench.plain(&text, 0..90, all);
    for range in [0..1, 40..41, 70..78, 89..90] {
        // The rows of the bias that are of these queries.
        let n = range.len();
        let own: Vec<f32> =
            (0..HQ).flat_map(|h| &bias_rows[(h * 90 + range.start) * 90..][..n * 90]).copied().collect();
        let own = bench.tensor(&[1, HQ, n, 90], &own);
        let got = bench.plain(&text, range.clone(), Options { bias: Some(&own), ..all });
        close(&got, &whole[range.start * HQ * DV..range.end * HQ * DV]);
    }
}

/// Many queries over blocks, with every option, are those over tensors.
#[test]
fn options_do_not_depend_on_the_layout() {
    let bench = Bench::new();
    let text = Text::new(11, 70);
    let mut random = Random::new(12);
    let bias = bench.tensor(&[1, 1, 30, 70], &random.values(30 * 70, DType::F32));
    let sinks = bench.tensor(&[HQ], &random.values(HQ, DType::F32));
    let mut cache = bench.cache(KvFormat::F32, 8, 9);
    let sequence = cache.add();
    let step = bench.feed(&mut cache, &[(sequence, 70)], &[&text]);
    let plain =
        Options { window: Some(33), soft_cap: Some(1.5), sinks: Some(&sinks), ..Options::causal(SCALE) };
    for options in [plain, Options { bias: Some(&bias), ..plain }] {
        let want = bench.plain(&text, 40..70, options);
        let q = &bench.tensor(&[1, 30, HQ, D], &text.q[40 * HQ * D..]);
        let (out, workspace) = (&bench.empty(&[1, 30, HQ, DV]), &bench.workspace(1, 30, 70));
        let (cache, context) = (cache.layer(0).expect("a layer"), step.context());
        let request = AttentionPaged { q, cache, context, out, options, workspace };
        let mut used = Vec::new();
        let run = bench.0.run(|r| attention::record_paged(r, &request).map(|()| used = r.used().to_vec()));
        run.expect("runs");
        let tiles = options.bias.is_none();
        assert_eq!(used[0].0, if tiles { "attention_paged" } else { "attention_decode" });
        close(&bench.read(out), &want);
    }
}

#[test]
fn a_window_as_long_as_the_keys_is_none() {
    let bench = Bench::new();
    let text = Text::new(8, 100);
    for range in [0..100, 95..100, 99..100] {
        let causal = bench.plain(&text, range.clone(), Options::causal(SCALE));
        for window in [100, 101, usize::MAX] {
            let options = Options { window: Some(window), ..Options::causal(SCALE) };
            close(&bench.plain(&text, range.clone(), options), &causal);
        }
        let options = Options { window: Some(99), ..Options::causal(SCALE) };
        let shorter = bench.plain(&text, range.clone(), options);
        let last = |all: &[f32]| all[all.len() - HQ * DV..].to_vec();
        assert_ne!(last(&shorter), last(&causal));
    }
}

/// Whatever the parts of the keys, and whichever kernel made them; sinks count once.
#[test]
fn parts_of_the_keys_merge_into_the_whole() {
    let bench = Bench::new();
    let text = Text::new(9, 130);
    let sinks = bench.tensor(&[HQ], &[0.5, -1.0, 2.0, 0.0, 1.0, -3.0]);
    for n in [3, 30] {
        let q = &bench.tensor(&[1, n, HQ, D], &text.q[..n * HQ * D]);
        let run = |keys: std::ops::Range<usize>, sinks: Option<&Tensor>| {
            let kv_len = keys.len();
            let k = &bench.tensor(&[1, kv_len, HKV, D], &rows(&[(&text.k, keys.clone())], HKV * D));
            let v = &bench.tensor(&[1, kv_len, HKV, DV], &rows(&[(&text.v, keys)], HKV * DV));
            let (out, lse) = (&bench.empty(&[1, n, HQ, DV]), &bench.empty(&[1, n, HQ]));
            let workspace = &bench.workspace(1, n, kv_len);
            let options = Options { sinks, lse: Some(lse), ..Options::full(SCALE) };
            let request = AttentionDecode { q, k, v, out, kv_len, options, workspace };
            bench.0.run(|r| attention::record_any(r, &request)).expect("runs");
            (bench.read(out), bench.read(lse))
        };
        let (whole, whole_lse) = run(0..130, Some(&sinks));
        // The last part is empty: its sums are those of nothing.
        for (in_part, at_merge) in [(Some(&sinks), None), (None, Some(&sinks))] {
            let parts = [run(0..50, None), run(50..130, in_part), run(130..130, None)];
            let results: Vec<f32> = parts.iter().flat_map(|(out, _)| out).copied().collect();
            let sums: Vec<f32> = parts.iter().flat_map(|(_, lse)| lse).copied().collect();
            let (parts, lses) =
                (&bench.tensor(&[3, 1, n, HQ, DV], &results), &bench.tensor(&[3, 1, n, HQ], &sums));
            let (out, lse) = (&bench.empty(&[1, n, HQ, DV]), &bench.empty(&[1, n, HQ]));
            let request = MergeLse { parts, lses, out, sinks: at_merge, lse: Some(lse) };
            bench.0.run(|r| attention::record_merge(r, &request)).expect("runs");
            close(&bench.read(out), &whole);
            close(&bench.read(lse), &whole_lse);
        }
    }
}

/// Each of the packed sequences gets what it gets alone.
#[test]
fn packed_sequences_do_not_meet() {
    let bench = Bench::new();
    let lens = [(64, 64), (0, 9), (9, 40), (1, 1), (70, 70), (30, 130)];
    let texts: Vec<Text> = (20..).zip(lens).map(|(seed, (_, len))| Text::new(seed, len)).collect();
    let (queries, keys) = lens.iter().fold((0, 0), |sum, len| (sum.0 + len.0, sum.1 + len.1));
    let own: Vec<_> = texts.iter().zip(lens).collect();
    let last: Vec<_> = own.iter().map(|(text, (n, len))| (&text.q[..], len - n..*len)).collect();
    let all = |of: fn(&Text) -> &[f32]| texts.iter().flat_map(of).copied().collect::<Vec<_>>();
    let (k, v) = (all(|t| &t.k), all(|t| &t.v));
    let q = &bench.tensor(&[queries, HQ, D], &rows(&last, HQ * D));
    let (k, v) = (&bench.tensor(&[keys, HKV, D], &k), &bench.tensor(&[keys, HKV, DV], &v));
    let out = &bench.empty(&[queries, HQ, DV]);
    let sequences = &Sequences::new(&bench.0, &lens).expect("fits");
    let options = Options { window: Some(50), ..Options::causal(SCALE) };
    let request = AttentionVarlen { q, k, v, out, sequences, options };
    bench.0.run(|r| attention::record_varlen(r, &request)).expect("runs");
    let alone = own.iter().flat_map(|(text, (n, len))| bench.plain(text, len - n..*len, options));
    close(&bench.read(out), &alone.collect::<Vec<_>>());
}

/// out = P·V with the probabilities as an output.
#[test]
fn probabilities_weigh_the_values() {
    let bench = Bench::new();
    let text = Text::new(31, 60);
    let sinks = bench.tensor(&[HQ], &[0.5, -1.0, 2.0, 0.0, 1.0, -3.0]);
    let options = Options { sinks: Some(&sinks), soft_cap: Some(1.5), ..Options::causal(SCALE) };
    let q = &bench.tensor(&[1, 40, HQ, D], &text.q[20 * HQ * D..]);
    let k = &bench.tensor(&[1, 60, HKV, D], &text.k);
    let out = &bench.empty(&[1, HQ, 40, 60]);
    let request = AttentionProbs { q, k, out, kv_len: 60, options };
    bench.0.run(|r| attention::record_probs(r, &request)).expect("runs");
    let p = bench.read(out);
    let mut weighed = Vec::new();
    for (i, h) in (0..40).flat_map(|i| (0..HQ).map(move |h| (i, h))) {
        let row = &p[(h * 40 + i) * 60..][..60];
        let value = |c: usize, j: usize| text.v[(j * HKV + h / (HQ / HKV)) * DV + c];
        weighed.extend((0..DV).map(|c| row.iter().enumerate().map(|(j, p)| p * value(c, j)).sum::<f32>()));
    }
    close(&weighed, &bench.plain(&text, 20..60, options));
}

#[test]
fn wrong_steps_are_named() {
    let bench = Bench::new();
    let (mut cache, mut other) = (bench.cache(KvFormat::F16, 8, 9), bench.cache(KvFormat::Int8, 8, 9));
    let (a, b) = (cache.add(), other.add());
    let named = |error: Error, want: &str| {
        let error = error.to_string();
        assert!(error.starts_with("KvCache: ") && error.contains(want), "{error} is not {want}");
    };
    named(cache.step(&[(b, 1)]).expect_err("foreign"), "one of this cache");
    named(cache.step(&[(a, 301)]).expect_err("many"), "number of rows of a step is 301, needs at most 300");
    named(cache.step(&[(a, 0); 9]).expect_err("many"), "number of sequences of a step is 9, needs at most 8");
    named(cache.layer(2).map(|_| ()).expect_err("two"), "layer = 2, must be below 2");
    let old = cache.step(&[(a, 1)]).expect("room");
    let latest = cache.step(&[(a, 1)]).expect("room");
    let theirs = other.step(&[(b, 1)]).expect("room");
    let (k, v) = (bench.empty(&[1, HKV, D]), bench.empty(&[1, HKV, DV]));
    bench.0.run(|r| cache.write(r, 1, &latest, &k, &v)).expect("runs");
    for (step, layer, want) in [
        (&old, 0, "step = 1, must be this cache's latest, 2"),
        (&theirs, 0, "step = 1"),
        (&latest, 2, "layer = 2"),
    ] {
        named(bench.0.run(|r| cache.write(r, layer, step, &k, &v)).expect_err(want), want);
    }
    let out = cache.swap_out(a).expect("reads");
    // It may get the very blocks of the step.
    cache.swap_in(&out).expect("room");
    named(bench.0.run(|r| cache.write(r, 0, &latest, &k, &v)).expect_err("swapped"), "latest, 3");
    named(other.swap_in(&out).expect_err("another format"), "format, layers and shape");
    let none = CacheShape { layers: 0, ..CacheShape::contiguous(1, [1, 0, 0], 1, 0, 1) };
    let mut empty = KvCache::new(&bench.0, KvFormat::F32, none).expect("no layer is wrong");
    let sequence = empty.add();
    assert!(empty.step(&[(sequence, 0)]).is_ok());
    let shape = CacheShape::contiguous(1, [1, 12, 8], 1, 5, 1);
    let error = KvCache::new(&bench.0, KvFormat::F32, shape).err().expect("an odd width").to_string();
    assert!(error.contains("d is 12"), "{error}");
}
