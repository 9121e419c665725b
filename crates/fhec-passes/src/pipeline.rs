//! The pipeline: which passes run, in which order.

use crate::approximate::{ApproximateError, ApproximateOptions};
use crate::bound::bound_ranges;
use crate::calibrate::calibrate_with;
use crate::canonicalise::canonicalise;
use crate::cost::CostTable;
use crate::driver::{Broken, Driver, PassRun};
use crate::fold_batch_norm::fold_batch_norm;
use crate::mode::{Complex, Mode};
use crate::parameters::{Demands, Goal, Unfit};
use crate::quadratics::quadratics;
use crate::refuse::{refuse_unbounded, refuse_unsupported};
use crate::report::Context;
use crate::rings::Choice;
use crate::sensitivity::MAX_SAMPLES;
use crate::solve::{Solved, solve};
use crate::sparsify::sparsify;
use crate::stage::Emitted;
use crate::streaming;
use crate::units::{dead_units, lone_elements};
use fhec_ir::he::facts::FactError;
use fhec_ir::nn::{InputError, Op, Range};
use fhec_ir::{Diagnostics, Tensor, he, nn};
use fhec_math::security::SecurityLevel;
use fhec_plan::{Plan, Preprocess};
use std::fmt;

/// Bits of precision where nothing else is asked for. Leaves 12 bits in the worst logit of many images: errors of 8 standard
/// deviations.
pub const PRECISION_BITS: f64 = 15.0;

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Security level; never undercut.
    pub security: SecurityLevel,
    /// Precision of the worst output in bits of its range (standard deviation of the error). Where nothing is asked for it is
    /// [`PRECISION_BITS`], or less where a loss of accuracy is allowed that smaller errors do not show beside.
    pub precision_bits: Option<f64>,
    /// The same for networks that are bootstrapped: less than this is refused, less than what is asked for is noted.
    pub least_bits: f64,
    /// Bytes that one evaluation may use.
    pub memory_budget: Option<u64>,
    /// Sample inputs, one tensor per model input each: ranges, distributions and predictions come from them.
    pub samples: Vec<Vec<Tensor>>,
    /// Range of the model's inputs where there are no samples.
    pub input_range: Option<Range>,
    /// How the client turns pictures into tensors, per input.
    pub preprocess: Vec<Option<Preprocess>>,
    /// What shares a ciphertext.
    pub mode: Mode,
    /// Whether a slot holds two images.
    pub complex: Complex,
    /// What is to be least; in throughput mode always the time for each of many inputs.
    pub goal: Goal,
    /// How good approximated activations have to be.
    pub approximate: ApproximateOptions,
    /// Whether adjacent linear layers become one where that costs less; off to measure what it saves.
    pub merge: bool,
    /// Share of the samples whose class may change for units being taken out; none are where this is not given.
    pub sparsify: Option<f64>,
    /// Prices of operations.
    pub cost: CostTable,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            security: SecurityLevel::Bits128,
            precision_bits: None,
            least_bits: 8.0,
            memory_budget: None,
            samples: Vec::new(),
            input_range: None,
            preprocess: Vec::new(),
            mode: Mode::default(),
            complex: Complex::default(),
            goal: Goal::default(),
            approximate: ApproximateOptions::default(),
            merge: true,
            sparsify: None,
            cost: CostTable::default(),
        }
    }
}

impl Options {
    /// The bits of precision that are asked for, or `enough` where nothing is.
    pub(crate) fn bits_or(&self, enough: Option<f64>) -> f64 {
        self.precision_bits.or(enough).unwrap_or(PRECISION_BITS)
    }
}

/// A compiled network.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The plan.
    pub plan: Plan,
    /// The ciphertext graph that the plan was emitted from.
    pub he: he::Graph,
    /// Its facts.
    pub facts: he::facts::Facts,
    /// The tensor graph with polynomials: the network that is evaluated.
    pub polynomial: nn::Graph,
    /// Bytes that a run takes apart from ciphertexts and inputs.
    pub(crate) besides: u64,
}

