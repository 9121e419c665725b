//! The pieces of key switching against integer arithmetic: exact and centred, also near the halves
//! (mistake 2 of the classic ones: an uncentred lift or division).

mod common;

use common::{insecure, small};
use fhec_ckks::keyswitch::{decompose, mod_down, mod_down_rescale};
use fhec_ckks::{Context, QpPoly};
use fhec_math::{Eval, Poly, pointwise};

/// The polynomial with the given coefficients over `q_0 … q_level`, `special` limbs after them.
fn poly(context: &Context, level: usize, special: usize, coeffs: &[i128]) -> Poly<Eval> {
    let mut out = Poly::<Eval>::zero(context.n(), level + 1 + special);
    for i in 0..out.limbs() {
        let m = context.qp_modulus(level, i);
        for (x, &c) in out.limb_mut(i).iter_mut().zip(coeffs) {
            *x = m.reduce_i128(c);
        }
        context.qp_table(level, i).forward(out.limb_mut(i));
    }
    out
}

fn assert_coefficients(context: &Context, level: usize, found: &Poly<Eval>, expected: &[i128]) {
    for i in 0..found.limbs() {
        let m = context.qp_modulus(level, i);
        let mut limb = found.limb(i).to_vec();
        context.qp_table(level, i).inverse(&mut limb);
        for (k, (&x, &e)) in limb.iter().zip(expected).enumerate() {
            assert_eq!(x, m.reduce_i128(e), "limb {i}, coefficient {k}, expected {e}");
        }
    }
}

/// Nearest integer to `x/d` for odd `d`: never a tie.
fn round_div(x: i128, d: i128) -> i128 {
    (x + (d - 1) / 2).div_euclid(d)
}

/// Small, large and just beside the half-way points of a division by `d`. Within a relative 2^-45 of a half the
/// floating-point quotient may take either neighbour, so "beside" is `d·2^-40` for large `d`.
fn hard_coefficients(n: usize, d: i128, bound: i128) -> Vec<i128> {
    let beside = (d >> 40).max(1);
    let mut out = vec![0, 1, -1, d / 2 - beside, d / 2 + 1 + beside, -(d / 2) + beside, -(d / 2) - 1 - beside];
    out.extend([d, -d, d - 1, 1 - d, bound, -bound]);
    let mut state = 0x1234_5678_9abc_def1_u128;
    while out.len() < n {
        state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(99);
        let value = (state >> 1) as i128 % bound;
        out.push(if state & 1 == 0 { value } else { -value });
        let k = value / d;
        out.push(k * d + d / 2 + if state & 2 == 0 { -beside } else { 1 + beside });
    }
    out.truncate(n);
    out.iter().map(|&x| x.clamp(-bound, bound)).collect()
}

#[test]
fn mod_down_rounds_to_the_nearest() {
    // A single special prime: values beside its half-way points are representable in 128 bits.
    let context = insecure(8, &[40, 40, 40], &[42], &[1, 1, 1]);
    let p = i128::from(context.moduli_p()[0].value());
    for level in 0..=2 {
        let bound = if level == 0 { 1 << 78 } else { 1 << 115 };
        let coeffs = hard_coefficients(context.n(), p, bound);
        let mut a = QpPoly::zero(&context, level);
        *a.poly_mut() = poly(&context, level, 1, &coeffs);
        let expected: Vec<i128> = coeffs.iter().map(|&x| round_div(x, p)).collect();
        assert_coefficients(&context, level, &mod_down(&context, a), &expected);
    }
}

#[test]
fn fused_division_rounds_once() {
    let context = insecure(8, &[40, 20, 20], &[42], &[1, 1, 1]);
    let p = i128::from(context.moduli_p()[0].value());
    for level in 1..=2 {
        let d = p * i128::from(context.q(level).value());
        let coeffs = hard_coefficients(context.n(), d, 1 << 75);
        let mut a = QpPoly::zero(&context, level);
        *a.poly_mut() = poly(&context, level, 1, &coeffs);
        let expected: Vec<i128> = coeffs.iter().map(|&x| round_div(x, d)).collect();
        let found = mod_down_rescale(&context, a).expect("level above 0");
        assert_eq!(found.limbs(), level);
        assert_coefficients(&context, level, &found, &expected);
    }
    assert!(mod_down_rescale(&context, QpPoly::zero(&context, 0)).is_err());
}

#[test]
fn digits_are_centred_and_congruent_at_every_level() {
    // One special prime is enough at the lowest level, two are above.
    let context = insecure(10, &[39, 40, 40, 40, 40, 40], &[48, 48], &[2, 2, 2]);
    assert_eq!([0, 1, 5].map(|level| context.special_at(level)), [1, 2, 2]);
    let n = context.n();
    for level in 0..=context.max_level() {
        let q: i128 = (0..=level.min(1)).map(|i| i128::from(context.q(i).value())).product();
        let coeffs = hard_coefficients(n, q, q / 2 - (q >> 40));
        // What is decomposed is the polynomial over the special primes that the level does not use.
        let mut times = poly(&context, level, 0, &coeffs);
        for (i, limb) in times.data_mut().chunks_exact_mut(n).enumerate() {
            for unused in &context.moduli_p()[context.special_at(level)..] {
                let m = context.q(i);
                pointwise::mul_scalar_assign(m, limb, m.reduce(unused.value()));
            }
        }
        let decomposed = decompose(&context, &times, level);
        assert_eq!(decomposed.digits(), level / 2 + 1);
        for d in 0..decomposed.digits() {
            let own: Vec<usize> = (2 * d..=(2 * d + 1).min(level)).collect();
            let product: i128 = own.iter().map(|&i| i128::from(context.q(i).value())).product();
            // The centred representative modulo the digit's primes.
            let expected: Vec<i128> = coeffs
                .iter()
                .map(|&c| {
                    let r = c.rem_euclid(product);
                    if r > product / 2 { r - product } else { r }
                })
                .collect();
            let mut digit = Poly::<Eval>::zero(n, context.qp_limbs(level));
            for i in 0..digit.limbs() {
                // Residues of digits are loose.
                let m = context.qp_modulus(level, i);
                digit.limb_mut(i).iter_mut().zip(decomposed.digit(i, d)).for_each(|(x, &loose)| *x = m.reduce(loose));
            }
            assert_coefficients(&context, level, &digit, &expected);
        }
    }
}

#[test]
fn lift_and_mod_down_are_inverse() {
    let context = small();
    let coeffs = hard_coefficients(context.n(), 1 << 40, 1 << 45);
    let a = poly(&context, 2, 0, &coeffs);
    let back = mod_down(&context, QpPoly::lift(&context, &a, 2));
    assert_eq!(back.data(), a.data());
}
