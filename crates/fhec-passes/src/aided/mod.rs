//! Client-aided mode (nGraph-HE2 §5): the server evaluates what is linear, the client computes everything else, exactly.
//!
//! The network is cut in two (`split.rs`). The server's part is an ordinary tensor graph whose inputs and outputs are all
//! that travels; it goes through the same passes as any network, so that layouts, levels, scales, precision and
//! parameters are chosen as ever, and segments that no value connects are shallow by themselves. The instructions are then
//! ordered by rounds, and the client's part goes into the head of the plan.

mod channels;
mod errors;
mod layers;
mod masks;
#[cfg(test)]
mod networks;
mod secrets;
mod shuffle;
mod sides;
mod split;

use crate::bound::bound_ranges;
use crate::calibrate::{annotate, calibrate, observe, widen_by};
use crate::canonicalise::canonicalise;
use crate::driver::{Broken, Driver, PassRun, Problem};
use crate::fold_batch_norm::fold_batch_norm;
use crate::mode::Mode;
use crate::packed::choose;
use crate::parameters::{Demands, Goal};
use crate::pipeline::{CompileError, Compiled, Options, probe_samples};
use crate::quadratics::quadratics;
use crate::refuse::{refuse_unbounded, refuse_unsupported};
use crate::report::Context;
use crate::rewrite::Rewriter;
use crate::rings::Choice;
use crate::stage::Emitted;
use crate::streaming;
use fhec_ir::nn::{Activation, Graph, Interpreter, Node, Op, Range};
use fhec_ir::{Tensor, nn};
use fhec_plan::Plan;
use masks::mask;
use shuffle::shuffle;
use split::{Split, split};

/// How far values may be beyond those of random inputs, where there is no data.
const WITHOUT_DATA: f64 = 7.0;
/// How often precision is sought again where errors of all rounds together leave too little of it.
const ATTEMPTS: usize = 3;
/// Tensors of more elements than this together are analysed on one sample alone.
const MANY_ELEMENTS: usize = 1 << 19;

/// Compiles a network in client-aided mode, in the packing that [`Options::mode`] says. Activations are not approximated.
///
/// # Errors
/// Everything that keeps it from being compiled; see [`CompileError`].
pub fn compile_aided(
    graph: &Graph,
    options: &Options,
    watch: &mut dyn FnMut(PassRun<'_>),
) -> Result<Compiled, CompileError> {
    let mut driver = Driver::new(watch);
    let mut notes = Vec::new();
    let graph = driver.nn("plain-prelu", graph, plain_prelu)?;
    let graph = driver.nn("fold-batch-norm", &graph, fold_batch_norm)?;
    let graph = driver.nn("canonicalise", &graph, canonicalise)?;
    let graph = driver.nn("quadratics", &graph, quadratics)?;
    let mut hidden = Hidden::default();
    let graph = driver.nn("mask", &graph, |g| {
        let (graph, channels) = mask(g);
        hidden.masked = channels;
        graph
    })?;
    let ordered = graph;
    let graph = driver.nn("shuffle", &ordered, |g| {
        let (graph, channels) = shuffle(g);
        hidden.shuffled = channels;
        graph
    })?;
    let graph = ranges(&graph, options, &mut driver, &mut notes)?;
    let parts = split(&graph)?;
    nn::verify(&parts.server).map_err(|d| Broken { pass: "split", problem: Problem::Invariants(d) })?;
    refuse_unsupported(&parts.server)?;
    let samples = samples(&graph, options);
    let inner = travelling(&graph, &parts, &samples)?;
    let wanted = options.bits_or(None);
    let mut asked = wanted;
    let mut found: Option<(Compiled, f64)> = None;
    for _ in 0..ATTEMPTS {
        let made = match server(&graph, &parts, &inner, options, asked, &mut driver) {
            Ok(made) => made,
            Err(CompileError::Parameters { .. }) if found.is_some() => break,
            Err(other) => return Err(other),
        };
        let std: Vec<f64> = made.plan.outputs.iter().map(|o| o.error_std).collect();
        // On the network in its own order, node by node the same: which channel gets which of the errors that are drawn
        // must not decide over precision, and thereby over rings.
        let errors = errors::measure(&ordered, &parts, &samples, &std);
        let bits = errors.bits;
        let better = found.as_ref().is_none_or(|(_, known)| bits > *known);
        if better {
            let mut made = made;
            finish(&mut made.plan, &graph, &parts, &errors);
            found = Some((made, bits));
        }
        if bits >= wanted || !better {
            break;
        }
        asked += wanted - bits;
    }
    let (mut compiled, bits) = found.ok_or(CompileError::NoRange)?;
    if bits < wanted {
        notes.push(format!("errors of all rounds leave {bits:.1} bits of precision; {wanted} were asked for"));
    }
    notes.push(leak(&parts, hidden));
    compiled.plan.report.notes.splice(0..0, notes);
    streaming::predict(&mut compiled.plan, options.memory_budget, compiled.besides);
    Ok(compiled)
}

/// How many channels of results of layers are not as in the network.
#[derive(Clone, Copy, Debug, Default)]
struct Hidden {
    /// Those with a factor.
    masked: usize,
    /// Those in an order of their own.
    shuffled: usize,
}

/// What the client learns.
fn leak(parts: &Split, hidden: Hidden) -> String {
    let mut text = format!(
        "client-aided: the client sees {} tensors of values before activations, their shapes and ranges",
        parts.aided.receives.len()
    );
    if hidden.masked > 0 {
        text += &format!("; {} channels are multiplied by factors that it does not know", hidden.masked);
    }
    if hidden.shuffled > 0 {
        text += &format!("; {} channels are in an order that it does not know", hidden.shuffled);
    }
    text
}

/// Parametric ReLUs of one slope are leaky ones.
fn plain_prelu(graph: &Graph) -> Graph {
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let slope = match &node.op {
            Op::PRelu { slope } => graph.tensor(*slope).values(),
            _ => return rw.keep(id),
        };
        let Some(&alpha) = slope.first().filter(|a| slope.iter().all(|s| s == *a)) else { return rw.keep(id) };
        let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
        rw.add(Node { op: Op::Activation(Activation::LeakyRelu { alpha }), inputs, ..node.clone() })
    })
}

