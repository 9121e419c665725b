//! Places relinearisations, lazily: a sum of products is relinearised once.
//!
//! A product has degree 2. Sums, differences and negations keep it; whatever else consumes the value gets
//! it relinearised. Relinearisation comes *before* the rescale: dividing all three parts first would
//! round the part that multiplies s², which costs log2(√N) bits more than rounding two.

use crate::he_rewrite::Rebuild;
use fhec_ir::he::{Graph, Op, ValueId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The graph with relinearisations.
pub fn run(graph: &Graph) -> Graph {
    let degree2 = RefCell::new(vec![false; graph.nodes.len()]);
    let done = RefCell::new(BTreeMap::new());
    let settle = |b: &mut Rebuild<'_>, old: ValueId| -> ValueId {
        let value = b.value(old);
        if !degree2.borrow()[old.index()] {
            return value;
        }
        *done.borrow_mut().entry(value).or_insert_with(|| b.derive(Op::Relinearise, value))
    };
    Rebuild::run(
        graph,
        |b, id| {
            let node = b.old().node(id);
            let all = node.inputs.iter().all(|v| degree2.borrow()[v.index()]);
            let keeps = match node.op {
                Op::Add | Op::Sub | Op::Negate => all,
                _ => false,
            };
            let inputs = node.inputs.iter().map(|&v| if keeps { b.value(v) } else { settle(b, v) }).collect();
            degree2.borrow_mut()[id.index()] = keeps || matches!(node.op, Op::Mul);
            b.copy(id, inputs)
        },
        settle,
    )
}
