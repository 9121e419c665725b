//! The ciphertext graph: operations on packed tensors.
//!
//! A value is a *packed tensor*: one or more ciphertexts that share level and scale, and a
//! [`fhec_plan::Layout`] that says where each element is. Before levels are placed the graph has no
//! rescales and scales are absent; afterwards every node that chooses a scale states it, and the
//! verifier derives level, scale and degree of every value as facts that emission demands.

pub mod facts;
pub mod graph;
pub mod interpret;
mod print;
pub mod verify;

pub use graph::{Graph, Input, LinearTerm, Node, Op, Output, ValueId};
pub use interpret::{Slots, interpret, interpret_slots};
pub use verify::verify;
