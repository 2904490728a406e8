//! Wrong calls.

use super::{Softmax, record};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (x, out) = (make(DType::F32, &[2, 3, 64]), make(DType::F32, &[2, 3, 64]));
    let good = Softmax { x: &x, out: &out, scale: 1.0 };
    let error = |request: Softmax<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    assert_eq!(error(Softmax { out: &x, ..good }), "accepted");
    let empty = make(DType::F32, &[5, 0]);
    assert_eq!(error(Softmax { x: &empty, out: &empty, scale: 1.0 }), "accepted");
    let ints = make(DType::I32, &[2, 3, 64]);
    let halves = make(DType::F16, &[2, 3, 64]);
    let flat = make(DType::F32, &[6, 64]);
    let view = |start| flat.rows_view(&gpu, start, 5).expect("aligned");
    for (request, want) in [
        (Softmax { x: &ints, ..good }, "softmax: x's dtype is I32"),
        (Softmax { out: &halves, ..good }, "softmax: out's dtype is F16"),
        (Softmax { out: &flat, ..good }, "softmax: out is [6, 64], needs [2, 3, 64]"),
        (Softmax { scale: f32::NAN, ..good }, "softmax: scale = NaN"),
        (Softmax { x: &view(0), out: &view(1), scale: 1.0 }, "softmax: out is \"a part of x\""),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}
