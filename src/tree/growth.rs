//! Trees for cases.

use super::ROOT;
use crate::kernel::Random;

/// How the nodes of a tree hang together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Growth {
    /// Every node below the one before it.
    Chain,
    /// Every node below the first.
    Star,
    /// At random, with so many levels at most; the first branch has them all. Few nodes begin anew.
    Depth(usize),
    /// The parents are any numbers.
    Malformed,
}

impl Growth {
    pub fn label(self) -> String {
        match self {
            Growth::Chain => "chain".to_string(),
            Growth::Star => "star".to_string(),
            Growth::Depth(depth) => format!("depth {depth}"),
            Growth::Malformed => "malformed".to_string(),
        }
    }

    /// The parent of each node.
    pub fn parents(self, nodes: usize, random: &mut Random) -> Vec<u32> {
        let mut depths: Vec<usize> = Vec::new();
        let mut grow = |n: usize| {
            let (parent, most) = match self {
                Growth::Chain => (n.wrapping_sub(1), usize::MAX),
                Growth::Star => (0, usize::MAX),
                Growth::Depth(most) if n < most => (n.wrapping_sub(1), most),
                Growth::Depth(most) => (random.below(n + n / 8), most),
                Growth::Malformed => {
                    return [random.next_u64() as u32, random.below(nodes + 2) as u32][n % 2];
                }
            };
            let depth = depths.get(parent).map_or(0, |depth| depth + 1);
            depths.push(if depth < most { depth } else { 0 });
            if parent < n && depth < most { parent as u32 } else { ROOT }
        };
        (0..nodes).map(&mut grow).collect()
    }
}
