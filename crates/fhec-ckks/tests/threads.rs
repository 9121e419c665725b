//! Every number of threads gives the same bits.

mod common;

use common::{Setup, insecure, random};
use fhec_ckks::{PublicKey, container};
use fhec_math::Scale;

/// Hash over keys, fresh ciphertexts, products, rotations and a decryption, at a size where work is split. Linear maps
/// and polynomials have such tests of their own.
fn digest(threads: usize) -> blake3::Hash {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| {
        let context = insecure(14, &[45, 40, 40, 40], &[45, 45], &[2, 2]);
        let mut s = Setup::new(&context, &[1]);
        let mut hasher = blake3::Hasher::new();
        let mut file = Vec::new();
        container::write_evaluation_keys(s.evaluator.keys(), &[0; 32], &mut file).expect("write");
        hasher.update(&file);
        let keys = container::read_evaluation_keys(&file, &context, &[0; 32]).expect("read");
        assert_eq!(keys.request(), s.evaluator.keys().request());
        let x = random(context.slots(), 1);
        let public = PublicKey::generate(&s.secret, &mut s.rng);
        let plaintext = s.encoder.encode(&x, 3, &Scale::pow2(40)).expect("encode");
        let a = s.encrypt(&x, 3, &Scale::pow2(40));
        let b = s.encryptor.encrypt_pk(&public, &plaintext, &mut s.rng).expect("encrypt");
        let e = &s.evaluator;
        let product = e.relinearise_rescale(&e.mul(&a, &b).expect("mul")).expect("relinearise");
        let separate = e.rescale(&e.relinearise(&e.square(&a).expect("square")).expect("relin")).expect("rescale");
        let rotated = e.rotate(&product, 1).expect("rotate");
        let hoisted = e.rotate_hoisted(&e.hoist(&a).expect("hoist"), 1).expect("rotate");
        for ciphertext in [&a, &b, &product, &separate, &rotated, &hoisted] {
            for part in [ciphertext.c0(), ciphertext.c1()] {
                for word in part.data() {
                    hasher.update(&word.to_le_bytes());
                }
            }
        }
        for value in s.decrypt(&rotated) {
            hasher.update(&value.to_le_bytes());
        }
        hasher.finalize()
    })
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let one = digest(1);
    assert_eq!(one, digest(2));
    assert_eq!(one, digest(3));
}
