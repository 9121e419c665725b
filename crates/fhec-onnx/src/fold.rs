//! Constants are computed at import: shape arithmetic, weights derived from weights.

use crate::attributes::Attributes;
use crate::builder::{Budget, Builder, Node, Value};
use crate::error::{Problem, refuse};
use crate::ops::Operator;
use crate::tensor::{Constant, DataType};
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter, Op, Output, ValueId};
use fhec_ir::tensor::broadcast_shape;

/// Multiplications that folding one operator may take.
const MAX_WORK: usize = 1 << 31;

/// True for operators that fold on constants, whether or not they can be computed on encrypted values.
pub(crate) fn is_foldable(operator: &str) -> bool {
    unary(operator).is_some() || binary(operator).is_some() || matches!(operator, "Where" | "Cast" | "CastLike" | "Mod")
}

/// The result of an elementwise operator on constants; `None` when it is none.
pub(crate) fn elementwise(node: &Node<'_, '_>) -> Option<Result<Constant, Problem>> {
    let operator = node.proto.op_type.as_str();
    let constants: Option<Vec<Constant>> = node
        .inputs
        .iter()
        .map(|v| match v {
            Some(Value::Constant(c)) => Some(c.clone()),
            _ => None,
        })
        .collect();
    let constants = constants?;
    if node.opset < 7 && matches!(node.attributes.int("axis"), Ok(Some(_))) {
        return Some(Err(Problem::new("broadcasting of a constant to another along an axis").of("axis")));
    }
    if node.opset < 7 {
        // Broadcasting from the last axis is what happens anyway.
        node.attributes.ignore(&["broadcast"]);
    }
    let budget = node.builder.budget;
    if let (Some(f), [x]) = (unary(operator), constants.as_slice()) {
        return Some(budget.take(x.tensor.shape()).map(|()| Constant { dtype: x.dtype, tensor: x.tensor.map(f) }));
    }
    match (operator, constants.as_slice()) {
        ("Cast", [x]) => Some(cast_target(node).and_then(|to| cast(x, to, budget))),
        ("CastLike", [x, like]) => {
            node.attributes.ignore(&["saturate", "round_mode"]);
            Some(cast(x, like.dtype, budget))
        }
        ("Where", [c, a, b]) => Some(select(c, a, b, budget)),
        ("Mod", [a, b]) => Some(modulo(node).and_then(|f| zip(a, b, a.dtype, f, budget))),
        (_, [first, rest @ ..]) => {
            let binary = binary(operator)?;
            if rest.len() != 1 && !binary.variadic {
                return None;
            }
            Some(rest.iter().try_fold(first.clone(), |a, b| {
                let dtype = if binary.logical { DataType::Bool } else { a.dtype };
                let integers = !a.dtype.is_float();
                let f = binary.f;
                // Integer division truncates; the other operators give integers for integers.
                let f = move |x, y| if integers { f(x, y).trunc() } else { f(x, y) };
                zip(&a, b, dtype, f, budget)
            }))
        }
        _ => None,
    }
}

fn unary(operator: &str) -> Option<fn(f64) -> f64> {
    Some(match operator {
        "Neg" => |x| -x,
        "Abs" => f64::abs,
        "Sqrt" => f64::sqrt,
        "Reciprocal" => f64::recip,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        "Sign" => |x| if x == 0.0 { 0.0 } else { x.signum() },
        "Not" => |x| f64::from(x == 0.0),
        "Log" => f64::ln,
        "Sin" => f64::sin,
        "Cos" => f64::cos,
        _ => return None,
    })
}

struct Binary {
    f: fn(f64, f64) -> f64,
    /// The result is BOOL.
    logical: bool,
    /// Takes any number of operands.
    variadic: bool,
}

fn binary(operator: &str) -> Option<Binary> {
    let (f, logical, variadic): (fn(f64, f64) -> f64, bool, bool) = match operator {
        "Add" => (|x, y| x + y, false, false),
        "Sub" => (|x, y| x - y, false, false),
        "Mul" => (|x, y| x * y, false, false),
        "Div" => (|x, y| x / y, false, false),
        "Pow" => (f64::powf, false, false),
        "Sum" => (|x, y| x + y, false, true),
        "Max" => (f64::max, false, true),
        "Min" => (f64::min, false, true),
        "Equal" => (|x, y| f64::from(x == y), true, false),
        "Less" => (|x, y| f64::from(x < y), true, false),
        "LessOrEqual" => (|x, y| f64::from(x <= y), true, false),
        "Greater" => (|x, y| f64::from(x > y), true, false),
        "GreaterOrEqual" => (|x, y| f64::from(x >= y), true, false),
        "And" => (|x, y| f64::from(x != 0.0 && y != 0.0), true, false),
        "Or" => (|x, y| f64::from(x != 0.0 || y != 0.0), true, false),
        "Xor" => (|x, y| f64::from((x != 0.0) != (y != 0.0)), true, false),
        _ => return None,
    };
    Some(Binary { f, logical, variadic })
}

/// Elementwise `f` within the budget.
pub(crate) fn zip_tensors(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f64, f64) -> f64,
    budget: &Budget,
) -> Result<Tensor, Problem> {
    let shape = broadcast_shape(a.shape(), b.shape());
    let Some(shape) = shape else { refuse!("{:?} and {:?} do not broadcast", a.shape(), b.shape()) };
    budget.take(&shape)?;
    match a.zip(b, f) {
        Some(tensor) => Ok(tensor),
        None => refuse!("the operands do not broadcast"),
    }
}

