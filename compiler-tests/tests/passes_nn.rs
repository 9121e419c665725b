//! The tensor passes: snapshots of small graphs, and the same meaning before and after.

use compiler_tests::{calibration_digits, model, shared};
use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, Range, ValueId};
use fhec_ir::{Origin, Tensor};
use fhec_math::chebyshev::depth_of_degree;
use fhec_passes::approximate::{ApproximateOptions, approximate};
use fhec_passes::bound::bound_ranges;
use fhec_passes::calibrate::calibrate;
use fhec_passes::canonicalise::canonicalise;
use fhec_passes::fold_batch_norm::fold_batch_norm;
use fhec_passes::quadratics::quadratics;
use fhec_passes::refuse::refuse_unsupported;

/// Repeatable values in [-1, 1].
fn wave(shape: &[usize], seed: f64) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| (seed + 1.7 * i as f64).sin()).collect())
}

/// A graph under construction.
struct Net {
    graph: Graph,
    last: ValueId,
}

impl Net {
    fn new(shape: &[usize]) -> Self {
        let mut graph = Graph { name: "net".into(), ..Graph::default() };
        let last = graph.push(Op::Input { name: "x".into() }, vec![], shape.to_vec(), Origin::named("x"));
        Net { graph, last }
    }

    fn constant(&mut self, shape: &[usize], seed: f64) -> fhec_ir::nn::ConstId {
        self.graph.constant(wave(shape, seed))
    }

    fn then(&mut self, op: Op, inputs: &[ValueId], name: &str) -> ValueId {
        let shape = self.graph.node(inputs[0]).shape.clone();
        self.with_shape(op, inputs, &shape, name)
    }

    fn with_shape(&mut self, op: Op, inputs: &[ValueId], shape: &[usize], name: &str) -> ValueId {
        self.last = self.graph.push(op, inputs.to_vec(), shape.to_vec(), Origin::named(name));
        self.last
    }

    fn conv(&mut self, x: ValueId, out: usize, name: &str) -> ValueId {
        let shape = self.graph.node(x).shape.clone();
        let weight = self.constant(&[out, shape[1], 3, 3], 0.3);
        let bias = Some(self.constant(&[out], 0.9));
        let conv = Conv { weight, bias, strides: [1, 1], pads: [1; 4], dilations: [1, 1], groups: 1 };
        self.with_shape(Op::Conv(conv), &[x], &[shape[0], out, shape[2], shape[3]], name)
    }

    fn batch_norm(&mut self, x: ValueId, name: &str) -> ValueId {
        let c = self.graph.node(x).shape[1];
        let [scale, bias, mean] = [0.1, 0.2, 0.3].map(|s| self.constant(&[c], s));
        let variance = self.graph.constant(wave(&[c], 0.4).map(|v| 1.5 + v));
        self.then(Op::BatchNorm { scale, bias, mean, variance, epsilon: 1e-5 }, &[x], name)
    }

    fn finish(mut self, outputs: &[ValueId]) -> Graph {
        let name = |i: usize| format!("y{i}");
        self.graph.outputs = outputs.iter().enumerate().map(|(i, &value)| Output { name: name(i), value }).collect();
        self.graph
    }
}

/// Both graphs give the same outputs on seeded inputs, to rounding.
fn assert_same(before: &Graph, after: &Graph) {
    let shape = before.node(before.inputs()[0]).shape.clone();
    for seed in [0.0, 2.5] {
        let x = [wave(&shape, seed).map(|v| 3.0 * v)];
        let a = Interpreter::new(before).expect("valid").run(&x).expect("fits");
        let b = Interpreter::new(after).expect("the pass keeps the graph valid").run(&x).expect("fits");
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a.shape(), b.shape());
            for (a, b) in a.values().iter().zip(b.values()) {
                assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{a} became {b}");
            }
        }
    }
}

