//! How the Spirv tier multiplies two to eight rows of halves: see `wgsl/common/gemv_few.wgsl`.

use super::gemv_fragments::GemvFragments;
use super::plan::{Request, Rows, Traits};
use super::spec::{DTypes, common, packet, traits};
use super::weight::Weight;
use crate::device::Caps;
use crate::format::Format;
use crate::kernel::{Def, Needs, Variant, defines, set_flag};
use crate::tensor::DType;

/// How a workgroup divides its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GemvFew {
    /// Each has a block of eight packets of every row.
    subgroups: u32,
    /// Of activations, that it has room for.
    rows: u32,
}

impl GemvFew {
    /// Packets of 32 codes, of which some 20 operations make halves.
    const FORMATS: [Format; 4] = [Format::Fp4, Format::Int4, Format::Mxfp4, Format::Nvfp4];
    const ROWS: [u32; 2] = [4, 8];
    /// Packets of a subgroup.
    const BLOCK: usize = 8;

    /// In the shapes of one row (`wgsl/common/gemv_short.wgsl`).
    fn all() -> impl Iterator<Item = GemvFew> {
        GemvFragments::SHORT
            .into_iter()
            .flat_map(|subgroups| Self::ROWS.map(|rows| GemvFew { subgroups, rows }))
    }

    /// For `m` rows of activations and `n` rows of so many packets.
    fn choose(m: usize, n: usize, packets: usize) -> Option<GemvFew> {
        let served = n >= GemvFragments::LEAST_ROWS && packets > GemvFragments::LEAST_PACKETS && m >= 2;
        let fits = |few: &GemvFew| few.rows as usize >= m && few.subgroups as usize * Self::BLOCK >= packets;
        Self::all().find(fits).filter(|_| served)
    }

    /// That which serves `m` rows of such activations.
    fn of(m: usize, weight: &Weight, a: DType, pair: bool) -> Option<GemvFew> {
        let (format, rows) = (weight.format(), Rows::of(weight));
        let served = Self::formats(pair).contains(&format) && a == DType::F16 && rows != Rows::Ragged;
        // Of NVFP4 a packet's two scales are in one word.
        let nvfp4 = format == Format::Nvfp4 && weight.groups().is_multiple_of(2);
        let whole = weight.split_packet() == nvfp4;
        Self::choose(m, weight.n(), weight.packets()).filter(|_| served && whole)
    }

    /// Products of two scales are rounded before weights are, which is too much for gated pairs.
    fn formats(pair: bool) -> &'static [Format] {
        if pair { &Self::FORMATS[..3] } else { &Self::FORMATS }
    }

    /// Whether the Spirv tier of such a device serves them.
    pub fn serves(caps: &Caps, m: usize, weight: &Weight, a: DType, pair: bool) -> bool {
        Self::of(m, weight, a, pair).is_some_and(|few| few.needs().unmet(caps).is_none())
    }

    fn needs(&self) -> Needs {
        Needs {
            f16: true,
            threads: self.threads(),
            workgroup_storage: self.workgroup_storage(),
            coop_side: GemvFragments::ROWS,
            subgroup_size: GemvFragments::LANES,
        }
    }

    const fn threads(&self) -> u32 {
        self.subgroups * GemvFragments::LANES
    }

    /// Tiles whose sums wait for those of the other subgroups.
    const fn slots(&self) -> u32 {
        32 / self.rows
    }

    /// The sums of tiles, of which the 16 of a row take the room of 20.
    const fn workgroup_storage(&self) -> u32 {
        self.subgroups * self.slots() * self.rows * 20 * 4
    }

    /// Workgroups for `n` rows of w: each fills one of so many compute units, and takes as many tiles as there are.
    pub fn groups(n: usize, units: usize) -> usize {
        n.div_ceil(GemvFragments::ROWS as usize).min(units)
    }
}

/// The specialisation for a request of two rows or more, or why it is left to others.
pub(super) fn few_variant(request: &Request, traits: Traits, weight: &Weight) -> Result<Variant, String> {
    let &Request { m, a, out, pair, .. } = request;
    let (format, packets) = (traits.format.name(), weight.packets());
    GemvFew::of(m, weight, a, pair).map(|few| variant(traits, (a, out), few, pair)).ok_or_else(|| {
        format!("{m} rows of {} by {format} of {packets} packets are for another tier", a.wgsl())
    })
}

fn variant(traits: Traits, dtypes: DTypes, few: GemvFew, pair: bool) -> Variant {
    let mut defines = common(traits, dtypes, pair, true);
    let spans = if traits.split_packet { 2 } else { 1 };
    for (flag, set) in [
        ("HALVES", true),
        ("MULTIPLIES", true),
        ("SMALL_SCALES", traits.small_scales),
        // Their words, so that nothing is done to them before they are wanted.
        ("HALF_SCALES", false),
    ] {
        set_flag(&mut defines, flag, set);
    }
    defines.extend(defines![
        FEW = Def::Flag(true),
        SUBGROUP = Def::Flag(true),
        SIDE = Def::Num(GemvFragments::ROWS),
        THREADS = Def::Num(few.threads()),
        ROWS_A = Def::Num(few.rows),
        SLOTS = Def::Num(few.slots()),
        EACH = Def::Num(1),
        PACKET_CHUNKS = Def::Num(packet(traits.format) / 8),
        SPANS = Def::Num(spans),
        SPAN_CHUNKS = Def::Num(packet(traits.format) / 8 / spans),
    ]);
    Variant { defines, needs: few.needs() }
}

pub(super) fn few_variants(pair: bool) -> Vec<Variant> {
    let mut all = Vec::new();
    for traits in traits(GemvFew::formats(pair)) {
        if traits.rows == Rows::Ragged || traits.split_packet != (traits.format == Format::Nvfp4) {
            continue;
        }
        let scales: &[bool] = if traits.format == Format::Fp4 { &[false, true] } else { &[false] };
        for &small_scales in scales {
            for &out in super::FLOATS {
                let traits = Traits { small_scales, ..traits };
                all.extend(GemvFew::all().map(|few| variant(traits, (DType::F16, out), few, pair)));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_have_the_least_room_that_holds_them() {
        let of = |m, packets| GemvFew::choose(m, 1024, packets).map(|few| (few.rows, few.subgroups));
        assert_eq!([1, 2, 4].map(|m| of(m, 128)), [None, Some((4, 16)), Some((4, 16))]);
        assert_eq!([5, 8, 9].map(|m| of(m, 128)), [Some((8, 16)), Some((8, 16)), None]);
        assert_eq!(
            [96, 97, 112, 113, 129].map(|p| of(2, p).map(|few| few.1)),
            [None, Some(14), Some(14), Some(16), None]
        );
        assert_eq!(GemvFew::choose(2, 1023, 128), None);
        assert!(GemvFew::all().all(|few| few.rows as usize <= super::super::tiles::MAX_GEMV_ROWS));
        assert!(GemvFew::all().all(|few| few.workgroup_storage() <= 48 << 10 && few.slots() % 2 == 0));
        assert_eq!([1, 17, 14336].map(|n| GemvFew::groups(n, 132)), [1, 2, 132]);
    }
}
