//! Declaration and cases of `quantize`.

use std::rc::Rc;

use half::f16;

use super::{Quantize, cpu, record, status};
use crate::error::Result;
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, POISON, Params, Prepared, Random,
    Recorder, Rule, Variant, defines, params, tier,
};
use crate::matmul::{self, Linear, Weight, weight_defines};
use crate::tensor::DType;
use Level::{Full, Perf, Quick};

params! {
    /// See `wgsl/quantize/quantize.wgsl`.
    pub(super) struct QuantizeParams {
        rows: u32, k: u32,
        in_first: u32, in_packets: u32,
        out_first: u32, out_chunks: u32,
        first: u32,
        groups: u32, chunks: u32,
        team: u32,
    }
}

pub static QUANTIZE: KernelSpec = KernelSpec {
    name: "quantize",
    family: "quantize",
    replaces: &[],
    params: QuantizeParams::FIELDS,
    bindings: &[
        Binding { name: "values", access: Access::Read },
        Binding { name: "codes", access: Access::ReadWrite },
        Binding { name: "scales", access: Access::ReadWrite },
        Binding { name: "status", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "quantize/quantize.wgsl", variants)],
    cases,
};

pub(super) const THREADS: u32 = 128;
const DENSE: [Format; 3] = [Format::F32, Format::F16, Format::Bf16];

pub(super) fn variant(values: Format, out: Format) -> Variant {
    // The magnitude that gets the largest magnitude of a group is divisor · 2^shift.
    let (divisor, shift) = match out {
        Format::Int4 => (7, 0),
        Format::Int8 => (127, 0),
        Format::E4m3 | Format::E5m2 => (7, 6),
        _ => (3, 1),
    };
    let mut defines = weight_defines(values, false);
    defines.extend(defines![
        STORE = Def::Word(out.name()),
        INTEGER = Def::Flag(matches!(out, Format::Int4 | Format::Int8)),
        CODE_UNITS = Def::Type(if out.bits() == 4 { "u32" } else { "vec2<u32>" }),
        DIVISOR = Def::Num(divisor),
        SHIFT = Def::Num(shift),
        THREADS = Def::Num(THREADS),
    ]);
    let needs = Needs { workgroup_storage: 4 * THREADS, threads: THREADS, ..Needs::default() };
    Variant { defines, needs }
}

fn variants() -> Vec<Variant> {
    DENSE.iter().flat_map(|&from| super::FORMATS.map(|to| variant(from, to))).collect()
}

/// What a case quantises.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A normal distribution.
    Normal,
    /// Products of scales and midpoints between codes, and their neighbours.
    Ties,
    /// From the least subnormals to what a finite scale can just hold, and groups of zeros of both signs.
    Extreme,
}

#[derive(Clone, Copy)]
struct Spec {
    level: Level,
    from: Format,
    to: Format,
    shape: (usize, usize),
    group: Group,
    kind: Kind,
    /// Largest part in bytes, of the values and of the result.
    part_bytes: (u64, u64),
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for from in DENSE {
        for to in super::FORMATS {
            let spec = |level, n, k, group| {
                let whole = (u64::MAX, u64::MAX);
                Spec { level, from, to, shape: (n, k), group, kind: Kind::Normal, part_bytes: whole }
            };
            all.push(spec(Quick, 5, 96, Group::Size(32)));
            for (n, k) in
                [(1, 1), (3, 7), (2, 8), (5, 33), (9, 100), (3, 1016), (3, 1024), (2, 1032), (2, 3001)]
            {
                all.push(spec(Full, n, k, Group::WholeK));
            }
            for size in [16, 32, 64, 128] {
                all.push(spec(Full, 7, 3 * size, Group::Size(size)));
            }
            for kind in [Kind::Ties, Kind::Extreme] {
                all.push(Spec { kind, ..spec(Full, 64, 256, Group::Size(64)) });
            }
            all.push(Spec { part_bytes: (4000, 1500), ..spec(Full, 67, 80, Group::Size(16)) });
        }
    }
    let plain = |level, from, to, shape, group| {
        let whole = (u64::MAX, u64::MAX);
        Spec { level, from, to, shape, group, kind: Kind::Normal, part_bytes: whole }
    };
    // More than 65535 workgroups.
    all.push(plain(Full, Format::F16, Format::Fp4, (65_537, 513), Group::WholeK));
    for to in super::FORMATS {
        all.push(plain(Perf, Format::F16, to, (14336, 4096), Group::Size(32)));
    }
    all.push(plain(Perf, Format::Bf16, Format::Int4, (14336, 4096), Group::Size(128)));
    all.push(plain(Perf, Format::F16, Format::Int8, (14336, 4096), Group::WholeK));
    let mut cases: Vec<Case> = all.into_iter().map(Spec::into_case).collect();
    for to in super::FORMATS {
        cases.push(round_trip(to));
    }
    cases
}

