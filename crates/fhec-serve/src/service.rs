//! A plan, its clients' keys and requests, and the threads that evaluate.

use crate::config::Config;
use crate::error::{ServeError, refuse, refused};
use crate::keys::Keys;
use crate::metrics::{Gauges, Metrics};
use crate::requests::{RequestLimits, Requests, Task, Watch};
use crate::sizes::{Demand, Sizes};
use crate::streamed::Streamed;
use axum::body::Bytes;
use fhec_ckks::InsecureToken;
use fhec_ckks::container::{read_ciphertexts, write_ciphertexts};
use fhec_plan::Verified;
use fhec_protocol::{Code, Frame, FrameKind, HEADER_LEN, Limits, Refusal, VERSION, hex};
use fhec_runtime::context::key_request;
use fhec_runtime::{Kept, RuntimeError, Server, server_context};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Everything but the network.
#[derive(Debug)]
pub struct Service {
    pub(crate) config: Config,
    pub(crate) sizes: Sizes,
    pub(crate) limits: Limits,
    pub(crate) head: Bytes,
    pub(crate) keys: Keys,
    pub(crate) requests: Requests,
    pub(crate) metrics: Metrics,
    /// Connections open now.
    pub(crate) open: AtomicUsize,
    pub(crate) ending: AtomicBool,
    /// Where the ciphertexts of a round do not fit memory.
    pub(crate) streamed: Option<Streamed>,
    verified: Arc<Verified>,
}

impl Service {
    /// Prepares a plan: encodes the weights that memory lets stay, finds the keys that are on disk. `insecure` is for tests.
    ///
    /// # Errors
    /// [`ServeError`], for a plan that does not fit what is allowed or a folder that cannot be used.
    pub fn open(
        verified: Arc<Verified>,
        config: Config,
        insecure: Option<InsecureToken>,
    ) -> Result<Arc<Self>, ServeError> {
        let plan = verified.plan();
        let context = server_context(&verified, insecure)?;
        let weights = plan.weights.bytes().len() as u64;
        // Weights may take half of what the bare minimum leaves. The plan's own figure bounds them, but nothing rests on it.
        let request = key_request(&plan.keys, &plan.parameters);
        let registers = verified.facts().peak_register_bytes();
        let budget = plan.report.plaintext_budget.min(config.memory.saturating_sub(weights + registers) / 2);
        let server = |budget| Server::without_keys(Arc::clone(&verified), &context, budget);
        let demand = |server: &Server| -> Result<Demand, ServeError> {
            // Scratch depends on the threads of a run, which depend on the number of runs: taken for all threads, it is enough.
            let pool = pool(config.threads)?;
            let memory = pool.install(|| server.backend().memory());
            let fixed = weights + memory.plaintexts_planned as u64;
            Demand::of(&verified, &context, &request, fixed, registers + memory.scratch as u64)
        };
        let mut base = server(budget)?;
        let mut chosen = Sizes::choose(&demand(&base)?, &config).map(|sizes| (None, sizes));
        // Without kept weights it may fit, or with few ciphertexts in memory.
        if let Err(ServeError::Memory { .. }) = chosen {
            base = server(0)?;
            chosen = Sizes::choose(&demand(&base)?, &config).map(|sizes| (None, sizes));
        }
        if let Err(ServeError::Memory { .. }) = chosen {
            let whole = demand(&base)?;
            let scratch = Demand { run: whole.run - registers, ..whole };
            if let Some((streamed, sizes)) = Streamed::choose(&verified, scratch, &config)? {
                chosen = Ok((Some(streamed), sizes));
            }
        }
        let (streamed, sizes) = chosen?;
        pool(config.threads)?.install(|| base.backend().prepare())?;
        let mut head = Vec::new();
        // Writing to a vector cannot fail.
        let _ = plan.write_head_to(&mut head);
        let (keys, unchecked) = Keys::open(base, &sizes, &config)?;
        let requests = Requests::new(RequestLimits {
            all: sizes.requests,
            client: config.requests_per_client.clamp(1, sizes.requests),
            ttl: config.request_ttl,
            instructions: streamed.as_ref().map_or(plan.instructions.len(), Streamed::tiles),
        });
        unchecked.into_iter().for_each(|id| requests.submit_check(id));
        let limits = Limits {
            protocol: VERSION,
            plan: hex(verified.hash()),
            key_bytes: sizes.key_file,
            payload_bytes: sizes.inputs,
            rounds: plan.rounds(),
            batch: u32::try_from(plan.batch()).unwrap_or(u32::MAX),
            requests: config.requests_per_client.clamp(1, sizes.requests),
        };
        Ok(Arc::new(Service {
            config,
            sizes,
            limits,
            head: head.into(),
            keys,
            requests,
            metrics: Metrics::default(),
            open: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            streamed,
            verified,
        }))
    }

