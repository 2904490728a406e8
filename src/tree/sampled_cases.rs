//! Cases of `tree_sampled`.

use super::accept_cases::Walk;
use super::cpu::{self, Draws};
use super::growth::Growth::{self, Chain, Depth, Malformed, Star};
use super::{TreeSampled, record_sampled};
use crate::kernel::{Case, Cost, Level, Prepared, Random, Recorder};

/// (level, B, nodes, V, growth)
type Shape = (Level, usize, usize, usize, Growth);

pub(super) fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[Shape] = &[
        (Quick, 8, 16, 40, Depth(5)),
        (Quick, 3, 5, 300, Chain),
        (Full, 4, 1, 7, Chain),
        (Full, 4, 3, 1, Star),
        (Full, 64, 64, 12, Depth(8)),
        (Full, 16, 33, 255, Star),
        (Full, 16, 9, 256, Chain),
        (Full, 16, 9, 257, Depth(4)),
        (Full, 3, 100, 2, Depth(50)),
        (Full, 2, 5, 66_001, Depth(3)),
        (Full, 8, 64, 20, Malformed),
        (Full, 1, 1024, 5, Star),
        (Perf, 8, 16, 128_256, Depth(5)),
    ];
    let mut all: Vec<Case> =
        shapes.iter().flat_map(|&shape| [false, true].map(|drafts| case(shape, drafts))).collect();
    // More workgroups than one grid dimension holds.
    all.push(case((Full, 66_000, 3, 2, Star), false));
    all
}

/// Drafts that the model likes better or worse; one in nine is no token.
fn case((level, b, nodes, cols, growth): Shape, drafts: bool) -> Case {
    let of = if drafts { "drawn" } else { "certain" };
    let label = format!("{b}×{nodes} nodes, {}, {cols} tokens, {of} drafts", growth.label());
    Case::new(level, "f32", label, move |gpu, copies| {
        let mut random = Random::new((nodes * 31 + b + cols) as u64);
        // Of a walk to the end of the first branch: every row at least once.
        let cost = Cost { bytes: (4 * b * cols * if drafts { 2 } else { 1 }) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let parents: Vec<u32> = (0..b).flat_map(|_| growth.parents(nodes, &mut random)).collect();
            let target = distributions(&mut random, b * nodes, cols, 2.0);
            let draft = distributions(&mut random, b * nodes, cols, 1.0);
            let tokens: Vec<u32> = (0..b * nodes)
                .map(|n| {
                    let row = n / nodes * nodes + (parents[n] as usize).min(nodes - 1);
                    let row = if drafts { &draft } else { &target }[row * cols..][..cols].iter();
                    let unit = 0.5 + 0.5 * random.unit();
                    let sums = row.scan(0.0, |sum, p| {
                        *sum += p;
                        Some(*sum)
                    });
                    if n % 9 == 8 { u32::MAX } else { sums.take_while(|&sum| sum < unit).count() as u32 }
                })
                .collect();
            let gpu_of = |values: &[u32]| gpu.tensor(&[b, nodes], values);
            let (parents_gpu, tokens_gpu) = (gpu_of(&parents)?, gpu_of(&tokens)?);
            let target_gpu = gpu.tensor(&[b, nodes, cols], &target)?;
            let draft_gpu = drafts.then(|| gpu.tensor(&[b, nodes, cols], &draft)).transpose()?;
            let walk = Walk::new(gpu, b, nodes)?;
            let (seed, step) = (0x0123_4567_89ab_cdef, 7);
            let twin = (0..b).map(|n| {
                let (nodes, rows) = (n * nodes..(n + 1) * nodes, n * nodes * cols..(n + 1) * nodes * cols);
                let (parents, tokens) = (&parents[nodes.clone()], &tokens[nodes]);
                let draft = drafts.then(|| &draft[rows.clone()]);
                cpu::sampled(parents, tokens, &target[rows], draft, cols, Draws { seed, step, sequence: n })
            });
            let checks = walk.checks(twin.collect());
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (parents, tokens, target) = (&parents_gpu, &tokens_gpu, &target_gpu);
                let (Walk { path, accepted, next }, drafts) = (&walk, draft_gpu.as_ref());
                let request =
                    TreeSampled { parents, tokens, target, drafts, seed, step, path, accepted, next };
                record_sampled(recorder, &request)
            };
            Ok((launch, checks))
        })
    })
}

/// Rows of probabilities: the softmax of normal logits of this deviation.
fn distributions(random: &mut Random, rows: usize, cols: usize, deviation: f32) -> Vec<f32> {
    let mut values: Vec<f32> = (0..rows * cols).map(|_| (deviation * random.normal()).exp()).collect();
    for row in values.chunks_mut(cols) {
        let total: f32 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= total);
    }
    values
}
