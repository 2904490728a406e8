//! What an adapter offers, as plain data.

use std::collections::BTreeSet;

/// An optional capability. Each can be turned off by `WGMARLIN_DISABLE` (names separated by commas)
/// or by [`GpuBuilder::disable`](crate::GpuBuilder::disable).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Capability {
    /// 16-bit floats in shaders (`SHADER_F16`).
    F16,
    /// Subgroup operations of any width.
    Subgroup,
    /// Cooperative matrices, square, f16 inputs and f32 accumulators.
    Coop,
    /// Vulkan passthrough kernels that fill cooperative matrices from registers.
    Spirv,
    /// Metal passthrough kernels with simdgroup matrices.
    Msl,
}

impl Capability {
    pub const ALL: [Capability; 5] =
        [Capability::F16, Capability::Subgroup, Capability::Coop, Capability::Spirv, Capability::Msl];

    pub fn name(self) -> &'static str {
        match self {
            Capability::F16 => "f16",
            Capability::Subgroup => "subgroup",
            Capability::Coop => "coop",
            Capability::Spirv => "spirv",
            Capability::Msl => "msl",
        }
    }

    pub fn parse(name: &str) -> Option<Capability> {
        Capability::ALL.into_iter().find(|c| c.name() == name)
    }
}

/// Everything the planners look at. Filled once from features, limits and the cooperative-matrix property
/// list, then narrowed by the canaries.
#[derive(Clone, Debug)]
pub struct Caps {
    pub adapter: String,
    pub backend: wgpu::Backend,
    pub device_type: wgpu::DeviceType,
    pub driver: String,
    /// Vendor id as PCI reports it (0x10de NVIDIA, 0x1002 AMD, 0x8086 Intel, 0x106b Apple, 0x10005 Mesa).
    pub vendor: u32,
    pub f16: bool,
    /// Whether products of halves keep subnormals, as a shader tried.
    pub half_subnormals: bool,
    pub subgroup: bool,
    /// Lanes of a subgroup as a shader measured it; 0 when unknown or without subgroups.
    pub subgroup_size: u32,
    /// Whether a barrier of one subgroup orders its workgroup memory, as a shader tried.
    pub subgroup_barrier: bool,
    /// Tile side (8 or 16) of the usable cooperative matrices, if any.
    pub coop_side: Option<u32>,
    /// SPIR-V kernels that fill cooperative matrices of side 16 from registers, on NVIDIA GPUs.
    pub spirv: bool,
    /// MSL kernels with simdgroup matrices, on Apple GPUs.
    pub msl: bool,
    pub timestamps: bool,
    pub max_workgroup_storage: u32,
    pub max_workgroup_threads: u32,
    /// Largest number of workgroups along one grid dimension.
    pub max_groups: u32,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    pub max_buffer: u64,
    /// Alignment of a tensor view's byte offset.
    pub offset_alignment: u64,
    /// Why each missing capability is missing.
    pub missing: Vec<(Capability, String)>,
}

