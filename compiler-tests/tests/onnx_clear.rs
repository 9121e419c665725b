//! The operator cases of the ONNX project through the whole compiler: import, passes, plan, verification, and a
//! run of the plan in the clear.
//!
//! Cases that import but do not compile are listed with the compiler's reason in `onnx_refused.txt`, which may
//! only shrink: a listed case that passes fails the test, so does an unlisted one that is refused, and so does a
//! longer list. A wrong result is always a failure. How many cases end how stands in
//! `snapshots/onnx_clear__summary.snap`.

use compiler_tests::onnx_node::{Outcome, Way, against_list, cases, difference, ways};
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Graph, Interpreter, Node, Op};
use fhec_passes::approximate::ApproximateOptions;
use fhec_passes::{CompileError, Compiled, Options, compile};
use fhec_plan::{Insecure, Plan, Verified};
use fhec_runtime::{ClearBackend, postprocess, run};
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Cases in `onnx_refused.txt` at most; lower it when the list gets shorter.
const LISTED: usize = 17;

/// Root mean square of the outputs' error that approximations may cause, relative to the outputs' spread.
const TOLERANCE: f64 = 0.02;

/// The case's inputs, and three variations of them: what a user would calibrate with.
fn samples(inputs: &[Tensor]) -> Vec<Vec<Tensor>> {
    let shifted = |t: &Tensor| {
        let largest = t.values().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        // Some cases hold only zeros or unset memory: their users would calibrate with something else.
        let span = if largest < 1e-30 { 10.0 } else { largest };
        let values = t.values().iter().enumerate().map(|(i, v)| v + 0.1 * span * (i as f64).cos()).collect();
        Tensor::new(t.shape().to_vec(), values)
    };
    let scaled = |by: f64| inputs.iter().map(|t| t.map(|v| by * v)).collect();
    vec![inputs.to_vec(), scaled(0.9), scaled(1.1), inputs.iter().map(shifted).collect()]
}

/// The reason of a refusal in one line; `None` for errors that no model should cause.
fn reason(error: &CompileError) -> Option<String> {
    match error {
        CompileError::Model(list) => {
            let first = list.0.first()?;
            Some(format!("{}: {}", first.what, first.message.replace('\n', " ")))
        }
        CompileError::Broken(_) | CompileError::Facts(_) | CompileError::Sample(_) | CompileError::NoRange => None,
        other => {
            let text = other.to_string();
            let mut lines = text.lines();
            let first = lines.next()?;
            Some(lines.last().map_or(first.to_owned(), |last| format!("{first} {}", last.trim())))
        }
    }
}

/// Runs the plan, as read back from its bytes, in the clear.
fn run_clear(compiled: &Compiled, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let plan = Plan::read(Arc::new(compiled.plan.to_bytes())).map_err(|e| e.to_string())?;
    let verified = Verified::new(plan, Insecure::Refuse).map_err(|e| e.to_string())?;
    let values = inputs.iter().map(|t| t.values().to_vec()).collect();
    let outputs = run(&verified, &ClearBackend::new(&verified), values, &mut |_| {}).map_err(|e| e.to_string())?;
    let outputs = outputs.outputs.into_iter().zip(&verified.plan().outputs).map(|(mut values, output)| {
        postprocess(&output.postprocess, &output.shape, &mut values);
        Tensor::new(output.shape.clone(), values)
    });
    Ok(outputs.collect())
}

/// Largest magnitude.
fn magnitude(tensors: &[Tensor]) -> f64 {
    tensors.iter().flat_map(|t| t.values()).fold(0.0, |m, v| m.max(v.abs()))
}

/// Root mean square of the difference of `a` and `b`.
fn rms(a: &[Tensor], b: &[Tensor]) -> f64 {
    let pairs = || a.iter().zip(b).flat_map(|(a, b)| a.values().iter().zip(b.values()));
    (pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / pairs().count().max(1) as f64).sqrt()
}

/// Standard deviation of all outputs of `graph` over `samples`.
fn spread(graph: &Graph, samples: &[Vec<Tensor>]) -> f64 {
    let interpreter = Interpreter::new(graph).expect("imported graphs verify");
    let outputs = samples.iter().flat_map(|s| interpreter.run(s).expect("the samples fit"));
    let all: Vec<f64> = outputs.flat_map(|t| t.values().to_vec()).collect();
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len().max(1) as f64).sqrt()
}

