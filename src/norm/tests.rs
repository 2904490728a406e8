//! Wrong calls.

use super::{LayerNorm, RmsNorm, record, record_layer};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (x, weight, out) = (make(DType::F32, &[2, 64]), make(DType::F32, &[64]), make(DType::F32, &[2, 64]));
    let good = RmsNorm::new(&x, &weight, &out, 1e-5);
    let error = |request: RmsNorm<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    assert_eq!(error(RmsNorm { unit_offset: true, out: &x, ..good }), "accepted");
    let whole = make(DType::F32, &[3, 64]);
    let view = |start| whole.rows_view(&gpu, start, 2).expect("aligned");
    for (request, want) in [
        (RmsNorm { weight: &out, ..good }, "rms_norm: weight is [2, 64], needs [64]"),
        (RmsNorm { out: &weight, ..good }, "rms_norm: out is [64], needs [2, 64]"),
        (RmsNorm { eps: -1.0, ..good }, "rms_norm: eps = -1"),
        (
            RmsNorm { residual: Some(&out), out: &x, ..good },
            "rms_norm: out is \"overlapping x\", needs memory of",
        ),
        (RmsNorm { x: &view(0), out: &view(1), ..good }, "needs x itself or memory of its own"),
        (RmsNorm { residual: Some(&x), ..good }, "x and residual"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
    let (x, weight, out) = (&x, &weight, &out);
    let good = LayerNorm { x, residual: None, weight, bias: Some(weight), out, eps: 1e-5 };
    let error = |request: LayerNorm<'_>| match gpu.run(|r| record_layer(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    for (request, want) in [
        (LayerNorm { weight: out, ..good }, "layer_norm: weight is [2, 64], needs [64]"),
        (LayerNorm { bias: Some(out), ..good }, "layer_norm: bias is [2, 64], needs [64]"),
        (LayerNorm { residual: Some(weight), ..good }, "layer_norm: residual is [64], needs [2, 64]"),
        (LayerNorm { eps: f32::NAN, ..good }, "layer_norm: eps = NaN"),
        (LayerNorm { x: &view(0), out: &view(1), ..good }, "layer_norm: out is \"overlapping x\""),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}
