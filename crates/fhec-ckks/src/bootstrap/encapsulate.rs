//! Sparse-secret encapsulation: raising a ciphertext under a sparse secret that exists for nothing else.
//!
//! Bossuat, Troncoso-Pastoriza, Hubaux, *Bootstrapping for Approximate Homomorphic Encryption with Negligible
//! Failure-Probability by Using Sparse-Secret Encapsulation* (2022/024). Raised from `q_0` to `Q`, a ciphertext under `s` decrypts
//! to `m + q_0·I` where `I` grows with the number of coefficients of `s`. So it is switched to a sparse secret `s'` first, and
//! back afterwards:
//!
//! * **dense to sparse** at level 0: an encryption of `p_0·s` under `s'` modulo `q_0·p_0`, for `s` and for the secret of each [smaller
//!   ring](super::low_ring). Nothing else is ever encrypted under `s'`, and that modulus is what the security of `s'` rests on;
//! * **sparse to dense** at the top: encryptions of `p_0·s'` under `s`. The second part of a raised ciphertext is below `q_0`, so
//!   one digit of one limb holds it and a single special prime keeps the noise small. Such a key is a fraction of others of
//!   its level, and so is the time that it takes; therefore the babies of the first matrix are made on the way, with a key for
//!   each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fhec_math::bootstrap::{LowKeys, LowRing};
use fhec_math::{
    AlignedVec, Eval, Modulus, NttTable, Poly, Scale, SecretRng, lift_small, pointwise, uniform_from_seed,
};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::OP;
use super::low_ring::{LowRingKeys, embed};
use crate::cipher::Ciphertext;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::keys::{EvaluationKeys, LABEL_SINGLE, SecretKey, SwitchingKey, small_to_eval};
use crate::keyswitch::Decomposed;
use crate::limbs::{HEAVY, par_chunks};
use crate::linear::SmallCiphertext;
use crate::params::Context;

/// A key from a dense secret to the sparse one: `(−a·s' + e + p_0·s, a)` modulo `q_0, p_0`.
#[derive(Clone, Debug)]
pub(crate) struct ToSparse {
    seed: [u8; 32],
    parts: [Poly<Eval>; 2],
}

/// `q_0`, or the special prime.
fn prime(context: &Context, i: usize) -> (&Modulus, &Arc<NttTable>) {
    if i == 0 { (context.q(0), context.q_table(0)) } else { (&context.moduli_p()[0], context.p_table(0)) }
}

/// The uniform half of the key to the sparse secret.
fn expand(context: &Context, seed: &[u8; 32]) -> Poly<Eval> {
    let mut a = Poly::<Eval>::scratch(context.n(), 2);
    par_chunks(a.data_mut(), context.n(), HEAVY, |i, limb| {
        uniform_from_seed(seed, LABEL_SINGLE, prime(context, i).0, limb);
    });
    a
}

impl ToSparse {
    /// A key from the secret with these values modulo `q_0`.
    pub(super) fn generate(context: &Context, dense: &[u64], sparse: &[i8], rng: &mut SecretRng) -> Self {
        let n = context.n();
        let seed = rng.next_seed();
        let uniform = expand(context, &seed);
        let noise = rng.noise(n);
        let mut b = Poly::<Eval>::scratch(n, 2);
        par_chunks(b.data_mut(), n, HEAVY, |i, limb| {
            let (m, table) = prime(context, i);
            lift_small(m, &noise, limb);
            table.forward(limb);
            let mut under = Zeroizing::new(vec![0; n]);
            lift_small(m, sparse, &mut under);
            table.forward(&mut under);
            pointwise::mul_sub_assign(m, limb, uniform.limb(i), &under);
            if i == 0 {
                let special = m.reduce(context.moduli_p()[0].value());
                pointwise::mul_scalar_add_assign(m, limb, dense, special);
            }
        });
        Self { seed, parts: [b, uniform] }
    }

    /// The key without its uniform half, which belongs to a seed.
    pub(crate) fn from_parts(context: &Context, seed: [u8; 32], b: Poly<Eval>) -> Self {
        Self { seed, parts: [b, expand(context, &seed)] }
    }

