//! Client-aided plans: compiled, served, and played by two processes.

use crate::common::{command, floats, models, read_npy};
use crate::fhec;
use crate::serving::Served;
use fhec_ir::Tensor;
use fhec_ir::nn::Interpreter;
use serde_json::Value;
use std::path::Path;

/// Three pictures of strokes.
fn pictures() -> Vec<f32> {
    let pixel = |i: usize, y: f64, x: f64| {
        let stroke = [(x - 14.0).abs(), (x - 0.5 * y - 6.0).abs(), ((x - 14.0).hypot(y - 14.0) - 7.0).abs()][i];
        (1.5 - stroke).clamp(0.0, 1.0) * f64::from((4.0..24.0).contains(&y))
    };
    let all = (0..3).flat_map(|i| (0..784).map(move |p| pixel(i, (p / 28) as f64, (p % 28) as f64) as f32));
    all.collect()
}

/// Compiles `lenet_relu` in client-aided mode, serves it, infers the pictures and compares with the network.
fn road(more: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let model = models().join("lenet_relu.onnx");
    let mut compile = command();
    compile.arg("compile").arg(&model).arg("-o").arg(at("aided.plan")).args(["--mode", "client-aided", "--calibrate"]);
    let compiled = compile.arg(models().join("calibration.npy")).args(more).output().expect("starts");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    fhec!["keygen", at("aided.plan"), "-o", at("keys")].ok();
    std::fs::write(at("x.npy"), floats(&[3, 1, 28, 28], &pictures())).expect("writes");
    refused(&at("aided.plan"), &at("keys"), &at("x.npy"), &at("y.ct"));
    let told = fhec!["explain", at("aided.plan")].ok();
    assert!(told.stdout.contains("rounds"), "{}", told.stdout);
    let mut serve = command();
    serve.arg("serve").arg(at("aided.plan")).arg("--keys").arg(at("clients")).args(["--listen", "127.0.0.1:0"]);
    let served = Served::of(serve);
    let key = at("keys").join("secret.key");
    let out =
        fhec!["infer", "--server", served.url, "--key", key, at("x.npy"), "-o", at("y.npy"), "--json", "--raw"].ok();
    let graph = fhec_onnx::load(&model).expect("imports");
    let interpreter = Interpreter::new(&graph).expect("valid");
    let shape = graph.node(graph.inputs()[0]).shape.clone();
    for (got, picture) in read_npy(&at("y.npy")).chunks(10).zip(pictures().chunks(784)) {
        let picture = picture.iter().map(|&v| f64::from(v)).collect();
        let want = interpreter.run(&[Tensor::new(shape.clone(), picture)]).expect("runs").remove(0);
        let (lo, hi) = want.values().iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        for (g, w) in got.iter().zip(want.values()) {
            assert!((g - w).abs() < (hi - lo) / 256.0, "{got:?} instead of {want:?}");
        }
    }
    serde_json::from_str(&out.stdout).expect("json")
}

/// What goes from file to file in one step does not take plans of several.
fn refused(plan: &Path, keys: &Path, x: &Path, y: &Path) {
    let says = ["client-aided", "fhec infer"];
    fhec!["encrypt", plan, "--secret-key", keys.join("secret.key"), "--input", x, "-o", y].fails(&says);
    fhec!["decrypt", plan, "--secret-key", keys.join("secret.key"), "--input", y, "-o", x].fails(&says);
    fhec!["run", plan, "--eval-keys", keys.join("eval.keys"), "--input", x, "-o", y].fails(&says);
}

#[test]
fn rounds_are_played_and_results_are_those_of_the_network() {
    let told = road(&[]);
    assert!(told["rounds"].as_u64().expect("rounds") > 2, "{told}");
    let results = told["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(result["sent_bytes"].as_u64() > Some(0) && result["received_bytes"].as_u64() > Some(0), "{result}");
    }
}
