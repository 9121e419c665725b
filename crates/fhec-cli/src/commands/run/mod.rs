//! `fhec run`: evaluates a plan on encrypted inputs. Nothing here can hold a secret key.

mod checkpoint;
mod estimate;
mod stop;
mod streamed;
mod trace;
mod values;

pub(crate) use estimate::Estimate;
pub(crate) use stop::Interrupted;
pub(crate) use streamed::{folder, streaming};
pub(crate) use values::{file_name as value_file, results};

use crate::cli::Cli;
use crate::files::{self, Access, status};
use crate::keys::refuse_secret;
use crate::plan_file;
use crate::progress::Work;
use crate::{format, memory};
use anyhow::{Context, Result, bail};
use checkpoint::{Checkpoint, Identity};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use fhec_ckks::UniformHalves;
use fhec_ckks::container::{HEAD_LEN, read_ciphertexts, stream_evaluation_keys, write_ciphertexts};
use fhec_plan::verify::Verified;
use fhec_runtime::{Evaluation, Event, Server, Trace, server_context};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stop::Stop;
use streamed::Streamed;
use trace::TraceFile;
use values::Values;

/// Arguments of `fhec run`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec run mnist.plan --eval-keys keys/eval.keys --input x.ct -o y.ct
  fhec run mnist.plan --eval-keys keys/eval.keys --input a.ct -o ya.ct --input b.ct -o yb.ct
  fhec run mnist.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --threads 4 --trace t.jsonl
  fhec run resnet20.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --checkpoint night
  fhec run resnet20.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --keep-values values

The server needs the plan, the evaluation keys and the ciphertexts; a secret key is refused. With
several inputs the keys are read and the weights encoded only once.

A throughput plan whose ciphertexts do not fit --memory is evaluated a few of them at a time; what is
needed later goes to a temporary file in --spill, of which nothing is left whatever ends the run.

With --checkpoint everything that a later run needs is written after every layer: the same command
goes on from there, whatever ended the first one, and comes to the same bits. Ctrl-C ends a run after
the instruction in work, with status 130; a second one ends it at once.

Where standard error is no terminal, runs that take long write a line every half minute: how much is
done, how long the rest will take, and the layer.

The values of --keep-values are encrypted; whoever has the secret key can look at them with
fhec compare, and at the result without them.")]
pub(crate) struct Run {
    /// The plan
    plan: PathBuf,
    /// The client's evaluation keys
    #[arg(long, value_name = "FILE", required_unless_present = "secret_key")]
    eval_keys: Option<PathBuf>,
    /// An encrypted input; may be repeated, with as many -o
    #[arg(long, value_name = "FILE", required = true)]
    input: Vec<PathBuf>,
    /// Where the encrypted output goes
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Vec<PathBuf>,
    /// Threads to use; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Memory for ciphertexts in work and for weights kept between inputs; half of the machine's by default
    #[arg(long, value_name = "SIZE", value_parser = format::parse_bytes)]
    memory: Option<u64>,
    /// Folder for a temporary file with the ciphertexts of a throughput plan that do not fit --memory; the system's by default
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
    /// Write time, level and scale of every instruction while it runs, a JSON object a line
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Keep checkpoints in this folder, and go on from the one that is there
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Least seconds between two checkpoints
    #[arg(long, value_name = "S", requires = "checkpoint", default_value = "0", value_parser = clap::value_parser!(u32))]
    checkpoint_every: u32,
    /// Remove the checkpoint that is there and start anew
    #[arg(long, requires = "checkpoint")]
    restart: bool,
    /// Write the encrypted result of every layer to this folder, for fhec compare
    #[arg(long, value_name = "DIR")]
    keep_values: Option<PathBuf>,
    // Known only so that it can be refused with a reason.
    #[arg(long, hide = true)]
    secret_key: Option<PathBuf>,
}

