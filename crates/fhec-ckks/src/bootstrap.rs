//! Bootstrapping: a ciphertext at the end of its levels becomes one with many.
//!
//! Slots-to-coefficients first, with a dense secret (2020/1203 turned around; 2022/024 for the secret):
//!
//! 1. **Slots to coefficients**, at the lowest levels, where it is cheapest: the slots `x` become coefficients. Vectors that repeat go down
//!    to a smaller ring for it.
//! 2. **Raise.** Under a sparse secret, read modulo the whole chain, the polynomial is `m + q_0·I` with small integers `I`
//!    ([`EncapsulationKeys`]). The first rotations that follow take the ciphertext back to the dense secret.
//! 3. **Coefficients to slots**: slots hold `t = I + m/q_0`, the real part of them for one half of the coefficients and the
//!    imaginary part for the other, so that two real vectors `re + i·im` come out apart. For vectors that repeat, a trace leaves
//!    the coefficients of their subring only.
//! 4. **EvalMod**: `t → t − I` by a sine.
//!
//! The result is a ciphertext of the same values at a level and scale of the caller's choice. Compared with the order that
//! transforms back at the end, one sine serves a real vector instead of two, and precision is better: the sine sees
//! values of the size of the message, and no transform spreads its error.
//!
//! Inputs hold real values in [−1, 1] (times the quotient of the input scale over the [expected
//! one](BootstrapSpec::input_scale)); beyond, the error of the sine grows with the third power. A result that lies lower costs
//! less: message limbs above its level are never computed, for the chain of a bootstrap may leave out any
//! prime ([`BootstrapTarget::level`]).
//!
//! # Failure
//!
//! `|t|` exceeds `K` with probability [`fhec_math::bootstrap::log2_failure`]; 2^-138.7 for all of `N = 2^16` coefficients,
//! `h = 32`, `K = 16`.

mod chain;
mod cosine;
mod encapsulate;
mod eval_mod;
mod fft;
mod low_ring;
mod presets;
mod shapes;
mod spread;
#[cfg(test)]
mod tests;
mod transform;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use fhec_math::Scale;
use fhec_math::bootstrap::LowRing;

pub use chain::BootstrapChain;
pub use encapsulate::EncapsulationKeys;
pub(crate) use encapsulate::ToSparse;
pub use fhec_math::bootstrap::BootstrapSpec;
pub(crate) use low_ring::LowRingKeys;
pub use presets::BootstrapPreset;

use crate::cipher::Ciphertext;
use crate::encode::Encoder;
use crate::error::{CkksError, Result};
use crate::evaluator::Evaluator;
use crate::keys::KeyRequest;
use crate::params::{Context, Selection};
use eval_mod::EvalMod;
use transform::{Stage, StageShape};

const OP: &str = "bootstrap";

/// What to make of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapTarget {
    /// The values repeat after `2^log_slots` slots; one of the numbers that the bootstrapper was made for.
    pub log_slots: u32,
    /// Level of the result, up to [`Bootstrapper::output_level`].
    pub level: usize,
    /// Scale of the result, near the primes of message levels.
    pub scale: Scale,
}

/// Both transforms for one number of slots.
#[derive(Debug)]
struct Transforms {
    /// The ring of slots-to-coefficients, where it is a smaller one.
    low: Option<LowRing>,
    slots_to_coeffs: Vec<Arc<Stage>>,
    /// In the order of use.
    coeffs_to_slots: Vec<Arc<Stage>>,
}

/// A part of the chain with what was encoded for it.
#[derive(Debug)]
struct Lane {
    selection: Selection,
    /// The same part of the [raising](Context::raising) context.
    raising: Selection,
    coeffs_to_slots: Vec<Arc<Stage>>,
}

/// Bootstraps ciphertexts of one context. Holds the matrices of both transforms, encoded.
#[derive(Debug)]
pub struct Bootstrapper {
    context: Arc<Context>,
    spec: BootstrapSpec,
    output_level: usize,
    eval_mod: EvalMod,
    /// By `log_slots`.
    transforms: BTreeMap<u32, Transforms>,
    /// By `log_slots` and level of the result; made on first use.
    lanes: Mutex<BTreeMap<(u32, usize), Arc<Lane>>>,
}

