//! Quadratic activations, as models spell them, cost one level each and keep their meaning.

mod common;

use common::{Net, compare, same_meaning, tensor};
use fhec_ir::nn::{Graph, Op, ValueId};
use fhec_ir::{Tensor, he};
use fhec_passes::calibrate::calibrate;
use fhec_passes::canonicalise::canonicalise;
use fhec_passes::fold_batch_norm::fold_batch_norm;
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::lower;
use fhec_passes::merge_linear::merge_linear;
use fhec_passes::quadratics::quadratics;

/// The only input of a network.
const INPUT: ValueId = ValueId(0);

/// HerPN as a model holds it: each Hermite basis polynomial with a batch normalization of its own.
fn herpn(net: &mut Net, x: ValueId) -> ValueId {
    let channels = net.shape(x)[1];
    let square = net.push(Op::Mul, &[x, x]);
    let less = net.plus(square, Tensor::scalar(-1.0));
    let h2 = net.times(less, Tensor::scalar(std::f64::consts::FRAC_1_SQRT_2));
    let (n1, n2) = (net.batch_norm(x), net.batch_norm(h2));
    let t1 = net.times(n1, Tensor::scalar(0.5));
    let t2 = net.times(n2, Tensor::scalar(0.2821));
    let y = net.plus(t1, Tensor::scalar(0.3989));
    let y = net.push(Op::Add, &[y, t2]);
    let y = net.times(y, tensor(&[1, channels, 1, 1], 9).map(|v| 1.2 + v));
    net.add_const(y, &[1, channels, 1, 1])
}

/// `a·x² + b·x + c` with coefficients per channel, each spelt in its own way.
fn polynomial(net: &mut Net, x: ValueId, a: &[f64], b: &[f64], c: f64) -> ValueId {
    let shape = [vec![a.len()], vec![1; net.shape(x).len() - 2]].concat();
    let constant = |v: &[f64]| if v.len() == 1 { Tensor::scalar(v[0]) } else { Tensor::new(shape.clone(), v.to_vec()) };
    let square = net.square(x);
    let square = net.times(square, constant(a));
    let linear = net.times(x, constant(b));
    let sum = net.push(Op::Add, &[square, linear]);
    net.plus(sum, Tensor::scalar(c))
}

fn conv(net: &mut Net, x: ValueId, out: usize, stride: usize) -> ValueId {
    net.conv(x, out, [3, 3], [stride; 2], [1; 4], [1, 1], 1)
}

/// Levels on the longest way to an output.
fn depth(graph: &he::Graph) -> usize {
    let mut depths: Vec<usize> = Vec::new();
    for node in &graph.nodes {
        let own = match node.op {
            he::Op::LinearMap { .. } | he::Op::Mul | he::Op::MulVector { .. } | he::Op::MulScalar { .. } => 1,
            he::Op::Polynomial { .. } => panic!("none is expected"),
            _ => 0,
        };
        depths.push(own + node.inputs.iter().map(|v| depths[v.index()]).max().unwrap_or(0));
    }
    graph.outputs.iter().map(|o| depths[o.value.index()]).max().unwrap_or(0)
}

/// Runs the passes, compares, and returns the tensor graph and the depth.
fn run(net: Net) -> (Graph, usize) {
    let model = net.finish();
    let canonical = canonicalise(&fold_batch_norm(&model));
    let graph = quadratics(&canonical);
    same_meaning(&model, &graph);
    assert_eq!(quadratics(&graph).nodes.len(), graph.nodes.len(), "once is enough");
    let samples: Vec<Vec<Tensor>> = (100..103).map(|s| vec![tensor(&graph.nodes[0].shape, s)]).collect();
    let graph = calibrate(&graph, &samples).expect("fits");
    let graph = merge_linear(&graph, 1024, &LinearCost::default()).unwrap_or_else(|e| panic!("{e}")).graph;
    let he = lower(&graph, 1024, &LinearCost::default()).unwrap_or_else(|e| panic!("{e}"));
    compare(&model, &he);
    (graph, depth(&he))
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().filter(|n| n.op.name() == name).count()
}

/// Convolution, activation, convolution: two linear levels and one for the quadratic.
#[test]
fn herpn_between_convolutions_is_one_square() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let x = conv(&mut net, INPUT, 4, 1);
    let x = herpn(&mut net, x);
    let x = conv(&mut net, x, 3, 1);
    net.output(x);
    let (graph, depth) = run(net);
    assert_eq!(depth, 3, "{graph}");
    assert_eq!((count(&graph, "Pow"), count(&graph, "Mul"), count(&graph, "MulConst")), (1, 0, 0), "{graph}");
}

