//! Throughput mode: one image per slot, a ciphertext per tensor element.

use compiler_tests::networks::{dense, finish, input, plain, samples};
use compiler_tests::{argmax, calibration_digits, cost_line, fixed_prices, golden, idx_images, idx_labels, model};
use compiler_tests::{sample_digits, shared};
use fhec_ir::nn::{Activation, Conv, Graph, Interpreter, Op};
use fhec_ir::{Origin, Tensor};
use fhec_math::scale::Scale;
use fhec_math::{SecretRng, conjugation_element};
use fhec_passes::{Compiled, Complex, Mode, Options, compile, compile_aided, compile_cheaper};
use fhec_plan::{Insecure, Instruction, Plan, PolyId, Polynomial, Reg, Verified, print};
use fhec_runtime::{ClearBackend, Client, EncryptionKey, NoiseBackend, RuntimeError, Server, run, server_context};
use std::sync::Arc;

fn options(samples: Vec<Vec<Tensor>>) -> Options {
    let (mode, cost) = (Mode::Throughput { batch: None }, fixed_prices());
    Options { samples, mode, complex: Complex::Off, cost, ..Options::default() }
}

fn compiled(graph: &Graph, samples: Vec<Vec<Tensor>>) -> Compiled {
    compiled_with(graph, samples, Complex::Off)
}

fn compiled_with(graph: &Graph, samples: Vec<Vec<Tensor>>, complex: Complex) -> Compiled {
    let compiled = compile(graph, &Options { complex, ..options(samples) }).expect("compiles");
    let plan = &compiled.plan;
    let images = if complex == Complex::On { 2 } else { 1 };
    assert_eq!(plan.batch(), images * plan.parameters.slots());
    let products = plan.instructions.iter().any(|i| matches!(i.op, fhec_plan::Op::Mul(..)));
    let keys: Vec<u64> = plan.keys.galois.keys().copied().collect();
    let conjugation = conjugation_element(plan.parameters.log_n);
    assert_eq!(keys, if products && images == 2 { vec![conjugation] } else { vec![] }, "nothing is rotated");
    compiled
}

/// A padded convolution with stride, squared, moved around for free, pooled and summed up.
fn moving() -> Graph {
    let mut g = Graph { name: "moving".into(), ..Graph::default() };
    let wave = |n: usize| (0..n).map(|i| f64::from((0.5 * (1.3 * i as f64).sin()) as f32)).collect();
    let name = Origin::named;
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 1, 6, 6], name("x"));
    let weight = g.constant(Tensor::new(vec![2, 1, 3, 3], wave(18)));
    let conv = Conv { weight, bias: None, strides: [2, 2], pads: [1, 1, 1, 1], dilations: [1, 1], groups: 1 };
    let h = g.push(Op::Conv(conv), vec![x], vec![1, 2, 3, 3], name("conv"));
    let h = g.push(Op::Mul, vec![h, h], vec![1, 2, 3, 3], name("square"));
    let t = g.push(Op::Transpose { perm: vec![0, 2, 3, 1] }, vec![h], vec![1, 3, 3, 2], name("transpose"));
    let s = g.push(Op::Slice { starts: vec![0, 1, 0, 0], steps: vec![1; 4] }, vec![t], vec![1, 2, 3, 2], name("slice"));
    let c = g.push(Op::Concat { axis: 1 }, vec![s, t], vec![1, 5, 3, 2], name("concat"));
    let flat = g.push(Op::Reshape, vec![c], vec![1, 30], name("reshape"));
    let y = dense(&mut g, flat, 3, "fc");
    finish(g, y)
}

/// The product of two different values, and a square of that with constants added: every operation that two images of a slot share.
fn products() -> Graph {
    let mut g = Graph { name: "products".into(), ..Graph::default() };
    let x = input(&mut g, 6);
    let (a, b) = (dense(&mut g, x, 4, "left"), dense(&mut g, x, 4, "right"));
    let name = Origin::named;
    let p = g.push(Op::Mul, vec![a, b], vec![1, 4], name("product"));
    let shift = g.constant(Tensor::new(vec![1, 4], vec![0.5, -0.25, 0.0, 1.0]));
    let s = g.push(Op::AddConst(shift), vec![p], vec![1, 4], name("shift"));
    let q = g.push(Op::Mul, vec![s, s], vec![1, 4], name("square"));
    let sum = g.push(Op::Add, vec![q, p], vec![1, 4], name("sum"));
    let y = dense(&mut g, sum, 3, "fc");
    finish(g, y)
}

