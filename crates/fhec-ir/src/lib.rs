//! The compiler's two graphs.
//!
//! * [`nn`]: tensor operations with shapes – what the model file means.
//! * [`he`]: operations on packed ciphertexts. Linear maps and polynomials stay whole, because their
//!   fast form is an algorithm and not a list of small steps.
//!
//! Both are closed enums in an arena with typed ids, operands before users, so storage order is a
//! topological order. Every node keeps its [`Origin`] through every pass, so an error, an explain line
//! and a runtime trace can name the layer. Every graph has an interpreter in f64: the meaning against
//! which passes are tested.

pub mod he;
pub mod matmul;
pub mod nn;
pub mod origin;
pub mod tensor;

pub use origin::{Diagnostic, Diagnostics, Origin};
pub use tensor::Tensor;
