//! Products with constant matrices: Gemm and MatMul.

use crate::builder::{Node, Value, one};
use crate::error::{Problem, refuse};
use fhec_ir::Tensor;
use fhec_ir::nn::shape::elements;
use fhec_ir::nn::{Op, ValueId};
use fhec_ir::tensor::broadcast_shape;

/// `alpha · A' · B' + beta · C`, where A or B is constant.
pub(super) fn gemm(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    if node.opset < 7 {
        // C broadcasts anyway.
        node.attributes.ignore(&["broadcast"]);
    }
    let alpha = node.attributes.float_or("alpha", 1.0)?;
    let beta = node.attributes.float_or("beta", 1.0)?;
    let trans_a = node.attributes.flag("transA", false)?;
    let trans_b = node.attributes.flag("transB", false)?;
    let (product, bias_used) = match (node.input(0), node.input(1)) {
        (_, Some(Value::Constant(b))) => {
            let b = matrix(&b.tensor)?;
            let a = node.data(0)?;
            rank_2(&node.shape(a))?;
            let a = if trans_a { node.builder.transpose_last(a)? } else { a };
            // Dense takes [out, in].
            let weight = if trans_b { b } else { b.transposed(&[1, 0]) }.map(|v| alpha * v);
            let bias = row_bias(node, beta, weight.shape()[0])?;
            let used = bias.is_some();
            (dense(node, a, weight, bias)?, used)
        }
        (Some(Value::Constant(a)), _) => {
            // A · B = (Bᵀ · Aᵀ)ᵀ
            let a = matrix(&a.tensor)?;
            let b = node.data(1)?;
            rank_2(&node.shape(b))?;
            let columns = if trans_b { b } else { node.builder.transpose_last(b)? };
            let weight = if trans_a { a.transposed(&[1, 0]) } else { a }.map(|v| alpha * v);
            let product = dense(node, columns, weight, None)?;
            (node.builder.transpose_last(product)?, false)
        }
        _ => return Err(both_encrypted()),
    };
    if bias_used || beta == 0.0 {
        // C is read even where it has no effect: nothing of it is left to add.
        return one(product);
    }
    let shape = node.shape(product);
    let fits = |c: &[usize]| broadcast_shape(&shape, c).as_deref() == Some(&shape);
    match node.input(2).cloned() {
        None => one(product),
        Some(Value::Constant(c)) if fits(c.tensor.shape()) => {
            one(node.builder.add_const(product, c.tensor.map(|v| beta * v))?)
        }
        Some(Value::Data(c)) if fits(node.builder.shape(c)) => {
            let c = if beta == 1.0 { c } else { node.builder.mul_const(c, Tensor::scalar(beta))? };
            one(node.builder.push(Op::Add, vec![product, c])?)
        }
        Some(_) => refuse!("C does not broadcast to {shape:?}"),
    }
}

/// C as a bias of `out` elements, if it is constant and the same for every row.
fn row_bias(node: &Node<'_, '_>, beta: f64, out: usize) -> Result<Option<Tensor>, Problem> {
    let Some(Value::Constant(c)) = node.input(2) else { return Ok(None) };
    let same = match c.tensor.shape() {
        [] => true,
        [n] | [1, n] => *n == out || *n == 1,
        _ => false,
    };
    if !same {
        return Ok(None);
    }
    let row = c.tensor.reshaped(vec![c.tensor.len()]).broadcast(&[out]);
    Ok(row.map(|row| row.map(|v| beta * v)))
}

