//! Degrees, levels and bootstraps as one problem.
//!
//! Degrees are chosen first, with as few levels as possible in all ([`crate::approximate`]); where they are and what bootstraps cost
//! is not known then. Once a chain is found, degrees are chosen again, with the placement: every activation is a step
//! with a variant for each of its polynomials ([`crate::placement`]), whose cost at a level is the seconds that it takes and λ times what
//! its error does to the outputs. For every λ the search finds the best (degree, level, bootstrap) of all layers together
//! (OLA's dynamic programme over layers and levels, with bootstraps in it); the λ with which the errors just stay within
//! the tolerance is found by bisection. Then the network is made with these degrees, held against the tolerance by a run,
//! and compiled as before: if it is predicted to be faster it is taken, and the chain may be another one, so that there is a second
//! round.

use crate::approximate::{ApproximateError, Approximated, Candidate, Refinement};
use crate::bootstrapped::Chosen;
use crate::cost::CostTable;
use crate::driver::Driver;
use crate::parameters::Demands;
use crate::pipeline::{CompileError, Options};
use crate::placement::{self, Placement, Step, Variant};
use crate::rings::{Choice, better};
use fhec_ir::Tensor;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_math::chebyshev::ChebyshevPlan;

/// Most times that degrees are chosen anew for the chain that the last ones led to.
const ROUNDS: usize = 2;
/// Most networks that are run in a round, each with less error than the one before, which was too much.
const TRIES: usize = 3;
/// λ grows or shrinks by this factor until it is known between two values.
const GROW: f64 = 16.0;
/// Most steps of that.
const ROUGH: usize = 12;
/// Most bisections after that.
const FINE: usize = 8;
/// Sums of the same costs in another order differ by less than this part.
const ROUNDING: f64 = 1e-6;

/// The placement problem of a chain in which degrees are free.
pub(crate) struct Joint {
    /// Costs in seconds alone.
    steps: Vec<Step>,
    /// The step of every activation that has one, with the number of the candidate of each variant.
    activations: Vec<Option<(usize, Vec<usize>)>>,
    /// By activation and candidate: parts of the squared error of the outputs.
    errors: Vec<Vec<f64>>,
    /// Seconds of a placement with the candidates that were chosen before, and the error that it is charged for, where that is known: nothing
    /// dearer is of interest.
    before: Option<(f64, f64)>,
}

impl Joint {
    /// Makes the problem from that of fixed degrees, for a graph as it is before bootstraps are placed.
    ///
    /// An activation that became a line has no step: it is part of the linear layers around it, and stays so. One whose value is in several
    /// parts has several steps, which would have to agree, and keeps its degree.
    pub(crate) fn new(
        graph: &Graph,
        chosen: &Chosen,
        table: &CostTable,
        refinement: &Refinement<'_>,
        picks: &[usize],
    ) -> Self {
        let prices = table.prices(&chosen.shape);
        let below = chosen.shape.bootstrap.as_ref().map_or(0, |spec| spec.slots_to_coeffs.len());
        let polynomial = |id: &ValueId| matches!(graph.node(*id).op, Op::Polynomial { .. });
        let polynomials: Vec<ValueId> = graph.ids().filter(polynomial).collect();
        let mut steps = chosen.steps.clone();
        let mut activations = Vec::new();
        for activation in refinement.activations() {
            let mut own = polynomials.iter().filter(|&&id| graph.node(id).origin.names == activation.origin.names);
            let (Some(&id), None) = (own.next(), own.next()) else {
                activations.push(None);
                continue;
            };
            let step = &mut steps[id.index()];
            let levels = step.variants[0].cost.len();
            let count = graph.node(id).layout.ciphertexts as f64;
            let variant = |(number, candidate): (usize, &Candidate)| {
                let plan = ChebyshevPlan::new(&candidate.chebyshev).ok().filter(|plan| plan.degree() > 1)?;
                let consumed = plan.depth();
                let cost = |level| {
                    if level < consumed + below { f64::INFINITY } else { count * prices.polynomial(level, &plan) }
                };
                candidate
                    .error
                    .is_finite()
                    .then(|| (number, Variant { consumed, cost: (0..levels).map(cost).collect() }))
            };
            let (numbers, variants): (Vec<usize>, Vec<Variant>) =
                activation.candidates.iter().enumerate().filter_map(variant).unzip();
            if variants.is_empty() {
                activations.push(None);
                continue;
            }
            step.variants = variants;
            activations.push(Some((id.index(), numbers)));
        }
        let error = |a: &crate::approximate::Activation| a.candidates.iter().map(|c| c.error).collect();
        let errors = refinement.activations().iter().map(error).collect();
        let mut joint = Joint { steps, activations, errors, before: None };
        let offered = |(activation, pick): (&Option<(usize, Vec<usize>)>, &usize)| {
            activation.as_ref().is_none_or(|(_, numbers)| numbers.contains(pick))
        };
        if joint.activations.iter().zip(picks).all(offered) {
            joint.before = Some((chosen.placement.cost, joint.priced(picks)));
        }
        joint
    }

