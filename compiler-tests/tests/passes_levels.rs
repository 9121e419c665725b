//! Snapshots of the passes from planned ciphertext graph to plan: rescales, relinearisations, levels, scales,
//! parameters, keys. Each with a small network and real ones, and what they cost.

use compiler_tests::networks::{dense, finish, input, plain, product, samples};
use compiler_tests::{calibration_digits, cost_line, fixed_prices, model, sample_digits};
use fhec_ckks::BootstrapChain;
use fhec_ir::nn::{Graph, Interpreter, Op, Range, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_math::bootstrap::BootstrapSpec;
use fhec_passes::{Compiled, Options, compile_watched};
use fhec_plan::{Insecure, Parameters, verify::verify};
use std::collections::BTreeSet;
use std::fmt::Write;

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

/// Nodes of a ciphertext graph, without its tables.
fn nodes(text: &str) -> String {
    let keep = |line: &&str| line.trim_start().starts_with('%') || line.trim_start().starts_with("output");
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
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
    let Compiled { plan, he, facts, polynomial, .. } = &compiled;
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
        let options = Options { samples: samples.clone(), cost: fixed_prices(), ..Options::default() };
        insta::assert_snapshot!(graph.name.clone(), back(&graph, &options, &ALL, &samples[..2]));
    }
}

#[test]
fn bundled_networks() {
    let one = |digits: Vec<Tensor>| digits.into_iter().map(|d| vec![d]).collect::<Vec<_>>();
    let options = Options { samples: one(calibration_digits()), cost: fixed_prices(), ..Options::default() };
    for name in ["mlp_square", "cryptonets", "lola", "lenet_silu"] {
        let graph = fhec_onnx::load(model(&format!("{name}.onnx"))).expect("bundled models import");
        insta::assert_snapshot!(name, back(&graph, &options, &["levels"], &one(sample_digits())[..2]));
    }
}

/// ReLU by its Chebyshev series up to a degree: `(x + |x|)/2`.
fn relu(degree: usize) -> Vec<f64> {
    let coefficient = |k: usize| match k {
        0 => std::f64::consts::FRAC_1_PI,
        1 => 0.5,
        k if k % 2 == 1 => 0.0,
        k => (if k % 4 == 2 { 2.0 } else { -2.0 }) * std::f64::consts::FRAC_1_PI / ((k * k) as f64 - 1.0),
    };
    (0..=degree).map(coefficient).collect()
}

/// Four residual blocks of two dense layers, with polynomials of some degree: with seven levels each deeper than any chain.
fn deep_residual(degree: usize) -> Graph {
    let mut g = Graph { name: "deep_residual".into(), ..Graph::default() };
    let interval = Range { lo: -4.0, hi: 4.0 };
    let activation = |g: &mut Graph, x: ValueId, name: &str| {
        let op = Op::Polynomial { chebyshev: relu(degree), interval, label: "Relu".into() };
        let shape = g.node(x).shape.clone();
        g.push(op, vec![x], shape, Origin::named(name))
    };
    let x = input(&mut g, 16);
    let mut x = dense(&mut g, x, 16, "stem");
    for block in 1..=4 {
        let h = dense(&mut g, x, 16, &format!("block{block}.first"));
        let h = activation(&mut g, h, &format!("block{block}.relu1"));
        let h = dense(&mut g, h, 16, &format!("block{block}.second"));
        let sum = product(&mut g, Op::Add, h, x, &format!("block{block}.add"));
        x = activation(&mut g, sum, &format!("block{block}.relu2"));
    }
    let y = dense(&mut g, x, 4, "head");
    finish(g, y)
}

/// Levels of all values, and every bootstrap with what it costs and what the network would cost without it.
#[test]
fn bootstraps() {
    let samples = samples(16);
    let options = Options { samples: samples.clone(), cost: fixed_prices(), ..Options::default() };
    let graph = deep_residual(126);
    let mut text = back(&graph, &options, &["bootstraps"], &samples[..2]);
    let plan = compile_watched(&graph, &options, &mut |_| {}).expect("compiles").plan;
    for b in &plan.report.bootstraps {
        let without = b.without.map_or("impossible".into(), |more| format!("+{more:.2} s"));
        let (reg, from, to) = (b.reg.0, b.level_in, b.level_out);
        writeln!(text, "bootstrap %{reg}: level {from} -> {to}, {:.2} s, without {without}", b.seconds)
            .expect("takes all");
    }
    insta::assert_snapshot!("bootstraps", text);
}

/// Small primes are those of the preset `compact`, which the engine tests and `fhec bench` measures.
#[test]
fn few_bits_take_the_primes_of_the_compact_preset() {
    let options =
        Options { samples: samples(16), precision_bits: Some(9.0), cost: fixed_prices(), ..Options::default() };
    let Parameters { log_n, q, p, bootstrap, .. } =
        compile_watched(&deep_residual(14), &options, &mut |_| {}).expect("compiles").plan.parameters;
    let (chain, circuit) = (BootstrapChain::compact(), BootstrapChain::compact_spec());
    let spec = bootstrap.expect("deeper than the chain");
    assert_eq!(spec, BootstrapSpec { input_scale: spec.input_scale.clone(), ..circuit });
    let bits = |primes: &[u64]| primes.iter().map(|&p| (p as f64).log2().round() as u32).collect::<BTreeSet<u32>>();
    let (low, up) = (1 + spec.slots_to_coeffs.len(), q.len() - spec.coeffs_to_slots.len());
    let found = [&q[..1], &q[1..low], &q[up - spec.eval_mod_levels()..up], &q[up..], &p].map(bits);
    let sizes = [chain.base, chain.slots_to_coeffs, chain.eval_mod, chain.coeffs_to_slots, chain.special];
    assert_eq!((log_n, found), (chain.log_n, sizes.map(|size| BTreeSet::from([size]))));
}
