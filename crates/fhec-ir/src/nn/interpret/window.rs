//! Pooling windows over the last two axes.

use crate::Tensor;
use crate::nn::Pool;

/// Mean over the counted elements under each window; 0 where nothing counts.
pub(super) fn average(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    let counts = [0, 1].map(|axis| Axis::new(pool, axis, x, [pool.counted_pads[axis], pool.counted_pads[axis + 2]]));
    let mean = |sum: f64, y: usize, x: usize| {
        let n = counts[0].taps(y).1 * counts[1].taps(x).1;
        if n == 0 { 0.0 } else { sum / n as f64 }
    };
    Tensor::new(shape.to_vec(), fold(pool, x, shape, 0.0, |sum, v, _| sum + v, mean))
}

/// The transpose of [`average`]: every element of `y` is shared out among the elements of its window.
pub(super) fn average_transposed(pool: &Pool, y: &Tensor, x_shape: &[usize]) -> Tensor {
    let [.., h, w] = *x_shape else { panic!("pooling needs two axes") };
    let [.., out_h, out_w] = *y.shape() else { panic!("pooling needs two axes") };
    let axis = |axis: usize, pads: [usize; 2]| Axis::of(pool, axis, [h, w][axis], pads);
    let counts = [0, 1].map(|d| axis(d, [pool.counted_pads[d], pool.counted_pads[d + 2]]));
    let [rows, columns] = [0, 1].map(|d| axis(d, [0, 0]));
    let mut out = vec![0.0; x_shape.iter().product()];
    for (i, &share) in y.values().iter().enumerate() {
        let (plane, oy, ox) = (i / (out_h * out_w), i / out_w % out_h, i % out_w);
        let n = counts[0].taps(oy).1 * counts[1].taps(ox).1;
        let ((top, height), (left, width)) = (rows.taps(oy), columns.taps(ox));
        for y in (0..height).map(|i| top + i * pool.dilations[0]) {
            for x in (0..width).map(|i| left + i * pool.dilations[1]) {
                out[(plane * h + y) * w + x] += share / n as f64;
            }
        }
    }
    Tensor::new(x_shape.to_vec(), out)
}

/// Largest element under each window; padding is −∞.
pub(super) fn maximum(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    let values = fold(pool, x, shape, f64::NEG_INFINITY, |max, v, _| max.max(v), |max, _, _| max);
    Tensor::new(shape.to_vec(), values)
}

/// Index of the first of the largest elements under each window.
pub(super) fn maximum_at(pool: &Pool, x: &Tensor, shape: &[usize]) -> Vec<Option<usize>> {
    let larger = |best: Option<usize>, v: f64, at: usize| match best {
        Some(b) if x.values()[b] >= v => best,
        _ => Some(at),
    };
    fold(pool, x, shape, None, larger, |best, _, _| best)
}

/// Windows along one axis that look at the real elements and some of the padding.
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// What is looked at, in positions counted from the first padded element.
    first: usize,
    end: usize,
}

impl Axis {
    fn new(pool: &Pool, axis: usize, x: &Tensor, pads: [usize; 2]) -> Axis {
        Axis::of(pool, axis, x.shape()[x.shape().len() - 2 + axis], pads)
    }

    fn of(pool: &Pool, axis: usize, extent: usize, pads: [usize; 2]) -> Axis {
        Axis {
            kernel: pool.kernel[axis],
            stride: pool.strides[axis],
            dilation: pool.dilations[axis],
            first: pool.pads[axis] - pads[0],
            end: pool.pads[axis] + extent + pads[1],
        }
    }

    /// Position of the first tap of window `o` that is looked at, from `first` on, and how many are.
    fn taps(&self, o: usize) -> (usize, usize) {
        let corner = o * self.stride;
        let skipped = self.first.saturating_sub(corner).div_ceil(self.dilation);
        let reached = self.end.saturating_sub(corner).div_ceil(self.dilation).min(self.kernel);
        let count = reached.saturating_sub(skipped);
        if count == 0 { (0, 0) } else { (corner + skipped * self.dilation - self.first, count) }
    }
}

/// Folds the real elements under each window, each with its index, and finishes with the output position.
fn fold<A: Copy, T>(
    pool: &Pool,
    x: &Tensor,
    shape: &[usize],
    start: A,
    step: impl Fn(A, f64, usize) -> A,
    finish: impl Fn(A, usize, usize) -> T,
) -> Vec<T> {
    let (&[ref lead @ .., h, w], &[.., out_h, out_w]) = (x.shape(), shape) else { panic!("pooling needs two axes") };
    let planes: usize = lead.iter().product();
    let [rows, columns] = [0, 1].map(|axis| Axis::new(pool, axis, x, [0, 0]));
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in 0..planes {
        for oy in 0..out_h {
            let (top, height) = rows.taps(oy);
            for ox in 0..out_w {
                let (left, width) = columns.taps(ox);
                let mut acc = start;
                for y in (0..height).map(|i| top + i * pool.dilations[0]) {
                    for x_at in (0..width).map(|i| left + i * pool.dilations[1]) {
                        let at = (plane * h + y) * w + x_at;
                        acc = step(acc, x.values()[at], at);
                    }
                }
                out.push(finish(acc, oy, ox));
            }
        }
    }
    out
}
