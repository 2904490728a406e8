//! Declarations and specialisations of the matrix kernels. Their tiles are in `tiles.rs`, `gemv_tiles.rs` and `gemv_fragments.rs`.

use std::collections::HashSet;

use super::cases;
use super::gemv_fragments::gemv_fragment_variants;
use super::gemv_tiles::{GemvTile, gemv_tiles_for, multiplies_bytes, multiplies_pairs};
use super::msl::msl_variants;
use super::plan::{Rows, Traits};
use super::tiles::{CoopTile, Staging, Walk, coop_tiles, fragment_tiles};
use crate::format::{Format, Group, ScaleFormat};
use crate::kernel::{
    Access, Binding, Def, Defines, Field, KernelSpec, Needs, Params, Tier, Variant, defines, params,
    set_flag, tier, unit,
};
use crate::tensor::DType;

params! {
    /// See `wgsl/common/linear.wgsl`.
    pub(super) struct LinearParams {
        m: u32, n: u32, k: u32,
        packets: u32, groups: u32, group_shift: u32,
        n_first: u32, n_all: u32, out_row: u32,
        flags: u32, activation: u32, scale: f32, eps: f32,
        q_end: u32, k_end: u32, kv_row: u32,
    }
}

pub(super) const FIELDS: &[Field] = LinearParams::FIELDS;
const BINDINGS: &[Binding] = &[
    Binding { name: "a", access: Access::Read },
    Binding { name: "w", access: Access::Read },
    Binding { name: "scales", access: Access::Read },
    Binding { name: "zeros", access: Access::Read },
    Binding { name: "bias", access: Access::Read },
    Binding { name: "aux", access: Access::Read },
    Binding { name: "out", access: Access::ReadWrite },
];

/// Dense weights, any number of rows.
pub static GEMM: KernelSpec = KernelSpec {
    name: "gemm",
    family: "matmul",
    replaces: &["dense_gemm", "gemm_epilogue", "kernels_autotune"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "matmul/gemm.wgsl", || gemm_variants(DENSE, false)),
        tier!(Coop, "matmul/gemm_coop.wgsl", || coop_variants(DENSE, false)),
        tier!(Msl, "matmul/gemm.metal", || msl_variants(DENSE, false)),
    ],
    cases: cases::gemm,
};

/// Quantised weights, any number of rows.
pub static QGEMM: KernelSpec = KernelSpec {
    name: "qgemm",
    family: "matmul",
    replaces: &["marlin_gemm", "gemm_fp4_optimized", "gemm_epilogue", "kernels_autotune"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "matmul/gemm.wgsl", || gemm_variants(QUANTISED, false)),
        tier!(Coop, "matmul/gemm_coop.wgsl", || coop_variants(QUANTISED, false)),
        tier!(Spirv, "matmul/gemm_coop.wgsl", || fragment_variants(false)),
        tier!(Msl, "matmul/gemm.metal", || msl_variants(QUANTISED, false)),
    ],
    cases: cases::qgemm,
};

/// Any weights, 1 to 8 rows.
pub static QGEMV: KernelSpec = KernelSpec {
    name: "qgemv",
    family: "matmul",
    replaces: &["decode_gemv", "dense_gemm"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv_variants(Tier::Base, false)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv_variants(Tier::Subgroup, false)),
        // Its variants with BYTES are `wgsl/common/gemv_bytes.wgsl`, without matrices.
        tier!(Spirv, "matmul/gemv_fragments.wgsl", || gemv_fragment_variants(false)),
        tier!(Msl, "matmul/gemv.metal", || gemv_variants(Tier::Msl, false)),
    ],
    cases: cases::qgemv,
};

/// The first half of a gated MLP, any number of rows.
pub static GATE_UP: KernelSpec = KernelSpec {
    name: "gate_up",
    family: "matmul",
    replaces: &["fusion/gated_mlp", "dense_gemm"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "matmul/gemm.wgsl", || gemm_variants(Format::ALL, true)),
        tier!(Coop, "matmul/gemm_coop.wgsl", || coop_variants(Format::ALL, true)),
        tier!(Spirv, "matmul/gemm_coop.wgsl", || fragment_variants(true)),
        tier!(Msl, "matmul/gemm.metal", || msl_variants(Format::ALL, true)),
    ],
    cases: cases::gate_up,
};

