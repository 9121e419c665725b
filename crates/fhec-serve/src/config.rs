//! What whoever runs a server decides.

use std::path::PathBuf;
use std::time::Duration;

/// Limits of a server. Everything that strangers can make it hold is bounded by one of them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder in which evaluation keys are kept; made if need be.
    pub keys: PathBuf,
    /// Bytes of memory for keys, weights, requests and evaluations together.
    pub memory: u64,
    /// Bytes on disk for evaluation keys, complete or not.
    pub disk: u64,
    /// Folder for temporary files with ciphertexts of requests, where those of a round do not fit memory.
    pub spill: PathBuf,
    /// Bytes of such files.
    pub spill_bytes: u64,
    /// Threads that evaluate.
    pub threads: usize,
    /// Evaluations at a time, among which the threads are divided; where not given, one for every four threads as far as
    /// memory reaches.
    pub runs: Option<usize>,
    /// Most requests that wait, run or have a result that nobody fetched.
    pub requests: usize,
    /// The same for one client, that is, for one set of keys.
    pub requests_per_client: usize,
    /// Most connections at a time, half of them from one address.
    pub connections: usize,
    /// How long a request lives that nobody asks for.
    pub request_ttl: Duration,
    /// How long keys are kept that nobody uses.
    pub key_ttl: Duration,
    /// How long an incomplete upload is kept that nobody continues.
    pub upload_ttl: Duration,
    /// How long a connection may make no progress while bytes are due.
    pub stall: Duration,
    /// How long results wait to be fetched when the server ends.
    pub grace: Duration,
}

impl Config {
    /// Defaults for a server that keeps keys in a folder and may use that much memory.
    pub fn new(keys: impl Into<PathBuf>, memory: u64) -> Self {
        Config {
            keys: keys.into(),
            memory,
            disk: 32 << 30,
            spill: std::env::temp_dir(),
            spill_bytes: 256 << 30,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            runs: None,
            requests: 256,
            requests_per_client: 8,
            connections: 1024,
            request_ttl: Duration::from_secs(600),
            key_ttl: Duration::from_secs(24 * 3600),
            upload_ttl: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}
