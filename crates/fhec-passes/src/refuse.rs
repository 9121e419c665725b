//! What no mode of the compiler can evaluate yet is refused here, all of it at once.

use fhec_ir::nn::{Graph, Op};
use fhec_ir::{Diagnostic, Diagnostics};

/// Lists every node that cannot be compiled for evaluation by the server alone.
///
/// # Errors
/// One diagnostic per such node: maximum pooling, and softmax anywhere but at an output.
pub fn refuse_unsupported(graph: &Graph) -> Result<(), Diagnostics> {
    let users = graph.users();
    let mut found = Vec::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let mut refuse = |what: &str, message: &str, help: &str| {
            found.push(Diagnostic {
                origin: node.origin.clone(),
                what: what.into(),
                message: message.into(),
                help: help.into(),
            });
        };
        match node.op {
            Op::MaxPool(_) => refuse(
                "MaxPool",
                "a maximum is no polynomial and cannot be evaluated on ciphertexts",
                "retrain with AveragePool, or with a strided convolution",
            ),
            Op::Softmax { .. } if !users[id.index()].is_empty() => refuse(
                "Softmax",
                "softmax is supported only as the last operation, where the client computes it after decryption",
                "cut the model after its logits",
            ),
            _ => {}
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Diagnostics(found)) }
}
