//! The verifier refuses broken graphs, and the interpreter gives what the operations mean.

use fhec_ir::nn::interpret::eval;
use fhec_ir::nn::parse::parse;
use fhec_ir::nn::{Activation, Graph, InputError, Interpreter, Op, Pool, Range, shape, verify};
use fhec_ir::{Origin, Tensor};

fn graph(body: &str) -> Graph {
    parse(&format!("graph \"g\" {{\n{body}\n}}\n"), &[]).expect("parses")
}

/// One operation on constants-free operands.
fn apply(op: Op, operands: &[Tensor], stated: &[usize]) -> Tensor {
    let shapes: Vec<&[usize]> = operands.iter().map(Tensor::shape).collect();
    let shape = shape::infer(&op, &shapes, &[], stated).expect("fits");
    eval(&op, &operands.iter().collect::<Vec<_>>(), &[], &shape)
}

fn range(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape.to_vec(), (0..n).map(|i| i as f64).collect())
}

#[test]
fn the_verifier_names_every_problem_and_its_node() {
    let broken = graph(
        r#"%0 = Input(name="x") : 1x2x4x4 @ "x"
        %1 = Relu(%1) : 1x2x4x4 @ "late"
        %2 = Conv(%0, weight=$0, strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1], groups=1) : 1x3x4x4 @ "conv"
        %3 = AddConst(%0, constant=$1) : 1x2x4x4 @ "add"
        %4 = BatchNorm(%0, scale=$2, bias=$2, mean=$2, variance=$2, epsilon=0.0) : 1x2x4x4 @ "bn"
        %5 = Relu(%0) : 1x2x4x4 in [1.0, 0.0] @ "range"
        %6 = Input(name="x") : scalar @ "twice"
        %7 = MulConst(%0, constant=$9) : 1x2x4x4 @ "missing"
        output "y" = %8
        output "y" = %2
        $0 : 3x2x3x3 = full 1.0
        $1 : 2x1x1 = [1.0, NaN]
        $2 : 2 = [0.0, 1.0]"#,
    );
    let problems = verify(&broken).expect_err("broken").0;
    let found: Vec<String> = problems.iter().map(|d| format!("{} | {}", d.origin, d.message)).collect();
    assert_eq!(
        found,
        [
            "late | %1: operand %1 does not come before its user",
            "conv | %2: shape is [1, 3, 4, 4] and should be [1, 3, 2, 2]",
            "add | %3: constant $1 contains NaN",
            "bn | %4: variance 0 + epsilon 0 is not positive",
            "range | %5: range [1, 0] is empty",
            "twice | two inputs are called 'x'",
            "missing | %7: constant 9 does not exist",
            "y | %8 does not exist",
            "y | two outputs have this name",
        ]
    );
    assert!(Interpreter::new(&broken).is_err());
    assert!(verify(&Graph::default()).is_err(), "no outputs");
}

#[test]
fn average_pooling_counts_what_it_is_told() {
    // One row [0 1 2 3], padded by one on the left and two on the right, windows of three every two.
    let pool = |counted_pads| {
        Op::AveragePool(Pool { kernel: [1, 3], strides: [1, 2], pads: [0, 1, 0, 2], dilations: [1, 1], counted_pads })
    };
    let x = range(&[1, 1, 1, 4]);
    assert_eq!(apply(pool([0; 4]), std::slice::from_ref(&x), &[]).values(), [0.5, 2.0, 3.0]);
    assert_eq!(apply(pool([0, 1, 0, 2]), std::slice::from_ref(&x), &[]).values(), [1.0 / 3.0, 2.0, 1.0]);
    // The last window reaches one element beyond what counts.
    assert_eq!(apply(pool([0, 1, 0, 1]), &[x], &[]).values(), [1.0 / 3.0, 2.0, 1.5]);
}

#[test]
fn maximum_ignores_padding_and_honours_dilation() {
    let pool = Pool { kernel: [2, 2], strides: [1, 1], pads: [1, 0, 0, 0], dilations: [2, 1], counted_pads: [0; 4] };
    let y = apply(Op::MaxPool(pool), &[range(&[1, 3, 3]).map(|v| v - 9.0)], &[]);
    assert_eq!(y.shape(), [1, 2, 2]);
    assert_eq!(y.values(), [-5.0, -4.0, -2.0, -1.0]);
}

