//! How the Spirv tier multiplies one row of halves: see `wgsl/matmul/gemv_fragments.wgsl`.

use std::ops::Range;

use super::gemv_few::few_variants;
use super::gemv_tiles::multiplies_bytes;
use super::plan::{Rows, Traits};
use super::spec::{DTypes, common, packet, takes_pairs, traits};
use crate::format::{Format, ScaleFormat};
use crate::kernel::{Def, Needs, Variant, defines, set_flag};
use crate::tensor::DType;

/// How a workgroup of the Spirv tier divides its work: see `wgsl/matmul/gemv_fragments.wgsl`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GemvFragments {
    subgroups: u32,
    /// How many of them have a part of a row each: all, or of pairs a team.
    pub shares: u32,
    /// What a share has of a row: blocks of eight packets or, of bytes and pairs, packets a lane.
    each: u32,
    pub products: Products,
    pub scales: TwoScales,
}

/// What multiplies one row in the Spirv tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Products {
    Matrices,
    /// The same, of codebooks of 16 values, by a table of all pairs of these, and of rows of one block for each subgroup only.
    Tables,
    /// Integers: `wgsl/common/gemv_bytes.wgsl`.
    Bytes,
    /// Codebooks of 16 values, by lanes, where [`takes_pairs`] allows it: `wgsl/common/gemv_pairs.wgsl`.
    Pairs,
}

impl Products {
    /// How they find scales of a format. Bytes and pairs take one at a time.
    fn scales(self, format: Format) -> &'static [TwoScales] {
        match (self, format.scales()) {
            (Products::Matrices, ScaleFormat::F16) => &[TwoScales::Same, TwoScales::OneWord],
            (Products::Matrices, _) => &[TwoScales::OneWord],
            (Products::Tables, _) => &[TwoScales::Same, TwoScales::OneWord],
            (Products::Bytes | Products::Pairs, _) => &[TwoScales::Same],
        }
    }
}

/// How the scales of two neighbouring packets, from an even one on, are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TwoScales {
    /// They are in one word: two halves, two bytes or, with two scales a packet, four.
    OneWord,
    /// They have one scale.
    Same,
}

impl TwoScales {
    /// Of a weight of such groups, of which a row has so many; `None` if they are found in neither way.
    pub fn of(format: Format, group: usize, groups: usize) -> Option<TwoScales> {
        let two = 2 * packet(format) as usize;
        match two / group.clamp(1, two) {
            1 => Some(TwoScales::Same),
            scales if scales * format.scales().bytes() <= 4 && groups.is_multiple_of(scales) => {
                Some(TwoScales::OneWord)
            }
            _ => None,
        }
    }
}

