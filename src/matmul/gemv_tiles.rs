//! How a gemv kernel divides its work, by tier, rows of activations, shape and format of the weight: the gemv part of the table whose
//! other part is [`tiles`](super::tiles).

use crate::format::Format;
use crate::kernel::Tier;

/// How a workgroup of a gemv kernel divides its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GemvTile {
    /// Rows of a: M rounded up to a power of two.
    pub rows: u32,
    /// Rows of w.
    pub columns: u32,
    pub threads: u32,
    /// FP4 codes are multiplied by halves two at once; see `wgsl/common/pairs.wgsl`.
    pub pairs: bool,
}

/// For the Base tier.
const GEMV_BASE_TILES: [GemvTile; 4] =
    [gemv_tile(1, 4, 64), gemv_tile(2, 4, 64), gemv_tile(4, 4, 64), gemv_tile(8, 4, 64)];
/// For the Subgroup tier, by rows of a, falling columns and rising threads.
const GEMV_TILES: [GemvTile; 15] = [
    gemv_tile(1, 8, 32),
    gemv_tile(1, 8, 64),
    gemv_tile(1, 8, 128),
    gemv_tile(1, 8, 256),
    gemv_tile(1, 4, 64),
    gemv_tile(1, 4, 128),
    gemv_tile(1, 4, 256),
    gemv_tile(2, 4, 64),
    gemv_tile(2, 4, 128),
    gemv_tile(4, 4, 64),
    gemv_tile(4, 4, 128),
    gemv_tile(8, 4, 64),
    gemv_tile(8, 4, 128),
    GemvTile { pairs: true, ..gemv_tile(1, 8, 128) },
    GemvTile { pairs: true, ..gemv_tile(1, 4, 64) },
];

/// For the Msl tier: two SIMD-groups that take half of the columns each.
const GEMV_MSL_TILES: [GemvTile; 4] =
    [gemv_tile(1, 8, 64), gemv_tile(2, 8, 64), gemv_tile(4, 8, 64), gemv_tile(8, 8, 64)];

/// Those of a tier.
fn gemv_tiles(tier: Tier) -> &'static [GemvTile] {
    match tier {
        Tier::Base => &GEMV_BASE_TILES,
        Tier::Msl => &GEMV_MSL_TILES,
        _ => &GEMV_TILES,
    }
}

/// Those that may meet such weights: see [`choose_gemv`].
pub(super) fn gemv_tiles_for(tier: Tier, format: Format) -> impl Iterator<Item = GemvTile> {
    let wide = !decodes_slowly(format);
    let meets = move |t: &GemvTile| {
        let of_one_row = if wide { t.columns == 8 } else { t.columns == 4 || t.threads == 64 };
        tier != Tier::Subgroup
            || t.rows > 1 && serves(t, format)
            || t.rows == 1 && if t.pairs { multiplies_pairs(format) } else { of_one_row }
    };
    gemv_tiles(tier).iter().copied().filter(meets)
}

/// Four and eight rows of quantised weights have one width of workgroups.
fn serves(tile: &GemvTile, format: Format) -> bool {
    tile.rows < 4 || tile.threads <= 64 || !format.is_quantised()
}

const fn gemv_tile(rows: u32, columns: u32, threads: u32) -> GemvTile {
    GemvTile { rows, columns, threads, pairs: false }
}

