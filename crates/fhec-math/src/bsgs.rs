//! Baby-step giant-step plans for sums of rotated products (linear maps by diagonals).
//!
//! A matrix is given by diagonals: `out[k] = Σ_i d_i[k]·in[k + i]`. With every index written `i = g + b`,
//!
//! ```text
//! out = Σ_g rot_g( Σ_b rot_{−g}(d_{g+b}) ⊙ rot_b(in) ),
//! ```
//!
//! so that only the *babies* `b` (once for each input) and the *giants* `g` (once for each output) are rotations. Block
//! matrices, from several inputs to several outputs, share them that way (2020/1203 §4; `rot_k` is the left
//! rotation by `k`).
//!
//! With double hoisting a baby costs an inner product, a giant a whole key switch. [`BsgsPlan::choose`] therefore minimises
//! a weighted [`cost`](BsgsPlan::cost) and not the number of rotations.
//!
//! # Periods
//!
//! Input and output repeat with periods `p` and `h`, powers of two; diagonals have `max(p, h)` entries. Indices count
//! modulo `min(p, h)`, the *modulus* of the plan:
//!
//! * `h > p`: the input does not change under a rotation by `p`.
//! * `h ≤ p`: `d_i[k] = M[k mod h, (k + i) mod p]`, and rotations by `h, 2h, …, p/2` are added up at the end (the hybrid
//!   method). `d_{i+h}` holds the entries of `d_i` rotated by `h`, and that sum forgets the difference.
//!
//! Rotations are given in `(−modulus/2, modulus/2]`: a rotation by −1 has the same key in all maps of a network,
//! whatever their periods. [`BsgsTerm::source_row`] says which entry of which diagonal goes where.

mod steps;
#[cfg(test)]
mod tests;

pub use steps::{BsgsChoice, BsgsSteps};

use std::collections::BTreeSet;
use steps::{Counter, Counts};

/// A diagonal that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiagonalIndex {
    /// Output block (row of the block matrix).
    pub out_block: usize,
    /// Input block (column of the block matrix).
    pub in_block: usize,
    /// Index `i`, meant modulo the modulus of the plan.
    pub index: i64,
}

/// How one diagonal is computed.
///
/// The order is that of execution: giant, output block, input block, baby. It is the order in which a
/// `DiagonalSource` lists its plaintexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BsgsTerm {
    /// Rotation `g` of the sum, in `(−modulus/2, modulus/2]`.
    pub giant: i64,
    /// Output block.
    pub out_block: usize,
    /// Input block.
    pub in_block: usize,
    /// Rotation `b` of the input, in `(−modulus/2, modulus/2]`.
    pub baby: i64,
}

impl BsgsTerm {
    /// Index of the diagonal in `[0, modulus)`, where `modulus` is that of the plan.
    pub fn index(&self, modulus: usize) -> usize {
        (self.giant + self.baby).rem_euclid(modulus as i64) as usize
    }

    /// Where entry `k` of the plaintext that multiplies the baby comes from: the entry of the diagonal
    /// [`index`](Self::index), of the length `max(in_period, out_period)` that the plaintext has too.
    pub fn source_row(&self, k: usize, in_period: usize, out_period: usize) -> usize {
        if out_period <= in_period {
            // giant + baby may differ from the index by multiples of h, and so do the columns then.
            (k as i64 + self.baby - self.index(out_period) as i64).rem_euclid(in_period as i64) as usize
        } else {
            (k as i64 - self.giant).rem_euclid(out_period as i64) as usize
        }
    }
}

/// Prices of the parts of a double-hoisted linear map, in any unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BsgsWeights {
    /// Decomposition of an input that has a baby other than 0.
    pub decompose: f64,
    /// One baby: inner product with a key and a permutation.
    pub baby: f64,
    /// One giant of one output: ModDown of one part, decomposition, inner product, permutation.
    pub giant: f64,
    /// One product of a diagonal with both parts of a baby.
    pub product: f64,
}

impl Default for BsgsWeights {
    /// Shares of a key switch, as measured at ten limbs and three digits.
    fn default() -> Self {
        Self { decompose: 0.5, baby: 0.15, giant: 1.0, product: 0.03 }
    }
}

/// A plan for a linear map: every diagonal with its baby and its giant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BsgsPlan {
    modulus: usize,
    n1: usize,
    terms: Vec<BsgsTerm>,
    babies: Vec<(usize, i64)>,
    giants: Vec<(usize, i64)>,
}

/// `i` modulo `n`, in `(−n/2, n/2]`.
pub fn centred(i: i64, n: usize) -> i64 {
    let n = n as i64;
    let r = i.rem_euclid(n);
    if 2 * r > n { r - n } else { r }
}

/// Where the multiples of `n1` that giants are begin, and in which range indices are taken first.
#[derive(Clone, Copy, Debug)]
struct Grid {
    n1: i64,
    /// Babies are `−offset … n1 − 1 − offset`.
    offset: i64,
    /// Whether indices are first reduced to `(−modulus/2, modulus/2]` (otherwise to `[0, modulus)`).
    centred: bool,
}

impl Grid {
    /// Every way to place a grid of step `n1`. Where it divides the modulus all ranges of indices are the same.
    fn all(n1: usize, modulus: usize) -> impl Iterator<Item = Self> {
        let step = n1 as i64;
        let offsets = if n1 > 2 { vec![0, step / 2] } else { vec![0] };
        let ranges: &[bool] = if modulus.is_multiple_of(n1) { &[true] } else { &[true, false] };
        offsets
            .into_iter()
            .flat_map(move |offset| ranges.iter().map(move |&centred| Self { n1: step, offset, centred }))
    }

