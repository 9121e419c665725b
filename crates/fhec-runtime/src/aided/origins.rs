//! Which elements of its operands an element of a client function is computed from. Shapes were checked when the plan was.

use super::eval::{spread, strides, taps};
use fhec_plan::{ClientOp, Window};

/// Where an element of a function comes from that takes at most one of each operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Origin {
    /// An element of one of the operands.
    One(usize, u32),
    /// An element of both.
    Two(u32, u32),
    /// No element.
    Constant(f64),
}

/// The index of an element.
fn index_of(shape: &[usize], mut element: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &extent) in index.iter_mut().zip(shape).rev() {
        *at = element % extent;
        element /= extent;
    }
    index
}

fn dot(index: &[usize], steps: &[i64]) -> u32 {
    index.iter().zip(steps).map(|(&i, &s)| i as i64 * s).sum::<i64>() as u32
}

/// Where some elements come from, for operations that are none of [`fold`]'s and no softmax. `operands` are shapes.
pub(super) fn origins(op: &ClientOp, operands: &[&[usize]], shape: &[usize], elements: &[u32]) -> Vec<Origin> {
    let own = operands.first().copied().unwrap_or(&[]);
    let all = |f: &dyn Fn(&[usize]) -> Origin| -> Vec<Origin> {
        elements.iter().map(|&e| f(&index_of(shape, e as usize))).collect()
    };
    match op {
        ClientOp::Add | ClientOp::Sub | ClientOp::Mul => {
            let (a, b) = (spread(own, shape), spread(operands.get(1).copied().unwrap_or(&[]), shape));
            all(&|index| Origin::Two(dot(index, &a), dot(index, &b)))
        }
        ClientOp::Transpose(perm) => {
            let own = strides(own);
            let steps: Vec<i64> = perm.iter().map(|&p| own[p] as i64).collect();
            all(&|index| Origin::One(0, dot(index, &steps)))
        }
        ClientOp::Slice { starts, steps } => {
            let own = strides(own);
            let first: i64 = starts.iter().zip(&own).map(|(s, o)| (s * o) as i64).sum();
            let steps: Vec<i64> = steps.iter().zip(&own).map(|(&s, &o)| s * o as i64).collect();
            let at = |index: &[usize]| first + index.iter().zip(&steps).map(|(&i, &s)| i as i64 * s).sum::<i64>();
            all(&|index| Origin::One(0, at(index) as u32))
        }
        ClientOp::Concat(axis) => all(&|index| {
            let (mut operand, mut along) = (0, index[*axis]);
            while along >= operands[operand][*axis] {
                along -= operands[operand][*axis];
                operand += 1;
            }
            let steps = strides(operands[operand]);
            let at = |(d, (&i, step)): (usize, (&usize, usize))| if d == *axis { along * step } else { i * step };
            Origin::One(operand, index.iter().zip(steps).enumerate().map(at).sum::<usize>() as u32)
        }),
        ClientOp::Pad { before, value } => {
            let steps = strides(own);
            all(&|index| {
                let mut at = 0;
                for (d, &i) in index.iter().enumerate() {
                    let source = i as i64 - before[d];
                    if !(0..own[d] as i64).contains(&source) {
                        return Origin::Constant(*value);
                    }
                    at += source as usize * steps[d];
                }
                Origin::One(0, at as u32)
            })
        }
        _ => elements.iter().map(|&e| Origin::One(0, e)).collect(),
    }
}

/// The elements under a window, in the order in which they are folded, and by how many a mean divides.
fn under(window: &Window, counted: [usize; 4], own: &[usize], shape: &[usize], element: usize) -> (Vec<u32>, f64) {
    let rank = own.len();
    let ([h, w], [oh, ow]) = ([own[rank - 2], own[rank - 1]], [shape[rank - 2], shape[rank - 1]]);
    let (plane, oy, ox) = (element / (oh * ow), element / ow % oh, element % ow);
    let mut found = Vec::new();
    for y in taps(window, 0, oy, h, [0; 2]) {
        for x in taps(window, 1, ox, w, [0; 2]) {
            found.push(((plane * h + y as usize) * w + x as usize) as u32);
        }
    }
    let count = |d: usize, o: usize| taps(window, d, o, own[rank - 2 + d], [counted[d], counted[2 + d]]).count() as f64;
    (found, count(0, oy) * count(1, ox))
}

/// An element that is folded from any number of elements of the only operand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold {
    /// In order.
    pub(super) elements: Vec<u32>,
    /// The result is divided by it, and is zero where it is.
    pub(super) divisor: Option<f64>,
}

/// How an element is folded; `None` for operations that do something else. `own` is the shape of the operand.
pub(super) fn fold(op: &ClientOp, own: &[usize], shape: &[usize], element: u32) -> Option<Fold> {
    match op {
        ClientOp::MaxPool(window) => {
            let (elements, _) = under(window, [0; 4], own, shape, element as usize);
            Some(Fold { elements, divisor: None })
        }
        ClientOp::AveragePool { window, counted } => {
            let (elements, count) = under(window, *counted, own, shape, element as usize);
            Some(Fold { elements, divisor: Some(count) })
        }
        ClientOp::Sum { axes, mean } => {
            let kept: Vec<usize> = (0..own.len()).map(|d| if axes.contains(&d) { 1 } else { own[d] }).collect();
            let summed: Vec<usize> = (0..own.len()).map(|d| if axes.contains(&d) { own[d] } else { 1 }).collect();
            let steps: Vec<i64> = strides(own).into_iter().map(|s| s as i64).collect();
            let first = dot(&index_of(&kept, element as usize), &steps);
            let count: usize = summed.iter().product();
            let elements = (0..count).map(|i| first + dot(&index_of(&summed, i), &steps)).collect();
            Some(Fold { elements, divisor: mean.then_some(count as f64) })
        }
        _ => None,
    }
}
