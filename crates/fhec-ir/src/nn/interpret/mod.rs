//! The f64 interpreter: what a tensor graph means.
//!
//! Results do not depend on the number of threads nor on the vector instructions of the machine:
//! every sum is taken in one fixed order.

mod conv;
mod dense;
mod gradient;
mod movement;
mod window;

use super::Activation;
use super::graph::{ConstId, Graph, Op, ValueId};
use super::verify::verify;
use crate::{Diagnostics, Tensor};
use fhec_math::chebyshev::clenshaw_all;
use rayon::prelude::*;

/// Inputs that do not belong to the graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Wrong number of inputs.
    #[error("{given} inputs given, the model has {expected}")]
    Count {
        /// Inputs of the graph.
        expected: usize,
        /// Inputs given.
        given: usize,
    },
    /// An input of the wrong shape.
    #[error("input '{name}' has shape {given:?}, the model takes {expected:?}")]
    Shape {
        /// Name of the input.
        name: String,
        /// Shape in the graph.
        expected: Vec<usize>,
        /// Shape given.
        given: Vec<usize>,
    },
}

/// A verified graph, ready to run.
pub struct Interpreter<'a> {
    graph: &'a Graph,
    inputs: Vec<ValueId>,
    /// The last user of every value; a value is dropped after it.
    last_use: Vec<usize>,
}

impl<'a> Interpreter<'a> {
    /// Verifies the graph and prepares it.
    pub fn new(graph: &'a Graph) -> Result<Self, Diagnostics> {
        verify(graph)?;
        let mut last_use = vec![0; graph.nodes.len()];
        for id in graph.ids() {
            for input in &graph.node(id).inputs {
                last_use[input.index()] = id.index();
            }
        }
        for output in &graph.outputs {
            last_use[output.value.index()] = usize::MAX;
        }
        Ok(Interpreter { graph, inputs: graph.inputs(), last_use })
    }

    /// Outputs, in the graph's order, for one set of inputs.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InputError> {
        self.run_with(inputs, |_, _| {})
    }

    /// All values, in the graph's order.
    pub fn run_all(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, InputError> {
        let mut all = Vec::with_capacity(self.graph.nodes.len());
        self.run_with(inputs, |_, value| all.push(value.clone()))?;
        Ok(all)
    }

    /// Outputs for one set of inputs; `visit` sees every value once, in order.
    pub fn run_with(
        &self,
        inputs: &[Tensor],
        mut visit: impl FnMut(ValueId, &Tensor),
    ) -> Result<Vec<Tensor>, InputError> {
        self.check(inputs)?;
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.nodes.len()];
        let mut given = inputs.iter();
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            let value = match (&node.op, given.as_slice()) {
                (Op::Input { .. }, [_, ..]) => given.next().cloned(),
                _ => {
                    let operands: Vec<&Tensor> =
                        node.inputs.iter().filter_map(|v| values[v.index()].as_ref()).collect();
                    Some(eval(&node.op, &operands, &self.graph.constants, &node.shape))
                }
            };
            if let Some(value) = &value {
                visit(id, value);
            }
            values[id.index()] = value;
            for input in &node.inputs {
                if self.last_use[input.index()] <= id.index() {
                    values[input.index()] = None;
                }
            }
        }
        Ok(self.graph.outputs.iter().filter_map(|o| values[o.value.index()].clone()).collect())
    }

    /// Runs a graph of one input on many images at once: `batch` is `[n · b, …]` where the graph takes
    /// `[b, …]`. Outputs are joined along axis 0. Runs on all threads of the current pool.
    pub fn run_batch(&self, batch: &Tensor) -> Result<Vec<Tensor>, InputError> {
        let images = self.split(batch)?;
        let results: Vec<Vec<Tensor>> =
            images.into_par_iter().map(|image| self.run(&[image])).collect::<Result<_, _>>()?;
        let join = |k: usize| {
            let parts: Vec<&Tensor> = results.iter().map(|r| &r[k]).collect();
            movement::concat(0, &parts)
        };
        Ok((0..self.graph.outputs.len()).map(join).collect())
    }

    /// Cuts `[n · b, …]` into `n` tensors of the shape of the graph's only input.
    pub fn split(&self, batch: &Tensor) -> Result<Vec<Tensor>, InputError> {
        let &[input] = self.inputs.as_slice() else {
            return Err(InputError::Count { expected: self.inputs.len(), given: 1 });
        };
        let shape = &self.graph.node(input).shape;
        let size: usize = shape.iter().product();
        let whole = batch.shape().len() == shape.len()
            && !shape.is_empty()
            && batch.shape()[1..] == shape[1..]
            && size > 0
            && !batch.is_empty()
            && batch.len().is_multiple_of(size);
        if !whole {
            return Err(self.wrong_shape(input, batch));
        }
        Ok(batch.values().chunks(size).map(|image| Tensor::new(shape.clone(), image.to_vec())).collect())
    }

    fn check(&self, inputs: &[Tensor]) -> Result<(), InputError> {
        if inputs.len() != self.inputs.len() {
            return Err(InputError::Count { expected: self.inputs.len(), given: inputs.len() });
        }
        for (&id, tensor) in self.inputs.iter().zip(inputs) {
            if self.graph.node(id).shape != tensor.shape() {
                return Err(self.wrong_shape(id, tensor));
            }
        }
        Ok(())
    }

    fn wrong_shape(&self, id: ValueId, given: &Tensor) -> InputError {
        let node = self.graph.node(id);
        let name = match &node.op {
            Op::Input { name } => name.clone(),
            _ => node.origin.to_string(),
        };
        InputError::Shape { name, expected: node.shape.clone(), given: given.shape().to_vec() }
    }
}

