//! Wrong calls, and values that cannot be quantised.

use half::{bf16, f16};

use super::{Quantize, check, quantized, record, status};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::matmul::{self, Linear, Weight};
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

/// What a product may assume of a weight's scales ends when others are written.
#[test]
fn scales_are_small_until_they_are_written() {
    let gpu = gpu();
    let pack = |scale: f32| {
        let values = [6.0 * scale; 64];
        PackedMatrix::quantise(&values, 2, 32, Format::Fp4, Group::Size(32), ScaleSearch::AbsMax)
            .expect("packs")
    };
    let upload = |scale| Weight::upload(&gpu, &pack(scale)).expect("uploads");
    assert_eq!([0.01, 3.99, 4.0].map(|scale| upload(scale).small_scales()), [true, true, false]);
    let weight = upload(0.5);
    let clone = weight.clone();
    let (values, status) = (dense(&gpu, &[100.0; 64], 32), status(&gpu).expect("allocates"));
    gpu.run(|r| record(r, &Quantize { values: &values, out: &weight, status: &status })).expect("runs");
    assert!(!clone.small_scales());
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
            // Two equals in a group: the first counts.
            values[64 + 21] = bad;
            values[64 + 30] = -bad;
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

/// Tensors on the GPU quantise as the same values uploaded, in parts or whole, and serve products themselves.
#[test]
fn tensors_as_weights() {
    let gpu = gpu();
    let (n, k) = (37, 48);
    let values: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect();
    for (format, dtype) in [(Format::F32, DType::F32), (Format::F16, DType::F16), (Format::Bf16, DType::Bf16)]
    {
        let packed =
            PackedMatrix::quantise(&values, n, k, format, Group::WholeK, ScaleSearch::AbsMax).expect("packs");
        let tensor = match dtype {
            DType::F32 => gpu.tensor(&[n, k], &packed.unpack()),
            DType::F16 => {
                let halves: Vec<f16> = packed.unpack().into_iter().map(f16::from_f32).collect();
                gpu.tensor(&[n, k], &halves)
            }
            _ => gpu.tensor(&[n, k], bytemuck::cast_slice::<u32, bf16>(&packed.words)),
        }
        .expect("allocates");
        let uploaded = Weight::upload(&gpu, &packed).expect("uploads");
        for max_bytes in [u64::MAX, 3000] {
            let weight = Weight::from_tensor_in_parts(&gpu, format, &tensor, max_bytes).expect("views");
            assert_eq!((weight.n(), weight.k(), weight.bytes()), (n, k, uploaded.bytes()));
            assert_eq!(weight.parts().len() > 1, max_bytes == 3000);
            for to in super::FORMATS {
                let read = |from: &Weight| {
                    let made = quantized(&gpu, from, to, Group::Size(16)).expect("quantises");
                    let [part] = made.parts() else { panic!("one part") };
                    [&part.words, &part.scales].map(|words| gpu.read::<u32>(words).expect("reads"))
                };
                assert_eq!(read(&weight), read(&uploaded), "{format:?} to {to:?}");
            }
            let a = gpu.tensor(&[1, k], &vec![1.0f32; k]).expect("allocates");
            let product = |weight: &Weight| {
                let out = gpu.alloc(DType::F32, &[1, n]).expect("allocates");
                gpu.run(|r| matmul::record(r, &Linear::new(&a, weight, &out))).expect("runs");
                gpu.read::<f32>(&out).expect("reads")
            };
            assert_eq!(product(&weight), product(&uploaded), "{format:?}");
        }
    }
}

#[test]
fn tensors_that_are_no_weights() {
    let (gpu, other) = (gpu(), gpu());
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let view = |format, tensor: &Tensor| text(Weight::from_tensor(&gpu, format, tensor));
    assert_eq!(view(Format::F32, &make(DType::F32, &[3, 8])), "accepted");
    let far = other.alloc(DType::F32, &[3, 8]).expect("allocates");
    for (got, want) in [
        (view(Format::Fp4, &make(DType::U32, &[3, 8])), "format = \"fp4\", must be f32, f16 or bf16"),
        (view(Format::F16, &make(DType::F32, &[3, 8])), "values's dtype is F32"),
        (view(Format::Bf16, &make(DType::F16, &[3, 8])), "values's dtype is F16"),
        (view(Format::F32, &make(DType::F32, &[24])), "values is [24], needs two dimensions"),
        (view(Format::F32, &make(DType::F32, &[3, 12])), "values is [3, 12], needs rows of a multiple of 32"),
        (view(Format::F16, &make(DType::F16, &[3, 8])), "values is [3, 8], needs rows"),
        (view(Format::F32, &make(DType::F32, &[0, 8])), "values is [0, 8], needs rows"),
        (view(Format::F32, &make(DType::F32, &[3, 0])), "values is [3, 0], needs rows"),
        (view(Format::F32, &far), "Weight::from_tensor: values lives on another"),
    ] {
        assert!(got.contains(want), "{got} lacks {want}");
    }
}

#[test]
fn halves_that_are_no_numbers() {
    let gpu = gpu();
    for (format, codes) in
        [(Format::F16, [0x7c00u16, 0xfc00, 0x7c01, 0xffff]), (Format::Bf16, [0x7f80, 0xff80, 0x7f81, 0xffff])]
    {
        for code in codes {
            let mut halves = vec![f16::ZERO; 64];
            halves[43] = f16::from_bits(code);
            let tensor = match format {
                Format::F16 => gpu.tensor(&[2, 32], &halves),
                _ => gpu.tensor(&[2, 32], bytemuck::cast_slice::<f16, bf16>(&halves)),
            };
            let values = Weight::from_tensor(&gpu, format, &tensor.expect("allocates")).expect("views");
            for to in super::FORMATS {
                let got = text(quantized(&gpu, &values, to, Group::Size(16)));
                assert!(got.contains("values at row 1, column 11 = "), "{format:?} {code:x} {to:?}: {got}");
                assert!(got.contains("not finite"), "{got}");
            }
        }
    }
}
