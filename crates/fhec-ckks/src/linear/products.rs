//! Sums of products of babies and diagonals.

use std::sync::Arc;

use fhec_math::accumulate::dot_pair_into;
use fhec_math::{Eval, Modulus, Poly, pointwise};
use rayon::prelude::*;

use super::babies::Babies;
use super::{LinearMap, Sum};
use crate::params::Context;
use crate::plaintext::QpPlaintext;

/// Positions handled at a time: 64 babies of two parts then take 1 MiB, and stay in cache for all sums of a
/// group.
const BLOCK: usize = 1024;
/// Products that one lazy sum takes; more are added piecewise.
const MAX_TERMS: usize = 2048;
/// Products of words that are worth a task of their own.
const TASK: usize = 1 << 17;

/// Both parts of the result of one sum.
pub(super) type Pair = [Poly<Eval>; 2];

/// The sums `sums` over `limbs` limbs. `plaintexts` holds their diagonals, the first of which has number `first`.
pub(super) fn sum_products(
    context: &Context,
    level: usize,
    limbs: usize,
    map: &LinearMap,
    sums: &[Sum],
    babies: &Babies<'_>,
    plaintexts: &[Arc<QpPlaintext>],
) -> Vec<Pair> {
    let n = context.n();
    let first = sums.first().map_or(0, |s| s.diagonals.start);
    let mut results: Vec<Pair> = sums.iter().map(|_| std::array::from_fn(|_| Poly::zero(n, limbs))).collect();
    let block = BLOCK.min(n);
    let blocks = n / block;
    let mut tasks: Vec<Vec<&mut [u64]>> = (0..limbs * blocks).map(|_| Vec::with_capacity(2 * sums.len())).collect();
    for poly in results.iter_mut().flatten() {
        for (task, chunk) in tasks.iter_mut().zip(poly.data_mut().chunks_exact_mut(block)) {
            task.push(chunk);
        }
    }
    let work = 2 * block * plaintexts.len().max(1);
    tasks.into_par_iter().enumerate().with_min_len((TASK / work).max(1)).for_each_init(
        Scratch::default,
        |scratch, (index, outs)| {
            let (i, start) = (index / blocks, index % blocks * block);
            let m = context.qp_modulus(level, i);
            let mut outs = outs.into_iter();
            for sum in sums {
                let (Some(out0), Some(out1)) = (outs.next(), outs.next()) else { return };
                for piece in sum.diagonals.clone().step_by(MAX_TERMS) {
                    let range = piece..sum.diagonals.end.min(piece + MAX_TERMS);
                    let terms: Vec<Term<'_>> = range
                        .filter_map(|d| {
                            let baby = map.baby_of[d] as usize;
                            let [baby0, baby1] = [0, 1].map(|part| babies.limb(i, baby, part));
                            Some(Term { plaintext: &plaintexts[d - first], baby0: baby0?, baby1: baby1? })
                        })
                        .collect();
                    scratch.add(m, i, start, &terms, out0, out1);
                }
            }
        },
    );
    results
}

/// One diagonal and the limb of the baby that it multiplies.
struct Term<'a> {
    plaintext: &'a QpPlaintext,
    baby0: &'a [u64],
    baby1: &'a [u64],
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    expanded: Vec<u64>,
    sums: Vec<u64>,
}

impl Scratch {
    /// Adds positions `start …` of limb `i` of `Σ plaintext · baby` to both outputs.
    fn add(&mut self, m: &Modulus, i: usize, start: usize, terms: &[Term<'_>], out0: &mut [u64], out1: &mut [u64]) {
        let len = out0.len();
        self.expanded.resize(terms.len() * len, 0);
        self.sums.resize(2 * len, 0);
        for (term, buffer) in terms.iter().zip(self.expanded.chunks_exact_mut(len)) {
            if term.plaintext.repeat() > 1 {
                term.plaintext.expand(i, start, buffer);
            }
        }
        let expanded = terms.iter().zip(self.expanded.chunks_exact(len));
        let diagonals: Vec<&[u64]> = expanded
            .map(
                |(term, buffer)| {
                    if term.plaintext.repeat() > 1 { buffer } else { &term.plaintext.limb(i)[start..start + len] }
                },
            )
            .collect();
        let baby0: Vec<&[u64]> = terms.iter().map(|t| &t.baby0[start..start + len]).collect();
        let baby1: Vec<&[u64]> = terms.iter().map(|t| &t.baby1[start..start + len]).collect();
        let (sum0, sum1) = self.sums.split_at_mut(len);
        dot_pair_into(m, &diagonals, [&baby0, &baby1], [sum0, sum1]);
        pointwise::add_assign(m, out0, sum0);
        pointwise::add_assign(m, out1, sum1);
    }
}
