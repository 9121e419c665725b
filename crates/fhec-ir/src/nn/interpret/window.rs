//! Pooling windows over the last two axes.

use crate::Tensor;
use crate::nn::Pool;

/// Mean over the counted elements under each window; 0 where nothing counts.
pub(super) fn average(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    let counts = [0, 1].map(|axis| Axis::new(pool, axis, x, [pool.counted_pads[axis], pool.counted_pads[axis + 2]]));
    fold(
        pool,
        x,
        shape,
        0.0,
        |sum, v| sum + v,
        |sum, y, x| {
            let n = counts[0].taps(y).1 * counts[1].taps(x).1;
            if n == 0 { 0.0 } else { sum / n as f64 }
        },
    )
}

/// Largest element under each window; padding is −∞.
pub(super) fn maximum(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    fold(pool, x, shape, f64::NEG_INFINITY, f64::max, |max, _, _| max)
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
        let extent = x.shape()[x.shape().len() - 2 + axis];
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

/// Folds the real elements under each window and finishes with the output position.
fn fold(
    pool: &Pool,
    x: &Tensor,
    shape: &[usize],
    start: f64,
    step: impl Fn(f64, f64) -> f64,
    finish: impl Fn(f64, usize, usize) -> f64,
) -> Tensor {
    let (&[ref lead @ .., h, w], &[.., out_h, out_w]) = (x.shape(), shape) else { panic!("pooling needs two axes") };
    let planes: usize = lead.iter().product();
    let [rows, columns] = [0, 1].map(|axis| Axis::new(pool, axis, x, [0, 0]));
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in 0..planes {
        let values = &x.values()[plane * h * w..(plane + 1) * h * w];
        for oy in 0..out_h {
            let (top, height) = rows.taps(oy);
            for ox in 0..out_w {
                let (left, width) = columns.taps(ox);
                let mut acc = start;
                for y in (0..height).map(|i| top + i * pool.dilations[0]) {
                    for x in (0..width).map(|i| left + i * pool.dilations[1]) {
                        acc = step(acc, values[y * w + x]);
                    }
                }
                out.push(finish(acc, oy, ox));
            }
        }
    }
    Tensor::new(shape.to_vec(), out)
}
