//! Operations that move or sum elements along axes.

use crate::Tensor;
use crate::tensor::{strided, strides};

/// Side by side along `axis`.
pub(super) fn concat(axis: usize, parts: &[&Tensor]) -> Tensor {
    let mut shape = parts[0].shape().to_vec();
    shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut values = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        for part in parts {
            let run = part.len() / outer;
            values.extend_from_slice(&part.values()[o * run..(o + 1) * run]);
        }
    }
    Tensor::new(shape, values)
}

/// `shape[d]` elements from `starts[d]` in steps of `steps[d]`.
pub(super) fn slice(x: &Tensor, starts: &[usize], steps: &[i64], shape: &[usize]) -> Tensor {
    let own = x.strides();
    let offset: usize = starts.iter().zip(&own).map(|(s, o)| s * o).sum();
    let steps: Vec<isize> = steps.iter().zip(&own).map(|(&s, &o)| s as isize * o as isize).collect();
    Tensor::new(shape.to_vec(), strided(x.values(), offset as isize, shape, &steps))
}

/// Constant padding to `shape`; negative padding crops.
pub(super) fn pad(x: &Tensor, before: &[i64], value: f64, shape: &[usize]) -> Tensor {
    let rank = shape.len();
    let mut out = vec![value; shape.iter().product()];
    // The part of the operand that survives: [from, from + extent) per axis.
    let from: Vec<usize> = before.iter().map(|&b| (-b).max(0) as usize).collect();
    let to: Vec<usize> = before.iter().map(|&b| b.max(0) as usize).collect();
    let extent: Vec<usize> =
        (0..rank).map(|d| x.shape()[d].saturating_sub(from[d]).min(shape[d].saturating_sub(to[d]))).collect();
    let kept = slice(x, &from, &vec![1; rank], &extent);
    let (Some(&run), false) = (extent.last(), kept.is_empty()) else {
        // A tensor without dimensions cannot be padded; nothing survives of an empty one.
        return if rank == 0 { x.clone() } else { Tensor::new(shape.to_vec(), out) };
    };
    let (own, inner) = (strides(shape), strides(&extent));
    for (row, values) in kept.values().chunks(run).enumerate() {
        let first = row * run;
        let at: usize = (0..rank).map(|d| (first / inner[d] % extent[d] + to[d]) * own[d]).sum();
        out[at..at + run].copy_from_slice(values);
    }
    Tensor::new(shape.to_vec(), out)
}

/// Sums over `axes`.
pub(super) fn reduce_sum(x: &Tensor, axes: &[usize], shape: &[usize]) -> Tensor {
    // Reduced axes last, then every sum is over one contiguous run.
    let rank = x.shape().len();
    let kept = (0..rank).filter(|d| !axes.contains(d));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let run: usize = axes.iter().map(|&a| x.shape()[a]).product();
    let ordered = if perm.is_sorted() { x.clone() } else { x.transposed(&perm) };
    let sums = (0..shape.iter().product()).map(|i| ordered.values()[i * run..(i + 1) * run].iter().sum());
    Tensor::new(shape.to_vec(), sums.collect())
}

/// exp(x − max) / Σ exp(x − max) along `axis`.
pub(super) fn softmax(x: &Tensor, axis: usize) -> Tensor {
    let n = x.shape()[axis];
    let step: usize = x.shape()[axis + 1..].iter().product();
    let mut out = x.values().to_vec();
    for outer in 0..x.len() / (n * step).max(1) {
        for inner in 0..step {
            let at = |i: usize| (outer * n + i) * step + inner;
            let max = (0..n).map(|i| out[at(i)]).fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            for i in 0..n {
                let e = (out[at(i)] - max).exp();
                out[at(i)] = e;
                sum += e;
            }
            for i in 0..n {
                out[at(i)] /= sum;
            }
        }
    }
    Tensor::new(x.shape().to_vec(), out)
}
