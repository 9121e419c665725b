//! Files: keys, ciphertexts and plaintexts with one header, length-checked content and a checksum.
//!
//! ```text
//! "FHEC" | version u32 | kind u32 | 0 u32 | plan hash [32] | parameter hash [32] | content | BLAKE3 [32]
//! ```
//!
//! All numbers are little-endian. The checksum covers everything before it. Residues are packed with as many bits
//! as their prime has, limb after limb; uniform halves are stored as seeds. The checksum finds damage, not
//! malice: whoever makes a file can make its checksum. So nothing read is trusted: sizes are computed from the
//! parameters and compared with what is there before anything is allocated, residues are checked to
//! be below their prime, and every failure is an error that says what was wrong.

mod bundle;
mod data;
mod encapsulation;
mod keys;
mod pack;
mod stream;

pub use bundle::{BundleFile, BundleIndex, BundleValue, BundleWriter, Place};
pub use data::{
    BundleEntry, BundleForm, bundle_bytes, read_ciphertexts, read_plaintext, write_ciphertexts, write_plaintext,
};
pub use keys::{
    KeySizes, generate_evaluation_keys, read_evaluation_keys, read_public_key, read_secret_key, stream_evaluation_keys,
    write_evaluation_keys, write_public_key, write_secret_key,
};

use std::io::Write;

use fhec_math::{Eval, Poly, Scale};
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::error::{ContainerError, Result};
use crate::params::Context;
use pack::{pack, packed_len, unpack};

/// First bytes of every file.
pub const MAGIC: [u8; 4] = *b"FHEC";
/// Version of the format that this build writes and reads.
pub const VERSION: u32 = 6;
const HEADER_LEN: usize = 80;
const CHECKSUM_LEN: usize = 32;
/// Bytes that [`Header::read`] wants to see: no file is shorter.
pub const HEAD_LEN: u64 = (HEADER_LEN + CHECKSUM_LEN) as u64;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret key. Readers of every other kind refuse it with a message of its own.
    SecretKey,
    /// A public encryption key.
    PublicKey,
    /// Relinearisation and Galois keys.
    EvaluationKeys,
    /// A bundle of ciphertexts.
    Ciphertexts,
    /// An encoded vector.
    Plaintext,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Self::SecretKey => 1,
            Self::PublicKey => 2,
            Self::EvaluationKeys => 3,
            Self::Ciphertexts => 4,
            Self::Plaintext => 5,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        [Self::SecretKey, Self::PublicKey, Self::EvaluationKeys, Self::Ciphertexts, Self::Plaintext]
            .into_iter()
            .find(|kind| kind.code() == code)
    }

    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::SecretKey => "a secret key",
            Self::PublicKey => "a public key",
            Self::EvaluationKeys => "evaluation keys",
            Self::Ciphertexts => "ciphertexts",
            Self::Plaintext => "a plaintext",
        }
    }
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the file holds.
    pub kind: Kind,
    /// Hash of the plan that it belongs to.
    pub plan: [u8; 32],
    /// Hash of the parameters that it was made under.
    pub params: [u8; 32],
}

impl Header {
    /// Reads the header of a file without looking at the rest.
    ///
    /// # Errors
    /// [`ContainerError`] for a file that is too short, of another format or version, or of unknown kind.
    pub fn read(bytes: &[u8]) -> Result<Self, ContainerError> {
        if bytes.len() < MAGIC.len() || bytes[..4] != MAGIC {
            return Err(ContainerError::Magic);
        }
        if bytes.len() < HEADER_LEN + CHECKSUM_LEN {
            return Err(ContainerError::Length {
                section: "file",
                found: bytes.len() as u64,
                expected: (HEADER_LEN + CHECKSUM_LEN) as u64,
            });
        }
        let mut reader = Reader::new("header", &bytes[4..HEADER_LEN]);
        let version = reader.u32()?;
        if version != VERSION {
            return Err(ContainerError::Version { found: version, expected: VERSION });
        }
        let code = reader.u32()?;
        let reserved = reader.u32()?;
        let kind = Kind::from_code(code).filter(|_| reserved == 0).ok_or_else(|| {
            let problem = format!("unknown kind {code} (reserved word {reserved})");
            ContainerError::Field { section: "header", problem }
        })?;
        Ok(Self { kind, plan: reader.array()?, params: reader.array()? })
    }

