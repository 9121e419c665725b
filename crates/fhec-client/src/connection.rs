//! Requests of HTTP and their answers.

use crate::error::{ClientError, Result};
use crate::patience::Patience;
use fhec_protocol::{BINARY, Code, LIMITS_PATH, Limits, PLAN_PATH, Refusal, VERSION};
use rustls::crypto::ring;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

/// Most bytes of the head of a plan.
const MAX_HEAD: u64 = 256 << 20;
/// Most bytes of an answer in JSON.
const MAX_JSON: u64 = 64 << 10;

/// How to reach a server.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Certificates to trust, in PEM; those of the system where none are given.
    pub roots: Option<&'a [u8]>,
    /// How long to try again without any success.
    pub patience: Duration,
    /// Told why the client waits.
    pub notice: fn(&str),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { roots: None, patience: Duration::from_secs(60), notice: |_| () }
    }
}

/// A server, and how to reach it. May be used by several threads at a time.
#[derive(Clone, Debug)]
pub struct Connection {
    agent: Agent,
    base: String,
    patience: Duration,
    notice: fn(&str),
}

/// What an attempt came to that gave no answer.
pub(crate) enum Failure {
    /// It may go better later, in the time given if one is.
    Later(ClientError, Option<Duration>),
    /// It will not.
    Final(ClientError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Final(error)
    }
}

/// An answer that is no refusal.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: Body,
}

impl Answer {
    /// The whole body, of at most `limit` bytes.
    pub(crate) fn bytes(mut self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        let mut reader = self.body.as_reader().take(limit + 1);
        reader.read_to_end(&mut out).map_err(|e| Failure::Later(ClientError::Unreachable(e.to_string()), None))?;
        if out.len() as u64 > limit {
            return Err(ClientError::Protocol(format!("an answer of more than {limit} bytes")).into());
        }
        Ok(out)
    }

    /// The first `N` bytes of the body, and the rest, of at most `limit` bytes, into what `open` makes for these bytes; also the length of the rest.
    pub(crate) fn split<const N: usize, W: Write>(
        mut self,
        limit: u64,
        open: impl FnOnce(&[u8; N]) -> Result<W, Failure>,
    ) -> Result<(W, u64), Failure> {
        let broken = |e: std::io::Error| Failure::Later(ClientError::Unreachable(e.to_string()), None);
        let mut reader = self.body.as_reader();
        let (mut head, mut have) = ([0; N], 0);
        while have < N {
            match reader.read(&mut head[have..]).map_err(broken)? {
                0 => return Err(ClientError::Protocol(format!("an answer of {have} bytes")).into()),
                n => have += n,
            }
        }
        let mut out = open(&head)?;
        let (mut piece, mut len) = (vec![0; 1 << 16], 0);
        loop {
            let read = reader.read(&mut piece).map_err(broken)?;
            if read == 0 {
                break;
            }
            len += read as u64;
            if len > limit {
                return Err(ClientError::Protocol(format!("an answer of more than {limit} bytes")).into());
            }
            out.write_all(&piece[..read]).map_err(ClientError::Answer)?;
        }
        out.flush().map_err(ClientError::Answer)?;
        Ok((out, len))
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let bytes = self.bytes(MAX_JSON)?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Protocol(e.to_string()).into())
    }
}

impl Connection {
    /// A server at an address such as `https://example.org:8443`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Address`], and [`ClientError::Certificates`] where there is nothing to trust.
    pub fn new(address: &str, options: &Options<'_>) -> Result<Self> {
        let base = address.trim_end_matches('/').to_owned();
        let scheme = base.split_once("://").filter(|(_, host)| !host.is_empty()).map(|(scheme, _)| scheme);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("fhec/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(15)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_per_read(Some(Duration::from_secs(90)))
            .timeout_per_write(Some(Duration::from_secs(90)));
        match scheme {
            Some("http") => {}
            Some("https") => config = config.tls_config(tls(options.roots)?),
            _ => return Err(ClientError::Address(format!("'{address}' is no address like http://HOST:PORT"))),
        }
        let agent = config.build().new_agent();
        Ok(Connection { agent, base, patience: options.patience, notice: options.notice })
    }

    /// The head of the plan that is served.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan_head(&self) -> Result<Vec<u8>> {
        self.insist(|| self.get(PLAN_PATH)?.bytes(MAX_HEAD))
    }

