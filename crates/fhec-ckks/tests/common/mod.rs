//! Parameters and measures shared by the tests of this crate.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test helpers")]

use std::sync::Arc;

use fhec_ckks::{
    Ciphertext, Context, Encoder, Encryptor, EvaluationKeys, Evaluator, InsecureToken, KeyRequest, ParameterSpec,
    Plaintext, SecretKey, Security,
};
use fhec_math::{Scale, SecretRng, galois_element, ntt_primes_near};
use num_complex::Complex64;

/// Distinct primes of about the given bits.
pub fn spec(log_n: u32, q: &[u32], p: &[u32], digits: &[usize]) -> ParameterSpec {
    let mut used: Vec<u64> = Vec::new();
    let mut pick = |bits: u32| {
        let prime = ntt_primes_near(bits, log_n).find(|c| !used.contains(c)).expect("a prime of that size");
        used.push(prime);
        prime
    };
    ParameterSpec {
        log_n,
        q: q.iter().map(|&bits| pick(bits)).collect(),
        p: p.iter().map(|&bits| pick(bits)).collect(),
        digits: digits.to_vec(),
    }
}

pub fn insecure(log_n: u32, q: &[u32], p: &[u32], digits: &[usize]) -> Arc<Context> {
    Context::new(spec(log_n, q, p, digits), Security::Insecure(InsecureToken::for_tests())).expect("test parameters")
}

/// Six levels at scale 2^40, three digits of two limbs.
pub fn small() -> Arc<Context> {
    insecure(10, &[49, 40, 40, 40, 40, 40], &[48, 48], &[2, 2, 2])
}

pub struct Setup {
    pub context: Arc<Context>,
    pub encoder: Encoder,
    pub encryptor: Encryptor,
    pub secret: SecretKey,
    pub evaluator: Evaluator,
    pub rng: SecretRng,
}

impl Setup {
    /// All keys reach the top level.
    pub fn new(context: &Arc<Context>, rotations: &[i64]) -> Self {
        let level = context.max_level();
        let galois = rotations.iter().map(|&r| (galois_element(r, context.log_n()), level));
        let mut request = KeyRequest { relin_level: Some(level), galois: galois.collect(), ..KeyRequest::default() };
        request.galois.insert(fhec_math::conjugation_element(context.log_n()), level);
        Self::with_keys(context, &request)
    }

    pub fn with_keys(context: &Arc<Context>, request: &KeyRequest) -> Self {
        let mut rng = SecretRng::from_seed(&[7; 32]);
        let secret = SecretKey::generate(context, &mut rng);
        let keys = EvaluationKeys::generate(&secret, request, &mut rng, &|_, _| ()).expect("keys");
        Self {
            context: Arc::clone(context),
            encoder: Encoder::new(context),
            encryptor: Encryptor::new(context),
            secret,
            evaluator: Evaluator::new(context, Arc::new(keys)).expect("evaluator"),
            rng,
        }
    }

    pub fn encrypt(&mut self, values: &[f64], level: usize, scale: &Scale) -> Ciphertext {
        let plaintext = self.encoder.encode(values, level, scale).expect("encode");
        let seeded = self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut self.rng).expect("encrypt");
        seeded.expand(&self.context).expect("expand")
    }

    pub fn encrypt_complex(&mut self, values: &[Complex64], level: usize, scale: &Scale) -> Ciphertext {
        let plaintext = self.encoder.encode_complex(values, level, scale).expect("encode");
        let seeded = self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut self.rng).expect("encrypt");
        seeded.expand(&self.context).expect("expand")
    }

    pub fn plaintext(&self, ciphertext: &Ciphertext) -> Plaintext {
        self.encryptor.decrypt(&self.secret, ciphertext).expect("decrypt")
    }

    pub fn decrypt(&self, ciphertext: &Ciphertext) -> Vec<f64> {
        self.encoder.decode(&self.plaintext(ciphertext)).expect("decode")
    }

    pub fn decrypt_complex(&self, ciphertext: &Ciphertext) -> Vec<Complex64> {
        self.encoder.decode_complex(&self.plaintext(ciphertext)).expect("decode")
    }
}

/// `2^-bits` is the largest difference.
pub fn worst_bits(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(!worst.is_nan());
    -worst.log2()
}

/// Root mean square of the moduli of the differences.
pub fn rms(found: &[Complex64], expected: &[Complex64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let sum: f64 = found.iter().zip(expected).map(|(a, b)| (a - b).norm_sqr()).sum();
    (sum / found.len() as f64).sqrt()
}

/// Reproducible values in [−1, 1).
pub fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Vectors that have broken other libraries: random ones are the easy case.
pub fn hard_vectors(slots: usize) -> Vec<(&'static str, Vec<f64>)> {
    let mut one_hot = vec![0.0; slots];
    one_hot[slots / 2 + 1] = 1.0;
    let mut first = vec![0.0; slots];
    first[0] = 1.0;
    let relu: Vec<f64> = random(slots, 3).iter().map(|v| v.max(0.0)).collect();
    let signs: Vec<f64> = random(slots, 4).iter().map(|v| v.signum()).collect();
    vec![
        ("random", random(slots, 1)),
        ("zero", vec![0.0; slots]),
        ("one", vec![1.0; slots]),
        ("minus one", vec![-1.0; slots]),
        ("half", vec![0.5; slots]),
        ("one-hot", one_hot),
        ("first slot", first),
        ("relu", relu),
        ("signs", signs),
        ("alternating", (0..slots).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect()),
    ]
}

/// Centred coefficients modulo `q_0`, for polynomials that fit.
pub fn coefficients(context: &Context, plaintext: &Plaintext) -> Vec<i64> {
    let mut limb = plaintext.poly().limb(0).to_vec();
    context.q_table(0).inverse(&mut limb);
    limb.iter().map(|&x| context.q(0).center(x)).collect()
}
