//! Stage by stage with the secret key at hand, against plain arithmetic.

mod whole;

use fhec_math::SecretRng;
use num_complex::Complex64;

use super::*;
use crate::encrypt::Encryptor;
use crate::keys::{EvaluationKeys, SecretKey, SwitchingKey};
use crate::keyswitch::{Digits, Switch, switch};
use crate::params::{InsecureToken, Security};

/// A small ring without security, everything made from fixed seeds.
struct Setup {
    context: Arc<Context>,
    encoder: Encoder,
    encryptor: Encryptor,
    secret: SecretKey,
    sparse: Vec<i8>,
    evaluator: Evaluator,
    keys: EncapsulationKeys,
    bootstrapper: Bootstrapper,
}

/// Nine layers of transforms; three message levels.
fn small_spec() -> BootstrapSpec {
    BootstrapSpec {
        slots_to_coeffs: vec![vec![3, 2], vec![4]],
        coeffs_to_slots: vec![3, 2, 4],
        ..BootstrapSpec::default()
    }
}

fn small_chain() -> BootstrapChain {
    BootstrapChain { log_n: 10, message_levels: 3, special_count: 4, ..BootstrapChain::deep() }
}

impl Setup {
    fn new(chain: &BootstrapChain, spec: BootstrapSpec, log_slots: &[u32]) -> Self {
        let parameters = chain.parameters(&spec).unwrap();
        let context = Context::new(parameters, Security::Insecure(InsecureToken::for_tests())).unwrap();
        let mut rng = SecretRng::from_seed(&[5; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let sparse = rng.sparse_ternary(context.n(), spec.sparse_weight as usize).to_vec();
        let bootstrapper = Bootstrapper::new(&context, spec, log_slots).unwrap();
        let request = bootstrapper.key_request();
        let keys = EncapsulationKeys::with_sparse(&secret, &sparse, &request.raised, &request.low, &mut rng).unwrap();
        let evaluation = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).unwrap();
        Self {
            encoder: Encoder::new(&context),
            encryptor: Encryptor::new(&context),
            evaluator: Evaluator::new(&context, Arc::new(evaluation)).unwrap(),
            context,
            secret,
            sparse,
            keys,
            bootstrapper,
        }
    }

    fn small(log_slots: &[u32]) -> Self {
        Self::new(&small_chain(), small_spec(), log_slots)
    }

    /// [`small`](Self::small), where vectors that repeat go down to rings of degree 2^6 at least.
    fn low(log_slots: &[u32]) -> Self {
        Self::new(&small_chain(), BootstrapSpec { least_ring: 6, ..small_spec() }, log_slots)
    }

    fn spec(&self) -> &BootstrapSpec {
        self.bootstrapper.spec()
    }

    fn encrypt(&self, values: &[Complex64], level: usize, scale: &Scale) -> Ciphertext {
        let plaintext = self.encoder.encode_complex(values, level, scale).unwrap();
        // Other messages come with other noise.
        let bits = values.iter().fold(0, |sum: u64, z| sum.wrapping_mul(3).wrapping_add(z.re.to_bits()));
        let mut seed = [11; 32];
        seed[..8].copy_from_slice(&bits.to_le_bytes());
        let mut rng = SecretRng::from_seed(&seed);
        self.encryptor.encrypt_sk(&self.secret, &plaintext, &mut rng).unwrap().expand(&self.context).unwrap()
    }

    /// An input of a bootstrap.
    fn input(&self, log_slots: u32, values: &[Complex64]) -> Ciphertext {
        self.encrypt(values, self.spec().input_level(log_slots), &self.spec().input_scale)
    }

    fn coefficients(&self, ciphertext: &Ciphertext) -> Vec<f64> {
        let plaintext = self.encryptor.decrypt(&self.secret, ciphertext).unwrap();
        self.encoder.decode_coefficients(&plaintext).to_vec()
    }

    fn slots(&self, ciphertext: &Ciphertext) -> Vec<Complex64> {
        let plaintext = self.encryptor.decrypt(&self.secret, ciphertext).unwrap();
        self.encoder.decode_complex(&plaintext).unwrap()
    }

    fn target(&self, log_slots: u32) -> BootstrapTarget {
        BootstrapTarget { log_slots, level: self.bootstrapper.output_level(), scale: Scale::pow2(40) }
    }

    fn transforms(&self, log_slots: u32) -> &Transforms {
        &self.bootstrapper.transforms[&log_slots]
    }

    fn packed(&self, log_slots: u32, values: &[Complex64]) -> Ciphertext {
        let input = self.input(log_slots, values);
        self.bootstrapper.slots_to_coeffs(&self.evaluator, &self.keys, &input, self.transforms(log_slots)).unwrap()
    }

    /// Under the dense secret, without any rotation.
    fn raised(&self, log_slots: u32, packed: &Ciphertext) -> Ciphertext {
        let level = self.spec().raised_level(log_slots, self.bootstrapper.output_level());
        let (up, raising) = (self.keys.up(), self.context.raising());
        let small = self.keys.raise(raising, level, &self.keys.down(packed).unwrap());
        let key = up.keys().galois(1).unwrap();
        let add = Switch { add: [Some(&small.c0), None], ..Switch::default() };
        let mut parts = switch(raising, Digits::Decomposed(&small.c1), level, &[(key, add)], false).unwrap();
        let [c0, c1] = parts.pop().unwrap();
        Ciphertext::from_parts(&self.context, c0, c1, level, small.scale.clone())
    }

    /// Up to a ciphertext with slots `t/2K'`.
    fn to_slots(&self, log_slots: u32, packed: &Ciphertext) -> Ciphertext {
        let stages = &self.transforms(log_slots).coeffs_to_slots;
        let way = Way { evaluator: self.evaluator.clone(), raising: None, stages };
        let slots = self.bootstrapper.raise(&self.keys, packed, &way, log_slots, false).unwrap();
        self.evaluator.rescale(&slots).unwrap()
    }
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

fn complex(re: &[f64], im: &[f64]) -> Vec<Complex64> {
    re.iter().zip(im).map(|(&re, &im)| Complex64::new(re, im)).collect()
}

fn real(values: &[f64]) -> Vec<Complex64> {
    values.iter().map(|&v| v.into()).collect()
}

fn bit_reversed(k: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { k.reverse_bits() >> (usize::BITS - bits) }
}

/// The coefficients that the slots of a packed ciphertext become: `re` then `im` in bit-reversed order, at multiples of
/// `N/2n`.
fn expected_coefficients(n: usize, values: &[Complex64]) -> Vec<f64> {
    let (slots, bits) = (values.len(), values.len().trailing_zeros());
    let gap = n / (2 * slots);
    let mut out = vec![0.0; n];
    for k in 0..slots {
        let value = values[bit_reversed(k, bits)];
        out[k * gap] = value.re;
        out[(k + slots) * gap] = value.im;
    }
    out
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

const ALL: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

#[test]
fn slots_become_coefficients_in_bit_reversed_order() {
    let setup = Setup::small(&ALL);
    for log_slots in ALL {
        let n = 1 << log_slots;
        let values = complex(&random(n, 1), &random(n, 2));
        let packed = setup.packed(log_slots, &values);
        assert_eq!(packed.level(), 0);
        let ratio = Scale::prime(setup.context.q(0).value()).div(packed.scale());
        assert_eq!(ratio, Scale::pow2(10), "the message ratio is exact");
        let error = worst(&setup.coefficients(&packed), &expected_coefficients(setup.context.n(), &values));
        assert!(error < 2f64.powi(-20), "2^{log_slots} slots: 2^{}", error.log2());
    }
}

#[test]
fn a_smaller_ring_gives_the_same_coefficients() {
    let setup = Setup::low(&ALL);
    for log_slots in ALL {
        let n = 1 << log_slots;
        let values = complex(&random(n, 1), &random(n, 2));
        let packed = setup.packed(log_slots, &values);
        assert_eq!(packed.c0().n(), 1 << (log_slots + 1).max(6), "2^{log_slots} slots");
        let ratio = Scale::prime(setup.context.q(0).value()).div(packed.scale());
        assert_eq!(ratio, Scale::pow2(10), "the message ratio is exact");
        // They show once all of it is back in the whole ring.
        let raised = setup.coefficients(&setup.raised(log_slots, &packed));
        let found: Vec<f64> = raised.iter().map(|t| (t - t.round()) * 1024.0).collect();
        let error = worst(&found, &expected_coefficients(setup.context.n(), &values));
        assert!(error < 2f64.powi(-18), "2^{log_slots} slots: 2^{}", error.log2());
    }
    // Keys that end at a lower level, and keys for other numbers of slots, are of no use.
    let mut rng = SecretRng::from_seed(&[9; 32]);
    let mut low = setup.bootstrapper.key_request().low;
    low.get_mut(&8).unwrap().level = 0;
    let short = EncapsulationKeys::generate(&setup.secret, 32, &BTreeSet::new(), &low, &mut rng).unwrap();
    let input = setup.input(7, &real(&[0.5]));
    let missing = setup.bootstrapper.slots_to_coeffs(&setup.evaluator, &short, &input, setup.transforms(7));
    assert!(matches!(missing, Err(CkksError::KeyLevel { have: 0, need: 1, .. })));
    let others = Setup::low(&[3, 9]);
    let missing = others.bootstrapper.slots_to_coeffs(
        &setup.evaluator,
        &others.keys,
        &setup.input(7, &real(&[0.5])),
        setup.transforms(7),
    );
    assert!(matches!(missing, Err(CkksError::NoRingKeys { log_n: 8, .. })));
}

#[test]
fn raised_polynomials_are_the_message_plus_small_multiples_of_the_base() {
    let setup = Setup::small(&[9]);
    let values = complex(&random(512, 3), &random(512, 4));
    let packed = setup.packed(9, &values);
    let before: Vec<f64> = setup.coefficients(&packed).iter().map(|m| m / 1024.0).collect();
    // Under the sparse secret, over the integers.
    let [c0, c1] = setup.keys.down(&packed).unwrap();
    let q0 = setup.context.q(0);
    let n = setup.context.n();
    let centred = |c: &[u64]| -> Vec<f64> { c.iter().map(|&x| q0.center(x) as f64 / q0.value() as f64).collect() };
    let (c0, c1) = (centred(&c0), centred(&c1));
    let mut sum = c0;
    for (i, &s) in setup.sparse.iter().enumerate().filter(|s| *s.1 != 0) {
        for (j, x) in c1.iter().enumerate() {
            let sign = if i + j < n { 1.0 } else { -1.0 };
            sum[(i + j) % n] += sign * f64::from(s) * x;
        }
    }
    // Under the dense secret, after the raise.
    let raised = setup.raised(9, &packed);
    let t = setup.coefficients(&raised);
    assert!(worst(&t, &sum) < 2f64.powi(-28), "2^{}", worst(&t, &sum).log2());
    let fractions: Vec<f64> = t.iter().map(|t| t - t.round()).collect();
    assert!(worst(&fractions, &before) < 2f64.powi(-28), "2^{}", worst(&fractions, &before).log2());
    // Means of the errors: nothing is lifted off centre.
    let mean: f64 = t.iter().sum::<f64>() / n as f64;
    assert!(mean.abs() < 0.35, "{mean}");
}

#[test]
fn multiples_of_the_base_are_distributed_as_predicted() {
    let setup = Setup::small(&[9]);
    let mut histogram = [0u32; 17];
    let rounds = 12;
    for round in 0..rounds {
        let packed = setup.packed(9, &real(&random(512, 50 + round)));
        for t in setup.coefficients(&setup.raised(9, &packed)) {
            histogram[t.round().abs() as usize] += 1;
        }
    }
    let total = rounds as f64 * setup.context.n() as f64;
    assert!(total > 10_000.0);
    for (i, &count) in histogram.iter().enumerate() {
        let expected = total * fhec_math::bootstrap::probability(32, i as u32);
        // Coefficients are nearly independent: six standard deviations of a Poisson variable, and one more count.
        assert!((f64::from(count) - expected).abs() < 6.0 * expected.sqrt() + 1.0, "{i}: {count}, {expected}");
    }
}

#[test]
fn coefficients_become_slots_again() {
    let setup = Setup::small(&ALL);
    for log_slots in ALL {
        let n = 1 << log_slots;
        let values = complex(&random(n, 5), &random(n, 6));
        let packed = setup.packed(log_slots, &values);
        let t = setup.coefficients(&setup.raised(log_slots, &packed));
        let slots = setup.to_slots(log_slots, &packed);
        assert_eq!(slots.level(), setup.bootstrapper.output_level() + 8);
        // Of the raised polynomial only the coefficients of the subring survive the trace.
        let gap = setup.context.n() / (2 * n);
        let half_range = cosine::half_range(setup.spec());
        let found = setup.slots(&slots);
        for (k, z) in found.iter().enumerate() {
            let at = bit_reversed(k % n, log_slots) * gap;
            let expected = Complex64::new(t[at], t[at + setup.context.slots()]) / (2.0 * half_range);
            assert!((z - expected).norm() < 2f64.powi(-30), "2^{log_slots} slots, slot {k}: {z} {expected}");
        }
    }
}

#[test]
fn eval_mod_removes_integers() {
    let setup = Setup::small(&[9]);
    let eval_mod = &setup.bootstrapper.eval_mod;
    let top = setup.bootstrapper.output_level() + 8;
    let mut values: Vec<f64> = random(512, 7);
    values[..6].copy_from_slice(&[0.0, 1.0, -1.0, 0.5, -0.5, 1e-6]);
    let integers: Vec<f64> = (0..512).map(|k| f64::from(k % 33 - 16).clamp(-15.0, 15.0)).collect();
    let input: Vec<Complex64> = values
        .iter()
        .zip(&integers)
        .map(|(x, i)| Complex64::from((i + x / 1024.0) / cosine::half_range(setup.spec())))
        .collect();
    let ciphertext = setup.encrypt(&input, top, &Scale::prime(setup.context.q(0).value()));
    for (gain, scale) in [(1.0, Scale::pow2(40)), (0.75, Scale::pow2(40)), (1.0, Scale::pow2(37))] {
        let result = eval_mod.apply(&setup.evaluator, &ciphertext, gain, &scale).unwrap();
        assert_eq!(result.level(), setup.bootstrapper.output_level());
        assert_eq!(*result.scale(), scale);
        let found: Vec<f64> = setup.slots(&result).iter().map(|z| z.re / gain).collect();
        for ((found, value), i) in found.iter().zip(&values).zip(&integers) {
            // The cosine is precise at integers that ever occur.
            let most = if i.abs() <= 9.0 { 2f64.powi(-17) } else { 2f64.powi(-14) };
            let error = (found - value).abs();
            assert!(error < most, "gain {gain}, scale {scale}, {i}: 2^{}", error.log2());
        }
    }
}

#[test]
fn sparse_secret_is_used_modulo_the_base_and_one_special_prime_only() {
    let setup = Setup::small(&[9]);
    let (q0, p0) = (setup.context.q(0), &setup.context.moduli_p()[0]);
    assert_eq!(setup.keys.sparse_moduli(), [q0.value(), p0.value()]);
    assert_eq!(setup.sparse.iter().filter(|&&s| s != 0).count(), 32);
    // Two limbs, and under the sparse secret they decrypt to p_0·s with a small error: modulo q_0 and modulo p_0.
    let (down, up, _) = setup.keys.parts();
    let (_, down) = down.parts();
    assert_eq!((down.limbs(), up.len()), (2, 16));
    let uniform = setup.keys.down_uniform();
    assert_eq!(uniform.limbs(), 2);
    let all = setup.context.max_level() + 1;
    let mut errors: Vec<Vec<i64>> = Vec::new();
    for (i, (m, table)) in [(q0, setup.context.q_table(0)), (p0, setup.context.p_table(0))].into_iter().enumerate() {
        let mut sparse = vec![0; setup.context.n()];
        fhec_math::lift_small(m, &setup.sparse, &mut sparse);
        table.forward(&mut sparse);
        let dense = setup.secret.eval();
        let dense = dense.limb(if i == 0 { 0 } else { all });
        let mut error: Vec<u64> = (0..setup.context.n())
            .map(|k| {
                let phase = m.add(down.limb(i)[k], m.mul(uniform.limb(i)[k], sparse[k]));
                m.sub(phase, m.mul(m.reduce(p0.value()), dense[k]))
            })
            .collect();
        table.inverse(&mut error);
        errors.push(error.iter().map(|&e| m.center(e)).collect());
    }
    assert_eq!(errors[0], errors[1], "one error, modulo the product of both primes");
    assert!(errors[0].iter().all(|e| e.abs() <= 21) && errors[0].iter().any(|&e| e != 0));
}

#[test]
fn smaller_rings_are_as_secure_as_the_whole_one() {
    let BootstrapPreset { chain, spec, .. } = BootstrapPreset::shallow();
    let level = Security::Level(fhec_math::SecurityLevel::Bits128);
    let context = Context::new(chain.parameters(&spec).unwrap(), level).unwrap();
    let request = |log_n, level| KeyRequest {
        sparse_weight: Some(32),
        low: BTreeMap::from([(log_n, fhec_math::bootstrap::LowKeys { level, galois: BTreeSet::new() })]),
        ..KeyRequest::default()
    };
    request(13, 1).check(&context).unwrap();
    request(14, 2).check(&context).unwrap();
    // 225 bits of 214, 180 of 106; a ring that is none.
    for (log_n, level) in [(13, 2), (12, 1)] {
        let error = request(log_n, level).check(&context).unwrap_err();
        assert!(matches!(error, CkksError::Insecure { bits: 128, .. }), "{error}");
        assert!(crate::container::KeySizes::of(&request(log_n, level), &context, crate::UniformHalves::Kept).is_err());
    }
    assert!(matches!(request(15, 1).check(&context), Err(CkksError::Parameters(_))));
    assert!(matches!(request(14, 99).check(&context), Err(CkksError::LevelRange { .. })));
    let insecure = BootstrapSpec { least_ring: 12, ..spec };
    assert!(matches!(Bootstrapper::new(&context, insecure, &[11]), Err(CkksError::Insecure { .. })));
}

#[test]
fn keys_of_encapsulation_have_the_right_modulus_in_every_preset() {
    for preset in BootstrapPreset::all() {
        // The large ring has the same code and takes half of all time.
        if preset.chain.log_n > 16 {
            continue;
        }
        let parameters = preset.chain.parameters(&preset.spec).unwrap();
        let (q0, p0) = (parameters.q[0], parameters.p[0]);
        let context = Context::new(parameters.clone(), Security::Level(fhec_math::SecurityLevel::Bits128)).unwrap();
        let mut rng = SecretRng::from_seed(&[6; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        let raised = BTreeSet::from([1]);
        let low = preset.spec.low_keys(&BTreeSet::from([12]), context.log_n());
        let keys = EncapsulationKeys::generate(&secret, preset.spec.sparse_weight, &raised, &low, &mut rng).unwrap();
        assert_eq!(keys.sparse_moduli(), [q0, p0], "{}", preset.name);
        assert!((q0 as f64).log2() + (p0 as f64).log2() < 100.01, "{}", preset.name);
        // That of the smaller ring is used under few primes, and from there the sparse one under the same two.
        let (_, _, low) = keys.parts();
        let (entry, enter, inside, leave) = low[&13].parts();
        assert_eq!((inside.context().n(), entry.n()), (1 << 13, context.n()));
        for context in [entry, inside.context()] {
            let (q, p) = (context.moduli_q(), context.moduli_p());
            let values = |primes: &[fhec_math::Modulus]| primes.iter().map(|m| m.value()).collect::<Vec<_>>();
            assert_eq!((values(q), values(p)), (parameters.q[..2].to_vec(), parameters.p[..2].to_vec()));
            assert!(context.log_qp() <= 214.0, "{}: {}", preset.name, context.log_qp());
        }
        let limbs = |key: &SwitchingKey| key.b.iter().map(|b| b.unpack(entry, 1).limbs()).collect::<Vec<_>>();
        assert_eq!((limbs(enter), leave.parts().1.limbs()), (vec![4, 4], 2));
    }
}
