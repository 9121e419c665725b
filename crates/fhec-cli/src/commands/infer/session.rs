//! Requests of one command to one server.

use super::samples::Samples;
use crate::commands::results::finish;
use crate::files::{self, status};
use crate::format;
use crate::keys;
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use fhec_ckks::SecretKey;
use fhec_client::{ClientError, Connection, random_request};
use fhec_plan::{Aided, Output, PlanHead};
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, KeyId, RequestId};
use fhec_runtime::{EncryptionKey, Play};
use rayon::prelude::*;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What came of one request.
pub(super) struct Answer {
    /// By sample.
    pub(super) values: Vec<Vec<f64>>,
    pub(super) seconds: f64,
    /// The part of it that the client worked.
    pub(super) own_seconds: f64,
    pub(super) sent: usize,
    pub(super) received: usize,
}

/// A request of several rounds. However it ends, the server need not keep what waits for its next round.
pub(super) struct UnderWay<'a> {
    pub(super) connection: &'a Connection,
    pub(super) key: KeyId,
    pub(super) request: RequestId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.connection.forget(self.key, self.request);
    }
}

/// Everything that evaluating samples takes.
pub(super) struct Session<'a> {
    pub(super) connection: Connection,
    pub(super) head: &'a PlanHead,
    /// Outputs of the network.
    pub(super) outputs: &'a [Output],
    pub(super) client: keys::Client,
    pub(super) secret: SecretKey,
    pub(super) eval_keys: PathBuf,
    pub(super) key: KeyId,
    /// Held while keys are uploaded: one upload is enough.
    pub(super) uploading: Mutex<()>,
    pub(super) output: usize,
    pub(super) raw: bool,
    /// Memory for everything under way.
    pub(super) memory: u64,
    /// Where temporary files go.
    pub(super) folder: PathBuf,
}

/// Whether the server no longer knows a request of which it has evaluated rounds.
fn is_lost(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.code == Code::UnknownRequest)
}

