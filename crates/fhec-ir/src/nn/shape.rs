//! Shapes of tensor operations.

use super::graph::{ConstId, Conv, Op, Pool};
use crate::{Tensor, tensor};

/// Why an operation does not fit its operands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShapeError(pub String);

/// Shorthand for a refused shape.
macro_rules! refuse {
    ($($arg:tt)*) => { return Err(ShapeError(format!($($arg)*))) };
}

/// The shape of `op` on operands of shapes `inputs`. [`Op::Input`], [`Op::Reshape`] and [`Op::Slice`] do
/// not determine theirs: for them `stated` is checked and returned; the other operations ignore it.
pub fn infer(op: &Op, inputs: &[&[usize]], constants: &[Tensor], stated: &[usize]) -> Result<Vec<usize>, ShapeError> {
    let wanted = match op {
        Op::Input { .. } => 0..=0,
        Op::Add | Op::Sub | Op::Mul => 2..=2,
        Op::Concat { .. } => 1..=usize::MAX,
        _ => 1..=1,
    };
    if !wanted.contains(&inputs.len()) {
        refuse!("{} operands", inputs.len());
    }
    let constant = |id: ConstId| match constants.get(id.index()) {
        Some(t) => Ok(t.shape()),
        None => Err(ShapeError(format!("constant {} does not exist", id.0))),
    };
    let shape = match op {
        Op::Input { .. } => stated.to_vec(),
        Op::Conv(conv) => conv_shape(conv, inputs[0], constant)?,
        Op::Dense { weight, bias } => {
            let weight = constant(*weight)?;
            let (Some((&last, lead)), &[out, inner]) = (inputs[0].split_last(), weight) else {
                refuse!("operand {:?} with a weight of shape {weight:?}", inputs[0]);
            };
            if last != inner {
                refuse!("operand {:?} has {last} features, the weight {weight:?} takes {inner}", inputs[0]);
            }
            expect_bias(*bias, out, constant)?;
            [lead, &[out]].concat()
        }
        Op::BatchNorm { scale, bias, mean, variance, .. } => {
            let Some(&channels) = inputs[0].get(1) else { refuse!("operand {:?} has no channel axis", inputs[0]) };
            for (what, id) in [("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)] {
                if constant(*id)? != [channels] {
                    refuse!("{what} of shape {:?} for {channels} channels", constant(*id)?);
                }
            }
            inputs[0].to_vec()
        }
        Op::Add | Op::Sub | Op::Mul => broadcast(inputs[0], inputs[1])?,
        Op::AddConst(c) | Op::MulConst(c) => broadcast(inputs[0], constant(*c)?)?,
        Op::AveragePool(pool) | Op::MaxPool(pool) => pool_shape(pool, inputs[0])?,
        Op::ReduceMean { axes, keep } | Op::ReduceSum { axes, keep } => reduced(inputs[0], axes, *keep)?,
        Op::Reshape => {
            if elements(inputs[0]) != elements(stated) {
                refuse!("{:?} cannot be reshaped to {stated:?}", inputs[0]);
            }
            stated.to_vec()
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.into_iter().eq(0..inputs[0].len()) {
                refuse!("{perm:?} is no permutation of the axes of {:?}", inputs[0]);
            }
            perm.iter().map(|&p| inputs[0][p]).collect()
        }
        Op::Concat { axis } => concat_shape(*axis, inputs)?,
        Op::Slice { starts, steps } => {
            check_slice(inputs[0], starts, steps, stated)?;
            stated.to_vec()
        }
        Op::Pad { before, after, value } => {
            if before.len() != inputs[0].len() || after.len() != inputs[0].len() {
                refuse!("{} and {} pads for {:?}", before.len(), after.len(), inputs[0]);
            }
            if !value.is_finite() {
                refuse!("pad value {value}");
            }
            let mut shape = Vec::with_capacity(before.len());
            for ((&n, &b), &a) in inputs[0].iter().zip(before).zip(after) {
                match i64::try_from(n).ok().and_then(|n| n.checked_add(b)?.checked_add(a)) {
                    Some(extent) if extent >= 0 => shape.push(extent as usize),
                    _ => refuse!("padding {:?} by {before:?} and {after:?}", inputs[0]),
                }
            }
            shape
        }
        Op::Activation(a) => {
            if let super::Activation::Power { exponent: 0 | 1 } = a {
                refuse!("a power below 2");
            }
            inputs[0].to_vec()
        }
        Op::PRelu { slope } => {
            let slope = constant(*slope)?;
            if tensor::broadcast_shape(inputs[0], slope).as_deref() != Some(inputs[0]) {
                refuse!("slope {slope:?} does not broadcast to {:?}", inputs[0]);
            }
            inputs[0].to_vec()
        }
        Op::Polynomial { chebyshev, interval, .. } => {
            if chebyshev.is_empty() || interval.lo.partial_cmp(&interval.hi) != Some(std::cmp::Ordering::Less) {
                refuse!("{} coefficients on [{}, {}]", chebyshev.len(), interval.lo, interval.hi);
            }
            inputs[0].to_vec()
        }
        Op::Softmax { axis } => {
            check_axis(*axis, inputs[0])?;
            inputs[0].to_vec()
        }
    };
    match elements(&shape) {
        Some(_) => Ok(shape),
        None => refuse!("shape {shape:?} has too many elements"),
    }
}

/// Dimensions that a shape may have.
const MAX_RANK: usize = 32;

/// Number of elements of a shape, or `None` if any part of the shape has more than 2^40, which nothing
/// here can hold, or more than 32 dimensions. Products of extents of an accepted shape never overflow.
pub fn elements(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK {
        return None;
    }
    // Empty axes hide nothing: [0, 2^40, 2^40] has parts as large as [2^40, 2^40].
    let parts = shape.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= 1 << 40));
    parts.map(|n| if shape.contains(&0) { 0 } else { n })
}

