//! Every kernel, by hand, in a stable order.

use super::spec::KernelSpec;

/// All kernels.
pub static CATALOGUE: &[&KernelSpec] = &[
    &crate::norm::RMS_NORM,
    &crate::attention::ATTENTION,
    &crate::attention::ATTENTION_DECODE,
    &crate::attention::ATTENTION_MERGE,
];

/// The kernel of that name.
pub fn find(name: &str) -> Option<&'static KernelSpec> {
    CATALOGUE.iter().copied().find(|spec| spec.name == name)
}
