//! Cases of the matrix kernels.

use half::f16;

use super::extreme_cases::{self, put_scales};
use super::{
    Activation, GATE_UP, GateUp, Linear, Norm, QGEMV, Weight, cpu, fragment_cases, gate_up_with, record_with,
};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::kernel::{Case, Check, Cost, KernelSpec, Level, Prepared, Random, Rule};
use crate::norm;
use crate::tensor::DType;
use Level::{Full, Perf, Quick};

/// One product.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    pub spec: &'static KernelSpec,
    pub level: Level,
    pub format: Format,
    pub group: Group,
    pub dtypes: (DType, DType),
    pub shape: (usize, usize, usize),
    pub bias: bool,
    pub residual: bool,
    pub activation: Activation,
    pub scale: f32,
    /// With an RMS norm of the activations.
    pub norm: bool,
    /// In place of fitted scales, with zero points to match: see [`put_scales`].
    pub scales: Option<f16>,
    /// First row of a taller output.
    pub out_row: usize,
    /// Upload the weight in parts of this many bytes.
    pub part_bytes: u64,
}

/// Epsilon of the norms.
pub(super) const EPS: f32 = 1e-2;

impl Spec {
    pub fn new(
        spec: &'static KernelSpec,
        level: Level,
        format: Format,
        dtype: DType,
        shape: (usize, usize, usize),
    ) -> Self {
        let free = if shape.2.is_multiple_of(32) { Group::Size(32) } else { Group::WholeK };
        Spec {
            spec,
            level,
            format,
            group: if format.fixed_group().is_some() { format.default_group() } else { free },
            dtypes: (dtype, dtype),
            shape,
            bias: false,
            residual: false,
            activation: Activation::None,
            scale: 1.0,
            norm: false,
            scales: None,
            out_row: 0,
            part_bytes: u64::MAX,
        }
    }

    /// Whether the format has such groups in rows of this length.
    pub fn legal(&self) -> bool {
        self.format.allows(self.group, self.shape.2)
    }

