//! Measuring, and compiling with what was measured.

use crate::common::{models, small};
use crate::fhec;
use serde_json::Value;
use std::path::Path;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_measured_table_prices_plans() {
    let (s, scratch) = (small(), small().scratch());
    let table = scratch.path().join("costs.json");
    let out = fhec!["calibrate", "--log-n", "12", "--seconds", "0", "-o", table].ok();
    for part in ["butterfly", "rotate", "linear map", "2^12", "predicted / measured"] {
        assert!(out.stdout.contains(part), "{part} in\n{}", out.stdout);
    }
    assert!(out.stderr.contains("costs.json") && out.stderr.contains("measurements"), "{}", out.stderr);
    let file = json(&std::fs::read_to_string(&table).expect("written"));
    assert_eq!((&file["version"], &file["threads"]), (&Value::from(2), &Value::from(1)));
    assert!(file["machine"]["cores"].as_u64().is_some_and(|c| c > 0));
    let rotate = file["measurements"].as_array().expect("list").iter().find(|m| m["operation"] == "rotate");
    let rotate = rotate.expect("measured");
    assert!(number(&rotate["seconds"]) > 0.0 && number(&rotate["bytes"]) > 0.0);

    let plan = scratch.path().join("p");
    let compiled =
        fhec!["compile", s.at("small.onnx"), "-o", plan, "--calibrate", s.at("calibration.npy"), "--cost-table", table];
    compiled.ok();
    let seconds = |args: &[&Path]| {
        let mut all: Vec<&std::ffi::OsStr> = vec!["explain".as_ref(), "--json".as_ref()];
        all.extend(args.iter().map(|a| a.as_os_str()));
        let report = json(&crate::common::fhec(&all).ok().stdout);
        let layers = report["layers"].as_array().expect("layers").iter();
        (number(&report["totals"]["seconds"]), layers.map(|l| number(&l["seconds"])).sum::<f64>())
    };
    let flag = Path::new("--cost-table");
    let (own, again) = (seconds(&[&plan]), seconds(&[&plan, flag, &table]));
    assert!((own.0 / again.0 - 1.0).abs() < 1e-9 && (own.1 / again.1 - 1.0).abs() < 1e-9, "{own:?} {again:?}");
    assert!((own.0 / own.1 - 1.0).abs() < 1e-9, "{own:?}");
    // Everything ten times as dear.
    let mut dear = file.clone();
    for (name, price) in dear["prices"].as_object_mut().expect("prices") {
        // Neither a time nor a price: bytes, and the share of work that one thread does alone.
        if !["base_memory", "sequential"].contains(&name.as_str()) {
            *price = Value::from(10.0 * number(price));
        }
    }
    let expensive = scratch.path().join("dear.json");
    std::fs::write(&expensive, dear.to_string()).expect("writes");
    let tenfold = seconds(&[&plan, flag, &expensive]);
    assert!((tenfold.0 / own.0 - 10.0).abs() < 1e-6, "{tenfold:?} {own:?}");
}

#[test]
fn files_that_are_no_tables_are_named() {
    let (s, scratch) = (small(), small().scratch());
    let path = scratch.path().join("wrong.json");
    let cases: [(&[u8], &str); 6] = [
        (b"", "not a cost table"),
        (b"{\"format\": \"fhec cost table\"", "not a cost table"),
        (b"{\"butterfly\": 1}", "\"format\""),
        (b"{\"format\": \"fhec cost table\", \"version\": 7}", "version 7"),
        (b"{\"format\": \"fhec cost table\", \"version\": 2}", "missing field"),
        (b"\xff\xfe", "UTF-8"),
    ];
    for (text, reason) in cases {
        std::fs::write(&path, text).expect("writes");
        fhec!["explain", s.at("small.plan"), "--cost-table", path].fails(&["wrong.json", reason]);
    }
    let plan = scratch.path().join("p");
    fhec!["compile", s.at("small.onnx"), "-o", plan, "--input-range", "0,1", "--cost-table", path]
        .fails(&["wrong.json", "UTF-8"]);
    assert!(!plan.exists());
    fhec!["explain", s.at("small.plan"), "--cost-table", scratch.path().join("missing.json")].fails(&["missing.json"]);
    fhec!["explain", s.at("small.plan"), "--cost-table", scratch.path()].fails(&["it is a folder"]);
}

