//! Linear maps on one thread, diagonals encoded beforehand.

#![allow(missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fhec_ckks::linear::{
    BsgsPlan, BsgsWeights, DiagonalId, DiagonalIndex, DiagonalSource, Hoisting, LinearMap, LinearOptions,
};
use fhec_ckks::{
    Ciphertext, CkksError, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, InsecureToken, KeyRequest,
    ParameterSpec, QpPlaintext, SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, ntt_primes_near};

struct Cached {
    terms: Vec<DiagonalId>,
    plaintexts: Vec<Arc<QpPlaintext>>,
}

impl DiagonalSource for Cached {
    fn diagonals(&self) -> &[DiagonalId] {
        &self.terms
    }

    fn plaintext(&self, index: usize) -> Result<Arc<QpPlaintext>, CkksError> {
        Ok(Arc::clone(&self.plaintexts[index]))
    }

    fn resident(&self) -> bool {
        true
    }
}

struct Parameters {
    log_n: u32,
    /// Bits and number of the chain primes.
    chain: (u32, usize),
    /// Bits and number of the special primes.
    special: (u32, usize),
    digits: Vec<usize>,
}

struct Bench {
    context: Arc<Context>,
    evaluator: Evaluator,
    input: Ciphertext,
    map: LinearMap,
    source: Cached,
    scale: Scale,
}

impl Bench {
    fn new(parameters: &Parameters, period: usize, indices: impl Iterator<Item = i64>, weights: &BsgsWeights) -> Self {
        let Parameters { log_n, chain, special, digits } = parameters;
        let mut q: Vec<u64> = ntt_primes_near(chain.0, *log_n).take(chain.1).collect();
        let p: Vec<u64> = ntt_primes_near(special.0, *log_n).filter(|p| !q.contains(p)).take(special.1).collect();
        q.sort_unstable();
        let spec = ParameterSpec { log_n: *log_n, q, p, digits: digits.clone() };
        let context = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).expect("parameters");
        let level = context.max_level();
        let diagonals: Vec<DiagonalIndex> =
            indices.map(|index| DiagonalIndex { out_block: 0, in_block: 0, index }).collect();
        let plan = BsgsPlan::choose(period, &diagonals, weights);
        let map = LinearMap::new(plan.terms(), 1, 1).expect("map");
        println!(
            "N = 2^{log_n}, {} diagonals: n1 = {}, {} babies, {} giants, {:?}, scratch {} MiB",
            plan.products(),
            plan.n1(),
            map.baby_switches(),
            map.giant_switches(),
            map.hoisting(&context, level),
            map.scratch_bytes(&context, level, 1, Hoisting::Auto, true) >> 20,
        );
        let mut rng = SecretRng::from_seed(&[1; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let galois = map.galois_elements(&context).into_iter().map(|g| (g, level)).collect();
        let request = KeyRequest { relin_level: None, galois, ..KeyRequest::default() };
        let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
        let evaluator = Evaluator::new(&context, Arc::new(keys)).expect("evaluator");
        let encoder = Encoder::new(&context);
        let scale = Scale::pow2(i64::from(chain.0));
        let values: Vec<f64> = (0..period).map(|k| (k % 17) as f64 / 17.0).collect();
        let plaintext = encoder.encode(&values, level, &scale).expect("encode");
        let seeded = Encryptor::new(&context).encrypt_sk(&secret, &plaintext, &mut rng).expect("encrypt");
        let input = seeded.expand(&context).expect("expand");
        let plaintext_scale = LinearMap::plaintext_scale(&context, level, &scale, &scale, true);
        let plaintexts = (0..plan.products())
            .map(|d| {
                let values: Vec<f64> = (0..period).map(|k| ((k + d) % 23) as f64 / 2300.0).collect();
                Arc::new(encoder.encode_qp(&values, level, &plaintext_scale).expect("encode"))
            })
            .collect();
        let source = Cached { terms: plan.terms().to_vec(), plaintexts };
        Self { context, evaluator, input, map, source, scale }
    }

    fn run(&self, hoisting: Hoisting) -> Ciphertext {
        let options = LinearOptions { hoisting, ..LinearOptions::default() };
        let inputs = [&self.input];
        let out = self.map.apply(&self.evaluator, &inputs, &self.source, &[], &self.scale, &options);
        out.expect("linear map").swap_remove(0)
    }
}

fn single_thread(c: &mut Criterion, name: &str, bench: &Bench) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("thread pool");
    let mut group = c.benchmark_group("linear");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for hoisting in [Hoisting::Double, Hoisting::Single] {
        group.bench_function(format!("{name}/{hoisting:?}"), |b| {
            pool.install(|| b.iter(|| black_box(bench.run(hoisting))));
        });
    }
    group.bench_function(format!("{name}/rotate"), |b| {
        let rotation = bench.map.rotations().into_iter().next().expect("a rotation");
        pool.install(|| b.iter(|| black_box(bench.evaluator.rotate(&bench.input, rotation).expect("rotate"))));
    });
    group.finish();
    black_box(&bench.context);
}

fn linear(c: &mut Criterion) {
    let weights = BsgsWeights::default();
    let small = Parameters { log_n: 13, chain: (28, 8), special: (29, 2), digits: vec![2; 4] };
    single_thread(c, "2^13, 128 of period 1024", &Bench::new(&small, 1024, 0..128, &weights));
    single_thread(c, "2^13, 128 full", &Bench::new(&small, 4096, 0..128, &weights));
    let middle = Parameters { log_n: 14, chain: (34, 9), special: (36, 3), digits: vec![3; 3] };
    single_thread(c, "2^14, 1859 full", &Bench::new(&middle, 8192, (0..1859).map(|i| i * 3), &weights));
    let large = Parameters { log_n: 16, chain: (45, 20), special: (49, 5), digits: vec![5; 4] };
    single_thread(c, "2^16, 128 of period 8192", &Bench::new(&large, 8192, 0..128, &weights));
}

criterion_group!(benches, linear);
criterion_main!(benches);
