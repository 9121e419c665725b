//! Element-wise arithmetic. Checks and meaning: [`crate::pointwise`].

use std::arch::x86_64::{_mm512_cmpgt_epu64_mask, _mm512_mask_sub_epi64, _mm512_min_epu64};

use super::{Field, V, add, cut, load, splat, store, sub};
use crate::Modulus;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn add_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    let k = Field::new(m);
    zip2(dst, a, |x, y| k.add(x, y));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    let k = Field::new(m);
    zip2(dst, a, |x, y| k.sub(x, y));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn rsub_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    let k = Field::new(m);
    zip2(dst, a, |x, y| k.sub(y, x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn neg_assign(m: &Modulus, dst: &mut [u64]) {
    let k = Field::new(m);
    // p − 0 = p is cut to 0.
    zip1(dst, |x| cut(sub(k.p, x), k.p));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_assign(m: &Modulus, dst: &mut [u64], a: &[u64]) {
    let k = Field::new(m);
    zip2(dst, a, |x, y| k.mul(x, y));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_into(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    let k = Field::new(m);
    zip3(dst, a, b, |_, x, y| k.mul(x, y));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    let k = Field::new(m);
    zip3(dst, a, b, |d, x, y| k.add(d, k.mul(x, y)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_sub_assign(m: &Modulus, dst: &mut [u64], a: &[u64], b: &[u64]) {
    let k = Field::new(m);
    zip3(dst, a, b, |d, x, y| k.sub(d, k.mul(x, y)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_scalar_assign(m: &Modulus, dst: &mut [u64], w: u64) {
    let (k, w) = (Field::new(m), factor(m, w));
    zip1(dst, |x| k.mul_shoup(x, w));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_scalar_into(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let (k, w) = (Field::new(m), factor(m, w));
    zip2(dst, a, |_, x| k.mul_shoup(x, w));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn mul_scalar_add_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let (k, w) = (Field::new(m), factor(m, w));
    zip2(dst, a, |x, y| cut(cut(k.clean(k.shoup_add(x, y, w.0, w.1)), k.two_p), k.p));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn sub_mul_scalar_assign(m: &Modulus, dst: &mut [u64], a: &[u64], w: u64) {
    let (k, w) = (Field::new(m), factor(m, w));
    // The difference plus p is below 2^52, which is all that a Shoup product asks.
    zip2(dst, a, |x, y| k.mul_shoup(sub(add(x, k.p), y), w));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn add_scalar_assign(m: &Modulus, dst: &mut [u64], c: u64) {
    let (k, c) = (Field::new(m), splat(c));
    zip1(dst, |x| k.add(x, c));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn reduce_into(m: &Modulus, dst: &mut [u64], src: &[u64]) {
    let k = Field::new(m);
    zip2(dst, src, |_, x| k.reduce_word(x));
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn switch_centered(from: &Modulus, to: &Modulus, src: &[u64], dst: &mut [u64]) {
    let k = Field::new(to);
    let half = splat(from.value() / 2);
    let from_mod_to = splat(to.reduce(from.value()));
    zip2(dst, src, |_, x| {
        let r = k.reduce(x);
        let d = _mm512_mask_sub_epi64(r, _mm512_cmpgt_epu64_mask(x, half), r, from_mod_to);
        _mm512_min_epu64(d, add(d, k.p))
    });
}

/// A fixed factor with its companion.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn factor(m: &Modulus, w: u64) -> (V, V) {
    (splat(w), splat(m.shoup_52(w)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn zip1(dst: &mut [u64], f: impl Fn(V) -> V) {
    let (blocks, tail) = dst.as_chunks_mut::<8>();
    for d in blocks {
        store(d, f(load(d)));
    }
    if !tail.is_empty() {
        store_part(tail, f(load_part(tail)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn zip2(dst: &mut [u64], a: &[u64], f: impl Fn(V, V) -> V) {
    let (blocks, tail) = dst.as_chunks_mut::<8>();
    let (a, a_tail) = a.as_chunks::<8>();
    for (d, x) in blocks.iter_mut().zip(a) {
        store(d, f(load(d), load(x)));
    }
    if !tail.is_empty() {
        store_part(tail, f(load_part(tail), load_part(a_tail)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn zip3(dst: &mut [u64], a: &[u64], b: &[u64], f: impl Fn(V, V, V) -> V) {
    let (blocks, tail) = dst.as_chunks_mut::<8>();
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for ((d, x), y) in blocks.iter_mut().zip(a).zip(b) {
        store(d, f(load(d), load(x), load(y)));
    }
    if !tail.is_empty() {
        store_part(tail, f(load_part(tail), load_part(a_tail), load_part(b_tail)));
    }
}

/// Fewer than eight words, with zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn load_part(words: &[u64]) -> V {
    let mut padded = [0; 8];
    padded[..words.len()].copy_from_slice(words);
    load(&padded)
}

/// The first words of a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn store_part(words: &mut [u64], v: V) {
    let mut padded = [0; 8];
    store(&mut padded, v);
    words.copy_from_slice(&padded[..words.len()]);
}
