//! Wrong calls.

use super::{Argmax, record};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (logits, index) = (make(DType::F32, &[3, 7]), make(DType::U32, &[3]));
    let good = Argmax { logits: &logits, index: &index };
    let error = |request: Argmax<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    let ints = make(DType::U32, &[3, 7]);
    let cube = make(DType::F32, &[3, 1, 7]);
    let empty = make(DType::F32, &[3, 0]);
    let long = make(DType::U32, &[4]);
    for (request, want) in [
        (Argmax { logits: &ints, ..good }, "argmax: logits's dtype is U32"),
        (Argmax { logits: &cube, ..good }, "argmax: logits is [3, 1, 7], needs [3, 7]"),
        (Argmax { logits: &empty, ..good }, "argmax: logits is [3, 0], needs at least one column"),
        (Argmax { index: &long, ..good }, "argmax: index is [4], needs [3]"),
        (Argmax { index: &logits, ..good }, "argmax: index's dtype is F32"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}
