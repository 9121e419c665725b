//! Which steps of the giants there are to choose from, and what each asks for.

use super::{BsgsPlan, BsgsWeights, DiagonalIndex, Grid, check_modulus, normalise};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// A candidate for the step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct BsgsChoice {
    /// The step, for [`BsgsPlan::new`].
    pub n1: usize,
    /// Its weighted price.
    pub cost: f64,
    /// Rotations that need a key; see [`BsgsPlan::rotations`].
    pub rotations: Vec<i64>,
}

/// The candidates for `n1` of a set of diagonals: powers of two, small integers, and the differences between indices with their
/// divisors. Rotations are counted once for all prices.
#[derive(Clone, Debug)]
pub struct BsgsSteps {
    modulus: usize,
    set: Vec<DiagonalIndex>,
    /// Every grid of every candidate, those of one `n1` side by side.
    counted: Vec<Candidate>,
}

/// A grid and what it asks for.
#[derive(Clone, Debug)]
struct Candidate {
    grid: Grid,
    counts: Counts,
    /// [`BsgsPlan::rotations`], once somebody asked.
    rotations: OnceLock<Vec<i64>>,
}

impl BsgsSteps {
    /// Counts the rotations of all candidates.
    ///
    /// # Panics
    /// When `modulus` is not a power of two.
    pub fn new(modulus: usize, diagonals: &[DiagonalIndex]) -> Self {
        check_modulus(modulus);
        let set = normalise(modulus, diagonals);
        let grids: Vec<Grid> = candidates(modulus, &set).into_iter().flat_map(|n1| Grid::all(n1, modulus)).collect();
        let each = grids.len().div_ceil(rayon::current_num_threads());
        let count = |grids: &[Grid]| {
            let mut counter = Counter::new(modulus, &set);
            let candidate =
                |&grid: &Grid| Candidate { grid, counts: counter.count(&set, grid), rotations: OnceLock::new() };
            grids.iter().map(candidate).collect::<Vec<_>>()
        };
        let counted = grids.par_chunks(each).flat_map_iter(count).collect();
        Self { modulus, set, counted }
    }

    /// The cheapest plan.
    pub fn cheapest(&self, weights: &BsgsWeights) -> BsgsPlan {
        BsgsPlan::build(self.modulus, &self.set, self.cheapest_grid(weights))
    }

    /// The step of the cheapest plan.
    pub fn cheapest_step(&self, weights: &BsgsWeights) -> usize {
        self.cheapest_grid(weights).n1 as usize
    }

    fn cheapest_grid(&self, weights: &BsgsWeights) -> Grid {
        let cost = |c: &Candidate| c.counts.cost(self.set.len(), weights);
        let best = self.counted.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
        best.expect("there is at least one candidate").grid
    }

    /// The cheapest candidates for `n1` and what they ask for, cheapest first: at most `count`, and none that costs more than
    /// `most` times as much as the first.
    pub fn choices(&self, weights: &BsgsWeights, (count, most): (usize, f64)) -> Vec<BsgsChoice> {
        let steps = self.counted.chunk_by(|a, b| a.grid.n1 == b.grid.n1);
        // The grid that a plan with this step takes.
        let best = steps.filter_map(|grids| grids.iter().min_by_key(|c| c.counts.rotations()));
        let mut priced: Vec<(f64, &Candidate)> = best.map(|c| (c.counts.cost(self.set.len(), weights), c)).collect();
        priced.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.grid.n1.cmp(&b.1.grid.n1)));
        let limit = priced.first().map_or(0.0, |(cost, _)| cost * most);
        priced.truncate(count);
        priced.retain(|(cost, _)| *cost <= limit);
        let rotations = |c: &Candidate| BsgsPlan::build(self.modulus, &self.set, c.grid).rotations();
        let choice = |(cost, c): (f64, &Candidate)| BsgsChoice {
            n1: c.grid.n1 as usize,
            cost,
            rotations: c.rotations.get_or_init(|| rotations(c)).clone(),
        };
        priced.into_iter().map(choice).collect()
    }
}