fn images(shape: &[usize], count: usize) -> Vec<Tensor> {
    let size: usize = shape.iter().product();
    let one = |s: usize| (0..size).map(|i| (0.37 * (s * size + i) as f64).sin()).collect();
    (0..count).map(|s| Tensor::new(shape.to_vec(), one(s))).collect()
}

/// The plan of a small network, as its printer shows it.
#[test]
fn the_plan_of_a_small_network() {
    let plan = compiled(&plain(), samples(16)).plan;
    let line = cost_line(&plan);
    let verified = Verified::new(plan, Insecure::Refuse).expect("the independent verifier agrees");
    insta::assert_snapshot!(format!("{line}\n{}", print::listing(verified.plan(), Some(verified.facts()))));
}

/// Batches of one image, of some, and full ones under encryption, against the clear network.
#[test]
fn every_image_of_a_batch_has_its_own_result() {
    let wide = {
        let mut g = Graph { name: "wide".into(), ..Graph::default() };
        let x = input(&mut g, 5);
        let y = dense(&mut g, x, 2, "fc");
        finish(g, y)
    };
    let graphs = [plain(), moving(), wide, products()];
    for (graph, complex) in graphs.iter().flat_map(|g| [Complex::Off, Complex::On].map(|complex| (g, complex))) {
        let shape = graph.node(graph.inputs()[0]).shape.clone();
        let calibration = images(&shape, 16).into_iter().map(|i| vec![i]).collect();
        let compiled = compiled_with(graph, calibration, complex);
        // Through the bytes of a file.
        let plan = Plan::read(Arc::new(compiled.plan.to_bytes())).expect("reads back");
        assert_eq!(plan.head().batch(), plan.batch());
        let client = Client::new(plan.head(), None).expect("a secure head");
        let mut rng = SecretRng::from_seed(&[5; 32]);
        let secret = client.generate_secret(&mut rng);
        let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| {}).expect("keys");
        let (most, least_bits) = (plan.batch(), plan.report.output_bits - 5.0);
        let verified = Arc::new(Verified::new(plan, Insecure::Refuse).expect("verifies"));
        let context = server_context(&verified, None).expect("secure parameters");
        let server = Server::new(Arc::clone(&verified), &context, Arc::new(keys), 0).expect("the keys fit");
        let clear = Interpreter::new(&compiled.polynomial).expect("valid");
        let key = EncryptionKey::Secret(&secret);
        for count in [1, 3, most / 2 + 1, most] {
            let batch: Vec<Vec<Vec<f64>>> = images(&shape, count).iter().map(|i| vec![i.values().to_vec()]).collect();
            let bundle = client.encrypt_batch(&batch, key, &mut rng).expect("fits");
            let (output, _) = server.run(&bundle, &mut |_| {}).expect("runs");
            let got = client.decrypt_batch(0, &output, &secret).expect("decrypts");
            assert_eq!(got.len(), count);
            let (range, predicted) = (verified.plan().outputs[0].range, verified.plan().outputs[0].error_std);
            let mut squares = vec![0.0; got[0].len()];
            for (image, got) in batch.iter().zip(&got) {
                let want = clear.run(&[Tensor::new(shape.clone(), image[0].clone())]).expect("fits");
                for (a, b) in want[0].values().iter().zip(got) {
                    let bits = ((range.1 - range.0) / (a - b).abs()).log2();
                    assert!(bits > least_bits, "{}, {count} images: {a} became {b}", graph.name);
                }
                let errors = want[0].values().iter().zip(got);
                squares.iter_mut().zip(errors).for_each(|(s, (a, b))| *s += (a - b) * (a - b) / count as f64);
            }
            if count == most {
                let worst = squares.iter().fold(0.0f64, |m, &s| m.max(s)).sqrt();
                println!("{}, {complex:?}: error {worst:e}, predicted {predicted:e}", graph.name);
                assert!((predicted / 8.0..1.1 * predicted).contains(&worst), "{}, {complex:?}: {worst:e}", graph.name);
            }
        }
        // More than fit, none, and a wrong size.
        let one = vec![vec![0.0; shape.iter().product()]];
        let encrypt = |batch: &[Vec<Vec<f64>>]| client.encrypt_batch(batch, key, &mut SecretRng::from_seed(&[1; 32]));
        assert!(matches!(encrypt(&vec![one.clone(); most + 1]), Err(RuntimeError::Batch { .. })));
        assert!(matches!(encrypt(&[]), Err(RuntimeError::Batch { .. })));
        assert!(matches!(encrypt(&[one.clone(), vec![vec![0.0]]]), Err(RuntimeError::InputSize { .. })));
        assert!(matches!(encrypt(&[one.clone(), vec![]]), Err(RuntimeError::InputCount { .. })));
        // Ciphertexts that claim other numbers of images than those beside them, or than there is room for.
        let mut bundle = encrypt(&[one.clone(), one]).expect("fits");
        bundle[0].images = 1;
        assert!(matches!(server.run(&bundle, &mut |_| {}), Err(RuntimeError::Ciphertexts { .. })));
        bundle.iter_mut().for_each(|e| e.images = most as u32 + 1);
        assert!(matches!(server.run(&bundle, &mut |_| {}), Err(RuntimeError::Batch { .. })));
    }
}

