//! Other degrees for the polynomials of a network, once it is known what levels are worth where.
//!
//! The first choice of degrees has as few levels as possible in all. But a level is worth much just before a bootstrap that it
//! makes necessary, and little where levels are left over. So the choice can be made again together with the placement of
//! bootstraps ([`crate::joint`]): this says what each degree does to the outputs, how much all of them may do together, and makes the
//! network.

use super::accuracy::Decisions;
use super::search::{Found, Search};
use super::target::Target;
use super::{ApproximateError, Approximated, approximations, widen_where_needed, within_intervals};
use crate::calibrate::{Observed, Samples, annotate, observe};
use fhec_ir::Origin;
use fhec_ir::nn::{Graph, Range, ValueId};
use std::collections::BTreeMap;

/// A polynomial that an activation may become.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Coefficients of T_0, T_1, …
    pub(crate) chebyshev: Vec<f64>,
    /// Its part of the squared error of the outputs, relative to their variance, to first order.
    pub(crate) error: f64,
}

/// An activation and all its candidates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Activation {
    /// The model nodes.
    pub(crate) origin: Origin,
    /// By degree, ascending.
    pub(crate) candidates: Vec<Candidate>,
}

/// What is needed to choose degrees anew.
pub(crate) struct Refinement<'a> {
    graph: &'a Graph,
    samples: &'a Samples,
    search: Search<'a>,
    targets: Vec<Target<'a>>,
    decisions: Option<Decisions>,
    tolerance: f64,
    activations: Vec<Activation>,
    picks: Vec<usize>,
    budget: f64,
}

impl<'a> Refinement<'a> {
    /// Nothing where the degrees that were found miss the tolerance: then there is nothing to trade.
    pub(super) fn new(
        graph: &'a Graph,
        samples: &'a Samples,
        search: Search<'a>,
        targets: Vec<Target<'a>>,
        decisions: Option<Decisions>,
        tolerance: f64,
        found: Found,
    ) -> Option<Self> {
        let Found { picks, error, predicted, .. } = found;
        if error.is_nan() || error > tolerance || error <= 0.0 || predicted <= 0.0 {
            return None;
        }
        let choices = search.choices(&targets);
        let activation = |(target, list): (&Target<'_>, Vec<super::degrees::Choice>)| Activation {
            origin: graph.node(target.id).origin.clone(),
            candidates: target
                .fits
                .iter()
                .zip(list)
                .map(|(fit, choice)| Candidate { chebyshev: fit.chebyshev.clone(), error: choice.error })
                .collect(),
        };
        let activations = targets.iter().zip(choices).map(activation).collect();
        // What was found really errs by `error`: the prediction is corrected by that.
        let budget = predicted * (tolerance / error).powi(2);
        Some(Refinement { graph, samples, search, targets, decisions, tolerance, activations, picks, budget })
    }

    /// All activations, in the order of the picks.
    pub(crate) fn activations(&self) -> &[Activation] {
        &self.activations
    }

    /// For every activation the number of the candidate that was chosen first.
    pub(crate) fn picks(&self) -> &[usize] {
        &self.picks
    }

    /// What the errors of all chosen candidates may sum up to, as far as is known.
    pub(crate) fn budget(&self) -> f64 {
        self.budget
    }

    /// The network with other candidates; nothing where it misses the tolerance or its values come too near to the end of an
    /// interval. Corrects the budget by what they really do.
    ///
    /// # Errors
    /// When a sample does not fit the network.
    pub(crate) fn with(&mut self, picks: &[usize]) -> Result<Option<Approximated>, ApproximateError> {
        let replaced = self.search.replaced(&self.targets, picks);
        let error = self.search.measure(&replaced.graph)?;
        let predicted: f64 = self.activations.iter().zip(picks).map(|(a, &p)| a.candidates[p].error).sum();
        tracing::debug!(error, tolerance = self.tolerance, "degrees chosen with bootstraps");
        if error.is_nan() || error > self.tolerance {
            let scale = (self.tolerance / error).powi(2);
            self.budget = if scale.is_finite() { self.budget.min(predicted * scale) } else { self.budget / 4.0 };
            return Ok(None);
        }
        let Observed { summaries: seen, outputs, .. } = observe(&replaced.graph, self.samples)?;
        let mut intervals: BTreeMap<ValueId, Range> = self.targets.iter().map(|t| (t.id, t.interval)).collect();
        if widen_where_needed(&mut intervals, &replaced.operands, &seen).is_some() {
            self.budget /= 2.0;
            return Ok(None);
        }
        let mut notes = Vec::new();
        if let Some(decisions) = &self.decisions {
            let changed = decisions.changed(&outputs);
            if decisions.too_many(changed) {
                self.budget /= 2.0;
                return Ok(None);
            }
            notes.push(decisions.note(changed, error * self.search.spread()));
        }
        Ok(Some(Approximated {
            graph: within_intervals(annotate(&replaced.graph, &seen), &seen),
            approximations: approximations(self.graph, &self.targets, picks),
            output_error: error,
            allowed_error: self.decisions.is_some().then_some(self.tolerance * self.search.spread()),
            missed: false,
            notes,
        }))
    }
}
