//! The giant rotations of a linear map and the sums over them.

use fhec_math::{Automorphism, Eval, Poly, Scale, galois_element, pointwise};

use super::products::Pair;
use super::{Hoisting, Sum};
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keys::SwitchingKey;
use crate::keyswitch::{Digits, Span, add_moved_part, mod_down, mod_down_pair, mod_down_rescale_pair};
use crate::limbs::{LIGHT, par_chunks};
use crate::params::Context;
use crate::plaintext::Plaintext;
use crate::qp::QpPoly;

/// The sums of all outputs.
pub(super) struct Outputs<'a> {
    evaluator: &'a Evaluator,
    level: usize,
    hoisting: Hoisting,
    /// Modulo `Q·P`, `P` times the result; absent while zero.
    raised: Vec<Option<Pair>>,
    /// Modulo `Q`; absent while zero.
    divided: Vec<Option<Pair>>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(evaluator: &'a Evaluator, level: usize, hoisting: Hoisting, count: usize) -> Self {
        let none = || (0..count).map(|_| None).collect();
        Self { evaluator, level, hoisting, raised: none(), divided: none() }
    }

    fn context(&self) -> &'a Context {
        self.evaluator.context()
    }

    /// Rotates finished sums and adds them to their outputs. What is not rotated comes first: others are added to it, so that there is no zero to
    /// begin with.
    pub(super) fn add(&mut self, sums: &[Sum], results: Vec<Pair>) -> Result<()> {
        let log_n = self.context().log_n();
        let sums = sums.iter().map(|sum| (sum.out_block, galois_element(sum.giant, log_n))).zip(results);
        let (unrotated, rotated): (Vec<_>, Vec<_>) = sums.partition(|((_, element), _)| *element == 1);
        for ((out_block, element), pair) in unrotated.into_iter().chain(rotated) {
            if element == 1 {
                self.add_unrotated(out_block, pair);
            } else {
                let (mut pair, mut raised, mut last) = (pair, self.hoisting == Hoisting::Double, element);
                if let Some([first, second]) = self.evaluator.factors(element) {
                    (pair, raised, last) = (self.rotated(pair, raised, first)?, false, second);
                }
                let key = self.evaluator.galois_key("linear map", last, self.level)?;
                let automorphism = Automorphism::try_get(self.context().log_n(), last)?;
                self.add_rotated(out_block, pair, raised, key, &automorphism);
            }
        }
        Ok(())
    }

    fn add_unrotated(&mut self, out_block: usize, pair: Pair) {
        let (context, level) = (self.context(), self.level);
        let double = self.hoisting == Hoisting::Double;
        let place = if double { &mut self.raised } else { &mut self.divided };
        match &mut place[out_block] {
            empty @ None => *empty = Some(pair),
            Some(sum) => {
                for (sum, part) in sum.iter_mut().zip(&pair) {
                    par_chunks(sum.data_mut(), context.n(), LIGHT, |i, limb| {
                        pointwise::add_assign(context.qp_modulus(level, i), limb, part.limb(i));
                    });
                }
            }
        }
    }

    /// A sum divided by `P`, if that is still to be done, and rotated.
    fn rotated(&self, pair: Pair, raised: bool, element: u64) -> Result<Pair> {
        let (context, level) = (self.context(), self.level);
        let [c0, c1] = pair;
        let (c0, c1) = if raised {
            mod_down_pair(context, (QpPoly { poly: c0, level }, QpPoly { poly: c1, level }))
        } else {
            (c0, c1)
        };
        // Scales are looked at when all sums are added up.
        let sum = Ciphertext::from_parts(context, c0, c1, level, Scale::one());
        let Ciphertext { c0, c1, .. } = self.evaluator.automorphism("linear map", &sum, element)?;
        Ok([c0, c1])
    }

    /// Divides the second part by `P` if that is still to be done, and then limb by limb: decomposes, multiplies with the
    /// key, permutes and adds.
    fn add_rotated(
        &mut self,
        out_block: usize,
        [c0, c1]: Pair,
        raised: bool,
        key: &SwitchingKey,
        automorphism: &Automorphism,
    ) {
        let (context, level) = (self.context(), self.level);
        let (n, limbs) = (context.n(), context.qp_limbs(level));
        let c1 = if raised { mod_down(context, QpPoly { poly: c1, level }) } else { c1 };
        let [out0, out1] = self.raised[out_block].get_or_insert_with(|| std::array::from_fn(|_| Poly::zero(n, limbs)));
        let outputs = out0.iter_mut().zip(out1.iter_mut()).collect();
        let mut digits = Digits::new(context, &c1, level);
        let lift = |i: usize| {
            let factor = if raised { Some(1) } else { (i <= level).then(|| context.p_mod_q(level, i)) };
            factor.map(|factor| (c0.limb(i), factor))
        };
        digits.each(
            &Span { context, level, limbs: 0..limbs, keys: vec![key], whole: false },
            outputs,
            || (),
            |(), part, _, (out0, out1)| {
                add_moved_part(context, level, part, (0, automorphism), lift(part.at.i), [&mut **out0, &mut **out1]);
            },
        );
    }

    /// Adds the bias, divides, and returns the ciphertexts. `scale` is that before a rescale.
    pub(super) fn finish(
        mut self,
        bias: &[Option<Plaintext>],
        scale: &Scale,
        rescale: bool,
    ) -> Result<Vec<Ciphertext>> {
        let raised = std::mem::take(&mut self.raised);
        let divided = std::mem::take(&mut self.divided);
        let parts = raised.into_iter().zip(divided).enumerate();
        parts
            .map(|(block, (raised, divided))| {
                let bias = bias.get(block).and_then(Option::as_ref);
                self.finish_one(raised, divided, bias, scale, rescale)
            })
            .collect()
    }

    /// The sum of the only output, `P` times the result modulo `Q·P`.
    pub(super) fn undivided(mut self) -> [QpPoly; 2] {
        let (context, level) = (self.context(), self.level);
        let zero = || std::array::from_fn(|_| Poly::zero(context.n(), context.qp_limbs(level)));
        let mut sum = self.raised.pop().flatten().unwrap_or_else(zero);
        if let Some(divided) = self.divided.pop().flatten() {
            sum.iter_mut().zip(&divided).for_each(|(sum, part)| self.lift(sum, part));
        }
        sum.map(|poly| QpPoly { poly, level })
    }

    /// Adds `P` times a part modulo `Q`.
    fn lift(&self, sum: &mut Poly<Eval>, part: &Poly<Eval>) {
        let (context, level) = (self.context(), self.level);
        par_chunks(&mut sum.data_mut()[..(level + 1) * context.n()], context.n(), LIGHT, |i, limb| {
            pointwise::mul_scalar_add_assign(context.q(i), limb, part.limb(i), context.p_mod_q(level, i));
        });
    }

    fn finish_one(
        &self,
        raised: Option<Pair>,
        divided: Option<Pair>,
        bias: Option<&Plaintext>,
        scale: &Scale,
        rescale: bool,
    ) -> Result<Ciphertext> {
        let (context, level) = (self.context(), self.level);
        // A bias may come at the scale before the rescale or at that after it.
        let (before, after) = match bias {
            Some(p) if p.level() == level && p.scale() == scale => (bias, None),
            _ => (None, bias),
        };
        let result = match raised {
            Some([mut c0, mut c1]) => {
                if let Some([d0, d1]) = &divided {
                    self.lift(&mut c0, d0);
                    self.lift(&mut c1, d1);
                }
                if let Some(bias) = before {
                    self.lift(&mut c0, bias.poly());
                }
                let pair = (QpPoly { poly: c0, level }, QpPoly { poly: c1, level });
                if rescale {
                    let (c0, c1) = mod_down_rescale_pair(context, pair)?;
                    let scale = scale.div(&Scale::prime(context.q(level).value()));
                    Ciphertext::from_parts(context, c0, c1, level - 1, scale)
                } else {
                    let (c0, c1) = mod_down_pair(context, pair);
                    Ciphertext::from_parts(context, c0, c1, level, scale.clone())
                }
            }
            None => {
                let zero = || std::array::from_fn(|_| Poly::zero(context.n(), level + 1));
                let [c0, c1] = divided.unwrap_or_else(zero);
                let mut sum = Ciphertext::from_parts(context, c0, c1, level, scale.clone());
                if let Some(bias) = before {
                    sum = self.evaluator.add_plain(&sum, bias)?;
                }
                if rescale { self.evaluator.rescale(&sum)? } else { sum }
            }
        };
        match after {
            Some(bias) => self.evaluator.add_plain(&result, bias),
            None => Ok(result),
        }
    }
}
