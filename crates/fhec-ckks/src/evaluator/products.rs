//! Products of ciphertexts, before and after relinearisation.

use std::sync::atomic::Ordering;

use fhec_math::{Eval, Modulus, Poly, Scale, pointwise};
use rayon::prelude::*;

use super::{Evaluator, check_reach};
use crate::cipher::{Ciphertext, Product};
use crate::error::{CkksError, Result};
use crate::keys::SwitchingKey;
use crate::keyswitch::{Digits, Limbs, Switch, switch};
use crate::limbs::{HEAVY, LIGHT, par_chunks};

impl Evaluator {
    /// Three polynomials whose limbs `f` fills.
    pub(super) fn product<F>(&self, level: usize, f: F) -> [Poly<Eval>; 3]
    where
        F: Fn(&fhec_math::Modulus, usize, [&mut [u64]; 3]) + Sync,
    {
        let n = self.context.n();
        let mut out = std::array::from_fn(|_| Poly::scratch(n, level + 1));
        let [c0, c1, c2] = &mut out;
        c0.par_iter_mut()
            .zip(c1.par_iter_mut())
            .zip(c2.par_iter_mut())
            .enumerate()
            .with_min_len((HEAVY / n).max(1))
            .for_each(|(i, ((c0, c1), c2))| f(self.context.q(i), i, [c0, c1, c2]));
        out
    }

    /// `a · b`, not relinearised; the scales multiply.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ContextMismatch`].
    pub fn mul(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Product> {
        self.check_levels("mul", a, b)?;
        let [c0, c1, c2] = self.product(a.level, |m, i, [c0, c1, c2]| {
            pointwise::mul_into(m, c0, a.c0.limb(i), b.c0.limb(i));
            pointwise::mul_into(m, c1, a.c0.limb(i), b.c1.limb(i));
            pointwise::mul_add_assign(m, c1, a.c1.limb(i), b.c0.limb(i));
            pointwise::mul_into(m, c2, a.c1.limb(i), b.c1.limb(i));
        });
        Ok(Product { c0, c1, c2, level: a.level, scale: a.scale.mul(&b.scale), id: a.id })
    }

    /// `a²`, not relinearised.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn square(&self, a: &Ciphertext) -> Result<Product> {
        self.check("square", a)?;
        let [c0, c1, c2] = self.product(a.level, |m, i, [c0, c1, c2]| {
            pointwise::mul_into(m, c0, a.c0.limb(i), a.c0.limb(i));
            pointwise::mul_into(m, c1, a.c0.limb(i), a.c1.limb(i));
            double(m, c1);
            pointwise::mul_into(m, c2, a.c1.limb(i), a.c1.limb(i));
        });
        Ok(Product { c0, c1, c2, level: a.level, scale: a.scale.square(), id: a.id })
    }

    /// `a += b` for products; errors as [`add_assign`](Self::add_assign).
    pub fn add_product_assign(&self, a: &mut Product, b: &Product) -> Result<()> {
        self.check_equal("add_product", a, b)?;
        self.zip(&mut a.c0, &b.c0, pointwise::add_assign);
        self.zip(&mut a.c1, &b.c1, pointwise::add_assign);
        self.zip(&mut a.c2, &b.c2, pointwise::add_assign);
        Ok(())
    }

    /// `a + b` for products; errors as [`add_assign`](Self::add_assign).
    pub fn add_product(&self, a: &Product, b: &Product) -> Result<Product> {
        let mut out = a.clone();
        self.add_product_assign(&mut out, b)?;
        Ok(out)
    }

