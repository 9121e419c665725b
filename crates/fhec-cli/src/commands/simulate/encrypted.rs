//! A plan over a data set under encryption, all parties in one process: what nobody would deploy, but the only measurement of a
//! plan that leaves nothing out.

use super::streamed::Streamed;
use crate::memory;
use crate::progress::{Progress, Work};
use crate::{data::DataSet, format};
use anyhow::{Context, Result};
use fhec_ckks::SecretKey;
use fhec_math::SecretRng;
use fhec_plan::Aided;
use fhec_plan::verify::Verified;
use fhec_runtime::{Batch, Client, EncryptionKey, Play, Server, postprocess};
use rayon::prelude::*;
use serde_json::json;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Both parties of a plan, with fresh keys.
pub(super) struct Encrypted {
    client: Client,
    secret: SecretKey,
    server: Server,
    rng: SecretRng,
    runs: Vec<f64>,
    peak: Option<u64>,
    /// Where the ciphertexts do not fit memory.
    streamed: Option<Streamed>,
}

impl Encrypted {
    /// Makes the keys, for `count` images and ciphertexts and values that take at most `memory` bytes.
    pub(super) fn new(verified: &Arc<Verified>, count: usize, memory: u64, spill: Option<&Path>) -> Result<Self> {
        let plan = verified.plan();
        let values = || Batch::most(&plan.head(), count.min(plan.batch()));
        let large = plan.is_batched() && verified.facts().peak_register_bytes().saturating_add(values()) > memory;
        let streamed = if large { Some(Streamed::new(verified, memory, spill)?) } else { None };
        memory::keep_freed_of(verified);
        let mut rng = SecretRng::from_os().context("the system gives no random numbers")?;
        let client = Client::new(verified.plan().head(), None)?;
        let secret = client.generate_secret(&mut rng);
        let progress = Progress::new("keys");
        let keys = client.generate_evaluation(&secret, &mut rng, &|done, total| progress.set(done, total))?;
        let budget = verified.plan().report.plaintext_budget.min(memory);
        let server = Server::new(Arc::clone(verified), client.context(), Arc::new(keys), budget)?;
        // What making keys took is nothing of an evaluation's.
        memory::peak();
        Ok(Encrypted { client, secret, server, rng, runs: Vec::new(), peak: None, streamed })
    }

    /// Outputs of the first `count` samples, one after the other; those of one sample joined.
    pub(super) fn evaluate(&mut self, set: &DataSet, count: usize) -> Result<Vec<Vec<f64>>> {
        let work = Work::new("samples");
        let step = self.client.head().batch();
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let (done, last) = (all.len() as f64 / count as f64, self.runs.last().copied());
            let left = |seconds: f64| format::seconds(seconds * (count - all.len()).div_ceil(step) as f64);
            work.set(done, || (String::new(), last.map_or("?".into(), left)));
            all.extend(self.run(set, all.len()..count.min(all.len() + step))?);
        }
        self.peak = memory::peak();
        Ok(all)
    }

    /// Outputs of samples that one run takes, after what is left to the client.
    fn run(&mut self, set: &DataSet, range: Range<usize>) -> Result<Vec<Vec<f64>>> {
        let (head, count) = (self.client.head().clone(), range.len());
        let outputs = match &mut self.streamed {
            Some(streamed) => {
                let begin = Instant::now();
                let (client, secret, server) = (&self.client, &self.secret, &self.server);
                let outputs = streamed.run(client, secret, server, &mut self.rng, range, &|i| set.sample(i))?;
                self.runs.push(begin.elapsed().as_secs_f64());
                outputs
            }
            None => {
                let images = range.map(|i| set.sample(i)).collect::<Result<Vec<_>>>()?;
                match &head.aided {
                    Some(aided) => self.in_rounds(aided, &images)?,
                    None => self.at_once(&images)?,
                }
            }
        };
        let mut own = vec![Vec::new(); count];
        for (values, output) in outputs.into_iter().zip(head.network_outputs()) {
            for (own, mut values) in own.iter_mut().zip(values) {
                postprocess(&output.postprocess, &output.shape, &mut values);
                own.extend(values);
            }
        }
        Ok(own)
    }

    /// By output and image.
    fn at_once(&mut self, images: &[Vec<Vec<f64>>]) -> Result<Vec<Vec<Vec<f64>>>> {
        let inputs = self.client.encrypt_batch(images, EncryptionKey::Secret(&self.secret), &mut self.rng)?;
        let begin = Instant::now();
        let (results, _) = self.server.run(&inputs, &mut |_| {})?;
        self.runs.push(begin.elapsed().as_secs_f64());
        let outputs = 0..self.client.head().outputs.len();
        outputs.map(|index| Ok(self.client.decrypt_batch(index, &results, &self.secret)?)).collect()
    }

    /// The same of a client-aided plan. Its time is that of both parties.
    fn in_rounds(&mut self, aided: &Aided, images: &[Vec<Vec<f64>>]) -> Result<Vec<Vec<Vec<f64>>>> {
        let begin = Instant::now();
        let head = self.client.head();
        let of = |image: &Vec<Vec<f64>>| Ok(Play::new(aided, &head.inputs, image)?);
        let mut plays = images.iter().map(of).collect::<Result<Vec<_>>>()?;
        let mut kept = None;
        for round in 0..aided.rounds {
            plays.par_iter_mut().for_each(|play| play.advance(round));
            let key = EncryptionKey::Secret(&self.secret);
            let bundle = self.client.encrypt_round(&plays, round, key, &mut self.rng)?;
            let answer = self.server.round(round, &mut kept, &bundle, &mut |_| {})?;
            self.client.receive_round(&answer, round, &mut plays, &self.secret)?;
        }
        plays.par_iter_mut().for_each(|play| play.advance(aided.rounds));
        self.runs.push(begin.elapsed().as_secs_f64());
        let result = |index| plays.iter().map(|play| Ok(play.result(index)?.to_vec())).collect();
        (0..aided.results.len()).map(result).collect()
    }

    /// Seconds of all runs, the first of which encodes the weights that are kept.
    fn times(&self) -> Times {
        let mut sorted = self.runs.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0.0);
        Times { least: at(0), median: at(sorted.len() / 2), most: at(sorted.len().saturating_sub(1)) }
    }

    /// Times and memory for people.
    pub(super) fn as_text(&self) -> String {
        let Times { least, median, most } = self.times();
        let threads = format::count(rayon::current_num_threads(), "thread");
        let runs = format::count(self.runs.len(), "run");
        let [least, median, most] = [least, median, most].map(format::seconds);
        let peak = self.peak.map_or(String::new(), |bytes| format!(", peak memory {}", format::bytes(bytes)));
        let streamed = self.streamed.as_ref().map_or(String::new(), Streamed::as_text);
        format!("{runs} on {threads}: median {median}, {least} to {most}{peak}{streamed}")
    }

    /// Times and memory for scripts.
    pub(super) fn as_json(&self) -> serde_json::Value {
        json!({
            "threads": rayon::current_num_threads(), "images_a_run": self.client.head().batch(),
            "seconds": self.runs, "median_seconds": self.times().median, "peak_memory": self.peak,
            "streamed": self.streamed.as_ref().map(Streamed::as_json),
        })
    }
}

/// Seconds of a run.
struct Times {
    least: f64,
    median: f64,
    most: f64,
}
