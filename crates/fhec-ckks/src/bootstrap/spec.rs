//! What to bootstrap with: the circuit, and chains that fit it.

use fhec_math::chebyshev::depth_of_degree;
use fhec_math::{Scale, ntt_primes_near};

use crate::error::{CkksError, Result};
use crate::params::{Context, ParameterSpec};

/// The circuit of a bootstrap.
///
/// It fits a chain that reads, from the bottom: `q_0`; one prime for each level of slots-to-coefficients; the message levels;
/// the primes of EvalMod; one prime for each matrix of coefficients-to-slots. The last two sections take the top of the
/// chain, whatever its length.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapSpec {
    /// log2 of `q_0` over the scale of the message when it is raised. Each bit more makes the sine four times
    /// straighter and everything else half as precise.
    pub log_message_ratio: u32,
    /// `K`: the polynomial is right for `|t| ≤ K`, `t = (c_0 + c_1·s)/q_0`.
    pub range: u32,
    /// `h`: number of ±1 in the sparse secret.
    pub sparse_weight: u32,
    /// Degree of the cosine, even.
    pub cosine_degree: u32,
    /// `r`: how often its angle is doubled.
    pub double_angles: u32,
    /// Radix-2 layers merged into each matrix of slots-to-coefficients, by level in the order of use (from
    /// high levels to low). They sum to `log2(N/2)`.
    pub slots_to_coeffs: Vec<Vec<u32>>,
    /// Layers merged into each matrix of coefficients-to-slots, one level each, from the layers of small distance (used
    /// last) to those of large distance. They sum to `log2(N/2)`. Where both transforms cut at the same layers they
    /// share their keys.
    pub coeffs_to_slots: Vec<u32>,
    /// The scale that inputs are expected to have. Others work too; the largest message shrinks by as much as they
    /// exceed it.
    pub input_scale: Scale,
}

impl Default for BootstrapSpec {
    /// The circuit for `N = 2^16` and [`BootstrapChain::deep`].
    fn default() -> Self {
        Self {
            log_message_ratio: 10,
            range: 16,
            sparse_weight: 32,
            cosine_degree: 30,
            double_angles: 3,
            slots_to_coeffs: vec![vec![4, 4], vec![4, 3]],
            coeffs_to_slots: vec![4, 4, 4, 3],
            input_scale: Scale::pow2(40),
        }
    }
}

impl BootstrapSpec {
    /// Levels that EvalMod takes.
    pub fn eval_mod_levels(&self) -> usize {
        depth_of_degree(self.cosine_degree as usize) + self.double_angles as usize
    }

    /// Level of an input with `2^log_slots` slots: as many as slots-to-coefficients takes.
    pub fn input_level(&self, log_slots: u32) -> usize {
        groups_of_levels(&self.slots_to_coeffs, log_slots).len()
    }

    /// Highest level that a result can have.
    ///
    /// # Errors
    /// [`CkksError::Parameters`] where the circuit does not fit the chain.
    pub fn output_level(&self, context: &Context) -> Result<usize> {
        let above = self.eval_mod_levels() + self.coeffs_to_slots.len();
        let level = context.max_level().checked_sub(above).filter(|&level| level >= self.slots_to_coeffs.len());
        level.ok_or_else(|| {
            let below = self.slots_to_coeffs.len();
            let max = context.max_level();
            CkksError::Parameters(format!("bootstrap: {below} + {above} levels do not fit a chain of {max}"))
        })
    }

    /// Checks the circuit against a chain.
    pub(super) fn check(&self, context: &Context) -> Result<()> {
        let wrong = |what: String| Err(CkksError::Parameters(format!("bootstrap: {what}")));
        let layers = context.log_n() - 1;
        let both = [self.slots_to_coeffs.concat(), self.coeffs_to_slots.clone()];
        for split in &both {
            let sum = split.iter().try_fold(0u32, |sum, &part| sum.checked_add(part));
            if sum != Some(layers) || split.contains(&0) || split.iter().any(|&part| part > 8) {
                return wrong(format!("{split:?} are not numbers of 1 … 8 layers that sum to {layers}"));
            }
        }
        if self.slots_to_coeffs.iter().any(Vec::is_empty) {
            return wrong("a level of slots-to-coefficients has no matrix".into());
        }
        if !self.cosine_degree.is_multiple_of(2) || !(2..=126).contains(&self.cosine_degree) {
            return wrong(format!("degree {} of the cosine is not even and in 2 … 126", self.cosine_degree));
        }
        if !(1..=8).contains(&self.double_angles) || !(1..=64).contains(&self.range) {
            let (angles, range) = (self.double_angles, self.range);
            return wrong(format!("{angles} double angles are not in 1 … 8, or K = {range} is not in 1 … 64"));
        }
        if !(1..=30).contains(&self.log_message_ratio) {
            return wrong(format!("message ratio of {} bits is not in 1 … 30", self.log_message_ratio));
        }
        if self.sparse_weight == 0 || self.sparse_weight as usize > context.n() / 2 {
            return wrong(format!("weight {} of the sparse secret", self.sparse_weight));
        }
        // Coefficients grow by up to √2 a layer within slots-to-coefficients.
        let log_q0 = context.log_q(0);
        if log_q0 < f64::from(self.log_message_ratio) + 10.0 || self.input_scale.log2() < 10.0 {
            return wrong(format!("a message of {:.1} bits", log_q0 - f64::from(self.log_message_ratio)));
        }
        self.output_level(context).map(|_| ())
    }
}

