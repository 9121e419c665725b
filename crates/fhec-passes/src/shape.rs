//! The form of the parameters that cost and noise depend on: how many primes, how large, in which digits.

use fhec_math::bootstrap::{BootstrapSpec, LowRing};
use fhec_math::special_primes;
use fhec_plan::LinearTerm;
use fhec_plan::linear::LinearGroup;

/// Largest prime of a chain, as a log2: the engine wants all below 2^50.
pub const MAX_LOG2_PRIME: f64 = 49.9;

/// Sizes of ring, chain, special primes and digits. Primes need not exist yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Ring degree N = 2^log_n.
    pub log_n: u32,
    /// log2 of each prime of the chain.
    pub log2_q: Vec<f64>,
    /// log2 of each special prime.
    pub log2_p: Vec<f64>,
    /// Limbs of each key-switching digit, from `q_0` up.
    pub digits: Vec<usize>,
    /// The circuit of bootstraps, where the chain is laid out for it.
    pub bootstrap: Option<BootstrapSpec>,
}

impl Shape {
    /// The shape of real parameters.
    pub fn of(p: &fhec_plan::Parameters) -> Self {
        let log2 = |primes: &[u64]| primes.iter().map(|&q| (q as f64).log2()).collect();
        Shape {
            log_n: p.log_n,
            log2_q: log2(&p.q),
            log2_p: log2(&p.p),
            digits: p.digits.clone(),
            bootstrap: p.bootstrap.clone(),
        }
    }

    /// The shape of the few primes that a bootstrap goes down to a smaller ring with, in a ring of degree `2^log_n`.
    pub fn low(&self, ring: LowRing, log_n: u32) -> Self {
        Shape {
            log_n,
            log2_q: self.log2_q.iter().take(ring.level + 1).copied().collect(),
            log2_p: self.log2_p[..ring.special(&self.log2_q, &self.log2_p)].to_vec(),
            digits: vec![1; ring.level + 1],
            bootstrap: self.bootstrap.clone(),
        }
    }

    /// A plausible shape before parameters are selected: one limb a digit, one special prime.
    pub fn nominal(log_n: u32, top: usize) -> Self {
        Shape {
            log_n,
            log2_q: vec![30.0; top + 1],
            log2_p: vec![MAX_LOG2_PRIME],
            digits: vec![1; top + 1],
            bootstrap: None,
        }
    }

    /// Ring degree.
    pub fn n(&self) -> f64 {
        f64::from(1u32 << self.log_n)
    }

    /// Number of special primes.
    pub fn special(&self) -> usize {
        self.log2_p.len()
    }

    /// Special primes that a key switch at `level` takes.
    pub fn special_at(&self, level: usize) -> usize {
        let present = self.digit_ranges().filter(|r| r.start <= level);
        let digits = present.map(|r| self.log2_q[r.start..r.end.min(level + 1)].iter().sum());
        special_primes(digits.fold(0.0, f64::max), &self.log2_p)
    }

    /// log2 of Q·P.
    pub fn log2_qp(&self) -> f64 {
        self.log2_q.iter().chain(&self.log2_p).sum()
    }

    /// Number of digits that a ciphertext at `level` has.
    pub fn digits_at(&self, level: usize) -> usize {
        self.digit_ranges().filter(|r| r.start <= level).count()
    }

    /// Chain limbs of every digit.
    pub fn digit_ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let mut start = 0;
        self.digits.iter().map(move |&len| {
            start += len;
            start - len..start
        })
    }
}

/// Whether babies of a map are divided by P, by the engine's rule: dividing a baby transforms
/// `2(α + ℓ + 1)` limbs; it saves every giant `α + ℓ + 1` transforms and every product `2α` limb products,
/// a fifteenth of a transform each.
pub fn single_hoisting(shape: &Shape, level: usize, group: &LinearGroup) -> bool {
    let (special, limbs) = (shape.special_at(level) as f64, (level + 1) as f64);
    let division = 2.0 * (special + limbs) * group.bsgs.baby_switches() as f64;
    let saved =
        (special + limbs) * group.bsgs.giant_switches() as f64 + 2.0 * special / 15.0 * group.bsgs.products() as f64;
    division <= saved
}

/// The plan's form of a term, where only matrix and baby count matter.
pub(crate) fn plan_term(term: &fhec_ir::he::LinearTerm, src: u32) -> LinearTerm {
    LinearTerm { src: fhec_plan::Reg(src), matrix: term.matrix, baby: term.baby }
}
