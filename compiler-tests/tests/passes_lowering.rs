//! Snapshots of the passes from tensor graph to planned ciphertext graph: merging, layouts and lowering,
//! BSGS, common subexpressions. Each with a small network and real ones, and what they cost.

use compiler_tests::{calibration_digits, model, sample_digits};
use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, Range, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_passes::approximate::{ApproximateOptions, approximate};
use fhec_passes::calibrate::calibrate;
use fhec_passes::canonicalise::canonicalise;
use fhec_passes::common_subexpressions::common_subexpressions;
use fhec_passes::fold_batch_norm::fold_batch_norm;
use fhec_passes::layouts::LinearCost;
use fhec_passes::lower::lower;
use fhec_passes::merge_linear::merge_linear;
use fhec_passes::plan_bsgs::{plan_bsgs, tally};
use std::fmt::Write;

/// A bundled model as lowering gets it.
fn network(name: &str) -> Graph {
    let samples: Vec<Vec<Tensor>> = calibration_digits().into_iter().take(24).map(|t| vec![t]).collect();
    let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
    let graph = canonicalise(&fold_batch_norm(&graph));
    let graph = calibrate(&graph, &samples).expect("digits fit");
    approximate(&graph, &samples, &ApproximateOptions::default()).expect("digits fit").graph
}

/// Two 3×3 convolutions with squares, a pooling and a dense layer on 8×8 pixels.
fn small() -> Graph {
    let wave = |shape: &[usize], seed: f64| {
        let n: usize = shape.iter().product();
        Tensor::new(shape.to_vec(), (0..n).map(|i| f64::from((seed + 1.7 * i as f64).sin() as f32)).collect())
    };
    let mut g = Graph { name: "small".into(), ..Graph::default() };
    let node = |g: &mut Graph, op: Op, input: Option<ValueId>, shape: &[usize], name: &str| {
        let v = g.push(op, input.into_iter().collect(), shape.to_vec(), Origin::named(name));
        g.nodes[v.index()].range = Some(Range { lo: -1.0, hi: 3.0 });
        v
    };
    let conv = |g: &mut Graph, c_out: usize, c_in: usize, stride: usize| {
        let weight = g.constant(wave(&[c_out, c_in, 3, 3], 0.1));
        let bias = Some(g.constant(wave(&[c_out], 0.7)));
        Op::Conv(Conv { weight, bias, strides: [stride; 2], pads: [1; 4], dilations: [1; 2], groups: 1 })
    };
    let square = || Op::Activation(Activation::Power { exponent: 2 });
    let x = node(&mut g, Op::Input { name: "x".into() }, None, &[1, 1, 8, 8], "x");
    let op = conv(&mut g, 4, 1, 2);
    let x = node(&mut g, op, Some(x), &[1, 4, 4, 4], "conv1");
    let x = node(&mut g, square(), Some(x), &[1, 4, 4, 4], "square1");
    let op = conv(&mut g, 8, 4, 1);
    let x = node(&mut g, op, Some(x), &[1, 8, 4, 4], "conv2");
    let x = node(&mut g, square(), Some(x), &[1, 8, 4, 4], "square2");
    let pool = Pool { kernel: [2; 2], strides: [2; 2], pads: [0; 4], dilations: [1; 2], counted_pads: [0; 4] };
    let x = node(&mut g, Op::AveragePool(pool), Some(x), &[1, 8, 2, 2], "pool");
    let x = node(&mut g, Op::Reshape, Some(x), &[1, 32], "flatten");
    let weight = g.constant(wave(&[3, 32], 0.2));
    let x = node(&mut g, Op::Dense { weight, bias: None }, Some(x), &[1, 3], "fc");
    g.outputs.push(Output { name: "y".into(), value: x });
    g
}

/// The planned graph with its cost line.
fn show(graph: &he::Graph) -> String {
    let planned = plan_bsgs(graph, |_| LinearCost::default().bsgs);
    format!("{planned}{}\n", tally(&planned))
}

/// Every pass of the middle of the pipeline on one network, printed; checked against the f64 meaning.
fn middle(graph: &Graph, slots: usize, inputs: &[Tensor]) -> String {
    let cost = LinearCost::default();
    let merged = merge_linear(graph, slots, &cost).expect("merges");
    let mut text = String::new();
    for decision in &merged.decisions {
        writeln!(text, "{decision}").expect("strings take all");
    }
    let lowered = lower(&merged.graph, slots, &cost).expect("lowers");
    he::verify(&lowered).unwrap_or_else(|e| panic!("{e}"));
    let unique = common_subexpressions(&lowered);
    he::verify(&unique).unwrap_or_else(|e| panic!("{e}"));
    text += &show(&unique);
    for x in inputs {
        let want = Interpreter::new(graph).expect("valid").run(std::slice::from_ref(x)).expect("fits");
        let got = he::interpret(&unique, std::slice::from_ref(x)).expect("fits");
        for (w, g) in want[0].values().iter().zip(got[0].values()) {
            assert!((w - g).abs() < 1e-6 * (1.0 + w.abs()), "{w} became {g}");
        }
    }
    text
}

#[test]
fn small_network() {
    let x = Tensor::new(vec![1, 1, 8, 8], (0..64).map(|i| (f64::from(i) * 0.37).sin()).collect());
    insta::assert_snapshot!("small", middle(&small(), 256, &[x]));
}

#[test]
fn bundled_networks() {
    let digits = &sample_digits()[..2];
    for (name, slots) in [("mlp_square", 4096), ("cryptonets", 4096), ("lola", 4096), ("lenet_silu", 8192)] {
        insta::assert_snapshot!(name, middle(&network(name), slots, digits));
    }
}

/// A network of several ciphertexts: blocks of one map share babies and giants.
#[test]
fn several_ciphertexts() {
    let x = Tensor::new(vec![1, 1, 8, 8], (0..64).map(|i| (f64::from(i) * 0.37).cos()).collect());
    insta::assert_snapshot!("several_ciphertexts", middle(&small(), 64, &[x]));
}

/// Equal maps of one value, equal constants and a dead branch.
#[test]
fn equal_values_are_computed_once() {
    let mut g = small();
    let twice = |g: &mut Graph, from: usize, inputs: Vec<ValueId>, name: &str| {
        let node = g.nodes[from].clone();
        let v = g.push(node.op, inputs, node.shape, Origin::named(name));
        g.nodes[v.index()].range = node.range;
        v
    };
    // conv1 and square1 again, from the same input, into the same sum twice; and a branch nobody reads
    let conv = twice(&mut g, 1, vec![ValueId(0)], "conv1-again");
    let square = twice(&mut g, 2, vec![conv], "square1-again");
    twice(&mut g, 2, vec![ValueId(4)], "dead");
    let shape = g.nodes[2].shape.clone();
    let sum = g.push(Op::Add, vec![ValueId(2), square], shape, Origin::named("sum"));
    g.nodes[sum.index()].range = Some(Range { lo: 0.0, hi: 6.0 });
    g.outputs.push(Output { name: "z".into(), value: sum });
    let lowered = lower(&g, 256, &LinearCost::default()).expect("lowers");
    let unique = common_subexpressions(&lowered);
    he::verify(&unique).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(unique.nodes.len(), lowered.nodes.len() - 3);
    let before = tally(&plan_bsgs(&lowered, |_| LinearCost::default().bsgs));
    insta::assert_snapshot!("equal_values", format!("before: {before}\n{}", show(&unique)));
}
