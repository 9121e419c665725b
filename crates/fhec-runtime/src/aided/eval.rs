//! Client functions on row-major tensors. Shapes were checked when the plan was.

use crate::client::postprocess;
use fhec_math::chebyshev::clenshaw_all;
use fhec_plan::{ClientOp, Postprocess, Window};

/// A tensor: values and shape.
pub(super) type Operand<'a> = (&'a [f64], &'a [usize]);

/// Row-major strides.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        out[d - 1] = out[d] * shape[d];
    }
    out
}

/// Calls `f` for every index of `shape`, in row-major order.
fn each(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product() {
        f(&index);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

/// The elements of `x` at `first + Σ step[d]·index[d]`.
fn strided(x: &[f64], shape: &[usize], first: i64, steps: &[i64]) -> Vec<f64> {
    let mut out = Vec::with_capacity(shape.iter().product());
    each(shape, |index| {
        let at: i64 = first + index.iter().zip(steps).map(|(&i, &s)| i as i64 * s).sum::<i64>();
        out.push(x[at as usize]);
    });
    out
}

/// Steps along the axes of `shape` of a tensor that is broadcast to it.
pub(super) fn spread(own: &[usize], shape: &[usize]) -> Vec<i64> {
    let lead = shape.len() - own.len();
    let mut steps = vec![0; shape.len()];
    for (d, stride) in strides(own).into_iter().enumerate() {
        steps[lead + d] = if own[d] == 1 { 0 } else { stride as i64 };
    }
    steps
}

fn zip(a: Operand<'_>, b: Operand<'_>, shape: &[usize], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let of = |x: Operand<'_>| {
        if x.1 == shape { x.0.to_vec() } else { strided(x.0, shape, 0, &spread(x.1, shape)) }
    };
    of(a).into_iter().zip(of(b)).map(|(x, y)| f(x, y)).collect()
}

/// The positions under window `o` along axis `d` that lie in `[−grow[0], extent + grow[1])`.
pub(super) fn taps(
    window: &Window,
    d: usize,
    o: usize,
    extent: usize,
    grow: [usize; 2],
) -> impl Iterator<Item = i64> + Clone {
    let corner = (o * window.strides[d]) as i64 - window.pads[d] as i64;
    let dilation = window.dilations[d] as i64;
    let (low, high) = (-(grow[0] as i64), (extent + grow[1]) as i64);
    let skipped = ((low - corner).max(0) as u64).div_ceil(dilation as u64) as i64;
    (skipped..window.kernel[d] as i64).map(move |i| corner + i * dilation).take_while(move |&at| at < high)
}

/// Folds the real elements under each window.
fn pool(
    window: &Window,
    (x, own): Operand<'_>,
    shape: &[usize],
    start: f64,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, usize, usize) -> f64,
) -> Vec<f64> {
    let rank = own.len();
    let ([h, w], [oh, ow]) = ([own[rank - 2], own[rank - 1]], [shape[rank - 2], shape[rank - 1]]);
    let planes: usize = own[..rank - 2].iter().product();
    let mut out = Vec::with_capacity(planes * oh * ow);
    for plane in x.chunks_exact(h * w).take(planes) {
        for oy in 0..oh {
            let rows = taps(window, 0, oy, h, [0; 2]);
            for ox in 0..ow {
                let mut acc = start;
                for y in rows.clone() {
                    for column in taps(window, 1, ox, w, [0; 2]) {
                        acc = step(acc, plane[y as usize * w + column as usize]);
                    }
                }
                out.push(finish(acc, oy, ox));
            }
        }
    }
    out
}

