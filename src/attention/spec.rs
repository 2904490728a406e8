//! Declarations and cases of `attention`, `attention_decode` and `attention_merge`.

use super::cpu::{self, Problem};
use super::plan::{MAX_SPLITS, Splits};
use super::{Attention, AttentionDecode, merge, record, record_split, workspace_len};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule, Tier,
    Variant, defines, params, tier,
};
use crate::tensor::DType;

params! {
    pub(super) struct AttentionParams {
        sq: u32, kv_len: u32, capacity: u32, heads: u32, kv_heads: u32, d4: u32, tiles: u32, groups: u32,
        causal: u32, scale: f32,
    }
}
params! {
    pub(super) struct DecodeParams {
        sq: u32, kv_len: u32, heads: u32, kv_heads: u32, d8: u32, e8: u32, block_rows: u32, head_rows: u32,
        key_rows: u32, block: u32, table: u32, tiles: u32, splits: u32, groups: u32, stats: u32, causal: u32,
        window: u32, half: u32, scale: f32, soft_cap: f32,
    }
}
params! {
    pub(super) struct MergeParams { rows: u32, splits: u32, d4: u32 }
}

const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

const fn write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite }
}

pub static ATTENTION: KernelSpec = KernelSpec {
    name: "attention",
    family: "attention",
    replaces: &["attention", "flash_attention", "simdgroup_attention"],
    params: AttentionParams::FIELDS,
    bindings: &[read("q"), read("k"), read("v"), write("out")],
    tiers: &[
        tier!(Base, "attention/attention.wgsl", || prefill_variants(Tier::Base)),
        tier!(Subgroup, "attention/attention.wgsl", || prefill_variants(Tier::Subgroup)),
    ],
    cases: prefill_cases,
};

pub static ATTENTION_DECODE: KernelSpec = KernelSpec {
    name: "attention_decode",
    family: "attention",
    replaces: &["flash_attention_v2"],
    params: DecodeParams::FIELDS,
    bindings: &[
        read("q"),
        read("k"),
        read("v"),
        read("scales"),
        read("table"),
        write("out"),
        write("workspace"),
    ],
    tiers: &[
        tier!(Base, "attention/attention_decode.wgsl", || decode_variants(Tier::Base)),
        tier!(Subgroup, "attention/attention_decode.wgsl", || decode_variants(Tier::Subgroup)),
    ],
    cases: decode_cases,
};

/// The second launch of a split decode. One tier serves: it is bound by the latency of one short read.
pub static ATTENTION_MERGE: KernelSpec = KernelSpec {
    name: "attention_merge",
    family: "attention",
    replaces: &[],
    params: MergeParams::FIELDS,
    bindings: &[read("sums"), write("out")],
    tiers: &[tier!(Base, "attention/attention_merge.wgsl", || DTYPES.map(merge_variant).into())],
    cases: merge_cases,
};

const DTYPES: [DType; 2] = [DType::F32, DType::F16];

/// Folded rows of a prefill workgroup.
pub(super) const TILE_ROWS: u32 = 64;

pub(super) fn prefill_variant(tier: Tier, dtype: DType, d: u32) -> Variant {
    // Up to 128 columns, 8 threads share a row; above, 16 do, so that a thread never holds more than 4 × 4 vec4s.
    let threads = if d > 128 { 16 } else { 8 };
    let columns = d.div_ceil(4 * threads);
    // As many rows of V as half the pool holds, but a divisor of the tile's 32 keys.
    let fits = 512 / (threads * columns);
    let v_keys = [32, 16, 8].into_iter().find(|&n| n <= fits).unwrap_or(8);
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            T = Def::Type(dtype.wgsl()),
            TC = Def::Num(threads),
            J = Def::Num(columns),
            V_KEYS = Def::Num(v_keys),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            workgroup_storage: 16 << 10,
            threads: 16 * threads,
            ..Needs::default()
        },
    }
}

