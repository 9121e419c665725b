//! Ciphertext graphs written by hand.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use fhec_ir::he::{Graph, Input, LinearTerm, Node, Op, Output, ValueId};
use fhec_ir::nn::Range;
use fhec_ir::{Origin, Tensor};
use fhec_plan::{Layout, Matrix, Nest, NestDim, Offsets, Vector};

/// Deterministic values in [-1, 1).
pub fn random(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Builds graphs.
pub struct Builder {
    pub graph: Graph,
}

impl Builder {
    pub fn new(slots: usize) -> Self {
        Builder { graph: Graph { name: "test".into(), slots, ..Graph::default() } }
    }

    pub fn push(&mut self, op: Op, inputs: &[ValueId], layout: Layout, bound: f64, name: &str) -> ValueId {
        let kind = op.name().to_string();
        let range = Range { lo: -bound, hi: bound };
        self.graph.push(Node { op, inputs: inputs.to_vec(), layout, range, origin: Origin::named(name), kind })
    }

    pub fn input(&mut self, n: usize) -> ValueId {
        let slots = self.graph.slots;
        let index = self.graph.inputs.len();
        let range = Range { lo: -1.0, hi: 1.0 };
        self.graph.inputs.push(Input { name: format!("x{index}"), shape: vec![1, n], factor: 1.0, range });
        let layout = Layout::dense(n, slots, n.next_power_of_two());
        self.push(Op::Input(index), &[], layout, 1.0, &format!("x{index}"))
    }

    /// A dense layer with random weights of unit row norm and a bias; `bound` on the result.
    pub fn dense(&mut self, x: ValueId, rows: usize, bound: f64, name: &str) -> ValueId {
        let slots = self.graph.slots;
        let from = self.graph.node(x).layout.clone();
        let cols = from.elements();
        let seed = self.graph.tensors.len() as u64 + 7;
        let scale = (3.0 / cols as f64).sqrt();
        let weights = random(seed, rows * cols).iter().map(|w| w * scale).collect();
        let tensor = self.graph.tensor(Tensor::new(vec![rows, cols], weights));
        let bias =
            self.graph.tensor(Tensor::new(vec![rows], random(seed + 100, rows).iter().map(|b| b * 0.1).collect()));
        let dim = |extent, row, col, weight| NestDim {
            extent,
            row: Offsets::Stride(row),
            col: Offsets::Stride(col),
            weight: Offsets::Stride(weight),
        };
        let nest =
            |dims, tensor| Nest { dims, row: 0, col: 0, weight: 0, tensor: Some(tensor), factor: 1.0, guards: vec![] };
        let layout = Layout::dense(rows, slots, rows.next_power_of_two());
        let matrix = self.graph.matrix(Matrix {
            slots,
            in_ciphertexts: 1,
            in_period: from.period,
            out_ciphertexts: 1,
            out_period: layout.period,
            nests: vec![nest(vec![dim(rows, 1, 0, cols as i64), dim(cols, 0, 1, 1)], tensor)],
        });
        let bias = self.graph.vector(Vector {
            slots,
            ciphertexts: 1,
            period: layout.period,
            nests: vec![nest(vec![dim(rows, 1, 0, 1)], bias)],
        });
        let baby = 1 << (from.period.min(layout.period).ilog2() / 2 + 1);
        let terms = vec![LinearTerm { matrix, baby }];
        self.push(Op::LinearMap { terms, bias: Some(bias), out_scale: None }, &[x], layout, bound, name)
    }

    pub fn unary(&mut self, op: Op, x: ValueId, bound: f64, name: &str) -> ValueId {
        let layout = self.graph.node(x).layout.clone();
        self.push(op, &[x], layout, bound, name)
    }

    pub fn binary(&mut self, op: Op, x: ValueId, y: ValueId, bound: f64, name: &str) -> ValueId {
        let layout = self.graph.node(x).layout.clone();
        self.push(op, &[x, y], layout, bound, name)
    }

    pub fn square(&mut self, x: ValueId, bound: f64, name: &str) -> ValueId {
        self.binary(Op::Mul, x, x, bound, name)
    }

    pub fn output(&mut self, value: ValueId) {
        let shape = vec![1, self.graph.node(value).layout.elements()];
        let name = format!("y{}", self.graph.outputs.len());
        self.graph.outputs.push(Output { name, shape, value, factor: 1.0, postprocess: vec![] });
    }

    /// Random inputs.
    pub fn samples(&self, count: u64) -> Vec<Vec<Tensor>> {
        let one = |s: u64| {
            let tensor = |(i, input): (usize, &Input)| {
                let n = input.shape.iter().product();
                Tensor::new(input.shape.clone(), random(1000 * s + i as u64 + 1, n))
            };
            self.graph.inputs.iter().enumerate().map(tensor).collect()
        };
        (0..count).map(one).collect()
    }
}

/// 784-128-128-10 with squares: depth 5.
pub fn mlp(slots: usize) -> Builder {
    let mut b = Builder::new(slots);
    let x = b.input(784);
    let h = b.dense(x, 128, 4.0, "fc1");
    let h = b.square(h, 16.0, "square1");
    let h = b.dense(h, 128, 10.0, "fc2");
    let h = b.square(h, 100.0, "square2");
    let y = b.dense(h, 10, 40.0, "fc3");
    b.output(y);
    b
}
