//! A file of keys that grows.

use super::no_disk;
use crate::error::refuse;
use fhec_protocol::{Code, KeyId, Refusal};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that have come so far.
#[derive(Debug)]
pub(super) struct Upload {
    have: AtomicU64,
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    /// `None` once the upload is given up.
    file: Option<File>,
    /// Number of the last ticket: only its holder may write.
    ticket: u64,
}

/// The right to append, until somebody else has it: a client whose connection broke comes back before the server has noticed
/// that the old one is dead.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: KeyId,
    upload: Arc<Upload>,
    number: u64,
}

impl Upload {
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        Ok(Self::with(File::create(path)?, 0))
    }

    /// Continues a file of `have` bytes.
    pub(super) fn reopen(path: &Path, have: u64) -> std::io::Result<Self> {
        Ok(Self::with(File::options().append(true).open(path)?, have))
    }

    fn with(file: File, have: u64) -> Self {
        Upload { have: AtomicU64::new(have), writer: Mutex::new(Writer { file: Some(file), ticket: 0 }) }
    }

    pub(super) fn have(&self) -> u64 {
        self.have.load(Ordering::Acquire)
    }

    pub(super) fn ticket(self: &Arc<Self>, id: KeyId) -> Ticket {
        let mut writer = self.writer();
        writer.ticket += 1;
        Ticket { id, upload: Arc::clone(self), number: writer.ticket }
    }

    /// Nothing can be appended any more.
    pub(super) fn close(&self) {
        self.writer().file = None;
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether this appends to `upload`.
    pub(super) fn is_for(&self, upload: &Arc<Upload>) -> bool {
        Arc::ptr_eq(&self.upload, upload)
    }

    /// Appends bytes to a file that shall have `size`; returns how many are there.
    pub(super) fn append(&self, bytes: &[u8], size: u64) -> Result<u64, Refusal> {
        let mut writer = self.upload.writer();
        if writer.ticket != self.number {
            return Err(refuse(Code::Offset, "the upload is continued by another connection"));
        }
        let Some(file) = &mut writer.file else {
            return Err(refuse(Code::UnknownKey, "the upload has expired"));
        };
        let have = self.upload.have();
        let after = have + bytes.len() as u64;
        if after > size {
            return Err(refuse(Code::TooLarge, format!("evaluation keys of this plan have {size} bytes")));
        }
        if let Err(error) = file.write_all(bytes) {
            // Part of it may be there; what is counted is there as a whole.
            let _ = file.set_len(have);
            return Err(no_disk(&error));
        }
        self.upload.have.store(after, Ordering::Release);
        Ok(after)
    }
}