/// Prices decide whether slots hold two images; what mixes them does not share a slot.
#[test]
fn two_images_share_a_slot_where_that_is_faster() {
    let with = |graph: &Graph, complex, samples| compile(graph, &Options { complex, ..options(samples) });
    let of_five = || images(&[1, 5], 16).into_iter().map(|i| vec![i]).collect::<Vec<_>>();
    let linear = {
        let mut g = Graph { name: "linear".into(), ..Graph::default() };
        let x = input(&mut g, 5);
        let y = dense(&mut g, x, 2, "fc");
        finish(g, y)
    };
    let plan = with(&linear, Complex::Auto, of_five()).expect("compiles").plan;
    assert!(plan.complex && plan.keys.galois.is_empty(), "a linear network takes half the time");
    let note = |plan: &Plan, start: &str| {
        let notes = &plan.report.notes;
        assert!(notes.iter().any(|n| n.starts_with(start)), "{notes:?}");
    };
    note(&plan, "complex packing: on; predicted for an image are");
    let plan = with(&plain(), Complex::Auto, samples(16)).expect("compiles").plan;
    let state = if plan.complex { "on" } else { "off" };
    note(&plan, &format!("complex packing: {state}; predicted for an image are"));
    let seconds = |complex| {
        let plan = with(&plain(), complex, samples(16)).expect("compiles").plan;
        plan.report.seconds / plan.batch() as f64
    };
    assert_eq!(plan.complex, seconds(Complex::On) < seconds(Complex::Off));
    // A function that becomes a polynomial.
    let cubic = {
        let mut g = Graph { name: "cubic".into(), ..Graph::default() };
        let x = input(&mut g, 5);
        let h = g.push(Op::Activation(Activation::Tanh), vec![x], vec![1, 5], Origin::named("tanh"));
        let y = dense(&mut g, h, 2, "fc");
        finish(g, y)
    };
    let plan = with(&cubic, Complex::Auto, of_five()).expect("compiles").plan;
    assert!(!plan.complex);
    note(&plan, "complex packing: off, polynomials");
    let refused = with(&cubic, Complex::On, of_five()).expect_err("refused").to_string();
    assert!(refused.contains("polynomials"), "{refused}");
}

/// The plan of two images a slot, as its printer shows it.
#[test]
fn the_plan_of_two_images_a_slot() {
    let plan = compiled_with(&plain(), samples(16), Complex::On).plan;
    let line = cost_line(&plan);
    let verified = Verified::new(plan, Insecure::Refuse).expect("the independent verifier agrees");
    insta::assert_snapshot!(format!("{line}\n{}", print::listing(verified.plan(), Some(verified.facts()))));
}