    /// Refuses a file of another kind.
    fn expect(&self, kind: Kind) -> Result<(), ContainerError> {
        let expected = kind.name();
        match self.kind {
            found if found == kind => Ok(()),
            Kind::SecretKey => Err(ContainerError::SecretKeyRefused { expected }),
            found => Err(ContainerError::Kind { found: found.name().to_string(), expected }),
        }
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    // The beginning tells two hashes apart.
    bytes[..8].iter().map(|b| format!("{b:02x}")).collect()
}

/// Checks that a file belongs to a plan and to parameters.
fn check_header(header: &Header, context: &Context, plan: &[u8; 32]) -> Result<(), ContainerError> {
    if &header.plan != plan {
        return Err(ContainerError::Plan { found: hex(&header.plan), expected: hex(plan) });
    }
    if header.params != context.params_hash() {
        let expected = hex(&context.params_hash());
        return Err(ContainerError::Params { found: hex(&header.params), expected });
    }
    Ok(())
}

/// Checks everything that does not depend on the kind and returns the content.
fn open<'a>(bytes: &'a [u8], context: &Context, kind: Kind, plan: &[u8; 32]) -> Result<Reader<'a>, ContainerError> {
    let header = Header::read(bytes)?;
    header.expect(kind)?;
    let (signed, checksum) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
    if blake3::hash(signed).as_bytes() != checksum {
        return Err(ContainerError::Checksum);
    }
    check_header(&header, context, plan)?;
    Ok(Reader::new(kind.name(), &signed[HEADER_LEN..]))
}

/// Content being read, with bounds checks.
struct Reader<'a> {
    section: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(section: &'static str, rest: &'a [u8]) -> Self {
        Self { section, rest }
    }

    fn field(&self, problem: String) -> ContainerError {
        ContainerError::Field { section: self.section, problem }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ContainerError> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.length(len as u64)),
        }
    }

    fn length(&self, expected: u64) -> ContainerError {
        ContainerError::Length { section: self.section, found: self.rest.len() as u64, expected }
    }

    fn array<const K: usize>(&mut self) -> Result<[u8; K], ContainerError> {
        let mut out = [0; K];
        out.copy_from_slice(self.take(K)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, ContainerError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ContainerError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A level, checked against the context.
    fn level(&mut self, context: &Context) -> Result<usize, ContainerError> {
        let level = self.u32()? as usize;
        if level > context.max_level() {
            return Err(self.field(format!("level {level} exceeds {}", context.max_level())));
        }
        Ok(level)
    }

    /// A scale made of powers of two and chain primes.
    fn scale(&mut self, context: &Context) -> Result<Scale, ContainerError> {
        /// Scales beyond `2^±4096` mean nothing for any modulus.
        const MAX_LOG2: f64 = 4096.0;
        let pow2 = self.u64()? as i64;
        let count = self.u32()? as usize;
        if count > context.moduli_q().len() {
            return Err(self.field(format!("a scale of {count} primes")));
        }
        let mut primes = Vec::with_capacity(count);
        for _ in 0..count {
            let (prime, exponent) = (self.u64()?, self.u64()? as i64);
            if !context.moduli_q().iter().any(|m| m.value() == prime) {
                return Err(self.field(format!("scale with {prime}, which is not in the chain")));
            }
            primes.push((prime, exponent));
        }
        let scale = Scale::from_parts(pow2, &primes).map_err(|e| self.field(e.to_string()))?;
        let log2 = scale.log2();
        if log2.is_nan() || log2.abs() > MAX_LOG2 {
            return Err(self.field(format!("scale of 2^{log2}")));
        }
        Ok(scale)
    }

    /// A packed polynomial over `q_0 … q_level` and, where asked for, the special primes.
    fn poly(&mut self, context: &Context, level: usize, special: bool) -> Result<Poly<Eval>, ContainerError> {
        self.poly_of(context, level, &Shape::new(context, level, special))
    }

    /// A packed polynomial over the limbs of a shape.
    fn poly_of(&mut self, context: &Context, level: usize, shape: &Shape) -> Result<Poly<Eval>, ContainerError> {
        let section = self.section;
        let bytes = self.take(shape.bytes())?;
        let n = context.n();
        let mut poly = Poly::<Eval>::scratch(n, shape.limbs);
        poly.par_iter_mut().enumerate().try_for_each(|(i, limb)| {
            let m = context.qp_modulus(level, i);
            unpack(m.bits(), &bytes[shape.offsets[i]..shape.offsets[i + 1]], limb);
            m.check_reduced(limb).map_err(|e| ContainerError::Field { section, problem: format!("limb {i}: {e}") })
        })?;
        Ok(poly)
    }

    fn finish(self) -> Result<(), ContainerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.length(0)) }
    }
}

