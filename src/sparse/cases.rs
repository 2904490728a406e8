//! Cases of the sparse products.

use half::f16;

use super::{Compress, GEMM_SPARSE, GEMV_SPARSE, Pattern, SparseLinear, SparseMatrix, SparseWeight};
use super::{cpu, record_with};
use crate::format::{Format, Group, ScaleSearch};
use crate::kernel::{Case, Check, Cost, KernelSpec, Level, Prepared, Random, Recorder, Rule, round_to};
use crate::matmul::{Activation, places};
use crate::tensor::DType;
use Level::{Full, Perf, Quick};

/// One product.
#[derive(Clone, Copy)]
struct Spec {
    spec: &'static KernelSpec,
    level: Level,
    pattern: Pattern,
    format: Format,
    group: Group,
    dtypes: (DType, DType),
    shape: (usize, usize, usize),
    bias: bool,
    residual: bool,
    activation: Activation,
    /// Factor of the activations.
    size: f32,
    /// Upload the weight in parts of this many bytes.
    part_bytes: u64,
}

const FLOATS: [DType; 2] = [DType::F32, DType::F16];

impl Spec {
    fn new(
        spec: &'static KernelSpec,
        level: Level,
        (pattern, format): (Pattern, Format),
        dtype: DType,
        shape: (usize, usize, usize),
    ) -> Self {
        Spec {
            spec,
            level,
            pattern,
            format,
            group: if shape.2.is_multiple_of(32) { Group::Size(32) } else { Group::WholeK },
            dtypes: (dtype, dtype),
            shape,
            bias: false,
            residual: false,
            activation: Activation::None,
            size: 1.0,
            part_bytes: u64::MAX,
        }
    }

    /// With everything that the epilogue can do, and another dtype of out.
    fn full_epilogue(self, activation: Activation) -> Self {
        let out = FLOATS.into_iter().find(|d| *d != self.dtypes.0).unwrap_or(DType::F32);
        Spec { bias: true, residual: true, activation, dtypes: (self.dtypes.0, out), ..self }
    }

    fn label(&self) -> String {
        let (m, n, k) = self.shape;
        let mut label = format!("{m}×{k}→{n} {} {}", self.pattern.name(), self.format.name());
        match self.group {
            _ if !self.format.is_quantised() => {}
            Group::Size(g) => label += &format!(" g{g}"),
            Group::WholeK => label += " gK",
        }
        if self.dtypes.0 != self.dtypes.1 {
            label += &format!(" → {}", self.dtypes.1.wgsl());
        }
        if self.bias {
            label += " +bias";
        }
        if self.activation != Activation::None {
            label += &format!(" {:?}", self.activation);
        }
        if self.residual {
            label += " +residual";
        }
        if self.size != 1.0 {
            label += &format!(" a·{:e}", self.size);
        }
        if self.part_bytes != u64::MAX {
            label += " in parts";
        }
        label
    }

    fn matrix(&self, random: &mut Random) -> crate::Result<SparseMatrix> {
        let (_, n, k) = self.shape;
        let Spec { pattern, format, group, .. } = *self;
        let how = Compress { pattern, format, group, search: ScaleSearch::AbsMax, importance: None };
        // Large ones repeat some rows, which are quicker to make, in a changing order, with scales of their own.
        let distinct = if self.level == Perf || n * k > 1 << 22 { n.min(61) } else { n };
        let values: Vec<f32> = (0..distinct * k).map(|_| random.normal()).collect();
        let some = SparseMatrix::from_dense(&values, distinct, k, &how)?;
        if distinct == n {
            return Ok(some);
        }
        let order: Vec<usize> = (0..n).map(|_| random.below(distinct)).collect();
        let pick = |all: &[u32], width: usize| -> Vec<u32> {
            order.iter().flat_map(|&row| &all[row * width..(row + 1) * width]).copied().collect()
        };
        let (values, indices) = (pick(&some.values, some.value_words), pick(&some.indices, some.index_words));
        let scale = |_| f16::from_f32(0.05 + 0.01 * random.unit());
        let scales = (0..n * some.groups()).map(scale).collect();
        SparseMatrix::from_parts((pattern, format, group), n, k, values, indices, scales)
    }

