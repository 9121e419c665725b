//! `fhec run`: evaluates a plan on encrypted inputs. Nothing here can hold a secret key.

use crate::cli::Cli;
use crate::files::{self, Access, status};
use crate::keys::refuse_secret;
use crate::plan_file::{self, short_hash};
use crate::progress::Progress;
use crate::{format, memory};
use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use fhec_ckks::UniformHalves;
use fhec_ckks::container::{HEAD_LEN, read_ciphertexts, stream_evaluation_keys, write_ciphertexts};
use fhec_plan::verify::Verified;
use fhec_runtime::{Server, Trace, server_context};
use serde_json::{Value, json};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `fhec run`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec run mnist.plan --eval-keys keys/eval.keys --input x.ct -o y.ct
  fhec run mnist.plan --eval-keys keys/eval.keys --input a.ct -o ya.ct --input b.ct -o yb.ct
  fhec run mnist.plan --eval-keys keys/eval.keys --input x.ct -o y.ct --threads 4 --trace t.json

The server needs the plan, the evaluation keys and the ciphertexts; a secret key is refused. With
several inputs the keys are read and the weights encoded only once.")]
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
    /// Write the time of every layer and instruction as JSON
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
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
        let plan = Arc::new(plan_file::open(&self.plan)?);
        let report = &plan.plan().report;
        status(&format!(
            "predicted: {} on one thread, {} of memory",
            format::seconds(report.seconds),
            format::bytes(report.peak_memory)
        ));
        let job = Job::open(plan, eval_keys, self.input.len(), memory::allowance(self.memory))?;
        let mut traces = Vec::new();
        for (input, output) in self.input.iter().zip(&self.output) {
            let trace = job.run(input, output)?;
            status(&format!("{}  {}", output.display(), format::seconds(trace.total.as_secs_f64())));
            traces.push((input, trace));
        }
        if let Some(path) = &self.trace {
            let runs: Vec<Value> = traces.iter().map(|(input, trace)| run_json(job.plan(), input, trace)).collect();
            let text = format!("{:#}\n", trace_json(job.plan(), runs));
            files::write(path, Access::Public, |out| Ok(out.write_all(text.as_bytes())?))?;
        }
        Ok(())
    }
}

/// Sets the number of threads of everything that follows.
pub(crate) fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start threads")
}

/// A server with its keys loaded.
pub(crate) struct Job {
    plan: Arc<Verified>,
    server: Server,
}

impl Job {
    /// Loads the keys for `runs` evaluations of a plan, whose registers and kept weights must fit `memory` bytes.
    pub(crate) fn open(plan: Arc<Verified>, eval_keys: &Path, runs: usize, memory: u64) -> Result<Self> {
        let registers = plan.facts().peak_register_bytes();
        let Some(left) = memory.checked_sub(registers) else {
            bail!(
                "the plan needs {} for ciphertexts alone, allowed are {} (--memory)",
                format::bytes(registers),
                format::bytes(memory)
            );
        };
        let context = server_context(&plan, None)?;
        let named = || eval_keys.display().to_string();
        let (mut file, len) = files::stream(eval_keys)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_LEN).read_to_end(&mut head).with_context(named)?;
        refuse_secret(&head).with_context(named)?;
        let file = Cursor::new(head).chain(file);
        // One run uses most keys once or twice, unless it bootstraps.
        let once = runs == 1 && plan.plan().parameters.bootstrap.is_none();
        let halves = if once { UniformHalves::MadeOnUse } else { UniformHalves::Kept };
        let keys = Arc::new(stream_evaluation_keys(file, len, &context, plan.hash(), halves).with_context(named)?);
        // A single run uses every encoded weight once: keeping them would only cost memory.
        let budget = if runs > 1 { plan.plan().report.plaintext_budget.min(left) } else { 0 };
        let server = Server::new(Arc::clone(&plan), &context, keys, budget).with_context(named)?;
        Ok(Job { plan, server })
    }

    fn plan(&self) -> &Verified {
        &self.plan
    }

    /// Evaluates one file of ciphertexts into another.
    pub(crate) fn run(&self, input: &Path, output: &Path) -> Result<Trace> {
        let context = self.server.backend().context();
        let named = || input.display().to_string();
        let file = files::map(input)?;
        let bundle = read_ciphertexts((*file).as_ref(), context, self.plan.hash()).with_context(named)?;
        drop(file);
        let progress = Progress::new(named());
        let (result, trace) =
            self.server.run(&bundle, &mut |event| progress.set(event.number + 1, event.total)).with_context(named)?;
        drop(progress);
        files::write(output, Access::Public, |out| Ok(write_ciphertexts(&result, context, self.plan.hash(), out)?))?;
        Ok(trace)
    }
}

fn trace_json(verified: &Verified, runs: Vec<Value>) -> Value {
    let plan = verified.plan();
    json!({
        "model": plan.model,
        "plan": short_hash(verified.hash()),
        "threads": rayon::current_num_threads(),
        "predicted_seconds": plan.report.seconds,
        "runs": runs,
    })
}

fn run_json(verified: &Verified, input: &Path, trace: &Trace) -> Value {
    let plan = verified.plan();
    let layers: Vec<Value> = plan
        .layers
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            json!({
                "name": layer.name, "kind": layer.kind,
                "seconds": trace.layers.get(i).map_or(0.0, |t| t.as_secs_f64()),
                "predicted_seconds": plan.report.layers.get(i).map_or(0.0, |r| r.seconds),
            })
        })
        .collect();
    let instructions: Vec<Value> = trace
        .events
        .iter()
        .map(|e| {
            json!({
                "number": e.number, "op": e.op, "layer": e.layer, "level": e.level, "ciphertexts": e.ciphertexts,
                "begin": e.begin.as_secs_f64(), "seconds": e.time.as_secs_f64(), "live_bytes": e.live_bytes,
            })
        })
        .collect();
    json!({
        "input": input.display().to_string(),
        "seconds": trace.total.as_secs_f64(),
        "peak_register_bytes": trace.peak_register_bytes,
        "layers": layers,
        "instructions": instructions,
    })
}
