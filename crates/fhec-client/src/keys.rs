//! Evaluation keys: uploaded once, from wherever an upload stopped.

use crate::connection::{Connection, Failure};
use crate::error::{ClientError, Result};
use fhec_protocol::{Code, KEYS_PATH, KeyId, KeyState, KeyStatus};
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;
use ureq::http::Method;

/// Bytes sent at a time; what is lost at most when a connection breaks before anything was written.
const CHUNK: u64 = 4 << 20;

/// The name of a file of keys, and its length.
///
/// # Errors
/// [`ClientError::Keys`].
pub fn key_id(file: &mut impl Read) -> Result<(KeyId, u64)> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    let mut len = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((KeyId(*hasher.finalize().as_bytes()), len)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                len += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(ClientError::Keys(e)),
        }
    }
}

impl Connection {
    /// Makes sure that the server has the keys in `file`, whose name is `id`. `progress` is told bytes there and bytes in all.
    /// Returns how many bytes had to be sent.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for keys that are not those of the plan, and any other [`ClientError`].
    pub fn upload_keys(
        &self,
        id: KeyId,
        file: &mut (impl Read + Seek),
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<u64> {
        let len = file.seek(SeekFrom::End(0)).map_err(ClientError::Keys)?;
        let (mut patience, mut sent, mut furthest) = (self.patience(), 0, 0);
        loop {
            let step = self.key_status(id).and_then(|status| {
                let have = status.map_or(0, |s| s.have);
                progress(have, len);
                match status.map(|s| s.state) {
                    Some(KeyState::Ready) => Ok(None),
                    Some(KeyState::Checking) => {
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(Some(have))
                    }
                    Some(KeyState::Partial) | None => {
                        sent += self.send_chunk(id, file, have, len)?;
                        Ok(Some(have + 1))
                    }
                }
            });
            match step {
                Ok(None) => return Ok(sent),
                // Only what leads on renews patience: a server that forgets again and again is not one to wait for.
                Ok(Some(have)) if have > furthest => {
                    furthest = have;
                    patience.renew();
                }
                Ok(Some(_)) => {}
                Err(failure) => self.wait(&mut patience, failure)?,
            }
        }
    }

    /// What the server has of a set of keys, if anything.
    fn key_status(&self, id: KeyId) -> Result<Option<KeyStatus>, Failure> {
        match self.get(&format!("{KEYS_PATH}/{id}")) {
            Ok(answer) => Ok(Some(answer.json()?)),
            Err(Failure::Final(ClientError::Refused(refusal))) if refusal.code == Code::UnknownKey => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn send_chunk(&self, id: KeyId, file: &mut (impl Read + Seek), have: u64, len: u64) -> Result<u64, Failure> {
        if have >= len {
            return Err(ClientError::Protocol(format!("it has {have} of {len} bytes and wants more")).into());
        }
        file.seek(SeekFrom::Start(have)).map_err(ClientError::Keys)?;
        let mut chunk = vec![0; CHUNK.min(len - have) as usize];
        file.read_exact(&mut chunk).map_err(ClientError::Keys)?;
        match self.send_bytes(Method::PUT, &format!("{KEYS_PATH}/{id}?offset={have}"), &[&chunk]) {
            Ok(_) => Ok(chunk.len() as u64),
            Err(Failure::Final(ClientError::Refused(refusal)))
                if matches!(refusal.code, Code::Offset | Code::UnknownKey) =>
            {
                Err(Failure::Later(ClientError::Refused(refusal), Some(Duration::ZERO)))
            }
            Err(failure) => Err(failure),
        }
    }
}
