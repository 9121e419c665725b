//! How transforms are cut into matrices, and matrices into babies and giants: by price.
//!
//! Prices are milliseconds on one thread at `N = 2^16` and the levels of coefficients-to-slots. Only their
//! proportions matter, and these hardly depend on the ring: all of it is transforms, conversions and products of as many limbs.

use std::collections::BTreeSet;
use std::ops::Range;

use super::circuit::{Group, Matrix, groups};

/// Decomposition of the input of a matrix and the division of its result.
const MATRIX: f64 = 53.0;
/// A baby: an inner product with a key.
const BABY: f64 = 4.5;
/// A giant: a division, a decomposition and an inner product.
const GIANT: f64 = 43.0;
/// A product with a diagonal.
const PRODUCT: f64 = 0.5;
/// Division of the result of a matrix whose input was raised.
const RAISED_MATRIX: f64 = 13.0;
/// A baby with a key from the sparse secret.
const RAISED_BABY: f64 = 3.5;
/// A giant after such babies: a division by the one special prime and a whole key switch.
const RAISED_GIANT: f64 = 55.0;
/// What a bootstrap may take longer to make do with a key less: each has to be made, sent, read and held.
const KEY: f64 = 10.0;

/// Babies of a matrix whose input was raised, as a log2: each has a key that nothing else uses.
const LOG2_RAISED: u32 = 5;
/// Most layers of one matrix below the first one.
const MOST_LAYERS: u32 = 5;
/// Most layers of one matrix of slots-to-coefficients on average, where vectors repeat: at the lowest levels babies, giants and their keys take
/// a twentieth of what they take above.
const MOST_LOW_LAYERS: u32 = 7;
/// So many doublings from a vector of all slots down are what the transforms of repeating vectors are cut for.
const RANGE: u32 = 5;

/// The babies of a group's matrix as multiples of its distance. Giants are the multiples of their number.
///
/// They begin with 0 or, where that takes no giants, with the lowest diagonal.
pub(super) fn babies(group: &Group, raised: bool) -> Range<i64> {
    let layers = group.last - group.first;
    let all = group.indices();
    if raised {
        return 0..1 << layers.min(LOG2_RAISED);
    }
    let price = |babies: &Range<i64>| {
        let (babies, giants) = rotations(group, babies);
        BABY * babies + GIANT * giants + KEY * (babies + giants)
    };
    let choices = (0..=layers).map(|babies| 0..1i64 << babies).chain([all]);
    choices.min_by(|a, b| price(a).total_cmp(&price(b))).unwrap_or(0..1)
}

/// Numbers of babies and giants besides those by 0.
fn rotations(group: &Group, babies: &Range<i64>) -> (f64, f64) {
    let (all, count) = (group.indices(), babies.end - babies.start);
    let giant = |index: i64| (index - babies.start).div_euclid(count);
    ((count - 1) as f64, (giant(all.end - 1) - giant(all.start)) as f64)
}

fn price(matrix: &Matrix) -> f64 {
    let (group, babies) = (&matrix.group, babies(&matrix.group, matrix.raised));
    let (switched, giants) = rotations(group, &babies);
    let all = group.indices();
    let products = PRODUCT * (all.end - all.start) as f64;
    if matrix.raised {
        RAISED_MATRIX + RAISED_BABY * (switched + 1.0) + RAISED_GIANT * giants + products
    } else {
        MATRIX + BABY * switched + GIANT * giants + products
    }
}

/// The groups of a vector of `2^log_slots` entries where the layers are cut after those of `lower`, as matrices of coefficients-to-slots.
fn matrices(lower: &[u32], log_slots: u32) -> Vec<Matrix> {
    let groups = groups(&[lower, &[log_slots]].concat(), log_slots);
    let last = groups.len().wrapping_sub(1);
    let matrix = |(i, group)| Matrix { group, level: 0, rescale: true, raised: i == last };
    groups.into_iter().enumerate().map(matrix).collect()
}

