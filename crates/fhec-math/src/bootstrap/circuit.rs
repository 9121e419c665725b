//! Levels, matrices and rotations of a bootstrap.

use std::collections::{BTreeMap, BTreeSet};

use crate::bsgs::BsgsTerm;
use crate::chebyshev::depth_of_degree;
use crate::{Scale, conjugation_element, galois_element};

/// Rotations that are babies, as a log2. Eight babies and at most three giants serve matrices of up to four layers, and those
/// of a sparse vector need no others, so that one set of keys is enough.
const LOG2_BABIES: u32 = 3;

/// Rotations for which there are keys from the sparse secret to the dense one, as a log2: the multiples of an eighth of the slots.
const LOG2_RAISED: u32 = 3;

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
    /// Whether a cubic arcsine follows the sine, at two levels more: what a message ratio below 10 bits asks for. Smaller
    /// ratios leave more bits to the message.
    pub arcsine: bool,
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
    /// The circuit for `N = 2^16`, `q_0` near 2^50 and messages near 2^40.
    fn default() -> Self {
        Self {
            log_message_ratio: 10,
            range: 16,
            sparse_weight: 32,
            cosine_degree: 30,
            double_angles: 3,
            arcsine: false,
            slots_to_coeffs: vec![vec![4, 4], vec![4, 3]],
            coeffs_to_slots: vec![4, 4, 4, 3],
            input_scale: Scale::pow2(40),
        }
    }
}

/// The layers `first + 1 … last` of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Layers before the first one.
    pub first: u32,
    /// The last layer.
    pub last: u32,
    /// Whether `last` is the last layer of all, so that indices count modulo `2^last`.
    pub wraps: bool,
}

/// One matrix and where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Its layers.
    pub group: Group,
    /// Level of its input.
    pub level: usize,
    /// Whether a rescale follows.
    pub rescale: bool,
    /// Whether its input still is under the sparse secret: babies are [`raised_rotations`], with the keys of encapsulation.
    pub raised: bool,
}

impl Matrix {
    /// How its diagonals are computed: multiples of the distance of its first layer.
    pub fn terms(&self) -> Vec<BsgsTerm> {
        let Group { first, last, .. } = self.group;
        let (layers, distance) = (last - first, 1i64 << first);
        let count = 1i64 << layers;
        let indices = if self.group.wraps { 0..count } else { 1 - count..count };
        let split = |index: i64| {
            if self.raised {
                let giant = index % (1 << layers.saturating_sub(LOG2_RAISED));
                (giant, index - giant)
            } else {
                let baby = index.rem_euclid(1 << layers.min(LOG2_BABIES));
                (index - baby, baby)
            }
        };
        let term =
            |(giant, baby)| BsgsTerm { giant: giant * distance, out_block: 0, in_block: 0, baby: baby * distance };
        let mut terms: Vec<BsgsTerm> = indices.map(split).map(term).collect();
        terms.sort_unstable();
        terms
    }

    /// The rotations with evaluation keys: all but 0 and those with the keys of encapsulation.
    pub fn rotations(&self) -> BTreeSet<i64> {
        let switched = |term: BsgsTerm| [Some(term.giant), (!self.raised).then_some(term.baby)];
        self.terms().into_iter().flat_map(switched).flatten().filter(|&rotation| rotation != 0).collect()
    }
}

/// Evaluation keys with the highest level at which each is used. The keys of encapsulation come on top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLevels {
    /// Relinearisation.
    pub relin: usize,
    /// By Galois element.
    pub galois: BTreeMap<u64, usize>,
}

impl BootstrapSpec {
    /// Levels that EvalMod takes.
    pub fn eval_mod_levels(&self) -> usize {
        let arcsine = if self.arcsine { 2 } else { 0 };
        depth_of_degree(self.cosine_degree as usize) + self.double_angles as usize + arcsine
    }

    /// Level of an input with `2^log_slots` slots: as many as slots-to-coefficients takes.
    pub fn input_level(&self, log_slots: u32) -> usize {
        groups_of_levels(&self.slots_to_coeffs, log_slots).len()
    }

