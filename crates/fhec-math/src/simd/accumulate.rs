//! Lazy sums of products. Checks and meaning: [`crate::accumulate`].

use super::pointwise::{load_part, store_part};
use super::{Field, V, hi, lo, load, store, zero};
use crate::Modulus;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn mac(low: &mut [u64], high: &mut [u64], a: &[u64], b: &[u64]) {
    let ((low, low_tail), (high, high_tail)) = (low.as_chunks_mut::<8>(), high.as_chunks_mut::<8>());
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (((l, h), x), y) in low.iter_mut().zip(high).zip(a).zip(b) {
        let (x, y) = (load(x), load(y));
        store(l, lo(load(l), x, y));
        store(h, hi(load(h), x, y));
    }
    if !low_tail.is_empty() {
        let (x, y) = (load_part(a_tail), load_part(b_tail));
        store_part(low_tail, lo(load_part(low_tail), x, y));
        store_part(high_tail, hi(load_part(high_tail), x, y));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn reduce(m: &Modulus, low: &[u64], high: &[u64], out: &mut [u64]) {
    let k = Field::new(m);
    let ((low, low_tail), (high, high_tail)) = (low.as_chunks::<8>(), high.as_chunks::<8>());
    let (out, out_tail) = out.as_chunks_mut::<8>();
    for ((o, l), h) in out.iter_mut().zip(low).zip(high) {
        store(o, k.reduce_wide(load(l), load(h)));
    }
    if !out_tail.is_empty() {
        store_part(out_tail, k.reduce_wide(load_part(low_tail), load_part(high_tail)));
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
    dot_n(m, a, [b], [out]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn dot_pair(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    dot_n(m, a, b, out);
}

/// Sums of `a_k ∘ b_k` for `R` families `b` that share `a`: the accumulators never leave the registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn dot_n<const R: usize>(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; R], out: [&mut [u64]; R]) {
    /// Vectors handled together: enough sums in flight to hide the latency of the multiplier.
    const GROUP: usize = 4;
    let k = Field::new(m);
    // Sixteen products below 2^100 stay below 2^104.
    let narrow = a.len() <= 16;
    let n = out[0].len();
    let step = 8 * GROUP;
    let whole = n / step * step;
    for start in (0..whole).step_by(step) {
        let mut low = [[zero(); GROUP]; R];
        let mut high = [[zero(); GROUP]; R];
        for (t, x) in a.iter().enumerate() {
            let x = vectors::<GROUP>(&x[start..start + step]);
            for r in 0..R {
                let y = vectors::<GROUP>(&b[r][t][start..start + step]);
                for g in 0..GROUP {
                    low[r][g] = lo(low[r][g], x[g], y[g]);
                    high[r][g] = hi(high[r][g], x[g], y[g]);
                }
            }
        }
        for r in 0..R {
            let (blocks, _) = out[r][start..start + step].as_chunks_mut::<8>();
            for (g, block) in blocks.iter_mut().enumerate() {
                let (l, h) = (low[r][g], high[r][g]);
                store(block, if narrow { k.reduce_pair(l, h) } else { k.reduce_wide(l, h) });
            }
        }
    }
    for start in (whole..n).step_by(8) {
        let end = n.min(start + 8);
        for r in 0..R {
            let (mut low, mut high) = (zero(), zero());
            for (x, y) in a.iter().zip(b[r]) {
                let (x, y) = (load_part(&x[start..end]), load_part(&y[start..end]));
                low = lo(low, x, y);
                high = hi(high, x, y);
            }
            store_part(&mut out[r][start..end], k.reduce_wide(low, high));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn vectors<const G: usize>(words: &[u64]) -> [V; G] {
    let (blocks, _) = words.as_chunks::<8>();
    let mut out = [zero(); G];
    for (v, block) in out.iter_mut().zip(blocks) {
        *v = load(block);
    }
    out
}
