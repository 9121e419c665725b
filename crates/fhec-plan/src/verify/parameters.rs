//! Parameters, key manifest, inputs and outputs: all that a client must be able to trust.

use super::{Insecure, VerifyError, check_scale};
use crate::batch::image_slots;
use crate::structure::{self, check_layout, injective};
use crate::{Input, KeyManifest, Layout, Output, Parameters, Postprocess};
use fhec_math::bootstrap::{BootstrapSpec, log2_failure};
use fhec_math::scale::Scale;
use fhec_math::{is_prime, log2_product, max_log_qp, max_log_sparse};

/// log2 of the probability with which one bootstrap may fail.
const MAX_LOG2_FAILURE: f64 = -128.0;

/// Checks parameters, key manifest, inputs and outputs, as a client does before it makes keys or encrypts.
///
/// # Errors
/// The first rule that is broken.
pub fn check_head(
    parameters: &Parameters,
    keys: &KeyManifest,
    inputs: &[Input],
    outputs: &[Output],
    insecure: Insecure,
) -> Result<(), VerifyError> {
    check_parameters(parameters, insecure).map_err(VerifyError::Parameters)?;
    check_manifest(parameters, keys)?;
    let entry =
        |what, index, result: Result<(), String>| result.map_err(|problem| VerifyError::Entry { what, index, problem });
    let slots = image_slots(parameters, inputs, outputs);
    if slots != parameters.slots() && slots != 1 {
        let problem = format!("images of {slots} slots; they take all {} or one", parameters.slots());
        return Err(VerifyError::Parameters(problem));
    }
    structure::check_ports(inputs.iter().map(|i| &i.layout).chain(outputs.iter().map(|o| &o.layout)))
        .map_err(|e| VerifyError::Parameters(format!("inputs and outputs: {e}")))?;
    for (i, input) in inputs.iter().enumerate() {
        entry("input", i, check_input(parameters, slots, input))?;
        entry("input", i, unused(&input.name, inputs[..i].iter().map(|o| &o.name)))?;
    }
    for (i, output) in outputs.iter().enumerate() {
        entry("output", i, check_output(parameters, slots, output))?;
        entry("output", i, unused(&output.name, outputs[..i].iter().map(|o| &o.name)))?;
    }
    Ok(())
}

/// Two images a slot: only where images share ciphertexts, and every value must leave room for the other one.
pub(super) fn check_complex(
    complex: bool,
    parameters: &Parameters,
    inputs: &[Input],
    outputs: &[Output],
) -> Result<(), VerifyError> {
    if !complex {
        return Ok(());
    }
    let slots = image_slots(parameters, inputs, outputs);
    if slots != 1 {
        let problem = format!("two images a slot, but images of {slots} slots");
        return Err(VerifyError::Parameters(problem));
    }
    let check = |what, index, (lo, hi): (f64, f64), factor: f64, (level, scale): (usize, &Scale)| {
        let largest = lo.abs().max(hi.abs()) * factor.abs() * std::f64::consts::SQRT_2;
        let (bits, room) = (largest.log2() + scale.log2(), log2_product(&parameters.q[..=level]) - 1.0);
        let problem =
            || format!("two values up to {largest:e} a slot at scale {scale} need {bits:.1} bits of {room:.1}");
        if bits < room { Ok(()) } else { Err(VerifyError::Entry { what, index, problem: problem() }) }
    };
    inputs.iter().enumerate().try_for_each(|(i, p)| check("input", i, p.range, p.factor, (p.level, &p.scale)))?;
    outputs.iter().enumerate().try_for_each(|(i, p)| check("output", i, p.range, 1.0 / p.factor, (p.level, &p.scale)))
}

/// Ciphertexts of a bundle are told apart by name.
fn unused<'a>(name: &str, mut before: impl Iterator<Item = &'a String>) -> Result<(), String> {
    if before.any(|other| other == name) { Err(format!("the name {name:?} is there twice")) } else { Ok(()) }
}

