//! Sums of products and scalar multiples, computed limb by limb with one reduction.

use fhec_math::diagonals::{DiagonalTerm, sum_products};
use fhec_math::{Eval, Modulus, Poly, Scale, pointwise};
use rayon::prelude::*;

use super::{Ciphertext, Product};
use crate::error::{CkksError, Result};
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

/// A finished sum.
pub(super) enum Degree2 {
    /// Of two parts.
    No(Ciphertext),
    /// Of three parts: a product took part.
    Yes(Product),
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

    /// Computes the sum.
    pub(super) fn finish(self) -> Result<Degree2> {
        let (context, level) = (self.context, self.level);
        let (n, limbs) = (context.n(), level + 1);
        let square = !self.products.is_empty() || self.scalars.iter().any(|s| matches!(s.0, Value::Degree2(_)));
        let parts = if square { 3 } else { 2 };
        let mut out: Vec<Poly<Eval>> = (0..parts).map(|_| Poly::scratch(n, limbs)).collect();
        let mut tasks: Vec<Vec<&mut [u64]>> = (0..limbs).map(|_| Vec::with_capacity(parts)).collect();
        for poly in &mut out {
            for (task, limb) in tasks.iter_mut().zip(poly.iter_mut()) {
                task.push(limb);
            }
        }
        let work = parts * n * (self.products.len() + self.scalars.len());
        let tasks = tasks.into_par_iter().enumerate().with_min_len((HEAVY / work.max(1)).max(1));
        tasks.for_each_init(Vec::new, |scratch, (i, mut out)| self.limb(context.q(i), i, &mut out, scratch));
        let mut out = out.into_iter();
        let mut next = || out.next().unwrap_or_else(|| Poly::zero(n, limbs));
        let (c0, c1, id) = (next(), next(), context.id());
        Ok(if square {
            Degree2::Yes(Product { c0, c1, c2: next(), level, scale: self.scale, id })
        } else {
            Degree2::No(Ciphertext { c0, c1, level, scale: self.scale, id })
        })
    }

    /// Limb `i` of all parts.
    fn limb(&self, m: &Modulus, i: usize, out: &mut [&mut [u64]], scratch: &mut Vec<u64>) {
        let n = self.context.n();
        // A constant is a diagonal that never changes.
        let constants: Vec<[u64; 1]> = self.scalars.iter().map(|(_, k)| [m.reduce_i128(*k)]).collect();
        let scalars = || constants.iter().zip(&self.scalars);
        let mut terms = Vec::with_capacity(self.products.len() + self.scalars.len());
        terms.extend(self.products.iter().map(|(a, b)| DiagonalTerm {
            values: a.c0().limb(i),
            repeat: 1,
            factors: [b.c0().limb(i), b.c1().limb(i)],
        }));
        terms.extend(scalars().map(|(constant, (value, _))| {
            let parts = value.parts();
            DiagonalTerm { values: constant, repeat: n, factors: [parts[0].limb(i), parts[1].limb(i)] }
        }));
        let [out0, out1, rest @ ..] = out else { return };
        sum_products(m, &terms, [&mut **out0, &mut **out1]);
        if self.constant != 0 {
            pointwise::add_scalar_assign(m, out0, m.reduce_i128(self.constant));
        }
        let [out2] = rest else { return };
        scratch.clear();
        scratch.resize(2 * n, 0);
        let (middle, zeros) = scratch.split_at_mut(n);
        terms.clear();
        terms.extend(self.products.iter().map(|(a, b)| DiagonalTerm {
            values: a.c1().limb(i),
            repeat: 1,
            factors: [b.c0().limb(i), b.c1().limb(i)],
        }));
        terms.extend(scalars().filter_map(|(constant, (value, _))| {
            let c2 = value.parts().get(2)?.limb(i);
            Some(DiagonalTerm { values: constant, repeat: n, factors: [&*zeros, c2] })
        }));
        sum_products(m, &terms, [middle, &mut **out2]);
        pointwise::add_assign(m, out1, middle);
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
