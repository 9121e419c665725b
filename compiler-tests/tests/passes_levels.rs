//! Snapshots of the passes from planned ciphertext graph to plan: rescales, relinearisations, levels, scales,
//! parameters, keys. Each with a small network and real ones, and what they cost.

use compiler_tests::{calibration_digits, model, sample_digits};
use fhec_ir::nn::{Graph, Interpreter, Op, Output, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_passes::{Compiled, Options, compile_watched};
use fhec_plan::{Insecure, Plan, verify::verify};
use std::fmt::Write;

/// A dense layer with weights that are the same on every machine.
fn dense(g: &mut Graph, x: ValueId, rows: usize, name: &str) -> ValueId {
    let cols = g.node(x).shape[1];
    let seed = g.constants.len() as f64;
    let wave = |n: usize, amplitude: f64| {
        (0..n).map(|i| f64::from((amplitude * (seed + 1.7 * i as f64).sin()) as f32)).collect::<Vec<f64>>()
    };
    let weight = g.constant(Tensor::new(vec![rows, cols], wave(rows * cols, (2.0 / cols as f64).sqrt())));
    let bias = Some(g.constant(Tensor::new(vec![rows], wave(rows, 0.1))));
    g.push(Op::Dense { weight, bias }, vec![x], vec![1, rows], Origin::named(name))
}

fn product(g: &mut Graph, op: Op, x: ValueId, y: ValueId, name: &str) -> ValueId {
    let shape = g.node(x).shape.clone();
    g.push(op, vec![x, y], shape, Origin::named(name))
}

fn input(g: &mut Graph, width: usize) -> ValueId {
    g.push(Op::Input { name: "x".into() }, vec![], vec![1, width], Origin::named("x"))
}

fn finish(mut g: Graph, value: ValueId) -> Graph {
    g.outputs.push(Output { name: "y".into(), value });
    g
}

/// Dense, square, dense: one of everything.
fn plain() -> Graph {
    let mut g = Graph { name: "plain".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let h = dense(&mut g, x, 8, "fc1");
    let h = product(&mut g, Op::Mul, h, h, "square");
    let y = dense(&mut g, h, 4, "fc2");
    finish(g, y)
}

/// A skip around a square and a dense layer, then x² + x: level drops, a shared scale, one rescale for the sum.
fn residual() -> Graph {
    let mut g = Graph { name: "residual".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let h = dense(&mut g, x, 16, "fc1");
    let s = product(&mut g, Op::Mul, h, h, "square1");
    let s = dense(&mut g, s, 16, "fc2");
    let j = product(&mut g, Op::Add, s, h, "join");
    let q = product(&mut g, Op::Mul, j, j, "square2");
    let q = product(&mut g, Op::Add, q, j, "quadratic");
    let y = dense(&mut g, q, 4, "fc3");
    finish(g, y)
}

/// Two squares and a product in one sum: one relinearisation, one rescale, one adapter where x⁴ meets x².
fn sums() -> Graph {
    let mut g = Graph { name: "sums".into(), ..Graph::default() };
    let x = input(&mut g, 16);
    let a = dense(&mut g, x, 8, "a");
    let b = dense(&mut g, x, 8, "b");
    let aa = product(&mut g, Op::Mul, a, a, "aa");
    let bb = product(&mut g, Op::Mul, b, b, "bb");
    let ab = product(&mut g, Op::Mul, a, b, "ab");
    let s = product(&mut g, Op::Add, aa, bb, "aa+bb");
    let s = product(&mut g, Op::Sub, s, ab, "aa+bb-ab");
    let s4 = product(&mut g, Op::Mul, aa, aa, "aaaa");
    let s = product(&mut g, Op::Add, s4, s, "sum");
    let y = dense(&mut g, s, 4, "fc");
    finish(g, y)
}

fn samples(width: usize) -> Vec<Vec<Tensor>> {
    let one = |s: usize| (0..width).map(|i| (0.37 * (s * width + i) as f64).sin()).collect();
    (0..8).map(|s| vec![Tensor::new(vec![1, width], one(s))]).collect()
}

/// Nodes of a ciphertext graph, without its tables.
fn nodes(text: &str) -> String {
    let keep = |line: &&str| line.trim_start().starts_with('%') || line.trim_start().starts_with("output");
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// `rotations=… keyswitches=… …`: what the plan costs.
fn cost_line(plan: &Plan) -> String {
    let sum = |f: fn(&fhec_plan::LayerReport) -> u32| plan.report.layers.iter().map(f).sum::<u32>();
    let rescales = plan
        .instructions
        .iter()
        .filter(|i| matches!(i.op, fhec_plan::Op::Rescale(_) | fhec_plan::Op::LinearMap { .. }))
        .count();
    format!(
        "rotations={} keyswitches={} pmul={} rescales={rescales} depth={} bootstraps=0 keys={} bytes={}",
        sum(|l| l.rotations),
        sum(|l| l.key_switches),
        sum(|l| l.plaintext_products),
        plan.parameters.max_level(),
        plan.keys.galois.len() + usize::from(plan.keys.relin.is_some()),
        plan.report.key_bytes_memory,
    )
}

/// Everything from the planned graph on, printed; checked by the independent verifier and against the f64 meaning.
fn back(graph: &Graph, options: &Options, passes: &[&str], inputs: &[Vec<Tensor>]) -> String {
    let mut after: Vec<(&'static str, u32, String)> = Vec::new();
    let compiled = compile_watched(graph, options, &mut |run| {
        if let Some(log_n) = run.log_n {
            after.push((run.pass, log_n, nodes(&run.graph.to_string())));
        }
    })
    .expect("compiles");
    let Compiled { plan, he, facts, polynomial } = &compiled;
    let mut text = String::new();
    for (pass, _, nodes) in after.iter().filter(|a| a.1 == plan.parameters.log_n && passes.contains(&a.0)) {
        writeln!(text, "== {pass}\n{nodes}").expect("strings take all");
    }
    let bits =
        |primes: &[u64]| primes.iter().map(|&q| format!("{:.1}", (q as f64).log2())).collect::<Vec<_>>().join(" ");
    let p = &plan.parameters;
    writeln!(text, "== select-parameters").expect("strings take all");
    writeln!(text, "N=2^{} q=[{}] p=[{}] digits={:?}", p.log_n, bits(&p.q), bits(&p.p), p.digits).expect("takes all");
    for (id, fact) in he.ids().zip(facts.values()) {
        let degree = if fact.degree == 1 { "" } else { ", degree 2" };
        let (level, scale) = (fact.level, fact.scale.log2());
        writeln!(text, "  %{} {}: level {level}, scale 2^{scale:.3}{degree}", id.0, he.node(id).op.name())
            .expect("takes all");
    }
    writeln!(text, "precision {:.1} bits\n{}", plan.report.output_bits, cost_line(plan)).expect("takes all");

    verify(plan, Insecure::Refuse).expect("the independent verifier agrees");
    for x in inputs {
        let want = Interpreter::new(polynomial).expect("valid").run(x).expect("fits");
        let got = he::interpret(he, x).expect("fits");
        for (w, g) in want[0].values().iter().zip(got[0].values()) {
            assert!((w - g).abs() < 1e-6 * (1.0 + w.abs()), "{w} became {g}");
        }
    }
    text
}

const ALL: [&str; 4] = ["common-subexpressions", "rescale", "relinearise", "levels"];

#[test]
fn small_networks() {
    for graph in [plain(), residual(), sums()] {
        let samples = samples(16);
        let options = Options { samples: samples.clone(), ..Options::default() };
        insta::assert_snapshot!(graph.name.clone(), back(&graph, &options, &ALL, &samples[..2]));
    }
}

#[test]
fn bundled_networks() {
    let one = |digits: Vec<Tensor>| digits.into_iter().map(|d| vec![d]).collect::<Vec<_>>();
    let options = Options { samples: one(calibration_digits()), ..Options::default() };
    for name in ["mlp_square", "cryptonets", "lola", "lenet_silu"] {
        let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
        insta::assert_snapshot!(name, back(&graph, &options, &["levels"], &one(sample_digits())[..2]));
    }
}
