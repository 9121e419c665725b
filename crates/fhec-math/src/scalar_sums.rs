//! Sums of limbs times scalars, several sums at once.
//!
//! With one image per slot a linear layer is `out_j = Σ_i w_ji · x_i` over limbs `x_i`, every weight one residue. Several sums share
//! what is read of an input, and their accumulators (low and high halves, as in [`crate::accumulate`]) stay in registers until
//! the single reduction at the end. Inputs are first brought together ([`gather`]): limbs of a power of two of words all lie in
//! the same few sets of a cache, and would push each other out.

use crate::Modulus;
use crate::accumulate::BEFORE_CARRY;
use crate::cpu::dispatch;

/// Words that are handled together.
pub const LANES: usize = 8;
/// Most sums at once.
pub const MAX_SUMS: usize = 8;
/// Sums of a map that the engine holds before it rescales them, up to [`MAX_SUMS`] more; the compiler counts their memory.
pub const WAVE: usize = 128;

/// Interleaves parts of limbs, all of one length that is a multiple of [`LANES`]: word `8v + l` of limb `i` goes to
/// `out[(v · limbs + i) · 8 + l]`.
///
/// # Panics
/// When lengths do not fit.
pub fn gather(limbs: &[&[u64]], out: &mut [u64]) {
    let words = limbs.first().map_or(0, |l| l.len());
    assert!(words.is_multiple_of(LANES) && out.len() == words * limbs.len(), "interleaved limbs of another size");
    let count = limbs.len();
    let (out, _) = out.as_chunks_mut::<LANES>();
    for (i, limb) in limbs.iter().enumerate() {
        assert_eq!(limb.len(), words, "limbs of different lengths");
        let (limb, _) = limb.as_chunks::<LANES>();
        for (v, lanes) in limb.iter().enumerate() {
            out[v * count + i] = *lanes;
        }
    }
}

/// `out[r] = Σ_k weights[k · R + r] · x_{inputs[k]}` modulo `m` for the `R` parts of limbs in `out`, of equal length, where `x` are the
/// `count` interleaved limbs of `packed` ([`gather`]). Weights and words of `x` are residues modulo `m`.
///
/// # Panics
/// When lengths do not fit, an input does not exist, or there are no sums or more than [`MAX_SUMS`].
pub fn scalar_sums(m: &Modulus, packed: &[u64], count: usize, inputs: &[u32], weights: &[u64], out: &mut [&mut [u64]]) {
    let words = out.first().map_or(0, |l| l.len());
    assert!((1..=MAX_SUMS).contains(&out.len()), "{} sums at once", out.len());
    assert!(out.iter().all(|l| l.len() == words) && words.is_multiple_of(LANES), "sums of different lengths");
    assert!(packed.len() == words * count, "interleaved limbs of another size");
    assert!(weights.len() == inputs.len() * out.len(), "{} weights for {} inputs", weights.len(), inputs.len());
    assert!(inputs.iter().all(|&i| (i as usize) < count), "an input that does not exist");
    debug_assert!(packed.iter().chain(weights).all(|&x| x < 1 << 50), "factor too large for a lazy sum");
    dispatch!(scalar_sums::scalar_sums(m, packed, count, inputs, weights, out));
}

/// Inputs that are added up between two reductions.
pub(crate) const SEGMENT: usize = BEFORE_CARRY;

mod portable {
    use super::{LANES, SEGMENT};
    use crate::Modulus;

    pub(super) fn scalar_sums(
        m: &Modulus,
        packed: &[u64],
        count: usize,
        inputs: &[u32],
        weights: &[u64],
        out: &mut [&mut [u64]],
    ) {
        let sums = out.len();
        let (packed, _) = packed.as_chunks::<LANES>();
        for (r, out) in out.iter_mut().enumerate() {
            for (v, lanes) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut total = [0; LANES];
                for (k, segment) in inputs.chunks(SEGMENT).enumerate() {
                    let mut sum = [0u128; LANES];
                    for (i, &input) in segment.iter().enumerate() {
                        let w = u128::from(weights[(k * SEGMENT + i) * sums + r]);
                        let x = &packed[v * count + input as usize];
                        sum.iter_mut().zip(x).for_each(|(s, &x)| *s += w * u128::from(x));
                    }
                    total.iter_mut().zip(sum).for_each(|(t, s)| *t = m.add(*t, m.reduce_u128(s)));
                }
                *lanes = total;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntt_primes_near;

    /// Words that look random and take both ends of the range.
    fn words(m: &Modulus, n: usize, seed: u64) -> Vec<u64> {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        (0..n)
            .map(|_| match next() % 5 {
                0 => m.value() - 1,
                1 => 0,
                _ => next() % m.value(),
            })
            .collect()
    }

    /// Both kernels against sums of 128-bit products, each reduced at once.
    #[test]
    fn sums_agree_with_products_one_by_one() {
        for bits in [22, 37, 49] {
            let m = Modulus::new(ntt_primes_near(bits, 10).next().expect("a prime")).expect("odd");
            // The last has more products than a lazy sum takes without a carry.
            for (sums, taken, n) in
                [(1, 1, 8), (2, 5, 40), (3, 7, 24), (5, 25, 64), (7, 3, 8), (8, 33, 32), (4, 9001, 16)]
            {
                let count = taken.min(40) + 2;
                let limbs: Vec<Vec<u64>> = (0..count).map(|i| words(&m, n, i as u64 + 1)).collect();
                let mut packed = vec![0; n * count];
                gather(&limbs.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut packed);
                let inputs: Vec<u32> = (0..taken).map(|k| (k * 7 % count) as u32).collect();
                let weights = words(&m, taken * sums, 99);
                let want = |r: usize, at: usize| {
                    inputs.iter().enumerate().fold(0, |s, (k, &i)| {
                        let product = u128::from(weights[k * sums + r]) * u128::from(limbs[i as usize][at]);
                        m.add(s, (product % u128::from(m.value())) as u64)
                    })
                };
                type Kernel = fn(&Modulus, &[u64], usize, &[u32], &[u64], &mut [&mut [u64]]);
                for kernel in [scalar_sums as Kernel, portable::scalar_sums] {
                    let mut out = vec![vec![u64::MAX; n]; sums];
                    let mut slices: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
                    kernel(&m, &packed, count, &inputs, &weights, &mut slices);
                    for (r, out) in out.iter().enumerate() {
                        for (at, &got) in out.iter().enumerate() {
                            assert_eq!(got, want(r, at), "{bits} bits, {sums} sums of {taken}, sum {r} word {at}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_sum_of_nothing_is_zero() {
        let m = Modulus::new(97).expect("odd");
        let mut out = vec![5; 16];
        scalar_sums(&m, &[1; 48], 3, &[], &[], &mut [&mut out]);
        assert_eq!(out, [0; 16]);
    }
}