    pub fn label(&self) -> String {
        let (m, n, k) = self.shape;
        let mut label = format!("{m}×{k}→{n} {}", self.format.name());
        if self.format.is_quantised() {
            match self.group {
                Group::Size(g) => label += &format!(" g{g}"),
                Group::WholeK => label += " gK",
            }
        }
        let (a, out) = self.dtypes;
        if a != out {
            label += &format!(" → {}", out.wgsl());
        }
        if let Some(scale) = self.scales {
            label += &format!(" scales {scale:e}");
        }
        if self.norm {
            label += " norm";
        }
        if self.scale != 1.0 {
            label += &format!(" · {}", self.scale);
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
        if self.out_row != 0 {
            label += &format!(" at row {}", self.out_row);
        }
        if self.part_bytes != u64::MAX {
            label += " in parts";
        }
        label
    }

    /// What the product sees of `a`: normalised and scaled.
    pub fn activations(&self, a: &[f32], gains: &[f32]) -> Vec<f64> {
        let rows = match self.norm {
            true => norm::rms_norm(a, None, gains, false, EPS).0,
            false => a.iter().map(|&x| f64::from(x)).collect(),
        };
        rows.into_iter().map(|x| x * f64::from(self.scale)).collect()
    }

    /// Coop rounds weights to f16, and 16-bit products of them accumulate that error; the others keep f32.
    pub fn rule(&self) -> Rule {
        match self.dtypes {
            (_, DType::Bf16) => Rule::stored_in(DType::Bf16),
            (DType::F16 | DType::Bf16, _) => Rule::Normalised(5e-4),
            (_, out) => Rule::stored_in(out),
        }
    }

    pub fn into_case(self) -> Case {
        let pair = is_pair(self.spec);
        Case::new(self.level, self.dtypes.0.wgsl(), self.label(), move |gpu, copies| {
            let (m, n, k) = self.shape;
            let mut random = Random::new((m * 7 + n * 31 + k) as u64);
            let (a_type, o_type) = self.dtypes;
            let a = random.values(m * k, a_type);
            let a_gpu = gpu.floats(a_type, &[m, k], &a)?;
            let mut packed = pack(&mut random, n, k, self.format, self.group, self.level)?;
            self.scales.into_iter().for_each(|scale| put_scales(&mut packed, scale));
            let up =
                pair.then(|| pack(&mut random, n, k, self.format, self.group, self.level)).transpose()?;
            let whole = match &up {
                Some(up) => PackedMatrix::interleave(&packed, up)?,
                None => packed.clone(),
            };
            let gains = random.values(k, a_type);
            let gains_gpu = gpu.floats(a_type, &[k], &gains)?;
            let workspace = gpu.output(a_type, &[m, k])?;
            let bias = self.bias.then(|| random.values(n, o_type));
            let residual = self.residual.then(|| random.values(m * n, o_type));
            let bias_gpu = bias.as_ref().map(|b| gpu.floats(o_type, &[n], b)).transpose()?;
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(o_type, &[m, n], r)).transpose()?;
            let mut prepared = Prepared { launches: Vec::new(), checks: Vec::new(), cost: Cost::default() };
            // One output for all copies: each launch waits for the one before, as the layers of a model do.
            let out = gpu.output(o_type, &[self.out_row + m, n])?;
            for copy in 0..copies {
                let weight = Weight::upload_in_parts(gpu, &whole, self.part_bytes)?;
                let out = out.clone();
                prepared.cost = Cost {
                    bytes: weight.bytes() + a_gpu.bytes() + (m * n * o_type.size()) as u64,
                    flops: 2 * (m * n * k) as u64 * if pair { 2 } else { 1 },
                };
                if copy == 0 {
                    let at = places(&mut random, m * n);
                    let shifted = at.iter().map(|i| i + self.out_row * n).collect();
                    let (a, packed, up) = (self.activations(&a, &gains), packed.clone(), up.clone());
                    let (bias, residual) = (bias.clone(), residual.clone());
                    let want = move || {
                        let w = packed.unpack();
                        match &up {
                            Some(up) => {
                                let up = up.unpack();
                                cpu::gate_up((&a, &w, &up), (n, k), self.activation, &at)
                            }
                            None => {
                                let (bias, residual) = (bias.as_deref(), residual.as_deref());
                                cpu::linear((&a, &w), (n, k), bias, self.activation, residual, &at)
                            }
                        }
                    };
                    let rows = self.out_row * n..(self.out_row + m) * n;
                    prepared
                        .checks
                        .push(Check::new("out", &out, self.rule(), want).at(shifted).written(rows));
                }
                let (a, bias, residual) = (a_gpu.clone(), bias_gpu.clone(), residual_gpu.clone());
                let (gains, workspace) = (gains_gpu.clone(), workspace.clone());
                prepared.launches.push(Box::new(move |recorder| {
                    let workspace = Some(&workspace);
                    let norm = self.norm.then_some(Norm { weight: &gains, eps: EPS, workspace });
                    if pair {
                        let activation = self.activation;
                        let request = GateUp { a: &a, weight: &weight, out: &out, activation, norm };
                        return gate_up_with(recorder, self.spec, &request);
                    }
                    let linear = Linear {
                        out_row: self.out_row,
                        bias: bias.as_ref(),
                        activation: self.activation,
                        residual: residual.as_ref(),
                        scale: self.scale,
                        norm,
                        ..Linear::new(&a, &weight, &out)
                    };
                    record_with(recorder, self.spec, &linear)
                }));
            }
            Ok(prepared)
        })
    }
}

/// All elements of a small output, some thousands of a large one (the corners among them).
pub(crate) fn places(random: &mut Random, len: usize) -> Vec<usize> {
    const MANY: usize = 1 << 16;
    if len <= MANY {
        return (0..len).collect();
    }
    (0..2048).map(|_| random.below(len)).chain([0, len - 1]).collect()
}

/// A random matrix; for real shapes random codes, which are quicker to make than quantised values.
pub(crate) fn pack(
    random: &mut Random,
    n: usize,
    k: usize,
    format: Format,
    group: Group,
    level: Level,
) -> crate::Result<PackedMatrix> {
    if level != Perf {
        let values: Vec<f32> = (0..n * k).map(|_| random.normal()).collect();
        return PackedMatrix::quantise(&values, n, k, format, group, ScaleSearch::AbsMax);
    }
    let row: Vec<f32> = (0..k).map(|_| random.normal()).collect();
    let row = PackedMatrix::quantise(&row, 1, k, format, group, ScaleSearch::AbsMax)?;
    // Every row is a rotation of one row by 32 codes more than the last, with scales of its own.
    let (words, groups) = (row.words.len(), row.groups());
    let step = words * 32 / k;
    let mut all = PackedMatrix { n, ..row.clone() };
    all.words = (0..n * words).map(|i| row.words[(i % words + i / words * step) % words]).collect();
    if !row.scale_bytes.is_empty() {
        all.scale_bytes = (0..n)
            .flat_map(|i| (0..groups).map(move |g| (i + g) % groups))
            .map(|g| row.scale_bytes[g])
            .collect();
        all.tensor_scales = row.tensor_scales.repeat(n);
    } else if format.is_quantised() {
        all.scales = (0..n * groups).map(|_| f16::from_f32(0.05 + 0.01 * random.unit())).collect();
        all.zeros = if format.has_zeros() { vec![f16::from_f32(7.5); n * groups] } else { Vec::new() };
    }
    Ok(all)
}

