//! Element-wise kernels against big arithmetic, for every width of prime and for edge values.

use crate::common::{edge_words, moduli, words};
use fhec_math::accumulate::{MAX_PRODUCTS, dot_into, dot_pair_into, mac_lazy, reduce_lazy};
use fhec_math::pointwise as pw;
use fhec_math::{LazyAccumulator, Modulus};
use num_bigint::BigUint;
use num_traits::ToPrimitive;

fn all_moduli() -> Vec<Modulus> {
    let mut out: Vec<Modulus> =
        [50, 49, 48, 47, 46, 40, 35, 30, 25, 20].iter().flat_map(|&bits| moduli(bits, 10, 2)).collect();
    // Just above a power of two, tiny, and the largest odd number allowed.
    let p = (0..).map(|k| (1u64 << 49) + 1 + (k << 11)).find(|&p| fhec_math::is_prime(p)).unwrap();
    out.extend([p, 3, 17, (1 << 50) - 1].map(|p| Modulus::new(p).unwrap()));
    out
}

/// Calls `check` with a modulus and three limbs that pair all edge values; odd lengths reach the tails.
fn each(check: impl Fn(&Modulus, &[u64], &[u64], &[u64])) {
    for m in all_moduli() {
        for n in [1, 7, 8, 64, 1027] {
            let p = m.value();
            let a = edge_words(p, n, p);
            let mut b = edge_words(p ^ 5, n, p);
            b.rotate_left(3.min(n - 1));
            check(&m, &a, &b, &words(p ^ 9, n, p));
            let top = vec![p - 1; n];
            check(&m, &top, &top, &top);
            check(&m, &top, &vec![0; n], &a);
        }
    }
}

fn expect(m: &Modulus, got: &[u64], wanted: impl Fn(usize) -> i128) {
    let p = i128::from(m.value());
    for (i, &x) in got.iter().enumerate() {
        assert_eq!(i128::from(x), wanted(i).rem_euclid(p), "p={p} i={i}");
    }
}

#[test]
fn element_wise() {
    each(|m, a, b, c| {
        let int = |s: &[u64], i: usize| i128::from(s[i]);
        let run = |f: &dyn Fn(&mut [u64])| {
            let mut dst = a.to_vec();
            f(&mut dst);
            dst
        };
        let w = b[b.len() / 2];
        let iw = i128::from(w);
        expect(m, &run(&|d| pw::add_assign(m, d, b)), |i| int(a, i) + int(b, i));
        expect(m, &run(&|d| pw::sub_assign(m, d, b)), |i| int(a, i) - int(b, i));
        expect(m, &run(&|d| pw::rsub_assign(m, d, b)), |i| int(b, i) - int(a, i));
        expect(m, &run(&|d| pw::neg_assign(m, d)), |i| -int(a, i));
        expect(m, &run(&|d| pw::mul_assign(m, d, b)), |i| int(a, i) * int(b, i));
        expect(m, &run(&|d| pw::mul_into(m, d, b, c)), |i| int(b, i) * int(c, i));
        expect(m, &run(&|d| pw::mul_add_assign(m, d, b, c)), |i| int(a, i) + int(b, i) * int(c, i));
        expect(m, &run(&|d| pw::mul_sub_assign(m, d, b, c)), |i| int(a, i) - int(b, i) * int(c, i));
        expect(m, &run(&|d| pw::mul_scalar_assign(m, d, w)), |i| int(a, i) * iw);
        expect(m, &run(&|d| pw::mul_scalar_into(m, d, b, w)), |i| int(b, i) * iw);
        expect(m, &run(&|d| pw::mul_scalar_add_assign(m, d, b, w)), |i| int(a, i) + int(b, i) * iw);
        expect(m, &run(&|d| pw::sub_mul_scalar_assign(m, d, b, w)), |i| (int(a, i) - int(b, i)) * iw);
        expect(m, &run(&|d| pw::add_scalar_assign(m, d, w)), |i| int(a, i) + iw);
        expect(m, &run(&|d| pw::sub_scalar_assign(m, d, w)), |i| int(a, i) - iw);
    });
}

