//! Linear maps with scalar weights, against sums of products one by one.

mod common;

use common::{Setup, small};
use fhec_ckks::linear::{ScalarEntry, ScalarMap, ScalarOptions};
use fhec_ckks::{Ciphertext, CkksError, Encoder};
use fhec_math::Scale;
use num_complex::Complex64;

/// Numbers without a pattern.
fn wave(i: usize) -> f64 {
    (i as f64 * 1.7).sin()
}

/// `outputs` rows over `inputs` ciphertexts: dense ones, a window's, one of a single weight, an empty one.
fn rows(inputs: u32, outputs: usize) -> Vec<Vec<ScalarEntry>> {
    let entry = |input: u32, j: usize| ScalarEntry { input, weight: wave(input as usize * 31 + j) };
    let row = |j: usize| -> Vec<ScalarEntry> {
        match j % 4 {
            0 | 1 => (0..inputs).map(|i| entry(i, j)).collect(),
            2 if j == 2 => vec![],
            2 => vec![entry(j as u32 % inputs, j)],
            _ => (0..5).map(|t| entry((j as u32 * 3 + t) % inputs, j)).collect(),
        }
    };
    (0..outputs).map(row).collect()
}

#[test]
fn a_map_is_its_products_added_up_and_rescaled_once() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let level = 3;
    let (one, two, out) = (Scale::pow2(40), Scale::pow2(38), Scale::pow2(39));
    let scale_of = |i: usize| if i < 6 { &one } else { &two };
    let inputs: Vec<Ciphertext> = (0..11).map(|i| s.encrypt(&[wave(i), wave(i + 50)], level, scale_of(i))).collect();
    let rows = rows(11, 150);
    let scales = (0..11).map(|i| scale_of(i).clone()).collect();
    let map = ScalarMap::new(&context, level, scales, &rows, &out).expect("encodes");
    let bias: Vec<Complex64> = (0..150).map(|j| Complex64::new(wave(7 * j), wave(j % 3 + 90 * (j % 2)))).collect();
    let list: Vec<&Ciphertext> = inputs.iter().collect();
    let got = map.apply(&s.evaluator, &list, &bias).expect("applies");
    assert_eq!(got.len(), 150);
    let sum_scale = out.mul(&Scale::prime(context.q(level).value()));
    for (j, (got, row)) in got.iter().zip(&rows).enumerate() {
        // Residue by residue the same as products one by one.
        let mut sum = s.evaluator.mul_integer(&inputs[0], 0).expect("zero").with_scale(sum_scale.clone());
        for e in row {
            let input = &inputs[e.input as usize];
            let scale = sum_scale.div(input.scale());
            s.evaluator.mul_scalar_add_assign(&mut sum, input, e.weight, &scale).expect("fits");
        }
        let want = s.evaluator.rescale(&sum).expect("a level is left");
        let want = s.evaluator.add_complex(&want, bias[j]).expect("fits");
        assert_eq!((got.level(), got.scale()), (level - 1, &out));
        assert_eq!((got.c0().data(), got.c1().data()), (want.c0().data(), want.c1().data()), "output {j}");
    }
    // And the same for every number of threads.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
    let again = pool.install(|| map.apply(&s.evaluator, &list, &bias)).expect("applies");
    assert!(got.iter().zip(&again).all(|(a, b)| a.c0().data() == b.c0().data() && a.c1().data() == b.c1().data()));
}

/// The slower ways, which are there to be measured, compute the same.
#[test]
fn other_ways_to_multiply_agree() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let (level, scale) = (3, Scale::pow2(40));
    let inputs: Vec<Ciphertext> = (0..11).map(|i| s.encrypt(&[wave(i), wave(i + 50)], level, &scale)).collect();
    let rows = rows(11, 12);
    let map = ScalarMap::new(&context, level, vec![scale.clone(); 11], &rows, &scale).expect("encodes");
    let bias: Vec<Complex64> = (0..12).map(|j| wave(7 * j).into()).collect();
    let list: Vec<&Ciphertext> = inputs.iter().collect();
    let want = map.apply(&s.evaluator, &list, &bias).expect("applies");
    let encoder = Encoder::new(&context);
    for (lazy_rescaling, scalar_encoding) in [(true, true), (true, false), (false, true), (false, false)] {
        let options = ScalarOptions { lazy_rescaling, scalar_encoding };
        let got = map.apply_with(&s.evaluator, &encoder, &list, &bias, options).expect("applies");
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!((got.level(), got.scale()), (want.level(), want.scale()));
            if lazy_rescaling {
                assert_eq!((got.c0().data(), got.c1().data()), (want.c0().data(), want.c1().data()), "{options:?}");
            }
            let (a, b) = (s.decrypt(got), s.decrypt(want));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{options:?}: {:?} {:?}", a[0], b[0]);
        }
    }
}

#[test]
fn weights_that_make_no_difference_are_left_out() {
    let context = small();
    let scale = Scale::pow2(40);
    // Inputs and outputs have one scale, so weights are encoded at q_3, about 2^40.
    let entries = [(0, 0.25), (1, 1e-14), (2, 0.0), (0, -0.25), (1, 0.5)];
    let row = entries.map(|(input, weight)| ScalarEntry { input, weight }).to_vec();
    let tiny = vec![ScalarEntry { input: 2, weight: 1e-13 }];
    let map = ScalarMap::new(&context, 3, vec![scale.clone(); 3], &[row, tiny], &scale).expect("encodes");
    assert_eq!((map.products(), map.skipped()), (1, 1));
}

#[test]
fn what_does_not_fit_is_refused() {
    let context = small();
    let mut s = Setup::new(&context, &[]);
    let scale = Scale::pow2(40);
    let of = |input, weight| vec![vec![ScalarEntry { input, weight }]];
    let new = |level, rows: &[Vec<ScalarEntry>]| ScalarMap::new(&context, level, vec![scale.clone()], rows, &scale);
    assert!(matches!(new(0, &of(0, 1.0)), Err(CkksError::LevelRange { .. })));
    assert!(matches!(new(3, &of(1, 1.0)), Err(CkksError::Parameters(_))));
    assert!(matches!(new(3, &of(0, f64::NAN)), Err(CkksError::NotFinite { .. })));
    assert!(matches!(new(3, &of(0, 1e30)), Err(CkksError::Overflow { .. })));
    let map = new(3, &of(0, 1.0)).expect("encodes");
    let (fit, low) = (s.encrypt(&[1.0], 3, &scale), s.encrypt(&[1.0], 2, &scale));
    let other = s.encrypt(&[1.0], 3, &Scale::pow2(39));
    assert!(map.apply(&s.evaluator, &[&fit], &[]).is_ok());
    assert!(matches!(map.apply(&s.evaluator, &[&low], &[]), Err(CkksError::LevelMismatch { .. })));
    assert!(matches!(map.apply(&s.evaluator, &[&other], &[]), Err(CkksError::ScaleMismatch { .. })));
    assert!(matches!(map.apply(&s.evaluator, &[&fit, &fit], &[]), Err(CkksError::Parameters(_))));
    assert!(matches!(map.apply(&s.evaluator, &[&fit], &[1.0.into(), 2.0.into()]), Err(CkksError::Parameters(_))));
    assert!(matches!(map.apply(&s.evaluator, &[&fit], &[f64::NAN.into()]), Err(CkksError::NotFinite { .. })));
}
