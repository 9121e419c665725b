//! Text form of a tensor graph: one line per node, then the constants.
//!
//! ```text
//! graph "mnist" {
//!   %0 = Input(name="image") : 1x1x28x28 in [0.0, 1.0] @ "image"
//!   %1 = Conv(%0, weight=$0, bias=$1, strides=[2, 2], pads=[0, 0, 1, 1], dilations=[1, 1], groups=1) : 1x5x13x13 @ "conv1"
//!   %2 = Pow(%1, exponent=2) : 1x5x13x13 @ "square"
//!   output "y" = %2
//!   $0 : 5x1x5x5 = hash 8c1f0a93be52d7e4
//!   $1 : 5 = [0.5, 0.25, 0.125, 0.0, -1.0]
//! }
//! ```
//!
//! Constants of up to eight elements and those of one repeated value are written out; of others a hash
//! stands in the text, and the parser takes their tensors from a table. The distributions that
//! calibration attaches to values are left out.

use super::graph::{Conv, Graph, Node, Op, Pool};
use super::{Activation, ConstId};
use crate::Tensor;
use std::fmt::{self, Display, Formatter, Write};

/// Constants of at most this many elements are printed in full.
const INLINE: usize = 8;

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {:?} {{", self.name)?;
        for id in self.ids() {
            writeln!(f, "  %{} = {}", id.0, self.node(id))?;
        }
        for output in &self.outputs {
            writeln!(f, "  output {:?} = %{}", output.name, output.value.0)?;
        }
        for (i, tensor) in self.constants.iter().enumerate() {
            writeln!(f, "  ${i} : {} = {}", Shape(tensor.shape()), Constant(tensor))?;
        }
        f.write_str("}\n")
    }
}

/// Name, operands, attributes, shape, range, origin and what that is known as.
impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operands = self.inputs.iter().map(|v| format!("%{}", v.0));
        let arguments: Vec<String> = operands.chain(attributes(&self.op)).collect();
        write!(f, "{}({}) : {}", self.op.name(), arguments.join(", "), Shape(&self.shape))?;
        if let Some(range) = self.range {
            write!(f, " in [{:?}, {:?}]", range.lo, range.hi)?;
        }
        if !self.origin.names.is_empty() {
            let names: Vec<String> = self.origin.names.iter().map(|n| format!("{n:?}")).collect();
            write!(f, " @ {}", names.join("+"))?;
        }
        if let Some(what) = &self.origin.what {
            write!(f, " as {what:?}")?;
        }
        Ok(())
    }
}

/// Extents joined by `x`; `scalar` without dimensions.
pub struct Shape<'a>(pub &'a [usize]);

impl Display for Shape<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("scalar");
        }
        for (d, extent) in self.0.iter().enumerate() {
            if d > 0 {
                f.write_char('x')?;
            }
            write!(f, "{extent}")?;
        }
        Ok(())
    }
}

/// The values of a constant as the text form has them.
struct Constant<'a>(&'a Tensor);

impl Display for Constant<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let values = self.0.values();
        match values {
            _ if values.len() <= INLINE => write!(f, "{values:?}"),
            // Bit patterns, so that −0 stays apart from 0.
            [first, rest @ ..] if rest.iter().all(|v| v.to_bits() == first.to_bits()) => write!(f, "full {first:?}"),
            _ => write!(f, "hash {:016x}", hash(self.0)),
        }
    }
}

/// FNV-1a over shape and value bits: names a constant in the text form.
pub fn hash(tensor: &Tensor) -> u64 {
    let shape = tensor.shape().iter().map(|&d| d as u64);
    let values = tensor.values().iter().map(|v| v.to_bits());
    shape
        .chain(values)
        .flat_map(u64::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// `key=value` for every attribute and constant of an operation.
fn attributes(op: &Op) -> Vec<String> {
    let constant = |key: &str, id: ConstId| format!("{key}=${}", id.0);
    let list = |key: &str, values: &[usize]| format!("{key}={values:?}");
    match op {
        Op::Input { name } => vec![format!("name={name:?}")],
        Op::Conv(Conv { weight, bias, strides, pads, dilations, groups }) => {
            let constants = std::iter::once(constant("weight", *weight)).chain(bias.map(|b| constant("bias", b)));
            let lists = [list("strides", strides), list("pads", pads), list("dilations", dilations)];
            constants.chain(lists).chain([format!("groups={groups}")]).collect()
        }
        Op::Dense { weight, bias } => {
            std::iter::once(constant("weight", *weight)).chain(bias.map(|b| constant("bias", b))).collect()
        }
        Op::BatchNorm { scale, bias, mean, variance, epsilon } => vec![
            constant("scale", *scale),
            constant("bias", *bias),
            constant("mean", *mean),
            constant("variance", *variance),
            format!("epsilon={epsilon:?}"),
        ],
        Op::Add | Op::Sub | Op::Mul | Op::Reshape => vec![],
        Op::AddConst(c) | Op::MulConst(c) => vec![constant("constant", *c)],
        Op::AveragePool(Pool { kernel, strides, pads, dilations, counted_pads })
        | Op::MaxPool(Pool { kernel, strides, pads, dilations, counted_pads }) => vec![
            list("kernel", kernel),
            list("strides", strides),
            list("pads", pads),
            list("dilations", dilations),
            list("counted_pads", counted_pads),
        ],
        Op::ReduceMean { axes, keep } | Op::ReduceSum { axes, keep } => {
            vec![list("axes", axes), format!("keep={keep}")]
        }
        Op::Transpose { perm } => vec![list("perm", perm)],
        Op::Concat { axis } | Op::Softmax { axis } => vec![format!("axis={axis}")],
        Op::Slice { starts, steps } => vec![list("starts", starts), format!("steps={steps:?}")],
        Op::Pad { before, after, value } => {
            vec![format!("before={before:?}"), format!("after={after:?}"), format!("value={value:?}")]
        }
        Op::Activation(a) => parameters(a).into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
        Op::PRelu { slope } => vec![constant("slope", *slope)],
        Op::Polynomial { chebyshev, interval, label } => vec![
            format!("label={label:?}"),
            format!("interval=[{:?}, {:?}]", interval.lo, interval.hi),
            format!("chebyshev={chebyshev:?}"),
        ],
    }
}

/// Parameters of an activation.
fn parameters(a: &Activation) -> Vec<(&'static str, String)> {
    let number = |key, value: f64| (key, format!("{value:?}"));
    match *a {
        Activation::LeakyRelu { alpha }
        | Activation::Elu { alpha }
        | Activation::Celu { alpha }
        | Activation::Swish { alpha } => vec![number("alpha", alpha)],
        Activation::Selu { alpha, gamma } => vec![number("alpha", alpha), number("gamma", gamma)],
        Activation::HardSigmoid { alpha, beta } => vec![number("alpha", alpha), number("beta", beta)],
        Activation::Gelu { tanh } => vec![("tanh", tanh.to_string())],
        Activation::Clip { min, max } => vec![number("min", min), number("max", max)],
        Activation::Power { exponent } => vec![("exponent", exponent.to_string())],
        Activation::Relu
        | Activation::Sigmoid
        | Activation::HardSwish
        | Activation::Mish
        | Activation::Tanh
        | Activation::Erf
        | Activation::Softplus
        | Activation::Softsign
        | Activation::Exp => vec![],
    }
}
