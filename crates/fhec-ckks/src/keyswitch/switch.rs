//! Whole key switches: inner products, divisions by `P` and what follows them, limb by limb.
//!
//! A division needs the limbs that it divides away before all others. So their inner products come first; then every limb of the
//! result is finished in one go, from its digits to the permuted quotient, and the sum modulo `Q·P` never exists as a
//! whole. Several keys for the same digits take turns within a limb.

use std::sync::Arc;

use fhec_math::accumulate::Factors;
use fhec_math::packed::{self, Quotient};
use fhec_math::{AlignedVec, Automorphism, BaseConverter, Eval, Modulus, Poly, pointwise};

use super::digits::Digits;
use super::{inverse_divided, transform_remainder, with_tables};
use crate::error::{CkksError, Result};
use crate::keys::SwitchingKey;
use crate::limbs::{Conversion, convert};
use crate::params::Context;

/// Two polynomials that are made where they are used: fills a limb of both.
pub(crate) type Limbs<'a> = dyn Fn(usize, [&mut [u64]; 2]) + Sync + 'a;

/// What to make of the digits with one key: `σ(⌊(Σ_d c_d·b_d + P·l_0) / D⌉ + a_0)` and the same with `a_d`, `l_1`, `a_1`, where `D` is
/// `P` or, with a rescale, `P·q_level`.
#[derive(Default)]
pub(crate) struct Switch<'a> {
    /// `l_0` and `l_1`, absent for zero.
    pub(crate) lift: [Option<&'a Poly<Eval>>; 2],
    /// More of `l_0` and `l_1`. Each limb is asked for once.
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
    check_keys(context, switches.iter().map(|(key, _)| *key), level, rescale)?;
    let n = context.n();
    let Division { converter, inverses } = division(context, level, rescale);
    let (kept, all) = (inverses.len(), context.qp_limbs(level));
    let polys = |limbs: usize| -> Vec<[Poly<Eval>; 2]> {
        switches.iter().map(|_| std::array::from_fn(|_| Poly::scratch(n, limbs))).collect()
    };
    // Room for limbs that are made.
    let making = if switches.iter().any(|(_, switch)| switch.made.is_some()) { 2 * n } else { 0 };
    let mut tails = polys(all - kept);
    digits.each(
        context,
        level,
        kept..all,
        by_limb(&mut tails, all - kept),
        || AlignedVec::scratch(making),
        |making, i, digits, outs| {
            for ((key, switch), [out0, out1]) in switches.iter().zip(outs) {
                dot_limb(context, level, i, digits, key, switch.lift, [&mut *out0, &mut *out1]);
                add_made(context, level, i, switch.made, making, [&mut *out0, &mut *out1]);
                inverse_divided(context, level, [i, kept], out0);
                inverse_divided(context, level, [i, kept], out1);
            }
        },
    );
    let mut outs = polys(kept);
    let from = remainders(context, level, converter, &tails, &mut outs);
    digits.each(
        context,
        level,
        0..kept,
        by_limb(&mut outs, kept),
        || AlignedVec::scratch(2 * n + making),
        |scratch, i, digits, outs| {
            let m = context.q(i);
            let (remainders, making) = scratch.split_at_mut(2 * n);
            let (r0, r1) = remainders.split_at_mut(n);
            let (made0, made1) = making.split_at_mut(making.len() / 2);
            for ((key, switch), (mut parts, tail)) in switches.iter().zip(outs.into_iter().zip(&tails)) {
                for (k, r) in [&mut *r0, &mut *r1].into_iter().enumerate() {
                    let [part0, part1] = &mut parts;
                    let (part, next) = if k == 0 { (part0, &**part1) } else { (part1, &[][..]) };
                    transform_remainder(context, i, from.map(|m| (m, tail[k].limb(0))), part, Some(r), next);
                }
                let mut lifts = switch.lift.map(|lift| lift.map(|poly| poly.limb(i)));
                if let Some(made) = switch.made {
                    made(i, [&mut *made0, &mut *made1]);
                    for (made, lift) in [&mut *made0, &mut *made1].into_iter().zip(&mut lifts) {
                        if let Some(lift) = lift {
                            pointwise::add_assign(m, made, lift);
                        }
                        *lift = Some(made);
                    }
                }
                let p = context.p_mod_q(level, i);
                let quotient = Quotient {
                    remainders: [&*r0, &*r1],
                    inverse: inverses[i],
                    add: switch.add.map(|add| add.map(|poly| poly.limb(i))),
                };
                with_columns(context, level, i, digits.limbs.len(), key, |halves| {
                    let lifts = lifts.map(|lift| lift.map(|limb| (limb, p)));
                    let map = switch.automorphism.as_deref();
                    let [out0, out1] = &mut parts;
                    packed::dot_pair_divided_into(m, digits, halves, lifts, &quotient, map, [out0, out1]);
                });
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

/// Converts the limbs that are divided away, in coefficient form, to the others. A remainder modulo a single prime takes no
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

/// One limb of both components of an inner product, and of `P` times `lift`.
pub(super) fn dot_limb(
    context: &Context,
    level: usize,
    i: usize,
    digits: Factors<'_>,
    key: &SwitchingKey,
    lift: [Option<&Poly<Eval>>; 2],
    out: Pair<'_>,
) {
    let m = context.qp_modulus(level, i);
    let [out0, out1] = out;
    with_columns(context, level, i, digits.limbs.len(), key, |halves| {
        packed::dot_pair_into(m, digits, halves, [&mut *out0, &mut *out1]);
    });
    if i <= level {
        for (part, out) in lift.into_iter().zip([out0, out1]) {
            if let Some(c) = part {
                pointwise::mul_scalar_add_assign(m, out, c.limb(i), context.p_mod_q(level, i));
            }
        }
    }
}

/// Adds one limb of the image of both components of an inner product to what is there, the first of them with `lift` on top: a limb and a factor.
pub(crate) fn add_moved_limb(
    context: &Context,
    level: usize,
    i: usize,
    digits: Factors<'_>,
    (key, automorphism): (&SwitchingKey, &Automorphism),
    lift: Option<(&[u64], u64)>,
    out: Pair<'_>,
) {
    with_columns(context, level, i, digits.limbs.len(), key, |halves| {
        packed::dot_pair_moved_add(context.qp_modulus(level, i), digits, halves, lift, (automorphism, 0), out);
    });
}

/// Hands limb `i` of the first `digits` digits of both halves of a key, packed, to `f`.
fn with_columns(
    context: &Context,
    level: usize,
    i: usize,
    digits: usize,
    key: &SwitchingKey,
    f: impl FnOnce([&[&[u64]]; 2]),
) {
    let columns = [false, true].map(|second| key.column(context, level, i, digits, second));
    let [b, a] = columns.each_ref().map(|column| column.iter().map(|limb| &**limb).collect::<Vec<_>>());
    f([&b, &a]);
}

/// Adds one limb of `P` times what is made.
fn add_made(
    context: &Context,
    level: usize,
    i: usize,
    made: Option<&Limbs<'_>>,
    scratch: &mut [u64],
    [out0, out1]: Pair<'_>,
) {
    let Some(made) = made.filter(|_| i <= level) else { return };
    let (part0, part1) = scratch.split_at_mut(context.n());
    made(i, [&mut *part0, &mut *part1]);
    let p = context.p_mod_q(level, i);
    pointwise::mul_scalar_add_assign(context.q(i), out0, part0, p);
    pointwise::mul_scalar_add_assign(context.q(i), out1, part1, p);
}
