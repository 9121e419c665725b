//! Pad.

use crate::builder::{Node, Value, axis, one};
use crate::error::{Problem, refuse};
use fhec_ir::nn::Op;

pub(super) fn pad(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let mode = node.attributes.text("mode")?.unwrap_or("constant");
    let (pads, value, axes) = if node.opset < 11 {
        (node.attributes.ints("pads")?, node.attributes.float("value")?, None)
    } else {
        (node.integers(1, "the padding")?, node.scalar(2, "the padding value")?, node.integers(3, "axes")?)
    };
    if mode != "constant" {
        return Err(Problem::new(format!("mode '{mode}'"))
            .of("mode")
            .help("only constant padding is supported; retrain with zero padding"));
    }
    let Some(pads) = pads else { refuse!("the padding is missing") };
    let x = node.data(0)?;
    let rank = node.shape(x).len();
    let axes = axes.unwrap_or_else(|| (0..rank as i64).collect());
    crate::builder::axes(&axes, rank)?;
    if pads.len() != 2 * axes.len() {
        refuse!("{} numbers of padding for {} axes", pads.len(), axes.len());
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let d = axis(a, rank)?;
        (before[d], after[d]) = (pads[i], pads[axes.len() + i]);
    }
    if before.iter().chain(&after).all(|&p| p == 0) {
        return one(x);
    }
    one(node.builder.push(Op::Pad { before, after, value: value.unwrap_or(0.0) }, vec![x])?)
}
