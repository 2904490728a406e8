//! Which blocks belong to which sequence: the bookkeeping of a [`KvCache`](super::KvCache), without a GPU.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

pub(super) const OP: &str = "KvCache";

/// A sequence of a [`KvCache`](super::KvCache). No two are equal, whatever their cache.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sequence(u64);

/// Blocks that are counted: each knows how many sequences have it.
pub(super) struct Pages {
    /// Rows of a block.
    block: usize,
    /// Most rows of a sequence.
    context: usize,
    owners: Vec<usize>,
    /// The blocks of no owner, the next to be taken at the end.
    free: Vec<u32>,
    sequences: HashMap<Sequence, Owned>,
}

/// `blocks` hold `rows`, and there is no block more than that takes.
#[derive(Clone, Default)]
struct Owned {
    rows: usize,
    blocks: Vec<u32>,
}

impl Pages {
    pub fn new(blocks: u32, block: usize, context: usize) -> Pages {
        let free = (0..blocks).rev().collect();
        Pages { block, context, owners: vec![0; blocks as usize], free, sequences: HashMap::new() }
    }

    pub fn available(&self) -> usize {
        self.free.len()
    }

    pub fn rows(&self, sequence: Sequence) -> Result<usize> {
        Ok(self.owned(sequence)?.rows)
    }

    pub fn blocks(&self, sequence: Sequence) -> Result<&[u32]> {
        Ok(&self.owned(sequence)?.blocks)
    }

    pub fn add(&mut self) -> Sequence {
        self.insert(Owned::default())
    }

    /// A sequence with the first `rows` of another, in the same blocks.
    pub fn fork(&mut self, sequence: Sequence, rows: usize) -> Result<Sequence> {
        let owned = self.owned(sequence)?;
        at_most_its(rows, owned.rows)?;
        let blocks = owned.blocks[..rows.div_ceil(self.block)].to_vec();
        blocks.iter().for_each(|&block| self.owners[block as usize] += 1);
        Ok(self.insert(Owned { rows, blocks }))
    }

    /// Forgets all but the first `rows` of a sequence.
    pub fn truncate(&mut self, sequence: Sequence, rows: usize) -> Result<()> {
        let owned = self.sequences.get_mut(&sequence).ok_or_else(|| unknown(sequence))?;
        at_most_its(rows, owned.rows)?;
        owned.rows = rows;
        let gone = owned.blocks.split_off(rows.div_ceil(self.block));
        self.give_up(gone);
        Ok(())
    }

    pub fn free(&mut self, sequence: Sequence) -> Result<()> {
        let owned = self.sequences.remove(&sequence).ok_or_else(|| unknown(sequence))?;
        self.give_up(owned.blocks);
        Ok(())
    }

    /// Makes room for new rows behind each sequence: all of it, or none and an error. A block that is about to be
    /// written and has other owners is replaced by a free one; gives these (from, to) to copy.
    pub fn append(&mut self, new: &[(Sequence, usize)]) -> Result<Vec<[u32; 2]>> {
        let need = self.need(new)?;
        if need > self.free.len() {
            return Err(Error::CacheFull { need, free: self.free.len() });
        }
        let mut copies = Vec::new();
        for &(sequence, rows) in new.iter().filter(|(_, rows)| *rows > 0) {
            let Some(mut owned) = self.sequences.remove(&sequence) else { continue };
            if let Some(shared) = self.partial(&owned).filter(|&last| self.owners[last as usize] > 1) {
                self.owners[shared as usize] -= 1;
                owned.blocks.pop();
                let own = self.free.len();
                self.take(1, &mut owned.blocks);
                debug_assert_eq!(self.free.len() + 1, own);
                copies.extend(owned.blocks.last().map(|&own| [shared, own]));
            }
            owned.rows += rows;
            let missing = owned.rows.div_ceil(self.block) - owned.blocks.len();
            self.take(missing, &mut owned.blocks);
            self.sequences.insert(sequence, owned);
        }
        Ok(copies)
    }

