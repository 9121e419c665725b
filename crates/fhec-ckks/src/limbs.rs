//! Spreading work over limbs and over blocks of coefficients.
//!
//! A task is worth a thread switch from about 50 µs on, so limbs of small rings are grouped.

use std::slice::ChunksExactMut;

use fhec_math::convert::BaseConverter;
use fhec_math::{Fetch, NttTable};
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

/// One base conversion between transforms: limbs that [`inverse`] left, with their tables, to limbs that [`forward`] goes on with.
pub(crate) struct Conversion<'a> {
    pub(crate) converter: &'a BaseConverter,
    pub(crate) src: Vec<(&'a NttTable, &'a [u64])>,
    pub(crate) dst: Vec<(&'a NttTable, &'a mut [u64])>,
}

/// Values to what is converted, from `source` or in place: coefficients, or in rings with quarters as much of a transform as comes before a
/// conversion. Of all of a limb or of one quarter.
pub(crate) fn inverse(
    table: &NttTable,
    quarter: Option<usize>,
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    match (quarter, source) {
        (Some(quarter), _) => table.inverse_quarter(quarter, source, limb, fetch),
        _ if table.has_quarters() => {
            each_quarter(source, limb, |quarter, source, limb| table.inverse_quarter(quarter, source, limb, fetch));
        }
        (None, Some(source)) => table.inverse_from(source, limb, fetch),
        (None, None) => table.inverse(limb),
    }
}

/// What was converted to values, loose, from `source` or in place; of all of a limb or of one quarter.
pub(crate) fn forward(
    table: &NttTable,
    quarter: Option<usize>,
    source: Option<&[u64]>,
    limb: &mut [u64],
    fetch: &mut Fetch,
) {
    match quarter {
        Some(quarter) => table.forward_quarter(quarter, source, limb, fetch),
        None if table.has_quarters() => {
            each_quarter(source, limb, |quarter, source, limb| table.forward_quarter(quarter, source, limb, fetch));
        }
        None => table.forward_loose(source, limb, fetch),
    }
}

fn each_quarter(source: Option<&[u64]>, limb: &mut [u64], mut f: impl FnMut(usize, Option<&[u64]>, &mut [u64])) {
    let size = limb.len() / 4;
    for (quarter, part) in limb.chunks_exact_mut(size).enumerate() {
        f(quarter, source.map(|source| &source[quarter * size..(quarter + 1) * size]), part);
    }
}

/// Runs conversions, in parallel over blocks of their coefficients.
pub(crate) fn convert(conversions: Vec<Conversion<'_>>) {
    let quarters = conversions.iter().flat_map(|conversion| &conversion.src).all(|(table, _)| table.has_quarters());
    if quarters {
        in_parts(conversions, |Task { converter, src, mut dst }, scratch, past_caches| {
            converter.convert_quarters(&src, &mut dst, scratch, past_caches);
        });
    } else {
        in_parts(conversions, |Task { converter, src, dst }, scratch, past_caches| {
            let src: Vec<&[u64]> = src.into_iter().map(|(_, [limb])| limb).collect();
            let mut dst: Vec<&mut [u64]> = dst.into_iter().map(|(_, [limb])| limb).collect();
            converter.convert_loose(&src, &mut dst, scratch, past_caches);
        });
    }
}

/// Some coefficients of a conversion, at the same places of all `PARTS` of its limbs.
struct Task<'a, const PARTS: usize> {
    converter: &'a BaseConverter,
    src: Vec<(&'a NttTable, [&'a [u64]; PARTS])>,
    dst: Vec<(&'a NttTable, [&'a mut [u64]; PARTS])>,
}

/// Cuts conversions into tasks; `run` also gets scratch memory and whether the results are too large for the caches.
fn in_parts<'a, const PARTS: usize>(
    conversions: Vec<Conversion<'a>>,
    run: impl Fn(Task<'a, PARTS>, &mut Vec<u64>, bool) + Sync,
) {
    let words: usize = conversions.iter().flat_map(|conversion| &conversion.dst).map(|(_, limb)| limb.len()).sum();
    let past_caches = words * size_of::<u64>() >= CACHES;
    let mut all = Vec::new();
    for Conversion { converter, src, dst } in conversions {
        let part = src.first().map_or(0, |(_, limb)| limb.len()) / PARTS;
        let products = src.len() * dst.len().max(1);
        let block = ((2 * HEAVY / products.max(1)).next_power_of_two().max(512) / PARTS).min(part);
        let task = |start: usize| {
            let place = |limb: &'a [u64]| std::array::from_fn(|p| &limb[p * part + start..p * part + start + block]);
            let src = src.iter().map(|&(table, limb)| (table, place(limb))).collect();
            Task { converter, src, dst: Vec::with_capacity(dst.len()) }
        };
        let mut tasks: Vec<Task<'a, PARTS>> = (0..part).step_by(block).map(task).collect();
        for (table, limb) in dst {
            let mut parts: [_; PARTS] = blocks_of_parts(limb, part, block);
            for task in &mut tasks {
                task.dst.push((table, parts.each_mut().map(|blocks| blocks.next().unwrap_or_default())));
            }
        }
        all.extend(tasks);
    }
    all.into_par_iter().for_each_init(Vec::new, |scratch, task| run(task, scratch, past_caches));
}

/// The blocks of each part of a limb.
fn blocks_of_parts<const PARTS: usize>(
    limb: &mut [u64],
    part: usize,
    block: usize,
) -> [ChunksExactMut<'_, u64>; PARTS] {
    let mut parts = limb.chunks_exact_mut(part);
    std::array::from_fn(|_| parts.next().unwrap_or_default().chunks_exact_mut(block))
}
