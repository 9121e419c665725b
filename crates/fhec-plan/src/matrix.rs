//! Linear maps between packed tensors, kept as *affine loop nests* over weight tensors.
//!
//! A convolution, a dense layer, a pooling or a slice is one nest: loops over output channel, input
//! channel, kernel and pixels, each of which moves the row (output slot), the column (input slot) and
//! the weight index by an [`Offsets`] step, with affine guards for padding. Nothing is densified: the
//! nest is what the plan stores, the compiler enumerates its diagonals symbolically
//! ([`Diagonals::of`]) and the runtime fills them on demand.

mod diagonals;

pub use diagonals::{DiagonalKey, Diagonals};

use crate::{Offsets, TensorId, Weights};

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

impl Nest {
    /// Number of points, guards ignored.
    pub fn points(&self) -> usize {
        self.dims.iter().map(|d| d.extent).product()
    }

    /// Calls `f(row, col, weight)` for every point that the guards admit.
    pub fn for_each(&self, mut f: impl FnMut(i64, i64, i64)) {
        let mut index = vec![0usize; self.dims.len()];
        if self.dims.iter().any(|d| d.extent == 0) {
            return;
        }
        loop {
            let admitted = self.guards.iter().all(|g| {
                let v: i64 = g.constant + g.coefficients.iter().zip(&index).map(|(c, &i)| c * i as i64).sum::<i64>();
                (0..g.extent).contains(&v)
            });
            if admitted {
                let (mut row, mut col, mut weight) = (self.row, self.col, self.weight);
                for (dim, &i) in self.dims.iter().zip(&index) {
                    row += dim.row.at(i);
                    col += dim.col.at(i);
                    weight += dim.weight.at(i);
                }
                f(row, col, weight);
            }
            let mut d = self.dims.len();
            loop {
                if d == 0 {
                    return;
                }
                d -= 1;
                index[d] += 1;
                if index[d] < self.dims[d].extent {
                    break;
                }
                index[d] = 0;
            }
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
