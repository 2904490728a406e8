//! Declaration and cases of `kv_write`.

use super::{KvBlocks, KvFormat, KvShape, KvWrite, cpu, record};
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder,
    Rule, Variant, defines, params, tier,
};
use crate::tensor::DType;

params! {
    pub(super) struct KvWriteParams {
        rows: u32, kv_heads: u32, d8: u32, e8: u32, block: u32, capacity: u32, team: u32, half: u32,
        per_largest: f32,
    }
}

pub static KV_WRITE: KernelSpec = KernelSpec {
    name: "kv_write",
    family: "kv",
    replaces: &[],
    params: KvWriteParams::FIELDS,
    bindings: &[
        Binding { name: "k_new", access: Access::Read },
        Binding { name: "v_new", access: Access::Read },
        Binding { name: "slots", access: Access::Read },
        Binding { name: "k", access: Access::ReadWrite },
        Binding { name: "v", access: Access::ReadWrite },
        Binding { name: "scales", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "kv/kv_write.wgsl", || KvFormat::ALL.map(variant).into())],
    cases,
};

pub(super) const THREADS: u32 = 64;

pub(super) fn variant(format: KvFormat) -> Variant {
    Variant {
        defines: defines![
            SUBGROUP = Def::Flag(false),
            STORE = Def::Word(format.name()),
            QUANTISED = Def::Flag(format.quantised()),
            INTEGER = Def::Flag(matches!(format, KvFormat::Int8 | KvFormat::Int4)),
            // Words of eight elements.
            UNITS = Def::Num(format.row_words(8) as u32),
        ],
        needs: Needs { workgroup_storage: THREADS * 8, threads: THREADS, ..Needs::default() },
    }
}

/// (level, tokens, blocks, Hkv, rows of a block, D, Dv)
type Shape = (Level, usize, usize, usize, usize, usize, usize);

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[Shape] = &[
        (Quick, 5, 3, 2, 8, 64, 64),
        (Full, 1, 1, 1, 8, 8, 8),
        (Full, 17, 4, 3, 16, 40, 80),
        (Full, 63, 1, 1, 64, 256, 8),
        (Full, 65, 9, 5, 8, 128, 256),
        (Perf, 4096, 256, 8, 16, 128, 128),
    ];
    let mut all = Vec::new();
    for format in KvFormat::ALL {
        for dtype in [DType::F32, DType::F16] {
            all.extend(shapes.iter().map(|&shape| case(shape, format, dtype)));
        }
    }
    // More workgroups than one grid dimension holds: two rows each.
    all.push(case((Full, 1, 1, 132_000, 8, 8, 136), KvFormat::Int4, DType::F32));
    all
}

/// Tokens go to scrambled rows; one in seven is padding. Rows that no token is for must stay as they were.
fn case(shape: Shape, format: KvFormat, dtype: DType) -> Case {
    let (level, tokens, blocks, kv_heads, block, d, d_v) = shape;
    let label =
        format!("{tokens} {} rows into {blocks}×{block}, {kv_heads} heads × {d}, {d_v}", dtype.wgsl());
    Case::new(level, format.name(), label, move |gpu, copies| {
        let mut random = Random::new((tokens * 31 + d + kv_heads) as u64);
        let new_bytes = tokens * kv_heads * (d + d_v) * dtype.size();
        let stored = 4 * tokens * kv_heads * (format.row_words(d) + format.row_words(d_v));
        let cost = Cost { bytes: (new_bytes + stored) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let k = rows(&mut random, tokens * kv_heads, d, dtype);
            let v = rows(&mut random, tokens * kv_heads, d_v, dtype);
            let mut slots = random.order(blocks * block);
            slots.truncate(tokens);
            slots.iter_mut().skip(3).step_by(7).for_each(|slot| *slot = u32::MAX);
            let cache = empty(gpu, format, KvShape { blocks, kv_heads, block, d, d_v })?;
            let (k_gpu, v_gpu) = (
                gpu.floats(dtype, &[tokens, kv_heads, d], &k)?,
                gpu.floats(dtype, &[tokens, kv_heads, d_v], &v)?,
            );
            let slots_gpu = gpu.tensor(&[tokens], &slots)?;
            let place = move |at: usize, head: usize| (at / block * kv_heads + head) * block + at % block;
            let want = move |values: &[f32], d: usize, words: &dyn Fn(&[f32]) -> Vec<u32>, each: usize| {
                let mut all = vec![f64::from(u32::MAX); blocks * kv_heads * block * each];
                for (n, row) in values.chunks(d).enumerate() {
                    let slot = slots[n / kv_heads] as usize;
                    if slot < blocks * block {
                        let at = place(slot, n % kv_heads) * each;
                        let words = words(row);
                        all[at..][..each].iter_mut().zip(words).for_each(|(a, w)| *a = f64::from(w));
                    }
                }
                all
            };
            let pack = move |row: &[f32]| cpu::pack(format, row);
            let mut checks = Vec::new();
            for (name, tensor, values, d) in [("k", &cache.k, &k, d), ("v", &cache.v, &v, d_v)] {
                let (values, want) = (values.clone(), want.clone());
                let twin = move || want(&values, d, &pack, format.row_words(d));
                checks.push(Check::new(name, tensor, Rule::Exact, twin));
            }
            if format.quantised() {
                // K and V of a row next to each other, so that the reference sees both.
                let both: Vec<f32> =
                    k.chunks(d).zip(v.chunks(d_v)).flat_map(|(k, v)| [k, v].concat()).collect();
                let scales = move |row: &[f32]| {
                    let [k, v] = [&row[..d], &row[d..]].map(|row| u32::from(cpu::scale(format, row)));
                    vec![k | v << 16]
                };
                let twin = move || want(&both, d + d_v, &scales, 1);
                checks.push(Check::new("scales", &cache.scales, Rule::Exact, twin));
            }
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                record(recorder, &KvWrite { k: &k_gpu, v: &v_gpu, slots: &slots_gpu, cache: &cache })
            };
            Ok((launch, checks))
        })
    })
}

/// Rows of very different sizes, one of zeros, one of ties between codes.
fn rows(random: &mut Random, count: usize, d: usize, dtype: DType) -> Vec<f32> {
    let mut values = random.values(count * d, dtype);
    for (n, row) in values.chunks_mut(d).enumerate() {
        match n % 5 {
            1 => row.iter_mut().for_each(|x| *x *= 1024.0),
            2 => row.iter_mut().for_each(|x| *x *= 0.25),
            3 => row.fill(0.0),
            4 => row.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 15) as f32 * 0.5 - 3.5),
            _ => {}
        }
        row.iter_mut().for_each(|x| *x = crate::kernel::round_to(*x, dtype));
    }
    values
}

/// As [`KvBlocks::new`], with poisoned memory and guard zones.
pub(super) fn empty(gpu: &crate::Gpu, format: KvFormat, shape: KvShape) -> Result<KvBlocks> {
    let KvShape { blocks, kv_heads, block, d, d_v } = shape;
    let make = |words| gpu.output(DType::U32, &[blocks, kv_heads, block, words]);
    let scaled = if format.quantised() { blocks } else { 0 };
    Ok(KvBlocks {
        format,
        shape,
        k: make(format.row_words(d))?,
        v: make(format.row_words(d_v))?,
        scales: gpu.output(DType::U32, &[scaled, kv_heads, block])?,
    })
}
