//! `fhec serve`: evaluates a plan for many clients. Nothing here can hold a secret key.

use crate::files::{self, status};
use crate::format;
use crate::memory;
use crate::plan_file::{self, short_hash};
use anyhow::Result;
use clap::Args;
use fhec_serve::{Config, Identity, Running, Service};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Arguments of `fhec serve`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec serve mnist.plan --keys clients
  fhec serve mnist.plan --keys clients --listen 0.0.0.0:8443 --tls-cert chain.pem --tls-key key.pem
  fhec serve resnet20.plan --keys clients --memory 24GiB --runs 2 --disk 500GiB

Clients upload their evaluation keys, which are kept in --keys, and send ciphertexts; see
'fhec infer'. A secret key has no business here and is refused. /health says whether the server
is up, /metrics what it does, for Prometheus. An interrupt or SIGTERM ends it in order: what runs
is finished and can be fetched; clients send the rest again, to the next server.

A batch whose rounds do not fit --memory is evaluated a few ciphertexts at a time, and goes through
temporary files in --spill, which have no names and end with their requests.

Whoever can connect can use the server. Without --tls-cert anybody in between can see who asks
and how often, and can change what is sent; never what is in it. docs/serving.md tells more.")]
pub(crate) struct Serve {
    /// The plan
    plan: PathBuf,
    /// The folder for evaluation keys of clients; made if need be
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// Address and port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The certificate of the server and those that lead to its root, PEM: encrypts connections
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Memory for keys, weights, requests and evaluations; half of the machine's by default
    #[arg(long, value_name = "SIZE", value_parser = format::parse_bytes)]
    memory: Option<u64>,
    /// Disk space for evaluation keys
    #[arg(long, value_name = "SIZE", default_value = "32GiB", value_parser = format::parse_bytes)]
    disk: u64,
    /// Folder for temporary files with ciphertexts, where those of a batch do not fit --memory; the system's by default
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
    /// Disk space for such files
    #[arg(long, value_name = "SIZE", default_value = "256GiB", value_parser = format::parse_bytes)]
    spill_size: u64,
    /// Threads that evaluate; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Evaluations at a time, which share the threads; by default one for every four threads, as far as memory reaches
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
    /// Most requests that wait, run, or have a result that nobody fetched
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// The same for one client
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_client: u32,
    /// Most connections; half of them from one address
    #[arg(long, value_name = "N", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How long a request or result lives that nobody asks for
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = format::parse_duration)]
    request_ttl: Duration,
    /// How long evaluation keys are kept that nobody uses
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = format::parse_duration)]
    key_ttl: Duration,
}

impl Serve {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let pem = |path: &Option<PathBuf>| path.as_deref().map(files::read).transpose();
        let (certificates, key) = (pem(&self.tls_cert)?, pem(&self.tls_key)?);
        let identity =
            certificates.as_deref().zip(key.as_deref()).map(|(certificates, key)| Identity { certificates, key });
        let plan = Arc::new(plan_file::open(&self.plan)?);
        let (model, hash) = (plan.plan().model.clone(), short_hash(plan.hash()));
        memory::keep_freed_of(&plan);
        let service = Service::open(plan, self.config(), None)?;
        let running = Running::start(Arc::clone(&service), &self.listen, identity)?;
        let sizes = service.sizes();
        status(&format!(
            "serving {model} (plan {hash}), {} at a time with {} each",
            format::count(sizes.runs, "evaluation"),
            format::count(service.threads_per_run(), "thread")
        ));
        status(&format!(
            "keys of a client: {} on disk (room for {}), {} in memory (room for {}); {} of input, {} of output",
            format::bytes(sizes.key_file),
            sizes.keys_on_disk,
            format::bytes(sizes.key_memory),
            sizes.keys_in_memory,
            format::bytes(sizes.inputs),
            format::bytes(sizes.outputs)
        ));
        if let Some(budget) = sizes.streamed {
            status(&format!(
                "the ciphertexts of a round do not fit memory: {} of them at a time, {} at once, the rest in temporary files",
                format::bytes(budget),
                format::count(sizes.requests, "request")
            ));
        }
        let scheme = if identity.is_some() { "https" } else { "http" };
        status(&format!("listening on {scheme}://{}", running.address()));
        running.wait_for_signal()?;
        status("ending: what runs is finished, nothing new is taken");
        running.end();
        Ok(())
    }

    fn config(&self) -> Config {
        let defaults = Config::new(&self.keys, memory::allowance(self.memory));
        Config {
            disk: self.disk,
            spill: self.spill.clone().unwrap_or(defaults.spill),
            spill_bytes: self.spill_size,
            threads: self.threads.map_or(defaults.threads, usize::from),
            runs: self.runs.map(usize::from),
            requests: self.requests as usize,
            requests_per_client: self.requests_per_client as usize,
            connections: self.connections as usize,
            request_ttl: self.request_ttl,
            key_ttl: self.key_ttl,
            ..defaults
        }
    }
}
