//! Application of a linear map.

use fhec_math::Scale;
use rayon::prelude::*;

use super::giants::Outputs;
use super::products::{Diagonals, Products};
use super::streamed::Streamed;
use super::{DiagonalSource, Hoisting, LinearMap, LinearOptions, babies};
use crate::cipher::Ciphertext;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::keyswitch::Undivided;
use crate::plaintext::{CoeffPlaintext, Plaintext, QpPlaintext};

const OP: &str = "linear map";

impl LinearMap {
    /// Applies the map to one ciphertext per input block, all of one level.
    ///
    /// Every result has exactly `out_scale`, one level below the inputs if it is rescaled. `bias` is empty or has one entry per
    /// output block, encoded either at the inputs' level and the scale before the rescale or at the level and scale of
    /// the result. An output without diagonals is an encryption of zero (plus bias) that hides nothing.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`] and [`CkksError::ScaleMismatch`] where inputs, diagonals and `out_scale` do not fit together
    /// (see [`plaintext_scale`](Self::plaintext_scale)), [`CkksError::LevelRange`] for a rescale at level 0,
    /// [`CkksError::NoGaloisKey`], [`CkksError::KeyLevel`], [`CkksError::ContextMismatch`], [`CkksError::Parameters`] where numbers of
    /// ciphertexts, biases or diagonals are wrong, and the errors of the source.
    pub fn apply(
        &self,
        evaluator: &Evaluator,
        inputs: &[&Ciphertext],
        source: &dyn DiagonalSource,
        bias: &[Option<Plaintext>],
        out_scale: &Scale,
        options: &LinearOptions,
    ) -> Result<Vec<Ciphertext>> {
        let context = &**evaluator.context();
        let level = self.check(evaluator, inputs, source, bias)?;
        if options.rescale {
            context.check_level(OP, level, 1)?;
        }
        let sum_scale = Self::plaintext_scale(context, level, &Scale::one(), out_scale, options.rescale);
        let outputs = self.outputs(evaluator, inputs, level, source, &sum_scale, options)?;
        outputs.finish(bias, &sum_scale, options.rescale)
    }

    /// A map from one ciphertext to one, [applied](Self::apply) without rescale and not yet divided by `P`.
    pub(crate) fn apply_undivided(
        &self,
        evaluator: &Evaluator,
        input: &Ciphertext,
        source: &dyn DiagonalSource,
        out_scale: &Scale,
    ) -> Result<Undivided> {
        let options = LinearOptions { rescale: false, ..LinearOptions::default() };
        let level = self.check(evaluator, &[input], source, &[])?;
        let outputs = self.outputs(evaluator, &[input], level, source, out_scale, &options)?;
        Ok(Undivided { parts: outputs.undivided(), scale: out_scale.clone() })
    }

