//! Opening a GPU, or wrapping one that the caller already has.

mod canary;
mod canary_msl;
mod canary_spirv;
mod caps;
pub(crate) mod compiler_log;
mod memory;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "audit")]
pub(crate) use canary::one_off;
#[cfg(feature = "audit")]
pub use canary_msl::MSL_CANARY;
pub use canary_spirv::SPIRV_CANARY;
pub use caps::{Capability, Caps};
pub use compiler_log::install_logger;
pub use memory::Readback;

use crate::error::{Error, Result};
use crate::kernel::{MslSource, PipelineCache, Recorder, Tier};

/// A device, its queue, what it can do, and the caches of pipelines and bind groups. Cheap to clone; clones
/// share everything.
#[derive(Clone)]
pub struct Gpu(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub caps: Caps,
    pub checked: bool,
    pub forced_tier: Option<Tier>,
    pub pipelines: PipelineCache,
    pub id: u64,
    kept: Mutex<memory::Kept>,
    lost: Arc<AtomicBool>,
    lost_reason: Arc<Mutex<String>>,
}

/// Every [`Gpu`] has a number, by which a tensor knows its own.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Choices for opening a [`Gpu`]; see [`Gpu::builder`].
#[derive(Clone, Debug, Default)]
pub struct GpuBuilder {
    backends: Option<wgpu::Backends>,
    name: Option<String>,
    power: wgpu::PowerPreference,
    disabled: BTreeSet<Capability>,
    tier: Option<Tier>,
    checked: bool,
}

impl Gpu {
    /// Opens the best adapter with all its limits and the useful features.
    ///
    /// Honours `WGMARLIN_ADAPTER` (part of the adapter's name), `WGMARLIN_DISABLE` (capabilities, separated
    /// by commas), `WGMARLIN_TIER`, and wgpu's own `WGPU_BACKEND`.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] with advice for this operating system when there is none.
    ///
    /// ```no_run
    /// let gpu = wgmarlin::Gpu::new()?;
    /// println!("{}", gpu.caps().adapter);
    /// # Ok::<(), wgmarlin::Error>(())
    /// ```
    pub fn new() -> Result<Gpu> {
        Gpu::builder().open()
    }

    pub fn builder() -> GpuBuilder {
        GpuBuilder { power: wgpu::PowerPreference::HighPerformance, ..GpuBuilder::default() }
    }

    /// Wraps a device and queue that the caller owns. The capabilities are those the device was opened with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device lacks `Features::IMMEDIATES` with 128 bytes, which all kernels use.
    pub async fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Gpu> {
        Gpu::wrap(adapter, device, queue, &Gpu::builder().with_env()?).await
    }

    async fn wrap(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuBuilder,
    ) -> Result<Gpu> {
        let (features, limits) = (device.features(), device.limits());
        if !features.contains(wgpu::Features::IMMEDIATES) || limits.max_immediate_size < 128 {
            return Err(Error::Unsupported {
                what: "Gpu".into(),
                need: "Features::IMMEDIATES and max_immediate_size >= 128".into(),
                have: format!("the device has {} bytes of immediates", limits.max_immediate_size),
            });
        }
        let open = |caps: Caps| Inner {
            device: device.clone(),
            queue: queue.clone(),
            caps,
            checked: options.checked,
            forced_tier: options.tier,
            pipelines: PipelineCache::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            kept: Mutex::default(),
            lost: Arc::default(),
            lost_reason: Arc::default(),
        };
        let mut caps = Caps::read(adapter, features, &limits, &options.disabled);
        if options.checked {
            caps.remove(Capability::Msl, "MSL has no checks, and they were asked for");
        }
        // The canaries run on a Gpu of their own whose caps still trust the adapter.
        let trusting = Gpu(Arc::new(open(caps)));
        let proved = canary::prove(&trusting).await?;
        Ok(Gpu(Arc::new(open(proved))))
    }

