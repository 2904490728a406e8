//! Rows so long that the Spirv tier takes one of them (`wgsl/matmul/gemv_fragments.wgsl`), for every gemv kernel that has the tier.

use half::f16;

use super::Activation;
use super::cases::Spec;
use crate::format::{Format, Group};
use crate::kernel::{KernelSpec, Level};
use crate::tensor::DType;

/// Shapes around what divides the work: rows of w per tile, packets per block, blocks per subgroup. All groups, the smallest as quick
/// cases; the last one has rows that end within a packet.
const SHAPES: [(Format, Group, usize, usize); 8] = [
    (Format::Fp4, Group::Size(32), 1024, 3136),
    (Format::Fp4, Group::Size(64), 1031, 4096),
    (Format::Fp4, Group::Size(128), 1040, 4224),
    (Format::Int4, Group::Size(32), 1033, 3200),
    (Format::Int4, Group::Size(64), 1024, 3648),
    (Format::Int4, Group::Size(128), 1025, 4096),
    (Format::Int4, Group::WholeK, 1038, 16384),
    (Format::Fp4, Group::WholeK, 1026, 3080),
];

fn new(spec: &'static KernelSpec, (format, group, n, k): (Format, Group, usize, usize)) -> Spec {
    let level = if group == Group::Size(32) { Level::Quick } else { Level::Full };
    Spec { group, ..Spec::new(spec, level, format, DType::F16, (1, n, k)) }
}

/// Without what a split has no use for.
pub(super) fn long_rows(spec: &'static KernelSpec) -> Vec<Spec> {
    SHAPES.map(|shape| new(spec, shape)).to_vec()
}

/// Those and all that the epilogue does, other outputs, scales at the edges of halves, a weight in parts, and more tiles than
/// workgroups.
pub(super) fn long_rows_and_more(spec: &'static KernelSpec) -> Vec<Spec> {
    let [fp4, .., int4, _] = SHAPES.map(|shape| new(spec, shape));
    let fp4 = Spec { level: Level::Full, ..fp4 };
    let out = |out| Spec { dtypes: (DType::F16, out), ..fp4 };
    let mut all = long_rows(spec);
    all.extend([out(DType::F32), out(DType::Bf16)]);
    all.extend([f16::MAX, f16::from_bits(1)].map(|scale| Spec { scales: Some(scale), ..out(DType::F32) }));
    all.push(Spec {
        bias: true,
        residual: true,
        scale: -0.5,
        out_row: 2,
        activation: Activation::Relu,
        ..fp4
    });
    all.push(Spec { part_bytes: 1 << 20, bias: true, ..fp4 });
    all.push(Spec { shape: (1, 2130, 8256), ..int4 });
    all
}
