//! Declarations, specialisations and tiles of the matrix kernels.

use std::collections::HashSet;

use super::cases;
use super::msl::msl_variants;
use super::plan::{Rows, Traits};
use crate::format::{Format, Group, ScaleFormat};
use crate::kernel::{
    Access, Binding, Def, Defines, Field, KernelSpec, Needs, Params, Tier, Variant, defines, params, tier,
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
        HALF_SCALES = Def::Flag(f16 && format.scales() == ScaleFormat::F16),
        STORED_ZEROS = Def::Flag(format.has_zeros()),
        QUANTISED = Def::Flag(format.is_quantised()),
        PACKET = Def::Num(packet(format)),
        PACKET_WORDS = Def::Num(packet(format) * format.bits() as u32 / 32),
        NEEDS_F16 = Def::Flag(f16),
    ]
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
pub(super) fn common(traits: Traits, (a, out): DTypes, pair: bool) -> Defines {
    let mut defines = weight_defines(traits.format, needs_f16((a, out)));
    defines.extend(defines![
        ROWS = Def::Word(traits.rows.name()),
        TA = Def::Type(a.wgsl()),
        TO = Def::Type(out.wgsl()),
        PAIR = Def::Flag(pair),
        // Set by `fused_spec::fuse`.
        NORM = Def::Flag(false),
        SPLIT = Def::Flag(false),
    ]);
    defines
}

/// Packed halves are read without the f16 feature, but the alias that names the type needs it.
pub(super) fn needs_f16((a, out): DTypes) -> bool {
    a == DType::F16 || out == DType::F16
}

/// How a workgroup of a gemv kernel divides its work.
#[derive(Clone, Copy)]
pub(super) struct GemvTile {
    /// Rows of a.
    pub rows: u32,
    /// Rows of w.
    pub columns: u32,
    pub threads: u32,
}

/// For the Base tier.
pub(super) const GEMV_BASE_TILES: [GemvTile; 4] =
    [gemv_tile(1, 2, 64), gemv_tile(2, 4, 64), gemv_tile(4, 4, 64), gemv_tile(8, 4, 64)];
/// For the Subgroup tier, by rows of a and rising threads.
pub(super) const GEMV_TILES: [GemvTile; 10] = [
    gemv_tile(1, 8, 32),
    gemv_tile(1, 8, 64),
    gemv_tile(1, 8, 128),
    gemv_tile(1, 8, 256),
    gemv_tile(2, 8, 64),
    gemv_tile(2, 8, 128),
    gemv_tile(4, 4, 64),
    gemv_tile(4, 4, 128),
    gemv_tile(8, 4, 64),
    gemv_tile(8, 4, 128),
];

/// For the Msl tier: two SIMD-groups that take half of the columns each.
pub(super) const GEMV_MSL_TILES: [GemvTile; 4] =
    [gemv_tile(1, 8, 64), gemv_tile(2, 8, 64), gemv_tile(4, 8, 64), gemv_tile(8, 8, 64)];

/// Those of a tier.
pub(super) fn gemv_tiles(tier: Tier) -> &'static [GemvTile] {
    match tier {
        Tier::Base => &GEMV_BASE_TILES,
        Tier::Msl => &GEMV_MSL_TILES,
        _ => &GEMV_TILES,
    }
}

const fn gemv_tile(rows: u32, columns: u32, threads: u32) -> GemvTile {
    GemvTile { rows, columns, threads }
}

pub(super) fn gemv_variant(
    tier: Tier,
    traits: Traits,
    dtypes: DTypes,
    tile: GemvTile,
    pair: bool,
) -> Variant {
    let GemvTile { rows, columns, threads } = tile;
    // On Metal every SIMD-group has columns of its own.
    let each = if tier == Tier::Msl { columns / (threads / 32) } else { columns };
    let values = each * rows;
    let spans = if traits.split_packet { 2 } else { 1 };
    let mut defines = common(traits, dtypes, pair);
    defines.extend(defines![
        SUBGROUP = Def::Flag(tier == Tier::Subgroup),
        THREADS = Def::Num(threads),
        COLUMNS = Def::Num(columns),
        EACH = Def::Num(each),
        ROWS_A = Def::Num(rows),
        VALUES = Def::Num(values),
        BLOCKS = Def::Num(values / 8),
        SPANS = Def::Num(spans),
        SPAN_CHUNKS = Def::Num(packet(traits.format) / 8 / spans),
    ]);
    let workgroup_storage = match tier {
        Tier::Subgroup => threads / 8 * values * 4,
        Tier::Msl => 0,
        _ => threads * 4,
    };
    let f16 = needs_f16(dtypes);
    Variant { defines, needs: Needs { f16, threads, workgroup_storage, ..Needs::default() } }
}

pub(super) fn gemm_variant(traits: Traits, dtypes: DTypes, pair: bool) -> Variant {
    let f16 = needs_f16(dtypes);
    let needs = Needs { f16, threads: 256, workgroup_storage: 2 * 2048 * 4, ..Needs::default() };
    Variant { defines: common(traits, dtypes, pair), needs }
}

