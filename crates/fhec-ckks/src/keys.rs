//! Secret, public and evaluation keys.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use fhec_math::{AlignedVec, Automorphism, Eval, Poly, SecretRng, lift_small, packed, pointwise, uniform_from_seed};
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

use crate::bootstrap::EncapsulationKeys;
use crate::error::{CkksError, Result};
use crate::limbs::{HEAVY, par_chunks, par_chunks2};
use crate::params::{Context, Selection};

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
}

/// Evaluation form, over `q_0 … q_level, p_0 …`, of a polynomial with small coefficients.
fn small_to_eval(context: &Context, level: usize, coeffs: &[i8]) -> Poly<Eval> {
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

/// A key-switching key; see [`keyswitch`](crate::keyswitch) for what it holds.
///
/// It reaches up to its own level: it has the digits and limbs of that level only, which is a prefix of
/// those of a key for the top level.
///
/// Residues are packed to whole bytes: an inner product reads a key once and runs at the speed of the memory.
#[derive(Clone, Debug)]
pub struct SwitchingKey {
    pub(crate) seed: [u8; 32],
    pub(crate) level: usize,
    /// `−a_d·s + e_d + P·g_d·s'` for each digit, over `q_0 … q_level, p_0 …`.
    pub(crate) b: Vec<PackedPoly>,
    /// Uniform, expanded from the seed.
    pub(crate) a: Vec<PackedPoly>,
}

impl SwitchingKey {
    /// Highest level at which the key can be used.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.b.iter().chain(&self.a).map(PackedPoly::bytes).sum()
    }

    /// A key of `message` under `under`, both over `q_0 … q_L, p_0 …`.
    fn generate(
        context: &Context,
        message: &Poly<Eval>,
        under: &Poly<Eval>,
        level: usize,
        rng: &mut SecretRng,
    ) -> Self {
        let n = context.n();
        let seed = rng.next_seed();
        let digits = context.digits_at(level);
        let noise: Vec<_> = (0..digits).map(|_| rng.noise(n)).collect();
        let mut key = Self { seed, level, b: Vec::with_capacity(digits), a: Vec::with_capacity(digits) };
        let mut b = Poly::<Eval>::scratch(n, context.qp_limbs(level));
        let mut a = Poly::<Eval>::scratch(n, context.qp_limbs(level));
        for (d, noise) in noise.iter().enumerate() {
            let range = context.digit_range(d);
            par_chunks2(b.data_mut(), a.data_mut(), n, HEAVY, |i, b, a| {
                let m = context.qp_modulus(level, i);
                let top = limb_index(context.max_level(), level, i);
                uniform_from_seed(&seed, d as u64, m, a);
                lift_small(m, noise, b);
                context.qp_table(level, i).forward(b);
                pointwise::mul_sub_assign(m, b, a, under.limb(top));
                if i <= level && range.contains(&i) {
                    pointwise::mul_scalar_add_assign(m, b, message.limb(top), context.p_mod_q(i));
                }
            });
            key.b.push(PackedPoly::pack(context, level, &b));
            key.a.push(PackedPoly::pack(context, level, &a));
        }
        key
    }

    /// Words that a key up to `level` takes in memory.
    pub(crate) fn words(context: &Context, level: usize) -> usize {
        let one: usize = PackedPoly::ranges(context, level, 0).iter().map(Range::len).sum();
        2 * context.digits_at(level) * one
    }

    /// The key whose [`words`](Self::words) lie in `block` from `start` on, in the order in which
    /// [`expand`](Self::expand) writes them.
    pub(crate) fn within(
        context: &Context,
        block: &Arc<AlignedVec>,
        start: usize,
        seed: [u8; 32],
        level: usize,
    ) -> Self {
        let mut end = start;
        let mut half = || {
            let digits = 0..context.digits_at(level);
            let polys = digits.map(|_| {
                let limbs = PackedPoly::ranges(context, level, end);
                end = limbs[context.qp_limbs(level) - 1].end;
                PackedPoly { data: Arc::clone(block), limbs }
            });
            polys.collect()
        };
        let b = half();
        Self { seed, level, b, a: half() }
    }

    /// Writes the uniform half of the key with this seed into the second half of the words of a key; the first half is that of
    /// its `b`.
    pub(crate) fn expand(context: &Context, seed: &[u8; 32], level: usize, half: &mut [u64]) {
        let n = context.n();
        let limbs: Vec<&mut [u64]> = PackedPoly::split(context, level, half);
        let per_digit = context.qp_limbs(level);
        limbs.into_par_iter().enumerate().with_min_len((HEAVY / n).max(1)).for_each_init(
            || AlignedVec::scratch(n),
            |scratch, (index, out)| {
                let m = context.qp_modulus(level, index % per_digit);
                uniform_from_seed(seed, (index / per_digit) as u64, m, scratch);
                packed::pack_into(m, scratch, out);
            },
        );
    }

    /// The same key for a part of the chain; nothing is copied.
    ///
    /// The gadget `g_d` is 1 modulo the primes of its digit and 0 modulo all others, so leaving out primes leaves a key.
    fn select(&self, context: &Context, selection: &Selection) -> Self {
        let level = selection.level(self.level);
        let special = (0..context.special()).map(|j| self.level + 1 + j);
        let limbs: Vec<usize> = selection.limbs()[..=level].iter().copied().chain(special).collect();
        let part = |half: &[PackedPoly]| {
            let digits = half.iter().enumerate().filter(|&(d, _)| selection.meets(&context.digit_range(d)));
            digits.map(|(_, poly)| poly.select(limbs.iter().copied())).collect()
        };
        Self { seed: self.seed, level, b: part(&self.b), a: part(&self.a) }
    }

    /// Limb `i` (in the order of `level`, which may be below the key's) of the first `digits` digits of
    /// one component, packed.
    pub(crate) fn column(&self, level: usize, i: usize, digits: usize, second: bool) -> Vec<&[u64]> {
        let index = limb_index(self.level, level, i);
        let half = if second { &self.a } else { &self.b };
        half[..digits].iter().map(|poly| poly.limb(index)).collect()
    }
}

