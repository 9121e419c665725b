//! The key manifest: which evaluation keys a plan needs.

use crate::Parameters;
use crate::linear::LinearGroup;
use fhec_math::bootstrap::{BootstrapSpec, LowKeys};
use fhec_math::galois_element;
use std::collections::{BTreeMap, BTreeSet};

/// The evaluation keys a plan needs, each only up to the highest level at which it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyManifest {
    /// Highest level at which a product is relinearised; `None` when none is.
    pub relin: Option<usize>,
    /// Galois element → highest level at which it is used.
    pub galois: BTreeMap<u64, usize>,
    /// Galois elements without a key → the two with keys that make them, where memory is short. Nothing in bootstraps.
    pub composed: BTreeMap<u64, [u64; 2]>,
    /// Galois elements of the keys from the sparse secret of bootstraps to the main one.
    pub raised: BTreeSet<u64>,
    /// Keys of the smaller rings that bootstraps go down to, by log2 of the degree.
    pub low: BTreeMap<u32, LowKeys>,
}

/// Rotations of a group of terms that are made of two others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Composed {
    /// Babies, each input's by itself.
    pub babies: usize,
    /// Giants, each output's by itself.
    pub giants: usize,
    /// Folds of one output.
    pub folds: usize,
}

impl KeyManifest {
    /// Whether an automorphism can be made at a level, by one key or by two.
    pub fn reaches(&self, element: u64, level: usize) -> bool {
        let has = |element: &u64| self.galois.get(element).is_some_and(|&highest| highest >= level);
        has(&element) || self.composed.get(&element).is_some_and(|two| two.iter().all(has))
    }

    /// log2 of the degree of a smaller ring of which others lack a key that is here.
    pub fn lacks_low(&self, others: &Self) -> Option<u32> {
        let has = |log_n: &u32, keys: &LowKeys| {
            let other = others.low.get(log_n);
            other.is_some_and(|other| other.level == keys.level && keys.galois.is_subset(&other.galois))
        };
        self.low.iter().find(|(log_n, keys)| !has(log_n, keys)).map(|(&log_n, _)| log_n)
    }

    /// What of a group's rotations takes two key switches.
    pub fn composed_in(&self, group: &LinearGroup, log_n: u32) -> Composed {
        if self.composed.is_empty() {
            return Composed::default();
        }
        let composed = |rotation: i64| self.composed.contains_key(&galois_element(rotation, log_n));
        let count = |list: &[(usize, i64)]| list.iter().filter(|(_, rotation)| composed(*rotation)).count();
        Composed {
            babies: count(group.bsgs.babies()),
            giants: count(group.bsgs.giants()),
            folds: group.fold.iter().filter(|&&step| composed(step as i64)).count(),
        }
    }

    /// Adds the keys of bootstraps of vectors with the given log2 numbers of slots, and returns the elements of their Galois keys.
    pub fn add_bootstraps(&mut self, parameters: &Parameters, log_slots: &BTreeSet<u32>) -> BTreeSet<u64> {
        let spec = parameters.bootstrap.as_ref().filter(|_| !log_slots.is_empty());
        spec.map_or_else(BTreeSet::new, |spec| {
            self.add_bootstrap(spec, parameters.log_n, parameters.message_level(), log_slots)
        })
    }

    /// The same in a ring of degree `2^log_n`, where results lie at up to `output_level`.
    pub fn add_bootstrap(
        &mut self,
        spec: &BootstrapSpec,
        log_n: u32,
        output_level: usize,
        log_slots: &BTreeSet<u32>,
    ) -> BTreeSet<u64> {
        let more = spec.keys(log_n, output_level, log_slots);
        let elements = more.galois.keys().copied().collect();
        self.relin = Some(self.relin.map_or(more.relin, |level| level.max(more.relin)));
        for (element, level) in more.galois {
            let known = self.galois.entry(element).or_insert(level);
            *known = level.max(*known);
        }
        self.raised.extend(more.raised);
        for (log_n, keys) in more.low {
            let known = self.low.entry(log_n).or_insert_with(|| LowKeys { galois: BTreeSet::new(), ..keys });
            known.galois.extend(keys.galois);
        }
        elements
    }
}
