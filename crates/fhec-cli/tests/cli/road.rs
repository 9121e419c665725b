//! From a model file to a decrypted result.

use crate::common::{command, models, pixels, read_npy, small, small_result, weight};
use crate::fhec;
use serde_json::Value;

/// Runs the whole road and returns the decrypted values.
fn road(key: &str) -> Vec<f64> {
    let (s, scratch) = (small(), small().scratch());
    let [ct, result, values] = ["x.ct", "y.ct", "y.npy"].map(|f| scratch.path().join(f));
    let key_file = s.at(&format!("small-keys/{key}.key"));
    let flag = format!("--{key}-key");
    fhec!["encrypt", s.at("small.plan"), flag, key_file, "--input", s.at("x.npy"), "-o", ct].ok();
    fhec!["run", s.at("small.plan"), "--eval-keys", s.at("small-keys/eval.keys"), "--input", ct, "-o", result].ok();
    fhec![
        "decrypt",
        s.at("small.plan"),
        "--secret-key",
        s.at("small-keys/secret.key"),
        "--input",
        result,
        "-o",
        values
    ]
    .ok();
    read_npy(&values)
}

#[test]
fn a_small_network_gives_the_right_values_with_either_key() {
    let x: Vec<f64> = pixels().iter().map(|&b| f64::from(b) / 255.0).collect();
    let expected = small_result(1, &x);
    for key in ["secret", "public"] {
        let got = road(key);
        assert_eq!(got.len(), 3);
        for (g, e) in got.iter().zip(&expected) {
            assert!((g - e).abs() < 2e-3, "{key}: {got:?} instead of {expected:?}");
        }
    }
}

/// Any tensor of a model can be an output, several of them too; what none needs is not part of the plan.
#[test]
fn intermediate_values_are_outputs() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (onnx, data, plan) = (s.at("small.onnx"), s.at("calibration.npy"), at("h.plan"));
    for mode in ["latency", "throughput"] {
        // By the name of the tensor and by that of the node.
        let outputs = ["--output", "h", "--output", "dense2"];
        let mut compile = command();
        compile.arg("compile").arg(&onnx).arg("-o").arg(&plan).arg("--calibrate").arg(&data).args(outputs);
        crate::common::Outcome::from(compile.args(["--mode", mode]).output().expect("starts")).ok();
        fhec!["keygen", plan, "-o", at(mode)].ok();
        let (secret, keys) = (at(mode).join("secret.key"), at(mode).join("eval.keys"));
        fhec!["encrypt", plan, "--secret-key", secret, "--input", s.at("x.npy"), "-o", at("x.ct")].ok();
        fhec!["run", plan, "--eval-keys", keys, "--input", at("x.ct"), "-o", at("y.ct")].ok();
        let x: Vec<f64> = pixels().iter().map(|&b| f64::from(b) / 255.0).collect();
        let w = weight(1, 16, 8);
        let h: Vec<f64> =
            (0..8).map(|o| x.iter().enumerate().map(|(i, v)| v * f64::from(w[i * 8 + o])).sum()).collect();
        for (name, want) in [("h", h), ("y", small_result(1, &x))] {
            let out = at("out.npy");
            fhec!["decrypt", plan, "--secret-key", secret, "--input", at("y.ct"), "-o", out, "--select", name].ok();
            let got = read_npy(&out);
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 2e-3), "{mode}, {name}: {got:?}, {want:?}");
        }
    }
    fhec!["compile", onnx, "-o", plan, "--calibrate", data, "--output", "hidden"].fails(&["'hidden'", "flat, h, s"]);
    fhec!["compile", onnx, "-o", plan, "--calibrate", data, "--output", "h", "--output", "h"].fails(&["twice"]);
}

