//! Convolutions and dense layers as what they have in common: weights from channels to channels, and biases.

use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{Conv, Graph, Node, Op, ValueId};

/// The weights of a layer, `[out, in / groups, …]`, and its biases, `[out]`.
pub(super) struct Layer<'a> {
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    groups: usize,
}

impl<'a> Layer<'a> {
    /// The layer that a node is.
    pub(super) fn of(graph: &'a Graph, op: &Op) -> Option<Self> {
        let (weight, bias, groups) = match op {
            Op::Conv(Conv { weight, bias, groups, .. }) => (weight, bias, *groups),
            Op::Dense { weight, bias } => (weight, bias, 1),
            _ => return None,
        };
        Some(Layer { weight: graph.tensor(*weight), bias: bias.map(|b| graph.tensor(b)), groups: groups.max(1) })
    }

    /// Channels of the operand that one output reads.
    pub(super) fn width(&self) -> usize {
        self.weight.shape()[1].max(1)
    }

    /// Outputs of one group.
    pub(super) fn outputs(&self) -> usize {
        (self.weight.shape()[0] / self.groups).max(1)
    }

    /// How many outputs each channel of the operand has to itself, if no output reads two of several.
    pub(super) fn depthwise(&self) -> Option<usize> {
        (self.groups > 1 && self.weight.shape()[1] == 1).then(|| self.outputs())
    }

    /// A weight: output, channel of the operand, place within the window.
    pub(super) fn weight(&self, out: usize, channel: usize, place: usize) -> f64 {
        self.weight.values()[(out * self.width() + channel % self.width()) * self.window() + place]
    }

    fn window(&self) -> usize {
        self.weight.shape()[2..].iter().product::<usize>().max(1)
    }

    /// Puts the node in place of an old one of the same kind, with weights that are a function of output, channel of the
    /// operand and place within the window, and biases that are one of the output and of all old biases.
    pub(super) fn rewrite(
        &self,
        rw: &mut Rewriter<'_>,
        id: ValueId,
        weight: impl Fn(usize, usize, usize) -> f64,
        bias: impl Fn(usize, &[f64]) -> f64,
    ) -> ValueId {
        let (width, window, outputs) = (self.width(), self.window(), self.outputs());
        let at = |i: usize| {
            let (out, column) = (i / window / width, i / window % width);
            weight(out, out / outputs * width + column, i % window)
        };
        let values = (0..self.weight.len()).map(at).collect();
        let weight = rw.new.constant(Tensor::new(self.weight.shape().to_vec(), values));
        let bias = self.bias.map(|b| {
            let values = (0..b.len()).map(|out| bias(out, b.values())).collect();
            rw.new.constant(Tensor::new(b.shape().to_vec(), values))
        });
        let node = rw.old.node(id).clone();
        let op = match &node.op {
            Op::Conv(conv) => Op::Conv(Conv { weight, bias, ..conv.clone() }),
            _ => Op::Dense { weight, bias },
        };
        let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
        rw.add(Node { op, inputs, ..node })
    }
}
