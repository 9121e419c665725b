//! Maps of a ciphertext that is small: one digit holds it.

use fhec_math::{Eval, Poly, Scale};

use super::babies::{Babies, Hoisted};
use super::products::{Diagonals, Products};
use super::{LinearMap, PackedDiagonals};
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keyswitch::{Decomposed, mod_down_pair, mod_down_rescale_pair};
use crate::qp::QpPoly;

/// A ciphertext under another secret whose second part is below the first prime, over the chain of a
/// [raising](crate::params::Context::raising) context.
pub(crate) struct SmallCiphertext {
    /// The part that is not multiplied by the secret.
    pub(crate) c0: Poly<Eval>,
    /// The part that is.
    pub(crate) c1: Decomposed,
    /// The scale.
    pub(crate) scale: Scale,
}

impl LinearMap {
    /// The sums of a map from one ciphertext to one, each with the giant that is still to be done. There is a key for every
    /// baby, that by 0 included: they lead to the secret of the results.
    ///
    /// A single sum is rescaled at once if `rescale` says so, and has the scale `out_scale`; several have that before the rescale.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn apply_small(
        &self,
        evaluator: &Evaluator,
        input: &SmallCiphertext,
        diagonals: &PackedDiagonals,
        out_scale: &Scale,
        rescale: bool,
    ) -> Result<Vec<(i64, Ciphertext)>> {
        let context = &**evaluator.context();
        let level = input.c1.level();
        let sum_scale = Self::plaintext_scale(context, level, &Scale::one(), out_scale, rescale);
        diagonals.check(context, self, &[(level, &input.scale)], &sum_scale)?;
        let diagonals = Diagonals::Packed(diagonals);
        let babies = Babies::Fused(Hoisted::of_small(self, evaluator, input)?);
        let products = Products { context, level, map: self, sums: &self.sums, babies: &babies, diagonals: &diagonals };
        let results = products.compute(context.qp_limbs(level));
        let at_once = rescale && results.len() == 1;
        let divided = self.sums.iter().zip(results).map(|(sum, [c0, c1])| {
            let pair = (QpPoly { poly: c0, level }, QpPoly { poly: c1, level });
            let ciphertext = if at_once {
                let (c0, c1) = mod_down_rescale_pair(context, pair)?;
                Ciphertext::from_parts(context, c0, c1, level - 1, out_scale.clone())
            } else {
                let (c0, c1) = mod_down_pair(context, pair);
                Ciphertext::from_parts(context, c0, c1, level, sum_scale.clone())
            };
            Ok((sum.giant, ciphertext))
        });
        divided.collect()
    }
}