/// Why a model cannot be compiled.
#[derive(Clone, Debug)]
pub enum CompileError {
    /// Problems of the model, all of them.
    Model(Diagnostics),
    /// A sample does not fit the model.
    Sample(InputError),
    /// Activations cannot be approximated as asked for.
    Approximation(ApproximateError),
    /// Two images a slot were asked for, and cannot be: why.
    Complex(&'static str),
    /// Neither samples nor an input range.
    NoRange,
    /// No ring degree has parameters: per log2 of the degree, why.
    Parameters {
        /// What was asked for.
        demands: Demands,
        /// Reasons.
        reasons: Vec<(u32, Unfit)>,
        /// What is known of the network so far, and may explain them.
        notes: Vec<String>,
    },
    /// A pass broke the graph.
    Broken(Broken),
    /// The emitted graph contradicts itself.
    Facts(Box<FactError>),
}

impl From<Broken> for CompileError {
    fn from(b: Broken) -> Self {
        CompileError::Broken(b)
    }
}

impl From<Diagnostics> for CompileError {
    fn from(d: Diagnostics) -> Self {
        CompileError::Model(d)
    }
}

impl From<ApproximateError> for CompileError {
    fn from(e: ApproximateError) -> Self {
        match e {
            ApproximateError::Input(e) => CompileError::Sample(e),
            other => CompileError::Approximation(other),
        }
    }
}

impl From<InputError> for CompileError {
    fn from(e: InputError) -> Self {
        CompileError::Sample(e)
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileError::Model(d) => write!(f, "the model cannot be compiled:\n{d}"),
            CompileError::Sample(e) => write!(f, "calibration data: {e}"),
            CompileError::Approximation(e) => e.fmt(f),
            CompileError::Complex(why) => write!(f, "two images a slot are not possible: {why}"),
            CompileError::NoRange => {
                f.write_str("the range of the inputs is unknown: give calibration data, or declare the range")
            }
            CompileError::Parameters { demands, reasons, notes } => unfit(f, demands, reasons, notes),
            CompileError::Broken(b) => b.fmt(f),
            CompileError::Facts(e) => write!(f, "internal error: the compiled graph is inconsistent: {e}"),
        }
    }
}

impl std::error::Error for CompileError {}

fn unfit(f: &mut fmt::Formatter<'_>, demands: &Demands, reasons: &[(u32, Unfit)], notes: &[String]) -> fmt::Result {
    let least_memory = reasons.iter().filter_map(|(_, r)| if let Unfit::Memory(b) = r { Some(*b) } else { None }).min();
    if let (Some(least), Some(budget)) = (least_memory, demands.memory_budget) {
        let mib = |b: u64| b.div_ceil(1 << 20);
        return write!(
            f,
            "the memory budget of {} MiB is too small; the smallest that works is {} MiB",
            mib(budget),
            mib(least)
        );
    }
    write!(
        f,
        "no encryption parameters with {}-bit security reach {} bits of precision:",
        demands.security.bits(),
        demands.precision_bits
    )?;
    for (log_n, reason) in reasons {
        match reason {
            Unfit::Security => write!(f, "\n  ring degree 2^{log_n}: the network is too deep for a secure modulus")?,
            Unfit::Levels => write!(
                f,
                "\n  ring degree 2^{log_n}: the network is too deep for a secure modulus, and one of its activations or products \
                 alone takes more levels than bootstraps leave; ask for fewer bits or a larger error of activations"
            )?,
            Unfit::Sparse => write!(
                f,
                "\n  ring degree 2^{log_n}: the network is too deep for a secure modulus, and bootstraps, which need a sparse secret, \
                 are not known to have {}-bit security",
                demands.security.bits()
            )?,
            Unfit::Scales => write!(
                f,
                "\n  ring degree 2^{log_n}: at the scales of the network its values do not fit the primes, or scales fall too low"
            )?,
            Unfit::Precision(bits) => write!(f, "\n  ring degree 2^{log_n}: at most {bits:.1} bits")?,
            Unfit::Memory(bytes) => write!(f, "\n  ring degree 2^{log_n}: needs {bytes} bytes")?,
        }
    }
    notes.iter().try_for_each(|note| write!(f, "\n  note: {note}"))
}

/// Compiles a network as it was imported.
///
/// # Errors
/// Everything that keeps it from being compiled; see [`CompileError`].
pub fn compile(graph: &nn::Graph, options: &Options) -> Result<Compiled, CompileError> {
    compile_watched(graph, options, &mut |_| {})
}

