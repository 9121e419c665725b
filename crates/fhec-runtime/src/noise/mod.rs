//! Computes in the clear and adds the noise that encryption would: Gaussian, independent, with the
//! variances of the engine's operations. Shows the precision of a plan over a whole data set in a fraction of the
//! time of encrypted runs.
//!
//! Values and errors travel together, so products and polynomials amplify errors as they do under encryption. The noise of
//! a run depends only on the seed.

mod model;
mod random;

use crate::backend::{Backend, OpResult, Step};
use crate::clear::{ClearBackend, Slots, row_norms};
use crate::context::context;
use crate::error::{OpError, Result};
use fhec_ckks::chebyshev::{ChebyshevPlan, Schedule};
use fhec_ckks::linear::{Hoisting, LinearMap};
use fhec_ckks::{Context, InsecureToken};
use fhec_math::{Scale, galois_element};
use fhec_plan::{LinearTerm, MatrixId, Op, PolyId, Reg, VectorId, Verified};
use model::Elementary;
use random::Gaussian;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The noise backend. Inputs and outputs are row-major tensors in the units of the model.
#[derive(Clone, Debug)]
pub struct NoiseBackend {
    shared: Arc<Shared>,
    seed: u64,
}

#[derive(Debug)]
struct Shared {
    clear: ClearBackend,
    context: Arc<Context>,
    elementary: Elementary,
    /// Sum of the squares of each row, by matrix.
    row_norms: Vec<OnceLock<Vec<f64>>>,
    /// Per linear map instruction and group: whether babies are divided by `P`.
    single: BTreeMap<usize, Vec<bool>>,
}

impl NoiseBackend {
    /// A backend for runs of `verified`.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`](crate::RuntimeError::Ckks) for parameters that the engine refuses.
    pub fn new(verified: &Verified, seed: u64) -> Result<Self> {
        let plan = verified.plan();
        // Nothing is encrypted here, so there is nothing to protect.
        let context = context(&plan.parameters, Some(InsecureToken::for_tests()))?;
        let mut single = BTreeMap::new();
        for (number, instruction) in plan.instructions.iter().enumerate() {
            let Op::LinearMap { terms, .. } = &instruction.op else { continue };
            let level = verified.register(terms[0].src).level;
            let groups = verified.facts().groups(number).iter().map(|group| {
                let blocks = group.terms.iter().map(|&t| plan.matrices[terms[t].matrix.index()].in_ciphertexts);
                let outputs = verified.register(instruction.dst).ciphertexts;
                let map = LinearMap::new(group.bsgs.terms(), blocks.sum(), outputs)?;
                Ok(map.hoisting(&context, level) == Hoisting::Single)
            });
            single.insert(number, groups.collect::<Result<Vec<_>>>()?);
        }
        let shared = Shared {
            clear: ClearBackend::new(verified),
            elementary: Elementary::new(&context),
            row_norms: plan.matrices.iter().map(|_| OnceLock::new()).collect(),
            context,
            single,
        };
        Ok(NoiseBackend { shared: Arc::new(shared), seed })
    }

    /// The same backend with other noise: one for each sample of a data set. Shares everything else.
    pub fn with_seed(&self, seed: u64) -> Self {
        NoiseBackend { shared: Arc::clone(&self.shared), seed }
    }

    fn gaussian(&self, step: &Step) -> Gaussian {
        Gaussian::new(self.seed, step.number as u64)
    }

    /// Adds noise of the given variance at `scale` to every slot.
    fn disturb(&self, step: &Step, mut value: Slots, variance: f64, scale: &Scale) -> Slots {
        let deviation = variance.sqrt() * (-scale.log2()).exp2();
        let mut gaussian = self.gaussian(step);
        value.values_mut().iter_mut().for_each(|v| *v += deviation * gaussian.next());
        value
    }

    fn switch(&self, level: usize) -> f64 {
        self.shared.elementary.key_switch(&self.shared.context, level)
    }