impl Bootstrapper {
    /// Prepares for vectors that repeat after `2^k` slots, for every `k` in `log_slots`.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where the circuit does not fit the chain or a number of slots the ring, [`CkksError::Insecure`] where a
    /// [smaller ring](BootstrapSpec::least_ring) is not secure and the whole one is.
    pub fn new(context: &Arc<Context>, spec: BootstrapSpec, log_slots: &[u32]) -> Result<Self> {
        let wrong = |what: String| CkksError::Parameters(format!("{OP}: {what}"));
        spec.check(context.log_n(), context.q(0).value(), context.max_level()).map_err(wrong)?;
        let output_level = spec
            .output_level(context.max_level())
            .ok_or_else(|| wrong(format!("the circuit does not fit a chain that ends at {}", context.max_level())))?;
        let log_all = context.log_n() - 1;
        if let Some(bad) = log_slots.iter().find(|&&k| k == 0 || k > log_all) {
            return Err(wrong(format!("2^{bad} slots are not within 2 … 2^{log_all}")));
        }
        let mut out = Self {
            context: Arc::clone(context),
            eval_mod: EvalMod::new(&spec)?,
            spec,
            output_level,
            transforms: BTreeMap::new(),
            lanes: Mutex::default(),
        };
        let log_slots: BTreeSet<u32> = log_slots.iter().copied().collect();
        let (whole, raising) = (Encoder::new(context), Encoder::new(context.raising()));
        let mut lower = BTreeMap::new();
        let mut stages: Vec<Arc<Stage>> = Vec::new();
        for k in log_slots {
            let low = out.spec.low_ring(k, context.log_n());
            if let Some(ring) = low
                && let Entry::Vacant(entry) = lower.entry(ring.log_n)
            {
                let [_, inner] = context.low_ring(ring)?;
                entry.insert(Encoder::new(&inner));
            }
            let mut encoded = |shapes: Vec<StageShape>| -> Result<Vec<Arc<Stage>>> {
                let stage = |shape| {
                    // Numbers of slots share the matrices of the layers that they share.
                    if let Some(known) = stages.iter().find(|stage| stage.shape == shape) {
                        return Ok(Arc::clone(known));
                    }
                    let encoder = match shape.low {
                        Some(ring) => &lower[&ring.log_n],
                        None if shape.matrix.raised => &raising,
                        None => &whole,
                    };
                    let stage = Arc::new(Stage::new(encoder, shape)?);
                    stages.push(Arc::clone(&stage));
                    Ok(stage)
                };
                shapes.into_iter().map(stage).collect()
            };
            let slots_to_coeffs = encoded(out.slots_to_coeffs_shapes(k))?;
            let coeffs_to_slots = encoded(out.coeffs_to_slots_shapes(k))?;
            out.transforms.insert(k, Transforms { low, slots_to_coeffs, coeffs_to_slots });
        }
        Ok(out)
    }

