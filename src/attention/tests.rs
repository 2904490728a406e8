//! The three kernels against each other, and wrong calls.

use half::f16;

use super::decode::record_split;
use super::plan::Splits;
use super::*;
use crate::Gpu;
use crate::kernel::Random;
use crate::kv::{KvFormat, KvShape};

/// Operands of [1, sq, 4, 40] queries over [1, 150, 2, 40], f32.
struct Operands {
    gpu: Gpu,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Vec<f32>,
}

const ROW: usize = 4 * 40;
const SCALE: f32 = 0.2;

fn operands(sq: usize) -> Operands {
    let gpu = Gpu::new().expect("an adapter");
    let mut random = Random::new(5);
    let mut tensor = |shape: &[usize]| {
        let values = random.values(shape.iter().product(), DType::F32);
        (gpu.tensor(shape, &values).expect("fits"), values)
    };
    let ((q, queries), (k, _), (v, _)) =
        (tensor(&[1, sq, 4, 40]), tensor(&[1, 150, 2, 40]), tensor(&[1, 150, 2, 40]));
    Operands { gpu, q, k, v, queries }
}

impl Operands {
    fn prefill(&self, q: &Tensor, kv_len: usize) -> Vec<f32> {
        let out = self.gpu.alloc(DType::F32, q.shape()).expect("fits");
        let request =
            Attention { q, k: &self.k, v: &self.v, out: &out, kv_len, options: Options::causal(SCALE) };
        self.gpu.run(|r| record(r, &request)).expect("runs");
        self.gpu.read(&out).expect("reads")
    }

    fn decode(&self, q: &Tensor, kv_len: usize, most: u32) -> Vec<f32> {
        let out = self.gpu.alloc(DType::F32, q.shape()).expect("fits");
        let room = Splits::of(kv_len as u32, most).workspace(q.rows() as u64, 40) as usize;
        let workspace = &self.gpu.alloc(DType::F32, &[room]).expect("fits");
        let (k, v, out) = (&self.k, &self.v, &out);
        let request = AttentionDecode { q, k, v, out, kv_len, options: Options::causal(SCALE), workspace };
        self.gpu.run(|r| record_split(r, &request, Some(most))).expect("runs");
        self.gpu.read(out).expect("reads")
    }

    /// Queries `range` as a tensor of their own.
    fn queries(&self, range: std::ops::Range<usize>) -> Tensor {
        let shape = [1, range.len(), 4, 40];
        self.gpu.tensor(&shape, &self.queries[range.start * ROW..range.end * ROW]).expect("fits")
    }
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= 2e-6, "element {i}: {x} and {y}");
    }
}

#[test]
fn decoding_one_by_one_equals_prefill() {
    let o = operands(40);
    let whole = o.prefill(&o.q, 140);
    for i in [0, 17, 39] {
        close(&o.decode(&o.queries(i..i + 1), 101 + i, 3), &whole[i * ROW..(i + 1) * ROW]);
    }
    close(&o.decode(&o.queries(20..28), 128, 2), &whole[20 * ROW..28 * ROW]);
}

#[test]
fn chunked_prefill_equals_one_shot() {
    let o = operands(100);
    let whole = o.prefill(&o.q, 120);
    let mut parts = Vec::new();
    for (start, end) in [(0, 31), (31, 95), (95, 100)] {
        parts.extend(o.prefill(&o.queries(start..end), 20 + end));
    }
    close(&parts, &whole);
}

#[test]
fn merged_splits_equal_the_whole_and_repeat_exactly() {
    let o = operands(5);
    let whole = o.decode(&o.q, 147, 1);
    for splits in [2, 3, 8, 147] {
        let merged = o.decode(&o.q, 147, splits);
        close(&merged, &whole);
        assert_eq!(merged, o.decode(&o.q, 147, splits));
    }
}

#[test]
fn one_call_serves_both() {
    let o = operands(12);
    let whole = o.prefill(&o.q, 60);
    let workspace = &o.gpu.alloc(DType::F32, &[workspace_len(&o.gpu, 1, 8, 4, 2, 40, 150)]).expect("fits");
    for range in [0..12, 4..12] {
        let q = &o.queries(range.clone());
        let out = &o.gpu.alloc(DType::F32, q.shape()).expect("fits");
        let request = AttentionDecode {
            q,
            k: &o.k,
            v: &o.v,
            out,
            kv_len: 60,
            options: Options::causal(SCALE),
            workspace,
        };
        let mut used = Vec::new();
        let run = o.gpu.run(|r| record_any(r, &request).map(|()| used = r.used().to_vec()));
        run.expect("runs");
        assert_eq!(used[0].0, if range.len() > 8 { "attention" } else { "attention_decode" });
        close(&o.gpu.read::<f32>(out).expect("reads"), &whole[range.start * ROW..]);
    }
}

