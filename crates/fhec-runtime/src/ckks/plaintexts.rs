//! Encoded weights: made from the loop nests at the level and scale of use, kept as far as a budget allows.
//!
//! A diagonal exists in one of three tiers. *Evaluation* keeps it ready to multiply (one word for each distinct
//! slot pair and limb), *coefficients* keeps the rounded integers (a word for each distinct slot pair, whatever
//! the number of limbs) and transforms them at each use, *transient* makes everything anew. The tiers are
//! fixed when the store is made, so they do not depend on the order of use: as many diagonals as possible get
//! coefficients, since those are the smallest and save filling and FFT; the rest of the budget then lifts whole maps
//! to evaluation form, in the order of the program. They are kept packed in the order of use ([`PackedDiagonals`]), which is
//! smaller and faster to read.

use super::scalars::Scalars;
use crate::backend::{OpResult, Step};
use crate::error::{OpError, Result, RuntimeError};
use fhec_ckks::linear::{DiagonalId, DiagonalSource, Hoisting, LinearMap, LinearOptions, PackedDiagonals};
use fhec_ckks::{CkksError, CoeffPlaintext, Context, EncodeScratch, Encoder, Plaintext, QpPlaintext};
use fhec_math::Scale;
use fhec_plan::linear::LinearGroup;
use fhec_plan::{Diagonals, Instruction, NestWeights, Op, VectorId, Verified};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How a diagonal is kept between uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Not at all.
    Transient,
    /// As rounded coefficients.
    Coefficients,
    /// Ready to multiply.
    Evaluation,
}

#[derive(Debug)]
struct Diagonal {
    tier: Tier,
    coefficients: OnceLock<Arc<CoeffPlaintext>>,
    evaluation: OnceLock<Arc<QpPlaintext>>,
}

/// Everything about one group of a linear map instruction that does not depend on the data.
#[derive(Debug)]
struct Group {
    map: LinearMap,
    level: usize,
    /// Scale of the diagonals of each term of the instruction.
    scales: BTreeMap<usize, Scale>,
    diagonals: Vec<Diagonal>,
    /// Values of a diagonal before it repeats.
    period: usize,
    /// Babies that take two rotations.
    composed: usize,
    /// All diagonals, where they are kept together.
    packed: OnceLock<PackedDiagonals>,
}

impl Group {
    /// All diagonals are kept ready to multiply.
    fn resident(&self) -> bool {
        self.diagonals.iter().all(|d| d.tier == Tier::Evaluation)
    }

    /// Diagonals that are all kept are kept together, unless runs too long for that are shorter one by one.
    fn packs(&self, context: &Context) -> bool {
        !self.diagonals.is_empty()
            && self.resident()
            && self.evaluation_bytes(context) < self.diagonals.len() * self.plaintext_bytes(context)
    }

    /// Bytes of a diagonal's coefficients.
    fn coefficient_bytes(&self) -> usize {
        8 * self.period
    }

    /// Bytes of a diagonal ready to multiply, on its own.
    fn plaintext_bytes(&self, context: &Context) -> usize {
        8 * 2 * self.period * context.qp_limbs(self.level)
    }

    /// Bytes of all diagonals ready to multiply, together or one by one.
    fn evaluation_bytes(&self, context: &Context) -> usize {
        let single = self.diagonals.len() * self.plaintext_bytes(context);
        single.min(PackedDiagonals::bytes_of(context, &self.map, self.level, self.period, Hoisting::Auto))
    }
}

/// The plaintexts of an encoded vector.
type VectorCell = OnceLock<Arc<Vec<Plaintext>>>;

/// The store of all encoded weights of a plan.
#[derive(Debug)]
pub(super) struct Plaintexts {
    /// By instruction.
    groups: BTreeMap<usize, Vec<Group>>,
    /// By instruction; only those that the budget lets stay.
    vectors: BTreeMap<usize, VectorCell>,
    bytes: AtomicUsize,
    planned: usize,
}