impl Run {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let Some(eval_keys) = self.eval_keys.as_deref().filter(|_| self.secret_key.is_none()) else {
            bail!("a server must never hold a secret key: run takes evaluation keys only (--eval-keys)")
        };
        if self.input.len() != self.output.len() {
            let message = format!("{} --input for {} -o", self.input.len(), self.output.len());
            Cli::command().error(ErrorKind::WrongNumberOfValues, message).exit();
        }
        if let Some(threads) = self.threads {
            set_threads(threads.into())?;
        }
        for (what, given) in [("--checkpoint", &self.checkpoint), ("--keep-values", &self.keep_values)] {
            if given.is_some() && self.input.len() > 1 {
                Cli::command().error(ErrorKind::ArgumentConflict, format!("{what} takes one --input")).exit();
            }
        }
        let plan = Arc::new(plan_file::open(&self.plan)?);
        plan_file::in_one_round(plan.plan().rounds())?;
        self.output.iter().try_for_each(|output| files::writable(output))?;
        let report = &plan.plan().report;
        status(&format!(
            "predicted: {}, {} of memory",
            format::on_threads(report, rayon::current_num_threads()),
            format::bytes(report.peak_memory)
        ));
        let stop = Stop::watch()?;
        let memory = memory::allowance(self.memory);
        let job = Job::open_spilling(Arc::clone(&plan), eval_keys, self.input.len(), memory, self.spill.as_deref())?;
        if job.streamed.is_some() {
            let options = [("--checkpoint", self.checkpoint.is_some()), ("--trace", self.trace.is_some())];
            let options = options.into_iter().chain([("--keep-values", self.keep_values.is_some())]);
            if let Some((option, _)) = options.into_iter().find(|(_, given)| *given) {
                bail!("{option} needs all ciphertexts in memory: {} (--memory)", format::bytes(job.registers()));
            }
        }
        let mut with = With {
            stop: Some(&stop),
            trace: self.trace.as_deref().map(TraceFile::create).transpose()?,
            values: self.keep_values.as_deref().map(|folder| Values::create(folder, &plan)).transpose()?,
            checkpoint: self.checkpoint.as_deref().map(|folder| Keep {
                folder,
                every: Duration::from_secs(self.checkpoint_every.into()),
                restart: self.restart,
            }),
        };
        for (input, output) in self.input.iter().zip(&self.output) {
            let trace = job.evaluate(input, output, &mut with)?;
            status(&format!("{}  {}", output.display(), format::seconds(trace.total.as_secs_f64())));
        }
        Ok(())
    }
}

/// Sets the number of threads of everything that follows.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start threads")
}

/// What goes along with an evaluation.
#[derive(Default)]
struct With<'a> {
    stop: Option<&'a Stop>,
    trace: Option<TraceFile>,
    values: Option<Values>,
    checkpoint: Option<Keep<'a>>,
}

/// How checkpoints are kept.
struct Keep<'a> {
    folder: &'a Path,
    every: Duration,
    restart: bool,
}

/// A server with its keys loaded.
pub(crate) struct Job {
    plan: Arc<Verified>,
    server: Server,
    estimate: Estimate,
    /// Checksum of the keys.
    keys: [u8; CHECKSUM],
    /// Where the registers do not fit memory.
    streamed: Option<Streamed>,
}

impl Job {
    /// Loads the keys for `runs` evaluations of a plan, whose registers and kept weights must fit `memory` bytes.
    pub(crate) fn open(plan: Arc<Verified>, eval_keys: &Path, runs: usize, memory: u64) -> Result<Self> {
        Self::open_spilling(plan, eval_keys, runs, memory, None)
    }

