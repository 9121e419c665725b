//! Composition of sliding windows: pooling after convolution, convolution after pooling, and two
//! convolutions, as one convolution.

use fhec_ir::Tensor;
use fhec_ir::nn::{Conv, Graph, Op, Pool, ValueId};

/// A convolution with its weights at hand.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// `[c_out, c_in / groups, kh, kw]`.
    weight: Tensor,
    bias: Option<Vec<f64>>,
    groups: usize,
    strides: [usize; 2],
    pads: [usize; 4],
    dilations: [usize; 2],
    /// Height and width of input and output.
    input: [usize; 2],
    output: [usize; 2],
}

impl Window {
    /// The window operation of node `v`; `None` for others, and for poolings whose divisor varies.
    pub(super) fn of(graph: &Graph, v: ValueId) -> Option<Self> {
        let node = graph.node(v);
        let (&[1, channels, h, w], &[1, _, oh, ow]) =
            (graph.node(*node.inputs.first()?).shape.as_slice(), node.shape.as_slice())
        else {
            return None;
        };
        let (input, output) = ([h, w], [oh, ow]);
        match &node.op {
            Op::Conv(Conv { weight, bias, strides, pads, dilations, groups }) => Some(Window {
                weight: graph.tensor(*weight).clone(),
                bias: bias.map(|b| graph.tensor(b).values().to_vec()),
                groups: *groups,
                strides: *strides,
                pads: *pads,
                dilations: *dilations,
                input,
                output,
            }),
            Op::AveragePool(pool) if full_windows(pool, input, output) => {
                let [kh, kw] = pool.kernel;
                Some(Window {
                    weight: Tensor::full(vec![channels, 1, kh, kw], 1.0 / (kh * kw) as f64),
                    bias: None,
                    groups: channels,
                    strides: pool.strides,
                    pads: pool.pads,
                    dilations: pool.dilations,
                    input,
                    output,
                })
            }
            _ => None,
        }
    }

    fn kernel(&self, d: usize) -> usize {
        self.weight.shape()[2 + d]
    }

    fn channels(&self) -> (usize, usize) {
        (self.weight.shape()[1] * self.groups, self.weight.shape()[0])
    }

    /// Input index of tap 0 of output 0.
    fn first(&self, d: usize) -> i64 {
        -(self.pads[d] as i64)
    }

    /// Distance from the first to the last tap.
    fn span(&self, d: usize) -> i64 {
        (self.dilations[d] * (self.kernel(d) - 1)) as i64
    }

    /// True when no window reaches past the input along `d`.
    fn inside(&self, d: usize) -> bool {
        let last = ((self.output[d] - 1) * self.strides[d]) as i64 + self.first(d) + self.span(d);
        self.first(d) >= 0 && last < self.input[d] as i64
    }

    /// True when outputs that would lie before the first or after the last one see padding only, so
    /// that padding this output with zeros is what a larger output would have held.
    fn vanishes_outside(&self, d: usize) -> bool {
        let stride = self.strides[d] as i64;
        let before = -stride + self.first(d) + self.span(d);
        let after = stride * self.output[d] as i64 + self.first(d);
        before < 0 && after >= self.input[d] as i64
    }

