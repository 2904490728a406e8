//! Which kernel and tile serve a number of rows M of activations: the one place of that choice. Static tables, a column a class of
//! devices: nothing is tuned inside a caller's call. The tiles of the gemv kernels are in [`gemv_tiles`](super::gemv_tiles). What was
//! measured, and what not yet, is in `docs/performance.md`.

use super::gemv_few::GemvFew;
use super::weight::Weight;
use super::{GEMM, QGEMM, QGEMV};
use crate::device::{Caps, Gpu};
use crate::format::Format;
use crate::kernel::{KernelSpec, Tier};
use crate::tensor::DType;

/// Rows of activations that `qgemv` and its kin take at the most; they read every weight once.
pub(super) const MAX_GEMV_ROWS: usize = 8;
/// As many where cooperative matrices of side 16 take quantised weights: their smallest tile costs less than five rows.
const GEMV_ROWS_BESIDE_MATRICES: usize = 4;
/// And where threads fill these from registers, which costs about as much for eight rows as for three, and as for two of the formats
/// that take the fewest operations.
const GEMV_ROWS_BESIDE_FRAGMENTS: usize = 2;
const GEMV_ROWS_BESIDE_FAST_FRAGMENTS: usize = 1;

/// Whether a device of these capabilities, used up to a tier, has matrices of side 16.
fn has_matrices(caps: &Caps, ceiling: Option<Tier>) -> bool {
    let side = (caps.coop_side, caps.subgroup_size) == (Some(SIDE_16.0), SIDE_16.1);
    side && ceiling.is_none_or(|ceiling| ceiling >= Tier::Coop)
}

/// And makes them of what threads hold.
fn has_fragments(caps: &Caps, ceiling: Option<Tier>) -> bool {
    has_matrices(caps, ceiling) && caps.spirv && ceiling.is_none_or(|ceiling| ceiling >= Tier::Spirv)
}

/// Rows of activations up to which a gemv kernel serves any weight.
fn gemv_rows(caps: &Caps, ceiling: Option<Tier>, format: Format, a: DType) -> usize {
    if !format.is_quantised() || a == DType::F32 {
        return MAX_GEMV_ROWS;
    }
    match format {
        Format::Fp4 | Format::Int4 if has_fragments(caps, ceiling) => GEMV_ROWS_BESIDE_FAST_FRAGMENTS,
        _ if has_fragments(caps, ceiling) => GEMV_ROWS_BESIDE_FRAGMENTS,
        _ if has_matrices(caps, ceiling) => GEMV_ROWS_BESIDE_MATRICES,
        _ => MAX_GEMV_ROWS,
    }
}

/// Whether a gemv kernel serves `m` rows, for a gated pair or not; with a norm it does wherever it can, as it spares the norm's launch and
/// workspace.
pub(super) fn few_rows(gpu: &Gpu, m: usize, weight: &Weight, a: DType, (pair, norm): (bool, bool)) -> bool {
    let (caps, ceiling) = (gpu.caps(), gpu.forced_tier());
    if norm {
        return m <= MAX_GEMV_ROWS;
    }
    let special = has_fragments(caps, ceiling) && GemvFew::serves(caps, m, weight, a, pair);
    special || m <= gemv_rows(caps, ceiling, weight.format(), a)
}

pub(super) fn kernel_for(gpu: &Gpu, m: usize, weight: &Weight, a: DType) -> &'static KernelSpec {
    match (few_rows(gpu, m, weight, a, (false, false)), weight.format().is_quantised()) {
        (true, _) => &QGEMV,
        (false, true) => &QGEMM,
        (false, false) => &GEMM,
    }
}

/// A tiling of the `Coop` tier; see `wgsl/matmul/gemm_coop.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CoopTile {
    pub side: u32,
    pub lanes: u32,
    /// Subgroups of a workgroup, down, across and along K.
    pub grid: (u32, u32, u32),
    /// Matrices of a subgroup, down and across.
    pub frags: (u32, u32),
    /// Of a step.
    pub k: u32,
    /// Packets of w that each thread has in flight, at least; those of one step are always.
    pub ahead: u32,
    pub staging: Staging,
}

