//! Compositions, and wrong calls.

use super::*;
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::kernel::{Random, Tier, round_to};
use crate::{Gpu, Result, norm};

pub(super) fn gpu() -> Gpu {
    Gpu::new().expect("an adapter")
}

pub(super) fn message<T>(result: Result<T>) -> String {
    result.err().map_or("accepted".into(), |e| e.to_string())
}

#[track_caller]
pub(super) fn expect<T>(result: Result<T>, want: &str) {
    let got = message(result);
    assert!(got.contains(want), "{got:?} does not say {want:?}");
}

pub(super) fn dense(random: &mut Random, n: usize, k: usize) -> PackedMatrix {
    let values = random.values(n * k, DType::F32);
    PackedMatrix::quantise(&values, n, k, Format::F32, Group::WholeK, ScaleSearch::AbsMax).expect("legal")
}

/// ‖got − want‖ / ‖want‖
fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let off: f64 = got.iter().zip(want).map(|(&g, &w)| square(f64::from(g) - w)).sum();
    (off / want.iter().map(|&w| square(w)).sum::<f64>()).sqrt()
}

#[test]
fn mlp_agrees_with_its_reference() -> Result<()> {
    let gpu = gpu();
    let (k, f, n) = (40, 72, 24);
    let random = &mut Random::new(5);
    let (gate, up, down) = (dense(random, f, k), dense(random, f, k), dense(random, n, f));
    let gate_up = Weight::upload(&gpu, &PackedMatrix::interleave(&gate, &up)?)?;
    let down_gpu = Weight::upload(&gpu, &down)?;
    let weights = (&gate.unpack()[..], &up.unpack()[..], &down.unpack()[..]);
    let gains = random.values(k, DType::F32);
    let gains_gpu = gpu.tensor(&[k], &gains)?;
    // One workspace for all numbers of rows, around the switch from fused norms to separate ones.
    let workspace = Workspace::mlp(&gpu, DType::F32, 20, &gate_up)?;
    for (m, normed) in [(1, false), (1, true), (8, true), (9, true), (20, false), (20, true)] {
        let (x, add) = (random.values(m * k, DType::F32), random.values(m * n, DType::F32));
        let (x_gpu, residual) = (gpu.tensor(&[m, k], &x)?, gpu.tensor(&[m, n], &add)?);
        let out = gpu.alloc(DType::F32, &[m, n])?;
        let request = Mlp {
            x: &x_gpu,
            gate_up: &gate_up,
            down: &down_gpu,
            out: &out,
            activation: Activation::Silu,
            norm: normed.then_some(Norm { weight: &gains_gpu, eps: 1e-3, workspace: None }),
            residual: Some(&residual),
            workspace: &workspace,
        };
        gpu.run(|r| record_mlp(r, &request))?;
        let rows = match normed {
            true => norm::rms_norm(&x, None, &gains, false, 1e-3).0,
            false => x.iter().map(|&x| f64::from(x)).collect(),
        };
        let product = mlp(&rows, weights, (n, f, k), Activation::Silu);
        let want: Vec<f64> = product.iter().zip(&add).map(|(p, &r)| p + f64::from(r)).collect();
        let error = distance(&gpu.read::<f32>(&out)?, &want);
        assert!(error < 1e-5, "{m} rows, norm: {normed}: {error:e}");
    }
    Ok(())
}

