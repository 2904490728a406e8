//! Runs a case without the adapter's help: every launch is handed to the caller, with what a Metal device would get, or one of NVIDIA's. So the
//! MSL of a kernel is proved where there is no Metal, and the Spirv tier where lanes hold no matrices.

use naga::back::msl;

use super::compare::{Outcome, compare_all, listed, skipped};
use super::translate::{Parsed, parse};
use crate::device::{Caps, Gpu};
use crate::error::{Error, Result};
use crate::kernel::{Case, Composed, Handed, Recorder, Tier, TierSpec, Variant, compose};

/// A kernel as text for Metal's compiler.
pub struct MslText {
    pub text: String,
    /// The name of the kernel in it.
    pub entry: String,
    /// Bytes of each `[[threadgroup(i)]]` argument, which naga makes of workgroup variables. Ours have none.
    pub threadgroup: Vec<u32>,
    origins: Option<Composed>,
}

impl MslText {
    /// Names the source line of every `kernel.metal:LINE` in `log`.
    pub fn with_origins(&self, log: &str) -> String {
        const MARK: &str = "kernel.metal:";
        let Some(composed) = &self.origins else { return log.to_string() };
        let mut parts = log.split(MARK);
        let mut text = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            match part[..digits].parse() {
                Ok(line) => text += &composed.origin(line),
                Err(_) => text += &format!("{MARK}{}", &part[..digits]),
            }
            text += &part[digits..];
        }
        text
    }
}

/// The same device, planned for as if it were an Apple GPU: all that such GPUs offer is there. Launches can only be handed on.
pub fn as_apple(gpu: &Gpu) -> Gpu {
    gpu.with_caps(Caps {
        backend: wgpu::Backend::Metal,
        f16: true,
        subgroup: true,
        subgroup_size: 32,
        coop_side: Some(8),
        msl: true,
        max_workgroup_storage: 32 << 10,
        max_workgroup_threads: 1024,
        missing: Vec::new(),
        ..gpu.caps().clone()
    })
}

/// The same device, planned for as if it were an NVIDIA GPU with cooperative matrices. Launches can only be handed on.
pub fn as_nvidia(gpu: &Gpu) -> Gpu {
    gpu.with_caps(Caps {
        backend: wgpu::Backend::Vulkan,
        vendor: 0x10de,
        f16: true,
        subgroup: true,
        subgroup_size: 32,
        subgroup_barrier: true,
        half_subnormals: true,
        coop_side: Some(16),
        spirv: true,
        max_workgroup_storage: 48 << 10,
        max_workgroup_threads: 1024,
        missing: Vec::new(),
        ..gpu.caps().clone()
    })
}

/// As [`run_case`](super::run_case), but every launch is handed to `hand`, which must leave in the tensors what the kernel
/// would.
///
/// # Errors
/// As [`run_case`](super::run_case), and what `hand` returns.
pub fn run_case_by_hand(
    gpu: &Gpu,
    tier: Tier,
    case: &Case,
    hand: &mut dyn FnMut(&Handed<'_>) -> Result<()>,
) -> Result<Outcome> {
    let ran = (case.prepare)(gpu, 1).and_then(|prepared| {
        let mut recorder = Recorder::by_hand(gpu, hand);
        recorder.only(Some(tier));
        prepared.launches.iter().try_for_each(|launch| launch(&mut recorder))?;
        Ok(prepared)
    });
    match ran {
        Ok(prepared) => compare_all(gpu, &prepared),
        Err(error) => skipped(error).map(Outcome::Skipped),
    }
}

impl Handed<'_> {
    /// Reads what is bound at `binding`: the tensor, rounded up to the 16 bytes that kernels may load at once. An empty tensor
    /// still binds some.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    pub fn read(&self, gpu: &Gpu, binding: usize) -> Result<Vec<u8>> {
        let mut bytes = gpu.read_with_tail(self.tensors[binding])?;
        bytes.truncate((self.tensors[binding].bytes() as usize).max(1).next_multiple_of(16));
        Ok(bytes)
    }

    /// Overwrites what [`Handed::read`] read.
    pub fn write(&self, gpu: &Gpu, binding: usize, bytes: &[u8]) {
        let tensor = self.tensors[binding];
        gpu.queue().write_buffer(tensor.buffer(), tensor.offset(), bytes);
    }

    /// The text that a Metal device compiles for this launch: of the Msl tier the composed one, of the others naga's, with the
    /// slots that wgpu gives.
    ///
    /// # Errors
    /// [`Error::Compile`]; also for a specialisation that the tier does not list among its variants.
    pub fn msl(&self) -> Result<MslText> {
        if self.tier == Tier::Msl {
            let (tier, composed) = self.composed()?;
            let (text, entry) = (composed.text.clone(), tier.entry().to_string());
            return Ok(MslText { text, entry, threadgroup: Vec::new(), origins: Some(composed) });
        }
        let parsed = self.parsed()?;
        nagas_msl(&parsed.module, &parsed.info, self.spec.bindings.len()).map_err(|log| {
            let kernel = format!("{} [{}]", self.spec.name, self.tier.name());
            Error::Compile { kernel, log }
        })
    }

    /// naga's form of the composed text.
    ///
    /// # Errors
    /// [`Error::Compile`]; also for a specialisation that the tier does not list among its variants.
    pub fn parsed(&self) -> Result<Parsed> {
        let (tier, composed) = self.composed()?;
        let variant = Variant { defines: self.defines.clone(), needs: self.needs };
        parse(self.spec, tier, &variant, &composed)
    }

    fn composed(&self) -> Result<(&'static TierSpec, Composed)> {
        let tier = listed(self.spec, self.tier, self.defines)?;
        Ok((tier, compose(tier.path, tier.source, self.defines)?))
    }

    /// Threads of the whole grid.
    pub fn threads(&self) -> u64 {
        u64::from(self.needs.threads) * u64::from(self.groups.0) * u64::from(self.groups.1)
    }
}

/// Translates with the slots and options of wgpu's Metal backend: immediates at buffer 0, storage from 1 on, sizes last.
fn nagas_msl(
    module: &naga::Module,
    info: &naga::valid::ModuleInfo,
    bindings: usize,
) -> Result<MslText, String> {
    let slot = |buffer: usize| msl::BindTarget {
        buffer: u8::try_from(buffer).ok(),
        mutable: true,
        ..msl::BindTarget::default()
    };
    let resources = msl::EntryPointResources {
        resources: (0..bindings)
            .map(|i| (naga::ResourceBinding { group: 0, binding: i as u32 }, slot(i + 1)))
            .collect(),
        immediates_buffer: Some(0),
        sizes_buffer: u8::try_from(bindings + 1).ok(),
    };
    let options = msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".to_string(), resources)].into(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies::default(),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, "main".to_string())),
        ..msl::PipelineOptions::default()
    };
    let (text, translated) =
        msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    let entry = match translated.entry_point_names.into_iter().next() {
        Some(Ok(name)) => name,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("naga wrote no entry point".to_string()),
    };
    let used = info.get_entry_point(0);
    let threadgroup = module
        .global_variables
        .iter()
        .filter(|(handle, v)| v.space == naga::AddressSpace::WorkGroup && !used[*handle].is_empty())
        .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16))
        .collect();
    Ok(MslText { text, entry, threadgroup, origins: None })
}
