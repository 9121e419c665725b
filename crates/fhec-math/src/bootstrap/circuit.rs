//! Levels, matrices and rotations of a bootstrap.

use std::collections::{BTreeMap, BTreeSet};

use super::{LowKeys, split};
use crate::bsgs::BsgsTerm;
use crate::chebyshev::depth_of_degree;
use crate::{Scale, conjugation_element, galois_element};

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
    /// Degree of the cosine, even. 28 is one relinearisation cheaper than 30 and four bits less precise: enough beside the rounding errors
    /// for a message ratio of ten bits.
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
    /// log2 of the degree of the smallest ring that slots-to-coefficients goes down to where vectors repeat ([`LowRing`](super::LowRing)).
    /// The security table must grant it the modulus there. That of the whole ring, or more, for none at all.
    pub least_ring: u32,
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
            cosine_degree: 28,
            double_angles: 3,
            arcsine: false,
            slots_to_coeffs: vec![vec![4, 4], vec![4, 3]],
            coeffs_to_slots: vec![4, 4, 4, 3],
            least_ring: 13,
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

impl Group {
    /// Its diagonals, as multiples of the distance of its first layer.
    pub(super) fn indices(&self) -> std::ops::Range<i64> {
        let count = 1i64 << (self.last - self.first);
        if self.wraps { 0..count } else { 1 - count..count }
    }
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
    /// Whether its input still is under the sparse secret, so that the keys of encapsulation make its babies.
    pub raised: bool,
}

impl Matrix {
    /// How its diagonals are computed: multiples of the distance of its first layer.
    pub fn terms(&self) -> Vec<BsgsTerm> {
        let babies = split::babies(&self.group, self.raised);
        let split = |index: i64| {
            let baby = babies.start + (index - babies.start).rem_euclid(babies.end - babies.start);
            (index - baby, baby)
        };
        let distance = 1i64 << self.group.first;
        let term =
            |(giant, baby)| BsgsTerm { giant: giant * distance, out_block: 0, in_block: 0, baby: baby * distance };
        let mut terms: Vec<BsgsTerm> = self.group.indices().map(split).map(term).collect();
        terms.sort_unstable();
        terms
    }

    /// The rotations with evaluation keys: all but 0 and those with the keys of encapsulation.
    pub fn rotations(&self) -> BTreeSet<i64> {
        let switched = |term: BsgsTerm| [Some(term.giant), (!self.raised).then_some(term.baby)];
        self.terms().into_iter().flat_map(switched).flatten().filter(|&rotation| rotation != 0).collect()
    }

    /// The rotations with keys from the sparse secret to the dense one, that by 0 among them.
    pub fn raised_rotations(&self) -> BTreeSet<i64> {
        self.terms().into_iter().filter(|_| self.raised).map(|term| term.baby).collect()
    }
}

/// Evaluation keys with the highest level at which each is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyLevels {
    /// Relinearisation.
    pub relin: usize,
    /// By Galois element.
    pub galois: BTreeMap<u64, usize>,
    /// Galois elements of the keys from the sparse secret to the dense one. They reach up to the end of the chain.
    pub raised: BTreeSet<u64>,
    /// Keys of smaller rings, by log2 of the degree.
    pub low: BTreeMap<u32, LowKeys>,
}

impl BootstrapSpec {
    /// Levels that EvalMod takes.
    pub fn eval_mod_levels(&self) -> usize {
        let arcsine = if self.arcsine { 2 } else { 0 };
        depth_of_degree(self.cosine_degree as usize) + self.double_angles as usize + arcsine
    }

