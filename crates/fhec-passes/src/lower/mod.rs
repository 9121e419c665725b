//! Tensor graph to ciphertext graph.
//!
//! The walk (`build`) turns every maximal linear region into one affine map between held values, keeping
//! reshapes, transpositions, slices, constant factors and offsets symbolic: they end up in the layouts,
//! factors and biases of linear maps or in what the client multiplies by. Then layouts are chosen
//! ([`crate::layouts`]), and `emit` writes each map as loop nests over the slots.

mod build;
mod emit;
pub(crate) mod nests;
mod nonlinear;
mod ops;
pub(crate) mod value;

use crate::layouts::choose::{Choice, choose};
use crate::layouts::classes::Classes;
use crate::layouts::{LinearCost, batched};
use crate::rewrite::Rewriter;
use fhec_ir::{Diagnostics, he, nn};
use fhec_plan::{Layout, Nest};
use value::Skeleton;

/// A tensor graph after all tensor passes, ready to be packed for any number of slots.
#[derive(Clone, Debug)]
pub struct Lowering {
    skeleton: Skeleton,
    classes: Classes,
}

impl Lowering {
    /// Finds the linear regions of `graph`.
    ///
    /// # Errors
    /// Every operation that an earlier pass should have replaced or that packing does not know.
    pub fn new(graph: &nn::Graph) -> Result<Self, Diagnostics> {
        // What no output needs would only widen the choice of layouts.
        let live = Rewriter::run(graph, |rw, id| rw.keep(id));
        let skeleton = build::build(&live)?;
        let classes = Classes::of(&skeleton);
        Ok(Lowering { skeleton, classes })
    }

    fn choice(&self, slots: usize, cost: &LinearCost) -> Result<Choice, Diagnostics> {
        if slots == 1 {
            return Ok(batched::choose(&self.skeleton, &self.classes, cost));
        }
        choose(&self.skeleton, &self.classes, slots, cost)
    }

    /// The price of the best layouts for ciphertexts in which an image has `slots` slots, in units of `cost`.
    ///
    /// # Errors
    /// As [`Self::pack`].
    pub fn price(&self, slots: usize, cost: &LinearCost) -> Result<f64, Diagnostics> {
        Ok(self.choice(slots, cost)?.cost)
    }

    /// The ciphertext graph for ciphertexts in which an image has `slots` slots: a power of two, 1 where images share
    /// ciphertexts.
    ///
    /// # Errors
    /// A tensor that cannot be packed into such ciphertexts.
    pub fn pack(&self, slots: usize, cost: &LinearCost) -> Result<he::Graph, Diagnostics> {
        let choice = self.choice(slots, cost)?;
        emit::emit(&self.skeleton, &self.classes, &choice, slots)
    }
}

/// A linear map as its entries over row-major elements, and its constant part.
pub(crate) struct Entries {
    /// (output element, input element, weight); repeats add up.
    pub(crate) entries: Vec<(u32, u32, f64)>,
    /// Per output element.
    pub(crate) constant: Vec<f64>,
    /// Elements of the input.
    pub(crate) inputs: usize,
}

impl Lowering {
    /// The single map of a graph `input → map → output`, element by element; `None` for other graphs or more than `limit` entries.
    pub(crate) fn dense_entries(&self, limit: usize) -> Option<Entries> {
        let [input, map] = self.skeleton.packed.as_slice() else { return None };
        let value::Make::Map(affine) = &map.make else { return None };
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let slots = elements(&input.shape).max(elements(&map.shape)).next_power_of_two();
        let from = Layout::dense(elements(&input.shape), slots, slots);
        let to = Layout::dense(elements(&map.shape), slots, slots);
        let value = |nest: &Nest, at: i64| {
            nest.factor * nest.tensor.map_or(1.0, |t| self.skeleton.tensors[t.index()].values()[at as usize])
        };
        let mut entries = Vec::new();
        for term in &affine.terms {
            let nests = nests::nests(term, &from, &to)?;
            if nests.iter().map(Nest::points).sum::<usize>() > limit {
                return None;
            }
            for nest in &nests {
                nest.for_each(|row, col, at| entries.push((row as u32, col as u32, value(nest, at))));
            }
        }
        let mut constant = vec![0.0; elements(&map.shape)];
        for bias in &affine.biases {
            let nest = nests::bias_nests(bias, &vec![], &to);
            nest.for_each(|row, _, at| constant[row as usize] += value(&nest, at));
        }
        Some(Entries { entries, constant, inputs: elements(&input.shape) })
    }
}

/// Lowers `graph` for ciphertexts of `slots` slots (a power of two).
///
/// # Errors
/// As [`Lowering::new`] and [`Lowering::pack`].
pub fn lower(graph: &nn::Graph, slots: usize, cost: &LinearCost) -> Result<he::Graph, Diagnostics> {
    Lowering::new(graph)?.pack(slots, cost)
}
