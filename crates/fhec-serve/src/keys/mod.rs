//! Evaluation keys of many clients: files on disk, some of them in memory.
//!
//! A file is named by the hash of its contents. It is complete or not: `HASH.part` grows as bytes come, and becomes
//! `HASH.keys` in one step when all of them are there, have that hash, and were read by the engine as keys for the plan. So
//! what has come survives a restart, and what is called `.keys` was right once.

mod loaded;
mod upload;

use crate::config::Config;
use crate::error::{ServeError, refuse, refused};
use crate::sizes::Sizes;
use fhec_ckks::container::stream_evaluation_keys;
use fhec_protocol::{Code, KeyId, KeyState, KeyStatus, Refusal, hex};
use fhec_runtime::Server;
use loaded::Loaded;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use upload::Upload;

pub(crate) use upload::Ticket;

/// Where a set of keys is.
#[derive(Debug)]
enum State {
    /// Bytes are missing.
    Partial(Arc<Upload>),
    /// All bytes are there; they wait to be checked or are being checked.
    Checking,
    /// The file is complete and right.
    Ready,
    /// The file was wrong, and is gone.
    Refused(Refusal),
}

#[derive(Debug)]
struct Entry {
    state: State,
    used: Instant,
    /// When the file's time was last set, which survives a restart; of an upload, when it began.
    touched: Instant,
}

impl Entry {
    fn new(state: State, used: Instant) -> Self {
        Entry { state, used, touched: used }
    }

    /// Whether it takes space on disk.
    fn stored(&self) -> bool {
        !matches!(self.state, State::Refused(_))
    }
}

/// How often the time of a file that is in use is set.
const TOUCH: Duration = Duration::from_secs(60);

/// Slowest upload that is waited for, bytes a second.
const SLOWEST: u64 = 64 << 10;

/// All sets of keys.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    size: u64,
    places: usize,
    key_ttl: Duration,
    upload_ttl: Duration,
    table: Mutex<BTreeMap<KeyId, Entry>>,
    loaded: Loaded,
}

/// What a client that wants to upload is told.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing is missing.
    Complete(KeyStatus),
    /// Bytes can be appended.
    Append(Ticket),
}

impl Keys {
    /// Opens the folder of a plan below that of the configuration, and returns what is in it and which sets must be checked.
    pub(crate) fn open(base: Server, sizes: &Sizes, config: &Config) -> Result<(Self, Vec<KeyId>), ServeError> {
        let hash = *base.backend().verified().hash();
        let folder = config.keys.join(&hex(&hash)[..16]);
        let in_folder = |source| ServeError::File { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(in_folder)?;
        let (mut table, mut unchecked) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&folder).map_err(in_folder)? {
            let entry = entry.map_err(in_folder)?;
            let Some((id, complete)) = parse_name(&entry.path()) else { continue };
            let meta = entry.metadata().map_err(in_folder)?;
            // A clock that was set back makes files of the future; they count as used now.
            let age = meta.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok()).unwrap_or_default();
            let now = Instant::now();
            let used = now.checked_sub(age).unwrap_or(now);
            let state = match (complete, meta.len()) {
                (true, len) if len == sizes.key_file => State::Ready,
                (false, len) if len == sizes.key_file => {
                    unchecked.push(id);
                    State::Checking
                }
                (false, len) if len < sizes.key_file => {
                    State::Partial(Arc::new(Upload::reopen(&entry.path(), len).map_err(in_folder)?))
                }
                // Of another build, or damaged.
                _ => {
                    fs::remove_file(entry.path()).map_err(in_folder)?;
                    continue;
                }
            };
            // Should both be there, the complete one counts, whatever the order.
            if complete || !table.contains_key(&id) {
                table.insert(id, Entry::new(state, used));
            }
        }
        let keys = Keys {
            folder,
            size: sizes.key_file,
            places: sizes.keys_on_disk,
            key_ttl: config.key_ttl,
            upload_ttl: config.upload_ttl,
            table: Mutex::new(table),
            loaded: Loaded::new(base, sizes.keys_in_memory, sizes.halves),
        };
        Ok((keys, unchecked))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyId, Entry>> {
        // Every change of the table is complete before anything that could panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: KeyId, complete: bool) -> PathBuf {
        self.folder.join(format!("{id}.{}", if complete { "keys" } else { "part" }))
    }