#[test]
fn wrong_calls_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let f32s = |shape: &[usize]| make(DType::F32, shape);
    let (q, kv) = (f32s(&[2, 9, 4, 16]), f32s(&[2, 7, 2, 16]));
    let out = f32s(&[2, 9, 4, 16]);
    let good = Attention { q: &q, k: &kv, v: &kv, out: &out, kv_len: 7, options: Options::causal(1.0) };
    gpu.run(|r| record(r, &good)).expect("k and v may be one tensor");

    let (flat, half) = (f32s(&[2, 9, 64]), make(DType::F16, &[2, 7, 2, 16]));
    let (odd_q, odd_kv) = (f32s(&[2, 9, 4, 12]), f32s(&[2, 7, 2, 12]));
    let (wide, three, other) = (f32s(&[2, 9, 4, 264]), f32s(&[2, 7, 3, 16]), f32s(&[1, 7, 2, 16]));
    let wrong = [
        (Attention { q: &flat, ..good }, "q is [2, 9, 64], needs [B, Sq, Hq, D]"),
        (Attention { k: &flat, ..good }, "k is [2, 9, 64], needs [B, C, Hkv, D]"),
        (Attention { k: &half, ..good }, "k's dtype is F16"),
        (Attention { v: &half, ..good }, "v's dtype is F16"),
        (Attention { q: &odd_q, k: &odd_kv, ..good }, "q's head size D is 12, needs a multiple of 8"),
        (Attention { q: &wide, ..good }, "q's head size D is 264"),
        (Attention { k: &three, ..good }, "k's number of heads Hkv is 3, needs a divisor of q's 4 heads"),
        (Attention { k: &other, ..good }, "k is [1, 7, 2, 16], needs [2, 7, 2, 16]"),
        (Attention { v: &other, ..good }, "v is [1, 7, 2, 16], needs [2, 7, 2, 16]"),
        (Attention { out: &kv, ..good }, "out is [2, 7, 2, 16], needs [2, 9, 4, 16]"),
        (Attention { kv_len: 8, ..good }, "kv_len = 8, must be at most the capacity 7"),
        (Attention { options: Options::causal(f32::NAN), ..good }, "scale = NaN, must be finite"),
        (Attention { out: &q, ..good }, "one is read, one is written"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("attention: ") && error.contains(want), "{error} is not {want}");
    }

    // One pair of batch and KV head, so that every adapter splits the keys.
    let (q, out) = (f32s(&[1, 8, 1, 16]), f32s(&[1, 8, 1, 16]));
    let long = f32s(&[1, 4000, 1, 16]);
    let (short, words) = (f32s(&[3]), make(DType::U32, &[1 << 20]));
    let enough = f32s(&[workspace_len(&gpu, 1, 8, 1, 1, 16, 4000)]);
    let request = AttentionDecode {
        q: &q,
        k: &long,
        v: &long,
        out: &out,
        kv_len: 4000,
        options: Options::full(1.0),
        workspace: &enough,
    };
    gpu.run(|r| record_decode(r, &request)).expect("the workspace is long enough");
    let elsewhere = Gpu::new().expect("an adapter");
    let there = |shape: &[usize]| elsewhere.alloc(DType::F32, shape).expect("fits");
    let foreign = |options| AttentionDecode { options, ..request };
    let sunk = Options { sinks: Some(&there(&[1])), ..request.options };
    let within =
        out.reshape(&[128]).and_then(|t| t.rows_view(&gpu, 64, 8)).and_then(|t| t.reshape(&[1, 8, 1]));
    let garbled = Options { lse: Some(&within.expect("it starts there")), ..request.options };
    for (request, want) in [
        (AttentionDecode { q: &there(&[1, 8, 1, 16]), ..request }, ": q or "),
        (foreign(sunk), "sinks"),
        (foreign(garbled), "memory in common"),
    ] {
        let mut launches = 0;
        let result = gpu.run(|r| {
            let result = record_decode(r, &request);
            launches = r.used().len();
            result
        });
        let error = result.expect_err(want).to_string();
        assert!(error.contains(want) && launches == 0, "{error} is not {want}, {launches} kernels");
    }
    let (many, many_out) = (f32s(&[1, 9, 1, 16]), f32s(&[1, 9, 1, 16]));
    let wrong = [
        (AttentionDecode { q: &many, out: &many_out, ..request }, "Sq is 9, needs at most 8"),
        (AttentionDecode { workspace: &short, ..request }, "workspace's length is 3, needs at least"),
        (AttentionDecode { workspace: &words, ..request }, "workspace's dtype is U32"),
        (AttentionDecode { kv_len: 4001, ..request }, "kv_len = 4001"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_decode(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("attention_decode: ") && error.contains(want), "{error} is not {want}");
    }
}

