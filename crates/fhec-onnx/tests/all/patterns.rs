//! Activations written as several nodes become one, and only the right ones do.

use crate::common::*;
use fhec_ir::nn::{Activation, Graph, Op};

const X: [f64; 5] = [-4.0, -0.7, 0.0, 1.3, 5.0];

fn base() -> Writer {
    let scalar = |w: Writer, name: &str, v: f32| w.floats(name, &[], &[v]);
    [
        ("half", 0.5),
        ("one", 1.0),
        ("three", 3.0),
        ("zero", 0.0),
        ("six", 6.0),
        ("sqrt2", std::f32::consts::SQRT_2),
        ("k", 0.044715),
        ("root", 0.797_884_6),
    ]
    .into_iter()
    .fold(Writer::new(14, &[1, 5]), |w, (name, v)| scalar(w, name, v))
}

/// The only activation of the graph, which must stand alone between input and output.
fn only(writer: Writer) -> (Activation, Graph) {
    let graph = writer.outputs("y").import().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.nodes.len(), 2, "{graph}");
    match &graph.nodes[1].op {
        Op::Activation(a) => {
            let y = run(&graph, &X);
            close(&y[0], &[1, 5], &X.map(|v| a.eval(v)));
            (a.clone(), graph.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn swish() {
    let silu = base().node("Sigmoid", "x -> s", vec![]).node("Mul", "s x -> y", vec![]);
    let (found, graph) = only(silu);
    assert_eq!(found, Activation::Swish { alpha: 1.0 });
    assert_eq!(graph.nodes[1].origin.to_string(), "y");
    let scaled =
        base().node("Mul", "x three -> t", vec![]).node("Sigmoid", "t -> s", vec![]).node("Mul", "x s -> y", vec![]);
    assert_eq!(only(scaled).0, Activation::Swish { alpha: 3.0 });
}

#[test]
fn hard_swish_and_mish() {
    let hard = base().node("HardSigmoid", "x -> s", vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)]).node(
        "Mul",
        "x s -> y",
        vec![],
    );
    assert_eq!(only(hard).0, Activation::HardSwish);
    let clipped = base()
        .node("Add", "x three -> a", vec![])
        .node("Clip", "a zero six -> c", vec![])
        .node("Div", "c six -> d", vec![])
        .node("Mul", "x d -> y", vec![]);
    assert_eq!(only(clipped).0, Activation::HardSwish);
    // An operation for each end, in either order.
    let above = || base().node("Add", "x three -> a", vec![]);
    for ends in [
        above().node("Relu", "a -> b", vec![]).node("Min", "b six -> c", vec![]),
        above().node("Min", "a six -> b", vec![]).node("Max", "b zero -> c", vec![]),
        above().node("Max", "zero a -> b", vec![]).node("Clip", "b zero six -> c", vec![]),
    ] {
        let ends = ends.node("Mul", "x c -> m", vec![]).node("Div", "m six -> y", vec![]);
        assert_eq!(only(ends).0, Activation::HardSwish);
    }
    let mish = base().node("Softplus", "x -> p", vec![]).node("Tanh", "p -> t", vec![]).node("Mul", "x t -> y", vec![]);
    assert_eq!(only(mish).0, Activation::Mish);
}

#[test]
fn gelu_by_the_error_function_in_any_order() {
    let gate =
        || base().node("Div", "x sqrt2 -> a", vec![]).node("Erf", "a -> e", vec![]).node("Add", "e one -> p", vec![]);
    let orders = [
        gate().node("Mul", "x p -> m", vec![]).node("Mul", "m half -> y", vec![]),
        gate().node("Mul", "x half -> m", vec![]).node("Mul", "m p -> y", vec![]),
        gate().node("Mul", "p half -> m", vec![]).node("Mul", "m x -> y", vec![]),
    ];
    for order in orders {
        assert_eq!(only(order).0, Activation::Gelu { tanh: false });
    }
}

#[test]
fn gelu_by_tanh() {
    let finish = |w: Writer| {
        w.node("Tanh", "r -> t", vec![]).node("Add", "one t -> p", vec![]).node("Mul", "half x -> h", vec![]).node(
            "Mul",
            "h p -> y",
            vec![],
        )
    };
    let power = finish(
        base()
            .node("Pow", "x three -> c", vec![])
            .node("Mul", "c k -> kc", vec![])
            .node("Add", "x kc -> s", vec![])
            .node("Mul", "s root -> r", vec![]),
    );
    assert_eq!(only(power).0, Activation::Gelu { tanh: true });
    let products = finish(
        base()
            .node("Mul", "x x -> q", vec![])
            .node("Mul", "q x -> c", vec![])
            .node("Mul", "c k -> kc", vec![])
            .node("Add", "kc x -> s", vec![])
            .node("Mul", "root s -> r", vec![]),
    );
    assert_eq!(only(products).0, Activation::Gelu { tanh: true });
    let factored = finish(
        base()
            .node("Mul", "x x -> q", vec![])
            .node("Mul", "q k -> kq", vec![])
            .node("Add", "kq one -> f", vec![])
            .node("Mul", "x root -> rx", vec![])
            .node("Mul", "rx f -> r", vec![]),
    );
    assert_eq!(only(factored).0, Activation::Gelu { tanh: true });
}

#[test]
fn similar_products_stay_as_they_are() {
    let cases = [
        // Another argument, another slope, another offset, another coefficient.
        base().node("Neg", "x -> n", vec![]).node("Sigmoid", "x -> s", vec![]).node("Mul", "n s -> y", vec![]),
        base().node("HardSigmoid", "x -> s", vec![float("alpha", 0.2), float("beta", 0.5)]).node(
            "Mul",
            "x s -> y",
            vec![],
        ),
        base().node("Add", "x one -> a", vec![]).node("Sigmoid", "a -> s", vec![]).node("Mul", "x s -> y", vec![]),
        base().node("Erf", "x -> e", vec![]).node("Add", "e one -> p", vec![]).node("Mul", "x p -> m", vec![]).node(
            "Mul",
            "m half -> y",
            vec![],
        ),
        base()
            .node("Div", "x sqrt2 -> a", vec![])
            .node("Erf", "a -> e", vec![])
            .node("Add", "e one -> p", vec![])
            .node("Mul", "x p -> y", vec![]),
        base()
            .node("Add", "x three -> a", vec![])
            .node("Clip", "a zero three -> c", vec![])
            .node("Mul", "x c -> m", vec![])
            .node("Div", "m six -> y", vec![]),
        // No upper end.
        base()
            .node("Add", "x three -> a", vec![])
            .node("Max", "a zero -> c", vec![])
            .node("Mul", "x c -> m", vec![])
            .node("Div", "m six -> y", vec![]),
    ];
    for (i, case) in cases.into_iter().enumerate() {
        let graph = case.outputs("y").import().unwrap_or_else(|e| panic!("{e}"));
        assert!(graph.nodes.len() > 2, "case {i}:\n{graph}");
    }
}

#[test]
fn a_gate_with_another_user_stays_too() {
    let model = base().node("Sigmoid", "x -> s", vec![]).node("Mul", "s x -> y", vec![]).outputs("y s");
    let graph = model.import().expect("imports");
    assert_eq!(graph.nodes.len(), 3, "{graph}");
    let y = run(&graph, &X);
    close(&y[1], &[1, 5], &X.map(|v| Activation::Sigmoid.eval(v)));
}
