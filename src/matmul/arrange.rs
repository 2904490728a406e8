//! `arrange_rows`: rows of activations in the order in which the Spirv tier of the products takes them.

use half::f16;

use super::plan::Arrangement;
use crate::device::Gpu;
use crate::error::Result;
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Launch, Level, Needs, Params, Prepared, Random,
    Recorder, Rule, Variant, defines, index32, params, tier,
};
use crate::tensor::{DType, Tensor};

params! {
    /// See `wgsl/matmul/arrange_rows.wgsl`.
    struct ArrangeParams { m: u32, k: u32, padded_k: u32 }
}

pub static ARRANGE_ROWS: KernelSpec = KernelSpec {
    name: "arrange_rows",
    family: "matmul",
    replaces: &[],
    params: ArrangeParams::FIELDS,
    bindings: &[
        Binding { name: "a", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "matmul/arrange_rows.wgsl", variants)],
    cases,
};

const THREADS: u32 = 64;
/// Rows of a block.
const ROWS: usize = 8;
/// What a lane may take of a slice: packets of the formats.
const EACH: [u32; 2] = [16, 32];

/// Of the arranged copy of `m` rows of `k` columns.
pub(super) fn shape(m: usize, k: usize, step: usize) -> [usize; 2] {
    [m.next_multiple_of(ROWS), k.next_multiple_of(step)]
}

/// Records the launch that arranges `a`, \[M, K\] in f16 or bf16, in memory of the [`Gpu`]'s own, and gives that.
pub(super) fn record(recorder: &mut Recorder<'_, '_>, a: &Tensor, order: Arrangement) -> Result<Tensor> {
    let out = recorder.gpu().scratch(DType::F16, &shape(a.rows(), a.cols(), order.step))?;
    recorder.at_any_tier(|recorder| launch(recorder, a, &out, order))?;
    Ok(out)
}

fn launch(recorder: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor, order: Arrangement) -> Result<()> {
    const KERNEL: &str = ARRANGE_ROWS.name;
    let variant = variant(a.dtype(), order.each, order.paired);
    let (tier, defines, needs) = recorder.choose(&ARRANGE_ROWS, |_| Ok(variant.clone().into()))?;
    recorder.launch(Launch {
        spec: &ARRANGE_ROWS,
        tier,
        defines,
        needs,
        binds: &[a, out],
        params: ArrangeParams {
            m: index32(KERNEL, "rows", a.rows())?,
            k: index32(KERNEL, "columns", a.cols())?,
            padded_k: index32(KERNEL, "out", out.cols())?,
        },
        groups: (out.len() as u64).div_ceil(u64::from(8 * THREADS)),
    })
}

fn variant(dtype: DType, each: u32, paired: bool) -> Variant {
    Variant {
        defines: defines![
            TA = Def::Word(dtype.wgsl()),
            ROWS = Def::Word("padded"),
            EACH = Def::Num(each),
            PAIRED = Def::Flag(paired),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs { threads: THREADS, ..Needs::default() },
    }
}

fn variants() -> Vec<Variant> {
    let orders = EACH.into_iter().flat_map(|each| [false, true].map(|paired| (each, paired)));
    orders.flat_map(|(each, paired)| [DType::F16, DType::Bf16].map(|d| variant(d, each, paired))).collect()
}

/// The reference: where each element of the result, by its place, comes from: (row, column).
fn source(place: usize, padded_k: usize, order: Arrangement) -> (usize, usize) {
    let each = order.each as usize;
    let (block, place) = (place / (ROWS * padded_k), place % (ROWS * padded_k));
    let (slice, place) = (place / (ROWS * 4 * each), place % (ROWS * 4 * each));
    let (eight, place) = (place / (ROWS * 4 * 8), place % (ROWS * 4 * 8));
    let (row, place) = (place / (4 * 8), place % (4 * 8));
    let (lane, nth) = (place / 8, place % 8);
    let nth = match (order.paired, each) {
        (true, 16) => [0, 2, 1, 3, 4, 6, 5, 7][nth],
        (true, _) => [0, 4, 1, 5, 2, 6, 3, 7][nth],
        (false, _) => nth,
    };
    (block * ROWS + row, (slice * 4 + lane) * each + eight * 8 + nth)
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    // (rows, columns), about a block, a slice of either width and a step of four of these.
    let shapes = [
        (Quick, 1, 8),
        (Quick, 17, 520),
        (Full, 8, 64),
        (Full, 9, 256),
        (Full, 33, 264),
        (Full, 64, 1016),
        (Perf, 64, 4096),
    ];
    let mut cases = Vec::new();
    for dtype in [DType::F16, DType::Bf16] {
        for each in EACH {
            for paired in [false, true] {
                let order = Arrangement { each, paired, step: 16 * each as usize };
                cases.extend(shapes.map(|(level, m, k)| case(level, dtype, (m, k), order)));
            }
        }
    }
    cases
}

fn case(level: Level, dtype: DType, (m, k): (usize, usize), order: Arrangement) -> Case {
    let Arrangement { each, paired, step } = order;
    let label = format!("{m}×{k} by {each}{}", if paired { ", paired" } else { "" });
    Case::new(level, dtype.wgsl(), label, move |gpu: &Gpu, copies| {
        let mut random = Random::new((m * 31 + k * 3 + each as usize) as u64);
        let [rows, padded_k] = shape(m, k, step);
        let cost = Cost { bytes: 2 * (m * k + rows * padded_k) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let mut values = random.values(m * k, dtype);
            // Beyond the halves, where bf16 is.
            (values[0], values[k / 2]) = if dtype == DType::Bf16 { (-1e5, 7e4) } else { (-6e4, 6e4) };
            let a = gpu.floats(dtype, &[m, k], &values)?;
            let out = gpu.output(DType::F16, &[rows, padded_k])?;
            let want = move || {
                let at = (0..rows * padded_k).map(|place| source(place, padded_k, order));
                let value =
                    |(row, column)| if row < m && column < k { values[row * k + column] } else { 0.0 };
                at.map(|at| f16::from_f32(value(at).clamp(-65504.0, 65504.0)).to_f64()).collect()
            };
            let check = Check::new("out", &out, Rule::Exact, want);
            Ok((move |recorder: &mut Recorder<'_, '_>| launch(recorder, &a, &out, order), vec![check]))
        })
    })
}
