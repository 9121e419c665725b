//! Automorphisms: evaluation form against coefficient form against the definition.

use crate::common::{moduli, words};
use fhec_math::{Automorphism, MathError, Modulus, NttTable, conjugation_element, galois_element};

/// `a(X^g)` coefficient by coefficient.
fn substitute(m: &Modulus, a: &[u64], g: u64) -> Vec<u64> {
    let n = a.len() as u64;
    let mut out = vec![0; a.len()];
    for (i, &c) in a.iter().enumerate() {
        let e = i as u64 * g % (2 * n);
        out[(e % n) as usize] = if e < n { c } else { m.neg(c) };
    }
    out
}

fn elements(log_n: u32) -> Vec<u64> {
    let mut out: Vec<u64> =
        [0, 1, 2, 3, 7, -1, 100, 1 << (log_n - 2)].iter().map(|&r| galois_element(r, log_n)).collect();
    out.extend([conjugation_element(log_n), 3, 7, (1 << log_n) + 1, (1 << log_n) - 1]);
    out
}

#[test]
fn both_forms_agree_with_the_definition() {
    for log_n in [4, 5, 6, 8, 10, 13] {
        let m = moduli(40, log_n, 1)[0];
        let table = NttTable::get(m.value(), log_n).unwrap();
        let a = words(u64::from(log_n), 1 << log_n, m.value());
        let mut values = a.clone();
        table.forward(&mut values);
        for g in elements(log_n) {
            let map = Automorphism::get(log_n, g);
            assert_eq!((map.element(), map.log_n()), (g, log_n));
            let mut coefficients = vec![0; a.len()];
            map.apply_coeff(&m, &a, &mut coefficients);
            assert_eq!(coefficients, substitute(&m, &a, g), "g={g}");
            let mut permuted = vec![0; a.len()];
            map.apply_eval(&values, &mut permuted);
            table.forward(&mut coefficients);
            assert_eq!(permuted, coefficients, "g={g} log_n={log_n}");
        }
    }
}

#[test]
fn every_element_of_a_small_ring() {
    let log_n = 6;
    let a: Vec<u64> = (0..64).collect();
    for g in (1..128u64).step_by(2) {
        for h in (1..128u64).step_by(2) {
            let (mut x, mut y, mut both) = (vec![0; 64], vec![0; 64], vec![0; 64]);
            Automorphism::get(log_n, g).apply_eval(&a, &mut x);
            Automorphism::get(log_n, h).apply_eval(&x, &mut y);
            Automorphism::get(log_n, g * h % 128).apply_eval(&a, &mut both);
            assert_eq!(y, both, "composition of {g} and {h}");
        }
    }
}

#[test]
fn rotation_is_to_the_left() {
    // Slot i is the value at ψ^(5^i).
    let log_n = 8;
    let (n, slots) = (256u64, 128u64);
    let m = moduli(30, log_n, 1)[0];
    let table = NttTable::get(m.value(), log_n).unwrap();
    let mut a = words(1, 256, m.value());
    table.forward(&mut a);
    let position = |exponent: u64| ((exponent >> 1).reverse_bits() >> (64 - log_n)) as usize;
    let slot = |values: &[u64], i: u64| values[position(galois_element(i as i64, log_n) % (2 * n))];
    for rotation in [1i64, 5, 64, -3] {
        let mut out = vec![0; 256];
        Automorphism::get(log_n, galois_element(rotation, log_n)).apply_eval(&a, &mut out);
        for i in 0..slots {
            let from = (i as i64 + rotation).rem_euclid(slots as i64) as u64;
            assert_eq!(slot(&out, i), slot(&a, from), "rotation {rotation}, slot {i}");
        }
    }
}

#[test]
fn elements_are_powers_of_five() {
    for log_n in [4, 12, 17] {
        let (two_n, slots) = (2u64 << log_n, 1i64 << (log_n - 1));
        assert_eq!(galois_element(0, log_n), 1);
        assert_eq!(galois_element(slots, log_n), 1);
        assert_eq!(galois_element(3, log_n), 125 % two_n);
        let back = galois_element(-7, log_n) * galois_element(7, log_n) % two_n;
        assert_eq!(back, 1);
        assert_eq!(galois_element(i64::MIN, log_n), galois_element(i64::MIN.rem_euclid(slots), log_n));
    }
}

#[test]
fn bad_elements_are_refused() {
    for element in [0, 2, 32, 33, u64::MAX] {
        let error = MathError::BadGaloisElement { element, log_n: 4 };
        assert_eq!(Automorphism::try_get(4, element).unwrap_err(), error);
    }
    assert_eq!(Automorphism::try_get(40, 1).unwrap_err(), MathError::BadDegree { log_n: 40 });
}

#[test]
fn aligned_blocks_come_from_aligned_blocks() {
    for log_n in [4u32, 7, 10] {
        let n = 1 << log_n;
        let a: Vec<u64> = (0..n as u64).map(|i| i * i + 1).collect();
        for g in elements(log_n) {
            let map = Automorphism::get(log_n, g);
            let mut whole = vec![0; n];
            map.apply_eval(&a, &mut whole);
            for len in (0..=log_n).map(|e| 1 << e) {
                for start in (0..n).step_by(len) {
                    let from = map.source_block(start, len);
                    assert!(len < 8 || map.image_block(from, len) == start, "g={g} start={start} len={len}");
                    let mut block = vec![0; len];
                    map.apply_eval_block(start, &a[from..from + len], &mut block);
                    assert_eq!(block, whole[start..start + len], "g={g} start={start} len={len}");
                }
            }
        }
    }
}