#[test]
fn scalar_coefficients_join_the_bias_before_and_the_weights_behind() {
    for dense in [false, true] {
        let mut net = Net::new(if dense { &[1, 12] } else { &[1, 2, 6, 6] });
        let layer = |net: &mut Net, x| if dense { net.dense(x, 7) } else { conv(net, x, 3, 1) };
        let x = layer(&mut net, INPUT);
        let x = polynomial(&mut net, x, &[0.1997], &[0.5002], 0.1992);
        let x = layer(&mut net, x);
        net.output(x);
        let (graph, depth) = run(net);
        assert_eq!(depth, 3, "{graph}");
    }
}

/// Two residual blocks of quadratics, each with a constant; `scaled` is done before the first activation and behind what
/// follows it in a block.
fn residual(
    net: &mut Net,
    activation: impl Fn(&mut Net, ValueId, f64) -> ValueId,
    scaled: impl Fn(&mut Net, ValueId) -> ValueId,
) {
    let x = conv(net, INPUT, 4, 1);
    let x = scaled(net, x);
    let mut x = activation(net, x, 0.2);
    for _ in 0..2 {
        let y = conv(net, x, 4, 1);
        let y = activation(net, y, 0.1);
        let y = scaled(net, y);
        let y = conv(net, y, 4, 1);
        let y = scaled(net, y);
        let sum = net.push(Op::Add, &[y, x]);
        x = activation(net, sum, -0.1);
    }
    let x = net.push(Op::ReduceMean { axes: vec![2, 3], keep: false }, &[x]);
    let x = net.dense(x, 3);
    net.output(x);
}

/// He's block: the quadratic follows the sum, and both the branch and the next sum read it. Channels with a
/// negative leading coefficient leave a sign behind.
#[test]
fn quadratics_after_a_residual_sum_cost_one_level() {
    for negative in [false, true] {
        let mut net = Net::new(&[1, 2, 6, 6]);
        let sign = if negative { -1.0 } else { 1.0 };
        let a = [0.3, 0.7 * sign, 0.2, 0.9];
        let b = [0.5, 0.4, -0.3, 0.0];
        residual(&mut net, |net, x, c| polynomial(net, x, &a, &b, c), |_, x| x);
        let (graph, depth) = run(net);
        // Five convolutions, five quadratics, and the mean with the dense layer.
        assert_eq!(depth, 11, "{graph}");
    }
}

/// Pre-activation: the sum is read by the activation and by the next sum, so that factors go forward.
#[test]
fn herpn_before_convolutions_costs_one_level() {
    let mut net = Net::new(&[1, 2, 8, 8]);
    let mut x = conv(&mut net, INPUT, 4, 1);
    for stride in [1, 2] {
        let y = herpn(&mut net, x);
        let shortcut = if stride == 2 { net.conv(y, 4, [1, 1], [2; 2], [0; 4], [1, 1], 1) } else { x };
        let y = conv(&mut net, y, 4, stride);
        let y = herpn(&mut net, y);
        let y = conv(&mut net, y, 4, 1);
        x = net.push(Op::Add, &[y, shortcut]);
    }
    let x = herpn(&mut net, x);
    let x = net.push(Op::ReduceMean { axes: vec![2, 3], keep: true }, &[x]);
    let x = net.reshape(x, &[1, 4]);
    let x = net.dense(x, 3);
    net.output(x);
    let (graph, depth) = run(net);
    assert_eq!(depth, 11, "{graph}");
}

/// Products with constants as 1×1 depthwise convolutions, which also take offsets: in front of the quadratic, within it, behind
/// it, and around a value that others read.
#[test]
fn depthwise_convolutions_of_one_weight_are_factors() {
    let factors = |net: &mut Net, x| {
        let channels = net.shape(x)[1];
        net.conv(x, channels, [1, 1], [1; 2], [0; 4], [1, 1], channels)
    };
    let activation = |net: &mut Net, x, _| {
        let square = net.push(Op::Mul, &[x, x]);
        let (square, linear) = (factors(net, square), factors(net, x));
        net.push(Op::Add, &[square, linear])
    };
    let mut net = Net::new(&[1, 2, 6, 6]);
    residual(&mut net, activation, factors);
    let (graph, depth) = run(net);
    // Five convolutions, five quadratics, and the mean with the dense layer.
    assert_eq!(depth, 11, "{graph}");
}

