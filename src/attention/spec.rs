//! Declarations of `attention`, `attention_varlen`, `attention_paged` and `attention_decode`.

use super::cases::{decode_cases, prefill_cases};
use super::paged_cases::tile_cases;
use super::plan::RESIDENT;
use super::varlen_cases::varlen_cases;
use super::{Sizes, coop, fragments, msl};
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Def, Defines, KernelSpec, Needs, Params, Recorder, Tier, Variant, defines, params, tier,
};
use crate::kv::KvFormat;
use crate::tensor::DType;

params! {
    pub(super) struct AttentionParams {
        sq: u32, kv_len: u32, capacity: u32, heads: u32, kv_heads: u32, d4: u32, tiles: u32, groups: u32,
        causal: u32, scale: f32, e4: u32, window: u32, soft_cap: f32, sinks: u32, lse: u32, bias: u32,
        bias_b: u32, bias_h: u32, bias_q: u32, block: u32, blocks: u32, table: u32,
    }
}
params! {
    pub(super) struct DecodeParams {
        sq: u32, kv_len: u32, heads: u32, kv_heads: u32, d8: u32, e8: u32, block_rows: u32, head_rows: u32,
        key_rows: u32, block: u32, table: u32, tiles: u32, splits: u32, groups: u32, stats: u32, causal: u32,
        window: u32, kind: u32, scale: f32, soft_cap: f32, blocks: u32,
        bias: u32, bias_b: u32, bias_h: u32, bias_q: u32,
    }
}

pub(super) const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

pub(super) const fn write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite }
}

pub static ATTENTION: KernelSpec = KernelSpec {
    name: "attention",
    family: "attention",
    replaces: &["attention", "flash_attention", "simdgroup_attention", "sliding_window_attention"],
    params: AttentionParams::FIELDS,
    bindings: &[read("q"), read("k"), read("v"), read("bias"), read("sinks"), write("out"), write("lse")],
    tiers: &[
        tier!(Base, "attention/attention.wgsl", || of_widths(Tier::Base, TENSORS)),
        tier!(Subgroup, "attention/attention.wgsl", || of_widths(Tier::Subgroup, TENSORS)),
        tier!(Coop, "attention/attention_coop.wgsl", || coop::variants(TENSORS)),
        tier!(Msl, "attention/attention.metal", || msl::variants([Extras::Tensors])),
    ],
    cases: prefill_cases,
};

/// `attention` of packed sequences: the same shader, a table in place of the bias.
pub static ATTENTION_VARLEN: KernelSpec = KernelSpec {
    name: "attention_varlen",
    family: "attention",
    replaces: &[],
    params: AttentionParams::FIELDS,
    bindings: &[read("q"), read("k"), read("v"), read("table"), read("sinks"), write("out"), write("lse")],
    tiers: &[
        tier!(Base, "attention/attention.wgsl", || of_widths(Tier::Base, [Extras::Varlen])),
        tier!(Subgroup, "attention/attention.wgsl", || of_widths(Tier::Subgroup, [Extras::Varlen])),
        tier!(Coop, "attention/attention_coop.wgsl", || coop::variants([Extras::Varlen])),
        tier!(Msl, "attention/attention.metal", || msl::variants([Extras::Varlen])),
    ],
    cases: varlen_cases,
};

/// `attention` over the blocks of a cache: the same shader, other bindings.
pub static ATTENTION_PAGED: KernelSpec = KernelSpec {
    name: "attention_paged",
    family: "attention",
    replaces: &[],
    params: AttentionParams::FIELDS,
    bindings: &[
        read("q"),
        read("k"),
        read("v"),
        read("scales"),
        read("table"),
        read("sinks"),
        write("out"),
        write("lse"),
    ],
    tiers: &[
        tier!(Base, "attention/attention.wgsl", || of_widths(Tier::Base, blocks())),
        tier!(Subgroup, "attention/attention.wgsl", || of_widths(Tier::Subgroup, blocks())),
        tier!(Coop, "attention/attention_coop.wgsl", || coop::variants(coop::FORMATS.map(Extras::Blocks))),
        tier!(Msl, "attention/attention.metal", || msl::variants(blocks())),
    ],
    cases: tile_cases,
};