#[test]
fn tables_of_measurements_go_to_scripts_too() {
    let out = fhec!["calibrate", "--json", "--log-n", "12", "--seconds", "0"].ok();
    let file = json(&out.stdout);
    assert!(number(&file["prices"]["fill"]) > 0.0 && number(&file["prices"]["touch"]) > 0.0);
}

#[test]
fn benchmarks_name_machine_threads_parameters_and_security() {
    let out = fhec!["bench", "--log-n", "12", "--threads", "1,2", "--seconds", "0"].ok().stdout;
    for part in ["core", "N = 2^12", "bit security", "1 thread", "2 threads", "rotate", "8 hoisted rotations"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    let report = json(&fhec!["bench", "--json", "--log-n", "12", "--seconds", "0"].ok().stdout);
    assert!(report["machine"]["processor"].is_string());
    let parameters = &report["parameters"][0];
    assert!(number(&parameters["security_bits"]) >= 128.0 && parameters["log_n"] == 12);
    let results = report["results"].as_array().expect("results");
    assert!(results.len() > 10 && results.iter().all(|r| r["threads"] == 1 && number(&r["seconds"]) > 0.0));
    for bad in [["--log-n", "18"], ["--threads", "0"], ["--seconds", "-1"], ["--log-n", "x"]] {
        assert_eq!(fhec!["bench", bad[0], bad[1]].code, 2, "{bad:?}");
    }
    assert_eq!(fhec!["bench", "--threads", "60000"].code, 1);
    assert_eq!(fhec!["bench", "--bootstrap", "huge"].code, 2);
    assert_eq!(fhec!["bench", "--bootstrap", "--log-n", "16"].code, 2);
    assert_eq!(fhec!["calibrate", "--log-n", "17"].code, 2);
}

#[test]
fn bootstraps_come_with_precision_and_memory() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to run bootstraps");
        return;
    }
    let out = fhec!["bench", "--bootstrap", "shallow", "--seconds", "0"].ok().stdout;
    for part in ["shallow: N = 2^15", "128-bit security", "4 levels left", "peak", "bootstrap of two at once"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    let report =
        json(&fhec!["bench", "--bootstrap", "shallow", "--json", "--seconds", "0", "--threads", "2"].ok().stdout);
    assert!(report["machine"]["processor"].is_string());
    let found = &report["bootstraps"][0];
    assert!(number(&found["security_bits"]) >= 128.0 && number(&found["key_bytes"]) > 1e8);
    assert!(number(&found["peak_bytes"]) > number(&found["key_bytes"]));
    let rows = found["rows"].as_array().expect("rows");
    assert!(rows.iter().all(|r| r["threads"] == 2 && number(&r["precision_bits"]) > 14.0));
    assert!(rows[0]["of_whole"].is_null() && rows[1..].iter().all(|r| number(&r["of_whole"]) > 0.1));
}

