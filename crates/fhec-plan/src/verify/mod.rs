//! The verifier: re-derives everything that a plan claims, and gives what running it needs.
//!
//! A plan comes from elsewhere: from a compiler that may have a bug, over a wire that may be hostile.
//! Nothing runs before this module has derived, independently of the compiler,
//!
//! 1. that the parameters are well formed and as secure as they say, and that the keys asked for exist
//!    ([`check_head`]);
//! 2. that layouts, matrices, vectors, polynomials and weights are sound: no row, column or weight index
//!    leaves its table, nothing is infinite or not a number;
//! 3. level, exact scale, degree (2 for a product before relinearisation), number of ciphertexts and
//!    period of every register, each written once and before it is read;
//! 4. that operands agree where they must, and that stated scales are met exactly;
//! 5. every key that is used, at which level, against the key manifest;
//! 6. that each input is read at most once and each output comes out once, at the level and scale that the
//!    client will assume;
//! 7. that no slot of one image reaches another image's, where images share ciphertexts, nor one part of a slot the other;
//! 8. in client-aided mode, that the program is ordered by rounds, and that the client can compute what it sends;
//! 9. that the work of this derivation, the tables that it makes and the registers of a run stay below
//!    the limits of [`crate::structure`].
//!
//! The result, [`Facts`], is what a runtime demands: an unverified plan cannot be run.

mod instructions;
mod parameters;
mod rounds;
mod tables;

pub use parameters::check_head;

use crate::linear::LinearGroup;
use crate::{Diagonals, KeyManifest, MatrixId, Plan, PolyId, Reg};
use fhec_math::chebyshev::ChebyshevPlan;
use fhec_math::scale::Scale;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// log2 of the smallest scale at which a plaintext or a message may be encoded.
pub const MIN_LOG2_SCALE: f64 = 8.0;

/// What to do with parameters that claim no security level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insecure {
    /// Refuse them: the only choice for anything but tests.
    Refuse,
    /// Accept them. They protect nothing.
    AllowForTests,
}

/// Why a plan was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The encryption parameters are malformed or insecure.
    #[error("plan refused: parameters: {0}")]
    Parameters(String),
    /// The key manifest is malformed or lacks a key.
    #[error("plan refused: key manifest: {0}")]
    Keys(String),
    /// The client's part of a client-aided plan is unsound.
    #[error("plan refused: client functions: {0}")]
    Client(String),
    /// An input, output or table entry is unsound.
    #[error("plan refused: {what} {index}: {problem}")]
    Entry {
        /// Table.
        what: &'static str,
        /// Index in the table.
        index: usize,
        /// What is wrong.
        problem: String,
    },
    /// An instruction breaks a rule.
    #[error("plan refused: instruction {number} ({op}, layer {layer:?}): {problem}")]
    Instruction {
        /// Number, counted from 0.
        number: usize,
        /// Operation.
        op: &'static str,
        /// Name of the layer it belongs to.
        layer: String,
        /// What is wrong.
        problem: String,
    },
}

/// What is known of a register.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisterFacts {
    /// Level.
    pub level: usize,
    /// Exact scale.
    pub scale: Scale,
    /// 1, or 2 for a product before relinearisation.
    pub degree: u8,
    /// Number of ciphertexts.
    pub ciphertexts: usize,
    /// The contents repeat with this period.
    pub period: usize,
    /// Number of the instruction that writes it.
    pub written: usize,
    /// Number of the last instruction that reads it; `written` where none does.
    pub last_read: usize,
}

/// All that the verifier derived.
#[derive(Clone, Debug)]
pub struct Facts {
    registers: BTreeMap<Reg, RegisterFacts>,
    pub(crate) diagonals: Vec<Arc<Diagonals>>,
    groups: BTreeMap<usize, Vec<LinearGroup>>,
    polynomials: Vec<ChebyshevPlan>,
    keys: KeyManifest,
    bootstrap_elements: BTreeSet<u64>,
    peak_register_bytes: u64,
    rounds: Vec<Range<usize>>,
    kept_bytes: u64,
}

impl Facts {
    /// Instructions of every round; one range over all of them, except in client-aided mode.
    pub fn rounds(&self) -> &[Range<usize>] {
        &self.rounds
    }

    /// Most bytes of the ciphertexts that a server keeps from one round to the next.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Most bytes that the ciphertexts of live registers have at once.
    pub fn peak_register_bytes(&self) -> u64 {
        self.peak_register_bytes
    }

    /// Facts of a register; `None` for one that is never written.
    pub fn register(&self, reg: Reg) -> Option<&RegisterFacts> {
        self.registers.get(&reg)
    }

    /// All registers with their facts.
    pub fn registers(&self) -> &BTreeMap<Reg, RegisterFacts> {
        &self.registers
    }

    /// The diagonals of a matrix.
    ///
    /// # Panics
    /// When the plan has no such matrix.
    pub fn diagonals(&self, matrix: MatrixId) -> &Arc<Diagonals> {
        &self.diagonals[matrix.index()]
    }

