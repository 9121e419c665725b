//! The activations of a graph, and polynomials of every degree for each.

use super::fit::{Fit, fits};
use crate::rewrite::Rewriter;
use fhec_ir::nn::{Activation, Distribution, Graph, Node, Op, Range, ValueId};
use fhec_ir::{Origin, Tensor};
use fhec_math::chebyshev::{clenshaw, depth_of_degree};

/// Degrees worth having: the largest of each multiplicative depth, 2 to 9, and lines, which cost nothing because linear
/// layers take them over.
pub(crate) const DEGREES: [usize; 9] = [1, 3, 7, 15, 31, 63, 127, 255, 511];

/// How many of them are tried first. Each of the others is for networks that those before it do not approximate as well as was
/// asked for.
pub(crate) const USUAL: usize = 7;

/// Weight of the parts of the interval where calibration saw nothing, relative to the densest part.
const FLOOR: f64 = 0.001;

/// Largest distance of a polynomial from its function anywhere on the interval, relative to the function's span there.
const BOUND: f64 = 0.25;

/// Values of a function that are looked at to know its span.
const STEPS: u32 = 256;

/// An activation and its polynomials.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    /// The node.
    pub(super) id: ValueId,
    pub(super) function: &'a Activation,
    /// What the polynomials are fitted on.
    pub(super) interval: Range,
    /// By degree, ascending; never empty. The error falls from each to the next.
    pub(super) fits: Vec<Fit>,
}

impl<'a> Target<'a> {
    /// Fits polynomials of some degrees to the activation `id` on an interval, under the distribution of its operand.
    pub(super) fn new(graph: &'a Graph, id: ValueId, interval: Range, degrees: &[usize]) -> Option<Self> {
        let node = graph.node(id);
        let function = function(node)?;
        let operand = graph.node(node.inputs[0]);
        let density = Density::new(operand.distribution.as_ref(), operand.range);
        Some(Target { id, function, interval, fits: bounded_fits(function, interval, &density, degrees) })
    }

    /// Levels of the polynomial number `pick`.
    pub(super) fn depth(&self, pick: usize) -> usize {
        depth(self.fits[pick].chebyshev.len() - 1)
    }

    /// By how much polynomial number `pick` is off.
    pub(super) fn error(&self, pick: usize) -> impl Fn(f64) -> f64 {
        let (mid, half) = ((self.interval.lo + self.interval.hi) / 2.0, (self.interval.hi - self.interval.lo) / 2.0);
        let chebyshev = &self.fits[pick].chebyshev;
        move |x| clenshaw(chebyshev, (x - mid) / half) - self.function.eval(x)
    }

    /// The function's name in the model and the interval.
    pub(super) fn label(&self, node: &Node) -> String {
        format!("{} on [{:.3}, {:.3}]", called(node, self.function.name()), self.interval.lo, self.interval.hi)
    }
}

/// What the model calls the activation of a node.
pub(super) fn called<'n>(node: &'n Node, function: &'static str) -> &'n str {
    node.origin.what.as_deref().unwrap_or(function)
}

/// Levels of a polynomial. Lines become part of what is around them.
pub(super) fn depth(degree: usize) -> usize {
    if degree <= 1 { 0 } else { depth_of_degree(degree) }
}

/// The activation of a node that has to be approximated.
pub(super) fn function(node: &Node) -> Option<&Activation> {
    match &node.op {
        Op::Activation(Activation::Power { .. }) => None,
        Op::Activation(f) => Some(f),
        _ => None,
    }
}

/// Values of a function spread over an interval, ends included.
pub(super) fn spread(f: &Activation, interval: Range) -> impl Iterator<Item = f64> {
    (0..=STEPS).map(move |i| f.eval(interval.lo + (interval.hi - interval.lo) * f64::from(i) / f64::from(STEPS)))
}

/// How often values were seen in calibration, 1 where most often.
struct Density<'a> {
    bins: &'a [u64],
    densest: f64,
    range: Range,
}

impl<'a> Density<'a> {
    fn new(distribution: Option<&'a Distribution>, range: Option<Range>) -> Self {
        let bins = distribution.map_or(&[][..], |d| &d.histogram);
        let densest = bins.iter().copied().max().unwrap_or(1).max(1) as f64;
        Density { bins, densest, range: range.unwrap_or(Range { lo: -1.0, hi: 1.0 }) }
    }

