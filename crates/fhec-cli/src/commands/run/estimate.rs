//! How long the rest of a run will take: predicted times, scaled by how fast the run has been.

use fhec_passes::cost_file;
use fhec_passes::pricing::price_plan;
use fhec_plan::verify::Verified;

/// Part of all predicted seconds that must have passed before the observed speed counts.
const ENOUGH: f64 = 0.02;

/// Predicted seconds of every instruction, on one thread.
pub(crate) struct Estimate {
    seconds: Vec<f64>,
}

impl Estimate {
    /// From the plan's own figures for its layers, spread over their instructions by the built-in prices.
    pub(crate) fn of(verified: &Verified) -> Self {
        let plan = verified.plan();
        let price = price_plan(verified, &cost_file::built_in().prices);
        // What a plan says of itself is not trusted to be a time.
        let stated = |layer: usize| {
            let seconds = plan.report.layers.get(layer).map_or(0.0, |r| r.seconds);
            if seconds.is_finite() && seconds > 0.0 { seconds } else { price.layers[layer] }
        };
        let of = |(instruction, &own): (&fhec_plan::Instruction, &f64)| {
            let layer = instruction.layer.index();
            if price.layers[layer] > 0.0 { own / price.layers[layer] * stated(layer) } else { 0.0 }
        };
        Estimate { seconds: plan.instructions.iter().zip(&price.instructions).map(of).collect() }
    }

    /// Predicted seconds of an instruction.
    pub(crate) fn seconds(&self, number: usize) -> f64 {
        self.seconds.get(number).copied().unwrap_or(0.0)
    }

    /// How much of the run lies behind instruction `next`, from 0 to 1.
    pub(crate) fn done(&self, next: usize) -> f64 {
        let all: f64 = self.seconds.iter().sum();
        if all > 0.0 { self.sum(0, next) / all } else { 0.0 }
    }

    /// Seconds until the end, when it took `elapsed` seconds to come from instruction `first` to `next`.
    pub(crate) fn left(&self, first: usize, next: usize, elapsed: f64) -> f64 {
        let (done, left) = (self.sum(first, next), self.sum(next, self.seconds.len()));
        let speed = if done > ENOUGH * (done + left) { elapsed / done } else { 1.0 };
        left * speed
    }

    fn sum(&self, from: usize, to: usize) -> f64 {
        self.seconds.get(from..to.min(self.seconds.len())).map_or(0.0, |part| part.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_goes_on_as_fast_as_the_beginning() {
        let estimate = Estimate { seconds: vec![1.0, 3.0, 0.0, 4.0] };
        assert_eq!(estimate.left(0, 0, 0.0), 8.0);
        // Four predicted seconds took two.
        assert_eq!(estimate.left(0, 2, 2.0), 2.0);
        // A run that began with the second instruction.
        assert_eq!(estimate.left(1, 3, 6.0), 8.0);
        assert_eq!(estimate.left(0, 4, 2.0), 0.0);
        assert_eq!((estimate.done(2), estimate.done(9)), (0.5, 1.0));
        let nothing = Estimate { seconds: vec![0.0; 2] };
        assert_eq!((nothing.done(1), nothing.left(0, 1, 5.0)), (0.0, 0.0));
    }
}
