//! Snapshots of the passes from tensor graph to planned ciphertext graph: merging, layouts and lowering,
//! BSGS, common subexpressions. Each with a small network and real ones, and what they cost.

use compiler_tests::{calibration_digits, model, sample_digits, shared};
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
use fhec_passes::plan_bsgs::{Counted, plan_bsgs, tally};
use std::fmt::Write;

/// A bundled model as lowering gets it: activations are polynomials and every value has a range. Both are made
/// here in the simplest way, so that snapshots do not depend on how well the passes before do it.
fn network(name: &str) -> Graph {
    let digits = &calibration_digits()[..8];
    let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
    let mut graph = canonicalise(&fold_batch_norm(&graph));
    for at in 0..graph.nodes.len() {
        if let Op::Activation(f) = &graph.nodes[at].op
            && !matches!(f, Activation::Power { .. })
        {
            let chebyshev = vec![0.3, 0.5, 0.2, 0.0, 0.05, 0.0, -0.03, 0.01];
            let interval = graph.node(graph.nodes[at].inputs[0]).range.expect("operands come first");
            graph.nodes[at].op = Op::Polynomial { chebyshev, interval, label: format!("some {}", f.name()) };
        }
        let mut head = graph.clone();
        head.nodes.truncate(at + 1);
        head.outputs = vec![Output { name: "y".into(), value: ValueId(at as u32) }];
        let run = |x: &Tensor| Interpreter::new(&head).expect("valid").run(std::slice::from_ref(x)).expect("fits");
        let values: Vec<f64> = digits.iter().flat_map(|x| run(x)[0].values().to_vec()).collect();
        let (lo, hi) = values.iter().fold((0.0f64, 0.0f64), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        graph.nodes[at].range = Some(Range { lo, hi });
    }
    graph
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
    let planned = plan_bsgs(graph, |_| LinearCost::default().bsgs, &Counted::default());
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

/// Residual, depthwise and strided networks of the shared data keep their meaning; their counts are close to what
/// Orion's rules give for ResNet-20 (about 8 400 diagonals, 870 rotations).
#[test]
fn shared_networks() {
    let cases = [("resnet8_folded", 14, 32), ("resnet20", 15, 32), ("mobilenetv1_025_vww", 15, 96)];
    let slow = std::env::var_os("FHEC_SLOW").is_some();
    for (name, log_slots, side) in cases {
        if !slow && name != "resnet8_folded" {
            println!("skipped: {name} (set FHEC_SLOW=1)");
            continue;
        }
        let Some(path) = shared(&format!("models/{name}.onnx")) else { return };
        let graph = canonicalise(&fold_batch_norm(&fhec_onnx::load(path).expect("imports")));
        let image = |seed: f64| {
            let n = 3 * side * side;
            Tensor::new(vec![1, 3, side, side], (0..n).map(|i| (seed + 0.37 * i as f64).sin()).collect())
        };
        let samples: Vec<Vec<Tensor>> = (0..3).map(|i| vec![image(f64::from(i))]).collect();
        let graph = calibrate(&graph, &samples).expect("fits");
        let graph = approximate(&graph, &samples, &ApproximateOptions::default()).expect("fits").graph;
        let started = std::time::Instant::now();
        let cost = LinearCost::default();
        let merged = merge_linear(&graph, 1 << log_slots, &cost).expect("merges").graph;
        let lowered = common_subexpressions(&lower(&merged, 1 << log_slots, &cost).expect("lowers"));
        let planned = plan_bsgs(&lowered, |_| cost.bsgs, &Counted::default());
        let tally = tally(&planned);
        println!("{name}: {tally} in {:?}", started.elapsed());
        he::verify(&planned).unwrap_or_else(|e| panic!("{e}"));
        let want = Interpreter::new(&graph).expect("valid").run(&samples[1]).expect("fits");
        let got = he::interpret(&planned, &samples[1]).expect("fits");
        for (w, g) in want[0].values().iter().zip(got[0].values()) {
            assert!((w - g).abs() < 1e-6 * (1.0 + w.abs()), "{name}: {w} became {g}");
        }
        if name == "resnet20" {
            assert!(tally.plaintext_products < 8_500 && tally.rotations < 1_200, "{tally}");
        }
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
    // conv1 and square1 again, from the same input, into the same sum twice
    let conv = twice(&mut g, 1, vec![ValueId(0)], "conv1-again");
    let square = twice(&mut g, 2, vec![conv], "square1-again");
    let shape = g.nodes[2].shape.clone();
    let sum = g.push(Op::Add, vec![ValueId(2), square], shape, Origin::named("sum"));
    g.nodes[sum.index()].range = Some(Range { lo: 0.0, hi: 6.0 });
    g.outputs.push(Output { name: "z".into(), value: sum });
    let mut lowered = lower(&g, 256, &LinearCost::default()).expect("lowers");
    let nobody_reads_it = lowered.nodes[3].clone();
    lowered.push(nobody_reads_it);
    let unique = common_subexpressions(&lowered);
    he::verify(&unique).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(unique.nodes.len(), lowered.nodes.len() - 3);
    let before = tally(&plan_bsgs(&lowered, |_| LinearCost::default().bsgs, &Counted::default()));
    insta::assert_snapshot!("equal_values", format!("before: {before}\n{}", show(&unique)));
}
