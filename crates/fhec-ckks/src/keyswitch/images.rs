//! A ciphertext and its images under automorphisms, added up before anything is divided by `P`: parts of a trace.
//!
//! Only the second part has to be divided, for its digits. So sums that follow each other hand the first part on modulo `Q·P`, and the last one
//! divides both, by the prime of a rescale too.

use std::ops::Range;
use std::sync::Arc;

use fhec_math::{AlignedVec, Automorphism, Eval, Poly, Scale, pointwise};

use super::digits::{At, Digits, Part, Span};
use super::switch::{Division, Pair, add_moved_part, by_limb, check_keys, division, remainders};
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
    /// Limbs of all digits.
    fn span(&self, limbs: Range<usize>) -> Span<'_> {
        let keys = self.keys.iter().map(|(key, _)| *key).collect();
        Span { context: self.context, level: self.level, limbs, keys, whole: false }
    }

    /// What some positions of a limb contribute to both parts of `P·c + Σ_σ σ(Σ_d c_d·k_d + P·c_0)`. The first of them put down `P·c`.
    fn add(&self, part: &Part<'_>, [out0, out1]: Pair<'_>) {
        let (context, level, i) = (self.context, self.level, part.at.i);
        if part.at.is_first() {
            out0.copy_from_slice(self.first.limb(i));
            if i <= level {
                out1.copy_from_slice(self.second.limb(i));
                pointwise::mul_scalar_assign(context.q(i), out1, context.p_mod_q(level, i));
            } else {
                out1.fill(0);
            }
        }
        for (k, (_, automorphism)) in self.keys.iter().enumerate() {
            let lift = Some((self.first.limb(i), 1));
            add_moved_part(context, level, part, (k, automorphism), lift, [&mut *out0, &mut *out1]);
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
        &images.span(0..all),
        by_limb(&mut outs, all),
        || (),
        |(), part, _, outs| {
            outs.iter_mut().for_each(|[out0, out1]| images.add(part, [&mut *out0, &mut *out1]));
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
        &images.span(kept..all),
        by_limb(&mut tails, all - kept),
        || (),
        |(), part, fetch, outs| {
            for [out0, out1] in outs {
                images.add(part, [&mut *out0, &mut *out1]);
                if part.at.is_last() {
                    let at = At::whole(part.at.i, n);
                    context.qp_table(level, at.i).fetch(true, None, fetch);
                    inverse_divided(context, level, kept, &at, out0, fetch);
                    inverse_divided(context, level, kept, &at, out1, fetch);
                }
            }
        },
    );
    let mut outs = [std::array::from_fn(|_| Poly::scratch(n, kept))];
    let from = remainders(context, level, converter, &tails, &mut outs);
    digits.each(
        &images.span(0..kept),
        by_limb(&mut outs, kept),
        || AlignedVec::scratch(2 * n),
        |sums, part, fetch, outs| {
            let (i, m) = (part.at.i, context.q(part.at.i));
            let (sum0, sum1) = sums.split_at_mut(n);
            for (parts, tail) in outs.iter_mut().zip(&tails) {
                images.add(part, [&mut *sum0, &mut *sum1]);
                if !part.at.is_last() {
                    continue;
                }
                for ((sum, out), tail) in [&*sum0, &*sum1].into_iter().zip(parts).zip(tail) {
                    let from = from.map(|m| (m, tail.limb(0)));
                    transform_remainder(context, &At::whole(i, n), from, out, None, fetch);
                    pointwise::sub_mul_scalar_assign(m, out, sum, m.neg(inverses[i]));
                }
            }
        },
    );
    let [divided] = outs;
    Ok(divided)
}
