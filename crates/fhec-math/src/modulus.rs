//! Arithmetic modulo one word-sized odd number.

use crate::MathError;

/// Every modulus is below `2^MAX_BITS`, so that 52-bit multiply-add kernels have two spare bits.
pub const MAX_BITS: u32 = 50;

/// An odd modulus below 2^50 with the constants of its Barrett reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    p: u64,
    bits: u32,
    /// `⌊2^(2·bits+3) / p⌋`, for products of two residues.
    barrett_product: u64,
    /// `⌊2^64 / p⌋`, for single words.
    barrett_word: u64,
    /// `2^64 mod p`.
    two_64: u64,
    words: Words52,
}

/// Constants of a modulus for arithmetic with 52-bit multiply-add instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words52 {
    /// `⌊2^(bits+51) / p⌋`, for products of two residues.
    pub(crate) barrett_product: u64,
    /// `⌊2^52 / p⌋`, for words below 2^52.
    pub(crate) barrett_word: u64,
    /// `2^52 mod p` and its companion.
    pub(crate) two_52: (u64, u64),
    /// `2^104 mod p` and its companion.
    pub(crate) two_104: (u64, u64),
}

impl Modulus {
    /// Precomputes the constants of `p`.
    ///
    /// # Errors
    /// [`MathError::BadModulus`] when `p` is even, below 3, or not below 2^50.
    pub fn new(p: u64) -> Result<Self, MathError> {
        if p < 3 || p.is_multiple_of(2) || p >> MAX_BITS != 0 {
            return Err(MathError::BadModulus { value: p });
        }
        let bits = 64 - p.leading_zeros();
        let wide = u128::from(p);
        let two_52 = (1u64 << 52) % p;
        let two_104 = (u128::from(two_52) * u128::from(two_52) % wide) as u64;
        let companion = |w: u64| (w, ((u128::from(w) << 52) / wide) as u64);
        let words = Words52 {
            barrett_product: ((1u128 << (bits + 51)) / wide) as u64,
            barrett_word: (1u64 << 52) / p,
            two_52: companion(two_52),
            two_104: companion(two_104),
        };
        Ok(Self {
            p,
            bits,
            barrett_product: ((1u128 << (2 * bits + 3)) / wide) as u64,
            barrett_word: ((1u128 << 64) / wide) as u64,
            two_64: ((1u128 << 64) % wide) as u64,
            words,
        })
    }

    /// The modulus itself.
    #[inline]
    pub const fn value(&self) -> u64 {
        self.p
    }

    /// Number of bits of the modulus: `2^(bits−1) < p < 2^bits`.
    #[inline]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// The constants of the 52-bit kernels.
    #[inline]
    pub(crate) const fn words(&self) -> &Words52 {
        &self.words
    }

    /// The companion `⌊w·2^52/p⌋` of a fixed factor in the 52-bit kernels.
    #[inline]
    pub(crate) const fn shoup_52(&self, w: u64) -> u64 {
        (((w as u128) << 52) / self.p as u128) as u64
    }

    /// `a + b`.
    #[inline]
    pub const fn add(&self, a: u64, b: u64) -> u64 {
        let s = a + b;
        if s >= self.p { s - self.p } else { s }
    }

    /// `a − b`.
    #[inline]
    pub const fn sub(&self, a: u64, b: u64) -> u64 {
        if a >= b { a - b } else { a + self.p - b }
    }

    /// `−a`.
    #[inline]
    pub const fn neg(&self, a: u64) -> u64 {
        if a == 0 { 0 } else { self.p - a }
    }

    /// `a · b` (Barrett, Handbook of Applied Cryptography 14.42 with two guard bits: the quotient is
    /// at most one too small).
    #[inline]
    pub const fn mul(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.p && b < self.p);
        let x = a as u128 * b as u128;
        let top = (x >> (self.bits - 2)) as u64;
        let q = ((top as u128 * self.barrett_product as u128) >> (self.bits + 5)) as u64;
        let r = (x as u64).wrapping_sub(q.wrapping_mul(self.p));
        if r >= self.p { r - self.p } else { r }
    }

    /// `a^e` by square and multiply; the time depends on `e`.
    pub const fn pow(&self, a: u64, mut e: u64) -> u64 {
        let mut base = self.reduce(a);
        let mut acc = 1;
        while e != 0 {
            if e & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// The inverse of `a`, or `None` when `a` and the modulus have a common factor.
    pub fn inv(&self, a: u64) -> Option<u64> {
        let (mut r0, mut r1) = (self.p as i64, self.reduce(a) as i64);
        let (mut t0, mut t1) = (0i64, 1i64);
        while r1 != 0 {
            let q = r0 / r1;
            (r0, r1) = (r1, r0 - q * r1);
            (t0, t1) = (t1, t0 - q * t1);
        }
        (r0 == 1).then(|| self.reduce_i64(t0))
    }

    /// Any word, reduced.
    #[inline]
    pub const fn reduce(&self, a: u64) -> u64 {
        let q = ((a as u128 * self.barrett_word as u128) >> 64) as u64;
        let r = a - q * self.p;
        if r >= self.p { r - self.p } else { r }
    }

    /// Any double word, reduced.
    #[inline]
    pub const fn reduce_u128(&self, a: u128) -> u64 {
        let high = self.mul(self.reduce((a >> 64) as u64), self.two_64);
        self.add(high, self.reduce(a as u64))
    }

    /// The residue of a signed word.
    #[inline]
    pub const fn reduce_i64(&self, a: i64) -> u64 {
        let r = self.reduce(a.unsigned_abs());
        if a < 0 { self.neg(r) } else { r }
    }

    /// The residue of a signed double word.
    #[inline]
    pub const fn reduce_i128(&self, a: i128) -> u64 {
        let r = self.reduce_u128(a.unsigned_abs());
        if a < 0 { self.neg(r) } else { r }
    }

    /// The representative in `[−(p−1)/2, (p−1)/2]`.
    #[inline]
    pub const fn center(&self, a: u64) -> i64 {
        if a > self.p / 2 { a as i64 - self.p as i64 } else { a as i64 }
    }

    /// The companion `⌊w·2^64/p⌋` of a fixed factor `w < p`, for [`mul_shoup`](Self::mul_shoup).
    #[inline]
    pub const fn shoup(&self, w: u64) -> u64 {
        debug_assert!(w < self.p);
        (((w as u128) << 64) / self.p as u128) as u64
    }

    /// `a · w` for any word `a`, where `w_shoup` is [`shoup`](Self::shoup) of `w` (Harvey 2014, §3).
    #[inline]
    pub const fn mul_shoup(&self, a: u64, w: u64, w_shoup: u64) -> u64 {
        let q = ((a as u128 * w_shoup as u128) >> 64) as u64;
        let r = a.wrapping_mul(w).wrapping_sub(q.wrapping_mul(self.p));
        if r >= self.p { r - self.p } else { r }
    }

    /// Checks that every word is a canonical residue, as needed for data read from a file.
    ///
    /// # Errors
    /// [`MathError::NotReduced`] naming the first word that is not.
    pub fn check_reduced(&self, limb: &[u64]) -> Result<(), MathError> {
        match limb.iter().position(|&x| x >= self.p) {
            None => Ok(()),
            Some(index) => Err(MathError::NotReduced { value: limb[index], index, modulus: self.p }),
        }
    }
}