/// How operands come into matrices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Staging {
    /// Through tiles in workgroup memory that subgroups share: `wgsl/common/coop_walk.wgsl`.
    Shared,
    /// Through tiles of its own for each subgroup, which then walks without the others.
    Own(OwnTiles),
    /// From registers, in the Spirv tier: `wgsl/common/coop_walk_fragments.wgsl`.
    /// Without `far` rows 8 to 15 of its matrices are zeros.
    Fragments { far: bool },
}

/// See `wgsl/common/coop_walk_own.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OwnTiles {
    /// Parts of the rows of w that go through the tile of w one after the other.
    pub parts: u32,
    /// Tiles of w whose activations the tile of a holds, at most.
    pub a_tiles: u32,
}

impl CoopTile {
    pub const fn m(&self) -> usize {
        (self.grid.0 * self.frags.0 * self.side) as usize
    }
    pub const fn n(&self) -> usize {
        (self.grid.1 * self.frags.1 * self.side) as usize
    }
    pub const fn threads(&self) -> u32 {
        self.grid.0 * self.grid.1 * self.grid.2 * self.lanes
    }
    /// Two f16 tiles with rows padded by 8 halves, and f32 matrices on their way out.
    pub const fn workgroup_storage(&self) -> u32 {
        self.tiles() + self.round() * self.scratch()
    }
    const fn tiles(&self) -> u32 {
        let pairs = match self.staging {
            Staging::Shared => 1,
            Staging::Own(_) => self.grid.2,
            Staging::Fragments { .. } => 0,
        };
        pairs * (self.m() as u32 * self.a_stride() + self.n() as u32 / self.parts() * (self.k + 8)) * 2
    }
    pub const fn parts(&self) -> u32 {
        match self.staging {
            Staging::Own(own) => own.parts,
            _ => 1,
        }
    }
    /// Halves from one row of the tile of a to the next.
    pub const fn a_stride(&self) -> u32 {
        match self.staging {
            Staging::Own(own) => self.k * own.a_tiles + 8,
            _ => self.k + 8,
        }
    }
    /// One f32 matrix a subgroup.
    const fn scratch(&self) -> u32 {
        self.threads() / self.lanes * self.side * self.side * 4
    }
    /// How many matrices a subgroup brings out at a time: all that lie side by side, if that costs no workgroup its place beside
    /// another one.
    pub const fn round(&self) -> u32 {
        if self.tiles() + self.frags.1 * self.scratch() <= 24 << 10 { self.frags.1 } else { 1 }
    }
    /// How threads take w, whose packets hold so many elements, of two groups if `split`.
    pub fn walk(&self, packet: u32, split: bool) -> Walk {
        let of = |each: u32, items: u32| {
            let span = if split { each.min(16) } else { each };
            Walk { each, items, span, depth: (self.ahead / items).max(1) }
        };
        match self.staging {
            Staging::Shared => {
                let share = self.n() as u32 * self.k / self.threads();
                of(share.min(packet), share / share.min(packet))
            }
            // Eight elements of a packet at a time.
            Staging::Own(own) => {
                let items = self.n() as u32 / own.parts * self.k / 8 / self.lanes;
                Walk { depth: 1, ..of(packet, items) }
            }
            Staging::Fragments { .. } => Walk { depth: 1, ..of(packet, 1) },
        }
    }
    /// Whether activations come in the order of the matrices' elements: see `wgsl/matmul/arrange_rows.wgsl`. Up to 32 rows the launch
    /// that does it costs more than it saves.
    pub const fn arranged(&self) -> bool {
        matches!(self.staging, Staging::Fragments { .. }) && self.frags.0 > 2
    }
    /// Whether each lane touches a row of w ahead of the loads: where a subgroup has a row for each, and enough to do for it meanwhile.
    pub const fn touches(&self) -> bool {
        self.arranged() && self.frags.1 * self.side == self.lanes
    }
    /// Columns in a step of the whole workgroup, of packets of so many elements.
    pub fn step(&self, walk: &Walk) -> u32 {
        match self.staging {
            Staging::Shared => self.k * walk.depth,
            Staging::Own(_) => self.grid.2 * self.k / 8 * walk.each,
            Staging::Fragments { .. } => self.grid.2 * 4 * walk.each,
        }
    }
    fn fits(&self, caps: &Caps) -> bool {
        self.workgroup_storage() <= caps.max_workgroup_storage && self.threads() <= caps.max_workgroup_threads
    }
}

