//! What cannot be compiled because of the model itself is refused here, all of it at once and before any time is
//! spent.

use crate::lower::Lowering;
use crate::parameters::PRIME_MARGIN;
use crate::pipeline::RINGS;
use crate::rewrite::Rewriter;
use fhec_ir::nn::refusals::refusals;
use fhec_ir::nn::{Activation, Graph, Node, Op, Range};
use fhec_ir::{Diagnostic, Diagnostics};
use fhec_math::security::{SecurityLevel, max_log_qp};

/// Multiplications in a row of the cheapest activation polynomial, of degree 3.
const LEAST_ACTIVATION: u32 = 2;

/// Largest magnitude of a value: sums and products with weights are still floating-point numbers.
const LARGEST: f64 = 1e250;

/// Lists everything in a canonical graph that cannot be compiled, whatever the data and the options.
///
/// # Errors
/// One diagnostic per node: maximum pooling, softmax anywhere but last, more multiplications in a row than any
/// ring has levels for, and what packing does not know.
pub fn refuse_unsupported(graph: &Graph) -> Result<(), Diagnostics> {
    let mut found = refusals(graph);
    found.extend(too_deep(graph));
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

/// Levels of the longest chain of primes that any ring takes at the lowest security.
fn most_levels() -> u32 {
    let levels = |log_n| max_log_qp(SecurityLevel::Bits128, log_n).unwrap_or(0) / (log_n + PRIME_MARGIN);
    // One prime carries the result and one key switching.
    RINGS.map(levels).max().unwrap_or(0).saturating_sub(2)
}

/// The first node that has more multiplications before it than any ring has levels. Linear layers are not counted:
/// they may merge.
fn too_deep(graph: &Graph) -> Option<Diagnostic> {
    let most = most_levels();
    let mut depths: Vec<u32> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let before = node.inputs.iter().map(|v| depths[v.index()]).max().unwrap_or(0);
        let depth = before.saturating_add(own_depth(node));
        if depth > most {
            return Some(Diagnostic {
                origin: node.origin.clone(),
                what: node.op.name().into(),
                message: format!(
                    "the network is too deep: at least {depth} multiplications in a row up to here, and no secure \
                     encryption parameters allow more than {most}"
                ),
                help: "use fewer or lower powers and activations".into(),
            });
        }
        depths.push(depth);
    }
    None
}

/// Multiplications of ciphertexts in a row that an operation takes at least.
fn own_depth(node: &Node) -> u32 {
    let bits = |n: usize| n.next_power_of_two().ilog2();
    match &node.op {
        Op::Mul => 1,
        Op::Activation(Activation::Power { exponent }) => bits(*exponent as usize),
        Op::Activation(_) | Op::PRelu { .. } => LEAST_ACTIVATION,
        Op::Polynomial { chebyshev, .. } => bits(chebyshev.len()),
        _ => 0,
    }
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
