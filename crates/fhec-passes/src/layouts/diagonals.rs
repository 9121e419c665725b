//! How many diagonals a matrix has and what they cost, without filling or even listing runs.
//!
//! The diagonals of a nest are the sums of one (column − row) step of every loop. Guards only shorten
//! loops, so for one ciphertext the set of sums is found loop by loop, each time with the distinct
//! steps only: a convolution takes microseconds whatever its number of channels. Between several ciphertexts the
//! positions of the loops that lead from one to another – channels, mostly – are listed first.

use fhec_math::bsgs::{BsgsWeights, DiagonalIndex};
use fhec_plan::{Diagonals, Matrix, Nest, NestDim, Offsets};
use std::collections::BTreeMap;

/// The non-empty diagonals of `matrix`, sorted by output block, input block and index. Indices that only
/// padding excludes may be listed too. None are listed where ciphertexts hold one element, and every entry is a diagonal.
pub fn indices(matrix: &Matrix) -> Vec<DiagonalIndex> {
    if matrix.slots == 1 {
        return Vec::new();
    }
    let nests = matrix.nests.iter().map(|n| sums(matrix, n)).collect::<Option<Vec<Sums>>>();
    let Some(nests) = nests else { return exact(matrix) };
    let mut sets: BTreeMap<(i64, i64), Vec<bool>> = BTreeMap::new();
    let modulus = matrix.diagonal_bound();
    for (block, list) in nests.into_iter().flatten() {
        let set = sets.entry(block).or_insert_with(|| vec![false; modulus]);
        for i in list {
            set[i as usize] = true;
        }
    }
    let mut out = Vec::new();
    for ((out_block, in_block), set) in sets {
        let present = set.iter().enumerate().filter(|(_, there)| **there);
        let (out_block, in_block) = (out_block as usize, in_block as usize);
        out.extend(present.map(|(i, _)| DiagonalIndex { out_block, in_block, index: i as i64 }));
    }
    out
}

/// The same by listing all runs.
fn exact(matrix: &Matrix) -> Vec<DiagonalIndex> {
    let of = |k: &fhec_plan::DiagonalKey| DiagonalIndex {
        out_block: k.out_block as usize,
        in_block: k.in_block as usize,
        index: i64::from(k.index),
    };
    Diagonals::of(matrix).keys().iter().map(of).collect()
}

/// True for a loop that some guard restricts.
fn guarded(nest: &Nest, d: usize) -> bool {
    nest.guards.iter().any(|g| g.coefficients[d] != 0)
}

/// Row and column of a point with index zero in all loops but the guarded ones, where it is admitted. Without
/// padding added, it lies in the block where the unguarded loops begin.
fn anchor(nest: &Nest) -> (i64, i64) {
    let loops: Vec<usize> = (0..nest.dims.len()).filter(|&d| guarded(nest, d)).collect();
    let mut index = vec![0usize; nest.dims.len()];
    loop {
        let admitted = nest.guards.iter().all(|g| {
            let at: i64 = g.constant + g.coefficients.iter().zip(&index).map(|(c, &i)| c * i as i64).sum::<i64>();
            (0..g.extent).contains(&at)
        });
        let next = loops.iter().rev().find(|&&d| index[d] + 1 < nest.dims[d].extent);
        match next {
            Some(&d) if !admitted => {
                index[d] += 1;
                for &inner in loops.iter().filter(|&&i| i > d) {
                    index[inner] = 0;
                }
            }
            _ => break,
        }
    }
    let sum = |start: i64, of: fn(&NestDim) -> &Offsets| {
        start + nest.dims.iter().zip(&index).map(|(dim, &i)| of(dim).at(i)).sum::<i64>()
    };
    (sum(nest.row, |d| &d.row), sum(nest.col, |d| &d.col))
}

/// The diagonals of part of a nest, per (output block, input block).
type Sums = BTreeMap<(i64, i64), Vec<u32>>;

/// Loop positions listed one by one before the exact way takes over.
const MAX_LISTED: usize = 1 << 20;

/// Rows and columns that the loops in `listed` reach from `start`.
fn positions(nest: &Nest, listed: &[usize], start: (i64, i64)) -> Vec<(i64, i64)> {
    listed.iter().fold(vec![start], |list, &d| {
        let dim = &nest.dims[d];
        let steps = |&(row, col): &(i64, i64)| (0..dim.extent).map(move |i| (row + dim.row.at(i), col + dim.col.at(i)));
        list.iter().flat_map(steps).collect()
    })
}

