//! Why a run, an encryption or a decryption failed.

use fhec_ckks::CkksError;
use std::path::PathBuf;

/// Why an operation of a backend failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The engine refused.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// A register holds something else than the operation takes; a verified plan does not do that.
    #[error("register holds {found}, {expected} expected")]
    Kind {
        /// What was expected.
        expected: &'static str,
        /// What the register holds.
        found: &'static str,
    },
    /// An input that does not fit the plan.
    #[error("{0}")]
    Input(String),
    /// What does not fit memory cannot be put on disk, or read from there.
    #[error("cannot spill to {}: {source}", folder.display())]
    Spill {
        /// The folder of the temporary file.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Why something failed, with its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// An instruction failed.
    #[error("instruction {number} ({op}, layer {layer:?}): {source}")]
    Instruction {
        /// Number, counted from 0.
        number: usize,
        /// Operation.
        op: &'static str,
        /// Layer it belongs to.
        layer: String,
        /// Why.
        source: OpError,
    },
    /// The number of inputs differs from the plan's.
    #[error("{found} inputs were given, the plan has {expected}")]
    InputCount {
        /// Given.
        found: usize,
        /// Of the plan.
        expected: usize,
    },
    /// An input tensor of the wrong size.
    #[error("input {name:?} has {found} values, shape {shape:?} needs {expected}")]
    InputSize {
        /// Name of the input.
        name: String,
        /// Values given.
        found: usize,
        /// Values needed.
        expected: usize,
        /// Shape in the plan.
        shape: Vec<usize>,
    },
    /// An input value that is infinite or not a number.
    #[error("input {name:?}: value {index} is not finite")]
    InputValue {
        /// Name of the input.
        name: String,
        /// Index of the value.
        index: usize,
    },
    /// A number of images that the plan has no room for.
    #[error("{found} images; a run of the plan takes 1 to {most}")]
    Batch {
        /// Given.
        found: usize,
        /// Most that fit.
        most: usize,
    },
    /// Ciphertexts that do not fit the input or output they are meant for.
    #[error("{name:?}: {problem}")]
    Ciphertexts {
        /// Name of the input or output.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such input or output.
    #[error("the plan has no {what} {index}")]
    NoPort {
        /// "input" or "output".
        what: &'static str,
        /// Index asked for.
        index: usize,
    },
    /// What should be gone on from is not what a run holds there.
    #[error("the run cannot go on from {0}")]
    Resume(String),
    /// A plan of several rounds was to be run at once.
    #[error(
        "the plan is evaluated in {0} rounds, with work for the client between them: use 'fhec serve' and 'fhec infer'"
    )]
    Rounds(u32),
    /// The evaluation keys lack something that the plan uses.
    #[error("the evaluation keys do not fit the plan: {0}")]
    Keys(String),
    /// Whoever watched the evaluation ended it.
    #[error("stopped")]
    Stopped,
    /// Memory for ciphertexts in which not even one step of the plan fits.
    #[error("the plan needs {needed} bytes for ciphertexts, allowed are {allowed}")]
    Memory {
        /// Least that suffices, bytes.
        needed: u64,
        /// Allowed, bytes.
        allowed: u64,
    },
    /// What does not fit memory between two rounds, or of the client's, cannot be put on disk, or read from there.
    #[error(transparent)]
    Spill(OpError),
    /// The plan claims no security level.
    #[error("the plan's parameters protect nothing; they are for tests")]
    Insecure,
    /// The engine refused.
    #[error(transparent)]
    Ckks(#[from] CkksError),
}

/// Result with the error of this crate.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;
