//! Merges adjacent linear operations: two maps become one and a level is saved.
//!
//! Always, because it costs nothing:
//! * zero padding into the window after it;
//! * constant factors and offsets into the columns of the layer after them.
//!
//! Where the price of the whole network falls (Orion lowers each operation on its own; merging is what its
//! successors add):
//! * window ∘ window: a pooling and a convolution, in either order, or two convolutions;
//! * dense ∘ (reshape ∘) any linear operation of one value.
//!
//! Weights are composed in f64 on the tensors, before anything is packed.

mod constants;
mod dense;
mod window;

pub(crate) use crate::lower::Entries;
pub(crate) use constants::{absorb, scale_columns, scale_conv};
pub(crate) use dense::{compose, entries};

use crate::layouts::LinearCost;
use crate::lower::Lowering;
use crate::rewrite::Rewriter;
use fhec_ir::nn::{Graph, Node, Op, ValueId};
use fhec_ir::{Diagnostics, Origin, Tensor};
use std::fmt;
use window::Window;

/// Most products that composing weights may take.
const MAX_PRODUCTS: usize = 200_000_000;

/// One merge that was considered.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The layers.
    pub origin: Origin,
    /// "Conv after AveragePool".
    pub what: String,
    /// Price of the network with two maps, in units of the cost model.
    pub before: f64,
    /// Price with one.
    pub after: f64,
}

impl Decision {
    /// True when the maps were merged.
    pub fn merged(&self) -> bool {
        self.after < self.before
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.merged() { "merged" } else { "kept apart" };
        write!(f, "{} ({}): cost {:.0} -> {:.0}, {verb}", self.what, self.origin, self.before, self.after)
    }
}

/// The graph after merging, and what was considered.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// The graph.
    pub graph: Graph,
    /// Decisions in the order in which they were taken.
    pub decisions: Vec<Decision>,
}

/// Merges linear operations of `graph`, priced for ciphertexts of `slots` slots.
///
/// # Errors
/// As [`Lowering::new`] and [`Lowering::price`]: prices are those of the lowered network.
pub fn merge_linear(graph: &Graph, slots: usize, cost: &LinearCost) -> Result<Merged, Diagnostics> {
    let mut graph = constants::absorb(graph);
    let mut decisions: Vec<Decision> = Vec::new();
    let mut refused: Vec<(Origin, Origin)> = Vec::new();
    let mut price = None;
    loop {
        let found = graph.ids().find_map(|outer| {
            let inner = source(&graph, outer)?;
            let names = (graph.node(inner).origin.clone(), graph.node(outer).origin.clone());
            if refused.contains(&names) {
                return None;
            }
            match merge(&graph, inner, outer) {
                Some(merged) => Some((inner, outer, merged)),
                None => {
                    refused.push(names);
                    None
                }
            }
        });
        let Some((inner, outer, merged)) = found else { break };
        let before = match price {
            Some(p) => p,
            None => Lowering::new(&graph)?.price(slots, cost)?,
        };
        let after = Lowering::new(&merged)?.price(slots, cost)?;
        let (a, b) = (graph.node(inner), graph.node(outer));
        let what = format!("{} after {}", b.op.name(), a.op.name());
        let decision = Decision { origin: a.origin.join(&b.origin), what, before, after };
        if decision.merged() {
            graph = merged;
            price = Some(after);
        } else {
            refused.push((a.origin.clone(), b.origin.clone()));
            price = Some(before);
        }
        decisions.push(decision);
    }
    Ok(Merged { graph, decisions })
}

/// The operation whose value node `outer` reads, seen through reshapes, if nothing else reads it.
fn source(graph: &Graph, outer: ValueId) -> Option<ValueId> {
    let users = graph.users();
    let node = graph.node(outer);
    if !matches!(node.op, Op::Conv(_) | Op::AveragePool(_) | Op::Dense { .. }) {
        return None;
    }
    let &[mut at] = node.inputs.as_slice() else { return None };
    loop {
        if users[at.index()].len() != 1 || graph.outputs.iter().any(|o| o.value == at) {
            return None;
        }
        match &graph.node(at).op {
            Op::Reshape if matches!(node.op, Op::Dense { .. }) => at = graph.node(at).inputs[0],
            _ => return Some(at),
        }
    }
}

/// `graph` with `inner` and `outer` as one operation; `None` when they are not of a kind that merges.
fn merge(graph: &Graph, inner: ValueId, outer: ValueId) -> Option<Graph> {
    let node = graph.node(outer);
    let origin = graph.node(inner).origin.join(&node.origin);
    let mut out = graph.clone();
    let from = *graph.node(inner).inputs.first()?;
    if let Op::Dense { weight, bias } = &node.op {
        let flat = graph.node(node.inputs[0]).shape.split_last()?.1.iter().all(|&e| e == 1);
        if !flat {
            return None;
        }
        let weight = graph.tensor(*weight);
        let map = dense::entries(graph, inner, MAX_PRODUCTS / weight.shape()[0].max(1))?;
        let (composed, mut sum) = dense::compose(weight, &map);
        if let Some(b) = bias {
            for (s, b) in sum.iter_mut().zip(graph.tensor(*b).values()) {
                *s += b;
            }
        }
        let weight = out.constant(composed);
        let bias = Some(out.constant(Tensor::new(vec![sum.len()], sum)));
        let flat = Node {
            op: Op::Reshape,
            inputs: vec![from],
            shape: [vec![1; node.shape.len() - 1], vec![map.inputs]].concat(),
            origin: Origin::default(),
            ..graph.node(from).clone()
        };
        // The inner operation's place becomes the reshape: it lies between its operand and its user.
        out.nodes[inner.index()] = flat;
        out.nodes[outer.index()] = Node { op: Op::Dense { weight, bias }, inputs: vec![inner], origin, ..node.clone() };
        return Some(compact(&out));
    }
    let (first, second) = (Window::of(graph, inner)?, Window::of(graph, outer)?);
    let merged = first.then(&second)?;
    if merged.weights() > 4 * (first.weights() + second.weights()) + (1 << 16) {
        return None;
    }
    let op = merged.op(&mut out);
    out.nodes[outer.index()] = Node { op, inputs: vec![from], origin, ..node.clone() };
    Some(compact(&out))
}

/// Drops dead nodes and constants, and reshapes of reshapes.
fn compact(graph: &Graph) -> Graph {
    Rewriter::run(graph, |rw, id| {
        let node = graph.node(id);
        match node.inputs.first().map(|&v| graph.node(v)) {
            Some(before) if node.op == Op::Reshape && before.op == Op::Reshape => {
                let inputs = vec![rw.value(before.inputs[0])];
                rw.add(Node { inputs, origin: before.origin.join(&node.origin), ..node.clone() })
            }
            _ => rw.keep(id),
        }
    })
}
