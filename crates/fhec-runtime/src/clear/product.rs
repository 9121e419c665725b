//! Products of matrices with packed tensors, straight from the loop nests: a matrix is never written down, so a
//! network needs no more memory than its values, and a point of a nest serves all lanes.

use fhec_plan::{Matrix, Weights};

/// `out += M · input`, both interleaved: slot after slot, each with `lanes` values. Slots are numbered as
/// [`super::Slots`] stores them.
pub(super) fn add_product(matrix: &Matrix, weights: &Weights, lanes: usize, input: &[f64], out: &mut [f64]) {
    match lanes {
        1 => fixed::<1>(matrix, weights, input, out),
        super::LANES => fixed::<{ super::LANES }>(matrix, weights, input, out),
        _ => for_each_entry(matrix, weights, |row, col, weight| {
            let source = &input[col * lanes..(col + 1) * lanes];
            let target = &mut out[row * lanes..(row + 1) * lanes];
            target.iter_mut().zip(source).for_each(|(t, s)| *t += weight * s);
        }),
    }
}

/// The same for a number of lanes that the compiler knows, so that it uses vector instructions.
fn fixed<const LANES: usize>(matrix: &Matrix, weights: &Weights, input: &[f64], out: &mut [f64]) {
    let (input, out) = (input.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    for_each_entry(matrix, weights, |row, col, weight| {
        let (target, source) = (&mut out[row], &input[col]);
        for lane in 0..LANES {
            target[lane] += weight * source[lane];
        }
    });
}

/// Sum of the squares of the entries of each row. Entries that several points hit count as separate summands.
pub(crate) fn row_norms(matrix: &Matrix, weights: &Weights) -> Vec<f64> {
    let mut norms = vec![0.0; matrix.out_ciphertexts * matrix.out_period];
    for_each_entry(matrix, weights, |row, _, weight| norms[row] += weight * weight);
    norms
}

/// Calls `f(row, column, value)` for every point of every nest.
fn for_each_entry(matrix: &Matrix, weights: &Weights, mut f: impl FnMut(usize, usize, f64)) {
    // One ciphertext: slots are below the period. Several: the period is that of all slots. Either way
    // global slots and stored values have the same numbers.
    for nest in &matrix.nests {
        match nest.tensor {
            None => nest.for_each(|row, col, _| f(row as usize, col as usize, nest.factor)),
            Some(tensor) => {
                let values: Vec<f64> = weights.values(tensor).iter().map(|v| nest.factor * v).collect();
                nest.for_each(|row, col, weight| f(row as usize, col as usize, values[weight as usize]));
            }
        }
    }
}