    /// Level of an input with `2^log_slots` slots: as many as slots-to-coefficients takes.
    pub fn input_level(&self, log_slots: u32) -> usize {
        self.down_groups(log_slots).len()
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
        if !(4..=30).contains(&self.least_ring) {
            return Err(format!("a smallest ring of degree 2^{}", self.least_ring));
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
    ///
    /// Vectors of all slots are cut as [`slots_to_coeffs`](Self::slots_to_coeffs) says, and so are others, unless larger matrices, as
    /// many on each level, save them a level.
    pub fn down(&self, log_slots: u32) -> Vec<Matrix> {
        let levels = self.down_groups(log_slots);
        let count = levels.len();
        let matrix = |(i, groups): (usize, Vec<Group>)| {
            let last = groups.len() - 1;
            let matrix = move |(j, group)| Matrix { group, level: count - i, rescale: j == last, raised: false };
            groups.into_iter().enumerate().map(matrix)
        };
        levels.into_iter().enumerate().flat_map(matrix).collect()
    }

    fn down_groups(&self, log_slots: u32) -> Vec<Vec<Group>> {
        let same = groups_of_levels(&self.slots_to_coeffs, log_slots);
        if self.fills(log_slots) {
            return same;
        }
        let larger = groups_of_levels(&split::larger(&self.slots_to_coeffs, log_slots), log_slots);
        if larger.len() < same.len() { larger } else { same }
    }

    /// The matrices of coefficients-to-slots for vectors of `2^log_slots` entries, in the order of use, where results lie at
    /// `output_level`. The first one takes what was raised as it is; the last one leaves the rescale to the sums that follow.
    ///
    /// Vectors of all slots are cut as [`coeffs_to_slots`](Self::coeffs_to_slots) says, all others as is cheapest.
    pub fn up(&self, log_slots: u32, output_level: usize) -> Vec<Matrix> {
        let below = output_level + self.eval_mod_levels() + 1;
        let groups = self.up_groups(log_slots);
        let last = groups.len().wrapping_sub(1);
        let matrix = |(i, group)| Matrix { group, level: below + i, rescale: i > 0, raised: i == last };
        groups.into_iter().enumerate().rev().map(matrix).collect()
    }

    fn up_groups(&self, log_slots: u32) -> Vec<Group> {
        if self.fills(log_slots) {
            return groups(&self.coeffs_to_slots, log_slots);
        }
        let mut cut = split::sparse(&self.coeffs_to_slots);
        cut.push(log_slots);
        groups(&cut, log_slots)
    }

    /// Whether vectors of `2^log_slots` entries fill all slots.
    fn fills(&self, log_slots: u32) -> bool {
        log_slots == self.coeffs_to_slots.iter().sum()
    }

    /// Level to which vectors of `2^log_slots` entries are raised, where results lie at `output_level`.
    pub fn raised_level(&self, log_slots: u32, output_level: usize) -> usize {
        output_level + self.eval_mod_levels() + self.up_groups(log_slots).len()
    }

    /// The sums `x → x + Σ σ(x)` that follow coefficients-to-slots in a ring of degree `2^log_n`, by the Galois elements of the `σ`.
    /// They come before the last rescale, so that its rounding is not added up.
    ///
    /// They are the trace `Σ rot_{j·2^log_slots}`, which leaves of a raised polynomial the coefficients of the subring of
    /// vectors of `2^log_slots` entries, each times the number of rotations. It commutes with the transform, whose diagonals repeat,
    /// and is cheapest at the lowest level. Up to four elements are hoisted: so many times four are cheaper than eight at once
    /// or pairs. With `real` the conjugation is one more of them and leaves the real part of the slots, twice.
    pub fn sums(&self, log_slots: u32, log_n: u32, real: bool) -> Vec<Vec<u64>> {
        let mut sums = Vec::new();
        let mut high = log_n - 1;
        // The conjugation joins the last sum, which therefore doubles once only.
        let mut conjugate = real;
        while high > log_slots || conjugate {
            let doublings = (high - log_slots).min(if sums.is_empty() { 1 } else { 2 });
            high -= doublings;
            let rotations = (0..1i64 << doublings).map(|j| galois_element(j << high, log_n));
            let ways = if std::mem::take(&mut conjugate) { vec![false, true] } else { vec![false] };
            let both = rotations.flat_map(|e| ways.iter().map(move |&way| if way { (2 << log_n) - e } else { e }));
            sums.push(both.filter(|&element| element != 1).collect());
        }
        sums.reverse();
        sums
    }

    /// The evaluation keys for vectors of `2^k` entries, `k` in `log_slots`, in a ring of degree `2^log_n`, where results lie
    /// at up to `output_level`.
    pub fn keys(&self, log_n: u32, output_level: usize, log_slots: &BTreeSet<u32>) -> KeyLevels {
        let top = output_level + self.eval_mod_levels();
        let mut galois = BTreeMap::from([(conjugation_element(log_n), top + 1)]);
        let mut add = |element: u64, level: usize| {
            let known = galois.entry(element).or_insert(level);
            *known = level.max(*known);
        };
        let mut raised = BTreeSet::new();
        for &k in log_slots {
            let stays = self.low_ring(k, log_n).is_none();
            let down = self.down(k).into_iter().filter(|_| stays);
            for matrix in down.chain(self.up(k, output_level)) {
                matrix.rotations().into_iter().for_each(|r| add(galois_element(r, log_n), matrix.level));
                raised.extend(matrix.raised_rotations().into_iter().map(|r| galois_element(r, log_n)));
            }
            let sums = [false, true].map(|real| self.sums(k, log_n, real));
            sums.into_iter().flatten().flatten().for_each(|element| add(element, top + 1));
        }
        KeyLevels { relin: top, galois, raised, low: self.low_keys(log_slots, log_n) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_have_every_diagonal_once() {
        for (group, raised) in [
            (Group { first: 12, last: 15, wraps: true }, true),
            (Group { first: 7, last: 14, wraps: true }, true),
            (Group { first: 8, last: 12, wraps: true }, false),
            (Group { first: 4, last: 7, wraps: false }, false),
            (Group { first: 0, last: 6, wraps: false }, false),
        ] {
            let matrix = Matrix { group, level: 28, rescale: true, raised };
            let mut indices: Vec<i64> = matrix.terms().iter().map(|t| t.giant + t.baby).collect();
            indices.sort_unstable();
            let count = 1i64 << (group.last - group.first);
            let all: Vec<i64> = (if group.wraps { 0 } else { 1 - count }..count).map(|k| k << group.first).collect();
            assert_eq!(indices, all);
            assert_eq!(matrix.raised_rotations().is_empty(), !raised);
            assert!(!matrix.rotations().contains(&0));
        }
    }

    #[test]
    fn sums_take_every_rotation_once() {
        let spec = BootstrapSpec::default();
        for log_slots in 1..=15 {
            for real in [false, true] {
                let mut reached = vec![1];
                for sum in spec.sums(log_slots, 16, real) {
                    assert!(sum.len() <= 3);
                    let images =
                        |r: &u64| [1].into_iter().chain(sum.clone()).map(|s| r * s % (1 << 17)).collect::<Vec<_>>();
                    reached = reached.iter().flat_map(images).collect();
                }
                let rotations = (0..1 << (15 - log_slots)).map(|j: i64| galois_element(j << log_slots, 16));
                let mut all: Vec<u64> =
                    rotations.flat_map(|e| [Some(e), real.then_some((1 << 17) - e)]).flatten().collect();
                reached.sort_unstable();
                all.sort_unstable();
                assert_eq!(reached, all);
            }
        }
        assert_eq!(spec.sums(15, 16, true), [[conjugation_element(16)]]);
        assert_eq!(spec.sums(12, 16, true).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
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
        assert_eq!([8, 9, 12, 14, 15].map(|k| spec.input_level(k)), [1, 1, 1, 1, 2]);
        let levels: Vec<_> = spec.down(15).iter().map(|m| (m.level, m.rescale)).collect();
        assert_eq!(levels, [(2, false), (2, true), (1, false), (1, true)]);
        // Vectors that repeat take two larger matrices and one level.
        let group = |first, last, wraps| Group { first, last, wraps };
        let groups: Vec<_> = spec.down(12).iter().map(|m| (m.level, m.rescale, m.group)).collect();
        assert_eq!(groups, [(1, false, group(0, 6, false)), (1, true, group(6, 12, true))]);
        let levels = |k| spec.up(k, 16).iter().map(|m| (m.level, m.rescale, m.raised)).collect::<Vec<_>>();
        assert_eq!(levels(15), [(28, true, true), (27, true, false), (26, true, false), (25, false, false)]);
        assert_eq!(levels(12), [(28, true, true), (27, true, false), (26, true, false), (25, false, false)]);
        assert_eq!((spec.raised_level(15, 16), spec.raised_level(12, 16)), (28, 28));
        let keys = spec.keys(16, 16, &BTreeSet::from([15, 12]));
        assert_eq!(keys.relin, 24);
        assert_eq!(keys.galois[&conjugation_element(16)], 25);
        // The first matrix comes before the switch to the dense secret.
        assert_eq!(keys.galois.values().max(), Some(&27));
        // Eight rotations for vectors of all slots and 16 for others, that by 0 for both.
        assert_eq!(keys.raised.len(), 23);
    }

    #[test]
    fn numbers_of_slots_share_their_keys() {
        let spec = BootstrapSpec::default();
        let keys = |slots: &[u32]| spec.keys(16, 16, &slots.iter().copied().collect());
        let (full, all) = (keys(&[15]), keys(&[10, 11, 12, 13, 14, 15]));
        assert_eq!(all.raised.len(), 38);
        // Keys of low levels are small.
        let large = |keys: &KeyLevels| keys.galois.values().filter(|&&level| level > 2).count();
        assert!(large(&all) <= large(&full) + 11, "{} {}", large(&all), large(&full));
        assert!(all.galois.len() <= full.galois.len() + 44, "{} {}", all.galois.len(), full.galois.len());
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
