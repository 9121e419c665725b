//! What works: uploads, requests, results, encryption of connections, an end in order.

use crate::parties::*;
use crate::plans;
use fhec_plan::PlanHead;
use fhec_protocol::{KeyState, KeyStatus};
use fhec_serve::{Config, Identity, Running, Service};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn keys_are_sent_once_and_results_are_right() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let connection = connect(server.address());
    let head = PlanHead::read(&connection.plan_head().expect("head")).expect("head");
    assert_eq!(head, MLP.plan().head());
    let limits = connection.limits().expect("limits");
    let mut person = Person::new(&MLP, 1);
    assert_eq!(limits.key_bytes, person.keys.len() as u64);
    assert_eq!(person.upload(&connection), person.keys.len() as u64);
    assert_eq!(person.upload(&connection), 0);
    for seed in [0.3, 0.7] {
        person.ask(&connection, seed);
    }
    let (_, payload, _) = person.question(0.1);
    assert!(payload.len() as u64 <= limits.payload_bytes);
    // Full ciphertexts, as the public key gives them, are the largest.
    let public = person.client.generate_public(&person.secret, &mut person.rng);
    let key = fhec_runtime::EncryptionKey::Public(&public);
    let bundle = person.client.encrypt(&plans::inputs(&MLP, 0.1), key, &mut person.rng).expect("encrypts");
    let mut largest = Vec::new();
    fhec_ckks::container::write_ciphertexts(&bundle, person.client.context(), MLP.hash(), &mut largest)
        .expect("writes");
    assert_eq!(largest.len() as u64, limits.payload_bytes);
    assert_eq!(metric(server.address(), "fhec_evaluation_seconds_count"), 2.0);
    assert_eq!(metric(server.address(), "fhec_keys_ready"), 1.0);
    assert_eq!(metric(server.address(), "fhec_results"), 0.0);
    assert_eq!(raw(server.address(), &http("GET", "/health", &[])), (200, "ok\n".into()));
    server.end();
}

#[test]
fn a_lost_answer_is_fetched_again() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let connection = connect(server.address());
    let mut person = Person::new(&MLP, 1);
    person.upload(&connection);
    let (frame, payload, expected) = person.question(0.4);
    let first = connection.request(&frame, &payload, 1 << 20, &mut |_| ()).expect("result");
    // A second process with the same request.
    let second = connect(server.address()).request(&frame, &payload, 1 << 20, &mut |_| ()).expect("result");
    assert_eq!(first, second);
    assert!(plans::distance(&person.read(&first.1), &expected) < 1e-6);
    assert_eq!(metric(server.address(), "fhec_evaluation_seconds_count"), 1.0);
}

