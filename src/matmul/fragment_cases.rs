//! Rows so long that the Spirv tier takes one of them (`wgsl/matmul/gemv_fragments.wgsl`), for every gemv kernel that has the tier.

use half::f16;

use super::Activation;
use super::cases::Spec;
use crate::format::{Format, Group};
use crate::kernel::{KernelSpec, Level};
use crate::tensor::DType;

/// Of a weight: its groups, rows and columns.
type Shape = (Format, Group, usize, usize);

/// Shapes around what divides the work: rows of w per tile, packets per block, blocks per subgroup. All groups, the smallest of short rows as quick
/// cases; rows of 3080 end within a packet.
const SHAPES: [Shape; 15] = [
    (Format::Fp4, Group::Size(32), 1024, 3136),
    (Format::Fp4, Group::Size(64), 1031, 4096),
    (Format::Fp4, Group::Size(128), 1040, 4224),
    (Format::Fp4, Group::Size(32), 1035, 7232),
    (Format::Mxfp4, Group::Size(32), 1029, 3136),
    (Format::Mxfp4, Group::Size(32), 1024, 4160),
    (Format::Nvfp4, Group::Size(16), 1030, 3136),
    (Format::Nvfp4, Group::Size(16), 1025, 4160),
    (Format::Int4, Group::Size(32), 1033, 3200),
    (Format::Int4, Group::Size(64), 1024, 3648),
    (Format::Int4, Group::Size(128), 1025, 4096),
    (Format::Int4, Group::WholeK, 1027, 3080),
    (Format::Int4, Group::WholeK, 1040, 8136),
    (Format::Int4, Group::WholeK, 1038, 16384),
    (Format::Fp4, Group::WholeK, 1026, 3080),
];

/// The same for integers as bytes (`wgsl/common/gemv_bytes.wgsl`), which many rows of w take: steps that are not full, the fewest rows
/// and the shortest, all groups, padded rows.
const BYTES_SHAPES: [Shape; 7] = [
    (Format::Int4, Group::Size(128), 8001, 4224),
    (Format::Int3, Group::Size(32), 8010, 3136),
    (Format::Int3, Group::Size(64), 8006, 3136),
    (Format::Int2, Group::Size(128), 8000, 3200),
    (Format::Int2, Group::WholeK, 8002, 3080),
    (Format::Int3, Group::WholeK, 8003, 16384),
    (Format::Int4, Group::Size(64), 31_999, 4160),
];

/// And for a codebook's values from a table of pairs, on matrices: all groups, rows that end within a packet.
const TABLE_SHAPES: [Shape; 3] = [
    (Format::Nf4, Group::Size(64), 8001, 4096),
    (Format::Nf4, Group::Size(32), 8010, 3136),
    (Format::Nf4, Group::WholeK, 8002, 3080),
];
/// … and by lanes (`wgsl/common/gemv_pairs.wgsl`): more rows, and longer ones, of two, of three and of seven shares, and padded.
const PAIRS_SHAPES: [Shape; 4] = [
    (Format::Nf4, Group::Size(64), 8001, 4160),
    (Format::Nf4, Group::Size(32), 16_900, 3136),
    (Format::Nf4, Group::Size(128), 8000, 8320),
    (Format::Nf4, Group::WholeK, 8003, 13_320),
];

/// And for two to eight rows of activations (`wgsl/common/gemv_few.wgsl`): the most of each width, rows that end within a packet, and on a large GPU
/// more tiles to a workgroup than wait at once.
const FEW_SHAPES: [(usize, Shape); 8] = [
    (2, (Format::Fp4, Group::Size(32), 1031, 3136)),
    (8, (Format::Int4, Group::Size(32), 1033, 3200)),
    (5, (Format::Fp4, Group::WholeK, 1026, 3080)),
    (4, (Format::Int4, Group::Size(128), 1025, 4096)),
    (8, (Format::Mxfp4, Group::Size(32), 1029, 3136)),
    (3, (Format::Nvfp4, Group::Size(16), 1030, 3648)),
    (8, (Format::Fp4, Group::Size(64), 12_001, 3136)),
    (4, (Format::Int4, Group::WholeK, 19_003, 3080)),
];

fn few(spec: &'static KernelSpec, (m, shape): (usize, Shape)) -> Spec {
    let one = new(spec, shape);
    let level = if one.format.fixed_group().is_some() { Level::Full } else { one.level };
    Spec { level, shape: (m, one.shape.1, one.shape.2), ..one }
}

fn new(spec: &'static KernelSpec, (format, group, n, k): Shape) -> Spec {
    let quick = matches!(group, Group::Size(16 | 32)) && n < 8000 && k < 4000;
    let level = if quick { Level::Quick } else { Level::Full };
    Spec { group, ..Spec::new(spec, level, format, DType::F16, (1, n, k)) }
}

/// Without what a split has no use for.
pub(super) fn long_rows(spec: &'static KernelSpec) -> Vec<Spec> {
    let [bytes @ .., _, _] = BYTES_SHAPES;
    let [pairs @ .., _, _] = PAIRS_SHAPES;
    let one = SHAPES.into_iter().chain(bytes).chain(TABLE_SHAPES).chain(pairs).map(|shape| new(spec, shape));
    one.chain(FEW_SHAPES.map(|shape| few(spec, shape))).collect()
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
    all.push(Spec { shape: (1, 4300, 4096), ..fp4 });
    all.push(Spec { shape: (1, 8002, 3648), ..int4 });
    let [.., longest, most] = BYTES_SHAPES.map(|shape| new(spec, shape));
    let bytes = new(spec, BYTES_SHAPES[0]);
    let scaled = |scale| Spec { scales: Some(scale), dtypes: (DType::F16, DType::F32), ..bytes };
    all.extend([f16::MAX, f16::from_bits(1)].map(scaled));
    all.push(Spec { dtypes: (DType::F16, DType::Bf16), shape: (1, 8002, 4224), ..bytes });
    all.push(Spec { bias: true, residual: true, part_bytes: 1 << 23, ..bytes });
    all.extend([longest, most]);
    let [fp4, int4, ends, ..] =
        FEW_SHAPES.map(|shape| Spec { level: Level::Full, bias: true, residual: true, ..few(spec, shape) });
    let out = |out, few| Spec { dtypes: (DType::F16, out), ..few };
    // Weights are halves here, so six times the scale is.
    let edges = [f16::from_f32(10_912.0), f16::MIN_POSITIVE];
    all.extend(edges.map(|scale| Spec { scales: Some(scale), ..out(DType::F32, fp4) }));
    all.push(Spec { activation: Activation::Relu, scale: -0.5, out_row: 2, ..int4 });
    all.push(Spec { part_bytes: 1 << 20, ..out(DType::Bf16, ends) });
    let [pairs, _, long, longer] = PAIRS_SHAPES.map(|shape| new(spec, shape));
    all.extend([long, longer]);
    all.push(Spec { bias: true, residual: true, part_bytes: 1 << 24, shape: (1, 12_000, 4160), ..pairs });
    all
}
