//! Quadratic activations at one level, however a model spells them.
//!
//! Networks that are trained for encryption have polynomials of degree 2 for activations, often with coefficients of
//! their own for each channel: squares, `a·x² + b·x + c` as a chain of products and sums, and HerPN, which
//! batch-normalizes each Hermite basis polynomial for itself (Park et al. 2022, AESPA, section 4). Evaluated as
//! written they cost two to four levels. Here
//!
//! * every maximal chain of elementwise operations, 1×1 depthwise convolutions among them, that is a quadratic of one
//!   value is found (`recognise`);
//! * its square is completed, `a·x² + b·x + c = a·(x + b/2a)² + c − b²/4a`: a shift joins the bias before it, and a
//!   factor per channel moves as `√|a|` into the layer before, or as `a` into the layers behind (`factors`);
//! * where a channel has no square to complete (`a` is zero, or so small that the shift would swallow the value), the
//!   quadratic is `x · (a·x + b) + c`, both factors made by the layer before.

mod factors;
mod recognise;

use crate::canonicalise::canonicalise;
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Graph, Node, Op, ValueId};
use recognise::{Forms, Quadratic};

/// Shifts larger than this multiple of the median shift cost too much precision: the square would be far larger than
/// the quadratic.
const LARGEST_SHIFT: f64 = 64.0;

/// Rewrites quadratics of one value in a canonical graph; what it leaves is canonical again.
pub fn quadratics(graph: &Graph) -> Graph {
    let forms = Forms::of(graph);
    if !graph.ids().any(|v| forms.worth(graph, v)) {
        return graph.clone();
    }
    let completed =
        Rewriter::run(
            graph,
            |rw, id| {
                if forms.worth(graph, id) { complete(rw, graph, &forms, id) } else { rw.keep(id) }
            },
        );
    canonicalise(&factors::move_factors(&canonicalise(&completed)))
}

/// The quadratic at `id` as few operations.
fn complete(rw: &mut Rewriter<'_>, graph: &Graph, forms: &Forms, id: ValueId) -> ValueId {
    let (node, quadratic) = (graph.node(id), forms.of_value(id));
    // Whatever the chain began and ended with: nobody knows it as its last sum.
    let node = &Node { origin: node.origin.known_as("Quadratic"), ..node.clone() };
    let x = rw.value(quadratic.base);
    let mut chain = Chain { rw, node };
    if degenerate(quadratic) {
        // The layer that makes x makes a·x + b too, at the same level.
        let twin = factors::twin(chain.rw, graph, quadratic.base);
        let slope = chain.times(twin, quadratic.a.clone());
        let slope = chain.plus(slope, quadratic.b.clone());
        let product = chain.rw.add(Node { op: Op::Mul, inputs: vec![x, slope], ..node.clone() });
        return chain.plus(product, quadratic.c.clone());
    }
    let each = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
        (0..quadratic.a.len()).map(|k| f(quadratic.a[k], quadratic.b[k], quadratic.c[k])).collect()
    };
    let uniform = quadratic.a.iter().all(|a| *a == quadratic.a[0]);
    if !uniform && forms.consumes(graph, id) && factors::absorbs(graph, quadratic.base) {
        let scaled = chain.times(x, each(&|a, _, _| a.abs().sqrt()));
        let shifted = chain.plus(scaled, each(&|a, b, _| b / (2.0 * a) * a.abs().sqrt()));
        let square = chain.square(shifted);
        let sum = chain.plus(square, each(&|a, b, c| (c - b * b / (4.0 * a)) * a.signum()));
        return chain.times(sum, each(&|a, _, _| a.signum()));
    }
    let shifted = chain.plus(x, each(&|a, b, _| b / (2.0 * a)));
    let square = chain.square(shifted);
    let sum = chain.plus(square, each(&|a, b, c| (c - b * b / (4.0 * a)) / a));
    chain.times(sum, each(&|a, _, _| a))
}

/// True when some channel has no square that could be completed.
fn degenerate(q: &Quadratic) -> bool {
    if q.a.contains(&0.0) {
        return true;
    }
    let mut shifts: Vec<f64> = q.a.iter().zip(&q.b).map(|(a, b)| (b / (2.0 * a)).abs()).collect();
    shifts.sort_by(f64::total_cmp);
    shifts[shifts.len() - 1] > LARGEST_SHIFT * shifts[shifts.len() / 2]
}

/// Appends elementwise operations of the shape and origin of a node.
struct Chain<'r, 'a> {
    rw: &'r mut Rewriter<'a>,
    node: &'r Node,
}

impl Chain<'_, '_> {
    fn then(&mut self, op: Op, x: ValueId) -> ValueId {
        self.rw.add(Node { op, inputs: vec![x], ..self.node.clone() })
    }

    fn square(&mut self, x: ValueId) -> ValueId {
        self.then(Op::Activation(Activation::Power { exponent: 2 }), x)
    }

    fn times(&mut self, x: ValueId, by: Vec<f64>) -> ValueId {
        let c = self.rw.new.constant(per_channel(by, self.node.shape.len()));
        self.then(Op::MulConst(c), x)
    }

    fn plus(&mut self, x: ValueId, by: Vec<f64>) -> ValueId {
        let c = self.rw.new.constant(per_channel(by, self.node.shape.len()));
        self.then(Op::AddConst(c), x)
    }
}

/// One value per index of axis 1 of a tensor of `rank` axes, as a constant; a scalar where all are the same.
fn per_channel(values: Vec<f64>, rank: usize) -> Tensor {
    if values.iter().all(|v| *v == values[0]) {
        return Tensor::scalar(values[0]);
    }
    let mut shape = vec![1; rank.saturating_sub(1)];
    shape[0] = values.len();
    Tensor::new(shape, values)
}
