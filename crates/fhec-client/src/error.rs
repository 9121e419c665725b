//! Why a server could not do what was asked of it.

use fhec_protocol::Refusal;

/// Why something failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address of the server is none.
    #[error("{0}")]
    Address(String),
    /// A certificate cannot be used.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The server refused.
    #[error("the server refused: {}", .0.message)]
    Refused(Refusal),
    /// The server could not be reached, in spite of all patience.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server says what the protocol does not allow.
    #[error("the server does not speak the protocol: {0}")]
    Protocol(String),
    /// A file of keys cannot be read.
    #[error("reading the evaluation keys: {0}")]
    Keys(#[source] std::io::Error),
    /// What the server answers cannot be kept.
    #[error("keeping the answer: {0}")]
    Answer(#[source] std::io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Result with the error of this crate.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;