#[test]
fn wrong_packed_calls_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let f32s = |shape: &[usize]| make(DType::F32, shape);
    let sequences = Sequences::new(&gpu, &[(3, 4), (0, 2), (2, 1)]).expect("fits");
    assert_eq!((sequences.count(), sequences.totals()), (3, (5, 7)));
    let (q, k, v, out) = (f32s(&[5, 4, 16]), f32s(&[7, 2, 16]), f32s(&[7, 2, 24]), f32s(&[5, 4, 24]));
    let causal = Options::causal(1.0);
    let good = AttentionVarlen {
        q: &q,
        k: &k,
        v: &v,
        out: &out,
        sequences: &sequences,
        options: Options { window: Some(2), ..causal },
    };
    gpu.run(|r| record_varlen(r, &good)).expect("a right call");
    let other = Sequences::new(&gpu, &[(5, 8)]).expect("fits");
    let (flat, odd, three, half) =
        (f32s(&[5, 64]), f32s(&[5, 4, 12]), f32s(&[7, 3, 16]), make(DType::F16, &[7, 2, 16]));
    let bias = f32s(&[1, 1, 5, 7]);
    let with = |options| AttentionVarlen { options, ..good };
    let wrong = [
        (AttentionVarlen { q: &flat, ..good }, "q is [5, 64], needs [all queries, Hq, D]"),
        (AttentionVarlen { q: &odd, ..good }, "q's head size D is 12"),
        (AttentionVarlen { q: &k, ..good }, "q is [7, 2, 16], needs [5, 2, 16]"),
        (
            AttentionVarlen { k: &three, ..good },
            "k's number of heads Hkv is 3, needs a divisor of q's 4 heads",
        ),
        (AttentionVarlen { k: &half, ..good }, "k's dtype is F16"),
        (AttentionVarlen { v: &out, ..good }, "v is [5, 4, 24], needs [7, 2, 24]"),
        (AttentionVarlen { out: &q, ..good }, "out is [5, 4, 16], needs [5, 4, 24]"),
        (AttentionVarlen { sequences: &other, ..good }, "k is [7, 2, 16], needs [8, 2, 16]"),
        (with(Options { bias: Some(&bias), ..causal }), "must be None for packed sequences"),
        (with(Options { tree: Some(&bias), ..causal }), "must be None for packed sequences"),
        (with(Options { sinks: Some(&bias), ..causal }), "sinks is [1, 1, 5, 7], needs [4]"),
        (with(Options { lse: Some(&bias), ..causal }), "lse is [1, 1, 5, 7], needs [5, 4]"),
        (with(Options { window: Some(0), ..causal }), "window = 0"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_varlen(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("attention_varlen: ") && error.contains(want), "{error} is not {want}");
    }
    let error = Sequences::new(&gpu, &[(1 << 31, 0), (1 << 31, 0)]).expect_err("too many").to_string();
    assert!(error.starts_with("Sequences: queries in all"), "{error}");
}

