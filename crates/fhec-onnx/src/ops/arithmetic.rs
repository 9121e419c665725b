//! Elementwise arithmetic. Constants on both sides never come here: they are folded.

use crate::builder::{Node, Value, axis, one};
use crate::error::{Problem, refuse};
use crate::fold::zip_tensors;
use crate::tensor::Constant;
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Op, ValueId};
use fhec_ir::tensor::broadcast_shape;

/// Largest exponent taken as a power.
const MAX_POWER: f64 = 64.0;

/// The operands of a binary operator.
enum Pair {
    Both(ValueId, ValueId),
    Right(ValueId, Tensor),
    Left(Tensor, ValueId),
}

fn pair(node: &mut Node<'_, '_>) -> Result<Pair, Problem> {
    if node.opset < 7 {
        align(node)?;
    }
    match (node.input(0), node.input(1)) {
        (Some(Value::Data(a)), Some(Value::Data(b))) => Ok(Pair::Both(*a, *b)),
        (Some(Value::Data(a)), Some(Value::Constant(b))) => Ok(Pair::Right(*a, b.tensor.clone())),
        (Some(Value::Constant(a)), Some(Value::Data(b))) => Ok(Pair::Left(a.tensor.clone(), *b)),
        _ => refuse!("two operands are needed"),
    }
}

/// Before version 7 the second operand may stand at an axis of the first, with `broadcast=1`: later
/// axes of extent 1 give it the place that numpy's rules look at.
fn align(node: &mut Node<'_, '_>) -> Result<(), Problem> {
    node.attributes.ignore(&["broadcast"]);
    let Some(at) = node.attributes.int("axis")? else { return Ok(()) };
    let shape = |node: &Node<'_, '_>, i| match node.input(i) {
        Some(Value::Data(x)) => node.shape(*x),
        Some(Value::Constant(c)) => c.tensor.shape().to_vec(),
        _ => vec![],
    };
    let (rank, mut aligned) = (shape(node, 0).len(), shape(node, 1));
    let behind = (axis(at, rank)? + aligned.len()).max(rank) - aligned.len() - axis(at, rank)?;
    aligned.extend(vec![1; behind]);
    let value = match node.input(1).cloned() {
        Some(Value::Data(x)) => Value::Data(node.builder.reshape(x, &aligned)?),
        Some(Value::Constant(c)) => Value::Constant(Constant { tensor: c.tensor.reshaped(aligned), ..c }),
        _ => refuse!("two operands are needed"),
    };
    node.inputs[1] = Some(value);
    Ok(())
}

pub(super) fn add(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    match pair(node)? {
        Pair::Both(a, b) => one(node.builder.push(Op::Add, vec![a, b])?),
        Pair::Right(x, c) | Pair::Left(c, x) => one(node.builder.add_const(x, c)?),
    }
}

pub(super) fn sub(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    match pair(node)? {
        Pair::Both(a, b) => one(node.builder.push(Op::Sub, vec![a, b])?),
        Pair::Right(x, c) => one(node.builder.add_const(x, c.map(|v| -v))?),
        Pair::Left(c, x) => {
            let negated = node.builder.mul_const(x, Tensor::scalar(-1.0))?;
            one(node.builder.add_const(negated, c)?)
        }
    }
}

pub(super) fn mul(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    match pair(node)? {
        Pair::Both(a, b) if a == b => one(node.builder.activation(Activation::Power { exponent: 2 }, a)?),
        Pair::Both(a, b) => one(node.builder.push(Op::Mul, vec![a, b])?),
        Pair::Right(x, c) | Pair::Left(c, x) => one(node.builder.mul_const(x, c)?),
    }
}

pub(super) fn div(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    match pair(node)? {
        Pair::Right(_, c) if c.values().contains(&0.0) => refuse!("division by a constant that contains 0"),
        Pair::Right(x, c) => one(node.builder.mul_const(x, c.map(|v| 1.0 / v))?),
        Pair::Both(..) | Pair::Left(..) => Err(Problem::new("the divisor is computed from the encrypted input")
            .help("division is possible by constants only; a normalisation can often be folded into weights")),
    }
}

pub(super) fn neg(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let x = node.data(0)?;
    one(node.builder.mul_const(x, Tensor::scalar(-1.0))?)
}

/// Powers with one small natural exponent.
pub(super) fn pow(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Pair::Right(x, exponent) = pair(node)? else {
        return Err(Problem::new("the exponent is computed from the encrypted input")
            .help("only constant exponents are supported"));
    };
    let shape = node.shape(x);
    let (Some(full), Some(&e)) = (broadcast_shape(&shape, exponent.shape()), exponent.values().first()) else {
        refuse!("{shape:?} and {:?} do not broadcast", exponent.shape());
    };
    if exponent.values().iter().any(|&v| v != e) {
        return Err(Problem::new("different exponents in one tensor").help("split the operand by exponent"));
    }
    let x = node.builder.broadcast(x, &full)?;
    if e == 1.0 {
        return one(x);
    }
    if e.fract() != 0.0 || !(2.0..=MAX_POWER).contains(&e) {
        return Err(Problem::new(format!("exponent {e}"))
            .help(format!("natural exponents from 1 to {MAX_POWER} are exact; replace others by a polynomial")));
    }
    one(node.builder.activation(Activation::Power { exponent: e as u32 }, x)?)
}