pub static ATTENTION_DECODE: KernelSpec = KernelSpec {
    name: "attention_decode",
    family: "attention",
    replaces: &["flash_attention_v2", "paged_attention"],
    params: DecodeParams::FIELDS,
    bindings: &[
        read("q"),
        read("k"),
        read("v"),
        read("scales"),
        read("table"),
        read("bias"),
        write("out"),
        write("workspace"),
    ],
    tiers: &[
        tier!(Base, "attention/attention_decode.wgsl", || decode_variants(Tier::Base)),
        tier!(Subgroup, "attention/attention_decode.wgsl", || decode_variants(Tier::Subgroup)),
        tier!(Spirv, "attention/attention_decode_fragments.wgsl", fragments::variants),
        tier!(Msl, "attention/attention_decode.metal", msl::decode_variants),
    ],
    cases: decode_cases,
};

pub(super) const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// How a cache holds rows of a tensor.
pub(super) const fn format_of(dtype: DType) -> KvFormat {
    match dtype {
        DType::F16 => KvFormat::F16,
        DType::Bf16 => KvFormat::Bf16,
        _ => KvFormat::F32,
    }
}

/// The dtype as the decode shader has it.
pub(super) const fn kind(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::Bf16 => 2,
        _ => 0,
    }
}

/// Folded rows of a prefill workgroup.
pub(super) const TILE_ROWS: u32 = 64;

/// What a prefill shader must know of beyond a mask.
#[derive(Clone, Copy)]
pub(super) enum Extras {
    None,
    /// All options, and values of another width than keys.
    Tensors,
    /// The same, but for a bias and a tree; sequences of different lengths, packed one behind the other.
    Varlen,
    /// The same, but for a bias; keys and values are in blocks.
    Blocks(KvFormat),
}

const TENSORS: [Extras; 2] = [Extras::None, Extras::Tensors];

impl Extras {
    /// What shaders of many queries are specialised on, whatever their tiles. `tensors` is how K and V are read that are
    /// tensors: in pieces of a format, or in fours.
    pub fn defines(self, dtype: DType, tensors: Option<KvFormat>) -> Defines {
        let (word, store) = match self {
            Extras::None => ("none", tensors),
            Extras::Tensors => ("tensors", tensors),
            Extras::Varlen => ("varlen", tensors),
            Extras::Blocks(format) => ("paged", Some(format)),
        };
        defines![
            EXTRAS = Def::Word(word),
            STORE = Def::Word(store.map_or("none", KvFormat::name)),
            QUANTISED = Def::Flag(store.is_some_and(KvFormat::quantised)),
            OFFSET = Def::Flag(store.is_some_and(offset)),
            KIND = Def::Word(dtype.wgsl()),
        ]
    }
}

/// What runs a call of many queries: a tier, how its shader is specialised, and the folded rows of a workgroup.
pub(super) struct Prefill {
    pub tier: Tier,
    pub defines: Defines,
    pub needs: Needs,
    pub rows: u32,
}

pub(super) fn prefill_plan(
    recorder: &Recorder<'_, '_>,
    spec: &'static KernelSpec,
    s: &Sizes,
    extras: Extras,
) -> Result<Prefill> {
    let caps = recorder.gpu().caps();
    let (tier, defines, needs) = recorder.choose(spec, |tier| match tier {
        Tier::Msl => Ok(msl::prefill_variant(s.dtype, extras, s.d.max(s.d_v)).into()),
        Tier::Coop => coop::plan(caps, s, extras).map(Into::into),
        _ => Ok(prefill_variant(tier, s.dtype, s.d_v, extras).into()),
    })?;
    let rows = if tier == Tier::Coop { coop::tile_rows(caps, s) } else { TILE_ROWS };
    Ok(Prefill { tier, defines, needs, rows })
}

