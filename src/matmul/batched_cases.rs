//! Cases of `gemm_batched`.

use super::cases::places;
use super::{Activation, Batched, Layout, cpu, record_batched};
use crate::kernel::{Case, Check, Cost, Level, Prepared, Random, Recorder, Rule};
use crate::tensor::DType;
use Layout::{Kn, Nk};
use Level::{Full, Perf, Quick};

/// One batch of products.
#[derive(Clone, Copy)]
struct Spec {
    level: Level,
    /// Of a, w and out.
    dtypes: [DType; 3],
    layout: Layout,
    /// B, M, N, K.
    shape: [usize; 4],
    /// All batches share a, and share w.
    shared: [bool; 2],
    /// Elements between the batches of a and of w.
    gaps: [usize; 2],
    bias: Bias,
    activation: Activation,
    residual: bool,
    scale: f32,
}

#[derive(Clone, Copy, PartialEq)]
enum Bias {
    None,
    OfAll,
    OfEach,
}

impl Spec {
    fn new(level: Level, dtypes: [DType; 3], layout: Layout, shape: [usize; 4]) -> Spec {
        Spec {
            level,
            dtypes,
            layout,
            shape,
            shared: [false; 2],
            gaps: [0; 2],
            bias: Bias::None,
            activation: Activation::None,
            residual: false,
            scale: 1.0,
        }
    }

    fn label(&self) -> String {
        let [b, m, n, k] = self.shape;
        let mut label = format!("{b} × {m}×{k}→{n} {}", if self.layout == Nk { "A·Wᵀ" } else { "A·B" });
        let [a, w, out] = self.dtypes.map(DType::wgsl);
        if a != w || w != out {
            label += &format!(", {a} · {w} → {out}");
        }
        for (name, shared, gap) in [("a", self.shared[0], self.gaps[0]), ("w", self.shared[1], self.gaps[1])]
        {
            if shared {
                label += &format!(", one {name}");
            } else if gap != 0 {
                label += &format!(", gap of {gap} in {name}");
            }
        }
        if self.scale != 1.0 {
            label += &format!(" · {}", self.scale);
        }
        label += match self.bias {
            Bias::None => "",
            Bias::OfAll => " +bias",
            Bias::OfEach => " +biases",
        };
        if self.activation != Activation::None {
            label += &format!(" {:?}", self.activation);
        }
        if self.residual {
            label += " +residual";
        }
        label
    }

    fn into_case(self) -> Case {
        Case::new(self.level, self.dtypes[0].wgsl(), self.label(), move |gpu, copies| {
            let [b, m, n, k] = self.shape;
            let [a_type, w_type, o_type] = self.dtypes;
            let mut random = Random::new((b * 3 + m * 7 + n * 31 + k) as u64);
            let stride = |i: usize, size: usize| if self.shared[i] { 0 } else { size + self.gaps[i] };
            let (a_stride, w_stride) = (stride(0, m * k), stride(1, n * k));
            let w_cols = if self.layout == Nk { k } else { n };
            // Up to the last batch's end, in whole rows.
            let rows = |stride: usize, size: usize, cols: usize| {
                ((b.max(1) - 1) * stride + size).div_ceil(cols.max(1))
            };
            let (a_rows, w_rows) = (rows(a_stride, m * k, k), rows(w_stride, n * k, w_cols));
            let a = random.values(a_rows * k, a_type);
            let a_gpu = gpu.floats(a_type, &[a_rows, k], &a)?;
            let biases = match self.bias {
                Bias::None => None,
                Bias::OfAll => Some(vec![n]),
                Bias::OfEach => Some(vec![b, n]),
            };
            let bias = biases.map(|shape| (random.values(shape.iter().product(), o_type), shape));
            let bias_gpu = bias.as_ref().map(|(v, shape)| gpu.floats(o_type, shape, v)).transpose()?;
            let residual = self.residual.then(|| random.values(b * m * n, o_type));
            let residual_gpu = residual.as_ref().map(|r| gpu.floats(o_type, &[b, m, n], r)).transpose()?;
            let w_size = w_rows * w_cols;
            let bytes = a_gpu.bytes() + (w_size * w_type.size() + b * m * n * o_type.size()) as u64;
            Prepared::sets(copies, Cost { bytes, flops: 2 * (b * m * n * k) as u64 }, || {
                let w = random.values(w_size, w_type);
                let w_gpu = gpu.floats(w_type, &[w_rows, w_cols], &w)?;
                let out = gpu.output(o_type, &[b, m, n])?;
                let at = places(&mut random, b * m * n);
                let written = at.clone();
                let (a, bias, residual) = (a.clone(), bias.clone(), residual.clone());
                let want = move || {
                    let batches = cpu::Batches { shape: (m, n, k), layout: self.layout, a_stride, w_stride };
                    let mut values = cpu::batched((&a, &w), &batches, &at);
                    for (value, &i) in values.iter_mut().zip(&at) {
                        let column = if self.bias == Bias::OfEach { i / (m * n) * n + i % n } else { i % n };
                        let bias = bias.as_ref().map_or(0.0, |(bias, _)| f64::from(bias[column]));
                        let sum = cpu::activate(*value * f64::from(self.scale) + bias, self.activation);
                        *value = sum + residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
                    }
                    values
                };
                let check = Check::new("out", &out, Rule::stored_in(o_type), want).at(written);
                let (a, bias, residual) = (a_gpu.clone(), bias_gpu.clone(), residual_gpu.clone());
                let launch = move |recorder: &mut Recorder<'_, '_>| {
                    let request = Batched {
                        a_stride,
                        w_stride,
                        bias: bias.as_ref(),
                        activation: self.activation,
                        residual: residual.as_ref(),
                        scale: self.scale,
                        ..Batched::new(&a, &w_gpu, self.layout, &out)
                    };
                    record_batched(recorder, &request)
                };
                Ok((launch, vec![check]))
            })
        })
    }
}

