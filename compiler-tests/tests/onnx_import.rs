//! The operator cases of the ONNX project and the shared networks, through import and the f64
//! interpreter.
//!
//! The data is looked for in `$FHEC_SHARED`, else in `../shared` beside the workspace; without it the
//! tests print that they are skipped. Cases that cannot be imported are listed with the reason in
//! `onnx_unsupported.txt`, which may only shrink: a listed case that passes fails the test, and so does an
//! unlisted one that is refused.

use compiler_tests::onnx_node::{Outcome, against_list, cases, difference, tensors, ways};
use compiler_tests::shared;
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_onnx::ImportError;
use std::path::Path;

/// Cases in `onnx_unsupported.txt` at most; lower it when the list gets shorter.
const LISTED: usize = 200;

fn interpret(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let interpreter = Interpreter::new(graph).expect("imported graphs verify");
    interpreter.run(inputs).expect("the test inputs fit")
}

/// A case passes when one of the ways imports, and none gives a wrong result.
fn run_case(folder: &Path) -> Outcome {
    let (ways, expected) = match ways(folder) {
        Ok(found) => found,
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    let mut refusal = None;
    let mut passed = false;
    for way in ways {
        match way.graph {
            // As the data's README states for onnxruntime.
            Ok(graph) => match difference(&expected, &interpret(&graph, &way.inputs), 1e-3, 1e-5) {
                Some(difference) => return Outcome::Failed(difference),
                None => passed = true,
            },
            Err(ImportError::Unsupported(list)) if list.0.is_empty() => {
                return Outcome::Failed("refused without a reason".to_owned());
            }
            Err(ImportError::Unsupported(list)) => {
                let first = &list.0[0];
                refusal.get_or_insert(format!("{}: {}", first.what, first.message.replace('\n', " ")));
            }
            Err(e @ ImportError::Opset { .. }) => {
                refusal.get_or_insert(e.to_string());
            }
            Err(e) => return Outcome::Failed(e.to_string()),
        }
    }
    match refusal {
        _ if passed => Outcome::Passed,
        Some(reason) => Outcome::Refused(reason),
        None => Outcome::Failed("nothing ran".to_owned()),
    }
}

#[test]
fn operator_cases_of_the_onnx_project() {
    let Some(cases) = cases() else { return };
    let outcomes: Vec<(String, Outcome)> = cases.into_iter().map(|(name, folder)| (name, run_case(&folder))).collect();
    let tally = against_list(&outcomes, include_str!("../onnx_unsupported.txt"), LISTED);
    assert!(tally.complaints.is_empty(), "{}", tally.complaints);
    assert!(outcomes.len() > 400, "only {} cases found", outcomes.len());
    let (passed, refused) = (tally.passed, tally.refusals());
    insta::assert_snapshot!(format!("{passed} imported and interpreted, {refused} unsupported by list, 0 failed"));
}

/// The golden inputs of a network give its golden outputs.
fn golden(name: &str) {
    let Some(folder) = shared("models") else { return };
    let graph = match fhec_onnx::load(folder.join(format!("{name}.onnx"))) {
        Ok(graph) => graph,
        Err(e) => panic!("{name}: {e}"),
    };
    let mut sets = 0;
    for k in 0.. {
        let set = folder.join(format!("golden/{name}/test_data_set_{k}"));
        let inputs = tensors(&set, "input");
        if inputs.is_empty() {
            break;
        }
        let got = interpret(&graph, &inputs);
        if let Some(difference) = difference(&tensors(&set, "output"), &got, 1e-3, 1e-3) {
            panic!("{name}, set {k}: {difference}");
        }
        sets += 1;
    }
    assert!(sets > 0, "{name} has no golden data");
}

#[test]
fn golden_mnist_networks() {
    for name in ["mnist_cntk", "mnist_cryptonets", "mnist_mlp_square", "mnist_cnn_silu", "mnist_mlp_relu"] {
        golden(name);
    }
}

#[test]
fn golden_residual_networks() {
    for name in ["resnet20", "resnet20_raw", "resnet56", "resnet8_folded"] {
        golden(name);
    }
}

#[test]
fn golden_mobile_networks() {
    for name in ["mobilenetv1_025_vww", "squeezenet11"] {
        golden(name);
    }
}

#[test]
fn exported_activations_are_recognised() {
    let Some(folder) = shared("models") else { return };
    let graph = fhec_onnx::load(folder.join("mnist_cnn_silu.onnx")).expect("imports");
    let text = graph.to_string();
    assert_eq!(text.matches("Swish(").count(), 2, "{text}");
    assert!(!text.contains("Sigmoid("), "{text}");

    // The pads of the raw export are computed by shape nodes: all of them are folded away.
    let raw = fhec_onnx::load(folder.join("resnet20_raw.onnx")).expect("imports");
    let folded = fhec_onnx::load(folder.join("resnet20.onnx")).expect("imports");
    let count = |graph: &Graph, op: &str| graph.nodes.iter().filter(|n| n.op.name() == op).count();
    assert_eq!(count(&raw, "BatchNorm"), 19);
    for op in ["Conv", "Pad", "Slice", "Add", "Relu"] {
        assert_eq!(count(&raw, op), count(&folded, op), "{op}");
    }
    assert_eq!(raw.nodes.len() - 19, folded.nodes.len());
}
