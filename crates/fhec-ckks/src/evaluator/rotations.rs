//! Rotations and conjugation, single and hoisted.

use fhec_math::{Automorphism, Poly, conjugation_element, galois_element, pointwise};

use super::Evaluator;
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::keyswitch::{Decomposed, Lift, decompose, decompose_and_multiply, inner_product, mod_down_pair};
use crate::limbs::{LIGHT, par_chunks2};
use crate::qp::QpPoly;

/// A ciphertext whose digits have been made once, for many rotations.
#[derive(Clone, Debug)]
pub struct HoistedCiphertext {
    /// The ciphertext itself.
    pub(crate) ciphertext: Ciphertext,
    /// Digits of its second part.
    pub(crate) digits: Decomposed,
}

impl HoistedCiphertext {
    /// The ciphertext that was hoisted.
    pub fn ciphertext(&self) -> &Ciphertext {
        &self.ciphertext
    }

    /// Digits of its second part.
    pub fn digits(&self) -> &Decomposed {
        &self.digits
    }
}

impl Evaluator {
    /// Rotates the slots to the left: slot `i` of the result is slot `i + steps` of the input.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`](crate::CkksError::NoGaloisKey), [`CkksError::KeyLevel`](crate::CkksError::KeyLevel), [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn rotate(&self, a: &Ciphertext, steps: i64) -> Result<Ciphertext> {
        let element = galois_element(steps, self.context.log_n());
        if element == 1 {
            self.check("rotate", a)?;
            return Ok(a.clone());
        }
        self.automorphism("rotate", a, element)
    }

    /// Complex conjugate of every slot.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub fn conjugate(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.automorphism("conjugate", a, conjugation_element(self.context.log_n()))
    }

    fn automorphism(&self, op: &'static str, a: &Ciphertext, element: u64) -> Result<Ciphertext> {
        self.check(op, a)?;
        let key = self.galois_key(op, element, a.level)?;
        let u = decompose_and_multiply(&self.context, &a.c1, a.level, key, Lift::default())?;
        self.finish_rotation(a, u, element)
    }

    /// Divides by `P`, adds the first part and permutes.
    fn finish_rotation(&self, a: &Ciphertext, u: (QpPoly, QpPoly), element: u64) -> Result<Ciphertext> {
        let n = self.context.n();
        let automorphism = Automorphism::try_get(self.context.log_n(), element)?;
        let (mut k0, k1) = mod_down_pair(&self.context, u);
        let mut c0 = Poly::scratch(n, a.level + 1);
        let mut c1 = Poly::scratch(n, a.level + 1);
        self.zip(&mut k0, &a.c0, pointwise::add_assign);
        par_chunks2(c0.data_mut(), c1.data_mut(), n, LIGHT, |i, c0, c1| {
            automorphism.apply_eval(k0.limb(i), c0);
            automorphism.apply_eval(k1.limb(i), c1);
        });
        Ok(Ciphertext { c0, c1, level: a.level, scale: a.scale.clone(), id: a.id })
    }

    /// Makes the digits once, for several rotations of the same ciphertext.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn hoist(&self, a: &Ciphertext) -> Result<HoistedCiphertext> {
        self.check("hoist", a)?;
        let digits = decompose(&self.context, &a.c1, a.level);
        Ok(HoistedCiphertext { ciphertext: a.clone(), digits })
    }

    /// [`rotate`](Self::rotate) of a hoisted ciphertext; the same result.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate).
    pub fn rotate_hoisted(&self, a: &HoistedCiphertext, steps: i64) -> Result<Ciphertext> {
        let op = "rotate_hoisted";
        self.check(op, &a.ciphertext)?;
        let element = galois_element(steps, self.context.log_n());
        if element == 1 {
            return Ok(a.ciphertext.clone());
        }
        let key = self.galois_key(op, element, a.ciphertext.level)?;
        let u = inner_product(&self.context, &a.digits, key, Lift::default(), None)?;
        self.finish_rotation(&a.ciphertext, u, element)
    }
}
