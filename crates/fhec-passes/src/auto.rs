//! The cheaper mode for a number of images.

use crate::aided::compile_aided;
use crate::driver::PassRun;
use crate::mode::Mode;
use crate::pipeline::{CompileError, Compiled, Options, compile_watched};
use fhec_ir::nn;

/// Compiles a network in the mode that evaluates `batch` images in less predicted time, whatever [`Options::mode`] says. The
/// report notes what the other one would take, and what client-aided mode would.
///
/// # Errors
/// As [`compile_watched`] in latency mode, where the network can be compiled in no mode.
pub fn compile_cheaper(
    graph: &nn::Graph,
    options: &Options,
    batch: usize,
    watch: &mut dyn FnMut(PassRun<'_>),
) -> Result<Compiled, CompileError> {
    let mut with = |mode| compile_watched(graph, &Options { mode, ..options.clone() }, &mut *watch);
    let latency = with(Mode::Latency);
    // What the model itself forbids, no mode allows.
    if let Err(error) = &latency
        && !matches!(error, CompileError::Parameters { .. })
    {
        return latency;
    }
    let throughput = with(Mode::Throughput { batch: Some(batch) });
    let (mut cheaper, note) = match (latency, throughput) {
        (Ok(latency), Ok(throughput)) => {
            let (a, b) = (seconds(&latency, batch), seconds(&throughput, batch));
            let note = format!(
                "mode: {} for a batch of {batch}; predicted are {a:.3} s in latency mode and {b:.3} s in throughput mode",
                if a <= b { "latency" } else { "throughput" }
            );
            (if a <= b { latency } else { throughput }, note)
        }
        (Ok(latency), Err(why)) => (latency, format!("mode: latency; throughput mode is out of reach: {}", line(&why))),
        (Err(why), Ok(throughput)) => {
            (throughput, format!("mode: throughput; latency mode is out of reach: {}", line(&why)))
        }
        (Err(error), Err(_)) => return Err(error),
    };
    cheaper.plan.report.notes.push(note);
    let mode = if cheaper.plan.is_batched() { Mode::Throughput { batch: Some(batch) } } else { Mode::Latency };
    let aided = compile_aided(graph, &Options { mode, ..options.clone() }, watch);
    cheaper.plan.report.notes.push(aided_note(aided, batch));
    Ok(cheaper)
}

/// What client-aided mode would take. It is not chosen: it needs a client that answers, who sees more.
fn aided_note(aided: Result<Compiled, CompileError>, batch: usize) -> String {
    let plan = match &aided {
        Ok(compiled) => &compiled.plan,
        Err(why) => return format!("mode: client-aided mode is out of reach: {}", line(why)),
    };
    let rounds = plan.rounds();
    if rounds == 1 {
        return "mode: in client-aided mode the client would have nothing to compute".into();
    }
    let runs = batch.div_ceil(plan.batch()) as f64;
    let mib = |bytes: u64| runs * bytes as f64 / f64::from(1 << 20);
    format!(
        "mode: client-aided mode would take {:.3} s on the server in {rounds} rounds, with {:.1} MiB sent and {:.1} MiB back",
        runs * plan.report.seconds,
        mib(plan.report.input_bytes),
        mib(plan.report.output_bytes)
    )
}

/// Predicted seconds of all runs that a batch takes.
fn seconds(compiled: &Compiled, batch: usize) -> f64 {
    batch.div_ceil(compiled.plan.batch()) as f64 * compiled.plan.report.seconds
}

/// The first line of an error.
fn line(error: &CompileError) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_string()
}
