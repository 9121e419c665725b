//! Diagonals of a [`Matrix`], found without visiting its points.
//!
//! Loops that move row and column alike (pixels of a convolution whose layouts share a grid) leave
//! the diagonal unchanged; only the other loops (channels, kernel taps) are enumerated. A diagonal is
//! then a list of *runs*: one combination of the enumerated loops plus a box of the others.

use super::{Matrix, Nest};
use crate::structure::{offset_range, reach};
use crate::{TensorId, Weights};
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

/// How a nest's loops are split.
#[derive(Clone, Debug)]
struct Split {
    /// Loops that leave the diagonal unchanged, walked when a diagonal is filled.
    parallel: Vec<usize>,
}

/// The non-empty diagonals of a matrix, each with the runs that fill it.
#[derive(Clone)]
pub struct Diagonals {
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
        Self::build(matrix, usize::MAX, |_| None).expect("rows and columns lie inside the matrix")
    }

    /// [`Diagonals::of`] for a structurally sound matrix that is not trusted further. `tensor_len` gives
    /// the number of elements of a tensor.
    ///
    /// # Errors
    /// A row, column or weight index that does not exist, an unknown tensor, or more than `max_runs`
    /// combinations of enumerated loops.
    pub fn checked(
        matrix: &Matrix,
        max_runs: usize,
        tensor_len: impl Fn(TensorId) -> Option<usize>,
    ) -> Result<Self, String> {
        Self::build(matrix, max_runs, |nest| nest.tensor.map(|t| tensor_len(t).unwrap_or(0)))
    }

    /// `weights` gives the number of weights that a nest may use, `None` for any.
    fn build(matrix: &Matrix, max_runs: usize, weights: impl Fn(&Nest) -> Option<usize>) -> Result<Self, String> {
        let modulus = matrix.diagonal_bound();
        let rows = reach(matrix.slots, matrix.out_ciphertexts, matrix.out_period) as i64;
        let columns = reach(matrix.slots, matrix.in_ciphertexts, matrix.in_period) as i64;
        let mut bounds: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut found: Vec<(u64, Run)> = Vec::new();
        let mut splits = Vec::new();
        for (number, nest) in matrix.nests.iter().enumerate() {
            let split =
                split(matrix, nest, max_runs.saturating_sub(found.len())).map_err(|e| format!("nest {number}: {e}"))?;
            let available = weights(nest).map_or(i64::MAX, |n| n as i64);
            let mut outside = None;
            let mut known = BTreeMap::new();
            enumerate(nest, &split, |row, col, weight, ranges| {
                let (at, extent) = *known.entry(ranges).or_insert_with_key(|ranges| {
                    bounds.push(ranges.clone());
                    (bounds.len() as u32 - 1, Extent::of(nest, &split, ranges))
                });
                let inside = |at: i64, (lo, hi): (i64, i64), end: i64| at + lo >= 0 && at + hi < end;
                let sound = inside(row, extent.step, rows)
                    && inside(col, extent.step, columns)
                    && (available == i64::MAX || inside(weight, extent.weight, available));
                if !sound {
                    outside = Some((row, col, weight));
                    return;
                }
                let (row, col) = (row as usize, col as usize);
                let index = (col % matrix.slots + modulus - row % matrix.slots % modulus) % modulus;
                let block = (row / matrix.slots) * matrix.in_ciphertexts + col / matrix.slots;
                let key = (block * modulus + index) as u64;
                found.push((key, Run { nest: number as u32, bounds: at, row: row as u32, col: col as u32, weight }));
            });
            if let Some((row, col, weight)) = outside {
                return Err(format!(
                    "nest {number}: near row {row}, column {col}, weight {weight} it leaves the matrix of \
                     {rows} x {columns} slots or its {available} weights"
                ));
            }
            splits.push(split);
        }
        // Stable, so that sums are taken in nest order whatever the diagonal.
        found.sort_by_key(|(key, _)| *key);
        let mut keys = Vec::new();
        let mut starts = Vec::new();
        let mut last = None;
        for (i, (key, _)) in found.iter().enumerate() {
            if last != Some(*key) {
                last = Some(*key);
                let (block, index) = (*key as usize / modulus, *key as usize % modulus);
                keys.push(DiagonalKey {
                    out_block: (block / matrix.in_ciphertexts) as u32,
                    in_block: (block % matrix.in_ciphertexts) as u32,
                    index: index as u32,
                });
                starts.push(i);
            }
        }
        starts.push(found.len());
        let runs = found.into_iter().map(|(_, run)| run).collect();
        Ok(Diagonals { keys, starts, runs, bounds, splits })
    }

    /// The diagonals in order.
    pub fn keys(&self) -> &[DiagonalKey] {
        &self.keys
    }

    /// Number of diagonals.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Number of runs over all diagonals, the measure of the memory held here.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// True for the zero matrix.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Fills diagonal number `at` into `out` (length [`Matrix::diagonal_period`], overwritten).
    /// `tensors[i]` holds the weights of the matrix's nest `i` (see [`Diagonals::tensors`]).
    pub fn fill(&self, matrix: &Matrix, tensors: &[Option<Arc<Vec<f64>>>], at: usize, out: &mut [f64]) {
        self.fill_rotated(matrix, tensors, at, 0, out);
    }

    /// [`Diagonals::fill`], rotated: entry `k` of `out` is entry `k + left` of the diagonal.
    pub fn fill_rotated(
        &self,
        matrix: &Matrix,
        tensors: &[Option<Arc<Vec<f64>>>],
        at: usize,
        left: usize,
        out: &mut [f64],
    ) {
        out.fill(0.0);
        let key = self.keys[at];
        let (p, h) = (matrix.in_period, matrix.out_period);
        // Periods are powers of two that divide the slots, so one mask does for both remainders.
        let wrap = out.len() as i64 - 1;
        for run in &self.runs[self.starts[at]..self.starts[at + 1]] {
            let number = run.nest as usize;
            let (nest, split, bounds) =
                (&matrix.nests[number], &self.splits[number], &self.bounds[run.bounds as usize]);
            let start =
                if h <= p { i64::from(run.col) - i64::from(key.index) } else { i64::from(run.row) } - left as i64;
            match tensors[number].as_deref() {
                Some(values) => walk(nest, split, bounds, |step, weight| {
                    out[((start + step) & wrap) as usize] += nest.factor * values[(run.weight + weight) as usize];
                }),
                None => walk(nest, split, bounds, |step, _| out[((start + step) & wrap) as usize] += nest.factor),
            }
        }
    }

    /// The weight tensors that [`Diagonals::fill`] wants, one per nest, loaded once each.
    pub fn tensors(matrix: &Matrix, weights: &Weights) -> Vec<Option<Arc<Vec<f64>>>> {
        let mut loaded = BTreeMap::new();
        let load =
            |nest: &Nest| nest.tensor.map(|t| loaded.entry(t).or_insert_with(|| Arc::new(weights.values(t))).clone());
        matrix.nests.iter().map(load).collect()
    }
}

