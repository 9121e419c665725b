//! Activations that exporters write as several nodes: `x·sigmoid(x)`, `0.5·x·(1 + erf(x/√2))`, ….
//!
//! A product is taken apart into a coefficient and factors, and the factors are compared with the known
//! forms. The matched node is replaced in place; nodes that became useless are pruned later.

use fhec_ir::nn::{Activation, ConstId, Graph, Op, ValueId};
use fhec_ir::{Origin, Tensor};

/// Nesting that is looked through. The longest known form, GELU by tanh, nests this deep twice over.
const DEPTH: usize = 8;

/// Relative difference at which constants count as equal: they come as f32, or rounded to six digits.
const TOLERANCE: f64 = 1e-5;

/// Replaces every product that is a known activation.
pub(crate) fn recognise(graph: &mut Graph) {
    for id in graph.ids() {
        if !matches!(graph.node(id).op, Op::Mul | Op::MulConst(_)) {
            continue;
        }
        let product = Product::of(graph, id);
        if let Some((activation, x)) = product.activation(graph)
            && graph.node(x).shape == graph.node(id).shape
        {
            let mut origin = Origin::default();
            for part in &product.parts {
                origin = origin.join(&graph.node(*part).origin);
            }
            let node = &mut graph.nodes[id.index()];
            node.origin = origin.join(&node.origin);
            (node.op, node.inputs) = (Op::Activation(activation), vec![x]);
        }
    }
}

/// `coefficient · Π factors`.
struct Product {
    coefficient: f64,
    factors: Vec<ValueId>,
    /// Nodes that make up the product, operands first.
    parts: Vec<ValueId>,
}

impl Product {
    fn of(graph: &Graph, id: ValueId) -> Product {
        let mut product = Product { coefficient: 1.0, factors: vec![], parts: vec![] };
        product.take(graph, id, DEPTH);
        product
    }

    fn take(&mut self, graph: &Graph, id: ValueId, depth: usize) {
        let node = graph.node(id);
        match (&node.op, depth) {
            (Op::Mul, 1..) => {
                for &input in &node.inputs {
                    self.take(graph, input, depth - 1);
                }
            }
            (Op::MulConst(c), 1..) if scalar(graph, *c).is_some() => {
                self.coefficient *= scalar(graph, *c).unwrap_or(1.0);
                self.take(graph, node.inputs[0], depth - 1);
            }
            _ => {
                self.factors.push(id);
                return;
            }
        }
        self.parts.push(id);
    }

    /// The activation that the product is, and its argument.
    fn activation(&self, graph: &Graph) -> Option<(Activation, ValueId)> {
        match self.factors[..] {
            [a, b] => self.pair(graph, a, b).or_else(|| self.pair(graph, b, a)),
            _ => None,
        }
    }

    /// `coefficient · x · f(x)`.
    fn pair(&self, graph: &Graph, x: ValueId, gate: ValueId) -> Option<(Activation, ValueId)> {
        let unit = near(self.coefficient, 1.0);
        let node = graph.node(gate);
        let found = match &node.op {
            Op::Activation(Activation::Sigmoid) if unit => {
                let inner = Affine::of(graph, node.inputs[0]);
                (inner.base == x && inner.offset == 0.0).then_some(Activation::Swish { alpha: inner.scale })
            }
            Op::Activation(Activation::HardSigmoid { alpha, beta }) if unit => {
                let inner = Affine::of(graph, node.inputs[0]);
                let standard = near(alpha * inner.scale, 1.0 / 6.0) && near(alpha * inner.offset + beta, 0.5);
                (inner.base == x && standard).then_some(Activation::HardSwish)
            }
            // x · clip(x + 3, 0, 6) / 6
            Op::Activation(Activation::Clip { .. } | Activation::Relu) => {
                let (clipped, min, max) = clipping(graph, gate);
                let inner = Affine::of(graph, clipped);
                let ends = min == 0.0 && near(inner.scale * 3.0, inner.offset) && near(inner.scale * 6.0, max);
                let slope = near(self.coefficient * inner.scale, 1.0 / 6.0);
                (inner.base == x && ends && slope).then_some(Activation::HardSwish)
            }
            Op::Activation(Activation::Tanh) if unit => match graph.node(node.inputs[0]) {
                inner if inner.op == Op::Activation(Activation::Softplus) && inner.inputs[0] == x => {
                    Some(Activation::Mish)
                }
                _ => None,
            },
            _ => self.gelu(graph, x, gate),
        };
        found.map(|activation| (activation, x))
    }

