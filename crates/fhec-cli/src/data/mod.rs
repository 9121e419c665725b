//! Sample inputs from files: NumPy arrays and archives, idx files, CIFAR-10 binaries, pictures and folders of pictures.
//!
//! What a file is, its first bytes say (for CIFAR-10 its length and labels). Bytes (uint8 arrays, idx files,
//! CIFAR-10, pictures) are raw pixels and get the preprocessing of the input; floating-point numbers are the
//! network's values as they stand. Files are taken for hostile: nothing is allocated because a header says so.

mod batch;
mod cifar;
mod idx;
mod labels;
pub(crate) mod npy;
mod npz;
mod picture;
mod set;
#[cfg(test)]
mod testing;

pub(crate) use batch::{Part, load_batch};
pub use labels::read_labels;
pub(crate) use labels::{Labels, names};
pub(crate) use set::{DataSet, load_inputs, named};

use crate::files::{self, MAX_DATA, read_bounded};
use crate::format::shape as show;
use anyhow::{Context, Result, bail, ensure};
use fhec_plan::Preprocess;
use flate2::read::MultiGzDecoder;
use picture::Grid;
use std::path::Path;

/// Elements of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// Raw pixels.
    Bytes(Vec<u8>),
    /// Class numbers.
    Integers(Vec<i64>),
    /// The network's values.
    Floats(Vec<f64>),
}

/// A row-major array; the shape fits the number of values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Values,
}

impl Array {
    /// Number of elements.
    fn len(&self) -> usize {
        match &self.values {
            Values::Bytes(v) => v.len(),
            Values::Integers(v) => v.len(),
            Values::Floats(v) => v.len(),
        }
    }

    /// The array whose element `i` is element `source[i]` of this one.
    fn gather(&self, shape: Vec<usize>, source: &[usize]) -> Array {
        fn pick<T: Copy>(values: &[T], source: &[usize]) -> Vec<T> {
            source.iter().map(|&i| values[i]).collect()
        }
        let values = match &self.values {
            Values::Bytes(v) => Values::Bytes(pick(v, source)),
            Values::Integers(v) => Values::Integers(pick(v, source)),
            Values::Floats(v) => Values::Floats(pick(v, source)),
        };
        Array { shape, values }
    }
}

/// What a network takes: name, shape and what to do to pixels.
#[derive(Clone, Debug)]
pub(crate) struct InputSpec {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) preprocess: Option<Preprocess>,
}

impl InputSpec {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an array of this shape is one sample: the same extents but for ones, or the same number of
    /// values where one of the two is flat.
    fn fits(&self, shape: &[usize]) -> bool {
        let core = |s: &[usize]| s.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
        let (own, given) = (core(&self.shape), core(shape));
        let flat = own.len() <= 1 || given.len() <= 1;
        own == given || (flat && given.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(self.len()))
    }

    /// The network's values from raw pixels: `(pixel · scale − mean) / std`, channel by channel.
    fn values_of_pixels(&self, pixels: &[u8]) -> Vec<f64> {
        let Some(p) = &self.preprocess else { return pixels.iter().map(|&b| f64::from(b)).collect() };
        let grid = Grid::of(&self.shape);
        let channel = |i: usize| grid.map_or(0, |g| g.channel(i));
        let of = |list: &[f64], i: usize, otherwise: f64| match list {
            [] => otherwise,
            [one] => *one,
            many => many.get(channel(i)).copied().unwrap_or(otherwise),
        };
        let value = |(i, &b): (usize, &u8)| (f64::from(b) * p.scale - of(&p.mean, i, 0.0)) / of(&p.std, i, 1.0);
        pixels.iter().enumerate().map(value).collect()
    }

    /// The values of sample `index` of an array with a sample axis in front, or of an array that is one
    /// sample (`index` 0).
    fn sample(&self, array: &Array, index: usize) -> Result<Vec<f64>> {
        let range = index * self.len()..(index + 1) * self.len();
        let values = match &array.values {
            Values::Bytes(v) => self.values_of_pixels(&v[range]),
            Values::Floats(v) => v[range].to_vec(),
            Values::Integers(_) => {
                bail!("integers are neither pixels (uint8) nor values (float32, float64)")
            }
        };
        self.check_finite(&values)?;
        Ok(values)
    }

    fn check_finite(&self, values: &[f64]) -> Result<()> {
        let Some(bad) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        let mut rest = bad;
        let mut index: Vec<usize> = Vec::new();
        for &d in self.shape.iter().rev() {
            index.insert(0, rest % d.max(1));
            rest /= d.max(1);
        }
        bail!("element {index:?} is {}, which cannot be encrypted", values[bad])
    }

    /// Number of samples in an array: `None` where the shape does not fit.
    fn samples(&self, shape: &[usize]) -> Option<usize> {
        if self.fits(shape) {
            return Some(1);
        }
        match shape {
            [n, rest @ ..] if self.fits(rest) => Some(*n),
            _ => None,
        }
    }

    fn check_shape(&self, shape: &[usize]) -> Result<usize> {
        self.samples(shape).with_context(|| {
            format!("its shape is {}, the input '{}' takes {}", show(shape), self.name, show(&self.shape))
        })
    }

    /// The values of a picture.
    fn picture(&self, file: &[u8]) -> Result<Vec<f64>> {
        let Some(grid) = Grid::of(&self.shape) else {
            bail!("the input '{}' of shape {} takes no picture; give an array", self.name, show(&self.shape))
        };
        Ok(self.values_of_pixels(&picture::read(file, &grid)?))
    }

