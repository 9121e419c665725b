//! Slots-to-coefficients in a smaller ring.
//!
//! Vectors that repeat lie in a subring `Z[X^g]/(X^N + 1)`, which is a ring of degree `N/g` by itself. At the few levels of
//! slots-to-coefficients a modulus is so small that such a ring is secure, so a ciphertext is switched to a dense ternary secret
//! of the subring first (2012/240). What is left of it outside the subring is noise and dropped, and every matrix after that costs
//! as many times less as the ring is smaller.

use std::collections::{BTreeMap, BTreeSet};

use super::BootstrapSpec;
use crate::{galois_element, special_primes};

/// A ring that slots-to-coefficients goes down to, and the highest level there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LowRing {
    /// log2 of its degree.
    pub log_n: u32,
    /// Level of its chain, the first primes of the whole one. Key-switching digits have one prime each.
    pub level: usize,
}

/// The evaluation keys of a [`LowRing`], all up to its level, besides the one that leads there and the one that leads to the sparse
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowKeys {
    /// The ring's highest level.
    pub level: usize,
    /// Galois elements, below twice the ring's degree.
    pub galois: BTreeSet<u64>,
}

impl LowRing {
    /// How many of the special primes its keys take, the first ones, given the log2 of all primes.
    pub fn special(&self, log2_q: &[f64], log2_p: &[f64]) -> usize {
        let largest = log2_q.iter().take(self.level + 1).fold(0.0f64, |m, &bits| m.max(bits));
        special_primes(largest, log2_p)
    }

    /// log2 of the modulus under which its secret is used, given the log2 of all primes.
    pub fn log_qp(&self, log2_q: &[f64], log2_p: &[f64]) -> f64 {
        let special = self.special(log2_q, log2_p);
        log2_q.iter().take(self.level + 1).chain(&log2_p[..special]).sum()
    }
}

impl BootstrapSpec {
    /// The ring that vectors of `2^log_slots` entries go down to from one of degree `2^log_n`; none where they stay.
    pub fn low_ring(&self, log_slots: u32, log_n: u32) -> Option<LowRing> {
        let low = (log_slots + 1).max(self.least_ring);
        (low < log_n).then(|| LowRing { log_n: low, level: self.input_level(low - 1) })
    }

    /// All rings that vectors can go down to.
    pub fn low_rings(&self, log_n: u32) -> impl Iterator<Item = LowRing> {
        (self.least_ring..log_n).filter_map(move |low| self.low_ring(low - 1, log_n))
    }

    /// The keys of the rings that vectors of `2^k` entries go down to, `k` in `log_slots`, by log2 of the degree.
    pub fn low_keys(&self, log_slots: &BTreeSet<u32>, log_n: u32) -> BTreeMap<u32, LowKeys> {
        let mut rings = BTreeMap::new();
        for &k in log_slots {
            let Some(LowRing { log_n: low, level }) = self.low_ring(k, log_n) else { continue };
            let keys = rings.entry(low).or_insert_with(|| LowKeys { level, galois: BTreeSet::new() });
            let rotations = self.down(k).into_iter().flat_map(|matrix| matrix.rotations());
            keys.galois.extend(rotations.map(|r| galois_element(r, low)).filter(|&element| element != 1));
        }
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{SecurityLevel, max_log_qp};

    #[test]
    fn vectors_go_down_to_the_smallest_ring_that_holds_them() {
        let spec = BootstrapSpec::default();
        let ring = |log_slots| spec.low_ring(log_slots, 16).map(|ring| (ring.log_n, ring.level));
        assert_eq!([3, 12, 13, 14, 15].map(ring), [Some((13, 1)), Some((13, 1)), Some((14, 1)), Some((15, 1)), None]);
        assert_eq!(spec.low_rings(16).map(|ring| ring.log_n).collect::<Vec<_>>(), [13, 14, 15]);
        let stays = BootstrapSpec { least_ring: 16, ..spec };
        assert_eq!((stays.low_ring(12, 16), stays.low_rings(16).count()), (None, 0));
    }

    #[test]
    fn the_smallest_ring_is_secure() {
        let spec = BootstrapSpec::default();
        for ring in spec.low_rings(16) {
            // Two primes of the chain and two special ones.
            let bits = ring.log_qp(&[50.0; 29], &[50.0; 9]);
            assert_eq!((bits, ring.special(&[50.0; 29], &[50.0; 9])), (200.0, 2));
            assert!(max_log_qp(SecurityLevel::Bits128, ring.log_n).is_some_and(|limit| bits <= f64::from(limit)));
        }
    }

    #[test]
    fn rings_share_the_keys_of_all_their_vectors() {
        let spec = BootstrapSpec::default();
        let keys = spec.low_keys(&BTreeSet::from([10, 12, 14, 15]), 16);
        assert_eq!(keys.keys().copied().collect::<Vec<_>>(), [13, 15]);
        let ten = spec.low_keys(&BTreeSet::from([10]), 16);
        assert!(ten[&13].galois.len() < keys[&13].galois.len());
        assert!(keys[&13].galois.iter().all(|&element| element % 2 == 1 && element < 1 << 14));
    }
}
