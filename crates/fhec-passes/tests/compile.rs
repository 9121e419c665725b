//! The whole pipeline on networks written by hand.

use fhec_ir::nn::{Activation, Graph, Interpreter, Op, Output, Pool, Range, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_passes::canonicalise::canonicalise;
use fhec_passes::pipeline::check;
use fhec_passes::{CompileError, Mode, Options, PRECISION_BITS, compile, compile_watched};
use fhec_plan::Postprocess;
use fhec_plan::verify::Insecure;

mod graphs;
use graphs::random;

/// Dense layers of the given widths with squares between them.
fn square_mlp(widths: &[usize]) -> Graph {
    let mut g = Graph { name: "mlp".into(), ..Graph::default() };
    let mut x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, widths[0]], Origin::named("x"));
    for (i, pair) in widths.windows(2).enumerate() {
        let (cols, rows) = (pair[0], pair[1]);
        if i > 0 {
            x = g.push(Op::Mul, vec![x, x], vec![1, cols], Origin::named(format!("square{i}")));
        }
        let scale = (3.0 / cols as f64).sqrt();
        let w = random(i as u64 + 1, rows * cols).iter().map(|v| v * scale).collect();
        let weight = g.constant(Tensor::new(vec![rows, cols], w));
        let bias = Some(g.constant(Tensor::new(vec![rows], random(i as u64 + 50, rows))));
        x = g.push(Op::Dense { weight, bias }, vec![x], vec![1, rows], Origin::named(format!("fc{i}")));
    }
    output(&mut g, x);
    g
}

fn output(g: &mut Graph, value: ValueId) {
    g.outputs.push(Output { name: "y".into(), value });
}

fn samples(n: usize, width: usize) -> Vec<Vec<Tensor>> {
    (0..n).map(|i| vec![Tensor::new(vec![1, width], random(900 + i as u64, width))]).collect()
}

#[test]
fn a_square_network_becomes_a_plan() {
    let g = square_mlp(&[784, 128, 128, 10]);
    let options = Options { samples: samples(20, 784), ..Options::default() };
    let start = std::time::Instant::now();
    let mut passes = Vec::new();
    let c = compile_watched(&g, &options, &mut |run| passes.push((run.pass, run.log_n, run.time))).expect("compiles");
    println!("{:?} {passes:?}", start.elapsed());
    println!("{:#?} {:?} keys {}", c.plan.report, c.plan.parameters, c.plan.keys.galois.len());
    fhec_plan::verify::verify(&c.plan, Insecure::Refuse).expect("the independent verifier agrees");
    assert_eq!(c.plan.parameters.log_n, 13);
    assert_eq!(c.plan.parameters.q.len(), 6);
    let clear = Interpreter::new(&g).expect("valid");
    for sample in samples(3, 784) {
        let want = clear.run(&sample).expect("runs");
        let got = he::interpret(&c.he, &sample).expect("runs");
        for (w, g) in want[0].values().iter().zip(got[0].values()) {
            assert!((w - g).abs() < 1e-9 * w.abs().max(1.0));
        }
    }
}

#[test]
fn compiling_twice_gives_the_same_plan() {
    let g = square_mlp(&[64, 32, 10]);
    let options = Options { samples: samples(4, 64), ..Options::default() };
    let plan = || format!("{:?}", compile(&g, &options).expect("compiles").plan);
    assert_eq!(plan(), plan());
}

#[test]
fn ranges_must_come_from_somewhere() {
    let g = square_mlp(&[16, 8, 4]);
    assert!(matches!(compile(&g, &Options::default()), Err(CompileError::NoRange)));
    let options = Options { input_range: Some(Range { lo: -1.0, hi: 1.0 }), ..Options::default() };
    let c = compile(&g, &options).expect("a declared range is enough");
    assert!(!c.plan.report.notes.is_empty(), "the user is told");
}

