//! The server's side: a verified plan, evaluation keys, ciphertexts in and out. Nothing here can take or
//! hold a secret key.

use crate::batch;
use crate::ckks::{CkksBackend, CkksValue};
use crate::client::collect;
use crate::context::context;
use crate::driver::{Event, Execution, Paused, Trace};
use crate::error::{Result, RuntimeError};
use crate::stream::{Progress, Sink, Source, Stream, Streaming};
use fhec_ckks::container::{BundleEntry, BundleForm};
use fhec_ckks::linear::ScalarOptions;
use fhec_ckks::{Ciphertext, Context, EvaluationKeys, InsecureToken};
use fhec_math::Scale;
use fhec_plan::stream::Schedule;
use fhec_plan::{Reg, Verified};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The engine's context for a verified plan; wanted for reading keys and ciphertexts.
///
/// # Errors
/// As [`context`].
pub fn server_context(verified: &Verified, insecure: Option<InsecureToken>) -> Result<Arc<Context>> {
    context(&verified.plan().parameters, insecure)
}

/// Evaluates one plan for one client.
#[derive(Debug)]
pub struct Server {
    backend: CkksBackend,
}

impl Server {
    /// A server for `verified` with the client's `keys`. See [`CkksBackend::new`] for the budget.
    ///
    /// # Errors
    /// As [`CkksBackend::new`].
    pub fn new(
        verified: Arc<Verified>,
        context: &Arc<Context>,
        keys: Arc<EvaluationKeys>,
        plaintext_budget: u64,
    ) -> Result<Self> {
        Ok(Server { backend: CkksBackend::new(verified, context, keys, plaintext_budget)? })
    }

    /// A server without keys, to make those of single clients from; see [`CkksBackend::without_keys`].
    ///
    /// # Errors
    /// As [`CkksBackend::without_keys`].
    pub fn without_keys(verified: Arc<Verified>, context: &Arc<Context>, plaintext_budget: u64) -> Result<Self> {
        Ok(Server { backend: CkksBackend::without_keys(verified, context, plaintext_budget)? })
    }

    /// The same plan for another client; encoded weights are shared.
    ///
    /// # Errors
    /// As [`CkksBackend::with_keys`].
    pub fn with_keys(&self, keys: Arc<EvaluationKeys>) -> Result<Self> {
        Ok(Server { backend: self.backend.with_keys(keys)? })
    }

    /// The same with another way to multiply by scalars; see [`CkksBackend::with_scalar_options`].
    ///
    /// # Errors
    /// As [`CkksBackend::with_keys`].
    pub fn with_scalar_options(&self, options: ScalarOptions) -> Result<Self> {
        let keys = Arc::clone(self.backend.evaluator().keys());
        Ok(Server { backend: self.backend.with_keys(keys)?.with_scalar_options(options) })
    }

    /// The backend.
    pub fn backend(&self) -> &CkksBackend {
        &self.backend
    }

    /// Runs the plan on the ciphertexts of `bundle` and returns those of the outputs. `observe` is called after every
    /// instruction.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`run`](crate::run).
    pub fn run(&self, bundle: &[BundleEntry], observe: &mut dyn FnMut(&Event)) -> Result<(Vec<BundleEntry>, Trace)> {
        let mut evaluation = self.begin(bundle)?;
        while let Some(event) = evaluation.step()? {
            observe(event);
        }
        Ok(evaluation.finish())
    }

