//! Butterflies on registers.
//!
//! `LAZY` and `CARRIED` butterflies keep true values below 2^52, with garbage in the upper 12 bits of a lane; strict ones keep clean values
//! below `4p` (forward) or `2p` (inverse).

use std::arch::x86_64::{_mm512_shuffle_i64x2, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64};

use super::{CARRIED, LAZY};
use crate::simd::{Field, V, add, cut, hi, lo, load, splat, sub, zero};

/// Words of a record of a pass of this many stages: pairs of factor and companion.
pub(super) const fn record_words(stages: u32) -> usize {
    2 * ((1 << stages) - 1)
}

/// Words of a record of the last pass: seven pairs (padded to eight) and the companions of seven vectors.
pub(super) const LAST_RECORD: usize = 16 + 7 * 8;

/// The factor of a node (from 1) of a record of pairs, in all lanes, with its companion.
///
/// # Safety
/// `record` points to at least `node` pairs of words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) unsafe fn pair(record: *const u64, node: usize) -> (V, V) {
    // SAFETY: as promised by the caller.
    unsafe { (splat(*record.add(2 * node - 2)), splat(*record.add(2 * node - 1))) }
}

/// The factors of a node of the second half of a record of the last pass, with their companions.
///
/// Only these are stored: with `c = ⌊w·2^52/p⌋`, `c·p/2^52` is below `w`, which `p` does not divide, by less than `p/2^52 < 1`. One more
/// multiplication for each vector costs less than it does to read twice as large a table.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn pair_of_vectors(k: &Field, record: &[u64; LAST_RECORD], node: usize) -> (V, V) {
    // The first two rows are the pairs of the first half.
    let (rows, _) = record.as_chunks::<8>();
    let companions = load(&rows[node + 1]);
    (hi(splat(1), companions, k.p), companions)
}

/// `(x, y) → (x + w·y, x − w·y)`. Lazy: `2p ≤ x`, `y < 2^52`, and the outputs differ from `x` by at most `2p`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn forward<const LAZY: bool>(k: &Field, x: V, y: V, (w, w_shoup): (V, V)) -> (V, V) {
    if LAZY {
        let sum = k.shoup_add(x, y, w, w_shoup);
        // x − t, without a register of its own for t.
        (sum, sub(add(x, x), sum))
    } else {
        let r = cut(x, k.two_p);
        let t = k.clean(k.shoup_add(zero(), y, w, w_shoup));
        (add(r, t), sub(add(r, k.two_p), t))
    }
}

/// The preparation of the values that a lazy forward pass of `STAGES` stages does not multiply in its first stage:
/// `2p` for each stage, on top of the value or of something below `2p` congruent to it.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn lift<const STAGES: u64, const SHRINK: bool>(k: &Field, x: V) -> V {
    if SHRINK {
        // The quotient is made smaller by as much: its low 52 bits are those of q − 2·STAGES.
        k.shrink_above(x, splat((1 << 52) - 2 * STAGES))
    } else {
        add(x, lo(zero(), k.two_p, splat(STAGES)))
    }
}

/// `(x, y) → (x + y, w·(x − y))`.
///
/// [`CARRIED`]: `y ≤ x < 2^52`, because values carry multiples of `p` from where they cost nothing; the product gets `extra`, one of them.
/// Otherwise `y ≤ extra`, a multiple of `p` that is added to the difference; [`LAZY`]: `x + extra < 2^52`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn inverse<const GROWTH: u8>(k: &Field, x: V, y: V, (w, w_shoup): (V, V), extra: V) -> (V, V) {
    let sum = add(x, y);
    if GROWTH == CARRIED {
        return (sum, k.shoup_add(extra, sub(x, y), w, w_shoup));
    }
    let difference = sub(add(x, extra), y);
    let t = k.shoup_add(zero(), difference, w, w_shoup);
    if GROWTH == LAZY { (sum, t) } else { (cut(sum, k.two_p), k.clean(t)) }
}

/// Transposes a square of 64 words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn transpose([a, b, c, d, e, f, g, h]: [V; 8]) -> [V; 8] {
    // Pairs within lanes of 128 bits, then a transposition of the lanes of even and of odd rows.
    let even = lanes(
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    );
    let odd = lanes(
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    );
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

/// Transposes four rows of four 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn lanes(a: V, b: V, c: V, d: V) -> [V; 4] {
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let ab_even = _mm512_shuffle_i64x2::<EVEN>(a, b);
    let ab_odd = _mm512_shuffle_i64x2::<ODD>(a, b);
    let cd_even = _mm512_shuffle_i64x2::<EVEN>(c, d);
    let cd_odd = _mm512_shuffle_i64x2::<ODD>(c, d);
    [
        _mm512_shuffle_i64x2::<EVEN>(ab_even, cd_even),
        _mm512_shuffle_i64x2::<EVEN>(ab_odd, cd_odd),
        _mm512_shuffle_i64x2::<ODD>(ab_even, cd_even),
        _mm512_shuffle_i64x2::<ODD>(ab_odd, cd_odd),
    ]
}

/// The butterflies of a tree over 4 or 8 values starting at index `$i`, forward: first the pairs that are half the size
/// apart, with the factor of node `$n`, then the halves, with the nodes `2n` and `2n+1`.
///
/// Macros, and not functions, because the values must stay in registers.
macro_rules! forward_tree {
    (4, $f:ident, $i:expr, $n:expr) => {
        $f!($i, $i + 2, $n);
        $f!($i + 1, $i + 3, $n);
        $f!($i, $i + 1, 2 * $n);
        $f!($i + 2, $i + 3, 2 * $n + 1);
    };
    (8, $f:ident, $i:expr, $n:expr) => {
        $f!($i, $i + 4, $n);
        $f!($i + 1, $i + 5, $n);
        $f!($i + 2, $i + 6, $n);
        $f!($i + 3, $i + 7, $n);
        forward_tree!(4, $f, $i, 2 * $n);
        forward_tree!(4, $f, $i + 4, 2 * $n + 1);
    };
}

/// As `forward_tree`, backwards. The fourth argument of a butterfly is the number of stages that ran before its own.
macro_rules! inverse_tree {
    (4, $f:ident, $i:expr, $n:expr) => {
        $f!($i, $i + 1, 2 * $n, 0);
        $f!($i + 2, $i + 3, 2 * $n + 1, 0);
        $f!($i, $i + 2, $n, 1);
        $f!($i + 1, $i + 3, $n, 1);
    };
    (8, $f:ident, $i:expr, $n:expr) => {
        inverse_tree!(4, $f, $i, 2 * $n);
        inverse_tree!(4, $f, $i + 4, 2 * $n + 1);
        $f!($i, $i + 4, $n, 2);
        $f!($i + 1, $i + 5, $n, 2);
        $f!($i + 2, $i + 6, $n, 2);
        $f!($i + 3, $i + 7, $n, 2);
    };
}

pub(super) use {forward_tree, inverse_tree};