impl Spec {
    fn label(&self) -> String {
        let (n, k) = self.shape;
        let group = match self.group {
            Group::Size(size) => format!("g{size}"),
            Group::WholeK => "gK".into(),
        };
        let kind = if self.kind == Kind::Normal { String::new() } else { format!(" {:?}", self.kind) };
        let parts = if self.part_bytes.0 == u64::MAX { "" } else { " in parts" };
        format!("{n}×{k} {} {group}{kind}{parts}", self.from.name())
    }

    fn values(&self, random: &mut Random) -> Result<PackedMatrix> {
        let (n, k) = self.shape;
        let mut values = match self.kind {
            Kind::Normal if n * k > 1 << 20 => {
                let row: Vec<f32> = (0..k).map(|_| random.normal()).collect();
                (0..n).flat_map(|i| row.iter().map(move |v| v * (1 + i % 13) as f32)).collect()
            }
            _ => (0..n * k).map(|_| random.normal()).collect::<Vec<f32>>(),
        };
        for (i, value) in values.iter_mut().enumerate() {
            let (row, column) = (i / k, i % k);
            *value = match self.kind {
                Kind::Normal => *value,
                Kind::Ties => tie(self.to, row, column, random),
                Kind::Extreme => extreme(self.from, self.to, row, column, *value),
            };
        }
        PackedMatrix::quantise(&values, n, k, self.from, Group::WholeK, ScaleSearch::AbsMax)
    }

    fn into_case(self) -> Case {
        let (n, k) = self.shape;
        Case::new(self.level, self.to.name(), self.label(), move |gpu, copies| {
            let values = self.values(&mut Random::new((n * 31 + k) as u64))?;
            let want = Rc::new(cpu::quantize(&values, self.to, self.group, ScaleSearch::AbsMax)?);
            let cost = Cost { bytes: values.bytes() + want.bytes(), flops: 2 * (n * k) as u64 };
            Prepared::sets(copies, cost, || {
                let values = Weight::upload_in_parts(gpu, &values, self.part_bytes.0)?;
                let poisoned = |words| gpu.output(DType::U32, &[words]);
                let out = Weight::alloc_in_parts(
                    gpu,
                    self.to,
                    self.shape,
                    self.group,
                    self.part_bytes.1,
                    poisoned,
                )?;
                let status = status(gpu)?;
                let mut checks =
                    vec![Check::new("status", &status, Rule::Exact, || vec![f64::from(u32::MAX); 2])];
                for part in out.parts() {
                    for (which, name, tensor) in [(0, "codes", &part.words), (1, "scales", &part.scales)] {
                        let (want, rows) = (want.clone(), part.rows.clone());
                        checks.push(Check::new(name, tensor, Rule::Exact, move || {
                            let tail = u16::from_ne_bytes([POISON; 2]);
                            std::mem::take(&mut cpu::uploaded(&want, &rows, tail)[which])
                        }));
                    }
                }
                let launch = move |r: &mut Recorder<'_, '_>| {
                    record(r, &Quantize { values: &values, out: &out, status: &status })
                };
                Ok((launch, checks))
            })
        })
    }
}

/// A value at, or next to, the midpoint between two codes, times a scale that the first value of each group of 64 fixes.
fn tie(format: Format, row: usize, column: usize, random: &mut Random) -> f32 {
    let (largest, bits) = (largest_code(format), format.bits() - 1);
    // Scales with all mantissas, subnormals among them; in odd rows those between two, where the division must round as
    // f32 does, and the conversion to even.
    let at = (row * 4 + column / 64) as u16;
    let bits_of_scale = if row % 16 < 14 { 0x0400 + at * 0x35 } else { 1 + at * 3 };
    let [scale, next] = [0, 1].map(|i| f16::from_bits(bits_of_scale + i).to_f32());
    let scale = if row.is_multiple_of(2) { scale } else { 0.5 * (scale + next) };
    if column.is_multiple_of(64) {
        return beside(largest * scale, if row.is_multiple_of(2) { 1 } else { row / 2 + column / 64 });
    }
    let steps = 1 << bits;
    let code = |at: usize| magnitude(format, at.min(steps - 1));
    let at = random.below(steps);
    let middle = (0.5 * (code(at) + code(at + 1))).min(largest) * scale;
    let neighbour = beside(middle, random.below(3));
    let value = if neighbour <= largest * scale { neighbour } else { middle };
    if random.below(2) == 0 { value } else { -value }
}