/// The first half of a gated MLP, 1 to 8 rows.
pub static GATE_UP_GEMV: KernelSpec = KernelSpec {
    name: "gate_up_gemv",
    family: "matmul",
    replaces: &["fusion/gated_mlp", "dense_gemm"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "matmul/gemv.wgsl", || gemv_variants(Tier::Base, true)),
        tier!(Subgroup, "matmul/gemv_subgroup.wgsl", || gemv_variants(Tier::Subgroup, true)),
        tier!(Spirv, "matmul/gemv_fragments.wgsl", || gemv_fragment_variants(true)),
        tier!(Msl, "matmul/gemv.metal", || gemv_variants(Tier::Msl, true)),
    ],
    cases: cases::gate_up_gemv,
};

pub(super) const DENSE: &[Format] = &[Format::F32, Format::F16, Format::Bf16];
pub(super) const QUANTISED: &[Format] = Format::ALL.split_at(DENSE.len()).1;

pub(super) type DTypes = (DType, DType);

/// The defines that all readers of a weight share: see `wgsl/common/weight.wgsl` and `packed.wgsl`.
pub(crate) fn weight_defines(format: Format, f16: bool) -> Defines {
    let scales = match format.scales() {
        ScaleFormat::None => "none",
        ScaleFormat::F16 => "f16",
        ScaleFormat::E8m0 => "e8m0",
        ScaleFormat::E4m3 => "e4m3",
    };
    defines![
        WEIGHT = Def::Word(format.name()),
        CODES = Def::Word(codes(format)),
        SCALE_FORMAT = Def::Word(scales),
        HALVES = Def::Flag(false),
        BARE = Def::Flag(false),
        BOOK = Def::Flag(false),
        BYTES = Def::Flag(false),
        EARLY = Def::Flag(false),
        MULTIPLIES = Def::Flag(false),
        SMALL_SCALES = Def::Flag(false),
        HALF_SCALES = Def::Flag(f16 && format.scales() == ScaleFormat::F16),
        STORED_ZEROS = Def::Flag(format.has_zeros()),
        QUANTISED = Def::Flag(format.is_quantised()),
        PACKET = Def::Num(packet(format)),
        PACKET_WORDS = Def::Num(packet(format) * format.bits() as u32 / 32),
        NEEDS_F16 = Def::Flag(f16),
    ]
}

/// Has the codebook of the format, where it has one, kept in workgroup memory; see `wgsl/common/weight/book.wgsl`.
pub(crate) fn with_book(mut variant: Variant, format: Format) -> Variant {
    let bytes = book_bytes(format);
    set_flag(&mut variant.defines, "BOOK", bytes > 0);
    variant.needs.workgroup_storage += bytes;
    variant
}

/// Of that table: a copy for each of 32 lanes.
pub(super) fn book_bytes(format: Format) -> u32 {
    let entries = match format {
        Format::Nf4 => 16,
        Format::Nf3 => 8,
        _ => 0,
    };
    entries * 32 * 4
}

/// The block of `wgsl/common/weight/` that decodes the format.
fn codes(format: Format) -> &'static str {
    match format {
        Format::Int4Zero => Format::Int4.name(),
        Format::Int8Zero => Format::Int8.name(),
        Format::Mxfp4 | Format::Nvfp4 => Format::Fp4.name(),
        _ => format.name(),
    }
}

