//! Values to coefficients.

use super::butterfly::{LAST_RECORD, inverse, inverse_tree, pair, pair_of_vectors, prefetch, record_words, transpose};
use super::{Direction, IfmaNtt};
use crate::simd::{Field, V, add, cut, lo, load, splat, store, zero};

/// Calls the pass with the options that its place asks for.
macro_rules! choose {
    ($name:ident, $k:ident, $d:ident, $pass:ident, $n_inverse:ident, $depth:ident, $block:ident, $limb:ident) => {{
        let words = record_words($pass.stages);
        let record = &$pass.records[$block * words..($block + 1) * words];
        let bound = $pass.bound;
        match ($d.lazy, $pass.shrink, $depth == 0) {
            (true, false, false) => $name::<true, false, false>($k, bound, $n_inverse, $limb, record),
            (true, true, false) => $name::<true, true, false>($k, bound, $n_inverse, $limb, record),
            (true, _, true) => $name::<true, false, true>($k, bound, $n_inverse, $limb, record),
            (false, _, false) => $name::<false, false, false>($k, bound, $n_inverse, $limb, record),
            (false, _, true) => $name::<false, false, true>($k, bound, $n_inverse, $limb, record),
        }
    }};
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run(table: &IfmaNtt, limb: &mut [u64]) {
    let k = Field::new(&table.modulus);
    let n_inverse = (splat(table.n_inverse.0), splat(table.n_inverse.1));
    ascend(&k, &table.inverse, n_inverse, 0, 0, limb);
}

/// Undoes the passes from `depth` on over the block with index `block` among those of its size.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn ascend(k: &Field, d: &Direction, n_inverse: (V, V), depth: usize, block: usize, limb: &mut [u64]) {
    let pass = &d.passes[depth];
    let parts = 1 << pass.stages;
    let size = limb.len() / parts;
    if depth + 1 == d.passes.len() {
        let (blocks, _) = limb.as_chunks_mut::<64>();
        let records = &d.last.records.all()[block * parts..(block + 1) * parts];
        let bounds = d.last.bounds;
        match (d.lazy, d.last.shrink) {
            (true, [false, false]) => last::<true, false, false>(k, bounds, blocks, records),
            (true, [false, true]) => last::<true, false, true>(k, bounds, blocks, records),
            (true, [true, false]) => last::<true, true, false>(k, bounds, blocks, records),
            (true, [true, true]) => last::<true, true, true>(k, bounds, blocks, records),
            (false, _) => last::<false, false, false>(k, bounds, blocks, records),
        }
    } else {
        for (i, part) in limb.chunks_exact_mut(size).enumerate() {
            ascend(k, d, n_inverse, depth + 1, block * parts + i, part);
        }
    }
    match pass.stages {
        2 => choose!(pass_4, k, d, pass, n_inverse, depth, block, limb),
        _ => choose!(pass_8, k, d, pass, n_inverse, depth, block, limb),
    }
}

/// Offsets that keep differences positive in each stage of a pass whose inputs are at most `bound` times `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn offsets<const LAZY: bool>(k: &Field, bound: u64) -> [V; 3] {
    if LAZY {
        // The product is below 2^52 for every stage that the pass has.
        let first = lo(zero(), splat(bound), k.p);
        let second = add(first, first);
        [first, second, add(second, second)]
    } else {
        [k.two_p; 3]
    }
}

