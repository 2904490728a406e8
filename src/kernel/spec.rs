//! The declaration of a kernel, from which pipelines, layouts, tests, audit rows, benches, the support table
//! and the warm-up list are made.

use super::case::Case;
use crate::device::{Capability, Caps};

/// How a kernel is implemented; the best one that the adapter can run is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// Plain WGSL without optional features.
    Base,
    /// WGSL with subgroup operations of any width.
    Subgroup,
    /// WGSL with cooperative matrices.
    Coop,
    /// SPIR-V with cooperative matrices that threads fill from registers, through wgpu's passthrough modules; see
    /// `src/kernel/spirv.rs`.
    Spirv,
    /// MSL with simdgroup matrices, through wgpu's passthrough modules.
    Msl,
}

impl Tier {
    /// Best last.
    pub const ALL: [Tier; 5] = [Tier::Base, Tier::Subgroup, Tier::Coop, Tier::Spirv, Tier::Msl];

    pub fn name(self) -> &'static str {
        match self {
            Tier::Base => "base",
            Tier::Subgroup => "subgroup",
            Tier::Coop => "coop",
            Tier::Spirv => "spirv",
            Tier::Msl => "msl",
        }
    }

    pub fn parse(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The capability without which the tier cannot run.
    pub fn needs(self) -> Option<Capability> {
        match self {
            Tier::Base => None,
            Tier::Subgroup => Some(Capability::Subgroup),
            Tier::Coop => Some(Capability::Coop),
            Tier::Spirv => Some(Capability::Spirv),
            Tier::Msl => Some(Capability::Msl),
        }
    }
}

/// The value of a name that a shader is specialised on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Def {
    /// `const NAME: bool`; in MSL `constant constexpr bool NAME`
    Flag(bool),
    /// `const NAME: u32`; in MSL `constant constexpr uint NAME`
    Num(u32),
    /// `alias NAME = type`; in MSL `using NAME = type`. The type has its WGSL name.
    Type(&'static str),
    /// A word that only `#if NAME == word` looks at.
    Word(&'static str),
}

impl Def {
    /// Whether this is how it is written, as `to_string()` would say.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Def::Flag(b) => text == if *b { "true" } else { "false" },
            Def::Num(n) => text.parse() == Ok(*n),
            Def::Type(s) | Def::Word(s) => *s == text,
        }
    }
}

impl std::fmt::Display for Def {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Def::Flag(b) => b.fmt(f),
            Def::Num(n) => n.fmt(f),
            Def::Type(s) | Def::Word(s) => s.fmt(f),
        }
    }
}

/// Everything a shader is specialised on, in the order in which the planner wrote it.
pub type Defines = Vec<(&'static str, Def)>;

/// Sets or clears a flag that is among the defines.
pub(crate) fn set_flag(defines: &mut Defines, name: &str, flag: bool) {
    defines.iter_mut().filter(|d| d.0 == name).for_each(|d| d.1 = Def::Flag(flag));
}

/// `defines![NAME = value, ...]`
macro_rules! defines {
    ($($name:ident = $value:expr),* $(,)?) => {
        vec![$((stringify!($name), $value)),*]
    };
}
pub(crate) use defines;

/// One legal specialisation of one tier, and what it needs beyond the tier itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Variant {
    pub defines: Defines,
    pub needs: Needs,
}

/// What a variant needs of the adapter beyond its tier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Needs {
    pub f16: bool,
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Side of the cooperative matrices, 0 for none.
    pub coop_side: u32,
    /// Exact subgroup size that the variant is written for, 0 for any.
    pub subgroup_size: u32,
}

impl From<Variant> for (Defines, Needs) {
    fn from(variant: Variant) -> Self {
        (variant.defines, variant.needs)
    }
}

