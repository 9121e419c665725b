//! Factors per channel, moved to where they cost no level: back into the layer that makes a value, or on into every
//! layer that reads it. At a sum, where no weights are, a factor becomes a convolution of one weight a channel, which
//! the sum's linear map takes in.

use super::per_channel;
use crate::canonicalise::{canonicalise, per_index};
use crate::merge_linear::{scale_columns, scale_conv};
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Conv, Graph, Node, Op, ValueId};
use std::collections::BTreeMap;

/// True when a factor per channel of `v`, whose only reader wants it, costs no level: a layer makes it, or a sum of
/// which a layer makes a summand for no one else.
pub(super) fn absorbs(graph: &Graph, v: ValueId) -> bool {
    let node = graph.node(v);
    let layer = |v: ValueId| matches!(graph.node(v).op, Op::Conv(_));
    match node.op {
        Op::Conv(_) => true,
        Op::Dense { .. } => node.shape.len() == 2,
        Op::Add | Op::Sub => node.shape.len() == 4 && node.inputs.iter().any(|&x| layer(x) && alone(graph, x)),
        _ => false,
    }
}

/// A second copy of `v` for a factor of its own, down to the layers that can take it; `v` itself where there are none.
pub(super) fn twin(rw: &mut Rewriter<'_>, graph: &Graph, v: ValueId) -> ValueId {
    let node = graph.node(v);
    if !absorbs(graph, v) {
        return rw.value(v);
    }
    if !matches!(node.op, Op::Add | Op::Sub) {
        return rw.keep(v);
    }
    let layer = |x: ValueId| matches!(graph.node(x).op, Op::Conv(_)) && alone(graph, x);
    let inputs = node.inputs.iter().map(|&x| if layer(x) { rw.keep(x) } else { rw.value(x) }).collect();
    rw.add(Node { inputs, ..node.clone() })
}

fn alone(graph: &Graph, v: ValueId) -> bool {
    let readers: usize = graph.nodes.iter().map(|n| n.inputs.iter().filter(|&&x| x == v).count()).sum();
    readers == 1 && graph.outputs.iter().all(|o| o.value != v)
}

/// Moves the factors of a canonical graph, first back through sums, then on into the layers behind them.
pub(super) fn move_factors(graph: &Graph) -> Graph {
    // In between, factors join the weights of the layers that they came to.
    forward(&canonicalise(&backward(graph)))
}

/// `f·(x + y)` as `f·x + f·y`, where `f·x` joins the weights of the layer that makes `x`.
fn backward(graph: &Graph) -> Graph {
    let mut sums: BTreeMap<ValueId, Vec<f64>> = BTreeMap::new();
    let mut gone: Vec<ValueId> = Vec::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let Some(factor) = factor(graph, id) else { continue };
        let source = node.inputs[0];
        if matches!(graph.node(source).op, Op::Add | Op::Sub) && alone(graph, source) && absorbs(graph, source) {
            sums.insert(source, factor);
            gone.push(id);
        }
    }
    Rewriter::run(graph, |rw, id| {
        if gone.contains(&id) {
            return rw.value(graph.node(id).inputs[0]);
        }
        let Some(by) = sums.get(&id) else { return rw.keep(id) };
        let node = graph.node(id);
        if node.inputs.iter().any(|&x| graph.node(x).shape != node.shape) {
            let sum = rw.keep(id);
            return multiplied(rw, graph, id, sum, by);
        }
        let inputs = node
            .inputs
            .iter()
            .map(|&x| {
                let value = rw.value(x);
                match graph.node(x).op {
                    Op::Conv(_) if alone(graph, x) => multiplied(rw, graph, x, value, by),
                    _ => depthwise(rw, graph, x, value, by),
                }
            })
            .collect();
        rw.add(Node { inputs, ..node.clone() })
    })
}

/// The factor per channel of a node that multiplies by one that differs between channels.
fn factor(graph: &Graph, id: ValueId) -> Option<Vec<f64>> {
    let node = graph.node(id);
    let Op::MulConst(c) = node.op else { return None };
    if node.shape.len() < 2 || graph.node(node.inputs[0]).shape != node.shape {
        return None;
    }
    per_index(graph.tensor(c), &node.shape, 1).filter(|by| by.iter().any(|v| *v != by[0]))
}

/// `value`, the new form of `old`, times a factor per channel.
fn multiplied(rw: &mut Rewriter<'_>, graph: &Graph, old: ValueId, value: ValueId, by: &[f64]) -> ValueId {
    let node = graph.node(old);
    let c = rw.new.constant(per_channel(by.to_vec(), node.shape.len()));
    rw.add(Node { op: Op::MulConst(c), inputs: vec![value], ..node.clone() })
}