/// Positions of a window of `kernel` taps along one axis, or `None` when it does not fit once.
pub fn windows(extent: usize, kernel: usize, stride: usize, dilation: usize, pads: [usize; 2]) -> Option<usize> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return None;
    }
    let span = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
    let padded = extent.checked_add(pads[0])?.checked_add(pads[1])?;
    Some(padded.checked_sub(span)? / stride + 1)
}

fn conv_shape<'a>(
    conv: &Conv,
    input: &[usize],
    constant: impl Fn(ConstId) -> Result<&'a [usize], ShapeError>,
) -> Result<Vec<usize>, ShapeError> {
    let weight = constant(conv.weight)?;
    let (&[n, c, h, w], &[out, inner, kh, kw]) = (input, weight) else {
        refuse!("operand {input:?} with a weight of shape {weight:?}");
    };
    if input.contains(&0) || weight.contains(&0) {
        refuse!("operand {input:?} or weight {weight:?} is empty");
    }
    if conv.groups == 0 || inner.checked_mul(conv.groups) != Some(c) || out % conv.groups != 0 {
        refuse!("operand {input:?}, weight {weight:?} and {} groups do not fit", conv.groups);
    }
    expect_bias(conv.bias, out, constant)?;
    let [top, left, bottom, right] = conv.pads;
    let height = windows(h, kh, conv.strides[0], conv.dilations[0], [top, bottom]);
    let width = windows(w, kw, conv.strides[1], conv.dilations[1], [left, right]);
    match (height, width) {
        (Some(height), Some(width)) => Ok(vec![n, out, height, width]),
        _ => refuse!("the kernel {kh}x{kw} does not fit the padded operand {input:?}"),
    }
}

fn pool_shape(pool: &Pool, input: &[usize]) -> Result<Vec<usize>, ShapeError> {
    let &[ref lead @ .., h, w] = input else { refuse!("pooling needs two axes, not {input:?}") };
    if input.contains(&0) {
        refuse!("operand {input:?} is empty");
    }
    if pool.counted_pads.iter().zip(&pool.pads).any(|(counted, all)| counted > all) {
        refuse!("counted padding {:?} exceeds the padding {:?}", pool.counted_pads, pool.pads);
    }
    let [top, left, bottom, right] = pool.pads;
    let height = windows(h, pool.kernel[0], pool.strides[0], pool.dilations[0], [top, bottom]);
    let width = windows(w, pool.kernel[1], pool.strides[1], pool.dilations[1], [left, right]);
    match (height, width) {
        (Some(height), Some(width)) => Ok([lead, &[height, width]].concat()),
        _ => refuse!("the window {:?} does not fit the padded operand {input:?}", pool.kernel),
    }
}

fn expect_bias<'a>(
    bias: Option<ConstId>,
    out: usize,
    constant: impl Fn(ConstId) -> Result<&'a [usize], ShapeError>,
) -> Result<(), ShapeError> {
    match bias.map(constant).transpose()? {
        Some(shape) if shape != [out] => refuse!("bias of shape {shape:?} for {out} outputs"),
        _ => Ok(()),
    }
}

fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, ShapeError> {
    match tensor::broadcast_shape(a, b) {
        Some(shape) => Ok(shape),
        None => refuse!("{a:?} and {b:?} do not broadcast"),
    }
}

fn check_axis(axis: usize, shape: &[usize]) -> Result<(), ShapeError> {
    if axis < shape.len() { Ok(()) } else { refuse!("axis {axis} of {shape:?}") }
}

/// The shape after reducing `axes`.
fn reduced(shape: &[usize], axes: &[usize], keep: bool) -> Result<Vec<usize>, ShapeError> {
    if !axes.is_sorted_by(|a, b| a < b) {
        refuse!("axes {axes:?} are not sorted or repeat");
    }
    for &axis in axes {
        check_axis(axis, shape)?;
    }
    let kept = shape.iter().enumerate().filter_map(|(d, &extent)| match axes.contains(&d) {
        true if keep => Some(1),
        true => None,
        false => Some(extent),
    });
    Ok(kept.collect())
}