pub(super) const FLOATS: [DType; 2] = [DType::F32, DType::F16];
/// What activations may be; bf16 has cases of its own beside: [`with_bf16`].
const ACTIVATIONS: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Edge shapes of the tiled kernels around their tiles of 16 to 256.
const TILED: [(usize, usize, usize); 13] = [
    (9, 1, 8),
    (13, 70, 392),
    (15, 17, 33),
    (16, 16, 64),
    // Several steps of subgroups that have tiles of their own.
    (11, 45, 445),
    (14, 70, 520),
    (16, 40, 768),
    (63, 65, 96),
    (64, 64, 100),
    (65, 127, 64),
    (130, 129, 160),
    (33, 300, 31),
    (257, 130, 72),
];

/// Of the cases with options or shapes that have nothing to do with a format: all for one format of each size of packets and one
/// with zero points, else every fourth, beginning where the format stands. Pipelines take most of a test's time.
fn in_turn<T>(format: Format, all: Vec<T>) -> Vec<T> {
    if matches!(format, Format::F16 | Format::Fp4 | Format::Int8 | Format::Int4Zero) {
        return all;
    }
    let first = Format::ALL.iter().position(|f| *f == format).unwrap_or(0) % 4;
    all.into_iter().skip(first).step_by(4).collect()
}

fn tiled(spec: &'static KernelSpec, formats: &[Format]) -> Vec<Case> {
    let mut all = Vec::new();
    for dtype in FLOATS {
        for &format in formats {
            let new = |level, shape| Spec::new(spec, level, format, dtype, shape);
            let gate = spec.name == GATE_UP.name;
            all.push(new(Quick, (20, 40, 64)));
            let mut full = TILED.map(|shape| new(Full, shape)).to_vec();
            full.push(Spec { activation: Activation::Silu, ..new(Full, (66, 70, 64)) });
            // Sums so small that one form of GELU is told from another.
            let scale = if gate { 1.0 } else { 0.1 };
            full.push(Spec { norm: gate, activation: Activation::Gelu, scale, ..new(Full, (20, 66, 96)) });
            if !gate {
                let other = FLOATS.into_iter().find(|d| *d != dtype).unwrap_or(dtype);
                full.push(Spec { dtypes: (dtype, other), ..new(Full, (66, 70, 64)) });
                full.push(Spec { scale: -0.375, bias: true, norm: true, ..new(Full, (17, 66, 96)) });
                full.push(Spec { bias: true, residual: true, out_row: 3, ..new(Full, (34, 66, 64)) });
                full.push(Spec { part_bytes: 8192, bias: true, ..new(Full, (20, 130, 64)) });
            }
            all.extend(in_turn(format, full));
        }
    }
    // Enough for the largest tiles of the Msl tier.
    for format in
        [Format::F16, Format::Fp4, Format::Int8, Format::Nvfp4].iter().filter(|f| formats.contains(f))
    {
        let n = if spec.name == GATE_UP.name { 255 } else { 510 };
        all.extend(FLOATS.map(|dtype| Spec::new(spec, Full, *format, dtype, (500, n, 80))));
    }
    // More tile rows than a band of the walk on cooperative matrices has, and a band of fewer.
    for format in [Format::F16, Format::Fp4].iter().filter(|f| formats.contains(f)) {
        all.push(Spec::new(spec, Full, *format, DType::F16, (1100, 70, 64)));
    }
    all.extend(with_bf16(spec, formats, (20, 38)));
    all.extend(quantised_groups(spec, formats, (20, 40, 256)));
    all.into_iter().filter(Spec::legal).map(Spec::into_case).collect()
}

/// Every group of every quantised format among `formats`, with every dtype of activations; with pairs of rows with each in
/// turn.
fn quantised_groups(
    spec: &'static KernelSpec,
    formats: &[Format],
    shape: (usize, usize, usize),
) -> Vec<Spec> {
    let mut all = Vec::new();
    for (i, &format) in formats.iter().filter(|f| f.is_quantised()).enumerate() {
        for (j, group) in
            [Group::Size(16), Group::Size(64), Group::Size(128), Group::WholeK].into_iter().enumerate()
        {
            let dtypes = if is_pair(spec) { &ACTIVATIONS[(i + j) % 3..][..1] } else { &ACTIVATIONS };
            all.extend(
                dtypes.iter().map(|&dtype| Spec { group, ..Spec::new(spec, Full, format, dtype, shape) }),
            );
        }
    }
    all
}

