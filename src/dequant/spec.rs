//! Declaration and cases of `dequant`.

use std::rc::Rc;

use half::{bf16, f16};

use super::{Dequant, cpu, record};
use crate::error::Result;
use crate::format::{Format, Group, PackedMatrix, ScaleFormat, ScaleSearch};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder,
    Rule, Variant, defines, params, tier, unit,
};
use crate::matmul::{FLOATS, Weight, pack, packet, places, weight_defines, with_book};
use crate::tensor::DType;

params! {
    /// See `wgsl/dequant/dequant.wgsl`.
    pub(super) struct DequantParams {
        n: u32, k: u32,
        packets: u32, groups: u32, group_shift: u32,
        first: u32,
    }
}

pub static DEQUANT: KernelSpec = KernelSpec {
    name: "dequant",
    family: "dequant",
    replaces: &["dequant", "dequant_fp8", "dequant_int8", "dequant_sub4bit"],
    params: DequantParams::FIELDS,
    bindings: &[
        Binding { name: "out", access: Access::ReadWrite },
        Binding { name: "w", access: Access::Read },
        Binding { name: "scales", access: Access::Read },
        Binding { name: "zeros", access: Access::Read },
    ],
    tiers: &[tier!(Base, "dequant/dequant.wgsl", variants)],
    cases,
};

/// How rows lie in memory; see `wgsl/dequant/dequant.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Ragged,
    Padded,
    Flat,
}

impl Rows {
    const ALL: [Rows; 3] = [Rows::Ragged, Rows::Padded, Rows::Flat];

    pub fn of(weight: &Weight) -> Rows {
        let row = weight.packets() * packet(weight.format()) as usize;
        let whole_k = weight.format().is_quantised() && weight.group() == weight.k();
        match weight.k() {
            k if row == k && !whole_k && weight.format() != Format::Nvfp4 => Rows::Flat,
            k if k.is_multiple_of(8) => Rows::Padded,
            _ => Rows::Ragged,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Rows::Ragged => "ragged",
            Rows::Padded => "padded",
            Rows::Flat => "flat",
        }
    }

    /// Threads of a workgroup, and chunks of a thread.
    const fn shape(self) -> (u32, u32) {
        if matches!(self, Rows::Ragged) { (64, 1) } else { (128, 2) }
    }

    /// Chunks of a workgroup.
    pub const fn chunks(self) -> u32 {
        let (threads, each) = self.shape();
        threads * each
    }
}

pub(super) fn variant(format: Format, out: DType, rows: Rows) -> Variant {
    let f16 = out == DType::F16;
    let (threads, each) = rows.shape();
    let out_unit = match (rows, out) {
        (Rows::Ragged, _) => unit(out, false),
        (_, DType::F32) => "vec4<f32>",
        _ => "vec4<u32>",
    };
    let mut defines = weight_defines(format, f16);
    defines.extend(defines![
        ROWS = Def::Word(rows.name()),
        OUT = Def::Word(out.wgsl()),
        OUT_UNIT = Def::Type(out_unit),
        THREADS = Def::Num(threads),
        EACH = Def::Num(each),
    ]);
    with_book(Variant { defines, needs: Needs { f16, threads, ..Needs::default() } }, format)
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for &format in Format::ALL {
        for &out in FLOATS {
            all.extend(Rows::ALL.map(|rows| variant(format, out, rows)));
        }
    }
    all
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let mut all = Vec::new();
    for &format in Format::ALL {
        for &out in FLOATS {
            let mut add = |level, n, k, group, part_bytes| {
                let group = if format.allows(group, k) { group } else { format.default_group() };
                if !format.allows(group, k) {
                    return;
                }
                all.push(random_case(level, format, out, (n, k), group, part_bytes));
            };
            // A workgroup takes 64 or 256 chunks of eight columns; a row is padded to 32 bytes.
            add(Quick, 12, 64, Group::Size(32), u64::MAX);
            add(Full, 130, 64, Group::Size(16), 4096);
            add(Full, 9, 98, Group::WholeK, u64::MAX);
            add(Full, 2, 1032, Group::WholeK, u64::MAX);
            if out == DType::Bf16 {
                continue;
            }
            for (n, k) in [
                (1, 1),
                (1, 8),
                (3, 7),
                (17, 33),
                (9, 100),
                (5, 40),
                (3, 1016),
                (1, 2040),
                (1, 2048),
                (2, 1088),
            ] {
                add(Full, n, k, Group::WholeK, u64::MAX);
            }
            if format.is_quantised() {
                for group in [Group::Size(16), Group::Size(32), Group::Size(128), Group::WholeK] {
                    if format.allows(group, 256) {
                        add(Full, 20, 256, group, u64::MAX);
                    }
                }
            }
            add(Full, 131, 33, Group::WholeK, 4096);
        }
        if format != Format::F32 {
            all.push(all_codes(format));
        }
    }
    all.push(two_tensor_scales());
    // More than 65535 workgroups.
    let rows = 65_537 * Rows::Ragged.chunks() as usize / 3;
    all.push(random_case(Full, Format::Int4, DType::F16, (rows, 17), Group::WholeK, u64::MAX));
    // Rows of just fewer, and of more, chunks than floats are exact for.
    for k in [(8 << 20) - 8, (8 << 20) + 8] {
        all.push(random_case(Full, Format::Int4, DType::F16, (2, k), Group::WholeK, u64::MAX));
    }
    for &format in Format::ALL.iter().filter(|f| f.is_quantised()) {
        let group = format.fixed_group().map_or(Group::Size(32), Group::Size);
        all.push(random_case(Perf, format, DType::F16, (14336, 4096), group, u64::MAX));
    }
    all
}

