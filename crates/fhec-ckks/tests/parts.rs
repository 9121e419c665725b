//! Two real values a slot: products of the real and of the imaginary parts, against complex numbers.

mod common;

use common::{Setup, hard_vectors, random, small};
use fhec_ckks::{CkksError, KeyRequest};
use fhec_math::{Scale, conjugation_element};
use num_complex::Complex64;

/// Every pairing of vectors that have broken other libraries.
fn pairs(slots: usize) -> Vec<(String, Vec<Complex64>)> {
    let vectors = hard_vectors(slots);
    let both = |(a, x): &(&str, Vec<f64>), (b, y): &(&str, Vec<f64>)| {
        let values = x.iter().zip(y).map(|(&re, &im)| Complex64::new(re, im)).collect();
        (format!("{a} and {b}"), values)
    };
    vectors.iter().flat_map(|a| vectors.iter().step_by(3).map(move |b| both(a, b))).collect()
}

fn product(a: Complex64, b: Complex64) -> Complex64 {
    Complex64::new(a.re * b.re, a.im * b.im)
}

#[track_caller]
fn close(found: &[Complex64], expected: &[Complex64], what: &str) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
    assert!(worst < 2f64.powi(-22), "{what}: {worst:e}");
}

#[test]
fn squares_are_those_of_the_parts() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let scale = Scale::pow2(40);
    for (what, values) in pairs(context.slots()) {
        let a = s.encrypt_complex(&values, 3, &scale);
        let square = s.evaluator.square_parts(&a).expect("keys are there");
        assert_eq!((square.level(), square.scale()), (3, &Scale::pow2(82)));
        let want: Vec<Complex64> = values.iter().map(|&z| product(z, z)).collect();
        let apart = s.evaluator.rescale(&s.evaluator.relinearise(&square).expect("a key")).expect("a level");
        close(&s.decrypt_complex(&apart), &want, &what);
        let once = s.evaluator.relinearise_rescale(&square).expect("a level");
        close(&s.decrypt_complex(&once), &want, &what);
        // The same by the general product.
        let general = s.evaluator.mul_parts(&a, &a).expect("keys are there");
        let parts = |p: &fhec_ckks::Product| p.parts().map(|part| part.data().to_vec());
        assert_eq!(parts(&general), parts(&square), "{what}");
    }
}

#[test]
fn products_are_those_of_the_parts() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let (one, two) = (Scale::pow2(40), Scale::pow2(38));
    let all = pairs(context.slots());
    for ((what, x), (_, y)) in all.iter().zip(all.iter().rev()) {
        let (a, b) = (s.encrypt_complex(x, 5, &one), s.encrypt_complex(y, 5, &two));
        let made = s.evaluator.mul_parts(&a, &b).expect("keys are there");
        assert_eq!(made.scale(), &Scale::pow2(80));
        let want: Vec<Complex64> = x.iter().zip(y).map(|(&a, &b)| product(a, b)).collect();
        close(&s.decrypt_complex(&s.evaluator.relinearise_rescale(&made).expect("a level")), &want, what);
    }
}

/// A square of a sum with a bias in both parts, twice: scales stay exact.
#[test]
fn squares_of_squares() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let n = context.slots();
    let values: Vec<Complex64> =
        random(n, 11).into_iter().zip(random(n, 12)).map(|(re, im)| Complex64::new(re, im)).collect();
    let mut c = s.encrypt_complex(&values, 4, &Scale::pow2(40));
    let mut want = values;
    let bias = Complex64::new(0.25, -0.5);
    for _ in 0..2 {
        s.evaluator.add_complex_assign(&mut c, bias).expect("fits");
        let square = s.evaluator.square_parts(&c).expect("keys are there");
        c = s.evaluator.relinearise_rescale(&square).expect("a level");
        want = want.iter().map(|&z| product(z + bias, z + bias)).collect();
    }
    close(&s.decrypt_complex(&c), &want, "squares");
}

#[test]
fn what_is_missing_is_named() {
    let context = small();
    let scale = Scale::pow2(40);
    let conjugation = conjugation_element(context.log_n());
    let request = |galois: &[(u64, usize)]| KeyRequest {
        relin_level: Some(3),
        galois: galois.iter().copied().collect(),
        ..KeyRequest::default()
    };
    let mut s = Setup::with_keys(&context, &request(&[]));
    let a = s.encrypt(&[0.5], 3, &scale);
    assert!(
        matches!(s.evaluator.square_parts(&a), Err(CkksError::NoGaloisKey { element, .. }) if element == conjugation)
    );
    let mut s = Setup::with_keys(&context, &request(&[(conjugation, 2)]));
    let (a, low) = (s.encrypt(&[0.5], 3, &scale), s.encrypt(&[0.5], 2, &scale));
    assert!(matches!(s.evaluator.square_parts(&a), Err(CkksError::KeyLevel { have: 2, need: 3, .. })));
    assert!(matches!(s.evaluator.mul_parts(&a, &low), Err(CkksError::LevelMismatch { .. })));
    assert!(s.evaluator.square_parts(&low).is_ok());
    let infinite = Complex64::new(0.0, f64::INFINITY);
    assert!(matches!(s.evaluator.add_complex(&low, infinite), Err(CkksError::NotFinite { .. })));
}

/// Like all of the engine: the threads make no difference.
#[test]
fn every_number_of_threads_gives_the_same() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let values: Vec<Complex64> = (0..context.slots()).map(|i| Complex64::new(i as f64 * 1e-3, 0.5)).collect();
    let a = s.encrypt_complex(&values, 5, &Scale::pow2(40));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let square = pool.install(|| s.evaluator.square_parts(&a)).expect("keys are there");
        square.parts().map(|part| part.data().to_vec())
    };
    assert_eq!(on(1), on(3));
}
