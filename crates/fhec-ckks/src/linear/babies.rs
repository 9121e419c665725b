//! The rotated inputs of a linear map.

use fhec_math::accumulate::dot_pair_into;
use fhec_math::{AlignedVec, Automorphism, galois_element, pointwise};
use rayon::prelude::*;

use super::{Hoisting, LinearMap};
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keys::SwitchingKey;
use crate::keyswitch::decompose;
use crate::params::Context;

/// All babies of a map.
pub(super) enum Babies<'a> {
    /// Modulo `Q·P`, limb-major: `[limb][baby][part][coefficient]`.
    Raised {
        /// The words.
        data: AlignedVec,
        /// Number of babies.
        count: usize,
        /// Ring degree.
        n: usize,
        /// Level.
        level: usize,
        /// Babies that are `P` times an input: zero modulo the special primes.
        unrotated: Vec<bool>,
    },
    /// Divided by `P`; babies that are not rotated are the inputs themselves.
    Divided(Vec<Rotated<'a>>),
}

/// An input, rotated or not.
pub(super) enum Rotated<'a> {
    /// The input itself.
    Input(&'a Ciphertext),
    /// Another ciphertext.
    Other(Ciphertext),
}

impl Babies<'_> {
    /// One part of baby `b` modulo the prime of limb `i`; `None` where it is zero.
    pub(super) fn limb(&self, i: usize, b: usize, part: usize) -> Option<&[u64]> {
        match self {
            Self::Raised { data, count, n, level, unrotated } => {
                if unrotated[b] && i > *level {
                    return None;
                }
                let start = ((i * count + b) * 2 + part) * n;
                Some(&data[start..start + n])
            }
            Self::Divided(list) => {
                let ciphertext = match &list[b] {
                    Rotated::Input(ciphertext) => ciphertext,
                    Rotated::Other(ciphertext) => ciphertext,
                };
                let poly = if part == 0 { ciphertext.c0() } else { ciphertext.c1() };
                Some(poly.limb(i))
            }
        }
    }
}

/// Rotates the inputs.
pub(super) fn make<'a>(
    map: &LinearMap,
    evaluator: &Evaluator,
    inputs: &[&'a Ciphertext],
    level: usize,
    hoisting: Hoisting,
) -> Result<Babies<'a>> {
    if hoisting == Hoisting::Double {
        return raised(map, evaluator, inputs, level);
    }
    let mut list = Vec::with_capacity(map.babies.len());
    for block in map.babies.chunk_by(|a, b| a.0 == b.0) {
        let input = inputs[block[0].0];
        let hoisted = if block.iter().any(|b| b.1 != 0) { Some(evaluator.hoist(input)?) } else { None };
        for &(_, rotation) in block {
            list.push(match &hoisted {
                Some(hoisted) if rotation != 0 => Rotated::Other(evaluator.rotate_hoisted(hoisted, rotation)?),
                _ => Rotated::Input(input),
            });
        }
    }
    Ok(Babies::Divided(list))
}

/// A rotation with its key.
struct Step<'a> {
    key: &'a SwitchingKey,
    automorphism: std::sync::Arc<Automorphism>,
}

fn raised<'a>(map: &LinearMap, evaluator: &Evaluator, inputs: &[&'a Ciphertext], level: usize) -> Result<Babies<'a>> {
    let context = &**evaluator.context();
    let (n, count) = (context.n(), map.babies.len());
    let mut data = AlignedVec::zeroed(context.qp_limbs(level) * count * 2 * n);
    let mut first = 0;
    for block in map.babies.chunk_by(|a, b| a.0 == b.0) {
        let input = inputs[block[0].0];
        let steps = block.iter().map(|&(_, rotation)| step(evaluator, rotation, level)).collect::<Result<Vec<_>>>()?;
        let digits = steps.iter().any(Option::is_some).then(|| decompose(context, input.c1(), level));
        let range = first * 2 * n..(first + block.len()) * 2 * n;
        data.par_chunks_exact_mut(count * 2 * n).enumerate().for_each_init(Vec::new, |scratch, (i, chunk)| {
            let list: Vec<&[u64]> = digits.iter().flat_map(|c| (0..c.digits()).map(|d| c.digit(i, d))).collect();
            let slots = chunk[range.clone()].chunks_exact_mut(2 * n);
            for (slot, step) in slots.zip(&steps) {
                baby_limb(context, level, i, input, &list, step.as_ref(), slot, scratch);
            }
        });
        first += block.len();
    }
    let unrotated = map.babies.iter().map(|b| b.1 == 0).collect();
    Ok(Babies::Raised { data, count, n, level, unrotated })
}

fn step(evaluator: &Evaluator, rotation: i64, level: usize) -> Result<Option<Step<'_>>> {
    let log_n = evaluator.context().log_n();
    let element = galois_element(rotation, log_n);
    if element == 1 {
        return Ok(None);
    }
    let key = evaluator.galois_key("linear map", element, level)?;
    Ok(Some(Step { key, automorphism: Automorphism::try_get(log_n, element)? }))
}

/// Both parts of limb `i` of one baby, `σ(Σ digit·key + P·c0, Σ digit·key)`, or `P` times the input.
#[expect(clippy::too_many_arguments, reason = "an inner loop, called in one place")]
fn baby_limb(
    context: &Context,
    level: usize,
    i: usize,
    input: &Ciphertext,
    digits: &[&[u64]],
    step: Option<&Step<'_>>,
    slot: &mut [u64],
    scratch: &mut Vec<u64>,
) {
    let n = context.n();
    let m = context.qp_modulus(level, i);
    let (out0, out1) = slot.split_at_mut(n);
    let Some(step) = step else {
        if i <= level {
            for (out, c) in [(out0, input.c0()), (out1, input.c1())] {
                out.copy_from_slice(c.limb(i));
                pointwise::mul_scalar_assign(m, out, context.p_mod_q(i));
            }
        }
        return;
    };
    scratch.resize(2 * n, 0);
    let (sum0, sum1) = scratch.split_at_mut(n);
    let column = |second| step.key.column(level, i, digits.len(), second);
    dot_pair_into(m, digits, [&column(false), &column(true)], [sum0, sum1]);
    if i <= level {
        pointwise::mul_scalar_add_assign(m, sum0, input.c0().limb(i), context.p_mod_q(i));
    }
    step.automorphism.apply_eval(sum0, out0);
    step.automorphism.apply_eval(sum1, out1);
}
