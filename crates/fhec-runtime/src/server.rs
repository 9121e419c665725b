//! The server's side: a verified plan, evaluation keys, ciphertexts in and out. Nothing here can take or
//! hold a secret key.

use crate::batch;
use crate::ckks::CkksBackend;
use crate::client::collect;
use crate::context::context;
use crate::driver::{Event, Trace, run};
use crate::error::Result;
use fhec_ckks::container::{BundleEntry, BundleForm};
use fhec_ckks::{Context, EvaluationKeys, InsecureToken};
use fhec_plan::Verified;
use std::sync::Arc;

/// The engine's context for a verified plan; wanted for reading keys and ciphertexts.
///
/// # Errors
/// As [`context`].
pub fn server_context(verified: &Verified, insecure: Option<InsecureToken>) -> Result<Arc<Context>> {
    context(&verified.plan().parameters, insecure)
}

/// Evaluates one plan for one client.
#[derive(Debug)]
pub struct Server {
    backend: CkksBackend,
}

impl Server {
    /// A server for `verified` with the client's `keys`. See [`CkksBackend::new`] for the budget.
    ///
    /// # Errors
    /// As [`CkksBackend::new`].
    pub fn new(
        verified: Arc<Verified>,
        context: &Arc<Context>,
        keys: Arc<EvaluationKeys>,
        plaintext_budget: u64,
    ) -> Result<Self> {
        Ok(Server { backend: CkksBackend::new(verified, context, keys, plaintext_budget)? })
    }

    /// A server without keys, to make those of single clients from; see [`CkksBackend::without_keys`].
    ///
    /// # Errors
    /// As [`CkksBackend::without_keys`].
    pub fn without_keys(verified: Arc<Verified>, context: &Arc<Context>, plaintext_budget: u64) -> Result<Self> {
        Ok(Server { backend: CkksBackend::without_keys(verified, context, plaintext_budget)? })
    }

    /// The same plan for another client; encoded weights are shared.
    ///
    /// # Errors
    /// As [`CkksBackend::with_keys`].
    pub fn with_keys(&self, keys: Arc<EvaluationKeys>) -> Result<Self> {
        Ok(Server { backend: self.backend.with_keys(keys)? })
    }

    /// The backend.
    pub fn backend(&self) -> &CkksBackend {
        &self.backend
    }

    /// Runs the plan on the ciphertexts of `bundle` and returns those of the outputs. `observe` is called after every
    /// instruction.
    ///
    /// # Errors
    /// [`RuntimeError::Ciphertexts`](crate::RuntimeError::Ciphertexts) for a bundle that does not fit the plan's
    /// inputs, [`RuntimeError::Batch`](crate::RuntimeError::Batch) for one of too many images, and as [`run`].
    pub fn run(&self, bundle: &[BundleEntry], observe: &mut dyn FnMut(&Event)) -> Result<(Vec<BundleEntry>, Trace)> {
        let verified = self.backend.verified();
        let plan = verified.plan();
        let images = batch::count(plan.batch(), bundle)? as u32;
        let inputs = plan
            .inputs
            .iter()
            .map(|i| collect(self.backend.context(), bundle, &i.name, i.layout.ciphertexts, i.level, &i.scale))
            .collect::<Result<Vec<_>>>()?;
        let done = run(verified, &self.backend, inputs, observe)?;
        let entries = plan.outputs.iter().zip(done.outputs).flat_map(|(output, ciphertexts)| {
            (0..).zip(ciphertexts).map(|(index, c)| BundleEntry {
                name: output.name.clone(),
                index,
                images,
                form: BundleForm::Full(c),
            })
        });
        Ok((entries.collect(), done.trace))
    }
}
