//! Wrong calls and hostile surroundings give typed errors, and what survives goes on working.

use std::process::Command;

use half::f16;
use wgmarlin::format::{Format, Group, PackedMatrix, ScaleSearch};
use wgmarlin::matmul::{self, Activation, GateUp, Linear, Weight};
use wgmarlin::norm::{RmsNorm, record};
use wgmarlin::{Capability, DType, Error, Gpu, Tensor, Tier};

fn gpu() -> Gpu {
    Gpu::new().expect("an adapter; on Linux install mesa-vulkan-drivers")
}

/// Normalises the rows of ones in `x`; every result must be near 1.
fn normalise(gpu: &Gpu, rows: usize, cols: usize) -> Result<Vec<f32>, Error> {
    let x = gpu.tensor(&[rows, cols], &vec![1.0f32; rows * cols])?;
    let weight = gpu.tensor(&[cols], &vec![1.0f32; cols])?;
    let out = gpu.alloc(DType::F32, &[rows, cols])?;
    norm(gpu, &x, None, &weight, &out, 1e-6)?;
    gpu.read(&out)
}

fn norm(
    gpu: &Gpu,
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    out: &Tensor,
    eps: f32,
) -> Result<(), Error> {
    gpu.run(|recorder| record(recorder, &RmsNorm { residual, ..RmsNorm::new(x, weight, out, eps) }))
}

fn still_works(gpu: &Gpu) {
    let out = normalise(gpu, 3, 70).expect("the Gpu still works");
    assert!(out.len() == 210 && out.iter().all(|v| (v - 1.0).abs() < 1e-4), "{out:?}");
}

fn text<T>(result: Result<T, Error>) -> String {
    result.err().map_or("no error".into(), |e| e.to_string())
}

