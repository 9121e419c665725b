//! Randomness: secrets, noise and public uniform limbs.

use std::fmt;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

use crate::cpu::dispatch;
use crate::{MathError, Modulus, packed};

/// Bits of a centred binomial sample; its variance is a quarter of this, so σ = √10.5 ≈ 3.24, a
/// little above the 3.19 of the security tables.
pub const NOISE_BITS: u32 = 42;

/// Standard deviation of [`SecretRng::noise`].
pub const NOISE_SIGMA: f64 = 3.240_370_349_203_93;

/// The source of everything secret: ChaCha20, wiped when dropped.
///
/// The accepted values never steer a branch or an address; only rejections do, which are independent of them.
pub struct SecretRng(ChaCha20Rng);

impl SecretRng {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// [`MathError::NoEntropy`] when the system has none to give.
    pub fn from_os() -> Result<Self, MathError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *seed).map_err(|e| MathError::NoEntropy { reason: e.to_string() })?;
        Ok(Self::from_seed(&seed))
    }

    /// A reproducible source, for tests. A key made from a known seed protects nothing.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(*seed))
    }

    /// Fills `out` with random bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// 32 fresh bytes, such as the public seed of a key half.
    pub fn next_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill_bytes(&mut seed);
        seed
    }

    /// `n` independent uniform values in {−1, 0, 1}.
    pub fn ternary(&mut self, n: usize) -> Zeroizing<Vec<i8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(n));
        let mut bytes = Zeroizing::new([0u8; 256]);
        while out.len() < n {
            self.fill_bytes(&mut *bytes);
            let want = n - out.len();
            // 255 = 3·85, so a byte below 255 modulo 3 is uniform.
            out.extend(bytes.iter().filter(|&&b| b != 255).take(want).map(|&b| {
                let third = (u16::from(b) * 171) >> 9;
                (u16::from(b) - 3 * third) as i8 - 1
            }));
        }
        out
    }

    /// `n` values of which exactly `weight` are ±1 and the others 0, places and signs uniform: the secret of sparse-secret
    /// encapsulation. Neither places nor signs steer an address or a branch.
    ///
    /// # Panics
    /// When `n` is not a power of two or `weight` exceeds half of it.
    pub fn sparse_ternary(&mut self, n: usize, weight: usize) -> Zeroizing<Vec<i8>> {
        assert!(n.is_power_of_two() && weight <= n / 2, "{weight} of {n} values");
        let mut out = Zeroizing::new(vec![0i8; n]);
        let mut left = weight;
        while left > 0 {
            let bits = Zeroizing::new(self.0.next_u64());
            let place = *bits & (n as u64 - 1);
            let sign = 1 - 2 * (*bits >> 63) as i8;
            // All ones at the place, 0 elsewhere.
            let mask = |i: usize| {
                let difference = i as u64 ^ place;
                ((difference | difference.wrapping_neg()) >> 63) as i8 - 1
            };
            let taken = out.iter().enumerate().fold(0, |seen, (i, &v)| seen | (v & mask(i)));
            // A place that is taken already is drawn again; which one that was has no influence on the others.
            if taken == 0 {
                for (i, v) in out.iter_mut().enumerate() {
                    *v |= sign & mask(i);
                }
                left -= 1;
            }
        }
        out
    }

    /// `n` independent centred binomial values of [`NOISE_BITS`] bits, in `[−21, 21]`.
    pub fn noise(&mut self, n: usize) -> Zeroizing<Vec<i8>> {
        const HALF: u64 = (1 << (NOISE_BITS / 2)) - 1;
        let mut out = Zeroizing::new(Vec::with_capacity(n));
        out.extend((0..n).map(|_| {
            let bits = self.0.next_u64();
            let plus = (bits & HALF).count_ones();
            let minus = (bits >> 32 & HALF).count_ones();
            plus as i8 - minus as i8
        }));
        out
    }

    /// `out` = uniform residues modulo `m`.
    pub fn uniform(&mut self, m: &Modulus, out: &mut [u64]) {
        fill_uniform(m, out, |bytes| self.fill_bytes(bytes));
    }
}

impl fmt::Debug for SecretRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRng")
    }
}

/// Residues modulo `m` of small signed values, without branches on them.
///
/// # Panics
/// When the lengths differ.
pub fn lift_small(m: &Modulus, values: &[i8], out: &mut [u64]) {
    assert_eq!(values.len(), out.len(), "limbs of different lengths");
    for (o, &v) in out.iter_mut().zip(values) {
        let v = i64::from(v);
        // All ones for negative values.
        let negative = (v >> 63) as u64;
        *o = (v as u64).wrapping_add(m.value() & negative);
    }
}

/// `out` = uniform residues modulo `m`, expanded from a public seed.
///
/// The stream is BLAKE3 in keyed mode (key `seed`) over the little-endian words `label` and `p`, extended. One
/// label belongs to one limb of one object, so every limb can be expanded alone.
pub fn uniform_from_seed(seed: &[u8; 32], label: u64, m: &Modulus, out: &mut [u64]) {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(&label.to_le_bytes());
    hasher.update(&m.value().to_le_bytes());
    let mut stream = hasher.finalize_xof();
    fill_uniform(m, out, |bytes| stream.fill(bytes));
}

/// Uniform residues by rejection: little-endian numbers of as few whole bytes as the modulus needs, cut to its bits.
fn fill_uniform(m: &Modulus, out: &mut [u64], mut fill: impl FnMut(&mut [u8])) {
    const VALUES: usize = 512;
    let (width, mask) = (packed::width(m), (1u64 << m.bits()) - 1);
    let mut bytes = [0u8; 8 * VALUES];
    let mut done = 0;
    while done < out.len() {
        let bytes = &mut bytes[..VALUES * width];
        fill(bytes);
        done += accept(m, bytes, mask, &mut out[done..]);
    }
    bytes.zeroize();
}

/// Copies the numbers that fit, in order, until `out` is full, and says how many. There are a multiple of eight.
fn accept(m: &Modulus, bytes: &[u8], mask: u64, out: &mut [u64]) -> usize {
    dispatch!(sample::accept(m, bytes, mask, out))
}

/// One number at a time; also the end of a vectorised sequence.
pub(crate) mod portable {
    use crate::{Modulus, packed};

    pub(crate) fn accept(m: &Modulus, bytes: &[u8], mask: u64, out: &mut [u64]) -> usize {
        let width = packed::width(m);
        let mut done = 0;
        for number in bytes.chunks_exact(width) {
            let mut raw = [0; 8];
            raw[..width].copy_from_slice(number);
            let value = u64::from_le_bytes(raw) & mask;
            let Some(slot) = out.get_mut(done) else { break };
            // Written in any case and kept if it fits: primes just above a power of two reject every second number,
            // and no predictor knows which.
            *slot = value;
            done += usize::from(value < m.value());
        }
        done
    }
}
