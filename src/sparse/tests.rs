//! The pruner, the packer, the choice of kernels, and wrong calls.

use half::f16;

use super::plan::kernel_for;
use super::{Compress, FORMATS, Pattern, SparseLinear, SparseMatrix, SparseWeight, prune, record};
use crate::format::{Format, Group, PackedMatrix, ScaleSearch};
use crate::kernel::Random;
use crate::{DType, Error, Gpu};

fn how(pattern: Pattern, format: Format, group: Group) -> Compress<'static> {
    Compress { pattern, format, group, search: ScaleSearch::AbsMax, importance: None }
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().map_or("accepted".to_string(), |e| e.to_string())
}

fn expect(got: String, want: &str) {
    assert!(got.contains(want), "{got} lacks {want}");
}

/// The largest sum of scores that n of a block can have, by trying all subsets.
fn best(block: &[f32], kept: usize) -> f64 {
    let subsets = (0u32..1 << block.len()).filter(|set| set.count_ones() as usize == kept);
    let sum = |set: u32| {
        let inside = (0..block.len()).filter(|i| set >> i & 1 == 1);
        inside.map(|i| f64::from(block[i].abs())).sum::<f64>()
    };
    subsets.map(sum).fold(0.0, f64::max)
}

#[test]
fn the_pruner_keeps_the_best_of_all_subsets() {
    let mut random = Random::new(7);
    for pattern in Pattern::ALL {
        let dense: Vec<f32> = (0..6 * 40).map(|_| random.normal()).collect();
        let mut pruned = dense.clone();
        prune(&mut pruned, 6, 40, pattern, None).expect("legal");
        for (before, after) in dense.chunks(pattern.block()).zip(pruned.chunks(pattern.block())) {
            assert!(before.iter().zip(after).all(|(b, a)| *a == 0.0 || a == b), "{before:?} → {after:?}");
            assert_eq!(after.iter().filter(|v| **v != 0.0).count(), pattern.kept());
            let left: f64 = after.iter().map(|v| f64::from(v.abs())).sum();
            assert!((left - best(before, pattern.kept())).abs() < 1e-9, "{before:?} → {after:?}");
        }
        let again = pruned.clone();
        prune(&mut pruned, 6, 40, pattern, None).expect("legal");
        assert_eq!(pruned, again, "a pruned matrix stays as it is");
        assert_eq!(Pattern::parse(pattern.name()), Some(pattern));
    }
    assert_eq!(Pattern::parse("3:4"), None);
}

#[test]
fn the_pruner_breaks_ties_by_order_and_weighs_by_importance() {
    let mut ties = [1.0, -1.0, 1.0, 1.0];
    prune(&mut ties, 1, 4, Pattern::TwoOfFour, None).expect("legal");
    assert_eq!(ties, [1.0, -1.0, 0.0, 0.0]);
    // The second row's importance is that of its columns; the products pass the range of f32.
    let mut rows = [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 3e38];
    prune(&mut rows, 2, 4, Pattern::OneOfFour, Some(&[8.0, 0.0, 3e38, 2e38])).expect("legal");
    assert_eq!(rows, [0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 3e38]);
}

#[test]
fn compressing_is_pruning_and_quantising() {
    let mut random = Random::new(11);
    for pattern in Pattern::ALL {
        for format in FORMATS {
            for (k, group) in
                [(8, Group::WholeK), (24, Group::WholeK), (96, Group::Size(16)), (160, Group::Size(32))]
            {
                let dense: Vec<f32> = (0..5 * k).map(|_| random.normal()).collect();
                let matrix =
                    SparseMatrix::from_dense(&dense, 5, k, &how(pattern, format, group)).expect("legal");
                let mut pruned = dense;
                prune(&mut pruned, 5, k, pattern, None).expect("legal");
                let packed = PackedMatrix::quantise(&pruned, 5, k, format, group, ScaleSearch::AbsMax);
                assert_eq!(
                    matrix.unpack(),
                    packed.expect("legal").unpack(),
                    "{pattern:?} {format:?} k = {k}"
                );
                let parts = (matrix.values.clone(), matrix.indices.clone(), matrix.scales.clone());
                let again =
                    SparseMatrix::from_parts((pattern, format, group), 5, k, parts.0, parts.1, parts.2);
                assert_eq!(again.expect("legal"), matrix);
            }
        }
    }
}