    fn row_norms(&self, verified: &Verified, matrix: MatrixId) -> &[f64] {
        self.shared.row_norms[matrix.index()].get_or_init(|| {
            let plan = verified.plan();
            row_norms(&plan.matrices[matrix.index()], &plan.weights)
        })
    }

    fn series(&self, step: &Step, x: &Slots, plan: &ChebyshevPlan, source: &Source) -> OpResult<Slots> {
        let (context, e) = (&*self.shared.context, &self.shared.elementary);
        let out = &step.result.scale;
        let schedule = Schedule::new(context, plan, source.level, source.scale, out)?;
        let mut gaussian = self.gaussian(step);
        // Relinearisation happens before the division by the prime, rounding after it.
        let mut finish = |value: Slots, depth: usize, scale: &Scale, relinearise: bool| {
            let before = source.level + 1 - depth;
            let q = (context.q(before).value() as f64).log2();
            let switch = if relinearise { self.switch(before) * (-2.0 * q).exp2() } else { 0.0 };
            let deviation = (switch + e.rounding()).sqrt() * (-scale.log2()).exp2();
            let mut value = value;
            value.values_mut().iter_mut().for_each(|v| *v += deviation * gaussian.next());
            value
        };
        let mut powers: Vec<Slots> = vec![x.map(|_| 2.0), x.map(|v| 2.0 * v)];
        powers.resize(plan.degree().max(1) + 1, powers[0].clone());
        for (power, scale) in plan.powers().iter().zip(schedule.power_scales()) {
            let product = powers[power.a].zip(&powers[power.b], |a, b| a * b);
            let value = product.zip(&powers[power.a - power.b], |a, b| a - b);
            powers[power.index] = finish(value, power.depth, scale, power.relinearise);
        }
        let mut nodes: Vec<Slots> = Vec::with_capacity(plan.nodes().len());
        for (node, scale) in plan.nodes().iter().zip(schedule.node_scales()) {
            let mut value = x.map(|_| node.constant);
            for term in &node.terms {
                value = value.zip(&powers[term.power], |a, b| a + term.coefficient * b);
            }
            for product in &node.products {
                let factor = nodes[product.node].zip(&powers[product.power], |a, b| a * b);
                value = value.zip(&factor, |a, b| a + b);
            }
            nodes.push(finish(value, node.depth, scale, node.relinearise));
        }
        Ok(nodes.pop().unwrap_or_else(|| x.clone()))
    }
}

/// What is known of an operand.
struct Source<'a> {
    level: usize,
    scale: &'a Scale,
    degree: u8,
}

impl<'a> Source<'a> {
    fn of(step: &Step<'a>) -> Self {
        let facts = step.verified.register(step.instruction.op.sources()[0]);
        Source { level: facts.level, scale: &facts.scale, degree: facts.degree }
    }
}

impl Backend for NoiseBackend {
    type Value = Slots;
    type Input = Vec<f64>;
    type Output = Vec<f64>;

    fn bytes(&self, value: &Slots) -> usize {
        value.len() * 8
    }

    fn input(&self, step: &Step, index: usize, value: Vec<f64>) -> OpResult<Slots> {
        let exact = self.shared.clear.input(step, index, value)?;
        Ok(self.disturb(step, exact, self.shared.elementary.fresh(), &step.result.scale))
    }

    fn output(&self, step: &Step, index: usize, value: &Slots) -> OpResult<Vec<f64>> {
        self.shared.clear.output(step, index, value)
    }

