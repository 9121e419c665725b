use super::*;
use fhec_ir::Origin;
use fhec_ir::nn::{Interpreter, Output, Pool};

fn wave(shape: &[usize], seed: f64) -> Tensor {
    let n = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| ((i as f64 + seed) * 0.731).sin()).collect())
}

fn conv(g: &mut Graph, x: ValueId, out: usize, groups: usize) -> ValueId {
    let shape = g.node(x).shape.clone();
    let weight = g.constant(wave(&[out, shape[1] / groups, 3, 3], out as f64));
    let bias = Some(g.constant(wave(&[out], 0.3)));
    let op = Op::Conv(Conv { weight, bias, strides: [1; 2], pads: [1; 4], dilations: [1; 2], groups });
    g.push(op, vec![x], vec![1, out, shape[2], shape[3]], Origin::named("conv"))
}

/// Two convolutions with a residual sum, a grouped one, a pooling, a concatenation, and a dense layer.
fn network(activation: Activation) -> Graph {
    let mut g = Graph::default();
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 3, 6, 6], Origin::named("x"));
    let act = |g: &mut Graph, v: ValueId| {
        let shape = g.node(v).shape.clone();
        g.push(Op::Activation(activation.clone()), vec![v], shape, Origin::named("act"))
    };
    let a = conv(&mut g, x, 4, 1);
    let a = act(&mut g, a);
    let b = conv(&mut g, a, 4, 2);
    let sum = g.push(Op::Add, vec![b, a], vec![1, 4, 6, 6], Origin::named("add"));
    let sum = act(&mut g, sum);
    let c = conv(&mut g, sum, 2, 1);
    let c = act(&mut g, c);
    let both = g.push(Op::Concat { axis: 1 }, vec![sum, c], vec![1, 6, 6, 6], Origin::named("concat"));
    let pool = Pool { kernel: [2; 2], strides: [2; 2], pads: [0; 4], dilations: [1; 2], counted_pads: [0; 4] };
    let pooled = g.push(Op::MaxPool(pool), vec![both], vec![1, 6, 3, 3], Origin::named("pool"));
    let flat = g.push(Op::Reshape, vec![pooled], vec![1, 54], Origin::named("flat"));
    let weight = g.constant(wave(&[5, 54], 2.0));
    let y = g.push(Op::Dense { weight, bias: None }, vec![flat], vec![1, 5], Origin::named("fc"));
    g.outputs.push(Output { name: "y".into(), value: y });
    g
}

fn values(g: &Graph) -> Vec<Tensor> {
    Interpreter::new(g).expect("sound").run_all(&[wave(&[1, 3, 6, 6], 9.0)]).expect("runs")
}

#[test]
fn factors_hide_values_and_leave_outputs() {
    let plain = network(Activation::Relu);
    let (masked, count) = mask(&plain);
    // The residual sum ties four channels of two convolutions; the dense layer is the output.
    assert_eq!(count, 4 + 4 + 2);
    let (a, b) = (values(&plain), values(&masked));
    let last = a.len() - 1;
    for (x, y) in a[last].values().iter().zip(b[last].values()) {
        assert!((x - y).abs() < 1e-10, "{x} {y}");
    }
    // The first convolution: one factor for each channel, in [1/2, 1), and not the same for all.
    let ratios: Vec<f64> = (0..4).map(|c| b[1].values()[c * 36 + 7] / a[1].values()[c * 36 + 7]).collect();
    assert!(ratios.iter().all(|r| (0.5..1.0).contains(r)), "{ratios:?}");
    assert!(ratios.windows(2).all(|w| w[0] != w[1]));
    assert_eq!(mask(&plain), (masked, count), "deterministic");
}

#[test]
fn functions_that_do_not_commute_keep_their_values() {
    let plain = network(Activation::Clip { min: 0.0, max: 6.0 });
    assert_eq!(mask(&plain), (plain, 0));
}
