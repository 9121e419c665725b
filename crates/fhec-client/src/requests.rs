//! Requests: sent, waited for, fetched and forgotten.

use crate::connection::{Answer, Connection, Failure};
use crate::error::{ClientError, Result};
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, KeyId, Progress, REQUESTS_PATH, RequestId};
use std::io::Write;
use std::time::Duration;
use ureq::http::{Method, StatusCode};

/// Seconds that an answer may wait for the result.
const WAIT: u64 = 20;

/// A name for a request that nobody guesses.
///
/// # Errors
/// [`ClientError::Random`].
pub fn random_request() -> Result<RequestId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| ClientError::Random(e.to_string()))?;
    Ok(RequestId(bytes))
}

/// What came of asking once.
enum Reply<W> {
    Result(Frame, W),
    Pending(Progress),
}

impl Connection {
    /// Sends one round of a request and waits for its result: a frame and its payload, of at most `largest` bytes. The same frame and
    /// payload may be sent again, by this or another process: the server does the work once.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`Code::UnknownKey`] where the server wants the keys again, or with [`Code::UnknownRequest`] where
    /// it has lost the rounds before this one, and any other [`ClientError`].
    pub fn request(
        &self,
        frame: &Frame,
        payload: &[u8],
        largest: u64,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(Frame, Vec<u8>)> {
        self.request_to(frame, payload, largest, || Ok(Vec::new()), progress)
    }

    /// The same, with the payload of the result written to what `open` makes, empty each time: an answer may have to be fetched again.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`ClientError::Answer`].
    pub fn request_to<W: Write>(
        &self,
        frame: &Frame,
        payload: &[u8],
        largest: u64,
        mut open: impl FnMut() -> std::io::Result<W>,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<(Frame, W)> {
        let mut patience = self.patience();
        let mut sent = false;
        loop {
            let answer = if sent { self.ask(frame) } else { self.submit(frame, payload) };
            let reply = answer.and_then(|answer| reply(answer, frame, largest, &mut open));
            match reply {
                Ok(Reply::Result(result, bytes)) => return Ok((result, bytes)),
                Ok(Reply::Pending(now)) => {
                    sent = true;
                    patience.renew();
                    progress(&now);
                }
                // It ends, has restarted, or had to forget. What came of earlier rounds is gone with the request, so those cannot be
                // taken up again here.
                Err(Failure::Final(ClientError::Refused(refusal)))
                    if frame.round == 0 && refusal.code == Code::UnknownRequest =>
                {
                    sent = false;
                    let failure = Failure::Later(ClientError::Refused(refusal), Some(Duration::ZERO));
                    self.wait(&mut patience, failure)?;
                }
                Err(failure) => self.wait(&mut patience, failure)?,
            }
        }
    }

    /// Tells the server that a request need not be kept. It would be forgotten anyway, later.
    pub fn forget(&self, key: KeyId, request: RequestId) {
        // Nothing depends on it.
        let _ = self.delete(&format!("{REQUESTS_PATH}/{key}/{request}"));
    }

    fn submit(&self, frame: &Frame, payload: &[u8]) -> Result<Answer, Failure> {
        let path = format!("{REQUESTS_PATH}?wait={WAIT}");
        self.send_bytes(Method::POST, &path, &[&frame.to_bytes(), payload])
    }

    fn ask(&self, frame: &Frame) -> Result<Answer, Failure> {
        let Frame { key, request, round, .. } = frame;
        self.get(&format!("{REQUESTS_PATH}/{key}/{request}/{round}?wait={WAIT}"))
    }
}

/// The result in an answer, checked against the request as far as bytes can be.
fn reply<W: Write>(
    answer: Answer,
    sent: &Frame,
    largest: u64,
    open: &mut impl FnMut() -> std::io::Result<W>,
) -> Result<Reply<W>, Failure> {
    if answer.status == StatusCode::ACCEPTED {
        return Ok(Reply::Pending(answer.json()?));
    }
    let wrong = |what: String| Failure::Final(ClientError::Protocol(what));
    let kind = if sent.round + 1 == sent.rounds { FrameKind::Outputs } else { FrameKind::Values };
    let mut frame = *sent;
    let check = |head: &[u8; HEADER_LEN]| -> Result<W, Failure> {
        frame = Frame::read(head).map_err(|e| wrong(e.to_string()))?;
        if frame != (Frame { kind, payload: frame.payload, ..*sent }) {
            return Err(wrong("the result of another request".into()));
        }
        Ok(open().map_err(ClientError::Answer)?)
    };
    let (payload, len) = answer.split(largest, check)?;
    if len != frame.payload {
        return Err(wrong(format!("a result of {len} bytes instead of {}", frame.payload)));
    }
    Ok(Reply::Result(frame, payload))
}
