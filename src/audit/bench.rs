//! Timing on the GPU: many launches in one compute pass, between two timestamps where those can be trusted, else by
//! the slope of wall-clock time between N and 2N launches. The median of several passes counts.

use std::sync::Arc;
use std::time::Instant;

use super::compare::dry_run;
use crate::device::{Gpu, one_off};
use crate::error::{Error, Result};
use crate::kernel::{Case, Cost, Planned, Prepared, Recorder, StandIns, Tier};
use crate::tensor::{DType, Storage, Tensor};

/// Passes whose median is reported.
const PASSES: usize = 7;
/// Launches in a pass at the most.
const MAX_LAUNCHES: usize = 8192;
/// A pass should take this long, so that its start and end do not count.
const PASS_SECONDS: f64 = 6e-3;
/// Passes longer than this need no median of so many.
const LONG_PASS_SECONDS: f64 = 0.1;
/// Operand sets together take more than four times the last-level cache of today's GPUs (64 MiB at the most).
const ROTATION_BYTES: u64 = 256 << 20;
const MAX_COPIES: u64 = 64;
/// Buffers from this size on are copied for the rotation. Smaller ones are shared: in a model the layer before has just
/// written them, so they are in the cache there too.
const ROTATED_BYTES: u64 = 256 << 10;
/// GPUs fall to a fraction of their clock when idle (an H200 from 1980 to 345 MHz) and take a while to come back, so
/// this much work goes before the timed passes, without a gap.
const WARM_SECONDS: f64 = 0.6;

/// The time of one launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    pub seconds: f64,
    /// Whether the GPU's own timestamps were trusted; otherwise the wall clock's slope.
    pub timestamps: bool,
    /// Launches in each timed pass.
    pub launches: usize,
    /// Work of one launch.
    pub cost: Cost,
}

/// Times a case at `tier`. Its operand sets rotate through more memory than the last-level cache holds.
///
/// # Errors
/// As [`run_case`](super::run_case), with missing capabilities as [`Error::Unsupported`].
pub fn measure_case(gpu: &Gpu, tier: Option<Tier>, case: &Case) -> Result<Timing> {
    measure_prepared(gpu, tier, &(case.prepare)(gpu, 1)?)
}

/// As [`measure_case`], of a case that is prepared.
pub(crate) fn measure_prepared(gpu: &Gpu, tier: Option<Tier>, prepared: &Prepared) -> Result<Timing> {
    let software = gpu.caps().device_type == wgpu::DeviceType::Cpu;
    let sets = rotation(gpu, dry_run(gpu, tier, prepared)?, if software { 1 } else { MAX_COPIES })?;
    let (seconds, timestamps, launches) = measure(gpu, sets.len(), &|pass, count| {
        let mut recorder = Recorder::new(gpu, pass);
        recorder.only(tier);
        sets.iter().cycle().take(count).try_for_each(|set| {
            recorder.substitute(set.clone());
            prepared.launches.iter().try_for_each(|launch| launch(&mut recorder))
        })
    })?;
    Ok(Timing { seconds, timestamps, launches, cost: prepared.cost })
}

/// What to bind in each of the operand sets, `most` of them: the first has the buffers themselves, the others copies
/// that the GPU makes. Where memory is short there are fewer.
pub(super) fn rotation(gpu: &Gpu, planned: Planned, most: u64) -> Result<Vec<Arc<StandIns>>> {
    let mut sets = vec![Arc::default()];
    let large: Vec<_> = planned.buffers.into_values().filter(|s| s.buffer.size() >= ROTATED_BYTES).collect();
    let bytes: u64 = large.iter().map(|s| s.buffer.size()).sum();
    if bytes == 0 {
        return Ok(sets);
    }
    for _ in 1..ROTATION_BYTES.div_ceil(bytes).max(2).min(most) {
        let mut set = StandIns::new();
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for storage in &large {
            let size = storage.buffer.size();
            let copy = match gpu.alloc(DType::U32, &[(size / 4) as usize]) {
                Ok(copy) => copy,
                Err(Error::OutOfMemory { .. }) => return Ok(sets),
                Err(error) => return Err(error),
            };
            encoder.copy_buffer_to_buffer(&storage.buffer, 0, copy.buffer(), 0, size);
            set.insert(storage.id, copy.storage);
        }
        gpu.queue().submit([encoder.finish()]);
        sets.push(Arc::new(set));
    }
    Ok(sets)
}

