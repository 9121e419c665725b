//! Matrices as lists of entries, row by row.

use fhec_plan::{Matrix, Weights};

/// The entries of a matrix in the order of its rows. Slots are numbered as [`super::Slots`] stores them.
#[derive(Debug)]
pub(crate) struct Rows {
    /// `entries[starts[r]..starts[r + 1]]` belong to row `r`.
    starts: Vec<usize>,
    entries: Vec<(u32, f64)>,
}

impl Rows {
    /// Lists the entries of `matrix`; entries that several points hit stay separate summands.
    pub(crate) fn of(matrix: &Matrix, weights: &Weights) -> Self {
        // One ciphertext: slots are below the period. Several: the period is that of all slots. Either way
        // global slots and stored values have the same numbers.
        let mut counts = vec![0usize; matrix.out_ciphertexts * matrix.out_period + 1];
        matrix.nests.iter().for_each(|nest| nest.for_each(|row, _, _| counts[row as usize + 1] += 1));
        for r in 1..counts.len() {
            counts[r] += counts[r - 1];
        }
        let starts = counts.clone();
        let mut entries = vec![(0, 0.0); starts[starts.len() - 1]];
        for nest in &matrix.nests {
            let values = nest.tensor.map(|t| weights.values(t));
            nest.for_each(|row, col, weight| {
                let value = nest.factor * values.as_ref().map_or(1.0, |v| v[weight as usize]);
                let at = &mut counts[row as usize];
                entries[*at] = (col as u32, value);
                *at += 1;
            });
        }
        Rows { starts, entries }
    }

    /// The entries of all rows: column and value.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[(u32, f64)]> {
        self.starts.windows(2).map(|w| &self.entries[w[0]..w[1]])
    }

    /// `out += M · input`.
    pub(crate) fn add_product(&self, input: &[f64], out: &mut [f64]) {
        for (row, out) in self.rows().zip(out) {
            *out += row.iter().map(|&(col, w)| w * input[col as usize]).sum::<f64>();
        }
    }
}
