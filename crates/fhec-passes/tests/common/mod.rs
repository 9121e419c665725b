//! Builds small tensor graphs with seeded weights and compares their meaning before and after lowering.

use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, Range, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_passes::common_subexpressions::common_subexpressions;
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::Lowering;
use fhec_passes::plan_bsgs::{Counted, plan_bsgs};
use fhec_plan::{Diagonals, Matrix, Weights};

/// A pseudo-random number in [-1, 1).
fn noise(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// A seeded tensor of values in [-1, 1), each exactly an f32.
pub(crate) fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let n: usize = shape.iter().product();
    let values = (0..n as u64).map(|i| f64::from(noise(seed * 1_000_003 + i) as f32)).collect();
    Tensor::new(shape.to_vec(), values)
}

/// A tensor graph under construction.
pub(crate) struct Net {
    graph: Graph,
    seed: u64,
}

#[allow(dead_code, reason = "each test file uses some of the builders")]
impl Net {
    pub(crate) fn new(shape: &[usize]) -> Self {
        let mut graph = Graph { name: "test".into(), ..Graph::default() };
        graph.push(Op::Input { name: "x".into() }, vec![], shape.to_vec(), Origin::named("x"));
        Net { graph, seed: 1 }
    }

    pub(crate) fn input(&self) -> ValueId {
        ValueId(0)
    }

    pub(crate) fn shape(&self, v: ValueId) -> Vec<usize> {
        self.graph.node(v).shape.clone()
    }

    fn constant(&mut self, shape: &[usize]) -> fhec_ir::nn::ConstId {
        self.seed += 1;
        let t = tensor(shape, self.seed);
        self.graph.constant(t)
    }

    pub(crate) fn push(&mut self, op: Op, inputs: &[ValueId]) -> ValueId {
        let shapes: Vec<&[usize]> = inputs.iter().map(|v| self.graph.node(*v).shape.as_slice()).collect();
        let shape =
            fhec_ir::nn::shape::infer(&op, &shapes, &self.graph.constants, &[]).expect("test graphs are well formed");
        let name = format!("{}{}", op.name().to_lowercase(), self.graph.nodes.len());
        self.graph.push(op, inputs.to_vec(), shape, Origin::named(name))
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        self.graph.push(Op::Reshape, vec![x], shape.to_vec(), Origin::named("reshape"))
    }

    pub(crate) fn slice(&mut self, x: ValueId, starts: &[usize], steps: &[i64], shape: &[usize]) -> ValueId {
        let op = Op::Slice { starts: starts.to_vec(), steps: steps.to_vec() };
        self.graph.push(op, vec![x], shape.to_vec(), Origin::named("slice"))
    }

    pub(crate) fn dense(&mut self, x: ValueId, rows: usize) -> ValueId {
        let inner = *self.shape(x).last().expect("has a last axis");
        let weight = self.constant(&[rows, inner]);
        let bias = Some(self.constant(&[rows]));
        self.push(Op::Dense { weight, bias }, &[x])
    }

    #[allow(clippy::too_many_arguments, reason = "a convolution has that many attributes")]
    pub(crate) fn conv(
        &mut self,
        x: ValueId,
        out: usize,
        kernel: [usize; 2],
        strides: [usize; 2],
        pads: [usize; 4],
        dilations: [usize; 2],
        groups: usize,
    ) -> ValueId {
        let weight = self.constant(&[out, self.shape(x)[1] / groups, kernel[0], kernel[1]]);
        let bias = Some(self.constant(&[out]));
        self.push(Op::Conv(Conv { weight, bias, strides, pads, dilations, groups }), &[x])
    }

    pub(crate) fn average_pool(
        &mut self,
        x: ValueId,
        kernel: [usize; 2],
        strides: [usize; 2],
        pads: [usize; 4],
        counted: bool,
    ) -> ValueId {
        let counted_pads = if counted { pads } else { [0; 4] };
        self.push(Op::AveragePool(Pool { kernel, strides, pads, dilations: [1, 1], counted_pads }), &[x])
    }

    pub(crate) fn square(&mut self, x: ValueId) -> ValueId {
        self.power(x, 2)
    }

    pub(crate) fn power(&mut self, x: ValueId, exponent: u32) -> ValueId {
        self.push(Op::Activation(Activation::Power { exponent }), &[x])
    }

    /// A polynomial on the range that its operand turns out to have.
    pub(crate) fn polynomial(&mut self, x: ValueId, chebyshev: &[f64]) -> ValueId {
        let interval = Range { lo: -1.0, hi: 1.0 };
        self.push(Op::Polynomial { chebyshev: chebyshev.to_vec(), interval, label: "test".into() }, &[x])
    }

