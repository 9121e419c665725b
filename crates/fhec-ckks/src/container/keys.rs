//! Keys as files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use fhec_math::{AlignedVec, SecretRng, conjugation_element, packed};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::encapsulation::{
    element, elements, encapsulation_bytes, encapsulation_words, low_request_bytes, read_encapsulation,
    read_low_request, write_encapsulation, write_low_request,
};
use super::stream::Stream;
use super::{HEAD_LEN, Kind, Shape, Writer, open};
use crate::error::{ContainerError, Result};
use crate::keys::{
    EvaluationKeys, KeyGenerator, KeyPurpose, KeyRequest, PackedPoly, PublicKey, SecretKey, SwitchingKey, UniformHalves,
};
use crate::params::Context;

/// Writes a secret key: two bits a coefficient. The caller protects the file (mode 0600).
///
/// # Errors
/// [`ContainerError::Io`].
pub fn write_secret_key(key: &SecretKey, plan: &[u8; 32], out: impl Write) -> Result<()> {
    let mut writer = Writer::new(out, key.context(), Kind::SecretKey, plan)?;
    let mut packed = Zeroizing::new(Vec::with_capacity(key.coefficients().len() / 4));
    packed.extend(
        key.coefficients()
            .chunks_exact(4)
            .map(|four| four.iter().rev().fold(0u8, |byte, &c| byte << 2 | (c + 1) as u8)),
    );
    writer.bytes(&packed)?;
    Ok(writer.finish()?)
}

/// Reads a secret key.
///
/// # Errors
/// [`CkksError::Container`](crate::CkksError::Container).
pub fn read_secret_key(bytes: &[u8], context: &Arc<Context>, plan: &[u8; 32]) -> Result<SecretKey> {
    let mut reader = open(bytes, context, Kind::SecretKey, plan)?;
    let packed = reader.take(context.n() / 4)?;
    let mut coeffs = Zeroizing::new(Vec::with_capacity(context.n()));
    let mut bad = 0;
    for &byte in packed {
        for shift in [0, 2, 4, 6] {
            let code = byte >> shift & 3;
            bad |= code & code >> 1;
            coeffs.push(code as i8 - 1);
        }
    }
    if bad != 0 {
        return Err(reader.field("a coefficient is not −1, 0 or 1".into()).into());
    }
    reader.finish()?;
    Ok(SecretKey::from_coefficients(context, coeffs))
}

/// Writes a public key: seed and one polynomial.
///
/// # Errors
/// [`ContainerError::Io`].
pub fn write_public_key(key: &PublicKey, plan: &[u8; 32], out: impl Write) -> Result<()> {
    let context = key.context();
    let mut writer = Writer::new(out, context, Kind::PublicKey, plan)?;
    writer.bytes(&key.seed)?;
    writer.poly(context, context.max_level(), &key.b)?;
    Ok(writer.finish()?)
}

/// Reads a public key.
///
/// # Errors
/// [`CkksError::Container`](crate::CkksError::Container).
pub fn read_public_key(bytes: &[u8], context: &Arc<Context>, plan: &[u8; 32]) -> Result<PublicKey> {
    let mut reader = open(bytes, context, Kind::PublicKey, plan)?;
    let seed = reader.array()?;
    let b = reader.poly(context, context.max_level(), false)?;
    reader.finish()?;
    Ok(PublicKey::from_parts(context, seed, b))
}

/// Writes evaluation keys that are in memory.
///
/// # Errors
/// [`ContainerError::Io`].
pub fn write_evaluation_keys(keys: &EvaluationKeys, plan: &[u8; 32], out: impl Write) -> Result<()> {
    let context = keys.context();
    let mut writer = Writer::new(out, context, Kind::EvaluationKeys, plan)?;
    write_request(&mut writer, &keys.request())?;
    for key in keys.relin.iter().chain(keys.galois.values()) {
        write_key(&mut writer, context, key)?;
    }
    if let Some(keys) = keys.encapsulation() {
        write_encapsulation(&mut writer, keys)?;
    }
    Ok(writer.finish()?)
}

/// Makes evaluation keys and writes each at once, so that only one is in memory. The file is the same as that of
/// [`EvaluationKeys::generate`] and [`write_evaluation_keys`] with the same generator.
///
/// `progress` is called with the numbers of keys done and asked for.
///
/// # Errors
/// As [`KeyRequest::check`], and [`ContainerError::Io`].
pub fn generate_evaluation_keys(
    secret: &SecretKey,
    request: &KeyRequest,
    rng: &mut SecretRng,
    plan: &[u8; 32],
    out: impl Write,
    progress: &dyn Fn(usize, usize),
) -> Result<()> {
    let context = secret.context();
    request.check(context)?;
    let mut writer = Writer::new(out, context, Kind::EvaluationKeys, plan)?;
    write_request(&mut writer, request)?;
    let mut generator = KeyGenerator::new(secret, rng);
    for (index, (purpose, level)) in order(request).enumerate() {
        write_key(&mut writer, context, &generator.make(purpose, level)?)?;
        progress(index + 1, request.count());
    }
    if let Some(weight) = request.sparse_weight {
        write_encapsulation(&mut writer, &generator.encapsulation(request, weight)?)?;
        progress(request.count(), request.count());
    }
    Ok(writer.finish()?)
}