fn prefill_variants(tier: Tier) -> Vec<Variant> {
    let sizes = [32, 64, 96, 128, 192, 256];
    DTYPES.into_iter().flat_map(|t| sizes.map(|d| prefill_variant(tier, t, d))).collect()
}

/// Lanes of a team of `attention_decode`, and the pieces of eight elements that each holds of a row of `d`.
/// A team is no wider than `widest`, the narrowest subgroup.
fn team(d: u32, widest: u32) -> (u32, u32) {
    let pieces = d.div_ceil(8).next_power_of_two();
    let lanes = pieces.clamp(4, widest.clamp(4, 16));
    (lanes, (pieces / lanes).max(1))
}

/// Folded rows that a decode workgroup serves, padding included: what registers hold beside the keys in flight.
fn folded(rows: u32, pieces: u32) -> u32 {
    match (rows, pieces) {
        (0 | 1, _) => 1,
        (5.., 1) => 8,
        _ => 4,
    }
}

/// The variant for `rows` folded rows of `d`, and the rows that one workgroup serves. `subgroup` is the size of
/// subgroups, 0 if it varies.
pub(super) fn decode_variant(
    tier: Tier,
    dtype: DType,
    rows: u32,
    d: u32,
    subgroup: u32,
) -> Result<(Variant, u32), String> {
    const THREADS: u32 = 128;
    let (lanes, pieces) = team(d, if tier == Tier::Base { 16 } else { subgroup });
    if pieces > 4 {
        return Err(format!("subgroups of more than {lanes} lanes for a head size of {d}"));
    }
    let rows = folded(rows, pieces);
    // Rows of a vector, and how far lanes of a subgroup share the rows of a key among them.
    let vector = rows.min(4);
    let fold = if tier == Tier::Base { 1 } else { vector.min(lanes / 4) };
    let rest = if tier == Tier::Base { 0 } else { (lanes / 4 / fold).ilog2() };
    let variant = Variant {
        defines: defines![
            SUBGROUP = Def::Flag(tier == Tier::Subgroup),
            STORE = Def::Word(dtype.wgsl()),
            QUANTISED = Def::Flag(false),
            OFFSET = Def::Flag(false),
            PAGED = Def::Flag(false),
            TL = Def::Num(lanes),
            C = Def::Num(pieces),
            R = Def::Num(rows),
            W = Def::Num(vector),
            H = Def::Num(rows / vector),
            FW = Def::Num(vector / fold),
            FOLD = Def::Num(fold),
            REST = Def::Num(rest),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // The pool, then maxima and totals of each team; a vector of three or four words is 16 bytes.
            workgroup_storage: 4 * (4 * THREADS * vector + 2 * THREADS / lanes * rows),
            threads: THREADS,
            ..Needs::default()
        },
    };
    Ok((variant, rows))
}

fn decode_variants(tier: Tier) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    for dtype in DTYPES {
        for (rows, d, subgroup) in [1, 4, 8]
            .into_iter()
            .flat_map(|rows| [32, 64, 128, 256].map(|d| (rows, d)))
            .flat_map(|(rows, d)| [4, 8, 16].map(|subgroup| (rows, d, subgroup)))
        {
            if let Ok((variant, _)) = decode_variant(tier, dtype, rows, d, subgroup)
                && !variants.contains(&variant)
            {
                variants.push(variant);
            }
        }
    }
    variants
}

pub(super) fn merge_variant(dtype: DType) -> Variant {
    const THREADS: u32 = MAX_SPLITS as u32;
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(false),
            T = Def::Type(dtype.wgsl()),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs {
            f16: dtype == DType::F16,
            // The reduction's scratch, the weights, a vec4 for each thread.
            workgroup_storage: THREADS * 4 * (1 + 1 + 4),
            threads: THREADS,
            ..Needs::default()
        },
    }
}

/// Operands of a case.
#[derive(Clone, Copy, PartialEq)]
enum Data {
    Normal,
    /// Integers whose scores reach ±6·10⁴ and beyond and are exact in f32, each key twice: the softmax is all but
    /// one-hot, and an error of scaling or an overflow of exp shows.
    Large,
}

