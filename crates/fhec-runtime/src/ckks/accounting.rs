//! Where the bytes are.

/// Bytes that a server holds between runs. Registers and scratch come on top while it runs; see
/// [`crate::Trace::peak_register_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Evaluation keys.
    pub keys: usize,
    /// Weights of the plan, in the file's form.
    pub weights: usize,
    /// Encoded weights that are cached now.
    pub plaintexts: usize,
    /// Encoded weights that will be cached once everything has been used.
    pub plaintexts_planned: usize,
}
