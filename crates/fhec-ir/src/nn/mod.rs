//! The tensor graph: what the model file means.
//!
//! Invariants, checked by [`verify()`]:
//! * operands come before users, so storage order is a topological order;
//! * every shape is static and is what [`shape::infer`] derives from the operands;
//! * every constant has the shape its user needs and finite values;
//! * input and output names are unique.
//!
//! The meaning is that of the f64 interpreter ([`Interpreter`]). The text form prints
//! ([`print`](mod@print)) and parses ([`parse`](mod@parse)).

pub mod graph;
pub mod interpret;
mod op;
pub mod parse;
pub mod print;
pub mod refusals;
pub mod shape;
pub mod verify;

pub use fhec_plan::Activation;
pub use graph::{ConstId, Conv, Distribution, Graph, Node, Op, Output, Pool, Range, ValueId};
pub use interpret::{InputError, Interpreter};
pub use verify::verify;
