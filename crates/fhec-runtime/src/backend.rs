//! What a backend must be able to do.

use crate::error::OpError;
use fhec_math::Scale;
use fhec_plan::{Instruction, LinearTerm, PolyId, RegisterFacts, VectorId, Verified};

/// Result of one operation.
pub type OpResult<T> = Result<T, OpError>;

/// The instruction being executed, with what the verifier found out about it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The plan and its facts.
    pub verified: &'a Verified,
    /// Number of the instruction.
    pub number: usize,
    /// The instruction.
    pub instruction: &'a Instruction,
    /// Facts of the register it writes.
    pub result: &'a RegisterFacts,
}

impl<'a> Step<'a> {
    /// The step of instruction `number`.
    ///
    /// # Panics
    /// When the plan has no such instruction.
    pub fn new(verified: &'a Verified, number: usize) -> Self {
        let instruction = &verified.plan().instructions[number];
        Step { verified, number, instruction, result: verified.register(instruction.dst) }
    }
}

/// Executes operations on packed tensors. One method per operation of [`fhec_plan::Op`]; each gets the
/// step it belongs to, and must give a value with the facts of [`Step::result`].
///
/// Backends differ in what a packed tensor is: ciphertexts, slot values, slot values with modelled noise,
/// or nothing at all when only operations are counted.
pub trait Backend: Sync {
    /// A packed tensor.
    type Value: Clone + Send + Sync;
    /// What an input is given as.
    type Input;
    /// What an output is returned as.
    type Output;

    /// Bytes that a value holds.
    fn bytes(&self, value: &Self::Value) -> usize;

    /// Input number `index`.
    ///
    /// # Errors
    /// Where `value` does not fit the plan.
    fn input(&self, step: &Step, index: usize, value: Self::Input) -> OpResult<Self::Value>;

    /// Output number `index`.
    ///
    /// # Errors
    /// Those of the backend, here and in all other methods.
    fn output(&self, step: &Step, index: usize, value: &Self::Value) -> OpResult<Self::Output>;

    /// `Σ matrix·source + bias`, rescaled.
    fn linear_map(
        &self,
        step: &Step,
        terms: &[LinearTerm],
        sources: &[&Self::Value],
        bias: Option<VectorId>,
        out_scale: &Scale,
    ) -> OpResult<Self::Value>;

    /// A Chebyshev polynomial of every slot.
    fn polynomial(&self, step: &Step, a: &Self::Value, poly: PolyId, out_scale: &Scale) -> OpResult<Self::Value>;

    /// `a + b`.
    fn add(&self, step: &Step, a: &Self::Value, b: &Self::Value) -> OpResult<Self::Value>;

    /// `a − b`.
    fn sub(&self, step: &Step, a: &Self::Value, b: &Self::Value) -> OpResult<Self::Value>;

    /// `−a`.
    fn negate(&self, step: &Step, a: &Self::Value) -> OpResult<Self::Value>;

    /// `a · b`, of degree 2.
    fn mul(&self, step: &Step, a: &Self::Value, b: &Self::Value) -> OpResult<Self::Value>;

    /// `a²`, of degree 2.
    fn square(&self, step: &Step, a: &Self::Value) -> OpResult<Self::Value> {
        self.mul(step, a, a)
    }

    /// `a · value`.
    fn mul_scalar(&self, step: &Step, a: &Self::Value, value: f64, scale: &Scale) -> OpResult<Self::Value>;

    /// `a · vector`, slot by slot.
    fn mul_vector(&self, step: &Step, a: &Self::Value, vector: VectorId, scale: &Scale) -> OpResult<Self::Value>;

    /// `a + value`.
    fn add_scalar(&self, step: &Step, a: &Self::Value, value: f64) -> OpResult<Self::Value>;

    /// `a + vector`, slot by slot.
    fn add_vector(&self, step: &Step, a: &Self::Value, vector: VectorId) -> OpResult<Self::Value>;

    /// Left rotation of the slots of every ciphertext.
    fn rotate(&self, step: &Step, a: &Self::Value, steps: i64) -> OpResult<Self::Value>;

    /// Degree 2 to degree 1.
    fn relinearise(&self, step: &Step, a: &Self::Value) -> OpResult<Self::Value>;

    /// Division by the last prime.
    fn rescale(&self, step: &Step, a: &Self::Value) -> OpResult<Self::Value>;

    /// Both in one, where the rescale is the only reader of the relinearised value. `relinearise` is the step of the first,
    /// `rescale` that of the second.
    fn relinearise_rescale(&self, relinearise: &Step, rescale: &Step, a: &Self::Value) -> OpResult<Self::Value> {
        self.rescale(rescale, &self.relinearise(relinearise, a)?)
    }

    /// A product, its relinearisation and its rescale, where nothing else reads what is between. `steps` are those of the three.
    fn multiply_rescale(&self, steps: [&Step; 3], a: &Self::Value, b: &Self::Value) -> OpResult<Self::Value> {
        let [product, relinearise, rescale] = steps;
        let same = matches!(product.instruction.op, fhec_plan::Op::Mul(x, y) if x == y);
        let value = if same { self.square(product, a)? } else { self.mul(product, a, b)? };
        self.relinearise_rescale(relinearise, rescale, &value)
    }

    /// Limbs dropped down to `level`.
    fn level_drop(&self, step: &Step, a: &Self::Value, level: usize) -> OpResult<Self::Value>;

    /// The same values at a higher level.
    fn bootstrap(&self, step: &Step, a: &Self::Value, level: usize, out_scale: &Scale) -> OpResult<Self::Value>;
}
