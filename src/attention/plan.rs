//! How the keys of a decode call are split over workgroups.

use super::Sizes;
use crate::device::{Caps, Gpu};

/// The merge gives a thread to each split.
pub(super) const MAX_SPLITS: usize = 256;
/// A split is worth a workgroup from here on: below, its fixed cost (staging Q, the sum over thread groups, the
/// merge) outweighs what it reads.
const MIN_KEYS: usize = 64;
/// The most rows that a workgroup serves at any tier: workspaces hold the parts of so many.
const ROWS: usize = 8;

/// `count` splits of `keys` keys each; the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Splits {
    pub count: u32,
    pub keys: u32,
}

impl Splits {
    /// For workgroups that serve `rows` rows each, of which a compute unit holds `resident` at once (at most
    /// [`RESIDENT`]).
    pub fn plan(caps: &Caps, s: &Sizes, rows: u32, resident: u32) -> Splits {
        let groups = u64::from(s.b) * u64::from(s.hkv) * u64::from(s.rows().div_ceil(rows));
        let workgroups = caps.compute_units() * resident.min(RESIDENT) as usize;
        Splits::of(s.kv_len, most_splits(workgroups, groups as usize, s.kv_len as usize) as u32)
    }

    /// At most `most` splits of `kv_len` keys.
    pub fn of(kv_len: u32, most: u32) -> Splits {
        let keys = kv_len.div_ceil(most.max(1)).max(1);
        Splits { count: kv_len.div_ceil(keys).max(1), keys }
    }

    /// The same keys in two parts or more, the second perhaps empty.
    pub fn at_least_two(self) -> Splits {
        Splits { count: self.count.max(2), ..self }
    }

    /// Elements of workspace: sums of D values, then (maximum, total), for each row and split.
    pub fn workspace(&self, rows: u64, d: u64) -> u64 {
        if self.count > 1 { elements(rows.saturating_mul(u64::from(self.count)), d) } else { 0 }
    }
}

/// Elements for so many parts of rows, rounded up as the merge reads whole vec4s.
fn elements(parts: u64, d: u64) -> u64 {
    parts.saturating_mul(d.saturating_add(2)).div_ceil(4).saturating_mul(4)
}

/// The most workgroups that a compute unit holds at once; what registers allow differs by tier.
pub(super) const RESIDENT: u32 = 4;

/// As many splits as fill the device once; a second round of few workgroups would take as long as the first.
fn most_splits(workgroups: usize, groups: usize, kv_len: usize) -> usize {
    (workgroups / groups.max(1)).min(MAX_SPLITS).min(kv_len.div_ceil(MIN_KEYS)).max(1)
}

/// The f32 elements that [`AttentionDecode::workspace`](super::AttentionDecode::workspace) needs on this adapter for
/// \[B, Sq, Hq, D\] queries on Hkv KV heads (D: the width of values, if it differs); 0 when the keys are never split. It
/// never falls as `b`, `sq`, `d` or `kv_len` grows: a workspace made for the largest batch, the most queries and the capacity of a cache serves every
/// smaller call on it. (It is a bound: on a large GPU at most 4224·(D + 2) elements, whatever the call.)
pub fn workspace_len(
    gpu: &Gpu,
    b: usize,
    sq: usize,
    hq: usize,
    hkv: usize,
    d: usize,
    kv_len: usize,
) -> usize {
    bound(gpu.caps().compute_units() * RESIDENT as usize, b, sq, hq, hkv, d, kv_len)
}

/// As [`workspace_len`], for calls with sinks or an LSE output.
pub fn merged_workspace_len(
    gpu: &Gpu,
    b: usize,
    sq: usize,
    hq: usize,
    hkv: usize,
    d: usize,
    kv_len: usize,
) -> usize {
    let two_parts = b.saturating_mul(sq).saturating_mul(hq).saturating_mul(2);
    let least = usize::try_from(elements(two_parts as u64, d as u64)).unwrap_or(usize::MAX);
    workspace_len(gpu, b, sq, hq, hkv, d, kv_len).max(least)
}

fn bound(workgroups: usize, b: usize, sq: usize, hq: usize, hkv: usize, d: usize, kv_len: usize) -> usize {
    let splits = kv_len.div_ceil(MIN_KEYS).min(MAX_SPLITS);
    if splits <= 1 {
        return 0;
    }
    // Splits multiply workgroups up to what fills the device, and each of those serves at most ROWS rows.
    let all_rows = b.saturating_mul(sq).saturating_mul(hq);
    let rows = sq.saturating_mul(hq / hkv.max(1)).min(ROWS);
    let parts = all_rows.saturating_mul(splits).min(workgroups.saturating_mul(rows));
    usize::try_from(elements(parts as u64, d as u64)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_the_keys_and_never_exceed_the_bound() {
        for workgroups in [8, 128, 528] {
            for (b, rows, hkv) in [(1, 1usize, 1), (1, 4, 8), (3, 32, 2), (64, 8, 8)] {
                for kv_len in (0..1500).chain([4096, 32_768, 1 << 20]) {
                    let most = most_splits(workgroups, b * hkv * rows.div_ceil(ROWS), kv_len);
                    assert!((1..=MAX_SPLITS).contains(&most));
                    let splits = Splits::of(kv_len as u32, most as u32);
                    let (count, keys) = (splits.count as usize, splits.keys as usize);
                    assert!(count <= most && count * keys >= kv_len && (count - 1) * keys < kv_len.max(1));
                }
            }
        }
    }

    #[test]
    fn a_workspace_for_the_largest_call_serves_all() {
        for workgroups in [8, 128, 528] {
            for (hq, hkv, d) in [(1, 1, 8), (16, 1, 128), (32, 8, 64), (384, 128, 256), (32, 32, 80)] {
                let largest = |b, sq, kv_len| bound(workgroups, b, sq, hq, hkv, d, kv_len);
                for b in [1, 2, 3, 7, 300] {
                    for sq in [1, 2, 3, 5, 7, 8, 9, 30, 200] {
                        for kv_len in (0..700).step_by(13).chain([4096, 32_768]) {
                            let own = largest(b, sq, kv_len);
                            for (rows, resident) in [(1, 1), (4, 4), (8, 3), (ROWS, 4)] {
                                let groups = b * hkv * (sq * (hq / hkv)).div_ceil(rows);
                                let most = most_splits(workgroups / 4 * resident, groups, kv_len);
                                let splits = Splits::of(kv_len as u32, most as u32);
                                let need = splits.workspace((b * sq * hq) as u64, d as u64) as usize;
                                assert!(need <= own, "{workgroups} {hq}/{hkv} {b}×{sq} over {kv_len}");
                            }
                            assert!(own <= largest(b + 1, sq, kv_len));
                            assert!(own <= largest(b, sq + 1, kv_len) && own <= largest(b, sq, kv_len + 13));
                        }
                    }
                }
            }
        }
    }
}