/// The loops that lead from one block into another, so that their positions have to be listed: all others stay inside
/// the block where those begin. `None` when there are too many positions.
fn block_loops(matrix: &Matrix, nest: &Nest) -> Option<Vec<usize>> {
    let slots = matrix.slots as i64;
    let sides: [Side; 2] =
        [(matrix.out_ciphertexts > 1, |d| &d.row, |at| at.0), (matrix.in_ciphertexts > 1, |d| &d.col, |at| at.1)];
    let blocked = || sides.iter().filter(|(several, ..)| *several);
    // Guarded loops move inside the block of the anchor: padding excludes all else.
    let mut free: Vec<usize> = (0..nest.dims.len()).filter(|&d| !guarded(nest, d)).collect();
    let ends = |d: usize, of: fn(&NestDim) -> &Offsets| {
        let dim = &nest.dims[d];
        (0..dim.extent).map(|i| of(dim).at(i)).fold((0, 0), |(lo, hi): (i64, i64), v| (lo.min(v), hi.max(v)))
    };
    let start = anchor(nest);
    let mut listed: Vec<usize> = Vec::new();
    loop {
        if listed.iter().map(|&d| nest.dims[d].extent).product::<usize>() > MAX_LISTED {
            return None;
        }
        let at = positions(nest, &listed, start);
        let inside = blocked().all(|&(_, of, side)| {
            let rest = free.iter().map(|&d| ends(d, of)).fold((0, 0), |(a, b), (lo, hi)| (a + lo, b + hi));
            at.iter().map(|p| side(p).rem_euclid(slots)).all(|p| p + rest.0 >= 0 && p + rest.1 < slots)
        });
        if inside {
            return Some(listed);
        }
        // The loop with the longest way is the one that leaves the block.
        let way = |d: usize| blocked().map(|&(_, of, _)| ends(d, of)).map(|(lo, hi)| hi.max(-lo)).max();
        let far = (0..free.len()).max_by_key(|&i| (way(free[i]), std::cmp::Reverse(i)))?;
        listed.push(free.remove(far));
    }
}

/// Whether a side of a matrix has several blocks, its offsets, and its coordinate of a point.
type Side = (bool, fn(&NestDim) -> &Offsets, fn(&(i64, i64)) -> i64);

/// The diagonals of one nest, per (output block, input block); `None` where only listing all its points will do.
fn sums(matrix: &Matrix, nest: &Nest) -> Option<Sums> {
    let slots = matrix.slots as i64;
    let modulus = matrix.diagonal_bound();
    let block = |at: i64, ciphertexts: usize| if ciphertexts == 1 { 0 } else { at.div_euclid(slots) };
    let diagonal = |row: i64, col: i64| (col - row).rem_euclid(modulus as i64) as u32;
    let listed = block_loops(matrix, nest)?;
    let fresh = || (vec![false; modulus], Vec::new());
    let mut heads: BTreeMap<(i64, i64), (Vec<bool>, Vec<u32>)> = BTreeMap::new();
    let start = anchor(nest);
    for (row, col) in positions(nest, &listed, start) {
        let key = (block(row, matrix.out_ciphertexts), block(col, matrix.in_ciphertexts));
        let (seen, list) = heads.entry(key).or_insert_with(fresh);
        let d = diagonal(row - start.0 + nest.row, col - start.1 + nest.col);
        if !std::mem::replace(&mut seen[d as usize], true) {
            list.push(d);
        }
    }
    let inside = |b: i64, n: usize| (0..n as i64).contains(&b);
    heads.retain(|(r, c), _| inside(*r, matrix.out_ciphertexts) && inside(*c, matrix.in_ciphertexts));
    let mut states: Sums = heads.into_iter().map(|(key, (_, list))| (key, list)).collect();
    for (_, dim) in nest.dims.iter().enumerate().filter(|(d, _)| !listed.contains(d)) {
        let mut steps: Vec<u32> = (0..dim.extent).map(|i| diagonal(dim.row.at(i), dim.col.at(i))).collect();
        steps.sort_unstable();
        steps.dedup();
        if steps == [0] {
            continue;
        }
        for list in states.values_mut() {
            let (mut seen, mut sums) = fresh();
            for &step in &steps {
                if sums.len() == modulus {
                    break;
                }
                for &at in list.iter() {
                    let sum = (at + step) & (modulus as u32 - 1);
                    if !std::mem::replace(&mut seen[sum as usize], true) {
                        sums.push(sum);
                    }
                }
            }
            *list = sums;
        }
    }
    Some(states)
}