#[test]
fn little_memory_changes_no_bit() {
    let scratch = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| scratch.path().join(name);
    let (plan, secret, keys) = (at("plan"), at("keys/secret.key"), at("keys/eval.keys"));
    let data = models().join("calibration.npy");
    fhec!["compile", models().join("cryptonets.onnx"), "-o", plan, "--calibrate", data, "--mode", "throughput"].ok();
    fhec!["keygen", plan, "-o", at("keys")].ok();
    fhec!["encrypt", plan, "--secret-key", secret, "--input", data, "--limit", "20", "-o", at("x.ct")].ok();
    let run = |output: &str, memory: &str, spill: &str| {
        let mut run = command();
        run.arg("run")
            .arg(&plan)
            .arg("--eval-keys")
            .arg(&keys)
            .arg("--input")
            .arg(at("x.ct"))
            .arg("-o")
            .arg(at(output));
        run.args(["--memory", memory]).arg("--spill").arg(at(spill));
        crate::common::Outcome::from(run.output().expect("starts"))
    };
    std::fs::create_dir(at("spill")).expect("folder");
    let whole = run("whole.ct", "4GiB", "spill").ok();
    assert!(!whole.stderr.contains("streamed"), "{}", whole.stderr);
    let refused = run("none.ct", "1MiB", "spill").fails(&["needs", "for ciphertexts alone"]);
    // The smallest that works, rounded.
    let least = refused.stderr.split("needs ").nth(1).and_then(|rest| rest.split(" for").next()).expect("a size");
    let (number, unit) = least.split_once(' ').expect("number and unit");
    let enough = format!("{}{unit}", number.parse::<f64>().expect("a number") * 1.02);
    run("lost.ct", &enough, "missing").fails(&["cannot spill to", "missing"]);
    assert!(!at("lost.ct").exists() && !at("none.ct").exists());
    let streamed = run("streamed.ct", &enough, "spill").ok();
    assert!(streamed.stderr.contains("streamed: "), "{}", streamed.stderr);
    assert!(!streamed.stderr.contains(" 0 B written"), "{}", streamed.stderr);
    let bytes = |name: &str| std::fs::read(at(name)).expect("reads");
    assert!(bytes("whole.ct") == bytes("streamed.ct"), "other bits");
    assert!(crate::common::listing(&at("spill")).is_empty());
    fhec!["decrypt", plan, "--secret-key", secret, "--input", at("streamed.ct"), "-o", at("y.npy")].ok();
    assert_eq!(read_npy(&at("y.npy")).len(), 200);
}

#[test]
fn bundled_digits_match_their_golden_logits() {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(models().join("cryptonets.golden.json")).expect("golden")).expect("json");
    let scratch = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| scratch.path().join(name);
    let plan = at("plan");
    fhec!["compile", models().join("cryptonets.onnx"), "-o", plan, "--calibrate", models().join("calibration.npy")]
        .ok();
    fhec!["keygen", plan, "-o", at("keys")].ok();
    let chosen = [4, 11, 17];
    let mut run = command();
    run.arg("run").arg(&plan).arg("--eval-keys").arg(at("keys/eval.keys"));
    for i in chosen {
        let picture = models().join(format!("digits/{i:02}.png"));
        let ct = at(&format!("{i}.ct"));
        fhec!["encrypt", plan, "--secret-key", at("keys/secret.key"), "--input", picture, "-o", ct].ok();
        run.arg("--input").arg(ct).arg("-o").arg(at(&format!("{i}.out.ct")));
    }
    assert!(run.status().expect("runs").success());
    for i in chosen {
        let (ct, values) = (at(&format!("{i}.out.ct")), at(&format!("{i}.npy")));
        fhec!["decrypt", plan, "--secret-key", at("keys/secret.key"), "--input", ct, "-o", values].ok();
        let got = read_npy(&values);
        let expected: Vec<f64> =
            golden["logits"][i].as_array().expect("row").iter().map(|v| v.as_f64().expect("number")).collect();
        let span =
            expected.iter().copied().fold(f64::MIN, f64::max) - expected.iter().copied().fold(f64::MAX, f64::min);
        for (g, e) in got.iter().zip(&expected) {
            assert!((g - e).abs() < span / 4096.0, "digit {i}: {got:?} instead of {expected:?}");
        }
        let top = fhec![
            "decrypt",
            plan,
            "--secret-key",
            at("keys/secret.key"),
            "--input",
            ct,
            "--top",
            "1",
            "--labels",
            models().join("mnist_labels.txt"),
        ]
        .ok();
        let label = golden["labels"][i].to_string();
        assert_eq!(top.stdout.lines().nth(1).and_then(|l| l.split_whitespace().next()), Some(label.as_str()));
    }
}

