//! Wrong calls.

use super::*;

#[test]
fn wrong_calls_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let shape = KvShape { blocks: 2, kv_heads: 2, block: 8, d: 16, d_v: 8 };
    let cache = KvBlocks::new(&gpu, KvFormat::Int8, shape).expect("fits");
    assert_eq!(cache.bytes(), 2 * 2 * 8 * (16 + 8 + 4));
    let (k, v) = (make(DType::F32, &[3, 2, 16]), make(DType::F32, &[3, 2, 8]));
    let (slots, floats) = (gpu.tensor(&[3], &[0u32, 9, 4]).expect("fits"), make(DType::F32, &[3]));
    let good = KvWrite { k: &k, v: &v, slots: &slots, cache: &cache };
    gpu.run(|r| record(r, &good)).expect("a right call");
    let half = make(DType::F16, &[3, 2, 8]);
    let other = KvBlocks { format: KvFormat::Fp4, ..cache.clone() };
    // The fields are public.
    let of = |shape| KvBlocks { shape, ..cache.clone() };
    let (headless, odd) = (of(KvShape { kv_heads: 0, ..shape }), of(KvShape { d_v: 12, ..shape }));
    let square = KvBlocks::new(&gpu, KvFormat::Int8, KvShape { d: 8, ..shape }).expect("fits");
    let twice = KvBlocks { v: square.k.clone(), ..square };
    let wrong = [
        (KvWrite { cache: &headless, ..good }, "kv_heads is 0"),
        (KvWrite { cache: &odd, ..good }, "d_v is 12"),
        (KvWrite { k: &v, cache: &twice, ..good }, "cache's k, v and scales is \"memory in common\""),
        (KvWrite { k: &v, ..good }, "k is [3, 2, 8], needs [3, 2, 16]"),
        (KvWrite { k: &slots, ..good }, "k's dtype is U32"),
        (KvWrite { v: &k, ..good }, "v is [3, 2, 16], needs [3, 2, 8]"),
        (KvWrite { v: &half, ..good }, "v's dtype is F16"),
        (KvWrite { slots: &floats, ..good }, "slots's dtype is F32"),
        (KvWrite { cache: &other, ..good }, "cache's k is [2, 2, 8, 4], needs [2, 2, 8, 2]"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("kv_write: ") && error.contains(want), "{error} is not {want}");
    }
    let wrong = [
        (KvShape { d: 12, ..shape }, "d is 12"),
        (KvShape { d_v: 264, ..shape }, "d_v is 264"),
        (KvShape { block: 12, ..shape }, "block is 12"),
        (KvShape { kv_heads: 0, ..shape }, "kv_heads is 0"),
        (KvShape { blocks: usize::MAX, ..shape }, "words of K or V"),
    ];
    for (shape, want) in wrong {
        let error = KvBlocks::new(&gpu, KvFormat::F16, shape).expect_err(want).to_string();
        assert!(error.starts_with("KvBlocks: ") && error.contains(want), "{error} is not {want}");
    }
}

#[test]
fn wrong_moves_are_named() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("fits");
    let shape = KvShape { blocks: 2, kv_heads: 2, block: 8, d: 16, d_v: 8 };
    let cache = &KvBlocks::new(&gpu, KvFormat::Int8, shape).expect("fits");
    let (path, table) = (make(DType::U32, &[2, 3]), make(DType::U32, &[2, 2]));
    let context = Context::Contiguous { kv_len: 8 };
    let good = KvMove { path: &path, context, cache };
    gpu.run(|r| record_move(r, &good)).expect("a right call");
    let none = make(DType::U32, &[2, 0]);
    gpu.run(|r| record_move(r, &KvMove { path: &none, ..good })).expect("nothing to do");
    let (floats, long) = (make(DType::F32, &[2, 3]), make(DType::U32, &[3, 3]));
    let other = &KvBlocks { format: KvFormat::Fp4, ..cache.clone() };
    let wrong = [
        (KvMove { path: &floats, ..good }, "path's dtype is F32"),
        (KvMove { path: &make(DType::U32, &[6]), ..good }, "path is [6], needs [B, nodes]"),
        (KvMove { path: &long, ..good }, "number of sequences B is 3, needs at most the cache's 2"),
        (KvMove { context: Context::Contiguous { kv_len: 2 }, ..good }, "= 2, must be at least the 3 nodes"),
        (KvMove { context: Context::Contiguous { kv_len: 9 }, ..good }, "kv_len = 9"),
        (KvMove { context: Context::Paged { table: &table, longest: 9 }, ..good }, "longest = 9"),
        (KvMove { context: Context::Paged { table: &long, longest: 2 }, ..good }, "= 2, must be at least"),
        (KvMove { cache: other, ..good }, "cache's k is [2, 2, 8, 4], needs [2, 2, 8, 2]"),
    ];
    for (request, want) in wrong {
        let error = gpu.run(|r| record_move(r, &request)).expect_err(want).to_string();
        assert!(error.starts_with("kv_move: ") && error.contains(want), "{error} is not {want}");
    }
}

#[test]
fn nothing_to_write_is_nothing() {
    let gpu = Gpu::new().expect("an adapter");
    let shape = KvShape { blocks: 1, kv_heads: 1, block: 8, d: 8, d_v: 8 };
    let cache = &KvBlocks::new(&gpu, KvFormat::F16, shape).expect("fits");
    let rows = &gpu.alloc(DType::F32, &[0, 1, 8]).expect("fits");
    let slots = &gpu.alloc(DType::U32, &[0]).expect("fits");
    gpu.run(|r| record(r, &KvWrite { k: rows, v: rows, slots, cache })).expect("nothing to do");
}