    /// Highest level that a result can have in a chain that ends at `max_level`; `None` where the circuit does not fit it.
    pub fn output_level(&self, max_level: usize) -> Option<usize> {
        let above = self.eval_mod_levels() + self.coeffs_to_slots.len();
        max_level.checked_sub(above).filter(|&level| level >= self.slots_to_coeffs.len())
    }

    /// Checks the circuit against a ring of degree `2^log_n` and a chain that begins with `q_0` and ends at `max_level`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, log_n: u32, q_0: u64, max_level: usize) -> Result<(), String> {
        let layers = log_n - 1;
        let (down, up) = (self.slots_to_coeffs.len(), self.coeffs_to_slots.len());
        for split in [&self.slots_to_coeffs.concat(), &self.coeffs_to_slots] {
            let sum = split.iter().try_fold(0u32, |sum, &part| sum.checked_add(part));
            if sum != Some(layers) || split.iter().any(|part| !(1..=8).contains(part)) {
                return Err(format!("{split:?} are not numbers of 1 … 8 layers that sum to {layers}"));
            }
        }
        if self.slots_to_coeffs.iter().any(Vec::is_empty) {
            return Err("a level of slots-to-coefficients has no matrix".into());
        }
        if !self.cosine_degree.is_multiple_of(2) || !(2..=126).contains(&self.cosine_degree) {
            return Err(format!("degree {} of the cosine is not even and in 2 … 126", self.cosine_degree));
        }
        if !(1..=8).contains(&self.double_angles) || !(1..=64).contains(&self.range) {
            let (angles, range) = (self.double_angles, self.range);
            return Err(format!("{angles} double angles are not in 1 … 8, or K = {range} is not in 1 … 64"));
        }
        if !(1..=30).contains(&self.log_message_ratio) {
            return Err(format!("message ratio of {} bits is not in 1 … 30", self.log_message_ratio));
        }
        if self.sparse_weight == 0 || self.sparse_weight > 1 << layers {
            return Err(format!("weight {} of the sparse secret", self.sparse_weight));
        }
        // Coefficients grow by up to √2 a layer within slots-to-coefficients.
        let log2_message = (q_0 as f64).log2() - f64::from(self.log_message_ratio);
        if log2_message < 10.0 || self.input_scale.log2() < 10.0 {
            return Err(format!("a message of {log2_message:.1} bits"));
        }
        let above = self.eval_mod_levels() + up;
        self.output_level(max_level)
            .map(|_| ())
            .ok_or_else(|| format!("{down} + {above} levels do not fit a chain that ends at {max_level}"))
    }

    /// The matrices of slots-to-coefficients for vectors of `2^log_slots` entries, in the order of use.
    pub fn down(&self, log_slots: u32) -> Vec<Matrix> {
        let levels = groups_of_levels(&self.slots_to_coeffs, log_slots);
        let count = levels.len();
        let matrix = |(i, groups): (usize, Vec<Group>)| {
            let last = groups.len() - 1;
            let matrix = move |(j, group)| Matrix { group, level: count - i, rescale: j == last, raised: false };
            groups.into_iter().enumerate().map(matrix)
        };
        levels.into_iter().enumerate().flat_map(matrix).collect()
    }

    /// The matrices of coefficients-to-slots for vectors of `2^log_slots` entries, in the order of use, where results lie at
    /// `output_level`. Where no trace comes before, the first one takes what was raised as it is.
    pub fn up(&self, log_slots: u32, output_level: usize) -> Vec<Matrix> {
        let below = output_level + self.eval_mod_levels() + 1;
        let full = log_slots == self.coeffs_to_slots.iter().sum();
        let groups = groups(&self.coeffs_to_slots, log_slots);
        let last = groups.len().wrapping_sub(1);
        let matrix = |(i, group)| Matrix { group, level: below + i, rescale: true, raised: full && i == last };
        groups.into_iter().enumerate().rev().map(matrix).collect()
    }

    /// Level to which vectors of `2^log_slots` entries are raised, where results lie at `output_level`.
    pub fn raised_level(&self, log_slots: u32, output_level: usize) -> usize {
        output_level + self.eval_mod_levels() + groups(&self.coeffs_to_slots, log_slots).len()
    }

    /// All rotations of the matrices to slots for some numbers of slots: traces make do with them as far as they can.
    pub fn up_rotations(&self, log_slots: &BTreeSet<u32>) -> BTreeSet<i64> {
        log_slots.iter().flat_map(|&k| self.up(k, 0)).flat_map(|matrix| matrix.rotations()).collect()
    }

    /// The evaluation keys for vectors of `2^k` entries, `k` in `log_slots`, in a ring of degree `2^log_n`, where results lie
    /// at up to `output_level`.
    pub fn keys(&self, log_n: u32, output_level: usize, log_slots: &BTreeSet<u32>) -> KeyLevels {
        let top = output_level + self.eval_mod_levels();
        let mut galois = BTreeMap::from([(conjugation_element(log_n), top)]);
        let mut add = |rotations: BTreeSet<i64>, level: usize| {
            for rotation in rotations {
                let known = galois.entry(galois_element(rotation, log_n)).or_insert(level);
                *known = level.max(*known);
            }
        };
        let up_rotations = self.up_rotations(log_slots);
        for &k in log_slots {
            for matrix in self.down(k).into_iter().chain(self.up(k, output_level)) {
                add(matrix.rotations(), matrix.level);
            }
            for sum in trace(k, log_n - 1, &up_rotations).into_iter().skip(1) {
                add(sum.into_iter().filter(|&r| r != 0).collect(), self.raised_level(k, output_level));
            }
        }
        KeyLevels { relin: top, galois }
    }
}

