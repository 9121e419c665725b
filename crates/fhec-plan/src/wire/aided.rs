//! The client's part of the head: conversions between plain types and messages.
//!
//! A step is a kind with whole numbers and reals:
//!
//! | kind | operation | numbers | reals |
//! | --- | --- | --- | --- |
//! | 0 | Given | input | |
//! | 1 | Received | output | |
//! | 2 | Function | which one (below), exponent of a power | its parameters |
//! | 3 | Polynomial | | interval, coefficients |
//! | 4 | Affine | | factor, offset |
//! | 5, 6, 7 | Add, Sub, Mul | | |
//! | 8 | MaxPool | kernel 2, strides 2, dilations 2, pads 4 | |
//! | 9 | AveragePool | the same, counted pads 4 | |
//! | 10, 11 | Sum, mean | axes | |
//! | 12 | Reshape | | |
//! | 13 | Transpose | permutation | |
//! | 14 | Concat | axis | |
//! | 15 | Slice | starts, then steps | |
//! | 16 | Pad | in front | the constant |
//! | 17 | Softmax | axis | |

use super::head::{Convert, longs, postprocess_in, postprocess_out, sizes};
use super::message as m;
use crate::structure::{MAX_DIMS, MAX_INSTRUCTIONS, MAX_PORTS, check_count};
use crate::{Activation, Aided, ClientOp, ClientResult, ClientStep, Send, Window};

/// Number and parameters of a function.
fn function_out(f: &Activation) -> (Vec<i64>, Vec<f64>) {
    let plain = |code| (vec![code], vec![]);
    match *f {
        Activation::Relu => plain(0),
        Activation::LeakyRelu { alpha } => (vec![1], vec![alpha]),
        Activation::Elu { alpha } => (vec![2], vec![alpha]),
        Activation::Selu { alpha, gamma } => (vec![3], vec![alpha, gamma]),
        Activation::Celu { alpha } => (vec![4], vec![alpha]),
        Activation::Sigmoid => plain(5),
        Activation::HardSigmoid { alpha, beta } => (vec![6], vec![alpha, beta]),
        Activation::HardSwish => plain(7),
        Activation::Swish { alpha } => (vec![8], vec![alpha]),
        Activation::Mish => plain(9),
        Activation::Tanh => plain(10),
        Activation::Erf => plain(11),
        Activation::Gelu { tanh: false } => plain(12),
        Activation::Gelu { tanh: true } => plain(13),
        Activation::Softplus => plain(14),
        Activation::Softsign => plain(15),
        Activation::Exp => plain(16),
        Activation::Clip { min, max } => (vec![17], vec![min, max]),
        Activation::Power { exponent } => (vec![18, i64::from(exponent)], vec![]),
    }
}

fn function_in(numbers: &[i64], reals: &[f64]) -> Option<Activation> {
    Some(match (numbers, reals) {
        ([0], []) => Activation::Relu,
        ([1], &[alpha]) => Activation::LeakyRelu { alpha },
        ([2], &[alpha]) => Activation::Elu { alpha },
        ([3], &[alpha, gamma]) => Activation::Selu { alpha, gamma },
        ([4], &[alpha]) => Activation::Celu { alpha },
        ([5], []) => Activation::Sigmoid,
        ([6], &[alpha, beta]) => Activation::HardSigmoid { alpha, beta },
        ([7], []) => Activation::HardSwish,
        ([8], &[alpha]) => Activation::Swish { alpha },
        ([9], []) => Activation::Mish,
        ([10], []) => Activation::Tanh,
        ([11], []) => Activation::Erf,
        ([12], []) => Activation::Gelu { tanh: false },
        ([13], []) => Activation::Gelu { tanh: true },
        ([14], []) => Activation::Softplus,
        ([15], []) => Activation::Softsign,
        ([16], []) => Activation::Exp,
        ([17], &[min, max]) => Activation::Clip { min, max },
        (&[18, exponent], []) => Activation::Power { exponent: u32::try_from(exponent).ok()? },
        _ => return None,
    })
}