    /// The parts that [`from_parts`](Self::from_parts) takes.
    pub(crate) fn parts(&self) -> (&[u8; 32], &Poly<Eval>) {
        (&self.seed, &self.parts[0])
    }

    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|poly| poly.data().len() * 8).sum()
    }

    /// Switches a ciphertext at level 0 to the sparse secret, given its values modulo `q_0`. The result are coefficients.
    fn switch(&self, context: &Context, [c0, digit]: [&[u64]; 2]) -> [Vec<u64>; 2] {
        let (n, q0) = (context.n(), context.q(0));
        let (p0, p_table) = prime(context, 1);
        let q_table = context.q_table(0);
        let special = q0.reduce(p0.value());
        let inverse = q0.inv(special).expect("distinct primes are invertible modulo each other");
        let mut coefficients = digit.to_vec();
        q_table.inverse(&mut coefficients);
        let mut lifted = vec![0; n];
        pointwise::switch_centered(q0, p0, &coefficients, &mut lifted);
        p_table.forward(&mut lifted);
        let mut parts = [vec![0; n], vec![0; n]];
        let jobs = parts.par_iter_mut().zip(self.parts.par_iter().zip([Some(c0), None]));
        jobs.for_each(|(out, (key, c))| {
            // The product with the digit modulo p_0 is what remains after the division by it.
            let mut remainder = vec![0; n];
            pointwise::mul_into(p0, &mut remainder, &lifted, key.limb(1));
            p_table.inverse(&mut remainder);
            let mut low = vec![0; n];
            pointwise::switch_centered(p0, q0, &remainder, &mut low);
            pointwise::mul_into(q0, out, digit, key.limb(0));
            if let Some(c) = c {
                pointwise::mul_scalar_add_assign(q0, out, c, special);
            }
            q_table.inverse(out);
            pointwise::sub_mul_scalar_assign(q0, out, &low, inverse);
        });
        parts
    }
}

/// All keys of sparse-secret encapsulation. They contain no secret.
#[derive(Clone, Debug)]
pub struct EncapsulationKeys {
    context: Arc<Context>,
    /// From the dense secret.
    down: ToSparse,
    /// With keys from the sparse secret to the dense one, over the [raising](Context::raising) context.
    up: Evaluator,
    /// By log2 of the degree: keys of the rings that slots-to-coefficients goes down to.
    low: BTreeMap<u32, LowRingKeys>,
}

impl EncapsulationKeys {
    /// Draws a sparse secret with `weight` coefficients ±1, makes the keys to it, those from it with the automorphisms of the
    /// Galois elements `raised`, and those of smaller rings by log2 of the degree, and forgets it.
    ///
    /// # Errors
    /// [`CkksError::Math`] for an impossible Galois element; [`CkksError::Parameters`], [`CkksError::LevelRange`] or [`CkksError::Insecure`] for a
    /// smaller ring that is impossible or not secure.
    pub fn generate(
        secret: &SecretKey,
        weight: u32,
        raised: &BTreeSet<u64>,
        low: &BTreeMap<u32, LowKeys>,
        rng: &mut SecretRng,
    ) -> Result<Self> {
        let sparse = rng.sparse_ternary(secret.context().n(), weight as usize);
        Self::with_sparse(secret, &sparse, raised, low, rng)
    }

    pub(super) fn with_sparse(
        secret: &SecretKey,
        sparse: &[i8],
        raised: &BTreeSet<u64>,
        low: &BTreeMap<u32, LowKeys>,
        rng: &mut SecretRng,
    ) -> Result<Self> {
        let context = Arc::clone(secret.context());
        let down = ToSparse::generate(&context, secret.q_limb(0), sparse, rng);
        let (raising, level) = (context.raising(), context.max_level());
        let message = Zeroizing::new(small_to_eval(raising, level, sparse));
        let keys = raised.iter().map(|&element| {
            let under = secret.image(element)?;
            Ok((element, SwitchingKey::generate(raising, &message, &under, level, rng)))
        });
        let keys = keys.collect::<Result<_>>()?;
        let ring = |(&log_n, keys): (&u32, &LowKeys)| {
            let ring = LowRing { log_n, level: keys.level };
            Ok((log_n, LowRingKeys::generate(secret, sparse, ring, &keys.galois, rng)?))
        };
        let low = low.iter().map(ring).collect::<Result<_>>()?;
        Ok(Self::from_parts(&context, down, keys, low))
    }

    /// The key to the sparse secret, the keys from it by Galois element, and those of smaller rings.
    pub(crate) fn from_parts(
        context: &Arc<Context>,
        down: ToSparse,
        up: BTreeMap<u64, SwitchingKey>,
        low: BTreeMap<u32, LowRingKeys>,
    ) -> Self {
        let mut keys = EvaluationKeys::empty(context.raising());
        keys.galois = up;
        let up = Evaluator::new(context.raising(), Arc::new(keys)).expect("keys of this context");
        Self { context: Arc::clone(context), down, up, low }
    }

