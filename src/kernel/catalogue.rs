//! Every kernel, by hand, in a stable order.

use super::spec::KernelSpec;

/// All kernels.
#[rustfmt::skip]
pub static CATALOGUE: &[&KernelSpec] = &[
    &crate::embed::EMBED,
    &crate::norm::RMS_NORM,
    &crate::rope::ROPE,
    &crate::matmul::GEMM,
    &crate::matmul::QGEMM,
    &crate::matmul::QGEMV,
    &crate::matmul::GATE_UP,
    &crate::matmul::GATE_UP_GEMV,
];

/// The kernel of that name.
pub fn find(name: &str) -> Option<&'static KernelSpec> {
    CATALOGUE.iter().copied().find(|spec| spec.name == name)
}
