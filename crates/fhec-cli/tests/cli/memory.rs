//! What a run takes, against what its plan says.

use crate::common::{command, models};
use crate::fhec;
use serde_json::Value;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where memory is shortest it matters most: freed blocks that are kept, and rotations that are made of two, must be part of what
/// the plan says.
#[test]
fn a_run_keeps_the_least_memory_budget() {
    let scratch = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| scratch.path().join(name);
    let (plan, keys, data) = (at("plan"), at("keys"), models().join("calibration.npy"));
    let network = models().join("lenet_silu.onnx");
    let compile = |budget: &str| {
        fhec!["compile", network, "-o", plan, "--calibrate", data, "--precision-bits", "10", "--memory-budget", budget]
    };
    let refused = compile("1MiB").fails(&["the smallest that works is"]);
    let least: u64 = refused.stderr.trim().rsplit(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number of MiB");
    compile(&format!("{least}MiB")).ok();
    let explained: Value = serde_json::from_str(&fhec!["explain", plan, "--json"].ok().stdout).expect("json");
    let predicted = explained["totals"]["peak_memory"].as_u64().expect("bytes");
    assert!(predicted <= least << 20, "{predicted} bytes of {least} MiB");
    assert!(explained["keys"]["composed"].as_u64().expect("a number") > 0, "rotations are made of two");
    fhec!["keygen", plan, "-o", keys].ok();
    fhec!["encrypt", plan, "--secret-key", keys.join("secret.key"), "--input", data, "--index", "0", "-o", at("x")]
        .ok();
    let mut run = command();
    run.arg("run").arg(&plan).arg("--eval-keys").arg(keys.join("eval.keys"));
    run.arg("--input").arg(at("x")).arg("-o").arg(at("y")).args(["--threads", "2"]);
    let Some(peak) = peak(run) else {
        println!("skipped: the system does not say how much memory a process had");
        return;
    };
    let ratio = peak as f64 / predicted as f64;
    println!("predicted {} MiB, peak {} MiB: {ratio:.3}", predicted >> 20, peak >> 20);
    assert!((0.8..=1.15).contains(&ratio), "{peak} bytes where {predicted} were predicted");
}

/// The most bytes of memory that a command that succeeds ever has, where the system says. It is asked until the end: what a
/// process takes in its last milliseconds is not seen.
fn peak(mut command: Command) -> Option<u64> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let file = format!("/proc/{}/status", child.id());
    let mut most = None;
    loop {
        let status = std::fs::read_to_string(&file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        most = most.max(kibibytes.map(|kibibytes| kibibytes << 10));
        if let Some(status) = child.try_wait().expect("waits") {
            let mut said = String::new();
            child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
            assert!(status.success(), "{said}");
            return most;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
