//! Computes in the clear, with slots of f64: what the plan means, without encryption and without noise.
//!
//! Linear maps are evaluated from their loop nests and not by diagonals, so that this backend checks the
//! diagonals of the encrypted one instead of repeating their mistakes.

mod product;
mod slots;

pub(crate) use product::row_norms;
pub use slots::Slots;

use crate::backend::{Backend, OpResult, Step};
use crate::error::{OpError, RuntimeError};
use fhec_math::Scale;
use fhec_math::chebyshev::clenshaw_all;
use fhec_plan::{Input, LinearTerm, Output, PolyId, VectorId, Verified};
use product::add_product;
use std::sync::OnceLock;

/// Evaluations that run fastest side by side: as many numbers as a vector register or two hold.
pub const LANES: usize = 8;

/// The clear backend. Inputs and outputs are row-major tensors in the units of the model, those of all lanes one after
/// the other. One backend serves any number of runs, also at once.
#[derive(Debug)]
pub struct ClearBackend {
    lanes: usize,
    vectors: Vec<OnceLock<Slots>>,
}

impl ClearBackend {
    /// A backend for runs of `verified`.
    pub fn new(verified: &Verified) -> Self {
        Self::with_lanes(verified, 1)
    }

    /// A backend that does `lanes` evaluations at once. The results are those of single ones, to the bit; the time is far
    /// less than theirs, the least for each with [`LANES`].
    ///
    /// # Panics
    /// For no lanes.
    pub fn with_lanes(verified: &Verified, lanes: usize) -> Self {
        assert!(lanes > 0, "nothing to evaluate");
        ClearBackend { lanes, vectors: verified.plan().vectors.iter().map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn vector(&self, verified: &Verified, vector: VectorId) -> &Slots {
        let plan = verified.plan();
        let v = &plan.vectors[vector.index()];
        self.vectors[vector.index()].get_or_init(|| Slots::new(v.period, v.values(&plan.weights).concat()))
    }
}

/// The slots of an input, scaled as the client does; `values` has a tensor for each lane.
pub(crate) fn pack(input: &Input, values: &[f64], lanes: usize) -> Result<Slots, RuntimeError> {
    let elements = input.layout.elements();
    let expected = elements * lanes;
    if values.len() != expected {
        let (name, shape) = (input.name.clone(), input.shape.clone());
        return Err(RuntimeError::InputSize { name, found: values.len(), expected, shape });
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(RuntimeError::InputValue { name: input.name.clone(), index });
    }
    let scaled: Vec<f64> = values.iter().map(|v| v * input.factor).collect();
    let lane = |lane: usize| input.layout.pack(&scaled[lane * elements..(lane + 1) * elements]).concat();
    Ok(Slots::interleave(input.layout.period, &(0..lanes).map(lane).collect::<Vec<_>>()))
}

/// The output tensors in slots, lane after lane, scaled as the client does.
pub(crate) fn unpack(output: &Output, slots: &Slots) -> Vec<f64> {
    let positions = output.layout.positions();
    let value = |lane: usize, at: usize| slots.global(at, output.layout.slots, lane) * output.factor;
    (0..slots.lanes()).flat_map(|lane| positions.iter().map(move |&at| value(lane, at))).collect()
}

impl Backend for ClearBackend {
    type Value = Slots;
    type Input = Vec<f64>;
    type Output = Vec<f64>;

    fn bytes(&self, value: &Slots) -> usize {
        value.len() * 8
    }

    fn input(&self, step: &Step, index: usize, value: Vec<f64>) -> OpResult<Slots> {
        pack(&step.verified.plan().inputs[index], &value, self.lanes).map_err(|e| OpError::Input(e.to_string()))
    }

    fn output(&self, step: &Step, index: usize, value: &Slots) -> OpResult<Vec<f64>> {
        Ok(unpack(&step.verified.plan().outputs[index], value))
    }

    fn linear_map(
        &self,
        step: &Step,
        terms: &[LinearTerm],
        sources: &[&Slots],
        bias: Option<VectorId>,
        _: &Scale,
    ) -> OpResult<Slots> {
        let plan = step.verified.plan();
        let first = &plan.matrices[terms[0].matrix.index()];
        let mut out = Slots::zero(first.out_period, first.out_ciphertexts, self.lanes);
        for (term, source) in terms.iter().zip(sources) {
            let matrix = &plan.matrices[term.matrix.index()];
            add_product(matrix, &plan.weights, self.lanes, &source.extended(matrix.in_period), out.values_mut());
        }
        match bias {
            Some(bias) => Ok(out.zip(self.vector(step.verified, bias), |a, b| a + b)),
            None => Ok(out),
        }
    }

    fn polynomial(&self, step: &Step, a: &Slots, poly: PolyId, _: &Scale) -> OpResult<Slots> {
        let coefficients = &step.verified.plan().polynomials[poly.index()].chebyshev;
        let mut out = a.clone();
        clenshaw_all(coefficients, out.values_mut());
        Ok(out)
    }

    fn add(&self, _: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        Ok(a.zip(b, |x, y| x + y))
    }

    fn sub(&self, _: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        Ok(a.zip(b, |x, y| x - y))
    }

    fn negate(&self, _: &Step, a: &Slots) -> OpResult<Slots> {
        Ok(a.map(|x| -x))
    }

    fn mul(&self, _: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        Ok(a.zip(b, |x, y| x * y))
    }

    fn mul_scalar(&self, _: &Step, a: &Slots, value: f64, _: &Scale) -> OpResult<Slots> {
        Ok(a.map(|x| x * value))
    }

    fn mul_vector(&self, step: &Step, a: &Slots, vector: VectorId, _: &Scale) -> OpResult<Slots> {
        Ok(a.zip(self.vector(step.verified, vector), |x, y| x * y))
    }

    fn add_scalar(&self, _: &Step, a: &Slots, value: f64) -> OpResult<Slots> {
        Ok(a.map(|x| x + value))
    }

    fn add_vector(&self, step: &Step, a: &Slots, vector: VectorId) -> OpResult<Slots> {
        Ok(a.zip(self.vector(step.verified, vector), |x, y| x + y))
    }

    fn rotate(&self, _: &Step, a: &Slots, steps: i64) -> OpResult<Slots> {
        Ok(a.rotated(steps))
    }

    fn relinearise(&self, _: &Step, a: &Slots) -> OpResult<Slots> {
        Ok(a.clone())
    }

    fn rescale(&self, _: &Step, a: &Slots) -> OpResult<Slots> {
        Ok(a.clone())
    }

    fn level_drop(&self, _: &Step, a: &Slots, _: usize) -> OpResult<Slots> {
        Ok(a.clone())
    }

    fn bootstrap(&self, _: &Step, a: &Slots, _: usize, _: &Scale) -> OpResult<Slots> {
        Ok(a.clone())
    }
}
