//! The tensor graph: what the model file means.

pub mod activation;
pub mod graph;

pub use activation::Activation;
pub use graph::{ConstId, Conv, Distribution, Graph, Node, Op, Output, Pool, Range, ValueId};
