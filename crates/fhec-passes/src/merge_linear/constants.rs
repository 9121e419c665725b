//! Zero padding and constants in front of a layer, absorbed by it.

use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Conv, Graph, Node, Op, Pool, ValueId};

/// Moves padding, factors and offsets into the window or dense layer that alone reads them, until
/// nothing changes.
pub(crate) fn absorb(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    loop {
        let next = once(&graph);
        // Whatever is absorbed was a node.
        if next.nodes.len() == graph.nodes.len() {
            return next;
        }
        graph = next;
    }
}

fn once(graph: &Graph) -> Graph {
    let users = graph.users();
    let alone = |v: ValueId| users[v.index()].len() == 1 && graph.outputs.iter().all(|o| o.value != v);
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let Some(&source) = node.inputs.first() else { return rw.keep(id) };
        if !alone(source) {
            return rw.keep(id);
        }
        let before = graph.node(source);
        let merged = match (&node.op, &before.op) {
            (Op::Conv(conv), Op::Pad { before, after, value: 0.0 }) => {
                pads(before, after).map(|p| Op::Conv(Conv { pads: sum(conv.pads, p), ..conv.clone() }))
            }
            (Op::AveragePool(pool), Op::Pad { before, after, value: 0.0 }) => pads(before, after).and_then(|p| {
                // What is padded in the model counts as elements; the pool's own padding lies outside of it.
                let pads = sum(pool.pads, p);
                let nested = pool.pads == pool.counted_pads || pool.pads == [0; 4];
                nested.then(|| Op::AveragePool(Pool { pads, counted_pads: sum(pool.counted_pads, p), ..pool.clone() }))
            }),
            (Op::Conv(conv), Op::MulConst(c)) if before.shape == graph.node(before.inputs[0]).shape => {
                let per_channel = channels(graph.tensor(*c), &before.shape);
                per_channel.map(|by| {
                    let weight = graph.tensor(conv.weight);
                    let scaled = scale_conv(weight, conv.groups, &by);
                    let weight = rw.new.constant(scaled);
                    Op::Conv(Conv { weight, ..conv.clone() })
                })
            }
            (Op::Dense { weight, bias }, Op::MulConst(c)) => along_last(graph, before, *c).map(|by| {
                let scaled = scale_columns(graph.tensor(*weight), &by);
                Op::Dense { weight: rw.new.constant(scaled), bias: *bias }
            }),
            (Op::Dense { weight, bias }, Op::AddConst(c)) => along_last(graph, before, *c).map(|by| {
                let w = graph.tensor(*weight);
                let (rows, inner) = (w.shape()[0], w.shape()[1]);
                let sum = |o: usize| -> f64 { (0..inner).map(|i| w.values()[o * inner + i] * by[i]).sum() };
                let old = |o: usize| bias.map_or(0.0, |b| graph.tensor(b).values()[o]);
                let values = (0..rows).map(|o| sum(o) + old(o)).collect();
                Op::Dense { weight: *weight, bias: Some(rw.new.constant(Tensor::new(vec![rows], values))) }
            }),
            _ => None,
        };
        match merged {
            Some(op) => {
                let inputs = vec![rw.value(before.inputs[0])];
                let origin = before.origin.join(&node.origin);
                rw.add(Node { op, inputs, origin, ..node.clone() })
            }
            None => rw.keep(id),
        }
    })
}

/// Top, left, bottom, right of a padding of height and width only.
fn pads(before: &[i64], after: &[i64]) -> Option<[usize; 4]> {
    let (&[0, 0, top, left], &[0, 0, bottom, right]) = (before, after) else { return None };
    let all = [top, left, bottom, right];
    all.iter().all(|&p| p >= 0).then(|| all.map(|p| p as usize))
}

fn sum(a: [usize; 4], b: [usize; 4]) -> [usize; 4] {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
}

/// The constant as one value per channel of a `1xCxHxW` value, if it varies by channel at most and not
/// uniformly (uniform factors are free anyway, and leave the weights as they are).
fn channels(c: &Tensor, shape: &[usize]) -> Option<Vec<f64>> {
    let &[1, count, h, w] = shape else { return None };
    let full = c.broadcast(shape)?;
    let first: Vec<f64> = full.values().iter().step_by(h * w).copied().collect();
    let varies = (0..count).all(|k| full.values()[k * h * w..(k + 1) * h * w].iter().all(|v| *v == first[k]));
    (varies && first.iter().any(|v| *v != first[0])).then_some(first)
}

/// The constant of a node as one value per index of the last axis, under the same conditions.
fn along_last(graph: &Graph, node: &Node, c: fhec_ir::nn::ConstId) -> Option<Vec<f64>> {
    if graph.node(node.inputs[0]).shape != node.shape {
        return None;
    }
    let (&inner, lead) = node.shape.split_last()?;
    let full = graph.tensor(c).broadcast(&node.shape)?;
    let first = full.values()[..inner].to_vec();
    let repeats = (0..lead.iter().product()).all(|k: usize| full.values()[k * inner..(k + 1) * inner] == first[..]);
    (repeats && first.iter().any(|v| *v != first[0])).then_some(first)
}

/// Weights of a convolution of an input whose channels are each multiplied by something.
pub(crate) fn scale_conv(weight: &Tensor, groups: usize, by: &[f64]) -> Tensor {
    let shape = weight.shape();
    let (per_out, per_in, taps) = (shape[0] / groups, shape[1], shape[2] * shape[3]);
    let value = |(at, w): (usize, &f64)| {
        let (o, i) = (at / (per_in * taps), at / taps % per_in);
        w * by[o / per_out * per_in + i]
    };
    Tensor::new(shape.to_vec(), weight.values().iter().enumerate().map(value).collect())
}

/// Weights of a dense layer, likewise.
pub(crate) fn scale_columns(weight: &Tensor, by: &[f64]) -> Tensor {
    let inner = weight.shape()[1];
    let values = weight.values().iter().enumerate().map(|(at, w)| w * by[at % inner]).collect();
    Tensor::new(weight.shape().to_vec(), values)
}
