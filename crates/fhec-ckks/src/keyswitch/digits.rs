//! The digits of a polynomial, limb by limb, for those who use each limb once.

use std::ops::Range;

use fhec_math::accumulate::Factors;
use fhec_math::{AlignedVec, Eval, Poly};
use rayon::prelude::*;

use super::{Decomposed, coefficients, each_digit, raise, transform_digit};
use crate::limbs::HEAVY;
use crate::params::Context;

/// A polynomial whose digits are made limb by limb, or one that is decomposed already.
pub(crate) enum Digits<'a> {
    /// To be made; every limb can be asked for once.
    Raised {
        /// The polynomial.
        c: &'a Poly<Eval>,
        /// Its coefficients, as [`coefficients`] makes them.
        coeffs: AlignedVec,
        /// Coefficients of the digits; absent where all digits have a single prime and are lifted where they are used.
        raised: Option<Decomposed>,
    },
    /// Made.
    Decomposed(&'a Decomposed),
}

impl<'a> Digits<'a> {
    /// The digits of `c` at a level.
    pub(crate) fn new(context: &Context, c: &'a Poly<Eval>, level: usize) -> Self {
        let coeffs = coefficients(context, c, level);
        let single = context.level(level).digits.iter().all(|digit| digit.range.len() == 1);
        let raised = (!single).then(|| raise(context, &coeffs, level));
        Self::Raised { c, coeffs, raised }
    }

    /// Hands the digits of some limbs, in evaluation form and loose, to `f` while they are in cache, with the output of the limb and the
    /// scratch memory that `init` makes for each thread.
    pub(crate) fn each<T: Send, S: Send>(
        &mut self,
        context: &Context,
        level: usize,
        limbs: Range<usize>,
        outputs: Vec<T>,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, usize, Factors<'_>, T) + Sync + Send,
    ) {
        let n = context.n();
        let tables = &context.level(level).digits;
        let len = tables.len() * n;
        let outputs = limbs.clone().into_par_iter().zip(outputs).with_min_len((HEAVY / len).max(1));
        let (c, coeffs, raised) = match self {
            Self::Raised { c, coeffs, raised } => (*c, &*coeffs, raised),
            Self::Decomposed(made) => {
                let made = &**made;
                outputs.for_each_init(init, |state, (i, out)| {
                    let digits: Vec<&[u64]> = (0..made.digits).map(|d| made.digit(i, d)).collect();
                    f(state, i, Factors::from(&digits), out);
                });
                return;
            }
        };
        let limb = |state: &mut S, i: usize, chunk: &mut [u64], out: T| {
            let mut digits: Vec<&[u64]> = Vec::with_capacity(tables.len());
            let mut scaled = None;
            each_digit(context, level, i, chunk, |digit, limb, next| {
                digits.push(if digit.range.contains(&i) {
                    scaled = context.level(level).unused_inv.as_ref().map(|factors| (digits.len(), factors[i]));
                    c.limb(i)
                } else {
                    transform_digit(context, coeffs, level, i, digit, limb, next);
                    limb
                });
            });
            f(state, i, Factors { limbs: &digits, scaled }, out);
        };
        match raised {
            // The digits of one limb at a time, which stay in cache.
            None => outputs.for_each_init(
                || (AlignedVec::scratch(len), init()),
                |(chunk, state), (i, out)| limb(state, i, chunk, out),
            ),
            Some(raised) => {
                let chunks = raised.data[limbs.start * len..limbs.end * len].par_chunks_exact_mut(len);
                outputs.zip(chunks).for_each_init(init, |state, ((i, out), chunk)| limb(state, i, chunk, out));
            }
        }
    }
}
