//! `fhec infer`: encrypts inputs, has a server evaluate them, and decrypts what comes back.

use crate::commands::decrypt::{batch_shape, choose, finish, largest, top};
use crate::data::{DataSet, load_inputs, named, names, npy};
use crate::files::{self, Access, print, status};
use crate::format;
use crate::keys::{self, refuse_secret};
use crate::plan_file::{self, short_hash};
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use fhec_ckks::SecretKey;
use fhec_ckks::container::{HEAD_LEN, Header};
use fhec_client::{ClientError, Connection, Options, key_id, random_request};
use fhec_plan::{Aided, Output, PlanHead};
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, KeyId, RequestId};
use fhec_runtime::{EncryptionKey, Play};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Arguments of `fhec infer`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec infer --server http://localhost:8080 --key keys/secret.key seven.png --top 3
  fhec infer --server https://example.org:8443 --ca ca.pem --key keys/secret.key images.npy -o y.npy
  fhec infer --server http://localhost:8080 --key keys/secret.key images.idx.gz --index 7 --json
  fhec infer --server http://localhost:8080 --key keys/secret.key left=a.npy right=b.npy -o y.npy

Inputs are encrypted here, and results decrypted here: the server sees neither, and the secret
key stays in its file. The evaluation keys beside it are uploaded once; an upload that breaks is
continued. A server that is busy or restarts is waited for (--patience).

A client-aided plan takes several rounds: between them this command decrypts, computes what is not
linear, and encrypts again. Values far beyond those that the plan was compiled for are told of.

Reads what 'fhec encrypt' reads, every sample of it, and writes what 'fhec decrypt' writes: one
result as it is, several one after the other along the first axis.")]
pub(crate) struct Infer {
    /// Files with samples, or NAME=FILE once for each input of a model with several
    #[arg(value_name = "[NAME=]FILE", required = true)]
    input: Vec<String>,
    /// Address of the server
    #[arg(long, value_name = "URL")]
    server: String,
    /// The secret key; it is not sent
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The evaluation keys; eval.keys beside the secret key by default
    #[arg(long, value_name = "FILE")]
    eval_keys: Option<PathBuf>,
    /// Certificates to trust, PEM; those of the system by default
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Which sample of files that hold several, counted from 0; all by default
    #[arg(long, value_name = "N")]
    index: Option<usize>,
    /// Where the values go, as a NumPy array of float64
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["top", "json"])]
    output: Option<PathBuf>,
    /// Print the K largest values of each result
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Names of the classes for --top, one a line
    #[arg(long, value_name = "FILE", requires = "top")]
    labels: Option<PathBuf>,
    /// Which output, for a model with several
    #[arg(long, value_name = "NAME")]
    select: Option<String>,
    /// Do not round to the predicted precision
    #[arg(long)]
    raw: bool,
    /// Samples under way at a time
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// How long to try again without success
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = format::parse_duration)]
    patience: Duration,
    /// Print values, times and sizes as JSON
    #[arg(long)]
    json: bool,
}

/// What came of one request.
struct Answer {
    /// By sample.
    values: Vec<Vec<f64>>,
    seconds: f64,
    /// The part of it that the client worked.
    own_seconds: f64,
    sent: usize,
    received: usize,
}

/// A request of several rounds. However it ends, the server need not keep what waits for its next round.
struct UnderWay<'a> {
    connection: &'a Connection,
    key: KeyId,
    request: RequestId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.connection.forget(self.key, self.request);
    }
}

/// Everything that evaluating samples takes.
struct Session<'a> {
    connection: Connection,
    head: &'a PlanHead,
    /// Outputs of the network.
    outputs: &'a [Output],
    client: keys::Client,
    secret: SecretKey,
    eval_keys: PathBuf,
    key: KeyId,
    /// Held while keys are uploaded: one upload is enough.
    uploading: Mutex<()>,
    output: usize,
    raw: bool,
}