#[test]
fn wrong_calls_for_probabilities_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let (q, k, out) = (f32s(&[2, 3, 4, 16]), f32s(&[2, 7, 2, 16]), f32s(&[2, 4, 3, 5]));
    let (q, k, out, options) = (&q, &k, &out, Options::causal(1.0));
    let good = AttentionProbs { q, k, out, kv_len: 5, options };
    gpu.run(|r| record_probs(r, &good)).expect("a right call");
    let half = gpu.alloc(DType::F16, &[2, 4, 3, 5]).expect("fits");
    let wrong = [
        (AttentionProbs { q: k, ..good }, "out is [2, 4, 3, 5], needs [2, 2, 7, 5]"),
        (AttentionProbs { k: q, ..good }, "kv_len = 5, must be at most the capacity 3"),
        (AttentionProbs { out: &half, ..good }, "out's dtype is F16"),
        (AttentionProbs { kv_len: 6, ..good }, "out is [2, 4, 3, 5], needs [2, 4, 3, 6]"),
        (AttentionProbs { options: Options::causal(f32::NAN), ..good }, "scale = NaN"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_probs(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("attention_probs: ") && error.contains(want), "{error} is not {want}");
    }
}

#[test]
fn wrong_merges_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let f32s = |shape: &[usize]| make(DType::F32, shape);
    let (parts, lses, out) = (f32s(&[3, 2, 5, 4, 16]), f32s(&[3, 2, 5, 4]), f32s(&[2, 5, 4, 16]));
    let good = MergeLse { parts: &parts, lses: &lses, out: &out, sinks: None, lse: None };
    gpu.run(|r| record_merge(r, &good)).expect("a right call");
    let (none, many) = (f32s(&[0, 2, 5, 4, 16]), f32s(&[257, 1, 1, 1, 8]));
    let (odd, words) = (f32s(&[3, 2, 5, 4, 12]), make(DType::U32, &[3, 2, 5, 4, 16]));
    let wrong = [
        (MergeLse { parts: &lses, ..good }, "parts is [3, 2, 5, 4], needs [P, B, Sq, Hq, D]"),
        (MergeLse { parts: &words, ..good }, "parts's dtype is U32"),
        (MergeLse { parts: &none, ..good }, "number of parts P is 0, needs 1 to 256"),
        (MergeLse { parts: &many, ..good }, "number of parts P is 257"),
        (MergeLse { parts: &odd, ..good }, "parts' head size D is 12"),
        (MergeLse { lses: &out, ..good }, "lses is [2, 5, 4, 16], needs [3, 2, 5, 4]"),
        (MergeLse { out: &lses, ..good }, "out is [3, 2, 5, 4], needs [2, 5, 4, 16]"),
        (MergeLse { sinks: Some(&lses), ..good }, "sinks is [3, 2, 5, 4], needs [4]"),
        (MergeLse { lse: Some(&out), ..good }, "lse is [2, 5, 4, 16], needs [2, 5, 4]"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_merge(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("merge_lse: ") && error.contains(want), "{error} is not {want}");
    }
}

#[test]
fn wrong_options_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let f32s = |shape: &[usize]| make(DType::F32, shape);
    let (q, k, v) = (f32s(&[2, 3, 4, 16]), f32s(&[2, 7, 2, 16]), f32s(&[2, 7, 2, 24]));
    let (out, room) = (f32s(&[2, 3, 4, 24]), f32s(&[merged_workspace_len(&gpu, 2, 3, 4, 2, 24, 7)]));
    let (bias, heads, lse) = (f32s(&[1, 4, 1, 9]), f32s(&[4]), f32s(&[2, 3, 4]));
    let causal = Options::causal(1.0);
    let all = Options { bias: Some(&bias), sinks: Some(&heads), lse: Some(&lse), window: Some(2), ..causal };
    let (flat, short, other) = (f32s(&[4, 1, 9]), f32s(&[1, 4, 1, 5]), f32s(&[2, 4, 2, 9]));
    let (half, odd, three) = (make(DType::F16, &[1, 4, 1, 9]), f32s(&[2, 7, 2, 20]), f32s(&[3]));
    let wrong = [
        (
            Options { bias: Some(&flat), ..all },
            "bias is [4, 1, 9], needs [2 or 1, 4 or 1, 3 or 1, 6 or more]",
        ),
        (Options { bias: Some(&short), ..all }, "bias is [1, 4, 1, 5], needs"),
        (Options { bias: Some(&other), ..all }, "bias is [2, 4, 2, 9], needs"),
        (Options { bias: Some(&half), ..all }, "bias's dtype is F16"),
        (Options { sinks: Some(&three), ..all }, "sinks is [3], needs [4]"),
        (Options { lse: Some(&out), ..all }, "lse is [2, 3, 4, 24], needs [2, 3, 4]"),
        (Options { soft_cap: Some(f32::NAN), ..all }, "soft_cap = NAN, must be positive"),
    ];
    let (q, k, v, out, workspace) = (&q, &k, &v, &out, &room);
    let decode = |options| AttentionDecode { q, k, v, out, kv_len: 6, options, workspace };
    let good = decode(all);
    gpu.run(|r| record(r, &good.request())).expect("a right call");
    gpu.run(|r| record_decode(r, &good)).expect("a right call");
    for (options, want) in wrong {
        let of = |kernel: &str, error: Error| {
            let error = error.to_string();
            let starts = error.starts_with(&format!("{kernel}: "));
            assert!(starts && error.to_lowercase().contains(&want.to_lowercase()), "{error} is not {want}");
        };
        of("attention", gpu.run(|r| record(r, &decode(options).request())).expect_err(want));
        of("attention_decode", gpu.run(|r| record_decode(r, &decode(options))).expect_err(want));
    }
    let narrow = f32s(&[2, 3, 4, 20]);
    let error = gpu.run(|r| record_decode(r, &AttentionDecode { v: &odd, out: &narrow, ..good }));
    assert!(error.expect_err("odd").to_string().contains("v's head size Dv is 20"));
    let error = gpu.run(|r| record_decode(r, &AttentionDecode { workspace: &three, ..good }));
    assert!(error.expect_err("short").to_string().contains("merged_workspace_len"));
}

