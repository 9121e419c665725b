//! Linear maps between packed tensors, kept as *affine loop nests* over weight tensors.
//!
//! A convolution, a dense layer, a pooling or a slice is one nest: loops over output channel, input
//! channel, kernel and pixels, each of which moves the row (output slot), the column (input slot) and
//! the weight index by an [`Offsets`] step, with affine guards for padding. Nothing is densified: the
//! nest is what the plan stores, the compiler enumerates its diagonals symbolically
//! ([`Diagonals::of`]) and the runtime fills them on demand.

mod diagonals;
mod rows;

pub use diagonals::{DiagonalKey, Diagonals};
pub use rows::Rows;

use diagonals::narrow;

use crate::{Offsets, TensorId, Weights};
use std::sync::Arc;

/// One loop of a [`Nest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestDim {
    /// Number of iterations.
    pub extent: usize,
    /// Step of the row (global output slot).
    pub row: Offsets,
    /// Step of the column (global input slot).
    pub col: Offsets,
    /// Step of the weight index.
    pub weight: Offsets,
}

/// A condition on the loop indices: `0 ≤ constant + Σ coefficients[d] · i_d < extent`.
/// Points that break it do not exist (padding).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// One coefficient per loop.
    pub coefficients: Vec<i64>,
    /// Constant term.
    pub constant: i64,
    /// Exclusive upper bound.
    pub extent: i64,
}

/// A loop nest: the sum over all its points of `factor · tensor[weight]` at (row, column).
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Loops, outermost first.
    pub dims: Vec<NestDim>,
    /// Row of the point with all indices zero.
    pub row: i64,
    /// Column of that point.
    pub col: i64,
    /// Weight index of that point.
    pub weight: i64,
    /// The weights; `None` means all ones.
    pub tensor: Option<TensorId>,
    /// Multiplies every weight: range normalisation and averages cost no new tensor.
    pub factor: f64,
    /// Padding.
    pub guards: Vec<Guard>,
}

/// The weights of a nest as numbers; `None` where all are one.
pub type NestWeights = Option<Arc<Vec<f64>>>;

impl Nest {
    /// Number of points, guards ignored.
    pub fn points(&self) -> usize {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// Calls `f(row, col, weight)` for every point that the guards admit.
    pub fn for_each(&self, mut f: impl FnMut(i64, i64, i64)) {
        let loops: Vec<usize> = (0..self.dims.len()).collect();
        self.for_each_over(&loops, &mut f);
    }

    /// The same for some of the loops, outermost first, with the indices of all others zero (which may have an offset of their own). No guard
    /// may depend on those.
    pub fn for_each_over(&self, loops: &[usize], mut f: impl FnMut(i64, i64, i64)) {
        let guards = self.guards.iter().map(|g| g.constant);
        Walk { nest: self, loops }.from([self.row, self.col, self.weight], guards, &mut f);
    }
}

/// A walk over points of a nest that adds up offsets and guards loop by loop.
struct Walk<'a> {
    nest: &'a Nest,
    /// The loops that it goes through, outermost first.
    loops: &'a [usize],
}

