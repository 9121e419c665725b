//! Activation functions become polynomials: one per layer, fitted to the values that layer sees
//! (OLA's idea), of the smallest degrees that keep the network's outputs within tolerance; or composites of one accuracy for
//! all layers.

mod accuracy;
mod blind;
mod degrees;
mod fit;
mod minimax;
mod refine;
mod response;
mod search;
mod target;

use crate::calibrate::{Calibrated, Samples, Summary, annotate, calibrate_with, observe, widen, widen_by};
use accuracy::Decisions;
use fhec_ir::Origin;
use fhec_ir::nn::{Graph, InputError, Op, Range, ValueId};
use fhec_math::minimax::MinimaxError;
use minimax::Composites;
use rayon::prelude::*;
pub(crate) use refine::{Activation, Candidate, Refinement};
use search::Search;
use std::collections::BTreeMap;
pub(crate) use target::{DEGREES, USUAL};
use target::{Target, clipped, function, spread};

/// Rounds of widening intervals and tightening the tolerance before the search gives up.
const ROUNDS: usize = 10;

/// What the tolerance is multiplied by where too many decisions change.
const TIGHTER: f64 = 0.7;

/// No tolerance is made smaller than this.
const LEAST_TOLERANCE: f64 = 1e-4;

/// How far beyond the values seen, with polynomials in all layers, an interval must reach; otherwise it is widened. In units
/// of the largest magnitude, as [`MARGIN`](crate::calibrate::MARGIN) is.
const GUARD: f64 = 0.2;

/// How activations become polynomials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// One polynomial per layer, of a degree of its own.
    #[default]
    Layerwise,
    /// Piecewise linear functions by composites of minimax polynomials that are right to this many bits of the argument's range
    /// (α of Lee et al., 2021/1688); all others layer by layer.
    Minimax(u32),
    /// Not at all: networks with other activations than powers and polynomials are refused.
    Keep,
}

/// How good the approximation has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ApproximateOptions {
    /// What is made of activations.
    pub method: Method,
    /// Allowed root-mean-square error of the network's outputs that all approximations cause
    /// together, relative to the standard deviation of the outputs over the samples.
    pub tolerance: f64,
    /// Instead of that, the part of all samples whose class, the largest output, may be expected to change. Errors are taken to be normal and
    /// are compared with the margins between the outputs of the original network, sample by sample. A quarter is
    /// kept for data unlike the samples: of these no more than the rest may be expected to change, or change.
    pub accuracy_drop: Option<f64>,
    /// Allowed maximal error of one activation, relative to its span, where there are no samples.
    pub blind_tolerance: f64,
}

impl Default for ApproximateOptions {
    fn default() -> Self {
        ApproximateOptions {
            method: Method::Layerwise,
            tolerance: 0.02,
            accuracy_drop: None,
            blind_tolerance: 1.0 / 64.0,
        }
    }
}

impl ApproximateOptions {
    /// Whether somebody said how good it has to be. Then it costs what it costs; the default is worth only so much.
    pub fn asked(&self) -> bool {
        self.accuracy_drop.is_some() || self.tolerance != Self::default().tolerance
    }
}