impl Caps {
    /// Compute units to fill: those of a large GPU (132 on an H100). No API tells.
    pub(crate) fn compute_units(&self) -> usize {
        match self.device_type {
            wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu => 132,
            wgpu::DeviceType::IntegratedGpu => 32,
            wgpu::DeviceType::Cpu | wgpu::DeviceType::Other => 2,
        }
    }

    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::F16 => self.f16,
            Capability::Subgroup => self.subgroup,
            Capability::Coop => self.coop_side.is_some(),
            Capability::Spirv => self.spirv,
            Capability::Msl => self.msl,
        }
    }

    /// Why `capability` is not there, for error messages and audit rows.
    pub fn why_missing(&self, capability: Capability) -> String {
        self.missing
            .iter()
            .find(|(c, _)| *c == capability)
            .map_or_else(|| "not offered".to_string(), |(_, why)| why.clone())
    }

    /// Turns a capability off and remembers why.
    pub(crate) fn remove(&mut self, capability: Capability, why: impl Into<String>) {
        if self.missing.iter().any(|(c, _)| *c == capability) {
            return;
        }
        self.missing.push((capability, why.into()));
        match capability {
            Capability::F16 => (self.f16, self.half_subnormals) = (false, false),
            Capability::Subgroup => (self.subgroup, self.subgroup_barrier) = (false, false),
            Capability::Coop => (self.coop_side, self.spirv) = (None, false),
            Capability::Spirv => self.spirv = false,
            Capability::Msl => self.msl = false,
        }
    }

    /// Reads the adapter and the features and limits that the device was opened with.
    pub(crate) fn read(
        adapter: &wgpu::Adapter,
        features: wgpu::Features,
        limits: &wgpu::Limits,
        disabled: &BTreeSet<Capability>,
    ) -> Caps {
        let info = adapter.get_info();
        let coop_side = coop_side(&adapter.cooperative_matrix_properties());
        let mut caps = Caps {
            adapter: info.name.clone(),
            backend: info.backend,
            device_type: info.device_type,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            vendor: info.vendor,
            f16: true,
            subgroup: true,
            subgroup_size: 0,
            subgroup_barrier: features.contains(wgpu::Features::SUBGROUP_BARRIER),
            half_subnormals: false,
            coop_side,
            spirv: true,
            msl: true,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_workgroup_storage: limits.max_compute_workgroup_storage_size,
            max_workgroup_threads: limits.max_compute_invocations_per_workgroup,
            max_groups: limits.max_compute_workgroups_per_dimension,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            missing: Vec::new(),
        };
        for &capability in disabled {
            caps.remove(capability, "disabled by WGMARLIN_DISABLE or the builder");
        }
        if !features.contains(wgpu::Features::SHADER_F16) {
            caps.remove(Capability::F16, "the device lacks SHADER_F16");
        }
        if !features.contains(wgpu::Features::SUBGROUP) {
            caps.remove(Capability::Subgroup, "the device lacks SUBGROUP");
        }
        if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            caps.remove(Capability::Coop, "the device lacks EXPERIMENTAL_COOPERATIVE_MATRIX");
        } else if coop_side.is_none() {
            caps.remove(
                Capability::Coop,
                "no square f16 -> f32 cooperative matrix of side 8 or 16 is listed",
            );
        }
        // Metal reports 4 to 64 for every GPU; Apple's are all 32, and the canary would notice others.
        if info.subgroup_min_size != info.subgroup_max_size && info.backend != wgpu::Backend::Metal {
            let (min, max) = (info.subgroup_min_size, info.subgroup_max_size);
            // A matrix belongs to one subgroup, and WGSL cannot ask for a subgroup size.
            caps.remove(Capability::Coop, format!("subgroups vary from {min} to {max} lanes"));
        }
        if !(caps.f16 && caps.subgroup) {
            caps.remove(Capability::Coop, "needs f16 and subgroups");
        }
        if let Some(why) = no_spirv(&info, features, coop_side) {
            caps.remove(Capability::Spirv, why);
        }
        if let Some(why) = no_msl(&info, features) {
            caps.remove(Capability::Msl, why);
        }
        caps
    }
}

/// Why SPIR-V kernels cannot run, if so. That lanes hold the elements that they are written for the canary finds out.
fn no_spirv(
    info: &wgpu::AdapterInfo,
    features: wgpu::Features,
    coop_side: Option<u32>,
) -> Option<&'static str> {
    if info.backend != wgpu::Backend::Vulkan {
        return Some("the backend is not Vulkan");
    }
    if !features.contains(wgpu::Features::PASSTHROUGH_SHADERS) {
        return Some("the device lacks PASSTHROUGH_SHADERS");
    }
    (coop_side != Some(16)).then_some("no cooperative matrices of side 16")
}

/// Why MSL kernels cannot run, if so. wgpu offers matrices also for the GPUs of Intel and AMD in older Macs, which may
/// lack them.
fn no_msl(info: &wgpu::AdapterInfo, features: wgpu::Features) -> Option<&'static str> {
    if info.backend != wgpu::Backend::Metal {
        return Some("the backend is not Metal");
    }
    if !features.contains(wgpu::Features::PASSTHROUGH_SHADERS) {
        return Some("the device lacks PASSTHROUGH_SHADERS");
    }
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Some("the device lacks EXPERIMENTAL_COOPERATIVE_MATRIX");
    }
    let apple = info.device_type == wgpu::DeviceType::IntegratedGpu && info.name.starts_with("Apple");
    (!apple).then_some("not an Apple GPU")
}

/// The largest square f16 -> f32 tile that WGSL can express. The feature bit alone proves nothing: a driver
/// may list only shapes (8x16, 16x8x16) or types that WGSL has no words for.
fn coop_side(list: &[wgpu::CooperativeMatrixProperties]) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    list.iter()
        .filter(|p| p.m_size == p.n_size && p.n_size == p.k_size && matches!(p.m_size, 8 | 16))
        .filter(|p| p.ab_type == F16 && p.cr_type == F32)
        .map(|p| p.m_size)
        .max()
}
