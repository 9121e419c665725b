//! Serves one plan to many clients over HTTP. Each has its own evaluation keys; nobody's secret key ever comes here: nothing in
//! this crate can hold or read one, and a file of one is refused like any other file that is not wanted.
//!
//! | module | idea |
//! | --- | --- |
//! | [`config`] | what whoever runs a server decides |
//! | [`sizes`] | what serving takes, from the plan alone, before anybody connects |
//! | `keys` | evaluation keys: uploads that can be continued, files, those in memory |
//! | `requests`, `fair` | requests from coming to being fetched; clients take turns |
//! | [`service`] | the above with the threads that evaluate |
//! | `http` | paths and answers of [`fhec_protocol`] |
//! | `streamed`, `spool` | rounds that do not fit memory, and their payloads |
//! | [`listen`], `stall`, `tls` | connections |
//! | `metrics` | what happened, for Prometheus |
//!
//! Strangers are expected. Whatever they can make the server hold – connections, bytes on the way, requests, results, keys on disk and
//! in memory – has a limit, and whoever reaches one is refused while others are served.

pub mod config;
pub mod error;
mod fair;
mod http;
mod keys;
pub mod listen;
mod metrics;
mod requests;
pub mod service;
pub mod sizes;
mod spool;
mod stall;
mod streamed;
mod tls;

pub use config::Config;
pub use error::ServeError;
pub use listen::{Identity, Running};
pub use service::Service;
pub use sizes::Sizes;
