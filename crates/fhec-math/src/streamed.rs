//! How a linear map whose diagonals are encoded when they are needed cuts its work, and how much memory that takes.
//!
//! The engine works so, and the compiler predicts it: both ask here.

use std::ops::Range;

/// Words of transformed diagonals at a time, unless one sum has more. Each time reads all babies of a limb once more, which are many more
/// words; the diagonals are only written and read.
pub const BUFFER: usize = 32 << 17;
/// Bytes of coefficients that are encoded ahead, unless one sum has more.
pub const WINDOW: usize = 64 << 20;
/// Bytes of results at a time, unless [`GROUP`] sums have more.
const RESULTS: usize = 288 << 20;
/// Sums that are worked on together in any case.
pub const GROUP: usize = 8;

/// What memory depends on.
#[derive(Clone, Debug)]
pub struct StreamedMap {
    /// Ring degree.
    pub n: usize,
    /// Limbs of the inputs.
    pub chain: usize,
    /// Special primes.
    pub special: usize,
    /// Key-switching digits of an input.
    pub digits: usize,
    /// Whether babies are divided by `P`.
    pub single: bool,
    /// Babies of all inputs.
    pub babies: usize,
    /// Babies that take two rotations, because there is no key for the one: each is a ciphertext until the map is done.
    pub composed: usize,
    /// Inputs that have rotated babies.
    pub decomposed: usize,
    /// Output ciphertexts.
    pub outputs: usize,
    /// Diagonals of every sum, in order.
    pub sums: Vec<usize>,
    /// Slots after which diagonals repeat.
    pub period: usize,
}

impl StreamedMap {
    /// Limbs of a sum.
    pub fn limbs(&self) -> usize {
        self.chain + if self.single { 0 } else { self.special }
    }

    /// Ranges of sums whose coefficients and results are in memory together: as many as `window` bytes of coefficients
    /// have room for.
    pub fn chunks(&self, window: usize) -> Vec<Range<usize>> {
        let most = window / (8 * self.period).max(1);
        let sums = (RESULTS / (2 * self.limbs() * self.n * 8).max(1)).max(GROUP);
        let mut chunks: Vec<Range<usize>> = Vec::new();
        let mut held = 0;
        for (i, &diagonals) in self.sums.iter().enumerate() {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < sums && held + diagonals <= most => {
                    chunk.end = i + 1;
                    held += diagonals;
                }
                _ => {
                    chunks.push(i..i + 1);
                    held = diagonals;
                }
            }
        }
        chunks
    }

    /// Peak bytes of scratch memory of one application with `threads` threads: results and coefficients are included, inputs and
    /// keys are not.
    pub fn scratch_bytes(&self, threads: usize, window: usize) -> usize {
        let (n, chain, all) = (self.n, self.chain, self.chain + self.special);
        let digits = self.digits * all;
        // Digits of the inputs and, limb by limb, the babies made of them; or all babies.
        let (making, held) = if self.single {
            (chain + digits + 2 * (all + chain) + 2 * chain * self.babies, 2 * chain * self.babies)
        } else {
            let composed = 2 * chain * self.composed;
            (chain + self.decomposed * digits + composed, self.decomposed * digits + composed)
        };
        let outputs = self.outputs * 2 * all;
        let working = |chunk: Range<usize>| {
            let sums = &self.sums[chunk];
            let (diagonals, longest) = (sums.iter().sum::<usize>(), sums.iter().copied().max().unwrap_or(0));
            let buffer = (diagonals * self.period).min(BUFFER.max(longest * self.period));
            let babies = if self.single { 0 } else { 2 * self.babies * n };
            // Giants come after the products of a chunk; each holds its digits.
            let switching = threads.clamp(1, sums.len().max(1)) * (digits + 2 * chain + 2) * n;
            let results = 2 * self.limbs() * sums.len() * n;
            results + (diagonals * self.period + buffer + babies).max(switching)
        };
        let chunks = self.chunks(window).into_iter();
        // The final division holds the quotients besides.
        let ending = outputs + self.outputs * 2 * chain + 2 * chain;
        let most = (held + outputs) * n + chunks.map(working).max().unwrap_or(0);
        8 * most.max(making.max(ending) * n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(sums: Vec<usize>) -> StreamedMap {
        StreamedMap {
            n: 1 << 14,
            chain: 5,
            special: 2,
            digits: 3,
            single: false,
            babies: 26,
            composed: 0,
            decomposed: 1,
            outputs: 1,
            sums,
            period: 1 << 13,
        }
    }

    #[test]
    fn chunks_cover_all_sums_within_the_window() {
        let map = map(vec![26; 33]);
        for window in [1, 10 << 20, WINDOW] {
            let chunks = map.chunks(window);
            assert!(chunks.iter().flat_map(Clone::clone).eq(0..33));
            for chunk in &chunks {
                assert!(chunk.len() == 1 || 26 * chunk.len() * (8 << 13) <= window);
                assert!(chunk.len() <= RESULTS / (2 * 7 * (8 << 14)));
            }
        }
        assert_eq!([1, 10 << 20, WINDOW].map(|window| map.chunks(window).len()), [33, 6, 1]);
    }

    #[test]
    fn memory_grows_with_window_and_threads() {
        let long = map(vec![26; 100]);
        assert!(long.scratch_bytes(1, 1) < long.scratch_bytes(1, WINDOW));
        assert!(long.scratch_bytes(1, WINDOW) <= long.scratch_bytes(64, WINDOW));
        let composed = StreamedMap { composed: 3, ..long.clone() };
        let ciphertext = 2 * 5 * (8 << 14);
        assert_eq!(composed.scratch_bytes(1, WINDOW), long.scratch_bytes(1, WINDOW) + 3 * ciphertext);
        let empty = map(vec![]);
        assert!(empty.chunks(WINDOW).is_empty() && empty.scratch_bytes(1, WINDOW) > 0);
    }
}
