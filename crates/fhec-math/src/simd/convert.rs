//! Base conversion. Checks, formula and meaning: [`crate::convert`].

mod quarters;

pub(crate) use quarters::convert_quarters;

use std::arch::x86_64::{
    __m512d, _mm_sfence, _mm512_add_pd, _mm512_cvtepi64_pd, _mm512_cvtpd_epi64, _mm512_mul_pd, _mm512_set1_pd,
    _mm512_setzero_pd, _mm512_stream_si512,
};

use super::pointwise::load_part;
use super::{Field, V, hi, lo, load, splat, store, zero};
use crate::convert::{BaseConverter, Target};

/// Vectors of coefficients handled together: twice as many sums in registers.
const GROUP: usize = 8;
const STEP: usize = 8 * GROUP;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn convert(c: &BaseConverter, src: &[&[u64]], dst: &mut [&mut [u64]], scratch: &mut [u64]) {
    run::<false, false>(c, src, dst, scratch);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn convert_loose(
    c: &BaseConverter,
    src: &[&[u64]],
    dst: &mut [&mut [u64]],
    scratch: &mut [u64],
    past_caches: bool,
) {
    if past_caches && begin_lines(dst.iter()) {
        run::<true, true>(c, src, dst, scratch);
    } else {
        run::<true, false>(c, src, dst, scratch);
    }
}

/// Whether all begin at lines of the cache.
fn begin_lines<'a>(mut limbs: impl Iterator<Item = &'a &'a mut [u64]>) -> bool {
    limbs.all(|limb| limb.as_ptr().addr().is_multiple_of(64))
}

/// Stores a vector, past the caches or not.
///
/// # Safety
/// To `STREAM`, `words` begin a line of the cache, and [`_mm_sfence`] follows before anybody else is told of them.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
unsafe fn put<const STREAM: bool>(words: &mut [u64; 8], v: V) {
    if STREAM {
        // SAFETY: eight words, and the caller promises the rest.
        unsafe { _mm512_stream_si512(words.as_mut_ptr().cast(), v) };
    } else {
        store(words, v);
    }
}

/// `STREAM`: limbs begin at lines of the cache, and are written past it.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn run<const LOOSE: bool, const STREAM: bool>(
    c: &BaseConverter,
    src: &[&[u64]],
    dst: &mut [&mut [u64]],
    scratch: &mut [u64],
) {
    assert!(!STREAM || begin_lines(dst.iter()), "limbs that begin within a line");
    let n = src[0].len();
    for start in (0..n).step_by(c.block) {
        let end = n.min(start + c.block);
        scale_sources(c, src, start, end, scratch);
        for (target, limb) in c.to.iter().zip(dst.iter_mut()) {
            if target.narrow {
                combine::<true, LOOSE, STREAM>(c.block, scratch, target, &mut limb[start..end]);
            } else {
                combine::<false, LOOSE, STREAM>(c.block, scratch, target, &mut limb[start..end]);
            }
        }
    }
    if STREAM {
        // Such stores are not ordered: whoever is told next that the limbs are there must find them.
        _mm_sfence();
    }
}

/// Fills the rows of `scratch` with `y_i` and the last with `v`.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn scale_sources(c: &BaseConverter, src: &[&[u64]], start: usize, end: usize, scratch: &mut [u64]) {
    let block = c.block;
    // At most 512 coefficients, 64 vectors.
    let mut sums = [_mm512_setzero_pd(); 64];
    for (row, (s, limb)) in scratch.chunks_exact_mut(block).zip(c.from.iter().zip(src)) {
        let k = Field::new(&s.modulus);
        let w = (splat(s.hat_inverse), splat(s.modulus.shoup_52(s.hat_inverse)));
        let reciprocal = _mm512_set1_pd(s.reciprocal);
        let (vectors, tail) = limb[start..end].as_chunks::<8>();
        let (row, _) = row.as_chunks_mut::<8>();
        let scale = |x: V, slot: &mut [u64; 8], sum: &mut __m512d| {
            let y = k.mul_shoup(x, w);
            store(slot, y);
            *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_cvtepi64_pd(y), reciprocal));
        };
        for ((x, slot), sum) in vectors.iter().zip(&mut *row).zip(&mut sums) {
            scale(load(x), slot, sum);
        }
        if !tail.is_empty() {
            scale(load_part(tail), &mut row[vectors.len()], &mut sums[vectors.len()]);
        }
    }
    quotients(&sums, &mut scratch[src.len() * block..]);
}

/// The nearest integers, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn quotients(sums: &[__m512d; 64], row: &mut [u64]) {
    let (row, _) = row.as_chunks_mut::<8>();
    for (v, &sum) in row.iter_mut().zip(sums) {
        store(v, _mm512_cvtpd_epi64(sum));
    }
}

/// `out` = `Σ_i y_i·factor_i` for the coefficients of one block; `NARROW` sums stay below 2^104.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn combine<const NARROW: bool, const LOOSE: bool, const STREAM: bool>(
    block: usize,
    scratch: &[u64],
    target: &Target,
    out: &mut [u64],
) {
    let k = Field::new(&target.modulus);
    let (groups, tail) = out.as_chunks_mut::<STEP>();
    let mut start = 0;
    for group in groups {
        let (out, _) = group.as_chunks_mut::<8>();
        let x = sums::<1, NARROW, LOOSE>(&k, block, scratch, start, target);
        for g in 0..GROUP {
            // SAFETY: `run` saw that the limb begins a line, and blocks and groups have whole lines; it also fences when all is stored.
            unsafe { put::<STREAM>(&mut out[g], x[g]) };
        }
        start += STEP;
    }
    if !tail.is_empty() {
        // Rows are long enough; what they hold after the last coefficient does not matter.
        let mut group = [0; STEP];
        let (out, _) = group.as_chunks_mut::<8>();
        let x = sums::<1, NARROW, LOOSE>(&k, block, scratch, start, target);
        out.iter_mut().zip(x).for_each(|(out, x)| store(out, x));
        tail.copy_from_slice(&group[..tail.len()]);
    }
}

/// [`combine`] for the coefficients from `start` on, as many of each of the `PARTS` that rows consist of; [`GROUP`] vectors in all.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn sums<const PARTS: usize, const NARROW: bool, const LOOSE: bool>(
    k: &Field,
    block: usize,
    scratch: &[u64],
    start: usize,
    target: &Target,
) -> [V; GROUP] {
    let mut low = [zero(); GROUP];
    let mut high = [zero(); GROUP];
    let (each, part) = (GROUP / PARTS, block / PARTS);
    for (row, &factor) in scratch.chunks_exact(block).zip(&target.factors) {
        let factor = splat(factor);
        for p in 0..PARTS {
            let (y, _) = row[p * part + start..p * part + start + 8 * each].as_chunks::<8>();
            for i in 0..each {
                let (g, y) = (p * each + i, load(&y[i]));
                low[g] = lo(low[g], y, factor);
                high[g] = hi(high[g], y, factor);
            }
        }
    }
    let mut out = [zero(); GROUP];
    for g in 0..GROUP {
        out[g] = match (NARROW, LOOSE) {
            (true, true) => k.reduce_pair_loose(low[g], high[g]),
            (true, false) => k.reduce_pair(low[g], high[g]),
            (false, true) => k.reduce_wide_loose(low[g], high[g]),
            (false, false) => k.reduce_wide(low[g], high[g]),
        };
    }
    out
}