#[test]
fn a_memory_budget_is_obeyed_or_refused_with_the_least_that_works() {
    let g = square_mlp(&[64, 32, 10]);
    let options = |memory_budget| Options { samples: samples(4, 64), memory_budget, ..Options::default() };
    let Err(error) = compile(&g, &options(Some(1 << 20))) else { panic!("one MiB cannot suffice") };
    let text = error.to_string();
    let least: u64 = text.rsplit(' ').nth(1).and_then(|n| n.parse().ok()).expect("the message ends in a number of MiB");
    let c = compile(&g, &options(Some(least << 20))).expect("the stated budget works");
    assert!(c.plan.report.peak_memory <= least << 20);
    // The least there is: as many rotations as possible have no key.
    assert!(!c.plan.keys.composed.is_empty());
    let roomy = compile(&g, &options(None)).expect("compiles").plan;
    assert!(roomy.keys.composed.is_empty() && roomy.keys.galois.len() >= c.plan.keys.galois.len());
    assert!(roomy.report.key_bytes_disk > c.plan.report.key_bytes_disk);
    assert!(roomy.report.seconds < c.plan.report.seconds, "two key switches take longer than one");
}

#[test]
fn a_budget_below_whole_tensors_is_streamed_where_images_share_ciphertexts() {
    // All of the first hidden layer is there before anything of the second one is.
    let g = square_mlp(&[16, 700, 600, 10]);
    let mode = Mode::Throughput { batch: None };
    let options = |memory_budget| Options { samples: samples(4, 16), memory_budget, mode, ..Options::default() };
    let roomy = compile(&g, &options(None)).expect("compiles").plan;
    let Err(error) = compile(&g, &options(Some(8 << 20))) else { panic!("8 MiB cannot suffice") };
    let text = error.to_string();
    let least: u64 = text.rsplit(' ').nth(1).and_then(|n| n.parse().ok()).expect("the message ends in a number of MiB");
    assert!(least << 20 < roomy.report.peak_memory * 3 / 4, "{least} MiB of {}", roomy.report.peak_memory);
    let poor = compile(&g, &options(Some(least << 20))).expect("the stated budget works").plan;
    assert!(poor.report.peak_memory <= least << 20, "{} of {least} MiB", poor.report.peak_memory);
    let note = poor.report.notes.iter().find(|n| n.starts_with("streaming: ")).expect("it is streamed");
    assert!(!note.contains(" 0.0 MiB written") && !note.contains("predicted 0.000 s"), "disks take time: {note}");
    let most = roomy.report.peak_memory;
    let enough = compile(&g, &options(Some(most))).expect("what it takes anyway works").plan;
    assert!(enough.report.notes.iter().all(|n| !n.starts_with("streaming: ")));
}

fn powers(exponents: &[u32]) -> Graph {
    let mut g = Graph { name: "powers".into(), ..Graph::default() };
    let mut x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 4], Origin::named("x"));
    for (i, &exponent) in exponents.iter().enumerate() {
        let op = Op::Activation(Activation::Power { exponent });
        x = g.push(op, vec![x], vec![1, 4], Origin::named(format!("power{i}")));
    }
    output(&mut g, x);
    g
}

#[test]
fn chained_powers_stay_bounded_and_are_not_refused_for_their_depth() {
    let merged = canonicalise(&powers(&[2, 3, 10]));
    assert!(matches!(merged.nodes[1].op, Op::Activation(Activation::Power { exponent: 60 })));
    assert_eq!(merged.nodes.len(), 2);
    // 64^5 fits a u32 and no memory.
    assert_eq!(canonicalise(&powers(&[64; 5])).nodes.len(), 6);
    // Bootstraps have no limit.
    check(&powers(&[64; 40])).expect("240 multiplications in a row are not refused for their number");
}

