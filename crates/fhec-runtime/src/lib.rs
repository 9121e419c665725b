//! Runs a verified plan.
//!
//! [`run`] walks the instructions and hands each to a [`Backend`]; what a packed tensor is depends on the
//! backend:
//!
//! | backend | a packed tensor is | for |
//! | --- | --- | --- |
//! | [`CkksBackend`] | ciphertexts | `fhec run` |
//! | [`ClearBackend`] | slots of f64 | the meaning of a plan; accuracy over a data set |
//! | [`NoiseBackend`] | slots of f64 with modelled noise | precision over a data set |
//! | [`CountBackend`] | nothing | numbers of operations |
//!
//! Around the encrypted backend stand [`client`] (keys, encryption, decryption) and [`server`] (evaluation), which
//! meet only in ciphertexts and evaluation keys. The server's side has no way to take a secret key.
//!
//! Plans in client-aided mode run in rounds: [`Server::round`] evaluates one, [`Play`] is the client's part in between
//! ([`aided`]), [`Batch`] that of a batch which does not fit memory.
//!
//! Throughput plans can also be evaluated a few ciphertexts at a time, what does not fit memory on disk ([`stream`]).
//!
//! Work is spread over the ambient rayon pool; results do not depend on the number of threads. To choose
//! it, run inside [`rayon::ThreadPool::install`].

pub mod aided;
pub mod backend;
mod batch;
pub mod ckks;
pub mod clear;
pub mod client;
pub mod context;
pub mod count;
pub mod driver;
pub mod error;
pub mod noise;
pub mod server;
pub mod stream;

pub use aided::{Batch, Play, evaluate};
pub use backend::{Backend, Step};
pub use ckks::{CkksBackend, Memory};
pub use clear::ClearBackend;
pub use client::{Client, EncryptionKey, Packed, postprocess, preprocess};
pub use count::{CountBackend, Counts};
pub use driver::{Event, Execution, Paused, Run, Trace, run};
pub use error::{OpError, Result, RuntimeError};
pub use noise::NoiseBackend;
pub use server::{Evaluation, Held, Kept, Server, server_context};
pub use stream::{Stream, Streaming};