/// Sum of all operands: values first, then the folded constants.
fn total(node: &mut Node<'_, '_>) -> Result<ValueId, Problem> {
    let mut sum: Option<ValueId> = None;
    let mut constant: Option<Tensor> = None;
    for i in 0..node.inputs.len() {
        match node.input(i).cloned() {
            Some(Value::Data(x)) => {
                sum = Some(match sum {
                    Some(s) => node.builder.push(Op::Add, vec![s, x])?,
                    None => x,
                });
            }
            Some(Value::Constant(c)) if node.builder.feeds.is_none() => {
                constant = Some(match constant {
                    Some(s) => zip_tensors(&s, &c.tensor, |a, b| a + b, node.builder.budget)?,
                    None => c.tensor,
                });
            }
            _ => {
                let x = node.data(i)?;
                sum = Some(match sum {
                    Some(s) => node.builder.push(Op::Add, vec![s, x])?,
                    None => x,
                });
            }
        }
    }
    match (sum, constant) {
        (Some(sum), Some(c)) => node.builder.add_const(sum, c),
        (Some(sum), None) => Ok(sum),
        (None, _) => refuse!("no operands"),
    }
}

pub(super) fn sum(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    one(total(node)?)
}

pub(super) fn mean(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let n = node.inputs.len() as f64;
    let sum = total(node)?;
    one(if n == 1.0 { sum } else { node.builder.mul_const(sum, Tensor::scalar(1.0 / n))? })
}

pub(super) fn max(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (x, bound) = bounded(node, f64::max)?;
    let clip = Activation::Clip { min: bound, max: f64::INFINITY };
    node.builder.origin.what = Some("Max".into());
    one(if bound == f64::NEG_INFINITY { x } else { node.builder.activation(clip, x)? })
}

pub(super) fn min(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (x, bound) = bounded(node, f64::min)?;
    let clip = Activation::Clip { min: f64::NEG_INFINITY, max: bound };
    node.builder.origin.what = Some("Min".into());
    one(if bound == f64::INFINITY { x } else { node.builder.activation(clip, x)? })
}

/// The only value among the operands, and the tightest of the constant bounds; with none, the neutral one.
fn bounded(node: &mut Node<'_, '_>, tighter: fn(f64, f64) -> f64) -> Result<(ValueId, f64), Problem> {
    let mut bound = -tighter(f64::NEG_INFINITY, f64::INFINITY);
    let mut value = None;
    let mut shape: Vec<usize> = vec![];
    for i in 0..node.inputs.len() {
        let own = match node.input(i).cloned() {
            Some(Value::Data(x)) if value.is_none_or(|v| v == x) => {
                value = Some(x);
                node.shape(x)
            }
            Some(Value::Constant(Constant { tensor, .. })) => {
                let Some(&first) = tensor.values().first() else { refuse!("an empty operand") };
                if tensor.values().iter().any(|&v| v != first) {
                    return Err(Problem::new("different bounds for different elements")
                        .help("bounds must be the same everywhere; scale the operand first"));
                }
                bound = tighter(bound, first);
                tensor.shape().to_vec()
            }
            _ => {
                return Err(Problem::new("compares two encrypted values")
                    .help("comparisons with constants become clipping; others need client-aided evaluation"));
            }
        };
        shape = match broadcast_shape(&shape, &own) {
            Some(s) => s,
            None => refuse!("the operands do not broadcast"),
        };
    }
    let Some(x) = value else { refuse!("no operand depends on the input") };
    Ok((node.builder.broadcast(x, &shape)?, bound))
}

/// Where with a constant condition: each side times its mask.
pub(super) fn select(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let condition = node.required(0, "the condition")?.tensor;
    let mut sum: Option<ValueId> = None;
    let mut constant: Option<Tensor> = None;
    for (i, mask) in [(1, condition.map(|c| f64::from(c != 0.0))), (2, condition.map(|c| f64::from(c == 0.0)))] {
        match node.input(i).cloned() {
            Some(Value::Data(x)) => {
                let part = node.builder.mul_const(x, mask)?;
                sum = Some(match sum {
                    Some(s) => node.builder.push(Op::Add, vec![s, part])?,
                    None => part,
                });
            }
            Some(Value::Constant(c)) => {
                // Masked out values may be infinite.
                let masked = |m, v| if m == 0.0 { 0.0 } else { v };
                constant = Some(zip_tensors(&mask, &c.tensor, masked, node.builder.budget)?);
            }
            _ => refuse!("operand {i} is missing"),
        }
    }
    match (sum, constant) {
        (Some(sum), Some(c)) => one(node.builder.add_const(sum, c)?),
        (Some(sum), None) => one(sum),
        (None, _) => refuse!("no operand depends on the input"),
    }
}
