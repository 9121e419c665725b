//! The client's side of the protocol of [`fhec_protocol`]: uploads evaluation keys, sends ciphertexts, fetches results. It knows
//! nothing of the scheme and never sees a secret key: what it carries are bytes.
//!
//! Everything is done with patience: a server that is busy, restarts or cannot be reached for a while is tried again, after the time
//! that it asks for or in growing intervals, and whatever was begun goes on where it stopped.

mod connection;
mod error;
mod keys;
mod patience;
mod requests;

pub use connection::{Connection, Options};
pub use error::{ClientError, Result};
pub use keys::key_id;
pub use requests::random_request;
