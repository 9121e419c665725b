//! The transform against its definition and against schoolbook products.

use fhec_math::cpu::{Kernels, detect};
use fhec_math::{Fetch, MathError, Modulus, NttTable, ntt_primes_below, ntt_primes_near, pointwise};

use proptest::prelude::*;

use crate::common::words;

fn tables(p: u64, log_n: u32) -> Vec<NttTable> {
    let mut kinds = vec![Kernels::Portable];
    if detect() != Kernels::Portable {
        kinds.push(detect());
    }
    kinds.into_iter().map(|k| NttTable::with_kernels(p, log_n, k).unwrap()).collect()
}

fn schoolbook(m: &Modulus, a: &[u64], b: &[u64]) -> Vec<u64> {
    let n = a.len();
    let mut out = vec![0u64; n];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let product = m.mul(x, y);
            let slot = &mut out[(i + j) % n];
            *slot = if i + j < n { m.add(*slot, product) } else { m.sub(*slot, product) };
        }
    }
    out
}

/// Primes on both sides of every width at which the kernels change their reductions.
fn primes(log_n: u32) -> Vec<u64> {
    let mut primes: Vec<u64> = Vec::new();
    for bits in [50, 49, 48, 47, 46, 45, 44, 40, 36, 35, 34, 30, 27, 25] {
        primes.extend(ntt_primes_below(bits, log_n).take(1));
        if bits < 50 {
            primes.extend(ntt_primes_near(bits, log_n).filter(|p| p >> bits == 1).take(1));
        }
        // Fractions of a power of two, where 2^52/p is just below or above a bound.
        primes.extend(ntt_primes_near(f64::from(bits) - 0.5, log_n).take(1));
    }
    primes.sort_unstable();
    primes.dedup();
    primes.retain(|p| p % (2 << log_n) == 1);
    primes
}

#[test]
fn values_are_those_of_the_definition() {
    for log_n in 4..=9 {
        for p in primes(log_n) {
            let n = 1usize << log_n;
            for table in tables(p, log_n) {
                let m = *table.modulus();
                assert_eq!(m.pow(table.psi(), n as u64), p - 1, "ψ^N = −1");
                let a = words(p, n, p);
                let mut out = a.clone();
                table.forward(&mut out);
                for (i, &value) in out.iter().enumerate() {
                    let point = m.pow(table.psi(), 2 * ((i as u64).reverse_bits() >> (64 - log_n)) + 1);
                    let direct = a.iter().rev().fold(0, |acc, &c| m.add(m.mul(acc, point), c));
                    assert_eq!(value, direct, "p={p} log_n={log_n} i={i}");
                }
            }
        }
    }
}

#[test]
fn products_are_negacyclic() {
    for log_n in 4..=10 {
        for p in primes(log_n).into_iter().step_by(if log_n > 8 { 5 } else { 1 }) {
            let n = 1usize << log_n;
            let edge = vec![p - 1; n];
            for table in tables(p, log_n) {
                let m = *table.modulus();
                for (a, b) in [(words(p, n, p), words(p + 1, n, p)), (edge.clone(), edge.clone())] {
                    let (mut x, mut y) = (a.clone(), b.clone());
                    table.forward(&mut x);
                    table.forward(&mut y);
                    pointwise::mul_assign(&m, &mut x, &y);
                    table.inverse(&mut x);
                    assert_eq!(x, schoolbook(&m, &a, &b), "p={p} log_n={log_n}");
                }
            }
        }
    }
}

/// Inputs that drive lazy values to their bounds.
fn hard_inputs(p: u64, n: usize) -> Vec<Vec<u64>> {
    let mut one_hot = vec![0; n];
    one_hot[n - 1] = p - 1;
    let alternating = (0..n).map(|i| if i % 2 == 0 { p - 1 } else { 0 }).collect();
    let halves = (0..n).map(|i| if i < n / 2 { p - 1 } else { 1 }).collect();
    vec![words(p, n, p), vec![p - 1; n], vec![0; n], one_hot, alternating, halves]
}

