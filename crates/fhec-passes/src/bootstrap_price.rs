//! What a bootstrap costs: the sum of its parts, each priced like the same operation anywhere else, times the measured
//! [factor](crate::cost::CostTable::bootstrap) between the whole and its parts.

use crate::cost::Prices;
use fhec_math::bootstrap::{BootstrapSpec, Matrix, terms, trace};
use fhec_math::chebyshev::{ChebyshevPlan, depth_of_degree};
use std::collections::BTreeSet;

/// Limb transforms for each limb of a raised ciphertext: two to raise it, two for the switch back to the dense secret.
const TRANSFORMS_OF_RAISE: f64 = 4.0;

impl Prices<'_> {
    /// Seconds of bootstrapping `ciphertexts` of `2^log_slots` slots each to level `target`, two at a time where there are
    /// two; nothing where the chain has no bootstraps.
    pub fn bootstrap(&self, ciphertexts: usize, log_slots: u32, target: usize) -> f64 {
        let Some(spec) = &self.shape().bootstrap else { return 0.0 };
        let shared = self.linear_part(spec, log_slots, target);
        let each = self.eval_mod(spec, target + spec.eval_mod_levels());
        self.bootstrap_factor() * (ciphertexts.div_ceil(2) as f64 * shared + ciphertexts as f64 * each)
    }

    /// Everything up to EvalMod, which one ciphertext or two need once. A lower target leaves out limbs of the message,
    /// so all levels above lie as much lower.
    fn linear_part(&self, spec: &BootstrapSpec, log_slots: u32, target: usize) -> f64 {
        let raised = spec.raised_level(log_slots, target);
        let down: f64 = spec.down(log_slots).iter().map(|m| self.matrix(m)).sum();
        let up: f64 = spec.up(log_slots, target).iter().map(|m| self.matrix(m)).sum();
        let rotations = spec.up_rotations(&BTreeSet::from([log_slots]));
        let trace = trace(log_slots, self.shape().log_n - 1, &rotations);
        let w = self.linear_weights(raised);
        let trace: f64 =
            trace.iter().map(|sum| w.decompose + (sum.len() - 1) as f64 * w.baby + self.mod_down(raised, false)).sum();
        let conjugation = self.rotate(target + spec.eval_mod_levels());
        down + self.transforms(TRANSFORMS_OF_RAISE * (raised + 1) as f64) + trace + up + conjugation
    }

    fn matrix(&self, matrix: &Matrix) -> f64 {
        let terms = terms(matrix.group);
        let distinct = |rotations: BTreeSet<i64>| rotations.into_iter().filter(|&r| r != 0).count() as f64;
        let babies = distinct(terms.iter().map(|t| t.baby).collect());
        let giants = distinct(terms.iter().map(|t| t.giant).collect());
        let w = self.linear_weights(matrix.level);
        w.decompose
            + babies * w.baby
            + giants * w.giant
            + terms.len() as f64 * w.product
            + self.mod_down(matrix.level, matrix.rescale)
    }

    /// The cosine, its double angles and the arcsine, from `level` down.
    fn eval_mod(&self, spec: &BootstrapSpec, level: usize) -> f64 {
        // Its values do not matter, only that it is even.
        let coefficients: Vec<f64> = (0..=spec.cosine_degree).map(|k| f64::from(u32::from(k % 2 == 0))).collect();
        let polynomial = |level: usize, coefficients: &[f64]| {
            ChebyshevPlan::new(coefficients).map_or(0.0, |plan| self.polynomial(level, &plan))
        };
        let cosine = polynomial(level, &coefficients);
        let bottom = level - depth_of_degree(spec.cosine_degree as usize) - spec.double_angles as usize;
        let arcsine = if spec.arcsine { polynomial(bottom, &[0.0, 1.0, 0.0, 1.0]) } else { 0.0 };
        let doubled = (1..=spec.double_angles as usize).map(|k| {
            self.multiply(bottom + k) + self.relinearise_rescale(bottom + k) + self.elementwise(bottom + k, 3)
        });
        cosine + doubled.sum::<f64>() + arcsine
    }
}

#[cfg(test)]
mod tests {
    use crate::cost::CostTable;
    use crate::shape::Shape;
    use fhec_math::bootstrap::BootstrapSpec;

    #[test]
    fn fewer_slots_lower_targets_and_pairs_are_cheaper() {
        let shape = Shape {
            log_n: 16,
            log2_q: vec![49.0; 29],
            log2_p: vec![49.5; 10],
            digits: vec![10, 10, 9],
            bootstrap: Some(BootstrapSpec::default()),
        };
        let table = CostTable::default();
        let prices = table.prices(&shape);
        let full = prices.bootstrap(1, 15, 16);
        assert!((0.5..10.0).contains(&full), "{full}");
        assert!(prices.bootstrap(1, 15, 8) < 0.9 * full);
        assert!(prices.bootstrap(1, 12, 16) < full);
        assert!(prices.bootstrap(2, 15, 16) < 1.5 * full);
        let three = prices.bootstrap(2, 15, 16) + full;
        assert!((prices.bootstrap(3, 15, 16) - three).abs() < 1e-9);
    }
}
