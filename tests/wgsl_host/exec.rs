//! Statements and expressions, of all threads of a workgroup at once.

mod access;
mod expressions;

use std::collections::HashMap;
use std::rc::Rc;

use naga::{
    AddressSpace as Space, Barrier, Block, BuiltIn, Expression as E, Function, GatherMode, GlobalVariable,
    Handle, LocalVariable, Scalar, Statement as St, SwitchValue, Type, TypeInner, valid::FunctionInfo,
};

use super::memory::{Buffers, Clock, Shared, of};
use super::{LANES, Launch, warp};
use access::of_one;

type Words = Rc<Vec<u32>>;
type Res<T> = Result<T, String>;

/// Steps after which a loop is taken for endless.
const MOST_ROUNDS: usize = 1 << 20;

#[derive(Clone, Copy)]
enum Root {
    Local(Handle<LocalVariable>),
    Private(Handle<GlobalVariable>),
    Shared(Handle<GlobalVariable>),
    Buffer(usize),
    Params,
}

/// Of each thread a scalar of a variable or, of buffers and parameters, a byte.
#[derive(Clone)]
struct Pointer {
    root: Root,
    at: Rc<Vec<usize>>,
}

#[derive(Clone)]
enum Value {
    Words(Words),
    Pointer(Pointer),
}

/// A call: what its expressions are, and how it has ended for each thread.
struct Frame<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
    values: Vec<Option<Value>>,
    arguments: Vec<Value>,
    locals: HashMap<Handle<LocalVariable>, Vec<u32>>,
    returned: Vec<u32>,
}

/// The threads that a loop's body has left early.
#[derive(Default)]
struct Left {
    broke: Vec<bool>,
    continued: Vec<bool>,
}

struct Machine<'a> {
    launch: &'a Launch<'a>,
    buffers: &'a mut Buffers,
    group: (u32, u32),
    shared: HashMap<Handle<GlobalVariable>, Shared>,
    private: HashMap<Handle<GlobalVariable>, Vec<u32>>,
    clock: Clock,
    /// Threads that a barrier must meet.
    alive: Vec<bool>,
}

pub fn workgroup(launch: &Launch<'_>, buffers: &mut Buffers, group: (u32, u32)) -> Res<()> {
    let threads = launch.threads;
    let mut machine = Machine {
        launch,
        buffers,
        group,
        shared: HashMap::new(),
        private: HashMap::new(),
        clock: Clock { workgroup: 0, subgroups: vec![0; threads.div_ceil(LANES)] },
        alive: vec![true; threads],
    };
    let entry = &launch.module.entry_points[0];
    for (handle, variable) in launch.module.global_variables.iter() {
        let atomic = is_atomic(launch.module, variable.ty);
        let len = of(launch.module, variable.ty);
        match variable.space {
            Space::WorkGroup => drop(machine.shared.insert(handle, Shared::new(len, atomic))),
            Space::Private => drop(machine.private.insert(handle, vec![0; len * threads])),
            _ => {}
        }
    }
    let arguments = entry
        .function
        .arguments
        .iter()
        .map(|a| machine.argument(a.ty, a.binding.as_ref()))
        .collect::<Res<_>>()?;
    machine.call(&entry.function, launch.info.get_entry_point(0), arguments, &vec![true; threads])?;
    Ok(())
}

impl<'a> Machine<'a> {
    fn threads(&self) -> usize {
        self.launch.threads
    }

    /// One value for all threads.
    fn splat(&self, words: &[u32]) -> Value {
        Value::Words(Rc::new(words.iter().flat_map(|&w| std::iter::repeat_n(w, self.threads())).collect()))
    }

