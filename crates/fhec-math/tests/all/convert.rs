//! Base conversion against big integers.

use crate::common::{edge_words, moduli, words};
use fhec_math::cpu::{Kernels, kernels};
use fhec_math::{AlignedVec, BaseConverter, Fetch, MathError, Modulus, NttTable};
use num_bigint::{BigInt, BigUint};
use num_traits::{Signed, ToPrimitive, Zero};

fn product(base: &[Modulus]) -> BigUint {
    base.iter().map(|m| BigUint::from(m.value())).product()
}

fn residues(x: &BigInt, base: &[Modulus]) -> Vec<u64> {
    let residue = |m: &Modulus| {
        let p = BigInt::from(m.value());
        (((x % &p) + &p) % &p).to_u64().unwrap()
    };
    base.iter().map(residue).collect()
}

/// Converts the given integers and returns their residues in the target base, coefficient-major.
fn convert(from: &[Modulus], to: &[Modulus], values: &[BigInt]) -> Vec<Vec<u64>> {
    let n = values.len();
    let rows: Vec<Vec<u64>> = values.iter().map(|x| residues(x, from)).collect();
    let src: Vec<Vec<u64>> = (0..from.len()).map(|i| rows.iter().map(|r| r[i]).collect()).collect();
    let mut dst = vec![vec![0u64; n]; to.len()];
    let src: Vec<&[u64]> = src.iter().map(Vec::as_slice).collect();
    let mut out: Vec<&mut [u64]> = dst.iter_mut().map(Vec::as_mut_slice).collect();
    BaseConverter::new(from, to).convert(&src, &mut out);
    (0..n).map(|c| dst.iter().map(|limb| limb[c]).collect()).collect()
}

/// Bases of every size and kind of prime: (from, to).
fn bases() -> Vec<(Vec<Modulus>, Vec<Modulus>)> {
    let big = moduli(50, 13, 24);
    let mid = moduli(40, 13, 12);
    let small = moduli(28, 13, 8);
    vec![
        (big[..1].to_vec(), mid.clone()),
        (big[..2].to_vec(), small.clone()),
        (big[..10].to_vec(), big[10..].to_vec()),
        (big[..20].to_vec(), [&mid[..3], &small[..3]].concat()),
        (mid[..3].to_vec(), big[..4].to_vec()),
        (mid[..9].to_vec(), mid[9..].to_vec()),
        (small[..2].to_vec(), big[..3].to_vec()),
        (small.clone(), mid[..5].to_vec()),
        ([&small[..2], &mid[..2], &big[..2]].concat(), big[2..5].to_vec()),
    ]
}

#[test]
fn exact_and_centred() {
    for (from, to) in bases() {
        let q = BigInt::from(product(&from));
        let half = &q / 2;
        let limit: BigInt = &q / 1_000_000_007u64;
        let mut values = vec![BigInt::zero()];
        for k in [1u64, 2, 3, 1000] {
            let near: BigInt = &half - &limit - k;
            values.extend([BigInt::from(k), -BigInt::from(k), near.clone(), -near]);
        }
        // Spread over the whole centred range.
        for (i, chunk) in words(7, 6000, u64::MAX).chunks(30).enumerate() {
            let raw = chunk.iter().fold(BigInt::from(i), |acc, &w| (acc << 64) + w);
            let x: BigInt = raw % (&half - &limit);
            values.push(if i % 2 == 0 { x } else { -x });
        }
        for (x, got) in values.iter().zip(convert(&from, &to, &values)) {
            assert!(x.abs() <= half);
            assert_eq!(got, residues(x, &to), "x={x} Q={q}");
        }
    }
}

#[test]
fn at_the_boundary_either_sign_but_never_another_multiple() {
    for (from, to) in bases() {
        let q = BigInt::from(product(&from));
        let half = &q / 2;
        let values: Vec<BigInt> = (-3..=3).map(|k| &half + k).collect();
        for (x, got) in values.iter().zip(convert(&from, &to, &values)) {
            let other = x - &q;
            assert!(got == residues(x, &to) || got == residues(&other, &to), "x={x} Q={q}");
        }
    }
}