#[test]
fn kernels_agree_for_every_degree() {
    for log_n in 8..=17 {
        let step = if log_n > 11 { 5 } else { 1 };
        for p in primes(log_n).into_iter().step_by(step) {
            let tables = tables(p, log_n);
            for a in hard_inputs(p, 1 << log_n) {
                let mut expected = a.clone();
                tables[0].forward(&mut expected);
                for table in &tables {
                    let mut x = a.clone();
                    table.forward(&mut x);
                    assert!(x == expected, "forward, p={p} log_n={log_n}");
                    let mut back = vec![7; x.len()];
                    let mut fetch = Fetch::new([&a[..]]);
                    table.fetch(true, None, &mut fetch);
                    table.inverse_from(&x, &mut back, &mut fetch);
                    assert!(back == a, "inverse of forward elsewhere, p={p} log_n={log_n}");
                    table.inverse(&mut x);
                    assert!(x == a, "inverse of forward, p={p} log_n={log_n}");
                    table.inverse(&mut x);
                    table.forward(&mut x);
                    assert!(x == a, "forward of inverse, p={p} log_n={log_n}");
                }
            }
        }
    }
}

#[test]
fn loose_transforms_are_congruent() {
    for log_n in 4..=17 {
        let step = if log_n > 11 { 5 } else { 1 };
        for p in primes(log_n).into_iter().step_by(step) {
            let m = Modulus::new(p).unwrap();
            for table in tables(p, log_n) {
                for a in hard_inputs(p, 1 << log_n) {
                    let mut expected = a.clone();
                    table.forward(&mut expected);
                    // As loose as they may be: everywhere, and here and there.
                    for more in [|_| 3, |i: usize| i as u64 % 4] {
                        let loose: Vec<u64> = a.iter().enumerate().map(|(i, &x)| x + more(i) * p).collect();
                        let (mut there, mut here) = (vec![7; a.len()], loose.clone());
                        let mut fetch = Fetch::new([&a[..]]);
                        table.fetch(false, None, &mut fetch);
                        table.forward_loose(Some(&loose), &mut there, &mut fetch);
                        table.forward_loose(None, &mut here, &mut fetch);
                        assert!(there == here, "in place or not, p={p} log_n={log_n}");
                        assert!(here.iter().all(|&x| x < (1 << 52) - p), "bound, p={p} log_n={log_n}");
                        assert!(here.iter().map(|&x| m.reduce(x)).eq(expected.iter().copied()), "p={p} log_n={log_n}");
                    }
                }
            }
        }
    }
}

#[test]
fn symmetric_polynomials_take_half_of_everything() {
    for log_n in 4..=17 {
        let step = if log_n > 11 { 5 } else { 1 };
        for p in primes(log_n).into_iter().step_by(step) {
            let (m, half) = (Modulus::new(p).unwrap(), 1usize << (log_n - 1));
            let sign = |k: usize| if k.is_multiple_of(3) { -1 } else { 1 };
            let small = words(p, half, p).into_iter().enumerate().map(|(k, c)| sign(k) * c as i64).collect();
            let large: Vec<i64> = words(p + 1, half, 1 << 62).into_iter().map(|c| c as i64 - (1 << 61)).collect();
            let bounds = |b: i64| vec![b; half];
            let p = p as i64;
            let list = [small, large, bounds(p - 1), bounds(1 - p), bounds(p), bounds(-p), bounds(0), bounds(i64::MAX)];
            for coeffs in list {
                // c_{N−k} = −c_k, with nothing in the middle.
                let mut expected: Vec<u64> = coeffs.iter().map(|&c| m.reduce_i64(c)).collect();
                expected.push(0);
                expected.extend(coeffs[1..].iter().rev().map(|&c| m.neg(m.reduce_i64(c))));
                for table in &tables(m.value(), log_n) {
                    let mut full = expected.clone();
                    table.forward(&mut full);
                    let mut front = vec![7; half];
                    table.forward_symmetric(&coeffs, &mut front);
                    assert!(front == full[..half], "p={p} log_n={log_n}");
                    assert!(full.iter().eq(full.iter().rev()), "the values do not read the same from both ends");
                }
            }
        }
    }
}

