//! The search for degrees: predicted from the outputs' response to every error curve, verified by runs of the network.

use super::degrees::{Choice, least_depth};
use super::response::{OfSamples, Probe, Responses};
use super::target::{Replaced, Target, replace};
use crate::calibrate::{Samples, logits};
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, InputError, Interpreter, ValueId};
use rayon::prelude::*;

/// Samples that the search runs; enough to tell degrees apart.
const SAMPLES: usize = 32;

/// Most runs of candidates over the samples.
const RUNS: usize = 5;

/// Part of the tolerance that a candidate has to use up for the search to end.
const CLOSE: f64 = 0.9;

/// Clear runs of the polynomial network against the original.
pub(super) struct Search<'a> {
    graph: &'a Graph,
    samples: Vec<&'a [Tensor]>,
    reference: Vec<Vec<f64>>,
    spread: f64,
    responses: Responses,
}

/// Degrees that were tried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// For every target, the number of a polynomial.
    pub(super) picks: Vec<usize>,
    /// Root mean square error of the outputs, relative to their standard deviation.
    pub(super) error: f64,
    /// Its square, as predicted to first order.
    pub(super) predicted: f64,
    /// The budget of predicted squares that led to it, where it is within tolerance.
    pub(super) budget: Option<f64>,
}

impl<'a> Search<'a> {
    /// Runs the network, which has ranges, on some of the samples.
    pub(super) fn new(graph: &'a Graph, samples: &'a Samples, targets: &[ValueId]) -> Result<Self, InputError> {
        let take = samples.len().min(SAMPLES);
        let samples: Vec<&[Tensor]> = (0..take).map(|i| &samples[i * samples.len() / take][..]).collect();
        let interpreter = Interpreter::new(graph).expect("the pipeline verifies the graph after every pass");
        let outputs = logits(graph);
        let probe = Probe::new(graph, &interpreter, &outputs, targets);
        let run = |&number: &usize| {
            let values = interpreter.run_all(samples[number])?;
            let reference = outputs.iter().flat_map(|v| values[v.index()].values().to_vec()).collect();
            Ok((reference, probe.sample(number, &values)))
        };
        let (mut reference, mut said): (Vec<Vec<f64>>, _) = (Vec::new(), OfSamples::default());
        let numbers: Vec<usize> = (0..take).collect();
        for numbers in numbers.chunks(rayon::current_num_threads()) {
            let runs: Vec<_> = numbers.par_iter().map(run).collect::<Result<_, InputError>>()?;
            // In order, so that sums do not depend on the number of threads.
            for (outputs, sample) in runs {
                reference.push(outputs);
                said.add(sample);
            }
        }
        let spread = deviation(&reference);
        let responses = Responses::new(said, &probe, reference.first().map_or(0, Vec::len), spread);
        Ok(Search { graph, samples, reference, spread, responses })
    }

    /// Standard deviation of the outputs, which errors are relative to.
    pub(super) fn spread(&self) -> f64 {
        self.spread
    }