#[test]
fn no_adapter_says_how_to_get_one() {
    let error = Gpu::builder().name("nonsense adapter").open().err().expect("there is none");
    assert!(matches!(&error, Error::NoAdapter { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("nonsense adapter") && text.contains("found: "), "{text}");
    if cfg!(target_os = "linux") {
        assert!(text.contains("apt-get install mesa-vulkan-drivers"), "{text}");
    }
}

/// Run by `environment_is_checked` in a process of its own; passes by itself.
#[test]
fn open_and_tell() {
    match Gpu::new() {
        Ok(gpu) => println!("opened {:?} {:?}", gpu.caps().missing, gpu.forced_tier()),
        Err(error) => println!("refused {error}"),
    }
}

#[test]
fn environment_is_checked() {
    let told = |name: &str, value: &str| {
        let exe = std::env::current_exe().expect("a test has a path");
        let output = Command::new(exe)
            .args(["--exact", "open_and_tell", "--nocapture"])
            .env(name, value)
            .output()
            .expect("a test can run itself");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let bad = told("WGMARLIN_DISABLE", "f16,warp");
    assert!(bad.contains("refused environment: WGMARLIN_DISABLE = \"warp\""), "{bad}");
    assert!(bad.contains("f16, subgroup, coop, spirv, msl"), "{bad}");
    let bad = told("WGMARLIN_TIER", "best");
    assert!(bad.contains("refused environment: WGMARLIN_TIER = \"best\""), "{bad}");
    let bad = told("WGMARLIN_ADAPTER", "nonsense adapter");
    assert!(bad.contains("refused no usable GPU adapter"), "{bad}");
    let good = told("WGMARLIN_DISABLE", " subgroup, f16 ");
    assert!(good.contains("opened") && good.contains("Subgroup, \"disabled"), "{good}");
    let good = told("WGMARLIN_TIER", "base");
    assert!(good.contains("Some(Base)"), "{good}");
}

#[test]
fn disabled_capabilities_are_not_used() {
    let gpu = Gpu::builder().disable(Capability::Subgroup).disable(Capability::F16).open().expect("opens");
    assert!(!gpu.caps().subgroup && !gpu.caps().f16 && gpu.caps().coop_side.is_none());
    still_works(&gpu);
    let halves = |shape: &[usize]| gpu.alloc(DType::F16, shape).expect("memory needs no f16");
    let (x, weight, out) = (halves(&[1, 8]), halves(&[8]), halves(&[1, 8]));
    let error = norm(&gpu, &x, None, &weight, &out, 0.0).expect_err("f16 is off");
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("rms_norm") && text.contains("f16") && text.contains("disabled"), "{text}");
}

#[test]
fn tiers_can_be_forced() {
    let gpu = Gpu::builder().tier(Tier::Base).open().expect("opens");
    let used = |gpu: &Gpu| {
        let x = gpu.tensor(&[1, 4], &[1.0f32; 4]).expect("fits");
        let (weight, out) = (gpu.tensor(&[4], &[1.0f32; 4]).expect("fits"), x.clone());
        let out = gpu.alloc(out.dtype(), out.shape()).expect("fits");
        let mut used = Vec::new();
        gpu.run(|recorder| {
            record(recorder, &RmsNorm::new(&x, &weight, &out, 0.0))?;
            used = recorder.used().to_vec();
            Ok(())
        })
        .expect("runs");
        used
    };
    assert_eq!(used(&gpu), [("rms_norm", Tier::Base)]);
}

#[test]
fn wrong_arguments_are_named() {
    let gpu = gpu();
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let (x, weight, out) = (f32s(&[2, 8]), f32s(&[8]), f32s(&[2, 8]));
    let words = gpu.alloc(DType::U32, &[2, 8]).expect("fits");
    let halves = gpu.alloc(DType::F16, &[8]).expect("fits");
    let residual = f32s(&[2, 7]);
    let complaints = [
        (norm(&gpu, &words, None, &weight, &out, 0.0), "rms_norm: x's dtype is U32"),
        (norm(&gpu, &x, None, &f32s(&[7]), &out, 0.0), "rms_norm: weight is [7], needs [8]"),
        (norm(&gpu, &x, None, &halves, &out, 0.0), "rms_norm: weight's dtype is F16"),
        (norm(&gpu, &x, None, &weight, &f32s(&[8, 2]), 0.0), "rms_norm: out is [8, 2], needs [2, 8]"),
        (norm(&gpu, &x, Some(&residual), &weight, &out, 0.0), "rms_norm: residual is [2, 7]"),
        (norm(&gpu, &x, None, &weight, &out, f32::NAN), "rms_norm: eps = NaN"),
        (norm(&gpu, &x, None, &weight, &out, -1.0), "rms_norm: eps = -1.0"),
        (norm(&gpu, &x, Some(&x), &weight, &out, 0.0), "rms_norm: x and residual is \"one buffer\""),
    ];
    for (result, want) in complaints {
        let got = text(result);
        assert!(got.contains(want), "{got} does not say {want}");
    }
    assert!(text(gpu.tensor(&[3], &[1.0f32; 4])).contains("data length is 4"));
    assert!(text(gpu.read::<u32>(&x)).contains("read: element type is U32"));
    assert!(text(x.reshape(&[3, 5])).contains("16 elements"));
    assert!(text(x.rows_view(&gpu, 1, 2)).contains("within 0..2"));
    assert!(text(x.rows_view(&gpu, usize::MAX, 2)).contains("within 0..2"));
    // Sizes whose product is too large to count are no size 0.
    assert!(text(f32s(&[0]).reshape(&[1 << 32, 1 << 32])).contains("0 elements"));
    let buffer = |n| Tensor::from_buffer(&gpu, x.buffer().clone(), 0, DType::F32, &[n, 1 << 31]);
    assert!(text(buffer(1 << 33)).contains("inside the buffer"));
    still_works(&gpu);
}

#[test]
fn tensors_of_another_device_are_refused() {
    let (here, there) = (gpu(), gpu());
    let make = |gpu: &Gpu, shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let (weight, out) = (make(&here, &[8]), make(&here, &[2, 8]));
    let error = norm(&here, &make(&there, &[2, 8]), None, &weight, &out, 0.0).expect_err("foreign");
    assert!(matches!(&error, Error::ForeignTensor { kernel: "rms_norm", what } if what == "x"), "{error}");
    assert!(matches!(here.read::<f32>(&make(&there, &[8])), Err(Error::ForeignTensor { .. })));
    still_works(&here);
    still_works(&there);
}

#[test]
fn running_out_of_memory_is_survivable() {
    let gpu = gpu();
    let caps = gpu.caps();
    let over = (caps.max_buffer.min(caps.max_binding) / 4 + 16) as usize;
    for shape in [&[over][..], &[usize::MAX, 2], &[1 << 40, 1 << 40]] {
        let error = gpu.alloc(DType::F32, shape).expect_err("over the limit");
        assert!(matches!(error, Error::Limit { .. }), "{shape:?}: {error}");
    }
    // Unused memory costs a software adapter nothing, so that this ends by the driver's refusal or by the count.
    let most = (caps.max_buffer.min(caps.max_binding) / 16 * 4) as usize;
    let mut held = Vec::new();
    for _ in 0..256 {
        match gpu.alloc(DType::F32, &[most]) {
            Ok(tensor) => held.push(tensor),
            Err(error) => {
                assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
                break;
            }
        }
    }
    println!("{} tensors of {} MiB", held.len(), most >> 18);
    drop(held);
    gpu.wait().expect("alive");
    still_works(&gpu);
}

#[test]
fn a_lost_device_is_reported() {
    let gpu = gpu();
    let tensor = gpu.tensor(&[4], &[1.0f32; 4]).expect("fits");
    gpu.device().destroy();
    let lost = |result: Result<(), Error>| match result {
        Err(Error::DeviceLost { .. }) => {}
        other => panic!("{other:?}"),
    };
    lost(normalise(&gpu, 2, 8).map(drop));
    lost(gpu.alloc(DType::F32, &[8]).map(drop));
    lost(gpu.read::<f32>(&tensor).map(drop));
    lost(gpu.run(|_| Ok(())));
    still_works(&self::gpu());
}

/// Bind groups hold their buffers, so a cache that keeps them keeps the memory.
#[test]
fn dropped_tensors_are_freed() {
    let gpu = gpu();
    let held = || {
        gpu.wait().expect("alive");
        gpu.device().generate_allocator_report().map(|report| report.total_allocated_bytes)
    };
    still_works(&gpu);
    let before = held();
    for _ in 0..20 {
        normalise(&gpu, 64, 4096).expect("runs"); // 3 MiB with the read-back
    }
    let after = held();
    let (Some(before), Some(after)) = (before, after) else {
        println!("this backend does not report its memory");
        return;
    };
    assert!(after < before + (4 << 20), "{before} bytes before, {after} after");
}

#[test]
fn warm_up_compiles_each_pipeline_once() {
    let gpu = gpu();
    let make = |shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let (x, residual, weight, out) = (make(&[2, 8]), make(&[2, 8]), make(&[8]), make(&[2, 8]));
    let warm = || {
        gpu.warm_up(|recorder| {
            for residual in [None, Some(&residual), None] {
                record(recorder, &RmsNorm { residual, ..RmsNorm::new(&x, &weight, &out, 0.0) })?;
            }
            Ok(())
        })
    };
    assert_eq!(warm().expect("compiles"), 2);
    assert_eq!(warm().expect("compiles"), 0);
    let refused = gpu.warm_up(|recorder| record(recorder, &RmsNorm::new(&x, &x, &out, 0.0)));
    assert!(text(refused).contains("weight is [2, 8]"));
}

#[test]
fn grids_fold_past_65535_groups() {
    let out = normalise(&gpu(), 65_537, 2).expect("folds");
    assert!(out.iter().all(|v| (v - 1.0).abs() < 1e-4));
}

#[test]
fn empty_tensors_record_nothing() {
    assert_eq!(normalise(&gpu(), 0, 8).expect("nothing to do"), []);
}

#[test]
fn callers_keep_their_device_and_pass() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
        .expect("an adapter");
    let open = |features: wgpu::Features| {
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        }))
        .expect("a device")
    };
    let (device, queue) = open(wgpu::Features::empty());
    let error = pollster::block_on(Gpu::from_wgpu(&adapter, device, queue)).err().expect("no immediates");
    assert!(text(Err::<(), _>(error)).contains("IMMEDIATES"));

    let (device, queue) = open(wgpu::Features::IMMEDIATES);
    let gpu = pollster::block_on(Gpu::from_wgpu(&adapter, device.clone(), queue.clone())).expect("wraps");
    assert!(!gpu.caps().f16 && !gpu.caps().subgroup, "features that the device was not opened with");
    still_works(&gpu);

    // The caller's own buffer, encoder, pass and submission.
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 512,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let x = Tensor::from_buffer(&gpu, buffer.clone(), 256, DType::F32, &[2, 8]).expect("lies inside");
    assert!(text(Tensor::from_buffer(&gpu, buffer.clone(), 256, DType::F32, &[65])).contains("inside"));
    assert!(text(Tensor::from_buffer(&gpu, buffer.clone(), 2, DType::F32, &[4])).contains("multiple of"));
    queue.write_buffer(&buffer, 256, bytemuck::cast_slice(&[3.0f32; 16]));
    let weight = gpu.tensor(&[8], &[2.0f32; 8]).expect("fits");
    let out = gpu.alloc(DType::F32, &[2, 8]).expect("fits");
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut recorder = wgmarlin::Recorder::new(&gpu, &mut pass);
        record(&mut recorder, &RmsNorm::new(&x, &weight, &out, 0.0)).expect("records");
    }
    queue.submit([encoder.finish()]);
    let out: Vec<f32> = gpu.read(&out).expect("reads");
    assert!(out.iter().all(|v| (v - 2.0).abs() < 1e-4), "{out:?}");
}

