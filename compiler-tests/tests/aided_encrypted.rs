//! Client-aided plans under encryption, both parties in one process: batches, and the shared networks as published.
//!
//! The larger networks take minutes and gigabytes, so only with `FHEC_SLOW=1`; with `FHEC_ONLY=NAME` just one.

use compiler_tests::onnx_node::tensors;
use compiler_tests::{argmax, fixed_prices, shared};
use fhec_ckks::SecretKey;
use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op, Output, Pool, Range};
use fhec_ir::{Origin, Tensor};
use fhec_math::SecretRng;
use fhec_passes::{Complex, Mode, Options, compile_aided};
use fhec_plan::{Insecure, Plan, Verified};
use fhec_runtime::{Client, EncryptionKey, Play, RuntimeError, Server, server_context};
use std::sync::Arc;

/// Client and server of a plan that was written and read.
struct Parties {
    client: Client,
    secret: SecretKey,
    server: Server,
    rng: SecretRng,
}

impl Parties {
    fn new(plan: &Plan) -> Self {
        let plan = Plan::read(Arc::new(plan.to_bytes())).expect("reads back");
        let client = Client::new(plan.head(), None).expect("a secure head");
        let mut rng = SecretRng::from_seed(&[9; 32]);
        let secret = client.generate_secret(&mut rng);
        let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| {}).expect("keys");
        let verified = Arc::new(Verified::new(plan, Insecure::Refuse).expect("the verifier agrees"));
        let context = server_context(&verified, None).expect("secure parameters");
        let server = Server::new(verified, &context, Arc::new(keys), 0).expect("the keys fit");
        Parties { client, secret, server, rng }
    }

    /// Plays all rounds with several images; the first output of each.
    fn play(&mut self, images: &[Tensor]) -> Result<Vec<Vec<f64>>, RuntimeError> {
        let head = self.client.head();
        let aided = head.aided.as_ref().expect("client-aided");
        let play = |image: &Tensor| Play::new(aided, &head.inputs, &[image.values().to_vec()]);
        let mut plays = images.iter().map(play).collect::<Result<Vec<_>, _>>()?;
        let mut kept = None;
        for round in 0..aided.rounds {
            plays.iter_mut().for_each(|play| play.advance(round));
            let key = EncryptionKey::Secret(&self.secret);
            let bundle = self.client.encrypt_round(&plays, round, key, &mut self.rng)?;
            let answer = self.server.round(round, &mut kept, &bundle, &mut |_| {})?;
            // What lives on is no more than the server counts with.
            let bytes = kept.as_ref().map_or(0, |kept| kept.bytes() as u64);
            assert!(bytes <= self.server.backend().verified().facts().kept_bytes(), "{bytes} bytes are kept");
            for index in (0..head.outputs.len()).filter(|&i| head.output_round(i) == round) {
                let decrypted = self.client.decrypt_batch(index, &answer, &self.secret)?;
                assert_eq!(decrypted.len(), images.len());
                plays.iter_mut().zip(decrypted).for_each(|(play, values)| play.receive(index, &values));
            }
        }
        assert!(kept.is_none(), "nothing is kept after the last round");
        plays.iter_mut().for_each(|play| play.advance(aided.rounds));
        plays.iter().map(|play| Ok(play.result(0)?.to_vec())).collect()
    }
}

/// Every value is that of the network to 2^-8 of the span of all values, and the largest is the same one.
#[track_caller]
fn agree(name: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let (lo, hi) = want.iter().fold((f64::MAX, f64::MIN), |(lo, hi), &v| (lo.min(v), hi.max(v)));
    let error = got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((g - w).abs())) / (hi - lo);
    println!("{name}: error 2^{:.1} of the span of the outputs", error.log2());
    assert!(error < 1.0 / 256.0, "{name}: {got:?} instead of {want:?}");
    assert_eq!(argmax(got), argmax(want), "{name}");
}

fn wave(shape: &[usize], seed: f64, size: f64) -> Tensor {
    let count = shape.iter().product();
    let at = |i: usize| f64::from((size * ((i as f64 + 31.0 * seed) * 0.731).sin()) as f32);
    Tensor::new(shape.to_vec(), (0..count).map(at).collect())
}