    /// Checks a step; the free blocks that it takes.
    fn need(&self, new: &[(Sequence, usize)]) -> Result<usize> {
        let (mut need, mut seen) = (0, HashSet::new());
        // Of two that share a block and write into it, the second finds itself its only owner.
        let mut left: HashMap<u32, usize> = HashMap::new();
        for &(sequence, rows) in new {
            let owned = self.owned(sequence)?;
            if !seen.insert(sequence) {
                return Err(Error::value(OP, "sequence", sequence, "in a step only once"));
            }
            let context = self.context;
            let all = owned.rows.checked_add(rows).filter(|&all| all <= context).ok_or_else(|| {
                let room = context - owned.rows;
                Error::value(
                    OP,
                    "new rows of a sequence",
                    rows,
                    format!("at most the {room} left to its context"),
                )
            })?;
            need += all.div_ceil(self.block) - owned.blocks.len();
            if let Some(last) = self.partial(owned).filter(|_| rows > 0) {
                let owners = left.entry(last).or_insert(self.owners[last as usize]);
                if *owners > 1 {
                    *owners -= 1;
                    need += 1;
                }
            }
        }
        Ok(need)
    }

    /// The last block, if there is room in it.
    fn partial(&self, owned: &Owned) -> Option<u32> {
        owned.blocks.last().copied().filter(|_| !owned.rows.is_multiple_of(self.block))
    }

    /// Moves `count` free blocks, which there are, to the end of `blocks`.
    fn take(&mut self, count: usize, blocks: &mut Vec<u32>) {
        for block in self.free.drain(self.free.len() - count..).rev() {
            self.owners[block as usize] = 1;
            blocks.push(block);
        }
    }

    fn give_up(&mut self, blocks: Vec<u32>) {
        // The first of them is the next to be taken.
        for block in blocks.into_iter().rev() {
            let owners = &mut self.owners[block as usize];
            *owners -= 1;
            if *owners == 0 {
                self.free.push(block);
            }
        }
    }

    fn insert(&mut self, owned: Owned) -> Sequence {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let sequence = Sequence(NEXT.fetch_add(1, Ordering::Relaxed));
        self.sequences.insert(sequence, owned);
        sequence
    }

    fn owned(&self, sequence: Sequence) -> Result<&Owned> {
        self.sequences.get(&sequence).ok_or_else(|| unknown(sequence))
    }
}

fn unknown(sequence: Sequence) -> Error {
    Error::value(OP, "sequence", sequence, "one of this cache, not freed")
}

