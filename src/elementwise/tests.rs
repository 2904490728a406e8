//! Wrong calls.

use super::{Elementwise, Op, record};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (a, b, out) = (make(DType::F32, &[2, 128]), make(DType::F32, &[2, 128]), make(DType::F32, &[2, 128]));
    let good = Elementwise { a: &a, op: Op::Add(&b), out: &out };
    let error = |request: Elementwise<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    assert_eq!(error(Elementwise { out: &a, ..good }), "accepted");
    assert_eq!(error(Elementwise { out: &b, ..good }), "accepted");
    assert_eq!(error(Elementwise { a: &a, op: Op::Mul(&a), out: &a }), "accepted");
    let halves = make(DType::F16, &[2, 128]);
    let ints = make(DType::I32, &[2, 128]);
    let turned = make(DType::F32, &[128, 2]);
    let whole = make(DType::F32, &[4, 128]);
    let view = |start| whole.rows_view(&gpu, start, 2).expect("aligned");
    for (request, want) in [
        (Elementwise { a: &ints, ..good }, "elementwise: a's dtype is I32"),
        (Elementwise { op: Op::Mul(&halves), ..good }, "elementwise: b's dtype is F16"),
        (Elementwise { op: Op::Add(&turned), ..good }, "elementwise: b is [128, 2], needs [2, 128]"),
        (Elementwise { out: &halves, ..good }, "elementwise: out's dtype is F16"),
        (Elementwise { op: Op::ScaledCopy(1.0), out: &ints, ..good }, "elementwise: out's dtype is I32"),
        (Elementwise { out: &turned, ..good }, "elementwise: out is [128, 2]"),
        (Elementwise { op: Op::ScaledCopy(f32::NAN), ..good }, "elementwise: scale = NaN"),
        (Elementwise { op: Op::SoftCap(0.0), ..good }, "elementwise: cap = 0"),
        (Elementwise { op: Op::SoftCap(-1.0), ..good }, "elementwise: cap = -1"),
        (Elementwise { op: Op::SoftCap(f32::INFINITY), ..good }, "elementwise: cap = inf"),
        (Elementwise { op: Op::SoftCap(1.0), out: &halves, ..good }, "elementwise: out's dtype is F16"),
        (Elementwise { a: &view(0), out: &view(1), ..good }, "elementwise: out is \"a part of an input\""),
        (Elementwise { op: Op::Add(&view(0)), out: &view(1), ..good }, "needs b itself or apart"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}
