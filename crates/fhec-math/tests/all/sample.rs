//! Statistics and reproducibility of samples.

use crate::common::moduli;
use fhec_math::sample::{NOISE_BITS, NOISE_SIGMA};
use fhec_math::{SecretRng, lift_small, uniform_from_seed};

const N: usize = 1 << 17;

#[test]
fn ternary_is_uniform() {
    let values = SecretRng::from_seed(&[1; 32]).ternary(N);
    assert_eq!(values.len(), N);
    for v in [-1i8, 0, 1] {
        let count = values.iter().filter(|&&x| x == v).count() as f64;
        let sigma = (N as f64 * 2.0 / 9.0).sqrt();
        assert!((count - N as f64 / 3.0).abs() < 5.0 * sigma, "{v}: {count}");
    }
    assert!(values.iter().all(|v| (-1..=1).contains(v)));
    // Neighbours are independent: nine equally likely pairs.
    let mut pairs = [0f64; 9];
    for pair in values.chunks_exact(2) {
        pairs[((pair[0] + 1) * 3 + pair[1] + 1) as usize] += 1.0;
    }
    let expected = N as f64 / 18.0;
    let chi2: f64 = pairs.iter().map(|c| (c - expected).powi(2) / expected).sum();
    assert!(chi2 < 40.0, "χ² with 8 degrees of freedom is {chi2}");
}

#[test]
fn sparse_ternary_has_its_weight_everywhere() {
    let mut rng = SecretRng::from_seed(&[8; 32]);
    let (mut places, mut plus, mut total) = ([0f64; 16], 0f64, 0f64);
    for _ in 0..500 {
        let values = rng.sparse_ternary(256, 32);
        assert_eq!(values.len(), 256);
        assert_eq!(values.iter().filter(|v| **v != 0).count(), 32);
        assert!(values.iter().all(|v| (-1..=1).contains(v)));
        for (i, &v) in values.iter().enumerate().filter(|(_, v)| **v != 0) {
            places[i / 16] += 1.0;
            plus += f64::from(u8::from(v == 1));
            total += 1.0;
        }
    }
    assert!((plus - total / 2.0).abs() < 5.0 * (total / 4.0).sqrt(), "{plus} of {total}");
    let chi2: f64 = places.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi2 < 45.0, "χ² with 15 degrees of freedom is {chi2}");
    // Half of all places is the most.
    assert_eq!(rng.sparse_ternary(4, 2).iter().filter(|v| **v != 0).count(), 2);
    assert!(rng.sparse_ternary(4, 0).iter().all(|&v| v == 0));
}

#[test]
fn noise_is_centred_binomial() {
    let values = SecretRng::from_seed(&[2; 32]).noise(N);
    let n = N as f64;
    let moment = |k| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n;
    let variance = f64::from(NOISE_BITS) / 4.0;
    assert!((NOISE_SIGMA - variance.sqrt()).abs() < 1e-12);
    assert!(moment(1).abs() < 5.0 * (variance / n).sqrt());
    assert!((moment(2) - variance).abs() < 5.0 * variance * (2.0 / n).sqrt());
    // Fourth moment of a binomial: 3σ⁴ − 2σ⁴·(1/bits)·… = σ⁴(3 − 2/42).
    let fourth = variance * variance * (3.0 - 2.0 / f64::from(NOISE_BITS));
    assert!((moment(4) / fourth - 1.0).abs() < 0.05, "{} against {fourth}", moment(4));
    let mut histogram = [0f64; 43];
    for &v in values.iter() {
        histogram[(v + 21) as usize] += 1.0;
    }
    let mut binomial = 0.5f64.powi(42);
    let mut chi2 = 0.0;
    for (k, count) in histogram.iter().enumerate() {
        let expected = binomial * n;
        if expected > 10.0 {
            chi2 += (count - expected).powi(2) / expected;
        }
        binomial *= (42 - k) as f64 / (k + 1) as f64;
    }
    assert!(chi2 < 70.0, "χ² with about 26 degrees of freedom is {chi2}");
}

