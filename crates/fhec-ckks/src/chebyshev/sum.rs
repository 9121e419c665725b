//! Sums of products and scalar multiples, computed limb by limb in one go.

use fhec_math::accumulate::dot_into;
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
        let mut out: Vec<Poly<Eval>> = (0..parts).map(|_| Poly::zero(n, limbs)).collect();
        let mut tasks: Vec<Vec<&mut [u64]>> = (0..limbs).map(|_| Vec::with_capacity(parts)).collect();
        for poly in &mut out {
            for (task, limb) in tasks.iter_mut().zip(poly.iter_mut()) {
                task.push(limb);
            }
        }
        let work = parts * n * (self.products.len() + self.scalars.len());
        tasks.into_par_iter().enumerate().with_min_len((HEAVY / work.max(1)).max(1)).for_each(|(i, mut out)| {
            self.limb(context.q(i), i, &mut out);
        });
        let mut out = out.into_iter();
        let mut next = || out.next().unwrap_or_else(|| Poly::zero(n, limbs));
        let (c0, c1, id) = (next(), next(), context.id());
        Ok(if square {
            Degree2::Yes(Product { c0, c1, c2: next(), level, scale: self.scale, id })
        } else {
            Degree2::No(Ciphertext { c0, c1, level, scale: self.scale, id })
        })
    }

    /// Limb `i` of all parts, which are zero at first.
    fn limb(&self, m: &Modulus, i: usize, out: &mut [&mut [u64]]) {
        if !self.products.is_empty() {
            let part = |second: bool, one: bool| -> Vec<&[u64]> {
                let side = self.products.iter().map(|p| if second { p.1 } else { p.0 });
                side.map(|c| if one { c.c1().limb(i) } else { c.c0().limb(i) }).collect()
            };
            let (a0, a1, b0, b1) = (part(false, false), part(false, true), part(true, false), part(true, true));
            dot_into(m, &a0, &b0, out[0]);
            dot_into(m, &[&a0[..], &a1[..]].concat(), &[&b1[..], &b0[..]].concat(), out[1]);
            dot_into(m, &a1, &b1, out[2]);
        }
        for (value, k) in &self.scalars {
            let w = m.reduce_i128(*k);
            for (out, part) in out.iter_mut().zip(value.parts()) {
                pointwise::mul_scalar_add_assign(m, out, part.limb(i), w);
            }
        }
        if self.constant != 0 {
            pointwise::add_scalar_assign(m, out[0], m.reduce_i128(self.constant));
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