    /// How a linear map instruction is evaluated; empty for any other instruction.
    pub fn groups(&self, instruction: usize) -> &[LinearGroup] {
        self.groups.get(&instruction).map_or(&[], Vec::as_slice)
    }

    /// How a polynomial is evaluated.
    ///
    /// # Panics
    /// When the plan has no such polynomial.
    pub fn polynomial(&self, poly: PolyId) -> &ChebyshevPlan {
        &self.polynomials[poly.index()]
    }

    /// The keys that the instructions use, each up to the highest level: the smallest sound manifest.
    pub fn keys(&self) -> &KeyManifest {
        &self.keys
    }

    /// Galois elements that bootstraps use.
    pub fn bootstrap_elements(&self) -> &BTreeSet<u64> {
        &self.bootstrap_elements
    }
}

/// Derives all facts of `plan` without looking at its key manifest; the compiler takes the manifest from
/// the result ([`Facts::keys`]).
///
/// # Errors
/// The first rule that is broken, with its place.
pub fn derive(plan: &Plan, insecure: Insecure) -> Result<Facts, VerifyError> {
    derive_with(plan, &KeyManifest::default(), insecure)
}

fn derive_with(plan: &Plan, keys: &KeyManifest, insecure: Insecure) -> Result<Facts, VerifyError> {
    check_head(&plan.parameters, keys, &plan.inputs, &plan.outputs, insecure)?;
    parameters::check_complex(plan.complex, &plan.parameters, &plan.inputs, &plan.outputs)?;
    rounds::check_client(plan.aided.as_ref(), (&plan.inputs, &plan.outputs))?;
    let tables = tables::check(plan)?;
    instructions::check(plan, tables)
}

/// [`derive()`], and every key used must be in the manifest of the plan.
///
/// # Errors
/// The first rule that is broken, with its place.
pub fn verify(plan: &Plan, insecure: Insecure) -> Result<Facts, VerifyError> {
    let facts = derive_with(plan, &plan.keys, insecure)?;
    let bad = |problem| Err(VerifyError::Keys(problem));
    if let Some(need) = facts.keys.relin
        && plan.keys.relin.is_none_or(|have| have < need)
    {
        return bad(format!("a relinearisation at level {need}, the manifest has {:?}", plan.keys.relin));
    }
    for (&element, &need) in &facts.keys.galois {
        if !plan.keys.reaches(element, need) {
            let have = plan.keys.galois.get(&element);
            return bad(format!("Galois element {element} is used at level {need}, the manifest has {have:?}"));
        }
    }
    if let Some(element) = facts.bootstrap_elements.iter().find(|element| plan.keys.composed.contains_key(element)) {
        return bad(format!("Galois element {element} is used in bootstraps, and has no key"));
    }
    if let Some(element) = facts.keys.raised.difference(&plan.keys.raised).next() {
        return bad(format!("Galois element {element} is used from the sparse secret, the manifest lacks it"));
    }
    if let Some(log_n) = facts.keys.lacks_low(&plan.keys) {
        return bad(format!("keys of the ring of degree 2^{log_n} are used, the manifest lacks them"));
    }
    Ok(facts)
}

/// A plan together with the proof that it is sound. The only way to make one is [`Verified::new`].
#[derive(Clone, Debug)]
pub struct Verified {
    plan: Plan,
    facts: Facts,
    hash: [u8; 32],
}

impl Verified {
    /// Verifies `plan`.
    ///
    /// # Errors
    /// The first rule that is broken, with its place.
    pub fn new(plan: Plan, insecure: Insecure) -> Result<Self, VerifyError> {
        let facts = verify(&plan, insecure)?;
        Ok(Verified { hash: plan.hash(), plan, facts })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What was derived.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Hash that names the plan.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Facts of a register that some instruction writes.
    ///
    /// # Panics
    /// For any other register.
    pub fn register(&self, reg: Reg) -> &RegisterFacts {
        &self.facts.registers[&reg]
    }
}

/// Checks a scale that a plan states or implies at `level`: bases from the chain (so that equality of
/// scales means equality of numbers), and a size between [`MIN_LOG2_SCALE`] and the modulus.
fn check_scale(q: &[u64], level: usize, scale: &Scale) -> Result<(), String> {
    const MAX_EXPONENT: u64 = 1 << 12;
    let (pow2, primes) = scale.to_parts();
    if pow2.unsigned_abs() > MAX_EXPONENT || primes.iter().any(|(_, k)| k.unsigned_abs() > MAX_EXPONENT) {
        return Err("a scale has absurd exponents".into());
    }
    if let Some((prime, _)) = primes.iter().find(|(prime, _)| !q.contains(prime)) {
        return Err(format!("scale {scale} has the factor {prime}, which is no prime of the chain"));
    }
    let log2 = scale.log2();
    let log_q = fhec_math::log2_product(&q[..=level]);
    if !(MIN_LOG2_SCALE..log_q).contains(&log2) {
        return Err(format!(
            "scale {scale} (2^{log2:.2}) at level {level} is not within 2^{MIN_LOG2_SCALE} … 2^{log_q:.2}"
        ));
    }
    Ok(())
}
