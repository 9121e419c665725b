//! Secret, public and evaluation keys.

mod packed_poly;
mod switching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fhec_math::bootstrap::{LowKeys, LowRing};
use fhec_math::{Automorphism, Eval, Poly, SecretRng, lift_small, pointwise, uniform_from_seed};
use zeroize::{Zeroize, Zeroizing};

use crate::bootstrap::EncapsulationKeys;
use crate::error::{CkksError, Result};
use crate::limbs::{HEAVY, par_chunks, par_chunks2};
use crate::params::{Context, Selection};

pub(crate) use packed_poly::{Column, PackedPoly};
pub use switching::{SwitchingKey, UniformHalves};

/// The secret key: a dense ternary polynomial. Wiped when dropped.
pub struct SecretKey {
    context: Arc<Context>,
    coeffs: Zeroizing<Vec<i8>>,
    /// Over `q_0 … q_L, p_0 …`.
    eval: Zeroizing<Poly<Eval>>,
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Draws a key: every coefficient uniform in {−1, 0, 1}.
    pub fn generate(context: &Arc<Context>, rng: &mut SecretRng) -> Self {
        Self::from_coefficients(context, rng.ternary(context.n()))
    }

    /// A key with the given coefficients, which the caller has checked.
    pub(crate) fn from_coefficients(context: &Arc<Context>, coeffs: Zeroizing<Vec<i8>>) -> Self {
        let level = context.max_level();
        let eval = Zeroizing::new(small_to_eval(context, level, &coeffs));
        Self { context: Arc::clone(context), coeffs, eval }
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The ternary coefficients.
    pub(crate) fn coefficients(&self) -> &[i8] {
        &self.coeffs
    }

    /// The key modulo chain prime `i`, in evaluation form.
    pub(crate) fn q_limb(&self, i: usize) -> &[u64] {
        self.eval.limb(i)
    }

    /// The key modulo all primes.
    pub(crate) fn eval(&self) -> &Poly<Eval> {
        &self.eval
    }

    /// The image of the key under the inverse of `X → X^element`, modulo all primes: what keys for that automorphism are under.
    pub(crate) fn image(&self, element: u64) -> Result<Zeroizing<Poly<Eval>>> {
        let context = &self.context;
        let automorphism = Automorphism::try_get(context.log_n(), inverse_element(element, context.log_n()))?;
        let mut image = Zeroizing::new(Poly::scratch(context.n(), self.eval.limbs()));
        par_chunks(image.data_mut(), context.n(), HEAVY, |i, limb| automorphism.apply_eval(self.eval.limb(i), limb));
        Ok(image)
    }
}

/// Evaluation form, over `q_0 … q_level, p_0 …`, of a polynomial with small coefficients.
pub(crate) fn small_to_eval(context: &Context, level: usize, coeffs: &[i8]) -> Poly<Eval> {
    let mut out = Poly::<Eval>::scratch(context.n(), context.qp_limbs(level));
    par_chunks(out.data_mut(), context.n(), HEAVY, |i, limb| {
        lift_small(context.qp_modulus(level, i), coeffs, limb);
        context.qp_table(level, i).forward(limb);
    });
    out
}

/// The public key: an encryption of zero over the whole chain, without special primes.
#[derive(Clone, Debug)]
pub struct PublicKey {
    pub(crate) context: Arc<Context>,
    pub(crate) seed: [u8; 32],
    /// `−a·s + e` over `q_0 … q_L`.
    pub(crate) b: Poly<Eval>,
    /// Uniform, expanded from the seed.
    pub(crate) a: Poly<Eval>,
}

/// Labels of the streams that one seed gives; one per digit, so 0 for keys and ciphertexts of one digit.
pub(crate) const LABEL_SINGLE: u64 = 0;

impl PublicKey {
    /// Draws a public key for `secret`.
    pub fn generate(secret: &SecretKey, rng: &mut SecretRng) -> Self {
        let context = Arc::clone(&secret.context);
        let seed = rng.next_seed();
        let (b, a) = zero_encryption(secret, context.max_level(), &seed, rng);
        Self { context, seed, b, a }
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn from_parts(context: &Arc<Context>, seed: [u8; 32], b: Poly<Eval>) -> Self {
        let a = expand_uniform(context, &seed, context.max_level());
        Self { context: Arc::clone(context), seed, b, a }
    }
}

/// `(−a·s + e, a)` over `q_0 … q_level` with `a` from the seed.
pub(crate) fn zero_encryption(
    secret: &SecretKey,
    level: usize,
    seed: &[u8; 32],
    rng: &mut SecretRng,
) -> (Poly<Eval>, Poly<Eval>) {
    let context = &secret.context;
    let n = context.n();
    let noise = rng.noise(n);
    let mut b = Poly::<Eval>::scratch(n, level + 1);
    let mut a = Poly::<Eval>::scratch(n, level + 1);
    par_chunks2(b.data_mut(), a.data_mut(), n, HEAVY, |i, b, a| {
        let m = context.q(i);
        uniform_from_seed(seed, LABEL_SINGLE, m, a);
        lift_small(m, &noise, b);
        context.q_table(i).forward(b);
        pointwise::mul_sub_assign(m, b, a, secret.q_limb(i));
    });
    (b, a)
}

/// The uniform half over `q_0 … q_level` that belongs to a seed.
pub(crate) fn expand_uniform(context: &Context, seed: &[u8; 32], level: usize) -> Poly<Eval> {
    let mut a = Poly::<Eval>::scratch(context.n(), level + 1);
    par_chunks(a.data_mut(), context.n(), HEAVY, |i, limb| {
        uniform_from_seed(seed, LABEL_SINGLE, context.q(i), limb);
    });
    a
}

/// Which evaluation keys to make, and up to which level each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRequest {
    /// Level up to which products are relinearised, or no relinearisation at all.
    pub relin_level: Option<usize>,
    /// Galois element (odd, below 2N) to the highest level at which it is used.
    pub galois: BTreeMap<u64, usize>,
    /// Number of ±1 in the sparse secret of [`EncapsulationKeys`], where ciphertexts are bootstrapped.
    pub sparse_weight: Option<u32>,
    /// Galois elements of the keys from the sparse secret; without that secret there are none.
    pub raised: BTreeSet<u64>,
    /// Keys of smaller rings that lead to the sparse secret, by log2 of the degree.
    pub low: BTreeMap<u32, LowKeys>,
}

impl KeyRequest {
    /// Number of keys asked for.
    pub fn count(&self) -> usize {
        usize::from(self.relin_level.is_some()) + self.galois.len() + usize::from(self.sparse_weight.is_some())
    }

