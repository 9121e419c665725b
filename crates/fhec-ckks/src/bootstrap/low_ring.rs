//! Slots-to-coefficients in a smaller ring, for vectors that repeat.
//!
//! Gentry, Halevi, Peikert, Smart, *Ring Switching in BGV-Style Homomorphic Encryption* (2012/240), for CKKS. With `g = N/N'` the
//! ring of degree `N'` is the subring of the polynomials in `X^g`, and vectors of `N'/2` slots that repeat lie in it:
//!
//! * **in**: a key switch from `s` to `t(X^g)`, where `t` is a dense ternary secret of degree `N'`. As the secret lies in the
//!   subring, the parts of `(c_0, c_1)` in the subring decrypt to the part of the message in it, which is all of the message; what is
//!   left out is noise. In evaluation form that part is the mean of `g` neighbours;
//! * **there**: matrices with keys under `t`, of degree `N'`;
//! * **out**: at level 0 coefficients of degree `N'` are coefficients at multiples of `g`, and a key from `t(X^g)` leads to the
//!   sparse secret at once.
//!
//! A key under `t(X^g)` is as good as `g` keys of degree `N'`: it hides what it hides if the table grants the ring of degree `N'` the
//! modulus of the key, which therefore has few primes.

use std::collections::BTreeSet;
use std::sync::Arc;

use fhec_math::bootstrap::LowRing;
use fhec_math::{Eval, Poly, SecretRng, pointwise};
use zeroize::Zeroizing;

use super::encapsulate::ToSparse;
use crate::cipher::Ciphertext;
use crate::error::Result;
use crate::evaluator::Evaluator;
use crate::keys::{EvaluationKeys, KeyGenerator, KeyPurpose, SecretKey, SwitchingKey, small_to_eval};
use crate::keyswitch::{Digits, Switch, switch};
use crate::limbs::{LIGHT, par_chunks};
use crate::params::Context;

/// All keys of one smaller ring.
#[derive(Clone, Debug)]
pub(crate) struct LowRingKeys {
    /// The chain of the ring in the whole ring.
    entry: Arc<Context>,
    enter: SwitchingKey,
    /// With the keys under the secret of the ring.
    inside: Evaluator,
    leave: ToSparse,
}

impl LowRingKeys {
    /// Draws the secret of a ring, makes the keys to it, under it for some Galois elements, and from it, and forgets it.
    pub(super) fn generate(
        secret: &SecretKey,
        sparse: &[i8],
        ring: LowRing,
        galois: &BTreeSet<u64>,
        rng: &mut SecretRng,
    ) -> Result<Self> {
        let context = secret.context();
        let [entry, inner] = context.low_ring(ring)?;
        let low = SecretKey::generate(&inner, rng);
        let gap = context.n() / inner.n();
        let mut spread = Zeroizing::new(vec![0i8; context.n()]);
        spread.iter_mut().step_by(gap).zip(low.coefficients()).for_each(|(out, &c)| *out = c);
        let under = Zeroizing::new(small_to_eval(&entry, ring.level, &spread));
        let message = Zeroizing::new(small_to_eval(&entry, ring.level, secret.coefficients()));
        let enter = SwitchingKey::generate(&entry, &message, &under, ring.level, rng);
        let mut inside = EvaluationKeys::empty(&inner);
        for &element in galois {
            let key = KeyGenerator::new(&low, rng).make(KeyPurpose::Galois(element), ring.level)?;
            inside.galois.insert(element, key);
        }
        let leave = ToSparse::generate(context, under.limb(0), sparse, rng);
        Self::from_parts(entry, enter, inside, leave)
    }

    /// The keys that lead in, serve inside and lead out, over the contexts of [`Context::low_ring`] and the whole one.
    pub(crate) fn from_parts(
        entry: Arc<Context>,
        enter: SwitchingKey,
        inside: EvaluationKeys,
        leave: ToSparse,
    ) -> Result<Self> {
        let inside = Evaluator::new(&Arc::clone(inside.context()), Arc::new(inside))?;
        Ok(Self { entry, enter, inside, leave })
    }

    /// What [`from_parts`](Self::from_parts) takes.
    pub(crate) fn parts(&self) -> (&Arc<Context>, &SwitchingKey, &EvaluationKeys, &ToSparse) {
        (&self.entry, &self.enter, self.inside.keys(), &self.leave)
    }

    /// Highest level of the ring.
    pub(crate) fn level(&self) -> usize {
        self.entry.max_level()
    }

