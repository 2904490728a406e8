//! Specialisations of the Msl tier.

use super::spec::{DTYPES, Extras, format_of, kind};
use crate::kernel::{Def, Needs, Variant, defines};
use crate::kv::KvFormat;
use crate::tensor::DType;

/// The weight format with the same bits, whose decoder `msl/common/kv_decode.metal` takes.
const fn weight(format: KvFormat) -> &'static str {
    match format {
        KvFormat::Int8 => "int8z",
        other => other.name(),
    }
}

/// Lanes that hold a row of `d` in `attention_decode`, eight elements each.
fn team(d: u32) -> u32 {
    d.div_ceil(8).next_power_of_two().clamp(4, 32)
}

/// The variant of `attention_decode` for `rows` folded rows of `d` (or of the values, if they are wider), and the rows that
/// one threadgroup serves. `dtype` is that of the queries.
pub(super) fn decode_variant(dtype: DType, format: KvFormat, rows: u32, d: u32) -> (Variant, u32) {
    const SIMDGROUPS: u32 = 4;
    // Queries and sums of a row take 16 registers of a lane.
    let rows = if rows <= 1 { 1 } else { 4 };
    let team = team(d);
    let variant = Variant {
        defines: defines![
            THREADS = Def::Num(32 * SIMDGROUPS),
            WEIGHT = Def::Word(weight(format)),
            QUANTISED = Def::Flag(format.quantised()),
            TL = Def::Num(team),
            R = Def::Num(rows),
            BATCH = Def::Num(4),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // Of each SIMD-group and row: scores of 32 keys, sums, a maximum and a total.
            workgroup_storage: 4 * SIMDGROUPS * rows * (32 + 8 * team + 2),
            threads: 32 * SIMDGROUPS,
            ..Needs::default()
        },
    };
    (variant, rows)
}

pub(super) fn decode_variants() -> Vec<Variant> {
    let of = |format| {
        let dtype = if format == KvFormat::F16 { DType::F16 } else { DType::F32 };
        let of_rows =
            move |rows| [32, 64, 128, 256].into_iter().map(move |d| decode_variant(dtype, format, rows, d).0);
        [1, 4].into_iter().flat_map(of_rows)
    };
    KvFormat::ALL.into_iter().flat_map(of).collect()
}

/// Widths with a variant of the prefill each: of heads that models have.
const WIDTHS: [u32; 6] = [64, 80, 96, 128, 192, 256];

/// The variant of `attention` and its like for rows of `d`. `dtype` is that of the queries.
pub(super) fn prefill_variant(dtype: DType, extras: Extras, d: u32) -> Variant {
    const THREADS: u32 = 256;
    // One text serves all options of tensors.
    let (word, format) = match extras {
        Extras::None | Extras::Tensors => ("tensors", format_of(dtype)),
        Extras::Varlen => ("varlen", format_of(dtype)),
        Extras::Blocks(format) => ("paged", format),
    };
    let width = WIDTHS.into_iter().find(|&w| w >= d).unwrap_or(WIDTHS[5]);
    // Halves hold codes of 8 bits and fewer exactly. bf16 becomes floats, as MSL has matrices of it from 3.1 on only.
    let wide = matches!(format, KvFormat::F32 | KvFormat::Bf16);
    let name = |wide| Def::Type(if wide { "f32" } else { "f16" });
    let keys = if wide && width > 128 { 16 } else { 32 };
    let (size, pad) = if wide { (4, 4) } else { (2, 8) };
    let scales = if format.quantised() { 8 * keys } else { 0 };
    Variant {
        defines: defines![
            THREADS = Def::Num(THREADS),
            EXTRAS = Def::Word(word),
            WEIGHT = Def::Word(weight(format)),
            QUANTISED = Def::Flag(format.quantised()),
            KIND = Def::Num(kind(dtype)),
            TQ = name(wide || dtype != DType::F16),
            TK = name(wide),
            W = Def::Num(width),
            KEYS = Def::Num(keys),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // The tile, and scores of each row.
            workgroup_storage: keys * (width + pad) * size + THREADS / 4 * (keys + 4) * 4 + scales,
            threads: THREADS,
            ..Needs::default()
        },
    }
}

pub(super) fn variants(extras: impl IntoIterator<Item = Extras> + Clone) -> Vec<Variant> {
    let all = DTYPES.into_iter().flat_map(|t| extras.clone().into_iter().map(move |e| (t, e)));
    all.flat_map(|(t, e)| WIDTHS.map(|d| prefill_variant(t, e, d))).collect()
}