#[test]
fn wrong_calls_over_blocks_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let shape = KvShape { blocks: 4, kv_heads: 2, block: 8, d: 16, d_v: 24 };
    let cache = KvBlocks::new(&gpu, KvFormat::Int4, shape).expect("fits");
    let (q, out) = (f32s(&[2, 1, 4, 16]), f32s(&[2, 1, 4, 24]));
    let (table, one) =
        (gpu.tensor(&[2, 3], &[0u32; 6]).expect("fits"), gpu.tensor(&[1, 3], &[0u32; 3]).expect("fits"));
    let paged = |table, longest| Context::Paged { table, longest };
    let good = AttentionPaged {
        q: &q,
        cache: &cache,
        context: paged(&table, 16),
        out: &out,
        options: Options::causal(1.0),
        workspace: &f32s(&[0]),
    };
    gpu.run(|r| record_paged(r, &good)).expect("a right call");
    let (three, wide, five) = (f32s(&[2, 1, 3, 16]), f32s(&[2, 1, 4, 24]), f32s(&[5, 1, 4, 16]));
    let five_out = f32s(&[5, 1, 4, 24]);
    let other = KvBlocks { format: KvFormat::Int8, ..cache.clone() };
    let options = |options| AttentionPaged { options, ..good };
    let causal = Options::causal(1.0);
    let wrong = [
        (
            AttentionPaged { q: &three, ..good },
            "q's number of heads Hq is 3, needs a multiple of the cache's 2",
        ),
        (AttentionPaged { q: &wide, ..good }, "q's head size D is 24, needs the cache's 16"),
        (AttentionPaged { out: &q, ..good }, "out is [2, 1, 4, 16], needs [2, 1, 4, 24]"),
        (AttentionPaged { cache: &other, ..good }, "cache's k is [4, 2, 8, 2], needs [4, 2, 8, 4]"),
        (
            AttentionPaged { context: paged(&one, 16), ..good },
            "table is [1, 3], needs [2 or more, 1 + blocks]",
        ),
        (AttentionPaged { context: paged(&q, 16), ..good }, "table's dtype is F32"),
        (AttentionPaged { context: paged(&table, 17), ..good }, "longest = 17, must be at most the 16 rows"),
        (
            AttentionPaged { context: Context::Contiguous { kv_len: 9 }, ..good },
            "kv_len = 9, must be at most the 8",
        ),
        (
            AttentionPaged { q: &five, out: &five_out, context: Context::Contiguous { kv_len: 8 }, ..good },
            "number of sequences B is 5, needs at most the cache's 4 blocks",
        ),
        (options(Options { window: Some(0), ..causal }), "window = 0, must be at least 1"),
        (options(Options { window: Some(3), ..Options::full(1.0) }), "window = 3, must be None"),
        (options(Options { soft_cap: Some(0.0), ..causal }), "soft_cap = 0.0, must be positive"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_paged(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("attention_decode: ") && error.contains(want), "{error} is not {want}");
    }
}

