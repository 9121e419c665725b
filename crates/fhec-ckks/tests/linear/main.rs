//! Linear maps against dense matrix-vector products in `f64`.

mod case;

use std::sync::atomic::AtomicUsize;

use fhec_ckks::linear::{BsgsPlan, Hoisting, LinearMap, LinearOptions};
use fhec_ckks::plaintext::Plaintext;
use fhec_ckks::{Ciphertext, CkksError, Evaluator};
use fhec_math::Scale;

use case::{Case, Matrix, Random, Setup, Source, bits, inputs};

#[test]
fn random_sparse_matrices_of_every_step_and_hoisting() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    for (n1, hoisting) in [(1, Hoisting::Double), (4, Hoisting::Double), (7, Hoisting::Single), (16, Hoisting::Auto)] {
        for n1 in [n1, n1 * 4] {
            let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(20, 3);
            Case::new(&setup, matrix).step(n1).hoisting(hoisting).check(22.0);
        }
    }
}

#[test]
fn simple_matrices() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let mut identity = Matrix::new(slots, slots, 1, 1);
    let mut shift = identity.clone();
    for k in 0..slots {
        identity.entries.insert((0, 0, k, k), 1.0);
        shift.entries.insert((0, 0, k, (k + 5) % slots), -0.5);
    }
    let mut one = Matrix::new(slots, slots, 1, 1);
    one.entries.insert((0, 0, 2, slots - 1), 1.0);
    for hoisting in [Hoisting::Auto, Hoisting::Double, Hoisting::Single] {
        Case::new(&setup, identity.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, shift.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, shift.clone()).step(1).hoisting(hoisting).check(25.0);
        Case::new(&setup, one.clone()).hoisting(hoisting).check(25.0);
        Case::new(&setup, Matrix::new(slots, slots, 1, 2)).hoisting(hoisting).check(40.0);
    }
}

/// A diagonal of zeros is one like all others, wherever sums begin: first of the map, of a giant, of an output, or
/// alone.
#[test]
fn first_diagonals_of_zeros() {
    let setup = Setup::new(7);
    let slots = setup.context.slots();
    let mut rng = Random(41);
    for zeros in [vec![0], vec![0, 1, 8], vec![0, 1, 3, 8, 9, 20]] {
        let mut matrix = Matrix::new(slots, slots, 2, 2);
        for (o, i) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for index in [0, 1, 3, 8, 9, 20] {
                // The second output has no diagonal but zeros in its first block.
                let zero = zeros.contains(&index) || (o, i) == (1, 0);
                for row in 0..slots {
                    let value = if zero { 0.0 } else { rng.signed() };
                    matrix.entries.insert((o, i, row, (row + index) % slots), value);
                }
            }
        }
        for hoisting in [Hoisting::Double, Hoisting::Single] {
            for n1 in [1, 4, slots] {
                let case = Case::new(&setup, matrix.clone()).step(n1).hoisting(hoisting);
                assert_eq!(case.plan.products(), 4 * 6, "zeros are diagonals");
                case.check(22.0);
            }
        }
    }
}

#[test]
fn periods_and_folds() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    for (p, h) in [(64, 64), (1, 1), (8, 8), (slots, 16), (64, 8), (16, 64), (8, slots)] {
        let count = p.min(h).min(12);
        Case::new(&setup, Matrix::new(p, h, 1, 1).with_diagonals(count, 5)).check(20.0);
        if p.min(h) > 3 {
            // A step that does not divide the modulus.
            Case::new(&setup, Matrix::new(p, h, 1, 1).with_diagonals(count, 5)).step(3).check(20.0);
        }
    }
}

#[test]
fn blocks() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let mut matrix = Matrix::new(slots, slots, 3, 2).with_diagonals(9, 21);
    // One block is empty.
    matrix.entries.retain(|e, _| (e.0, e.1) != (1, 2));
    for hoisting in [Hoisting::Double, Hoisting::Single] {
        Case::new(&setup, matrix.clone()).step(8).hoisting(hoisting).check(20.0);
    }
    let mut case = Case::new(&setup, matrix);
    // Every sum is a group of its own.
    case.options.plaintext_window = 1;
    case.check(20.0);
}

#[test]
fn every_level_and_without_rescale() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    for level in 0..=setup.context.max_level() {
        let mut case = Case::new(&setup, Matrix::new(slots, slots, 1, 1).with_diagonals(6, 8)).step(4);
        case.level = level;
        case.options.rescale = level > 0;
        if level == 0 {
            continue;
        }
        case.check(20.0);
        case.options.rescale = false;
        // Without a rescale the diagonals carry a scale of 1/2: nothing is left of them but their signs.
        assert!(
            LinearMap::plaintext_scale(&setup.context, level, &setup.scale(), &Scale::pow2(39), false).log2() < 0.0
        );
    }
}

#[test]
fn one_hot_inputs_and_constants() {
    let setup = Setup::new(8);
    let slots = setup.context.slots();
    let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(11, 4);
    let case = Case::new(&setup, matrix.clone()).step(5);
    for hot in [0, 1, slots / 2, slots - 1] {
        let mut input = vec![0.0; slots];
        input[hot] = 1.0;
        let inputs = [input];
        let got: Vec<Vec<f64>> = case.run(&inputs).iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &matrix.apply(&inputs)) > 22.0);
    }
    for constant in [1.0, -1.0, 0.0] {
        let inputs = [vec![constant; slots]];
        let got: Vec<Vec<f64>> = case.run(&inputs).iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &matrix.apply(&inputs)) > 22.0);
    }
}

