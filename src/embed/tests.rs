//! Wrong calls.

use super::{Embed, record};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (ids, table, out) = (make(DType::U32, &[3]), make(DType::F32, &[5, 8]), make(DType::F32, &[3, 8]));
    let good = Embed { ids: &ids, table: &table, out: &out, scale: 1.0 };
    let error = |request: Embed<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    let floats = make(DType::F32, &[3]);
    let square = make(DType::U32, &[3, 1]);
    let cube = make(DType::F32, &[5, 2, 8]);
    let packed = make(DType::U32, &[5, 8]);
    let short = make(DType::F32, &[2, 8]);
    let ints = make(DType::I32, &[3, 8]);
    for (request, want) in [
        (Embed { ids: &floats, ..good }, "embed: ids's dtype is F32"),
        (Embed { ids: &square, ..good }, "embed: ids is [3, 1], needs [3]"),
        (Embed { table: &cube, ..good }, "embed: table is [5, 2, 8]"),
        (Embed { table: &packed, ..good }, "embed: out is [3, 8], needs [3, 16]"),
        (Embed { out: &short, ..good }, "embed: out is [2, 8], needs [3, 8]"),
        (Embed { out: &ints, ..good }, "embed: out's dtype is I32"),
        (Embed { scale: f32::NAN, ..good }, "embed: scale = NaN"),
        (Embed { table: &short, out: &short, ids: &make(DType::U32, &[2]), scale: 1.0 }, "one buffer"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
    // No tokens, or no columns: nothing to do, and no error.
    let none = make(DType::U32, &[0]);
    let empty = make(DType::F32, &[0, 8]);
    assert_eq!(error(Embed { ids: &none, out: &empty, ..good }), "accepted");
}