    /// The parts that [`from_parts`](Self::from_parts) takes.
    pub(crate) fn parts(&self) -> (&ToSparse, &BTreeMap<u64, SwitchingKey>, &BTreeMap<u32, LowRingKeys>) {
        (&self.down, &self.up.keys().galois, &self.low)
    }

    /// Galois elements of the keys from the sparse secret.
    pub fn elements(&self) -> impl Iterator<Item = u64> {
        self.up.keys().galois.keys().copied()
    }

    /// Switches what was raised to the dense secret, with rotations.
    pub(super) fn up(&self) -> &Evaluator {
        &self.up
    }

    /// The uniform half of the key under the sparse secret.
    #[cfg(test)]
    pub(super) fn down_uniform(&self) -> &Poly<Eval> {
        &self.down.parts[1]
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The primes of the modulus under which the sparse secret was used: `q_0` and `p_0`, nothing else. Its security
    /// rests on that.
    pub fn sparse_moduli(&self) -> Vec<u64> {
        let keys = self.low.values().map(LowRingKeys::leave).chain([&self.down]);
        let limbs = keys.flat_map(|key| key.parts.each_ref().map(Poly::limbs)).max().unwrap_or(0);
        (0..limbs).map(|i| prime(&self.context, i).0.value()).collect()
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.down.bytes() + self.up.keys().bytes() + self.low.values().map(LowRingKeys::bytes).sum::<usize>()
    }

    /// The keys of a smaller ring.
    ///
    /// # Errors
    /// [`CkksError::NoRingKeys`], [`CkksError::KeyLevel`].
    pub(super) fn low(&self, LowRing { log_n, level }: LowRing) -> Result<&LowRingKeys> {
        let keys = self.low.get(&log_n).ok_or(CkksError::NoRingKeys { op: OP, log_n })?;
        if keys.level() < level {
            return Err(CkksError::KeyLevel { op: OP, have: keys.level(), need: level });
        }
        Ok(keys)
    }

    /// The smaller rings with their Galois elements, by log2 of the degree.
    pub fn low_request(&self) -> BTreeMap<u32, LowKeys> {
        let keys = |keys: &LowRingKeys| LowKeys { level: keys.level(), galois: keys.elements().collect() };
        self.low.iter().map(|(&log_n, low)| (log_n, keys(low))).collect()
    }

    /// Switches a ciphertext at level 0, of the whole ring or of a smaller one, to the sparse secret. The result are coefficients modulo
    /// `q_0` in the whole ring.
    pub(super) fn down(&self, input: &Ciphertext) -> Result<[Vec<u64>; 2]> {
        let context = &*self.context;
        let parts = [input.c0().limb(0), input.c1().limb(0)];
        if input.c0().n() == context.n() {
            return Ok(self.down.switch(context, parts));
        }
        let key = self.low(LowRing { log_n: input.c0().n().ilog2(), level: 0 })?.leave();
        let [c0, c1] = parts.map(|values| embed(values, context.n()));
        Ok(key.switch(context, [&c0, &c1]))
    }

    /// Raises coefficients modulo `q_0` under the sparse secret, centred, to a level of a [raising](Context::raising) context.
    ///
    /// The scale is that at which a multiple of `q_0` is an integer: `q_0`.
    pub(super) fn raise(&self, raising: &Context, level: usize, [c0, c1]: &[Vec<u64>; 2]) -> SmallCiphertext {
        let (n, q0) = (self.context.n(), self.context.q(0));
        let lift = |i: usize, x: &[u64], out: &mut [u64]| {
            let m = raising.qp_modulus(level, i);
            if i == 0 {
                out.copy_from_slice(x)
            } else {
                pointwise::switch_centered(q0, m, x, out)
            }
            raising.qp_table(level, i).forward(out);
        };
        let mut first = Poly::<Eval>::scratch(n, level + 1);
        par_chunks(first.data_mut(), n, HEAVY, |i, limb| lift(i, c0, limb));
        let mut second = AlignedVec::scratch(n * raising.qp_limbs(level));
        par_chunks(&mut second, n, HEAVY, |i, limb| lift(i, c1, limb));
        let c1 = Decomposed::single(raising, second, level);
        SmallCiphertext { c0: first, c1, scale: Scale::prime(q0.value()) }
    }
}