#[test]
fn wrong_calls_name_the_argument() -> Result<()> {
    let gpu = gpu();
    let random = &mut Random::new(6);
    let weight = Weight::upload(&gpu, &dense(random, 12, 16))?;
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape);
    let (gains, short) = (f32s(&[16])?, f32s(&[15])?);
    let halves = gpu.alloc(DType::F16, &[16])?;
    for (m, kernel) in [(2, "qgemv"), (9, "gemm")] {
        let (a, out, workspace) = (f32s(&[m, 16])?, f32s(&[m, 12])?, f32s(&[m, 16])?);
        let good = Linear::new(&a, &weight, &out);
        let linear = |norm: Option<Norm<'_>>| gpu.run(|r| record(r, &Linear { norm, ..good }));
        let norm = Norm { weight: &gains, eps: 1e-5, workspace: Some(&workspace) };
        assert_eq!(message(linear(Some(norm))), "accepted");
        expect(linear(Some(Norm { weight: &short, ..norm })), "norm's weight is [15], needs [16]");
        expect(linear(Some(Norm { weight: &halves, ..norm })), "norm's weight's dtype is F16");
        expect(linear(Some(Norm { eps: -1.0, ..norm })), "norm's eps = -1.0");
        expect(
            gpu.run(|r| record(r, &Linear { scale: f32::NAN, ..good })),
            &format!("{kernel}: scale = NaN"),
        );
        let absent = message(linear(Some(Norm { workspace: None, ..norm })));
        let want = if m > 8 { "gemm: norm's workspace is \"absent\"" } else { "accepted" };
        assert!(absent.contains(want), "{absent}");
        if m > 8 {
            expect(linear(Some(Norm { workspace: Some(&out), ..norm })), "norm's workspace is [9, 12]");
            expect(linear(Some(Norm { workspace: Some(&f32s(&[8, 16])?), ..norm })), "needs [9, 16]");
            expect(linear(Some(Norm { workspace: Some(&a), ..norm })), "overlapping a");
        }
        let gate_up =
            GateUp { a: &a, weight: &weight, out: &f32s(&[m, 6])?, activation: Activation::Silu, norm: None };
        let half_out = gpu.alloc(DType::F16, &[m, 6])?;
        expect(
            gpu.run(|r| record_gate_up(r, &GateUp { norm: Some(norm), out: &half_out, ..gate_up })),
            "out's dtype is F16",
        );

        let (q, k, v) = (f32s(&[m, 6])?, f32s(&[m + 2, 3])?, f32s(&[m + 2, 3])?);
        let good = Qkv { a: &a, weight: &weight, q: &q, k: &k, v: &v, kv_row: 2, bias: None, norm: None };
        let qkv = |request: Qkv<'_>| gpu.run(|r| record_qkv(r, &request));
        assert_eq!(message(qkv(good)), "accepted");
        expect(qkv(Qkv { kv_row: 3, ..good }), "k's rows is");
        expect(qkv(Qkv { kv_row: usize::MAX, ..good }), "k's rows is");
        expect(qkv(Qkv { q: &out, ..good }), "weight's rows is 12, needs 18, the columns of q, k and v");
        expect(qkv(Qkv { v: &k, ..good }), "k and v is \"overlapping\"");
        expect(qkv(Qkv { bias: Some(&gains), ..good }), "bias is [16], needs [12]");
        expect(qkv(Qkv { norm: Some(Norm { weight: &short, ..norm }), ..good }), "norm's weight is [15]");
        let wide = f32s(&[m, 17])?;
        expect(qkv(Qkv { a: &wide, ..good }), "a is [");
    }
    Ok(())
}

#[test]
fn mlp_refuses_what_does_not_fit_and_records_nothing() -> Result<()> {
    let gpu = gpu();
    let random = &mut Random::new(7);
    let (gate_up, down) = (dense(random, 16, 12), dense(random, 12, 8));
    let (gate_up, down) = (Weight::upload(&gpu, &gate_up)?, Weight::upload(&gpu, &down)?);
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape);
    let (x, out) = (f32s(&[2, 12])?, f32s(&[2, 12])?);
    let workspace = Workspace::mlp(&gpu, DType::F32, 2, &gate_up)?;
    let good = Mlp {
        x: &x,
        gate_up: &gate_up,
        down: &down,
        out: &out,
        activation: Activation::Relu,
        norm: None,
        residual: Some(&x),
        workspace: &workspace,
    };
    let run = |request: Mlp<'_>| gpu.run(|r| record_mlp(r, &request));
    assert_eq!(message(run(good)), "accepted");
    expect(run(Mlp { down: &gate_up, ..good }), "mlp: down's columns is 12, needs half of the 16");
    expect(run(Mlp { x: &f32s(&[3, 12])?, ..good }), "mlp: workspace's rows is 2, needs at least 3");
    let halves = Workspace::mlp(&gpu, DType::F16, 2, &gate_up)?;
    expect(run(Mlp { workspace: &halves, ..good }), "mlp: workspace's dtype is F16");
    // The second product is refused: nothing of the first may have been recorded.
    let narrow = f32s(&[2, 11])?;
    gpu.run(|r| {
        expect(record_mlp(r, &Mlp { out: &narrow, ..good }), "out is [2, 11]");
        expect(record_mlp(r, &Mlp { residual: Some(&out), ..good }), "one buffer");
        assert!(r.used().is_empty(), "{:?}", r.used());
        Ok(())
    })
}