    fn at(&self, x: f64) -> f64 {
        let scale = self.bins.len() as f64 / (self.range.hi - self.range.lo).max(f64::MIN_POSITIVE);
        let bin = ((x - self.range.lo) * scale).floor();
        if bin < 0.0 || bin >= self.bins.len() as f64 { 0.0 } else { self.bins[bin as usize] as f64 / self.densest }
    }
}

/// Root mean square of an error curve on an interval under the distribution of the operand of activation `id`, and its
/// largest value.
pub(super) fn rms_where_seen(graph: &Graph, id: ValueId, interval: Range, error: impl Fn(f64) -> f64) -> (f64, f64) {
    const POINTS: u32 = 4096;
    let operand = graph.node(graph.node(id).inputs[0]);
    let density = Density::new(operand.distribution.as_ref(), operand.range);
    let seen = operand.distribution.is_some();
    let (mut squares, mut weights, mut max) = (0.0, 0.0, 0.0f64);
    for i in 0..=POINTS {
        let x = interval.lo + (interval.hi - interval.lo) * f64::from(i) / f64::from(POINTS);
        let (weight, e) = (if seen { density.at(x) } else { 1.0 }, error(x));
        (squares, weights, max) = (squares + weight * e * e, weights + weight, max.max(e.abs()));
    }
    ((squares / weights).sqrt(), max)
}

/// Fits of the given degrees that stay near the function on the whole interval; of the largest degree in any case.
///
/// A polynomial that strays far where calibration saw little would fail silently on the first unusual input. So the weight
/// of those parts is raised, by degree, until it stays near; lower degrees for which that does not help are left out.
fn bounded_fits(f: &Activation, interval: Range, density: &Density<'_>, degrees: &[usize]) -> Vec<Fit> {
    let (lo, hi) = spread(f, interval).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let mut missing: Vec<usize> = degrees.to_vec();
    let mut made: Vec<Fit> = Vec::new();
    let mut floor = FLOOR;
    while !missing.is_empty() {
        let last = floor >= 1.0;
        let found = fits(|x| f.eval(x), interval, &missing, |x| density.at(x) + floor);
        for fit in found {
            let degree = fit.chebyshev.len() - 1;
            if fit.max <= BOUND * (hi - lo) || (last && degrees.last() == Some(&degree)) {
                made.push(fit);
            }
        }
        missing.retain(|d| !made.iter().any(|fit| fit.chebyshev.len() == d + 1));
        if last {
            break;
        }
        floor *= 4.0;
    }
    made.sort_by_key(|fit| fit.chebyshev.len());
    made
}

/// A graph in which activations are replaced.
pub(super) struct Replaced {
    pub(super) graph: Graph,
    /// For each polynomial, the target that it belongs to, its operand, and the interval that the operand must stay in.
    pub(super) operands: Vec<(ValueId, ValueId, Range)>,
}

