//! Units: the channels of a value, or the features of a vector, all that lies at one index of axis 1.
//!
//! A unit is dead when nothing reads it, because all weights that go out of it are zero, and when it is always the same,
//! because all weights that go into it are zero or a constant factor switches it off. Dead units are
//! taken out through convolutions, dense layers, normalisations and activations, exactly: the network computes what it did
//! before ([`dead_units`]). Where every element has a ciphertext of its own, elements can be taken out one by one, once
//! convolutions are spelt as dense layers ([`unroll`](mod@unroll)). Which units a network can do
//! *almost* without is found on calibration data ([`crate::sparsify`]).

pub(crate) mod constants;
pub(crate) mod liveness;
pub mod unroll;

use crate::canonicalise::per_index;
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{ConstId, Conv, Graph, Node, Op, ValueId};
use liveness::Liveness;

/// How the units of a node's value belong to those of its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Unit by unit: what one side loses, the other loses too.
    Keeps,
    /// Each unit of the operand becomes so many units one after another.
    Flattens(usize),
    /// Every unit is a weighted sum of the operand's.
    Mixes,
    /// Units cannot be followed; none of them can be taken out.
    Opaque,
}

/// Units of a shape, or none where it has no axis 1.
pub(crate) fn count(shape: &[usize]) -> usize {
    shape.get(1).copied().unwrap_or(0)
}

/// The flow through a node.
pub(crate) fn flow(graph: &Graph, node: &Node) -> Flow {
    let shape = &node.shape;
    let Some(&first) = node.inputs.first() else { return Flow::Opaque };
    let from = &graph.node(first).shape;
    if shape.len() < 2 || from.len() < 2 || shape[0] != from[0] {
        return Flow::Opaque;
    }
    let same = shape[1] == from[1];
    let keeps = |yes: bool| if yes && same { Flow::Keeps } else { Flow::Opaque };
    match &node.op {
        Op::Conv(conv) if conv.groups == 1 => Flow::Mixes,
        Op::Conv(conv) => keeps(conv.groups == from[1]),
        Op::Dense { .. } if shape.len() == 2 => Flow::Mixes,
        Op::Add | Op::Sub | Op::Mul => keeps(node.inputs.iter().all(|&v| graph.node(v).shape == *shape)),
        Op::AddConst(c) | Op::MulConst(c) => keeps(from == shape && graph.tensor(*c).shape().len() <= shape.len()),
        Op::PRelu { slope } => keeps(graph.tensor(*slope).shape().len() <= shape.len()),
        Op::BatchNorm { .. } | Op::AveragePool(_) | Op::MaxPool(_) | Op::Activation(_) | Op::Polynomial { .. } => {
            keeps(true)
        }
        Op::ReduceMean { axes, .. } | Op::ReduceSum { axes, .. } => keeps(axes.iter().all(|&a| a > 1)),
        Op::Reshape if same => Flow::Keeps,
        Op::Reshape if shape.len() == 2 && shape[1].is_multiple_of(from[1].max(1)) => {
            Flow::Flattens(shape[1] / from[1])
        }
        Op::Transpose { perm } => keeps(perm[..2] == [0, 1]),
        Op::Pad { before, after, .. } => keeps(before[..2] == [0, 0] && after[..2] == [0, 0]),
        Op::Slice { starts, steps } => keeps(starts[..2] == [0, 0] && steps[..2] == [1, 1]),
        _ => Flow::Opaque,
    }
}

/// Takes out all dead units. Constant ones go into the biases of the layers that read them first.
pub fn dead_units(graph: &Graph) -> Graph {
    let folded = constants::fold(graph);
    let live = Liveness::of(&folded);
    if !live.any_dead() { folded } else { without(&folded, &live) }
}

/// The network over single elements without the dead ones, where there are any.
pub fn lone_elements(graph: &Graph) -> Option<Graph> {
    let unrolled = unroll::unroll(graph)?;
    let values = |g: &Graph| g.nodes.iter().map(|n| n.shape.iter().product::<usize>()).sum::<usize>();
    let fewer = dead_units(&unrolled);
    (values(&fewer) < values(&unrolled)).then_some(fewer)
}