    pub(crate) fn add_const(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        let c = self.constant(shape);
        self.push(Op::AddConst(c), &[x])
    }

    pub(crate) fn mul_const(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        let c = self.constant(shape);
        self.push(Op::MulConst(c), &[x])
    }

    /// Batch normalization with seeded statistics.
    pub(crate) fn batch_norm(&mut self, x: ValueId) -> ValueId {
        let channels = self.shape(x)[1];
        let [scale, bias, mean] = [0; 3].map(|_: usize| self.constant(&[channels]));
        let variance = self.graph.constant(tensor(&[channels], self.seed + 500).map(|v| 1.5 + v));
        self.push(Op::BatchNorm { scale, bias, mean, variance, epsilon: 1e-5 }, &[x])
    }

    /// Adds a given constant.
    pub(crate) fn plus(&mut self, x: ValueId, by: Tensor) -> ValueId {
        let c = self.graph.constant(by);
        self.push(Op::AddConst(c), &[x])
    }

    /// Multiplies by a given constant.
    pub(crate) fn times(&mut self, x: ValueId, by: Tensor) -> ValueId {
        let c = self.graph.constant(by);
        self.push(Op::MulConst(c), &[x])
    }

    pub(crate) fn output(&mut self, value: ValueId) {
        self.graph.outputs.push(Output { name: format!("y{}", self.graph.outputs.len()), value });
    }

    /// The graph, with ranges (and polynomial intervals) from seeded inputs.
    pub(crate) fn finish(self) -> Graph {
        let mut graph = self.graph;
        for at in 0..graph.nodes.len() {
            // Values up to here do not depend on later intervals.
            let mut head = graph.clone();
            head.nodes.truncate(at + 1);
            head.outputs = vec![Output { name: "y".into(), value: ValueId(at as u32) }];
            let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
            for seed in 0..3 {
                let x = tensor(&graph.nodes[0].shape, 100 + seed);
                let y = Interpreter::new(&head).expect("valid").run(&[x]).expect("runs");
                lo = y[0].values().iter().copied().fold(lo, f64::min);
                hi = y[0].values().iter().copied().fold(hi, f64::max);
            }
            let range = Range { lo, hi };
            graph.nodes[at].range = Some(range);
            for user in graph.nodes.iter_mut().filter(|n| n.inputs.contains(&ValueId(at as u32))) {
                if let Op::Polynomial { interval, .. } = &mut user.op {
                    *interval = if lo < hi { range } else { Range { lo: lo - 1.0, hi: hi + 1.0 } };
                }
            }
        }
        graph
    }
}

/// Both tensor graphs mean the same.
#[allow(dead_code, reason = "each test file uses some of the helpers")]
pub(crate) fn same_meaning(a: &Graph, b: &Graph) {
    for seed in 0..3 {
        let x = tensor(&a.nodes[0].shape, 200 + seed);
        let run = |g: &Graph| {
            let interpreter = Interpreter::new(g).unwrap_or_else(|e| panic!("{e}\n{g}"));
            interpreter.run(std::slice::from_ref(&x)).expect("runs")
        };
        for (x, y) in run(a).iter().zip(run(b)) {
            assert_eq!(x.shape(), y.shape());
            let size = x.values().iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            for (p, q) in x.values().iter().zip(y.values()) {
                assert!((p - q).abs() < 1e-11 * size, "{p} became {q} of {size}\n{a}\n{b}");
            }
        }
    }
}

/// Lowers for `slots` and compares; returns the planned graph.
#[allow(dead_code, reason = "each test file uses some of the helpers")]
pub(crate) fn check(net: Net, slots: usize) -> he::Graph {
    check_all(net, &[slots])
}

/// Lowers for every slot count and compares; returns the graph of the last.
#[allow(dead_code, reason = "each test file uses some of the helpers")]
pub(crate) fn check_all(net: Net, slots: &[usize]) -> he::Graph {
    let graph = net.finish();
    let lowering = Lowering::new(&graph).unwrap_or_else(|e| panic!("{e}"));
    let mut last = None;
    for &slots in slots {
        let he = lowering.pack(slots, &LinearCost::default()).unwrap_or_else(|e| panic!("{e}"));
        compare(&graph, &he);
        let he = common_subexpressions(&plan_bsgs(&he, |_| LinearCost::default().bsgs, &Counted::default()));
        compare(&graph, &he);
        last = Some(he);
    }
    last.expect("at least one slot count")
}

