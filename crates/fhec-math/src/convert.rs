//! Exact conversion between RNS bases.
//!
//! Halevi, Polyakov, Shoup, *An Improved RNS Variant of the BFV Homomorphic Encryption Scheme*
//! (ePrint 2018/117), §2.2. With `q̂_i = Q/q_i` and `y_i = [x_i·q̂_i⁻¹]_{q_i}`, the number
//! `Σ y_i·q̂_i − v·Q` with `v = round(Σ y_i/q_i)` is the representative of `x` in `[−Q/2, Q/2]`.
//! Rounding (where an uncentred conversion takes the floor) is what centres the result; a
//! conversion that forgets it adds `Q/2` on average.

use rayon::prelude::*;

use crate::cpu::dispatch;
use crate::{MathError, Modulus, NttTable};

/// Coefficients of one unit of work of [`BaseConverter::par_convert`].
const PAR_CHUNK: usize = 2048;

/// Tables for the conversion of coefficients modulo `Q = Π from` to residues modulo each of `to`.
#[derive(Clone, Debug)]
pub struct BaseConverter {
    pub(crate) from: Vec<Source>,
    pub(crate) to: Vec<Target>,
    /// Coefficients handled at a time.
    pub(crate) block: usize,
}

/// One prime `q_i` of the source base.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) modulus: Modulus,
    /// `q̂_i⁻¹ mod q_i`.
    pub(crate) hat_inverse: u64,
    /// `1/q_i`, rounded.
    pub(crate) reciprocal: f64,
}

/// One prime `p_j` of the target base.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) modulus: Modulus,
    /// `q̂_i mod p_j` for every `i`, then `−Q mod p_j`.
    pub(crate) factors: Vec<u64>,
    /// Whether the sum of products stays below 2^104.
    pub(crate) narrow: bool,
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
    /// [`MathError::BadBase`] when the source base is empty, has more than 1000 moduli, or these are not
    /// pairwise coprime.
    pub fn try_new(from: &[Modulus], to: &[Modulus]) -> Result<Self, MathError> {
        let bad = || MathError::BadBase { moduli: from.iter().map(Modulus::value).collect() };
        if from.is_empty() || from.len() > 1000 {
            return Err(bad());
        }
        let product = |skip: Option<usize>, m: &Modulus| {
            let others = from.iter().enumerate().filter(|(i, _)| Some(*i) != skip);
            others.fold(1, |acc, (_, q)| m.mul(acc, m.reduce(q.value())))
        };
        let sources = from.iter().enumerate().map(|(i, q)| {
            let hat_inverse = q.inv(product(Some(i), q)).ok_or_else(bad)?;
            Ok(Source { modulus: *q, hat_inverse, reciprocal: (q.value() as f64).recip() })
        });
        let widest = from.iter().map(Modulus::bits).max().unwrap_or(0);
        let targets = to.iter().map(|p| {
            let hats = (0..from.len()).map(|i| product(Some(i), p));
            Target {
                modulus: *p,
                factors: hats.chain([p.neg(product(None, p))]).collect(),
                narrow: (from.len() as u128 + 1) << (widest + p.bits()) <= 1 << 104,
            }
        });
        // The rows of y, one for each source prime and one for v, take 24 KiB of the first cache.
        let block = (24 * 1024 / 8 / (from.len() + 1) / 64 * 64).clamp(64, 512);
        Ok(Self { from: sources.collect::<Result<_, _>>()?, to: targets.collect(), block })
    }

    /// As it is, for numbers that come divided by others: those of the source prime `i` stand for their products with `factors[i]`, residues
    /// modulo it.
    ///
    /// # Panics
    /// When there are not as many factors as primes.
    #[must_use]
    pub fn multiplied(mut self, factors: &[u64]) -> Self {
        assert_eq!(self.from.len(), factors.len(), "factors do not fit the base");
        for (source, &factor) in self.from.iter_mut().zip(factors) {
            source.hat_inverse = source.modulus.mul(source.hat_inverse, factor);
        }
        self
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
        self.check(src, dst);
        scratch.resize((src.len() + 1) * self.block, 0);
        dispatch!(convert::convert(self, src, dst, scratch));
    }

    /// As [`convert_with`](Self::convert_with), to residues that may stay below `4p_j`, for
    /// [`NttTable::forward_loose`](crate::NttTable::forward_loose). `past_caches` says that they are too many to be found in a cache later: to be
    /// written there they would be read first.
    ///
    /// # Panics
    /// As [`convert`](Self::convert).
    pub fn convert_loose(&self, src: &[&[u64]], dst: &mut [&mut [u64]], scratch: &mut Vec<u64>, past_caches: bool) {
        self.check(src, dst);
        scratch.resize((src.len() + 1) * self.block, 0);
        dispatch!(convert::convert_loose(self, src, dst, scratch, past_caches));
    }

    /// As [`convert_loose`](Self::convert_loose), between transforms: from limbs that
    /// [`inverse_quarter`](NttTable::inverse_quarter) left to limbs that [`forward_quarter`](NttTable::forward_quarter) goes
    /// on with. The passes in between work on the same places of all quarters of a limb; they are run here, where coefficients are in registers.
    /// Of every limb come its table and the same block of each quarter.
    ///
    /// # Panics
    /// As [`convert`](Self::convert), when a table is of another prime or [has no quarters](NttTable::has_quarters), and for blocks of other
    /// than a multiple of 16 coefficients.
    pub fn convert_quarters(
        &self,
        src: &[(&NttTable, [&[u64]; 4])],
        dst: &mut [(&NttTable, [&mut [u64]; 4])],
        scratch: &mut Vec<u64>,
        past_caches: bool,
    ) {
        let froms = src.iter().map(|(table, _)| table.modulus());
        let tos = dst.iter().map(|(table, _)| table.modulus());
        assert!(froms.eq(self.from()) && tos.eq(self.to()), "limbs do not fit the bases");
        let n = src[0].1[0].len();
        let lengths = src.iter().flat_map(|(_, limb)| limb.map(<[u64]>::len));
        let lengths = lengths.chain(dst.iter().flat_map(|(_, limb)| limb.each_ref().map(|quarter| quarter.len())));
        assert!(n.is_multiple_of(16) && lengths.into_iter().all(|len| len == n), "limbs of different lengths");
        scratch.resize((src.len() + 1) * self.block, 0);
        dispatch!(convert::convert_quarters(self, src, dst, scratch, past_caches));
    }

    /// As [`convert`](Self::convert), in parallel over blocks of coefficients.
    ///
    /// # Panics
    /// As [`convert`](Self::convert).
    pub fn par_convert(&self, src: &[&[u64]], dst: &mut [&mut [u64]]) {
        self.check(src, dst);
        let n = src[0].len();
        let mut rows: Vec<_> = dst.iter_mut().map(|limb| limb.chunks_mut(PAR_CHUNK)).collect();
        let tasks: Vec<(usize, Vec<&mut [u64]>)> = (0..n)
            .step_by(PAR_CHUNK)
            .map(|start| (start, rows.iter_mut().filter_map(Iterator::next).collect()))
            .collect();
        tasks.into_par_iter().for_each_init(Vec::new, |scratch, (start, mut part)| {
            let end = n.min(start + PAR_CHUNK);
            let src: Vec<&[u64]> = src.iter().map(|limb| &limb[start..end]).collect();
            self.convert_with(&src, &mut part, scratch);
        });
    }

    fn check(&self, src: &[&[u64]], dst: &[&mut [u64]]) {
        assert!(src.len() == self.from.len() && dst.len() == self.to.len(), "limbs do not fit the bases");
        let n = src[0].len();
        assert!(src.iter().all(|limb| limb.len() == n), "limbs of different lengths");
        assert!(dst.iter().all(|limb| limb.len() == n), "limbs of different lengths");
        for (limb, source) in src.iter().zip(&self.from) {
            debug_assert!(limb.iter().all(|&x| x < source.modulus.value()), "limb is not reduced");
        }
    }
}