/// The switching keys of a request in the order of the file.
fn order(request: &KeyRequest) -> impl Iterator<Item = (KeyPurpose, usize)> {
    let relin = request.relin_level.map(|level| (KeyPurpose::Relinearise, level));
    let galois = request.galois.iter().map(|(&element, &level)| (KeyPurpose::Galois(element), level));
    relin.into_iter().chain(galois)
}

/// The manifest: relinearisation level plus one or 0; weight of the sparse secret or 0; numbers of Galois keys and of keys from the
/// sparse secret; element and level of each of the former; elements of the latter; smaller rings.
fn write_request<W: Write>(writer: &mut Writer<W>, request: &KeyRequest) -> Result<(), ContainerError> {
    writer.u32(request.relin_level.map_or(0, |level| level as u32 + 1))?;
    writer.u32(request.sparse_weight.unwrap_or(0))?;
    writer.u32(request.galois.len() as u32)?;
    writer.u32(request.raised.len() as u32)?;
    for (&element, &level) in &request.galois {
        writer.u64(element)?;
        writer.u32(level as u32)?;
    }
    request.raised.iter().try_for_each(|&element| writer.u64(element))?;
    write_low_request(writer, &request.low)
}

pub(super) fn write_key<W: Write>(
    writer: &mut Writer<W>,
    context: &Context,
    key: &SwitchingKey,
) -> Result<(), ContainerError> {
    writer.bytes(&key.seed)?;
    for b in &key.b {
        writer.poly(context, key.level, &b.unpack(context, key.level))?;
    }
    Ok(())
}

fn read_request<R: Read>(stream: &mut Stream<R>, context: &Context) -> Result<KeyRequest, ContainerError> {
    let mut reader = stream.reader(16)?;
    let relin = reader.u32()? as usize;
    if relin > context.max_level() + 1 {
        return Err(reader.field(format!("relinearisation level {} exceeds {}", relin - 1, context.max_level())));
    }
    let weight = reader.u32()?;
    if weight as usize > context.n() / 2 {
        return Err(reader.field(format!("a sparse secret of weight {weight}")));
    }
    let (count, raised_count) = (reader.u32()? as usize, reader.u32()? as usize);
    let mut galois = BTreeMap::new();
    let mut previous = 0;
    let mut reader = stream.reader(12 * count)?;
    for _ in 0..count {
        previous = element(&mut reader, previous, context.log_n())?;
        galois.insert(previous, reader.level(context)?);
    }
    let mut reader = stream.reader(8 * raised_count)?;
    let raised = elements(&mut reader, raised_count, context.log_n())?;
    let low = read_low_request(stream, context)?;
    if weight == 0 && raised.len() + low.len() > 0 {
        let problem = "keys from or to a sparse secret that there is not".into();
        return Err(ContainerError::Field { section: "evaluation keys", problem });
    }
    let sparse_weight = (weight != 0).then_some(weight);
    Ok(KeyRequest { relin_level: relin.checked_sub(1), galois, sparse_weight, raised, low })
}

/// What evaluation keys take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySizes {
    /// Bytes of the file.
    pub file: u64,
    /// Bytes in memory once it has been read.
    pub memory: u64,
}

impl KeySizes {
    /// Sizes of the keys of a request, exact, without making any.
    ///
    /// # Errors
    /// As [`KeyRequest::check`].
    pub fn of(request: &KeyRequest, context: &Context, halves: UniformHalves) -> Result<Self> {
        request.check(context)?;
        let lists = 12 * request.galois.len() as u64 + 8 * request.raised.len() as u64;
        let manifest = 16 + lists + low_request_bytes(&request.low);
        let words: usize = order(request).map(|key| key_words(context, key, halves)).sum();
        let encapsulation = match request.sparse_weight {
            Some(_) => encapsulation_words(request, context)?,
            None => 0,
        };
        Ok(Self {
            file: HEAD_LEN + manifest + content_bytes(request, context)?,
            memory: 8 * (words + encapsulation) as u64,
        })
    }
}

/// Bytes of a file of evaluation keys between its manifest and its checksum.
fn content_bytes(request: &KeyRequest, context: &Context) -> Result<u64, ContainerError> {
    let switching: u64 = order(request)
        .map(|(_, level)| 32 + (context.digits_at(level) * Shape::new(context, level, true).bytes()) as u64)
        .sum();
    Ok(match request.sparse_weight {
        Some(_) => switching + encapsulation_bytes(request, context)?,
        None => switching,
    })
}