/// A quick upper bound of the price of the best BSGS plan: giants at multiples of powers of two only.
pub fn estimate(modulus: usize, diagonals: &[DiagonalIndex], weights: &BsgsWeights) -> f64 {
    let blocks = |f: fn(&DiagonalIndex) -> usize| diagonals.iter().map(f).max().map_or(0, |m| m + 1);
    let (inputs, outputs) = (blocks(|d| d.in_block), blocks(|d| d.out_block));
    let mut babies = vec![0u32; inputs * modulus];
    let mut giants = vec![0u32; outputs * modulus];
    let mut best = f64::INFINITY;
    for e in 0..=modulus.trailing_zeros() {
        let n1 = 1i64 << e;
        let round = e + 1;
        let (mut baby_count, mut giant_count) = (0usize, 0usize);
        for d in diagonals {
            // Babies lie around zero, giants at multiples of n1, which divides the modulus.
            let baby = (d.index + n1 / 2) & (n1 - 1);
            let b = baby as usize;
            let g = ((d.index + n1 / 2 - baby) & (modulus as i64 - 1)) as usize;
            if baby != n1 / 2 && std::mem::replace(&mut babies[d.in_block * modulus + b], round) != round {
                baby_count += 1;
            }
            if g != 0 && std::mem::replace(&mut giants[d.out_block * modulus + g], round) != round {
                giant_count += 1;
            }
        }
        let decomposed = if baby_count > 0 { inputs } else { 0 };
        let cost = weights.decompose * decomposed as f64
            + weights.baby * baby_count as f64
            + weights.giant * giant_count as f64;
        best = best.min(cost);
    }
    best + weights.product * diagonals.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhec_math::bsgs::BsgsPlan;

    fn dim(extent: usize, row: i64, col: i64) -> NestDim {
        NestDim { extent, row: Offsets::Stride(row), col: Offsets::Stride(col), weight: Offsets::Stride(0) }
    }

    fn matrix(p: usize, h: usize, dims: Vec<NestDim>) -> Matrix {
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor: None, factor: 1.0, guards: vec![] };
        Matrix { slots: 256, in_ciphertexts: 1, in_period: p, out_ciphertexts: 1, out_period: h, nests: vec![nest] }
    }

    #[test]
    fn sums_are_the_diagonals() {
        let cases = [
            matrix(256, 64, vec![dim(10, 1, 0), dim(200, 0, 1)]),
            matrix(64, 256, vec![dim(3, 64, 0), dim(5, 0, 4), dim(5, 0, 1), dim(3, 16, 16)]),
            matrix(256, 256, vec![dim(3, 70, 0), dim(2, 0, 90), dim(7, 1, 2)]),
        ];
        for m in cases {
            let want: Vec<i64> = Diagonals::of(&m).keys().iter().map(|k| i64::from(k.index)).collect();
            let got: Vec<i64> = indices(&m).iter().map(|d| d.index).collect();
            assert_eq!(got, want);
            let w = BsgsWeights::default();
            let best = BsgsPlan::choose(m.diagonal_bound(), &indices(&m), &w).cost(&w);
            let bound = estimate(m.diagonal_bound(), &indices(&m), &w);
            assert!(bound >= best - 1e-9 && bound <= 1.5 * best, "{bound} is no estimate of {best}");
        }
    }

    /// Channels of 64 slots from the fourth on: the loop enters the next ciphertext, but never by a step of a whole one.
    #[test]
    fn loops_may_enter_the_next_block_anywhere() {
        let strided = |extent, row, col| NestDim { extent, row, col, weight: Offsets::Stride(0) };
        let out = strided(5, Offsets::Stride(64), Offsets::Stride(0));
        let channels = strided(6, Offsets::Stride(0), Offsets::Stride(64));
        let mut m = matrix(256, 256, vec![out, channels, dim(7, 8, 8), dim(3, 1, 1)]);
        (m.in_ciphertexts, m.out_ciphertexts) = (3, 2);
        m.nests[0].col = 3 * 64;
        let want: Vec<_> = Diagonals::of(&m).keys().iter().map(|k| (k.out_block, k.in_block, k.index)).collect();
        let got: Vec<_> = indices(&m).iter().map(|d| (d.out_block as u32, d.in_block as u32, d.index as u32)).collect();
        assert_eq!(got, want);
        assert!(sums(&m, &m.nests[0]).is_some(), "no need to list all points");
    }

    #[test]
    fn blocks_are_told_apart() {
        let mut m = matrix(256, 256, vec![dim(300, 1, 0), dim(600, 0, 1)]);
        m.in_ciphertexts = 3;
        m.out_ciphertexts = 2;
        let want: Vec<_> = Diagonals::of(&m).keys().iter().map(|k| (k.out_block, k.in_block, k.index)).collect();
        let got: Vec<_> = indices(&m).iter().map(|d| (d.out_block as u32, d.in_block as u32, d.index as u32)).collect();
        assert_eq!(got, want);
    }
}
