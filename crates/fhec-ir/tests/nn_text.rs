//! The text form prints and parses back to the same graph.

use fhec_ir::nn::parse::{parse, random};
use fhec_ir::nn::{Activation, ConstId, Conv, Graph, Op, Output, Pool, Range, ValueId, verify};
use fhec_ir::{Origin, Tensor};
use proptest::prelude::*;

const LENET: &str = r#"graph "small \"net\"" {
  %0 = Input(name="image") : 1x1x8x8 in [0.0, 1.0] @ "image"
  %1 = Conv(%0, weight=$0, bias=$1, strides=[2, 2], pads=[1, 1, 0, 0], dilations=[1, 1], groups=1) : 1x2x4x4 @ "conv"+"bn"
  %2 = Pow(%1, exponent=2) : 1x2x4x4 in [0.0, 1e-7]
  %3 = Reshape(%2) : 1x32
  %4 = Dense(%3, weight=$2, bias=$3) : 1x3 @ "fc"
  output "y" = %4
  output "square" = %2
  $0 : 2x1x3x3 = random 7
  $1 : 2 = [0.5, -inf]
  $2 : 3x32 = full -0.25
  $3 : 3 = [1.0, 2.5e-300, -0.0]
}
"#;

#[test]
fn text_parses_and_prints_the_same_but_for_the_seed() {
    let graph = parse(LENET, &[]).expect("parses");
    assert_eq!(graph.name, "small \"net\"");
    assert_eq!(graph.tensor(ConstId(0)).values(), random(7, 18));
    let printed = graph.to_string();
    let hash = format!("hash {:016x}", fhec_ir::nn::print::hash(graph.tensor(ConstId(0))));
    assert_eq!(printed, LENET.replace("random 7", &hash));
    assert_eq!(parse(&printed, &graph.constants).expect("parses"), graph);
}

#[test]
fn errors_name_the_line() {
    for (from, to, line, part) in [
        ("%3 = Reshape", "%5 = Reshape", 5, "%5 where %3 follows"),
        ("exponent=2", "exponent=2.5", 4, "natural number"),
        ("exponent=2", "power=2", 4, "'exponent' is missing"),
        ("exponent=2", "exponent=2, alpha=1", 4, "no attribute 'alpha'"),
        ("Pow(", "Abs(", 4, "unknown operation 'Abs'"),
        ("1x32", "1y32", 5, "'1y32' is no shape"),
        ("random 7", "hash 12", 9, "table"),
        ("full -0.25", "full x", 11, "'x' is no number"),
        ("$3 : 3 =", "$3 : 4 =", 12, "3 values"),
        ("3x32 =", "99999999999x99999999999 =", 11, "is no shape"),
        ("3x32 =", "1000000x10000 =", 11, "constant of shape"),
        ("\"y\"", "\"y", 7, "not closed"),
    ] {
        let text = LENET.replacen(from, to, 1);
        let error = parse(&text, &[]).expect_err(to);
        assert_eq!(error.line, line, "{to}: {error}");
        assert!(error.message.contains(part), "{to}: {error}");
    }
}

