//! The transform with AVX-512-IFMA.
//!
//! A depth-first decimation: passes of two or three butterfly stages over blocks that shrink until one fits
//! the first cache, then one pass of six stages over 64 coefficients held in eight registers, which are
//! transposed between the third and the fourth stage. Twiddle factors are stored in the order of their use, so that
//! the largest table is read as one stream; of those that differ from lane to lane only the companions. Products are Shoup's with 52 bits (Harvey, *Faster arithmetic for number-theoretic
//! transforms*, 2014), values in between are bounded by a multiple of `p` below 2^52 ([`Bounds`]).

mod butterfly;
mod forward;
mod inverse;
pub(crate) mod quarters;
mod symmetric;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::buffer::HUGE_BYTES;
use crate::{AlignedVec, Fetch, Modulus};
use butterfly::{LAST_RECORD, record_words};

/// Stages of the last pass.
const LAST_STAGES: u32 = 6;

/// log2 of the smallest degree: one pass and the last pass.
pub(super) const MIN_LOG_N: u32 = LAST_STAGES + 2;

/// log2 of the smallest degree for [`IfmaNtt::forward_symmetric`], which begins with a stage of its own.
pub(super) const MIN_LOG_N_SYMMETRIC: u32 = MIN_LOG_N + 1;

/// Tables of both directions. Only made where the instructions are present, which
/// [`forward`](Self::forward) and [`inverse`](Self::inverse) rely on.
pub(crate) struct IfmaNtt {
    modulus: Modulus,
    forward: Direction,
    inverse: Direction,
    /// `1/N` and its companion.
    n_inverse: (u64, u64),
    log_n: u32,
    psi: u64,
    /// The forward transform of the first half of the values; made when it is first used.
    half: OnceLock<Box<Half>>,
}

/// The butterfly tree below the left child of the root.
struct Half {
    /// `ψ^(N/2)`, the factor of the root, with its companion.
    root: (u64, u64),
    direction: Direction,
}

/// The passes of one direction, first the one over the whole limb; the inverse runs them backwards.
struct Direction {
    passes: Vec<Pass>,
    last: LastPass,
    /// [`STRICT`], [`LAZY`] or [`CARRIED`].
    growth: u8,
}

/// Values are kept below `4p` at each stage.
pub(crate) const STRICT: u8 = 0;
/// Values are kept below 2^52 only.
pub(crate) const LAZY: u8 = 1;
/// As [`LAZY`], and values carry multiples of `p` that keep differences positive: inverse only.
pub(crate) const CARRIED: u8 = 2;

/// How many times the bound of the values that come into a carried inverse pass of two or three stages each of them carries on top.
///
/// In the first stage the even ones have to be larger than the odd ones, in the second the sums at 0 and 4 than those at 2 and 6, and in
/// the third the one at 0, at least 8 times the bound by then, than the one at 4, at most 8 times. Products are below `2p`, whatever
/// they are made of, and the multiplication adds what they have to carry.
const LEADS: [[u64; 8]; 2] = [[3, 0, 1, 0, 0, 0, 0, 0], [7, 0, 1, 0, 3, 0, 1, 0]];

/// By how much the largest value grows in such a pass: the sum of all that come in and of what they carry.
const CARRIED_GROWTH: [u64; 2] = [8, 20];

/// What the outputs of a pass carry for the next one.
#[derive(Clone, Copy, Default)]
struct Lead {
    /// A multiple of `p`.
    bias: u64,
    /// `2^52` minus that multiple.
    start: u64,
}

/// A pass of `stages` stages.
struct Pass {
    stages: u32,
    /// Forward: reduce before the first stage. Inverse: reduce after the last.
    shrink: bool,
    /// Inverse: bound of the values that come in, a multiple of `p`, without what they carry.
    bound: u64,
    /// Inverse: what the values of each part carry.
    leads: [Lead; 8],
    /// One record for each block: pairs of a twiddle factor and its companion, root of the butterfly tree first.
    records: AlignedVec,
}

/// The six stages within 64 coefficients.
struct LastPass {
    /// Whether to reduce before each half (forward) or after it (inverse).
    shrink: [bool; 2],
    /// Inverse: bounds of the values that come into each half, without what they carry.
    bounds: [u64; 2],
    /// Inverse: what the rows carry into the half that comes first.
    rows: [u64; 8],
    /// Inverse: what the lanes of each row, which are rows later, carry into the other, and `2^52` minus the multiple of `p` that it is.
    lanes: ([u64; 8], [u64; 8]),
    records: LastRecords,
}

/// One record of [`LAST_RECORD`] words for each 64 coefficients, in a part of a block.
struct LastRecords {
    block: Arc<AlignedVec>,
    part: Range<usize>,
}

