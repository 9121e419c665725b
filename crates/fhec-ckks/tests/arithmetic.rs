//! Every operation on ciphertexts against the same operation on numbers, with hard vectors, asserting bits
//! of precision; and the refusals.

mod common;

use common::{Setup, hard_vectors, random, small, worst_bits};
use fhec_ckks::{CkksError, Context, EvaluationKeys, Evaluator};
use fhec_math::Scale;
use num_complex::Complex64;

fn prime(context: &Context, level: usize) -> Scale {
    Scale::prime(context.q(level).value())
}

#[test]
fn linear_operations_keep_the_precision() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let scale = Scale::pow2(40);
    let other = random(context.slots(), 77);
    for (name, values) in hard_vectors(context.slots()) {
        let a = s.encrypt(&values, 2, &scale);
        let b = s.encrypt(&other, 2, &scale);
        let plain = s.encoder.encode(&other, 2, &scale).expect("encode");
        let e = &s.evaluator;
        let sum: Vec<f64> = values.iter().zip(&other).map(|(x, y)| x + y).collect();
        let difference: Vec<f64> = values.iter().zip(&other).map(|(x, y)| x - y).collect();
        let negative: Vec<f64> = values.iter().map(|x| -x).collect();
        let shifted: Vec<f64> = values.iter().map(|x| x + 0.625).collect();
        let cases = [
            ("fresh", a.clone(), &values),
            ("add", e.add(&a, &b).expect("add"), &sum),
            ("sub", e.sub(&a, &b).expect("sub"), &difference),
            ("negate", e.negate(&a).expect("negate"), &negative),
            ("add_plain", e.add_plain(&a, &plain).expect("add_plain"), &sum),
            ("sub_plain", e.sub_plain(&a, &plain).expect("sub_plain"), &difference),
            ("add_scalar", e.add_scalar(&a, 0.625).expect("add_scalar"), &shifted),
            ("drop", e.drop_to_level(&a, 0).expect("drop"), &values),
        ];
        for (op, ciphertext, expected) in cases {
            assert_eq!(ciphertext.scale(), &scale);
            // Noise σ√N = 104 in the slots against a scale of 2^40; the worst slot is some bits below.
            let bits = worst_bits(&s.decrypt(&ciphertext), expected);
            assert!(bits > 30.0, "{op} of {name}: {bits:.1} bits");
        }
    }
}

#[test]
fn products_keep_the_precision() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let level = 4;
    let scale = Scale::pow2(40);
    let other = random(context.slots(), 78);
    for (name, values) in hard_vectors(context.slots()) {
        let a = s.encrypt(&values, level, &scale);
        let b = s.encrypt(&other, level, &scale);
        let plain = s.encoder.encode(&other, level, &prime(&context, level)).expect("encode");
        let e = &s.evaluator;
        let product: Vec<f64> = values.iter().zip(&other).map(|(x, y)| x * y).collect();
        let square: Vec<f64> = values.iter().map(|x| x * x).collect();
        let scaled: Vec<f64> = values.iter().map(|x| x * -0.3).collect();
        let sum: Vec<f64> = product.iter().zip(&square).map(|(x, y)| x + y).collect();
        let ab = e.mul(&a, &b).expect("mul");
        let aa = e.square(&a).expect("square");
        let expected_scale = scale.square().div(&prime(&context, level));
        let one_way = e.rescale(&e.relinearise(&ab).expect("relinearise")).expect("rescale");
        let other_way = e.relinearise(&e.rescale_product(&ab).expect("rescale")).expect("relinearise");
        let fused = e.relinearise_rescale(&ab).expect("fused");
        for (op, ciphertext) in [("first", one_way), ("last", other_way), ("fused", fused)] {
            assert_eq!(ciphertext.level(), level - 1);
            assert_eq!(ciphertext.scale(), &expected_scale, "{op}");
            let bits = worst_bits(&s.decrypt(&ciphertext), &product);
            // Rescaling three parts leaves a rounding error times s², of about 2^12.6 here.
            let least = if op == "last" { 23.0 } else { 28.0 };
            assert!(bits > least, "relinearise {op}, {name}: {bits:.1} bits");
        }
        let lazy = e.relinearise_rescale(&e.add_product(&ab, &aa).expect("add")).expect("fused");
        let by_plain = e.rescale(&e.mul_plain(&a, &plain).expect("mul_plain")).expect("rescale");
        let by_scalar =
            e.rescale(&e.mul_scalar(&a, -0.3, &prime(&context, level)).expect("mul_scalar")).expect("rescale");
        assert_eq!(by_plain.scale(), &scale, "encoding at the prime keeps the scale exactly");
        assert_eq!(by_scalar.scale(), &scale);
        for (op, ciphertext, expected) in [
            ("lazy sum", lazy, &sum),
            ("mul_plain", by_plain, &product),
            ("mul_scalar", by_scalar, &scaled),
            ("square", e.relinearise_rescale(&aa).expect("fused"), &square),
        ] {
            let bits = worst_bits(&s.decrypt(&ciphertext), expected);
            assert!(bits > 28.0, "{op} of {name}: {bits:.1} bits");
        }
    }
}

