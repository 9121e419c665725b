//! The plan file: how a [`Plan`] is written and read.
//!
//! A fixed header with a hash of every section, then the sections head, program, weights and report (see
//! the header module for the bytes). Head, program and report are protobuf messages; weights are raw
//! numbers that the server borrows from a memory map. The encoding is canonical: a section that decodes
//! but would be written differently is refused, so the hash of a plan names its contents.
//!
//! Reading does not trust the file: sections are bounded by it, messages by their section (decoded they take a
//! small multiple of its bytes), and counts, extents and offsets of the decoded tables are held against
//! [`crate::structure`]. What a plan *means*, and what working with it takes, is checked by [`crate::verify`],
//! which everything that runs a plan demands.

mod aided;
mod head;
mod header;
mod message;
mod program;
mod report;

pub use header::{MAGIC, VERSION};

use crate::error::{PlanError, Section};
use crate::{Aided, Input, KeyManifest, Output, Parameters, Plan, Weights};
use header::Header;
use prost::Message;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that outlive the reader: a memory map or a vector.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// All that a client needs of a plan: parameters, keys, inputs and outputs, and what it computes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanHead {
    /// Version of the compiler that wrote the plan.
    pub compiler: String,
    /// Name of the source model.
    pub model: String,
    /// Encryption parameters.
    pub parameters: Parameters,
    /// Evaluation keys that the plan uses.
    pub keys: KeyManifest,
    /// What the client encrypts.
    pub inputs: Vec<Input>,
    /// What the client decrypts.
    pub outputs: Vec<Output>,
    /// Whether a slot holds two images, one in its real and one in its imaginary part.
    pub complex: bool,
    /// Rounds and client functions, in client-aided mode.
    pub aided: Option<Aided>,
    /// Hash of the whole plan; keys and ciphertexts carry it.
    pub hash: [u8; 32],
}

impl PlanHead {
    /// Reads header and head section; the rest of the file may be missing.
    ///
    /// # Errors
    /// [`PlanError`], naming the section.
    pub fn read(file: &[u8]) -> Result<Self, PlanError> {
        let header = Header::read(file)?;
        let range = header.section(file, Section::Head)?;
        let parts = read_head(&file[range])?;
        Ok(PlanHead {
            compiler: parts.compiler,
            model: parts.model,
            parameters: parts.parameters,
            keys: parts.keys,
            inputs: parts.inputs,
            outputs: parts.outputs,
            complex: parts.complex,
            aided: parts.aided,
            hash: header.plan_hash(),
        })
    }
}

/// A section of a file, kept alive by the file.
struct Slice {
    file: SharedBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &(*self.file).as_ref()[self.range.clone()]
    }
}

/// Decodes a message and makes sure that it is the one encoding of itself.
fn message<M: Message + Default>(section: Section, bytes: &[u8]) -> Result<M, PlanError> {
    M::decode(bytes).map_err(|e| PlanError::malformed(section, e.to_string()))
}

fn canonical(section: Section, bytes: &[u8], again: &impl Message) -> Result<(), PlanError> {
    if again.encode_to_vec() == bytes {
        return Ok(());
    }
    Err(PlanError::malformed(section, "not in canonical form"))
}

fn read_head(bytes: &[u8]) -> Result<head::HeadParts, PlanError> {
    let section = Section::Head;
    let parts = head::decode(message(section, bytes)?).map_err(|e| PlanError::malformed(section, e))?;
    let names = (&parts.compiler[..], &parts.model[..]);
    let ports = (&parts.inputs[..], &parts.outputs[..], parts.complex, parts.aided.as_ref());
    let again = head::encode(names, &parts.parameters, &parts.keys, ports);
    canonical(section, bytes, &again)?;
    Ok(parts)
}

/// The encoded head, program and report sections.
fn encode(plan: &Plan) -> [Vec<u8>; 3] {
    let ports = (&plan.inputs[..], &plan.outputs[..], plan.complex, plan.aided.as_ref());
    let head = head::encode((&plan.compiler, &plan.model), &plan.parameters, &plan.keys, ports);
    [head.encode_to_vec(), program::encode(plan).encode_to_vec(), report::encode(&plan.report).encode_to_vec()]
}

impl Plan {
    /// Writes the plan file to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let [head, program, report] = encode(self);
        let contents = [&head[..], &program, self.weights.bytes(), &report];
        Header::of(contents).write(&contents, out)
    }

    /// Writes what a client needs, for [`PlanHead::read`]: the plan file up to the end of its head section. The
    /// hashes of the other sections are there, their contents are not.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_head_to(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let [head, program, report] = encode(self);
        let contents = [&head[..], &program, self.weights.bytes(), &report];
        Header::of(contents).write(&contents[..1], out)
    }

    /// The plan file as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let [head, program, report] = encode(self);
        let contents = [&head[..], &program, self.weights.bytes(), &report];
        let mut out = Vec::with_capacity(1024 + contents.iter().map(|c| c.len()).sum::<usize>());
        // Writing to a vector cannot fail.
        let _ = Header::of(contents).write(&contents, &mut out);
        out
    }

    /// Hash that names the plan: over the hashes of its sections. Keys and ciphertexts carry it.
    pub fn hash(&self) -> [u8; 32] {
        let [head, program, report] = encode(self);
        Header::of([&head[..], &program, self.weights.bytes(), &report]).plan_hash()
    }

    /// The part that a client needs.
    pub fn head(&self) -> PlanHead {
        PlanHead {
            compiler: self.compiler.clone(),
            model: self.model.clone(),
            parameters: self.parameters.clone(),
            keys: self.keys.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            complex: self.complex,
            aided: self.aided.clone(),
            hash: self.hash(),
        }
    }

    /// Reads a plan file. Weights are borrowed from `file`, not copied.
    ///
    /// # Errors
    /// [`PlanError`], naming the section.
    pub fn read(file: SharedBytes) -> Result<Self, PlanError> {
        let bytes: &[u8] = (*file).as_ref();
        let header = Header::read(bytes)?;
        let section = |s| header.section(bytes, s);
        let (head, program) = (section(Section::Head)?, section(Section::Program)?);
        let (weights, report) = (section(Section::Weights)?, section(Section::Report)?);
        header.check_end(bytes)?;
        let report_message: message::Report = message(Section::Report, &bytes[report.clone()])?;
        let head = read_head(&bytes[head])?;
        let malformed = |e| PlanError::malformed(Section::Program, e);
        let parts = program::decode(message(Section::Program, &bytes[program.clone()])?).map_err(malformed)?;
        let slice: SharedBytes = Arc::new(Slice { file: Arc::clone(&file), range: weights });
        let weights = Weights::new(slice, parts.tensors).map_err(|e| PlanError::malformed(Section::Weights, e))?;
        let plan = Plan {
            compiler: head.compiler,
            model: head.model,
            parameters: head.parameters,
            keys: head.keys,
            inputs: head.inputs,
            outputs: head.outputs,
            complex: head.complex,
            aided: head.aided,
            layers: parts.layers,
            matrices: parts.matrices,
            vectors: parts.vectors,
            polynomials: parts.polynomials,
            weights,
            instructions: parts.instructions,
            report: report::decode(report_message).map_err(|e| PlanError::malformed(Section::Report, e))?,
        };
        canonical(Section::Program, &bytes[program], &program::encode(&plan))?;
        canonical(Section::Report, &bytes[report], &report::encode(&plan.report))?;
        Ok(plan)
    }
}
