//! Polynomials of keys in memory: residues of whole bytes.

use std::ops::{Deref, Range};
use std::sync::Arc;

use fhec_math::{AlignedVec, Eval, Poly, packed};
use rayon::prelude::*;

use crate::limbs::{HEAVY, par_chunks};
use crate::params::Context;

/// One limb of one digit of a key, packed.
pub(crate) enum Column<'a> {
    /// Of a half in memory.
    Kept(&'a [u64]),
    /// Made for this use.
    Made(AlignedVec),
}

impl Deref for Column<'_> {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Self::Kept(words) => words,
            Self::Made(words) => words,
        }
    }
}

/// Limb `limb` of the first `digits` polynomials.
pub(super) fn kept(half: &[PackedPoly], digits: usize, limb: usize) -> Vec<Column<'_>> {
    half[..digits].iter().map(|poly| Column::Kept(poly.limb(limb))).collect()
}

/// A polynomial over `q_0 … q_level, p_0 …` with residues of whole bytes ([`fhec_math::packed`]). Several may share a
/// block of memory: large blocks take fewer and larger pages.
#[derive(Clone, Debug)]
pub(crate) struct PackedPoly {
    /// Shared with the [selections](PackedPoly::select) of this polynomial too.
    pub(super) data: Arc<AlignedVec>,
    /// Where each limb lies in the block, in words.
    pub(super) limbs: Vec<Range<usize>>,
}

impl PackedPoly {
    pub(crate) fn pack(context: &Context, level: usize, poly: &Poly<Eval>) -> Self {
        let n = context.n();
        let ranges = Self::ranges(context, level, 0);
        let mut data = AlignedVec::scratch(ranges[poly.limbs() - 1].end);
        let limbs = Self::split(context, level, &mut data);
        limbs.into_par_iter().enumerate().with_min_len((HEAVY / n).max(1)).for_each(|(i, limb)| {
            packed::pack_into(context.qp_modulus(level, i), poly.limb(i), limb);
        });
        Self { data: Arc::new(data), limbs: ranges }
    }

    /// Where the limbs lie of a polynomial that begins at word `start`.
    pub(super) fn ranges(context: &Context, level: usize, start: usize) -> Vec<Range<usize>> {
        let mut end = start;
        let range = |i| {
            let start = end;
            end += packed::words(context.qp_modulus(level, i), context.n());
            start..end
        };
        (0..context.qp_limbs(level)).map(range).collect()
    }

    /// Cuts the words of several polynomials into limbs.
    pub(crate) fn split<'a>(context: &Context, level: usize, mut words: &'a mut [u64]) -> Vec<&'a mut [u64]> {
        let ranges = Self::ranges(context, level, 0);
        let mut limbs = Vec::new();
        for range in ranges.iter().cycle() {
            if words.is_empty() {
                break;
            }
            let (limb, rest) = words.split_at_mut(range.len());
            limbs.push(limb);
            words = rest;
        }
        limbs
    }

    /// Limb `i`, packed.
    pub(crate) fn limb(&self, i: usize) -> &[u64] {
        &self.data[self.limbs[i].clone()]
    }

    /// The polynomial modulo the primes of some of its limbs; nothing is copied.
    pub(super) fn select(&self, limbs: impl Iterator<Item = usize>) -> Self {
        Self { data: Arc::clone(&self.data), limbs: limbs.map(|i| self.limbs[i].clone()).collect() }
    }

    pub(crate) fn unpack(&self, context: &Context, level: usize) -> Poly<Eval> {
        let mut poly = Poly::<Eval>::scratch(context.n(), context.qp_limbs(level));
        par_chunks(poly.data_mut(), context.n(), HEAVY, |i, limb| {
            packed::unpack_into(context.qp_modulus(level, i), self.limb(i), limb);
        });
        poly
    }

    pub(super) fn bytes(&self) -> usize {
        self.limbs.iter().map(|range| range.len() * 8).sum()
    }
}
