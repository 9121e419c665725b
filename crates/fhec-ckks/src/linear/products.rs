//! Sums of products of babies and diagonals.
//!
//! A task is a range of positions of one limb. It goes through them in blocks so short that all babies of a block
//! stay in the second-level cache while every sum reads them; keys and plaintexts stream past once.

use std::sync::Arc;

use fhec_math::diagonals::{DiagonalTerm, MAX_TERMS, sum_packed, sum_products};
use fhec_math::{Eval, Modulus, Poly, pointwise};
use rayon::prelude::*;

use super::babies::Babies;
use super::packed::PackedDiagonals;
use super::{LinearMap, Sum};
use crate::params::Context;
use crate::plaintext::QpPlaintext;

/// Bytes that the babies of one block may take.
const CACHE: usize = 640 << 10;
/// Bounds of the length of a block: shorter ones waste time on their ends.
const BLOCK: (usize, usize) = (256, 2048);
/// Products of words that are worth a task of their own.
pub(super) const TASK: usize = 1 << 18;

/// Both parts of the result of one sum.
pub(super) type Pair = [Poly<Eval>; 2];

/// Where diagonals are read from.
pub(super) enum Diagonals<'a> {
    /// One plaintext each, those of the sums at hand in order.
    Single(Vec<Arc<QpPlaintext>>),
    /// All in one.
    Packed(&'a PackedDiagonals),
}

/// What the sums are made of.
pub(super) struct Products<'a> {
    pub(super) context: &'a Context,
    pub(super) level: usize,
    pub(super) map: &'a LinearMap,
    pub(super) sums: &'a [Sum],
    pub(super) babies: &'a Babies<'a>,
    pub(super) diagonals: &'a Diagonals<'a>,
}

/// Positions handled at a time for a number of babies.
pub(super) fn block_length(babies: usize, n: usize) -> usize {
    let fit = CACHE / (16 * babies.max(1));
    (1 << fit.max(1).ilog2()).clamp(BLOCK.0, BLOCK.1).min(n)
}

impl Products<'_> {
    /// The sums over the first `limbs` limbs.
    pub(super) fn compute(&self, limbs: usize) -> Vec<Pair> {
        let n = self.context.n();
        let terms: usize = self.sums.iter().map(|s| s.diagonals.len()).sum();
        let block = match self.diagonals {
            Diagonals::Single(_) => block_length(self.babies.count(), n),
            Diagonals::Packed(packed) => packed.block(),
        };
        let work = 2 * (terms + self.babies.count());
        let range = (TASK / work.max(1)).next_power_of_two().clamp(block, n);
        let pair = || std::array::from_fn(|_| Poly::scratch(n, limbs));
        let mut results: Vec<Pair> = self.sums.iter().map(|_| pair()).collect();
        let ranges = n / range;
        let list = || Vec::with_capacity(2 * self.sums.len());
        let mut tasks: Vec<Vec<&mut [u64]>> = (0..limbs * ranges).map(|_| list()).collect();
        for poly in results.iter_mut().flatten() {
            for (task, chunk) in tasks.iter_mut().zip(poly.data_mut().chunks_exact_mut(range)) {
                task.push(chunk);
            }
        }
        let scratch = || Scratch { zeros: vec![0; block], ..Scratch::default() };
        tasks.into_par_iter().enumerate().for_each_init(scratch, |scratch, (index, mut outs)| {
            self.task(scratch, index / ranges, index % ranges * range, block, &mut outs);
        });
        results
    }

    /// Positions of limb `i` from `start` on; `outs` are both parts of every sum in turn.
    fn task(&self, scratch: &mut Scratch, i: usize, start: usize, block: usize, outs: &mut [&mut [u64]]) {
        let fused = match self.babies {
            Babies::Fused(hoisted) => Some((hoisted, hoisted.columns(i))),
            _ => None,
        };
        let m = self.context.qp_modulus(self.level, i);
        let len = outs.first().map_or(0, |out| out.len());
        let babies = self.babies.count();
        for offset in (0..len).step_by(block) {
            let from = start + offset;
            let Scratch { babies: made, zeros } = &mut *scratch;
            if let Some((hoisted, columns)) = &fused {
                made.resize(babies * 2 * block, 0);
                hoisted.block(i, from, columns, made);
            }
            let (made, zeros) = (&made[..], &zeros[..]);
            // Babies that are not rotated are zero modulo the special primes.
            let baby = |b: usize| match &fused {
                Some((hoisted, _)) if hoisted.is_zero(i, b) => [zeros; 2],
                Some(_) => [0, 1].map(|part| &made[(2 * b + part) * block..(2 * b + part + 1) * block]),
                None => match self.babies.limb(i, b) {
                    Some(parts) => parts.map(|part| &part[from..from + block]),
                    None => [zeros; 2],
                },
            };
            for (sum, out) in self.sums.iter().zip(outs.chunks_exact_mut(2)) {
                let [out0, out1] = out else { continue };
                let out = [&mut out0[offset..offset + block], &mut out1[offset..offset + block]];
                let factors = sum.diagonals.clone().map(|d| baby(self.map.baby_of[d] as usize));
                match self.diagonals {
                    Diagonals::Packed(packed) => {
                        let factors: Vec<[&[u64]; 2]> = factors.collect();
                        let stream = packed.stream(self.context, i, from, &sum.diagonals);
                        sum_packed(m, packed.repeat(), stream, &factors, out);
                    }
                    Diagonals::Single(plaintexts) => {
                        let first = self.sums[0].diagonals.start;
                        let plaintexts = &plaintexts[sum.diagonals.start - first..sum.diagonals.end - first];
                        sum_single(m, i, from, plaintexts, factors, out);
                    }
                }
            }
        }
    }
}

/// One block of one sum, from separate plaintexts.
fn sum_single<'b>(
    m: &Modulus,
    i: usize,
    from: usize,
    plaintexts: &'b [Arc<QpPlaintext>],
    factors: impl Iterator<Item = [&'b [u64]; 2]>,
    [out0, out1]: [&mut [u64]; 2],
) {
    let len = out0.len();
    let term = |(plaintext, factors): (&'b Arc<QpPlaintext>, _)| {
        let shift = plaintext.repeat().trailing_zeros();
        let values = &plaintext.limb(i)[from >> shift..((from + len - 1) >> shift) + 1];
        DiagonalTerm { values, repeat: 1 << shift, factors }
    };
    let mut terms = Vec::with_capacity(plaintexts.len());
    terms.extend(plaintexts.iter().zip(factors).map(term));
    let (head, tail) = terms.split_at(terms.len().min(MAX_TERMS));
    sum_products(m, head, [&mut *out0, &mut *out1]);
    for piece in tail.chunks(MAX_TERMS) {
        let mut more = vec![0; 2 * len];
        let (more0, more1) = more.split_at_mut(len);
        sum_products(m, piece, [&mut *more0, &mut *more1]);
        pointwise::add_assign(m, out0, more0);
        pointwise::add_assign(m, out1, more1);
    }
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    /// The babies of a block.
    babies: Vec<u64>,
    zeros: Vec<u64>,
}
