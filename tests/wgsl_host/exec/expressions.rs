//! Expressions, of all threads at once.

use std::rc::Rc;

use naga::{
    Expression as E, Handle, Literal, MathFunction as M, RelationalFunction, Scalar, Type, TypeInner,
};

use super::super::memory::{column_stride, components, length, of};
use super::super::{ops, warp};
use super::access::of_one;
use super::{Frame, Machine, Pointer, Res, Root, Value, Words};

impl<'a> Machine<'a> {
    pub(super) fn evaluate(&mut self, frame: &mut Frame<'a>, handle: Handle<E>, mask: &[bool]) -> Res<Value> {
        let n = self.threads();
        let module = self.launch.module;
        let words = |words: Vec<u32>| Ok(Value::Words(Rc::new(words)));
        match &frame.function.expressions[handle] {
            E::Literal(literal) => Ok(self.splat(&[word_of(literal)?])),
            E::Constant(constant) => {
                let all = self.constant(module.constants[*constant].init)?;
                Ok(self.splat(&all))
            }
            E::ZeroValue(ty) => words(vec![0; of(module, *ty) * n]),
            E::Compose { components, .. } => {
                let mut all = Vec::new();
                for &component in components {
                    all.extend_from_slice(&self.words(frame, component, mask)?);
                }
                words(all)
            }
            E::Splat { size, value } => {
                let one = self.words(frame, *value, mask)?;
                words(one.repeat(*size as usize))
            }
            E::Swizzle { size, vector, pattern } => {
                let from = self.words(frame, *vector, mask)?;
                let component = |c: usize| from[pattern[c] as usize * n..][..n].to_vec();
                words((0..*size as usize).flat_map(component).collect())
            }
            E::FunctionArgument(index) => Ok(frame.arguments[*index as usize].clone()),
            E::LocalVariable(local) => Ok(self.pointer(Root::Local(*local), 1)),
            E::GlobalVariable(global) => {
                let variable = &module.global_variables[*global];
                Ok(match (variable.space, &variable.binding) {
                    (naga::AddressSpace::WorkGroup, _) => self.pointer(Root::Shared(*global), 0),
                    (naga::AddressSpace::Private, _) => self.pointer(Root::Private(*global), 1),
                    (naga::AddressSpace::Immediate, _) => self.pointer(Root::Params, 0),
                    (_, Some(at)) => self.pointer(Root::Buffer(at.binding as usize), 0),
                    (space, None) => return Err(format!("a variable in {space:?}")),
                })
            }
            E::Load { pointer } => {
                let Value::Pointer(from) = self.value(frame, *pointer, mask)? else {
                    return Err("a load from no pointer".into());
                };
                let inner = frame.info[handle].ty.inner_with(&module.types).clone();
                words(self.load(frame, &from, &inner, mask)?)
            }
            E::AccessIndex { base, index } => {
                let at = vec![*index; n];
                self.access(frame, *base, &at, mask)
            }
            E::Access { base, index } => {
                let at = self.words(frame, *index, mask)?;
                self.access(frame, *base, &at, mask)
            }
            E::Unary { op, expr } => {
                let scalar = self.scalar(frame, *expr)?;
                let from = self.words(frame, *expr, mask)?;
                words(from.iter().map(|&x| ops::unary(*op, scalar, x)).collect::<Res<_>>()?)
            }
            E::Binary { op, left, right } => {
                let scalar = self.scalar(frame, *left)?;
                let (x, y) = (self.words(frame, *left, mask)?, self.words(frame, *right, mask)?);
                let one = |i: usize| ops::binary(*op, scalar, x[i % x.len()], y[i % y.len()]);
                words((0..x.len().max(y.len())).map(one).collect::<Res<_>>()?)
            }
            E::Select { condition, accept, reject } => {
                let which = self.words(frame, *condition, mask)?;
                let (yes, no) = (self.words(frame, *accept, mask)?, self.words(frame, *reject, mask)?);
                let one = |i: usize| if which[i % which.len()] != 0 { yes[i] } else { no[i] };
                words((0..yes.len()).map(one).collect())
            }
            E::Relational { fun, argument } => {
                let of = self.words(frame, *argument, mask)?;
                let parts = |t: usize| of.iter().skip(t).step_by(n).copied();
                words(match fun {
                    RelationalFunction::All => (0..n).map(|t| u32::from(parts(t).all(|x| x != 0))).collect(),
                    RelationalFunction::Any => (0..n).map(|t| u32::from(parts(t).any(|x| x != 0))).collect(),
                    other => return Err(format!("{other:?}")),
                })
            }
            E::Math { fun: M::Transpose, arg, .. } => {
                let TypeInner::Matrix { columns, rows, .. } = *frame.info[*arg].ty.inner_with(&module.types)
                else {
                    return Err("the transpose of no matrix".into());
                };
                let from = self.words(frame, *arg, mask)?;
                let part = |c: usize, r: usize| from[(c * rows as usize + r) * n..][..n].to_vec();
                let row = |r: usize| (0..columns as usize).flat_map(move |c| part(c, r));
                words((0..rows as usize).flat_map(row).collect())
            }
            E::Math { fun, arg, arg1, arg2, .. } => {
                let scalar = self.scalar(frame, *arg)?;
                let mut all = vec![self.words(frame, *arg, mask)?];
                for arg in [arg1, arg2].into_iter().flatten() {
                    all.push(self.words(frame, *arg, mask)?);
                }
                words(math(*fun, scalar, &all, n)?)
            }
            E::As { expr, kind, convert } => {
                let scalar = self.scalar(frame, *expr)?;
                let from = self.words(frame, *expr, mask)?;
                words(from.iter().map(|&x| ops::convert(scalar, *kind, *convert, x)).collect::<Res<_>>()?)
            }
            E::ArrayLength(pointer) => {
                let Value::Pointer(Pointer { root: Root::Buffer(binding), at }) =
                    self.value(frame, *pointer, mask)?
                else {
                    return Err("the length of no buffer".into());
                };
                let TypeInner::Array { stride, .. } = pointee(module, frame, *pointer)? else {
                    return Err("of no array".into());
                };
                let bytes = self.buffers.0[binding].len();
                words(at.iter().map(|at| ((bytes - at) / stride as usize) as u32).collect())
            }
            E::CooperativeLoad { data, .. } => {
                let inner = frame.info[handle].ty.inner_with(&module.types).clone();
                let mut all = Vec::new();
                for from in self.elements(frame, &inner, data, mask)? {
                    all.extend(self.load(frame, &from, &of_one(&inner)?, mask)?);
                }
                words(all)
            }
            E::CooperativeMultiplyAdd { a, b, c } => {
                if mask.contains(&false) {
                    return Err("a product of matrices that not all threads take part in".into());
                }
                let (of, to) = (self.scalar(frame, *a)?, self.scalar(frame, *c)?);
                let [a, b, c] = [*a, *b, *c].map(|x| self.words(frame, x, mask));
                words(warp::multiply_add(&a?, &b?, &c?, n, of, to))
            }
            other => Err(format!("expression {other:?} before its statement")),
        }
    }

