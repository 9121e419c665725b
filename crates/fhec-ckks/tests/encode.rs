//! Encoding against the definition of the canonical embedding, for every vector length.

mod common;

use common::{hard_vectors, random, small, worst_bits};
use fhec_ckks::{CkksError, Encoder};
use fhec_math::Scale;
use num_complex::Complex64;

/// Slots by definition: the polynomial's value at `ζ^(5^j)`.
fn embed(coefficients: &[i64], slots: usize, scale: f64) -> Vec<Complex64> {
    let n = 2 * slots;
    let mut power = 1usize;
    let mut out = Vec::new();
    for _ in 0..slots {
        let value: Complex64 = coefficients
            .iter()
            .enumerate()
            .map(|(k, &c)| {
                let angle = std::f64::consts::PI * ((k * power) % (2 * n)) as f64 / n as f64;
                Complex64::cis(angle) * c as f64
            })
            .sum();
        out.push(value / scale);
        power = power * 5 % (2 * n);
    }
    out
}

#[test]
fn agrees_with_the_definition_for_every_length() {
    let context = small();
    let encoder = Encoder::new(&context);
    let scale = Scale::pow2(40);
    let mut len = 1;
    while len <= context.slots() {
        let re = random(len, 11 + len as u64);
        let im = random(len, 12 + len as u64);
        let values: Vec<Complex64> = re.iter().zip(&im).map(|(&a, &b)| Complex64::new(a, b)).collect();
        let plaintext = encoder.encode_complex(&values, 1, &scale).expect("encode");
        let slots = embed(&common::coefficients(&context, &plaintext), context.slots(), scale.to_f64());
        for (j, z) in slots.iter().enumerate() {
            assert!((z - values[j % len]).norm() < 1e-8, "length {len}, slot {j}");
        }
        // The decoder agrees too, and repeats the vector over all slots.
        let decoded = encoder.decode_complex(&plaintext).expect("decode");
        for (j, z) in decoded.iter().enumerate() {
            assert!((z - values[j % len]).norm() < 1e-8, "length {len}, decoded slot {j}");
        }
        len *= 2;
    }
}

#[test]
fn a_constant_is_its_scaled_integer_in_every_limb() {
    let context = small();
    let encoder = Encoder::new(&context);
    let plaintext = encoder.encode(&[-0.75], 3, &Scale::pow2(40)).expect("encode");
    for i in 0..=3 {
        let expected = context.q(i).reduce_i64(-3 << 38);
        assert!(plaintext.poly().limb(i).iter().all(|&x| x == expected));
    }
    let qp = encoder.encode_qp(&vec![-0.75; context.slots()], 3, &Scale::pow2(40)).expect("encode");
    assert_eq!(qp.repeat(), context.n() / 2, "a constant is stored as two values a limb");
}

#[test]
fn precision_of_hard_vectors() {
    let context = small();
    let encoder = Encoder::new(&context);
    for (name, values) in hard_vectors(context.slots()) {
        for level in [0, 2, context.max_level()] {
            let plaintext = encoder.encode(&values, level, &Scale::pow2(40)).expect("encode");
            let bits = worst_bits(&encoder.decode(&plaintext).expect("decode"), &values);
            // Rounding errors of 1/2 at most add up to √(N/12) on average.
            assert!(bits > 33.0, "{name} at level {level}: {bits:.1} bits");
        }
    }
}

#[test]
fn compressed_limbs_expand_to_the_full_form() {
    let context = small();
    let encoder = Encoder::new(&context);
    let scale = Scale::pow2(38);
    let mut len = 1;
    while len <= context.slots() {
        let values = random(len, len as u64);
        let coeffs = encoder.encode_coeffs(&values, &scale).expect("encode");
        assert_eq!(coeffs.period(), len);
        let full = encoder.plaintext(&coeffs, 4).expect("full form");
        let qp = encoder.qp_plaintext(&coeffs, 4).expect("compressed form");
        assert_eq!(qp.bytes(), 2 * len * 8 * context.qp_limbs(4));
        let mut limb = vec![0; context.n()];
        for i in 0..=4 {
            qp.expand(i, 0, &mut limb);
            assert_eq!(limb, full.poly().limb(i), "length {len}, limb {i}");
            // Blocks that do not begin at a multiple of the repetition.
            qp.expand(i, 3, &mut limb[3..100]);
            assert_eq!(limb, full.poly().limb(i));
        }
        for j in 0..context.special_at(4) {
            qp.expand(qp.special_limb(j), 0, &mut limb);
            context.p_table(j).inverse(&mut limb);
            let all = coeffs.coefficients();
            let step = context.n() / (2 * len);
            for (k, &x) in limb.iter().enumerate() {
                let expected = if k % step == 0 { all[k / step] } else { 0 };
                assert_eq!(context.moduli_p()[j].center(x), expected);
            }
        }
        len *= 2;
    }
}

