//! How `attention_decode` is specialised for matrices that are made of what each thread holds (the Spirv tier).

use super::Sizes;
use super::coop::FORMATS;
use super::plan::Splits;
use super::spec::{DecodePlan, Store, offset};
use crate::device::Caps;
use crate::kernel::{Def, Defines, Needs, Variant, defines, set_flag};
use crate::kv::KvFormat;
use crate::tensor::DType;

/// Head sizes with a variant: four lanes share a row of K, eight a row of V, in whole pieces of eight elements.
const WIDTHS: [u32; 2] = [64, 128];
/// Rows of a matrix that hold queries; the other eight are never looked at.
const ROWS: u32 = 8;

/// The plan for a call, of at most `splits` splits or as many as there should be.
pub(super) fn plan(caps: &Caps, s: &Sizes, store: Store, splits: Option<u32>) -> Result<DecodePlan, String> {
    if s.dtype != DType::F16 {
        return Err("matrices take f16 queries".to_string());
    }
    if !FORMATS.contains(&store.format) {
        return Err(format!("matrices take f16, which {} may exceed", store.format.name()));
    }
    if offset(store.format) && !caps.half_subnormals {
        return Err(format!("{} needs subnormal halves, which are lost", store.format.name()));
    }
    if store.extra {
        return Err(
            "scores are changed only where each can be looked at: no bias, tree or soft cap".to_string()
        );
    }
    if s.d != s.d_v || !WIDTHS.contains(&s.d) {
        return Err(format!("head sizes of {WIDTHS:?}, keys and values alike"));
    }
    let one_each = match splits {
        Some(most) => Splits::of(s.kv_len, most),
        None => Splits::plan(caps, s, ROWS, 1),
    };
    // A device that was opened with the least limits allows for the fewest only.
    let of = |&subgroups: &u32| variant(store, s.d, subgroups);
    let serves = |n: &&u32| one_each.keys >= least_keys(**n) && of(n).needs.unmet(caps).is_none();
    let subgroups = subgroups(store.format).iter().find(serves).unwrap_or(&NARROW);
    Ok(DecodePlan { variant: of(subgroups), rows: ROWS, resident: 1 })
}

/// Subgroups of a workgroup, from the most to the fewest. One workgroup fills a core: codes need 110 to 125 registers, f16 165. Several
/// in its place would be as fast over one long sequence, but make more parts to merge; over few keys most subgroups would have none.
fn subgroups(format: KvFormat) -> &'static [u32] {
    if format.quantised() { &[16, 8, NARROW] } else { &[8, NARROW] }
}
const NARROW: u32 = 4;

/// Of a workgroup of so many subgroups: a step, or two of the most.
fn least_keys(subgroups: u32) -> u32 {
    match subgroups {
        16 => 512,
        8 => 128,
        _ => 0,
    }
}

fn variant(store: Store, d: u32, subgroups: u32) -> Variant {
    // Pieces of eight elements that a lane has of a row of K and of V, and how many of them a load of 16 bytes holds.
    let (k_pieces, v_pieces) = (d / 8 / 4, d / 8 / 8);
    let bits = store.format.bits() as u32;
    let per_load = 16 / bits;
    let (k_load, v_load) = (k_pieces.min(per_load), v_pieces.min(per_load.min(2)));
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(true),
            SIDE = Def::Num(16),
            STORE = Def::Word(store.format.name()),
            BITS = Def::Num(bits),
            QUANTISED = Def::Flag(store.format.quantised()),
            OFFSET = Def::Flag(offset(store.format)),
            MULTIPLIES = Def::Flag(true),
            PAGED = Def::Flag(store.paged),
            SUBGROUPS = Def::Num(subgroups),
            KC = Def::Num(k_pieces / k_load),
            KY = Def::Num(k_load),
            VC = Def::Num(v_pieces / v_load),
            VY = Def::Num(v_load),
            JOINED = Def::Flag(false),
            TALLIES = Def::Num(TALLIES),
            // A thread's of the parts that it merges.
            BATCH = Def::Num(if subgroups == 16 { 4 } else { 8 }),
        ],
        needs: Needs {
            f16: true,
            // The pool of four rows, maxima and totals, a count.
            workgroup_storage: subgroups * (4 * 4 * d + ROWS * 2 * 4) + 16,
            threads: subgroups * 32,
            coop_side: 16,
            subgroup_size: 32,
        },
    }
}

/// The most tiles whose splits are merged in the launch itself: words that count workgroups, at the start of [`Gpu::joint`](crate::Gpu).
const TALLIES: u32 = 1024;
/// And the most bytes that the last workgroup of a tile reads on its own; more are merged sooner by many.
const MOST_BYTES: u32 = 128 << 10;

/// Words of [`Gpu::joint`](crate::Gpu) in which the splits of a call come together in one launch (`wgsl/common/decode_join.wgsl`): for
/// `tiles` tiles of rows in all, of so many splits each. `None` where a second launch is faster, or nothing is split.
pub(super) fn joint_words(s: &Sizes, tiles: u32, splits: u32) -> Option<usize> {
    let bytes = splits.saturating_mul(s.rows().min(ROWS)).saturating_mul(s.d_v * 4);
    let part = ROWS * (s.d_v + 2);
    let few = splits > 1 && tiles <= TALLIES && bytes <= MOST_BYTES;
    few.then_some(TALLIES as usize + tiles as usize * (splits * part) as usize)
}

