//! Real shapes that are timed against peers and goals (`docs/peers.json`), beyond those that stand with the edge cases.

use super::cases::Spec;
use super::{QGEMM, QGEMV};
use crate::format::{Format, Group};
use crate::kernel::{KernelSpec, Level};
use crate::tensor::DType;

/// INT4 by 128, as Marlin has it.
fn int4(spec: &'static KernelSpec, shape: (usize, usize, usize)) -> Spec {
    Spec { group: Group::Size(128), ..Spec::new(spec, Level::Perf, Format::Int4, DType::F16, shape) }
}

/// The matrices of a model of 8 billion parameters, one row.
pub(super) fn qgemv() -> Vec<Spec> {
    let shapes = [(1, 4096, 4096), (1, 4096, 14336), (1, 8192, 8192), (1, 128_256, 4096)];
    let f16 = |shape| Spec::new(&QGEMV, Level::Perf, Format::F16, DType::F16, shape);
    let rows = [2, 4, 8].map(|m| int4(&QGEMV, (m, 14336, 4096)));
    shapes.into_iter().flat_map(|shape| [int4(&QGEMV, shape), f16(shape)]).chain(rows).collect()
}

/// Some rows, and a whole prompt.
pub(super) fn qgemm() -> Vec<Spec> {
    let fp4 =
        [2, 4, 8, 32].map(|m| Spec::new(&QGEMM, Level::Perf, Format::Fp4, DType::F16, (m, 14336, 4096)));
    let rows = [2, 4, 8, 16, 32, 64, 128, 256, 512, 4096].map(|m| int4(&QGEMM, (m, 14336, 4096)));
    use Format::{E4m3, Int3, Int8, Nf4};
    let others = [Nf4, E4m3, Int3]
        .map(|format| Spec::new(&QGEMM, Level::Perf, format, DType::F16, (512, 14336, 4096)));
    let four = [Nf4, E4m3, Int3, Int8].map(|format| Spec {
        group: Group::Size(128),
        ..Spec::new(&QGEMM, Level::Perf, format, DType::F16, (4, 14336, 4096))
    });
    rows.into_iter().chain(fp4).chain(others).chain(four).collect()
}