/// 28 bytes are no multiple of the 16 that our own buffers are rounded to; the last elements must be bound too.
#[test]
fn a_callers_buffer_is_bound_to_its_end() {
    let gpu = gpu();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 28, usage, mapped_at_creation: false };
    let seven = || {
        let buffer = gpu.device().create_buffer(&descriptor);
        Tensor::from_buffer(&gpu, buffer, 0, DType::F32, &[1, 7]).expect("fits")
    };
    let (x, weight, out) = (seven(), seven().reshape(&[7]).expect("seven elements"), seven());
    gpu.write(&x, &[2.0f32; 7]).expect("writes");
    gpu.write(&weight, &[3.0f32; 7]).expect("writes");
    gpu.write(&out, &[f32::NAN; 7]).expect("writes");
    norm(&gpu, &x, None, &weight, &out, 0.0).expect("runs");
    let got = gpu.read::<f32>(&out).expect("reads");
    assert!(got.iter().all(|v| (v - 3.0).abs() < 1e-5), "{got:?}");
}

/// Every one of `complaints` is an error that says so.
fn all_say(complaints: Vec<(Result<(), Error>, &str)>) {
    for (result, want) in complaints {
        let got = text(result);
        assert!(got.contains(want), "{got} does not say {want}");
    }
}