/// A factor that a value and a quadratic of it share is part of the layer before both.
#[test]
fn shared_factors_stay_in_the_layer_before() {
    let mut net = Net::new(&[1, 2, 6, 6]);
    let x = conv(&mut net, INPUT, 3, 1);
    let x = net.conv(x, 3, [1, 1], [1; 2], [0; 4], [1, 1], 3);
    let y = polynomial(&mut net, x, &[1.0], &[0.5], 0.2);
    net.output(y);
    net.output(x);
    let (graph, depth) = run(net);
    assert_eq!((depth, count(&graph, "Conv")), (2, 1), "{graph}");
}

/// A channel without a square, and one whose square is negligible, in each place where the other form is needed.
#[test]
fn channels_without_a_square_cost_no_more() {
    for b in [[0.5, 0.4, 0.3], [0.0, 1.0, 0.0]] {
        for a in [[0.3, 0.0, 0.2], [0.3, 1e-6, 0.2]] {
            for sum in [false, true] {
                let mut net = Net::new(&[1, 3, 6, 6]);
                let mut x = conv(&mut net, INPUT, 3, 1);
                if sum {
                    x = net.push(Op::Add, &[x, INPUT]);
                }
                let x = polynomial(&mut net, x, &a, &b, 0.2);
                let x = conv(&mut net, x, 2, 1);
                net.output(x);
                let (graph, depth) = run(net);
                assert_eq!(depth, 3, "{graph}");
                assert_eq!(count(&graph, "Mul"), 1, "{graph}");
            }
        }
    }
}

/// The value before is needed by others too, the quadratic is an output too, or its reader is no layer.
#[test]
fn values_that_others_need_are_kept() {
    let (a, b) = ([0.3, -0.7, 0.2], [0.5, 0.4, -0.3]);
    let mut net = Net::new(&[1, 2, 6, 6]);
    let x = conv(&mut net, INPUT, 3, 1);
    let y = polynomial(&mut net, x, &a, &b, 0.2);
    let z = polynomial(&mut net, y, &b, &a, 0.2);
    let both = net.push(Op::Concat { axis: 1 }, &[x, z]);
    let w = conv(&mut net, both, 2, 1);
    net.output(y);
    net.output(w);
    net.output(x);
    run(net);

    // Two quadratics of one value, and one inside the other.
    let mut net = Net::new(&[1, 3, 6, 6]);
    let y = polynomial(&mut net, INPUT, &a, &b, 0.2);
    let z = polynomial(&mut net, INPUT, &b, &a, 0.1);
    let product = net.push(Op::Mul, &[y, z]);
    let sum = net.push(Op::Sub, &[y, z]);
    net.output(product);
    net.output(sum);
    run(net);
}

/// Factors pass through poolings, concatenations and reshapes on their way to a layer.
#[test]
fn factors_reach_layers_behind_pools_and_concatenations() {
    let (a, b) = ([0.3, -0.7, 0.2], [0.5, 0.4, -0.3]);
    let mut net = Net::new(&[1, 3, 8, 8]);
    let x = conv(&mut net, INPUT, 3, 1);
    let mut all = x;
    for _ in 0..2 {
        let channels = net.shape(all)[1];
        let [a, b] = [a, b].map(|v| (0..channels).map(|k| v[k % 3] * (1.0 + 0.1 * k as f64)).collect::<Vec<f64>>());
        let y = polynomial(&mut net, all, &a, &b, 0.1);
        let y = conv(&mut net, y, 3, 1);
        all = net.push(Op::Concat { axis: 1 }, &[all, y]);
    }
    let coefficients = |s: f64| (0..9).map(|k| s * (1.0 + 0.2 * f64::from(k))).collect::<Vec<f64>>();
    let x = polynomial(&mut net, all, &coefficients(0.2), &coefficients(0.3), 0.0);
    let x = net.average_pool(x, [2, 2], [2, 2], [0; 4], false);
    let x = net.reshape(x, &[1, 144]);
    let x = net.dense(x, 3);
    net.output(x);
    let (graph, depth) = run(net);
    // Convolution, three times quadratic and linear; the pooling merges into the dense layer.
    assert_eq!(depth, 7, "{graph}");
    assert_eq!(count(&graph, "MulConst"), 0, "{graph}");
}
