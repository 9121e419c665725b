//! Sums of products of diagonals with two factors each: the inner loop of linear maps.
//!
//! A diagonal that repeats after few slots has runs of equal values in evaluation form. It is read compressed, one word
//! a run, and ahead of use: diagonals are streamed from memory, while the factors are in cache.

use crate::Modulus;
use crate::cpu::dispatch;

/// Terms that a sum may have.
pub const MAX_TERMS: usize = 4095;

/// One term, `values ∘ factors_0` and `values ∘ factors_1`.
#[derive(Clone, Copy, Debug)]
pub struct DiagonalTerm<'a> {
    /// Entry `k` of the diagonal is `values[k / repeat]`.
    pub values: &'a [u64],
    /// Length of the runs, a power of two.
    pub repeat: usize,
    /// The factors.
    pub factors: [&'a [u64]; 2],
}

/// `out_r = Σ_t values_t ∘ factors_{t,r} (mod m)`. All words are below 2^50.
///
/// # Panics
/// When there are more than [`MAX_TERMS`] terms, lengths differ or do not fit a term's repeat, or that is no power of two.
pub fn sum_products(m: &Modulus, terms: &[DiagonalTerm<'_>], out: [&mut [u64]; 2]) {
    let n = out[0].len();
    assert!(terms.len() <= MAX_TERMS && out[1].len() == n, "too many terms or outputs of different lengths");
    for t in terms {
        let fits = t.repeat.is_power_of_two() && t.values.len() == n.div_ceil(t.repeat);
        assert!(fits && t.factors.iter().all(|f| f.len() == n), "term of another length");
    }
    dispatch!(diagonals::sum_products(m, terms, out));
}

mod portable {
    use super::DiagonalTerm;
    use crate::Modulus;

    pub(super) fn sum_products(m: &Modulus, terms: &[DiagonalTerm<'_>], out: [&mut [u64]; 2]) {
        for (r, out) in out.into_iter().enumerate() {
            for (k, o) in out.iter_mut().enumerate() {
                let product = |t: &DiagonalTerm<'_>| u128::from(t.values[k / t.repeat]) * u128::from(t.factors[r][k]);
                *o = m.reduce_u128(terms.iter().map(product).sum());
            }
        }
    }
}
