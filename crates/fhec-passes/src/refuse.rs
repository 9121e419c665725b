//! What cannot be compiled because of the model itself is refused here, all of it at once and before any time is
//! spent.

use crate::lower::Lowering;
use crate::rewrite::Rewriter;
use fhec_ir::nn::refusals::refusals;
use fhec_ir::nn::{Activation, Graph, Node, Op, Range};
use fhec_ir::{Diagnostic, Diagnostics};

/// Largest magnitude of a value: sums and products with weights are still floating-point numbers.
const LARGEST: f64 = 1e250;

/// Lists everything in a canonical graph that cannot be compiled, whatever the data and the options.
///
/// # Errors
/// One diagnostic per node: maximum pooling, softmax anywhere but last, and what packing does not know.
pub fn refuse_unsupported(graph: &Graph) -> Result<(), Diagnostics> {
    let mut found = refusals(graph);
    for other in Lowering::new(&stand_in(graph)).err().unwrap_or_default().0 {
        if !found.iter().any(|d| d.origin == other.origin && d.what == other.what) {
            found.push(other);
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Diagnostics(found)) }
}

/// Lists the nodes at which values leave what can be computed with, in a graph with ranges.
///
/// # Errors
/// One diagnostic per node whose range is not finite or too large while those of its operands are not.
pub fn refuse_unbounded(graph: &Graph) -> Result<(), Diagnostics> {
    let bounded = |node: &Node| node.range.is_none_or(|r| r.lo.abs() <= LARGEST && r.hi.abs() <= LARGEST);
    let first = |node: &&Node| !bounded(node) && node.inputs.iter().all(|&v| bounded(graph.node(v)));
    let diagnostic = |node: &Node| Diagnostic {
        origin: node.origin.clone(),
        what: node.op.name().into(),
        message: node.range.map_or_else(String::new, |r| format!("its values range from {:e} to {:e}", r.lo, r.hi)),
        help: "check the calibration data, or declare a smaller range of the inputs".into(),
    };
    let found: Vec<Diagnostic> = graph.nodes.iter().filter(first).map(diagnostic).collect();
    if found.is_empty() { Ok(()) } else { Err(Diagnostics(found)) }
}

/// The graph as it will be when it is lowered, as far as packing can tell: with ranges, and with polynomials for
/// activations.
fn stand_in(graph: &Graph) -> Graph {
    let interval = Range { lo: -1.0, hi: 1.0 };
    let mut out = Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        match node.op {
            Op::Activation(Activation::Power { .. }) => rw.keep(id),
            Op::Activation(_) => {
                let inputs = node.inputs.iter().map(|&v| rw.value(v)).collect();
                let op = Op::Polynomial { chebyshev: vec![0.0, 1.0], interval, label: node.op.name().into() };
                rw.add(Node { op, inputs, ..node.clone() })
            }
            _ => rw.keep(id),
        }
    });
    for node in &mut out.nodes {
        node.range = Some(interval);
    }
    out
}