/// The graph without the units that are not live.
pub(crate) fn without(graph: &Graph, live: &Liveness) -> Graph {
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let kept = live.kept(id);
        let own_kept = node.inputs.first().map(|&v| live.kept(v));
        let Some(from) =
            own_kept.filter(|from| kept.len() < count(&node.shape) || from.len() < unit_count(graph, node.inputs[0]))
        else {
            return rw.keep(id);
        };
        let mut shape = node.shape.clone();
        if shape.len() > 1 {
            shape[1] = kept.len();
        }
        let op = restricted(rw, graph, node, &from, &kept);
        let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
        rw.add(Node { op, inputs, shape, ..node.clone() })
    })
}

fn unit_count(graph: &Graph, id: ValueId) -> usize {
    count(&graph.node(id).shape)
}

/// The operation on the units `from` of its operand, making the units `kept`.
fn restricted(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node, from: &[usize], kept: &[usize]) -> Op {
    let mixes = flow(graph, node) == Flow::Mixes;
    let mut pick = |c: ConstId, axis: usize, which: &[usize]| {
        let picked = select(graph.tensor(c), axis, which);
        rw.new.constant(picked)
    };
    match &node.op {
        Op::Conv(conv) => {
            let rows = pick(conv.weight, 0, kept);
            let bias = conv.bias.map(|b| pick(b, 0, kept));
            let (weight, groups) = if mixes {
                let columns = select(&rw.new.constants[rows.index()], 1, from);
                (rw.new.constant(columns), 1)
            } else {
                (rows, kept.len())
            };
            Op::Conv(Conv { weight, bias, groups, ..conv.clone() })
        }
        Op::Dense { weight, bias } => {
            let bias = bias.map(|b| pick(b, 0, kept));
            let rows = select(graph.tensor(*weight), 0, kept);
            Op::Dense { weight: rw.new.constant(select(&rows, 1, from)), bias }
        }
        Op::BatchNorm { scale, bias, mean, variance, epsilon } => {
            let [scale, bias, mean, variance] = [scale, bias, mean, variance].map(|&c| pick(c, 0, kept));
            Op::BatchNorm { scale, bias, mean, variance, epsilon: *epsilon }
        }
        Op::AddConst(c) => Op::AddConst(broadcast_pick(rw, graph, *c, node.shape.len(), kept)),
        Op::MulConst(c) => Op::MulConst(broadcast_pick(rw, graph, *c, node.shape.len(), kept)),
        Op::PRelu { slope } => Op::PRelu { slope: broadcast_pick(rw, graph, *slope, node.shape.len(), kept) },
        other => other.clone(),
    }
}

/// The entries of a constant that is broadcast to a shape of so many axes which belong to the units `kept`.
fn broadcast_pick(rw: &mut Rewriter<'_>, graph: &Graph, c: ConstId, rank: usize, kept: &[usize]) -> ConstId {
    let tensor = graph.tensor(c);
    match (tensor.shape().len() + 1).checked_sub(rank) {
        Some(axis) if tensor.shape()[axis] > 1 => rw.new.constant(select(tensor, axis, kept)),
        _ => c,
    }
}

/// The indices `which` of an axis.
pub(crate) fn select(tensor: &Tensor, axis: usize, which: &[usize]) -> Tensor {
    let (lead, rest) = tensor.shape().split_at(axis);
    let inner: usize = rest[1..].iter().product();
    let outer: usize = lead.iter().product();
    let mut values = Vec::with_capacity(outer * which.len() * inner);
    for o in 0..outer {
        for &i in which {
            let at = (o * rest[0] + i) * inner;
            values.extend_from_slice(&tensor.values()[at..at + inner]);
        }
    }
    Tensor::new([lead, &[which.len()], &rest[1..]].concat(), values)
}

/// A constant as one value a unit of `shape`, if it varies along no other axis.
pub(crate) fn per_unit(constant: &Tensor, shape: &[usize]) -> Option<Vec<f64>> {
    per_index(constant, shape, 1)
}
