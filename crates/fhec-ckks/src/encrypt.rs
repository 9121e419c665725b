//! Encryption and decryption.

use std::sync::Arc;

use fhec_math::{Eval, Poly, SecretRng, lift_small, pointwise};
use zeroize::Zeroizing;

use crate::cipher::{Ciphertext, SeededCiphertext};
use crate::error::Result;
use crate::keys::{PublicKey, SecretKey, zero_encryption};
use crate::limbs::{HEAVY, par_chunks, par_chunks2};
use crate::params::Context;
use crate::plaintext::Plaintext;

/// Encrypts and decrypts for one context.
#[derive(Clone, Debug)]
pub struct Encryptor {
    context: Arc<Context>,
}

impl Encryptor {
    /// An encryptor for `context`.
    pub fn new(context: &Arc<Context>) -> Self {
        Self { context: Arc::clone(context) }
    }

    /// Encrypts under the secret key; error `σ√N` in the slots. The uniform half is a fresh seed.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn encrypt_sk(&self, key: &SecretKey, plaintext: &Plaintext, rng: &mut SecretRng) -> Result<SeededCiphertext> {
        self.context.check_id("encrypt", key.context().id())?;
        self.context.check_id("encrypt", plaintext.id)?;
        let seed = rng.next_seed();
        let level = plaintext.level;
        let (mut c0, _) = zero_encryption(key, level, &seed, rng);
        self.add_message(&mut c0, plaintext);
        Ok(SeededCiphertext { c0, seed, level, scale: plaintext.scale.clone(), id: plaintext.id })
    }

    /// Encrypts under the public key; error `σ√(N(4N/3 + 1))` in the slots.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn encrypt_pk(&self, key: &PublicKey, plaintext: &Plaintext, rng: &mut SecretRng) -> Result<Ciphertext> {
        self.context.check_id("encrypt", key.context.id())?;
        self.context.check_id("encrypt", plaintext.id)?;
        let (n, level) = (self.context.n(), plaintext.level);
        let v = rng.ternary(n);
        let (e0, e1) = (rng.noise(n), rng.noise(n));
        let mut c0 = Poly::<Eval>::scratch(n, level + 1);
        let mut c1 = Poly::<Eval>::scratch(n, level + 1);
        par_chunks2(c0.data_mut(), c1.data_mut(), n, HEAVY, |i, c0, c1| {
            let (m, table) = (self.context.q(i), self.context.q_table(i));
            let mut mask = Zeroizing::new(vec![0; n]);
            lift_small(m, &v, &mut mask);
            table.forward(&mut mask);
            for (c, noise, key) in [(c0, &e0, key.b.limb(i)), (c1, &e1, key.a.limb(i))] {
                lift_small(m, noise, c);
                table.forward(c);
                pointwise::mul_add_assign(m, c, &mask, key);
            }
        });
        self.add_message(&mut c0, plaintext);
        Ok(Ciphertext { c0, c1, level, scale: plaintext.scale.clone(), id: plaintext.id })
    }

    fn add_message(&self, c0: &mut Poly<Eval>, plaintext: &Plaintext) {
        par_chunks(c0.data_mut(), self.context.n(), HEAVY, |i, limb| {
            pointwise::add_assign(self.context.q(i), limb, plaintext.poly.limb(i));
        });
    }

    /// Decrypts. The result contains the noise and with it information about the key: it must stay with
    /// the key holder (2020/1533). It is wiped when dropped.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn decrypt(&self, key: &SecretKey, ciphertext: &Ciphertext) -> Result<Plaintext> {
        self.context.check_id("decrypt", key.context().id())?;
        self.context.check_id("decrypt", ciphertext.id)?;
        let mut poly = Zeroizing::new(ciphertext.c0.clone());
        par_chunks(poly.data_mut(), self.context.n(), HEAVY, |i, limb| {
            let m = self.context.q(i);
            pointwise::mul_add_assign(m, limb, ciphertext.c1.limb(i), key.q_limb(i));
        });
        Ok(Plaintext { poly, level: ciphertext.level, scale: ciphertext.scale.clone(), id: ciphertext.id })
    }
}
