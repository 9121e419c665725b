//! Tensor data in files beside the model.

use crate::proto::StringStringEntryProto;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// The folder of the model and the files mapped so far.
pub(crate) struct External {
    folder: Option<PathBuf>,
    files: RefCell<BTreeMap<PathBuf, Bytes>>,
}

impl External {
    /// No external data allowed.
    pub(crate) fn none() -> Self {
        External { folder: None, files: RefCell::default() }
    }

    /// External data below `folder`.
    pub(crate) fn below(folder: &Path) -> Self {
        External { folder: Some(folder.to_owned()), files: RefCell::default() }
    }

    /// The bytes that the entries of a tensor describe; `size` is what the tensor's type and shape need.
    pub(crate) fn read(&self, entries: &[StringStringEntryProto], size: Option<usize>) -> Result<Bytes, String> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number =
            |key: &str| entry(key).map(|v| v.parse::<usize>().map_err(|_| format!("external {key} '{v}'"))).transpose();
        let location = entry("location").ok_or("external data without a location")?;
        let offset = number("offset")?.unwrap_or(0);
        let size = size.ok_or("too large")?;
        let length = number("length")?.unwrap_or(size);
        let file = self.open(location)?;
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(format!("{length} bytes at {offset} of '{location}', which has {}", file.len())),
        }
    }

    fn open(&self, location: &str) -> Result<Bytes, String> {
        let relative = Path::new(location);
        // A model from a stranger must not make this process read /etc or ../secret.key.
        let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside {
            return Err(format!("external data '{location}' is outside the model's folder"));
        }
        let folder = self.folder.as_ref().ok_or_else(|| format!("no folder given for external data '{location}'"))?;
        let path = folder.join(relative);
        if let Some(bytes) = self.files.borrow().get(&path) {
            return Ok(bytes.clone());
        }
        let real = |p: &Path| p.canonicalize().map_err(|e| format!("external data '{location}': {e}"));
        if !real(&path)?.starts_with(real(folder)?) {
            return Err(format!("external data '{location}' is a link out of the model's folder"));
        }
        let bytes = map(&path).map_err(|e| format!("external data '{location}': {e}"))?;
        self.files.borrow_mut().insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// A file's content, mapped into memory.
pub(crate) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and private to this process. As with every mapped file, another
    // process that shrinks the file meanwhile ends this one with a bus error; nothing is kept mapped
    // after import, because constants are copied out.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn reads_within_bounds_and_stays_in_its_folder() {
        let outer = tempfile::tempdir().expect("folder");
        let folder = outer.path().join("model");
        std::fs::create_dir_all(folder.join("sub")).expect("folder");
        std::fs::write(folder.join("sub/w"), [1, 2, 3, 4, 5, 6]).expect("file");
        std::fs::write(outer.path().join("secret"), [9; 6]).expect("file");
        #[cfg(unix)]
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link")).expect("link");
        let external = External::below(&folder);
        let read = |pairs: &[(&str, &str)], size| external.read(&entries(pairs), Some(size));

        let got = read(&[("location", "sub/w"), ("offset", "2"), ("length", "3")], 3);
        assert_eq!(got.expect("valid"), [3, 4, 5][..]);
        assert_eq!(read(&[("location", "./sub/w")], 6).expect("valid"), [1, 2, 3, 4, 5, 6][..]);
        for (pairs, part) in [
            (&[("location", "../secret")][..], "outside"),
            (&[("location", "sub/../../secret")], "outside"),
            (&[("location", "/etc/passwd")], "outside"),
            (&[("location", "")], "outside"),
            (&[("location", "sub")], "regular file"),
            (&[("location", "missing")], "missing"),
            (&[], "without a location"),
            (&[("location", "sub/w"), ("offset", "4")], "6 bytes at 4"),
            (&[("location", "sub/w"), ("offset", "18446744073709551615")], "6 bytes at"),
            (&[("location", "sub/w"), ("length", "-1")], "length '-1'"),
        ] {
            let error = read(pairs, 6).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
        #[cfg(unix)]
        assert!(read(&[("location", "link")], 6).expect_err("link").contains("link out of"));
        assert!(External::none().read(&entries(&[("location", "w")]), Some(1)).is_err());
    }
}
