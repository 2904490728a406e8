//! How the Spirv tier multiplies one row: see `wgsl/sparse/gemv_sparse_tables.wgsl`.

use super::spec::{Traits, walks};
use super::weight::SparseWeight;
use crate::kernel::{Def, Needs, Variant, defines, set_flag};
use crate::matmul::whole_rounds;
use crate::tensor::DType;

/// How a workgroup divides its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tables {
    /// Of a workgroup. Each takes a row.
    subgroups: u32,
    scales: PacketScales,
}

/// The scales of a packet and how they are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PacketScales {
    /// Two, the halves of a word.
    OneWord,
    /// So many.
    Each(u32),
}

impl Tables {
    const SUBGROUPS: [u32; 2] = [28, 16];
    const SCALES: [PacketScales; 4] =
        [PacketScales::OneWord, PacketScales::Each(1), PacketScales::Each(2), PacketScales::Each(4)];
    /// Packets of a row, at least: of fewer most lanes would have none.
    const LEAST_PACKETS: usize = 33;
    /// The error of a few results may be far from that of many.
    const LEAST_ROWS: usize = 1024;
    /// Packets that a lane has of a row at once.
    const EACH: u32 = 2;
    /// Packets of the part of a row that the table serves.
    const SLICE: u32 = 32 * Self::EACH;
    /// Sums that wait for further slices.
    const MOST_ROWS: u32 = 1456;
    /// Entries of the table, those of eight fours of columns between those of the other eight.
    const ENTRIES: u32 = 10 * 16 * Self::SLICE + 8 * (Self::SLICE + 2);

    /// On so many compute units; nothing where the Subgroup tier is faster.
    pub fn choose(weight: &SparseWeight, traits: Traits, units: usize) -> Option<Tables> {
        let n = weight.n();
        if !serves(traits) || n < Self::LEAST_ROWS || weight.packets() < Self::LEAST_PACKETS {
            return None;
        }
        let scales = match weight.packet_scales() {
            2 if weight.groups().is_multiple_of(2) => PacketScales::OneWord,
            scales => PacketScales::Each(scales),
        };
        Some(Tables { subgroups: Self::subgroups(n, units), scales })
    }

    /// As many as hide each other's loads, or fewer if many would have no row at the end.
    fn subgroups(n: usize, units: usize) -> u32 {
        let used = |&subgroups: &u32| 10 * n >= 9 * n.next_multiple_of(units * subgroups as usize);
        Self::SUBGROUPS.into_iter().find(used).unwrap_or(Self::SUBGROUPS[1])
    }

    pub fn variant(self, traits: Traits) -> Variant {
        let (scales, one_word) = match self.scales {
            PacketScales::OneWord => (2, true),
            PacketScales::Each(scales) => (scales, false),
        };
        let threads = self.subgroups * 32;
        let mut defines = traits.defines(("vec4<u32>", "vec2<u32>"), false);
        set_flag(&mut defines, "MULTIPLIES", true);
        defines.extend(defines![
            SUBGROUP = Def::Flag(true),
            THREADS = Def::Num(threads),
            EACH = Def::Num(Self::EACH),
            FILLS = Def::Num((16 * Self::SLICE).div_ceil(threads)),
            MOST_ROWS = Def::Num(Self::MOST_ROWS),
            SCALES = Def::Num(scales),
            SPAN_CHUNKS = Def::Num(4 / scales),
            SCALE_PAIRS = Def::Flag(one_word),
        ]);
        // The table, the units of its columns, and sums.
        let workgroup_storage = (Self::ENTRIES + Self::SLICE + Self::MOST_ROWS) * 4;
        let needs = Needs { f16: true, threads, workgroup_storage, coop_side: 16, subgroup_size: 32 };
        Variant { defines, needs }
    }

    /// Workgroups for `n` rows of so many packets: one on each of so many compute units, or as many more as have room for their sums.
    pub fn groups(threads: usize, n: usize, packets: usize, units: usize) -> usize {
        let subgroups = threads / 32;
        let steps = n.div_ceil(subgroups);
        let most = if packets > Self::SLICE as usize { Self::MOST_ROWS as usize / subgroups } else { steps };
        whole_rounds(steps, most, units)
    }
}

/// Sums of four products are halves, which is enough for results that are halves too.
fn serves(traits: Traits) -> bool {
    walks(traits) && traits.dtypes.1 == DType::F16
}

/// What [`Tables::choose`] may choose.
pub(super) fn table_variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in Traits::all().into_iter().filter(|&traits| serves(traits)) {
        for subgroups in Tables::SUBGROUPS {
            all.extend(Tables::SCALES.map(|scales| Tables { subgroups, scales }.variant(traits)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Compress, Pattern, SparseMatrix};
    use super::*;
    use crate::Gpu;
    use crate::format::{Format, Group, ScaleSearch};

    /// Of an H200.
    const UNITS: usize = 132;

    #[test]
    fn workgroups_are_wide_unless_many_subgroups_would_have_no_row_at_the_end() {
        let subgroups = |n| Tables::subgroups(n, UNITS);
        assert_eq!([1024, 4096, 8192, 14336, 128_256].map(subgroups), [16, 16, 16, 28, 28]);
    }

    #[test]
    fn sums_that_wait_have_room() {
        for subgroups in Tables::SUBGROUPS {
            let threads = subgroups as usize * 32;
            let groups = |n, packets| Tables::groups(threads, n, packets, UNITS);
            for n in (1024..4096usize).chain([14336, 128_256, 192_192, 192_193, 1 << 20]) {
                let most = n.div_ceil(subgroups as usize).div_ceil(groups(n, 65)) * subgroups as usize;
                assert!(most <= Tables::MOST_ROWS as usize, "{n} rows: {most}");
                assert!(groups(n, 64) <= UNITS && groups(n, 64) <= n, "{n} rows");
            }
            assert_eq!(groups(1 << 20, 64), UNITS);
        }
        assert_eq!([192_192, 192_193].map(|n| Tables::groups(896, n, 65, UNITS)), [132, 264]);
    }

    #[test]
    fn tables_serve_many_long_rows_that_give_halves() {
        let gpu = Gpu::new().expect("an adapter");
        let weight = |n, k| {
            let (pattern, format) = (Pattern::TwoOfFour, Format::Fp4);
            let how = Compress {
                pattern,
                format,
                group: Group::Size(32),
                search: ScaleSearch::AbsMax,
                importance: None,
            };
            let matrix = SparseMatrix::from_dense(&vec![0.5; n * k], n, k, &how).expect("legal");
            SparseWeight::upload(&gpu, &matrix).expect("it fits")
        };
        let traits =
            Traits { pattern: Pattern::TwoOfFour, format: Format::Fp4, dtypes: (DType::F16, DType::F16) };
        let at = |n, k, traits| Tables::choose(&weight(n, k), traits, UNITS).map(|tables| tables.scales);
        assert_eq!(at(1024, 2112, traits), Some(PacketScales::OneWord));
        assert_eq!(at(1024, 2080, traits), Some(PacketScales::Each(2)), "an odd number of groups");
        assert_eq!([at(1023, 2112, traits), at(1024, 2048, traits)], [None; 2]);
        assert_eq!(at(1024, 2112, Traits { dtypes: (DType::F16, DType::F32), ..traits }), None);
    }
}
