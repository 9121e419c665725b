//! The transform against its definition and against schoolbook products.

use fhec_math::cpu::{Kernels, detect};
use fhec_math::{Modulus, NttTable, ntt_primes_below, ntt_primes_near};

/// Deterministic words for test inputs.
fn words(seed: u64, n: usize, p: u64) -> Vec<u64> {
    let mut x = seed | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (u128::from(x) * u128::from(p) >> 64) as u64
        })
        .collect()
}

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

fn primes(log_n: u32) -> Vec<u64> {
    let mut primes: Vec<u64> = [50, 49, 46, 40, 35, 30, 26, 25]
        .iter()
        .flat_map(|&bits| ntt_primes_below(bits, log_n).take(2).chain(ntt_primes_near(f64::from(bits), log_n).take(2)))
        .collect();
    primes.sort_unstable();
    primes.dedup();
    primes
}

#[test]
fn values_are_those_of_the_definition() {
    for log_n in 4..=8 {
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
        for p in primes(log_n) {
            let n = 1usize << log_n;
            let edge = vec![p - 1; n];
            for table in tables(p, log_n) {
                let m = *table.modulus();
                for (a, b) in [(words(p, n, p), words(p + 1, n, p)), (edge.clone(), edge.clone())] {
                    let (mut x, mut y) = (a.clone(), b.clone());
                    table.forward(&mut x);
                    table.forward(&mut y);
                    fhec_math::pointwise::mul_assign(&m, &mut x, &y);
                    table.inverse(&mut x);
                    assert_eq!(x, schoolbook(&m, &a, &b), "p={p} log_n={log_n}");
                }
            }
        }
    }
}
