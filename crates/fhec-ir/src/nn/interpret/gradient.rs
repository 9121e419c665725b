//! Gradients: how much a quantity at the end of a graph changes with every value on the way.
//!
//! One walk backwards per quantity, each operation by the transpose of its derivative.

use super::{Interpreter, conv, movement, window, zip};
use crate::Tensor;
use crate::nn::Activation;
use crate::nn::graph::{ConstId, Op, Range, ValueId};
use fhec_math::chebyshev::clenshaw_all;

impl Interpreter<'_> {
    /// The gradient of a quantity with respect to every value that it depends on, last value first. `seeds` are the gradients
    /// with respect to the values that the quantity is made of, and `values` is what [`run_all`](Self::run_all) gave.
    ///
    /// Where a function has a kink its slope is the mean of both sides; that of a maximum belongs to the first of the largest
    /// elements.
    ///
    /// # Panics
    /// When values or seeds are not of this graph.
    pub fn pull_back(
        &self,
        values: &[Tensor],
        seeds: impl IntoIterator<Item = (ValueId, Tensor)>,
        mut visit: impl FnMut(ValueId, &Tensor),
    ) {
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.graph.nodes.len()];
        for (id, seed) in seeds {
            assert_eq!(seed.shape(), self.graph.node(id).shape, "a seed has the shape of its value");
            add(&mut gradients[id.index()], seed);
        }
        for (index, node) in self.graph.nodes.iter().enumerate().rev() {
            let Some(gradient) = gradients[index].take() else { continue };
            visit(ValueId(index as u32), &gradient);
            let operands: Vec<&Tensor> = node.inputs.iter().map(|v| &values[v.index()]).collect();
            let back = transposed(&node.op, &gradient, &operands, &values[index], &self.graph.constants);
            for (input, gradient) in node.inputs.iter().zip(back) {
                add(&mut gradients[input.index()], gradient);
            }
        }
    }
}

fn add(sum: &mut Option<Tensor>, part: Tensor) {
    *sum = Some(match sum.take() {
        Some(sum) => zip(&sum, &part, |a, b| a + b),
        None => part,
    });
}

/// The gradient with respect to each operand, given the gradient `g` with respect to the result `y`.
fn transposed(op: &Op, g: &Tensor, x: &[&Tensor], y: &Tensor, constants: &[Tensor]) -> Vec<Tensor> {
    let constant = |id: ConstId| &constants[id.index()];
    let one = |gradient: Tensor| vec![gradient];
    let shape = || x[0].shape();
    match op {
        Op::Input { .. } => vec![],
        Op::Conv(c) => one(conv::conv_transposed(c, g, constant(c.weight), shape())),
        Op::Dense { weight, .. } => one(dense_transposed(g, constant(*weight), shape())),
        Op::BatchNorm { scale, variance, epsilon, .. } => {
            let (scale, variance) = (constant(*scale).values(), constant(*variance).values());
            let inner: usize = g.shape()[2..].iter().product();
            let slope = |i: usize| {
                let channel = i / inner.max(1) % g.shape()[1];
                scale[channel] / (variance[channel] + epsilon).sqrt()
            };
            one(Tensor::new(shape().to_vec(), g.values().iter().enumerate().map(|(i, v)| v * slope(i)).collect()))
        }
        Op::Add => x.iter().map(|x| gathered(g, x.shape())).collect(),
        Op::Sub => vec![gathered(g, shape()), gathered(&g.map(|v| -v), x[1].shape())],
        Op::Mul => {
            let part = |own: usize, other: usize| gathered(&zip(g, x[other], |a, b| a * b), x[own].shape());
            vec![part(0, 1), part(1, 0)]
        }
        Op::AddConst(_) => one(gathered(g, shape())),
        Op::MulConst(c) => one(gathered(&zip(g, constant(*c), |a, b| a * b), shape())),
        Op::AveragePool(pool) => one(window::average_transposed(pool, g, shape())),
        Op::MaxPool(pool) => {
            // As an average over nothing but the first largest element.
            let first = window::maximum_at(pool, x[0], g.shape());
            one(scattered(g, first.into_iter(), shape()))
        }
        Op::ReduceSum { axes, .. } => one(spread(g, axes, shape())),
        Op::ReduceMean { axes, .. } => {
            let n: usize = axes.iter().map(|&a| shape()[a]).product();
            one(spread(g, axes, shape()).map(|v| v / n as f64))
        }
        Op::Reshape => one(g.reshaped(shape().to_vec())),
        Op::Transpose { perm } => {
            let mut inverse = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(d, &p)| inverse[p] = d);
            one(g.transposed(&inverse))
        }
        Op::Concat { axis } => {
            let mut starts = vec![0; g.shape().len()];
            let part = |x: &&Tensor| {
                let part = movement::slice(g, &starts, &vec![1; starts.len()], x.shape());
                starts[*axis] += x.shape()[*axis];
                part
            };
            x.iter().map(part).collect()
        }
        Op::Slice { starts, steps } => {
            let places = Tensor::new(shape().to_vec(), (0..x[0].len()).map(|i| i as f64).collect());
            let taken = movement::slice(&places, starts, steps, g.shape());
            one(scattered(g, taken.values().iter().map(|&i| Some(i as usize)), shape()))
        }
        Op::Pad { before, .. } => {
            let back: Vec<i64> = before.iter().map(|b| -b).collect();
            one(movement::pad(g, &back, 0.0, shape()))
        }
        Op::Activation(f) => one(zip(g, x[0], |g, x| g * slope(f, x))),
        Op::PRelu { slope } => {
            let factor = zip(x[0], constant(*slope), |x, s| if x >= 0.0 { 1.0 } else { s });
            one(zip(g, &factor, |a, b| a * b))
        }
        Op::Polynomial { chebyshev, interval, .. } => one(zip(g, &slopes(chebyshev, *interval, x[0]), |a, b| a * b)),
        Op::Softmax { axis } => {
            let weighted = zip(g, y, |g, y| g * y);
            let mut kept = y.shape().to_vec();
            kept[*axis] = 1;
            let sums = movement::reduce_sum(&weighted, &[*axis], &kept);
            let sums = zip(y, &sums, |y, s| y * s);
            one(zip(&weighted, &sums, |a, b| a - b))
        }
    }
}

