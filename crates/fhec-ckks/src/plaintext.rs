//! Encoded vectors in three forms: coefficients, evaluation form over the chain, and evaluation form
//! over chain and special primes with periodic vectors kept compressed.

use fhec_math::{AlignedVec, Eval, Poly, Scale, Zeroizing};

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
/// A vector of period `n` in its slots lies in the subring of `Y = X^(N/2n)`, with `2n` coefficients. One of real values
/// equals its conjugate, so the coefficient of `Y^(2n−k)` is that of `Y^k`, negated: only `n` are kept. This is the smallest of
/// the three forms: a runtime that is short of memory keeps this one and makes limbs from it at each use
/// ([`Encoder::plaintext`](crate::Encoder::plaintext), [`Encoder::qp_plaintext`](crate::Encoder::qp_plaintext)).
#[derive(Clone, Debug)]
pub struct CoeffPlaintext {
    /// Coefficient of `Y^k` at `k`, divided by `2^shift`, as a signed word: `2n` of them, `n` of a real vector.
    coeffs: AlignedVec,
    /// Whether the slots are real, so that half of the coefficients say it all.
    pub(crate) real: bool,
    /// 0 unless coefficients exceed 62 bits.
    pub(crate) shift: u32,
    /// Largest magnitude in `coeffs`.
    pub(crate) max: u64,
    pub(crate) scale: Scale,
}

impl CoeffPlaintext {
    /// `coeffs` are signed words.
    pub(crate) fn new(coeffs: AlignedVec, real: bool, shift: u32, scale: Scale) -> Self {
        let mut new = Self { coeffs, real, shift, max: 0, scale };
        new.max = new.words().iter().fold(0, |max, c| max.max(c.unsigned_abs()));
        new
    }

    /// The coefficients that are kept.
    pub(crate) fn words(&self) -> &[i64] {
        bytemuck::cast_slice(&self.coeffs)
    }

    /// Scale.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Number of slot values after which the vector repeats (a power of two, at least 1).
    pub fn period(&self) -> usize {
        if self.real { self.coeffs.len() } else { self.coeffs.len() / 2 }
    }

    /// Whether it was encoded from real values.
    pub fn is_real(&self) -> bool {
        self.real
    }

    /// The coefficients of `X^(k·N/2n)` for `k = 0 … 2n−1`, divided by `2^`[`shift`](Self::shift).
    pub fn coefficients(&self) -> Vec<i64> {
        let mut all = self.words().to_vec();
        if self.real {
            // The middle one is its own negative.
            all.push(0);
            all.extend(self.words()[1..].iter().rev().map(|c| -c));
        }
        all
    }

    /// log2 of the factor that all coefficients share: 0 unless they exceed 62 bits.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// log2 of the largest coefficient, what they share included.
    pub(crate) fn log2_magnitude(&self) -> f64 {
        (self.max as f64).log2() + f64::from(self.shift)
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
    pub(crate) data: AlignedVec,
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