/// The variant of the WGSL tiers for values of width `d`.
fn prefill_variant(tier: Tier, dtype: DType, d: u32, extras: Extras) -> Variant {
    // Up to 128 columns, 8 threads share a row; above, 16 do, so that a thread never holds more than 4 × 4 vec4s.
    let threads = if d > 128 { 16 } else { 8 };
    let columns = d.div_ceil(4 * threads);
    // As many rows of V as half the pool holds, but a divisor of the tile's 32 keys.
    let fits = 512 / (threads * columns);
    let v_keys = [32, 16, 8].into_iter().find(|&n| n <= fits).unwrap_or(8);
    let mut defines = extras.defines(dtype, None);
    defines.extend(defines![
        SUBGROUP = Def::Flag(tier == Tier::Subgroup),
        TC = Def::Num(threads),
        J = Def::Num(columns),
        V_KEYS = Def::Num(v_keys),
    ]);
    let (f16, workgroup_storage, threads) = (dtype == DType::F16, 16 << 10, 16 * threads);
    Variant { defines, needs: Needs { f16, workgroup_storage, threads, ..Needs::default() } }
}

/// Widths with a variant each.
pub(super) const WIDTHS: [u32; 6] = [32, 64, 96, 128, 192, 256];

fn blocks() -> [Extras; 7] {
    KvFormat::ALL.map(Extras::Blocks)
}

fn of_widths(tier: Tier, extras: impl IntoIterator<Item = Extras> + Clone) -> Vec<Variant> {
    let all = DTYPES.into_iter().flat_map(|t| extras.clone().into_iter().map(move |e| (t, e)));
    all.flat_map(|(t, e)| WIDTHS.map(|d| prefill_variant(tier, t, d, e))).collect()
}

/// Whether codes are stored with a constant added.
pub(super) fn offset(format: KvFormat) -> bool {
    matches!(format, KvFormat::Int8 | KvFormat::Int4)
}

/// Lanes of a team of `attention_decode`, and the loads of `elements` that each makes of a row of `d`.
/// A team is no wider than `widest`, the narrowest subgroup.
fn team(d: u32, elements: u32, widest: u32) -> (u32, u32) {
    let loads = d.div_ceil(elements).next_power_of_two();
    let lanes = loads.clamp(4, widest.clamp(4, 16));
    (lanes, (loads / lanes).max(1))
}

/// Folded rows that a decode workgroup serves, padding included: what registers hold beside the keys in flight.
fn folded(rows: u32, pieces: u32) -> u32 {
    match (rows, pieces) {
        (0 | 1, _) => 1,
        (5.., 1) => 8,
        _ => 4,
    }
}

/// How `attention_decode` finds its keys.
#[derive(Clone, Copy)]
pub(super) struct Store {
    pub format: KvFormat,
    /// In the blocks of a cache, or `extra`. The plain way is for tensors of f16 and f32 alone.
    pub paged: bool,
    /// With a bias, a tree or a soft cap.
    pub extra: bool,
}

/// How a decode call is launched.
pub(super) struct DecodePlan {
    pub variant: Variant,
    /// That one workgroup serves.
    pub rows: u32,
    /// Workgroups that a compute unit of a large GPU holds at once.
    pub resident: u32,
}