mod portable {
    use super::{BaseConverter, NttTable};

    pub(super) fn convert_quarters(
        _: &BaseConverter,
        _: &[(&NttTable, [&[u64]; 4])],
        _: &mut [(&NttTable, [&mut [u64]; 4])],
        _: &mut [u64],
        _: bool,
    ) {
        panic!("portable tables have no quarters");
    }

    pub(super) fn convert_loose(
        c: &BaseConverter,
        src: &[&[u64]],
        dst: &mut [&mut [u64]],
        scratch: &mut [u64],
        _past_caches: bool,
    ) {
        convert(c, src, dst, scratch);
    }

    pub(super) fn convert(c: &BaseConverter, src: &[&[u64]], dst: &mut [&mut [u64]], scratch: &mut [u64]) {
        let n = src[0].len();
        let mut sums = vec![0f64; c.block];
        for start in (0..n).step_by(c.block) {
            let len = c.block.min(n - start);
            sums.fill(0.0);
            let (ys, v) = scratch.split_at_mut(src.len() * c.block);
            for ((s, limb), y) in c.from.iter().zip(src).zip(ys.chunks_exact_mut(c.block)) {
                let companion = s.modulus.shoup(s.hat_inverse);
                for ((y, &x), sum) in y.iter_mut().zip(&limb[start..start + len]).zip(&mut sums) {
                    *y = s.modulus.mul_shoup(x, s.hat_inverse, companion);
                    // Multiplied, then added, limb by limb: the vector kernel rounds in the same places.
                    *sum += *y as f64 * s.reciprocal;
                }
            }
            for (v, sum) in v.iter_mut().zip(&sums) {
                *v = sum.round_ties_even() as u64;
            }
            for (t, limb) in c.to.iter().zip(dst.iter_mut()) {
                for (i, out) in limb[start..start + len].iter_mut().enumerate() {
                    let rows = scratch.chunks_exact(c.block).zip(&t.factors);
                    let sum: u128 = rows.map(|(y, &factor)| u128::from(y[i]) * u128::from(factor)).sum();
                    *out = t.modulus.reduce_u128(sum);
                }
            }
        }
    }
}