/// One activation that became a polynomial.
#[derive(Clone, Debug, PartialEq)]
pub struct Approximation {
    /// The model nodes.
    pub origin: Origin,
    /// The function's ONNX name.
    pub function: &'static str,
    /// Degree of the polynomial; of a composite, the product of its stages' degrees.
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
    /// Root mean square error of the outputs that the loss of accuracy asked for allows, in their units; none where none was.
    pub allowed_error: Option<f64>,
    /// Whether the outputs are not as good as was asked for, since the degrees that were tried do not suffice.
    pub missed: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Why activations cannot be approximated.
#[derive(Clone, Debug, PartialEq)]
pub enum ApproximateError {
    /// A sample does not fit the model.
    Input(InputError),
    /// The values leave the intervals of their polynomials, however wide those are made: the result would be silently wrong.
    Unbounded {
        /// The first activation whose argument does.
        origin: Origin,
        /// What the argument ranged over at last.
        seen: Range,
    },
    /// There is no composite of the precision that was asked for.
    Minimax(MinimaxError),
    /// A loss of accuracy was allowed for a network that does not decide between classes, or without samples.
    NoClasses,
    /// Activations that would have to be approximated, where that is not wanted.
    Kept(Vec<(Origin, &'static str)>),
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
            ApproximateError::Unbounded { origin, seen } => write!(
                f,
                "the activations cannot be approximated: with polynomials, the argument of node '{origin}' ranges from \
                 {:.3e} to {:.3e} and leaves every interval that the polynomial is fitted on; ask for a smaller \
                 approximation error, or give more calibration data",
                seen.lo, seen.hi
            ),
            ApproximateError::Minimax(e) => e.fmt(f),
            ApproximateError::NoClasses => f.write_str(
                "a loss of accuracy can only be judged with calibration data, for a network with one output of several classes",
            ),
            ApproximateError::Kept(list) => {
                f.write_str("activations that are no polynomials would have to be approximated:")?;
                list.iter().try_for_each(|(origin, function)| write!(f, "\n  node '{origin}' ({function})"))
            }
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

/// A graph that was approximated, and, where its degrees came from samples, what other degrees would do.
pub(crate) type Refinable<'a> = (Approximated, Option<Refinement<'a>>);

/// Replaces every activation that is not a power by polynomials. `graph` must have ranges.
///
/// # Errors
/// [`ApproximateError`]; most of all when a sample does not fit the model's inputs, a function overflows, or no polynomials
/// keep every layer in its interval.
pub fn approximate(
    graph: &Graph,
    samples: &Samples,
    options: &ApproximateOptions,
) -> Result<Approximated, ApproximateError> {
    Ok(approximate_refinably(graph, samples, None, options, &DEGREES[..USUAL])?.0)
}

/// [`approximate`] by polynomials of the given degrees, which can be chosen anew once more is known of what they cost. `outputs` are
/// those of the network, sample by sample, where they are known.
pub(crate) fn approximate_refinably<'a>(
    graph: &'a Graph,
    samples: &'a Samples,
    outputs: Option<Vec<Vec<f64>>>,
    options: &ApproximateOptions,
    degrees: &[usize],
) -> Result<Refinable<'a>, ApproximateError> {
    match options.method {
        Method::Layerwise => layerwise(graph, samples, outputs, options, degrees),
        Method::Minimax(alpha) => {
            let composed = composed(graph, samples, alpha)?;
            // What is not piecewise linear is left.
            let mut all = layerwise(&composed.graph, samples, None, options, degrees)?.0;
            let left = all.approximations.iter().map(|a| {
                format!("'{}': {} is not piecewise linear and gets a polynomial of its own", a.origin, a.function)
            });
            all.notes.extend(left);
            all.approximations.splice(..0, composed.approximations);
            Ok((all, None))
        }
        Method::Keep => {
            let kept = graph.nodes.iter().filter_map(|n| Some((n.origin.clone(), function(n)?.name())));
            let kept: Vec<_> = kept.collect();
            if kept.is_empty() {
                layerwise(graph, samples, outputs, options, degrees)
            } else {
                Err(ApproximateError::Kept(kept))
            }
        }
    }
}

/// Replaces every activation by one polynomial.
fn layerwise<'a>(
    graph: &'a Graph,
    samples: &'a Samples,
    outputs: Option<Vec<Vec<f64>>>,
    options: &ApproximateOptions,
    degrees: &[usize],
) -> Result<Refinable<'a>, ApproximateError> {
    let ids: Vec<ValueId> = graph.ids().filter(|&v| function(graph.node(v)).is_some()).collect();
    if ids.is_empty() {
        return Ok((
            Approximated {
                graph: graph.clone(),
                approximations: vec![],
                output_error: 0.0,
                allowed_error: None,
                missed: false,
                notes: vec![],
            },
            None,
        ));
    }
    let mut intervals: BTreeMap<ValueId, Range> = ids.iter().map(|&v| (v, operand_range(graph, v))).collect();
    check_finite(graph, &intervals)?;
    if samples.is_empty() {
        return match options.accuracy_drop {
            Some(_) => Err(ApproximateError::NoClasses),
            None => Ok((blind::approximate(graph, intervals, options.blind_tolerance)?, None)),
        };
    }
    let search = Search::new(graph, samples, &ids)?;
    let decisions = match (options.accuracy_drop, outputs) {
        (None, _) => None,
        (Some(share), Some(outputs)) => Some(Decisions::new(graph, outputs, share)?),
        (Some(share), None) => Some(Decisions::new(graph, observe(graph, samples)?.outputs, share)?),
    };
    let asked = decisions.as_ref().map_or(options.tolerance, |d| d.tolerance(search.spread()));
    let mut tolerance = asked;
    let (mut escaped, mut budget) = (None, None);
    // Earlier polynomials shift what later layers see: where a value comes near the end of its interval, widen and
    // search again. Every round adds the margin, so few are needed.
    for round in 1..=ROUNDS {
        check_finite(graph, &intervals)?;
        let targets = targets(graph, &intervals, degrees);
        let found = search.choose(&targets, tolerance, budget)?;
        budget = found.budget.map(|budget| (budget, tolerance));
        let replaced = search.replaced(&targets, &found.picks);
        let (clipped, values) = clipped(&replaced);
        let observed = observe(&clipped, samples)?;
        let seen: Vec<Summary> = values.iter().map(|value| observed.summaries[value.index()]).collect();
        escaped = widen_where_needed(&mut intervals, &replaced.operands, &seen);
        if escaped.is_some() {
            continue;
        }
        let mut notes = Vec::new();
        let mut missed = found.error.is_nan() || found.error > asked;
        if let Some(decisions) = &decisions {
            let changed = decisions.changed(&observed.outputs);
            if decisions.too_many(changed) && tolerance > LEAST_TOLERANCE && round < ROUNDS {
                tolerance *= TIGHTER;
                continue;
            }
            missed |= decisions.too_many(changed);
            notes.push(decisions.note(changed, found.error * search.spread()));
        } else if found.error > tolerance {
            notes.push(format!(
                "activation polynomials up to degree {} change the outputs by {:.1} % (asked: {:.1} %)",
                degrees.last().copied().unwrap_or(0),
                100.0 * found.error,
                100.0 * tolerance
            ));
        }
        let approximated = Approximated {
            graph: within_intervals(annotate(&replaced.graph, &seen), &seen),
            approximations: approximations(graph, &targets, &found.picks),
            output_error: found.error,
            allowed_error: decisions.is_some().then_some(tolerance * search.spread()),
            missed,
            notes,
        };
        let refinement = Refinement::new(graph, samples, search, targets, decisions, tolerance, found);
        return Ok((approximated, refinement));
    }
    Err(unbounded(graph, escaped))
}

