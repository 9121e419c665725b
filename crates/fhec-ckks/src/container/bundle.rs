//! Bundles that are not in memory as a whole: read and written a ciphertext at a time, in any order.

use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use fhec_math::Scale;
use rayon::prelude::*;

use super::data::{BundleEntry, BundleForm, check_entries, entry_bytes, entry_head, read_form, skip_form, write_entry};
use super::{Kind, Reader, Writer, open};
use crate::cipher::Ciphertext;
use crate::error::{ContainerError, Result};
use crate::params::Context;

/// Where a ciphertext of a bundle lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its name among those of the index.
    pub name: usize,
    /// Which part of the value of that name.
    pub index: u32,
    /// Images in its slots.
    pub images: u32,
    offset: usize,
    len: usize,
}

/// The places of the ciphertexts of a bundle, which stays where it is (in a memory map).
#[derive(Clone, Debug)]
pub struct BundleIndex {
    names: Vec<String>,
    places: Vec<Place>,
}

impl BundleIndex {
    /// Checks a bundle, ciphertexts apart, and finds them.
    ///
    /// # Errors
    /// [`CkksError::Container`](crate::CkksError::Container).
    pub fn open(bytes: &[u8], context: &Context, plan: &[u8; 32]) -> Result<Self> {
        let mut reader = open(bytes, context, Kind::Ciphertexts, plan)?;
        let count = reader.u32()?;
        let (mut names, mut places) = (Vec::<String>::new(), Vec::new());
        // The checksum ends the file, and the reader does not see it.
        let at = |reader: &Reader<'_>| bytes.len() - super::CHECKSUM_LEN - reader.rest.len();
        for _ in 0..count {
            let (name, index, images) = entry_head(&mut reader, context)?;
            // Entries of one name follow each other, in bundles that this program writes.
            let name = match names.iter().rposition(|known| known == name) {
                Some(known) => known,
                None => {
                    names.push(name.to_owned());
                    names.len() - 1
                }
            };
            let offset = at(&reader);
            skip_form(&mut reader, context)?;
            places.push(Place { name, index, images, offset, len: at(&reader) - offset });
        }
        reader.finish()?;
        Ok(BundleIndex { names, places })
    }

    /// Names of values.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All ciphertexts.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Reads a ciphertext out of the bytes that the index was made of.
    ///
    /// # Errors
    /// [`CkksError::Container`](crate::CkksError::Container).
    pub fn read(&self, bytes: &[u8], place: &Place, context: &Context) -> Result<BundleForm> {
        let bytes = bytes.get(place.offset..place.offset + place.len).unwrap_or_default();
        read_form(&mut Reader::new(Kind::Ciphertexts.name(), bytes), context)
    }
}

/// A bundle that is written front to back, a ciphertext at a time.
pub struct BundleWriter<'a, W> {
    writer: Writer<W>,
    context: &'a Context,
    left: u32,
}

impl<'a, W: Write> BundleWriter<'a, W> {
    /// Begins a bundle of `count` ciphertexts.
    ///
    /// # Errors
    /// [`ContainerError::Io`].
    pub fn new(out: W, context: &'a Context, plan: &[u8; 32], count: u32) -> Result<Self> {
        let mut writer = Writer::new(out, context, Kind::Ciphertexts, plan)?;
        writer.u32(count)?;
        Ok(BundleWriter { writer, context, left: count })
    }

    /// Writes the next ciphertexts.
    ///
    /// # Errors
    /// As [`write_ciphertexts`](super::write_ciphertexts), and [`ContainerError::Field`] for more ciphertexts than were announced.
    pub fn write(&mut self, entries: &[BundleEntry]) -> Result<()> {
        check_entries(entries, self.context)?;
        let left = u32::try_from(entries.len()).ok().and_then(|n| self.left.checked_sub(n));
        self.left = left.ok_or_else(|| miscounted("more"))?;
        Ok(entries.iter().try_for_each(|entry| write_entry(&mut self.writer, self.context, entry))?)
    }

    /// Ends the bundle.
    ///
    /// # Errors
    /// [`ContainerError::Io`], and [`ContainerError::Field`] for fewer ciphertexts than were announced.
    pub fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(miscounted("fewer").into());
        }
        Ok(self.writer.finish()?)
    }
}