/// A positive number's lower neighbour, the number itself, or the upper one, by `which` modulo 3.
fn beside(x: f32, which: usize) -> f32 {
    f32::from_bits(x.max(f32::MIN_POSITIVE).to_bits() - 1 + (which % 3) as u32)
}

/// What the largest magnitude of a group becomes.
fn largest_code(format: Format) -> f32 {
    match format {
        Format::Int4 => 7.0,
        Format::Int8 => 127.0,
        Format::E4m3 | Format::E5m2 => 448.0,
        _ => 6.0,
    }
}

/// The value of a code without its sign.
fn magnitude(format: Format, code: usize) -> f32 {
    let float = |mantissa: i32, bias: i32| {
        let (exponent, fraction) = (code as i32 >> mantissa, code as i32 & ((1 << mantissa) - 1));
        let (lead, exponent) = if exponent == 0 { (0, 1) } else { (1 << mantissa, exponent) };
        (lead + fraction) as f32 * f32::powi(2.0, exponent - bias - mantissa)
    };
    match format {
        Format::Fp4 => float(1, 1),
        Format::E4m3 => float(3, 7).min(448.0),
        Format::E5m2 => float(2, 15).min(448.0),
        _ => code as f32,
    }
}

/// Rows of many magnitudes; some are zeros.
fn extreme(from: Format, to: Format, row: usize, column: usize, value: f32) -> f32 {
    // The largest f16, and a number below it that stays below when bf16 rounds its multiples.
    let most = if from == Format::Bf16 { 65280.0 } else { 65504.0 };
    let largest = if from == Format::F16 { most } else { most * largest_code(to) };
    match row % 8 {
        0 => 0.0f32.copysign(value),
        1 => f32::from_bits(1 + column as u32).copysign(value),
        2 => value * 1e-38,
        3 => value * f32::powi(2.0, -30 + (column / 64) as i32 * 4),
        4 if column.is_multiple_of(64) => largest,
        4 => value * largest / 8.0,
        5 if column.is_multiple_of(64) => -largest,
        5 => value * 1e-3,
        6 => f32::powi(2.0, (row * 4 + column / 64) as i32 % 30 - 15).copysign(value),
        _ => value * 1e4,
    }
}

/// A product with a weight that was quantised on the GPU.
fn round_trip(format: Format) -> Case {
    let (m, n, k) = (3, 40, 128);
    Case::new(Full, format.name(), format!("{m}×{k}→{n} product"), move |gpu, copies| {
        let mut random = Random::new(9);
        let dense = random.values(n * k, DType::F32);
        let dense = PackedMatrix::quantise(&dense, n, k, Format::F32, Group::WholeK, ScaleSearch::AbsMax)?;
        let a = random.values(m * k, DType::F32);
        Prepared::sets(copies, Cost::default(), || {
            let values = Weight::upload(gpu, &dense)?;
            let weight = Weight::alloc(gpu, format, n, k, Group::Size(32))?;
            let a_gpu = gpu.floats(DType::F32, &[m, k], &a)?;
            let (status, out) = (status(gpu)?, gpu.output(DType::F32, &[m, n])?);
            let packed = cpu::quantize(&dense, format, Group::Size(32), ScaleSearch::AbsMax)?;
            let a = a.clone();
            let want = move || {
                let at: Vec<usize> = (0..m * n).collect();
                matmul::linear((&a, &packed.unpack()), (n, k), None, matmul::Activation::None, None, &at)
            };
            let check = Check::new("out", &out, Rule::stored_in(DType::F32), want);
            let launch = move |r: &mut Recorder<'_, '_>| {
                record(r, &Quantize { values: &values, out: &weight, status: &status })?;
                matmul::record(r, &Linear::new(&a_gpu, &weight, &out))
            };
            Ok((launch, vec![check]))
        })
    })
}
