//! Plans of several rounds: what clients can do between two of them, by mistake or on purpose.

use crate::parties::*;
use crate::plans;
use fhec_ckks::container::{read_ciphertexts, write_ciphertexts};
use fhec_client::{ClientError, Connection, random_request};
use fhec_plan::Verified;
use fhec_protocol::{Code, Frame, Refusal, RequestId};
use fhec_runtime::{ClearBackend, EncryptionKey, Play, evaluate};
use fhec_serve::{Config, Running, Service};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static AIDED: LazyLock<Arc<Verified>> = LazyLock::new(|| plans::aided(false));
static BATCHED: LazyLock<Arc<Verified>> = LazyLock::new(|| plans::aided(true));

/// Serves a plan; waits for an address that another server has just left.
fn serve(plan: &Arc<Verified>, config: Config, address: &str) -> Running {
    let service = Service::open(Arc::clone(plan), config, plans::token()).expect("service");
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Running::start(Arc::clone(&service), address, None) {
            Ok(running) => return running,
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server of the plan, and the first of its clients with keys uploaded.
fn alone(plan: &'static Arc<Verified>, folder: &Path) -> (Running, Connection, Guest) {
    let server = serve(plan, config(folder), "127.0.0.1:0");
    let connection = connect(server.address());
    let guest = Guest::new(plan, 1);
    guest.person.upload(&connection);
    (server, connection, guest)
}

/// A client in the middle of a request.
struct Guest {
    plan: &'static Verified,
    person: Person,
    images: Vec<Vec<f64>>,
    plays: Vec<Play<'static>>,
    request: RequestId,
    round: u32,
}

impl Guest {
    fn new(plan: &'static Verified, seed: u8) -> Self {
        let request = random_request().expect("random");
        Guest { plan, person: Person::new(plan, seed), images: vec![], plays: vec![], request, round: 0 }
    }

    /// Begins a new request with so many images.
    fn begin(&mut self, images: usize, seed: f64) {
        let aided = self.plan.plan().aided.as_ref().expect("client-aided");
        self.images = (0..images).map(|i| plans::pseudo(16, seed + i as f64)).collect();
        let play = |image: &Vec<f64>| Play::new(aided, &self.plan.plan().inputs, std::slice::from_ref(image));
        self.plays = self.images.iter().map(|image| play(image).expect("fits")).collect();
        (self.request, self.round) = (random_request().expect("random"), 0);
    }

    /// The frame of some payload in the round that is next.
    fn frame(&self, payload: &[u8]) -> Frame {
        let rounds = self.plan.plan().rounds();
        let batch = self.images.len() as u32;
        Frame { round: self.round, rounds, batch, ..self.person.frame(self.request, payload) }
    }

    /// What the next round sends. Encrypted afresh each time, so no two are the same.
    fn question(&mut self) -> (Frame, Vec<u8>) {
        let round = self.round;
        self.plays.iter_mut().for_each(|play| play.advance(round));
        let Person { client, secret, rng, .. } = &mut self.person;
        let bundle = client.encrypt_round(&self.plays, round, EncryptionKey::Secret(secret), rng).expect("encrypts");
        let mut payload = Vec::new();
        write_ciphertexts(&bundle, self.person.client.context(), self.plan.hash(), &mut payload).expect("writes");
        (self.frame(&payload), payload)
    }

    /// Takes the answer, and goes on to the next round.
    fn take(&mut self, payload: &[u8]) {
        let Person { client, secret, .. } = &self.person;
        let bundle = read_ciphertexts(payload, client.context(), self.plan.hash()).expect("ciphertexts");
        let plan = self.plan.plan();
        for index in (0..plan.outputs.len()).filter(|&i| plan.output_round(i) == self.round) {
            let images = client.decrypt_batch(index, &bundle, secret).expect("decrypts");
            assert_eq!(images.len(), self.plays.len());
            self.plays.iter_mut().zip(images).for_each(|(play, values)| play.receive(index, &values));
        }
        self.round += 1;
    }

    /// Plays one round; returns what was sent and what came back.
    fn play(&mut self, connection: &Connection) -> (Frame, Vec<u8>, Vec<u8>) {
        let (frame, payload) = self.question();
        let (_, answer) = connection.request(&frame, &payload, 1 << 20, &mut |_| ()).expect("an answer");
        self.take(&answer);
        (frame, payload, answer)
    }

    /// Plays all rounds that are left, and compares the result with the network in the clear.
    fn end(&mut self, connection: &Connection) {
        let rounds = self.plan.plan().rounds();
        while self.round < rounds {
            self.play(connection);
        }
        connection.forget(self.person.id, self.request);
        for (play, image) in self.plays.iter_mut().zip(&self.images) {
            play.advance(rounds);
            let want = evaluate(self.plan, &ClearBackend::new(self.plan), vec![image.clone()], 1).expect("runs");
            let error = plans::distance(&[play.result(0).expect("known").to_vec()], &want);
            assert!(plans::largest(&want) > 0.1 && error < 1e-6, "{error}");
        }
    }

    /// A whole request.
    fn whole(&mut self, connection: &Connection, images: usize, seed: f64) {
        self.begin(images, seed);
        self.end(connection);
    }
}

/// The code with which a frame is refused.
#[track_caller]
fn refused(connection: &Connection, frame: &Frame, payload: &[u8]) -> Code {
    match connection.request(frame, payload, 1 << 20, &mut |_| ()) {
        Err(ClientError::Refused(refusal)) => refusal.code,
        other => panic!("{:?}", other.map(|(frame, _)| frame)),
    }
}

/// The same without a client in between, which would wait and try again.
fn refused_at_once(address: SocketAddr, frame: &Frame, payload: &[u8]) -> Option<Code> {
    let (status, body) = raw(address, &http("POST", "/v1/requests", &[&frame.to_bytes()[..], payload].concat()));
    let refusal: Refusal = serde_json::from_str(&body).ok()?;
    assert_eq!(status, refusal.code.status());
    Some(refusal.code)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Nothing is kept of any request, and nothing went wrong inside.
fn is_clean(address: SocketAddr) {
    assert_eq!(metric(address, "fhec_kept_bytes"), 0.0);
    assert_eq!(metric(address, "fhec_results"), 0.0);
    assert_eq!(metric(address, "fhec_panics_total"), 0.0);
}

#[test]
fn rounds_together_are_the_network() {
    for (plan, images) in [(&AIDED, 1), (&BATCHED, 1), (&BATCHED, 5)] {
        let folder = tempfile::tempdir().expect("folder");
        let (server, connection, mut guest) = alone(plan, folder.path());
        guest.begin(images, 0.3);
        guest.play(&connection);
        assert!(metric(server.address(), "fhec_kept_bytes") > 0.0, "the shortcut lives on");
        guest.end(&connection);
        is_clean(server.address());
    }
}

#[test]
fn garbage_costs_the_request_it_belongs_to() {
    let folder = tempfile::tempdir().expect("folder");
    let (server, connection, mut guest) = alone(&AIDED, folder.path());
    let (mut other, address) = (Guest::new(&AIDED, 2), server.address());
    other.person.upload(&connection);
    other.begin(1, 0.9);
    other.play(&connection);

    // What its first bytes give away is refused before the request is touched, which can go on.
    guest.begin(1, 0.3);
    let (_, first, _) = guest.play(&connection);
    for bad in [&b""[..], b"FHEC", &[7; 300]] {
        assert_eq!(refused(&connection, &guest.frame(bad), bad), Code::Refused, "{} bytes", bad.len());
    }
    let (_, second, answer) = guest.play(&connection);
    guest.end(&connection);

    let damaged = |at: usize| {
        let mut bytes = second.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut nothing = Vec::new();
    write_ciphertexts(&[], guest.person.client.context(), AIDED.hash(), &mut nothing).expect("writes");
    let bad = [
        damaged(second.len() / 2),
        damaged(second.len() - 1),
        second[..second.len() - 8].to_vec(),
        nothing,
        // What the round before sent, and what this one was answered by.
        first,
        answer,
    ];
    for bad in &bad {
        guest.begin(1, 0.4);
        guest.play(&connection);
        let (frame, right) = guest.question();
        let wrong = Frame { payload: bad.len() as u64, ..frame };
        assert_eq!(refused(&connection, &wrong, bad), Code::Refused);
        // The same again fails again; the name now stands for it, and for nothing else.
        assert_eq!(refused(&connection, &wrong, bad), Code::Refused);
        assert_eq!(refused(&connection, &frame, &right), Code::Conflict);
        connection.forget(frame.key, frame.request);
    }
    // Nobody else notices, and a new request is served.
    other.end(&connection);
    guest.whole(&connection, 1, 0.5);
    is_clean(address);
}

#[test]
fn rounds_come_in_their_order_and_once() {
    let folder = tempfile::tempdir().expect("folder");
    let (server, connection, mut guest) = alone(&AIDED, folder.path());
    let address = server.address();
    guest.begin(1, 0.3);
    // A later round of a request that nobody began.
    let (early, payload) = guest.question();
    assert_eq!(refused(&connection, &Frame { round: 1, ..early }, &payload), Code::UnknownRequest);
    let (first, first_payload, _) = guest.play(&connection);
    // One is skipped, with the payload that the next would take; rounds that the plan does not have.
    let (second, second_payload) = guest.question();
    assert_eq!(refused(&connection, &Frame { round: 2, ..second }, &second_payload), Code::Conflict);
    assert_eq!(refused(&connection, &Frame { round: 3, ..second }, &second_payload), Code::Malformed);
    assert_eq!(refused(&connection, &Frame { round: u32::MAX, ..second }, &second_payload), Code::Malformed);
    assert_eq!(refused(&connection, &Frame { rounds: 2, ..second }, &second_payload), Code::Refused);
    assert_eq!(refused(&connection, &Frame { rounds: 4, round: 3, ..second }, &second_payload), Code::Refused);

    let (second, second_payload, answer) = guest.play(&connection);
    let evaluated = metric(address, "fhec_evaluation_seconds_count");
    // Sent again: the same answer, and no work. With other ciphertexts: another request under this name.
    let (_, same) = connection.request(&second, &second_payload, 1 << 20, &mut |_| ()).expect("an answer");
    assert!(same == answer);
    guest.round = 1;
    let (frame, fresh) = guest.question();
    assert_eq!(refused(&connection, &frame, &fresh), Code::Conflict);
    guest.round = 2;
    // The round before is over.
    assert_eq!(refused(&connection, &first, &first_payload), Code::Conflict);
    let path = format!("/v1/requests/{}/{}/0", first.key, first.request);
    assert_eq!(raw(address, &http("GET", &path, b"")).0, 404);
    assert_eq!(metric(address, "fhec_evaluation_seconds_count"), evaluated);

    // All this has done no harm. After the end nothing can be taken up again.
    guest.end(&connection);
    assert_eq!(refused(&connection, &second, &second_payload), Code::UnknownRequest);
    is_clean(address);
}

#[test]
fn all_rounds_have_the_same_images() {
    let folder = tempfile::tempdir().expect("folder");
    let (server, connection, mut guest) = alone(&BATCHED, folder.path());
    let most = BATCHED.plan().batch() as u32;
    guest.begin(3, 0.3);
    guest.play(&connection);
    let (frame, payload) = guest.question();
    for batch in [2, 4, most] {
        assert_eq!(refused(&connection, &Frame { batch, ..frame }, &payload), Code::Conflict, "{batch}");
    }
    assert_eq!(refused(&connection, &Frame { batch: most + 1, ..frame }, &payload), Code::Refused);
    assert_eq!(refused(&connection, &Frame { batch: 0, ..frame }, &payload), Code::Malformed);
    // Frames that lie about what the ciphertexts hold.
    let dropped = guest.plays.pop().expect("three");
    let (_, two) = guest.question();
    guest.plays.push(dropped);
    let lie = Frame { payload: two.len() as u64, ..frame };
    assert_eq!(refused(&connection, &lie, &two), Code::Refused);
    connection.forget(frame.key, frame.request);
    guest.whole(&connection, 3, 0.3);
    guest.whole(&connection, most as usize, 0.4);
    is_clean(server.address());
}

#[test]
fn requests_are_those_of_their_keys() {
    let folder = tempfile::tempdir().expect("folder");
    let (server, connection, mut guest) = alone(&AIDED, folder.path());
    let mut thief = Guest::new(&AIDED, 2);
    thief.person.upload(&connection);
    guest.begin(1, 0.3);
    guest.play(&connection);
    // Who knows the name of a request alone neither goes on with it, nor gets its answers, nor ends it.
    thief.begin(1, 0.7);
    thief.request = guest.request;
    let (frame, payload) = thief.question();
    assert_eq!(refused(&connection, &Frame { round: 1, ..frame }, &payload), Code::UnknownRequest);
    let path = format!("/v1/requests/{}/{}/0", thief.person.id, guest.request);
    assert_eq!(raw(server.address(), &http("GET", &path, b"")).0, 404);
    connection.forget(thief.person.id, guest.request);
    // The same name under other keys is another request; both are played a round at a time.
    thief.play(&connection);
    guest.play(&connection);
    thief.play(&connection);
    guest.end(&connection);
    thief.end(&connection);
    is_clean(server.address());
}

#[test]
fn a_connection_that_breaks_within_a_round_costs_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let (server, connection, mut guest) = alone(&AIDED, folder.path());
    guest.begin(1, 0.3);
    guest.play(&connection);
    let (frame, payload) = guest.question();
    let all = http("POST", "/v1/requests", &[&frame.to_bytes()[..], &payload].concat());
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.write_all(&all[..all.len() / 2]).expect("sends");
    drop(stream);
    guest.end(&connection);
    is_clean(server.address());
}

#[test]
fn clients_that_vanish_leave_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let request_ttl = Duration::from_secs(3);
    let settings = Config { request_ttl, requests_per_client: 2, ..config(folder.path()) };
    let server = serve(&AIDED, settings, "127.0.0.1:0");
    let (connection, address) = (connect(server.address()), server.address());
    let mut guest = Guest::new(&AIDED, 1);
    guest.person.upload(&connection);
    is_clean(address);
    // Requests that are between two rounds hold their places, and what they keep ...
    for seed in [0.4, 0.5] {
        guest.begin(1, seed);
        guest.play(&connection);
    }
    let (lost, lost_payload) = guest.question();
    guest.begin(1, 0.6);
    let (frame, payload) = guest.question();
    assert_eq!(refused_at_once(address, &frame, &payload), Some(Code::Limited));
    assert!(metric(address, "fhec_kept_bytes") > 0.0);
    // ... until nobody has asked for them long enough.
    wait_until("it forgets", || metric(address, "fhec_results") == 0.0);
    is_clean(address);
    assert_eq!(refused(&connection, &lost, &lost_payload), Code::UnknownRequest);
    guest.end(&connection);

    // Nor do failures between rounds keep anything for longer.
    guest.begin(1, 0.7);
    let (_, first, _) = guest.play(&connection);
    let wrong = guest.frame(&first);
    assert_eq!(refused(&connection, &wrong, &first), Code::Refused);
    wait_until("it forgets", || metric(address, "fhec_kept_bytes") == 0.0);
    assert_eq!(refused(&connection, &wrong, &first), Code::UnknownRequest);
    is_clean(address);
}

#[test]
fn after_a_restart_requests_begin_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut server, connection, mut guest) = alone(&AIDED, folder.path());
    let address = server.address();
    // Broken off, and ended in order.
    for in_order in [false, true] {
        guest.begin(1, 0.3);
        guest.play(&connection);
        let (frame, payload) = guest.question();
        if in_order {
            server.end()
        } else {
            drop(server)
        }
        server = serve(&AIDED, config(folder.path()), &address.to_string());
        assert_eq!(guest.person.upload(&connection), 0, "the keys are there");
        assert_eq!(refused(&connection, &frame, &payload), Code::UnknownRequest);
        guest.whole(&connection, 1, 0.3);
        is_clean(address);
    }
}

/// Keys that are gone in the middle of a request can be uploaded again, and it goes on where it was.
#[test]
fn keys_may_come_again_between_rounds() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = Config { key_ttl: Duration::from_secs(3), ..config(folder.path()) };
    let server = serve(&AIDED, settings, "127.0.0.1:0");
    let (connection, address) = (connect(server.address()), server.address());
    let mut guest = Guest::new(&AIDED, 1);
    guest.person.upload(&connection);
    guest.begin(1, 0.3);
    guest.play(&connection);
    wait_until("it forgets the keys", || metric(address, "fhec_keys_ready") == 0.0);
    let (frame, payload) = guest.question();
    assert_eq!(refused(&connection, &frame, &payload), Code::UnknownKey);
    assert_eq!(guest.person.upload(&connection), guest.person.keys.len() as u64);
    guest.end(&connection);
    is_clean(address);
}