    fn status_of(&self, entry: &Entry) -> Result<KeyStatus, Refusal> {
        let (state, have) = match &entry.state {
            State::Partial(upload) => (KeyState::Partial, upload.have()),
            State::Checking => (KeyState::Checking, self.size),
            State::Ready => (KeyState::Ready, self.size),
            State::Refused(refusal) => return Err(refusal.clone()),
        };
        Ok(KeyStatus { state, have, size: self.size })
    }

    /// What is there of a set of keys.
    pub(crate) fn status(&self, id: KeyId) -> Result<KeyStatus, Refusal> {
        match self.table().get(&id) {
            Some(entry) => self.status_of(entry),
            None => Err(unknown(id)),
        }
    }

    /// Whether a set of keys can be used; it counts as used now.
    pub(crate) fn use_now(&self, id: KeyId) -> Result<(), Refusal> {
        let mut table = self.table();
        let Some(entry) = table.get_mut(&id).filter(|e| matches!(e.state, State::Ready)) else {
            return Err(unknown(id));
        };
        let now = Instant::now();
        entry.used = now;
        if now.duration_since(entry.touched) >= TOUCH {
            entry.touched = now;
            // Only the age after a restart depends on it.
            let _ =
                File::options().append(true).open(self.path(id, true)).and_then(|f| f.set_modified(SystemTime::now()));
        }
        Ok(())
    }

    /// Begins or continues an upload whose next bytes belong at `offset`. Whoever appended before cannot any more.
    pub(crate) fn begin(&self, id: KeyId, offset: u64) -> Result<Begin, Refusal> {
        let mut table = self.table();
        let now = Instant::now();
        if table.get(&id).is_some_and(|e| matches!(e.state, State::Refused(_))) && offset == 0 {
            table.remove(&id);
        }
        if !table.contains_key(&id) {
            self.expire(&mut table, now);
            let stored = table.values().filter(|e| e.stored()).count();
            let partial = table.values().filter(|e| matches!(e.state, State::Partial(_))).count();
            // Uploads that never end must not take the places of all others.
            if stored >= self.places || partial >= self.places.div_ceil(2) {
                return Err(refuse(Code::Busy, "there is no room for more evaluation keys now"));
            }
            if offset != 0 {
                return Err(at(0));
            }
            let upload = Upload::create(&self.path(id, false)).map_err(|e| no_disk(&e))?;
            table.insert(id, Entry::new(State::Partial(Arc::new(upload)), now));
        }
        let Some(entry) = table.get_mut(&id) else { return Err(unknown(id)) };
        match &entry.state {
            State::Partial(upload) => {
                if offset != upload.have() {
                    return Err(at(upload.have()));
                }
                entry.used = now;
                Ok(Begin::Append(upload.ticket(id)))
            }
            _ => self.status_of(entry).map(Begin::Complete),
        }
    }

    /// Appends bytes. Says whether these were the last, so that the keys must be [checked](Self::check).
    pub(crate) fn append(&self, ticket: &Ticket, bytes: &[u8]) -> Result<bool, Refusal> {
        let have = ticket.append(bytes, self.size)?;
        let mut table = self.table();
        let Some(entry) = table.get_mut(&ticket.id) else { return Ok(false) };
        entry.used = Instant::now();
        let complete = have == self.size && matches!(&entry.state, State::Partial(upload) if ticket.is_for(upload));
        if complete {
            entry.state = State::Checking;
        }
        Ok(complete)
    }

    /// Checks keys whose bytes are all there: hash, and everything that the engine demands. Takes as long as reading them does.
    pub(crate) fn check(&self, id: KeyId) {
        let outcome = self.check_file(id);
        let mut table = self.table();
        let state = match outcome {
            Ok(()) => State::Ready,
            Err(refusal) => {
                self.loaded.forget(id);
                // Where it cannot be removed it is found and checked again after a restart.
                let _ = fs::remove_file(self.path(id, false));
                State::Refused(refusal)
            }
        };
        table.insert(id, Entry::new(state, Instant::now()));
    }

