//! Cuts a network in two: a graph for the server, whose inputs and outputs are all that travels, and client functions.

use super::sides::{Side, Sides};
use fhec_ir::nn::{Graph, Node, Op, Output, Pool, Range, ValueId};
use fhec_ir::{Diagnostic, Diagnostics, Origin};
use fhec_plan::{Aided, ClientOp, ClientResult, ClientStep, Send, Window};
use std::collections::BTreeMap;

/// How much larger than expected a value may be before it can overflow: the client sees values that are larger than expected
/// and says so.
const ROOM: f64 = 2.0;

/// A network in two parts.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// The server's part: all that travels are inputs and outputs, the network's own inputs first.
    pub(crate) server: Graph,
    /// The client's part.
    pub(crate) aided: Aided,
    /// Who computes what.
    pub(crate) sides: Sides,
    /// The value that each input of the server's part has in the network.
    pub(crate) inputs: Vec<ValueId>,
}

/// A name that no input or output has.
fn unused(taken: &[String], wanted: String) -> String {
    let mut name = wanted;
    while taken.contains(&name) {
        name.push('_');
    }
    name
}

/// Cuts `graph`, whose values have ranges.
///
/// # Errors
/// When nothing is left for the server.
pub(crate) fn split(graph: &Graph) -> Result<Split, Diagnostics> {
    let sides = Sides::of(graph);
    if sides.received.is_empty() {
        return Err(Diagnostics(vec![Diagnostic {
            origin: Origin::default(),
            what: "model".into(),
            message: "it has no layer with weights: nothing is left for a server".into(),
            help: "evaluate it in the clear".into(),
        }]));
    }
    let named = |v: &ValueId| if let Op::Input { name } = &graph.node(*v).op { name.clone() } else { String::new() };
    let network = graph.inputs();
    let taken: Vec<String> = network.iter().map(named).chain(graph.outputs.iter().map(|o| o.name.clone())).collect();
    // The server's part.
    let mut server = Graph { name: graph.name.clone(), constants: graph.constants.clone(), ..Graph::default() };
    let mut here: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut inputs = Vec::new();
    for &id in &network {
        server.nodes.push(graph.node(id).clone());
        here.insert(id, ValueId(server.nodes.len() as u32 - 1));
        inputs.push(id);
    }
    for id in graph.ids() {
        let node = graph.node(id);
        if sides.of[id.index()] == Side::Server {
            let operands = node.inputs.iter().map(|v| here[v]).collect();
            let range = if sides.received.contains(&id) { node.range.map(roomy) } else { node.range };
            server.nodes.push(Node { inputs: operands, range, ..node.clone() });
        } else if sides.sent.iter().any(|(v, _)| *v == id) {
            let name = unused(&taken, format!("send.{}", inputs.len() - network.len()));
            server.nodes.push(Node { op: Op::Input { name }, inputs: vec![], ..node.clone() });
            inputs.push(id);
        } else {
            continue;
        }
        here.insert(id, ValueId(server.nodes.len() as u32 - 1));
    }
    let output = |(k, id): (usize, &ValueId)| Output {
        name: graph
            .outputs
            .iter()
            .find(|o| o.value == *id)
            .map_or_else(|| unused(&taken, format!("receive.{k}")), |o| o.name.clone()),
        value: here[id],
    };
    server.outputs = sides.received.iter().enumerate().map(output).collect();
    let aided = client(graph, &sides, &inputs)?;
    Ok(Split { server, aided, sides, inputs })
}

fn roomy(range: Range) -> Range {
    Range { lo: range.lo * ROOM, hi: range.hi * ROOM }
}

