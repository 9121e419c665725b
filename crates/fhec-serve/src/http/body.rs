//! Bodies of requests, piece by piece, with limits of size and time.

use crate::error::refuse;
use crate::spool::Spool;
use axum::body::{Body, Bytes};
use fhec_protocol::{Code, Refusal};
use http_body_util::BodyExt;
use std::io::Write;
use std::time::Duration;
use tokio::time::Instant;

/// A body that is being received.
pub(super) struct Incoming {
    body: Body,
    stall: Duration,
    /// When all of it must be here.
    end: Option<Instant>,
    /// A piece that was given back.
    rest: Bytes,
}

/// Slowest transfer of what takes up memory, bytes a second.
const SLOWEST: u64 = 32 << 10;

impl Incoming {
    /// A body whose next piece must come within `stall`.
    pub(super) fn new(body: Body, stall: Duration) -> Self {
        Incoming { body, stall, end: None, rest: Bytes::new() }
    }

    /// From here on `len` bytes must come at a reasonable speed.
    pub(super) fn must_end(&mut self, len: u64) {
        self.end = Some(Instant::now() + self.stall + Duration::from_secs(len / SLOWEST));
    }

    /// The next piece; `None` at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let broken = |what: &str| refuse(Code::Malformed, format!("the body ends too early: {what}"));
        loop {
            let until = Instant::now() + self.stall;
            let until = self.end.map_or(until, |end| end.min(until));
            let frame = tokio::time::timeout_at(until, self.body.frame()).await;
            match frame.map_err(|_| broken("it came too slowly"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    // Trailers say nothing.
                    Err(_) => {}
                },
            }
        }
    }

    /// Exactly `len` bytes, which is a length that the caller finds acceptable.
    pub(super) async fn exactly(&mut self, len: usize) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::with_capacity(len.min(1 << 20));
        while out.len() < len {
            let Some(mut piece) = self.piece().await? else {
                return Err(refuse(Code::Malformed, format!("the body ends after {} of {len} bytes", out.len())));
            };
            let take = piece.len().min(len - out.len());
            out.extend_from_slice(&piece.split_to(take));
            self.rest = piece;
        }
        Ok(out)
    }

    /// Exactly `len` bytes, through a temporary file, and their hash.
    pub(super) async fn spooled(&mut self, len: u64, spool: &Spool) -> Result<(Bytes, [u8; 32]), Refusal> {
        /// Bytes that are written at a time.
        const PART: u64 = 1 << 20;
        let no_room = |error: std::io::Error| refuse(Code::Busy, format!("no temporary file: {error}"));
        let mut file = spool.file().map_err(no_room)?;
        let (mut hasher, mut left) = (blake3::Hasher::new(), len);
        while left > 0 {
            let part = self.exactly(left.min(PART) as usize).await?;
            left -= part.len() as u64;
            // A disk may be slow; others are served meanwhile.
            let write = move || {
                hasher.update(&part);
                file.write_all(&part).map(|()| (file, hasher))
            };
            let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other);
            (file, hasher) = written.and_then(|done| done).map_err(no_room)?;
        }
        let bytes = spool.bytes(&file).map_err(no_room)?;
        Ok((bytes, *hasher.finalize().as_bytes()))
    }

    /// Refuses anything that follows.
    pub(super) async fn end(&mut self) -> Result<(), Refusal> {
        match self.piece().await? {
            None => Ok(()),
            Some(_) => Err(refuse(Code::Malformed, "the body goes on after its end")),
        }
    }

    /// Reads what is still coming, up to `limit` bytes, and forgets it: many clients look for an answer only when they have said
    /// all they had to say.
    pub(super) async fn skip(mut self, mut limit: u64) {
        while let Ok(Some(piece)) = self.piece().await {
            match limit.checked_sub(piece.len() as u64) {
                Some(left) => limit = left,
                None => return,
            }
        }
    }
}
