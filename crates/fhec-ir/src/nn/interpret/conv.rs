//! Convolution: the windows are gathered into panels of [`PANEL`] output positions, and each panel is
//! multiplied by the kernel matrix while it is in cache.

use super::matmul::{PANEL, times_panel};
use crate::Tensor;
use crate::nn::Conv;

/// The convolution of `x` `[n, c, h, w]` by `weight` `[out, c/groups, kh, kw]`.
pub(super) fn conv(conv: &Conv, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Tensor {
    let (&[n, c, h, w], &[out, inner, kh, kw]) = (x.shape(), weight.shape()) else {
        panic!("convolution of {:?} by {:?}", x.shape(), weight.shape())
    };
    let &[_, _, out_h, out_w] = shape else { panic!("convolution gives {shape:?}") };
    let positions = out_h * out_w;
    let taps = inner * kh * kw;
    let group_out = out / conv.groups;
    let mut values = vec![0.0; n * out * positions];
    let mut panel = vec![0.0; taps * PANEL];
    for image in 0..n {
        for group in 0..conv.groups {
            let from = (image * c + group * inner) * h * w;
            let source = &x.values()[from..from + inner * h * w];
            let kernel = &weight.values()[group * group_out * taps..(group + 1) * group_out * taps];
            for first in (0..positions).step_by(PANEL) {
                let used = PANEL.min(positions - first);
                let corners: [Corner; PANEL] = std::array::from_fn(|p| {
                    let position = (first + p).min(positions - 1);
                    let (oy, ox) = (position / out_w, position % out_w);
                    Corner {
                        y: (oy * conv.strides[0]) as isize - conv.pads[0] as isize,
                        x: (ox * conv.strides[1]) as isize - conv.pads[1] as isize,
                    }
                });
                fill(&mut panel, source, [inner, h, w], [kh, kw], conv.dilations, &corners);
                times_panel(kernel, taps, &panel, |r, sums| {
                    let o = group * group_out + r;
                    let start = bias.map_or(0.0, |b| b.values()[o]);
                    let at = (image * out + o) * positions + first;
                    for (y, s) in values[at..at + used].iter_mut().zip(sums) {
                        *y = start + s;
                    }
                });
            }
        }
    }
    Tensor::new(shape.to_vec(), values)
}

/// First tap of a window, in coordinates of the operand; negative in the padding.
#[derive(Clone, Copy)]
struct Corner {
    y: isize,
    x: isize,
}

/// `panel[k · PANEL + p]` = operand under tap `k = (channel, ky, kx)` of window `p`; 0 in the padding.
fn fill(
    panel: &mut [f64],
    source: &[f64],
    [channels, h, w]: [usize; 3],
    [kh, kw]: [usize; 2],
    dilations: [usize; 2],
    corners: &[Corner; PANEL],
) {
    // Windows side by side in one row read one contiguous run per tap.
    let row = corners.windows(2).all(|c| c[0].y == c[1].y && c[0].x + 1 == c[1].x);
    let mut columns = panel.chunks_exact_mut(PANEL);
    for channel in 0..channels {
        let plane = &source[channel * h * w..(channel + 1) * h * w];
        for ky in 0..kh {
            for kx in 0..kw {
                let (dy, dx) = ((ky * dilations[0]) as isize, (kx * dilations[1]) as isize);
                let Some(column) = columns.next() else { return };
                let (y, x) = (corners[0].y + dy, corners[0].x + dx);
                let inside = (0..h as isize).contains(&y) && x >= 0 && x + PANEL as isize <= w as isize;
                if row && inside {
                    let at = y as usize * w + x as usize;
                    column.copy_from_slice(&plane[at..at + PANEL]);
                    continue;
                }
                for (v, corner) in column.iter_mut().zip(corners) {
                    let (y, x) = (corner.y + dy, corner.x + dx);
                    let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                    *v = if inside { plane[y as usize * w + x as usize] } else { 0.0 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{ConstId, Op, shape};

    /// The definition.
    fn naive(c: &Conv, x: &Tensor, w: &Tensor, b: &Tensor, shape: &[usize]) -> Vec<f64> {
        let at = |t: &Tensor, i: [usize; 4]| -> f64 {
            t.values()[i.iter().zip(t.strides()).map(|(a, s)| a * s).sum::<usize>()]
        };
        let (inner, out) = (w.shape()[1], w.shape()[0]);
        let mut values = Vec::new();
        for n in 0..shape[0] {
            for o in 0..out {
                for y in 0..shape[2] {
                    for xx in 0..shape[3] {
                        let mut sum = b.values()[o];
                        for i in 0..inner {
                            for ky in 0..w.shape()[2] {
                                for kx in 0..w.shape()[3] {
                                    let sy = (y * c.strides[0] + ky * c.dilations[0]).wrapping_sub(c.pads[0]);
                                    let sx = (xx * c.strides[1] + kx * c.dilations[1]).wrapping_sub(c.pads[1]);
                                    if sy < x.shape()[2] && sx < x.shape()[3] {
                                        let channel = o / (out / c.groups) * inner + i;
                                        sum += at(x, [n, channel, sy, sx]) * at(w, [o, i, ky, kx]);
                                    }
                                }
                            }
                        }
                        values.push(sum);
                    }
                }
            }
        }
        values
    }

    #[test]
    fn agrees_with_the_definition() {
        let cases = [
            ([1, 1, 12, 12], [3, 1, 5, 5], [1, 1], [0, 0, 0, 0], [1, 1], 1),
            ([2, 3, 9, 20], [5, 3, 3, 2], [1, 1], [1, 2, 0, 1], [1, 1], 1),
            ([1, 4, 9, 7], [6, 2, 3, 3], [2, 3], [2, 0, 1, 3], [1, 2], 2),
            ([1, 6, 10, 11], [6, 1, 3, 3], [1, 2], [1, 1, 1, 1], [2, 1], 6),
            ([1, 2, 1, 30], [2, 2, 1, 7], [1, 2], [0, 3, 0, 3], [1, 1], 1),
            ([1, 2, 3, 3], [9, 2, 1, 1], [1, 1], [0, 0, 0, 0], [1, 1], 1),
        ];
        for (xs, ws, strides, pads, dilations, groups) in cases {
            let wave = |shape: &[usize], f: f64| {
                let n: usize = shape.iter().product();
                Tensor::new(shape.to_vec(), (0..n).map(|i| (i as f64 * f).sin()).collect())
            };
            let (x, w, b) = (wave(&xs, 0.7), wave(&ws, 1.3), wave(&ws[..1], 0.9));
            let spec = Conv { weight: ConstId(0), bias: None, strides, pads, dilations, groups };
            let op = Op::Conv(spec.clone());
            let shape = shape::infer(&op, &[&xs], std::slice::from_ref(&w), &[]).expect("fits");
            let fast = conv(&spec, &x, &w, Some(&b), &shape);
            for (i, (a, e)) in fast.values().iter().zip(naive(&spec, &x, &w, &b, &shape)).enumerate() {
                assert!((a - e).abs() < 1e-12, "{xs:?} by {ws:?}, element {i}: {a} instead of {e}");
            }
        }
    }
}
