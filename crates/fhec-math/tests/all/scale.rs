//! Scales are exact.

use fhec_math::{MathError, Scale};
use num_bigint::BigUint;
use num_traits::ToPrimitive;
use proptest::prelude::*;

const PRIMES: [u64; 5] = [3, 65537, 1_099_511_480_321, 1_099_512_004_609, 1_125_899_906_826_241];

fn any_scale() -> impl Strategy<Value = Scale> {
    (-60i64..60, prop::array::uniform5(-3i64..4)).prop_map(|(pow2, exponents)| {
        let mut parts: Vec<(u64, i64)> = PRIMES.into_iter().zip(exponents).collect();
        parts.retain(|&(_, k)| k != 0);
        parts.sort_unstable();
        Scale::from_parts(pow2, &parts).unwrap()
    })
}

proptest! {
    #[test]
    fn group_laws(a in any_scale(), b in any_scale(), c in any_scale()) {
        prop_assert_eq!(a.mul(&b), b.mul(&a));
        prop_assert_eq!(a.mul(&b).mul(&c), a.mul(&b.mul(&c)));
        prop_assert_eq!(a.mul(&b).div(&b), a.clone());
        prop_assert_eq!(a.div(&a), Scale::one());
        prop_assert_eq!(a.square(), a.mul(&a));
        prop_assert_eq!(a.recip().recip(), a.clone());
        let (pow2, parts) = a.to_parts();
        prop_assert_eq!(Scale::from_parts(pow2, &parts).unwrap(), a.clone());
        prop_assert!((a.mul(&b).log2() - a.log2() - b.log2()).abs() < 1e-9);
    }

    #[test]
    fn doubles_are_nearly_correctly_rounded(a in any_scale()) {
        let (pow2, parts) = a.to_parts();
        let side = |sign: i64| -> BigUint {
            parts.iter().filter(|(_, k)| k * sign > 0)
                .map(|&(q, k)| BigUint::from(q).pow(k.unsigned_abs() as u32)).product()
        };
        // 200 bits of quotient, then the exact double of that.
        let quotient = ((side(1) << 1200u32) / side(-1)).to_f64().unwrap_or(f64::INFINITY);
        let exact = if quotient.is_finite() {
            quotient * 2f64.powi(-600) * 2f64.powi(-600) * 2f64.powi(pow2 as i32)
        } else {
            ((side(1) << 400u32) / side(-1)).to_f64().unwrap() * 2f64.powi(-400) * 2f64.powi(pow2 as i32)
        };
        prop_assert!((a.to_f64() / exact - 1.0).abs() < 4.5e-16, "{} against {exact}", a.to_f64());
        prop_assert!((a.log2() - exact.log2()).abs() < 1e-12);
    }
}

#[test]
fn equality_is_exact() {
    let delta = Scale::pow2(40);
    let q = Scale::prime(1_099_511_480_321);
    let nearly = delta.square().div(&q);
    assert_ne!(nearly, delta);
    assert!((nearly.log2() - 40.0).abs() < 1e-6);
    assert_eq!(nearly.mul(&q), Scale::pow2(80));
    assert_eq!(Scale::pow2(3).to_f64(), 8.0);
    assert_eq!(Scale::pow2(-1074).to_f64(), f64::from_bits(1));
    assert_eq!(Scale::pow2(5000).to_f64(), f64::INFINITY);
    assert_eq!(Scale::pow2(-5000).to_f64(), 0.0);
    assert_eq!(Scale::pow2(5000).log2(), 5000.0);
    assert_eq!(q.to_f64(), 1_099_511_480_321.0);
}

#[test]
fn display_names_the_parts() {
    assert_eq!(Scale::pow2(40).to_string(), "2^40");
    let scale = Scale::pow2(80).div(&Scale::prime(1_099_511_480_321));
    assert_eq!(scale.to_string(), "2^40.0000 (2^80·1099511480321^-1)");
}

#[test]
fn bad_parts_are_refused() {
    let bad: [(i64, &[(u64, i64)]); 7] = [
        (0, &[(4, 1)]),
        (0, &[(1, 1)]),
        (0, &[(7, 0)]),
        (0, &[(7, 1), (7, 1)]),
        (0, &[(7, 1), (5, 1)]),
        (i64::MIN, &[]),
        (0, &[(7, i64::MAX)]),
    ];
    for (pow2, parts) in bad {
        assert!(matches!(Scale::from_parts(pow2, parts), Err(MathError::BadScale { .. })), "{parts:?}");
    }
}
