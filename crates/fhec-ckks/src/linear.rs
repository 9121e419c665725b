//! Linear maps on encrypted vectors: double-hoisted baby-step giant-step sums of diagonals.
//!
//! Bossuat, Mouchet, Troncoso-Pastoriza, Hubaux, *Efficient Bootstrapping for Approximate Homomorphic
//! Encryption* (2020/1203), §4.2. With the splits of [`fhec_math::bsgs`],
//!
//! ```text
//! out_o = Σ_g rot_g( Σ_{i,b} d_{g,o,i,b} ⊙ rot_b(in_i) ),
//! ```
//!
//! where `d_{g,o,i,b}` is a diagonal that its source has already rotated by `−g`.
//!
//! * Every input is decomposed once. A *baby* `rot_b(in_i)` is an inner product with a key and a permutation and
//!   stays modulo `Q·P`: it is never divided by `P` ([`Hoisting::Double`]).
//! * Products with diagonals add up lazily modulo `Q·P`, one reduction a sum.
//! * A *giant* divides only the second part of its sum by `P`, decomposes it and multiplies with its key; the results add
//!   up modulo `Q·P`, one sum for each output.
//! * One division by `P`, or by `P·q_ℓ` where a rescale follows, ends it.
//!
//! Where giants outnumber babies two to one it is cheaper to divide the babies ([`Hoisting::Single`]): products
//! then run over the chain alone, and giants have nothing to divide.
//!
//! Sums modulo primes do not depend on their order, so results are identical for every number of threads.

mod apply;
mod babies;
mod fold;
mod giants;
mod packed;
mod products;
mod scalar;
mod small;
mod streamed;

use std::collections::BTreeSet;
use std::sync::Arc;

use fhec_math::streamed::{GROUP, WINDOW};
use fhec_math::{Scale, galois_element};

use crate::error::{CkksError, Result};
use crate::params::Context;
use crate::plaintext::{CoeffPlaintext, QpPlaintext};

pub use fhec_math::bsgs::{BsgsPlan, BsgsTerm as DiagonalId, BsgsWeights, DiagonalIndex};
pub use fold::rotate_and_sum;
pub use packed::PackedDiagonals;
pub use scalar::{ScalarEntry, ScalarMap, ScalarOptions};
pub(crate) use small::SmallCiphertext;

/// Where a linear map takes its diagonals from, one at a time and each once per application, so that a source may
/// encode on demand.
pub trait DiagonalSource: Sync {
    /// All diagonals, sorted.
    fn diagonals(&self) -> &[DiagonalId];

    /// Diagonal number `index` of [`diagonals`](Self::diagonals), rotated to the right by its giant (see
    /// [`DiagonalId::source_row`]), encoded at the level of the inputs and at
    /// [`LinearMap::plaintext_scale`].
    ///
    /// # Errors
    /// Whatever keeps the source from encoding it.
    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>>;

    /// Bytes of the largest plaintext ([`QpPlaintext::bytes`]) that [`plaintext`](Self::plaintext) hands out, where the
    /// source knows; otherwise they count as not compressed. They need not be equal: a diagonal of zeros has period 1.
    fn plaintext_bytes(&self) -> Option<usize> {
        None
    }

    /// Whether all plaintexts are in memory anyway, so that asking for all of them at once costs nothing. That is
    /// faster: babies are then made where they are used and never stored.
    fn resident(&self) -> bool {
        false
    }

    /// Whether the diagonals are real vectors and [`coefficients`](Self::coefficients) has all of them. A map that is not
    /// [resident](Self::resident) then asks for those instead of plaintexts, which saves most of their memory and half of
    /// their transforms.
    fn real_coefficients(&self) -> bool {
        false
    }

    /// Slots after which all diagonals repeat, where the source knows; otherwise they count as not periodic.
    fn period(&self) -> Option<usize> {
        None
    }

    /// Rounded coefficients of diagonal number `index`, of real values; see [`plaintext`](Self::plaintext).
    ///
    /// # Errors
    /// Whatever keeps the source from encoding it.
    fn coefficients(&self, index: usize) -> Result<Arc<CoeffPlaintext>> {
        Err(CkksError::Parameters(format!("linear map: diagonal {index} has no coefficients")))
    }

    /// All diagonals in the fastest form, where the source keeps them so. Then none is asked for.
    fn packed(&self) -> Option<&PackedDiagonals> {
        None
    }
}