    fn argument(&self, ty: Handle<Type>, binding: Option<&naga::Binding>) -> Res<Value> {
        let (n, module) = (self.threads() as u32, self.launch.module);
        let (groups, group) = (self.launch.groups, self.group);
        let each = |f: &dyn Fn(u32) -> u32| Value::Words(Rc::new((0..n).map(f).collect()));
        match (binding, &module.types[ty].inner) {
            (Some(naga::Binding::BuiltIn(builtin)), _) => Ok(match builtin {
                BuiltIn::WorkGroupId => self.splat(&[group.0, group.1, 0]),
                BuiltIn::NumWorkGroups => self.splat(&[groups.0, groups.1, 1]),
                BuiltIn::LocalInvocationIndex => each(&|t| t),
                BuiltIn::SubgroupId => each(&|t| t / LANES as u32),
                BuiltIn::SubgroupInvocationId => each(&|t| t % LANES as u32),
                BuiltIn::NumSubgroups => self.splat(&[n.div_ceil(LANES as u32)]),
                BuiltIn::SubgroupSize => self.splat(&[LANES as u32]),
                other => return Err(format!("builtin {other:?}")),
            }),
            (None, TypeInner::Struct { members, .. }) => {
                let mut all = Vec::new();
                for member in members {
                    let Value::Words(words) = self.argument(member.ty, member.binding.as_ref())? else {
                        continue;
                    };
                    all.extend_from_slice(&words);
                }
                Ok(Value::Words(Rc::new(all)))
            }
            _ => Err("an argument without a builtin".into()),
        }
    }

    fn call(
        &mut self,
        function: &'a Function,
        info: &'a FunctionInfo,
        arguments: Vec<Value>,
        mask: &[bool],
    ) -> Res<Words> {
        let module = self.launch.module;
        let n = self.threads();
        let result = function.result.as_ref().map_or(0, |r| of(module, r.ty));
        let locals =
            function.local_variables.iter().map(|(h, v)| (h, vec![0; of(module, v.ty) * n])).collect();
        let values = vec![None; function.expressions.len()];
        let mut frame = Frame { function, info, values, arguments, locals, returned: vec![0; result * n] };
        for (handle, variable) in function.local_variables.iter() {
            if let Some(init) = variable.init {
                let words = self.words(&mut frame, init, mask)?;
                frame.locals.insert(handle, words.to_vec());
            }
        }
        let mut mask = mask.to_vec();
        self.block(&mut frame, &function.body, &mut mask, &mut Left::default())?;
        Ok(Rc::new(frame.returned))
    }

    fn block(
        &mut self,
        frame: &mut Frame<'a>,
        block: &'a Block,
        mask: &mut Vec<bool>,
        left: &mut Left,
    ) -> Res<()> {
        for statement in block.iter() {
            if !mask.contains(&true) {
                break;
            }
            self.statement(frame, statement, mask, left)?;
        }
        Ok(())
    }

