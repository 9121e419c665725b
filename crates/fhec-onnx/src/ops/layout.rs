//! Operators that keep the elements: other shape, order of axes or type.

use crate::builder::{Node, Value, axes, axis, one};
use crate::error::{Problem, refuse};
use crate::tensor::{Constant, DataType};
use fhec_ir::Tensor;
use fhec_ir::nn::shape::elements;
use fhec_ir::tensor::broadcast_shape;

pub(super) fn identity(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    one(node.data(0)?)
}

pub(super) fn flatten(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let x = node.data(0)?;
    let shape = node.shape(x);
    let given = node.attributes.int_or("axis", 1)?;
    // The axis may lie behind the last one.
    let split = if given == shape.len() as i64 { shape.len() } else { axis(given, shape.len())? };
    let flat = [shape[..split].iter().product(), shape[split..].iter().product()];
    one(node.builder.reshape(x, &flat)?)
}

pub(super) fn reshape(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(target) = node.integers(1, "the shape")? else { refuse!("the shape is missing") };
    let allow_zero = node.attributes.flag("allowzero", false)?;
    let x = node.data(0)?;
    let shape = node.shape(x);
    let mut out = Vec::with_capacity(target.len());
    let mut rest = None;
    for (d, &extent) in target.iter().enumerate() {
        out.push(match (extent, shape.get(d)) {
            (0, Some(&same)) if !allow_zero => same,
            (0, None) if !allow_zero => refuse!("{target:?} keeps axis {d} of {shape:?}"),
            (-1, _) if rest.is_none() => {
                rest = Some(d);
                1
            }
            (n, _) => match usize::try_from(n) {
                Ok(n) => n,
                Err(_) => refuse!("{target:?} is no shape"),
            },
        });
    }
    if let Some(d) = rest {
        match (elements(&shape), elements(&out)) {
            (Some(all), Some(known)) if known > 0 && all % known == 0 => out[d] = all / known,
            _ => refuse!("{shape:?} cannot be reshaped to {target:?}"),
        }
    }
    one(node.builder.reshape(x, &out)?)
}

pub(super) fn squeeze(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let given = node.axes(1, 13)?;
    let x = node.data(0)?;
    let shape = node.shape(x);
    let gone = match given {
        Some(list) => axes(&list, shape.len())?,
        None => (0..shape.len()).filter(|&d| shape[d] == 1).collect(),
    };
    if let Some(&d) = gone.iter().find(|&&d| shape[d] != 1) {
        refuse!("axis {d} of {shape:?} has not extent 1");
    }
    let out: Vec<usize> = (0..shape.len()).filter(|d| !gone.contains(d)).map(|d| shape[d]).collect();
    one(node.builder.reshape(x, &out)?)
}

