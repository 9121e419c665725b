//! Encoded vectors in three forms: coefficients, evaluation form over the chain, and evaluation form
//! over chain and special primes with periodic vectors kept compressed.

use fhec_math::{Eval, Poly, Scale, Zeroizing};

/// An encoded vector in evaluation form over `q_0 … q_level`.
///
/// One that comes from a decryption is as good as the secret key: with its ciphertext it gives `s = (m − c0)/c1`. It
/// is wiped when dropped.
#[derive(Clone, Debug)]
pub struct Plaintext {
    pub(crate) poly: Zeroizing<Poly<Eval>>,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) id: u64,
}

impl Plaintext {
    /// Level.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Scale.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// The polynomial, `level + 1` limbs.
    pub fn poly(&self) -> &Poly<Eval> {
        &self.poly
    }

    /// Id of the parameters that this belongs to ([`Context::id`](crate::Context::id)).
    pub fn context_id(&self) -> u64 {
        self.id
    }
}

/// An encoded vector as rounded integer coefficients.
///
/// A vector of period `n` in its slots lies in the subring of `X^(N/2n)`: only `2n` coefficients are
/// kept. This is the smallest of the three forms: a runtime that is short of memory keeps this one
/// and makes limbs from it at each use ([`Encoder::plaintext`](crate::Encoder::plaintext),
/// [`Encoder::qp_plaintext`](crate::Encoder::qp_plaintext)).
#[derive(Clone, Debug)]
pub struct CoeffPlaintext {
    /// Coefficient of `X^(k·N/2n)` at `k`, divided by `2^shift`; `2n` of them.
    pub(crate) coeffs: Vec<i64>,
    /// 0 unless coefficients exceed 62 bits.
    pub(crate) shift: u32,
    /// Largest magnitude in `coeffs`.
    pub(crate) max: u64,
    pub(crate) scale: Scale,
}

impl CoeffPlaintext {
    /// Scale.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Number of slot values after which the vector repeats (a power of two, at least 1).
    pub fn period(&self) -> usize {
        self.coeffs.len() / 2
    }

    /// The coefficients of `X^(k·N/2n)` for `k = 0 … 2n−1`, divided by `2^`[`shift`](Self::shift).
    pub fn coefficients(&self) -> &[i64] {
        &self.coeffs
    }

    /// log2 of the factor that all coefficients share: 0 unless they exceed 62 bits.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.coeffs.len() * 8
    }
}

/// An encoded vector in evaluation form over `q_0 … q_level, p_0 … p_{α-1}`, for products inside
/// double-hoisted linear maps.
///
/// A vector of period `n` has only `2n` different values a limb, each repeated `N/2n` times at
/// consecutive positions of the bit-reversed order. Only the different ones are stored.
#[derive(Clone, Debug)]
pub struct QpPlaintext {
    /// `values` words a limb.
    pub(crate) data: Vec<u64>,
    pub(crate) values: usize,
    pub(crate) n: usize,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) id: u64,
}

impl QpPlaintext {
    /// Level.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Scale.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Id of the parameters that this belongs to ([`Context::id`](crate::Context::id)).
    pub fn context_id(&self) -> u64 {
        self.id
    }

    /// How many consecutive positions share one stored value.
    pub fn repeat(&self) -> usize {
        self.n / self.values
    }

    /// The different values of limb `i`, in the order `q_0 … q_level, p_0 … p_{α-1}`.
    pub fn limb(&self, i: usize) -> &[u64] {
        &self.data[i * self.values..(i + 1) * self.values]
    }

    /// Index of the limb of special prime `j`.
    pub fn special_limb(&self, j: usize) -> usize {
        self.level + 1 + j
    }

    /// Positions `start … start + out.len()` of limb `i`, written out in full.
    ///
    /// # Panics
    /// Where the range exceeds the ring degree.
    pub fn expand(&self, i: usize, start: usize, out: &mut [u64]) {
        let limb = self.limb(i);
        let repeat = self.repeat();
        assert!(start + out.len() <= self.n, "range exceeds the ring degree");
        if repeat == 1 {
            out.copy_from_slice(&limb[start..start + out.len()]);
            return;
        }
        let mut position = start;
        let mut rest = out;
        while !rest.is_empty() {
            let run = (repeat - position % repeat).min(rest.len());
            let (head, tail) = rest.split_at_mut(run);
            head.fill(limb[position / repeat]);
            position += run;
            rest = tail;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.len() * 8
    }
}
