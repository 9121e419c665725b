//! Operations with scalars: one residue a limb.

use fhec_math::{Eval, Poly, Scale, pointwise};

use super::Evaluator;
use crate::cipher::Ciphertext;
use crate::error::{CkksError, Result};
use crate::limbs::{LIGHT, par_chunks, par_chunks2};

/// Scalars are rounded to integers below this, as a log2.
const LOG2_SCALAR_LIMIT: f64 = 126.0;

impl Evaluator {
    /// The residue that stands for `value` at `scale`: `value · scale`, rounded, or an error where it cannot be held exactly.
    pub(crate) fn integer(op: &'static str, value: f64, scale: &Scale) -> Result<i128> {
        let scaled = value * scale.to_f64();
        if !value.is_finite() {
            return Err(CkksError::NotFinite { op, index: 0 });
        }
        let log2_magnitude = scaled.abs().log2();
        if log2_magnitude.is_nan() || log2_magnitude >= LOG2_SCALAR_LIMIT {
            return Err(CkksError::Overflow { op, log2_magnitude, log2_limit: LOG2_SCALAR_LIMIT });
        }
        Ok(scaled.round_ties_even() as i128)
    }

    /// `a · value`, the value encoded at `scale`: one residue a limb. The scales multiply.
    ///
    /// # Errors
    /// [`CkksError::Overflow`] where `value · scale` exceeds 2^126, [`CkksError::NotFinite`],
    /// [`CkksError::ContextMismatch`].
    pub fn mul_scalar(&self, a: &Ciphertext, value: f64, scale: &Scale) -> Result<Ciphertext> {
        self.check("mul_scalar", a)?;
        let integer = Self::integer("mul_scalar", value, scale)?;
        let mut out = self.mul_integer(a, integer)?;
        out.scale = a.scale.mul(scale);
        Ok(out)
    }

    /// `a · k` for an integer; the scale stays.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn mul_integer(&self, a: &Ciphertext, k: i128) -> Result<Ciphertext> {
        self.check("mul_integer", a)?;
        let mut out = a.clone();
        par_chunks2(out.c0.data_mut(), out.c1.data_mut(), self.context.n(), LIGHT, |i, c0, c1| {
            let m = self.context.q(i);
            let w = m.reduce_i128(k);
            pointwise::mul_scalar_assign(m, c0, w);
            pointwise::mul_scalar_assign(m, c1, w);
        });
        Ok(out)
    }

    /// `a += b · k` for an integer `k`, which carries the scale `scale`: the scale of `a` must be the product.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], and as [`mul_scalar`](Self::mul_scalar).
    pub fn mul_scalar_add_assign(&self, a: &mut Ciphertext, b: &Ciphertext, value: f64, scale: &Scale) -> Result<()> {
        let op = "mul_scalar_add";
        self.check_levels(op, a, b)?;
        let product = b.scale.mul(scale);
        if a.scale != product {
            return Err(CkksError::scales(op, &a.scale, &product));
        }
        let k = Self::integer(op, value, scale)?;
        par_chunks2(a.c0.data_mut(), a.c1.data_mut(), self.context.n(), LIGHT, |i, c0, c1| {
            let m = self.context.q(i);
            let w = m.reduce_i128(k);
            pointwise::mul_scalar_add_assign(m, c0, b.c0.limb(i), w);
            pointwise::mul_scalar_add_assign(m, c1, b.c1.limb(i), w);
        });
        Ok(())
    }

    /// `a + value` in every slot, encoded at the scale of `a`: touches one part, one residue a limb.
    ///
    /// # Errors
    /// As [`mul_scalar`](Self::mul_scalar).
    pub fn add_scalar(&self, a: &Ciphertext, value: f64) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.add_scalar_assign(&mut out, value)?;
        Ok(out)
    }

    /// `a += value` in every slot.
    ///
    /// # Errors
    /// As [`mul_scalar`](Self::mul_scalar).
    pub fn add_scalar_assign(&self, a: &mut Ciphertext, value: f64) -> Result<()> {
        self.check("add_scalar", a)?;
        let k = Self::integer("add_scalar", value, &a.scale)?;
        self.add_integer(&mut a.c0, k);
        Ok(())
    }

    fn add_integer(&self, part: &mut Poly<Eval>, k: i128) {
        par_chunks(part.data_mut(), self.context.n(), LIGHT, |i, limb| {
            let m = self.context.q(i);
            pointwise::add_scalar_assign(m, limb, m.reduce_i128(k));
        });
    }

    /// `a · i` in every slot: multiplication by the monomial `X^(N/2)`, exact and without noise.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn mul_i(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check("mul_i", a)?;
        let half = self.context.n() / 2;
        let mut out = a.clone();
        par_chunks2(out.c0.data_mut(), out.c1.data_mut(), 2 * half, LIGHT, |i, c0, c1| {
            let m = self.context.q(i);
            let root = self.imaginary_unit(i);
            for limb in [c0, c1] {
                pointwise::mul_scalar_assign(m, &mut limb[..half], root);
                pointwise::mul_scalar_assign(m, &mut limb[half..], m.neg(root));
            }
        });
        Ok(out)
    }
}