/// Where the limbs of a packed polynomial lie.
struct Shape {
    limbs: usize,
    offsets: Vec<usize>,
}

impl Shape {
    fn new(context: &Context, level: usize, special: bool) -> Self {
        Self::with_limbs(context, level, if special { context.qp_limbs(level) } else { level + 1 })
    }

    /// The first `limbs` of `q_0 … q_level, p_0 …`.
    fn with_limbs(context: &Context, level: usize, limbs: usize) -> Self {
        let mut offsets = vec![0; limbs + 1];
        for i in 0..limbs {
            offsets[i + 1] = offsets[i] + packed_len(context.n(), context.qp_modulus(level, i).bits());
        }
        Self { limbs, offsets }
    }

    fn bytes(&self) -> usize {
        self.offsets[self.limbs]
    }
}

/// Writes a file and its checksum.
struct Writer<W> {
    inner: W,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    fn new(inner: W, context: &Context, kind: Kind, plan: &[u8; 32]) -> Result<Self, ContainerError> {
        let mut writer = Self { inner, hasher: blake3::Hasher::new(), buffer: Vec::new() };
        writer.bytes(&MAGIC)?;
        writer.u32(VERSION)?;
        writer.u32(kind.code())?;
        writer.u32(0)?;
        writer.bytes(plan)?;
        writer.bytes(&context.params_hash())?;
        Ok(writer)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        self.hasher.update(bytes);
        Ok(self.inner.write_all(bytes)?)
    }

    fn u32(&mut self, value: u32) -> Result<(), ContainerError> {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> Result<(), ContainerError> {
        self.bytes(&value.to_le_bytes())
    }

    fn scale(&mut self, scale: &Scale) -> Result<(), ContainerError> {
        let (pow2, primes) = scale.to_parts();
        self.u64(pow2 as u64)?;
        self.u32(primes.len() as u32)?;
        for (prime, exponent) in primes {
            self.u64(prime)?;
            self.u64(exponent as u64)?;
        }
        Ok(())
    }

    fn poly(&mut self, context: &Context, level: usize, poly: &Poly<Eval>) -> Result<(), ContainerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        for (i, limb) in poly.iter().enumerate() {
            buffer.clear();
            pack(context.qp_modulus(level, i).bits(), limb, &mut buffer);
            self.bytes(&buffer)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn finish(mut self) -> Result<(), ContainerError> {
        let checksum = *self.hasher.finalize().as_bytes();
        // It may have hashed a secret.
        self.hasher.zeroize();
        self.inner.write_all(&checksum)?;
        Ok(self.inner.flush()?)
    }
}