    /// Checks levels and Galois elements against a context.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`]; [`CkksError::Parameters`] for an element that is even or not below 2N, an impossible weight or an impossible
    /// smaller ring; [`CkksError::Insecure`] for a smaller ring without the security of the whole one.
    pub fn check(&self, context: &Context) -> Result<()> {
        for &level in self.relin_level.iter().chain(self.galois.values()) {
            context.check_level("key request", level, 0)?;
        }
        for &element in self.galois.keys().chain(&self.raised) {
            if element.is_multiple_of(2) || element >= 2 << context.log_n() {
                return Err(CkksError::Parameters(format!(
                    "Galois element {element} is not odd and below 2^{}",
                    context.log_n() + 1
                )));
            }
        }
        for (&log_n, keys) in &self.low {
            context.low_ring(LowRing { log_n, level: keys.level })?;
            if let Some(element) = keys.galois.iter().find(|e| e.is_multiple_of(2) || **e >= 2 << log_n) {
                let bound = log_n + 1;
                return Err(CkksError::Parameters(format!("Galois element {element} is not odd and below 2^{bound}")));
            }
        }
        match self.sparse_weight {
            Some(weight) if weight == 0 || weight as usize > context.n() / 2 => {
                Err(CkksError::Parameters(format!("a sparse secret of weight {weight}")))
            }
            None if !self.raised.is_empty() || !self.low.is_empty() => {
                Err(CkksError::Parameters("keys from a sparse secret that there is not".into()))
            }
            _ => Ok(()),
        }
    }
}

/// What one evaluation key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Relinearisation: `s²` to `s`.
    Relinearise,
    /// The automorphism `X → X^g`.
    Galois(u64),
}

/// Makes the evaluation keys of a request one after the other, so that they can be written out without
/// ever being in memory together.
pub struct KeyGenerator<'a> {
    secret: &'a SecretKey,
    rng: &'a mut SecretRng,
}

impl std::fmt::Debug for KeyGenerator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyGenerator").finish_non_exhaustive()
    }
}

impl<'a> KeyGenerator<'a> {
    /// A generator of keys for `secret`.
    pub fn new(secret: &'a SecretKey, rng: &'a mut SecretRng) -> Self {
        Self { secret, rng }
    }

    /// Makes one key that reaches up to `level`.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`], or [`CkksError::Math`] for an impossible Galois element.
    pub fn make(&mut self, purpose: KeyPurpose, level: usize) -> Result<SwitchingKey> {
        let context = &self.secret.context;
        context.check_level("key generation", level, 0)?;
        let s = self.secret.eval();
        let other = match purpose {
            KeyPurpose::Relinearise => {
                let mut square = Zeroizing::new(s.clone());
                par_chunks(square.data_mut(), context.n(), HEAVY, |i, limb| {
                    pointwise::mul_assign(context.qp_modulus(context.max_level(), i), limb, s.limb(i));
                });
                square
            }
            KeyPurpose::Galois(element) => self.secret.image(element)?,
        };
        let (message, under) = match purpose {
            KeyPurpose::Relinearise => (&*other, s),
            KeyPurpose::Galois(_) => (s, &*other),
        };
        Ok(SwitchingKey::generate(context, message, under, level, self.rng))
    }

