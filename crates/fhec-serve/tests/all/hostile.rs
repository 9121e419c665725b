//! Strangers: each is refused with a reason, and nobody else notices.

use crate::parties::*;
use crate::plans;
use fhec_ckks::container::{write_ciphertexts, write_public_key, write_secret_key};
use fhec_client::{ClientError, random_request};
use fhec_protocol::{Code, Refusal};
use fhec_runtime::EncryptionKey;
use fhec_serve::Config;
use std::io::{Cursor, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The code of a refusal.
fn code((status, body): (u16, String)) -> Option<Code> {
    let refusal: Refusal = serde_json::from_str(&body).ok()?;
    assert_eq!(status, refusal.code.status());
    Some(refusal.code)
}

fn post(address: SocketAddr, body: &[u8]) -> (u16, String) {
    raw(address, &http("POST", "/v1/requests?wait=10", body))
}

#[test]
fn every_kind_of_nonsense_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let address = server.address();
    let connection = connect(address);
    let mut person = Person::new(&MLP, 1);
    person.upload(&connection);
    let (frame, payload, _) = person.question(0.3);
    let body = |frame: &fhec_protocol::Frame, payload: &[u8]| [&frame.to_bytes()[..], payload].concat();

    // Paths and methods.
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/v1/keys/00"),
        ("GET", "/v1/requests/x/y/z"),
        ("POST", "/v1/plan"),
        ("DELETE", "/v1/requests/../../etc"),
        ("PUT", "/v1/keys/x?offset=0"),
        ("PUT", &format!("/v1/keys/{}?offset=-1", person.id)),
        ("POST", "/v1/requests?wait=soon"),
    ] {
        assert_eq!(code(raw(address, &http(method, path, b"abc"))), Some(Code::Malformed), "{method} {path}");
    }
    assert_eq!(raw(address, b"no HTTP at all\r\n\r\n").0, 400);

    // Frames.
    assert_eq!(code(post(address, b"FHEX")), Some(Code::Malformed));
    assert_eq!(code(post(address, &[0; 4096])), Some(Code::Malformed));
    let short = body(&frame, &payload[..payload.len() - 1]);
    assert_eq!(code(post(address, &short)), Some(Code::Malformed));
    let long = [body(&frame, &payload), vec![0]].concat();
    assert_eq!(code(post(address, &long)), Some(Code::Malformed));
    for (bad, expected) in [
        (fhec_protocol::Frame { kind: fhec_protocol::FrameKind::Outputs, ..frame }, Code::Malformed),
        (fhec_protocol::Frame { plan: [1; 32], ..frame }, Code::Refused),
        (fhec_protocol::Frame { rounds: 2, ..frame }, Code::Refused),
        (fhec_protocol::Frame { batch: 2, ..frame }, Code::Refused),
        (fhec_protocol::Frame { payload: u64::MAX, ..frame }, Code::TooLarge),
        (fhec_protocol::Frame { key: fhec_protocol::KeyId([3; 32]), ..frame }, Code::UnknownKey),
    ] {
        assert_eq!(code(post(address, &body(&bad, &payload))), Some(expected), "{bad:?}");
    }
    // A promise of more than the plan explains is refused before it is kept.
    let promise =
        b"POST /v1/requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\nFHEX";
    assert_eq!(code(raw(address, promise)), Some(Code::TooLarge));

    // Ciphertexts: damaged, of another kind, of other parameters.
    let fresh = |payload: &[u8]| person.frame(random_request().expect("random"), payload);
    let mut damaged = payload.clone();
    damaged[payload.len() / 2] ^= 1;
    for bad in [&b"FHEC"[..], &[7; 300], &damaged, &payload[..200]] {
        assert_eq!(code(post(address, &body(&fresh(bad), bad))), Some(Code::Refused), "{} bytes", bad.len());
    }
    let mut file = Vec::new();
    write_secret_key(&person.secret, MLP.hash(), &mut file).expect("writes");
    assert_eq!(code(post(address, &body(&fresh(&file), &file))), Some(Code::Refused));
    let mut stranger = Person::new(&plans::several_terms(), 3);
    let inputs = [16, 16, 4].map(|n| plans::pseudo(n, 0.2));
    let key = EncryptionKey::Secret(&stranger.secret);
    let bundle = stranger.client.encrypt(&inputs, key, &mut stranger.rng).expect("encrypts");
    // Another chain under the right hash of the plan; one of them, for three are too large.
    let mut other = Vec::new();
    write_ciphertexts(&bundle[..1], stranger.client.context(), MLP.hash(), &mut other).expect("writes");
    assert_eq!(code(post(address, &body(&fresh(&other), &other))), Some(Code::Refused));
    // Sound ciphertexts that are not those of the inputs.
    let mut nothing = Vec::new();
    write_ciphertexts(&[], person.client.context(), MLP.hash(), &mut nothing).expect("writes");
    assert_eq!(code(post(address, &body(&fresh(&nothing), &nothing))), Some(Code::Refused));

    // The same name for something else.
    assert_eq!(post(address, &body(&frame, &payload)).0, 200);
    let (_, another, _) = person.question(0.5);
    let claimed = fhec_protocol::Frame { payload: another.len() as u64, ..frame };
    assert_eq!(code(post(address, &body(&claimed, &another))), Some(Code::Conflict));
    assert_eq!(
        code(raw(address, &http("GET", &format!("/v1/requests/{}/{}/1", frame.key, frame.request), b""))),
        Some(Code::UnknownRequest)
    );

    person.ask(&connection, 0.9);
    assert_eq!(metric(address, "fhec_panics_total"), 0.0);
}

