//! Sums of products of compressed diagonals against the definition.

use crate::common::{moduli, words};
use fhec_math::diagonals::{
    DiagonalTerm, MirroredTerm, STEP, pack_step, step_words, sum_mirrored, sum_packed, sum_products,
};

#[test]
fn sums_agree_with_the_definition() {
    for bits in [28, 40, 49] {
        let m = moduli(bits, 10, 1)[0];
        for (n, count) in [(1024, 3), (256, 17), (64, 300), (32, 1), (40, 5), (7, 2), (1, 1), (64, 0)] {
            for extreme in [false, true] {
                check(&m, n, count, extreme);
            }
        }
    }
}

fn check(m: &fhec_math::Modulus, n: usize, count: usize, extreme: bool) {
    let p = m.value();
    let fill = |seed: usize, len: usize| if extreme { vec![p - 1; len] } else { words(seed as u64 + 1, len, p) };
    // All repeats in turn, some longer than the sum.
    let repeat = |t: usize| 1 << (t % 12);
    let values: Vec<Vec<u64>> = (0..count).map(|t| fill(t, n.div_ceil(repeat(t)))).collect();
    let factors: Vec<[Vec<u64>; 2]> = (0..count).map(|t| [fill(t + 1000, n), fill(t + 2000, n)]).collect();
    let terms: Vec<DiagonalTerm<'_>> = (0..count)
        .map(|t| DiagonalTerm { values: &values[t], repeat: repeat(t), factors: [&factors[t][0], &factors[t][1]] })
        .collect();
    let (mut out0, mut out1) = (vec![1; n], vec![1; n]);
    sum_products(m, &terms, [&mut out0, &mut out1]);
    for (r, out) in [out0, out1].iter().enumerate() {
        for (k, &found) in out.iter().enumerate() {
            let product = |t: usize| u128::from(values[t][k / repeat(t)]) * u128::from(factors[t][r][k]);
            let want = (0..count).map(product).fold(0, |a, x| (a + x) % u128::from(p));
            assert_eq!(u128::from(found), want, "n = {n}, {count} terms, position {k}");
        }
    }
}

#[test]
fn mirrored_sums_agree_with_the_definition() {
    for bits in [28, 40, 49] {
        let m = moduli(bits, 10, 1)[0];
        let p = m.value();
        for (n, count) in [(512usize, 14), (64, 300), (32, 1), (96, 17), (64, 0)] {
            for extreme in [false, true] {
                let fill = |seed: usize, len| if extreme { vec![p - 1; len] } else { words(seed as u64 + 1, len, p) };
                let repeat = |t: usize| 1 << (t % 12);
                let values: Vec<Vec<u64>> = (0..count).map(|t| fill(t, n.div_ceil(repeat(t)))).collect();
                let factors: Vec<[Vec<u64>; 4]> =
                    (0..count).map(|t| std::array::from_fn(|k| fill(1000 * k + t, n))).collect();
                let term = |t: usize| {
                    let [a, b, c, d] = &factors[t];
                    MirroredTerm { values: &values[t], repeat: repeat(t), factors: [[a, b], [c, d]] }
                };
                let terms: Vec<MirroredTerm<'_>> = (0..count).map(term).collect();
                let mut out: [Vec<u64>; 4] = std::array::from_fn(|_| vec![1; n]);
                let [a, b, c, d] = &mut out;
                sum_mirrored(&m, &terms, [[a, b], [c, d]]);
                for (r, out) in out.iter().enumerate() {
                    for (k, &found) in out.iter().enumerate() {
                        let at = if r < 2 { k } else { n - 1 - k };
                        let product = |t: usize| u128::from(values[t][at / repeat(t)]) * u128::from(factors[t][r][k]);
                        let want = (0..count).map(product).fold(0, |a, x| (a + x) % u128::from(p));
                        assert_eq!(u128::from(found), want, "n = {n}, {count} terms, output {r}, position {k}");
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "another length")]
fn lengths_are_checked() {
    let m = moduli(30, 10, 1)[0];
    let term = DiagonalTerm { values: &[1, 2, 3], repeat: 2, factors: [&[0; 8], &[0; 8]] };
    sum_products(&m, &[term], [&mut [0; 8], &mut [0; 8]]);
}

#[test]
fn streams_give_the_same_sums() {
    for bits in [17, 28, 34, 40, 49] {
        let m = moduli(bits, 10, 1)[0];
        let p = m.value();
        for repeat in (0..8).map(|e| 1 << e) {
            for (n, count) in [(256usize, 5u64), (32, 40), (64, 0), (96, 17)] {
                for extreme in [false, true] {
                    let fill = |seed: u64, len| if extreme { vec![p - 1; len] } else { words(seed + 1, len, p) };
                    let values: Vec<Vec<u64>> = (0..count).map(|t| fill(t, n.div_ceil(repeat))).collect();
                    let factors: Vec<[Vec<u64>; 2]> = (0..count).map(|t| [fill(t + 99, n), fill(t + 999, n)]).collect();
                    let factors: Vec<[&[u64]; 2]> = factors.iter().map(|[a, b]| [&a[..], &b[..]]).collect();
                    let terms: Vec<DiagonalTerm<'_>> = values
                        .iter()
                        .zip(&factors)
                        .map(|(values, &factors)| DiagonalTerm { values, repeat, factors })
                        .collect();
                    let size = step_words(&m, repeat);
                    let mut stream = vec![0; n / STEP * values.len() * size];
                    for (at, out) in stream.chunks_exact_mut(size).enumerate() {
                        let (step, t) = (at / values.len(), at % values.len());
                        let first = step * STEP / repeat;
                        pack_step(&m, repeat, &values[t][first..first + (STEP / repeat).max(1)], out);
                    }
                    let mut want = [vec![0; n], vec![0; n]];
                    let mut got = want.clone();
                    let [want0, want1] = &mut want;
                    sum_products(&m, &terms, [want0, want1]);
                    let [got0, got1] = &mut got;
                    sum_packed(&m, repeat, &stream, &factors, [got0, got1]);
                    assert!(got == want, "{bits} bits, runs of {repeat}, {count} terms of {n}");
                }
            }
        }
    }
}
