//! Canaries: a capability that the adapter reports is used only after a small shader has shown that it works.
//! Drivers exist that advertise cooperative matrices and return garbage.

use half::f16;

use super::{Capability, Caps, Gpu, canary_msl, canary_spirv};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Returns the capabilities that survive.
pub(super) async fn prove(gpu: &Gpu) -> Result<Caps> {
    let mut caps = gpu.caps().clone();
    if !half_unpacks(gpu).await? {
        return Err(Error::Unsupported {
            what: "Gpu".into(),
            need: "unpack2x16float that keeps subnormals (the FP4 decoder relies on it)".into(),
            have: format!("{} flushes them or does not compute", caps.adapter),
        });
    }
    if caps.f16 && !half_arithmetic(gpu).await.unwrap_or(false) {
        caps.remove(Capability::F16, "the f16 canary gave wrong results");
        caps.remove(Capability::Coop, "needs f16");
    }
    caps.half_subnormals = caps.f16 && half_subnormals(gpu).await.unwrap_or(false);
    if caps.subgroup {
        match subgroup_size(gpu).await {
            Ok(Some(size)) => caps.subgroup_size = size,
            _ => {
                caps.remove(Capability::Subgroup, "the subgroup canary gave wrong results");
                caps.remove(Capability::Coop, "needs subgroups");
            }
        }
    }
    if caps.subgroup_barrier && !subgroup_barrier(gpu).await.unwrap_or(false) {
        caps.subgroup_barrier = false;
    }
    if let Some(side) = caps.coop_side {
        if !coop(gpu, side, caps.subgroup_size).await.unwrap_or(false) {
            caps.remove(Capability::Coop, "the cooperative-matrix canary gave wrong results");
        } else if !caps.half_subnormals {
            caps.remove(Capability::Coop, "f16 products flush subnormals (the FP4 decoder relies on them)");
        }
    }
    if caps.spirv
        && let Err(why) = canary_spirv::prove(gpu, &caps).await
    {
        caps.remove(Capability::Spirv, why);
    }
    if caps.msl
        && let Err(why) = canary_msl::prove(gpu).await
    {
        caps.remove(Capability::Msl, why);
    }
    Ok(caps)
}

/// Compiles and runs one workgroup of `source`, whose binding 0 is read and binding 1 written.
async fn run(gpu: &Gpu, source: &str, input: &Tensor, output: &Tensor) -> Result<()> {
    let device = gpu.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let (pipeline, group) = one_off(gpu, "canary", source, input, output);
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    gpu.queue().submit([encoder.finish()]);
    let errors = [internal.pop().await, scope.pop().await];
    errors.into_iter().flatten().next().map_or(Ok(()), |error| Err(Error::Wgpu(error.to_string())))
}

/// A pipeline outside the catalogue, of checked WGSL whose binding 0 is read and binding 1 written, and its bind group.
pub(crate) fn one_off(
    gpu: &Gpu,
    label: &str,
    source: &str,
    input: &Tensor,
    output: &Tensor,
) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
    let device = gpu.device();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(label),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(label),
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(label),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: input.buffer().as_entire_binding() },
            wgpu::BindGroupEntry { binding: 1, resource: output.buffer().as_entire_binding() },
        ],
    });
    (pipeline, group)
}

/// The packed-half route that needs no feature, subnormals included.
async fn half_unpacks(gpu: &Gpu) -> Result<bool> {
    let source = "
        @group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) {
            let v = unpack2x16float(x[i]);
            y[2u * i] = v.x;
            y[2u * i + 1u] = v.y;
        }";
    let bits = [0x0200u16, 0x8200, 0x0e00, 0x8c00, 0x3c00, 0x0001, 0x7bff, 0x8000];
    let want: Vec<f32> = bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect();
    let words: Vec<u32> = bits.chunks(2).map(|p| u32::from(p[0]) | u32::from(p[1]) << 16).collect();
    let x = gpu.tensor(&[4], &words)?;
    let y = gpu.tensor(&[8], &[f32::NAN; 8])?;
    run(gpu, source, &x, &y).await?;
    Ok(gpu.read_async::<f32>(&y).await? == want)
}

async fn half_arithmetic(gpu: &Gpu) -> Result<bool> {
    let source = "
        enable f16;
        @group(0) @binding(0) var<storage, read> x: array<vec4<f16>>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) {
            let v = x[i] * 0.5h + vec4<f16>(1.0h);
            y[i] = f32(v.x) + f32(v.y) * 2.0 + f32(v.z) * 4.0 + f32(v.w) * 8.0;
        }";
    let values: Vec<f16> = (0..16).map(|i| f16::from_f32(i as f32 - 7.0)).collect();
    let term = |i: usize, j: usize| (values[4 * i + j].to_f32() * 0.5 + 1.0) * (1 << j) as f32;
    let want: Vec<f32> = (0..4).map(|i| (0..4).map(|j| term(i, j)).sum()).collect();
    let x = gpu.tensor(&[16], &values)?;
    let y = gpu.tensor(&[4], &[f32::NAN; 4])?;
    run(gpu, source, &x, &y).await?;
    Ok(gpu.read_async::<f32>(&y).await? == want)
}