use Data::{Large, Normal};
use Level::{Full, Perf, Quick};

/// (level, B, Sq, Hq, Hkv, D, kv_len, rows behind it, causal, data)
type Shape = (Level, usize, usize, usize, usize, usize, usize, usize, bool, Data);

/// Heads or rows that make more workgroups than one grid dimension holds. Software GPUs need seconds for so many, so
/// the attention cases among them have no keys (every group must write its zeros) and only f32 is run.
const MANY: usize = 66_000;

fn prefill_cases() -> Vec<Case> {
    let shapes: &[Shape] = &[
        (Quick, 1, 5, 2, 1, 64, 7, 2, true, Normal),
        (Quick, 2, 33, 3, 1, 80, 37, 0, false, Normal),
        (Full, 1, 1, 1, 1, 8, 1, 0, false, Normal),
        (Full, 1, 1, 1, 1, 8, 0, 4, false, Normal),
        (Full, 3, 63, 1, 1, 8, 31, 1, false, Normal),
        (Full, 1, 64, 2, 2, 40, 32, 0, true, Normal),
        (Full, 1, 65, 2, 2, 40, 33, 5, true, Normal),
        (Full, 2, 127, 3, 1, 64, 129, 3, true, Normal),
        (Full, 1, 9, 16, 2, 128, 700, 9, true, Normal),
        (Full, 1, 22, 16, 1, 128, 65, 0, true, Normal),
        (Full, 2, 17, 3, 3, 80, 130, 30, true, Normal),
        (Full, 1, 40, 4, 2, 96, 100, 1, false, Normal),
        (Full, 1, 67, 2, 1, 192, 50, 2, true, Normal),
        (Full, 1, 70, 2, 1, 256, 95, 3, true, Normal),
        (Full, 1, 30, 2, 2, 248, 20, 0, true, Normal),
        (Full, 1, 37, 2, 1, 64, 45, 3, true, Large),
        (Full, 1, 1, MANY, MANY, 8, 0, 1, true, Normal),
        (Perf, 1, 2048, 32, 8, 128, 2048, 0, true, Normal),
    ];
    cases(shapes, |s| s.3, |shape, dtype| attention_case(shape, dtype, Call::Prefill))
}

fn decode_cases() -> Vec<Case> {
    let shapes: &[Shape] = &[
        (Quick, 1, 1, 4, 1, 64, 130, 6, true, Normal),
        (Quick, 2, 5, 3, 1, 80, 37, 0, true, Normal),
        (Full, 1, 1, 1, 1, 8, 1, 0, false, Normal),
        (Full, 1, 2, 1, 1, 8, 0, 4, false, Normal),
        (Full, 3, 1, 2, 2, 40, 127, 1, true, Normal),
        (Full, 1, 2, 2, 2, 40, 128, 0, true, Normal),
        (Full, 1, 2, 3, 3, 192, 129, 5, true, Normal),
        (Full, 1, 8, 6, 2, 64, 5, 3, true, Normal),
        (Full, 2, 8, 16, 2, 128, 255, 3, true, Normal),
        (Full, 1, 5, 16, 1, 128, 257, 9, false, Normal),
        (Full, 1, 1, 32, 4, 128, 700, 9, true, Normal),
        (Full, 1, 1, 1, 1, 256, 600, 2, true, Normal),
        (Full, 3, 2, 8, 1, 256, 513, 2, true, Normal),
        (Full, 1, 3, 2, 1, 64, 301, 3, true, Large),
        (Full, 1, 1, MANY, MANY, 8, 0, 1, true, Normal),
        (Perf, 1, 1, 32, 8, 128, 4096, 0, true, Normal),
        (Perf, 1, 1, 32, 8, 128, 32_768, 0, true, Normal),
    ];
    let mut all = cases(shapes, |s| s.3, |shape, dtype| attention_case(shape, dtype, Call::Decode(None)));
    // As the adapter would never split them: many and short, more splits than fit a subgroup, one.
    let forced: &[(u32, Shape)] = &[
        (7, (Full, 2, 8, 3, 1, 40, 20, 1, true, Normal)),
        (100, (Full, 1, 1, 4, 2, 128, 700, 2, true, Normal)),
        (256, (Full, 1, 2, 1, 1, 80, 256, 0, true, Normal)),
        (1, (Full, 1, 1, 8, 1, 128, 1100, 2, true, Normal)),
    ];
    for dtype in DTYPES {
        all.extend(forced.iter().map(|(n, shape)| attention_case(*shape, dtype, Call::Decode(Some(*n)))));
    }
    all
}

