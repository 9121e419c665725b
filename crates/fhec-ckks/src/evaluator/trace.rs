//! Sums of a ciphertext and its images under automorphisms.

use fhec_math::{Automorphism, Scale};

use super::Evaluator;
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::keyswitch::{KeyedImage, Undivided, add_images, add_images_divided};
use crate::qp::QpPoly;

const OP: &str = "trace";

impl Evaluator {
    /// `P·a`, for sums that divide at their end.
    pub(crate) fn undivided(&self, a: &Ciphertext) -> Result<Undivided> {
        self.check(OP, a)?;
        let parts = [&a.c0, &a.c1].map(|part| QpPoly::lift(&self.context, part, a.level));
        Ok(Undivided { parts, scale: a.scale.clone() })
    }

    /// Of a ciphertext of this context, one after the other, the sums `a → a + Σ σ(a)` over the automorphisms `σ` of some Galois elements each; then divided
    /// by `P`, and by the last prime too if `rescale` says so.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`](crate::CkksError::NoGaloisKey), [`CkksError::KeyLevel`](crate::CkksError::KeyLevel), and
    /// [`CkksError::LevelRange`](crate::CkksError::LevelRange) for a rescale at level 0.
    pub(crate) fn trace(&self, a: Undivided, sums: &[Vec<u64>], rescale: bool) -> Result<Ciphertext> {
        let context = &*self.context;
        let (level, scale) = (a.parts[0].level, a.scale.clone());
        let keyed = |elements: &Vec<u64>| -> Result<Vec<KeyedImage<'_>>> {
            let image = |&element: &u64| {
                let key = self.galois_key(OP, element, level)?;
                Ok((key, Automorphism::try_get(context.log_n(), element)?))
            };
            elements.iter().map(image).collect()
        };
        let [c0, c1] = match sums.split_last() {
            None => a.divide(context, rescale)?,
            Some((last, before)) => {
                let mut sum = a;
                for elements in before {
                    sum = add_images(context, sum, &keyed(elements)?)?;
                }
                add_images_divided(context, sum, &keyed(last)?, rescale)?
            }
        };
        let (level, scale) =
            if rescale { (level - 1, scale.div(&Scale::prime(context.q(level).value()))) } else { (level, scale) };
        Ok(Ciphertext { c0, c1, level, scale, id: context.id() })
    }
}