/// Outputs that are stored together must come from one launch.
#[test]
fn outputs_that_would_be_torn_are_refused() -> Result<()> {
    let gpu = gpu();
    let weight =
        |n, part_bytes| Weight::upload_in_parts(&gpu, &dense(&mut Random::new(n as u64), n, 64), part_bytes);
    let row = 64 * 4;
    let a = gpu.alloc(DType::F32, &[2, 64])?;
    let linear = |weight: &Weight, dtype, out_n| {
        let out = gpu.alloc(dtype, &[2, out_n])?;
        gpu.run(|r| record(r, &Linear::new(&a, weight, &out)))
    };
    let gate_up = |weight: &Weight, dtype, out_n| {
        let out = gpu.alloc(dtype, &[2, out_n])?;
        let request = GateUp { a: &a, weight, out: &out, activation: Activation::Silu, norm: None };
        gpu.run(|r| record_gate_up(r, &request))
    };
    let (f32, bf16) = (DType::F32, DType::Bf16);
    expect(linear(&weight(5, u64::MAX)?, bf16, 5), "qgemv: out's columns is 5, needs an even number in bf16");
    expect(gate_up(&weight(6, u64::MAX)?, bf16, 3), "gate_up_gemv: out's columns is 3, needs an even number");
    let torn = "first row of a part of weight is";
    let parts = |rows: u64| weight(8, rows * row);
    for (result, want) in [
        (linear(&parts(1)?, f32, 8), "accepted"),
        (linear(&parts(1)?, bf16, 8), torn),
        (linear(&parts(2)?, bf16, 8), "accepted"),
        (gate_up(&parts(1)?, f32, 4), torn),
        (gate_up(&parts(3)?, f32, 4), "accepted"),
        (gate_up(&parts(3)?, bf16, 4), torn),
        (gate_up(&parts(5)?, bf16, 4), "accepted"),
    ] {
        expect(result, want);
    }
    let (q, k) = (gpu.alloc(f32, &[2, 4])?, gpu.alloc(f32, &[2, 2])?);
    let halves = |n| gpu.alloc(bf16, &[2, n]);
    let weight = weight(8, u64::MAX)?;
    let good = Qkv { a: &a, weight: &weight, q: &q, k: &k, v: &k.clone(), kv_row: 0, bias: None, norm: None };
    let (a, q, k, v) = (gpu.alloc(bf16, &[2, 64])?, halves(4)?, halves(1)?, halves(3)?);
    let odd = Qkv { a: &a, q: &q, k: &k, v: &v, ..good };
    expect(gpu.run(|r| record_qkv(r, &odd)), "k's columns is 1, needs an even number");
    Ok(())
}