fn zip(
    a: &Constant,
    b: &Constant,
    dtype: DataType,
    f: impl Fn(f64, f64) -> f64,
    budget: &Budget,
) -> Result<Constant, Problem> {
    zip_tensors(&a.tensor, &b.tensor, f, budget).map(|tensor| Constant { dtype, tensor })
}

fn modulo(node: &Node<'_, '_>) -> Result<fn(f64, f64) -> f64, Problem> {
    // Without fmod the result has the divisor's sign.
    Ok(if node.attributes.flag("fmod", false)? { |x, y| x % y } else { |x, y| x - y * (x / y).floor() })
}

fn select(c: &Constant, a: &Constant, b: &Constant, budget: &Budget) -> Result<Constant, Problem> {
    let Some(shape) =
        broadcast_shape(a.tensor.shape(), b.tensor.shape()).and_then(|ab| broadcast_shape(&ab, c.tensor.shape()))
    else {
        refuse!("the operands do not broadcast");
    };
    budget.take(&shape)?;
    let expanded = [c, a, b].map(|t| t.tensor.broadcast(&shape));
    let [Some(c), Some(x), Some(y)] = expanded else { refuse!("the operands do not broadcast") };
    let values = c.values().iter().zip(x.values().iter().zip(y.values()));
    let values = values.map(|(&c, (&x, &y))| if c != 0.0 { x } else { y }).collect();
    Ok(Constant { dtype: a.dtype, tensor: Tensor::new(shape, values) })
}

fn cast_target(node: &Node<'_, '_>) -> Result<DataType, Problem> {
    node.attributes.ignore(&["saturate", "round_mode"]);
    let to = i32::try_from(node.attributes.int_or("to", 0)?).unwrap_or(0);
    DataType::from_number(to).map_err(|message| Problem::new(message).of("to"))
}

fn cast(x: &Constant, to: DataType, budget: &Budget) -> Result<Constant, Problem> {
    budget.take(x.tensor.shape())?;
    let tensor = match to {
        DataType::Bool => x.tensor.map(|v| f64::from(v != 0.0)),
        DataType::F32 => x.tensor.map(|v| f64::from(v as f32)),
        // More precise than asked for; nothing depends on the rounding.
        DataType::F64 | DataType::F16 | DataType::Bf16 => x.tensor.clone(),
        _ => x.tensor.map(|v| if v.is_nan() { 0.0 } else { v.trunc() }),
    };
    Ok(Constant { dtype: to, tensor })
}

/// Folds an operator through its translation: into a graph of its own, whose inputs are the constants.
pub(crate) fn operator(operator: &Operator, node: Node<'_, '_>) -> Result<Vec<Value>, Problem> {
    let budget = node.builder.budget;
    let dtype = node.inputs.iter().flatten().find_map(|v| match v {
        Value::Constant(c) => Some(c.dtype),
        _ => None,
    });
    let mut scratch = Builder::folding(budget);
    let Node { proto, opset, inputs, external, .. } = node;
    let attributes = Attributes::new(&proto.attribute);
    let mut node = Node { proto, opset, inputs, attributes, builder: &mut scratch, external };
    let results = (operator.translate)(&mut node)?;
    node.attributes.finish(node.opset)?;

    let Builder { mut graph, feeds, .. } = scratch;
    let work = graph.ids().try_fold(0usize, |sum, id| sum.checked_add(work(&graph, id)?));
    if work.is_none_or(|w| w > MAX_WORK) {
        refuse!("computing this constant takes too long");
    }
    for node in graph.nodes.iter().filter(|n| !matches!(n.op, Op::Input { .. })) {
        budget.take(&node.shape)?;
    }
    for result in &results {
        if let Value::Data(id) = result {
            graph.outputs.push(Output { name: graph.outputs.len().to_string(), value: *id });
        }
    }
    if graph.outputs.is_empty() {
        return Ok(results);
    }
    let interpreter = Interpreter::new(&graph).map_err(|d| Problem::new(d.to_string()))?;
    let tensors = interpreter.run(&feeds.unwrap_or_default()).map_err(|e| Problem::new(e.to_string()))?;
    let mut tensors = tensors.into_iter();
    let folded = results.into_iter().map(|result| match (result, dtype) {
        (Value::Data(_), Some(dtype)) => {
            tensors.next().map_or(Value::Unknown, |tensor| Value::Constant(Constant { dtype, tensor }))
        }
        (other, _) => other,
    });
    Ok(folded.collect())
}

/// Multiplications, about.
fn work(graph: &Graph, id: ValueId) -> Option<usize> {
    let node = graph.node(id);
    let count = |shape: &[usize]| fhec_ir::nn::shape::elements(shape);
    let taps = match &node.op {
        Op::Conv(c) => count(graph.tensor(c.weight).shape().get(1..)?)?,
        Op::Dense { weight, .. } => count(graph.tensor(*weight).shape().get(1..)?)?,
        Op::AveragePool(p) | Op::MaxPool(p) => p.kernel[0].checked_mul(p.kernel[1])?,
        Op::ReduceMean { .. } | Op::ReduceSum { .. } => return count(&graph.node(*node.inputs.first()?).shape),
        _ => 1,
    };
    count(&node.shape)?.checked_mul(taps)
}