impl LastRecords {
    /// Words for a transform of `2^log_n` words.
    fn words(log_n: u32) -> usize {
        LAST_RECORD << (log_n - LAST_STAGES)
    }

    fn all(&self) -> &[[u64; LAST_RECORD]] {
        let (records, _) = self.block[self.part.clone()].as_chunks();
        records
    }
}

impl IfmaNtt {
    /// # Safety
    /// The processor has the instructions that [`crate::cpu::detect`] checks.
    pub(super) unsafe fn new(m: &Modulus, log_n: u32, psi: u64) -> Self {
        let psi_inverse = m.pow(psi, (2 << log_n) - 1);
        let n_inverse = m.pow(m.reduce(1 << log_n), m.value() - 2);
        let split = split_stages(log_n - LAST_STAGES);
        let roots = powers(m, log_n, psi);
        let inverse_roots = powers(m, log_n, psi_inverse);
        // The largest tables of both directions share a block, of a huge page where they fill half of it: a chain has more tables than
        // the caches hold.
        let words = LastRecords::words(log_n);
        let huge = HUGE_BYTES / size_of::<u64>();
        let mut block = AlignedVec::zeroed(if 4 * words < huge { 2 * words } else { (2 * words).max(huge) });
        let (forward_last, inverse_last) = block[..2 * words].split_at_mut(words);
        write_last(m, log_n, 1, &roots, forward_last);
        write_last(m, log_n, 1, &inverse_roots, inverse_last);
        let block = Arc::new(block);
        let forward_last = LastRecords { block: Arc::clone(&block), part: 0..words };
        let inverse_last = LastRecords { block, part: words..2 * words };
        let forward = Direction::new(m, 1, split, &roots, forward_bounds(m, split), forward_last);
        let mut inverse = Direction::new(m, 1, split, &inverse_roots, inverse_bounds(m, split), inverse_last);
        // The division by N is part of the last stage to run, which is the root of the first record.
        let root = m.mul(inverse_roots[1], n_inverse);
        let first = &mut inverse.passes[0].records;
        first[0] = root;
        first[1] = m.shoup_52(root);
        Self {
            modulus: *m,
            forward,
            inverse,
            n_inverse: (n_inverse, m.shoup_52(n_inverse)),
            log_n,
            psi,
            half: OnceLock::new(),
        }
    }

    fn half(&self) -> &Half {
        self.half.get_or_init(|| {
            let (m, log_n) = (&self.modulus, self.log_n);
            let roots = powers(m, log_n, self.psi);
            let split = split_stages(log_n - 1 - LAST_STAGES);
            let mut block = AlignedVec::zeroed(LastRecords::words(log_n - 1));
            write_last(m, log_n - 1, 2, &roots, &mut block);
            let last = LastRecords { part: 0..block.len(), block: Arc::new(block) };
            let direction = Direction::new(m, 2, split, &roots, forward_bounds(m, split), last);
            Box::new(Half { root: (roots[1], m.shoup_52(roots[1])), direction })
        })
    }

    /// The first half of the values of the polynomial with coefficients `c_0 … c_{N/2−1}, 0, −c_{N/2−1} … −c_1`, for
    /// `|c_k| < 2^63`.
    pub(super) fn forward_symmetric(&self, coeffs: &[i64], out: &mut [u64]) {
        // SAFETY: `new` was promised the instructions.
        unsafe { symmetric::run(self, coeffs, out) }
    }

    /// From `source`, or in place without one, to residues.
    pub(super) fn forward(&self, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        // SAFETY: `new` was promised the instructions.
        unsafe { forward::run::<false>(self, source, limb, fetch) }
    }

    /// From `source`, or in place without one, loose.
    pub(super) fn forward_loose(&self, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        // SAFETY: `new` was promised the instructions.
        unsafe { forward::run::<true>(self, source, limb, fetch) }
    }

    /// What is left of [`forward_loose`](Self::forward_loose) after a conversion in quarters, for one of them.
    pub(super) fn forward_quarter(&self, quarter: usize, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        // SAFETY: `new` was promised the instructions.
        unsafe { forward::run_quarter(self, quarter, source, limb, fetch) }
    }

    /// From `source`, or in place without one.
    pub(super) fn inverse(&self, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        // SAFETY: `new` was promised the instructions.
        unsafe { inverse::run(self, source, limb, fetch) }
    }

    /// As much of [`inverse`](Self::inverse) as comes before a conversion in quarters, for one of them.
    pub(super) fn inverse_quarter(&self, quarter: usize, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
        // SAFETY: `new` was promised the instructions.
        unsafe { inverse::run_quarter(self, quarter, source, limb, fetch) }
    }

