//! Exact scales.

use std::collections::BTreeMap;
use std::fmt;

use crate::MathError;

/// A positive scale `2^e · Π q_i^{k_i}` with distinct odd primes `q_i`, held exactly.
///
/// Two ciphertexts may be added only when their scales are *equal*; with floating-point scales that
/// question has no good answer. Equality is exact because the factorisation is unique; the bases given to
/// [`prime`](Self::prime) must therefore be prime, as the moduli of a chain are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scale {
    pow2: i64,
    /// Prime to non-zero exponent.
    primes: BTreeMap<u64, i64>,
}

impl Scale {
    /// The scale 1.
    pub fn one() -> Self {
        Self::pow2(0)
    }

    /// `2^e`.
    pub fn pow2(e: i64) -> Self {
        Self { pow2: e, primes: BTreeMap::new() }
    }

    /// The odd prime `q`.
    ///
    /// # Panics
    /// When `q` is even or 1.
    pub fn prime(q: u64) -> Self {
        assert!(q > 1 && !q.is_multiple_of(2), "scale base {q} is not an odd prime");
        Self { pow2: 0, primes: BTreeMap::from([(q, 1)]) }
    }

    /// The product of two scales.
    pub fn mul(&self, other: &Self) -> Self {
        self.combine(other, 1)
    }

    /// The quotient of two scales.
    pub fn div(&self, other: &Self) -> Self {
        self.combine(other, -1)
    }

    /// The square.
    pub fn square(&self) -> Self {
        self.combine(self, 1)
    }

    /// `1 / self`.
    pub fn recip(&self) -> Self {
        Self::one().div(self)
    }

    fn combine(&self, other: &Self, sign: i64) -> Self {
        let mut result = self.clone();
        result.pow2 += sign * other.pow2;
        for (&q, &k) in &other.primes {
            let exponent = result.primes.entry(q).or_insert(0);
            *exponent += sign * k;
            if *exponent == 0 {
                result.primes.remove(&q);
            }
        }
        result
    }

    /// The nearest double or one next to it; infinite or zero outside the range of doubles.
    pub fn to_f64(&self) -> f64 {
        let (mantissa, exponent) = self.normalized();
        let m = mantissa as f64;
        // Two steps, so that neither power of two over- or underflows before the product does.
        let e = exponent.clamp(-4000, 4000) as i32;
        m * 2f64.powi(e / 2) * 2f64.powi(e - e / 2)
    }

    /// log2 of the scale, correct to about 2^-45.
    pub fn log2(&self) -> f64 {
        let (mantissa, exponent) = self.normalized();
        (mantissa as f64 / 2f64.powi(63)).log2() + (exponent + 63) as f64
    }

    /// `mantissa · 2^exponent` with `mantissa ≥ 2^63`, relative error far below 2^-53.
    fn normalized(&self) -> (u64, i64) {
        let mut acc = Float::one();
        let mut denominator = Float::one();
        for (&q, &k) in &self.primes {
            let side = if k > 0 { &mut acc } else { &mut denominator };
            let power = Float::integer(q).pow(k.unsigned_abs());
            *side = side.mul(power);
        }
        let ratio = acc.div(denominator);
        ((ratio.mantissa >> 64) as u64, ratio.exponent + 64 + self.pow2)
    }

    /// The exponent of 2 and the list of primes with their exponents, sorted, for serialisation.
    pub fn to_parts(&self) -> (i64, Vec<(u64, i64)>) {
        (self.pow2, self.primes.iter().map(|(&q, &k)| (q, k)).collect())
    }

    /// The inverse of [`to_parts`](Self::to_parts), for data that come from outside.
    ///
    /// # Errors
    /// [`MathError::BadScale`] when primes are even, 1, repeated or unsorted, or exponents zero or absurd.
    pub fn from_parts(pow2: i64, primes: &[(u64, i64)]) -> Result<Self, MathError> {
        const MAX_EXPONENT: u64 = 1 << 20;
        let bad = |reason| Err(MathError::BadScale { reason });
        if primes.iter().any(|&(q, _)| q < 3 || q.is_multiple_of(2)) {
            return bad("a base is not an odd prime");
        }
        if !primes.is_sorted_by(|a, b| a.0 < b.0) {
            return bad("bases are not in strictly increasing order");
        }
        if primes.iter().any(|&(_, k)| k == 0) {
            return bad("an exponent is zero");
        }
        if primes.iter().map(|&(_, k)| k).chain([pow2]).any(|k| k.unsigned_abs() > MAX_EXPONENT) {
            return bad("an exponent is too large");
        }
        Ok(Self { pow2, primes: primes.iter().copied().collect() })
    }
}

impl fmt::Display for Scale {
    /// `2^40`, or with primes `2^40.0013 (2^80·1099511480321^-1)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.primes.is_empty() {
            return write!(f, "2^{}", self.pow2);
        }
        write!(f, "2^{:.4} (2^{}", self.log2(), self.pow2)?;
        for (q, k) in &self.primes {
            write!(f, "·{q}^{k}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scale({self})")
    }
}

/// A positive number `mantissa · 2^exponent` with a full 128-bit mantissa (top bit set).
#[derive(Clone, Copy)]
struct Float {
    mantissa: u128,
    exponent: i64,
}

impl Float {
    fn one() -> Self {
        Self::integer(1)
    }

    fn integer(x: u64) -> Self {
        let shift = u128::from(x).leading_zeros();
        Self { mantissa: u128::from(x) << shift, exponent: -i64::from(shift) }
    }

    /// Product with a relative error below 2^-125.
    fn mul(self, other: Self) -> Self {
        let split = |x: u128| (x >> 64, x & u128::from(u64::MAX));
        let ((a1, a0), (b1, b0)) = (split(self.mantissa), split(other.mantissa));
        // The middle terms lose their low words; the sum cannot overflow: it is below 2^128.
        let high = a1 * b1 + ((a1 * b0) >> 64) + ((a0 * b1) >> 64);
        let shift = high.leading_zeros();
        Self { mantissa: high << shift, exponent: self.exponent + other.exponent + 128 - i64::from(shift) }
    }

    /// Quotient with a relative error below 2^-62.
    fn div(self, other: Self) -> Self {
        let quotient = self.mantissa / (other.mantissa >> 64);
        let shift = quotient.leading_zeros();
        Self { mantissa: quotient << shift, exponent: self.exponent - other.exponent - 64 - i64::from(shift) }
    }

    fn pow(self, mut e: u64) -> Self {
        let (mut base, mut acc) = (self, Self::one());
        while e != 0 {
            if e & 1 == 1 {
                acc = acc.mul(base);
            }
            base = base.mul(base);
            e >>= 1;
        }
        acc
    }
}
