//! Rounds whose ciphertexts do not fit memory go through temporary files: the same bits, and nothing is left.

use crate::parties::*;
use crate::plans::{self, Builder};
use fhec_ckks::container::{BundleEntry, write_ciphertexts};
use fhec_client::{ClientError, Connection, random_request};
use fhec_plan::stream::Schedule;
use fhec_plan::{
    Activation, Aided, ClientOp, ClientResult, ClientStep, Layout, Matrix, MatrixId, Nest, Op, Reg, Send, Verified,
};
use fhec_protocol::{Code, Frame, RequestId};
use fhec_runtime::EncryptionKey;
use fhec_serve::{Config, Running, ServeError, Service};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const LEN: usize = 1500;
const IMAGES: usize = 3;

/// Windows of three along a line, the client's ReLU, windows of three again, and windows of five of the line as a shortcut around both that
/// lives on in the server.
static LINE: LazyLock<Arc<Verified>> = LazyLock::new(|| {
    let mut b = Builder::batched(plans::small(1), 40);
    let window = |b: &mut Builder, x: Reg, inputs: usize, width: usize, seed: f64| -> Reg {
        let tensor = Some(b.tensor(plans::pseudo(width, seed)));
        let outputs = inputs + 1 - width;
        let dims = vec![plans::dim(outputs, 1, 1, 0), plans::dim(width, 0, 1, 1)];
        let nest = Nest { dims, row: 0, col: 0, weight: 0, tensor, factor: 0.5, guards: vec![] };
        let (slots, nests) = (1, vec![nest]);
        let [in_ciphertexts, in_period, out_ciphertexts, out_period] = [inputs, 1, outputs, 1];
        let m: MatrixId = b.matrix(Matrix { slots, in_ciphertexts, in_period, out_ciphertexts, out_period, nests });
        b.linear(&[(x, m, 1)], None)
    };
    let x = b.input(LEN, 1);
    let y = window(&mut b, x, LEN, 3, 0.31);
    let shortcut = window(&mut b, x, LEN, 5, 0.53);
    b.output(y, Layout::dense(LEN - 2, 1, 1));
    let x = b.input(LEN - 2, 1);
    let y = window(&mut b, x, LEN - 2, 3, 0.77);
    let y = b.push(Op::Add(y, shortcut));
    b.output(y, Layout::dense(LEN - 4, 1, 1));
    let step = |op, operands: &[u32], len| ClientStep { op, operands: operands.to_vec(), shape: vec![1, len] };
    let relu = ClientOp::Function(Activation::Relu);
    let result = ClientResult { name: "y".into(), step: 3, range: (-2.0, 2.0), error_std: 1e-6, postprocess: vec![] };
    b.aided(Aided {
        rounds: 2,
        network_inputs: 1,
        steps: vec![
            step(ClientOp::Given(0), &[], LEN),
            step(ClientOp::Received(0), &[], LEN - 2),
            step(relu, &[1], LEN - 2),
            step(ClientOp::Received(1), &[], LEN - 4),
        ],
        sends: vec![Send { step: 0, round: 0 }, Send { step: 2, round: 1 }],
        receives: vec![0, 1],
        results: vec![result],
    });
    b.verified()
});

/// A configuration in whose memory no whole round fits.
fn tight(folder: &Path) -> Config {
    let plan = &*LINE;
    let schedule = Schedule::of(plan.plan(), plan.facts()).expect("batched");
    let whole = plan.facts().peak_register_bytes();
    let memory = schedule.least() + schedule.own_bytes() + (16 << 20);
    assert!(memory + (4 << 20) < whole, "{memory} of {whole}");
    Config { memory, spill: folder.join("spill"), requests: 4, ..config(folder) }
}

fn serve(config: Config) -> (Running, Connection) {
    let service = Service::open(Arc::clone(&LINE), config, plans::token()).expect("service");
    let server = Running::start(service, "127.0.0.1:0", None).expect("starts");
    let connection = connect(server.address());
    (server, connection)
}

/// What a round sends: some values of some images.
fn payload(person: &mut Person, round: u32) -> Vec<u8> {
    let len = LEN - 2 * round as usize;
    let images: Vec<Vec<f64>> = (0..IMAGES).map(|i| plans::pseudo(len, 0.3 + f64::from(round) + i as f64)).collect();
    let images: Vec<&[f64]> = images.iter().map(Vec::as_slice).collect();
    let key = EncryptionKey::Secret(&person.secret);
    let bundle = person.client.encrypt_input(round as usize, &images, key, &mut person.rng).expect("encrypts");
    bytes(person, &bundle)
}

fn bytes(person: &Person, bundle: &[BundleEntry]) -> Vec<u8> {
    let mut payload = Vec::new();
    write_ciphertexts(bundle, person.client.context(), LINE.hash(), &mut payload).expect("writes");
    payload
}