    /// `½ · x · (1 + erf(x/√2))`, or with tanh.
    fn gelu(&self, graph: &Graph, x: ValueId, gate: ValueId) -> Option<Activation> {
        let outer = Affine::of(graph, gate);
        if !near(outer.scale, outer.offset) || !near(self.coefficient * outer.scale, 0.5) {
            return None;
        }
        let node = graph.node(outer.base);
        match node.op {
            Op::Activation(Activation::Erf) => {
                let inner = Affine::of(graph, node.inputs[0]);
                let standard = near(inner.scale, std::f64::consts::FRAC_1_SQRT_2) && inner.offset == 0.0;
                (inner.base == x && standard).then_some(Activation::Gelu { tanh: false })
            }
            Op::Activation(Activation::Tanh) => {
                cubic(graph, node.inputs[0], x).then_some(Activation::Gelu { tanh: true })
            }
            _ => None,
        }
    }
}

/// `√(2/π) · (x + 0.044715·x³)`, with the root inside or outside.
fn cubic(graph: &Graph, id: ValueId, x: ValueId) -> bool {
    let outer = Affine::of(graph, id);
    let sum = graph.node(outer.base);
    if sum.op != Op::Add || outer.offset != 0.0 {
        return factored_cubic(graph, id, x);
    }
    let (mut linear, mut third) = (0.0, 0.0);
    for &term in &sum.inputs {
        match monomial(graph, term, x) {
            Some((c, 1)) => linear += outer.scale * c,
            Some((c, 3)) => third += outer.scale * c,
            _ => return false,
        }
    }
    standard_cubic(linear, third)
}

/// `√(2/π) · x · (1 + 0.044715·x²)`.
fn factored_cubic(graph: &Graph, id: ValueId, x: ValueId) -> bool {
    let product = Product::of(graph, id);
    let [a, b] = product.factors[..] else { return false };
    let other = if a == x { b } else { a };
    let affine = Affine::of(graph, other);
    let square = monomial(graph, affine.base, x);
    (a == x || b == x)
        && square.is_some_and(|(c, power)| {
            let k = product.coefficient;
            power == 2 && standard_cubic(k * affine.offset, k * affine.scale * c)
        })
}

fn standard_cubic(linear: f64, third: f64) -> bool {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    near(linear, root) && near(third, root * 0.044715)
}

/// `id = coefficient · x^power`.
fn monomial(graph: &Graph, id: ValueId, x: ValueId) -> Option<(f64, u32)> {
    let product = Product::of(graph, id);
    let mut power = 0u32;
    for &factor in &product.factors {
        power = power.checked_add(match &graph.node(factor).op {
            _ if factor == x => 1,
            Op::Activation(Activation::Power { exponent }) if graph.node(factor).inputs[0] == x => *exponent,
            _ => return None,
        })?;
    }
    Some((product.coefficient, power))
}

/// `scale · base + offset`.
struct Affine {
    scale: f64,
    offset: f64,
    base: ValueId,
}

impl Affine {
    fn of(graph: &Graph, id: ValueId) -> Affine {
        let mut affine = Affine { scale: 1.0, offset: 0.0, base: id };
        for _ in 0..DEPTH {
            let node = graph.node(affine.base);
            match node.op {
                Op::AddConst(c) if scalar(graph, c).is_some() => {
                    affine.offset += affine.scale * scalar(graph, c).unwrap_or(0.0);
                }
                Op::MulConst(c) if scalar(graph, c).is_some() => affine.scale *= scalar(graph, c).unwrap_or(1.0),
                _ => break,
            }
            affine.base = node.inputs[0];
        }
        affine
    }
}

/// What a value is clipped from, by one operation or by one for each end, and the bounds.
fn clipping(graph: &Graph, id: ValueId) -> (ValueId, f64, f64) {
    let (mut at, mut low, mut high) = (id, f64::NEG_INFINITY, f64::INFINITY);
    for _ in 0..DEPTH {
        let node = graph.node(at);
        let Op::Activation(function) = &node.op else { break };
        let Some((min, max)) = function.clipping() else { break };
        let both = Activation::Clip { min: low, max: high };
        (low, high) = (both.eval(min), both.eval(max));
        at = node.inputs[0];
    }
    (at, low, high)
}

/// The value of a constant that is the same everywhere.
fn scalar(graph: &Graph, id: ConstId) -> Option<f64> {
    let tensor: &Tensor = graph.tensor(id);
    match tensor.values() {
        [first, rest @ ..] if rest.iter().all(|v| v == first) => Some(*first),
        _ => None,
    }
}

fn near(a: f64, b: f64) -> bool {
    a.is_finite() && b.is_finite() && (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}