#[test]
fn products_and_ciphertexts_mix() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let scale = Scale::pow2(38);
    let (x, y) = (random(context.slots(), 1), random(context.slots(), 2));
    let (a, b) = (s.encrypt(&x, 5, &scale), s.encrypt(&y, 5, &scale));
    let c = s.encrypt(&y, 5, &scale.square());
    let e = &s.evaluator;
    let ab = e.mul(&a, &b).expect("mul");
    let plus = e.add_to_product(&ab, &c).expect("add");
    let minus = e.sub_from_product(&ab, &c).expect("sub");
    let twice = e.sub_product(&plus, &minus).expect("sub");
    for (product, f) in
        [(plus, (|x, y| x * y + y) as fn(f64, f64) -> f64), (minus, |x, y| x * y - y), (twice, |_, y| 2.0 * y)]
    {
        let expected: Vec<f64> = x.iter().zip(&y).map(|(&x, &y)| f(x, y)).collect();
        let found = s.decrypt(&e.relinearise_rescale(&product).expect("relinearise"));
        let bits = worst_bits(&found, &expected);
        assert!(bits > 25.0, "{bits:.2} bits");
    }
}

#[test]
fn ones_stay_ones() {
    // A constant at a slightly wrong scale shows up as a bias that random tests average away.
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let ones = vec![1.0; context.slots()];
    // At another scale than the usual one too, so that a constant which takes that for granted is noticed.
    for bits in [40, 37] {
        let mut x = s.encrypt(&ones, 5, &Scale::pow2(bits));
        for _ in 0..4 {
            let e = &s.evaluator;
            let level = x.level();
            let y = e.rescale(&e.mul_scalar(&x, 1.0, &prime(&context, level)).expect("mul")).expect("rescale");
            x = e.add_scalar(&e.mul_scalar(&y, -1.0, &Scale::one()).expect("mul"), 2.0).expect("add");
            let mean = s.decrypt(&x).iter().map(|v| v - 1.0).sum::<f64>() / ones.len() as f64;
            let bound = 2f64.powi(9 - bits as i32);
            assert!(mean.abs() < bound, "bias of {mean:e} at level {level}, scale 2^{bits}");
        }
    }
}

#[test]
fn multiplication_by_i_is_exact() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let (re, im) = (random(context.slots(), 1), random(context.slots(), 2));
    let z: Vec<Complex64> = re.iter().zip(&im).map(|(&a, &b)| Complex64::new(a, b)).collect();
    let a = s.encrypt_complex(&z, 1, &Scale::pow2(40));
    let before = s.decrypt_complex(&a);
    let after = s.decrypt_complex(&s.evaluator.mul_i(&a).expect("mul_i"));
    for (x, y) in before.iter().zip(&after) {
        assert!((x * Complex64::i() - y).norm() < 1e-13);
    }
    // Twice is a negation, in every residue.
    let twice = s.evaluator.mul_i(&s.evaluator.mul_i(&a).expect("once")).expect("twice");
    let negative = s.evaluator.negate(&a).expect("negate");
    assert_eq!(twice.c0().data(), negative.c0().data());
    assert_eq!(twice.c1().data(), negative.c1().data());
}