impl Walk<'_> {
    /// Runs the loops from where the others are: at a row, column and weight, and with sums of the guards.
    fn from(&self, at: [i64; 3], guards: impl Iterator<Item = i64>, f: &mut impl FnMut(i64, i64, i64)) {
        // What the guards have summed up, one row for each loop entered.
        let mut sums = vec![0; self.nest.guards.len() * (self.loops.len() + 1)];
        sums.iter_mut().zip(guards).for_each(|(sum, start)| *sum = start);
        self.run(0, at, &mut sums, f);
    }

    /// Runs the loops from number `depth` on, at a point reached by the outer ones; `sums` begins with the row of guard
    /// sums of that point.
    fn run(&self, depth: usize, at: [i64; 3], sums: &mut [i64], f: &mut impl FnMut(i64, i64, i64)) {
        let guards = &self.nest.guards;
        let (own, inner) = sums.split_at_mut(guards.len());
        let Some(&d) = self.loops.get(depth) else {
            if guards.iter().zip(own).all(|(g, s)| (0..g.extent).contains(s)) {
                f(at[0], at[1], at[2]);
            }
            return;
        };
        let dim = &self.nest.dims[d];
        let step = |i: usize| [at[0] + dim.row.at(i), at[1] + dim.col.at(i), at[2] + dim.weight.at(i)];
        if depth + 1 < self.loops.len() {
            for i in 0..dim.extent {
                for ((inner, own), g) in inner.iter_mut().zip(own.iter()).zip(guards) {
                    *inner = own + g.coefficients[d] * i as i64;
                }
                self.run(depth + 1, step(i), inner, f);
            }
            return;
        }
        // The innermost loop: every guard admits a range of its indices.
        let mut range = (0, dim.extent);
        for (g, &sum) in guards.iter().zip(own.iter()) {
            let admitted = match g.coefficients[d] {
                0 => (0..g.extent).contains(&sum),
                c => narrow(&mut range, c, sum, g.extent),
            };
            if !admitted {
                return;
            }
        }
        if let (Offsets::Stride(row), Offsets::Stride(col), Offsets::Stride(weight)) = (&dim.row, &dim.col, &dim.weight)
        {
            let mut at = step(range.0);
            for _ in range.0..range.1 {
                f(at[0], at[1], at[2]);
                at = [at[0] + row, at[1] + col, at[2] + weight];
            }
            return;
        }
        for i in range.0..range.1 {
            let at = step(i);
            f(at[0], at[1], at[2]);
        }
    }
}

/// A linear map from one packed tensor to another: the sum of its nests.
///
/// Rows are global output slots, columns global input slots. Input and output repeat with periods
/// `p = in_period` and `h = out_period` (powers of two). With `h ≤ p` diagonal `i` holds
/// `d_i[k] = M[k mod h, (k + i) mod p]` for `k < p`, and rotate-and-add by `h, 2h, …, p/2` finishes the
/// sum (the hybrid method); with `h > p` it holds `d_i[k] = M[k, (k + i) mod p]` for `k < h`. Either way
/// there are at most `min(h, p)` diagonals a block and the output repeats with period `h`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Slots of one ciphertext.
    pub slots: usize,
    /// Ciphertexts of the input.
    pub in_ciphertexts: usize,
    /// Period of the input; equals `slots` when there are several ciphertexts.
    pub in_period: usize,
    /// Ciphertexts of the output.
    pub out_ciphertexts: usize,
    /// Period of the output; equals `slots` when there are several ciphertexts.
    pub out_period: usize,
    /// The summands.
    pub nests: Vec<Nest>,
}

impl Matrix {
    /// Period of the diagonals, `max(in_period, out_period)`.
    pub fn diagonal_period(&self) -> usize {
        self.in_period.max(self.out_period)
    }

    /// Exclusive bound of diagonal indices, `min(in_period, out_period)`.
    pub fn diagonal_bound(&self) -> usize {
        self.in_period.min(self.out_period)
    }

    /// Rotations of the final rotate-and-add, in order; empty unless the output period is the smaller.
    pub fn fold_steps(&self) -> Vec<usize> {
        std::iter::successors(Some(self.out_period), |s| Some(s * 2)).take_while(|&s| s < self.in_period).collect()
    }

    /// The product with packed slot vectors (each at least `in_period` long), straight from the
    /// nests: one vector of length `out_period` per output ciphertext. The reference for all else.
    pub fn apply(&self, weights: &Weights, input: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.out_period]; self.out_ciphertexts];
        for nest in &self.nests {
            let values = nest.tensor.map(|t| weights.values(t));
            nest.for_each(|row, col, weight| {
                let (row, col) = (row as usize, col as usize);
                let w = nest.factor * values.as_ref().map_or(1.0, |v| v[weight as usize]);
                out[row / self.slots][row % self.slots] += w * input[col / self.slots][col % self.slots];
            });
        }
        out
    }
}

