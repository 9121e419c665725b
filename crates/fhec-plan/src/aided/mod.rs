//! Client-aided plans: what happens in rounds (nGraph-HE2 §5, "client-aided").
//!
//! The server evaluates what is linear, the client everything else. A plan in client-aided mode has several *rounds*: in
//! each the client sends ciphertexts, the server evaluates one segment of the program and answers with ciphertexts, which
//! the client decrypts. From what it knows by then the client computes, exactly, what it sends in a later round: the
//! *client functions*, a small graph of tensors ([`ClientStep`]). It is in the head of a plan, with the shapes of tensors and
//! the parameters of activations, but without any weight of a linear layer.
//!
//! Values of the server may live across rounds; which do follows from the program.

mod check;
mod lives;
mod op;
mod ports;

pub use lives::{Lives, Moment};
pub use op::{ClientOp, Window};

use crate::Postprocess;

/// Most rounds of a plan.
pub const MAX_ROUNDS: u32 = 1 << 12;

/// What a plan in client-aided mode says besides any other plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Aided {
    /// Rounds, at least one.
    pub rounds: u32,
    /// The first so many inputs of the plan are those of the network; all others are values that the client computes.
    pub network_inputs: usize,
    /// The client functions, operands before users.
    pub steps: Vec<ClientStep>,
    /// What is sent for each input of the plan.
    pub sends: Vec<Send>,
    /// The round whose answer holds each output of the plan.
    pub receives: Vec<u32>,
    /// The outputs of the network.
    pub results: Vec<ClientResult>,
}

/// One tensor that the client computes or receives.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientStep {
    /// How.
    pub op: ClientOp,
    /// Numbers of earlier steps.
    pub operands: Vec<u32>,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
}

/// What is encrypted for an input of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    /// Number of the step.
    pub step: u32,
    /// The round that it is sent in.
    pub round: u32,
}

/// An output of the network, known after the last round.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientResult {
    /// Name in the model.
    pub name: String,
    /// Number of the step.
    pub step: u32,
    /// Range of values seen in calibration, or derived.
    pub range: (f64, f64),
    /// Predicted standard deviation of the error, that of earlier rounds included.
    pub error_std: f64,
    /// What is left to do with the values.
    pub postprocess: Vec<Postprocess>,
}

impl Aided {
    /// The first round before which each step can be computed; steps that depend on the last answer have the number of rounds.
    /// Operands and outputs that do not exist count as known.
    pub fn available(&self) -> Vec<u32> {
        let mut known: Vec<u32> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let own = match step.op {
                ClientOp::Received(output) => self.receives.get(output).map_or(0, |r| r.saturating_add(1)),
                _ => 0,
            };
            let operands = step.operands.iter().filter_map(|&v| known.get(v as usize)).copied();
            let at = operands.fold(own, u32::max);
            known.push(at);
        }
        known
    }
}
