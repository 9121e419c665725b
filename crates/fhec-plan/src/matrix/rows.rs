//! The entries of a [`Matrix`] between ciphertexts that hold one element each, without a list of them.
//!
//! There a diagonal is a single entry, and a network has tens of millions of them. But what a row of a convolution
//! holds is what the loops over taps and input channels say at one place of the loops over outputs. So each row has a
//! list of such places, hardly ever more than one, and its entries are walked whenever they are needed.

use super::{Matrix, Nest, NestWeights, Walk};
use crate::Offsets;
use crate::structure::Budget;

/// A nest at one place of the loops that move its row.
#[derive(Clone, Copy, Debug)]
struct Part {
    nest: u32,
    place: u32,
}

/// The loops of a nest.
#[derive(Clone, Debug)]
struct Loops {
    /// Those that move the row.
    outer: Vec<usize>,
    /// The others.
    inner: Vec<usize>,
}

impl Loops {
    fn of(nest: &Nest) -> Self {
        let moves = |&d: &usize| match &nest.dims[d].row {
            Offsets::Stride(step) => *step != 0,
            Offsets::Table(steps) => steps.iter().any(|&step| step != 0),
        };
        let (outer, inner) = (0..nest.dims.len()).partition(moves);
        Loops { outer, inner }
    }

    /// Number of places of the outer loops.
    fn places(&self, nest: &Nest) -> usize {
        self.outer.iter().map(|&d| nest.dims[d].extent).product()
    }

    /// `f(row, column, weight)` for all points at a place.
    fn walk(&self, nest: &Nest, place: u32, f: &mut impl FnMut(i64, i64, i64)) {
        let mut at = [nest.row, nest.col, nest.weight];
        let mut guards: Vec<i64> = nest.guards.iter().map(|g| g.constant).collect();
        let mut place = place as usize;
        for &d in self.outer.iter().rev() {
            let dim = &nest.dims[d];
            let i = place % dim.extent;
            place /= dim.extent;
            at = [at[0] + dim.row.at(i), at[1] + dim.col.at(i), at[2] + dim.weight.at(i)];
            for (sum, guard) in guards.iter_mut().zip(&nest.guards) {
                *sum += guard.coefficients[d] * i as i64;
            }
        }
        Walk { nest, loops: &self.inner }.from(at, guards.into_iter(), f);
    }
}

/// Where the entries of every row of a matrix come from, for ciphertexts that hold one element each.
///
/// Rows and columns are numbers of ciphertexts. The entries themselves are not kept, so that this takes a few bytes a row,
/// and at most eight a point of the nests.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `parts[starts[r]..starts[r + 1]]` make row `r`.
    starts: Vec<u32>,
    parts: Vec<Part>,
    loops: Vec<Loops>,
    len: usize,
}

impl Rows {
    /// Finds them, see [`Diagonals::checked`](super::Diagonals::checked); `weights` gives the number of weights that a nest may
    /// use, `None` for any.
    pub(super) fn build(
        matrix: &Matrix,
        budget: &mut Budget,
        weights: impl Fn(&Nest) -> Option<usize>,
    ) -> Result<Self, String> {
        let (rows, columns) = (matrix.out_ciphertexts, matrix.in_ciphertexts);
        budget.try_runs(rows + columns)?;
        let unjustified = |number: usize| format!("nest {number}: more runs than its weights justify");
        let mut left = budget.runs.checked_sub(rows).ok_or_else(|| unjustified(0))?;
        let mut found: Vec<(u32, Part)> = Vec::new();
        let mut all = Vec::with_capacity(matrix.nests.len());
        for (number, nest) in matrix.nests.iter().enumerate() {
            let loops = Loops::of(nest);
            let points = nest.dims.iter().fold(1usize, |n, d| n.saturating_mul(d.extent));
            budget.try_runs(points).map_err(|e| format!("nest {number}: {e}"))?;
            let places = if points == 0 { 0 } else { loops.places(nest) };
            let places = u32::try_from(places).map_err(|_| unjustified(number))?;
            let available = weights(nest).map_or(i64::MAX, |n| n as i64);
            let mut outside = None;
            for place in 0..places {
                let mut own = None;
                loops.walk(nest, place, &mut |row, col, weight| {
                    let inside = (0..rows as i64).contains(&row)
                        && (0..columns as i64).contains(&col)
                        && (available == i64::MAX || (0..available).contains(&weight));
                    if !inside {
                        outside.get_or_insert((row, col, weight));
                    }
                    own = Some(row);
                });
                if let Some((row, col, weight)) = outside {
                    return Err(format!(
                        "nest {number}: near row {row}, column {col}, weight {weight} it leaves the matrix of \
                         {rows} x {columns} slots or its {available} weights"
                    ));
                }
                if let Some(row) = own {
                    left = left.checked_sub(1).ok_or_else(|| unjustified(number))?;
                    found.push((row as u32, Part { nest: number as u32, place }));
                }
            }
            all.push(loops);
        }
        budget.runs = left;
        let (starts, parts) = by_row(&found, rows);
        let mut this = Rows { starts, parts, loops: all, len: 0 };
        // The last row in which each column was seen.
        let mut seen = vec![u32::MAX; columns];
        let mut len = 0;
        for row in 0..rows as u32 {
            this.points(matrix, row, |_, col, _| len += usize::from(std::mem::replace(&mut seen[col], row) != row));
        }
        this.len = len;
        Ok(this)
    }

