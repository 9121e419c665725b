//! What a server of plans and its clients say to each other: names, frames and refusals. Nothing here knows the
//! scheme; ciphertexts and keys are bytes.
//!
//! The protocol is HTTP/1.1. What is large travels as a binary body; what is small, as JSON.
//!
//! | request | body | answers |
//! | --- | --- | --- |
//! | `GET /v1/plan` | | the head of the plan: parameters, key manifest, inputs, outputs; no weights |
//! | `GET /v1/limits` | | [`Limits`] |
//! | `GET /v1/keys/KEY` | | [`KeyStatus`] |
//! | `PUT /v1/keys/KEY?offset=N` | the bytes of the key file from `N` on | [`KeyStatus`] |
//! | `POST /v1/requests?wait=S` | a [frame](Frame) of kind [`Inputs`](FrameKind::Inputs) | as the next line |
//! | `GET /v1/requests/KEY/REQUEST/ROUND?wait=S` | | 200 with a frame, or 202 with [`Progress`] |
//! | `DELETE /v1/requests/KEY/REQUEST` | | 204; the server forgets the request |
//! | `GET /health` | | 200, or 503 once the server ends |
//! | `GET /metrics` | | figures in the text format of Prometheus |
//!
//! Everything else is answered by a status of 400 or more and a [`Refusal`]. `KEY` is the BLAKE3 hash of a file of
//! evaluation keys, `REQUEST` a random number of the client's choice.
//!
//! **Nothing has to be said in one breath.** An upload goes on where the server says that it stopped. A request that is
//! sent again is the same request; its result waits until it is fetched and deleted, or has expired. A server that was
//! restarted has its keys but no requests; the client sends the request again.
//!
//! **Rounds.** A plan of one segment has one round, numbered 0, and its result is a frame of kind
//! [`Outputs`](FrameKind::Outputs). A plan of several answers a round with a frame of kind [`Values`](FrameKind::Values):
//! ciphertexts for the client to decrypt, transform, encrypt and send as the inputs of the next round of the same request.
//! A frame says how many samples its ciphertexts hold.

mod frame;
mod names;
mod status;

pub use frame::{Frame, FrameError, FrameKind, HEADER_LEN, MAGIC};
pub use names::{KeyId, NameError, RequestId, hex};
pub use status::{Code, KeyState, KeyStatus, Limits, Progress, Refusal, RequestState};

/// Version of the protocol; it stands in frames and, as `/v1`, in paths.
pub const VERSION: u32 = 1;

/// Path of the head of the plan.
pub const PLAN_PATH: &str = "/v1/plan";
/// Path of the limits.
pub const LIMITS_PATH: &str = "/v1/limits";
/// Path below which keys are.
pub const KEYS_PATH: &str = "/v1/keys";
/// Path to which requests are sent and below which they are.
pub const REQUESTS_PATH: &str = "/v1/requests";

/// Media type of frames, keys and the head of a plan.
pub const BINARY: &str = "application/octet-stream";