    /// A check failed in a way that it must not.
    pub(crate) fn give_up(&self, id: KeyId) {
        let refusal = refuse(Code::Failed, "the keys could not be checked");
        self.table().insert(id, Entry::new(State::Refused(refusal), Instant::now()));
    }

    fn check_file(&self, id: KeyId) -> Result<(), Refusal> {
        let path = self.path(id, false);
        let found = hash_file(&path).map_err(|e| no_disk(&e))?;
        if found != id.0 {
            return Err(refuse(Code::Refused, format!("the hash of what was uploaded is {}", hex(&found))));
        }
        self.loaded.get(id, &path, self.size)?;
        // What is complete must be on disk before it has the name of what is complete.
        File::open(&path).and_then(|f| f.sync_all()).map_err(|e| no_disk(&e))?;
        fs::rename(&path, self.path(id, true)).map_err(|e| no_disk(&e))
    }

    /// What evaluates with a set of keys, which is read from disk if need be.
    pub(crate) fn server(&self, id: KeyId) -> Result<Arc<Server>, Refusal> {
        self.use_now(id)?;
        self.loaded.get(id, &self.path(id, true), self.size).inspect_err(|refusal| {
            // It was right once: the disk has damaged it. The client may upload it again.
            if refusal.code == Code::Refused {
                self.remove(&mut self.table(), id);
            }
        })
    }

    /// Removes what nobody has used for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.expire(&mut self.table(), now);
    }

    fn expire(&self, table: &mut BTreeMap<KeyId, Entry>, now: Instant) {
        let since = |then| now.saturating_duration_since(then);
        // However slowly it goes.
        let longest = self.upload_ttl + Duration::from_secs(self.size / SLOWEST);
        let old = |entry: &Entry| {
            let ttl = match entry.state {
                State::Ready => self.key_ttl,
                State::Partial(_) if since(entry.touched) > longest => return true,
                State::Partial(_) | State::Refused(_) => self.upload_ttl,
                State::Checking => return false,
            };
            since(entry.used) > ttl
        };
        let gone: Vec<KeyId> = table.iter().filter(|(_, e)| old(e)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(table, id);
        }
    }

    fn remove(&self, table: &mut BTreeMap<KeyId, Entry>, id: KeyId) {
        let Some(entry) = table.remove(&id) else { return };
        self.loaded.forget(id);
        if let State::Partial(upload) = &entry.state {
            upload.close();
        }
        for complete in [true, false] {
            // One of the two is not there; what cannot be removed is found again after a restart.
            let _ = fs::remove_file(self.path(id, complete));
        }
    }

    /// Sets that are ready, sets that are not, and sets in memory.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let table = self.table();
        let ready = table.values().filter(|e| matches!(e.state, State::Ready)).count();
        let stored = table.values().filter(|e| e.stored()).count();
        (ready, stored - ready, self.loaded.len())
    }

    /// Times that keys were read.
    pub(crate) fn loads(&self) -> u64 {
        self.loaded.loads()
    }

    /// Bytes of a file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

fn unknown(id: KeyId) -> Refusal {
    refuse(Code::UnknownKey, format!("there are no evaluation keys {id} here"))
}

fn at(have: u64) -> Refusal {
    refuse(Code::Offset, format!("{have} bytes are here; continue there"))
}

fn no_disk(error: &std::io::Error) -> Refusal {
    refuse(Code::Busy, format!("evaluation keys cannot be kept now: {}", error.kind()))
}

/// The keys that a file holds by its name, and whether it is complete.
fn parse_name(path: &Path) -> Option<(KeyId, bool)> {
    let complete = match path.extension()?.to_str()? {
        "keys" => true,
        "part" => false,
        _ => return None,
    };
    Some((path.file_stem()?.to_str()?.parse().ok()?, complete))
}

fn hash_file(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            n => hasher.update(&buffer[..n]),
        };
    }
}