/// The defines that all matrix kernels share.
pub(super) fn common(traits: Traits, (a, out): DTypes, pair: bool, f16: bool) -> Defines {
    let mut defines = weight_defines(traits.format, f16);
    defines.extend(defines![
        ROWS = Def::Word(traits.rows.name()),
        TA = Def::Word(a.wgsl()),
        A_UNIT = Def::Type(if traits.rows == Rows::Ragged { unit(a, false) } else { "vec4<u32>" }),
        TO = Def::Word(out.wgsl()),
        OUT_UNIT = Def::Type(unit(out, false)),
        PAIR = Def::Flag(pair),
        SUMS = Def::Num(sums(out, pair) as u32),
        // Set by `fused_spec::fuse`.
        NORM = Def::Flag(false),
        SPLIT = Def::Flag(false),
    ]);
    defines
}

/// In MSL the dtypes are types as well as words.
pub(super) fn with_types(mut defines: Defines, (a, out): DTypes) -> Defines {
    for (name, value) in &mut defines {
        match *name {
            "TA" => *value = Def::Type(a.wgsl()),
            "TO" => *value = Def::Type(out.wgsl()),
            _ => {}
        }
    }
    defines
}

/// Sums that are stored at once: two for each output of a pair, outputs in bf16 two a word.
pub(super) fn sums(out: DType, pair: bool) -> usize {
    (if pair { 2 } else { 1 }) * (if out == DType::Bf16 { 2 } else { 1 })
}

/// Packed halves are read without the f16 feature, but the alias that names the type needs it.
pub(super) fn needs_f16((a, out): DTypes) -> bool {
    a == DType::F16 || out == DType::F16
}

pub(super) fn gemv_variant(
    tier: Tier,
    traits: Traits,
    dtypes: DTypes,
    tile: GemvTile,
    pair: bool,
) -> Variant {
    let GemvTile { rows, columns, threads, pairs } = tile;
    // On Metal every SIMD-group has columns of its own.
    let each = if tier == Tier::Msl { columns / (threads / 32) } else { columns };
    let values = each * rows;
    let spans = if traits.split_packet { 2 } else { 1 };
    let f16 = needs_f16(dtypes);
    let mut defines = common(traits, dtypes, pair, f16);
    defines.extend(defines![
        SUBGROUP = Def::Flag(tier == Tier::Subgroup),
        THREADS = Def::Num(threads),
        COLUMNS = Def::Num(columns),
        EACH = Def::Num(each),
        ROWS_A = Def::Num(rows),
        VALUES = Def::Num(values),
        BLOCKS = Def::Num(values.div_ceil(8)),
        SPANS = Def::Num(spans),
        SPAN_CHUNKS = Def::Num(packet(traits.format) / 8 / spans),
        SPAN_UNITS = Def::Num(packet(traits.format) / 16 / spans),
    ]);
    if tier == Tier::Subgroup {
        // Products of bytes err by 2⁻¹⁵ of the largest activation at most: enough for activations of 11 bits.
        let narrow = dtypes.0 != DType::F32;
        let bytes = rows == 1 && narrow && multiplies_bytes(traits.format);
        set_flag(&mut defines, "BYTES", bytes);
        // Bytes have half as many activations to a load, so there it counts less how these are prepared.
        let halves = dtypes.0 == DType::F16 && traits.rows != Rows::Ragged;
        let small = bytes && traits.format.bits() <= 4;
        set_flag(&mut defines, "HALVES", halves && (small || pairs));
        // With more rows registers would be too few.
        set_flag(&mut defines, "EARLY", rows <= 2 && traits.format.is_quantised());
    }
    let workgroup_storage = match tier {
        Tier::Subgroup => threads / 8 * values.next_multiple_of(8) * 4,
        Tier::Msl => 0,
        _ => threads * 4,
    };
    if tier == Tier::Msl {
        defines = with_types(defines, dtypes);
    }
    let variant = Variant { defines, needs: Needs { f16, threads, workgroup_storage, ..Needs::default() } };
    if tier == Tier::Subgroup { with_book(variant, traits.format) } else { variant }
}

pub(super) fn gemm_variant(traits: Traits, dtypes: DTypes, pair: bool) -> Variant {
    let f16 = needs_f16(dtypes);
    let needs = Needs { f16, threads: 256, workgroup_storage: 2 * 2048 * 4, ..Needs::default() };
    Variant { defines: common(traits, dtypes, pair, f16), needs }
}

