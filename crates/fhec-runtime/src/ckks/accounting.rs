//! Where the bytes are.

/// Bytes that a server needs, apart from registers ([`crate::Trace::peak_register_bytes`]).
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
    /// Most scratch of one instruction on the threads of the ambient pool, by the engine's own account.
    pub scratch: usize,
}

impl Memory {
    /// Predicted peak of a run: everything held, and `registers` at their peak together with the largest scratch.
    pub fn peak(&self, registers: usize) -> usize {
        self.keys + self.weights + self.plaintexts_planned + self.scratch + registers
    }
}
