//! Every kernel, by hand, in a stable order.

use super::spec::KernelSpec;

/// All kernels.
pub static CATALOGUE: &[&KernelSpec] = &[
    &crate::norm::RMS_NORM,
    &crate::embed::EMBED,
    &crate::rope::ROPE,
    &crate::elementwise::ELEMENTWISE,
    &crate::argmax::ARGMAX,
    &crate::sample::SAMPLE,
    &crate::softmax::SOFTMAX,
];

/// The kernel of that name.
pub fn find(name: &str) -> Option<&'static KernelSpec> {
    CATALOGUE.iter().copied().find(|spec| spec.name == name)
}
