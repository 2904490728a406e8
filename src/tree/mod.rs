//! Speculative decoding with trees of drafts: a model reads all the tokens that may come next at once, and keeps what it
//! would have written itself ("SpecInfer", Miao et al., 2023).
//!
//! The nodes of a tree are tokens; node 0 is the last one that is known, and every other node follows its parent. A step:
//!
//! 1. [`record_mask`] makes the attention mask of parents, and the depth of each node, which added to the length of the
//!    context is its position.
//! 2. One forward pass over the nodes, with [`Options::tree`](crate::attention::Options::tree), gives each node's logits.
//! 3. [`record_accept`] walks down to where the model's greedy choice leaves the tree; [`record_sampled`] does so for
//!    sampled tokens, without changing the distribution that they have without drafts.
//! 4. [`kv::record_move`](crate::kv::record_move) brings the rows of the accepted nodes together in the KV cache.

mod accept;
mod accept_cases;
pub mod cpu;
mod growth;
mod sampled;
mod sampled_cases;
mod spec;
#[cfg(test)]
mod tests;

pub use accept::{TREE_ACCEPT, TreeAccept, record_accept};
pub(crate) use growth::Growth;
pub use sampled::{MAX_NODES, TREE_SAMPLED, TreeSampled, record_sampled};
pub use spec::TREE_MASK;

use crate::error::{Error, Result};
use crate::kernel::{Launch, Recorder, index32};
use crate::tensor::{DType, Tensor};

/// The parent of a node that has none.
pub const ROOT: u32 = u32::MAX;

/// A tree, or several beside each other, on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    parents: Vec<u32>,
}

impl Tree {
    /// A tree by the parent of each node: a node before it, or [`ROOT`].
    ///
    /// # Errors
    /// [`Error::Value`] for a parent that is the node itself, comes after it, or does not exist; [`Error::Limit`] from
    /// 2³¹ nodes.
    pub fn new(parents: &[u32]) -> Result<Tree> {
        index32("Tree", "nodes", parents.len())?;
        for (node, &parent) in parents.iter().enumerate() {
            if parent != ROOT && parent as usize >= node {
                let want = format!("ROOT or one of the {node} nodes before it");
                return Err(Error::value("Tree", format!("parent of node {node}"), parent, want));
            }
        }
        Ok(Tree { parents: parents.to_vec() })
    }

    pub fn parents(&self) -> &[u32] {
        &self.parents
    }

    /// How many nodes each has above it.
    pub fn depths(&self) -> Vec<u32> {
        let mut depths: Vec<u32> = Vec::with_capacity(self.parents.len());
        for &parent in &self.parents {
            // Parents come first.
            depths.push(depths.get(parent as usize).map_or(0, |depth| depth + 1));
        }
        depths
    }

    /// The words of [`Options::tree`](crate::attention::Options::tree): \[nodes, ⌈nodes / 32⌉\].
    pub fn mask(&self) -> Vec<u32> {
        let nodes = self.parents.len();
        let words = nodes.div_ceil(32);
        let mut mask = vec![0; nodes * words];
        for (node, &parent) in self.parents.iter().enumerate() {
            if (parent as usize) < node {
                mask.copy_within(parent as usize * words..(parent as usize + 1) * words, node * words);
            }
            mask[node * words + node / 32] |= 1 << (node % 32);
        }
        mask
    }
}

/// Which nodes of trees see each other: each its ancestors and itself.
#[derive(Clone, Copy, Debug)]
pub struct TreeMask<'a> {
    /// \[B, nodes\], u32 or i32: the parent of each node. A node whose parent does not come before it (−1, [`ROOT`], itself,
    /// a later one) has none.
    pub parents: &'a Tensor,
    /// U32 \[B, nodes, ⌈nodes / 32⌉\]: for [`Options::tree`](crate::attention::Options::tree).
    pub mask: &'a Tensor,
    /// U32 \[B, nodes\]: how many nodes each has above it.
    pub depths: &'a Tensor,
}

/// Records the making of a mask.
///
/// # Errors
/// [`Error::Shape`] naming the argument, [`Error::Limit`] from 2³¹ words.
///
/// ```no_run
/// use wgmarlin::tree::{self, ROOT, TreeMask};
/// use wgmarlin::{DType, Gpu};
/// let gpu = Gpu::new()?;
/// // 0 has the children 1 and 2; 3 is a child of 1.
/// let parents = gpu.tensor(&[1, 4], &[ROOT, 0, 0, 1])?;
/// let (mask, depths) = (gpu.alloc(DType::U32, &[1, 4, 1])?, gpu.alloc(DType::U32, &[1, 4])?);
/// gpu.run(|r| tree::record_mask(r, &TreeMask { parents: &parents, mask: &mask, depths: &depths }))?;
/// assert_eq!(gpu.read::<u32>(&mask)?, [0b0001, 0b0011, 0b0101, 0b1011]);
/// assert_eq!(gpu.read::<u32>(&depths)?, [0, 1, 1, 2]);
/// # Ok::<(), wgmarlin::Error>(())
/// ```
pub fn record_mask(recorder: &mut Recorder<'_, '_>, request: &TreeMask<'_>) -> Result<()> {
    let kernel = TREE_MASK.name;
    let TreeMask { parents, mask, depths } = *request;
    let [b, nodes] = check_parents(kernel, parents)?;
    let words = nodes.div_ceil(32);
    mask.expect(kernel, "mask", &[DType::U32], &[b, nodes, words])?;
    depths.expect(kernel, "depths", &[DType::U32], &[b, nodes])?;
    index32(kernel, "words of mask", mask.len())?;
    let all = index32(kernel, "nodes of all sequences", parents.len())?;
    let (tier, defines, needs) = recorder.choose(&TREE_MASK, |_| Ok(spec::variant(0).into()))?;
    recorder.launch(Launch {
        spec: &TREE_MASK,
        tier,
        defines,
        needs,
        binds: &[parents, mask, depths],
        // No more than nodes of all sequences, where there are any.
        params: spec::TreeMaskParams { all, nodes: nodes as u32, words: words as u32 },
        groups: u64::from(all.div_ceil(spec::THREADS)),
    })
}

/// The \[B, nodes\] of a request's parents.
fn check_parents(kernel: &'static str, parents: &Tensor) -> Result<[usize; 2]> {
    parents.expect(kernel, "parents", &[DType::U32, DType::I32], parents.shape())?;
    match *parents.shape() {
        [b, nodes] => Ok([b, nodes]),
        _ => Err(Error::shape(kernel, "parents", parents.shape(), "[B, nodes]")),
    }
}
