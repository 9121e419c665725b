//! Attributes that became inputs, and defaults that changed.

use crate::common::*;

#[test]
fn squeeze_and_unsqueeze_take_axes_from_attribute_then_input() {
    let x = [1.0, 2.0];
    let old = Writer::new(11, &[1, 2])
        .node("Unsqueeze", "x -> a", vec![ints("axes", &[1, 3])])
        .node("Squeeze", "a -> y", vec![ints("axes", &[0])])
        .outputs("y");
    close(&old.run(&x)[0], &[1, 2, 1], &x);
    let new = Writer::new(13, &[1, 2])
        .ints("u", &[-1])
        .ints("s", &[-3])
        .node("Unsqueeze", "x u -> a", vec![])
        .node("Squeeze", "a s -> y", vec![])
        .outputs("y");
    close(&new.run(&x)[0], &[2, 1], &x);
    let all = Writer::new(13, &[1, 2]).node("Squeeze", "x -> y", vec![]).outputs("y");
    close(&all.run(&x)[0], &[2], &x);
    // An attribute of the old kind in a new file must not be ignored.
    let mixed = Writer::new(13, &[1, 2]).node("Squeeze", "x -> y", vec![ints("axes", &[0])]).outputs("y");
    assert!(mixed.problems()[0].contains("Squeeze.axes"), "{:?}", mixed.problems());
}

#[test]
fn slice() {
    let x: Vec<f64> = (0..8).map(f64::from).collect();
    let attributes = vec![ints("starts", &[-3]), ints("ends", &[i64::MAX]), ints("axes", &[1])];
    let old = Writer::new(9, &[2, 4]).node("Slice", "x -> y", attributes).outputs("y");
    close(&old.run(&x)[0], &[2, 3], &[1., 2., 3., 5., 6., 7.]);
    let new = Writer::new(13, &[2, 4])
        .ints("s", &[-1, 0])
        .ints("e", &[i64::MIN, 2])
        .ints("a", &[1, 0])
        .ints("st", &[-2, 1])
        .node("Slice", "x s e a st -> y", vec![])
        .outputs("y");
    close(&new.run(&x)[0], &[2, 2], &[3., 1., 7., 5.]);
}

#[test]
fn pad() {
    let x = [1.0, 2.0];
    let old = Writer::new(9, &[1, 2])
        .node("Pad", "x -> y", vec![ints("pads", &[0, 1, 1, 0]), float("value", 5.0), text("mode", "constant")])
        .outputs("y");
    close(&old.run(&x)[0], &[2, 3], &[5., 1., 2., 5., 5., 5.]);
    let new = Writer::new(18, &[1, 2])
        .ints("p", &[-1, 2])
        .floats("v", &[], &[7.0])
        .ints("a", &[-1])
        .node("Pad", "x p v a -> y", vec![])
        .outputs("y");
    close(&new.run(&x)[0], &[1, 3], &[2., 7., 7.]);
    let reflect =
        Writer::new(18, &[1, 2]).ints("p", &[0, 1, 0, 1]).node("Pad", "x p -> y", vec![text("mode", "reflect")]);
    assert!(reflect.outputs("y").problems()[0].contains("Pad.mode"));
}

#[test]
fn clip() {
    let x = [-5.0, 0.5, 9.0];
    let old = Writer::new(6, &[3]).node("Clip", "x -> y", vec![float("max", 6.0), float("min", 0.0)]).outputs("y");
    close(&old.run(&x)[0], &[3], &[0., 0.5, 6.]);
    let new = Writer::new(13, &[3]).floats("m", &[], &[1.0]).node("Clip", "x _ m -> y", vec![]).outputs("y");
    close(&new.run(&x)[0], &[3], &[-5., 0.5, 1.]);
    let none = Writer::new(13, &[3]).node("Clip", "x -> y", vec![]).outputs("y");
    close(&none.run(&x)[0], &[3], &x);
}

#[test]
fn dropout_is_the_identity_with_a_mask_of_ones() {
    let old = Writer::new(7, &[2]).node("Dropout", "x -> y", vec![float("ratio", 0.3)]).outputs("y");
    close(&old.run(&[1.0, 2.0])[0], &[2], &[1., 2.]);
    let new = Writer::new(13, &[2])
        .floats("r", &[], &[0.3])
        .node("Dropout", "x r -> a mask", vec![])
        .node("Cast", "mask -> m", vec![int("to", 1)])
        .node("Add", "a m -> y", vec![])
        .outputs("y");
    close(&new.run(&[1.0, 2.0])[0], &[2], &[2., 3.]);
    let training = Writer::new(13, &[2])
        .floats("r", &[], &[0.3])
        .floats("t", &[], &[1.0])
        .node("Dropout", "x r t -> y", vec![])
        .outputs("y");
    assert!(training.problems()[0].contains("training"));
}

