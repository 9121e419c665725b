//! Noise against the formulas of the literature, and rotations in the right direction.
//!
//! σ of the samples; `B = √(N(h+1)/12)` is the rounding of a division, `h = 2N/3` for ternary secrets; key switching adds
//! `σN√(Σ D_d²/12)/P` (2020/1203 §A, slot domain).

mod common;

use common::{Setup, insecure, random, rms, small};
use fhec_ckks::chebyshev::{self, ChebyshevPlan};
use fhec_ckks::{CkksError, Context, Encoder, Encryptor, KeyRequest, PublicKey};
use fhec_math::sample::NOISE_SIGMA;
use fhec_math::{Scale, conjugation_element, galois_element};
use num_complex::Complex64;
use std::collections::BTreeMap;

fn rounding(context: &Context) -> f64 {
    let n = context.n() as f64;
    (n * (2.0 * n / 3.0 + 1.0) / 12.0).sqrt()
}

fn switching(context: &Context, level: usize) -> f64 {
    let n = context.n() as f64;
    let mut start = 0;
    let mut squares = 0.0;
    for &len in &context.spec().digits {
        let end = (start + len).min(level + 1);
        if start < end {
            let d: f64 = (start..end).map(|i| context.q(i).value() as f64).product();
            squares += d * d / 12.0;
        }
        start += len;
    }
    let p: f64 = context.moduli_p()[..context.special_at(level)].iter().map(|m| m.value() as f64).product();
    NOISE_SIGMA * n * squares.sqrt() / p
}

fn zeros(len: usize) -> Vec<Complex64> {
    vec![Complex64::default(); len]
}

fn assert_close(what: &str, found: f64, predicted: f64) {
    let ratio = found / predicted;
    assert!((0.8..1.25).contains(&ratio), "{what}: {found:.1} found, {predicted:.1} predicted");
}

#[test]
fn fresh_noise() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let n = context.n() as f64;
    let public = PublicKey::generate(&s.secret, &mut s.rng);
    // Read at scale 1, the slots of an encryption of zero are its noise.
    let zero = s.encoder.encode(&[0.0], 3, &Scale::one()).expect("encode");
    let (mut sk, mut pk) = (0.0, 0.0);
    let trials = 8;
    for _ in 0..trials {
        let a = s.encrypt(&[0.0], 3, &Scale::one());
        sk += rms(&s.decrypt_complex(&a), &zeros(context.slots()));
        let b = s.encryptor.encrypt_pk(&public, &zero, &mut s.rng).expect("encrypt");
        pk += rms(&s.decrypt_complex(&b), &zeros(context.slots()));
    }
    let trials = f64::from(trials);
    assert_close("secret key", sk / trials, NOISE_SIGMA * n.sqrt());
    assert_close("public key", pk / trials, NOISE_SIGMA * (n * (4.0 * n / 3.0 + 1.0)).sqrt());
}

#[test]
fn public_key_encryption_works_at_every_level() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let public = PublicKey::generate(&s.secret, &mut s.rng);
    let encryptor = Encryptor::new(&context);
    let values = random(context.slots(), 5);
    for level in 0..=context.max_level() {
        let plaintext = Encoder::new(&context).encode(&values, level, &Scale::pow2(40)).expect("encode");
        let ciphertext = encryptor.encrypt_pk(&public, &plaintext, &mut s.rng).expect("encrypt");
        assert!(common::worst_bits(&s.decrypt(&ciphertext), &values) > 24.0);
    }
}

