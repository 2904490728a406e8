//! `tree_sampled`: which drafts a model that samples may keep.

use super::accept::check_walk;
use super::sampled_cases::cases;
use super::spec::{read, write};
use crate::error::{Error, Result};
use crate::kernel::{
    Def, KernelSpec, Launch, Needs, Params, Recorder, Variant, defines, index32, params, tier,
};
use crate::sample::MAX_COLS;
use crate::tensor::{DType, Tensor};

params! {
    pub(super) struct TreeSampledParams {
        trees: u32, nodes: u32, cols: u32, seed_low: u32, seed_high: u32, step: u32,
    }
}

pub static TREE_SAMPLED: KernelSpec = KernelSpec {
    name: "tree_sampled",
    family: "tree",
    replaces: &["tree_attention"],
    params: TreeSampledParams::FIELDS,
    bindings: &[
        read("parents"),
        read("tokens"),
        read("model"),
        read("drafts"),
        write("path"),
        write("accepted"),
        write("next"),
    ],
    tiers: &[tier!(Base, "tree/tree_sampled.wgsl", || [false, true].map(variant).into())],
    cases,
};

/// Greatest number of nodes of a tree for [`record_sampled`]: it keeps rejected tokens in workgroup memory.
pub const MAX_NODES: usize = 1024;
/// The square of the side that `wide_scan.wgsl` has.
const THREADS: u32 = 256;

fn variant(drafts: bool) -> Variant {
    Variant {
        defines: defines![
            DRAFTS = Def::Flag(drafts),
            MAX_NODES = Def::Num(MAX_NODES as u32),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs {
            workgroup_storage: THREADS * 8 + 24 + if drafts { 0 } else { 4 * MAX_NODES as u32 },
            threads: THREADS,
            ..Needs::default()
        },
    }
}

/// Speculative sampling over drafts: the accepted tokens and the next have the distribution that the model's own samples
/// would have (Leviathan et al., "Fast inference from transformers via speculative decoding", 2023; for several drafts
/// of one token Miao et al., "SpecInfer", 2023).
///
/// From node 0 down: the children of a node are tried in order. With p the model's distribution after the node and q
/// that which its children were drawn from, a child with token x is accepted with probability min(1, p(x) / q(x));
/// otherwise p becomes max(p − q, 0), scaled to a sum of 1, for the next child. Where no child is accepted, the next
/// token is drawn from p.
#[derive(Clone, Copy, Debug)]
pub struct TreeSampled<'a> {
    /// \[B, nodes\], u32 or i32, 1 to [`MAX_NODES`] nodes: as in [`TreeAccept`](super::TreeAccept).
    pub parents: &'a Tensor,
    /// U32 \[B, nodes\]: the token of each node. One from V on is never accepted.
    pub tokens: &'a Tensor,
    /// f32 \[B, nodes, V\]: the model's probabilities after each node, as [`softmax`](crate::softmax) gives them; V from 1
    /// to [`MAX_COLS`].
    pub target: &'a Tensor,
    /// f32 \[B, nodes, V\]: the probabilities that the children of each node were drawn from, independently of each other.
    /// `None` for drafts that no chance chose, each of which counts as drawn with certainty.
    pub drafts: Option<&'a Tensor>,
    /// Key of the generator, Philox4x32-10.
    pub seed: u64,
    /// The generator's counter is (tree, step, node, 1) for the acceptance of a node, (tree, step, node, 2) for the token
    /// that follows it: count steps up to draw anew.
    pub step: u32,
    /// U32 \[B, nodes\]: receives the accepted nodes, node 0 first, then `u32::MAX`.
    pub path: &'a Tensor,
    /// U32 \[B\]: receives how many these are, at least 1.
    pub accepted: &'a Tensor,
    /// U32 \[B\]: receives the token that follows the last of them.
    pub next: &'a Tensor,
}

/// Records the walk down each tree.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] from 2³¹ probabilities.
///
/// ```no_run
/// use wgmarlin::tree::{self, ROOT, TreeSampled};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// // Two drafts for the token after node 0, of a vocabulary of three.
/// let parents = gpu.tensor(&[1, 3], &[ROOT, 0, 0])?;
/// let tokens = gpu.tensor(&[1, 3], &[0u32, 2, 1])?;
/// let target = gpu.tensor(&[1, 3, 3], &[0.1f32, 0.3, 0.6, 0.2, 0.2, 0.6, 0.5, 0.0, 0.5])?;
/// let one = || gpu.alloc(DType::U32, &[1]);
/// let (path, accepted, next) = (&gpu.alloc(DType::U32, &[1, 3])?, &one()?, &one()?);
/// let (parents, tokens, target) = (&parents, &tokens, &target);
/// gpu.run(|r| {
///     let (drafts, seed, step) = (None, 42, 0);
///     let request =
///         TreeSampled { parents, tokens, target, drafts, seed, step, path, accepted, next };
///     tree::record_sampled(r, &request)
/// })?;
/// println!("{:?}, then {:?}", gpu.read::<u32>(path)?, gpu.read::<u32>(next)?);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_sampled(recorder: &mut Recorder<'_, '_>, request: &TreeSampled<'_>) -> Result<()> {
    let kernel = TREE_SAMPLED.name;
    let TreeSampled { parents, tokens, target, drafts, seed, step, path, accepted, next } = *request;
    let [trees, nodes] = check_walk(kernel, parents, tokens, [path, accepted, next])?;
    if nodes as usize > MAX_NODES {
        let want = format!("at most {MAX_NODES} nodes");
        return Err(Error::shape(kernel, "parents", parents.shape(), want));
    }
    let cols = target.cols();
    let rows = [parents.rows(), parents.cols(), cols];
    target.expect(kernel, "target", &[DType::F32], &rows)?;
    if !(1..=MAX_COLS).contains(&cols) {
        let want = format!("1 to {MAX_COLS} columns");
        return Err(Error::shape(kernel, "target", target.shape(), want));
    }
    if let Some(drafts) = drafts {
        drafts.expect(kernel, "drafts", &[DType::F32], &rows)?;
    }
    index32(kernel, "probabilities", target.len())?;
    let (tier, defines, needs) = recorder.choose(&TREE_SAMPLED, |_| Ok(variant(drafts.is_some()).into()))?;
    recorder.launch(Launch {
        spec: &TREE_SAMPLED,
        tier,
        defines,
        needs,
        binds: &[parents, tokens, target, drafts.unwrap_or(target), path, accepted, next],
        params: TreeSampledParams {
            trees,
            nodes,
            cols: index32(kernel, "columns", cols)?,
            seed_low: seed as u32,
            seed_high: (seed >> 32) as u32,
            step,
        },
        groups: u64::from(trees),
    })
}
