//! `fhec infer`: encrypts inputs, has a server evaluate them, and decrypts what comes back.

mod samples;
mod session;
mod streamed;

use crate::commands::results::{Shown, batch_shape, largest, top};
use crate::data::npy;
use crate::files::{self, Access, print, status};
use crate::format;
use crate::keys::{self, refuse_secret};
use crate::memory;
use crate::plan_file::{self, short_hash};
use anyhow::{Context, Result, ensure};
use clap::Args;
use fhec_ckks::container::{HEAD_LEN, Header};
use fhec_client::{Connection, Options, key_id};
use fhec_plan::{Output, PlanHead};
use fhec_protocol::KeyId;
use samples::Samples;
use serde_json::{Value, json};
use session::{Answer, Session};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

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

A batch whose values and ciphertexts do not fit --memory goes through temporary files in --spill:
ciphertexts, and values in the clear. Give a folder on a disk of your own.

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
    #[command(flatten)]
    shown: Shown,
    /// Memory for the values and ciphertexts of batches; half of the machine's by default
    #[arg(long, value_name = "SIZE", value_parser = format::parse_bytes)]
    memory: Option<u64>,
    /// Folder for temporary files with what does not fit, values in the clear among it; the system's by default
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
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

impl Infer {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let labels = self.shown.labels()?;
        let roots = self.ca.as_deref().map(files::read).transpose()?;
        let options = Options { roots: roots.as_deref(), patience: self.patience, notice: |why| files::warn(why) };
        let connection = Connection::new(&self.server, &options)?;
        let limits = connection.limits().with_context(|| self.server.clone())?;
        let head = plan_file::head(&connection.plan_head()?).with_context(|| format!("plan of {}", self.server))?;
        ensure!(limits.rounds == head.rounds(), "the server says {} rounds, its plan {}", limits.rounds, head.rounds());
        let outputs = head.network_outputs();
        let output = self.shown.output(&outputs)?;
        let client = keys::Client::new(&head)?;
        // The secret key names the plan that it was made for, so no server can pass off another one.
        let secret = client.secret_key(&self.key).with_context(|| format!("plan of {}", self.server))?;
        let samples = Samples::open(&self.input, self.index, &head)?;
        let eval_keys = self.eval_keys.clone().unwrap_or_else(|| self.key.with_file_name("eval.keys"));
        let key = name(&eval_keys, &head.hash, limits.key_bytes)?;
        let session = Session {
            connection,
            head: &head,
            outputs: &outputs,
            client,
            secret,
            eval_keys,
            key,
            uploading: Mutex::new(()),
            output,
            raw: self.shown.raw,
            memory: memory::allowance(self.memory),
            folder: self.spill.clone().unwrap_or_else(std::env::temp_dir),
        };
        let uploaded = session.upload()?;
        let parallel = usize::from(self.parallel).min(limits.requests).max(1);
        let answers = session.all(&samples, parallel)?;
        let report =
            Report { head: &head, output: &outputs[output], answers: &answers, uploaded, labels: labels.as_deref() };
        if let Some(path) = &self.output {
            report.save(path)?;
        }
        if self.json {
            let value = report.as_json(&self.server, self.shown.top);
            return print(&format!("{value:#}\n"));
        }
        report.print(self.shown.top)
    }
}

/// What came of all samples.
struct Report<'a> {
    head: &'a PlanHead,
    output: &'a Output,
    answers: &'a [Answer],
    /// Bytes of evaluation keys that had to be sent.
    uploaded: u64,
    /// Names of the classes.
    labels: Option<&'a [String]>,
}

impl Report<'_> {
    /// The results of all samples, with the answer that each came in.
    fn results(&self) -> impl Iterator<Item = (&Answer, &[f64])> {
        self.answers.iter().flat_map(|answer| answer.values.iter().map(move |values| (answer, &values[..])))
    }

    /// Writes all results as one array.
    fn save(&self, path: &Path) -> Result<()> {
        let results: Vec<&[f64]> = self.results().map(|(_, values)| values).collect();
        let (shape, values) = (stacked(&self.output.shape, results.len()), results.concat());
        files::write(path, Access::Public, |out| npy::write(out, &shape, &values))
    }

    /// Prints the `k` largest values of each result, and what it took.
    fn print(&self, k: Option<u32>) -> Result<()> {
        let count = self.results().count();
        for (i, (_, values)) in self.results().enumerate() {
            let Some(k) = k else { break };
            if count > 1 {
                print(&format!("sample {i}\n"))?;
            }
            print(&top(self.output, values, k as usize, self.labels))?;
        }
        let sum = |of: fn(&Answer) -> usize| self.answers.iter().map(of).sum::<usize>() as u64;
        let seconds: f64 = self.answers.iter().map(|a| a.seconds).sum();
        status(&format!(
            "{}, {} each, {} sent, {} received",
            format::count(count, "sample"),
            format::seconds(seconds / count.max(1) as f64),
            format::bytes(sum(|a| a.sent)),
            format::bytes(sum(|a| a.received))
        ));
        Ok(())
    }

    fn as_json(&self, server: &str, k: Option<u32>) -> Value {
        let class = |values: &[f64], i: usize| {
            let name = self.labels.and_then(|l| l.get(i)).cloned().unwrap_or_else(|| i.to_string());
            json!({ "class": name, "index": i, "value": values[i] })
        };
        let result = |(a, values): (&Answer, &[f64])| {
            let mut value = json!({
                "values": values, "seconds": a.seconds, "client_seconds": a.own_seconds, "sent_bytes": a.sent, "received_bytes": a.received,
            });
            if let Some(k) = k {
                let best = largest(values, k as usize);
                value["top"] = best.into_iter().map(|i| class(values, i)).collect();
            }
            value
        };
        json!({
            "server": server, "model": self.head.model, "plan": short_hash(&self.head.hash),
            "output": { "name": self.output.name, "shape": self.output.shape },
            "uploaded_key_bytes": self.uploaded, "rounds": self.head.rounds(),
            "results": self.results().map(result).collect::<Vec<_>>(),
        })
    }
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
