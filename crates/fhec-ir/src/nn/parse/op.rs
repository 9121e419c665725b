//! Operations of the text form.

use super::lexer::{Lexer, Token};
use super::{ParseError, Range};
use crate::nn::{Activation, ConstId, Conv, Op, Pool, ValueId};
use std::collections::BTreeMap;

/// The value of an attribute.
pub(super) enum Value {
    Number(f64),
    Word(String),
    Text(String),
    List(Vec<f64>),
    Constant(ConstId),
}

/// Attributes by key; [`build`] takes those it knows, and any left are an error.
pub(super) type Arguments = BTreeMap<String, Value>;

/// `(%0, %1, key=value, …)`.
pub(super) fn arguments(lexer: &mut Lexer) -> Result<(Vec<ValueId>, Arguments), ParseError> {
    let (mut operands, mut attributes) = (Vec::new(), Arguments::new());
    lexer.symbol('(')?;
    if lexer.take(')') {
        return Ok((operands, attributes));
    }
    loop {
        if lexer.take('%') {
            operands.push(ValueId(lexer.id()?));
        } else {
            let key = lexer.any_word()?;
            lexer.symbol('=')?;
            let value = match lexer.next() {
                Token::Symbol('$') => Value::Constant(ConstId(lexer.id()?)),
                Token::Symbol('[') => Value::List(lexer.list_after_bracket()?),
                Token::String(text) => Value::Text(text),
                Token::Word(word) => match word.parse() {
                    Ok(number) => Value::Number(number),
                    Err(_) => Value::Word(word),
                },
                other => return Err(lexer.error(format!("expected the value of '{key}', found {other}"))),
            };
            attributes.insert(key, value);
        }
        if lexer.take(')') {
            return Ok((operands, attributes));
        }
        lexer.symbol(',')?;
    }
}

/// The operation of this name with these attributes.
pub(super) fn build(name: &str, arguments: &mut Arguments) -> Result<Op, String> {
    let mut a = Reader(arguments);
    let op = match name {
        "Input" => Op::Input { name: a.text("name")? },
        "Conv" => Op::Conv(Conv {
            weight: a.constant("weight")?,
            bias: a.optional("bias")?,
            strides: a.array("strides")?,
            pads: a.array("pads")?,
            dilations: a.array("dilations")?,
            groups: a.natural("groups")?,
        }),
        "Dense" => Op::Dense { weight: a.constant("weight")?, bias: a.optional("bias")? },
        "BatchNorm" => Op::BatchNorm {
            scale: a.constant("scale")?,
            bias: a.constant("bias")?,
            mean: a.constant("mean")?,
            variance: a.constant("variance")?,
            epsilon: a.number("epsilon")?,
        },
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        "AddConst" => Op::AddConst(a.constant("constant")?),
        "MulConst" => Op::MulConst(a.constant("constant")?),
        "AveragePool" => Op::AveragePool(a.pool()?),
        "MaxPool" => Op::MaxPool(a.pool()?),
        "ReduceMean" => Op::ReduceMean { axes: a.naturals("axes")?, keep: a.flag("keep")? },
        "ReduceSum" => Op::ReduceSum { axes: a.naturals("axes")?, keep: a.flag("keep")? },
        "Reshape" => Op::Reshape,
        "Transpose" => Op::Transpose { perm: a.naturals("perm")? },
        "Concat" => Op::Concat { axis: a.natural("axis")? },
        "Softmax" => Op::Softmax { axis: a.natural("axis")? },
        "Slice" => Op::Slice { starts: a.naturals("starts")?, steps: a.integers("steps")? },
        "Pad" => Op::Pad { before: a.integers("before")?, after: a.integers("after")?, value: a.number("value")? },
        "PRelu" => Op::PRelu { slope: a.constant("slope")? },
        "Polynomial" => {
            let [lo, hi] = a.list("interval")?.try_into().map_err(|_| "'interval' has two ends")?;
            Op::Polynomial { chebyshev: a.list("chebyshev")?, interval: Range { lo, hi }, label: a.text("label")? }
        }
        _ => Op::Activation(activation(name, &mut a)?),
    };
    match arguments.keys().next() {
        Some(key) => Err(format!("'{name}' has no attribute '{key}'")),
        None => Ok(op),
    }
}