    /// What a transform, or one of a quarter, reads of its tables.
    pub(super) fn records(&self, inverse: bool, quarter: Option<usize>) -> &[u64] {
        let all = if inverse { self.inverse.records() } else { self.forward.records() };
        match quarter {
            Some(quarter) => &all[quarter * all.len() / 4..(quarter + 1) * all.len() / 4],
            None => all,
        }
    }
}

/// How many stages each pass before the last takes. More than three would save passes, but the rows of such a pass, whose
/// distance is a power of two, compete for the same eight ways of the first cache; the shorter passes go first for the same reason.
fn split_stages(stages: u32) -> &'static [u32] {
    match stages {
        2 => &[2],
        3 => &[3],
        4 => &[2, 2],
        5 => &[2, 3],
        6 => &[3, 3],
        7 => &[2, 2, 3],
        8 => &[2, 3, 3],
        9 => &[3, 3, 3],
        10 => &[2, 2, 3, 3],
        11 => &[2, 3, 3, 3],
        _ => unreachable!("degrees are checked before tables are made"),
    }
}

/// `ψ^brv(i)` for `i < N`: the twiddle factor of node `i`, where the children of node `i` are `2i` and `2i+1`.
fn powers(m: &Modulus, log_n: u32, psi: u64) -> Vec<u64> {
    let n = 1usize << log_n;
    let psi_shoup = m.shoup(psi);
    let mut out = vec![0; n];
    let mut power = 1;
    for i in 0..n {
        out[i.reverse_bits() >> (usize::BITS - log_n)] = power;
        power = m.mul_shoup(power, psi, psi_shoup);
    }
    out
}

/// Where a direction reduces. All bounds are multiples of `p`; true values stay below 2^52.
struct Bounds {
    /// [`STRICT`], [`LAZY`] or [`CARRIED`].
    growth: u8,
    /// For each pass, then for the two halves of the last: whether to shrink, and the bound that comes in.
    passes: Vec<(bool, u64)>,
}

/// What loose coefficients are below, in multiples of `p`.
const LOOSE_BOUND: u64 = 4;

/// A forward stage adds at most `2p` to a value or takes as much from it. So a pass first adds `2p` for each of its stages to
/// the half of its inputs that are not multiplied in its first stage, from which all its outputs descend; where
/// that would be too much in the end, it first shrinks this half to `2p`.
fn forward_bounds(m: &Modulus, split: &[u32]) -> Bounds {
    // Something below p may be subtracted from loose values before they are multiplied.
    let capacity = (1u64 << 52) / m.value() - 1;
    // Of what may come in.
    let mut bound = LOOSE_BOUND;
    let mut lazy = true;
    let mut passes = Vec::new();
    for stages in split.iter().copied().chain([3, 3]) {
        let growth = 4 * u64::from(stages);
        let shrink = bound + growth > capacity;
        passes.push((shrink, bound));
        bound = if shrink { 2 + growth } else { bound + growth };
        lazy &= bound <= capacity;
    }
    Bounds { growth: if lazy { LAZY } else { STRICT }, passes }
}

/// An inverse stage doubles the bound, or a pass makes more of it where values carry what keeps differences positive, which saves
/// additions. A pass may shrink its outputs to `2p` for the sake of the next one.
fn inverse_bounds(m: &Modulus, split: &[u32]) -> Bounds {
    let carried = |stages: u32| CARRIED_GROWTH[stages as usize - 2];
    let (fits, passes) = inverse_passes(m, split, carried);
    if fits {
        return Bounds { growth: CARRIED, passes };
    }
    let (fits, passes) = inverse_passes(m, split, |stages| 1 << stages);
    Bounds { growth: if fits { LAZY } else { STRICT }, passes }
}

/// Whether values stay below 2^52 where a pass multiplies the bound by `growth`, and [`Bounds::passes`].
fn inverse_passes(m: &Modulus, split: &[u32], growth: impl Fn(u32) -> u64) -> (bool, Vec<(bool, u64)>) {
    let capacity = (1u64 << 52) / m.value();
    let mut bound = 1u64;
    let mut fits = true;
    // In the order in which they run: halves of the last pass, then the others backwards.
    let mut order: Vec<(bool, u64)> = Vec::new();
    for stages in [3, 3].into_iter().chain(split.iter().rev().copied()) {
        if bound * growth(stages) > capacity
            && let Some(previous) = order.last_mut()
        {
            previous.0 = true;
            bound = 2;
        }
        order.push((false, bound));
        bound *= growth(stages);
        fits &= bound <= capacity;
    }
    order.reverse();
    (fits, order)
}