/// Any operation with any attributes; the graph need not verify.
fn op() -> impl Strategy<Value = Op> {
    let id = || (0u32..3).prop_map(ConstId);
    let real = || prop_oneof![any::<f64>().prop_filter("NaN has many forms", |v| !v.is_nan()), Just(0.1)];
    let n = || 0usize..1000;
    let pool = || {
        (any::<[u8; 2]>(), any::<[u8; 2]>(), any::<[u8; 4]>(), any::<[u8; 2]>(), any::<[u8; 4]>()).prop_map(
            |(k, s, p, d, c)| Pool {
                kernel: k.map(usize::from),
                strides: s.map(usize::from),
                pads: p.map(usize::from),
                dilations: d.map(usize::from),
                counted_pads: c.map(usize::from),
            },
        )
    };
    let activation = prop_oneof![
        Just(Activation::Relu),
        Just(Activation::Mish),
        real().prop_map(|alpha| Activation::Swish { alpha }),
        (real(), real()).prop_map(|(alpha, gamma)| Activation::Selu { alpha, gamma }),
        (real(), real()).prop_map(|(alpha, beta)| Activation::HardSigmoid { alpha, beta }),
        any::<bool>().prop_map(|tanh| Activation::Gelu { tanh }),
        (real(), real()).prop_map(|(min, max)| Activation::Clip { min, max }),
        any::<u32>().prop_map(|exponent| Activation::Power { exponent }),
    ];
    let axes = || prop::collection::vec(n(), 0..4);
    prop_oneof![
        any::<String>().prop_map(|name| Op::Input { name }),
        (id(), prop::option::of(id()), any::<[u8; 4]>(), n()).prop_map(|(weight, bias, pads, groups)| {
            Op::Conv(Conv {
                weight,
                bias,
                strides: [groups, 1],
                pads: pads.map(usize::from),
                dilations: [1, 2],
                groups,
            })
        }),
        (id(), prop::option::of(id())).prop_map(|(weight, bias)| Op::Dense { weight, bias }),
        (id(), real()).prop_map(|(c, epsilon)| Op::BatchNorm { scale: c, bias: c, mean: c, variance: c, epsilon }),
        Just(Op::Add),
        id().prop_map(Op::MulConst),
        pool().prop_map(Op::AveragePool),
        pool().prop_map(Op::MaxPool),
        (axes(), any::<bool>()).prop_map(|(axes, keep)| Op::ReduceMean { axes, keep }),
        axes().prop_map(|perm| Op::Transpose { perm }),
        n().prop_map(|axis| Op::Concat { axis }),
        (axes(), prop::collection::vec(-9i64..9, 0..4)).prop_map(|(starts, steps)| Op::Slice { starts, steps }),
        (prop::collection::vec(-9i64..9, 0..4), real()).prop_map(|(p, value)| Op::Pad {
            before: p.clone(),
            after: p,
            value
        }),
        activation.prop_map(Op::Activation),
        id().prop_map(|slope| Op::PRelu { slope }),
        (prop::collection::vec(real(), 0..5), real(), any::<String>())
            .prop_map(|(chebyshev, lo, label)| Op::Polynomial { chebyshev, interval: Range { lo, hi: 1.0 }, label }),
    ]
}

proptest! {
    #[test]
    fn print_then_parse_is_the_identity(
        name in any::<String>(),
        ops in prop::collection::vec(
            (op(), prop::collection::vec(0u32..9, 0..3), prop::collection::vec(0usize..99, 0..4),
             prop::collection::vec(any::<String>(), 0..3), prop::option::of(any::<String>()),
             prop::option::of((-1e9..1e9, any::<i32>()))), 0..8),
        outputs in prop::collection::vec((any::<String>(), 0u32..9), 0..3),
    ) {
        let mut graph = Graph { name, ..Graph::default() };
        for t in [Tensor::scalar(-0.0), Tensor::full(vec![3, 4], 0.1), Tensor::new(vec![2, 5], random(1, 10))] {
            graph.constant(t);
        }
        for (op, inputs, shape, names, what, range) in ops {
            let id = graph.push(op, inputs.into_iter().map(ValueId).collect(), shape, Origin { names, what });
            graph.nodes[id.index()].range = range.map(|(lo, hi)| Range { lo, hi: f64::from(hi) });
        }
        graph.outputs = outputs.into_iter().map(|(name, v)| Output { name, value: ValueId(v) }).collect();
        let text = graph.to_string();
        let again = parse(&text, &graph.constants).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(again, graph);
    }

    #[test]
    fn mutated_text_never_panics(at in 0usize..700, byte in any::<u8>(), cut in 0usize..5) {
        let mut bytes = LENET.as_bytes().to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] = byte;
        bytes.drain(at..(at + cut).min(LENET.len()));
        if let Ok(graph) = parse(&String::from_utf8_lossy(&bytes), &[]) {
            let _ = verify(&graph);
        }
    }
}