    /// Babies at the scale of the source, diagonals at theirs, giants before the rescale, then the rescale, and
    /// the folds after it.
    fn linear_map(
        &self,
        step: &Step,
        terms: &[LinearTerm],
        sources: &[&Slots],
        bias: Option<VectorId>,
        out_scale: &Scale,
    ) -> OpResult<Slots> {
        let (verified, e) = (step.verified, &self.shared.elementary);
        let mut value = self.shared.clear.linear_map(step, terms, sources, bias, out_scale)?;
        let level = verified.register(terms[0].src).level;
        let switch = self.switch(level);
        let at = |log2_scale: f64, variance: f64| variance * (-2.0 * log2_scale).exp2();
        let q = (self.shared.context.q(level).value() as f64).log2();
        let (out, sum) = (out_scale.log2(), out_scale.log2() + q);
        let outputs = step.result.ciphertexts as f64;
        let mut everywhere = 0.0;
        let mut variances = vec![0.0; value.len()];
        let single = self.shared.single.get(&step.number).map_or(&[][..], Vec::as_slice);
        for (group, &single) in verified.facts().groups(step.number).iter().zip(single) {
            let folded = (1usize << group.fold.len()) as f64;
            let baby = match (group.bsgs.baby_switches(), single) {
                (0, _) => 0.0,
                (_, false) => switch,
                (_, true) => switch + e.rounding(),
            };
            // A rotation of two adds the errors of both.
            let composed = verified.plan().keys.composed_in(group, verified.plan().parameters.log_n);
            let second = |some: bool| if some { switch + e.rounding() } else { 0.0 };
            let baby = baby + second(composed.babies > 0);
            for &t in &group.terms {
                let (matrix, source) = (terms[t].matrix, verified.register(terms[t].src).scale.log2());
                let squares: f64 = sources[t].values().iter().map(|v| v * v).sum();
                let mean_square = squares / sources[t].len() as f64;
                let period = verified.plan().matrices[matrix.index()].diagonal_period();
                let diagonals = verified.facts().diagonals(matrix).len() as f64 / outputs;
                everywhere += diagonals * folded * at(sum - source, e.encoding(period) * mean_square);
                for (v, norm) in variances.iter_mut().zip(self.row_norms(verified, matrix)) {
                    *v += norm * at(source, baby);
                }
            }
            let giants = group.bsgs.giant_switches() as f64 / outputs;
            everywhere += folded * giants * at(sum, switch + e.rounding_c1());
            everywhere += folded * composed.giants as f64 / outputs * at(sum, second(true));
            let folds = (folded - 1.0) * if composed.folds > 0 { 2.0 } else { 1.0 };
            let fold = folds * (self.switch(level - 1) + e.rounding());
            everywhere += at(out, folded * e.rounding() + fold);
        }
        if let Some(bias) = bias {
            everywhere += at(out, e.encoding(verified.plan().vectors[bias.index()].period));
        }
        let mut gaussian = self.gaussian(step);
        // A bias of a longer period than the matrix repeats the rows.
        let variances = variances.iter().cycle();
        for (v, variance) in value.values_mut().iter_mut().zip(variances) {
            *v += (variance + everywhere).sqrt() * gaussian.next();
        }
        Ok(value)
    }

    fn polynomial(&self, step: &Step, a: &Slots, poly: PolyId, _: &Scale) -> OpResult<Slots> {
        self.series(step, a, step.verified.facts().polynomial(poly), &Source::of(step))
    }

    fn add(&self, step: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        self.shared.clear.add(step, a, b)
    }

    fn sub(&self, step: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        self.shared.clear.sub(step, a, b)
    }

    fn negate(&self, step: &Step, a: &Slots) -> OpResult<Slots> {
        self.shared.clear.negate(step, a)
    }

    /// Where a slot holds two images, `a + ib`, the error `e` of a conjugate makes `(a − b)·e` of a square, and half of that in each
    /// factor of a product. The other image is taken to be one like this.
    fn mul(&self, step: &Step, a: &Slots, b: &Slots) -> OpResult<Slots> {
        let exact = self.shared.clear.mul(step, a, b)?;
        let Op::Mul(x, y) = step.instruction.op else { return Ok(exact) };
        if !step.verified.plan().complex {
            return Ok(exact);
        }
        let conjugate = self.switch(step.result.level) + self.shared.elementary.rounding();
        let of = |reg: Reg| conjugate.sqrt() * (-step.verified.register(reg).scale.log2()).exp2();
        let variance = |v: &Slots, std: f64| {
            let mean_square = v.values().iter().map(|v| v * v).sum::<f64>() / v.len() as f64;
            v.map(|v| (v * v + mean_square) * std * std)
        };
        let sum = if x == y {
            variance(a, of(x))
        } else {
            variance(a, of(y) / 2.0).zip(&variance(b, of(x) / 2.0), |p, q| p + q)
        };
        let mut gaussian = self.gaussian(step);
        let mut value = exact;
        value.values_mut().iter_mut().zip(sum.values()).for_each(|(v, s)| *v += s.sqrt() * gaussian.next());
        Ok(value)
    }

