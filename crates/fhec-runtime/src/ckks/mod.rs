//! Computes on ciphertexts. Holds evaluation keys and never a secret one.

mod accounting;
mod plaintexts;
pub(crate) mod scalars;
mod value;

pub use accounting::Memory;
pub use plaintexts::Tier;
pub use value::CkksValue;

use crate::backend::{Backend, OpResult, Step};
use crate::error::{OpError, Result, RuntimeError};
use fhec_ckks::bootstrap::{BootstrapTarget, Bootstrapper};
use fhec_ckks::linear::{LinearOptions, ScalarOptions, rotate_and_sum};
use fhec_ckks::{Ciphertext, CkksError, Context, Encoder, EvaluationKeys, Evaluator, chebyshev};
use fhec_math::Scale;
use fhec_plan::{KeyManifest, LinearTerm, Op, PolyId, VectorId, Verified, bootstrap_slots};
use plaintexts::Plaintexts;
use rayon::prelude::*;
use scalars::Scalars;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The encrypted backend for one plan and one set of evaluation keys. Serves any number of runs.
#[derive(Debug)]
pub struct CkksBackend {
    verified: Arc<Verified>,
    evaluator: Evaluator,
    encoder: Arc<Encoder>,
    plaintexts: Arc<Plaintexts>,
    scalars: Arc<Scalars>,
    scalar_options: ScalarOptions,
    /// Where the plan bootstraps.
    bootstrapper: Option<Arc<Bootstrapper>>,
}

impl CkksBackend {
    /// A backend that runs `verified` with `keys`, keeping at most `plaintext_budget` bytes of encoded weights between
    /// uses. With a budget of 0 every weight is encoded when it is used and forgotten at once: best for a single
    /// run, since one run uses each just once.
    ///
    /// # Errors
    /// [`RuntimeError::Keys`] where the keys do not reach what the plan uses, [`RuntimeError::Ckks`] where they
    /// belong to other parameters.
    pub fn new(
        verified: Arc<Verified>,
        context: &Arc<Context>,
        keys: Arc<EvaluationKeys>,
        plaintext_budget: u64,
    ) -> Result<Self> {
        Self::without_keys(verified, context, plaintext_budget)?.with_keys(keys)
    }

    /// A backend without keys: it prepares weights, and [`with_keys`](Self::with_keys) makes from it what runs.
    ///
    /// # Errors
    /// [`RuntimeError::Ckks`] for a plan that does not fit the context.
    pub fn without_keys(verified: Arc<Verified>, context: &Arc<Context>, plaintext_budget: u64) -> Result<Self> {
        let bootstrapper = bootstrapper(&verified, context)?.map(Arc::new);
        let evaluator = Evaluator::new(context, Arc::new(EvaluationKeys::empty(context)))?;
        let plaintexts = Arc::new(Plaintexts::new(&verified, context, plaintext_budget)?);
        let (encoder, scalars) = (Arc::new(Encoder::new(context)), Arc::new(Scalars::new(&verified)));
        Ok(CkksBackend {
            evaluator,
            encoder,
            plaintexts,
            scalars,
            scalar_options: ScalarOptions::default(),
            bootstrapper,
            verified,
        })
    }

    /// The same plan with the keys of another client. Encoded weights are shared, and kept only once.
    ///
    /// # Errors
    /// As [`CkksBackend::new`].
    pub fn with_keys(&self, keys: Arc<EvaluationKeys>) -> Result<Self> {
        check_keys(&self.verified, &keys)?;
        Ok(CkksBackend {
            evaluator: Evaluator::new(self.context(), keys)?.composing(self.verified.plan().keys.composed.clone())?,
            encoder: Arc::clone(&self.encoder),
            plaintexts: Arc::clone(&self.plaintexts),
            scalars: Arc::clone(&self.scalars),
            scalar_options: self.scalar_options,
            bootstrapper: self.bootstrapper.clone(),
            verified: Arc::clone(&self.verified),
        })
    }

    /// The same with another way to multiply by scalars, to measure what the usual one saves.
    #[must_use]
    pub fn with_scalar_options(self, scalar_options: ScalarOptions) -> Self {
        CkksBackend { scalar_options, ..self }
    }