    /// The best placement where a unit of squared error costs `lambda` seconds, and the candidates that it takes;
    /// those of `fixed` for activations without a choice. `known` has seconds and errors of some placements: none that is dearer
    /// than all of them is looked for.
    fn at(&self, lambda: f64, fixed: &[usize], known: &[(f64, f64)]) -> Option<(Placement, Vec<usize>)> {
        let mut steps = self.steps.clone();
        for (activation, errors) in self.activations.iter().zip(&self.errors) {
            let Some((step, numbers)) = activation else { continue };
            for (variant, &number) in steps[*step].variants.iter_mut().zip(numbers) {
                variant.cost.iter_mut().for_each(|cost| *cost += lambda * errors[number]);
            }
        }
        let costs = known.iter().map(|(seconds, error)| (seconds + lambda * error) * (1.0 + ROUNDING));
        let most = costs.fold(f64::INFINITY, f64::min);
        let placement = placement::place_below(&steps, most)?;
        let pick = |(activation, &fixed): (&Option<(usize, Vec<usize>)>, &usize)| match activation {
            Some((step, numbers)) => numbers[placement.decisions[*step].variant],
            None => fixed,
        };
        let picks = self.activations.iter().zip(fixed).map(pick).collect();
        Some((placement, picks))
    }

    /// The part of the error that comes from activations with a choice, which placements are charged for.
    fn priced(&self, picks: &[usize]) -> f64 {
        let all = self.activations.iter().zip(&self.errors).zip(picks);
        all.filter(|((activation, _), _)| activation.is_some()).map(|((_, errors), &pick)| errors[pick]).sum()
    }

    fn error(&self, picks: &[usize]) -> f64 {
        self.errors.iter().zip(picks).map(|(errors, &pick)| errors[pick]).sum()
    }

    /// The candidates of the cheapest placement that a λ leads to, whose errors sum up to at most `budget`; those of `fixed` for
    /// activations without a choice. Nothing where there are none.
    pub(crate) fn choose(&self, budget: f64, fixed: &[usize]) -> Option<Vec<usize>> {
        let mut known: Vec<(f64, f64)> = self.before.into_iter().collect();
        let mut try_at = |lambda: f64| {
            let (placement, picks) = self.at(lambda, fixed, &known)?;
            let priced = self.priced(&picks);
            let seconds = placement.cost - lambda * priced;
            known.push((seconds, priced));
            Some((seconds, self.error(&picks), picks))
        };
        // A guess: all of the budget is worth as much as all of the time.
        let mut lambda = try_at(0.0)?.0 / budget.max(f64::MIN_POSITIVE);
        let (mut low, mut high, mut found) = (None, None, None::<(f64, Vec<usize>)>);
        for number in 0..ROUGH + FINE {
            let (seconds, error, picks) = try_at(lambda)?;
            if error <= budget {
                high = Some(lambda);
                if found.as_ref().is_none_or(|(least, _)| seconds < *least) {
                    found = Some((seconds, picks));
                }
            } else {
                low = Some(lambda);
            }
            lambda = match (low, high) {
                (Some(low), Some(high)) if high / low < 1.0 + 1.0 / GROW => break,
                (Some(low), Some(high)) => f64::sqrt(low * high),
                _ if number >= ROUGH => break,
                (Some(low), None) => low * GROW,
                (None, _) => lambda / GROW,
            };
        }
        found.map(|(_, picks)| picks)
    }
}

/// What the compiler had before and what is better.
pub(crate) struct Improved {
    pub(crate) approximated: Approximated,
    pub(crate) choice: Choice,
    /// Predicted seconds before.
    pub(crate) before: f64,
}

/// Chooses degrees together with bootstraps; nothing where that makes the network no faster.
///
/// # Errors
/// As the passes that compile the network anew.
pub(crate) fn improve(
    choice: &Choice,
    mut refinement: Refinement<'_>,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Option<Improved>, CompileError> {
    let before = choice.selected.price.seconds();
    let mut improved: Option<Improved> = None;
    let mut picks = refinement.picks().to_vec();
    for _ in 0..ROUNDS {
        let known = improved.as_ref().map_or(choice, |i| &i.choice);
        let Some((graph, chosen)) = known.chosen.as_deref() else { break };
        let joint = Joint::new(graph, chosen, &options.cost, &refinement, &picks);
        let Some((next, approximated)) = within_tolerance(&joint, &mut refinement, &picks)? else { break };
        let graph = driver.nn("degrees", &approximated.graph, Clone::clone)?;
        let approximated = Approximated { graph, ..approximated };
        let Some(faster) = better(known, &approximated.graph, samples, options, demands, driver)? else { break };
        picks = next;
        // For the same chain the same degrees would be chosen again.
        let same = faster.chosen.as_deref().is_some_and(|(_, next)| next.shape == chosen.shape);
        improved = Some(Improved { approximated, choice: faster, before });
        if same {
            break;
        }
    }
    Ok(improved)
}

