//! The idx format of MNIST: a magic number with type and rank, big-endian extents, then the data.

use super::{Array, Values};
use anyhow::{Context, Result, bail, ensure};

/// Whether a file looks like idx of bytes: two zeros, a type, a rank.
pub(crate) fn is_idx(file: &[u8]) -> bool {
    matches!(file, [0, 0, 8 | 9 | 11..=14, 1..=8, ..])
}

/// Reads an array.
pub(crate) fn read(file: &[u8]) -> Result<Array> {
    ensure!(is_idx(file), "no idx file: the magic number is wrong");
    ensure!(file[2] == 8, "idx files of type 0x{:02x} are not supported, only bytes (0x08)", file[2]);
    let rank = usize::from(file[3]);
    let extents = file.get(4..4 + 4 * rank).context("the idx header is cut off")?;
    let shape: Vec<usize> =
        extents.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    let data = &file[4 + 4 * rank..];
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if elements != Some(data.len()) {
        bail!("the idx header tells of shape {shape:?}, but {} bytes follow", data.len());
    }
    Ok(Array { shape, values: Values::Bytes(data.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_must_fit_the_data() {
        let good = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 7, 9];
        let array = read(&good).expect("reads");
        assert_eq!(array, Array { shape: vec![2, 1], values: Values::Bytes(vec![7, 9]) });
        for cut in 0..good.len() {
            assert!(read(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&[0, 0, 8, 2, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
        assert!(read(&[0, 0, 13, 1, 0, 0, 0, 1, 0, 0, 0, 0]).is_err());
    }
}