    /// The plan.
    pub fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        self.evaluator.context()
    }

    /// Encodes all weights that the budget lets stay, so that no run has to.
    ///
    /// # Errors
    /// [`RuntimeError::Instruction`] for weights that do not fit their scale.
    pub fn prepare(&self) -> Result<()> {
        self.plaintexts.prepare(&self.verified, &self.encoder, &self.scalars)
    }

    /// The evaluator, which counts its key switches.
    pub fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    /// Where the bytes are.
    pub fn memory(&self) -> Memory {
        Memory {
            keys: self.evaluator.keys().bytes(),
            weights: self.verified.plan().weights.bytes().len(),
            plaintexts: self.plaintexts.bytes() + self.scalars.bytes(),
            plaintexts_planned: self.plaintexts.planned_bytes(),
            scratch: self
                .plaintexts
                .scratch_bytes(self.context(), rayon::current_num_threads())
                .max(self.scalars.scratch_bytes(&self.verified, self.context())),
        }
    }

    /// How many of the plan's diagonals stay in which form.
    pub fn tiers(&self) -> [(Tier, usize); 3] {
        self.plaintexts.tiers()
    }

    fn each(
        &self,
        a: &CkksValue,
        f: impl Fn(&Ciphertext) -> Result<Ciphertext, CkksError> + Sync + Send,
    ) -> OpResult<CkksValue> {
        Ok(CkksValue::Ciphertexts(a.ciphertexts()?.par_iter().map(f).collect::<Result<_, CkksError>>()?))
    }

    fn each_product(
        &self,
        a: &CkksValue,
        f: impl Fn(&fhec_ckks::Product) -> Result<fhec_ckks::Product, CkksError> + Sync + Send,
    ) -> OpResult<CkksValue> {
        Ok(CkksValue::Products(a.products()?.par_iter().map(f).collect::<Result<_, CkksError>>()?))
    }

    /// The product of two ciphertexts that a step multiplies: of their slots, or of the parts of those.
    fn product(&self, step: &Step, x: &Ciphertext, y: &Ciphertext) -> Result<fhec_ckks::Product, CkksError> {
        let same = matches!(step.instruction.op, Op::Mul(x, y) if x == y);
        match (same, step.verified.plan().complex) {
            (true, false) => self.evaluator.square(x),
            (false, false) => self.evaluator.mul(x, y),
            (true, true) => self.evaluator.square_parts(x),
            (false, true) => self.evaluator.mul_parts(x, y),
        }
    }

    fn add_encoded(&self, step: &Step, a: &[Ciphertext], vector: VectorId) -> OpResult<CkksValue> {
        let [first, ..] = a else { return Ok(CkksValue::Ciphertexts(vec![])) };
        if step.verified.plan().is_batched() {
            let sums = scalars::each(a, &scalars::summands(step, vector), |c, v| self.evaluator.add_complex(c, v))?;
            return Ok(CkksValue::Ciphertexts(sums));
        }
        let encoded = self.plaintexts.vector(&self.encoder, step, vector, first.level(), first.scale())?;
        let sums = a.par_iter().zip(&*encoded).map(|(c, p)| self.evaluator.add_plain(c, p));
        Ok(CkksValue::Ciphertexts(sums.collect::<Result<_, CkksError>>()?))
    }
}

/// What the bootstraps of a plan need, if it has any: the matrices for all numbers of slots that occur.
fn bootstrapper(verified: &Verified, context: &Arc<Context>) -> Result<Option<Bootstrapper>> {
    let plan = verified.plan();
    let Some(spec) = &plan.parameters.bootstrap else { return Ok(None) };
    let slots = plan.instructions.iter().filter_map(|instruction| match instruction.op {
        Op::Bootstrap { src, .. } => Some(bootstrap_slots(verified.register(src).period)),
        _ => None,
    });
    let slots: Vec<u32> = slots.collect::<BTreeSet<_>>().into_iter().collect();
    Ok(Some(Bootstrapper::new(context, spec.clone(), &slots)?))
}

/// Every key that the plan uses is there and reaches its level.
fn check_keys(verified: &Verified, keys: &EvaluationKeys) -> Result<()> {
    let have = keys.request();
    let need = verified.facts().keys();
    let sparse_weight = verified.plan().parameters.bootstrap.as_ref().map(|spec| spec.sparse_weight);
    let raised = need.raised.is_subset(&have.raised);
    if sparse_weight.is_some() && (have.sparse_weight != sparse_weight || !raised) {
        return Err(RuntimeError::Keys("encapsulation for bootstraps".into()));
    }
    if need.relin.is_some_and(|level| have.relin_level.is_none_or(|l| l < level)) {
        return Err(RuntimeError::Keys(format!("relinearisation at level {:?}", need.relin)));
    }
    let composed = verified.plan().keys.composed.clone();
    let have =
        KeyManifest { relin: have.relin_level, galois: have.galois, composed, raised: have.raised, low: have.low };
    if let Some(log_n) = need.lacks_low(&have) {
        return Err(RuntimeError::Keys(format!("bootstraps in the ring of degree 2^{log_n}")));
    }
    for (&element, &level) in &need.galois {
        if !have.reaches(element, level) {
            return Err(RuntimeError::Keys(format!("Galois element {element} at level {level}")));
        }
    }
    Ok(())
}

