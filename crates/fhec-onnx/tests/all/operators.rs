//! Forms of operators that the ONNX cases do not cover.

use crate::common::*;
use fhec_ir::nn::{Activation, Op};

#[test]
fn matmul_with_the_constant_on_either_side() {
    let x: Vec<f64> = (1..=6).map(f64::from).collect();
    let c = [1.0, 0.0, 2.0, 1.0, -1.0, 3.0];
    let right = Writer::new(13, &[2, 3]).floats("c", &[3, 2], &c).node("MatMul", "x c -> y", vec![]).outputs("y");
    close(&right.run(&x)[0], &[2, 2], &[2., 11., 8., 23.]);
    let left = Writer::new(13, &[3, 2]).floats("c", &[2, 3], &c).node("MatMul", "c x -> y", vec![]).outputs("y");
    close(&left.run(&x)[0], &[2, 2], &[11., 14., 13., 16.]);
    let vector = Writer::new(13, &[3]).floats("c", &[3], &c[..3]).node("MatMul", "c x -> y", vec![]).outputs("y");
    close(&vector.run(&x[..3])[0], &[], &[7.]);
    let rows = Writer::new(13, &[2, 3]).floats("c", &[3], &c[..3]).node("MatMul", "x c -> y", vec![]).outputs("y");
    close(&rows.run(&x)[0], &[2], &[7., 16.]);
    let columns = Writer::new(13, &[2, 3]).floats("c", &[2], &c[..2]).node("MatMul", "c x -> y", vec![]).outputs("y");
    close(&columns.run(&x)[0], &[3], &[1., 2., 3.]);
    let stack = Writer::new(13, &[1, 3]).floats("c", &[2, 3, 1], &c).node("MatMul", "x c -> y", vec![]).outputs("y");
    close(&stack.run(&x[..3])[0], &[2, 1, 1], &[7., 8.]);
    let both = Writer::new(13, &[2, 2]).node("MatMul", "x x -> y", vec![]).outputs("y");
    assert!(both.problems()[0].contains("both factors"));
}

#[test]
fn gemm_with_everything() {
    let x = [1.0, 2.0];
    let model = |a: &str, b: &str, attributes| {
        Writer::new(13, &[1, 2])
            .floats("w", &[2, 3], &[1., 2., 3., 4., 5., 6.])
            .floats("wt", &[3, 2], &[1., 4., 2., 5., 3., 6.])
            .floats("c", &[3], &[1., 1., 2.])
            .node("Gemm", &format!("{a} {b} c -> y"), attributes)
            .outputs("y")
    };
    let scaled = || vec![float("alpha", 2.0), float("beta", 10.0)];
    close(&model("x", "w", scaled()).run(&x)[0], &[1, 3], &[28., 34., 50.]);
    let transposed = vec![float("alpha", 2.0), float("beta", 10.0), int("transB", 1)];
    close(&model("x", "wt", transposed).run(&x)[0], &[1, 3], &[28., 34., 50.]);
    // Constant on the left: Wᵀ · xᵀ, with C over the rows.
    let left = Writer::new(13, &[1, 2])
        .floats("w", &[2, 3], &[1., 2., 3., 4., 5., 6.])
        .floats("c", &[3, 1], &[1., 1., 2.])
        .node("Gemm", "w x c -> y", vec![int("transA", 1), int("transB", 1)])
        .outputs("y");
    close(&left.run(&x)[0], &[3, 1], &[10., 13., 17.]);
    // C computed from the input.
    let sum = Writer::new(13, &[1, 2])
        .floats("w", &[2, 2], &[1., 0., 0., 1.])
        .node("Gemm", "x w x -> y", vec![float("beta", 3.0)])
        .outputs("y");
    close(&sum.run(&x)[0], &[1, 2], &[4., 8.]);
    let unused = Writer::new(13, &[1, 2])
        .floats("w", &[2, 2], &[1., 0., 0., 1.])
        .floats("c", &[2], &[5., 5.])
        .node("Gemm", "x w c -> y", vec![float("beta", 0.0)])
        .outputs("y");
    close(&unused.run(&x)[0], &[1, 2], &x);
}

