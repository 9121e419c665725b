//! Diagonals of a [`Matrix`], found without visiting its points.
//!
//! Loops that move row and column alike (pixels of a convolution whose layouts share a grid) leave
//! the diagonal unchanged; only the other loops (channels, kernel taps) are enumerated. A diagonal is
//! then a list of *runs*: one combination of the enumerated loops plus a box of the others.
//!
//! Between ciphertexts that hold one element each every entry is a diagonal; those are not listed, see [`Rows`].

mod enumerate;

pub(super) use enumerate::narrow;

use super::{Matrix, Nest, NestWeights, Rows};
use crate::structure::{Budget, max_box, reach};
use crate::{TensorId, Weights};
use enumerate::{Extent, Extents, Split, enumerate, split, walk};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names one generalised diagonal of a block matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiagonalKey {
    /// Output ciphertext.
    pub out_block: u32,
    /// Input ciphertext.
    pub in_block: u32,
    /// Rotation, `0 ≤ index < min(in_period, out_period)`.
    pub index: u32,
}

/// One combination of the enumerated loops of a nest.
#[derive(Clone, Copy, Debug)]
struct Run {
    nest: u32,
    bounds: u32,
    row: u32,
    col: u32,
    weight: i64,
}

/// Memory of a box of parallel loops, in runs.
const BOX_RUNS: usize = 16;

/// The non-empty diagonals of a matrix, each with the runs that fill it; where ciphertexts hold one element, its
/// [rows](Self::rows) instead.
#[derive(Clone)]
pub struct Diagonals {
    /// What there is instead of all else where ciphertexts hold one element.
    rows: Option<Rows>,
    keys: Vec<DiagonalKey>,
    /// `runs[starts[i]..starts[i + 1]]` fill diagonal `i`.
    starts: Vec<usize>,
    runs: Vec<Run>,
    /// Index ranges of the parallel loops, each kept once a nest.
    bounds: Vec<Vec<(usize, usize)>>,
    splits: Vec<Split>,
}

impl std::fmt::Debug for Diagonals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (diagonals, runs) = (self.len(), self.runs());
        f.debug_struct("Diagonals").field("len", &diagonals).field("runs", &runs).finish_non_exhaustive()
    }
}

impl Diagonals {
    /// Enumerates the diagonals of `matrix`, sorted by output block, input block and index.
    ///
    /// # Panics
    /// When a row or column lies outside the matrix; use [`Diagonals::checked`] on foreign matrices.
    pub fn of(matrix: &Matrix) -> Self {
        Self::build(matrix, &mut Budget { ..Budget::NONE }, |_| None).expect("rows and columns lie inside the matrix")
    }

    /// [`Diagonals::of`] for a structurally sound matrix that is not trusted further. `tensor_len` gives
    /// the number of elements of a tensor; what is enumerated is taken from `budget`.
    ///
    /// # Errors
    /// A row, column or weight index that does not exist, an unknown tensor, more points of parallel loops than
    /// the matrix has place for, or more combinations of enumerated loops than the budget has.
    pub fn checked(
        matrix: &Matrix,
        budget: &mut Budget,
        tensor_len: impl Fn(TensorId) -> Option<usize>,
    ) -> Result<Self, String> {
        Self::build(matrix, budget, |nest| nest.tensor.map(|t| tensor_len(t).unwrap_or(0)))
    }

