//! The whole pipeline on networks written by hand.

use fhec_ir::nn::{Graph, Interpreter, Op, Output, Range, ValueId};
use fhec_ir::{Origin, Tensor, he};
use fhec_passes::{CompileError, Options, compile, compile_watched};
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
}
