//! Places rescales, lazily: one for each reduction.
//!
//! A product's scale is the product of its operands' scales and must be divided by a prime before the
//! value can be multiplied again. Linear maps and polynomials rescale themselves; for the others
//! the rescale is put off until a consumer needs it (nGraph-HE2 §4.1), so that a sum of products has one.
//! Where a sum mixes a product with a value that is none, the latter is multiplied by 1 at the scale that makes
//! both equal: a product with a scalar costs next to nothing, and the sum still needs just one rescale.

use crate::he_rewrite::Rebuild;
use fhec_ir::he::{Graph, Op, ValueId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Operands (number 0 or 1) of sums that must be multiplied by 1 although nothing else asks for it, because no
/// choice of scales makes the sum's operands equal; found by [`crate::scales::adapters`].
pub type Adapters = BTreeSet<(ValueId, usize)>;

/// The graph with rescales; scales stay unknown.
pub fn run(graph: &Graph, adapters: &Adapters) -> Graph {
    // Values that are products not yet rescaled, and the rescales made of them: one each.
    let pending = RefCell::new(vec![false; graph.nodes.len()]);
    let rescaled = RefCell::new(BTreeMap::new());
    let settle = |b: &mut Rebuild<'_>, old: ValueId| -> ValueId {
        let value = b.value(old);
        if !pending.borrow()[old.index()] {
            return value;
        }
        *rescaled.borrow_mut().entry(value).or_insert_with(|| b.derive(Op::Rescale, value))
    };
    Rebuild::run(
        graph,
        |b, id| {
            let node = b.old().node(id);
            let is_pending = |v: ValueId| pending.borrow()[v.index()];
            let (inputs, makes_pending) = match &node.op {
                Op::Add | Op::Sub => {
                    let adapted = [0, 1].map(|k| adapters.contains(&(id, k)));
                    let any = adapted.contains(&true) || node.inputs.iter().any(|&v| is_pending(v));
                    let operand = |(k, &v): (usize, &ValueId)| {
                        if any && (adapted[k] || !is_pending(v)) {
                            let value = settle(b, v);
                            b.derive(Op::MulScalar { value: 1.0, scale: None }, value)
                        } else {
                            b.value(v)
                        }
                    };
                    (node.inputs.iter().enumerate().map(operand).collect(), any)
                }
                Op::Negate | Op::AddScalar(_) | Op::AddVector(_) => {
                    (vec![b.value(node.inputs[0])], is_pending(node.inputs[0]))
                }
                op => {
                    let inputs = node.inputs.iter().map(|&v| settle(b, v)).collect();
                    (inputs, matches!(op, Op::Mul | Op::MulScalar { .. } | Op::MulVector { .. }))
                }
            };
            pending.borrow_mut()[id.index()] = makes_pending;
            b.copy(id, inputs)
        },
        settle,
    )
}
