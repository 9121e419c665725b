//! Runs that are stopped, killed and gone on with.

use crate::common::{Outcome, command, listing, models, small};
use crate::fhec;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Plan, keys, an encrypted digit and the result of an uninterrupted run.
struct Deep {
    folder: TempDir,
}

impl Deep {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A network, compiled with calibration data and options, and an input.
    fn make(model: &Path, calibration: &Path, options: &[&str], input: &Path, index: Option<&str>) -> Self {
        let deep = Deep { folder: tempfile::tempdir().expect("temporary folder") };
        let mut compile = command();
        compile.arg("compile").arg(model).arg("-o").arg(deep.at("plan")).arg("--calibrate").arg(calibration);
        Outcome::from(compile.args(options).output().expect("starts")).ok();
        fhec!["keygen", deep.at("plan"), "-o", deep.at("keys")].ok();
        let mut encrypt = command();
        encrypt.arg("encrypt").arg(deep.at("plan")).arg("--secret-key").arg(deep.at("keys/secret.key"));
        encrypt.arg("--input").arg(input).arg("-o").arg(deep.at("x.ct"));
        if let Some(index) = index {
            encrypt.args(["--index", index]);
        }
        Outcome::from(encrypt.output().expect("starts")).ok();
        let mut whole = deep.run(&deep.at("whole.ct"));
        Outcome::from(whole.output().expect("starts")).ok();
        deep
    }

    /// A run on the digit.
    fn run(&self, output: &Path) -> Command {
        let mut run = command();
        run.arg("run").arg(self.at("plan")).arg("--eval-keys").arg(self.at("keys/eval.keys"));
        run.arg("--input").arg(self.at("x.ct")).arg("-o").arg(output);
        run.stderr(Stdio::piped()).stdout(Stdio::piped());
        run
    }

    /// The same bits as without interruption.
    #[track_caller]
    fn whole(&self, output: &Path) {
        let [got, want] = [output.to_owned(), self.at("whole.ct")].map(|f| std::fs::read(f).expect("written"));
        assert!(got == want, "the result differs from that of an uninterrupted run");
    }
}

/// A network with many layers, at real parameters.
fn deep() -> &'static Deep {
    static DEEP: OnceLock<Deep> = OnceLock::new();
    DEEP.get_or_init(|| {
        let (model, digit) = (models().join("lenet_silu.onnx"), models().join("digits/03.png"));
        Deep::make(&model, &models().join("calibration.npy"), &[], &digit, None)
    })
}

/// The instruction that the checkpoint in a folder goes on with.
fn next(folder: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join("manifest.json")).ok()?;
    serde_json::from_str::<Value>(&text).expect("a manifest is never half").pointer("/checkpoint/next")?.as_u64()
}

