//! Payloads of rounds that do not fit memory: temporary files without names, of which nothing is left whatever ends the request or the process.

use axum::body::Bytes;
use fhec_runtime::stream::Spilling;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder for temporary files.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    pub(crate) fn new(folder: &Path) -> Self {
        Spool { folder: folder.to_owned() }
    }

    /// An empty file.
    pub(crate) fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.folder)
    }

    /// The same for what an evaluation does not keep in memory.
    pub(crate) fn spilling(&self) -> Spilling {
        let this = self.clone();
        Spilling::new(self.folder.clone(), move || Ok(Box::new(this.file()?)))
    }

    /// What was written to a file, as bytes that are read from there when they are used. The file is gone with the last of them.
    pub(crate) fn bytes(&self, file: &File) -> io::Result<Bytes> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the file has no name, so that nobody else can open it, and nothing here writes to one that was mapped.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Bytes::from_owner(map))
    }
}

/// A file from some place on, as if it began there.
#[derive(Debug)]
pub(crate) struct From {
    file: File,
    start: u64,
}

impl From {
    /// The part of a file behind its first `start` bytes, from its beginning.
    pub(crate) fn new(mut file: File, start: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(From { file, start })
    }

    /// The whole file.
    pub(crate) fn into_inner(self) -> File {
        self.file
    }
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for From {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for From {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(at.saturating_add(self.start)),
            other => other,
        };
        let at = self.file.seek(to)?;
        at.checked_sub(self.start).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_no_file_is_left() {
        let folder = tempfile::tempdir().expect("folder");
        let spool = Spool::new(folder.path());
        let mut file = From::new(spool.file().expect("file"), 4).expect("seeks");
        file.write_all(b"body").expect("writes");
        assert_eq!(
            (file.seek(SeekFrom::End(0)).expect("seeks"), file.seek(SeekFrom::Start(2)).expect("seeks")),
            (4, 2)
        );
        let mut rest = String::new();
        file.read_to_string(&mut rest).expect("reads");
        assert_eq!(rest, "dy");
        assert!(file.seek(SeekFrom::Current(-7)).is_err(), "before the beginning");
        let mut file = file.into_inner();
        file.rewind().expect("seeks");
        file.write_all(b"head").expect("writes");
        let bytes = spool.bytes(&file).expect("maps");
        drop(file);
        assert_eq!(bytes.slice(2..6), &b"adbo"[..]);
        assert!(spool.bytes(&spool.file().expect("file")).expect("maps").is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
        assert!(Spool::new(&folder.path().join("missing")).file().is_err());
    }
}