/// Ranges of all values: of data, or of random inputs with much room, which the client can check.
fn ranges(
    graph: &Graph,
    options: &Options,
    driver: &mut Driver<'_>,
    notes: &mut Vec<String>,
) -> Result<Graph, CompileError> {
    let bounded = |graph: Graph| -> Result<Graph, CompileError> {
        refuse_unbounded(&graph)?;
        Ok(graph)
    };
    if !options.samples.is_empty() {
        return driver.try_nn("calibrate", graph, |g| bounded(calibrate(g, &options.samples)?));
    }
    let Some(range) = options.input_range else { return Err(CompileError::NoRange) };
    notes.push(
        "ranges come from random inputs, eightfold widened, not from data: the client warns where values exceed them; \
         calibration data saves bits"
            .into(),
    );
    driver.try_nn("estimate-ranges", graph, |g| {
        let random = probe_samples(g, options);
        let mut out = annotate(g, &observe(g, &random)?.summaries);
        let bound = bound_ranges(g, range);
        for (node, certain) in out.nodes.iter_mut().zip(&bound.nodes) {
            let (Some(seen), Some(certain)) = (node.range, certain.range) else { continue };
            let wide = widen_by(seen, WITHOUT_DATA);
            let inside = Range { lo: wide.lo.max(certain.lo), hi: wide.hi.min(certain.hi) };
            node.range = Some(match node.op {
                Op::Input { .. } => range,
                _ if inside.lo <= inside.hi => inside,
                _ => wide,
            });
        }
        bounded(out)
    })
}

/// Inputs that errors are measured on.
fn samples(graph: &Graph, options: &Options) -> Vec<Vec<Tensor>> {
    let mut samples = probe_samples(graph, options);
    let elements: usize = graph.nodes.iter().map(|n| n.shape.iter().product::<usize>()).sum();
    if elements > MANY_ELEMENTS {
        samples.truncate(1);
    }
    samples
}

/// The inputs of the server's part, for samples of the network's inputs.
fn travelling(graph: &Graph, parts: &Split, samples: &[Vec<Tensor>]) -> Result<Vec<Vec<Tensor>>, CompileError> {
    let interpreter = Interpreter::new(graph)?;
    let one = |inputs: &Vec<Tensor>| {
        let mut values: Vec<Option<Tensor>> = vec![None; parts.inputs.len()];
        interpreter.run_with(inputs, |id, value| {
            for (place, _) in values.iter_mut().zip(&parts.inputs).filter(|(_, v)| **v == id) {
                *place = Some(value.clone());
            }
        })?;
        Ok(values.into_iter().flatten().collect())
    };
    samples.iter().map(one).collect()
}

/// The plan of the server's part.
fn server(
    graph: &Graph,
    parts: &Split,
    samples: &[Vec<Tensor>],
    options: &Options,
    precision_bits: f64,
    driver: &mut Driver<'_>,
) -> Result<Compiled, CompileError> {
    let goal = if options.mode == Mode::Latency { options.goal } else { Goal::Throughput };
    let demands = Demands { security: options.security, precision_bits, memory_budget: options.memory_budget, goal };
    let found = choose(&parts.server, samples, options, &demands, driver)?;
    let (Choice { stage, selected, keys, .. }, packing) =
        found.map_err(|reasons| CompileError::Parameters { demands, reasons, notes: vec![] })?;
    let notes = packing.into_iter().collect();
    let context = Context { memory_budget: options.memory_budget, notes, ..Context::default() };
    let emitted = stage.emit(&selected, keys, &options.cost, &context, options.preprocess.clone());
    let Emitted { plan, graph: he, facts } = emitted.map_err(CompileError::Facts)?;
    Ok(Compiled { plan, he, facts, polynomial: graph.clone(), besides: selected.price.besides })
}

/// Makes the plan of the server's part one of rounds.
fn finish(plan: &mut Plan, graph: &Graph, parts: &Split, errors: &errors::Errors) {
    let mut aided = parts.aided.clone();
    for (result, &std) in aided.results.iter_mut().zip(&errors.std) {
        result.error_std = std;
    }
    // What was seen or derived, without the room that was left for more.
    for (output, value) in plan.outputs.iter_mut().zip(&parts.sides.received) {
        if let Some(range) = graph.node(*value).range {
            output.range = (range.lo, range.hi);
        }
    }
    plan.report.output_bits = errors.bits;
    plan.report.output_bits_public = plan.report.output_bits_public.min(errors.bits);
    plan.aided = Some(aided);
    let mut round = std::collections::BTreeMap::new();
    for instruction in &plan.instructions {
        let own = if let fhec_plan::Op::Input(index) = instruction.op { plan.input_round(index) } else { 0 };
        let at = instruction.op.sources().iter().filter_map(|r| round.get(r)).fold(own, |a: u32, &b| a.max(b));
        round.insert(instruction.dst, at);
    }
    plan.instructions.sort_by_key(|i| round[&i.dst]);
}
