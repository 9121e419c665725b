//! The matrices of both transforms under encryption.

use std::sync::Arc;

use fhec_math::Scale;
use fhec_math::bootstrap::{LowRing, Matrix};
use num_complex::Complex64;

use super::fft::{Direction, SparseMatrix};
use crate::cipher::Ciphertext;
use crate::encode::Encoder;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::keyswitch::Undivided;
use crate::linear::{DiagonalId, DiagonalSource, Hoisting, LinearMap, LinearOptions, PackedDiagonals, SmallCiphertext};
use crate::params::Selection;
use crate::plaintext::QpPlaintext;

/// Everything that a matrix depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StageShape {
    pub(super) direction: Direction,
    /// The ring in which it is used, if that is a smaller one.
    pub(super) low: Option<LowRing>,
    /// Its layers, and its level in the whole chain.
    pub(super) matrix: Matrix,
    pub(super) in_scale: Scale,
    pub(super) out_scale: Scale,
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
    /// Computes and encodes the matrix; with the encoder of the [raising](crate::params::Context::raising) context where its
    /// input is what was raised, and of the smaller ring where it is used there.
    pub(super) fn new(encoder: &Encoder, shape: StageShape) -> Result<Self> {
        let context = encoder.context();
        let group = shape.matrix.group;
        let layers = SparseMatrix::layers(group.first, group.last, shape.direction).scaled(shape.factor);
        let matrix = if group.wraps { layers.wrapped(1 << group.last) } else { layers };
        let terms = shape.matrix.terms();
        let map = LinearMap::new(&terms, 1, 1)?;
        let StageShape { matrix: Matrix { level, rescale, raised, .. }, ref in_scale, ref out_scale, .. } = shape;
        let scale = LinearMap::plaintext_scale(context, level, in_scale, out_scale, rescale);
        let period = matrix.period;
        let source = Encoding { encoder, terms: &terms, matrix, level, scale };
        let hoisting = if raised { Hoisting::Double } else { Hoisting::Auto };
        let diagonals = PackedDiagonals::new(context, &map, &source, period, hoisting)?;
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
        let options = LinearOptions { rescale: self.shape.matrix.rescale, ..LinearOptions::default() };
        let out = self.map.apply(evaluator, &[input], self, &[], &self.shape.out_scale, &options)?;
        out.into_iter().next().ok_or_else(no_output)
    }

    /// [`apply`](Self::apply) without the division by `P`, for a matrix that leaves its rescale to what follows.
    pub(super) fn apply_undivided(&self, evaluator: &Evaluator, input: &Ciphertext) -> Result<Undivided> {
        self.map.apply_undivided(evaluator, input, self, &self.shape.out_scale)
    }

    /// [`apply`](Self::apply) to what was raised, on the way to the dense secret, with the evaluator of the keys for that.
    pub(super) fn apply_raised(
        &self,
        evaluator: &Evaluator,
        up: &Evaluator,
        input: &SmallCiphertext,
    ) -> Result<Ciphertext> {
        let rescale = self.shape.matrix.rescale;
        let parts = self.map.apply_small(up, input, &self.diagonals, &self.shape.out_scale, rescale)?;
        let late = rescale && parts.len() > 1;
        let sum = sum_of_rotations(evaluator, parts)?;
        if late { evaluator.rescale(&sum) } else { Ok(sum) }
    }

    /// Bytes of the diagonals.
    pub(super) fn bytes(&self) -> usize {
        self.diagonals.bytes()
    }
}

fn no_output() -> CkksError {
    CkksError::Parameters("bootstrap: a map without output".into())
}

/// Adds up ciphertexts, each after the rotation that belongs to it, as such of the evaluator's context.
fn sum_of_rotations(evaluator: &Evaluator, parts: Vec<(i64, Ciphertext)>) -> Result<Ciphertext> {
    let mut sum: Option<Ciphertext> = None;
    for (rotation, part) in parts {
        let (level, scale) = (part.level(), part.scale().clone());
        let (c0, c1) = part.into_parts();
        let part = Ciphertext::from_parts(evaluator.context(), c0, c1, level, scale);
        let part = if rotation == 0 { part } else { evaluator.rotate(&part, rotation)? };
        match &mut sum {
            Some(sum) => evaluator.add_assign(sum, &part)?,
            empty => *empty = Some(part),
        }
    }
    sum.ok_or_else(no_output)
}
