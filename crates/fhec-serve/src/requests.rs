//! Requests from the moment they have come until their results were fetched, or nobody asked for them any more.
//!
//! Handlers of connections put requests in and wait for changes; workers take tasks out and put results back. The lock is held for
//! moments only. What strangers can make the table hold is bounded: by the number of requests, for all and for each client, and by the
//! time that a request lives unasked.

use crate::error::refuse;
use crate::fair::FairQueue;
use axum::body::Bytes;
use fhec_protocol::{Code, Frame, KeyId, Progress, Refusal, RequestId, RequestState};
use fhec_runtime::Kept;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A request of the owner of a key.
pub(crate) type Name = (KeyId, RequestId);

#[derive(Debug)]
enum State {
    Queued(Bytes),
    Running,
    /// The frame of the result.
    Done {
        frame: Bytes,
        fetched: bool,
    },
    Failed(Refusal),
}

#[derive(Debug)]
struct Entry {
    frame: Frame,
    /// Hash of the payload: the same name must stand for the same request.
    digest: [u8; 32],
    state: State,
    /// What the round before left for this one; what this one left for the next, once it is done.
    kept: Option<Kept>,
    /// When somebody asked for it last.
    seen: Instant,
    watch: Arc<Watch>,
}

impl Entry {
    /// Whether it counts against the limits: results that were fetched and failures make room when it is wanted, except
    /// between two rounds.
    fn counts(&self) -> bool {
        !matches!(self.state, State::Done { fetched: true, .. } | State::Failed(_)) || self.between_rounds()
    }
}

/// What those who wait for a request share with who works on it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Told when the state has changed.
    pub(crate) changed: Notify,
    /// Instructions done.
    pub(crate) done: AtomicUsize,
}

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum Task {
    /// Checks keys that were uploaded.
    Check(KeyId),
    /// Evaluates a request.
    Evaluate {
        /// The header of the request.
        frame: Frame,
        /// Its ciphertexts.
        payload: Bytes,
        /// What the round before left.
        kept: Option<Kept>,
        /// Who waits.
        watch: Arc<Watch>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Waiting {
    Check,
    Evaluate(RequestId),
}

/// The right to have the payload of a request received.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    requests: &'a Requests,
    frame: Frame,
    /// Whether the request was known.
    again: bool,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut table = self.requests.table();
        if self.again {
            let name = (self.frame.key, self.frame.request);
            table.again.remove(&name);
            if let Some(entry) = table.entries.get_mut(&name) {
                entry.seen = Instant::now();
            }
        }
        if let Some(count) = table.receiving.get_mut(&self.frame.key) {
            *count -= 1;
            if *count == 0 {
                table.receiving.remove(&self.frame.key);
            }
        }
    }
}

/// Where a request is.
#[derive(Debug)]
pub(crate) enum Answer {
    /// There is no result yet.
    Pending(Progress, Arc<Watch>),
    /// The frame of the result.
    Done(Bytes),
}

#[derive(Debug)]
struct Table {
    entries: BTreeMap<Name, Entry>,
    queue: FairQueue<KeyId, Waiting>,
    /// Payloads that are being received, by client; each may become a request.
    receiving: BTreeMap<KeyId, usize>,
    /// Those among them that belong to requests which are known: their next rounds, and what is sent again.
    again: BTreeSet<Name>,
    running: usize,
    open: bool,
}

/// Most requests, for all and for one client, and how long one lives unasked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    pub(crate) all: usize,
    pub(crate) client: usize,
    pub(crate) ttl: Duration,
    /// Instructions of the plan.
    pub(crate) instructions: usize,
}

/// All requests.
#[derive(Debug)]
pub(crate) struct Requests {
    table: Mutex<Table>,
    work: Condvar,
    limits: RequestLimits,
}

/// How many of which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    /// Results that were not fetched, and those that were.
    pub(crate) unfetched: usize,
    pub(crate) fetched: usize,
}

impl Requests {
    pub(crate) fn new(limits: RequestLimits) -> Self {
        let table = Table {
            entries: BTreeMap::new(),
            queue: FairQueue::new(),
            receiving: BTreeMap::new(),
            again: BTreeSet::new(),
            running: 0,
            open: true,
        };
        Requests { table: Mutex::new(table), work: Condvar::new(), limits }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the payload of a request be received, if it would be taken as things stand.
    pub(crate) fn admit(&self, frame: Frame) -> Result<Admission<'_>, Refusal> {
        let mut table = self.table();
        let name = (frame.key, frame.request);
        let again = match table.entries.get(&name) {
            Some(known) if known.frame.round == frame.round || known.next_is(&frame) => {
                // It takes memory besides what the request has already: once at a time, or a request would be no bound of it.
                if !table.again.insert(name) {
                    let message = format!("request {} is being received already", frame.request);
                    return Err(refuse(Code::Limited, message));
                }
                true
            }
            Some(known) => return Err(wrong_round(&known.frame, &frame)),
            None if frame.round != 0 => return Err(unknown(frame.request)),
            None => {
                self.room(&mut table, frame.key)?;
                false
            }
        };
        *table.receiving.entry(frame.key).or_default() += 1;
        drop(table);
        Ok(Admission { requests: self, frame, again })
    }

