//! Units that go: dead ones exactly, others within a budget.

use compiler_tests::networks::{dense, input, plain, product, samples};
use compiler_tests::{argmax, calibration_digits, fixed_prices, model};
use fhec_ir::nn::{Conv, Graph, Interpreter, Op, Output, Pool, ValueId};
use fhec_ir::{Origin, Tensor};
use fhec_passes::canonicalise::canonicalise;
use fhec_passes::sparsify::sparsify;
use fhec_passes::units::unroll::unroll;
use fhec_passes::units::{dead_units, lone_elements};
use fhec_passes::{Mode, Options, compile};
use proptest::prelude::*;

fn wave(n: usize, seed: f64) -> Vec<f64> {
    (0..n).map(|i| (seed + 1.7 * i as f64).sin()).collect()
}

/// Convolution with padding or without, squared, pooled, flattened, two dense layers with a square between them.
fn network(pads: usize) -> Graph {
    let mut g = Graph { name: "net".into(), ..Graph::default() };
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 2, 4, 4], Origin::named("x"));
    let weight = g.constant(Tensor::new(vec![4, 2, 3, 3], wave(72, 0.3)));
    let bias = Some(g.constant(Tensor::new(vec![4], wave(4, 0.9))));
    let conv = Conv { weight, bias, strides: [1, 1], pads: [pads; 4], dilations: [1, 1], groups: 1 };
    let side = 2 + 2 * pads;
    let h = g.push(Op::Conv(conv), vec![x], vec![1, 4, side, side], Origin::named("conv"));
    let h = product(&mut g, Op::Mul, h, h, "square1");
    let pool = Pool { kernel: [2, 2], strides: [2, 2], pads: [0; 4], dilations: [1, 1], counted_pads: [0; 4] };
    let h = g.push(Op::AveragePool(pool), vec![h], vec![1, 4, side / 2, side / 2], Origin::named("pool"));
    let h = g.push(Op::Reshape, vec![h], vec![1, side * side], Origin::named("flatten"));
    let h = dense(&mut g, h, 6, "fc1");
    let h = product(&mut g, Op::Mul, h, h, "square2");
    let y = dense(&mut g, h, 3, "fc2");
    g.outputs.push(Output { name: "y".into(), value: y });
    canonicalise(&g)
}

/// Sets the weights `which` of a layer to zero.
fn zero(graph: &mut Graph, layer: &str, which: impl Fn(usize) -> bool) {
    let node = graph.nodes.iter().find(|n| n.origin.names == [layer]).expect("the layer is there");
    let weight = match &node.op {
        Op::Conv(conv) => conv.weight,
        Op::Dense { weight, .. } => *weight,
        other => panic!("{} has no weights", other.name()),
    };
    let old = graph.tensor(weight);
    let values = old.values().iter().enumerate().map(|(i, &w)| if which(i) { 0.0 } else { w }).collect();
    graph.constants[weight.index()] = Tensor::new(old.shape().to_vec(), values);
}

fn assert_same(before: &Graph, after: &Graph) {
    let shape = before.node(before.inputs()[0]).shape.clone();
    for seed in [0.0, 2.5] {
        let x = [Tensor::new(shape.clone(), wave(shape.iter().product(), seed))];
        let a = Interpreter::new(before).expect("valid").run(&x).expect("fits");
        let b = Interpreter::new(after).expect("still valid").run(&x).expect("fits");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a.shape(), b.shape());
            for (a, b) in a.values().iter().zip(b.values()) {
                assert!((a - b).abs() <= 1e-9 * (1.0 + a.abs()), "{a} became {b}\n{after}");
            }
        }
    }
}

/// Units of the value of a layer.
fn units(graph: &Graph, layer: &str) -> usize {
    graph.nodes.iter().find(|n| n.origin.names.iter().any(|n| n == layer)).map_or(0, |n| n.shape[1])
}