/// Every shape in both dtypes, but for those of `MANY` heads or rows.
fn cases<S: Copy>(shapes: &[S], size: impl Fn(&S) -> usize, make: impl Fn(S, DType) -> Case) -> Vec<Case> {
    let halves = shapes.iter().filter(|s| size(s) < MANY);
    shapes.iter().map(|&s| make(s, DType::F32)).chain(halves.map(|&s| make(s, DType::F16))).collect()
}

#[derive(Clone, Copy)]
enum Call {
    Prefill,
    /// With the planned number of splits, or at most this many.
    Decode(Option<u32>),
}

fn attention_case(shape: Shape, dtype: DType, call: Call) -> Case {
    let (level, b, sq, hq, hkv, d, kv_len, spare, causal, data) = shape;
    let capacity = kv_len + spare;
    let scale = if data == Large { 1.0 } else { 1.0 / (d as f32).sqrt() };
    let p = Problem { b, sq, hq, hkv, d, capacity, kv_len, causal, scale };
    let mut label = format!("{b}×{sq} over {kv_len}/{capacity}, heads {hq}/{hkv}×{d}");
    if causal {
        label += ", causal";
    }
    if data == Large {
        label += ", large scores";
    }
    if let Call::Decode(Some(n)) = call {
        label += &format!(", {n} splits");
    }
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((sq * 31 + kv_len * 7 + d + hq) as u64);
        let mut prepared = Prepared { launches: Vec::new(), checks: Vec::new(), cost: cost(&p, dtype) };
        for copy in 0..copies {
            let (q, k) = match data {
                Normal => (
                    random.values(b * sq * hq * d, dtype),
                    cached(&p, random.values(b * capacity * hkv * d, dtype)),
                ),
                Large => large(&p, &mut random),
            };
            let v = cached(&p, random.values(b * capacity * hkv * d, dtype));
            let q_gpu = gpu.floats(dtype, &[b, sq, hq, d], &q)?;
            let k_gpu = gpu.floats(dtype, &[b, capacity, hkv, d], &k)?;
            let v_gpu = gpu.floats(dtype, &[b, capacity, hkv, d], &v)?;
            let out = gpu.output(dtype, &[b, sq, hq, d])?;
            let splits = match call {
                Call::Decode(Some(most)) => Some(Splits::of(kv_len as u32, most)),
                _ => None,
            };
            let room = match (call, splits) {
                (Call::Prefill, _) => 0,
                (_, Some(splits)) => splits.workspace((b * sq * hq) as u64, d as u64) as usize,
                // As an application sizes it: for the capacity.
                _ => workspace_len(gpu, b, sq, hq, hkv, d, capacity),
            };
            let workspace = gpu.output(DType::F32, &[room])?;
            if copy == 0 {
                let rule = Rule::stored_in(dtype);
                prepared.checks.push(Check::new("out", &out, rule, move || cpu::attention(&q, &k, &v, &p)));
            }
            prepared.launches.push(Box::new(move |recorder| {
                let (q, k, v, out, workspace) = (&q_gpu, &k_gpu, &v_gpu, &out, &workspace);
                match call {
                    Call::Prefill => record(recorder, &Attention { q, k, v, out, kv_len, causal, scale }),
                    Call::Decode(_) => {
                        let request = AttentionDecode { q, k, v, out, kv_len, causal, scale, workspace };
                        record_split(recorder, &request, splits)
                    }
                }
            }));
        }
        Ok(prepared)
    })
}

