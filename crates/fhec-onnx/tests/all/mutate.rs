//! Broken files give errors: no panic, no endless work, no unbounded memory.

use crate::common::*;
use fhec_onnx::{Model, Options, read_tensor_proto};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use prost::Message;
use std::sync::LazyLock;

/// A model with as many kinds of nodes, attributes and constants as possible.
fn rich() -> Vec<u8> {
    let model = Writer::new(17, &[1, 2, 6, 6])
        .floats("w", &[4, 1, 3, 3], &[0.5; 36])
        .floats("b", &[4], &[0.1; 4])
        .floats("m", &[4, 3], &[0.2; 12])
        .floats("half", &[], &[0.5])
        .floats("two", &[], &[2.0])
        .ints("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
        .ints("starts", &[0, 1])
        .ints("ends", &[i64::MAX, -1])
        .ints("axes", &[2, 3])
        .ints("steps", &[1, 1])
        .ints("idx", &[1, 0])
        .ints("last", &[-1])
        .node("Pad", "x pads half -> p", vec![text("mode", "constant")])
        .node("Conv", "p w b -> c", vec![int("group", 2), ints("strides", &[2, 1]), ints("pads", &[1, 0, 1, 0])])
        .node("BatchNormalization", "c b b b b -> n", vec![float("epsilon", 1e-3)])
        .node("Relu", "n -> r", vec![])
        .node("Pow", "r two -> q", vec![])
        .node("Add", "q r -> s", vec![])
        .node(
            "AveragePool",
            "s -> o",
            vec![ints("kernel_shape", &[2, 2]), int("ceil_mode", 1), ints("strides", &[2, 2])],
        )
        .node("MaxPool", "o -> x2", vec![ints("kernel_shape", &[2, 2]), text("auto_pad", "SAME_UPPER")])
        .node("Slice", "x2 starts ends axes steps -> sl", vec![])
        .node("Shape", "sl -> sh", vec![int("start", 1)])
        .node("Gather", "sh idx -> ga", vec![int("axis", 0)])
        .node("ConstantOfShape", "ga -> co", vec![tensor("value", float_tensor("v", &[1], &[3.0]))])
        .node("ReduceSum", "co -> rs", vec![int("keepdims", 0)])
        .node("Mul", "sl rs -> mu", vec![])
        .node("Transpose", "mu -> tr", vec![ints("perm", &[0, 2, 3, 1])])
        .node("MatMul", "tr m -> mm", vec![])
        .node("Split", "mm -> a1 a2", vec![int("axis", 1)])
        .node("Concat", "a1 a2 -> cc", vec![int("axis", 2)])
        .node("Unsqueeze", "cc last -> un", vec![])
        .node("Squeeze", "un last -> sq", vec![])
        .node("Clip", "sq half two -> cl", vec![])
        .node("Expand", "cl last -> ex", vec![])
        .node("Flatten", "cl -> fl", vec![int("axis", 1)])
        .node("Softmax", "fl -> y", vec![])
        .outputs("y");
    model.bytes()
}

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most memory of this process: a model of a few kilobytes explains no more, whatever its shapes say.
const MOST_MIB: f32 = 256.0;

static RICH: LazyLock<Vec<u8>> = LazyLock::new(rich);

fn small() -> Options {
    Options { max_elements: 1 << 16, ..Options::default() }
}

/// Imports, whatever comes of it.
fn survives(bytes: &[u8]) {
    if let Ok(model) = Model::from_bytes(bytes, None) {
        let _ = model.inputs();
        if let Ok(graph) = model.import(&small()) {
            assert!(graph.nodes.len() < 10_000);
        }
    }
    assert!(MEMORY.peak_usage_as_mb() < MOST_MIB, "{} MiB", MEMORY.peak_usage_as_mb());
}

#[test]
fn the_model_itself_imports() {
    let graph = fhec_onnx::from_bytes(&RICH, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(graph.node(graph.outputs[0].value).shape.len(), 2);
}

#[test]
fn every_truncation_is_an_error_or_a_model() {
    for end in 0..RICH.len() {
        survives(&RICH[..end]);
    }
}

proptest! {
    // More cases than elsewhere: one takes microseconds.
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = RICH.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }

    #[test]
    fn mutated_numbers_never_panic(
        node in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        value in prop_oneof![any::<i64>(), -5i64..5, Just(i64::MIN), Just(i64::MAX), Just(1 << 24)],
        which in 0..5u8,
    ) {
        // Bytes seldom hit the numbers, so these mutations go through the messages.
        let mut model = fhec_onnx::proto::ModelProto::decode(RICH.as_slice()).expect("valid");
        let graph = model.graph.as_mut().expect("a graph");
        let n = graph.node.len();
        match which {
            0 => {
                let i = at.index(graph.initializer.len());
                graph.initializer[i].int64_data.iter_mut().for_each(|v| *v = value);
            }
            1 => {
                for a in &mut graph.node[node.index(n)].attribute {
                    a.i = a.i.map(|_| value);
                    if !a.ints.is_empty() {
                        let i = at.index(a.ints.len());
                        a.ints[i] = value;
                    }
                }
            }
            2 => {
                let i = at.index(graph.initializer.len());
                let dims = &mut graph.initializer[i].dims;
                if !dims.is_empty() {
                    let d = node.index(dims.len());
                    dims[d] = value;
                }
            }
            3 => {
                // Wire an operand to another value.
                let name = graph.node[at.index(n)].output[0].clone();
                let input = &mut graph.node[node.index(n)].input;
                let i = at.index(input.len());
                input[i] = name;
            }
            _ => {
                let operator = graph.node[at.index(n)].op_type.clone();
                graph.node[node.index(n)].op_type = operator;
            }
        }
        survives(&model.encode_to_vec());
    }

    #[test]
    fn mutated_tensors_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = float_tensor("t", &[2, 3], &[0.5; 6]).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read_tensor_proto(&bytes);
    }
}