    /// `weights` gives the number of weights that a nest may use, `None` for any.
    fn build(matrix: &Matrix, budget: &mut Budget, weights: impl Fn(&Nest) -> Option<usize>) -> Result<Self, String> {
        if matrix.slots == 1 {
            let rows = Some(Rows::build(matrix, budget, weights)?);
            let (keys, starts, runs, bounds, splits) = (vec![], vec![], vec![], vec![], vec![]);
            return Ok(Diagonals { rows, keys, starts, runs, bounds, splits });
        }
        let place = Place::of(matrix);
        let mut bounds: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut found: Vec<Run> = Vec::new();
        let mut splits = Vec::new();
        let largest = max_box(place.rows as usize, place.columns as usize);
        for (number, nest) in matrix.nests.iter().enumerate() {
            let split = split(matrix, nest, budget).map_err(|e| format!("nest {number}: {e}"))?;
            let extents = Extents::new(nest, &split);
            let available = weights(nest).map_or(i64::MAX, |n| n as i64);
            let mut outside = None;
            let (mut runs, mut too_many, mut too_large) = (budget.runs, false, false);
            let mut known: BTreeMap<Vec<(usize, usize)>, (u32, Extent)> = BTreeMap::new();
            // The box of the run before, which most runs share.
            let mut last: Option<(u32, Extent)> = None;
            enumerate(nest, &split, |row, col, weight, ranges| {
                let (at, extent) = match last {
                    Some(last) if bounds[last.0 as usize] == ranges => last,
                    _ => match known.get(ranges) {
                        Some(&found) => found,
                        None => {
                            let points = ranges.iter().fold(1usize, |n, (lo, hi)| n.saturating_mul(hi - lo));
                            too_large |= points > largest;
                            let new = (bounds.len() as u32, extents.of(&split, ranges));
                            if runs < BOX_RUNS {
                                too_many = true;
                                return;
                            }
                            runs -= BOX_RUNS;
                            bounds.push(ranges.to_vec());
                            known.insert(ranges.to_vec(), new);
                            new
                        }
                    },
                };
                last = Some((at, extent));
                let inside = |at: i64, (lo, hi): (i64, i64), end: i64| at + lo >= 0 && at + hi < end;
                let sound = inside(row, extent.step, place.rows)
                    && inside(col, extent.step, place.columns)
                    && (available == i64::MAX || inside(weight, extent.weight, available));
                if !sound {
                    outside = Some((row, col, weight));
                    return;
                }
                if runs == 0 {
                    too_many = true;
                    return;
                }
                runs -= 1;
                found.push(Run { nest: number as u32, bounds: at, row: row as u32, col: col as u32, weight });
            });
            if too_large {
                return Err(format!("nest {number}: more than {largest} points on one diagonal"));
            }
            if too_many {
                return Err(format!("nest {number}: more runs than its weights justify"));
            }
            budget.runs = runs;
            if let Some((row, col, weight)) = outside {
                return Err(format!(
                    "nest {number}: near row {row}, column {col}, weight {weight} it leaves the matrix of \
                     {} x {} slots or its {available} weights",
                    place.rows, place.columns
                ));
            }
            splits.push(split);
        }
        let runs = sort(found, place.keys(), |run| place.key(run.row.into(), run.col.into()));
        let mut keys = Vec::new();
        let mut starts = Vec::new();
        let mut last = None;
        for (i, run) in runs.iter().enumerate() {
            let key = place.key(run.row.into(), run.col.into());
            if last != Some(key) {
                last = Some(key);
                keys.push(place.diagonal(key));
                starts.push(i);
            }
        }
        starts.push(runs.len());
        Ok(Diagonals { rows: None, keys, starts, runs, bounds, splits })
    }

    /// The diagonals in order; none where ciphertexts hold one element.
    pub fn keys(&self) -> &[DiagonalKey] {
        &self.keys
    }

    /// Where ciphertexts hold one element, and every diagonal is an entry: the rows of the matrix.
    pub fn rows(&self) -> Option<&Rows> {
        self.rows.as_ref()
    }

