//! Cases at the borders: of tiles and of their choice, of parameters, of sizes.

use half::f16;

use super::cases::{Spec, pack};
use super::{Activation, Linear, Weight, cpu, record_with};
use crate::error::Error;
use crate::format::{Format, Group, PackedMatrix, ScaleFormat};
use crate::kernel::{Case, Check, Cost, KernelSpec, Level, Prepared, Random, Recorder, Rule};
use crate::tensor::DType;
use Level::Full;

/// Rows on both sides of where `tiles.rs` changes tiles, and N and K on both sides of tiles, steps and packets.
const BORDERS: [(usize, usize, usize); 15] = [
    (31, 70, 136),
    (32, 70, 136),
    (47, 70, 136),
    (48, 70, 136),
    (95, 66, 136),
    (96, 66, 136),
    (127, 66, 72),
    (128, 66, 72),
    (129, 66, 72),
    (9, 31, 63),
    (12, 33, 65),
    (10, 63, 127),
    (17, 128, 128),
    (11, 129, 129),
    (14, 127, 255),
];

/// What the tiled kernels must also do, for dense or quantised formats.
pub(super) fn tiled(spec: &'static KernelSpec, formats: &[Format]) -> Vec<Spec> {
    let new = |format, shape| Spec::new(spec, Full, format, DType::F16, shape);
    let mut all = Vec::new();
    for &format in formats.iter().filter(|f| matches!(f, Format::F16 | Format::Fp4 | Format::Int4Zero)) {
        all.extend(BORDERS.map(|shape| new(format, shape)));
        all.push(new(format, (9, 20, 28672)));
        all.push(new(format, (0, 24, 64)));
    }
    // The Coop tier holds weights as halves, so the largest weight is the largest half.
    for (format, top) in scaled(formats) {
        let most = f16::from_f32(65504.0 / top);
        let most = if most.to_f32() * top > 65504.0 { f16::from_bits(most.to_bits() - 1) } else { most };
        // Below this the values of a codebook would be subnormal halves, of fewer bits; codes are not.
        let least = if top == 1.0 { f16::from_f32(1.0 / 1024.0) } else { f16::MIN_POSITIVE };
        for scale in [most, least] {
            let to_f32 = (DType::F16, DType::F32);
            all.push(Spec { scales: Some(scale), dtypes: to_f32, ..new(format, (18, 34, 96)) });
        }
    }
    all
}

/// And those for few rows.
pub(super) fn few(spec: &'static KernelSpec) -> Vec<Spec> {
    let new = |format, dtype, shape| Spec::new(spec, Full, format, dtype, shape);
    let mut all = Vec::new();
    for (format, dtype) in
        [(Format::Fp4, DType::F16), (Format::Int4Zero, DType::F32), (Format::F16, DType::Bf16)]
    {
        all.push(new(format, dtype, (1, 6, 28672)));
        all.push(new(format, dtype, (0, 24, 64)));
    }
    for (format, _) in scaled(Format::ALL) {
        for (scale, dtype) in [(f16::MAX, DType::F16), (f16::from_bits(1), DType::F32)] {
            all.push(Spec {
                scales: Some(scale),
                dtypes: (dtype, DType::F32),
                ..new(format, dtype, (2, 18, 96))
            });
        }
    }
    all
}

/// The formats with f16 scales, with the largest magnitude of a code less its zero point.
fn scaled(formats: &[Format]) -> impl Iterator<Item = (Format, f32)> {
    formats.iter().filter(|f| f.scales() == ScaleFormat::F16).map(|&format| {
        let top = match format {
            Format::Fp4 => 6.0,
            Format::Int4 => 8.0,
            Format::Int8 => 128.0,
            Format::E4m3 => 448.0,
            Format::E5m2 => 57344.0,
            Format::Int3 => 4.0,
            Format::Int2 => 2.0,
            Format::Nf4 | Format::Nf3 => 1.0,
            _ => (1 << format.bits()) as f32 + 0.5,
        };
        (format, top)
    })
}

/// Gives every group this scale, and zero points at both ends of the codes, between two codes, and outside.
pub(super) fn put_scales(matrix: &mut PackedMatrix, scale: f16) {
    matrix.scales.fill(scale);
    let top = ((1u32 << matrix.format.bits().min(8)) - 1) as f32;
    let zeros = [0.0, top, 7.3125, -1.5].map(f16::from_f32);
    matrix.zeros.iter_mut().zip(zeros.into_iter().cycle()).for_each(|(zero, value)| *zero = value);
}

/// A weight of more than 2 GiB, which no binding may be: in parts. For GPUs with memory of their own.
pub(super) fn over_two_gib(spec: &'static KernelSpec) -> Case {
    const K: usize = 4096;
    const N: usize = 1_100_000;
    let label = format!("1×{K}→{N} fp4 g32, 2.3 GB");
    Case::new(Full, "f16", label, move |gpu, copies| {
        let device = gpu.caps().device_type;
        if device != wgpu::DeviceType::DiscreteGpu {
            let need = "a GPU with memory of its own".into();
            return Err(Error::Unsupported { what: spec.name.into(), need, have: format!("{device:?}") });
        }
        let mut random = Random::new(41);
        let a = random.values(K, DType::F16);
        let a_gpu = gpu.floats(DType::F16, &[1, K], &a)?;
        // Random codes, which are quicker to make than quantised values.
        let matrix = pack(&mut random, N, K, Format::Fp4, Group::Size(32), Level::Perf)?;
        let at: Vec<usize> = (0..256).map(|_| random.below(N)).chain([0, N - 1]).collect();
        let row = |i: usize| PackedMatrix {
            n: 1,
            words: matrix.words[i * matrix.row_words..][..matrix.row_words].to_vec(),
            scales: matrix.scales[i * matrix.groups()..][..matrix.groups()].to_vec(),
            zeros: Vec::new(),
            scale_bytes: Vec::new(),
            tensor_scales: Vec::new(),
            ..matrix
        };
        let rows: Vec<f32> = at.iter().flat_map(|&i| row(i).unpack()).collect();
        let weight = Weight::upload(gpu, &matrix)?;
        let cost = Cost { bytes: weight.bytes(), flops: 2 * (N * K) as u64 };
        Prepared::sets(copies, cost, || {
            let (weight, a_gpu) = (weight.clone(), a_gpu.clone());
            let out = gpu.output(DType::F32, &[1, N])?;
            let (a, rows, count) = (a.clone(), rows.clone(), at.len());
            let want = move || {
                let a: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
                let all: Vec<usize> = (0..count).collect();
                cpu::linear((&a, &rows), (count, K), None, Activation::None, None, &all)
            };
            let check = Check::new("out", &out, Rule::Normalised(1e-5), want).at(at.clone());
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                record_with(recorder, spec, &Linear::new(&a_gpu, &weight, &out))
            };
            Ok((launch, vec![check]))
        })
    })
}