    /// Checks that a mean and a deviation per channel are there if any are.
    pub(crate) fn check_preprocess(&self) -> Result<()> {
        let Some(p) = &self.preprocess else { return Ok(()) };
        let channels = Grid::of(&self.shape).map_or(1, |g| g.channels);
        for (name, list) in [("--mean", &p.mean), ("--std", &p.std)] {
            ensure!(
                list.len() <= 1 || list.len() == channels,
                "{name} has {} values, the input '{}' has {channels} channels",
                list.len(),
                self.name
            );
        }
        Ok(())
    }
}

/// A file of samples.
enum Loaded {
    Array(Array),
    /// Pictures in planes, with their classes.
    Labelled(Array, Vec<usize>),
    Named(Vec<(String, Array)>),
    /// An encoded picture; it is decoded for the input it is meant for.
    Picture,
}

/// Reads a file of any known kind.
fn load(path: &Path) -> Result<Loaded> {
    let file = files::read(path)?;
    decode(file).with_context(|| path.display().to_string())
}

fn decode(mut file: Vec<u8>) -> Result<Loaded> {
    if file.starts_with(&[0x1f, 0x8b]) {
        file = read_bounded(MultiGzDecoder::new(&file[..]), MAX_DATA).context("gzip")?;
    }
    if file.starts_with(npy::MAGIC) {
        return Ok(Loaded::Array(npy::read(&file)?));
    }
    if file.starts_with(npz::MAGIC) {
        return Ok(Loaded::Named(npz::read(&file)?));
    }
    if picture::is_picture(&file) {
        return Ok(Loaded::Picture);
    }
    let unknown = "none of the known kinds: npy, npz, idx and CIFAR-10 binaries (also gzipped), PNG, JPEG";
    plain(&file).context(unknown)?
}

/// Reads a file of bare bytes, idx or CIFAR-10, if it is one.
fn plain(file: &[u8]) -> Option<Result<Loaded>> {
    let idx = idx::is_idx(file).then(|| idx::read(file));
    match idx {
        Some(Ok(array)) => Some(Ok(Loaded::Array(array))),
        // A picture of CIFAR-10 may begin like an idx file, but will not agree with what that header says.
        _ if cifar::is_cifar(file) => {
            Some(cifar::read(file).map(|(pictures, labels)| Loaded::Labelled(pictures, labels)))
        }
        Some(Err(damaged)) => Some(Err(damaged)),
        None => None,
    }
}

/// The samples in a data file held in memory (npy, npz, idx, CIFAR-10, also gzipped; PNG, JPEG) for a network with one input
/// of `shape` and without preprocessing: one row-major tensor each.
///
/// # Errors
/// A file of no known kind, damaged, of another shape, or with values that are not finite.
pub fn read_samples(file: Vec<u8>, shape: &[usize]) -> Result<Vec<Vec<f64>>> {
    let spec = InputSpec { name: "x".into(), shape: shape.to_vec(), preprocess: None };
    let array = match decode(file.clone())? {
        Loaded::Picture => return Ok(vec![spec.picture(&file)?]),
        Loaded::Array(array) | Loaded::Labelled(array, _) => array,
        Loaded::Named(arrays) => set::by_name(arrays, std::slice::from_ref(&spec))?.remove(0),
    };
    (0..spec.check_shape(&array.shape)?).map(|i| spec.sample(&array, i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &[usize]) -> InputSpec {
        let preprocess = Some(Preprocess { scale: 1.0 / 255.0, mean: vec![0.5], std: vec![0.25] });
        InputSpec { name: "x".into(), shape: shape.to_vec(), preprocess }
    }

    #[test]
    fn ones_and_flattening_do_not_matter_but_order_does() {
        let s = spec(&[1, 1, 28, 28]);
        for good in [&[28, 28][..], &[1, 28, 28], &[784], &[1, 784]] {
            assert_eq!(s.samples(good), Some(1), "{good:?}");
        }
        for good in [&[5, 28, 28][..], &[5, 784], &[5, 1, 28, 28]] {
            assert_eq!(s.samples(good), Some(5), "{good:?}");
        }
        for bad in [&[27, 28][..], &[14, 56], &[], &[28, 28, 3], &[usize::MAX, usize::MAX]] {
            assert_eq!(s.samples(bad), None, "{bad:?}");
        }
        assert_eq!(spec(&[1, 3, 4, 4]).samples(&[4, 4, 3]), None);
    }

    #[test]
    fn bytes_are_pixels_and_floats_are_values() {
        let s = spec(&[1, 2]);
        let of = |values| s.sample(&Array { shape: vec![2], values }, 0);
        assert_eq!(of(Values::Bytes(vec![0, 255])).expect("pixels"), [-2.0, 2.0]);
        assert_eq!(of(Values::Floats(vec![0.0, 255.0])).expect("values"), [0.0, 255.0]);
        assert!(of(Values::Integers(vec![0, 1])).is_err());
        for bad in [f64::NAN, f64::INFINITY] {
            let refused = of(Values::Floats(vec![0.0, bad])).expect_err("not finite").to_string();
            assert!(refused.contains("[0, 1]"), "{refused}");
        }
    }

    #[test]
    fn each_channel_has_its_own_mean() {
        let preprocess = Preprocess { scale: 1.0, mean: vec![1.0, 2.0, 3.0], std: vec![1.0, 2.0, 4.0] };
        let s = InputSpec { name: "x".into(), shape: vec![1, 3, 1, 2], preprocess: Some(preprocess) };
        assert_eq!(s.values_of_pixels(&[1, 2, 2, 4, 3, 7]), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        assert!(s.check_preprocess().is_ok());
    }
}
