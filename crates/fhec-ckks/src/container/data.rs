//! Ciphertexts and plaintexts as files.

use std::io::Write;

use fhec_math::{Scale, Zeroizing};

use super::{HEAD_LEN, Kind, Reader, Shape, Writer, open};
use crate::cipher::{Ciphertext, SeededCiphertext};
use crate::error::{ContainerError, Result};
use crate::params::Context;
use crate::plaintext::Plaintext;

/// Longest name of a bundle's entry, in bytes.
const MAX_NAME: usize = 4096;

/// A ciphertext of a bundle, in either form.
#[derive(Clone, Debug)]
pub enum BundleForm {
    /// Both halves.
    Full(Ciphertext),
    /// First half and seed.
    Seeded(SeededCiphertext),
}

impl BundleForm {
    /// The ciphertext, its seed expanded.
    ///
    /// # Errors
    /// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch).
    pub fn expand(&self, context: &Context) -> Result<Ciphertext> {
        match self {
            Self::Full(ciphertext) => Ok(ciphertext.clone()),
            Self::Seeded(ciphertext) => ciphertext.expand(context),
        }
    }
}

/// One ciphertext of a bundle: number `index` of the ciphertexts of value `name`.
#[derive(Clone, Debug)]
pub struct BundleEntry {
    /// Name of the input or output that this is a part of.
    pub name: String,
    /// Which part.
    pub index: u32,
    /// Images in its slots, from slot 0 on, where images share ciphertexts, and from there on in the imaginary parts where a slot
    /// holds two; 1 where an image has all slots.
    pub images: u32,
    /// The ciphertext.
    pub form: BundleForm,
}

/// Writes a bundle of ciphertexts.
///
/// # Errors
/// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch),
/// [`ContainerError::Field`](crate::error::ContainerError::Field) for names above 4096 bytes, and
/// [`ContainerError::Io`](crate::error::ContainerError::Io).
pub fn write_ciphertexts(entries: &[BundleEntry], context: &Context, plan: &[u8; 32], out: impl Write) -> Result<()> {
    check_entries(entries, context)?;
    let mut writer = Writer::new(out, context, Kind::Ciphertexts, plan)?;
    writer.u32(entries.len() as u32)?;
    for entry in entries {
        write_entry(&mut writer, context, entry)?;
    }
    Ok(writer.finish()?)
}

/// Checks what the reader of a bundle would refuse.
pub(super) fn check_entries(entries: &[BundleEntry], context: &Context) -> Result<()> {
    for entry in entries {
        let id = match &entry.form {
            BundleForm::Full(c) => c.id,
            BundleForm::Seeded(c) => c.id,
        };
        context.check_id("write ciphertexts", id)?;
        if entry.name.len() > MAX_NAME {
            let problem = format!("a name of {} bytes; at most {MAX_NAME}", entry.name.len());
            return Err(ContainerError::Field { section: "ciphertexts", problem }.into());
        }
    }
    Ok(())
}

/// Writes one ciphertext of a bundle.
pub(super) fn write_entry(
    writer: &mut Writer<impl Write>,
    context: &Context,
    entry: &BundleEntry,
) -> Result<(), ContainerError> {
    writer.u32(entry.name.len() as u32)?;
    writer.bytes(entry.name.as_bytes())?;
    writer.u32(entry.index)?;
    writer.u32(entry.images)?;
    match &entry.form {
        BundleForm::Full(c) => {
            writer.u32(0)?;
            writer.u32(c.level as u32)?;
            writer.scale(&c.scale)?;
            writer.poly(context, c.level, &c.c0)?;
            writer.poly(context, c.level, &c.c1)
        }
        BundleForm::Seeded(c) => {
            writer.u32(1)?;
            writer.u32(c.level as u32)?;
            writer.scale(&c.scale)?;
            writer.bytes(&c.seed)?;
            writer.poly(context, c.level, &c.c0)
        }
    }
}

/// Bytes of a file with one full ciphertext for each name, level and scale; seeded ones make it smaller.
pub fn bundle_bytes<'a>(entries: impl IntoIterator<Item = (&'a str, usize, &'a Scale)>, context: &Context) -> u64 {
    let entry = |(name, level, scale): (&str, usize, &Scale)| entry_bytes(name, level, scale, context);
    HEAD_LEN + 4 + entries.into_iter().map(entry).sum::<u64>()
}