impl Backend for CkksBackend {
    type Value = CkksValue;
    type Input = Vec<Ciphertext>;
    type Output = Vec<Ciphertext>;

    fn bytes(&self, value: &CkksValue) -> usize {
        value.bytes()
    }

    fn input(&self, step: &Step, _: usize, value: Vec<Ciphertext>) -> OpResult<CkksValue> {
        let facts = step.result;
        let wrong = |problem: String| Err(OpError::Input(problem));
        if value.len() != facts.ciphertexts {
            return wrong(format!("{} ciphertexts were given, {} expected", value.len(), facts.ciphertexts));
        }
        for c in &value {
            if c.context_id() != self.context().id() {
                return wrong("a ciphertext belongs to other parameters".into());
            }
            if c.level() != facts.level || *c.scale() != facts.scale {
                return wrong(format!(
                    "a ciphertext has level {} and scale {}, expected are {} and {}",
                    c.level(),
                    c.scale(),
                    facts.level,
                    facts.scale
                ));
            }
        }
        Ok(CkksValue::Ciphertexts(value))
    }

    fn output(&self, _: &Step, _: usize, value: &CkksValue) -> OpResult<Vec<Ciphertext>> {
        Ok(value.ciphertexts()?.to_vec())
    }

    fn linear_map(
        &self,
        step: &Step,
        _: &[LinearTerm],
        sources: &[&CkksValue],
        bias: Option<VectorId>,
        out_scale: &Scale,
    ) -> OpResult<CkksValue> {
        if let Some(map) = self.scalars.map(self.context(), step)? {
            let mut inputs = Vec::new();
            for source in sources {
                inputs.extend(source.ciphertexts()?);
            }
            let bias = bias.map_or(vec![], |bias| scalars::summands(step, bias));
            let sums = map.apply_with(&self.evaluator, &self.encoder, &inputs, &bias, self.scalar_options)?;
            return Ok(CkksValue::Ciphertexts(sums));
        }
        let options = LinearOptions::default();
        let mut sum: Option<Vec<Ciphertext>> = None;
        for source in self.plaintexts.linear(&self.encoder, step) {
            let group = source.group();
            let mut inputs = Vec::new();
            for &term in &group.terms {
                inputs.extend(sources[term].ciphertexts()?);
            }
            source.pack()?;
            let parts = source.map().apply(&self.evaluator, &inputs, &source, &[], out_scale, &options)?;
            let folded = parts.into_par_iter().map(|c| rotate_and_sum(&self.evaluator, &c, &group.fold));
            let folded = folded.collect::<Result<Vec<_>, CkksError>>()?;
            match &mut sum {
                None => sum = Some(folded),
                Some(sum) => {
                    for (a, b) in sum.iter_mut().zip(&folded) {
                        self.evaluator.add_assign(a, b)?;
                    }
                }
            }
        }
        let sum = sum.unwrap_or_default();
        match bias {
            Some(bias) => self.add_encoded(step, &sum, bias),
            None => Ok(CkksValue::Ciphertexts(sum)),
        }
    }

    fn polynomial(&self, step: &Step, a: &CkksValue, poly: PolyId, out_scale: &Scale) -> OpResult<CkksValue> {
        let plan = step.verified.facts().polynomial(poly);
        self.each(a, |c| chebyshev::eval(&self.evaluator, c, plan, out_scale))
    }

    fn add(&self, _: &Step, a: &CkksValue, b: &CkksValue) -> OpResult<CkksValue> {
        value::zip(a, b, |x, y| self.evaluator.add(x, y), |x, y| self.evaluator.add_product(x, y))
    }

    fn sub(&self, _: &Step, a: &CkksValue, b: &CkksValue) -> OpResult<CkksValue> {
        value::zip(a, b, |x, y| self.evaluator.sub(x, y), |x, y| self.evaluator.sub_product(x, y))
    }

    fn negate(&self, _: &Step, a: &CkksValue) -> OpResult<CkksValue> {
        match a {
            CkksValue::Ciphertexts(_) => self.each(a, |c| self.evaluator.negate(c)),
            CkksValue::Products(_) => self.each_product(a, |p| self.evaluator.negate_product(p)),
        }
    }

    fn mul(&self, step: &Step, a: &CkksValue, b: &CkksValue) -> OpResult<CkksValue> {
        let pairs = a.ciphertexts()?.par_iter().zip(b.ciphertexts()?);
        let products = pairs.map(|(x, y)| self.product(step, x, y));
        Ok(CkksValue::Products(products.collect::<Result<_, CkksError>>()?))
    }

