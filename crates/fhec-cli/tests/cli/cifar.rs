//! CIFAR-10 binaries wherever data are read: calibration, encryption, simulation with the labels they hold.

use crate::common::{command, model, node, port, tensor, weight};
use crate::fhec;
use fhec_onnx::proto::{GraphProto, TensorProto};

/// Records of a label byte and 3072 pixels.
fn records(count: u32) -> Vec<u8> {
    (0..count)
        .flat_map(|r| (0..3073u32).map(move |i| if i == 0 { r % 10 } else { (i * (r + 3)) % 251 } as u8))
        .collect()
}

/// A picture of 3×32×32 into dense 10 and a square.
fn network() -> Vec<u8> {
    let shape = TensorProto {
        name: "shape".into(),
        dims: vec![2],
        data_type: 7,
        int64_data: vec![1, 3072],
        ..TensorProto::default()
    };
    let weights: Vec<f32> = weight(1, 3072, 10).iter().map(|w| w / 64.0).collect();
    model(GraphProto {
        name: "colour".into(),
        node: vec![
            node("Reshape", "flatten", &["x", "shape"], "flat"),
            node("MatMul", "dense", &["flat", "w"], "h"),
            node("Mul", "square", &["h", "h"], "y"),
        ],
        initializer: vec![shape, tensor("w", &[3072, 10], &weights)],
        input: vec![port("x", &[1, 3, 32, 32])],
        output: vec![port("y", &[1, 10])],
        ..GraphProto::default()
    })
}

#[test]
fn records_calibrate_encrypt_and_bring_their_labels() {
    let scratch = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| scratch.path().join(name);
    let data = at("batch.bin");
    std::fs::write(at("colour.onnx"), network()).expect("writes");
    std::fs::write(&data, records(20)).expect("writes");
    let normalised = ["--mean", "0.5,0.4,0.3", "--std", "0.25"];
    let mut compile = command();
    compile.arg("compile").arg(at("colour.onnx")).arg("-o").arg(at("plan")).arg("--calibrate").arg(&data);
    crate::common::Outcome::from(compile.args(normalised).output().expect("starts")).ok();

    let simulate = |extra: &[&str]| {
        let mut command = command();
        command.arg("simulate").arg(at("plan")).arg("--model").arg(at("colour.onnx")).arg("--data").arg(&data);
        let out: crate::common::Outcome = command.arg("--json").args(extra).output().expect("starts").into();
        serde_json::from_str::<serde_json::Value>(&out.ok().stdout).expect("json")
    };
    let own = simulate(&[]);
    assert_eq!((&own["samples"], &own["plan"]["same_class"]), (&20.into(), &20.into()));
    assert!(own["original"]["correct"].as_u64().is_some_and(|n| n < 20), "{own}");
    // Given labels win over those of the file.
    let labels = at("labels.txt");
    std::fs::write(&labels, "10\n".repeat(20)).expect("writes");
    let given = simulate(&["--labels", &labels.display().to_string()]);
    assert_eq!(given["original"]["correct"], 0);

    fhec!["keygen", at("plan"), "-o", at("keys")].ok();
    let key = at("keys/secret.key");
    fhec!["encrypt", at("plan"), "--secret-key", key, "--input", data, "--index", "19", "-o", at("x.ct")].ok();
    fhec!["encrypt", at("plan"), "--secret-key", key, "--input", data, "-o", at("y.ct")].fails(&["20 samples"]);
    std::fs::write(&data, &records(20)[1..]).expect("writes");
    fhec!["encrypt", at("plan"), "--secret-key", key, "--input", data, "-o", at("y.ct")]
        .fails(&["none of the known kinds", "CIFAR-10"]);
}
