//! Runs a verified plan on a backend: instruction after instruction, each register freed after its last
//! use, the time of every layer taken. [`run`] goes through all of it, [`Execution`] step by step.

use crate::backend::{Backend, OpResult, Step};
use crate::error::{OpError, Result, RuntimeError};
use fhec_plan::{Fused, Op, Reg, Verified};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// One executed instruction.
#[derive(Clone, Debug)]
pub struct Event {
    /// Number of the instruction.
    pub number: usize,
    /// Instructions of the plan.
    pub total: usize,
    /// Operation, as in [`Op::name`].
    pub op: &'static str,
    /// Layer of the source model.
    pub layer: usize,
    /// Time since the run began.
    pub begin: Duration,
    /// Time it took.
    pub time: Duration,
    /// Level of the result.
    pub level: usize,
    /// Ciphertexts of the result.
    pub ciphertexts: usize,
    /// Bytes of all live registers afterwards.
    pub live_bytes: usize,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All instructions in order.
    pub events: Vec<Event>,
    /// Time of each layer, by [`fhec_plan::LayerId`].
    pub layers: Vec<Duration>,
    /// Time of everything.
    pub total: Duration,
    /// Most bytes that registers held at once.
    pub peak_register_bytes: usize,
}

/// Outputs of a run, by output index.
#[derive(Clone, Debug)]
pub struct Run<O> {
    /// The outputs.
    pub outputs: Vec<O>,
    /// What happened.
    pub trace: Trace,
}

/// Registers that hold a value, and how long they must.
struct Registers<V> {
    values: BTreeMap<Reg, V>,
    bytes: BTreeMap<Reg, usize>,
    live: usize,
}

impl<V> Registers<V> {
    fn get(&self, reg: Reg) -> OpResult<&V> {
        self.values.get(&reg).ok_or(OpError::Kind { expected: "a value", found: "nothing" })
    }

    fn set(&mut self, reg: Reg, value: V, bytes: usize) {
        self.values.insert(reg, value);
        self.bytes.insert(reg, bytes);
        self.live += bytes;
    }

    fn free(&mut self, reg: Reg) {
        self.values.remove(&reg);
        self.live -= self.bytes.remove(&reg).unwrap_or(0);
    }
}

/// A run between two rounds: the values that later ones need.
pub struct Paused<V> {
    next: usize,
    registers: Registers<V>,
}

impl<V> Paused<V> {
    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        self.registers.live
    }
}

impl<V> std::fmt::Debug for Paused<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paused").field("next", &self.next).field("bytes", &self.registers.live).finish()
    }
}

/// What the driver works out before it starts.
struct Schedule {
    /// Registers to free after each instruction.
    free: Vec<Vec<Reg>>,
    /// What is done together: of hundreds of products, which are half as large again as their results, only a few exist at a time.
    fused: Fused,
}

impl Schedule {
    fn of(verified: &Verified) -> Self {
        let instructions = &verified.plan().instructions;
        let fused = Fused::of(instructions);
        let mut last: BTreeMap<Reg, usize> =
            verified.facts().registers().iter().map(|(&reg, facts)| (reg, facts.last_read)).collect();
        for &number in fused.rescales.keys() {
            // What the first of the instructions reads lives until the last.
            for reg in fused.sources(instructions, number) {
                last.insert(reg, last.get(&reg).map_or(number, |&l| l.max(number)));
            }
        }
        fused.deferred.iter().for_each(|&number| {
            last.remove(&instructions[number].dst);
        });
        let mut free = vec![Vec::new(); instructions.len()];
        for (reg, number) in last {
            free[number].push(reg);
        }
        Schedule { free, fused }
    }
}

/// Runs `verified` on `backend` with one entry of `inputs` per input of the plan. `observe` is called after
/// every instruction. Work is spread over the ambient rayon pool.
///
/// # Errors
/// [`RuntimeError::InputCount`], and [`RuntimeError::Instruction`] with number and layer of what failed.
pub fn run<B: Backend>(
    verified: &Verified,
    backend: &B,
    inputs: Vec<B::Input>,
    observe: &mut dyn FnMut(&Event),
) -> Result<Run<B::Output>> {
    let mut execution = Execution::new(verified, backend, inputs)?;
    while let Some(event) = execution.step()? {
        observe(event);
    }
    Ok(execution.finish())
}

