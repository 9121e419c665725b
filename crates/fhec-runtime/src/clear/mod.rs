//! Computes in the clear, with slots of f64: what the plan means, without encryption and without noise.
//!
//! Linear maps are evaluated from their loop nests and not by diagonals, so that this backend checks the
//! diagonals of the encrypted one instead of repeating their mistakes.

mod slots;
mod sparse;

pub use slots::Slots;

use crate::backend::{Backend, OpResult, Step};
use crate::error::{OpError, RuntimeError};
use fhec_math::Scale;
use fhec_math::chebyshev::clenshaw;
use fhec_plan::{Input, LinearTerm, MatrixId, Output, PolyId, VectorId, Verified};
use sparse::Rows;
use std::sync::OnceLock;

/// The clear backend. Inputs and outputs are row-major tensors in the units of the model. One backend serves any
/// number of runs, also at once.
#[derive(Debug)]
pub struct ClearBackend {
    matrices: Vec<OnceLock<Rows>>,
    vectors: Vec<OnceLock<Slots>>,
}

impl ClearBackend {
    /// A backend for runs of `verified`.
    pub fn new(verified: &Verified) -> Self {
        let plan = verified.plan();
        ClearBackend {
            matrices: plan.matrices.iter().map(|_| OnceLock::new()).collect(),
            vectors: plan.vectors.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// The rows of a matrix, made on first use.
    pub(crate) fn rows(&self, verified: &Verified, matrix: MatrixId) -> &Rows {
        let plan = verified.plan();
        self.matrices[matrix.index()].get_or_init(|| Rows::of(&plan.matrices[matrix.index()], &plan.weights))
    }

    pub(crate) fn vector(&self, verified: &Verified, vector: VectorId) -> &Slots {
        let plan = verified.plan();
        let v = &plan.vectors[vector.index()];
        self.vectors[vector.index()].get_or_init(|| Slots::new(v.period, v.values(&plan.weights).concat()))
    }
}

/// The slots of an input tensor, scaled as the client does.
pub(crate) fn pack(input: &Input, values: &[f64]) -> Result<Slots, RuntimeError> {
    let expected = input.layout.elements();
    if values.len() != expected {
        let (name, shape) = (input.name.clone(), input.shape.clone());
        return Err(RuntimeError::InputSize { name, found: values.len(), expected, shape });
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(RuntimeError::InputValue { name: input.name.clone(), index });
    }
    let scaled: Vec<f64> = values.iter().map(|v| v * input.factor).collect();
    Ok(Slots::new(input.layout.period, input.layout.pack(&scaled).concat()))
}

/// The output tensor in slots, scaled as the client does.
pub(crate) fn unpack(output: &Output, slots: &Slots) -> Vec<f64> {
    output.layout.positions().into_iter().map(|at| slots.global(at, output.layout.slots) * output.factor).collect()
}

impl Backend for ClearBackend {
    type Value = Slots;
    type Input = Vec<f64>;
    type Output = Vec<f64>;

    fn bytes(&self, value: &Slots) -> usize {
        value.len() * 8
    }

    fn input(&self, step: &Step, index: usize, value: Vec<f64>) -> OpResult<Slots> {
        pack(&step.verified.plan().inputs[index], &value).map_err(|e| OpError::Input(e.to_string()))
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
        let first = &step.verified.plan().matrices[terms[0].matrix.index()];
        let mut out = Slots::zero(first.out_period, first.out_ciphertexts);
        for (term, source) in terms.iter().zip(sources) {
            let in_period = step.verified.plan().matrices[term.matrix.index()].in_period;
            self.rows(step.verified, term.matrix).add_product(&source.extended(in_period), out.values_mut());
        }
        match bias {
            Some(bias) => Ok(out.zip(self.vector(step.verified, bias), |a, b| a + b)),
            None => Ok(out),
        }
    }

    fn polynomial(&self, step: &Step, a: &Slots, poly: PolyId, _: &Scale) -> OpResult<Slots> {
        let coefficients = &step.verified.plan().polynomials[poly.index()].chebyshev;
        Ok(a.map(|x| clenshaw(coefficients, x)))
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
