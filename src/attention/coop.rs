//! The tiles of attention on cooperative matrices.

use super::Sizes;
use super::spec::{Extras, TILE_ROWS, WIDTHS};
use crate::device::Caps;
use crate::kernel::{Def, Needs, Variant, defines};
use crate::kv::KvFormat;
use crate::tensor::DType;

/// Sides of matrices and lanes of subgroups that have a variant.
const SIDES: [(u32, u32); 4] = [(16, 32), (16, 64), (8, 32), (8, 8)];

/// Formats whose values f16 holds.
pub(super) const FORMATS: [KvFormat; 5] =
    [KvFormat::F16, KvFormat::E4m3, KvFormat::Int8, KvFormat::Int4, KvFormat::Fp4];

/// The variant for a call, or why there is none.
pub(super) fn plan(caps: &Caps, s: &Sizes, extras: Extras) -> Result<Variant, String> {
    if s.dtype != DType::F16 {
        return Err("cooperative matrices take f16".to_string());
    }
    if let Extras::Blocks(format) = extras
        && !FORMATS.contains(&format)
    {
        return Err(format!("cooperative matrices take f16, which {} may exceed", format.name()));
    }
    let own = (caps.coop_side.unwrap_or(0), caps.subgroup_size);
    if !SIDES.contains(&own) {
        let (side, lanes) = own;
        return Err(format!("no tile for matrices of side {side} and subgroups of {lanes} lanes"));
    }
    Ok(variant(own, width(s), tile_rows(caps, s), extras, caps.backend != wgpu::Backend::Metal))
}

/// Columns of the tile that serves a call.
fn width(s: &Sizes) -> u32 {
    WIDTHS.into_iter().find(|&width| width >= s.d.max(s.d_v)).unwrap_or(WIDTHS[5])
}

/// Folded rows of a workgroup: twice the usual, whose keys are then staged half as often, where that still gives each
/// compute unit a workgroup.
pub(super) fn tile_rows(caps: &Caps, s: &Sizes) -> u32 {
    let own = (caps.coop_side.unwrap_or(0), caps.subgroup_size);
    let groups = (s.b * s.hkv).saturating_mul(s.tiles(2 * TILE_ROWS));
    if groups >= COMPUTE_UNITS && rows(own, width(s)).contains(&(2 * TILE_ROWS)) {
        return 2 * TILE_ROWS;
    }
    TILE_ROWS
}

/// Of a large GPU.
const COMPUTE_UNITS: u32 = 132;

/// The rows of workgroups that have a variant.
fn rows(own: (u32, u32), width: u32) -> &'static [u32] {
    // Subgroups of 64 lanes would be 512 threads, wide heads take more workgroup memory than there is.
    if own == (16, 32) && width <= 128 { &[TILE_ROWS, 2 * TILE_ROWS] } else { &[TILE_ROWS] }
}

/// For heads of up to `width` elements, of keys and of values.
fn variant((side, lanes): (u32, u32), width: u32, rows: u32, extras: Extras, vector_tiles: bool) -> Variant {
    // Side 16 may use 48 KiB of workgroup memory, side 8 32.
    let keys = if side == 16 && width <= 192 { 32 } else { 16 };
    // Matrices of rows that a subgroup owns, and subgroups that share these rows. Two by two reads least, but for wide heads
    // the registers do not suffice.
    let (down, across) = match (width <= 128, lanes) {
        (true, _) => (2, 2),
        (false, 8) => (1, 2), // software, which compiles long texts slowly
        (false, _) => (1, 1),
    };
    let subgroups = rows / side / down * across;
    let threads = subgroups * lanes;
    // Matrices of a row of Q, and those of keys and of columns of O that are a subgroup's own.
    let (depth, s_mats, columns) = (width / side, keys / side / across, width / side / across);
    // As many at once pass the memory of weights, or of scores, as there is room for.
    let fit = |all: u32, room: u32| (1..=room).rev().find(|&n| all.is_multiple_of(n)).unwrap_or(1);
    let (q_per, per) = (fit(depth, keys / side), fit(columns, s_mats));
    let mut defines = extras.defines(DType::F16, Some(KvFormat::F16));
    defines.extend(defines![
        SIDE = Def::Num(side),
        ROWS = Def::Num(rows),
        SUBGROUPS = Def::Num(subgroups),
        THREADS = Def::Num(threads),
        WIDTH = Def::Num(width),
        KEYS = Def::Num(keys),
        DOWN = Def::Num(down),
        ACROSS = Def::Num(across),
        Q_GROUPS = Def::Num(depth / q_per),
        Q_PER = Def::Num(q_per),
        S_MATS = Def::Num(s_mats),
        P_MATS = Def::Num(keys / side),
        GROUPS = Def::Num(columns / per),
        PER = Def::Num(per),
        QUADS = Def::Num(keys / 4 * rows / threads),
        ITEMS = Def::Num(keys.div_ceil(threads / (width / 8))),
        VECTOR_TILES = Def::Flag(vector_tiles),
    ]);
    let (tiles, weights, scores) = (2 * keys * (width + 8), rows * (keys + 8), rows * (keys + 8));
    let needs = Needs {
        f16: true,
        // Last a word of each subgroup, and where keys are in blocks their rows and scales.
        workgroup_storage: 2 * (tiles + weights) + 4 * (scores + subgroups + 4 * keys),
        threads,
        coop_side: side,
        subgroup_size: lanes,
    };
    Variant { defines, needs }
}

pub(super) fn variants(extras: impl IntoIterator<Item = Extras>) -> Vec<Variant> {
    let mut all = Vec::new();
    for extras in extras {
        for (own, width) in SIDES.into_iter().flat_map(|own| WIDTHS.map(|width| (own, width))) {
            all.extend(rows(own, width).iter().map(|&rows| variant(own, width, rows, extras, true)));
            if own == (8, 32) {
                all.push(variant(own, width, TILE_ROWS, extras, false)); // Metal
            }
        }
    }
    all
}