#[test]
fn wrong_batches_name_the_argument() -> Result<()> {
    let gpu = gpu();
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape);
    let (a, w, out) = (f32s(&[3, 5, 8])?, f32s(&[3, 6, 8])?, f32s(&[3, 5, 6])?);
    let good = Batched::new(&a, &w, Layout::Nk, &out);
    assert_eq!((good.a_stride, good.w_stride), (40, 48));
    let run = |request: Batched<'_>| gpu.run(|r| record_batched(r, &request));
    assert_eq!(message(run(good)), "accepted");
    let ints = gpu.alloc(DType::U32, &[3, 5, 8])?;
    expect(run(Batched { a: &ints, ..good }), "gemm_batched: a's dtype is U32");
    let plain = |[a, w, out]: [&[usize]; 3]| run(Batched::new(&f32s(a)?, &f32s(w)?, Layout::Nk, &f32s(out)?));
    let want = "gemm_batched: a is [2, 2, 8], needs [2 or 1, 3, 8]";
    expect(plain([&[2, 2, 8], &[4, 8], &[2, 3, 4]]), want);
    expect(plain([&[3, 8], &[2, 4, 8], &[3, 1, 4]]), "gemm_batched: w is [2, 4, 8], needs [3 or 1, 4, 8]");
    expect(run(Batched { w: &ints, ..good }), "w's dtype is U32");
    expect(run(Batched { out: &ints, ..good }), "out's dtype is U32");
    expect(run(Batched { out: &f32s(&[15, 6])?, ..good }), "out is [15, 6], needs [B, M, N]");
    expect(run(Batched { w: &f32s(&[3, 6, 7])?, ..good }), "w's columns is 7, needs 8");
    expect(run(Batched { layout: Layout::Kn, ..good }), "w's columns is 8, needs 6");
    expect(run(Batched { out: &f32s(&[4, 5, 6])?, ..good }), "a is [3, 5, 8], needs [4 or 1, 5, 8]");
    expect(
        run(Batched { a_stride: 41, ..good }),
        "a's elements is 120, needs at least (B − 1) · a_stride + 5 · 8",
    );
    expect(run(Batched { w_stride: 49, ..good }), "w's elements is 144");
    expect(run(Batched { w_stride: usize::MAX, ..good }), "w's elements is 144");
    expect(run(Batched { out: &f32s(&[3, 6, 6])?, ..good }), "a is [3, 5, 8], needs [3 or 1, 6, 8]");
    let flat = a.reshape(&[15, 8])?;
    expect(run(Batched { a: &flat, out: &f32s(&[3, 6, 6])?, ..good }), "a's elements is 120");
    for shape in [&[5][..], &[3, 5], &[1, 6], &[3, 1, 6]] {
        expect(run(Batched { bias: Some(&f32s(shape)?), ..good }), "bias is [");
    }
    let halves = gpu.alloc(DType::F16, &[3, 5, 6])?;
    expect(run(Batched { residual: Some(&halves), ..good }), "residual's dtype is F16");
    expect(run(Batched { residual: Some(&a), ..good }), "residual is [3, 5, 8], needs [3, 5, 6]");
    expect(run(Batched { residual: Some(&out), ..good }), "one buffer");
    expect(run(Batched { scale: f32::INFINITY, ..good }), "scale = inf");
    let odd = gpu.alloc(DType::Bf16, &[3, 5, 7])?;
    let wide = f32s(&[3, 7, 8])?;
    expect(run(Batched { w: &wide, out: &odd, w_stride: 56, ..good }), "out's columns is 7, needs an even");
    let foreign = self::gpu().alloc(DType::F32, &[3, 5, 8])?;
    expect(run(Batched { a: &foreign, ..good }), "a lives on another device");
    // Of more rows the first of each batch are taken.
    let [a, w, out] = [&[2usize, 3, 8][..], &[1, 8], &[2, 2, 1]].map(f32s);
    let (a, w, out) = (a?, w?, out?);
    gpu.write(&a, &[0.0f32, 1.0, 9.0, 3.0, 4.0, 9.0].map(|x| [x; 8]).concat())?;
    gpu.write(&w, &[1.0f32; 8])?;
    run(Batched::new(&a, &w, Layout::Nk, &out))?;
    assert_eq!(gpu.read::<f32>(&out)?, [0.0, 8.0, 24.0, 32.0]);
    Ok(())
}

#[test]
fn bf16_outputs_are_rounded_to_nearest_even() -> Result<()> {
    let gpu = gpu();
    // Ties to both sides, neighbours of ties, the largest value, one that overflows, and NaN.
    let bits = [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_7fff,
        0x3f80_8001,
        0xc000_8000,
        0xc001_8000,
        0x7f7f_7fff,
        0x7f7f_8000,
        0x0000_0000,
        0xff80_0000,
        0x7fff_ffff,
        0x0080_0000,
    ];
    let values = bits.map(f32::from_bits);
    let (one, x) = (gpu.tensor(&[1, 1], &[1.0f32])?, gpu.tensor(&[12, 1], &values)?);
    for n in [12, 6] {
        let out = gpu.alloc(DType::Bf16, &[12 / n, 1, n])?;
        gpu.run(|r| record_batched(r, &Batched::new(&one, &x, Layout::Nk, &out)))?;
        for (got, want) in gpu.read::<half::bf16>(&out)?.into_iter().zip(values) {
            let want = half::bf16::from_f32(want);
            assert!(got == want || got.is_nan() && want.is_nan(), "{n}: {got} for {want}");
        }
    }
    Ok(())
}