macro_rules! pass {
    ($name:ident, $radix:tt) => {
        /// One pass over a block whose parts are a multiple of 8 words. The final one divides by `N` and reduces.
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
        fn $name<const LAZY: bool, const SHRINK: bool, const FINAL: bool>(
            k: &Field,
            bound: u64,
            n_inverse: (V, V),
            limb: &mut [u64],
            record: &[u64],
        ) {
            let stride = limb.len() / $radix;
            assert!(limb.len() == $radix * stride && stride.is_multiple_of(8) && record.len() == 2 * ($radix - 1));
            let offset = offsets::<LAZY>(k, bound);
            let data = limb.as_mut_ptr();
            let record = record.as_ptr();
            for j in (0..stride).step_by(8) {
                let mut v = [zero(); $radix];
                for i in 0..$radix {
                    // SAFETY: i·stride + j + 8 ≤ $radix·stride, the length of the limb.
                    v[i] = load(unsafe { &*data.add(i * stride + j).cast() });
                }
                macro_rules! butterfly {
                    ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                        // SAFETY: nodes go from 1 to $radix − 1, and so many pairs are in the record.
                        let w = unsafe { pair(record, $node) };
                        (v[$x], v[$y]) = inverse::<LAZY>(k, v[$x], v[$y], w, offset[$stage]);
                    };
                }
                inverse_tree!($radix, butterfly, 0, 1);
                for i in 0..$radix {
                    let mut x = v[i];
                    if FINAL {
                        // The factor of the root is divided by N already; the sums are not.
                        x = if i < $radix / 2 { k.mul_shoup(x, n_inverse) } else { cut(k.clean(x), k.p) };
                    } else if SHRINK && i < $radix / 2 {
                        x = k.shrink(x);
                    }
                    // SAFETY: as for the loads, and the limb is borrowed exclusively.
                    store(unsafe { &mut *data.add(i * stride + j).cast() }, x);
                }
            }
        }
    };
}

pass!(pass_4, 4);
pass!(pass_8, 8);

/// Undoes the last six stages.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn last<const LAZY: bool, const SHRINK_0: bool, const SHRINK_1: bool>(
    k: &Field,
    bounds: [u64; 2],
    blocks: &mut [[u64; 64]],
    records: &[[u64; LAST_RECORD]],
) {
    let within_offset = offsets::<LAZY>(k, bounds[1]);
    let across_offset = offsets::<LAZY>(k, bounds[0]);
    let (pairs, _) = blocks.as_chunks_mut::<2>();
    let (pairs_of_records, _) = records.as_chunks::<2>();
    macro_rules! load_transposed {
        ($rows:expr) => {{
            let (rows, _) = $rows.as_chunks::<8>();
            let mut v = [zero(); 8];
            for i in 0..8 {
                v[i] = load(&rows[i]);
            }
            transpose(v)
        }};
    }
    macro_rules! within {
        ($v:ident, $record:expr) => {
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                    let w = pair_of_vectors($record, $node);
                    ($v[$x], $v[$y]) = inverse::<LAZY>(k, $v[$x], $v[$y], w, within_offset[$stage]);
                };
            }
            inverse_tree!(8, butterfly, 0, 1);
            if SHRINK_1 {
                for x in &mut $v[..4] {
                    *x = k.shrink(*x);
                }
            }
        };
    }
    macro_rules! across {
        ($v:ident, $record:expr) => {
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                    // SAFETY: the record begins with seven pairs.
                    let w = unsafe { pair($record.as_ptr(), $node) };
                    ($v[$x], $v[$y]) = inverse::<LAZY>(k, $v[$x], $v[$y], w, across_offset[$stage]);
                };
            }
            inverse_tree!(8, butterfly, 0, 1);
        };
    }
    macro_rules! finish {
        ($v:ident, $rows:expr) => {
            let (rows, _) = $rows.as_chunks_mut::<8>();
            for i in 0..8 {
                let x = if SHRINK_0 && i < 4 { k.shrink($v[i]) } else { $v[i] };
                store(&mut rows[i], x);
            }
        };
    }
    // Two blocks at a time, shifted: while one is transposed the other keeps the multipliers busy.
    for ([a, b], records) in pairs.iter_mut().zip(pairs_of_records) {
        prefetch(records);
        let [record_a, record_b] = records;
        let mut va = load_transposed!(a);
        within!(va, record_a);
        let mut vb = load_transposed!(b);
        va = transpose(va);
        within!(vb, record_b);
        across!(va, record_a);
        vb = transpose(vb);
        finish!(va, a);
        across!(vb, record_b);
        finish!(vb, b);
    }
}