    /// What serving takes, and the numbers that were chosen.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Threads of each evaluation.
    pub fn threads_per_run(&self) -> usize {
        (self.config.threads / self.sizes.runs).max(1)
    }

    /// Whether the server ends.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Starts the threads that evaluate, each with threads of its own: work of one run is never done by the threads of another,
    /// which may wait for the first.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Vec<std::thread::JoinHandle<()>>, ServeError> {
        let worker = |number: usize| {
            let pool = pool(self.threads_per_run())?;
            let service = Arc::clone(self);
            let work = move || pool.install(|| service.work());
            let thread = std::thread::Builder::new().name(format!("run-{number}"));
            thread.spawn(work).map_err(|source| ServeError::System { what: "cannot start threads".into(), source })
        };
        (0..self.sizes.runs).map(worker).collect()
    }

    /// Does tasks until the server ends. A panic is a bug of ours; it costs the task, not the server.
    fn work(&self) {
        while let Some(task) = self.requests.next() {
            match task {
                Task::Check(id) => {
                    if catch_unwind(AssertUnwindSafe(|| self.keys.check(id))).is_err() {
                        self.metrics.panics.fetch_add(1, Ordering::Relaxed);
                        self.keys.give_up(id);
                    }
                }
                Task::Evaluate { frame, payload, mut kept, watch } => {
                    let outcome = catch_unwind(AssertUnwindSafe(|| self.evaluate(&frame, payload, &mut kept, &watch)));
                    let outcome = outcome.unwrap_or_else(|_| {
                        self.metrics.panics.fetch_add(1, Ordering::Relaxed);
                        Err(refuse(Code::Failed, "the evaluation failed; its operator can tell why"))
                    });
                    self.requests.finish(&frame, &watch, outcome, kept);
                }
            }
        }
    }

    /// Evaluates one round. `kept` is what the round before left, and becomes what this one leaves.
    fn evaluate(
        &self,
        frame: &Frame,
        payload: Bytes,
        kept: &mut Option<Kept>,
        watch: &Watch,
    ) -> Result<Bytes, Refusal> {
        let server = self.keys.server(frame.key)?;
        let kind = if frame.round + 1 == frame.rounds { FrameKind::Outputs } else { FrameKind::Values };
        let head = |payload| Frame { kind, payload, ..*frame };
        if let Some(streamed) = &self.streamed {
            let begin = Instant::now();
            let answer = streamed.evaluate(&server, frame, payload, kept, watch, head)?;
            self.metrics.evaluation(begin.elapsed());
            return Ok(answer);
        }
        let (context, plan) = (server.backend().context(), self.verified.hash());
        let bundle = read_ciphertexts(&payload, context, plan).map_err(refused)?;
        drop(payload);
        let begin = Instant::now();
        let mut observe = |event: &fhec_runtime::driver::Event| watch.done.store(event.number + 1, Ordering::Relaxed);
        let outputs = server.round(frame.round, kept, &bundle, &mut observe).map_err(|error| match error {
            RuntimeError::Instruction { .. } => refuse(Code::Failed, error.to_string()),
            error => refused(error),
        })?;
        self.metrics.evaluation(begin.elapsed());
        let mut out = Vec::with_capacity(HEADER_LEN + self.sizes.outputs as usize);
        out.resize(HEADER_LEN, 0);
        write_ciphertexts(&outputs, context, plan, &mut out).map_err(|e| refuse(Code::Failed, e.to_string()))?;
        let payload = (out.len() - HEADER_LEN) as u64;
        out[..HEADER_LEN].copy_from_slice(&head(payload).to_bytes());
        Ok(out.into())
    }

    /// Seconds after which it is worth to try again.
    pub(crate) fn retry_after(&self) -> u64 {
        let predicted = self.verified.plan().report.seconds;
        let one = self.metrics.mean_seconds().unwrap_or(if predicted.is_finite() { predicted } else { 1.0 });
        let counts = self.requests.counts();
        let before_us = (counts.queued + counts.running) as f64 / self.sizes.runs as f64;
        // Half of the queue: whoever comes back then finds some room.
        (one * before_us / 2.0).clamp(1.0, 60.0) as u64
    }

    /// What is now.
    pub(crate) fn gauges(&self) -> Gauges {
        let counts = self.requests.counts();
        let (keys_ready, keys_partial, keys_loaded) = self.keys.counts();
        Gauges {
            queued: counts.queued,
            running: counts.running,
            results: counts.unfetched + counts.fetched,
            kept_bytes: self.requests.kept_bytes(),
            keys_ready,
            keys_partial,
            keys_loaded,
            key_bytes: (keys_ready + keys_partial) as u64 * self.keys.size(),
            open: self.open.load(Ordering::Relaxed),
            ending: self.is_ending(),
        }
    }
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, ServeError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build().map_err(|error| ServeError::System {
        what: "cannot start threads".into(),
        source: std::io::Error::other(error),
    })
}
