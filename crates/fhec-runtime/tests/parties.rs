//! Client and server: what each accepts and refuses.

mod common;

use common::*;
use fhec_ckks::container::{BundleForm, read_ciphertexts, write_ciphertexts};
use fhec_plan::{Input, Layout, Postprocess, Preprocess};
use fhec_runtime::*;
use std::sync::Arc;

#[test]
fn everything_travels_as_bytes() {
    let verified = mlp();
    let inputs = inputs(&verified, 0.37);
    let mut p = Parties::new(&verified, 0);
    let context = Arc::clone(p.client.context());
    let public = p.client.generate_public(&p.secret, &mut p.rng);
    for key in [EncryptionKey::Secret(&p.secret), EncryptionKey::Public(&public)] {
        let bundle = p.client.encrypt(&inputs, key, &mut p.rng).unwrap();
        let mut file = Vec::new();
        write_ciphertexts(&bundle, &context, verified.hash(), &mut file).unwrap();
        let bundle = read_ciphertexts(&file, &context, verified.hash()).unwrap();
        let (outputs, _) = p.server.run(&bundle, &mut |_| ()).unwrap();
        let mut file = Vec::new();
        write_ciphertexts(&outputs, &context, verified.hash(), &mut file).unwrap();
        let outputs = read_ciphertexts(&file, &context, verified.hash()).unwrap();
        let got = p.client.decrypt_output(0, &outputs, &p.secret).unwrap();
        assert!(distance(&[got], &clear(&verified, &inputs)) < 1e-6);
        let error = read_ciphertexts(&file, &context, &[0; 32]).unwrap_err().to_string();
        assert!(error.contains("another plan"), "{error}");
    }
}

#[test]
fn wrong_inputs_are_refused_with_their_numbers() {
    let verified = mlp();
    let mut p = Parties::new(&verified, 0);
    let key = EncryptionKey::Secret(&p.secret);
    let mut encrypt = |values: &[Vec<f64>]| p.client.encrypt(values, key, &mut p.rng);
    let message = |r: Result<_>| r.map(|_: Vec<_>| ()).unwrap_err().to_string();
    assert_eq!(message(encrypt(&[vec![0.0; 15]])), "input \"x0\" has 15 values, shape [1, 16] needs 16");
    assert_eq!(message(encrypt(&[])), "0 inputs were given, the plan has 1");
    let mut bad = vec![0.0; 16];
    bad[3] = f64::NAN;
    assert_eq!(message(encrypt(&[bad])), "input \"x0\": value 3 is not finite");
    assert!(message(encrypt(&[vec![1e40; 16]])).contains("exceeds"));
}