/// `g[…, o] · weight[o, i]` summed over `o`.
fn dense_transposed(g: &Tensor, weight: &Tensor, shape: &[usize]) -> Tensor {
    let &[out, inner] = weight.shape() else { panic!("weight of shape {:?}", weight.shape()) };
    let mut values = vec![0.0; shape.iter().product()];
    if out > 0 && inner > 0 {
        for (row, g) in values.chunks_exact_mut(inner).zip(g.values().chunks_exact(out)) {
            for (g, weights) in g.iter().zip(weight.values().chunks_exact(inner)) {
                row.iter_mut().zip(weights).for_each(|(v, w)| *v += g * w);
            }
        }
    }
    Tensor::new(shape.to_vec(), values)
}

/// The transpose of broadcasting from `shape`: sums over what was repeated.
fn gathered(g: &Tensor, shape: &[usize]) -> Tensor {
    if g.shape() == shape {
        return g.clone();
    }
    let lead = g.shape().len() - shape.len();
    let repeated = |&d: &usize| d < lead || (shape[d - lead] == 1 && g.shape()[d] != 1);
    let axes: Vec<usize> = (0..g.shape().len()).filter(repeated).collect();
    movement::reduce_sum(g, &axes, shape)
}

/// The transpose of a sum over `axes`: the same number all along them.
fn spread(g: &Tensor, axes: &[usize], shape: &[usize]) -> Tensor {
    let kept = shape.iter().enumerate().map(|(d, &n)| if axes.contains(&d) { 1 } else { n }).collect();
    g.reshaped(kept).broadcast(shape).expect("shapes were checked")
}

/// Adds every number to its place in a tensor of zeros.
fn scattered(g: &Tensor, places: impl Iterator<Item = Option<usize>>, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    for (v, place) in g.values().iter().zip(places) {
        if let Some(place) = place {
            values[place] += v;
        }
    }
    Tensor::new(shape.to_vec(), values)
}

/// Slope of a function, from two values nearby: right to about eight digits.
fn slope(f: &Activation, x: f64) -> f64 {
    let step = 2f64.powi(-18) * (1.0 + x.abs());
    let (below, above) = (x - step, x + step);
    (f.eval(above) - f.eval(below)) / (above - below)
}

/// Slopes of a polynomial.
fn slopes(chebyshev: &[f64], interval: Range, x: &Tensor) -> Tensor {
    let (sum, width) = (interval.lo + interval.hi, interval.hi - interval.lo);
    let mut values: Vec<f64> = x.values().iter().map(|x| (2.0 * x - sum) / width).collect();
    clenshaw_all(&derivative(chebyshev), &mut values);
    Tensor::new(x.shape().to_vec(), values.into_iter().map(|v| 2.0 * v / width).collect())
}

/// Chebyshev coefficients of the derivative: `c'_{k−1} = c'_{k+1} + 2k·c_k`, and half of that for `k = 1`.
fn derivative(chebyshev: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; chebyshev.len() + 1];
    for k in (1..chebyshev.len()).rev() {
        out[k - 1] = out[k + 1] + 2.0 * k as f64 * chebyshev[k];
    }
    out[0] /= 2.0;
    out
}
