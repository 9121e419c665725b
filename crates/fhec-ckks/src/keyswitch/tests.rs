//! Whole key switches against their pieces.

use std::sync::Arc;

use fhec_math::{Automorphism, Eval, Poly, SecretRng, conjugation_element, galois_element, ntt_primes_near};

use super::*;
use crate::keys::{EvaluationKeys, KeyRequest, SecretKey, SwitchingKey};
use crate::params::{InsecureToken, ParameterSpec, Security};
use crate::qp::QpPoly;

fn context(log_n: u32, q: usize, p: usize, digits: &[usize]) -> Arc<Context> {
    let primes: Vec<u64> = ntt_primes_near(40, log_n).take(q + p).collect();
    let mut sorted = primes;
    sorted.sort_unstable();
    let special = sorted.split_off(q);
    let spec = ParameterSpec { log_n, q: sorted, p: special, digits: digits.to_vec() };
    Context::new(spec, Security::Insecure(InsecureToken::for_tests())).expect("parameters")
}

fn random(context: &Context, limbs: usize, seed: u64) -> Poly<Eval> {
    let mut out = Poly::scratch(context.n(), limbs);
    let mut state = seed;
    for i in 0..limbs {
        for x in out.limb_mut(i) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *x = context.q(i).reduce(state >> 3);
        }
    }
    out
}

/// `Σ_d c_d·k_d + P·lift` word by word, and then a division.
fn sum(
    context: &Context,
    c: &Decomposed,
    key: &SwitchingKey,
    second: bool,
    lift: Option<&Poly<Eval>>,
    rescale: bool,
) -> Poly<Eval> {
    let level = c.level();
    let mut out = QpPoly::zero(context, level);
    for i in 0..context.qp_limbs(level) {
        let m = context.qp_modulus(level, i);
        for (d, column) in key.column(context, level, i, c.digits(), second).iter().enumerate() {
            let mut limb = vec![0; context.n()];
            fhec_math::packed::unpack_into(m, column, &mut limb);
            for ((out, &x), &k) in out.poly_mut().limb_mut(i).iter_mut().zip(c.digit(i, d)).zip(&limb) {
                *out = m.add(*out, m.mul(m.reduce(x), k));
            }
        }
        if let Some(lift) = lift.filter(|_| i <= level) {
            for (out, &x) in out.poly_mut().limb_mut(i).iter_mut().zip(lift.limb(i)) {
                *out = m.add(*out, m.mul(x, context.p_mod_q(level, i)));
            }
        }
    }
    if rescale { mod_down_rescale(context, out).expect("level above 0") } else { mod_down(context, out) }
}

#[test]
fn switches_equal_their_pieces() {
    // Several primes a digit, one prime a digit, one special prime beside digits of several levels, and digits of one prime and of several
    // where not all special primes are used; in a ring that is transformed as a whole and in one that is in quarters.
    let sizes: [(usize, usize, &[usize]); 4] =
        [(6, 2, &[2, 2, 2]), (4, 1, &[1; 4]), (5, 3, &[3, 2]), (4, 4, &[2, 1, 1])];
    let contexts = sizes.into_iter().flat_map(|(q, p, digits)| [8, 10].map(|log_n| context(log_n, q, p, digits)));
    for context in contexts {
        let log_n = context.log_n();
        let mut rng = SecretRng::from_seed(&[3; 32]);
        let secret = SecretKey::generate(&context, &mut rng);
        // All ways to permute quarters: elements 5, 1, 7 and 3 modulo 8.
        let mut elements: Vec<u64> = [1, 2].iter().map(|&k| galois_element(k, log_n)).collect();
        elements.push(conjugation_element(log_n));
        elements.push((elements[0] * elements[2]) % (2 << log_n));
        assert_eq!(elements.iter().map(|e| e % 8).collect::<Vec<_>>(), [5, 1, 7, 3]);
        let galois = elements.iter().map(|&e| (e, context.max_level())).collect();
        let request = KeyRequest { galois, ..KeyRequest::default() };
        let keys = EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).expect("keys");
        for level in 0..=context.max_level() {
            let [c, l0, a1] = [1, 2, 3].map(|seed| random(&context, level + 1, seed));
            let decomposed = decompose(&context, &c, level);
            for rescale in [false, true] {
                if rescale && level == 0 {
                    continue;
                }
                let with = |element: Option<u64>| Switch {
                    lift: [Some(&l0), None],
                    add: [None, (!rescale).then_some(&a1)],
                    automorphism: element.map(|e| Automorphism::get(log_n, e)),
                    made: None,
                };
                // The same limbs, made where they are used.
                let limbs = |at: &At, [out0, out1]: [&mut [u64]; 2]| {
                    out0.copy_from_slice(at.of(l0.limb(at.i)));
                    out1.fill(0);
                };
                let key = |e: u64| keys.galois(e).expect("a key");
                let made = || Switch { lift: [None; 2], made: Some(&limbs), ..with(Some(elements[1])) };
                let jobs = || {
                    let lifted =
                        [(elements[0], with(None))].into_iter().chain(elements.iter().map(|&e| (e, with(Some(e)))));
                    lifted.chain([(elements[1], made())]).map(|(e, with)| (key(e), with)).collect::<Vec<_>>()
                };
                let streamed =
                    switch(&context, Digits::new(&context, &c, level), level, &jobs(), rescale).expect("keys");
                let hoisted = switch(&context, Digits::Decomposed(&decomposed), level, &jobs(), rescale).expect("keys");
                for ((key, job), (streamed, hoisted)) in jobs().into_iter().zip(streamed.iter().zip(&hoisted)) {
                    for part in 0..2 {
                        let mut expected = sum(&context, &decomposed, key, part == 1, [Some(&l0), None][part], rescale);
                        if let Some(add) = job.add[part] {
                            for i in 0..expected.limbs() {
                                pointwise::add_assign(context.q(i), expected.limb_mut(i), add.limb(i));
                            }
                        }
                        if let Some(automorphism) = &job.automorphism {
                            let plain = expected.clone();
                            for i in 0..expected.limbs() {
                                automorphism.apply_eval(plain.limb(i), expected.limb_mut(i));
                            }
                        }
                        let at = format!(
                            "N = 2^{log_n}, {:?}, level {level}, rescale {rescale}, part {part}",
                            context.spec().digits
                        );
                        assert_eq!(streamed[part].data(), expected.data(), "{at}");
                        assert_eq!(hoisted[part].data(), expected.data(), "{at}");
                    }
                }
            }
        }
        let low = SwitchingKey::clone(keys.galois(elements[0]).expect("a key"));
        let c = random(&context, 1, 1);
        let none = switch(&context, Digits::new(&context, &c, 0), 0, &[(&low, Switch::default())], true);
        assert!(none.is_err(), "a rescale at level 0");
    }
}