    /// `(baby, giant)` of a diagonal with an index in `[0, modulus)`, both in `[0, modulus)`.
    fn slots(&self, index: i64, modulus: usize) -> (usize, usize) {
        let i = if self.centred && 2 * index > modulus as i64 { index - modulus as i64 } else { index };
        let baby = (i + self.offset).rem_euclid(self.n1) - self.offset;
        let slot = |r: i64| r as usize & (modulus - 1);
        (slot(baby), slot(i - baby))
    }

    /// [`slots`](Self::slots) as rotations, both in `(−modulus/2, modulus/2]`.
    fn split(&self, index: i64, modulus: usize) -> (i64, i64) {
        let (baby, giant) = self.slots(index, modulus);
        (centred(baby as i64, modulus), centred(giant as i64, modulus))
    }
}

impl BsgsPlan {
    /// Splits every index at multiples of `n1`, on the grid that needs the fewest rotations.
    ///
    /// Repeated diagonals count once. `n1` beyond the modulus means the modulus: no giants at all.
    ///
    /// # Panics
    /// When `modulus` is not a power of two or `n1` is 0.
    pub fn new(modulus: usize, diagonals: &[DiagonalIndex], n1: usize) -> Self {
        check_modulus(modulus);
        assert!(n1 > 0, "the baby range is empty");
        let set = normalise(modulus, diagonals);
        let mut counter = Counter::new(modulus, &set);
        let grid = Grid::all(n1.min(modulus), modulus)
            .min_by_key(|&grid| counter.count(&set, grid).rotations())
            .expect("there is at least one grid");
        Self::build(modulus, &set, grid)
    }

    /// The cheapest plan over all candidates for `n1`; see [`BsgsSteps`].
    ///
    /// # Panics
    /// When `modulus` is not a power of two.
    pub fn choose(modulus: usize, diagonals: &[DiagonalIndex], weights: &BsgsWeights) -> Self {
        BsgsSteps::new(modulus, diagonals).cheapest(weights)
    }

    fn build(modulus: usize, set: &[DiagonalIndex], grid: Grid) -> Self {
        let mut terms: Vec<BsgsTerm> = set
            .iter()
            .map(|d| {
                let (baby, giant) = grid.split(d.index, modulus);
                BsgsTerm { giant, out_block: d.out_block, in_block: d.in_block, baby }
            })
            .collect();
        terms.sort_unstable();
        Self::collect(modulus, grid.n1 as usize, terms)
    }

    fn collect(modulus: usize, n1: usize, terms: Vec<BsgsTerm>) -> Self {
        let babies: BTreeSet<_> = terms.iter().map(|t| (t.in_block, t.baby)).collect();
        let giants: BTreeSet<_> = terms.iter().map(|t| (t.out_block, t.giant)).collect();
        Self { modulus, n1, terms, babies: babies.into_iter().collect(), giants: giants.into_iter().collect() }
    }

    /// What indices count modulo: the smaller of the periods of input and output.
    pub fn modulus(&self) -> usize {
        self.modulus
    }

    /// Step of the giants.
    pub fn n1(&self) -> usize {
        self.n1
    }

    /// All diagonals in the order of execution.
    pub fn terms(&self) -> &[BsgsTerm] {
        &self.terms
    }

    /// `(input block, baby)` pairs, the baby 0 included, sorted.
    pub fn babies(&self) -> &[(usize, i64)] {
        &self.babies
    }

    /// `(output block, giant)` pairs, the giant 0 included, sorted.
    pub fn giants(&self) -> &[(usize, i64)] {
        &self.giants
    }

    /// Number of products, one a diagonal.
    pub fn products(&self) -> usize {
        self.terms.len()
    }

    /// Babies that are key switches.
    pub fn baby_switches(&self) -> usize {
        self.babies.iter().filter(|b| b.1 != 0).count()
    }

    /// Giants that are key switches.
    pub fn giant_switches(&self) -> usize {
        self.giants.iter().filter(|g| g.1 != 0).count()
    }

    /// Inputs that must be decomposed: those with a baby other than 0.
    pub fn decompositions(&self) -> usize {
        self.babies.iter().filter(|b| b.1 != 0).map(|b| b.0).collect::<BTreeSet<_>>().len()
    }

    /// All rotations that need a key, in `(−modulus/2, modulus/2]`, without 0, ascending.
    pub fn rotations(&self) -> Vec<i64> {
        let all = self.babies.iter().chain(&self.giants).map(|r| r.1).filter(|&r| r != 0);
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Weighted price.
    pub fn cost(&self, weights: &BsgsWeights) -> f64 {
        let counts = Counts {
            decompositions: self.decompositions(),
            babies: self.baby_switches(),
            giants: self.giant_switches(),
        };
        counts.cost(self.products(), weights)
    }
}

fn check_modulus(modulus: usize) {
    assert!(modulus.is_power_of_two(), "modulus {modulus} is not a power of two");
}

/// Indices modulo the modulus, sorted, each once.
fn normalise(modulus: usize, diagonals: &[DiagonalIndex]) -> Vec<DiagonalIndex> {
    let mut set: Vec<DiagonalIndex> =
        diagonals.iter().map(|d| DiagonalIndex { index: d.index.rem_euclid(modulus as i64), ..*d }).collect();
    set.sort_unstable();
    set.dedup();
    set
}