impl Infer {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let labels = self.labels.as_deref().map(names).transpose()?;
        let roots = self.ca.as_deref().map(files::read).transpose()?;
        let options = Options { roots: roots.as_deref(), patience: self.patience, notice: |why| files::warn(why) };
        let connection = Connection::new(&self.server, &options)?;
        let limits = connection.limits().with_context(|| self.server.clone())?;
        let head = plan_file::head(&connection.plan_head()?).with_context(|| format!("plan of {}", self.server))?;
        ensure!(limits.rounds == head.rounds(), "the server says {} rounds, its plan {}", limits.rounds, head.rounds());
        let outputs = head.network_outputs();
        let output = choose(self.select.as_deref(), &outputs)?;
        let client = keys::Client::new(&head)?;
        // The secret key names the plan that it was made for, so no server can pass off another one.
        let secret = client.secret_key(&self.key).with_context(|| format!("plan of {}", self.server))?;
        let samples = self.samples(&head)?;
        let eval_keys = self.eval_keys.clone().unwrap_or_else(|| self.key.with_file_name("eval.keys"));
        let key = name(&eval_keys, &head.hash, limits.key_bytes)?;
        let (raw, uploading) = (self.raw, Mutex::new(()));
        let outputs = &outputs[..];
        let session =
            Session { connection, head: &head, outputs, client, secret, eval_keys, key, uploading, output, raw };
        let uploaded = session.upload()?;
        let parallel = usize::from(self.parallel).min(limits.requests).max(1);
        let answers = session.all(&samples, parallel)?;
        self.report(&head, &outputs[output], &answers, uploaded, labels.as_deref())
    }

    /// The samples of all files, in order: a tensor for each input.
    fn samples(&self, head: &PlanHead) -> Result<Vec<Vec<Vec<f64>>>> {
        let specs = plan_file::specs(head.network_inputs());
        let by_name = |text: &String| named(text, &specs).is_some() && !Path::new(text).exists();
        let mut samples = Vec::new();
        if self.input.iter().any(by_name) {
            samples.push(load_inputs(&self.input, self.index, &specs)?);
        } else {
            for file in &self.input {
                match self.index {
                    Some(_) => samples.push(load_inputs(std::slice::from_ref(file), self.index, &specs)?),
                    None => {
                        let set = DataSet::open(Path::new(file), &specs)?;
                        for i in 0..set.len() {
                            samples.push(set.sample(i)?);
                        }
                    }
                }
            }
        }
        for sample in &samples {
            for (input, values) in head.network_inputs().iter().zip(sample) {
                if let Some(warning) = plan_file::outside_range(input, values) {
                    files::warn(&warning);
                }
            }
        }
        Ok(samples)
    }

    fn report(
        &self,
        head: &PlanHead,
        output: &Output,
        answers: &[Answer],
        uploaded: u64,
        labels: Option<&[String]>,
    ) -> Result<()> {
        if let Some(path) = &self.output {
            let results: Vec<&[f64]> = results(answers).map(|(_, values)| values).collect();
            let (shape, values) = (stacked(&output.shape, results.len()), results.concat());
            files::write(path, Access::Public, |out| npy::write(out, &shape, &values))?;
        }
        if self.json {
            let value = self.as_json(head, output, answers, uploaded, labels);
            return print(&format!("{value:#}\n"));
        }
        let count = results(answers).count();
        for (i, (_, values)) in results(answers).enumerate() {
            let Some(k) = self.top else { break };
            if count > 1 {
                print(&format!("sample {i}\n"))?;
            }
            print(&top(output, values, k as usize, labels))?;
        }
        let sum = |of: fn(&Answer) -> usize| answers.iter().map(of).sum::<usize>() as u64;
        let seconds: f64 = answers.iter().map(|a| a.seconds).sum();
        status(&format!(
            "{}, {} each, {} sent, {} received",
            format::count(count, "sample"),
            format::seconds(seconds / count.max(1) as f64),
            format::bytes(sum(|a| a.sent)),
            format::bytes(sum(|a| a.received))
        ));
        Ok(())
    }

    fn as_json(
        &self,
        head: &PlanHead,
        output: &Output,
        answers: &[Answer],
        uploaded: u64,
        labels: Option<&[String]>,
    ) -> Value {
        let class = |values: &[f64], i: usize| {
            let name = labels.and_then(|l| l.get(i)).cloned().unwrap_or_else(|| i.to_string());
            json!({ "class": name, "index": i, "value": values[i] })
        };
        let result = |(a, values): (&Answer, &[f64])| {
            let mut value = json!({
                "values": values, "seconds": a.seconds, "client_seconds": a.own_seconds, "sent_bytes": a.sent, "received_bytes": a.received,
            });
            if let Some(k) = self.top {
                let best = largest(values, k as usize);
                value["top"] = best.into_iter().map(|i| class(values, i)).collect();
            }
            value
        };
        json!({
            "server": self.server, "model": head.model, "plan": short_hash(&head.hash),
            "output": { "name": output.name, "shape": output.shape },
            "uploaded_key_bytes": uploaded, "rounds": head.rounds(),
            "results": results(answers).map(result).collect::<Vec<_>>(),
        })
    }
}

/// The results of all samples, with the answer that each came in.
fn results(answers: &[Answer]) -> impl Iterator<Item = (&Answer, &[f64])> {
    answers.iter().flat_map(|answer| answer.values.iter().map(move |values| (answer, &values[..])))
}

/// The shape of several results; that of one is the output's own.
fn stacked(shape: &[usize], count: usize) -> Vec<usize> {
    if count == 1 { shape.to_vec() } else { batch_shape(shape, count) }
}

