//! Why a plan file cannot be read.

use std::fmt;

/// A part of a plan file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// Magic, version and section table.
    Header,
    /// Parameters, key manifest, inputs and outputs: all that a client needs.
    Head,
    /// Layers, matrices, vectors, polynomials, instructions and the table of weight tensors.
    Program,
    /// Weight tensors as raw little-endian numbers.
    Weights,
    /// What the compiler predicted.
    Report,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Section::Header => "header",
            Section::Head => "head",
            Section::Program => "program",
            Section::Weights => "weights",
            Section::Report => "report",
        })
    }
}

/// Why a plan file was refused. Every variant but the first two names the section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file does not begin with the magic bytes.
    #[error("not a plan: the file does not begin with \"FHECPLAN\"")]
    NotAPlan,
    /// A format version that this build does not read.
    #[error("plan format version {found}; this build reads version {expected}")]
    Version {
        /// Version in the file.
        found: u32,
        /// Version of this build.
        expected: u32,
    },
    /// The file ends too early.
    #[error("plan truncated: the {section} section needs {needed} bytes of the file, which has {have}")]
    Truncated {
        /// Section that is cut.
        section: Section,
        /// File size that it needs, bytes.
        needed: u64,
        /// File size, bytes.
        have: u64,
    },
    /// The content of a section does not match its hash.
    #[error("plan damaged: the hash of the {section} section does not match its content")]
    Hash {
        /// Damaged section.
        section: Section,
    },
    /// A section holds something impossible.
    #[error("plan malformed, {section} section: {problem}")]
    Malformed {
        /// Section.
        section: Section,
        /// What is wrong, with the numbers.
        problem: String,
    },
}

impl PlanError {
    pub(crate) fn malformed(section: Section, problem: impl Into<String>) -> Self {
        PlanError::Malformed { section, problem: problem.into() }
    }
}