    /// The same, an instruction at a time.
    ///
    /// # Errors
    /// [`RuntimeError::Ciphertexts`] for a bundle that does not fit the plan's inputs, [`RuntimeError::Batch`] for one of too
    /// many images.
    pub fn begin(&self, bundle: &[BundleEntry]) -> Result<Evaluation<'_>> {
        let (backend, verified) = (&self.backend, &**self.backend.verified());
        let rounds = verified.plan().rounds();
        if rounds > 1 {
            return Err(RuntimeError::Rounds(rounds));
        }
        let images = batch::count(verified.plan().batch(), bundle)? as u32;
        let inputs = self.inputs(0, bundle)?.into_iter().map(|(_, input)| input).collect();
        Ok(Evaluation { verified, backend, images, execution: Execution::new(verified, backend, inputs)? })
    }

    /// The inputs of a round, with their numbers.
    fn inputs(&self, round: u32, bundle: &[BundleEntry]) -> Result<Vec<(usize, Vec<Ciphertext>)>> {
        let plan = self.backend.verified().plan();
        let own = plan.inputs.iter().enumerate().filter(|(index, _)| plan.input_round(*index) == round);
        let one = |(index, i): (usize, &fhec_plan::Input)| {
            let found = collect(self.backend.context(), bundle, &i.name, i.layout.ciphertexts, i.level, &i.scale)?;
            Ok((index, found))
        };
        own.map(one).collect()
    }

    /// Evaluates one round on the ciphertexts of `bundle` and returns those that answer it. `kept` is what the round before
    /// left; it is taken once the bundle is seen to be that of the round, and replaced by what the next one needs: nothing
    /// after the last.
    ///
    /// # Errors
    /// [`RuntimeError::Ciphertexts`] and [`RuntimeError::Batch`] for a bundle that does not fit the round,
    /// [`RuntimeError::Resume`] where `kept` is not of the round before; then it is untouched. [`RuntimeError::Instruction`]
    /// where the evaluation fails; nothing is kept then.
    pub fn round(
        &self,
        round: u32,
        kept: &mut Option<Kept>,
        bundle: &[BundleEntry],
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Vec<BundleEntry>> {
        let (backend, verified) = (&self.backend, &**self.backend.verified());
        let plan = verified.plan();
        let images = batch::count(plan.batch(), bundle)? as u32;
        self.is_next(round, images, kept)?;
        let inputs = self.inputs(round, bundle)?;
        let mut execution = match kept.take().map(|kept| kept.values) {
            None => Execution::in_rounds(verified, backend),
            Some(Values::Whole(paused)) => Execution::go_on(verified, backend, paused),
            Some(Values::Streamed(_)) => return Err(RuntimeError::Resume("a round that was streamed".into())),
        };
        for (index, input) in inputs {
            execution.give(index, input);
        }
        execution.run_round(round, observe)?;
        let mut answer = Vec::new();
        for (index, output) in plan.outputs.iter().enumerate().filter(|(i, _)| plan.output_round(*i) == round) {
            answer.extend(bundle_of(&output.name, images, execution.take_output(index).unwrap_or_default()));
        }
        if round + 1 < plan.rounds() {
            *kept = Some(Kept { round: round + 1, images, values: Values::Whole(execution.pause()) });
        }
        Ok(answer)
    }

    /// Whether `kept` was left for a round with so many images.
    fn is_next(&self, round: u32, images: u32, kept: &Option<Kept>) -> Result<()> {
        let fits = match kept {
            None => round == 0,
            Some(kept) => kept.round == round && kept.images == images,
        };
        match fits && round < self.backend.verified().plan().rounds() {
            true => Ok(()),
            false => Err(RuntimeError::Resume(format!("what is kept to round {round} with {images} images"))),
        }
    }

    /// The same as [`round`](Self::round) with few ciphertexts in memory: those of `images` images come from `source` and go to `sink`,
    /// and what the next round needs is on disk in the end. `observe` is called after every tile.
    ///
    /// # Errors
    /// [`RuntimeError::Resume`] where `kept` is not of the round before; then it is untouched. [`RuntimeError::Memory`],
    /// [`RuntimeError::Spill`], and [`RuntimeError::Instruction`] where the evaluation fails or ciphertexts do not fit the plan; nothing is
    /// kept then.
    pub fn round_streamed(
        &self,
        (round, images): (u32, u32),
        kept: &mut Option<Kept>,
        (schedule, streaming): (&Arc<Schedule>, &Streaming),
        (source, sink): (&mut dyn Source, &mut dyn Sink),
        observe: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let rounds = self.backend.verified().plan().rounds();
        self.is_next(round, images, kept)?;
        let mut stream = match kept.take().map(|kept| kept.values) {
            // What is sent in one round may be used in a later one, when it cannot be read again.
            None => Box::new(Stream::new(schedule, streaming, rounds == 1)?),
            Some(Values::Streamed(stream)) => stream,
            Some(Values::Whole(_)) => return Err(RuntimeError::Resume("a round that was not streamed".into())),
        };
        let mut observe = |progress| {
            observe(progress);
            Ok(())
        };
        stream.round(&self.backend, round, source, sink, &mut observe)?;
        if round + 1 < rounds {
            stream.park()?;
            *kept = Some(Kept { round: round + 1, images, values: Values::Streamed(stream) });
        }
        Ok(())
    }
}