#[test]
fn a_network_deeper_than_any_chain_is_bootstrapped() {
    let mut g = square_mlp(&[6, 5]);
    let mut x = g.outputs.remove(0).value;
    for i in 0..50 {
        let seed = 200 + i as u64;
        let w = random(seed, 25).iter().map(|v| v * 0.6).collect();
        let weight = g.constant(Tensor::new(vec![5, 5], w));
        let bias = Some(g.constant(Tensor::new(vec![5], random(seed + 100, 5))));
        x = g.push(Op::Dense { weight, bias }, vec![x], vec![1, 5], Origin::named(format!("deep{i}")));
        let tanh = Op::Activation(Activation::Tanh);
        x = g.push(tanh, vec![x], vec![1, 5], Origin::named(format!("tanh{i}")));
    }
    output(&mut g, x);
    let options = Options { samples: samples(200, 6), ..Options::default() };
    let start = std::time::Instant::now();
    let c = compile(&g, &options).expect("compiles");
    println!("{:?} {:#?}", start.elapsed(), c.plan.report.notes);
    fhec_plan::verify::verify(&c.plan, Insecure::Refuse).expect("the independent verifier agrees");
    let bootstraps = c.he.nodes.iter().filter(|n| matches!(n.op, he::Op::Bootstrap { .. })).count();
    println!("{bootstraps} bootstraps, {} s, {} bits", c.plan.report.seconds, c.plan.report.output_bits);
    assert!((3..=50).contains(&bootstraps), "{bootstraps}");
    // No bootstrap gets values beyond its range: the scale that it expects follows from the ranges of all of them.
    let verified = fhec_plan::Verified::new(c.plan.clone(), Insecure::Refuse).expect("verifies");
    let spec = c.plan.parameters.bootstrap.as_ref().expect("bootstraps");
    let sources = c.he.nodes.iter().filter(|n| matches!(n.op, he::Op::Bootstrap { .. })).map(|n| n.inputs[0]);
    let instructions = c.plan.instructions.iter().filter(|i| matches!(i.op, fhec_plan::Op::Bootstrap { .. }));
    let mut fullest = 0.0f64;
    for (source, instruction) in sources.zip(instructions) {
        let range = c.he.node(source).range;
        let scale = &verified.register(instruction.op.sources()[0]).scale;
        fullest = fullest.max(range.lo.abs().max(range.hi.abs()) * scale.div(&spec.input_scale).to_f64());
    }
    assert!((0.4..=1.0).contains(&fullest), "{fullest}");
    let clear = Interpreter::new(&c.polynomial).expect("valid");
    for sample in samples(3, 6) {
        let want = clear.run(&sample).expect("runs");
        let got = he::interpret(&c.he, &sample).expect("runs");
        for (w, g) in want[0].values().iter().zip(got[0].values()) {
            assert!((w - g).abs() < 1e-9 * w.abs().max(1.0));
        }
    }
}

#[test]
fn a_network_may_end_in_an_activation() {
    for activation in [Activation::Relu, Activation::Tanh, Activation::Exp] {
        let mut g = square_mlp(&[6, 5]);
        let last = g.outputs.remove(0).value;
        let y = g.push(Op::Activation(activation.clone()), vec![last], vec![1, 5], Origin::named("last"));
        output(&mut g, y);
        let options = Options { samples: samples(16, 6), ..Options::default() };
        let plan = compile(&g, &options).unwrap_or_else(|e| panic!("{activation:?}: {e}")).plan;
        fhec_plan::verify::verify(&plan, Insecure::Refuse).expect("the independent verifier agrees");
        assert!(plan.report.output_bits >= PRECISION_BITS);
    }
}

#[test]
fn an_output_that_never_changes_is_as_precise_as_others() {
    let mut g = Graph { name: "constant".into(), ..Graph::default() };
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 4], Origin::named("x"));
    let weight = g.constant(Tensor::new(vec![3, 4], vec![0.0; 12]));
    let bias = Some(g.constant(Tensor::new(vec![3], vec![2.5; 3])));
    let y = g.push(Op::Dense { weight, bias }, vec![x], vec![1, 3], Origin::named("fc"));
    output(&mut g, y);
    let options = Options { samples: samples(4, 4), ..Options::default() };
    let plan = compile(&g, &options).expect("compiles").plan;
    assert!((15.0..60.0).contains(&plan.report.output_bits), "{}", plan.report.output_bits);
}