/// bf16 in and out, by itself and in turn beside f32 and f16, with every format and every way of loading rows.
pub(super) fn with_bf16(spec: &'static KernelSpec, formats: &[Format], (m, n): (usize, usize)) -> Vec<Spec> {
    use DType::{Bf16, F16, F32};
    let mut all = Vec::new();
    // Odd K and an even number of rows: every second row starts within a word.
    let columns = [64, 104, 33];
    for (i, &format) in formats.iter().enumerate() {
        let new = |k| Spec::new(spec, Full, format, Bf16, (m, n, k));
        let mixed = [(Bf16, F32), (F32, Bf16), (Bf16, F16), (F16, Bf16)][i % 4];
        all.push(match is_pair(spec) {
            true => new(columns[i % 3]),
            false => Spec { bias: true, residual: true, out_row: 1, ..new(columns[i % 3]) },
        });
        all.push(Spec { dtypes: mixed, ..new(columns[(i / 4 + 1) % 3]) });
    }
    all
}

fn is_pair(spec: &KernelSpec) -> bool {
    spec.name.contains("gate_up")
}

pub(super) fn gemm() -> Vec<Case> {
    let mut all = tiled(&super::GEMM, super::spec::DENSE);
    all.extend(extreme_cases::tiled(&super::GEMM, super::spec::DENSE).into_iter().map(Spec::into_case));
    for shape in [(4096, 4096, 4096), (512, 14336, 4096), (4096, 14336, 4096), (64, 14336, 4096)] {
        all.push(Spec::new(&super::GEMM, Perf, Format::F16, DType::F16, shape).into_case());
    }
    all
}

pub(super) fn qgemm() -> Vec<Case> {
    let mut all = tiled(&super::QGEMM, super::spec::QUANTISED);
    all.extend(extreme_cases::tiled(&super::QGEMM, super::spec::QUANTISED).into_iter().map(Spec::into_case));
    // More than 65535 tiles: the grid folds.
    let folded = Spec::new(&super::QGEMM, Full, Format::Int8, DType::F16, (65_600 * 64, 1, 8));
    all.push(Spec { group: Group::WholeK, ..folded }.into_case());
    // Enough rows of w for the larger tiles of few rows.
    for (format, m) in [(Format::Fp4, 13), (Format::Int4Zero, 16), (Format::Int8, 27), (Format::Fp4, 32)] {
        all.push(Spec::new(&super::QGEMM, Full, format, DType::F16, (m, 6161, 544)).into_case());
    }
    // Packets of two groups, and of a part of one, where subgroups have tiles of their own.
    for format in [Format::Fp4, Format::Int4, Format::Int4Zero, Format::Int3] {
        for (group, k) in [(16, 384), (16, 400), (128, 640)] {
            let few = Spec::new(&super::QGEMM, Full, format, DType::F16, (12, 38, k));
            let few = Spec { group: Group::Size(group), ..few };
            all.extend(few.legal().then(|| few.into_case()));
        }
    }
    let fp4 = [9, 16, 64, 128, 512, 4096].map(|m| (Format::Fp4, m));
    for (format, m) in fp4.into_iter().chain([(Format::Int4, 512), (Format::Int8, 512)]) {
        all.push(Spec::new(&super::QGEMM, Perf, format, DType::F16, (m, 14336, 4096)).into_case());
    }
    all.extend(super::perf_cases::qgemm().into_iter().map(Spec::into_case));
    all
}