    /// Every polynomial of every target with its depth and its predicted part of the squared error.
    pub(super) fn choices(&self, targets: &[Target<'_>]) -> Vec<Vec<Choice>> {
        let of_target = |(number, target): (usize, &Target<'_>)| {
            let error = |pick| self.responses.effect(number, target.error(pick));
            (0..target.fits.len()).map(|pick| Choice { depth: target.depth(pick), error: error(pick) }).collect()
        };
        targets.par_iter().enumerate().map(of_target).collect()
    }

    /// The network with polynomials, given by their numbers, and with constants that take away the mean of each channel's error.
    pub(super) fn replaced(&self, targets: &[Target<'_>], picks: &[usize]) -> Replaced {
        let means = |(number, (target, &pick)): (usize, (&Target<'_>, &usize))| {
            self.responses.means(number, target.error(pick)).into_iter().map(|mean| -mean).collect()
        };
        let offsets: Vec<Vec<f64>> = targets.iter().zip(picks).enumerate().map(means).collect();
        let finite = |offsets: &Vec<f64>| offsets.iter().all(|o| o.is_finite());
        let offsets: Vec<_> = offsets.into_iter().map(|o| if finite(&o) { o } else { Vec::new() }).collect();
        replace(self.graph, targets, picks, &offsets)
    }

    /// Root mean square error of the outputs of another network, relative to the standard deviation of the outputs.
    pub(super) fn measure(&self, polynomial: &Graph) -> Result<f64, InputError> {
        let got = outputs_of(polynomial, &self.samples)?;
        let pairs = || self.reference.iter().flatten().zip(got.iter().flatten());
        let square: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        Ok((square / pairs().count().max(1) as f64).sqrt() / self.spread)
    }

    /// Degrees with an error within `tolerance`, and levels as few as can be found; where none are within, those with the
    /// least error.
    ///
    /// Predicted errors are right to first order, and as far as errors of different layers are independent. So the budget of
    /// the prediction is corrected by what candidates really do, until the last that is within tolerance and the
    /// first that is not are the same or runs are used up. `known` is a budget that led to an error within another tolerance, of
    /// much the same polynomials.
    pub(super) fn choose(
        &self,
        targets: &[Target<'_>],
        tolerance: f64,
        known: Option<(f64, f64)>,
    ) -> Result<Found, InputError> {
        let choices = self.choices(targets);
        let depth = |picks: &[usize]| choices.iter().zip(picks).map(|(list, &p)| list[p].depth).sum::<usize>();
        let asked = tolerance * tolerance;
        let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
        let (mut best, mut tried): (Option<Found>, Vec<Vec<usize>>) = (None, Vec::new());
        let mut budget = known.map_or(asked, |(budget, within)| budget * (tolerance / within).powi(2));
        for _ in 0..RUNS {
            let picks = least_depth(&choices, budget);
            if tried.contains(&picks) {
                break;
            }
            let error = self.measure(&self.replaced(targets, &picks).graph)?;
            tracing::debug!(budget, error, depth = depth(&picks), "degrees");
            let within = error <= tolerance;
            let predicted: f64 = choices.iter().zip(&picks).map(|(list, &p)| list[p].error).sum();
            // Without a number the network blew up: much less error is needed.
            let square = error * error;
            let ratio = if square.is_finite() && predicted > 0.0 { square / predicted } else { 1e3 };
            if within {
                good = Some(budget)
            } else {
                bad = Some(budget)
            }
            let better = |b: &Found| {
                let (old, new) = (depth(&b.picks), depth(&picks));
                if within { b.error > tolerance || new < old } else { b.error > tolerance && error < b.error }
            };
            // NaN is never better.
            if best.as_ref().is_none_or(better) && (best.is_none() || !error.is_nan()) {
                best = Some(Found { picks: picks.clone(), error, predicted, budget: within.then_some(budget) });
            }
            if within && error >= CLOSE * tolerance {
                break;
            }
            tried.push(picks);
            budget = match (good, bad) {
                (Some(good), Some(bad)) => (good * bad).sqrt(),
                (None, Some(bad)) => (0.9 * asked / ratio).min(bad / 2.0),
                (Some(good), None) => (asked / ratio).max(good * 1.5),
                (None, None) => break,
            };
        }
        let highest = || targets.iter().map(|t| t.fits.len() - 1).collect();
        Ok(best.unwrap_or_else(|| Found { picks: highest(), error: f64::NAN, predicted: f64::NAN, budget: None }))
    }
}

/// All outputs of every sample, those of a softmax before it.
fn outputs_of(graph: &Graph, samples: &[&[Tensor]]) -> Result<Vec<Vec<f64>>, InputError> {
    let interpreter = Interpreter::new(graph).expect("rewriting keeps a graph valid");
    let wanted = logits(graph);
    let of_sample = |inputs: &&[Tensor]| {
        let mut got: Vec<Option<Tensor>> = vec![None; wanted.len()];
        interpreter.run_with(inputs, |id, value| {
            for (slot, _) in got.iter_mut().zip(&wanted).filter(|(_, wanted)| **wanted == id) {
                *slot = Some(value.clone());
            }
        })?;
        Ok(got.iter().flatten().flat_map(|value| value.values().to_vec()).collect())
    };
    samples.par_iter().map(of_sample).collect()
}

/// Standard deviation of all numbers.
fn deviation(lists: &[Vec<f64>]) -> f64 {
    let all = || lists.iter().flatten();
    let count = all().count().max(1) as f64;
    let mean = all().sum::<f64>() / count;
    (all().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt().max(f64::MIN_POSITIVE)
}
