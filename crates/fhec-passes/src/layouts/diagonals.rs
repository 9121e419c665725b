//! How many diagonals a matrix has and what they cost, without filling or even listing runs.
//!
//! The diagonals of a nest are the sums of one (column − row) step of every loop. Guards only shorten
//! loops, so for one ciphertext the set of sums is found loop by loop, each time with the distinct
//! steps only: a convolution takes microseconds whatever its number of channels.

use fhec_math::bsgs::{BsgsWeights, DiagonalIndex};
use fhec_plan::{Diagonals, Matrix, Nest, NestDim, Offsets};
use std::collections::BTreeMap;

/// The non-empty diagonals of `matrix`, sorted by output block, input block and index. Indices that only
/// padding excludes may be listed too.
pub fn indices(matrix: &Matrix) -> Vec<DiagonalIndex> {
    // With one slot a ciphertext, guarded loops move from ciphertext to ciphertext.
    if matrix.slots == 1 || matrix.nests.iter().any(|n| crosses(matrix, n)) {
        let exact = Diagonals::of(matrix);
        let of = |k: &fhec_plan::DiagonalKey| DiagonalIndex {
            out_block: k.out_block as usize,
            in_block: k.in_block as usize,
            index: i64::from(k.index),
        };
        return exact.keys().iter().map(of).collect();
    }
    let mut sets: BTreeMap<(usize, usize), Vec<bool>> = BTreeMap::new();
    let modulus = matrix.diagonal_bound();
    for nest in &matrix.nests {
        for (block, list) in sums(matrix, nest) {
            let set = sets.entry(block).or_insert_with(|| vec![false; modulus]);
            for i in list {
                set[i as usize] = true;
            }
        }
    }
    let mut out = Vec::new();
    for ((out_block, in_block), set) in sets {
        let present = set.iter().enumerate().filter(|(_, there)| **there);
        out.extend(present.map(|(i, _)| DiagonalIndex { out_block, in_block, index: i as i64 }));
    }
    out
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

/// True when sums of loop steps may leave the block in which the steps' own blocks put them.
fn crosses(matrix: &Matrix, nest: &Nest) -> bool {
    if matrix.in_ciphertexts.max(matrix.out_ciphertexts) == 1 {
        return false;
    }
    let slots = matrix.slots as i64;
    let (row, col) = anchor(nest);
    let reach = |start: i64, of: fn(&NestDim) -> &Offsets| {
        let inside = |dim: &NestDim| (0..dim.extent).map(|i| of(dim).at(i).rem_euclid(slots)).max().unwrap_or(0);
        let free = nest.dims.iter().enumerate().filter(|(d, _)| !guarded(nest, *d));
        start.rem_euclid(slots) + free.map(|(_, dim)| inside(dim)).sum::<i64>()
    };
    (matrix.out_ciphertexts > 1 && reach(row, |d| &d.row) >= slots)
        || (matrix.in_ciphertexts > 1 && reach(col, |d| &d.col) >= slots)
}

/// The diagonals of one nest, per (output block, input block).
fn sums(matrix: &Matrix, nest: &Nest) -> BTreeMap<(usize, usize), Vec<u32>> {
    let slots = matrix.slots as i64;
    let modulus = matrix.diagonal_bound() as i64;
    let block = |at: i64, ciphertexts: usize| if ciphertexts == 1 { 0 } else { at.div_euclid(slots) };
    let diagonal = |row: i64, col: i64| (col - row).rem_euclid(modulus);
    let (row, col) = anchor(nest);
    let (r, c) = (block(row, matrix.out_ciphertexts), block(col, matrix.in_ciphertexts));
    let d = diagonal(nest.row, nest.col);
    let mut states = BTreeMap::from([((r, c), vec![d as u32])]);
    for (number, dim) in nest.dims.iter().enumerate() {
        // Guarded loops move inside the block of the anchor: padding excludes all else.
        let inside = guarded(nest, number);
        let step = |row: i64, col: i64| match inside {
            true => (0, 0, diagonal(row, col)),
            false => (block(row, matrix.out_ciphertexts), block(col, matrix.in_ciphertexts), diagonal(row, col)),
        };
        let mut steps: Vec<_> = (0..dim.extent).map(|i| step(dim.row.at(i), dim.col.at(i))).collect();
        steps.sort_unstable();
        steps.dedup();
        if steps == [(0, 0, 0)] {
            continue;
        }
        let mut next: BTreeMap<(i64, i64), (Vec<bool>, Vec<u32>)> = BTreeMap::new();
        for (&(r, c), list) in &states {
            for &(dr, dc, d) in &steps {
                let fresh = || (vec![false; modulus as usize], Vec::new());
                let (seen, sums) = next.entry((r + dr, c + dc)).or_insert_with(fresh);
                if sums.len() == modulus as usize {
                    continue;
                }
                for &at in list {
                    let sum = (i64::from(at) + d) & (modulus - 1);
                    if !std::mem::replace(&mut seen[sum as usize], true) {
                        sums.push(sum as u32);
                    }
                }
            }
        }
        states = next.into_iter().map(|(key, (_, sums))| (key, sums)).collect();
    }
    let inside = |b: i64, n: usize| (0..n as i64).contains(&b);
    let kept = states
        .into_iter()
        .filter(|((r, c), _)| inside(*r, matrix.out_ciphertexts) && inside(*c, matrix.in_ciphertexts));
    kept.map(|((r, c), list)| ((r as usize, c as usize), list)).collect()
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
