//! Elementwise functions and Softmax.

use crate::builder::{Node, Value, axis, one};
use crate::error::{Problem, refuse};
use fhec_ir::nn::{Activation, Op};
use fhec_ir::tensor::broadcast_shape;

/// Operators that are one activation with attributes only.
const NAMES: [&str; 16] = [
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Swish",
    "Mish",
    "Tanh",
    "Erf",
    "Gelu",
    "Softplus",
    "Softsign",
    "Exp",
];

pub(super) fn is_activation(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn activation(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let a = &node.attributes;
    let function = match node.proto.op_type.as_str() {
        "Relu" => Activation::Relu,
        "LeakyRelu" => Activation::LeakyRelu { alpha: a.float_or("alpha", 0.01)? },
        "Elu" => Activation::Elu { alpha: a.float_or("alpha", 1.0)? },
        // The defaults of the specification, which are f32 numbers.
        "Selu" => Activation::Selu {
            alpha: a.float_or("alpha", f64::from(1.673_263_2_f32))?,
            gamma: a.float_or("gamma", f64::from(1.050_701_f32))?,
        },
        "Celu" => match a.float_or("alpha", 1.0)? {
            0.0 => return Err(Problem::new("must not be 0").of("alpha")),
            alpha => Activation::Celu { alpha },
        },
        "Sigmoid" => Activation::Sigmoid,
        "HardSigmoid" => Activation::HardSigmoid { alpha: a.float_or("alpha", 0.2)?, beta: a.float_or("beta", 0.5)? },
        "HardSwish" => Activation::HardSwish,
        "Swish" => Activation::Swish { alpha: a.float_or("alpha", 1.0)? },
        "Mish" => Activation::Mish,
        "Tanh" => Activation::Tanh,
        "Erf" => Activation::Erf,
        "Gelu" => match a.text("approximate")?.unwrap_or("none") {
            "none" => Activation::Gelu { tanh: false },
            "tanh" => Activation::Gelu { tanh: true },
            other => return Err(Problem::new(format!("unknown approximation '{other}'")).of("approximate")),
        },
        "Softplus" => Activation::Softplus,
        "Softsign" => Activation::Softsign,
        "Exp" => Activation::Exp,
        other => refuse!("'{other}' is no activation"),
    };
    let x = node.data(0)?;
    one(node.builder.activation(function, x)?)
}

pub(super) fn clip(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (min, max) = if node.opset < 11 {
        (node.attributes.float("min")?, node.attributes.float("max")?)
    } else {
        (node.scalar(1, "the lower bound")?, node.scalar(2, "the upper bound")?)
    };
    let (min, max) = (min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY));
    if min.is_nan() || max.is_nan() {
        refuse!("bounds {min} and {max}");
    }
    let x = node.data(0)?;
    if min == f64::NEG_INFINITY && max == f64::INFINITY {
        return one(x);
    }
    one(node.builder.activation(Activation::Clip { min, max }, x)?)
}

pub(super) fn prelu(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let mut slope = node.required(1, "the slope")?.tensor;
    let x = node.data(0)?;
    let shape = node.shape(x);
    if node.opset < 7 && slope.len() > 1 && slope.shape().len() == 1 && shape.len() > 2 {
        // Before version 7 one slope per channel stands at axis 1.
        let per_channel = [&[slope.len()], vec![1; shape.len() - 2].as_slice()].concat();
        slope = slope.reshaped(per_channel);
    }
    if broadcast_shape(&shape, slope.shape()).as_deref() != Some(&shape) {
        refuse!("slope of shape {:?} for {shape:?}", slope.shape());
    }
    let slope = node.weight(slope);
    one(node.builder.push(Op::PRelu { slope }, vec![x])?)
}

pub(super) fn softmax(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let x = node.data(0)?;
    let shape = node.shape(x);
    if node.opset >= 13 {
        let axis = axis(node.attributes.int_or("axis", -1)?, shape.len())?;
        return one(node.builder.push(Op::Softmax { axis }, vec![x])?);
    }
    // Older operator sets take all axes from this one on together.
    let axis = axis(node.attributes.int_or("axis", 1)?, shape.len())?;
    if axis + 1 == shape.len() {
        return one(node.builder.push(Op::Softmax { axis }, vec![x])?);
    }
    let rows = shape[..axis].iter().product();
    let columns = shape[axis..].iter().product();
    let flat = node.builder.reshape(x, &[rows, columns])?;
    let y = node.builder.push(Op::Softmax { axis: 1 }, vec![flat])?;
    one(node.builder.reshape(y, &shape)?)
}
