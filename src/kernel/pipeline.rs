//! Pipelines and bind groups, made once and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::catalogue::find;
use super::compose::{Composed, compose};
use super::msl_library::{MetalLibraries, MslSource, passthrough};
use super::spec::{Access, Defines, KernelSpec, Tier, TierSpec};
use super::spirv;
use crate::device::{Gpu, compiler_log};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What identifies a pipeline.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PipelineKey {
    pub kernel: &'static str,
    pub tier: Tier,
    pub defines: Defines,
    /// Threads of a workgroup, which passthrough modules do not say themselves.
    pub threads: u32,
}

/// The access pattern of the bindings decides the layout, so kernels with the same pattern share one.
type LayoutKey = Vec<Access>;
/// Buffer id, offset and size of each binding.
type BindKey = (LayoutKey, Vec<(u64, u64, u64)>);

struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// Bind groups kept at the most; past that all are dropped, which costs a few microseconds each to remake.
const MAX_BIND_GROUPS: usize = 16_384;

/// Immediates reserved by every layout: one size for all keeps the Metal slot rule `buffer(binding + 1)`.
pub(crate) const IMMEDIATE_BYTES: u32 = 128;

#[derive(Default)]
pub(crate) struct PipelineCache {
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    pipelines: Mutex<HashMap<PipelineKey, wgpu::ComputePipeline>>,
    groups: Mutex<HashMap<BindKey, wgpu::BindGroup>>,
    libraries: Mutex<MetalLibraries>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned cache is still a valid cache: entries are inserted whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PipelineCache {
    fn layout(&self, gpu: &Gpu, spec: &KernelSpec) -> Arc<Layout> {
        let key: LayoutKey = spec.bindings.iter().map(|b| b.access).collect();
        let mut layouts = lock(&self.layouts);
        let make = || {
            let entries: Vec<_> = (0u32..)
                .zip(&key)
                .map(|(binding, access)| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: *access == Access::Read },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            let group = gpu.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(spec.name),
                entries: &entries,
            });
            let pipeline = gpu.device().create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(spec.name),
                bind_group_layouts: &[Some(&group)],
                immediate_size: IMMEDIATE_BYTES,
            });
            Arc::new(Layout { group, pipeline })
        };
        layouts.entry(key.clone()).or_insert_with(make).clone()
    }

    pub fn pipeline(
        &self,
        gpu: &Gpu,
        spec: &'static KernelSpec,
        key: &PipelineKey,
    ) -> Result<wgpu::ComputePipeline> {
        if let Some(pipeline) = lock(&self.pipelines).get(key) {
            return Ok(pipeline.clone());
        }
        // Compiled outside the lock: warm-up compiles several at once.
        let pipeline = self.compile(gpu, spec, key)?;
        Ok(lock(&self.pipelines).entry(key.clone()).or_insert(pipeline).clone())
    }

    fn compile(
        &self,
        gpu: &Gpu,
        spec: &'static KernelSpec,
        key: &PipelineKey,
    ) -> Result<wgpu::ComputePipeline> {
        let Some(tier) = spec.tier(key.tier) else {
            return Err(Error::Unsupported {
                what: spec.name.to_string(),
                need: format!("a {} tier", key.tier.name()),
                have: "the kernel has none".to_string(),
            });
        };
        let composed = compose(tier.path, tier.source, &key.defines)?;
        let kernel = || format!("{} [{}]", spec.name, key.tier.name());
        let words = match key.tier {
            Tier::Spirv => spirv::translate(&composed, gpu.checked())
                .map_err(|log| Error::Compile { kernel: kernel(), log })?,
            _ => Vec::new(),
        };
        let layout = self.layout(gpu, spec);
        gpu.check_lost()?;
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = gpu.device().push_error_scope(wgpu::ErrorFilter::Internal);
        let ((module, pipeline), heard) = compiler_log::listen(|| {
            let module = match key.tier {
                Tier::Msl => self.msl_module(gpu, spec, tier, &composed, key.threads),
                Tier::Spirv => spirv_module(gpu, tier, &words, key.threads),
                _ => wgsl_module(gpu, tier, &composed),
            };
            let pipeline = gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(spec.name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some(tier.entry()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Kernels never read workgroup memory that they have not written.
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            (module, pipeline)
        });
        let errors = [pollster::block_on(internal.pop()), pollster::block_on(scope.pop())];
        match errors.into_iter().flatten().next() {
            None => Ok(pipeline),
            Some(error) => {
                let place = pollster::block_on(module.get_compilation_info())
                    .messages
                    .iter()
                    .filter_map(|m| m.location)
                    .map(|l| format!("at {}\n", composed.origin(l.line_number as usize)))
                    .collect::<String>();
                let heard = compiler_log::with_origins(&heard, &composed);
                Err(Error::Compile { kernel: kernel(), log: format!("{place}{heard}{error}") })
            }
        }
    }

    /// Compiles what is missing, on as many threads as the machine has.
    pub fn compile_all(&self, gpu: &Gpu, wanted: Vec<(&'static KernelSpec, PipelineKey)>) -> Result<usize> {
        let missing: HashMap<_, _> = {
            let have = lock(&self.pipelines);
            wanted
                .into_iter()
                .map(|(spec, key)| (key, spec))
                .filter(|(key, _)| !have.contains_key(key))
                .collect()
        };
        missing.par_iter().try_for_each(|(key, spec)| self.pipeline(gpu, spec, key).map(drop))?;
        Ok(missing.len())
    }

    /// The MSL of the pipelines that there are.
    pub fn msl_sources(&self) -> Result<Vec<MslSource>> {
        let keys: Vec<PipelineKey> = lock(&self.pipelines).keys().cloned().collect();
        let mut sources = Vec::new();
        for key in keys.iter().filter(|key| key.tier == Tier::Msl) {
            let Some(tier) = find(key.kernel).and_then(|spec| spec.tier(Tier::Msl)) else { continue };
            sources.push(MslSource::new(key.kernel, compose(tier.path, tier.source, &key.defines)?.text));
        }
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sources)
    }

    pub fn add_libraries(&self, libraries: impl IntoIterator<Item = (String, Vec<u8>)>) {
        lock(&self.libraries).extend(libraries);
    }

    /// A module of MSL, which wgpu passes on as it is. The caller has seen to it that the backend is Metal.
    fn msl_module(
        &self,
        gpu: &Gpu,
        spec: &KernelSpec,
        tier: &TierSpec,
        composed: &Composed,
        threads: u32,
    ) -> wgpu::ShaderModule {
        let entry =
            wgpu::PassthroughShaderEntryPoint { name: tier.entry().into(), workgroup_size: (threads, 1, 1) };
        let source = MslSource::new(spec.name, composed.text.clone());
        let libraries = lock(&self.libraries);
        let descriptor = passthrough(tier.path, &entry, &source, &libraries);
        // SAFETY: nobody reflects or checks the text, so the tests do. `tests/shaders.rs` compares its arguments, slots and
        // parameters with the declaration, and `tests/msl.rs` runs it over all cases with every access checked. A library
        // was promised to be made of this text.
        unsafe { gpu.device().create_shader_module_passthrough(descriptor) }
    }

    pub fn bind_group(&self, gpu: &Gpu, spec: &KernelSpec, tensors: &[&Tensor]) -> wgpu::BindGroup {
        let place = |t: &&Tensor| (t.storage.id, t.offset(), t.bytes());
        let key: BindKey =
            (spec.bindings.iter().map(|b| b.access).collect(), tensors.iter().map(place).collect());
        if let Some(group) = lock(&self.groups).get(&key) {
            return group.clone();
        }
        let layout = self.layout(gpu, spec);
        let entries: Vec<_> = (0u32..)
            .zip(tensors)
            .map(|(binding, t)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: t.buffer(),
                    offset: t.offset(),
                    // To the buffer's end, not the tensor's: 16-byte loads may pass the latter, and a stray
                    // write must reach the guard zone of a test's output instead of being dropped by the driver.
                    size: wgpu::BufferSize::new(
                        (t.buffer().size() - t.offset()).min(gpu.caps().max_binding) / 4 * 4,
                    ),
                }),
            })
            .collect();
        let group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(spec.name),
            layout: &layout.group,
            entries: &entries,
        });
        for t in tensors {
            t.storage.bound.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let mut groups = lock(&self.groups);
        if groups.len() >= MAX_BIND_GROUPS {
            groups.clear();
        }
        groups.insert(key, group.clone());
        group
    }

    /// Drops the bind groups that name a buffer, so that the buffer's memory is freed with its last tensor.
    pub fn forget_buffer(&self, id: u64) {
        lock(&self.groups).retain(|(_, places), _| !places.iter().any(|(buffer, _, _)| *buffer == id));
    }
}

