//! Rounds whose ciphertexts do not fit memory: they come from a temporary file, are evaluated a few at a time, and go to another one.

use crate::config::Config;
use crate::error::{ServeError, refuse, refused};
use crate::requests::Watch;
use crate::sizes::{Demand, Sizes, StreamDemand};
use crate::spool::{From, Spool};
use axum::body::Bytes;
use fhec_ckks::Ciphertext;
use fhec_plan::Verified;
use fhec_plan::stream::{Schedule, forecast};
use fhec_protocol::{Code, Frame, HEADER_LEN, Refusal};
use fhec_runtime::backend::OpResult;
use fhec_runtime::stream::{BundleSink, BundleSource, Progress, Source};
use fhec_runtime::{Kept, OpError, RuntimeError, Server, Streaming};
use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How such a plan is evaluated.
#[derive(Debug)]
pub(crate) struct Streamed {
    schedule: Arc<Schedule>,
    streaming: Streaming,
    spool: Spool,
}

impl Streamed {
    /// A plan, if its images share ciphertexts, and the numbers that follow from `demand`, which is that of whole tensors with `run` for
    /// nothing but scratch.
    pub(crate) fn choose(
        verified: &Verified,
        demand: Demand,
        config: &Config,
    ) -> Result<Option<(Self, Sizes)>, ServeError> {
        /// Buffers of a request that comes or goes.
        const BUFFERS: u64 = 4 << 20;
        /// What is known of a ciphertext in a file.
        const PLACE: u64 = 128;
        let (plan, facts) = (verified.plan(), verified.facts());
        let Some(schedule) = Schedule::of(plan, facts) else { return Ok(None) };
        let of_round = |round| {
            let own = plan.inputs.iter().enumerate().filter(move |(i, _)| plan.input_round(*i) == round);
            own.map(|(_, input)| input.layout.ciphertexts as u64).sum::<u64>()
        };
        let places = PLACE * (0..plan.rounds()).map(of_round).max().unwrap_or(0);
        let least = schedule.least();
        let streamed = StreamDemand {
            held: demand.held,
            least,
            demand: Demand {
                held: schedule.state_bytes() + BUFFERS,
                fixed: demand.fixed + schedule.own_bytes(),
                run: demand.run + least + places,
                ..demand
            },
        };
        let spilled = |budget| forecast(plan, facts, &schedule, budget, plan.rounds() == 1).transfers.disk;
        let sizes = streamed.choose(config, spilled)?;
        let spool = Spool::new(&config.spill);
        // A folder that cannot be used is told now, not to the first client.
        spool.file().map_err(|source| ServeError::File { path: config.spill.clone(), source })?;
        let streaming = Streaming { budget: sizes.streamed.unwrap_or(least), spill: spool.spilling() };
        Ok(Some((Streamed { schedule: Arc::new(schedule), streaming, spool }, sizes)))
    }

    /// Where payloads go.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Tiles of the plan.
    pub(crate) fn tiles(&self) -> usize {
        self.schedule.tiles().len()
    }

    /// Evaluates one round. `kept` is what the round before left, and becomes what this one leaves. Gives the frame of the answer, the
    /// header of which `head` makes from the length of the payload.
    pub(crate) fn evaluate(
        &self,
        server: &Server,
        frame: &Frame,
        payload: Bytes,
        kept: &mut Option<Kept>,
        watch: &Watch,
        head: impl Fn(u64) -> Frame,
    ) -> Result<Bytes, Refusal> {
        let (context, verified, round) = (server.backend().context(), server.backend().verified(), frame.round);
        let failed = |error: &dyn std::fmt::Display| refuse(Code::Failed, error.to_string());
        let source = BundleSource::open(Arc::new(payload), context, verified, round).map_err(refused)?;
        let images = source.images();
        let file = self.spool.file().and_then(|file| From::new(file, HEADER_LEN as u64)).map_err(|e| failed(&e))?;
        let mut sink = BundleSink::begin(file, context, verified, round, images).map_err(|e| failed(&e))?;
        let mut observe = |progress: Progress| watch.done.store(progress.done, Ordering::Relaxed);
        let how = (&self.schedule, &self.streaming);
        let done = server.round_streamed((round, images), kept, how, (&mut Sent(source), &mut sink), &mut observe);
        done.map_err(|error| match error {
            RuntimeError::Instruction { source: OpError::Input(problem), .. } => refused(problem),
            RuntimeError::Instruction { .. } | RuntimeError::Spill(_) => failed(&error),
            error => refused(error),
        })?;
        let finish = || -> std::io::Result<Bytes> {
            let mut file = sink.finish().map_err(std::io::Error::other)?.into_inner();
            let payload = file.metadata()?.len() - HEADER_LEN as u64;
            file.rewind()?;
            file.write_all(&head(payload).to_bytes())?;
            self.spool.bytes(&file)
        };
        finish().map_err(|e| failed(&e))
    }
}

/// What a client has sent: whatever is wrong with it is the client's fault.
struct Sent(BundleSource);

impl Source for Sent {
    fn read(&mut self, input: usize, elements: &[u32]) -> OpResult<Vec<Ciphertext>> {
        self.0.read(input, elements).map_err(|error| OpError::Input(error.to_string()))
    }
}
