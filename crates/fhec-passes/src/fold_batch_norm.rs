//! Batch normalisation disappears into the layer before it, or becomes one multiplication and one
//! addition per channel.

use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{ConstId, Conv, Graph, Node, Op, ValueId};

/// Folds every `BatchNorm` into the convolution or dense layer that feeds it, directly or through a reshape that
/// leaves the channels alone (behind a convolution over one dimension), if nothing else uses that layer; otherwise
/// rewrites it as `x · a + b`. Weights are copied, never changed in place: a
/// shared initialiser keeps its values for its other users.
pub fn fold_batch_norm(graph: &Graph) -> Graph {
    let users = graph.users();
    let outputs: Vec<ValueId> = graph.outputs.iter().map(|o| o.value).collect();
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id).clone();
        let Op::BatchNorm { scale, bias, mean, variance, epsilon } = node.op else { return rw.keep(id) };
        let (a, b) = affine(graph, scale, bias, mean, variance, epsilon);
        let source = node.inputs[0];
        let alone = |v: ValueId| users[v.index()].len() == 1 && !outputs.contains(&v);
        let before = graph.node(source);
        let reshaped = before.op == Op::Reshape && alone(source) && {
            let from = &graph.node(before.inputs[0]).shape;
            from.len() >= 2 && from.get(..2) == before.shape.get(..2)
        };
        let at = if reshaped { before.inputs[0] } else { source };
        let layer = graph.node(at);
        let folded = match &layer.op {
            Op::Conv(conv) if alone(at) => {
                let (weight, bias) = scaled(rw, graph, conv.weight, conv.bias, &a, &b);
                Some(Op::Conv(Conv { weight, bias: Some(bias), ..conv.clone() }))
            }
            Op::Dense { weight, bias } if alone(at) && layer.shape.len() == 2 => {
                let (weight, bias) = scaled(rw, graph, *weight, *bias, &a, &b);
                Some(Op::Dense { weight, bias: Some(bias) })
            }
            _ => None,
        };
        if let Some(op) = folded {
            let inputs = layer.inputs.iter().map(|&v| rw.value(v)).collect();
            let origin = layer.origin.join(&node.origin);
            if !reshaped {
                return rw.add(Node { op, inputs, origin, ..node });
            }
            let layer = rw.new.push(op, inputs, layer.shape.clone(), origin);
            return rw.add(Node { op: Op::Reshape, inputs: vec![layer], origin: before.origin.clone(), ..node });
        }
        // [c] beside axis 1 of [n, c, …].
        let mut shape = vec![1; node.shape.len().saturating_sub(1)];
        shape[0] = a.len();
        let a = rw.new.constant(Tensor::new(shape.clone(), a));
        let b = rw.new.constant(Tensor::new(shape, b));
        let x = rw.value(source);
        let product = rw.new.push(Op::MulConst(a), vec![x], node.shape.clone(), node.origin.clone());
        rw.new.push(Op::AddConst(b), vec![product], node.shape, node.origin)
    })
}

/// `a = scale / √(variance + ε)` and `b = bias − a·mean`.
fn affine(
    g: &Graph,
    scale: ConstId,
    bias: ConstId,
    mean: ConstId,
    variance: ConstId,
    eps: f64,
) -> (Vec<f64>, Vec<f64>) {
    let [scale, bias, mean, variance] = [scale, bias, mean, variance].map(|c| g.tensor(c).values());
    let a: Vec<f64> = scale.iter().zip(variance).map(|(s, v)| s / (v + eps).sqrt()).collect();
    let b = bias.iter().zip(mean).zip(&a).map(|((b, m), a)| b - a * m).collect();
    (a, b)
}

/// New constants `a·weight` (row-wise) and `a·bias + b`.
fn scaled(
    rw: &mut Rewriter<'_>,
    g: &Graph,
    weight: ConstId,
    bias: Option<ConstId>,
    a: &[f64],
    b: &[f64],
) -> (ConstId, ConstId) {
    let w = g.tensor(weight);
    let row = w.len() / a.len().max(1);
    let values = w.values().iter().enumerate().map(|(i, v)| v * a[i / row]).collect();
    let offset = match bias {
        Some(bias) => g.tensor(bias).values().iter().zip(a).zip(b).map(|((x, a), b)| x * a + b).collect(),
        None => b.to_vec(),
    };
    let weight = rw.new.constant(Tensor::new(w.shape().to_vec(), values));
    (weight, rw.new.constant(Tensor::new(vec![b.len()], offset)))
}