#[test]
fn split() {
    let x: Vec<f64> = (0..5).map(f64::from).collect();
    let old = Writer::new(11, &[5]).node("Split", "x -> a b", vec![ints("split", &[3, 2])]).outputs("b a");
    close(&old.run(&x)[0], &[2], &[3., 4.]);
    let given = Writer::new(13, &[5]).ints("s", &[1, 4]).node("Split", "x s -> a b", vec![]).outputs("a b");
    close(&given.run(&x)[1], &[4], &[1., 2., 3., 4.]);
    let uneven = Writer::new(18, &[5]).node("Split", "x -> a b", vec![int("num_outputs", 2)]).outputs("a b");
    close(&uneven.run(&x)[1], &[2], &[3., 4.]);
    let wrong = Writer::new(13, &[5]).ints("s", &[1, 1]).node("Split", "x s -> a b", vec![]).outputs("a b");
    assert!(wrong.problems()[0].contains("does not split"));
}

#[test]
fn reductions() {
    let x: Vec<f64> = (0..6).map(f64::from).collect();
    let mean = Writer::new(13, &[2, 3]).node("ReduceMean", "x -> y", vec![ints("axes", &[-1]), int("keepdims", 0)]);
    close(&mean.outputs("y").run(&x)[0], &[2], &[1., 4.]);
    let mean = Writer::new(18, &[2, 3]).ints("a", &[0]).node("ReduceMean", "x a -> y", vec![]).outputs("y");
    close(&mean.run(&x)[0], &[1, 3], &[1.5, 2.5, 3.5]);
    let sum = Writer::new(11, &[2, 3]).node("ReduceSum", "x -> y", vec![ints("axes", &[1])]).outputs("y");
    close(&sum.run(&x)[0], &[2, 1], &[3., 12.]);
    let sum = Writer::new(13, &[2, 3]).node("ReduceSum", "x -> y", vec![]).outputs("y");
    close(&sum.run(&x)[0], &[1, 1], &[15.]);
    let noop = Writer::new(13, &[2, 3]).ints("a", &[]);
    let noop = noop.node("ReduceSum", "x a -> y", vec![int("noop_with_empty_axes", 1)]).outputs("y");
    close(&noop.run(&x)[0], &[2, 3], &x);
    let square = Writer::new(18, &[2, 3]).ints("a", &[1]).node("ReduceSumSquare", "x a -> y", vec![int("keepdims", 0)]);
    close(&square.outputs("y").run(&x)[0], &[2], &[5., 50.]);
}

#[test]
fn softmax_took_all_later_axes_together() {
    let third = [1.0f64 / 4.0; 4];
    let old = Writer::new(11, &[1, 2, 2]).node("Softmax", "x -> y", vec![]).outputs("y");
    close(&old.run(&[0.0; 4])[0], &[1, 2, 2], &third);
    let new = Writer::new(13, &[1, 2, 2]).node("Softmax", "x -> y", vec![]).outputs("y");
    close(&new.run(&[0.0; 4])[0], &[1, 2, 2], &[0.5; 4]);
}

#[test]
fn version_6_broadcasts_at_an_axis() {
    let x: Vec<f64> = (0..8).map(f64::from).collect();
    let add = Writer::new(6, &[1, 2, 4])
        .floats("c", &[2], &[10.0, 20.0])
        .node("Add", "x c -> y", vec![int("axis", 1), int("broadcast", 1)])
        .outputs("y");
    close(&add.run(&x)[0], &[1, 2, 4], &[10., 11., 12., 13., 24., 25., 26., 27.]);
    let prelu =
        Writer::new(6, &[1, 2, 2]).floats("s", &[2], &[0.5, 2.0]).node("PRelu", "x s -> y", vec![]).outputs("y");
    close(&prelu.run(&[-1., 1., -1., 1.])[0], &[1, 2, 2], &[-0.5, 1., -2., 1.]);
    assert!(Writer::new(7, &[2]).node("Add", "x x -> y", vec![int("axis", 1)]).outputs("y").import().is_err());
}

#[test]
fn batch_normalisation_at_inference_only() {
    let model = |opset, names: &str, attributes| {
        Writer::new(opset, &[1, 2])
            .floats("s", &[2], &[1.0, 2.0])
            .floats("b", &[2], &[0.5, 0.0])
            .floats("m", &[2], &[1.0, -1.0])
            .floats("v", &[2], &[4.0, 1.0])
            .node("BatchNormalization", names, attributes)
            .outputs("y")
    };
    let plain = || vec![float("epsilon", 0.0), float("momentum", 0.7)];
    for opset in [7, 9, 15] {
        close(&model(opset, "x s b m v -> y", plain()).run(&[3.0, 0.0])[0], &[1, 2], &[1.5, 2.0]);
    }
    for (opset, names, attributes) in [
        (7, "x s b m v -> y", vec![int("spatial", 0)]),
        (9, "x s b m v -> y rm rv", vec![]),
        (15, "x s b m v -> y", vec![int("training_mode", 1)]),
    ] {
        assert_eq!(model(opset, names, attributes).problems().len(), 1);
    }
}

#[test]
fn versions_outside_are_refused() {
    for version in [5, 29] {
        let model = Writer::new(version, &[1]).node("Relu", "x -> y", vec![]).outputs("y");
        let error = model.import().expect_err("too old or too new").to_string();
        assert!(error.starts_with(&format!("operator set {version}; versions 6 to 28")), "{error}");
    }
}
