//! Sums of products of babies and of diagonals that exist as coefficients only.
//!
//! Work goes limb by limb. For one limb all babies are made, then for a few sums at a time the diagonals are transformed and
//! multiplied while they are in the cache: no diagonal is ever written to memory in evaluation form, and no baby for more than
//! one limb.
//!
//! Diagonals are real vectors, whose values read the same from both ends of a limb. So only the first half of them is
//! transformed, and every block of a sum goes together with its mirror image.

use std::ops::Range;
use std::sync::Arc;

use fhec_math::diagonals::{MAX_TERMS, MirroredTerm, STEP, sum_mirrored};
use fhec_math::streamed::{BUFFER, StreamedMap};
use fhec_math::{AlignedVec, Modulus, Poly};
use rayon::prelude::*;

use super::babies::Babies;
use super::products::{Pair, TASK, block_length};
use super::{DiagonalSource, Hoisting, LinearMap, Sum};
use crate::encode::symmetric_limb;
use crate::params::Context;
use crate::plaintext::CoeffPlaintext;

/// A linear map at work.
pub(super) struct Streamed<'a> {
    pub(super) context: &'a Context,
    pub(super) level: usize,
    pub(super) map: &'a LinearMap,
    /// Fused or divided.
    pub(super) babies: &'a Babies<'a>,
}

impl LinearMap {
    /// Whether diagonals are taken from the source as coefficients.
    pub(super) fn streams(&self, context: &Context, source: &dyn DiagonalSource) -> bool {
        let kept = source.packed().is_some() || source.resident();
        let longest = self.sums.iter().map(|s| s.diagonals.len()).max().unwrap_or(0);
        !kept && source.real_coefficients() && longest <= MAX_TERMS && context.n() >= 2 * STEP
    }

    /// What cuts the work and what memory depends on, for diagonals of this period and keys for all rotations.
    pub(super) fn streamed(&self, context: &Context, level: usize, single: bool, period: usize) -> StreamedMap {
        let rotated = |block: &&[(usize, i64)]| block.iter().any(|b| b.1 != 0);
        StreamedMap {
            n: context.n(),
            chain: level + 1,
            special: context.special_at(level),
            digits: context.digits_at(level),
            single,
            babies: self.babies.len(),
            composed: 0,
            decomposed: self.babies.chunk_by(|a, b| a.0 == b.0).filter(rotated).count(),
            outputs: self.out_blocks,
            sums: self.sums.iter().map(|s| s.diagonals.len()).collect(),
            period,
        }
    }

    /// [`scratch_bytes`](Self::scratch_bytes) for a source that hands out [coefficients](DiagonalSource::coefficients) of
    /// diagonals of this period, `window` bytes at a time. Here they are included. There are keys for all rotations: for others see
    /// [`composed_bytes`](Self::composed_bytes).
    pub fn streamed_bytes(
        &self,
        context: &Context,
        level: usize,
        threads: usize,
        hoisting: Hoisting,
        period: usize,
        window: usize,
    ) -> usize {
        let single = self.resolve(context, level, hoisting) == Hoisting::Single;
        self.streamed(context, level, single, period).scratch_bytes(threads, window)
    }
}

