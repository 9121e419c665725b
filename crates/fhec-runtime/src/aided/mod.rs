//! Client-aided plans: the client's values between rounds, and whole networks in the clear.
//!
//! [`Play`] is what a client knows of one image: the inputs, what it has decrypted so far, and everything that it computes
//! from these ([`fhec_plan::aided`]). It is used by [`Client`](crate::Client) between decryption and encryption, and by
//! [`evaluate`], which plays both parts of a plan on a backend that computes in the clear. [`Batch`] is the same for many images that
//! share ciphertexts, whose values need not fit memory.

mod batch;
mod elements;
mod eval;
mod origins;

pub use batch::Batch;

use crate::backend::Backend;
use crate::driver::Execution;
use crate::error::{Result, RuntimeError};
use eval::{Operand, eval};
use fhec_plan::{Aided, ClientOp, Input, Verified};

/// The client's tensors of one image.
#[derive(Clone, Debug)]
pub struct Play<'a> {
    aided: &'a Aided,
    /// By step; dropped once nothing needs them any more.
    values: Vec<Option<Vec<f64>>>,
    /// The round before which each step is known, and the last one that needs it.
    known: Vec<u32>,
    needed: Vec<u32>,
}

impl<'a> Play<'a> {
    /// The client of a plan that was checked ([`Aided::check`]), with the inputs of the network: a row-major tensor each.
    ///
    /// # Errors
    /// [`RuntimeError::InputCount`], [`RuntimeError::InputSize`], [`RuntimeError::InputValue`].
    pub fn new(aided: &'a Aided, inputs: &[Input], given: &[Vec<f64>]) -> Result<Self> {
        let own = inputs.get(..aided.network_inputs);
        let count = RuntimeError::InputCount { found: given.len(), expected: aided.network_inputs };
        check_inputs(own.ok_or(count)?, given)?;
        let known = aided.available();
        let mut needed = known.clone();
        for (step, &round) in aided.steps.iter().zip(&known) {
            for &v in &step.operands {
                needed[v as usize] = round.max(needed[v as usize]);
            }
        }
        for send in &aided.sends {
            let needed = &mut needed[send.step as usize];
            *needed = send.round.max(*needed);
        }
        for result in &aided.results {
            needed[result.step as usize] = u32::MAX;
        }
        let of = |op: &ClientOp| if let ClientOp::Given(i) = op { given.get(*i).cloned() } else { None };
        let values = aided.steps.iter().map(|step| of(&step.op)).collect();
        Ok(Play { aided, values, known, needed })
    }

    /// Takes the decrypted values of output number `output` of the plan.
    pub fn receive(&mut self, output: usize, values: &[f64]) {
        for (step, value) in self.aided.steps.iter().zip(&mut self.values) {
            if step.op == ClientOp::Received(output) {
                *value = Some(values.to_vec());
            }
        }
    }

    /// Computes all that is known before `round`, and drops what is needed no more; after the last answer `round` is the
    /// number of rounds.
    pub fn advance(&mut self, round: u32) {
        for (number, step) in self.aided.steps.iter().enumerate() {
            if self.known[number] <= round && self.needed[number] >= round && self.values[number].is_none() {
                let operand = |&v: &u32| -> Option<Operand<'_>> {
                    Some((self.values[v as usize].as_deref()?, &self.aided.steps[v as usize].shape[..]))
                };
                let operands: Option<Vec<Operand<'_>>> = step.operands.iter().map(operand).collect();
                // Nothing was received for it: it stays unknown.
                let Some(operands) = operands.filter(|o| !o.is_empty()) else { continue };
                let made = eval(&step.op, &operands, &step.shape);
                self.values[number] = Some(made);
            }
        }
        for (value, &needed) in self.values.iter_mut().zip(&self.needed) {
            if needed < round {
                *value = None;
            }
        }
    }

    fn value(&self, step: u32) -> Result<&[f64]> {
        let value = self.values.get(step as usize).and_then(Option::as_deref);
        value.ok_or_else(|| RuntimeError::Resume(format!("client step {step}, for which nothing was received")))
    }

    /// What is to be encrypted for input number `input` of the plan.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Resume`] where a round was left out.
    pub fn input(&self, input: usize) -> Result<&[f64]> {
        let send = self.aided.sends.get(input).ok_or(RuntimeError::NoPort { what: "input", index: input })?;
        self.value(send.step)
    }

    /// Output number `result` of the network, without its postprocessing.
    ///
    /// # Errors
    /// [`RuntimeError::NoPort`], [`RuntimeError::Resume`] where a round was left out.
    pub fn result(&self, result: usize) -> Result<&[f64]> {
        let result = self.aided.results.get(result).ok_or(RuntimeError::NoPort { what: "output", index: result })?;
        self.value(result.step)
    }
}

/// Checks that an image has a tensor for every input of a network, each of the right size and of finite numbers.
fn check_inputs(inputs: &[Input], given: &[Vec<f64>]) -> Result<()> {
    if given.len() != inputs.len() {
        return Err(RuntimeError::InputCount { found: given.len(), expected: inputs.len() });
    }
    for (input, values) in inputs.iter().zip(given) {
        let (name, shape) = (input.name.clone(), input.shape.clone());
        let expected = input.layout.elements();
        if values.len() != expected {
            return Err(RuntimeError::InputSize { name, found: values.len(), expected, shape });
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(RuntimeError::InputValue { name, index });
        }
    }
    Ok(())
}

/// Runs the network of a plan on a backend that computes in the clear, the client's part included: `inputs` has for each
/// input of the network the tensors of `lanes` images one after the other, and so has the result for each output, before
/// postprocessing.
///
/// # Errors
/// As [`run`](crate::run()), and those of [`Play`].
pub fn evaluate<B>(verified: &Verified, backend: &B, inputs: Vec<Vec<f64>>, lanes: usize) -> Result<Vec<Vec<f64>>>
where
    B: Backend<Input = Vec<f64>, Output = Vec<f64>>,
{
    let plan = verified.plan();
    let Some(aided) = &plan.aided else {
        return Ok(crate::run(verified, backend, inputs, &mut |_| {})?.outputs);
    };
    let lanes = lanes.max(1);
    let image = |lane: usize| -> Result<Play<'_>> {
        let part = |values: &Vec<f64>| {
            let size = values.len() / lanes;
            values[lane * size..(lane + 1) * size].to_vec()
        };
        Play::new(aided, &plan.inputs, &inputs.iter().map(part).collect::<Vec<_>>())
    };
    let mut plays = (0..lanes).map(image).collect::<Result<Vec<_>>>()?;
    let mut execution = Execution::in_rounds(verified, backend);
    for round in 0..aided.rounds {
        plays.iter_mut().for_each(|play| play.advance(round));
        for index in (0..plan.inputs.len()).filter(|&i| plan.input_round(i) == round) {
            let mut joined = Vec::new();
            for play in &plays {
                joined.extend_from_slice(play.input(index)?);
            }
            execution.give(index, joined);
        }
        execution.run_round(round, &mut |_| {})?;
        for index in (0..plan.outputs.len()).filter(|&i| plan.output_round(i) == round) {
            let Some(values) = execution.take_output(index) else { continue };
            let size = values.len() / lanes;
            for (play, values) in plays.iter_mut().zip(values.chunks(size.max(1))) {
                play.receive(index, values);
            }
        }
    }
    plays.iter_mut().for_each(|play| play.advance(aided.rounds));
    (0..aided.results.len())
        .map(|k| {
            let mut joined = Vec::new();
            for play in &plays {
                joined.extend_from_slice(play.result(k)?);
            }
            Ok(joined)
        })
        .collect()
}
