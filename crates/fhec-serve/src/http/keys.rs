//! Evaluation keys: what is there, and more of it.

use super::body::Incoming;
use super::{Shared, json, refusal};
use crate::error::refuse;
use crate::keys::{Begin, Ticket};
use crate::service::Service;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Response, StatusCode};
use fhec_protocol::{Code, KeyId, KeyStatus, Refusal};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `GET /v1/keys/KEY`.
pub(super) async fn status(State(service): Shared, Path(key): Path<String>) -> Response<Body> {
    let status = parse(&key).and_then(|id| service.keys.status(id));
    match status {
        Ok(status) => json(StatusCode::OK, &status),
        Err(error) => refusal(&service, error),
    }
}

fn parse(key: &str) -> Result<KeyId, Refusal> {
    key.parse().map_err(|e| refuse(Code::Malformed, format!("key: {e}")))
}

/// Where an upload goes on.
#[derive(Deserialize)]
pub(super) struct Place {
    offset: Option<u64>,
}

/// `PUT /v1/keys/KEY?offset=N`.
pub(super) async fn upload(
    State(service): Shared,
    Path(key): Path<String>,
    place: Result<Query<Place>, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Response<Body> {
    let offset = match place {
        Ok(Query(place)) => place.offset.unwrap_or(0),
        Err(error) => return refusal(&service, refuse(Code::Malformed, error.to_string())),
    };
    let mut body = Incoming::new(body, service.config.stall);
    match receive(&service, &key, offset, &mut body).await {
        Ok(status) => {
            body.skip(service.keys.size()).await;
            json(StatusCode::OK, &status)
        }
        Err(error) => {
            body.skip(service.keys.size()).await;
            refusal(&service, error)
        }
    }
}

async fn receive(service: &Arc<Service>, key: &str, offset: u64, body: &mut Incoming) -> Result<KeyStatus, Refusal> {
    let id = parse(key)?;
    if service.is_ending() {
        return Err(refuse(Code::Ending, "the server ends"));
    }
    let owner = Arc::clone(service);
    let ticket = match blocking(move || owner.keys.begin(id, offset)).await? {
        Begin::Complete(status) => return Ok(status),
        Begin::Append(ticket) => Arc::new(ticket),
    };
    // Written in large pieces; what has come when a connection breaks is written as well.
    const PIECE: usize = 128 << 10;
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        let piece = body.piece().await;
        if let Ok(Some(piece)) = &piece {
            service.metrics.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            buffer.extend_from_slice(piece);
        }
        let last = !matches!(piece, Ok(Some(_)));
        if (last && !buffer.is_empty()) || buffer.len() >= PIECE {
            append(service, &ticket, std::mem::replace(&mut buffer, Vec::with_capacity(PIECE))).await?;
        }
        if last {
            piece?;
            return service.keys.status(id);
        }
    }
}

async fn append(service: &Arc<Service>, ticket: &Arc<Ticket>, bytes: Vec<u8>) -> Result<(), Refusal> {
    let (owner, ticket) = (Arc::clone(service), Arc::clone(ticket));
    blocking(move || {
        if owner.keys.append(&ticket, &bytes)? {
            owner.requests.submit_check(ticket.id);
        }
        Ok(())
    })
    .await
}

/// Does what touches the disk on a thread that may wait for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(refuse(Code::Failed, "the upload failed")))
}
