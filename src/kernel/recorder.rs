//! Records kernels into a compute pass that belongs to the caller.

use std::collections::HashMap;
use std::sync::Arc;

use super::pipeline::{IMMEDIATE_BYTES, PipelineKey};
use super::spec::{Access, Defines, KernelSpec, Needs, Params, Tier};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::{Storage, Tensor};

/// Records launches into a [`wgpu::ComputePass`]. It owns no pass, submits nothing and allocates no GPU memory, but for what
/// [`Gpu`] keeps for launches in between: see [`Gpu::scratch_bytes`].
/// Launches in one pass see the results of the ones before.
///
/// ```no_run
/// # fn example(gpu: &wgmarlin::Gpu, encoder: &mut wgpu::CommandEncoder, logits: &wgmarlin::Tensor,
/// #            token: &wgmarlin::Tensor) -> wgmarlin::Result<()> {
/// let mut pass = encoder.begin_compute_pass(&Default::default());
/// let mut recorder = wgmarlin::Recorder::new(gpu, &mut pass);
/// wgmarlin::argmax::record(&mut recorder, &wgmarlin::argmax::Argmax { logits, index: token })?;
/// # Ok(()) }
/// ```
pub struct Recorder<'p, 'e> {
    gpu: Gpu,
    target: Target<'p, 'e>,
    only: Option<Tier>,
    /// What has been launched, as `kernel [tier]`, without repeats.
    used: Vec<(&'static str, Tier)>,
    stand_ins: Option<Arc<StandIns>>,
}

/// Buffers to bind in place of others, by the id of these: a bench repeats a launch over copies of its operands.
pub(crate) type StandIns = HashMap<u64, Arc<Storage>>;

enum Target<'p, 'e> {
    Pass(&'p mut wgpu::ComputePass<'e>),
    /// Collects what would be used instead: see [`Gpu::warm_up`].
    Dry(Planned),
    /// Hands every launch to a test, which does what the GPU would do: see `audit::run_case_by_hand`.
    #[cfg(feature = "audit")]
    Hand(&'p mut dyn FnMut(&Handed<'_>) -> Result<()>),
}

/// What the launches of a dry run would use.
#[derive(Default)]
pub(crate) struct Planned {
    pub pipelines: Vec<(&'static KernelSpec, PipelineKey)>,
    /// Buffers, by their ids.
    pub buffers: StandIns,
}

/// A launch as it would go to the GPU.
#[cfg(feature = "audit")]
pub struct Handed<'a> {
    pub spec: &'static KernelSpec,
    pub tier: Tier,
    pub defines: &'a Defines,
    pub needs: Needs,
    /// In order of the bindings.
    pub tensors: &'a [&'a Tensor],
    /// The immediates.
    pub params: &'a [u8],
    pub groups: (u32, u32),
}

/// One tensor bound to a kernel.
pub(crate) type Bind<'a> = &'a Tensor;

/// One launch, as a family's planner describes it.
pub(crate) struct Launch<'a, P: Params> {
    pub spec: &'static KernelSpec,
    pub tier: Tier,
    pub defines: Defines,
    pub needs: Needs,
    pub binds: &'a [Bind<'a>],
    pub params: P,
    /// Number of workgroups; folded to two dimensions where it must be.
    pub groups: u64,
}

impl<'p, 'e> Recorder<'p, 'e> {
    pub fn new(gpu: &Gpu, pass: &'p mut wgpu::ComputePass<'e>) -> Self {
        Recorder::to(gpu, Target::Pass(pass))
    }

    pub(crate) fn dry(gpu: &Gpu) -> Self {
        Recorder::to(gpu, Target::Dry(Planned::default()))
    }

    fn to(gpu: &Gpu, target: Target<'p, 'e>) -> Self {
        Recorder { gpu: gpu.clone(), target, only: None, used: Vec::new(), stand_ins: None }
    }