const COPY_SHADER: &str = "
    @group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
    @group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;
    @compute @workgroup_size(256)
    fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
        let i = id.y * groups.x * 256u + id.x;
        if i < arrayLength(&x) { y[i] = x[i]; }
    }";

/// Bytes per second, read and written together, of a plain copy between two large buffers: the yardstick for
/// kernels that are bound by memory.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::DeviceLost`] or [`Error::Wgpu`].
pub fn copy_bandwidth(gpu: &Gpu) -> Result<f64> {
    let caps = gpu.caps();
    let wanted: u64 = match caps.device_type {
        wgpu::DeviceType::Cpu => 64 << 20,
        wgpu::DeviceType::DiscreteGpu => 1 << 30,
        _ => 256 << 20,
    };
    let bytes = wanted.min(caps.max_binding).min(caps.max_buffer) / 4096 * 4096;
    let shape = [usize::try_from(bytes / 4).unwrap_or(1 << 24)];
    let (x, y) = (gpu.alloc(DType::U32, &shape)?, gpu.alloc(DType::U32, &shape)?);
    let (pipeline, group) = one_off(gpu, "copy", COPY_SHADER, &x, &y);
    let groups = bytes / 4096;
    let rows = groups.div_ceil(u64::from(caps.max_groups));
    let (width, rows) = (groups.div_ceil(rows) as u32, rows as u32);
    let (seconds, _, _) = measure(gpu, 1, &|pass, count| {
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        (0..count).for_each(|_| pass.dispatch_workgroups(width, rows, 1));
        Ok(())
    })?;
    Ok(2.0 * bytes as f64 / seconds)
}

