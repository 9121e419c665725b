//! The keys of encapsulation and of smaller rings, as a part of evaluation keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;

use fhec_math::AlignedVec;
use fhec_math::bootstrap::{LowKeys, LowRing};

use super::keys::{read_key, write_key};
use super::stream::Stream;
use super::{Reader, Shape, Writer};
use crate::bootstrap::{EncapsulationKeys, LowRingKeys, ToSparse};
use crate::error::ContainerError;
use crate::keys::{EvaluationKeys, KeyRequest, SwitchingKey};
use crate::params::Context;

/// The part of the manifest: number of smaller rings; for each log2 of its degree, its level, number of Galois keys, and their elements.
pub(super) fn write_low_request<W: Write>(
    writer: &mut Writer<W>,
    low: &BTreeMap<u32, LowKeys>,
) -> Result<(), ContainerError> {
    writer.u32(low.len() as u32)?;
    for (&log_n, keys) in low {
        writer.u32(log_n)?;
        writer.u32(keys.level as u32)?;
        writer.u32(keys.galois.len() as u32)?;
        keys.galois.iter().try_for_each(|&element| writer.u64(element))?;
    }
    Ok(())
}

/// Bytes of that part.
pub(super) fn low_request_bytes(low: &BTreeMap<u32, LowKeys>) -> u64 {
    4 + low.values().map(|keys| 12 + 8 * keys.galois.len() as u64).sum::<u64>()
}

pub(super) fn read_low_request<R: Read>(
    stream: &mut Stream<R>,
    context: &Context,
) -> Result<BTreeMap<u32, LowKeys>, ContainerError> {
    let count = stream.reader(4)?.u32()?;
    let mut low = BTreeMap::new();
    let mut previous = 0;
    for _ in 0..count {
        let mut reader = stream.reader(12)?;
        let (log_n, level, galois) = (reader.u32()?, reader.level(context)?, reader.u32()? as usize);
        if log_n <= previous || log_n >= context.log_n() {
            return Err(reader.field(format!("a smaller ring of degree 2^{log_n} after 2^{previous}")));
        }
        previous = log_n;
        let mut reader = stream.reader(8 * galois)?;
        let galois = elements(&mut reader, galois, log_n)?;
        low.insert(log_n, LowKeys { level, galois });
    }
    Ok(low)
}

/// Galois elements of a ring in ascending order, so that a file has one form only and an element cannot come twice.
pub(super) fn elements(reader: &mut Reader<'_>, count: usize, log_n: u32) -> Result<BTreeSet<u64>, ContainerError> {
    let mut list = BTreeSet::new();
    let mut previous = 0;
    for _ in 0..count {
        previous = element(reader, previous, log_n)?;
        list.insert(previous);
    }
    Ok(list)
}

/// A Galois element above the one before.
pub(super) fn element(reader: &mut Reader<'_>, previous: u64, log_n: u32) -> Result<u64, ContainerError> {
    let element = reader.u64()?;
    let wrong = element.is_multiple_of(2) || element >= 2 << log_n || element <= previous;
    if wrong { Err(reader.field(format!("Galois element {element} after {previous}"))) } else { Ok(element) }
}

/// The key to the sparse secret, the keys from it in ascending order of their elements, and those of smaller rings in ascending order of
/// their degrees: the key in, the Galois keys, the key out.
pub(super) fn write_encapsulation<W: Write>(
    writer: &mut Writer<W>,
    keys: &EncapsulationKeys,
) -> Result<(), ContainerError> {
    let (down, up, low) = keys.parts();
    write_to_sparse(writer, keys.context(), down)?;
    up.values().try_for_each(|key| write_key(writer, keys.context().raising(), key))?;
    for ring in low.values() {
        let (entry, enter, inside, leave) = ring.parts();
        write_key(writer, entry, enter)?;
        inside.galois.values().try_for_each(|key| write_key(writer, inside.context(), key))?;
        write_to_sparse(writer, keys.context(), leave)?;
    }
    Ok(())
}

/// A key to the sparse secret, over `q_0` and the first special prime.
fn write_to_sparse<W: Write>(writer: &mut Writer<W>, context: &Context, key: &ToSparse) -> Result<(), ContainerError> {
    let (seed, b) = key.parts();
    writer.bytes(seed)?;
    writer.poly(context, 0, b)
}

