//! The operator cases of the ONNX project and the shared networks, through import and the f64
//! interpreter.
//!
//! The data is looked for in `$FHEC_SHARED`, else in `../shared` beside the workspace; without it the
//! tests print that they are skipped. Cases that cannot be imported are listed with the reason in
//! `onnx_unsupported.txt`, which may only shrink: a listed case that passes fails the test, and so does an
//! unlisted one that is refused.

use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_onnx::{DataType, ImportError, Model, Options, read_tensor_proto};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Cases in `onnx_unsupported.txt` at most; lower it when the list gets shorter.
const LISTED: usize = 200;

/// The folder `data/NAME` of the shared data.
fn shared(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("FHEC_SHARED") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let folder = root.join("data").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no test data at {} (set FHEC_SHARED)", folder.display());
    None
}

/// `PREFIX_0.pb`, `PREFIX_1.pb`, … of a folder.
fn tensors(folder: &Path, prefix: &str) -> Vec<Tensor> {
    (0..)
        .map_while(|k| std::fs::read(folder.join(format!("{prefix}_{k}.pb"))).ok())
        .map(|bytes| read_tensor_proto(&bytes).expect("the test data is a tensor"))
        .collect()
}

/// `None` when all values agree, else the first that does not.
fn difference(expected: &[Tensor], got: &[Tensor], relative: f64, absolute: f64) -> Option<String> {
    if expected.len() != got.len() {
        return Some(format!("{} outputs instead of {}", got.len(), expected.len()));
    }
    for (k, (e, g)) in expected.iter().zip(got).enumerate() {
        if e.shape() != g.shape() {
            return Some(format!("output {k} has shape {:?} instead of {:?}", g.shape(), e.shape()));
        }
        for (i, (&e, &g)) in e.values().iter().zip(g.values()).enumerate() {
            let same = e == g || (e.is_nan() && g.is_nan()) || (e - g).abs() <= absolute + relative * e.abs();
            if !same {
                return Some(format!("output {k}, element {i}: {g} instead of {e}"));
            }
        }
    }
    None
}

fn interpret(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let interpreter = Interpreter::new(graph).expect("imported graphs verify");
    interpreter.run(inputs).expect("the test inputs fit")
}

/// What became of a case.
enum Outcome {
    Passed,
    Unsupported(String),
    Failed(String),
}

/// Imports a case with the first input as data and the others bound, and, where that differs, with all
/// floating-point inputs as data. It passes when one of the ways imports, and none gives a wrong result.
fn run_case(folder: &Path) -> Outcome {
    let model = match Model::load(folder.join("model.onnx")) {
        Ok(model) => model,
        Err(e) => return Outcome::Failed(e.to_string()),
    };
    let data = folder.join("test_data_set_0");
    let (inputs, expected) = (tensors(&data, "input"), tensors(&data, "output"));
    let infos = model.inputs();
    let real: Vec<usize> = (0..infos.len()).filter(|&k| infos[k].dtype.is_some_and(DataType::is_float)).collect();
    let ways = match real.len() {
        0 | 1 => vec![real],
        _ => vec![vec![real[0]], real],
    };
    let mut refusal = None;
    let mut passed = false;
    for way in ways {
        let mut options = Options::default();
        for (k, tensor) in inputs.iter().enumerate().filter(|(k, _)| !way.contains(k)) {
            options.bind.insert(infos[k].name.clone(), tensor.clone());
        }
        match model.import(&options) {
            Ok(graph) => {
                // Inputs that nothing uses are not among the graph's.
                let named: BTreeMap<&str, &Tensor> =
                    way.iter().map(|&k| (infos[k].name.as_str(), &inputs[k])).collect();
                let used: Vec<Tensor> =
                    graph.inputs().iter().map(|&v| named[graph.node(v).origin.names[0].as_str()].clone()).collect();
                // As the data's README states for onnxruntime.
                match difference(&expected, &interpret(&graph, &used), 1e-3, 1e-5) {
                    Some(difference) => return Outcome::Failed(difference),
                    None => passed = true,
                }
            }
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
        Some(reason) => Outcome::Unsupported(reason),
        None => Outcome::Failed("nothing ran".to_owned()),
    }
}

#[test]
fn operator_cases_of_the_onnx_project() {
    let Some(folder) = shared("onnx-node") else { return };
    let listed: BTreeMap<&str, &str> = include_str!("../onnx_unsupported.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(": ").expect("'case: reason'"))
        .collect();
    assert!(listed.len() <= LISTED, "the list of unsupported cases grew to {}", listed.len());
    let (mut passed, mut unsupported, mut complaints, mut count) = (0, 0, String::new(), 0);
    let mut seen = Vec::new();
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("readable").map(|e| e.expect("readable").path()).collect();
    sources.sort();
    for source in sources.iter().filter(|s| s.is_dir()) {
        let mut cases: Vec<PathBuf> =
            std::fs::read_dir(source).expect("readable").map(|e| e.expect("readable").path()).collect();
        cases.sort();
        for case in cases {
            let name = case.file_name().and_then(|n| n.to_str()).expect("UTF-8").to_owned();
            count += 1;
            match (run_case(&case), listed.get(name.as_str())) {
                (Outcome::Passed, None) => passed += 1,
                (Outcome::Unsupported(_), Some(_)) => unsupported += 1,
                (Outcome::Passed, Some(_)) => {
                    let _ = writeln!(complaints, "{name} passes: remove it from onnx_unsupported.txt");
                }
                (Outcome::Unsupported(reason), None) => {
                    let _ = writeln!(complaints, "newly unsupported: {name}: {reason}");
                }
                (Outcome::Failed(reason), _) => {
                    let _ = writeln!(complaints, "failed: {name}: {reason}");
                }
            }
            seen.push(name);
        }
    }
    for name in listed.keys().filter(|name| !seen.iter().any(|s| s == *name)) {
        let _ = writeln!(complaints, "no such case: {name}");
    }
    let failed = count - passed - unsupported;
    println!("ONNX operator cases: {passed} passed, {unsupported} unsupported by list, {failed} failed");
    assert!(complaints.is_empty(), "{complaints}");
    assert!(count > 400, "only {count} cases found");
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
