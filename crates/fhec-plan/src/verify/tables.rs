//! Weights, matrices, vectors and polynomials.

use super::VerifyError;
use crate::structure::{self, Budget, check_count, check_matrix, check_vector, points_up_to};
use crate::{Diagonals, Matrix, Nest, Plan, TensorId, Vector};
use fhec_math::chebyshev::ChebyshevPlan;
use std::sync::Arc;

/// What the tables of a plan were found to hold.
pub(super) struct Tables {
    pub(super) diagonals: Vec<Arc<Diagonals>>,
    pub(super) polynomials: Vec<ChebyshevPlan>,
}

/// Checks all tables of `plan`.
pub(super) fn check(plan: &Plan) -> Result<Tables, VerifyError> {
    check_counts(plan).map_err(|e| entry("program", 0, e))?;
    for i in 0..plan.weights.tensors().len() {
        let finite = plan.weights.values(TensorId(i as u32)).iter().all(|v| v.is_finite());
        if !finite {
            return Err(entry("weight tensor", i, "a weight is infinite or not a number".into()));
        }
    }
    let mut diagonals = Vec::with_capacity(plan.matrices.len());
    let weights = plan.weights.tensors().iter().map(|t| t.len).sum();
    let mut budget = if plan.image_slots() == 1 { Budget::of_elements(weights) } else { Budget::justified(weights) };
    for (i, matrix) in plan.matrices.iter().enumerate() {
        let found = matrix_diagonals(plan, matrix, &mut budget).map_err(|e| entry("matrix", i, e))?;
        diagonals.push(Arc::new(found));
    }
    let mut points = structure::MAX_VECTOR_POINTS;
    for (i, nest) in plan.vectors.iter().enumerate().flat_map(|(i, v)| v.nests.iter().map(move |n| (i, n))) {
        let more = || format!("more than {} points in all vectors", structure::MAX_VECTOR_POINTS);
        points -= points_up_to(nest, points).ok_or_else(|| entry("vector", i, more()))?;
    }
    for (i, vector) in plan.vectors.iter().enumerate() {
        check_values(plan, vector).map_err(|e| entry("vector", i, e))?;
    }
    let mut polynomials = Vec::with_capacity(plan.polynomials.len());
    for (i, polynomial) in plan.polynomials.iter().enumerate() {
        let planned = ChebyshevPlan::new(&polynomial.chebyshev);
        polynomials.push(planned.map_err(|e| entry("polynomial", i, e.to_string()))?);
    }
    Ok(Tables { diagonals, polynomials })
}

/// Numbers of entries. Decoding holds most of them too; plans need not come from a file.
fn check_counts(plan: &Plan) -> Result<(), String> {
    check_count("instructions", plan.instructions.len(), structure::MAX_INSTRUCTIONS)?;
    check_count("layers", plan.layers.len(), structure::MAX_LAYERS)?;
    check_count("matrices", plan.matrices.len(), structure::MAX_TABLE)?;
    check_count("vectors", plan.vectors.len(), structure::MAX_TABLE)?;
    check_count("weight tensors", plan.weights.tensors().len(), structure::MAX_TABLE)?;
    check_count("polynomials", plan.polynomials.len(), structure::MAX_POLYNOMIALS)?;
    let coefficients = plan.polynomials.iter().map(|p| p.chebyshev.len()).sum();
    check_count("polynomial coefficients", coefficients, structure::MAX_COEFFICIENTS)?;
    let nests = plan.matrices.iter().map(|m| m.nests.len()).chain(plan.vectors.iter().map(|v| v.nests.len()));
    check_count("nests", nests.sum(), structure::MAX_NESTS)
}

fn entry(what: &'static str, index: usize, problem: String) -> VerifyError {
    VerifyError::Entry { what, index, problem }
}

fn check_nest(plan: &Plan, number: usize, nest: &Nest) -> Result<(), String> {
    if !nest.factor.is_finite() {
        return Err(format!("nest {number}: factor {}", nest.factor));
    }
    match nest.tensor {
        Some(t) if plan.weights.len_of(t).is_none() => Err(format!("nest {number}: there is no weight tensor {t}")),
        _ => Ok(()),
    }
}

/// All diagonals of a matrix; every row, column and weight index is checked on the way.
fn matrix_diagonals(plan: &Plan, matrix: &Matrix, budget: &mut Budget) -> Result<Diagonals, String> {
    if matrix.slots != plan.image_slots() {
        return Err(format!("{} slots, ciphertexts have {}", matrix.slots, plan.image_slots()));
    }
    check_matrix(matrix)?;
    let period = matrix.diagonal_period();
    let blocks = matrix.in_ciphertexts.max(matrix.out_ciphertexts);
    if blocks * period > structure::MAX_LINEAR_SLOTS {
        return Err(format!("{blocks} ciphertexts of period {period} are too many"));
    }
    for (number, nest) in matrix.nests.iter().enumerate() {
        check_nest(plan, number, nest)?;
    }
    Diagonals::checked(matrix, budget, |t| plan.weights.len_of(t))
}

/// Every point of a vector lies in its ciphertexts and in its weights.
fn check_values(plan: &Plan, vector: &Vector) -> Result<(), String> {
    if vector.slots != plan.image_slots() {
        return Err(format!("{} slots, ciphertexts have {}", vector.slots, plan.image_slots()));
    }
    check_vector(vector)?;
    let rows = structure::reach(vector.slots, vector.ciphertexts, vector.period) as i64;
    for (number, nest) in vector.nests.iter().enumerate() {
        check_nest(plan, number, nest)?;
        let weights = nest.tensor.and_then(|t| plan.weights.len_of(t)).map_or(i64::MAX, |n| n as i64);
        let mut outside = None;
        nest.for_each(|row, _, weight| {
            if !(0..rows).contains(&row) || (weights != i64::MAX && !(0..weights).contains(&weight)) {
                outside = Some((row, weight));
            }
        });
        if let Some((row, weight)) = outside {
            return Err(format!("nest {number}: slot {row} or weight {weight} does not exist"));
        }
    }
    Ok(())
}
