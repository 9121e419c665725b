//! What a context accepts and what it refuses.

mod common;

use common::spec;
use fhec_ckks::{CkksError, Context, InsecureToken, ParameterSpec, Security};
use fhec_math::SecurityLevel;

fn insecure() -> Security {
    Security::Insecure(InsecureToken::for_tests())
}

fn refused(spec: ParameterSpec, word: &str) {
    match Context::new(spec, insecure()) {
        Err(CkksError::Parameters(message)) => assert!(message.contains(word), "{message}"),
        other => panic!("expected a refusal about {word}, got {other:?}"),
    }
}

#[test]
fn malformed_parameters_are_refused() {
    let good = spec(10, &[40, 30, 30], &[45], &[1, 1, 1]);
    assert!(Context::new(good.clone(), insecure()).is_ok());
    refused(ParameterSpec { log_n: 3, ..good.clone() }, "log_n");
    refused(ParameterSpec { log_n: 18, ..good.clone() }, "log_n");
    refused(ParameterSpec { q: vec![], digits: vec![], ..good.clone() }, "empty");
    refused(ParameterSpec { p: vec![], ..good.clone() }, "empty");
    refused(ParameterSpec { digits: vec![1, 1], ..good.clone() }, "digits");
    refused(ParameterSpec { digits: vec![1, 2, 0], ..good.clone() }, "digits");
    refused(ParameterSpec { digits: vec![usize::MAX, 4], ..good.clone() }, "digits");
    let mut twice = good.clone();
    twice.q[2] = twice.q[1];
    refused(twice, "twice");
    let mut special = good.clone();
    special.p[0] = special.q[0];
    refused(special, "twice");
    let mut unfriendly = good.clone();
    unfriendly.q[1] = 1_000_003;
    refused(unfriendly, "modulo");
    let mut composite = good.clone();
    composite.q[1] = 12289 * 12289;
    refused(composite, "not prime");
    let mut large = good.clone();
    large.q[1] = fhec_math::ntt_primes_below(50, 10).next().expect("a prime");
    assert!(Context::new(large.clone(), insecure()).is_err(), "a digit of 50 bits does not fit P of 45");
    large.q[1] = (1 << 50) + 2048 * 3 + 1;
    refused(large, "2^50");
    // A digit as large as P would drown the result in noise.
    refused(spec(10, &[40, 30, 30], &[45], &[1, 2]), "digit 1");
    refused(spec(10, &[40, 40], &[40], &[1, 1]), "below P");
}

#[test]
fn the_security_table_is_enforced() {
    // 2^13 allows 214 bits at level 128, special primes included.
    let fits = spec(13, &[34, 30, 30, 30, 30], &[35], &[1; 5]);
    let context = Context::new(fits, Security::Level(SecurityLevel::Bits128)).expect("189 bits fit");
    assert!(context.security_bits() >= 128.0, "{}", context.security_bits());
    assert!((context.log_qp() - 189.0).abs() < 0.1);
    let over = spec(13, &[40, 35, 35, 35, 35], &[41], &[1; 5]);
    let error = Context::new(over.clone(), Security::Level(SecurityLevel::Bits128));
    assert!(matches!(error, Err(CkksError::Insecure { log_n: 13, bits: 128, limit: 214, .. })));
    assert!(Context::new(over, insecure()).is_ok());
    let strong = spec(13, &[34, 30, 30], &[35], &[1; 3]);
    assert!(Context::new(strong.clone(), Security::Level(SecurityLevel::Bits192)).is_ok());
    assert!(Context::new(strong, Security::Level(SecurityLevel::Bits256)).is_err());
    // No entry in the table, no security.
    let small = spec(9, &[20], &[21], &[1]);
    let error = Context::new(small, Security::Level(SecurityLevel::Bits128));
    assert!(matches!(error, Err(CkksError::Insecure { limit: 0, .. })));
}

#[test]
fn the_hash_depends_on_every_field() {
    let base = spec(10, &[40, 30, 30], &[45, 46], &[1, 1, 1]);
    let mut variants = vec![base.clone(); 5];
    variants[1].digits = vec![1, 2];
    variants[2].q.swap(1, 2);
    variants[3].p.swap(0, 1);
    let moved = variants[4].q.pop().expect("three primes");
    variants[4].p.insert(0, moved);
    let mut hashes: Vec<_> = variants.iter().map(ParameterSpec::hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 5);
    let context = Context::new(base.clone(), insecure()).expect("parameters");
    assert_eq!(context.params_hash(), base.hash());
}
