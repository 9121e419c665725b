//! ReLU and its relatives by composites of minimax polynomials: one accuracy for all layers, whatever the data.
//!
//! Every piecewise linear function is a line and a sum of `change·ReLU(x − knot)`, and `ReLU(y) ≈ y·(1/2 + h(y/B))` where `h`
//! is a composite for half the sign ([`fhec_math::minimax`]) and B bounds |y|. Division by B is the change of variable that every polynomial begins
//! with, and the factors 1/2 and `change` are part of the last stage's coefficients. So the depth is that of the stages and one for
//! the product.

use super::ApproximateError;
use super::target::{called, function, rms_where_seen};
use crate::approximate::Approximation;
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Graph, Node, Op, Range, ValueId};
use fhec_math::minimax::sign_composite;
use std::collections::BTreeMap;

/// `slope·x + intercept + Σ change·max(x − knot, 0)`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pieces {
    slope: f64,
    intercept: f64,
    /// Knot and change of slope.
    knots: Vec<(f64, f64)>,
}

impl Pieces {
    /// The pieces of a piecewise linear function.
    pub(super) fn of(f: &Activation) -> Option<Self> {
        let (slope, intercept, knots) = match *f {
            Activation::Relu => (0.0, 0.0, vec![(0.0, 1.0)]),
            Activation::LeakyRelu { alpha } => (alpha, 0.0, vec![(0.0, 1.0 - alpha)]),
            Activation::Clip { min, max } if min <= max => (0.0, min, vec![(min, 1.0), (max, -1.0)]),
            Activation::HardSigmoid { alpha, beta } if alpha > 0.0 => {
                (0.0, 0.0, vec![(-beta / alpha, alpha), ((1.0 - beta) / alpha, -alpha)])
            }
            _ => return None,
        };
        Some(Pieces { slope, intercept, knots })
    }

    /// The same function on an interval: knots outside of it are none.
    fn on(&self, interval: Range) -> Self {
        let mut this = Pieces { knots: vec![], ..self.clone() };
        // A function that is bounded from nowhere begins at minus infinity.
        for &(knot, change) in &self.knots {
            if knot <= interval.lo {
                if change == 1.0 && this.intercept == knot {
                    // Clip without a lower end: min + (x − min), which are not numbers by themselves.
                    (this.slope, this.intercept) = (this.slope + change, 0.0);
                } else {
                    (this.slope, this.intercept) = (this.slope + change, this.intercept - change * knot);
                }
            } else if knot < interval.hi {
                this.knots.push((knot, change));
            }
        }
        this
    }
}

/// A graph in which piecewise linear functions are replaced.
pub(super) struct Composites {
    pub(super) graph: Graph,
    /// For each composite, the activation, its operand in the new graph, and what the operand must stay in.
    pub(super) operands: Vec<(ValueId, ValueId, Range)>,
    pub(super) approximations: Vec<Approximation>,
}