    fn mul_scalar(&self, step: &Step, a: &Slots, value: f64, scale: &Scale) -> OpResult<Slots> {
        let factor = scale.to_f64();
        self.shared.clear.mul_scalar(step, a, (value * factor).round() / factor, scale)
    }

    fn mul_vector(&self, step: &Step, a: &Slots, vector: VectorId, scale: &Scale) -> OpResult<Slots> {
        let exact = self.shared.clear.vector(step.verified, vector);
        let encoding = self.shared.elementary.encoding(exact.period());
        let encoded = self.disturb(step, exact.clone(), encoding, scale);
        Ok(a.zip(&encoded, |x, y| x * y))
    }

    fn add_scalar(&self, step: &Step, a: &Slots, value: f64) -> OpResult<Slots> {
        self.shared.clear.add_scalar(step, a, value)
    }

    fn add_vector(&self, step: &Step, a: &Slots, vector: VectorId) -> OpResult<Slots> {
        let exact = self.shared.clear.add_vector(step, a, vector)?;
        let period = step.verified.plan().vectors[vector.index()].period;
        Ok(self.disturb(step, exact, self.shared.elementary.encoding(period), &step.result.scale))
    }

    fn rotate(&self, step: &Step, a: &Slots, steps: i64) -> OpResult<Slots> {
        let exact = self.shared.clear.rotate(step, a, steps)?;
        if steps % self.shared.context.slots() as i64 == 0 {
            return Ok(exact);
        }
        let plan = step.verified.plan();
        let element = galois_element(steps, plan.parameters.log_n);
        let switches = if plan.keys.composed.contains_key(&element) { 2.0 } else { 1.0 };
        let variance = switches * (self.switch(step.result.level) + self.shared.elementary.rounding());
        Ok(self.disturb(step, exact, variance, &step.result.scale))
    }

    fn relinearise(&self, step: &Step, a: &Slots) -> OpResult<Slots> {
        let variance = self.switch(step.result.level) + self.shared.elementary.rounding();
        Ok(self.disturb(step, a.clone(), variance, &step.result.scale))
    }

    fn rescale(&self, step: &Step, a: &Slots) -> OpResult<Slots> {
        let e = &self.shared.elementary;
        let variance = if Source::of(step).degree == 2 { e.rounding_product() } else { e.rounding() };
        Ok(self.disturb(step, a.clone(), variance, &step.result.scale))
    }

    fn level_drop(&self, step: &Step, a: &Slots, level: usize) -> OpResult<Slots> {
        self.shared.clear.level_drop(step, a, level)
    }

    fn bootstrap(&self, step: &Step, a: &Slots, _: usize, _: &Scale) -> OpResult<Slots> {
        let parameters = &step.verified.plan().parameters;
        let spec = parameters.bootstrap.as_ref().ok_or(OpError::Kind { expected: "bootstraps", found: "none" })?;
        // Values in the units of the bootstrap.
        let unit = Source::of(step).scale.div(&spec.input_scale).to_f64();
        let q_0 = parameters.q[0] as f64;
        let std = spec.error_std(parameters.log_n, q_0);
        let square = a.values().iter().map(|v| v * v).sum::<f64>() / a.values().len().max(1) as f64;
        let transform = spec.transform_error(parameters.log_n - 1, q_0) * square.sqrt();
        let mut gaussian = self.gaussian(step);
        let mut value = a.map(|v| spec.bend(v * unit) / unit);
        let classes = spec.error_classes();
        value.values_mut().iter_mut().for_each(|v| {
            let class = classes[gaussian.below(classes.len())];
            *v += (class * std / unit).hypot(transform) * gaussian.next();
        });
        Ok(value)
    }
}