/// The verifier knows what two images a slot ask for.
#[test]
fn unsound_plans_of_two_images_a_slot_are_refused() {
    let plan = compiled_with(&plain(), samples(16), Complex::On).plan;
    let refused = |change: &dyn Fn(&mut Plan), with: &str| {
        let mut plan = plan.clone();
        change(&mut plan);
        let message = Verified::new(plan, Insecure::Refuse).expect_err("refused").to_string();
        assert!(message.contains(with), "{message}");
    };
    refused(&|plan| plan.keys.galois.clear(), "Galois element");
    refused(&|plan| plan.outputs[0].range = (-1e9, 1e9), "output 0");
    // Room for one value, not for two.
    let (level, scale) = (plan.outputs[0].level, plan.outputs[0].scale.clone());
    let half: f64 = plan.parameters.q[..=level].iter().map(|&q| (q as f64).log2()).sum::<f64>() - 1.0;
    let largest = (half - scale.log2() - 0.25).exp2() * plan.outputs[0].factor.abs();
    refused(&|plan| plan.outputs[0].range = (-largest, largest), "two values");
    let last = plan.instructions.len() - 1;
    let src = plan.instructions[0].dst;
    let polynomial = |plan: &mut Plan| {
        plan.polynomials.push(Polynomial { chebyshev: vec![0.0, 0.5, 0.25], label: "quadratic".into() });
        let op = fhec_plan::Op::Polynomial { src, poly: PolyId(0), out_scale: Scale::pow2(30) };
        plan.instructions.insert(last, Instruction { dst: Reg(9999), layer: plan.instructions[last].layer, op });
    };
    refused(&polynomial, "two images");
    let latency = Options { mode: Mode::Latency, ..options(samples(16)) };
    let mut plan = compile(&plain(), &latency).expect("compiles").plan;
    plan.complex = true;
    let message = Verified::new(plan, Insecure::Refuse).expect_err("refused").to_string();
    assert!(message.contains("two images a slot"), "{message}");
}

/// Modelled noise is that of encryption.
#[test]
fn noise_of_two_images_a_slot_is_modelled() {
    let graph = products();
    let shape = [1, 6];
    let calibration = images(&shape, 16).into_iter().map(|i| vec![i]).collect();
    let compiled = compiled_with(&graph, calibration, Complex::On);
    let predicted = compiled.plan.outputs[0].error_std;
    let verified = Verified::new(compiled.plan, Insecure::Refuse).expect("verifies");
    let noise = NoiseBackend::new(&verified, 0).expect("secure parameters");
    let clear = ClearBackend::new(&verified);
    let mut squares = [0.0; 3];
    let count = 400;
    for (seed, image) in images(&shape, count).iter().enumerate() {
        let input = || vec![image.values().to_vec()];
        let a = run(&verified, &clear, input(), &mut |_| {}).expect("runs").outputs;
        let b = run(&verified, &noise.with_seed(seed as u64), input(), &mut |_| {}).expect("runs").outputs;
        let pairs = a[0].iter().zip(&b[0]);
        squares.iter_mut().zip(pairs).for_each(|(s, (a, b))| *s += (a - b) * (a - b) / count as f64);
    }
    let worst = squares.iter().fold(0.0f64, |m, &s| m.max(s)).sqrt();
    println!("modelled {worst:e}, predicted {predicted:e}");
    assert!((predicted / 3.0..1.1 * predicted).contains(&worst), "{worst:e}, predicted {predicted:e}");
}

