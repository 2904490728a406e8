//! The reduction of large angles, and wrong calls.

use super::{Pairing, Rope, cpu, record};
use crate::{DType, Gpu};

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (q, k) = (make(DType::F32, &[3, 4, 8]), make(DType::F32, &[5, 2, 8]));
    let (positions, inv_freq) = (make(DType::U32, &[3]), make(DType::F32, &[4]));
    let good = Rope {
        q: &q,
        k: Some(&k),
        k_row: 2,
        positions: &positions,
        inv_freq: &inv_freq,
        pairing: Pairing::HalfSplit,
        mscale: 1.0,
    };
    let error = |request: Rope<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    assert_eq!(error(Rope { k: None, k_row: 99, ..good }), "accepted");
    let flat = make(DType::F32, &[3, 32]);
    let narrow = make(DType::F32, &[5, 2, 6]);
    let halves = make(DType::F16, &[5, 2, 8]);
    let ints = make(DType::U32, &[3, 4, 8]);
    let long = make(DType::F32, &[5]);
    for (request, want) in [
        (Rope { q: &flat, ..good }, "rope: q is [3, 32], needs three dimensions"),
        (Rope { q: &ints, ..good }, "rope: q's dtype is U32"),
        (Rope { k: Some(&flat), ..good }, "rope: k is [3, 32], needs three"),
        (Rope { k: Some(&narrow), ..good }, "rope: k is [5, 2, 6], needs [5, 2, 8]"),
        (Rope { k: Some(&halves), ..good }, "rope: k's dtype is F16"),
        (Rope { k: Some(&q), k_row: 0, ..good }, "rope: k is \"overlapping q\""),
        (Rope { k_row: 3, ..good }, "rope: k_row = 3"),
        (Rope { k_row: usize::MAX, ..good }, "rope: k_row"),
        (Rope { positions: &long, ..good }, "rope: positions's dtype is F32"),
        (Rope { inv_freq: &long, ..good }, "rope: inv_freq is 5, needs at most 4 pairs"),
        (Rope { mscale: f32::INFINITY, ..good }, "rope: mscale = inf"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}

#[test]
fn angles_hold_at_every_magnitude_of_frequency() {
    // Turning (1, 0) gives (cos, sin): compared one by one, over frequencies from 2 down to none, both signs.
    let gpu = Gpu::new().expect("an adapter");
    let mut frequencies: Vec<f32> = (0..80).map(|i| 1.99 * 0.61f32.powi(i)).collect();
    frequencies.extend([0.0, -0.0, -1.0, -0.013, 2.0, 0.5, 1.0, 1.4e-45, 1.2e-38]);
    // 29 bits times the 24 of a frequency are the most that f64, and so the twin, can hold.
    let positions = [0, 1, 2, 4097, 65_535, 131_071, 16_777_217, (1 << 29) - 1];
    let dim = 2 * frequencies.len();
    let mut x = vec![0.0f32; positions.len() * dim];
    x.iter_mut().step_by(2).for_each(|v| *v = 1.0);
    let q = gpu.tensor(&[positions.len(), 1, dim], &x).expect("uploads");
    let at = gpu.tensor(&[positions.len()], &positions).expect("uploads");
    let inv_freq = gpu.tensor(&[frequencies.len()], &frequencies).expect("uploads");
    let request = Rope {
        q: &q,
        k: None,
        k_row: 0,
        positions: &at,
        inv_freq: &inv_freq,
        pairing: Pairing::Interleaved,
        mscale: 1.0,
    };
    gpu.run(|r| record(r, &request)).expect("runs");
    let got = gpu.read::<f32>(&q).expect("reads");
    let want = cpu::rope(&x, 1, dim, &positions, &frequencies, Pairing::Interleaved, 1.0);
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let (position, frequency) = (positions[i / dim], frequencies[i % dim / 2]);
        assert!((f64::from(got) - want).abs() < 3e-7, "{position} · {frequency}: {got} for {want}");
    }
}