    /// `a − b` for products; errors as [`add_assign`](Self::add_assign).
    pub fn sub_product(&self, a: &Product, b: &Product) -> Result<Product> {
        self.check_equal("sub_product", a, b)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &b.c0, pointwise::sub_assign);
        self.zip(&mut out.c1, &b.c1, pointwise::sub_assign);
        self.zip(&mut out.c2, &b.c2, pointwise::sub_assign);
        Ok(out)
    }

    /// `a + b` for a product and a ciphertext; errors as [`add_assign`](Self::add_assign).
    pub fn add_to_product(&self, a: &Product, b: &Ciphertext) -> Result<Product> {
        self.check_equal("add_to_product", a, b)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &b.c0, pointwise::add_assign);
        self.zip(&mut out.c1, &b.c1, pointwise::add_assign);
        Ok(out)
    }

    /// `a − b` for a product and a ciphertext; errors as [`add_assign`](Self::add_assign).
    pub fn sub_from_product(&self, a: &Product, b: &Ciphertext) -> Result<Product> {
        self.check_equal("sub_from_product", a, b)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &b.c0, pointwise::sub_assign);
        self.zip(&mut out.c1, &b.c1, pointwise::sub_assign);
        Ok(out)
    }

    /// `−a` for a product.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn negate_product(&self, a: &Product) -> Result<Product> {
        self.check("negate_product", a)?;
        let mut out = a.clone();
        for part in [&mut out.c0, &mut out.c1, &mut out.c2] {
            par_chunks(part.data_mut(), self.context.n(), LIGHT, |i, limb| {
                pointwise::neg_assign(self.context.q(i), limb);
            });
        }
        Ok(out)
    }

    /// [`drop_to_level`](Self::drop_to_level) of a product; errors as there.
    pub fn drop_product_to_level(&self, a: &Product, level: usize) -> Result<Product> {
        let op = "drop_product_to_level";
        self.check(op, a)?;
        if level > a.level {
            return Err(CkksError::LevelRange { op, level, min: 0, max: a.level });
        }
        let prefix = |part: &Poly<Eval>| part.prefix(level + 1);
        let (c0, c1, c2) = (prefix(&a.c0), prefix(&a.c1), prefix(&a.c2));
        Ok(Product { c0, c1, c2, level, scale: a.scale.clone(), id: a.id })
    }

    fn relin_key(&self, op: &'static str, level: usize) -> Result<&SwitchingKey> {
        let key = self.keys.relin().ok_or(CkksError::NoRelinKey { op })?;
        check_reach(op, key, level)?;
        self.counters.relinearisations.fetch_add(1, Ordering::Relaxed);
        Ok(key)
    }

    /// Back to two parts.
    ///
    /// # Errors
    /// [`CkksError::NoRelinKey`], [`CkksError::KeyLevel`], [`CkksError::ContextMismatch`].
    pub fn relinearise(&self, a: &Product) -> Result<Ciphertext> {
        self.check("relinearise", a)?;
        let key = self.relin_key("relinearise", a.level)?;
        let add = Switch { add: [Some(&a.c0), Some(&a.c1)], ..Switch::default() };
        let [c0, c1] = self.switch_third(&a.c2, a.level, key, add, false)?;
        Ok(Ciphertext { c0, c1, level: a.level, scale: a.scale.clone(), id: a.id })
    }

    /// [`relinearise`](Self::relinearise) and [`rescale`](Self::rescale) with a single division by
    /// `P·q_level`: cheaper than one after the other, and one rounding less.
    ///
    /// # Errors
    /// As both.
    pub fn relinearise_rescale(&self, a: &Product) -> Result<Ciphertext> {
        self.check("relinearise_rescale", a)?;
        self.context.check_level("relinearise_rescale", a.level, 1)?;
        let key = self.relin_key("relinearise_rescale", a.level)?;
        let lift = Switch { lift: [Some(&a.c0), Some(&a.c1)], ..Switch::default() };
        let [c0, c1] = self.switch_third(&a.c2, a.level, key, lift, true)?;
        let scale = self.rescaled(&a.scale, a.level);
        Ok(Ciphertext { c0, c1, level: a.level - 1, scale, id: a.id })
    }

    /// [`relinearise_rescale`](Self::relinearise_rescale) of a product of which only the third part is there: the others are made a few positions at a time where
    /// they are used, which saves writing and reading them.
    pub(crate) fn relinearise_rescale_made(
        &self,
        c2: &Poly<Eval>,
        level: usize,
        scale: &Scale,
        made: &Limbs<'_>,
    ) -> Result<Ciphertext> {
        self.context.check_level("relinearise_rescale", level, 1)?;
        let key = self.relin_key("relinearise_rescale", level)?;
        let [c0, c1] = self.switch_third(c2, level, key, Switch { made: Some(made), ..Switch::default() }, true)?;
        Ok(Ciphertext { c0, c1, level: level - 1, scale: self.rescaled(scale, level), id: self.context.id() })
    }

    /// The third part under the secret itself.
    fn switch_third(
        &self,
        c2: &Poly<Eval>,
        level: usize,
        key: &SwitchingKey,
        with: Switch<'_>,
        rescale: bool,
    ) -> Result<[Poly<Eval>; 2]> {
        let digits = Digits::new(&self.context, c2, level);
        let switched = switch(&self.context, digits, level, &[(key, with)], rescale)?;
        Ok(switched.into_iter().next().expect("one switch gives one pair"))
    }

    /// [`rescale`](Self::rescale) of a product. The rounding error of the third part meets `s²`: some `log2(√h)` bits
    /// less precise than relinearising first.
    ///
    /// # Errors
    /// As [`rescale`](Self::rescale).
    pub fn rescale_product(&self, a: &Product) -> Result<Product> {
        self.check("rescale_product", a)?;
        let [c0, c1, c2] = self.divide_by_last("rescale_product", [&a.c0, &a.c1, &a.c2], a.level)?;
        Ok(Product { c0, c1, c2, level: a.level - 1, scale: self.rescaled(&a.scale, a.level), id: a.id })
    }
}

/// `limb += limb`.
pub(super) fn double(m: &Modulus, limb: &mut [u64]) {
    for x in limb {
        *x = m.add(*x, *x);
    }
}
