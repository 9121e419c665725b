//! One way to say each thing: products with itself become powers, parametric ReLUs become ReLUs,
//! constant factors and offsets move into the layer before them, images come one at a time.

use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::refusals::softmax_axis;
use fhec_ir::nn::{Activation, ConstId, Conv, Graph, Node, Op, ValueId};

/// Largest exponent that powers are merged to; more is a chain of powers, with the same depth.
pub const MAX_POWER: u32 = 64;

/// Rewrites to the canonical form, until nothing changes:
///
/// * a clipping of what was clipped → one clipping, if nothing else uses the value between; a `ReLU` is one, too
/// * `x · x` → `x²`; `(xᵃ)ᵇ` → `xᵃᵇ` up to [`MAX_POWER`]; `x + x` → `2x`
/// * `PRelu(x)` → `slope·x + (1 − slope)·ReLU(x)`, exactly
/// * the maximum of one value → that value: such a pooling only takes some of its input
/// * multiplications and additions of constants that vary by channel at most move into the
///   convolution, dense layer, or constant operation before them, if nothing else uses its value; a 1×1 depthwise
///   convolution behind a convolution is both
/// * multiplications by 1 and additions of 0 vanish
/// * a softmax moves behind the reshapes that follow it: the client computes it last
/// * a convolution or pooling of several images becomes one of a single image with all their channels, in groups
pub fn canonicalise(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    loop {
        let next = once(&graph);
        if next == graph {
            return single_images(&next);
        }
        graph = next;
    }
}

/// Windows over `n×c×h×w` as windows over `1×nc×h×w`: the images are groups of their own. Last of all, because the
/// reshapes around them hide layers from their constants.
fn single_images(graph: &Graph) -> Graph {
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let (&[n, _, height, width], Op::Conv(_) | Op::AveragePool(_)) = (node.shape.as_slice(), &node.op) else {
            return rw.keep(id);
        };
        if n == 1 {
            return rw.keep(id);
        }
        let repeated = |rw: &mut Rewriter<'_>, c: ConstId| {
            let t = graph.tensor(c);
            let mut shape = t.shape().to_vec();
            shape[0] *= n;
            rw.new.constant(Tensor::new(shape, t.values().repeat(n)))
        };
        let op = match &node.op {
            Op::Conv(conv) => {
                let weight = repeated(rw, conv.weight);
                let bias = conv.bias.map(|b| repeated(rw, b));
                Op::Conv(Conv { weight, bias, groups: n * conv.groups, ..conv.clone() })
            }
            other => other.clone(),
        };
        let source = graph.node(node.inputs[0]);
        let [_, c, h, w] = source.shape[..] else { return rw.keep(id) };
        let x = rw.value(node.inputs[0]);
        let x = rw.add(Node { op: Op::Reshape, inputs: vec![x], shape: vec![1, n * c, h, w], ..source.clone() });
        let shape = vec![1, n * node.shape[1], height, width];
        let y = rw.add(Node { op, inputs: vec![x], shape, ..node.clone() });
        rw.add(Node { op: Op::Reshape, inputs: vec![y], ..node.clone() })
    })
}

fn once(graph: &Graph) -> Graph {
    let users = graph.users();
    let outputs: Vec<ValueId> = graph.outputs.iter().map(|o| o.value).collect();
    let alone = |v: ValueId| users[v.index()].len() == 1 && !outputs.contains(&v);
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let same_operand = node.inputs.len() == 2 && node.inputs[0] == node.inputs[1];
        match &node.op {
            Op::Mul if same_operand => power(rw, graph, node, 2),
            Op::Activation(Activation::Power { exponent }) => power(rw, graph, node, *exponent),
            Op::Activation(Activation::Relu | Activation::Clip { .. }) if alone(node.inputs[0]) => {
                clipped(rw, graph, node).unwrap_or_else(|| rw.keep(id))
            }
            Op::Add if same_operand => {
                let two = rw.new.constant(Tensor::scalar(2.0));
                replace(rw, node, Op::MulConst(two), &node.inputs[..1])
            }
            Op::PRelu { slope } => prelu(rw, graph, node, *slope),
            Op::MaxPool(pool) if pool.kernel == [1, 1] && pool.pads == [0; 4] => {
                replace(rw, node, Op::AveragePool(pool.clone()), &node.inputs)
            }
            Op::MulConst(c) | Op::AddConst(c) => {
                let product = matches!(node.op, Op::MulConst(_));
                let constant = graph.tensor(*c);
                let neutral = if product { 1.0 } else { 0.0 };
                let source = node.inputs[0];
                if constant.values().iter().all(|&v| v == neutral) && graph.node(source).shape == node.shape {
                    return rw.value(source);
                }
                let merged = if alone(source) { merge(rw, graph, node, product, constant) } else { None };
                merged.unwrap_or_else(|| rw.keep(id))
            }
            Op::Conv(conv) if alone(node.inputs[0]) => {
                merge_factors(rw, graph, node, conv).unwrap_or_else(|| rw.keep(id))
            }
            Op::Reshape => sink_softmax(rw, graph, node).unwrap_or_else(|| rw.keep(id)),
            _ => rw.keep(id),
        }
    })
}