/// Cuts the layers of a vector of `2^log_slots` entries where `split` does.
pub fn groups(split: &[u32], log_slots: u32) -> Vec<Group> {
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
pub fn groups_of_levels(split: &[Vec<u32>], log_slots: u32) -> Vec<Vec<Group>> {
    let mut all = groups(&split.concat(), log_slots).into_iter();
    let levels = split.iter().map(|level| all.by_ref().take(level.len()).collect::<Vec<_>>());
    levels.filter(|level| !level.is_empty()).collect()
}

/// The rotations of a vector of `2^log_all` slots for which there are keys from the sparse secret to the dense one: the multiples
/// of an eighth of the slots, 0 among them.
///
/// What is raised is below `q_0`, so one digit holds it and one special prime is enough: such a key takes a quarter of the memory
/// and of the time of another for its level. So the first matrix of full vectors and the first sum of a trace, which need just
/// these rotations, come before the switch to the dense secret.
pub fn raised_rotations(log_all: u32) -> impl Iterator<Item = i64> {
    let doublings = log_all.min(LOG2_RAISED);
    (0..1i64 << doublings).map(move |j| j << (log_all - doublings))
}

/// The trace to vectors of `2^log_slots` slots, `Σ rot_{j·2^log_slots}` over all `j < 2^(log_all − log_slots)`: a few sums one
/// after the other. The first one takes as many of the [`raised_rotations`] as there are in the trace; the others each as many
/// hoisted rotations as there are keys for among `keys`. Single rotations are used whether there are keys or not.
/// Every sum begins with the rotation by 0; full vectors have none.
pub fn trace(log_slots: u32, log_all: u32, keys: &BTreeSet<i64>) -> Vec<Vec<i64>> {
    let raised = (log_all - log_slots).min(LOG2_RAISED);
    let end = log_all - raised;
    let first = (0..1i64 << raised).map(|j| j << end).collect();
    let mut sums = if raised > 0 { vec![first] } else { Vec::new() };
    let mut low = log_slots;
    while low < end {
        let fits = |&doublings: &u32| (1..1i64 << doublings).all(|j| keys.contains(&(j << low)));
        let doublings = (1..=(end - low).min(LOG2_BABIES)).rev().find(fits).unwrap_or(1);
        sums.push((0..1i64 << doublings).map(|j| j << low).collect());
        low += doublings;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_groups_use_the_rotations_of_full_ones() {
        let matrix =
            |first, last, wraps| Matrix { group: Group { first, last, wraps }, level: 1, rescale: true, raised: false };
        for first in [0, 4, 8] {
            let full = matrix(first, first + 4, false).rotations();
            assert_eq!(full.len(), 10);
            for last in first + 1..=first + 4 {
                let sparse = matrix(first, last, true).rotations();
                assert!(sparse.is_subset(&full), "{first} {last}");
            }
        }
    }

    #[test]
    fn raised_matrices_have_every_diagonal_once_and_babies_among_the_raised_rotations() {
        for (first, last) in [(14, 15), (12, 15), (11, 15), (9, 15)] {
            let group = Group { first, last, wraps: true };
            let matrix = Matrix { group, level: 28, rescale: true, raised: true };
            let babies: BTreeSet<i64> = raised_rotations(15).collect();
            let mut indices: Vec<i64> = matrix.terms().iter().map(|t| t.giant + t.baby).collect();
            assert!(matrix.terms().iter().all(|t| babies.contains(&t.baby)));
            indices.sort_unstable();
            let all: Vec<i64> = (0..1i64 << (last - first)).map(|k| k << first).collect();
            assert_eq!(indices, all);
            let giants = (1usize << (last - first).saturating_sub(3)) - 1;
            assert_eq!(matrix.rotations().len(), giants);
        }
        let spec = BootstrapSpec::default();
        let raised = |log_slots| spec.up(log_slots, 16).iter().map(|m| m.raised).collect::<Vec<_>>();
        assert_eq!(raised(15), [true, false, false, false]);
        assert_eq!(raised(14), [false; 4]);
    }

    #[test]
    fn trace_takes_every_rotation_once() {
        let keys: BTreeSet<i64> = (1..8).map(|j| j << 12).chain((1..8).map(|j| j << 8)).collect();
        for log_slots in 0..=15 {
            let mut reached = vec![0];
            for sum in trace(log_slots, 15, &keys) {
                reached = reached.iter().flat_map(|r| sum.iter().map(move |s| r + s)).collect();
            }
            reached.sort_unstable();
            let all: Vec<i64> = (0..1 << (15 - log_slots)).map(|j: i64| j << log_slots).collect();
            assert_eq!(reached, all);
        }
        assert_eq!(trace(15, 15, &keys), Vec::<Vec<i64>>::new());
        assert_eq!(trace(12, 15, &keys), [raised_rotations(15).collect::<Vec<_>>()]);
        assert_eq!(trace(13, 15, &keys), [[0, 1 << 13, 2 << 13, 3 << 13]]);
        assert_eq!(trace(10, 15, &keys).len(), 3);
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
    fn levels_of_the_deep_circuit() {
        let spec = BootstrapSpec::default();
        assert_eq!((spec.eval_mod_levels(), spec.output_level(28)), (8, Some(16)));
        assert_eq!(spec.input_level(15), 2);
        let levels: Vec<_> = spec.down(15).iter().map(|m| (m.level, m.rescale)).collect();
        assert_eq!(levels, [(2, false), (2, true), (1, false), (1, true)]);
        let levels: Vec<_> = spec.up(15, 16).iter().map(|m| m.level).collect();
        assert_eq!(levels, [28, 27, 26, 25]);
        assert_eq!(spec.raised_level(15, 16), 28);
        let keys = spec.keys(16, 16, &BTreeSet::from([15, 12]));
        assert_eq!(keys.relin, 24);
        assert_eq!(keys.galois[&conjugation_element(16)], 24);
        // The first matrix and the trace come before the switch to the dense secret.
        assert_eq!(keys.galois.values().max(), Some(&27));
    }

    #[test]
    fn impossible_circuits_are_refused() {
        let spec = BootstrapSpec {
            slots_to_coeffs: vec![vec![3], vec![3, 3]],
            coeffs_to_slots: vec![3, 3, 3],
            ..BootstrapSpec::default()
        };
        let check = |spec: &BootstrapSpec| spec.check(10, 1 << 50, 20);
        check(&spec).expect("fits");
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
            assert!(check(&spec).is_err(), "{spec:?}");
        }
    }
}
