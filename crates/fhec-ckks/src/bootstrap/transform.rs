//! The matrices of both transforms under encryption.

use std::collections::BTreeSet;
use std::sync::Arc;

use fhec_math::Scale;
use num_complex::Complex64;

use super::fft::{Direction, SparseMatrix};
use super::spec::Group;
use crate::cipher::Ciphertext;
use crate::encode::Encoder;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::linear::{DiagonalId, DiagonalSource, Hoisting, LinearMap, LinearOptions, PackedDiagonals};
use crate::params::Selection;
use crate::plaintext::QpPlaintext;

/// Rotations that are babies, as a log2. Eight babies and at most three giants serve matrices of up to four layers, and those
/// of a sparse vector need no others, so that one set of keys is enough.
const LOG2_BABIES: u32 = 3;

/// Everything that a matrix depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StageShape {
    pub(super) direction: Direction,
    pub(super) group: Group,
    /// Level of the input, in the whole chain.
    pub(super) level: usize,
    pub(super) in_scale: Scale,
    pub(super) out_scale: Scale,
    pub(super) rescale: bool,
    /// Factor of all entries.
    pub(super) factor: f64,
}

/// One matrix, encoded.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) shape: StageShape,
    map: LinearMap,
    terms: Vec<DiagonalId>,
    diagonals: PackedDiagonals,
}

impl DiagonalSource for Stage {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>> {
        Err(CkksError::Parameters(format!("bootstrap: diagonal {index} is kept packed")))
    }

    fn packed(&self) -> Option<&PackedDiagonals> {
        Some(&self.diagonals)
    }
}

/// How the diagonals of a group are computed: multiples of the distance of its first layer.
fn terms(group: Group) -> Vec<DiagonalId> {
    let (layers, distance) = (group.last - group.first, 1i64 << group.first);
    let count = 1i64 << layers;
    let indices = if group.wraps { 0..count } else { 1 - count..count };
    let babies = 1i64 << layers.min(LOG2_BABIES);
    let mut terms: Vec<DiagonalId> = indices
        .map(|index| {
            let baby = index.rem_euclid(babies);
            DiagonalId { giant: (index - baby) * distance, out_block: 0, in_block: 0, baby: baby * distance }
        })
        .collect();
    terms.sort_unstable();
    terms
}

/// All rotations of a group.
pub(super) fn rotations(group: Group) -> BTreeSet<i64> {
    let all = terms(group).into_iter().flat_map(|term| [term.giant, term.baby]);
    all.filter(|&rotation| rotation != 0).collect()
}

/// Encodes diagonals one by one, for packing.
struct Encoding<'a> {
    encoder: &'a Encoder,
    terms: &'a [DiagonalId],
    matrix: SparseMatrix,
    level: usize,
    scale: Scale,
}

impl DiagonalSource for Encoding<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        self.terms
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>> {
        let term = self.terms[index];
        let period = self.matrix.period as i64;
        let empty = Vec::new();
        let diagonal = self.matrix.diagonals.get(&(term.giant + term.baby)).unwrap_or(&empty);
        let entry = |k: i64| diagonal.get((k - term.giant).rem_euclid(period) as usize).copied().unwrap_or_default();
        let values: Vec<Complex64> = (0..period).map(entry).collect();
        Ok(Arc::new(self.encoder.encode_qp_complex(&values, self.level, &self.scale)?))
    }
}

impl Stage {
    /// Computes and encodes the matrix.
    pub(super) fn new(encoder: &Encoder, shape: StageShape) -> Result<Self> {
        let context = encoder.context();
        let group = shape.group;
        let matrix = SparseMatrix::layers(group.first, group.last, shape.direction).scaled(shape.factor);
        let matrix = if group.wraps { matrix.wrapped(1 << group.last) } else { matrix };
        let terms = terms(group);
        let map = LinearMap::new(&terms, 1, 1)?;
        let StageShape { level, ref in_scale, ref out_scale, rescale, .. } = shape;
        let scale = LinearMap::plaintext_scale(context, level, in_scale, out_scale, rescale);
        let period = matrix.period;
        let source = Encoding { encoder, terms: &terms, matrix, level, scale };
        let diagonals = PackedDiagonals::new(context, &map, &source, period, Hoisting::Auto)?;
        Ok(Self { shape, map, terms, diagonals })
    }

    /// The same for a part of the chain.
    pub(super) fn select(&self, selection: &Selection) -> Self {
        Self {
            shape: self.shape.clone(),
            map: self.map.clone(),
            terms: self.terms.clone(),
            diagonals: self.diagonals.select(selection),
        }
    }