#[test]
fn sources_differ_and_repeat() {
    let a = SecretRng::from_seed(&[3; 32]).ternary(1000);
    assert_eq!(a, SecretRng::from_seed(&[3; 32]).ternary(1000));
    assert_ne!(a, SecretRng::from_seed(&[4; 32]).ternary(1000));
    let mut os = SecretRng::from_os().unwrap();
    assert_ne!(os.next_seed(), os.next_seed());
    assert_ne!(SecretRng::from_os().unwrap().next_seed(), SecretRng::from_os().unwrap().next_seed());
    assert_eq!(format!("{os:?}"), "SecretRng");
}

#[test]
fn lifting_keeps_the_value() {
    let m = moduli(30, 12, 1)[0];
    let values: Vec<i8> = (-21..=21).chain([i8::MIN, i8::MAX]).collect();
    let mut out = vec![0; values.len()];
    lift_small(&m, &values, &mut out);
    for (&v, &x) in values.iter().zip(&out) {
        assert!(x < m.value());
        assert_eq!(m.center(x), i64::from(v));
    }
}

#[test]
fn public_limbs_are_uniform_and_independent() {
    let seed = [5; 32];
    for m in [moduli(50, 13, 1)[0], moduli(27, 13, 1)[0]] {
        let p = m.value();
        let mut a = vec![0; N];
        uniform_from_seed(&seed, 9, &m, &mut a);
        assert!(a.iter().all(|&x| x < p));
        let mut bins = [0f64; 64];
        for &x in &a {
            bins[(u128::from(x) * 64 / u128::from(p)) as usize] += 1.0;
        }
        let expected = N as f64 / 64.0;
        let chi2: f64 = bins.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!((20.0..130.0).contains(&chi2), "χ² with 63 degrees of freedom is {chi2}");
        // A prefix is the same; another label, seed or modulus is not.
        let mut b = vec![0; 100];
        uniform_from_seed(&seed, 9, &m, &mut b);
        assert_eq!(b, a[..100]);
        uniform_from_seed(&seed, 10, &m, &mut b);
        assert_ne!(b, a[..100]);
        uniform_from_seed(&[6; 32], 9, &m, &mut b);
        assert_ne!(b, a[..100]);
    }
}

#[test]
fn expansion_of_seeds_is_frozen() {
    // Files hold seeds instead of limbs: these numbers may never change.
    let m = fhec_math::Modulus::new(1_125_899_906_826_241).unwrap();
    let mut out = [0; 3];
    uniform_from_seed(&[7; 32], 1, &m, &mut out);
    assert_eq!(out, FROZEN);
}

const FROZEN: [u64; 3] = [552_337_181_671_548, 216_415_243_810_535, 65_767_178_510_747];

#[test]
fn expansion_keeps_the_numbers_that_fit_in_order() {
    // Written out: keyed BLAKE3, numbers of as few bytes as the modulus needs, cut to its bits.
    for p in [3u64, 251, 257, 65537, (1 << 30) + 3, (1 << 40) - 87, (1 << 40) + 15, (1 << 49) + 69, (1 << 50) - 27] {
        let Ok(m) = fhec_math::Modulus::new(p) else { panic!("{p} is odd and below 2^50") };
        for n in [1, 7, 8, 100, 1003] {
            let mut hasher = blake3::Hasher::new_keyed(&[8; 32]);
            hasher.update(&5u64.to_le_bytes());
            hasher.update(&p.to_le_bytes());
            let mut stream = hasher.finalize_xof();
            let width = m.bits().div_ceil(8) as usize;
            let mut wanted = Vec::new();
            while wanted.len() < n {
                let mut raw = [0; 8];
                stream.fill(&mut raw[..width]);
                let value = u64::from_le_bytes(raw) & ((1 << m.bits()) - 1);
                wanted.extend((value < p).then_some(value));
            }
            let mut out = vec![u64::MAX; n];
            uniform_from_seed(&[8; 32], 5, &m, &mut out);
            assert_eq!(out, wanted, "p = {p}, n = {n}");
        }
    }
}