#[test]
fn wrong_ciphertexts_are_refused() {
    let verified = wide();
    let inputs = inputs(&verified, 0.37);
    let mut p = Parties::new(&verified, 0);
    let bundle = p.client.encrypt(&inputs, EncryptionKey::Secret(&p.secret), &mut p.rng).unwrap();
    let refused = |bundle: &[_], words: &[&str]| {
        let error = p.server.run(bundle, &mut |_| ()).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    refused(&bundle[1..], &["x0", "ciphertext 0 of 3 is missing"]);
    refused(&[], &["missing"]);
    let mut twice = bundle.clone();
    twice[1].index = 0;
    refused(&twice, &["there twice"]);
    let mut beyond = bundle.clone();
    beyond[1].index = 9;
    refused(&beyond, &["there is a ciphertext 9"]);
    let mut lower = bundle.clone();
    let context = p.server.backend().context();
    let full = bundle[0].form.expand(context).unwrap();
    lower[0].form = BundleForm::Full(full.with_scale(fhec_math::Scale::pow2(39)));
    refused(&lower, &["scale 2^39"]);
}

#[test]
fn keys_that_do_not_reach_are_refused() {
    let verified = mlp();
    let mut p = Parties::new(&verified, 0);
    let mut request = p.client.key_request();
    let context = server_context(&verified, token()).unwrap();
    let mut attempt = |request: &fhec_ckks::KeyRequest| {
        let keys = fhec_ckks::EvaluationKeys::generate(&p.secret, request, &mut p.rng, &|_, _| ()).unwrap();
        Server::new(Arc::clone(&verified), &context, Arc::new(keys), 0).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(attempt(&request), Ok(()));
    let (element, level) = request.galois.pop_first().unwrap();
    assert!(attempt(&request).unwrap_err().contains(&format!("Galois element {element} at level {level}")));
    request.galois.insert(element, level);
    request.relin_level = Some(1);
    assert!(attempt(&request).unwrap_err().contains("relinearisation"));
}

#[test]
fn insecure_plans_need_the_token() {
    let verified = mlp();
    assert!(matches!(server_context(&verified, None), Err(RuntimeError::Insecure)));
    assert!(matches!(Client::new(verified.plan().head(), None), Err(RuntimeError::Insecure)));
}

#[test]
fn clients_share_encoded_weights_and_nothing_else() {
    let verified = mlp();
    let context = server_context(&verified, token()).unwrap();
    let base = Server::without_keys(Arc::clone(&verified), &context, u64::MAX).unwrap();
    base.backend().prepare().unwrap();
    let kept = base.backend().memory();
    assert!(kept.plaintexts > 0 && kept.plaintexts == kept.plaintexts_planned && kept.keys == 0);
    for seed in [3, 4] {
        let client = Client::new(verified.plan().head(), token()).unwrap();
        let mut rng = fhec_math::SecretRng::from_seed(&[seed; 32]);
        let secret = client.generate_secret(&mut rng);
        let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| ()).unwrap();
        let server = base.with_keys(Arc::new(keys)).unwrap();
        let inputs = inputs(&verified, f64::from(seed));
        let bundle = client.encrypt(&inputs, EncryptionKey::Secret(&secret), &mut rng).unwrap();
        let (outputs, _) = server.run(&bundle, &mut |_| ()).unwrap();
        let got = client.decrypt_output(0, &outputs, &secret).unwrap();
        assert!(distance(&[got], &clear(&verified, &inputs)) < 1e-6);
        assert_eq!(server.backend().memory().plaintexts, kept.plaintexts);
        // Without keys the same bundle gets nowhere.
        assert!(matches!(base.run(&bundle, &mut |_| ()), Err(RuntimeError::Instruction { .. })));
    }
    let none = fhec_ckks::EvaluationKeys::empty(&context);
    assert!(matches!(base.with_keys(Arc::new(none)), Err(RuntimeError::Keys(_))));
}

#[test]
fn keys_that_lack_those_of_a_smaller_ring_are_refused() {
    let verified = refreshed();
    let client = Client::new(verified.plan().head(), token()).unwrap();
    let context = server_context(&verified, token()).unwrap();
    let base = Server::without_keys(Arc::clone(&verified), &context, u64::MAX).unwrap();
    let mut rng = fhec_math::SecretRng::from_seed(&[5; 32]);
    let secret = client.generate_secret(&mut rng);
    let full = client.key_request();
    assert_eq!(full.low.keys().copied().collect::<Vec<_>>(), [6]);
    let mut with = |change: &dyn Fn(&mut fhec_ckks::KeyRequest)| {
        let mut request = full.clone();
        change(&mut request);
        let keys = fhec_ckks::EvaluationKeys::generate(&secret, &request, &mut rng, &|_, _| ()).unwrap();
        base.with_keys(Arc::new(keys)).map(drop)
    };
    with(&|_| ()).unwrap();
    let refused = |result: Result<(), RuntimeError>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("ring of degree 2^6"), "{error}");
    };
    refused(with(&|request| request.low.clear()));
    refused(with(&|request| request.low.get_mut(&6).unwrap().level -= 1));
    refused(with(&|request| {
        request.low.get_mut(&6).unwrap().galois.pop_first();
    }));
}

#[test]
fn an_unsound_head_is_refused() {
    let mut head = mlp().plan().head();
    head.inputs[0].range = (1.0, -1.0);
    assert!(Client::new(head, token()).unwrap_err().to_string().contains("range"));
}

#[test]
fn softmax_along_an_axis() {
    let mut v = vec![1.0, 1000.0, 1.0, 1001.0];
    postprocess(&[Postprocess::Softmax { axis: 0 }], &[2, 2], &mut v);
    assert_eq!((v[0], v[2]), (0.5, 0.5));
    assert!((v[1] + v[3] - 1.0).abs() < 1e-12 && v[3] > v[1]);
}

#[test]
fn pixels_are_normalised_per_channel() {
    let mut input = Input {
        name: "x".into(),
        shape: vec![1, 3, 2],
        layout: Layout::dense(6, 8, 8),
        level: 0,
        scale: fhec_math::Scale::pow2(30),
        factor: 1.0,
        range: (0.0, 1.0),
        preprocess: Some(Preprocess { scale: 0.1, mean: vec![1.0, 2.0, 3.0], std: vec![2.0] }),
    };
    let mut pixels = vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
    preprocess(&input, &mut pixels);
    assert_eq!(pixels, [0.0, 0.5, 0.5, 1.0, 1.0, 1.5]);
    input.preprocess = None;
    preprocess(&input, &mut pixels);
    assert_eq!(pixels[5], 1.5);
}
