//! Both parties of a throughput plan whose ciphertexts do not fit memory: an input is encrypted when the server first reads it, an
//! output decrypted when it is made, so that neither party ever has a whole tensor of ciphertexts.

use crate::commands::run::streaming;
use crate::format;
use anyhow::{Result, anyhow};
use fhec_ckks::{Ciphertext, SecretKey};
use fhec_math::SecretRng;
use fhec_plan::stream::Schedule;
use fhec_plan::verify::Verified;
use fhec_runtime::backend::OpResult;
use fhec_runtime::stream::{Sink, Source, Usage};
use fhec_runtime::{Client, EncryptionKey, OpError, Packed, Play, Server, Stream, Streaming};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How runs are evaluated, and what the last one took.
pub(super) struct Streamed {
    schedule: Arc<Schedule>,
    streaming: Streaming,
    usage: Usage,
    client_seconds: f64,
}

impl Streamed {
    pub(super) fn new(verified: &Verified, memory: u64, spill: Option<&Path>) -> Result<Self> {
        let (schedule, streaming) = streaming(verified, memory, spill)?;
        Ok(Streamed { schedule, streaming, usage: Usage::default(), client_seconds: 0.0 })
    }

    /// Outputs of some images, by output and image.
    pub(super) fn run(
        &mut self,
        client: &Client,
        secret: &SecretKey,
        server: &Server,
        rng: &mut SecretRng,
        images: &[Vec<Vec<f64>>],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let (head, begin) = (client.head(), Instant::now());
        let mut stream = Stream::new(&self.schedule, &self.streaming, false)?;
        let mut plays = match &head.aided {
            Some(aided) => {
                let of = |image: &Vec<Vec<f64>>| Play::new(aided, &head.inputs, image);
                images.iter().map(of).collect::<Result<Vec<_>, _>>()?
            }
            None => vec![],
        };
        let (mut outputs, mut evaluated) = (Vec::new(), Duration::ZERO);
        let mut own = Duration::ZERO;
        for round in 0..head.rounds() {
            plays.par_iter_mut().for_each(|play| play.advance(round));
            let mut inputs = Encrypting { client, secret, rng, inputs: BTreeMap::new(), time: Duration::ZERO };
            for index in (0..head.inputs.len()).filter(|&i| head.input_round(i) == round) {
                let values: Vec<&[f64]> = match plays.is_empty() {
                    true => images.iter().map(|image| &image[index][..]).collect(),
                    false => plays.iter().map(|play| play.input(index)).collect::<Result<_, _>>()?,
                };
                inputs.inputs.insert(index, client.pack(index, &values)?);
            }
            let mut received =
                Decrypting { client, secret, images: images.len(), outputs: BTreeMap::new(), time: Duration::ZERO };
            for index in (0..head.outputs.len()).filter(|&i| head.output_round(i) == round) {
                received.outputs.insert(index, vec![Vec::new(); head.outputs[index].layout.ciphertexts]);
            }
            let started = Instant::now();
            stream.round(server.backend(), round, &mut inputs, &mut received, &mut |_| Ok(()))?;
            evaluated += started.elapsed();
            own += inputs.time + received.time;
            drop(inputs);
            for (index, elements) in std::mem::take(&mut received.outputs) {
                let values = client.unpack(index, &elements, images.len())?;
                drop(elements);
                match plays.is_empty() {
                    true => outputs.push(values),
                    false => plays.par_iter_mut().zip(values).for_each(|(play, values)| play.receive(index, &values)),
                }
            }
        }
        if let Some(aided) = &head.aided {
            plays.par_iter_mut().for_each(|play| play.advance(aided.rounds));
            let result = |index| plays.iter().map(|play| Ok(play.result(index)?.to_vec())).collect();
            outputs = (0..aided.results.len()).map(result).collect::<Result<_>>()?;
        }
        self.usage = stream.usage();
        self.client_seconds = (begin.elapsed() - evaluated + own).as_secs_f64();
        Ok(outputs)
    }

    /// For people.
    pub(super) fn as_text(&self) -> String {
        format!(
            ", of it {} for the client; streamed: {} of ciphertexts in memory at once, {} written to disk and {} read back",
            format::seconds(self.client_seconds),
            format::bytes(self.usage.peak),
            format::bytes(self.usage.transfers.written),
            format::bytes(self.usage.transfers.read)
        )
    }

    /// For scripts.
    pub(super) fn as_json(&self) -> serde_json::Value {
        json!({
            "client_seconds": self.client_seconds, "peak_ciphertexts": self.usage.peak,
            "written": self.usage.transfers.written, "read": self.usage.transfers.read,
            "disk": self.usage.transfers.disk,
        })
    }
}

/// Inputs of a round that are encrypted when they are asked for.
struct Encrypting<'a> {
    client: &'a Client,
    secret: &'a SecretKey,
    rng: &'a mut SecretRng,
    inputs: BTreeMap<usize, Packed>,
    time: Duration,
}

impl Source for Encrypting<'_> {
    fn read(&mut self, input: usize, elements: &[u32]) -> OpResult<Vec<Ciphertext>> {
        let begin = Instant::now();
        let failed = |problem: String| OpError::Input(problem);
        let packed =
            self.inputs.get(&input).ok_or_else(|| failed(format!("input {input} belongs to another round")))?;
        let key = EncryptionKey::Secret(self.secret);
        let sent = self.client.encrypt_packed(packed, elements, key, self.rng).map_err(|e| failed(e.to_string()))?;
        let context = self.client.context();
        let found = sent.par_iter().map(|entry| Ok(entry.form.expand(context)?)).collect();
        self.time += begin.elapsed();
        found
    }
}

/// Outputs of a round that are decrypted when they come.
struct Decrypting<'a> {
    client: &'a Client,
    secret: &'a SecretKey,
    images: usize,
    /// By output and ciphertext a value an image.
    outputs: BTreeMap<usize, Vec<Vec<f64>>>,
    time: Duration,
}

impl Sink for Decrypting<'_> {
    fn write(&mut self, output: usize, values: &[(u32, &Ciphertext)]) -> OpResult<()> {
        let begin = Instant::now();
        let ciphertexts: Vec<&Ciphertext> = values.iter().map(|(_, c)| *c).collect();
        let decrypted = self.client.decrypt_elements(&ciphertexts, self.images, self.secret);
        let decrypted = decrypted.map_err(|e| OpError::Input(anyhow!(e).to_string()))?;
        let Some(places) = self.outputs.get_mut(&output) else { return Ok(()) };
        for (&(index, _), values) in values.iter().zip(decrypted) {
            places[index as usize] = values;
        }
        self.time += begin.elapsed();
        Ok(())
    }
}
