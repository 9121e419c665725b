//! Parts of a tensor, and tensors put together.

use crate::builder::{Node, Value, axis, one};
use crate::error::{Problem, refuse};
use fhec_ir::Tensor;
use fhec_ir::nn::{Op, ValueId};

/// Parts that an operator may be cut into.
const MAX_PARTS: usize = 1024;

/// Concatenation; constants among the operands are added into zeros that stand in their place.
pub(super) fn concat(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(given) = node.attributes.int("axis")? else {
        return Err(Problem::new("is missing").of("axis"));
    };
    let mixed = node.builder.feeds.is_none() && node.inputs.iter().flatten().any(|v| matches!(v, Value::Constant(_)));
    if !mixed {
        let parts = (0..node.inputs.len()).map(|i| node.data(i)).collect::<Result<Vec<_>, _>>()?;
        let axis = axis(given, node.shape(parts[0]).len())?;
        return one(join(node, axis, parts)?);
    }
    let mut axis_found = None;
    let mut parts: Vec<(Vec<usize>, Part)> = Vec::new();
    for value in node.inputs.clone().into_iter().flatten() {
        let (shape, part) = match value {
            Value::Data(id) => (node.shape(id), Part::Data(id)),
            Value::Constant(c) => (c.tensor.shape().to_vec(), Part::Constant(c.tensor)),
            Value::Unknown => refuse!("an operand is missing"),
        };
        if parts.first().is_some_and(|(first, _)| first.len() != shape.len()) {
            refuse!("the operands have different ranks");
        }
        axis_found = Some(axis(given, shape.len())?);
        parts.push((shape, part));
    }
    let Some(axis) = axis_found else { refuse!("no operands") };
    let total: usize = parts.iter().map(|(shape, _)| shape[axis]).sum();
    let mut start = 0;
    let mut sum: Option<ValueId> = None;
    let mut constant: Option<Tensor> = None;
    for (shape, part) in parts {
        let extent = shape[axis];
        let (mut before, mut after) = (vec![0i64; shape.len()], vec![0i64; shape.len()]);
        before[axis] = start as i64;
        after[axis] = (total - start - extent) as i64;
        start += extent;
        let pad = Op::Pad { before, after, value: 0.0 };
        match part {
            Part::Data(id) => {
                let padded = node.builder.push(pad, vec![id])?;
                sum = Some(match sum {
                    Some(s) => node.builder.push(Op::Add, vec![s, padded])?,
                    None => padded,
                });
            }
            Part::Constant(c) => {
                let full = fhec_ir::nn::shape::infer(&pad, &[c.shape()], &[], &[])?;
                node.builder.budget.take(&full)?;
                let padded = fhec_ir::nn::interpret::eval(&pad, &[&c], &[], &full);
                constant = Some(match constant {
                    Some(s) if s.shape() != padded.shape() => refuse!("the operands do not fit side by side"),
                    Some(s) => s.zip(&padded, |a, b| a + b).unwrap_or(padded),
                    None => padded,
                });
            }
        }
    }
    match (sum, constant) {
        (Some(sum), Some(c)) if node.builder.shape(sum) == c.shape() => one(node.builder.add_const(sum, c)?),
        (Some(sum), None) => one(sum),
        _ => refuse!("the operands do not fit side by side"),
    }
}

enum Part {
    Data(ValueId),
    Constant(Tensor),
}

fn join(node: &mut Node<'_, '_>, axis: usize, mut parts: Vec<ValueId>) -> Result<ValueId, Problem> {
    if node.builder.feeds.is_some() {
        let total: usize = parts.iter().map(|&p| node.shape(p).iter().product::<usize>()).sum();
        node.builder.budget.take(&[total])?;
    }
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => node.builder.push(Op::Concat { axis }, parts),
    }
}

pub(super) fn split(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let given = if node.opset >= 13 { node.integers(1, "the split")? } else { node.attributes.ints("split")? };
    let number = if node.opset >= 18 { node.attributes.int("num_outputs")? } else { None };
    let axis_given = node.attributes.int_or("axis", 0)?;
    let x = node.data(0)?;
    let shape = node.shape(x);
    let axis = axis(axis_given, shape.len())?;
    let parts = node.proto.output.len();
    if number.is_some_and(|n| n != parts as i64) {
        return Err(Problem::new(format!("{parts} results are named")).of("num_outputs"));
    }
    let lengths: Vec<usize> = match given {
        Some(list) => match list.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>() {
            Some(lengths) => lengths,
            None => refuse!("split {list:?}"),
        },
        None if parts == 0 => vec![],
        // Equal parts, the last one smaller if they do not fit.
        None => {
            let step = shape[axis].div_ceil(parts);
            (0..parts).map(|i| step.min(shape[axis].saturating_sub(i * step))).collect()
        }
    };
    let total = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if lengths.len() != parts || total != Some(shape[axis]) {
        refuse!("axis {axis} of {shape:?} does not split into {lengths:?} for {parts} results");
    }
    let mut start = 0;
    let mut results = Vec::with_capacity(parts);
    for (length, name) in lengths.into_iter().zip(&node.proto.output) {
        results.push(match name.as_str() {
            "" => Value::Unknown,
            _ => Value::Data(node.builder.narrow(x, axis, start, length)?),
        });
        start += length;
    }
    Ok(results)
}

