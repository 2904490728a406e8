//! Declaration and cases of `elementwise`.

use super::{Elementwise, Op, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule,
    Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct ElementwiseParams { count: u32, scale: f32 }
}

pub static ELEMENTWISE: KernelSpec = KernelSpec {
    name: "elementwise",
    family: "elementwise",
    replaces: &[],
    params: ElementwiseParams::FIELDS,
    bindings: &[
        Binding { name: "a", access: Access::ReadWrite },
        Binding { name: "b", access: Access::ReadWrite },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "elementwise/elementwise.wgsl", variants)],
    cases,
};

pub(super) const THREADS: u32 = 256;

/// The operation without its operands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Add,
    Mul,
    ScaledCopy,
    SoftCap,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Add, Kind::Mul, Kind::ScaledCopy, Kind::SoftCap];

    fn name(self) -> &'static str {
        match self {
            Kind::Add => "add",
            Kind::Mul => "mul",
            Kind::ScaledCopy => "scaled_copy",
            Kind::SoftCap => "soft_cap",
        }
    }

    fn inputs(self) -> usize {
        if matches!(self, Kind::Add | Kind::Mul) { 2 } else { 1 }
    }
}

/// `wide`: four elements a thread, for lengths that are a multiple of four.
pub(super) fn variant(kind: Kind, dtype: DType, out: DType, wide: bool) -> Variant {
    Variant {
        defines: defines![
            OP = Def::Word(kind.name()),
            T = Def::Word(dtype.wgsl()),
            UNIT = Def::Type(unit(dtype, wide)),
            OUT = Def::Word(out.wgsl()),
            OUT_UNIT = Def::Type(unit(out, wide)),
            VALUE = Def::Type(unit(DType::F32, wide)),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs { f16: dtype == DType::F16 || out == DType::F16, threads: THREADS, ..Needs::default() },
    }
}

/// Every legal (operation, input dtype, output dtype).
fn combinations() -> impl Iterator<Item = (Kind, DType, DType)> {
    let dtypes = [DType::F32, DType::F16];
    let all = Kind::ALL.into_iter().flat_map(move |k| dtypes.into_iter().map(move |a| (k, a)));
    all.flat_map(move |(kind, a)| dtypes.into_iter().map(move |out| (kind, a, out)))
        .filter(|&(kind, a, out)| kind == Kind::ScaledCopy || a == out)
}

fn variants() -> Vec<Variant> {
    combinations().flat_map(|(kind, a, out)| [false, true].map(|wide| variant(kind, a, out, wide))).collect()
}

/// Where the result goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    New,
    A,
    B,
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let mut cases = Vec::new();
    for (kind, dtype, out) in combinations() {
        cases.push(case(Quick, kind, dtype, out, &[7, 36], Target::New));
        cases.push(case(Quick, kind, dtype, out, &[331], Target::New));
        for len in [0, 1, 2, 4, 5, 255, 256, 257, 1020, 1024, 1028, 100_003] {
            cases.push(case(Full, kind, dtype, out, &[len], Target::New));
        }
        if dtype == out {
            cases.push(case(Full, kind, dtype, out, &[3, 77], Target::A));
        }
        if kind.inputs() == 2 {
            cases.push(case(Full, kind, dtype, out, &[5, 4, 8], Target::B));
        }
        cases.push(case(Perf, kind, dtype, out, &[4096, 14_336], Target::New));
    }
    // More than 65535 workgroups.
    cases.push(case(Full, Kind::Add, DType::F16, DType::F16, &[65_537 * 256 + 1], Target::New));
    cases
}

fn case(level: Level, kind: Kind, dtype: DType, out: DType, shape: &[usize], target: Target) -> Case {
    let place = match target {
        Target::New => "",
        Target::A => ", in place of a",
        Target::B => ", in place of b",
    };
    let label = format!("{} {shape:?} to {}{place}", kind.name(), out.wgsl());
    let shape = shape.to_vec();
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let len: usize = shape.iter().product();
        let mut random = Random::new(len as u64 * 31 + 7);
        let inputs = kind.inputs();
        let bytes = len * (inputs * dtype.size() + out.size());
        let cost = Cost { bytes: bytes as u64, flops: len as u64 };
        Prepared::sets(copies, cost, || {
            let scale = if kind == Kind::SoftCap { 0.37 } else { -0.37 };
            let mut a = random.values(len, dtype);
            if kind == Kind::SoftCap {
                // Some far past the cap, as f16 has them too.
                a.iter_mut().step_by(5).for_each(|a| *a *= 4096.0);
            }
            let b = if inputs == 2 { random.values(len, dtype) } else { Vec::new() };
            let a_gpu = gpu.floats(dtype, &shape, &a)?;
            let b_gpu = if inputs == 2 { gpu.floats(dtype, &shape, &b)? } else { a_gpu.clone() };
            let out = match target {
                Target::New => gpu.output(out, &shape)?,
                Target::A => a_gpu.clone(),
                Target::B => b_gpu.clone(),
            };
            let want = move || match kind {
                Kind::Add => cpu::add(&a, &b),
                Kind::Mul => cpu::mul(&a, &b),
                Kind::ScaledCopy => cpu::scaled_copy(&a, scale),
                Kind::SoftCap => cpu::soft_cap(&a, scale),
            };
            let check = Check::new("out", &out, Rule::stored_in(out.dtype()), want);
            let launch = move |r: &mut crate::Recorder<'_, '_>| {
                let op = match kind {
                    Kind::Add => Op::Add(&b_gpu),
                    Kind::Mul => Op::Mul(&b_gpu),
                    Kind::ScaledCopy => Op::ScaledCopy(scale),
                    Kind::SoftCap => Op::SoftCap(scale),
                };
                record(r, &Elementwise { a: &a_gpu, op, out: &out })
            };
            Ok((launch, vec![check]))
        })
    })
}
