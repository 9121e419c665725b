//! The error of every operation of this crate, carrying the operation and all numbers.

use fhec_math::Scale;

/// What went wrong, where, and with which numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CkksError {
    /// The parameters are malformed: not NTT-friendly, not distinct, digits that do not fit, ….
    #[error("parameters: {0}")]
    Parameters(String),
    /// The modulus is too large for the ring degree at the security asked for.
    #[error("parameters: log2(QP) = {log_qp:.2} at N = 2^{log_n} exceeds the {bits}-bit limit of {limit}")]
    Insecure {
        /// log2 of the ring degree.
        log_n: u32,
        /// log2 of the product of all primes, special ones included.
        log_qp: f64,
        /// Security asked for.
        bits: u32,
        /// Largest log2(QP) allowed, 0 where the table has no entry.
        limit: u32,
    },
    /// Two operands have different levels.
    #[error("{op}: levels differ, {lhs} and {rhs}")]
    LevelMismatch {
        /// Operation.
        op: &'static str,
        /// Level of the left operand.
        lhs: usize,
        /// Level of the right operand.
        rhs: usize,
    },
    /// Two operands have different scales.
    #[error("{op}: scales differ, {lhs} (2^{:.6}) and {rhs} (2^{:.6})", lhs.log2(), rhs.log2())]
    ScaleMismatch {
        /// Operation.
        op: &'static str,
        /// Scale of the left operand.
        lhs: Box<Scale>,
        /// Scale of the right operand.
        rhs: Box<Scale>,
    },
    /// A level outside the range that the operation allows.
    #[error("{op}: level {level} is not within {min} … {max}")]
    LevelRange {
        /// Operation.
        op: &'static str,
        /// Level asked for.
        level: usize,
        /// Smallest level allowed.
        min: usize,
        /// Largest level allowed.
        max: usize,
    },
    /// An operand was made under other parameters.
    #[error("{op}: operand belongs to other parameters (id {found:016x}, expected {expected:016x})")]
    ContextMismatch {
        /// Operation.
        op: &'static str,
        /// Id of the parameters in use.
        expected: u64,
        /// Id that the operand carries.
        found: u64,
    },
    /// There is no relinearisation key.
    #[error("{op}: no relinearisation key")]
    NoRelinKey {
        /// Operation.
        op: &'static str,
    },
    /// There is no key for a Galois element.
    #[error("{op}: no key for Galois element {element}")]
    NoGaloisKey {
        /// Operation.
        op: &'static str,
        /// Galois element, modulo 2N.
        element: u64,
    },
    /// There are no keys for the smaller ring that slots-to-coefficients goes down to.
    #[error("{op}: no keys for the ring of degree 2^{log_n}")]
    NoRingKeys {
        /// Operation.
        op: &'static str,
        /// log2 of its degree.
        log_n: u32,
    },
    /// A key reaches less high than the level at which it is wanted.
    #[error("{op}: the key reaches level {have}, level {need} is needed")]
    KeyLevel {
        /// Operation.
        op: &'static str,
        /// Highest level of the key.
        have: usize,
        /// Level of the operand.
        need: usize,
    },
    /// A vector whose length is not a power of two that fits the slots.
    #[error("{op}: {len} values; the number must be a power of two up to {slots}")]
    SlotCount {
        /// Operation.
        op: &'static str,
        /// Length given.
        len: usize,
        /// Number of slots.
        slots: usize,
    },
    /// A value does not fit: after scaling it exceeds the integer range or half the modulus.
    #[error("{op}: a coefficient of 2^{log2_magnitude:.2} exceeds the limit of 2^{log2_limit:.2}")]
    Overflow {
        /// Operation.
        op: &'static str,
        /// log2 of the largest magnitude.
        log2_magnitude: f64,
        /// log2 of the largest magnitude allowed.
        log2_limit: f64,
    },
    /// A value is infinite or not a number.
    #[error("{op}: value {index} is not finite")]
    NotFinite {
        /// Operation.
        op: &'static str,
        /// Index of the value.
        index: usize,
    },
    /// A container (file) is malformed or belongs to something else.
    #[error("{0}")]
    Container(#[from] ContainerError),
    /// Arithmetic set-up failed.
    #[error(transparent)]
    Math(#[from] fhec_math::MathError),
}

/// What is wrong with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The file does not begin with the magic bytes.
    #[error("not an fhec file: it does not begin with \"FHEC\"")]
    Magic,
    /// The format version is not the one that this build reads.
    #[error("file format version {found}; this build reads version {expected}")]
    Version {
        /// Version in the file.
        found: u32,
        /// Version of this build.
        expected: u32,
    },
    /// The file holds something else than asked for.
    #[error("the file holds {found}, expected {expected}")]
    Kind {
        /// What the file says it holds.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// A secret key was given where it must never be.
    #[error("this is a secret key: {expected} expected here; never hand the secret key to anybody")]
    SecretKeyRefused {
        /// What was asked for.
        expected: &'static str,
    },
    /// The file belongs to another plan.
    #[error("the file belongs to another plan (plan hash {found}, expected {expected})")]
    Plan {
        /// Hash in the file, hexadecimal.
        found: String,
        /// Hash of the plan in use, hexadecimal.
        expected: String,
    },
    /// The file was made under other encryption parameters.
    #[error("the file was made under other parameters (hash {found}, expected {expected})")]
    Params {
        /// Hash in the file, hexadecimal.
        found: String,
        /// Hash of the parameters in use, hexadecimal.
        expected: String,
    },
    /// The content does not match its checksum.
    #[error("the checksum does not match: the file is damaged or truncated")]
    Checksum,
    /// The file ends before its content does, or goes on after it.
    #[error("{section}: {found} bytes, expected {expected}")]
    Length {
        /// Part of the file.
        section: &'static str,
        /// Bytes there.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// A field holds an impossible value.
    #[error("{section}: {problem}")]
    Field {
        /// Part of the file.
        section: &'static str,
        /// What is wrong, with the numbers.
        problem: String,
    },
    /// Writing failed.
    #[error("writing: {0}")]
    Io(#[from] std::io::Error),
    /// Reading failed.
    #[error("reading: {0}")]
    Read(#[source] std::io::Error),
}

impl CkksError {
    /// Shorthand for a scale mismatch.
    pub(crate) fn scales(op: &'static str, lhs: &Scale, rhs: &Scale) -> Self {
        Self::ScaleMismatch { op, lhs: Box::new(lhs.clone()), rhs: Box::new(rhs.clone()) }
    }
}

/// Result with the error of this crate.
pub type Result<T, E = CkksError> = std::result::Result<T, E>;
