//! Names of operations.

use super::graph::Op;

impl Op {
    /// The operation's name, for messages and the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "Input",
            Op::Conv(_) => "Conv",
            Op::Dense { .. } => "Dense",
            Op::BatchNorm { .. } => "BatchNorm",
            Op::Add => "Add",
            Op::Sub => "Sub",
            Op::Mul => "Mul",
            Op::AddConst(_) => "AddConst",
            Op::MulConst(_) => "MulConst",
            Op::AveragePool(_) => "AveragePool",
            Op::ReduceMean { .. } => "ReduceMean",
            Op::ReduceSum { .. } => "ReduceSum",
            Op::Reshape => "Reshape",
            Op::Transpose { .. } => "Transpose",
            Op::Concat { .. } => "Concat",
            Op::Slice { .. } => "Slice",
            Op::Pad { .. } => "Pad",
            Op::Activation(a) => a.name(),
            Op::PRelu { .. } => "PRelu",
            Op::Polynomial { .. } => "Polynomial",
            Op::Softmax { .. } => "Softmax",
            Op::MaxPool(_) => "MaxPool",
        }
    }
}