fn miscounted(what: &str) -> ContainerError {
    ContainerError::Field { section: Kind::Ciphertexts.name(), problem: format!("{what} than were announced") }
}

/// A value of a bundle to be written: its name, level and scale, and its number of ciphertexts.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleValue {
    /// Name of the output.
    pub name: String,
    /// Level of every ciphertext.
    pub level: usize,
    /// Scale of every ciphertext.
    pub scale: Scale,
    /// How many.
    pub ciphertexts: usize,
}

/// A bundle of full ciphertexts that is written in any order; the file comes to the same bytes in each.
#[derive(Debug)]
pub struct BundleFile<F> {
    file: F,
    context: Arc<Context>,
    images: u32,
    values: Vec<BundleValue>,
    /// Where the first ciphertext of each value goes, and their size.
    places: Vec<(u64, u64)>,
}

impl<F: Read + Write + Seek> BundleFile<F> {
    /// Begins a bundle at the start of an empty file.
    ///
    /// # Errors
    /// [`ContainerError::Io`].
    pub fn begin(
        mut file: F,
        context: &Arc<Context>,
        plan: &[u8; 32],
        images: u32,
        values: Vec<BundleValue>,
    ) -> Result<Self> {
        let count: usize = values.iter().map(|v| v.ciphertexts).sum();
        let mut head = Writer::new(Vec::new(), context, Kind::Ciphertexts, plan)?;
        head.u32(count as u32)?;
        let head = head.inner;
        file.write_all(&head).map_err(ContainerError::from)?;
        let mut at = head.len() as u64;
        let place = |v: &BundleValue| {
            let size = entry_bytes(&v.name, v.level, &v.scale, context);
            at += size * v.ciphertexts as u64;
            (at - size * v.ciphertexts as u64, size)
        };
        let places = values.iter().map(place).collect();
        Ok(BundleFile { file, context: Arc::clone(context), images, values, places })
    }

    /// Writes some ciphertexts of value number `value`, each with its number there.
    ///
    /// # Errors
    /// [`ContainerError::Field`] for one that is no part of the bundle, [`CkksError::ContextMismatch`](crate::CkksError::ContextMismatch)
    /// and [`ContainerError::Io`].
    pub fn write(&mut self, value: usize, ciphertexts: &[(u32, &Ciphertext)]) -> Result<()> {
        let pack = |&(index, ciphertext): &(u32, &Ciphertext)| -> Result<Vec<u8>> {
            self.context.check_id("write ciphertexts", ciphertext.id)?;
            let fits = |v: &&BundleValue| {
                (v.level, &v.scale) == (ciphertext.level, &ciphertext.scale) && (index as usize) < v.ciphertexts
            };
            let Some(stated) = self.values.get(value).filter(fits) else {
                let problem = format!("ciphertext {index} of value {value} is no part of it");
                return Err(ContainerError::Field { section: Kind::Ciphertexts.name(), problem }.into());
            };
            let form = BundleForm::Full(ciphertext.clone());
            let entry = BundleEntry { name: stated.name.clone(), index, images: self.images, form };
            let mut writer = Writer { inner: Vec::new(), hasher: blake3::Hasher::new(), buffer: Vec::new() };
            write_entry(&mut writer, &self.context, &entry)?;
            Ok(writer.inner)
        };
        let packed: Vec<Vec<u8>> = ciphertexts.par_iter().map(pack).collect::<Result<_>>()?;
        let Some(&(first, size)) = self.places.get(value) else { return Ok(()) };
        let file = &mut self.file;
        for ((index, _), bytes) in ciphertexts.iter().zip(packed) {
            debug_assert_eq!(bytes.len() as u64, size);
            file.seek(SeekFrom::Start(first + size * u64::from(*index))).map_err(ContainerError::from)?;
            file.write_all(&bytes).map_err(ContainerError::from)?;
        }
        Ok(())
    }

