//! Ciphertexts: plain data with level and exact scale.

use fhec_math::{Eval, Poly, Scale};

use crate::error::Result;
use crate::keys::expand_uniform;
use crate::params::Context;

/// `(c0, c1)` with `c0 + c1·s ≈ scale · message` modulo `q_0 · … · q_level`, in evaluation form.
#[derive(Clone, Debug)]
pub struct Ciphertext {
    pub(crate) c0: Poly<Eval>,
    pub(crate) c1: Poly<Eval>,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) id: u64,
}

/// `(c0, c1, c2)` with `c0 + c1·s + c2·s² ≈ scale · message`: a product before relinearisation.
#[derive(Clone, Debug)]
pub struct Product {
    pub(crate) c0: Poly<Eval>,
    pub(crate) c1: Poly<Eval>,
    pub(crate) c2: Poly<Eval>,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) id: u64,
}

/// A fresh secret-key ciphertext whose second half is a seed: half the size on the wire.
#[derive(Clone, Debug)]
pub struct SeededCiphertext {
    pub(crate) c0: Poly<Eval>,
    pub(crate) seed: [u8; 32],
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) id: u64,
}

macro_rules! accessors {
    ($type:ty) => {
        impl $type {
            /// Level: index of the last limb.
            pub fn level(&self) -> usize {
                self.level
            }

            /// Scale.
            pub fn scale(&self) -> &Scale {
                &self.scale
            }

            /// Id of the parameters that this belongs to ([`Context::id`]).
            pub fn context_id(&self) -> u64 {
                self.id
            }
        }
    };
}

accessors!(Ciphertext);
accessors!(Product);
accessors!(SeededCiphertext);

impl Ciphertext {
    /// A ciphertext of two polynomials with `level + 1` limbs each.
    ///
    /// # Panics
    /// Where the limbs do not fit.
    pub fn from_parts(context: &Context, c0: Poly<Eval>, c1: Poly<Eval>, level: usize, scale: Scale) -> Self {
        for c in [&c0, &c1] {
            assert_eq!((c.n(), c.limbs()), (context.n(), level + 1), "limbs do not fit the level");
        }
        Self { c0, c1, level, scale, id: context.id() }
    }

    /// The part that is not multiplied by the secret.
    pub fn c0(&self) -> &Poly<Eval> {
        &self.c0
    }

    /// The part that is multiplied by the secret.
    pub fn c1(&self) -> &Poly<Eval> {
        &self.c1
    }

    /// Both parts, taken out.
    pub fn into_parts(self) -> (Poly<Eval>, Poly<Eval>) {
        (self.c0, self.c1)
    }

    /// The same ciphertext read at another scale, which multiplies the message by the quotient of old
    /// and new scale. Exact and free.
    pub fn with_scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Bytes held in memory.
    pub fn bytes(&self) -> usize {
        (self.c0.data().len() + self.c1.data().len()) * 8
    }
}

impl Product {
    /// A product of three polynomials with `level + 1` limbs each.
    ///
    /// # Panics
    /// Where the limbs do not fit.
    pub fn from_parts(context: &Context, parts: [Poly<Eval>; 3], level: usize, scale: Scale) -> Self {
        for c in &parts {
            assert_eq!((c.n(), c.limbs()), (context.n(), level + 1), "limbs do not fit the level");
        }
        let [c0, c1, c2] = parts;
        Self { c0, c1, c2, level, scale, id: context.id() }
    }

    /// The three parts.
    pub fn parts(&self) -> [&Poly<Eval>; 3] {
        [&self.c0, &self.c1, &self.c2]
    }

    /// The same product read at another scale; see [`Ciphertext::with_scale`].
    pub fn with_scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }
}

impl SeededCiphertext {
    /// Expands the seed.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn expand(&self, context: &Context) -> Result<Ciphertext> {
        context.check_id("expand", self.id)?;
        Ok(Ciphertext {
            c0: self.c0.clone(),
            c1: expand_uniform(context, &self.seed, self.level),
            level: self.level,
            scale: self.scale.clone(),
            id: self.id,
        })
    }
}
