//! What every kernel family shares: the declaration ([`KernelSpec`]), the shader composer, the caches, the
//! recorder, and the cases by which a kernel is proved.

mod case;
mod catalogue;
mod compose;
mod msl_library;
mod pipeline;
mod plan;
mod recorder;
mod spec;
pub(crate) mod spirv;

#[cfg(feature = "audit")]
pub(crate) use case::GUARD;
pub use case::{Case, Check, Level, Prepared, Random, Rule};
pub(crate) use case::{POISON, round_to};
pub use catalogue::{CATALOGUE, find};
#[cfg(feature = "audit")]
pub use compose::shaders_from;
pub use compose::{Composed, compose};
pub use msl_library::MslSource;
pub(crate) use pipeline::PipelineCache;
pub(crate) use plan::{index32, unit};
#[cfg(feature = "audit")]
pub use recorder::Handed;
pub(crate) use recorder::Launch;
pub use recorder::Recorder;
#[cfg(feature = "audit")]
pub(crate) use recorder::{Planned, StandIns};
pub use spec::{
    Access, Binding, Cost, Def, Defines, Field, KernelSpec, Needs, Params, Tier, TierSpec, Variant,
};
pub(crate) use spec::{defines, params, set_flag, tier};
