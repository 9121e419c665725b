//! The cost model: what operations take on one thread, and how many bytes things have.
//!
//! Every operation is a sum of a few elementary loops (transforms, products with accumulation, base
//! conversions, …) whose price per element is a parameter of [`CostTable`]. The built-in table was
//! fitted to the engine's benchmarks on a machine with AVX-512-IFMA; a table in JSON can replace it.

mod bytes;

use crate::layouts::LinearCost;
use crate::shape::{Shape, single_hoisting};
use fhec_math::bsgs::{BsgsTerm, BsgsWeights};
use fhec_math::buffer::HUGE_BYTES;
use fhec_math::chebyshev::{ChebyshevOp, ChebyshevOpKind, ChebyshevPlan};
use fhec_math::streamed::{StreamedMap, WINDOW};
use fhec_plan::Composed;
use fhec_plan::linear::LinearGroup;
use serde::{Deserialize, Serialize};

/// Prices in nanoseconds on one thread, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// One butterfly of a transform; a transform of a limb has `N/2 · log2 N`.
    pub butterfly: f64,
    /// One product with accumulation.
    pub multiply_accumulate: f64,
    /// One product of a diagonal and a baby, with accumulation: for maps of many diagonals both come from memory.
    pub diagonal: f64,
    /// One byte of a key or diagonal that comes from memory.
    pub stream: f64,
    /// One pointwise operation on an element in cache (product, sum, permutation).
    pub pointwise: f64,
    /// One term of a base conversion: one element, one source prime, one target prime.
    pub convert: f64,
    /// One butterfly of the complex FFT that encodes; a vector of period n has `n/2 · log2 n`.
    pub fft_butterfly: f64,
    /// Rounding one coefficient and reducing it modulo one prime.
    pub round: f64,
    /// Filling one entry of a diagonal from the weights.
    pub fill: f64,
    /// Bookkeeping of one operation.
    pub overhead: f64,
    /// One byte of memory that the process uses for the first time: the system has to find, clear and map it. In blocks too
    /// small for huge pages.
    pub touch: f64,
    /// The same in blocks that get huge pages.
    pub touch_huge: f64,
    /// Making one byte, packed, of the uniform half of a key from its seed.
    pub expand: f64,
    /// Reading one byte of a key file, check included.
    pub read_byte: f64,
    /// A bootstrap takes this many times what its parts cost: they find data in caches that single operations do not, and use
    /// paths of their own. Where it was not measured, 1.
    #[serde(default = "one")]
    pub bootstrap: f64,
    /// The same in rings below 2^16, where chains have many digits of few primes. Where it was not measured,
    /// [`bootstrap`](Self::bootstrap).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_small: Option<f64>,
    /// Part of the time on one thread that more threads do not shorten. Where it was not measured, that of the built-in table.
    #[serde(default = "sequential")]
    pub sequential: f64,
    /// Bytes of a process that has loaded nothing yet.
    pub base_memory: u64,
}

fn one() -> f64 {
    1.0
}

/// Two threads bootstrap in 0.56 of the time of one.
fn sequential() -> f64 {
    0.127
}

impl Default for CostTable {
    /// The built-in table; see [`crate::cost_file`].
    fn default() -> Self {
        crate::cost_file::built_in().prices.clone()
    }
}

/// Prices of operations for one shape, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Prices<'a> {
    table: &'a CostTable,
    shape: &'a Shape,
}

impl CostTable {
    /// Prices for parameters of `shape`.
    pub fn prices<'a>(&'a self, shape: &'a Shape) -> Prices<'a> {
        Prices { table: self, shape }
    }

