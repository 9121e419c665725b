//! Encrypted Chebyshev series against Clenshaw's recurrence.

mod common;

use std::sync::Arc;

use common::{Setup, insecure, random};
use fhec_ckks::chebyshev::{ChebyshevPlan, Schedule, clenshaw, depth_of_degree, eval};
use fhec_ckks::{Ciphertext, CkksError, Context, KeyRequest};
use fhec_math::Scale;

const LOG_SCALE: i64 = 40;

/// Seven levels of 40 bits over one of 49.
fn context() -> Arc<Context> {
    insecure(9, &[49, 40, 40, 40, 40, 40, 40, 40], &[48, 48, 48], &[3, 3, 2])
}

fn setup() -> Setup {
    let context = context();
    let request = KeyRequest { relin_level: Some(context.max_level()), ..KeyRequest::default() };
    Setup::with_keys(&context, &request)
}

/// Coefficients with `Σ|c_k| = 1`; `keep` says which are not zero.
fn series(degree: usize, keep: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut c = random(degree + 1, degree as u64 + 1);
    c.iter_mut().enumerate().for_each(|(k, c)| *c *= f64::from(u8::from(keep(k))));
    c[degree] = 0.5;
    let norm: f64 = c.iter().map(|c| c.abs()).sum();
    c.iter().map(|c| c / norm).collect()
}

/// Edge values first, then random ones.
fn values(slots: usize) -> Vec<f64> {
    let mut v = random(slots, 17);
    v[..8].copy_from_slice(&[1.0, -1.0, 0.0, 0.5, -0.5, 0.999, -0.999, 1e-6]);
    v
}

fn check(setup: &mut Setup, c: &[f64], values: &[f64], level: usize, out_scale: &Scale) -> Ciphertext {
    let plan = ChebyshevPlan::new(c).unwrap();
    let degree = plan.degree();
    let input = setup.encrypt(values, level, &Scale::pow2(LOG_SCALE));
    let output = eval(&setup.evaluator, &input, &plan, out_scale).unwrap();
    assert_eq!(output.level(), level - depth_of_degree(degree), "degree {degree}");
    assert_eq!(output.scale(), out_scale);
    let got = setup.decrypt(&output);
    let worst =
        got.iter().enumerate().map(|(k, y)| (y - clenshaw(c, values[k % values.len()])).abs()).fold(0.0, f64::max);
    // |T_k'| is at most k², and rounding errors of the levels enter like errors of the powers.
    let slope: f64 = c.iter().enumerate().map(|(k, c)| (k * k) as f64 * c.abs()).sum();
    let bound = (9.0 - out_scale.log2().min(40.0)).exp2() * (1.0 + slope);
    assert!(worst < bound, "degree {degree}: error 2^{:.1}, bound 2^{:.1}", worst.log2(), bound.log2());
    output
}

#[test]
fn every_degree_at_its_least_depth() {
    let mut setup = setup();
    let v = values(setup.context.slots());
    for degree in 1..=127 {
        let c = series(degree, |_| true);
        check(&mut setup, &c, &v, depth_of_degree(degree), &Scale::pow2(LOG_SCALE));
    }
}

/// The degrees of eight and of nine levels.
#[test]
fn the_highest_degrees() {
    let mut primes = vec![49];
    primes.extend([40; 9]);
    let context = insecure(9, &primes, &[48, 48, 48], &[3, 3, 3, 1]);
    let request = KeyRequest { relin_level: Some(context.max_level()), ..KeyRequest::default() };
    let mut setup = Setup::with_keys(&context, &request);
    let v = values(setup.context.slots());
    for degree in [128, 255, 256, 511] {
        let c = series(degree, |_| true);
        check(&mut setup, &c, &v, depth_of_degree(degree), &Scale::pow2(LOG_SCALE));
    }
}

#[test]
fn odd_even_and_sparse_series() {
    let mut setup = setup();
    let v = values(setup.context.slots());
    let top = setup.context.max_level();
    for degree in [2, 3, 7, 8, 15, 27, 30, 31, 62, 63, 64, 101, 126, 127] {
        check(&mut setup, &series(degree, |k| k % 2 == degree % 2), &v, top, &Scale::pow2(LOG_SCALE));
        check(&mut setup, &series(degree, |k| k % 7 == 3), &v, top, &Scale::pow2(LOG_SCALE));
        check(&mut setup, &series(degree, |_| false), &v, top, &Scale::pow2(LOG_SCALE));
    }
}

#[test]
fn target_scales_are_met_exactly() {
    let mut setup = setup();
    let v = values(setup.context.slots());
    let q = Scale::prime(setup.context.q(3).value());
    for target in [Scale::pow2(40), Scale::pow2(38), q.clone(), Scale::pow2(80).div(&q)] {
        for degree in [1, 2, 5, 12, 31] {
            check(&mut setup, &series(degree, |_| true), &v, 6, &target);
        }
    }
}

#[test]
fn constant_inputs_and_few_slots() {
    let mut setup = setup();
    let c = series(13, |_| true);
    for x in [1.0, -1.0, 0.0, 0.25] {
        check(&mut setup, &c, &[x], 5, &Scale::pow2(LOG_SCALE));
    }
    let v = values(16);
    check(&mut setup, &c, &v, 5, &Scale::pow2(LOG_SCALE));
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut setup = setup();
    let v = values(setup.context.slots());
    let plan = ChebyshevPlan::new(&series(21, |_| true)).unwrap();
    let input = setup.encrypt(&v, 6, &Scale::pow2(LOG_SCALE));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| eval(&setup.evaluator, &input, &plan, &Scale::pow2(LOG_SCALE)).unwrap())
    };
    let first = run(1);
    for threads in [2, 3] {
        let other = run(threads);
        assert!(first.c0() == other.c0() && first.c1() == other.c1(), "{threads} threads");
    }
}

#[test]
fn schedule_names_the_target_last() {
    let context = context();
    let plan = ChebyshevPlan::new(&series(20, |_| true)).unwrap();
    let (input, output) = (Scale::pow2(40), Scale::pow2(37));
    let schedule = Schedule::new(&context, &plan, 7, &input, &output).unwrap();
    assert_eq!(schedule.node_scales().last(), Some(&output));
    assert_eq!(schedule.node_scales().len(), plan.nodes().len());
    // Every scale stays near the target: precision is the same everywhere.
    for scale in schedule.power_scales().iter().chain(schedule.node_scales()) {
        assert!((36.5..40.5).contains(&scale.log2()), "{scale}");
    }
}

#[test]
fn refusals() {
    let mut setup = setup();
    let plan = ChebyshevPlan::new(&series(9, |_| true)).unwrap();
    let low = setup.encrypt(&[0.5], 3, &Scale::pow2(LOG_SCALE));
    let result = eval(&setup.evaluator, &low, &plan, &Scale::pow2(LOG_SCALE));
    assert!(matches!(result, Err(CkksError::LevelRange { level: 3, min: 4, .. })));
    let context = context();
    let mut keyless = Setup::with_keys(&context, &KeyRequest::default());
    let input = keyless.encrypt(&[0.5], 4, &Scale::pow2(LOG_SCALE));
    let result = eval(&keyless.evaluator, &input, &plan, &Scale::pow2(LOG_SCALE));
    assert!(matches!(result, Err(CkksError::NoRelinKey { .. })));
    let huge = ChebyshevPlan::new(&[0.0, f64::MAX]).unwrap();
    let result = eval(&keyless.evaluator, &input, &huge, &Scale::pow2(LOG_SCALE));
    assert!(matches!(result, Err(CkksError::Overflow { .. })));
}
