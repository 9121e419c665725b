//! Batches whose values and ciphertexts do not fit memory.

use super::samples::Samples;
use super::session::{Answer, Session, UnderWay};
use crate::commands::results::finish;
use crate::files;
use anyhow::{Context, Result};
use fhec_client::random_request;
use fhec_protocol::HEADER_LEN;
use fhec_runtime::{Batch, Streaming};
use std::io::BufWriter;
use std::ops::Range;
use std::time::{Duration, Instant};

impl Session<'_> {
    /// Whether the values and ciphertexts of so many samples do not fit memory, of a plan of which few can be there at a time.
    pub(super) fn is_large(&self, samples: usize, memory: u64) -> bool {
        let payloads =
            (0..self.head.rounds()).map(|r| self.client.input_bytes(r).max(self.client.output_bytes(r))).max();
        // A bundle is there as ciphertexts and as bytes.
        self.head.is_batched() && Batch::most(self.head, samples).saturating_add(2 * payloads.unwrap_or(0)) > memory
    }

    /// Plays all rounds of a plan whose values and ciphertexts do not fit memory: what is sent and received goes through temporary files.
    pub(super) fn streamed(
        &self,
        samples: &Samples,
        range: Range<usize>,
        memory: u64,
        show: &mut dyn FnMut(&fhec_protocol::Progress),
    ) -> Result<Answer> {
        let (begin, mut waited) = (Instant::now(), Duration::ZERO);
        let (mut sent, mut received, rounds) = (0, 0, self.head.rounds());
        let request = random_request()?;
        let under_way = UnderWay { connection: &self.connection, key: self.key, request };
        let streaming = Streaming { budget: memory, spill: files::spilling(self.folder.clone()) };
        let mut batch = Batch::new(self.head, range.len(), &streaming)?;
        for first in range.clone().step_by(batch.group()) {
            batch.give(&samples.get(first..range.end.min(first + batch.group()))?)?;
        }
        for round in 0..rounds {
            batch.advance(round)?;
            let answer = {
                let mut out = BufWriter::new(files::nameless(&self.folder)?);
                self.client.encrypt_batch_round(&self.secret, &mut batch, round, &mut out)?;
                let file = out.into_inner().map_err(|e| e.into_error()).context("cannot write a temporary file")?;
                let payload = files::map_open(&file, &self.folder)?;
                let payload = (*payload).as_ref();
                let frame = self.frame(request, round, range.len(), payload.len())?;
                let asked = Instant::now();
                let answer = self.request(&frame, payload, || tempfile::tempfile_in(&self.folder), show)?;
                waited += asked.elapsed();
                sent += HEADER_LEN + payload.len();
                answer
            };
            let answer = files::map_open(&answer, &self.folder)?;
            let answer = (*answer).as_ref();
            received += HEADER_LEN + answer.len();
            if let Some(warning) = self.client.receive_batch_round(&self.secret, answer, round, &mut batch)? {
                files::warn(&warning);
            }
            show(&fhec_protocol::Progress {
                state: fhec_protocol::RequestState::Running,
                done: round as usize + 1,
                total: rounds as usize,
            });
        }
        drop(under_way);
        batch.advance(rounds)?;
        let output = &self.outputs[self.output];
        let values = batch.result(self.output)?;
        Ok(Answer {
            values: values.into_iter().map(|v| finish(output, v, self.raw)).collect(),
            seconds: begin.elapsed().as_secs_f64(),
            own_seconds: (begin.elapsed() - waited).as_secs_f64(),
            sent,
            received,
        })
    }
}
