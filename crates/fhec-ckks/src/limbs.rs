//! Spreading work over limbs and over blocks of coefficients.
//!
//! A task is worth a thread switch from about 50 µs on, so limbs of small rings are grouped.

use fhec_math::convert::BaseConverter;
use rayon::prelude::*;

/// Words per task where each word costs as much as in an NTT (about 1.5 ns).
pub(crate) const HEAVY: usize = 1 << 15;
/// Words per task of pointwise work (about 0.4 ns a word).
pub(crate) const LIGHT: usize = 1 << 17;

/// Calls `f(i, chunk_i)` for every chunk of `len` words, in parallel where the tasks of at least
/// `words` words are more than one.
pub(crate) fn par_chunks<F>(data: &mut [u64], len: usize, words: usize, f: F)
where
    F: Fn(usize, &mut [u64]) + Sync + Send,
{
    if data.len() <= words {
        for (i, chunk) in data.chunks_exact_mut(len).enumerate() {
            f(i, chunk);
        }
    } else {
        data.par_chunks_exact_mut(len)
            .enumerate()
            .with_min_len((words / len).max(1))
            .for_each(|(i, chunk)| f(i, chunk));
    }
}

/// [`par_chunks`] over two arrays at once.
pub(crate) fn par_chunks2<F>(a: &mut [u64], b: &mut [u64], len: usize, words: usize, f: F)
where
    F: Fn(usize, &mut [u64], &mut [u64]) + Sync + Send,
{
    if a.len() + b.len() <= words {
        for (i, (x, y)) in a.chunks_exact_mut(len).zip(b.chunks_exact_mut(len)).enumerate() {
            f(i, x, y);
        }
    } else {
        a.par_chunks_exact_mut(len)
            .zip(b.par_chunks_exact_mut(len))
            .enumerate()
            .with_min_len((words / (2 * len)).max(1))
            .for_each(|(i, (x, y))| f(i, x, y));
    }
}

/// Bytes of results from which on conversions write past the caches.
const CACHES: usize = 16 << 20;

/// One base conversion: coefficient limbs in, loose coefficient limbs out.
pub(crate) struct Conversion<'a> {
    pub(crate) converter: &'a BaseConverter,
    pub(crate) src: Vec<&'a [u64]>,
    pub(crate) dst: Vec<&'a mut [u64]>,
}

/// Runs conversions, in parallel over blocks of their coefficients.
pub(crate) fn convert(conversions: Vec<Conversion<'_>>) {
    let words: usize = conversions.iter().flat_map(|conversion| &conversion.dst).map(|limb| limb.len()).sum();
    let past_caches = words * size_of::<u64>() >= CACHES;
    let mut blocks = Vec::new();
    for Conversion { converter, src, dst } in conversions {
        let n = src.first().map_or(0, |s| s.len());
        let products = src.len() * dst.len().max(1);
        let block = (2 * HEAVY / products.max(1)).next_power_of_two().max(512);
        let mut parts: Vec<Vec<&mut [u64]>> = (0..n.div_ceil(block)).map(|_| Vec::with_capacity(dst.len())).collect();
        for limb in dst {
            for (chunk, part) in limb.chunks_mut(block).zip(&mut parts) {
                part.push(chunk);
            }
        }
        for (b, part) in parts.into_iter().enumerate() {
            let range = b * block..((b + 1) * block).min(n);
            let src: Vec<&[u64]> = src.iter().map(|s| &s[range.clone()]).collect();
            blocks.push((converter, src, part));
        }
    }
    blocks.into_par_iter().for_each_init(Vec::new, |scratch, (converter, src, mut dst)| {
        converter.convert_loose(&src, &mut dst, scratch, past_caches);
    });
}
