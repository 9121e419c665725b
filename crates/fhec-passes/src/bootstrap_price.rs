//! What a bootstrap costs: the sum of its parts, each priced like the same operation anywhere else, times the measured
//! [factor](crate::cost::CostTable::bootstrap) between the whole and its parts.

use crate::cost::Prices;
use fhec_math::bootstrap::{BootstrapSpec, LowKeys, LowRing, Matrix};
use fhec_math::chebyshev::{ChebyshevOp, ChebyshevPlan, depth_of_degree};
use fhec_math::diagonals::STEP;
use std::collections::{BTreeMap, BTreeSet};

/// The parts of a bootstrap of vectors of one number of slots, counted once for all chains and targets.
#[derive(Clone, Debug)]
pub struct Circuit {
    log_slots: u32,
    /// Slots to coefficients, with absolute levels.
    down: Vec<Part>,
    /// The ring in which that happens, where it is a smaller one.
    low: Option<LowRing>,
    /// Coefficients to slots, with levels above the target.
    up: Vec<Part>,
    /// Level to which vectors are raised, above the target.
    raised: usize,
    /// Key switches of every sum that follows; of two ciphertexts at once, and of a single one, with the conjugation.
    sums: [Vec<usize>; 2],
    /// Rotations with keys from the sparse secret.
    keys: BTreeSet<i64>,
    /// Level of EvalMod's argument, above the target.
    eval_mod: usize,
    cosine: Vec<ChebyshevOp>,
    /// Level of the first double angle's result and their number.
    doubled: (usize, usize),
    arcsine: Vec<ChebyshevOp>,
}

/// One matrix.
#[derive(Clone, Copy, Debug)]
struct Part {
    level: usize,
    rescale: bool,
    babies: usize,
    giants: usize,
    products: usize,
    /// log2 of the number of slots after which diagonals repeat.
    log_period: u32,
    /// Whether its babies lead from the sparse secret to the dense one.
    raised: bool,
}

impl Part {
    fn of(matrix: &Matrix) -> Self {
        let terms = matrix.terms();
        let distinct = |rotations: BTreeSet<i64>| rotations.into_iter().filter(|&r| r != 0).count();
        Part {
            level: matrix.level,
            rescale: matrix.rescale,
            babies: distinct(terms.iter().map(|t| t.baby).collect()),
            giants: distinct(terms.iter().map(|t| t.giant).collect()),
            products: terms.len(),
            log_period: matrix.group.last,
            raised: matrix.raised,
        }
    }
}

impl Circuit {
    /// The circuit for vectors of `2^log_slots` slots in a ring of degree `2^log_n`.
    pub fn new(spec: &BootstrapSpec, log_slots: u32, log_n: u32) -> Self {
        let operations = |coefficients: &[f64]| {
            ChebyshevPlan::new(coefficients).map_or(Vec::new(), |plan: ChebyshevPlan| plan.operations())
        };
        // The cosine's values do not matter, only that it is even.
        let even: Vec<f64> = (0..=spec.cosine_degree).map(|k| f64::from(u32::from(k % 2 == 0))).collect();
        let up = spec.up(log_slots, 0);
        let levels = spec.eval_mod_levels();
        let doubles = spec.double_angles as usize;
        Circuit {
            log_slots,
            down: spec.down(log_slots).iter().map(Part::of).collect(),
            low: spec.low_ring(log_slots, log_n),
            up: up.iter().map(Part::of).collect(),
            raised: spec.raised_level(log_slots, 0),
            sums: [false, true].map(|real| spec.sums(log_slots, log_n, real).iter().map(Vec::len).collect()),
            keys: up.iter().flat_map(Matrix::raised_rotations).collect(),
            eval_mod: levels,
            cosine: operations(&even),
            doubled: (levels - depth_of_degree(spec.cosine_degree as usize) - doubles, doubles),
            arcsine: if spec.arcsine { operations(&[0.0, 1.0, 0.0, 1.0]) } else { Vec::new() },
        }
    }