/// Channel 1 is read by nothing, channel 2 is always its bias, unit 4 of the dense layer too.
#[test]
fn dead_units_go_through_convolutions_pools_and_dense_layers() {
    let mut before = network(1);
    zero(&mut before, "conv", |i| i / 18 == 2);
    zero(&mut before, "fc1", |i| i % 16 / 4 == 1 || i / 16 == 4);
    let after = dead_units(&before);
    assert_same(&before, &after);
    assert_eq!((units(&after, "conv"), units(&after, "fc1")), (2, 5));
    insta::assert_snapshot!(format!("{before}\n{after}"));
}

#[test]
fn a_graph_without_dead_units_stays_as_it_is() {
    let graph = network(0);
    assert_eq!(dead_units(&graph), graph);
}

/// What is added keeps its units as long as one of the two is read; and what is an output keeps all.
#[test]
fn sums_and_outputs_keep_their_units() {
    let mut g = Graph { name: "sum".into(), ..Graph::default() };
    let x = input(&mut g, 5);
    let a = dense(&mut g, x, 4, "a");
    let b = dense(&mut g, x, 4, "b");
    let sum = product(&mut g, Op::Add, a, b, "sum");
    let h = product(&mut g, Op::Mul, sum, sum, "square");
    let y = dense(&mut g, h, 3, "y");
    g.outputs.push(Output { name: "y".into(), value: y });
    zero(&mut g, "y", |i| i % 4 == 2);
    zero(&mut g, "a", |i| i / 5 == 1);
    let after = dead_units(&g);
    assert_same(&g, &after);
    assert_eq!((units(&after, "a"), units(&after, "b"), units(&after, "y")), (3, 3, 3));
    g.outputs.push(Output { name: "b".into(), value: ValueId(b.0) });
    let after = dead_units(&g);
    assert_same(&g, &after);
    assert_eq!((units(&after, "a"), units(&after, "b")), (4, 4));
}

