//! Operations of client functions, and which shapes they take.

use super::ClientStep;
use crate::Activation;
use crate::structure::{MAX_DIMS, MAX_ELEMENTS};
use fhec_math::chebyshev::MAX_DEGREE;

/// Numbers of a window, paddings and steps stay below this.
const MAX_EXTENT: usize = 1 << 20;

/// A pooling window over the last two axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub strides: [usize; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Vertical and horizontal dilation.
    pub dilations: [usize; 2],
}

/// Operations on row-major tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientOp {
    /// An input of the network, by number.
    Given(usize),
    /// An output of the plan, decrypted.
    Received(usize),
    /// An elementwise function.
    Function(Activation),
    /// An elementwise polynomial in the Chebyshev basis of the interval.
    Polynomial {
        /// Coefficients.
        chebyshev: Vec<f64>,
        /// The interval.
        interval: (f64, f64),
    },
    /// `mul · x + add`.
    Affine {
        /// Factor.
        mul: f64,
        /// Offset.
        add: f64,
    },
    /// Sum of two tensors (numpy broadcasting).
    Add,
    /// Difference of two tensors (numpy broadcasting).
    Sub,
    /// Product of two tensors (numpy broadcasting).
    Mul,
    /// Largest element under each window, padding apart; −∞ where there is none.
    MaxPool(Window),
    /// Mean under each window.
    AveragePool {
        /// The window.
        window: Window,
        /// Padding that counts as elements: top, left, bottom, right.
        counted: [usize; 4],
    },
    /// Sum over axes.
    Sum {
        /// The axes, ascending.
        axes: Vec<usize>,
        /// Divide by the number of elements summed.
        mean: bool,
    },
    /// The same row-major order.
    Reshape,
    /// Axis `d` of the result is axis `perm[d]` of the operand.
    Transpose(Vec<usize>),
    /// Operands side by side along an axis.
    Concat(usize),
    /// Every axis from a start, in steps.
    Slice {
        /// First index, per axis.
        starts: Vec<usize>,
        /// Step, per axis.
        steps: Vec<i64>,
    },
    /// Elements in front (negative: cropped), a constant around.
    Pad {
        /// Elements in front, per axis.
        before: Vec<i64>,
        /// The constant.
        value: f64,
    },
    /// Softmax along an axis.
    Softmax(usize),
}

type Check = Result<(), String>;

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(message()) }
}

/// Elements of a shape that a tensor may have.
pub(super) fn elements(shape: &[usize]) -> Result<usize, String> {
    ensure(shape.len() <= MAX_DIMS, || format!("{} dimensions", shape.len()))?;
    let count = shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    ensure((1..=MAX_ELEMENTS).contains(&count), || format!("shape {shape:?}"))?;
    Ok(count)
}

impl ClientOp {
    /// Short name.
    pub fn name(&self) -> &'static str {
        match self {
            ClientOp::Given(_) => "Input",
            ClientOp::Received(_) => "Decrypt",
            ClientOp::Function(f) => f.name(),
            ClientOp::Polynomial { .. } => "Polynomial",
            ClientOp::Affine { .. } => "Affine",
            ClientOp::Add => "Add",
            ClientOp::Sub => "Sub",
            ClientOp::Mul => "Mul",
            ClientOp::MaxPool(_) => "MaxPool",
            ClientOp::AveragePool { .. } => "AveragePool",
            ClientOp::Sum { mean: false, .. } => "ReduceSum",
            ClientOp::Sum { mean: true, .. } => "ReduceMean",
            ClientOp::Reshape => "Reshape",
            ClientOp::Transpose(_) => "Transpose",
            ClientOp::Concat(_) => "Concat",
            ClientOp::Slice { .. } => "Slice",
            ClientOp::Pad { .. } => "Pad",
            ClientOp::Softmax(_) => "Softmax",
        }
    }
}