/// How far the points of a box of parallel loops lie from its first one.
#[derive(Clone, Copy)]
struct Extent {
    step: (i64, i64),
    weight: (i64, i64),
}

impl Extent {
    fn of(nest: &Nest, split: &Split, bounds: &[(usize, usize)]) -> Self {
        let mut extent = Extent { step: (0, 0), weight: (0, 0) };
        for (&d, &(lo, hi)) in split.parallel.iter().zip(bounds) {
            let dim = &nest.dims[d];
            for (offsets, sum) in [(&dim.row, &mut extent.step), (&dim.weight, &mut extent.weight)] {
                let (a, b) = offset_range(offsets, lo, hi);
                sum.0 += a - offsets.at(lo);
                sum.1 += b - offsets.at(lo);
            }
        }
        extent
    }
}

/// Loops whose row and column steps agree, as far as no guard joins two of them and none of their
/// points crosses from one ciphertext to the next.
fn split(matrix: &Matrix, nest: &Nest, max_runs: usize) -> Result<Split, String> {
    let mut split = Split {
        parallel: (0..nest.dims.len())
            .filter(|&d| {
                let dim = &nest.dims[d];
                dim.row == dim.col || (0..dim.extent).all(|i| dim.row.at(i) == dim.col.at(i))
            })
            .collect(),
    };
    // Bounds of a run are independent ranges; a guard over two parallel loops is none.
    for guard in &nest.guards {
        while split.parallel.iter().filter(|&&d| guard.coefficients[d] != 0).count() > 1 {
            let joined = split.parallel.iter().filter(|&&d| guard.coefficients[d] != 0);
            let shortest = joined.min_by_key(|&&d| nest.dims[d].extent).copied();
            split.parallel.retain(|&d| Some(d) != shortest);
        }
    }
    let affordable = |split: &Split| {
        let outer = (0..nest.dims.len()).filter(|d| !split.parallel.contains(d));
        let runs = outer.fold(1usize, |n, d| n.saturating_mul(nest.dims[d].extent));
        if runs <= max_runs {
            Ok(())
        } else {
            Err(format!("{runs} runs to enumerate, at most {max_runs} are justified"))
        }
    };
    affordable(&split)?;
    if matrix.in_ciphertexts.max(matrix.out_ciphertexts) > 1 {
        while !split.parallel.is_empty() && crosses(matrix, nest, &split) {
            let reach = |d: usize| {
                let (lo, hi) = offset_range(&nest.dims[d].row, 0, nest.dims[d].extent);
                hi - lo
            };
            let furthest = split.parallel.iter().copied().max_by_key(|&d| reach(d));
            split.parallel.retain(|&d| Some(d) != furthest);
            affordable(&split)?;
        }
    }
    Ok(split)
}