/// The same as a convolution.
fn depthwise(rw: &mut Rewriter<'_>, graph: &Graph, old: ValueId, value: ValueId, by: &[f64]) -> ValueId {
    let weight = rw.new.constant(Tensor::new(vec![by.len(), 1, 1, 1], by.to_vec()));
    let conv = Conv { weight, bias: None, strides: [1; 2], pads: [0; 4], dilations: [1; 2], groups: by.len() };
    rw.add(Node { op: Op::Conv(conv), inputs: vec![value], ..graph.node(old).clone() })
}

/// Moves factors on into everything that reads them, where all readers can take them.
fn forward(graph: &Graph) -> Graph {
    let taken = taken(graph);
    // What the new form of a value is still to be multiplied by.
    let mut pending: BTreeMap<ValueId, Vec<f64>> = BTreeMap::new();
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        if taken[id.index()]
            && let Some(by) = factor(graph, id)
        {
            let source = node.inputs[0];
            let by = match pending.get(&source) {
                Some(before) => before.iter().zip(&by).map(|(a, b)| a * b).collect(),
                None => by,
            };
            pending.insert(id, by);
            return rw.value(source);
        }
        if !node.inputs.iter().any(|x| pending.contains_key(x)) {
            return rw.keep(id);
        }
        let x = node.inputs[0];
        match &node.op {
            Op::Conv(conv) => {
                let weight = rw.new.constant(scale_conv(graph.tensor(conv.weight), conv.groups, &pending[&x]));
                let inputs = vec![rw.value(x)];
                rw.add(Node { op: Op::Conv(Conv { weight, ..conv.clone() }), inputs, ..node.clone() })
            }
            Op::Dense { weight, bias } => {
                let weight = rw.new.constant(scale_columns(graph.tensor(*weight), &pending[&x]));
                let inputs = vec![rw.value(x)];
                rw.add(Node { op: Op::Dense { weight, bias: *bias }, inputs, ..node.clone() })
            }
            Op::Add | Op::Sub => {
                let inputs = node
                    .inputs
                    .iter()
                    .map(|&x| {
                        let value = rw.value(x);
                        match pending.get(&x) {
                            Some(by) => depthwise(rw, graph, x, value, by),
                            None => value,
                        }
                    })
                    .collect();
                rw.add(Node { inputs, ..node.clone() })
            }
            _ => {
                let by = carried(graph, id, &|v| pending.get(&v).cloned());
                if let Some(by) = by {
                    pending.insert(id, by);
                }
                rw.keep(id)
            }
        }
    })
}

/// Which values may be left multiplied by something: all their readers take a factor, or hand it on to readers that do.
fn taken(graph: &Graph) -> Vec<bool> {
    let users = graph.users();
    let mut taken = vec![false; graph.nodes.len()];
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id);
        let takes = |u: &ValueId| {
            let user = graph.node(*u);
            match &user.op {
                Op::Conv(_) => true,
                Op::Dense { .. } => node.shape.len() == 2,
                Op::Add | Op::Sub => {
                    node.shape.len() == 4 && user.inputs.iter().all(|x| graph.node(*x).shape == user.shape)
                }
                Op::MulConst(_) => taken[u.index()] && factor(graph, *u).is_some(),
                _ => taken[u.index()] && carried(graph, *u, &|v| (v == id).then(|| vec![1.0; node.shape[1]])).is_some(),
            }
        };
        let output = graph.outputs.iter().any(|o| o.value == id);
        taken[id.index()] =
            node.shape.len() >= 2 && !output && !users[id.index()].is_empty() && users[id.index()].iter().all(takes);
    }
    taken
}

/// The factor of the result of an operation that factors pass through, where `of` tells those of its operands (`None`:
/// 1). `None` for other operations.
fn carried(graph: &Graph, id: ValueId, of: &dyn Fn(ValueId) -> Option<Vec<f64>>) -> Option<Vec<f64>> {
    let node = graph.node(id);
    let x = *node.inputs.first()?;
    let shape = &graph.node(x).shape;
    match &node.op {
        Op::AveragePool(_) => of(x),
        Op::ReduceMean { axes, .. } | Op::ReduceSum { axes, .. } if axes.iter().all(|&a| a > 1) => of(x),
        Op::Reshape if shape.first() == node.shape.first() => {
            let by = of(x)?;
            let (channels, rest) = (shape[1], shape[2..].iter().product::<usize>());
            match node.shape[1..] {
                [c, ..] if c == channels => Some(by),
                [flat] if flat == channels * rest => Some(by.iter().flat_map(|&v| vec![v; rest]).collect()),
                _ => None,
            }
        }
        Op::Concat { axis: 1 } => {
            let each = node.inputs.iter().map(|&x| of(x).unwrap_or_else(|| vec![1.0; graph.node(x).shape[1]]));
            Some(each.flatten().collect())
        }
        _ => None,
    }
}