    /// What the server takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn limits(&self) -> Result<Limits> {
        let limits: Limits = self.insist(|| self.get(LIMITS_PATH)?.json())?;
        if limits.protocol != VERSION {
            let message = format!("version {} of it; version {VERSION} is spoken here", limits.protocol);
            return Err(ClientError::Protocol(message));
        }
        Ok(limits)
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.patience)
    }

    /// Waits after a failure that may pass.
    pub(crate) fn wait(&self, patience: &mut Patience, failure: Failure) -> Result<()> {
        match failure {
            Failure::Final(error) => Err(error),
            Failure::Later(error, asked) => {
                let why = error.to_string();
                let pause = patience.next(asked, error)?;
                (self.notice)(&format!("{why}; trying again in {:.1} s", pause.as_secs_f64()));
                std::thread::sleep(pause);
                Ok(())
            }
        }
    }

    /// Tries until it succeeds or patience runs out.
    pub(crate) fn insist<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut patience = self.patience();
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(&mut patience, failure)?,
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, SendBody::none())
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::DELETE, path, SendBody::none())
    }

    /// Sends a body of known length.
    pub(crate) fn send_bytes(&self, method: Method, path: &str, parts: &[&[u8]]) -> Result<Answer, Failure> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut reader: Box<dyn Read + '_> = Box::new(std::io::empty());
        for part in parts {
            reader = Box::new(reader.chain(*part));
        }
        let body = SendBody::from_reader(&mut reader);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::CONTENT_TYPE, BINARY)
            .header(header::CONTENT_LENGTH, len);
        self.run(request, body)
    }

    fn send(&self, method: Method, path: &str, body: SendBody<'_>) -> Result<Answer, Failure> {
        self.run(Request::builder().method(method).uri(format!("{}{path}", self.base)), body)
    }

    fn run(&self, request: ureq::http::request::Builder, body: SendBody<'_>) -> Result<Answer, Failure> {
        let request = request.body(body).map_err(|e| ClientError::Address(e.to_string()))?;
        let response = self.agent.run(request).map_err(failure)?;
        answer(response)
    }
}

/// What an error of the connection means.
fn failure(error: ureq::Error) -> Failure {
    let text = error.to_string();
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::HostNotFound => ClientError::Address(text).into(),
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::Pem(_) => ClientError::Certificates(text).into(),
        // How a refused certificate shows.
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => ClientError::Certificates(text).into(),
        _ => Failure::Later(ClientError::Unreachable(text), None),
    }
}

/// Sorts refusals out.
fn answer(response: Response<Body>) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let answer = Answer { status: head.status, body };
    if head.status.is_success() {
        return Ok(answer);
    }
    let bytes = answer.bytes(MAX_JSON)?;
    let refusal = serde_json::from_slice::<Refusal>(&bytes);
    let temporary = matches!(head.status.as_u16(), 429 | 502 | 503 | 504);
    let asked = head.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    match refusal {
        Ok(refusal) if matches!(refusal.code, Code::Busy | Code::Limited | Code::Ending) => {
            Err(Failure::Later(ClientError::Refused(refusal), asked.map(Duration::from_secs)))
        }
        Ok(refusal) => Err(ClientError::Refused(refusal).into()),
        // Something between client and server answers.
        Err(_) => {
            let error = ClientError::Protocol(format!("status {}", head.status));
            Err(if temporary { Failure::Later(error, asked.map(Duration::from_secs)) } else { error.into() })
        }
    }
}

/// Trust in the certificates given, or in those of the system.
fn tls(roots: Option<&[u8]>) -> Result<TlsConfig> {
    let roots: Vec<Certificate<'static>> = match roots {
        Some(pem) => parse_pem(pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(e) => Some(Err(ClientError::Certificates(e.to_string()))),
            })
            .collect::<Result<_>>()?,
        None => {
            let system = rustls_native_certs::load_native_certs();
            system.certs.iter().map(|c| Certificate::from_der(c.as_ref()).to_owned()).collect()
        }
    };
    if roots.is_empty() {
        return Err(ClientError::Certificates("there is none to trust; name those of the server".into()));
    }
    let provider = Arc::new(ring::default_provider());
    let builder = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots));
    Ok(builder.unversioned_rustls_crypto_provider(provider).build())
}
