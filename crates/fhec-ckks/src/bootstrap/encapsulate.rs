//! Sparse-secret encapsulation: raising a ciphertext under a sparse secret that exists for nothing else.
//!
//! Bossuat, Troncoso-Pastoriza, Hubaux, *Bootstrapping for Approximate Homomorphic Encryption with Negligible
//! Failure-Probability by Using Sparse-Secret Encapsulation* (2022/024). Raised from `q_0` to `Q`, a ciphertext under `s` decrypts
//! to `m + q_0·I` where `I` grows with the number of coefficients of `s`. So it is switched to a sparse secret `s'` first, and
//! back afterwards:
//!
//! * **dense to sparse** at level 0: an encryption of `p_0·s` under `s'` modulo `q_0·p_0`. This is the only thing that is
//!   ever encrypted under `s'`, and its modulus is what the security of `s'` rests on;
//! * **sparse to dense** at the top: an encryption of `p_0·s'` under `s`. The second part of a raised ciphertext is below `q_0`, so
//!   one digit of one limb holds it and a single special prime keeps the noise small.

use std::sync::Arc;

use fhec_math::{Eval, Modulus, NttTable, Poly, SecretRng, lift_small, pointwise, uniform_from_seed};
use zeroize::Zeroizing;

use crate::cipher::Ciphertext;
use crate::keys::SecretKey;
use crate::limbs::{HEAVY, par_chunks, par_chunks2};
use crate::params::{Context, Selection};

/// Labels of the streams that the seed gives.
const LABEL_DOWN: u64 = 0;
const LABEL_UP: u64 = 1;

/// Both keys of sparse-secret encapsulation. They contain no secret.
#[derive(Clone, Debug)]
pub struct EncapsulationKeys {
    context: Arc<Context>,
    seed: [u8; 32],
    /// `(−a·s' + e + p_0·s, a)` modulo `q_0, p_0`.
    down: [Poly<Eval>; 2],
    /// `(−a·s + e + p_0·s', a)` modulo `q_0 … q_L, p_0`.
    up: [Poly<Eval>; 2],
}

/// A limb of the first `chain` primes, or the special prime after them.
fn prime(context: &Context, chain: usize, i: usize) -> (&Modulus, &Arc<NttTable>) {
    if i < chain { (context.q(i), context.q_table(i)) } else { (&context.moduli_p()[0], context.p_table(0)) }
}

/// The uniform half.
fn expand(context: &Context, chain: usize, seed: &[u8; 32], label: u64) -> Poly<Eval> {
    let mut a = Poly::<Eval>::scratch(context.n(), chain + 1);
    par_chunks(a.data_mut(), context.n(), HEAVY, |i, limb| {
        uniform_from_seed(seed, label, prime(context, chain, i).0, limb);
    });
    a
}

/// The other half: `−a·under + e + p_0·message`, where `under` and `message` give a limb in evaluation form.
fn encrypt(
    context: &Context,
    chain: usize,
    a: &Poly<Eval>,
    rng: &mut SecretRng,
    under: impl Fn(usize) -> Zeroizing<Vec<u64>> + Sync,
    message: impl Fn(usize) -> Zeroizing<Vec<u64>> + Sync,
) -> Poly<Eval> {
    let noise = rng.noise(context.n());
    let special = context.moduli_p()[0].value();
    let mut b = Poly::<Eval>::scratch(context.n(), chain + 1);
    par_chunks(b.data_mut(), context.n(), HEAVY, |i, limb| {
        let (m, table) = prime(context, chain, i);
        lift_small(m, &noise, limb);
        table.forward(limb);
        pointwise::mul_sub_assign(m, limb, a.limb(i), &under(i));
        if i < chain {
            pointwise::mul_scalar_add_assign(m, limb, &message(i), m.reduce(special));
        }
    });
    b
}

impl EncapsulationKeys {
    /// Draws a sparse secret with `weight` coefficients ±1, makes both keys and forgets it.
    pub fn generate(secret: &SecretKey, weight: u32, rng: &mut SecretRng) -> Self {
        let context = Arc::clone(secret.context());
        let sparse = rng.sparse_ternary(context.n(), weight as usize);
        Self::with_sparse(secret, &sparse, rng)
    }

    pub(super) fn with_sparse(secret: &SecretKey, sparse: &[i8], rng: &mut SecretRng) -> Self {
        let context = Arc::clone(secret.context());
        let all = context.max_level() + 1;
        let seed = rng.next_seed();
        // The special prime's limb follows those of the whole chain.
        let dense_limb = |chain: usize| {
            let eval = secret.eval();
            move |i: usize| Zeroizing::new(eval.limb(if i < chain { i } else { all }).to_vec())
        };
        let sparse_limb = |chain: usize| {
            let context = &context;
            move |i: usize| {
                let (m, table) = prime(context, chain, i);
                let mut limb = Zeroizing::new(vec![0; context.n()]);
                lift_small(m, sparse, &mut limb);
                table.forward(&mut limb);
                limb
            }
        };
        let down_a = expand(&context, 1, &seed, LABEL_DOWN);
        let down_b = encrypt(&context, 1, &down_a, rng, sparse_limb(1), dense_limb(1));
        let up_a = expand(&context, all, &seed, LABEL_UP);
        let up_b = encrypt(&context, all, &up_a, rng, dense_limb(all), sparse_limb(all));
        Self { context: Arc::clone(&context), seed, down: [down_b, down_a], up: [up_b, up_a] }
    }