fn at_most_its(rows: usize, has: usize) -> Result<()> {
    if rows > has {
        return Err(Error::value(OP, "rows", rows, format!("at most the sequence's {has}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Random;

    const BLOCK: usize = 8;
    const BLOCKS: u32 = 24;
    const CONTEXT: usize = 50;

    /// What a user sees: the rows of every sequence, as written into a model of the memory.
    struct World {
        pages: Pages,
        memory: Vec<u64>,
        /// Each sequence and the rows that it must have.
        all: Vec<(Sequence, Vec<u64>)>,
        next: u64,
    }

    impl World {
        fn append(&mut self, new: &[(usize, usize)]) -> Result<()> {
            let step: Vec<_> = new.iter().map(|&(i, rows)| (self.all[i].0, rows)).collect();
            for [from, to] in self.pages.append(&step)? {
                let from = from as usize * BLOCK;
                self.memory.copy_within(from..from + BLOCK, to as usize * BLOCK);
            }
            for &(i, rows) in new {
                let (sequence, values) = &mut self.all[i];
                for _ in 0..rows {
                    let at = values.len();
                    let block = self.pages.blocks(*sequence)?[at / BLOCK] as usize;
                    self.memory[block * BLOCK + at % BLOCK] = self.next;
                    values.push(self.next);
                    self.next += 1;
                }
            }
            Ok(())
        }

        /// Every sequence has its rows, every block as many owners as sequences that name it, and none is lost.
        fn check(&self) {
            let mut owners = vec![0; BLOCKS as usize];
            for (sequence, values) in &self.all {
                let blocks = self.pages.blocks(*sequence).expect("known");
                assert_eq!(self.pages.rows(*sequence).expect("known"), values.len());
                assert_eq!(blocks.len(), values.len().div_ceil(BLOCK));
                blocks.iter().for_each(|&block| owners[block as usize] += 1);
                for (i, value) in values.iter().enumerate() {
                    assert_eq!(self.memory[blocks[i / BLOCK] as usize * BLOCK + i % BLOCK], *value);
                }
            }
            assert_eq!(owners, self.pages.owners);
            let mut free = self.pages.free.clone();
            free.sort_unstable();
            let unowned: Vec<u32> = (0..BLOCKS).filter(|&block| owners[block as usize] == 0).collect();
            assert_eq!(free, unowned);
        }
    }

    #[test]
    fn rows_survive_whatever_is_done() {
        let mut random = Random::new(1);
        let (mut full, mut copied) = (0, 0);
        for _ in 0..40 {
            let pages = Pages::new(BLOCKS, BLOCK, CONTEXT);
            let memory = vec![u64::MAX; BLOCKS as usize * BLOCK];
            let mut world = World { pages, memory, all: Vec::new(), next: 0 };
            for _ in 0..200 {
                let i = random.below(world.all.len());
                match random.below(8) {
                    0 => world.all.push((world.pages.add(), Vec::new())),
                    1 if !world.all.is_empty() => {
                        let (sequence, mut values) = world.all[i].clone();
                        values.truncate(random.below(values.len() + 1));
                        let fork = world.pages.fork(sequence, values.len()).expect("as many rows");
                        world.all.push((fork, values));
                    }
                    2 if !world.all.is_empty() => {
                        let (sequence, _) = world.all.swap_remove(i);
                        world.pages.free(sequence).expect("known");
                        assert!(world.pages.free(sequence).is_err());
                    }
                    3 if !world.all.is_empty() => {
                        let (sequence, values) = &mut world.all[i];
                        values.truncate(random.below(values.len() + 1));
                        world.pages.truncate(*sequence, values.len()).expect("as many rows");
                    }
                    _ => {
                        let mut step = Vec::new();
                        for (i, (_, values)) in world.all.iter().enumerate() {
                            if random.below(2) == 0 {
                                step.push((i, random.below(CONTEXT + 1 - values.len()).min(11)));
                            }
                        }
                        let before = world.pages.free.clone();
                        match world.append(&step) {
                            Ok(()) => copied += usize::from(world.pages.owners.iter().any(|&n| n > 1)),
                            Err(Error::CacheFull { need, free }) => {
                                assert!(need > free && free == before.len());
                                assert_eq!(before, world.pages.free);
                                full += 1;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
                world.check();
            }
        }
        assert!(full > 100 && copied > 100, "{full} steps without room, {copied} with shared blocks");
    }

    #[test]
    fn the_last_owner_writes_in_place() {
        let mut pages = Pages::new(4, BLOCK, CONTEXT);
        let a = pages.add();
        assert_eq!(pages.append(&[(a, 10)]).expect("room"), [[0; 2]; 0]);
        let (b, c) = (pages.fork(a, 10).expect("its rows"), pages.fork(a, 9).expect("its rows"));
        assert_eq!(pages.available(), 2);
        // Three share the second block: two of them move out.
        assert_eq!(pages.append(&[(a, 1), (b, 1), (c, 1)]).expect("room"), [[1, 2], [1, 3]]);
        assert_eq!(pages.blocks(c).expect("known"), [0, 1]);
        // Exactly what a step takes is named, and none of it is done.
        let error = pages.append(&[(a, 1), (b, 6), (c, 13)]).expect_err("full");
        assert!(matches!(error, Error::CacheFull { need: 2, free: 0 }), "{error}");
        assert_eq!(pages.rows(a).expect("known"), 11);
        pages.truncate(b, 8).expect("its rows");
        assert_eq!(pages.append(&[(c, 6)]).expect("room"), [[0; 2]; 0]);
        assert_eq!(pages.blocks(c).expect("known"), [0, 1]);
    }

    #[test]
    fn wrong_calls_are_named() {
        let (mut pages, mut other) = (Pages::new(4, BLOCK, CONTEXT), Pages::new(4, BLOCK, CONTEXT));
        let (a, foreign) = (pages.add(), other.add());
        pages.append(&[(a, 3)]).expect("room");
        let named = |error: Error, want: &str| {
            let error = error.to_string();
            assert!(error.starts_with("KvCache: ") && error.contains(want), "{error} is not {want}");
        };
        named(pages.append(&[(a, 1), (foreign, 1)]).expect_err("foreign"), "one of this cache");
        named(pages.append(&[(a, 1), (a, 1)]).expect_err("twice"), "only once");
        named(
            pages.append(&[(a, 48)]).expect_err("long"),
            "rows of a sequence = 48, must be at most the 47 left",
        );
        named(pages.append(&[(a, usize::MAX)]).expect_err("long"), "at most the 47 left");
        named(pages.fork(a, 4).expect_err("long"), "rows = 4, must be at most the sequence's 3");
        named(pages.truncate(a, 4).expect_err("long"), "rows = 4, must be at most the sequence's 3");
        assert_eq!((pages.rows(a).expect("known"), pages.available()), (3, 3));
    }
}