/// Whether the uniform half of a key is kept. Products are relinearised again and again, and where slots hold two images
/// conjugated as often.
fn keeps(context: &Context, purpose: KeyPurpose, halves: UniformHalves) -> bool {
    let often = [KeyPurpose::Relinearise, KeyPurpose::Galois(conjugation_element(context.log_n()))];
    halves == UniformHalves::Kept || often.contains(&purpose)
}

/// Words of memory that a switching key takes.
fn key_words(context: &Context, (purpose, level): (KeyPurpose, usize), halves: UniformHalves) -> usize {
    SwitchingKey::half_words(context, level) * if keeps(context, purpose, halves) { 2 } else { 1 }
}

/// Reads evaluation keys and expands their seeds. Refuses a secret key with a message of its own.
///
/// # Errors
/// [`CkksError::Container`](crate::CkksError::Container).
pub fn read_evaluation_keys(bytes: &[u8], context: &Arc<Context>, plan: &[u8; 32]) -> Result<EvaluationKeys> {
    stream_evaluation_keys(bytes, bytes.len() as u64, context, plan, UniformHalves::Kept)
}

/// [`read_evaluation_keys`] from a file of `len` bytes that is never in memory as a whole. `source` need not be buffered.
///
/// # Errors
/// As [`read_evaluation_keys`], and [`ContainerError::Read`].
pub fn stream_evaluation_keys(
    source: impl Read,
    len: u64,
    context: &Arc<Context>,
    plan: &[u8; 32],
    halves: UniformHalves,
) -> Result<EvaluationKeys> {
    let mut stream = Stream::open(source, len, context, Kind::EvaluationKeys, plan)?;
    match read_keys(&mut stream, context, halves) {
        Ok(keys) => {
            stream.finish()?;
            Ok(keys)
        }
        Err(error) => Err(stream.explain(error).into()),
    }
}

fn read_keys<R: Read>(
    stream: &mut Stream<R>,
    context: &Arc<Context>,
    halves: UniformHalves,
) -> Result<EvaluationKeys, ContainerError> {
    let request = read_request(stream, context)?;
    // All of it must be there before anything is allocated.
    let expected = content_bytes(&request, context)?;
    if expected != stream.left() {
        return Err(stream.length(expected));
    }
    let words = |&key: &(KeyPurpose, usize)| key_words(context, key, halves);
    // One block for all keys.
    let mut block = AlignedVec::scratch(order(&request).map(|key| words(&key)).sum());
    let mut rest = &mut block[..];
    let mut seeds = Vec::with_capacity(request.count());
    for key in order(&request) {
        let (own, more) = rest.split_at_mut(words(&key));
        rest = more;
        let (b, a) = own.split_at_mut(SwitchingKey::half_words(context, key.1));
        seeds.push(read_key(stream, context, key.1, b, a)?);
    }
    let block = Arc::new(block);
    let mut keys = EvaluationKeys::empty(context);
    if let Some(weight) = request.sparse_weight {
        keys.set_encapsulation(weight, read_encapsulation(stream, context, &request)?);
    }
    let mut start = 0;
    for ((purpose, level), seed) in order(&request).zip(seeds) {
        let key = SwitchingKey::within(context, &block, start, seed, level, keeps(context, purpose, halves));
        start += words(&(purpose, level));
        match purpose {
            KeyPurpose::Relinearise => keys.relin = Some(key),
            KeyPurpose::Galois(element) => {
                keys.galois.insert(element, key);
            }
        }
    }
    Ok(keys)
}

/// Reads one key into `b`, expands its uniform half into `a` unless that is empty, and returns its seed.
pub(super) fn read_key<R: Read>(
    stream: &mut Stream<R>,
    context: &Context,
    level: usize,
    b: &mut [u64],
    a: &mut [u64],
) -> Result<[u8; 32], ContainerError> {
    let seed = stream.reader(32)?.array()?;
    let shape = Shape::new(context, level, true);
    for digit in b.chunks_exact_mut(b.len() / context.digits_at(level)) {
        let reader = stream.reader(shape.bytes())?;
        let (bytes, section) = (reader.rest, reader.section);
        let limbs = PackedPoly::split(context, level, digit);
        limbs.into_par_iter().enumerate().try_for_each(|(i, limb)| {
            let part = &bytes[shape.offsets[i]..shape.offsets[i + 1]];
            if packed::from_bits(context.qp_modulus(level, i), part, limb) {
                return Ok(());
            }
            Err(ContainerError::Field { section, problem: format!("limb {i}: a residue is not below its prime") })
        })?;
    }
    SwitchingKey::expand(context, &seed, level, a);
    Ok(seed)
}