fn packed(n: usize, k: usize, format: Format, group: Group) -> Result<PackedMatrix, Error> {
    PackedMatrix::quantise(&vec![0.5; n * k], n, k, format, group, ScaleSearch::AbsMax)
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let gpu = gpu();
    let pack = |k, format, group| packed(2, k, format, group).map(drop);
    let make = |k, format, group| Weight::alloc(&gpu, format, 2, k, group).map(drop);
    let upload = |matrix: Result<PackedMatrix, Error>| Weight::upload(&gpu, &matrix?).map(drop);
    let parts = PackedMatrix::from_parts(
        Format::Int4,
        1,
        80,
        Group::Size(32),
        vec![0; 16],
        vec![f16::ONE; 2],
        vec![],
    );
    all_say(vec![
        (pack(80, Format::Fp4, Group::Size(32)), "quantise: group = 32, must be a divisor of k = 80"),
        (parts.map(drop), "packed matrix: group = 32, must be a divisor of k = 80"),
        (make(80, Format::Fp4, Group::Size(32)), "Weight::alloc: group = 32, must be a divisor of k = 80"),
        (pack(80, Format::Int8, Group::Size(20)), "group = 20, must be a multiple of 16"),
        (pack(512, Format::Nf4, Group::Size(256)), "group = 256, must be a multiple of 16 from 16 to 128"),
        (pack(64, Format::Int3, Group::Size(16)), "group = 16, must be a multiple of 32"),
        (pack(64, Format::Mxfp4, Group::Size(16)), "group = Size(16), must be Size(32) for mxfp4"),
        (make(64, Format::Nvfp4, Group::WholeK), "group = WholeK, must be Size(16) for nvfp4"),
        (upload(packed(2, 96, Format::Int4, Group::Size(48))), "Weight::upload: group = 48"),
        (make(96, Format::Int4, Group::Size(48)), "Weight::alloc: group = 48"),
    ]);
    still_works(&gpu);
}