#[test]
fn batch_norm_folds_into_its_only_producer() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 3, "conv");
    let y = net.batch_norm(c, "bn");
    let before = net.finish(&[y]);
    let after = fold_batch_norm(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

/// A convolution over one dimension is one over two between reshapes.
#[test]
fn batch_norm_folds_through_a_reshape_that_keeps_the_channels() {
    let mut net = Net::new(&[1, 2, 16]);
    let x = net.last;
    let wide = net.with_shape(Op::Reshape, &[x], &[1, 2, 1, 16], "wide");
    let weight = net.constant(&[3, 2, 1, 3], 0.3);
    let conv = Conv { weight, bias: None, strides: [1, 1], pads: [0, 1, 0, 1], dilations: [1, 1], groups: 1 };
    let c = net.with_shape(Op::Conv(conv), &[wide], &[1, 3, 1, 16], "conv");
    let narrow = net.with_shape(Op::Reshape, &[c], &[1, 3, 16], "narrow");
    let y = net.batch_norm(narrow, "bn");
    let before = net.finish(&[y]);
    let after = fold_batch_norm(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

#[test]
fn batch_norm_does_not_fold_through_a_reshape_that_mixes_channels() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 4, "conv");
    let mixed = net.with_shape(Op::Reshape, &[c], &[1, 8, 8], "mixed");
    let y = net.batch_norm(mixed, "bn");
    let before = net.finish(&[y]);
    let after = fold_batch_norm(&before);
    assert_same(&before, &after);
    assert!(after.nodes.iter().any(|n| matches!(n.op, Op::MulConst(_))), "{after}");
}

#[test]
fn several_images_become_groups_of_one() {
    let mut net = Net::new(&[2, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 3, "conv");
    let s = net.then(Op::Activation(Activation::Power { exponent: 2 }), &[c], "square");
    let pool =
        fhec_ir::nn::Pool { kernel: [2, 2], strides: [2, 2], pads: [0; 4], dilations: [1, 1], counted_pads: [0; 4] };
    let y = net.with_shape(Op::AveragePool(pool), &[s], &[2, 3, 2, 2], "pool");
    let before = net.finish(&[y]);
    let after = canonicalise(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

#[test]
fn batch_norm_beside_another_user_becomes_an_affine_map() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 3, "conv");
    let y = net.batch_norm(c, "bn");
    let sum = net.then(Op::Add, &[c, y], "sum");
    let before = net.finish(&[sum]);
    let after = fold_batch_norm(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

#[test]
fn a_shared_weight_keeps_its_values_for_its_other_user() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let first = net.conv(x, 2, "first");
    let Op::Conv(conv) = net.graph.node(first).op.clone() else { unreachable!() };
    let normed = net.batch_norm(first, "bn");
    let second = net.then(Op::Conv(conv), &[normed], "second");
    let before = net.finish(&[second]);
    assert_same(&before, &fold_batch_norm(&before));
}

#[test]
fn canonical_form_of_products_prelus_and_constants() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 2, "conv");
    let factor = net.constant(&[2, 1, 1], 0.5);
    let scaled = net.then(Op::MulConst(factor), &[c], "scale");
    let offset = net.graph.constant(Tensor::scalar(0.25));
    let shifted = net.then(Op::AddConst(offset), &[scaled], "shift");
    let square = net.then(Op::Mul, &[shifted, shifted], "square");
    let fourth = net.then(Op::Activation(Activation::Power { exponent: 2 }), &[square], "again");
    let slope = net.constant(&[2, 1, 1], 0.8);
    let prelu = net.then(Op::PRelu { slope }, &[fourth], "prelu");
    let twice = net.then(Op::Add, &[prelu, prelu], "twice");
    let before = net.finish(&[twice]);
    let after = canonicalise(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

/// HerPN as models hold it, between two convolutions: a square between two convolutions.
#[test]
fn herpn_becomes_one_square() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 2, "conv1");
    let h1 = net.batch_norm(c, "norm1");
    let square = net.then(Op::Mul, &[c, c], "square");
    let [one, root, f0, f1, f2] =
        [-1.0, 0.5f64.sqrt(), 0.3989, 0.5, 0.2821].map(|v| net.graph.constant(Tensor::scalar(v)));
    let less = net.then(Op::AddConst(one), &[square], "less");
    let h2 = net.then(Op::MulConst(root), &[less], "h2");
    let h2 = net.batch_norm(h2, "norm2");
    let first = net.then(Op::MulConst(f1), &[h1], "first");
    let second = net.then(Op::MulConst(f2), &[h2], "second");
    let start = net.then(Op::AddConst(f0), &[first], "start");
    let terms = net.then(Op::Add, &[start, second], "terms");
    let gain = net.constant(&[1, 2, 1, 1], 0.7);
    let shift = net.constant(&[1, 2, 1, 1], 0.8);
    let scaled = net.then(Op::MulConst(gain), &[terms], "gain");
    let shifted = net.then(Op::AddConst(shift), &[scaled], "shift");
    let y = net.conv(shifted, 2, "conv2");
    let before = net.finish(&[y]);
    let after = quadratics(&canonicalise(&fold_batch_norm(&before)));
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

#[test]
fn a_used_intermediate_is_not_merged_away() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let c = net.conv(x, 2, "conv");
    let factor = net.constant(&[2, 1, 1], 0.5);
    let scaled = net.then(Op::MulConst(factor), &[c], "scale");
    let before = net.finish(&[c, scaled]);
    assert_same(&before, &canonicalise(&before));
}

#[test]
fn clipping_twice_is_clipping_once() {
    let infinity = f64::INFINITY;
    let clip = |min, max| Activation::Clip { min, max };
    let cases = [
        (vec![clip(0.0, infinity), clip(-infinity, 2.0)], Some(clip(0.0, 2.0))),
        (vec![clip(-infinity, 2.0), Activation::Relu], Some(clip(0.0, 2.0))),
        (vec![clip(-1.0, 2.0), clip(-2.0, 1.0), clip(-0.5, 3.0)], Some(clip(-0.5, 1.0))),
        (vec![clip(-3.0, -1.0), clip(0.5, 1.0)], Some(clip(0.5, 0.5))),
        (vec![Activation::Relu, clip(-1.0, infinity)], Some(Activation::Relu)),
        (vec![clip(0.0, 1.0), Activation::Sigmoid], None),
    ];
    for (list, one) in cases {
        let mut net = Net::new(&[1, 2, 4, 4]);
        for (i, f) in list.iter().enumerate() {
            let x = net.last;
            net.then(Op::Activation(f.clone()), &[x], &format!("f{i}"));
        }
        let last = net.last;
        let before = net.finish(&[last]);
        let after = canonicalise(&before);
        assert_same(&before, &after);
        let left: Vec<&Op> = after.nodes.iter().skip(1).map(|n| &n.op).collect();
        match one {
            Some(one) => assert_eq!(left, [&Op::Activation(one)]),
            None => assert_eq!(left.len(), 2),
        }
    }
    // What something else uses stays.
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let first = net.then(Op::Activation(Activation::Relu), &[x], "first");
    let second = net.then(Op::Activation(clip(0.0, 1.0)), &[first], "second");
    let before = net.finish(&[first, second]);
    assert_eq!(canonicalise(&before), before);
}

#[test]
fn the_maximum_of_one_value_needs_no_comparison() {
    let mut net = Net::new(&[1, 2, 5, 5]);
    let x = net.last;
    let one = [1, 1];
    let pool = Pool { kernel: one, strides: [2, 2], pads: [0; 4], dilations: one, counted_pads: [0; 4] };
    let y = net.with_shape(Op::MaxPool(pool), &[x], &[1, 2, 3, 3], "subsample");
    let before = net.finish(&[y]);
    let after = canonicalise(&before);
    refuse_unsupported(&after).expect("no maximum is left");
    assert_same(&before, &after);
}

/// conv → f → conv, over an image.
fn one_activation(f: Activation) -> Graph {
    let mut net = Net::new(&[1, 1, 6, 6]);
    let x = net.last;
    let c = net.conv(x, 2, "conv1");
    let a = net.then(Op::Activation(f), &[c], "act");
    let y = net.conv(a, 1, "conv2");
    net.finish(&[y])
}

#[test]
fn calibrated_ranges_hold_every_sample_and_bounds_hold_them_all() {
    let graph = one_activation(Activation::Relu);
    let samples: Vec<Vec<Tensor>> = (0..20).map(|s| vec![wave(&[1, 1, 6, 6], f64::from(s))]).collect();
    let calibrated = calibrate(&graph, &samples).expect("fits");
    let bounded = bound_ranges(&graph, Range { lo: -1.0, hi: 1.0 });
    let interpreter = Interpreter::new(&graph).expect("valid");
    for sample in &samples {
        interpreter
            .run_with(sample, |id, value| {
                let (near, far) = (calibrated.node(id).range.expect("set"), bounded.node(id).range.expect("set"));
                for v in value.values() {
                    assert!(near.lo <= *v && *v <= near.hi && far.lo <= *v && *v <= far.hi);
                }
            })
            .expect("fits");
    }
    for id in calibrated.ids() {
        let node = calibrated.node(id);
        let d = node.distribution.as_ref().expect("set");
        let read = calibrated.nodes.iter().any(|n| matches!(n.op, Op::Activation(_)) && n.inputs.contains(&id));
        let counted = if read { 20 * node.shape.iter().product::<usize>() as u64 } else { 0 };
        assert_eq!(d.histogram.iter().sum::<u64>(), counted);
    }
}

#[test]
fn degrees_rise_with_the_asked_tolerance() {
    let graph = canonicalise(&one_activation(Activation::Relu));
    let samples: Vec<Vec<Tensor>> = (0..20).map(|s| vec![wave(&[1, 1, 6, 6], f64::from(s))]).collect();
    let graph = calibrate(&graph, &samples).expect("fits");
    let mut last = 0;
    for tolerance in [0.1, 0.03, 0.01, 0.003] {
        let options = ApproximateOptions { tolerance, ..Default::default() };
        let found = approximate(&graph, &samples, &options).expect("fits");
        assert!(found.output_error <= tolerance, "{} > {tolerance}", found.output_error);
        assert!(found.approximations[0].degree >= last);
        last = found.approximations[0].degree;
    }
    assert!(last > 7, "a ReLU to 0.3 % needs more than degree {last}");
}

#[test]
fn powers_stay_exact_and_every_other_function_becomes_a_polynomial() {
    use Activation::*;
    let functions = [
        LeakyRelu { alpha: 0.1 },
        Elu { alpha: 1.0 },
        Selu { alpha: 1.67, gamma: 1.05 },
        Celu { alpha: 1.0 },
        Sigmoid,
        HardSigmoid { alpha: 0.2, beta: 0.5 },
        HardSwish,
        Swish { alpha: 1.0 },
        Mish,
        Tanh,
        Erf,
        Gelu { tanh: false },
        Gelu { tanh: true },
        Softplus,
        Softsign,
        Exp,
        Clip { min: 0.0, max: 1.0 },
        Power { exponent: 2 },
    ];
    let samples: Vec<Vec<Tensor>> = (0..20).map(|s| vec![wave(&[1, 1, 6, 6], f64::from(s))]).collect();
    for f in functions {
        let graph = calibrate(&one_activation(f.clone()), &samples).expect("fits");
        let found = approximate(&graph, &samples, &ApproximateOptions::default()).expect("fits");
        let exact = matches!(f, Power { .. });
        assert_eq!(found.approximations.is_empty(), exact, "{f:?}");
        assert!(found.output_error <= ApproximateOptions::default().tolerance, "{f:?}: {}", found.output_error);
        let kept = found.graph.nodes.iter().any(|n| matches!(n.op, Op::Activation(_)));
        assert_eq!(kept, exact, "{f:?}");
    }
}

#[test]
fn without_samples_the_interval_bound_is_used_and_said() {
    let graph = bound_ranges(&one_activation(Activation::Swish { alpha: 1.0 }), Range { lo: -1.0, hi: 1.0 });
    let found = approximate(&graph, &[], &ApproximateOptions::default()).expect("fits");
    assert_eq!(found.notes.len(), 1);
    assert!(found.notes[0].contains("--calibrate"), "{}", found.notes[0]);
    assert!(found.approximations[0].max < 0.2);
}

#[test]
fn everything_unsupported_is_listed_at_once() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.last;
    let pool =
        fhec_ir::nn::Pool { kernel: [1, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1], counted_pads: [0; 4] };
    let a = net.then(Op::MaxPool(pool.clone()), &[x], "first pool");
    let s = net.then(Op::Softmax { axis: 1 }, &[a], "inner softmax");
    let b = net.then(Op::MaxPool(pool), &[s], "second pool");
    let y = net.then(Op::Softmax { axis: 1 }, &[b], "last softmax");
    let found = refuse_unsupported(&net.finish(&[y])).expect_err("three problems");
    insta::assert_snapshot!(found);
}