pub(super) fn read_encapsulation<R: Read>(
    stream: &mut Stream<R>,
    context: &Arc<Context>,
    request: &KeyRequest,
) -> Result<EncapsulationKeys, ContainerError> {
    let down = read_to_sparse(stream, context)?;
    let up = read_keys(stream, context.raising(), context.max_level(), request.raised.len())?;
    let up = request.raised.iter().copied().zip(up).collect();
    let mut low = BTreeMap::new();
    for (&log_n, keys) in &request.low {
        let [entry, inner] = contexts(context, log_n, keys)?;
        let enter = read_keys(stream, &entry, keys.level, 1)?.pop().expect("one key was asked for");
        let galois = read_keys(stream, &inner, keys.level, keys.galois.len())?;
        let mut inside = EvaluationKeys::empty(&inner);
        inside.galois = keys.galois.iter().copied().zip(galois).collect();
        let leave = read_to_sparse(stream, context)?;
        let keys = LowRingKeys::from_parts(entry, enter, inside, leave).map_err(|e| damaged(&e))?;
        low.insert(log_n, keys);
    }
    Ok(EncapsulationKeys::from_parts(context, down, up, low))
}

fn read_to_sparse<R: Read>(stream: &mut Stream<R>, context: &Context) -> Result<ToSparse, ContainerError> {
    let seed = stream.reader(32)?.array()?;
    let shape = Shape::with_limbs(context, 0, 2);
    let b = stream.reader(shape.bytes())?.poly_of(context, 0, &shape)?;
    Ok(ToSparse::from_parts(context, seed, b))
}

/// Keys up to a level, into one block.
fn read_keys<R: Read>(
    stream: &mut Stream<R>,
    context: &Context,
    level: usize,
    count: usize,
) -> Result<Vec<SwitchingKey>, ContainerError> {
    let half = SwitchingKey::half_words(context, level);
    let mut block = AlignedVec::scratch(2 * half * count);
    let mut seeds = Vec::with_capacity(count);
    for words in block.chunks_exact_mut(2 * half) {
        let (b, a) = words.split_at_mut(half);
        seeds.push(read_key(stream, context, level, b, a)?);
    }
    let block = Arc::new(block);
    let key = |(index, seed)| SwitchingKey::within(context, &block, index * 2 * half, seed, level, true);
    Ok(seeds.into_iter().enumerate().map(key).collect())
}

/// Bytes in a file.
pub(super) fn encapsulation_bytes(request: &KeyRequest, context: &Context) -> Result<u64, ContainerError> {
    let to_sparse = 32 + Shape::with_limbs(context, 0, 2).bytes() as u64;
    let key = |context: &Context, level: usize| {
        32 + (context.digits_at(level) * Shape::new(context, level, true).bytes()) as u64
    };
    let mut bytes = to_sparse + request.raised.len() as u64 * key(context.raising(), context.max_level());
    for (&log_n, keys) in &request.low {
        let [entry, inner] = contexts(context, log_n, keys)?;
        bytes += to_sparse + key(&entry, keys.level) + keys.galois.len() as u64 * key(&inner, keys.level);
    }
    Ok(bytes)
}

/// Words in memory. All uniform halves are kept, and keys to the sparse secret have a word for each residue.
pub(super) fn encapsulation_words(request: &KeyRequest, context: &Context) -> Result<usize, ContainerError> {
    let to_sparse = 4 * context.n();
    let key = |context: &Context, level: usize| 2 * SwitchingKey::half_words(context, level);
    let mut words = to_sparse + request.raised.len() * key(context.raising(), context.max_level());
    for (&log_n, keys) in &request.low {
        let [entry, inner] = contexts(context, log_n, keys)?;
        words += to_sparse + key(&entry, keys.level) + keys.galois.len() * key(&inner, keys.level);
    }
    Ok(words)
}

fn contexts(context: &Context, log_n: u32, keys: &LowKeys) -> Result<[Arc<Context>; 2], ContainerError> {
    context.low_ring(LowRing { log_n, level: keys.level }).map_err(|e| damaged(&e))
}

fn damaged(error: &crate::error::CkksError) -> ContainerError {
    ContainerError::Field { section: "evaluation keys", problem: error.to_string() }
}
