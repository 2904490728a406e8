//! The generator's known answers, the frequencies of many draws, and wrong calls.

use super::{Choice, Sample, cpu, record};
use crate::kernel::{
    Access, Binding, Defines, KernelSpec, Launch, Needs, Params, Tier, TierSpec, Variant, params,
};
use crate::{DType, Gpu};

type Vector = ([u32; 4], [u32; 2], [u32; 4]);

/// Counter, key and output: Random123's known answers.
pub(super) const PHILOX: [Vector; 3] = [
    ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
    ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
    (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ),
];

params! {
    struct NoParams { unused: u32 }
}

static PHILOX_KERNEL: KernelSpec = KernelSpec {
    name: "philox",
    family: "sample",
    replaces: &[],
    params: NoParams::FIELDS,
    bindings: &[
        Binding { name: "inputs", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[TierSpec {
        tier: Tier::Base,
        path: "test.wgsl",
        source: "//!include \"common/philox.wgsl\"
            struct Params { unused: u32 }
            var<immediate> params: Params;
            @group(0) @binding(0) var<storage, read> inputs: array<vec4<u32>>;
            @group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;
            @compute @workgroup_size(1) fn main(@builtin(workgroup_id) group: vec3<u32>) {
                out[group.x] = philox(inputs[2u * group.x], inputs[2u * group.x + 1u].xy);
            }",
        variants: || vec![Variant { defines: Defines::new(), needs: Needs::default() }],
    }],
    cases: Vec::new,
};

#[test]
fn the_shader_s_philox_gives_the_known_answers() {
    let gpu = Gpu::new().expect("an adapter");
    let mut vectors: Vec<Vector> = PHILOX.to_vec();
    // And the twin's answers for counters and keys all over the place.
    for i in 0..64 {
        let [a, b, c, d] = cpu::philox4x32([i, 1, 2, 3], [4, 5]);
        let (counter, key) = ([a, b, c, d], [b ^ d, a]);
        vectors.push((counter, key, cpu::philox4x32(counter, key)));
    }
    let words: Vec<u32> =
        vectors.iter().flat_map(|(c, k, _)| c.iter().chain(k).chain(&[0; 2]).copied()).collect();
    let inputs = gpu.tensor(&[words.len()], &words).expect("uploads");
    let out = gpu.alloc(DType::U32, &[vectors.len() * 4]).expect("allocates");
    gpu.run(|r| {
        r.launch(Launch {
            spec: &PHILOX_KERNEL,
            tier: Tier::Base,
            defines: Defines::new(),
            needs: Needs::default(),
            binds: &[&inputs, &out],
            params: NoParams { unused: 0 },
            groups: vectors.len() as u64,
        })
    })
    .expect("runs");
    let want: Vec<u32> = vectors.iter().flat_map(|v| v.2).collect();
    assert_eq!(gpu.read::<u32>(&out).expect("reads"), want);
}

/// χ² of 2048 draws from one row of logits against the twin's probabilities, and its degrees of freedom.
fn chi_square(gpu: &Gpu, row: &[f32], choice: Choice) -> (f64, usize) {
    const ROWS: usize = 2048;
    let logits = gpu.tensor(&[ROWS, row.len()], &row.repeat(ROWS)).expect("uploads");
    let index = gpu.alloc(DType::U32, &[ROWS]).expect("allocates");
    let request = Sample { logits: &logits, index: &index, choice };
    gpu.run(|r| record(r, &request)).expect("runs");
    let mut counts = vec![0u32; row.len()];
    for i in gpu.read::<u32>(&index).expect("reads") {
        counts[i as usize] += 1;
    }
    let mut sum = 0.0;
    let mut kinds = 0;
    for (&count, p) in counts.iter().zip(cpu::probabilities(row, &choice)) {
        let want = p * ROWS as f64;
        assert!(p > 0.0 || count == 0, "{count} draws of what is filtered out");
        if p > 0.0 {
            sum += (f64::from(count) - want).powi(2) / want;
            kinds += 1;
        }
    }
    (sum, kinds - 1)
}

#[test]
fn frequencies_follow_the_probabilities() {
    let gpu = Gpu::new().expect("an adapter");
    let row: Vec<f32> = (0..24).map(|i| ((i * 7 % 24) as f32 * 0.1).sin()).collect();
    let choices =
        [(0, 1.0, 1.0, 1, 0), (10, 1.0, 0.5, 1, 1), (0, 0.8, 2.0, 2, 0), (12, 0.7, 1.0, 1 << 40, 5)];
    for (top_k, top_p, temperature, seed, step) in choices {
        let choice = Choice { temperature, top_k, top_p, seed, step };
        let (sum, free) = chi_square(&gpu, &row, choice);
        // Four deviations above the mean; χ² with n degrees of freedom has mean n and variance 2n.
        let bound = free as f64 + 4.0 * (2.0 * free as f64).sqrt();
        assert!(sum < bound, "{choice:?}: chi square {sum} over {bound}");
        // Draws that are too even are no draws.
        assert!(sum > free as f64 / 8.0, "{choice:?}: chi square {sum} of {free}");
    }
}

#[test]
fn seeds_and_steps_draw_anew_and_repeat() {
    let gpu = Gpu::new().expect("an adapter");
    let logits = gpu.tensor(&[64, 100], &[0.0f32; 6400]).expect("uploads");
    let draw = |seed, step| {
        let index = gpu.alloc(DType::U32, &[64]).expect("allocates");
        let choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0, seed, step };
        gpu.run(|r| record(r, &Sample { logits: &logits, index: &index, choice })).expect("runs");
        gpu.read::<u32>(&index).expect("reads")
    };
    let first = draw(1, 1);
    assert_eq!(first, draw(1, 1));
    for (seed, step) in [(2, 1), (1, 2), (1 | 1 << 32, 1)] {
        let same = first.iter().zip(draw(seed, step)).filter(|(a, b)| **a == *b).count();
        assert!(same < 8, "{same} of 64 draws repeat");
    }
}

#[test]
fn wrong_calls_name_the_argument() {
    let gpu = Gpu::new().expect("an adapter");
    let make = |dtype, shape: &[usize]| gpu.alloc(dtype, shape).expect("allocates");
    let (logits, index) = (make(DType::F32, &[3, 7]), make(DType::U32, &[3]));
    let choice = Choice { temperature: 1.0, top_k: 5, top_p: 0.9, seed: 0, step: 0 };
    let good = Sample { logits: &logits, index: &index, choice };
    let error = |request: Sample<'_>| match gpu.run(|r| record(r, &request)) {
        Ok(()) => "accepted".to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(error(good), "accepted");
    let ints = make(DType::U32, &[3, 7]);
    let empty = make(DType::F32, &[3, 0]);
    let broad = make(DType::F32, &[3, super::MAX_COLS + 1]);
    let long = make(DType::U32, &[4]);
    let with = |temperature, top_p| Sample { choice: Choice { temperature, top_p, ..choice }, ..good };
    for (request, want) in [
        (Sample { logits: &ints, ..good }, "sample: logits's dtype is U32"),
        (Sample { logits: &empty, ..good }, "sample: logits is [3, 0], needs 1 to 262144 columns"),
        (Sample { logits: &broad, ..good }, "needs 1 to 262144 columns"),
        (Sample { index: &long, ..good }, "sample: index is [4], needs [3]"),
        (
            with(0.0, 0.9),
            "temperature = 0.0, must be finite and at least 1e-30; for temperature 0 use argmax",
        ),
        (with(f32::NAN, 0.9), "sample: temperature = NaN"),
        (with(-1.0, 0.9), "sample: temperature = -1.0"),
        (with(1.0, 0.0), "sample: top_p = 0.0"),
        (with(1.0, 1.01), "sample: top_p = 1.01"),
        (with(1.0, f32::NAN), "sample: top_p = NaN"),
    ] {
        let got = error(request);
        assert!(got.contains(want), "{got} lacks {want}");
    }
}