/// A plaintext vector over the slots of a packed tensor (a bias): nests whose columns are unused.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector {
    /// Slots of one ciphertext.
    pub slots: usize,
    /// Ciphertexts covered.
    pub ciphertexts: usize,
    /// Period of the contents.
    pub period: usize,
    /// The summands.
    pub nests: Vec<Nest>,
}

impl Vector {
    /// The values: one slot vector of length `period` per ciphertext.
    pub fn values(&self, weights: &Weights) -> Vec<Vec<f64>> {
        let mut out = vec![vec![0.0; self.period]; self.ciphertexts];
        for nest in &self.nests {
            let values = nest.tensor.map(|t| weights.values(t));
            nest.for_each(|row, _, weight| {
                let w = nest.factor * values.as_ref().map_or(1.0, |v| v[weight as usize]);
                out[row as usize / self.slots][row as usize % self.slots] += w;
            });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The points of a nest by counting through all indices.
    fn points(nest: &Nest) -> Vec<[i64; 3]> {
        let mut found = Vec::new();
        for mut number in 0..nest.points() {
            let mut index = vec![0i64; nest.dims.len()];
            for (d, dim) in nest.dims.iter().enumerate().rev() {
                index[d] = (number % dim.extent) as i64;
                number /= dim.extent;
            }
            let admitted = nest.guards.iter().all(|g| {
                let sum: i64 = g.coefficients.iter().zip(&index).map(|(c, i)| c * i).sum();
                (0..g.extent).contains(&(g.constant + sum))
            });
            if admitted {
                let mut at = [nest.row, nest.col, nest.weight];
                for (dim, &i) in nest.dims.iter().zip(&index) {
                    let i = i as usize;
                    at = [at[0] + dim.row.at(i), at[1] + dim.col.at(i), at[2] + dim.weight.at(i)];
                }
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn points_come_in_order_and_guards_hold() {
        let dim = |extent: usize, row: Offsets, col: i64| NestDim {
            extent,
            row,
            col: Offsets::Stride(col),
            weight: Offsets::Stride(1),
        };
        let guard =
            |coefficients: &[i64], constant, extent| Guard { coefficients: coefficients.to_vec(), constant, extent };
        let table = Offsets::Table(vec![4, 0, 9]);
        let dims = [dim(3, table, 5), dim(4, Offsets::Stride(2), -1), dim(5, Offsets::Stride(1), 7)];
        let cases = [
            vec![],
            vec![guard(&[0, 1, 1], -2, 4)],
            vec![guard(&[1, 0, -1], 2, 3), guard(&[0, -2, 3], 1, 6)],
            vec![guard(&[1, 0, 0], -1, 1)],
            vec![guard(&[0, 0, 0], 5, 3)],
        ];
        for guards in cases {
            for depth in 0..=3 {
                let guards =
                    guards.iter().map(|g| Guard { coefficients: g.coefficients[..depth].to_vec(), ..g.clone() });
                let nest = Nest {
                    dims: dims[..depth].to_vec(),
                    row: 1,
                    col: 2,
                    weight: 3,
                    tensor: None,
                    factor: 1.0,
                    guards: guards.collect(),
                };
                let mut seen = Vec::new();
                nest.for_each(|row, col, weight| seen.push([row, col, weight]));
                assert_eq!(seen, points(&nest));
            }
        }
        let empty = Nest {
            dims: vec![dim(0, Offsets::Stride(1), 1)],
            row: 0,
            col: 0,
            weight: 0,
            tensor: None,
            factor: 1.0,
            guards: vec![],
        };
        empty.for_each(|_, _, _| panic!("a loop without iterations has no points"));
    }
}