    fn into_case(self) -> Case {
        Case::new(self.level, self.dtypes.0.wgsl(), self.label(), move |gpu, copies| {
            let (m, n, k) = self.shape;
            let mut random = Random::new((m * 7 + n * 31 + k) as u64);
            let (a_type, o_type) = self.dtypes;
            let a: Vec<f32> =
                random.values(m * k, a_type).iter().map(|x| round_to(x * self.size, a_type)).collect();
            let a_gpu = gpu.floats(a_type, &[m, k], &a)?;
            let matrix = self.matrix(&mut random)?;
            let bias = self.bias.then(|| random.values(n, o_type));
            let residual = self.residual.then(|| random.values(m * n, o_type));
            let bias_gpu = bias.as_ref().map(|b| gpu.floats(o_type, &[n], b)).transpose()?;
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(o_type, &[m, n], r)).transpose()?;
            let at = places(&mut random, m * n);
            // One output for all copies: each launch waits for the one before, as the layers of a model do.
            let out = gpu.output(o_type, &[m, n])?;
            let cost = Cost {
                bytes: matrix.bytes() + a_gpu.bytes() + (m * n * o_type.size()) as u64,
                // What is kept.
                flops: 2 * (m * n * matrix.row_kept()) as u64,
            };
            Prepared::sets(copies, cost, || {
                let weight = SparseWeight::upload_in_parts(gpu, &matrix, self.part_bytes)?;
                let want = {
                    let (a, matrix, at) = (a.clone(), matrix.clone(), at.clone());
                    let (bias, residual) = (bias.clone(), residual.clone());
                    move || {
                        let (bias, residual) = (bias.as_deref(), residual.as_deref());
                        cpu::gemm_sparse(&a, &matrix, bias, self.activation, residual, &at)
                    }
                };
                // Coop rounds weights to f16.
                let rule =
                    if a_type == DType::F16 { Rule::Normalised(5e-4) } else { Rule::stored_in(o_type) };
                let check = Check::new("out", &out, rule, want).at(at.clone());
                let (a, bias, residual) = (a_gpu.clone(), bias_gpu.clone(), residual_gpu.clone());
                let out = out.clone();
                let launch = move |recorder: &mut Recorder<'_, '_>| {
                    let (bias, residual) = (bias.as_ref(), residual.as_ref());
                    let plain = SparseLinear::new(&a, &weight, &out);
                    let request = SparseLinear { bias, activation: self.activation, residual, ..plain };
                    record_with(recorder, self.spec, &request)
                };
                Ok((launch, vec![check]))
            })
        })
    }
}

/// Every pattern with every format of values.
fn kinds() -> impl Iterator<Item = (Pattern, Format)> {
    Pattern::ALL.into_iter().flat_map(|p| super::FORMATS.map(|f| (p, f)))
}

/// f32 and f16 in turn, each of a kind's patterns and shapes with one of them: compiling takes most of a case's time.
fn turn((pattern, format): (Pattern, Format), number: usize) -> DType {
    FLOATS[(pattern as usize + format.bits() / 16 + number) % 2]
}

/// Every group for every pattern.
fn groups(spec: &'static KernelSpec, shape: (usize, usize, usize)) -> Vec<Spec> {
    let mut all = Vec::new();
    for kind in kinds().filter(|(_, format)| format.is_quantised()) {
        for (i, group) in
            [Group::Size(16), Group::Size(64), Group::Size(128), Group::WholeK].into_iter().enumerate()
        {
            all.push(Spec { group, ..Spec::new(spec, Full, kind, turn(kind, i), shape) });
        }
    }
    all
}

/// What both kernels are asked: `small` shapes are within the switch at 8 rows for one of them, over it for the other.
fn common(
    spec: &'static KernelSpec,
    quick: (usize, usize, usize),
    edges: &[(usize, usize, usize)],
) -> Vec<Spec> {
    let mut all = Vec::new();
    let (m, n, _) = quick;
    for kind in kinds() {
        let new = |level, dtype, shape| Spec::new(spec, level, kind, dtype, shape);
        for dtype in FLOATS {
            all.push(new(Quick, dtype, quick));
            all.push(new(Full, dtype, (m, n, 96)).full_epilogue(Activation::Silu));
        }
        for (i, &(m, n, k)) in edges.iter().enumerate() {
            all.push(new(Full, turn(kind, i), (m, n, k.next_multiple_of(kind.0.block()))));
        }
        all.push(Spec { part_bytes: 1024, bias: true, ..new(Full, turn(kind, 0), (m, 50, 256)) });
    }
    let activations = Activation::ALL[1..].iter();
    let kind = (Pattern::TwoOfFour, Format::Fp4);
    all.extend(activations.map(|&a| Spec::new(spec, Full, kind, DType::F32, (m, n, 64)).full_epilogue(a)));
    all.extend(groups(spec, (m, 20, 384)));
    let (empty, folded) = ((0, 5, 64), if spec.name == GEMM_SPARSE.name { 65_600 * 64 } else { 1 });
    all.push(Spec::new(spec, Full, kind, DType::F32, empty));
    if folded > 1 {
        // More than 65535 tiles: the grid folds.
        all.push(Spec::new(spec, Full, kind, DType::F16, (folded, 1, 8)));
    }
    all
}

