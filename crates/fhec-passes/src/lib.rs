//! The compiler's passes, from tensor graph to plan.
//!
//! A pass is a name and a pure function in a file of its own; the pipeline is a literal list that
//! reads top to bottom. Passes are deterministic: the same model, data and options give the same
//! bytes.

// Tensor graph to tensor graph.
pub mod approximate;
pub mod bound;
pub mod calibrate;
pub mod canonicalise;
pub mod fold_batch_norm;
pub mod merge_linear;
pub mod quadratics;
pub mod refuse;
mod rewrite;
pub mod sparsify;
pub mod units;

// Tensor graph to ciphertext graph.
pub mod layouts;
pub mod lower;

// Ciphertext graph to ciphertext graph: linear maps.
pub mod common_subexpressions;
mod compose;
pub mod plan_bsgs;

// Ciphertext graph to ciphertext graph: levels, scales, degrees.
mod he_rewrite;
pub mod levels;
pub mod placement;
pub mod relinearise;
pub mod rescale;
pub mod scales;

// Analyses and choices, and the plan.
pub mod aided;
pub mod auto;
pub mod bootstrap_price;
pub mod bootstrapped;
mod chain;
pub mod cost;
pub mod cost_file;
mod digits;
pub mod driver;
pub mod emit;
mod errors;
mod histogram;
mod joint;
mod magnitudes;
pub mod matrices;
pub mod mode;
pub mod noise;
mod packed;
pub mod parameters;
pub mod pipeline;
mod poly_noise;
pub mod pricing;
mod products;
pub mod report;
mod rings;
pub mod rotation_keys;
pub mod sensitivity;
pub mod shape;
mod solve;
pub mod stage;
mod streaming;

pub use aided::compile_aided;
pub use auto::compile_cheaper;
pub use cost_file::CostFile;
pub use mode::{Complex, Mode};
pub use parameters::Goal;
pub use pipeline::{CompileError, Compiled, Options, PRECISION_BITS, compile, compile_watched};