impl GemvFragments {
    /// Each format's ways, of which [`GemvFragments::products`] chooses. Of others the arithmetic outweighs what these save.
    const FORMATS: [(Format, &'static [Products]); 7] = [
        (Format::Fp4, &[Products::Matrices]),
        (Format::Mxfp4, &[Products::Matrices]),
        (Format::Nvfp4, &[Products::Matrices]),
        (Format::Int4, &[Products::Matrices, Products::Bytes]),
        (Format::Int3, &[Products::Bytes]),
        (Format::Int2, &[Products::Bytes]),
        (Format::Nf4, &[Products::Tables, Products::Pairs]),
    ];
    pub const LEAST_ROWS: usize = 1024;
    /// Of w, that a workgroup on each of 132 compute units has room for the sums of beside its table: more would have several make it.
    const TABLE_ROWS: Range<usize> = 8000..132 * 8 * 16 + 1;
    /// Of so many or fewer many lanes would have none.
    pub const LEAST_PACKETS: usize = 96;
    pub const LANES: u32 = 32;
    /// Of w, in a tile.
    pub const ROWS: u32 = 16;
    /// With four blocks each: `wgsl/common/gemv_blocks.wgsl`. Rows of different lengths find one that leaves few blocks empty. 16 are those
    /// whose registers a compute unit has room for at once (see [`GemvFragments::groups`]); of workgroup memory 48 KiB would hold 18.
    const SUBGROUPS: [u32; 9] = [5, 6, 7, 8, 10, 11, 12, 14, 16];
    /// With one block each, of rows that are not longer: `wgsl/common/gemv_short.wgsl`. They fill a compute unit.
    pub const SHORT: [u32; 2] = [14, 16];

    pub fn formats() -> [Format; 7] {
        Self::FORMATS.map(|(format, _)| format)
    }

    /// Those that may meet such weights.
    pub fn all(format: Format) -> impl Iterator<Item = GemvFragments> {
        let ways = Self::FORMATS.iter().find(|(one, _)| *one == format).map_or(&[][..], |(_, ways)| ways);
        let kinds =
            ways.iter().flat_map(move |&way| way.scales(format).iter().map(move |&scales| (way, scales)));
        kinds.flat_map(|(products, scales)| {
            Self::shapes(products).into_iter().map(move |(subgroups, shares, each)| GemvFragments {
                subgroups,
                shares,
                each,
                products,
                scales,
            })
        })
    }

    /// Subgroups, shares and what each of these has, the least room first. Of pairs some 20 subgroups are those that registers leave room for.
    fn shapes(products: Products) -> Vec<(u32, u32, u32)> {
        let all = |subgroups: &[u32], each| subgroups.iter().map(|&s| (s, s, each)).collect::<Vec<_>>();
        match products {
            Products::Matrices => [all(&Self::SHORT, 1), all(&Self::SUBGROUPS, 4)].concat(),
            Products::Tables => all(&Self::SHORT, 1),
            Products::Bytes => [all(&[4], 1), all(&Self::SUBGROUPS, 1)].concat(),
            Products::Pairs => (2..=8).map(|shares| (20 / shares * shares, shares, 2)).collect(),
        }
    }

    /// Packets of a row that it has room for.
    const fn packets(products: Products, shares: u32, each: u32) -> usize {
        let lanes = match products {
            Products::Matrices | Products::Tables => 8,
            Products::Bytes | Products::Pairs => Self::LANES,
        };
        (shares * each * lanes) as usize
    }

    /// What is fastest for `n` rows of so many packets, as measured on an H200; nothing where the Subgroup tier is.
    fn products(format: Format, n: usize, packets: usize) -> Option<Products> {
        match (format, (8000..32_000).contains(&n)) {
            _ if n < Self::LEAST_ROWS => None,
            (Format::Int4, true) if packets > 128 => Some(Products::Bytes),
            (Format::Fp4 | Format::Mxfp4 | Format::Nvfp4 | Format::Int4, _) => Some(Products::Matrices),
            (Format::Int3 | Format::Int2, true) => Some(Products::Bytes),
            (Format::Nf4, _) if Self::TABLE_ROWS.contains(&n) && packets <= 128 => Some(Products::Tables),
            (Format::Nf4, _) if n >= 8000 => Some(Products::Pairs),
            _ => None,
        }
    }

    /// For a weight of `n` rows of so many packets with such scales, where this is faster than the Subgroup tier.
    pub fn choose(format: Format, n: usize, packets: usize, scales: TwoScales) -> Option<GemvFragments> {
        let products = Self::products(format, n, packets)?;
        let scales = if products.scales(format).contains(&scales) { scales } else { TwoScales::Same };
        Self::shapes(products)
            .into_iter()
            .find(|&(_, shares, each)| Self::packets(products, shares, each) >= packets)
            .filter(|_| packets > Self::LEAST_PACKETS)
            .map(|(subgroups, shares, each)| GemvFragments { subgroups, shares, each, products, scales })
    }

    pub const fn threads(&self) -> u32 {
        self.subgroups * Self::LANES
    }

    /// Tiles of a workgroup, at most.
    const fn most_tiles(products: Products, each: u32) -> u32 {
        match (products, each) {
            (Products::Pairs, _) | (Products::Matrices, 1) => 32,
            (Products::Matrices | Products::Tables | Products::Bytes, _) => 8,
        }
    }

    /// Sums of a share, and of several blocks activations of its packets and a packet of zeros, 64 bytes each, or all pairs of values, once for each lane.
    pub const fn workgroup_storage(&self) -> u32 {
        let sums = self.shares * Self::most_tiles(self.products, self.each) * Self::ROWS * 4;
        match self.products {
            Products::Matrices if self.each > 1 => self.shares * (self.each * 8 + 1) * 64 + sums,
            Products::Matrices | Products::Bytes => sums,
            Products::Tables | Products::Pairs => 256 * Self::LANES * 4 + sums,
        }
    }

    /// Workgroups of so many threads, whose `shares` have `each` of a row, for `n` rows of w: as many as run at the same time on so many compute
    /// units, or more if those would have too many rows.
    pub fn groups(
        products: Products,
        (threads, shares, each): (usize, usize, usize),
        n: usize,
        units: usize,
    ) -> usize {
        let (most, lanes) = (Self::most_tiles(products, each as u32) as usize, Self::LANES as usize);
        let side = Self::ROWS as usize;
        let tiles = n.div_ceil(side);
        // Subgroups on a unit: as many as have room for their registers or, of bytes, as are worth that each prepares its activations: fewer where
        // four share a row.
        let resident = match products {
            Products::Matrices if each > 1 => 16,
            Products::Matrices | Products::Tables => return whole_rounds(tiles, most, units),
            Products::Bytes if shares == 4 => 20,
            Products::Bytes => 24,
            Products::Pairs => {
                let rows = threads / (lanes * shares);
                return whole_rounds(n.div_ceil(rows), most * side / rows, units);
            }
        };
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
    let spans = if traits.split_packet { 2 } else { 1 };
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
        FEW = Def::Flag(false),
        SUBGROUP = Def::Flag(true),
        SIDE = Def::Num(GemvFragments::ROWS),
        THREADS = Def::Num(tile.threads()),
        EACH = Def::Num(tile.each),
        TABLE = Def::Flag(is(Products::Tables)),
        SHARES = Def::Num(tile.shares),
        MOST_TILES = Def::Num(GemvFragments::most_tiles(tile.products, tile.each)),
        PACKET_CHUNKS = Def::Num(packet(traits.format) / 8),
        SPANS = Def::Num(spans),
        SPAN_CHUNKS = Def::Num(packet(traits.format) / 8 / spans),
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
    // Scales that are bytes are in one word only where rows are whole packets.
    let served = |t: &Traits| match t.format.scales() {
        ScaleFormat::F16 => t.rows != Rows::Ragged && !t.split_packet,
        _ => t.rows == Rows::Exact && t.split_packet == (t.format == Format::Nvfp4),
    };
    for traits in traits(&GemvFragments::formats()).into_iter().filter(served) {
        for dtypes in super::DTYPES.into_iter().filter(|(a, _)| *a == DType::F16) {
            let halves = takes_pairs(dtypes, traits.rows, pair);
            let tiles = GemvFragments::all(traits.format);
            for tile in tiles.filter(|t| t.products != Products::Pairs || halves) {
                all.push(gemv_fragment_variant(traits, dtypes, tile, pair));
            }
        }
    }
    all.extend(few_variants(pair));
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
        assert_eq!(at, [None, Some(14), Some(16), Some(5), Some(8), Some(14), Some(16), None]);
        let rows =
            |format| [1023, 1024, 7999, 8000, 31_999, 32_000].map(|n| choose(format, n, 128).is_some());
        assert_eq!(rows(Format::Fp4), [false, true, true, true, true, true]);
        assert_eq!(rows(Format::Int4), [false, true, true, true, true, true]);
        assert_eq!(rows(Format::Nf4), [false, false, false, true, true, true]);
        let teams = |packets| choose(Format::Nf4, 8000, packets).map(|t| (t.subgroups, t.shares));
        assert_eq!(
            [96, 97, 128, 129, 448, 512, 513].map(teams),
            [None, Some((14, 14)), Some((16, 16)), Some((18, 3)), Some((14, 7)), Some((16, 8)), None]
        );
        let rows = |n| choose(Format::Nf4, n, 128).map(|t| (t.products, t.subgroups));
        let (tables, pairs) = (Some((Products::Tables, 16)), Some((Products::Pairs, 20)));
        assert_eq!([7999, 8000, 16_896, 16_897].map(rows), [None, tables, tables, pairs]);
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
            let shape = (tile.threads() as usize, tile.shares as usize, tile.each as usize);
            let groups = |n| GemvFragments::groups(tile.products, shape, n, 132);
            let (step, most) = match (tile.products, tile.each) {
                (Products::Pairs, _) => (shape.0 / 32 / shape.1, 512),
                (Products::Matrices, 1) => (16, 512),
                _ => (16, 128),
            };
            let rows = |n: usize| n.div_ceil(step).div_ceil(groups(n)) * step;
            assert!((1..40).chain([4096, 14336, 128_256, 1 << 20]).all(|n| rows(n) <= most), "{tile:?}");
            assert!(tile.workgroup_storage() <= 48 << 10, "{tile:?}");
        }
        let groups = |products, shape, n| GemvFragments::groups(products, shape, n, 132);
        let matrices = |n| groups(Products::Matrices, (160, 5, 4), n);
        assert_eq!([16, 17, 14336, 128_256].map(matrices), [1, 2, 396, 1002]);
        let short = |n| groups(Products::Matrices, (512, 16, 1), n);
        assert_eq!([16, 17, 14336, 128_256].map(short), [1, 2, 132, 264]);
        let tables = |n| groups(Products::Tables, (512, 16, 1), n);
        assert_eq!([16, 17, 14336, 16_896, 16_897].map(tables), [1, 2, 132, 132, 264]);
        let bytes = |shares| groups(Products::Bytes, (32 * shares, shares, 1), 14336);
        assert_eq!([4, 5, 8, 16].map(bytes), [660, 528, 396, 132]);
        assert_eq!(
            [9, 11, 14336, 67_585, 128_256].map(|n| groups(Products::Pairs, (640, 2, 2), n)),
            [1, 2, 132, 264, 264]
        );
    }
}
