//! Activation functions become polynomials: one per layer, fitted to the values that layer sees
//! (OLA's idea), of the smallest degrees that keep the network's outputs within tolerance.

use crate::calibrate::{Samples, calibrate, observed_ranges, widen};
use crate::fit::{Fit, fit};
use crate::rewrite::Rewriter;
use fhec_ir::nn::{Activation, Graph, InputError, Interpreter, Node, Op, Range, ValueId};
use fhec_ir::{Origin, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Degrees worth having: the largest of each multiplicative depth, 2 to 7.
const DEGREES: [usize; 6] = [3, 7, 15, 31, 63, 127];

/// Weight of the parts of the interval where calibration saw nothing, relative to the densest part.
const FLOOR: f64 = 0.01;

/// Rounds of widening intervals before the search gives up.
const WIDENINGS: usize = 6;

/// Samples that the degree search runs; enough to tell degrees apart.
const SEARCH_SAMPLES: usize = 48;

/// How good the approximation has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApproximateOptions {
    /// Allowed root-mean-square error of the network's outputs that all approximations cause
    /// together, relative to the standard deviation of the outputs over the samples.
    pub tolerance: f64,
    /// Allowed maximal error of one activation, relative to its span, where there are no samples.
    pub blind_tolerance: f64,
}

impl Default for ApproximateOptions {
    fn default() -> Self {
        ApproximateOptions { tolerance: 0.02, blind_tolerance: 1.0 / 64.0 }
    }
}

/// One activation that became a polynomial.
#[derive(Clone, Debug, PartialEq)]
pub struct Approximation {
    /// The model nodes.
    pub origin: Origin,
    /// The function's ONNX name.
    pub function: &'static str,
    /// Degree of the polynomial.
    pub degree: usize,
    /// Interval it is fitted on.
    pub interval: Range,
    /// Root mean square of its error under the calibrated distribution.
    pub rms: f64,
    /// Largest error on the interval.
    pub max: f64,
}

/// The graph with polynomials, and what was approximated.
#[derive(Clone, Debug)]
pub struct Approximated {
    /// The graph; ranges and distributions are those of the polynomial network.
    pub graph: Graph,
    /// Every approximation, in the graph's order.
    pub approximations: Vec<Approximation>,
    /// Error of the outputs on the samples, relative to their standard deviation; 0 without samples.
    pub output_error: f64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Why activations cannot be approximated.
#[derive(Clone, Debug, PartialEq)]
pub enum ApproximateError {
    /// A sample does not fit the model.
    Input(InputError),
    /// The values leave the intervals of their polynomials on the calibration data, however wide those are made:
    /// the result would be silently wrong.
    Unbounded,
    /// A function leaves what can be computed with on the interval of its argument.
    Overflow {
        /// The node.
        origin: Origin,
        /// The function's name.
        function: &'static str,
        /// The interval.
        interval: Range,
    },
}

impl From<InputError> for ApproximateError {
    fn from(e: InputError) -> Self {
        ApproximateError::Input(e)
    }
}

impl std::fmt::Display for ApproximateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApproximateError::Input(e) => e.fmt(f),
            ApproximateError::Unbounded => f.write_str(
                "the activations cannot be approximated: with polynomials, values leave every interval that they are \
                 fitted on; ask for a smaller approximation error",
            ),
            ApproximateError::Overflow { origin, function, interval } => write!(
                f,
                "node '{origin}' ({function}): its argument ranges from {:e} to {:e}, on which it has no finite values; \
                 check the calibration data, or declare a smaller range of the inputs",
                interval.lo, interval.hi
            ),
        }
    }
}

impl std::error::Error for ApproximateError {}