    /// The same; where the ciphertexts of a throughput plan do not fit, the rest of them goes to a temporary file in a folder.
    pub(crate) fn open_spilling(
        plan: Arc<Verified>,
        eval_keys: &Path,
        runs: usize,
        memory: u64,
        spill: Option<&Path>,
    ) -> Result<Self> {
        let registers = plan.facts().peak_register_bytes();
        memory::keep_freed_of(&plan);
        let (left, streamed) = match memory.checked_sub(registers) {
            Some(left) => (left, None),
            None => (0, Some(Streamed::new(&plan, memory, spill)?)),
        };
        let context = server_context(&plan, None)?;
        let named = || eval_keys.display().to_string();
        let (mut file, len) = files::stream(eval_keys)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_LEN).read_to_end(&mut head).with_context(named)?;
        refuse_secret(&head).with_context(named)?;
        let mut file = End { inner: Cursor::new(head).chain(file), last: [0; CHECKSUM] };
        // One run may use most keys once or twice: the compiler knows.
        let once = runs == 1 && !plan.plan().report.keeps_keys;
        let halves = if once { UniformHalves::MadeOnUse } else { UniformHalves::Kept };
        let keys = Arc::new(stream_evaluation_keys(&mut file, len, &context, plan.hash(), halves).with_context(named)?);
        // A single run uses every encoded weight once: keeping them would only cost memory.
        let budget = if runs > 1 { plan.plan().report.plaintext_budget.min(left) } else { 0 };
        let server = Server::new(Arc::clone(&plan), &context, keys, budget).with_context(named)?;
        let estimate = Estimate::of(&plan);
        Ok(Job { plan, server, estimate, keys: file.last, streamed })
    }

    /// Bytes of ciphertexts at once where all of them are in memory.
    fn registers(&self) -> u64 {
        self.plan.facts().peak_register_bytes()
    }

    /// Evaluates one file of ciphertexts into another.
    pub(crate) fn run(&self, input: &Path, output: &Path) -> Result<Trace> {
        self.evaluate(input, output, &mut With::default())
    }

    fn evaluate(&self, input: &Path, output: &Path, with: &mut With<'_>) -> Result<Trace> {
        if let Some(streamed) = &self.streamed {
            return streamed.evaluate(&self.plan, &self.server, input, output, with.stop);
        }
        let context = self.server.backend().context();
        let named = || input.display().to_string();
        let file = files::map(input)?;
        let bundle = read_ciphertexts((*file).as_ref(), context, self.plan.hash()).with_context(named)?;
        let mut evaluation = self.server.begin(&bundle).with_context(named)?;
        drop(bundle);
        let mut checkpoint = match &with.checkpoint {
            Some(keep) => Some(self.checkpoint(keep, (*file).as_ref(), &mut evaluation)?),
            None => None,
        };
        drop(file);
        let first = evaluation.next();
        if let Some(trace) = &mut with.trace {
            trace.begin(&self.plan, input, first)?;
        }
        let (begin, progress) = (Instant::now(), Work::new(named()));
        loop {
            self.stop_if_asked(with, checkpoint.as_mut(), &mut evaluation)?;
            let next = evaluation.next();
            let left = self.estimate.left(first, next, begin.elapsed().as_secs_f64());
            progress.set(self.estimate.done(next), || (self.layer(next).to_owned(), format::seconds(left)));
            let Some(event) = evaluation.step().with_context(named)?.cloned() else { break };
            self.record(&event);
            if let Some(trace) = &mut with.trace {
                trace.node(&self.plan, &self.estimate, &event)?;
            }
            if let Some(values) = &with.values {
                values.keep(&self.plan, event.number, &mut evaluation)?;
            }
            // After the last instruction only the result is left to be written.
            let following = self.plan.plan().instructions.get(event.number + 1);
            if let (Some(checkpoint), Some(following)) = (&mut checkpoint, following) {
                checkpoint.after(following.layer.index() != event.layer, &self.plan, &mut evaluation)?;
            }
        }
        drop(progress);
        let (result, trace) = evaluation.finish();
        files::write(output, Access::Public, |out| Ok(write_ciphertexts(&result, context, self.plan.hash(), out)?))?;
        if let Some(file) = &mut with.trace {
            file.end(&self.plan, &self.estimate, &trace)?;
        }
        if let Some(mut checkpoint) = checkpoint {
            checkpoint.remove()?;
        }
        Ok(trace)
    }

    /// Opens the folder of checkpoints, goes on from the one that is there, and says so.
    fn checkpoint(&self, keep: &Keep<'_>, input: &[u8], evaluation: &mut Evaluation<'_>) -> Result<Checkpoint> {
        let of = Identity {
            plan: blake3::Hash::from_bytes(*self.plan.hash()).to_hex().to_string(),
            input: blake3::hash(input).to_hex().to_string(),
            keys: blake3::Hash::from_bytes(self.keys).to_hex().to_string(),
        };
        let opened = Checkpoint::open(keep.folder, of, keep.every, keep.restart, &self.plan, evaluation)?;
        let (folder, most) = (keep.folder.display(), format::bytes(Checkpoint::most_bytes(evaluation)));
        let total = self.plan.plan().instructions.len();
        status(&match evaluation.next() {
            0 => format!("checkpoints: at most {most} in {folder}"),
            next => {
                format!("going on from the checkpoint in {folder}: instruction {next} of {total}, {}", self.layer(next))
            }
        });
        Ok(opened)
    }

    /// Ends the run where a signal asked for it, with a checkpoint if there are any.
    fn stop_if_asked(
        &self,
        with: &With<'_>,
        checkpoint: Option<&mut Checkpoint>,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<()> {
        let Some(signal) = with.stop.and_then(Stop::requested) else { return Ok(()) };
        let (next, total) = (evaluation.next(), self.plan.plan().instructions.len());
        if next == total {
            // Only the result is left to be written.
            return Ok(());
        }
        let kept = match (checkpoint, &with.checkpoint) {
            (Some(checkpoint), Some(keep)) => {
                if !checkpoint.write(&self.plan, evaluation)? {
                    // Within a product; the next instructions make an end of it.
                    return Ok(());
                }
                format!("the same command goes on from the checkpoint in {}", keep.folder.display())
            }
            _ => "nothing is kept (--checkpoint DIR would)".to_owned(),
        };
        let message = format!("stopped before instruction {next} of {total}, layer {}; {kept}", self.layer(next));
        Err(Interrupted::new(signal, message).into())
    }

    /// Name of the layer of an instruction.
    fn layer(&self, number: usize) -> &str {
        let plan = self.plan.plan();
        plan.instructions.get(number).map_or("the end", |i| &plan.layers[i.layer.index()].name)
    }

    /// Tells the log of an instruction.
    fn record(&self, event: &Event) {
        tracing::debug!(
            number = event.number,
            of = event.total,
            op = event.op,
            layer = self.layer(event.number),
            level = event.level,
            ciphertexts = event.ciphertexts,
            ms = event.time.as_secs_f64() * 1e3,
            live_bytes = event.live_bytes,
        );
    }
}

/// Bytes of the checksum that a container ends with.
const CHECKSUM: usize = 32;

/// Remembers the end of what is read: of a container, its checksum.
struct End<R> {
    inner: R,
    last: [u8; CHECKSUM],
}

impl<R: Read> Read for End<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let new = &buffer[n.saturating_sub(CHECKSUM)..n];
        self.last.rotate_left(new.len());
        self.last[CHECKSUM - new.len()..].copy_from_slice(new);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_remembered_however_it_is_read() {
        let bytes: Vec<u8> = (0..200u8).collect();
        for piece in [1, 7, 31, 32, 33, 64, 200] {
            let mut end = End { inner: &bytes[..], last: [0; CHECKSUM] };
            let mut buffer = vec![0; piece];
            while end.read(&mut buffer).expect("reads") > 0 {}
            assert_eq!(end.last, bytes[168..], "{piece}");
        }
    }
}