/// Around the tiles of 16 and 64 rows, of 64 columns, and the steps of 32; a long K; nothing at all.
const EDGES: [[usize; 4]; 15] = [
    [1, 1, 2, 1],
    [3, 1, 64, 32],
    [2, 15, 66, 31],
    [2, 16, 62, 33],
    [3, 17, 64, 64],
    [2, 63, 66, 65],
    [2, 64, 64, 32],
    [2, 65, 128, 36],
    [1, 130, 130, 30],
    [5, 33, 20, 100],
    [1, 3, 20, 28672],
    [2, 20, 24, 0],
    [0, 4, 8, 16],
    [2, 0, 8, 16],
    [2, 4, 0, 16],
];

/// Around the tiles of cooperative matrices, of batches enough that the largest are taken.
const COOP_EDGES: [[usize; 4]; 6] = [
    [96, 127, 128, 64],
    [48, 129, 136, 40],
    [33, 129, 126, 37],
    [64, 63, 130, 32],
    [64, 65, 62, 33],
    [2, 33, 40, 384],
];

const FEW_EDGES: [[usize; 4]; 6] = [
    [2, 1, 120, 56],
    [2, 2, 128, 64],
    [3, 3, 136, 72],
    [70, 4, 136, 1032],
    [2, 1, 24, 1024],
    [2, 1, 40, 520],
];

pub(super) fn cases() -> Vec<Case> {
    // More than 65535 workgroups: the grid folds.
    let mut all = vec![Spec::new(Full, [DType::F16; 3], Nk, [66_000, 1, 2, 3])];
    for layout in [Nk, Kn] {
        for dtype in super::batched_spec::KINDS {
            let new = |level, shape| Spec::new(level, [*dtype; 3], layout, shape);
            all.push(new(Quick, [3, 20, 40, 48]));
            all.extend(EDGES.map(|shape| new(Full, shape)));
            if *dtype != DType::F32 {
                all.extend(COOP_EDGES.map(|shape| new(Full, shape)));
                // Rows of a, of w, of both start on 16 bytes.
                for gaps in [[8, 3], [1, 16], [8, 16]] {
                    all.push(Spec { gaps, bias: Bias::OfEach, ..new(Full, [3, 18, 72, 40]) });
                }
                all.push(Spec { residual: true, bias: Bias::OfAll, ..new(Full, [2, 20, 72, 41]) });
            }
            // Few rows of halves that start on 16 bytes: around the columns of a workgroup, and the steps of K.
            if *dtype != DType::F32 {
                all.extend(FEW_EDGES.map(|shape| new(Full, shape)));
            }
            for shared in [[true, false], [false, true], [true, true]] {
                all.push(Spec { shared, ..new(Full, [3, 18, 70, 40]) });
            }
            // Batches from any element on, and half over one another.
            all.push(Spec { gaps: [40, 44], ..new(Full, [3, 7, 44, 40]) });
            all.push(Spec { gaps: [3, 5], ..new(Full, [4, 17, 68, 36]) });
            all.extend(Activation::ALL[1..].iter().map(|&activation| Spec {
                activation,
                bias: if layout == Nk { Bias::OfEach } else { Bias::OfAll },
                residual: true,
                scale: -0.375,
                ..new(Full, [3, 18, 66, 24])
            }));
            all.push(Spec { bias: Bias::OfEach, residual: true, ..new(Full, [2, 3, 68, 24]) });
            // Every other dtype at the other operands.
            for other in super::batched_spec::KINDS.iter().filter(|d| *d != dtype) {
                for dtypes in [[*dtype, *other, *dtype], [*dtype, *other, *other], [*dtype, *dtype, *other]] {
                    all.push(Spec::new(Full, dtypes, layout, [2, 20, 68, 36]));
                    all.push(Spec::new(Full, dtypes, layout, [2, 9, 66, 37]));
                }
            }
        }
        // bf16 outputs have even rows; the others need not.
        for dtype in [DType::F32, DType::F16] {
            for shape in [[2, 17, 65, 33], [3, 1, 1, 40], [2, 65, 63, 64]] {
                let spec = Spec::new(Full, [dtype; 3], layout, shape);
                all.push(spec);
                all.push(Spec { bias: Bias::OfEach, residual: true, ..spec });
            }
        }
        // Attention's scores and values, and a product of single rows.
        for [b, m, s, d] in [[32, 512, 512, 128], [32, 1, 4096, 128], [8, 2048, 2048, 2048]] {
            let shape = if layout == Nk { [b, m, s, d] } else { [b, m, d, s] };
            all.push(Spec::new(Perf, [DType::F16; 3], layout, shape));
        }
    }
    all.into_iter().map(Spec::into_case).collect()
}
