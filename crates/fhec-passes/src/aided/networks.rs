//! Small networks for the tests of what hides channels.

use fhec_ir::nn::{Activation, ConstId, Conv, Graph, Interpreter, Op, Output, Pool, ValueId};
use fhec_ir::{Origin, Tensor, nn};

pub(super) fn wave(shape: &[usize], seed: f64) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| ((i as f64 + 17.0 * seed) * 0.731).sin()).collect())
}

pub(super) fn pool(kernel: usize) -> Pool {
    let four = [0; 4];
    Pool { kernel: [kernel; 2], strides: [kernel; 2], pads: four, dilations: [1; 2], counted_pads: four }
}

/// A network that is being built.
pub(super) struct Net(pub(super) Graph);

impl Net {
    /// A network of one input.
    pub(super) fn new(shape: &[usize]) -> (Self, ValueId) {
        let mut net = Net(Graph::default());
        let x = net.0.push(Op::Input { name: "x".into() }, vec![], shape.to_vec(), Origin::named("x"));
        (net, x)
    }

    pub(super) fn shape(&self, v: ValueId) -> Vec<usize> {
        self.0.node(v).shape.clone()
    }

    /// A constant unlike all others.
    pub(super) fn constant(&mut self, shape: &[usize]) -> ConstId {
        let seed = self.0.constants.len() as f64 + 1.0;
        self.0.constant(wave(shape, seed))
    }

    /// A node whose shape follows from its operands.
    pub(super) fn node(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        self.to(op, inputs, &[])
    }

    /// A node whose shape does not.
    pub(super) fn to(&mut self, op: Op, inputs: &[ValueId], stated: &[usize]) -> ValueId {
        let shapes: Vec<&[usize]> = inputs.iter().map(|&v| self.0.node(v).shape.as_slice()).collect();
        let shape = nn::shape::infer(&op, &shapes, &self.0.constants, stated).expect("fits");
        let name = op.name();
        self.0.push(op, inputs.to_vec(), shape, Origin::named(name))
    }

    /// A 3×3 convolution.
    pub(super) fn conv(&mut self, x: ValueId, out: usize, groups: usize) -> ValueId {
        let weight = self.constant(&[out, self.shape(x)[1] / groups, 3, 3]);
        let bias = Some(self.constant(&[out]));
        self.node(Op::Conv(Conv { weight, bias, strides: [1; 2], pads: [1; 4], dilations: [1; 2], groups }), &[x])
    }

    pub(super) fn dense(&mut self, x: ValueId, out: usize) -> ValueId {
        let width = self.shape(x).last().copied().expect("features");
        let (weight, bias) = (self.constant(&[out, width]), Some(self.constant(&[out])));
        self.node(Op::Dense { weight, bias }, &[x])
    }

    pub(super) fn act(&mut self, x: ValueId, f: Activation) -> ValueId {
        self.node(Op::Activation(f), &[x])
    }

    pub(super) fn flat(&mut self, x: ValueId) -> ValueId {
        let features = self.shape(x).iter().product();
        self.to(Op::Reshape, &[x], &[1, features])
    }

    /// The network whose outputs are these values.
    pub(super) fn finish(mut self, outputs: &[ValueId]) -> Graph {
        let named = |(k, &value): (usize, &ValueId)| Output { name: format!("y{k}"), value };
        self.0.outputs = outputs.iter().enumerate().map(named).collect();
        nn::verify(&self.0).expect("sound");
        self.0
    }
}

/// All values for an input that is no constant.
pub(super) fn values(graph: &Graph) -> Vec<Tensor> {
    let x = wave(&graph.node(graph.inputs()[0]).shape, 0.5);
    Interpreter::new(graph).expect("sound").run_all(&[x]).expect("runs")
}

/// The outputs of two networks are the same, but for rounding.
pub(super) fn same_outputs(a: &Graph, b: &Graph) {
    nn::verify(b).expect("sound");
    let (of_a, of_b) = (values(a), values(b));
    for (x, y) in a.outputs.iter().zip(&b.outputs) {
        let (x, y) = (&of_a[x.value.index()], &of_b[y.value.index()]);
        let size = x.values().iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (x, y) in x.values().iter().zip(y.values()) {
            assert!((x - y).abs() <= 1e-9 * size, "{x} became {y} in\n{a}");
        }
    }
}

