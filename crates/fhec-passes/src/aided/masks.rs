//! Hides the sizes of what the client sees: every channel between two linear layers is multiplied by a positive factor, and
//! the next layer divides by it.
//!
//! The factors are part of the weights, so they cost nothing. They are possible where all that the client does to a channel
//! commutes with positive factors: ReLU, leaky ReLU, pooling, sums of channels with one factor. They come from a hash of the
//! weights, which the client does not know, so that compiling stays deterministic; and they are the same for all requests.

use super::channels::{Change, Channels};
use super::layers::Layer;
use super::secrets::{Purpose, Secrets};
use crate::rewrite::Rewriter;
use fhec_ir::nn::Graph;
use std::collections::BTreeMap;

/// The same network with a factor on every channel that may have one, and how many channels that are.
pub(super) fn mask(graph: &Graph) -> (Graph, usize) {
    let channels = Channels::of(graph, Change::Scale);
    let mut secrets = Secrets::of(graph, Purpose::Factors);
    let mut by_class: BTreeMap<usize, f64> = BTreeMap::new();
    let mut masked = 0;
    let mut factors: Vec<Vec<f64>> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let factor = |&class: &usize| {
            if channels.fixed(class) { 1.0 } else { *by_class.entry(class).or_insert_with(|| secrets.factor()) }
        };
        let own: Vec<f64> = channels.along(id).class.iter().map(factor).collect();
        if Layer::of(graph, &graph.node(id).op).is_some() {
            masked += own.iter().filter(|&&f| f != 1.0).count();
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
        let Some(layer) = Layer::of(graph, &node.op) else { return rw.keep(id) };
        if from.iter().chain(to).all(|&f| f == 1.0) {
            return rw.keep(id);
        }
        // Layers read along one axis; an operand whose channels are along another one has no factors.
        let by = |factors: &[f64], k: usize| factors.get(k).copied().unwrap_or(1.0);
        let weight = |out, channel, place| layer.weight(out, channel, place) * by(to, out) / by(from, channel);
        layer.rewrite(rw, id, weight, |out, biases| biases[out] * by(to, out))
    });
    (masked_graph, masked)
}

#[cfg(test)]
mod tests;
