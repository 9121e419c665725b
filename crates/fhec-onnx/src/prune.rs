//! Drops what no output needs.

use fhec_ir::nn::{ConstId, Graph, Node, Op, Output, ValueId};

/// The graph without nodes and constants that no output depends on. Inputs stay: they are the model's
/// signature.
pub(crate) fn prune(graph: &Graph) -> Graph {
    let mut needed = vec![false; graph.nodes.len()];
    for output in &graph.outputs {
        needed[output.value.index()] = true;
    }
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id);
        needed[id.index()] |= matches!(node.op, Op::Input { .. });
        if needed[id.index()] {
            for input in &node.inputs {
                needed[input.index()] = true;
            }
        }
    }
    let mut pruned = Graph { name: graph.name.clone(), ..Graph::default() };
    let mut values = vec![ValueId(0); graph.nodes.len()];
    let mut constants: Vec<Option<ConstId>> = vec![None; graph.constants.len()];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let mut node: Node = graph.node(id).clone();
        for input in &mut node.inputs {
            *input = values[input.index()];
        }
        for constant in node.op.constants_mut() {
            let old = constant.index();
            *constant = *constants[old].get_or_insert_with(|| pruned.constant(graph.constants[old].clone()));
        }
        pruned.nodes.push(node);
        values[id.index()] = ValueId(pruned.nodes.len() as u32 - 1);
    }
    let output = |o: &Output| Output { name: o.name.clone(), value: values[o.value.index()] };
    pruned.outputs = graph.outputs.iter().map(output).collect();
    pruned
}