/// The result of one step.
pub(super) fn eval(op: &ClientOp, operands: &[Operand<'_>], shape: &[usize]) -> Vec<f64> {
    let Some(&(x, own)) = operands.first() else { return vec![0.0; shape.iter().product()] };
    let map = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(v)).collect::<Vec<f64>>();
    match op {
        ClientOp::Given(_) | ClientOp::Received(_) | ClientOp::Reshape => x.to_vec(),
        ClientOp::Function(f) => map(&|v| f.eval(v)),
        ClientOp::Polynomial { chebyshev, interval: (lo, hi) } => {
            let mut values = map(&|v| (2.0 * v - lo - hi) / (hi - lo));
            clenshaw_all(chebyshev, &mut values);
            values
        }
        ClientOp::Affine { mul, add } => map(&|v| mul * v + add),
        ClientOp::Add => zip((x, own), operands[1], shape, |a, b| a + b),
        ClientOp::Sub => zip((x, own), operands[1], shape, |a, b| a - b),
        ClientOp::Mul => zip((x, own), operands[1], shape, |a, b| a * b),
        ClientOp::MaxPool(window) => pool(window, (x, own), shape, f64::NEG_INFINITY, f64::max, |v, _, _| v),
        ClientOp::AveragePool { window, counted } => {
            let rank = own.len();
            let count =
                |d: usize, o: usize| taps(window, d, o, own[rank - 2 + d], [counted[d], counted[2 + d]]).count() as f64;
            let rows: Vec<f64> = (0..shape[rank - 2]).map(|o| count(0, o)).collect();
            let columns: Vec<f64> = (0..shape[rank - 1]).map(|o| count(1, o)).collect();
            let mean = |sum: f64, y: usize, x: usize| {
                let n = rows[y] * columns[x];
                if n == 0.0 { 0.0 } else { sum / n }
            };
            pool(window, (x, own), shape, 0.0, |a, b| a + b, mean)
        }
        ClientOp::Sum { axes, mean } => {
            let kept: Vec<usize> =
                own.iter().enumerate().map(|(d, &n)| if axes.contains(&d) { 1 } else { n }).collect();
            let steps = spread(&kept, own);
            let mut sums = vec![0.0; kept.iter().product()];
            let mut values = x.iter();
            each(own, |index| {
                let at: i64 = index.iter().zip(&steps).map(|(&i, &s)| i as i64 * s).sum();
                sums[at as usize] += values.next().copied().unwrap_or(0.0);
            });
            let count: usize = axes.iter().map(|&a| own[a]).product();
            if *mean {
                sums.iter_mut().for_each(|v| *v /= count as f64);
            }
            sums
        }
        ClientOp::Transpose(perm) => {
            let own = strides(own);
            strided(x, shape, 0, &perm.iter().map(|&p| own[p] as i64).collect::<Vec<_>>())
        }
        ClientOp::Concat(axis) => {
            let outer: usize = shape[..*axis].iter().product();
            let mut out = Vec::with_capacity(shape.iter().product());
            for o in 0..outer {
                for (values, _) in operands {
                    let run = values.len() / outer;
                    out.extend_from_slice(&values[o * run..(o + 1) * run]);
                }
            }
            out
        }
        ClientOp::Slice { starts, steps } => {
            let own = strides(own);
            let first: i64 = starts.iter().zip(&own).map(|(s, o)| (s * o) as i64).sum();
            let steps: Vec<i64> = steps.iter().zip(&own).map(|(&s, &o)| s * o as i64).collect();
            strided(x, shape, first, &steps)
        }
        ClientOp::Pad { before, value } => {
            let own_strides = strides(own);
            let mut out = Vec::with_capacity(shape.iter().product());
            each(shape, |index| {
                let mut at = 0;
                let inside = index.iter().enumerate().all(|(d, &i)| {
                    let source = i as i64 - before[d];
                    at += source.max(0) as usize * own_strides[d];
                    (0..own[d] as i64).contains(&source)
                });
                out.push(if inside { x[at] } else { *value });
            });
            out
        }
        ClientOp::Softmax(axis) => {
            let mut values = x.to_vec();
            postprocess(&[Postprocess::Softmax { axis: *axis }], shape, &mut values);
            values
        }
    }
}
