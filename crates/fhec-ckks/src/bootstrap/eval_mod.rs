//! EvalMod: from `t = I + ε` to `ε`, slot by slot.

use fhec_math::Scale;
use fhec_math::chebyshev::{ChebyshevPlan, ChebyshevWeights, depth_of_degree};

use super::cosine;
use super::spec::BootstrapSpec;
use crate::chebyshev;
use crate::cipher::Ciphertext;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;

/// The plan of the polynomial, the same for every input.
#[derive(Clone, Debug)]
pub(super) struct EvalMod {
    plan: ChebyshevPlan,
    half_range: f64,
    slope: f64,
    double_angles: u32,
    log_message_ratio: u32,
}

impl EvalMod {
    pub(super) fn new(spec: &BootstrapSpec) -> Result<Self> {
        let coefficients = cosine::coefficients(spec);
        let depth = depth_of_degree(spec.cosine_degree as usize);
        let plan = ChebyshevPlan::with_depth(&coefficients, depth, &ChebyshevWeights::default())
            .map_err(|error| CkksError::Parameters(format!("bootstrap: {error}")))?;
        Ok(Self {
            plan,
            half_range: cosine::half_range(spec),
            slope: cosine::slope(spec),
            double_angles: spec.double_angles,
            log_message_ratio: spec.log_message_ratio,
        })
    }

    /// The factor that turns `t` into what [`apply`](Self::apply) expects.
    pub(super) fn input_factor(&self) -> f64 {
        1.0 / self.half_range
    }

    /// From slots `t/K'` to slots `gain·ε·2^ratio` at exactly `out_scale`.
    ///
    /// The scale `σ` of a value `y` becomes `σ²/q` with `y²`, so the last scale follows from the first and can hardly be any
    /// given number exactly. It need not be: read at another scale, a ciphertext holds a multiple of its values, and
    /// that factor goes into the amplitude `a` of the cosine, `2·(a·cos φ)² − a² = a²·cos 2φ`.
    pub(super) fn apply(
        &self,
        evaluator: &Evaluator,
        input: &Ciphertext,
        gain: f64,
        out_scale: &Scale,
    ) -> Result<Ciphertext> {
        let context = evaluator.context();
        let rounds = self.double_angles as usize;
        let depth = self.plan.depth() + rounds;
        context.check_level("bootstrap", input.level(), depth)?;
        let low = input.level() - depth;
        let prime = |level: usize| Scale::prime(context.q(level).value());
        let wanted = out_scale.mul(&Scale::pow2(i64::from(self.log_message_ratio)));
        // σ = √(σ'·q), from the result up.
        let ideal = (1..=rounds).fold(wanted.log2(), |log2, k| (log2 + prime(low + k).log2()) / 2.0);
        let first = Scale::pow2(ideal.round() as i64);
        let last = (1..=rounds).rev().fold(first.clone(), |scale, k| scale.square().div(&prime(low + k)));
        let amplitude = gain * self.slope / (std::f64::consts::TAU * last.div(&wanted).to_f64());
        let mut a = amplitude.powf((-f64::from(self.double_angles)).exp2());
        if !a.is_normal() {
            return Err(CkksError::NotFinite { op: "bootstrap", index: 0 });
        }
        let shifted = evaluator.add_scalar(input, -0.25 / self.half_range)?;
        let mut y = chebyshev::eval(evaluator, &shifted, &self.plan.scaled(a), &first)?;
        for _ in 0..rounds {
            let square = evaluator.relinearise_rescale(&evaluator.square(&y)?)?;
            let double = evaluator.add(&square, &square)?;
            a *= a;
            y = evaluator.add_scalar(&double, -a)?;
        }
        Ok(y.with_scale(out_scale.clone()))
    }
}