/// Replaces every activation that is not a power by a polynomial. `graph` must have ranges.
///
/// # Errors
/// When a sample does not fit the model's inputs, a function overflows, or no polynomials keep every layer in its
/// interval.
pub fn approximate(
    graph: &Graph,
    samples: &Samples,
    options: &ApproximateOptions,
) -> Result<Approximated, ApproximateError> {
    let targets: Vec<ValueId> = graph.ids().filter(|&v| function(graph.node(v)).is_some()).collect();
    if targets.is_empty() {
        let graph = graph.clone();
        return Ok(Approximated { graph, approximations: vec![], output_error: 0.0, notes: vec![] });
    }
    let mut intervals: BTreeMap<ValueId, Range> = targets.iter().map(|&v| (v, operand_range(graph, v))).collect();
    if samples.is_empty() {
        check_finite(graph, &intervals)?;
        return Ok(blind(graph, &intervals, options));
    }
    let search = Search::new(graph, &samples[..samples.len().min(SEARCH_SAMPLES)])?;
    let mut notes = Vec::new();
    // Earlier polynomials shift what later layers see: where a value leaves its interval, widen and
    // search again. Every round adds the margin, so few are needed.
    for _ in 0..WIDENINGS {
        check_finite(graph, &intervals)?;
        let (degrees, error) = search.degrees(&intervals, options.tolerance)?;
        let (polynomial, approximations) = Fits::new(graph, &intervals).replace(&degrees);
        let seen = observed_ranges(&polynomial, samples)?;
        let mut escaped = false;
        for (old, id) in targets.iter().zip(polynomial.ids().filter(|&v| is_approximation(&polynomial, v))) {
            let seen = seen[polynomial.node(id).inputs[0].index()];
            let interval = intervals.get_mut(old).expect("one interval per target");
            if seen.lo < interval.lo || seen.hi > interval.hi {
                let wide = widen(seen);
                *interval = Range { lo: interval.lo.min(wide.lo), hi: interval.hi.max(wide.hi) };
                escaped = true;
            }
        }
        if !escaped {
            if error > options.tolerance {
                notes.push(format!(
                    "activation polynomials up to degree {} change the outputs by {:.1} % (asked: {:.1} %)",
                    DEGREES[DEGREES.len() - 1],
                    100.0 * error,
                    100.0 * options.tolerance
                ));
            }
            let graph = calibrate(&polynomial, samples)?;
            return Ok(Approximated { graph, approximations, output_error: error, notes });
        }
    }
    Err(ApproximateError::Unbounded)
}

/// Largest magnitude of a function's value: squares of its errors are still floating-point numbers.
const LARGEST: f64 = 1e100;

/// Refuses functions with values on their interval that polynomials cannot have.
fn check_finite(graph: &Graph, intervals: &BTreeMap<ValueId, Range>) -> Result<(), ApproximateError> {
    for (&id, &interval) in intervals {
        let node = graph.node(id);
        let f = function(node).expect("targets are activations");
        if samples_of(f, interval).any(|v| v.is_nan() || v.abs() > LARGEST) {
            return Err(ApproximateError::Overflow { origin: node.origin.clone(), function: f.name(), interval });
        }
    }
    Ok(())
}

/// Values of a function spread over an interval, ends included.
fn samples_of(f: &Activation, interval: Range) -> impl Iterator<Item = f64> {
    (0..=256).map(move |i| f.eval(interval.lo + (interval.hi - interval.lo) * f64::from(i) / 256.0))
}

/// Without samples: even weight on the interval, degree by the largest error.
fn blind(graph: &Graph, intervals: &BTreeMap<ValueId, Range>, options: &ApproximateOptions) -> Approximated {
    let mut notes = Vec::new();
    let mut degrees = BTreeMap::new();
    for (&id, &interval) in intervals {
        let node = graph.node(id);
        let span = node.range.map_or(1.0, |r| r.hi - r.lo).max(f64::MIN_POSITIVE);
        let good = |&d: &usize| fit_node(graph, id, interval, d).max <= options.blind_tolerance * span;
        let degree = DEGREES.iter().copied().find(good).unwrap_or(DEGREES[DEGREES.len() - 1]);
        let found = fit_node(graph, id, interval, degree);
        notes.push(format!(
            "'{}': {} on [{:.3}, {:.3}] by degree {degree}, error up to {:.2} % of its span; \
             give --calibrate for a far better fit",
            node.origin,
            function(node).map_or("?", Activation::name),
            interval.lo,
            interval.hi,
            100.0 * found.max / span
        ));
        degrees.insert(id, degree);
    }
    let (polynomial, approximations) = Fits::new(graph, intervals).replace(&degrees);
    let input = graph.inputs().first().and_then(|&v| graph.node(v).range).unwrap_or(Range { lo: -1.0, hi: 1.0 });
    Approximated { graph: crate::bound::bound_ranges(&polynomial, input), approximations, output_error: 0.0, notes }
}

