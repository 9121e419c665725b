//! The sets of keys that are in memory: as many as fit, those used last.

use super::{Code, KeyId, Refusal, Server, no_disk, refuse, refused, stream_evaluation_keys};
use fhec_ckks::{CkksError, UniformHalves, error::ContainerError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Loaded {
    /// The plan with its weights, without keys.
    base: Server,
    places: usize,
    halves: UniformHalves,
    inner: Mutex<Inner>,
    changed: Condvar,
    loads: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    servers: BTreeMap<KeyId, (Arc<Server>, u64)>,
    loading: BTreeSet<KeyId>,
    clock: u64,
}

/// Gives the place of a set that is being read back, whatever happens.
struct Reading<'a>(&'a Loaded, KeyId);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.inner().loading.remove(&self.1);
        self.0.changed.notify_all();
    }
}

impl Loaded {
    /// Room for `places` sets; at least as many as are used at the same time.
    pub(super) fn new(base: Server, places: usize, halves: UniformHalves) -> Self {
        let (inner, changed) = (Mutex::default(), Condvar::new());
        Loaded { base, places: places.max(1), halves, inner, changed, loads: AtomicU64::new(0) }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What evaluates with a set of keys, read from a file of `size` bytes unless it is in memory. Waits while all places are
    /// taken by sets in use.
    pub(super) fn get(&self, id: KeyId, path: &Path, size: u64) -> Result<Arc<Server>, Refusal> {
        let mut inner = self.inner();
        loop {
            inner.clock += 1;
            let now = inner.clock;
            if let Some((server, used)) = inner.servers.get_mut(&id) {
                *used = now;
                return Ok(Arc::clone(server));
            }
            if !inner.loading.contains(&id) && self.make_room(&mut inner) {
                break;
            }
            // Nobody tells when a set that was in use is no longer.
            const AGAIN: Duration = Duration::from_millis(20);
            inner = self.changed.wait_timeout(inner, AGAIN).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.loading.insert(id);
        drop(inner);
        let reading = Reading(self, id);
        let server = Arc::new(self.read(path, size)?);
        let mut inner = self.inner();
        let now = inner.clock;
        inner.servers.insert(id, (Arc::clone(&server), now));
        drop(inner);
        drop(reading);
        Ok(server)
    }

    /// Frees a place, if need be that of the set not in use that was used the longest ago.
    fn make_room(&self, inner: &mut Inner) -> bool {
        if inner.servers.len() + inner.loading.len() < self.places {
            return true;
        }
        let idle = inner.servers.iter().filter(|(_, (server, _))| Arc::strong_count(server) == 1);
        let Some(oldest) = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id) else { return false };
        inner.servers.remove(&oldest);
        true
    }

    fn read(&self, path: &Path, size: u64) -> Result<Server, Refusal> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let file = File::open(path).map_err(|e| no_disk(&e))?;
        let backend = self.base.backend();
        let keys = stream_evaluation_keys(file, size, backend.context(), backend.verified().hash(), self.halves);
        let keys = keys.map_err(|error| match error {
            CkksError::Container(ContainerError::Read(error)) => no_disk(&error),
            error => refuse(Code::Refused, error.to_string()),
        })?;
        self.base.with_keys(Arc::new(keys)).map_err(refused)
    }

    /// Removes a set, if it is there.
    pub(super) fn forget(&self, id: KeyId) {
        self.inner().servers.remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.inner().servers.len()
    }

    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}
