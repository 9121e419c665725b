//! Checks a tensor graph: the invariants are those of the module [`crate::nn`].

use super::graph::{Graph, Node, Op, ValueId};
use super::shape;
use crate::{Diagnostic, Diagnostics, Origin};
use std::collections::BTreeSet;

/// Checks every invariant of the graph and returns all violations, each naming its node.
pub fn verify(graph: &Graph) -> Result<(), Diagnostics> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for id in graph.ids() {
        let node = graph.node(id);
        if let Some(message) = node_problem(graph, id, node) {
            problems.push(problem(&node.origin, node.op.name(), format!("%{}: {message}", id.0)));
        }
        for message in constant_problems(graph, node) {
            problems.push(problem(&node.origin, node.op.name(), format!("%{}: {message}", id.0)));
        }
        if let Op::Input { name } = &node.op
            && !names.insert(name)
        {
            problems.push(problem(&node.origin, "Input", format!("two inputs are called '{name}'")));
        }
    }
    if graph.outputs.is_empty() {
        problems.push(problem(&Origin::default(), "graph", "no outputs".to_owned()));
    }
    let mut names = BTreeSet::new();
    for output in &graph.outputs {
        let origin = Origin::named(output.name.clone());
        if output.value.index() >= graph.nodes.len() {
            problems.push(problem(&origin, "output", format!("%{} does not exist", output.value.0)));
        }
        if !names.insert(&output.name) {
            problems.push(problem(&origin, "output", "two outputs have this name".to_owned()));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics(problems)) }
}

fn problem(origin: &Origin, what: &str, message: String) -> Diagnostic {
    Diagnostic { origin: origin.clone(), what: what.to_owned(), message, help: String::new() }
}

/// What is wrong with operands, shape or range of a node.
fn node_problem(graph: &Graph, id: ValueId, node: &Node) -> Option<String> {
    if let Some(late) = node.inputs.iter().find(|&&input| input >= id) {
        return Some(format!("operand %{} does not come before its user", late.0));
    }
    let inputs: Vec<&[usize]> = node.inputs.iter().map(|&v| graph.node(v).shape.as_slice()).collect();
    match shape::infer(&node.op, &inputs, &graph.constants, &node.shape) {
        Err(e) => return Some(e.to_string()),
        Ok(derived) if derived != node.shape => {
            return Some(format!("shape is {:?} and should be {derived:?}", node.shape));
        }
        Ok(_) => {}
    }
    match node.range {
        Some(r) if r.lo.is_nan() || r.hi.is_nan() || r.lo > r.hi => {
            Some(format!("range [{}, {}] is empty", r.lo, r.hi))
        }
        _ => None,
    }
}

/// Numbers that no computation can use: non-finite constants, a batch norm without a deviation.
fn constant_problems(graph: &Graph, node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for id in node.op.constants() {
        let Some(tensor) = graph.constants.get(id.index()) else { continue };
        if let Some(v) = tensor.values().iter().find(|v| !v.is_finite()) {
            found.push(format!("constant ${} contains {v}", id.0));
        }
    }
    if let Op::BatchNorm { variance, epsilon, .. } = &node.op
        && let Some(tensor) = graph.constants.get(variance.index())
        && let Some(v) = tensor.values().iter().find(|&&v| v.is_nan() || v + epsilon <= 0.0)
    {
        found.push(format!("variance {v} + epsilon {epsilon} is not positive"));
    }
    if let Op::Polynomial { chebyshev, .. } = &node.op
        && let Some(v) = chebyshev.iter().find(|v| !v.is_finite())
    {
        found.push(format!("coefficient {v}"));
    }
    found
}
