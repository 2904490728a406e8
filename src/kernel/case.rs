//! Cases: one declaration serves the tests, the audit and the benches.

use std::ops::Range;

use half::{bf16, f16};

use super::recorder::Recorder;
use super::spec::Cost;
use crate::device::Gpu;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Where a case is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Always, the demo's audit included: small and few.
    Quick,
    /// In `make test` and `audit`: edge shapes.
    Full,
    /// In `audit --perf`: real shapes, timed. Correctness is checked too.
    Perf,
}

/// One request to a kernel, with its expected result.
pub struct Case {
    /// Shape and options, as audit rows show them.
    pub label: String,
    /// Dtype or format, as audit rows show it.
    pub dtype: &'static str,
    pub level: Level,
    /// Makes the operands and says what to launch. `copies` > 1 asks for that many operand sets, so that a bench
    /// reads weights from memory, not from the cache; copies beyond the first are not checked.
    #[allow(clippy::type_complexity)]
    pub prepare: Box<dyn Fn(&Gpu, usize) -> Result<Prepared> + Send + Sync>,
}

impl Case {
    pub fn new(
        level: Level,
        dtype: &'static str,
        label: impl Into<String>,
        prepare: impl Fn(&Gpu, usize) -> Result<Prepared> + Send + Sync + 'static,
    ) -> Case {
        Case { label: label.into(), dtype, level, prepare: Box::new(prepare) }
    }
}

type RecordFn = Box<dyn Fn(&mut Recorder<'_, '_>) -> Result<()>>;

/// A case whose operands are on the GPU.
pub struct Prepared {
    /// One launch per operand set.
    pub launches: Vec<RecordFn>,
    /// What the first launch must have produced.
    pub checks: Vec<Check>,
    pub cost: Cost,
}

impl Prepared {
    /// Collects what `set` makes for each of `copies` operand sets; the first set's checks are kept.
    pub(crate) fn sets<L>(
        copies: usize,
        cost: Cost,
        mut set: impl FnMut() -> Result<(L, Vec<Check>)>,
    ) -> Result<Prepared>
    where
        L: Fn(&mut Recorder<'_, '_>) -> Result<()> + 'static,
    {
        let mut prepared = Prepared { launches: Vec::new(), checks: Vec::new(), cost };
        for copy in 0..copies {
            let (launch, checks) = set()?;
            prepared.launches.push(Box::new(launch));
            if copy == 0 {
                prepared.checks = checks;
            }
        }
        Ok(prepared)
    }
}

/// An output and its expected contents.
pub struct Check {
    pub name: &'static str,
    pub output: Tensor,
    /// The twin's result. Called once, after the launch.
    pub want: Box<dyn Fn() -> Vec<f64>>,
    pub rule: Rule,
    /// The flat indices that `want` gives; all elements if `None`. Real shapes are checked at some thousand places.
    pub at: Option<Vec<usize>>,
    /// The flat indices that the launch writes. Of a poisoned output all others must stay so and, where `at` is some of these, none may.
    pub written: Range<usize>,
}

impl Check {
    pub fn new(
        name: &'static str,
        output: &Tensor,
        rule: Rule,
        want: impl Fn() -> Vec<f64> + 'static,
    ) -> Check {
        Check { name, output: output.clone(), want: Box::new(want), rule, at: None, written: 0..output.len() }
    }

    /// What lies outside of these elements must stay as it was.
    pub fn written(mut self, written: Range<usize>) -> Check {
        self.written = written;
        self
    }

    /// Compares the elements at the flat indices `at` only.
    pub fn at(mut self, at: Vec<usize>) -> Check {
        self.at = Some(at);
        self
    }
}

/// How an output is compared with the twin's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// ‖out − want‖ / ‖want‖ at most this; NaN and unwritten elements fail.
    Normalised(f64),
    /// Every element equal.
    Exact,
}

impl Rule {
    /// The crate's default tolerances for results that are stored in `dtype` after f32 accumulation.
    pub fn stored_in(dtype: DType) -> Rule {
        match dtype {
            DType::F32 => Rule::Normalised(1e-5),
            DType::F16 => Rule::Normalised(5e-4),
            // Rounding to nearest makes 1.6e-3, of few elements up to 2.6e-3; truncation would make 3.2e-3.
            DType::Bf16 => Rule::Normalised(3e-3),
            DType::U32 | DType::I32 => Rule::Exact,
        }
    }
}

/// Bytes of guard zone behind every output.
pub(crate) const GUARD: usize = 256;
/// Fill of outputs and guard zones: NaN as f32 and as f16, and no plausible index.
pub(crate) const POISON: u8 = 0xff;

/// Deterministic test data (SplitMix64), and tensors made of it.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n.max(1) as u64) as usize
    }

    /// 0..n in any order.
    pub fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Roughly normal, mean 0, deviation 1: a sum of four uniforms.
    pub fn normal(&mut self) -> f32 {
        (0..4).map(|_| self.unit()).sum::<f32>() * 0.866
    }

    /// `n` roughly normal values, rounded to what `dtype` can hold so that the twin sees the GPU's inputs.
    pub fn values(&mut self, n: usize, dtype: DType) -> Vec<f32> {
        (0..n).map(|_| round_to(self.normal(), dtype)).collect()
    }
}

/// `x` as `dtype` holds it.
pub(crate) fn round_to(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::Bf16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Helpers for families' cases.
impl Gpu {
    /// A tensor of `dtype` (f32, f16 or bf16) holding `values`.
    pub(crate) fn floats(&self, dtype: DType, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        match dtype {
            DType::F16 => {
                let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                self.tensor(shape, &halves)
            }
            DType::Bf16 => {
                let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                self.tensor(shape, &halves)
            }
            _ => self.tensor(shape, values),
        }
    }

    /// An output for a case: poisoned, with a poisoned guard zone behind it.
    pub(crate) fn output(&self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let bytes = (shape.iter().product::<usize>() * dtype.size()).next_multiple_of(16) + GUARD;
        let whole = self.tensor(&[bytes / 4], &vec![u32::from_ne_bytes([POISON; 4]); bytes / 4])?;
        Ok(Tensor::new(whole.storage.clone(), dtype, shape))
    }
}
