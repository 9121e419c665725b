//! Hides the sizes of what the client sees: every channel between two linear layers is multiplied by a positive factor, and
//! the next layer divides by it.
//!
//! The factors are part of the weights, so they cost nothing. They are possible where all that the client does to a channel
//! commutes with positive factors: ReLU, leaky ReLU, pooling, sums of channels with one factor. They come from a hash of the
//! weights, which the client does not know, so that compiling stays deterministic; and they are the same for all requests.

use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, ConstId, Conv, Graph, Node, Op, ValueId};
use std::collections::BTreeMap;

/// Channels of every value along axis 1, each a member of a forest; channels with one root have one factor.
struct Channels {
    parent: Vec<usize>,
    /// Roots whose factor must be 1, by channel.
    fixed: Vec<bool>,
    of: Vec<Vec<usize>>,
}

impl Channels {
    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let first = self.parent.len();
        self.parent.extend(first..first + count);
        self.fixed.resize(first + count, false);
        (first..first + count).collect()
    }

    fn root(&mut self, mut x: usize) -> usize {
        while self.parent[x] != x {
            self.parent[x] = self.parent[self.parent[x]];
            x = self.parent[x];
        }
        x
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
        self.fixed[a.min(b)] |= self.fixed[a.max(b)];
    }

    fn fix(&mut self, v: ValueId) {
        for channel in self.of[v.index()].clone() {
            let root = self.root(channel);
            self.fixed[root] = true;
        }
    }
}

/// Channels of a value: along axis 1, where it has one.
fn extent(shape: &[usize]) -> usize {
    shape.get(1).copied().unwrap_or(1)
}

/// Whether a function of a value times a positive factor is the function of the value, times the factor.
fn commutes(op: &Op) -> bool {
    matches!(op, Op::Activation(Activation::Relu | Activation::LeakyRelu { .. }) | Op::MaxPool(_))
}

/// Finds the channels of all values, and which of them are free.
fn channels(graph: &Graph) -> Channels {
    let mut c = Channels { parent: vec![], fixed: vec![], of: vec![] };
    for id in graph.ids() {
        let node = graph.node(id);
        let first = node.inputs.first().copied();
        let count = extent(&node.shape);
        let own = match (&node.op, first) {
            (Op::Conv(_), Some(_)) if node.shape.first() == Some(&1) => c.fresh(count),
            (Op::Dense { .. }, Some(_)) if node.shape.len() == 2 && node.shape[0] == 1 => c.fresh(count),
            (op, Some(x)) if commutes(op) || matches!(op, Op::AveragePool(_)) => c.of[x.index()].clone(),
            (Op::ReduceMean { axes, .. } | Op::ReduceSum { axes, .. }, Some(x)) if axes.iter().all(|&a| a > 1) => {
                c.of[x.index()].clone()
            }
            (Op::Add | Op::Sub, Some(x)) if graph.node(node.inputs[1]).shape == graph.node(x).shape => {
                let (a, b) = (c.of[x.index()].clone(), c.of[node.inputs[1].index()].clone());
                a.iter().zip(b).for_each(|(&a, b)| c.join(a, b));
                a
            }
            (Op::Concat { axis: 1 }, Some(_)) => node.inputs.iter().flat_map(|v| c.of[v.index()].clone()).collect(),
            // From channels to features: each channel becomes a run of them.
            (Op::Reshape, Some(x)) => {
                let (from, to) = (&graph.node(x).shape, &node.shape);
                let flat = from.len() >= 2 && from[0] == 1 && to.first() == Some(&1) && to.len() >= 2;
                let of = c.of[x.index()].clone();
                let merged = flat && to[2..].iter().all(|&d| d == 1) && to[1] == from[1..].iter().product::<usize>();
                match merged {
                    true => of.iter().flat_map(|&ch| std::iter::repeat_n(ch, to[1] / from[1].max(1))).collect(),
                    false => {
                        c.fix(x);
                        fixed(&mut c, count)
                    }
                }
            }
            _ => {
                node.inputs.iter().for_each(|&v| c.fix(v));
                fixed(&mut c, count)
            }
        };
        c.of.push(own);
    }
    graph.outputs.iter().for_each(|o| c.fix(o.value));
    c
}