/// Numpy's matmul with one constant operand.
pub(super) fn matmul(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    match (node.input(0).cloned(), node.input(1).cloned()) {
        (_, Some(Value::Constant(b))) => {
            let x = node.data(0)?;
            let shape = node.shape(x);
            match b.tensor.shape() {
                // The result loses the axis.
                &[inner] => {
                    let y = dense(node, x, b.tensor.reshaped(vec![1, inner]), None)?;
                    let Some((_, lead)) = shape.split_last() else { refuse!("operand without dimensions") };
                    one(node.builder.reshape(y, lead)?)
                }
                [ones @ .., inner, out] if ones.iter().all(|&n| n == 1) => {
                    let weight = b.tensor.reshaped(vec![*inner, *out]).transposed(&[1, 0]);
                    let y = dense(node, x, weight, None)?;
                    // Leading ones of the constant may add axes.
                    let rank = ones.len() + shape.len().min(2);
                    one(with_leading_ones(node, y, rank)?)
                }
                _ => one(batched(node, x, &b.tensor)?),
            }
        }
        (Some(Value::Constant(a)), _) => {
            let x = node.data(1)?;
            let shape = node.shape(x);
            match a.tensor.shape() {
                &[inner] => {
                    let x = if shape.len() < 2 { x } else { node.builder.transpose_last(x)? };
                    let y = dense(node, x, a.tensor.reshaped(vec![1, inner]), None)?;
                    let out = node.shape(y);
                    one(node.builder.reshape(y, &out[..out.len() - 1])?)
                }
                [ones @ .., out, inner] if ones.iter().all(|&n| n == 1) => {
                    let weight = a.tensor.reshaped(vec![*out, *inner]);
                    let y = if shape.len() < 2 {
                        dense(node, x, weight, None)?
                    } else {
                        let columns = node.builder.transpose_last(x)?;
                        let y = dense(node, columns, weight, None)?;
                        node.builder.transpose_last(y)?
                    };
                    let rank = ones.len() + shape.len().min(2);
                    one(with_leading_ones(node, y, rank)?)
                }
                other => Err(Problem::new(format!("the constant is a stack of matrices {other:?} on the left"))
                    .help("split the operand and multiply each part by its own matrix")),
            }
        }
        _ => Err(both_encrypted()),
    }
}

/// Adds leading axes of extent 1 up to `rank`.
fn with_leading_ones(node: &mut Node<'_, '_>, x: ValueId, rank: usize) -> Result<ValueId, Problem> {
    let shape = node.shape(x);
    let missing = rank.saturating_sub(shape.len());
    node.builder.reshape(x, &[vec![1; missing], shape].concat())
}

fn dense(node: &mut Node<'_, '_>, x: ValueId, weight: Tensor, bias: Option<Tensor>) -> Result<ValueId, Problem> {
    let weight = node.weight(weight);
    let bias = bias.map(|b| node.weight(b));
    node.builder.push(Op::Dense { weight, bias }, vec![x])
}

fn matrix(t: &Tensor) -> Result<Tensor, Problem> {
    if t.is_empty() {
        refuse!("the constant {:?} is empty", t.shape());
    }
    rank_2(t.shape()).map(|()| t.clone())
}

fn rank_2(shape: &[usize]) -> Result<(), Problem> {
    if shape.len() == 2 { Ok(()) } else { refuse!("a matrix was expected, not {shape:?}") }
}

/// A stack of constant matrices on the right: each part of the operand times its own matrix.
fn batched(node: &mut Node<'_, '_>, x: ValueId, stack: &Tensor) -> Result<ValueId, Problem> {
    const MAX_PARTS: usize = 256;
    let shape = node.shape(x);
    let (&[ref x_lead @ .., rows, inner], &[ref lead @ .., depth, out]) = (shape.as_slice(), stack.shape()) else {
        refuse!("operand {shape:?} times a constant of shape {:?}", stack.shape());
    };
    let Some(full) = broadcast_shape(x_lead, lead) else {
        refuse!("{shape:?} and {:?} do not broadcast", stack.shape());
    };
    let parts = elements(&full).filter(|&n| n <= MAX_PARTS && depth == inner);
    let Some(parts) = parts else { refuse!("operand {shape:?} times a constant of shape {:?}", stack.shape()) };
    let x = node.builder.broadcast(x, &[&full, &[rows, inner][..]].concat())?;
    let x = node.builder.reshape(x, &[parts, rows, inner])?;
    let Some(stack) = stack.broadcast(&[&full, &[depth, out][..]].concat()) else {
        refuse!("the constant does not broadcast to {full:?}");
    };
    let mut products = Vec::with_capacity(parts);
    for (i, matrix) in stack.values().chunks((depth * out).max(1)).enumerate() {
        let part = node.builder.narrow(x, 0, i, 1)?;
        let weight = Tensor::new(vec![depth, out], matrix.to_vec()).transposed(&[1, 0]);
        products.push(dense(node, part, weight, None)?);
    }
    let y = node.builder.push(Op::Concat { axis: 0 }, products)?;
    node.builder.reshape(y, &[&full, &[rows, out][..]].concat())
}

fn both_encrypted() -> Problem {
    Problem::new("both factors are computed from the encrypted input")
        .help("products of two encrypted matrices (attention) are not supported; one factor must be constant")
}
