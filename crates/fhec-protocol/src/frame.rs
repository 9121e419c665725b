//! The binary body of a request or result: a header of fixed length, then ciphertexts.
//!
//! ```text
//!   0  "FHEX"
//!   4  version u32         1
//!   8  kind u32            1 inputs, 2 values, 3 outputs
//!  12  round u32           which segment of the plan, from 0
//!  16  rounds u32          segments of the plan
//!  20  batch u32           samples that the ciphertexts hold
//!  24  plan [32]           hash of the plan
//!  56  key [32]            which evaluation keys
//!  88  request [16]        which request
//! 104  payload length u64
//! 112  payload             a file of ciphertexts
//! ```
//!
//! All numbers are little-endian. Frames have no checksum of their own: the payload has one.

use crate::VERSION;
use crate::names::{KeyId, RequestId};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"FHEX";
/// Bytes before the payload.
pub const HEADER_LEN: usize = 112;

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// From the client: ciphertexts that the round takes.
    Inputs,
    /// From the server, after any round but the last: ciphertexts that the client must transform.
    Values,
    /// From the server, after the last round: ciphertexts of the outputs of the plan.
    Outputs,
}

impl FrameKind {
    fn code(self) -> u32 {
        match self {
            Self::Inputs => 1,
            Self::Values => 2,
            Self::Outputs => 3,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// Which segment of the plan, from 0.
    pub round: u32,
    /// Segments of the plan.
    pub rounds: u32,
    /// Samples that the ciphertexts hold.
    pub batch: u32,
    /// Hash of the plan.
    pub plan: [u8; 32],
    /// Which evaluation keys.
    pub key: KeyId,
    /// Which request.
    pub request: RequestId,
    /// Bytes of the payload.
    pub payload: u64,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header has.
    #[error("a frame of {found} bytes; its header alone has {HEADER_LEN}")]
    Short {
        /// Bytes there.
        found: usize,
    },
    /// The first bytes are not those of a frame.
    #[error("not a frame: it does not begin with \"FHEX\"")]
    Magic,
    /// Another version of the protocol.
    #[error("version {found} of the protocol; version {VERSION} is spoken here")]
    Version {
        /// Version of the frame.
        found: u32,
    },
    /// A kind that does not exist.
    #[error("unknown kind {found} of frame")]
    Kind {
        /// Its number.
        found: u32,
    },
    /// A round that the plan cannot have, or no sample.
    #[error("round {round} of {rounds} with {batch} samples")]
    Numbers {
        /// Round.
        round: u32,
        /// Rounds.
        rounds: u32,
        /// Samples.
        batch: u32,
    },
}

impl Frame {
    /// The header as bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..4].copy_from_slice(&MAGIC);
        for (i, word) in [VERSION, self.kind.code(), self.round, self.rounds, self.batch].into_iter().enumerate() {
            out[4 + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        out[24..56].copy_from_slice(&self.plan);
        out[56..88].copy_from_slice(&self.key.0);
        out[88..104].copy_from_slice(&self.request.0);
        out[104..].copy_from_slice(&self.payload.to_le_bytes());
        out
    }

    /// Reads a header from the beginning of `bytes`.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Short { found: bytes.len() });
        };
        if header[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let word = |at: usize| u32::from_le_bytes(part(header, at));
        if word(4) != VERSION {
            return Err(FrameError::Version { found: word(4) });
        }
        let kind = [FrameKind::Inputs, FrameKind::Values, FrameKind::Outputs].into_iter().find(|k| k.code() == word(8));
        let kind = kind.ok_or(FrameError::Kind { found: word(8) })?;
        let (round, rounds, batch) = (word(12), word(16), word(20));
        if round >= rounds || batch == 0 {
            return Err(FrameError::Numbers { round, rounds, batch });
        }
        Ok(Frame {
            kind,
            round,
            rounds,
            batch,
            plan: part(header, 24),
            key: KeyId(part(header, 56)),
            request: RequestId(part(header, 88)),
            payload: u64::from_le_bytes(part(header, 104)),
        })
    }
}

/// `K` bytes of a header.
fn part<const K: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; K] {
    let mut out = [0; K];
    out.copy_from_slice(&header[at..at + K]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            kind: FrameKind::Values,
            round: 2,
            rounds: 5,
            batch: 3,
            plan: [7; 32],
            key: KeyId([8; 32]),
            request: RequestId([9; 16]),
            payload: 0x0102_0304_0506_0708,
        }
    }

    #[test]
    fn headers_come_back_and_lie_where_the_table_says() {
        let bytes = frame().to_bytes();
        assert_eq!(Frame::read(&bytes), Ok(frame()));
        assert_eq!(Frame::read(&[&bytes[..], b"payload"].concat()), Ok(frame()));
        assert_eq!((bytes[8], bytes[12], bytes[16], bytes[20]), (2, 2, 5, 3));
        assert_eq!((bytes[24], bytes[55], bytes[56], bytes[87], bytes[88], bytes[103]), (7, 7, 8, 8, 9, 9));
        assert_eq!(bytes[104..], [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn other_bytes_are_refused_with_the_reason() {
        let with = |at: usize, value: u8| {
            let mut bytes = frame().to_bytes();
            bytes[at] = value;
            Frame::read(&bytes)
        };
        assert_eq!(Frame::read(b"FHEX"), Err(FrameError::Short { found: 4 }));
        assert_eq!(with(0, b'G'), Err(FrameError::Magic));
        assert_eq!(with(4, 2), Err(FrameError::Version { found: 2 }));
        for kind in [0, 4] {
            assert_eq!(with(8, kind), Err(FrameError::Kind { found: kind.into() }));
        }
        assert_eq!(with(12, 5), Err(FrameError::Numbers { round: 5, rounds: 5, batch: 3 }));
        assert_eq!(with(20, 0), Err(FrameError::Numbers { round: 2, rounds: 5, batch: 0 }));
    }
}