    /// Prices at one limb by which layouts are compared, before levels are known: those of a middling level, divided by
    /// its number of limbs, special ones included.
    pub fn linear_cost(&self, log_n: u32) -> LinearCost {
        const LEVEL: usize = 4;
        let shape = Shape::nominal(log_n, LEVEL + 2);
        let prices = self.prices(&shape);
        let share = 1.0 / (LEVEL + 2) as f64;
        let w = prices.linear_weights(LEVEL);
        let bsgs = BsgsWeights {
            decompose: w.decompose * share,
            baby: w.baby * share,
            giant: w.giant * share,
            product: w.product * share,
        };
        let product = prices.multiply(LEVEL) + prices.relinearise(LEVEL) + prices.rescale(LEVEL, 2);
        LinearCost {
            bsgs,
            fold: prices.rotate(LEVEL) * share,
            product: product * share,
            scalar: prices.scalar_products(LEVEL, 1) * share,
            output: prices.rescale(LEVEL, 2) * share,
        }
    }
}

impl Prices<'_> {
    fn n(&self) -> f64 {
        self.shape.n()
    }

    /// Prices by the same table for another shape.
    pub(crate) fn of<'b>(&'b self, shape: &'b Shape) -> Prices<'b> {
        Prices { table: self.table, shape }
    }

    /// How bootstraps compare with the sum of their parts.
    pub(crate) fn bootstrap_factor(&self) -> f64 {
        let small = self.table.bootstrap_small.filter(|_| self.shape.log_n < 16);
        small.unwrap_or(self.table.bootstrap)
    }

    /// The shape that is priced.
    pub(crate) fn shape(&self) -> &Shape {
        self.shape
    }

    /// Transform of `limbs` limbs.
    pub(crate) fn transforms(&self, limbs: f64) -> f64 {
        Self::seconds(self.ntt(limbs))
    }

    /// Division of both parts by P, and by the last prime too if `rescale`.
    pub(crate) fn mod_down(&self, level: usize, rescale: bool) -> f64 {
        Self::seconds(self.mod_down_ns(level, 2.0, rescale))
    }

    /// Limbs of the chain at a level.
    fn chain(&self, level: usize) -> f64 {
        (level + 1) as f64
    }

    /// Special primes that a key switch at a level takes.
    fn special(&self, level: usize) -> f64 {
        self.shape.special_at(level) as f64
    }

    fn seconds(nanoseconds: f64) -> f64 {
        nanoseconds * 1e-9
    }

    /// Transform of `limbs` limbs, in nanoseconds.
    fn ntt(&self, limbs: f64) -> f64 {
        limbs * self.n() / 2.0 * f64::from(self.shape.log_n) * self.table.butterfly
    }

    fn mac(&self, limbs: f64) -> f64 {
        limbs * self.n() * self.table.multiply_accumulate
    }

    /// Products of a diagonal with both parts of a baby, in nanoseconds.
    fn diagonal(&self, limbs: f64) -> f64 {
        2.0 * limbs * self.n() * self.table.diagonal
    }

    fn pointwise(&self, limbs: f64) -> f64 {
        limbs * self.n() * self.table.pointwise
    }

    fn convert(&self, from: f64, to: f64) -> f64 {
        from * to * self.n() * self.table.convert
    }

    /// Raising a polynomial to all digits.
    fn decompose_ns(&self, level: usize) -> f64 {
        let (chain, all) = (self.chain(level), self.chain(level) + self.special(level));
        let mut sum = self.ntt(chain) + self.table.overhead;
        for r in self.shape.digit_ranges().filter(|r| r.start <= level) {
            let own = (r.end.min(level + 1) - r.start) as f64;
            sum += self.convert(own, all - own) + self.ntt(all - own);
        }
        sum
    }

    /// Inner product of raised digits with a key, both parts.
    fn inner_product_ns(&self, level: usize) -> f64 {
        let all = self.chain(level) + self.special(level);
        let digits = self.shape.digits_at(level) as f64;
        let stream = self.key_bytes(level) as f64 * self.table.stream;
        self.mac(2.0 * digits * all) + stream + self.pointwise(3.0 * all) + self.table.overhead
    }

    /// Division of `parts` polynomials by P, and by the last prime too if `rescale`.
    fn mod_down_ns(&self, level: usize, parts: f64, rescale: bool) -> f64 {
        let extra = f64::from(u8::from(rescale));
        let (from, to) = (self.special(level) + extra, self.chain(level) - extra);
        parts * (self.ntt(from + to) + self.convert(from, to) + self.pointwise(to)) + self.table.overhead
    }

    /// A rotation by itself.
    pub fn rotate(&self, level: usize) -> f64 {
        Self::seconds(self.expand_ns(level)) + self.relinearise(level)
    }

    /// Relinearisation.
    pub fn relinearise(&self, level: usize) -> f64 {
        Self::seconds(
            self.decompose_ns(level)
                + self.inner_product_ns(level)
                + self.mod_down_ns(level, 2.0, false)
                + self.pointwise(2.0 * self.chain(level)),
        )
    }

    /// Making the uniform half of a Galois key, as the first run with it does: only plans that bootstrap keep them.
    fn expand_ns(&self, level: usize) -> f64 {
        match self.shape.bootstrap {
            Some(_) => 0.0,
            None => self.key_bytes(level) as f64 / 2.0 * self.table.expand,
        }
    }

    /// Making the uniform halves of the keys of a group's rotations.
    pub fn expand(&self, level: usize, group: &LinearGroup, outputs: usize) -> f64 {
        let switches = (group.bsgs.baby_switches() + group.bsgs.giant_switches()) as f64;
        let folds = (outputs * group.fold.len()) as f64;
        Self::seconds(switches * self.expand_ns(level) + folds * self.expand_ns(level.saturating_sub(1)))
    }

    /// Relinearisation and rescale in one division.
    pub fn relinearise_rescale(&self, level: usize) -> f64 {
        Self::seconds(self.decompose_ns(level) + self.inner_product_ns(level) + self.mod_down_ns(level, 2.0, true))
    }

    /// Rescale of `polys` polynomials.
    pub fn rescale(&self, level: usize, polys: usize) -> f64 {
        let chain = self.chain(level);
        let one = self.ntt(chain) + self.convert(1.0, chain - 1.0) + self.pointwise(chain);
        Self::seconds(polys as f64 * one + self.table.overhead)
    }

    /// Product of two ciphertexts, without relinearisation.
    pub fn multiply(&self, level: usize) -> f64 {
        Self::seconds(self.pointwise(5.0 * self.chain(level)) + self.table.overhead)
    }

    /// Product of the parts of the slots of two ciphertexts, without relinearisation: conjugations, sums and differences, and two
    /// products with a scalar in one of them. The key of the conjugation is kept whole.
    pub fn multiply_parts(&self, level: usize, conjugations: usize) -> f64 {
        let each = self.relinearise(level) + Self::seconds(self.pointwise(4.0 * self.chain(level)));
        conjugations as f64 * each + 2.0 * self.multiply(level) + self.elementwise(level, 2)
    }

    /// Sums, and products with scalars, of `polys` polynomials.
    pub fn elementwise(&self, level: usize, polys: usize) -> f64 {
        Self::seconds(self.pointwise(polys as f64 * self.chain(level)) + self.table.overhead)
    }

    /// Encoding a real vector of the given period with `limbs` limbs, filling it included.
    fn encode(&self, period: usize, limbs: f64) -> f64 {
        let n = period as f64;
        let log = n.log2().max(1.0);
        // The transform of a vector of period n is that of a ring of degree 2n; that of a real one costs half, as does its FFT.
        let transforms = limbs * n / 2.0 * (log + 1.0) * self.table.butterfly;
        Self::seconds(
            n / 4.0 * log * self.table.fft_butterfly
                + n * limbs * self.table.round
                + transforms
                + n * self.table.fill
                + self.table.overhead,
        )
    }

    /// Encoding a vector for a product or sum at a level.
    pub fn encode_plain(&self, period: usize, level: usize) -> f64 {
        self.encode(period, self.chain(level))
    }

    /// Encoding one diagonal over the chain and the special primes.
    pub fn encode_diagonal(&self, period: usize, level: usize) -> f64 {
        self.encode(period, self.chain(level) + self.special(level))
    }

    /// Encoding the diagonals of a group.
    pub fn encode_diagonals(&self, level: usize, group: &LinearGroup, period: usize) -> f64 {
        let special = if single_hoisting(self.shape, level, group) { 0.0 } else { self.special(level) };
        group.bsgs.products() as f64 * self.encode(period, self.chain(level) + special)
    }

    /// Using so many bytes of memory for the first time, in blocks of the size of a polynomial at a level.
    pub fn touch(&self, level: usize, bytes: u64) -> f64 {
        let huge = self.ciphertext_bytes(level) / 2 >= HUGE_BYTES as u64;
        Self::seconds(bytes as f64 * if huge { self.table.touch_huge } else { self.table.touch })
    }

    /// Limbs of the chain and the one special prime of switches from the sparse secret.
    fn raised_limbs(&self, level: usize) -> f64 {
        self.chain(level) + 1.0
    }

    /// Inner product with a key from the sparse secret, both parts.
    pub(crate) fn raised_inner_product(&self, level: usize) -> f64 {
        let all = self.raised_limbs(level);
        let stream = 2.0 * self.raised_bytes(level, None) as f64 * self.n() * self.table.stream;
        Self::seconds(self.mac(2.0 * all) + stream + self.pointwise(3.0 * all) + self.table.overhead)
    }

    /// Product of such a sum with a diagonal.
    pub(crate) fn raised_product(&self, level: usize) -> f64 {
        Self::seconds(self.mac(2.0 * self.raised_limbs(level)))
    }

    /// Division of both parts by that special prime.
    pub(crate) fn raised_division(&self, level: usize) -> f64 {
        let all = self.raised_limbs(level);
        Self::seconds(2.0 * (self.ntt(all) + self.convert(1.0, all) + self.pointwise(all)) + self.table.overhead)
    }

    /// Prices of the parts of a linear map at a level, in seconds.
    pub fn linear_weights(&self, level: usize) -> BsgsWeights {
        let all = self.chain(level) + self.special(level);
        BsgsWeights {
            decompose: Self::seconds(self.decompose_ns(level)),
            baby: Self::seconds(self.inner_product_ns(level)),
            giant: Self::seconds(
                self.mod_down_ns(level, 1.0, false)
                    + self.decompose_ns(level)
                    + self.inner_product_ns(level)
                    + self.pointwise(2.0 * all),
            ),
            product: Self::seconds(self.diagonal(all)),
        }
    }

    /// Evaluating one group of terms whose inputs are at `level`, with rescale and folds, diagonals being encoded.
    pub fn linear(&self, level: usize, group: &LinearGroup, outputs: usize) -> f64 {
        let w = self.linear_weights(level);
        let bsgs = &group.bsgs;
        let mut sum = bsgs.cost(&w);
        if single_hoisting(self.shape, level, group) {
            // Babies are divided; products and giants then do without the special primes.
            let special = self.special(level);
            sum += bsgs.baby_switches() as f64 * Self::seconds(self.mod_down_ns(level, 2.0, false));
            sum -= bsgs.giant_switches() as f64 * Self::seconds(self.mod_down_ns(level, 1.0, false));
            sum -= bsgs.products() as f64 * Self::seconds(self.diagonal(special));
        }
        sum += outputs as f64 * Self::seconds(self.mod_down_ns(level, 2.0, true));
        sum + (outputs * group.fold.len()) as f64 * self.relinearise(level.saturating_sub(1))
    }

    /// What rotations that are made of two cost more than others.
    pub fn composed(&self, level: usize, composed: Composed, outputs: usize) -> f64 {
        let Composed { babies, giants, folds } = composed;
        // Such a baby is not hoisted.
        let baby = 2.0 * self.rotate(level) - self.linear_weights(level).baby;
        let more = babies as f64 * baby + giants as f64 * self.rotate(level);
        more + (outputs * folds) as f64 * self.rotate(level.saturating_sub(1))
    }

    /// log2 of the ring degree.
    pub fn log_n(&self) -> u32 {
        self.shape.log_n
    }

    /// So many products of ciphertexts with scalars, added up. Sums stay in registers and inputs in the cache.
    pub fn scalar_products(&self, level: usize, count: usize) -> f64 {
        count as f64 * Self::seconds(self.mac(2.0 * self.chain(level)))
    }

    /// Evaluating a map of so many products with scalars, with the rescales of its outputs.
    pub fn scalar_map(&self, level: usize, products: usize, outputs: usize) -> f64 {
        self.scalar_products(level, products) + outputs as f64 * self.rescale(level, 2)
    }

    /// Bringing so many scalars to the residues of all limbs.
    pub fn encode_scalars(&self, level: usize, count: usize) -> f64 {
        count as f64 * Self::seconds(self.table.fill + self.chain(level) * self.table.round)
    }

    /// Evaluating a polynomial whose argument is at `level`, for one ciphertext.
    pub fn polynomial(&self, level: usize, plan: &ChebyshevPlan) -> f64 {
        self.operations(level, &plan.operations())
    }

    /// The same by its list of operations.
    pub(crate) fn operations(&self, level: usize, operations: &[ChebyshevOp]) -> f64 {
        let mut relinearised = false;
        let price = |op: &ChebyshevOp| {
            let at = level - op.depth;
            // A relinearisation is followed by the rescale of its value, in one division.
            let fused = std::mem::replace(&mut relinearised, op.kind == ChebyshevOpKind::Relinearise);
            match op.kind {
                ChebyshevOpKind::Rescale if fused => 0.0,
                ChebyshevOpKind::Multiply | ChebyshevOpKind::Square => self.multiply(at),
                ChebyshevOpKind::ScalarMultiply => self.elementwise(at, 2 * op.polys),
                ChebyshevOpKind::ScalarAdd => self.elementwise(at, 1),
                ChebyshevOpKind::Add => self.elementwise(at, op.polys),
                ChebyshevOpKind::Relinearise => self.relinearise_rescale(at),
                ChebyshevOpKind::Rescale => self.rescale(at, op.polys),
            }
        };
        operations.iter().map(price).sum()
    }

    /// Making babies anew for every part of a map whose diagonals do not fit the engine's window.
    pub fn remade_babies(&self, level: usize, group: &LinearGroup, outputs: usize, period: usize) -> f64 {
        let map = self.streamed(level, group, outputs, (period, 0));
        if map.single {
            return 0.0;
        }
        let again = map.chunks(WINDOW).len().saturating_sub(1) * group.bsgs.baby_switches();
        again as f64 * self.linear_weights(level).baby
    }

    /// How the engine cuts the map, whose diagonals repeat after `period` slots and of whose babies `composed` take two rotations.
    fn streamed(
        &self,
        level: usize,
        group: &LinearGroup,
        outputs: usize,
        (period, composed): (usize, usize),
    ) -> StreamedMap {
        let bsgs = &group.bsgs;
        let same = |a: &BsgsTerm, b: &BsgsTerm| (a.giant, a.out_block) == (b.giant, b.out_block);
        StreamedMap {
            n: 1 << self.shape.log_n,
            chain: level + 1,
            special: self.shape.special_at(level),
            digits: self.shape.digits_at(level),
            single: single_hoisting(self.shape, level, group),
            babies: bsgs.babies().len(),
            composed,
            decomposed: bsgs.decompositions(),
            outputs,
            sums: bsgs.terms().chunk_by(same).map(<[_]>::len).collect(),
            period,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(log_n: u32, limbs: usize) -> Shape {
        Shape { log_n, log2_q: vec![40.0; limbs], log2_p: vec![49.0], digits: vec![1; limbs], bootstrap: None }
    }

    #[test]
    fn prices_grow_with_level_and_ring() {
        // Bookkeeping does not grow with the ring.
        let table = CostTable { overhead: 0.0, ..CostTable::default() };
        let (small, large) = (shape(13, 6), shape(14, 6));
        let (s, l) = (table.prices(&small), table.prices(&large));
        for level in 1..6 {
            assert!(s.rotate(level) > s.rotate(level - 1));
            assert!(s.rotate(level) > s.rescale(level, 2));
            assert!(l.rotate(level) > 2.0 * s.rotate(level) * 0.99);
            assert_eq!(s.key_bytes(level) * 2, l.key_bytes(level));
        }
        let w = s.linear_weights(5);
        assert!(w.giant > w.decompose.max(w.baby) && w.baby > w.product);
    }
}
