//! Gradients agree with differences of values, for every operation.

use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, Range, ValueId, shape};
use fhec_ir::{Origin, Tensor};

fn wave(shape: &[usize], frequency: f64) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| (i as f64 * frequency + 0.3).sin()).collect())
}

/// A graph of one operation on inputs of the given shapes.
fn graph(op: impl Fn(&mut Graph) -> Op, inputs: &[&[usize]], stated: &[usize]) -> Graph {
    let mut g = Graph { name: "g".into(), ..Graph::default() };
    let op = op(&mut g);
    let ids: Vec<ValueId> = inputs
        .iter()
        .enumerate()
        .map(|(i, s)| g.push(Op::Input { name: format!("x{i}") }, vec![], s.to_vec(), Origin::named("x")))
        .collect();
    let shape = shape::infer(&op, inputs, &g.constants, stated).expect("fits");
    let value = g.push(op, ids, shape, Origin::named("y"));
    g.outputs.push(Output { name: "y".into(), value });
    g
}

/// Compares the gradient of a fixed combination of all outputs with central differences.
fn check(g: &Graph) {
    let op = g.node(g.outputs[0].value).op.name();
    let interpreter = Interpreter::new(g).expect("valid");
    let inputs: Vec<Tensor> =
        g.inputs().iter().enumerate().map(|(i, &v)| wave(&g.node(v).shape, 0.7 + 0.4 * i as f64)).collect();
    let seed = wave(&g.node(g.outputs[0].value).shape, 1.9);
    let quantity = |inputs: &[Tensor]| -> f64 {
        let y = interpreter.run(inputs).expect("fits");
        y[0].values().iter().zip(seed.values()).map(|(a, b)| a * b).sum()
    };
    let values = interpreter.run_all(&inputs).expect("fits");
    let mut seen = Vec::new();
    interpreter.pull_back(&values, [(g.outputs[0].value, seed.clone())], |id, gradient| {
        seen.push(id);
        let Some(k) = g.inputs().iter().position(|&v| v == id) else { return };
        assert_eq!(gradient.shape(), inputs[k].shape(), "{op}");
        for i in 0..gradient.len() {
            let moved = |by: f64| {
                let mut values = inputs[k].values().to_vec();
                values[i] += by;
                let mut all = inputs.clone();
                all[k] = Tensor::new(inputs[k].shape().to_vec(), values);
                quantity(&all)
            };
            let step = 1e-5;
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let found = gradient.values()[i];
            assert!((found - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{op}, input {k}[{i}]: {found}, not {slope}");
        }
    });
    assert!(seen.is_sorted_by(|a, b| a > b), "{op}: {seen:?}");
    assert_eq!(seen.len(), g.nodes.len(), "{op}");
}

#[test]
fn every_operation_is_transposed() {
    let pool =
        Pool { kernel: [2, 3], strides: [1, 2], pads: [1, 0, 0, 1], dilations: [2, 1], counted_pads: [1, 0, 0, 0] };
    let image: &[usize] = &[2, 4, 5, 6];
    let only = |op: Op| move |_: &mut Graph| op.clone();
    let conv = |groups: usize, strides: [usize; 2], pads: [usize; 4], dilations: [usize; 2]| {
        move |g: &mut Graph| {
            let (weight, bias) = (g.constant(wave(&[6, 4 / groups, 3, 2], 1.3)), g.constant(wave(&[6], 0.9)));
            Op::Conv(Conv { weight, bias: Some(bias), strides, pads, dilations, groups })
        }
    };
    check(&graph(conv(1, [1, 1], [1, 1, 1, 0], [1, 1]), &[image], &[]));
    check(&graph(conv(2, [2, 3], [2, 0, 1, 3], [1, 2]), &[image], &[]));
    check(&graph(
        |g| {
            let (weight, bias) = (g.constant(wave(&[5, 6], 1.1)), g.constant(wave(&[5], 0.4)));
            Op::Dense { weight, bias: Some(bias) }
        },
        &[image],
        &[],
    ));
    check(&graph(
        |g| {
            let [scale, bias, mean] = [0.5, 0.8, 1.2].map(|f| g.constant(wave(&[4], f)));
            let variance = g.constant(wave(&[4], 0.6).map(|v| 1.5 + v));
            Op::BatchNorm { scale, bias, mean, variance, epsilon: 1e-3 }
        },
        &[image],
        &[],
    ));
    for op in [Op::Add, Op::Sub, Op::Mul] {
        check(&graph(only(op.clone()), &[image, image], &[]));
        check(&graph(only(op), &[image, &[4, 1, 6]], &[]));
    }
    check(&graph(|g| Op::AddConst(g.constant(wave(&[4, 1, 1], 0.8))), &[image], &[]));
    check(&graph(|g| Op::MulConst(g.constant(wave(&[2, 4, 5, 6], 0.8))), &[&[4, 1, 6]], &[]));
    check(&graph(|g| Op::PRelu { slope: g.constant(wave(&[4, 1, 1], 0.8)) }, &[image], &[]));
    check(&graph(only(Op::AveragePool(pool.clone())), &[image], &[]));
    check(&graph(only(Op::MaxPool(Pool { counted_pads: [0; 4], ..pool })), &[image], &[]));
    for keep in [false, true] {
        check(&graph(only(Op::ReduceSum { axes: vec![0, 2], keep }), &[image], &[]));
        check(&graph(only(Op::ReduceMean { axes: vec![1, 3], keep }), &[image], &[]));
    }
    check(&graph(only(Op::Reshape), &[image], &[8, 30]));
    check(&graph(only(Op::Transpose { perm: vec![2, 0, 3, 1] }), &[image], &[]));
    check(&graph(only(Op::Concat { axis: 1 }), &[image, &[2, 1, 5, 6]], &[]));
    check(&graph(only(Op::Slice { starts: vec![1, 3, 0, 1], steps: vec![1, -2, 2, 1] }), &[image], &[1, 2, 3, 4]));
    let pad = Op::Pad { before: vec![0, -1, 2, 0], after: vec![1, 0, -1, -2], value: 3.0 };
    check(&graph(only(pad), &[image], &[]));
    check(&graph(only(Op::Softmax { axis: 1 }), &[image], &[]));
    let interval = Range { lo: -2.0, hi: 1.5 };
    let chebyshev = vec![0.3, -1.0, 0.5, 0.2, -0.7];
    check(&graph(only(Op::Polynomial { chebyshev, interval, label: "p".into() }), &[image], &[]));
    for f in [Activation::Relu, Activation::Gelu { tanh: false }, Activation::Power { exponent: 3 }] {
        check(&graph(only(Op::Activation(f)), &[image], &[]));
    }
}

#[test]
fn gradients_of_shared_values_add_up() {
    // y = x² + x, and nothing comes back from what the quantity does not depend on.
    let mut g = Graph { name: "g".into(), ..Graph::default() };
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1], Origin::named("x"));
    let square = g.push(Op::Mul, vec![x, x], vec![1], Origin::named("square"));
    let y = g.push(Op::Add, vec![square, x], vec![1], Origin::named("y"));
    let other = g.push(Op::Activation(Activation::Exp), vec![x], vec![1], Origin::named("other"));
    for (name, value) in [("y", y), ("other", other)] {
        g.outputs.push(Output { name: name.into(), value });
    }
    let interpreter = Interpreter::new(&g).expect("valid");
    let values = interpreter.run_all(&[Tensor::new(vec![1], vec![3.0])]).expect("fits");
    let mut found = Vec::new();
    interpreter.pull_back(&values, [(y, Tensor::new(vec![1], vec![10.0]))], |id, g| found.push((id, g.values()[0])));
    assert_eq!(found, [(y, 10.0), (square, 10.0), (x, 70.0)]);
}
