//! Composes every variant, validates it with naga, translates it to SPIR-V, MSL and HLSL, and reads back the
//! layouts that the host relies on.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::error::{Error, Result};
use crate::kernel::{Access, Field, KernelSpec, TierSpec, Variant, compose};

/// What naga reads in a shader.
#[derive(Clone, Debug, PartialEq)]
pub struct Reflection {
    pub params: Vec<Field2>,
    /// Name and access of each binding of group 0, in order of number.
    pub bindings: Vec<(String, Access)>,
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_storage: u32,
}

/// A field as the shader lays it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Field2 {
    pub name: String,
    pub offset: usize,
    pub size: usize,
}

impl PartialEq<Field> for Field2 {
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

/// Composes, parses and validates one variant.
///
/// # Errors
/// [`Error::Compile`] with the original file and line.
pub fn parse(spec: &KernelSpec, tier: &TierSpec, variant: &Variant) -> Result<Parsed> {
    let composed = compose(tier.path, tier.source, &variant.defines)?;
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
        Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|e| {
            fail(e.location(&composed.text).map(|l| l.line_number), e.emit_to_string(&composed.text))
        })?;
    let reflection = reflect(&module);
    Ok(Parsed { module, info, reflection })
}

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
                        .map(|m| Field2 {
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
                let number = global.binding.map_or(u32::MAX, |b| b.binding);
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
    bindings.sort_by_key(|b| b.0);
    reflection.bindings = bindings.into_iter().map(|(_, name, access)| (name, access)).collect();
    reflection
}

/// Translates to SPIR-V, MSL and HLSL. A cooperative-matrix kernel has no HLSL, and MSL knows only matrices of side
/// 8: what naga or the language cannot do is named in the result; anything else is an error.
///
/// # Errors
/// [`Error::Compile`] naming the language.
pub fn translate(spec: &KernelSpec, tier: &TierSpec, variant: &Variant) -> Result<Vec<&'static str>> {
    let Parsed { module, info, .. } = parse(spec, tier, variant)?;
    let fail = |language: &str, log: String| Error::Compile {
        kernel: format!("{} [{}] {:?}", spec.name, tier.tier.name(), variant.defines),
        log: format!("{language}: {log}"),
    };
    let coop = variant.needs.coop_side;
    let mut done = Vec::new();

    let options = spv::Options { lang_version: (1, 4), capabilities: None, ..spv::Options::default() };
    spv::write_vec(&module, &info, &options, None).map_err(|e| fail("SPIR-V", e.to_string()))?;
    done.push("SPIR-V");

    if coop != 16 {
        let options =
            msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..msl::Options::default() };
        msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
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
            .write(&module, &info, None)
            .map_err(|e| fail("HLSL", e.to_string()))?;
        done.push("HLSL");
    }
    Ok(done)
}