    /// Number of diagonals.
    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.keys.len(), Rows::len)
    }

    /// Number of runs over all diagonals, the measure of the memory held here.
    pub fn runs(&self) -> usize {
        self.rows.as_ref().map_or(self.runs.len(), Rows::parts)
    }

    /// Bytes held, next to nothing left out.
    pub fn bytes(&self) -> usize {
        let keys = self.keys.len() * (size_of::<DiagonalKey>() + size_of::<usize>());
        self.runs.len() * size_of::<Run>() + keys + self.rows.as_ref().map_or(0, Rows::bytes)
    }

    /// True for the zero matrix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills diagonal number `at` into `out` (length [`Matrix::diagonal_period`], overwritten).
    /// `tensors[i]` holds the weights of the matrix's nest `i` (see [`Diagonals::tensors`]).
    ///
    /// # Panics
    /// When [`keys`](Self::keys) has no such diagonal.
    pub fn fill(&self, matrix: &Matrix, tensors: &[NestWeights], at: usize, out: &mut [f64]) {
        self.fill_rotated(matrix, tensors, at, 0, out);
    }

    /// [`Diagonals::fill`], rotated: entry `k` of `out` is entry `k + left` of the diagonal.
    ///
    /// # Panics
    /// As [`Diagonals::fill`].
    pub fn fill_rotated(&self, matrix: &Matrix, tensors: &[NestWeights], at: usize, left: usize, out: &mut [f64]) {
        out.fill(0.0);
        // Periods are powers of two that divide the slots, so one mask does for both remainders.
        let wrap = out.len() - 1;
        self.for_each_line(matrix, tensors, at, |slot, steps, count, weight| {
            let first = slot.wrapping_sub(left) & wrap;
            match usize::try_from(steps) {
                Ok(1) if first + count <= out.len() => out[first..first + count].iter_mut().for_each(|o| *o += weight),
                Ok(steps @ 2..) if first + steps * (count - 1) < out.len() => {
                    out[first..].iter_mut().step_by(steps).take(count).for_each(|o| *o += weight);
                }
                _ => (0..count)
                    .for_each(|i| out[first.wrapping_add_signed(steps as isize * i as isize) & wrap] += weight),
            }
        });
    }

    /// Calls `f(slot, weight)` for every point of diagonal number `at`: what [`fill`](Self::fill) adds up.
    ///
    /// # Panics
    /// As [`Diagonals::fill`].
    pub fn for_each(&self, matrix: &Matrix, tensors: &[NestWeights], at: usize, mut f: impl FnMut(usize, f64)) {
        let wrap = matrix.diagonal_period() - 1;
        self.for_each_line(matrix, tensors, at, |slot, steps, count, weight| {
            for i in 0..count as i64 {
                f(slot.wrapping_add_signed((steps * i) as isize) & wrap, weight);
            }
        });
    }

    /// Calls `f(slot, steps, count, weight)` for the points of diagonal number `at`, so many at a time of one weight, whose
    /// slots, modulo the diagonal's period, lie so many steps apart. There is at least one.
    fn for_each_line(
        &self,
        matrix: &Matrix,
        tensors: &[NestWeights],
        at: usize,
        mut f: impl FnMut(usize, i64, usize, f64),
    ) {
        let key = self.keys[at];
        let wrap = matrix.diagonal_period() as i64 - 1;
        for run in &self.runs[self.starts[at]..self.starts[at + 1]] {
            let number = run.nest as usize;
            let (nest, split, bounds) =
                (&matrix.nests[number], &self.splits[number], &self.bounds[run.bounds as usize]);
            let by_columns = matrix.out_period <= matrix.in_period;
            let start = if by_columns { i64::from(run.col) - i64::from(key.index) } else { i64::from(run.row) };
            let values = tensors[number].as_deref();
            walk(nest, split, bounds, |line| {
                let slot = |i: i64| ((start + line.step + line.steps * i) & wrap) as usize;
                let weight = |i: i64| {
                    let value = values.map_or(1.0, |v| v[(run.weight + line.weight + line.weights * i) as usize]);
                    nest.factor * value
                };
                match values {
                    Some(_) if line.weights != 0 => {
                        (0..line.count as i64).for_each(|i| f(slot(i), 0, 1, weight(i)));
                    }
                    _ if line.count > 0 => f(slot(0), line.steps, line.count, weight(0)),
                    _ => {}
                }
            });
        }
    }

    /// Points of diagonal number `at`: how often [`for_each`](Self::for_each) calls.
    ///
    /// # Panics
    /// As [`Diagonals::fill`].
    pub fn points(&self, at: usize) -> usize {
        let points = |run: &Run| self.bounds[run.bounds as usize].iter().map(|(lo, hi)| hi - lo).product::<usize>();
        self.runs[self.starts[at]..self.starts[at + 1]].iter().map(points).sum()
    }

    /// The weight tensors that [`Diagonals::fill`] and [`Rows`] want, one per nest, loaded once each.
    pub fn tensors(matrix: &Matrix, weights: &Weights) -> Vec<NestWeights> {
        let mut loaded = BTreeMap::new();
        let load =
            |nest: &Nest| nest.tensor.map(|t| loaded.entry(t).or_insert_with(|| Arc::new(weights.values(t))).clone());
        matrix.nests.iter().map(load).collect()
    }
}