fn concat_shape(axis: usize, inputs: &[&[usize]]) -> Result<Vec<usize>, ShapeError> {
    check_axis(axis, inputs[0])?;
    let mut shape = inputs[0].to_vec();
    for other in &inputs[1..] {
        let fits = other.len() == shape.len() && (0..shape.len()).all(|d| d == axis || other[d] == shape[d]);
        match other.get(axis).and_then(|&n| shape[axis].checked_add(n)) {
            Some(total) if fits => shape[axis] = total,
            _ => refuse!("{:?} and {other:?} do not fit side by side along axis {axis}", inputs[0]),
        }
    }
    Ok(shape)
}

fn check_slice(input: &[usize], starts: &[usize], steps: &[i64], shape: &[usize]) -> Result<(), ShapeError> {
    if starts.len() != input.len() || steps.len() != input.len() || shape.len() != input.len() {
        refuse!("{} starts, {} steps and result {shape:?} for {input:?}", starts.len(), steps.len());
    }
    for d in 0..input.len() {
        if shape[d] == 0 {
            continue;
        }
        let last = (shape[d] as i64 - 1).checked_mul(steps[d]).and_then(|o| o.checked_add(starts[d] as i64));
        let inside = last.is_some_and(|l| (0..input[d] as i64).contains(&l)) && starts[d] < input[d];
        if steps[d] == 0 || !inside {
            refuse!("{} elements from {} by {} leave axis {d} of {input:?}", shape[d], starts[d], steps[d]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Activation;

    fn conv(groups: usize, pads: [usize; 4]) -> Op {
        Op::Conv(Conv { weight: ConstId(0), bias: None, strides: [2, 1], pads, dilations: [1, 2], groups })
    }

    #[test]
    fn convolution_shapes() {
        let weight = [Tensor::full(vec![6, 2, 3, 3], 0.0)];
        let infer = |op: Op, shape: &[usize]| infer(&op, &[shape], &weight, &[]);
        assert_eq!(infer(conv(2, [1, 2, 0, 0]), &[5, 4, 8, 9]).expect("fits"), [5, 6, 4, 7]);
        assert!(infer(conv(1, [0; 4]), &[1, 4, 8, 9]).is_err(), "channels");
        assert!(infer(conv(4, [0; 4]), &[1, 8, 8, 9]).is_err(), "outputs do not divide by groups");
        assert!(infer(conv(2, [0; 4]), &[1, 4, 8, 4]).is_err(), "kernel larger than the operand");
        assert!(infer(conv(2, [usize::MAX, 0, 9, 0]), &[1, 4, 8, 9]).is_err(), "overflow");
    }

    #[test]
    fn slices_stay_inside() {
        let slice =
            |start, step, n| infer(&Op::Slice { starts: vec![start], steps: vec![step] }, &[&[10]], &[], &[n]).is_ok();
        assert!(slice(9, -1, 10) && slice(1, 3, 3) && slice(10, 1, 0));
        assert!(!slice(8, -1, 10) && !slice(1, 3, 4) && !slice(10, 1, 1) && !slice(0, 0, 2));
        assert!(!slice(1, i64::MAX, 3), "overflow");
    }

    #[test]
    fn reductions_concatenations_and_pads() {
        let reduce = |axes: Vec<usize>, keep| infer(&Op::ReduceSum { axes, keep }, &[&[2, 3, 4]], &[], &[]);
        assert_eq!(reduce(vec![0, 2], true).expect("fits"), [1, 3, 1]);
        assert_eq!(reduce(vec![0, 2], false).expect("fits"), [3]);
        assert!(reduce(vec![2, 0], false).is_err() && reduce(vec![3], false).is_err());

        let concat = |b: &[usize]| infer(&Op::Concat { axis: 1 }, &[&[2, 3], b], &[], &[]);
        assert_eq!(concat(&[2, 5]).expect("fits"), [2, 8]);
        assert!(concat(&[3, 5]).is_err() && concat(&[2]).is_err());

        let pad = |b: i64| infer(&Op::Pad { before: vec![b], after: vec![-1], value: 0.0 }, &[&[3]], &[], &[]);
        assert_eq!(pad(4).expect("fits"), [6]);
        assert!(pad(-3).is_err());
    }

    #[test]
    fn no_part_of_a_shape_is_too_large() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[0, 1 << 40]), Some(0));
        assert_eq!(elements(&[1 << 20, 1 << 20]), Some(1 << 40));
        for large in [&[1 << 20, 1 << 21][..], &[usize::MAX, 2], &[0, 1 << 40, 2], &[1 << 40, 1 << 40, 0], &[1; 33]] {
            assert_eq!(elements(large), None, "{large:?}");
        }
    }

    #[test]
    fn wrong_operand_counts_and_constants_are_refused() {
        assert!(infer(&Op::Add, &[&[1]], &[], &[]).is_err());
        assert!(infer(&Op::Activation(Activation::Relu), &[&[1], &[1]], &[], &[]).is_err());
        assert!(infer(&Op::AddConst(ConstId(3)), &[&[1]], &[], &[]).is_err());
        assert!(infer(&Op::Input { name: String::new() }, &[], &[], &[1 << 30, 1 << 30]).is_err());
    }
}