    /// Makes the keys of encapsulation that a request asks for, with a sparse secret of this weight; see [`EncapsulationKeys::generate`].
    ///
    /// # Errors
    /// As there.
    pub fn encapsulation(&mut self, request: &KeyRequest, weight: u32) -> Result<EncapsulationKeys> {
        EncapsulationKeys::generate(self.secret, weight, &request.raised, &request.low, self.rng)
    }
}

/// The inverse of an odd element modulo 2N.
fn inverse_element(element: u64, log_n: u32) -> u64 {
    let mask = (2u64 << log_n) - 1;
    // Newton's iteration doubles the number of right bits; g itself is right to three.
    let mut inverse = element;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(element.wrapping_mul(inverse)));
    }
    inverse & mask
}

/// The keys that a server needs. They contain no secret.
#[derive(Clone, Debug)]
pub struct EvaluationKeys {
    pub(crate) context: Arc<Context>,
    pub(crate) relin: Option<SwitchingKey>,
    pub(crate) galois: BTreeMap<u64, SwitchingKey>,
    pub(crate) encapsulation: Option<Arc<EncapsulationKeys>>,
    /// Weight of the sparse secret of encapsulation.
    pub(crate) sparse_weight: Option<u32>,
}

impl EvaluationKeys {
    /// No keys at all: enough for additions and products with plaintexts.
    pub fn empty(context: &Arc<Context>) -> Self {
        Self {
            context: Arc::clone(context),
            relin: None,
            galois: BTreeMap::new(),
            encapsulation: None,
            sparse_weight: None,
        }
    }

    /// Makes all keys of `request`. `progress` is called with the numbers of keys done and asked for.
    ///
    /// # Errors
    /// As [`KeyRequest::check`].
    pub fn generate(
        secret: &SecretKey,
        request: &KeyRequest,
        rng: &mut SecretRng,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self> {
        request.check(&secret.context)?;
        let mut keys = Self::empty(&secret.context);
        let mut generator = KeyGenerator::new(secret, rng);
        let total = request.count();
        let mut done = 0;
        if let Some(level) = request.relin_level {
            keys.relin = Some(generator.make(KeyPurpose::Relinearise, level)?);
            done += 1;
            progress(done, total);
        }
        for (&element, &level) in &request.galois {
            keys.galois.insert(element, generator.make(KeyPurpose::Galois(element), level)?);
            done += 1;
            progress(done, total);
        }
        if let Some(weight) = request.sparse_weight {
            keys.set_encapsulation(weight, generator.encapsulation(request, weight)?);
            progress(total, total);
        }
        Ok(keys)
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The relinearisation key, where there is one.
    pub fn relin(&self) -> Option<&SwitchingKey> {
        self.relin.as_ref()
    }

    /// The key of a Galois element, where there is one.
    pub fn galois(&self, element: u64) -> Option<&SwitchingKey> {
        self.galois.get(&element)
    }

    /// The keys of encapsulation, where there are any.
    pub fn encapsulation(&self) -> Option<&EncapsulationKeys> {
        self.encapsulation.as_deref()
    }

    pub(crate) fn set_encapsulation(&mut self, weight: u32, keys: EncapsulationKeys) {
        self.encapsulation = Some(Arc::new(keys));
        self.sparse_weight = Some(weight);
    }

    /// The same keys for a part of the chain; nothing is copied. Those of encapsulation serve the whole chain only.
    pub(crate) fn select(&self, selection: &Selection) -> Self {
        let part = |key: &SwitchingKey| key.select(&self.context, selection);
        Self {
            context: Arc::clone(selection.context()),
            relin: self.relin.as_ref().map(part),
            galois: self.galois.iter().map(|(&element, key)| (element, part(key))).collect(),
            encapsulation: None,
            sparse_weight: None,
        }
    }

    /// The request that these keys answer.
    pub fn request(&self) -> KeyRequest {
        KeyRequest {
            relin_level: self.relin.as_ref().map(SwitchingKey::level),
            galois: self.galois.iter().map(|(&element, key)| (element, key.level())).collect(),
            sparse_weight: self.sparse_weight,
            raised: self.encapsulation.iter().flat_map(|keys| keys.elements()).collect(),
            low: self.encapsulation.iter().flat_map(|keys| keys.low_request()).collect(),
        }
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        let switching: usize = self.relin.iter().chain(self.galois.values()).map(SwitchingKey::bytes).sum();
        switching + self.encapsulation.as_ref().map_or(0, |keys| keys.bytes())
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        // The fields wipe themselves; named here so that a change of their types is noticed.
        self.coeffs.zeroize();
        self.eval.zeroize();
    }
}
