//! Values on disk.

use crate::error::OpError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A temporary file without a name: whatever ends the process, nothing is left of it. It is made when the first value goes there.
#[derive(Debug)]
pub(super) struct Spill {
    folder: PathBuf,
    file: Option<File>,
    /// Places that are free again, by their size.
    free: BTreeMap<u64, Vec<u64>>,
    end: u64,
}

impl Spill {
    pub(super) fn new(folder: &Path) -> Self {
        Spill { folder: folder.to_owned(), file: None, free: BTreeMap::new(), end: 0 }
    }

    fn failed(&self, source: io::Error) -> OpError {
        OpError::Spill { folder: self.folder.clone(), source }
    }

    /// Writes the polynomials of a value one after the other; gives the place.
    pub(super) fn write(&mut self, parts: &[&[u64]]) -> Result<(u64, u64), OpError> {
        let size = parts.iter().map(|p| 8 * p.len() as u64).sum();
        let place = match self.free.get_mut(&size).and_then(Vec::pop) {
            Some(place) => place,
            None => {
                self.end += size;
                self.end - size
            }
        };
        self.put(place, parts).map_err(|e| self.failed(e))?;
        Ok((place, size))
    }

    fn put(&mut self, place: u64, parts: &[&[u64]]) -> io::Result<()> {
        let mut file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.seek(SeekFrom::Start(place))?;
        parts.iter().try_for_each(|part| file.write_all(bytemuck::cast_slice(part)))
    }

    /// Reads what was written at a place; it stays there.
    pub(super) fn read(&self, place: u64, parts: &mut [&mut [u64]]) -> Result<(), OpError> {
        let mut get = || -> io::Result<()> {
            let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            file.seek(SeekFrom::Start(place))?;
            parts.iter_mut().try_for_each(|part| file.read_exact(bytemuck::cast_slice_mut(part)))
        };
        get().map_err(|e| self.failed(e))
    }

    /// Lets a place be written again.
    pub(super) fn free(&mut self, (place, size): (u64, u64)) {
        self.free.entry(size).or_default().push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back_and_places_are_used_again() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut spill = Spill::new(folder.path());
        let first = spill.write(&[&[1, 2], &[3, 4]]).expect("writes");
        let second = spill.write(&[&[5, 6, u64::MAX]]).expect("writes");
        // It has no name, so nothing needs to be removed.
        if cfg!(unix) {
            assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
        }
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
        let folder = tempfile::tempdir().expect("temporary folder");
        let missing = folder.path().join("missing");
        let error = Spill::new(&missing).write(&[&[1]]).expect_err("no folder").to_string();
        assert!(error.contains("missing") && error.contains("cannot spill"), "{error}");
    }
}