/// Replaces every piecewise linear activation by composites of precision `alpha`; `intervals` tells what the arguments of
/// activations range over.
///
/// # Errors
/// [`ApproximateError::Minimax`] for a precision that there are no composites for, or an interval without width.
pub(super) fn replace(
    graph: &Graph,
    intervals: &BTreeMap<ValueId, Range>,
    alpha: u32,
) -> Result<Composites, ApproximateError> {
    let half_sign = sign_composite(alpha).map_err(ApproximateError::Minimax)?.scaled(0.5);
    let (mut operands, mut approximations) = (Vec::new(), Vec::new());
    let graph = Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let found = function(node).and_then(|f| Some((f, Pieces::of(f)?, *intervals.get(&id)?)));
        let Some((f, pieces, interval)) = found else { return rw.keep(id) };
        let x = rw.value(node.inputs[0]);
        operands.push((id, x, interval));
        let pieces = pieces.on(interval);
        let degree = half_sign.degrees().iter().product();
        let value = |x: f64| {
            pieces.knots.iter().fold(pieces.slope * x + pieces.intercept, |sum, &(knot, change)| {
                let y = x - knot;
                sum + change * y * (0.5 + half_sign.eval(y / reach(interval, knot)))
            })
        };
        let error = |x: f64| value(x) - f.eval(x);
        let (rms, max) = rms_where_seen(graph, id, interval, error);
        let (origin, function) = (node.origin.clone(), f.name());
        approximations.push(Approximation { origin, function, degree, interval, rms, max });
        let (stages, name) = (half_sign.stages(), called(node, f.name()));
        // The sums and products of the composite are the function too.
        let what = match stages.len() {
            1 => format!("{name} α={alpha}"),
            count => format!("{name} α={alpha} in {count} stages"),
        };
        let node = &Node { origin: node.origin.known_as(what), ..node.clone() };
        Maker { rw, node, stages, name, alpha }.make(x, &pieces, interval)
    });
    Ok(Composites { graph, operands, approximations })
}

/// Largest |x − knot| on an interval.
fn reach(interval: Range, knot: f64) -> f64 {
    (interval.lo - knot).abs().max((interval.hi - knot).abs())
}

/// Makes the nodes for one activation.
struct Maker<'m, 'r, 'g> {
    rw: &'r mut Rewriter<'g>,
    /// What is replaced.
    node: &'m Node,
    /// Chebyshev coefficients of the stages of half the sign.
    stages: &'m [Vec<f64>],
    name: &'m str,
    alpha: u32,
}

