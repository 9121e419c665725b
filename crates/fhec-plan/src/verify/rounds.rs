//! Rounds of a program: which instructions the server can execute once the inputs of each have come.

use super::RegisterFacts;
use crate::{Aided, Op, Plan, PlanHead, Reg};
use std::collections::BTreeMap;
use std::ops::Range;

use super::parameters::check_complex;
use super::{Insecure, VerifyError, check_head};

/// Checks the client's part of a plan, where there is one.
pub(super) fn check_client(
    aided: Option<&Aided>,
    plan: (&[crate::Input], &[crate::Output]),
) -> Result<(), VerifyError> {
    aided.map_or(Ok(()), |aided| aided.check(plan.0, plan.1)).map_err(VerifyError::Client)
}

impl PlanHead {
    /// All that a client checks before it makes keys or encrypts.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self, insecure: Insecure) -> Result<(), VerifyError> {
        check_head(&self.parameters, &self.keys, &self.inputs, &self.outputs, insecure)?;
        check_complex(self.complex, &self.parameters, &self.inputs, &self.outputs)?;
        check_client(self.aided.as_ref(), (&self.inputs, &self.outputs))
    }
}

/// The instructions of every round. Each instruction belongs to the first round in which all that it depends on is there;
/// the program must be ordered by that.
pub(super) fn split(plan: &Plan) -> Result<Vec<Range<usize>>, VerifyError> {
    let rounds = plan.rounds();
    let mut of: BTreeMap<Reg, u32> = BTreeMap::new();
    let mut ends = vec![0usize; rounds as usize];
    let mut now = 0;
    for (number, instruction) in plan.instructions.iter().enumerate() {
        let wrong = |problem| VerifyError::Instruction {
            number,
            op: instruction.op.name(),
            layer: plan.layers.get(instruction.layer.index()).map_or_else(String::new, |l| l.name.clone()),
            problem,
        };
        let own = if let Op::Input(index) = instruction.op { plan.input_round(index) } else { 0 };
        let round = instruction.op.sources().iter().filter_map(|r| of.get(r)).fold(own, |a, &b| a.max(b));
        if round < now || round >= rounds {
            return Err(wrong(format!("it belongs to round {round} and comes in round {now} of {rounds}")));
        }
        if let Op::Output { output, .. } = instruction.op
            && plan.output_round(output) != round
        {
            return Err(wrong(format!("round {round}, the client expects it in {}", plan.output_round(output))));
        }
        now = round;
        ends[round as usize] = number + 1;
        of.insert(instruction.dst, round);
    }
    let mut begin = 0;
    let range = |end: usize| {
        let range = begin..end.max(begin);
        begin = range.end;
        range
    };
    Ok(ends.into_iter().map(range).collect())
}

/// Most bytes of registers that live on from one round to the next.
pub(super) fn kept_bytes(plan: &Plan, rounds: &[Range<usize>], registers: &BTreeMap<Reg, RegisterFacts>) -> u64 {
    let across = |boundary: usize| -> u64 {
        let kept = registers.values().filter(|f| f.written < boundary && f.last_read >= boundary);
        kept.map(|f| super::instructions::register_bytes(plan, f)).fold(0, u64::saturating_add)
    };
    let inner = rounds.len().saturating_sub(1);
    rounds[..inner].iter().map(|r| across(r.end)).max().unwrap_or(0)
}