fn fixed(c: &mut Channels, count: usize) -> Vec<usize> {
    let own = c.fresh(count);
    own.iter().for_each(|&ch| c.fixed[ch] = true);
    own
}

/// A stream of factors in [1/2, 1) that nobody knows who does not know the weights.
struct Factors(blake3::OutputReader);

impl Factors {
    fn of(graph: &Graph) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("fhec client-aided channel factors");
        for constant in &graph.constants {
            constant.values().iter().for_each(|v| {
                hasher.update(&v.to_le_bytes());
            });
        }
        Factors(hasher.finalize_xof())
    }

    fn next(&mut self) -> f64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        0.5 + (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 54) as f64
    }
}

/// The same network with a factor on every channel that may have one, and how many channels that are.
pub(super) fn mask(graph: &Graph) -> (Graph, usize) {
    let mut channels = channels(graph);
    let mut stream = Factors::of(graph);
    let mut by_root: BTreeMap<usize, f64> = BTreeMap::new();
    let mut masked = 0;
    let mut factors: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let mut own = Vec::with_capacity(channels.of[id.index()].len());
        for at in 0..channels.of[id.index()].len() {
            let root = channels.root(channels.of[id.index()][at]);
            let factor = if channels.fixed[root] { 1.0 } else { *by_root.entry(root).or_insert_with(|| stream.next()) };
            masked += usize::from(factor != 1.0 && matches!(graph.node(id).op, Op::Conv(_) | Op::Dense { .. }));
            own.push(factor);
        }
        factors.push(own);
    }
    if masked == 0 {
        return (graph.clone(), 0);
    }
    let masked_graph = Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let from = node.inputs.first().map_or(&[][..], |v| &factors[v.index()]);
        let to = &factors[id.index()];
        let (weight, bias, groups) = match &node.op {
            Op::Conv(Conv { weight, bias, groups, .. }) => (*weight, *bias, *groups),
            Op::Dense { weight, bias } => (*weight, *bias, 1),
            _ => return rw.keep(id),
        };
        if from.iter().chain(to).all(|&f| f == 1.0) {
            return rw.keep(id);
        }
        let weight = scaled(rw, graph.tensor(weight), to, from, groups);
        let bias = bias.map(|b| {
            let values = graph.tensor(b).values().iter().zip(to).map(|(v, f)| v * f).collect();
            rw.new.constant(Tensor::new(graph.tensor(b).shape().to_vec(), values))
        });
        let op = match &node.op {
            Op::Conv(conv) => Op::Conv(Conv { weight, bias, ..conv.clone() }),
            _ => Op::Dense { weight, bias },
        };
        let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
        rw.add(Node { op, inputs, ..node.clone() })
    });
    (masked_graph, masked)
}

/// Weights `[out, in / groups, …]` times the factor of the output channel, over that of the input channel.
fn scaled(rw: &mut Rewriter<'_>, weight: &Tensor, to: &[f64], from: &[f64], groups: usize) -> ConstId {
    let shape = weight.shape().to_vec();
    let inner: usize = shape[2..].iter().product();
    let (out, width) = (shape[0].max(1), shape[1].max(1));
    let per_group = (out / groups.max(1)).max(1);
    let values = weight.values().iter().enumerate().map(|(i, w)| {
        let (o, c) = (i / inner.max(1) / width, i / inner.max(1) % width);
        let channel = o / per_group * width + c;
        let input = from.get(channel).copied().unwrap_or(1.0);
        w * to.get(o).copied().unwrap_or(1.0) / input
    });
    rw.new.constant(Tensor::new(shape, values.collect()))
}

#[cfg(test)]
mod tests;
