//! Memory: how values lie in it, and what is wrong with an access.

use naga::{ArraySize, Handle, Module, Type, TypeInner};

use super::warp::HELD;

/// Storage buffers, by binding.
pub struct Buffers(pub Vec<Vec<u8>>);

/// Scalars of a value.
pub fn components(module: &Module, inner: &TypeInner) -> usize {
    match inner {
        TypeInner::Scalar(_) | TypeInner::Atomic(_) => 1,
        TypeInner::Vector { size, .. } => *size as usize,
        TypeInner::Matrix { columns, rows, .. } => *columns as usize * *rows as usize,
        TypeInner::CooperativeMatrix { .. } => HELD,
        TypeInner::Array { base, size, .. } => length(*size) * of(module, *base),
        TypeInner::Struct { members, .. } => members.iter().map(|m| of(module, m.ty)).sum(),
        _ => 0,
    }
}

pub fn of(module: &Module, ty: Handle<Type>) -> usize {
    components(module, &module.types[ty].inner)
}

pub fn length(size: ArraySize) -> usize {
    match size {
        ArraySize::Constant(n) => n.get() as usize,
        _ => 0,
    }
}

/// Where each scalar of a value lies behind its address in a buffer, and its bytes.
pub fn layout(module: &Module, inner: &TypeInner, at: usize, into: &mut Vec<(usize, usize)>) {
    let mut vector = |at: usize, n: usize, width: usize| into.extend((0..n).map(|i| (at + i * width, width)));
    match inner {
        TypeInner::Scalar(s) | TypeInner::Atomic(s) => vector(at, 1, s.width as usize),
        TypeInner::Vector { size, scalar } => vector(at, *size as usize, scalar.width as usize),
        TypeInner::Matrix { columns, rows, scalar } => {
            let (rows, width) = (*rows as usize, scalar.width as usize);
            (0..*columns as usize).for_each(|c| vector(at + c * column_stride(rows, width), rows, width));
        }
        TypeInner::Array { base, size, stride } => {
            let base = &module.types[*base].inner;
            (0..length(*size)).for_each(|i| layout(module, base, at + i * *stride as usize, into));
        }
        TypeInner::Struct { members, .. } => {
            members
                .iter()
                .for_each(|m| layout(module, &module.types[m.ty].inner, at + m.offset as usize, into));
        }
        _ => {}
    }
}

/// Bytes from one column of a matrix to the next, of so many rows.
pub fn column_stride(rows: usize, width: usize) -> usize {
    if rows == 3 { 4 * width } else { rows * width }
}

pub fn load(bytes: &[u8], at: usize, width: usize) -> Result<u32, String> {
    let from = bytes.get(at..at + width).ok_or_else(|| past(at, bytes.len()))?;
    Ok(from.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
}

pub fn store(bytes: &mut [u8], at: usize, width: usize, word: u32) -> Result<(), String> {
    let len = bytes.len();
    let into = bytes.get_mut(at..at + width).ok_or_else(|| past(at, len))?;
    into.copy_from_slice(&word.to_le_bytes()[..width]);
    Ok(())
}

fn past(at: usize, len: usize) -> String {
    format!("byte {at} of a buffer of {len}")
}

/// What a thread did, and when: counts of barriers that it had passed.
#[derive(Clone, Copy, PartialEq)]
struct Deed {
    thread: usize,
    workgroup: u32,
    subgroup: u32,
}

/// Counts of barriers, of the workgroup and of each subgroup.
#[derive(Clone, Default)]
pub struct Clock {
    pub workgroup: u32,
    pub subgroups: Vec<u32>,
}

impl Clock {
    fn now(&self, thread: usize) -> Deed {
        let subgroup = self.subgroups[thread / super::LANES];
        Deed { thread, workgroup: self.workgroup, subgroup }
    }

    /// Whether nothing orders a deed before what `thread` does now.
    fn races(&self, deed: Option<Deed>, thread: usize) -> bool {
        let Some(deed) = deed else { return false };
        let same = deed.thread / super::LANES == thread / super::LANES;
        let ordered = same && deed.subgroup < self.subgroups[thread / super::LANES];
        deed.thread != thread && deed.workgroup == self.workgroup && !ordered
    }
}

#[derive(Clone, Copy)]
struct Cell {
    word: u32,
    written: Option<Deed>,
    /// The last reader's.
    read: Option<Deed>,
    /// Whether other threads of its subgroup have read it since the subgroup's barrier, and other subgroups since the workgroup's.
    lanes: bool,
    subgroups: bool,
}

impl Cell {
    fn note_reader(&mut self, now: Deed) {
        let since = self.read.filter(|read| read.workgroup == now.workgroup);
        let (same, others) = match since {
            Some(read) => (read.thread / super::LANES == now.thread / super::LANES, self.subgroups),
            None => (true, false),
        };
        let met = since.filter(|read| same && read.subgroup == now.subgroup);
        self.lanes = met.is_some_and(|read| self.lanes || read.thread != now.thread);
        self.subgroups = others || !same;
        self.read = Some(now);
    }

    /// Whether nothing orders all that have read it before what `thread` does now.
    fn read_races(&self, thread: usize, clock: &Clock) -> bool {
        let now = clock.now(thread);
        let lanes = self.read.is_some_and(|read| {
            read.workgroup == now.workgroup && (self.subgroups || self.lanes && read.subgroup == now.subgroup)
        });
        lanes || clock.races(self.read, thread)
    }
}

/// A variable of workgroup memory, one cell a scalar. It begins with what is no number that a kernel could want.
pub struct Shared {
    cells: Vec<Cell>,
    atomic: bool,
}

impl Shared {
    pub fn new(len: usize, atomic: bool) -> Shared {
        let cell = Cell { word: 0x7fc0_dead, written: None, read: None, lanes: false, subgroups: false };
        Shared { cells: vec![cell; len], atomic }
    }

    fn cell(&mut self, at: usize) -> Result<&mut Cell, String> {
        let len = self.cells.len();
        self.cells.get_mut(at).ok_or_else(|| format!("scalar {at} of workgroup memory of {len}"))
    }

    pub fn load(&mut self, at: usize, thread: usize, clock: &Clock) -> Result<u32, String> {
        let atomic = self.atomic;
        let cell = self.cell(at)?;
        if !atomic && clock.races(cell.written, thread) {
            return Err(format!(
                "thread {thread} reads scalar {at}, which another has written since the last barrier"
            ));
        }
        cell.note_reader(clock.now(thread));
        Ok(cell.word)
    }

    pub fn store(&mut self, at: usize, thread: usize, clock: &Clock, word: u32) -> Result<(), String> {
        let atomic = self.atomic;
        let cell = self.cell(at)?;
        let raced = clock.races(cell.written, thread) && cell.word != word || cell.read_races(thread, clock);
        if !atomic && raced {
            return Err(format!(
                "thread {thread} writes scalar {at}, which another has used since the last barrier"
            ));
        }
        cell.word = word;
        cell.written = Some(clock.now(thread));
        Ok(())
    }
}
