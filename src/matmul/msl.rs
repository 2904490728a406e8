//! Tiles of the products on simdgroup matrices: `msl/common/tiles.metal`.

use super::plan::Traits;
use super::spec::{DTypes, common, needs_f16, packet, traits, unique, with_types};
use crate::format::Format;
use crate::kernel::{Def, Defines, Needs, Variant, defines};
use crate::tensor::DType;

/// Threads of a threadgroup: two rows of two SIMD-groups.
const THREADS: u32 = 128;

/// What a threadgroup computes; K in steps of `k`.
pub(crate) struct MslTile {
    /// Whether tiles in threadgroup memory are of floats.
    wide: bool,
    /// Matrices of a SIMD-group, down and across.
    frags: (u32, u32),
    k: u32,
}

/// Largest first for each kind of elements.
pub(crate) const MSL_TILES: &[MslTile] = &[
    MslTile { wide: false, frags: (4, 4), k: 32 },
    MslTile { wide: false, frags: (2, 2), k: 32 },
    MslTile { wide: true, frags: (4, 4), k: 16 },
    MslTile { wide: true, frags: (2, 2), k: 32 },
];

impl MslTile {
    /// Those of a kind of elements.
    pub fn all(wide: bool) -> impl DoubleEndedIterator<Item = &'static MslTile> + Clone {
        MSL_TILES.iter().filter(move |tile| tile.wide == wide)
    }

    /// The large tile where it gives every one of some tens of cores work and its rows are mostly used. Not measured yet.
    pub fn choose(m: usize, n: usize, wide: bool) -> &'static MslTile {
        let busy = |t: &&MslTile| m.div_ceil(t.m()) * n.div_ceil(t.n()) >= 64 && 4 * m >= 3 * t.m();
        let mut fitting = MslTile::all(wide);
        fitting.clone().find(busy).or_else(|| fitting.next_back()).unwrap_or(&MSL_TILES[0])
    }

    fn m(&self) -> usize {
        2 * 8 * self.frags.0 as usize
    }
    fn n(&self) -> usize {
        2 * 8 * self.frags.1 as usize
    }

    /// Weights that a thread decodes in a step.
    fn w_share(&self) -> u32 {
        self.n() as u32 * self.k / THREADS
    }

    /// What `tiles.metal` needs; weights are decoded `w_each` at a time.
    pub fn defines(&self, w_each: u32) -> Defines {
        defines![
            TILE = Def::Type(if self.wide { "f32" } else { "f16" }),
            SIDE = Def::Num(8),
            THREADS = Def::Num(THREADS),
            GRID_M = Def::Num(2),
            GRID_N = Def::Num(2),
            FRAG_M = Def::Num(self.frags.0),
            FRAG_N = Def::Num(self.frags.1),
            TILE_M = Def::Num(self.m() as u32),
            TILE_N = Def::Num(self.n() as u32),
            TILE_K = Def::Num(self.k),
            A_ITEMS = Def::Num(self.m() as u32 * self.k / THREADS / 8),
            W_ITEMS = Def::Num(self.w_share() / w_each),
            W_EACH = Def::Num(w_each),
        ]
    }

    /// Two pairs of tiles, their rows padded by 16 bytes.
    pub fn needs(&self, f16: bool) -> Needs {
        let size = if self.wide { 4 } else { 2 };
        let workgroup_storage = 2 * (self.m() + self.n()) as u32 * (self.k * size + 16);
        Needs { f16, threads: THREADS, workgroup_storage, ..Needs::default() }
    }
}

/// Tiles are of halves where these hold what is multiplied: weights of 32 bits and bf16 do not fit them.
pub(super) fn wide_tiles(format: Format, a: DType) -> bool {
    a != DType::F16 || matches!(format, Format::F32 | Format::Bf16)
}

pub(super) fn msl_variant(tile: &MslTile, traits: Traits, dtypes: DTypes, pair: bool) -> Variant {
    // Of a packet, and within a group.
    let w_each = tile.w_share().min(packet(traits.format)).min(16);
    let f16 = needs_f16(dtypes);
    let mut defines = with_types(common(traits, dtypes, pair, f16), dtypes);
    defines.extend(tile.defines(w_each));
    Variant { defines, needs: tile.needs(f16) }
}

pub(super) fn msl_variants(formats: &[Format], pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in traits(formats) {
        for dtypes in super::DTYPES {
            let tiles = MslTile::all(wide_tiles(traits.format, dtypes.0));
            all.extend(tiles.map(|tile| msl_variant(tile, traits, dtypes, pair)));
        }
    }
    unique(all)
}
