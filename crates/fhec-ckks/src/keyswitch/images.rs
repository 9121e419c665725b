//! A ciphertext and its images under automorphisms, added up before anything is divided by `P`: parts of a trace.
//!
//! Only the second part has to be divided, for its digits. So sums that follow each other hand the first part on modulo `Q·P`, and the last one
//! divides both, by the prime of a rescale too.

use std::sync::Arc;

use fhec_math::accumulate::Factors;
use fhec_math::{AlignedVec, Automorphism, Eval, Poly, Scale, pointwise};

use super::digits::Digits;
use super::switch::{Division, Pair, add_moved_limb, by_limb, check_keys, division, remainders};
use super::{inverse_divided, mod_down, mod_down_pair, mod_down_rescale_pair, transform_remainder};
use crate::error::Result;
use crate::keys::SwitchingKey;
use crate::params::Context;
use crate::qp::QpPoly;

/// A ciphertext times `P`, modulo `Q·P`.
pub(crate) struct Undivided {
    /// Both parts.
    pub(crate) parts: [QpPoly; 2],
    /// The scale that it has once it is divided.
    pub(crate) scale: Scale,
}

impl Undivided {
    /// Divides by `P`, and by the last prime of the chain too where `rescale` is set. The scale is the caller's business.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`](crate::CkksError::LevelRange) for a rescale at level 0.
    pub(crate) fn divide(self, context: &Context, rescale: bool) -> Result<[Poly<Eval>; 2]> {
        let [c0, c1] = self.parts;
        let pair = (c0, c1);
        let (c0, c1) = if rescale { mod_down_rescale_pair(context, pair)? } else { mod_down_pair(context, pair) };
        Ok([c0, c1])
    }
}

/// An automorphism and the key for it.
pub(crate) type KeyedImage<'a> = (&'a SwitchingKey, Arc<Automorphism>);

/// What every limb of a sum is made of, besides the digits of the second part.
struct Images<'a> {
    context: &'a Context,
    level: usize,
    /// `P` times the first part, modulo `Q·P`.
    first: &'a Poly<Eval>,
    /// The second part, modulo `Q`.
    second: &'a Poly<Eval>,
    keys: &'a [KeyedImage<'a>],
}

impl Images<'_> {
    /// Limb `i` of both parts of `P·c + Σ_σ σ(Σ_d c_d·k_d + P·c_0)`.
    fn limb(&self, i: usize, digits: Factors<'_>, [out0, out1]: Pair<'_>) {
        let (context, level) = (self.context, self.level);
        let m = context.qp_modulus(level, i);
        out0.copy_from_slice(self.first.limb(i));
        if i <= level {
            out1.copy_from_slice(self.second.limb(i));
            pointwise::mul_scalar_assign(m, out1, context.p_mod_q(level, i));
        } else {
            out1.fill(0);
        }
        for (key, automorphism) in self.keys {
            let (keyed, lift) = ((*key, &**automorphism), Some((self.first.limb(i), 1)));
            add_moved_limb(context, level, i, digits, keyed, lift, [&mut *out0, &mut *out1]);
        }
    }
}

/// Adds the images of a ciphertext to it.
///
/// # Errors
/// [`CkksError::KeyLevel`](crate::CkksError::KeyLevel) where a key does not reach the level.
pub(crate) fn add_images(context: &Context, sum: Undivided, keys: &[KeyedImage<'_>]) -> Result<Undivided> {
    let [first, second] = sum.parts;
    let level = first.level;
    check_keys(context, keys.iter().map(|(key, _)| *key), level, false)?;
    let second = mod_down(context, second);
    let images = Images { context, level, first: &first.poly, second: &second, keys };
    let all = context.qp_limbs(level);
    let mut outs = [std::array::from_fn(|_| Poly::scratch(context.n(), all))];
    let mut digits = Digits::new(context, &second, level);
    digits.each(
        context,
        level,
        0..all,
        by_limb(&mut outs, all),
        || (),
        |(), i, digits, outs| {
            outs.into_iter().for_each(|out| images.limb(i, digits, out));
        },
    );
    let [parts] = outs;
    Ok(Undivided { parts: parts.map(|poly| QpPoly { poly, level }), scale: sum.scale })
}

/// [`add_images`] and the division by `P`, or with a rescale by `P·q_level`. The limbs that are divided away come first; each of the others goes
/// from its digits to the quotient in one task.
///
/// # Errors
/// As [`add_images`], and [`CkksError::LevelRange`](crate::CkksError::LevelRange) for a rescale at level 0.
pub(crate) fn add_images_divided(
    context: &Context,
    sum: Undivided,
    keys: &[KeyedImage<'_>],
    rescale: bool,
) -> Result<[Poly<Eval>; 2]> {
    let [first, second] = sum.parts;
    let level = first.level;
    check_keys(context, keys.iter().map(|(key, _)| *key), level, rescale)?;
    let second = mod_down(context, second);
    let images = Images { context, level, first: &first.poly, second: &second, keys };
    let n = context.n();
    let Division { converter, inverses } = division(context, level, rescale);
    let (kept, all) = (inverses.len(), context.qp_limbs(level));
    let mut digits = Digits::new(context, &second, level);
    let mut tails = [std::array::from_fn(|_| Poly::scratch(n, all - kept))];
    digits.each(
        context,
        level,
        kept..all,
        by_limb(&mut tails, all - kept),
        || (),
        |(), i, digits, outs| {
            for [out0, out1] in outs {
                images.limb(i, digits, [&mut *out0, &mut *out1]);
                inverse_divided(context, level, [i, kept], out0);
                inverse_divided(context, level, [i, kept], out1);
            }
        },
    );
    let mut outs = [std::array::from_fn(|_| Poly::scratch(n, kept))];
    let from = remainders(context, level, converter, &tails, &mut outs);
    let buffers = || AlignedVec::scratch(2 * n);
    digits.each(context, level, 0..kept, by_limb(&mut outs, kept), buffers, |sums, i, digits, outs| {
        let m = context.q(i);
        let (sum0, sum1) = sums.split_at_mut(n);
        for (parts, tail) in outs.into_iter().zip(&tails) {
            images.limb(i, digits, [&mut *sum0, &mut *sum1]);
            for (k, (sum, out)) in [&*sum0, &*sum1].into_iter().zip(parts).enumerate() {
                transform_remainder(context, i, from.map(|m| (m, tail[k].limb(0))), out, None, &[]);
                pointwise::sub_mul_scalar_assign(m, out, sum, m.neg(inverses[i]));
            }
        }
    });
    let [divided] = outs;
    Ok(divided)
}
