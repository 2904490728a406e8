//! Every kernel, by hand, in a stable order.

use super::spec::KernelSpec;

/// All kernels.
#[rustfmt::skip]
pub static CATALOGUE: &[&KernelSpec] = &[
    &crate::embed::EMBED,
    &crate::elementwise::ELEMENTWISE,
    &crate::norm::RMS_NORM,
    &crate::norm::LAYER_NORM,
    &crate::rope::ROPE,
    &crate::matmul::GEMM,
    &crate::matmul::QGEMM,
    &crate::matmul::QGEMV,
    &crate::matmul::GATE_UP,
    &crate::matmul::GATE_UP_GEMV,
    &crate::matmul::NORM_QGEMV,
    &crate::matmul::NORM_GATE_UP_GEMV,
    &crate::matmul::QKV,
    &crate::matmul::QKV_GEMV,
    &crate::matmul::NORM_QKV_GEMV,
    &crate::matmul::GEMM_BATCHED,
    &crate::matmul::ARRANGE_ROWS,
    &crate::sparse::GEMM_SPARSE,
    &crate::sparse::GEMV_SPARSE,
    &crate::dequant::DEQUANT,
    &crate::quantize::QUANTIZE,
    &crate::attention::ATTENTION,
    &crate::attention::ATTENTION_VARLEN,
    &crate::attention::ATTENTION_PAGED,
    &crate::attention::ATTENTION_DECODE,
    &crate::attention::ATTENTION_MERGE,
    &crate::attention::MERGE_LSE,
    &crate::attention::ATTENTION_PROBS,
    &crate::attention_diff::DIFF_QUERIES,
    &crate::attention_diff::DIFF_COMBINE,
    &crate::kv::KV_WRITE,
    &crate::kv::KV_COPY,
    &crate::kv::KV_MOVE,
    &crate::softmax::SOFTMAX,
    &crate::argmax::ARGMAX,
    &crate::sample::SAMPLE,
    &crate::tree::TREE_MASK,
    &crate::tree::TREE_ACCEPT,
    &crate::tree::TREE_SAMPLED,
];

/// The kernel of that name.
pub fn find(name: &str) -> Option<&'static KernelSpec> {
    CATALOGUE.iter().copied().find(|spec| spec.name == name)
}