#[test]
fn bias_before_and_after_the_rescale() {
    let setup = Setup::new(8);
    let (context, slots, level) = (&setup.context, setup.context.slots(), setup.context.max_level());
    let matrix = Matrix::new(slots, slots, 1, 2).with_diagonals(5, 6);
    let plan = BsgsPlan::new(slots, &matrix.diagonals(), 4);
    let map = LinearMap::new(plan.terms(), 1, 2).unwrap();
    let evaluator = setup.evaluator(map.rotations(), level);
    // Low enough for a bias at the scale before the rescale to fit the encoder's 62 bits.
    let out_scale = Scale::pow2(21);
    let scale = LinearMap::plaintext_scale(context, level, &setup.scale(), &out_scale, true);
    let source = Source {
        encoder: &setup.encoder,
        matrix: &matrix,
        terms: plan.terms().to_vec(),
        level,
        scale: scale.clone(),
        asked: AtomicUsize::new(0),
    };
    let values = inputs(&matrix);
    let input = setup.encrypt(&values[0], level, &setup.scale());
    let bias: Vec<f64> = (0..slots).map(|k| k as f64 / slots as f64).collect();
    let before = setup.encoder.encode(&bias, level, &scale.mul(&setup.scale())).unwrap();
    let after = setup.encoder.encode(&bias, level - 1, &out_scale).unwrap();
    let apply = |bias: &[Option<Plaintext>]| {
        map.apply(&evaluator, &[&input], &source, bias, &out_scale, &LinearOptions::default())
    };
    let mut want = matrix.apply(&values);
    for (w, b) in want[1].iter_mut().zip(&bias) {
        *w += b;
    }
    for plaintext in [before, after] {
        let got: Vec<Vec<f64>> = apply(&[None, Some(plaintext)]).unwrap().iter().map(|c| setup.decrypt(c)).collect();
        assert!(bits(&got, &want) > 8.0);
    }
    let wrong = setup.encoder.encode(&bias, level, &setup.scale()).unwrap();
    assert!(apply(&[Some(wrong), None]).is_err());
    assert!(matches!(apply(&[None]), Err(CkksError::Parameters(_))));
}

#[test]
fn results_do_not_depend_on_threads() {
    let setup = Setup::new(9);
    let slots = setup.context.slots();
    let matrix = Matrix::new(slots, slots, 2, 2).with_diagonals(24, 12);
    let values = inputs(&matrix);
    for hoisting in [Hoisting::Double, Hoisting::Single] {
        let case = Case::new(&setup, matrix.clone()).step(6).hoisting(hoisting);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.run(&values))
        };
        let first = run(1);
        for threads in [2, 3] {
            for (a, b) in first.iter().zip(run(threads)) {
                assert!(a.c0() == b.c0() && a.c1() == b.c1(), "{threads} threads");
            }
        }
    }
}

#[test]
fn mismatches_are_errors() {
    let setup = Setup::new(8);
    let (context, slots, level) = (&setup.context, setup.context.slots(), setup.context.max_level());
    let matrix = Matrix::new(slots, slots, 1, 1).with_diagonals(3, 6);
    let plan = BsgsPlan::new(slots, &matrix.diagonals(), 4);
    let map = LinearMap::new(plan.terms(), 1, 1).unwrap();
    let mut backwards = plan.terms().to_vec();
    backwards.reverse();
    assert!(matches!(LinearMap::new(&backwards, 1, 1), Err(CkksError::Parameters(_))));
    assert!(matches!(LinearMap::new(plan.terms(), 1, 0), Err(CkksError::Parameters(_))));
    let scale = LinearMap::plaintext_scale(context, level, &setup.scale(), &setup.scale(), true);
    let source = Source {
        encoder: &setup.encoder,
        matrix: &matrix,
        terms: plan.terms().to_vec(),
        level,
        scale,
        asked: AtomicUsize::new(0),
    };
    let input = setup.encrypt(&inputs(&matrix)[0], level, &setup.scale());
    let options = LinearOptions::default();
    let evaluator = setup.evaluator(map.rotations(), level);
    let run = |evaluator: &Evaluator, inputs: &[&Ciphertext], scale: &Scale| {
        map.apply(evaluator, inputs, &source, &[], scale, &options).map(|_| ())
    };
    assert!(run(&evaluator, &[&input], &setup.scale()).is_ok());
    assert!(matches!(run(&evaluator, &[], &setup.scale()), Err(CkksError::Parameters(_))));
    let other = run(&evaluator, &[&input], &Scale::pow2(30));
    assert!(matches!(other, Err(CkksError::ScaleMismatch { .. })));
    let low = evaluator.drop_to_level(&input, level - 1).unwrap();
    assert!(run(&evaluator, &[&low], &setup.scale()).is_err());
    let bottom = evaluator.drop_to_level(&input, 0).unwrap();
    assert!(matches!(run(&evaluator, &[&bottom], &setup.scale()), Err(CkksError::LevelRange { .. })));
    let keyless = setup.evaluator([], level);
    assert!(matches!(run(&keyless, &[&input], &setup.scale()), Err(CkksError::NoGaloisKey { .. })));
    let short = setup.evaluator(map.rotations(), level - 1);
    assert!(matches!(run(&short, &[&input], &setup.scale()), Err(CkksError::KeyLevel { .. })));
}