impl Session<'_> {
    /// Makes sure that the server has the keys; returns the bytes that had to be sent.
    pub(super) fn upload(&self) -> Result<u64> {
        let named = || self.eval_keys.display().to_string();
        let mut file = File::open(&self.eval_keys).with_context(named)?;
        let progress = Progress::new("uploading keys");
        let mut show = |have: u64, all: u64| progress.set(have as usize, all as usize);
        let sent = self.connection.upload_keys(self.key, &mut file, &mut show).with_context(named)?;
        if sent > 0 {
            let seconds = progress.elapsed().as_secs_f64();
            drop(progress);
            status(&format!("{} of keys uploaded in {}", format::bytes(sent), format::seconds(seconds)));
        }
        Ok(sent)
    }

    /// Evaluates all samples, `parallel` requests at a time; results come in the order of the samples. A plan in throughput
    /// mode takes as many samples in one request as a ciphertext has slots.
    pub(super) fn all(&self, samples: &Samples, parallel: usize) -> Result<Vec<Answer>> {
        let (batch, count) = (self.head.batch(), samples.len());
        let requests: Vec<Range<usize>> =
            (0..count).step_by(batch).map(|first| first..count.min(first + batch)).collect();
        let parallel = parallel.min(requests.len());
        let memory = self.memory / parallel.max(1) as u64;
        let progress = Progress::new("evaluating");
        let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || -> Result<Vec<(usize, Answer)>> {
            let mut answers = Vec::new();
            // After a failure the others need not begin anything more.
            while failed.load(Ordering::Relaxed) == 0 {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(range) = requests.get(i) else { break };
                let mut show = |now: &fhec_protocol::Progress| {
                    // Of a single request, how far its evaluation is.
                    if requests.len() == 1 {
                        progress.set(now.done, now.total);
                    }
                };
                let answer = self.one(samples, range.clone(), memory, &mut show).inspect_err(|_| {
                    failed.fetch_add(1, Ordering::Relaxed);
                });
                answers.push((i, answer.with_context(|| format!("sample {}", i * batch))?));
                progress.set(done.fetch_add(1, Ordering::Relaxed) + 1, requests.len());
            }
            Ok(answers)
        };
        let parts: Vec<Result<Vec<(usize, Answer)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread failed")))).collect()
        });
        let mut answers: Vec<(usize, Answer)> =
            parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        answers.sort_by_key(|(i, _)| *i);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Encrypts samples together, waits for their results and decrypts them, with `memory` bytes for them all.
    fn one(
        &self,
        samples: &Samples,
        range: Range<usize>,
        memory: u64,
        show: &mut dyn FnMut(&fhec_protocol::Progress),
    ) -> Result<Answer> {
        /// A server that loses a request more often is not one to wait for.
        const TIMES: usize = 3;
        let large = self.is_large(range.len(), memory);
        let whole = if large { vec![] } else { samples.get(range.clone())? };
        for _ in 0..TIMES {
            let outcome = match &self.head.aided {
                _ if large => self.streamed(samples, range.clone(), memory, show),
                Some(aided) => self.in_rounds(aided, &whole, show),
                None => return self.at_once(&whole, show),
            };
            match outcome {
                // What the rounds before had left is gone, so that there is nothing to go on from.
                Err(e) if e.downcast_ref::<ClientError>().is_some_and(is_lost) => {
                    files::warn("the server has lost a request; sending it again")
                }
                other => return other,
            }
        }
        bail!("the server has lost the request {TIMES} times")
    }

    /// All of a plan of one round.
    fn at_once(&self, samples: &[Vec<Vec<f64>>], show: &mut dyn FnMut(&fhec_protocol::Progress)) -> Result<Answer> {
        let begin = Instant::now();
        let bundle = self.client.encrypt(samples, EncryptionKey::Secret(&self.secret))?;
        let mut payload = Vec::new();
        self.client.write_ciphertexts(&bundle, &mut payload)?;
        drop(bundle);
        let frame = self.frame(random_request()?, 0, samples.len(), payload.len())?;
        let asked = Instant::now();
        let result = self.request(&frame, &payload, || Ok(Vec::new()), show)?;
        let waited = asked.elapsed();
        let values = self.client.decrypt_bytes(&self.secret, &result, self.output)?;
        self.connection.forget(frame.key, frame.request);
        let output = &self.outputs[self.output];
        Ok(Answer {
            values: values.into_iter().map(|v| finish(output, v, self.raw)).collect(),
            seconds: begin.elapsed().as_secs_f64(),
            own_seconds: (begin.elapsed() - waited).as_secs_f64(),
            sent: HEADER_LEN + payload.len(),
            received: HEADER_LEN + result.len(),
        })
    }

    /// Plays all rounds of a client-aided plan.
    fn in_rounds(
        &self,
        aided: &Aided,
        samples: &[Vec<Vec<f64>>],
        show: &mut dyn FnMut(&fhec_protocol::Progress),
    ) -> Result<Answer> {
        let (begin, mut waited) = (Instant::now(), Duration::ZERO);
        let (mut sent, mut received) = (0, 0);
        let request = random_request()?;
        let under_way = UnderWay { connection: &self.connection, key: self.key, request };
        let of = |sample: &Vec<Vec<f64>>| Ok(Play::new(aided, &self.head.inputs, sample)?);
        let mut plays = samples.iter().map(of).collect::<Result<Vec<_>>>()?;
        for round in 0..aided.rounds {
            plays.par_iter_mut().for_each(|play| play.advance(round));
            let bundle = self.client.encrypt_round(&plays, round, EncryptionKey::Secret(&self.secret))?;
            let mut payload = Vec::new();
            self.client.write_ciphertexts(&bundle, &mut payload)?;
            drop(bundle);
            let frame = self.frame(request, round, samples.len(), payload.len())?;
            let asked = Instant::now();
            let answer = self.request(&frame, &payload, || Ok(Vec::new()), show)?;
            waited += asked.elapsed();
            sent += HEADER_LEN + payload.len();
            received += HEADER_LEN + answer.len();
            if let Some(warning) = self.client.receive_round(&self.secret, &answer, round, &mut plays)? {
                files::warn(&warning);
            }
            show(&fhec_protocol::Progress {
                state: fhec_protocol::RequestState::Running,
                done: round as usize + 1,
                total: aided.rounds as usize,
            });
        }
        drop(under_way);
        plays.par_iter_mut().for_each(|play| play.advance(aided.rounds));
        let output = &self.outputs[self.output];
        let value = |play: &Play<'_>| Ok(finish(output, play.result(self.output)?.to_vec(), self.raw));
        Ok(Answer {
            values: plays.iter().map(value).collect::<Result<_>>()?,
            seconds: begin.elapsed().as_secs_f64(),
            own_seconds: (begin.elapsed() - waited).as_secs_f64(),
            sent,
            received,
        })
    }

    /// The header of one round.
    pub(super) fn frame(&self, request: RequestId, round: u32, samples: usize, payload: usize) -> Result<Frame> {
        Ok(Frame {
            kind: FrameKind::Inputs,
            round,
            rounds: self.head.rounds(),
            batch: u32::try_from(samples)?,
            plan: self.head.hash,
            key: self.key,
            request,
            payload: payload as u64,
        })
    }

    /// Sends a request, and the keys again where the server has them no more. The payload of the answer goes to what `open` makes.
    pub(super) fn request<W: Write>(
        &self,
        frame: &Frame,
        payload: &[u8],
        mut open: impl FnMut() -> std::io::Result<W>,
        show: &mut dyn FnMut(&fhec_protocol::Progress),
    ) -> Result<W> {
        /// A server that forgets keys more often is not one to wait for.
        const TIMES: usize = 5;
        for _ in 0..TIMES {
            let largest = self.client.output_bytes(frame.round);
            match self.connection.request_to(frame, payload, largest, &mut open, show) {
                Ok((_, result)) => return Ok(result),
                Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownKey => {
                    // A panic of another thread is no reason not to upload.
                    let _turn = self.uploading.lock().unwrap_or_else(PoisonError::into_inner);
                    self.upload()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the server has forgotten the evaluation keys {TIMES} times")
    }
}
