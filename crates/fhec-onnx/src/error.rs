//! Why a model could not be imported.

use fhec_ir::{Diagnostic, Diagnostics, Origin};
use std::path::PathBuf;

/// An import that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("not an ONNX file: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The file's content contradicts itself.
    #[error("malformed model: {0}")]
    Malformed(String),
    /// The model's operator set is too old or too new.
    #[error("operator set {found}; versions {} to {} are supported (convert with onnx.version_converter)",
            crate::OPSETS.start(), crate::OPSETS.end())]
    Opset {
        /// Version in the file.
        found: i64,
    },
    /// A tensor cannot be read.
    #[error("tensor '{name}': {message}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Nodes, inputs or outputs that cannot be compiled: all of them.
    #[error("the model cannot be compiled:\n{0}")]
    Unsupported(Diagnostics),
}

/// What is wrong with one node; becomes a [`Diagnostic`] when the node's name is added.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) attribute: Option<String>,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Problem { attribute: None, message: message.into(), help: String::new() }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Blames an attribute.
    pub(crate) fn of(mut self, attribute: &str) -> Self {
        self.attribute = Some(attribute.to_owned());
        self
    }

    pub(crate) fn at(self, origin: &Origin, operator: &str) -> Diagnostic {
        let what = match self.attribute {
            Some(attribute) => format!("{operator}.{attribute}"),
            None => operator.to_owned(),
        };
        Diagnostic { origin: origin.clone(), what, message: self.message, help: self.help }
    }
}

impl From<fhec_ir::nn::shape::ShapeError> for Problem {
    fn from(e: fhec_ir::nn::shape::ShapeError) -> Self {
        Problem::new(e.to_string())
    }
}

impl From<ImportError> for Problem {
    fn from(e: ImportError) -> Self {
        Problem::new(e.to_string())
    }
}

/// Returns a [`Problem`] with a formatted message.
macro_rules! refuse {
    ($($arg:tt)*) => { return Err($crate::error::Problem::new(format!($($arg)*))) };
}
pub(crate) use refuse;