/// A bundled network as imported.
fn bundled(name: &str) -> Graph {
    fhec_onnx::load(model(&format!("{name}.onnx"))).expect("imports")
}

fn digits() -> Vec<Vec<Tensor>> {
    calibration_digits().into_iter().map(|d| vec![d]).collect()
}

/// What a tensor pass saves: operations before and after, by kind of cost.
fn cost_line(graph: &Graph) -> String {
    let count = |f: &dyn Fn(&Op) -> bool| graph.nodes.iter().filter(|n| f(&n.op)).count();
    format!(
        "nodes={} linear={} elementwise={} products={} functions={}\n",
        graph.nodes.len(),
        count(&|o| matches!(o, Op::Conv(_) | Op::Dense { .. } | Op::AveragePool(_))),
        count(&|o| matches!(o, Op::MulConst(_) | Op::AddConst(_) | Op::BatchNorm { .. })),
        count(&|o| matches!(o, Op::Mul | Op::Activation(Activation::Power { .. }))),
        count(&|o| matches!(o, Op::Activation(a) if !matches!(a, Activation::Power { .. }))),
    )
}

/// What a pass made, behind the cost lines before and after it.
fn with_cost(before: &Graph, after: &Graph) -> String {
    format!("{}{}{after}", cost_line(before), cost_line(after))
}