/// The noise that a rotation and a relinearisation add at every level, digits full, cut and missing, with a special
/// modulus hardly larger than a digit, so that a wrong digit or an uncentred lift doubles what is measured.
#[test]
fn key_switching_noise_at_every_level() {
    for (q, p, digits) in [
        (vec![45, 44, 44, 44, 44], vec![46, 44], vec![2, 2, 1]),
        (vec![40, 40, 40, 40], vec![41], vec![1, 1, 1, 1]),
        (vec![30, 30, 30, 30, 30, 30], vec![31, 31, 30], vec![3, 3]),
        (vec![40, 40, 40], vec![45, 45, 45], vec![3]),
    ] {
        let context = insecure(10, &q, &p, &digits);
        let mut s = Setup::new(&context, &[3]);
        for level in 0..=context.max_level() {
            let predicted = switching(&context, level).hypot(rounding(&context));
            let a = s.encrypt(&[0.0], level, &Scale::one());
            let rotated = s.evaluator.rotate(&a, 3).expect("rotate");
            let before = s.decrypt_complex(&a);
            let after = s.decrypt_complex(&rotated);
            let moved: Vec<_> = (0..before.len()).map(|i| before[(i + 3) % before.len()]).collect();
            assert_close(&format!("rotation, {digits:?}, level {level}"), rms(&after, &moved), predicted);

            // c2·s² against the relinearised product, both exact up to the noise.
            let product = s.evaluator.square(&a).expect("square");
            let direct: Vec<_> = before.iter().map(|z| z * z).collect();
            let relinearised = s.evaluator.relinearise(&product).expect("relinearise");
            let found = s.decrypt_complex(&relinearised);
            assert_close(&format!("relinearisation, {digits:?}, level {level}"), rms(&found, &direct), predicted);
        }
    }
}

/// Measured error of an operation against a predicted standard deviation, both in units of the values: within a bit, and the
/// worst slot no more than a bit beyond what as many normal numbers reach.
fn assert_predicted(what: &str, s: &Setup, result: &fhec_ckks::Ciphertext, expected: &[f64], predicted: f64) {
    let found = s.decrypt(result);
    let errors: Vec<f64> = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
    let std = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    let worst = errors.iter().fold(0.0f64, |m, &e| m.max(e));
    let predicted_worst = predicted * (2.0 * (2.0 * errors.len() as f64).ln()).sqrt();
    println!(
        "{what}: 2^{:.2}, predicted 2^{:.2}; worst 2^{:.2}, 2^{:.2}",
        std.log2(),
        predicted.log2(),
        worst.log2(),
        predicted_worst.log2()
    );
    assert!((std / predicted).log2().abs() < 1.0, "{what}: 2^{:.2}, predicted 2^{:.2}", std.log2(), predicted.log2());
    assert!(worst < 2.0 * predicted_worst, "{what}: worst slot 2^{:.2}", worst.log2());
}