/// Replaces every piecewise linear activation by composites, and finds the ranges of all values anew.
fn composed(graph: &Graph, samples: &Samples, alpha: u32) -> Result<Composites, ApproximateError> {
    let targets = graph.ids().filter(|&v| function(graph.node(v)).is_some());
    let mut intervals: BTreeMap<ValueId, Range> = targets.map(|v| (v, operand_range(graph, v))).collect();
    check_finite(graph, &intervals)?;
    let mut escaped = None;
    // Without samples a round settles at least the first activation that is not settled yet.
    let rounds = if samples.is_empty() { intervals.len() + 1 } else { ROUNDS };
    for _ in 0..rounds {
        let mut made = minimax::replace(graph, &intervals, alpha)?;
        if samples.is_empty() {
            made.graph = crate::bound::bound_ranges(&made.graph, blind::input_range(graph));
            escaped = blind::widen_to_bounds(&mut intervals, &made.operands, &made.graph);
            if escaped.is_none() {
                return Ok(made);
            }
            check_finite(graph, &intervals)?;
            continue;
        }
        let Calibrated { graph, summaries, .. } = calibrate_with(&made.graph, samples)?;
        escaped = widen_where_needed(&mut intervals, &made.operands, &summaries);
        if escaped.is_none() {
            made.graph = within_intervals(graph, &summaries);
            return Ok(made);
        }
    }
    Err(unbounded(graph, escaped))
}