/// Several images in one ciphertext make no sense where one image has all slots.
#[test]
fn a_plan_of_the_other_mode_takes_one_image() {
    let latency = Options { mode: Mode::Latency, ..options(samples(16)) };
    let plan = compile(&plain(), &latency).expect("compiles").plan;
    assert_eq!(plan.batch(), 1);
    let client = Client::new(plan.head(), None).expect("a secure head");
    let mut rng = SecretRng::from_seed(&[6; 32]);
    let secret = client.generate_secret(&mut rng);
    let two = vec![vec![vec![0.5; 16]]; 2];
    let refused = client.encrypt_batch(&two, EncryptionKey::Secret(&secret), &mut rng);
    assert!(matches!(refused, Err(RuntimeError::Batch { found: 2, most: 1 })), "{refused:?}");
    // And ciphertexts of one mode are none of the other's: different plans have different parameters or layouts.
    let bundle = client.encrypt(&two[0], EncryptionKey::Secret(&secret), &mut rng).expect("fits");
    let batched = compiled(&plain(), samples(16)).plan;
    let other = Client::new(batched.head(), None).expect("a secure head");
    assert!(other.decrypt_batch(0, &bundle, &secret).is_err());
}

/// What would mix images is refused by the verifier, and so are images of some slots.
#[test]
fn plans_that_mix_images_are_refused() {
    let plan = compiled(&plain(), samples(16)).plan;
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan.clone();
        change(&mut plan);
        Verified::new(plan, Insecure::Refuse).expect_err("refused").to_string()
    };
    let last = plan.instructions.len() - 1;
    let insert = |op: fhec_plan::Op| {
        move |plan: &mut Plan| {
            let layer = plan.instructions[last].layer;
            plan.instructions.insert(last, Instruction { dst: Reg(9999), layer, op: op.clone() });
        }
    };
    let src = plan.instructions[0].dst;
    let message = refused(&insert(fhec_plan::Op::Rotate { src, steps: 1 }));
    assert!(message.contains("different images"), "{message}");
    let message = refused(&insert(fhec_plan::Op::Bootstrap { src, level: 1, out_scale: Scale::pow2(30) }));
    assert!(message.contains("different images"), "{message}");
    let message = refused(&|plan| plan.inputs[0].layout.slots = 2);
    assert!(message.contains("2 slots"), "{message}");
    let message = refused(&|plan| plan.outputs[0].layout.slots = plan.parameters.slots());
    assert!(message.contains("slots"), "{message}");
    let message = refused(&|plan| plan.matrices[0].slots = plan.parameters.slots());
    assert!(message.contains("matrix 0"), "{message}");
}

/// A batch that does not fill a large ring takes a smaller one where that is secure.
#[test]
fn rings_are_chosen_for_the_time_of_an_image() {
    let of = |batch| {
        let options = Options { mode: Mode::Throughput { batch }, ..options(samples(16)) };
        compile(&plain(), &options).expect("compiles").plan.parameters.log_n
    };
    assert!(of(Some(100)) <= of(None));
    assert_eq!(of(Some(1)), of(Some(100)));
}

/// One image is for latency mode, thousands are for throughput mode; both predictions are in the report.
#[test]
fn the_cheaper_mode_is_chosen() {
    for (batch, mode) in [(1, "latency"), (4096, "throughput")] {
        let compiled = compile_cheaper(&plain(), &options(samples(16)), batch, &mut |_| {}).expect("compiles");
        assert_eq!(compiled.plan.is_batched(), mode == "throughput");
        let notes = &compiled.plan.report.notes;
        assert!(notes.iter().any(|n| n.starts_with(&format!("mode: {mode} for a batch of {batch}"))), "{notes:?}");
        // Squares are not for the client.
        assert!(notes.iter().any(|n| n.contains("the client would have nothing to compute")), "{notes:?}");
    }
}

