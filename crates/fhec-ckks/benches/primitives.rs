//! Encoding, encryption, multiplication and rotation at three sizes.
//!
//! `cargo bench -p fhec-ckks --bench primitives`; `RAYON_NUM_THREADS=1` for one thread.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fhec_ckks::{
    Context, Encoder, Encryptor, EvaluationKeys, Evaluator, KeyRequest, ParameterSpec, SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, SecurityLevel, galois_element, ntt_primes_near};

/// Number of limbs of about the same size.
struct Group {
    bits: u32,
    count: usize,
}

/// A 128-bit secure context.
fn context(log_n: u32, q: &[Group], p: Group, digits: &[usize]) -> Arc<Context> {
    let mut used: Vec<u64> = Vec::new();
    let mut pick = |group: &Group| -> Vec<u64> {
        let primes: Vec<u64> =
            ntt_primes_near(group.bits, log_n).filter(|c| !used.contains(c)).take(group.count).collect();
        used.extend(&primes);
        primes
    };
    let p = pick(&p);
    let q = q.iter().flat_map(&mut pick).collect();
    let spec = ParameterSpec { log_n, q, p, digits: digits.to_vec() };
    Context::new(spec, Security::Level(SecurityLevel::Bits128)).expect("secure parameters")
}

fn group(bits: u32, count: usize) -> Group {
    Group { bits, count }
}

/// Inside the pool: calls from outside would hand every parallel step over to another thread.
fn primitives(c: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().build().expect("a pool");
    // Criterion itself cannot be sent to another thread, so only the measured functions go there.
    let inside = |f: &mut (dyn FnMut() + Send)| pool.install(f);
    let cases = [
        // Six limbs and one special prime of 30 bits: shallow networks.
        ("2^13", context(13, &[group(29, 6)], group(30, 1), &[1; 6])),
        // 430 bits: seven limbs, two digits of up to four.
        ("2^14", context(14, &[group(40, 7)], group(46, 3), &[3, 3, 1])),
        // Set A of the deep parameters: 29 limbs and nine special primes of 50 bits.
        (
            "2^16",
            context(
                16,
                &[group(49, 1), group(48, 2), group(40, 14), group(48, 8), group(45, 4)],
                group(49, 9),
                &[10, 10, 9],
            ),
        ),
    ];
    for (name, context) in cases {
        let level = context.max_level();
        let mut rng = SecretRng::from_seed(&[1; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let galois = (1..=8).map(|k| (galois_element(k, context.log_n()), level)).collect();
        let request = KeyRequest { relin_level: Some(level), galois, ..KeyRequest::default() };
        let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
        let evaluator = Evaluator::new(&context, Arc::new(keys)).expect("evaluator");
        let encoder = Encoder::new(&context);
        let encryptor = Encryptor::new(&context);
        let scale = Scale::pow2(29);
        let values: Vec<f64> = (0..context.slots()).map(|i| (i as f64).sin()).collect();
        let plaintext = encoder.encode(&values, level, &scale).expect("encode");
        let a = encryptor.encrypt_sk(&secret, &plaintext, &mut rng).expect("encrypt");
        let a = a.expand(&context).expect("expand");
        let product = evaluator.mul(&a, &a).expect("mul");

        let mut bench = c.benchmark_group("primitives");
        bench.sample_size(if context.log_n() > 14 { 10 } else { 30 });
        let mut run = |what: &str, f: &mut (dyn FnMut() + Send)| {
            bench.bench_function(BenchmarkId::new(what, name), |b| {
                b.iter_custom(|iterations| {
                    let mut elapsed = Duration::ZERO;
                    inside(&mut || {
                        let start = Instant::now();
                        (0..iterations).for_each(|_| f());
                        elapsed = start.elapsed();
                    });
                    elapsed
                });
            });
        };
        run("encode", &mut || drop(encoder.encode(&values, level, &scale)));
        run("encode a constant", &mut || drop(encoder.encode(&[0.5], level, &scale)));
        run("encrypt", &mut || drop(encryptor.encrypt_sk(&secret, &plaintext, &mut rng)));
        run("decrypt and decode", &mut || {
            drop(encryptor.decrypt(&secret, &a).and_then(|p| encoder.decode(&p)));
        });
        run("mul, relinearise, rescale", &mut || {
            drop(evaluator.mul(&a, &a).and_then(|p| evaluator.relinearise_rescale(&p)));
        });
        run("relinearise", &mut || drop(evaluator.relinearise(&product)));
        run("rescale", &mut || drop(evaluator.rescale(&a)));
        run("rotate", &mut || drop(evaluator.rotate(&a, 1)));
        run("hoist and rotate 8 times", &mut || {
            let hoisted = evaluator.hoist(&a).expect("hoist");
            drop(evaluator.rotate_hoisted_all(&hoisted, &[1, 2, 3, 4, 5, 6, 7, 8]));
        });
    }
}

criterion_group!(benches, primitives);
criterion_main!(benches);
