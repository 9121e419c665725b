//! `simulate` on MNIST's test set: what approximated activations cost in accuracy.
//!
//! The data are looked for in `$FHEC_SHARED`, else in `shared` beside the checkout. All 10 000 images, with a table:
//!
//!     FHEC_SLOW=1 cargo test --release -p fhec-cli --test cli accuracy -- --nocapture

use crate::common::models;
use crate::fhec;
use std::path::PathBuf;

/// Most that a network may lose, as a part of all images.
const MOST_LOST: f64 = 0.003;

/// Images that the ordinary run of the tests takes.
const FEW: u64 = 1000;

/// A file of the shared data, or `None` with a printed line.
fn shared(path: &str) -> Option<PathBuf> {
    let base = std::env::var_os("FHEC_SHARED").map_or_else(|| models().join("../../shared"), PathBuf::from);
    let full = base.join("data").join(path);
    if full.exists() {
        return Some(full);
    }
    println!("skipped: {} is not there", full.display());
    None
}

/// Compiles a network, simulates it and holds its accuracy against the original's, which gets `right` of all images
/// right.
fn accurate(model: Option<PathBuf>, right: u64, preprocess: &[&str]) {
    let files = [model, shared("mnist/t10k-images-idx3-ubyte.gz"), shared("mnist/t10k-labels-idx1-ubyte.gz")];
    let [Some(model), Some(images), Some(labels)] = files else { return };
    let scratch = tempfile::tempdir().expect("temporary folder");
    let plan = scratch.path().join("x.plan");
    let mut compile = crate::common::command();
    compile.arg("compile").arg(&model).arg("-o").arg(&plan).arg("--calibrate").arg(models().join("calibration.npy"));
    crate::common::Outcome::from(compile.args(preprocess).output().expect("starts")).ok();
    let slow = std::env::var_os("FHEC_SLOW").is_some();
    let limit = if slow { 10_000 } else { FEW };
    let out = fhec![
        "simulate",
        plan,
        "--model",
        model,
        "--data",
        images,
        "--labels",
        labels,
        "--limit",
        limit.to_string(),
        "--json"
    ];
    let json: serde_json::Value = serde_json::from_str(&out.ok().stdout).expect("json");
    let count = |of: &str, what: &str| json[of][what].as_u64().expect("a number");
    let (original, plan) = (count("original", "correct"), count("plan", "correct"));
    let name = model.file_stem().expect("a name").to_string_lossy().into_owned();
    println!("{name:<20} {original:>5} {plan:>5} of {limit}, same class on {}", count("plan", "same_class"));
    assert!(!slow || original == right, "{name}: the original gets {original} right, not {right}");
    let lost = original.saturating_sub(plan) as f64 / limit as f64;
    assert!(lost <= MOST_LOST, "{name} gets {original} right, its plan {plan} of {limit}");
}

fn bundled(name: &str, right: u64) {
    accurate(Some(models().join(format!("{name}.onnx"))), right, &[]);
}

fn given(name: &str, right: u64, preprocess: &[&str]) {
    accurate(shared(&format!("models/{name}.onnx")), right, preprocess);
}

#[test]
fn bundled_squares() {
    bundled("mlp_square", 9924);
    bundled("lola", 9918);
    bundled("cryptonets", 9918);
}

#[test]
fn bundled_lenets() {
    bundled("lenet_silu", 9955);
    bundled("lenet_relu", 9947);
}

#[test]
fn shared_networks() {
    given("mnist_cryptonets", 9872, &[]);
    given("mnist_mlp_square", 9810, &[]);
    given("mnist_cnn_silu", 9885, &[]);
    given("mnist_mlp_relu", 9816, &["--mean", "0.1307", "--std", "0.3081"]);
}
