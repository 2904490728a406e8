//! A decoding step against prefill, and wrong calls.

use super::*;
use crate::Gpu;
use crate::kernel::Random;
use crate::kv::{KvFormat, KvShape};

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const D: usize = 32;
const WIDTH: usize = 2 * D;
/// Queries and keys of the tests.
const LEN: usize = 20;

struct Operands {
    gpu: Gpu,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    vectors: Vec<Tensor>,
    queries: Tensor,
    parts: Tensor,
    workspace: Tensor,
}

fn operands() -> Operands {
    let gpu = Gpu::new().expect("an adapter");
    let mut random = Random::new(3);
    let mut tensor = |shape: &[usize]| {
        gpu.tensor(shape, &random.values(shape.iter().product(), DType::F32)).expect("fits")
    };
    let (q, k) = (tensor(&[1, LEN, HEADS, 2, D]), tensor(&[1, LEN, KV_HEADS, 2, D]));
    let (v, vectors) = (tensor(&[1, LEN, KV_HEADS, WIDTH]), (0..4).map(|_| tensor(&[D])).collect());
    let rows = LEN * 2 * HEADS;
    let (queries, parts) = (tensor(&[rows, WIDTH]), tensor(&[rows * WIDTH]));
    let room = attention::workspace_len(&gpu, 1, 8, 2 * HEADS, KV_HEADS, WIDTH, LEN);
    let workspace = tensor(&[room.max(4)]);
    Operands { gpu, q, k, v, vectors, queries, parts, workspace }
}

impl Operands {
    fn request<'a>(&'a self, q: &'a Tensor, out: &'a Tensor, kv_len: usize) -> AttentionDiff<'a> {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &self.vectors[i]);
        let norm = Some(SubNorm { weight: None, eps: 1e-5 });
        let lambda = Lambda::Learned { q: [a, b], k: [c, d], init: 0.2 };
        AttentionDiff {
            q,
            k: &self.k,
            v: &self.v,
            out,
            kv_len,
            options: Options::causal(0.2),
            difference: Difference { lambda, norm, factor: 0.8 },
            scratch: Scratch { queries: &self.queries, parts: &self.parts, workspace: &self.workspace },
        }
    }
}

#[test]
fn a_decoding_step_is_a_row_of_prefill() {
    let o = operands();
    let out = |sq| o.gpu.alloc(DType::F32, &[1, sq, HEADS, WIDTH]).expect("fits");
    let all = out(LEN);
    o.gpu.run(|r| record(r, &o.request(&o.q, &all, LEN))).expect("runs");
    let all = o.gpu.read::<f32>(&all).expect("reads");
    let flat = o.q.reshape(&[LEN, HEADS, 2, D]).expect("reshapes");
    for n in [0, 7, LEN - 1] {
        let one = out(1);
        let q = flat.rows_view(&o.gpu, n, 1).and_then(|q| q.reshape(&[1, 1, HEADS, 2, D])).expect("aligned");
        o.gpu.run(|r| record(r, &o.request(&q, &one, n + 1))).expect("runs");
        let one = o.gpu.read::<f32>(&one).expect("reads");
        let row = &all[n * HEADS * WIDTH..][..HEADS * WIDTH];
        assert!(one.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-4), "token {n}");
    }
}

