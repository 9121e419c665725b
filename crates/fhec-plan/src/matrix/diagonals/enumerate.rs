//! The loops of a nest, split into those that leave the diagonal unchanged and those that are enumerated.

use crate::Offsets;
use crate::matrix::{Matrix, Nest};
use crate::structure::{Budget, offset_range};
use std::collections::BTreeMap;

/// How a nest's loops are split.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// Loops that leave the diagonal unchanged, walked when a diagonal is filled.
    pub(super) parallel: Vec<usize>,
}

/// How far the points of a box of parallel loops lie from its first one.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) step: (i64, i64),
    pub(super) weight: (i64, i64),
}

/// Smallest and largest offset of any index range of one loop, in constant time.
enum Ranges<'a> {
    Stride(&'a Offsets),
    /// Entry `k`, `i`: over the indices `i .. i + 2^k`.
    Table(Vec<Vec<(i64, i64)>>),
}

impl<'a> Ranges<'a> {
    fn of(offsets: &'a Offsets) -> Self {
        let Offsets::Table(table) = offsets else { return Ranges::Stride(offsets) };
        let mut rows = vec![table.iter().map(|&v| (v, v)).collect::<Vec<_>>()];
        for k in 0.. {
            let (before, width) = (&rows[k], 1 << k);
            if 2 * width > table.len() {
                break;
            }
            let pairs = before.iter().zip(&before[width..]);
            rows.push(pairs.map(|(a, b)| (a.0.min(b.0), a.1.max(b.1))).collect());
        }
        Ranges::Table(rows)
    }

    /// Over the indices `lo..hi`, which must not be empty.
    fn range(&self, lo: usize, hi: usize) -> (i64, i64) {
        match self {
            Ranges::Stride(offsets) => offset_range(offsets, lo, hi),
            Ranges::Table(rows) => {
                let k = (hi - lo).ilog2() as usize;
                let (a, b) = (rows[k][lo], rows[k][hi - (1 << k)]);
                (a.0.min(b.0), a.1.max(b.1))
            }
        }
    }
}

/// Computes [`Extent`]s for the boxes of one nest.
pub(super) struct Extents<'a> {
    nest: &'a Nest,
    /// Rows and weights of every parallel loop, by loop.
    ranges: BTreeMap<usize, [Ranges<'a>; 2]>,
}

impl<'a> Extents<'a> {
    pub(super) fn new(nest: &'a Nest, split: &Split) -> Self {
        let ranges = |&d: &usize| (d, [Ranges::of(&nest.dims[d].row), Ranges::of(&nest.dims[d].weight)]);
        Extents { nest, ranges: split.parallel.iter().map(ranges).collect() }
    }

    pub(super) fn of(&self, split: &Split, bounds: &[(usize, usize)]) -> Extent {
        let mut extent = Extent { step: (0, 0), weight: (0, 0) };
        for (d, &(lo, hi)) in split.parallel.iter().zip(bounds) {
            let dim = &self.nest.dims[*d];
            let [row, weight] = &self.ranges[d];
            let sums = [(row, dim.row.at(lo), &mut extent.step), (weight, dim.weight.at(lo), &mut extent.weight)];
            for (ranges, first, sum) in sums {
                let (a, b) = ranges.range(lo, hi);
                sum.0 += a - first;
                sum.1 += b - first;
            }
        }
        extent
    }
}

/// Loops whose row and column steps agree, as far as no guard joins two of them and none of their
/// points crosses from one ciphertext to the next. Takes the combinations that this and the enumeration after
/// it try from `budget`.
pub(super) fn split(matrix: &Matrix, nest: &Nest, budget: &mut Budget) -> Result<Split, String> {
    let mut split = Split {
        parallel: (0..nest.dims.len())
            .filter(|&d| {
                let dim = &nest.dims[d];
                dim.row == dim.col || (0..dim.extent).all(|i| dim.row.at(i) == dim.col.at(i))
            })
            .collect(),
    };
    // Bounds of a run are independent ranges; a guard over two parallel loops is none.
    for guard in &nest.guards {
        while split.parallel.iter().filter(|&&d| guard.coefficients[d] != 0).count() > 1 {
            let joined = split.parallel.iter().filter(|&&d| guard.coefficients[d] != 0);
            let shortest = joined.min_by_key(|&&d| nest.dims[d].extent).copied();
            split.parallel.retain(|&d| Some(d) != shortest);
        }
    }
    let tries = |split: &Split| {
        let outer = (0..nest.dims.len()).filter(|d| !split.parallel.contains(d));
        outer.fold(1usize, |n, d| n.saturating_mul(nest.dims[d].extent))
    };
    // Once to enumerate, and once for each look at what crosses.
    budget.try_runs(tries(&split))?;
    if matrix.in_ciphertexts.max(matrix.out_ciphertexts) > 1 {
        budget.try_runs(tries(&split))?;
        let extents = Extents::new(nest, &split);
        while !split.parallel.is_empty() && crosses(matrix, nest, &extents, &split) {
            let reach = |d: usize| {
                let (lo, hi) = offset_range(&nest.dims[d].row, 0, nest.dims[d].extent);
                hi - lo
            };
            let furthest = split.parallel.iter().copied().max_by_key(|&d| reach(d));
            split.parallel.retain(|&d| Some(d) != furthest);
            budget.try_runs(tries(&split).saturating_mul(2))?;
        }
    }
    Ok(split)
}