#[test]
fn real_vectors_are_encoded_like_complex_ones() {
    let context = small();
    let encoder = Encoder::new(&context);
    // From scales that round everything away to coefficients that exceed every prime, and beyond 62 bits.
    for log_scale in [0, 20, 45, 60, 75] {
        let scale = Scale::pow2(log_scale);
        let mut len = 1;
        while len <= context.slots() {
            let values = random(len, 7 + len as u64);
            let complex: Vec<Complex64> = values.iter().map(|&v| Complex64::new(v, 0.0)).collect();
            let real = encoder.encode_coeffs(&values, &scale).expect("encode");
            let full = encoder.encode_coeffs_complex(&complex, &scale).expect("encode");
            assert!(real.is_real() && !full.is_real());
            assert_eq!((real.period(), real.bytes() * 2), (full.period(), full.bytes()));
            assert_eq!(real.shift(), full.shift());
            let (a, b) = (real.coefficients(), full.coefficients());
            // The transforms differ in their order of operations: by rounding only.
            let largest = b.iter().fold(0, |max: u64, c| max.max(c.unsigned_abs()));
            let tolerance = 1 + (largest >> 48);
            for (k, (x, y)) in a.iter().zip(&b).enumerate() {
                assert!(x.abs_diff(*y) <= tolerance, "2^{log_scale}, length {len}, coefficient {k}: {x}, {y}");
            }
            assert!((1..2 * len).all(|k| a[2 * len - k] == -a[k]), "not its own conjugate");
            len *= 2;
        }
    }
}

#[test]
fn repeated_vectors_are_found_to_be_periodic() {
    let context = small();
    let encoder = Encoder::new(&context);
    let period = random(8, 5);
    let repeated: Vec<f64> = period.iter().copied().cycle().take(256).collect();
    let coeffs = encoder.encode_coeffs(&repeated, &Scale::pow2(30)).expect("encode");
    assert_eq!(coeffs.period(), 8);
    assert_eq!(coeffs.coefficients(), encoder.encode_coeffs(&period, &Scale::pow2(30)).expect("encode").coefficients());
}

#[test]
fn large_values_at_high_levels_survive() {
    // Coefficients near 2^61 exceed every single prime: several limbs take part in decoding.
    let context = small();
    let encoder = Encoder::new(&context);
    let values: Vec<f64> = random(context.slots(), 9).iter().map(|v| v * 1e5).collect();
    let plaintext = encoder.encode(&values, 3, &Scale::pow2(40)).expect("encode");
    let decoded = encoder.decode(&plaintext).expect("decode");
    assert!(worst_bits(&decoded, &values) > 30.0);
}

#[test]
fn scales_beyond_a_word() {
    let context = small();
    let encoder = Encoder::new(&context);
    let values = random(context.slots(), 10);
    for bits in [61, 62, 63, 64, 80, 120, 160, 200] {
        let scale = Scale::pow2(bits).mul(&Scale::prime(context.q(2).value()));
        let plaintext = encoder.encode(&values, 5, &scale).expect("encode");
        let found = worst_bits(&encoder.decode(&plaintext).expect("decode"), &values);
        assert!(found > 48.0, "scale 2^{}: {found:.1} bits", bits + 40);
        let constant = encoder.encode(&[-0.625], 5, &Scale::pow2(bits)).expect("encode");
        assert!((encoder.decode(&constant).expect("decode")[3] + 0.625).abs() < 1e-14);
    }
}

#[test]
fn bad_input_is_an_error() {
    let context = small();
    let encoder = Encoder::new(&context);
    let scale = Scale::pow2(40);
    let slots = context.slots();
    for len in [0, 3, 2 * slots] {
        let error = encoder.encode(&vec![0.5; len], 1, &scale);
        assert!(matches!(error, Err(CkksError::SlotCount { len: l, .. }) if l == len), "length {len}");
    }
    assert!(matches!(encoder.encode(&[1.0, f64::NAN], 1, &scale), Err(CkksError::NotFinite { index: 1, .. })));
    assert!(matches!(encoder.encode(&[f64::INFINITY], 1, &scale), Err(CkksError::NotFinite { .. })));
    assert!(matches!(encoder.encode(&[1e9], 5, &Scale::pow2(230)), Err(CkksError::Overflow { .. })));
    assert!(matches!(encoder.encode(&[1e9], 5, &Scale::pow2(5000)), Err(CkksError::Overflow { .. })));
    // Fits 62 bits but not half of q_0 of 49 bits.
    assert!(matches!(encoder.encode(&[1000.0], 0, &scale), Err(CkksError::Overflow { .. })));
    assert!(encoder.encode(&[1000.0], 1, &scale).is_ok());
    assert!(matches!(encoder.encode(&[1.0], 6, &scale), Err(CkksError::LevelRange { .. })));
}
