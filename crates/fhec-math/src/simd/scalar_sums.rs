//! Sums of limbs times scalars. Checks and meaning: [`crate::scalar_sums`].

use super::{Field, V, hi, lo, load, splat, store, zero};
use crate::Modulus;
use crate::scalar_sums::{LANES, SEGMENT};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
pub(crate) fn scalar_sums(
    m: &Modulus,
    packed: &[u64],
    count: usize,
    inputs: &[u32],
    weights: &[u64],
    out: &mut [&mut [u64]],
) {
    // Few sums handle several vectors at a time: there must be enough of them in flight to hide the latency of the multiplier.
    match out {
        [a] => sums::<1, 4>(m, packed, count, inputs, weights, [a]),
        [a, b] => sums::<2, 4>(m, packed, count, inputs, weights, [a, b]),
        [a, b, c] => sums::<3, 2>(m, packed, count, inputs, weights, [a, b, c]),
        [a, b, c, d] => sums::<4, 2>(m, packed, count, inputs, weights, [a, b, c, d]),
        [a, b, c, d, e] => sums::<5, 1>(m, packed, count, inputs, weights, [a, b, c, d, e]),
        [a, b, c, d, e, f] => sums::<6, 1>(m, packed, count, inputs, weights, [a, b, c, d, e, f]),
        [a, b, c, d, e, f, g] => sums::<7, 1>(m, packed, count, inputs, weights, [a, b, c, d, e, f, g]),
        [a, b, c, d, e, f, g, h] => sums::<8, 1>(m, packed, count, inputs, weights, [a, b, c, d, e, f, g, h]),
        _ => unreachable!("the caller checks the number of sums"),
    }
}

/// `R` sums, `G` vectors at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn sums<const R: usize, const G: usize>(
    m: &Modulus,
    packed: &[u64],
    count: usize,
    inputs: &[u32],
    weights: &[u64],
    mut out: [&mut &mut [u64]; R],
) {
    let field = Field::new(m);
    let vectors = out[0].len() / LANES;
    let whole = vectors / G * G;
    let (packed, _) = packed.as_chunks::<LANES>();
    for start in (0..whole).step_by(G) {
        some::<R, G>(&field, packed, count, inputs, weights, &mut out, start);
    }
    for start in whole..vectors {
        some::<R, 1>(&field, packed, count, inputs, weights, &mut out, start);
    }
}

/// The `G` vectors from `start` on.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512ifma,avx512vbmi")]
fn some<const R: usize, const G: usize>(
    field: &Field,
    packed: &[[u64; LANES]],
    count: usize,
    inputs: &[u32],
    weights: &[u64],
    out: &mut [&mut &mut [u64]; R],
    start: usize,
) {
    let blocks: [&[[u64; LANES]]; G] = std::array::from_fn(|g| &packed[(start + g) * count..(start + g + 1) * count]);
    let (weights, _) = weights.as_chunks::<R>();
    let mut total: Option<[[V; G]; R]> = None;
    for (inputs, weights) in inputs.chunks(SEGMENT).zip(weights.chunks(SEGMENT)) {
        let mut low = [[zero(); G]; R];
        let mut high = [[zero(); G]; R];
        for (&input, weights) in inputs.iter().zip(weights) {
            for g in 0..G {
                let x = load(&blocks[g][input as usize]);
                for r in 0..R {
                    let w = splat(weights[r]);
                    low[r][g] = lo(low[r][g], x, w);
                    high[r][g] = hi(high[r][g], x, w);
                }
            }
        }
        let mut sum = total.unwrap_or([[zero(); G]; R]);
        for r in 0..R {
            for g in 0..G {
                sum[r][g] = field.add(sum[r][g], field.reduce_wide(low[r][g], high[r][g]));
            }
        }
        total = Some(sum);
    }
    let total = total.unwrap_or([[zero(); G]; R]);
    for r in 0..R {
        let (lanes, _) = out[r].as_chunks_mut::<LANES>();
        for g in 0..G {
            store(&mut lanes[start + g], total[r][g]);
        }
    }
}