/// True when the parallel loops of some run leave the ciphertext in which the run begins.
fn crosses(matrix: &Matrix, nest: &Nest, extents: &Extents, split: &Split) -> bool {
    let slots = matrix.slots as i64;
    let mut crosses = false;
    enumerate(nest, split, |row, col, _, bounds| {
        let (lo, hi) = extents.of(split, bounds).step;
        let leaves = |at: i64| at.rem_euclid(slots) + lo < 0 || at.rem_euclid(slots) + hi >= slots;
        crosses |= leaves(row) || leaves(col);
    });
    crosses
}

/// Sums over the enumerated loops that are already fixed.
#[derive(Clone)]
struct Prefix {
    row: i64,
    col: i64,
    weight: i64,
    /// Left side of each guard without its parallel loop.
    guards: Vec<i64>,
}

/// Calls `f(row, col, weight, bounds)` for every combination of the enumerated loops that leaves
/// some point of the parallel loops; `bounds` are the index ranges of the latter, and row, column and weight those of
/// their first point.
pub(super) fn enumerate(nest: &Nest, split: &Split, mut f: impl FnMut(i64, i64, i64, &[(usize, usize)])) {
    if nest.dims.iter().any(|d| d.extent == 0) {
        return;
    }
    let outer: Vec<usize> = (0..nest.dims.len()).filter(|d| !split.parallel.contains(d)).collect();
    let full: Vec<(usize, usize)> = split.parallel.iter().map(|&d| (0, nest.dims[d].extent)).collect();
    // The parallel loop that each guard narrows.
    let narrows: Vec<Option<usize>> =
        nest.guards.iter().map(|g| split.parallel.iter().position(|&d| g.coefficients[d] != 0)).collect();
    let first = Prefix {
        row: nest.row,
        col: nest.col,
        weight: nest.weight,
        guards: nest.guards.iter().map(|g| g.constant).collect(),
    };
    let mut bounds = full.clone();
    let mut visit = |p: &Prefix| {
        bounds.copy_from_slice(&full);
        let admitted = nest.guards.iter().zip(&narrows).zip(&p.guards).all(|((g, narrows), &fixed)| match *narrows {
            None => (0..g.extent).contains(&fixed),
            Some(at) => narrow(&mut bounds[at], g.coefficients[split.parallel[at]], fixed, g.extent),
        });
        if !admitted {
            return;
        }
        // A parallel loop that starts past zero moves row and column alike; guards may leave the base
        // point outside the tensor, so the base is moved to the first admitted point.
        let (mut shift, mut weight) = (0, p.weight);
        for (&d, b) in split.parallel.iter().zip(&bounds) {
            shift += nest.dims[d].row.at(b.0);
            weight += nest.dims[d].weight.at(b.0);
        }
        f(p.row + shift, p.col + shift, weight, &bounds);
    };
    // prefixes[k] has the first k enumerated loops fixed.
    let mut prefixes = vec![first; outer.len() + 1];
    let mut index = vec![0usize; outer.len()];
    let mut from = 0;
    loop {
        for k in from..outer.len() {
            let (done, rest) = prefixes.split_at_mut(k + 1);
            advance(nest, outer[k], index[k], &done[k], &mut rest[0]);
        }
        visit(&prefixes[outer.len()]);
        let mut k = outer.len();
        loop {
            if k == 0 {
                return;
            }
            k -= 1;
            index[k] += 1;
            if index[k] < nest.dims[outer[k]].extent {
                break;
            }
            index[k] = 0;
        }
        from = k;
    }
}