#[test]
fn automatic_padding() {
    let x: Vec<f64> = (1..=5).map(f64::from).collect();
    for (mode, expected) in
        [("SAME_UPPER", vec![3., 7., 5.]), ("SAME_LOWER", vec![1., 5., 9.]), ("VALID", vec![3., 7.])]
    {
        let model = Writer::new(13, &[1, 1, 5])
            .floats("w", &[1, 1, 2], &[1.0, 1.0])
            .node("Conv", "x w -> y", vec![text("auto_pad", mode), ints("strides", &[2])])
            .outputs("y");
        close(&model.run(&x)[0], &[1, 1, expected.len()], &expected);
    }
}

#[test]
fn constants_among_values() {
    let x = [1.0, 2.0];
    let concat = Writer::new(13, &[1, 2])
        .floats("c", &[1, 1], &[9.0])
        .node("Concat", "c x c x -> y", vec![int("axis", 1)])
        .outputs("y");
    close(&concat.run(&x)[0], &[1, 6], &[9., 1., 2., 9., 1., 2.]);
    let from = Writer::new(13, &[1, 2])
        .floats("c", &[], &[10.0])
        .node("Sub", "c x -> a", vec![])
        .node("Sum", "a c x -> b", vec![])
        .node("Mean", "b x -> d", vec![])
        .node("Neg", "d -> y", vec![])
        .outputs("y");
    close(&from.run(&x)[0], &[1, 2], &[-10.5, -11.0]);
    let chosen = Writer::new(13, &[1, 2])
        .floats("m", &[2], &[1.0, 0.0])
        .floats("inf", &[2], &[f32::NEG_INFINITY, -4.0])
        .node("Where", "m x inf -> y", vec![])
        .outputs("y");
    close(&chosen.run(&x)[0], &[1, 2], &[1.0, -4.0]);
}

#[test]
fn gather_expand_tile_and_blocks() {
    let x: Vec<f64> = (0..4).map(f64::from).collect();
    let model = Writer::new(13, &[1, 4])
        .ints("one", &[2])
        .ints("any", &[3, 0, -4])
        .ints("shape", &[2, 1, 1])
        .ints("times", &[1, 2, 1])
        .node("Constant", "-> s", vec![int("value_int", -1)])
        .node("Gather", "x s -> a", vec![int("axis", 1)])
        .node("Gather", "x any -> b", vec![int("axis", 1)])
        .node("Expand", "b shape -> c", vec![])
        .node("Tile", "c times -> d", vec![])
        .outputs("a b d");
    let y = model.run(&x);
    close(&y[0], &[1], &[3.]);
    close(&y[1], &[1, 3], &[3., 0., 0.]);
    close(&y[2], &[2, 2, 3], &[3., 0., 0.].repeat(4));
    let blocks = Writer::new(13, &[1, 1, 2, 2])
        .node("SpaceToDepth", "x -> a", vec![int("blocksize", 2)])
        .node("DepthToSpace", "a -> y", vec![int("blocksize", 2)])
        .outputs("a y");
    let y = blocks.run(&x);
    close(&y[0], &[1, 4, 1, 1], &x);
    close(&y[1], &[1, 1, 2, 2], &x);
}