/// A polynomial over `q_0 … q_level, p_0 …` with residues of whole bytes ([`fhec_math::packed`]). Several may share a
/// block of memory: large blocks take fewer and larger pages.
#[derive(Clone, Debug)]
pub(crate) struct PackedPoly {
    /// Shared with the [selections](PackedPoly::select) of this polynomial too.
    data: Arc<AlignedVec>,
    /// Where each limb lies in the block, in words.
    limbs: Vec<Range<usize>>,
}

impl PackedPoly {
    pub(crate) fn pack(context: &Context, level: usize, poly: &Poly<Eval>) -> Self {
        let n = context.n();
        let ranges = Self::ranges(context, level, 0);
        let mut data = AlignedVec::scratch(ranges[poly.limbs() - 1].end);
        let limbs = Self::split(context, level, &mut data);
        limbs.into_par_iter().enumerate().with_min_len((HEAVY / n).max(1)).for_each(|(i, limb)| {
            packed::pack_into(context.qp_modulus(level, i), poly.limb(i), limb);
        });
        Self { data: Arc::new(data), limbs: ranges }
    }

    /// Where the limbs lie of a polynomial that begins at word `start`.
    fn ranges(context: &Context, level: usize, start: usize) -> Vec<Range<usize>> {
        let mut end = start;
        let range = |i| {
            let start = end;
            end += packed::words(context.qp_modulus(level, i), context.n());
            start..end
        };
        (0..context.qp_limbs(level)).map(range).collect()
    }

    /// Cuts the words of several polynomials into limbs.
    pub(crate) fn split<'a>(context: &Context, level: usize, mut words: &'a mut [u64]) -> Vec<&'a mut [u64]> {
        let ranges = Self::ranges(context, level, 0);
        let mut limbs = Vec::new();
        for range in ranges.iter().cycle() {
            if words.is_empty() {
                break;
            }
            let (limb, rest) = words.split_at_mut(range.len());
            limbs.push(limb);
            words = rest;
        }
        limbs
    }

    /// Limb `i`, packed.
    pub(crate) fn limb(&self, i: usize) -> &[u64] {
        &self.data[self.limbs[i].clone()]
    }

    /// The polynomial modulo the primes of some of its limbs; nothing is copied.
    fn select(&self, limbs: impl Iterator<Item = usize>) -> Self {
        Self { data: Arc::clone(&self.data), limbs: limbs.map(|i| self.limbs[i].clone()).collect() }
    }

    pub(crate) fn unpack(&self, context: &Context, level: usize) -> Poly<Eval> {
        let mut poly = Poly::<Eval>::scratch(context.n(), context.qp_limbs(level));
        par_chunks(poly.data_mut(), context.n(), HEAVY, |i, limb| {
            packed::unpack_into(context.qp_modulus(level, i), self.limb(i), limb);
        });
        poly
    }

    fn bytes(&self) -> usize {
        self.limbs.iter().map(|range| range.len() * 8).sum()
    }
}

/// Where limb `i` of the order `q_0 … q_level, p_0 …` lies in an object stored at a higher level.
fn limb_index(stored: usize, level: usize, i: usize) -> usize {
    if i <= level { i } else { i + stored - level }
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
}

impl KeyRequest {
    /// Number of keys asked for.
    pub fn count(&self) -> usize {
        usize::from(self.relin_level.is_some()) + self.galois.len() + usize::from(self.sparse_weight.is_some())
    }

    /// Checks levels and Galois elements against a context.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] or [`CkksError::Math`] for an element that is even or not below 2N.
    pub fn check(&self, context: &Context) -> Result<()> {
        for &level in self.relin_level.iter().chain(self.galois.values()) {
            context.check_level("key request", level, 0)?;
        }
        for &element in self.galois.keys() {
            if element.is_multiple_of(2) || element >= 2 << context.log_n() {
                return Err(CkksError::Parameters(format!(
                    "Galois element {element} is not odd and below 2^{}",
                    context.log_n() + 1
                )));
            }
        }
        match self.sparse_weight {
            Some(weight) if weight == 0 || weight as usize > context.n() / 2 => {
                Err(CkksError::Parameters(format!("a sparse secret of weight {weight}")))
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
            KeyPurpose::Galois(element) => {
                let inverse = inverse_element(element, context.log_n());
                let automorphism = Automorphism::try_get(context.log_n(), inverse)?;
                let mut image = Zeroizing::new(Poly::scratch(context.n(), s.limbs()));
                par_chunks(image.data_mut(), context.n(), HEAVY, |i, limb| {
                    automorphism.apply_eval(s.limb(i), limb);
                });
                image
            }
        };
        let (message, under) = match purpose {
            KeyPurpose::Relinearise => (&*other, s),
            KeyPurpose::Galois(_) => (s, &*other),
        };
        Ok(SwitchingKey::generate(context, message, under, level, self.rng))
    }

    /// Makes the keys of encapsulation.
    pub fn encapsulation(&mut self, weight: u32) -> EncapsulationKeys {
        EncapsulationKeys::generate(self.secret, weight, self.rng)
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
            keys.set_encapsulation(weight, generator.encapsulation(weight));
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