/// What a server keeps of a request from one round to the next: the ciphertexts that live on.
#[derive(Debug)]
pub struct Kept {
    /// The next round.
    round: u32,
    images: u32,
    values: Values,
}

/// The ciphertexts that live on.
#[derive(Debug)]
enum Values {
    /// Whole tensors, in memory.
    Whole(Paused<CkksValue>),
    /// On disk.
    Streamed(Box<Stream>),
}

impl Kept {
    /// Bytes of the ciphertexts, in memory or on disk.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Whole(paused) => paused.bytes(),
            Values::Streamed(stream) => (stream.bytes() + stream.on_disk()) as usize,
        }
    }
}

/// Something that an evaluation holds between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// The value of a register.
    Register(Reg),
    /// An output that is done, by index.
    Output(usize),
}

impl fmt::Display for Held {
    /// A short name: `r12`, `y0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Register(reg) => write!(f, "r{}", reg.0),
            Held::Output(index) => write!(f, "y{index}"),
        }
    }
}

/// An evaluation under way.
///
/// All that a later one needs to go on from here are the ciphertexts that this one [holds](Self::held). They are lent
/// out one value at a time and never copied.
pub struct Evaluation<'a> {
    verified: &'a Verified,
    backend: &'a CkksBackend,
    /// Images in the slots of every ciphertext.
    images: u32,
    execution: Execution<'a, CkksBackend>,
}

