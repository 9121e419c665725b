//! Reading and writing files: bounded reads, memory maps, and writes that are all or nothing.

use anyhow::{Context, Result, bail};
use fhec_ckks::container::MAGIC;
use fhec_math::Zeroizing;
use fhec_plan::SharedBytes;
use fhec_runtime::stream::Spilling;
use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Largest data file that is read into memory, bytes; also the most that a compressed file may unpack to.
pub(crate) const MAX_DATA: u64 = 4 << 30;

/// How the names of temporary files begin and end.
const TEMPORARY: (&str, &str) = (".fhec-", ".tmp");

/// Whether a file is called like one that [`stage`] has not put in its place; a process that was killed leaves such.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

/// Makes a file that is written bit by bit, such as a log; whatever was there is gone.
pub(crate) fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| cannot_write(path))
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody whom the umask lets.
    Public,
    /// The owner alone (mode 0600).
    Secret,
}

/// Reads a whole file of at most [`MAX_DATA`] bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    read_bounded(file, MAX_DATA).with_context(|| cannot_read(path))
}

/// Whether a file begins like those of keys and ciphertexts. Pipes can be read only once and are left alone.
pub(crate) fn is_container(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let mut start = Vec::new();
    open(path)?.0.take(MAGIC.len() as u64).read_to_end(&mut start).with_context(|| cannot_read(path))?;
    Ok(start == MAGIC)
}

/// Opens a file or a pipe, and says whether it is a regular file. Devices are refused: they may not end.
fn open(path: &Path) -> Result<(File, bool)> {
    let kind = fs::metadata(path).with_context(|| cannot_read(path))?.file_type();
    if kind.is_dir() {
        bail!("{}: it is a folder", cannot_read(path));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_char_device() || kind.is_block_device() {
            bail!("{}: it is a device", cannot_read(path));
        }
    }
    Ok((File::open(path).with_context(|| cannot_read(path))?, kind.is_file()))
}

/// Reads a source to its end, which must come within `limit` bytes. Memory grows with what is really
/// there, never with what a header claims.
pub(crate) fn read_bounded(source: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("more than {}", crate::format::bytes(limit));
    }
    Ok(bytes)
}

/// A file to read from front to end, and its length. Anything but a regular file (a pipe) is read into memory.
pub(crate) fn stream(path: &Path) -> Result<(Box<dyn Read>, u64)> {
    let (file, regular) = open(path)?;
    if regular {
        let len = file.metadata().with_context(|| cannot_read(path))?.len();
        return Ok((Box::new(file), len));
    }
    let bytes = read_bounded(file, MAX_DATA).with_context(|| cannot_read(path))?;
    let len = bytes.len() as u64;
    Ok((Box::new(Cursor::new(bytes)), len))
}

/// Maps a regular file into memory; anything else (a pipe) is read.
pub(crate) fn map(path: &Path) -> Result<SharedBytes> {
    let (file, regular) = open(path)?;
    if !regular {
        return Ok(Arc::new(read_bounded(file, MAX_DATA).with_context(|| cannot_read(path))?));
    }
    map_open(&file, path)
}

/// Maps a regular file that is open, and that nothing here will write to any more.
pub(crate) fn map_open(file: &File, path: &Path) -> Result<SharedBytes> {
    // SAFETY: the map is only read. That nobody else shortens or changes the file meanwhile is the usual
    // condition of memory maps; our own writes replace files and never change them.
    let map = unsafe { memmap2::Mmap::map(file) }.with_context(|| cannot_read(path))?;
    Ok(Arc::new(map))
}