/// A tiling of the `Coop` tier.
pub(super) struct CoopTile {
    pub side: u32,
    pub lanes: u32,
    /// Subgroups of a workgroup, down and across.
    grid: (u32, u32),
    /// Matrices of a subgroup, down and across.
    frags: (u32, u32),
    k: u32,
}

/// Largest first for each (side, lanes).
pub(super) const COOP_TILES: &[CoopTile] = &[
    CoopTile { side: 16, lanes: 32, grid: (4, 2), frags: (4, 4), k: 32 },
    CoopTile { side: 16, lanes: 32, grid: (2, 4), frags: (4, 2), k: 64 },
    CoopTile { side: 16, lanes: 32, grid: (2, 2), frags: (2, 2), k: 64 },
    CoopTile { side: 16, lanes: 32, grid: (1, 4), frags: (1, 1), k: 64 },
    CoopTile { side: 16, lanes: 64, grid: (2, 2), frags: (4, 4), k: 32 },
    CoopTile { side: 16, lanes: 64, grid: (2, 2), frags: (2, 2), k: 32 },
    CoopTile { side: 8, lanes: 32, grid: (2, 2), frags: (4, 4), k: 32 },
    CoopTile { side: 8, lanes: 32, grid: (2, 2), frags: (2, 2), k: 32 },
    CoopTile { side: 8, lanes: 8, grid: (2, 2), frags: (4, 4), k: 32 },
    CoopTile { side: 8, lanes: 8, grid: (2, 2), frags: (2, 2), k: 32 },
];

impl CoopTile {
    pub fn m(&self) -> usize {
        (self.grid.0 * self.frags.0 * self.side) as usize
    }
    pub fn n(&self) -> usize {
        (self.grid.1 * self.frags.1 * self.side) as usize
    }
    pub fn threads(&self) -> u32 {
        self.grid.0 * self.grid.1 * self.lanes
    }
    /// Two f16 tiles with rows padded by 8 halves, and one f32 matrix a subgroup.
    pub fn workgroup_storage(&self) -> u32 {
        (self.m() + self.n()) as u32 * (self.k + 8) * 2
            + self.grid.0 * self.grid.1 * self.side * self.side * 4
    }
}

pub(super) fn coop_variant(
    tile: &CoopTile,
    traits: Traits,
    out: DType,
    pair: bool,
    vector_tiles: bool,
) -> Variant {
    // A thread's share of a step of w, in pieces of at most a packet, in spans of at most a group.
    let w_share = tile.n() as u32 * tile.k / tile.threads();
    let w_each = w_share.min(packet(traits.format));
    let span = if traits.split_packet { w_each.min(16) } else { w_each };
    let mut defines = common(traits, (DType::F16, out), pair);
    defines.extend(defines![
        SIDE = Def::Num(tile.side),
        THREADS = Def::Num(tile.threads()),
        GRID_M = Def::Num(tile.grid.0),
        GRID_N = Def::Num(tile.grid.1),
        FRAG_M = Def::Num(tile.frags.0),
        FRAG_N = Def::Num(tile.frags.1),
        TILE_K = Def::Num(tile.k),
        VECTOR_TILES = Def::Flag(vector_tiles),
        A_ITEMS = Def::Num(tile.m() as u32 * tile.k / 8 / tile.threads()),
        W_ITEMS = Def::Num(w_share / w_each),
        W_EACH = Def::Num(w_each),
        SPANS = Def::Num(w_each / span),
        SPAN = Def::Num(span),
        SPAN_CHUNKS = Def::Num(span / 8),
    ]);
    let needs = Needs {
        f16: true,
        workgroup_storage: tile.workgroup_storage(),
        threads: tile.threads(),
        coop_side: tile.side,
        subgroup_size: tile.lanes,
    };
    Variant { defines, needs }
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
            all.push(Traits { format, rows, split_packet: false });
            // Groups of 16 divide K, so such rows are not ragged.
            if rows != Rows::Ragged && packet(format) == 32 && format.allows(Group::Size(16), 32) {
                all.push(Traits { format, rows, split_packet: true });
            }
        }
    }
    all
}

pub(super) fn gemv_variants(tier: Tier, pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in traits(Format::ALL) {
        for dtypes in super::DTYPES {
            all.extend(gemv_tiles(tier).iter().map(|&tile| gemv_variant(tier, traits, dtypes, tile, pair)));
        }
    }
    all
}

pub(super) fn gemm_variants(formats: &[Format], pair: bool) -> Vec<Variant> {
    let pairs = |t| super::DTYPES.map(|d| gemm_variant(t, d, pair));
    unique(traits(formats).into_iter().flat_map(pairs).collect())
}

pub(super) fn coop_variants(formats: &[Format], pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for tile in COOP_TILES {
        for traits in traits(formats) {
            for out in [DType::F16, DType::F32] {
                all.push(coop_variant(tile, traits, out, pair, true));
                if (tile.side, tile.lanes) == (8, 32) {
                    all.push(coop_variant(tile, traits, out, pair, false)); // Metal
                }
            }
        }
    }
    unique(all)
}

/// Not every trait matters to every kernel.
pub(super) fn unique(all: Vec<Variant>) -> Vec<Variant> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|v| seen.insert(v.defines.clone())).collect()
}