fn signed(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

fn window_out(w: &Window) -> Vec<i64> {
    let parts = [&w.kernel[..], &w.strides, &w.dilations, &w.pads];
    parts.into_iter().flat_map(signed).collect()
}

fn window_in(n: &[usize]) -> Option<Window> {
    let &[k0, k1, s0, s1, d0, d1, p0, p1, p2, p3] = n else { return None };
    Some(Window { kernel: [k0, k1], strides: [s0, s1], pads: [p0, p1, p2, p3], dilations: [d0, d1] })
}

fn step_out(step: &ClientStep) -> m::ClientStep {
    let (kind, numbers, reals) = match &step.op {
        ClientOp::Given(i) => (0, vec![*i as i64], vec![]),
        ClientOp::Received(i) => (1, vec![*i as i64], vec![]),
        ClientOp::Function(f) => {
            let (numbers, reals) = function_out(f);
            (2, numbers, reals)
        }
        ClientOp::Polynomial { chebyshev, interval: (lo, hi) } => {
            (3, vec![], [*lo, *hi].into_iter().chain(chebyshev.iter().copied()).collect())
        }
        ClientOp::Affine { mul, add } => (4, vec![], vec![*mul, *add]),
        ClientOp::Add => (5, vec![], vec![]),
        ClientOp::Sub => (6, vec![], vec![]),
        ClientOp::Mul => (7, vec![], vec![]),
        ClientOp::MaxPool(window) => (8, window_out(window), vec![]),
        ClientOp::AveragePool { window, counted } => (9, [window_out(window), signed(counted)].concat(), vec![]),
        ClientOp::Sum { axes, mean } => (if *mean { 11 } else { 10 }, signed(axes), vec![]),
        ClientOp::Reshape => (12, vec![], vec![]),
        ClientOp::Transpose(perm) => (13, signed(perm), vec![]),
        ClientOp::Concat(axis) => (14, vec![*axis as i64], vec![]),
        ClientOp::Slice { starts, steps } => (15, [signed(starts), steps.clone()].concat(), vec![]),
        ClientOp::Pad { before, value } => (16, before.clone(), vec![*value]),
        ClientOp::Softmax(axis) => (17, vec![*axis as i64], vec![]),
    };
    m::ClientStep { kind, numbers, reals, operands: step.operands.clone(), shape: longs(&step.shape) }
}

fn op_in(kind: u32, numbers: &[i64], reals: &[f64]) -> Option<ClientOp> {
    let natural: Option<Vec<usize>> = numbers.iter().map(|&n| usize::try_from(n).ok()).collect();
    let natural = || natural.clone();
    Some(match (kind, numbers, reals) {
        (0, [_], []) => ClientOp::Given(natural()?[0]),
        (1, [_], []) => ClientOp::Received(natural()?[0]),
        (2, ..) => ClientOp::Function(function_in(numbers, reals)?),
        (3, [], &[lo, hi, ref chebyshev @ ..]) => {
            ClientOp::Polynomial { chebyshev: chebyshev.to_vec(), interval: (lo, hi) }
        }
        (4, [], &[mul, add]) => ClientOp::Affine { mul, add },
        (5, [], []) => ClientOp::Add,
        (6, [], []) => ClientOp::Sub,
        (7, [], []) => ClientOp::Mul,
        (8, _, []) => ClientOp::MaxPool(window_in(&natural()?)?),
        (9, _, []) => {
            let n = natural()?;
            let (window, counted) = n.split_at_checked(10)?;
            ClientOp::AveragePool { window: window_in(window)?, counted: counted.try_into().ok()? }
        }
        (10 | 11, _, []) => ClientOp::Sum { axes: natural()?, mean: kind == 11 },
        (12, [], []) => ClientOp::Reshape,
        (13, _, []) => ClientOp::Transpose(natural()?),
        (14, [_], []) => ClientOp::Concat(natural()?[0]),
        (15, _, []) if numbers.len().is_multiple_of(2) => {
            let (starts, steps) = numbers.split_at(numbers.len() / 2);
            let starts: Option<Vec<usize>> = starts.iter().map(|&n| usize::try_from(n).ok()).collect();
            ClientOp::Slice { starts: starts?, steps: steps.to_vec() }
        }
        (16, _, &[value]) => ClientOp::Pad { before: numbers.to_vec(), value },
        (17, [_], []) => ClientOp::Softmax(natural()?[0]),
        _ => return None,
    })
}

fn step_in(step: m::ClientStep) -> Convert<ClientStep> {
    check_count("dimensions", step.shape.len(), MAX_DIMS)?;
    let op = op_in(step.kind, &step.numbers, &step.reals)
        .ok_or_else(|| format!("a client step of kind {} with {:?}", step.kind, step.numbers))?;
    Ok(ClientStep { op, operands: step.operands, shape: sizes(&step.shape, "dimension")? })
}

/// The message of the client's part.
pub(super) fn encode(aided: &Aided) -> m::Aided {
    let result = |r: &ClientResult| m::ClientResult {
        name: r.name.clone(),
        step: r.step,
        range_lo: r.range.0,
        range_hi: r.range.1,
        error_std: r.error_std,
        postprocess: r.postprocess.iter().map(postprocess_out).collect(),
    };
    m::Aided {
        rounds: aided.rounds,
        network_inputs: aided.network_inputs as u64,
        steps: aided.steps.iter().map(step_out).collect(),
        sent_steps: aided.sends.iter().map(|s| s.step).collect(),
        sent_rounds: aided.sends.iter().map(|s| s.round).collect(),
        received_rounds: aided.receives.clone(),
        results: aided.results.iter().map(result).collect(),
    }
}

/// The plain type of the client's part.
pub(super) fn decode(aided: m::Aided) -> Convert<Aided> {
    check_count("client steps", aided.steps.len(), MAX_INSTRUCTIONS)?;
    check_count("results", aided.results.len(), MAX_PORTS)?;
    if aided.sent_steps.len() != aided.sent_rounds.len() {
        return Err("unequal numbers of steps and rounds that are sent".into());
    }
    let result = |r: m::ClientResult| -> Convert<ClientResult> {
        Ok(ClientResult {
            name: r.name,
            step: r.step,
            range: (r.range_lo, r.range_hi),
            error_std: r.error_std,
            postprocess: r.postprocess.into_iter().map(postprocess_in).collect::<Convert<_>>()?,
        })
    };
    let sends = aided.sent_steps.iter().zip(&aided.sent_rounds);
    Ok(Aided {
        rounds: aided.rounds,
        network_inputs: super::head::size(aided.network_inputs, "number of inputs")?,
        steps: aided.steps.into_iter().map(step_in).collect::<Convert<_>>()?,
        sends: sends.map(|(&step, &round)| Send { step, round }).collect(),
        receives: aided.received_rounds,
        results: aided.results.into_iter().map(result).collect::<Convert<_>>()?,
    })
}
