//! How the terms of a linear map instruction are evaluated together.
//!
//! `Σ_k M_k·x_k` is one block matrix whose inputs are the ciphertexts of all `x_k`, as long as the terms
//! agree in period and baby count: then they share giants and the final division. Terms that do not agree
//! are separate groups whose results are added. Compiler (costs, key manifest), verifier and runtime all
//! use [`groups`], so they cannot disagree about the rotations.

use crate::{Diagonals, LinearTerm, Matrix};
use fhec_math::bsgs::{BsgsPlan, DiagonalIndex};

/// Where a diagonal of a [`LinearGroup`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagonalSource {
    /// Position in the instruction's list of terms.
    pub term: usize,
    /// Number of the diagonal in [`Diagonals::keys`] of that term's matrix.
    pub diagonal: usize,
}

/// Terms that are evaluated as one block matrix.
#[derive(Clone, Debug)]
pub struct LinearGroup {
    /// Positions of the terms in the instruction, ascending. Input block `b` of the group is the `b`-th
    /// ciphertext of the concatenated sources.
    pub terms: Vec<usize>,
    /// Baby steps, giant steps and the order of execution; empty where ciphertexts hold one element, because nothing is rotated and
    /// diagonals are not listed there.
    pub bsgs: BsgsPlan,
    /// Per entry of `bsgs.terms()`: the diagonal that it multiplies.
    pub sources: Vec<DiagonalSource>,
    /// Number of diagonals.
    pub products: usize,
    /// Rotate-and-add steps that finish the sum, after the rescale.
    pub fold: Vec<usize>,
}

/// Splits the terms of a linear map into groups. `lookup` gives matrix and diagonals of a term.
///
/// All matrices must have the same output packing; the verifier makes sure of it.
pub fn groups<'a>(
    terms: &[LinearTerm],
    lookup: impl Fn(&LinearTerm) -> (&'a Matrix, &'a Diagonals),
) -> Vec<LinearGroup> {
    let mut shapes: Vec<((usize, usize), Vec<usize>)> = Vec::new();
    for (at, term) in terms.iter().enumerate() {
        let shape = (lookup(term).0.in_period, term.baby);
        match shapes.iter_mut().find(|(s, _)| *s == shape) {
            Some((_, list)) => list.push(at),
            None => shapes.push((shape, vec![at])),
        }
    }
    shapes.into_iter().map(|((_, baby), list)| group(terms, baby, list, &lookup)).collect()
}

fn group<'a>(
    terms: &[LinearTerm],
    baby: usize,
    list: Vec<usize>,
    lookup: &impl Fn(&LinearTerm) -> (&'a Matrix, &'a Diagonals),
) -> LinearGroup {
    let mut indices = Vec::new();
    let mut sources = Vec::new();
    let (mut first_block, mut products) = (0, 0);
    for &at in &list {
        let (matrix, diagonals) = lookup(&terms[at]);
        products += diagonals.len();
        for (number, key) in diagonals.keys().iter().enumerate() {
            indices.push(DiagonalIndex {
                out_block: key.out_block as usize,
                in_block: first_block + key.in_block as usize,
                index: i64::from(key.index),
            });
            sources.push(DiagonalSource { term: at, diagonal: number });
        }
        first_block += matrix.in_ciphertexts;
    }
    let matrix = lookup(&terms[list[0]]).0;
    let modulus = matrix.diagonal_bound();
    let bsgs = BsgsPlan::new(modulus, &indices, baby.max(1));
    let mut by_index: Vec<(DiagonalIndex, DiagonalSource)> = indices.into_iter().zip(sources).collect();
    by_index.sort_unstable_by_key(|(index, _)| *index);
    let find = |t: &fhec_math::bsgs::BsgsTerm| {
        let index = t.index(modulus) as i64;
        let wanted = DiagonalIndex { out_block: t.out_block, in_block: t.in_block, index };
        let at = by_index.partition_point(|(index, _)| *index < wanted);
        by_index[at].1
    };
    let sources = bsgs.terms().iter().map(find).collect();
    LinearGroup { terms: list, bsgs, sources, products, fold: matrix.fold_steps() }
}
