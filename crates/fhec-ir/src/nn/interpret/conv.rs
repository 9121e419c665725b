//! Convolution: what is under the windows of [`PANEL`] output positions is multiplied by the kernel matrix, straight from the image where
//! windows lie side by side, and from a panel that it is gathered into where they do not. Its transpose scatters such panels.

use crate::Tensor;
use crate::matmul::{PANEL, Packed};
use crate::nn::Conv;

/// The convolution of `x` `[n, c, h, w]` by `weight` `[out, c/groups, kh, kw]`.
pub(super) fn conv(conv: &Conv, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, shape: &[usize]) -> Tensor {
    let g = Geometry::new(conv, x.shape(), weight.shape(), shape);
    let mut values = vec![0.0; g.images * g.groups * g.group_out * g.positions()];
    let mut panel = vec![[0.0; PANEL]; g.taps.len()];
    let mut frame = vec![0.0; g.frame_len()];
    let kernels = g.kernels(weight, false);
    for image in 0..g.images {
        for (group, kernel) in kernels.iter().enumerate() {
            g.rows(image, group).for_each(|(inside, row)| frame[inside].copy_from_slice(&x.values()[row]));
            for first in (0..g.positions()).step_by(PANEL) {
                let corners = g.corners(first);
                let used = PANEL.min(g.positions() - first);
                let emit = |o: usize, sums: &[f64; PANEL]| {
                    let start = bias.map_or(0.0, |b| b.values()[group * g.group_out + o]);
                    let at = g.output(image, group, o) + first;
                    for (y, s) in values[at..at + used].iter_mut().zip(sums) {
                        *y = start + s;
                    }
                };
                if corners.windows(2).all(|c| c[0] + 1 == c[1]) {
                    kernel.times_rows_of(&frame, corners[0], &g.taps, emit);
                } else {
                    g.gather(&mut panel, &frame, &corners);
                    kernel.times_panel(&panel, emit);
                }
            }
        }
    }
    Tensor::new(shape.to_vec(), values)
}

/// The transpose of [`conv`] without bias: from `y` of the shape of the result back to `x_shape`.
pub(super) fn conv_transposed(conv: &Conv, y: &Tensor, weight: &Tensor, x_shape: &[usize]) -> Tensor {
    let g = Geometry::new(conv, x_shape, weight.shape(), y.shape());
    let mut values = vec![0.0; x_shape.iter().product()];
    let mut panel = vec![[0.0; PANEL]; g.group_out];
    let mut frame = vec![0.0; g.frame_len()];
    let kernels = g.kernels(weight, true);
    for image in 0..g.images {
        for (group, kernel) in kernels.iter().enumerate() {
            frame.fill(0.0);
            for first in (0..g.positions()).step_by(PANEL) {
                let used = PANEL.min(g.positions() - first);
                for (o, column) in panel.iter_mut().enumerate() {
                    let at = g.output(image, group, o) + first;
                    column[..used].copy_from_slice(&y.values()[at..at + used]);
                }
                let corners = g.corners(first);
                kernel.times_panel(&panel, |k, sums| {
                    for (corner, s) in corners[..used].iter().zip(sums) {
                        frame[corner + g.taps[k]] += s;
                    }
                });
            }
            g.rows(image, group).for_each(|(inside, row)| values[row].copy_from_slice(&frame[inside]));
        }
    }
    Tensor::new(x_shape.to_vec(), values)
}

/// Where windows and taps of a convolution are. Each group of channels of one image is copied into a frame that holds the
/// padding too, so that no tap is a special case.
struct Geometry {
    images: usize,
    groups: usize,
    group_out: usize,
    /// Channels of a group, height and width of an image.
    inner: [usize; 3],
    /// Rows and columns of padding before the image.
    front: [usize; 2],
    /// Height and width of a channel's frame.
    frame: [usize; 2],
    strides: [usize; 2],
    output: [usize; 2],
    /// Offset of every tap (channel, ky, kx) from the first one of its window.
    taps: Vec<usize>,
}

impl Geometry {
    fn new(conv: &Conv, x: &[usize], weight: &[usize], shape: &[usize]) -> Self {
        let (&[images, _, h, w], &[out, inner, kh, kw], &[_, _, out_h, out_w]) = (x, weight, shape) else {
            panic!("convolution of {x:?} by {weight:?} to {shape:?}")
        };
        let [top, left, bottom, right] = conv.pads;
        let frame = [h + top + bottom, w + left + right];
        let [dy, dx] = conv.dilations;
        let row = |c: usize, ky: usize| (c * frame[0] + ky * dy) * frame[1];
        let tap = |i: usize| row(i / (kh * kw), i / kw % kh) + i % kw * dx;
        Geometry {
            images,
            groups: conv.groups,
            group_out: out / conv.groups,
            inner: [inner, h, w],
            front: [top, left],
            frame,
            strides: conv.strides,
            output: [out_h, out_w],
            taps: (0..inner * kh * kw).map(tap).collect(),
        }
    }

    /// Output positions of a channel.
    fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    fn frame_len(&self) -> usize {
        self.inner[0] * self.frame[0] * self.frame[1]
    }

    /// First element of an output channel.
    fn output(&self, image: usize, group: usize, channel: usize) -> usize {
        ((image * self.groups + group) * self.group_out + channel) * self.positions()
    }

    /// For every row of a group's channels, where it is in the frame and where in the operand.
    fn rows(
        &self,
        image: usize,
        group: usize,
    ) -> impl Iterator<Item = (std::ops::Range<usize>, std::ops::Range<usize>)> {
        let ([channels, h, w], [top, left], [frame_h, frame_w]) = (self.inner, self.front, self.frame);
        let first = (image * self.groups + group) * channels * h * w;
        (0..channels * h).map(move |row| {
            let inside = (row / h.max(1) * frame_h + row % h.max(1) + top) * frame_w + left;
            let at = first + row * w;
            (inside..inside + w, at..at + w)
        })
    }

    /// The kernel matrix of every group, from taps to output channels; or `turned` round, from output channels to taps.
    fn kernels(&self, weight: &Tensor, turned: bool) -> Vec<Packed> {
        let taps = self.taps.len();
        let kernel = |group: usize| {
            let values = &weight.values()[group * self.group_out * taps..(group + 1) * self.group_out * taps];
            if turned {
                Packed::new(taps, self.group_out, |k, o| values[o * taps + k])
            } else {
                Packed::new(self.group_out, taps, |o, k| values[o * taps + k])
            }
        };
        (0..self.groups).map(kernel).collect()
    }

    /// Where in the frame the windows of [`PANEL`] positions begin; the last one again where there are fewer.
    fn corners(&self, first: usize) -> [usize; PANEL] {
        let last = self.positions().saturating_sub(1);
        std::array::from_fn(|p| {
            let position = (first + p).min(last);
            let (y, x) = (position / self.output[1], position % self.output[1]);
            y * self.strides[0] * self.frame[1] + x * self.strides[1]
        })
    }

    /// `panel[k][p]` = what is under tap `k` of window `p`.
    fn gather(&self, panel: &mut [[f64; PANEL]], frame: &[f64], corners: &[usize; PANEL]) {
        for (column, &tap) in panel.iter_mut().zip(&self.taps) {
            *column = corners.map(|corner| frame[corner + tap]);
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