    fn statement(
        &mut self,
        frame: &mut Frame<'a>,
        statement: &'a St,
        mask: &mut Vec<bool>,
        left: &mut Left,
    ) -> Res<()> {
        let n = self.threads();
        match statement {
            St::Emit(range) => {
                for handle in range.clone() {
                    let value = self.evaluate(frame, handle, mask)?;
                    frame.values[handle.index()] = Some(value);
                }
            }
            St::Block(block) => self.block(frame, block, mask, left)?,
            St::If { condition, accept, reject } => {
                let holds = self.words(frame, *condition, mask)?;
                let side =
                    |mask: &[bool], want: bool| (0..n).map(|t| mask[t] && (holds[t] != 0) == want).collect();
                let (mut yes, mut no): (Vec<bool>, Vec<bool>) = (side(mask, true), side(mask, false));
                self.block(frame, accept, &mut yes, left)?;
                self.block(frame, reject, &mut no, left)?;
                (0..n).for_each(|t| mask[t] = yes[t] || no[t]);
            }
            St::Loop { body, continuing, break_if } => {
                let mut broke = vec![false; n];
                for round in 0.. {
                    if round == MOST_ROUNDS {
                        return Err("a loop does not end".into());
                    }
                    let mut inner = Left { broke: vec![false; n], continued: vec![false; n] };
                    self.block(frame, body, mask, &mut inner)?;
                    (0..n).for_each(|t| mask[t] |= inner.continued[t]);
                    self.block(frame, continuing, mask, &mut Left::default())?;
                    if let Some(condition) = break_if {
                        let ends = self.words(frame, *condition, mask)?;
                        for t in (0..n).filter(|&t| ends[t] != 0 && mask[t]).collect::<Vec<_>>() {
                            (inner.broke[t], mask[t]) = (true, false);
                        }
                    }
                    (0..n).for_each(|t| broke[t] |= inner.broke[t]);
                    if !mask.contains(&true) {
                        break;
                    }
                }
                *mask = broke;
            }
            St::Switch { selector, cases } => {
                let on = self.words(frame, *selector, mask)?;
                let value = |case: &naga::SwitchCase| match case.value {
                    SwitchValue::U32(x) => Some(x),
                    SwitchValue::I32(x) => Some(x as u32),
                    SwitchValue::Default => None,
                };
                let known: Vec<u32> = cases.iter().filter_map(value).collect();
                let (mut after, mut falling) = (vec![false; n], vec![false; n]);
                for case in cases {
                    let of = value(case);
                    let takes = |t: usize| of.map_or(!known.contains(&on[t]), |x| on[t] == x);
                    let mut here: Vec<bool> = (0..n).map(|t| falling[t] || mask[t] && takes(t)).collect();
                    // A break leaves the switch, not the loop around it.
                    let mut inner =
                        Left { broke: vec![false; n], continued: std::mem::take(&mut left.continued) };
                    self.block(frame, &case.body, &mut here, &mut inner)?;
                    left.continued = inner.continued;
                    falling = if case.fall_through { here.clone() } else { vec![false; n] };
                    (0..n).for_each(|t| after[t] |= inner.broke[t] || here[t] && !case.fall_through);
                }
                *mask = after;
            }
            St::Break => leave(mask, &mut left.broke),
            St::Continue => leave(mask, &mut left.continued),
            St::Return { value } => {
                if let Some(value) = value {
                    let words = self.words(frame, *value, mask)?;
                    let all = frame.returned.iter_mut().zip(words.iter()).enumerate();
                    all.filter(|(i, _)| mask[i % n]).for_each(|(_, (to, &from))| *to = from);
                }
                if std::ptr::eq(frame.function, &self.launch.module.entry_points[0].function) {
                    (0..n).filter(|&t| mask[t]).for_each(|t| self.alive[t] = false);
                }
                mask.fill(false);
            }
            St::ControlBarrier(kind) => self.barrier(*kind, mask)?,
            St::MemoryBarrier(_) => {}
            St::Store { pointer, value } => {
                let Value::Pointer(to) = self.value(frame, *pointer, mask)? else {
                    return Err("a store into no pointer".into());
                };
                let words = self.words(frame, *value, mask)?;
                let inner = frame.info[*value].ty.inner_with(&self.launch.module.types).clone();
                self.store(frame, &to, &inner, &words, mask)?;
            }
            St::Atomic { pointer, fun, value, result } => {
                self.atomic(frame, *pointer, fun, *value, *result, mask)?
            }
            St::Call { function, arguments, result } => {
                let values = arguments.iter().map(|&a| self.value(frame, a, mask)).collect::<Res<_>>()?;
                let callee = &self.launch.module.functions[*function];
                let returned = self.call(callee, &self.launch.info[*function], values, mask)?;
                if let Some(result) = result {
                    frame.values[result.index()] = Some(Value::Words(returned));
                }
            }
            St::SubgroupGather { mode, argument, result } => {
                let lanes = match mode {
                    GatherMode::BroadcastFirst => None,
                    GatherMode::Broadcast(at) | GatherMode::Shuffle(at) => Some(*at),
                    GatherMode::ShuffleXor(at) | GatherMode::ShuffleDown(at) | GatherMode::ShuffleUp(at) => {
                        Some(*at)
                    }
                    _ => return Err("a gather over quads".into()),
                };
                let by = lanes.map(|at| self.words(frame, at, mask)).transpose()?;
                let at = |t: usize| by.as_ref().map_or(0, |by| by[t]);
                let from = warp::sources(mask, |t, lane| match mode {
                    GatherMode::ShuffleXor(_) => lane as u32 ^ at(t),
                    GatherMode::ShuffleDown(_) => lane as u32 + at(t),
                    GatherMode::ShuffleUp(_) => (lane as u32).wrapping_sub(at(t)),
                    GatherMode::BroadcastFirst => {
                        (0..LANES).find(|&l| mask[t / LANES * LANES + l]).map_or(0, |l| l as u32)
                    }
                    _ => at(t),
                })?;
                let words = self.words(frame, *argument, mask)?;
                let out = (0..words.len()).map(|i| words[i / n * n + from[i % n]]).collect();
                frame.values[result.index()] = Some(Value::Words(Rc::new(out)));
            }
            St::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let words = self.words(frame, *argument, mask)?;
                let scalar = self.scalar(frame, *argument)?;
                let mut out = Vec::new();
                for component in words.chunks(n) {
                    out.extend(warp::collect(*op, *collective_op, scalar, component, mask)?);
                }
                frame.values[result.index()] = Some(Value::Words(Rc::new(out)));
            }
            St::CooperativeStore { target, data } => {
                let words = self.words(frame, *target, mask)?;
                let inner = frame.info[*target].ty.inner_with(&self.launch.module.types).clone();
                for (e, to) in self.elements(frame, &inner, data, mask)?.into_iter().enumerate() {
                    self.store(frame, &to, &of_one(&inner)?, &words[e * n..][..n], mask)?;
                }
            }
            St::WorkGroupUniformLoad { pointer, result } => {
                self.barrier(Barrier::WORK_GROUP, mask)?;
                let Value::Pointer(from) = self.value(frame, *pointer, mask)? else {
                    return Err("a load from no pointer".into());
                };
                let inner = frame.info[*result].ty.inner_with(&self.launch.module.types).clone();
                let words = self.load(frame, &from, &inner, mask)?;
                self.barrier(Barrier::WORK_GROUP, mask)?;
                frame.values[result.index()] = Some(Value::Words(Rc::new(words)));
            }
            other => return Err(format!("statement {other:?}")),
        }
        Ok(())
    }

    fn barrier(&mut self, kind: Barrier, mask: &[bool]) -> Res<()> {
        let n = self.threads();
        if kind == Barrier::SUB_GROUP {
            for (s, clock) in self.clock.subgroups.iter_mut().enumerate() {
                let lanes = s * LANES..(s + 1) * LANES;
                let here = mask[lanes.clone()].iter().filter(|&&m| m).count();
                if here != 0 && here != LANES {
                    return Err("a subgroup's barrier that not all of its lanes reach".into());
                }
                *clock += u32::from(here != 0);
            }
            return Ok(());
        }
        if (0..n).any(|t| self.alive[t] != mask[t]) {
            return Err("a barrier that not all threads reach".into());
        }
        self.clock.workgroup += 1;
        Ok(())
    }

    fn scalar(&self, frame: &Frame<'_>, handle: Handle<E>) -> Res<Scalar> {
        frame.info[handle]
            .ty
            .inner_with(&self.launch.module.types)
            .scalar()
            .ok_or_else(|| "of no scalars".into())
    }

    fn words(&mut self, frame: &mut Frame<'a>, handle: Handle<E>, mask: &[bool]) -> Res<Words> {
        match self.value(frame, handle, mask)? {
            Value::Words(words) => Ok(words),
            Value::Pointer(_) => Err("a pointer where a value is wanted".into()),
        }
    }

    /// What an expression was when it was emitted, or is, of those that need not be.
    fn value(&mut self, frame: &mut Frame<'a>, handle: Handle<E>, mask: &[bool]) -> Res<Value> {
        match &frame.values[handle.index()] {
            Some(value) => Ok(value.clone()),
            None => self.evaluate(frame, handle, mask),
        }
    }
}

fn leave(mask: &mut [bool], into: &mut [bool]) {
    for (mask, into) in mask.iter_mut().zip(into) {
        *into |= *mask;
        *mask = false;
    }
}

fn is_atomic(module: &naga::Module, ty: Handle<Type>) -> bool {
    match module.types[ty].inner {
        TypeInner::Atomic(_) => true,
        TypeInner::Array { base, .. } => is_atomic(module, base),
        _ => false,
    }
}