/// The plan for `rows` folded rows of `d` (or of the values, if they are wider). `dtype` is that of the queries, `subgroup` the size of subgroups, 0 if it varies.
pub(super) fn decode_variant(
    tier: Tier,
    dtype: DType,
    store: Store,
    rows: u32,
    (d, d_v): (u32, u32),
    subgroup: u32,
) -> Result<DecodePlan, String> {
    const THREADS: u32 = 128;
    if tier == Tier::Msl {
        let (variant, rows) = msl::decode_variant(dtype, store.format, rows, d.max(d_v));
        return Ok(DecodePlan { variant, rows, resident: RESIDENT });
    }
    let subgroups = tier == Tier::Subgroup;
    let (quantised, bits) = (store.format.quantised(), store.format.bits());
    let bytes = subgroups && offset(store.format) && dtype != DType::F32;
    let (widest, even) = (d.max(d_v), d % 16 == 0 && d_v % 16 == 0);
    // Few lanes for each key have few sums to exchange; registers allow it for up to four rows.
    let paired = subgroups && quantised && even && widest > 64 && (rows <= 4 || widest > 128);
    let y = if paired { 2 } else { 1 };
    let (lanes, loads) = team(widest, 8 * y, if tier == Tier::Base { 16 } else { subgroup });
    let pieces = loads * y;
    if pieces > 4 {
        return Err(format!("subgroups of more than {lanes} lanes for a head size of {widest}"));
    }
    if store.paged && lanes < 8 && pieces > 1 {
        return Err("subgroups of 8 lanes or more for a cache in blocks".to_string());
    }
    let rows = folded(rows, pieces);
    // Keys of a step, and how far loads run ahead: what was fastest on an H100, whose registers it is about.
    let keys = if paired && rows == 4 && bytes && bits == 8 { 2 } else { 4 };
    let ahead = subgroups && quantised && rows <= 4;
    let deep = paired && (bytes || bits == 4);
    // Rows of a vector, and how far lanes of a subgroup share the rows of a key among them.
    let vector = rows.min(4);
    let fold = if tier == Tier::Base { 1 } else { vector.min(lanes / keys) };
    let rest = if tier == Tier::Base { 0 } else { (lanes / keys / fold).ilog2() };
    let variant = Variant {
        defines: defines![
            SUBGROUP = Def::Flag(subgroups),
            STORE = Def::Word(store.format.name()),
            QUANTISED = Def::Flag(quantised),
            OFFSET = Def::Flag(offset(store.format)),
            PAGED = Def::Flag(store.paged),
            EXTRA = Def::Flag(store.extra),
            AHEAD = Def::Flag(ahead),
            DEEP = Def::Flag(deep),
            TL = Def::Num(lanes),
            C = Def::Num(loads),
            U = Def::Num(keys),
            Y = Def::Num(y),
            BYTES = Def::Flag(bytes),
            R = Def::Num(rows),
            W = Def::Num(vector),
            H = Def::Num(rows / vector),
            FW = Def::Num(vector / fold),
            FOLD = Def::Num(fold),
            REST = Def::Num(rest),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // The pool, then maxima and totals of each team; a vector of three or four words is 16 bytes.
            workgroup_storage: 4 * (4 * THREADS * vector + 2 * THREADS / lanes * rows),
            threads: THREADS,
            ..Needs::default()
        },
    };
    // By registers of a thread: an NVIDIA H100 needs 152 for four rows of f16, 168 for two keys of a step, else 200 to 250.
    let resident = match rows {
        1 if quantised => RESIDENT,
        4 if subgroups && quantised && pieces > 1 => {
            if keys == 2 && !store.extra {
                3
            } else {
                2
            }
        }
        4 if quantised && !(subgroups && bits == 8) => RESIDENT,
        _ => 3,
    };
    Ok(DecodePlan { variant, rows, resident })
}

fn decode_variants(tier: Tier) -> Vec<Variant> {
    let stores = KvFormat::ALL.into_iter().flat_map(|format| {
        [(false, false), (true, false), (true, true)].map(|(paged, extra)| Store { format, paged, extra })
    });
    let mut variants: Vec<Variant> = Vec::new();
    for store in stores {
        // Whether rows of queries are f32 matters for integer codes, whether widths are multiples of 16 for all codes.
        let dtypes = match store.format {
            KvFormat::F16 => &[DType::F16][..],
            KvFormat::Int8 | KvFormat::Int4 => &[DType::F32, DType::Bf16],
            _ => &[DType::F32],
        };
        let of_store = variants.len();
        for (dtype, rows, d, subgroup) in dtypes
            .iter()
            .flat_map(|&dtype| [1, 4, 8].map(|rows| (dtype, rows)))
            .flat_map(|(dtype, rows)| [32, 64, 120, 128, 248, 256].map(|d| (dtype, rows, d)))
            .flat_map(|(dtype, rows, d)| [4, 8, 16].map(|subgroup| (dtype, rows, d, subgroup)))
        {
            if let Ok(DecodePlan { variant, .. }) = decode_variant(tier, dtype, store, rows, (d, d), subgroup)
                && !variants[of_store..].contains(&variant)
            {
                variants.push(variant);
            }
        }
    }
    variants
}
