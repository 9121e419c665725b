//! The matrices of both transforms under encryption.

use std::sync::Arc;

use fhec_math::Scale;
use fhec_math::bootstrap::{Group, terms};
use num_complex::Complex64;

use super::fft::{Direction, SparseMatrix};
use crate::cipher::Ciphertext;
use crate::encode::Encoder;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::linear::{DiagonalId, DiagonalSource, Hoisting, LinearMap, LinearOptions, PackedDiagonals};
use crate::params::Selection;
use crate::plaintext::QpPlaintext;

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

/// The number 1, encoded for the products of a sum of rotations.
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

/// A sum of rotations, `x → Σ rot_r(x)`: part of a trace.
pub(super) fn rotation_sum(
    evaluator: &Evaluator,
    encoder: &Encoder,
    input: &Ciphertext,
    rotations: &[i64],
) -> Result<Ciphertext> {
    let term = |&baby| DiagonalId { giant: 0, out_block: 0, in_block: 0, baby };
    let terms: Vec<DiagonalId> = rotations.iter().map(term).collect();
    let map = LinearMap::new(&terms, 1, 1)?;
    let one = Arc::new(encoder.encode_qp(&[1.0], input.level(), &Scale::one())?);
    let source = Ones { terms: &terms, one };
    let options = LinearOptions { rescale: false, hoisting: Hoisting::Double, ..LinearOptions::default() };
    let out = map.apply(evaluator, &[input], &source, &[], input.scale(), &options)?;
    out.into_iter().next().ok_or_else(|| CkksError::Parameters("bootstrap: a map without output".into()))
}
