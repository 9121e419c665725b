//! Hides which channel is which from the client: channels of what it sees are in an order that follows from the weights.
//!
//! The order is part of the weights, so it costs nothing: the layer that makes channels makes them in another order, and
//! layers that read them read them so. What is between acts on each channel alone, whatever function it is.
//!
//! Two classes of channels may change places if every layer, and all that takes only some channels of a value, treats them alike
//! (`marks`). Where a class has several channels of one value, as the features that a flattened channel becomes, these move
//! together: the first of them to the place of the first of the other class, and so on.

use super::channels::{Along, Change, Channels};
use super::layers::Layer;
use super::secrets::{Purpose, Secrets};
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{ConstId, Graph, Node, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Something that tells classes apart: a node, whether of its operand or of its result, which of the channels of the class in
/// that value, and what the node does to it.
type Mark = (ValueId, Side, usize, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Operand,
    Result,
}

/// The same network with other orders of channels, and how many channels of results of layers have no place of their own.
pub(super) fn shuffle(graph: &Graph) -> (Graph, usize) {
    let channels = Channels::of(graph, Change::Move);
    let sets = alike(graph, &channels);
    let mut secrets = Secrets::of(graph, Purpose::Order);
    let mut moves: BTreeMap<usize, usize> = BTreeMap::new();
    for set in sets.iter().filter(|s| s.len() > 1) {
        let mut other = set.clone();
        secrets.shuffle(&mut other);
        moves.extend(set.iter().copied().zip(other));
    }
    let layers = graph.ids().filter(|&id| Layer::of(graph, &graph.node(id).op).is_some());
    let moved = layers.map(|id| channels.along(id).class.iter().filter(|c| moves.contains_key(c)).count()).sum();
    let orders: Vec<Vec<usize>> = graph.ids().map(|id| order(channels.along(id), &moves)).collect();
    (reordered(graph, &channels, &orders), moved)
}

/// Sets of classes that may change places among themselves.
fn alike(graph: &Graph, channels: &Channels) -> Vec<Vec<usize>> {
    let mut sets: BTreeMap<Vec<Mark>, Vec<usize>> = BTreeMap::new();
    for (class, marks) in marks(graph, channels) {
        if !channels.fixed(class) {
            sets.entry(marks).or_default().push(class);
        }
    }
    sets.into_values().collect()
}

/// What tells classes apart.
fn marks(graph: &Graph, channels: &Channels) -> BTreeMap<usize, Vec<Mark>> {
    let mut marks: BTreeMap<usize, Vec<Mark>> = BTreeMap::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let own = channels.along(id);
        let Some(x) = node.inputs.first().map(|&x| channels.along(x)) else { continue };
        let mut mark = |side, of: &Along, kind: &dyn Fn(usize) -> usize| {
            for (at, (class, nth)) in numbered(of).enumerate() {
                marks.entry(class).or_default().push((id, side, nth, kind(at)));
            }
        };
        match &node.op {
            // Channels of a group stay together: its kernels read them and no others.
            op if own.new => {
                let Some(layer) = Layer::of(graph, op) else { continue };
                mark(Side::Operand, x, &|at| at / layer.width());
                mark(Side::Result, own, &|at| at / layer.outputs());
            }
            Op::Slice { starts, steps } => {
                let taken = |k: usize| starts[own.axis] as i64 + k as i64 * steps[own.axis];
                let taken: BTreeSet<i64> = (0..own.class.len()).map(taken).collect();
                mark(Side::Operand, x, &|at| usize::from(taken.contains(&(at as i64))));
            }
            Op::Pad { before, .. } => {
                let there = before[own.axis]..before[own.axis] + x.class.len() as i64;
                mark(Side::Result, own, &|at| usize::from(there.contains(&(at as i64))));
            }
            _ => {}
        }
    }
    marks
}

/// The class of every channel, and how many channels before it have the same.
fn numbered(along: &Along) -> impl Iterator<Item = (usize, usize)> {
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    along.class.iter().map(move |&class| {
        let count = seen.entry(class).or_default();
        *count += 1;
        (class, *count - 1)
    })
}

/// For every place of a value, where the channel was that is there now.
fn order(along: &Along, moves: &BTreeMap<usize, usize>) -> Vec<usize> {
    if !along.class.iter().any(|class| moves.contains_key(class)) {
        return (0..along.class.len()).collect();
    }
    let places: BTreeMap<(usize, usize), usize> = numbered(along).enumerate().map(|(at, nth)| (nth, at)).collect();
    let moved = |class: usize| moves.get(&class).copied().unwrap_or(class);
    numbered(along).map(|(class, nth)| places[&(moved(class), nth)]).collect()
}

/// The network with the channels of each value in a given order.
fn reordered(graph: &Graph, channels: &Channels, orders: &[Vec<usize>]) -> Graph {
    // Layers read along one axis; an operand whose channels are along another one is as it was.
    let at = |v: Option<&ValueId>, k: usize| v.and_then(|v| orders[v.index()].get(k)).copied().unwrap_or(k);
    let moved = |v: &ValueId| orders[v.index()].iter().enumerate().any(|(k, &from)| k != from);
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let x = node.inputs.first();
        if !moved(&id) && !x.is_some_and(moved) {
            return rw.keep(id);
        }
        if let Some(layer) = Layer::of(graph, &node.op) {
            let weight = |out, channel, place| layer.weight(at(Some(&id), out), at(x, channel), place);
            return layer.rewrite(rw, id, weight, |out, biases| biases[at(Some(&id), out)]);
        }
        if !matches!(node.op, Op::AddConst(_) | Op::MulConst(_) | Op::PRelu { .. } | Op::BatchNorm { .. }) {
            return rw.keep(id);
        }
        let mut op = node.op.clone();
        for constant in op.constants_mut() {
            // Parameters of a batch normalisation are along axis 1, others as in broadcasting.
            let lead = if matches!(node.op, Op::BatchNorm { .. }) { 1 } else { rank_behind(graph, node, *constant) };
            let along = channels.along(id).axis.checked_sub(lead);
            if let Some(axis) = along.filter(|&a| graph.tensor(*constant).shape().get(a).is_some_and(|&n| n > 1)) {
                *constant = rw.new.constant(gathered(graph.tensor(*constant), axis, &orders[id.index()]));
            }
        }
        let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
        rw.add(Node { op, inputs, ..node.clone() })
    })
}

/// How many axes a constant has less than the value that it is broadcast to.
fn rank_behind(graph: &Graph, node: &Node, constant: ConstId) -> usize {
    node.shape.len().saturating_sub(graph.tensor(constant).shape().len())
}

/// A tensor with index `order[k]` of an axis at index k.
fn gathered(tensor: &Tensor, axis: usize, order: &[usize]) -> Tensor {
    let inner = tensor.shape()[axis + 1..].iter().product::<usize>().max(1);
    let extent = tensor.shape()[axis];
    let from = |i: usize| {
        let (outer, k, rest) = (i / inner / extent, i / inner % extent, i % inner);
        (outer * extent + order[k]) * inner + rest
    };
    Tensor::new(tensor.shape().to_vec(), (0..tensor.len()).map(|i| tensor.values()[from(i)]).collect())
}

#[cfg(test)]
mod tests;
