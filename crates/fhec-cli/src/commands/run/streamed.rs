//! Evaluation of throughput plans whose ciphertexts do not fit memory: inputs are read and outputs written as the evaluation goes on,
//! values in between go to a temporary file.

use super::Interrupted;
use super::stop::Stop;
use crate::files::{self, status};
use crate::format;
use crate::progress::Work;
use anyhow::{Context, Result, bail};
use fhec_plan::stream::Schedule;
use fhec_plan::verify::Verified;
use fhec_runtime::stream::{BundleSink, BundleSource, Progress};
use fhec_runtime::{RuntimeError, Server, Stream, Streaming, Trace};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The order of an evaluation, and what memory it may use.
pub(super) struct Streamed {
    schedule: Arc<Schedule>,
    streaming: Streaming,
    /// Where temporary files go.
    folder: PathBuf,
}

/// The folder of temporary files: that which was named, or else the system's.
pub(crate) fn folder(spill: Option<&Path>) -> PathBuf {
    spill.map_or_else(std::env::temp_dir, Path::to_owned)
}

/// The schedule of a plan that is too large for `memory` bytes, and what is left of these for ciphertexts.
pub(crate) fn streaming(plan: &Verified, memory: u64, spill: Option<&Path>) -> Result<(Arc<Schedule>, Streaming)> {
    let refuse = |needed: u64| {
        let (needed, memory) = (format::bytes(needed), format::bytes(memory));
        bail!("the plan needs {needed} for ciphertexts alone, allowed are {memory} (--memory)")
    };
    let Some(schedule) = Schedule::of(plan.plan(), plan.facts()) else {
        return refuse(plan.facts().peak_register_bytes());
    };
    let own = schedule.own_bytes();
    if memory < own + schedule.least() {
        return refuse(own + schedule.least());
    }
    let streaming = Streaming { budget: memory - own, spill: files::spilling(folder(spill)) };
    Ok((Arc::new(schedule), streaming))
}

impl Streamed {
    pub(super) fn new(plan: &Verified, memory: u64, spill: Option<&Path>) -> Result<Self> {
        let (schedule, streaming) = streaming(plan, memory, spill)?;
        Ok(Streamed { schedule, streaming, folder: folder(spill) })
    }

    /// Evaluates one file of ciphertexts into another.
    pub(super) fn evaluate(
        &self,
        plan: &Arc<Verified>,
        server: &Server,
        input: &Path,
        output: &Path,
        stop: Option<&Stop>,
    ) -> Result<Trace> {
        let (backend, named) = (server.backend(), || input.display().to_string());
        let mut source = BundleSource::open(files::map(input)?, backend.context(), plan, 0).with_context(named)?;
        let begin = Instant::now();
        let mut trace = Trace::default();
        files::write_at(output, &self.folder, |file| {
            let images = source.images();
            let cannot_write = || format!("cannot write {}", output.display());
            let mut sink = BundleSink::begin(file, backend.context(), plan, 0, images).with_context(cannot_write)?;
            let mut run = Stream::new(&self.schedule, &self.streaming, true)?;
            let work = Work::new(named());
            let (mut signal, mut next) = (None, String::new());
            let mut observe = |progress: Progress| {
                let done = progress.done as f64 / progress.total.max(1) as f64;
                let left = begin.elapsed().as_secs_f64() * (1.0 / done - 1.0);
                let layer = &plan.plan().layers[progress.layer].name;
                work.set(done, || (layer.clone(), format::seconds(left)));
                signal = stop.and_then(Stop::requested).filter(|_| progress.done < progress.total);
                next = format!("after part {} of {}, layer {layer}", progress.done, progress.total);
                if signal.is_some() { Err(RuntimeError::Stopped) } else { Ok(()) }
            };
            let done = run.round(backend, 0, &mut source, &mut sink, &mut observe);
            drop(work);
            if let Some(signal) = signal {
                return Err(Interrupted::new(signal, format!("stopped {next}; nothing is kept")).into());
            }
            done.with_context(named)?;
            let usage = run.usage();
            trace.peak_register_bytes = usage.peak as usize;
            status(&format!(
                "streamed: {} of ciphertexts in memory at once, {} written to disk and {} read back",
                format::bytes(usage.peak),
                format::bytes(usage.transfers.written),
                format::bytes(usage.transfers.read)
            ));
            sink.finish().with_context(cannot_write)
        })?;
        trace.total = begin.elapsed();
        Ok(trace)
    }
}