/// What stands in a table is not known when a call is recorded; nothing outside of the cache may be touched.
#[test]
fn wild_tables_stay_inside() {
    let gpu = Gpu::new().expect("an adapter");
    let shape = KvShape { blocks: 2, kv_heads: 1, block: 8, d: 8, d_v: 8 };
    let cache = KvBlocks::new(&gpu, KvFormat::F32, shape).expect("fits");
    for (pool, value) in [(&cache.k, 0.5f32), (&cache.v, 3.0)] {
        gpu.write(pool, &[value.to_bits(); 128]).expect("as long");
    }
    // Longer than a line of the table, in blocks that do not exist.
    let table = gpu.tensor(&[1, 3], &[1_000_000u32, 77, u32::MAX]).expect("fits");
    let q = gpu.tensor(&[1, 1, 1, 8], &[1f32; 8]).expect("fits");
    let (out, workspace) =
        (gpu.alloc(DType::F32, &[1, 1, 1, 8]).expect("fits"), gpu.alloc(DType::F32, &[0]).expect("fits"));
    let (q, cache, out, workspace) = (&q, &cache, &out, &workspace);
    let (context, options) = (Context::Paged { table: &table, longest: 16 }, Options::causal(1.0));
    gpu.run(|r| record_paged(r, &AttentionPaged { q, cache, context, out, options, workspace }))
        .expect("runs");
    assert_eq!(gpu.read::<f32>(out).expect("reads"), [3.0; 8]);
}

#[test]
fn empty_calls_do_nothing() {
    let gpu = Gpu::new().expect("an adapter");
    let (q, kv) = (
        gpu.alloc(DType::F32, &[1, 0, 4, 16]).expect("fits"),
        gpu.alloc(DType::F32, &[1, 7, 2, 16]).expect("fits"),
    );
    let out = gpu.alloc(DType::F32, &[1, 0, 4, 16]).expect("fits");
    let (q, k, v, out, workspace) = (&q, &kv, &kv, &out, &kv);
    let request = AttentionDecode { q, k, v, out, kv_len: 7, options: Options::causal(1.0), workspace };
    gpu.run(|r| record_any(r, &request)).expect("nothing to do");
}

#[test]
fn indices_past_32_bits_are_refused() {
    assert!(within_u32("k", u64::from(u32::MAX)).is_ok());
    let error = within_u32("attention: k", 1 << 32).expect_err("too many").to_string();
    assert!(error.starts_with("attention: k: elements of a 32-bit index"), "{error}");
}

/// Of workgroups that merge what others have left, the last may be any.
#[test]
fn launches_without_a_pause_repeat_bit_for_bit() {
    let gpu = Gpu::new().expect("an adapter");
    let mut random = Random::new(3);
    let mut tensor = |shape: &[usize]| {
        let values: Vec<f16> =
            random.values(shape.iter().product(), DType::F16).into_iter().map(f16::from_f32).collect();
        gpu.tensor(shape, &values).expect("fits")
    };
    let (q, k, v) = (tensor(&[1, 1, 32, 128]), tensor(&[1, 3000, 8, 128]), tensor(&[1, 3000, 8, 128]));
    let workspace = gpu.alloc(DType::F32, &[workspace_len(&gpu, 1, 1, 32, 8, 128, 3000)]).expect("fits");
    let launches = if gpu.caps().device_type == wgpu::DeviceType::Cpu { 2 } else { 500 };
    // Of several lengths in turn, so that several numbers of splits share what is counted in.
    let lens = [3000, 700, 1999];
    let outs: Vec<Tensor> =
        (0..launches * lens.len()).map(|_| gpu.alloc(DType::F16, q.shape()).expect("fits")).collect();
    gpu.run(|r| {
        outs.iter().zip(lens.into_iter().cycle()).try_for_each(|(out, kv_len)| {
            let (q, k, v, workspace) = (&q, &k, &v, &workspace);
            let options = Options::causal(SCALE);
            record_decode(r, &AttentionDecode { q, k, v, out, kv_len, options, workspace })
        })
    })
    .expect("runs");
    let all: Vec<Vec<f16>> = outs.iter().map(|out| gpu.read(out).expect("reads")).collect();
    assert!(all[0].iter().any(|x| x.to_f32() != 0.0));
    for (i, out) in all.iter().enumerate() {
        assert!(*out == all[i % lens.len()], "launch {i} differs");
    }
}
