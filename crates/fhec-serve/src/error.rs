//! Why a server does not start, and how refusals are made.

use fhec_protocol::{Code, Refusal};
use std::path::PathBuf;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The plan cannot be run.
    #[error(transparent)]
    Runtime(#[from] fhec_runtime::RuntimeError),
    /// The engine refused.
    #[error(transparent)]
    Ckks(#[from] fhec_ckks::CkksError),
    /// The memory allowed does not even suffice for one evaluation at a time.
    #[error("{runs} evaluations at a time take {needed} bytes of memory, allowed are {allowed}")]
    Memory {
        /// Evaluations at a time.
        runs: usize,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The disk space allowed does not hold one set of keys.
    #[error("one set of evaluation keys takes {needed} bytes on disk, allowed are {allowed}")]
    Disk {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// The space allowed for temporary files does not hold what one request takes, whose ciphertexts do not fit memory.
    #[error("ciphertexts do not fit memory; a request takes {needed} bytes of temporary files, allowed are {allowed}")]
    Spill {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
    /// A file or folder cannot be used.
    #[error("{path}: {source}")]
    File {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address cannot be listened on, or threads cannot be started.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Certificate or key of TLS cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

/// A refusal.
pub(crate) fn refuse(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into() }
}

/// The refusal of something that the engine found wrong in what a client sent.
pub(crate) fn refused(error: impl std::fmt::Display) -> Refusal {
    refuse(Code::Refused, error.to_string())
}