/// Whether babies are divided by `P`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hoisting {
    /// Whatever [`LinearMap::hoisting`] finds cheaper.
    #[default]
    Auto,
    /// Babies stay modulo `Q·P`.
    Double,
    /// Babies are divided by `P`.
    Single,
}

/// How to apply a map.
#[derive(Clone, Copy, Debug)]
pub struct LinearOptions {
    /// Rescale the results, in one division with that by `P`.
    pub rescale: bool,
    /// Whether babies are divided by `P`.
    pub hoisting: Hoisting,
    /// Bytes of plaintexts or coefficients to ask the source for at a time; a sum of products always has all of its own.
    pub plaintext_window: usize,
}

impl Default for LinearOptions {
    fn default() -> Self {
        Self { rescale: true, hoisting: Hoisting::Auto, plaintext_window: WINDOW }
    }
}

/// The structure of a linear map: which rotations it needs and in which order it works.
#[derive(Clone, Debug)]
pub struct LinearMap {
    in_blocks: usize,
    out_blocks: usize,
    /// `(input block, rotation)`, sorted.
    babies: Vec<(usize, i64)>,
    /// Number of the baby of each diagonal.
    baby_of: Vec<u32>,
    sums: Vec<Sum>,
}

/// One giant of one output: a sum of products of babies and diagonals.
#[derive(Clone, Debug)]
struct Sum {
    giant: i64,
    out_block: usize,
    /// The diagonals, by number.
    diagonals: std::ops::Range<usize>,
}

impl LinearMap {
    /// The map from `in_blocks` to `out_blocks` ciphertexts with these diagonals.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where the list is not sorted or names a block that does not exist.
    pub fn new(diagonals: &[DiagonalId], in_blocks: usize, out_blocks: usize) -> Result<Self> {
        let wrong = |what: String| Err(CkksError::Parameters(format!("linear map: {what}")));
        if !diagonals.is_sorted() {
            return wrong("the diagonals are not sorted".into());
        }
        if let Some(d) = diagonals.iter().find(|d| d.in_block >= in_blocks || d.out_block >= out_blocks) {
            let (input, output) = (d.in_block, d.out_block);
            return wrong(format!("block ({output}, {input}) is not within {out_blocks}×{in_blocks}"));
        }
        let set: BTreeSet<(usize, i64)> = diagonals.iter().map(|d| (d.in_block, d.baby)).collect();
        let babies: Vec<(usize, i64)> = set.into_iter().collect();
        let number = |d: &DiagonalId| babies.partition_point(|b| *b < (d.in_block, d.baby)) as u32;
        let baby_of = diagonals.iter().map(number).collect();
        let mut sums: Vec<Sum> = Vec::new();
        for (i, d) in diagonals.iter().enumerate() {
            match sums.last_mut() {
                Some(sum) if (sum.giant, sum.out_block) == (d.giant, d.out_block) => sum.diagonals.end = i + 1,
                _ => sums.push(Sum { giant: d.giant, out_block: d.out_block, diagonals: i..i + 1 }),
            }
        }
        Ok(Self { in_blocks, out_blocks, babies, baby_of, sums })
    }

    /// Number of input ciphertexts.
    pub fn in_blocks(&self) -> usize {
        self.in_blocks
    }

    /// Number of output ciphertexts.
    pub fn out_blocks(&self) -> usize {
        self.out_blocks
    }

    /// Babies that are key switches.
    pub fn baby_switches(&self) -> usize {
        self.babies.iter().filter(|b| b.1 != 0).count()
    }

    /// Giants that are key switches, one for each output that needs it.
    pub fn giant_switches(&self) -> usize {
        self.sums.iter().filter(|s| s.giant != 0).count()
    }

    /// Inner products with keys: babies and giants.
    pub fn key_switches(&self) -> usize {
        self.baby_switches() + self.giant_switches()
    }

    /// All rotations that need a key.
    pub fn rotations(&self) -> BTreeSet<i64> {
        let all = self.babies.iter().map(|b| b.1).chain(self.sums.iter().map(|s| s.giant));
        all.filter(|&r| r != 0).collect()
    }

    /// Galois elements of [`rotations`](Self::rotations).
    pub fn galois_elements(&self, context: &Context) -> BTreeSet<u64> {
        self.rotations().into_iter().map(|r| galois_element(r, context.log_n())).collect()
    }

