//! Wrong calls, and values that cannot be quantised.

use super::{Quantize, check, quantized, record, status};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::matmul::Weight;
use crate::{DType, Error, Gpu, Tensor};

fn gpu() -> Gpu {
    Gpu::new().expect("an adapter")
}

fn dense(gpu: &Gpu, values: &[f32], k: usize) -> Weight {
    let n = values.len() / k;
    let packed =
        PackedMatrix::quantise(values, n, k, Format::F32, Group::WholeK, ScaleSearch::AbsMax).expect("packs");
    Weight::upload(gpu, &packed).expect("uploads")
}

fn text<T>(result: Result<T, Error>) -> String {
    result.err().map_or("accepted".into(), |e| e.to_string())
}

#[test]
fn wrong_calls_name_the_argument() {
    let (gpu, other) = (gpu(), gpu());
    let values = dense(&gpu, &[1.0; 96], 32);
    let make = |format, n, group| Weight::alloc(&gpu, format, n, 32, group).expect("allocates");
    let out = make(Format::Fp4, 3, Group::Size(16));
    let good = status(&gpu).expect("allocates");
    let run = |values: &Weight, out: &Weight, status: &Tensor| {
        text(gpu.run(|r| record(r, &Quantize { values, out, status })))
    };
    assert_eq!(run(&values, &out, &good), "accepted");
    let floats = gpu.alloc(DType::F32, &[2]).expect("allocates");
    let strange = dense(&other, &[1.0; 96], 32);
    let far = Weight::alloc(&other, Format::Fp4, 3, 32, Group::WholeK).expect("allocates");
    for (got, want) in [
        (run(&out, &out, &good), "quantize: values' format = \"fp4\", must be f32, f16 or bf16"),
        (run(&values, &make(Format::Nf4, 3, Group::WholeK), &good), "quantize: out's format = \"nf4\""),
        (run(&values, &values, &good), "quantize: out's format = \"f32\""),
        (run(&values, &make(Format::Fp4, 4, Group::WholeK), &good), "quantize: values is [3, 32]"),
        (run(&values, &out, &floats), "quantize: status's dtype is F32"),
        (run(&values, &out, &status(&other).expect("allocates")), "quantize: status lives on another"),
        (run(&strange, &out, &good), "quantize: values lives on another"),
        (run(&values, &far, &good), "quantize: out lives on another"),
        (text(quantized(&gpu, &values, Format::Int4, Group::Size(24))), "Weight::alloc: group = 24"),
        (text(quantized(&gpu, &values, Format::Int4, Group::Size(64))), "Weight::alloc: group = 64"),
        (text(quantized(&gpu, &values, Format::Int8Zero, Group::WholeK)), "out's format = \"int8z\""),
        (text(Weight::alloc(&gpu, Format::Fp4, 0, 32, Group::WholeK)), "Weight::alloc: n is 0"),
        (text(Weight::alloc(&gpu, Format::Fp4, 3, 192, Group::Size(96))), "group = 96"),
    ] {
        assert!(got.contains(want), "{got} lacks {want}");
    }
}

/// What the host refuses is reported with the same place; the other groups are as they are without it.
#[test]
fn values_that_cannot_be_quantised() {
    let gpu = gpu();
    for format in super::FORMATS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.2e7, -3.0e38] {
            let mut values: Vec<f32> = (0..192).map(|i| (i as f32 * 0.7).sin()).collect();
            let good =
                quantized(&gpu, &dense(&gpu, &values, 64), format, Group::Size(16)).expect("quantises");
            values[64 + 21] = bad;
            values[128 + 3] = bad;
            let host =
                text(PackedMatrix::quantise(&values, 3, 64, format, Group::Size(16), ScaleSearch::AbsMax));
            assert!(host.contains("row 1, column 21"), "{format:?} {host}");
            // The packer of the host refuses such values even in f32.
            let raw = dense(&gpu, &[0.0; 192], 64);
            let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
            gpu.write(&raw.parts()[0].words, &bits).expect("writes");
            let out = Weight::alloc(&gpu, format, 3, 64, Group::Size(16)).expect("allocates");
            let status = status(&gpu).expect("allocates");
            gpu.run(|r| record(r, &Quantize { values: &raw, out: &out, status: &status })).expect("runs");
            let got = text(check(&gpu, &status, &out));
            assert!(got.starts_with("quantize: values at row 1, column 21 = "), "{format:?} {bad}: {got}");
            assert!(
                got.contains(if bad.abs() < f32::MAX { "small enough" } else { "finite" }),
                "{bad}: {got}"
            );
            let read = |weight: &Weight| gpu.read::<u32>(&weight.parts()[0].scales).expect("reads");
            let (good, got) = (read(&good), read(&out));
            // Scales 5 (row 1, columns 16..32) and 8 (row 2, columns 0..16) are 0.
            let want = good.iter().enumerate().map(|(i, &word)| match i {
                2 => word & 0xffff,
                4 => word & 0xffff_0000,
                _ => word,
            });
            assert_eq!(got, want.collect::<Vec<u32>>(), "{format:?} {bad}");
        }
    }
}
