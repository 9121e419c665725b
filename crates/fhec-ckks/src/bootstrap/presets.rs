//! Chains and circuits that belong together, each secure and run as it stands by a test.

use fhec_math::Scale;
use fhec_math::bootstrap::BootstrapSpec;

use super::chain::BootstrapChain;

/// A chain with the circuit for it. All have 128 bits of security with a dense ternary secret.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapPreset {
    /// Its name in reports.
    pub name: &'static str,
    /// The chain.
    pub chain: BootstrapChain,
    /// The circuit.
    pub spec: BootstrapSpec,
    /// Where inputs are bootstrapped [twice](super::Bootstrapper::bootstrap_twice): the gain of the second time in bits.
    pub log_gain: Option<u32>,
}

impl BootstrapPreset {
    /// All presets, small rings first.
    pub fn all() -> Vec<Self> {
        vec![Self::compact(), Self::shallow(), Self::deep(), Self::arcsine(), Self::twice(), Self::large()]
    }

    /// `N = 2^15`, six levels of 31 bits: what the compiler chooses where ten or twelve bits are enough.
    pub fn compact() -> Self {
        Self { name: "compact", chain: BootstrapChain::compact(), spec: BootstrapChain::compact_spec(), log_gain: None }
    }

    /// `N = 2^15`, four levels: for networks that are hardly too deep for no bootstrap at all.
    pub fn shallow() -> Self {
        Self { name: "shallow", chain: BootstrapChain::shallow(), spec: BootstrapChain::shallow_spec(), log_gain: None }
    }

    /// `N = 2^16`, 14 levels of 40 bits: what the compiler chooses first.
    pub fn deep() -> Self {
        Self { name: "deep", chain: BootstrapChain::deep(), spec: BootstrapSpec::default(), log_gain: None }
    }

    /// `N = 2^16`, 11 levels of 42 bits: two bits more precise by a message ratio of 2^8 and an arcsine.
    pub fn arcsine() -> Self {
        Self {
            name: "arcsine",
            // 2^1742 in all: what the arcsine and larger messages take costs three levels.
            chain: BootstrapChain { message: 42, message_levels: 11, ..BootstrapChain::deep() },
            spec: BootstrapSpec {
                log_message_ratio: 8,
                arcsine: true,
                // What a smaller message ratio gains would be lost again in unlikely slots.
                cosine_degree: 30,
                input_scale: Scale::pow2(42),
                ..BootstrapSpec::default()
            },
            log_gain: None,
        }
    }

    /// `N = 2^16`, 12 levels of 45 bits: 30 bits by two bootstraps for each (Meta-BTS, 2022/1167).
    pub fn twice() -> Self {
        Self {
            name: "twice",
            // 2^1720 in all. Rounding at 40 bits would take four bits of what the second bootstrap gains.
            chain: BootstrapChain { message: 45, message_levels: 12, ..BootstrapChain::deep() },
            // The first bootstrap errs by 2^-15.5 at worst.
            spec: BootstrapSpec { input_scale: Scale::pow2(45), ..BootstrapSpec::default() },
            log_gain: Some(13),
        }
    }