/// A run that goes on when it is told to: one instruction at a time. Between two instructions what it holds can be
/// looked at, and a later run can start from that.
pub struct Execution<'a, B: Backend> {
    verified: &'a Verified,
    backend: &'a B,
    schedule: Schedule,
    /// Number of the next instruction.
    next: usize,
    registers: Registers<B::Value>,
    inputs: Vec<Option<B::Input>>,
    outputs: Vec<Option<B::Output>>,
    start: Instant,
    trace: Trace,
}

impl<'a, B: Backend> Execution<'a, B> {
    /// A run from the first instruction, with one entry of `inputs` per input of the plan.
    ///
    /// # Errors
    /// [`RuntimeError::InputCount`].
    pub fn new(verified: &'a Verified, backend: &'a B, inputs: Vec<B::Input>) -> Result<Self> {
        let plan = verified.plan();
        if inputs.len() != plan.inputs.len() {
            return Err(RuntimeError::InputCount { found: inputs.len(), expected: plan.inputs.len() });
        }
        let mut this = Self::in_rounds(verified, backend);
        this.inputs = inputs.into_iter().map(Some).collect();
        Ok(this)
    }

    /// A run whose inputs are [given](Self::give) round by round.
    pub fn in_rounds(verified: &'a Verified, backend: &'a B) -> Self {
        let plan = verified.plan();
        Execution {
            verified,
            backend,
            schedule: Schedule::of(verified),
            next: 0,
            registers: Registers { values: BTreeMap::new(), bytes: BTreeMap::new(), live: 0 },
            inputs: plan.inputs.iter().map(|_| None).collect(),
            outputs: plan.outputs.iter().map(|_| None).collect(),
            start: Instant::now(),
            trace: Trace { layers: vec![Duration::ZERO; plan.layers.len()], ..Trace::default() },
        }
    }

    /// Gives input number `index` of the plan; one that does not exist is dropped.
    pub fn give(&mut self, index: usize, input: B::Input) {
        if let Some(place) = self.inputs.get_mut(index) {
            *place = Some(input);
        }
    }

    /// Takes an output out, if it exists already.
    pub fn take_output(&mut self, output: usize) -> Option<B::Output> {
        self.outputs.get_mut(output)?.take()
    }

    /// Executes the instructions of one round, those of rounds before it being done and its inputs given.
    ///
    /// # Errors
    /// As [`step`](Self::step); [`RuntimeError::Resume`] for a round that is not the next.
    pub fn run_round(&mut self, round: u32, observe: &mut dyn FnMut(&Event)) -> Result<()> {
        let range = self.verified.facts().rounds().get(round as usize).cloned();
        let range = range.filter(|range| range.start == self.next);
        let range = range.ok_or_else(|| RuntimeError::Resume(format!("round {round}, which is not the next")))?;
        while self.next < range.end {
            if let Some(event) = self.step()? {
                observe(event);
            }
        }
        Ok(())
    }

    /// What has to be kept until the next round.
    pub fn pause(self) -> Paused<B::Value> {
        Paused { next: self.next, registers: self.registers }
    }

    /// A run that goes on where another one of the same plan paused.
    pub fn go_on(verified: &'a Verified, backend: &'a B, paused: Paused<B::Value>) -> Self {
        let mut this = Self::in_rounds(verified, backend);
        this.trace.peak_register_bytes = paused.registers.live;
        (this.next, this.registers) = (paused.next, paused.registers);
        this
    }

    /// Number of the next instruction; that of all of them at the end.
    pub fn next(&self) -> usize {
        self.next
    }

    /// The registers that hold a value whenever instruction `next` is about to run.
    pub fn live_before(&self, next: usize) -> BTreeSet<Reg> {
        let mut found = BTreeSet::new();
        self.each_live(|number, live| {
            if number == next {
                found.clone_from(live);
            }
        });
        found
    }

