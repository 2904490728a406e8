//! Cases of `tree_accept`.

use super::cpu::{self, Accepted};
use super::growth::Growth::{self, Chain, Depth, Malformed, Star};
use super::{TreeAccept, record_accept};
use crate::device::Gpu;
use crate::error::Result;
use crate::kernel::{Case, Check, Cost, Level, Prepared, Random, Recorder, Rule};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// (level, B, nodes, growth)
type Shape = (Level, usize, usize, Growth);

pub(super) fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[Shape] = &[
        (Quick, 3, 64, Depth(8)),
        (Quick, 2, 5, Chain),
        (Full, 2, 1, Chain),
        (Full, 3, 33, Star),
        (Full, 2, 65, Star),
        (Full, 2, 200, Chain),
        (Full, 1, 1000, Depth(40)),
        (Full, 20, 64, Depth(8)),
        (Full, 9, 64, Malformed),
        // More workgroups than one grid dimension holds.
        (Full, 66_000, 3, Depth(2)),
        (Perf, 64, 64, Depth(8)),
    ];
    shapes.iter().map(|&shape| case(shape)).collect()
}

/// Few different tokens, so that siblings repeat; trees are walked to the end, in part, and not at all.
fn case((level, b, nodes, growth): Shape) -> Case {
    let label = format!("{b}×{nodes} nodes, {}", growth.label());
    Case::new(level, "u32", label, move |gpu, copies| {
        let mut random = Random::new((nodes * 31 + b) as u64);
        let cost = Cost { bytes: (4 * b * (4 * nodes + 2)) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let parents: Vec<u32> = (0..b).flat_map(|_| growth.parents(nodes, &mut random)).collect();
            let tokens: Vec<u32> = (0..b * nodes).map(|_| random.below(nodes.div_ceil(3)) as u32).collect();
            let mut best: Vec<u32> = (0..b * nodes).map(|_| random.below(nodes) as u32).collect();
            // Most nodes with a child agree with one.
            for (n, &parent) in parents.iter().enumerate() {
                if (parent as usize) < n % nodes && random.below(8) > 0 {
                    best[n / nodes * nodes + parent as usize] = tokens[n];
                }
            }
            let gpu_of = |values: &[u32]| gpu.tensor(&[b, nodes], values);
            let (parents_gpu, tokens_gpu, best_gpu) = (gpu_of(&parents)?, gpu_of(&tokens)?, gpu_of(&best)?);
            let walk = Walk::new(gpu, b, nodes)?;
            let of = |n: usize| n * nodes..(n + 1) * nodes;
            let twin = (0..b).map(|n| cpu::accept(&parents[of(n)], &tokens[of(n)], &best[of(n)])).collect();
            let checks = walk.checks(twin);
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                let (parents, tokens, best) = (&parents_gpu, &tokens_gpu, &best_gpu);
                let Walk { path, accepted, next } = &walk;
                record_accept(recorder, &TreeAccept { parents, tokens, best, path, accepted, next })
            };
            Ok((launch, checks))
        })
    })
}

/// What walks give.
pub(super) struct Walk {
    pub path: Tensor,
    pub accepted: Tensor,
    pub next: Tensor,
}

impl Walk {
    pub fn new(gpu: &Gpu, b: usize, nodes: usize) -> Result<Walk> {
        let make = |shape: &[usize]| gpu.output(DType::U32, shape);
        let path = make(&[b, nodes])?;
        // Poison would look like the padding.
        gpu.write(&path, &vec![7u32; b * nodes])?;
        Ok(Walk { path, accepted: make(&[b])?, next: make(&[b])? })
    }

    pub fn checks(&self, twin: Vec<Accepted>) -> Vec<Check> {
        let nodes = self.path.cols();
        let twin = Arc::new(twin);
        let (paths, lengths, tokens) = (twin.clone(), twin.clone(), twin);
        let padded = move |path: &[usize]| {
            let rest = vec![f64::from(u32::MAX); nodes - path.len()];
            path.iter().map(|&node| node as f64).chain(rest).collect::<Vec<f64>>()
        };
        let path = move || paths.iter().flat_map(|(path, _)| padded(path)).collect();
        let accepted = move || lengths.iter().map(|(path, _)| path.len() as f64).collect();
        let next = move || tokens.iter().map(|(_, token)| f64::from(*token)).collect();
        vec![
            Check::new("path", &self.path, Rule::Exact, path),
            Check::new("accepted", &self.accepted, Rule::Exact, accepted),
            Check::new("next", &self.next, Rule::Exact, next),
        ]
    }
}
