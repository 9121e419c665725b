//! Runs a verified plan on a backend: instruction after instruction, each register freed after its last
//! use, the time of every layer taken.

use crate::backend::{Backend, OpResult, Step};
use crate::error::{OpError, Result, RuntimeError};
use fhec_plan::{Op, Reg, Verified};
use std::collections::BTreeMap;
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

/// What the driver works out before it starts.
struct Schedule {
    /// Registers to free after each instruction.
    free: Vec<Vec<Reg>>,
    /// Relinearisations that are done together with the rescale that follows: number of the rescale to that
    /// of the relinearisation.
    fused: BTreeMap<usize, usize>,
    /// Products that are made together with such a pair: number of the relinearisation to that of the product. Of hundreds of
    /// products, which are half as large again as their results, only a few exist at a time.
    products: BTreeMap<usize, usize>,
}

impl Schedule {
    fn of(verified: &Verified) -> Self {
        let instructions = &verified.plan().instructions;
        let mut readers: BTreeMap<Reg, Vec<usize>> = BTreeMap::new();
        for (number, instruction) in instructions.iter().enumerate() {
            for src in instruction.op.sources() {
                readers.entry(src).or_default().push(number);
            }
        }
        let mut last: BTreeMap<Reg, usize> =
            verified.facts().registers().iter().map(|(&reg, facts)| (reg, facts.last_read)).collect();
        let (mut fused, mut products) = (BTreeMap::new(), BTreeMap::new());
        for (number, instruction) in instructions.iter().enumerate() {
            let Op::Relinearise(src) = instruction.op else { continue };
            let Some([only]) = readers.get(&instruction.dst).map(Vec::as_slice) else { continue };
            if matches!(instructions[*only].op, Op::Rescale(_)) {
                fused.insert(*only, number);
                // The product itself lives until the rescale, its relinearised form never exists.
                last.insert(src, last.get(&src).map_or(*only, |&l| l.max(*only)));
                last.remove(&instruction.dst);
                let product = verified.register(src).written;
                if let Op::Mul(a, b) = instructions[product].op
                    && readers.get(&src).is_some_and(|readers| readers.len() == 1)
                {
                    products.insert(number, product);
                    for factor in [a, b] {
                        last.insert(factor, last.get(&factor).map_or(*only, |&l| l.max(*only)));
                    }
                    last.remove(&src);
                }
            }
        }
        let mut free = vec![Vec::new(); instructions.len()];
        for (reg, number) in last {
            free[number].push(reg);
        }
        Schedule { free, fused, products }
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
    let plan = verified.plan();
    if inputs.len() != plan.inputs.len() {
        return Err(RuntimeError::InputCount { found: inputs.len(), expected: plan.inputs.len() });
    }
    let mut execution = Execution {
        verified,
        backend,
        schedule: Schedule::of(verified),
        registers: Registers { values: BTreeMap::new(), bytes: BTreeMap::new(), live: 0 },
        inputs: inputs.into_iter().map(Some).collect(),
        outputs: plan.outputs.iter().map(|_| None).collect(),
    };
    let mut trace = Trace { layers: vec![Duration::ZERO; plan.layers.len()], ..Trace::default() };
    let start = Instant::now();
    for (number, instruction) in plan.instructions.iter().enumerate() {
        let begin = start.elapsed();
        let step = Step::new(verified, number);
        execution.step(&step).map_err(|source| RuntimeError::Instruction {
            number,
            op: instruction.op.name(),
            layer: plan.layers[instruction.layer.index()].name.clone(),
            source,
        })?;
        trace.peak_register_bytes = trace.peak_register_bytes.max(execution.registers.live);
        for &reg in &execution.schedule.free[number] {
            execution.registers.free(reg);
        }
        let event = Event {
            number,
            total: plan.instructions.len(),
            op: instruction.op.name(),
            layer: instruction.layer.index(),
            begin,
            time: start.elapsed() - begin,
            level: step.result.level,
            ciphertexts: step.result.ciphertexts,
            live_bytes: execution.registers.live,
        };
        trace.layers[event.layer] += event.time;
        observe(&event);
        trace.events.push(event);
    }
    trace.total = start.elapsed();
    // The verifier made sure that every output is written.
    Ok(Run { outputs: execution.outputs.into_iter().flatten().collect(), trace })
}

struct Execution<'a, B: Backend> {
    verified: &'a Verified,
    backend: &'a B,
    schedule: Schedule,
    registers: Registers<B::Value>,
    inputs: Vec<Option<B::Input>>,
    outputs: Vec<Option<B::Output>>,
}

impl<B: Backend> Execution<'_, B> {
    fn step(&mut self, step: &Step) -> OpResult<()> {
        let (b, r) = (self.backend, &self.registers);
        let value = match &step.instruction.op {
            Op::Input(index) => {
                let input = self.inputs[*index].take().ok_or_else(|| OpError::Input("it is read twice".into()))?;
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
            Op::Mul(..) if self.schedule.products.values().any(|&n| n == step.number) => return Ok(()),
            Op::Mul(x, y) if x == y => b.square(step, r.get(*x)?)?,
            Op::Mul(x, y) => b.mul(step, r.get(*x)?, r.get(*y)?)?,
            Op::MulScalar { src, value, scale } => b.mul_scalar(step, r.get(*src)?, *value, scale)?,
            Op::MulVector { src, vector, scale } => b.mul_vector(step, r.get(*src)?, *vector, scale)?,
            Op::AddScalar { src, value } => b.add_scalar(step, r.get(*src)?, *value)?,
            Op::AddVector { src, vector } => b.add_vector(step, r.get(*src)?, *vector)?,
            Op::Rotate { src, steps } => b.rotate(step, r.get(*src)?, *steps)?,
            Op::Relinearise(_) if self.schedule.fused.values().any(|&n| n == step.number) => return Ok(()),
            Op::Relinearise(x) => b.relinearise(step, r.get(*x)?)?,
            Op::Rescale(x) => match self.schedule.fused.get(&step.number) {
                Some(&first) => {
                    let product = self.schedule.products.get(&first).map(|&n| Step::new(self.verified, n));
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
                // The register equals its source; it is kept only where somebody reads it.
                if step.result.last_read == step.number {
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
