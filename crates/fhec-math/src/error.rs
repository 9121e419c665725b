//! The error type of this crate.

/// What can be wrong with values that come from outside this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MathError {
    /// A modulus that is even, too small or too large for the kernels.
    #[error("modulus {value} is not an odd number between 3 and 2^50")]
    BadModulus {
        /// The offending value.
        value: u64,
    },
    /// No primitive `2N`-th root of unity exists modulo this number.
    #[error("modulus {value} is not a prime congruent to 1 modulo 2^{}", log_n + 1)]
    NotNttFriendly {
        /// The offending value.
        value: u64,
        /// log2 of the ring degree.
        log_n: u32,
    },
    /// A ring degree outside the supported range.
    #[error("ring degree 2^{log_n} is not supported (2^4 to 2^17 are)")]
    BadDegree {
        /// log2 of the ring degree.
        log_n: u32,
    },
    /// A Galois element that is even or not below `2N`.
    #[error("{element} is not a Galois element of the ring of degree 2^{log_n}")]
    BadGaloisElement {
        /// The offending value.
        element: u64,
        /// log2 of the ring degree.
        log_n: u32,
    },
    /// A base with no primes, a repeated modulus, or moduli with a common factor.
    #[error("the moduli of a base must be present, distinct and coprime: {moduli:?}")]
    BadBase {
        /// The moduli in the order given.
        moduli: Vec<u64>,
    },
    /// Data whose length is not a whole number of limbs.
    #[error("{len} words are not a whole number of limbs of {n} words")]
    BadLength {
        /// Number of words found.
        len: usize,
        /// Ring degree.
        n: usize,
    },
    /// A residue that is not below its modulus.
    #[error("residue {value} at index {index} is not below the modulus {modulus}")]
    NotReduced {
        /// The offending value.
        value: u64,
        /// Its index in the limb.
        index: usize,
        /// The modulus of the limb.
        modulus: u64,
    },
    /// Serialised parts of a scale that are not in canonical form.
    #[error("scale parts are not canonical: {reason}")]
    BadScale {
        /// What is wrong.
        reason: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {reason}")]
    NoEntropy {
        /// The message of the system.
        reason: String,
    },
}