#[test]
fn uploads_go_on_where_they_stopped_even_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let mut person = Person::new(&MLP, 1);
    let half = person.keys.len() / 2;
    let path = format!("/v1/keys/{}", person.id);
    // A connection that breaks: it promises all and sends half.
    let promise = format!("PUT {path}?offset=0 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", person.keys.len());
    {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(server.address()).expect("connects");
        stream.write_all(promise.as_bytes()).and_then(|()| stream.write_all(&person.keys[..half])).expect("sends");
    }
    let status = |server: &Running| -> KeyStatus {
        serde_json::from_str(&raw(server.address(), &http("GET", &path, &[])).1).expect("status")
    };
    let expected = KeyStatus { state: KeyState::Partial, have: half as u64, size: person.keys.len() as u64 };
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while raw(server.address(), &http("GET", &path, &[])).0 != 200 || status(&server) != expected {
        assert!(std::time::Instant::now() < until, "the server never has what was sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.end();
    let server = start(config(folder.path()));
    assert_eq!(status(&server), expected);
    let connection = connect(server.address());
    assert_eq!(person.upload(&connection), (person.keys.len() - half) as u64);
    person.ask(&connection, 0.6);
    server.end();
    // Complete keys stay, too.
    let server = start(config(folder.path()));
    let connection = connect(server.address());
    assert_eq!(person.upload(&connection), 0);
    person.ask(&connection, 0.2);
}

#[test]
fn more_clients_than_fit_into_memory_are_served_in_turn() {
    let folder = tempfile::tempdir().expect("folder");
    let probe = Service::open(Arc::clone(&MLP), config(folder.path()), plans::token()).expect("service");
    let sizes = probe.sizes().clone();
    drop(probe);
    // Room for the requests and evaluations, and for two sets of keys.
    let held = 8 * sizes.inputs.max(sizes.outputs);
    let mut memory = 8 * held;
    let config = loop {
        let config = Config { memory, requests: 8, runs: Some(1), ..config(folder.path()) };
        match Service::open(Arc::clone(&MLP), config.clone(), plans::token()) {
            Ok(service) if service.sizes().keys_in_memory >= 2 => break config,
            _ => memory += memory / 16,
        }
    };
    let server = start(config);
    let connection = connect(server.address());
    let mut people: Vec<Person> = (1..=6).map(|seed| Person::new(&MLP, seed)).collect();
    for round in 0..2 {
        for person in &mut people {
            person.upload(&connection);
            person.ask(&connection, 0.3 + f64::from(round));
        }
    }
    assert_eq!(metric(server.address(), "fhec_keys_ready"), 6.0);
    assert!(metric(server.address(), "fhec_keys_loaded") <= 3.0);
    assert!(metric(server.address(), "fhec_key_loads_total") >= 10.0);
}

#[test]
fn what_nobody_uses_expires() {
    let folder = tempfile::tempdir().expect("folder");
    let short = Duration::from_millis(400);
    let server = start(Config { key_ttl: short, request_ttl: short, upload_ttl: short, ..config(folder.path()) });
    let connection = connect(server.address());
    let mut person = Person::new(&MLP, 1);
    person.upload(&connection);
    let (frame, payload, _) = person.question(0.4);
    connection.request(&frame, &payload, 1 << 20, &mut |_| ()).expect("result");
    let path = format!("/v1/keys/{}?offset=0", Person::new(&MLP, 2).id);
    assert_eq!(raw(server.address(), &http("PUT", &path, b"FHEC")).0, 200);
    let gone = |name: &str| {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while metric(server.address(), name) != 0.0 {
            assert!(std::time::Instant::now() < until, "{name} does not expire");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    ["fhec_results", "fhec_keys_ready", "fhec_keys_partial", "fhec_keys_loaded"].iter().for_each(|name| gone(name));
    let left: Vec<_> = walk(folder.path());
    assert!(left.is_empty(), "{left:?}");
    // The client notices and sends everything again.
    person.upload(&connection);
    person.ask(&connection, 0.4);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("lists") {
        let path = entry.expect("entry").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn connections_can_be_encrypted_and_are_checked() {
    let folder = tempfile::tempdir().expect("folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let service = Service::open(Arc::clone(&MLP), config(folder.path()), plans::token()).expect("service");
    let identity = Identity { certificates: certificate.as_bytes(), key: key.as_bytes() };
    let server = Running::start(service, "127.0.0.1:0", Some(identity)).expect("starts");
    let url = format!("https://localhost:{}", server.address().port());
    let connection = connect_with(&url, Some(certificate.as_bytes()));
    let mut person = Person::new(&MLP, 1);
    person.upload(&connection);
    person.ask(&connection, 0.5);
    // Somebody else's certificate.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate").cert.pem();
    let error = connect_with(&url, Some(other.as_bytes())).limits().expect_err("is not trusted").to_string();
    assert!(error.contains("certificates"), "{error}");
    // Neither certificate nor key are taken for what they are not.
    for (certificates, key) in [(b"".as_slice(), key.as_bytes()), (certificate.as_bytes(), b"x")] {
        let service = Service::open(Arc::clone(&MLP), config(folder.path()), plans::token()).expect("service");
        assert!(Running::start(service, "127.0.0.1:0", Some(Identity { certificates, key })).is_err());
    }
}

#[test]
fn what_does_not_fit_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("folder");
    let open = |config| Service::open(Arc::clone(&MLP), config, plans::token()).map(drop).map_err(|e| e.to_string());
    let small = open(Config { memory: 1 << 10, ..config(folder.path()) }).expect_err("too small");
    assert!(small.contains("bytes of memory"), "{small}");
    let small = open(Config { disk: 1 << 10, ..config(folder.path()) }).expect_err("too small");
    assert!(small.contains("bytes on disk"), "{small}");
    let insecure = Service::open(Arc::clone(&MLP), config(folder.path()), None).map(drop).expect_err("insecure");
    assert!(insecure.to_string().contains("protect nothing"), "{insecure}");
    let service = Service::open(Arc::clone(&MLP), config(folder.path()), plans::token()).expect("service");
    assert!(Running::start(service, "300.0.0.1:1", None).is_err());
}
