//! The error that evaluating a polynomial adds by itself.
//!
//! The evaluation plan is run on sample arguments and then backwards, so that every rescale and
//! relinearisation counts with its derivative: `C_k` grows like `k`, and what is added early is multiplied often.

use crate::noise::Elementary;
use crate::shape::Shape;
use fhec_math::chebyshev::ChebyshevPlan;

/// Arguments used when none are known: the whole interval.
const DEFAULT_ARGUMENTS: [f64; 9] = [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0];

/// log2 of the scales that powers and nodes have before and after their rescale.
struct Scales {
    /// By index of the power.
    power: Vec<f64>,
    /// By node.
    node: Vec<f64>,
}

/// Arguments for each degree at which the largest values inside an evaluation are looked for.
const ARGUMENTS_PER_DEGREE: usize = 8;
/// Factor on the largest values found: a polynomial bends little between arguments so dense.
const MAGNITUDE_MARGIN: f64 = 1.05;

/// Mean squared derivatives of the result by each power and by each node, over some arguments, and the largest value of
/// each node.
#[derive(Clone, Debug)]
pub(crate) struct PolyGains {
    powers: Vec<f64>,
    nodes: Vec<f64>,
    /// log2 of a bound of each node's value over the whole interval.
    magnitudes: Vec<f64>,
}

/// What a value inside an evaluation needs: its level after the rescale, and log2 of its scale and amplitude
/// (scale times bound).
pub(crate) struct Inner {
    pub(crate) level: usize,
    pub(crate) scale: f64,
    pub(crate) amplitude: f64,
}

impl PolyGains {
    /// The gains of `plan` over `arguments`.
    pub(crate) fn of(plan: &ChebyshevPlan, arguments: &[f64]) -> Self {
        let arguments = if arguments.is_empty() { &DEFAULT_ARGUMENTS[..] } else { arguments };
        let (powers, nodes) = (vec![0.0; plan.degree().max(2) + 1], vec![0.0; plan.nodes().len()]);
        let mut gains = PolyGains { powers, nodes, magnitudes: magnitudes(plan) };
        let share = 1.0 / arguments.len() as f64;
        arguments.iter().for_each(|&x| gains.add(plan, x, share));
        gains
    }

    /// Variance of the error that the evaluation adds to its result, where the argument has `level` and log2 scale
    /// `source`, and the result log2 scale `target`.
    pub(crate) fn variance(
        &self,
        plan: &ChebyshevPlan,
        shape: &Shape,
        e: &Elementary,
        level: usize,
        [source, target]: [f64; 2],
    ) -> f64 {
        let scales = scales(plan, &shape.log2_q, level, source, target);
        let at = |log2_scale: f64, v: f64| v * (-2.0 * log2_scale).exp2();
        let own = |depth: usize, scale: f64, relinearise: bool, degree2: bool| {
            let before = level - (depth - 1);
            let switch = if relinearise { e.key_switch[before] + e.rounding } else { 0.0 };
            let rounding = if degree2 { e.rounding_product } else { e.rounding };
            at(scale + shape.log2_q[before], switch) + at(scale, rounding)
        };
        let powers = plan
            .powers()
            .iter()
            .map(|s| self.powers[s.index] * own(s.depth, scales.power[s.index], s.relinearise, !s.relinearise));
        let nodes = plan.nodes().iter().zip(&scales.node).zip(&self.nodes);
        let nodes = nodes.map(|((n, &scale), g)| g * own(n.depth, scale, n.relinearise, false));
        powers.chain(nodes).sum()
    }