/// Waits until the checkpoint lies behind an instruction; `false` where the process ends before.
fn wait(child: &mut Child, folder: &Path, behind: u64) -> bool {
    let start = Instant::now();
    while next(folder).is_none_or(|n| n <= behind) {
        if child.try_wait().expect("waits").is_some() {
            return false;
        }
        assert!(start.elapsed() < Duration::from_secs(600), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Kills a run after each of some checkpoints until one comes to its end; says how often it was killed.
fn kill_and_go_on(deep: &Deep, folder: &Path, output: &Path, times: usize) -> usize {
    let mut kills = 0;
    loop {
        let behind = next(folder);
        let mut run = deep.run(output);
        let mut child = run.arg("--checkpoint").arg(folder).spawn().expect("starts");
        if kills < times && wait(&mut child, folder, behind.unwrap_or(0)) {
            // SIGKILL.
            child.kill().expect("kills");
            kills += usize::from(child.wait().expect("ends").code().is_none());
            continue;
        }
        let out = Outcome::from(child.wait_with_output().expect("ends")).ok();
        let wanted = if behind.is_some() { "going on from the checkpoint" } else { "checkpoints: at most" };
        assert!(out.stderr.contains(wanted), "{}", out.stderr);
        return kills;
    }
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(done.success());
}

#[test]
fn killed_runs_go_on_and_come_to_the_same_bits() {
    let (deep, scratch) = (deep(), tempfile::tempdir().expect("temporary folder"));
    let (folder, output) = (scratch.path().join("night"), scratch.path().join("y.ct"));
    let kills = kill_and_go_on(deep, &folder, &output, 3);
    assert!(kills > 0, "every run was over before it could be killed");
    deep.whole(&output);
    assert!(listing(&folder).is_empty(), "{:?}", listing(&folder));
}

#[test]
fn checkpoints_keep_within_their_bound_and_remove_what_is_old() {
    let (deep, scratch) = (deep(), tempfile::tempdir().expect("temporary folder"));
    let (folder, output) = (scratch.path().join("night"), scratch.path().join("y.ct"));
    let mut child = deep.run(&output).arg("--checkpoint").arg(&folder).spawn().expect("starts");
    let (mut most, mut files) = (0, 0);
    while child.try_wait().expect("waits").is_none() {
        if let Ok(entries) = std::fs::read_dir(&folder) {
            let sizes: Vec<u64> = entries.filter_map(|e| Some(e.ok()?.metadata().ok()?.len())).collect();
            (most, files) = (most.max(sizes.iter().sum()), files.max(sizes.len()));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let out = Outcome::from(child.wait_with_output().expect("ends")).ok();
    let bound = out.stderr.split("at most ").nth(1).and_then(|t| t.split(" in ").next()).expect("a bound").to_owned();
    let (number, unit) = bound.split_once(' ').expect("a unit");
    let factor = if unit == "MiB" { 1 << 20 } else { 1 << 10 };
    let bound = number.parse::<f64>().expect("a number") * f64::from(factor);
    assert!(files > 0 && most as f64 <= 1.01 * bound, "{most} bytes, promised were {bound}");
    assert!(bound < 4.0 * most as f64, "{most} bytes, promised were {bound}");
    deep.whole(&output);
}

#[test]
fn interrupted_runs_say_so_and_leave_nothing_but_the_checkpoint() {
    let (deep, scratch) = (deep(), tempfile::tempdir().expect("temporary folder"));
    let (folder, output) = (scratch.path().join("night"), scratch.path().join("y.ct"));
    for (name, status) in [("-TERM", 143), ("-INT", 130)] {
        let _ = std::fs::remove_dir_all(&folder);
        let mut child = deep.run(&output).arg("--checkpoint").arg(&folder).spawn().expect("starts");
        assert!(wait(&mut child, &folder, 0));
        signal(&child, name);
        let out = Outcome::from(child.wait_with_output().expect("ends"));
        assert_eq!(out.code, status, "{}", out.stderr);
        for part in ["stopped before instruction", "the same command goes on", "night"] {
            assert!(out.stderr.contains(part), "{part} in\n{}", out.stderr);
        }
        assert_eq!(listing(scratch.path()), ["night"]);
        assert!(listing(&folder).iter().all(|f| f == "manifest.json" || f.ends_with(".ct")), "{:?}", listing(&folder));
    }
    let stopped = next(&folder).expect("a checkpoint");

    // Another input, and damage of every file, are refused; what is there stays as it is.
    let go_on = || Outcome::from(deep.run(&output).arg("--checkpoint").arg(&folder).output().expect("starts"));
    let mut other = command();
    other.arg("encrypt").arg(deep.at("plan")).arg("--secret-key").arg(deep.at("keys/secret.key"));
    other.arg("--input").arg(models().join("digits/04.png")).arg("-o").arg(scratch.path().join("other.ct"));
    Outcome::from(other.output().expect("starts")).ok();
    let mut run = command();
    run.arg("run").arg(deep.at("plan")).arg("--eval-keys").arg(deep.at("keys/eval.keys")).arg("--input");
    run.arg(scratch.path().join("other.ct")).arg("-o").arg(&output).arg("--checkpoint").arg(&folder);
    Outcome::from(run.output().expect("starts")).fails(&["night", "another input", "--restart"]);
    let files = listing(&folder);
    assert!(files.len() > 1);
    for name in &files {
        let (path, good) = (folder.join(name), std::fs::read(folder.join(name)).expect("reads"));
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&path, &bad).expect("writes");
        go_on().fails(&["night", "damaged", "--restart"]);
        std::fs::write(&path, &good[..good.len() - 1]).expect("writes");
        // Of the manifest that is the line's end, which nobody needs.
        if name != "manifest.json" {
            go_on().fails(&["night", "damaged", "--restart"]);
            std::fs::remove_file(&path).expect("removes");
            go_on().fails(&["night", name, "--restart"]);
        }
        std::fs::write(&path, &good).expect("writes");
    }
    assert!(!output.exists());
    assert_eq!((listing(&folder), next(&folder)), (files, Some(stopped)));
    let out = go_on().ok();
    assert!(out.stderr.contains(&format!("instruction {stopped} of")), "{}", out.stderr);
    deep.whole(&output);
}

#[test]
fn restarts_begin_anew_and_interrupted_runs_without_checkpoints_leave_nothing() {
    let (deep, scratch) = (deep(), tempfile::tempdir().expect("temporary folder"));
    let (folder, output) = (scratch.path().join("night"), scratch.path().join("y.ct"));
    std::fs::create_dir(&folder).expect("makes");
    for (name, content) in [("manifest.json", "{}"), ("r7.ct", "x"), (".fhec-abc.tmp", "x"), ("mine.txt", "x")] {
        std::fs::write(folder.join(name), content).expect("writes");
    }
    let mut refused = deep.run(&output);
    Outcome::from(refused.arg("--checkpoint").arg(&folder).output().expect("starts")).fails(&["damaged", "--restart"]);
    let mut run = deep.run(&output);
    let trace = scratch.path().join("t.jsonl");
    run.arg("--checkpoint").arg(&folder).arg("--restart").arg("--trace").arg(&trace);
    Outcome::from(run.args(["--checkpoint-every", "1000"]).output().expect("starts")).ok();
    deep.whole(&output);
    assert_eq!(listing(&folder), ["mine.txt"]);
    std::fs::remove_file(&output).expect("removes");

    // The trace tells when the run is under way.
    std::fs::remove_file(&trace).expect("removes");
    let child = deep.run(&output).arg("--trace").arg(&trace).spawn().expect("starts");
    while std::fs::read_to_string(&trace).map_or(0, |t| t.lines().count()) < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(&child, "-INT");
    let out = Outcome::from(child.wait_with_output().expect("ends"));
    assert_eq!(out.code, 130, "{}", out.stderr);
    assert!(out.stderr.contains("nothing is kept"), "{}", out.stderr);
    assert_eq!(listing(scratch.path()), ["night", "t.jsonl"]);
}

#[test]
fn options_that_make_no_sense_together_are_wrong_usage() {
    let s = small();
    let run = ["run".into(), s.at("small.plan"), "--eval-keys".into(), s.at("small-keys/eval.keys")];
    let ct = s.at("x.ct");
    let two = [&"--input".into(), &ct, &"-o".into(), &"a".into(), &"--input".into(), &ct, &"-o".into(), &"b".into()];
    let one = [&"--input".into(), &ct, &"-o".into(), &"a".into()];
    let code = |inputs: &[&PathBuf], extra: &[&str]| {
        let mut command = command();
        command.args(&run).args(inputs).args(extra).output().expect("starts").status.code()
    };
    assert_eq!(code(&one, &["--restart"]), Some(2));
    assert_eq!(code(&one, &["--checkpoint-every", "5"]), Some(2));
    assert_eq!(code(&two, &["--checkpoint", "d"]), Some(2));
    assert_eq!(code(&two, &["--keep-values", "d"]), Some(2));
}

/// ResNet-20 on CIFAR-10, killed between bootstraps. Minutes and ten gigabytes, so only with `FHEC_SLOW=1`.
#[test]
fn a_bootstrapped_network_goes_on_after_it_was_killed() {
    if std::env::var_os("FHEC_SLOW").is_none() {
        println!("skipped: set FHEC_SLOW=1 to kill and go on with ResNet-20");
        return;
    }
    let base = std::env::var_os("FHEC_SHARED").map_or_else(|| models().join("../../shared"), PathBuf::from);
    let [model, images] = ["models/resnet20.onnx", "cifar10/test_batch.bin.gz"].map(|f| base.join("data").join(f));
    if !model.exists() || !images.exists() {
        println!("skipped: {} or {} is not there", model.display(), images.display());
        return;
    }
    let options = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--calibration-samples", "64"];
    let deep = Deep::make(&model, &images, &options, &images, Some("0"));
    let (folder, output) = (deep.at("night"), deep.at("y.ct"));
    assert_eq!(kill_and_go_on(&deep, &folder, &output, 4), 4);
    deep.whole(&output);
}
