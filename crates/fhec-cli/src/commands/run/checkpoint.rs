//! Checkpoints: what an evaluation holds, on disk, so that a later process can go on from there.
//!
//! A folder has one file for each value (they never change, so each is written once) and a manifest, which names them
//! with their hashes and is replaced last. Whenever the process dies the folder holds a whole checkpoint, the newest or the one
//! before, and perhaps files that no manifest names.

use crate::files::{self, Access};
use anyhow::{Context, Result, bail, ensure};
use fhec_ckks::container::{read_ciphertexts, write_ciphertexts};
use fhec_plan::verify::Verified;
use fhec_runtime::{Evaluation, Held};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the manifest.
const MANIFEST: &str = "manifest.json";
/// What the manifest says it is.
const FORMAT: &str = "fhec checkpoint";
/// Version of the format.
const VERSION: u32 = 1;
/// Largest manifest that is read, bytes.
const MAX_MANIFEST: u64 = 64 << 20;

/// What an evaluation is of; one that differs in any of these has other values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Hash of the plan.
    pub(super) plan: String,
    /// Hash of the file of input ciphertexts.
    pub(super) input: String,
    /// Checksum of the file of evaluation keys.
    pub(super) keys: String,
}

impl Identity {
    /// Says in what an evaluation differs from that of a checkpoint.
    fn check(&self, own: &Identity) -> Result<()> {
        ensure!(self.plan == own.plan, "it belongs to another plan");
        ensure!(self.keys == own.keys, "it belongs to other evaluation keys");
        ensure!(self.input == own.input, "it belongs to another input");
        Ok(())
    }
}

/// A value's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: String,
    version: u32,
    of: Identity,
    /// Number of the instruction to go on with.
    next: usize,
    /// Files by the short names of their values.
    values: BTreeMap<String, Entry>,
}

/// The manifest's file: what it says, and the hash of that.
#[derive(Serialize, Deserialize)]
struct Sealed {
    checkpoint: Manifest,
    blake3: String,
}

impl Manifest {
    fn hash(&self) -> Result<String> {
        Ok(blake3::hash(serde_json::to_string(self)?.as_bytes()).to_hex().to_string())
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let bytes = files::read_bounded(file, MAX_MANIFEST)?;
        let sealed: Sealed = serde_json::from_slice(&bytes).context("the manifest is damaged")?;
        ensure!(sealed.checkpoint.format == FORMAT, "the manifest is not one of a checkpoint");
        let version = sealed.checkpoint.version;
        ensure!(version == VERSION, "its format has version {version}, this program knows {VERSION}");
        ensure!(sealed.checkpoint.hash()? == sealed.blake3, "the manifest is damaged: its hash is wrong");
        Ok(Some(sealed.checkpoint))
    }
}

/// A folder of checkpoints of one evaluation.
pub(super) struct Checkpoint {
    folder: PathBuf,
    of: Identity,
    /// Least time between two.
    every: Duration,
    last: Instant,
    /// A layer has ended since the last one.
    due: bool,
    /// The files of the newest one.
    values: BTreeMap<Held, Entry>,
}

impl Checkpoint {
    /// Opens a folder, makes it if need be, and brings `evaluation` to where the checkpoint in it was taken. With
    /// `restart`, what is there is removed instead.
    pub(super) fn open(
        folder: &Path,
        of: Identity,
        every: Duration,
        restart: bool,
        verified: &Verified,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut checkpoint = Checkpoint {
            folder: folder.to_owned(),
            of,
            every,
            last: Instant::now(),
            due: false,
            values: BTreeMap::new(),
        };
        if restart {
            checkpoint.remove()?;
        } else {
            let hint = || {
                let folder = folder.display();
                format!("the checkpoint in {folder} cannot be used (another --checkpoint or --restart starts anew)")
            };
            checkpoint.load(verified, evaluation).with_context(hint)?;
        }
        checkpoint.sweep()?;
        Ok(checkpoint)
    }

    fn load(&mut self, verified: &Verified, evaluation: &mut Evaluation<'_>) -> Result<()> {
        let Some(manifest) = Manifest::read(&self.folder.join(MANIFEST))? else { return Ok(()) };
        manifest.of.check(&self.of)?;
        let context = evaluation.context();
        let mut found = BTreeMap::new();
        evaluation.resume(manifest.next, |held| {
            let name = file_name(held);
            let entry =
                manifest.values.get(&held.to_string()).with_context(|| format!("{name} is not in the manifest"))?;
            let file = files::map(&self.folder.join(&name))?;
            let bytes: &[u8] = (*file).as_ref();
            let same = bytes.len() as u64 == entry.bytes && blake3::hash(bytes).to_hex().as_str() == entry.blake3;
            ensure!(same, "{name} is damaged: its hash is not that in the manifest");
            found.insert(held, entry.clone());
            read_ciphertexts(bytes, &context, verified.hash()).with_context(|| name)
        })?;
        self.values = found;
        Ok(())
    }

    /// Told of the end of a layer; writes a checkpoint unless the last one is too recent, or as soon as it can be done.
    pub(super) fn after(
        &mut self,
        layer_ended: bool,
        verified: &Verified,
        evaluation: &mut Evaluation<'_>,
    ) -> Result<()> {
        self.due |= layer_ended;
        if self.due && self.last.elapsed() >= self.every {
            self.write(verified, evaluation)?;
        }
        Ok(())
    }