/// The fields of a packed matrix are public, so an upload cannot trust them.
#[test]
fn matrices_that_do_not_fit_together_are_refused() {
    let gpu = gpu();
    let change = |format: Format, change: &dyn Fn(&mut PackedMatrix)| {
        let mut matrix = packed(4, 96, format, format.default_group())?;
        change(&mut matrix);
        Weight::upload(&gpu, &matrix).map(drop)
    };
    let (int4, int4z, mxfp4, nvfp4) = (Format::Int4, Format::Int4Zero, Format::Mxfp4, Format::Nvfp4);
    let nan = f16::NAN;
    all_say(vec![
        (change(int4, &|m| m.words.truncate(63)), "Weight::upload: words is 63, needs 64"),
        (change(int4, &|m| m.words.push(0)), "Weight::upload: words is 65, needs 64"),
        (change(int4, &|m| m.words[15] = 1), "Weight::upload: words of row 0 = \"padding\""),
        (change(int4, &|m| m.row_words = 0), "Weight::upload: row_words is 0, needs 16"),
        (change(int4, &|m| m.group = 0), "Weight::upload: group = 0"),
        (change(int4, &|m| m.group = 64), "Weight::upload: group = 64, must be a divisor of k = 96"),
        (change(int4, &|m| m.n = 0), "Weight::upload: n is 0"),
        (change(int4, &|m| m.n = 5), "Weight::upload: words is 64, needs 80"),
        (change(int4, &|m| m.k = usize::MAX), "Weight::upload: n * k"),
        (change(int4, &|m| m.format = Format::Int8), "Weight::upload: row_words is 16, needs 24"),
        (change(Format::F16, &|m| m.group = 32), "Weight::upload: group is 32, needs 0"),
        (change(int4, &|m| m.scales.truncate(11)), "Weight::upload: scales is 11, needs 12"),
        (change(int4, &|m| m.zeros = vec![f16::ONE]), "Weight::upload: zeros is 1, needs 0"),
        (change(int4, &|m| m.scales[7] = nan), "Weight::upload: scales[7] = NaN, must be finite"),
        (change(int4, &|m| m.scales[7] = f16::INFINITY), "scales[7] = inf, must be finite"),
        (change(int4z, &|m| m.zeros[2] = nan), "Weight::upload: zeros[2] = NaN, must be finite"),
        (change(mxfp4, &|m| m.scale_bytes[3] = 255), "Weight::upload: scales[3] = 255, must be at most 240"),
        (change(nvfp4, &|m| m.scale_bytes[3] = 0x7f), "scales[3] = 127, must be at most 126"),
        (change(nvfp4, &|m| m.tensor_scales[1] = f32::NAN), "Weight::upload: tensor_scale = NaN"),
        (change(nvfp4, &|m| m.tensor_scales.clear()), "Weight::upload: tensor_scales is 0, needs 4"),
    ]);
    still_works(&gpu);
}