#[test]
fn integers_and_accumulation() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let scale = Scale::pow2(30);
    let x = random(context.slots(), 1);
    let a = s.encrypt(&x, 2, &scale);
    let mut sum = s.encrypt(&x, 2, &scale.mul(&Scale::pow2(20)));
    s.evaluator.mul_scalar_add_assign(&mut sum, &a, 0.5, &Scale::pow2(20)).expect("accumulate");
    let expected: Vec<f64> = x.iter().map(|v| 1.5 * v).collect();
    assert!(worst_bits(&s.decrypt(&sum), &expected) > 20.0);
    let wrong = s.evaluator.mul_scalar_add_assign(&mut sum, &a, 0.5, &Scale::pow2(21));
    assert!(matches!(wrong, Err(CkksError::ScaleMismatch { .. })));
    let tripled = s.evaluator.mul_integer(&a, -3).expect("integer");
    assert_eq!(tripled.scale(), &scale);
    let expected: Vec<f64> = x.iter().map(|v| -3.0 * v).collect();
    assert!(worst_bits(&s.decrypt(&tripled), &expected) > 20.0);
    // Reading at half the scale doubles the message.
    let doubled = a.with_scale(Scale::pow2(29));
    let expected: Vec<f64> = x.iter().map(|v| 2.0 * v).collect();
    assert!(worst_bits(&s.decrypt(&doubled), &expected) > 20.0);
}

#[test]
fn mismatches_are_errors_with_both_numbers() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let x = random(context.slots(), 1);
    let a = s.encrypt(&x, 3, &Scale::pow2(40));
    let lower = s.encrypt(&x, 2, &Scale::pow2(40));
    let finer = s.encrypt(&x, 3, &Scale::pow2(41));
    let plain = s.encoder.encode(&x, 2, &Scale::pow2(40)).expect("encode");
    let e = &s.evaluator;
    for result in [e.add(&a, &lower), e.sub(&a, &lower), e.add_plain(&a, &plain), e.mul_plain(&a, &plain)] {
        assert!(matches!(result, Err(CkksError::LevelMismatch { lhs: 3, rhs: 2, .. })));
    }
    assert!(matches!(e.mul(&a, &lower), Err(CkksError::LevelMismatch { op: "mul", lhs: 3, rhs: 2 })));
    let error = e.add(&a, &finer).expect_err("scales differ").to_string();
    assert!(error.contains("add") && error.contains("2^40") && error.contains("2^41"), "{error}");
    // Scales that differ by the gap between two primes near 2^40 are different scales.
    let top = s.encrypt(&x, 5, &Scale::pow2(60));
    let q5 = s.evaluator.rescale(&top).expect("rescale");
    let q4 = Scale::pow2(60).div(&prime(&context, 4));
    let e = &s.evaluator;
    let close = q5.clone().with_scale(q4);
    assert!((close.scale().log2() - q5.scale().log2()).abs() < 1e-4);
    assert!(matches!(e.add(&q5, &close), Err(CkksError::ScaleMismatch { .. })));

    let bottom = e.drop_to_level(&a, 0).expect("drop");
    assert!(matches!(e.rescale(&bottom), Err(CkksError::LevelRange { level: 0, .. })));
    let product = e.square(&bottom).expect("square");
    assert!(matches!(e.relinearise_rescale(&product), Err(CkksError::LevelRange { .. })));
    assert!(matches!(e.drop_to_level(&bottom, 1), Err(CkksError::LevelRange { .. })));
    assert!(matches!(e.add_scalar(&a, f64::NAN), Err(CkksError::NotFinite { .. })));
    assert!(matches!(e.mul_scalar(&a, 1e30, &Scale::pow2(40)), Err(CkksError::Overflow { .. })));
}

#[test]
fn foreign_operands_are_refused() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let foreign_context = common::insecure(10, &[48, 40, 40, 40, 40, 40], &[48, 48], &[2, 2, 2]);
    let mut foreign = Setup::new(&foreign_context, &[]);
    let x = random(context.slots(), 1);
    let a = s.encrypt(&x, 3, &Scale::pow2(40));
    let b = foreign.encrypt(&x, 3, &Scale::pow2(40));
    assert!(matches!(s.evaluator.add(&a, &b), Err(CkksError::ContextMismatch { .. })));
    assert!(matches!(s.encryptor.decrypt(&s.secret, &b), Err(CkksError::ContextMismatch { .. })));
    assert!(matches!(s.encryptor.decrypt(&foreign.secret, &a), Err(CkksError::ContextMismatch { .. })));
    assert!(matches!(s.encoder.decode(&foreign.plaintext(&b)), Err(CkksError::ContextMismatch { .. })));
    let keys = std::sync::Arc::new(EvaluationKeys::empty(&foreign_context));
    assert!(matches!(Evaluator::new(&context, keys), Err(CkksError::ContextMismatch { .. })));
}
