//! Metal libraries that were compiled ahead of time: the MSL of a device's pipelines has names, and a caller who has compiled
//! one hands the result back under it.

use std::collections::HashMap;

/// The MSL of one pipeline, as [`Gpu::msl_sources`](crate::Gpu::msl_sources) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MslSource {
    /// `qgemv-0123456789abcdef`: the kernel, and a hash of the text. Another version of the crate that changes the text changes the
    /// name too, so a library never meets a text that it was not made of.
    pub name: String,
    pub text: String,
}

impl MslSource {
    pub(crate) fn new(kernel: &str, text: String) -> MslSource {
        MslSource { name: format!("{kernel}-{:016x}", hash(text.as_bytes())), text }
    }
}

/// FNV-1a, which stays the same from one build to the next.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Libraries by the name of their source.
pub(crate) type MetalLibraries = HashMap<String, Vec<u8>>;

/// What wgpu passes on to Metal: the library if there is one of this source, else the text.
pub(crate) fn passthrough<'a>(
    label: &'a str,
    entry: &'a wgpu::PassthroughShaderEntryPoint<'a>,
    source: &'a MslSource,
    libraries: &'a MetalLibraries,
) -> wgpu::ShaderModuleDescriptorPassthrough<'a> {
    let library = libraries.get(&source.name);
    wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(label),
        entry_points: std::borrow::Cow::Borrowed(std::slice::from_ref(entry)),
        metallib: library.map(|bytes| bytes.as_slice().into()),
        msl: library.is_none().then(|| source.text.as_str().into()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_text() {
        let named = |text: &str| MslSource::new("gemm", text.into()).name;
        // The offset basis is the hash of nothing; the second is from the published test vectors.
        assert_eq!(named(""), "gemm-cbf29ce484222325");
        assert_eq!(named("foobar"), "gemm-85944171f73967e8");
        assert_ne!(named("kernel a"), named("kernel b"));
    }

    #[test]
    fn a_library_takes_the_place_of_its_own_text_only() {
        let [mine, other] = ["kernel a", "kernel b"].map(|text| MslSource::new("gemm", text.into()));
        let libraries = MetalLibraries::from([(mine.name.clone(), vec![1, 2, 3])]);
        let entry = wgpu::PassthroughShaderEntryPoint { name: "gemm".into(), workgroup_size: (32, 1, 1) };
        let made = passthrough("gemm", &entry, &mine, &libraries);
        assert_eq!((made.metallib.as_deref(), made.msl), (Some(&[1, 2, 3][..]), None));
        let made = passthrough("gemm", &entry, &other, &libraries);
        assert_eq!((made.metallib, made.msl.as_deref()), (None, Some("kernel b")));
    }
}
