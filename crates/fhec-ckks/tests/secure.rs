//! The whole road at 128-bit parameters, N = 2^13: what a shallow network uses.

mod common;

use std::sync::Arc;

use common::{Setup, hard_vectors, spec, worst_bits};
use fhec_ckks::{Context, Security, container};
use fhec_math::{Scale, SecurityLevel};

#[test]
fn a_polynomial_and_a_rotation_at_128_bits() {
    let spec = spec(13, &[36, 30, 30, 30, 30], &[37], &[1; 5]);
    let context = Context::new(spec, Security::Level(SecurityLevel::Bits128)).expect("secure parameters");
    let mut s = Setup::new(&context, &[1, 100]);
    let mut file = Vec::new();
    container::write_evaluation_keys(s.evaluator.keys(), &[1; 32], &mut file).expect("write");
    let keys = container::read_evaluation_keys(&file, &context, &[1; 32]).expect("read");
    let e = fhec_ckks::Evaluator::new(&context, Arc::new(keys)).expect("evaluator");
    let slots = context.slots();
    for (name, x) in hard_vectors(slots) {
        // rot_100((x² − ½)²·x) over three levels.
        let a = s.encrypt(&x, 4, &Scale::pow2(30));
        let square = e.relinearise_rescale(&e.square(&a).expect("square")).expect("relinearise");
        let shifted = e.add_scalar(&square, -0.5).expect("add");
        let fourth = e.relinearise_rescale(&e.square(&shifted).expect("square")).expect("relinearise");
        let x2 = e.drop_to_level(&a, fourth.level()).expect("drop");
        let product = e.relinearise_rescale(&e.mul(&fourth, &x2).expect("mul")).expect("relinearise");
        let rotated = e.rotate(&product, 100).expect("rotate");
        assert_eq!(rotated.level(), 1);
        let expected: Vec<f64> = (0..slots)
            .map(|i| {
                let x = x[(i + 100) % slots];
                (x * x - 0.5).powi(2) * x
            })
            .collect();
        let bits = worst_bits(&s.decrypt(&rotated), &expected);
        assert!(bits > 13.0, "{name}: {bits:.1} bits in the worst slot");
    }
}
