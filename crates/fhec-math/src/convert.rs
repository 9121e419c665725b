//! Exact conversion between RNS bases.
//!
//! Halevi, Polyakov, Shoup, *An Improved RNS Variant of the BFV Homomorphic Encryption Scheme*
//! (ePrint 2018/117), §2.2. With `q̂_i = Q/q_i` and `y_i = [x_i·q̂_i⁻¹]_{q_i}`, the number
//! `Σ y_i·q̂_i − v·Q` with `v = round(Σ y_i/q_i)` is the representative of `x` in `[−Q/2, Q/2]`.
//! Rounding (where an uncentred conversion takes the floor) is what centres the result; a
//! conversion that forgets it adds `Q/2` on average.

use crate::{MathError, Modulus};

/// Coefficients handled at a time: `y` of 40 limbs is then 160 KiB at most, and 4 KiB a limb.
const BLOCK: usize = 512;

/// Tables for the conversion of coefficients modulo `Q = Π from` to residues modulo each of `to`.
#[derive(Clone, Debug)]
pub struct BaseConverter {
    from: Vec<Source>,
    to: Vec<Target>,
}

/// One prime `q_i` of the source base.
#[derive(Clone, Debug)]
struct Source {
    modulus: Modulus,
    /// `q̂_i⁻¹ mod q_i` and its Shoup companion.
    hat_inverse: u64,
    hat_inverse_shoup: u64,
    /// `1/q_i`, rounded.
    reciprocal: f64,
}

/// One prime `p_j` of the target base.
#[derive(Clone, Debug)]
struct Target {
    modulus: Modulus,
    /// `q̂_i mod p_j` for every `i`.
    hats: Vec<u64>,
    /// `−Q mod p_j`.
    minus_q: u64,
}

impl BaseConverter {
    /// Tables for `from → to`. The bases may share primes.
    ///
    /// # Panics
    /// When the source base is unfit; see [`try_new`](Self::try_new) for moduli that come from outside.
    pub fn new(from: &[Modulus], to: &[Modulus]) -> Self {
        match Self::try_new(from, to) {
            Ok(converter) => converter,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`new`](Self::new), for moduli that come from outside.
    ///
    /// # Errors
    /// [`MathError::BadBase`] when the source base is empty or its moduli are not pairwise coprime.
    pub fn try_new(from: &[Modulus], to: &[Modulus]) -> Result<Self, MathError> {
        let bad = || MathError::BadBase { moduli: from.iter().map(Modulus::value).collect() };
        if from.is_empty() {
            return Err(bad());
        }
        let product = |skip: Option<usize>, m: &Modulus| {
            let others = from.iter().enumerate().filter(|(i, _)| Some(*i) != skip);
            others.fold(1, |acc, (_, q)| m.mul(acc, m.reduce(q.value())))
        };
        let sources = from.iter().enumerate().map(|(i, q)| {
            let hat_inverse = q.inv(product(Some(i), q)).ok_or_else(bad)?;
            let hat_inverse_shoup = q.shoup(hat_inverse);
            Ok(Source { modulus: *q, hat_inverse, hat_inverse_shoup, reciprocal: (q.value() as f64).recip() })
        });
        let targets = to.iter().map(|p| Target {
            modulus: *p,
            hats: (0..from.len()).map(|i| product(Some(i), p)).collect(),
            minus_q: p.neg(product(None, p)),
        });
        Ok(Self { from: sources.collect::<Result<_, _>>()?, to: targets.collect() })
    }

    /// The source base.
    pub fn from(&self) -> impl ExactSizeIterator<Item = &Modulus> {
        self.from.iter().map(|s| &s.modulus)
    }

    /// The target base.
    pub fn to(&self) -> impl ExactSizeIterator<Item = &Modulus> {
        self.to.iter().map(|t| &t.modulus)
    }

    /// Converts coefficients: `src[i]` modulo the `i`-th source prime, `dst[j]` modulo the `j`-th target.
    ///
    /// The result is the centred representative, congruent to the input modulo `Q` for every input. Within a relative
    /// `2^-45` of `±Q/2`, where both signs are as good, the floating-point quotient decides which.
    ///
    /// # Panics
    /// When the numbers of limbs or their lengths do not fit.
    pub fn convert(&self, src: &[&[u64]], dst: &mut [&mut [u64]]) {
        self.convert_with(src, dst, &mut Vec::new());
    }

    /// As [`convert`](Self::convert), with scratch memory that is kept between calls.
    ///
    /// # Panics
    /// As [`convert`](Self::convert).
    pub fn convert_with(&self, src: &[&[u64]], dst: &mut [&mut [u64]], scratch: &mut Vec<u64>) {
        assert!(src.len() == self.from.len() && dst.len() == self.to.len(), "limbs do not fit the bases");
        let n = src[0].len();
        assert!(src.iter().all(|limb| limb.len() == n), "limbs of different lengths");
        assert!(dst.iter().all(|limb| limb.len() == n), "limbs of different lengths");
        scratch.resize((src.len() + 1) * BLOCK, 0);
        let mut sums = [0f64; BLOCK];
        for start in (0..n).step_by(BLOCK) {
            let len = BLOCK.min(n - start);
            let (ys, v) = scratch.split_at_mut(src.len() * BLOCK);
            sums.fill(0.0);
            for ((s, limb), y) in self.from.iter().zip(src).zip(ys.chunks_exact_mut(BLOCK)) {
                for ((y, &x), sum) in y.iter_mut().zip(&limb[start..start + len]).zip(&mut sums) {
                    *y = s.modulus.mul_shoup(x, s.hat_inverse, s.hat_inverse_shoup);
                    *sum += *y as f64 * s.reciprocal;
                }
            }
            for (v, sum) in v.iter_mut().zip(&sums) {
                *v = sum.round_ties_even() as u64;
            }
            for (t, limb) in self.to.iter().zip(dst.iter_mut()) {
                for (i, out) in limb[start..start + len].iter_mut().enumerate() {
                    let correction = u128::from(v[i]) * u128::from(t.minus_q);
                    let terms = ys.chunks_exact(BLOCK).zip(&t.hats);
                    let sum = terms.fold(correction, |acc, (y, &hat)| acc + u128::from(y[i]) * u128::from(hat));
                    *out = t.modulus.reduce_u128(sum);
                }
            }
        }
    }
}
