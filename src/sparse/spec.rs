//! Declarations and specialisations.

use super::cases;
use super::matrix::{FORMATS, packet};
use super::pattern::Pattern;
use super::tables::table_variants;
use crate::format::Format;
use crate::kernel::{
    Access, Binding, Def, Defines, Field, KernelSpec, Needs, Params, Tier, Variant, defines, params, tier,
};
use crate::matmul::{CoopTile, MslTile, coop_defines, coop_needs, coop_tiles, weight_defines};
use crate::tensor::DType;

params! {
    /// See `wgsl/common/sparse.wgsl`.
    pub(super) struct SparseParams {
        m: u32, n: u32, k: u32,
        packets: u32, index_words: u32, groups: u32, group_shift: u32,
        n_first: u32, n_all: u32,
        flags: u32, activation: u32,
    }
}

const FIELDS: &[Field] = SparseParams::FIELDS;
const BINDINGS: &[Binding] = &[
    Binding { name: "a", access: Access::Read },
    Binding { name: "w", access: Access::Read },
    Binding { name: "indices", access: Access::Read },
    Binding { name: "scales", access: Access::Read },
    Binding { name: "bias", access: Access::Read },
    Binding { name: "aux", access: Access::Read },
    Binding { name: "out", access: Access::ReadWrite },
];

/// Sparse weights, any number of rows.
pub static GEMM_SPARSE: KernelSpec = KernelSpec {
    name: "gemm_sparse",
    family: "sparse",
    replaces: &["sparse", "sparse_gemm"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "sparse/gemm_sparse.wgsl", gemm_variants),
        tier!(Coop, "sparse/gemm_sparse_coop.wgsl", coop_variants),
        tier!(Msl, "sparse/gemm_sparse.metal", msl_gemm_variants),
    ],
    cases: cases::gemm,
};

/// Sparse weights, 1 to 8 rows.
pub static GEMV_SPARSE: KernelSpec = KernelSpec {
    name: "gemv_sparse",
    family: "sparse",
    replaces: &["sparse", "sparse_gemm"],
    params: FIELDS,
    bindings: BINDINGS,
    tiers: &[
        tier!(Base, "sparse/gemv_sparse.wgsl", || gemv_variants(Tier::Base)),
        tier!(Subgroup, "sparse/gemv_sparse.wgsl", || gemv_variants(Tier::Subgroup)),
        tier!(Spirv, "sparse/gemv_sparse_tables.wgsl", table_variants),
        tier!(Msl, "sparse/gemv_sparse.metal", msl_gemv_variants),
    ],
    cases: cases::gemv,
};

/// dtype pairs (a, out).
const DTYPES: [(DType, DType); 4] =
    [(DType::F32, DType::F32), (DType::F16, DType::F16), (DType::F16, DType::F32), (DType::F32, DType::F16)];

/// What every specialisation depends on.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    pub pattern: Pattern,
    pub format: Format,
    /// Of a and out.
    pub dtypes: (DType, DType),
}

impl Traits {
    pub fn all() -> Vec<Traits> {
        let formats = Pattern::ALL.into_iter().flat_map(|p| FORMATS.map(|f| (p, f)));
        formats
            .flat_map(|(pattern, format)| DTYPES.map(|dtypes| Traits { pattern, format, dtypes }))
            .collect()
    }

    fn f16(&self) -> bool {
        self.dtypes.0 == DType::F16 || self.dtypes.1 == DType::F16
    }

    /// The defines that all kernels share; `units` are the types by which values and positions are loaded.
    pub fn defines(&self, units: (&'static str, &'static str), f16: bool) -> Defines {
        let mut defines = weight_defines(self.format, f16);
        defines.extend(defines![
            TA = Def::Type(self.dtypes.0.wgsl()),
            TO = Def::Type(self.dtypes.1.wgsl()),
            BLOCK = Def::Num(self.pattern.block() as u32),
            KEPT = Def::Num(self.pattern.kept() as u32),
            INDEX_BITS = Def::Num(self.pattern.index_bits() as u32),
            SPLIT_PAIRS = Def::Flag(self.pattern == Pattern::TwoOfFour && self.format.is_quantised()),
            W_UNIT = Def::Type(units.0),
            INDEX_UNIT = Def::Type(units.1),
        ]);
        defines
    }

    /// Of those kernels that expand w: how many of eight columns are kept.
    fn eight_kept(&self) -> u32 {
        (8 / self.pattern.block() * self.pattern.kept()) as u32
    }