    /// Bytes of its encoded matrices, and seconds to encode them, where results lie at up to `output_level`; those of several circuits
    /// of one chain are shared where they are the same.
    fn matrices(
        &self,
        prices: &Prices<'_>,
        output_level: usize,
        shared: &mut BTreeMap<(u32, usize, bool, u32), (u64, f64)>,
    ) {
        let low = self.low.map(|ring| prices.shape().low(ring, ring.log_n));
        let below = low.as_ref().map_or(*prices, |shape| prices.of(shape));
        let up = self.up.iter().map(|part| Part { level: part.level + output_level, ..*part });
        let down = self.down.iter().map(|part| (below, *part));
        for (prices, part) in down.chain(up.map(|part| (*prices, part))) {
            let slots = prices.shape().log_n - 1;
            let repeat = 1u64 << (slots - part.log_period.min(slots)).min(STEP.ilog2());
            let values = (1u64 << prices.shape().log_n) / repeat;
            let word = (repeat >= 8).then_some(8);
            let limbs = if part.raised {
                prices.raised_bytes(part.level, word)
            } else {
                prices.limb_bytes(part.level, true, word)
            };
            let bytes = part.products as u64 * limbs;
            let wraps = part.log_period == self.log_slots;
            // Complex vectors take twice as long as real ones.
            let seconds =
                2.0 * part.products as f64 * prices.encode_diagonal(1 << part.log_period.min(slots), part.level);
            shared.insert((part.log_period, part.level, wraps, slots), (bytes * values, seconds));
        }
    }
}

