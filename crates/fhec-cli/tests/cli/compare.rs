//! The values and the result of a run, looked at by the holder of the key.

use crate::common::{Outcome, command, listing, pixels, port, small, small_model, small_result};
use crate::fhec;
use fhec_onnx::proto::ModelProto;
use prost::Message;
use serde_json::Value;
use std::path::Path;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn the_keys_holder_sees_the_error_of_every_layer() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (plan, keys) = (s.at("small.plan"), s.at("small-keys/eval.keys"));
    fhec!["run", plan, "--eval-keys", keys, "--input", s.at("x.ct"), "-o", at("y.ct"), "--keep-values", at("v")].ok();
    assert!(!listing(&at("v")).is_empty());
    let compare = |secret: &str, extra: &[&str]| {
        let mut compare = command();
        compare.arg("compare").arg(&plan).arg("--secret-key").arg(s.at(secret)).arg("--values").arg(at("v"));
        compare.arg("--model").arg(s.at("small.onnx")).arg("--input").arg(s.at("x.npy")).args(extra);
        Outcome::from(compare.output().expect("starts"))
    };
    let out = compare("small-keys/secret.key", &["--json"]).ok();
    let layers = json(&out.stdout);
    let layers = layers.as_array().expect("a list");
    assert_eq!(layers.len(), listing(&at("v")).len());
    for layer in layers {
        let number = |name: &str| layer[name].as_f64().unwrap_or_else(|| panic!("{name} in {layer}"));
        assert!(number("rms") > 0.0 && number("worst") >= number("rms"), "{layer}");
        assert!((number("bits") - number("predicted_bits")).abs() < 3.0, "{layer}");
    }
    // Nothing is approximated, so against the original there is the same error, in its units.
    let last = layers.last().expect("layers");
    let original = &last["original"];
    assert!(original["plan_bits"].as_f64().is_none_or(|b| b > 30.0), "{last}");
    let bits = [&original["encrypted_bits"], &last["bits"]].map(|b| b.as_f64().expect("a number"));
    assert!((bits[0] - bits[1]).abs() < 0.5, "{last}");
    let text = compare("small-keys/secret.key", &[]).ok().stdout;
    assert!(text.contains("predicted") && text.contains("dense1"), "{text}");

    compare("other-keys/secret.key", &[]).fails(&["secret.key", "another plan"]);
    std::fs::remove_dir_all(at("v")).expect("removes");
    std::fs::create_dir(at("v")).expect("makes");
    compare("small-keys/secret.key", &[]).fails(&["holds no value"]);
    std::fs::write(at("v/layer-0000.ct"), "x").expect("writes");
    compare("small-keys/secret.key", &[]).fails(&["layer-0000.ct"]);
}

/// `fhec compare` of the small network.
fn compare(result: &[&Path], input: &Path, extra: &[&str]) -> Outcome {
    let s = small();
    let mut compare = command();
    compare.arg("compare").arg(s.at("small.plan")).arg("--secret-key").arg(s.at("small-keys/secret.key"));
    compare.arg("--model").arg(s.at("small.onnx")).arg("--input").arg(input).args(result).args(extra);
    Outcome::from(compare.output().expect("starts"))
}

#[test]
fn a_result_alone_tells_how_precise_it_is() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (plan, keys) = (s.at("small.plan"), s.at("small-keys/eval.keys"));
    fhec!["run", plan, "--eval-keys", keys, "--input", s.at("x.ct"), "-o", at("y.ct"), "--keep-values", at("v")].ok();
    let result = at("y.ct");
    let result = [Path::new("--result"), &result];

    let rows = json(&compare(&result, &s.at("x.npy"), &["--json"]).ok().stdout);
    let [row] = &rows.as_array().expect("a list")[..] else { panic!("one output: {rows}") };
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {row}"));
    assert_eq!((&row["name"], &row["output"], &row["values"]), (&"y".into(), &0.into(), &3.into()));
    assert!(number(&row["rms"]) > 0.0 && number(&row["worst"]) >= number(&row["rms"]), "{row}");
    assert!((number(&row["bits"]) - number(&row["predicted_bits"])).abs() < 4.0, "{row}");
    // Nothing is approximated, so the plan in the clear is the original, and what encryption brings is all there is.
    assert!(row["original"]["plan_bits"].as_f64().is_none_or(|b| b > 30.0), "{row}");
    assert!((number(&row["original"]["encrypted_rms"]) / number(&row["rms"]) - 1.0).abs() < 1e-3, "{row}");
    let x: Vec<f64> = pixels().iter().map(|&b| f64::from(b) / 255.0).collect();
    let expected = small_result(1, &x);
    let top = (0..3).max_by(|&a, &b| expected[a].total_cmp(&expected[b])).expect("three");
    for of in ["encrypted", "plan", "original"] {
        assert_eq!(row["class"][of], top, "{row}");
    }
    let text = compare(&result, &s.at("x.npy"), &[]).ok();
    assert!(text.stdout.contains(&format!("class of y: {top}, the same")), "{}", text.stdout);
    assert!(!text.stderr.contains("without a file"), "{}", text.stderr);

    // With the layers' values there are both, the output last.
    let both = [result[0], result[1], Path::new("--values"), &at("v")];
    let rows = json(&compare(&both, &s.at("x.npy"), &["--json"]).ok().stdout);
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), listing(&at("v")).len() + 1);
    assert!(rows[..rows.len() - 1].iter().all(|r| r["layer"].is_u64()) && rows[rows.len() - 1]["output"] == 0);

    // The same on the way to the values.
    let (secret, model, x) = (s.at("small-keys/secret.key"), s.at("small.onnx"), s.at("x.npy"));
    let alone = compare(&result, &x, &[]).ok().stdout;
    let decrypt =
        fhec!["decrypt", plan, "--secret-key", secret, "--input", at("y.ct"), "--compare", model, "--encrypted", x];
    assert_eq!(decrypt.ok().stdout, alone);
}

