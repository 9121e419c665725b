//! All diagonals of a map in the order in which an application reads them.

use std::ops::Range;
use std::sync::Arc;

use fhec_math::diagonals::{MAX_TERMS, STEP, pack_step, step_words};
use fhec_math::{AlignedVec, Scale};
use rayon::prelude::*;

use super::products::block_length;
use super::{DiagonalSource, Hoisting, LinearMap};
use crate::error::{CkksError, Result};
use crate::params::{Context, Selection};
use crate::plaintext::QpPlaintext;

const OP: &str = "packed diagonals";
/// Plaintexts that are encoded before they are packed, for each thread.
const BATCH: usize = 4;

/// The diagonals of a [`LinearMap`], packed to whole bytes in the order of use.
///
/// An application reads them from end to end, once, at the speed of the memory: this is the fastest and smallest form in
/// which to keep diagonals that are used again. It belongs to one map at one level.
pub struct PackedDiagonals {
    id: u64,
    level: usize,
    hoisting: Hoisting,
    /// Number of diagonals.
    count: usize,
    /// Scale by input block; absent where a block has no diagonal.
    scales: Vec<Option<Scale>>,
    /// Shortest run of equal values.
    repeat: usize,
    /// Positions of a block.
    block: usize,
    /// For each limb `[block][sum][step][diagonal]`. Shared with [selections](PackedDiagonals::select).
    limbs: Vec<Arc<AlignedVec>>,
}

impl std::fmt::Debug for PackedDiagonals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedDiagonals").field("level", &self.level).field("bytes", &self.bytes()).finish()
    }
}

impl PackedDiagonals {
    /// Encodes all diagonals of `source`, a few at a time. Their entries repeat after `period` slots at the latest.
    ///
    /// # Errors
    /// Those of the source; [`CkksError::Parameters`] where it does not belong to the map, a diagonal has a longer
    /// period, the ring is below 2^5, or the map has no diagonals or sums of more than 4095;
    /// [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`] where diagonals of one input differ.
    pub fn new(
        context: &Context,
        map: &LinearMap,
        source: &dyn DiagonalSource,
        period: usize,
        hoisting: Hoisting,
    ) -> Result<Self> {
        let (count, n) = (map.baby_of.len(), context.n());
        let found = source.diagonals().len();
        let longest = map.sums.iter().map(|s| s.diagonals.len()).max().unwrap_or(0);
        if found != count || count == 0 || n < STEP || longest > MAX_TERMS {
            return Err(CkksError::Parameters(format!(
                "{OP}: {found} diagonals for a map of {count} with sums of {longest} in a ring of degree {n}"
            )));
        }
        let first = source.plaintext(0)?;
        let level = first.level();
        let mut packed = Self {
            id: context.id(),
            level,
            hoisting: map.resolve(context, level, hoisting),
            count,
            scales: vec![None; map.in_blocks],
            repeat: (context.slots() / period.clamp(1, context.slots()).next_power_of_two()).min(STEP),
            block: block_length(map.babies.len(), n),
            limbs: Vec::new(),
        };
        let mut limbs: Vec<AlignedVec> = (0..packed.limb_count(context))
            .map(|i| AlignedVec::scratch(count * (n / STEP) * packed.words(context, i)))
            .collect();
        let batch = BATCH * rayon::current_num_threads().max(1);
        for start in (0..count).step_by(batch) {
            let range = start..count.min(start + batch);
            let made = |d| if d == 0 { Ok(Arc::clone(&first)) } else { source.plaintext(d) };
            let plaintexts = range.clone().into_par_iter().map(made).collect::<Result<Vec<_>>>()?;
            for (d, plaintext) in range.clone().zip(&plaintexts) {
                packed.admit(source.diagonals()[d].in_block, plaintext)?;
            }
            packed.write(context, map, start, &plaintexts, &mut limbs);
        }
        packed.limbs = limbs.into_iter().map(Arc::new).collect();
        Ok(packed)
    }

    /// The same diagonals for a part of the chain; nothing is copied.
    pub(crate) fn select(&self, selection: &Selection) -> Self {
        let level = selection.level(self.level);
        let chain = selection.limbs()[..=level].iter().copied();
        let special = (self.level + 1..self.limbs.len()).take(selection.context().special_at(level));
        Self {
            id: selection.context().id(),
            level,
            hoisting: self.hoisting,
            count: self.count,
            scales: self.scales.clone(),
            repeat: self.repeat,
            block: self.block,
            limbs: chain.chain(special).map(|i| Arc::clone(&self.limbs[i])).collect(),
        }
    }