    /// To the start of a variable, which threads have each for themselves or share.
    fn pointer(&self, root: Root, step: usize) -> Value {
        Value::Pointer(Pointer { root, at: Rc::new((0..self.threads()).map(|t| t * step).collect()) })
    }

    fn constant(&self, handle: Handle<E>) -> Res<Vec<u32>> {
        let module = self.launch.module;
        Ok(match &module.global_expressions[handle] {
            E::Literal(literal) => vec![word_of(literal)?],
            E::Constant(constant) => self.constant(module.constants[*constant].init)?,
            E::ZeroValue(ty) => vec![0; of(module, *ty)],
            E::Compose { components, .. } => {
                components.iter().map(|&c| self.constant(c)).collect::<Res<Vec<_>>>()?.concat()
            }
            E::Splat { size, value } => self.constant(*value)?.repeat(*size as usize),
            other => return Err(format!("constant {other:?}")),
        })
    }

    /// A part of a value, or a pointer to a part of what a pointer points to.
    fn access(&mut self, frame: &mut Frame<'a>, base: Handle<E>, index: &[u32], mask: &[bool]) -> Res<Value> {
        let n = self.threads();
        let module = self.launch.module;
        let value = self.value(frame, base, mask)?;
        let inner = match &value {
            Value::Pointer(_) => pointee(module, frame, base)?,
            Value::Words(_) => frame.info[base].ty.inner_with(&module.types).clone(),
        };
        if let Some(most) = count(&inner)
            && let Some(t) = (0..n).find(|&t| mask[t] && index[t] as usize >= most)
        {
            return Err(format!("element {} of {most}", index[t]));
        }
        Ok(match value {
            Value::Pointer(Pointer { root, at }) => {
                let bytes = matches!(root, Root::Buffer(_) | Root::Params);
                let each = if matches!(root, Root::Local(_) | Root::Private(_)) { n } else { 1 };
                let step = |t: usize| part(module, &inner, index[t] as usize, bytes).0;
                let at = (0..n).map(|t| if mask[t] { at[t] + step(t) * each } else { at[t] }).collect();
                Value::Pointer(Pointer { root, at: Rc::new(at) })
            }
            Value::Words(words) => {
                let parts = part(module, &inner, index[0] as usize, false).1;
                let first =
                    |t: usize| if mask[t] { part(module, &inner, index[t] as usize, false).0 } else { 0 };
                let firsts: Vec<usize> = (0..n).map(first).collect();
                let one = |i: usize| words[(firsts[i % n] + i / n) * n + i % n];
                Value::Words(Rc::new((0..parts * n).map(one).collect()))
            }
        })
    }
}

