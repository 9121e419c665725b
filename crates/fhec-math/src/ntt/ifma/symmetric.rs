//! The transform of a polynomial that conjugation leaves as it is, `a(X) = a(1/X)`.
//!
//! Its coefficients are `c_{N−k} = −c_k`, and its values read the same from both ends, since the inverse of the root at position
//! `i` stands at `N−1−i`. So half of the coefficients give half of the values at half of the price: the first stage takes
//! `c_j` and `c_{j+N/2} = −c_{N/2−j}` to `c_j − ψ^(N/2)·c_{N/2−j}`, and of the rest only the left half of the butterfly tree remains.

use std::arch::x86_64::{
    _mm512_abs_epi64, _mm512_and_si512, _mm512_mask_sub_epi64, _mm512_movepi64_mask, _mm512_permutexvar_epi64,
    _mm512_setr_epi64, _mm512_srai_epi64,
};

use super::IfmaNtt;
use super::forward::descend;
use crate::Fetch;
use crate::simd::{Field, V, add, cut, load, splat, store, sub, zero};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run(table: &IfmaNtt, coeffs: &[i64], out: &mut [u64]) {
    let k = Field::new(&table.modulus);
    let half = table.half();
    let largest = coeffs.iter().fold(0, |max, c| max.max(c.unsigned_abs()));
    if largest < table.modulus.value() {
        first_stage::<true>(&k, coeffs, half.root, out);
    } else {
        first_stage::<false>(&k, coeffs, half.root, out);
    }
    descend::<false>(&k, &half.direction, [0, 0], None, out, &mut Fetch::new([half.direction.records()]));
}

/// `out_j = c_j − w·c_{n−j}` with `c_n = 0` for the `n` coefficients. `SMALL`: all are smaller than the modulus.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn first_stage<const SMALL: bool>(k: &Field, coeffs: &[i64], (w, w_shoup): (u64, u64), out: &mut [u64]) {
    let (w, w_shoup) = (splat(w), splat(w_shoup));
    let backwards = _mm512_setr_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    let n = coeffs.len();
    let (front, _) = coeffs.as_chunks::<8>();
    let (out, _) = out.as_chunks_mut::<8>();
    for (block, (front, out)) in front.iter().zip(out).enumerate() {
        let j = 8 * block;
        let back = if j == 0 {
            std::array::from_fn(|i| if i == 7 { 0 } else { coeffs[n - 7 + i] })
        } else {
            let mut back = [0; 8];
            back.copy_from_slice(&coeffs[n - j - 7..n - j + 1]);
            back
        };
        let back = _mm512_permutexvar_epi64(backwards, load(&back.map(|c: i64| c as u64)));
        let a = residue::<SMALL>(k, load(&front.map(|c| c as u64)));
        let b = residue::<SMALL>(k, sub(zero(), back));
        // Below 3p, with clean upper bits: a Shoup product is below 2p.
        store(out, cut(cut(k.clean(k.shoup_add(a, b, w, w_shoup)), k.two_p), k.p));
    }
}

/// Canonical residues of signed words. `SMALL`: they are smaller than the modulus.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn residue<const SMALL: bool>(k: &Field, x: V) -> V {
    if SMALL {
        return add(x, _mm512_and_si512(_mm512_srai_epi64::<63>(x), k.p));
    }
    let size = k.reduce_word(_mm512_abs_epi64(x));
    // p − 0 = p is cut to 0.
    cut(_mm512_mask_sub_epi64(size, _mm512_movepi64_mask(x), k.p, size), k.p)
}
