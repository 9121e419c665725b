//! What is printed for people and for scripts.

use crate::common::{Outcome, command, fhec, floats, model, models, node, port, small, tensor, weight, with_ints};
use crate::fhec;
use fhec_onnx::proto::{GraphProto, TensorProto};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A network with five things that cannot be compiled, and several that can.
fn five_problems() -> Vec<u8> {
    model(GraphProto {
        name: "five".into(),
        node: vec![
            with_ints(node("MaxPool", "pool", &["x"], "a"), "kernel_shape", &[2, 2]),
            node("Sin", "sine", &["a"], "b"),
            node("Relu", "fine", &["b"], "c"),
            node("LRN", "norm", &["c"], "d"),
            node("Softmax", "middle", &["d"], "e"),
            node("Mul", "alsofine", &["e", "two"], "f"),
            node("Hardmax", "last", &["f"], "y"),
        ],
        initializer: vec![tensor("two", &[1], &[2.0])],
        input: vec![port("x", &[1, 1, 8, 8])],
        output: vec![port("y", &[1, 1, 7, 7])],
        ..GraphProto::default()
    })
}

#[test]
fn all_five_unsupported_things_are_listed_at_once() {
    let scratch = small().scratch();
    let (onnx, plan) = (scratch.path().join("five.onnx"), scratch.path().join("five.plan"));
    std::fs::write(&onnx, five_problems()).expect("writes");
    let names = ["'pool'", "'sine'", "'norm'", "'middle'", "'last'"];
    let compiled = fhec!["compile", onnx, "-o", plan, "--input-range", "0,1"].fails(&names);
    assert!(!plan.exists());
    for fine in ["'fine'", "'alsofine'"] {
        assert!(!compiled.stderr.contains(fine), "{}", compiled.stderr);
    }
    let checked = fhec!["check", onnx];
    assert_eq!(checked.code, 1);
    assert!(names.iter().all(|n| checked.stdout.contains(n)), "{}", checked.stdout);
    assert!(checked.stderr.contains("5 problems"), "{}", checked.stderr);
    let listed = fhec!["check", onnx, "--json"];
    assert_eq!(listed.code, 1);
    let listed = json(&listed.stdout);
    assert_eq!((listed["ok"].as_bool(), listed["problems"].as_array().map(Vec::len)), (Some(false), Some(5)));
}

#[test]
fn a_good_model_checks_out() {
    let out = fhec!["check", models().join("lenet_silu.onnx")].ok();
    assert!(out.stdout.contains("can be compiled") && out.stdout.contains("1×1×28×28"), "{}", out.stdout);
    assert_eq!(json(&fhec!["check", models().join("lola.onnx"), "--json"].ok().stdout)["ok"], true);
}

/// The bundled ResNet-8, compiled with calibration data of noise and one more option, and what `explain --json` says.
fn resnet(option: &[&str]) -> (Outcome, Value) {
    let scratch = small().scratch();
    let (noise, plan) = (scratch.path().join("x.npy"), scratch.path().join("deep.plan"));
    let values: Vec<f32> = (0..8u32 * 3072).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 255.0).collect();
    std::fs::write(&noise, floats(&[8, 3, 32, 32], &values)).expect("writes");
    let mut compile = command();
    compile.arg("compile").arg(models().join("resnet8.onnx")).arg("--calibrate").arg(noise).args(option);
    Outcome::from(compile.arg("-o").arg(&plan).output().expect("runs")).ok();
    let report = json(&fhec!["explain", plan, "--json"].ok().stdout);
    (fhec!["explain", plan].ok(), report)
}

#[test]
fn bootstraps_say_why_they_are_there() {
    let (text, report) = resnet(&[]);
    assert!(text.stdout.contains("levels to") && text.stdout.contains("left"), "{}", text.stdout);
    let bootstraps = report["bootstraps"].as_array().expect("a list");
    assert!(!bootstraps.is_empty());
    for b in bootstraps {
        let number = |name: &str| b[name].as_u64().unwrap_or_else(|| panic!("{name} in {b}"));
        assert!(number("levels_needed") > number("levels_left"), "{b}");
        assert!(number("levels_needed") <= number("level_out"), "{b}");
        assert!(b["until"].as_array().is_some_and(|until| !until.is_empty()), "{b}");
    }
    // Vectors that repeat go down to smaller rings, whose keys are counted by themselves.
    assert!(text.stdout.contains("smaller ring") && text.stdout.contains("from the sparse secret"), "{}", text.stdout);
    let rings = report["keys"]["low_rings"].as_array().expect("a list");
    assert!(
        !rings.is_empty() && rings.iter().all(|ring| ring["rotations"].as_u64().is_some_and(|n| n > 0)),
        "{report}"
    );
    // The sparse secret of bootstraps is granted no more.
    assert_eq!(report["totals"]["security_bits"], 128.0);
}

