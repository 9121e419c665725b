//! What the errors of all rounds do to the outputs of the network: it is run with them, on samples.

use super::sides::Side;
use super::split::Split;
use fhec_ir::Tensor;
use fhec_ir::nn::interpret::eval;
use fhec_ir::nn::{Graph, Op};

/// Errors and spans of the outputs of the network.
#[derive(Clone, Debug)]
pub(super) struct Errors {
    /// Root mean square of the error of each output.
    pub(super) std: Vec<f64>,
    /// Bits of the span of the worst output that are right.
    pub(super) bits: f64,
}

/// Independent normal numbers from a fixed sequence.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        // xorshift64: any sequence will do.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box–Muller.
    fn next(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// All values of a run in which the client sees values of the server with errors of the given deviations, by output of the
/// server's part.
fn run(graph: &Graph, split: &Split, inputs: &[Tensor], std: &[f64], normal: &mut Normal) -> Vec<Tensor> {
    // What the server has, and what the client sees of it.
    let (mut there, mut seen): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
    let mut given = inputs.iter();
    for id in graph.ids() {
        let node = graph.node(id);
        let own = match (&node.op, given.as_slice()) {
            (Op::Input { .. }, [_, ..]) => given.next().cloned().unwrap_or_else(|| Tensor::scalar(0.0)),
            _ => {
                let from = if split.sides.of[id.index()] == Side::Client { &seen } else { &there };
                let operands: Vec<&Tensor> = node.inputs.iter().map(|v| &from[v.index()]).collect();
                eval(&node.op, &operands, &graph.constants, &node.shape)
            }
        };
        let error = split.sides.received.iter().position(|v| *v == id).map_or(0.0, |k| std[k]);
        seen.push(if error > 0.0 {
            let values = own.values().iter().map(|v| v + error * normal.next()).collect();
            Tensor::new(own.shape().to_vec(), values)
        } else {
            own.clone()
        });
        there.push(own);
    }
    graph.outputs.iter().map(|o| seen[o.value.index()].clone()).collect()
}

/// Errors of the outputs on samples, where what the client receives has errors of deviations `std`.
pub(super) fn measure(graph: &Graph, split: &Split, samples: &[Vec<Tensor>], std: &[f64]) -> Errors {
    let outputs = graph.outputs.len();
    let (mut squares, mut counts) = (vec![0.0f64; outputs], vec![0usize; outputs]);
    let mut spans = vec![(f64::INFINITY, f64::NEG_INFINITY); outputs];
    let mut normal = Normal(0x9e37_79b9_7f4a_7c15);
    for inputs in samples {
        let exact = run(graph, split, inputs, &vec![0.0; std.len()], &mut normal);
        let disturbed = run(graph, split, inputs, std, &mut normal);
        for (k, (a, b)) in exact.iter().zip(&disturbed).enumerate() {
            for (x, y) in a.values().iter().zip(b.values()) {
                squares[k] += (x - y) * (x - y);
                counts[k] += 1;
                spans[k] = (spans[k].0.min(*x), spans[k].1.max(*x));
            }
        }
    }
    let std: Vec<f64> = squares.iter().zip(&counts).map(|(s, &n)| (s / n.max(1) as f64).sqrt()).collect();
    let bits = |(error, (lo, hi)): (&f64, &(f64, f64))| if *error > 0.0 { ((hi - lo) / error).log2() } else { 64.0 };
    let bits = std.iter().zip(&spans).map(bits).fold(64.0, f64::min);
    Errors { std, bits }
}
