//! The shape of a bootstrap: which matrices it multiplies with, at which levels, by which rotations.
//!
//! Here is what the compiler, the verifier of plans and the engine must agree on. The engine's module of the same name
//! does the work and explains it.
//!
//! A *slots-to-coefficients* bootstrap (2020/1203 turned around) is, from an input to its result: matrices to coefficients at
//! the lowest levels, in a smaller ring where vectors repeat; the raise to the top of the chain; matrices to slots; for vectors that
//! repeat, a trace; EvalMod.

mod circuit;
mod error;
mod low_ring;
mod split;
mod tail;

pub use circuit::{BootstrapSpec, Group, KeyLevels, Matrix, groups, groups_of_levels};
pub use low_ring::{LowKeys, LowRing};
pub use tail::{log2_failure, log2_overflow_of_coefficient, probability};
