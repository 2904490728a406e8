//! References in f64.

use rayon::prelude::*;

use super::{Activation, Layout};

/// The activation functions.
pub fn activate(x: f64, kind: Activation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::None => x,
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::GeluSigmoid => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
    }
}

/// Error function: its Maclaurin series up to 3, 1 minus the continued fraction of erfc beyond.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let magnitude = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..60).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    };
    magnitude.copysign(x)
}

/// Selected elements (flat indices into \[M, N\]) of activation(a · wᵀ + bias) + residual.
pub fn linear<A: Copy + Into<f64> + Sync>(
    (a, w): (&[A], &[f32]),
    (n, k): (usize, usize),
    bias: Option<&[f32]>,
    activation: Activation,
    residual: Option<&[f32]>,
    at: &[usize],
) -> Vec<f64> {
    at.par_iter()
        .map(|&i| {
            let mut sum = dot(&a[i / n * k..][..k], &w[i % n * k..][..k]);
            sum += bias.map_or(0.0, |b| f64::from(b[i % n]));
            activate(sum, activation) + residual.map_or(0.0, |r| f64::from(r[i]))
        })
        .collect()
}

/// Selected elements of activation(a · gateᵀ) · (a · upᵀ).
pub fn gate_up<A: Copy + Into<f64> + Sync>(
    (a, gate, up): (&[A], &[f32], &[f32]),
    (n, k): (usize, usize),
    activation: Activation,
    at: &[usize],
) -> Vec<f64> {
    at.par_iter()
        .map(|&i| {
            let (row, gate, up) = (&a[i / n * k..][..k], &gate[i % n * k..][..k], &up[i % n * k..][..k]);
            activate(dot(row, gate), activation) * dot(row, up)
        })
        .collect()
}

/// All elements of (activation(a · gateᵀ) · (a · upᵀ)) · downᵀ, with rows of `k` → `f` → `n`.
pub fn mlp<A: Copy + Into<f64> + Sync>(
    a: &[A],
    (gate, up, down): (&[f32], &[f32], &[f32]),
    (n, f, k): (usize, usize, usize),
    activation: Activation,
) -> Vec<f64> {
    let m = a.len() / k.max(1);
    let all = |width: usize| (0..m * width).collect::<Vec<_>>();
    let gated = gate_up((a, gate, up), (f, k), activation, &all(f));
    linear((&gated, down), (n, f), None, Activation::None, None, &all(n))
}

/// Where [`batched`] finds its operands.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// M, N and K.
    pub shape: (usize, usize, usize),
    pub layout: Layout,
    pub a_stride: usize,
    pub w_stride: usize,
}

/// Selected elements (flat indices into \[B, M, N\]) of the products of batches.
pub fn batched((a, w): (&[f32], &[f32]), batches: &Batches, at: &[usize]) -> Vec<f64> {
    let (m, n, k) = batches.shape;
    at.par_iter()
        .map(|&i| {
            let (batch, row, column) = (i / n / m, i / n % m, i % n);
            let (a, w) = (&a[batch * batches.a_stride..], &w[batch * batches.w_stride..]);
            let product = |j: usize| {
                let from = if batches.layout == Layout::Nk { column * k + j } else { j * n + column };
                f64::from(a[row * k + j]) * f64::from(w[from])
            };
            (0..k).map(product).sum()
        })
        .collect()
}

fn dot<A: Copy + Into<f64>>(a: &[A], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| a.into() * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_forms() {
        // erf from tables (Abramowitz & Stegun, table 7.1).
        for (x, want) in [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)]
        {
            assert!((erf(x) - want).abs() < 1e-10 && (erf(-x) + want).abs() < 1e-10);
        }
        assert!((erf(2.999_999) - erf(3.000_001)).abs() < 1e-8 && erf(6.0) <= 1.0);
        let x = 1.3;
        assert!((activate(x, Activation::Gelu) - activate(x, Activation::GeluTanh)).abs() < 1e-3);
        assert!((activate(x, Activation::Gelu) - activate(x, Activation::GeluSigmoid)).abs() < 2e-2);
        assert!((activate(0.0, Activation::Silu)).abs() < 1e-300 && activate(-2.0, Activation::Relu) == 0.0);
        // [1 2; 3 4] · [5 6]ᵀ = [17; 39]
        let got =
            linear((&[1f32, 2., 3., 4.], &[5., 6.]), (1, 2), Some(&[1.0]), Activation::None, None, &[0, 1]);
        assert_eq!(got, [18.0, 40.0]);
        let got = gate_up((&[1f32, 2.], &[1., 0.], &[0., 1.]), (1, 2), Activation::None, &[0]);
        assert_eq!(got, [2.0]);
        // Both halves of [1 2] swapped and multiplied, (2·1, 1·2), then summed: two tokens, the second doubled.
        let (gate, up, down) = (&[0., 1., 1., 0.], &[1., 0., 0., 1.], &[1., 1.]);
        let got = mlp(&[1f32, 2., 2., 4.], (gate, up, down), (1, 2, 2), Activation::None);
        assert_eq!(got, [4.0, 16.0]);
        // [1 2; 3 4] · [5 6; 7 8] and its transpose; then the second row of a as a batch of its own, with one w.
        let (a, w) = (&[1., 2., 3., 4.], &[5., 6., 7., 8.]);
        let one = Batches { shape: (2, 2, 2), layout: Layout::Kn, a_stride: 0, w_stride: 0 };
        assert_eq!(batched((a, w), &one, &[0, 1, 2, 3]), [19.0, 22.0, 43.0, 50.0]);
        assert_eq!(batched((a, w), &Batches { layout: Layout::Nk, ..one }, &[1, 2]), [23.0, 39.0]);
        let two = Batches { shape: (1, 2, 2), a_stride: 2, ..one };
        assert_eq!(batched((a, w), &two, &[2, 3]), [43.0, 50.0]);
    }
}
