//! Whole key switches: inner products, divisions by `P` and what follows them, limb by limb.
//!
//! A division needs the limbs that it divides away before all others. So their inner products come first; then every limb of the
//! result is finished in one go, from its digits to the permuted quotient, and the sum modulo `Q·P` never exists as a
//! whole. Several keys for the same digits take turns within a limb.

use std::cmp::Ordering;
use std::sync::Arc;

use fhec_math::packed::{self, Quotient};
use fhec_math::{AlignedVec, Automorphism, BaseConverter, Eval, Modulus, Poly, pointwise};

use super::digits::{At, Digits, Part, Span};
use super::{inverse_divided, transform_remainder, with_tables};
use crate::error::{CkksError, Result};
use crate::keys::SwitchingKey;
use crate::limbs::{Conversion, convert};
use crate::params::Context;

/// Two polynomials that are made where they are used: fills some positions of a limb of both.
pub(crate) type Limbs<'a> = dyn Fn(&At, [&mut [u64]; 2]) + Sync + 'a;

/// What to make of the digits with one key: `σ(⌊(Σ_d c_d·b_d + P·l_0) / D⌉ + a_0)` and the same with `a_d`, `l_1`, `a_1`, where `D` is
/// `P` or, with a rescale, `P·q_level`.
#[derive(Default)]
pub(crate) struct Switch<'a> {
    /// `l_0` and `l_1`, absent for zero.
    pub(crate) lift: [Option<&'a Poly<Eval>>; 2],
    /// More of `l_0` and `l_1`. Each position is asked for once.
    pub(crate) made: Option<&'a Limbs<'a>>,
    /// `a_0` and `a_1`, absent for zero.
    pub(crate) add: [Option<&'a Poly<Eval>>; 2],
    /// `σ`, absent for the identity. The key is made for its inverse.
    pub(crate) automorphism: Option<Arc<Automorphism>>,
}

/// One limb of an output of each part.
pub(super) type Pair<'a> = [&'a mut [u64]; 2];