impl Streamed<'_> {
    /// The sums over the first `limbs` limbs, given the coefficients of their diagonals in order.
    pub(super) fn compute(&self, sums: &[Sum], coeffs: &[Arc<CoeffPlaintext>], limbs: usize) -> Vec<Pair> {
        let n = self.context.n();
        let count = self.babies.count();
        let block = block_length(2 * count, n / 2);
        let first = sums.first().map_or(0, |sum| sum.diagonals.start);
        let parts = parts(sums, coeffs);
        let words = |part: &Range<usize>| {
            let diagonals = sums[part.start].diagonals.start - first..sums[part.end - 1].diagonals.end - first;
            coeffs[diagonals].iter().map(|c| c.period()).sum()
        };
        let mut buffer = AlignedVec::scratch(parts.iter().map(words).max().unwrap_or(0));
        let mut rotated = AlignedVec::scratch(if let Babies::Fused(_) = self.babies { 2 * count * n } else { 0 });
        let pair = || std::array::from_fn(|_| Poly::scratch(n, limbs));
        let mut results: Vec<Pair> = sums.iter().map(|_| pair()).collect();
        for i in 0..limbs {
            if let Babies::Fused(hoisted) = self.babies {
                let columns = hoisted.columns(i);
                let blocks = rotated.par_chunks_exact_mut(2 * count * block).enumerate();
                blocks.for_each(|(b, out)| hoisted.block(i, b * block, &columns, out));
            }
            for part in &parts {
                let (sums, results) = (&sums[part.clone()], &mut results[part.clone()]);
                let diagonals = sums[0].diagonals.start - first..sums[sums.len() - 1].diagonals.end - first;
                let transformed = self.transform(i, &coeffs[diagonals], &mut buffer);
                let limb = Limb { i, block, sums, rotated: &rotated, diagonals: &transformed };
                self.multiply(&limb, results);
            }
        }
        results
    }

    /// Values of limb `i` of diagonals, in the buffer one after the other.
    fn transform<'b>(&self, i: usize, coeffs: &[Arc<CoeffPlaintext>], mut buffer: &'b mut [u64]) -> Vec<&'b [u64]> {
        let mut slices = Vec::with_capacity(coeffs.len());
        for coeffs in coeffs {
            let (slice, rest) = buffer.split_at_mut(coeffs.period());
            slices.push(slice);
            buffer = rest;
        }
        let transformed = slices.into_par_iter().zip(coeffs).map(|(slice, coeffs)| {
            symmetric_limb(self.context, self.level, i, coeffs, slice);
            &*slice
        });
        transformed.collect()
    }

    /// Products and sums of one limb.
    fn multiply(&self, limb: &Limb<'_>, results: &mut [Pair]) {
        let n = self.context.n();
        let work = 4 * (limb.diagonals.len() + self.babies.count());
        let range = (TASK / work.max(1)).next_power_of_two().clamp(limb.block, n / 2);
        let list = || Vec::with_capacity(2 * results.len());
        let mut tasks: Vec<Vec<[&mut [u64]; 2]>> = (0..n / 2 / range).map(|_| list()).collect();
        for poly in results.iter_mut().flatten() {
            let (front, back) = poly.data_mut()[limb.i * n..(limb.i + 1) * n].split_at_mut(n / 2);
            let sides = front.chunks_exact_mut(range).zip(back.rchunks_exact_mut(range));
            for (task, (front, back)) in tasks.iter_mut().zip(sides) {
                task.push([front, back]);
            }
        }
        let zeros = vec![0; limb.block];
        tasks.into_par_iter().enumerate().for_each(|(index, mut outs)| {
            self.task(limb, index * range, &zeros, &mut outs);
        });
    }

    /// Positions from `start` on and their mirror images; `outs` are the sides of both parts of every sum in turn.
    fn task(&self, limb: &Limb<'_>, start: usize, zeros: &[u64], outs: &mut [[&mut [u64]; 2]]) {
        let m: &Modulus = self.context.qp_modulus(self.level, limb.i);
        let (n, block) = (self.context.n(), limb.block);
        let len = outs.first().map_or(0, |out| out[0].len());
        let mut terms = Vec::new();
        for offset in (0..len).step_by(block) {
            let from = start + offset;
            let mut diagonals = limb.diagonals;
            let sides = [from, n - from - block];
            for (sum, out) in limb.sums.iter().zip(outs.chunks_exact_mut(2)) {
                let (own, rest) = diagonals.split_at(sum.diagonals.len());
                diagonals = rest;
                terms.clear();
                terms.extend(own.iter().zip(sum.diagonals.clone()).map(|(values, d)| {
                    let shift = (n / 2 / values.len()).trailing_zeros();
                    let baby = self.map.baby_of[d] as usize;
                    MirroredTerm {
                        values: &values[from >> shift..((from + block - 1) >> shift) + 1],
                        repeat: 1 << shift,
                        factors: sides.map(|at| self.baby(limb, baby, at).unwrap_or([zeros; 2])),
                    }
                }));
                let [[front0, back0], [front1, back1]] = out else { continue };
                let (front, back) = (offset..offset + block, len - offset - block..len - offset);
                let front = [&mut front0[front.clone()], &mut front1[front]];
                let back = [&mut back0[back.clone()], &mut back1[back]];
                sum_mirrored(m, &terms, [front, back]);
            }
        }
    }

    /// Both parts of a block of a baby; `None` for zero.
    fn baby<'b>(&'b self, limb: &Limb<'b>, baby: usize, at: usize) -> Option<[&'b [u64]; 2]> {
        let block = limb.block;
        match self.babies {
            Babies::Fused(hoisted) if hoisted.is_zero(limb.i, baby) => None,
            Babies::Fused(_) => {
                let start = (at * self.babies.count() + baby * block) * 2;
                Some([0, 1].map(|part| &limb.rotated[start + part * block..start + (part + 1) * block]))
            }
            babies => Some(babies.limb(limb.i, baby)?.map(|part| &part[at..at + block])),
        }
    }
}

/// One limb of some sums.
struct Limb<'a> {
    i: usize,
    /// Positions handled at a time.
    block: usize,
    sums: &'a [Sum],
    /// Babies that were made for this limb, `[block][baby][part][position]`.
    rotated: &'a [u64],
    /// First halves of the diagonals of the sums.
    diagonals: &'a [&'a [u64]],
}

/// Ranges of sums whose transformed diagonals fit the buffer.
fn parts(sums: &[Sum], coeffs: &[Arc<CoeffPlaintext>]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut rest = coeffs;
    let mut held = 0;
    for (i, sum) in sums.iter().enumerate() {
        let (own, others) = rest.split_at(sum.diagonals.len());
        rest = others;
        let words: usize = own.iter().map(|c| c.period()).sum();
        match parts.last_mut() {
            Some(part) if held + words <= BUFFER => {
                part.end = i + 1;
                held += words;
            }
            _ => {
                parts.push(i..i + 1);
                held = words;
            }
        }
    }
    parts
}