/// [`compile`], showing every pass to `watch`.
///
/// # Errors
/// As [`compile`].
pub fn compile_watched(
    graph: &nn::Graph,
    options: &Options,
    watch: &mut dyn FnMut(PassRun<'_>),
) -> Result<Compiled, CompileError> {
    let mut driver = Driver::new(watch);
    let graph = canonical(graph, &mut driver)?;
    let whole = from_canonical(&graph, options, &mut driver);
    let Some((thinner, note)) = thinner(&graph, options, &mut driver)? else { return whole };
    let thin = from_canonical(&thinner, options, &mut driver);
    match (whole, thin) {
        (Ok(whole), Ok(thin)) => Ok(faster(whole, thin, &note)),
        (Err(_), Ok(mut thin)) => {
            thin.plan.report.notes.push(note);
            Ok(thin)
        }
        (whole, Err(_)) => whole,
    }
}

/// The network with fewer units, where that is asked for or costs no accuracy, and what the user is told of it.
fn thinner(
    graph: &nn::Graph,
    options: &Options,
    driver: &mut Driver<'_>,
) -> Result<Option<(nn::Graph, String)>, CompileError> {
    let elements = options.mode != Mode::Latency;
    let Some(allowed) = options.sparsify else {
        // Without losses only single elements can go that whole channels had to stay for.
        let found = if elements { lone_elements(graph) } else { None };
        let note = "single elements that nothing depends on are left out".to_owned();
        return match found {
            Some(found) => Ok(Some((driver.nn("dead-elements", graph, |_| found.clone())?, note))),
            None => Ok(None),
        };
    };
    if options.samples.is_empty() {
        return Err(CompileError::NoRange);
    }
    let mut note = String::new();
    let graph = driver.try_nn("sparsify", graph, |g| {
        let found = sparsify(g, &options.samples, allowed, elements)?;
        note = found.to_string();
        Ok::<_, CompileError>(found.graph)
    })?;
    Ok(Some((graph, note)))
}

/// The faster one of a network with all units and one with some.
fn faster(mut whole: Compiled, mut thin: Compiled, note: &str) -> Compiled {
    let each = |c: &Compiled| c.plan.report.seconds / c.plan.batch() as f64;
    let (before, after) = (each(&whole), each(&thin));
    let batch = thin.plan.batch() as f64;
    let times = format!("predicted time {:.3} s -> {:.3} s", before * batch, after * batch);
    if after < before {
        thin.plan.report.notes.push(format!("{note}; {times}"));
        return thin;
    }
    whole.plan.report.notes.push(format!("all units stay, since fewer gain nothing; {times}"));
    whole
}

/// Compiles what [`canonical`] gives.
fn from_canonical(graph: &nn::Graph, options: &Options, driver: &mut Driver<'_>) -> Result<Compiled, CompileError> {
    let Ranged { graph: ranged, outputs, mut notes } = ranged(graph, options, driver)?;
    let samples = probe_samples(&ranged, options);
    let solved = match solve(&ranged, outputs.as_deref(), &samples, options, driver) {
        Err(CompileError::Parameters { demands, reasons, notes: more }) => {
            notes.extend(more);
            return Err(CompileError::Parameters { demands, reasons, notes });
        }
        solved => solved?,
    };
    let Solved { approximated, choice, demands, notes: more } = solved;
    notes.extend(more);
    let Choice { stage, selected, keys, chosen, .. } = choice;
    let bits = selected.prediction.bits;
    if bits < demands.precision_bits {
        notes.push(format!(
            "the network is bootstrapped; its outputs have {bits:.1} bits of precision, {} were asked for",
            demands.precision_bits
        ));
    }
    if chosen.as_ref().is_some_and(|chosen| !chosen.1.placement.exact) {
        notes.push(INEXACT.into());
    }
    let context = Context {
        approximations: approximated.approximations.iter().map(|a| (a.origin.to_string(), a.rms)).collect(),
        notes,
        memory_budget: options.memory_budget,
        errors: stage.errors(&selected, &keys, &samples)?,
        alternatives: chosen.map_or(Vec::new(), |chosen| chosen.1.alternatives(stage.placed())),
    };
    let emitted = stage.emit(&selected, keys, &options.cost, &context, options.preprocess.clone());
    let Emitted { mut plan, graph: he, facts } = emitted.map_err(CompileError::Facts)?;
    let besides = selected.price.besides;
    streaming::predict(&mut plan, options.memory_budget, besides);
    Ok(Compiled { plan, he, facts, polynomial: approximated.graph, besides })
}

/// What the report says of a placement that may not be the best.
const INEXACT: &str = "branches of the network depend on each other in too many ways to compare all placements of bootstraps: a cheaper one \
                       than this may exist";

/// The passes that a model goes through before anything is known of its data. What they leave can be compiled, as far
/// as that depends on the model.
///
/// # Errors
/// Everything in the model that cannot be compiled, or that a pass broke the graph.
pub fn check(graph: &nn::Graph) -> Result<(), CompileError> {
    canonical(graph, &mut Driver::new(&mut |_| {})).map(|_| ())
}

/// Passes that need no data, and all refusals.
fn canonical(graph: &nn::Graph, driver: &mut Driver<'_>) -> Result<nn::Graph, CompileError> {
    // Batch norms vanish into the linear layers before them, so that later passes never see one.
    let graph = driver.nn("fold-batch-norm", graph, fold_batch_norm)?;
    // One form for each thing: constants folded, squares recognised, softmax last.
    let graph = driver.nn("canonicalise", &graph, canonicalise)?;
    // Quadratic activations, however they are spelt, become one square each.
    let graph = driver.nn("quadratics", &graph, quadratics)?;
    // Channels and features that nothing reads, or that are always the same, go.
    let graph = driver.nn("dead-units", &graph, dead_units)?;
    // All that cannot be evaluated, at once, before any time is spent.
    refuse_unsupported(&graph)?;
    Ok(graph)
}

/// The graph with its ranges, if they can be computed with.
fn bounded(graph: nn::Graph) -> Result<nn::Graph, CompileError> {
    refuse_unbounded(&graph)?;
    Ok(graph)
}

/// A tensor graph with ranges.
struct Ranged {
    graph: nn::Graph,
    /// Its outputs for the samples, where there are any.
    outputs: Option<Vec<Vec<f64>>>,
    /// What the user should know.
    notes: Vec<String>,
}

/// Passes on the tensor graph up to ranges.
fn ranged(graph: &nn::Graph, options: &Options, driver: &mut Driver<'_>) -> Result<Ranged, CompileError> {
    // Every value gets a range: what approximation intervals, scales and q_0 rest on.
    let (mut notes, mut outputs) = (Vec::new(), None);
    for output in &graph.outputs {
        if matches!(graph.node(output.value).op, Op::Softmax { .. }) {
            notes.push(format!("output '{}': softmax is left to the client, after decryption", output.name));
        }
    }
    let graph = match options.input_range {
        _ if !options.samples.is_empty() => driver.try_nn("calibrate", graph, |g| {
            let found = calibrate_with(g, &options.samples)?;
            outputs = Some(found.outputs);
            bounded(found.graph)
        })?,
        Some(range) => {
            notes.push(
                "ranges come from interval arithmetic, not from data: expect them far too wide; calibration data makes \
                 them tight"
                    .into(),
            );
            driver.try_nn("bound-ranges", graph, |g| bounded(bound_ranges(g, range)))?
        }
        None => return Err(CompileError::NoRange),
    };
    Ok(Ranged { graph, outputs, notes })
}

/// Inputs that the noise model runs the network on: samples of the user's, spread over all of them, or
/// pseudo-random values in the declared range.
pub(crate) fn probe_samples(graph: &nn::Graph, options: &Options) -> Vec<Vec<Tensor>> {
    let n = options.samples.len();
    if n > 0 {
        let take = n.min(MAX_SAMPLES);
        return (0..take).map(|i| options.samples[i * n / take].clone()).collect();
    }
    let range = options.input_range.unwrap_or(Range { lo: -1.0, hi: 1.0 });
    let inputs = graph.inputs();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        // xorshift64: any fixed sequence will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        range.lo + (range.hi - range.lo) * (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut sample = || {
        let tensor = |v: &nn::ValueId| {
            let shape = graph.node(*v).shape.clone();
            debug_assert!(matches!(graph.node(*v).op, Op::Input { .. }));
            let count = shape.iter().product();
            Tensor::new(shape, (0..count).map(|_| next()).collect())
        };
        inputs.iter().map(tensor).collect::<Vec<_>>()
    };
    (0..MAX_SAMPLES / 2).map(|_| sample()).collect()
}