/// The search for degrees: clear runs of the polynomial network against the original.
struct Search<'a> {
    graph: &'a Graph,
    samples: &'a Samples,
    reference: Vec<Vec<f64>>,
    spread: f64,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, samples: &'a Samples) -> Result<Self, InputError> {
        let reference = logits(graph, samples)?;
        let all: Vec<f64> = reference.iter().flatten().copied().collect();
        let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
        let spread = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len().max(1) as f64).sqrt();
        Ok(Search { graph, samples, reference, spread: spread.max(f64::MIN_POSITIVE) })
    }

    /// Output error of the network with these degrees, relative to the outputs' spread.
    fn error(&self, fits: &mut Fits<'_>, degrees: &BTreeMap<ValueId, usize>) -> Result<f64, InputError> {
        let (polynomial, _) = fits.replace(degrees);
        let got = logits(&polynomial, self.samples)?;
        let pairs = || self.reference.iter().flatten().zip(got.iter().flatten());
        let square: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        Ok((square / pairs().count().max(1) as f64).sqrt() / self.spread)
    }

    /// The smallest uniform degree within tolerance; then, a level at a time, the layer whose lowering
    /// costs the least precision is lowered, as long as the outputs stay within tolerance.
    fn degrees(
        &self,
        intervals: &BTreeMap<ValueId, Range>,
        tolerance: f64,
    ) -> Result<(BTreeMap<ValueId, usize>, f64), InputError> {
        let mut fits = Fits::new(self.graph, intervals);
        let uniform = |d: usize| intervals.keys().map(|&v| (v, d)).collect::<BTreeMap<_, _>>();
        let mut best = (uniform(DEGREES[0]), f64::INFINITY);
        for degree in DEGREES {
            let trial = uniform(degree);
            let error = self.error(&mut fits, &trial)?;
            // NaN (a polynomial that blew up) is never better.
            if error < best.1 {
                best = (trial, error);
            }
            if best.1 <= tolerance {
                break;
            }
        }
        while best.1 <= tolerance {
            let mut next: Option<(BTreeMap<ValueId, usize>, f64)> = None;
            for &id in intervals.keys() {
                let Some(&lower) = DEGREES.iter().rev().find(|&&d| d < best.0[&id]) else { continue };
                let mut trial = best.0.clone();
                trial.insert(id, lower);
                let error = self.error(&mut fits, &trial)?;
                if error <= tolerance && next.as_ref().is_none_or(|n| error < n.1) {
                    next = Some((trial, error));
                }
            }
            match next {
                Some(lowered) => best = lowered,
                None => break,
            }
        }
        Ok(best)
    }
}

/// Fits made so far, by layer and degree.
struct Fits<'a> {
    graph: &'a Graph,
    intervals: &'a BTreeMap<ValueId, Range>,
    made: BTreeMap<(ValueId, usize), Fit>,
}

impl<'a> Fits<'a> {
    fn new(graph: &'a Graph, intervals: &'a BTreeMap<ValueId, Range>) -> Self {
        Fits { graph, intervals, made: BTreeMap::new() }
    }

    fn get(&mut self, id: ValueId, degree: usize) -> &Fit {
        let (graph, interval) = (self.graph, self.intervals[&id]);
        self.made.entry((id, degree)).or_insert_with(|| fit_node(graph, id, interval, degree))
    }