#[test]
fn the_error_has_mean_zero() {
    // Uniform inputs: the centred results average to 0 within a few standard deviations, where
    // uncentred ones would average to Q/2.
    let from = moduli(30, 12, 2);
    let to = moduli(50, 12, 2);
    let n = 1 << 14;
    let src: Vec<Vec<u64>> = from.iter().map(|m| words(m.value(), n, m.value())).collect();
    let src: Vec<&[u64]> = src.iter().map(Vec::as_slice).collect();
    let mut limbs = vec![vec![0u64; n]; 2];
    let mut out: Vec<&mut [u64]> = limbs.iter_mut().map(Vec::as_mut_slice).collect();
    BaseConverter::new(&from, &to).convert(&src, &mut out);
    let q = product(&from).to_f64().unwrap();
    let big = product(&to).to_u128().unwrap();
    // Garner on two primes gives the value back.
    let inverse = to[1].inv(to[1].reduce(to[0].value())).unwrap();
    let mean: f64 = (0..n)
        .map(|i| {
            let (a, b) = (limbs[0][i], limbs[1][i]);
            let k = to[1].mul(to[1].sub(b, to[1].reduce(a)), inverse);
            let x = u128::from(a) + u128::from(k) * u128::from(to[0].value());
            let centered = if x > big / 2 { x as f64 - big as f64 } else { x as f64 };
            assert!(centered.abs() <= 0.5001 * q);
            centered / q
        })
        .sum::<f64>()
        / n as f64;
    let sigma = (1.0 / 12.0 / n as f64).sqrt();
    assert!(mean.abs() < 5.0 * sigma, "mean {mean}, σ {sigma}");
}

#[test]
fn shared_primes_keep_their_residues() {
    let base = moduli(45, 13, 4);
    let values: Vec<BigInt> = words(3, 300, u64::MAX).into_iter().map(BigInt::from).collect();
    for (x, got) in values.iter().zip(convert(&base[..3], &base, &values)) {
        assert_eq!(got, residues(x, &base));
    }
}

#[test]
fn odd_lengths_work() {
    let (from, to) = (moduli(50, 13, 3), moduli(40, 13, 3));
    for n in [1, 7, 8, 9, 63, 100, 511, 513, 1000] {
        let values: Vec<BigInt> = words(n as u64, n, 1 << 60).into_iter().map(BigInt::from).collect();
        for (x, got) in values.iter().zip(convert(&from, &to, &values)) {
            assert_eq!(got, residues(x, &to));
        }
    }
}

#[test]
fn unfit_bases_are_refused() {
    let m = Modulus::new(65537).unwrap();
    let shared = Modulus::new(65537 * 3).unwrap();
    assert!(matches!(BaseConverter::try_new(&[], &[m]), Err(MathError::BadBase { .. })));
    assert!(matches!(BaseConverter::try_new(&[m, m], &[]), Err(MathError::BadBase { .. })));
    assert!(matches!(BaseConverter::try_new(&[m, shared], &[]), Err(MathError::BadBase { .. })));
}

#[test]
fn parallel_conversion_gives_the_same() {
    let (from, to) = (moduli(50, 13, 4), moduli(45, 13, 5));
    let n = 5000;
    let src: Vec<Vec<u64>> = from.iter().map(|m| words(m.value(), n, m.value())).collect();
    let src: Vec<&[u64]> = src.iter().map(Vec::as_slice).collect();
    let converter = BaseConverter::new(&from, &to);
    assert!(converter.from().eq(&from) && converter.to().eq(&to));
    let mut scratch = Vec::new();
    let mut results = Vec::new();
    for parallel in [false, true, false] {
        let mut limbs = vec![vec![1u64; n]; to.len()];
        let mut out: Vec<&mut [u64]> = limbs.iter_mut().map(Vec::as_mut_slice).collect();
        if parallel {
            converter.par_convert(&src, &mut out);
        } else {
            converter.convert_with(&src, &mut out, &mut scratch);
        }
        results.push(limbs);
    }
    assert!(results[0] == results[1] && results[1] == results[2]);
}

