//! Sums of products of babies and diagonals.
//!
//! A task is a range of positions of one limb. It goes through them in blocks so short that all babies of a block
//! stay in the second-level cache while every sum reads them; keys and plaintexts stream past once.

use std::sync::Arc;

use fhec_math::accumulate::dot_pair_into;
use fhec_math::{Eval, Modulus, Poly, pointwise};
use rayon::prelude::*;

use super::babies::{Babies, Hoisted};
use super::{LinearMap, Sum};
use crate::params::Context;
use crate::plaintext::QpPlaintext;

/// Bytes that the babies of one block may take.
const CACHE: usize = 640 << 10;
/// Bounds of the length of a block: shorter ones waste time on their ends.
const BLOCK: (usize, usize) = (256, 2048);
/// Products that one lazy sum takes; more are added piecewise.
const MAX_TERMS: usize = 2048;
/// Products of words that are worth a task of their own.
const TASK: usize = 1 << 18;

/// Both parts of the result of one sum.
pub(super) type Pair = [Poly<Eval>; 2];

/// What the sums are made of.
pub(super) struct Products<'a> {
    pub(super) context: &'a Context,
    pub(super) level: usize,
    pub(super) map: &'a LinearMap,
    pub(super) sums: &'a [Sum],
    pub(super) babies: &'a Babies<'a>,
    /// The diagonals of the sums, in order.
    pub(super) plaintexts: &'a [Arc<QpPlaintext>],
}

impl Products<'_> {
    /// The sums over the first `limbs` limbs.
    pub(super) fn compute(&self, limbs: usize) -> Vec<Pair> {
        let n = self.context.n();
        let babies = self.babies.count().max(1);
        let block = prev_power_of_two(CACHE / (16 * babies)).clamp(BLOCK.0, BLOCK.1).min(n);
        let work = 2 * (self.plaintexts.len() + babies);
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
        tasks.into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (index, mut outs)| {
            self.task(scratch, index / ranges, index % ranges * range, block, &mut outs);
        });
        results
    }

    /// Positions of limb `i` from `start` on; `outs` are both parts of every sum in turn.
    fn task(&self, scratch: &mut Scratch, i: usize, start: usize, block: usize, outs: &mut [&mut [u64]]) {
        let columns = match self.babies {
            Babies::Fused(hoisted) => Some((hoisted, hoisted.columns(i))),
            _ => None,
        };
        let len = outs.first().map_or(0, |out| out.len());
        let babies = self.babies.count();
        for offset in (0..len).step_by(block) {
            let from = start + offset;
            let Scratch { babies: made, sum, terms } = &mut *scratch;
            if let Some((hoisted, columns)) = &columns {
                made.resize(babies * 2 * block, 0);
                hoisted.block(i, from, columns, made, sum);
            }
            let baby = |b: usize| match &columns {
                Some((hoisted, _)) => made_baby(hoisted, made, i, b, block),
                None => self.babies.limb(i, b).map(|parts| parts.map(|part| &part[from..from + block])),
            };
            for (sum, out) in self.sums.iter().zip(outs.chunks_exact_mut(2)) {
                let [out0, out1] = out else { continue };
                let out = [&mut out0[offset..offset + block], &mut out1[offset..offset + block]];
                self.sum(terms, sum, i, from, baby, out);
            }
        }
    }

    /// One block of one sum.
    fn sum<'b>(
        &self,
        buffers: &mut TermBuffers,
        sum: &Sum,
        i: usize,
        from: usize,
        baby: impl Fn(usize) -> Option<[&'b [u64]; 2]>,
        [out0, out1]: [&mut [u64]; 2],
    ) {
        let m = self.context.qp_modulus(self.level, i);
        let first = self.sums[0].diagonals.start;
        let mut empty = true;
        for piece in sum.diagonals.clone().step_by(MAX_TERMS) {
            let range = piece..sum.diagonals.end.min(piece + MAX_TERMS);
            let mut list: [Vec<&[u64]>; 2] = [Vec::with_capacity(range.len()), Vec::with_capacity(range.len())];
            let mut plaintexts: Vec<&QpPlaintext> = Vec::with_capacity(range.len());
            for d in range {
                if let Some([baby0, baby1]) = baby(self.map.baby_of[d] as usize) {
                    plaintexts.push(&self.plaintexts[d - first]);
                    list[0].push(baby0);
                    list[1].push(baby1);
                }
            }
            if plaintexts.is_empty() {
                continue;
            }
            if empty {
                buffers.dot(m, i, from, &plaintexts, [&list[0], &list[1]], [&mut *out0, &mut *out1]);
                empty = false;
            } else {
                let mut more = vec![0; 2 * out0.len()];
                let (more0, more1) = more.split_at_mut(out0.len());
                buffers.dot(m, i, from, &plaintexts, [&list[0], &list[1]], [more0, more1]);
                pointwise::add_assign(m, out0, more0);
                pointwise::add_assign(m, out1, more1);
            }
        }
        if empty {
            out0.fill(0);
            out1.fill(0);
        }
    }
}

fn made_baby<'b>(hoisted: &Hoisted<'_>, made: &'b [u64], i: usize, b: usize, len: usize) -> Option<[&'b [u64]; 2]> {
    if hoisted.is_zero(i, b) {
        return None;
    }
    let (baby0, baby1) = made[2 * b * len..2 * (b + 1) * len].split_at(len);
    Some([baby0, baby1])
}

fn prev_power_of_two(x: usize) -> usize {
    1 << x.max(1).ilog2()
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    /// The babies of a block.
    babies: Vec<u64>,
    sum: Vec<u64>,
    terms: TermBuffers,
}

#[derive(Default)]
struct TermBuffers {
    /// Compressed plaintexts, written out.
    expanded: Vec<u64>,
}

impl TermBuffers {
    /// Positions `from …` of limb `i` of `Σ plaintext · baby`.
    fn dot(
        &mut self,
        m: &Modulus,
        i: usize,
        from: usize,
        plaintexts: &[&QpPlaintext],
        babies: [&[&[u64]]; 2],
        out: [&mut [u64]; 2],
    ) {
        let len = out[0].len();
        let compressed = |p: &QpPlaintext| p.repeat() > 1;
        if plaintexts.iter().any(|p| compressed(p)) {
            self.expanded.resize(plaintexts.len() * len, 0);
        }
        for (plaintext, buffer) in plaintexts.iter().zip(self.expanded.chunks_exact_mut(len)) {
            if compressed(plaintext) {
                plaintext.expand(i, from, buffer);
            }
        }
        let mut expanded = self.expanded.chunks_exact(len);
        let diagonals: Vec<&[u64]> = plaintexts
            .iter()
            .map(|plaintext| {
                let buffer = expanded.next();
                match buffer {
                    Some(buffer) if compressed(plaintext) => buffer,
                    _ => &plaintext.limb(i)[from..from + len],
                }
            })
            .collect();
        dot_pair_into(m, &diagonals, babies, out);
    }
}