    /// Checks that a diagonal agrees with those before it.
    fn admit(&mut self, in_block: usize, plaintext: &QpPlaintext) -> Result<()> {
        if plaintext.context_id() != self.id {
            return Err(CkksError::ContextMismatch { op: OP, expected: self.id, found: plaintext.context_id() });
        }
        if plaintext.level() != self.level {
            return Err(CkksError::LevelMismatch { op: OP, lhs: self.level, rhs: plaintext.level() });
        }
        if plaintext.repeat() < self.repeat {
            let (found, expected) = (plaintext.repeat(), self.repeat);
            return Err(CkksError::Parameters(format!("{OP}: runs of {found} values, expected {expected}")));
        }
        let scale = self.scales[in_block].get_or_insert_with(|| plaintext.scale().clone());
        if scale == plaintext.scale() { Ok(()) } else { Err(CkksError::scales(OP, scale, plaintext.scale())) }
    }

    /// Number of limbs that products run over.
    fn limb_count(&self, context: &Context) -> usize {
        if self.hoisting == Hoisting::Double { context.qp_limbs(self.level) } else { self.level + 1 }
    }

    /// Words of one diagonal for one step of limb `i`.
    fn words(&self, context: &Context, i: usize) -> usize {
        step_words(context.qp_modulus(self.level, i), self.repeat)
    }

    /// Packs the diagonals from number `first` on.
    fn write(
        &self,
        context: &Context,
        map: &LinearMap,
        first: usize,
        plaintexts: &[Arc<QpPlaintext>],
        limbs: &mut [AlignedVec],
    ) {
        limbs.par_iter_mut().enumerate().for_each(|(i, out)| {
            let (m, words) = (context.qp_modulus(self.level, i), self.words(context, i));
            let mut values = vec![0; (STEP / self.repeat).max(1)];
            for (d, plaintext) in (first..).zip(plaintexts) {
                let sum = &map.sums[map.sums.partition_point(|s| s.diagonals.end <= d)].diagonals;
                let (limb, repeat) = (plaintext.limb(i), plaintext.repeat());
                for from in (0..context.n()).step_by(STEP) {
                    for (j, value) in values.iter_mut().enumerate() {
                        *value = limb[(from + j * self.repeat) / repeat];
                    }
                    let (block, step) = (from / self.block, from % self.block / STEP);
                    let at = self.start(block, sum.start) + step * sum.len() + d - sum.start;
                    pack_step(m, self.repeat, &values, &mut out[at * words..(at + 1) * words]);
                }
            }
        });
    }

    /// Where the sum whose first diagonal is number `diagonal` begins in a block, in diagonals times steps.
    fn start(&self, block: usize, diagonal: usize) -> usize {
        (block * self.count + diagonal) * (self.block / STEP)
    }

    /// The stream of a sum for the block of limb `i` that begins at position `from`.
    pub(super) fn stream(&self, context: &Context, i: usize, from: usize, sum: &Range<usize>) -> &[u64] {
        let words = self.words(context, i);
        let block = from / self.block;
        &self.limbs[i][self.start(block, sum.start) * words..self.start(block, sum.end) * words]
    }

    /// Positions of a block.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Shortest run of equal values.
    pub(super) fn repeat(&self) -> usize {
        self.repeat
    }

    /// Checks that these are the diagonals of a map for inputs with these levels and scales.
    pub(super) fn check(
        &self,
        context: &Context,
        map: &LinearMap,
        inputs: &[(usize, &Scale)],
        scale: &Scale,
    ) -> Result<()> {
        context.check_id(OP, self.id)?;
        let block = block_length(map.babies.len(), context.n());
        if self.count != map.baby_of.len() || self.scales.len() != map.in_blocks || self.block != block {
            return Err(CkksError::Parameters(format!("{OP}: made for another map")));
        }
        for (&(level, in_scale), own) in inputs.iter().zip(&self.scales) {
            if level != self.level {
                return Err(CkksError::LevelMismatch { op: OP, lhs: level, rhs: self.level });
            }
            let product = own.as_ref().map(|own| own.mul(in_scale));
            if let Some(product) = product.filter(|product| product != scale) {
                return Err(CkksError::scales(OP, &product, scale));
            }
        }
        Ok(())
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.limbs.iter().map(|limb| limb.len() * 8).sum()
    }

    /// Bytes that [`new`](Self::new) would hold for inputs at `level`.
    pub fn bytes_of(context: &Context, map: &LinearMap, level: usize, period: usize, hoisting: Hoisting) -> usize {
        let shape = Self {
            id: context.id(),
            level,
            hoisting: map.resolve(context, level, hoisting),
            count: map.baby_of.len(),
            scales: Vec::new(),
            repeat: (context.slots() / period.clamp(1, context.slots()).next_power_of_two()).min(STEP),
            block: 0,
            limbs: Vec::new(),
        };
        let words: usize = (0..shape.limb_count(context)).map(|i| shape.words(context, i)).sum();
        shape.count * context.n().div_ceil(STEP) * words * 8
    }

    /// Level of the inputs that the diagonals are made for.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Whether babies are divided by `P`.
    pub fn hoisting(&self) -> Hoisting {
        self.hoisting
    }
}