impl Maker<'_, '_, '_> {
    fn make(&mut self, x: ValueId, pieces: &Pieces, interval: Range) -> ValueId {
        if let ([(knot, change)], 0.0) = (pieces.knots.as_slice(), pieces.intercept)
            && *knot == 0.0
        {
            // The line joins the factor: x·(slope + change/2 + change·h).
            let factor = self.factor(x, reach(interval, 0.0), *change, pieces.slope + change / 2.0);
            return self.push(Op::Mul, &[x, factor]);
        }
        let mut sum = None;
        for &(knot, change) in &pieces.knots {
            let y = self.with_scalar(Op::AddConst, x, -knot);
            let factor = self.factor(y, reach(interval, knot), change, change / 2.0);
            let part = self.push(Op::Mul, &[y, factor]);
            sum = Some(sum.map_or(part, |sum| self.push(Op::Add, &[sum, part])));
        }
        if pieces.slope != 0.0 || sum.is_none() {
            let line = self.with_scalar(Op::MulConst, x, pieces.slope);
            sum = Some(sum.map_or(line, |sum| self.push(Op::Add, &[sum, line])));
        }
        let sum = sum.unwrap_or(x);
        if pieces.intercept == 0.0 { sum } else { self.with_scalar(Op::AddConst, sum, pieces.intercept) }
    }

    /// `constant + change·h(y / reach)`, a polynomial for each stage.
    fn factor(&mut self, y: ValueId, reach: f64, change: f64, constant: f64) -> ValueId {
        let count = self.stages.len();
        let mut value = y;
        for (number, stage) in self.stages.iter().enumerate() {
            let mut chebyshev = stage.clone();
            if number + 1 == count {
                chebyshev.iter_mut().for_each(|c| *c *= change);
                chebyshev[0] += constant;
            }
            let end = if number == 0 { reach } else { 1.0 };
            let interval = Range { lo: -end, hi: end };
            let label = format!("{} α={}, stage {} of {count} on ±{end:.3}", self.name, self.alpha, number + 1);
            value = self.push(Op::Polynomial { chebyshev, interval, label }, &[value]);
        }
        value
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.rw.add(Node { op, inputs: inputs.to_vec(), range: None, distribution: None, ..self.node.clone() })
    }

    fn with_scalar(&mut self, op: impl Fn(fhec_ir::nn::ConstId) -> Op, x: ValueId, value: f64) -> ValueId {
        let constant = self.rw.new.constant(Tensor::scalar(value));
        self.push(op(constant), &[x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_ir::Origin;
    use fhec_ir::nn::{Interpreter, Output};

    const INTERVAL: Range = Range { lo: -3.0, hi: 5.0 };

    /// One activation of one number.
    fn network(f: &Activation) -> Graph {
        let mut g = Graph { name: "g".into(), ..Graph::default() };
        let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 1], Origin::named("x"));
        let value = g.push(Op::Activation(f.clone()), vec![x], vec![1, 1], Origin::named("f"));
        g.outputs.push(Output { name: "y".into(), value });
        g
    }

    fn made(f: &Activation, alpha: u32) -> Composites {
        let graph = network(f);
        replace(&graph, &BTreeMap::from([(ValueId(1), INTERVAL)]), alpha).expect("made")
    }

    /// Largest error on the interval, from a run of the graph.
    fn worst(f: &Activation, made: &Composites) -> f64 {
        let interpreter = Interpreter::new(&made.graph).expect("valid");
        let at = |i: u32| {
            let x = INTERVAL.lo + (INTERVAL.hi - INTERVAL.lo) * f64::from(i) / 4000.0;
            let y = interpreter.run(&[Tensor::new(vec![1, 1], vec![x])]).expect("fits")[0].values()[0];
            (y - f.eval(x)).abs()
        };
        (0..=4000).map(at).fold(0.0, f64::max)
    }

    #[test]
    fn relu_has_as_many_bits_as_asked_for() {
        let mut last = f64::INFINITY;
        for alpha in [4, 7, 10, 12, 13, 14] {
            let made = made(&Activation::Relu, alpha);
            let error = worst(&Activation::Relu, &made);
            let bound = 5.0 * 2f64.powi(-(alpha as i32));
            assert!(error <= bound && error < last, "{alpha} bits: {error}, at most {bound}");
            assert!(
                (made.approximations[0].max / error - 1.0).abs() < 0.2,
                "{} reported, {error}",
                made.approximations[0].max
            );
            last = error;
        }
    }

    #[test]
    fn relu_is_stages_and_one_product() {
        let made = made(&Activation::Relu, 13);
        let ops: Vec<&str> = made.graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["Input", "Polynomial", "Polynomial", "Polynomial", "Mul"]);
        assert_eq!(made.operands, [(ValueId(1), ValueId(0), INTERVAL)]);
        assert_eq!(made.approximations[0].degree, 15 * 15 * 27);
    }

    #[test]
    fn every_piecewise_linear_function_is_made_of_relus() {
        let functions = [
            (Activation::LeakyRelu { alpha: 0.1 }, 1),
            (Activation::LeakyRelu { alpha: -0.5 }, 1),
            (Activation::Clip { min: 0.0, max: 1.5 }, 2),
            (Activation::Clip { min: -1.0, max: 1.0 }, 2),
            (Activation::Clip { min: f64::NEG_INFINITY, max: 1.0 }, 1),
            (Activation::Clip { min: -7.0, max: f64::INFINITY }, 0),
            (Activation::Clip { min: 6.0, max: 7.0 }, 0),
            (Activation::Clip { min: -7.0, max: -6.0 }, 0),
            (Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }, 2),
        ];
        for (f, products) in functions {
            let made = made(&f, 12);
            let count = made.graph.nodes.iter().filter(|n| n.op == Op::Mul).count();
            assert_eq!(count, products, "{f:?}");
            let error = worst(&f, &made);
            assert!(error <= 8.0 * 2f64.powi(-11), "{f:?}: {error}");
        }
        assert_eq!(Pieces::of(&Activation::Tanh), None);
        assert!(matches!(replace(&network(&Activation::Relu), &BTreeMap::new(), 3), Err(ApproximateError::Minimax(_))));
    }
}
