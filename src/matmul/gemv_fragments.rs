//! How the Spirv tier multiplies one row of halves: see `wgsl/matmul/gemv_fragments.wgsl`.

use super::gemv_tiles::multiplies_bytes;
use super::plan::{Rows, Traits};
use super::spec::{DTypes, common, packet, takes_pairs, traits};
use crate::format::Format;
use crate::kernel::{Def, Needs, Variant, defines, set_flag};
use crate::tensor::DType;

/// How a workgroup of the Spirv tier divides its work: see `wgsl/matmul/gemv_fragments.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GemvFragments {
    subgroups: u32,
    /// How many of them have a part of a row each: all, or of pairs a team.
    pub shares: u32,
    pub products: Products,
    pub scales: TwoScales,
}

/// What multiplies one row in the Spirv tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Products {
    Matrices,
    /// Integers: `wgsl/common/gemv_bytes.wgsl`.
    Bytes,
    /// Codebooks of 16 values, where [`takes_pairs`] allows it: `wgsl/common/gemv_pairs.wgsl`.
    Pairs,
}

impl Products {
    /// How they find scales. Bytes and pairs take one at a time.
    const fn scales(self) -> &'static [TwoScales] {
        match self {
            Products::Matrices => &[TwoScales::Same, TwoScales::OneWord],
            Products::Bytes | Products::Pairs => &[TwoScales::Same],
        }
    }
}

/// How the scales of two neighbouring packets, from an even one on, are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TwoScales {
    /// Both are halves of a word.
    OneWord,
    /// They have one scale.
    Same,
}