    /// `outer ∘ self`, where `outer` reads the output of `self`; `None` where one convolution cannot say
    /// that exactly.
    pub(super) fn then(&self, outer: &Window) -> Option<Window> {
        let inner = self;
        for d in 0..2 {
            let padded = !outer.inside(d);
            if padded && (inner.bias.is_some() || !inner.vanishes_outside(d)) {
                return None;
            }
        }
        let steps = [0, 1].map(|d| {
            let (a, b) = (inner.dilations[d], inner.strides[d] * outer.dilations[d]);
            match (inner.kernel(d), outer.kernel(d)) {
                (1, 1) => 1,
                (_, 1) => a,
                (1, _) => b,
                _ => gcd(a, b),
            }
        });
        // Positions of the taps, in units of the common dilation.
        let at = |d: usize, k1: usize, k2: usize| {
            (k1 * inner.dilations[d] + k2 * inner.strides[d] * outer.dilations[d]) / steps[d]
        };
        let kernel = [0, 1].map(|d| at(d, inner.kernel(d) - 1, outer.kernel(d) - 1) + 1);
        let (cin, mid) = inner.channels();
        let (_, cout) = outer.channels();
        let depthwise = |w: &Window, channels: usize| w.groups == channels && w.weight.shape()[0] == channels;
        let (inner_each, outer_each) = (depthwise(inner, mid) && cin == mid, depthwise(outer, mid) && cout == mid);
        let groups = match (inner_each, outer_each) {
            (true, _) => outer.groups,
            (_, true) => inner.groups,
            _ if inner.groups == 1 && outer.groups == 1 => 1,
            _ => return None,
        };
        let per_in = cin / groups;
        let mut weight = vec![0.0; cout * per_in * kernel[0] * kernel[1]];
        let (outer_in, inner_in) = (outer.weight.shape()[1], inner.weight.shape()[1]);
        let taps = |w: &Window| {
            let (kh, kw) = (w.kernel(0), w.kernel(1));
            (0..kh).flat_map(move |y| (0..kw).map(move |x| (y, x))).collect::<Vec<_>>()
        };
        let (inner_taps, outer_taps) = (taps(inner), taps(outer));
        let mut bias = vec![0.0; cout];
        for o in 0..cout {
            for m2 in 0..outer_in {
                // The channel between, and its number among the outer filter's.
                let m = o / (cout / outer.groups) * outer_in + m2;
                for (t2, &(y2, x2)) in outer_taps.iter().enumerate() {
                    let w2 = outer.weight.values()[(o * outer_in + m2) * outer_taps.len() + t2];
                    if let Some(b) = &inner.bias {
                        bias[o] += w2 * b[m];
                    }
                    for i1 in 0..inner_in {
                        let i = m / (mid / inner.groups) * inner_in + i1;
                        let in_group = i - o / (cout / groups) * per_in;
                        for (t1, &(y1, x1)) in inner_taps.iter().enumerate() {
                            let w1 = inner.weight.values()[(m * inner_in + i1) * inner_taps.len() + t1];
                            let tap = at(0, y1, y2) * kernel[1] + at(1, x1, x2);
                            weight[(o * per_in + in_group) * kernel[0] * kernel[1] + tap] += w1 * w2;
                        }
                    }
                }
            }
        }
        if let Some(b) = &outer.bias {
            for (sum, b) in bias.iter_mut().zip(b) {
                *sum += b;
            }
        }
        let mut pads = [0; 4];
        let mut strides = [0; 2];
        for d in 0..2 {
            strides[d] = inner.strides[d] * outer.strides[d];
            pads[d] = inner.strides[d] * outer.pads[d] + inner.pads[d];
            let reach = strides[d] * (outer.output[d] - 1) + steps[d] * (kernel[d] - 1) + 1;
            pads[2 + d] = reach.saturating_sub(inner.input[d] + pads[d]);
            let padded = inner.input[d] + pads[d] + pads[2 + d];
            let extent = (padded - steps[d] * (kernel[d] - 1) - 1) / strides[d] + 1;
            if extent != outer.output[d] {
                return None;
            }
        }
        let any_bias = inner.bias.is_some() || outer.bias.is_some();
        Some(Window {
            weight: Tensor::new(vec![cout, per_in, kernel[0], kernel[1]], weight),
            bias: any_bias.then_some(bias),
            groups,
            strides,
            pads,
            dilations: steps,
            input: inner.input,
            output: outer.output,
        })
    }

    /// Number of weights.
    pub(super) fn weights(&self) -> usize {
        self.weight.len()
    }

    /// The convolution as an operation of `graph`.
    pub(super) fn op(self, graph: &mut Graph) -> Op {
        let weight = graph.constant(self.weight);
        let bias = self.bias.map(|b| graph.constant(Tensor::new(vec![b.len()], b)));
        Op::Conv(Conv {
            weight,
            bias,
            strides: self.strides,
            pads: self.pads,
            dilations: self.dilations,
            groups: self.groups,
        })
    }
}

/// True when every window has the same divisor: all of it is real or counted.
fn full_windows(pool: &Pool, input: [usize; 2], output: [usize; 2]) -> bool {
    (0..2).all(|d| {
        let first = -(pool.pads[d] as i64);
        let last = ((output[d] - 1) * pool.strides[d] + (pool.kernel[d] - 1) * pool.dilations[d]) as i64 + first;
        first >= -(pool.counted_pads[d] as i64) && last < (input[d] + pool.counted_pads[2 + d]) as i64
    })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