#[test]
fn nothing_bootstraps_above_128_bits_of_security() {
    let (_, report) = resnet(&["--security", "192"]);
    assert_eq!(report["bootstraps"].as_array().map(Vec::len), Some(0));
    assert!(report["totals"]["security_bits"].as_f64().is_some_and(|bits| bits >= 192.0));
}

#[test]
fn explain_has_tables_json_dot_and_instructions() {
    let plan = small().at("small.plan");
    let text = fhec!["explain", plan].ok().stdout;
    for part in ["dense1", "square", "dense2", "security", "evaluation keys", "peak memory", "rotations", "precision"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let report = json(&fhec!["explain", plan, "--json"].ok().stdout);
    assert!(report["totals"]["security_bits"].as_f64().is_some_and(|b| b >= 128.0));
    assert!(report["layers"].as_array().is_some_and(|l| l.len() >= 3));
    for figure in ["seconds", "peak_memory", "key_bytes_disk", "input_bytes", "output_bytes", "output_bits"] {
        assert!(report["totals"][figure].as_f64().is_some_and(|v| v > 0.0), "{figure}: {report:#}");
    }
    let dot = fhec!["explain", plan, "--dot"].ok().stdout;
    assert!(dot.starts_with("digraph") && dot.contains("0 -> 1 [") && dot.contains("dense1\\n"), "{dot}");
    let scratch = small().scratch();
    let head = scratch.path().join("small.head");
    fhec!["explain", plan, "--head", head].ok();
    let (head, plan_bytes) = (std::fs::read(&head).expect("reads"), std::fs::read(&plan).expect("reads"));
    assert!(head.len() < plan_bytes.len() && plan_bytes.starts_with(&head));
    assert!(fhec!["explain", plan, "--listing"].ok().stdout.contains("= linear"));
}

#[test]
fn predicted_sizes_are_the_sizes() {
    let s = small();
    let report = json(&fhec!["explain", s.at("small.plan"), "--json"].ok().stdout);
    for (figure, file) in [("key_bytes_disk", "small-keys/eval.keys"), ("input_bytes", "x.ct")] {
        let predicted = report["totals"][figure].as_f64().expect("number");
        let real = std::fs::metadata(s.at(file)).expect("file").len() as f64;
        assert!((predicted / real).ln().abs() < 0.35, "{figure}: {predicted} predicted, {real} found");
    }
    let scratch = s.scratch();
    let keys = fhec!["keygen", s.at("small.plan"), "-o", scratch.path().join("k")].ok();
    let said = keys.stderr.lines().next().unwrap_or_default().to_owned();
    let shown = keys.stderr.lines().find(|l| l.contains("eval.keys")).unwrap_or_default().to_owned();
    let size = shown.split("  ").nth(1).unwrap_or("?");
    assert!(said.contains(size), "{said} / {shown}");
}

#[test]
fn simulate_compares_with_the_original() {
    let (s, scratch) = (small(), small().scratch());
    let labels = scratch.path().join("labels.txt");
    std::fs::write(&labels, "0\n".repeat(64)).expect("writes");
    let base = ["simulate", "--json"];
    let files = |c: &mut std::process::Command| {
        c.arg(s.at("small.plan")).arg("--model").arg(s.at("small.onnx"));
        c.arg("--data").arg(s.at("calibration.npy")).arg("--labels").arg(&labels);
    };
    let mut clear = command();
    files(clear.args(base).args(["--limit", "40"]));
    let clear = json(&Outcome::from(clear.output().expect("starts")).ok().stdout);
    assert_eq!(clear["samples"], 40);
    assert_eq!(clear["plan"]["same_class"], 40);
    assert_eq!(clear["plan"]["accuracy"], clear["original"]["accuracy"]);
    assert!(clear["plan"]["max"].as_f64().is_some_and(|e| e < 1e-6), "{clear:#}");
    let layers = clear["layers"].as_array().expect("layers");
    assert!(layers.iter().any(|l| l["name"] == "square") || layers.len() >= 2, "{clear:#}");
    assert!(layers.iter().all(|l| l["rms"].as_f64().is_some_and(|e| e < 1e-6)), "{clear:#}");
    let mut noise = command();
    files(noise.args(base).args(["--backend", "noise", "--limit", "40"]));
    let noise = json(&Outcome::from(noise.output().expect("starts")).ok().stdout);
    let error = noise["noise"]["against_plan"]["rms"].as_f64().expect("noise");
    assert!(error > 0.0 && error < 1e-2, "{noise:#}");
    let mut encrypted = command();
    files(encrypted.args(base).args(["--backend", "encrypted", "--limit", "2"]));
    let encrypted = json(&Outcome::from(encrypted.output().expect("starts")).ok().stdout);
    let real = encrypted["encrypted"]["against_plan"]["rms"].as_f64().expect("errors");
    assert!(real > 0.0 && real < 4.0 * error, "{encrypted:#}");
    assert_eq!(encrypted["evaluation"]["seconds"].as_array().map(Vec::len), Some(2), "{encrypted:#}");
}

#[test]
fn a_folder_of_pictures_is_a_data_set() {
    let scratch = small().scratch();
    let (onnx, plan) = (models().join("lola.onnx"), scratch.path().join("lola.plan"));
    fhec!["compile", onnx, "-o", plan, "--calibrate", models().join("calibration.npy")].ok();
    let digits = models().join("digits");
    let out =
        fhec!["simulate", plan, "--model", onnx, "--data", digits, "--labels", digits.join("labels.txt"), "--json",];
    let report = json(&out.ok().stdout);
    // One of them is misread, as models/README.md says.
    assert_eq!((&report["samples"], &report["original"]["correct"]), (&Value::from(20), &Value::from(19)));
    assert_eq!((&report["plan"]["correct"], &report["plan"]["same_class"]), (&Value::from(19), &Value::from(20)));
    let layers = report["layers"].as_array().expect("layers");
    assert!(layers.len() >= 5 && layers.iter().all(|l| l["rms"].as_f64().is_some_and(|e| e < 1e-9)), "{report:#}");
}

#[test]
fn simulate_refuses_another_model_and_too_few_labels() {
    let (s, scratch) = (small(), small().scratch());
    fhec!["simulate", s.at("small.plan"), "--model", models().join("lola.onnx"), "--data", s.at("calibration.npy")]
        .fails(&["lola.onnx", "not compiled from"]);
    let labels = scratch.path().join("labels.txt");
    std::fs::write(&labels, "0\n1\n").expect("writes");
    fhec![
        "simulate",
        s.at("small.plan"),
        "--model",
        s.at("small.onnx"),
        "--data",
        s.at("calibration.npy"),
        "--labels",
        labels
    ]
    .fails(&["2 labels for 64 samples"]);
}

#[test]
fn graphs_are_printed_after_a_pass() {
    let (s, scratch) = (small(), small().scratch());
    let plan = scratch.path().join("p");
    let compile = |pass: &str| {
        fhec!["compile", s.at("small.onnx"), "-o", plan, "--calibrate", s.at("calibration.npy"), "--print-after", pass]
    };
    assert!(compile("canonicalise").ok().stdout.contains("// after canonicalise"));
    compile("no-such-pass").fails(&["no-such-pass", "canonicalise"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = command()
        .arg("explain")
        .arg(small().at("small.plan"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("ends").success());
}

#[test]
fn help_and_completions_name_every_command() {
    let help = fhec(&["--help"]).ok().stdout;
    let names =
        ["compile", "check", "explain", "keygen", "encrypt", "run", "decrypt", "simulate", "demo", "completions"];
    for name in names.into_iter().chain(["calibrate", "bench"]) {
        assert!(help.contains(name), "{name}");
        let own = fhec(&[name, "--help"]).ok().stdout;
        assert!(own.contains("fhec") && own.contains("Example"), "{own}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(fhec(&["completions", shell]).ok().stdout.contains("simulate"));
    }
}

#[test]
fn layers_are_listed_under_the_names_of_the_models_operators() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let shape = TensorProto {
        name: "shape".into(),
        dims: vec![2],
        data_type: 7,
        int64_data: vec![1, 16],
        ..TensorProto::default()
    };
    let file = model(GraphProto {
        name: "named".into(),
        node: vec![
            node("Reshape", "flatten", &["x", "shape"], "flat"),
            node("MatMul", "dense1", &["flat", "w1"], "h"),
            node("Pow", "cube", &["h", "three"], "c"),
            node("MatMul", "dense2", &["c", "w2"], "d"),
            node("Min", "bound", &["d", "most"], "b"),
            node("Mul", "square", &["b", "b"], "y"),
        ],
        initializer: vec![
            shape,
            tensor("w1", &[16, 8], &weight(1, 16, 8)),
            tensor("w2", &[8, 3], &weight(2, 8, 3)),
            tensor("three", &[], &[3.0]),
            tensor("most", &[], &[0.1]),
        ],
        input: vec![port("x", &[1, 1, 4, 4])],
        output: vec![port("y", &[1, 3])],
        ..GraphProto::default()
    });
    std::fs::write(at("named.onnx"), file).expect("writes");
    fhec!["compile", at("named.onnx"), "-o", at("plan"), "--calibrate", s.at("calibration.npy")].ok();
    let told = json(&fhec!["explain", at("plan"), "--json"].ok().stdout);
    let layers = told["layers"].as_array().expect("layers");
    let kind = |name: &str| {
        let layer = layers.iter().find(|l| l["name"] == name).unwrap_or_else(|| panic!("{name} in {told}"));
        layer["kind"].as_str().expect("text").to_owned()
    };
    assert_eq!((kind("cube"), kind("square")), ("Pow 3".into(), "Square".into()));
    assert!(kind("bound").starts_with("Min on ["), "{}", kind("bound"));
}