/// The name of a file of evaluation keys. One that is none, or of another plan, is refused before a byte of it is sent.
fn name(path: &Path, plan: &[u8; 32], size: u64) -> Result<KeyId> {
    let named = || path.display().to_string();
    let mut file = File::open(path).with_context(named)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD_LEN).read_to_end(&mut head).with_context(named)?;
    refuse_secret(&head).with_context(named)?;
    let header = Header::read(&head).with_context(named)?;
    ensure!(header.plan == *plan, "{}: the keys are those of another plan", named());
    file.rewind().with_context(named)?;
    let (id, len) = key_id(&mut file).with_context(named)?;
    ensure!(len == size, "{}: {len} bytes, the keys of this plan have {size}; is it complete?", named());
    Ok(id)
}

/// Whether the server no longer knows a request of which it has evaluated rounds.
fn is_lost(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.code == Code::UnknownRequest)
}

impl Session<'_> {
    /// Makes sure that the server has the keys; returns the bytes that had to be sent.
    fn upload(&self) -> Result<u64> {
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
    fn all(&self, samples: &[Vec<Vec<f64>>], parallel: usize) -> Result<Vec<Answer>> {
        let batch = self.head.batch();
        let requests: Vec<_> = samples.chunks(batch).collect();
        let progress = Progress::new("evaluating");
        let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || -> Result<Vec<(usize, Answer)>> {
            let mut answers = Vec::new();
            // After a failure the others need not begin anything more.
            while failed.load(Ordering::Relaxed) == 0 {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(samples) = requests.get(i) else { break };
                let mut show = |now: &fhec_protocol::Progress| {
                    // Of a single request, how far its evaluation is.
                    if requests.len() == 1 {
                        progress.set(now.done, now.total);
                    }
                };
                let answer = self.one(samples, &mut show).inspect_err(|_| {
                    failed.fetch_add(1, Ordering::Relaxed);
                });
                answers.push((i, answer.with_context(|| format!("sample {}", i * batch))?));
                progress.set(done.fetch_add(1, Ordering::Relaxed) + 1, requests.len());
            }
            Ok(answers)
        };
        let parts: Vec<Result<Vec<(usize, Answer)>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel.min(requests.len())).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow!("a thread failed")))).collect()
        });
        let mut answers: Vec<(usize, Answer)> =
            parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        answers.sort_by_key(|(i, _)| *i);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Encrypts samples together, waits for their results and decrypts them.
    fn one(&self, samples: &[Vec<Vec<f64>>], show: &mut dyn FnMut(&fhec_protocol::Progress)) -> Result<Answer> {
        /// A server that loses a request more often is not one to wait for.
        const TIMES: usize = 3;
        if let Some(aided) = &self.head.aided {
            for _ in 0..TIMES {
                match self.in_rounds(aided, samples, show) {
                    // What the rounds before had left is gone, so that there is nothing to go on from.
                    Err(e) if e.downcast_ref::<ClientError>().is_some_and(is_lost) => {
                        files::warn("the server has lost a request; sending it again")
                    }
                    other => return other,
                }
            }
            bail!("the server has lost the request {TIMES} times")
        }
        let begin = Instant::now();
        let bundle = self.client.encrypt(samples, EncryptionKey::Secret(&self.secret))?;
        let mut payload = Vec::new();
        self.client.write_ciphertexts(&bundle, &mut payload)?;
        drop(bundle);
        let frame = self.frame(random_request()?, 0, samples.len(), &payload)?;
        let asked = Instant::now();
        let result = self.request(&frame, &payload, show)?;
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
            let frame = self.frame(request, round, samples.len(), &payload)?;
            let asked = Instant::now();
            let answer = self.request(&frame, &payload, show)?;
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
    fn frame(&self, request: RequestId, round: u32, samples: usize, payload: &[u8]) -> Result<Frame> {
        Ok(Frame {
            kind: FrameKind::Inputs,
            round,
            rounds: self.head.rounds(),
            batch: u32::try_from(samples)?,
            plan: self.head.hash,
            key: self.key,
            request,
            payload: payload.len() as u64,
        })
    }

    /// Sends a request, and the keys again where the server has them no more.
    fn request(
        &self,
        frame: &Frame,
        payload: &[u8],
        show: &mut dyn FnMut(&fhec_protocol::Progress),
    ) -> Result<Vec<u8>> {
        /// A server that forgets keys more often is not one to wait for.
        const TIMES: usize = 5;
        for _ in 0..TIMES {
            match self.connection.request(frame, payload, self.client.output_bytes(frame.round), show) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_results_lie_along_the_axis_of_samples() {
        assert_eq!(stacked(&[1, 10], 1), [1, 10]);
        assert_eq!(stacked(&[1, 10], 7), [7, 10]);
        assert_eq!(stacked(&[10], 7), [7, 10]);
        assert_eq!(stacked(&[], 2), [2]);
        assert_eq!(stacked(&[], 1), [0; 0]);
    }
}