/// Convolution, ReLU, max-pool and a shortcut around the next convolution whose result only the server knows, ReLU, dense.
fn residual() -> Graph {
    let mut g = Graph { name: "residual".into(), ..Graph::default() };
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 1, 6, 6], Origin::named("x"));
    let conv = |g: &mut Graph, x, from: usize, to: usize, kernel: usize, size: usize, name: &str| {
        let seed = g.constants.len() as f64;
        let weight = g.constant(wave(&[to, from, kernel, kernel], seed, 0.6));
        let bias = Some(g.constant(wave(&[to], seed, 0.1)));
        let pads = [kernel / 2; 4];
        let op = Op::Conv(Conv { weight, bias, strides: [1; 2], pads, dilations: [1; 2], groups: 1 });
        g.push(op, vec![x], vec![1, to, size, size], Origin::named(name))
    };
    let relu = |g: &mut Graph, x, shape: &[usize], name: &str| {
        g.push(Op::Activation(Activation::Relu), vec![x], shape.to_vec(), Origin::named(name))
    };
    let h = conv(&mut g, x, 1, 2, 3, 6, "conv1");
    let h = relu(&mut g, h, &[1, 2, 6, 6], "relu1");
    let pool = Pool { kernel: [2; 2], strides: [2; 2], pads: [0; 4], dilations: [1; 2], counted_pads: [0; 4] };
    let h = g.push(Op::MaxPool(pool), vec![h], vec![1, 2, 3, 3], Origin::named("pool"));
    let shortcut = conv(&mut g, h, 2, 2, 1, 3, "shortcut");
    let h = conv(&mut g, h, 2, 2, 3, 3, "conv2");
    let h = relu(&mut g, h, &[1, 2, 3, 3], "relu2");
    let h = conv(&mut g, h, 2, 2, 3, 3, "conv3");
    let h = g.push(Op::Add, vec![h, shortcut], vec![1, 2, 3, 3], Origin::named("add"));
    let h = relu(&mut g, h, &[1, 2, 3, 3], "relu3");
    let flat = g.push(Op::Reshape, vec![h], vec![1, 18], Origin::named("flatten"));
    let weight = g.constant(wave(&[4, 18], 7.0, 0.6));
    let y = g.push(Op::Dense { weight, bias: None }, vec![flat], vec![1, 4], Origin::named("fc"));
    g.outputs.push(Output { name: "y".into(), value: y });
    g
}

/// An image in each slot, and two in each: one, some, and as many as there is room for; and those of one image over all slots.
#[test]
fn every_image_of_a_batch_has_its_own_result() {
    let graph = residual();
    let interpreter = Interpreter::new(&graph).expect("valid");
    let image = |i: usize| wave(&[1, 1, 6, 6], 50.0 + 1.7 * i as f64, 1.0);
    let throughput = Mode::Throughput { batch: Some(64) };
    let modes = [(Mode::Latency, Complex::Auto), (throughput, Complex::Off), (throughput, Complex::On)];
    for (mode, complex) in modes {
        let batched = mode != Mode::Latency;
        let samples = (0..16).map(|i| vec![image(i)]).collect();
        let input_range = Some(Range { lo: -1.0, hi: 1.0 });
        let options = Options { samples, mode, complex, input_range, cost: fixed_prices(), ..Options::default() };
        let plan = compile_aided(&graph, &options, &mut |_| {}).expect("compiles").plan;
        assert_eq!((plan.is_batched(), plan.complex), (batched, complex == Complex::On));
        let most = plan.batch();
        let mut parties = Parties::new(&plan);
        assert!(parties.server.backend().verified().facts().kept_bytes() > 0, "the shortcut lives on");
        let play = |parties: &mut Parties, count: usize| parties.play(&(0..count).map(image).collect::<Vec<_>>());
        assert!(matches!(play(&mut parties, most + 1), Err(RuntimeError::Batch { .. })));
        assert!(matches!(play(&mut parties, 0), Err(RuntimeError::Batch { .. })));
        for count in [1, 5, most / 2 + 1, most].into_iter().filter(|&count| count <= most) {
            for (got, image) in play(&mut parties, count).expect("plays").iter().zip((0..).map(image)) {
                let want = interpreter.run(&[image]).expect("runs").remove(0);
                let error = got.iter().zip(want.values()).fold(0.0f64, |m, (g, w)| m.max((g - w).abs()));
                assert!(error < 1.0 / 256.0, "{count} images: {got:?} instead of {:?}", want.values());
            }
        }
    }
}

/// A network of the shared data on its first golden input, with ranges from the other ones where there are any, against its
/// golden output.
fn published(name: &str) {
    if std::env::var("FHEC_ONLY").is_ok_and(|only| only != name) {
        return;
    }
    let Some(folder) = shared("models") else { return };
    let graph = fhec_onnx::load(folder.join(format!("{name}.onnx"))).expect("imports");
    let golden = |set: usize, what: &str| tensors(&folder.join(format!("golden/{name}/test_data_set_{set}")), what);
    let mut samples: Vec<Vec<Tensor>> = (0..).map(|set| golden(set, "input")).take_while(|s| !s.is_empty()).collect();
    assert!(!samples.is_empty(), "{name} has no golden data");
    if samples.len() > 1 {
        samples.remove(0);
    }
    let options = Options { samples, cost: fixed_prices(), ..Options::default() };
    let plan = compile_aided(&graph, &options, &mut |_| {}).unwrap_or_else(|e| panic!("{name}: {e}")).plan;
    let got = Parties::new(&plan).play(&golden(0, "input")).expect("plays").remove(0);
    agree(name, &got, golden(0, "output")[0].values());
}

fn published_if_slow(name: &str) {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to play {name} under encryption");
        return;
    }
    published(name);
}

#[test]
fn mnist_cntk() {
    published("mnist_cntk");
}

#[test]
fn resnet8() {
    published_if_slow("resnet8_folded");
}

#[test]
fn mobilenet() {
    published_if_slow("mobilenetv1_025_vww");
}

#[test]
fn squeezenet() {
    published_if_slow("squeezenet11");
}