impl Evaluation<'_> {
    /// Number of the next instruction; that of all of them at the end.
    pub fn next(&self) -> usize {
        self.execution.next()
    }

    /// The parameters.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(self.backend.context())
    }

    /// Executes the next instruction; `None` where none is left.
    ///
    /// # Errors
    /// [`RuntimeError::Instruction`]; the evaluation cannot go on then.
    pub fn step(&mut self) -> Result<Option<&Event>> {
        self.execution.step()
    }

    /// What the evaluation holds now. `None` while there is a product before its relinearisation, which has no form
    /// outside of the engine: a few instructions later there will be none.
    pub fn held(&self) -> Option<BTreeSet<Held>> {
        let next = self.next();
        self.as_held(next, &self.execution.live_before(next))
    }

    fn as_held(&self, next: usize, live: &BTreeSet<Reg>) -> Option<BTreeSet<Held>> {
        if live.iter().any(|&reg| self.verified.register(reg).degree != 1) {
            return None;
        }
        let outputs = self.execution.outputs_before(next).into_iter().map(Held::Output);
        Some(live.iter().copied().map(Held::Register).chain(outputs).collect())
    }

    /// What evaluations of this plan hold before every instruction, and at the end; see [`held`](Self::held).
    pub fn all_held(&self) -> Vec<Option<BTreeSet<Held>>> {
        let mut all = Vec::new();
        self.execution.each_live(|next, live| all.push(self.as_held(next, live)));
        all
    }

    /// Level, scale and number of the ciphertexts of a value.
    fn shape(&self, held: Held) -> Option<(usize, &Scale, usize)> {
        match held {
            Held::Register(reg) => {
                let facts = self.verified.facts().register(reg)?;
                Some((facts.level, &facts.scale, facts.ciphertexts))
            }
            Held::Output(index) => {
                let output = self.verified.plan().outputs.get(index)?;
                Some((output.level, &output.scale, output.layout.ciphertexts))
            }
        }
    }

    /// Most bytes of the file that a value makes, by the plan alone.
    pub fn file_bytes(&self, held: Held) -> u64 {
        /// Header, checksum, name, level and scale.
        const BESIDES: u64 = 1 << 12;
        let context = self.backend.context();
        self.shape(held).map_or(0, |(level, _, count)| {
            let bits: u64 = (0..=level).map(|i| u64::from(context.q(i).bits())).sum();
            count as u64 * (2 * bits * context.n() as u64 / 8 + BESIDES)
        })
    }

    /// Lends the ciphertexts of a value out, as a bundle that calls the value by its short name. `None` where the value
    /// does not exist or is a product.
    pub fn lend<T>(&mut self, held: Held, read: impl FnOnce(&[BundleEntry]) -> T) -> Option<T> {
        let name = held.to_string();
        let place = match held {
            Held::Register(reg) => match self.execution.register_mut(reg)? {
                CkksValue::Ciphertexts(ciphertexts) => ciphertexts,
                CkksValue::Products(_) => return None,
            },
            Held::Output(index) => self.execution.output_mut(index)?,
        };
        let bundle = bundle_of(&name, self.images, std::mem::take(place));
        let result = read(&bundle);
        let full = bundle.into_iter().filter_map(|entry| match entry.form {
            BundleForm::Full(ciphertext) => Some(ciphertext),
            BundleForm::Seeded(_) => None,
        });
        *place = full.collect();
        Some(result)
    }

    /// Goes to instruction `next` without computing what came before: `read` gives the values that an earlier evaluation
    /// of the same plan, inputs and keys held there, each as it was lent out.
    ///
    /// # Errors
    /// [`RuntimeError::Resume`] where nothing can be gone on from there, [`RuntimeError::Ciphertexts`] for ciphertexts that
    /// are not of the value, and those of `read`.
    pub fn resume<E: From<RuntimeError>>(
        &mut self,
        next: usize,
        mut read: impl FnMut(Held) -> Result<Vec<BundleEntry>, E>,
    ) -> Result<(), E> {
        let total = self.verified.plan().instructions.len();
        if next > total {
            return Err(RuntimeError::Resume(format!("instruction {next} of {total}")).into());
        }
        let held = self.as_held(next, &self.execution.live_before(next));
        let held = held.ok_or_else(|| RuntimeError::Resume(format!("a product before instruction {next}")))?;
        let (mut registers, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        for value in held {
            let bundle = read(value)?;
            let Some((level, scale, count)) = self.shape(value) else { continue };
            let ciphertexts = collect(self.backend.context(), &bundle, &value.to_string(), count, level, scale)?;
            match value {
                Held::Register(reg) => {
                    registers.insert(reg, CkksValue::Ciphertexts(ciphertexts));
                }
                Held::Output(index) => {
                    outputs.insert(index, ciphertexts);
                }
            }
        }
        Ok(self.execution.resume(next, registers, outputs)?)
    }

    /// The ciphertexts of the outputs, and what was done, once no instruction is left.
    pub fn finish(self) -> (Vec<BundleEntry>, Trace) {
        let done = self.execution.finish();
        let outputs = self.verified.plan().outputs.iter().zip(done.outputs);
        (
            outputs.flat_map(|(output, ciphertexts)| bundle_of(&output.name, self.images, ciphertexts)).collect(),
            done.trace,
        )
    }
}

fn bundle_of(name: &str, images: u32, ciphertexts: Vec<Ciphertext>) -> Vec<BundleEntry> {
    let entry = |(index, c)| BundleEntry { name: name.into(), index, images, form: BundleForm::Full(c) };
    (0..).zip(ciphertexts).map(entry).collect()
}
