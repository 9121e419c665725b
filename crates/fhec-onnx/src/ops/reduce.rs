//! Sums and means over axes.

use crate::builder::{Node, Value, axes, one};
use crate::error::Problem;
use fhec_ir::nn::{Activation, Op, ValueId};

/// What is reduced, over which axes, and whether they are kept; no axes mean that nothing is reduced.
fn read(node: &mut Node<'_, '_>, axes_input_since: i64) -> Result<(ValueId, Vec<usize>, bool), Problem> {
    let list = node.axes(1, axes_input_since)?.unwrap_or_default();
    let keep = node.attributes.flag("keepdims", true)?;
    let nothing = node.opset >= axes_input_since && node.attributes.flag("noop_with_empty_axes", false)?;
    let x = node.data(0)?;
    let rank = node.shape(x).len();
    let axes = if list.is_empty() && !nothing { (0..rank).collect() } else { axes(&list, rank)? };
    Ok((x, axes, keep))
}

fn reduce(node: &mut Node<'_, '_>, since: i64, make: fn(Vec<usize>, bool) -> Op) -> Result<Vec<Value>, Problem> {
    let (x, axes, keep) = read(node, since)?;
    one(if axes.is_empty() { x } else { node.builder.push(make(axes, keep), vec![x])? })
}

pub(super) fn mean(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    reduce(node, 18, |axes, keep| Op::ReduceMean { axes, keep })
}

pub(super) fn sum(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    reduce(node, 13, |axes, keep| Op::ReduceSum { axes, keep })
}

pub(super) fn sum_square(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (x, axes, keep) = read(node, 18)?;
    let square = node.builder.activation(Activation::Power { exponent: 2 }, x)?;
    // With no axes the operator still squares.
    one(if axes.is_empty() { square } else { node.builder.push(Op::ReduceSum { axes, keep }, vec![square])? })
}