/// Compiles one way of a case and compares: with the network of polynomials, exactly, and with the network as
/// imported, exactly or within the tolerance of its approximations. That the network as imported gives the outputs
/// that the case expects (some of them rounded to four digits) is tested with the import.
fn run_way(graph: &Graph, inputs: &[Tensor]) -> Outcome {
    let samples = samples(inputs);
    let options = Options {
        samples: samples.clone(),
        precision_bits: Some(8.0),
        approximate: ApproximateOptions { tolerance: TOLERANCE, ..ApproximateOptions::default() },
        ..Options::default()
    };
    let compiled = match compile(graph, &options) {
        Ok(compiled) => compiled,
        Err(e) => return reason(&e).map_or_else(|| Outcome::Failed(e.to_string()), Outcome::Refused),
    };
    let got = match run_clear(&compiled, inputs) {
        Ok(got) => got,
        Err(e) => return Outcome::Failed(e),
    };
    let meaning = |graph: &Graph| Interpreter::new(graph).expect("the graph verifies").run(inputs).expect("they fit");
    let (original, polynomial) = (meaning(graph), meaning(&compiled.polynomial));
    let spread = spread(graph, &samples);
    let rounding = |of: &[Tensor]| 1e-7 * spread.max(magnitude(of));
    if let Some(difference) = difference(&polynomial, &got, 1e-6, rounding(&polynomial)) {
        return Outcome::Failed(format!("against the polynomial network: {difference}"));
    }
    // What is approximated may become a line, and leave no polynomial.
    let approximated = |n: &Node| match &n.op {
        Op::Polynomial { .. } => true,
        Op::Activation(f) => !matches!(f, Activation::Power { .. }),
        _ => false,
    };
    if !graph.nodes.iter().chain(&compiled.polynomial.nodes).any(approximated) {
        return difference(&original, &got, 1e-6, rounding(&original)).map_or(Outcome::Passed, Outcome::Failed);
    }
    // The tolerance is kept over all samples together; one of them may use it up alone.
    let (error, allowed) = (rms(&original, &got), TOLERANCE * (samples.len() as f64).sqrt() * spread);
    if error.is_nan() || error > allowed {
        return Outcome::Failed(format!("off by {error:.3e} rms, {allowed:.3e} allowed"));
    }
    Outcome::Passed
}

/// A case passes when one of the ways compiles, and none gives a wrong result. `None` when it does not import.
fn run_case(folder: &Path) -> Option<Outcome> {
    let (ways, _) = ways(folder).ok()?;
    let outcomes = ways.iter().filter_map(|Way { graph, inputs }| {
        graph.as_ref().ok().map(|graph| {
            // A panic is a failure of this case, not the end of all.
            let caught = std::panic::catch_unwind(|| run_way(graph, inputs));
            caught.unwrap_or_else(|_| Outcome::Failed("panicked".into()))
        })
    });
    // The worst failure, else any success, else the first refusal.
    outcomes.reduce(|a, b| match (&a, &b) {
        (Outcome::Failed(_), _) | (Outcome::Passed, Outcome::Refused(_)) => a,
        (_, Outcome::Failed(_)) | (Outcome::Refused(_), Outcome::Passed) => b,
        _ => a,
    })
}

#[test]
fn operator_cases_run_through_the_clear_backend() {
    let Some(cases) = cases() else { return };
    let all = cases.len();
    let outcomes: Vec<(String, Outcome)> = cases
        .into_par_iter()
        .filter_map(|(name, folder)| {
            let start = std::time::Instant::now();
            let outcome = run_case(&folder)?;
            if start.elapsed().as_secs_f64() > 2.0 {
                println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
            }
            Some((name, outcome))
        })
        .collect();
    let tally = against_list(&outcomes, include_str!("../onnx_refused.txt"), LISTED);
    assert!(tally.complaints.is_empty(), "{}", tally.complaints);
    let refused = tally.refusals();
    let mut text = format!(
        "{all} operator cases of the ONNX project through import, passes, plan and the clear backend:\n\
         {} passed\n{} unsupported by list: not imported (onnx_unsupported.txt)\n\
         {refused} unsupported by list: not compiled (onnx_refused.txt)\n0 failed\n\nnot compiled, by operator:\n",
        tally.passed,
        all - outcomes.len(),
    );
    for (kind, count) in &tally.refused {
        writeln!(text, "{count:4} {kind}").expect("strings take all");
    }
    insta::assert_snapshot!("summary", text);
}