pub(super) fn gemv() -> Vec<Case> {
    let spec = &GEMV_SPARSE;
    // Columns around blocks, chunks (16, 32), packets (64, 128) and the steps of a team (512 to 4096).
    let edges = [
        (1, 1, 4),
        (2, 33, 12),
        (3, 31, 36),
        (5, 7, 132),
        (1, 130, 1028),
        (2, 65, 2072),
        (4, 9, 1096),
        (1, 3, 4100),
    ];
    let mut all = common(spec, (1, 24, 64), &edges);
    for kind in kinds() {
        for m in 1..=8 {
            all.push(Spec::new(spec, Full, kind, turn(kind, m), (m, 37, 160)));
        }
    }
    // More than 65535 workgroups, and rows enough that teams take four.
    let kind = (Pattern::FourOfEight, Format::Int4);
    all.push(Spec::new(spec, Full, kind, DType::F32, (1, 1_050_000, 8)));
    for kind in kinds() {
        all.push(Spec::new(spec, Full, kind, DType::F32, (1, 13_000, 32)));
    }
    all.extend(tables(spec));
    let f16 = |kind, shape| Spec::new(spec, Perf, kind, DType::F16, shape);
    for format in super::FORMATS {
        all.push(f16((Pattern::TwoOfFour, format), (1, 14336, 4096)));
    }
    let fp4 = |pattern| (pattern, Format::Fp4);
    for shape in [(1, 4096, 4096), (1, 4096, 14336), (1, 8192, 8192), (1, 128_256, 4096)] {
        all.push(f16(fp4(Pattern::TwoOfFour), shape));
    }
    for m in [2, 4, 8] {
        all.push(f16(fp4(Pattern::TwoOfFour), (m, 14336, 4096)));
    }
    for pattern in [Pattern::OneOfFour, Pattern::TwoOfEight, Pattern::FourOfEight] {
        all.push(f16(fp4(pattern), (1, 14336, 4096)));
    }
    all.into_iter().map(Spec::into_case).collect()
}

/// Many and long rows of 2:4 in 4 bits: what the Spirv tier takes, whose table serves 4096 columns at once.
fn tables(spec: &'static KernelSpec) -> Vec<Spec> {
    let mut all = Vec::new();
    for format in [Format::Fp4, Format::Int4] {
        let new = |level, n, k| Spec::new(spec, level, (Pattern::TwoOfFour, format), DType::F16, (1, n, k));
        all.push(new(Quick, 1027, 2112));
        // An odd number of groups, half a packet at the end, a second and a third part of rows, of one packet.
        all.extend([new(Full, 1024, 2080), new(Full, 1100, 4160), new(Full, 1030, 8196)]);
        let halves = (DType::F16, DType::F16);
        all.push(Spec { dtypes: halves, ..new(Full, 1030, 4096).full_epilogue(Activation::Silu) });
        all.push(Spec { part_bytes: 1 << 20, bias: true, ..new(Full, 2100, 4224) });
        for group in [Group::Size(16), Group::Size(64), Group::Size(128), Group::WholeK] {
            all.push(Spec { group, ..new(Full, 1025, 2304) });
        }
        // Subnormal halves, and as large ones as leave results that are halves too.
        all.extend([1e-5, 300.0].map(|size| Spec { size, ..new(Full, 1030, 2112) }));
    }
    all
}

pub(super) fn gemm() -> Vec<Case> {
    let spec = &GEMM_SPARSE;
    let edges = [
        (9, 1, 20),
        (13, 70, 392),
        (16, 16, 32),
        (33, 65, 36),
        (63, 64, 100),
        (64, 66, 64),
        (65, 63, 12),
        (130, 129, 160),
    ];
    let mut all = common(spec, (20, 40, 64), &edges);
    for format in super::FORMATS {
        all.push(Spec::new(spec, Perf, (Pattern::TwoOfFour, format), DType::F16, (512, 14336, 4096)));
    }
    all.into_iter().map(Spec::into_case).collect()
}