/// Every operation on values, at every level: sums, products with numbers, vectors and ciphertexts, rotations, linear maps and
/// polynomials, each with errors of operands carried along.
#[test]
fn errors_of_values_at_every_level() {
    let context = small();
    let mut s = Setup::new(&context, &[1, 2, 3, 4, 8]);
    let (slots, n) = (context.slots(), context.n() as f64);
    let scale = Scale::pow2(40);
    let delta = 40f64.exp2();
    // Real parts of slots have half of the variance.
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let fresh = NOISE_SIGMA * n.sqrt() * half / delta;
    let round = rounding(&context) * half / delta;
    // Rounding of an encoded vector.
    let encoded = (n / 12.0).sqrt() * half / delta;
    let (x, y) = (random(slots, 1), random(slots, 2));
    let rms = |v: &[f64]| (v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64).sqrt();
    let zip = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> { x.iter().zip(&y).map(|(&a, &b)| f(a, b)).collect() };
    for level in 1..=context.max_level() {
        let (a, b) = (s.encrypt(&x, level, &scale), s.encrypt(&y, level, &scale));
        let switch = switching(&context, level) * half / delta;
        let e = &s.evaluator;
        let check = |what: &str, result: &fhec_ckks::Ciphertext, expected: &[f64], predicted: f64| {
            assert_predicted(&format!("level {level}, {what}"), &s, result, expected, predicted);
        };
        check("sum", &e.add(&a, &b).expect("add"), &zip(&|a, b| a + b), fresh.hypot(fresh));
        check("difference", &e.sub(&a, &b).expect("sub"), &zip(&|a, b| a - b), fresh.hypot(fresh));
        let q = context.q(level).value() as f64 / delta;
        // A number is encoded exactly but for its rounding to 40 bits; the rescale rounds at the scale Δ²/q.
        let halved = e.rescale(&e.mul_scalar(&a, 0.3, &scale).expect("mul")).expect("rescale");
        check("product with a number", &halved, &zip(&|a, _| 0.3 * a), (0.3 * fresh).hypot(round * q));
        let plaintext = s.encoder.encode(&y, level, &scale).expect("encode");
        let product = e.rescale(&e.mul_plain(&a, &plaintext).expect("mul")).expect("rescale");
        let own = (rms(&y) * fresh).hypot(rms(&x) * encoded).hypot(round * q);
        check("product with a vector", &product, &zip(&|a, b| a * b), own);
        let product = e.relinearise_rescale(&e.mul(&a, &b).expect("mul")).expect("relinearise");
        let own = (rms(&y) * fresh).hypot(rms(&x) * fresh).hypot(round * q).hypot(switch / delta * q);
        check("product", &product, &zip(&|a, b| a * b), own);
        let rotated: Vec<f64> = (0..slots).map(|i| x[(i + 3) % slots]).collect();
        check("rotation", &e.rotate(&a, 3).expect("rotate"), &rotated, fresh.hypot(switch).hypot(round));
        let hoisted = e.rotate_hoisted(&e.hoist(&a).expect("hoist"), 3).expect("rotate");
        check("hoisted rotation", &hoisted, &rotated, fresh.hypot(switch).hypot(round));
        check("conjugation", &e.conjugate(&a).expect("conjugate"), &x, fresh.hypot(switch).hypot(round));
        if level >= 2 {
            let plan = ChebyshevPlan::new(&[0.25, 0.0, 0.75]).expect("plan");
            let t2 = chebyshev::eval(e, &a, &plan, &scale).expect("polynomial");
            let expected: Vec<f64> = x.iter().map(|x| 0.25 + 0.75 * (2.0 * x * x - 1.0)).collect();
            let slope: Vec<f64> = x.iter().map(|x| 3.0 * x).collect();
            check("polynomial", &t2, &expected, (rms(&slope) * fresh).hypot(0.75 * round).hypot(round));
        }
    }
}

#[test]
fn rescaling_noise_has_no_bias() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let mut sum = 0.0;
    let trials = 30;
    for t in 0..trials {
        let a = s.encrypt(&random(context.slots(), t), 2, &Scale::pow2(20));
        let before = s.plaintext(&a);
        let after = s.plaintext(&s.evaluator.rescale(&a.clone()).expect("rescale"));
        let q = context.q(2).value() as f64;
        let (before, after) = (common::coefficients(&context, &before), common::coefficients(&context, &after));
        let errors: Vec<f64> = before.iter().zip(&after).map(|(&b, &a)| a as f64 - b as f64 / q).collect();
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        assert_close("rescale", deviation, rounding(&context) / (context.n() as f64).sqrt());
        sum += mean;
    }
    // Standard deviation of the mean: 7.5/√(1024·30) = 0.043; truncation instead of rounding would give 0.5.
    assert!((sum / trials as f64).abs() < 0.2, "mean error {}", sum / trials as f64);
}

