//! Bootstrapping through the public interface: `N = 2^13` always, secure rings with `FHEC_SLOW=1`.

mod common;

use std::sync::Arc;

use common::random;
use fhec_ckks::container::{read_evaluation_keys, write_evaluation_keys};
use fhec_ckks::{
    BootstrapChain, BootstrapSpec, BootstrapTarget, Bootstrapper, Ciphertext, Context, Encoder, Encryptor,
    EvaluationKeys, Evaluator, InsecureToken, SecretKey, Security,
};
use fhec_math::bootstrap::log2_failure;
use fhec_math::{SecretRng, SecurityLevel};

struct Run {
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
    secret: SecretKey,
    evaluator: Evaluator,
    bootstrapper: Bootstrapper,
}

impl Run {
    fn new(chain: &BootstrapChain, spec: BootstrapSpec, security: Security, log_slots: &[u32]) -> Self {
        let context = Context::new(chain.parameters(&spec).expect("primes"), security).expect("parameters");
        let bootstrapper = Bootstrapper::new(&context, spec, log_slots).expect("bootstrapper");
        let mut rng = SecretRng::from_seed(&[3; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let made = EvaluationKeys::generate(&secret, &bootstrapper.key_request(), &mut rng, &|_, _| ()).expect("keys");
        // By way of a file, as a server gets them, where it is not too large.
        let keys = if context.log_n() < 15 {
            let mut file = Vec::new();
            write_evaluation_keys(&made, &[1; 32], &mut file).expect("writing to memory");
            read_evaluation_keys(&file, &context, &[1; 32]).expect("reading what was written")
        } else {
            made
        };
        Self {
            encoder: Encoder::new(&context),
            encryptor: Encryptor::new(&context),
            evaluator: Evaluator::new(&context, Arc::new(keys)).expect("evaluator"),
            context,
            secret,
            bootstrapper,
        }
    }

    fn encrypt(&self, log_slots: u32, values: &[f64]) -> Ciphertext {
        let spec = self.bootstrapper.spec();
        let plaintext = self.encoder.encode(values, spec.input_level(log_slots), &spec.input_scale).expect("encode");
        let mut rng = SecretRng::from_seed(&[4; 32]);
        let seeded = self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut rng).expect("encrypt");
        seeded.expand(&self.context).expect("expand")
    }

    fn bootstrap(&self, log_slots: u32, level: usize, values: &[f64]) -> Ciphertext {
        let scale = self.bootstrapper.spec().input_scale.clone();
        let target = BootstrapTarget { log_slots, level, scale };
        let input = self.encrypt(log_slots, values);
        let keys = self.evaluator.keys().encapsulation().expect("keys of encapsulation");
        self.bootstrapper.bootstrap(&self.evaluator, keys, &input, &target).expect("bootstrap")
    }

    /// Bits of the standard deviation of the error and of the worst slot.
    fn bits(&self, result: &Ciphertext, values: &[f64]) -> (f64, f64) {
        let plaintext = self.encryptor.decrypt(&self.secret, result).expect("decrypt");
        let found = self.encoder.decode(&plaintext).expect("decode");
        let errors = found.iter().enumerate().map(|(k, x)| (x - values[k % values.len()]).abs());
        let square: f64 = errors.clone().map(|e| e * e).sum();
        let worst = errors.fold(0.0, f64::max);
        (-(square / found.len() as f64).sqrt().log2(), -worst.log2())
    }
}

/// Random values and those that have broken other libraries.
fn vectors(n: usize) -> Vec<(&'static str, Vec<f64>)> {
    let mut one_hot = vec![0.0; n];
    one_hot[n / 2 + 1] = 1.0;
    vec![
        ("random", random(n, 1)),
        ("relu", random(n, 3).iter().map(|v| v.max(0.0)).collect()),
        ("one", vec![1.0; n]),
        ("minus one", vec![-1.0; n]),
        ("half", vec![0.5; n]),
        ("minus half", vec![-0.5; n]),
        ("one-hot", one_hot),
    ]
}

fn check(run: &Run, log_slots: u32, level: usize, least: (f64, f64)) {
    for (name, values) in vectors(1 << log_slots) {
        let (deviation, worst) = run.bits(&run.bootstrap(log_slots, level, &values), &values);
        println!("2^{log_slots} slots, level {level}, {name}: {deviation:.2} bits, worst slot {worst:.2}");
        assert!(deviation >= least.0 && worst >= least.1, "{name}: {deviation:.2}, {worst:.2}");
    }
}

#[test]
fn full_and_sparse_slots_of_a_medium_ring() {
    let chain = BootstrapChain { log_n: 13, message_levels: 2, special_count: 5, ..BootstrapChain::deep() };
    let spec = BootstrapSpec {
        slots_to_coeffs: vec![vec![4, 4], vec![4]],
        coeffs_to_slots: vec![4, 4, 4],
        ..BootstrapSpec::default()
    };
    let run = Run::new(&chain, spec, Security::Insecure(InsecureToken::for_tests()), &[10, 12]);
    check(&run, 12, run.bootstrapper.output_level(), (18.0, 15.0));
    check(&run, 10, 3, (18.0, 15.0));
}

fn slow() -> bool {
    let slow = std::env::var("FHEC_SLOW").is_ok_and(|v| v == "1");
    if !slow {
        println!("skipped: set FHEC_SLOW=1");
    }
    slow
}

#[test]
fn deep_parameters() {
    if !slow() {
        return;
    }
    let secure = Security::Level(SecurityLevel::Bits128);
    let run = Run::new(&BootstrapChain::deep(), BootstrapSpec::default(), secure, &[10, 12, 15]);
    let spec = run.bootstrapper.spec();
    assert!(log2_failure(16, spec.sparse_weight, f64::from(spec.range)) < -128.0);
    assert!(run.evaluator.keys().bytes() < 5 << 30);
    assert!(run.bootstrapper.output_level() - run.bootstrapper.spec().input_level(15) >= 13);
    check(&run, 15, 16, (18.0, 15.0));
    check(&run, 12, 16, (18.0, 15.0));
    check(&run, 10, 5, (18.0, 15.0));
}

#[test]
fn shallow_parameters() {
    if !slow() {
        return;
    }
    let secure = Security::Level(SecurityLevel::Bits128);
    let run = Run::new(&BootstrapChain::shallow(), BootstrapChain::shallow_spec(), secure, &[11, 14]);
    check(&run, 14, 6, (14.0, 11.0));
    check(&run, 11, 6, (14.0, 11.0));
}