impl Plaintexts {
    pub(super) fn new(verified: &Verified, context: &Context, budget: u64) -> Result<Self> {
        let plan = verified.plan();
        let mut store =
            Plaintexts { groups: BTreeMap::new(), vectors: BTreeMap::new(), bytes: AtomicUsize::new(0), planned: 0 };
        // Weights of images that share ciphertexts are scalars, which are no plaintexts.
        if plan.is_batched() {
            return Ok(store);
        }
        for (number, instruction) in plan.instructions.iter().enumerate() {
            let Op::LinearMap { terms, out_scale, .. } = &instruction.op else { continue };
            let mut groups = Vec::new();
            for group in verified.facts().groups(number) {
                let level = verified.register(terms[group.terms[0]].src).level;
                let in_blocks = group.terms.iter().map(|&t| plan.matrices[terms[t].matrix.index()].in_ciphertexts);
                let out_blocks = verified.register(instruction.dst).ciphertexts;
                let scale_of = |&t: &usize| {
                    let source = &verified.register(terms[t].src).scale;
                    (t, LinearMap::plaintext_scale(context, level, source, out_scale, true))
                };
                let new =
                    || Diagonal { tier: Tier::Transient, coefficients: OnceLock::new(), evaluation: OnceLock::new() };
                groups.push(Group {
                    map: LinearMap::new(group.bsgs.terms(), in_blocks.sum(), out_blocks)?,
                    level,
                    scales: group.terms.iter().map(scale_of).collect(),
                    diagonals: group.sources.iter().map(|_| new()).collect(),
                    period: plan.matrices[terms[group.terms[0]].matrix.index()].diagonal_period(),
                    composed: plan.keys.composed_in(group, plan.parameters.log_n).babies,
                    packed: OnceLock::new(),
                });
            }
            store.groups.insert(number, groups);
        }
        store.assign(verified, context, usize::try_from(budget).unwrap_or(usize::MAX));
        Ok(store)
    }

    /// Decides what stays; see the module documentation. Vectors come first: there are few of them.
    fn assign(&mut self, verified: &Verified, context: &Context, budget: usize) {
        let plan = verified.plan();
        let mut left = budget;
        let mut take = |bytes: usize| {
            let fits = bytes <= left;
            if fits {
                left -= bytes;
            }
            fits
        };
        for (number, instruction) in plan.instructions.iter().enumerate() {
            if let Some((vector, level)) = encoded_vector(verified, instruction) {
                let bytes = plan.vectors[vector.index()].ciphertexts * context.n() * 8 * (level + 1);
                if take(bytes) {
                    self.vectors.insert(number, OnceLock::new());
                }
            }
        }
        for group in self.groups.values_mut().flatten() {
            let bytes = group.coefficient_bytes();
            group.diagonals.iter_mut().filter(|_| take(bytes)).for_each(|d| d.tier = Tier::Coefficients);
        }
        // A map reads all of its diagonals in the same form, so they are lifted together or not at all.
        for group in self.groups.values_mut().flatten() {
            let kept = group.diagonals.len() * group.coefficient_bytes();
            let more = group.evaluation_bytes(context).saturating_sub(kept);
            if group.diagonals.iter().all(|d| d.tier == Tier::Coefficients) && take(more) {
                group.diagonals.iter_mut().for_each(|d| d.tier = Tier::Evaluation);
            }
        }
        self.planned = budget - left;
    }

    /// Bytes cached now.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Most bytes that will be cached.
    pub(super) fn planned_bytes(&self) -> usize {
        self.planned
    }

    /// Number of diagonals in each tier.
    pub(super) fn tiers(&self) -> [(Tier, usize); 3] {
        [Tier::Transient, Tier::Coefficients, Tier::Evaluation].map(|tier| {
            let all = self.groups.values().flatten().flat_map(|g| &g.diagonals);
            (tier, all.filter(|d| d.tier == tier).count())
        })
    }

    /// Most scratch bytes of one linear map with `threads` threads, encoded weights in use included.
    pub(super) fn scratch_bytes(&self, context: &Context, threads: usize) -> usize {
        let options = LinearOptions::default();
        let of = |group: &Group| {
            let (map, level, hoisting) = (&group.map, group.level, options.hoisting);
            let composed = map.composed_bytes(context, level, hoisting, group.composed);
            if group.resident() {
                return map.scratch_bytes(context, level, threads, hoisting, true) + composed;
            }
            let own = map.streamed_bytes(context, level, threads, hoisting, group.period, options.plaintext_window);
            // Those that stay are counted with what stays.
            let kept = group.diagonals.iter().filter(|d| d.tier == Tier::Coefficients).count();
            own - (kept * group.coefficient_bytes()).min(options.plaintext_window).min(own) + composed
        };
        self.groups.values().flatten().map(of).max().unwrap_or(0)
    }

