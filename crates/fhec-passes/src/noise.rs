//! Predicts the error of every value and of the outputs.
//!
//! Errors are modelled as independent contributions of known variance (engine notes §7; 2016/421, 2020/1203):
//!
//! | source | variance in the slots, in units of the value |
//! | --- | --- |
//! | fresh, secret key | `(σ²N + N/12) / s²` |
//! | fresh, public key | `(σ²N(4N/3 + 1) + N/12) / s²` |
//! | rounding of a rescale or of ModDown | `N(h + 1)/12 / s²`, `h = 2N/3` for a dense ternary secret |
//! | key switch | `σ²N²/12 · Σ_d D_d² / P² / s²` |
//! | encoded vector of period n | `min(N, 2n)/12 / s²`, times the mean square of what it multiplies |
//! | conjugate in the square of a slot `a + ib` of two images | key switch and rounding, times the mean of `(a − b)²` |
//!
//! `s` is the scale at that point. Half of each lies in the imaginary parts of the slots, which real arithmetic
//! never looks at, or which belong to another image, so all are halved. How much each disturbs the outputs comes from [`crate::sensitivity`], how much the values
//! between from `crate::errors`.

use crate::matrices::{MatrixInfo, groups_of};
use crate::poly_noise::{Inner, PolyGains};
use crate::sensitivity::Sensitivity;
use crate::shape::{Shape, single_hoisting};
use fhec_ir::he::{Graph, Node, Op, ValueId};
use fhec_math::chebyshev::ChebyshevPlan;
use fhec_math::galois_element;
use fhec_plan::linear::LinearGroup;
use fhec_plan::{KeyManifest, Polynomial};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Standard deviation of the engine's error distribution (centred binomial of 42 bits).
const SIGMA: f64 = 3.240_370_349_203_93;

/// Factor on standard deviations, so that predictions err on the safe side where the model is rough.
pub(crate) const SAFETY: f64 = 1.25;

/// Noise of elementary operations, as variances of the real parts of the slots at scale 1.
#[derive(Clone, Debug)]
pub struct Elementary {
    /// Variance in a slot for coefficients of variance 1.
    slot: f64,
    /// Rounding of both parts of a ciphertext.
    pub rounding: f64,
    /// Rounding of the part that multiplies the secret.
    pub rounding_c1: f64,
    /// Rounding of the three parts of a product: the slots of s² are exponentially distributed with mean h, so that
    /// their mean square is 2h².
    pub rounding_product: f64,
    /// Key switch, without the rounding of its ModDown, by level.
    pub key_switch: Vec<f64>,
}

impl Elementary {
    /// For parameters of `shape`.
    pub fn new(shape: &Shape) -> Self {
        let (slot, h) = (shape.n() / 2.0, 2.0 * shape.n() / 3.0);
        let key_switch = |level: usize| {
            let log2_p: f64 = shape.log2_p[..shape.special_at(level)].iter().sum();
            let digit = |r: std::ops::Range<usize>| {
                let log2: f64 = shape.log2_q[r.start..r.end.min(level + 1)].iter().sum();
                (2.0 * (log2 - log2_p)).exp2()
            };
            let ratio: f64 = shape.digit_ranges().filter(|r| r.start <= level).map(digit).sum();
            SIGMA * SIGMA * slot * shape.n() / 12.0 * ratio
        };
        let rounding = slot * (h + 1.0) / 12.0;
        Elementary {
            slot,
            rounding,
            rounding_c1: slot * h / 12.0,
            rounding_product: rounding + slot * 2.0 * h * h / 12.0,
            key_switch: (0..shape.log2_q.len()).map(key_switch).collect(),
        }
    }

    /// Fresh encryption under the secret key, encoding included.
    pub fn fresh(&self) -> f64 {
        self.slot * (SIGMA * SIGMA + 1.0 / 12.0)
    }

    /// Fresh encryption under the public key, encoding included: `v·e + e_0 + e_1·s` with
    /// ternary `v` and `s`.
    pub fn fresh_public(&self) -> f64 {
        self.slot * (SIGMA * SIGMA * (8.0 * self.slot / 3.0 + 1.0) + 1.0 / 12.0)
    }

    /// Rounding of an encoded vector of the given period: it has `2·period` coefficients.
    pub fn encoding(&self, period: usize) -> f64 {
        self.slot.min(period as f64) / 12.0
    }
}

