//! Sums of products of diagonals with two factors each: the inner loop of linear maps.
//!
//! A diagonal that repeats after few slots has runs of equal values in evaluation form. It is read compressed, one word
//! a run: diagonals are streamed from memory, while the factors are in cache.
//!
//! [`sum_products`] takes diagonals one by one. [`sum_packed`] takes all diagonals of a sum from one stream in the order
//! of use, with residues packed to whole bytes ([`crate::packed`]): that is what memory is fastest at.

use crate::Modulus;
use crate::cpu::dispatch;
use crate::packed;

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

/// One term of a sum with diagonals that read the same from both ends.
#[derive(Clone, Copy, Debug)]
pub struct MirroredTerm<'a> {
    /// Entry `k` of a block of the diagonal is `values[k / repeat]`.
    pub values: &'a [u64],
    /// Length of the runs, a power of two.
    pub repeat: usize,
    /// The factors for the block itself, and those for its mirror image.
    pub factors: [[&'a [u64]; 2]; 2],
}

/// [`sum_products`] for a block and its mirror image, whose position `n−1−k` has the value of position `k`:
/// `out_{0,r} = Σ_t values_t ∘ factors_{t,0,r}` and `out_{1,r} = Σ_t reversed(values_t) ∘ factors_{t,1,r}`.
///
/// # Panics
/// When there are more than [`MAX_TERMS`] terms, the length of the outputs is no multiple of [`STEP`], lengths differ or
/// do not fit a term's repeat, or that is no power of two.
pub fn sum_mirrored(m: &Modulus, terms: &[MirroredTerm<'_>], out: [[&mut [u64]; 2]; 2]) {
    let n = out[0][0].len();
    let same = out.iter().flatten().all(|o| o.len() == n);
    assert!(terms.len() <= MAX_TERMS && same && n.is_multiple_of(STEP), "bad shape of a mirrored sum");
    for t in terms {
        let fits = t.repeat.is_power_of_two() && t.values.len() == n.div_ceil(t.repeat);
        assert!(fits && t.factors.iter().flatten().all(|f| f.len() == n), "term of another length");
    }
    dispatch!(diagonals::sum_mirrored(m, terms, out));
}

/// Positions that a stream of packed diagonals handles together.
pub const STEP: usize = 32;

/// Words that [`STEP`] positions of a diagonal take in a stream, if runs are `repeat` long. Runs of 8 and more are
/// stored as whole words, and those beyond [`STEP`] once every step.
pub fn step_words(m: &Modulus, repeat: usize) -> usize {
    match repeat {
        1 | 2 | 4 => STEP / repeat / 8 * packed::width(m),
        _ => (STEP / repeat).max(1),
    }
}

/// Packs the values of one step, `STEP / repeat` of them but at least one.
///
/// # Panics
/// When lengths do not fit.
pub fn pack_step(m: &Modulus, repeat: usize, values: &[u64], out: &mut [u64]) {
    assert_eq!(values.len(), (STEP / repeat).max(1), "values of a step");
    assert_eq!(out.len(), step_words(m, repeat), "words of a step");
    if repeat < 8 { packed::pack_into(m, values, out) } else { out.copy_from_slice(values) }
}

/// [`sum_products`] with the diagonals in one stream: for every [`STEP`] positions the packed values of each term.
///
/// # Panics
/// When there are more than [`MAX_TERMS`] terms, the length of the outputs is no multiple of [`STEP`], or lengths differ.
pub fn sum_packed(m: &Modulus, repeat: usize, stream: &[u64], factors: &[[&[u64]; 2]], out: [&mut [u64]; 2]) {
    let n = out[0].len();
    assert!(factors.len() <= MAX_TERMS && out[1].len() == n && n.is_multiple_of(STEP), "bad shape of a packed sum");
    assert!(factors.iter().flatten().all(|f| f.len() == n), "factor of another length");
    assert!(repeat.is_power_of_two(), "runs of {repeat}");
    assert_eq!(stream.len(), n / STEP * factors.len() * step_words(m, repeat), "length of a stream");
    dispatch!(diagonals::sum_packed(m, repeat, stream, factors, out));
}

mod portable {
    use super::{DiagonalTerm, MirroredTerm, STEP};
    use crate::{Modulus, packed};

    pub(super) fn sum_products(m: &Modulus, terms: &[DiagonalTerm<'_>], out: [&mut [u64]; 2]) {
        for (r, out) in out.into_iter().enumerate() {
            for (k, o) in out.iter_mut().enumerate() {
                let product = |t: &DiagonalTerm<'_>| u128::from(t.values[k / t.repeat]) * u128::from(t.factors[r][k]);
                *o = m.reduce_u128(terms.iter().map(product).sum());
            }
        }
    }

    pub(super) fn sum_mirrored(m: &Modulus, terms: &[MirroredTerm<'_>], out: [[&mut [u64]; 2]; 2]) {
        for (side, out) in out.into_iter().enumerate() {
            for (r, out) in out.into_iter().enumerate() {
                let n = out.len();
                for (k, o) in out.iter_mut().enumerate() {
                    let from = if side == 0 { k } else { n - 1 - k };
                    let product = |t: &MirroredTerm<'_>| {
                        u128::from(t.values[from / t.repeat]) * u128::from(t.factors[side][r][k])
                    };
                    *o = m.reduce_u128(terms.iter().map(product).sum());
                }
            }
        }
    }

    pub(super) fn sum_packed(
        m: &Modulus,
        repeat: usize,
        stream: &[u64],
        factors: &[[&[u64]; 2]],
        [out0, out1]: [&mut [u64]; 2],
    ) {
        let words = super::step_words(m, repeat);
        let mut values = vec![0; factors.len() * STEP];
        let steps = out0.chunks_exact_mut(STEP).zip(out1.chunks_exact_mut(STEP));
        for (step, (out0, out1)) in steps.enumerate() {
            let start = step * STEP;
            let packed = stream[step * factors.len() * words..].chunks_exact(words);
            for (values, packed) in values.chunks_exact_mut(STEP).zip(packed) {
                if repeat < 8 {
                    packed::unpack_into(m, packed, &mut values[..STEP / repeat]);
                } else {
                    values[..words].copy_from_slice(packed);
                }
            }
            for (r, out) in [out0, out1].into_iter().enumerate() {
                for (k, o) in out.iter_mut().enumerate() {
                    let terms = values.chunks_exact(STEP).zip(factors);
                    let product =
                        |(v, f): (&[u64], &[&[u64]; 2])| u128::from(v[k / repeat]) * u128::from(f[r][start + k]);
                    *o = m.reduce_u128(terms.map(product).sum());
                }
            }
        }
    }
}
