//! Which kernel, tile and split serve a shape. Static tables: nothing is tuned inside a caller's call.

use super::fused_spec::fuse;
use super::msl::{MslTile, msl_variant, wide_tiles};
use super::spec::{
    COOP_TILES, CoopTile, GEMM, GEMV_TILES, GemvTile, QGEMM, QGEMV, coop_variant, gemm_variant, gemv_tiles,
    gemv_variant, packet,
};
use super::weight::Weight;
use crate::device::Caps;
use crate::format::Format;
use crate::kernel::{Def, Defines, KernelSpec, Needs, Tier};
use crate::tensor::DType;

/// Rows of activations up to which every weight is read once, by `qgemv`.
pub(super) const MAX_GEMV_ROWS: usize = 8;

pub(super) fn kernel_for(m: usize, format: Format) -> &'static KernelSpec {
    match (m <= MAX_GEMV_ROWS, format.is_quantised()) {
        (true, _) => &QGEMV,
        (false, true) => &QGEMM,
        (false, false) => &GEMM,
    }
}

/// What a specialisation depends on beside the weight.
pub(super) struct Request {
    pub spec: &'static KernelSpec,
    pub m: usize,
    pub n: usize,
    pub a: DType,
    pub out: DType,
    pub pair: bool,
}

/// The properties of a weight that a specialisation depends on.
#[derive(Clone, Copy)]
pub(super) struct Traits {
    pub format: Format,
    pub rows: Rows,
    /// A packet of codes spans two groups.
    pub split_packet: bool,
}

/// How rows of activations are loaded; see `wgsl/common/rows.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// K is a multiple of 64, of every packet and step, and rows of w are not padded.
    Exact,
    /// K is a multiple of 8: rows start on 16-byte boundaries.
    Padded,
    Ragged,
}

impl Rows {
    pub const ALL: [Rows; 3] = [Rows::Exact, Rows::Padded, Rows::Ragged];

    pub fn name(self) -> &'static str {
        match self {
            Rows::Exact => "exact",
            Rows::Padded => "padded",
            Rows::Ragged => "ragged",
        }
    }

    fn of(weight: &Weight) -> Rows {
        // The padding of 2-bit rows may hold whole packets.
        let full = weight.packets() * packet(weight.format()) as usize == weight.k();
        match weight.k() {
            k if full && k.is_multiple_of(64) => Rows::Exact,
            k if k.is_multiple_of(8) => Rows::Padded,
            _ => Rows::Ragged,
        }
    }
}

/// The specialisation for a tier, or why the tier does not serve.
pub(super) fn variant(
    caps: &Caps,
    tier: Tier,
    request: &Request,
    weight: &Weight,
) -> Result<(Defines, Needs), String> {
    let traits =
        Traits { format: weight.format(), rows: Rows::of(weight), split_packet: weight.split_packet() };
    let Request { spec, m, n, a, out, pair } = *request;
    if spec.name.ends_with("gemv") {
        if m > MAX_GEMV_ROWS {
            return Err(format!("{} takes at most {MAX_GEMV_ROWS} rows", spec.name));
        }
        let tile = gemv_tile(tier, m, n, weight);
        if tier == Tier::Subgroup && caps.subgroup_size < 8 {
            return Err(format!("subgroups of {} lanes; 8 are the least", caps.subgroup_size));
        }
        return Ok(fuse(gemv_variant(tier, traits, (a, out), tile, pair), spec).into());
    }
    if tier == Tier::Msl {
        let tile = MslTile::choose(m, n, wide_tiles(traits.format, a));
        return Ok(fuse(msl_variant(tile, traits, (a, out), pair), spec).into());
    }
    if tier != Tier::Coop {
        return Ok(fuse(gemm_variant(traits, (a, out), pair), spec).into());
    }
    if a != DType::F16 {
        return Err("cooperative matrices take f16 activations".to_string());
    }
    let tile = coop_tile(caps, m, n)?;
    let vector_tiles = caps.backend != wgpu::Backend::Metal;
    Ok(fuse(coop_variant(tile, traits, out, pair, vector_tiles), spec).into())
}

/// How many threads walk a row of w, as measured on an H200: few where there are workgroups enough to fill the GPU (dense
/// rows are long and fewer threads then walk them in more steps), else enough for a packet each.
fn gemv_tile(tier: Tier, m: usize, n: usize, weight: &Weight) -> GemvTile {
    let rows = m.next_power_of_two() as u32;
    if tier != Tier::Subgroup {
        return smallest(gemv_tiles(tier), rows, 0);
    }
    let columns = smallest(&GEMV_TILES, rows, 0).columns as usize;
    let busy = n / columns >= 1000;
    let threads = match (busy, weight.format().is_quantised()) {
        (true, false) => 32,
        (true, true) => 64,
        (false, _) => weight.packets().next_power_of_two() as u32,
    };
    smallest(&GEMV_TILES, rows, threads)
}

/// The tile for `rows` with the fewest threads from `threads` on, else the one with most.
fn smallest(tiles: &[GemvTile], rows: u32, threads: u32) -> GemvTile {
    let mut of_rows = tiles.iter().filter(|t| t.rows == rows);
    let enough = of_rows.clone().find(|t| t.threads >= threads);
    *enough.or_else(|| of_rows.next_back()).unwrap_or(&tiles[0])
}

/// The largest tile that still gives every one of some hundred cores work, within the adapter's limits.
fn coop_tile(caps: &Caps, m: usize, n: usize) -> Result<&'static CoopTile, String> {
    let (side, lanes) = (caps.coop_side.unwrap_or(0), caps.subgroup_size);
    let fits = |t: &&CoopTile| {
        t.side == side
            && t.lanes == lanes
            && t.workgroup_storage() <= caps.max_workgroup_storage
            && t.threads() <= caps.max_workgroup_threads
    };
    let busy = |t: &&CoopTile| m.div_ceil(t.m()) * n.div_ceil(t.n()) >= 96 && 4 * m >= 3 * t.m();
    let mut candidates = COOP_TILES.iter().filter(fits);
    candidates
        .clone()
        .find(busy)
        .or_else(|| candidates.next_back())
        .ok_or_else(|| format!("no tile for matrices of side {side} and subgroups of {lanes} lanes"))
}

/// Workgroups for `m` rows of activations and `n` rows of one part of a weight.
pub(super) fn groups(defines: &Defines, tier: Tier, m: usize, n: usize) -> u64 {
    let define = |name: &str| {
        defines.iter().find_map(|(key, value)| match value {
            Def::Num(v) if *key == name => Some(*v as usize),
            _ => None,
        })
    };
    let (tile_m, tile_n) = match (define("COLUMNS"), define("FRAG_M")) {
        (Some(columns), _) => (MAX_GEMV_ROWS, columns),
        (None, Some(frag_m)) => {
            let get = |name| define(name).unwrap_or(1);
            let side = get("SIDE");
            (get("GRID_M") * frag_m * side, get("GRID_N") * get("FRAG_N") * side)
        }
        (None, None) => (64, 64),
    };
    debug_assert!(tier != Tier::Coop || tile_m >= 8);
    m.div_ceil(tile_m) as u64 * n.div_ceil(tile_n) as u64
}
