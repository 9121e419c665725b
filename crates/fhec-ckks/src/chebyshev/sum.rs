//! Sums of products and scalar multiples, computed limb by limb with one reduction.

use fhec_math::diagonals::{DiagonalTerm, sum_products};
use fhec_math::{Eval, Poly, Scale, pointwise};
use rayon::prelude::*;

use super::{Ciphertext, Product};
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::keyswitch::At;
use crate::limbs::HEAVY;
use crate::params::Context;

const OP: &str = "chebyshev";
/// Constants are rounded to integers below this, as a log2.
const LOG2_CONSTANT_LIMIT: f64 = 126.0;

/// A power: of degree 2 where the plan saves its relinearisation.
pub(super) enum Value {
    /// Two parts.
    Degree1(Ciphertext),
    /// Three parts.
    Degree2(Product),
}

impl Value {
    fn scale(&self) -> &Scale {
        match self {
            Self::Degree1(c) => c.scale(),
            Self::Degree2(p) => p.scale(),
        }
    }

    fn parts(&self) -> Vec<&Poly<Eval>> {
        match self {
            Self::Degree1(c) => vec![c.c0(), c.c1()],
            Self::Degree2(p) => p.parts().to_vec(),
        }
    }
}

/// A sum in the making. Operands lie at its level or above; of higher ones the lower limbs are used.
pub(super) struct Sum<'a> {
    context: &'a Context,
    level: usize,
    scale: Scale,
    products: Vec<(&'a Ciphertext, &'a Ciphertext)>,
    scalars: Vec<(&'a Value, i128)>,
    constant: i128,
}

impl<'a> Sum<'a> {
    /// An empty sum at a level and scale.
    pub(super) fn new(context: &'a Context, level: usize, scale: Scale) -> Self {
        Self { context, level, scale, products: Vec::new(), scalars: Vec::new(), constant: 0 }
    }

    /// Adds `a · b`; the product of their scales is that of the sum.
    pub(super) fn multiply(&mut self, a: &'a Ciphertext, b: &'a Ciphertext) {
        debug_assert_eq!(a.scale().mul(b.scale()), self.scale);
        self.products.push((a, b));
    }

    /// Adds `factor · value`, the factor encoded at the quotient of the scales.
    pub(super) fn scalar(&mut self, value: &'a Value, factor: f64) -> Result<()> {
        let k = integer(factor, &self.scale.div(value.scale()))?;
        self.scalars.push((value, k));
        Ok(())
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, value: f64) -> Result<()> {
        self.constant += integer(value, &self.scale)?;
        Ok(())
    }

    /// Whether it has degree 2: a product takes part.
    fn is_square(&self) -> bool {
        !self.products.is_empty() || self.scalars.iter().any(|s| matches!(s.0, Value::Degree2(_)))
    }

    /// Computes a sum of degree 2, all parts of it.
    pub(super) fn product(self) -> Product {
        debug_assert!(self.is_square());
        let ((c0, c1), c2) = (self.first_parts(), self.third_part());
        Product { c0, c1, c2, level: self.level, scale: self.scale, id: self.context.id() }
    }

    /// Computes the sum, relinearises it where it has degree 2, and rescales it. Of degree 2 the first two parts never exist as a whole.
    pub(super) fn relinearised(self, evaluator: &Evaluator) -> Result<Ciphertext> {
        if self.is_square() {
            let c2 = self.third_part();
            return evaluator
                .relinearise_rescale_made(&c2, self.level, &self.scale, &|at, out| self.first_two(at, out));
        }
        let (c0, c1) = self.first_parts();
        evaluator.rescale(&Ciphertext { c0, c1, level: self.level, scale: self.scale, id: self.context.id() })
    }

    /// The first two parts.
    fn first_parts(&self) -> (Poly<Eval>, Poly<Eval>) {
        let part = || Poly::scratch(self.context.n(), self.level + 1);
        let (mut c0, mut c1) = (part(), part());
        let limbs = c0.par_iter_mut().zip(c1.par_iter_mut()).enumerate().with_min_len(self.least_limbs(2));
        limbs.for_each(|(i, (out0, out1))| self.first_two(&At::whole(i, out0.len()), [out0, out1]));
        (c0, c1)
    }

    /// The third part.
    fn third_part(&self) -> Poly<Eval> {
        let mut c2 = Poly::scratch(self.context.n(), self.level + 1);
        let limbs = c2.par_iter_mut().enumerate().with_min_len(self.least_limbs(1));
        limbs.for_each(|(i, out)| self.third(i, out));
        c2
    }

    /// So many limbs of so many parts are worth a thread.
    fn least_limbs(&self, parts: usize) -> usize {
        let work = parts * self.context.n() * (self.products.len() + self.scalars.len());
        (HEAVY / work.max(1)).max(1)
    }

    /// Some positions of a limb of the first two parts.
    fn first_two(&self, at: &At, [out0, out1]: [&mut [u64]; 2]) {
        let m = self.context.q(at.i);
        let limb = |part: &'a Poly<Eval>| at.of(part.limb(at.i));
        // A constant is a diagonal that never changes.
        let constants: Vec<[u64; 1]> = self.scalars.iter().map(|(_, k)| [m.reduce_i128(*k)]).collect();
        let mut terms = Vec::with_capacity(self.products.len() + self.scalars.len());
        terms.extend(self.products.iter().map(|(a, b)| DiagonalTerm {
            values: limb(a.c0()),
            repeat: 1,
            factors: [limb(b.c0()), limb(b.c1())],
        }));
        terms.extend(constants.iter().zip(&self.scalars).map(|(constant, (value, _))| {
            let parts = value.parts();
            DiagonalTerm { values: constant, repeat: at.words.len(), factors: [limb(parts[0]), limb(parts[1])] }
        }));
        sum_products(m, &terms, [&mut *out0, &mut *out1]);
        for (a, b) in &self.products {
            pointwise::mul_add_assign(m, out1, limb(a.c1()), limb(b.c0()));
        }
        if self.constant != 0 {
            pointwise::add_scalar_assign(m, out0, m.reduce_i128(self.constant));
        }
    }

    /// Limb `i` of the third part.
    fn third(&self, i: usize, out: &mut [u64]) {
        let m = self.context.q(i);
        match self.products.split_first() {
            Some(((a, b), rest)) => {
                pointwise::mul_into(m, out, a.c1().limb(i), b.c1().limb(i));
                for (a, b) in rest {
                    pointwise::mul_add_assign(m, out, a.c1().limb(i), b.c1().limb(i));
                }
            }
            None => out.fill(0),
        }
        for (value, k) in &self.scalars {
            if let Some(c2) = value.parts().get(2) {
                pointwise::mul_scalar_add_assign(m, out, c2.limb(i), m.reduce_i128(*k));
            }
        }
    }
}

/// `value · scale`, rounded.
fn integer(value: f64, scale: &Scale) -> Result<i128> {
    let scaled = value * scale.to_f64();
    let log2_magnitude = scaled.abs().log2();
    if log2_magnitude.is_nan() || log2_magnitude >= LOG2_CONSTANT_LIMIT {
        return Err(CkksError::Overflow { op: OP, log2_magnitude, log2_limit: LOG2_CONSTANT_LIMIT });
    }
    Ok(scaled.round_ties_even() as i128)
}
