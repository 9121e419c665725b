//! Class numbers of a data set, and names of classes.

use super::{Loaded, Values, npy, plain};
use crate::files::{self, MAX_DATA, read_bounded};
use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use std::path::Path;

/// The right class of every sample of a data set.
pub(crate) struct Labels(Vec<usize>);

impl Labels {
    /// Reads an idx, npy or CIFAR-10 file (also gzipped) or a text file with one number a line.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = files::read(path)?;
        read_labels(file).map(Labels).with_context(|| path.display().to_string())
    }

    /// The labels.
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

/// The class numbers in a file held in memory: idx, npy or CIFAR-10 (also gzipped), or text with one number a line.
///
/// # Errors
/// A damaged file, or one that holds anything but whole numbers from 0 on.
pub fn read_labels(mut file: Vec<u8>) -> Result<Vec<usize>> {
    if file.starts_with(&[0x1f, 0x8b]) {
        file = read_bounded(MultiGzDecoder::new(&file[..]), MAX_DATA).context("gzip")?;
    }
    let array = if file.starts_with(npy::MAGIC) {
        npy::read(&file)?
    } else {
        match plain(&file).transpose()? {
            Some(Loaded::Array(array)) => array,
            Some(Loaded::Labelled(_, labels)) => return Ok(labels),
            Some(Loaded::Named(_) | Loaded::Picture) | None => return from_text(&file),
        }
    };
    let column = array.shape.iter().filter(|&&d| d != 1).count() <= 1;
    ensure!(column, "labels of shape {:?}; one number a sample is wanted", array.shape);
    match array.values {
        Values::Bytes(v) => Ok(v.into_iter().map(usize::from).collect()),
        Values::Integers(v) => {
            v.into_iter().map(|x| usize::try_from(x).with_context(|| format!("{x} is no class number"))).collect()
        }
        Values::Floats(_) => bail!("labels are whole numbers, not floating-point numbers"),
    }
}

fn from_text(file: &[u8]) -> Result<Vec<usize>> {
    let text = std::str::from_utf8(file).context("neither idx nor npy nor CIFAR-10 nor text")?;
    let number = |(i, line): (usize, &str)| {
        line.trim().parse().with_context(|| format!("line {}: '{}' is no class number", i + 1, line.trim()))
    };
    text.lines().enumerate().map(number).collect()
}

/// Names of classes, one a line.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let file = files::read(path)?;
    let text = String::from_utf8(file).with_context(|| format!("{}: no text", path.display()))?;
    Ok(text.lines().map(|l| l.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_idx_labels_read_alike() {
        assert_eq!(read_labels(b"7\n2\n1\n".to_vec()).expect("text"), [7, 2, 1]);
        assert_eq!(read_labels(vec![0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]).expect("idx"), [7, 2, 1]);
        let wrong = read_labels(b"7\nseven\n".to_vec()).expect_err("no number");
        assert!(format!("{wrong:#}").contains("line 2"));
        assert!(read_labels(vec![0xff, 0xfe]).is_err());
    }
}