    /// Writes a checkpoint; `false` where the evaluation holds something that cannot be written now.
    pub(super) fn write(&mut self, verified: &Verified, evaluation: &mut Evaluation<'_>) -> Result<bool> {
        let Some(held) = evaluation.held() else { return Ok(false) };
        let mut values = BTreeMap::new();
        for &value in &held {
            let entry = match self.values.get(&value) {
                Some(known) => known.clone(),
                None => self.write_value(value, verified, evaluation)?,
            };
            values.insert(value, entry);
        }
        let named = values.iter().map(|(held, entry)| (held.to_string(), entry.clone())).collect();
        let of = self.of.clone();
        let manifest = Manifest { format: FORMAT.into(), version: VERSION, of, next: evaluation.next(), values: named };
        let text = serde_json::to_string(&Sealed { blake3: manifest.hash()?, checkpoint: manifest })?;
        files::write(&self.folder.join(MANIFEST), Access::Public, |out| Ok(writeln!(out, "{text}")?))?;
        let old = std::mem::replace(&mut self.values, values);
        for held in old.keys().filter(|held| !self.values.contains_key(held)) {
            remove(&self.folder.join(file_name(*held)))?;
        }
        (self.last, self.due) = (Instant::now(), false);
        Ok(true)
    }

    fn write_value(&self, held: Held, verified: &Verified, evaluation: &mut Evaluation<'_>) -> Result<Entry> {
        let path = self.folder.join(file_name(held));
        let context = evaluation.context();
        let written = evaluation.lend(held, |bundle| {
            let mut entry = Entry { bytes: 0, blake3: String::new() };
            files::write(&path, Access::Public, |out| {
                let mut out = Hashed { inner: out, hasher: blake3::Hasher::new(), bytes: 0 };
                write_ciphertexts(bundle, &context, verified.hash(), &mut out)?;
                entry = Entry { bytes: out.bytes, blake3: out.hasher.finalize().to_hex().to_string() };
                Ok(())
            })?;
            Ok(entry)
        });
        written.unwrap_or_else(|| bail!("{held} has no value to write"))
    }

    /// The evaluation is done: removes all that was written.
    pub(super) fn remove(&mut self) -> Result<()> {
        remove(&self.folder.join(MANIFEST))?;
        self.values.clear();
        self.sweep()
    }

    /// Removes files of ours that the newest checkpoint does not need.
    fn sweep(&self) -> Result<()> {
        let needed: BTreeSet<String> = self.values.keys().map(|&held| file_name(held)).collect();
        let cannot = || format!("cannot read {}", self.folder.display());
        for entry in std::fs::read_dir(&self.folder).with_context(cannot)? {
            let name = entry.with_context(cannot)?.file_name().to_string_lossy().into_owned();
            if (is_value(&name) && !needed.contains(&name)) || files::is_temporary(&name) {
                remove(&self.folder.join(&name))?;
            }
        }
        Ok(())
    }

    /// Most bytes in a folder at any time, by the plan alone: those of two checkpoints, since one is complete before the
    /// other goes.
    pub(super) fn most_bytes(evaluation: &Evaluation<'_>) -> u64 {
        let all = evaluation.all_held().into_iter().flatten();
        let one = all.map(|held| held.into_iter().map(|h| evaluation.file_bytes(h)).sum::<u64>()).max();
        2 * one.unwrap_or(0) + (1 << 16)
    }
}

fn file_name(held: Held) -> String {
    format!("{held}.ct")
}

/// Whether a file is called like one of a value.
fn is_value(name: &str) -> bool {
    let number = name.strip_suffix(".ct").and_then(|stem| stem.strip_prefix(['r', 'y']));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Hashes and counts what goes through.
struct Hashed<'a> {
    inner: &'a mut dyn Write,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_sealed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join(MANIFEST);
        assert!(Manifest::read(&path).expect("nothing there").is_none());
        let of = Identity { plan: "p".into(), input: "i".into(), keys: "k".into() };
        let values = BTreeMap::from([("r1".to_owned(), Entry { bytes: 5, blake3: "x".into() })]);
        let manifest = Manifest { format: FORMAT.into(), version: VERSION, of, next: 7, values };
        let sealed = Sealed { blake3: manifest.hash().expect("hash"), checkpoint: manifest.clone() };
        let text = serde_json::to_string(&sealed).expect("json");
        std::fs::write(&path, &text).expect("writes");
        assert_eq!(Manifest::read(&path).expect("reads"), Some(manifest));
        for (from, to) in [(":7", ":8"), ("\"k\"", "\"l\""), (":5", ":6"), ("\"r1\"", "\"r2\"")] {
            std::fs::write(&path, text.replace(from, to)).expect("writes");
            assert!(Manifest::read(&path).expect_err(from).to_string().contains("damaged"), "{from}");
        }
        for cut in 0..text.len() {
            std::fs::write(&path, &text[..cut]).expect("writes");
            assert!(Manifest::read(&path).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn only_own_files_are_swept() {
        for own in ["r0.ct", "r12.ct", "y3.ct"] {
            assert!(is_value(own), "{own}");
        }
        for other in ["r.ct", "x.ct", "result.ct", "r1.ct.bak", "r1", "manifest.json", "layer-0001.ct"] {
            assert!(!is_value(other), "{other}");
        }
    }
}