    fn mul_scalar(&self, _: &Step, a: &CkksValue, value: f64, scale: &Scale) -> OpResult<CkksValue> {
        self.each(a, |c| self.evaluator.mul_scalar(c, value, scale))
    }

    fn mul_vector(&self, step: &Step, a: &CkksValue, vector: VectorId, scale: &Scale) -> OpResult<CkksValue> {
        let ciphertexts = a.ciphertexts()?;
        let [first, ..] = ciphertexts else { return Ok(CkksValue::Ciphertexts(vec![])) };
        if step.verified.plan().is_batched() {
            let vector = scalars::vector(step, vector);
            let products = scalars::each(ciphertexts, &vector, |c, v| self.evaluator.mul_scalar(c, v, scale))?;
            return Ok(CkksValue::Ciphertexts(products));
        }
        let encoded = self.plaintexts.vector(&self.encoder, step, vector, first.level(), scale)?;
        let products = ciphertexts.par_iter().zip(&*encoded).map(|(c, p)| self.evaluator.mul_plain(c, p));
        Ok(CkksValue::Ciphertexts(products.collect::<Result<_, CkksError>>()?))
    }

    fn add_scalar(&self, step: &Step, a: &CkksValue, value: f64) -> OpResult<CkksValue> {
        if step.verified.plan().complex {
            let value = scalars::summand(step, value);
            return self.each(a, |c| self.evaluator.add_complex(c, value));
        }
        self.each(a, |c| self.evaluator.add_scalar(c, value))
    }

    fn add_vector(&self, step: &Step, a: &CkksValue, vector: VectorId) -> OpResult<CkksValue> {
        self.add_encoded(step, a.ciphertexts()?, vector)
    }

    fn rotate(&self, _: &Step, a: &CkksValue, steps: i64) -> OpResult<CkksValue> {
        self.each(a, |c| self.evaluator.rotate(c, steps))
    }

    fn relinearise(&self, _: &Step, a: &CkksValue) -> OpResult<CkksValue> {
        let out = a.products()?.par_iter().map(|p| self.evaluator.relinearise(p));
        Ok(CkksValue::Ciphertexts(out.collect::<Result<_, CkksError>>()?))
    }

    fn rescale(&self, _: &Step, a: &CkksValue) -> OpResult<CkksValue> {
        match a {
            CkksValue::Ciphertexts(_) => self.each(a, |c| self.evaluator.rescale(c)),
            CkksValue::Products(_) => self.each_product(a, |p| self.evaluator.rescale_product(p)),
        }
    }

    fn relinearise_rescale(&self, _: &Step, _: &Step, a: &CkksValue) -> OpResult<CkksValue> {
        let out = a.products()?.par_iter().map(|p| self.evaluator.relinearise_rescale(p));
        Ok(CkksValue::Ciphertexts(out.collect::<Result<_, CkksError>>()?))
    }

    fn multiply_rescale(&self, [product, ..]: [&Step; 3], a: &CkksValue, b: &CkksValue) -> OpResult<CkksValue> {
        let each = |(x, y)| self.evaluator.relinearise_rescale(&self.product(product, x, y)?);
        let out = a.ciphertexts()?.par_iter().zip(b.ciphertexts()?).map(each);
        Ok(CkksValue::Ciphertexts(out.collect::<Result<_, CkksError>>()?))
    }

    fn level_drop(&self, _: &Step, a: &CkksValue, level: usize) -> OpResult<CkksValue> {
        match a {
            CkksValue::Ciphertexts(_) => self.each(a, |c| self.evaluator.drop_to_level(c, level)),
            CkksValue::Products(_) => self.each_product(a, |p| self.evaluator.drop_product_to_level(p, level)),
        }
    }

    fn bootstrap(&self, step: &Step, a: &CkksValue, level: usize, out_scale: &Scale) -> OpResult<CkksValue> {
        let missing = OpError::Kind { expected: "bootstraps", found: "none" };
        let keys = self.evaluator.keys().encapsulation();
        let (Some(bootstrapper), Some(keys)) = (&self.bootstrapper, keys) else { return Err(missing) };
        let log_slots = bootstrap_slots(step.result.period);
        let target = BootstrapTarget { log_slots, level, scale: out_scale.clone() };
        let pairs = a.ciphertexts()?.chunks(2).map(|pair| match pair {
            [first, second] => {
                bootstrapper.bootstrap_pair(&self.evaluator, keys, [first, second], &target).map(Vec::from)
            }
            rest => rest.iter().map(|c| bootstrapper.bootstrap(&self.evaluator, keys, c, &target)).collect(),
        });
        let refreshed: Vec<Vec<Ciphertext>> = pairs.collect::<Result<_, CkksError>>()?;
        Ok(CkksValue::Ciphertexts(refreshed.concat()))
    }
}