    /// The keys whose uniform halves belong to a seed.
    pub(crate) fn from_parts(context: &Arc<Context>, seed: [u8; 32], [down, up]: [Poly<Eval>; 2]) -> Self {
        let down_a = expand(context, 1, &seed, LABEL_DOWN);
        let up_a = expand(context, context.max_level() + 1, &seed, LABEL_UP);
        Self { context: Arc::clone(context), seed, down: [down, down_a], up: [up, up_a] }
    }

    /// The seed of the uniform halves, and the other halves: over `q_0, p_0` and over `q_0 … q_L, p_0`.
    pub(crate) fn parts(&self) -> (&[u8; 32], [&Poly<Eval>; 2]) {
        (&self.seed, [&self.down[0], &self.up[0]])
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
        (0..self.down[0].limbs()).map(|i| prime(&self.context, 1, i).0.value()).collect()
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        self.down.iter().chain(&self.up).map(|poly| poly.data().len() * 8).sum()
    }

    /// Switches a ciphertext at level 0 to the sparse secret. The result are coefficients modulo `q_0`.
    pub(super) fn down(&self, input: &Ciphertext) -> [Vec<u64>; 2] {
        let (n, q0) = (self.context.n(), self.context.q(0));
        let (p0, p_table) = prime(&self.context, 1, 1);
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
        for (out, (key, c)) in parts.iter_mut().zip(self.down.iter().zip([Some(input.c0()), None])) {
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
        }
        parts
    }

    /// Raises coefficients modulo `q_0` under the sparse secret, centred, to a level of a part of the chain, switches back to
    /// the dense secret, and multiplies with the inverse of `divisor` modulo every prime.
    ///
    /// The scale is that at which a multiple of `q_0` is an integer: `q_0`.
    pub(super) fn up(
        &self,
        part: &Part<'_>,
        level: usize,
        [c0, c1]: &[Vec<u64>; 2],
        divisor: u64,
    ) -> (Poly<Eval>, Poly<Eval>) {
        let (context, n) = (part.context(), self.context.n());
        let q0 = self.context.q(0);
        let (p0, p_table) = (&self.context.moduli_p()[0], self.context.p_table(0));
        let last = self.context.max_level() + 1;
        let mut digit = vec![0; n];
        pointwise::switch_centered(q0, p0, c1, &mut digit);
        p_table.forward(&mut digit);
        let remainders = self.up.each_ref().map(|key| {
            let mut remainder = vec![0; n];
            pointwise::mul_into(p0, &mut remainder, &digit, key.limb(last));
            p_table.inverse(&mut remainder);
            remainder
        });
        let mut out0 = Poly::<Eval>::scratch(n, level + 1);
        let mut out1 = Poly::<Eval>::scratch(n, level + 1);
        par_chunks2(out0.data_mut(), out1.data_mut(), n, HEAVY, |i, out0, out1| {
            let (m, table) = (context.q(i), context.q_table(i));
            let special = m.reduce(p0.value());
            let factor = m.mul(special, m.reduce(divisor));
            let inverse = m.inv(factor).expect("a prime and a power of two are invertible modulo other odd primes");
            let lift = |x: &[u64], out: &mut [u64]| {
                if i == 0 { out.copy_from_slice(x) } else { pointwise::switch_centered(q0, m, x, out) }
            };
            let (mut digit, mut low) = (vec![0; n], vec![0; n]);
            lift(c1, &mut digit);
            table.forward(&mut digit);
            let from = part.limb(i);
            // First part: p_0·c_0 − remainder in coefficient form, then the product.
            lift(c0, out0);
            pointwise::mul_scalar_assign(m, out0, special);
            pointwise::switch_centered(p0, m, &remainders[0], &mut low);
            pointwise::sub_assign(m, out0, &low);
            table.forward(out0);
            pointwise::mul_add_assign(m, out0, &digit, self.up[0].limb(from));
            pointwise::mul_scalar_assign(m, out0, inverse);
            // Second part: only the remainder.
            pointwise::switch_centered(p0, m, &remainders[1], &mut low);
            table.forward(&mut low);
            pointwise::mul_into(m, out1, &digit, self.up[1].limb(from));
            pointwise::sub_mul_scalar_assign(m, out1, &low, inverse);
        });
        (out0, out1)
    }
}

/// The chain that a bootstrap runs on: all of it or a part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// All of it.
    Whole(&'a Arc<Context>),
    /// A part.
    Selected(&'a Selection),
}

impl<'a> Part<'a> {
    pub(super) fn context(&self) -> &'a Arc<Context> {
        match self {
            Self::Whole(context) => context,
            Self::Selected(selection) => selection.context(),
        }
    }

    /// Limb of the whole chain.
    fn limb(&self, i: usize) -> usize {
        match self {
            Self::Whole(_) => i,
            Self::Selected(selection) => selection.limbs()[i],
        }
    }

    /// Level that corresponds to one of the whole chain.
    pub(super) fn level(&self, whole: usize) -> usize {
        match self {
            Self::Whole(_) => whole,
            Self::Selected(selection) => selection.level(whole),
        }
    }
}
