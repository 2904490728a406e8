//! Composes every variant, validates it with naga, translates it to SPIR-V, MSL and HLSL, and reads back the
//! layouts that the host relies on.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::error::{Error, Result};
use crate::kernel::{Access, Composed, Field, KernelSpec, Tier, TierSpec, Variant, spirv};

/// What naga reads in a shader.
#[derive(Clone, Debug, PartialEq)]
pub struct Reflection {
    pub params: Vec<ShaderField>,
    /// Number, name and access of each storage binding, in order of number.
    pub bindings: Vec<(u32, String, Access)>,
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
}

/// A field as the shader lays it out.
#[derive(Clone, Debug, PartialEq)]
pub struct ShaderField {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

impl PartialEq<Field> for ShaderField {
    fn eq(&self, other: &Field) -> bool {
        self.name == other.name && self.offset == other.offset && self.size == other.size
    }
}

/// A parsed and validated shader.
pub struct Parsed {
    pub module: naga::Module,
    pub info: ModuleInfo,
    pub reflection: Reflection,
}

/// Parses and validates the text of one variant.
///
/// # Errors
/// [`Error::Compile`] with the original file and line.
pub fn parse(spec: &KernelSpec, tier: &TierSpec, variant: &Variant, composed: &Composed) -> Result<Parsed> {
    let fail = |line: Option<u32>, log: String| Error::Compile {
        kernel: format!("{} [{}] {:?}", spec.name, tier.tier.name(), variant.defines),
        log: format!("{}: {log}", line.map_or(tier.path.to_string(), |l| composed.origin(l as usize))),
    };
    let module = naga::front::wgsl::Frontend::new_with_options(naga::front::wgsl::Options {
        parse_doc_comments: false,
        capabilities: Capabilities::all(),
    })
    .parse(&composed.text)
    .map_err(|e| fail(e.location(&composed.text).map(|l| l.line_number), e.emit_to_string(&composed.text)))?;
    let info =
        Validator::new(ValidationFlags::all(), declared(tier.tier, variant)).validate(&module).map_err(
            |e| fail(e.location(&composed.text).map(|l| l.line_number), e.emit_to_string(&composed.text)),
        )?;
    let reflection = reflect(&module);
    Ok(Parsed { module, info, reflection })
}

/// What a shader may use without having declared more: f16 in arithmetic only with `needs.f16`, subgroup operations
/// only above the Base tier, cooperative matrices only with `needs.coop_side`.
fn declared(tier: Tier, variant: &Variant) -> Capabilities {
    let mut allowed = Capabilities::all();
    allowed.set(Capabilities::SHADER_FLOAT16, variant.needs.f16);
    allowed.set(Capabilities::COOPERATIVE_MATRIX, variant.needs.coop_side != 0);
    allowed.set(Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER, tier > Tier::Base);
    allowed
}

/// Where the shader and its declaration disagree: parameter layout, bindings, threads, workgroup memory.
pub fn disagreements(spec: &KernelSpec, variant: &Variant, shader: &Reflection) -> Vec<String> {
    let mut found = Vec::new();
    if shader.params != spec.params {
        found
            .push(format!("parameters are {:?} in the shader, {:?} on the host", shader.params, spec.params));
    }
    if let Some(end) = spec.params.last().map(|f| f.offset + f.size).filter(|end| *end > MAX_IMMEDIATES) {
        found.push(format!("parameters take {end} bytes, at most {MAX_IMMEDIATES} fit"));
    }
    let declared: Vec<_> =
        (0u32..).zip(spec.bindings).map(|(i, b)| (i, b.name.to_string(), b.access)).collect();
    if shader.bindings != declared {
        found.push(format!("bindings are {:?} in the shader, {declared:?} on the host", shader.bindings));
    }
    let threads: u32 = shader.workgroup_size.iter().product();
    if threads != variant.needs.threads {
        found.push(format!("workgroup has {threads} threads, needs.threads = {}", variant.needs.threads));
    }
    if shader.workgroup_storage > variant.needs.workgroup_storage {
        let (has, said) = (shader.workgroup_storage, variant.needs.workgroup_storage);
        found.push(format!("workgroup memory takes {has} bytes, needs.workgroup_storage = {said}"));
    }
    found
}

/// Bytes of immediates that every backend offers.
const MAX_IMMEDIATES: usize = 128;

fn reflect(module: &naga::Module) -> Reflection {
    let layouts = module.to_ctx();
    let mut reflection = Reflection {
        params: Vec::new(),
        bindings: Vec::new(),
        workgroup_size: module.entry_points.first().map_or([0; 3], |e| e.workgroup_size),
        workgroup_storage: 0,
    };
    let mut bindings = Vec::new();
    for (_, global) in module.global_variables.iter() {
        match global.space {
            naga::AddressSpace::Immediate => {
                if let naga::TypeInner::Struct { members, .. } = &module.types[global.ty].inner {
                    reflection.params = members
                        .iter()
                        .map(|m| ShaderField {
                            name: m.name.clone().unwrap_or_default(),
                            offset: m.offset as usize,
                            size: module.types[m.ty].inner.size(layouts) as usize,
                        })
                        .collect();
                }
            }
            naga::AddressSpace::WorkGroup => {
                reflection.workgroup_storage += module.types[global.ty].inner.size(layouts);
            }
            naga::AddressSpace::Storage { access } => {
                let number = global.binding.filter(|b| b.group == 0).map_or(u32::MAX, |b| b.binding);
                let access = if access.contains(naga::StorageAccess::STORE) {
                    Access::ReadWrite
                } else {
                    Access::Read
                };
                bindings.push((number, global.name.clone().unwrap_or_default(), access));
            }
            _ => {}
        }
    }
    bindings.sort_by_key(|b: &(u32, String, Access)| b.0);
    reflection.bindings = bindings;
    reflection
}

/// Translates to SPIR-V, of the Spirv tier with its matrices made of private arrays, MSL and HLSL. A cooperative-matrix kernel has no HLSL, and MSL knows only matrices of side
/// 8: what naga or the language cannot do is named in the result; anything else is an error.
///
/// # Errors
/// [`Error::Compile`] naming the language.
pub fn translate(
    spec: &KernelSpec,
    tier: &TierSpec,
    variant: &Variant,
    parsed: &Parsed,
) -> Result<Vec<&'static str>> {
    let Parsed { module, info, .. } = parsed;
    let fail = |language: &str, log: String| Error::Compile {
        kernel: format!("{} [{}] {:?}", spec.name, tier.tier.name(), variant.defines),
        log: format!("{language}: {log}"),
    };
    let coop = variant.needs.coop_side;
    let mut done = Vec::new();

    let options = spv::Options { lang_version: (1, 4), capabilities: None, ..spv::Options::default() };
    let words = spv::write_vec(module, info, &options, None).map_err(|e| fail("SPIR-V", e.to_string()))?;
    if tier.tier == Tier::Spirv {
        spirv::fragments(&words).map_err(|why| fail("SPIR-V", why.to_string()))?;
    }
    done.push("SPIR-V");

    if coop != 16 {
        let options =
            msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..msl::Options::default() };
        msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .map_err(|e| fail("MSL", e.to_string()))?;
        done.push("MSL");
    }
    if coop == 0 {
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_6,
            fake_missing_bindings: true,
            immediates_target: Some(hlsl::BindTarget::default()),
            special_constants_binding: Some(hlsl::BindTarget { space: 1, ..Default::default() }),
            ..hlsl::Options::default()
        };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default())
            .write(module, info, None)
            .map_err(|e| fail("HLSL", e.to_string()))?;
        done.push("HLSL");
    }
    Ok(done)
}