#[test]
fn batch_norm_of_a_real_network() {
    let before = bundled("mlp_square");
    let after = fold_batch_norm(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

#[test]
fn canonical_form_of_a_real_network() {
    let before = fold_batch_norm(&bundled("lola"));
    let after = canonicalise(&before);
    assert_same(&before, &after);
    insta::assert_snapshot!(with_cost(&before, &after));
}

/// Ranges, rounded so that the snapshot does not depend on the last bits of a sum.
fn ranges(graph: &Graph) -> String {
    let line = |n: &fhec_ir::nn::Node| {
        let r = n.range.expect("set");
        format!("{:<12} {:>9.3} … {:.3}\n", n.origin.to_string(), r.lo, r.hi)
    };
    graph.nodes.iter().map(line).collect()
}

/// Ranges by data and by interval arithmetic.
fn both_ranges(graph: &Graph, samples: &[Vec<Tensor>], input: Range) -> String {
    let calibrated = calibrate(graph, samples).expect("fits");
    let bounded = bound_ranges(graph, input);
    format!("{}calibrated\n{}\nbounded\n{}", cost_line(graph), ranges(&calibrated), ranges(&bounded))
}

fn waves(shape: &[usize]) -> Vec<Vec<Tensor>> {
    (0..20).map(|s| vec![wave(shape, f64::from(s))]).collect()
}

#[test]
fn ranges_of_a_small_network() {
    let graph = one_activation(Activation::Relu);
    insta::assert_snapshot!(both_ranges(&graph, &waves(&[1, 1, 6, 6]), Range { lo: -1.0, hi: 1.0 }));
}

#[test]
fn ranges_of_a_real_network() {
    let graph = canonicalise(&fold_batch_norm(&bundled("lola")));
    insta::assert_snapshot!(both_ranges(&graph, &digits(), Range { lo: 0.0, hi: 1.0 }));
}

/// What approximation makes of a network, and the levels that its polynomials take.
fn approximations(name: &str, graph: &Graph, samples: &[Vec<Tensor>]) -> String {
    let graph = calibrate(graph, samples).expect("fits");
    let found = approximate(&graph, samples, &ApproximateOptions::default()).expect("fits");
    assert!(found.output_error <= ApproximateOptions::default().tolerance);
    let depth: usize = found.approximations.iter().map(|a| depth_of_degree(a.degree)).sum();
    let mut text = format!(
        "{name}: {} depth={depth}, outputs off by {:.1} %\n",
        cost_line(&graph).trim(),
        100.0 * found.output_error
    );
    for a in &found.approximations {
        text += &format!(
            "  {:<6} {} on [{:.2}, {:.2}] by degree {}: rms {:.3}, at most {:.2}\n",
            a.origin.to_string(),
            a.function,
            a.interval.lo,
            a.interval.hi,
            a.degree,
            a.rms,
            a.max
        );
    }
    text
}

#[test]
fn approximation_of_small_networks() {
    let network = |f: Activation| {
        let name = f.name();
        approximations(name, &canonicalise(&one_activation(f)), &waves(&[1, 1, 6, 6]))
    };
    let functions = [Activation::Power { exponent: 2 }, Activation::Tanh, Activation::Relu];
    insta::assert_snapshot!(functions.map(network).concat());
}

#[test]
fn approximation_of_a_real_network() {
    let samples = digits();
    let network = |name| approximations(name, &canonicalise(&fold_batch_norm(&bundled(name))), &samples);
    insta::assert_snapshot!(["lenet_silu", "lenet_relu"].map(network).concat());
}

#[test]
fn refusals_of_a_real_network() {
    let Some(path) = shared("models/squeezenet11.onnx") else { return };
    let graph = canonicalise(&fold_batch_norm(&fhec_onnx::load(path).expect("imports")));
    let found = refuse_unsupported(&graph).expect_err("it has maxima");
    insta::assert_snapshot!(format!("{}{found}", cost_line(&graph)));
}
