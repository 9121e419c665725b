//! Numbers that follow from the weights, so that compiling stays deterministic, and that nobody knows who does not know them.

use fhec_ir::nn::Graph;

/// What numbers are for: each use has a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Factors of channels.
    Factors,
    /// The order of channels.
    Order,
}

impl Purpose {
    /// The string that separates the streams in BLAKE3's key derivation mode.
    fn context(self) -> &'static str {
        match self {
            Purpose::Factors => "fhec client-aided channel factors",
            Purpose::Order => "fhec client-aided channel order",
        }
    }
}

/// A stream of uniform numbers.
pub(super) struct Secrets(blake3::OutputReader);

impl Secrets {
    /// The stream of a network's constants.
    pub(super) fn of(graph: &Graph, purpose: Purpose) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose.context());
        for constant in &graph.constants {
            constant.values().iter().for_each(|v| {
                hasher.update(&v.to_le_bytes());
            });
        }
        Secrets(hasher.finalize_xof())
    }

    fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in [1/2, 1).
    pub(super) fn factor(&mut self) -> f64 {
        0.5 + (self.word() >> 11) as f64 / (1u64 << 54) as f64
    }

    /// Puts things into an order of which all are equally likely, but for 2^-64 times their number (Fisher–Yates).
    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let at = (u128::from(self.word()) * (last as u128 + 1)) >> 64;
            things.swap(last, at as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_ir::Tensor;
    use std::collections::BTreeMap;

    fn graph(weight: f64) -> Graph {
        Graph { constants: vec![Tensor::scalar(weight)], ..Graph::default() }
    }

    #[test]
    fn streams_follow_from_weights_and_purpose() {
        let first = |weight, purpose| Secrets::of(&graph(weight), purpose).word();
        assert_eq!(first(1.0, Purpose::Order), first(1.0, Purpose::Order));
        assert_ne!(first(1.0, Purpose::Order), first(1.5, Purpose::Order));
        assert_ne!(first(1.0, Purpose::Order), first(1.0, Purpose::Factors));
    }

    #[test]
    fn all_orders_are_equally_likely() {
        let mut secrets = Secrets::of(&graph(1.0), Purpose::Order);
        let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for _ in 0..24_000 {
            let mut things = vec![0, 1, 2, 3];
            secrets.shuffle(&mut things);
            *counts.entry(things).or_default() += 1;
        }
        assert_eq!(counts.len(), 24);
        // 1 000 each, with a deviation of 31.
        assert!(counts.values().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}