/// Arithmetic on slots, whose numbers and periods are powers of two.
struct Place {
    rows: i64,
    columns: i64,
    log_slots: u32,
    log_modulus: u32,
    in_ciphertexts: u64,
    blocks: u64,
}

impl Place {
    fn of(matrix: &Matrix) -> Self {
        Place {
            rows: reach(matrix.slots, matrix.out_ciphertexts, matrix.out_period) as i64,
            columns: reach(matrix.slots, matrix.in_ciphertexts, matrix.in_period) as i64,
            log_slots: matrix.slots.trailing_zeros(),
            log_modulus: matrix.diagonal_bound().trailing_zeros(),
            in_ciphertexts: matrix.in_ciphertexts as u64,
            blocks: (matrix.in_ciphertexts * matrix.out_ciphertexts) as u64,
        }
    }

    /// Number of the diagonal that holds an entry: by output block, input block and index.
    fn key(&self, row: u64, col: u64) -> u64 {
        // The modulus divides the slots, so blocks need not be taken off before the remainder.
        let index = col.wrapping_sub(row) & ((1 << self.log_modulus) - 1);
        let block = (row >> self.log_slots) * self.in_ciphertexts + (col >> self.log_slots);
        (block << self.log_modulus) + index
    }

    /// Exclusive bound of keys.
    fn keys(&self) -> u64 {
        self.blocks << self.log_modulus
    }

    fn diagonal(&self, key: u64) -> DiagonalKey {
        let (block, index) = (key >> self.log_modulus, key & ((1 << self.log_modulus) - 1));
        DiagonalKey {
            out_block: (block / self.in_ciphertexts) as u32,
            in_block: (block % self.in_ciphertexts) as u32,
            index: index as u32,
        }
    }
}