    /// Scale and amplitude of every power and node, where the argument has `level` and log2 scale `source`, and the
    /// result log2 scale `target`. The first prime is never looked at.
    pub(crate) fn inner(
        &self,
        plan: &ChebyshevPlan,
        log2_q: &[f64],
        level: usize,
        [source, target]: [f64; 2],
    ) -> Vec<Inner> {
        let s = scales(plan, log2_q, level, source, target);
        let inner =
            |depth: usize, scale: f64, bound: f64| Inner { level: level - depth, scale, amplitude: scale + bound };
        // |C_k| ≤ 2. Products are held before their rescale: by then the modulus is larger by as much as they are.
        let powers = plan.powers().iter().map(|p| inner(p.depth, s.power[p.index], 1.0));
        let nodes =
            plan.nodes().iter().zip(&s.node).zip(&self.magnitudes).map(|((n, &own), &m)| inner(n.depth, own, m));
        powers.chain(nodes).collect()
    }

    /// Adds the squared derivatives at `x`, times `share`.
    fn add(&mut self, plan: &ChebyshevPlan, x: f64, share: f64) {
        let (power, value) = evaluate(plan, x);
        let mut by_power = vec![0.0; power.len()];
        let mut by_node = vec![0.0; value.len()];
        by_node[value.len() - 1] = 1.0;
        for (i, n) in plan.nodes().iter().enumerate().rev() {
            self.nodes[i] += share * by_node[i] * by_node[i];
            for t in &n.terms {
                by_power[t.power] += by_node[i] * t.coefficient;
            }
            for p in &n.products {
                by_node[p.node] += by_node[i] * power[p.power];
                by_power[p.power] += by_node[i] * value[p.node];
            }
        }
        for s in plan.powers().iter().rev() {
            let d = by_power[s.index];
            self.powers[s.index] += share * d * d;
            by_power[s.a] += d * power[s.b];
            by_power[s.b] += d * power[s.a];
            by_power[s.a - s.b] -= d;
        }
    }
}

/// Values of all powers `C_k = 2·T_k` (by index) and of all nodes at the argument `x`.
fn evaluate(plan: &ChebyshevPlan, x: f64) -> (Vec<f64>, Vec<f64>) {
    let mut power = vec![0.0; plan.degree().max(2) + 1];
    power[0] = 2.0;
    power[1] = 2.0 * x;
    for s in plan.powers() {
        power[s.index] = power[s.a] * power[s.b] - power[s.a - s.b];
    }
    let mut value = Vec::with_capacity(plan.nodes().len());
    for n in plan.nodes() {
        let terms: f64 = n.terms.iter().map(|t| t.coefficient * power[t.power]).sum();
        let products: f64 = n.products.iter().map(|p| value[p.node] * power[p.power]).sum();
        value.push(n.constant + terms + products);
    }
    (power, value)
}

/// log2 of the largest value of every node over the interval.
fn magnitudes(plan: &ChebyshevPlan) -> Vec<f64> {
    let mut largest = vec![0.0f64; plan.nodes().len()];
    let count = ARGUMENTS_PER_DEGREE * plan.degree().max(1);
    for i in 0..=count {
        let x = (std::f64::consts::PI * i as f64 / count as f64).cos();
        let (_, values) = evaluate(plan, x);
        largest.iter_mut().zip(values).for_each(|(l, v)| *l = l.max(v.abs()));
    }
    // The scale itself must stay below the modulus too, however small the values.
    largest.into_iter().map(|l| (l * MAGNITUDE_MARGIN).max(1.0).log2()).collect()
}

/// Scales as the evaluator chooses them: powers follow from the argument's, nodes from the target's.
fn scales(plan: &ChebyshevPlan, log2_q: &[f64], level: usize, source: f64, target: f64) -> Scales {
    let q = |depth: usize| log2_q[level - (depth - 1)];
    let mut power = vec![source; plan.degree().max(2) + 1];
    for step in plan.powers() {
        power[step.index] = power[step.a] + power[step.b] - q(step.depth);
    }
    let mut node = vec![target; plan.nodes().len()];
    for i in (0..plan.nodes().len()).rev() {
        for p in &plan.nodes()[i].products {
            node[p.node] = node[i] + q(plan.nodes()[i].depth) - power[p.power];
        }
    }
    Scales { power, node }
}
