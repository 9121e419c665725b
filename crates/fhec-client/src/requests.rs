//! Requests: sent, waited for, fetched and forgotten.

use crate::connection::{Answer, Connection, Failure};
use crate::error::{ClientError, Result};
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, KeyId, Progress, REQUESTS_PATH, RequestId};
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
enum Reply {
    Result(Frame, Vec<u8>),
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
        let mut patience = self.patience();
        let mut sent = false;
        loop {
            let reply = if sent { self.ask(frame, largest) } else { self.submit(frame, payload, largest) };
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

    fn submit(&self, frame: &Frame, payload: &[u8], largest: u64) -> Result<Reply, Failure> {
        let path = format!("{REQUESTS_PATH}?wait={WAIT}");
        let answer = self.send_bytes(Method::POST, &path, &[&frame.to_bytes(), payload])?;
        reply(answer, frame, largest)
    }

    fn ask(&self, frame: &Frame, largest: u64) -> Result<Reply, Failure> {
        let Frame { key, request, round, .. } = frame;
        reply(self.get(&format!("{REQUESTS_PATH}/{key}/{request}/{round}?wait={WAIT}"))?, frame, largest)
    }
}

/// The result in an answer, checked against the request as far as bytes can be.
fn reply(answer: Answer, sent: &Frame, largest: u64) -> Result<Reply, Failure> {
    if answer.status == StatusCode::ACCEPTED {
        return Ok(Reply::Pending(answer.json()?));
    }
    let mut bytes = answer.bytes(largest.saturating_add(HEADER_LEN as u64))?;
    let wrong = |what: String| Failure::Final(ClientError::Protocol(what));
    let frame = Frame::read(&bytes).map_err(|e| wrong(e.to_string()))?;
    let payload = bytes.split_off(HEADER_LEN);
    let kind = if sent.round + 1 == sent.rounds { FrameKind::Outputs } else { FrameKind::Values };
    let expected = Frame { kind, payload: payload.len() as u64, ..*sent };
    if frame != expected {
        return Err(wrong("the result of another request".into()));
    }
    Ok(Reply::Result(frame, payload))
}