    /// Room for one more request of a client; results that were fetched go first.
    fn room(&self, table: &mut Table, key: KeyId) -> Result<(), Refusal> {
        if !table.open {
            return Err(refuse(Code::Ending, "the server ends"));
        }
        let names = (key, RequestId([0; 16]))..=(key, RequestId([255; 16]));
        let of_client = table.entries.range(names.clone());
        let (mine, mine_kept) = of_client.fold((0, 0), |(n, m), (_, e)| (n + usize::from(e.counts()), m + 1));
        // What belongs to a request that is known is no further one.
        let new = table.receiving.get(&key).map_or(0, |all| all.saturating_sub(table.again.range(names).count()));
        let mine = mine + new;
        if mine >= self.limits.client {
            let message = format!("{mine} requests of this client are under way or wait to be fetched");
            return Err(refuse(Code::Limited, message));
        }
        if mine_kept >= self.limits.client {
            evict(table, |name| name.0 == key);
        }
        let all = table.entries.len() + table.receiving.values().sum::<usize>();
        if all >= self.limits.all && !evict(table, |_| true) {
            return Err(refuse(Code::Busy, format!("{all} requests are under way")));
        }
        Ok(())
    }

    /// Takes a request, or finds that it is there already. `digest` is the hash of the payload.
    pub(crate) fn submit(&self, admission: Admission<'_>, payload: Bytes, digest: [u8; 32]) -> Result<(), Refusal> {
        let frame = admission.frame;
        // It is about to count as a request.
        drop(admission);
        let name = (frame.key, frame.request);
        let mut table = self.table();
        let mut kept = None;
        match table.entries.get_mut(&name) {
            Some(known) if known.frame.round == frame.round => {
                if known.digest != digest || known.frame.batch != frame.batch {
                    return Err(refuse(Code::Conflict, format!("request {} is another one", frame.request)));
                }
                // What failed may be tried again; nothing else is done twice.
                if !matches!(known.state, State::Failed(_)) {
                    return Ok(());
                }
                kept = known.kept.take();
                table.entries.remove(&name);
                // What the rounds before left is gone with the failure, unless it came before anything was done.
                if frame.round != 0 && kept.is_none() {
                    return Err(unknown(frame.request));
                }
                self.room(&mut table, frame.key)?;
            }
            Some(known) if known.next_is(&frame) => {
                if known.frame.batch != frame.batch {
                    return Err(refuse(Code::Conflict, format!("request {} has another batch", frame.request)));
                }
                kept = known.kept.take();
            }
            Some(known) => return Err(wrong_round(&known.frame, &frame)),
            None if frame.round != 0 => return Err(unknown(frame.request)),
            None => self.room(&mut table, frame.key)?,
        }
        if !table.open {
            return Err(refuse(Code::Ending, "the server ends"));
        }
        let (state, seen, watch) = (State::Queued(payload), Instant::now(), Arc::default());
        let entry = Entry { frame, digest, state, kept, seen, watch };
        table.entries.insert(name, entry);
        table.queue.push(frame.key, Waiting::Evaluate(frame.request));
        drop(table);
        self.work.notify_one();
        Ok(())
    }

    /// Has keys checked.
    pub(crate) fn submit_check(&self, key: KeyId) {
        self.table().queue.push(key, Waiting::Check);
        self.work.notify_one();
    }

    /// Where a request is. Asking keeps it alive.
    pub(crate) fn ask(&self, name: Name, round: u32) -> Result<Answer, Refusal> {
        let mut table = self.table();
        let entry = table.entries.get_mut(&name).filter(|e| e.frame.round == round).ok_or_else(|| unknown(name.1))?;
        entry.seen = Instant::now();
        let pending = |state| {
            let done = entry.watch.done.load(Ordering::Relaxed);
            Answer::Pending(Progress { state, done, total: self.limits.instructions }, Arc::clone(&entry.watch))
        };
        match &mut entry.state {
            State::Queued(_) => Ok(pending(RequestState::Queued)),
            State::Running => Ok(pending(RequestState::Running)),
            State::Failed(refusal) => Err(refusal.clone()),
            State::Done { frame, fetched } => {
                *fetched = true;
                Ok(Answer::Done(frame.clone()))
            }
        }
    }

    /// Forgets a request. One that runs is evaluated to its end, for nobody.
    pub(crate) fn forget(&self, name: Name) {
        let mut table = self.table();
        remove(&mut table, name);
    }