/// Sorts by key, which is below `keys`. Stable, so that sums are taken in nest order whatever the diagonal.
fn sort(mut found: Vec<Run>, keys: u64, key: impl Fn(&Run) -> u64) -> Vec<Run> {
    if keys > 2 * found.len() as u64 + 1024 {
        found.sort_by_key(key);
        return found;
    }
    // By counting: linear, and there are no more counters than runs.
    let mut next = vec![0usize; keys as usize + 1];
    found.iter().for_each(|run| next[key(run) as usize + 1] += 1);
    for i in 1..next.len() {
        next[i] += next[i - 1];
    }
    let Some(&first) = found.first() else { return found };
    let mut sorted = vec![first; found.len()];
    for run in found {
        let at = &mut next[key(&run) as usize];
        sorted[*at] = run;
        *at += 1;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offsets;
    use crate::matrix::{Guard, NestDim};

    fn dim(extent: usize, row: i64, col: i64, weight: i64) -> NestDim {
        NestDim { extent, row: Offsets::Stride(row), col: Offsets::Stride(col), weight: Offsets::Stride(weight) }
    }

    /// What the diagonals compute: rotate, multiply, add, fold.
    fn by_diagonals(m: &Matrix, weights: &Weights, input: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let diagonals = Diagonals::of(m);
        let tensors = Diagonals::tensors(m, weights);
        let n = m.diagonal_period();
        let mut acc = vec![vec![0.0; n]; m.out_ciphertexts];
        let (mut d, mut rotated) = (vec![0.0; n], vec![0.0; n]);
        for (at, key) in diagonals.keys().iter().enumerate() {
            diagonals.fill(m, &tensors, at, &mut d);
            let left = 5 * at % n;
            diagonals.fill_rotated(m, &tensors, at, left, &mut rotated);
            rotated.rotate_right(left);
            assert_eq!(d, rotated);
            let x = &input[key.in_block as usize];
            for k in 0..n {
                acc[key.out_block as usize][k] += d[k] * x[(k + key.index as usize) % m.in_period];
            }
        }
        for step in m.fold_steps() {
            for a in &mut acc {
                let old = a.clone();
                for k in 0..n {
                    a[k] += old[(k + step) % n];
                }
            }
        }
        acc.into_iter().map(|a| a[..m.out_period].to_vec()).collect()
    }

    fn check(m: &Matrix, weights: &Weights) {
        let input: Vec<Vec<f64>> = (0..m.in_ciphertexts)
            .map(|c| (0..m.in_period).map(|i| ((i * 7 + c * 3) % 11) as f64 - 4.0).collect())
            .collect();
        let want = m.apply(weights, &input);
        let got = by_diagonals(m, weights, &input);
        for (w, g) in want.iter().flatten().zip(got.iter().flatten()) {
            assert!((w - g).abs() < 1e-9, "{w} != {g}");
        }
    }

    fn weights(n: usize) -> Weights {
        let v: Vec<f64> = (0..n).map(|i| (i as f64 * 0.37).sin()).collect();
        Weights::from_tensors([v.as_slice()])
    }

    #[test]
    fn dense_matrices_of_all_period_orders() {
        for (rows, cols, h, p) in [(5, 13, 8, 16), (13, 5, 16, 8), (6, 6, 8, 8), (1, 16, 1, 16), (3, 9, 16, 16)] {
            let nest = Nest {
                dims: vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)],
                row: 0,
                col: 0,
                weight: 0,
                tensor: Some(TensorId(0)),
                factor: 0.5,
                guards: vec![],
            };
            let m = Matrix {
                slots: 32,
                in_ciphertexts: 1,
                in_period: p,
                out_ciphertexts: 1,
                out_period: h,
                nests: vec![nest],
            };
            check(&m, &weights(rows * cols));
        }
    }

    /// A padded 3×3 convolution, 2 → 2 channels of 4×4, stride 1, one channel a ciphertext or two.
    #[test]
    fn padded_convolution_enumerates_only_its_taps() {
        for slots in [16usize, 32] {
            let channel = |c: usize| (c * 16) as i64;
            let table = Offsets::from_table((0..2).map(channel).collect());
            let zero = Offsets::Stride(0);
            let pad = |y: usize, k: usize| {
                let mut coefficients = vec![0; 6];
                coefficients[y] = 1;
                coefficients[k] = 1;
                Guard { coefficients, constant: -1, extent: 4 }
            };
            let nest = Nest {
                dims: vec![
                    NestDim { extent: 2, row: table.clone(), col: zero.clone(), weight: Offsets::Stride(18) },
                    NestDim { extent: 2, row: zero, col: table, weight: Offsets::Stride(9) },
                    dim(3, 0, 4, 3),
                    dim(3, 0, 1, 1),
                    dim(4, 4, 4, 0),
                    dim(4, 1, 1, 0),
                ],
                row: 0,
                col: -5,
                weight: 0,
                tensor: Some(TensorId(0)),
                factor: 1.0,
                guards: vec![pad(4, 2), pad(5, 3)],
            };
            let blocks = 32 / slots;
            let m = Matrix {
                slots,
                in_ciphertexts: blocks,
                in_period: slots,
                out_ciphertexts: blocks,
                out_period: slots,
                nests: vec![nest],
            };
            let diagonals = Diagonals::of(&m);
            assert!(diagonals.runs.len() == 36, "one run per channel pair and tap");
            check(&m, &weights(36));
        }
    }
}