/// Two convolutions with a residual sum, a grouped one, a pooling, a concatenation, and a dense layer.
pub(super) fn residual(f: &Activation) -> Graph {
    let (mut n, x) = Net::new(&[1, 3, 6, 6]);
    let a = n.conv(x, 8, 1);
    let a = n.act(a, f.clone());
    let b = n.conv(a, 8, 2);
    let sum = n.node(Op::Add, &[b, a]);
    let sum = n.act(sum, f.clone());
    let c = n.conv(sum, 6, 1);
    let c = n.act(c, f.clone());
    let both = n.node(Op::Concat { axis: 1 }, &[sum, c]);
    let pooled = n.node(Op::MaxPool(pool(2)), &[both]);
    let flat = n.flat(pooled);
    let y = n.dense(flat, 5);
    n.finish(&[y])
}

/// Anything that fits, put together by a seed.
pub(super) fn any(seed: u64) -> Graph {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    let (mut n, x) = Net::new(&[1, 4, 4, 4]);
    let mut made = vec![x];
    for _ in 0..12 {
        let x = made[below(made.len())];
        let shape = n.shape(x);
        let c = shape[1];
        let like: Vec<ValueId> = made.iter().copied().filter(|&v| n.shape(v) == shape).collect();
        let other = like[below(like.len())];
        let any = made[below(made.len())];
        let spatial = shape[2] == 4;
        let v = match below(22) {
            0..4 if spatial => n.conv(x, [4, 6, 8][below(3)], 1),
            4 if spatial && c % 2 == 0 => n.conv(x, [4, 8][below(2)], 2),
            5..7 if spatial => n.conv(x, c, c),
            7 if spatial && c < 10 => n.conv(x, 2 * c, c),
            8 => n.act(x, Activation::Relu),
            9 => n.act(x, Activation::Sigmoid),
            10..13 => n.node([Op::Add, Op::Sub, Op::Mul][below(3)].clone(), &[x, other]),
            13 if c + n.shape(any)[1] <= 20 && n.shape(any)[2] == shape[2] => n.node(Op::Concat { axis: 1 }, &[x, any]),
            14 => {
                let constant = n.constant([&[1, c, 1, 1][..], &[c, 1, 1], &[1, 1, 1, 1]][below(3)]);
                n.node(
                    [Op::AddConst(constant), Op::MulConst(constant), Op::PRelu { slope: constant }][below(3)].clone(),
                    &[x],
                )
            }
            15 if c > 3 => {
                let (start, step) = [(1, 1), (0, 2), (c - 1, -1)][below(3)];
                let op = Op::Slice { starts: vec![0, start, 0, 0], steps: vec![1, step, 1, 1] };
                n.to(op, &[x], &[1, c / 2, shape[2], shape[3]])
            }
            16 if c < 12 => {
                let (before, after) = (vec![0, 1, 0, 0], vec![0, below(3) as i64, 0, 0]);
                n.node(Op::Pad { before, after, value: [0.0, 0.5][below(2)] }, &[x])
            }
            17 => n.node(Op::Softmax { axis: 1 + below(2) }, &[x]),
            18 => n.node(Op::ReduceMean { axes: vec![2, 3], keep: true }, &[x]),
            // A gate for each channel, or for all of them.
            19 if spatial => {
                let axes = if below(2) == 0 { vec![2, 3] } else { vec![1] };
                let gate = n.node(Op::ReduceMean { axes, keep: true }, &[x]);
                n.node(Op::Mul, &[x, gate])
            }
            20 if c % 2 == 0 => n.to(Op::Reshape, &[x], &[1, c / 2, shape[2], 2 * shape[3]]),
            21 => n.node(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[x]),
            _ => continue,
        };
        if n.shape(v)[2..] == [4, 4] || n.shape(v)[2..] == [1, 1] {
            made.push(v);
        }
    }
    // Flattened along channels, or along places first.
    let last = made[made.len() - 1];
    let turned = if below(2) == 0 { n.node(Op::Transpose { perm: vec![0, 2, 3, 1] }, &[last]) } else { last };
    let flat = n.flat(turned);
    let hidden = n.dense(flat, 7);
    let hidden = n.act(hidden, Activation::Tanh);
    let y = n.dense(hidden, 3);
    let also = made[made.len() / 2];
    n.finish(&[y, also])
}
