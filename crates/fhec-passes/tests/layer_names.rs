//! Layers are called what people know them as, whatever they became.

mod common;

use common::{Net, tensor};
use fhec_ir::Tensor;
use fhec_ir::nn::{Activation, Graph, Op, ValueId};
use fhec_passes::approximate::{ApproximateOptions, Method};
use fhec_passes::{Options, compile};
use std::collections::BTreeMap;

/// Kinds of the layers of a network with an input of 16 numbers, by name.
fn kinds(graph: &Graph, method: Method) -> BTreeMap<String, String> {
    let samples = (100..104).map(|s| vec![tensor(&graph.nodes[0].shape, s)]).collect();
    let approximate = ApproximateOptions { method, ..Default::default() };
    let options = Options { samples, approximate, ..Options::default() };
    let plan = compile(graph, &options).unwrap_or_else(|e| panic!("{e}")).plan;
    plan.layers.into_iter().map(|l| (l.name, l.kind)).collect()
}

/// Kind of the only layer whose name ends so.
#[track_caller]
fn kind<'k>(kinds: &'k BTreeMap<String, String>, name: &str) -> &'k str {
    let mut found = kinds.iter().filter(|(n, _)| n.ends_with(name));
    match (found.next(), found.next()) {
        (Some((_, kind)), None) => kind,
        _ => panic!("{name} in {kinds:?}"),
    }
}

fn activation(net: &mut Net, x: ValueId, f: Activation) -> ValueId {
    net.push(Op::Activation(f), &[x])
}

#[test]
fn powers_have_their_exponent() {
    let mut net = Net::new(&[1, 16]);
    let x = net.dense(net.input(), 8);
    let x = net.power(x, 3);
    let x = net.dense(x, 8);
    let x = net.square(x);
    let x = net.dense(x, 4);
    net.output(x);
    let kinds = kinds(&net.finish(), Method::Layerwise);
    assert_eq!((kind(&kinds, "pow2"), kind(&kinds, "pow4")), ("Pow 3", "Square"), "{kinds:?}");
}

/// A sum of two values takes no bias: the shift that completes the square comes first.
#[test]
fn a_quadratic_is_neither_its_first_sum_nor_its_square() {
    let mut net = Net::new(&[1, 16]);
    let a = net.dense(net.input(), 8);
    let a = net.square(a);
    let b = net.square(a);
    let sum = net.push(Op::Add, &[a, b]);
    let square = net.square(sum);
    let linear = net.times(sum, Tensor::new(vec![1, 8], (1..9).map(f64::from).collect()));
    let quadratic = net.push(Op::Add, &[square, linear]);
    let y = net.dense(quadratic, 4);
    net.output(y);
    let kinds = kinds(&net.finish(), Method::Layerwise);
    assert_eq!(kind(&kinds, "add7"), "Quadratic", "{kinds:?}");
}

/// What brings a difference of squares into the interval of the polynomial comes first.
#[test]
fn approximated_activations_have_the_models_name_and_their_interval() {
    let mut net = Net::new(&[1, 16]);
    let squares = [8, 8].map(|rows| {
        let x = net.dense(net.input(), rows);
        net.square(x)
    });
    let x = net.push(Op::Sub, &squares);
    let bound = activation(&mut net, x, Activation::Clip { min: f64::NEG_INFINITY, max: 0.5 });
    let x = net.dense(bound, 4);
    net.output(x);
    let mut graph = net.finish();
    let kinds_of = |graph: &Graph| {
        let kinds = kinds(graph, Method::Layerwise);
        kind(&kinds, "clip6").to_owned()
    };
    let anonymous = kinds_of(&graph);
    assert!(anonymous.starts_with("Clip on ["), "{anonymous}");
    let node = &mut graph.nodes[bound.index()];
    node.origin = node.origin.known_as("Min");
    assert_eq!(kinds_of(&graph), anonymous.replace("Clip", "Min"));
}

#[test]
fn a_composite_is_one_activation_in_stages() {
    let mut net = Net::new(&[1, 16]);
    let x = net.dense(net.input(), 8);
    let x = activation(&mut net, x, Activation::Relu);
    let x = net.dense(x, 8);
    let x = activation(&mut net, x, Activation::Clip { min: -0.5, max: 0.5 });
    let x = net.dense(x, 4);
    net.output(x);
    let kinds = kinds(&net.finish(), Method::Minimax(7));
    let found = (kind(&kinds, "relu2"), kind(&kinds, "clip4"));
    assert_eq!(found, ("Relu α=7 in 2 stages", "Clip α=7 in 2 stages"));
}