/// The client's part. Errors of results are not known yet.
fn client(graph: &Graph, sides: &Sides, inputs: &[ValueId]) -> Result<Aided, Diagnostics> {
    let mut steps: Vec<ClientStep> = Vec::new();
    let mut at: BTreeMap<ValueId, u32> = BTreeMap::new();
    let mut problems = Vec::new();
    let network = graph.inputs();
    for id in graph.ids() {
        let node = graph.node(id);
        let own = sides.of[id.index()] == Side::Client;
        let received = sides.received.iter().position(|v| *v == id);
        let op = match (own, received) {
            (true, _) => match network.iter().position(|v| *v == id) {
                Some(i) => ClientOp::Given(i),
                None => match operation(graph, node) {
                    Some(op) => op,
                    None => {
                        problems.push(Diagnostic {
                            origin: node.origin.clone(),
                            what: node.op.name().into(),
                            message: "the client cannot compute it".into(),
                            help: "write it with other operations".into(),
                        });
                        ClientOp::Reshape
                    }
                },
            },
            (false, Some(k)) => ClientOp::Received(k),
            (false, None) => continue,
        };
        let operands = if own { node.inputs.iter().map(|v| at[v]).collect() } else { vec![] };
        at.insert(id, steps.len() as u32);
        steps.push(ClientStep { op, operands, shape: node.shape.clone() });
    }
    if !problems.is_empty() {
        return Err(Diagnostics(problems));
    }
    let send = |id: &ValueId| Send {
        step: at[id],
        round: sides.sent.iter().find(|(v, _)| v == id).map_or(0, |(_, round)| *round),
    };
    let result = |o: &Output| {
        let range = graph.node(o.value).range.unwrap_or(Range { lo: -1.0, hi: 1.0 });
        ClientResult {
            name: o.name.clone(),
            step: at[&o.value],
            range: (range.lo, range.hi),
            error_std: 0.0,
            postprocess: vec![],
        }
    };
    Ok(Aided {
        rounds: sides.rounds,
        network_inputs: network.len(),
        sends: inputs.iter().map(send).collect(),
        receives: sides.received.iter().map(|v| sides.round[v.index()]).collect(),
        results: graph.outputs.iter().map(result).collect(),
        steps,
    })
}

fn window(p: &Pool) -> Window {
    Window { kernel: p.kernel, strides: p.strides, pads: p.pads, dilations: p.dilations }
}

/// A node as the client computes it; `None` for operations with weights.
fn operation(graph: &Graph, node: &Node) -> Option<ClientOp> {
    Some(match &node.op {
        Op::Activation(f) => ClientOp::Function(f.clone()),
        Op::Polynomial { chebyshev, interval, .. } => {
            ClientOp::Polynomial { chebyshev: chebyshev.clone(), interval: (interval.lo, interval.hi) }
        }
        Op::AddConst(c) => ClientOp::Affine { mul: 1.0, add: graph.tensor(*c).as_single()? },
        Op::MulConst(c) => ClientOp::Affine { mul: graph.tensor(*c).as_single()?, add: 0.0 },
        Op::Add => ClientOp::Add,
        Op::Sub => ClientOp::Sub,
        Op::Mul => ClientOp::Mul,
        Op::MaxPool(p) => ClientOp::MaxPool(window(p)),
        Op::AveragePool(p) => ClientOp::AveragePool { window: window(p), counted: p.counted_pads },
        Op::ReduceMean { axes, .. } => ClientOp::Sum { axes: axes.clone(), mean: true },
        Op::ReduceSum { axes, .. } => ClientOp::Sum { axes: axes.clone(), mean: false },
        Op::Reshape => ClientOp::Reshape,
        Op::Transpose { perm } => ClientOp::Transpose(perm.clone()),
        Op::Concat { axis } => ClientOp::Concat(*axis),
        Op::Slice { starts, steps } => ClientOp::Slice { starts: starts.clone(), steps: steps.clone() },
        Op::Pad { before, value, .. } => ClientOp::Pad { before: before.clone(), value: *value },
        Op::Softmax { axis } => ClientOp::Softmax(*axis),
        Op::Input { .. } | Op::Conv(_) | Op::Dense { .. } | Op::BatchNorm { .. } | Op::PRelu { .. } => return None,
    })
}
