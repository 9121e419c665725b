//! Lazy sums of products. Checks and meaning: [`crate::accumulate`].

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::pointwise::{load_part, store_part};
use super::{Field, V, hi, lo, load, splat, store, zero};
use crate::Modulus;
use crate::accumulate::Factors;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
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

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
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

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot(m: &Modulus, a: &[&[u64]], b: &[&[u64]], out: &mut [u64]) {
    plain(m, a, [b], [out]);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn dot_pair(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; 2], out: [&mut [u64]; 2]) {
    plain(m, a, b, out);
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn plain<const R: usize>(m: &Modulus, a: &[&[u64]], b: [&[&[u64]]; R], mut out: [&mut [u64]; R]) {
    let n = out[0].len();
    let whole = n / 8 * 8;
    dot_n(m, a.into(), b, out.each_mut().map(|limb| &mut limb[..whole]), |limb, group| {
        prefetch(limb, 8 * group + AHEAD);
        vector(limb, group)
    });
    if whole < n {
        let k = Field::new(m);
        for (family, limb) in b.into_iter().zip(out) {
            let (mut low, mut high) = (zero(), zero());
            for (x, y) in a.iter().zip(family) {
                let (x, y) = (load_part(&x[whole..]), load_part(&y[whole..]));
                low = lo(low, x, y);
                high = hi(high, x, y);
            }
            store_part(&mut limb[whole..], k.reduce_wide(low, high));
        }
    }
}

/// How far ahead keys are fetched, in words. There are more of them than the hardware follows by itself.
pub(super) const AHEAD: usize = 64;

/// Asks for the word at `index`, which may lie behind the end: a prefetch never faults.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn prefetch(limb: &[u64], index: usize) {
    _mm_prefetch::<_MM_HINT_T0>(limb.as_ptr().wrapping_add(index).cast());
}

/// The `group`-th eight words of a limb.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn vector(limb: &[u64], group: usize) -> V {
    let (vectors, _) = limb.as_chunks::<8>();
    load(&vectors[group])
}

/// Sums of `a_k ∘ b_k` for `R` families `b` that share `a`, where `get` reads eight residues of a limb of `b`: the accumulators
/// never leave the registers. Lengths are multiples of 8.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn dot_n<const R: usize>(
    m: &Modulus,
    a: Factors<'_>,
    b: [&[&[u64]]; R],
    mut out: [&mut [u64]; R],
    get: impl Fn(&[u64], usize) -> V,
) {
    let groups = out[0].len() / 8;
    dot_each(m, a, b, [None; R], groups, get, |r, group, residues| {
        let (vectors, _) = out[r].as_chunks_mut::<8>();
        store(&mut vectors[group], residues);
    });
}

/// [`dot_n`] of the first `groups` vectors; `put` gets each of each family. A limb times a residue can join each.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn dot_each<const R: usize>(
    m: &Modulus,
    Factors { limbs: a, scaled }: Factors<'_>,
    b: [&[&[u64]]; R],
    lifts: [Option<(&[u64], u64)>; R],
    groups: usize,
    get: impl Fn(&[u64], usize) -> V,
    mut put: impl FnMut(usize, usize, V),
) {
    /// Vectors handled together: enough sums in flight to hide the latency of the multiplier.
    const GROUP: usize = 4;
    // Loose entries of `a` are below 2^52, those of `b` have the modulus's bits, and the sums have to stay below 2^104.
    let narrow = ((a.len() + 1) as u64) << m.bits() <= 1 << 52;
    let lifts = lifts.map(|lift| lift.map(|(limb, factor)| (limb, splat(factor))));
    let scaled = scaled.map(|(t, w)| (t, (splat(w), splat(m.shoup_52(w)))));
    let terms = Terms { k: Field::new(m), narrow, a, scaled, b, lifts };
    let whole = groups / GROUP * GROUP;
    for start in (0..whole).step_by(GROUP) {
        sums::<R, GROUP>(&terms, start, &get, &mut put);
    }
    for start in whole..groups {
        sums::<R, 1>(&terms, start, &get, &mut put);
    }
}

/// What sums are made of.
struct Terms<'a, const R: usize> {
    k: Field,
    narrow: bool,
    a: &'a [&'a [u64]],
    scaled: Option<(usize, (V, V))>,
    b: [&'a [&'a [u64]]; R],
    lifts: [Option<(&'a [u64], V)>; R],
}

/// [`dot_each`] for the `G` vectors from `start` on.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn sums<const R: usize, const G: usize>(
    Terms { k, narrow, a, scaled, b, lifts }: &Terms<'_, R>,
    start: usize,
    get: impl Fn(&[u64], usize) -> V,
    put: &mut impl FnMut(usize, usize, V),
) {
    let mut low = [[zero(); G]; R];
    let mut high = [[zero(); G]; R];
    for (t, x) in a.iter().enumerate() {
        for g in 0..G {
            let mut x = vector(x, start + g);
            if let Some((_, (w, w_shoup))) = scaled.filter(|(at, _)| *at == t) {
                x = k.clean(k.shoup_add(zero(), x, w, w_shoup));
            }
            for r in 0..R {
                let y = get(b[r][t], start + g);
                low[r][g] = lo(low[r][g], x, y);
                high[r][g] = hi(high[r][g], x, y);
            }
        }
    }
    for (r, lift) in lifts.iter().enumerate() {
        let Some((limb, factor)) = lift else { continue };
        for g in 0..G {
            let x = vector(limb, start + g);
            low[r][g] = lo(low[r][g], x, *factor);
            high[r][g] = hi(high[r][g], x, *factor);
        }
    }
    for r in 0..R {
        for g in 0..G {
            let (l, h) = (low[r][g], high[r][g]);
            put(r, start + g, if *narrow { k.reduce_pair(l, h) } else { k.reduce_wide(l, h) });
        }
    }
}
