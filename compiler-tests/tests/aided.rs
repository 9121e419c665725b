//! Client-aided mode: networks with maxima, exact activations and residual branches, cut in two and put together again.

use compiler_tests::fixed_prices;
use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, ValueId};
use fhec_ir::{Origin, Tensor};
use fhec_passes::{Compiled, Mode, Options, compile_aided};
use fhec_plan::verify::{Insecure, Verified, VerifyError};
use fhec_plan::{ClientOp, Plan, PlanHead};
use fhec_runtime::{ClearBackend, NoiseBackend, evaluate};
use std::sync::Arc;

fn wave(shape: &[usize], seed: f64, size: f64) -> Tensor {
    let n = shape.iter().product();
    let at = |i: usize| f64::from((size * ((i as f64 + 31.0 * seed) * 0.731).sin()) as f32);
    Tensor::new(shape.to_vec(), (0..n).map(at).collect())
}

struct Net(Graph);

impl Net {
    fn node(&mut self, op: Op, inputs: &[ValueId], shape: &[usize], name: &str) -> ValueId {
        self.0.push(op, inputs.to_vec(), shape.to_vec(), Origin::named(name))
    }

    fn conv(&mut self, x: ValueId, out: usize, kernel: usize, stride: usize, name: &str) -> ValueId {
        let [_, c, h, w] = self.0.node(x).shape[..] else { panic!("an image") };
        let seed = self.0.constants.len() as f64;
        let weight =
            self.0.constant(wave(&[out, c, kernel, kernel], seed, (3.0 / (c * kernel * kernel) as f64).sqrt()));
        let bias = Some(self.0.constant(wave(&[out], seed, 0.1)));
        let pad = kernel / 2;
        let op = Op::Conv(Conv { weight, bias, strides: [stride; 2], pads: [pad; 4], dilations: [1; 2], groups: 1 });
        let after = |n: usize| (n + 2 * pad - kernel) / stride + 1;
        self.node(op, &[x], &[1, out, after(h), after(w)], name)
    }

    fn act(&mut self, x: ValueId, f: Activation, name: &str) -> ValueId {
        let shape = self.0.node(x).shape.clone();
        self.node(Op::Activation(f), &[x], &shape, name)
    }
}

/// Everything that mode is for: max-pool with uneven padding, a residual branch with a convolution in it and one without,
/// a concatenation, ReLU, ReLU6, sigmoid gates, softmax.
fn network() -> Graph {
    let mut n = Net(Graph { name: "aided".into(), ..Graph::default() });
    let x = n.node(Op::Input { name: "x".into() }, &[], &[1, 2, 7, 7], "x");
    let a = n.conv(x, 4, 3, 1, "conv1");
    let a = n.act(a, Activation::Relu, "relu1");
    // What ceil_mode makes of 7: a window that reaches over the edge.
    let pool = Pool { kernel: [2; 2], strides: [2; 2], pads: [0, 0, 1, 1], dilations: [1; 2], counted_pads: [0; 4] };
    let a = n.node(Op::MaxPool(pool), &[a], &[1, 4, 4, 4], "pool");
    let b = n.conv(a, 4, 3, 1, "conv2");
    let b = n.node(Op::Add, &[b, a], &[1, 4, 4, 4], "add1");
    let b = n.act(b, Activation::LeakyRelu { alpha: 0.125 }, "leaky");
    let c = n.conv(b, 4, 3, 2, "conv3");
    let c = n.act(c, Activation::Clip { min: 0.0, max: 6.0 }, "relu6");
    let c = n.conv(c, 4, 3, 1, "conv4");
    let d = n.conv(b, 4, 1, 2, "shortcut");
    let c = n.node(Op::Add, &[c, d], &[1, 4, 2, 2], "add2");
    let c = n.act(c, Activation::Relu, "relu2");
    let e = n.conv(c, 3, 1, 1, "expand1");
    let e = n.act(e, Activation::Relu, "relu3");
    let f = n.conv(c, 3, 3, 1, "expand3");
    let f = n.act(f, Activation::Sigmoid, "sigmoid");
    let g = n.node(Op::Concat { axis: 1 }, &[e, f], &[1, 6, 2, 2], "concat");
    let flat = n.node(Op::Reshape, &[g], &[1, 24], "flatten");
    let weight = n.0.constant(wave(&[5, 24], 7.0, 0.6));
    let y = n.node(Op::Dense { weight, bias: None }, &[flat], &[1, 5], "fc");
    let y = n.node(Op::Softmax { axis: 1 }, &[y], &[1, 5], "softmax");
    n.0.outputs.push(Output { name: "y".into(), value: y });
    n.0
}

