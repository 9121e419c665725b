//! Operations on ciphertexts.
//!
//! Every operation checks that its operands belong to the same parameters, level and scale; a mismatch
//! is an error that names the operation and both values. Rescaling, level drops and relinearisation
//! happen only when asked for.

mod parts;
mod products;
mod rotations;
mod scalars;
mod trace;

pub use rotations::HoistedCiphertext;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fhec_math::{Eval, Poly, Scale, pointwise};

use crate::cipher::{Ciphertext, Product};
use crate::error::{CkksError, Result};
use crate::keys::{EvaluationKeys, SwitchingKey};
use crate::keyswitch::{Division, finish_division};
use crate::limbs::{HEAVY, LIGHT, par_chunks, par_chunks2};
use crate::params::{Context, Selection};
use crate::plaintext::Plaintext;

/// Evaluates with one set of keys.
#[derive(Clone, Debug)]
pub struct Evaluator {
    context: Arc<Context>,
    keys: Arc<EvaluationKeys>,
    composed: Arc<BTreeMap<u64, [u64; 2]>>,
    counters: Arc<Counters>,
}

/// How often switching keys were used; what an evaluation costs, mostly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySwitches {
    /// Rotations and conjugations, hoisted ones and those inside linear maps included.
    pub rotations: u64,
    /// Relinearisations.
    pub relinearisations: u64,
}

#[derive(Debug, Default)]
struct Counters {
    rotations: AtomicU64,
    relinearisations: AtomicU64,
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
        Ok(Self { context: Arc::clone(context), keys, composed: Arc::default(), counters: Arc::default() })
    }

    /// The same, but for automorphisms that have no key: each is made of two that have, at the price of two key switches.
    /// `composed` has the elements of those two.
    ///
    /// Bootstraps make no use of that.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where two elements do not make the third, or are composed themselves.
    pub fn composing(self, composed: BTreeMap<u64, [u64; 2]>) -> Result<Self> {
        let modulus = 2 * self.context.n() as u128;
        for (element, factors) in &composed {
            let product = factors.iter().fold(1, |product, &f| product * u128::from(f) % modulus);
            if product != u128::from(*element) || factors.iter().any(|f| *f == 1 || composed.contains_key(f)) {
                return Err(CkksError::Parameters(format!("Galois element {element} is not made of {factors:?}")));
            }
        }
        Ok(Self { composed: Arc::new(composed), ..self })
    }

    /// The two automorphisms that make one that has no key.
    pub(crate) fn factors(&self, element: u64) -> Option<[u64; 2]> {
        self.composed.get(&element).copied()
    }

    /// The same for a part of the chain; nothing is copied, and key switches are counted together.
    pub(crate) fn select(&self, selection: &Selection) -> Self {
        Self {
            context: Arc::clone(selection.context()),
            keys: Arc::new(self.keys.select(selection)),
            composed: Arc::clone(&self.composed),
            counters: Arc::clone(&self.counters),
        }
    }

    /// The same, but for key switches, which another one counts.
    pub(crate) fn counted_by(&self, other: &Self) -> Self {
        Self { counters: Arc::clone(&other.counters), ..self.clone() }
    }

    /// Key switches since the evaluator was made, by it and its clones.
    pub fn key_switches(&self) -> KeySwitches {
        KeySwitches {
            rotations: self.counters.rotations.load(Ordering::Relaxed),
            relinearisations: self.counters.relinearisations.load(Ordering::Relaxed),
        }
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

    /// The key of a Galois element, checked to reach `level`, for one rotation: it is counted
    /// ([`key_switches`](Self::key_switches)).
    ///
    /// # Errors
    /// [`CkksError::NoGaloisKey`], [`CkksError::KeyLevel`].
    pub fn galois_key(&self, op: &'static str, element: u64, level: usize) -> Result<&SwitchingKey> {
        let key = self.keys.galois(element).ok_or(CkksError::NoGaloisKey { op, element })?;
        check_reach(op, key, level)?;
        self.counters.rotations.fetch_add(1, Ordering::Relaxed);
        Ok(key)
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
}

/// An operation on limbs: `dst` op `src` modulo a prime.
type LimbOp = fn(&fhec_math::Modulus, &mut [u64], &[u64]);

fn check_reach(op: &'static str, key: &SwitchingKey, level: usize) -> Result<()> {
    if key.level() < level {
        return Err(CkksError::KeyLevel { op, have: key.level(), need: level });
    }
    Ok(())
}