/// Elementary operations that a step takes, where its operands have the given shapes and fit; shapes of inputs and outputs
/// are the caller's to check.
pub(super) fn check(step: &ClientStep, operands: &[&[usize]]) -> Result<u64, String> {
    let shape = &step.shape[..];
    let mut work = elements(shape)? as u64;
    let arity = match step.op {
        ClientOp::Given(_) | ClientOp::Received(_) => 0,
        ClientOp::Add | ClientOp::Sub | ClientOp::Mul => 2,
        ClientOp::Concat(_) => operands.len().max(1),
        _ => 1,
    };
    ensure(operands.len() == arity, || format!("{} operands", operands.len()))?;
    let x = operands.first().copied().unwrap_or(&[]);
    let misfit = || format!("shape {shape:?} from {operands:?}");
    let fits = match &step.op {
        ClientOp::Given(_) | ClientOp::Received(_) => true,
        ClientOp::Function(f) => {
            ensure(f.is_sound(), || format!("parameters of {}", f.name()))?;
            x == shape
        }
        ClientOp::Polynomial { chebyshev, interval: (lo, hi) } => {
            let finite = chebyshev.iter().chain([lo, hi]).all(|v| v.is_finite()) && lo < hi;
            ensure(finite && chebyshev.len() <= MAX_DEGREE + 1, || "coefficients or interval".into())?;
            work *= chebyshev.len().max(1) as u64;
            x == shape
        }
        ClientOp::Affine { mul, add } => {
            ensure(mul.is_finite() && add.is_finite(), || format!("{mul}·x + {add}"))?;
            x == shape
        }
        ClientOp::Add | ClientOp::Sub | ClientOp::Mul => broadcast(x, operands[1]).is_some_and(|s| s == shape),
        ClientOp::MaxPool(window) => {
            work *= windows(window, [0; 4], x, shape)?;
            true
        }
        ClientOp::AveragePool { window, counted } => {
            work *= windows(window, *counted, x, shape)?;
            true
        }
        ClientOp::Sum { axes, .. } => {
            work = elements(x)? as u64;
            let ascending = axes.windows(2).all(|w| w[0] < w[1]) && axes.iter().all(|&a| a < x.len());
            let kept: Vec<usize> = (0..x.len()).map(|d| if axes.contains(&d) { 1 } else { x[d] }).collect();
            let dropped: Vec<usize> = (0..x.len()).filter(|d| !axes.contains(d)).map(|d| x[d]).collect();
            ascending && (shape == kept || shape == dropped)
        }
        ClientOp::Reshape => elements(x)? as u64 == work,
        ClientOp::Transpose(perm) => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            sorted.iter().copied().eq(0..x.len()) && perm.iter().map(|&p| x[p]).eq(shape.iter().copied())
        }
        ClientOp::Concat(axis) => {
            let others = |s: &[usize]| s.len() == shape.len() && (0..s.len()).all(|d| d == *axis || s[d] == shape[d]);
            *axis < shape.len()
                && operands.iter().all(|s| others(s))
                && operands.iter().map(|s| s[*axis]).sum::<usize>() == shape[*axis]
        }
        ClientOp::Slice { starts, steps } => {
            [starts.len(), steps.len(), shape.len()] == [x.len(); 3]
                && (0..x.len()).all(|d| {
                    let last = starts[d] as i128 + (shape[d] as i128 - 1) * i128::from(steps[d]);
                    starts[d] < x[d] && (0..x[d] as i128).contains(&last)
                })
        }
        ClientOp::Pad { before, value } => {
            let near = before.iter().all(|b| b.unsigned_abs() <= MAX_ELEMENTS as u64);
            [before.len(), shape.len()] == [x.len(); 2] && near && value.is_finite()
        }
        ClientOp::Softmax(axis) => x == shape && *axis < shape.len(),
    };
    ensure(fits, misfit)?;
    Ok(work)
}