fn random_case(
    level: Level,
    format: Format,
    out: DType,
    (n, k): (usize, usize),
    group: Group,
    part_bytes: u64,
) -> Case {
    let group_text = match group {
        _ if !format.is_quantised() => String::new(),
        Group::Size(size) => format!(" g{size}"),
        Group::WholeK => " gK".into(),
    };
    let parts = if part_bytes == u64::MAX { "" } else { " in parts" };
    let label = format!("{n}×{k}{group_text} to {}{parts}", out.wgsl());
    let rule = match out {
        DType::F32 => Rule::Normalised(1e-6),
        _ => Rule::stored_in(out),
    };
    case(level, format, label, out, part_bytes, rule, move || {
        pack(&mut Random::new((n * 31 + k) as u64), n, k, format, group, level)
    })
}

/// Every code in every place of a packet, with parameters for which the result is exact. In place of infinities, NaNs
/// and bf16's subnormals (subnormal as f32 too, where adapters may flush them): 0.
fn all_codes(format: Format) -> Case {
    let rule = Rule::Exact;
    case(Level::Full, format, "every code to f32".into(), DType::F32, u64::MAX, rule, move || {
        let bits = format.bits();
        // Rows without padding: 8 words, of 3-bit codes 9.
        let (n, k) = (1 << bits, if bits == 3 { 96 } else { 256 / bits });
        let code = |row: usize, col: usize| {
            let code = ((row + col) % n) as u32;
            let plain = match format {
                Format::F16 => f16::from_bits(code as u16).is_finite(),
                Format::Bf16 => bf16::from_bits(code as u16).is_normal(),
                _ => format.is_finite(code),
            };
            if plain { code } else { 0 }
        };
        let row_words = (k * bits).div_ceil(32);
        let mut words = vec![0u32; n * row_words];
        for (row, words) in words.chunks_mut(row_words).enumerate() {
            for at in 0..k * bits {
                words[at / 32] |= (code(row, at / bits) >> (at % bits) & 1) << (at % 32);
            }
        }
        match format.scales() {
            ScaleFormat::E8m0 => {
                return PackedMatrix::from_byte_scales(format, n, k, words, vec![124; n * k / 32], 1.0);
            }
            ScaleFormat::E4m3 => {
                return PackedMatrix::from_byte_scales(format, n, k, words, vec![0x21; n * k / 16], 0.75);
            }
            ScaleFormat::None | ScaleFormat::F16 => {}
        }
        let parameter = |value, there| vec![f16::from_f32(value); if there { n } else { 0 }];
        let (scales, zeros) = (parameter(0.125, format.is_quantised()), parameter(7.25, format.has_zeros()));
        PackedMatrix::from_parts(format, n, k, Group::WholeK, words, scales, zeros)
    })
}

/// NVFP4 rows in turn of two matrices with tensor scales of their own, in parts.
fn two_tensor_scales() -> Case {
    let rule = Rule::Normalised(1e-6);
    let label = "24×48 of two matrices to f32 in parts".into();
    case(Level::Full, Format::Nvfp4, label, DType::F32, 256, rule, || {
        let half = |scale: f32| {
            let mut random = Random::new(5);
            let values: Vec<f32> = (0..12 * 48).map(|_| scale * random.normal()).collect();
            let group = Format::Nvfp4.default_group();
            PackedMatrix::quantise(&values, 12, 48, Format::Nvfp4, group, ScaleSearch::AbsMax)
        };
        PackedMatrix::interleave(&half(1.0)?, &half(30.0)?)
    })
}

fn case(
    level: Level,
    format: Format,
    label: String,
    out: DType,
    part_bytes: u64,
    rule: Rule,
    matrix: impl Fn() -> Result<PackedMatrix> + Send + Sync + 'static,
) -> Case {
    Case::new(level, format.name(), label, move |gpu, copies| {
        let matrix = Rc::new(matrix()?);
        let (n, k) = (matrix.n, matrix.k);
        let elements = (n * k) as u64;
        let cost = Cost { bytes: matrix.bytes() + elements * out.size() as u64, flops: 2 * elements };
        Prepared::sets(copies, cost, || {
            let weight = Weight::upload_in_parts(gpu, &matrix, part_bytes)?;
            let out = gpu.output(out, &[n, k])?;
            let at = match rule {
                Rule::Exact => (0..n * k).collect(),
                Rule::Normalised(_) => places(&mut Random::new(elements), n * k),
            };
            let (twin, places) = (matrix.clone(), at.clone());
            let check = Check::new("out", &out, rule, move || cpu::dequant(&twin, &places)).at(at);
            let launch = move |r: &mut Recorder<'_, '_>| record(r, &Dequant { weight: &weight, out: &out });
            Ok((launch, vec![check]))
        })
    })
}