#[test]
fn a_refusal_for_precision_tells_what_may_explain_it() {
    let options =
        Options { input_range: Some(Range { lo: -1.0, hi: 1.0 }), precision_bits: Some(90.0), ..Options::default() };
    let error = compile(&square_mlp(&[6, 5, 4]), &options).expect_err("90 bits").to_string();
    assert!(error.contains("90 bits of precision") && error.contains("calibration data"), "{error}");
}

#[test]
fn softmax_before_reshapes_is_left_to_the_client() {
    let mut g = Graph { name: "softmax".into(), ..Graph::default() };
    let x = g.push(Op::Input { name: "x".into() }, vec![], vec![1, 4], Origin::named("x"));
    let weight = g.constant(Tensor::new(vec![10, 4], random(3, 40)));
    let y = g.push(Op::Dense { weight, bias: None }, vec![x], vec![1, 10], Origin::named("fc"));
    let y = g.push(Op::Activation(Activation::Sigmoid), vec![y], vec![1, 10], Origin::named("sigmoid"));
    let weight = g.constant(Tensor::new(vec![10, 10], random(4, 100)));
    let y = g.push(Op::Dense { weight, bias: None }, vec![y], vec![1, 10], Origin::named("last"));
    let y = g.push(Op::Reshape, vec![y], vec![1, 10, 1], Origin::named("in"));
    let y = g.push(Op::Softmax { axis: 1 }, vec![y], vec![1, 10, 1], Origin::named("softmax"));
    let y = g.push(Op::Reshape, vec![y], vec![1, 2, 5], Origin::named("apart"));
    let y = g.push(Op::Reshape, vec![y], vec![10], Origin::named("out"));
    output(&mut g, y);
    let options = Options { samples: samples(16, 4), precision_bits: Some(10.0), ..Options::default() };
    let compiled = compile(&g, &options).expect("compiles");
    let port = &compiled.plan.outputs[0];
    assert_eq!(
        (port.shape.as_slice(), port.postprocess.as_slice()),
        (&[10][..], &[Postprocess::Softmax { axis: 0 }][..])
    );
    assert!(compiled.plan.report.notes.iter().any(|n| n.contains("softmax")), "{:?}", compiled.plan.report.notes);
    let run = |g: &Graph| Interpreter::new(g).expect("valid").run(&options.samples[0]).expect("runs").remove(0);
    let (expected, got) = (run(&g), run(&compiled.polynomial));
    assert_eq!(expected.shape(), got.shape());
    assert!(expected.values().iter().zip(got.values()).all(|(a, b)| (a - b).abs() < 0.02), "{expected:?} {got:?}");
}

#[test]
fn a_fixed_batch_is_no_reason_to_refuse() {
    let pool = Pool { kernel: [1, 1], strides: [1, 1], pads: [0; 4], dilations: [1, 1], counted_pads: [0; 4] };
    let mut g = Graph { name: "batch".into(), ..Graph::default() };
    let shape = vec![2, 3, 4, 4];
    let mut x = g.push(Op::Input { name: "x".into() }, vec![], shape.clone(), Origin::named("x"));
    let maximum = Pool { kernel: [3, 3], pads: [1; 4], ..pool.clone() };
    for (i, op) in [Op::AveragePool(pool.clone()), Op::AveragePool(pool), Op::MaxPool(maximum)].into_iter().enumerate()
    {
        x = g.push(op, vec![x], shape.clone(), Origin::named(format!("pool{i}")));
    }
    output(&mut g, x);
    let Err(CompileError::Model(found)) = check(&g) else { panic!("max-pool compiles") };
    let blamed: Vec<String> = found.0.iter().map(|d| d.origin.to_string()).collect();
    assert_eq!(blamed, ["pool2"], "{found}");
}
