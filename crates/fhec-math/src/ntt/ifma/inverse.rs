//! Values to coefficients.

use super::butterfly::{LAST_RECORD, inverse, inverse_tree, pair, pair_of_vectors, record_words, transpose};
use super::{CARRIED, Direction, IfmaNtt, LAZY, LastPass, Lead, STRICT};
use crate::Fetch;
use crate::simd::{Field, V, add, cut, lo, load, splat, store, zero};

/// Calls the pass with the options that its place asks for.
macro_rules! choose {
    ($name:ident, $d:ident, $pass:ident, $depth:ident, $args:tt) => {
        match ($d.growth, $pass.shrink, $depth == 0) {
            (CARRIED, false, false) => $name::<CARRIED, false, false> $args,
            (CARRIED, true, false) => $name::<CARRIED, true, false> $args,
            (CARRIED, _, true) => $name::<CARRIED, false, true> $args,
            (LAZY, false, false) => $name::<LAZY, false, false> $args,
            (LAZY, true, false) => $name::<LAZY, true, false> $args,
            (LAZY, _, true) => $name::<LAZY, false, true> $args,
            (_, _, false) => $name::<STRICT, false, false> $args,
            (_, _, true) => $name::<STRICT, false, true> $args,
        }
    };
}

/// Calls the last pass with the options of a direction.
macro_rules! choose_last {
    ($d:ident, $args:tt) => {
        match ($d.growth, $d.last.shrink) {
            (CARRIED, [false, false]) => last::<CARRIED, false, false> $args,
            (CARRIED, [false, true]) => last::<CARRIED, false, true> $args,
            (CARRIED, [true, false]) => last::<CARRIED, true, false> $args,
            (CARRIED, [true, true]) => last::<CARRIED, true, true> $args,
            (LAZY, [false, false]) => last::<LAZY, false, false> $args,
            (LAZY, [false, true]) => last::<LAZY, false, true> $args,
            (LAZY, [true, false]) => last::<LAZY, true, false> $args,
            (LAZY, [true, true]) => last::<LAZY, true, true> $args,
            _ => last::<STRICT, false, false> $args,
        }
    };
}

/// From `source`, or in place without one.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run(table: &IfmaNtt, source: Option<&[u64]>, limb: &mut [u64], fetch: &mut Fetch) {
    let (k, d) = (Field::new(&table.modulus), &table.inverse);
    ascend(&k, d, by_degree(table), [0, 0], Lead::default(), source, limb, fetch);
}

/// As much of a transform as comes before its last pass, for a quarter of the limb.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(super) fn run_quarter(
    table: &IfmaNtt,
    quarter: usize,
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    let (k, d) = (Field::new(&table.modulus), &table.inverse);
    ascend(&k, d, by_degree(table), [1, quarter], d.passes[0].leads[quarter], source, limb, fetch);
}

/// `1/N` and its companion.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn by_degree(table: &IfmaNtt) -> (V, V) {
    (splat(table.n_inverse.0), splat(table.n_inverse.1))
}

/// Undoes the passes from `depth` on over the block with index `block` among those of its size; its values carry `lead` in the end.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
#[expect(clippy::too_many_arguments, reason = "a recursion, whose arguments are not one thing")]
fn ascend(
    k: &Field,
    d: &Direction,
    n_inverse: (V, V),
    [depth, block]: [usize; 2],
    lead: Lead,
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    let pass = &d.passes[depth];
    let parts = 1 << pass.stages;
    let size = limb.len() / parts;
    if depth + 1 == d.passes.len() {
        if let Some(source) = source {
            // What the first cache holds, so that it is read from there.
            limb.copy_from_slice(source);
        }
        let (blocks, _) = limb.as_chunks_mut::<64>();
        let records = &d.last.records.all()[block * parts..(block + 1) * parts];
        choose_last!(d, (k, &d.last, &pass.leads, blocks, records, fetch));
    } else {
        for (i, part) in limb.chunks_exact_mut(size).enumerate() {
            let source = source.map(|source| &source[i * size..(i + 1) * size]);
            ascend(k, d, n_inverse, [depth + 1, block * parts + i], pass.leads[i], source, part, fetch);
        }
    }
    let words = record_words(pass.stages);
    let record = &pass.records[block * words..(block + 1) * words];
    match pass.stages {
        2 => choose!(pass_4, d, pass, depth, (k, pass.bound, lead, n_inverse, limb, record, fetch)),
        _ => choose!(pass_8, d, pass, depth, (k, pass.bound, lead, n_inverse, limb, record, fetch)),
    }
}