/// True when the parallel loops of some run leave the ciphertext in which the run begins.
fn crosses(matrix: &Matrix, nest: &Nest, split: &Split) -> bool {
    let slots = matrix.slots as i64;
    let mut crosses = false;
    enumerate(nest, split, |row, col, _, bounds| {
        let (lo, hi) = Extent::of(nest, split, &bounds).step;
        let leaves = |at: i64| at.rem_euclid(slots) + lo < 0 || at.rem_euclid(slots) + hi >= slots;
        crosses |= leaves(row) || leaves(col);
    });
    crosses
}

/// Calls `f(row, col, weight, bounds)` for every combination of the enumerated loops that leaves
/// some point of the parallel loops; `bounds` are the index ranges of the latter.
fn enumerate(nest: &Nest, split: &Split, mut f: impl FnMut(i64, i64, i64, Vec<(usize, usize)>)) {
    let outer: Vec<usize> = (0..nest.dims.len()).filter(|d| !split.parallel.contains(d)).collect();
    let mut index = vec![0usize; outer.len()];
    if nest.dims.iter().any(|d| d.extent == 0) {
        return;
    }
    loop {
        let mut bounds: Vec<(usize, usize)> = split.parallel.iter().map(|&d| (0, nest.dims[d].extent)).collect();
        let admitted = nest.guards.iter().all(|g| {
            let fixed: i64 =
                g.constant + outer.iter().zip(&index).map(|(&d, &i)| g.coefficients[d] * i as i64).sum::<i64>();
            match split.parallel.iter().position(|&d| g.coefficients[d] != 0) {
                None => (0..g.extent).contains(&fixed),
                Some(at) => narrow(&mut bounds[at], g.coefficients[split.parallel[at]], fixed, g.extent),
            }
        });
        if admitted {
            let (mut row, mut col, mut weight) = (nest.row, nest.col, nest.weight);
            for (&d, &i) in outer.iter().zip(&index) {
                row += nest.dims[d].row.at(i);
                col += nest.dims[d].col.at(i);
                weight += nest.dims[d].weight.at(i);
            }
            // A parallel loop that starts past zero moves row and column alike; guards may leave the
            // base point outside the tensor, so the base is moved to the first admitted point.
            let mut shift = 0;
            let mut weight_shift = 0;
            for (&d, b) in split.parallel.iter().zip(&bounds) {
                shift += nest.dims[d].row.at(b.0);
                weight_shift += nest.dims[d].weight.at(b.0);
            }
            f(row + shift, col + shift, weight + weight_shift, bounds);
        }
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < nest.dims[outer[d]].extent {
                break;
            }
            index[d] = 0;
        }
    }
}

/// Narrows `bounds` to the `i` with `0 ≤ fixed + c·i < extent`; false when none is left.
fn narrow(bounds: &mut (usize, usize), c: i64, fixed: i64, extent: i64) -> bool {
    let ceil_div = |a: i64, b: i64| a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0);
    let (lo, hi) = if c > 0 {
        (ceil_div(-fixed, c), ceil_div(extent - fixed, c))
    } else {
        (ceil_div(fixed - extent + 1, -c), fixed.div_euclid(-c) + 1)
    };
    bounds.0 = bounds.0.max(lo.max(0) as usize);
    bounds.1 = bounds.1.min(hi.max(0) as usize);
    bounds.0 < bounds.1
}

/// Calls `f(step, weight_step)` for every point of a run, relative to its first point, in loop order.
fn walk(nest: &Nest, split: &Split, bounds: &[(usize, usize)], mut f: impl FnMut(i64, i64)) {
    let Some((&inner, outer)) = split.parallel.split_last() else {
        return f(0, 0);
    };
    let dim = &nest.dims[inner];
    let (lo, hi) = bounds[outer.len()];
    let first = (dim.row.at(lo), dim.weight.at(lo));
    let mut index: Vec<usize> = bounds[..outer.len()].iter().map(|b| b.0).collect();
    loop {
        let (mut step, mut weight) = (-first.0, -first.1);
        for ((&d, &i), b) in outer.iter().zip(&index).zip(bounds) {
            step += nest.dims[d].row.at(i) - nest.dims[d].row.at(b.0);
            weight += nest.dims[d].weight.at(i) - nest.dims[d].weight.at(b.0);
        }
        for i in lo..hi {
            f(step + dim.row.at(i), weight + dim.weight.at(i));
        }
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < bounds[d].1 {
                break;
            }
            index[d] = bounds[d].0;
        }
    }
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

    #[test]
    fn narrow_agrees_with_trying_every_index() {
        for c in [-3i64, -1, 1, 2, 5] {
            for fixed in -12..12 {
                for extent in 1..9 {
                    let mut b = (0, 7);
                    let any = narrow(&mut b, c, fixed, extent);
                    let want: Vec<usize> = (0..7).filter(|&i| (0..extent).contains(&(fixed + c * i as i64))).collect();
                    assert_eq!(any, !want.is_empty());
                    if any {
                        assert_eq!((b.0..b.1).collect::<Vec<_>>(), want, "{c} {fixed} {extent}");
                    }
                }
            }
        }
    }
}