/// A thread's share of a step of w.
pub(crate) struct Walk {
    /// Elements that it loads at once: a packet, or a part of one.
    pub each: u32,
    /// How often.
    pub items: u32,
    /// Those of `each` that share a scale.
    pub span: u32,
    /// Steps that it loads ahead.
    pub depth: u32,
}

const fn coop(
    (side, lanes): (u32, u32),
    grid: (u32, u32, u32),
    frags: (u32, u32),
    k: u32,
    ahead: u32,
) -> CoopTile {
    CoopTile { side, lanes, grid, frags, k, ahead, staging: Staging::Shared }
}

/// So many subgroups along K, each with tiles of its own, of 32 columns of w and 64 of a.
const fn own((side, lanes): (u32, u32), subgroups: u32, frags: (u32, u32), parts: u32) -> CoopTile {
    let staging = Staging::Own(OwnTiles { parts, a_tiles: 2 });
    CoopTile { side, lanes, grid: (1, 1, subgroups), frags, k: 32, ahead: 1, staging }
}

/// Matrices of side 16 and subgroups of 32 lanes, NVIDIA's. Two workgroups that share a core fill each other's waits, so tiles stay
/// within half of the 48 KiB that the driver sets aside, but for those of a weight of few rows, which have a core each. Up to 64
/// rows subgroups share outputs along K, and several packets of w are on their way to each thread.
const SIDE_16: (u32, u32) = (16, 32);
static OWN_16: [CoopTile; 2] = [own(SIDE_16, 4, (1, 4), 4), own(SIDE_16, 8, (1, 2), 2)];
static OWN_32: [CoopTile; 2] = [own(SIDE_16, 3, (2, 4), 2), FEW_32[1]];
static FEW_16: [CoopTile; 2] =
    [coop(SIDE_16, (1, 2, 2), (1, 2), 64, 8), coop(SIDE_16, (1, 1, 2), (1, 2), 64, 4)];
const FEW_32: [CoopTile; 2] =
    [coop(SIDE_16, (1, 2, 2), (2, 2), 64, 4), coop(SIDE_16, (1, 1, 4), (2, 2), 128, 4)];
static MANY: [CoopTile; 2] =
    [coop(SIDE_16, (2, 2, 1), (4, 4), 32, 1), coop(SIDE_16, (2, 2, 1), (2, 2), 64, 2)];
/// Subgroups of 64 lanes, AMD's.
const WAVE_64: (u32, u32) = (16, 64);
static WAVE_FEW: [CoopTile; 1] = [coop(WAVE_64, (1, 1, 4), (1, 2), 128, 2)];
static WAVE_MANY: [CoopTile; 2] =
    [coop(WAVE_64, (2, 2, 1), (4, 4), 32, 1), coop(WAVE_64, (2, 2, 1), (2, 2), 32, 1)];
/// Matrices of side 8, Apple's.
const SIDE_8: (u32, u32) = (8, 32);
static SIDE_8_FEW: [CoopTile; 1] = [coop(SIDE_8, (1, 2, 4), (2, 2), 128, 2)];
static SIDE_8_MANY: [CoopTile; 2] =
    [coop(SIDE_8, (2, 2, 1), (4, 4), 32, 1), coop(SIDE_8, (2, 2, 1), (2, 2), 32, 1)];
/// Matrices of side 8 and subgroups of 8 lanes, Mesa's on a CPU: there to be tested.
const SOFTWARE: (u32, u32) = (8, 8);
static SOFTWARE_OWN: [CoopTile; 1] = [own(SOFTWARE, 3, (2, 2), 2)];
static SOFTWARE_FEW: [CoopTile; 1] = [coop(SOFTWARE, (1, 2, 4), (2, 2), 64, 2)];
static SOFTWARE_MANY: [CoopTile; 2] =
    [coop(SOFTWARE, (2, 2, 1), (4, 4), 32, 1), coop(SOFTWARE, (2, 2, 1), (2, 2), 32, 1)];

/// Rows of activations up to which tiles serve, those for quantised weights, and those for others; the largest first.
type Row = (usize, &'static [CoopTile], &'static [CoopTile]);

const fn any_weight(rows: usize, tiles: &'static [CoopTile]) -> Row {
    (rows, tiles, tiles)
}