#[test]
fn moving_and_reducing() {
    let x = range(&[2, 3, 2]);
    let sum = apply(Op::ReduceSum { axes: vec![0, 2], keep: false }, std::slice::from_ref(&x), &[]);
    assert_eq!(sum.values(), [14.0, 22.0, 30.0]);
    let mean = apply(Op::ReduceMean { axes: vec![1], keep: true }, std::slice::from_ref(&x), &[]);
    assert_eq!((mean.shape(), mean.values()), (&[2, 1, 2][..], &[2.0, 3.0, 8.0, 9.0][..]));

    let slice = Op::Slice { starts: vec![1, 2, 0], steps: vec![1, -2, 1] };
    assert_eq!(apply(slice, std::slice::from_ref(&x), &[1, 2, 2]).values(), [10.0, 11.0, 6.0, 7.0]);

    let pad = Op::Pad { before: vec![-1, 1, 0], after: vec![0, -1, 1], value: 9.0 };
    let y = apply(pad, std::slice::from_ref(&x), &[]);
    assert_eq!((y.shape(), y.values()), (&[1, 3, 3][..], &[9., 9., 9., 6., 7., 9., 8., 9., 9.][..]));
    let gone = Op::Pad { before: vec![0, -3, 0], after: vec![0, 2, 0], value: 4.0 };
    assert_eq!(apply(gone, std::slice::from_ref(&x), &[]).values(), [4.0; 8]);

    let joined = apply(Op::Concat { axis: 1 }, &[x.clone(), range(&[2, 1, 2])], &[]);
    assert_eq!(joined.shape(), [2, 4, 2]);
    assert_eq!(joined.values()[4..10], [4., 5., 0., 1., 6., 7.]);

    let soft = apply(Op::Softmax { axis: 1 }, &[Tensor::new(vec![1, 2, 2], vec![1e3, 0.0, 1e3, 3f64.ln()])], &[]);
    for (a, e) in soft.values().iter().zip([0.5, 0.25, 0.5, 0.75]) {
        assert!((a - e).abs() < 1e-12);
    }
}

#[test]
fn polynomials_are_in_the_chebyshev_basis_of_their_interval() {
    // T_2 on [1, 3] is 2(x − 2)² − 1.
    let op =
        Op::Polynomial { chebyshev: vec![0.0, 0.0, 1.0], interval: Range { lo: 1.0, hi: 3.0 }, label: "t2".to_owned() };
    assert_eq!(apply(op, &[Tensor::new(vec![3], vec![1.0, 2.0, 4.0])], &[]).values(), [1.0, -1.0, 7.0]);
}

const NET: &str = r#"%0 = Input(name="x") : 1x1x6x6
    %1 = Conv(%0, weight=$0, strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1], groups=1) : 1x4x4x4
    %2 = BatchNorm(%1, scale=$1, bias=$1, mean=$1, variance=$2, epsilon=1e-5) : 1x4x4x4
    %3 = Swish(%2, alpha=1.0) : 1x4x4x4
    %4 = Reshape(%3) : 1x64
    %5 = Dense(%4, weight=$3) : 1x3
    output "y" = %5
    output "early" = %2
    $0 : 4x1x3x3 = random 1
    $1 : 4 = random 2
    $2 : 4 = full 2.0
    $3 : 3x64 = random 3"#;

#[test]
fn a_batch_gives_what_single_images_give() {
    let net = graph(NET);
    let interpreter = Interpreter::new(&net).expect("valid");
    let batch = Tensor::new(vec![5, 1, 6, 6], fhec_ir::nn::parse::random(9, 180));
    let together = interpreter.run_batch(&batch).expect("fits");
    assert_eq!((together[0].shape(), together[1].shape()), (&[5, 3][..], &[5, 4, 4, 4][..]));
    for (i, image) in interpreter.split(&batch).expect("fits").into_iter().enumerate() {
        let all = interpreter.run_all(std::slice::from_ref(&image)).expect("fits");
        assert_eq!(all.len(), net.nodes.len());
        assert_eq!(all[5].values(), &together[0].values()[3 * i..3 * i + 3]);
        assert_eq!(interpreter.run(&[image]).expect("fits"), [all[5].clone(), all[2].clone()]);
    }
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let net = graph(NET);
    let interpreter = Interpreter::new(&net).expect("valid");
    assert_eq!(interpreter.run(&[]), Err(InputError::Count { expected: 1, given: 0 }));
    let error = interpreter.run(&[range(&[1, 6, 6])]).expect_err("shape");
    assert_eq!(error.to_string(), "input 'x' has shape [1, 6, 6], the model takes [1, 1, 6, 6]");
    for shape in [&[2, 1, 6, 5][..], &[0, 1, 6, 6], &[1, 6, 6], &[]] {
        assert!(interpreter.run_batch(&range(shape)).is_err(), "{shape:?}");
    }
}

#[test]
fn values_used_by_later_nodes_and_outputs_survive() {
    let net = graph(
        r#"%0 = Input(name="x") : 2
        %1 = Relu(%0) : 2
        %2 = Mul(%0, %1) : 2
        %3 = Add(%0, %2) : 2
        output "a" = %1
        output "x" = %0
        output "b" = %3"#,
    );
    let y = Interpreter::new(&net).expect("valid").run(&[Tensor::new(vec![2], vec![-1.0, 2.0])]).expect("fits");
    assert_eq!(y.iter().map(|t| t.values().to_vec()).collect::<Vec<_>>(), [[0., 2.], [-1., 2.], [-1., 6.]]);
}

#[test]
fn origins_join_without_repeats() {
    let mut g = Graph::default();
    let origin = Origin::named("a").join(&Origin::named("b")).join(&Origin::named("a"));
    let x = g.push(Op::Activation(Activation::Relu), vec![], vec![1], origin);
    assert_eq!(g.node(x).origin.to_string(), "a+b");
}
