//! Values on disk.

use crate::error::OpError;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// What can be written, read and sought in.
pub trait Storage: Read + Write + Seek + Send {}

impl<T: Read + Write + Seek + Send> Storage for T {}

/// How storage is made: the runtime opens no files itself.
type Open = dyn Fn() -> io::Result<Box<dyn Storage>> + Send + Sync;

/// Where values go that do not fit memory.
#[derive(Clone)]
pub struct Spilling {
    folder: PathBuf,
    open: Arc<Open>,
}

impl Spilling {
    /// `open` makes empty storage, of which nothing is left when it is dropped; it is called when the first value goes there. `folder`
    /// is where that lies, for messages.
    pub fn new(folder: PathBuf, open: impl Fn() -> io::Result<Box<dyn Storage>> + Send + Sync + 'static) -> Self {
        Spilling { folder, open: Arc::new(open) }
    }
}

impl std::fmt::Debug for Spilling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spilling").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Values in storage that is made when the first one goes there.
pub(crate) struct Spill {
    to: Spilling,
    storage: Option<Box<dyn Storage>>,
    /// Places that are free again, by their size.
    free: BTreeMap<u64, Vec<u64>>,
    end: u64,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("to", &self.to).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Spill {
    pub(crate) fn new(to: &Spilling) -> Self {
        Spill { to: to.clone(), storage: None, free: BTreeMap::new(), end: 0 }
    }

    fn failed(&self, source: io::Error) -> OpError {
        OpError::Spill { folder: self.to.folder.clone(), source }
    }

    /// Writes the polynomials of a value one after the other; gives the place.
    pub(crate) fn write(&mut self, parts: &[&[u64]]) -> Result<(u64, u64), OpError> {
        let size = parts.iter().map(|p| 8 * p.len() as u64).sum();
        let place = self.place(size);
        self.write_at(place, parts)?;
        Ok((place, size))
    }

    /// A place for so many bytes, which nothing was written to.
    pub(crate) fn place(&mut self, size: u64) -> u64 {
        self.free.get_mut(&size).and_then(Vec::pop).unwrap_or_else(|| {
            self.end += size;
            self.end - size
        })
    }

    /// Writes to a place, or to some of it.
    pub(crate) fn write_at(&mut self, place: u64, parts: &[&[u64]]) -> Result<(), OpError> {
        self.put(place, parts).map_err(|e| self.failed(e))
    }

    fn put(&mut self, place: u64, parts: &[&[u64]]) -> io::Result<()> {
        let storage = match &mut self.storage {
            Some(storage) => storage,
            None => self.storage.insert((self.to.open)()?),
        };
        storage.seek(SeekFrom::Start(place))?;
        parts.iter().try_for_each(|part| storage.write_all(bytemuck::cast_slice(part)))
    }

    /// Reads what was written at a place; it stays there.
    pub(crate) fn read(&mut self, place: u64, parts: &mut [&mut [u64]]) -> Result<(), OpError> {
        let mut get = || -> io::Result<()> {
            let storage = self.storage.as_mut().ok_or(io::ErrorKind::NotFound)?;
            storage.seek(SeekFrom::Start(place))?;
            parts.iter_mut().try_for_each(|part| storage.read_exact(bytemuck::cast_slice_mut(part)))
        };
        get().map_err(|e| self.failed(e))
    }

    /// Lets a place be written again.
    pub(crate) fn free(&mut self, (place, size): (u64, u64)) {
        self.free.entry(size).or_default().push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_places_are_used_again() {
        let memory = || Ok(Box::new(io::Cursor::new(Vec::new())) as Box<dyn Storage>);
        let mut spill = Spill::new(&Spilling::new(PathBuf::new(), memory));
        let first = spill.write(&[&[1, 2], &[3, 4]]).expect("writes");
        let second = spill.write(&[&[5, 6, u64::MAX]]).expect("writes");
        let (mut a, mut b, mut c) = ([0; 2], [0; 2], [0; 3]);
        spill.read(first.0, &mut [&mut a, &mut b]).expect("reads");
        spill.read(second.0, &mut [&mut c]).expect("reads");
        assert_eq!((a, b, c), ([1, 2], [3, 4], [5, 6, u64::MAX]));
        spill.free(first);
        assert_eq!(spill.write(&[&[7; 4]]).expect("writes"), first);
        assert_eq!(spill.write(&[&[7; 4]]).expect("writes").0, second.0 + second.1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let none = Spilling::new("missing".into(), || Err(io::ErrorKind::NotFound.into()));
        let error = Spill::new(&none).write(&[&[1]]).expect_err("no folder").to_string();
        assert!(error.contains("missing") && error.contains("cannot spill"), "{error}");
    }
}