pub(super) fn unsqueeze(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(list) = node.axes(1, 13)? else { refuse!("axes are missing") };
    let x = node.data(0)?;
    let shape = node.shape(x);
    let rank = shape.len() + list.len();
    if elements(&vec![1; rank]).is_none() {
        refuse!("{rank} dimensions");
    }
    let new = axes(&list, rank)?;
    let mut old = shape.iter();
    let out: Vec<usize> =
        (0..rank).map(|d| if new.contains(&d) { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    one(node.builder.reshape(x, &out)?)
}

pub(super) fn transpose(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let given = node.attributes.ints("perm")?;
    let x = node.data(0)?;
    let rank = node.shape(x).len();
    let perm = match given {
        Some(list) => {
            axes(&list, rank)?;
            if list.len() != rank {
                return Err(Problem::new(format!("{list:?} for {rank} axes")).of("perm"));
            }
            list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>, _>>()?
        }
        None => (0..rank).rev().collect(),
    };
    one(node.builder.transpose(x, perm)?)
}

pub(super) fn depth_to_space(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let columns_first = match node.attributes.text("mode")?.unwrap_or("DCR") {
        "DCR" => false,
        "CRD" => true,
        other => return Err(Problem::new(format!("unknown mode '{other}'")).of("mode")),
    };
    let (b, shape, x) = block(node)?;
    let [n, c, h, w] = shape;
    if c % (b * b) != 0 {
        return Err(Problem::new(format!("{b}² does not divide {c} channels")).of("blocksize"));
    }
    let depth = c / (b * b);
    let (split, perm) = if columns_first {
        ([n, depth, b, b, h, w], vec![0, 1, 4, 2, 5, 3])
    } else {
        ([n, b, b, depth, h, w], vec![0, 3, 4, 1, 5, 2])
    };
    let y = node.builder.reshape(x, &split)?;
    let y = node.builder.transpose(y, perm)?;
    one(node.builder.reshape(y, &[n, depth, h * b, w * b])?)
}

pub(super) fn space_to_depth(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let (b, shape, x) = block(node)?;
    let [n, c, h, w] = shape;
    if h % b != 0 || w % b != 0 {
        return Err(Problem::new(format!("{b} does not divide {h} x {w}")).of("blocksize"));
    }
    let y = node.builder.reshape(x, &[n, c, h / b, b, w / b, b])?;
    let y = node.builder.transpose(y, vec![0, 3, 5, 1, 2, 4])?;
    one(node.builder.reshape(y, &[n, c * b * b, h / b, w / b])?)
}

/// Block size, operand shape and operand of the two operators above.
fn block(node: &mut Node<'_, '_>) -> Result<(usize, [usize; 4], fhec_ir::nn::ValueId), Problem> {
    let size = node.attributes.int_or("blocksize", 0)?;
    let b = match usize::try_from(size) {
        Ok(b) if (1..=1 << 16).contains(&b) => b,
        _ => return Err(Problem::new(format!("{size} is out of range")).of("blocksize")),
    };
    let x = node.data(0)?;
    match <[usize; 4]>::try_from(node.shape(x)) {
        Ok(shape) if shape.contains(&0) => refuse!("the operand {shape:?} is empty"),
        Ok(shape) => Ok((b, shape, x)),
        Err(shape) => refuse!("an operand [n, c, h, w] was expected, not {shape:?}"),
    }
}

pub(super) fn expand(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let Some(target) = node.integers(1, "the shape")? else { refuse!("the shape is missing") };
    let x = node.data(0)?;
    let shape = node.shape(x);
    let wanted: Option<Vec<usize>> = target.iter().map(|&n| usize::try_from(n).ok()).collect();
    match wanted.and_then(|wanted| broadcast_shape(&shape, &wanted)) {
        Some(full) => one(node.builder.broadcast(x, &full)?),
        None => refuse!("{shape:?} does not expand to {target:?}"),
    }
}

/// The identity at inference; its mask is all true.
pub(super) fn dropout(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    node.attributes.ignore(&["ratio", "seed"]);
    if node.opset < 7 {
        node.attributes.ignore(&["is_test"]);
    }
    let training = node.scalar(2, "training_mode")?.is_some_and(|v| v != 0.0);
    let ratio = node.scalar(1, "the ratio")?.unwrap_or(0.5);
    if training && ratio != 0.0 {
        return Err(Problem::new("training mode").of("training_mode").help("export the model in inference mode"));
    }
    let x = node.data(0)?;
    let mut results = one(x)?;
    if node.proto.output.get(1).is_some_and(|o| !o.is_empty()) {
        let shape = node.shape(x);
        node.builder.budget.take(&shape)?;
        results.push(Value::Constant(Constant { dtype: DataType::Bool, tensor: Tensor::full(shape, 1.0) }));
    }
    Ok(results)
}

pub(super) fn cast(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    node.attributes.ignore(&["saturate", "round_mode"]);
    let to = i32::try_from(node.attributes.int_or("to", 0)?).unwrap_or(0);
    let to = DataType::from_number(to).map_err(|message| Problem::new(message).of("to"))?;
    as_float(node, to)
}

pub(super) fn cast_like(node: &mut Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    node.attributes.ignore(&["saturate", "round_mode"]);
    let to = match node.input(1) {
        Some(Value::Constant(c)) => c.dtype,
        // Values computed from the input are floating-point numbers.
        _ => DataType::F32,
    };
    if let Some(Value::Constant(c)) = node.input(0) {
        return Ok(vec![Value::Constant(Constant { dtype: to, ..c.clone() })]);
    }
    as_float(node, to)
}

fn as_float(node: &mut Node<'_, '_>, to: DataType) -> Result<Vec<Value>, Problem> {
    if !to.is_float() {
        return Err(Problem::new(format!("a value computed from the encrypted input becomes {to:?}"))
            .of("to")
            .help("encrypted values are real numbers: only casts between floating-point types are possible"));
    }
    one(node.data(0)?)
}