/// A node with another operation on some of its operands.
fn replace(rw: &mut Rewriter<'_>, node: &Node, op: Op, operands: &[ValueId]) -> ValueId {
    let inputs = operands.iter().map(|&v| rw.value(v)).collect();
    rw.add(Node { op, inputs, ..node.clone() })
}

/// A node that clips, with the clipping before it absorbed; nothing where there is none.
fn clipped(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node) -> Option<ValueId> {
    let source = graph.node(node.inputs[0]);
    let (Op::Activation(first), Op::Activation(second)) = (&source.op, &node.op) else { return None };
    let (low, high) = first.clipping()?;
    let op = match (second.eval(low), second.eval(high)) {
        (0.0, f64::INFINITY) => Activation::Relu,
        (min, max) => Activation::Clip { min, max },
    };
    let inputs = vec![rw.value(source.inputs[0])];
    Some(rw.add(Node { op: Op::Activation(op), inputs, origin: source.origin.join(&node.origin), ..node.clone() }))
}

/// `xᵉ`, absorbing a power before it.
fn power(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node, exponent: u32) -> ValueId {
    let source = graph.node(node.inputs[0]);
    if let Op::Activation(Activation::Power { exponent: inner }) = source.op
        && let Some(exponent) = inner.checked_mul(exponent).filter(|&e| e <= MAX_POWER)
    {
        let op = Op::Activation(Activation::Power { exponent });
        let inputs = vec![rw.value(source.inputs[0])];
        return rw.add(Node { op, inputs, origin: source.origin.join(&node.origin), ..node.clone() });
    }
    replace(rw, node, Op::Activation(Activation::Power { exponent }), &node.inputs[..1])
}

/// `reshape(… softmax(x))` as `softmax(reshape(x))`, where the reshapes leave the axis whole.
fn sink_softmax(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node) -> Option<ValueId> {
    let mut source = graph.node(node.inputs[0]);
    while source.op == Op::Reshape {
        source = graph.node(source.inputs[0]);
    }
    let Op::Softmax { axis } = source.op else { return None };
    let axis = softmax_axis(&source.shape, axis, &node.shape)?;
    let operand = graph.node(source.inputs[0]);
    let (range, distribution) = (operand.range, operand.distribution.clone());
    let inputs = vec![rw.value(source.inputs[0])];
    let logits = rw.add(Node { op: Op::Reshape, inputs, range, distribution, ..node.clone() });
    let origin = source.origin.join(&node.origin);
    Some(rw.add(Node { op: Op::Softmax { axis }, inputs: vec![logits], origin, ..node.clone() }))
}

/// `slope·x + (1 − slope)·ReLU(x)`.
fn prelu(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node, slope: ConstId) -> ValueId {
    let slope = graph.tensor(slope).clone();
    let x = rw.value(node.inputs[0]);
    let rest = rw.new.constant(slope.map(|s| 1.0 - s));
    let slope = rw.new.constant(slope);
    let mut make = |op, inputs| rw.add(Node { op, inputs, ..node.clone() });
    let linear = make(Op::MulConst(slope), vec![x]);
    let relu = make(Op::Activation(Activation::Relu), vec![x]);
    let relu = make(Op::MulConst(rest), vec![relu]);
    make(Op::Add, vec![linear, relu])
}