/// Products with subnormal halves, as are made of what `half_codes` in `wgsl/common/weight/fp4.wgsl` gives.
async fn half_subnormals(gpu: &Gpu) -> Result<bool> {
    let source = "
        enable f16;
        @group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) {
            let v = vec2<f16>(unpack2x16float(x[i])) * vec2<f16>(16384.0h);
            y[2u * i] = f32(v.x);
            y[2u * i + 1u] = f32(v.y);
        }";
    let bits = [0x0200u16, 0x8200, 0x0001, 0x8001, 0x03ff, 0x0400, 0x0e00, 0x0000];
    let want: Vec<f32> = bits.iter().map(|&b| f16::from_bits(b).to_f32() * 16384.0).collect();
    let words: Vec<u32> = bits.chunks(2).map(|p| u32::from(p[0]) | u32::from(p[1]) << 16).collect();
    let x = gpu.tensor(&[4], &words)?;
    let y = gpu.tensor(&[8], &[f32::NAN; 8])?;
    run(gpu, source, &x, &y).await?;
    Ok(gpu.read_async::<f32>(&y).await? == want)
}

/// Sums over subgroups of whatever size; returns the size that the shader saw.
async fn subgroup_size(gpu: &Gpu) -> Result<Option<u32>> {
    let source = "
        @group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(128) fn main(
            @builtin(local_invocation_index) i: u32,
            @builtin(subgroup_size) size: u32,
            @builtin(subgroup_id) id: u32,
            @builtin(subgroup_invocation_id) lane: u32,
        ) {
            let sum = subgroupAdd(x[i]);
            y[i] = select(0u, sum, lane == 0u);
            y[128u + i] = select(size, id, lane == 0u);
            y[256u + i] = subgroupShuffleXor(x[i], 1u) ^ x[i ^ 1u];
        }";
    let values: Vec<u32> = (0..128).map(|i| i * i + 1).collect();
    let x = gpu.tensor(&[128], &values)?;
    let y = gpu.tensor(&[384], &[u32::MAX; 384])?;
    run(gpu, source, &x, &y).await?;
    let got = gpu.read_async::<u32>(&y).await?;
    let size = got[129];
    let sums: u32 = got[..128].iter().sum();
    let ok = size.is_power_of_two()
        && size <= 128
        && sums == values.iter().sum::<u32>()
        && (0..128).filter(|i| i % size as usize == 0).all(|i| got[128 + i] == i as u32 / size)
        && got[256..].iter().all(|&d| d == 0);
    Ok(ok.then_some(size))
}

/// Subgroups that pass numbers round through parts of workgroup memory of their own, as `wgsl/common/coop_walk_own.wgsl` does with
/// tiles. naga asks the barrier for no more order than Vulkan's subgroup memory, which is less than workgroup memory.
async fn subgroup_barrier(gpu: &Gpu) -> Result<bool> {
    let source = "
        @group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        var<workgroup> parts: array<u32, 128>;
        @compute @workgroup_size(128) fn main(
            @builtin(local_invocation_index) i: u32,
            @builtin(subgroup_size) size: u32,
            @builtin(subgroup_invocation_id) lane: u32,
        ) {
            var value = x[i];
            for (var turn = 0u; turn < 16u; turn++) {
                subgroupBarrier();
                parts[i] = value;
                subgroupBarrier();
                value = 3u * value + parts[i - lane + (lane + 1u) % size];
            }
            y[i] = value;
            y[128u + i] = i - lane + (lane + 1u) % size;
        }";
    let values: Vec<u32> = (0..128).map(|i| i * i + 1).collect();
    let x = gpu.tensor(&[128], &values)?;
    let y = gpu.tensor(&[256], &[u32::MAX; 256])?;
    run(gpu, source, &x, &y).await?;
    let got = gpu.read_async::<u32>(&y).await?;
    let next = &got[128..];
    let turn = |now: Vec<u32>| {
        let passed =
            |i: usize| now.get(next[i] as usize).map_or(0, |v| now[i].wrapping_mul(3).wrapping_add(*v));
        (0..128).map(passed).collect()
    };
    Ok((0..16).fold(values, |now, _| turn(now)) == got[..128])
}

/// scale · a · bᵀ of square matrices of small numbers.
pub(super) fn scaled_product(a: &[f16], b: &[f16], side: usize, scale: f32) -> Vec<f32> {
    let term = |i: usize, k: usize| a[i / side * side + k].to_f32() * b[i % side * side + k].to_f32();
    (0..side * side).map(|i| (0..side).map(|k| term(i, k)).sum::<f32>() * scale).collect()
}

/// One product of two tiles by one subgroup.
async fn coop(gpu: &Gpu, side: u32, subgroup: u32) -> Result<bool> {
    let source = format!(
        "
        enable f16;
        enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> x: array<f16>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size({subgroup}) fn main() {{
            let a = coopLoadT<coop_mat{side}x{side}<f16, A>>(&x[0], {side}u);
            let b = coopLoadT<coop_mat{side}x{side}<f16, B>>(&x[{n}], {side}u);
            let c = coopMultiplyAdd(a, b, coop_mat{side}x{side}<f32, C>());
            coopStoreT(c, &y[0], {side}u);
        }}",
        n = side * side
    );
    let (s, n) = (side as usize, (side * side) as usize);
    let values: Vec<f16> = (0..2 * n).map(|i| f16::from_f32(((i * 7) % 13) as f32 - 6.0)).collect();
    let at = |m: usize, i: usize, j: usize| values[m * n + i * s + j].to_f32();
    let dot = |e: usize| (0..s).map(|k| at(0, e / s, k) * at(1, k, e % s)).sum::<f32>();
    let want: Vec<f32> = (0..n).map(dot).collect();
    let x = gpu.tensor(&[2 * n], &values)?;
    let y = gpu.tensor(&[n], &vec![f32::NAN; n])?;
    run(gpu, &source, &x, &y).await?;
    Ok(gpu.read_async::<f32>(&y).await? == want)
}