#[test]
fn powers_and_bounds() {
    let x = [-2.0, 3.0];
    let model = Writer::new(13, &[2])
        .floats("three", &[2], &[3.0, 3.0])
        .floats("one", &[], &[1.0])
        .node("Pow", "x three -> a", vec![])
        .node("Pow", "x one -> b", vec![])
        .node("Mul", "x x -> c", vec![])
        .node("Max", "x one -> d", vec![])
        .node("Min", "one x -> e", vec![])
        .outputs("a b c d e");
    let y = model.run(&x);
    for (y, e) in y.iter().zip([[-8., 27.], [-2., 3.], [4., 9.], [1., 3.], [-2., 1.]]) {
        close(y, &[2], &e);
    }
    let graph = model.import().expect("imports");
    let square = Op::Activation(Activation::Power { exponent: 2 });
    assert!(graph.nodes.iter().any(|n| n.op == square));
    // Both are clipping, which nobody would look for.
    let known: Vec<&str> = graph.nodes.iter().filter_map(|n| n.origin.what.as_deref()).collect();
    assert_eq!(known, ["Max", "Min"]);
    let half = Writer::new(13, &[2]).floats("h", &[], &[0.5]).node("Pow", "x h -> y", vec![]).outputs("y");
    assert!(half.problems()[0].contains("exponent 0.5"));
}

#[test]
fn shapes_are_folded_away() {
    // x.view(x.size(0), -1), with a detour over most of the shape arithmetic.
    let model = Writer::new(13, &[1, 3, 4])
        .ints("zero", &[0])
        .ints("two", &[2])
        .node("Shape", "x -> s", vec![])
        .node("Gather", "s zero -> n", vec![])
        .node("Size", "x -> size", vec![])
        .node("Constant", "-> axes", vec![ints("value_ints", &[0])])
        .node("Unsqueeze", "size axes -> total", vec![])
        .node("Div", "total n -> rest", vec![])
        .node("Mul", "rest two -> double", vec![])
        .node("Div", "double two -> back", vec![])
        .node("Concat", "n back -> shape", vec![int("axis", 0)])
        .node("ConstantOfShape", "two -> ones", vec![tensor("value", float_tensor("", &[1], &[1.0]))])
        .node("Cast", "ones -> ints", vec![int("to", 7)])
        .node("Equal", "ints zero -> no", vec![])
        .node("Where", "no ints shape -> target", vec![])
        .node("Reshape", "x target -> y", vec![])
        .outputs("y");
    let graph = model.import().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.nodes.len(), 2, "{graph}");
    assert_eq!(graph.nodes[1].shape, [1, 12]);
    assert!(graph.constants.is_empty());
}

#[test]
fn weights_are_folded_by_the_operators_themselves() {
    // A kernel that is the transpose of another, scaled by an activation of a constant.
    let model = Writer::new(13, &[1, 2])
        .floats("w", &[2, 2], &[1., 2., 3., 4.])
        .floats("g", &[1], &[-1.0])
        .node("Transpose", "w -> t", vec![])
        .node("Exp", "g -> e", vec![])
        .node("Sigmoid", "g -> h", vec![])
        .node("Div", "t e -> u", vec![])
        .node("MatMul", "x u -> y", vec![])
        .outputs("y");
    let e = 1f64.exp();
    close(&model.run(&[1.0, 1.0])[0], &[1, 2], &[3.0 * e, 7.0 * e]);
}

#[test]
fn pools_keep_or_drop_the_last_window() {
    let x: Vec<f64> = (1..=6).map(f64::from).collect();
    let pool = |attributes| Writer::new(19, &[1, 1, 6]).node("AveragePool", "x -> y", attributes).outputs("y");
    let base = || vec![ints("kernel_shape", &[3]), ints("strides", &[2])];
    close(&pool(base()).run(&x)[0], &[1, 1, 2], &[2., 4.]);
    let ceil = [base(), vec![int("ceil_mode", 1)]].concat();
    close(&pool(ceil.clone()).run(&x)[0], &[1, 1, 3], &[2., 4., 5.5]);
    let counted = [ceil, vec![int("count_include_pad", 1), ints("pads", &[1, 1])]].concat();
    close(&pool(counted).run(&x)[0], &[1, 1, 4], &[1., 3., 5., 3.]);
    let empty = vec![ints("kernel_shape", &[1]), ints("pads", &[1, 0])];
    assert!(pool(empty).problems()[0].contains("nothing but padding"));
}