/// How the polynomials of a graph are evaluated, by [`fhec_plan::PolyId`]; nothing for constants. Finding that takes a while, so
/// that all versions of a graph share it.
#[derive(Clone, Debug, Default)]
pub struct Plans(Vec<Option<Arc<ChebyshevPlan>>>);

impl Plans {
    /// The plans of a graph's polynomials. Networks repeat few, and each is planned once.
    pub fn of(graph: &Graph) -> Self {
        let mut known: BTreeMap<Vec<u64>, Option<Arc<ChebyshevPlan>>> = BTreeMap::new();
        let plan = |p: &Polynomial| {
            let bits = p.chebyshev.iter().map(|c| c.to_bits()).collect();
            let new = || ChebyshevPlan::new(&p.chebyshev).ok().map(Arc::new);
            known.entry(bits).or_insert_with(new).clone()
        };
        Plans(graph.polynomials.iter().map(plan).collect())
    }

    /// Whether every polynomial can be evaluated: no engine evaluates constants.
    pub fn all(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

/// Everything the prediction depends on that stays the same while parameters are searched.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    graph: &'a Graph,
    levels: &'a [usize],
    matrices: &'a [MatrixInfo],
    sensitivity: &'a Sensitivity,
    /// Groups of every linear map's terms (empty for other nodes).
    groups: Vec<Vec<LinearGroup>>,
    /// Plans of polynomials, by node.
    plans: Vec<Option<(Arc<ChebyshevPlan>, PolyGains)>>,
    /// What of the manifest concerns errors: rotations that are made of two.
    keys: KeyManifest,
}

/// Variances that a node adds to its result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Injection {
    /// In every slot.
    pub(crate) slots: f64,
    /// For every entry of the matrix, times its square.
    pub(crate) entries: f64,
}

/// Predicted errors (standard deviations, in units of the values).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Of the worst element of each output.
    pub outputs: Vec<f64>,
    /// Precision of the worst output, for inputs encrypted under the secret key: log2 of its range over its error.
    pub bits: f64,
    /// The same for inputs encrypted under the public key, whose noise is larger.
    pub public_bits: f64,
}

impl<'a> Model<'a> {
    /// A model of a placed graph (levels by value).
    pub fn new(
        graph: &'a Graph,
        levels: &'a [usize],
        matrices: &'a [MatrixInfo],
        sensitivity: &'a Sensitivity,
        plans: &Plans,
    ) -> Self {
        let groups = graph
            .nodes
            .iter()
            .map(|node| match &node.op {
                Op::LinearMap { terms, .. } => groups_of(graph, matrices, terms),
                _ => Vec::new(),
            })
            .collect();
        let plan = |(node, arguments): (&Node, &Vec<f64>)| match &node.op {
            Op::Polynomial { poly, .. } => {
                let plan = Arc::clone(plans.0[poly.index()].as_ref()?);
                let gains = PolyGains::of(&plan, arguments);
                Some((plan, gains))
            }
            _ => None,
        };
        let plans = graph.nodes.iter().zip(&sensitivity.arguments).map(plan).collect();
        Model { graph, levels, matrices, sensitivity, groups, plans, keys: KeyManifest::default() }
    }

    /// The same where some rotations are made of two others.
    #[must_use]
    pub fn composing(self, keys: &KeyManifest) -> Self {
        let keys = KeyManifest { composed: keys.composed.clone(), ..KeyManifest::default() };
        Model { keys, ..self }
    }

    /// Rotations that are made of two others.
    pub fn keys(&self) -> &KeyManifest {
        &self.keys
    }

    /// Groups of the terms of every linear map, by node.
    pub fn groups(&self) -> &[Vec<LinearGroup>] {
        &self.groups
    }

    /// Scales and amplitudes of everything inside the polynomials, for primes of the given sizes (the first is never
    /// looked at) and the given log2 of the scale of every value.
    pub(crate) fn inner_values(&self, log2_q: &[f64], scales: &[f64]) -> Vec<Inner> {
        let nodes = self.plans.iter().zip(&self.graph.nodes).zip(scales);
        let inner = nodes.filter_map(|((plan, node), &target)| {
            let (plan, gains) = plan.as_ref()?;
            let source = node.inputs[0].index();
            Some(gains.inner(plan, log2_q, self.levels[source], [scales[source], target]))
        });
        inner.flatten().collect()
    }

    /// Evaluation plan of a polynomial's node.
    pub fn plan(&self, id: ValueId) -> Option<&ChebyshevPlan> {
        self.plans[id.index()].as_ref().map(|(plan, _)| plan.as_ref())
    }