#[test]
fn the_encrypted_input_serves_in_place_of_the_picture() {
    let (s, scratch) = (small(), small().scratch());
    let result = scratch.path().join("y.ct");
    let keys = s.at("small-keys/eval.keys");
    fhec!["run", s.at("small.plan"), "--eval-keys", keys, "--input", s.at("x.ct"), "-o", result].ok();
    let result = [Path::new("--result"), &result];
    let row = |input: &Path| json(&compare(&result, input, &["--json"]).ok().stdout)[0].clone();
    let (picture, encrypted) = (row(&s.at("x.npy")), row(&s.at("x.ct")));
    let spread = |row: &Value| row["original"]["spread"].as_f64().expect("a number");
    assert!((spread(&encrypted) / spread(&picture) - 1.0).abs() < 1e-3, "{encrypted} {picture}");
    assert!(encrypted["bits"].as_f64().is_some_and(|b| b > 8.0), "{encrypted}");
    let mut named = std::ffi::OsString::from("x=");
    named.push(s.at("x.ct"));
    assert_eq!(row(Path::new(&named))["name"], "y");

    compare(&result, &s.at("x.ct"), &["--index", "0"]).fails(&["x.ct", "--index"]);
    compare(&result, &s.at("small-keys/public.key"), &[]).fails(&["public.key", "a public key"]);
    // A file of inputs is no result, and one of outputs no input.
    compare(&[Path::new("--result"), &s.at("x.ct")], &s.at("x.npy"), &[]).fails(&["x.ct", "missing"]);
    compare(&result, result[1], &[]).fails(&["y.ct", "missing"]);
    assert_eq!(compare(&[], &s.at("x.npy"), &[]).code, 2);
}

/// Several images share the ciphertexts of a throughput plan; the first one is compared.
#[test]
fn the_first_image_of_a_batch_is_compared() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (plan, data, secret) = (at("plan"), s.at("calibration.npy"), at("keys/secret.key"));
    fhec!["compile", s.at("small.onnx"), "-o", plan, "--calibrate", data, "--mode", "throughput"].ok();
    fhec!["keygen", plan, "-o", at("keys")].ok();
    fhec!["encrypt", plan, "--secret-key", secret, "--input", data, "--skip", "5", "--limit", "3", "-o", at("x.ct")]
        .ok();
    fhec!["run", plan, "--eval-keys", at("keys/eval.keys"), "--input", at("x.ct"), "-o", at("y.ct")].ok();
    let rows = |input: &[&str]| {
        let mut compare = command();
        compare.arg("compare").arg(&plan).arg("--secret-key").arg(&secret).arg("--result").arg(at("y.ct"));
        compare.arg("--model").arg(s.at("small.onnx")).arg("--json").arg("--input").args(input);
        json(&Outcome::from(compare.output().expect("starts")).ok().stdout)[0].clone()
    };
    let (data, ct) = (data.to_string_lossy().into_owned(), at("x.ct").to_string_lossy().into_owned());
    let bits = |row: &Value| row["bits"].as_f64().expect("a number");
    assert!(bits(&rows(&[&data, "--index", "5"])) > 8.0);
    assert!(bits(&rows(&[&ct])) > 8.0);
    assert!(bits(&rows(&[&data, "--index", "6"])) < 5.0, "another image");
}

#[test]
fn every_output_has_its_row() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let mut model = ModelProto::decode(&small_model(1)[..]).expect("a model");
    model.graph.as_mut().expect("a graph").output.insert(0, port("h", &[1, 8]));
    std::fs::write(at("two.onnx"), model.encode_to_vec()).expect("writes");
    let (plan, secret) = (at("plan"), at("keys/secret.key"));
    fhec!["compile", at("two.onnx"), "-o", plan, "--calibrate", s.at("calibration.npy")].ok();
    fhec!["keygen", plan, "-o", at("keys")].ok();
    fhec!["encrypt", plan, "--secret-key", secret, "--input", s.at("x.npy"), "-o", at("x.ct")].ok();
    fhec!["run", plan, "--eval-keys", at("keys/eval.keys"), "--input", at("x.ct"), "-o", at("y.ct")].ok();
    let mut compare = command();
    compare.arg("compare").arg(&plan).arg("--secret-key").arg(&secret).arg("--result").arg(at("y.ct"));
    compare.arg("--model").arg(at("two.onnx")).arg("--json").arg("--input").arg(s.at("x.npy"));
    let rows = json(&Outcome::from(compare.output().expect("starts")).ok().stdout);
    let told: Vec<_> = rows.as_array().expect("a list").iter().map(|r| (&r["name"], &r["values"])).collect();
    assert_eq!(told, [(&"h".into(), &8.into()), (&"y".into(), &3.into())]);
    for row in rows.as_array().expect("a list") {
        assert!(row["original"]["encrypted_bits"].as_f64().is_some_and(|b| b > 8.0), "{row}");
    }
}