    /// The scale at which diagonals that multiply an input of scale `in_scale` are encoded, so that the result has
    /// exactly `out_scale`: `out_scale · q_level / in_scale`, without `q_level` where nothing is rescaled.
    pub fn plaintext_scale(
        context: &Context,
        level: usize,
        in_scale: &Scale,
        out_scale: &Scale,
        rescale: bool,
    ) -> Scale {
        let sum = if rescale { out_scale.mul(&Scale::prime(context.q(level).value())) } else { out_scale.clone() };
        sum.div(in_scale)
    }

    /// Which hoisting [`Hoisting::Auto`] stands for at a level.
    ///
    /// Dividing a baby transforms `2(α + ℓ + 1)` limbs. It saves every giant `α + ℓ + 1` transforms and every
    /// product `2α` limb products, a fifteenth of a transform each.
    pub fn hoisting(&self, context: &Context, level: usize) -> Hoisting {
        let (special, limbs) = (context.special_at(level) as f64, (level + 1) as f64);
        let division = 2.0 * (special + limbs) * self.baby_switches() as f64;
        let saved = (special + limbs) * self.giant_switches() as f64 + 2.0 * special / 15.0 * self.baby_of.len() as f64;
        if division <= saved { Hoisting::Single } else { Hoisting::Double }
    }

    fn resolve(&self, context: &Context, level: usize, hoisting: Hoisting) -> Hoisting {
        match hoisting {
            Hoisting::Auto => self.hoisting(context, level),
            other => other,
        }
    }

    /// Ranges of sums that are worked on together: all of them, or as many as the window has room for, given the bytes
    /// of one plaintext.
    fn groups(&self, whole: bool, window: usize, plaintext_bytes: usize) -> Vec<std::ops::Range<usize>> {
        let most = window / plaintext_bytes.max(1);
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        let mut held = 0;
        for (i, sum) in self.sums.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if whole || group.len() < GROUP && held + sum.diagonals.len() <= most => {
                    group.end = i + 1;
                    held += sum.diagonals.len();
                }
                _ => {
                    groups.push(i..i + 1);
                    held = sum.diagonals.len();
                }
            }
        }
        groups
    }

    /// Bytes of scratch memory that come on top of others where so many babies have no key of their own.
    pub fn composed_bytes(&self, context: &Context, level: usize, hoisting: Hoisting, composed: usize) -> usize {
        match self.resolve(context, level, hoisting) {
            // All babies are ciphertexts there, however they are made.
            Hoisting::Single => 0,
            _ => composed * 2 * (level + 1) * context.n() * 8,
        }
    }

    /// Peak bytes of scratch memory of one application with `threads` threads, results included; inputs and keys are not, nor
    /// are the plaintexts that the source hands out. `whole`: the source is [resident](DiagonalSource::resident), or all
    /// plaintexts fit the window.
    pub fn scratch_bytes(
        &self,
        context: &Context,
        level: usize,
        threads: usize,
        hoisting: Hoisting,
        whole: bool,
    ) -> usize {
        let double = self.resolve(context, level, hoisting) == Hoisting::Double;
        let polynomial = context.n() * 8;
        let (chain, all) = (level + 1, context.qp_limbs(level));
        let digits = context.digits_at(level) * all;
        let sum_limbs = if double { all } else { chain };
        let decomposed = self.babies.chunk_by(|a, b| a.0 == b.0).filter(|block| block.iter().any(|b| b.1 != 0)).count();
        // A division by P holds both parts before and after.
        let (making, held) = match (double, whole) {
            (true, true) => (chain + decomposed * digits, decomposed * digits),
            (true, false) => (decomposed * digits + 2 * all * self.babies.len(), 2 * all * self.babies.len()),
            (false, _) => {
                (chain + digits + 2 * (all + chain) + 2 * chain * self.babies.len(), 2 * chain * self.babies.len())
            }
        };
        let largest = if whole { self.sums.len() } else { self.sums.len().min(GROUP) };
        let group = 2 * sum_limbs * largest;
        let switching = threads.clamp(1, largest.max(1)) * (digits + 2 * chain + 2);
        let outputs = self.out_blocks * 2 * all;
        // The final division holds the quotients besides.
        let ending = outputs + self.out_blocks * 2 * chain + 2 * chain;
        polynomial * making.max(held + group + switching + outputs).max(ending)
    }
}