/// The promise of the table: a model's first run in a fresh process takes what was predicted, within a factor of 1.5. Measured with
/// `FHEC_SLOW=1`, on a machine that does nothing else.
#[test]
fn predicted_times_are_the_times() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to measure whole networks");
        return;
    }
    let scratch = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| scratch.path().join(name);
    fhec!["calibrate", "-o", at("costs.json")].ok();
    let mut wrong = Vec::new();
    for name in ["lola", "cryptonets", "mlp_square", "lenet_silu", "lenet_relu"] {
        let (onnx, plan) = (models().join(format!("{name}.onnx")), at("plan"));
        let calibration = models().join("calibration.npy");
        fhec!["compile", onnx, "-o", plan, "--calibrate", calibration, "--cost-table", at("costs.json")].ok();
        fhec!["keygen", plan, "-o", at("keys")].ok();
        let picture = models().join("digits/00.png");
        fhec!["encrypt", plan, "--secret-key", at("keys/secret.key"), "--input", picture, "-o", at("x.ct")].ok();
        let mut times: Vec<f64> = (0..3)
            .map(|_| {
                let (keys, trace) = (at("keys/eval.keys"), at("trace"));
                let files = ["--eval-keys".as_ref(), keys.as_os_str(), "--trace".as_ref(), trace.as_os_str()];
                let mut run = crate::common::command();
                run.arg("run").arg(&plan).args(files).arg("--input").arg(at("x.ct")).arg("-o").arg(at("y.ct"));
                let out: crate::common::Outcome = run.args(["--threads", "1"]).output().expect("starts").into();
                out.ok();
                let trace = std::fs::read_to_string(trace).expect("written");
                number(&json(trace.lines().last().expect("an end"))["seconds"])
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let predicted = number(&json(&fhec!["explain", plan, "--json"].ok().stdout)["totals"]["seconds"]);
        println!("{name:12} predicted {predicted:.4} s, took {times:.4?} s");
        if !(1.0 / 1.5..=1.5).contains(&(predicted / times[1])) {
            wrong.push(name);
        }
        std::fs::remove_dir_all(at("keys")).expect("removes");
    }
    assert!(wrong.is_empty(), "{wrong:?} are off by more than a factor of 1.5");
}

/// Every way to run a batch gives the same results, and the table names them all.
#[test]
fn the_ablation_compares_all_techniques() {
    let s = small();
    let data = s.at("calibration.npy");
    let out = fhec!["bench", "--ablation", s.at("small.onnx"), "--calibrate", data, "--json"].ok();
    let told = json(&out.stdout);
    let rows = told["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert!(number(&row["seconds"]) > 0.0 && number(&row["images_per_second"]) > 0.0, "{row}");
        assert!(number(&row["difference"]) < 1e-3, "{row}");
    }
    let text = fhec!["bench", "--ablation", s.at("small.onnx"), "--calibrate", data].ok().stdout;
    for part in
        ["without complex packing", "without merging", "without lazy rescaling", "without scalar encoding", "images/s"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(fhec!["bench", "--ablation", s.at("small.onnx")].code, 2);
}

#[test]
fn layers_are_drawn_from_traces_and_from_plans() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (plan, keys) = (s.at("small.plan"), s.at("small-keys/eval.keys"));
    let run = ["run".into(), plan.clone(), "--eval-keys".into(), keys, "--input".into(), s.at("x.ct")];
    let mut command = crate::common::command();
    command.args(run).arg("-o").arg(at("y.ct")).arg("--trace").arg(at("t.jsonl"));
    crate::common::Outcome::from(command.output().expect("starts")).ok();
    fhec!["bench", "--plot", at("t.svg"), "--trace", at("t.jsonl")].ok();
    fhec!["bench", "--plot", at("p.svg"), "--plan", plan].ok();
    let [measured, predicted] = ["t.svg", "p.svg"].map(|f| std::fs::read_to_string(at(f)).expect("written"));
    for part in ["<svg", "small: ", "dense1", "class=\"linear\"", "class=\"mark\"", "thread"] {
        assert!(measured.contains(part), "{part} in\n{measured}");
    }
    assert!(predicted.contains("predicted") && !predicted.contains("class=\"mark\""), "{predicted}");
    fhec!["bench", "--plot", at("x.svg"), "--trace", s.at("x.npy")].fails(&["x.npy", "not a trace"]);
    fhec!["bench", "--plot", at("x.svg"), "--trace", at("t.svg")].fails(&["t.svg", "line 1"]);
    assert!(!at("x.svg").exists());
    assert_eq!(fhec!["bench", "--plot", at("x.svg")].code, 2);
    assert_eq!(fhec!["bench", "--plan", plan].code, 2);
    assert_eq!(fhec!["bench", "--plot", at("x.svg"), "--plan", plan, "--threads", "2"].code, 2);
}