#[test]
fn large_products_at_some_coefficients() {
    for log_n in 11..=17 {
        let n = 1usize << log_n;
        for p in primes(log_n).into_iter().rev().step_by(11) {
            let table = NttTable::get(p, log_n).unwrap();
            let m = *table.modulus();
            let (a, b) = (words(p, n, p), words(p + 2, n, p));
            let (mut x, mut y) = (a.clone(), b.clone());
            table.forward(&mut x);
            table.forward(&mut y);
            pointwise::mul_assign(&m, &mut x, &y);
            table.inverse(&mut x);
            for k in [0, 1, n / 2 - 1, n - 1] {
                let term = |i: usize| {
                    let product = m.mul(a[i], b[(k + n - i) % n]);
                    if i <= k { product } else { m.neg(product) }
                };
                let direct = (0..n).map(term).fold(0, |acc, t| m.add(acc, t));
                assert_eq!(x[k], direct, "p={p} log_n={log_n} k={k}");
            }
        }
    }
}

#[test]
fn unfit_primes_are_refused() {
    let p = ntt_primes_below(40, 12).find(|p| p % (4 << 12) != 1).unwrap();
    assert!(NttTable::get(p, 12).is_ok());
    assert_eq!(NttTable::get(p, 13).unwrap_err(), MathError::NotNttFriendly { value: p, log_n: 13 });
    assert_eq!(NttTable::get(p, 3).unwrap_err(), MathError::BadDegree { log_n: 3 });
    assert_eq!(NttTable::get(p, 18).unwrap_err(), MathError::BadDegree { log_n: 18 });
    assert!(matches!(NttTable::get(1 << 40, 12), Err(MathError::BadModulus { .. })));
    // 2^13·k + 1 that is no prime.
    let composite = (1..).map(|k| (k << 13) + 1).find(|&x| x > 1 << 30 && !fhec_math::is_prime(x)).unwrap();
    assert!(matches!(NttTable::get(composite, 12), Err(MathError::NotNttFriendly { .. })));
}

#[test]
fn roots_of_unity_are_frozen() {
    // Files hold values in evaluation form: their meaning may never change.
    for (p, log_n, psi) in FROZEN {
        assert_eq!(NttTable::get(p, log_n).unwrap().psi(), psi, "p={p} log_n={log_n}");
    }
}

const FROZEN: [(u64, u32, u64); 3] =
    [(65537, 4, 8192), (1_099_510_054_913, 16, 565_832_076_442), (1_125_899_902_124_033, 17, 909_991_236_253_667)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn round_trip_and_linearity(log_n in 4u32..13, bits in 25u32..51, skip in 0usize..20, seed: u64, c: u64) {
        let p = ntt_primes_below(bits, log_n).nth(skip).unwrap();
        let n = 1 << log_n;
        let (a, b) = (words(seed, n, p), words(seed ^ 77, n, p));
        for table in tables(p, log_n) {
            let m = *table.modulus();
            let c = m.reduce(c);
            let mut sum = a.clone();
            pointwise::mul_scalar_add_assign(&m, &mut sum, &b, c);
            table.forward(&mut sum);
            let (mut x, mut y) = (a.clone(), b.clone());
            table.forward(&mut x);
            table.forward(&mut y);
            pointwise::mul_scalar_add_assign(&m, &mut x, &y, c);
            prop_assert!(x == sum, "NTT(a + c·b) = NTT(a) + c·NTT(b), p={p}");
            table.inverse(&mut y);
            prop_assert!(y == b, "p={p}");
        }
    }
}
