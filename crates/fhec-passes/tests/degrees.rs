//! Degrees beyond 127 are for networks that lower ones do not approximate as well as was asked for.

mod common;

use common::{Net, tensor};
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Graph, Op, ValueId};
use fhec_passes::approximate::ApproximateOptions;
use fhec_passes::{Compiled, Options, compile};
use fhec_plan::Plan;
use fhec_plan::verify::{Insecure, verify};
use std::sync::Arc;

const INPUTS: usize = 16;

/// An activation, times something, between dense layers, and quadratic layers behind it.
fn network(width: usize, (activation, gain): (Activation, f64), behind: usize) -> Graph {
    let mut net = Net::new(&[1, INPUTS]);
    let x = net.dense(ValueId(0), width);
    let x = net.push(Op::Activation(activation), &[x]);
    let mut x = net.times(x, Tensor::scalar(gain));
    for _ in 0..behind {
        let y = net.dense(x, INPUTS);
        let y = net.times(y, Tensor::scalar(0.45));
        let square = net.square(y);
        let square = net.times(square, Tensor::scalar(0.02));
        x = net.push(Op::Add, &[y, square]);
    }
    let x = net.dense(x, 3);
    net.output(x);
    net.finish()
}

/// Nearly a jump from -1 to 1, which takes high degrees.
fn step(behind: usize) -> Graph {
    network(64, (Activation::Clip { min: -0.02, max: 0.02 }, 50.0), behind)
}

fn compiled(graph: &Graph, tolerance: f64, precision_bits: Option<f64>) -> Compiled {
    let samples = (0..64).map(|s| vec![tensor(&[1, INPUTS], 40 + s)]).collect();
    let approximate = ApproximateOptions { tolerance, ..ApproximateOptions::default() };
    compile(graph, &Options { samples, approximate, precision_bits, ..Options::default() })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The highest degree, and whether the report has a note with these words.
fn outcome(compiled: &Compiled, words: &str) -> (usize, bool) {
    let degree = |op: &Op| if let Op::Polynomial { chebyshev, .. } = op { chebyshev.len() - 1 } else { 0 };
    let highest = compiled.polynomial.nodes.iter().map(|n| degree(&n.op)).max();
    (highest.unwrap_or(0), compiled.plan.report.notes.iter().any(|note| note.contains(words)))
}

#[test]
fn a_tolerance_that_is_asked_for_is_met_by_degrees_beyond_127() {
    let graph = network(8, (Activation::Relu, 1.0), 0);
    for (tolerance, most, higher) in [(0.005, 127, false), (0.001, 255, true), (0.0003, 511, true)] {
        let found = compiled(&graph, tolerance, None);
        let (degree, noted) = outcome(&found, "activations have degrees up to");
        assert!(degree <= most && (degree > 127) == higher && noted == higher, "{tolerance}: degree {degree}");
        assert!(!outcome(&found, "asked:").1, "{:?}", found.plan.report.notes);
        // Whoever evaluates the plan accepts it.
        let plan = Plan::read(Arc::new(found.plan.to_bytes())).expect("reads");
        verify(&plan, Insecure::Refuse).expect("the independent verifier agrees");
    }
}

#[test]
fn the_default_tolerance_is_worth_little_time() {
    let graph = step(0);
    let tolerance = ApproximateOptions::default().tolerance;
    let usual = compiled(&graph, tolerance, None);
    assert_eq!(outcome(&usual, "times as long: they are for"), (127, true));
    assert!(outcome(&usual, "up to degree 127 change the outputs by").1);
    // Nearly the same, but asked for.
    let asked = compiled(&graph, 1.01 * tolerance, None);
    assert_eq!(outcome(&asked, "activations have degrees up to 511"), (511, true));
    assert!(asked.plan.report.seconds > 1.25 * usual.plan.report.seconds);
}

#[test]
fn where_other_layers_take_most_of_the_time_higher_degrees_need_not_be_asked_for() {
    let found = compiled(&step(24), ApproximateOptions::default().tolerance, Some(10.0));
    assert_eq!(outcome(&found, "activations have degrees up to 255"), (255, true));
    assert!(outcome(&found, "degrees up to 511 would change them").1, "{:?}", found.plan.report.notes);
}