    /// Calls `f` for every instruction, and for the end, with the registers that hold a value before it.
    pub fn each_live(&self, mut f: impl FnMut(usize, &BTreeSet<Reg>)) {
        let instructions = &self.verified.plan().instructions;
        let mut live = BTreeSet::new();
        for (number, instruction) in instructions.iter().enumerate() {
            f(number, &live);
            if self.keeps(number) {
                live.insert(instruction.dst);
            }
            self.schedule.free[number].iter().for_each(|reg| {
                live.remove(reg);
            });
        }
        f(instructions.len(), &live);
    }

    /// The outputs that exist whenever instruction `next` is about to run.
    pub fn outputs_before(&self, next: usize) -> BTreeSet<usize> {
        let instructions = self.verified.plan().instructions.iter().take(next);
        instructions.filter_map(|i| if let Op::Output { output, .. } = i.op { Some(output) } else { None }).collect()
    }

    /// Whether an instruction leaves a value in its register.
    fn keeps(&self, number: usize) -> bool {
        let instruction = &self.verified.plan().instructions[number];
        match instruction.op {
            // The register equals its source; it is kept only where somebody reads it.
            Op::Output { .. } => self.verified.register(instruction.dst).last_read != number,
            _ => !self.schedule.fused.deferred.contains(&number),
        }
    }

    /// The value of a register.
    pub fn register(&self, reg: Reg) -> Option<&B::Value> {
        self.registers.values.get(&reg)
    }

    /// The same, to be lent out: it must hold the same value again when the run goes on.
    pub fn register_mut(&mut self, reg: Reg) -> Option<&mut B::Value> {
        self.registers.values.get_mut(&reg)
    }

    /// An output, if it exists already; to be lent out like a register.
    pub fn output_mut(&mut self, output: usize) -> Option<&mut B::Output> {
        self.outputs.get_mut(output)?.as_mut()
    }

    /// Goes to instruction `next` with the values of an earlier run, instead of computing them.
    ///
    /// # Errors
    /// [`RuntimeError::Resume`] where there is no such instruction, or where the registers and outputs are not just those
    /// that exist there.
    pub fn resume(
        &mut self,
        next: usize,
        registers: BTreeMap<Reg, B::Value>,
        outputs: BTreeMap<usize, B::Output>,
    ) -> Result<()> {
        let total = self.verified.plan().instructions.len();
        if next > total {
            return Err(RuntimeError::Resume(format!("instruction {next} of {total}")));
        }
        let (live, done) = (self.live_before(next), self.outputs_before(next));
        if !registers.keys().eq(&live) || !outputs.keys().eq(&done) {
            let (found, there) = (registers.len() + outputs.len(), live.len() + done.len());
            let what = format!("{found} values before instruction {next}, which are not the {there} that exist there");
            return Err(RuntimeError::Resume(what));
        }
        for instruction in &self.verified.plan().instructions[..next] {
            if let Op::Input(index) = instruction.op {
                self.inputs[index] = None;
            }
        }
        for (reg, value) in registers {
            let bytes = self.backend.bytes(&value);
            self.registers.set(reg, value, bytes);
        }
        for (output, value) in outputs {
            self.outputs[output] = Some(value);
        }
        self.trace.peak_register_bytes = self.registers.live;
        self.next = next;
        Ok(())
    }

    /// Executes the next instruction; `None` where none is left.
    ///
    /// # Errors
    /// [`RuntimeError::Instruction`] with number and layer of what failed. The run cannot go on then.
    pub fn step(&mut self) -> Result<Option<&Event>> {
        let plan = self.verified.plan();
        let number = self.next;
        let Some(instruction) = plan.instructions.get(number) else { return Ok(None) };
        let begin = self.start.elapsed();
        let step = Step::new(self.verified, number);
        self.execute(&step).map_err(|source| RuntimeError::Instruction {
            number,
            op: instruction.op.name(),
            layer: plan.layers[instruction.layer.index()].name.clone(),
            source,
        })?;
        self.trace.peak_register_bytes = self.trace.peak_register_bytes.max(self.registers.live);
        for &reg in &self.schedule.free[number] {
            self.registers.free(reg);
        }
        self.next += 1;
        let event = Event {
            number,
            total: plan.instructions.len(),
            op: instruction.op.name(),
            layer: instruction.layer.index(),
            begin,
            time: self.start.elapsed() - begin,
            level: step.result.level,
            ciphertexts: step.result.ciphertexts,
            live_bytes: self.registers.live,
        };
        self.trace.layers[event.layer] += event.time;
        self.trace.events.push(event);
        Ok(self.trace.events.last())
    }