impl Needs {
    /// Why `caps` does not suffice, if it does not.
    pub fn unmet(&self, caps: &Caps) -> Option<String> {
        if self.f16 && !caps.f16 {
            return Some(format!("f16 ({})", caps.why_missing(Capability::F16)));
        }
        if self.workgroup_storage > caps.max_workgroup_storage {
            let (need, max) = (self.workgroup_storage, caps.max_workgroup_storage);
            return Some(format!("{need} bytes of workgroup memory (the adapter has {max})"));
        }
        if self.threads > caps.max_workgroup_threads {
            let (need, max) = (self.threads, caps.max_workgroup_threads);
            return Some(format!("{need} threads in a workgroup (the adapter has {max})"));
        }
        if self.coop_side != 0 && caps.coop_side != Some(self.coop_side) {
            return Some(format!("cooperative matrices of side {}", self.coop_side));
        }
        if self.subgroup_size != 0 && caps.subgroup_size != self.subgroup_size {
            let (need, has) = (self.subgroup_size, caps.subgroup_size);
            return Some(format!("subgroups of {need} lanes (the adapter has {has})"));
        }
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    Read,
    ReadWrite,
}

/// One storage binding of group 0. Its number is its place in [`KernelSpec::bindings`], so on Metal it is
/// `buffer(place + 1)`; immediates are `buffer(0)`.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    pub name: &'static str,
    pub access: Access,
}

/// A field of a parameter struct as the host lays it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub size: usize,
}

/// A struct passed by immediates. Made by the `params!` macro, which also records the layout that the tests
/// compare with what naga reads in the shader.
pub trait Params: bytemuck::Pod {
    const FIELDS: &'static [Field];
}

/// `params! { pub(super) struct NormParams { rows: u32, eps: f32 } }`
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fm:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name { $($(#[$fm])* pub $field: $ty),* }
        impl $crate::kernel::Params for $name {
            const FIELDS: &'static [$crate::kernel::Field] = &[$($crate::kernel::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                size: std::mem::size_of::<$ty>(),
            }),*];
        }
    };
}
pub(crate) use params;

/// The implementation of a kernel at one tier.
pub struct TierSpec {
    pub tier: Tier,
    /// Path below `wgsl/`, for the Msl tier below `msl/`.
    pub path: &'static str,
    pub source: &'static str,
    /// Every legal specialisation.
    pub variants: fn() -> Vec<Variant>,
}

impl TierSpec {
    /// The name of the entry point: `main` in WGSL; in MSL, where that name is taken, the file's.
    pub fn entry(&self) -> &'static str {
        let file = self.path.rsplit('/').next().unwrap_or(self.path);
        file.strip_suffix(".metal").unwrap_or("main")
    }
}

/// `tier!(Base, "norm/rms_norm.wgsl", variants_fn)`
macro_rules! tier {
    (Msl, $path:literal, $variants:expr) => {
        $crate::kernel::TierSpec {
            tier: $crate::kernel::Tier::Msl,
            path: $path,
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/msl/", $path)),
            variants: $variants,
        }
    };
    ($tier:ident, $path:literal, $variants:expr) => {
        $crate::kernel::TierSpec {
            tier: $crate::kernel::Tier::$tier,
            path: $path,
            source: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/wgsl/", $path)),
            variants: $variants,
        }
    };
}
pub(crate) use tier;

/// The work of one launch, for the audit's GB/s and TFLOP/s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes that must be moved: every input read once, every output written once.
    pub bytes: u64,
    pub flops: u64,
}

/// One kernel. It cannot exist without a twin, cases and a tolerance: the cases compare every tier with the
/// family's `cpu.rs` under a [`Rule`](super::Rule).
pub struct KernelSpec {
    pub name: &'static str,
    pub family: &'static str,
    /// Rows of the upstream inventory that this kernel serves.
    pub replaces: &'static [&'static str],
    pub params: &'static [Field],
    pub bindings: &'static [Binding],
    /// Worst first: the planner takes the last one that the adapter can run.
    pub tiers: &'static [TierSpec],
    /// Test and bench cases.
    pub cases: fn() -> Vec<Case>,
}

impl KernelSpec {
    pub fn tier(&self, tier: Tier) -> Option<&TierSpec> {
        self.tiers.iter().find(|t| t.tier == tier)
    }
}