/// Elementwise, with broadcasting.
fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Tensor {
    a.zip(b, f).expect("shapes were checked")
}

/// A function of every element; the common ones are told apart once and not for each.
fn activate(function: &Activation, x: &Tensor) -> Tensor {
    match *function {
        Activation::Relu => x.map(|x| Activation::Relu.eval(x)),
        Activation::Clip { min, max } => x.map(|x| Activation::Clip { min, max }.eval(x)),
        _ => x.map(|x| function.eval(x)),
    }
}

/// The result of one operation; also for folding constants. `shape` is the shape of the result, as
/// [`shape::infer`](super::shape::infer) gives it.
///
/// # Panics
/// When operands, constants and `shape` do not fit, and for [`Op::Input`], which has no operands to
/// compute from: ask [`shape::infer`](super::shape::infer) first.
pub fn eval(op: &Op, operands: &[&Tensor], constants: &[Tensor], shape: &[usize]) -> Tensor {
    let constant = |id: ConstId| &constants[id.index()];
    match op {
        Op::Input { name } => panic!("input '{name}' has no value"),
        Op::Conv(c) => conv::conv(c, operands[0], constant(c.weight), c.bias.map(constant), shape),
        Op::Dense { weight, bias } => dense::dense(operands[0], constant(*weight), bias.map(constant), shape),
        Op::BatchNorm { scale, bias, mean, variance, epsilon } => {
            let norm = |values: [&Tensor; 4], channel: usize, x: f64| {
                let [scale, bias, mean, variance] = values.map(|t| t.values()[channel]);
                (x - mean) / (variance + epsilon).sqrt() * scale + bias
            };
            let parameters = [scale, bias, mean, variance].map(|&id| constant(id));
            let inner: usize = shape[2..].iter().product();
            let values = operands[0].values().iter().enumerate();
            Tensor::new(
                shape.to_vec(),
                values.map(|(i, &x)| norm(parameters, i / inner.max(1) % shape[1], x)).collect(),
            )
        }
        Op::Add => zip(operands[0], operands[1], |x, y| x + y),
        Op::Sub => zip(operands[0], operands[1], |x, y| x - y),
        Op::Mul => zip(operands[0], operands[1], |x, y| x * y),
        Op::AddConst(c) => zip(operands[0], constant(*c), |x, y| x + y),
        Op::MulConst(c) => zip(operands[0], constant(*c), |x, y| x * y),
        Op::AveragePool(pool) => window::average(pool, operands[0], shape),
        Op::MaxPool(pool) => window::maximum(pool, operands[0], shape),
        Op::ReduceSum { axes, .. } => movement::reduce_sum(operands[0], axes, shape),
        Op::ReduceMean { axes, .. } => {
            let n: usize = axes.iter().map(|&a| operands[0].shape()[a]).product();
            movement::reduce_sum(operands[0], axes, shape).map(|v| v / n as f64)
        }
        Op::Reshape => operands[0].reshaped(shape.to_vec()),
        Op::Transpose { perm } => operands[0].transposed(perm),
        Op::Concat { axis } => movement::concat(*axis, operands),
        Op::Slice { starts, steps } => movement::slice(operands[0], starts, steps, shape),
        Op::Pad { before, value, .. } => movement::pad(operands[0], before, *value, shape),
        Op::Activation(a) => activate(a, operands[0]),
        Op::PRelu { slope } => zip(operands[0], constant(*slope), |x, s| if x >= 0.0 { x } else { s * x }),
        Op::Polynomial { chebyshev, interval, .. } => {
            let (sum, width) = (interval.lo + interval.hi, interval.hi - interval.lo);
            let mut values: Vec<f64> = operands[0].values().iter().map(|x| (2.0 * x - sum) / width).collect();
            clenshaw_all(chebyshev, &mut values);
            Tensor::new(shape.to_vec(), values)
        }
        Op::Softmax { axis } => movement::softmax(operands[0], *axis),
    }
}
