//! The trace of a run: a JSON object a line, each written when it is known, so that a run that was killed leaves what it
//! did.
//!
//! A `run` opens every evaluation, a `node` follows for every instruction, an `end` closes it.

use super::estimate::Estimate;
use crate::files;
use crate::machine;
use crate::plan_file::short_hash;
use anyhow::{Context, Result};
use fhec_plan::verify::Verified;
use fhec_runtime::{Event, Trace};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A trace that is being written.
pub(super) struct TraceFile {
    file: File,
    path: PathBuf,
}

impl TraceFile {
    /// Starts a trace.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Ok(TraceFile { file: files::create(path)?, path: path.to_owned() })
    }

    fn line(&mut self, record: &Value) -> Result<()> {
        writeln!(self.file, "{record}").with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// An evaluation begins, at instruction `first`.
    pub(super) fn begin(&mut self, verified: &Verified, input: &Path, first: usize) -> Result<()> {
        let plan = verified.plan();
        self.line(&json!({
            "record": "run",
            "model": plan.model,
            "plan": short_hash(verified.hash()),
            "machine": machine::describe(&machine::this()),
            "input": input.display().to_string(),
            "threads": rayon::current_num_threads(),
            "instructions": plan.instructions.len(),
            "first": first,
            "predicted_seconds": plan.report.seconds,
            "predicted_peak_memory": plan.report.peak_memory,
        }))
    }

    /// An instruction was executed.
    pub(super) fn node(&mut self, verified: &Verified, estimate: &Estimate, event: &Event) -> Result<()> {
        let plan = verified.plan();
        let facts = verified.register(plan.instructions[event.number].dst);
        self.line(&json!({
            "record": "node",
            "number": event.number,
            "op": event.op,
            "layer": event.layer,
            "name": plan.layers[event.layer].name,
            "kind": plan.layers[event.layer].kind,
            "level": event.level,
            "log2_scale": facts.scale.log2(),
            "ciphertexts": event.ciphertexts,
            "begin": event.begin.as_secs_f64(),
            "seconds": event.time.as_secs_f64(),
            "predicted_seconds": estimate.seconds(event.number),
            "live_bytes": event.live_bytes,
        }))
    }

    /// The evaluation is done.
    pub(super) fn end(&mut self, verified: &Verified, estimate: &Estimate, trace: &Trace) -> Result<()> {
        let plan = verified.plan();
        let mut predicted = vec![0.0; plan.layers.len()];
        for (number, instruction) in plan.instructions.iter().enumerate() {
            predicted[instruction.layer.index()] += estimate.seconds(number);
        }
        let layer = |(i, layer): (usize, &fhec_plan::Layer)| {
            let seconds = trace.layers.get(i).map_or(0.0, |t| t.as_secs_f64());
            json!({ "name": layer.name, "kind": layer.kind, "seconds": seconds, "predicted_seconds": predicted[i] })
        };
        self.line(&json!({
            "record": "end",
            "seconds": trace.total.as_secs_f64(),
            "peak_register_bytes": trace.peak_register_bytes,
            "layers": plan.layers.iter().enumerate().map(layer).collect::<Vec<_>>(),
        }))
    }
}