/// The choice by class of device, that is (side, lanes), and by rows.
static COOP: &[((u32, u32), &[Row])] = &[
    (
        SIDE_16,
        &[
            (16, &OWN_16, &FEW_16),
            (32, &OWN_32, &FEW_32),
            any_weight(95, MANY.split_at(1).1),
            any_weight(usize::MAX, &MANY),
        ],
    ),
    (
        WAVE_64,
        &[
            any_weight(16, &WAVE_FEW),
            any_weight(95, WAVE_MANY.split_at(1).1),
            any_weight(usize::MAX, &WAVE_MANY),
        ],
    ),
    (
        SIDE_8,
        &[
            any_weight(16, &SIDE_8_FEW),
            any_weight(47, SIDE_8_MANY.split_at(1).1),
            any_weight(usize::MAX, &SIDE_8_MANY),
        ],
    ),
    (
        SOFTWARE,
        &[
            (16, &SOFTWARE_OWN, &SOFTWARE_FEW),
            any_weight(47, SOFTWARE_MANY.split_at(1).1),
            any_weight(usize::MAX, &SOFTWARE_MANY),
        ],
    ),
];

/// Every tile of the table that may meet such weights.
pub(crate) fn coop_tiles(quantised: bool) -> Vec<&'static CoopTile> {
    let mut all: Vec<&CoopTile> = Vec::new();
    for (_, own, shared) in COOP.iter().flat_map(|(_, rows)| rows.iter()) {
        // Devices whose subgroups have no barrier take quantised weights to the others' tiles.
        for tile in shared.iter().chain(own.iter().filter(|_| quantised)) {
            if !all.contains(&tile) {
                all.push(tile);
            }
        }
    }
    all
}

/// Workgroups that give every one of some hundred cores work, if few rows make them small.
const BUSY: usize = 96;
/// The same of larger ones, which are slow where they have a core to themselves: then smaller ones are faster.
const BUSY_TWICE: usize = 150;

/// The largest tile of the row of the table that keeps the GPU busy, else its smallest, within the adapter's limits.
pub(crate) fn choose_coop(
    caps: &Caps,
    m: usize,
    n: usize,
    quantised: bool,
) -> Result<&'static CoopTile, String> {
    let (side, lanes) = (caps.coop_side.unwrap_or(0), caps.subgroup_size);
    let none = || format!("no tile for matrices of side {side} and subgroups of {lanes} lanes");
    let (_, rows) = COOP.iter().find(|(class, _)| *class == (side, lanes)).ok_or_else(none)?;
    let row = rows.iter().find(|(most, ..)| m <= *most).ok_or_else(none)?;
    let tiles = if quantised && caps.subgroup_barrier { row.1 } else { row.2 };
    let mut fitting = tiles.iter().filter(|t| t.fits(caps));
    let enough = if m < 96 { BUSY } else { BUSY_TWICE };
    let busy = |t: &&CoopTile| m.div_ceil(t.m()) * n.div_ceil(t.n()) >= enough;
    fitting.clone().find(busy).or_else(|| fitting.next_back()).ok_or_else(none)
}

/// For the Spirv tier: four subgroups, so many of them side by side and the others for a part of K each, with so many matrices down and
/// across. What their registers leave room for beside them decides the speed: with eight subgroups it was one workgroup a core.
const fn fragments(far: bool, across: u32, frags: (u32, u32)) -> CoopTile {
    CoopTile { staging: Staging::Fragments { far }, ..coop(SIDE_16, (1, across, 4 / across), frags, 32, 1) }
}
/// By rows of activations: tiles, and how many workgroups of each are enough. The largest first, the last for what is left.
static FRAGMENTS: [(usize, &[(usize, CoopTile)]); 5] = [
    (8, &[(0, fragments(false, 1, (1, 1)))]),
    (16, &[(BUSY, fragments(true, 1, (1, 4))), (0, fragments(true, 1, (1, 2)))]),
    (32, &[(BUSY, fragments(true, 1, (2, 4))), (0, fragments(true, 1, (2, 2)))]),
    (64, &[(BUSY, FEW_BLOCKS), (0, fragments(true, 1, (4, 2)))]),
    (usize::MAX, &[(500, fragments(true, 2, (4, 3))), (BUSY, FEW_BLOCKS), (0, fragments(true, 1, (4, 2)))]),
];
const FEW_BLOCKS: CoopTile = fragments(true, 2, (4, 2));