    /// Columns that eight kept values stand for.
    fn chunk_columns(&self) -> u32 {
        (8 / self.pattern.kept() * self.pattern.block()) as u32
    }
}

/// What a team of `gemv_sparse` takes.
#[derive(Clone, Copy)]
pub(super) struct GemvTile {
    /// Rows of a.
    pub rows: u32,
    /// Rows of w.
    pub columns: u32,
}

/// The most rows of w first for each number of rows of a.
pub(super) const GEMV_TILES: [GemvTile; 5] = [
    GemvTile { rows: 1, columns: 4 },
    GemvTile { rows: 1, columns: 2 },
    GemvTile { rows: 2, columns: 4 },
    GemvTile { rows: 4, columns: 2 },
    GemvTile { rows: 8, columns: 2 },
];

const THREADS: u32 = 128;

impl GemvTile {
    /// Pairs of activations in the table, not single ones.
    fn pairs(&self, traits: Traits) -> bool {
        self.rows == 1 && traits.pattern == Pattern::TwoOfFour
    }

    /// (type of a table's entries, its floats, lanes of a team): entries of as many lanes as fill the 32 banks once.
    fn entry(&self, traits: Traits) -> (&'static str, u32, u32) {
        match self.rows {
            1 if !self.pairs(traits) => ("f32", 1, 32),
            1 | 2 => ("vec2<f32>", 2, 16),
            _ => ("vec4<f32>", 4, 8),
        }
    }

    /// Rows of w that a workgroup takes.
    pub fn group_columns(&self, traits: Traits) -> u32 {
        THREADS / self.entry(traits).2 * self.columns
    }
}

pub(super) fn gemv_variant(tier: Tier, traits: Traits, tile: GemvTile, scales: u32) -> Variant {
    let (entry, floats, lanes) = tile.entry(traits);
    let pairs = tile.pairs(traits);
    let chunks = packet(traits.format) as u32 / 8;
    let index_unit = if chunks == 4 && traits.pattern.block() == 4 { "vec2<u32>" } else { "u32" };
    let quads = traits.chunk_columns() / 4;
    let planes = if tile.rows == 8 { 2 } else { 1 };
    let items = lanes * quads * if pairs { 2 } else { planes };
    let table = lanes * quads * if pairs { 11 } else { 4 } * planes * floats * 4;
    let scratch = THREADS * 16;
    // Two tables save a barrier; beside each other they must fit what every adapter has.
    let buffers = if 2 * table + scratch <= 16 << 10 { 2 } else { 1 };
    let mut defines = traits.defines(("vec4<u32>", index_unit), traits.f16());
    defines.extend(defines![
        WALK = Def::Flag(false),
        SUBGROUP = Def::Flag(tier == Tier::Subgroup),
        THREADS = Def::Num(THREADS),
        LANES = Def::Num(lanes),
        LOG_LANES = Def::Num(lanes.trailing_zeros()),
        COLUMNS = Def::Num(tile.columns),
        ROWS_A = Def::Num(tile.rows),
        PAIRS = Def::Flag(pairs),
        ENTRY = Def::Type(entry),
        PLANES = Def::Num(planes),
        QUAD_ROWS = Def::Num(tile.rows / planes),
        ITEMS_EACH = Def::Num(items.div_ceil(THREADS)),
        BUFFERS = Def::Num(buffers),
        CHUNKS_PER_PACKET = Def::Num(chunks),
        SCALES = Def::Num(scales),
    ]);
    let needs = Needs {
        f16: traits.f16(),
        threads: THREADS,
        workgroup_storage: buffers * table + scratch,
        ..Needs::default()
    };
    Variant { defines, needs }
}

/// Threads of a workgroup of `wgsl/common/sparse_walk.wgsl`.
const WALK_THREADS: [u32; 3] = [32, 64, 128];

/// Whether one row of activations picks pairs of halves: by that, or by `wgsl/sparse/gemv_sparse_tables.wgsl`.
pub(super) fn walks(traits: Traits) -> bool {
    traits.pattern == Pattern::TwoOfFour && traits.format.is_quantised() && traits.dtypes.0 == DType::F16
}