impl GemvFragments {
    /// Each format's ways, of which [`GemvFragments::products`] chooses. Of others the arithmetic outweighs what these save.
    const FORMATS: [(Format, &'static [Products]); 5] = [
        (Format::Fp4, &[Products::Matrices]),
        (Format::Int4, &[Products::Matrices, Products::Bytes]),
        (Format::Int3, &[Products::Bytes]),
        (Format::Int2, &[Products::Bytes]),
        (Format::Nf4, &[Products::Pairs]),
    ];
    const LEAST_ROWS: usize = 1024;
    /// Of so many or fewer many lanes would have none.
    const LEAST_PACKETS: usize = 96;
    pub const LANES: u32 = 32;
    /// Of w, in a tile.
    pub const ROWS: u32 = 16;
    /// Of eight packets, that a subgroup has of a tile.
    const BLOCKS: u32 = 4;
    /// Packets of a row that a lane has of pairs.
    const LANE_PACKETS: u32 = 2;
    /// Rows of different lengths find one that leaves few blocks empty. 16 are those on matrices whose registers a compute unit has
    /// room for at once (see [`GemvFragments::groups`]); of workgroup memory 48 KiB would hold 18.
    const SUBGROUPS: [u32; 10] = [4, 5, 6, 7, 8, 10, 11, 12, 14, 16];

    pub fn formats() -> [Format; 5] {
        Self::FORMATS.map(|(format, _)| format)
    }

    /// Those that may meet such weights.
    pub fn all(format: Format) -> impl Iterator<Item = GemvFragments> {
        let ways = Self::FORMATS.iter().find(|(one, _)| *one == format).map_or(&[][..], |(_, ways)| ways);
        let each =
            ways.iter().flat_map(|&products| products.scales().iter().map(move |&scales| (products, scales)));
        each.flat_map(|(products, scales)| {
            let shapes = Self::shapes(products);
            shapes.map(move |(subgroups, shares)| GemvFragments { subgroups, shares, products, scales })
        })
    }

    /// Subgroups and shares, the least room first. Of pairs some 20 subgroups are those that registers leave room for.
    fn shapes(products: Products) -> impl Iterator<Item = (u32, u32)> {
        let pairs = products == Products::Pairs;
        let teams = (2..=8).filter(move |_| pairs).map(|shares| (20 / shares * shares, shares));
        teams.chain(Self::SUBGROUPS.into_iter().filter(move |_| !pairs).map(|all| (all, all)))
    }

    /// Packets of a share.
    const fn share(products: Products) -> u32 {
        match products {
            Products::Matrices => 8 * Self::BLOCKS,
            Products::Bytes => Self::LANES,
            Products::Pairs => Self::LANES * Self::LANE_PACKETS,
        }
    }

    /// What is fastest for `n` rows of so many packets, as measured on an H200; nothing where the Subgroup tier is. Of INT4 that is so where
    /// rows are enough to fill the GPU and short; where they are more than that, matrices win again.
    fn products(format: Format, n: usize, packets: usize) -> Option<Products> {
        match (format, (8000..32_000).contains(&n)) {
            _ if n < Self::LEAST_ROWS => None,
            (Format::Fp4, _) | (Format::Int4, false) => Some(Products::Matrices),
            (Format::Int4, true) if packets > 128 => Some(Products::Bytes),
            (Format::Int3 | Format::Int2, true) => Some(Products::Bytes),
            (Format::Nf4, _) if n >= 8000 => Some(Products::Pairs),
            _ => None,
        }
    }

    /// For a weight of `n` rows of so many packets with such scales, where this is faster than the Subgroup tier.
    pub fn choose(format: Format, n: usize, packets: usize, scales: TwoScales) -> Option<GemvFragments> {
        let products = Self::products(format, n, packets)?;
        let room = |shares: u32| (shares * Self::share(products)) as usize;
        let enough = Self::shapes(products).find(|&(_, shares)| room(shares) >= packets);
        let scales = if products.scales().contains(&scales) { scales } else { TwoScales::Same };
        enough.filter(|_| packets > Self::LEAST_PACKETS).map(|(subgroups, shares)| GemvFragments {
            subgroups,
            shares,
            products,
            scales,
        })
    }

    pub const fn threads(&self) -> u32 {
        self.subgroups * Self::LANES
    }

    /// What a share has of a row: blocks of eight packets or, of pairs, packets a lane.
    pub const fn each(&self) -> u32 {
        match self.products {
            Products::Matrices | Products::Bytes => Self::BLOCKS,
            Products::Pairs => Self::LANE_PACKETS,
        }
    }

    /// Tiles of a workgroup, at most.
    pub const fn most_tiles(products: Products) -> u32 {
        match products {
            Products::Matrices | Products::Bytes => 8,
            Products::Pairs => 32,
        }
    }

    /// Sums of a share, and activations of its packets and a packet of zeros, 64 bytes each, or all pairs of values, once for each lane.
    pub const fn workgroup_storage(&self) -> u32 {
        let sums = self.shares * Self::most_tiles(self.products) * Self::ROWS * 4;
        match self.products {
            Products::Matrices => self.shares * (Self::BLOCKS * 8 + 1) * 64 + sums,
            Products::Bytes => sums,
            Products::Pairs => 256 * Self::LANES * 4 + sums,
        }
    }

    /// Workgroups of so many threads for `n` rows of w: as many as run at the same time on so many compute units, or more if those would
    /// have too many rows.
    pub fn groups(products: Products, threads: usize, shares: usize, n: usize, units: usize) -> usize {
        let (most, lanes) = (Self::most_tiles(products) as usize, Self::LANES as usize);
        // Subgroups on a unit: as many as have room for their registers or, of bytes, as are worth that each prepares its activations.
        let resident = match products {
            Products::Matrices => 16,
            Products::Bytes => 24,
            Products::Pairs => {
                let rows = threads / (lanes * shares);
                return whole_rounds(n.div_ceil(rows), most * Self::ROWS as usize / rows, units);
            }
        };
        let tiles = n.div_ceil(Self::ROWS as usize);
        let resident = units * (resident * lanes / threads).max(1);
        tiles.min(resident).max(tiles.div_ceil(most))
    }
}

/// Workgroups for so many steps, of which each takes `most` at most, where each fills a compute unit and first makes a table: one on each
/// of so many units, or as many more as it takes.
pub(crate) fn whole_rounds(steps: usize, most: usize, units: usize) -> usize {
    steps.min(units * steps.div_ceil(units).div_ceil(most))
}

pub(super) fn gemv_fragment_variant(
    traits: Traits,
    dtypes: DTypes,
    tile: GemvFragments,
    pair: bool,
) -> Variant {
    let mut defines = common(traits, dtypes, pair, true);
    let is = |products| tile.products == products;
    for (flag, set) in [
        ("BARE", !is(Products::Bytes)),
        ("BYTES", is(Products::Bytes)),
        ("BOOK", is(Products::Pairs)),
        ("MULTIPLIES", true),
        ("HALF_SCALES", false),
    ] {
        set_flag(&mut defines, flag, set);
    }
    defines.extend(defines![
        SUBGROUP = Def::Flag(true),
        SIDE = Def::Num(GemvFragments::ROWS),
        THREADS = Def::Num(tile.threads()),
        EACH = Def::Num(tile.each()),
        SHARES = Def::Num(tile.shares),
        MOST_TILES = Def::Num(GemvFragments::most_tiles(tile.products)),
        PACKET_CHUNKS = Def::Num(packet(traits.format) / 8),
        INTEGERS = Def::Flag(multiplies_bytes(traits.format)),
        SCALE_PAIRS = Def::Flag(tile.scales == TwoScales::OneWord),
    ]);
    let needs = Needs {
        f16: true,
        threads: tile.threads(),
        workgroup_storage: tile.workgroup_storage(),
        coop_side: GemvFragments::ROWS,
        subgroup_size: GemvFragments::LANES,
    };
    Variant { defines, needs }
}

pub(super) fn gemv_fragment_variants(pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    let traits = traits(&GemvFragments::formats()).into_iter();
    for traits in traits.filter(|t| t.rows != Rows::Ragged && !t.split_packet) {
        for dtypes in super::DTYPES.into_iter().filter(|(a, _)| *a == DType::F16) {
            let halves = takes_pairs(dtypes, traits.rows, pair);
            let tiles = GemvFragments::all(traits.format);
            for tile in tiles.filter(|t| t.products != Products::Pairs || halves) {
                all.push(gemv_fragment_variant(traits, dtypes, tile, pair));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(format: Format, n: usize, packets: usize) -> Option<GemvFragments> {
        GemvFragments::choose(format, n, packets, TwoScales::OneWord)
    }

    #[test]
    fn fragments_serve_rows_that_fill_their_blocks() {
        let subgroups = |packets| choose(Format::Fp4, 4096, packets).map(|t| t.subgroups);
        // 4096 columns are 128 packets.
        let at = [96, 97, 128, 129, 256, 448, 512, 513].map(subgroups);
        assert_eq!(at, [None, Some(4), Some(4), Some(5), Some(8), Some(14), Some(16), None]);
        let rows =
            |format| [1023, 1024, 7999, 8000, 31_999, 32_000].map(|n| choose(format, n, 128).is_some());
        assert_eq!(rows(Format::Fp4), [false, true, true, true, true, true]);
        assert_eq!(rows(Format::Int4), [false, true, true, false, false, true]);
        assert_eq!(rows(Format::Nf4), [false, false, false, true, true, true]);
        let teams = |packets| choose(Format::Nf4, 8000, packets).map(|t| (t.subgroups, t.shares));
        assert_eq!(
            [96, 97, 128, 129, 448, 512, 513].map(teams),
            [None, Some((20, 2)), Some((20, 2)), Some((18, 3)), Some((14, 7)), Some((16, 8)), None]
        );
        let products = |format, packets| {
            let of = |n| choose(format, n, packets).map(|t| t.products);
            [1023, 1024, 7999, 8000, 31_999, 32_000].map(of)
        };
        let (none, matrices, bytes) = (None, Some(Products::Matrices), Some(Products::Bytes));
        assert_eq!(products(Format::Int4, 129), [none, matrices, matrices, bytes, bytes, matrices]);
        for format in [Format::Int3, Format::Int2] {
            assert_eq!(products(format, 128), [none, none, none, bytes, bytes, none]);
        }
    }

    #[test]
    fn fragments_have_a_variant_for_what_is_chosen() {
        for format in [Format::Fp4, Format::Int4, Format::Int3, Format::Int2, Format::Nf4, Format::Int8] {
            for (n, packets, scales) in [
                (1024, 97, TwoScales::OneWord),
                (8000, 128, TwoScales::Same),
                (8000, 129, TwoScales::OneWord),
                (32_000, 512, TwoScales::Same),
            ] {
                let chosen = GemvFragments::choose(format, n, packets, scales);
                assert!(
                    chosen.is_none_or(|tile| GemvFragments::all(format).any(|t| t == tile)),
                    "{chosen:?}"
                );
            }
        }
    }

    #[test]
    fn fragments_have_no_more_tiles_than_their_sums_have_room_for() {
        for tile in GemvFragments::all(Format::Int4).chain(GemvFragments::all(Format::Nf4)) {
            let (threads, shares) = (tile.threads() as usize, tile.shares as usize);
            let groups = |n| GemvFragments::groups(tile.products, threads, shares, n, 132);
            let (step, most) =
                if tile.products == Products::Pairs { (threads / 32 / shares, 512) } else { (16, 128) };
            let rows = |n: usize| n.div_ceil(step).div_ceil(groups(n)) * step;
            assert!((1..40).chain([4096, 14336, 128_256, 1 << 20]).all(|n| rows(n) <= most), "{tile:?}");
            assert!(tile.workgroup_storage() <= 48 << 10, "{tile:?}");
        }
        let groups = |products, threads, n| GemvFragments::groups(products, threads, 2, n, 132);
        assert_eq!([16, 17, 128_256].map(|n| groups(Products::Matrices, 128, n)), [1, 2, 1002]);
        assert_eq!([128, 160, 512].map(|t| groups(Products::Matrices, t, 14336)), [528, 396, 132]);
        assert_eq!([128, 160, 512].map(|t| groups(Products::Bytes, t, 14336)), [792, 528, 132]);
        assert_eq!(
            [9, 11, 14336, 67_585, 128_256].map(|n| groups(Products::Pairs, 640, n)),
            [1, 2, 132, 264, 264]
        );
    }
}
