//! Reading a file from front to end, without having it in memory.

use std::io::{Chain, Cursor, Read};

use super::{CHECKSUM_LEN, HEAD_LEN, HEADER_LEN, Header, Kind, Reader, check_header};
use crate::error::ContainerError;
use crate::params::Context;

/// The content of a file, hashed as it is read.
///
/// The checksum comes last, so what is read is checked only when all of it has been: content must be taken for what a
/// stranger wrote, and none of it may be used before [`finish`](Self::finish).
pub(super) struct Stream<R> {
    inner: Chain<Cursor<Vec<u8>>, R>,
    hasher: blake3::Hasher,
    section: &'static str,
    /// Bytes of content to come.
    left: u64,
    buffer: Vec<u8>,
}

impl<R: Read> Stream<R> {
    /// Reads the header of a file of `len` bytes and checks all that does not depend on the content.
    pub(super) fn open(
        mut source: R,
        len: u64,
        context: &Context,
        kind: Kind,
        plan: &[u8; 32],
    ) -> Result<Self, ContainerError> {
        let mut head = Vec::new();
        (&mut source).take(HEAD_LEN).read_to_end(&mut head).map_err(ContainerError::Read)?;
        let header = Header::read(&head)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head[..HEADER_LEN]);
        let left = len.saturating_sub(HEAD_LEN);
        let inner = Cursor::new(head.split_off(HEADER_LEN)).chain(source);
        let stream = Self { inner, hasher, section: kind.name(), left, buffer: Vec::new() };
        header.expect(kind)?;
        match check_header(&header, context, plan) {
            Ok(()) => Ok(stream),
            Err(error) => Err(stream.explain(error)),
        }
    }

    /// Bytes of content that have not been read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The error of content of which `expected` bytes should be left.
    pub(super) fn length(&self, expected: u64) -> ContainerError {
        ContainerError::Length { section: self.section, found: self.left, expected }
    }

    /// The next `len` bytes of content.
    pub(super) fn reader(&mut self, len: usize) -> Result<Reader<'_>, ContainerError> {
        // Nothing is allocated for bytes that are not there.
        if len as u64 > self.left {
            return Err(self.length(len as u64));
        }
        self.buffer.resize(len.max(self.buffer.len()), 0);
        let bytes = &mut self.buffer[..len];
        self.inner.read_exact(bytes).map_err(ContainerError::Read)?;
        self.hasher.update(bytes);
        self.left -= len as u64;
        Ok(Reader::new(self.section, bytes))
    }

    /// Checks that nothing follows and that the file is undamaged.
    pub(super) fn finish(mut self) -> Result<(), ContainerError> {
        if self.left != 0 {
            let error = self.length(0);
            return Err(self.explain(error));
        }
        let mut checksum = [0; CHECKSUM_LEN];
        self.inner.read_exact(&mut checksum).map_err(ContainerError::Read)?;
        if self.hasher.finalize() == checksum { Ok(()) } else { Err(ContainerError::Checksum) }
    }

    /// What to say of an error in the content: of a damaged file, that it is damaged.
    pub(super) fn explain(mut self, error: ContainerError) -> ContainerError {
        const PIECE: u64 = 1 << 20;
        while self.left != 0 {
            if let Err(error) = self.reader(self.left.min(PIECE) as usize).map(drop) {
                return error;
            }
        }
        match self.finish() {
            Ok(()) => error,
            Err(damage) => damage,
        }
    }
}