    #[cfg(feature = "audit")]
    pub(crate) fn by_hand(gpu: &Gpu, hand: &'p mut dyn FnMut(&Handed<'_>) -> Result<()>) -> Self {
        Recorder::to(gpu, Target::Hand(hand))
    }

    pub(crate) fn into_planned(self) -> Planned {
        match self.target {
            Target::Dry(planned) => planned,
            _ => Planned::default(),
        }
    }

    /// Binds other buffers in the following launches.
    #[cfg(feature = "audit")]
    pub(crate) fn substitute(&mut self, stand_ins: Arc<StandIns>) {
        self.stand_ins = Some(stand_ins);
    }

    /// Restricts the following launches to one tier: a kernel that cannot run at it is an error. For tests and
    /// the audit; applications leave the choice to the planners.
    pub fn only(&mut self, tier: Option<Tier>) {
        self.only = tier;
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The kernels launched so far and the tiers that were chosen, each once.
    pub fn used(&self) -> &[(&'static str, Tier)] {
        &self.used
    }

    /// Chooses the best of `spec`'s tiers that the adapter can run and `plan` accepts. `plan` returns the
    /// specialisation for a tier, or why that tier does not serve this request.
    pub(crate) fn choose(
        &self,
        spec: &'static KernelSpec,
        plan: impl Fn(Tier) -> Result<(Defines, Needs), String>,
    ) -> Result<(Tier, Defines, Needs)> {
        let caps = self.gpu.caps();
        let ceiling = self.gpu.forced_tier().unwrap_or(Tier::Msl);
        let mut reasons = Vec::new();
        for tier in spec.tiers.iter().rev().map(|t| t.tier) {
            if self.only.is_some_and(|only| only != tier) || (self.only.is_none() && tier > ceiling) {
                continue;
            }
            let missing = tier
                .needs()
                .filter(|c| !caps.has(*c))
                .map(|c| format!("{} ({})", c.name(), caps.why_missing(c)));
            let reason = match missing {
                Some(reason) => reason,
                None => match plan(tier) {
                    Ok((defines, needs)) => match needs.unmet(caps) {
                        None => return Ok((tier, defines, needs)),
                        Some(reason) => reason,
                    },
                    Err(reason) => reason,
                },
            };
            reasons.push(format!("{}: {reason}", tier.name()));
        }
        if reasons.is_empty() {
            reasons.push("the kernel has no such tier".to_string());
        }
        let need = match self.only {
            Some(tier) => format!("the {} tier", tier.name()),
            None => "one usable tier".to_string(),
        };
        Err(Error::Unsupported { what: spec.name.to_string(), need, have: reasons.join("; ") })
    }

    /// Records several launches or, if one of them would be refused, none.
    pub(crate) fn all_or_nothing(
        &mut self,
        record: impl Fn(&mut Recorder<'_, '_>) -> Result<()>,
    ) -> Result<()> {
        if !matches!(self.target, Target::Dry(_)) {
            let mut rehearsal = Recorder::dry(&self.gpu);
            rehearsal.only = self.only;
            record(&mut rehearsal)?;
        }
        record(self)
    }

    /// Without the restriction of [`Recorder::only`]: for what a request needs beside its own kernel.
    pub(crate) fn at_any_tier(&mut self, record: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let only = self.only.take();
        let result = record(self);
        self.only = only;
        result
    }

    /// Whether a kernel can be given these.
    pub(crate) fn check(&self, spec: &KernelSpec, binds: &[Bind<'_>]) -> Result<()> {
        debug_assert_eq!(binds.len(), spec.bindings.len(), "{}", spec.name);
        if let Some(foreign) = binds.iter().find(|bind| !bind.is_of(&self.gpu)) {
            // Absent arguments borrow another's tensor, so it may have several names.
            let names =
                binds.iter().zip(spec.bindings).filter(|(bind, _)| bind.storage.id == foreign.storage.id);
            let names: Vec<_> = names.map(|(_, binding)| binding.name).collect();
            return foreign.check_device(spec.name, &names.join(" or "), &self.gpu);
        }
        for (i, (bind, binding)) in binds.iter().zip(spec.bindings).enumerate() {
            let max = self.gpu.caps().max_binding;
            if bind.bytes() > max {
                let what = format!("{}: {}", spec.name, binding.name);
                let name = "max_storage_buffer_binding_size";
                return Err(Error::Limit { what, name, need: bind.bytes(), max });
            }
            // wgpu would reject it too, but at the end of the pass and without naming the argument. Whole
            // buffers count: usage is tracked per buffer.
            let clash = binds.iter().zip(spec.bindings).enumerate().find(|(j, (other, b))| {
                *j != i && binding.access != b.access && other.storage.id == bind.storage.id
            });
            if let (Access::ReadWrite, Some((_, (_, other)))) = (binding.access, clash) {
                let what = format!("{} and {}", binding.name, other.name);
                return Err(Error::shape(spec.name, what, "one buffer", "two: one is read, one is written"));
            }
            // The same range is an absent argument's.
            let written = binds.iter().zip(spec.bindings).skip(i + 1).find(|(other, b)| {
                let same = (other.offset(), other.bytes()) == (bind.offset(), bind.bytes());
                b.access == Access::ReadWrite && other.overlaps(bind) && !same
            });
            if let (Access::ReadWrite, Some((_, other))) = (binding.access, written) {
                let what = format!("{} and {}", binding.name, other.name);
                return Err(Error::shape(spec.name, what, "memory in common", "apart, as both are written"));
            }
        }
        Ok(())
    }

    /// Records one launch. An empty grid records nothing.
    pub(crate) fn launch<P: Params>(&mut self, launch: Launch<'_, P>) -> Result<()> {
        let Launch { spec, tier, defines, needs, binds, params, groups } = launch;
        self.check(spec, binds)?;
        if let Some(reason) = needs.unmet(self.gpu.caps()) {
            let have = self.gpu.caps().adapter.clone();
            return Err(Error::Unsupported { what: spec.name.into(), need: reason, have });
        }
        if groups == 0 {
            return Ok(());
        }
        let (x, y) = fold(groups, u64::from(self.gpu.caps().max_groups)).ok_or_else(|| Error::Limit {
            what: spec.name.to_string(),
            name: "workgroups of a two-dimensional grid",
            need: groups,
            max: u64::from(self.gpu.caps().max_groups).pow(2),
        })?;
        if !self.used.contains(&(spec.name, tier)) {
            self.used.push((spec.name, tier));
        }
        let bytes = bytemuck::bytes_of(&params);
        debug_assert!(bytes.len() <= IMMEDIATE_BYTES as usize);
        let key = PipelineKey { kernel: spec.name, tier, defines, threads: needs.threads };
        let gpu = &self.gpu;
        match &mut self.target {
            Target::Dry(planned) => {
                planned.pipelines.push((spec, key));
                planned.buffers.extend(binds.iter().map(|t| (t.storage.id, t.storage.clone())));
            }
            Target::Pass(pass) => {
                let pipeline = gpu.0.pipelines.pipeline(gpu, spec, &key)?;
                pass.set_pipeline(&pipeline);
                let group = match &self.stand_ins {
                    None => gpu.0.pipelines.bind_group(gpu, spec, binds),
                    Some(others) => {
                        let swap = |t: &&Tensor| others.get(&t.storage.id).map(|s| t.within(s.clone()));
                        let swapped: Vec<Tensor> =
                            binds.iter().map(|t| swap(t).unwrap_or_else(|| (*t).clone())).collect();
                        gpu.0.pipelines.bind_group(gpu, spec, &swapped.iter().collect::<Vec<_>>())
                    }
                };
                pass.set_bind_group(0, &group, &[]);
                pass.set_immediates(0, bytes);
                pass.dispatch_workgroups(x, y, 1);
            }
            #[cfg(feature = "audit")]
            Target::Hand(hand) => {
                let (defines, tensors, params) = (&key.defines, binds, bytes);
                hand(&Handed { spec, tier, defines, needs, tensors, params, groups: (x, y) })?;
            }
        }
        Ok(())
    }
}

/// Folds `groups` workgroups into x × y with neither over `max`, wasting less than one row.
fn fold(groups: u64, max: u64) -> Option<(u32, u32)> {
    let y = groups.div_ceil(max);
    let x = groups.div_ceil(y);
    (y <= max).then_some((u32::try_from(x).ok()?, u32::try_from(y).ok()?))
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folding_covers_and_stays_within_the_limit() {
        for groups in [1, 2, 65_534, 65_535, 65_536, 65_537, 131_071, 1 << 20, 4_294_836_225] {
            let (x, y) = fold(groups, 65_535).expect("fits");
            assert!(x <= 65_535 && y <= 65_535);
            let covered = u64::from(x) * u64::from(y);
            assert!(covered >= groups && covered - groups < u64::from(y), "{groups}: {x} × {y}");
        }
        assert_eq!(fold(65_535 * 65_535 + 1, 65_535), None);
    }
}
