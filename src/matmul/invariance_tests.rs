//! A row's result does not depend on the other rows of the call, to the last bit, within a kernel and a tier.

use super::tests::gpu;
use super::*;
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::kernel::{Random, Tier};
use crate::{Gpu, Result};

const K: usize = 96;
const N: usize = 34;

/// Records one product of rows of K, with rows of N.
type Record<'a> = &'a dyn Fn(&mut Recorder<'_, '_>, &Tensor, &Tensor) -> Result<()>;

/// One product at every tier that this adapter has and `tiers` names.
struct Product<'a> {
    name: String,
    gpu: &'a Gpu,
    tiers: &'a [Tier],
    record: Record<'a>,
}

impl Product<'_> {
    fn run(&self, tier: Tier, rows: &[f32]) -> Result<Vec<f32>> {
        let m = rows.len() / K;
        let a = self.gpu.floats(DType::F16, &[m, K], rows)?;
        let out = self.gpu.alloc(DType::F32, &[m, N])?;
        self.gpu.run(|recorder| {
            recorder.only(Some(tier));
            (self.record)(recorder, &a, &out)
        })?;
        self.gpu.read(&out)
    }

    fn tiers(&self) -> impl Iterator<Item = Tier> {
        let has = |tier: &Tier| tier.needs().is_none_or(|needs| self.gpu.caps().has(needs));
        self.tiers.iter().copied().filter(has)
    }

    /// The middle one of `m` rows keeps its bits when the others change, to NaN among other things.
    fn ignores_other_rows(&self, m: usize) -> Result<()> {
        let random = &mut Random::new(m as u64);
        let row = random.values(K, DType::F16);
        let at = m / 2;
        for tier in self.tiers() {
            let among = |mut others: Vec<f32>| -> Result<Vec<u32>> {
                others[at * K..][..K].copy_from_slice(&row);
                let out = self.run(tier, &others)?;
                Ok(out[at * N..][..N].iter().map(|v| v.to_bits()).collect())
            };
            let want = among(random.values(m * K, DType::F16))?;
            for others in [random.values(m * K, DType::F16), vec![0.0; m * K], vec![f32::NAN; m * K]] {
                let name = (&self.name, tier.name(), m);
                assert_eq!(among(others)?, want, "{name:?}");
            }
        }
        Ok(())
    }

    /// The first row has the same bits in calls of any of these numbers of rows.
    fn ignores_their_number(&self, numbers: &[usize]) -> Result<()> {
        let rows = Random::new(3).values(numbers.iter().max().unwrap_or(&1) * K, DType::F16);
        for tier in self.tiers() {
            let first = |m: usize| self.run(tier, &rows[..m * K]).map(|out| out[..N].to_vec());
            let want = first(numbers[0])?;
            for &m in numbers {
                assert_eq!(first(m)?, want, "{} [{}], {m} rows", self.name, tier.name());
            }
        }
        Ok(())
    }
}

fn weight(gpu: &Gpu, format: Format, n: usize) -> Result<Weight> {
    let values = Random::new(9).values(n * K, DType::F32);
    let group = if format.is_quantised() { Group::Size(32) } else { Group::WholeK };
    Weight::upload(gpu, &PackedMatrix::quantise(&values, n, K, format, group, ScaleSearch::AbsMax)?)
}

const ALL: &[Tier] = &[Tier::Base, Tier::Subgroup];
const TILED: &[Tier] = &[Tier::Base, Tier::Coop];

#[test]
fn products_with_weights() -> Result<()> {
    let gpu = &gpu();
    for format in [Format::F16, Format::Int4Zero] {
        let (one, two) = (&weight(gpu, format, N)?, &weight(gpu, format, 2 * N)?);
        let gains = &gpu.floats(DType::F16, &[K], &Random::new(4).values(K, DType::F16))?;
        let norm = Norm { weight: gains, eps: 1e-3, workspace: None };
        let tiled = if format.is_quantised() { &QGEMM } else { &GEMM };
        let product = |spec: &'static KernelSpec, tiers, record| Product {
            name: format!("{} of {}", spec.name, format.name()),
            gpu,
            tiers,
            record,
        };
        let plain = |spec: &'static KernelSpec| {
            move |r: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor| {
                record_with(r, spec, &Linear::new(a, one, out))
            }
        };
        let normed = |r: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor| {
            record_with(r, &NORM_QGEMV, &Linear { norm: Some(norm), ..Linear::new(a, one, out) })
        };
        let gated = |spec: &'static KernelSpec| {
            move |r: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor| {
                let activation = Activation::Silu;
                gate_up_with(r, spec, &GateUp { a, weight: two, out, activation, norm: None })
            }
        };
        let (qgemv, gemm) = (plain(&QGEMV), plain(tiled));
        let (gate_up_gemv, gate_up) = (gated(&GATE_UP_GEMV), gated(&GATE_UP));
        for m in [2, 7] {
            product(&QGEMV, ALL, &qgemv).ignores_other_rows(m)?;
            product(&NORM_QGEMV, ALL, &normed).ignores_other_rows(m)?;
            product(&GATE_UP_GEMV, ALL, &gate_up_gemv).ignores_other_rows(m)?;
        }
        for m in [9, 16, 17, 33, 64, 130] {
            product(tiled, TILED, &gemm).ignores_other_rows(m)?;
            product(&GATE_UP, TILED, &gate_up).ignores_other_rows(m)?;
        }
        // Other tiers choose tiles, and with them the order of the sums, by the number of rows.
        product(tiled, &[Tier::Base], &gemm).ignores_their_number(&[9, 16, 17, 64, 65, 130])?;
        product(&QGEMV, &[Tier::Base], &qgemv).ignores_their_number(&[1, 2, 3, 4, 5, 8])?;
    }
    Ok(())
}

#[test]
fn batches() -> Result<()> {
    let gpu = &gpu();
    for (layout, shape) in [(Layout::Nk, [N, K]), (Layout::Kn, [K, N])] {
        let w = &gpu.floats(DType::F16, &shape, &Random::new(8).values(N * K, DType::F16))?;
        let record = |r: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor| {
            let one = out.reshape(&[1, out.rows(), N])?;
            record_batched(r, &Batched::new(a, w, layout, &one))
        };
        let each = |r: &mut Recorder<'_, '_>, a: &Tensor, out: &Tensor| {
            let each = out.reshape(&[out.rows(), 1, N])?;
            record_batched(r, &Batched::new(a, w, layout, &each))
        };
        for record in [&record as Record<'_>, &each] {
            let product = Product { name: format!("{layout:?}"), gpu, tiers: &[Tier::Base], record };
            for m in [2, 16, 17, 64, 130] {
                product.ignores_other_rows(m)?;
            }
            // Across the switch from the short tile to the tall one.
            product.ignores_their_number(&[1, 2, 15, 16, 17, 64, 65, 130])?;
        }
    }
    Ok(())
}
