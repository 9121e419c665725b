//! Layouts for images that share ciphertexts: there is one, a ciphertext per element, so all that is left of the choice is
//! its price, by which adjacent linear maps are merged or not.

use super::LinearCost;
use super::choose::{Choice, levels_left, matrix, nonlinear};
use super::classes::Classes;
use crate::lower::value::{Make, Skeleton};
use fhec_ir::Tensor;
use fhec_plan::{Layout, Matrix, Nest};

/// Products with scalars that a matrix between layouts of one slot takes; entries that several points hit count as often,
/// weights of zero not at all.
fn products(matrix: &Matrix, tensors: &[Tensor]) -> usize {
    let of = |nest: &Nest| {
        let values = nest.tensor.map(|t| tensors[t.index()].values()).filter(|v| v.contains(&0.0));
        if nest.guards.is_empty() && values.is_none() {
            return nest.points();
        }
        let mut count = 0;
        nest.for_each(|_, _, at| count += usize::from(values.is_none_or(|v| v[at as usize] != 0.0)));
        count
    };
    matrix.nests.iter().map(of).sum()
}

/// The layouts and what the network costs with them.
pub(crate) fn choose(skeleton: &Skeleton, classes: &Classes, cost: &LinearCost) -> Choice {
    let layouts: Vec<Layout> = classes.classes.iter().map(|class| Layout::batched(class.elements)).collect();
    let left = levels_left(skeleton);
    let mut total = 0.0;
    for id in skeleton.ids() {
        let own = &layouts[classes.class(id)];
        let make = &skeleton.get(id).make;
        let price = match make {
            Make::Map(affine) => {
                let term = |t| {
                    matrix(t, &layouts[classes.class(t.source)], own)
                        .map_or(f64::INFINITY, |m| products(&m, &skeleton.tensors) as f64)
                };
                cost.scalar * affine.terms.iter().map(term).sum::<f64>() + cost.output * own.ciphertexts as f64
            }
            other => nonlinear(other, cost) * own.ciphertexts as f64,
        };
        total += price * (left[id.0] + 3) as f64;
    }
    Choice { layouts, cost: total }
}