    /// Outputs and trace, once no instruction is left.
    pub fn finish(mut self) -> Run<B::Output> {
        self.trace.total = self.start.elapsed();
        // The verifier made sure that every output is written.
        Run { outputs: self.outputs.into_iter().flatten().collect(), trace: self.trace }
    }

    fn execute(&mut self, step: &Step) -> OpResult<()> {
        let (b, r) = (self.backend, &self.registers);
        let value = match &step.instruction.op {
            _ if self.schedule.fused.deferred.contains(&step.number) => return Ok(()),
            Op::Input(index) => {
                let input = self.inputs[*index].take().ok_or_else(|| OpError::Input("it is not there".into()))?;
                b.input(step, *index, input)?
            }
            Op::LinearMap { terms, bias, out_scale } => {
                let sources = terms.iter().map(|t| r.get(t.src)).collect::<OpResult<Vec<_>>>()?;
                b.linear_map(step, terms, &sources, *bias, out_scale)?
            }
            Op::Polynomial { src, poly, out_scale } => b.polynomial(step, r.get(*src)?, *poly, out_scale)?,
            Op::Add(x, y) => b.add(step, r.get(*x)?, r.get(*y)?)?,
            Op::Sub(x, y) => b.sub(step, r.get(*x)?, r.get(*y)?)?,
            Op::Negate(x) => b.negate(step, r.get(*x)?)?,
            Op::Mul(x, y) if x == y => b.square(step, r.get(*x)?)?,
            Op::Mul(x, y) => b.mul(step, r.get(*x)?, r.get(*y)?)?,
            Op::MulScalar { src, value, scale } => b.mul_scalar(step, r.get(*src)?, *value, scale)?,
            Op::MulVector { src, vector, scale } => b.mul_vector(step, r.get(*src)?, *vector, scale)?,
            Op::AddScalar { src, value } => b.add_scalar(step, r.get(*src)?, *value)?,
            Op::AddVector { src, vector } => b.add_vector(step, r.get(*src)?, *vector)?,
            Op::Rotate { src, steps } => b.rotate(step, r.get(*src)?, *steps)?,
            Op::Relinearise(x) => b.relinearise(step, r.get(*x)?)?,
            Op::Rescale(x) => match self.schedule.fused.rescales.get(&step.number) {
                Some(&first) => {
                    let product = self.schedule.fused.products.get(&first).map(|&n| Step::new(self.verified, n));
                    let first = Step::new(self.verified, first);
                    let source = first.instruction.op.sources()[0];
                    match product.map(|product| (product, &product.instruction.op)) {
                        Some((product, Op::Mul(x, y))) => {
                            b.multiply_rescale([&product, &first, step], r.get(*x)?, r.get(*y)?)?
                        }
                        _ => b.relinearise_rescale(&first, step, r.get(source)?)?,
                    }
                }
                None => b.rescale(step, r.get(*x)?)?,
            },
            Op::LevelDrop { src, level } => b.level_drop(step, r.get(*src)?, *level)?,
            Op::Bootstrap { src, level, out_scale } => b.bootstrap(step, r.get(*src)?, *level, out_scale)?,
            Op::Output { src, output } => {
                let value = r.get(*src)?;
                self.outputs[*output] = Some(b.output(step, *output, value)?);
                if !self.keeps(step.number) {
                    return Ok(());
                }
                value.clone()
            }
        };
        let bytes = b.bytes(&value);
        self.registers.set(step.instruction.dst, value, bytes);
        Ok(())
    }
}