impl Direction {
    /// The table of the last pass, which is nearly all there is.
    fn records(&self) -> &[u64] {
        self.last.records.all().as_flattened()
    }

    /// The transform whose butterfly tree has its root at node `top`, with factors `roots`.
    fn new(m: &Modulus, top: usize, split: &[u32], roots: &[u64], bounds: Bounds, records: LastRecords) -> Self {
        let pair = |node: usize| [roots[node], m.shoup_52(roots[node])];
        let mut level = 0;
        let mut passes = Vec::new();
        for (&stages, &(shrink, bound)) in split.iter().zip(&bounds.passes) {
            let mut records = AlignedVec::zeroed(record_words(stages) << level);
            for (block, record) in records.chunks_exact_mut(record_words(stages)).enumerate() {
                let mut pairs = record.chunks_exact_mut(2);
                for stage in 0..stages {
                    for b in 0..1usize << stage {
                        let node = (top << (level + stage)) + (block << stage) + b;
                        if let Some(slot) = pairs.next() {
                            slot.copy_from_slice(&pair(node));
                        }
                    }
                }
            }
            let leads = LEADS[stages as usize - 2].map(|lead| {
                let multiple = if bounds.growth == CARRIED { lead * bound } else { 0 };
                Lead { bias: multiple * m.value(), start: (1 << 52) - multiple }
            });
            passes.push(Pass { stages, shrink, bound, leads, records });
            level += stages;
        }
        let halves = &bounds.passes[split.len()..];
        let [lanes, rows] = [halves[0].1, halves[1].1].map(|bound| {
            let multiples = LEADS[1].map(|lead| if bounds.growth == CARRIED { lead * bound } else { 0 });
            (multiples.map(|multiple| multiple * m.value()), multiples.map(|multiple| (1 << 52) - multiple))
        });
        let last = LastPass {
            shrink: [halves[0].0, halves[1].0],
            bounds: [halves[0].1, halves[1].1],
            rows: rows.0,
            lanes,
            records,
        };
        Self { passes, last, growth: bounds.growth }
    }
}

/// Writes the records of the last pass of the transform of `2^log_n` words whose butterfly tree has its root at node `top`.
fn write_last(m: &Modulus, log_n: u32, top: usize, roots: &[u64], records: &mut [u64]) {
    let pair = |node: usize| [roots[node], m.shoup_52(roots[node])];
    let level = log_n - LAST_STAGES;
    for (block, record) in records.chunks_exact_mut(LAST_RECORD).enumerate() {
        let (broadcast, vectors) = record.split_at_mut(16);
        let mut pairs = broadcast.chunks_exact_mut(2);
        let mut rows = vectors.chunks_exact_mut(8);
        for stage in 0..3 {
            for b in 0..1usize << stage {
                let node = (top << (level + stage)) + (block << stage) + b;
                if let Some(slot) = pairs.next() {
                    slot.copy_from_slice(&pair(node));
                }
                // After the transposition lane g works on the g-th eight coefficients.
                let group = |g: usize| (top << (level + 3 + stage)) + ((8 * block + g) << stage) + b;
                if let Some(row) = rows.next() {
                    row.iter_mut().enumerate().for_each(|(g, w)| *w = m.shoup_52(roots[group(g)]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntt_primes_below;

    #[test]
    fn bounds_by_size_of_prime() {
        let modulus = |bits| Modulus::new(ntt_primes_below(bits, 16).next().unwrap()).unwrap();
        let split = split_stages(10);
        let count = |b: &Bounds| b.passes.iter().filter(|(shrink, _)| *shrink).count();
        // Forward values grow to 68p.
        assert_eq!(count(&forward_bounds(&modulus(45), split)), 0);
        assert_eq!(count(&forward_bounds(&modulus(46), split)), 1);
        assert!(forward_bounds(&modulus(46), split).growth == LAZY);
        assert!(forward_bounds(&modulus(48), split).growth == LAZY);
        assert!(forward_bounds(&modulus(50), split).growth == STRICT);
        // Inverse values grow to 20^4·8^2·p.
        assert_eq!(count(&inverse_bounds(&modulus(28), split)), 0);
        for (bits, growth) in [(36, CARRIED), (46, CARRIED), (47, LAZY), (48, LAZY), (50, STRICT)] {
            assert_eq!(inverse_bounds(&modulus(bits), split).growth, growth, "{bits} bits");
        }
    }

    #[test]
    fn splits_add_up() {
        for stages in 2..=11 {
            assert_eq!(split_stages(stages).iter().sum::<u32>(), stages);
        }
    }
}