/// Where coefficients-to-slots is cut for vectors that repeat, from the layers of small distance on; all layers above go into one
/// matrix, the first one, whose input was raised. `full` is the cut for vectors of all slots.
///
/// The same cut serves all numbers of slots, for they share keys. It has no more matrices than `full` and is the one that is
/// cheapest for the [`RANGE`] largest numbers together, with a price on keys that vectors of all slots do not need.
pub(super) fn sparse(full: &[u32]) -> Vec<u32> {
    let log_all: u32 = full.iter().sum();
    let numbers = || log_all.saturating_sub(RANGE).max(1)..log_all;
    let switched = |matrices: Vec<Matrix>| matrices.into_iter().flat_map(|matrix| matrix.rotations());
    let known: BTreeSet<i64> = switched(matrices(&full[..full.len().saturating_sub(1)], log_all)).collect();
    let mut cuts: Vec<Vec<u32>> = vec![Vec::new()];
    let mut begin = 0;
    for _ in 1..full.len() {
        let end = cuts.len();
        for i in begin..end {
            let room = (log_all - 1).saturating_sub(cuts[i].iter().sum());
            let longer = (1..=room.min(MOST_LAYERS)).map(|layers| [&cuts[i][..], &[layers]].concat());
            let longer: Vec<Vec<u32>> = longer.collect();
            cuts.extend(longer);
        }
        begin = end;
    }
    let time = |lower: &Vec<u32>| -> f64 {
        numbers().flat_map(|log_slots| matrices(lower, log_slots)).map(|matrix| price(&matrix)).sum()
    };
    let mut priced: Vec<(f64, Vec<u32>)> = cuts.into_iter().map(|lower| (time(&lower), lower)).collect();
    priced.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut best = (f64::INFINITY, Vec::new());
    for (time, lower) in priced {
        if time >= best.0 {
            break;
        }
        let keys: BTreeSet<i64> = numbers().flat_map(|log_slots| switched(matrices(&lower, log_slots))).collect();
        let total = time + KEY * numbers().len() as f64 * keys.difference(&known).count() as f64;
        if total < best.0 {
            best = (total, lower);
        }
    }
    best.1
}

/// Where slots-to-coefficients is cut for vectors of `2^log_slots` entries that repeat, by level, so that it takes as few levels as matrices of up
/// to [`MOST_LOW_LAYERS`] allow. Each level has as many matrices as one of `full`, the cut for vectors of all slots, on average: so
/// each matrix has as many bits of a prime.
///
/// All numbers of slots are cut at the same layers, for they share keys: evenly for the middle one of the [`RANGE`] largest.
pub(super) fn larger(full: &[Vec<u32>], log_slots: u32) -> Vec<Vec<u32>> {
    let log_all: u32 = full.iter().flatten().sum();
    let matrices: usize = full.iter().map(Vec::len).sum();
    let on_level = matrices.div_ceil(full.len().max(1)).max(1);
    let levels = log_slots.div_ceil(MOST_LOW_LAYERS * on_level as u32).max(1) as usize;
    let size = (log_all.saturating_sub(RANGE.div_ceil(2)) / (levels * on_level) as u32).max(1);
    let mut cut = vec![vec![size; on_level]; levels];
    if let Some(last) = cut.last_mut().and_then(|level| level.last_mut()) {
        *last = log_slots;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn babies_are_cheap_but_keys_are_not_free() {
        let babies = |first, last, wraps, raised| babies(&Group { first, last, wraps }, raised);
        // 31 diagonals: eight babies and three giants; 127: sixteen and seven.
        assert_eq!((babies(4, 8, false, false), babies(0, 6, false, false)), (0..8, 0..16));
        assert_eq!((babies(8, 12, true, false), babies(3, 5, false, false)), (0..8, -3..4));
        let group = Group { first: 7, last: 14, wraps: true };
        assert_eq!((babies(7, 14, true, true), rotations(&group, &(0..32))), (0..32, (31.0, 3.0)));
    }

    #[test]
    fn larger_matrices_take_fewer_levels() {
        let full = [vec![4, 4], vec![4, 3]];
        assert_eq!([9, 12, 14].map(|k| larger(&full, k)), [9, 12, 14].map(|k| vec![vec![6, k]]));
        // One matrix a level, and a vector too long for one level.
        assert_eq!(larger(&[vec![5], vec![4]], 7), [[7]]);
        assert_eq!(larger(&[vec![2], vec![2], vec![5]], 8), [[3], [8]]);
        assert_eq!(larger(&[vec![1]], 1), [[1]]);
    }

    #[test]
    fn the_cut_for_repeating_vectors_is_the_cheapest() {
        assert_eq!(sparse(&[4, 4, 4, 3]), [3, 2, 3]);
        for full in
            [vec![4, 4, 4, 3], vec![5, 5, 4], vec![4, 4, 4, 4], vec![4, 4, 4], vec![3, 2, 4], vec![1, 8], vec![9]]
        {
            let lower = sparse(&full);
            assert!(lower.len() < full.len() && lower.iter().sum::<u32>() < full.iter().sum(), "{lower:?}");
        }
    }
}