#[test]
fn several_inputs_in_one_run_equal_single_runs() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let keys = s.at("small-keys/eval.keys");
    let trace = at("trace.jsonl");
    fhec![
        "run",
        s.at("small.plan"),
        "--eval-keys",
        keys,
        "--input",
        s.at("x.ct"),
        "-o",
        at("a.ct"),
        "--input",
        s.at("x.ct"),
        "-o",
        at("b.ct"),
        "--threads",
        "1",
        "--trace",
        trace,
    ]
    .ok();
    fhec!["run", s.at("small.plan"), "--eval-keys", keys, "--input", s.at("x.ct"), "-o", at("c.ct"), "--threads", "2"]
        .ok();
    let [a, b, c] = ["a.ct", "b.ct", "c.ct"].map(|f| std::fs::read(at(f)).expect("written"));
    assert!(a == b && b == c, "evaluation depends on nothing but its input");
    let trace = std::fs::read_to_string(trace).expect("trace");
    let records: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let of = |kind: &str| records.iter().filter(|r| r["record"] == kind).cloned().collect::<Vec<Value>>();
    let (runs, nodes, ends) = (of("run"), of("node"), of("end"));
    assert_eq!((runs.len(), ends.len(), records.len()), (2, 2, 4 + nodes.len()));
    assert_eq!(runs[0]["instructions"].as_u64(), Some(nodes.len() as u64 / 2));
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| panic!("{v} is no number"));
    for name in ["number", "level", "log2_scale", "ciphertexts", "begin", "seconds", "predicted_seconds", "live_bytes"]
    {
        assert!(nodes.iter().all(|n| number(&n[name]) >= 0.0), "{name}");
    }
    assert!(nodes.iter().any(|n| n["op"] == "linear" && number(&n["log2_scale"]) > 10.0));
    for end in ends {
        let sum: f64 = end["layers"].as_array().expect("layers").iter().map(|l| number(&l["seconds"])).sum();
        assert!(sum > 0.0 && sum <= number(&end["seconds"]));
    }
}

#[test]
fn compiling_twice_gives_identical_bytes() {
    let (s, scratch) = (small(), small().scratch());
    let again = scratch.path().join("again.plan");
    fhec!["compile", s.at("small.onnx"), "-o", again, "--calibrate", s.at("calibration.npy")].ok();
    assert!(std::fs::read(again).expect("written") == std::fs::read(s.at("small.plan")).expect("written"));
}

#[test]
fn raw_values_are_within_the_rounding_of_the_rounded_ones() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let secret = s.at("small-keys/secret.key");
    fhec![
        "run",
        s.at("small.plan"),
        "--eval-keys",
        s.at("small-keys/eval.keys"),
        "--input",
        s.at("x.ct"),
        "-o",
        at("y.ct")
    ]
    .ok();
    fhec!["decrypt", s.at("small.plan"), "--secret-key", secret, "--input", at("y.ct"), "-o", at("r.npy")].ok();
    fhec!["decrypt", s.at("small.plan"), "--secret-key", secret, "--input", at("y.ct"), "-o", at("raw.npy"), "--raw"]
        .ok();
    let (rounded, raw) = (read_npy(&at("r.npy")), read_npy(&at("raw.npy")));
    assert_ne!(rounded, raw);
    assert!(rounded.iter().zip(&raw).all(|(a, b)| (a - b).abs() < 1e-2), "{rounded:?} {raw:?}");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_secret_key() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |file: &str| std::fs::metadata(small().at(file)).expect("key").permissions().mode() & 0o777;
    assert_eq!(mode("small-keys/secret.key"), 0o600);
    assert_eq!(mode("small-keys/eval.keys") & 0o400, 0o400);
}

#[test]
fn the_demo_classifies_a_digit() {
    let out = fhec!["demo", "--digits", "1"].ok();
    assert!(out.stdout.contains("1 of 1 right"), "{}", out.stdout);
    for part in ["MODEL OWNER", "CLIENT", "SERVER", "secret key"] {
        assert!(out.stdout.contains(part), "{part} in {}", out.stdout);
    }
}