/// The layers `first + 1 … last` of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) first: u32,
    pub(super) last: u32,
    /// Whether `last` is the last layer of all, so that indices count modulo `2^last`.
    pub(super) wraps: bool,
}

/// Cuts the layers of a vector of `2^log_slots` entries where `split` does.
pub(super) fn groups(split: &[u32], log_slots: u32) -> Vec<Group> {
    let mut first = 0;
    let mut list = Vec::new();
    for &layers in split {
        let last = (first + layers).min(log_slots);
        if last > first {
            list.push(Group { first, last, wraps: last == log_slots });
        }
        first += layers;
    }
    list
}

/// [`groups`] by level; levels without a matrix are left out.
pub(super) fn groups_of_levels(split: &[Vec<u32>], log_slots: u32) -> Vec<Vec<Group>> {
    let mut all = groups(&split.concat(), log_slots).into_iter();
    let levels = split.iter().map(|level| all.by_ref().take(level.len()).collect::<Vec<_>>());
    levels.filter(|level| !level.is_empty()).collect()
}

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

#[cfg(test)]
mod tests {
    use fhec_math::SecurityLevel;

    use super::*;
    use crate::params::Security;

    #[test]
    fn presets_are_secure_and_balanced() {
        let deep = BootstrapSpec::default();
        let chain = BootstrapChain::deep().parameters(&deep).unwrap();
        assert_eq!(chain.digits, [10, 10, 9]);
        let context = Context::new(chain, Security::Level(SecurityLevel::Bits128)).unwrap();
        deep.check(&context).unwrap();
        assert_eq!(deep.output_level(&context).unwrap(), 16);
        assert!((context.log_qp() - 1740.0).abs() < 0.1);
        let shallow = BootstrapChain::shallow_spec();
        let chain = BootstrapChain::shallow().parameters(&shallow).unwrap();
        let context = Context::new(chain, Security::Level(SecurityLevel::Bits128)).unwrap();
        shallow.check(&context).unwrap();
        assert_eq!(shallow.output_level(&context).unwrap(), 6);
        assert!((context.log_qp() - 853.0).abs() < 0.1);
    }

    #[test]
    fn groups_follow_the_slots() {
        let group = |first, last, wraps| Group { first, last, wraps };
        let split = [4, 4, 4, 3];
        assert_eq!(groups(&split, 15)[3], group(12, 15, true));
        assert_eq!(groups(&split, 12), [group(0, 4, false), group(4, 8, false), group(8, 12, true)]);
        assert_eq!(groups(&split, 13)[3], group(12, 13, true));
        let levels = groups_of_levels(&[vec![4, 4], vec![4, 3]], 10);
        assert_eq!(levels, [vec![group(0, 4, false), group(4, 8, false)], vec![group(8, 10, true)]]);
        assert_eq!(groups_of_levels(&[vec![4, 4], vec![4, 3]], 8).len(), 1);
    }

    #[test]
    fn impossible_circuits_are_refused() {
        let chain = BootstrapChain { log_n: 10, message_levels: 3, special_count: 4, ..BootstrapChain::deep() };
        let spec = BootstrapSpec {
            slots_to_coeffs: vec![vec![3], vec![3, 3]],
            coeffs_to_slots: vec![3, 3, 3],
            ..BootstrapSpec::default()
        };
        let insecure = Security::Insecure(crate::params::InsecureToken::for_tests());
        let context = Context::new(chain.parameters(&spec).unwrap(), insecure).unwrap();
        spec.check(&context).unwrap();
        let broken = [
            BootstrapSpec { coeffs_to_slots: vec![3, 3, 2], ..spec.clone() },
            BootstrapSpec { coeffs_to_slots: vec![9, 0], ..spec.clone() },
            BootstrapSpec { slots_to_coeffs: vec![vec![], vec![9]], ..spec.clone() },
            BootstrapSpec { cosine_degree: 31, ..spec.clone() },
            BootstrapSpec { double_angles: 0, ..spec.clone() },
            BootstrapSpec { range: 0, ..spec.clone() },
            BootstrapSpec { log_message_ratio: 0, ..spec.clone() },
            BootstrapSpec { sparse_weight: 1000, ..spec.clone() },
            BootstrapSpec { double_angles: 8, cosine_degree: 126, slots_to_coeffs: vec![vec![1]; 9], ..spec },
        ];
        for spec in broken {
            assert!(spec.check(&context).is_err() || spec.output_level(&context).is_err(), "{spec:?}");
        }
    }
}
