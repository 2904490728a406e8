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
    let width = WIDTHS.into_iter().find(|&width| width >= s.d.max(s.d_v)).unwrap_or(WIDTHS[5]);
    Ok(variant(own, width, extras, caps.backend != wgpu::Backend::Metal))
}

/// For heads of up to `width` elements, of keys and of values.
fn variant((side, lanes): (u32, u32), width: u32, extras: Extras, vector_tiles: bool) -> Variant {
    // Side 16 may use 48 KiB of workgroup memory, side 8 32.
    let keys = if side == 16 && width <= 128 { 64 } else { 32 };
    let threads = TILE_ROWS / side * lanes;
    // Matrices of a row of O that the row of scores has room for; whole groups of them make the width.
    let per = if (width / side).is_multiple_of(4) { keys.min(4 * side) / side } else { 2 };
    let mut defines = extras.defines(DType::F16);
    defines.extend(defines![
        SIDE = Def::Num(side),
        SUBGROUPS = Def::Num(TILE_ROWS / side),
        THREADS = Def::Num(threads),
        WIDTH = Def::Num(width),
        GROUPS = Def::Num(width / side / per),
        PER = Def::Num(per),
        KEYS = Def::Num(keys),
        // Matrices of keys at once: their products do not wait for each other. Compilers choke on more of side 8.
        UNROLL = Def::Num(if side == 16 { keys / side } else { 1 }),
        QUADS = Def::Num(keys / 4 * TILE_ROWS / threads),
        ITEMS = Def::Num((keys * width / 8).div_ceil(threads)),
        VECTOR_TILES = Def::Flag(vector_tiles),
    ]);
    let (tile, weights, scores) = (keys * (width + 8), TILE_ROWS * (keys + 8), TILE_ROWS * (keys + 4));
    let needs = Needs {
        f16: true,
        // Last a word of each subgroup, and scales of keys.
        workgroup_storage: 2 * (tile + weights) + 4 * (scores + TILE_ROWS / side + keys),
        threads,
        coop_side: side,
        subgroup_size: lanes,
    };
    Variant { defines, needs }
}

pub(super) fn variants(extras: impl IntoIterator<Item = Extras>) -> Vec<Variant> {
    let mut all = Vec::new();
    for extras in extras {
        for (side, width) in SIDES.into_iter().flat_map(|side| WIDTHS.map(|width| (side, width))) {
            all.push(variant(side, width, extras, true));
            if side == (8, 32) {
                all.push(variant(side, width, extras, false)); // Metal
            }
        }
    }
    all
}
