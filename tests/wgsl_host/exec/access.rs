//! Accesses: of variables and buffers, by atomics, and of matrices.

use std::rc::Rc;

use naga::{AtomicFunction as A, BinaryOperator as B, Expression as E, Handle, MathFunction as M, TypeInner};

use super::super::memory::{components, layout, load, store};
use super::super::{LANES, ops, warp};
use super::expressions::pointee;
use super::{Frame, Machine, Pointer, Res, Root, Value};

impl<'a> Machine<'a> {
    /// Where the elements of a matrix are that each thread holds: its own array, of which the matrix is made (`src/kernel/spirv.rs`), or the
    /// places of them in memory that threads share.
    pub(super) fn elements(
        &mut self,
        frame: &mut Frame<'a>,
        inner: &TypeInner,
        data: &naga::CooperativeData,
        mask: &[bool],
    ) -> Res<Vec<Pointer>> {
        let n = self.threads();
        let TypeInner::CooperativeMatrix { role, .. } = *inner else { return Err("no matrix".into()) };
        let Value::Pointer(Pointer { root, at }) = self.value(frame, data.pointer, mask)? else {
            return Err("no pointer".into());
        };
        // In units of what the pointer points to.
        let stride = self.words(frame, data.stride, mask)?;
        let unit = components(self.launch.module, &pointee(self.launch.module, frame, data.pointer)?);
        let place = |e: usize, t: usize| match root {
            Root::Local(_) => e * n,
            _ => warp::place(t % LANES, e, role, stride[t] as usize * unit, data.row_major),
        };
        if !matches!(root, Root::Local(_) | Root::Shared(_)) {
            return Err("a matrix in a buffer".into());
        }
        let pointer = |e: usize| Pointer { root, at: Rc::new((0..n).map(|t| at[t] + place(e, t)).collect()) };
        Ok((0..warp::HELD).map(pointer).collect())
    }

    pub(super) fn load(
        &mut self,
        frame: &Frame<'_>,
        from: &Pointer,
        inner: &TypeInner,
        mask: &[bool],
    ) -> Res<Vec<u32>> {
        let n = self.threads();
        let module = self.launch.module;
        let parts = components(module, inner);
        let mut out = vec![0; parts * n];
        let active = (0..n).filter(|&t| mask[t]);
        match from.root {
            Root::Buffer(_) | Root::Params => {
                let mut places = Vec::new();
                layout(module, inner, 0, &mut places);
                let bytes = match from.root {
                    Root::Buffer(binding) => &self.buffers.0[binding],
                    _ => self.launch.params,
                };
                for t in active {
                    for (c, &(at, width)) in places.iter().enumerate() {
                        out[c * n + t] = load(bytes, from.at[t] + at, width)?;
                    }
                }
            }
            Root::Shared(variable) => {
                let shared = self.shared.get_mut(&variable).ok_or("no such variable")?;
                for t in active {
                    for c in 0..parts {
                        out[c * n + t] = shared.load(from.at[t] + c, t, &self.clock)?;
                    }
                }
            }
            Root::Local(_) | Root::Private(_) => {
                let words = match from.root {
                    Root::Local(local) => &frame.locals[&local],
                    Root::Private(private) => &self.private[&private],
                    _ => return Err("no such root".into()),
                };
                for t in active {
                    for c in 0..parts {
                        out[c * n + t] = *words.get(from.at[t] + c * n).ok_or("past a variable's end")?;
                    }
                }
            }
        }
        Ok(out)
    }

    pub(super) fn store(
        &mut self,
        frame: &mut Frame<'_>,
        to: &Pointer,
        inner: &TypeInner,
        words: &[u32],
        mask: &[bool],
    ) -> Res<()> {
        let n = self.threads();
        let module = self.launch.module;
        let parts = components(module, inner);
        let active = (0..n).filter(|&t| mask[t]);
        match to.root {
            Root::Params => return Err("a store into parameters".into()),
            Root::Buffer(binding) => {
                let mut places = Vec::new();
                layout(module, inner, 0, &mut places);
                for t in active {
                    for (c, &(at, width)) in places.iter().enumerate() {
                        store(&mut self.buffers.0[binding], to.at[t] + at, width, words[c * n + t])?;
                    }
                }
            }
            Root::Shared(variable) => {
                let shared = self.shared.get_mut(&variable).ok_or("no such variable")?;
                for t in active {
                    for c in 0..parts {
                        shared.store(to.at[t] + c, t, &self.clock, words[c * n + t])?;
                    }
                }
            }
            Root::Local(_) | Root::Private(_) => {
                let into = match to.root {
                    Root::Local(local) => frame.locals.get_mut(&local),
                    Root::Private(private) => self.private.get_mut(&private),
                    _ => None,
                };
                let into = into.ok_or("no such variable")?;
                for t in active {
                    for c in 0..parts {
                        *into.get_mut(to.at[t] + c * n).ok_or("past a variable's end")? = words[c * n + t];
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn atomic(
        &mut self,
        frame: &mut Frame<'a>,
        pointer: Handle<E>,
        fun: &A,
        value: Handle<E>,
        result: Option<Handle<E>>,
        mask: &[bool],
    ) -> Res<()> {
        let Value::Pointer(to) = self.value(frame, pointer, mask)? else {
            return Err("an atomic of no pointer".into());
        };
        let words = self.words(frame, value, mask)?;
        let scalar = self.scalar(frame, value)?;
        let inner = TypeInner::Scalar(scalar);
        let mut before = vec![0; self.threads()];
        for t in (0..self.threads()).filter(|&t| mask[t]) {
            let mut one = vec![false; self.threads()];
            one[t] = true;
            let old = self.load(frame, &to, &inner, &one)?;
            let with = |op| ops::binary(op, scalar, old[t], words[t]);
            let extreme = |fun| ops::math(fun, scalar, [old[t], words[t], 0, 0]);
            let new = match fun {
                A::Add => with(B::Add)?,
                A::Subtract => with(B::Subtract)?,
                A::And => with(B::And)?,
                A::InclusiveOr => with(B::InclusiveOr)?,
                A::ExclusiveOr => with(B::ExclusiveOr)?,
                A::Min => extreme(M::Min)?,
                A::Max => extreme(M::Max)?,
                A::Exchange { compare: None } => words[t],
                A::Exchange { .. } => return Err("a conditional exchange".into()),
            };
            before[t] = old[t];
            self.store(frame, &to, &inner, &vec![new; self.threads()], &one)?;
        }
        if let Some(result) = result {
            frame.values[result.index()] = Some(Value::Words(Rc::new(before)));
        }
        Ok(())
    }
}

/// An element of a matrix.
pub(super) fn of_one(matrix: &TypeInner) -> Res<TypeInner> {
    matrix.scalar().map(TypeInner::Scalar).ok_or_else(|| "no matrix".into())
}