/// Runs all switches; a rescale leaves one limb less.
///
/// # Errors
/// [`CkksError::KeyLevel`] where a key does not reach the level, [`CkksError::LevelRange`] for a rescale at level 0.
pub(crate) fn switch(
    context: &Context,
    mut digits: Digits<'_>,
    level: usize,
    switches: &[(&SwitchingKey, Switch<'_>)],
    rescale: bool,
) -> Result<Vec<[Poly<Eval>; 2]>> {
    let keys: Vec<&SwitchingKey> = switches.iter().map(|(key, _)| *key).collect();
    check_keys(context, keys.iter().copied(), level, rescale)?;
    let n = context.n();
    let Division { converter, inverses } = division(context, level, rescale);
    let (kept, all) = (inverses.len(), context.qp_limbs(level));
    let polys = |limbs: usize| -> Vec<[Poly<Eval>; 2]> {
        switches.iter().map(|_| std::array::from_fn(|_| Poly::scratch(n, limbs))).collect()
    };
    // Room for limbs that are made.
    let making = if switches.iter().any(|(_, switch)| switch.made.is_some()) { 2 * n } else { 0 };
    // A single limb that is divided away is used as coefficients.
    let mut span = Span { context, level, limbs: kept..all, keys, whole: all - kept == 1 };
    let mut tails = polys(all - kept);
    digits.each(
        &span,
        by_limb(&mut tails, all - kept),
        || AlignedVec::scratch(making),
        |making, part, fetch, outs| {
            for (k, ((_, switch), outs)) in switches.iter().zip(outs).enumerate() {
                let [out0, out1] = outs.each_mut().map(|out| part.at.of_mut(out));
                dot_part(context, level, part, k, switch.lift, [&mut *out0, &mut *out1]);
                add_made(context, level, &part.at, switch.made, making, [&mut *out0, &mut *out1]);
                context.qp_table(level, part.at.i).fetch(true, part.at.quarter, fetch);
                inverse_divided(context, level, kept, &part.at, out0, fetch);
                inverse_divided(context, level, kept, &part.at, out1, fetch);
            }
        },
    );
    let mut outs = polys(kept);
    let from = remainders(context, level, converter, &tails, &mut outs);
    span.limbs = 0..kept;
    // Where automorphisms swap quarters some remainders of each key are kept for later.
    let swaps =
        |map: &Arc<Automorphism>| !span.whole && context.q_table(0).has_quarters() && map.image_block(0, n / 4) != 0;
    let regions =
        if switches.iter().any(|(_, s)| s.automorphism.as_ref().is_some_and(swaps)) { switches.len() } else { 1 };
    digits.each(
        &span,
        by_limb(&mut outs, kept),
        || AlignedVec::scratch(regions * 2 * n + making),
        |scratch, part, fetch, outs| {
            let at = &part.at;
            let (m, len) = (context.q(at.i), at.words.len());
            let (remainders, making) = scratch.split_at_mut(regions * 2 * n);
            let (made0, made1) = making.split_at_mut(making.len() / 2);
            for (k, ((_, switch), (parts, tail))) in switches.iter().zip(outs.iter_mut().zip(&tails)).enumerate() {
                let map = switch.automorphism.as_deref();
                let image = map.map_or_else(|| at.clone(), |map| at.image(map));
                let region = k % regions * 2 * n;
                let (r0, r1) = remainders[region..region + 2 * n].split_at_mut(n);
                // The sums take the place of the remainders that are their image's: these go first, with those of the first of both quarters. The
                // image of an image is where it began.
                let pending: &[&At] = match at.words.start.cmp(&image.words.start) {
                    Ordering::Less => &[at, &image],
                    Ordering::Equal => &[at],
                    Ordering::Greater => &[],
                };
                for at in pending {
                    if at.words != part.at.words {
                        context.q_table(at.i).fetch(false, at.quarter, fetch);
                    }
                    for ((t, tail), r) in parts.iter_mut().zip(tail).zip([&mut *r0, &mut *r1]) {
                        let from = from.map(|m| (m, tail.limb(0)));
                        transform_remainder(context, at, from, at.of_mut(t), Some(at.of_mut(r)), fetch);
                    }
                }
                let mut lifts = switch.lift.map(|lift| lift.map(|poly| at.of(poly.limb(at.i))));
                if let Some(made) = switch.made {
                    let (made0, made1) = (&mut made0[..len], &mut made1[..len]);
                    made(at, [&mut *made0, &mut *made1]);
                    for (made, lift) in [made0, made1].into_iter().zip(&mut lifts) {
                        if let Some(lift) = lift {
                            pointwise::add_assign(m, made, lift);
                        }
                        *lift = Some(made);
                    }
                }
                let p = context.p_mod_q(level, at.i);
                let quotient = Quotient {
                    remainders: [at.of(r0), at.of(r1)],
                    inverse: inverses[at.i],
                    add: switch.add.map(|add| add.map(|poly| at.of(poly.limb(at.i)))),
                };
                let lifts = lifts.map(|lift| lift.map(|limb| (limb, p)));
                let outs = parts.each_mut().map(|out| image.of_mut(out));
                let map = (map, image.words.start);
                packed::dot_pair_divided_into(m, part.digits, part.key(k), lifts, &quotient, map, outs);
            }
        },
    );
    Ok(outs)
}

/// Keys reach the level, and there is something to rescale.
pub(super) fn check_keys<'a>(
    context: &Context,
    mut keys: impl Iterator<Item = &'a SwitchingKey>,
    level: usize,
    rescale: bool,
) -> Result<()> {
    let op = "key switch";
    if let Some(key) = keys.find(|key| key.level() < level) {
        return Err(CkksError::KeyLevel { op, have: key.level(), need: level });
    }
    context.check_level(op, level, usize::from(rescale))
}

/// What a division by `P`, or by `P·q_level`, takes.
pub(super) struct Division<'a> {
    pub(super) converter: &'a BaseConverter,
    /// Of the divisor modulo the primes that are left.
    pub(super) inverses: &'a [u64],
}