/// Bytes of a full ciphertext in a file.
pub(super) fn entry_bytes(name: &str, level: usize, scale: &Scale, context: &Context) -> u64 {
    let scale = 12 + 16 * scale.to_parts().1.len();
    // Length of the name, the name, number, images, form and level.
    (4 + name.len() + 4 + 4 + 8 + scale + 2 * Shape::new(context, level, false).bytes()) as u64
}

/// Reads a bundle of ciphertexts.
///
/// # Errors
/// [`CkksError::Container`](crate::CkksError::Container).
pub fn read_ciphertexts(bytes: &[u8], context: &Context, plan: &[u8; 32]) -> Result<Vec<BundleEntry>> {
    let mut reader = open(bytes, context, Kind::Ciphertexts, plan)?;
    let count = reader.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (name, index, images) = entry_head(&mut reader, context)?;
        let form = read_form(&mut reader, context)?;
        entries.push(BundleEntry { name: name.to_owned(), index, images, form });
    }
    reader.finish()?;
    Ok(entries)
}

/// Name, number and images of an entry.
pub(super) fn entry_head<'a>(reader: &mut Reader<'a>, context: &Context) -> Result<(&'a str, u32, u32)> {
    let len = reader.u32()? as usize;
    if len > MAX_NAME {
        return Err(reader.field(format!("a name of {len} bytes; at most {MAX_NAME}")).into());
    }
    let name = match std::str::from_utf8(reader.take(len)?) {
        Ok(name) => name,
        Err(e) => return Err(reader.field(format!("a name is not UTF-8: {e}")).into()),
    };
    let index = reader.u32()?;
    let images = reader.u32()?;
    // A slot holds two at most.
    if !(1..=context.n() as u32).contains(&images) {
        return Err(reader.field(format!("{images} images in {} slots", context.slots())).into());
    }
    Ok((name, index, images))
}

/// The ciphertext of an entry.
pub(super) fn read_form(reader: &mut Reader<'_>, context: &Context) -> Result<BundleForm> {
    let id = context.id();
    let (seeded, level, scale) = form_head(reader, context)?;
    if !seeded {
        let c0 = reader.poly(context, level, false)?;
        let c1 = reader.poly(context, level, false)?;
        return Ok(BundleForm::Full(Ciphertext { c0, c1, level, scale, id }));
    }
    let seed = reader.array()?;
    let c0 = reader.poly(context, level, false)?;
    Ok(BundleForm::Seeded(SeededCiphertext { c0, seed, level, scale, id }))
}

/// Passes over the ciphertext of an entry.
pub(super) fn skip_form(reader: &mut Reader<'_>, context: &Context) -> Result<()> {
    let (seeded, level, _) = form_head(reader, context)?;
    let poly = Shape::new(context, level, false).bytes();
    reader.take(if seeded { 32 + poly } else { 2 * poly })?;
    Ok(())
}

/// Whether the second half of a ciphertext is a seed, its level, and its scale.
fn form_head(reader: &mut Reader<'_>, context: &Context) -> Result<(bool, usize, Scale)> {
    let form = reader.u32()?;
    let level = reader.level(context)?;
    let scale = reader.scale(context)?;
    match form {
        0 | 1 => Ok((form == 1, level, scale)),
        other => Err(reader.field(format!("unknown form {other} of ciphertext")).into()),
    }
}

/// Writes an encoded vector.
///
/// # Errors
/// [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch) and
/// [`ContainerError::Io`](crate::error::ContainerError::Io).
pub fn write_plaintext(plaintext: &Plaintext, context: &Context, plan: &[u8; 32], out: impl Write) -> Result<()> {
    context.check_id("write plaintext", plaintext.id)?;
    let mut writer = Writer::new(out, context, Kind::Plaintext, plan)?;
    writer.u32(plaintext.level as u32)?;
    writer.scale(&plaintext.scale)?;
    writer.poly(context, plaintext.level, &plaintext.poly)?;
    Ok(writer.finish()?)
}

/// Reads an encoded vector.
///
/// # Errors
/// [`CkksError::Container`](crate::CkksError::Container).
pub fn read_plaintext(bytes: &[u8], context: &Context, plan: &[u8; 32]) -> Result<Plaintext> {
    let mut reader = open(bytes, context, Kind::Plaintext, plan)?;
    let level = reader.level(context)?;
    let scale = reader.scale(context)?;
    let poly = reader.poly(context, level, false)?;
    reader.finish()?;
    Ok(Plaintext { poly: Zeroizing::new(poly), level, scale, id: context.id() })
}
