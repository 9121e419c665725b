//! Small networks with inputs and weights that are the same on every machine.

use fhec_ir::nn::{Graph, Op, Output, ValueId};
use fhec_ir::{Origin, Tensor};

/// A dense layer with weights that are the same on every machine.
pub fn dense(g: &mut Graph, x: ValueId, rows: usize, name: &str) -> ValueId {
    let cols = g.node(x).shape[1];
    let seed = g.constants.len() as f64;
    let wave = |n: usize, amplitude: f64| {
        (0..n).map(|i| f64::from((amplitude * (seed + 1.7 * i as f64).sin()) as f32)).collect::<Vec<f64>>()
    };
    let weight = g.constant(Tensor::new(vec![rows, cols], wave(rows * cols, (2.0 / cols as f64).sqrt())));
    let bias = Some(g.constant(Tensor::new(vec![rows], wave(rows, 0.1))));
    g.push(Op::Dense { weight, bias }, vec![x], vec![1, rows], Origin::named(name))
}

/// An operation on two values of one shape.
pub fn product(g: &mut Graph, op: Op, x: ValueId, y: ValueId, name: &str) -> ValueId {
    let shape = g.node(x).shape.clone();
    g.push(op, vec![x, y], shape, Origin::named(name))
}

/// The only input, of shape `1×width`.
pub fn input(g: &mut Graph, width: usize) -> ValueId {
    g.push(Op::Input { name: "x".into() }, vec![], vec![1, width], Origin::named("x"))
}

/// The graph with its only output.
pub fn finish(mut g: Graph, value: ValueId) -> Graph {
    g.outputs.push(Output { name: "y".into(), value });
    g
}

/// Dense, square, dense: one of everything.
pub fn plain() -> Graph {
    let mut g = Graph { name: "plain".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let h = dense(&mut g, x, 8, "fc1");
    let h = product(&mut g, Op::Mul, h, h, "square");
    let y = dense(&mut g, h, 4, "fc2");
    finish(g, y)
}

/// Eight inputs of the given width that are the same on every machine.
pub fn samples(width: usize) -> Vec<Vec<Tensor>> {
    let one = |s: usize| (0..width).map(|i| (0.37 * (s * width + i) as f64).sin()).collect();
    (0..8).map(|s| vec![Tensor::new(vec![1, width], one(s))]).collect()
}
