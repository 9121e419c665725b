//! How transforms are cut into matrices, and matrices into babies and giants: by price.
//!
//! Prices are milliseconds on one thread at `N = 2^16` and the levels of coefficients-to-slots. Only their
//! proportions matter, and these hardly depend on the ring: all of it is transforms, conversions and products of as many limbs.

use std::collections::BTreeSet;

use super::circuit::{Group, Matrix, groups};

/// Decomposition of the input of a matrix and the division of its result.
const MATRIX: f64 = 28.0;
/// A baby: an inner product with a key.
const BABY: f64 = 9.0;
/// A giant: a division, a decomposition and an inner product.
const GIANT: f64 = 34.0;
/// A product with a diagonal.
const PRODUCT: f64 = 0.4;
/// Division of the result of a matrix whose input was raised.
const RAISED_MATRIX: f64 = 8.0;
/// A baby with a key from the sparse secret.
const RAISED_BABY: f64 = 2.5;
/// A giant after such babies: a division by the one special prime and a whole key switch.
const RAISED_GIANT: f64 = 42.0;
/// What a bootstrap may take longer to make do with a key less: each has to be made, sent, read and held.
const KEY: f64 = 10.0;

/// Babies of a matrix whose input was raised, as a log2: each has a key that nothing else uses.
const LOG2_RAISED: u32 = 5;
/// Most layers of one matrix below the first one.
const MOST_LAYERS: u32 = 5;
/// So many doublings from a vector of all slots down are what the transforms of repeating vectors are cut for.
const RANGE: u32 = 5;

/// log2 of the number of babies of a group's matrix, which are `0, 1, …` times its distance.
pub(super) fn log2_babies(group: &Group, raised: bool) -> u32 {
    let layers = group.last - group.first;
    if raised {
        return layers.min(LOG2_RAISED);
    }
    let price = |&babies: &u32| BABY * (1u64 << babies) as f64 + GIANT * giants(group, babies) as f64;
    (0..=layers).min_by(|a, b| price(a).total_cmp(&price(b))).unwrap_or(0)
}

/// Giants besides that by 0, given log2 of the number of babies.
fn giants(group: &Group, babies: u32) -> u64 {
    let indices = group.last - group.first + u32::from(!group.wraps);
    (1 << (indices - babies)) - 1
}

fn price(matrix: &Matrix) -> f64 {
    let group = &matrix.group;
    let babies = log2_babies(group, matrix.raised);
    let giants = giants(group, babies) as f64;
    let layers = group.last - group.first;
    let products = PRODUCT * ((1u64 << (layers + u32::from(!group.wraps))) - u64::from(!group.wraps)) as f64;
    if matrix.raised {
        RAISED_MATRIX + RAISED_BABY * (1u64 << babies) as f64 + RAISED_GIANT * giants + products
    } else {
        MATRIX + BABY * ((1u64 << babies) - 1) as f64 + GIANT * giants + products
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
    let rotations = |matrices: Vec<Matrix>| matrices.into_iter().flat_map(|matrix| matrix.rotations());
    let known: BTreeSet<i64> = rotations(matrices(&full[..full.len().saturating_sub(1)], log_all)).collect();
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
        let keys: BTreeSet<i64> = numbers().flat_map(|log_slots| rotations(matrices(&lower, log_slots))).collect();
        let total = time + KEY * numbers().len() as f64 * keys.difference(&known).count() as f64;
        if total < best.0 {
            best = (total, lower);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn babies_are_cheap() {
        let babies = |first, last, wraps| log2_babies(&Group { first, last, wraps }, false);
        // 31 diagonals: eight babies and three giants; 127: sixteen and seven.
        assert_eq!((babies(4, 8, false), babies(0, 6, false), babies(0, 3, false)), (3, 4, 3));
        assert_eq!((babies(8, 12, true), babies(3, 4, true)), (3, 1));
        let group = Group { first: 7, last: 14, wraps: true };
        assert_eq!((log2_babies(&group, true), giants(&group, 5)), (5, 3));
    }

    #[test]
    fn the_cut_for_repeating_vectors_is_the_cheapest() {
        assert_eq!(sparse(&[4, 4, 4, 3]), [4, 3]);
        for full in [vec![4, 4, 4, 3], vec![5, 5, 4], vec![4, 4, 4, 4], vec![4, 4, 4], vec![3, 2, 4], vec![1, 8], vec![9]] {
            let lower = sparse(&full);
            assert!(lower.len() < full.len() && lower.iter().sum::<u32>() < full.iter().sum(), "{lower:?}");
        }
    }
}