    /// Number of entries, each counted once however many points hit it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a matrix without any.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of places of loops that rows consist of.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes held, next to nothing left out.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.starts[..]) + size_of_val(&self.parts[..])
    }

    /// `f(nest, column, weight)` for all points of a row, nest after nest.
    fn points(&self, matrix: &Matrix, row: u32, mut f: impl FnMut(usize, usize, i64)) {
        let range = self.starts[row as usize] as usize..self.starts[row as usize + 1] as usize;
        for part in &self.parts[range] {
            let number = part.nest as usize;
            let mut point = |_, col: i64, weight| f(number, col as usize, weight);
            self.loops[number].walk(&matrix.nests[number], part.place, &mut point);
        }
    }

    /// Calls `f(column, weight)` for all points of a row of the matrix that these are the rows of, in an order that depends on
    /// nothing but the matrix. A column may come several times: its weights add up. `tensors` are the matrix's
    /// ([`Diagonals::tensors`](super::Diagonals::tensors)).
    ///
    /// # Panics
    /// When there is no such row.
    pub fn for_each(&self, matrix: &Matrix, tensors: &[NestWeights], row: u32, mut f: impl FnMut(u32, f64)) {
        self.points(matrix, row, |nest, col, weight| {
            let value = tensors[nest].as_ref().map_or(1.0, |values| values[weight as usize]);
            f(col as u32, matrix.nests[nest].factor * value);
        });
    }

    /// The entries of a row, columns ascending, each with the sum of its weights; what is in `out` goes.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, matrix: &Matrix, tensors: &[NestWeights], row: u32, out: &mut Vec<(u32, f64)>) {
        out.clear();
        self.for_each(matrix, tensors, row, |col, weight| out.push((col, weight)));
        if !out.is_sorted_by_key(|entry| entry.0) {
            // Stable, so that sums are always taken in one order.
            out.sort_by_key(|entry| entry.0);
        }
        out.dedup_by(|next, sum| {
            let same = next.0 == sum.0;
            if same {
                sum.1 += next.1;
            }
            same
        });
    }

    /// Number of entries that are not zero.
    pub fn nonzero(&self, matrix: &Matrix, tensors: &[NestWeights]) -> usize {
        let mut entries = Vec::new();
        let count = |row| {
            self.row(matrix, tensors, row, &mut entries);
            entries.iter().filter(|entry| entry.1 != 0.0).count()
        };
        (0..matrix.out_ciphertexts as u32).map(count).sum()
    }
}

/// Where the parts of each row begin, and the parts row by row, otherwise in the order that they came in.
fn by_row(found: &[(u32, Part)], rows: usize) -> (Vec<u32>, Vec<Part>) {
    let mut starts = vec![0u32; rows + 1];
    found.iter().for_each(|&(row, _)| starts[row as usize + 1] += 1);
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let mut next = starts.clone();
    let mut parts = vec![Part { nest: 0, place: 0 }; found.len()];
    for &(row, part) in found {
        let at = &mut next[row as usize];
        parts[*at as usize] = part;
        *at += 1;
    }
    (starts, parts)
}
