//! Operations that the graph can hold and the interpreter can run, but that no encrypted mode evaluates yet:
//! one rule and one wording for the importer and the compiler.

use super::{Graph, Op, ValueId};
use crate::Diagnostic;

/// Why maxima are refused.
pub const MAXIMUM: &str = "maxima of encrypted values are not available: a maximum is no polynomial";
/// What to do instead.
pub const MAXIMUM_HELP: &str = "train with AveragePool or strided convolutions, or compile with --mode client-aided: the client computes it exactly";

/// One diagnostic per node that cannot be evaluated: maximum pooling, and softmax unless nothing but reshapes
/// lie between it and the outputs, where the client computes it.
pub fn refusals(graph: &Graph) -> Vec<Diagnostic> {
    let users = graph.users();
    let check = |id: ValueId| {
        let node = graph.node(id);
        let (message, help) = match node.op {
            Op::MaxPool(_) => (MAXIMUM, MAXIMUM_HELP),
            Op::Softmax { axis } => misplaced_softmax(graph, &users, id, axis)?,
            _ => return None,
        };
        let (what, origin) = (node.op.name().into(), node.origin.clone());
        Some(Diagnostic { origin, what, message: message.into(), help: help.into() })
    };
    graph.ids().filter_map(check).collect()
}

fn misplaced_softmax(
    graph: &Graph,
    users: &[Vec<ValueId>],
    id: ValueId,
    axis: usize,
) -> Option<(&'static str, &'static str)> {
    let mut reached = vec![id];
    let mut several_axes = false;
    while let Some(at) = reached.pop() {
        if graph.outputs.iter().any(|o| o.value == at) {
            several_axes |= softmax_axis(&graph.node(id).shape, axis, &graph.node(at).shape).is_none();
        }
        for &user in &users[at.index()] {
            if graph.node(user).op != Op::Reshape {
                return Some((
                    "softmax is supported only as the last operation, where the client computes it after decryption",
                    "cut the model after its logits",
                ));
            }
            reached.push(user);
        }
    }
    several_axes.then_some((
        "the axis that softmax runs over is no axis of the output",
        "reshape the logits so that the classes are one axis, or cut the model after its logits",
    ))
}

/// The axis of `reshaped` that holds what axis `axis` of `shape` held in the same row-major order, so that a
/// softmax before the reshape is one after it; `None` when the reshape splits or merges it.
pub fn softmax_axis(shape: &[usize], axis: usize, reshaped: &[usize]) -> Option<usize> {
    let before = |shape: &[usize], axis: usize| shape[..axis].iter().product::<usize>();
    let (extent, lead) = (*shape.get(axis)?, before(shape, axis));
    (0..reshaped.len()).find(|&d| reshaped[d] == extent && before(reshaped, d) == lead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    #[test]
    fn an_axis_is_found_again_or_not() {
        assert_eq!(softmax_axis(&[1, 10], 1, &[1, 10, 1, 1]), Some(1));
        assert_eq!(softmax_axis(&[1, 10, 1, 1], 1, &[10]), Some(0));
        assert_eq!(softmax_axis(&[2, 3, 4], 1, &[2, 1, 3, 4]), Some(2));
        assert_eq!(softmax_axis(&[2, 3, 4], 1, &[6, 4]), None);
        assert_eq!(softmax_axis(&[1, 10], 1, &[1, 2, 5]), None);
        // The same extent at another place is another axis.
        assert_eq!(softmax_axis(&[2, 2], 1, &[2, 2]), Some(1));
    }

    #[test]
    fn only_reshapes_may_stand_behind_a_softmax() {
        let build = |last: &[usize], more: bool| {
            let mut g = Graph::default();
            let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 10], Origin::named("x"));
            let s = g.push(Op::Softmax { axis: 1 }, vec![x], vec![1, 10], Origin::named("s"));
            let mut y = g.push(Op::Reshape, vec![s], vec![1, 10, 1], Origin::named("r"));
            y = g.push(Op::Reshape, vec![y], last.to_vec(), Origin::named("r2"));
            if more {
                y = g.push(Op::Mul, vec![y, y], last.to_vec(), Origin::named("m"));
            }
            g.outputs.push(super::super::Output { name: "y".into(), value: y });
            refusals(&g).into_iter().map(|d| d.message).collect::<Vec<_>>()
        };
        assert!(build(&[10], false).is_empty());
        assert!(build(&[10], true)[0].contains("last operation"));
        assert!(build(&[2, 5], false)[0].contains("no axis"));
    }
}
