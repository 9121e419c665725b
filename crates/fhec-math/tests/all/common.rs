//! Helpers shared by the test files.

use fhec_math::{Modulus, ntt_primes_below};

/// Deterministic words below `p` for test inputs (xorshift64*).
pub(crate) fn words(seed: u64, n: usize, p: u64) -> Vec<u64> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            x ^= x >> 12;
            x ^= x << 25;
            x ^= x >> 27;
            let word = x.wrapping_mul(0x2545_f491_4f6c_dd1d);
            ((u128::from(word) * u128::from(p)) >> 64) as u64
        })
        .collect()
}

/// The `count` largest primes below `2^bits` for the degree.
pub(crate) fn moduli(bits: u32, log_n: u32, count: usize) -> Vec<Modulus> {
    let primes: Vec<u64> = ntt_primes_below(bits, log_n).take(count).collect();
    assert_eq!(primes.len(), count, "not enough {bits}-bit primes at 2^{log_n}");
    primes.into_iter().map(|p| Modulus::new(p).unwrap()).collect()
}

/// Words with the values at which reductions go wrong in front.
pub(crate) fn edge_words(seed: u64, n: usize, p: u64) -> Vec<u64> {
    let mut out = words(seed, n, p);
    let edges = [0, 1, 2, p / 2, p / 2 + 1, p - 2, p - 1];
    for (slot, edge) in out.iter_mut().zip(edges) {
        *slot = edge % p;
    }
    out
}
