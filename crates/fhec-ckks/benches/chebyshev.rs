//! Chebyshev series on one thread, at their least depth.

#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fhec_ckks::chebyshev::{ChebyshevPlan, eval};
use fhec_ckks::{
    Ciphertext, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, InsecureToken, KeyRequest, ParameterSpec,
    SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, ntt_primes_near};

struct Bench {
    evaluator: Evaluator,
    input: Ciphertext,
    plan: ChebyshevPlan,
    scale: Scale,
}

impl Bench {
    /// A series of this degree on a chain of `limbs` primes of 40 bits, with digits of three limbs.
    fn new(log_n: u32, limbs: usize, degree: usize, odd: bool) -> Self {
        let q: Vec<u64> = ntt_primes_near(40.0, log_n).take(limbs).collect();
        let p = ntt_primes_near(44.0, log_n).take(3).collect();
        let digits = (0..limbs.div_ceil(3)).map(|d| (limbs - 3 * d).min(3)).collect();
        let spec = ParameterSpec { log_n, q, p, digits };
        let context = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).expect("parameters");
        let level = context.max_level();
        let mut rng = SecretRng::from_seed(&[1; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let request = KeyRequest { relin_level: Some(level), ..KeyRequest::default() };
        let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
        let scale = Scale::pow2(40);
        let values: Vec<f64> = (0..256).map(|k| f64::from(k) / 128.0 - 1.0).collect();
        let plaintext = Encoder::new(&context).encode(&values, level, &scale).expect("encode");
        let seeded = Encryptor::new(&context).encrypt_sk(&secret, &plaintext, &mut rng).expect("encrypt");
        let coefficients: Vec<f64> =
            (0..=degree).map(|k| if odd && k % 2 == 0 { 0.0 } else { 1.0 / (k + 1) as f64 }).collect();
        Self {
            evaluator: Evaluator::new(&context, Arc::new(keys)).expect("evaluator"),
            input: seeded.expand(&context).expect("expand"),
            plan: ChebyshevPlan::new(&coefficients).expect("plan"),
            scale,
        }
    }
}

fn chebyshev(c: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("thread pool");
    let mut group = c.benchmark_group("chebyshev");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for (log_n, limbs, degree, odd) in
        [(13, 5, 7, false), (14, 8, 31, false), (15, 8, 63, true), (15, 12, 127, false), (16, 16, 63, false)]
    {
        let bench = Bench::new(log_n, limbs, degree, odd);
        println!("degree {degree}: {:?}", bench.plan.cost());
        let kind = if odd { "odd degree" } else { "degree" };
        group.bench_function(format!("2^{log_n}, {limbs} limbs, {kind} {degree}"), |b| {
            let run = || black_box(eval(&bench.evaluator, &bench.input, &bench.plan, &bench.scale).expect("eval"));
            pool.install(|| b.iter(run));
        });
    }
    group.finish();
}

criterion_group!(benches, chebyshev);
criterion_main!(benches);
