//! Client-aided plans: compiled, served, and played by two processes.

use crate::common::{Outcome, command, floats, models, read_npy};
use crate::fhec;
use crate::serving::{Served, metric};
use fhec_ir::Tensor;
use fhec_ir::nn::Interpreter;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Pictures of strokes, three kinds by turns, no two alike.
fn pictures(count: usize) -> Vec<f32> {
    let pixel = |i: usize, y: f64, x: f64| {
        let stroke = [(x - 14.0).abs(), (x - 0.5 * y - 6.0).abs(), ((x - 14.0).hypot(y - 14.0) - 7.0).abs()][i % 3];
        (1.5 - stroke).clamp(0.0, 1.0 / (1 + i / 3) as f64) * f64::from((4.0..24.0).contains(&y))
    };
    let all = (0..count).flat_map(|i| (0..784).map(move |p| pixel(i, (p / 28) as f64, (p % 28) as f64) as f32));
    all.collect()
}

/// `lenet_relu` in client-aided mode, with keys and pictures.
struct Road {
    folder: TempDir,
    pictures: Vec<f32>,
}

impl Road {
    fn new(pictures: Vec<f32>) -> Self {
        Self::with(pictures, &[])
    }

    /// The same of a plan for batches.
    fn of_batches(pictures: Vec<f32>) -> Self {
        let road = Self::with(pictures, &["--batch", "4096"]);
        std::fs::create_dir(road.at("spill")).expect("folder");
        road
    }

    fn with(pictures: Vec<f32>, more: &[&str]) -> Self {
        let road = Road { folder: tempfile::tempdir().expect("folder"), pictures };
        let (plan, calibration) = (road.at("aided.plan"), models().join("calibration.npy"));
        let mut compile = command();
        compile.arg("compile").arg(Self::model()).arg("-o").arg(&plan).args(["--mode", "client-aided"]).args(more);
        Outcome::from(compile.arg("--calibrate").arg(calibration).output().expect("starts")).ok();
        fhec!["keygen", plan, "-o", road.at("keys")].ok();
        let shape = [road.pictures.len() / 784, 1, 28, 28];
        std::fs::write(road.at("x.npy"), floats(&shape, &road.pictures)).expect("writes");
        road
    }

    fn model() -> PathBuf {
        models().join("lenet_relu.onnx")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, listen: &str) -> Served {
        Served::of(self.serving(listen))
    }

    fn serving(&self, listen: &str) -> Command {
        let mut serve = command();
        serve.arg("serve").arg(self.at("aided.plan")).arg("--keys").arg(self.at("clients")).args(["--listen", listen]);
        serve
    }

    /// Nobody has left a file in the folder of temporary files.
    fn is_clean(&self) {
        assert_eq!(std::fs::read_dir(self.at("spill")).expect("lists").count(), 0);
    }

    /// Infers the pictures, to `y.npy`.
    fn infer(&self, served: &Served) -> Command {
        let mut infer = command();
        infer.arg("infer").args(["--server", &served.url, "--json", "--raw"]).arg(self.at("x.npy"));
        infer.arg("--key").arg(self.at("keys").join("secret.key")).arg("-o").arg(self.at("y.npy"));
        infer
    }

    /// The results are those of the network.
    fn check(&self) {
        let graph = fhec_onnx::load(Self::model()).expect("imports");
        let interpreter = Interpreter::new(&graph).expect("valid");
        let shape = graph.node(graph.inputs()[0]).shape.clone();
        let all = read_npy(&self.at("y.npy"));
        assert_eq!(all.len() / 10, self.pictures.len() / 784);
        for (got, picture) in all.chunks(10).zip(self.pictures.chunks(784)) {
            let picture = picture.iter().map(|&v| f64::from(v)).collect();
            let want = interpreter.run(&[Tensor::new(shape.clone(), picture)]).expect("runs").remove(0);
            let (lo, hi) = want.values().iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            for (g, w) in got.iter().zip(want.values()) {
                assert!((g - w).abs() < (hi - lo) / 256.0, "{got:?} instead of {want:?}");
            }
        }
    }
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
    let road = Road::new(pictures(3));
    refused(&road.at("aided.plan"), &road.at("keys"), &road.at("x.npy"), &road.at("y.ct"));
    let told = fhec!["explain", road.at("aided.plan")].ok();
    assert!(told.stdout.contains("rounds"), "{}", told.stdout);
    let served = road.serve("127.0.0.1:0");
    let out = Outcome::from(road.infer(&served).output().expect("starts")).ok();
    road.check();
    let told: Value = serde_json::from_str(&out.stdout).expect("json");
    assert!(told["rounds"].as_u64().expect("rounds") > 2, "{told}");
    let results = told["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(result["sent_bytes"].as_u64() > Some(0) && result["received_bytes"].as_u64() > Some(0), "{result}");
    }
}

