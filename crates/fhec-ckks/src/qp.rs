//! Polynomials over the chain of a level and the special primes: what key switching works on.

use fhec_math::{Automorphism, Eval, Poly, pointwise};

use crate::limbs::{LIGHT, par_chunks};
use crate::params::Context;

/// A polynomial modulo `q_0 · … · q_level · P` in evaluation form; limbs `q_0 … q_level, p_0 …`.
#[derive(Clone, Debug)]
pub struct QpPoly {
    pub(crate) poly: Poly<Eval>,
    pub(crate) level: usize,
}

impl QpPoly {
    /// The zero polynomial.
    pub fn zero(context: &Context, level: usize) -> Self {
        Self { poly: Poly::zero(context.n(), context.qp_limbs(level)), level }
    }

    /// Any words, for callers that overwrite all of them.
    pub(crate) fn scratch(context: &Context, level: usize) -> Self {
        Self { poly: Poly::scratch(context.n(), context.qp_limbs(level)), level }
    }

    /// `P · a`, whose special limbs are zero: the lift of a ciphertext part into the accumulators of
    /// double hoisting, undone by [`mod_down`](crate::keyswitch::mod_down).
    pub fn lift(context: &Context, a: &Poly<Eval>, level: usize) -> Self {
        let mut out = Self::zero(context, level);
        let n = context.n();
        par_chunks(&mut out.poly.data_mut()[..(level + 1) * n], n, LIGHT, |i, limb| {
            limb.copy_from_slice(a.limb(i));
            pointwise::mul_scalar_assign(context.q(i), limb, context.p_mod_q(level, i));
        });
        out
    }

    /// Level of the chain part.
    pub fn level(&self) -> usize {
        self.level
    }

    /// The polynomial with all its limbs.
    pub fn poly(&self) -> &Poly<Eval> {
        &self.poly
    }

    /// The polynomial with all its limbs, writable.
    pub fn poly_mut(&mut self) -> &mut Poly<Eval> {
        &mut self.poly
    }

    /// `self += other`.
    ///
    /// # Panics
    /// Where the levels differ.
    pub fn add_assign(&mut self, context: &Context, other: &Self) {
        assert_eq!(self.level, other.level, "levels differ");
        let level = self.level;
        par_chunks(self.poly.data_mut(), context.n(), LIGHT, |i, limb| {
            let m = context.qp_modulus(level, i);
            pointwise::add_assign(m, limb, other.poly.limb(i));
        });
    }

    /// The image under `X → X^g`, an index permutation.
    pub fn permute(&self, context: &Context, automorphism: &Automorphism) -> Self {
        let mut out = Self::scratch(context, self.level);
        par_chunks(out.poly.data_mut(), context.n(), LIGHT, |i, limb| {
            automorphism.apply_eval(self.poly.limb(i), limb);
        });
        out
    }
}