/// Nothing at all may be left over: a network that ignores its input still has one.
#[test]
fn a_layer_keeps_one_unit_at_least() {
    let mut g = plain();
    zero(&mut g, "fc2", |_| true);
    let after = dead_units(&g);
    assert_same(&g, &after);
    assert_eq!(units(&after, "fc1"), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever weights are zero, the network computes the same, by channels and by single elements.
    #[test]
    fn networks_without_dead_units_compute_the_same(
        conv in proptest::collection::vec(any::<bool>(), 8),
        fc1 in proptest::collection::vec(any::<bool>(), 96),
        fc2 in proptest::collection::vec(any::<bool>(), 18),
        pads in 0..2usize,
    ) {
        let mut before = network(pads);
        let inputs = 4 * (1 + pads) * (1 + pads);
        zero(&mut before, "conv", |i| conv[i / 9]);
        zero(&mut before, "fc1", |i| fc1[i % 96] || fc1[i % inputs]);
        zero(&mut before, "fc2", |i| fc2[i]);
        assert_same(&before, &dead_units(&before));
        if let Some(flat) = unroll(&before) {
            assert_same(&before, &flat);
        }
        if let Some(fewer) = lone_elements(&before) {
            assert_same(&before, &fewer);
        }
    }
}

/// A mask over single elements: whole channels cannot go, elements can, with the pooling that reads them.
#[test]
fn single_elements_go_where_each_has_its_own_ciphertext() {
    let mut g = network(1);
    let square = g.nodes.iter().position(|n| n.origin.names == ["square1"]).expect("there");
    let shape = g.nodes[square].shape.clone();
    let mask: Vec<f64> = (0..64).map(|i| if i % 3 == 0 { 1.5 } else { 0.0 }).collect();
    let mask = g.constant(Tensor::new(shape.clone(), mask));
    // In the pool's place, which follows the square; the pool moves behind.
    let pool = g.nodes[square + 1].clone();
    let masked = ValueId(square as u32 + 1);
    let mut nodes = g.nodes[..=square].to_vec();
    nodes.push(fhec_ir::nn::Node { op: Op::MulConst(mask), shape, origin: Origin::named("mask"), ..pool.clone() });
    for node in &g.nodes[square + 1..] {
        let shift = |v: &ValueId| if v.index() > square { ValueId(v.0 + 1) } else { *v };
        let inputs = if node.op == pool.op { vec![masked] } else { node.inputs.iter().map(shift).collect() };
        nodes.push(fhec_ir::nn::Node { inputs, ..node.clone() });
    }
    g.nodes = nodes;
    g.outputs[0].value = ValueId(g.outputs[0].value.0 + 1);
    assert_eq!(units(&dead_units(&g), "conv"), 4);
    let after = lone_elements(&g).expect("two of three elements are dead");
    assert_same(&g, &after);
    assert_eq!(units(&after, "conv"), 22);
}

/// Units that say the same twice go without a change of any output: the least squares of the others make good for them.
#[test]
fn repeated_units_cost_nothing() {
    let mut g = canonicalise(&plain());
    let node = g.nodes.iter().find(|n| n.origin.names == ["fc1"]).expect("there");
    let Op::Dense { weight, bias: Some(bias) } = node.op else { panic!("a dense layer") };
    // Units 4 to 7 repeat 0 to 3.
    let repeat = |t: &Tensor, each: usize| {
        let half = t.values()[..4 * each].to_vec();
        Tensor::new(t.shape().to_vec(), [half.clone(), half].concat())
    };
    g.constants[weight.index()] = repeat(g.tensor(weight), 16);
    g.constants[bias.index()] = repeat(g.tensor(bias), 1);
    let own: Vec<Vec<Tensor>> =
        (0..256).map(|s| vec![Tensor::new(vec![1, 16], wave(16, 0.1 * s as f64 * s as f64))]).collect();
    let thinner = sparsify(&g, &own, 0.02, false).expect("fits");
    assert!(thinner.layers[0].after <= 4, "{thinner}");
    assert!(thinner.changed <= 0.02);
    let error = own.iter().step_by(7).map(|x| {
        let [a, b] = [&g, &thinner.graph].map(|g| Interpreter::new(g).expect("valid").run(x).expect("fits")[0].clone());
        a.values().iter().zip(b.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    });
    if thinner.layers[0].after == 4 {
        assert!(error.fold(0.0, f64::max) < 0.05, "the refit should make good for what went");
    }
}

/// Both granularities on a real network: fewer units, as few changes as allowed, and a plan that is cheaper.
#[test]
fn a_real_network_loses_units_and_keeps_its_classes() {
    let graph = fhec_onnx::load(model("cryptonets.onnx")).expect("imports");
    let samples: Vec<Vec<Tensor>> = calibration_digits().into_iter().map(|d| vec![d]).collect();
    let options = Options { samples: samples.clone(), cost: fixed_prices(), ..Options::default() };
    for (mode, fewest) in [(Mode::Latency, 100), (Mode::Throughput { batch: None }, 945)] {
        let before = compile(&graph, &Options { mode, ..options.clone() }).expect("compiles");
        let thin = Options { mode, sparsify: Some(0.05), ..options.clone() };
        let after = compile(&graph, &thin).expect("compiles");
        let note = after.plan.report.notes.iter().find(|n| n.contains("predicted time")).expect("it is told");
        println!("{note}");
        let each = |plan: &fhec_plan::Plan| plan.report.seconds / plan.batch() as f64;
        assert!(each(&after.plan) <= each(&before.plan), "{note}");
        let whole = sparsify(&graph, &samples, 0.05, mode != Mode::Latency).expect("fits");
        let left: usize = whole.layers.iter().map(|l| l.after).sum();
        assert!(left < fewest, "{whole}");
        let changes = samples.iter().skip(3).step_by(4).filter(|x| {
            let class = |g: &Graph| argmax(Interpreter::new(g).expect("valid").run(x).expect("fits")[0].values());
            class(&graph) != class(&whole.graph)
        });
        assert!(changes.count() as f64 <= 0.05 * 32.0, "{whole}");
    }
}

#[test]
fn networks_without_classes_are_refused() {
    let mut g = Graph { name: "one".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let h = dense(&mut g, x, 4, "fc1");
    let y = dense(&mut g, h, 1, "fc2");
    g.outputs.push(Output { name: "y".into(), value: y });
    assert!(sparsify(&g, &samples(16), 0.1, false).is_err());
}