fn check_parameters(p: &Parameters, insecure: Insecure) -> Result<(), String> {
    if !structure::LOG_N.contains(&p.log_n) {
        return Err(format!("ring degree 2^{} is not supported", p.log_n));
    }
    let counts = (1..=structure::MAX_CHAIN).contains(&p.q.len()) && (1..=structure::MAX_SPECIAL).contains(&p.p.len());
    if !counts {
        return Err(format!("{} chain primes and {} special primes", p.q.len(), p.p.len()));
    }
    let mut primes: Vec<u64> = p.q.iter().chain(&p.p).copied().collect();
    for &prime in &primes {
        if prime >= 1 << 50 || prime % (2 << p.log_n) != 1 || !is_prime(prime) {
            return Err(format!("{prime} is not a prime below 2^50 that is 1 modulo 2^{}", p.log_n + 1));
        }
    }
    primes.sort_unstable();
    if let Some(twice) = primes.windows(2).find(|w| w[0] == w[1]) {
        return Err(format!("prime {} occurs twice", twice[0]));
    }
    check_digits(p)?;
    if let Some(spec) = &p.bootstrap {
        check_bootstrap(p, spec).map_err(|e| format!("bootstrap: {e}"))?;
    }
    match p.security {
        None if insecure == Insecure::AllowForTests => Ok(()),
        None => Err("they claim no security level".into()),
        Some(level) => match max_log_qp(level, p.log_n) {
            Some(limit) if p.log_qp() <= f64::from(limit) => Ok(()),
            limit => Err(format!(
                "log2(QP) = {:.2} at N = 2^{} exceeds the limit {} of {} bits of security",
                p.log_qp(),
                p.log_n,
                limit.unwrap_or(0),
                level.bits()
            )),
        },
    }
}

/// The circuit fits the chain, its sparse secret is secure, and it fails never.
fn check_bootstrap(p: &Parameters, spec: &BootstrapSpec) -> Result<(), String> {
    spec.check(p.log_n, p.q[0], p.max_level())?;
    check_scale(&p.q, p.max_level(), &spec.input_scale)?;
    let Some(level) = p.security else { return Ok(()) };
    let bits = p.log_sparse();
    if max_log_sparse(level, p.log_n, spec.sparse_weight).is_none_or(|limit| bits > f64::from(limit)) {
        return Err(format!(
            "a secret of weight {} under a modulus of {bits:.1} bits at N = 2^{} does not have {} bits of security",
            spec.sparse_weight,
            p.log_n,
            level.bits()
        ));
    }
    for (ring, bits) in p.low_rings() {
        if max_log_qp(level, ring.log_n).is_none_or(|limit| bits > f64::from(limit)) {
            let (log_n, wanted) = (ring.log_n, level.bits());
            return Err(format!(
                "a ring of degree 2^{log_n} under a modulus of {bits:.1} bits does not have {wanted} bits of security"
            ));
        }
    }
    let failure = log2_failure(p.log_n, spec.sparse_weight, f64::from(spec.range));
    if failure > MAX_LOG2_FAILURE {
        return Err(format!("it fails with probability 2^{failure:.1}, at most 2^{MAX_LOG2_FAILURE} is allowed"));
    }
    Ok(())
}

/// Digits cover the chain, and each is below `P`, so that key switching noise stays small.
fn check_digits(p: &Parameters) -> Result<(), String> {
    let total = p.digits.iter().try_fold(0usize, |sum, &d| sum.checked_add(d));
    if total != Some(p.q.len()) || p.digits.contains(&0) {
        return Err(format!("digits {:?} are not positive numbers that sum to {}", p.digits, p.q.len()));
    }
    let log_p = log2_product(&p.p);
    let mut rest = &p.q[..];
    for (i, &len) in p.digits.iter().enumerate() {
        let (digit, after) = rest.split_at(len);
        rest = after;
        let log_digit = log2_product(digit);
        if log_digit >= log_p {
            return Err(format!("digit {i} has {log_digit:.2} bits, not below the {log_p:.2} bits of P"));
        }
    }
    Ok(())
}