fn wgsl_module(gpu: &Gpu, tier: &TierSpec, composed: &Composed) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(tier.path),
        source: wgpu::ShaderSource::Wgsl(composed.text.as_str().into()),
    };
    if gpu.checked() {
        return gpu.device().create_shader_module(descriptor);
    }
    // SAFETY: unchecked modules trust indices and loop bounds. Every index is derived from shapes that the
    // record functions have checked against the bound tensors, and the audit runs all cases with the
    // checks on (`--checks full`) and compares guard zones behind every output.
    unsafe { gpu.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// A module of the words that `spirv::translate` made.
fn spirv_module(gpu: &Gpu, tier: &TierSpec, words: &[u32], threads: u32) -> wgpu::ShaderModule {
    let entry =
        wgpu::PassthroughShaderEntryPoint { name: tier.entry().into(), workgroup_size: (threads, 1, 1) };
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(tier.path),
        entry_points: std::borrow::Cow::Borrowed(std::slice::from_ref(&entry)),
        spirv: Some(words.into()),
        ..Default::default()
    };
    // SAFETY: naga has validated the WGSL that they come from, with checks of indices and loops where the other tiers have them,
    // and the tests compare bindings and parameters with the declaration; the rest is as for modules without checks.
    unsafe { gpu.device().create_shader_module_passthrough(descriptor) }
}
