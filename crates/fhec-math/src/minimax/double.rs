//! Double-double numbers: a pair of f64 whose sum has about 106 significant bits.
//!
//! Algorithms of Joldes, Muller, Popescu: *Tight and Rigorous Error Bounds for Basic Building Blocks of Double-Word Arithmetic*,
//! 2017; every result is within a few units of 2^-104 of the true one. (The crate `twofloat` 0.8.4 divides with the precision of a
//! single f64, which Remez' algorithm cannot live with.)

use std::ops::{Add, Div, Mul, Neg, Sub};

/// `hi + lo`, with `|lo|` at most half a unit in the last place of `hi`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Double {
    hi: f64,
    lo: f64,
}

/// `a + b` exactly, for `|a| ≥ |b|`.
fn fast_two_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    Double { hi, lo: b - (hi - a) }
}

/// `a + b` exactly.
fn two_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    let part = hi - b;
    Double { hi, lo: (a - part) + (b - (hi - part)) }
}

impl Double {
    /// The nearest f64.
    pub(super) fn to_f64(self) -> f64 {
        self.hi
    }
}

impl From<f64> for Double {
    fn from(hi: f64) -> Self {
        Double { hi, lo: 0.0 }
    }
}

impl Neg for Double {
    type Output = Double;
    fn neg(self) -> Double {
        Double { hi: -self.hi, lo: -self.lo }
    }
}

impl Add for Double {
    type Output = Double;
    fn add(self, other: Double) -> Double {
        let (s, t) = (two_sum(self.hi, other.hi), two_sum(self.lo, other.lo));
        let v = fast_two_sum(s.hi, s.lo + t.hi);
        fast_two_sum(v.hi, t.lo + v.lo)
    }
}

impl Sub for Double {
    type Output = Double;
    fn sub(self, other: Double) -> Double {
        self + -other
    }
}

impl Mul<f64> for Double {
    type Output = Double;
    fn mul(self, other: f64) -> Double {
        let hi = self.hi * other;
        let rest = self.hi.mul_add(other, -hi);
        fast_two_sum(hi, self.lo.mul_add(other, rest))
    }
}

impl Mul for Double {
    type Output = Double;
    fn mul(self, other: Double) -> Double {
        let hi = self.hi * other.hi;
        let rest = self.hi.mul_add(other.hi, -hi);
        let mixed = self.hi.mul_add(other.lo, self.lo * other.hi);
        fast_two_sum(hi, rest + mixed)
    }
}

impl Div for Double {
    type Output = Double;
    fn div(self, other: Double) -> Double {
        let first = self.hi / other.hi;
        let rest = self - other * first;
        let second = rest.hi / other.hi;
        let last = (rest - other * second).hi / other.hi;
        fast_two_sum(first, second) + Double::from(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use num_traits::{Signed, ToPrimitive};

    const BITS: i32 = 300;

    fn fixed(x: f64) -> BigInt {
        let (mut mantissa, mut shift) = (x, 0);
        while mantissa.fract() != 0.0 {
            (mantissa, shift) = (mantissa * 2.0, shift + 1);
        }
        BigInt::from(mantissa as i64) << (BITS - shift) as usize
    }

    fn exact(x: Double) -> BigInt {
        fixed(x.hi) + fixed(x.lo)
    }

    /// |found − expected| as a multiple of 2^-104 of `size`.
    fn units(found: Double, expected: &BigInt, size: f64) -> f64 {
        let off = (exact(found) - expected).abs() >> (BITS - 190) as usize;
        off.to_f64().expect("finite") / 2f64.powi(190) / size * 2f64.powi(104)
    }

    #[test]
    fn all_four_operations_have_a_hundred_bits() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        for _ in 0..5000 {
            let mut number = || two_sum(random(), random() * 2f64.powi(-54));
            let (a, b) = (number(), number());
            let (x, y) = (exact(a), exact(b));
            assert!(units(a + b, &(&x + &y), a.hi.abs().max(b.hi.abs())) < 4.0);
            assert!(units(a - b, &(&x - &y), a.hi.abs().max(b.hi.abs())) < 4.0);
            let product = (&x * &y) >> BITS as usize;
            assert!(units(a * b, &product, (a.hi * b.hi).abs()) < 4.0);
            assert!(units(a * b.hi, &((&x * fixed(b.hi)) >> BITS as usize), (a.hi * b.hi).abs()) < 4.0);
            if b.hi.abs() > 1e-3 {
                let quotient = (&x << BITS as usize) / &y;
                assert!(units(a / b, &quotient, (a.hi / b.hi).abs()) < 8.0);
            }
        }
    }
}