/// Moves `· constant` or `+ constant` into the producer of the operand, where the producer can take it.
fn merge(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node, product: bool, constant: &Tensor) -> Option<ValueId> {
    let source = graph.node(node.inputs[0]);
    let op = match &source.op {
        Op::Conv(conv) => {
            let by_channel = per_index(constant, &node.shape, 1)?;
            let (weight, bias) = absorb(rw, graph, conv.weight, conv.bias, product, &by_channel);
            Op::Conv(Conv { weight, bias, ..conv.clone() })
        }
        Op::Dense { weight, bias } => {
            let by_feature = per_index(constant, &node.shape, node.shape.len() - 1)?;
            let (weight, bias) = absorb(rw, graph, *weight, *bias, product, &by_feature);
            Op::Dense { weight, bias }
        }
        Op::MulConst(c) if product => Op::MulConst(rw.new.constant(graph.tensor(*c).zip(constant, |a, b| a * b)?)),
        Op::AddConst(c) if !product => Op::AddConst(rw.new.constant(graph.tensor(*c).zip(constant, |a, b| a + b)?)),
        _ => return None,
    };
    if source.shape != node.shape {
        return None;
    }
    let inputs = source.inputs.iter().map(|&v| rw.value(v)).collect();
    Some(rw.add(Node { op, inputs, origin: source.origin.join(&node.origin), ..node.clone() }))
}

/// Moves a convolution that only multiplies and adds per channel into the convolution before it.
fn merge_factors(rw: &mut Rewriter<'_>, graph: &Graph, node: &Node, conv: &Conv) -> Option<ValueId> {
    let source = graph.node(node.inputs[0]);
    let Op::Conv(before) = &source.op else { return None };
    let (by, plus) = channel_line(graph, conv)?;
    let (weight, bias) = absorb(rw, graph, before.weight, before.bias, true, &by);
    let offsets = match bias {
        Some(b) => rw.new.tensor(b).values().iter().zip(&plus).map(|(b, p)| b + p).collect(),
        None => plus,
    };
    let bias = Some(rw.new.constant(Tensor::new(vec![offsets.len()], offsets)));
    let op = Op::Conv(Conv { weight, bias, ..before.clone() });
    let inputs = vec![rw.value(source.inputs[0])];
    Some(rw.add(Node { op, inputs, origin: source.origin.join(&node.origin), ..node.clone() }))
}

/// The factor and the offset of every channel, where a convolution is nothing else: 1×1 and depthwise.
pub(crate) fn channel_line(graph: &Graph, conv: &Conv) -> Option<(Vec<f64>, Vec<f64>)> {
    let Conv { weight, bias, strides, pads, groups, .. } = conv;
    let weight = graph.tensor(*weight);
    if *weight.shape() != [*groups, 1, 1, 1] || *strides != [1; 2] || *pads != [0; 4] {
        return None;
    }
    let offsets = bias.map_or_else(|| vec![0.0; *groups], |b| graph.tensor(b).values().to_vec());
    Some((weight.values().to_vec(), offsets))
}

/// The constant as one value per index of `axis`, if it varies along no other axis of `shape`.
pub(crate) fn per_index(constant: &Tensor, shape: &[usize], axis: usize) -> Option<Vec<f64>> {
    let extent = shape[axis];
    let lead = shape.len().checked_sub(constant.shape().len())?;
    let varies_only_there = constant.shape().iter().enumerate().all(|(d, &e)| e == 1 || d + lead == axis);
    if !varies_only_there || ![1, extent].contains(&constant.len()) {
        return None;
    }
    Some((0..extent).map(|i| constant.values()[if constant.len() == 1 { 0 } else { i }]).collect())
}

/// New weight and bias of a layer whose result is multiplied by, or added to, `v` per output index.
fn absorb(
    rw: &mut Rewriter<'_>,
    graph: &Graph,
    weight: ConstId,
    bias: Option<ConstId>,
    product: bool,
    v: &[f64],
) -> (ConstId, Option<ConstId>) {
    let old_bias = bias.map(|b| graph.tensor(b).values().to_vec());
    if !product {
        let sum = match old_bias {
            Some(b) => b.iter().zip(v).map(|(b, v)| b + v).collect(),
            None => v.to_vec(),
        };
        return (weight, Some(rw.new.constant(Tensor::new(vec![v.len()], sum))));
    }
    let w = graph.tensor(weight);
    let row = w.len() / v.len().max(1);
    let values = w.values().iter().enumerate().map(|(i, w)| w * v[i / row]).collect();
    let weight = rw.new.constant(Tensor::new(w.shape().to_vec(), values));
    let bias = old_bias.map(|b| {
        let scaled = b.iter().zip(v).map(|(b, v)| b * v).collect();
        rw.new.constant(Tensor::new(vec![v.len()], scaled))
    });
    (weight, bias)
}