    /// Encodes everything that stays, scalars too.
    pub(super) fn prepare(&self, verified: &Verified, encoder: &Encoder, scalars: &Scalars) -> Result<()> {
        for number in 0..verified.plan().instructions.len() {
            let step = Step::new(verified, number);
            let done = scalars.prepare(encoder.context(), &step).and_then(|()| self.prepare_step(&step, encoder));
            done.map_err(|source| RuntimeError::Instruction {
                number,
                op: step.instruction.op.name(),
                layer: verified.plan().layers[step.instruction.layer.index()].name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    fn prepare_step(&self, step: &Step, encoder: &Encoder) -> OpResult<()> {
        for source in self.linear(encoder, step) {
            if source.packs() {
                source.pack()?;
                continue;
            }
            (0..source.own.diagonals.len()).into_par_iter().try_for_each(|i| source.warm(i))?;
        }
        let Some((vector, level)) = encoded_vector(step.verified, step.instruction) else { return Ok(()) };
        if self.vectors.contains_key(&step.number) {
            let scale = match &step.instruction.op {
                Op::MulVector { scale, .. } => scale,
                _ => &step.result.scale,
            };
            self.vector(encoder, step, vector, level, scale)?;
        }
        Ok(())
    }

    /// The sources of diagonals for the groups of a linear map.
    pub(super) fn linear<'a>(&'a self, encoder: &'a Encoder, step: &Step<'a>) -> impl Iterator<Item = GroupSource<'a>> {
        let own = self.groups.get(&step.number).map_or(&[][..], Vec::as_slice);
        let groups = step.verified.facts().groups(step.number);
        let (instruction, verified) = (step.instruction, step.verified);
        own.iter().zip(groups).map(move |(own, group)| GroupSource {
            store: self,
            encoder,
            verified,
            instruction,
            group,
            own,
            tensors: group.terms.iter().map(|&t| (t, OnceLock::new())).collect(),
            scratch: Mutex::default(),
        })
    }

    /// An encoded vector, one plaintext for each ciphertext.
    pub(super) fn vector(
        &self,
        encoder: &Encoder,
        step: &Step,
        vector: VectorId,
        level: usize,
        scale: &Scale,
    ) -> OpResult<Arc<Vec<Plaintext>>> {
        let cell = self.vectors.get(&step.number);
        if let Some(found) = cell.and_then(OnceLock::get) {
            return Ok(Arc::clone(found));
        }
        let plan = step.verified.plan();
        let values = plan.vectors[vector.index()].values(&plan.weights);
        let encoded = values.par_iter().map(|v| encoder.encode(v, level, scale)).collect::<Result<_, CkksError>>()?;
        let encoded: Arc<Vec<Plaintext>> = Arc::new(encoded);
        if let Some(cell) = cell
            && cell.set(Arc::clone(&encoded)).is_ok()
        {
            let bytes: usize = encoded.iter().map(|p| std::mem::size_of_val(p.poly().data())).sum();
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(encoded)
    }
}

/// The vector that an instruction encodes, and at which level.
fn encoded_vector(verified: &Verified, instruction: &Instruction) -> Option<(VectorId, usize)> {
    match &instruction.op {
        Op::LinearMap { bias, .. } => bias.map(|b| (b, verified.register(instruction.dst).level)),
        Op::AddVector { src, vector } | Op::MulVector { src, vector, .. } => {
            Some((*vector, verified.register(*src).level))
        }
        _ => None,
    }
}

/// Diagonals of one group of one linear map, while it is applied.
pub(super) struct GroupSource<'a> {
    store: &'a Plaintexts,
    encoder: &'a Encoder,
    verified: &'a Verified,
    instruction: &'a Instruction,
    group: &'a LinearGroup,
    own: &'a Group,
    /// Weights of each term's matrix as f64, loaded when the first diagonal is encoded and gone with the source: they
    /// are larger than the file and quick to load again.
    tensors: BTreeMap<usize, OnceLock<Vec<NestWeights>>>,
    /// Buffers that no thread uses at the moment.
    scratch: Mutex<Vec<Scratch>>,
}

/// Buffers for encoding a diagonal.
#[derive(Default)]
struct Scratch {
    values: Vec<f64>,
    encode: EncodeScratch,
}

impl GroupSource<'_> {
    /// The terms that belong to the group.
    pub(super) fn group(&self) -> &LinearGroup {
        self.group
    }

    /// The map to apply.
    pub(super) fn map(&self) -> &LinearMap {
        &self.own.map
    }

    /// Whether the diagonals are kept together.
    fn packs(&self) -> bool {
        self.own.packs(self.encoder.context())
    }

    /// Encodes the diagonals that are kept together, if that is still to be done.
    pub(super) fn pack(&self) -> Result<(), CkksError> {
        if self.own.packed.get().is_some() || !self.packs() {
            return Ok(());
        }
        let (context, own) = (self.encoder.context(), self.own);
        let packed = PackedDiagonals::new(context, &own.map, self, own.period, Hoisting::Auto)?;
        let bytes = packed.bytes();
        if own.packed.set(packed).is_ok() {
            self.store.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Keeps diagonal `index` in the form of its tier.
    fn warm(&self, index: usize) -> OpResult<()> {
        match self.own.diagonals[index].tier {
            Tier::Transient => Ok(()),
            Tier::Coefficients => self.coefficients(index).map(drop).map_err(OpError::from),
            Tier::Evaluation => self.plaintext(index).map(drop).map_err(OpError::from),
        }
    }

    fn encode(&self, index: usize) -> Result<CoeffPlaintext, CkksError> {
        let (id, source) = (self.group.bsgs.terms()[index], self.group.sources[index]);
        let Op::LinearMap { terms, .. } = &self.instruction.op else {
            return Err(CkksError::Parameters("diagonals of an instruction that is no linear map".into()));
        };
        let number = terms[source.term].matrix;
        let plan = self.verified.plan();
        let matrix = &plan.matrices[number.index()];
        let tensors = self.tensors[&source.term].get_or_init(|| Diagonals::tensors(matrix, &plan.weights));
        let idle = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = idle().pop().unwrap_or_default();
        let Scratch { values, encode } = &mut scratch;
        values.resize(matrix.diagonal_period(), 0.0);
        // The diagonal as the giant step wants it: entry k is entry k + left of the stored one.
        let left = id.source_row(0, matrix.in_period, matrix.out_period);
        self.verified.facts().diagonals(number).fill_rotated(matrix, tensors, source.diagonal, left, values);
        let encoded = self.encoder.encode_coeffs_with(values, &self.own.scales[&source.term], encode);
        idle().push(scratch);
        encoded
    }
}

impl DiagonalSource for GroupSource<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        self.group.bsgs.terms()
    }

    fn plaintext_bytes(&self) -> Option<usize> {
        Some(self.own.plaintext_bytes(self.encoder.context()))
    }

    fn resident(&self) -> bool {
        self.own.resident()
    }

    fn packed(&self) -> Option<&PackedDiagonals> {
        self.own.packed.get()
    }

    fn real_coefficients(&self) -> bool {
        true
    }

    fn period(&self) -> Option<usize> {
        Some(self.own.period)
    }

    fn coefficients(&self, index: usize) -> Result<Arc<CoeffPlaintext>, CkksError> {
        let diagonal = &self.own.diagonals[index];
        if let Some(found) = diagonal.coefficients.get() {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(self.encode(index)?);
        if diagonal.tier == Tier::Coefficients && diagonal.coefficients.set(Arc::clone(&made)).is_ok() {
            self.store.bytes.fetch_add(made.bytes(), Ordering::Relaxed);
        }
        Ok(made)
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        let diagonal = &self.own.diagonals[index];
        if let Some(found) = diagonal.evaluation.get() {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(self.encoder.qp_plaintext(&*self.coefficients(index)?, self.own.level)?);
        let keep = diagonal.tier == Tier::Evaluation && !self.packs();
        if keep && diagonal.evaluation.set(Arc::clone(&made)).is_ok() {
            self.store.bytes.fetch_add(made.bytes(), Ordering::Relaxed);
        }
        Ok(made)
    }
}