/// Cooperative matrices take bf16 as halves; what lies past the end of K must not turn an infinity into a NaN.
#[test]
fn batches_take_values_that_halves_do_not_have() -> Result<()> {
    let gpu = gpu();
    let (large, inf) = (half::bf16::from_f32(1e5).to_f32(), f32::INFINITY);
    // Fewer rows are not for matrices where there are subgroups.
    const ROWS: usize = 5;
    let out = gpu.alloc(DType::F32, &[1, ROWS, 8])?;
    for tier in [Tier::Base, Tier::Coop] {
        if tier.needs().is_some_and(|needs| !gpu.caps().has(needs)) {
            continue;
        }
        for (dtype, k, value, base, coop) in [
            (DType::Bf16, 8, large, large, 65504.0),
            (DType::Bf16, 8, -large, -large, -65504.0),
            (DType::F16, 8, inf, inf, inf),
            (DType::F16, 7, inf, inf, inf),
        ] {
            let filled = |rows: usize, first: f32| {
                let mut values = vec![first; rows * k];
                values.iter_mut().enumerate().for_each(|(i, v)| *v = if i % k + 1 == k { *v } else { 0.0 });
                values
            };
            // The value is in the last column of K, of a or of w.
            for (x, y) in [(value, 1.0), (1.0, value)] {
                let a = gpu.floats(dtype, &[ROWS, k], &filled(ROWS, x))?;
                let w = filled(8, y);
                let transposed: Vec<f32> = (0..k * 8).map(|i| w[i % 8 * k + i / 8]).collect();
                for (layout, shape, w) in [(Layout::Nk, [8, k], &w), (Layout::Kn, [k, 8], &transposed)] {
                    let w = gpu.floats(dtype, &shape, w)?;
                    gpu.run(|recorder| {
                        recorder.only(Some(tier));
                        record_batched(recorder, &Batched::new(&a, &w, layout, &out))
                    })?;
                    let want = if tier == Tier::Coop { coop } else { base };
                    assert_eq!(gpu.read::<f32>(&out)?, [want; ROWS * 8], "{tier:?} {layout:?} {dtype:?} {k}");
                }
            }
        }
    }
    Ok(())
}

/// Also where activations become integers: a number that is none, or infinite, is not lost in a product.
#[test]
fn what_is_not_finite_stays_so() -> Result<()> {
    let gpu = gpu();
    let (n, k) = (24, 256);
    let random = &mut Random::new(8);
    let values = random.values(n * k, DType::F32);
    for &format in Format::ALL {
        let group = if format.is_quantised() { format.default_group() } else { Group::WholeK };
        let packed = PackedMatrix::quantise(&values, n, k, format, group, ScaleSearch::AbsMax)?;
        let weight = Weight::upload(&gpu, &packed)?;
        for m in [1, 2] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut a = random.values(m * k, DType::F16);
                a[37] = bad;
                let a = gpu.floats(DType::F16, &[m, k], &a)?;
                let out = gpu.alloc(DType::F16, &[m, n])?;
                gpu.run(|recorder| record(recorder, &Linear::new(&a, &weight, &out)))?;
                let row = &gpu.read::<half::f16>(&out)?[..n];
                // A weight of zero may take infinity away.
                let lost = row.iter().filter(|v| v.is_finite()).count();
                assert!(lost <= if bad.is_nan() { 0 } else { n / 3 }, "{format:?} {m}×{bad}: {row:?}");
            }
        }
    }
    Ok(())
}

/// Products of halves are taken in units that suit the activations: tiny ones do not vanish, large ones do not overflow.
#[test]
fn pairs_of_halves_take_activations_of_any_size() -> Result<()> {
    let gpu = gpu();
    let (n, k) = (1024, 288);
    let random = &mut Random::new(9);
    let values = random.values(n * k, DType::F32);
    for format in [Format::Fp4, Format::Mxfp4, Format::Nvfp4] {
        let packed =
            PackedMatrix::quantise(&values, n, k, format, format.default_group(), ScaleSearch::AbsMax)?;
        let weight = Weight::upload(&gpu, &packed)?;
        for size in [6e-7, 1e-4, 1.0, 1.5e4] {
            let a: Vec<f32> = (0..k).map(|_| round_to(size * random.normal(), DType::F16)).collect();
            let a_gpu = gpu.floats(DType::F16, &[1, k], &a)?;
            let out = gpu.alloc(DType::F16, &[1, n])?;
            let scale = 0.1 / size;
            gpu.run(|recorder| record(recorder, &Linear { scale, ..Linear::new(&a_gpu, &weight, &out) }))?;
            let a: Vec<f64> = a.iter().map(|&x| f64::from(x) * f64::from(scale)).collect();
            let at: Vec<usize> = (0..n).collect();
            let want = cpu::linear((&a, &packed.unpack()), (n, k), None, Activation::None, None, &at);
            let got: Vec<f32> = gpu.read::<half::f16>(&out)?.into_iter().map(f32::from).collect();
            let error = distance(&got, &want);
            assert!(error < 5e-4, "{format:?} × {size:e}: {error:e}");
        }
    }
    Ok(())
}
