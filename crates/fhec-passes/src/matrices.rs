//! What cost and noise need to know of each linear map, found once per graph.

use crate::shape::plan_term;
use fhec_ir::he::{Graph, LinearTerm};
use fhec_plan::linear::{LinearGroup, groups};
use fhec_plan::{Diagonals, Matrix, NestWeights};
use rayon::prelude::*;
use std::sync::Arc;

/// Of diagonals with more than one point in so many slots all slots are looked at: that is faster than to remember which.
const DENSE: usize = 8;

/// One linear map's diagonals and row norms.
#[derive(Clone, Debug)]
pub struct MatrixInfo {
    /// The non-empty diagonals.
    pub diagonals: Diagonals,
    /// Sum of squared weights of every row, by global output slot (`out_ciphertexts · out_period`).
    pub row_norm2: Vec<f64>,
    /// Diagonals with a weight that is not zero; where images share ciphertexts no others are multiplied.
    pub products: usize,
    /// Mean of `row_norm2`; the noise model asks for it thousands of times.
    mean_row_norm2: f64,
}

impl MatrixInfo {
    /// Mean over the rows of the sum of squared weights.
    pub fn mean_row_norm2(&self) -> f64 {
        self.mean_row_norm2
    }

    fn of(matrix: &Matrix, tensors: &[NestWeights]) -> Self {
        let diagonals = Diagonals::of(matrix);
        let mut row_norm2 = vec![0.0; matrix.out_ciphertexts * matrix.out_period];
        let mut products = 0;
        if let Some(rows) = diagonals.rows() {
            let mut entries = Vec::new();
            for (row, norm) in row_norm2.iter_mut().enumerate() {
                rows.row(matrix, tensors, row as u32, &mut entries);
                products += entries.iter().filter(|(_, v)| *v != 0.0).count();
                *norm = entries.iter().fold(0.0, |sum, (_, v)| sum + v * v);
            }
        }
        let mut values = vec![0.0; matrix.diagonal_period()];
        let mut touched = Vec::new();
        for (at, key) in diagonals.keys().iter().enumerate() {
            let rows = &mut row_norm2[key.out_block as usize * matrix.out_period..][..matrix.out_period];
            let mut used = false;
            if diagonals.points(at) >= values.len() / DENSE {
                diagonals.fill(matrix, tensors, at, &mut values);
                for part in values.chunks_exact(matrix.out_period) {
                    for (row, v) in rows.iter_mut().zip(part) {
                        used |= *v != 0.0;
                        *row += v * v;
                    }
                }
                values.fill(0.0);
            } else {
                diagonals.for_each(matrix, tensors, at, |slot, weight| {
                    values[slot] += weight;
                    touched.push(slot);
                });
                // A slot that was touched twice is zero the second time.
                for slot in touched.drain(..) {
                    let v = std::mem::take(&mut values[slot]);
                    used |= v != 0.0;
                    rows[slot & (matrix.out_period - 1)] += v * v;
                }
            }
            products += usize::from(used);
        }
        let mean_row_norm2 = row_norm2.iter().sum::<f64>() / row_norm2.len().max(1) as f64;
        MatrixInfo { diagonals, row_norm2, products, mean_row_norm2 }
    }
}

/// [`MatrixInfo`] of every matrix of the graph, by [`fhec_plan::MatrixId`].
pub fn analyse(graph: &Graph) -> Vec<MatrixInfo> {
    let shared: Vec<Arc<Vec<f64>>> = graph.tensors.iter().map(|t| Arc::new(t.values().to_vec())).collect();
    let of = |matrix: &Matrix| {
        let tensors: Vec<_> = matrix.nests.iter().map(|n| n.tensor.map(|t| shared[t.index()].clone())).collect();
        MatrixInfo::of(matrix, &tensors)
    };
    graph.matrices.par_iter().map(of).collect()
}

/// How the terms of a linear map are evaluated together; see [`fhec_plan::linear`].
pub fn groups_of(graph: &Graph, info: &[MatrixInfo], terms: &[LinearTerm]) -> Vec<LinearGroup> {
    let terms: Vec<_> = terms.iter().enumerate().map(|(i, t)| plan_term(t, i as u32)).collect();
    groups(&terms, |t| (&graph.matrices[t.matrix.index()], &info[t.matrix.index()].diagonals))
}
