//! How many bytes things have.

use super::Prices;
use crate::shape::single_hoisting;
use fhec_math::diagonals::STEP;
use fhec_math::scalar_sums::{MAX_SUMS, WAVE};
use fhec_math::streamed::WINDOW;
use fhec_plan::linear::LinearGroup;

impl Prices<'_> {
    /// Bytes of one diagonal that [`encode_diagonal`](Self::encode_diagonal) makes.
    pub fn encoded_bytes(&self, period: usize, level: usize) -> u64 {
        let values = (2.0 * period as f64).min(self.n());
        (values * (self.chain(level) + self.special(level)) * 8.0) as u64
    }

    /// Bytes of a group's diagonals, kept ready to multiply in the order of use: whole bytes a residue, and what repeats
    /// within 32 positions once.
    pub fn diagonal_bytes(&self, level: usize, group: &LinearGroup, period: usize) -> u64 {
        let n = 1u64 << self.shape.log_n;
        let repeat = (n / 2 / (period as u64).clamp(1, n / 2)).min(STEP as u64);
        // Long runs are stored as whole words.
        let word = (repeat >= 8).then_some(8);
        let special = !single_hoisting(self.shape, level, group);
        group.bsgs.products() as u64 * (n / repeat) * self.limb_bytes(level, special, word)
    }

    /// Bytes of one value of a diagonal in every limb of the chain, and of the special primes too: whole bytes, or `word` each.
    pub(crate) fn limb_bytes(&self, level: usize, special: bool, word: Option<u64>) -> u64 {
        let bytes = |log2: &f64| word.unwrap_or((log2.floor() as u64 + 1).div_ceil(8));
        let special = if special { &self.shape.log2_p[..self.shape.special_at(level)] } else { &[] };
        self.shape.log2_q[..=level].iter().chain(special).map(bytes).sum()
    }

    /// [`limb_bytes`](Self::limb_bytes) with that special prime alone.
    pub(crate) fn raised_bytes(&self, level: usize, word: Option<u64>) -> u64 {
        let bytes = |log2: &f64| word.unwrap_or((log2.floor() as u64 + 1).div_ceil(8));
        self.shape.log2_q[..=level].iter().chain(self.shape.log2_p.first()).map(bytes).sum()
    }

    /// Bytes of the sums that the engine holds before it rescales them.
    pub fn scalar_scratch(&self, level: usize, outputs: usize) -> u64 {
        outputs.min(WAVE + MAX_SUMS) as u64 * self.ciphertext_bytes(level)
    }

    /// Bytes in memory of a switching key that reaches up to `level`: residues take whole bytes.
    pub fn key_bytes(&self, level: usize) -> u64 {
        let bytes = |log2: &f64| (log2.floor() as u64 + 1).div_ceil(8);
        let special = &self.shape.log2_p[..self.shape.special_at(level)];
        let residue: u64 = self.shape.log2_q[..=level].iter().chain(special).map(bytes).sum();
        (2 * self.shape.digits_at(level) as u64 * residue) << self.shape.log_n
    }

    /// Bytes of a ciphertext in memory.
    pub fn ciphertext_bytes(&self, level: usize) -> u64 {
        (2 * 8 * (level + 1) as u64) << self.shape.log_n
    }

    /// Peak bytes of scratch memory of a linear map on one thread, as the engine accounts for it; its diagonals, which repeat
    /// after `period` slots, are encoded when they are needed, and `composed` babies are made by two rotations.
    pub fn linear_scratch(
        &self,
        level: usize,
        group: &LinearGroup,
        outputs: usize,
        (period, composed): (usize, usize),
    ) -> u64 {
        self.streamed(level, group, outputs, (period, composed)).scratch_bytes(1, WINDOW) as u64
    }

    /// Bytes of the tables for transforms: of both directions and of the half that encoding uses, about 42 a coefficient.
    pub fn table_bytes(&self) -> u64 {
        let primes = self.shape.log2_q.len() + self.shape.special();
        (42 * primes as u64) << self.shape.log_n
    }
}
