//! Wrong calls.

use super::{Dequant, record};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::matmul::Weight;
use crate::{DType, Error, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let packed =
        PackedMatrix::quantise(&[1.0; 96], 3, 32, Format::Int8, Group::Size(16), ScaleSearch::AbsMax)
            .expect("packs");
    let weight = Weight::upload(&gpu, &packed).expect("uploads");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let error = |request: Dequant<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(Dequant { weight: &weight, out: &make(DType::F32, &[3, 32]) }), "accepted");
    for (dtype, shape, want) in [
        (DType::U32, &[3, 32][..], "dequant: out's dtype is U32"),
        (DType::F32, &[32, 3], "dequant: out is [32, 3], needs [3, 32]"),
        (DType::F32, &[96], "dequant: out is [96], needs [3, 32]"),
    ] {
        let got = error(Dequant { weight: &weight, out: &make(dtype, shape) });
        assert!(got.contains(want), "{got} lacks {want}");
    }
    let odd = PackedMatrix::quantise(&[1.0; 33], 1, 33, Format::F16, Group::WholeK, ScaleSearch::AbsMax);
    let odd = Weight::upload(&gpu, &odd.expect("packs")).expect("uploads");
    let got = error(Dequant { weight: &odd, out: &make(DType::Bf16, &[1, 33]) });
    assert!(got.contains("out's columns is 33, needs an even number in bf16"), "{got}");
    let other = Gpu::new().expect("an adapter");
    let foreign = other.alloc(DType::F32, &[3, 32]).expect("allocates");
    let strange = Weight::upload(&other, &packed).expect("uploads");
    for (weight, out, argument) in
        [(&weight, &foreign, "out"), (&strange, &make(DType::F32, &[3, 32]), "weight")]
    {
        let error = gpu.run(|r| record(r, &Dequant { weight, out })).err();
        assert!(
            matches!(&error, Some(Error::ForeignTensor { kernel: "dequant", what }) if what == argument),
            "{error:?}"
        );
    }
}
