//! Sparse-secret encapsulation: raising a ciphertext under a sparse secret that exists for nothing else.
//!
//! Bossuat, Troncoso-Pastoriza, Hubaux, *Bootstrapping for Approximate Homomorphic Encryption with Negligible
//! Failure-Probability by Using Sparse-Secret Encapsulation* (2022/024). Raised from `q_0` to `Q`, a ciphertext under `s` decrypts
//! to `m + q_0·I` where `I` grows with the number of coefficients of `s`. So it is switched to a sparse secret `s'` first, and
//! back afterwards:
//!
//! * **dense to sparse** at level 0: an encryption of `p_0·s` under `s'` modulo `q_0·p_0`. This is the only thing that is
//!   ever encrypted under `s'`, and its modulus is what the security of `s'` rests on;
//! * **sparse to dense** at the top: encryptions of `p_0·s'` under `s`. The second part of a raised ciphertext is below `q_0`, so
//!   one digit of one limb holds it and a single special prime keeps the noise small. Such a key is a fraction of others of
//!   its level, and so is the time that it takes; therefore the babies of the first matrix are made on the way, with a key for
//!   each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fhec_math::{
    AlignedVec, Eval, Modulus, NttTable, Poly, Scale, SecretRng, lift_small, pointwise, uniform_from_seed,
};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keys::{EvaluationKeys, LABEL_SINGLE, SecretKey, SwitchingKey, small_to_eval};
use crate::keyswitch::Decomposed;
use crate::limbs::{HEAVY, par_chunks};
use crate::linear::SmallCiphertext;
use crate::params::Context;

/// All keys of sparse-secret encapsulation. They contain no secret.
#[derive(Clone, Debug)]
pub struct EncapsulationKeys {
    context: Arc<Context>,
    seed: [u8; 32],
    /// `(−a·s' + e + p_0·s, a)` modulo `q_0, p_0`.
    down: [Poly<Eval>; 2],
    /// With keys from `s'` to `s`, over the [raising](Context::raising) context.
    up: Evaluator,
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

impl EncapsulationKeys {
    /// Draws a sparse secret with `weight` coefficients ±1, makes the key to it and those from it, with the automorphisms of the
    /// Galois elements `raised`, and forgets it.
    ///
    /// # Errors
    /// [`CkksError::Math`](crate::CkksError::Math) for an impossible Galois element.
    pub fn generate(secret: &SecretKey, weight: u32, raised: &BTreeSet<u64>, rng: &mut SecretRng) -> Result<Self> {
        let context = Arc::clone(secret.context());
        let sparse = rng.sparse_ternary(context.n(), weight as usize);
        Self::with_sparse(secret, &sparse, raised, rng)
    }

    pub(super) fn with_sparse(
        secret: &SecretKey,
        sparse: &[i8],
        raised: &BTreeSet<u64>,
        rng: &mut SecretRng,
    ) -> Result<Self> {
        let context = Arc::clone(secret.context());
        let n = context.n();
        let seed = rng.next_seed();
        let uniform = expand(&context, &seed);
        let noise = rng.noise(n);
        let mut down = Poly::<Eval>::scratch(n, 2);
        par_chunks(down.data_mut(), n, HEAVY, |i, limb| {
            let (m, table) = prime(&context, i);
            lift_small(m, &noise, limb);
            table.forward(limb);
            let mut under = Zeroizing::new(vec![0; n]);
            lift_small(m, sparse, &mut under);
            table.forward(&mut under);
            pointwise::mul_sub_assign(m, limb, uniform.limb(i), &under);
            if i == 0 {
                let special = m.reduce(context.moduli_p()[0].value());
                pointwise::mul_scalar_add_assign(m, limb, secret.q_limb(0), special);
            }
        });
        let (raising, level) = (context.raising(), context.max_level());
        let message = Zeroizing::new(small_to_eval(raising, level, sparse));
        let keys = raised.iter().map(|&element| {
            let under = secret.image(element)?;
            Ok((element, SwitchingKey::generate(raising, &message, &under, level, rng)))
        });
        let keys = keys.collect::<Result<_>>()?;
        Ok(Self::from_parts(&context, seed, down, keys))
    }

    /// The key under the sparse secret without its uniform half, which belongs to a seed, and the keys from it by Galois element.
    pub(crate) fn from_parts(
        context: &Arc<Context>,
        seed: [u8; 32],
        down: Poly<Eval>,
        up: BTreeMap<u64, SwitchingKey>,
    ) -> Self {
        let mut keys = EvaluationKeys::empty(context.raising());
        keys.galois = up;
        let up = Evaluator::new(context.raising(), Arc::new(keys)).expect("keys of this context");
        Self { context: Arc::clone(context), seed, down: [down, expand(context, &seed)], up }
    }

    /// The parts that [`from_parts`](Self::from_parts) takes.
    pub(crate) fn parts(&self) -> (&[u8; 32], &Poly<Eval>, &BTreeMap<u64, SwitchingKey>) {
        (&self.seed, &self.down[0], &self.up.keys().galois)
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
        &self.down[1]
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The primes of the modulus under which the sparse secret was used: `q_0` and `p_0`, nothing else. Its security
    /// rests on that.
    pub fn sparse_moduli(&self) -> Vec<u64> {
        (0..self.down[0].limbs()).map(|i| prime(&self.context, i).0.value()).collect()
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.down.iter().map(|poly| poly.data().len() * 8).sum::<usize>() + self.up.keys().bytes()
    }

    /// Switches a ciphertext at level 0 to the sparse secret. The result are coefficients modulo `q_0`.
    pub(super) fn down(&self, input: &Ciphertext) -> [Vec<u64>; 2] {
        let (n, q0) = (self.context.n(), self.context.q(0));
        let (p0, p_table) = prime(&self.context, 1);
        let q_table = self.context.q_table(0);
        let special = q0.reduce(p0.value());
        let inverse = q0.inv(special).expect("distinct primes are invertible modulo each other");
        let digit = input.c1().limb(0);
        let mut coefficients = digit.to_vec();
        q_table.inverse(&mut coefficients);
        let mut lifted = vec![0; n];
        pointwise::switch_centered(q0, p0, &coefficients, &mut lifted);
        p_table.forward(&mut lifted);
        let mut parts = [vec![0; n], vec![0; n]];
        let jobs = parts.par_iter_mut().zip(self.down.par_iter().zip([Some(input.c0()), None]));
        jobs.for_each(|(out, (key, c))| {
            // The product with the digit modulo p_0 is what remains after the division by it.
            let mut remainder = vec![0; n];
            pointwise::mul_into(p0, &mut remainder, &lifted, key.limb(1));
            p_table.inverse(&mut remainder);
            let mut low = vec![0; n];
            pointwise::switch_centered(p0, q0, &remainder, &mut low);
            pointwise::mul_into(q0, out, digit, key.limb(0));
            if let Some(c) = c {
                pointwise::mul_scalar_add_assign(q0, out, c.limb(0), special);
            }
            q_table.inverse(out);
            pointwise::sub_mul_scalar_assign(q0, out, &low, inverse);
        });
        parts
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