/// The tile for `m` ≤ 8 rows and a weight of `n` rows of so many packets, as measured on an H100 and an H200. How many threads of
/// the Subgroup tier walk a row of w: few where there are workgroups enough to fill the GPU (dense rows are long and fewer
/// threads then walk them in more steps), else enough for a packet each. Where decoding bounds the time, one row of a has
/// workgroups of fewer rows of w, which leave less to do behind the last load, unless there are many. `halves` tells that
/// activations and results are of f16, and none between.
pub(super) fn choose_gemv(
    tier: Tier,
    m: usize,
    n: usize,
    packets: usize,
    format: Format,
    halves: bool,
) -> GemvTile {
    if tier == Tier::Subgroup && m == 1 && halves && multiplies_pairs(format) && n >= PAIRS_ROWS {
        let columns = if n < 8000 && packets <= 128 { 4 } else { 8 };
        return *GEMV_TILES.iter().find(|t| t.pairs && t.columns == columns).unwrap_or(&GEMV_TILES[0]);
    }
    let slow = m == 1 && decodes_slowly(format) && n < 32_000;
    let most = if slow { 4 } else { u32::MAX };
    let rows = m.next_power_of_two() as u32;
    let of_rows = gemv_tiles(tier).iter().filter(|t| t.rows == rows && !t.pairs && serves(t, format));
    // The other tiers have one tile for a number of rows.
    let columns = of_rows.clone().map(|t| t.columns).filter(|&c| c <= most).max();
    let columns = columns.or(of_rows.clone().map(|t| t.columns).max()).unwrap_or(0);
    let bytes = m == 1 && multiplies_bytes(format);
    // Of eight bits a packet has half as many codes, so that twice as many threads have no more to do.
    let short = if format.bits() == 8 { 256 } else { 128 };
    let threads = match (n / columns.max(1) as usize >= 1000 && !slow, format.is_quantised()) {
        (true, false) => 32,
        (true, true) if bytes && packets <= short => 128,
        (true, true) => 64,
        (false, _) if bytes => packets.next_power_of_two().min(128) as u32,
        (false, _) => packets.next_power_of_two() as u32,
    };
    // The fewest threads that are enough, else the most that there are.
    let mut tiles = of_rows.filter(|t| t.columns == columns);
    let enough = tiles.clone().find(|t| t.threads >= threads);
    *enough.or_else(|| tiles.next_back()).unwrap_or(&GEMV_TILES[0])
}

/// Formats of integers, which the Subgroup tier multiplies as bytes where activations have no more than 11 bits.
pub(super) fn multiplies_bytes(format: Format) -> bool {
    use Format::{Int2, Int3, Int4, Int4Zero, Int8, Int8Zero};
    matches!(format, Int2 | Int3 | Int4 | Int4Zero | Int8 | Int8Zero)
}

/// Formats of FP4 codes.
pub(super) fn multiplies_pairs(format: Format) -> bool {
    matches!(format, Format::Fp4 | Format::Mxfp4 | Format::Nvfp4)
}
/// Rows of w from which on they are: the error of a few results may be far from that of many.
const PAIRS_ROWS: usize = 1024;

fn decodes_slowly(format: Format) -> bool {
    format.is_quantised() && !multiplies_bytes(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemv_tiles_change_at_powers_of_two() {
        for tier in [Tier::Base, Tier::Subgroup, Tier::Msl] {
            let rows = |m| choose_gemv(tier, m, 14336, 128, Format::Fp4, true).rows;
            assert_eq!([1, 2, 3, 4, 5, 8].map(rows), [1, 2, 4, 4, 8, 8]);
        }
        let tile = |n, packets, format| {
            let GemvTile { columns, threads, .. } = choose_gemv(Tier::Subgroup, 1, n, packets, format, false);
            (columns, threads)
        };
        assert_eq!([128, 129].map(|p| tile(8000, p, Format::Int4)), [(8, 128), (8, 64)]);
        assert_eq!([256, 257].map(|p| tile(8000, p, Format::Int8)), [(8, 128), (8, 64)]);
        assert_eq!([7999, 8000].map(|n| tile(n, 256, Format::Int4)), [(8, 128), (8, 64)]);
        assert_eq!([7999, 8000].map(|n| tile(n, 512, Format::F16)), [(8, 256), (8, 32)]);
        assert_eq!([31_999, 32_000].map(|n| tile(n, 128, Format::Fp4)), [(4, 128), (8, 64)]);
        let threads = |format| [1, 32, 33, 64, 65, 129].map(|p| tile(8, p, format).1);
        assert_eq!(threads(Format::Int4), [32, 32, 64, 64, 128, 128]);
        assert_eq!(threads(Format::Nf4), [64, 64, 64, 64, 128, 256]);
        let pairs = |(m, n, packets), format| {
            let tile = choose_gemv(Tier::Subgroup, m, n, packets, format, true);
            tile.pairs.then_some(tile.columns)
        };
        let at =
            [(1, 1023, 128), (1, 1024, 128), (1, 1024, 129), (1, 7999, 128), (1, 8000, 128), (2, 8000, 128)];
        assert_eq!(at.map(|m| pairs(m, Format::Mxfp4)), [None, Some(4), Some(8), Some(4), Some(8), None]);
        assert_eq!([Format::Int4, Format::Nf4].map(|f| pairs(at[4], f)), [None, None]);
    }
}
