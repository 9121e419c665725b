//! Whole bootstraps of a small ring.

use super::*;

#[test]
fn every_number_of_slots_survives_a_bootstrap() {
    for setup in [Setup::small(&ALL), Setup::low(&ALL)] {
        every_number_of_slots(&setup);
    }
}

fn every_number_of_slots(setup: &Setup) {
    for log_slots in ALL {
        let values = random(1 << log_slots, 8);
        let input = setup.input(log_slots, &real(&values));
        let target = setup.target(log_slots);
        let result = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &target).unwrap();
        assert_eq!((result.level(), result.scale()), (target.level, &target.scale));
        let found = setup.slots(&result);
        let expected: Vec<f64> = (0..512).map(|k| values[k % values.len()]).collect();
        let found_re: Vec<f64> = found.iter().map(|z| z.re).collect();
        let error = worst(&found_re, &expected);
        assert!(error < 2f64.powi(-17), "2^{log_slots} slots: 2^{}", error.log2());
        assert!(found.iter().all(|z| z.im.abs() < 2f64.powi(-17)));
    }
}

#[test]
fn hard_vectors_survive_a_bootstrap() {
    let setup = Setup::small(&[9]);
    let mut one_hot = vec![0.0; 512];
    one_hot[257] = 1.0;
    let relu: Vec<f64> = random(512, 9).iter().map(|v| v.max(0.0)).collect();
    let signs: Vec<f64> = random(512, 10).iter().map(|v| v.signum()).collect();
    let vectors = [
        ("zero", vec![0.0; 512]),
        ("half", vec![0.5; 512]),
        ("minus half", vec![-0.5; 512]),
        ("one", vec![1.0; 512]),
        ("minus one", vec![-1.0; 512]),
        ("one-hot", one_hot),
        ("relu", relu),
        ("signs", signs),
        ("random", random(512, 11)),
    ];
    for (name, values) in vectors {
        let input = setup.input(9, &real(&values));
        let result = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &setup.target(9)).unwrap();
        let found: Vec<f64> = setup.slots(&result).iter().map(|z| z.re).collect();
        let square: f64 = found.iter().zip(&values).map(|(a, b)| (a - b).powi(2)).sum();
        let deviation = (square / 512.0).sqrt();
        let error = worst(&found, &values);
        println!("{name}: std 2^{:.2}, worst 2^{:.2}", deviation.log2(), error.log2());
        assert!(deviation < 2f64.powi(-18), "{name}: 2^{}", deviation.log2());
        assert!(error < 2f64.powi(-17), "{name}: 2^{}", error.log2());
    }
}

#[test]
fn pairs_come_out_apart() {
    let setup = Setup::low(&[4, 9]);
    for log_slots in [4, 9] {
        let n = 1 << log_slots;
        let values = [random(n, 12), random(n, 13)];
        let inputs = values.each_ref().map(|v| setup.input(log_slots, &real(v)));
        let target = setup.target(log_slots);
        let results =
            setup.bootstrapper.bootstrap_pair(&setup.evaluator, &setup.keys, inputs.each_ref(), &target).unwrap();
        for (result, values) in results.iter().zip(&values) {
            assert_eq!((result.level(), result.scale()), (target.level, &target.scale));
            let found: Vec<f64> = setup.slots(result).iter().map(|z| z.re).collect();
            let expected: Vec<f64> = (0..512).map(|k| values[k % n]).collect();
            assert!(worst(&found, &expected) < 2f64.powi(-17), "2^{log_slots} slots");
        }
    }
}

#[test]
fn every_split_bootstraps() {
    let values = random(512, 16);
    let splits: [(Vec<Vec<u32>>, Vec<u32>); 6] = [
        (vec![vec![3], vec![3, 3]], vec![3, 3, 3]),
        (vec![vec![3, 3], vec![3]], vec![3, 3, 3]),
        (vec![vec![5], vec![4]], vec![5, 4]),
        (vec![vec![1, 3], vec![4, 1]], vec![1, 8]),
        (vec![vec![2], vec![2], vec![5]], vec![4, 3, 2]),
        (vec![vec![3, 1, 2], vec![3]], vec![2, 1, 3, 1, 2]),
    ];
    for (slots_to_coeffs, coeffs_to_slots) in splits {
        let spec = BootstrapSpec { slots_to_coeffs, coeffs_to_slots, least_ring: 5, ..BootstrapSpec::default() };
        let name = format!("{:?} {:?}", spec.slots_to_coeffs, spec.coeffs_to_slots);
        let setup = Setup::new(&small_chain(), spec, &[7, 9]);
        for log_slots in [7, 9] {
            let values = &values[..1 << log_slots];
            let input = setup.input(log_slots, &real(values));
            let target = setup.target(log_slots);
            let result = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &target).unwrap();
            let error = worst(&setup.slots(&result)[..values.len()].iter().map(|z| z.re).collect::<Vec<_>>(), values);
            println!("{name}, 2^{log_slots} slots: 2^{:.2}", error.log2());
            // Unequal numbers of matrices on the levels are no worse than equal ones.
            assert!(error < 2f64.powi(-17), "{name}, 2^{log_slots} slots: 2^{}", error.log2());
        }
    }
}

#[test]
fn beyond_the_range_the_error_is_that_of_the_sine() {
    let setup = Setup::small(&[9]);
    let values: Vec<f64> = (0..512).map(|k| [1.0, 1.5, -2.0, 0.25][k % 4]).collect();
    let input = setup.input(9, &real(&values));
    let result = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &setup.target(9)).unwrap();
    let slope = setup.spec().slope();
    for (z, x) in setup.slots(&result).iter().zip(&values) {
        let angle = std::f64::consts::TAU / 1024.0;
        let sine = (x * angle).sin() / angle * slope;
        assert!((z.re - sine).abs() < 2f64.powi(-19), "{x}: {} {sine}", z.re);
        assert!((sine - x).abs() < 6.58 * x.abs().powi(3).max(0.25) * 2f64.powi(-20));
    }
}