#[test]
fn wrong_keys_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(config(folder.path()));
    let connection = connect(server.address());
    let person = Person::new(&MLP, 1);
    let refused = |bytes: &[u8], expected: Code| {
        let (id, _) = fhec_client::key_id(&mut &bytes[..]).expect("reads");
        match connection.upload_keys(id, &mut Cursor::new(bytes), &mut |_, _| ()) {
            Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, expected, "{}", refusal.message),
            other => panic!("{other:?}"),
        }
    };
    let size = person.keys.len();
    // Right in length, and one bit wrong in the seed, in a residue and in the checksum.
    for at in [100, size / 2, size - 1] {
        let mut bytes = person.keys.clone();
        bytes[at] ^= 1;
        refused(&bytes, Code::Refused);
    }
    refused(&vec![0; size], Code::Refused);
    refused(&[&person.keys[..], b"more"].concat(), Code::TooLarge);
    // A secret key is a file like any other that is not wanted, however long it is made.
    let mut secret = Vec::new();
    write_secret_key(&person.secret, MLP.hash(), &mut secret).expect("writes");
    secret.resize(size, 0);
    refused(&secret, Code::Refused);
    let mut public = Vec::new();
    let mut rng = fhec_math::SecretRng::from_seed(&[1; 32]);
    write_public_key(&person.client.generate_public(&person.secret, &mut rng), MLP.hash(), &mut public)
        .expect("writes");
    public.resize(size, 0);
    refused(&public, Code::Refused);
    // Right bytes under a wrong name.
    let name = fhec_protocol::KeyId([9; 32]);
    let error = connection.upload_keys(name, &mut Cursor::new(&person.keys), &mut |_, _| ()).expect_err("wrong name");
    assert!(error.to_string().contains("hash"), "{error}");
    // And after all that the right keys are taken.
    person.upload(&connection);
    assert_eq!(metric(server.address(), "fhec_keys_ready"), 1.0);
    assert_eq!(metric(server.address(), "fhec_panics_total"), 0.0);
}

#[test]
fn uploads_that_never_end_do_not_take_all_places() {
    let folder = tempfile::tempdir().expect("folder");
    let person = Person::new(&MLP, 1);
    let server = start(Config { disk: 5 * person.keys.len() as u64, ..config(folder.path()) });
    let address = server.address();
    let begin = |name: u8| {
        let path = format!("/v1/keys/{}?offset=0", fhec_protocol::KeyId([name; 32]));
        raw(address, &http("PUT", &path, b"FHEC")).0
    };
    assert_eq!([1, 2, 3, 4].map(begin), [200, 200, 200, 503]);
    // An upload that was begun can be continued, but only at its end.
    let path = |offset: u64| format!("/v1/keys/{}?offset={offset}", fhec_protocol::KeyId([1; 32]));
    assert_eq!(raw(address, &http("PUT", &path(0), b"FHEC")).0, 409);
    assert_eq!(raw(address, &http("PUT", &path(4), b"more")).0, 200);
    assert_eq!(metric(address, "fhec_keys_partial"), 3.0);
}

#[test]
fn connections_that_say_nothing_are_closed_and_counted() {
    let folder = tempfile::tempdir().expect("folder");
    let stall = Duration::from_millis(700);
    let server = start(Config { connections: 8, stall, ..config(folder.path()) });
    let address = server.address();
    // Half of all connections may come from one address.
    let mut silent: Vec<TcpStream> = (0..6).map(|_| TcpStream::connect(address).expect("connects")).collect();
    for (i, stream) in silent.iter_mut().enumerate() {
        // Some begin to speak. Those that were turned away already cannot.
        let _ = stream.write_all(&b"POST /v1/requests HTTP/1.1\r\nContent-Length: 9999\r\n\r\nFHEX"[..11 * i]);
    }
    let until = Instant::now() + Duration::from_secs(10);
    // Once they have been silent for too long, others are served.
    while raw(address, &http("GET", "/health", &[])).0 != 200 {
        assert!(Instant::now() < until, "silent connections stay");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(metric(address, "fhec_turned_away_total") >= 2.0);
    while metric(address, "fhec_connections_open") > 1.0 {
        assert!(Instant::now() < until, "silent connections stay");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(silent);
}

#[test]
fn one_client_cannot_take_everything() {
    let folder = tempfile::tempdir().expect("folder");
    let server = start(Config { requests_per_client: 2, stall: Duration::from_secs(60), ..config(folder.path()) });
    let connection = connect(server.address());
    let (mut greedy, mut modest) = (Person::new(&MLP, 1), Person::new(&MLP, 2));
    greedy.upload(&connection);
    modest.upload(&connection);
    let (frame, payload, _) = greedy.question(0.7);
    let third = http("POST", "/v1/requests", &[&frame.to_bytes()[..], &payload].concat());
    // Two requests that are never sent to their end, and no more.
    let mut half = |seed: f64| {
        let (frame, payload, _) = greedy.question(seed);
        let all = http("POST", "/v1/requests", &[&frame.to_bytes()[..], &payload].concat());
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.write_all(&all[..all.len() / 2]).expect("sends");
        stream
    };
    let mut held = vec![half(0.5), half(0.6)];
    let until = Instant::now() + Duration::from_secs(30);
    // Until two have been seen.
    while code(raw(server.address(), &third)) != Some(Code::Limited) {
        assert!(Instant::now() < until, "there is no limit");
        connection.forget(frame.key, frame.request);
        // One that came after the whole one was refused.
        held.push(half(0.5));
    }
    modest.ask(&connection, 0.3);
    drop(held);
    greedy.ask(&connection, 0.8);
}
