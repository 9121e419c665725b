//! The plan: the one contract between model owner, client and server.
//!
//! A plan holds everything the three parties must agree on: encryption parameters, key manifest,
//! where tensor elements live in ciphertexts ([`Layout`]), the instructions, the weights and a report
//! of what the compiler predicted. It is written by the compiler, checked by an independent verifier
//! before anything runs, and read by client (header, inputs, outputs) and server (all of it).
//!
//! | module | idea |
//! | --- | --- |
//! | [`layout`] | tensor element → (ciphertext, slot) |
//! | [`matrix`] | linear maps as affine loop nests over weights; diagonals enumerated symbolically |
//! | [`program`] | the plan itself: parameters, registers, instructions, report |
//! | [`keys`] | the evaluation keys that it needs |
//! | [`weights`] | the weight tensors, memory-mapped |
//! | [`stream`] | the order in which a throughput plan is evaluated with few ciphertexts in memory |
//! | [`aided`] | client-aided plans: rounds, and what the client computes between them |

pub mod activation;
pub mod aided;
mod batch;
pub mod error;
pub mod fused;
pub mod keys;
pub mod layout;
pub mod linear;
pub mod matrix;
pub mod print;
pub mod program;
pub mod stream;
pub mod structure;
pub mod verify;
pub mod weights;
pub mod wire;

pub use activation::Activation;
pub use aided::{Aided, ClientOp, ClientResult, ClientStep, Send, Window};
pub use batch::LOG2_PARTS;
pub use error::{PlanError, Section};
pub use fused::Fused;
pub use keys::{Composed, KeyManifest};
pub use layout::{Layout, LayoutDim, Offsets};
pub use matrix::{DiagonalKey, Diagonals, Guard, Matrix, Nest, NestDim, NestWeights, Rows, Vector};
pub use program::*;
pub use verify::{Facts, Insecure, RegisterFacts, Verified, VerifyError};
pub use weights::{Dtype, TensorInfo, Weights};
pub use wire::{PlanHead, SharedBytes};

/// Index newtypes: a `MatrixId` can never be taken for a `VectorId`.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);
        impl $name {
            /// The id as an index into its table.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}
id!(
    /// A weight tensor of the plan.
    TensorId
);
id!(
    /// A linear map of the plan.
    MatrixId
);
id!(
    /// A plaintext vector of the plan.
    VectorId
);
id!(
    /// A polynomial of the plan.
    PolyId
);
id!(
    /// A layer of the source model, for messages and traces.
    LayerId
);
id!(
    /// A register: one packed tensor (one or more ciphertexts of one level and scale).
    Reg
);
