//! Evaluates plans whose images share ciphertexts with few of them in memory: tile after tile ([`fhec_plan::stream`]), what does
//! not fit on disk, inputs read when they are used and outputs given away when they are made.
//!
//! Every ciphertext is computed by the same operations as in [`crate::run`], in another order, so the results are the same bits.

mod ports;
mod spill;
mod store;
mod tile;

pub use ports::{BundleSink, BundleSource, Sink, Source};
pub(crate) use ports::{images, misfit, places};
pub(crate) use spill::Spill;
pub use spill::{Spilling, Storage};

use crate::ckks::CkksBackend;
use crate::error::{Result, RuntimeError};
use fhec_plan::Verified;
use fhec_plan::stream::{Schedule, Transfers};
use num_complex::Complex64;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Store;

/// How much memory ciphertexts may take, and where the rest of them goes.
#[derive(Clone, Debug)]
pub struct Streaming {
    /// Bytes of ciphertexts in memory.
    pub budget: u64,
    /// What does not fit.
    pub spill: Spilling,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tiles done.
    pub done: usize,
    /// Tiles of the plan.
    pub total: usize,
    /// The layer in work.
    pub layer: usize,
}

/// What an evaluation took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Most bytes of ciphertexts in memory at once.
    pub peak: u64,
    /// What went to disk and back.
    pub transfers: Transfers,
}

/// An evaluation, between its rounds; a plan that is not client-aided has one round.
#[derive(Debug)]
pub struct Stream {
    schedule: Arc<Schedule>,
    store: Store,
    /// The next tile.
    next: usize,
    /// Biases and vectors of the instructions in work.
    vectors: BTreeMap<usize, Vec<f64>>,
    summands: BTreeMap<usize, Vec<Complex64>>,
}

impl Stream {
    /// An evaluation of the plan that the schedule is of. `again` says that sources give an input as often as it is asked for.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`] for a budget in which not even one tile fits.
    pub fn new(schedule: &Arc<Schedule>, streaming: &Streaming, again: bool) -> Result<Self> {
        let (needed, allowed) = (schedule.least(), streaming.budget);
        if needed > allowed {
            return Err(RuntimeError::Memory { needed, allowed });
        }
        Ok(Stream {
            schedule: Arc::clone(schedule),
            store: Store::new(schedule, allowed, again, &streaming.spill),
            next: 0,
            vectors: BTreeMap::new(),
            summands: BTreeMap::new(),
        })
    }

    /// Evaluates one round, all those before it being done: inputs come from `source`, outputs go to `sink`. `observe` is called after
    /// every tile; an error of it ends the evaluation.
    ///
    /// # Errors
    /// [`RuntimeError::Instruction`], [`RuntimeError::Resume`] for a round that is not the next.
    pub fn round(
        &mut self,
        backend: &CkksBackend,
        round: u32,
        source: &mut dyn Source,
        sink: &mut dyn Sink,
        observe: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<()> {
        let schedule = Arc::clone(&self.schedule);
        let verified: Arc<Verified> = Arc::clone(backend.verified());
        let range = schedule.rounds().get(round as usize).filter(|range| range.start == self.next);
        let range = range.ok_or_else(|| RuntimeError::Resume(format!("round {round}, which is not the next")))?;
        let plan = verified.plan();
        for tile in &schedule.tiles()[range.clone()] {
            let instruction = &plan.instructions[tile.number];
            self.tile(backend, tile, source, sink).map_err(|error| RuntimeError::Instruction {
                number: tile.number,
                op: instruction.op.name(),
                layer: plan.layers[instruction.layer.index()].name.clone(),
                source: error,
            })?;
            self.next += 1;
            observe(Progress { done: self.next, total: schedule.tiles().len(), layer: instruction.layer.index() })?;
        }
        self.vectors.clear();
        self.summands.clear();
        Ok(())
    }

    /// Puts on disk what the next round needs, so that waiting for it takes no memory but for a few bytes a ciphertext.
    ///
    /// # Errors
    /// [`RuntimeError::Spill`].
    pub fn park(&mut self) -> Result<()> {
        let schedule = Arc::clone(&self.schedule);
        self.store.park(&schedule).map_err(RuntimeError::Spill)
    }

    /// Bytes of ciphertexts on disk.
    pub fn on_disk(&self) -> u64 {
        self.store.on_disk()
    }

    /// Bytes of ciphertexts in memory.
    pub fn bytes(&self) -> u64 {
        self.store.live()
    }

    /// What the evaluation took so far.
    pub fn usage(&self) -> Usage {
        Usage { peak: self.store.peak(), transfers: self.store.transfers() }
    }
}