/// Every 4-bit code at every position, and halves of every kind, through the words and back; the bits are put there one by one.
#[test]
fn every_code_at_every_position() {
    for pattern in Pattern::ALL {
        let (block, kept, width) = (pattern.block(), pattern.kept(), pattern.index_bits());
        for format in FORMATS {
            let codes: Vec<u32> = match format {
                Format::F16 => vec![0, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x8000, 0x8001, 0xfbff],
                _ => (0..16).collect(),
            };
            // One block a (code, first position), the others following it.
            let blocks: Vec<(u32, usize)> =
                codes.iter().flat_map(|&code| (0..=block - kept).map(move |first| (code, first))).collect();
            let k = blocks.len() * block;
            let empty = SparseMatrix::from_dense(&vec![0.0; k], 1, k, &how(pattern, format, Group::WholeK));
            let empty = empty.expect("legal");
            let mut values = vec![0u32; empty.values.len()];
            let mut indices = vec![0u32; empty.indices.len()];
            let mut want = vec![0.0; k];
            let set = |words: &mut [u32], e: usize, bits: usize, value: u32| {
                (0..bits).filter(|b| value >> b & 1 == 1).for_each(|b| {
                    words[(e * bits + b) / 32] |= 1 << ((e * bits + b) % 32);
                });
            };
            for (at, &(code, first)) in blocks.iter().enumerate() {
                for j in 0..kept {
                    set(&mut values, at * kept + j, format.bits(), code);
                    set(&mut indices, at * kept + j, width, (first + j) as u32);
                    const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
                    want[at * block + first + j] = match format {
                        Format::F16 => f16::from_bits(code as u16).to_f32(),
                        Format::Int4 => 2.0 * (code as f32 - 8.0),
                        _ if code < 8 => 2.0 * E2M1[code as usize],
                        _ => -2.0 * E2M1[code as usize - 8],
                    };
                }
            }
            let scales = vec![f16::from_f32(2.0); empty.scales.len()];
            let layout = (pattern, format, Group::WholeK);
            let matrix = SparseMatrix::from_parts(layout, 1, k, values, indices, scales).expect("legal");
            assert_eq!(matrix.unpack(), want, "{pattern:?} {format:?}");
        }
    }
}

#[test]
fn wrong_matrices_name_the_argument() {
    use Pattern::{FourOfEight, TwoOfFour};
    let pack =
        |values: &[f32], n, k, how: Compress<'_>| message(SparseMatrix::from_dense(values, n, k, &how));
    let fp4 = how(TwoOfFour, Format::Fp4, Group::WholeK);
    let ones = [1.0; 96];
    assert_eq!(pack(&ones, 2, 48, fp4), "accepted");
    expect(pack(&ones, 0, 48, fp4), "n is 0");
    expect(pack(&ones, 2, 0, fp4), "k is 0");
    expect(pack(&ones, 2, 46, fp4), "k is 46, needs a multiple of 4");
    expect(pack(&ones, 24, 4, Compress { pattern: FourOfEight, ..fp4 }), "k is 4, needs a multiple of 8");
    expect(pack(&ones, 3, 48, fp4), "values is 96");
    expect(pack(&ones, usize::MAX, 4, fp4), "n * k");
    expect(pack(&ones, 2, 48, Compress { format: Format::Int8, ..fp4 }), "format");
    for (group, size) in [(24, "group = 24"), (0, "group = 0"), (32, "group = 32")] {
        expect(pack(&ones, 2, 48, Compress { group: Group::Size(group), ..fp4 }), size);
    }
    expect(pack(&ones, 2, 48, Compress { importance: Some(&ones), ..fp4 }), "importance is 96");
    for wrong in [f32::NAN, f32::INFINITY, -1.0] {
        let mut importance = [1.0; 48];
        importance[5] = wrong;
        expect(pack(&ones, 2, 48, Compress { importance: Some(&importance), ..fp4 }), "importance[5]");
    }
    let mut strange = ones;
    strange[50] = f32::NAN;
    expect(pack(&strange, 2, 48, fp4), "row 1, column 2");
    expect(message(prune(&mut strange, 2, 48, TwoOfFour, None)), "prune: values at row 1, column 2");
}