    /// Another `Gpu` on the same device, which believes `caps`.
    #[cfg(feature = "audit")]
    pub(crate) fn with_caps(&self, caps: Caps) -> Gpu {
        Gpu(Arc::new(Inner {
            device: self.0.device.clone(),
            queue: self.0.queue.clone(),
            caps,
            checked: self.0.checked,
            forced_tier: self.0.forced_tier,
            pipelines: PipelineCache::default(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            kept: Mutex::default(),
            lost: self.0.lost.clone(),
            lost_reason: self.0.lost_reason.clone(),
        }))
    }

    pub fn caps(&self) -> &Caps {
        &self.0.caps
    }

    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Whether shaders are compiled with bounds checks and loop bounds (`GpuBuilder::checked`).
    pub fn checked(&self) -> bool {
        self.0.checked
    }

    /// The tier forced by `WGMARLIN_TIER` or the builder.
    pub fn forced_tier(&self) -> Option<Tier> {
        self.0.forced_tier
    }

    /// Records into one compute pass of our own, submits it, and waits for the result of validation (not for
    /// the GPU). Applications that have a pass of their own use [`Recorder::new`] instead.
    ///
    /// # Errors
    /// What `record` returns (nothing is submitted then), or what wgpu said of the submission.
    pub fn run(&self, record: impl FnOnce(&mut Recorder<'_, '_>) -> Result<()>) -> Result<()> {
        self.check_lost()?;
        let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut encoder = self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let recorded = {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            record(&mut Recorder::new(self, &mut pass))
        };
        if recorded.is_ok() {
            self.0.queue.submit([encoder.finish()]);
        }
        let error = pollster::block_on(scope.pop());
        recorded?;
        self.check_lost()?;
        error.map_or(Ok(()), |e| Err(Error::Wgpu(e.to_string())))
    }

    /// Compiles, in parallel, every pipeline that `record` would use, without running anything. Pipelines are
    /// otherwise compiled at their first use.
    ///
    /// # Errors
    /// The first error of `record` or of a compilation.
    pub fn warm_up(&self, record: impl FnOnce(&mut Recorder<'_, '_>) -> Result<()>) -> Result<usize> {
        let mut dry = Recorder::dry(self);
        record(&mut dry)?;
        self.0.pipelines.compile_all(self, dry.into_planned().pipelines)
    }

    /// The MSL of the pipelines that have been compiled so far, to be compiled ahead of time for another run:
    /// [`Gpu::add_metal_libraries`]. Empty where the `Msl` tier is not served; call [`Gpu::warm_up`] first.
    ///
    /// # Errors
    /// [`Error::Compile`] if a text cannot be composed again, which would be an error of this crate.
    pub fn msl_sources(&self) -> Result<Vec<MslSource>> {
        self.0.pipelines.msl_sources()
    }

    /// Metal libraries (the bytes of `metallib` files) by the names of the [sources](Gpu::msl_sources) that they were compiled
    /// of. Pipelines that are compiled from now on take them in place of text; names that match no text are not used, and what
    /// has no library is compiled from text. A library that Metal refuses is an [`Error::Compile`] at its pipeline's first use.
    /// `docs/metal.md` has the commands.
    ///
    /// # Safety
    /// Nothing can check what a library does: each must be what Metal's compiler made of the source of its name.
    pub unsafe fn add_metal_libraries(&self, libraries: impl IntoIterator<Item = (String, Vec<u8>)>) {
        self.0.pipelines.add_libraries(libraries);
    }

    /// Blocks until all submitted work is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if the device is gone.
    pub fn wait(&self) -> Result<()> {
        match self.0.device.poll(wgpu::PollType::wait_indefinitely()) {
            Ok(_) => self.check_lost(),
            Err(e) => Err(Error::DeviceLost { reason: e.to_string() }),
        }
    }

    fn watch_loss(&self) {
        let (lost, reason) = (self.0.lost.clone(), self.0.lost_reason.clone());
        self.0.device.set_device_lost_callback(move |why, message| {
            *reason.lock().unwrap_or_else(PoisonError::into_inner) = format!("{why:?}: {message}");
            lost.store(true, Ordering::Release);
        });
    }

    pub(crate) fn check_lost(&self) -> Result<()> {
        if self.0.lost.load(Ordering::Acquire) {
            let reason = self.0.lost_reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(Error::DeviceLost { reason });
        }
        Ok(())
    }
}

impl GpuBuilder {
    /// Restricts the backends (Metal, Vulkan, DX12).
    pub fn backends(mut self, backends: wgpu::Backends) -> Self {
        self.backends = Some(backends);
        self
    }

    /// Takes the first adapter whose name contains `part`, ignoring case.
    pub fn name(mut self, part: impl Into<String>) -> Self {
        self.name = Some(part.into());
        self
    }

    pub fn power_preference(mut self, power: wgpu::PowerPreference) -> Self {
        self.power = power;
        self
    }

    /// Treats a capability as absent.
    pub fn disable(mut self, capability: Capability) -> Self {
        self.disabled.insert(capability);
        self
    }

