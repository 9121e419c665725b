//! Coefficients to values.

use super::butterfly::{
    LAST_RECORD, forward, forward_tree, lift, pair, pair_of_vectors, prefetch, record_words, transpose,
};
use super::{Direction, IfmaNtt};
use crate::simd::{Field, cut, load, store, zero};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run(table: &IfmaNtt, limb: &mut [u64]) {
    let k = Field::new(&table.modulus);
    descend(&k, &table.forward, 0, 0, limb);
}

/// Runs the passes from `depth` on over the block with index `block` among those of its size.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn descend(k: &Field, d: &Direction, depth: usize, block: usize, limb: &mut [u64]) {
    let pass = &d.passes[depth];
    let words = record_words(pass.stages);
    let record = &pass.records[block * words..(block + 1) * words];
    match (pass.stages, d.lazy, pass.shrink) {
        (2, true, false) => pass_4::<true, false>(k, limb, record),
        (2, true, true) => pass_4::<true, true>(k, limb, record),
        (2, false, _) => pass_4::<false, false>(k, limb, record),
        (_, true, false) => pass_8::<true, false>(k, limb, record),
        (_, true, true) => pass_8::<true, true>(k, limb, record),
        (_, false, _) => pass_8::<false, false>(k, limb, record),
    }
    let parts = 1 << pass.stages;
    let size = limb.len() / parts;
    if depth + 1 == d.passes.len() {
        let (blocks, _) = limb.as_chunks_mut::<64>();
        let records = &d.last.records.all()[block * parts..(block + 1) * parts];
        match (d.lazy, d.last.shrink) {
            (true, [false, false]) => last::<true, false, false>(k, blocks, records),
            (true, [false, true]) => last::<true, false, true>(k, blocks, records),
            (true, [true, false]) => last::<true, true, false>(k, blocks, records),
            (true, [true, true]) => last::<true, true, true>(k, blocks, records),
            (false, _) => last::<false, false, false>(k, blocks, records),
        }
    } else {
        for (i, part) in limb.chunks_exact_mut(size).enumerate() {
            descend(k, d, depth + 1, block * parts + i, part);
        }
    }
}

macro_rules! pass {
    ($name:ident, $radix:tt) => {
        /// One pass over a block whose parts are a multiple of 8 words.
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
        fn $name<const LAZY: bool, const SHRINK: bool>(k: &Field, limb: &mut [u64], record: &[u64]) {
            let stride = limb.len() / $radix;
            assert!(limb.len() == $radix * stride && stride.is_multiple_of(8) && record.len() == 2 * ($radix - 1));
            let data = limb.as_mut_ptr();
            let record = record.as_ptr();
            for j in (0..stride).step_by(8) {
                let mut v = [zero(); $radix];
                for i in 0..$radix {
                    // SAFETY: i·stride + j + 8 ≤ $radix·stride, the length of the limb.
                    v[i] = load(unsafe { &*data.add(i * stride + j).cast() });
                    if LAZY && i < $radix / 2 {
                        v[i] = lift::<{ ($radix as u64).ilog2() as u64 }, SHRINK>(k, v[i]);
                    }
                }
                macro_rules! butterfly {
                    ($x:expr, $y:expr, $node:expr) => {
                        // SAFETY: nodes go from 1 to $radix − 1, and so many pairs are in the record.
                        let w = unsafe { pair(record, $node) };
                        (v[$x], v[$y]) = forward::<LAZY>(k, v[$x], v[$y], w);
                    };
                }
                forward_tree!($radix, butterfly, 0, 1);
                for i in 0..$radix {
                    // SAFETY: as for the loads, and the limb is borrowed exclusively.
                    store(unsafe { &mut *data.add(i * stride + j).cast() }, v[i]);
                }
            }
        }
    };
}

pass!(pass_4, 4);
pass!(pass_8, 8);

/// The last six stages, and the reduction to canonical residues.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn last<const LAZY: bool, const SHRINK_0: bool, const SHRINK_1: bool>(
    k: &Field,
    blocks: &mut [[u64; 64]],
    records: &[[u64; LAST_RECORD]],
) {
    let (pairs, _) = blocks.as_chunks_mut::<2>();
    let (pairs_of_records, _) = records.as_chunks::<2>();
    macro_rules! load_rows {
        ($rows:expr) => {{
            let (rows, _) = $rows.as_chunks::<8>();
            let mut v = [zero(); 8];
            for i in 0..8 {
                v[i] = load(&rows[i]);
                if LAZY && i < 4 {
                    v[i] = lift::<3, SHRINK_0>(k, v[i]);
                }
            }
            v
        }};
    }
    macro_rules! across {
        ($v:ident, $record:expr) => {
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr) => {
                    // SAFETY: the record begins with seven pairs.
                    let w = unsafe { pair($record.as_ptr(), $node) };
                    ($v[$x], $v[$y]) = forward::<LAZY>(k, $v[$x], $v[$y], w);
                };
            }
            forward_tree!(8, butterfly, 0, 1);
        };
    }
    macro_rules! within {
        ($v:ident, $record:expr) => {
            if LAZY {
                for x in &mut $v[..4] {
                    *x = lift::<3, SHRINK_1>(k, *x);
                }
            }
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr) => {
                    ($v[$x], $v[$y]) = forward::<LAZY>(k, $v[$x], $v[$y], pair_of_vectors($record, $node));
                };
            }
            forward_tree!(8, butterfly, 0, 1);
        };
    }
    macro_rules! finish {
        ($v:ident, $rows:expr) => {
            for x in &mut $v {
                *x = if LAZY { k.reduce(*x) } else { cut(cut(*x, k.two_p), k.p) };
            }
            $v = transpose($v);
            let (rows, _) = $rows.as_chunks_mut::<8>();
            for i in 0..8 {
                store(&mut rows[i], $v[i]);
            }
        };
    }
    // Two blocks at a time, shifted: while one is transposed the other keeps the multipliers busy.
    for ([a, b], records) in pairs.iter_mut().zip(pairs_of_records) {
        prefetch(records);
        let [record_a, record_b] = records;
        let mut va = load_rows!(a);
        across!(va, record_a);
        let mut vb = load_rows!(b);
        va = transpose(va);
        across!(vb, record_b);
        within!(va, record_a);
        vb = transpose(vb);
        finish!(va, a);
        within!(vb, record_b);
        finish!(vb, b);
    }
}