/// What client-aided mode would take is told beside the others, and is that of its plan.
#[test]
fn client_aided_mode_is_told_of() {
    let mut g = Graph { name: "relu".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let h = dense(&mut g, x, 8, "fc1");
    let h = g.push(Op::Activation(Activation::Relu), vec![h], vec![1, 8], Origin::named("relu"));
    let y = dense(&mut g, h, 4, "fc2");
    let graph = finish(g, y);
    for batch in [1, 4096] {
        let compiled = compile_cheaper(&graph, &options(samples(16)), batch, &mut |_| {}).expect("compiles");
        let throughput = Mode::Throughput { batch: Some(batch) };
        let mode = if compiled.plan.is_batched() { throughput } else { Mode::Latency };
        let aided = compile_aided(&graph, &Options { mode, ..options(samples(16)) }, &mut |_| {}).expect("compiles");
        let notes = &compiled.plan.report.notes;
        let note = notes.iter().find(|n| n.starts_with("mode: client-aided")).expect("it is told");
        assert!(note.contains("in 2 rounds") && aided.plan.rounds() == 2, "{note}");
        let seconds = batch.div_ceil(aided.plan.batch()) as f64 * aided.plan.report.seconds;
        assert!(note.contains(&format!("{seconds:.3} s on the server")), "{note}");
    }
}

/// The bundled networks, in the clear: layouts and maps mean the same as the model.
#[test]
fn bundled_networks_keep_their_meaning() {
    for name in ["mlp_square", "cryptonets"] {
        let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
        let calibration = calibration_digits().into_iter().map(|d| vec![d]).collect();
        let plan = compiled(&graph, calibration).plan;
        println!("{name}: N=2^{} {}", plan.parameters.log_n, cost_line(&plan));
        let verified = Verified::new(plan, Insecure::Refuse).expect("verifies");
        let backend = ClearBackend::new(&verified);
        for (digit, want) in sample_digits().iter().zip(golden(name)) {
            let got = run(&verified, &backend, vec![digit.values().to_vec()], &mut |_| {}).expect("runs").outputs;
            for (a, b) in want.iter().zip(&got[0]) {
                assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{name}: {a} became {b}");
            }
        }
    }
}

/// CryptoNets on all ten thousand test digits under encryption. Needs several gigabytes, so only with `FHEC_SLOW=1`.
#[test]
fn cryptonets_on_all_test_digits() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to run CryptoNets on all test digits under encryption");
        return;
    }
    let (Some(test), Some(labels)) =
        (shared("mnist/t10k-images-idx3-ubyte.gz"), shared("mnist/t10k-labels-idx1-ubyte.gz"))
    else {
        return;
    };
    let graph = fhec_onnx::load(model("cryptonets.onnx")).expect("bundled models import");
    let calibration = calibration_digits().into_iter().map(|d| vec![d]).collect();
    let plan = compiled(&graph, calibration).plan;
    let client = Client::new(plan.head(), None).expect("a secure head");
    let mut rng = SecretRng::from_os().expect("the system gives random numbers");
    let secret = client.generate_secret(&mut rng);
    let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| {}).expect("keys");
    let most = plan.batch();
    let verified = Arc::new(Verified::new(plan, Insecure::Refuse).expect("verifies"));
    let context = server_context(&verified, None).expect("secure parameters");
    let server = Server::new(verified, &context, Arc::new(keys), 0).expect("the keys fit");
    let clear = Interpreter::new(&graph).expect("valid");
    let (digits, labels) = (idx_images(&test), idx_labels(&labels));
    let (mut right, mut clear_right) = (0usize, 0usize);
    for (digits, labels) in digits.chunks(most).zip(labels.chunks(most)) {
        let batch: Vec<Vec<Vec<f64>>> = digits.iter().map(|d| vec![d.values().to_vec()]).collect();
        let bundle = client.encrypt_batch(&batch, EncryptionKey::Secret(&secret), &mut rng).expect("fits");
        let (output, trace) = server.run(&bundle, &mut |_| {}).expect("runs");
        let got = client.decrypt_batch(0, &output, &secret).expect("decrypts");
        println!(
            "{} digits in {:.2?}: {:.0} a second",
            digits.len(),
            trace.total,
            digits.len() as f64 / trace.total.as_secs_f64()
        );
        right += got.iter().zip(labels).filter(|(logits, label)| argmax(logits) == **label).count();
        let class = |d: &Tensor| argmax(clear.run(std::slice::from_ref(d)).expect("fits")[0].values());
        clear_right += digits.iter().zip(labels).filter(|(d, label)| class(d) == **label).count();
    }
    println!("{right} of {} right, {clear_right} in the clear", digits.len());
    assert!(right.abs_diff(clear_right) as f64 <= 0.0005 * digits.len() as f64);
}
