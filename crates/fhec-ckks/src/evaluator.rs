//! Operations on ciphertexts.
//!
//! Every operation checks that its operands belong to the same parameters, level and scale; a mismatch
//! is an error that names the operation and both values. Rescaling, level drops and relinearisation
//! happen only when asked for.

use std::sync::Arc;

use fhec_math::{Automorphism, Eval, Poly, Scale, conjugation_element, galois_element, pointwise};
use rayon::prelude::*;

use crate::cipher::{Ciphertext, Product};
use crate::error::{CkksError, Result};
use crate::keys::{EvaluationKeys, SwitchingKey};
use crate::keyswitch::{
    Decomposed, Division, Lift, decompose, decompose_and_multiply, finish_division, inner_product, mod_down_pair,
    mod_down_rescale_pair,
};
use crate::limbs::{HEAVY, LIGHT, par_chunks, par_chunks2};
use crate::params::Context;
use crate::plaintext::Plaintext;

/// Scalars are rounded to integers below this, as a log2.
const LOG2_SCALAR_LIMIT: f64 = 126.0;

/// Evaluates with one set of keys.
#[derive(Clone, Debug)]
pub struct Evaluator {
    context: Arc<Context>,
    keys: Arc<EvaluationKeys>,
}

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

/// What the checks need to know of an operand.
trait Operand {
    fn facts(&self) -> (u64, usize, &Scale);
}

macro_rules! operand {
    ($($type:ty),*) => {
        $(impl Operand for $type {
            fn facts(&self) -> (u64, usize, &Scale) {
                (self.id, self.level, &self.scale)
            }
        })*
    };
}

operand!(Ciphertext, Product, Plaintext);

