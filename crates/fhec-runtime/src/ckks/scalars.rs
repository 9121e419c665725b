//! Weights of plans whose images share ciphertexts: every one is a scalar. Maps are encoded at the level and scale of their
//! use when they are first used, and kept: they take about as much memory as the weights.

use crate::backend::{OpResult, Step};
use fhec_ckks::linear::{ScalarEntry, ScalarMap};
use fhec_ckks::{CkksError, Context};
use fhec_plan::{Diagonals, LinearTerm, Op, VectorId, Verified};
use num_complex::Complex64;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The encoded maps of a plan, by instruction; none where an image has all slots.
#[derive(Debug, Default)]
pub(super) struct Scalars {
    maps: BTreeMap<usize, OnceLock<Arc<ScalarMap>>>,
}

impl Scalars {
    /// No map encoded yet.
    pub(super) fn new(verified: &Verified) -> Self {
        let plan = verified.plan();
        let batched = plan.is_batched();
        let linear = |number: &usize| batched && matches!(plan.instructions[*number].op, Op::LinearMap { .. });
        let numbers = (0..plan.instructions.len()).filter(linear);
        Scalars { maps: numbers.map(|number| (number, OnceLock::new())).collect() }
    }

    /// The map of a linear map instruction, where its weights are scalars.
    pub(super) fn map(&self, context: &Context, step: &Step) -> OpResult<Option<Arc<ScalarMap>>> {
        let Some(cell) = self.maps.get(&step.number) else { return Ok(None) };
        if let Some(found) = cell.get() {
            return Ok(Some(Arc::clone(found)));
        }
        let Op::LinearMap { terms, out_scale, .. } = &step.instruction.op else { return Ok(None) };
        let verified = step.verified;
        let source = |term: &LinearTerm| verified.register(term.src);
        let level = source(&terms[0]).level;
        let scales = terms.iter().flat_map(|t| std::iter::repeat_n(source(t).scale.clone(), source(t).ciphertexts));
        let rows = rows(verified, terms, step.result.ciphertexts);
        let made = Arc::new(ScalarMap::new(context, level, scales.collect(), &rows, out_scale)?);
        Ok(Some(Arc::clone(cell.get_or_init(|| made))))
    }

    /// Encodes all maps.
    pub(super) fn prepare(&self, context: &Context, step: &Step) -> OpResult<()> {
        self.map(context, step).map(|_| ())
    }

    /// Bytes of the maps encoded so far.
    pub(super) fn bytes(&self) -> usize {
        self.maps.values().filter_map(OnceLock::get).map(|m| m.bytes()).sum()
    }

    /// Most bytes of sums that a map holds besides its inputs and results.
    pub(super) fn scratch_bytes(&self, verified: &Verified, context: &Context) -> usize {
        let of = |&number: &usize| {
            let result = Step::new(verified, number).result;
            ScalarMap::scratch_bytes(context, result.level + 1, result.ciphertexts)
        };
        self.maps.keys().map(of).max().unwrap_or(0)
    }
}

/// The weights of every output of a sum of maps; inputs are numbered term after term.
fn rows(verified: &Verified, terms: &[LinearTerm], outputs: usize) -> Vec<Vec<ScalarEntry>> {
    let plan = verified.plan();
    let mut all = vec![Vec::new(); outputs];
    let mut first = 0;
    for term in terms {
        let matrix = &plan.matrices[term.matrix.index()];
        let tensors = Diagonals::tensors(matrix, &plan.weights);
        let rows = verified.facts().diagonals(term.matrix).rows();
        let fill = |(number, out): (usize, &mut Vec<ScalarEntry>)| {
            let mut push = |input, weight| out.push(ScalarEntry { input: first + input, weight });
            rows.into_iter().for_each(|rows| rows.for_each(matrix, &tensors, number as u32, &mut push));
        };
        all.par_iter_mut().enumerate().for_each(fill);
        first += matrix.in_ciphertexts as u32;
    }
    all
}

/// The entries of a vector to be added, one a ciphertext: to both images of a slot where it has two.
pub(crate) fn summands(step: &Step, vector: VectorId) -> Vec<Complex64> {
    let both = |value| summand(step, value);
    self::vector(step, vector).into_iter().map(both).collect()
}

/// A number to be added, to both images of a slot where it has two.
pub(super) fn summand(step: &Step, value: f64) -> Complex64 {
    Complex64::new(value, if step.verified.plan().complex { value } else { 0.0 })
}

/// The entries of a vector, one a ciphertext.
pub(crate) fn vector(step: &Step, vector: VectorId) -> Vec<f64> {
    let plan = step.verified.plan();
    plan.vectors[vector.index()].values(&plan.weights).concat()
}

/// `f(item, scalar)` for every item with its entry of a vector, in parallel.
pub(crate) fn each<T: Sync, U: Send, S: Copy + Sync>(
    items: &[T],
    vector: &[S],
    f: impl Fn(&T, S) -> Result<U, CkksError> + Sync,
) -> OpResult<Vec<U>> {
    Ok(items.par_iter().zip(vector).map(|(item, &value)| f(item, value)).collect::<Result<_, CkksError>>()?)
}