    /// `N = 2^17`, 25 levels of 40 bits.
    pub fn large() -> Self {
        Self {
            name: "large",
            // 2^3480 in all. Half of the modulus is special: with one digit keys are smallest and fastest.
            chain: BootstrapChain { log_n: 17, message_levels: 25, special_count: 35, ..BootstrapChain::deep() },
            spec: BootstrapSpec {
                slots_to_coeffs: vec![vec![4, 4], vec![4, 4]],
                coeffs_to_slots: vec![4, 4, 4, 4],
                ..BootstrapSpec::default()
            },
            log_gain: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use fhec_math::{SecurityLevel, log2_product, max_log_qp, max_log_sparse, pointwise};

    use super::*;
    use crate::params::{Context, Security};

    #[test]
    fn all_are_secure_and_balanced() {
        let expected: [(&str, &[usize], f64, usize); 6] = [
            ("compact", &[2; 10], 864.0, 6),
            ("shallow", &[2; 9], 853.0, 4),
            ("deep", &[10, 10, 9], 1740.0, 14),
            ("arcsine", &[10, 9, 9], 1742.0, 11),
            ("twice", &[9, 9, 9], 1720.0, 12),
            ("large", &[40], 3480.0, 25),
        ];
        let all = BootstrapPreset::all();
        assert_eq!(all.len(), expected.len());
        for (preset, (name, digits, bits, levels)) in all.into_iter().zip(expected) {
            assert_eq!(preset.name, name);
            let parameters = preset.chain.parameters(&preset.spec).unwrap();
            assert_eq!(parameters.digits, digits, "{name}");
            let log_qp = log2_product(&parameters.q) + log2_product(&parameters.p);
            assert!((log_qp - bits).abs() < 0.1, "{name}: {log_qp}");
            let log_n = parameters.log_n;
            assert!(log_qp <= f64::from(max_log_qp(SecurityLevel::Bits128, log_n).unwrap()), "{name}");
            // The sparse secret exists under q_0·p_0 only.
            let sparse = log2_product(&[parameters.q[0], parameters.p[0]]);
            let limit = max_log_sparse(SecurityLevel::Bits128, log_n, preset.spec.sparse_weight).unwrap();
            assert!(sparse <= f64::from(limit), "{name}: {sparse}");
            // And so are smaller rings with their few primes.
            let log2 = |primes: &[u64]| primes.iter().map(|&p| (p as f64).log2()).collect::<Vec<_>>();
            for ring in preset.spec.low_rings(log_n) {
                let bits = ring.log_qp(&log2(&parameters.q), &log2(&parameters.p));
                let limit = max_log_qp(SecurityLevel::Bits128, ring.log_n).unwrap();
                assert!(bits <= f64::from(limit), "{name}: {ring:?} {bits}");
            }
            preset.spec.check(log_n, parameters.q[0], parameters.q.len() - 1).unwrap();
            let output = preset.spec.output_level(parameters.q.len() - 1).unwrap();
            assert_eq!(output - preset.spec.input_level(log_n - 1), levels, "{name}");
        }
    }

    /// Every prime with its own table: products at some coefficients against the definition.
    #[test]
    fn every_prime_multiplies_as_it_should() {
        for preset in BootstrapPreset::all() {
            let parameters = preset.chain.parameters(&preset.spec).unwrap();
            let context = Context::new(parameters, Security::Level(SecurityLevel::Bits128)).unwrap();
            let n = context.n();
            for i in 0..context.qp_limbs(context.max_level()) {
                let chain = context.max_level() + 1;
                let (m, table) = if i < chain {
                    (context.q(i), context.q_table(i))
                } else {
                    (&context.moduli_p()[i - chain], context.p_table(i - chain))
                };
                // Two sparse polynomials with large coefficients, so that the definition is quick.
                let at = |k: usize| (k * 40_503 + i) % n;
                let terms = |seed: usize| (0..8).map(move |k| (at(seed + k), m.value() - 1 - (seed + k) as u64));
                let mut expected = vec![0; n];
                let (mut a, mut b) = (vec![0; n], vec![0; n]);
                for (j, x) in terms(1) {
                    a[j] = x;
                    for (k, y) in terms(100) {
                        b[k] = y;
                        let product = m.mul(x, y);
                        let product = if j + k < n { product } else { m.neg(product) };
                        expected[(j + k) % n] = m.add(expected[(j + k) % n], product);
                    }
                }
                table.forward(&mut a);
                table.forward(&mut b);
                pointwise::mul_assign(m, &mut a, &b);
                table.inverse(&mut a);
                assert!(a == expected, "{}, prime {}", preset.name, m.value());
            }
        }
    }
}