/// Replaces every target by one of its polynomials, given by their numbers, plus a constant for each channel (axis 1; one
/// constant for all elements where none are given).
pub(super) fn replace(graph: &Graph, targets: &[Target<'_>], picks: &[usize], offsets: &[Vec<f64>]) -> Replaced {
    let mut operands = Vec::with_capacity(targets.len());
    // Nothing is dropped, so values keep the numbers that they are made with.
    let graph = Rewriter::run(graph, |rw, id| {
        let Ok(at) = targets.binary_search_by_key(&id, |t| t.id) else { return rw.keep(id) };
        let (target, node) = (&targets[at], graph.node(id));
        let label = target.label(node);
        let part = Node { origin: node.origin.known_as(label.clone()), ..node.clone() };
        let operand = rw.value(node.inputs[0]);
        operands.push((id, operand, target.interval));
        let mut offsets = offsets.get(at).cloned().unwrap_or_default();
        let chebyshev = &target.fits[picks[at]].chebyshev;
        let value = match chebyshev.as_slice() {
            &[constant, slope] => {
                let (factor, offset) = line(target.interval, [constant, slope]);
                offsets.resize(offsets.len().max(1), 0.0);
                offsets.iter_mut().for_each(|o| *o += offset);
                let factor = Op::MulConst(rw.new.constant(Tensor::scalar(factor)));
                rw.add(Node { op: factor, inputs: vec![operand], ..part.clone() })
            }
            _ => {
                let (chebyshev, interval) = (chebyshev.clone(), target.interval);
                let op = Op::Polynomial { chebyshev, interval, label };
                let origin = Origin { what: None, ..node.origin.clone() };
                rw.add(Node { op, inputs: vec![operand], origin, ..node.clone() })
            }
        };
        if offsets.iter().all(|o| *o == 0.0) {
            return value;
        }
        let constant = match offsets.as_slice() {
            &[only] => Tensor::scalar(only),
            _ => {
                let inner = node.shape.iter().skip(2).map(|_| 1);
                Tensor::new(std::iter::once(offsets.len()).chain(inner).collect(), offsets)
            }
        };
        let op = Op::AddConst(rw.new.constant(constant));
        rw.add(Node { op, inputs: vec![value], ..part })
    });
    Replaced { graph, operands }
}

/// The same network where every operand is held within its interval before a polynomial sees it, and the value in it that stands for each
/// of the old ones.
///
/// Where nothing leaves its interval it computes the same. Where something does, later layers still see what they would see if it had
/// not: outside of their intervals polynomials grow so quickly that a few layers later nothing is left to learn.
pub(super) fn clipped(replaced: &Replaced) -> (Graph, Vec<ValueId>) {
    let graph = &replaced.graph;
    let mut values = Vec::with_capacity(graph.nodes.len());
    let clipped = Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let value = match (&node.op, node.inputs.as_slice()) {
            (Op::Polynomial { interval, .. }, &[operand])
                if replaced.operands.iter().any(|(_, o, i)| (o, i) == (&operand, interval)) =>
            {
                let clip = Activation::Clip { min: interval.lo, max: interval.hi };
                let held =
                    Node { op: Op::Activation(clip), inputs: vec![rw.value(operand)], ..graph.node(operand).clone() };
                let held = rw.add(held);
                rw.add(Node { inputs: vec![held], ..node.clone() })
            }
            _ => rw.keep(id),
        };
        values.push(value);
        value
    });
    (clipped, values)
}

/// The line with the given Chebyshev coefficients, as a factor and an offset.
fn line(interval: Range, [constant, slope]: [f64; 2]) -> (f64, f64) {
    let (mid, half) = ((interval.lo + interval.hi) / 2.0, (interval.hi - interval.lo) / 2.0);
    // A slope of rounding errors is none: the activation is a constant.
    let factor = if slope.abs() <= 1e-12 * constant.abs() { 0.0 } else { slope / half };
    (factor, constant - factor * mid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_stay_near_the_function_where_nothing_was_seen() {
        // All values near zero, on an interval that reaches far beyond.
        let mut histogram = vec![0; 64];
        histogram[31] = 1000;
        histogram[32] = 1000;
        let interval = Range { lo: -8.0, hi: 8.0 };
        let distribution = Distribution { mean: 0.0, std: 0.1, histogram };
        let density = Density::new(Some(&distribution), Some(interval));
        let usual = bounded_fits(&Activation::Relu, interval, &density, &DEGREES[..USUAL]);
        assert_eq!(usual.last().map(|f| f.chebyshev.len()), Some(128));
        let made = bounded_fits(&Activation::Relu, interval, &density, &DEGREES);
        assert_eq!(made.last().map(|f| f.chebyshev.len()), Some(512));
        assert!(made.len() > 5 && made.is_sorted_by_key(|f| f.chebyshev.len()));
        for fit in &made {
            assert!(fit.max <= BOUND * 8.0, "degree {}: {}", fit.chebyshev.len() - 1, fit.max);
        }
    }

    #[test]
    fn what_is_flat_needs_no_degree() {
        let interval = Range { lo: -9.0, hi: -1.0 };
        let made = bounded_fits(&Activation::Relu, interval, &Density::new(None, None), &DEGREES);
        assert_eq!(made.len(), DEGREES.len());
        assert!(made[0].chebyshev == [0.0, 0.0] && made[0].max == 0.0);
    }
}
