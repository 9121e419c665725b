//! Chains of primes that fit the circuit of a bootstrap.

use fhec_math::bootstrap::BootstrapSpec;
use fhec_math::{Scale, ntt_primes_near};

use crate::error::{CkksError, Result};
use crate::params::ParameterSpec;

/// Sizes of the primes of a chain for bootstrapping, in bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapChain {
    /// log2 of the ring degree.
    pub log_n: u32,
    /// The lowest prime: its quotient by the scale of messages is the message ratio.
    pub base: u32,
    /// Primes of slots-to-coefficients.
    pub slots_to_coeffs: u32,
    /// Primes of message levels, near the scale of messages.
    pub message: u32,
    /// Number of message levels.
    pub message_levels: usize,
    /// Primes of EvalMod, of about the size of `q_0`.
    pub eval_mod: u32,
    /// Primes of coefficients-to-slots.
    pub coeffs_to_slots: u32,
    /// Special primes.
    pub special: u32,
    /// Number of special primes.
    pub special_count: usize,
}

impl BootstrapChain {
    /// `N = 2^16`, 14 message levels of 40 bits, 2^1740: 128 bits of security.
    pub fn deep() -> Self {
        Self {
            log_n: 16,
            base: 50,
            slots_to_coeffs: 50,
            message: 40,
            message_levels: 14,
            eval_mod: 50,
            coeffs_to_slots: 45,
            special: 50,
            special_count: 9,
        }
    }

    /// `N = 2^15`, 4 message levels of 36 bits, 2^853: 128 bits of security. The circuit is [`shallow_spec`](Self::shallow_spec).
    pub fn shallow() -> Self {
        Self {
            log_n: 15,
            base: 45,
            slots_to_coeffs: 44,
            message: 36,
            message_levels: 4,
            eval_mod: 45,
            coeffs_to_slots: 42,
            special: 45,
            special_count: 2,
        }
    }

    /// The circuit for [`shallow`](Self::shallow).
    pub fn shallow_spec() -> BootstrapSpec {
        BootstrapSpec {
            log_message_ratio: 9,
            slots_to_coeffs: vec![vec![5, 5], vec![4]],
            coeffs_to_slots: vec![5, 5, 4],
            input_scale: Scale::pow2(36),
            ..BootstrapSpec::default()
        }
    }

    /// `N = 2^15`, 6 message levels of 31 bits, 2^864: 128 bits of security. The circuit is [`compact_spec`](Self::compact_spec).
    pub fn compact() -> Self {
        Self {
            log_n: 15,
            base: 43,
            slots_to_coeffs: 43,
            message: 31,
            message_levels: 6,
            eval_mod: 43,
            coeffs_to_slots: 39,
            special: 44,
            special_count: 2,
        }
    }

    /// The circuit for [`compact`](Self::compact). A small message ratio makes up for small primes: errors of rounding are 2^-14 then. What the
    /// sine bends the largest values is less, as it has to be: that adds up from bootstrap to bootstrap.
    pub fn compact_spec() -> BootstrapSpec {
        BootstrapSpec {
            log_message_ratio: 8,
            slots_to_coeffs: vec![vec![4, 4], vec![4, 2]],
            coeffs_to_slots: vec![4, 4, 6],
            input_scale: Scale::pow2(31),
            ..BootstrapSpec::default()
        }
    }

    /// Primes and digits for a circuit. Digits are as few as the special primes allow, and of as equal size as possible.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where no primes of these sizes are left.
    pub fn parameters(&self, spec: &BootstrapSpec) -> Result<ParameterSpec> {
        let sections = [
            (self.base, 1),
            (self.slots_to_coeffs, spec.slots_to_coeffs.len()),
            (self.message, self.message_levels),
            (self.eval_mod, spec.eval_mod_levels()),
            (self.coeffs_to_slots, spec.coeffs_to_slots.len()),
        ];
        let bits: Vec<u32> = sections.iter().flat_map(|&(bits, count)| std::iter::repeat_n(bits, count)).collect();
        // Special primes are the largest of their size, so that digits of as many primes stay below their product.
        let same = bits.iter().filter(|&&b| b == self.special).count();
        let mut pool: Vec<u64> = ntt_primes_near(self.special, self.log_n).take(same + self.special_count).collect();
        pool.sort_unstable_by(|a, b| b.cmp(a));
        let p: Vec<u64> = pool.drain(..self.special_count.min(pool.len())).collect();
        let mut used = p.clone();
        let mut q = Vec::with_capacity(bits.len());
        for b in bits {
            let next = ntt_primes_near(b, self.log_n).find(|prime| !used.contains(prime));
            let prime = next
                .ok_or_else(|| CkksError::Parameters(format!("too few primes of {b} bits for N = 2^{}", self.log_n)))?;
            used.push(prime);
            q.push(prime);
        }
        let digits = balanced_digits(&q, p.iter().map(|&p| (p as f64).log2()).sum());
        Ok(ParameterSpec { log_n: self.log_n, q, p, digits })
    }
}

/// Cuts a chain into the fewest runs whose products stay below `2^limit`, the largest as small as possible.
fn balanced_digits(q: &[u64], limit: f64) -> Vec<usize> {
    let bits: Vec<f64> = q.iter().map(|&q| (q as f64).log2()).collect();
    // As many primes as fit, run after run.
    let greedy = |most: f64| {
        let mut runs = vec![0];
        let mut sum = 0.0;
        for &b in &bits {
            if sum + b >= most && sum > 0.0 {
                runs.push(0);
                sum = 0.0;
            }
            sum += b;
            *runs.last_mut().expect("runs begin with one") += 1;
        }
        runs
    };
    let count = greedy(limit).len();
    let (mut low, mut high) = (0.0, limit);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if greedy(middle).len() <= count { high = middle } else { low = middle }
    }
    greedy(high)
}
