//! Files and inputs for the tests of this folder.

use super::{InputSpec, npy};
use std::path::Path;

/// An array in a file; its path.
pub(super) fn write(dir: &Path, name: &str, shape: &[usize], values: &[f64]) -> String {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    npy::write(&mut bytes, shape, values).expect("writes");
    std::fs::write(&path, bytes).expect("writes");
    path.display().to_string()
}

/// An input without preprocessing.
pub(super) fn spec(name: &str, shape: &[usize]) -> InputSpec {
    InputSpec { name: name.into(), shape: shape.to_vec(), preprocess: None }
}
