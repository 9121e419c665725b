//! The cheaper mode for a number of images.

use crate::driver::PassRun;
use crate::mode::Mode;
use crate::pipeline::{CompileError, Compiled, Options, compile_watched};
use fhec_ir::nn;

/// Compiles a network in the mode that evaluates `batch` images in less predicted time, whatever [`Options::mode`] says. The
/// report notes what the other one would take.
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
    Ok(cheaper)
}

/// Predicted seconds of all runs that a batch takes.
fn seconds(compiled: &Compiled, batch: usize) -> f64 {
    batch.div_ceil(compiled.plan.batch()) as f64 * compiled.plan.report.seconds
}

/// The first line of an error.
fn line(error: &CompileError) -> String {
    error.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_string()
}