    /// The sums of all outputs.
    fn outputs<'a>(
        &self,
        evaluator: &'a Evaluator,
        inputs: &[&Ciphertext],
        level: usize,
        source: &dyn DiagonalSource,
        sum_scale: &Scale,
        options: &LinearOptions,
    ) -> Result<Outputs<'a>> {
        let context = &**evaluator.context();
        let packed = source.packed();
        let hoisting = match packed {
            Some(packed) => packed.hoisting(),
            None => self.resolve(context, level, options.hoisting),
        };
        let limbs = if hoisting == Hoisting::Double { context.qp_limbs(level) } else { level + 1 };
        if self.streams(context, source) {
            let babies = babies::make(self, evaluator, inputs, level, hoisting, true)?;
            let streamed = Streamed { context, level, map: self, babies: &babies };
            let mut outputs = Outputs::new(evaluator, level, hoisting, self.out_blocks);
            let period = source.period().unwrap_or(context.slots());
            let shape = self.streamed(context, level, hoisting == Hoisting::Single, period);
            for chunk in shape.chunks(options.plaintext_window) {
                let sums = &self.sums[chunk];
                let range = sums[0].diagonals.start..sums[sums.len() - 1].diagonals.end;
                let fetch = |d| {
                    let coeffs = source.coefficients(d)?;
                    let input = inputs[source.diagonals()[d].in_block];
                    check_coefficients(evaluator, &coeffs, input, sum_scale)?;
                    Ok(coeffs)
                };
                let coeffs = range.into_par_iter().map(fetch).collect::<Result<Vec<_>>>()?;
                let results = streamed.compute(sums, &coeffs, limbs);
                drop(coeffs);
                outputs.add(sums, results)?;
            }
            return Ok(outputs);
        }
        let uncompressed = || context.n() * context.qp_limbs(level) * 8;
        let bytes = source.plaintext_bytes().unwrap_or_else(uncompressed);
        let whole = packed.is_some() || source.resident() || bytes * self.baby_of.len() <= options.plaintext_window;
        if let Some(packed) = packed {
            let shapes: Vec<_> = inputs.iter().map(|input| (input.level(), input.scale())).collect();
            packed.check(context, self, &shapes, sum_scale)?;
        }
        let babies = babies::make(self, evaluator, inputs, level, hoisting, whole)?;
        let mut outputs = Outputs::new(evaluator, level, hoisting, self.out_blocks);
        for group in self.groups(whole, options.plaintext_window, bytes) {
            let sums = &self.sums[group];
            let diagonals = match packed {
                Some(packed) => Diagonals::Packed(packed),
                None => {
                    let range = sums[0].diagonals.start..sums[sums.len() - 1].diagonals.end;
                    let fetch = |d| {
                        let plaintext = source.plaintext(d)?;
                        let input = inputs[source.diagonals()[d].in_block];
                        check_plaintext(evaluator, &plaintext, input, sum_scale)?;
                        Ok(plaintext)
                    };
                    Diagonals::Single(range.into_par_iter().map(fetch).collect::<Result<_>>()?)
                }
            };
            let products = Products { context, level, map: self, sums, babies: &babies, diagonals: &diagonals };
            let results = products.compute(limbs);
            drop(diagonals);
            outputs.add(sums, results)?;
        }
        Ok(outputs)
    }

    /// The common level of the inputs.
    fn check(
        &self,
        evaluator: &Evaluator,
        inputs: &[&Ciphertext],
        source: &dyn DiagonalSource,
        bias: &[Option<Plaintext>],
    ) -> Result<usize> {
        let counts = [
            ("inputs", inputs.len(), self.in_blocks),
            ("diagonals", source.diagonals().len(), self.baby_of.len()),
            ("biases", bias.len(), if bias.is_empty() { 0 } else { self.out_blocks }),
        ];
        if let Some((what, found, expected)) = counts.into_iter().find(|c| c.1 != c.2) {
            return Err(CkksError::Parameters(format!("{OP}: {found} {what}, expected {expected}")));
        }
        let Some(first) = inputs.first() else {
            return Err(CkksError::Parameters(format!("{OP}: no input")));
        };
        for input in inputs {
            evaluator.context().check_id(OP, input.context_id())?;
            if input.level() != first.level() {
                return Err(CkksError::LevelMismatch { op: OP, lhs: first.level(), rhs: input.level() });
            }
        }
        Ok(first.level())
    }
}

fn check_coefficients(
    evaluator: &Evaluator,
    coeffs: &CoeffPlaintext,
    input: &Ciphertext,
    sum_scale: &Scale,
) -> Result<()> {
    let context = evaluator.context();
    if !coeffs.is_real() || coeffs.period() > context.slots() {
        return Err(CkksError::Parameters(format!("{OP}: coefficients that are not those of real slots")));
    }
    let (log2_magnitude, log2_limit) = (coeffs.log2_magnitude(), context.log_q(input.level()) - 1.0);
    if log2_magnitude >= log2_limit {
        return Err(CkksError::Overflow { op: OP, log2_magnitude, log2_limit });
    }
    let product = coeffs.scale().mul(input.scale());
    if product == *sum_scale { Ok(()) } else { Err(CkksError::scales(OP, &product, sum_scale)) }
}

fn check_plaintext(
    evaluator: &Evaluator,
    plaintext: &QpPlaintext,
    input: &Ciphertext,
    sum_scale: &Scale,
) -> Result<()> {
    evaluator.context().check_id(OP, plaintext.context_id())?;
    if plaintext.level() != input.level() {
        return Err(CkksError::LevelMismatch { op: OP, lhs: input.level(), rhs: plaintext.level() });
    }
    let product = plaintext.scale().mul(input.scale());
    if product == *sum_scale { Ok(()) } else { Err(CkksError::scales(OP, &product, sum_scale)) }
}
