//! Modular arithmetic and primes against plain 128-bit arithmetic.

use fhec_math::{MathError, Modulus, is_prime, ntt_primes_below, ntt_primes_near};
use proptest::prelude::*;

fn any_modulus() -> impl Strategy<Value = Modulus> {
    (2u32..=50, any::<u64>()).prop_map(|(bits, raw)| {
        let p = ((raw & ((1 << bits) - 1)) | (1 << (bits - 1)) | 1).max(3);
        Modulus::new(p).unwrap()
    })
}

proptest! {
    #[test]
    fn agrees_with_wide_arithmetic(m in any_modulus(), a: u64, b: u64, wide: u128, e in 0u64..1000) {
        let p = u128::from(m.value());
        let (x, y) = (m.reduce(a), m.reduce(b));
        prop_assert_eq!(u128::from(x), u128::from(a) % p);
        prop_assert_eq!(u128::from(m.add(x, y)), (u128::from(x) + u128::from(y)) % p);
        prop_assert_eq!(u128::from(m.sub(x, y)), (u128::from(x) + p - u128::from(y)) % p);
        prop_assert_eq!(u128::from(m.neg(x)), (p - u128::from(x)) % p);
        prop_assert_eq!(u128::from(m.mul(x, y)), u128::from(x) * u128::from(y) % p);
        prop_assert_eq!(m.mul_shoup(a, y, m.shoup(y)), m.mul(x, y));
        prop_assert_eq!(u128::from(m.reduce_u128(wide)), wide % p);
        let signed = a as i64;
        prop_assert_eq!(i128::from(m.reduce_i64(signed)), i128::from(signed).rem_euclid(p as i128));
        let wide = wide as i128;
        prop_assert_eq!(m.reduce_i128(wide) as i128, wide.rem_euclid(p as i128));
        prop_assert_eq!(m.pow(x, e), (0..e).fold(1 % m.value(), |acc, _| m.mul(acc, x)));
        let centered = m.center(x);
        prop_assert!(centered.unsigned_abs() <= m.value() / 2);
        prop_assert_eq!(m.reduce_i64(centered), x);
        match m.inv(x) {
            Some(inverse) => prop_assert_eq!(m.mul(x, inverse), 1),
            None => prop_assert_ne!(num_integer::gcd(x, m.value()), 1),
        }
    }
}

#[test]
fn extremes() {
    for bits in 2..=50 {
        for p in [(1u64 << bits) - 1, (1 << (bits - 1)) + 1] {
            let m = Modulus::new(p).unwrap();
            for a in [0, 1, p / 2, p / 2 + 1, p - 1] {
                for b in [0, 1, p / 2, p - 1] {
                    assert_eq!(u128::from(m.mul(a, b)), u128::from(a) * u128::from(b) % u128::from(p));
                }
            }
            for x in [u128::MAX, u128::from(u64::MAX), 1 << 127, 1 << 64, 0] {
                assert_eq!(u128::from(m.reduce_u128(x)), x % u128::from(p));
            }
            assert_eq!(m.reduce(u64::MAX), u64::MAX % p);
            assert_eq!(i128::from(m.reduce_i64(i64::MIN)), i128::from(i64::MIN).rem_euclid(i128::from(p)));
            assert_eq!(m.reduce_i128(i128::MIN) as i128, i128::MIN.rem_euclid(i128::from(p)));
        }
    }
}

#[test]
fn bad_moduli_are_refused() {
    for value in [0, 1, 2, 4, 1 << 49, 1 << 50, (1 << 50) + 1, u64::MAX] {
        assert_eq!(Modulus::new(value), Err(MathError::BadModulus { value }));
    }
    assert!(Modulus::new((1 << 50) - 1).is_ok());
    let m = Modulus::new(17).unwrap();
    assert_eq!(m.check_reduced(&[0, 16]), Ok(()));
    let error = MathError::NotReduced { value: 17, index: 1, modulus: 17 };
    assert_eq!(m.check_reduced(&[3, 17, 18]), Err(error));
}

#[test]
fn primality() {
    let mut sieve = vec![true; 20_000];
    sieve[0] = false;
    sieve[1] = false;
    for i in 2..sieve.len() {
        if sieve[i] {
            (2 * i..sieve.len()).step_by(i).for_each(|j| sieve[j] = false);
        }
        assert_eq!(is_prime(i as u64), sieve[i], "{i}");
    }
    // Strong pseudoprimes to the first primes, Carmichael numbers, squares, the largest 64-bit prime.
    for n in [3_215_031_751, 3_474_749_660_383, 341_550_071_728_321, 3_825_123_056_546_413_051, 561] {
        assert!(!is_prime(n), "{n}");
    }
    assert!(!is_prime(4_294_967_291 * 4_294_967_291));
    assert!(is_prime(18_446_744_073_709_551_557));
    assert!(is_prime((1 << 61) - 1));
}

#[test]
fn primes_near_alternate_and_come_closest_first() {
    for log_n in [12, 13, 16] {
        for log2 in [30.0, 39.7, 40.0, 45.0] {
            let target = f64::exp2(log2);
            let primes: Vec<u64> = ntt_primes_near(log2, log_n).take(20).collect();
            let (below, above): (Vec<u64>, Vec<u64>) = primes.iter().partition(|&&p| (p as f64) < target);
            assert!(below.is_sorted_by(|a, b| a > b) && above.is_sorted_by(|a, b| a < b));
            for pair in primes.windows(2) {
                assert_ne!((pair[0] as f64) < target, (pair[1] as f64) < target, "sides alternate");
            }
            for &p in &primes {
                assert!(is_prime(p) && p % (2 << log_n) == 1);
            }
            // Nothing is left out between the centre and the last one taken.
            let all = |lo: u64, hi: u64| (lo..hi).filter(|p| p % (2 << log_n) == 1 && is_prime(*p)).count();
            if log_n == 16 {
                let lowest = *below.last().unwrap();
                let span = (target as u64 - lowest) >> 17;
                let found = (0..=span).filter(|k| is_prime(lowest + (k << 17))).count();
                assert_eq!(found, below.len());
            } else if log2 == 30.0 {
                assert_eq!(all(*below.last().unwrap(), target as u64), below.len());
            }
        }
    }
}

#[test]
fn primes_stay_below_the_limit() {
    let primes: Vec<u64> = ntt_primes_near(50, 16).take(10).collect();
    assert_eq!(primes, ntt_primes_below(50, 16).take(10).collect::<Vec<_>>());
    assert!(primes.iter().all(|&p| p < 1 << 50) && primes.is_sorted_by(|a, b| a > b));
    assert_eq!(ntt_primes_below(60, 16).next(), ntt_primes_below(50, 16).next());
    // 2^12 has few 20-bit primes; the iterator ends instead of running away.
    assert!(ntt_primes_below(20, 12).count() > 5);
    assert_eq!(ntt_primes_below(17, 17).count(), 0);
}