pub(super) fn coop_variant(
    tile: &CoopTile,
    traits: Traits,
    dtypes: DTypes,
    pair: bool,
    vector_tiles: bool,
) -> Variant {
    let walk = tile.walk(packet(traits.format), traits.split_packet);
    let rows = match traits.rows {
        // Columns past the end must be zeros where steps are longer than what exact rows are multiples of.
        Rows::Exact if tile.staging == Staging::Shared && tile.step(&walk) > 64 => Rows::Padded,
        rows => rows,
    };
    // Arranged activations are halves and as long as the steps.
    let (rows, dtypes) = if tile.arranged() { (Rows::Exact, (DType::F16, dtypes.1)) } else { (rows, dtypes) };
    let mut defines = common(Traits { rows, ..traits }, dtypes, pair, true);
    // Stored zeros, codebooks and products of two scales are rounded to halves before weights are, and two such results are multiplied
    // in a gated pair: there they go by way of f32.
    let twice =
        traits.format.has_zeros() || matches!(traits.format, Format::Nf4 | Format::Nf3 | Format::Nvfp4);
    let halves = traits.format.is_quantised() && !(pair && twice);
    set_flag(&mut defines, "HALVES", halves);
    set_flag(&mut defines, "SMALL_SCALES", traits.small_scales);
    set_flag(&mut defines, "MULTIPLIES", matches!(tile.staging, Staging::Fragments { .. }));
    defines.extend(coop_defines(tile, &walk, vector_tiles));
    with_book(Variant { defines, needs: coop_needs(tile) }, traits.format)
}

/// What `wgsl/common/coop_product.wgsl` is specialised on.
pub(crate) fn coop_defines(tile: &CoopTile, walk: &Walk, vector_tiles: bool) -> Defines {
    let (threads, a_tiles, own) = match tile.staging {
        Staging::Own(own) => (tile.lanes, own.a_tiles.min(walk.span / 8), true),
        _ => (tile.threads(), 1, false),
    };
    let a_halves = if tile.staging == (Staging::Fragments { far: false }) { 1 } else { 2 };
    defines![
        SIDE = Def::Num(tile.side),
        THREADS = Def::Num(tile.threads()),
        GRID_M = Def::Num(tile.grid.0),
        GRID_N = Def::Num(tile.grid.1),
        GRID_K = Def::Num(tile.grid.2),
        FRAG_M = Def::Num(tile.frags.0),
        FRAG_N = Def::Num(tile.frags.1),
        TILE_K = Def::Num(tile.k),
        DEPTH = Def::Num(walk.depth),
        ROUND = Def::Num(tile.round()),
        VECTOR_TILES = Def::Flag(vector_tiles),
        BATCHED = Def::Flag(false),
        KN = Def::Flag(false),
        OWN = Def::Flag(own),
        FRAGMENTS = Def::Flag(matches!(tile.staging, Staging::Fragments { .. })),
        A_HALVES = Def::Num(a_halves),
        ARRANGED = Def::Flag(tile.arranged()),
        TOUCHES = Def::Flag(tile.touches()),
        A_STRIDE = Def::Num(tile.a_stride()),
        W_PARTS = Def::Num(tile.parts()),
        PART_FRAGS = Def::Num(tile.frags.1 / tile.parts()),
        K_FRAGS = Def::Num(tile.k / tile.side),
        PIECES = Def::Num(tile.k / 8),
        A_TILES = Def::Num(a_tiles),
        W_ITEMS = Def::Num(walk.items),
        W_EACH = Def::Num(walk.each),
        SPANS = Def::Num(walk.each / walk.span),
        SPAN = Def::Num(walk.span),
        SPAN_CHUNKS = Def::Num(walk.span / 8),
        SPAN_BLOCKS = Def::Num(walk.span / 8 / a_tiles),
        A_ITEMS = Def::Num(tile.m() as u32 * tile.k * a_tiles / 8 / threads),
    ]
}