/// Offsets that keep differences positive in each stage of a lazy pass whose inputs are at most `bound` times `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn offsets<const GROWTH: u8>(k: &Field, bound: u64) -> [V; 3] {
    if GROWTH == LAZY {
        // The product is below 2^52 for every stage that the pass has.
        let first = lo(zero(), splat(bound), k.p);
        let second = add(first, first);
        [first, second, add(second, second)]
    } else {
        [k.two_p; 3]
    }
}

/// What the products of the first two stages carry, as [`LEADS`] for what comes in.
#[derive(Clone, Copy)]
struct Carried {
    none: V,
    two_p: V,
    six_p: V,
}

impl Carried {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
    fn new(k: &Field) -> Self {
        Self { none: zero(), two_p: k.two_p, six_p: add(k.two_p, add(k.two_p, k.two_p)) }
    }

    /// What the product at index `y` of a pass over `radix` rows carries after `stage`, the last of which hands `out` on.
    #[inline(always)]
    fn after(&self, radix: usize, stage: usize, y: usize, out: V) -> V {
        match (radix, stage, y) {
            (8, 2, _) | (4, 1, _) => out,
            (8, 0, 1) => self.six_p,
            (8, 0, 5) | (8, 1, 2 | 3) | (4, 0, 1) => self.two_p,
            _ => self.none,
        }
    }
}

/// Adds up what the values of the upper half carry, where they are reduced or not; products carry it already.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn leave<const GROWTH: u8, const SHRINK: bool>(k: &Field, x: V, (bias, start): (V, V)) -> V {
    match (GROWTH == CARRIED, SHRINK) {
        (true, true) => k.shrink_above(x, start),
        (true, false) => add(x, bias),
        (false, true) => k.shrink(x),
        (false, false) => x,
    }
}

