//! Interval arithmetic over the tensor graph: ranges when there are no sample inputs.
//!
//! Sound but wide – every layer assumes the worst of the one before – so calibration data give far
//! better polynomials; the pipeline says so when it has to fall back on this.

use fhec_ir::nn::{Graph, Node, Op, Range};
use fhec_math::chebyshev::clenshaw;

/// Sets the range of every value, given the one range of all the model's inputs.
pub fn bound_ranges(graph: &Graph, input: Range) -> Graph {
    let mut out = graph.clone();
    for id in graph.ids() {
        let node = graph.node(id);
        let operands: Vec<Range> =
            node.inputs.iter().map(|v| out.node(*v).range.expect("operands come before users")).collect();
        out.nodes[id.index()].range = Some(with_width(bound(graph, node, &operands, input)));
    }
    out
}

/// A range of some width, whatever the values: a polynomial needs an interval to be fitted on.
fn with_width(r: Range) -> Range {
    let least = 1e-6 * (1.0 + r.hi.abs().max(r.lo.abs()));
    if r.hi - r.lo >= least { r } else { Range { lo: r.lo - least, hi: r.hi + least } }
}

fn bound(graph: &Graph, node: &Node, x: &[Range], input: Range) -> Range {
    let values = |c: fhec_ir::nn::ConstId| graph.tensor(c).values();
    match &node.op {
        Op::Input { .. } => input,
        Op::Conv(conv) => {
            let seen = if conv.pads == [0; 4] { x[0] } else { hull(x[0], Range { lo: 0.0, hi: 0.0 }) };
            rows(values(conv.weight), conv.bias.map(values), graph.tensor(conv.weight).shape()[0], seen)
        }
        Op::Dense { weight, bias } => rows(values(*weight), bias.map(values), graph.tensor(*weight).shape()[0], x[0]),
        Op::BatchNorm { scale, bias, mean, variance, epsilon } => {
            let (s, b, m, v) = (values(*scale), values(*bias), values(*mean), values(*variance));
            let channel = |c: usize| {
                let a = s[c] / (v[c] + epsilon).sqrt();
                let at = |x: f64| a * (x - m[c]) + b[c];
                ends(at(x[0].lo), at(x[0].hi))
            };
            (0..s.len()).map(channel).reduce(hull).unwrap_or(x[0])
        }
        Op::Add => Range { lo: x[0].lo + x[1].lo, hi: x[0].hi + x[1].hi },
        Op::Sub => Range { lo: x[0].lo - x[1].hi, hi: x[0].hi - x[1].lo },
        Op::Mul => product(x[0], x[1]),
        Op::AddConst(c) => {
            let c = of(values(*c));
            Range { lo: x[0].lo + c.lo, hi: x[0].hi + c.hi }
        }
        Op::MulConst(c) => product(x[0], of(values(*c))),
        Op::AveragePool(_) | Op::Pad { .. } => {
            let other = if let Op::Pad { value, .. } = node.op { value } else { 0.0 };
            hull(x[0], Range { lo: other, hi: other })
        }
        Op::ReduceSum { axes, .. } => {
            let shape = &graph.node(node.inputs[0]).shape;
            let count = axes.iter().map(|&a| shape[a]).product::<usize>() as f64;
            Range { lo: x[0].lo * count, hi: x[0].hi * count }
        }
        Op::ReduceMean { .. } | Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::MaxPool(_) => x[0],
        Op::Concat { .. } => x.iter().copied().reduce(hull).unwrap_or(input),
        Op::Activation(f) => sampled(x[0], |v| f.eval(v)),
        Op::PRelu { slope } => {
            let below = product(Range { lo: x[0].lo.min(0.0), hi: x[0].hi.min(0.0) }, of(values(*slope)));
            hull(below, Range { lo: x[0].lo.max(0.0), hi: x[0].hi.max(0.0) })
        }
        Op::Polynomial { chebyshev, interval, .. } => {
            let width = (interval.hi - interval.lo) / 2.0;
            let mid = (interval.hi + interval.lo) / 2.0;
            sampled(x[0], |v| clenshaw(chebyshev, (v - mid) / width))
        }
        Op::Softmax { .. } => Range { lo: 0.0, hi: 1.0 },
    }
}

/// The range of `weight · x + bias` over all rows.
fn rows(weight: &[f64], bias: Option<&[f64]>, count: usize, x: Range) -> Range {
    let width = weight.len() / count.max(1);
    let row = |r: usize| {
        let b = bias.map_or(0.0, |b| b[r]);
        weight[r * width..(r + 1) * width].iter().fold(Range { lo: b, hi: b }, |sum, &w| {
            let p = product(x, Range { lo: w, hi: w });
            Range { lo: sum.lo + p.lo, hi: sum.hi + p.hi }
        })
    };
    (0..count).map(row).reduce(hull).unwrap_or(x)
}

/// The range of a function over an interval, from samples: the functions in question have few
/// extrema, and a part in a thousand of slack covers what lies between two samples.
fn sampled(x: Range, f: impl Fn(f64) -> f64) -> Range {
    const STEPS: usize = 4096;
    let at = |i: usize| f(x.lo + (x.hi - x.lo) * i as f64 / STEPS as f64);
    let found = (0..=STEPS).map(at).map(|v| Range { lo: v, hi: v }).reduce(hull).unwrap_or(x);
    let slack = (found.hi - found.lo) * 1e-3;
    Range { lo: found.lo - slack, hi: found.hi + slack }
}

fn ends(a: f64, b: f64) -> Range {
    Range { lo: a.min(b), hi: a.max(b) }
}

pub(crate) fn hull(a: Range, b: Range) -> Range {
    Range { lo: a.lo.min(b.lo), hi: a.hi.max(b.hi) }
}

fn product(a: Range, b: Range) -> Range {
    let corners = [a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi];
    of(&corners)
}

fn of(values: &[f64]) -> Range {
    values.iter().map(|&v| Range { lo: v, hi: v }).reduce(hull).unwrap_or(Range { lo: 0.0, hi: 0.0 })
}