#[test]
fn weights_over_a_limit_are_refused() {
    let gpu = gpu();
    let limit = |result: Result<Weight, Error>, what: &str| match result {
        Err(error @ Error::Limit { .. }) => assert!(error.to_string().contains(what), "{error}"),
        other => panic!("{other:?}"),
    };
    let row = (gpu.caps().max_binding / 4) as usize + 8;
    limit(Weight::alloc(&gpu, Format::F32, 1, row, Group::WholeK), "Weight::alloc: one row of [1, ");
    let matrix = packed(2, 64, Format::F32, Group::WholeK).expect("packs");
    limit(Weight::upload_in_parts(&gpu, &matrix, 255), "Weight::upload: one row of [2, 64] f32");
    assert!(Weight::upload_in_parts(&gpu, &matrix, 256).is_ok());
    still_works(&gpu);
}

#[test]
fn wrong_products_are_refused() {
    let (gpu, other) = (gpu(), gpu());
    let on = |gpu: &Gpu, n| {
        let matrix = packed(n, 64, Format::Int8, Group::Size(32)).expect("packs");
        Weight::upload(gpu, &matrix).expect("uploads")
    };
    let (weight, odd, foreign) = (on(&gpu, 6), on(&gpu, 5), on(&other, 6));
    let f32s = |shape: &[usize]| gpu.alloc(DType::F32, shape).expect("fits");
    let there = |shape: &[usize]| other.alloc(DType::F32, shape).expect("fits");
    let (a, out) = (f32s(&[2, 64]), f32s(&[2, 6]));
    let words = gpu.alloc(DType::U32, &[2, 64]).expect("fits");
    let run = |linear: Linear<'_>| gpu.run(|r| matmul::record(r, &linear));
    let plain = |a, weight, out| run(Linear::new(a, weight, out));
    let good = Linear::new(&a, &weight, &out);
    let (bias, residual) = (f32s(&[5]), f32s(&[6, 2]));
    let gate_up = |weight: &Weight, out: &Tensor| {
        let request = GateUp { a: &a, weight, out, activation: Activation::Silu, norm: None };
        gpu.run(|r| matmul::record_gate_up(r, &request))
    };
    assert!(run(good).is_ok() && gate_up(&weight, &f32s(&[2, 3])).is_ok());
    all_say(vec![
        (plain(&f32s(&[2, 32]), &weight, &out), "qgemv: a is [2, 32], needs [2, 64]"),
        (plain(&words, &weight, &out), "qgemv: a's dtype is U32"),
        (plain(&a, &weight, &f32s(&[2, 7])), "qgemv: out is [2, 7], needs [2, 6]"),
        (plain(&a, &weight, &f32s(&[1, 6])), "qgemv: out's rows is 1"),
        (plain(&f32s(&[9, 64]), &weight, &out), "qgemm: out's rows is 2"),
        (run(Linear { out_row: usize::MAX, ..good }), "qgemv: out's rows is 2"),
        (run(Linear { bias: Some(&bias), ..good }), "qgemv: bias is [5], needs [6]"),
        (run(Linear { residual: Some(&residual), ..good }), "qgemv: residual is [6, 2], needs [2, 6]"),
        (run(Linear { residual: Some(&out), ..good }), "qgemv: out and aux is \"one buffer\""),
        (gate_up(&odd, &out), "gate_up_gemv: weight's rows is 5"),
        (plain(&a, &foreign, &out), "qgemv: weight lives on another device"),
        (plain(&there(&[2, 64]), &weight, &out), "qgemv: a lives on another device"),
        (plain(&a, &weight, &there(&[2, 6])), "qgemv: out lives on another device"),
        (run(Linear { bias: Some(&there(&[6])), ..good }), "qgemv: bias lives on another device"),
    ]);
    still_works(&gpu);
    still_works(&other);
}