    /// Forces one tier on every kernel that has it; the others take their next lower one.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Compiles shaders with bounds checks and loop bounds. Slower; the audit's `--checks full`. The Msl tier, which has
    /// no checks, is not used then.
    pub fn checked(mut self, on: bool) -> Self {
        self.checked = on;
        self
    }

    /// Adds what the environment says. Settings already made here win.
    fn with_env(mut self) -> Result<Self> {
        let bad = |name: &'static str, got: &str, want: String| Error::Value {
            kernel: "environment",
            what: name.into(),
            got: format!("{got:?}"),
            want,
        };
        if let Ok(list) = std::env::var("WGMARLIN_DISABLE") {
            for name in list.split(',').map(str::trim).filter(|s| !s.is_empty()) {
                let known = || Capability::ALL.map(Capability::name).join(", ");
                let capability = Capability::parse(name)
                    .ok_or_else(|| bad("WGMARLIN_DISABLE", name, format!("one of {}", known())))?;
                self.disabled.insert(capability);
            }
        }
        if let (None, Ok(name)) = (self.tier, std::env::var("WGMARLIN_TIER")) {
            let known = || Tier::ALL.map(Tier::name).join(", ");
            let tier = Tier::parse(&name)
                .ok_or_else(|| bad("WGMARLIN_TIER", &name, format!("one of {}", known())))?;
            self.tier = Some(tier);
        }
        if self.name.is_none() {
            self.name = std::env::var("WGMARLIN_ADAPTER").ok().filter(|s| !s.is_empty());
        }
        Ok(self)
    }

    /// Opens the adapter, blocking. See [`Gpu::new`].
    ///
    /// # Errors
    /// [`Error::NoAdapter`], or [`Error::Wgpu`] when the device does not open.
    pub fn open(self) -> Result<Gpu> {
        pollster::block_on(self.open_async())
    }

    /// As [`GpuBuilder::open`], without blocking.
    ///
    /// # Errors
    /// As [`GpuBuilder::open`].
    pub async fn open_async(self) -> Result<Gpu> {
        let options = self.with_env()?;
        let adapter = options.pick().await?;
        let wanted = wgpu::Features::IMMEDIATES
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SUBGROUP_BARRIER
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::PASSTHROUGH_SHADERS
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgmarlin"),
                required_features: adapter.features() & wanted,
                required_limits: adapter.limits(),
                // SAFETY: the only experimental feature asked for is cooperative matrices; their use is confined
                // to shaders that the tests run, and a canary compares one with the CPU before any is used.
                experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|e| Error::Wgpu(e.to_string()))?;
        // Errors that no scope catches are logged, never a panic of the caller's process.
        device.on_uncaptured_error(Arc::new(|e: wgpu::Error| log::error!("wgpu: {e}")));
        let gpu = Gpu::wrap(&adapter, device, queue, &options).await?;
        gpu.watch_loss();
        Ok(gpu)
    }

    async fn pick(&self) -> Result<wgpu::Adapter> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
        if let Some(backends) = self.backends {
            descriptor.backends = backends;
        }
        let backends = descriptor.backends;
        let instance = wgpu::Instance::new(descriptor);
        let none = |reason: String| Error::NoAdapter { reason, advice: ADVICE };
        let Some(part) = &self.name else {
            let options = wgpu::RequestAdapterOptions {
                power_preference: self.power,
                ..wgpu::RequestAdapterOptions::default()
            };
            return instance.request_adapter(&options).await.map_err(|e| none(e.to_string()));
        };
        let adapters = instance.enumerate_adapters(backends).await;
        let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
        let wanted = part.to_lowercase();
        adapters
            .into_iter()
            .find(|a| a.get_info().name.to_lowercase().contains(&wanted))
            .ok_or_else(|| none(format!("no adapter's name contains {part:?}; found: {}", names.join(", "))))
    }
}

const ADVICE: &str = if cfg!(target_os = "linux") {
    "Install a Vulkan driver; for software Vulkan on Debian or Ubuntu: apt-get install mesa-vulkan-drivers"
} else if cfg!(target_os = "macos") {
    "Every Mac with Metal has one; a virtual machine needs paravirtualised graphics"
} else if cfg!(target_os = "windows") {
    "Install the vendor's graphics driver (DX12 or Vulkan); WARP serves as software DX12"
} else {
    "Install a driver for Vulkan, Metal or DX12"
};
