//! Operators that make constants.

use crate::builder::{Node, Value};
use crate::error::{Problem, refuse};
use crate::tensor::{self, Constant, DataType};
use fhec_ir::Tensor;

fn known(constant: Constant) -> Result<Vec<Value>, Problem> {
    Ok(vec![Value::Constant(constant)])
}

pub(super) fn constant(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let a = &node.attributes;
    if let Some(t) = a.tensor("value")? {
        let c = tensor::constant(t, node.external)?;
        node.builder.budget.take(c.tensor.shape())?;
        return known(c);
    }
    let list = |dtype, values: Vec<f64>| Constant { dtype, tensor: Tensor::new(vec![values.len()], values) };
    if let Some(v) = a.float("value_float")? {
        return known(Constant { dtype: DataType::F32, tensor: Tensor::scalar(v) });
    }
    if let Some(v) = a.int("value_int")? {
        return known(Constant { dtype: DataType::I64, tensor: Tensor::scalar(v as f64) });
    }
    if let Some(v) = a.floats("value_floats")? {
        return known(list(DataType::F32, v));
    }
    if let Some(v) = a.ints("value_ints")? {
        return known(Constant::integers(v));
    }
    refuse!("no value of a supported kind (sparse tensors and strings are not)")
}

pub(super) fn constant_of_shape(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(shape) = node.integers(0, "the shape")? else { refuse!("the shape is missing") };
    let Some(shape) = shape.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<usize>>>() else {
        refuse!("{shape:?} is no shape");
    };
    let (dtype, value) = match node.attributes.tensor("value")? {
        None => (DataType::F32, 0.0),
        Some(t) => {
            let c = tensor::constant(t, node.external)?;
            match c.tensor.as_single() {
                Some(v) => (c.dtype, v),
                None => return Err(Problem::new("should be one element").of("value")),
            }
        }
    };
    node.builder.budget.take(&shape)?;
    known(Constant { dtype, tensor: Tensor::full(shape, value) })
}

/// Shape of a value, known whatever the elements are.
fn extents(node: &Node<'_, '_>) -> Result<Vec<usize>, Problem> {
    match node.input(0) {
        Some(Value::Data(x)) => Ok(node.builder.shape(*x).to_vec()),
        Some(Value::Constant(c)) => Ok(c.tensor.shape().to_vec()),
        _ => refuse!("the operand is missing"),
    }
}

pub(super) fn shape(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let shape = extents(node)?;
    let rank = shape.len() as i64;
    let at = |i: i64| if i < 0 { i.saturating_add(rank) } else { i }.clamp(0, rank) as usize;
    let start = at(node.attributes.int_or("start", 0)?);
    let end = at(node.attributes.int_or("end", rank)?).max(start);
    known(Constant::integers(shape[start..end].iter().map(|&n| n as i64).collect()))
}

pub(super) fn size(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let count: usize = extents(node)?.iter().product();
    known(Constant { dtype: DataType::I64, tensor: Tensor::scalar(count as f64) })
}

pub(super) fn range(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let dtype = node.required(0, "the start")?.dtype;
    let (Some(start), Some(limit), Some(delta)) =
        (node.scalar(0, "the start")?, node.scalar(1, "the limit")?, node.scalar(2, "the step")?)
    else {
        refuse!("start, limit and step are needed");
    };
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !count.is_finite() || count > 1e15 {
        refuse!("the range from {start} to {limit} by {delta}");
    }
    node.builder.budget.take(&[count as usize])?;
    let values: Vec<f64> = (0..count as usize).map(|i| start + i as f64 * delta).collect();
    known(Constant { dtype, tensor: Tensor::new(vec![values.len()], values) })
}