/// Values of a cache, NaN behind `kv_len`: nothing of that may be used.
fn cached(p: &Problem, mut values: Vec<f32>) -> Vec<f32> {
    for batch in values.chunks_mut((p.capacity * p.hkv * p.d).max(1)) {
        batch[p.kv_len * p.hkv * p.d..].fill(f32::NAN);
    }
    values
}

fn large(p: &Problem, random: &mut Random) -> (Vec<f32>, Vec<f32>) {
    let mut integer = |most: usize| random.below(2 * most + 1) as f32 - most as f32;
    let q = (0..p.b * p.sq * p.hq * p.d).map(|_| integer(8)).collect();
    let mut k: Vec<f32> = (0..p.b * p.capacity * p.hkv * p.d).map(|_| integer(2000)).collect();
    let row = p.hkv * p.d;
    for pair in k.chunks_exact_mut(2 * row) {
        let (first, second) = pair.split_at_mut(row);
        second.copy_from_slice(first);
    }
    (q, cached(p, k))
}

fn cost(p: &Problem, dtype: DType) -> Cost {
    let pairs: usize = (0..p.sq).map(|i| p.visible(i)).sum::<usize>() * p.b * p.hq;
    let elements = 2 * p.b * (p.sq * p.hq + p.kv_len * p.hkv) * p.d;
    Cost { bytes: (elements * dtype.size()) as u64, flops: (4 * pairs * p.d) as u64 }
}

fn merge_cases() -> Vec<Case> {
    let shapes: &[(Level, usize, usize, usize)] = &[
        (Quick, 4, 3, 64),
        (Full, 1, 2, 8),
        (Full, 3, 31, 40),
        (Full, 2, 255, 80),
        (Full, 5, 256, 256),
        (Full, MANY, 2, 8),
        (Perf, 32, 50, 128),
    ];
    cases(shapes, |s| s.1, merge_case)
}

fn merge_case((level, rows, splits, d): (Level, usize, usize, usize), dtype: DType) -> Case {
    Case::new(level, dtype.wgsl(), format!("{rows} rows, {splits} splits × {d}"), move |gpu, copies| {
        let mut random = Random::new((rows * 7 + splits * 3 + d) as u64);
        let bytes = 4 * rows * splits * (d + 2) + rows * d * dtype.size();
        let cost = Cost { bytes: bytes as u64, flops: (2 * rows * splits * d) as u64 };
        let mut prepared = Prepared { launches: Vec::new(), checks: Vec::new(), cost };
        for copy in 0..copies {
            let mut sums = random.values(rows * splits * d, DType::F32);
            // Every fifth split of a row, and the whole of the last row, saw no key.
            let mut stats: Vec<[f32; 2]> =
                (0..rows * splits).map(|_| [4.0 * random.normal(), 1.5 + random.unit()]).collect();
            for i in (0..rows * splits).filter(|i| i % 5 == 4 || i / splits == rows - 1) {
                stats[i] = [-1e30, 0.0];
                sums[i * d..][..d].fill(0.0);
            }
            let mut all = sums.clone();
            all.extend(stats.as_flattened());
            all.resize(all.len().next_multiple_of(4), f32::NAN);
            let workspace = gpu.tensor(&[all.len()], &all)?;
            let out = gpu.output(dtype, &[rows, d])?;
            if copy == 0 {
                let rule = Rule::stored_in(dtype);
                prepared
                    .checks
                    .push(Check::new("out", &out, rule, move || cpu::merge(&sums, &stats, splits, d)));
            }
            prepared.launches.push(Box::new(move |recorder| {
                merge(recorder, &workspace, &out, rows as u32, splits as u32, d as u32)
            }));
        }
        Ok(prepared)
    })
}
