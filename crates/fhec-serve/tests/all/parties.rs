//! Servers and clients of a small plan. Its parameters protect nothing.

use crate::plans;
use fhec_ckks::SecretKey;
use fhec_ckks::container::{read_ciphertexts, write_ciphertexts, write_evaluation_keys};
use fhec_client::{Connection, Options, key_id, random_request};
use fhec_math::SecretRng;
use fhec_plan::Verified;
use fhec_protocol::{Frame, FrameKind, KeyId, RequestId};
use fhec_runtime::{Client, EncryptionKey};
use fhec_serve::{Config, Running, Service};
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The plan that most tests serve.
pub(crate) static MLP: LazyLock<Arc<Verified>> = LazyLock::new(plans::mlp);

/// A configuration for tests: little of everything.
pub(crate) fn config(folder: &Path) -> Config {
    Config { threads: 2, stall: Duration::from_secs(5), ..Config::new(folder, 256 << 20) }
}

/// Starts a server on a free port.
pub(crate) fn start(config: Config) -> Running {
    start_at(config, "127.0.0.1:0")
}

/// Starts a server on an address.
pub(crate) fn start_at(config: Config, address: &str) -> Running {
    let service = Service::open(Arc::clone(&MLP), config, plans::token()).expect("service");
    Running::start(service, address, None).expect("starts")
}

/// A connection to a server.
pub(crate) fn connect(address: SocketAddr) -> Connection {
    connect_with(&format!("http://{address}"), None)
}

pub(crate) fn connect_with(url: &str, roots: Option<&[u8]>) -> Connection {
    let options = Options { roots, patience: Duration::from_secs(30), ..Options::default() };
    Connection::new(url, &options).expect("address")
}

/// A client with keys of its own.
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) secret: SecretKey,
    pub(crate) keys: Vec<u8>,
    pub(crate) id: KeyId,
    pub(crate) rng: SecretRng,
}

impl Person {
    pub(crate) fn new(verified: &Verified, seed: u8) -> Self {
        let client = Client::new(verified.plan().head(), plans::token()).expect("client");
        let mut rng = SecretRng::from_seed(&[seed; 32]);
        let secret = client.generate_secret(&mut rng);
        let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| ()).expect("keys");
        let mut file = Vec::new();
        write_evaluation_keys(&keys, verified.hash(), &mut file).expect("writes");
        let (id, _) = key_id(&mut &file[..]).expect("reads");
        Person { client, secret, keys: file, id, rng }
    }

    /// Uploads the keys; returns how many bytes had to be sent.
    pub(crate) fn upload(&self, connection: &Connection) -> u64 {
        connection.upload_keys(self.id, &mut Cursor::new(&self.keys), &mut |_, _| ()).expect("uploads")
    }

    /// Random inputs, encrypted: header and payload of a request, and the outputs in the clear.
    pub(crate) fn question(&mut self, seed: f64) -> (Frame, Vec<u8>, Vec<Vec<f64>>) {
        let inputs = plans::inputs(&MLP, seed);
        let bundle =
            self.client.encrypt(&inputs, EncryptionKey::Secret(&self.secret), &mut self.rng).expect("encrypts");
        let mut payload = Vec::new();
        write_ciphertexts(&bundle, self.client.context(), MLP.hash(), &mut payload).expect("writes");
        (self.frame(random_request().expect("random"), &payload), payload, plans::clear(&MLP, &inputs))
    }

    pub(crate) fn frame(&self, request: RequestId, payload: &[u8]) -> Frame {
        let (plan, key) = (self.client.head().hash, self.id);
        let payload = payload.len() as u64;
        Frame { kind: FrameKind::Inputs, round: 0, rounds: 1, batch: 1, plan, key, request, payload }
    }

    /// Decrypts a result.
    pub(crate) fn read(&self, payload: &[u8]) -> Vec<Vec<f64>> {
        let bundle = read_ciphertexts(payload, self.client.context(), &self.client.head().hash).expect("ciphertexts");
        vec![self.client.decrypt_output(0, &bundle, &self.secret).expect("decrypts")]
    }

    /// Asks, waits and compares.
    pub(crate) fn ask(&mut self, connection: &Connection, seed: f64) {
        let (frame, payload, expected) = self.question(seed);
        let (_, result) = connection.request(&frame, &payload, 1 << 20, &mut |_| ()).expect("result");
        let error = plans::distance(&self.read(&result), &expected);
        assert!(error < 1e-6, "{error}");
        connection.forget(frame.key, frame.request);
    }
}

/// Sends bytes over a connection of its own and returns the answer: its status and everything after the headers.
pub(crate) fn raw(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("sets");
    // It may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A request of HTTP after which the connection closes.
pub(crate) fn http(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A figure of the page of metrics.
pub(crate) fn metric(address: SocketAddr, name: &str) -> f64 {
    let (status, page) = raw(address, &http("GET", "/metrics", &[]));
    assert_eq!(status, 200);
    let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("number")
}
