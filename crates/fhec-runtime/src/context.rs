//! From the parameters of a plan to those of the engine.

use crate::error::{Result, RuntimeError};
use fhec_ckks::{Context, InsecureToken, KeyRequest, ParameterSpec, Security};
use fhec_plan::{KeyManifest, Parameters};
use std::sync::Arc;

/// The engine's context for the parameters of a plan. Parameters that claim no security level need the
/// token.
///
/// # Errors
/// [`RuntimeError::Insecure`] without the token, and [`RuntimeError::Ckks`] for parameters that the engine
/// refuses.
pub fn context(parameters: &Parameters, insecure: Option<InsecureToken>) -> Result<Arc<Context>> {
    let security = match (parameters.security, insecure) {
        (Some(level), _) => Security::Level(level),
        (None, Some(token)) => Security::Insecure(token),
        (None, None) => return Err(RuntimeError::Insecure),
    };
    let Parameters { log_n, q, p, digits, .. } = parameters.clone();
    Ok(Context::new(ParameterSpec { log_n, q, p, digits }, security)?)
}

/// The engine's key request for the key manifest of a plan.
pub fn key_request(keys: &KeyManifest, parameters: &Parameters) -> KeyRequest {
    let sparse_weight = parameters.bootstrap.as_ref().map(|spec| spec.sparse_weight);
    KeyRequest {
        relin_level: keys.relin,
        galois: keys.galois.clone(),
        sparse_weight,
        raised: keys.raised.clone(),
        low: keys.low.clone(),
    }
}