/// Elements and levels of a key manifest exist.
fn check_manifest(p: &Parameters, keys: &KeyManifest) -> Result<(), VerifyError> {
    let bad = |problem| Err(VerifyError::Keys(problem));
    let two_n = 2u64 << p.log_n;
    for (&element, &level) in &keys.galois {
        if element.is_multiple_of(2) || element <= 1 || element >= two_n {
            return bad(format!("{element} is not a Galois element below {two_n} other than 1"));
        }
        if level > p.max_level() {
            return bad(format!("Galois element {element} up to level {level}, the chain ends at {}", p.max_level()));
        }
    }
    for (&log_n, low) in &keys.low {
        // Its security has been looked at.
        let known = p.low_rings().iter().any(|(ring, _)| (ring.log_n, ring.level) == (log_n, low.level));
        if !known {
            let level = low.level;
            return bad(format!(
                "keys up to level {level} of a ring of degree 2^{log_n}, which bootstraps do not have"
            ));
        }
        if let Some(element) = low.galois.iter().find(|e| e.is_multiple_of(2) || **e <= 1 || **e >= 2 << log_n) {
            let bound = 2u64 << log_n;
            return bad(format!("{element} is not a Galois element below {bound} other than 1"));
        }
    }
    for (&element, factors) in &keys.composed {
        let product = factors.iter().fold(1, |product, &f| product * u128::from(f) % u128::from(two_n));
        let keyed = factors.iter().all(|f| keys.galois.contains_key(f)) && !keys.galois.contains_key(&element);
        if element == 1 || product != u128::from(element) || !keyed {
            return bad(format!("Galois element {element} is not made of the keys of {factors:?}"));
        }
    }
    match keys.relin {
        Some(level) if level > p.max_level() => {
            bad(format!("relinearisation up to level {level}, the chain ends at {}", p.max_level()))
        }
        _ => Ok(()),
    }
}

/// What inputs and outputs share.
struct Port<'a> {
    shape: &'a [usize],
    layout: &'a Layout,
    level: usize,
    scale: &'a Scale,
    /// Factor from the values of `range` to what is encrypted.
    encrypted: f64,
    range: (f64, f64),
}

fn check_port(p: &Parameters, slots: usize, port: &Port) -> Result<(), String> {
    check_layout(port.layout)?;
    if port.layout.slots != slots {
        return Err(format!("a layout of {} slots, ciphertexts have {slots}", port.layout.slots));
    }
    let elements = port.shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    if elements != port.layout.elements() {
        return Err(format!("shape {:?} does not fit a layout of {}", port.shape, port.layout.elements()));
    }
    if !injective(port.layout) {
        return Err("two elements of the layout share a slot".into());
    }
    if port.level > p.max_level() {
        return Err(format!("level {} is above the chain, which ends at {}", port.level, p.max_level()));
    }
    check_scale(&p.q, port.level, port.scale)?;
    let (lo, hi) = port.range;
    if !(lo.is_finite() && hi.is_finite() && lo <= hi) {
        return Err(format!("range {lo} … {hi}"));
    }
    if !port.encrypted.is_finite() || port.encrypted == 0.0 {
        return Err(format!("a factor of {}", port.encrypted));
    }
    let largest = lo.abs().max(hi.abs()) * port.encrypted.abs();
    let bits = largest.log2() + port.scale.log2();
    let room = log2_product(&p.q[..=port.level]) - 1.0;
    if bits >= room {
        return Err(format!("values up to {largest:e} at scale {} need {bits:.1} bits of {room:.1}", port.scale));
    }
    Ok(())
}

fn check_input(p: &Parameters, slots: usize, input: &Input) -> Result<(), String> {
    let Input { shape, layout, level, scale, factor, range, .. } = input;
    check_port(p, slots, &Port { shape, layout, level: *level, scale, encrypted: *factor, range: *range })?;
    let Some(pre) = &input.preprocess else { return Ok(()) };
    let finite = |v: &[f64]| v.iter().all(|x| x.is_finite());
    let channels = |v: &[f64]| v.len() == 1 || shape.contains(&v.len());
    if !pre.scale.is_finite() || !finite(&pre.mean) || !finite(&pre.std) || pre.std.contains(&0.0) {
        return Err("preprocessing with figures that are infinite, no numbers, or a zero deviation".into());
    }
    if !channels(&pre.mean) || !channels(&pre.std) {
        return Err(format!("preprocessing of {} and {} channels for shape {shape:?}", pre.mean.len(), pre.std.len()));
    }
    Ok(())
}

fn check_output(p: &Parameters, slots: usize, output: &Output) -> Result<(), String> {
    let Output { shape, layout, level, scale, factor, range, .. } = output;
    check_port(p, slots, &Port { shape, layout, level: *level, scale, encrypted: 1.0 / factor, range: *range })?;
    if !output.error_std.is_finite() || output.error_std < 0.0 {
        return Err(format!("a predicted error of {}", output.error_std));
    }
    for Postprocess::Softmax { axis } in &output.postprocess {
        if *axis >= shape.len() {
            return Err(format!("softmax over axis {axis} of shape {shape:?}"));
        }
    }
    Ok(())
}
