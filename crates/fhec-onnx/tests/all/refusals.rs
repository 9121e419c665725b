//! Everything that cannot be compiled is named, all of it at once.

use crate::common::*;
use fhec_onnx::proto::*;
use fhec_onnx::{ImportError, Options};

#[test]
fn five_problems_are_five_entries() {
    let model = Writer::new(17, &[1, 2, 4, 4])
        .floats("w", &[2, 2, 3, 3], &[0.1; 36])
        .node("Abs", "x -> a", vec![])
        .node("Conv", "a w -> b", vec![int("dilation", 2)])
        .node("MaxPool", "a -> c", vec![ints("kernel_shape", &[2, 2])])
        .node("Resize", "c -> d", vec![])
        .node("LSTM", "d -> e", vec![])
        .node("Softmax", "a -> f", vec![])
        .node("Relu", "f -> g", vec![])
        .outputs("b e g");
    let problems = model.problems();
    for (part, line) in [
        ("node 'a' (Abs): the function jumps", 0),
        ("node 'b' (Conv.dilation): is not an attribute", 1),
        ("node 'd' (Resize): resampling", 2),
        ("node 'e' (LSTM): recurrent", 3),
        ("node 'c' (MaxPool): maxima", 4),
        ("node 'f' (Softmax): softmax is supported only as the last", 5),
    ] {
        assert!(problems[line].contains(part), "{part} in {problems:#?}");
        assert!(line == 1 || problems[line].contains("help: "), "{}", problems[line]);
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn nodes_that_no_output_needs_do_not_matter() {
    let model = Writer::new(17, &[2]).node("Abs", "x -> a", vec![]).node("Relu", "x -> y", vec![]).outputs("y");
    assert_eq!(model.import().expect("imports").nodes.len(), 2);
}

#[test]
fn weights_computed_from_the_input() {
    let model = Writer::new(17, &[1, 1, 4, 4])
        .node("Conv", "x x -> a", vec![])
        .node("PRelu", "x x -> b", vec![])
        .node("Reshape", "x x -> c", vec![])
        .node("Div", "x x -> d", vec![])
        .node("Max", "x a -> e", vec![])
        .outputs("a b c d e");
    let problems = model.problems();
    for (problem, part) in
        problems.iter().zip(["the kernel (operand 1)", "the slope", "the shape (operand 1)", "the divisor"])
    {
        assert!(problem.contains(part), "{problem}");
    }
    // Nothing is known of the shape of 'a', so 'e' gets no complaint of its own.
    assert_eq!(problems.len(), 4);
}

#[test]
fn inputs_and_outputs() {
    let mut model = Writer::new(17, &[1, 2]).node("Add", "x n -> y", vec![]).outputs("y c").floats("c", &[1], &[1.0]);
    model.graph().input.push(value("n", 7, &[2]));
    let problems = model.problems();
    assert!(problems[0].contains("node 'n' (Input): its elements are I64"), "{problems:#?}");
    assert!(problems[1].contains("node 'c' (output): it does not depend on any input"), "{problems:#?}");

    let mut options = Options::default();
    options.bind.insert("n".to_owned(), fhec_ir::Tensor::new(vec![2], vec![1.0, 2.0]));
    model.graph().output.pop();
    let graph = model.import_with(&options).expect("bound");
    close(&run(&graph, &[1.0, 1.0])[0], &[1, 2], &[2.0, 3.0]);
    options.bind.insert("nobody".to_owned(), fhec_ir::Tensor::scalar(1.0));
    assert!(model.import_with(&options).expect_err("unknown").to_string().contains("no input 'nobody'"));
}

#[test]
fn symbolic_dimensions() {
    let mut model = Writer::new(17, &[1, 2]).node("Relu", "x -> y", vec![]).outputs("y");
    let symbol = |s: &str| DimensionProto { dim_value: None, dim_param: Some(s.to_owned()) };
    let shape = TensorShapeProto { dim: vec![symbol("batch"), symbol("width")] };
    let tensor_type = Some(TensorTypeProto { elem_type: 1, shape: Some(shape) });
    model.graph().input[0].r#type = Some(TypeProto { tensor_type });
    assert!(model.problems()[0].contains("dimension 1 is 'width'"));
    let mut options = Options::default();
    options.dims.insert("width".to_owned(), 6);
    assert_eq!(model.import_with(&options).expect("given").nodes[1].shape, [1, 6]);
}

#[test]
fn files_that_contradict_themselves() {
    let malformed = |writer: Writer, part: &str| match writer.import() {
        Err(ImportError::Malformed(message)) => assert!(message.contains(part), "{message}"),
        other => panic!("{part}: {other:?}"),
    };
    malformed(Writer::new(17, &[1]).node("Relu", "z -> y", vec![]).outputs("y"), "uses 'z'");
    malformed(Writer::new(17, &[1]).node("Relu", "y -> y", vec![]).outputs("y"), "uses 'y'");
    malformed(Writer::new(17, &[1]).outputs("y"), "output 'y'");
    malformed(Writer::new(17, &[1]).node("Relu", "x -> y", vec![]), "no outputs");
    let twice = Writer::new(17, &[1]).node("Relu", "x -> y", vec![]).node("Tanh", "x -> y", vec![]);
    malformed(twice.outputs("y"), "two nodes make 'y'");
    let mut none = Writer::new(17, &[1]);
    none.model.opset_import.clear();
    malformed(none, "no operator set");
    let mut none = Writer::new(17, &[1]);
    none.model.graph = None;
    malformed(none, "no graph");
    assert!(matches!(fhec_onnx::from_bytes(b"\x0f\xff\xff", None), Err(ImportError::Decode(_))));
    assert!(matches!(fhec_onnx::load("/nonexistent/model.onnx"), Err(ImportError::Io { .. })));
}

#[test]
fn constants_that_do_not_fit_in_memory() {
    let huge = Writer::new(17, &[1])
        .ints("n", &[1 << 20, 1 << 20])
        .node("ConstantOfShape", "n -> c", vec![])
        .node("Add", "x c -> y", vec![])
        .outputs("y");
    assert!(huge.problems()[0].contains("memory allowed"));
    let outer = Writer::new(17, &[1])
        .ints("n", &[1 << 20, 1])
        .ints("m", &[1, 1 << 20])
        .node("ConstantOfShape", "n -> a", vec![])
        .node("ConstantOfShape", "m -> b", vec![])
        .node("Add", "a b -> c", vec![])
        .node("Add", "x c -> y", vec![])
        .outputs("y");
    assert!(outer.problems()[0].contains("memory allowed"));
    let range = Writer::new(17, &[1])
        .floats("a", &[], &[0.0])
        .floats("b", &[], &[1e12])
        .floats("d", &[], &[1.0])
        .node("Range", "a b d -> c", vec![])
        .node("Add", "x c -> y", vec![])
        .outputs("y");
    assert!(range.problems()[0].contains("memory allowed"));
}

/// Empty tensors cost no bytes in the file and can have extents that overflow any product.
#[test]
fn empty_tensors_with_huge_extents() {
    let big = 1i64 << 40;
    let model = |dims: &[i64], operator: &str, attributes| {
        let shape = TensorProto { dims: dims.to_vec(), data_type: 1, name: "e".to_owned(), ..TensorProto::default() };
        let mut model = Writer::new(13, &[1])
            .node(operator, "e -> a", attributes)
            .node("ReduceSum", "a -> b", vec![])
            .node("Add", "x b -> y", vec![])
            .outputs("y");
        model.graph().initializer.push(shape);
        model.import().map(|g| g.nodes.len())
    };
    assert!(model(&[0, 3], "Transpose", vec![]).is_ok());
    for (dims, operator, attributes) in [
        (vec![0, big, big], "Transpose", vec![]),
        (vec![big, big, 0], "Flatten", vec![]),
        (vec![0, big], "ReduceMean", vec![ints("axes", &[0])]),
        (vec![1, big, 0, 0], "SpaceToDepth", vec![int("blocksize", 1 << 16)]),
        (vec![0, 1, big, 1], "AveragePool", vec![ints("kernel_shape", &[1, 1])]),
        (vec![0, 1, big], "GlobalMaxPool", vec![]),
        (vec![big, 0], "Softmax", vec![int("axis", 5)]),
    ] {
        assert!(model(&dims, operator, attributes).is_err(), "{operator} of {dims:?}");
    }
    let mut gemm = Writer::new(13, &[1, 0]).floats("c", &[], &[1.0]).node("Gemm", "x w c -> y", vec![]).outputs("y");
    gemm.graph().initializer.push(TensorProto {
        dims: vec![1, 0, big],
        data_type: 1,
        name: "w".to_owned(),
        ..TensorProto::default()
    });
    assert!(gemm.import().is_err());
    gemm.graph().initializer[1].dims = vec![1, 0];
    assert!(gemm.import().is_err());
}

#[test]
fn numbers_that_no_computation_can_use() {
    let nan = Writer::new(17, &[1]).floats("c", &[1], &[f32::NAN]).node("Add", "x c -> y", vec![]).outputs("y");
    assert!(nan.problems()[0].contains("node 'y'") && nan.problems()[0].contains("NaN"));
    let zero = Writer::new(17, &[1]).floats("c", &[1], &[0.0]).node("Div", "x c -> y", vec![]).outputs("y");
    assert!(zero.problems()[0].contains("contains 0"));
}

#[test]
fn foreign_domains() {
    let mut model = Writer::new(17, &[1]).node("FusedConv", "x -> y", vec![]).outputs("y");
    model.graph().node[0].domain = "com.microsoft".to_owned();
    assert!(model.problems()[0].contains("domain 'com.microsoft'"));
}
