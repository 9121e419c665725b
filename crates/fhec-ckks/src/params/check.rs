//! What parameters must satisfy.

use std::ops::Range;

use fhec_math::{is_prime, log2_product, max_log_qp};

use super::{ParameterSpec, Security};
use crate::error::{CkksError, Result};

/// Smallest ring degree accepted, as a log2. Below `2^10` only tests work.
const MIN_LOG_N: u32 = 4;
/// Largest ring degree accepted, as a log2.
const MAX_LOG_N: u32 = 17;
/// Every prime is below this: the IFMA kernels are right for primes below 2^50 only.
const MAX_PRIME: u64 = 1 << 50;

fn invalid(message: String) -> CkksError {
    CkksError::Parameters(message)
}

/// Chain limbs of the digits.
pub(super) fn digit_ranges(spec: &ParameterSpec) -> Result<Vec<Range<usize>>> {
    let total = spec.digits.iter().try_fold(0usize, |sum, &d| sum.checked_add(d));
    if total != Some(spec.q.len()) || spec.digits.contains(&0) {
        return Err(invalid(format!("digits {:?} are not positive numbers that sum to {}", spec.digits, spec.q.len())));
    }
    let mut start = 0;
    let range = |&len: &usize| {
        start += len;
        start - len..start
    };
    Ok(spec.digits.iter().map(range).collect())
}

pub(super) fn check_shape(spec: &ParameterSpec) -> Result<()> {
    if !(MIN_LOG_N..=MAX_LOG_N).contains(&spec.log_n) {
        return Err(invalid(format!("log_n = {} is not within {MIN_LOG_N} … {MAX_LOG_N}", spec.log_n)));
    }
    if spec.q.is_empty() || spec.p.is_empty() || spec.digits.is_empty() {
        return Err(invalid("the chain, the special primes and the digits must not be empty".into()));
    }
    // Bounds the tables and loops that untrusted parameters could otherwise blow up.
    if spec.q.len() > 128 || spec.p.len() > 64 {
        return Err(invalid(format!(
            "{} chain primes and {} special primes; at most 128 and 64",
            spec.q.len(),
            spec.p.len()
        )));
    }
    Ok(())
}

pub(super) fn check_primes(spec: &ParameterSpec) -> Result<()> {
    let mut all: Vec<u64> = spec.q.iter().chain(&spec.p).copied().collect();
    for &prime in &all {
        if prime >= MAX_PRIME {
            return Err(invalid(format!("prime {prime} is not below 2^50")));
        }
        if prime % (2 << spec.log_n) != 1 {
            return Err(invalid(format!("prime {prime} is not 1 modulo 2N = 2^{}", spec.log_n + 1)));
        }
        if !is_prime(prime) {
            return Err(invalid(format!("{prime} is not prime")));
        }
    }
    all.sort_unstable();
    match all.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(invalid(format!("prime {} occurs twice", w[0]))),
        None => Ok(()),
    }
}

pub(super) fn check_digits(spec: &ParameterSpec) -> Result<()> {
    let log_p = log2_product(&spec.p);
    for (index, range) in digit_ranges(spec)?.into_iter().enumerate() {
        let log_digit = log2_product(&spec.q[range]);
        if log_digit >= log_p {
            return Err(invalid(format!(
                "digit {index} has {log_digit:.3} bits, which is not below P with {log_p:.3} bits"
            )));
        }
    }
    Ok(())
}

pub(super) fn check_security(spec: &ParameterSpec, log_qp: f64, security: Security) -> Result<()> {
    let Security::Level(level) = security else { return Ok(()) };
    match max_log_qp(level, spec.log_n) {
        Some(limit) if log_qp <= f64::from(limit) => Ok(()),
        limit => Err(CkksError::Insecure { log_n: spec.log_n, log_qp, bits: level.bits(), limit: limit.unwrap_or(0) }),
    }
}
