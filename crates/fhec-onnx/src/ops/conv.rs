//! Conv.

use super::window::{Window, kernel_shape};
use crate::builder::{Node, Value, one};
use crate::error::{Problem, refuse};
use fhec_ir::nn::{Conv, Op};

pub(super) fn conv(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let weight = node.required(1, "the kernel")?.tensor;
    let bias = node.constant(2, "the bias")?;
    let x = node.data(0)?;
    let shape = node.shape(x);
    let rank = shape.len().saturating_sub(2);
    if rank == 0 || weight.shape().len() != shape.len() || weight.shape().contains(&0) {
        refuse!("operand {shape:?} with a kernel of shape {:?}", weight.shape());
    }
    let kernel = weight.shape()[2..].to_vec();
    if let Some(stated) = kernel_shape(node, rank)?
        && stated != kernel
    {
        return Err(Problem::new(format!("{stated:?}, but the kernel is {kernel:?}")).of("kernel_shape"));
    }
    let window = Window::read(node, kernel, &shape[2..])?;
    let groups = match usize::try_from(node.attributes.int_or("group", 1)?) {
        Ok(g) if g > 0 => g,
        _ => return Err(Problem::new("must be positive").of("group")),
    };
    let bias = bias.map(|b| node.weight(b.tensor));
    match rank {
        1 => {
            // A row: height 1 in front of the only spatial axis.
            let row = |s: &[usize]| vec![s[0], s[1], 1, s[2]];
            let weight = weight.reshaped(row(weight.shape()));
            let weight = node.weight(weight);
            let op = Op::Conv(Conv {
                weight,
                bias,
                strides: [1, window.strides[0]],
                pads: [0, window.before[0], 0, window.after[0]],
                dilations: [1, window.dilations[0]],
                groups,
            });
            let flat = node.builder.reshape(x, &row(&shape))?;
            let y = node.builder.push(op, vec![flat])?;
            let out = node.shape(y);
            one(node.builder.reshape(y, &[out[0], out[1], out[3]])?)
        }
        2 => {
            let weight = node.weight(weight);
            let op = Op::Conv(Conv {
                weight,
                bias,
                strides: [window.strides[0], window.strides[1]],
                pads: [window.before[0], window.before[1], window.after[0], window.after[1]],
                dilations: [window.dilations[0], window.dilations[1]],
                groups,
            });
            one(node.builder.push(op, vec![x])?)
        }
        _ => Err(Problem::new(format!("{rank}-dimensional convolution"))
            .of("kernel_shape")
            .help("one- and two-dimensional convolutions are supported; split the others into slices")),
    }
}