    /// Galois elements of the keys under the secret of the ring.
    pub(crate) fn elements(&self) -> impl Iterator<Item = u64> {
        self.inside.keys().galois.keys().copied()
    }

    /// Evaluates in the ring; key switches are counted by another evaluator.
    pub(super) fn inside(&self, counting: &Evaluator) -> Evaluator {
        self.inside.counted_by(counting)
    }

    /// The key that leads out.
    pub(super) fn leave(&self) -> &ToSparse {
        &self.leave
    }

    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> usize {
        self.enter.bytes() + self.inside.keys().bytes() + self.leave.bytes()
    }

    /// Takes a ciphertext of the whole ring, at a level of the smaller one, there.
    pub(super) fn enter(&self, input: &Ciphertext) -> Result<Ciphertext> {
        let (entry, inner, level) = (&*self.entry, self.inside.context(), input.level());
        let digits = Digits::new(entry, input.c1(), level);
        let add = Switch { add: [Some(input.c0()), None], ..Switch::default() };
        let switched = switch(entry, digits, level, &[(&self.enter, add)], false)?;
        let [c0, c1] = switched.into_iter().next().expect("one key gives one ciphertext");
        let [c0, c1] = [c0, c1].map(|part| project(entry, inner, &part));
        Ok(Ciphertext::from_parts(inner, c0, c1, level, input.scale().clone()))
    }
}

/// The part of a polynomial over `q_0 …` that lies in a subring: its values are the means of neighbours.
fn project(whole: &Context, inner: &Context, poly: &Poly<Eval>) -> Poly<Eval> {
    let gap = whole.n() / inner.n();
    let mut out = Poly::<Eval>::scratch(inner.n(), poly.limbs());
    par_chunks(out.data_mut(), inner.n(), LIGHT, |i, limb| {
        let m = whole.q(i);
        for (out, neighbours) in limb.iter_mut().zip(poly.limb(i).chunks_exact(gap)) {
            // Fewer than 2^14 of less than 2^50.
            *out = m.reduce(neighbours.iter().sum());
        }
        let mean = m.inv(m.reduce(gap as u64)).expect("a power of two is invertible modulo odd primes");
        pointwise::mul_scalar_assign(m, limb, mean);
    });
    out
}

/// Values of a polynomial of the subring in a ring of degree `n`.
pub(super) fn embed(values: &[u64], n: usize) -> Vec<u64> {
    let gap = n / values.len();
    values.iter().flat_map(|&value| std::iter::repeat_n(value, gap)).collect()
}

#[cfg(test)]
mod tests {
    use fhec_math::ntt_primes_near;

    use super::*;
    use crate::params::{InsecureToken, ParameterSpec, Security};

    /// Against coefficients, extreme ones among them.
    #[test]
    fn projections_keep_the_coefficients_of_the_subring() {
        let primes: Vec<u64> = ntt_primes_near(49, 10).take(5).collect();
        let spec = ParameterSpec { log_n: 10, q: primes[..3].to_vec(), p: primes[3..].to_vec(), digits: vec![1, 1, 1] };
        let whole = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).unwrap();
        for log_n in [4, 7, 9] {
            let [entry, inner] = whole.low_ring(LowRing { log_n, level: 1 }).unwrap();
            let gap = entry.n() / inner.n();
            let mut poly = Poly::<Eval>::scratch(entry.n(), 2);
            let mut expected = Poly::<Eval>::scratch(inner.n(), 2);
            for i in 0..2 {
                let last = entry.q(i).value() - 1;
                let limb = poly.limb_mut(i);
                limb.iter_mut().zip(0u64..).for_each(|(x, k)| *x = if k % 3 == 0 { last } else { last - k * k });
                let kept: Vec<u64> = limb.iter().copied().step_by(gap).collect();
                expected.limb_mut(i).copy_from_slice(&kept);
                entry.q_table(i).forward(limb);
                inner.q_table(i).forward(expected.limb_mut(i));
            }
            let projected = project(&entry, &inner, &poly);
            assert!(projected == expected, "2^{log_n}");
            // And back.
            let mut embedded = embed(projected.limb(0), entry.n());
            entry.q_table(0).inverse(&mut embedded);
            let mut coefficients = expected.limb(0).to_vec();
            inner.q_table(0).inverse(&mut coefficients);
            assert!(
                embedded.iter().enumerate().all(|(k, &c)| c == if k % gap == 0 { coefficients[k / gap] } else { 0 })
            );
        }
        assert!(whole.low_ring(LowRing { log_n: 10, level: 1 }).is_err());
        assert!(whole.low_ring(LowRing { log_n: 9, level: 3 }).is_err());
    }
}
