//! Linear layers as matrices over single elements, for modes in which every element has a ciphertext of its own.
//!
//! There a convolution is not cheaper than the dense layer with the same weights that are not zero, and a dense layer can
//! lose any single element. Poolings become one with the layer after them, so that its weights can make good for what is taken out.

use crate::merge_linear::{Entries, compose, entries};
use crate::rewrite::Rewriter;
use fhec_ir::nn::{ConstId, Graph, Node, Op, ValueId};
use fhec_ir::{Origin, Tensor};

/// Most weights of all layers together: what a plan carries, four bytes each, if nothing is taken out.
const MAX_WEIGHTS: usize = 1 << 23;

/// The graph over flat vectors, with dense layers only; `None` where it has operations that are not spelt so, or would get
/// too large.
pub fn unroll(graph: &Graph) -> Option<Graph> {
    let users = graph.users();
    let alone = |v: ValueId| users[v.index()].len() == 1 && graph.outputs.iter().all(|o| o.value != v);
    let mut weights = 0;
    for node in &graph.nodes {
        let ok = match &node.op {
            Op::Input { .. } | Op::Reshape | Op::Activation(_) | Op::Polynomial { .. } => true,
            Op::Conv(_) | Op::AveragePool(_) | Op::Dense { .. } | Op::ReduceMean { .. } | Op::ReduceSum { .. } => {
                let from = graph.node(node.inputs[0]);
                weights += elements(&node.shape) * elements(&from.shape);
                elements(&from.shape[..1]) == 1
            }
            Op::Add | Op::Sub | Op::Mul => node.inputs.iter().all(|&v| graph.node(v).shape == node.shape),
            Op::AddConst(_) | Op::MulConst(_) => graph.node(node.inputs[0]).shape == node.shape,
            _ => false,
        };
        if !ok || weights > MAX_WEIGHTS {
            return None;
        }
    }
    // Poolings that the layer after them takes in: their value stands for their operand's until then.
    let mut pooled: Vec<Option<(Entries, Origin)>> = graph.nodes.iter().map(|_| None).collect();
    let mut fits = true;
    let flat = Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let shape = vec![1, elements(&node.shape)];
        match &node.op {
            Op::Input { .. } => {
                let kept = rw.keep(id);
                rw.new.push(Op::Reshape, vec![kept], shape, node.origin.clone())
            }
            Op::Reshape => {
                pooled[id.index()] = pooled[node.inputs[0].index()].take();
                rw.value(node.inputs[0])
            }
            Op::Conv(_) | Op::AveragePool(_) | Op::Dense { .. } | Op::ReduceMean { .. } | Op::ReduceSum { .. } => {
                let Some(own) = entries(graph, id, MAX_WEIGHTS) else {
                    fits = false;
                    return rw.keep(id);
                };
                let x = rw.value(node.inputs[0]);
                let pool = !matches!(node.op, Op::Conv(_) | Op::Dense { .. });
                let before = pooled[node.inputs[0].index()].take();
                if pool && before.is_none() && alone(id) && read_by_layer(graph, &users, id) {
                    pooled[id.index()] = Some((own, node.origin.clone()));
                    return x;
                }
                let (weight, constant) = matrix(&own, elements(&node.shape));
                let (weight, bias, origin) = match before {
                    None => (weight, constant, node.origin.clone()),
                    Some((pool, origin)) => {
                        let (composed, added) = compose(&weight, &pool);
                        let bias = constant.iter().zip(added).map(|(a, b)| a + b).collect();
                        (composed, bias, origin.join(&node.origin))
                    }
                };
                let weight = rw.new.constant(weight);
                let bias = Some(rw.new.constant(Tensor::new(vec![shape[1]], bias)));
                rw.add(Node { op: Op::Dense { weight, bias }, inputs: vec![x], shape, origin, ..node.clone() })
            }
            op => {
                let op = match op {
                    Op::AddConst(c) => Op::AddConst(flattened(rw, graph, *c, node)),
                    Op::MulConst(c) => Op::MulConst(flattened(rw, graph, *c, node)),
                    other => other.clone(),
                };
                let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
                rw.add(Node { op, inputs, shape, ..node.clone() })
            }
        }
    });
    fits.then(|| with_outputs_of(flat, graph))
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Whether the one reader of a value, seen through reshapes, is a layer with weights.
fn read_by_layer(graph: &Graph, users: &[Vec<ValueId>], mut id: ValueId) -> bool {
    loop {
        let [user] = users[id.index()][..] else { return false };
        match graph.node(user).op {
            Op::Reshape if graph.outputs.iter().all(|o| o.value != user) => id = user,
            Op::Conv(_) | Op::Dense { .. } => return true,
            _ => return false,
        }
    }
}

/// Entries as a dense weight, and the constant part.
fn matrix(own: &Entries, outputs: usize) -> (Tensor, Vec<f64>) {
    let mut values = vec![0.0; outputs * own.inputs];
    for &(row, column, weight) in &own.entries {
        values[row as usize * own.inputs + column as usize] += weight;
    }
    (Tensor::new(vec![outputs, own.inputs], values), own.constant.clone())
}

/// A constant as one entry for each element of the node.
fn flattened(rw: &mut Rewriter<'_>, graph: &Graph, c: ConstId, node: &Node) -> ConstId {
    let whole = graph.tensor(c).broadcast(&node.shape).expect("the graph was verified");
    rw.new.constant(whole.reshaped(vec![1, elements(&node.shape)]))
}

/// The outputs in their own shapes again.
fn with_outputs_of(mut flat: Graph, graph: &Graph) -> Graph {
    for (i, output) in graph.outputs.iter().enumerate() {
        let (value, shape) = (flat.outputs[i].value, graph.node(output.value).shape.clone());
        let origin = flat.node(value).origin.clone();
        if flat.node(value).shape != shape {
            flat.outputs[i].value = flat.push(Op::Reshape, vec![value], shape, origin);
        }
    }
    flat
}