#[test]
fn rotations_of_one_hot_vectors() {
    let context = small();
    let slots = context.slots();
    let steps: Vec<i64> = vec![1, 2, 3, 7, 64, slots as i64 / 2, slots as i64 - 1, -5];
    let mut s = Setup::new(&context, &steps);
    let mut one_hot = vec![0.0; slots];
    one_hot[10] = 1.0;
    let a = s.encrypt(&one_hot, 2, &Scale::pow2(40));
    let hoisted = s.evaluator.hoist(&a).expect("hoist");
    for &k in &steps {
        let rotated = s.evaluator.rotate(&a, k).expect("rotate");
        let found = s.decrypt(&rotated);
        let place = (10 - k).rem_euclid(slots as i64) as usize;
        for (i, v) in found.iter().enumerate() {
            let expected = if i == place { 1.0 } else { 0.0 };
            assert!((v - expected).abs() < 1e-8, "rotation by {k}, slot {i}: {v}");
        }
        let again = s.evaluator.rotate_hoisted(&hoisted, k).expect("rotate hoisted");
        assert_eq!(again.c0().data(), rotated.c0().data());
        assert_eq!(again.c1().data(), rotated.c1().data());
    }
    // rot(1) ∘ rot(2) = rot(3), and nothing at all for a full turn.
    let e = &s.evaluator;
    let composed = e.rotate(&e.rotate(&a, 1).expect("rotate"), 2).expect("rotate");
    let direct = e.rotate(&a, 3).expect("rotate");
    assert!(common::worst_bits(&s.decrypt(&composed), &s.decrypt(&direct)) > 28.0);
    let full = e.rotate(&a, slots as i64).expect("rotate");
    assert_eq!(full.c0().data(), a.c0().data());
}

#[test]
fn conjugation() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let (re, im) = (random(context.slots(), 1), random(context.slots(), 2));
    let z: Vec<Complex64> = re.iter().zip(&im).map(|(&a, &b)| Complex64::new(a, b)).collect();
    let a = s.encrypt_complex(&z, 5, &Scale::pow2(40));
    let found = s.decrypt_complex(&s.evaluator.conjugate(&a).expect("conjugate"));
    let expected: Vec<Complex64> = z.iter().map(Complex64::conj).collect();
    assert!(rms(&found, &expected) < 2f64.powi(-29));
}

#[test]
fn keys_reach_their_level_and_no_higher() {
    let context = small();
    let log_n = context.log_n();
    let galois = BTreeMap::from([(galois_element(1, log_n), 2), (conjugation_element(log_n), 0)]);
    let mut s = Setup::with_keys(&context, &KeyRequest { relin_level: Some(3), galois, ..KeyRequest::default() });
    let values = random(context.slots(), 8);
    for level in 0..=context.max_level() {
        let a = s.encrypt(&values, level, &Scale::pow2(36));
        let rotated = s.evaluator.rotate(&a, 1);
        if level <= 2 {
            let expected: Vec<f64> = (0..values.len()).map(|i| values[(i + 1) % values.len()]).collect();
            let bits = common::worst_bits(&s.decrypt(&rotated.expect("rotate")), &expected);
            assert!(bits > 24.0, "level {level}: {bits:.1} bits");
        } else {
            assert!(matches!(rotated, Err(CkksError::KeyLevel { have: 2, need, .. }) if need == level));
        }
        let product = s.evaluator.square(&a).expect("square");
        assert_eq!(s.evaluator.relinearise(&product).is_ok(), level <= 3);
        assert!(matches!(s.evaluator.rotate(&a, 2), Err(CkksError::NoGaloisKey { .. })));
    }
    let bare = Setup::with_keys(&context, &KeyRequest::default());
    let a = s.encrypt(&values, 1, &Scale::pow2(36));
    let product = bare.evaluator.square(&a).expect("square");
    assert!(matches!(bare.evaluator.relinearise(&product), Err(CkksError::NoRelinKey { .. })));
}

#[test]
fn impossible_key_requests_are_refused() {
    let context = small();
    let bad_level = KeyRequest { relin_level: Some(6), galois: BTreeMap::new(), ..KeyRequest::default() };
    let even = KeyRequest { relin_level: None, galois: BTreeMap::from([(4, 1)]), ..KeyRequest::default() };
    let large = KeyRequest { relin_level: None, galois: BTreeMap::from([(2049, 1)]), ..KeyRequest::default() };
    for request in [bad_level, even, large] {
        assert!(request.check(&context).is_err());
    }
}