pub(crate) fn coop_needs(tile: &CoopTile) -> Needs {
    Needs {
        f16: true,
        workgroup_storage: tile.workgroup_storage(),
        threads: tile.threads(),
        coop_side: tile.side,
        subgroup_size: tile.lanes,
    }
}

/// Elements that one thread loads at once: PACKET of `wgsl/common/weight.wgsl`.
pub(crate) const fn packet(format: Format) -> u32 {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => 8,
        Format::Int8 | Format::Int8Zero | Format::E4m3 | Format::E5m2 => 16,
        // 12 bytes of 3-bit and 8 of 2-bit codes.
        _ => 32,
    }
}

pub(super) fn traits(formats: &[Format]) -> Vec<Traits> {
    let mut all = Vec::new();
    for &format in formats {
        for rows in Rows::ALL {
            all.push(Traits { format, rows, split_packet: false, small_scales: false });
            // Groups of 16 divide K, so such rows are not ragged.
            if rows != Rows::Ragged && packet(format) == 32 && format.allows(Group::Size(16), 32) {
                all.push(Traits { format, rows, split_packet: true, small_scales: false });
            }
        }
    }
    all
}

/// Whether such activations and results may be multiplied by pairs of halves: see [`GemvTile::pairs`]. The errors of two such
/// results would add up in the product of a gated pair.
pub(super) fn takes_pairs(dtypes: DTypes, rows: Rows, pair: bool) -> bool {
    dtypes == (DType::F16, DType::F16) && rows != Rows::Ragged && !pair
}

pub(super) fn gemv_variants(tier: Tier, pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in traits(Format::ALL) {
        for dtypes in super::DTYPES {
            let halves = takes_pairs(dtypes, traits.rows, pair);
            let tiles = gemv_tiles_for(tier, traits.format).filter(|t| !t.pairs || halves);
            for tile in tiles {
                let plain = gemv_variant(tier, traits, dtypes, tile, pair);
                if gains_by_products(tier, traits.format) {
                    let mut variant = plain.clone();
                    set_flag(&mut variant.defines, "MULTIPLIES", true);
                    all.push(variant);
                }
                all.push(plain);
            }
        }
    }
    all
}

/// Whether it matters to a gemv kernel that a device multiplies integers as fast as it shifts them.
pub(super) fn gains_by_products(tier: Tier, format: Format) -> bool {
    tier == Tier::Subgroup && multiplies_pairs(format)
}

pub(super) fn gemm_variants(formats: &[Format], pair: bool) -> Vec<Variant> {
    let pairs = |t| super::DTYPES.map(|d| gemm_variant(t, d, pair));
    unique(traits(formats).into_iter().flat_map(pairs).collect())
}

pub(super) fn coop_variants(formats: &[Format], pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in traits(formats) {
        for tile in coop_tiles(traits.format.is_quantised()) {
            for dtypes in super::DTYPES.into_iter().filter(|(a, _)| *a != DType::F32) {
                all.push(coop_variant(tile, traits, dtypes, pair, true));
                if (tile.side, tile.lanes) == (8, 32) {
                    all.push(coop_variant(tile, traits, dtypes, pair, false)); // Metal
                }
            }
        }
    }
    unique(all)
}

/// Of the Spirv tier, which takes quantised weights and any number of rows, but none that must be loaded element by element.
pub(super) fn fragment_variants(pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    let small = |traits: Traits| {
        let small = Traits { small_scales: true, ..traits };
        [traits, small].into_iter().take(if traits.format == Format::Fp4 { 2 } else { 1 })
    };
    for traits in traits(QUANTISED).into_iter().filter(|t| t.rows != Rows::Ragged).flat_map(small) {
        for tile in fragment_tiles() {
            let narrow = super::DTYPES.into_iter().filter(|(a, _)| *a != DType::F32);
            all.extend(narrow.map(|dtypes| coop_variant(tile, traits, dtypes, pair, true)));
        }
    }
    unique(all)
}

/// Not every trait matters to every kernel.
pub(super) fn unique(all: Vec<Variant>) -> Vec<Variant> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|v| seen.insert(v.defines.clone())).collect()
}