/// Both graphs mean the same, and what the ciphertext graph states holds.
pub(crate) fn compare(graph: &Graph, he: &he::Graph) {
    he::verify(he).unwrap_or_else(|e| panic!("{e}\n{he}"));
    for seed in 0..3 {
        let x = tensor(&graph.nodes[0].shape, 100 + seed);
        let want = Interpreter::new(graph).expect("valid").run(std::slice::from_ref(&x)).expect("runs");
        let got = he::interpret(he, std::slice::from_ref(&x)).expect("runs");
        for (w, g) in want.iter().zip(&got) {
            assert_eq!(w.shape(), g.shape());
            let size = w.values().iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            for (a, b) in w.values().iter().zip(g.values()) {
                assert!((a - b).abs() < 1e-9 * size, "{a} became {b} of {size}\n{graph}\n{he}");
            }
        }
        facts_hold(he, &x);
    }
}

fn facts_hold(he: &he::Graph, x: &Tensor) {
    let values = he::interpret_slots(he, std::slice::from_ref(x)).expect("runs");
    let weights = he::interpret::weights(he);
    for (node, value) in he.nodes.iter().zip(&values) {
        let layout = &node.layout;
        assert_eq!(value.len(), layout.ciphertexts);
        let mut used = vec![false; layout.ciphertexts * layout.slots];
        for at in layout.positions() {
            used[at] = true;
        }
        for (c, slots) in value.iter().enumerate() {
            for (k, &v) in slots.iter().enumerate() {
                assert!((v - slots[k % layout.period]).abs() < 1e-9 * v.abs().max(1.0), "not periodic:\n{he}");
                // Blank slots count for magnitudes too.
                let most = node.range.lo.abs().max(node.range.hi.abs());
                assert!(v.abs() <= most * (1.0 + 1e-6) + 1e-6, "{v} in a slot of {node}\n{he}");
                if used[c * layout.slots + k % layout.period] {
                    let slack = 1e-6 * (node.range.hi - node.range.lo).max(1e-3);
                    assert!(v >= node.range.lo - slack && v <= node.range.hi + slack, "{v} not in range of {node}");
                } else if layout.clean {
                    assert!(v.abs() < 1e-9, "a clean slot holds {v}: {node}\n{he}");
                }
            }
        }
        if let he::Op::LinearMap { terms, .. } = &node.op {
            for (term, input) in terms.iter().zip(&node.inputs) {
                diagonals_agree(&he.matrices[term.matrix.index()], &weights, &values[input.index()]);
            }
        }
    }
}

/// The diagonals compute what the loop nests mean.
fn diagonals_agree(m: &Matrix, weights: &Weights, input: &[Vec<f64>]) {
    let diagonals = Diagonals::of(m);
    let counted = fhec_passes::layouts::diagonals::indices(m);
    let listed = |k: &fhec_plan::DiagonalKey| {
        counted.iter().any(|d| {
            (d.out_block, d.in_block, d.index) == (k.out_block as usize, k.in_block as usize, i64::from(k.index))
        })
    };
    assert!(diagonals.keys().iter().all(listed), "a diagonal is not counted");
    assert!(counted.len() <= 2 * diagonals.len() + 16, "{} diagonals, {} counted", diagonals.len(), counted.len());
    let tensors = Diagonals::tensors(m, weights);
    let n = m.diagonal_period();
    let mut acc = vec![vec![0.0; n]; m.out_ciphertexts];
    let mut d = vec![0.0; n];
    if let Some(rows) = diagonals.rows() {
        for (row, sum) in acc.iter_mut().enumerate() {
            rows.for_each(m, &tensors, row as u32, |col, weight| sum[0] += weight * input[col as usize][0]);
        }
    }
    for (at, key) in diagonals.keys().iter().enumerate() {
        diagonals.fill(m, &tensors, at, &mut d);
        let x = &input[key.in_block as usize];
        for k in 0..n {
            acc[key.out_block as usize][k] += d[k] * x[(k + key.index as usize) % m.in_period];
        }
    }
    for step in m.fold_steps() {
        for a in &mut acc {
            let old = a.clone();
            for k in 0..n {
                a[k] += old[(k + step) % n];
            }
        }
    }
    let want = m.apply(weights, input);
    for (a, w) in acc.iter().zip(&want) {
        for (x, y) in a[..m.out_period].iter().zip(w) {
            assert!((x - y).abs() < 1e-8 * y.abs().max(1.0), "diagonals give {x}, nests {y}");
        }
    }
}
