//! Cases of the products with more fused into them.

use super::cases::{EPS, FLOATS, Spec, pack, places};
use super::fragment_cases::long_rows;
use super::fused::qkv_with;
use super::{
    Activation, NORM_GATE_UP_GEMV, NORM_QGEMV, NORM_QKV_GEMV, Norm, QKV, QKV_GEMV, Qkv, Weight, cpu,
};
use crate::format::{Format, Group};
use crate::kernel::{Case, Check, Cost, KernelSpec, Level, Prepared, Random};
use crate::tensor::DType;
use Level::{Full, Perf, Quick};

/// Formats of the quick cases.
const FEW: [Format; 3] = [Format::F16, Format::Fp4, Format::Int4];

/// All shapes for some formats in both dtypes, the first of them for all formats.
fn each(
    spec: &'static KernelSpec,
    quick: &[(usize, usize, usize)],
    full: &[(usize, usize, usize)],
) -> Vec<Spec> {
    let mut all = Vec::new();
    for dtype in FLOATS {
        for format in FEW {
            all.extend(quick.iter().map(|&shape| Spec::new(spec, Quick, format, dtype, shape)));
            all.extend(full.iter().map(|&shape| Spec::new(spec, Full, format, dtype, shape)));
        }
    }
    let rest = Format::ALL.iter().filter(|f| !FEW.contains(f));
    all.extend(rest.map(|&format| Spec::new(spec, Full, format, DType::F16, full[0])));
    // Each of the three outputs of `qkv` has an even width.
    let (m, _, _) = quick[0];
    for (format, k) in FEW.into_iter().zip([64, 104, 33]) {
        all.push(Spec::new(spec, Full, format, DType::Bf16, (m, 24, k)));
    }
    all
}

/// Every number of rows, ragged and padded K, rows shorter than a packet and longer than a step of all threads.
const GEMV: [(usize, usize, usize); 8] = [
    (1, 33, 96),
    (1, 3, 8),
    (2, 9, 31),
    (3, 17, 1000),
    (4, 20, 4160),
    (5, 3, 33),
    (7, 12, 2080),
    (8, 70, 160),
];

/// More than 65535 workgroups, and a weight in parts.
fn more(spec: &'static KernelSpec) -> [Spec; 2] {
    let folded = Spec::new(spec, Full, Format::Int4, DType::F32, (1, 530_000, 16));
    let parts = Spec::new(spec, Full, Format::Fp4, DType::F32, (2, 130, 64));
    [Spec { group: Group::WholeK, ..folded }, Spec { part_bytes: 4096, bias: true, ..parts }]
}

pub(super) fn norm_qgemv() -> Vec<Case> {
    let spec = &NORM_QGEMV;
    let mut all = each(spec, &[(1, 24, 64)], &GEMV);
    all.extend(more(spec));
    for dtype in FLOATS {
        let new = |shape| Spec::new(spec, Full, Format::Fp4, dtype, shape);
        let other = FLOATS.into_iter().find(|d| *d != dtype).unwrap_or(dtype);
        all.push(Spec { dtypes: (dtype, other), ..new((3, 20, 64)) });
        all.push(Spec { scale: 2.5, bias: true, residual: true, out_row: 2, ..new((2, 21, 64)) });
        all.push(Spec { activation: Activation::GeluTanh, scale: 0.1, ..new((2, 20, 64)) });
        all.push(Spec { group: Group::Size(16), ..new((3, 20, 256)) });
    }
    for shape in [(1, 4096, 4096), (1, 14336, 4096)] {
        all.push(Spec::new(spec, Perf, Format::Fp4, DType::F16, shape));
    }
    let normed = |s: Spec| Spec { norm: true, ..s };
    all.into_iter().filter(Spec::legal).map(normed).map(Spec::into_case).collect()
}

pub(super) fn norm_gate_up_gemv() -> Vec<Case> {
    let spec = &NORM_GATE_UP_GEMV;
    let mut all = each(spec, &[(1, 24, 64)], &GEMV);
    let parts = Spec::new(spec, Full, Format::Fp4, DType::F32, (2, 130, 64));
    all.push(Spec { part_bytes: 4096, ..parts });
    all.push(Spec::new(spec, Perf, Format::Fp4, DType::F16, (1, 14336, 4096)));
    let finish = |s: Spec| Spec { norm: true, activation: Activation::Silu, ..s };
    all.into_iter().filter(Spec::legal).map(finish).map(Spec::into_case).collect()
}

