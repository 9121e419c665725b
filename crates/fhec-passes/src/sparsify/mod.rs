//! Takes out units that a network can almost do without: activity sparsification after training, after SEALion (van Elsloo et
//! al. 2019, section 3.4), where gates are trained with the network instead.
//!
//! On calibration data units are ranked by what their loss costs the layer that reads them *if its other weights make good
//! for it* (`rank.rs`), removed, and the layer is fitted anew by least squares (`refit.rs`). How many go is found by trial: the most
//! for which the share of calibration samples whose class changes stays allowed, counted on samples that
//! no fit has seen. What is left is an exact network again, from which dead units are eliminated.

mod covariance;
mod rank;
mod refit;
mod sites;

use crate::approximate::ApproximateError;
use crate::calibrate::Samples;
use crate::units::unroll::unroll;
use crate::units::{count, dead_units};
use covariance::Covariance;
use fhec_ir::nn::{Graph, InputError, Interpreter, Op};
use fhec_ir::{Origin, Tensor};
use rank::Ranking;
use rayon::prelude::*;
use sites::Site;
use std::fmt;

/// Every so many samples one is kept for counting changes, where there are enough of them.
const HELD_OUT: usize = 4;
/// Fewer samples than this all serve for both.
const FEW_SAMPLES: usize = 32;
/// Trials of how much error each layer may get: halvings of an interval of logarithms.
const TRIALS: usize = 9;
/// The error that a layer may get, as a share of the variance of its sums: the least and the most that is tried.
const ERRORS: (f64, f64) = (1e-5, 0.3);

/// One layer before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Thinned {
    /// The layer.
    pub origin: Origin,
    /// Units that it had.
    pub before: usize,
    /// Units that it has.
    pub after: usize,
}

/// A network with fewer units.
#[derive(Clone, Debug)]
pub struct Sparsified {
    /// The network.
    pub graph: Graph,
    /// Layers that can lose units.
    pub layers: Vec<Thinned>,
    /// Share of the samples counted whose class is another one now.
    pub changed: f64,
    /// Number of samples counted.
    pub counted: usize,
    /// Share that was allowed.
    pub allowed: f64,
}

impl fmt::Display for Sparsified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sparsified: ")?;
        for layer in &self.layers {
            write!(f, "{} {} -> {} units, ", layer.origin, layer.before, layer.after)?;
        }
        write!(
            f,
            "which changes the class of {:.2} % of {} calibration samples (allowed: {:.2} %)",
            100.0 * self.changed,
            self.counted,
            100.0 * self.allowed
        )
    }
}

/// A layer whose units can go, with all that is known of it.
struct Candidate {
    site: Site,
    covariance: Covariance,
    ranking: Ranking,
}

/// Removes units so that at most the share `allowed` of the samples changes its class. With `elements`, single elements
/// count as units, for modes in which each has a ciphertext of its own.
///
/// # Errors
/// [`ApproximateError::NoClasses`] for a network that has not one output of several classes; samples that do not fit.
pub fn sparsify(
    graph: &Graph,
    samples: &Samples,
    allowed: f64,
    elements: bool,
) -> Result<Sparsified, ApproximateError> {
    match graph.outputs.as_slice() {
        [output] if graph.node(output.value).shape.iter().product::<usize>() > 1 => {}
        _ => return Err(ApproximateError::NoClasses),
    }
    let unrolled = if elements { unroll(graph) } else { None };
    let graph = dead_units(&unrolled.unwrap_or_else(|| graph.clone()));
    let few = samples.len() < FEW_SAMPLES;
    let held = |i: usize| i % HELD_OUT == HELD_OUT - 1;
    let part = |wanted: bool| -> Vec<Vec<Tensor>> {
        let own = samples.iter().enumerate().filter(|(i, _)| few || held(*i) == wanted);
        own.map(|(_, sample)| sample.clone()).collect()
    };
    let (fitted, counted) = (part(false), part(true));
    let decided = classes(&graph, &counted)?;
    let candidates = candidates(&graph, &fitted, elements)?;
    let trial = |error: f64| -> Result<(Graph, f64), ApproximateError> {
        let mut thinner = graph.clone();
        for candidate in &candidates {
            let removed = candidate.ranking.within(error);
            refit::remove(&mut thinner, &candidate.site, &candidate.covariance, removed);
        }
        let thinner = dead_units(&thinner);
        let now = classes(&thinner, &counted)?;
        let changes = decided.iter().zip(&now).filter(|(a, b)| a != b).count();
        Ok((thinner, changes as f64 / decided.len().max(1) as f64))
    };
    let (mut low, mut high) = (ERRORS.0.ln(), ERRORS.1.ln());
    let mut best = (graph.clone(), 0.0);
    for _ in 0..if candidates.is_empty() { 0 } else { TRIALS } {
        let middle = f64::midpoint(low, high);
        let (thinner, changed) = trial(middle.exp())?;
        if changed <= allowed {
            best = (thinner, changed);
            low = middle;
        } else {
            high = middle;
        }
    }
    let layers = candidates.iter().map(|c| thinned(&graph, &best.0, &c.site)).collect();
    Ok(Sparsified { graph: best.0, layers, changed: best.1, counted: counted.len(), allowed })
}

fn candidates(graph: &Graph, samples: &Samples, inputs: bool) -> Result<Vec<Candidate>, InputError> {
    let found = sites::sites(graph, inputs).into_iter();
    let candidate = |site: Site| {
        let covariance = Covariance::of(graph, &site, samples)?;
        let ranking = Ranking::of(&site.weights(graph), &site, &covariance);
        Ok(Candidate { site, covariance, ranking })
    };
    found.map(candidate).collect()
}

fn thinned(before: &Graph, after: &Graph, site: &Site) -> Thinned {
    let node = before.node(site.source);
    if matches!(node.op, Op::Input { .. }) {
        let reader = &before.node(site.reader).origin;
        let now = after
            .ids()
            .find(|&id| after.node(id).origin.names == reader.names && !after.node(id).op.constants().is_empty());
        let left = now.map_or(site.units, |now| site.used(after, now));
        return Thinned { origin: node.origin.clone(), before: site.units, after: left };
    }
    let now = after.nodes.iter().find(|n| n.origin.names == node.origin.names && n.op.name() == node.op.name());
    Thinned {
        origin: node.origin.clone(),
        before: count(&node.shape),
        after: now.map_or(count(&node.shape), |n| count(&n.shape)),
    }
}

/// The class of every sample.
fn classes(graph: &Graph, samples: &Samples) -> Result<Vec<usize>, InputError> {
    let interpreter = Interpreter::new(graph).expect("the passes keep the graph valid");
    let class = |sample: &Vec<Tensor>| {
        let outputs = interpreter.run(sample)?;
        let values = outputs[0].values();
        Ok((0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0))
    };
    samples.par_iter().map(class).collect()
}
