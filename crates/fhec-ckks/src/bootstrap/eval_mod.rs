//! EvalMod: from `t = I + ε` to `ε`, slot by slot.

use std::f64::consts::TAU;

use fhec_math::Scale;
use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::chebyshev::{ChebyshevPlan, ChebyshevWeights, depth_of_degree};

use super::cosine;
use crate::chebyshev;
use crate::cipher::Ciphertext;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;

const OP: &str = "bootstrap";

/// The plan of the polynomial, the same for every input.
#[derive(Clone, Debug)]
pub(super) struct EvalMod {
    plan: ChebyshevPlan,
    arcsine: Option<ChebyshevPlan>,
    half_range: f64,
    slope: f64,
    double_angles: u32,
    log_message_ratio: u32,
}

impl EvalMod {
    pub(super) fn new(spec: &BootstrapSpec) -> Result<Self> {
        let plan = |coefficients: &[f64], depth| {
            ChebyshevPlan::with_depth(coefficients, depth, &ChebyshevWeights::default())
                .map_err(|error| CkksError::Parameters(format!("{OP}: {error}")))
        };
        let depth = depth_of_degree(spec.cosine_degree as usize);
        Ok(Self {
            plan: plan(&cosine::coefficients(spec), depth)?,
            arcsine: spec.arcsine.then(|| plan(&cosine::arcsine(), 2)).transpose()?,
            half_range: cosine::half_range(spec),
            slope: spec.slope(),
            double_angles: spec.double_angles,
            log_message_ratio: spec.log_message_ratio,
        })
    }

    /// From slots `t/K'` to slots `gain·ε·2^ratio` at exactly `out_scale`.
    pub(super) fn apply(
        &self,
        evaluator: &Evaluator,
        input: &Ciphertext,
        gain: f64,
        out_scale: &Scale,
    ) -> Result<Ciphertext> {
        let wanted = out_scale.mul(&Scale::pow2(i64::from(self.log_message_ratio)));
        let result = match &self.arcsine {
            None => self.sine(evaluator, input, gain * self.slope / TAU, &wanted)?,
            Some(plan) => {
                let after = Scale::pow2(input.scale().log2().round() as i64);
                let sine = self.sine(evaluator, input, 1.0, &after)?;
                chebyshev::eval(evaluator, &sine, &plan.scaled(gain), &wanted)?
            }
        };
        Ok(result.with_scale(out_scale.clone()))
    }

    /// From slots `t/K'` to slots `factor·sin(2πt)` at exactly `out_scale`.
    ///
    /// Values are kept doubled, `z = 2a·cos φ`, for which `z² − 2a² = 2a²·cos 2φ`.
    ///
    /// The scale `σ` of a value becomes `σ²/q` with its square, so the last scale follows from the first and can hardly be any
    /// given number exactly. It need not be: read at another scale, a ciphertext holds a multiple of its values, and that
    /// factor goes into the amplitude `a`.
    fn sine(&self, evaluator: &Evaluator, input: &Ciphertext, factor: f64, out_scale: &Scale) -> Result<Ciphertext> {
        let context = evaluator.context();
        let rounds = self.double_angles as usize;
        let depth = self.plan.depth() + rounds;
        context.check_level(OP, input.level(), depth)?;
        let low = input.level() - depth;
        let prime = |level: usize| Scale::prime(context.q(level).value());
        // σ = √(σ'·q), from the result up.
        let ideal = (1..=rounds).fold(out_scale.log2(), |log2, k| (log2 + prime(low + k).log2()) / 2.0);
        let first = Scale::pow2(ideal.round() as i64);
        let last = (1..=rounds).rev().fold(first.clone(), |scale, k| scale.square().div(&prime(low + k)));
        let amplitude = factor / (2.0 * last.div(out_scale).to_f64());
        let mut a = amplitude.powf((-f64::from(self.double_angles)).exp2());
        if !a.is_normal() {
            return Err(CkksError::NotFinite { op: OP, index: 0 });
        }
        let shifted = evaluator.add_scalar(input, -0.25 / self.half_range)?;
        let mut z = chebyshev::eval(evaluator, &shifted, &self.plan.scaled(2.0 * a), &first)?;
        for _ in 0..rounds {
            a *= a;
            z = chebyshev::square_plus(evaluator, &z, -2.0 * a)?;
        }
        Ok(z.with_scale(out_scale.clone()))
    }
}