pub(super) fn qkv() -> Vec<Case> {
    let spec = &QKV;
    let shapes = [(33, 65, 96), (16, 16, 64), (65, 130, 33), (130, 70, 100)];
    let mut all = each(spec, &[(20, 40, 64)], &shapes);
    all.extend(FLOATS.map(|t| Spec { norm: true, ..Spec::new(spec, Full, Format::Fp4, t, (17, 70, 96)) }));
    all.push(Spec { part_bytes: 4096, ..Spec::new(spec, Full, Format::Fp4, DType::F16, (20, 130, 64)) });
    all.push(Spec::new(spec, Perf, Format::Fp4, DType::F16, (512, 6144, 4096)));
    finish(all)
}

pub(super) fn qkv_gemv() -> Vec<Case> {
    let mut all = each(&QKV_GEMV, &[(1, 24, 64)], &GEMV);
    all.extend(more(&QKV_GEMV));
    all.extend(long_rows(&QKV_GEMV));
    all.push(Spec::new(&QKV_GEMV, Perf, Format::Fp4, DType::F16, (1, 6144, 4096)));
    finish(all)
}

pub(super) fn norm_qkv_gemv() -> Vec<Case> {
    let mut all = each(&NORM_QKV_GEMV, &[(1, 24, 64)], &GEMV);
    all.extend(more(&NORM_QKV_GEMV));
    all.push(Spec::new(&NORM_QKV_GEMV, Perf, Format::Fp4, DType::F16, (1, 6144, 4096)));
    finish(all.into_iter().map(|s| Spec { norm: true, ..s }).collect())
}

/// With a bias and rows of the caches before those written, wherever that is not the point of the case.
fn finish(all: Vec<Spec>) -> Vec<Case> {
    let legal = all.into_iter().filter(Spec::legal);
    legal.map(|s| split(Spec { bias: s.level != Perf, ..s })).collect()
}

/// Rows of the caches before those that are written.
const KV_ROW: usize = 3;

/// A product with three outputs, the second and third of about a quarter of the columns.
fn split(spec: Spec) -> Case {
    let (_, n, _) = spec.shape;
    let k_width = (n / 4).max(1);
    let widths = [n - k_width - n.div_ceil(4), k_width, n.div_ceil(4)];
    let label = format!("{} = {widths:?}", spec.label());
    Case::new(spec.level, spec.dtypes.0.wgsl(), label, move |gpu, copies| {
        let (m, n, k) = spec.shape;
        let mut random = Random::new((m * 5 + n * 37 + k) as u64);
        let (a_type, o_type) = spec.dtypes;
        let (a, gains) = (random.values(m * k, a_type), random.values(k, a_type));
        let (a_gpu, gains_gpu) = (gpu.floats(a_type, &[m, k], &a)?, gpu.floats(a_type, &[k], &gains)?);
        let bias = spec.bias.then(|| random.values(n, o_type));
        let bias_gpu = bias.as_ref().map(|b| gpu.floats(o_type, &[n], b)).transpose()?;
        let packed = pack(&mut random, n, k, spec.format, spec.group, spec.level)?;
        let workspace = gpu.output(a_type, &[m, k])?;
        let bytes = packed.bytes() as u64 + a_gpu.bytes() + (m * n * o_type.size()) as u64;
        Prepared::sets(copies, Cost { bytes, flops: 2 * (m * n * k) as u64 }, || {
            let weight = Weight::upload_in_parts(gpu, &packed, spec.part_bytes)?;
            let mut outs = Vec::new();
            let mut checks = Vec::new();
            let mut first = 0;
            for (name, (width, row)) in
                ["q", "k", "v"].into_iter().zip(widths.into_iter().zip([0, KV_ROW, KV_ROW]))
            {
                let out = gpu.output(o_type, &[row + m, width])?;
                let at = places(&mut random, m * width);
                let all: Vec<usize> = at.iter().map(|i| i / width * n + first + i % width).collect();
                let a = spec.activations(&a, &gains);
                let (packed, bias) = (packed.clone(), bias.clone());
                let want = move || {
                    let w = packed.unpack();
                    cpu::linear((&a, &w), (n, k), bias.as_deref(), Activation::None, None, &all)
                };
                let written = at.iter().map(|i| i + row * width).collect();
                let rows = row * width..(row + m) * width;
                checks.push(Check::new(name, &out, spec.rule(), want).at(written).written(rows));
                outs.push(out);
                first += width;
            }
            let (a, gains, bias, workspace) =
                (a_gpu.clone(), gains_gpu.clone(), bias_gpu.clone(), workspace.clone());
            let launch = move |recorder: &mut crate::Recorder<'_, '_>| {
                let [q, k, v] = [&outs[0], &outs[1], &outs[2]];
                let norm = Norm { weight: &gains, eps: EPS, workspace: Some(&workspace) };
                let norm = spec.norm.then_some(norm);
                let (a, weight, bias) = (&a, &weight, bias.as_ref());
                qkv_with(recorder, spec.spec, &Qkv { a, weight, q, k, v, kv_row: KV_ROW, bias, norm })
            };
            Ok((launch, checks))
        })
    })
}