impl Evaluator {
    /// An evaluator. `keys` may be [`EvaluationKeys::empty`].
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`] where the keys belong to other parameters.
    pub fn new(context: &Arc<Context>, keys: Arc<EvaluationKeys>) -> Result<Self> {
        context.check_id("evaluator", keys.context().id())?;
        Ok(Self { context: Arc::clone(context), keys })
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<EvaluationKeys> {
        &self.keys
    }

    fn check(&self, op: &'static str, a: &impl Operand) -> Result<()> {
        self.context.check_id(op, a.facts().0)
    }

    /// Same parameters and level.
    fn check_levels(&self, op: &'static str, a: &impl Operand, b: &impl Operand) -> Result<()> {
        self.check(op, a)?;
        self.check(op, b)?;
        let (lhs, rhs) = (a.facts().1, b.facts().1);
        if lhs == rhs { Ok(()) } else { Err(CkksError::LevelMismatch { op, lhs, rhs }) }
    }

    /// Same parameters, level and scale.
    fn check_equal(&self, op: &'static str, a: &impl Operand, b: &impl Operand) -> Result<()> {
        self.check_levels(op, a, b)?;
        let (lhs, rhs) = (a.facts().2, b.facts().2);
        if lhs == rhs { Ok(()) } else { Err(CkksError::scales(op, lhs, rhs)) }
    }

    /// `f(modulus, limb of a, limb of b)` over all limbs of two chain polynomials.
    fn zip(&self, a: &mut Poly<Eval>, b: &Poly<Eval>, f: LimbOp) {
        par_chunks(a.data_mut(), self.context.n(), LIGHT, |i, limb| {
            f(self.context.q(i), limb, b.limb(i));
        });
    }

    /// `a += b`.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`], [`CkksError::ContextMismatch`].
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check_equal("add", a, b)?;
        self.zip(&mut a.c0, &b.c0, pointwise::add_assign);
        self.zip(&mut a.c1, &b.c1, pointwise::add_assign);
        Ok(())
    }

    /// `a + b`; errors as [`add_assign`](Self::add_assign).
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.add_assign(&mut out, b)?;
        Ok(out)
    }

    /// `a −= b`; errors as [`add_assign`](Self::add_assign).
    pub fn sub_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<()> {
        self.check_equal("sub", a, b)?;
        self.zip(&mut a.c0, &b.c0, pointwise::sub_assign);
        self.zip(&mut a.c1, &b.c1, pointwise::sub_assign);
        Ok(())
    }

    /// `a − b`; errors as [`add_assign`](Self::add_assign).
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext> {
        let mut out = a.clone();
        self.sub_assign(&mut out, b)?;
        Ok(out)
    }

    /// `−a`.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`].
    pub fn negate(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check("negate", a)?;
        let mut out = a.clone();
        par_chunks2(out.c0.data_mut(), out.c1.data_mut(), self.context.n(), LIGHT, |i, c0, c1| {
            pointwise::neg_assign(self.context.q(i), c0);
            pointwise::neg_assign(self.context.q(i), c1);
        });
        Ok(out)
    }

    /// `a + p`; errors as [`add_assign`](Self::add_assign).
    pub fn add_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext> {
        self.check_equal("add_plain", a, p)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &p.poly, pointwise::add_assign);
        Ok(out)
    }

    /// `a − p`; errors as [`add_assign`](Self::add_assign).
    pub fn sub_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext> {
        self.check_equal("sub_plain", a, p)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &p.poly, pointwise::sub_assign);
        Ok(out)
    }

    /// `a · p`; the scales multiply.
    ///
    /// # Errors
    /// [`CkksError::LevelMismatch`], [`CkksError::ContextMismatch`].
    pub fn mul_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext> {
        self.check_levels("mul_plain", a, p)?;
        let mut out = a.clone();
        self.zip(&mut out.c0, &p.poly, pointwise::mul_assign);
        self.zip(&mut out.c1, &p.poly, pointwise::mul_assign);
        out.scale = a.scale.mul(&p.scale);
        Ok(out)
    }

    /// Three polynomials whose limbs `f` fills.
    fn product<F>(&self, level: usize, f: F) -> [Poly<Eval>; 3]
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
        Ok(key)
    }

    /// The key of a Galois element, checked to reach `level`.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`], [`CkksError::KeyLevel`].
    pub fn galois_key(&self, op: &'static str, element: u64, level: usize) -> Result<&SwitchingKey> {
        let key = self.keys.galois(element).ok_or(CkksError::NoGaloisKey { op, element })?;
        check_reach(op, key, level)?;
        Ok(key)
    }

    /// Back to two parts.
    ///
    /// # Errors
    /// [`CkksError::NoRelinKey`], [`CkksError::KeyLevel`], [`CkksError::ContextMismatch`].
    pub fn relinearise(&self, a: &Product) -> Result<Ciphertext> {
        self.check("relinearise", a)?;
        let key = self.relin_key("relinearise", a.level)?;
        let u = decompose_and_multiply(&self.context, &a.c2, a.level, key, Lift::default())?;
        let (mut c0, mut c1) = mod_down_pair(&self.context, u);
        self.zip(&mut c0, &a.c0, pointwise::add_assign);
        self.zip(&mut c1, &a.c1, pointwise::add_assign);
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
        let lift = Lift { c0: Some(&a.c0), c1: Some(&a.c1) };
        let u = decompose_and_multiply(&self.context, &a.c2, a.level, key, lift)?;
        let (c0, c1) = mod_down_rescale_pair(&self.context, u)?;
        let scale = self.rescaled(&a.scale, a.level);
        Ok(Ciphertext { c0, c1, level: a.level - 1, scale, id: a.id })
    }

    /// `scale / q_level`.
    fn rescaled(&self, scale: &Scale, level: usize) -> Scale {
        scale.div(&Scale::prime(self.context.q(level).value()))
    }

    /// Divides by the last prime, with centred rounding: one level and a factor `q_level` of the scale less.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] at level 0, [`CkksError::ContextMismatch`].
    pub fn rescale(&self, a: &Ciphertext) -> Result<Ciphertext> {
        self.check("rescale", a)?;
        let [c0, c1] = self.divide_by_last("rescale", [&a.c0, &a.c1], a.level)?;
        Ok(Ciphertext { c0, c1, level: a.level - 1, scale: self.rescaled(&a.scale, a.level), id: a.id })
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

    fn divide_by_last<const K: usize>(
        &self,
        op: &'static str,
        parts: [&Poly<Eval>; K],
        level: usize,
    ) -> Result<[Poly<Eval>; K]> {
        let context = &*self.context;
        context.check_level(op, level, 1)?;
        let Some(tables) = &context.level(level).rescale else {
            return Err(CkksError::LevelRange { op, level, min: 1, max: context.max_level() });
        };
        let n = context.n();
        let mut last = Poly::<Eval>::scratch(n, K);
        par_chunks(last.data_mut(), n, HEAVY, |k, limb| {
            limb.copy_from_slice(parts[k].limb(level));
            context.q_table(level).inverse(limb);
        });
        let mut out: [Poly<Eval>; K] = std::array::from_fn(|_| Poly::scratch(n, level));
        let mut jobs = Vec::with_capacity(K * level);
        for (k, (part, out)) in parts.iter().zip(&mut out).enumerate() {
            let from = Some((context.q(level), last.limb(k)));
            for (i, t) in out.data_mut().chunks_exact_mut(n).enumerate() {
                jobs.push(Division { i, x: part.limb(i), t, from });
            }
        }
        finish_division(context, jobs, &tables.q_inv);
        Ok(out)
    }

    /// Drops limbs down to `level`: the message and its scale stay as they are.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] where `level` is above the ciphertext's, [`CkksError::ContextMismatch`].
    pub fn drop_to_level(&self, a: &Ciphertext, level: usize) -> Result<Ciphertext> {
        self.check("drop_to_level", a)?;
        if level > a.level {
            return Err(CkksError::LevelRange { op: "drop_to_level", level, min: 0, max: a.level });
        }
        Ok(Ciphertext {
            c0: a.c0.prefix(level + 1),
            c1: a.c1.prefix(level + 1),
            level,
            scale: a.scale.clone(),
            id: a.id,
        })
    }

    /// `value · scale`, rounded, or an error where it cannot be held exactly.
    fn integer(&self, op: &'static str, value: f64, scale: &Scale) -> Result<i128> {
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
        let integer = self.integer("mul_scalar", value, scale)?;
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
        let k = self.integer(op, value, scale)?;
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
        self.check("add_scalar", a)?;
        let k = self.integer("add_scalar", value, &a.scale)?;
        let mut out = a.clone();
        par_chunks(out.c0.data_mut(), self.context.n(), LIGHT, |i, limb| {
            let m = self.context.q(i);
            pointwise::add_scalar_assign(m, limb, m.reduce_i128(k));
        });
        Ok(out)
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
            // In bit-reversed order the first half are the powers ψ^(4k+1), where X^(N/2) is ψ^(N/2); the
            // second half are the powers ψ^(4k+3), where it is the negative.
            let root = m.pow(self.context.q_table(i).psi(), half as u64);
            for limb in [c0, c1] {
                pointwise::mul_scalar_assign(m, &mut limb[..half], root);
                pointwise::mul_scalar_assign(m, &mut limb[half..], m.neg(root));
            }
        });
        Ok(out)
    }

    /// Rotates the slots to the left: slot `i` of the result is slot `i + steps` of the input.
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`], [`CkksError::KeyLevel`], [`CkksError::ContextMismatch`].
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
    fn finish_rotation(
        &self,
        a: &Ciphertext,
        u: (crate::qp::QpPoly, crate::qp::QpPoly),
        element: u64,
    ) -> Result<Ciphertext> {
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
    /// [`CkksError::ContextMismatch`].
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

/// An operation on limbs: `dst` op `src` modulo a prime.
type LimbOp = fn(&fhec_math::Modulus, &mut [u64], &[u64]);

fn double(m: &fhec_math::Modulus, limb: &mut [u64]) {
    for x in limb {
        *x = m.add(*x, *x);
    }
}

fn check_reach(op: &'static str, key: &SwitchingKey, level: usize) -> Result<()> {
    if key.level() < level {
        return Err(CkksError::KeyLevel { op, have: key.level(), need: level });
    }
    Ok(())
}
