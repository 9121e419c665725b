//! Both parties of a plan whose images share ciphertexts, where tensors do not fit memory: an input is encrypted when the server first reads
//! it, an output decrypted when it is made, so that neither party ever has a whole tensor of ciphertexts, and the client's values go to disk
//! where they do not fit either.

use crate::commands::run::{folder, streaming};
use crate::files;
use crate::format;
use anyhow::{Result, anyhow, bail};
use fhec_ckks::{Ciphertext, SecretKey};
use fhec_math::SecretRng;
use fhec_plan::stream::Schedule;
use fhec_plan::verify::Verified;
use fhec_runtime::backend::OpResult;
use fhec_runtime::stream::{Sink, Source, Usage};
use fhec_runtime::{Batch, Client, EncryptionKey, OpError, Server, Stream, Streaming};
use rayon::prelude::*;
use serde_json::json;
use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How runs are evaluated, and what the last one took.
pub(super) struct Streamed {
    schedule: Arc<Schedule>,
    /// For both parties.
    streaming: Streaming,
    folder: PathBuf,
    usage: Usage,
    values: Usage,
    client_seconds: f64,
}

impl Streamed {
    pub(super) fn new(verified: &Verified, memory: u64, spill: Option<&Path>) -> Result<Self> {
        let (schedule, streaming) = streaming(verified, memory, spill)?;
        let (usage, values) = (Usage::default(), Usage::default());
        Ok(Streamed { schedule, streaming, folder: folder(spill), usage, values, client_seconds: 0.0 })
    }

    /// What the server's ciphertexts and the client's values may take.
    fn shares(&self, client: &Client, images: usize) -> Result<[Streaming; 2]> {
        let (all, least) = (self.streaming.budget, self.schedule.least());
        let (wanted, enough) =
            (Batch::most(client.head(), images), Batch::least(images).min(Batch::most(client.head(), images)));
        let Some(room) = all.checked_sub(least).filter(|&room| room >= enough) else {
            let (needed, all) = (format::bytes(least + enough), format::bytes(all));
            bail!(
                "ciphertexts and the values of {images} images take {needed} at the least, {all} are left for them (--memory)"
            )
        };
        // What goes to disk costs both of them the same.
        let own = wanted.min(room.min(all / 2).max(enough));
        let share = |budget| Streaming { budget, spill: files::spilling(self.folder.clone()) };
        Ok([share(all - own), share(own)])
    }

    /// Outputs of some images, by output and image; `sample` gives an image by its number.
    pub(super) fn run(
        &mut self,
        client: &Client,
        secret: &SecretKey,
        server: &Server,
        rng: &mut SecretRng,
        images: Range<usize>,
        sample: &dyn Fn(usize) -> Result<Vec<Vec<f64>>>,
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let (head, begin) = (client.head(), Instant::now());
        let [ours, theirs] = self.shares(client, images.len())?;
        let mut stream = Stream::new(&self.schedule, &ours, false)?;
        let mut batch = Batch::new(head, images.len(), &theirs)?;
        let group = batch.group();
        for first in images.clone().step_by(group) {
            let some = (first..images.end.min(first + group)).map(sample).collect::<Result<Vec<_>>>()?;
            batch.give(&some)?;
        }
        let batch = RefCell::new(batch);
        let (mut evaluated, mut own) = (Duration::ZERO, Duration::ZERO);
        for round in 0..head.rounds() {
            batch.borrow_mut().advance(round)?;
            let mut inputs = Encrypting { client, secret, rng, batch: &batch, time: Duration::ZERO };
            let mut received = Decrypting { client, secret, images: images.len(), batch: &batch, time: Duration::ZERO };
            let started = Instant::now();
            stream.round(server.backend(), round, &mut inputs, &mut received, &mut |_| Ok(()))?;
            evaluated += started.elapsed();
            own += inputs.time + received.time;
        }
        let mut batch = batch.into_inner();
        batch.advance(head.rounds())?;
        let outputs = (0..head.network_outputs().len()).map(|index| batch.result(index)).collect::<Result<_, _>>()?;
        (self.usage, self.values) = (stream.usage(), batch.usage());
        self.client_seconds = (begin.elapsed() - evaluated + own).as_secs_f64();
        Ok(outputs)
    }

    /// For people.
    pub(super) fn as_text(&self) -> String {
        let usage = |usage: &Usage| {
            let [peak, written, read] = [usage.peak, usage.transfers.written, usage.transfers.read].map(format::bytes);
            format!("{peak} in memory at once, {written} written to disk and {read} read back")
        };
        format!(
            ", of it {} for the client; of ciphertexts {}; of the client's values {}",
            format::seconds(self.client_seconds),
            usage(&self.usage),
            usage(&self.values)
        )
    }

    /// For scripts.
    pub(super) fn as_json(&self) -> serde_json::Value {
        json!({
            "client_seconds": self.client_seconds, "peak_ciphertexts": self.usage.peak,
            "written": self.usage.transfers.written, "read": self.usage.transfers.read,
            "disk": self.usage.transfers.disk,
            "values": {
                "peak": self.values.peak, "written": self.values.transfers.written, "read": self.values.transfers.read,
                "disk": self.values.transfers.disk,
            },
        })
    }
}

fn failed(error: fhec_runtime::RuntimeError) -> OpError {
    OpError::Input(anyhow!(error).to_string())
}

/// Inputs of a round that are encrypted when they are asked for.
struct Encrypting<'a, 'h> {
    client: &'a Client,
    secret: &'a SecretKey,
    rng: &'a mut SecretRng,
    batch: &'a RefCell<Batch<'h>>,
    time: Duration,
}

impl Source for Encrypting<'_, '_> {
    fn read(&mut self, input: usize, elements: &[u32]) -> OpResult<Vec<Ciphertext>> {
        let begin = Instant::now();
        let (mut batch, context) = (self.batch.borrow_mut(), self.client.context());
        let mut found = Vec::with_capacity(elements.len());
        for part in elements.chunks(batch.width()) {
            let values = batch.input(input, part).map_err(failed)?;
            let key = EncryptionKey::Secret(self.secret);
            let sent = self.client.encrypt_elements(input, part, &values, key, self.rng).map_err(failed)?;
            let expanded =
                sent.par_iter().map(|entry| Ok(entry.form.expand(context)?)).collect::<OpResult<Vec<_>>>()?;
            found.extend(expanded);
        }
        self.time += begin.elapsed();
        Ok(found)
    }
}

/// Outputs of a round that are decrypted when they come.
struct Decrypting<'a, 'h> {
    client: &'a Client,
    secret: &'a SecretKey,
    images: usize,
    batch: &'a RefCell<Batch<'h>>,
    time: Duration,
}

impl Sink for Decrypting<'_, '_> {
    fn write(&mut self, output: usize, values: &[(u32, &Ciphertext)]) -> OpResult<()> {
        let begin = Instant::now();
        let mut batch = self.batch.borrow_mut();
        for part in values.chunks(batch.width()) {
            let (places, ciphertexts): (Vec<u32>, Vec<&Ciphertext>) = part.iter().copied().unzip();
            let decrypted = self.client.decrypt_elements(&ciphertexts, self.images, self.secret).map_err(failed)?;
            batch.receive(output, &places, decrypted).map_err(failed)?;
        }
        self.time += begin.elapsed();
        Ok(())
    }
}
