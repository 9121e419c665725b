//! Ways in which a file can hold its constants.

use crate::common::*;
use fhec_onnx::proto::*;
use fhec_onnx::{Dim, Model};
use prost::Message;

#[test]
fn initializers_may_be_listed_among_the_inputs() {
    let mut model = Writer::new(8, &[2]).floats("c", &[2], &[1.0, 2.0]).node("Add", "x c -> y", vec![]).outputs("y");
    model.graph().input.push(value("c", 1, &[2]));
    close(&model.run(&[10.0, 10.0])[0], &[2], &[11.0, 12.0]);
    let inputs = Model::from_bytes(&model.bytes(), None).expect("decodes").inputs();
    assert_eq!(inputs.len(), 1);
    assert_eq!((inputs[0].name.as_str(), &inputs[0].dims), ("x", &Some(vec![Dim::Fixed(2)])));
}

#[test]
fn every_form_of_constant_node() {
    for attribute in [
        tensor("value", float_tensor("t", &[], &[2.0])),
        float("value_float", 2.0),
        int("value_int", 2),
        floats("value_floats", &[2.0]),
        ints("value_ints", &[2]),
    ] {
        let model = Writer::new(13, &[1]).node("Constant", "-> c", vec![attribute]).node("Mul", "x c -> y", vec![]);
        close(&model.outputs("y").run(&[4.0])[0], &[1], &[8.0]);
    }
    let model = Writer::new(13, &[1]).node("Constant", "-> c", vec![text("value_string", "no")]);
    assert!(model.node("Mul", "x c -> y", vec![]).outputs("y").problems()[0].contains("no value"));
}

#[test]
fn external_data_is_read_from_the_folder_of_the_model() {
    let folder = tempfile::tempdir().expect("folder");
    let raw: Vec<u8> = [9.0f32, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.path().join("weights.bin"), raw).expect("written");
    let mut model = Writer::new(17, &[2]).node("Add", "x c -> y", vec![]).outputs("y");
    let entry = |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
    model.graph().initializer.push(TensorProto {
        name: "c".to_owned(),
        data_type: 1,
        dims: vec![2],
        data_location: 1,
        external_data: vec![entry("location", "weights.bin"), entry("offset", "4"), entry("length", "8")],
        ..TensorProto::default()
    });
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.bytes()).expect("written");
    close(&run(&fhec_onnx::load(&path).expect("imports"), &[0.0, 0.0])[0], &[2], &[1.0, 2.0]);
    let graph = fhec_onnx::from_bytes(&model.bytes(), Some(folder.path())).expect("imports");
    close(&run(&graph, &[0.0, 0.0])[0], &[2], &[1.0, 2.0]);
    let error = fhec_onnx::from_bytes(&model.bytes(), None).expect_err("no folder").to_string();
    assert!(error.contains("tensor 'c'") && error.contains("no folder"), "{error}");
    model.graph().initializer[0].external_data[0].value = "../weights.bin".to_owned();
    let error = fhec_onnx::from_bytes(&model.bytes(), Some(folder.path())).expect_err("outside").to_string();
    assert!(error.contains("outside"), "{error}");
}

#[test]
fn names_and_origins_survive() {
    let mut model = Writer::new(17, &[2]).node("Relu", "x -> a", vec![]).node("Tanh", "a -> y", vec![]).outputs("y");
    model.graph().node[1].name = "last".to_owned();
    let graph = model.import().expect("imports");
    assert_eq!(graph.nodes[1].origin.to_string(), "a");
    assert_eq!(graph.nodes[2].origin.to_string(), "last");
    assert_eq!((graph.name.as_str(), graph.outputs[0].name.as_str()), ("g", "y"));
}

#[test]
fn unknown_fields_are_skipped() {
    let mut bytes = Writer::new(17, &[2]).node("Relu", "x -> y", vec![]).outputs("y").bytes();
    // Field 1000, a varint.
    prost::encoding::encode_varint(1000 << 3, &mut bytes);
    bytes.push(7);
    assert!(ModelProto::decode(bytes.as_slice()).is_ok());
    assert!(fhec_onnx::from_bytes(&bytes, None).is_ok());
}

#[test]
fn nodes_of_one_name_are_told_apart() {
    let model = Writer::new(17, &[2])
        .node("Relu", "x -> a", vec![])
        .node("Tanh", "a -> b", vec![])
        .node("Exp", "b -> c", vec![])
        .node("Neg", "c -> y", vec![])
        .outputs("y");
    let mut proto = fhec_onnx::proto::ModelProto::decode(&model.bytes()[..]).expect("valid");
    // 'x' is also the input; the node without a name is called by its result.
    let names = ["act", "act", "x", ""];
    proto.graph.as_mut().expect("a graph").node.iter_mut().zip(names).for_each(|(n, name)| n.name = name.into());
    let graph = fhec_onnx::from_bytes(&proto.encode_to_vec(), None).expect("imports");
    let found: Vec<String> = graph.nodes.iter().map(|n| n.origin.to_string()).collect();
    assert_eq!(found, ["x", "act", "act (b)", "x (c)", "y"]);
}
