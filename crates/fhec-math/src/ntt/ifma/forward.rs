//! Coefficients to values.

use super::butterfly::{LAST_RECORD, forward, forward_tree, lift, pair, pair_of_vectors, record_words, transpose};
use super::{Direction, IfmaNtt, LAZY};
use crate::Fetch;
use crate::simd::{Field, cut, load, store, zero};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run<const LOOSE: bool>(table: &IfmaNtt, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
    descend::<LOOSE>(&Field::new(&table.modulus), &table.forward, [0, 0], source, limb, fetch);
}

/// What is left of a transform after its first pass, for a quarter of the limb.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run_quarter(
    table: &IfmaNtt,
    quarter: usize,
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    descend::<true>(&Field::new(&table.modulus), &table.forward, [1, quarter], source, limb, fetch);
}

/// Calls the last pass with the options of a direction.
macro_rules! choose_last {
    ($d:ident, $loose:ident, $args:tt) => {
        match ($d.growth == LAZY, $d.last.shrink) {
            (true, [false, false]) => last::<true, false, false, $loose> $args,
            (true, [false, true]) => last::<true, false, true, $loose> $args,
            (true, [true, false]) => last::<true, true, false, $loose> $args,
            (true, [true, true]) => last::<true, true, true, $loose> $args,
            (false, _) => last::<false, false, false, $loose> $args,
        }
    };
}

/// Runs the passes from `depth` on over the block with index `block` among those of its size, from `source` or in place.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn descend<const LOOSE: bool>(
    k: &Field,
    d: &Direction,
    [depth, block]: [usize; 2],
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    let pass = &d.passes[depth];
    let words = record_words(pass.stages);
    let record = &pass.records[block * words..(block + 1) * words];
    match (pass.stages, d.growth == LAZY, pass.shrink) {
        (2, true, false) => pass_4::<true, false>(k, source, limb, record, fetch),
        (2, true, true) => pass_4::<true, true>(k, source, limb, record, fetch),
        (2, false, _) => pass_4::<false, false>(k, source, limb, record, fetch),
        (_, true, false) => pass_8::<true, false>(k, source, limb, record, fetch),
        (_, true, true) => pass_8::<true, true>(k, source, limb, record, fetch),
        (_, false, _) => pass_8::<false, false>(k, source, limb, record, fetch),
    }
    let parts = 1 << pass.stages;
    let size = limb.len() / parts;
    if depth + 1 == d.passes.len() {
        let (blocks, _) = limb.as_chunks_mut::<64>();
        let records = &d.last.records.all()[block * parts..(block + 1) * parts];
        choose_last!(d, LOOSE, (k, blocks, records, fetch));
    } else {
        for (i, part) in limb.chunks_exact_mut(size).enumerate() {
            descend::<LOOSE>(k, d, [depth + 1, block * parts + i], None, part, fetch);
        }
    }
}

macro_rules! pass {
    ($name:ident, $radix:tt) => {
        /// One pass over a block whose parts are a multiple of 8 words, from `source` or in place.
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
        fn $name<const LAZY: bool, const SHRINK: bool>(
            k: &Field,
            source: Option<&[u64]>,
            limb: &mut [u64],
            record: &[u64],
            fetch: &mut Fetch,
        ) {
            let stride = limb.len() / $radix;
            assert!(limb.len() == $radix * stride && stride.is_multiple_of(8) && record.len() == 2 * ($radix - 1));
            let data = limb.as_mut_ptr();
            let source = match source {
                Some(source) => {
                    assert_eq!(source.len(), limb.len(), "limbs of different lengths");
                    source.as_ptr()
                }
                None => data.cast_const(),
            };
            let record = record.as_ptr();
            for j in (0..stride).step_by(8) {
                fetch.some::<{ $radix / 4 }>();
                let mut v = [zero(); $radix];
                for i in 0..$radix {
                    // SAFETY: i·stride + j + 8 ≤ $radix·stride, the length of the limb and of the source.
                    v[i] = load(unsafe { &*source.add(i * stride + j).cast() });
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

/// The last six stages, and the reduction to canonical residues unless they may stay `LOOSE`.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn last<const LAZY: bool, const SHRINK_0: bool, const SHRINK_1: bool, const LOOSE: bool>(
    k: &Field,
    blocks: &mut [[u64; 64]],
    records: &[[u64; LAST_RECORD]],
    fetch: &mut Fetch,
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
                    ($v[$x], $v[$y]) = forward::<LAZY>(k, $v[$x], $v[$y], pair_of_vectors(k, $record, $node));
                };
            }
            forward_tree!(8, butterfly, 0, 1);
        };
    }
    macro_rules! finish {
        ($v:ident, $rows:expr) => {
            for x in &mut $v {
                *x = match (LAZY, LOOSE) {
                    (true, true) => k.clean(*x),
                    (true, false) => k.reduce(*x),
                    (false, true) => cut(*x, k.two_p),
                    (false, false) => cut(cut(*x, k.two_p), k.p),
                };
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
        fetch.some::<8>();
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