#[test]
fn between_moduli() {
    for from in all_moduli() {
        for to in all_moduli() {
            let src = edge_words(from.value(), 37, from.value());
            let mut dst = vec![0; src.len()];
            pw::reduce_into(&to, &mut dst, &src);
            expect(&to, &dst, |i| i128::from(src[i]));
            pw::switch_centered(&from, &to, &src, &mut dst);
            expect(&to, &dst, |i| i128::from(from.center(src[i])));
        }
    }
    let m = moduli(50, 10, 1)[0];
    let src = [u64::MAX, 1 << 63, 1 << 52, (1 << 52) - 1, 1 << 50, 5, 6, 7, u64::MAX - 1];
    let mut dst = [0; 9];
    pw::reduce_into(&m, &mut dst, &src);
    expect(&m, &dst, |i| i128::from(src[i]));
}

fn dot(m: &Modulus, a: &[Vec<u64>], b: &[Vec<u64>], i: usize) -> u64 {
    let sum: BigUint = a.iter().zip(b).map(|(x, y)| BigUint::from(x[i]) * BigUint::from(y[i])).sum();
    (sum % m.value()).to_u64().unwrap()
}

#[test]
fn lazy_sums() {
    for m in all_moduli() {
        let p = m.value();
        for (terms, n) in [(0, 9), (1, 65), (3, 1027), (15, 40), (16, 40), (17, 40), (70, 24)] {
            let limbs = |seed| (0..terms).map(|k| edge_words(p ^ k ^ seed, n, p)).collect::<Vec<_>>();
            let (a, b) = (limbs(0), limbs(1 << 20));
            let mut acc = LazyAccumulator::new(n);
            assert_eq!(acc.n(), n);
            a.iter().zip(&b).for_each(|(x, y)| acc.mac(x, y));
            let mut out = vec![0; n];
            acc.reduce_into(&m, &mut out);
            let wanted: Vec<u64> = (0..n).map(|i| dot(&m, &a, &b, i)).collect();
            assert_eq!(out, wanted, "p={p} terms={terms}");
            fn refs(v: &[Vec<u64>]) -> Vec<&[u64]> {
                v.iter().map(Vec::as_slice).collect()
            }
            out.fill(7);
            dot_into(&m, &refs(&a), &refs(&b), &mut out);
            assert_eq!(out, wanted, "dot, p={p} terms={terms}");
            let mut swapped = vec![7; n];
            dot_pair_into(&m, &refs(&a), [&refs(&b), &refs(&a)], [&mut out, &mut swapped]);
            assert_eq!(out, wanted, "first of a pair, p={p} terms={terms}");
            let squares: Vec<u64> = (0..n).map(|i| dot(&m, &a, &a, i)).collect();
            assert_eq!(swapped, squares, "second of a pair, p={p} terms={terms}");
            acc.clear();
            acc.reduce_into(&m, &mut out);
            assert!(out.iter().all(|&x| x == 0));
        }
    }
}

#[test]
fn lazy_sums_of_the_largest_terms() {
    // The largest factors that are allowed, for more terms than the low words alone can take.
    let top = vec![(1u64 << 50) - 1; 9];
    for m in [moduli(50, 10, 1)[0], moduli(25, 10, 1)[0], Modulus::new(3).unwrap()] {
        let mut acc = LazyAccumulator::new(9);
        let mut out = vec![0; 9];
        for count in 1..=MAX_PRODUCTS as u128 {
            acc.mac(&top, &top);
            if matches!(count, 16 | 17 | 4094..=4098 | 8189..=8193 | 32768) {
                acc.reduce_into(&m, &mut out);
                let wanted = (u128::from(top[0]) * u128::from(top[0]) % u128::from(m.value())) * count;
                assert!(out.iter().all(|&x| u128::from(x) == wanted % u128::from(m.value())));
            }
        }
    }
}

#[test]
#[should_panic(expected = "too many products")]
fn too_long_sums_panic() {
    let mut acc = LazyAccumulator::new(1);
    for _ in 0..=MAX_PRODUCTS {
        acc.mac(&[1], &[1]);
    }
}

#[test]
fn lazy_sums_in_borrowed_buffers() {
    let m = moduli(50, 10, 1)[0];
    let a = vec![m.value() - 1; 100];
    let (mut low, mut high, mut out) = (vec![0; 100], vec![0; 100], vec![0; 100]);
    for _ in 0..4095 {
        mac_lazy(&mut low, &mut high, &a, &a);
    }
    reduce_lazy(&m, &low, &high, &mut out);
    assert!(out.iter().all(|&x| x == 4095));
}