pub(super) fn slice(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (starts, ends, axes, steps) = if node.opset < 10 {
        let a = &node.attributes;
        (a.ints("starts")?, a.ints("ends")?, a.ints("axes")?, None)
    } else {
        (node.integers(1, "starts")?, node.integers(2, "ends")?, node.integers(3, "axes")?, node.integers(4, "steps")?)
    };
    let (Some(starts), Some(ends)) = (starts, ends) else { refuse!("starts and ends are needed") };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        refuse!("{} starts, {} ends, {} axes, {} steps", starts.len(), ends.len(), axes.len(), steps.len());
    }
    let x = node.data(0)?;
    let mut shape = node.shape(x);
    crate::builder::axes(&axes, shape.len())?;
    let (mut from, mut by) = (vec![0usize; shape.len()], vec![1i64; shape.len()]);
    for i in 0..starts.len() {
        let d = axis(axes[i], shape.len())?;
        let Some((start, count)) = range(starts[i], ends[i], steps[i], shape[d] as i64) else {
            refuse!("step 0");
        };
        (from[d], by[d], shape[d]) = (start, steps[i], count);
    }
    let full = shape == node.shape(x) && by.iter().all(|&s| s == 1);
    one(if full { x } else { node.builder.push_shaped(Op::Slice { starts: from, steps: by }, vec![x], &shape)? })
}

/// First index and count of Python's `start:end:step` on `extent` elements; `None` for step 0.
fn range(start: i64, end: i64, step: i64, extent: i64) -> Option<(usize, usize)> {
    let from_front = |i: i64| if i < 0 { i.saturating_add(extent) } else { i };
    let (start, end) = (from_front(start), from_front(end));
    let (start, count) = match step {
        0 => return None,
        1.. => {
            let start = start.clamp(0, extent);
            (start, (end.clamp(0, extent) - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        }
        _ => {
            let start = start.clamp(-1, extent - 1);
            (start, (start - end.clamp(-1, extent - 1)).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
        }
    };
    Some(if count == 0 { (0, 0) } else { (start as usize, count as usize) })
}

/// Gather by constant indices: slices, joined.
pub(super) fn gather(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let indices = node.required(1, "the indices")?.tensor;
    let axis_given = node.attributes.int_or("axis", 0)?;
    let x = node.data(0)?;
    let shape = node.shape(x);
    let axis_at = axis(axis_given, shape.len())?;
    let positions: Vec<usize> =
        indices.values().iter().map(|&v| axis(v as i64, shape[axis_at])).collect::<Result<_, _>>()?;
    let step = match positions[..] {
        [a, b, ..] => b as i64 - a as i64,
        _ => 1,
    };
    let regular = step != 0 && positions.windows(2).all(|w| w[1] as i64 - w[0] as i64 == step);
    let picked = match positions.first() {
        Some(&first) if regular => {
            let (mut starts, mut steps, mut out) = (vec![0; shape.len()], vec![1; shape.len()], shape.clone());
            (starts[axis_at], steps[axis_at], out[axis_at]) = (first, step, positions.len());
            node.builder.push_shaped(Op::Slice { starts, steps }, vec![x], &out)?
        }
        Some(_) if positions.len() <= MAX_PARTS => {
            let parts = positions.iter().map(|&p| node.builder.narrow(x, axis_at, p, 1));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            join(node, axis_at, parts)?
        }
        _ => refuse!("{} indices without a common step", positions.len()),
    };
    let out = [&shape[..axis_at], indices.shape(), &shape[axis_at + 1..]].concat();
    one(node.builder.reshape(picked, &out)?)
}

/// Repetition along axes.
pub(super) fn tile(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(repeats) = node.integers(1, "the repeats")? else { refuse!("the repeats are missing") };
    let mut x = node.data(0)?;
    if repeats.len() != node.shape(x).len() {
        refuse!("{} repeats for {:?}", repeats.len(), node.shape(x));
    }
    for (axis, &n) in repeats.iter().enumerate() {
        x = match usize::try_from(n) {
            Ok(n) if (1..=MAX_PARTS).contains(&n) => join(node, axis, vec![x; n])?,
            _ => refuse!("{n} repeats"),
        };
    }
    one(x)
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_follow_python() {
        for (start, end, step, extent, expected) in [
            (0, i64::MAX, 1, 5, Some((0, 5))),
            (1, -1, 1, 5, Some((1, 3))),
            (-3, 100, 2, 5, Some((2, 2))),
            (4, 0, -1, 5, Some((4, 4))),
            (-1, i64::MIN, -1, 5, Some((4, 5))),
            (i64::MAX, -6, -2, 5, Some((4, 3))),
            (3, 3, 1, 5, Some((0, 0))),
            (9, 10, 1, 5, Some((0, 0))),
            (0, 5, -1, 5, Some((0, 0))),
            (0, 5, 0, 5, None),
            (-1, i64::MIN, i64::MIN, 5, Some((4, 1))),
            (0, 1, 1, 0, Some((0, 0))),
        ] {
            assert_eq!(range(start, end, step, extent), expected, "{start}:{end}:{step} of {extent}");
        }
    }
}
