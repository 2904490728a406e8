//! What the lanes of a subgroup do together.

use naga::{CollectiveOperation, CooperativeRole, Scalar, ScalarKind, SubgroupOperation as S};

use super::LANES;
use super::ops;

/// Elements of a matrix that a lane holds.
pub const HELD: usize = 8;
const SIDE: usize = 16;

/// The row and column of the `e`th element that a lane holds, as NVIDIA spreads them (`wgsl/common/fragment.wgsl`).
fn held(lane: usize, e: usize, role: CooperativeRole) -> (usize, usize) {
    let (i, j) = (lane / 4, lane % 4);
    let (near, far) = (i + e / 4 * 8, 2 * j + e % 2 + e / 2 % 2 * 8);
    if role == CooperativeRole::B { (far, near) } else { (near, far) }
}

/// Where it is in a matrix that lies in memory.
pub fn place(lane: usize, e: usize, role: CooperativeRole, stride: usize, row_major: bool) -> usize {
    let (row, column) = held(lane, e, role);
    if row_major { row * stride + column } else { column * stride + row }
}

/// The whole matrix, [row][column], of what the lanes from `first` on hold.
fn gather(words: &[u32], threads: usize, first: usize, scalar: Scalar, role: CooperativeRole) -> Vec<f64> {
    let mut whole = vec![0.0; SIDE * SIDE];
    for lane in 0..LANES {
        for e in 0..HELD {
            whole[place(lane, e, role, SIDE, true)] = ops::float(scalar, words[e * threads + first + lane]);
        }
    }
    whole
}

/// a · b + c, of each subgroup.
pub fn multiply_add(a: &[u32], b: &[u32], c: &[u32], threads: usize, of: Scalar, to: Scalar) -> Vec<u32> {
    let mut out = vec![0; HELD * threads];
    for first in (0..threads).step_by(LANES) {
        let a = gather(a, threads, first, of, CooperativeRole::A);
        let b = gather(b, threads, first, of, CooperativeRole::B);
        for lane in 0..LANES {
            for e in 0..HELD {
                let (row, column) = held(lane, e, CooperativeRole::C);
                let at = e * threads + first + lane;
                let sum: f64 = (0..SIDE).map(|k| a[row * SIDE + k] * b[k * SIDE + column]).sum();
                out[at] = ops::rounded(to, ops::float(to, c[at]) + sum);
            }
        }
    }
    out
}

/// A reduction or scan of one component over the active lanes of each subgroup; inactive ones get a sum of nothing.
pub fn collect(
    op: S,
    how: CollectiveOperation,
    scalar: Scalar,
    x: &[u32],
    active: &[bool],
) -> Result<Vec<u32>, String> {
    use naga::{BinaryOperator as B, MathFunction as M};
    let float = scalar.kind == ScalarKind::Float;
    let join = |a: u32, b: u32| match op {
        S::All | S::And => Ok(a & b),
        S::Any | S::Or => Ok(a | b),
        S::Xor => Ok(a ^ b),
        S::Add => ops::binary(B::Add, scalar, a, b),
        S::Mul => ops::binary(B::Multiply, scalar, a, b),
        S::Min => ops::math(M::Min, scalar, [a, b, 0, 0]),
        S::Max => ops::math(M::Max, scalar, [a, b, 0, 0]),
    };
    let mut out = vec![0; x.len()];
    for first in (0..x.len()).step_by(LANES) {
        let lanes = (first..first + LANES).filter(|&t| active[t]);
        let mut so_far = None;
        for t in lanes.clone() {
            if how == CollectiveOperation::ExclusiveScan {
                out[t] = so_far.unwrap_or(match (op, float) {
                    (S::Add, _) => 0,
                    _ => return Err(format!("an exclusive scan by {op:?}")),
                });
            }
            so_far = Some(match so_far {
                None => x[t],
                Some(sum) => join(sum, x[t])?,
            });
            if how == CollectiveOperation::InclusiveScan {
                out[t] = so_far.unwrap_or(0);
            }
        }
        if how == CollectiveOperation::Reduce {
            lanes.for_each(|t| out[t] = so_far.unwrap_or(0));
        }
    }
    Ok(out)
}

/// The thread that each active one takes its value from.
///
/// # Errors
/// If one takes it from a lane that is not active, or from none.
pub fn sources(active: &[bool], lane_of: impl Fn(usize, usize) -> u32) -> Result<Vec<usize>, String> {
    let source = |t: usize| {
        let (first, lane) = (t / LANES * LANES, t % LANES);
        let from = first + lane_of(t, lane) as usize;
        match active.get(from) {
            _ if !active[t] => Ok(t),
            Some(true) if from < first + LANES => Ok(from),
            _ => Err(format!("lane {lane} takes a value from lane {}, which is not active", from - first)),
        }
    };
    (0..active.len()).map(source).collect()
}