    /// The circuit.
    pub fn spec(&self) -> &BootstrapSpec {
        &self.spec
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Highest level that a result can have.
    pub fn output_level(&self) -> usize {
        self.output_level
    }

    /// Bytes of the encoded matrices.
    pub fn bytes(&self) -> usize {
        let mut seen = BTreeSet::new();
        let stages = self.transforms.values().flat_map(|t| t.slots_to_coeffs.iter().chain(&t.coeffs_to_slots));
        stages.filter(|stage| seen.insert(Arc::as_ptr(stage))).map(|stage| stage.bytes()).sum()
    }

    /// The evaluation keys that bootstraps of all prepared numbers of slots use, each with the highest level at which it
    /// is used.
    pub fn key_request(&self) -> KeyRequest {
        let log_slots = self.transforms.keys().copied().collect();
        let keys = self.spec.keys(self.context.log_n(), self.output_level, &log_slots);
        KeyRequest {
            relin_level: Some(keys.relin),
            galois: keys.galois,
            sparse_weight: Some(self.spec.sparse_weight),
            raised: keys.raised,
            low: keys.low,
        }
    }

    /// Bootstraps a ciphertext of real values in [−1, 1]. Imaginary parts vanish.
    ///
    /// # Errors
    /// [`CkksError::LevelRange`] where the input lies below [`BootstrapSpec::input_level`] or the target above
    /// [`output_level`](Self::output_level), [`CkksError::Parameters`] for a number of slots that was not prepared,
    /// [`CkksError::NoGaloisKey`], [`CkksError::NoRelinKey`], [`CkksError::NoRingKeys`], [`CkksError::KeyLevel`] where the evaluator lacks a key of
    /// [`key_request`](Self::key_request), [`CkksError::ContextMismatch`].
    pub fn bootstrap(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        target: &BootstrapTarget,
    ) -> Result<Ciphertext> {
        self.real(evaluator, keys, input, target, 1.0)
    }

    /// Bootstraps twice, for more precision: the second time what the first one got wrong, enlarged by `2^log_gain` (2022/1167).
    /// That leaves the error of the input, the rounding of the result, and `2^-log_gain` of a bootstrap's error.
    ///
    /// The error of the first bootstrap must stay below `2^-log_gain`, and with `2^-(log_gain + 2)` the second works best. The
    /// target lies no lower than [`BootstrapSpec::input_level`] and has the scale of the input.
    ///
    /// # Errors
    /// As [`bootstrap`](Self::bootstrap), [`CkksError::ScaleMismatch`] where the scales of input and target differ, and
    /// [`CkksError::Parameters`] for a gain of more than 30 bits.
    pub fn bootstrap_twice(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        target: &BootstrapTarget,
        log_gain: u32,
    ) -> Result<Ciphertext> {
        if log_gain > 30 {
            return Err(CkksError::Parameters(format!("{OP}: a gain of {log_gain} bits, at most 30")));
        }
        if *input.scale() != target.scale {
            return Err(CkksError::scales(OP, input.scale(), &target.scale));
        }
        let low = self.spec.input_level(target.log_slots);
        if target.level < low {
            return Err(CkksError::LevelRange { op: OP, level: target.level, min: low, max: self.output_level });
        }
        let first = self.real(evaluator, keys, input, target, 1.0)?;
        let gain = 1i64 << log_gain;
        let missed = evaluator
            .sub(&evaluator.drop_to_level(input, low.min(input.level()))?, &evaluator.drop_to_level(&first, low)?)?;
        let enlarged = evaluator.mul_integer(&missed, gain.into())?;
        let second = self.real(evaluator, keys, &enlarged, target, 1.0 / gain as f64)?;
        evaluator.add(&first, &second)
    }

    /// [`bootstrap`](Self::bootstrap) to `factor` times the values.
    fn real(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        target: &BootstrapTarget,
        factor: f64,
    ) -> Result<Ciphertext> {
        let mut raised = self.to_slots(evaluator, keys, input, target, true)?;
        raised.gain *= factor;
        self.finish(&raised, &raised.slots, target)
    }

    /// Bootstraps two ciphertexts of real values at once, as real and imaginary part of one, up to EvalMod. Both have the same
    /// level and scale.
    ///
    /// # Errors
    /// As [`bootstrap`](Self::bootstrap), and [`CkksError::LevelMismatch`], [`CkksError::ScaleMismatch`].
    pub fn bootstrap_pair(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        inputs: [&Ciphertext; 2],
        target: &BootstrapTarget,
    ) -> Result<[Ciphertext; 2]> {
        let [a, b] = inputs;
        let level = self.spec.input_level(target.log_slots).min(a.level());
        let (a, b) = (evaluator.drop_to_level(a, level)?, evaluator.drop_to_level(b, level)?);
        let both = evaluator.add(&a, &evaluator.mul_i(&b)?)?;
        let raised = self.to_slots(evaluator, keys, &both, target, false)?;
        let conjugate = raised.evaluator.conjugate(&raised.slots)?;
        let real = raised.evaluator.rescale(&raised.evaluator.add(&raised.slots, &conjugate)?)?;
        // −i·(z − z̄) = i·(z̄ − z).
        let difference = raised.evaluator.rescale(&raised.evaluator.sub(&conjugate, &raised.slots)?)?;
        let imaginary = raised.evaluator.mul_i(&difference)?;
        Ok([self.finish(&raised, &real, target)?, self.finish(&raised, &imaginary, target)?])
    }

    /// Everything up to EvalMod, or with `real` not set, up to the split into real and imaginary part and the rescale after it.
    fn to_slots(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        target: &BootstrapTarget,
        real: bool,
    ) -> Result<Raised> {
        let transforms = self.check(evaluator, keys, input, target)?;
        let lane = (target.level < self.output_level).then(|| self.lane(target, transforms)).transpose()?;
        let gain = self.spec.input_scale.div(input.scale()).to_f64();
        let packed = self.slots_to_coeffs(evaluator, keys, input, transforms)?;
        let way = match &lane {
            Some(lane) => Way {
                evaluator: evaluator.select(&lane.selection),
                raising: Some(&lane.raising),
                stages: &lane.coeffs_to_slots,
            },
            None => Way { evaluator: evaluator.clone(), raising: None, stages: &transforms.coeffs_to_slots },
        };
        let slots = self.raise(keys, &packed, &way, target.log_slots, real)?;
        Ok(Raised { evaluator: way.evaluator, slots, gain })
    }

    fn check<'a>(
        &'a self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        target: &BootstrapTarget,
    ) -> Result<&'a Transforms> {
        self.context.check_id(OP, evaluator.context().id())?;
        self.context.check_id(OP, keys.context().id())?;
        self.context.check_id(OP, input.context_id())?;
        let (level, min) = (input.level(), self.spec.input_level(target.log_slots));
        if level < min {
            return Err(CkksError::LevelRange { op: OP, level, min, max: self.context.max_level() });
        }
        if target.level > self.output_level {
            return Err(CkksError::LevelRange { op: OP, level: target.level, min: 0, max: self.output_level });
        }
        self.transforms
            .get(&target.log_slots)
            .ok_or_else(|| CkksError::Parameters(format!("bootstrap: not prepared for 2^{} slots", target.log_slots)))
    }

    /// To a ciphertext at level 0 whose coefficients are the slots of the input, at the message ratio; in a smaller ring where
    /// vectors repeat.
    fn slots_to_coeffs(
        &self,
        evaluator: &Evaluator,
        keys: &EncapsulationKeys,
        input: &Ciphertext,
        transforms: &Transforms,
    ) -> Result<Ciphertext> {
        let level = transforms.slots_to_coeffs.first().map_or(0, |stage| stage.shape.matrix.level);
        let mut ciphertext = evaluator.drop_to_level(input, level)?.with_scale(self.spec.input_scale.clone());
        let mut evaluator = evaluator.clone();
        if let Some(ring) = transforms.low {
            let low = keys.low(ring)?;
            ciphertext = low.enter(&ciphertext)?;
            evaluator = low.inside(&evaluator);
        }
        for stage in &transforms.slots_to_coeffs {
            ciphertext = stage.apply(&evaluator, &ciphertext)?;
        }
        Ok(ciphertext)
    }

    /// From level 0 to the end of coefficients-to-slots, but for a rescale; with `real` to twice the real part of that, rescaled.
    fn raise(
        &self,
        keys: &EncapsulationKeys,
        packed: &Ciphertext,
        way: &Way<'_>,
        log_slots: u32,
        real: bool,
    ) -> Result<Ciphertext> {
        let Way { evaluator, raising, stages } = way;
        let whole = self.spec.raised_level(log_slots, self.output_level);
        let (up, level) = match raising {
            Some(selection) => (keys.up().select(selection), selection.level(whole)),
            None => (keys.up().clone(), whole),
        };
        let small = keys.raise(up.context(), level, &keys.down(packed)?);
        let Some((first, rest)) = stages.split_first() else {
            return Err(CkksError::Parameters(format!("{OP}: no matrices")));
        };
        let mut slots = first.apply_raised(evaluator, &up, &small)?;
        drop(small);
        let undivided = match rest.split_last() {
            None => evaluator.undivided(&slots)?,
            Some((last, rest)) => {
                for stage in rest {
                    slots = stage.apply(evaluator, &slots)?;
                }
                last.apply_undivided(evaluator, &slots)?
            }
        };
        let sums = self.spec.sums(log_slots, self.context.log_n(), real);
        let slots = evaluator.trace(undivided, &sums, real)?;
        // The trace has multiplied by the number of its rotations.
        let doublings = i64::from(self.context.log_n() - 1 - log_slots);
        let scale = slots.scale().mul(&Scale::pow2(doublings));
        Ok(slots.with_scale(scale))
    }

    /// EvalMod, and back to the whole chain.
    fn finish(&self, raised: &Raised, half: &Ciphertext, target: &BootstrapTarget) -> Result<Ciphertext> {
        let result = self.eval_mod.apply(&raised.evaluator, half, raised.gain, &target.scale)?;
        let (level, scale) = (result.level(), result.scale().clone());
        let (c0, c1) = result.into_parts();
        Ok(Ciphertext::from_parts(&self.context, c0, c1, level, scale))
    }

    /// The part of the chain without the message limbs above the target.
    fn lane(&self, target: &BootstrapTarget, transforms: &Transforms) -> Result<Arc<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.log_slots, target.level);
        if let Some(lane) = lanes.get(&key) {
            return Ok(Arc::clone(lane));
        }
        let limbs = (0..=target.level)
            .chain(self.output_level + 1..=self.spec.raised_level(target.log_slots, self.output_level))
            .collect();
        let selection = Selection::new(&self.context, limbs)?;
        let raising = selection.raising();
        let stage =
            |stage: &Arc<Stage>| Arc::new(stage.select(if stage.shape.matrix.raised { &raising } else { &selection }));
        let lane = Arc::new(Lane {
            coeffs_to_slots: transforms.coeffs_to_slots.iter().map(stage).collect(),
            raising,
            selection,
        });
        lanes.insert(key, Arc::clone(&lane));
        Ok(lane)
    }
}

/// What takes a ciphertext from level 0 to slots, over the whole chain or a part.
struct Way<'a> {
    evaluator: Evaluator,
    /// Absent for the whole chain.
    raising: Option<&'a Selection>,
    stages: &'a [Arc<Stage>],
}

/// A ciphertext whose slots are `t/2K'` for both halves of the coefficients, or `t/K'` for one.
struct Raised {
    evaluator: Evaluator,
    slots: Ciphertext,
    /// Factor that undoes the reading at the expected scale.
    gain: f64,
}
