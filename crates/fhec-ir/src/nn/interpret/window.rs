//! Pooling windows over the last two axes.

use crate::Tensor;
use crate::nn::Pool;

/// Mean over the counted elements under each window; 0 where nothing counts.
pub(super) fn average(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    let counts = [0, 1].map(|axis| {
        let extent = x.shape()[x.shape().len() - 2 + axis];
        let (before, after) = (pool.counted_pads[axis], pool.counted_pads[axis + 2]);
        taps(pool, axis, extent, shape, [before, after])
    });
    fold(
        pool,
        x,
        shape,
        0.0,
        |sum, v| sum + v,
        |sum, y, x| {
            let n = counts[0][y].len() * counts[1][x].len();
            if n == 0 { 0.0 } else { sum / n as f64 }
        },
    )
}

/// Largest element under each window; padding is −∞.
pub(super) fn maximum(pool: &Pool, x: &Tensor, shape: &[usize]) -> Tensor {
    fold(pool, x, shape, f64::NEG_INFINITY, f64::max, |max, _, _| max)
}

/// For every output position of one spatial axis, the padded positions of its taps that lie within
/// `pads` of the real elements, relative to the first real one plus `pads[0]`.
fn taps(pool: &Pool, axis: usize, extent: usize, shape: &[usize], pads: [usize; 2]) -> Vec<Vec<usize>> {
    let out = shape[shape.len() - 2 + axis];
    (0..out)
        .map(|o| {
            let positions = (0..pool.kernel[axis]).map(|k| o * pool.strides[axis] + k * pool.dilations[axis]);
            // Position 0 is the first padded element.
            let first = pool.pads[axis] - pads[0];
            let end = pool.pads[axis] + extent + pads[1];
            positions.filter(|p| (first..end).contains(p)).map(|p| p - first).collect()
        })
        .collect()
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
    let &[ref lead @ .., h, w] = x.shape() else { panic!("pooling needs two axes") };
    let planes: usize = lead.iter().product();
    let rows = taps(pool, 0, h, shape, [0, 0]);
    let columns = taps(pool, 1, w, shape, [0, 0]);
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in 0..planes {
        let values = &x.values()[plane * h * w..(plane + 1) * h * w];
        for (oy, rows) in rows.iter().enumerate() {
            for (ox, columns) in columns.iter().enumerate() {
                let mut acc = start;
                for &y in rows {
                    for &x in columns {
                        acc = step(acc, values[y * w + x]);
                    }
                }
                out.push(finish(acc, oy, ox));
            }
        }
    }
    Tensor::new(shape.to_vec(), out)
}