/// `after = before` with loop `d` fixed at index `i`.
fn advance(nest: &Nest, d: usize, i: usize, before: &Prefix, after: &mut Prefix) {
    let dim = &nest.dims[d];
    after.row = before.row + dim.row.at(i);
    after.col = before.col + dim.col.at(i);
    after.weight = before.weight + dim.weight.at(i);
    for ((sum, old), guard) in after.guards.iter_mut().zip(&before.guards).zip(&nest.guards) {
        *sum = old + guard.coefficients[d] * i as i64;
    }
}

/// Narrows `bounds` to the `i` with `0 ≤ fixed + c·i < extent`; false when none is left.
pub(in crate::matrix) fn narrow(bounds: &mut (usize, usize), c: i64, fixed: i64, extent: i64) -> bool {
    let ceil_div = |a: i64, b: i64| a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0);
    let (lo, hi) = if c > 0 {
        (ceil_div(-fixed, c), ceil_div(extent - fixed, c))
    } else {
        (ceil_div(fixed - extent + 1, -c), fixed.div_euclid(-c) + 1)
    };
    bounds.0 = bounds.0.max(lo.max(0) as usize);
    bounds.1 = bounds.1.min(hi.max(0) as usize);
    bounds.0 < bounds.1
}

/// Points of a run that lie in a row.
#[derive(Clone, Copy)]
pub(super) struct Line {
    /// The first one's slot and weight, relative to those of the run's first point.
    pub(super) step: i64,
    pub(super) weight: i64,
    /// From each to the next.
    pub(super) steps: i64,
    pub(super) weights: i64,
    pub(super) count: usize,
}

/// Calls `f` for all points of a run, in loop order.
pub(super) fn walk(nest: &Nest, split: &Split, bounds: &[(usize, usize)], mut f: impl FnMut(Line)) {
    let point = |step, weight| Line { step, weight, steps: 0, weights: 0, count: 1 };
    let Some((&inner, outer)) = split.parallel.split_last() else {
        return f(point(0, 0));
    };
    let dim = &nest.dims[inner];
    let (lo, hi) = bounds[outer.len()];
    let first = (dim.row.at(lo), dim.weight.at(lo));
    let mut index: Vec<usize> = bounds[..outer.len()].iter().map(|b| b.0).collect();
    loop {
        let (mut step, mut weight) = (0, 0);
        for ((&d, &i), b) in outer.iter().zip(&index).zip(bounds) {
            step += nest.dims[d].row.at(i) - nest.dims[d].row.at(b.0);
            weight += nest.dims[d].weight.at(i) - nest.dims[d].weight.at(b.0);
        }
        match (&dim.row, &dim.weight) {
            (&Offsets::Stride(steps), &Offsets::Stride(weights)) => {
                f(Line { step, weight, steps, weights, count: hi - lo });
            }
            _ => {
                for i in lo..hi {
                    f(point(step + dim.row.at(i) - first.0, weight + dim.weight.at(i) - first.1));
                }
            }
        }
        let mut d = outer.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < bounds[d].1 {
                break;
            }
            index[d] = bounds[d].0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_tables_agree_with_looking_at_every_entry() {
        for len in [1usize, 2, 3, 7, 8, 13] {
            let table = Offsets::Table((0..len as i64).map(|i| i * i * 7 % 11 - 5).collect());
            let ranges = Ranges::of(&table);
            for lo in 0..len {
                for hi in lo + 1..=len {
                    assert_eq!(ranges.range(lo, hi), offset_range(&table, lo, hi), "{len}: {lo}..{hi}");
                }
            }
        }
    }

    #[test]
    fn narrow_agrees_with_trying_every_index() {
        for c in [-3i64, -1, 1, 2, 5] {
            for fixed in -12..12 {
                for extent in 1..9 {
                    let mut b = (0, 7);
                    let any = narrow(&mut b, c, fixed, extent);
                    let want: Vec<usize> = (0..7).filter(|&i| (0..extent).contains(&(fixed + c * i as i64))).collect();
                    assert_eq!(any, !want.is_empty());
                    if any {
                        assert_eq!((b.0..b.1).collect::<Vec<_>>(), want, "{c} {fixed} {extent}");
                    }
                }
            }
        }
    }
}