/// Every tile of the Spirv tier.
pub(crate) fn fragment_tiles() -> impl Iterator<Item = &'static CoopTile> {
    FRAGMENTS.iter().flat_map(|(_, tiles)| tiles.iter().map(|(_, tile)| tile))
}

/// The tile of the Spirv tier for so many rows of activations and of w, within `room` bytes of workgroup memory if there is one.
pub(crate) fn choose_fragments(m: usize, n: usize, room: u32) -> &'static CoopTile {
    let (_, tiles) = FRAGMENTS.iter().find(|(most, _)| m <= *most).unwrap_or(&FRAGMENTS[FRAGMENTS.len() - 1]);
    let enough = |(least, tile): &&(usize, CoopTile)| {
        tile.workgroup_storage() <= room && m.div_ceil(tile.m()) * n.div_ceil(tile.n()) >= *least
    };
    &tiles.iter().find(enough).unwrap_or(&tiles[tiles.len() - 1]).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gpu;

    /// An adapter of the class, with the least that those have.
    fn caps((side, lanes): (u32, u32)) -> Caps {
        let mut caps = Gpu::new().expect("an adapter").caps().clone();
        (caps.coop_side, caps.subgroup_size, caps.subgroup_barrier) = (Some(side), lanes, true);
        caps.max_workgroup_storage = if side == 16 { 48 << 10 } else { 32 << 10 };
        caps.max_workgroup_threads = 256;
        caps
    }

    #[test]
    fn kernels_change_at_nine_rows() {
        let gpu = Gpu::new().expect("an adapter");
        for (m, format, want) in [
            (0, Format::F16, "qgemv"),
            (1, Format::F16, "qgemv"),
            (8, Format::Int4, "qgemv"),
            (9, Format::Int4, "qgemm"),
            (9, Format::Bf16, "gemm"),
        ] {
            let weight = Weight::alloc(&gpu, format, 16, 64, format.default_group()).expect("it fits");
            assert_eq!(kernel_for(&gpu, m, &weight, DType::F32).name, want, "{m}");
        }
    }

    #[test]
    fn matrices_take_over_at_few_rows() {
        let mut nvidia = caps(SIDE_16);
        nvidia.spirv = true;
        let rows = |caps: &Caps, ceiling, format, a| gemv_rows(caps, ceiling, format, a);
        let of = |format| rows(&nvidia, None, format, DType::Bf16);
        assert_eq!([Format::Fp4, Format::Int4].map(of), [1; 2]);
        assert_eq!([Format::Int4Zero, Format::Mxfp4, Format::Int8, Format::Nf4].map(of), [2; 4]);
        assert_eq!(of(Format::F16), 8);
        assert_eq!(rows(&nvidia, None, Format::Fp4, DType::F32), 8);
        assert_eq!(rows(&nvidia, Some(Tier::Coop), Format::Fp4, DType::F16), 4);
        assert_eq!(rows(&nvidia, Some(Tier::Subgroup), Format::Fp4, DType::F16), 8);
        nvidia.spirv = false;
        assert_eq!(rows(&nvidia, None, Format::Fp4, DType::F16), 4);
        assert_eq!(rows(&caps(SOFTWARE), None, Format::Fp4, DType::F16), 8);
    }

    #[test]
    fn coop_tiles_change_where_the_table_says() {
        let of = |caps: &Caps, m, n, quantised| {
            choose_coop(caps, m, n, quantised).map(|t| (t.m(), t.n(), t.grid.2))
        };
        let side = |class, m, n| of(&caps(class), m, n, false);
        for (m, n, want) in [
            (9, 14336, (16, 64, 2)),
            (16, 14336, (16, 64, 2)),
            (16, 6145, (16, 64, 2)),
            (16, 6080, (16, 32, 2)), // 95 tiles of 64
            (17, 14336, (32, 64, 2)),
            (32, 4096, (32, 32, 4)),
            (33, 14336, (64, 64, 1)),
            (95, 14336, (64, 64, 1)),
            (96, 14336, (64, 64, 1)), // 112 tiles of 128
            (256, 14336, (128, 128, 1)),
            (512, 4736, (64, 64, 1)), // 148
            (512, 4737, (128, 128, 1)),
        ] {
            assert_eq!(side(SIDE_16, m, n), Ok(want), "{m} rows of {n}");
        }
        let mut nvidia = caps(SIDE_16);
        for (m, n, want) in [
            (5, 14336, (16, 64, 4)),
            (16, 6145, (16, 64, 4)),
            (16, 6080, (16, 32, 8)),
            (17, 14336, (32, 64, 3)),
            (32, 6080, (32, 32, 4)),
            (33, 14336, (64, 64, 1)),
        ] {
            assert_eq!(of(&nvidia, m, n, true), Ok(want), "{m} rows of {n}");
        }
        nvidia.subgroup_barrier = false;
        assert_eq!(of(&nvidia, 16, 14336, true), Ok((16, 64, 2)));
        assert_eq!(of(&caps(SOFTWARE), 16, 100, true), Ok((16, 16, 3)));
        assert_eq!(of(&caps(SOFTWARE), 17, 100, true), Ok((32, 32, 1)));
        for (class, tile) in [(WAVE_64, 64), (SIDE_8, 32), (SOFTWARE, 32)] {
            let (few, all) = if class == WAVE_64 { (95, 128) } else { (47, 64) };
            assert_eq!(side(class, 16, 100), Ok((16, 32, 4)));
            assert_eq!(side(class, 17, 100), Ok((tile, tile, 1)));
            assert_eq!(side(class, few, 1 << 16), Ok((tile, tile, 1)));
            assert_eq!(side(class, few + 1, 1 << 16), Ok((all, all, 1)));
        }
        assert!(side((16, 8), 16, 100).is_err());
    }

    #[test]
    fn fragments_change_where_the_table_says() {
        let of = |m, n| {
            let tile = choose_fragments(m, n, 16 << 10);
            (tile.m(), tile.n(), tile.staging)
        };
        // The least limit leaves no room for a codebook beside the largest tile.
        assert_eq!(choose_fragments(16, 14336, 16 << 10).n(), 64);
        for (m, n) in [(8, 14336), (16, 14336), (32, 14336), (64, 14336), (4096, 14336)] {
            assert!(choose_fragments(m, n, 14 << 10).workgroup_storage() <= 14 << 10, "{m}");
        }
        let far = |far| Staging::Fragments { far };
        assert_eq!([1, 8].map(|m| of(m, 64)), [(16, 16, far(false)); 2]);
        assert_eq!([9, 16].map(|m| of(m, 6080)), [(16, 32, far(true)); 2]);
        let across = |m, n| of(m, n).1;
        assert_eq!([16, 17, 32].map(|m| of(m, 6081).0), [16, 32, 32]);
        assert_eq!([33, 64].map(|m| of(m, 6081)), [(64, 64, far(true)); 2]);
        assert_eq!([33, 64].map(|m| of(m, 6080)), [(64, 32, far(true)); 2]);
        // 95 and 96 workgroups of 64 columns, 499 and 500 of 96.
        assert_eq!([(65, 3008), (65, 3009), (128, 14336)].map(|(m, n)| across(m, n)), [32, 64, 64]);
        assert_eq!([(499 * 64, 96), (499 * 64 + 1, 96)].map(|(m, n)| across(m, n)), [64, 96]);
        assert_eq!([(128, 23_904), (128, 23_905), (4096, 4096)].map(|(m, n)| across(m, n)), [64, 96, 96]);
        let touches = |m| choose_fragments(m, 14336, 16 << 10).touches();
        assert_eq!(
            [8, 16, 32, 33, 64, 128, 4096].map(touches),
            [false, false, false, true, true, true, false]
        );
    }

    #[test]
    fn every_tile_can_be_divided() {
        for tile in coop_tiles(true).into_iter().chain(fragment_tiles()) {
            let CoopTile { side, lanes, grid, frags, k, staging, .. } = *tile;
            // Whole matrices of a step for every subgroup; whole eights of a and whole chunks of w for every thread.
            let shared = staging == Staging::Shared;
            let (columns, threads) = if shared { (k / grid.2, tile.threads()) } else { (k, lanes) };
            assert!(columns.is_multiple_of(side), "{tile:?}");
            assert!(frags.1.is_multiple_of(tile.parts()), "{tile:?}");
            assert!((tile.m() as u32 * k).is_multiple_of(8 * threads), "{tile:?}");
            assert!((tile.n() as u32 / tile.parts() * k).is_multiple_of(8 * threads), "{tile:?}");
            let accumulators = tile.frags.0 * tile.frags.1;
            assert!(accumulators <= 16 && tile.fits(&caps((side, lanes))), "{tile:?}");
        }
    }
}
