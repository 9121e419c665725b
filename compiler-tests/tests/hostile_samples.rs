//! Calibration data are the user's: whatever finite values they hold, compiling ends with a plan that verifies, or with
//! an error that is not the compiler's own.

use compiler_tests::networks::{dense, finish, input, product};
use fhec_ir::nn::{Activation, Graph, Op, Range};
use fhec_ir::{Origin, Tensor};
use fhec_passes::{CompileError, Options, compile};
use fhec_plan::verify::{Insecure, verify};
use proptest::prelude::*;

/// A dense layer, its square and its activation, both added, and a dense layer.
fn network(activation: Activation) -> Graph {
    let mut g = Graph { name: "hostile".into(), ..Graph::default() };
    let x = input(&mut g, 4);
    let h = dense(&mut g, x, 3, "fc1");
    let s = product(&mut g, Op::Mul, h, h, "square");
    let a = g.push(Op::Activation(activation), vec![h], vec![1, 3], Origin::named("act"));
    let j = product(&mut g, Op::Add, s, a, "sum");
    let y = dense(&mut g, j, 2, "fc2");
    finish(g, y)
}

fn survive(graph: &Graph, options: &Options) {
    match compile(graph, options) {
        Ok(compiled) => {
            verify(&compiled.plan, Insecure::Refuse).unwrap_or_else(|e| panic!("{e}"));
        }
        Err(e @ (CompileError::Broken(_) | CompileError::Facts(_))) => panic!("{e}"),
        Err(_) => {}
    }
}

/// Numbers of every magnitude, and those at which something ends.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -2.0..2.0f64,
        2 => any::<f64>().prop_filter("data files with others are refused", |v| v.is_finite()),
        1 => prop::sample::select(vec![
            0.0, -0.0, 5e-324, f64::MIN_POSITIVE, 1e-200, -1e-30, 1e10, 1e30, -1e150, 1e154, 1e200, f64::MAX, f64::MIN,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_samples_never_panic(
        samples in prop::collection::vec(prop::collection::vec(number(), 4), 1..4),
        which in 0usize..4,
    ) {
        let activations = [Activation::Relu, Activation::Exp, Activation::Softplus, Activation::Power { exponent: 5 }];
        let samples = samples.into_iter().map(|v| vec![Tensor::new(vec![1, 4], v)]).collect();
        survive(&network(activations[which].clone()), &Options { samples, ..Options::default() });
    }

    #[test]
    fn mutated_ranges_never_panic(a in number(), b in number(), which in 0usize..4) {
        let activations = [Activation::Relu, Activation::Exp, Activation::Softplus, Activation::Power { exponent: 5 }];
        let input_range = Some(Range { lo: a.min(b), hi: a.max(b) });
        survive(&network(activations[which].clone()), &Options { input_range, ..Options::default() });
    }
}