/// What a server has of a request between two rounds is gone with it; clients begin again.
#[test]
fn a_server_that_is_killed_between_rounds_costs_nobody_a_result() {
    let road = Road::new(pictures(30));
    let served = road.serve("127.0.0.1:0");
    let address = served.address().to_owned();
    let mut infer = road.infer(&served);
    infer.args(["--parallel", "8", "--patience", "60s"]);
    let client = infer.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let client = client.expect("starts");
    // More evaluations than requests are under way: of some of these, rounds have been evaluated.
    while metric(&address, "fhec_evaluation_seconds_count").unwrap_or(0.0) < 10.0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(served);
    let served = road.serve(&address);
    let outcome = Outcome::from(client.wait_with_output().expect("ends")).ok();
    road.check();
    assert!(metric(served.address(), "fhec_evaluation_seconds_count") > Some(0.0), "it had finished before");
    assert!(outcome.stderr.contains("the server has lost a request"), "{}", outcome.stderr);
}

/// Both parties of a batch in one process, with as much memory as they want and with so little that ciphertexts and the client's values go to
/// disk.
#[test]
fn a_batch_needs_no_more_memory_than_it_is_given() {
    let count = 2048;
    let road = Road::of_batches(pictures(count));
    let told: Value =
        serde_json::from_str(&fhec!["explain", road.at("aided.plan"), "--json"].ok().stdout).expect("json");
    assert!(told["client_value_bytes"].as_u64() > Some(8 * 4096 * 784), "{}", told["client_value_bytes"]);
    let run = |memory: &str| -> Value {
        let mut simulate = command();
        simulate.arg("simulate").arg(road.at("aided.plan")).arg("--model").arg(Road::model());
        simulate.arg("--data").arg(road.at("x.npy")).arg("--spill").arg(road.at("spill"));
        simulate.args(["--backend", "encrypted", "--json", "--memory", memory]);
        serde_json::from_str(&Outcome::from(simulate.output().expect("starts")).ok().stdout).expect("json")
    };
    let (whole, tight) = (run("4GiB"), run("90MiB"));
    for told in [&whole, &tight] {
        let errors = &told["encrypted"]["against_plan"];
        assert!(errors["bits"].as_f64() > Some(10.0) && errors["strayed"] == 0, "{errors}");
    }
    assert_eq!(whole["evaluation"]["streamed"], Value::Null);
    let streamed = &tight["evaluation"]["streamed"];
    let values = &streamed["values"];
    assert!(
        values["written"].as_u64() > Some(8 * 784 * count as u64) && values["read"].as_u64() > Some(0),
        "{streamed}"
    );
    let bytes = [&streamed["peak_ciphertexts"], &values["peak"]].map(|v| v.as_u64().expect("bytes"));
    assert!(bytes.iter().sum::<u64>() <= 90 << 20, "{streamed}");
    road.is_clean();
}

/// The same of two processes: neither has memory for a round.
#[test]
fn a_batch_that_fits_neither_party_is_answered() {
    let road = Road::of_batches(pictures(500));
    let serving = |spill: &str| {
        let mut serve = road.serving("127.0.0.1:0");
        serve.args(["--memory", "200MiB"]).arg("--spill").arg(road.at(spill));
        serve
    };
    Outcome::from(serving("missing").output().expect("starts")).fails(&["missing"]);
    let served = Served::of(serving("spill"));
    let mut infer = road.infer(&served);
    infer.args(["--memory", "40MiB"]).arg("--spill").arg(road.at("spill"));
    let out = Outcome::from(infer.output().expect("starts")).ok();
    road.check();
    let told: Value = serde_json::from_str(&out.stdout).expect("json");
    assert!(told["results"][0]["received_bytes"].as_u64() > Some(100 << 20), "{}", told["rounds"]);
    assert_eq!(metric(served.address(), "fhec_panics_total"), Some(0.0));
    road.is_clean();
}
