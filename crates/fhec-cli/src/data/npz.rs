//! NumPy archives: a zip file of npy arrays, stored or deflated.
//!
//! Only what NumPy writes is read: the central directory names the entries, each is stored or deflated.

use super::{Array, npy};
use crate::files::{MAX_DATA, read_bounded};
use anyhow::{Context, Result, bail, ensure};
use flate2::read::DeflateDecoder;

/// First bytes of a zip file.
pub(crate) const MAGIC: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
/// Bytes of the end record without its comment.
const END_LEN: usize = 22;
/// Most arrays in one archive.
const MAX_ENTRIES: usize = 4096;

/// Reads all arrays of an archive, in its order, by name.
pub(crate) fn read(file: &[u8]) -> Result<Vec<(String, Array)>> {
    let (count, mut at) = directory(file)?;
    let mut arrays = Vec::new();
    // All entries together may unpack to no more than one data file.
    let mut budget = MAX_DATA;
    for _ in 0..count {
        let entry = Entry::read(file, at)?;
        at = entry.next;
        let Some(name) = entry.name.strip_suffix(".npy") else { continue };
        let context = || format!("array '{name}' of the archive");
        let bytes = entry.unpack(file, budget).with_context(context)?;
        budget -= bytes.len() as u64;
        arrays.push((name.to_owned(), npy::read(&bytes).with_context(context)?));
    }
    ensure!(!arrays.is_empty(), "the archive holds no array");
    Ok(arrays)
}

fn short(file: &[u8], at: usize) -> Result<usize> {
    let bytes = at.checked_add(2).and_then(|end| file.get(at..end)).context("the archive is cut off")?;
    Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn word(file: &[u8], at: usize) -> Result<usize> {
    Ok(short(file, at)? | short(file, at + 2)? << 16)
}

/// Number of entries and place of the central directory.
fn directory(file: &[u8]) -> Result<(usize, usize)> {
    // The end record is last, behind it at most a comment of 64 KiB.
    let last = file.len().checked_sub(END_LEN).context("the archive is cut off")?;
    let first = last.saturating_sub(0xffff);
    let end = (first..=last).rev().find(|&i| file[i..].starts_with(END)).context("the archive is cut off")?;
    let (count, at) = (short(file, end + 10)?, word(file, end + 16)?);
    ensure!(count <= MAX_ENTRIES, "an archive of {count} entries");
    Ok((count, at))
}

/// One entry of the central directory.
struct Entry {
    name: String,
    method: usize,
    packed: usize,
    local: usize,
    next: usize,
}

impl Entry {
    fn read(file: &[u8], at: usize) -> Result<Self> {
        ensure!(file.get(at..).is_some_and(|f| f.starts_with(CENTRAL)), "the archive's directory is damaged");
        let [name, extra, comment] = [28, 30, 32].map(|o| short(file, at + o));
        let (name, start) = (name?, at + 46);
        let text = file.get(start..start + name).context("the archive is cut off")?;
        ensure!(short(file, at + 8)? & 1 == 0, "the archive is encrypted");
        Ok(Entry {
            name: String::from_utf8_lossy(text).into_owned(),
            method: short(file, at + 10)?,
            packed: word(file, at + 20)?,
            local: word(file, at + 42)?,
            next: start + name + extra? + comment?,
        })
    }

    fn unpack(&self, file: &[u8], limit: u64) -> Result<Vec<u8>> {
        ensure!(file.get(self.local..).is_some_and(|f| f.starts_with(MAGIC)), "the entry is not where it belongs");
        let start = self.local + 30 + short(file, self.local + 26)? + short(file, self.local + 28)?;
        let end = start.checked_add(self.packed);
        let packed = end.and_then(|end| file.get(start..end)).context("the entry is cut off")?;
        match self.method {
            // Entries may overlap, so all together may be longer than the file.
            0 => {
                ensure!(packed.len() as u64 <= limit, "more than {}", crate::format::bytes(MAX_DATA));
                Ok(packed.to_vec())
            }
            8 => read_bounded(DeflateDecoder::new(packed), limit),
            other => bail!("compression method {other} is not supported"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Values;
    use super::*;
    use std::io::Write;

    /// A zip file with one entry.
    fn archive(name: &str, content: &[u8], deflate: bool) -> Vec<u8> {
        let packed = if deflate {
            let mut out = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            out.write_all(content).and_then(|()| out.finish()).expect("packs")
        } else {
            content.to_vec()
        };
        let method = if deflate { 8u16 } else { 0 };
        let mut out = MAGIC.to_vec();
        out.extend([20, 0, 0, 0]);
        out.extend(method.to_le_bytes());
        out.extend([0; 16]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(&packed);
        let directory = out.len() as u32;
        out.extend(CENTRAL);
        out.extend([20, 0, 20, 0, 0, 0]);
        out.extend(method.to_le_bytes());
        out.extend([0; 8]);
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend((content.len() as u32).to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend([0; 16]);
        out.extend(name.as_bytes());
        out.extend(END);
        out.extend([0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
        out.extend(directory.to_le_bytes());
        out.extend([0, 0]);
        out
    }

    #[test]
    fn stored_and_deflated_entries_read() {
        let mut inner = Vec::new();
        npy::write(&mut inner, &[2], &[1.0, 2.0]).expect("writes");
        for deflate in [false, true] {
            let arrays = read(&archive("x.npy", &inner, deflate)).expect("reads");
            assert_eq!(arrays[0].0, "x");
            assert_eq!(arrays[0].1.values, Values::Floats(vec![1.0, 2.0]));
        }
    }

    #[test]
    fn damaged_archives_are_refused_without_panic() {
        let mut inner = Vec::new();
        npy::write(&mut inner, &[2], &[1.0, 2.0]).expect("writes");
        let good = archive("x.npy", &inner, true);
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = read(&bad);
        }
        assert!(read(&archive("x.txt", b"hello", false)).is_err());
    }
}