pub(super) fn division(context: &Context, level: usize, rescale: bool) -> Division<'_> {
    let tables = context.level(level);
    match &tables.rescale {
        Some(t) if rescale => Division { converter: &t.mod_down, inverses: &t.pq_inv },
        _ => Division { converter: &tables.mod_down, inverses: &tables.p_inv },
    }
}

/// Converts the limbs that are divided away to the others. A remainder modulo a single prime takes no
/// reconstruction; it is lifted where it is used, and that prime returned.
pub(super) fn remainders<'a>(
    context: &'a Context,
    level: usize,
    converter: &BaseConverter,
    tails: &[[Poly<Eval>; 2]],
    outs: &mut [[Poly<Eval>; 2]],
) -> Option<&'a Modulus> {
    let count = tails.first().map_or(0, |tail| tail[0].limbs());
    if count == 1 {
        return context.moduli_p().first();
    }
    let conversions = tails.iter().flatten().zip(outs.iter_mut().flatten()).map(|(tail, out)| {
        // The converter wants the special primes first, then the last chain prime.
        let last = count - context.special_at(level);
        let kept = out.limbs();
        let source = |j| (&**context.qp_table(level, kept + j), tail.limb(j));
        let src = (last..count).chain(0..last).map(source).collect();
        Conversion { converter, src, dst: with_tables(context, out) }
    });
    convert(conversions.collect());
    None
}

/// The limbs of several pairs of polynomials, limb by limb.
pub(super) fn by_limb(pairs: &mut [[Poly<Eval>; 2]], limbs: usize) -> Vec<Vec<Pair<'_>>> {
    let mut lists: Vec<Vec<Pair<'_>>> = (0..limbs).map(|_| Vec::with_capacity(pairs.len())).collect();
    for [c0, c1] in pairs {
        for (list, (c0, c1)) in lists.iter_mut().zip(c0.iter_mut().zip(c1.iter_mut())) {
            list.push([c0, c1]);
        }
    }
    lists
}

/// Some positions of both components of an inner product, and of `P` times `lift`.
fn dot_part(
    context: &Context,
    level: usize,
    part: &Part<'_>,
    k: usize,
    lift: [Option<&Poly<Eval>>; 2],
    [out0, out1]: Pair<'_>,
) {
    let (at, m) = (&part.at, context.qp_modulus(level, part.at.i));
    packed::dot_pair_into(m, part.digits, part.key(k), [&mut *out0, &mut *out1]);
    if at.i <= level {
        for (lift, out) in lift.into_iter().zip([out0, out1]) {
            if let Some(c) = lift {
                pointwise::mul_scalar_add_assign(m, out, at.of(c.limb(at.i)), context.p_mod_q(level, at.i));
            }
        }
    }
}

/// Adds some positions of the image of both components of an inner product to what is there, the first of them with `lift` on top: a limb and a
/// factor.
pub(crate) fn add_moved_part(
    context: &Context,
    level: usize,
    part: &Part<'_>,
    (k, automorphism): (usize, &Automorphism),
    lift: Option<(&[u64], u64)>,
    out: Pair<'_>,
) {
    let (at, m) = (&part.at, context.qp_modulus(level, part.at.i));
    let image = at.image(automorphism);
    let out = out.map(|out| image.of_mut(out));
    let lift = lift.map(|(limb, factor)| (at.of(limb), factor));
    packed::dot_pair_moved_add(m, part.digits, part.key(k), lift, (automorphism, image.words.start), out);
}

/// Adds some positions of a limb of `P` times what is made.
fn add_made(
    context: &Context,
    level: usize,
    at: &At,
    made: Option<&Limbs<'_>>,
    scratch: &mut [u64],
    [out0, out1]: Pair<'_>,
) {
    let Some(made) = made.filter(|_| at.i <= level) else { return };
    let (part0, part1) = scratch[..2 * out0.len()].split_at_mut(out0.len());
    made(at, [&mut *part0, &mut *part1]);
    let p = context.p_mod_q(level, at.i);
    pointwise::mul_scalar_add_assign(context.q(at.i), out0, part0, p);
    pointwise::mul_scalar_add_assign(context.q(at.i), out1, part1, p);
}