/// Polynomials of the given degrees for the activations on their intervals.
fn targets<'a>(graph: &'a Graph, intervals: &BTreeMap<ValueId, Range>, degrees: &[usize]) -> Vec<Target<'a>> {
    let list: Vec<(ValueId, Range)> = intervals.iter().map(|(&id, &interval)| (id, interval)).collect();
    list.into_par_iter().filter_map(|(id, interval)| Target::new(graph, id, interval, degrees)).collect()
}

/// Widens every interval that the values seen come too near to. Gives the first of them, with the values that it did not hold.
fn widen_where_needed(
    intervals: &mut BTreeMap<ValueId, Range>,
    operands: &[(ValueId, ValueId, Range)],
    seen: &[Summary],
) -> Option<(ValueId, Range)> {
    let mut first = None;
    for (target, operand, _) in operands {
        let seen = seen[operand.index()].range;
        let interval = intervals.entry(*target).or_insert(seen);
        let needed = widen_by(seen, GUARD);
        // What is not a number is in no interval.
        if !(interval.lo <= needed.lo && needed.hi <= interval.hi) {
            let wide = widen(seen);
            *interval = Range { lo: interval.lo.min(wide.lo), hi: interval.hi.max(wide.hi) };
            first = first.or(Some((*target, seen)));
        }
    }
    first
}

/// The graph whose polynomials have operands of no larger range than their intervals, where those hold all values seen. Ranges
/// have a margin of their own, and polynomials are worth nothing outside.
fn within_intervals(mut graph: Graph, seen: &[Summary]) -> Graph {
    for id in graph.ids() {
        let node = graph.node(id);
        let (&Op::Polynomial { interval, .. }, &[operand]) = (&node.op, node.inputs.as_slice()) else { continue };
        let seen = seen[operand.index()].range;
        let range = &mut graph.nodes[operand.index()].range;
        if interval.lo <= seen.lo && seen.hi <= interval.hi {
            *range = range.map(|r| Range { lo: r.lo.max(interval.lo), hi: r.hi.min(interval.hi) });
        }
    }
    graph
}

fn approximations(graph: &Graph, targets: &[Target<'_>], picks: &[usize]) -> Vec<Approximation> {
    let of = |(target, &pick): (&Target<'_>, &usize)| {
        let fit = &target.fits[pick];
        Approximation {
            origin: graph.node(target.id).origin.clone(),
            function: target.function.name(),
            degree: fit.chebyshev.len() - 1,
            interval: target.interval,
            rms: fit.rms,
            max: fit.max,
        }
    };
    targets.iter().zip(picks).map(of).collect()
}

fn unbounded(graph: &Graph, escaped: Option<(ValueId, Range)>) -> ApproximateError {
    let (origin, seen) = match escaped {
        Some((id, seen)) => (graph.node(id).origin.clone(), seen),
        None => (Origin::default(), Range { lo: f64::NAN, hi: f64::NAN }),
    };
    ApproximateError::Unbounded { origin, seen }
}

/// Largest magnitude of a function's value: squares of its errors are still floating-point numbers.
const LARGEST: f64 = 1e100;

/// Refuses functions with values on their interval that polynomials cannot have.
fn check_finite(graph: &Graph, intervals: &BTreeMap<ValueId, Range>) -> Result<(), ApproximateError> {
    for (&id, &interval) in intervals {
        let node = graph.node(id);
        let Some(f) = function(node) else { continue };
        let finite = interval.lo.abs() <= LARGEST && interval.hi.abs() <= LARGEST;
        if !finite || spread(f, interval).any(|v| v.is_nan() || v.abs() > LARGEST) {
            return Err(ApproximateError::Overflow { origin: node.origin.clone(), function: f.name(), interval });
        }
    }
    Ok(())
}

/// Calibrated range of a node's operand.
fn operand_range(graph: &Graph, id: ValueId) -> Range {
    graph.node(graph.node(id).inputs[0]).range.unwrap_or(Range { lo: -1.0, hi: 1.0 })
}

#[cfg(test)]
mod tests;