fn frame(person: &Person, request: RequestId, round: u32, payload: &[u8]) -> Frame {
    Frame { round, rounds: 2, batch: IMAGES as u32, ..person.frame(request, payload) }
}

fn ask(connection: &Connection, frame: &Frame, payload: &[u8]) -> Result<Vec<u8>, ClientError> {
    connection.request(frame, payload, 1 << 30, &mut |_| ()).map(|(_, answer)| answer)
}

#[track_caller]
fn refused(connection: &Connection, frame: &Frame, payload: &[u8]) -> Code {
    match ask(connection, frame, payload) {
        Err(ClientError::Refused(refusal)) => refusal.code,
        other => panic!("{:?}", other.map(|answer| answer.len())),
    }
}

/// Temporary files in a folder that this process has open.
fn open_files(folder: &Path) -> usize {
    assert_eq!(std::fs::read_dir(folder).expect("lists").count(), 0, "no file has a name");
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let name = folder.display().to_string();
    let files = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    files.filter(|file| file.starts_with(folder)).count() + maps.lines().filter(|l| l.contains(&name)).count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_batch_that_does_not_fit_gives_the_same_bits_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let spill = folder.path().join("spill");
    assert!(matches!(
        Service::open(Arc::clone(&LINE), tight(folder.path()), plans::token()),
        Err(ServeError::File { path, .. }) if path == spill
    ));
    std::fs::create_dir(&spill).expect("folder");
    let few = Config { spill_bytes: 1 << 20, ..tight(folder.path()) };
    assert!(matches!(Service::open(Arc::clone(&LINE), few, plans::token()), Err(ServeError::Spill { .. })));
    let (small, tight) = serve(tight(folder.path()));
    let (_large, roomy) = serve(Config { keys: folder.path().join("large"), ..config(folder.path()) });
    let mut person = Person::new(&LINE, 1);
    let requests: Vec<RequestId> = (0..2).map(|_| random_request().expect("random")).collect();
    for connection in [&tight, &roomy] {
        person.upload(connection);
    }
    for round in 0..2 {
        for &request in &requests {
            let payload = payload(&mut person, round);
            let frame = frame(&person, request, round, &payload);
            let expected = ask(&roomy, &frame, &payload).expect("answer");
            assert!(expected.len() > 1 << 20 && ask(&tight, &frame, &payload).expect("answer") == expected);
            // The same again is the same request, another one under its name is not.
            assert!(ask(&tight, &frame, &payload).expect("answer") == expected);
            let other = bytes(&person, &[]);
            let conflict = Frame { payload: other.len() as u64, ..frame };
            assert_eq!(refused(&tight, &conflict, &other), Code::Conflict);
        }
        let kept = metric(small.address(), "fhec_kept_bytes");
        assert_eq!(kept > 0.0, round == 0, "the shortcuts of both live on: {kept}");
    }
    assert!(open_files(&spill) > 0, "answers are kept there");
    requests.iter().for_each(|&request| tight.forget(person.id, request));
    wait_until("temporary files are gone", || open_files(&spill) == 0);

    // What is no bundle of the round costs the request, and nobody else.
    let request = random_request().expect("random");
    let first = payload(&mut person, 0);
    let mut damaged = first.clone();
    damaged[first.len() / 2] ^= 1;
    let second = payload(&mut person, 1);
    for bad in [damaged, bytes(&person, &[]), second.clone(), first[..first.len() - 8].to_vec()] {
        assert_eq!(refused(&tight, &frame(&person, request, 0, &bad), &bad), Code::Refused);
        tight.forget(person.id, request);
    }
    assert_eq!(refused(&tight, &frame(&person, request, 1, &second), &second), Code::UnknownRequest);
    assert!(ask(&tight, &frame(&person, request, 0, &first), &first).is_ok());
    tight.forget(person.id, request);
    wait_until("temporary files are gone", || open_files(&spill) == 0);
    assert_eq!(metric(small.address(), "fhec_panics_total"), 0.0);
}

#[test]
fn a_client_that_vanishes_in_an_upload_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let spill = folder.path().join("spill");
    std::fs::create_dir(&spill).expect("folder");
    let (server, connection) = serve(tight(folder.path()));
    let mut person = Person::new(&LINE, 2);
    person.upload(&connection);
    let payload = payload(&mut person, 0);
    let request = random_request().expect("random");
    let frame = frame(&person, request, 0, &payload);
    let message = http("POST", "/v1/requests", &[&frame.to_bytes()[..], &payload].concat());
    let mut streams = Vec::new();
    for part in [1 << 10, message.len() / 2, message.len() - 1] {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.write_all(&message[..part]).expect("sends");
        streams.push(stream);
        wait_until("it is being received", || open_files(&spill) > 0);
        streams.clear();
        wait_until("temporary files are gone", || open_files(&spill) == 0);
    }
    assert_eq!(metric(server.address(), "fhec_results"), 0.0);
    assert!(ask(&connection, &frame, &payload).is_ok(), "the name is free");
}