/// The specialisation that merges.
pub(super) fn join(defines: &mut Defines) {
    set_flag(defines, "JOINED", true);
}

pub(super) fn variants() -> Vec<Variant> {
    let stores = FORMATS.into_iter().flat_map(|format| {
        // The codes of a cache are always in blocks.
        let ways: &[bool] = if format.quantised() { &[true] } else { &[false, true] };
        ways.iter().map(move |&paged| Store { format, paged, extra: false })
    });
    let widths = stores.flat_map(|store| WIDTHS.map(|d| (store, d)));
    let alone = widths.flat_map(|(store, d)| {
        subgroups(store.format).iter().map(move |&subgroups| variant(store, d, subgroups))
    });
    let joined = |mut variant: Variant| {
        join(&mut variant.defines);
        variant
    };
    alone.flat_map(|alone| [alone.clone(), joined(alone)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gpu;
    use crate::kv::KvFormat;

    /// As far as planners can tell, a large NVIDIA GPU.
    fn caps() -> Caps {
        Caps {
            f16: true,
            half_subnormals: true,
            subgroup_size: 32,
            coop_side: Some(16),
            max_workgroup_storage: 48 << 10,
            max_workgroup_threads: 1024,
            device_type: wgpu::DeviceType::DiscreteGpu,
            ..Gpu::new().expect("an adapter").caps().clone()
        }
    }

    const SIZES: Sizes =
        Sizes { dtype: DType::F16, b: 1, sq: 1, hq: 32, hkv: 8, d: 128, d_v: 128, capacity: 0, kv_len: 0 };
    const STORE: Store = Store { format: KvFormat::Int8, paged: true, extra: false };

    #[test]
    fn workgroups_are_as_wide_as_their_keys() {
        for (format, widest) in [(KvFormat::Int8, 16), (KvFormat::F16, 8)] {
            let store = Store { format, ..STORE };
            let of = |s: &Sizes, splits| {
                let plan = plan(&caps(), s, store, splits).expect("it is served");
                (plan.variant.needs.threads / 32, plan.resident)
            };
            let keys = |kv_len, splits| of(&Sizes { kv_len, ..SIZES }, splits);
            assert_eq!([127, 128, 511, 512].map(|n| keys(n, Some(1)).0), [4, 8, 8, widest]);
            assert_eq!(keys(1024, Some(2)), (widest, 1));
            assert_eq!(keys(1024, None), (4, 1), "eight KV heads share 132 compute units, so 64 keys each");
            assert_eq!(keys(32_768, None), (widest, 1));
            let batch = Sizes { kv_len: 512, b: 64, ..SIZES };
            assert_eq!(of(&batch, None), (widest, 1), "nothing to split");
        }
    }

    #[test]
    fn a_launch_merges_what_is_not_too_much_for_one_workgroup() {
        let words = joint_words;
        assert_eq!(words(&SIZES, 8, 1), None, "nothing to merge");
        // Counts, then parts of eight rows, each with its maximum and total.
        assert_eq!(words(&SIZES, 8, 2), Some(1024 + 8 * 2 * 8 * 130));
        assert_eq!(words(&SIZES, 1024, 2), Some(1024 + 1024 * 2 * 8 * 130));
        assert_eq!(words(&SIZES, 1025, 2), None);
        // Four rows of 128 values are 2 KiB.
        assert!(words(&SIZES, 1, 64).is_some() && words(&SIZES, 1, 65).is_none());
        let (many, narrow) = (Sizes { sq: 8, ..SIZES }, Sizes { d: 64, d_v: 64, ..SIZES });
        assert!(words(&many, 4, 32).is_some() && words(&many, 4, 33).is_none(), "of a tile of eight rows");
        assert!(words(&narrow, 1, 128).is_some() && words(&narrow, 1, 129).is_none());
    }

    #[test]
    fn least_limits_allow_for_narrow_workgroups() {
        let caps = Caps { max_workgroup_storage: 16 << 10, max_workgroup_threads: 256, ..caps() };
        for format in FORMATS {
            let plan = plan(&caps, &Sizes { kv_len: 32_768, ..SIZES }, Store { format, ..STORE }, None);
            let needs = plan.expect("it is served").variant.needs;
            assert_eq!(needs.unmet(&caps), None);
        }
    }

    #[test]
    fn what_is_not_served_says_why() {
        let refused =
            |s: Sizes, store| plan(&caps(), &s, store, None).map(drop).expect_err("it is not served");
        assert!(refused(Sizes { dtype: DType::F32, ..SIZES }, STORE).contains("f16 queries"));
        assert!(refused(Sizes { dtype: DType::Bf16, ..SIZES }, STORE).contains("f16 queries"));
        assert!(refused(SIZES, Store { format: KvFormat::Bf16, ..STORE }).contains("bf16"));
        assert!(refused(SIZES, Store { extra: true, ..STORE }).contains("bias"));
        let flushing = Caps { half_subnormals: false, ..caps() };
        let of = |format| plan(&flushing, &SIZES, Store { format, ..STORE }, None);
        assert!(of(KvFormat::Int8).is_err_and(|why| why.contains("subnormal")));
        assert!(of(KvFormat::E4m3).is_ok(), "it has no offset");
        assert!(refused(Sizes { d_v: 64, ..SIZES }, STORE).contains("alike"));
        assert!(refused(Sizes { d: 96, d_v: 96, ..SIZES }, STORE).contains("[64, 128]"));
    }
}