#[test]
fn lower_targets_and_other_scales() {
    let setup = Setup::low(&[5, 9]);
    for (log_slots, level) in [(9, 4), (9, 3), (9, 2), (9, 1), (9, 0), (5, 2)] {
        let values = random(1 << log_slots, 14);
        // Twice the expected scale leaves room for half of the range.
        let half: Vec<f64> = values.iter().map(|v| v / 2.0).collect();
        let input = setup.encrypt(&real(&half), setup.context.max_level(), &Scale::pow2(41));
        let scale = Scale::prime(setup.context.q(3).value());
        let target = BootstrapTarget { log_slots, level, scale };
        let before = setup.evaluator.key_switches();
        let result = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &target).unwrap();
        assert_ne!(setup.evaluator.key_switches(), before, "switches on a part of the chain are counted");
        assert_eq!((result.level(), result.scale()), (target.level, &target.scale));
        let found: Vec<f64> = setup.slots(&result).iter().map(|z| z.re).collect();
        let expected: Vec<f64> = (0..512).map(|k| half[k % half.len()]).collect();
        assert!(worst(&found, &expected) < 2f64.powi(-17), "level {level}");
    }
}

fn deviation(found: &[Complex64], expected: &[f64]) -> f64 {
    let square: f64 = found.iter().zip(expected).map(|(z, x)| (z.re - x).powi(2)).sum();
    (square / expected.len() as f64).sqrt()
}

#[test]
fn arcsine_and_a_second_bootstrap_are_more_precise() {
    let values = random(512, 20);
    let bootstrap = |spec: BootstrapSpec| {
        let setup = Setup::new(&small_chain(), spec, &[9]);
        let input = setup.input(9, &real(&values));
        let target = setup.target(9);
        let once = setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &target).unwrap();
        let twice = setup.bootstrapper.bootstrap_twice(&setup.evaluator, &setup.keys, &input, &target, 12).unwrap();
        assert_eq!((twice.level(), twice.scale()), (target.level, &target.scale));
        [once, twice].map(|result| deviation(&setup.slots(&result), &values).log2())
    };
    let [plain, twice] = bootstrap(small_spec());
    let [arcsine, _] = bootstrap(BootstrapSpec { arcsine: true, log_message_ratio: 8, ..small_spec() });
    println!("std: sine 2^{plain:.2}, twice 2^{twice:.2}, arcsine 2^{arcsine:.2}");
    assert!(plain < -19.5 && arcsine < plain - 2.0 && twice < -26.0, "{plain} {arcsine} {twice}");
}

#[test]
fn wrong_operands_are_refused() {
    let setup = Setup::small(&[9]);
    let bootstrap = |input: &Ciphertext, target: &BootstrapTarget| {
        setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, input, target).map(|_| ())
    };
    let input = setup.input(9, &real(&[0.5]));
    let low = setup.evaluator.drop_to_level(&input, 1).unwrap();
    assert!(matches!(bootstrap(&low, &setup.target(9)), Err(CkksError::LevelRange { level: 1, min: 2, .. })));
    assert!(matches!(bootstrap(&input, &setup.target(8)), Err(CkksError::Parameters(_))));
    let high = BootstrapTarget { level: 6, ..setup.target(9) };
    assert!(matches!(bootstrap(&input, &high), Err(CkksError::LevelRange { level: 6, max: 5, .. })));
    assert!(Bootstrapper::new(&setup.context, small_spec(), &[10]).is_err());
    let twice = |target: &BootstrapTarget, gain| {
        setup.bootstrapper.bootstrap_twice(&setup.evaluator, &setup.keys, &input, target, gain).map(|_| ())
    };
    let scaled = BootstrapTarget { scale: Scale::pow2(39), ..setup.target(9) };
    assert!(matches!(twice(&scaled, 8), Err(CkksError::ScaleMismatch { .. })));
    let low = BootstrapTarget { level: 1, ..setup.target(9) };
    assert!(matches!(twice(&low, 8), Err(CkksError::LevelRange { level: 1, .. })));
    assert!(matches!(twice(&setup.target(9), 31), Err(CkksError::Parameters(_))));
    let bare = Evaluator::new(&setup.context, Arc::new(EvaluationKeys::empty(&setup.context))).unwrap();
    let without = setup.bootstrapper.bootstrap(&bare, &setup.keys, &input, &setup.target(9));
    assert!(matches!(without, Err(CkksError::NoGaloisKey { .. })));
    let other = Setup::new(&BootstrapChain { message_levels: 2, ..small_chain() }, small_spec(), &[9]);
    let foreign = other.input(9, &real(&[0.5]));
    assert!(matches!(bootstrap(&foreign, &setup.target(9)), Err(CkksError::ContextMismatch { .. })));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let setup = Setup::low(&[6, 9]);
    for log_slots in [6, 9] {
        let input = setup.input(log_slots, &real(&random(1 << log_slots, 15)));
        let run = |threads: usize, level: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let target = BootstrapTarget { level, ..setup.target(log_slots) };
            pool.install(|| setup.bootstrapper.bootstrap(&setup.evaluator, &setup.keys, &input, &target).unwrap())
        };
        for level in [5, 3] {
            let (one, two) = (run(1, level), run(2, level));
            assert_eq!(one.c0(), two.c0());
            assert_eq!(one.c1(), two.c1());
        }
    }
}
