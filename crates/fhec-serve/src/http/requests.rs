//! Requests: sent, asked for, forgotten.

use super::body::Incoming;
use super::{Shared, binary, json, refusal};
use crate::error::{refuse, refused};
use crate::requests::{Answer, Name};
use crate::service::Service;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse;
use fhec_ckks::container::{Header, Kind};
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, NameError, Refusal, hex};
use hyper::body::SizeHint;
use serde::Deserialize;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest wait for a result in one answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long an answer may wait for the result.
#[derive(Deserialize)]
pub(super) struct Patience {
    wait: Option<u64>,
}

type Wait = Result<Query<Patience>, QueryRejection>;

fn patience(wait: Wait) -> Result<Duration, Refusal> {
    let Query(patience) = wait.map_err(|e| refuse(Code::Malformed, e.to_string()))?;
    Ok(Duration::from_secs(patience.wait.unwrap_or(0)).min(LONGEST_WAIT))
}

/// `POST /v1/requests?wait=S`.
pub(super) async fn submit(State(service): Shared, wait: Wait, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut body = Incoming::new(body, service.config.stall);
    let taken = async {
        let wait = patience(wait)?;
        Ok((receive(&service, &headers, &mut body).await?, wait))
    };
    let answer = match taken.await {
        Ok((frame, wait)) => result(&service, (frame.key, frame.request), frame.round, wait).await,
        Err(error) => {
            body.skip(service.limits.payload_bytes).await;
            Err(error)
        }
    };
    answer.unwrap_or_else(|error| refusal(&service, error))
}

/// `GET /v1/requests/KEY/REQUEST/ROUND?wait=S`.
pub(super) async fn ask(
    State(service): Shared,
    Path((key, request, round)): Path<(String, String, String)>,
    wait: Wait,
) -> Response<Body> {
    let answer = async {
        let wait = patience(wait)?;
        let round = round.parse().map_err(|_| refuse(Code::Malformed, "round: not a number"))?;
        result(&service, name(&key, &request)?, round, wait).await
    };
    answer.await.unwrap_or_else(|error| refusal(&service, error))
}

/// `DELETE /v1/requests/KEY/REQUEST`.
pub(super) async fn forget(State(service): Shared, Path((key, request)): Path<(String, String)>) -> Response<Body> {
    match name(&key, &request) {
        Ok(name) => {
            service.requests.forget(name);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => refusal(&service, error),
    }
}

fn name(key: &str, request: &str) -> Result<Name, Refusal> {
    let bad = |what: &'static str| move |e: NameError| refuse(Code::Malformed, format!("{what}: {e}"));
    Ok((key.parse().map_err(bad("key"))?, request.parse().map_err(bad("request"))?))
}

/// Receives a frame. What can be refused by its header is refused before its payload takes memory.
async fn receive(service: &Service, headers: &HeaderMap, body: &mut Incoming) -> Result<Frame, Refusal> {
    let most = service.limits.payload_bytes;
    let too_large =
        |found: u64| refuse(Code::TooLarge, format!("a payload of {found} bytes; the plan takes {most} at most"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if let Some(announced) = announced.filter(|&len| len > most + HEADER_LEN as u64) {
        return Err(too_large(announced - HEADER_LEN as u64));
    }
    let frame = Frame::read(&body.exactly(HEADER_LEN).await?).map_err(|e| refuse(Code::Malformed, e.to_string()))?;
    if frame.kind != FrameKind::Inputs {
        return Err(refuse(Code::Malformed, "a server takes frames of inputs only"));
    }
    if hex(&frame.plan) != service.limits.plan {
        return Err(refuse(
            Code::Refused,
            format!("the frame is for plan {}, here is {}", hex(&frame.plan), service.limits.plan),
        ));
    }
    if frame.rounds != service.limits.rounds || frame.batch > service.limits.batch {
        let (rounds, batch) = (service.limits.rounds, service.limits.batch);
        return Err(refuse(Code::Refused, format!("the plan has {rounds} rounds and takes {batch} samples at most")));
    }
    if frame.payload > most {
        return Err(too_large(frame.payload));
    }
    service.keys.use_now(frame.key)?;
    let admission = service.requests.admit(frame)?;
    body.must_end(frame.payload);
    let (payload, digest) = match &service.streamed {
        None => {
            let payload = body.exactly(frame.payload as usize).await?;
            let digest = *blake3::hash(&payload).as_bytes();
            (Bytes::from(payload), digest)
        }
        Some(streamed) => body.spooled(frame.payload, streamed.spool()).await?,
    };
    body.end().await?;
    service.metrics.received.fetch_add(frame.payload, Ordering::Relaxed);
    // All else in it is checked when its turn comes.
    let header = Header::read(&payload).map_err(refused)?;
    if header.kind != Kind::Ciphertexts || header.plan != frame.plan {
        return Err(refuse(
            Code::Refused,
            format!("the payload holds {} of plan {}", header.kind.name(), hex(&header.plan)),
        ));
    }
    service.requests.submit(admission, payload, digest)?;
    Ok(frame)
}

/// The result of a request, or how far it is when the wait is over.
async fn result(service: &Service, name: Name, round: u32, wait: Duration) -> Result<Response<Body>, Refusal> {
    let until = tokio::time::Instant::now() + wait;
    loop {
        let watch = match service.requests.ask(name, round)? {
            Answer::Done(frame) => return Ok(send(service, frame)),
            Answer::Pending(_, watch) => watch,
        };
        let mut changed = std::pin::pin!(watch.changed.notified());
        // From here on no change is missed; one that came just before shows when it is asked for again.
        changed.as_mut().enable();
        let progress = match service.requests.ask(name, round)? {
            Answer::Done(frame) => return Ok(send(service, frame)),
            Answer::Pending(progress, _) => progress,
        };
        // A timer that is over already would still take a moment.
        let over = tokio::time::Instant::now() >= until;
        if over || tokio::time::timeout_at(until, changed).await.is_err() {
            return Ok(json(StatusCode::ACCEPTED, &progress));
        }
    }
}

fn send(service: &Service, frame: Bytes) -> Response<Body> {
    service.metrics.sent.fetch_add(frame.len() as u64, Ordering::Relaxed);
    binary(Body::new(Pieces(frame)))
}

/// A body in pieces, so that none of them needs to be in memory before it is sent.
struct Pieces(Bytes);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        const PIECE: usize = 1 << 20;
        let len = self.0.len().min(PIECE);
        Poll::Ready((len > 0).then(|| Ok(hyper::body::Frame::data(self.0.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