    /// Whether the value is a relinearised product that nothing uses but a rescale: the two are one division.
    pub fn rescaled_at_once(&self, id: ValueId) -> bool {
        let users = || self.graph.nodes.iter().filter(|n| n.inputs.contains(&id));
        self.graph.node(id).op == Op::Relinearise && users().count() == 1 && users().all(|n| n.op == Op::Rescale)
    }

    /// The graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// Level of every value.
    pub fn levels(&self) -> &'a [usize] {
        self.levels
    }

    /// Diagonals of every matrix.
    pub fn matrices(&self) -> &'a [MatrixInfo] {
        self.matrices
    }

    /// Predicts the errors of the outputs for parameters of `shape` and the given log2 of the scale of every value.
    pub fn predict(&self, shape: &Shape, scales: &[f64]) -> Prediction {
        let columns = self.sensitivity.column_output.len();
        let mut variance = vec![0.0; columns];
        // What encryption under the public key adds to that.
        let mut public = vec![0.0; columns];
        let elementary = Elementary::new(shape);
        for id in self.graph.ids() {
            let injection = self.injection(id, shape, scales, &elementary);
            let gains = &self.sensitivity.gains[id.index()];
            if matches!(self.graph.node(id).op, Op::Input(_)) {
                let more = (elementary.fresh_public() - elementary.fresh()) * (-2.0 * scales[id.index()]).exp2();
                public.iter_mut().zip(&gains.slots).for_each(|(v, s)| *v += more * s);
            }
            for (v, (s, e)) in variance.iter_mut().zip(gains.slots.iter().zip(&gains.entries)) {
                *v += injection.slots * s + injection.entries * e;
            }
        }
        public.iter_mut().zip(&variance).for_each(|(p, v)| *p += v);
        let outputs = self.worst_outputs(&variance);
        let (bits, public_bits) = (self.bits(&outputs), self.bits(&self.worst_outputs(&public)));
        Prediction { outputs, bits, public_bits }
    }

    /// Standard deviation of the worst element of each output.
    fn worst_outputs(&self, variance: &[f64]) -> Vec<f64> {
        let mut outputs = vec![0.0; self.graph.outputs.len()];
        for (v, &o) in variance.iter().zip(&self.sensitivity.column_output) {
            outputs[o] = (v.sqrt() * SAFETY).max(outputs[o]);
        }
        outputs
    }

    /// Precision of the worst output. The range of an output that never changes is its magnitude, and 1 where that is
    /// zero.
    fn bits(&self, outputs: &[f64]) -> f64 {
        let range = |&(lo, hi): &(f64, f64)| match (hi - lo, lo.abs()) {
            (width, _) if width > 0.0 => width,
            (_, magnitude) if magnitude > 0.0 => magnitude,
            _ => 1.0,
        };
        let ranges = self.sensitivity.output_range.iter().map(range);
        outputs.iter().zip(ranges).map(|(std, range)| (range / std).log2()).fold(f64::INFINITY, f64::min)
    }

    /// What every node adds to its result, under parameters of `shape` and with the given log2 of the scale of every value.
    pub(crate) fn injections(&self, shape: &Shape, scales: &[f64]) -> Vec<Injection> {
        let elementary = Elementary::new(shape);
        self.graph.ids().map(|id| self.injection(id, shape, scales, &elementary)).collect()
    }

    fn injection(&self, id: ValueId, shape: &Shape, scales: &[f64], e: &Elementary) -> Injection {
        let node = self.graph.node(id);
        let own = (-2.0 * scales[id.index()]).exp2();
        let slots = |slots: f64| Injection { slots, entries: 0.0 };
        let operand_level = node.inputs.first().map_or(0, |v| self.levels[v.index()]);
        let mean_square = |k: usize| self.sensitivity.mean_square[node.inputs[k].index()];
        // log2 of the scale of the constant in a product with one.
        let constant = || scales[id.index()] - scales[node.inputs[0].index()];
        match &node.op {
            Op::Input(_) => slots(e.fresh() * own),
            Op::LinearMap { .. } => self.linear(id, shape, scales, e),
            Op::Polynomial { .. } => {
                let Some((plan, gains)) = &self.plans[id.index()] else { return slots(e.rounding * own) };
                let ends = [scales[node.inputs[0].index()], scales[id.index()]];
                slots(gains.variance(plan, shape, e, operand_level, ends))
            }
            Op::MulScalar { .. } => slots(0.25 * mean_square(0) * (-2.0 * constant()).exp2()),
            Op::MulVector { vector, .. } => {
                let period = self.graph.vectors[vector.index()].period;
                slots(e.encoding(period) * mean_square(0) * (-2.0 * constant()).exp2())
            }
            Op::AddVector(vector) => slots(e.encoding(self.graph.vectors[vector.index()].period) * own),
            Op::Rotate(steps) => {
                let composed = self.keys.composed.contains_key(&galois_element(*steps, shape.log_n));
                let switches = if composed { 2.0 } else { 1.0 };
                slots(switches * (e.key_switch[operand_level] + e.rounding) * own)
            }
            Op::Relinearise => slots((e.key_switch[operand_level] + e.rounding) * own),
            Op::Rescale => slots(e.rounding * own),
            Op::Bootstrap { .. } => {
                let Some(spec) = &shape.bootstrap else { return Injection::default() };
                // Units of a bootstrap are those of the largest values that it takes.
                let unit = (scales[node.inputs[0].index()] - spec.input_scale.log2()).exp2();
                let rounding = spec.error_std(shape.log_n, shape.log2_q[0].exp2());
                let square = mean_square(0) * unit * unit;
                let bent = spec.bend_rms(square);
                let transform = spec.transform_error(shape.log_n - 1, shape.log2_q[0].exp2());
                slots((rounding * rounding + bent * bent) / (unit * unit) + transform * transform * mean_square(0))
            }
            Op::Mul if self.graph.complex => {
                // An error e of a conjugate makes (a − b)·e of a square of a + ib, and half of that in each factor of a product.
                let conjugate = e.key_switch[operand_level] + e.rounding;
                let scale = |k: usize| scales[node.inputs[k].index()];
                let of = |k: usize| 2.0 * mean_square(1 - k) * conjugate * (-2.0 * scale(k)).exp2();
                slots(if node.inputs[0] == node.inputs[1] { of(0) } else { (of(0) + of(1)) / 4.0 })
            }
            Op::Add | Op::Sub | Op::Mul | Op::Negate | Op::AddScalar(_) | Op::LevelDrop(_) => Injection::default(),
        }
    }

    /// A linear map: babies at the scale of the input, diagonals at theirs, giants before the rescale, the rescale, and
    /// the folds after it.
    fn linear(&self, id: ValueId, shape: &Shape, scales: &[f64], e: &Elementary) -> Injection {
        let node = self.graph.node(id);
        let Op::LinearMap { terms, .. } = &node.op else { return Injection::default() };
        let level = self.levels[node.inputs[0].index()];
        let out = scales[id.index()];
        let at = |log2_scale: f64, variance: f64| variance * (-2.0 * log2_scale).exp2();
        let switch = e.key_switch[level];
        let sum_scale = out + shape.log2_q[level];
        let mut total = Injection::default();
        for group in &self.groups[id.index()] {
            let matrix = &self.graph.matrices[terms[group.terms[0]].matrix.index()];
            let folded = matrix.fold_steps().iter().fold(1.0, |f, _| f * 2.0);
            let single = single_hoisting(shape, level, group);
            // A rotation of two adds the errors of both.
            let composed = self.keys.composed_in(group, shape.log_n);
            let second = |some: bool| if some { switch + e.rounding } else { 0.0 };
            for &t in &group.terms {
                let source = node.inputs[t].index();
                // Babies: all but one of them are key switches.
                let babies =
                    if group.bsgs.baby_switches() == 0 { 0.0 } else { switch + if single { e.rounding } else { 0.0 } };
                total.entries += at(scales[source], babies + second(composed.babies > 0));
                let info = &self.matrices[terms[t].matrix.index()];
                let per_output = info.diagonals.len() as f64 / matrix.out_ciphertexts as f64;
                let encoded = e.encoding(matrix.diagonal_period()) * self.sensitivity.mean_square[source];
                total.slots += per_output * folded * at(sum_scale - scales[source], encoded);
            }
            let giants = group.bsgs.giant_switches() as f64 / matrix.out_ciphertexts as f64;
            total.slots += folded * giants * at(sum_scale, switch + e.rounding_c1);
            let twice = composed.giants as f64 / matrix.out_ciphertexts as f64;
            total.slots += folded * twice * at(sum_scale, second(true));
            let fold_switch = e.key_switch[level.saturating_sub(1)] + e.rounding;
            let folds = (folded - 1.0) * if composed.folds > 0 { 2.0 } else { 1.0 };
            total.slots += at(out, folded * e.rounding + folds * fold_switch);
        }
        total
    }
}