    /// Ends the bundle, of which every ciphertext was written, and gives its file back.
    ///
    /// # Errors
    /// [`ContainerError::Io`] and [`ContainerError::Read`].
    pub fn finish(mut self) -> Result<F> {
        const PIECE: usize = 1 << 20;
        let file = &mut self.file;
        file.seek(SeekFrom::Start(0)).map_err(ContainerError::from)?;
        let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE]);
        loop {
            let read = file.read(&mut piece).map_err(ContainerError::Read)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
        }
        let mut out = BufWriter::new(file);
        out.write_all(hasher.finalize().as_bytes()).and_then(|()| out.flush()).map_err(ContainerError::from)?;
        drop(out);
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read_ciphertexts, write_ciphertexts};
    use super::*;
    use crate::{Encoder, Encryptor, InsecureToken, ParameterSpec, SecretKey, Security};
    use fhec_math::SecretRng;
    use fhec_math::primes::ntt_primes_below;

    #[test]
    fn bundles_in_parts_are_those_at_once() {
        let (q, p) = (ntt_primes_below(40, 10).take(2).collect(), ntt_primes_below(45, 10).take(1).collect());
        let spec = ParameterSpec { log_n: 10, q, p, digits: vec![1; 2] };
        let context = Context::new(spec, Security::Insecure(InsecureToken::for_tests())).expect("parameters");
        let mut rng = SecretRng::from_seed(&[5; 32]);
        let key = SecretKey::generate(&context, &mut rng);
        let (encoder, encryptor, scale) = (Encoder::new(&context), Encryptor::new(&context), Scale::pow2(30));
        let mut entry = |name: &str, index: u32, seeded: bool| {
            let plaintext = encoder.encode(&[f64::from(index)], 1, &scale).expect("encodes");
            let made = encryptor.encrypt_sk(&key, &plaintext, &mut rng).expect("encrypts");
            let form = match seeded {
                true => BundleForm::Seeded(made),
                false => BundleForm::Full(made.expand(&context).expect("expands")),
            };
            BundleEntry { name: name.into(), index, images: 7, form }
        };
        let plan = [3; 32];
        let mixed: Vec<BundleEntry> = (0..5).map(|i| entry(if i < 3 { "a" } else { "b" }, i, i % 2 == 0)).collect();
        let mut whole = Vec::new();
        write_ciphertexts(&mixed, &context, &plan, &mut whole).expect("writes");
        let mut parts = Vec::new();
        let mut writer = BundleWriter::new(&mut parts, &context, &plan, 5).expect("begins");
        writer.write(&mixed[..2]).expect("writes");
        writer.write(&mixed[2..]).expect("writes");
        assert!(writer.write(&mixed[..1]).is_err(), "more than announced");
        let mut parts = Vec::new();
        let mut writer = BundleWriter::new(&mut parts, &context, &plan, 5).expect("begins");
        writer.write(&mixed).expect("writes");
        writer.finish().expect("ends");
        assert!(parts == whole);
        assert!(BundleWriter::new(Vec::new(), &context, &plan, 1).expect("begins").finish().is_err(), "fewer");

        let index = BundleIndex::open(&whole, &context, &plan).expect("opens");
        assert_eq!(index.names(), ["a", "b"]);
        for (place, entry) in index.places().iter().zip(&mixed) {
            assert_eq!((&index.names()[place.name], place.index, place.images), (&entry.name, entry.index, 7));
            let read = index.read(&whole, place, &context).expect("reads").expand(&context).expect("expands");
            let known = entry.form.expand(&context).expect("expands");
            assert!(read.c0.data() == known.c0.data() && read.c1.data() == known.c1.data());
        }
        for cut in [0, 50, whole.len() / 2, whole.len() - 1] {
            assert!(BundleIndex::open(&whole[..cut], &context, &plan).is_err(), "cut at {cut}");
        }

        let full: Vec<BundleEntry> = (0..4).map(|i| entry("y", i, false)).collect();
        let mut whole = Vec::new();
        write_ciphertexts(&full, &context, &plan, &mut whole).expect("writes");
        let value = BundleValue { name: "y".into(), level: 1, scale, ciphertexts: 4 };
        let mut out =
            BundleFile::begin(std::io::Cursor::new(Vec::new()), &context, &plan, 7, vec![value]).expect("begins");
        for k in [2, 0, 3, 1] {
            let BundleForm::Full(c) = &full[k].form else { panic!("all are full") };
            out.write(0, &[(k as u32, c)]).expect("writes");
            assert!(out.write(0, &[(4, c)]).is_err() && out.write(1, &[(0, c)]).is_err());
        }
        let found = out.finish().expect("ends").into_inner();
        assert!(found == whole);
        assert_eq!(read_ciphertexts(&found, &context, &plan).expect("reads").len(), 4);
    }
}
