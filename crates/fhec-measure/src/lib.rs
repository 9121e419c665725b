//! The engine, measured: what `fhec calibrate` and `fhec bench` do.
//!
//! * [`calibrate`] times every operation that the compiler prices, at several ring degrees and levels, and fits the
//!   [cost table](fhec_passes::cost::CostTable) to the times.
//! * [`mod@bench`] times what people compare engines by, at secure parameters and on several numbers of threads.
//! * [`bootstrap`] times whole bootstraps for both.
//!
//! This is the one crate besides the command that knows both the compiler's prices and the engine. It touches no files.
//!
//! # What is timed
//!
//! A compiled network does everything once, in a fresh process. So calibration does not repeat an operation on the same
//! operands: keys, weights and ciphertexts go out of the caches before every run ([`clock`]), encoded weights are kept until a
//! batch is complete, as the runtime keeps them, so that they need new memory; and what new memory costs is a price of its own.
//! Benchmarks are the opposite, a tight loop, as all libraries report them.

pub mod bench;
pub mod bootstrap;
pub mod calibrate;
pub mod clock;
mod fit;
mod samples;
mod subject;

use fhec_ckks::CkksError;
use fhec_math::MathError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The engine refused an operation.
    #[error(transparent)]
    Ckks(#[from] CkksError),
    /// A kernel refused its parameters.
    #[error(transparent)]
    Math(#[from] MathError),
    /// Threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number asked for.
        threads: usize,
        /// The system's message.
        reason: String,
    },
    /// No parameters exist for a ring degree.
    #[error("there are no parameters for a ring degree of 2^{log_n}; 2^{least} to 2^{most} are measured")]
    Ring {
        /// log2 of the ring degree asked for.
        log_n: u32,
        /// log2 of the least ring degree.
        least: u32,
        /// log2 of the largest ring degree.
        most: u32,
    },
}

/// Result of a measurement.
pub type Result<T> = std::result::Result<T, MeasureError>;

/// A pool of so many threads. Everything is measured inside one: calls from outside hand every parallel step over to another
/// thread.
fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    built.map_err(|e| MeasureError::Threads { threads, reason: e.to_string() })
}
