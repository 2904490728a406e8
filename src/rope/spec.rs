//! Declaration and cases of `rope`.

use super::{Pairing, Rope, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule,
    Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct RopeParams {
        count: u32,
        units: u32,
        blocks: u32,
        q_heads: u32,
        k_heads: u32,
        head_units: u32,
        partner: u32,
        k_row: u32,
        mscale: f32,
    }
}

pub static ROPE: KernelSpec = KernelSpec {
    name: "rope",
    family: "rope",
    replaces: &["rope"],
    params: RopeParams::FIELDS,
    bindings: &[
        Binding { name: "q", access: Access::ReadWrite },
        Binding { name: "k", access: Access::ReadWrite },
        Binding { name: "positions", access: Access::Read },
        Binding { name: "inv_freq", access: Access::Read },
    ],
    tiers: &[tier!(Base, "rope/rope.wgsl", variants)],
    cases,
};

/// Small workgroups: a decode step has a few hundred threads in all, which should not sit on one core.
pub(super) const THREADS: u32 = 64;
/// Heads that share the angles of one thread.
pub(super) const HEADS: u32 = 4;

/// `wide`: four pairs a thread, for heads and rotary widths that are multiples of four pairs.
pub(super) fn variant(dtype: DType, pairing: Pairing, wide: bool) -> Variant {
    let interleaved = pairing == Pairing::Interleaved;
    Variant {
        defines: defines![
            T = Def::Word(dtype.wgsl()),
            UNIT = Def::Type(unit(dtype, wide)),
            VALUE = Def::Type(unit(DType::F32, wide)),
            WIDTH = Def::Num(if wide { 4 } else { 1 }),
            SHUFFLED = Def::Flag(interleaved && wide),
            STEP = Def::Num(if interleaved { 2 } else { 1 }),
            HEADS = Def::Num(HEADS),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs { f16: dtype == DType::F16, threads: THREADS, ..Needs::default() },
    }
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
            all.extend([false, true].map(|wide| variant(dtype, pairing, wide)));
        }
    }
    all
}

/// One case; `k_heads` 0 means no keys.
#[derive(Clone, Copy)]
struct Shape {
    level: Level,
    tokens: usize,
    q_heads: usize,
    k_heads: usize,
    head_dim: usize,
    rotary: usize,
    k_row: usize,
    first: u32,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shape = |level,
                 tokens,
                 [q_heads, k_heads]: [usize; 2],
                 [head_dim, rotary]: [usize; 2],
                 k_row,
                 first| {
        Shape { level, tokens, q_heads, k_heads, head_dim, rotary, k_row, first }
    };
    let shapes = [
        shape(Quick, 5, [4, 2], [64, 64], 3, 0),
        // The last positions of a 128 k context, where an angle in f32 would be off by 0.004 radians.
        shape(Quick, 3, [3, 1], [80, 32], 0, 131_069),
        shape(Full, 1, [1, 0], [2, 2], 0, 131_071),
        shape(Full, 1, [1, 0], [2, 2], 0, u32::MAX),
        shape(Full, 1, [5, 1], [8, 8], 7, 0),
        shape(Full, 2, [3, 2], [10, 6], 1, 99_999),
        shape(Full, 2, [2, 2], [12, 6], 0, 4095),
        shape(Full, 7, [9, 3], [256, 64], 0, 131_065),
        shape(Full, 31, [8, 1], [64, 62], 2, 7),
        shape(Full, 33, [32, 8], [128, 128], 5, 100_000),
        shape(Full, 2, [2, 1], [6, 0], 0, 5),
        shape(Perf, 4096, [32, 8], [128, 128], 0, 0),
    ];
    let mut cases = Vec::new();
    for dtype in [DType::F32, DType::F16] {
        for pairing in [Pairing::HalfSplit, Pairing::Interleaved] {
            cases.extend(shapes.map(|shape| case(dtype, pairing, shape)));
        }
    }
    // More than 65535 workgroups.
    let many = shape(Full, 65_537 * 64, [1, 0], [2, 2], 0, 0);
    cases.push(case(DType::F16, Pairing::HalfSplit, many));
    cases
}

fn case(dtype: DType, pairing: Pairing, shape: Shape) -> Case {
    let Shape { level, tokens, q_heads, k_heads, head_dim, rotary, k_row, first } = shape;
    let label = format!(
        "{tokens} tokens from {first}, heads {q_heads}/{k_heads}, {rotary} of {head_dim} {pairing:?}, k row {k_row}"
    );
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((tokens * 31 + head_dim) as u64);
        let frequencies = cpu::inv_freq(rotary, 10_000.0);
        let inv_freq = gpu.tensor(&[frequencies.len()], &frequencies)?;
        // Not in order, so that a token must look up its own.
        let at: Vec<u32> = (0..tokens).map(|t| first.saturating_add((tokens - 1 - t) as u32)).collect();
        let positions = gpu.tensor(&[tokens], &at)?;
        let turned = (tokens * (q_heads + k_heads) * rotary) as u64;
        let cost = Cost { bytes: 2 * turned * dtype.size() as u64, flops: 3 * turned };
        // Angles must be better than the crate's tolerance, which a few wrong pairs among many would not pass.
        let rule = if dtype == DType::F32 { Rule::Normalised(1e-6) } else { Rule::stored_in(dtype) };
        let mscale = 1.25;
        Prepared::sets(copies, cost, || {
            // One row of the cache behind the last token must stay as it is.
            let rows = k_row + tokens + 1;
            let q = random.values(tokens * q_heads * head_dim, dtype);
            let k = random.values(rows * k_heads * head_dim, dtype);
            let q_gpu = gpu.floats(dtype, &[tokens, q_heads, head_dim], &q)?;
            let k_gpu = gpu.floats(dtype, &[rows, k_heads, head_dim], &k)?;
            let (p, f) = (at.clone(), frequencies.clone());
            let want_q = move || cpu::rope(&q, q_heads, head_dim, &p, &f, pairing, mscale);
            let (p, f) = (at.clone(), frequencies.clone());
            let want_k = move || {
                let row = k_heads * head_dim;
                let (from, to) = (k_row * row, (k_row + p.len()) * row);
                let mut want: Vec<f64> = k.iter().map(|&v| f64::from(v)).collect();
                let turned = cpu::rope(&k[from..to], k_heads, head_dim, &p, &f, pairing, mscale);
                want[from..to].copy_from_slice(&turned);
                want
            };
            let mut checks = vec![Check::new("q", &q_gpu, rule, want_q)];
            if k_heads > 0 {
                checks.push(Check::new("k", &k_gpu, rule, want_k));
            }
            let (positions, inv_freq) = (positions.clone(), inv_freq.clone());
            let launch = move |r: &mut crate::Recorder<'_, '_>| {
                let k = (k_heads > 0).then_some(&k_gpu);
                let (positions, inv_freq) = (&positions, &inv_freq);
                record(r, &Rope { q: &q_gpu, k, k_row, positions, inv_freq, pairing, mscale })
            };
            Ok((launch, checks))
        })
    })
}