impl Prices<'_> {
    /// Seconds of bootstrapping `ciphertexts` to level `target`, two at a time where there are two; nothing where the chain has no
    /// bootstraps.
    pub fn bootstrap(&self, circuit: &Circuit, ciphertexts: usize, target: usize) -> f64 {
        if self.shape().bootstrap.is_none() {
            return 0.0;
        }
        let pairs = (ciphertexts / 2) as f64 * self.linear_part(circuit, target, false);
        let single = (ciphertexts % 2) as f64 * self.linear_part(circuit, target, true);
        self.bootstrap_factor() * (pairs + single + ciphertexts as f64 * self.eval_mod(circuit, target))
    }

    /// Bytes of the encoded matrices of bootstraps, and the seconds that the first one takes to encode them.
    pub fn bootstrap_matrices(&self, circuits: &BTreeMap<u32, Circuit>) -> (u64, f64) {
        let top = self.shape().log2_q.len() - 1;
        let Some(output) = self.shape().bootstrap.as_ref().and_then(|spec| spec.output_level(top)) else {
            return (0, 0.0);
        };
        let mut matrices = BTreeMap::new();
        circuits.values().for_each(|circuit| circuit.matrices(self, output, &mut matrices));
        matrices.values().fold((0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    /// Bytes that bootstraps hold besides evaluation keys: encoded matrices, and the keys of encapsulation.
    pub fn bootstrap_bytes(&self, circuits: &BTreeMap<u32, Circuit>) -> u64 {
        let Some(spec) = &self.shape().bootstrap else { return 0 };
        let rotations: BTreeSet<i64> = circuits.values().flat_map(|circuit| circuit.keys.iter().copied()).collect();
        let low = spec.low_keys(&circuits.keys().copied().collect(), self.shape().log_n);
        self.bootstrap_matrices(circuits).0 + self.encapsulation_bytes(rotations.len(), &low)
    }

    /// Bytes in memory of the keys of encapsulation, so many of them from the sparse secret, and of those of smaller rings.
    pub(crate) fn encapsulation_bytes(&self, raised: usize, low: &BTreeMap<u32, LowKeys>) -> u64 {
        let (log_n, top) = (self.shape().log_n, self.shape().log2_q.len() - 1);
        // Two halves over q_0 and p_0, and two of every key from the sparse secret over the chain and p_0.
        let to_sparse = (2 * 2 * 8) << log_n;
        let up = (2 * raised as u64 * self.raised_bytes(top, None)) << log_n;
        let ring_bytes = |(&inner, keys): (&u32, &LowKeys)| {
            let ring = LowRing { log_n: inner, level: keys.level };
            let key = |log_n: u32| self.of(&self.shape().low(ring, log_n)).key_bytes(ring.level);
            to_sparse + key(log_n) + keys.galois.len() as u64 * key(inner)
        };
        to_sparse + up + low.iter().map(ring_bytes).sum::<u64>()
    }

    /// Peak bytes of scratch memory of a bootstrap to level `target` on one thread: the babies of the first matrix after the raise,
    /// and the digits that they are made of.
    pub fn bootstrap_scratch(&self, circuit: &Circuit, target: usize) -> u64 {
        let raised = circuit.raised + target;
        let limbs = (raised + 1 + self.shape().special_at(raised)) as u64;
        let babies = circuit.up.first().map_or(0, |part| part.babies as u64 + 1);
        let polynomials = 2 * babies + self.shape().digits_at(raised) as u64;
        (8 * polynomials * limbs) << self.shape().log_n
    }

    /// Everything up to EvalMod, for one ciphertext if `real`, or for two at once. A lower target leaves out limbs of the message,
    /// so all levels above lie as much lower.
    fn linear_part(&self, circuit: &Circuit, target: usize, real: bool) -> f64 {
        let raised = circuit.raised + target;
        let down = self.down(circuit);
        let up: f64 = circuit.up.iter().map(|part| self.part(part, part.level + target)).sum();
        // The sums come before the last rescale. Each divides one part, for its digits, and the last one, as if it were the last matrix, both.
        let end = target + circuit.eval_mod + 1;
        let w = self.linear_weights(end);
        let divided = self.mod_down(end, false);
        let sum = |&switches: &usize| w.decompose + switches as f64 * w.baby + divided / 2.0;
        let sums: f64 = circuit.sums[usize::from(real)].iter().map(sum).sum();
        let conjugation =
            if real { self.mod_down(end, true) - divided } else { self.rotate(end) + 2.0 * self.rescale(end, 2) };
        // Both parts are raised to the chain, and one to a special prime too.
        down + self.transforms((2 * raised + 3) as f64) + up + sums + conjugation
    }

    /// Slots to coefficients.
    fn down(&self, circuit: &Circuit) -> f64 {
        let sum = |prices: &Prices<'_>| circuit.down.iter().map(|part| prices.part(part, part.level)).sum::<f64>();
        let Some(ring) = circuit.low else { return sum(self) };
        let (entry, inside) = (self.shape().low(ring, self.shape().log_n), self.shape().low(ring, ring.log_n));
        let begin = circuit.down.first().map_or(0, |part| part.level);
        self.of(&entry).relinearise(begin) + sum(&self.of(&inside))
    }

    fn part(&self, part: &Part, level: usize) -> f64 {
        if part.raised {
            let giants = part.giants as f64 * (self.raised_division(level) + self.rotate(level));
            return (part.babies + 1) as f64 * self.raised_inner_product(level)
                + part.products as f64 * self.raised_product(level)
                + self.raised_division(level)
                + giants;
        }
        let w = self.linear_weights(level);
        w.decompose
            + part.babies as f64 * w.baby
            + part.giants as f64 * w.giant
            + part.products as f64 * w.product
            + self.mod_down(level, part.rescale)
    }

    /// The cosine, its double angles and the arcsine.
    fn eval_mod(&self, circuit: &Circuit, target: usize) -> f64 {
        let (bottom, doubles) = circuit.doubled;
        let angle = |k: usize| {
            let level = target + bottom + k;
            self.multiply(level) + self.relinearise_rescale(level) + self.elementwise(level, 3)
        };
        self.operations(target + circuit.eval_mod, &circuit.cosine)
            + (1..=doubles).map(angle).sum::<f64>()
            + self.operations(target + bottom, &circuit.arcsine)
    }
}

#[cfg(test)]
mod tests {
    use super::Circuit;
    use crate::cost::CostTable;
    use crate::shape::Shape;
    use fhec_math::bootstrap::BootstrapSpec;
    use std::collections::BTreeMap;

    fn shape() -> Shape {
        Shape {
            log_n: 16,
            log2_q: vec![49.0; 29],
            log2_p: vec![49.5; 10],
            digits: vec![10, 10, 9],
            bootstrap: Some(BootstrapSpec::default()),
        }
    }

    fn circuit(log_slots: u32) -> Circuit {
        Circuit::new(&BootstrapSpec::default(), log_slots, 16)
    }

    #[test]
    fn fewer_slots_lower_targets_and_pairs_are_cheaper() {
        let (shape, table) = (shape(), CostTable::default());
        let prices = table.prices(&shape);
        let full = prices.bootstrap(&circuit(15), 1, 16);
        assert!((0.5..10.0).contains(&full), "{full}");
        assert!(prices.bootstrap(&circuit(15), 1, 8) < 0.9 * full);
        assert!(prices.bootstrap(&circuit(12), 1, 16) < full);
        assert!(prices.bootstrap(&circuit(15), 2, 16) < 1.5 * full);
        let three = prices.bootstrap(&circuit(15), 2, 16) + full;
        assert!((prices.bootstrap(&circuit(15), 3, 16) - three).abs() < 1e-9);
    }

    #[test]
    fn circuits_share_matrices() {
        let (shape, table) = (shape(), CostTable::default());
        let prices = table.prices(&shape);
        let bytes =
            |slots: &[u32]| prices.bootstrap_bytes(&slots.iter().map(|&k| (k, circuit(k))).collect::<BTreeMap<_, _>>());
        assert!((100 << 20..1 << 30).contains(&bytes(&[15])), "{}", bytes(&[15]));
        // Layers 1 … 4 and 5 … 8 are the same for both; 9 … 12 wrap for 12.
        assert!(bytes(&[15, 12]) < bytes(&[15]) + bytes(&[12]));
        assert!(bytes(&[15, 12]) > bytes(&[15]));
        assert_eq!(bytes(&[15, 15]), bytes(&[15]));
    }
}