/// Other degrees than these, and the network with them.
fn within_tolerance(
    joint: &Joint,
    refinement: &mut Refinement<'_>,
    picks: &[usize],
) -> Result<Option<(Vec<usize>, Approximated)>, ApproximateError> {
    for _ in 0..TRIES {
        let Some(next) = joint.choose(refinement.budget(), picks).filter(|next| next != picks) else { break };
        if let Some(approximated) = refinement.with(&next)? {
            return Ok(Some((next, approximated)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Refresh;

    const TOP: usize = 9;
    const LAYERS: usize = 4;

    /// Maps of one level and activations of three degrees, in turn; `seed` decides what errors do.
    fn network(seed: usize) -> Joint {
        let cost = |each: f64| (0..=TOP).map(|level| each * (1 + level) as f64).collect::<Vec<_>>();
        let mut steps =
            vec![Step { inputs: vec![], variants: vec![Variant { consumed: 0, cost: cost(0.0) }], bootstrap: None }];
        let (mut activations, mut errors) = (Vec::new(), Vec::new());
        for layer in 0..LAYERS {
            let at = steps.len() - 1;
            let refresh = Refresh { from: 1, cost: (0..=TOP).map(|t| 60.0 + 4.0 * t as f64).collect() };
            let map = vec![Variant { consumed: 1, cost: cost(1.0) }];
            steps.push(Step { inputs: vec![at], variants: map, bootstrap: Some(refresh) });
            let variants = [2, 3, 5].map(|consumed| Variant { consumed, cost: cost(0.5 * consumed as f64) });
            steps.push(Step { inputs: vec![at + 1], variants: variants.to_vec(), bootstrap: None });
            activations.push(Some((at + 2, vec![0, 1, 2])));
            let worst = 1.0 + ((seed * 7 + layer * 5) % 11) as f64;
            errors.push(vec![worst, worst / 4.0, worst / 64.0]);
        }
        let mut joint = Joint { steps, activations, errors, before: None };
        let highest = vec![2; LAYERS];
        joint.before = Some((seconds(&joint, &highest), joint.error(&highest)));
        joint
    }

    /// Seconds of the best placement for given degrees.
    fn seconds(joint: &Joint, picks: &[usize]) -> f64 {
        let mut steps = joint.steps.clone();
        for (activation, &pick) in joint.activations.iter().zip(picks) {
            let (step, _) = activation.as_ref().expect("all have one");
            steps[*step].variants = vec![steps[*step].variants[pick].clone()];
        }
        placement::place(&steps).map_or(f64::INFINITY, |p| p.cost)
    }

    #[test]
    fn no_other_degrees_are_both_faster_and_as_good() {
        let all = (0..3usize.pow(LAYERS as u32))
            .map(|n| (0..LAYERS).map(|k| n / 3usize.pow(k as u32) % 3).collect::<Vec<_>>());
        let all: Vec<Vec<usize>> = all.collect();
        let mut faster_than_shallowest = 0;
        for seed in 0..6 {
            let joint = network(seed);
            for budget in [0.5, 2.0, 6.0, 100.0] {
                let picks = joint.choose(budget, &[0; LAYERS]).expect("the highest degrees are within");
                let (error, time) = (joint.error(&picks), seconds(&joint, &picks));
                assert!(error <= budget, "{picks:?}: {error}");
                let better = all.iter().find(|p| joint.error(p) <= error && seconds(&joint, p) < time - 1e-9);
                assert_eq!(better, None, "better than {picks:?}");
                // What has the fewest levels in all of what is within.
                let depth = |p: &[usize]| p.iter().map(|&k| [2, 3, 5][k]).sum::<usize>();
                let within = all.iter().filter(|p| joint.error(p) <= budget);
                let shallowest =
                    within.min_by(|p, q| depth(p).cmp(&depth(q)).then(joint.error(p).total_cmp(&joint.error(q))));
                faster_than_shallowest += usize::from(time < seconds(&joint, shallowest.expect("some")) - 1e-9);
            }
        }
        assert!(faster_than_shallowest > 0);
    }

    #[test]
    fn what_cannot_be_met_has_no_choice() {
        assert_eq!(network(0).choose(0.01, &[0; LAYERS]), None);
        let mut joint = network(1);
        joint.activations[2] = None;
        let picks = joint.choose(100.0, &[2, 2, 1, 2]).expect("everything is within");
        assert_eq!(picks[2], 1, "not to be chosen");
    }
}
