//! Drafts by looking back: where the last tokens have stood before, what followed them may follow again ("prompt lookup
//! decoding", Saxena, 2023). Several such places make a tree.

use wgmarlin::tree::ROOT;

/// Most nodes of a tree.
const MOST_NODES: usize = 257;
/// Tokens that must have stood before, at best.
const LONGEST: usize = 3;

/// Branches of a tree, and drafts of a branch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TreeSize {
    pub width: usize,
    pub depth: usize,
}

impl TreeSize {
    /// `4x8` or `4×8`.
    pub fn parse(text: &str) -> Result<TreeSize, String> {
        let number = |text: &str| text.parse().ok().filter(|&n: &usize| n > 0);
        let size = text.split_once(['x', '×']).and_then(|(width, depth)| {
            let size = TreeSize { width: number(width)?, depth: number(depth)? };
            (size.width.saturating_mul(size.depth) < MOST_NODES).then_some(size)
        });
        size.ok_or_else(|| {
            format!("needs WIDTHxDEPTH, such as 4x8, both at least 1 and at most {} drafts", MOST_NODES - 1)
        })
    }

    /// Of the largest tree: the drafts and the token that they follow.
    pub fn nodes(self) -> usize {
        1 + self.width * self.depth
    }
}

/// The nodes of a tree. Node 0 is the last token of the text.
#[derive(PartialEq, Debug)]
pub struct Drafts {
    pub tokens: Vec<u32>,
    pub parents: Vec<u32>,
}

impl Drafts {
    /// Looks for the last three tokens of a text, then for the last two, then for the last, the latest places first. The
    /// tree has no more than `most` nodes.
    pub fn look_back(text: &[u32], size: TreeSize, most: usize) -> Drafts {
        let last = text.last().copied().unwrap_or(0);
        let mut drafts = Drafts { tokens: vec![last], parents: vec![ROOT] };
        let mut branches = 0;
        for n in (1..=LONGEST.min(text.len())).rev() {
            let end = &text[text.len() - n..];
            for start in (0..text.len() - n).rev().filter(|&start| &text[start..start + n] == end) {
                // What followed, and round again where the text ends: it may repeat itself.
                let follow = text[start + n..].iter().copied().cycle().take(size.depth);
                branches += usize::from(drafts.add(follow, most));
                if branches == size.width {
                    return drafts;
                }
            }
        }
        drafts
    }

    /// Adds a branch, as far as it is not there already; whether anything of it is new.
    fn add(&mut self, branch: impl Iterator<Item = u32>, most: usize) -> bool {
        let before = self.tokens.len();
        let mut node = 0;
        for token in branch {
            let is_it = |c: &usize| self.parents[*c] == node as u32 && self.tokens[*c] == token;
            node = match (node + 1..self.tokens.len()).find(is_it) {
                Some(child) => child,
                None if self.tokens.len() >= most => break,
                None => {
                    self.parents.push(node as u32);
                    self.tokens.push(token);
                    self.tokens.len() - 1
                }
            };
        }
        self.tokens.len() > before
    }
}
