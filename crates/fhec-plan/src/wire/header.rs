//! The fixed header and the placement of sections.
//!
//! ```text
//!   0  magic "FHECPLAN"
//!   8  format version, u32 little endian (as all numbers)
//!  12  number of sections, u32
//!  16  per section, 56 bytes: kind u32, zero u32, offset u64, length u64, BLAKE3 of the content
//! 240  BLAKE3 of bytes 0 … 239
//! 272  zeros up to 320
//! ```
//!
//! Sections follow in the order of the table, each at the next multiple of 64, gaps zero, and the file
//! ends with the last one. There is one way to place them, so every byte of a file is checked.

use crate::error::{PlanError, Section};
use std::ops::Range;

/// First bytes of a plan file.
pub const MAGIC: &[u8; 8] = b"FHECPLAN";
/// Version of the format that this build writes and reads.
pub const VERSION: u32 = 5;

/// The sections in file order; kinds are counted from 1.
const SECTIONS: [Section; 4] = [Section::Head, Section::Program, Section::Weights, Section::Report];
const ENTRY: usize = 56;
const HASHED: usize = 16 + SECTIONS.len() * ENTRY;
const ALIGN: usize = 64;
/// Bytes of the header with its padding.
pub(crate) const HEADER: usize = (HASHED + 32).next_multiple_of(ALIGN);

/// Hash of one section.
pub(crate) type Hash = [u8; 32];

/// The section table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    lengths: [usize; 4],
    hashes: [Hash; 4],
}

fn at(section: Section) -> usize {
    SECTIONS.iter().position(|&s| s == section).unwrap_or(0)
}

impl Header {
    /// A header for sections with the given contents.
    pub(crate) fn of(contents: [&[u8]; 4]) -> Self {
        Header { lengths: contents.map(<[u8]>::len), hashes: contents.map(|c| *blake3::hash(c).as_bytes()) }
    }

    /// Byte ranges of the sections, in order.
    fn ranges(&self) -> Option<[Range<usize>; 4]> {
        let mut next = HEADER;
        let mut out = [const { 0..0 }; 4];
        for (range, &len) in out.iter_mut().zip(&self.lengths) {
            let start = next.checked_next_multiple_of(ALIGN)?;
            *range = start..start.checked_add(len)?;
            next = range.end;
        }
        Some(out)
    }

    /// Hash that names the plan: over the kinds and hashes of all sections.
    pub(crate) fn plan_hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("fhec 2026 plan v1");
        for hash in &self.hashes {
            hasher.update(hash);
        }
        *hasher.finalize().as_bytes()
    }

    /// Writes header and sections to `out`; the last sections may be left out.
    pub(crate) fn write(&self, contents: &[&[u8]], out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let ranges = self.ranges().ok_or(std::io::ErrorKind::FileTooLarge)?;
        let mut fixed = Vec::with_capacity(HEADER);
        fixed.extend_from_slice(MAGIC);
        fixed.extend_from_slice(&VERSION.to_le_bytes());
        fixed.extend_from_slice(&(SECTIONS.len() as u32).to_le_bytes());
        for (kind, (range, hash)) in ranges.iter().zip(&self.hashes).enumerate() {
            fixed.extend_from_slice(&(kind as u32 + 1).to_le_bytes());
            fixed.extend_from_slice(&0u32.to_le_bytes());
            fixed.extend_from_slice(&(range.start as u64).to_le_bytes());
            fixed.extend_from_slice(&(range.len() as u64).to_le_bytes());
            fixed.extend_from_slice(hash);
        }
        let hash = blake3::hash(&fixed);
        fixed.extend_from_slice(hash.as_bytes());
        fixed.resize(HEADER, 0);
        out.write_all(&fixed)?;
        let mut written = HEADER;
        for (range, content) in ranges.iter().zip(contents) {
            out.write_all(&[0; ALIGN][..range.start - written])?;
            out.write_all(content)?;
            written = range.end;
        }
        Ok(())
    }

    /// Reads and checks the header alone.
    pub(crate) fn read(file: &[u8]) -> Result<Self, PlanError> {
        if !file.starts_with(MAGIC) {
            return Err(PlanError::NotAPlan);
        }
        let truncated = |needed: usize| PlanError::Truncated {
            section: Section::Header,
            needed: needed as u64,
            have: file.len() as u64,
        };
        let word = |at: usize| -> Result<[u8; 4], PlanError> {
            file.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or_else(|| truncated(HEADER))
        };
        let found = u32::from_le_bytes(word(8)?);
        if found != VERSION {
            return Err(PlanError::Version { found, expected: VERSION });
        }
        if file.len() < HEADER {
            return Err(truncated(HEADER));
        }
        if blake3::hash(&file[..HASHED]).as_bytes() != &file[HASHED..HASHED + 32] {
            return Err(PlanError::Hash { section: Section::Header });
        }
        let bad = |problem: &str| PlanError::malformed(Section::Header, problem);
        if u32::from_le_bytes(word(12)?) != SECTIONS.len() as u32 {
            return Err(bad("unexpected number of sections"));
        }
        let mut header = Header { lengths: [0; 4], hashes: [[0; 32]; 4] };
        let mut offsets = [0u64; 4];
        for (i, entry) in file[16..HASHED].chunks_exact(ENTRY).enumerate() {
            let long = |at: usize| {
                let mut b = [0; 8];
                b.copy_from_slice(&entry[at..at + 8]);
                u64::from_le_bytes(b)
            };
            if long(0) != i as u64 + 1 {
                return Err(bad("unexpected section kind"));
            }
            offsets[i] = long(8);
            header.lengths[i] = usize::try_from(long(16)).map_err(|_| bad("a section is too long"))?;
            header.hashes[i].copy_from_slice(&entry[24..]);
        }
        let ranges = header.ranges().ok_or_else(|| bad("sections are too long"))?;
        if ranges.iter().zip(offsets).any(|(r, o)| r.start as u64 != o) {
            return Err(bad("a section is not where it belongs"));
        }
        if file[HASHED + 32..HEADER].iter().any(|&b| b != 0) {
            return Err(bad("padding is not zero"));
        }
        Ok(header)
    }

    /// The byte range of a section of `file`, its hash checked.
    pub(crate) fn section(&self, file: &[u8], section: Section) -> Result<Range<usize>, PlanError> {
        let i = at(section);
        let ranges = self.ranges().ok_or_else(|| PlanError::malformed(Section::Header, "sections are too long"))?;
        let range = ranges[i].clone();
        if range.end > file.len() {
            return Err(PlanError::Truncated { section, needed: range.end as u64, have: file.len() as u64 });
        }
        if *blake3::hash(&file[range.clone()]).as_bytes() != self.hashes[i] {
            return Err(PlanError::Hash { section });
        }
        let before = i.checked_sub(1).map_or(HEADER, |p| ranges[p].end);
        if file[before..range.start].iter().any(|&b| b != 0) {
            return Err(PlanError::malformed(section, "padding before it is not zero"));
        }
        Ok(range)
    }

    /// Refuses bytes after the last section.
    pub(crate) fn check_end(&self, file: &[u8]) -> Result<(), PlanError> {
        let end = self.ranges().map_or(0, |r| r[3].end);
        if file.len() == end {
            return Ok(());
        }
        Err(PlanError::malformed(Section::Header, format!("{} bytes after the last section", file.len() - end)))
    }
}
