//! Vector arithmetic with AVX-512-IFMA: eight residues at a time.
//!
//! The instructions `vpmadd52luq` and `vpmadd52huq` multiply the low 52 bits of two lanes and add the low or
//! high 52 bits of the product to a 64-bit lane. Bits of a factor above the 52nd are ignored. So a sum whose *true*
//! value is below 2^52 may carry garbage in its upper 12 bits through any number of additions and further
//! products; [`Field::clean`] cuts it off where values are compared or stored.
//!
//! Every function needs the features that [`cpu::detect`](crate::cpu::detect) checks; callers reach them through
//! one unsafe call that follows this check.

pub(crate) mod accumulate;
pub(crate) mod convert;
pub(crate) mod diagonals;
pub(crate) mod galois;
pub(crate) mod packed;
pub(crate) mod pointwise;
pub(crate) mod sample;
pub(crate) mod scalar_sums;

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_min_epu64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi64, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64,
};

use crate::Modulus;

/// Eight words.
pub(crate) type V = __m512i;

/// Loads eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn load(words: &[u64; 8]) -> V {
    // SAFETY: reads the 64 bytes of the array; the instruction needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Stores eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn store(words: &mut [u64; 8], v: V) {
    // SAFETY: writes the 64 bytes of the array; the instruction needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), v) }
}

/// Eight copies of a word.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn splat(x: u64) -> V {
    _mm512_set1_epi64(x as i64)
}

/// `c + low52(a·b)`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn lo(c: V, a: V, b: V) -> V {
    _mm512_madd52lo_epu64(c, a, b)
}

/// `c + high52(a·b)`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn hi(c: V, a: V, b: V) -> V {
    _mm512_madd52hi_epu64(c, a, b)
}

/// `a + b`, wrapping.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn add(a: V, b: V) -> V {
    _mm512_add_epi64(a, b)
}

/// `a − b`, wrapping.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sub(a: V, b: V) -> V {
    _mm512_sub_epi64(a, b)
}

/// Zero.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn zero() -> V {
    _mm512_setzero_si512()
}

/// `x` or `x − bound`, whichever is not negative: `x < 2·bound` becomes `x < bound`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn cut(x: V, bound: V) -> V {
    _mm512_min_epu64(x, _mm512_sub_epi64(x, bound))
}

/// A modulus in vector form.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    /// `p`.
    pub(crate) p: V,
    /// `2p`.
    pub(crate) two_p: V,
    /// `2^52 − p`, so that adding `low52(q·neg_p)` subtracts `q·p` modulo 2^52.
    pub(crate) neg_p: V,
    /// `2^52 − 1`.
    mask: V,
    /// `⌊2^52/p⌋`.
    barrett_word: V,
    barrett_product: V,
    /// `52 − bits`.
    shift: V,
    two_52: (V, V),
    two_104: (V, V),
}

impl Field {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn new(m: &Modulus) -> Self {
        let p = m.value();
        let words = m.words();
        Self {
            p: splat(p),
            two_p: splat(2 * p),
            neg_p: splat((1 << 52) - p),
            mask: splat((1 << 52) - 1),
            barrett_word: splat(words.barrett_word),
            barrett_product: splat(words.barrett_product),
            shift: splat(u64::from(52 - m.bits())),
            two_52: (splat(words.two_52.0), splat(words.two_52.1)),
            two_104: (splat(words.two_104.0), splat(words.two_104.1)),
        }
    }

    /// The low 52 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn clean(&self, x: V) -> V {
        _mm512_and_si512(x, self.mask)
    }

    /// `a + b`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn add(&self, a: V, b: V) -> V {
        cut(add(a, b), self.p)
    }

    /// `a − b`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn sub(&self, a: V, b: V) -> V {
        let d = sub(a, b);
        _mm512_min_epu64(d, add(d, self.p))
    }

    /// `a · b`, canonical. The quotient estimate is at most two too small: `t = ⌊ab/2^(bits−1)⌋` loses less than 1
    /// of a quantity times `2^(bits−1)/p ≤ 1`, the constant loses `t/2^52 ≤ 1/2`, and the floor loses less than 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn mul(&self, a: V, b: V) -> V {
        let t = hi(zero(), _mm512_sllv_epi64(a, self.shift), add(b, b));
        let q = hi(zero(), t, self.barrett_product);
        let r = self.clean(lo(lo(zero(), a, b), q, self.neg_p));
        cut(cut(r, self.two_p), self.p)
    }

    /// `c + a · w` modulo `p` and 2^52, where `c + 2p ≤ 2^52`, `a < 2^52` and `w_shoup = ⌊w·2^52/p⌋`: at most `2p` above `c`,
    /// with garbage above bit 52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn shoup_add(&self, c: V, a: V, w: V, w_shoup: V) -> V {
        let q = hi(zero(), a, w_shoup);
        lo(lo(c, a, w), q, self.neg_p)
    }

    /// `a · w`, canonical, for any `a < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn mul_shoup(&self, a: V, (w, w_shoup): (V, V)) -> V {
        cut(self.clean(self.shoup_add(zero(), a, w, w_shoup)), self.p)
    }

    /// A value below `2p` congruent to `x`, whose true value is below 2^52; garbage stays.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn shrink(&self, x: V) -> V {
        self.shrink_above(x, zero())
    }

    /// As [`shrink`](Self::shrink), minus `start·p` with `start` modulo 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn shrink_above(&self, x: V, start: V) -> V {
        lo(x, hi(start, x, self.barrett_word), self.neg_p)
    }

    /// The residue of `x < 2^52`, with garbage or without.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce(&self, x: V) -> V {
        cut(self.clean(self.shrink(x)), self.p)
    }

    /// The residue of `high·2^52 + low` when this is below 2^104.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce_pair(&self, low: V, high: V) -> V {
        cut(cut(self.reduce_pair_loose(low, high), self.two_p), self.p)
    }

    /// As [`reduce_pair`](Self::reduce_pair), below `4p`: every Shoup product and the reduction of the low word stay below `2p`, and
    /// `4p ≤ 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce_pair_loose(&self, low: V, high: V) -> V {
        self.reduce_carried(low, add(high, _mm512_srli_epi64::<52>(low)))
    }

    /// The residue of `high·2^52 + low` for `high < 2^63`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce_wide(&self, low: V, high: V) -> V {
        cut(cut(self.reduce_wide_loose(low, high), self.two_p), self.p)
    }

    /// As [`reduce_wide`](Self::reduce_wide), below `4p`: a small factor makes a Shoup product exceed `p` by next to nothing.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce_wide_loose(&self, low: V, high: V) -> V {
        let high = add(high, _mm512_srli_epi64::<52>(low));
        let below_2p = cut(self.reduce_carried(low, high), self.two_p);
        let (w, w_shoup) = self.two_104;
        self.clean(self.shoup_add(below_2p, _mm512_srli_epi64::<52>(high), w, w_shoup))
    }

    /// `high·2^52 + low` without the upper bits of either, below `4p`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn reduce_carried(&self, low: V, high: V) -> V {
        let (w, w_shoup) = self.two_52;
        let q = hi(hi(zero(), high, w_shoup), low, self.barrett_word);
        self.clean(lo(lo(low, high, w), q, self.neg_p))
    }

    /// The residue of any word.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    pub(crate) fn reduce_word(&self, x: V) -> V {
        self.reduce_pair(x, zero())
    }
}
