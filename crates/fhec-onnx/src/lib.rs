//! ONNX files to tensor graphs.
//!
//! [`load`] reads a file, [`from_bytes`] a buffer; [`Model`] gives more control. Shapes are made static,
//! everything that does not depend on an input is computed, and what remains is one
//! [`fhec_ir::nn::Graph`] in which every node carries the names of the model's nodes it came from.
//!
//! | module | idea |
//! | --- | --- |
//! | [`proto`] | the messages of the format, written by hand |
//! | `tensor`, `external` | constants of every numeric type, in the file and beside it |
//! | `attributes`, `builder` | what a translation sees of its node, and the graph it adds to |
//! | `ops` | one file per operator family |
//! | `fold` | constants computed at import |
//! | `import` | walks the nodes, and goes on after a refusal so that *all* problems are listed |
//! | `pattern` | activations that exporters write as several nodes |
//!
//! Nothing is approximated and nothing is ignored: an operator, attribute or type that cannot be
//! represented exactly is an entry of [`ImportError::Unsupported`], with a suggested rewrite. Malformed
//! files give errors, never panics, and cannot ask for unbounded memory ([`Options::max_elements`]).

mod attributes;
mod builder;
mod error;
mod external;
mod fold;
mod import;
mod inputs;
mod ops;
mod outputs;
mod pattern;
pub mod proto;
mod prune;
mod suggest;
mod tensor;

pub use error::ImportError;
pub use inputs::{Dim, InputInfo};
pub use tensor::{DataType, read_tensor_proto};

use bytes::Bytes;
use external::External;
use fhec_ir::Tensor;
use fhec_ir::nn::Graph;
use prost::Message;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

/// Versions of the operator set that are understood: 7 to 27 are those that the documentation promises. Version 6 differs from 7 in the broadcasting of
/// arithmetic, and old PyTorch exports use it; 28 is the draft that the ONNX test cases already use.
pub const OPSETS: RangeInclusive<i64> = 6..=28;

/// What the file leaves open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Graph inputs that become constants.
    pub bind: BTreeMap<String, Tensor>,
    /// Extents of symbolic dimensions. A symbolic first dimension without an entry is a batch of one.
    pub dims: BTreeMap<String, usize>,
    /// Shapes of graph inputs whose rank the file does not state.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Tensors that become the outputs, in this order; those of the file where this is empty.
    pub outputs: Vec<String>,
    /// Elements that all constants together may have; each takes eight bytes.
    pub max_elements: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bind: BTreeMap::new(),
            dims: BTreeMap::new(),
            shapes: BTreeMap::new(),
            outputs: Vec::new(),
            // 4 GiB of f64.
            max_elements: 1 << 29,
        }
    }
}

/// A decoded file.
pub struct Model {
    proto: proto::ModelProto,
    external: External,
}

impl Model {
    /// Reads a file; external tensor data is looked for in its folder.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        let path = path.as_ref();
        let bytes = external::map(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Model::decode(bytes, Some(folder))
    }

    /// Reads a buffer; without a folder, external tensor data is refused.
    pub fn from_bytes(bytes: &[u8], external_dir: Option<&Path>) -> Result<Self, ImportError> {
        Model::decode(Bytes::copy_from_slice(bytes), external_dir)
    }

    fn decode(bytes: Bytes, external_dir: Option<&Path>) -> Result<Self, ImportError> {
        let external = external_dir.map_or_else(External::none, External::below);
        Ok(Model { proto: proto::ModelProto::decode(bytes)?, external })
    }

    /// The graph's inputs that are no initializers, in the file's order.
    pub fn inputs(&self) -> Vec<InputInfo> {
        self.proto.graph.as_ref().map_or_else(Vec::new, inputs::list)
    }

    /// The tensor graph.
    ///
    /// # Errors
    /// Everything in the file that cannot be said, and outputs asked for that it does not have.
    pub fn import(&self, options: &Options) -> Result<Graph, ImportError> {
        if !options.outputs.is_empty() {
            let chosen = outputs::choose(&self.proto, &options.outputs)?;
            return import::import(&chosen, &self.external, options);
        }
        import::import(&self.proto, &self.external, options)
    }
}

/// Imports a file.
pub fn load(path: impl AsRef<Path>) -> Result<Graph, ImportError> {
    Model::load(path)?.import(&Options::default())
}

/// Imports a buffer; without a folder, external tensor data is refused.
pub fn from_bytes(bytes: &[u8], external_dir: Option<&Path>) -> Result<Graph, ImportError> {
    Model::from_bytes(bytes, external_dir)?.import(&Options::default())
}