pub(super) fn qgemv() -> Vec<Case> {
    let spec = &QGEMV;
    let mut all = Vec::new();
    for dtype in FLOATS {
        for &format in Format::ALL {
            let new = |level, shape| Spec::new(spec, level, format, dtype, shape);
            all.push(new(Quick, (1, 24, 64)));
            let mut full: Vec<Spec> = (1..=8).map(|m| new(Full, (m, 33, 96))).collect();
            let edges = [(1, 1, 8), (1, 7, 33), (2, 9, 31), (1, 16, 1000), (3, 8, 4096), (1, 300, 2080)];
            full.extend(edges.map(|shape| new(Full, shape)));
            full.extend(Activation::ALL[1..].iter().map(|&activation| Spec {
                activation,
                bias: true,
                residual: true,
                out_row: 2,
                ..new(Full, (2, 20, 64))
            }));
            let other = FLOATS.into_iter().find(|d| *d != dtype).unwrap_or(dtype);
            full.push(Spec { dtypes: (dtype, other), ..new(Full, (1, 20, 64)) });
            full.push(Spec { scale: -0.375, bias: true, ..new(Full, (1, 20, 64)) });
            full.push(Spec { part_bytes: 4096, bias: true, ..new(Full, (2, 130, 64)) });
            all.extend(in_turn(format, full));
        }
    }
    all.extend(with_bf16(spec, Format::ALL, (2, 22)));
    all.extend(quantised_groups(spec, Format::ALL, (3, 20, 256)));
    all.push(Spec {
        group: Group::WholeK,
        ..Spec::new(spec, Full, Format::Int4, DType::F32, (1, 530_000, 16))
    });
    all.extend(extreme_cases::few(spec));
    // The tiles for weights of many rows, and of long ones.
    for shape in [(1, 8003, 72), (1, 17, 2056)] {
        all.push(Spec::new(spec, Full, Format::F16, DType::F16, shape));
    }
    all.push(Spec::new(spec, Full, Format::Fp4, DType::F16, (1, 17, 4160)));
    // FP4 codes by halves: both tiles, groups that share a packet, rows that end within one.
    for (format, shape) in
        [(Format::Fp4, (1, 1027, 4160)), (Format::Nvfp4, (1, 1027, 2064)), (Format::Mxfp4, (1, 1030, 352))]
    {
        all.push(Spec::new(spec, Full, format, DType::F16, shape));
    }
    // So many rows that workgroups take eight of any format.
    all.push(Spec::new(spec, Full, Format::Fp4, DType::F16, (1, 32_001, 64)));
    for shape in [(1, 4096, 4096), (1, 14336, 4096), (1, 4096, 14336), (1, 8192, 8192), (1, 128_256, 4096)] {
        all.push(Spec::new(spec, Perf, Format::Fp4, DType::F16, shape));
    }
    for m in [2, 4, 8] {
        all.push(Spec::new(spec, Perf, Format::Fp4, DType::F16, (m, 14336, 4096)));
    }
    for &format in Format::ALL.iter().filter(|f| !matches!(f, Format::F32 | Format::Fp4)) {
        let group = format.fixed_group().map_or(Group::Size(128), Group::Size);
        all.push(Spec { group, ..Spec::new(spec, Perf, format, DType::F16, (1, 14336, 4096)) });
    }
    all.extend(fragment_cases::long_rows_and_more(spec));
    all.extend(super::perf_cases::qgemv());
    let all = all.into_iter().filter(Spec::legal).map(Spec::into_case);
    all.chain([extreme_cases::over_two_gib(spec)]).collect()
}

pub(super) fn gate_up() -> Vec<Case> {
    let mut all = tiled(&GATE_UP, Format::ALL);
    let perf = Spec::new(&GATE_UP, Perf, Format::Fp4, DType::F16, (512, 14336, 4096));
    all.push(Spec { activation: Activation::Silu, ..perf }.into_case());
    all
}

pub(super) fn gate_up_gemv() -> Vec<Case> {
    let spec = &super::GATE_UP_GEMV;
    let silu = |s| Spec { activation: Activation::Silu, ..s };
    let mut all = Vec::new();
    for dtype in FLOATS {
        for &format in Format::ALL {
            all.push(silu(Spec::new(spec, Quick, format, dtype, (1, 24, 64))));
            let new = |shape| Spec::new(spec, Full, format, dtype, shape);
            let mut full =
                [(1, 3, 8), (2, 33, 96), (5, 9, 31), (8, 70, 160)].map(|shape| silu(new(shape))).to_vec();
            full.push(Spec { activation: Activation::GeluTanh, ..new((1, 20, 64)) });
            full.push(silu(Spec { part_bytes: 4096, ..new((2, 130, 64)) }));
            all.extend(in_turn(format, full));
        }
    }
    all.extend(with_bf16(spec, Format::ALL, (2, 22)).into_iter().map(silu));
    all.extend(quantised_groups(spec, Format::ALL, (3, 20, 256)).into_iter().map(silu));
    // Of longer rows the product of two sums would be past what halves hold.
    let long = fragment_cases::long_rows(spec).into_iter().filter(|s| s.shape.2 < 5000);
    all.extend(long.map(silu));
    all.push(silu(Spec::new(spec, Perf, Format::Fp4, DType::F16, (1, 14336, 4096))));
    all.into_iter().filter(Spec::legal).map(Spec::into_case).collect()
}
