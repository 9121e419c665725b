//! Rotations that have no key and are made of two others'.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Setup, random, small, worst_bits};
use fhec_ckks::linear::{DiagonalId, DiagonalSource, Hoisting, LinearMap, LinearOptions};
use fhec_ckks::plaintext::QpPlaintext;
use fhec_ckks::{CkksError, Encoder, Evaluator};
use fhec_math::{Scale, galois_element};

/// Keys that there are.
const KEYS: [i64; 3] = [1, 2, 8];
/// Rotations that are made of two of them.
const COMPOSED: [(i64, [i64; 2]); 3] = [(3, [1, 2]), (16, [8, 8]), (10, [8, 2])];
/// Babies and giants of a map: some have keys, some have not, some are none.
const SPLITS: [(i64, i64); 8] = [(0, 0), (0, 1), (0, 3), (8, 0), (8, 3), (10, 2), (16, 0), (16, 3)];

fn setup() -> (Setup, Evaluator) {
    let context = small();
    let setup = Setup::new(&context, &KEYS);
    let element = |r: i64| galois_element(r, context.log_n());
    let composed = COMPOSED.iter().map(|&(r, of)| (element(r), of.map(element))).collect();
    let evaluator = setup.evaluator.clone().composing(composed).expect("they fit");
    (setup, evaluator)
}

fn rotated(values: &[f64], by: i64) -> Vec<f64> {
    let n = values.len() as i64;
    (0..n).map(|i| values[(i + by).rem_euclid(n) as usize]).collect()
}

#[test]
fn rotations() {
    let (mut setup, evaluator) = setup();
    let (level, scale) = (setup.context.max_level(), Scale::pow2(40));
    let mut one_hot = vec![0.0; setup.context.slots()];
    one_hot[5] = 1.0;
    for values in [random(setup.context.slots(), 3), one_hot, vec![-1.0; setup.context.slots()]] {
        let ciphertext = setup.encrypt(&values, level, &scale);
        let hoisted = evaluator.hoist(&ciphertext).expect("of this context");
        let steps = [0, 3, 1, 16, 10];
        let together = evaluator.rotate_hoisted_all(&hoisted, &steps).expect("all can be made");
        for (step, hoisted) in steps.into_iter().zip(&together) {
            let single = evaluator.rotate(&ciphertext, step).expect("can be made");
            for found in [&single, hoisted] {
                let bits = worst_bits(&setup.decrypt(found), &rotated(&values, step));
                assert!(bits > 22.0, "rotation by {step}: {bits:.1} bits");
            }
        }
    }
    let before = evaluator.key_switches().rotations;
    let ciphertext = setup.encrypt(&[1.0], level, &scale);
    evaluator.rotate(&ciphertext, 10).expect("can be made");
    assert_eq!(evaluator.key_switches().rotations, before + 2, "both are counted");
}

struct Source<'a> {
    encoder: &'a Encoder,
    terms: Vec<DiagonalId>,
    /// Diagonal of every term, rotated back by its giant.
    values: Vec<Vec<f64>>,
    level: usize,
    scale: Scale,
}

impl DiagonalSource for Source<'_> {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        Ok(Arc::new(self.encoder.encode_qp(&self.values[index], self.level, &self.scale)?))
    }
}

#[test]
fn linear_maps() {
    let (mut setup, evaluator) = setup();
    let (level, scale) = (setup.context.max_level(), Scale::pow2(40));
    let slots = setup.context.slots();
    let values = random(slots, 11);
    let terms: Vec<DiagonalId> =
        SPLITS.iter().map(|&(giant, baby)| DiagonalId { giant, out_block: 0, in_block: 0, baby }).collect();
    let diagonals: Vec<Vec<f64>> = (0..terms.len() as u64).map(|seed| random(slots, 100 + seed)).collect();
    let mut expected = vec![0.0; slots];
    for (&(giant, baby), diagonal) in SPLITS.iter().zip(&diagonals) {
        let product: Vec<f64> = diagonal.iter().zip(rotated(&values, baby)).map(|(d, v)| d * v).collect();
        expected.iter_mut().zip(rotated(&product, giant)).for_each(|(sum, v)| *sum += v);
    }
    let map = LinearMap::new(&terms, 1, 1).expect("sorted");
    let input = setup.encrypt(&values, level, &scale);
    for hoisting in [Hoisting::Single, Hoisting::Double] {
        // All diagonals at once, and a sum at a time.
        for plaintext_window in [usize::MAX, 1] {
            let options = LinearOptions { hoisting, plaintext_window, ..LinearOptions::default() };
            let own = LinearMap::plaintext_scale(&setup.context, level, &scale, &scale, options.rescale);
            let source =
                Source { encoder: &setup.encoder, terms: terms.clone(), values: diagonals.clone(), level, scale: own };
            let out = map.apply(&evaluator, &[&input], &source, &[], &scale, &options).expect("all can be made");
            let bits = worst_bits(&setup.decrypt(&out[0]), &expected);
            assert!(bits > 20.0, "{hoisting:?}, window {plaintext_window}: {bits:.1} bits");
        }
    }
}

#[test]
fn what_does_not_compose_is_refused() {
    let context = small();
    let setup = Setup::new(&context, &KEYS);
    let element = |r: i64| galois_element(r, context.log_n());
    let composing = |list: &[(i64, [i64; 2])]| {
        let map: BTreeMap<_, _> = list.iter().map(|&(r, of)| (element(r), of.map(element))).collect();
        setup.evaluator.clone().composing(map)
    };
    assert!(matches!(composing(&[(3, [1, 1])]), Err(CkksError::Parameters(_))), "another rotation");
    assert!(matches!(composing(&[(3, [3, 0])]), Err(CkksError::Parameters(_))), "itself and nothing");
    assert!(matches!(composing(&[(3, [1, 2]), (4, [3, 1])]), Err(CkksError::Parameters(_))), "in two steps");
    // Parts without a key are found when they are used.
    let evaluator = composing(&[(5, [1, 4])]).expect("that is the rotation");
    let mut setup = Setup::new(&context, &KEYS);
    let ciphertext = setup.encrypt(&[1.0], context.max_level(), &Scale::pow2(40));
    assert!(matches!(evaluator.rotate(&ciphertext, 5), Err(CkksError::NoGaloisKey { .. })));
}