/// The shape of elementwise results by numpy rules.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], d: usize| (d + s.len()).checked_sub(rank).map_or(1, |d| s[d]);
    (0..rank)
        .map(|d| match (at(a, d), at(b, d)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}

/// Most elements under a window, which must lead from `x` to `shape`.
fn windows(window: &Window, counted: [usize; 4], x: &[usize], shape: &[usize]) -> Result<u64, String> {
    let Window { kernel, strides, pads, dilations } = window;
    let all = kernel.iter().chain(strides).chain(dilations);
    let sane = all.clone().all(|&v| (1..=MAX_EXTENT).contains(&v)) && pads.iter().all(|&p| p <= MAX_EXTENT);
    ensure(sane, || "a window without or of absurd extent".into())?;
    ensure((0..4).all(|i| counted[i] <= pads[i]), || "more padding counts than there is".into())?;
    let rank = x.len();
    let lead = rank >= 2 && shape.len() == rank && x[..rank - 2] == shape[..rank - 2];
    let extent = |d: usize| {
        let (whole, span) = (x[rank - 2 + d] + pads[d] + pads[2 + d], dilations[d] * (kernel[d] - 1) + 1);
        whole.checked_sub(span).map(|room| room / strides[d] + 1)
    };
    let fits = lead && (0..2).all(|d| extent(d) == Some(shape[rank - 2 + d]));
    ensure(fits, || format!("shape {shape:?} from windows of {x:?}"))?;
    Ok((0..2).map(|d| kernel[d].min(x[rank - 2 + d]) as u64).product())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(op: ClientOp, shape: &[usize]) -> ClientStep {
        ClientStep { op, operands: vec![], shape: shape.to_vec() }
    }

    fn window(kernel: usize, stride: usize, pads: [usize; 4]) -> Window {
        Window { kernel: [kernel; 2], strides: [stride; 2], pads, dilations: [1; 2] }
    }

    #[test]
    fn shapes_that_fit_are_taken_and_others_are_not() {
        let x: &[usize] = &[1, 2, 5, 6];
        let cases: Vec<(ClientOp, &[usize], bool)> = vec![
            (ClientOp::Function(Activation::Relu), &[1, 2, 5, 6], true),
            (ClientOp::Function(Activation::Relu), &[1, 2, 6, 5], false),
            (ClientOp::Function(Activation::LeakyRelu { alpha: f64::NAN }), &[1, 2, 5, 6], false),
            (ClientOp::Reshape, &[60], true),
            (ClientOp::Reshape, &[61], false),
            (ClientOp::MaxPool(window(3, 2, [0; 4])), &[1, 2, 2, 2], true),
            (ClientOp::MaxPool(window(3, 2, [0, 0, 1, 1])), &[1, 2, 2, 3], true),
            (ClientOp::MaxPool(window(3, 0, [0; 4])), &[1, 2, 2, 2], false),
            (ClientOp::MaxPool(window(7, 1, [0; 4])), &[1, 2, 1, 1], false),
            (ClientOp::AveragePool { window: window(2, 1, [0; 4]), counted: [1, 0, 0, 0] }, &[1, 2, 4, 5], false),
            (ClientOp::Sum { axes: vec![2, 3], mean: true }, &[1, 2], true),
            (ClientOp::Sum { axes: vec![2, 3], mean: true }, &[1, 2, 1, 1], true),
            (ClientOp::Sum { axes: vec![3, 2], mean: true }, &[1, 2], false),
            (ClientOp::Sum { axes: vec![4], mean: true }, &[1, 2, 5, 6], false),
            (ClientOp::Transpose(vec![0, 2, 3, 1]), &[1, 5, 6, 2], true),
            (ClientOp::Transpose(vec![0, 2, 2, 1]), &[1, 5, 5, 2], false),
            (ClientOp::Concat(1), &[1, 2, 5, 6], true),
            (ClientOp::Concat(4), &[1, 2, 5, 6], false),
            (ClientOp::Slice { starts: vec![0, 1, 4, 0], steps: vec![1, 1, -2, 2] }, &[1, 1, 3, 3], true),
            (ClientOp::Slice { starts: vec![0, 1, 4, 0], steps: vec![1, 1, -2, 2] }, &[1, 1, 4, 3], false),
            (ClientOp::Slice { starts: vec![0; 4], steps: vec![i64::MAX; 4] }, &[1, 2, 5, 6], false),
            (ClientOp::Pad { before: vec![0, 0, 1, -1], value: 0.0 }, &[1, 2, 9, 2], true),
            (ClientOp::Pad { before: vec![0, 0, i64::MIN, 0], value: 0.0 }, &[1, 2, 9, 2], false),
            (ClientOp::Softmax(1), &[1, 2, 5, 6], true),
            (ClientOp::Softmax(4), &[1, 2, 5, 6], false),
            (ClientOp::Add, &[1, 2, 5, 6], false),
        ];
        for (op, shape, good) in cases {
            let step = step(op, shape);
            assert_eq!(check(&step, &[x]).is_ok(), good, "{step:?}");
        }
        let sum = |shape: &[usize], b: &[usize]| check(&step(ClientOp::Add, shape), &[x, b]).is_ok();
        assert!(sum(x, &[2, 1, 1]) && sum(x, &[]) && !sum(x, &[3, 1, 1]) && !sum(&[1, 2, 5, 7], &[1]));
        assert!(check(&step(ClientOp::Given(0), &[1 << 13, 1 << 13]), &[]).is_err(), "too large");
        assert!(check(&step(ClientOp::Given(0), &[0]), &[]).is_err(), "empty");
    }
}
