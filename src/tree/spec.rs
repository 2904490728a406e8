//! Declaration and cases of `tree_mask`.

use super::growth::Growth::{self, Chain, Depth, Malformed, Star};
use super::{TreeMask, cpu, record_mask};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Recorder,
    Rule, Variant, defines, params, tier,
};
use crate::tensor::DType;

params! {
    pub(super) struct TreeMaskParams { all: u32, nodes: u32, words: u32 }
}

pub static TREE_MASK: KernelSpec = KernelSpec {
    name: "tree_mask",
    family: "tree",
    replaces: &["tree_attention"],
    params: TreeMaskParams::FIELDS,
    bindings: &[read("parents"), write("mask"), write("depths")],
    tiers: &[tier!(Base, "tree/tree_mask.wgsl", || vec![variant(0)])],
    cases,
};

pub(super) const fn read(name: &'static str) -> Binding {
    Binding { name, access: Access::Read }
}

pub(super) const fn write(name: &'static str) -> Binding {
    Binding { name, access: Access::ReadWrite }
}

pub(super) const THREADS: u32 = 64;

/// With so many bytes of workgroup memory.
pub(super) fn variant(workgroup_storage: u32) -> Variant {
    let needs = Needs { workgroup_storage, threads: THREADS, ..Needs::default() };
    Variant { defines: defines![THREADS = Def::Num(THREADS)], needs }
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    let shapes: &[(Level, usize, usize, Growth)] = &[
        (Quick, 2, 64, Depth(8)),
        (Quick, 1, 5, Chain),
        (Full, 1, 1, Chain),
        (Full, 3, 31, Star),
        (Full, 3, 32, Chain),
        (Full, 2, 33, Chain),
        (Full, 5, 65, Depth(5)),
        (Full, 1, 1000, Depth(40)),
        (Full, 1, 300, Chain),
        (Full, 4, 64, Malformed),
        (Full, 3, 7, Malformed),
        // More workgroups than one grid dimension holds.
        (Full, 70_000 * 64, 1, Star),
        (Perf, 64, 64, Depth(8)),
        (Perf, 1, 512, Depth(16)),
    ];
    let signed = [(Full, 2, 64, Depth(8)), (Full, 2, 64, Malformed)];
    let of = |dtype| move |&shape: &(Level, usize, usize, Growth)| case(shape, dtype);
    shapes.iter().map(of(DType::U32)).chain(signed.iter().map(of(DType::I32))).collect()
}

fn case((level, b, nodes, growth): (Level, usize, usize, Growth), dtype: DType) -> Case {
    let label = format!("{b}×{nodes} nodes, {}", growth.label());
    Case::new(level, dtype.wgsl(), label, move |gpu, copies| {
        let mut random = Random::new((nodes * 31 + b) as u64);
        let words = nodes.div_ceil(32);
        let cost = Cost { bytes: (4 * b * nodes * (2 + words)) as u64, flops: 0 };
        Prepared::sets(copies, cost, || {
            let parents: Vec<u32> = (0..b).flat_map(|_| growth.parents(nodes, &mut random)).collect();
            let parents_gpu = match dtype {
                DType::I32 => gpu.tensor(&[b, nodes], bytemuck::cast_slice::<u32, i32>(&parents))?,
                _ => gpu.tensor(&[b, nodes], &parents)?,
            };
            let mask = gpu.output(DType::U32, &[b, nodes, words])?;
            let depths = gpu.output(DType::U32, &[b, nodes])?;
            let same = parents.clone();
            let words = move || cpu::masks(&parents, nodes).0;
            let levels = move || cpu::masks(&same, nodes).1;
            let checks = vec![
                Check::new("mask", &mask, Rule::Exact, words),
                Check::new("depths", &depths, Rule::Exact, levels),
            ];
            let launch = move |recorder: &mut Recorder<'_, '_>| {
                record_mask(recorder, &TreeMask { parents: &parents_gpu, mask: &mask, depths: &depths })
            };
            Ok((launch, checks))
        })
    })
}