    /// The next task; waits for one. `None` once the server ends.
    pub(crate) fn next(&self) -> Option<Task> {
        let mut table = self.table();
        loop {
            if !table.open {
                return None;
            }
            match table.queue.pop() {
                Some((key, Waiting::Check)) => return Some(Task::Check(key)),
                Some((key, Waiting::Evaluate(request))) => {
                    let Some(entry) = table.entries.get_mut(&(key, request)) else { continue };
                    let State::Queued(payload) = std::mem::replace(&mut entry.state, State::Running) else { continue };
                    let (frame, kept, watch) = (entry.frame, entry.kept.take(), Arc::clone(&entry.watch));
                    let task = Task::Evaluate { frame, payload, kept, watch };
                    table.running += 1;
                    return Some(task);
                }
                None => table = self.work.wait(table).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A worker is done with a request, and leaves something for its next round.
    pub(crate) fn finish(
        &self,
        frame: &Frame,
        watch: &Arc<Watch>,
        outcome: Result<Bytes, Refusal>,
        kept: Option<Kept>,
    ) {
        let mut table = self.table();
        table.running -= 1;
        // It may have been forgotten meanwhile, and even have come again.
        let entry = table.entries.get_mut(&(frame.key, frame.request)).filter(|e| Arc::ptr_eq(&e.watch, watch));
        if let Some(entry) = entry {
            entry.kept = kept;
            entry.state = match outcome {
                Ok(frame) => State::Done { frame, fetched: false },
                Err(refusal) => State::Failed(refusal),
            };
        }
        drop(table);
        watch.changed.notify_waiters();
    }

    /// Removes what nobody has asked for in too long, but not what runs, nor what something is being received for: a round may take long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut table = self.table();
        let old =
            |e: &Entry| !matches!(e.state, State::Running) && now.saturating_duration_since(e.seen) > self.limits.ttl;
        let gone = table.entries.iter().filter(|(name, e)| old(e) && !table.again.contains(name));
        let gone: Vec<Name> = gone.map(|(name, _)| *name).collect();
        for name in gone {
            remove(&mut table, name);
        }
    }

    /// No more tasks are taken or given; what waits is forgotten, what runs goes on.
    pub(crate) fn close(&self) {
        let mut table = self.table();
        table.open = false;
        let waiting = table.entries.iter().filter(|(_, e)| matches!(e.state, State::Queued(_)));
        let waiting: Vec<Name> = waiting.map(|(name, _)| *name).collect();
        for name in waiting {
            remove(&mut table, name);
        }
        drop(table);
        self.work.notify_all();
    }

    pub(crate) fn counts(&self) -> Counts {
        let table = self.table();
        let mut counts = Counts { queued: table.queue.len(), running: table.running, ..Counts::default() };
        for entry in table.entries.values() {
            match entry.state {
                State::Done { fetched: true, .. } => counts.fetched += 1,
                State::Done { fetched: false, .. } => counts.unfetched += 1,
                _ => {}
            }
        }
        counts
    }

    /// Bytes that wait for their next round.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.table().entries.values().filter_map(|e| e.kept.as_ref()).map(Kept::bytes).sum()
    }
}

impl Entry {
    /// Whether its client is expected to come back with the next round.
    fn between_rounds(&self) -> bool {
        self.frame.round + 1 < self.frame.rounds && matches!(self.state, State::Done { .. })
    }

    /// Whether `frame` is the round after this one, whose result is there.
    fn next_is(&self, frame: &Frame) -> bool {
        self.frame.round.checked_add(1) == Some(frame.round) && matches!(self.state, State::Done { .. })
    }
}

/// Removes a request and wakes those who wait for it.
fn remove(table: &mut Table, name: Name) {
    let Some(entry) = table.entries.remove(&name) else { return };
    if matches!(entry.state, State::Queued(_)) {
        table.queue.retain(name.0, |waiting| !matches!(waiting, Waiting::Evaluate(request) if *request == name.1));
    }
    entry.watch.changed.notify_waiters();
}

/// Removes the one of those that do not count which was asked for the longest ago.
fn evict(table: &mut Table, of: impl Fn(&Name) -> bool) -> bool {
    let idle = table.entries.iter().filter(|(name, e)| of(name) && !e.counts());
    let Some(oldest) = idle.min_by_key(|(_, e)| e.seen).map(|(name, _)| *name) else { return false };
    remove(table, oldest);
    true
}

fn unknown(request: RequestId) -> Refusal {
    refuse(Code::UnknownRequest, format!("there is no request {request} here"))
}

fn wrong_round(known: &Frame, sent: &Frame) -> Refusal {
    refuse(
        Code::Conflict,
        format!("round {} of request {}, which is at round {}", sent.round, sent.request, known.round),
    )
}

#[cfg(test)]
mod tests;