/// Steps worth trying, ascending, without repetition; at least the modulus itself.
fn candidates(modulus: usize, set: &[DiagonalIndex]) -> Vec<usize> {
    /// Differences kept: the most frequent ones carry the structure (row, plane and block strides).
    const DIFFERENCES: usize = 24;
    let mut steps: BTreeSet<usize> = (0..=modulus.trailing_zeros()).map(|e| 1 << e).collect();
    // All small integers, as far as trying them stays within some tens of milliseconds.
    let affordable = (1_000_000 / set.len().max(1)).min(1024);
    steps.extend(1..=affordable.max(2 * set.len().isqrt() + 2));
    let mut differences = BTreeMap::new();
    let indices: Vec<i64> = set.iter().map(|d| d.index).collect::<BTreeSet<_>>().into_iter().collect();
    for distance in 1..=4.min(indices.len().saturating_sub(1)) {
        for pair in indices.windows(distance + 1) {
            *differences.entry(pair[distance] - pair[0]).or_insert(0usize) += 1;
        }
    }
    let mut ranked: Vec<(usize, i64)> = differences.into_iter().map(|(d, count)| (count, d)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    for &(_, difference) in ranked.iter().take(DIFFERENCES) {
        let difference = difference as usize;
        for divisor in 1..=difference.isqrt() {
            if difference.is_multiple_of(divisor) {
                steps.extend([divisor, difference / divisor]);
            }
        }
        // Multiples group several rows or planes into one giant.
        steps.extend((2..=8).map(|k| k * difference));
    }
    steps.retain(|&s| s <= modulus);
    steps.into_iter().collect()
}

/// What a grid asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) decompositions: usize,
    pub(super) babies: usize,
    pub(super) giants: usize,
}

impl Counts {
    pub(super) fn rotations(&self) -> usize {
        self.babies + self.giants
    }

    pub(super) fn cost(&self, products: usize, w: &BsgsWeights) -> f64 {
        w.decompose * self.decompositions as f64
            + w.baby * self.babies as f64
            + w.giant * self.giants as f64
            + w.product * products as f64
    }
}

/// Counts distinct babies and giants of many grids without allocating.
pub(super) struct Counter {
    modulus: usize,
    /// Round in which `(block, rotation)` was last seen.
    baby_seen: Vec<u32>,
    giant_seen: Vec<u32>,
    input_seen: Vec<u32>,
    round: u32,
}

impl Counter {
    pub(super) fn new(modulus: usize, set: &[DiagonalIndex]) -> Self {
        let blocks = |f: fn(&DiagonalIndex) -> usize| set.iter().map(f).max().map_or(0, |m| m + 1);
        let (inputs, outputs) = (blocks(|d| d.in_block), blocks(|d| d.out_block));
        Self {
            modulus,
            baby_seen: vec![0; inputs * modulus],
            giant_seen: vec![0; outputs * modulus],
            input_seen: vec![0; inputs],
            round: 0,
        }
    }

    /// Counts for a set of indices in `[0, modulus)`.
    pub(super) fn count(&mut self, set: &[DiagonalIndex], grid: Grid) -> Counts {
        self.round += 1;
        let round = self.round;
        let mut counts = Counts { decompositions: 0, babies: 0, giants: 0 };
        let first = |seen: &mut u32| std::mem::replace(seen, round) != round;
        for d in set {
            let (baby, giant) = grid.slots(d.index, self.modulus);
            if baby != 0 {
                counts.babies += usize::from(first(&mut self.baby_seen[d.in_block * self.modulus + baby]));
                counts.decompositions += usize::from(first(&mut self.input_seen[d.in_block]));
            }
            if giant != 0 {
                counts.giants += usize::from(first(&mut self.giant_seen[d.out_block * self.modulus + giant]));
            }
        }
        counts
    }
}
