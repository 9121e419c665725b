//! Bootstrapping at `N = 2^16`: time on one and two threads, precision, memory.
//!
//! Makes all keys first, which takes a while and some gigabytes. `FHEC_BOOT_LOG_N=15` runs the smaller set.

#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fhec_ckks::{
    BootstrapChain, BootstrapSpec, BootstrapTarget, Bootstrapper, Ciphertext, Context, EncapsulationKeys, Encoder,
    Encryptor, EvaluationKeys, Evaluator, SecretKey, Security,
};
use fhec_math::{SecretRng, SecurityLevel};

struct Bench {
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
    secret: SecretKey,
    evaluator: Evaluator,
    keys: EncapsulationKeys,
    bootstrapper: Bootstrapper,
}

/// Peak resident memory and processor time of this process so far.
fn usage() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: f64 = stat
        .rsplit(')')
        .next()
        .map_or(0.0, |rest| rest.split_whitespace().skip(11).take(2).filter_map(|v| v.parse::<f64>().ok()).sum());
    (kib / (1 << 20) as f64, ticks / 100.0)
}

/// Reproducible values in [−1, 1).
fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

impl Bench {
    fn new() -> Self {
        let small = std::env::var("FHEC_BOOT_LOG_N").is_ok_and(|v| v == "15");
        let (chain, spec) = if small {
            (BootstrapChain::shallow(), BootstrapChain::shallow_spec())
        } else {
            (BootstrapChain::deep(), BootstrapSpec::default())
        };
        let parameters = chain.parameters(&spec).expect("primes");
        let context = Context::new(parameters, Security::Level(SecurityLevel::Bits128)).expect("parameters");
        let start = Instant::now();
        let log_slots = [context.log_n() - 1, 12];
        let bootstrapper = Bootstrapper::new(&context, spec, &log_slots).expect("bootstrapper");
        println!("matrices: {} MiB in {:.1} s", bootstrapper.bytes() >> 20, start.elapsed().as_secs_f64());
        let start = Instant::now();
        let mut rng = SecretRng::from_seed(&[1; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let request = bootstrapper.key_request();
        let weight = bootstrapper.spec().sparse_weight;
        let keys = EncapsulationKeys::generate(&secret, weight, &request.raised, &request.low, &mut rng).expect("keys");
        let evaluation = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
        println!(
            "keys: {} of {} MiB, encapsulation {} MiB, in {:.1} s; resident {:.2} GiB at most",
            request.count(),
            evaluation.bytes() >> 20,
            keys.bytes() >> 20,
            start.elapsed().as_secs_f64(),
            usage().0,
        );
        Self {
            encoder: Encoder::new(&context),
            encryptor: Encryptor::new(&context),
            evaluator: Evaluator::new(&context, Arc::new(evaluation)).expect("evaluator"),
            context,
            secret,
            keys,
            bootstrapper,
        }
    }

    fn encrypt(&self, log_slots: u32, values: &[f64]) -> Ciphertext {
        let spec = self.bootstrapper.spec();
        let plaintext = self.encoder.encode(values, spec.input_level(log_slots), &spec.input_scale).expect("encode");
        let mut rng = SecretRng::from_seed(&[2; 32]);
        let seeded = self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut rng).expect("encrypt");
        seeded.expand(&self.context).expect("expand")
    }

    fn target(&self, log_slots: u32, level: usize) -> BootstrapTarget {
        BootstrapTarget { log_slots, level, scale: self.bootstrapper.spec().input_scale.clone() }
    }

    fn run(&self, input: &Ciphertext, target: &BootstrapTarget) -> Ciphertext {
        self.bootstrapper.bootstrap(&self.evaluator, &self.keys, input, target).expect("bootstrap")
    }

    fn pair(&self, inputs: [&Ciphertext; 2], target: &BootstrapTarget) -> [Ciphertext; 2] {
        self.bootstrapper.bootstrap_pair(&self.evaluator, &self.keys, inputs, target).expect("bootstrap")
    }

    fn precision(&self) {
        let log_slots = self.context.log_n() - 1;
        let n = 1 << log_slots;
        let mut one_hot = vec![0.0; n];
        one_hot[n / 2 + 1] = 1.0;
        let vectors = [
            ("random", random(n, 1)),
            ("relu", random(n, 3).iter().map(|v| v.max(0.0)).collect()),
            ("one", vec![1.0; n]),
            ("minus one", vec![-1.0; n]),
            ("half", vec![0.5; n]),
            ("minus half", vec![-0.5; n]),
            ("one-hot", one_hot),
            ("zero", vec![0.0; n]),
        ];
        for (name, values) in vectors {
            let result =
                self.run(&self.encrypt(log_slots, &values), &self.target(log_slots, self.bootstrapper.output_level()));
            let plaintext = self.encryptor.decrypt(&self.secret, &result).expect("decrypt");
            let found = self.encoder.decode(&plaintext).expect("decode");
            let errors = found.iter().zip(&values).map(|(a, b)| (a - b).abs());
            let square: f64 = errors.clone().map(|e| e * e).sum();
            let (deviation, worst) = ((square / n as f64).sqrt(), errors.fold(0.0, f64::max));
            println!("precision, {name}: {:.2} bits, worst slot {:.2}", -deviation.log2(), -worst.log2());
        }
    }
}

fn bootstrap(c: &mut Criterion) {
    let bench = Bench::new();
    bench.precision();
    println!("resident: {:.2} GiB at most", usage().0);
    let full = bench.context.log_n() - 1;
    let top = bench.bootstrapper.output_level();
    let input = bench.encrypt(full, &random(1 << full, 1));
    let other = bench.encrypt(full, &random(1 << full, 2));
    let sparse = bench.encrypt(12, &random(1 << 12, 1));
    let mut group = c.benchmark_group("bootstrap");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(10));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("thread pool");
        let mut measure = |name: &str, f: &(dyn Fn() + Sync)| {
            pool.install(f);
            let (before, start) = (usage().1, Instant::now());
            pool.install(f);
            println!(
                "{threads} threads, {name}: {:.3} s, processor {:.2} s",
                start.elapsed().as_secs_f64(),
                usage().1 - before
            );
            group.bench_function(format!("{name}/{threads}"), |b| pool.install(|| b.iter(f)));
        };
        measure("full", &|| drop(black_box(bench.run(&input, &bench.target(full, top)))));
        measure("pair", &|| drop(black_box(bench.pair([&input, &other], &bench.target(full, top)))));
        measure("2^12 slots", &|| drop(black_box(bench.run(&sparse, &bench.target(12, top)))));
        measure("full, half the levels", &|| drop(black_box(bench.run(&input, &bench.target(full, top / 2 + 1)))));
    }
    group.finish();
    println!("resident: {:.2} GiB at most", usage().0);
}

criterion_group!(benches, bootstrap);
criterion_main!(benches);