macro_rules! pass {
    ($name:ident, $radix:tt) => {
        /// One pass over a block whose parts are a multiple of 8 words. The final one divides by `N` and reduces.
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
        fn $name<const GROWTH: u8, const SHRINK: bool, const FINAL: bool>(
            k: &Field,
            bound: u64,
            lead: Lead,
            n_inverse: (V, V),
            limb: &mut [u64],
            record: &[u64],
            fetch: &mut Fetch,
        ) {
            let stride = limb.len() / $radix;
            assert!(limb.len() == $radix * stride && stride.is_multiple_of(8) && record.len() == 2 * ($radix - 1));
            let offset = offsets::<GROWTH>(k, bound);
            let (carried, out) = (Carried::new(k), (splat(lead.bias), splat(lead.start)));
            let data = limb.as_mut_ptr();
            let record = record.as_ptr();
            for j in (0..stride).step_by(8) {
                fetch.some::<{ $radix / 4 }>();
                let mut v = [zero(); $radix];
                for i in 0..$radix {
                    // SAFETY: i·stride + j + 8 ≤ $radix·stride, the length of the limb.
                    v[i] = load(unsafe { &*data.add(i * stride + j).cast() });
                }
                macro_rules! butterfly {
                    ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                        // SAFETY: nodes go from 1 to $radix − 1, and so many pairs are in the record.
                        let w = unsafe { pair(record, $node) };
                        (v[$x], v[$y]) = {
                            let extra = if GROWTH == CARRIED {
                                carried.after($radix, $stage, $y, out.0)
                            } else {
                                offset[$stage]
                            };
                            inverse::<GROWTH>(k, v[$x], v[$y], w, extra)
                        };
                    };
                }
                inverse_tree!($radix, butterfly, 0, 1);
                for i in 0..$radix {
                    let mut x = v[i];
                    if FINAL {
                        // The factor of the root is divided by N already; the sums are not.
                        x = if i < $radix / 2 { k.mul_shoup(x, n_inverse) } else { cut(k.clean(x), k.p) };
                    } else if i < $radix / 2 {
                        x = leave::<GROWTH, SHRINK>(k, x, out);
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

/// Undoes the last six stages of as many blocks as there are parts, four or eight. They carry `leads` in the end.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn last<const GROWTH: u8, const SHRINK_0: bool, const SHRINK_1: bool>(
    k: &Field,
    last: &LastPass,
    leads: &[Lead; 8],
    blocks: &mut [[u64; 64]],
    records: &[[u64; LAST_RECORD]],
    fetch: &mut Fetch,
) {
    let within_offset = offsets::<GROWTH>(k, last.bounds[1]);
    let across_offset = offsets::<GROWTH>(k, last.bounds[0]);
    let carried = Carried::new(k);
    let lane_bias = (load(&last.lanes.0), load(&last.lanes.1));
    let (pairs, _) = blocks.as_chunks_mut::<2>();
    let (pairs_of_records, _) = records.as_chunks::<2>();
    macro_rules! load_transposed {
        ($rows:expr) => {{
            let (rows, _) = $rows.as_chunks::<8>();
            let mut v = [zero(); 8];
            for i in 0..8 {
                v[i] = load(&rows[i]);
            }
            v = transpose(v);
            if GROWTH == CARRIED {
                for i in [0, 2, 4, 6] {
                    v[i] = add(v[i], splat(last.rows[i]));
                }
            }
            v
        }};
    }
    macro_rules! within {
        ($v:ident, $record:expr) => {
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                    let w = pair_of_vectors(k, $record, $node);
                    ($v[$x], $v[$y]) = {
                        let extra = if GROWTH == CARRIED {
                            carried.after(8, $stage, $y, lane_bias.0)
                        } else {
                            within_offset[$stage]
                        };
                        inverse::<GROWTH>(k, $v[$x], $v[$y], w, extra)
                    };
                };
            }
            inverse_tree!(8, butterfly, 0, 1);
            for x in &mut $v[..4] {
                *x = leave::<GROWTH, SHRINK_1>(k, *x, lane_bias);
            }
        };
    }
    macro_rules! across {
        ($v:ident, $record:expr, $out:expr) => {
            macro_rules! butterfly {
                ($x:expr, $y:expr, $node:expr, $stage:expr) => {
                    // SAFETY: the record begins with seven pairs.
                    let w = unsafe { pair($record.as_ptr(), $node) };
                    ($v[$x], $v[$y]) = {
                        let extra = if GROWTH == CARRIED {
                            carried.after(8, $stage, $y, $out.0)
                        } else {
                            across_offset[$stage]
                        };
                        inverse::<GROWTH>(k, $v[$x], $v[$y], w, extra)
                    };
                };
            }
            inverse_tree!(8, butterfly, 0, 1);
        };
    }
    macro_rules! finish {
        ($v:ident, $rows:expr, $out:expr) => {
            let (rows, _) = $rows.as_chunks_mut::<8>();
            for i in 0..8 {
                let x = if i < 4 { leave::<GROWTH, SHRINK_0>(k, $v[i], $out) } else { $v[i] };
                store(&mut rows[i], x);
            }
        };
    }
    // Two blocks at a time, shifted: while one is transposed the other keeps the multipliers busy.
    for (i, ([a, b], records)) in pairs.iter_mut().zip(pairs_of_records).enumerate() {
        // More than the two records that are read, so that it stays ahead.
        fetch.some::<{ LAST_RECORD / 3 }>();
        let [record_a, record_b] = records;
        let (lead_a, lead_b) = (&leads[2 * i % 8], &leads[(2 * i + 1) % 8]);
        let out_a = (splat(lead_a.bias), splat(lead_a.start));
        let out_b = (splat(lead_b.bias), splat(lead_b.start));
        let mut va = load_transposed!(a);
        within!(va, record_a);
        let mut vb = load_transposed!(b);
        va = transpose(va);
        within!(vb, record_b);
        across!(va, record_a, out_a);
        vb = transpose(vb);
        finish!(va, a, out_a);
        across!(vb, record_b, out_b);
        finish!(vb, b, out_b);
    }
}