/// An empty file without a name in a folder: whatever ends the process, nothing is left of it.
pub(crate) fn nameless(folder: &Path) -> Result<File> {
    tempfile::tempfile_in(folder).with_context(|| cannot_write(folder))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// A file that is written completely but is not in its place yet.
pub(crate) struct Staged {
    target: PathBuf,
    /// `None` when the target is no regular file and was written directly.
    temporary: Option<NamedTempFile>,
}

impl Staged {
    /// Puts the file in its place, in one step.
    pub(crate) fn commit(self) -> Result<()> {
        let Some(temporary) = self.temporary else { return Ok(()) };
        temporary.persist(&self.target).map_err(|e| e.error).with_context(|| cannot_write(&self.target))?;
        Ok(())
    }
}

/// Writes a temporary file beside `path`, to be put in place by [`Staged::commit`]. If anything fails the
/// temporary file is removed and whatever was at `path` is still there.
///
/// A target that exists and is no regular file (`/dev/stdout`, a named pipe) cannot be replaced; it is
/// written directly.
pub(crate) fn stage(path: &Path, access: Access, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Staged> {
    let special = match fs::metadata(path) {
        Ok(found) if found.is_dir() => bail!("cannot write {}: it is a folder", path.display()),
        Ok(found) => !found.is_file(),
        Err(_) => false,
    };
    if special {
        let file = File::create(path).with_context(|| cannot_write(path))?;
        fill(file, access, write).with_context(|| cannot_write(path))?;
        return Ok(Staged { target: path.to_owned(), temporary: None });
    }
    // Through symbolic links, so that a link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The error of the temporary file itself would name that file.
    fs::metadata(folder).with_context(|| cannot_write(path))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if access == Access::Secret { 0o600 } else { 0o666 };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let temporary = builder.tempfile_in(folder).with_context(|| cannot_write(path))?;
    let temporary = fill(temporary, access, write).with_context(|| cannot_write(path))?;
    // A rename that reaches the disk before the contents would leave an empty file after a crash.
    temporary.as_file().sync_all().with_context(|| cannot_write(path))?;
    Ok(Staged { target, temporary: Some(temporary) })
}

/// Where values go that do not fit memory: a file without a name in a folder, so that whatever ends the process, nothing is left of it.
pub(crate) fn spilling(folder: PathBuf) -> Spilling {
    let inside = folder.clone();
    Spilling::new(folder, move || Ok(Box::new(tempfile::tempfile_in(&inside)?)))
}

/// Writes a file that `fill` makes in any order of its parts, all or nothing. A target that is no regular file gets it at the end.
pub(crate) fn write_at(path: &Path, spare: &Path, fill: impl FnOnce(File) -> Result<File>) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut file = fill(nameless(spare)?)?;
        file.seek(SeekFrom::Start(0)).with_context(|| cannot_read(spare))?;
        return write(path, Access::Public, |out| Ok(std::io::copy(&mut file, out).map(drop)?));
    }
    let staged = stage(path, Access::Public, |_| Ok(()))?;
    let Some(temporary) = &staged.temporary else { return Ok(()) };
    let file = temporary.reopen().with_context(|| cannot_write(path))?;
    let file = fill(file)?;
    file.sync_all().with_context(|| cannot_write(path))?;
    staged.commit()
}

/// Writes what `write` makes to `out`: through a buffer, or if it is secret from one block of memory that is wiped
/// afterwards.
fn fill<W: Write>(mut out: W, access: Access, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<W> {
    match access {
        Access::Public => {
            let mut buffered = BufWriter::with_capacity(1 << 20, out);
            write(&mut buffered)?;
            Ok(buffered.into_inner().map_err(|e| e.into_error())?)
        }
        Access::Secret => {
            let mut all = Wiped::default();
            write(&mut all)?;
            out.write_all(&all.0)?;
            out.flush()?;
            Ok(out)
        }
    }
}

/// Bytes in memory that leave no copy behind when they grow or go.
#[derive(Default)]
struct Wiped(Zeroizing<Vec<u8>>);

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // A vector that grows by itself leaves its old block as it is.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two().max(1 << 12)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes a file, all or nothing; see [`stage`].
pub(crate) fn write(path: &Path, access: Access, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    stage(path, access, write)?.commit()
}

/// Fails where [`write`] would fail for its place: what takes long is not begun for a result that cannot be kept.
pub(crate) fn writable(path: &Path) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Ok(());
    }
    stage(path, Access::Public, |_| Ok(())).map(drop)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Prints to standard output. A reader that went away (`fhec explain … | head`) ends the program
/// quietly, see [`is_closed_pipe`]; a full disk is an error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Whether an error only says that nobody reads standard output any more.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A line on standard error that says what was done.
pub(crate) fn status(message: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// A line on standard error that is no failure.
pub(crate) fn warn(message: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "fhec: warning: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_trace() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("x");
        fs::write(&path, "old").expect("writes");
        let failed = write(&path, Access::Public, |out| {
            out.write_all(b"new")?;
            bail!("stopped")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("lists").count(), 1);
        write(&path, Access::Public, |out| Ok(out.write_all(b"new")?)).expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
    }

    #[test]
    fn bounded_reads_stop() {
        assert!(read_bounded(std::io::repeat(0), 1000).is_err());
        assert_eq!(read_bounded(&[1u8; 1000][..], 1000).expect("fits").len(), 1000);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("secret");
        fs::write(&path, "old and readable").expect("writes");
        let large: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        let halves = large.split_at(7000);
        write(&path, Access::Secret, |out| Ok(out.write_all(halves.0).and_then(|()| out.write_all(halves.1))?))
            .expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), large);
        assert_eq!(fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
    }
}
