//! Sums of many products with one reduction at the end.
//!
//! A product of two numbers below 2^50 is kept as two sums: of its low 52 bits and of the rest. The
//! sums of low halves stay below 2^64 for 4096 products; before that their upper bits move to the high
//! half, which has room for 2^16 products. This is the shape of the 52-bit multiply-add instructions.

use crate::cpu::dispatch;
use crate::{AlignedVec, Modulus};

/// Bits of the low half.
const LOW: u32 = 52;
const LOW_MASK: u64 = (1 << LOW) - 1;
/// Products that the low sums take before their upper bits must move.
///
/// One less than fit, so that the words a carry leaves count as one product.
pub(crate) const BEFORE_CARRY: usize = 4095;
/// Products that the high sums take.
pub const MAX_PRODUCTS: usize = 1 << 15;

/// An accumulator for sums of element-wise products of limbs, `Σ a_k ∘ b_k`.
///
/// The modulus is not needed until the end. Entries of `a` and `b` are below 2^50.
#[derive(Clone)]
pub struct LazyAccumulator {
    low: AlignedVec,
    high: AlignedVec,
    products: usize,
}

impl LazyAccumulator {
    /// An empty sum of limbs with `n` entries.
    pub fn new(n: usize) -> Self {
        Self { low: AlignedVec::zeroed(n), high: AlignedVec::zeroed(n), products: 0 }
    }

    /// Makes the sum zero again, without a new allocation.
    pub fn clear(&mut self) {
        self.low.fill(0);
        self.high.fill(0);
        self.products = 0;
    }

    /// Number of entries of the limbs.
    pub fn n(&self) -> usize {
        self.low.len()
    }

    /// Adds `a ∘ b`.
    ///
    /// # Panics
    /// When the lengths differ, or after [`MAX_PRODUCTS`] products.
    pub fn mac(&mut self, a: &[u64], b: &[u64]) {
        assert!(self.products < MAX_PRODUCTS, "too many products in one lazy sum");
        if self.products != 0 && self.products.is_multiple_of(BEFORE_CARRY) {
            for (low, high) in self.low.iter_mut().zip(self.high.iter_mut()) {
                *high += *low >> LOW;
                *low &= LOW_MASK;
            }
        }
        self.products += 1;
        mac_lazy(&mut self.low, &mut self.high, a, b);
    }

    /// `out` = the sum modulo `m`.
    ///
    /// # Panics
    /// When the length differs.
    pub fn reduce_into(&self, m: &Modulus, out: &mut [u64]) {
        reduce_lazy(m, &self.low, &self.high, out);
    }
}

/// One step of a lazy sum in buffers of the caller: adds the low 52 bits of each product to `low` and
/// the rest to `high`. At most 4095 steps from zero.
///
/// # Panics
/// When the lengths differ.
pub fn mac_lazy(low: &mut [u64], high: &mut [u64], a: &[u64], b: &[u64]) {
    let n = low.len();
    assert!(high.len() == n && a.len() == n && b.len() == n, "limbs of different lengths");
    debug_assert!(a.iter().chain(b).all(|&x| x < 1 << 50), "factor too large for a lazy sum");
    dispatch!(accumulate::mac(low, high, a, b));
}

/// `out = high·2^52 + low (mod m)`: the end of a lazy sum in buffers of the caller.
///
/// # Panics
/// When the lengths differ.
pub fn reduce_lazy(m: &Modulus, low: &[u64], high: &[u64], out: &mut [u64]) {
    let n = low.len();
    assert!(high.len() == n && out.len() == n, "limbs of different lengths");
    dispatch!(accumulate::reduce(m, low, high, out));
}

/// `out = Σ_k a_k ∘ b_k (mod m)` for at most 4095 pairs, without any buffer. Entries of `a` may be loose, below 2^52; those of `b` are
/// residues.
///
/// # Panics
/// When lengths differ or there are too many pairs.
pub fn dot_into(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
    check_dot(m, a, b, out.len());
    dispatch!(accumulate::dot(m, a, b, out));
}

/// `out_0 = Σ_k a_k ∘ b_k` and `out_1 = Σ_k a_k ∘ c_k (mod m)` with `b, c` the two lists of `b`, reading `a`
/// once: the inner product of a key switch, or a plaintext sum over both halves of ciphertexts.
///
/// # Panics
/// As [`dot_into`].
pub fn dot_pair_into(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    for (family, limb) in b.iter().zip(&out) {
        check_dot(m, a, family, limb.len());
    }
    dispatch!(accumulate::dot_pair(m, a, b, out));
}

fn check_dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], n: usize) {
    assert!(a.len() == b.len() && a.len() <= BEFORE_CARRY, "bad number of pairs in a lazy sum");
    check_factors(a, n, LOOSE);
    check_factors(b, n, m.value());
}

/// The first factors of a sum of products, loose residues below 2^52, one of which is multiplied by a residue on the way.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// Limbs.
    pub limbs: &'a [&'a [u64]],
    /// Which one is multiplied, and by what.
    pub scaled: Option<(usize, u64)>,
}

impl<'a> From<&'a [&'a [u64]]> for Factors<'a> {
    fn from(limbs: &'a [&'a [u64]]) -> Self {
        Self { limbs, scaled: None }
    }
}

impl<'a> From<&'a Vec<&'a [u64]>> for Factors<'a> {
    fn from(limbs: &'a Vec<&'a [u64]>) -> Self {
        Self::from(&limbs[..])
    }
}

impl<'a, const K: usize> From<&'a [&'a [u64]; K]> for Factors<'a> {
    fn from(limbs: &'a [&'a [u64]; K]) -> Self {
        Self::from(&limbs[..])
    }
}

/// What loose factors of a sum are below: the instructions take 52 bits.
pub(crate) const LOOSE: u64 = 1 << LOW;

/// Checks the limbs of a lazy sum.
pub(crate) fn check_factors(limbs: &[&[u64]], n: usize, below: u64) {
    for limb in limbs {
        assert_eq!(limb.len(), n, "limbs of different lengths");
        debug_assert!(limb.iter().all(|&x| x < below), "factor too large for a lazy sum");
    }
}

mod portable {
    use super::{LOW, LOW_MASK};
    use crate::Modulus;

    pub(super) fn mac(low: &mut [u64], high: &mut [u64], a: &[u64], b: &[u64]) {
        for (((l, h), &x), &y) in low.iter_mut().zip(high).zip(a).zip(b) {
            let product = u128::from(x) * u128::from(y);
            *l += product as u64 & LOW_MASK;
            *h += (product >> LOW) as u64;
        }
    }

    pub(super) fn reduce(m: &Modulus, low: &[u64], high: &[u64], out: &mut [u64]) {
        for ((o, &l), &h) in out.iter_mut().zip(low).zip(high) {
            *o = m.reduce_u128((u128::from(h) << LOW) + u128::from(l));
        }
    }

    pub(super) fn dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
        for (i, o) in out.iter_mut().enumerate() {
            let sum: u128 = a.iter().zip(b).map(|(x, y)| u128::from(x[i]) * u128::from(y[i])).sum();
            *o = m.reduce_u128(sum);
        }
    }

    pub(super) fn dot_pair(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
        for (family, limb) in b.into_iter().zip(out) {
            dot(m, a, family, limb);
        }
    }
}
