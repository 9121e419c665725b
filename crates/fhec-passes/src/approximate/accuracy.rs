//! What an error of the outputs does to the classes that a network decides for.

use super::ApproximateError;
use crate::calibrate::logits;
use fhec_ir::nn::Graph;
use libm::erfc;
use std::f64::consts::SQRT_2;

/// Largest error that is considered, relative to the standard deviation of the outputs.
const MOST: f64 = 10.0;

/// Part of the allowed share that calibration data may use up. They are often those that a network was trained on, of which it is surer
/// than of others.
const KNOWN: f64 = 0.75;

/// What the original network decides for, sample by sample, and which part of it may change.
pub(super) struct Decisions {
    outputs: Vec<Vec<f64>>,
    /// The share that was allowed.
    share: f64,
}

impl Decisions {
    /// From the network's outputs, sample by sample.
    ///
    /// # Errors
    /// [`ApproximateError::NoClasses`] for a network that has not one output of several classes.
    pub(super) fn new(graph: &Graph, outputs: Vec<Vec<f64>>, share: f64) -> Result<Self, ApproximateError> {
        match logits(graph).as_slice() {
            [output] if graph.node(*output).shape.iter().product::<usize>() > 1 => {}
            _ => return Err(ApproximateError::NoClasses),
        }
        Ok(Decisions { outputs, share })
    }

    /// The error of the outputs, relative to `spread`, at which the allowed share is expected to change.
    pub(super) fn tolerance(&self, spread: f64) -> f64 {
        largest_error(&self.outputs, spread, KNOWN * self.share)
    }

    /// Share of the samples for which a network with these outputs decides otherwise.
    pub(super) fn changed(&self, outputs: &[Vec<f64>]) -> f64 {
        changes(&self.outputs, outputs)
    }

    /// Whether more samples change than may, chance or not.
    pub(super) fn too_many(&self, changed: f64) -> bool {
        changed > KNOWN * self.share
    }

    /// What the user is told.
    pub(super) fn note(&self, changed: f64, error: f64) -> String {
        format!(
            "activation polynomials are expected to change {:.2} % of the classes (of {:.2} % allowed {:.2} are kept for data that \
             are unlike these); they change {:.2} % of those of the {} calibration samples",
            100.0 * expected_changes(&self.outputs, error),
            100.0 * self.share,
            100.0 * (1.0 - KNOWN) * self.share,
            100.0 * changed,
            self.outputs.len()
        )
    }
}

/// Expected share of the samples whose largest output changes if every output is off by an independent normal error of
/// standard deviation `error`.
///
/// A class overtakes the decided one with the probability that the difference of two errors exceeds the margin between
/// them; the sum over the classes bounds the probability that any does. A sample that was decided wrongly counts as
/// one that was decided rightly, so the loss of accuracy is no larger.
fn expected_changes(outputs: &[Vec<f64>], error: f64) -> f64 {
    let of_sample = |outputs: &Vec<f64>| {
        let largest = (0..outputs.len()).max_by(|&a, &b| outputs[a].total_cmp(&outputs[b])).unwrap_or(0);
        let overtakes = |k: usize| 0.5 * erfc((outputs[largest] - outputs[k]) / (SQRT_2 * error) / SQRT_2);
        (0..outputs.len()).filter(|&k| k != largest).map(overtakes).sum::<f64>().min(1.0)
    };
    outputs.iter().map(of_sample).sum::<f64>() / outputs.len().max(1) as f64
}

/// Share of the samples whose largest output differs between two networks.
fn changes(outputs: &[Vec<f64>], others: &[Vec<f64>]) -> f64 {
    let class = |v: &Vec<f64>| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b]));
    let differ = outputs.iter().zip(others).filter(|(a, b)| class(a) != class(b)).count();
    differ as f64 / outputs.len().max(1) as f64
}

/// The largest error, relative to `spread`, for which at most a part `share` of the decisions is expected to change.
fn largest_error(outputs: &[Vec<f64>], spread: f64, share: f64) -> f64 {
    let (mut low, mut high) = (1e-9, MOST);
    if expected_changes(outputs, high * spread) <= share {
        return high;
    }
    for _ in 0..60 {
        let middle = f64::sqrt(low * high);
        if expected_changes(outputs, middle * spread) <= share { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_share_is_that_of_random_errors() {
        let outputs: Vec<Vec<f64>> = (0..40).map(|i| vec![0.0, f64::from(i) / 20.0, -9.0]).collect();
        let error = 0.3;
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut changed = 0.0;
        let rounds = 4000;
        for _ in 0..rounds {
            let mut noisy = outputs.clone();
            for x in noisy.iter_mut().flatten() {
                let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
                *x += error * normal;
            }
            changed += changes(&outputs, &noisy) / f64::from(rounds);
        }
        let expected = expected_changes(&outputs, error);
        assert!((changed / expected - 1.0).abs() < 0.05, "{changed}, {expected} expected");
    }

    #[test]
    fn more_changes_allow_more_error() {
        let outputs: Vec<Vec<f64>> = (0..50).map(|i| vec![1.0, 1.0 + f64::from(i) / 10.0]).collect();
        let errors = [0.005, 0.02, 0.1].map(|share| largest_error(&outputs, 2.0, share));
        assert!(errors[0] < errors[1] && errors[1] < errors[2]);
        for (error, share) in errors.iter().zip([0.005f64, 0.02, 0.1]) {
            // The first sample is a tie: it may always change.
            let tie = 0.01;
            let found = expected_changes(&outputs, error * 2.0);
            assert!(found <= f64::max(share, tie) + 1e-9, "{found}");
        }
        assert_eq!(largest_error(&[vec![0.0, 1e9]], 1.0, 0.5), MOST);
        assert!(largest_error(&[vec![f64::NAN, 1.0]], 1.0, 0.1) < 1e-6);
    }
}