/// Its specialisation for rows of so many packets, with `scales` in a packet.
pub(super) fn walk_variant(traits: Traits, packets: usize, scales: u32) -> Variant {
    const COLUMNS: u32 = 8;
    let threads = WALK_THREADS.into_iter().find(|&t| t as usize >= packets).unwrap_or(128);
    let mut defines = traits.defines(("vec4<u32>", "vec2<u32>"), true);
    defines.extend(defines![
        WALK = Def::Flag(true),
        SUBGROUP = Def::Flag(true),
        THREADS = Def::Num(threads),
        LANES = Def::Num(threads),
        COLUMNS = Def::Num(COLUMNS),
        SCALES = Def::Num(scales),
        SPAN_CHUNKS = Def::Num(4 / scales),
    ]);
    let workgroup_storage = (32 * threads + threads) * 4;
    Variant { defines, needs: Needs { f16: true, threads, workgroup_storage, ..Needs::default() } }
}

pub(super) fn gemm_variant(traits: Traits) -> Variant {
    let mut defines = traits.defines(("u32", "u32"), traits.f16());
    defines.extend(defines![EIGHT_KEPT = Def::Num(traits.eight_kept())]);
    let needs =
        Needs { f16: traits.f16(), threads: 256, workgroup_storage: 2 * 2048 * 4, ..Needs::default() };
    Variant { defines, needs }
}

pub(super) fn coop_variant(tile: &CoopTile, traits: Traits, vector_tiles: bool) -> Variant {
    let mut defines = traits.defines(("u32", "u32"), true);
    defines.extend(coop_defines(tile, &tile.walk(8, false), vector_tiles));
    defines.extend(defines![EIGHT_KEPT = Def::Num(traits.eight_kept()), SUMS = Def::Num(1)]);
    Variant { defines, needs: coop_needs(tile) }
}

/// For the Msl tier: two SIMD-groups, each with `columns` rows of w.
pub(super) fn msl_gemv_variant(traits: Traits, rows: u32) -> Variant {
    const THREADS: u32 = 64;
    let columns = 32 / rows.max(8); // a lane for each value
    let mut defines = traits.defines(("vec4<u32>", "u32"), traits.f16());
    defines.extend(defines![
        THREADS = Def::Num(THREADS),
        LANES = Def::Num(32),
        COLUMNS = Def::Num(columns),
        EACH = Def::Num(columns),
        ROWS_A = Def::Num(rows),
        VALUES = Def::Num(columns * rows),
    ]);
    Variant { defines, needs: Needs { f16: traits.f16(), threads: THREADS, ..Needs::default() } }
}

pub(super) fn msl_gemm_variant(traits: Traits, tile: &MslTile) -> Variant {
    let Variant { mut defines, .. } = gemm_variant(traits);
    defines.extend(tile.defines(8));
    Variant { defines, needs: tile.needs(traits.f16()) }
}

impl Traits {
    /// Whether the Msl tier multiplies floats.
    pub(super) fn wide(&self) -> bool {
        self.dtypes.0 != DType::F16
    }
}

fn msl_gemv_variants() -> Vec<Variant> {
    Traits::all().into_iter().flat_map(|t| [1, 2, 4, 8].map(|rows| msl_gemv_variant(t, rows))).collect()
}

fn msl_gemm_variants() -> Vec<Variant> {
    let tiles = |t: Traits| MslTile::all(t.wide()).map(move |tile| msl_gemm_variant(t, tile));
    Traits::all().into_iter().flat_map(tiles).collect()
}

fn gemv_variants(tier: Tier) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in Traits::all() {
        // A packet of 64 or 128 columns, in groups of 16 or more.
        let scales: &[u32] = match (traits.format.is_quantised(), traits.chunk_columns()) {
            (false, _) => &[1],
            (true, 16) => &[1, 2, 4],
            (true, _) => &[1, 2, 4, 8],
        };
        for &scales in scales {
            all.extend(GEMV_TILES.map(|tile| gemv_variant(tier, traits, tile, scales)));
            if tier == Tier::Subgroup && walks(traits) {
                all.extend(WALK_THREADS.map(|threads| walk_variant(traits, threads as usize, scales)));
            }
        }
    }
    all
}

fn coop_variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for tile in coop_tiles(false) {
        for traits in Traits::all().into_iter().filter(|t| t.dtypes.0 == DType::F16) {
            all.push(coop_variant(tile, traits, true));
            if (tile.side, tile.lanes) == (8, 32) {
                all.push(coop_variant(tile, traits, false)); // Metal
            }
        }
    }
    all
}

fn gemm_variants() -> Vec<Variant> {
    Traits::all().into_iter().map(gemm_variant).collect()
}