    pub(super) fn apply(&self, evaluator: &Evaluator, input: &Ciphertext) -> Result<Ciphertext> {
        let options = LinearOptions { rescale: self.shape.rescale, ..LinearOptions::default() };
        let out = self.map.apply(evaluator, &[input], self, &[], &self.shape.out_scale, &options)?;
        out.into_iter().next().ok_or_else(|| CkksError::Parameters("bootstrap: a map without output".into()))
    }

    /// Bytes of the diagonals.
    pub(super) fn bytes(&self) -> usize {
        self.diagonals.bytes()
    }
}

/// A sum of rotations, `x → Σ rot_r(x)` over some `r`: part of a trace.
#[derive(Clone, Debug)]
pub(super) struct RotationSum {
    map: LinearMap,
    terms: Vec<DiagonalId>,
}

/// The number 1, encoded for the products of a [`RotationSum`].
struct Ones<'a> {
    terms: &'a [DiagonalId],
    one: Arc<QpPlaintext>,
}

impl DiagonalSource for Ones<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        self.terms
    }

    fn plaintext(&self, _: usize) -> Result<Arc<QpPlaintext>> {
        Ok(Arc::clone(&self.one))
    }

    fn resident(&self) -> bool {
        true
    }
}

impl RotationSum {
    fn new(rotations: impl Iterator<Item = i64>) -> Result<Self> {
        let terms: Vec<DiagonalId> =
            rotations.map(|baby| DiagonalId { giant: 0, out_block: 0, in_block: 0, baby }).collect();
        Ok(Self { map: LinearMap::new(&terms, 1, 1)?, terms })
    }

    pub(super) fn rotations(&self) -> BTreeSet<i64> {
        self.map.rotations()
    }

    pub(super) fn apply(&self, evaluator: &Evaluator, encoder: &Encoder, input: &Ciphertext) -> Result<Ciphertext> {
        let one = Arc::new(encoder.encode_qp(&[1.0], input.level(), &Scale::one())?);
        let source = Ones { terms: &self.terms, one };
        let options = LinearOptions { rescale: false, hoisting: Hoisting::Double, ..LinearOptions::default() };
        let out = self.map.apply(evaluator, &[input], &source, &[], input.scale(), &options)?;
        out.into_iter().next().ok_or_else(|| CkksError::Parameters("bootstrap: a map without output".into()))
    }
}

/// The trace to vectors of `2^log_slots` slots, `Σ rot_{j·2^log_slots}` over all `j`: a few sums one after the other, each of as
/// many hoisted rotations as there are keys for among `keys`. Single rotations are used whether there are keys or not.
pub(super) fn trace(log_slots: u32, log_all: u32, keys: &BTreeSet<i64>) -> Result<Vec<RotationSum>> {
    let mut sums = Vec::new();
    let mut low = log_slots;
    while low < log_all {
        let fits = |&doublings: &u32| (1..1i64 << doublings).all(|j| keys.contains(&(j << low)));
        let doublings = (1..=(log_all - low).min(LOG2_BABIES)).rev().find(fits).unwrap_or(1);
        sums.push(RotationSum::new((0..1i64 << doublings).map(|j| j << low))?);
        low += doublings;
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_groups_use_the_rotations_of_full_ones() {
        for first in [0, 4, 8] {
            let full = rotations(Group { first, last: first + 4, wraps: false });
            assert_eq!(full.len(), 10);
            for last in first + 1..=first + 4 {
                let sparse = rotations(Group { first, last, wraps: true });
                assert!(sparse.is_subset(&full), "{first} {last}");
            }
        }
    }

    #[test]
    fn trace_takes_every_rotation_once() {
        let keys: BTreeSet<i64> = (1..8).map(|j| j << 12).chain((1..8).map(|j| j << 8)).collect();
        for log_slots in 0..=15 {
            let sums = trace(log_slots, 15, &keys).unwrap();
            let mut reached = vec![0];
            for sum in &sums {
                let steps: Vec<i64> = sum.terms.iter().map(|t| t.baby).collect();
                reached = reached.iter().flat_map(|r| steps.iter().map(move |s| r + s)).collect();
            }
            reached.sort_unstable();
            let all: Vec<i64> = (0..1 << (15 - log_slots)).map(|j: i64| j << log_slots).collect();
            assert_eq!(reached, all);
        }
        assert_eq!(trace(12, 15, &keys).unwrap().len(), 1);
        assert_eq!(trace(10, 15, &keys).unwrap().len(), 3);
    }
}