/// Loose results, written through the caches and past them, into lines of the cache and beside them.
#[test]
fn loose_conversion_is_congruent_and_below_four_times_the_prime() {
    for (from, to) in bases() {
        for n in [8, 64, 520, 5000] {
            let src: Vec<Vec<u64>> = from.iter().map(|m| edge_words(m.value(), n, m.value())).collect();
            let src: Vec<&[u64]> = src.iter().map(Vec::as_slice).collect();
            let converter = BaseConverter::new(&from, &to);
            let mut expected = vec![vec![0; n]; to.len()];
            let mut out: Vec<&mut [u64]> = expected.iter_mut().map(Vec::as_mut_slice).collect();
            converter.convert(&src, &mut out);
            for (past_caches, shift) in [(false, 0), (true, 0), (true, 1)] {
                let mut limbs = vec![AlignedVec::zeroed(n + shift); to.len()];
                let mut out: Vec<&mut [u64]> = limbs.iter_mut().map(|limb| &mut limb[shift..]).collect();
                converter.convert_loose(&src, &mut out, &mut Vec::new(), past_caches);
                for ((m, loose), expected) in to.iter().zip(&limbs).zip(&expected) {
                    assert!(loose[shift..].iter().all(|&x| x < 4 * m.value()), "{n} coefficients");
                    assert!(
                        loose[shift..].iter().map(|&x| m.reduce(x)).eq(expected.iter().copied()),
                        "{n} coefficients"
                    );
                }
            }
        }
    }
}

