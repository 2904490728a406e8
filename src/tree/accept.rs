//! `tree_accept`: which drafts a greedy model would have written.

use super::accept_cases::cases;
use super::check_parents;
use super::spec::{read, variant, write};
use crate::error::Result;
use crate::kernel::{KernelSpec, Launch, Params, Recorder, index32, params, tier};
use crate::tensor::{DType, Tensor};

params! {
    pub(super) struct TreeAcceptParams { trees: u32, nodes: u32 }
}

pub static TREE_ACCEPT: KernelSpec = KernelSpec {
    name: "tree_accept",
    family: "tree",
    replaces: &["tree_attention"],
    params: TreeAcceptParams::FIELDS,
    bindings: &[
        read("parents"),
        read("tokens"),
        read("best"),
        write("path"),
        write("accepted"),
        write("next"),
    ],
    tiers: &[tier!(Base, "tree/tree_accept.wgsl", || vec![variant(SHARED)])],
    cases,
};

/// Bytes: the child that is found.
const SHARED: u32 = 8;

/// Greedy choice among drafts: from node 0 down, to the first child whose token is the best after its parent, as long as
/// there is one.
#[derive(Clone, Copy, Debug)]
pub struct TreeAccept<'a> {
    /// \[B, nodes\], u32 or i32, at least one node: as in [`TreeMask`](super::TreeMask). Nodes that do not descend from
    /// node 0 are never accepted.
    pub parents: &'a Tensor,
    /// U32 \[B, nodes\]: the token of each node.
    pub tokens: &'a Tensor,
    /// U32 \[B, nodes\]: the model's choice after each node, as [`argmax`](crate::argmax) gives it.
    pub best: &'a Tensor,
    /// U32 \[B, nodes\]: receives the accepted nodes, node 0 first, then `u32::MAX`.
    pub path: &'a Tensor,
    /// U32 \[B\]: receives how many these are, at least 1.
    pub accepted: &'a Tensor,
    /// U32 \[B\]: receives the model's choice after the last of them.
    pub next: &'a Tensor,
}

/// Records the walk down each tree.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) naming the argument, [`Error::Limit`](crate::Error::Limit) from 2³¹ nodes.
///
/// ```no_run
/// use wgmarlin::tree::{self, ROOT, TreeAccept};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// let parents = gpu.tensor(&[1, 4], &[ROOT, 0, 0, 2])?;
/// let tokens = gpu.tensor(&[1, 4], &[10u32, 11, 12, 13])?;
/// // After 10 the model writes 12, after that 13, and then 14.
/// let best = gpu.tensor(&[1, 4], &[12u32, 0, 13, 14])?;
/// let one = || gpu.alloc(DType::U32, &[1]);
/// let (path, accepted, next) = (gpu.alloc(DType::U32, &[1, 4])?, one()?, one()?);
/// let (parents, tokens, best, path, accepted, next) = (&parents, &tokens, &best, &path, &accepted, &next);
/// gpu.run(|r| tree::record_accept(r, &TreeAccept { parents, tokens, best, path, accepted, next }))?;
/// assert_eq!(gpu.read::<u32>(path)?, [0, 2, 3, u32::MAX]);
/// assert_eq!((gpu.read::<u32>(accepted)?, gpu.read::<u32>(next)?), (vec![3], vec![14]));
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_accept(recorder: &mut Recorder<'_, '_>, request: &TreeAccept<'_>) -> Result<()> {
    let kernel = TREE_ACCEPT.name;
    let TreeAccept { parents, tokens, best, path, accepted, next } = *request;
    let [trees, nodes] = check_walk(kernel, parents, tokens, [path, accepted, next])?;
    best.expect(kernel, "best", &[DType::U32], parents.shape())?;
    let (tier, defines, needs) = recorder.choose(&TREE_ACCEPT, |_| Ok(variant(SHARED).into()))?;
    recorder.launch(Launch {
        spec: &TREE_ACCEPT,
        tier,
        defines,
        needs,
        binds: &[parents, tokens, best, path, accepted, next],
        params: TreeAcceptParams { trees, nodes },
        groups: u64::from(trees),
    })
}

/// Checks what walks have in common; \[B, nodes\].
pub(super) fn check_walk(
    kernel: &'static str,
    parents: &Tensor,
    tokens: &Tensor,
    [path, accepted, next]: [&Tensor; 3],
) -> Result<[u32; 2]> {
    let [trees, nodes] = check_parents(kernel, parents)?;
    if nodes == 0 {
        return Err(crate::Error::shape(kernel, "parents", parents.shape(), "at least one node"));
    }
    tokens.expect(kernel, "tokens", &[DType::U32], &[trees, nodes])?;
    path.expect(kernel, "path", &[DType::U32], &[trees, nodes])?;
    accepted.expect(kernel, "accepted", &[DType::U32], &[trees])?;
    next.expect(kernel, "next", &[DType::U32], &[trees])?;
    index32(kernel, "nodes of all trees", parents.len())?;
    // Neither exceeds their product, but where that is 0.
    Ok([trees as u32, index32(kernel, "nodes", nodes)?])
}