fn activation(name: &str, a: &mut Reader<'_>) -> Result<Activation, String> {
    Ok(match name {
        "Relu" => Activation::Relu,
        "LeakyRelu" => Activation::LeakyRelu { alpha: a.number("alpha")? },
        "Elu" => Activation::Elu { alpha: a.number("alpha")? },
        "Selu" => Activation::Selu { alpha: a.number("alpha")?, gamma: a.number("gamma")? },
        "Celu" => Activation::Celu { alpha: a.number("alpha")? },
        "Sigmoid" => Activation::Sigmoid,
        "HardSigmoid" => Activation::HardSigmoid { alpha: a.number("alpha")?, beta: a.number("beta")? },
        "HardSwish" => Activation::HardSwish,
        "Swish" => Activation::Swish { alpha: a.number("alpha")? },
        "Mish" => Activation::Mish,
        "Tanh" => Activation::Tanh,
        "Erf" => Activation::Erf,
        "Gelu" => Activation::Gelu { tanh: a.flag("tanh")? },
        "Softplus" => Activation::Softplus,
        "Softsign" => Activation::Softsign,
        "Exp" => Activation::Exp,
        "Clip" => Activation::Clip { min: a.number("min")?, max: a.number("max")? },
        "Pow" => Activation::Power {
            exponent: u32::try_from(a.natural("exponent")?).map_err(|_| "'exponent' is too large")?,
        },
        _ => return Err(format!("unknown operation '{name}'")),
    })
}

/// Takes attributes by key and type.
struct Reader<'a>(&'a mut Arguments);

impl Reader<'_> {
    fn take(&mut self, key: &str) -> Result<Value, String> {
        self.0.remove(key).ok_or_else(|| format!("attribute '{key}' is missing"))
    }

    fn number(&mut self, key: &str) -> Result<f64, String> {
        match self.take(key)? {
            Value::Number(v) => Ok(v),
            _ => Err(format!("'{key}' is a number")),
        }
    }

    fn natural(&mut self, key: &str) -> Result<usize, String> {
        let v = self.number(key)?;
        natural(v).ok_or_else(|| format!("'{key}' is a natural number, not {v}"))
    }

    fn list(&mut self, key: &str) -> Result<Vec<f64>, String> {
        match self.take(key)? {
            Value::List(v) => Ok(v),
            _ => Err(format!("'{key}' is a list")),
        }
    }

    fn naturals(&mut self, key: &str) -> Result<Vec<usize>, String> {
        let list = self.list(key)?;
        list.into_iter().map(|v| natural(v).ok_or_else(|| format!("'{key}' lists natural numbers, not {v}"))).collect()
    }

    fn integers(&mut self, key: &str) -> Result<Vec<i64>, String> {
        let list = self.list(key)?;
        list.into_iter()
            .map(|v| {
                let n = natural(v.abs()).ok_or_else(|| format!("'{key}' lists integers, not {v}"))? as i64;
                Ok(if v < 0.0 { -n } else { n })
            })
            .collect()
    }

    fn array<const N: usize>(&mut self, key: &str) -> Result<[usize; N], String> {
        self.naturals(key)?.try_into().map_err(|_| format!("'{key}' lists {N} numbers"))
    }

    fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key)? {
            Value::Word(w) if w == "true" => Ok(true),
            Value::Word(w) if w == "false" => Ok(false),
            _ => Err(format!("'{key}' is true or false")),
        }
    }

    fn text(&mut self, key: &str) -> Result<String, String> {
        match self.take(key)? {
            Value::Text(v) => Ok(v),
            _ => Err(format!("'{key}' is a string")),
        }
    }

    fn constant(&mut self, key: &str) -> Result<ConstId, String> {
        match self.take(key)? {
            Value::Constant(v) => Ok(v),
            _ => Err(format!("'{key}' is a constant")),
        }
    }

    fn optional(&mut self, key: &str) -> Result<Option<ConstId>, String> {
        if self.0.contains_key(key) { self.constant(key).map(Some) } else { Ok(None) }
    }

    fn pool(&mut self) -> Result<Pool, String> {
        Ok(Pool {
            kernel: self.array("kernel")?,
            strides: self.array("strides")?,
            pads: self.array("pads")?,
            dilations: self.array("dilations")?,
            counted_pads: self.array("counted_pads")?,
        })
    }
}

/// A natural number that f64 holds exactly.
fn natural(v: f64) -> Option<usize> {
    (v >= 0.0 && v.fract() == 0.0 && v <= (1u64 << 53) as f64).then_some(v as usize)
}