#[test]
fn converters_multiply_on_the_way() {
    for (from, to) in bases() {
        let n = 100;
        let limb = |m: &Modulus| edge_words(m.value(), n, m.value());
        let (src, factors): (Vec<_>, Vec<_>) = from.iter().map(|m| (limb(m), m.reduce(u64::MAX / 3))).unzip();
        let products: Vec<Vec<u64>> =
            from.iter().zip(&src).zip(&factors).map(|((m, x), &w)| x.iter().map(|&x| m.mul(x, w)).collect()).collect();
        let [wanted, got] =
            [(&products, BaseConverter::new(&from, &to)), (&src, BaseConverter::new(&from, &to).multiplied(&factors))]
                .map(|(src, converter)| {
                    let src: Vec<&[u64]> = src.iter().map(Vec::as_slice).collect();
                    let mut dst = vec![vec![0; n]; to.len()];
                    converter.convert(&src, &mut dst.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
                    dst
                });
        assert!(wanted == got);
    }
}

/// Between transforms: values to values, with primes that let transforms be lazy in one way or another and bases that make sums wide.
#[test]
fn conversion_in_quarters_is_that_between_whole_transforms() {
    let table = |m: &Modulus, log_n| NttTable::get(m.value(), log_n).unwrap();
    let mut seen = 0;
    for log_n in 4..=17 {
        for (bits_from, bits_to, many) in
            [(46, 47, 5), (47, 50, 3), (49, 45, 4), (50, 50, 17), (36, 46, 1), (40, 30, 9), (27, 28, 2)]
        {
            let from = moduli(bits_from, log_n, many);
            let mut to = moduli(bits_to, log_n, many + 3).split_off(many);
            to.extend(moduli(48, log_n, 1));
            let tables = |base: &[Modulus]| base.iter().map(|m| table(m, log_n)).collect::<Vec<_>>();
            let (from_tables, to_tables) = (tables(&from), tables(&to));
            if !from_tables[0].has_quarters() {
                continue;
            }
            seen += 1;
            let n = 1 << log_n;
            let values: Vec<Vec<u64>> = from.iter().map(|m| edge_words(m.value(), n, m.value())).collect();
            let factors: Vec<u64> = from.iter().map(|m| m.value() / 3).collect();
            let converter = BaseConverter::new(&from, &to).multiplied(&factors);

            let mut coefficients = values.clone();
            coefficients.iter_mut().zip(&from_tables).for_each(|(limb, table)| table.inverse(limb));
            let mut expected = vec![vec![0; n]; to.len()];
            let src: Vec<&[u64]> = coefficients.iter().map(Vec::as_slice).collect();
            converter.convert(&src, &mut expected.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
            expected.iter_mut().zip(&to_tables).for_each(|(limb, table)| table.forward(limb));

            let mut left: Vec<Vec<u64>> = vec![vec![7; n]; from.len()];
            for (i, (limb, table)) in left.iter_mut().zip(&from_tables).enumerate() {
                let mut fetch = Fetch::new([&values[0][..], &values[i]]);
                for (q, (part, source)) in limb.chunks_exact_mut(n / 4).zip(values[i].chunks_exact(n / 4)).enumerate() {
                    table.fetch(true, Some(q), &mut fetch);
                    if i % 2 == 0 {
                        table.inverse_quarter(q, Some(source), part, &mut fetch);
                    } else {
                        part.copy_from_slice(source);
                        table.inverse_quarter(q, None, part, &mut fetch);
                    }
                }
            }
            for (past_caches, shift, block) in [(false, 0, n / 4), (true, 0, n / 4), (true, 0, 16), (true, 1, n / 8)] {
                let mut limbs = vec![AlignedVec::zeroed(n + shift); to.len()];
                for start in (0..n / 4).step_by(block) {
                    let place = |q: usize| q * n / 4 + start..q * n / 4 + start + block;
                    let src: Vec<(&NttTable, [&[u64]; 4])> =
                        (0..from.len()).map(|i| (&*from_tables[i], [0, 1, 2, 3].map(|q| &left[i][place(q)]))).collect();
                    let mut dst: Vec<(&NttTable, [&mut [u64]; 4])> = limbs
                        .iter_mut()
                        .zip(&to_tables)
                        .map(|(limb, table)| {
                            let mut quarters = limb[shift..].chunks_exact_mut(n / 4);
                            (&**table, [(); 4].map(|()| &mut quarters.next().unwrap()[start..start + block]))
                        })
                        .collect();
                    converter.convert_quarters(&src, &mut dst, &mut Vec::new(), past_caches);
                }
                for (i, (table, m)) in to_tables.iter().zip(&to).enumerate() {
                    let mut there = vec![0; n];
                    let quarters = there.chunks_exact_mut(n / 4).zip(limbs[i][shift..].chunks_exact_mut(n / 4));
                    for (q, (there, here)) in quarters.enumerate() {
                        let mut fetch = Fetch::new([]);
                        table.fetch(false, Some(q), &mut fetch);
                        table.forward_quarter(q, Some(here), there, &mut fetch);
                        fetch.clear();
                        table.forward_quarter(q, None, here, &mut fetch);
                    }
                    assert!(there == limbs[i][shift..], "in place or not, {}, log_n={log_n}", m.value());
                    assert!(there.iter().all(|&x| x < (1 << 52) - m.value()), "bound, {}, log_n={log_n}", m.value());
                    let congruent = there.iter().map(|&x| m.reduce(x)).eq(expected[i].iter().copied());
                    assert!(congruent, "{many} of {bits_from} bits to {}, log_n={log_n}, block {block}", m.value());
                }
            }
        }
    }
    let wanted = if kernels() == Kernels::Avx512Ifma { 6 * 7 } else { 0 };
    assert_eq!(seen, wanted, "rings with quarters");
}