#[test]
fn wrong_calls_name_the_argument() {
    let o = operands();
    let gpu = &o.gpu;
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let f32s = |shape: &[usize]| make(DType::F32, shape);
    let out = f32s(&[1, LEN, HEADS, WIDTH]);
    let good = o.request(&o.q, &out, LEN);
    let text = |result: Result<()>| result.map_or_else(|e| e.to_string(), |()| "accepted".to_string());
    let error = |request: AttentionDiff<'_>| text(gpu.run(|r| record(r, &request)));
    assert_eq!(error(good), "accepted");
    let (short, long) = (f32s(&[D - 4]), f32s(&[HEADS + 1]));
    let with = |difference| AttentionDiff { difference, ..good };
    let Difference { lambda, .. } = good.difference;
    let learned = |init, last| {
        let vectors = &o.vectors;
        let lambda = Lambda::Learned { q: [&vectors[0]; 2], k: [&vectors[0], last], init };
        with(Difference { lambda, ..good.difference })
    };
    let norm = |weight, eps| with(Difference { norm: Some(SubNorm { weight, eps }), ..good.difference });
    let scratch =
        |queries, parts| AttentionDiff { scratch: Scratch { queries, parts, ..good.scratch }, ..good };
    let options = |options| AttentionDiff { options, ..good };
    let (queries, parts) = (&o.queries, &o.parts);
    let halves = make(DType::F16, &[LEN * 2 * HEADS * WIDTH]);
    for (request, want) in [
        (AttentionDiff { q: &out, ..good }, "attention_diff: q is [1, 20, 4, 64], needs [B, Sq, Hq, 2, D]"),
        (AttentionDiff { q: &f32s(&[1, 2, 4, 2, 132]), ..good }, "attention_diff: q's head size D is 132"),
        (AttentionDiff { q: &f32s(&[1, 2, 4, 2, 6]), ..good }, "attention_diff: q's head size D is 6"),
        (AttentionDiff { k: &o.v, ..good }, "attention_diff: k is [1, 20, 2, 64], needs [B, C, Hkv, 2, D]"),
        (
            AttentionDiff { k: &f32s(&[1, 9, 2, 2, 16]), ..good },
            "attention_diff: k is [1, 9, 2, 2, 16], needs",
        ),
        (AttentionDiff { v: &f32s(&[1, 9, 2, 64]), ..good }, "attention_diff: v is [1, 9, 2, 64], needs"),
        (
            AttentionDiff { out: &o.q, ..good },
            "attention_diff: out is [1, 20, 4, 2, 32], needs [1, 20, 4, 64]",
        ),
        (AttentionDiff { kv_len: LEN + 1, ..good }, "kv_len = 21"),
        (
            AttentionDiff { q: &f32s(&[1, 20, 3, 2, 32]), out: &f32s(&[1, 20, 3, 64]), ..good },
            "attention_diff: q's heads is 3, needs a multiple of the 2 of k and v",
        ),
        (
            AttentionDiff { k: &f32s(&[1, 20, 3, 2, 32]), v: &f32s(&[1, 20, 3, 64]), ..good },
            "q's heads is 4, needs a multiple of the 3",
        ),
        (options(Options { window: Some(0), ..good.options }), "window = 0"),
        (options(Options { sinks: Some(&f32s(&[HEADS])), ..good.options }), "sinks is [4], needs [8]"),
        (
            scratch(&short, parts),
            "attention_diff: scratch.queries's length is 28, needs at least 10240 elements",
        ),
        (
            scratch(queries, &short),
            "attention_diff: scratch.parts's length is 28, needs at least 10240 elements",
        ),
        (scratch(queries, &halves), "attention_diff: scratch.parts's dtype is F16"),
        (scratch(queries, queries), "one buffer"),
        (learned(f32::NAN, &o.vectors[1]), "attention_diff: lambda.init = NaN"),
        (learned(0.2, &short), "attention_diff: lambda.k[1] is [28], needs [32]"),
        (
            with(Difference { lambda: Lambda::Given(&long), ..good.difference }),
            "attention_diff: lambda is [5]",
        ),
        (with(Difference { lambda, factor: f32::INFINITY, norm: None }), "attention_diff: factor = inf"),
        (norm(None, -1.0), "attention_diff: norm.eps = -1"),
        (norm(Some(&short), 1e-5), "attention_diff: norm.weight is [28], needs [64]"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
    let shape = KvShape { blocks: 3, kv_heads: KV_HEADS, block: 8, d: D, d_v: WIDTH };
    let cache = &KvBlocks::new(gpu, KvFormat::F32, shape).expect("fits");
    let AttentionDiff { q, out, options, difference, scratch, .. } = good;
    let context = Context::Contiguous { kv_len: 8 };
    let request = AttentionDiffPaged { q, cache, context, out, options, difference, scratch };
    let got = text(gpu.run(|r| record_paged(r, &request)));
    assert!(got.contains("attention_diff: cache's width of keys is 32, needs 64, twice that"), "{got}");
}