fn samples() -> Vec<Vec<Tensor>> {
    (0..4).map(|i| vec![wave(&[1, 2, 7, 7], 100.0 + f64::from(i), 1.0)]).collect()
}

fn compiled(mode: Mode, samples: Vec<Vec<Tensor>>) -> Compiled {
    let input_range = Some(fhec_ir::nn::Range { lo: -1.0, hi: 1.0 });
    let options = Options { samples, mode, input_range, cost: fixed_prices(), ..Options::default() };
    compile_aided(&network(), &options, &mut |_| {}).expect("compiles")
}

fn verified(plan: Plan) -> Verified {
    Verified::new(plan, Insecure::Refuse).expect("the verifier agrees")
}

#[test]
fn both_parts_together_are_the_network() {
    let graph = network();
    let interpreter = Interpreter::new(&graph).expect("valid");
    for mode in [Mode::Latency, Mode::Throughput { batch: Some(64) }] {
        let plan = compiled(mode, samples()).plan;
        assert_eq!(plan.rounds(), 6, "{:?}", plan.report.notes);
        assert!((12..=14).contains(&plan.parameters.log_n), "2^{}", plan.parameters.log_n);
        // Written, read, and the same.
        let read = Plan::read(Arc::new(plan.to_bytes())).expect("reads");
        assert_eq!((read.aided.clone(), read.hash()), (plan.aided.clone(), plan.hash()));
        let verified = verified(read);
        let (clear, noise) = (ClearBackend::new(&verified), NoiseBackend::new(&verified, 5).expect("backend"));
        for sample in samples() {
            let want = interpreter.run(&sample).expect("runs");
            let inputs = || vec![sample[0].values().to_vec()];
            let exact = evaluate(&verified, &clear, inputs(), 1).expect("runs");
            let noisy = evaluate(&verified, &noise, inputs(), 1).expect("runs");
            for ((w, e), n) in want[0].values().iter().zip(&exact[0]).zip(&noisy[0]) {
                assert!((w - e).abs() < 1e-9, "{w} became {e}");
                assert!((w - n).abs() < 1.0 / 256.0, "{w} became {n} with noise");
            }
        }
        // Lanes are images, also in the client's part.
        let two = ClearBackend::with_lanes(&verified, 2);
        let joined: Vec<f64> = samples()[..2].iter().flat_map(|s| s[0].values().to_vec()).collect();
        let outputs = evaluate(&verified, &two, vec![joined], 2).expect("runs");
        let single = interpreter.run(&samples()[1]).expect("runs");
        assert!(outputs[0][5..].iter().zip(single[0].values()).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}

#[test]
fn no_data_are_needed() {
    let plan = compiled(Mode::Latency, vec![]).plan;
    assert!(plan.report.notes.iter().any(|n| n.contains("random inputs")), "{:?}", plan.report.notes);
    assert!(plan.report.output_bits > 8.0);
}

#[test]
fn what_the_client_gets_has_no_weights() {
    let graph = network();
    let plan = compiled(Mode::Latency, samples()).plan;
    let mut file = Vec::new();
    plan.write_head_to(&mut file).expect("writes");
    let head = PlanHead::read(&file).expect("reads");
    head.check(Insecure::Refuse).expect("sound");
    let aided = head.aided.expect("client-aided");
    // Elementwise constants are those of activations alone.
    for step in &aided.steps {
        assert!(!matches!(step.op, ClientOp::Affine { .. } | ClientOp::Polynomial { .. }), "{step:?}");
    }
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|w| w == needle);
    let weights: Vec<f64> =
        graph.constants.iter().flat_map(|c| c.values().to_vec()).filter(|v| v.abs() > 1e-3).collect();
    for w in weights {
        assert!(!holds(&w.to_le_bytes()) && !holds(&(w as f32).to_le_bytes()), "weight {w}");
    }
}

#[test]
fn what_is_seen_has_factors_and_an_order_of_its_own() {
    let plan = compiled(Mode::Latency, samples()).plan;
    // Of the convolutions, those that ReLU6 and sigmoid follow have no factors; the dense layer is the output's.
    let told = "19 channels are multiplied by factors that it does not know; 26 channels are in an order";
    assert!(plan.report.notes.iter().any(|n| n.contains(told)), "{:?}", plan.report.notes);
}

#[test]
fn unsound_rounds_are_refused() {
    let plan = compiled(Mode::Latency, samples()).plan;
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        Verified::new(plan, Insecure::Refuse).expect_err("unsound")
    };
    let aided = |change: &dyn Fn(&mut fhec_plan::Aided)| {
        let error = refused(&|plan| change(plan.aided.as_mut().expect("client-aided")));
        assert!(matches!(error, VerifyError::Client(_)), "{error}");
    };
    aided(&|a| a.rounds = 0);
    aided(&|a| a.rounds = u32::MAX);
    aided(&|a| a.rounds += 1);
    aided(&|a| a.network_inputs = 100);
    aided(&|a| a.network_inputs = 2);
    aided(&|a| a.sends.truncate(1));
    aided(&|a| a.sends[1].step = u32::MAX);
    aided(&|a| a.sends[1].step = 0);
    aided(&|a| a.sends[1].round = 0);
    aided(&|a| a.receives.clear());
    aided(&|a| a.receives[0] = 77);
    aided(&|a| a.results.clear());
    aided(&|a| a.results[0].step = 1 << 20);
    aided(&|a| a.results[0].error_std = f64::NAN);
    aided(&|a| a.steps[2].operands = vec![2]);
    aided(&|a| a.steps[2].operands = vec![]);
    aided(&|a| a.steps[2].shape = vec![1 << 40, 1 << 40]);
    aided(&|a| a.steps[1].op = ClientOp::Received(1 << 30));
    aided(&|a| a.steps[0].op = ClientOp::Given(1));
    // An instruction of a later round before one of an earlier round.
    let late = refused(&|plan| {
        let last = plan.instructions.iter().rposition(|i| matches!(i.op, fhec_plan::Op::Input(_))).expect("inputs");
        let moved = plan.instructions.remove(last);
        plan.instructions.insert(0, moved);
    });
    assert!(late.to_string().contains("round"), "{late}");
    // An output that the client expects in another round.
    let moved = refused(&|plan| plan.aided.as_mut().expect("client-aided").receives.swap(0, 1));
    assert!(moved.to_string().contains("round") || matches!(moved, VerifyError::Client(_)), "{moved}");
}

#[test]
fn a_network_without_weights_is_the_clients_alone() {
    let mut n = Net(Graph::default());
    let x = n.node(Op::Input { name: "x".into() }, &[], &[1, 4], "x");
    let y = n.act(x, Activation::Relu, "relu");
    n.0.outputs.push(Output { name: "y".into(), value: y });
    let options = Options { samples: vec![vec![wave(&[1, 4], 0.0, 1.0)]], ..Options::default() };
    let error = compile_aided(&n.0, &options, &mut |_| {}).expect_err("nothing for the server");
    assert!(error.to_string().contains("no layer with weights"), "{error}");
}