type Record<'a> = &'a dyn Fn(&mut wgpu::ComputePass<'_>, usize) -> Result<()>;

/// Seconds per launch, whether by timestamps, and launches in a pass. `record` puts so many launches into the pass
/// and goes round `sets` operand sets.
///
/// # Errors
/// Those of `record`, [`Error::DeviceLost`], or [`Error::Wgpu`] for what wgpu says of the launches.
pub fn measure(gpu: &Gpu, sets: usize, record: Record<'_>) -> Result<(f64, bool, usize)> {
    let clock = Clock::new(gpu)?;
    // Compiles, touches all operands, and wakes the clocks of the GPU up.
    clock.pass(sets, record)?;
    let mut count = sets;
    let took = loop {
        let (wall, stamped) = clock.pass(count, record)?;
        let took = stamped.unwrap_or(wall).max(1e-9);
        if took >= PASS_SECONDS || count >= MAX_LAUNCHES {
            break took;
        }
        let grow = (1.2 * PASS_SECONDS / took).clamp(1.2, 16.0);
        count = ((count as f64 * grow).ceil() as usize).next_multiple_of(sets).clamp(1, MAX_LAUNCHES);
    };
    let passes = if took > LONG_PASS_SECONDS { 3 } else { PASSES };
    let (wall, stamped) = clock.pass(count, record)?;
    if trusted(wall, stamped).is_some()
        && let Some(seconds) = clock.busy_passes(passes, took, count, record)?
    {
        return Ok((seconds / count as f64, true, count));
    }
    let once = median((0..passes).map(|_| Ok(clock.pass(count, record)?.0)).collect::<Result<_>>()?);
    let twice: Vec<f64> = (0..passes).map(|_| Ok(clock.pass(2 * count, record)?.0)).collect::<Result<_>>()?;
    // Noise can make a slope vanish; the plain quotient is an upper bound.
    let twice = median(twice);
    let slope = if twice > once { twice - once } else { twice / 2.0 };
    Ok((slope / count as f64, false, count))
}

/// Timestamps are zero on some systems and count other work on others: they must agree with the wall clock.
fn trusted(wall: f64, stamped: Option<f64>) -> Option<f64> {
    stamped.filter(|s| *s > 0.3 * wall && *s < 1.1 * wall)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Times whole passes.
struct Clock<'a> {
    gpu: &'a Gpu,
    /// Two queries a pass, and the words that they resolve to.
    stamps: Option<(wgpu::QuerySet, Tensor)>,
}

impl<'a> Clock<'a> {
    fn new(gpu: &'a Gpu) -> Result<Clock<'a>> {
        if !gpu.caps().timestamps {
            return Ok(Clock { gpu, stamps: None });
        }
        let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("bench"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * PASSES as u32,
        });
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("bench"),
            size: 256 * PASSES as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        // No kernel binds it.
        let words = Tensor::new(Arc::new(Storage::new(gpu, buffer)), DType::U32, &[64 * PASSES]);
        Ok(Clock { gpu, stamps: Some((queries, words)) })
    }

    /// Runs `count` launches in one pass: seconds by the wall clock, from submission to completion, and by
    /// timestamps.
    fn pass(&self, count: usize, record: Record<'_>) -> Result<(f64, Option<f64>)> {
        let scope = self.gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let commands = self.encode(0, count, record);
        self.gpu.wait()?;
        let start = Instant::now();
        self.gpu.queue().submit([commands?]);
        self.gpu.wait()?;
        let wall = start.elapsed().as_secs_f64();
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Wgpu(error.to_string()));
        }
        Ok((wall, self.seconds(1)?.and_then(|all| all.first().copied())))
    }

    /// The median seconds of `passes` passes that follow, without a gap, on enough work to bring the clocks up;
    /// one pass `took` about that long when it was tried.
    fn busy_passes(&self, passes: usize, took: f64, count: usize, record: Record<'_>) -> Result<Option<f64>> {
        let timed: Vec<_> = (0..passes).map(|i| self.encode(i, count, record)).collect::<Result<_>>()?;
        // Counted, not clocked: encoding runs ahead of the GPU.
        for _ in 0..(WARM_SECONDS / took).ceil().min(1000.0) as usize {
            self.gpu.queue().submit([self.encode(0, count, record)?]);
        }
        self.gpu.queue().submit(timed);
        self.gpu.wait()?;
        Ok(self.seconds(passes)?.map(median))
    }

    /// One pass of `count` launches between the `i`th pair of timestamps.
    fn encode(&self, i: usize, count: usize, record: Record<'_>) -> Result<wgpu::CommandBuffer> {
        let first = 2 * i as u32;
        let mut encoder =
            self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let recorded = {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("bench"),
                timestamp_writes: self.stamps.as_ref().map(|(queries, _)| wgpu::ComputePassTimestampWrites {
                    query_set: queries,
                    beginning_of_pass_write_index: Some(first),
                    end_of_pass_write_index: Some(first + 1),
                }),
            });
            record(&mut pass, count)
        };
        if let Some((queries, words)) = &self.stamps {
            // Queries resolve to multiples of 256 bytes.
            let offset = 256 * (i as u64);
            encoder.resolve_query_set(queries, first..first + 2, words.buffer(), offset);
        }
        recorded.map(|()| encoder.finish())
    }

    /// The seconds of the first `passes` passes, if all timestamps are there and in order.
    fn seconds(&self, passes: usize) -> Result<Option<Vec<f64>>> {
        let Some((_, words)) = &self.stamps else { return Ok(None) };
        let words = self.gpu.read::<u32>(words)?;
        let period = f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9;
        let stamp = |i: usize| u64::from(words[i]) | u64::from(words[i + 1]) << 32;
        let seconds = |i: usize| {
            let (begin, end) = (stamp(64 * i), stamp(64 * i + 2));
            (begin != 0 && end > begin).then(|| (end - begin) as f64 * period)
        };
        Ok((0..passes).map(seconds).collect())
    }
}
