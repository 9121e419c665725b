//! The binary format of CIFAR-10: records of a label byte and 32×32 pixels in three planes, without any header.

use super::{Array, Values};
use anyhow::{Result, ensure};

/// Extents of a picture: red, green and blue plane, rows, columns.
const SHAPE: [usize; 3] = [3, 32, 32];
/// Bytes of a picture.
const PIXELS: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
/// Bytes of a record.
const RECORD: usize = 1 + PIXELS;
/// Number of classes.
const CLASSES: u8 = 10;

/// Whether a file can be records of CIFAR-10. It has no magic number: whole records, and a class in front of each,
/// are all that tells.
pub(crate) fn is_cifar(file: &[u8]) -> bool {
    !file.is_empty() && file.len().is_multiple_of(RECORD) && labels(file).all(|label| label < CLASSES)
}

fn labels(file: &[u8]) -> impl Iterator<Item = u8> + '_ {
    file.iter().step_by(RECORD).copied()
}

/// Pictures (n × 3 × 32 × 32, raw pixels) and their classes.
pub(crate) fn read(file: &[u8]) -> Result<(Array, Vec<usize>)> {
    ensure!(is_cifar(file), "no CIFAR-10 file: not whole records of {RECORD} bytes with a class below {CLASSES} each");
    let count = file.len() / RECORD;
    let mut pixels = Vec::with_capacity(count * PIXELS);
    file.chunks_exact(RECORD).for_each(|record| pixels.extend_from_slice(&record[1..]));
    let shape = [&[count], &SHAPE[..]].concat();
    Ok((Array { shape, values: Values::Bytes(pixels) }, labels(file).map(usize::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(labels: &[u8]) -> Vec<u8> {
        labels
            .iter()
            .flat_map(|&label| std::iter::once(label).chain((0..PIXELS).map(move |i| (i % 251) as u8)))
            .collect()
    }

    #[test]
    fn labels_and_planes_are_taken_apart() {
        let (pictures, labels) = read(&records(&[3, 9])).expect("reads");
        assert_eq!((&pictures.shape[..], &labels[..]), (&[2, 3, 32, 32][..], &[3, 9][..]));
        let Values::Bytes(pixels) = pictures.values else { panic!("no pixels") };
        // The first pixel of the second picture, and of its green plane.
        assert_eq!((pixels[PIXELS], pixels[PIXELS + 1024]), (0, (1024 % 251) as u8));
    }

    #[test]
    fn only_whole_records_of_ten_classes_are_taken() {
        let good = records(&[0, 9]);
        for cut in [0, 1, RECORD - 1, RECORD + 1, 2 * RECORD - 1] {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&records(&[0, 10])).is_err());
    }
}