#[test]
fn wrong_parts_name_the_argument() {
    let layout = (Pattern::TwoOfFour, Format::Fp4, Group::WholeK);
    let parts = |values: Vec<u32>, indices: Vec<u32>, scales: Vec<f16>| {
        message(SparseMatrix::from_parts(layout, 1, 8, values, indices, scales))
    };
    let (values, indices, scales) = (vec![0xffff, 0, 0, 0], vec![0b11_10_01_00, 0], vec![f16::ONE]);
    assert_eq!(parts(values.clone(), indices.clone(), scales.clone()), "accepted");
    expect(parts(vec![0; 3], indices.clone(), scales.clone()), "values is 3, needs 4 words");
    expect(parts(values.clone(), vec![4; 3], scales.clone()), "indices is 3, needs 2 words");
    expect(parts(values.clone(), indices.clone(), vec![]), "scales is 0, needs 1 elements");
    expect(parts(values.clone(), indices.clone(), vec![f16::NAN]), "scales[0]");
    expect(parts(values.clone(), indices.clone(), vec![f16::INFINITY]), "scales[0]");
    for descending in [0b11_10_01_01, 0b11_10_00_01, 0b10_10_01_00, 0b00_10_01_00] {
        expect(parts(values.clone(), vec![descending, 0], scales.clone()), "indices of row 0, kept value");
    }
    expect(parts(vec![0x1_ffff, 0, 0, 0], indices.clone(), scales.clone()), "values of row 0");
    expect(parts(vec![0xffff, 0, 0, 1], indices.clone(), scales.clone()), "values of row 0");
    expect(parts(values.clone(), vec![0b01_11_10_01_00, 0], scales.clone()), "indices of row 0");
    expect(parts(values, vec![0b11_10_01_00, 1], scales), "indices of row 0");
    let halves = (Pattern::OneOfFour, Format::F16, Group::WholeK);
    let infinite = SparseMatrix::from_parts(halves, 1, 4, vec![0x7c00, 0, 0, 0], vec![0], vec![]);
    expect(message(infinite), "values of row 0, kept value 0");
}

#[test]
fn eight_rows_are_the_border() {
    let names = [0, 1, 8, 9, 4096].map(|m| kernel_for(m).name);
    assert_eq!(names, ["gemv_sparse", "gemv_sparse", "gemv_sparse", "gemm_sparse", "gemm_sparse"]);
}

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let compress = how(Pattern::TwoOfFour, Format::Fp4, Group::WholeK);
    let matrix = SparseMatrix::from_dense(&[1.0; 96], 3, 32, &compress).expect("legal");
    let weight = SparseWeight::upload(&gpu, &matrix).expect("uploads");
    assert_eq!(weight.bytes(), matrix.bytes());
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let error = |request: SparseLinear<'_>| message(gpu.run(|r| record(r, &request)));
    for (m, kernel) in [(2, "gemv_sparse"), (9, "gemm_sparse")] {
        let (a, out) = (make(DType::F32, &[m, 32]), make(DType::F32, &[m, 3]));
        let good = SparseLinear::new(&a, &weight, &out);
        assert_eq!(error(good), "accepted");
        let (ints, narrow) = (make(DType::I32, &[m, 32]), make(DType::F32, &[m, 28]));
        let (halves, turned) = (make(DType::F16, &[3]), make(DType::F32, &[3, m]));
        for (request, want) in [
            (SparseLinear { a: &ints, ..good }, "a's dtype is I32"),
            (SparseLinear { a: &narrow, ..good }, "a is ["),
            (SparseLinear { out: &ints, ..good }, "out's dtype is I32"),
            (SparseLinear { out: &turned, ..good }, "out is [3, "),
            (SparseLinear { bias: Some(&halves), ..good }, "bias's dtype is F16"),
            (SparseLinear { bias: Some(&out), ..good }, "bias is ["),
            (SparseLinear { residual: Some(&turned), ..good }, "residual is [3, "),
        ] {
            expect(error(request), &format!("{kernel}: {want}"));
        }
        let overlapping = error(SparseLinear { residual: Some(&out), ..good });
        assert!(overlapping.starts_with(kernel), "{overlapping}");
    }
    let other = Gpu::new().expect("an adapter");
    let strange = SparseWeight::upload(&other, &matrix).expect("uploads");
    let (a, out) = (make(DType::F32, &[1, 32]), make(DType::F32, &[1, 3]));
    let foreign = gpu.run(|r| record(r, &SparseLinear::new(&a, &strange, &out))).err();
    let named =
        matches!(&foreign, Some(Error::ForeignTensor { kernel: "gemv_sparse", what }) if what == "weight");
    assert!(named, "{foreign:?}");
    expect(message(SparseWeight::upload_in_parts(&gpu, &matrix, 8)), "one row of [3, 32] 2:4 fp4");
}
