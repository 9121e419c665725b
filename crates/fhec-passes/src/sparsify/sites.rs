//! Where units can be taken out: between two layers with weights.

use crate::units::{Flow, count, flow};
use fhec_ir::Tensor;
use fhec_ir::nn::{ConstId, Graph, Op, ValueId};
use std::ops::Range;

/// A layer that makes units and the only layer that reads them.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The layer that makes the units, or an input.
    pub(super) source: ValueId,
    /// The layer that reads them, perhaps after activations and poolings.
    pub(super) reader: ValueId,
    /// Number of units.
    pub(super) units: usize,
    /// Features that the reader has for each unit: taps of a convolution, pixels of a flattened channel.
    pub(super) each: usize,
}

/// Readers with fewer weights than this share of all keep them: fitted anew, none of them would stay zero.
const DENSE: f64 = 0.5;

/// All of them, in the order of the readers. With `inputs`, elements of an input are units, too: they stay, but weights that nobody
/// multiplies with cost nothing where each is a product of its own.
pub(super) fn sites(graph: &Graph, inputs: bool) -> Vec<Site> {
    let users = graph.users();
    let alone = |v: ValueId| users[v.index()].len() == 1 && graph.outputs.iter().all(|o| o.value != v);
    let site = |reader: ValueId| {
        let node = graph.node(reader);
        if flow(graph, node) != Flow::Mixes {
            return None;
        }
        let weights = weight(graph, reader).values();
        if (weights.iter().filter(|&&w| w != 0.0).count() as f64) < DENSE * weights.len() as f64 {
            return None;
        }
        let mut at = node.inputs[0];
        loop {
            if inputs && matches!(graph.node(at).op, Op::Input { .. }) {
                break;
            }
            let [source] = graph.node(at).inputs[..] else { return None };
            if !alone(at) {
                return None;
            }
            match flow(graph, graph.node(at)) {
                Flow::Mixes => break,
                Flow::Keeps | Flow::Flattens(_) => at = source,
                Flow::Opaque => return None,
            }
        }
        let features = weight(graph, reader).shape()[1..].iter().product::<usize>();
        let elements = matches!(graph.node(at).op, Op::Input { .. });
        let units = if elements { features } else { count(&graph.node(at).shape) };
        Some(Site { source: at, reader, units, each: features / units })
    };
    graph.ids().filter_map(site).collect()
}

/// The weight of a layer.
fn weight(graph: &Graph, layer: ValueId) -> &Tensor {
    graph.tensor(constants(graph, layer).0)
}

/// Weight and bias of a layer.
pub(super) fn constants(graph: &Graph, layer: ValueId) -> (ConstId, Option<ConstId>) {
    match &graph.node(layer).op {
        Op::Conv(conv) => (conv.weight, conv.bias),
        Op::Dense { weight, bias } => (*weight, *bias),
        other => unreachable!("{} has no weights to take out", other.name()),
    }
}

impl Site {
    /// Units that the reader has a weight for.
    pub(super) fn used(&self, graph: &Graph, reader: ValueId) -> usize {
        let weights = weight(graph, reader).values();
        let width = self.width();
        (0..width).filter(|f| weights[*f..].iter().step_by(width).any(|&w| w != 0.0)).count()
    }

    /// The features of a unit.
    pub(super) fn features(&self, unit: usize) -> Range<usize> {
        unit * self.each..(unit + 1) * self.each
    }

    /// Number of features.
    pub(super) fn width(&self) -> usize {
        self.units * self.each
    }

    /// The reader's weights: rows of its sums over the features.
    pub(super) fn weights(&self, graph: &Graph) -> Vec<f64> {
        weight(graph, self.reader).values().to_vec()
    }

    /// What the reader sums up in one sample: rows of features, one for each sum of an output channel. Convolutions have one
    /// for each pixel; `most` of them, evenly spread, are taken.
    pub(super) fn rows(&self, graph: &Graph, operand: &Tensor, most: usize) -> Vec<Vec<f64>> {
        let node = graph.node(self.reader);
        let Op::Conv(conv) = &node.op else { return vec![operand.values().to_vec()] };
        let (&[_, channels, height, width], kernel) = (operand.shape(), &weight(graph, self.reader).shape()[2..])
        else {
            return Vec::new();
        };
        let positions = node.shape[2] * node.shape[3];
        let take = positions.min(most.max(1));
        let row = |i: usize| {
            let position = i * positions / take;
            let (y, x) = (position / node.shape[3], position % node.shape[3]);
            let mut row = Vec::with_capacity(self.width());
            for c in 0..channels {
                for ky in 0..kernel[0] {
                    for kx in 0..kernel[1] {
                        let h = (y * conv.strides[0] + ky * conv.dilations[0]).checked_sub(conv.pads[0]);
                        let w = (x * conv.strides[1] + kx * conv.dilations[1]).checked_sub(conv.pads[1]);
                        row.push(match (h, w) {
                            (Some(h), Some(w)) if h < height && w < width => {
                                operand.values()[(c * height + h) * width + w]
                            }
                            _ => 0.0,
                        });
                    }
                }
            }
            row
        };
        (0..take).map(row).collect()
    }
}
