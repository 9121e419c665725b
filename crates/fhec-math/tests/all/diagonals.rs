//! Sums of products of compressed diagonals against the definition.

use crate::common::{moduli, words};
use fhec_math::diagonals::{DiagonalTerm, sum_products};

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
#[should_panic(expected = "another length")]
fn lengths_are_checked() {
    let m = moduli(30, 10, 1)[0];
    let term = DiagonalTerm { values: &[1, 2, 3], repeat: 2, factors: [&[0; 8], &[0; 8]] };
    sum_products(&m, &[term], [&mut [0; 8], &mut [0; 8]]);
}
