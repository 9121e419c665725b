//! Whether the client's part of a plan is sound. The client checks it too: it comes from the server.

use super::{Aided, ClientOp, MAX_ROUNDS, op};
use crate::structure::{MAX_ELEMENTS, MAX_INSTRUCTIONS, MAX_PORTS};
use crate::{Input, Output, Postprocess};

/// Most elements of all tensors of the client together.
const MAX_CLIENT_ELEMENTS: u64 = 8 * MAX_ELEMENTS as u64;
/// Most elementary operations of all steps together.
const MAX_WORK: u64 = 1 << 36;

impl Aided {
    /// Checks the client's part against inputs and outputs of the plan: operands come before users and fit them, what is
    /// sent is known by then, every round sends and receives something.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, inputs: &[Input], outputs: &[Output]) -> Result<(), String> {
        let ensure = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
        ensure((1..=MAX_ROUNDS).contains(&self.rounds), "number of rounds")?;
        ensure(self.steps.len() <= MAX_INSTRUCTIONS, "too many steps")?;
        ensure(self.sends.len() == inputs.len(), "something else is sent than the plan has inputs")?;
        ensure(self.receives.len() == outputs.len(), "something else is received than the plan has outputs")?;
        ensure(self.network_inputs <= inputs.len(), "more inputs of the network than of the plan")?;
        self.check_steps(inputs, outputs)?;
        let known = self.available();
        for (i, (send, input)) in self.sends.iter().zip(inputs).enumerate() {
            let wrong = |what: &str| format!("input {i}: {what}");
            let step = self.steps.get(send.step as usize).ok_or_else(|| wrong("no such step"))?;
            ensure(step.shape == input.shape, "").map_err(|_| wrong("the step has another shape"))?;
            ensure(send.round < self.rounds, "").map_err(|_| wrong("no such round"))?;
            ensure(known[send.step as usize] <= send.round, "").map_err(|_| wrong("sent before it is known"))?;
            if i < self.network_inputs {
                ensure(step.op == ClientOp::Given(i), "").map_err(|_| wrong("not what the network is given"))?;
            }
        }
        ensure(self.receives.iter().all(|&r| r < self.rounds), "an output after the last round")?;
        for round in 0..self.rounds {
            let both = self.sends.iter().any(|s| s.round == round) && self.receives.contains(&round);
            ensure(both, "").map_err(|_| format!("round {round} has nothing to send or to receive"))?;
        }
        self.check_results()
    }

    fn check_steps(&self, inputs: &[Input], outputs: &[Output]) -> Result<(), String> {
        let (mut work, mut memory) = (0u64, 0u64);
        for (number, step) in self.steps.iter().enumerate() {
            let wrong = |what: String| format!("client step {number} ({}): {what}", step.op.name());
            let late = step.operands.iter().find(|&&v| v as usize >= number);
            if let Some(late) = late {
                return Err(wrong(format!("operand {late} does not come before it")));
            }
            let operands: Vec<&[usize]> =
                step.operands.iter().map(|&v| self.steps[v as usize].shape.as_slice()).collect();
            work = work.saturating_add(op::check(step, &operands).map_err(&wrong)?);
            memory = memory.saturating_add(op::elements(&step.shape).map_err(&wrong)? as u64);
            let named = match step.op {
                ClientOp::Given(i) => inputs.get(i).filter(|_| i < self.network_inputs).map(|p| &p.shape),
                ClientOp::Received(i) => outputs.get(i).map(|p| &p.shape),
                _ => Some(&step.shape),
            };
            if named != Some(&step.shape) {
                return Err(wrong("there is no such input or output of this shape".into()));
            }
        }
        if work > MAX_WORK || memory > MAX_CLIENT_ELEMENTS {
            return Err(format!("client functions of {work} operations and {memory} elements are too many"));
        }
        Ok(())
    }

    fn check_results(&self) -> Result<(), String> {
        if self.results.is_empty() || self.results.len() > MAX_PORTS {
            return Err(format!("{} results", self.results.len()));
        }
        for (i, result) in self.results.iter().enumerate() {
            let wrong = |what: &str| Err(format!("result {i} ({:?}): {what}", result.name));
            let Some(step) = self.steps.get(result.step as usize) else { return wrong("no such step") };
            if self.results[..i].iter().any(|other| other.name == result.name) {
                return wrong("the name is there twice");
            }
            let (lo, hi) = result.range;
            if !(lo <= hi && lo.is_finite() && hi.is_finite()) {
                return wrong("its range");
            }
            if !(result.error_std >= 0.0 && result.error_std.is_finite()) {
                return wrong("its error");
            }
            let axis = |Postprocess::Softmax { axis }: &Postprocess| *axis < step.shape.len();
            if result.postprocess.len() > 4 || !result.postprocess.iter().all(axis) {
                return wrong("its postprocessing");
            }
        }
        Ok(())
    }
}
