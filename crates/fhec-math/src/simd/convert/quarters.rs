//! Conversion of what inverse transforms leave to what forward transforms go on with: in between are the passes that work on the same places of
//! all quarters of a limb.

use std::arch::x86_64::{
    __m512d, _MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm512_add_pd, _mm512_cvtepi64_pd, _mm512_mul_pd,
    _mm512_set1_pd, _mm512_setzero_pd,
};
use std::ops::Deref;

use super::{begin_lines, put, quotients, sums};
use crate::convert::{BaseConverter, Source, Target};
use crate::ntt::NttTable;
use crate::ntt::ifma::quarters::{FinalPass, FirstPass};
use crate::ntt::ifma::{CARRIED, IfmaNtt, LAZY, STRICT};
use crate::simd::{Field, load, store};

/// Vectors of each quarter that are handled together.
const EACH: usize = super::GROUP / 4;

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn convert_quarters(
    c: &BaseConverter,
    src: &[(&NttTable, [&[u64]; 4])],
    dst: &mut [(&NttTable, [&mut [u64]; 4])],
    scratch: &mut [u64],
    past_caches: bool,
) {
    if past_caches && begin_lines(dst.iter().flat_map(|(_, quarters)| quarters)) {
        run::<true>(c, src, dst, scratch);
    } else {
        run::<false>(c, src, dst, scratch);
    }
}

fn quarters(table: &NttTable) -> &IfmaNtt {
    table.quarters().expect("tables have quarters")
}

/// What comes after a limb, at the same places of all quarters: a piece of each is too short for the hardware to see that there is more.
#[derive(Clone, Copy)]
enum Next {
    Nothing,
    Read([*const u64; 4]),
    Write([*const u64; 4]),
}

impl Next {
    /// Asks for the `j`-th line of each quarter, which need not exist: a prefetch never faults.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn fetch(self, j: usize) {
        let line = |quarter: *const u64| quarter.wrapping_add(8 * j).cast();
        match self {
            Self::Nothing => (),
            Self::Read(quarters) => quarters.into_iter().for_each(|quarter| _mm_prefetch::<_MM_HINT_T0>(line(quarter))),
            Self::Write(quarters) => {
                quarters.into_iter().for_each(|quarter| _mm_prefetch::<_MM_HINT_ET0>(line(quarter)));
            }
        }
    }
}

/// Where a place of each quarter is.
fn places(limb: &[impl Deref<Target = [u64]>; 4], at: usize) -> [*const u64; 4] {
    limb.each_ref().map(|quarter| quarter[at..].as_ptr())
}

/// `STREAM`: quarters begin at lines of the cache, and are written past it.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn run<const STREAM: bool>(
    c: &BaseConverter,
    src: &[(&NttTable, [&[u64]; 4])],
    dst: &mut [(&NttTable, [&mut [u64]; 4])],
    scratch: &mut [u64],
) {
    assert!(!STREAM || begin_lines(dst.iter().flat_map(|(_, quarters)| quarters)), "limbs that begin within a line");
    let sources = src.iter().zip(&c.from);
    let last: Vec<FinalPass> =
        sources.map(|((table, _), source)| quarters(table).final_pass(source.hat_inverse)).collect();
    let first: Vec<FirstPass> = dst.iter().map(|(table, _)| quarters(table).first_pass()).collect();
    let n = src[0].1[0].len();
    let part = c.block / 4;
    for start in (0..n).step_by(part) {
        let end = n.min(start + part);
        let mut quotient = [_mm512_setzero_pd(); 64];
        for (i, (row, (source, last))) in scratch.chunks_exact_mut(c.block).zip(c.from.iter().zip(&last)).enumerate() {
            let limb = src[i].1.map(|quarter| &quarter[start..end]);
            let next = src.get(i + 1).map_or(Next::Nothing, |(_, next)| Next::Read(places(next, start)));
            match last.growth {
                CARRIED => finish::<CARRIED>(source, last, limb, next, row, &mut quotient),
                LAZY => finish::<LAZY>(source, last, limb, next, row, &mut quotient),
                _ => finish::<STRICT>(source, last, limb, next, row, &mut quotient),
            }
        }
        quotients(&quotient, &mut scratch[src.len() * c.block..]);
        for t in 0..dst.len() {
            let (target, first) = (&c.to[t], &first[t]);
            let next = match dst.get(t + 1) {
                Some(_) if STREAM => Next::Nothing,
                Some((_, next)) => Next::Write(places(next, start)),
                None => Next::Read(places(&src[0].1, end)),
            };
            let limb = dst[t].1.each_mut().map(|quarter| &mut quarter[start..end]);
            match (target.narrow, first.lazy) {
                (true, true) => combine::<true, true, STREAM>(c.block, scratch, target, first, limb, next),
                (true, false) => combine::<true, false, STREAM>(c.block, scratch, target, first, limb, next),
                (false, true) => combine::<false, true, STREAM>(c.block, scratch, target, first, limb, next),
                (false, false) => combine::<false, false, STREAM>(c.block, scratch, target, first, limb, next),
            }
        }
    }
    if STREAM {
        // Such stores are not ordered: whoever is told next that the limbs are there must find them.
        _mm_sfence();
    }
}

/// Fills the row of a source with `y`, a quarter of it for each quarter of the limb, and adds it to the quotients.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn finish<const GROWTH: u8>(
    source: &Source,
    last: &FinalPass,
    limb: [&[u64]; 4],
    next: Next,
    row: &mut [u64],
    quotient: &mut [__m512d; 64],
) {
    let k = Field::new(&source.modulus);
    let last = last.vectors(&source.modulus);
    let reciprocal = _mm512_set1_pd(source.reciprocal);
    let limb = limb.map(|quarter| quarter.as_chunks::<8>().0);
    let (row, _) = row.as_chunks_mut::<8>();
    let part = row.len() / 4;
    for j in 0..limb[0].len() {
        next.fetch(j);
        let y = last.run::<GROWTH>(&k, limb.map(|quarter| load(&quarter[j])));
        for (q, y) in y.into_iter().enumerate() {
            store(&mut row[q * part + j], y);
            let sum = &mut quotient[q * part + j];
            *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_cvtepi64_pd(y), reciprocal));
        }
    }
}

/// `Σ_i y_i·factor_i`, transformed over the quarters.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn combine<const NARROW: bool, const LAZY: bool, const STREAM: bool>(
    block: usize,
    scratch: &[u64],
    target: &Target,
    first: &FirstPass,
    limb: [&mut [u64]; 4],
    next: Next,
) {
    let k = Field::new(&target.modulus);
    let first = first.vectors();
    let mut limb = limb.map(|quarter| quarter.as_chunks_mut::<8>().0);
    for j in (0..limb[0].len()).step_by(EACH) {
        (j..j + EACH).for_each(|j| next.fetch(j));
        let x = sums::<4, NARROW, true>(&k, block, scratch, 8 * j, target);
        for i in 0..EACH {
            let v = first.run::<LAZY>(&k, [x[i], x[EACH + i], x[2 * EACH + i], x[3 * EACH + i]]);
            for (quarter, v) in limb.iter_mut().zip(v) {
                // SAFETY: `run` saw that the quarter begins a line, and blocks have whole lines; it also fences when all is stored.
                unsafe { put::<STREAM>(&mut quarter[j + i], v) };
            }
        }
    }
}