fn word_of(literal: &Literal) -> Res<u32> {
    Ok(match *literal {
        Literal::F32(x) => x.to_bits(),
        Literal::F16(x) => u32::from(x.to_bits()),
        Literal::U32(x) => x,
        Literal::I32(x) => x as u32,
        Literal::Bool(x) => u32::from(x),
        other => return Err(format!("literal {other:?}")),
    })
}

pub(super) fn pointee(module: &naga::Module, frame: &Frame<'_>, pointer: Handle<E>) -> Res<TypeInner> {
    Ok(match frame.info[pointer].ty.inner_with(&module.types) {
        TypeInner::Pointer { base, .. } => module.types[*base].inner.clone(),
        TypeInner::ValuePointer { size: Some(size), scalar, .. } => {
            TypeInner::Vector { size: *size, scalar: *scalar }
        }
        TypeInner::ValuePointer { scalar, .. } => TypeInner::Scalar(*scalar),
        other => return Err(format!("{other:?} is no pointer")),
    })
}

/// Parts of a composite, if that is known.
fn count(inner: &TypeInner) -> Option<usize> {
    match inner {
        TypeInner::Array { size, .. } => Some(length(*size)).filter(|&n| n > 0),
        TypeInner::Vector { size, .. } => Some(*size as usize),
        TypeInner::Matrix { columns, .. } => Some(*columns as usize),
        TypeInner::Struct { members, .. } => Some(members.len()),
        _ => None,
    }
}

/// Where a part of a composite begins, in scalars or bytes, and its scalars.
fn part(module: &naga::Module, inner: &TypeInner, index: usize, bytes: bool) -> (usize, usize) {
    let scalars = |ty: Handle<Type>| of(module, ty);
    match inner {
        TypeInner::Array { base, stride, .. } => {
            (index * if bytes { *stride as usize } else { scalars(*base) }, scalars(*base))
        }
        TypeInner::Vector { scalar, .. } => (index * if bytes { scalar.width as usize } else { 1 }, 1),
        TypeInner::Matrix { rows, scalar, .. } => {
            let rows = *rows as usize;
            (index * if bytes { column_stride(rows, scalar.width as usize) } else { rows }, rows)
        }
        TypeInner::Struct { members, .. } => match members.get(index) {
            Some(member) if bytes => (member.offset as usize, scalars(member.ty)),
            Some(member) => (members[..index].iter().map(|m| scalars(m.ty)).sum(), scalars(member.ty)),
            None => (0, 0),
        },
        other => (0, components(module, other)),
    }
}

fn math(fun: M, scalar: Scalar, args: &[Words], n: usize) -> Res<Vec<u32>> {
    let x = &args[0];
    Ok(match fun {
        M::Unpack2x16float => {
            let both: Vec<[u32; 2]> = x.iter().map(|&x| ops::halves(x)).collect();
            (0..2).flat_map(|h| both.iter().map(move |b| b[h])).collect()
        }
        M::Pack2x16float => (0..n).map(|t| ops::word_of_halves(x[t], x[n + t])).collect(),
        M::Dot => {
            let product = |i: usize| ops::float(scalar, x[i]) * ops::float(scalar, args[1][i]);
            (0..n).map(|t| ops::rounded(scalar, (t..x.len()).step_by(n).map(product).sum())).collect()
        }
        _ => {
            let arg = |a: usize, i: usize| args.get(a).map_or(0, |words| words[i % words.len()]);
            (0..x.len())
                .map(|i| ops::math(fun, scalar, [arg(0, i), arg(1, i), arg(2, i), 0]))
                .collect::<Res<_>>()?
        }
    })
}
