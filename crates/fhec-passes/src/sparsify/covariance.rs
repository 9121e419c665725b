//! How the features that a layer reads vary together, and systems of equations with it.

use super::sites::Site;
use crate::calibrate::Samples;
use fhec_ir::nn::{Graph, InputError, Interpreter};
use rayon::prelude::*;

/// Most rows of features in all.
const ROWS: usize = 20_000;
/// What is added to every variance, relative to their mean: weights that data say little of stay as they were trained.
const RIDGE: f64 = 1e-3;
/// The same for every feature that there is to a row, because few rows say little.
const RIDGE_PER_FEATURE: f64 = 0.02;
/// Rows and columns that are handled between two looks at memory.
const BLOCK: usize = 64;

/// Mean and covariance of features, ridge included.
#[derive(Clone, Debug)]
pub(super) struct Covariance {
    pub(super) mean: Vec<f64>,
    /// Row-major and symmetric.
    values: Vec<f64>,
    size: usize,
}

impl Covariance {
    /// Over what the reader of a site sums up for all samples.
    pub(super) fn of(graph: &Graph, site: &Site, samples: &Samples) -> Result<Self, InputError> {
        let interpreter = Interpreter::new(graph).expect("the passes keep the graph valid");
        let operand = graph.node(site.reader).inputs[0];
        let most = ROWS / samples.len().max(1);
        let rows = samples.par_iter().map(|sample| {
            let mut rows = Vec::new();
            interpreter.run_with(sample, |id, value| {
                if id == operand {
                    rows = site.rows(graph, value, most);
                }
            })?;
            Ok(rows)
        });
        let rows: Vec<Vec<f64>> = rows.collect::<Result<Vec<_>, InputError>>()?.into_iter().flatten().collect();
        Ok(Self::of_rows(rows, site.width()))
    }

    /// Over rows of `size` features.
    pub(super) fn of_rows(mut rows: Vec<Vec<f64>>, size: usize) -> Self {
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; size];
        for row in &rows {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / count);
        }
        for row in &mut rows {
            row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m);
        }
        let mut values = vec![0.0; size * size];
        values.par_chunks_mut(BLOCK * size.max(1)).enumerate().for_each(|(block, out)| {
            for row in &rows {
                for (i, out) in out.chunks_mut(size).enumerate() {
                    let x = row[block * BLOCK + i] / count;
                    if x != 0.0 {
                        out.iter_mut().zip(row).for_each(|(o, y)| *o += x * y);
                    }
                }
            }
        });
        let trace: f64 = (0..size).map(|i| values[i * size + i]).sum();
        let share = RIDGE + RIDGE_PER_FEATURE * size as f64 / count;
        let ridge = (share * trace / size.max(1) as f64).max(f64::MIN_POSITIVE);
        for i in 0..size {
            values[i * size + i] += ridge;
        }
        Covariance { mean, values, size }
    }

    /// An entry.
    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.size + j]
    }

    /// The rows and columns of some features.
    pub(super) fn part(&self, rows: &[usize], columns: &[usize]) -> Vec<f64> {
        rows.iter().flat_map(|&i| columns.iter().map(move |&j| self.at(i, j))).collect()
    }
}

/// The lower factor of a symmetric positive definite matrix of `n` rows, in place: `A = L·Lᵀ`. What lies above the diagonal
/// means nothing afterwards. Goes by blocks of columns, so that a row is read once for all columns of a block. Sums
/// are taken in one order whatever the number of threads.
pub(super) fn factor(a: &mut [f64], n: usize) {
    for first in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - first);
        let rest = &mut a[first * n..];
        let panel: Vec<f64> = rest[..width * n].chunks(n).flat_map(|row| row[..first].iter().copied()).collect();
        each_row(rest, n, first * width, |row| {
            let (done, own) = row.split_at_mut(first);
            for (entry, pivot) in own.iter_mut().zip(panel.chunks(first.max(1))).take(width) {
                *entry -= dot(done, &pivot[..first]);
            }
        });
        for column in 0..width {
            let at = first + column;
            let pivot = rest[column * n + first..][..column].to_vec();
            // The ridge keeps it positive but for rounding.
            let root = (rest[column * n + at] - dot(&pivot, &pivot)).max(f64::MIN_POSITIVE).sqrt();
            rest[column * n + at] = root;
            each_row(&mut rest[(column + 1) * n..], n, column, |row| {
                row[at] = (row[at] - dot(&row[first..at], &pivot)) / root;
            });
        }
    }
}

/// `f` of every row of a matrix, on several threads where a row takes `work` products and there are many rows.
fn each_row(rows: &mut [f64], n: usize, work: usize, f: impl Fn(&mut [f64]) + Sync + Send) {
    if rows.len() / n.max(1) * work > BLOCK * BLOCK * BLOCK {
        rows.par_chunks_mut(n).with_min_len(BLOCK).for_each(f);
    } else {
        rows.chunks_mut(n).for_each(f);
    }
}

/// Solves `L·Lᵀ·x = b` in place.
pub(super) fn solve(l: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        b[i] = (b[i] - dot(&l[i * n..i * n + i], &b[..i])) / l[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= l[i * n + i];
        let x = b[i];
        b[..i].iter_mut().zip(&l[i * n..]).for_each(|(b, l)| *b -= l * x);
    }
}

/// The inverse of the matrix with the lower factor `l`.
pub(super) fn inverse(l: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        row[i] = 1.0;
        solve(l, n, row);
    });
    out
}

/// The sum of products, by several running sums side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, size: usize) -> Vec<Vec<f64>> {
        let one = |i: usize, j: usize| ((i * size + j) as f64 * 1.618).sin() + (i as f64 * 0.1).cos();
        (0..count).map(|i| (0..size).map(|j| one(i, j)).collect()).collect()
    }

    #[test]
    fn covariances_are_those_of_the_definition() {
        let (count, size) = (70, 5);
        let rows = rows(count, size);
        let covariance = Covariance::of_rows(rows.clone(), size);
        let mean = |j: usize| rows.iter().map(|r| r[j]).sum::<f64>() / count as f64;
        let plain =
            |i: usize, j: usize| rows.iter().map(|r| (r[i] - mean(i)) * (r[j] - mean(j))).sum::<f64>() / count as f64;
        let trace: f64 = (0..size).map(|i| plain(i, i)).sum();
        let ridge = (RIDGE + RIDGE_PER_FEATURE * size as f64 / count as f64) * trace / size as f64;
        for i in 0..size {
            for j in 0..size {
                let want = plain(i, j) + if i == j { ridge } else { 0.0 };
                assert!((covariance.at(i, j) - want).abs() < 1e-12, "{i} {j}");
            }
        }
    }

    #[test]
    fn inverses_invert() {
        for n in [1, 3, 64, 90, 150] {
            let covariance = Covariance::of_rows(rows(40, n), n);
            let all: Vec<usize> = (0..n).collect();
            let a = covariance.part(&all, &all);
            let mut l = a.clone();
            factor(&mut l, n);
            let b = inverse(&l, n);
            for i in 0..n {
                for j in 0..n {
                    let entry: f64 = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
                    let want = if i == j { 1.0 } else { 0.0 };
                    assert!((entry - want).abs() < 1e-8, "{n}: {i} {j}: {entry}");
                }
            }
        }
    }
}
