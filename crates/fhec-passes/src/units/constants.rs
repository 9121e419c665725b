//! Units that always have the same value become biases of the layers that read them.

use super::{Flow, count, flow, per_unit};
use crate::rewrite::Rewriter;
use fhec_ir::Tensor;
use fhec_ir::nn::{ConstId, Conv, Graph, Node, Op, ValueId, interpret};

/// The value of every unit that has the same one everywhere for every input.
type Known = Vec<Option<f64>>;

/// The graph in which no layer reads a constant unit, wherever that can be said exactly: its weights become zero and its
/// contribution a bias. A convolution that pads reads zeros beside the constant, so there only a constant zero goes.
pub(crate) fn fold(graph: &Graph) -> Graph {
    let mut known: Vec<Known> = vec![Vec::new(); graph.nodes.len()];
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        let operands: Vec<&Known> = node.inputs.iter().map(|v| &known[v.index()]).collect();
        if flow(graph, node) != Flow::Mixes {
            known[id.index()] = through(graph, node, &operands);
            return rw.keep(id);
        }
        let (made, own) = layer(rw, graph, id, operands[0]);
        known[id.index()] = own;
        made
    })
}

/// A dense layer or convolution that does not read constant units, and which of its own are constant.
fn layer(rw: &mut Rewriter<'_>, graph: &Graph, id: ValueId, operand: &Known) -> (ValueId, Known) {
    let node = graph.node(id);
    let (weight, bias, padded) = match &node.op {
        Op::Conv(conv) => (conv.weight, conv.bias, conv.pads != [0; 4]),
        Op::Dense { weight, bias } => (*weight, *bias, false),
        _ => return (rw.keep(id), vec![None; count(&node.shape)]),
    };
    let tensor = graph.tensor(weight);
    let (outputs, inputs) = (tensor.shape()[0], tensor.shape()[1]);
    let taps = tensor.shape()[2..].iter().product::<usize>().max(1);
    let mut weights = tensor.values().to_vec();
    let mut biases = bias.map_or(vec![0.0; outputs], |b| graph.tensor(b).values().to_vec());
    let mut changed = false;
    for (unit, value) in operand.iter().enumerate() {
        let Some(value) = value.filter(|&v| v == 0.0 || !padded) else { continue };
        for output in 0..outputs {
            let own = &mut weights[(output * inputs + unit) * taps..][..taps];
            if own.iter().any(|&w| w != 0.0) {
                biases[output] += value * own.iter().sum::<f64>();
                own.fill(0.0);
                changed = true;
            }
        }
    }
    let silent = |output: usize| weights[output * inputs * taps..][..inputs * taps].iter().all(|&w| w == 0.0);
    let own = (0..outputs).map(|o| silent(o).then_some(biases[o])).collect();
    if !changed {
        return (rw.keep(id), own);
    }
    let weight = rw.new.constant(Tensor::new(tensor.shape().to_vec(), weights));
    let bias = (bias.is_some() || biases.iter().any(|&b| b != 0.0))
        .then(|| rw.new.constant(Tensor::new(vec![outputs], biases)));
    let op = match &node.op {
        Op::Conv(conv) => Op::Conv(Conv { weight, bias, ..conv.clone() }),
        _ => Op::Dense { weight, bias },
    };
    let inputs = vec![rw.value(node.inputs[0])];
    (rw.add(Node { op, inputs, ..node.clone() }), own)
}

/// Constant units of a value that no layer with weights makes.
fn through(graph: &Graph, node: &Node, operands: &[&Known]) -> Known {
    let units = count(&node.shape);
    let unknown = vec![None; units];
    let constant = |c: &ConstId| per_unit(graph.tensor(*c), &node.shape);
    match (flow(graph, node), operands) {
        (Flow::Keeps, [x]) => match &node.op {
            Op::Activation(_) | Op::Polynomial { .. } => x.iter().map(|v| v.map(|v| scalar(node, v))).collect(),
            Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::ReduceMean { .. } => (*x).clone(),
            Op::AddConst(c) => match constant(c) {
                Some(c) => x.iter().zip(c).map(|(v, c)| v.map(|v| v + c)).collect(),
                None => unknown,
            },
            Op::MulConst(c) => match constant(c) {
                Some(c) => x.iter().zip(c).map(|(v, c)| if c == 0.0 { Some(0.0) } else { v.map(|v| v * c) }).collect(),
                None => x.iter().map(|v| v.filter(|&v| v == 0.0)).collect(),
            },
            // Where the divisor counts padding, only zeros stay what they are.
            Op::AveragePool(pool) if pool.counted_pads != [0; 4] => x.iter().map(|v| v.filter(|&v| v == 0.0)).collect(),
            Op::AveragePool(_) | Op::MaxPool(_) => (*x).clone(),
            _ => unknown,
        },
        (Flow::Keeps, [x, y]) => {
            let pair = |(x, y): (&Option<f64>, &Option<f64>)| match (&node.op, *x, *y) {
                (Op::Mul, Some(v), _) | (Op::Mul, _, Some(v)) if v == 0.0 => Some(0.0),
                (Op::Mul, Some(x), Some(y)) => Some(x * y),
                (Op::Add, Some(x), Some(y)) => Some(x + y),
                (Op::Sub, Some(x), Some(y)) => Some(x - y),
                _ => None,
            };
            x.iter().zip(*y).map(pair).collect()
        }
        (Flow::Flattens(k), [x]) => x.iter().flat_map(|v| std::iter::repeat_n(*v, k)).collect(),
        _ => unknown,
    }
}

/// An elementwise function of one number.
fn scalar(node: &Node, x: f64) -> f64 {
    interpret::eval(&node.op, &[&Tensor::scalar(x)], &[], &[]).values()[0]
}
