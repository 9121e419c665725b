//! Base conversion. Checks, formula and meaning: [`crate::convert`].

use std::arch::x86_64::{
    _mm512_add_pd, _mm512_cvtepi64_pd, _mm512_cvtpd_epi64, _mm512_mul_pd, _mm512_set1_pd, _mm512_setzero_pd,
};

use super::pointwise::{load_part, store_part};
use super::{Field, V, hi, lo, load, splat, store, zero};
use crate::convert::{BaseConverter, Target};

/// Vectors of coefficients handled together.
const GROUP: usize = 4;
const STEP: usize = 8 * GROUP;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn convert(c: &BaseConverter, src: &[&[u64]], dst: &mut [&mut [u64]], scratch: &mut [u64]) {
    let n = src[0].len();
    for start in (0..n).step_by(c.block) {
        let end = n.min(start + c.block);
        scale_sources(c, src, start, end, scratch);
        let mut targets = c.to.iter().zip(dst.iter_mut());
        // Two targets at a time: each load of y serves both.
        while let Some((t0, d0)) = targets.next() {
            match targets.next() {
                Some((t1, d1)) => {
                    combine(c.block, scratch, [t0, t1], [&mut d0[start..end], &mut d1[start..end]]);
                }
                None => combine(c.block, scratch, [t0], [&mut d0[start..end]]),
            }
        }
    }
}

/// Fills the rows of `scratch` with `y_i` and the last with `v`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
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
        let mut row = row.iter_mut().zip(&mut sums);
        let mut step = |x: V| {
            let y = k.mul_shoup(x, w);
            if let Some((slot, sum)) = row.next() {
                store(slot, y);
                *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_cvtepi64_pd(y), reciprocal));
            }
        };
        for x in vectors {
            step(load(x));
        }
        if !tail.is_empty() {
            step(load_part(tail));
        }
    }
    let (quotients, _) = scratch[src.len() * block..].as_chunks_mut::<8>();
    for (v, sum) in quotients.iter_mut().zip(sums) {
        // Rounds to the nearest integer, ties to even.
        store(v, _mm512_cvtpd_epi64(sum));
    }
}

/// `Σ_i y_i·factor_i` for the coefficients of one block and `T` targets.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn combine<const T: usize>(block: usize, scratch: &[u64], targets: [&Target; T], out: [&mut [u64]; T]) {
    let fields = targets.map(|t| Field::new(&t.modulus));
    let n = out[0].len();
    for start in (0..n).step_by(STEP) {
        let mut low = [[zero(); GROUP]; T];
        let mut high = [[zero(); GROUP]; T];
        for (i, row) in scratch.chunks_exact(block).enumerate() {
            let (y, _) = row[start..start + STEP].as_chunks::<8>();
            for g in 0..GROUP {
                let y = load(&y[g]);
                for t in 0..T {
                    let factor = splat(targets[t].factors[i]);
                    low[t][g] = lo(low[t][g], y, factor);
                    high[t][g] = hi(high[t][g], y, factor);
                }
            }
        }
        for t in 0..T {
            let rest = &mut out[t][start..];
            for (g, slot) in rest.chunks_mut(8).take(GROUP).enumerate() {
                let (l, h) = (low[t][g], high[t][g]);
                let x = if targets[t].narrow { fields[t].reduce_pair(l, h) } else { fields[t].reduce_wide(l, h) };
                match slot.as_mut_array::<8>() {
                    Some(slot) => store(slot, x),
                    None => store_part(slot, x),
                }
            }
        }
    }
}
