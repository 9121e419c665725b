//! Data sets, and the inputs of one evaluation.

use super::{Array, InputSpec, Loaded, load, picture};
use crate::files;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// Samples for a network, read when they are needed.
pub(crate) struct DataSet {
    specs: Vec<InputSpec>,
    path: PathBuf,
    source: Source,
    labels: Option<Vec<usize>>,
    len: usize,
}

enum Source {
    /// One array per input.
    Arrays(Vec<Array>),
    /// One picture per sample.
    Pictures(Vec<PathBuf>),
}

impl DataSet {
    /// Opens an npy, npz, idx or CIFAR-10 file (also gzipped), a picture or a folder of pictures, for a network
    /// with the given inputs. A network of several inputs takes an npz file with an array for each, by name.
    pub(crate) fn open(path: &Path, specs: &[InputSpec]) -> Result<Self> {
        let (source, labels) = source(path, specs)?;
        let context = || path.display().to_string();
        let len = match &source {
            Source::Pictures(files) => files.len(),
            Source::Arrays(arrays) => {
                let counts: Vec<usize> = specs
                    .iter()
                    .zip(arrays)
                    .map(|(s, a)| s.check_shape(&a.shape))
                    .collect::<Result<_>>()
                    .with_context(context)?;
                let first = counts.first().copied().unwrap_or(0);
                ensure!(counts.iter().all(|&n| n == first), "{}: unequal numbers of samples: {counts:?}", context());
                first
            }
        };
        ensure!(len > 0, "{}: holds no sample", context());
        Ok(DataSet { specs: specs.to_vec(), path: path.to_owned(), source, labels, len })
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The right class of every sample, where the file itself tells.
    pub(crate) fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The values of one sample: a row-major tensor per input.
    pub(crate) fn sample(&self, index: usize) -> Result<Vec<Vec<f64>>> {
        ensure!(index < self.len, "{}: sample {index} of {}", self.path.display(), self.len);
        match &self.source {
            Source::Arrays(arrays) => (self.specs.iter().zip(arrays))
                .map(|(spec, array)| spec.sample(array, index))
                .collect::<Result<_>>()
                .with_context(|| format!("{}, sample {index}", self.path.display())),
            Source::Pictures(files) => {
                let file = &files[index];
                let values = self.specs[0].picture(&files::read(file)?);
                Ok(vec![values.with_context(|| file.display().to_string())?])
            }
        }
    }
}

/// The arrays for the inputs, or the pictures for the only input; and the classes where the file has them.
fn source(path: &Path, specs: &[InputSpec]) -> Result<(Source, Option<Vec<usize>>)> {
    let context = || path.display().to_string();
    if path.is_dir() {
        ensure!(specs.len() == 1, "{}: {}", context(), several(specs));
        return Ok((Source::Pictures(picture::folder(path).with_context(context)?), None));
    }
    match load(path)? {
        Loaded::Picture if specs.len() == 1 => Ok((Source::Pictures(vec![path.to_owned()]), None)),
        Loaded::Array(array) if specs.len() == 1 => Ok((Source::Arrays(vec![array]), None)),
        Loaded::Labelled(array, labels) if specs.len() == 1 => Ok((Source::Arrays(vec![array]), Some(labels))),
        Loaded::Named(arrays) => Ok((Source::Arrays(by_name(arrays, specs).with_context(context)?), None)),
        _ => bail!("{}: {}", context(), several(specs)),
    }
}

fn several(specs: &[InputSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    format!("the model has the inputs {}; give an npz file with an array for each", names.join(", "))
}

/// The array of each input; the only array serves the only input whatever its name.
pub(crate) fn by_name(mut arrays: Vec<(String, Array)>, specs: &[InputSpec]) -> Result<Vec<Array>> {
    if let ([_], [_]) = (&arrays[..], specs) {
        return Ok(arrays.into_iter().map(|a| a.1).collect());
    }
    let names = arrays.iter().map(|a| a.0.clone()).collect::<Vec<_>>().join(", ");
    specs
        .iter()
        .map(|spec| {
            let at = arrays.iter().position(|a| a.0 == spec.name);
            let at = at.with_context(|| format!("no array '{}'; there are {names}", spec.name))?;
            Ok(arrays.swap_remove(at).1)
        })
        .collect()
}

/// The inputs of one evaluation from files given as `PATH` or `NAME=PATH`; `index` chooses the sample
/// where a file holds several.
pub(crate) fn load_inputs(given: &[String], index: Option<usize>, specs: &[InputSpec]) -> Result<Vec<Vec<f64>>> {
    if let [path] = given
        && (named(path, specs).is_none() || Path::new(path).exists())
    {
        return one_sample(Path::new(path), index, specs);
    }
    let hint = format!("{}, or --input NAME=FILE once for each", several(specs));
    let samples = for_each_input(given, specs, &hint, |path, spec| one_sample(path, index, spec))?;
    Ok(samples.into_iter().flatten().collect())
}

/// What `load` makes of the file of each input, given as `NAME=PATH`; `hint` says how that is to be done.
pub(super) fn for_each_input<T>(
    given: &[String],
    specs: &[InputSpec],
    hint: &str,
    load: impl Fn(&Path, &[InputSpec]) -> Result<T>,
) -> Result<Vec<T>> {
    let mut loaded: Vec<Option<T>> = specs.iter().map(|_| None).collect();
    for text in given {
        let (at, path) = named(text, specs).with_context(|| format!("--input {text}: {hint}"))?;
        ensure!(loaded[at].is_none(), "--input {text}: the input '{}' is given twice", specs[at].name);
        loaded[at] = Some(load(Path::new(path), &specs[at..=at])?);
    }
    let missing = |i: usize| format!("no --input for '{}'", specs[i].name);
    loaded.into_iter().enumerate().map(|(i, l)| l.with_context(|| missing(i))).collect()
}

/// Splits `NAME=PATH` where NAME is an input.
pub(crate) fn named<'a>(text: &'a str, specs: &[InputSpec]) -> Option<(usize, &'a str)> {
    let (name, path) = text.split_once('=')?;
    Some((specs.iter().position(|s| s.name == name)?, path))
}

fn one_sample(path: &Path, index: Option<usize>, specs: &[InputSpec]) -> Result<Vec<Vec<f64>>> {
    let set = DataSet::open(path, specs)?;
    match index {
        None if set.len() > 1 => {
            bail!("{}: holds {} samples; choose one with --index", path.display(), set.len())
        }
        Some(i) if i >= set.len() => {
            bail!("{}: there is no sample {i}, only 0 to {}", path.display(), set.len() - 1)
        }
        _ => set.sample(index.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{spec, write};
    use super::*;

    #[test]
    fn several_inputs_are_given_by_name() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let a = write(dir.path(), "a.npy", &[2], &[1.0, 2.0]);
        let b = write(dir.path(), "b.npy", &[1, 3], &[3.0, 4.0, 5.0]);
        let specs = [spec("a", &[1, 2]), spec("b", &[1, 3])];
        let given = [format!("b={b}"), format!("a={a}")];
        assert_eq!(load_inputs(&given, None, &specs).expect("loads"), [vec![1.0, 2.0], vec![3.0, 4.0, 5.0]]);
        assert!(load_inputs(&given[..1], None, &specs).is_err());
        assert!(load_inputs(&[a.clone(), b], None, &specs).is_err());
        assert_eq!(load_inputs(&[format!("a={a}")], None, &specs[..1]).expect("loads"), [vec![1.0, 2.0]]);
        assert_eq!(load_inputs(&[a], None, &specs[..1]).expect("loads"), [vec![1.0, 2.0]]);
    }

    #[test]
    fn one_of_many_samples_is_chosen_by_index() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = write(dir.path(), "x.npy", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let specs = [spec("x", &[1, 2])];
        assert_eq!(load_inputs(std::slice::from_ref(&path), Some(1), &specs).expect("loads"), [[3.0, 4.0]]);
        for (index, hint) in [(None, "--index"), (Some(3), "0 to 2")] {
            let refused = load_inputs(std::slice::from_ref(&path), index, &specs).expect_err("refused").to_string();
            assert!(refused.contains(hint), "{refused}");
        }
    }
}