    /// The graph with every target replaced by the polynomial of its degree.
    fn replace(&mut self, degrees: &BTreeMap<ValueId, usize>) -> (Graph, Vec<Approximation>) {
        let mut approximations = Vec::new();
        let graph = self.graph;
        let replaced = Rewriter::run(graph, |rw, id| {
            let Some(&degree) = degrees.get(&id) else { return rw.keep(id) };
            let node = graph.node(id);
            let interval = self.intervals[&id];
            let function = function(node).map_or("?", Activation::name);
            let found = self.get(id, degree);
            let (origin, rms, max) = (node.origin.clone(), found.rms, found.max);
            approximations.push(Approximation { origin, function, degree, interval, rms, max });
            let label = format!("{function} on [{:.3}, {:.3}]", interval.lo, interval.hi);
            let op = Op::Polynomial { chebyshev: found.chebyshev.clone(), interval, label };
            let inputs = vec![rw.value(node.inputs[0])];
            rw.add(Node { op, inputs, ..node.clone() })
        });
        (replaced, approximations)
    }
}

/// Outputs of every sample; of an output that is a softmax, what goes into it.
fn logits(graph: &Graph, samples: &Samples) -> Result<Vec<Vec<f64>>, InputError> {
    let wanted: Vec<ValueId> = graph
        .outputs
        .iter()
        .map(|o| match graph.node(o.value).op {
            Op::Softmax { .. } => graph.node(o.value).inputs[0],
            _ => o.value,
        })
        .collect();
    let interpreter = Interpreter::new(graph).expect("rewriting keeps a graph valid");
    samples
        .par_iter()
        .map(|inputs| {
            let mut out = Vec::new();
            interpreter.run_with(inputs, |id, value: &Tensor| {
                if wanted.contains(&id) {
                    out.extend_from_slice(value.values());
                }
            })?;
            Ok(out)
        })
        .collect()
}

/// Fits one activation to the distribution of its operand.
fn fit_node(graph: &Graph, id: ValueId, interval: Range, degree: usize) -> Fit {
    let node = graph.node(id);
    let f = function(node).expect("targets are activations");
    let operand = graph.node(node.inputs[0]);
    let (Some(distribution), Some(range)) = (&operand.distribution, operand.range) else {
        return fit(|x| f.eval(x), interval, degree, |_| 1.0);
    };
    let bins = &distribution.histogram;
    let densest = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
    let scale = bins.len() as f64 / (range.hi - range.lo).max(f64::MIN_POSITIVE);
    let density = |x: f64| {
        let at = ((x - range.lo) * scale).floor();
        if at < 0.0 || at >= bins.len() as f64 { 0.0 } else { bins[at as usize] as f64 / densest }
    };
    // A polynomial that strays far where calibration saw little would fail silently on the first
    // unusual input: raise the floor until it stays near the function on the whole interval.
    let span = {
        let (lo, hi) =
            samples_of(f, interval).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        hi - lo
    };
    let mut floor = FLOOR;
    loop {
        let found = fit(|x| f.eval(x), interval, degree, |x| density(x) + floor);
        if found.max <= 0.25 * span || floor >= 1.0 {
            return found;
        }
        floor *= 4.0;
    }
}

/// The activation of a node that has to be approximated.
fn function(node: &Node) -> Option<&Activation> {
    match &node.op {
        Op::Activation(Activation::Power { .. }) => None,
        Op::Activation(f) => Some(f),
        _ => None,
    }
}

/// True for polynomials this pass made; those found in the model keep their own label.
fn is_approximation(graph: &Graph, id: ValueId) -> bool {
    matches!(&graph.node(id).op, Op::Polynomial { label, .. } if label.contains(" on ["))
}

/// Calibrated range of a node's operand.
fn operand_range(graph: &Graph, id: ValueId) -> Range {
    graph.node(graph.node(id).inputs[0]).range.unwrap_or(Range { lo: -1.0, hi: 1.0 })
}
