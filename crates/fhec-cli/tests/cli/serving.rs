//! `fhec serve` and `fhec infer`: two processes and a connection.

use crate::common::{Outcome, command, floats, pixels, read_npy, small, small_result};
use crate::fhec;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server in a process of its own; killed when dropped.
pub(crate) struct Served {
    process: Child,
    pub(crate) url: String,
}

impl Served {
    fn start(keys: &Path, listen: &str) -> Self {
        let mut run = command();
        run.arg("serve").arg(small().at("small.plan")).arg("--keys").arg(keys).args(["--listen", listen]);
        Self::of(run)
    }

    /// Starts what `run` says.
    pub(crate) fn of(mut run: Command) -> Self {
        let mut process = run.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines();
        let mut said = Vec::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended:\n{}", said.join("\n"))).expect("text");
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.to_owned();
            }
            said.push(line);
        };
        // What it says later must have somebody who reads it.
        std::thread::spawn(move || lines.for_each(drop));
        Served { process, url }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.split_once("://").expect("scheme").1
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn values() -> Vec<f64> {
    let x: Vec<f64> = pixels().iter().map(|&b| f64::from(b) / 255.0).collect();
    small_result(1, &x)
}

#[track_caller]
fn near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 2e-3), "{got:?} instead of {expected:?}");
}

#[test]
fn inputs_go_encrypted_and_results_come_back_right() {
    let (s, scratch) = (small(), small().scratch());
    let served = Served::start(&scratch.path().join("clients"), "127.0.0.1:0");
    let (key, y) = (s.at("small-keys/secret.key"), scratch.path().join("y.npy"));
    let first = fhec!["infer", "--server", served.url, "--key", key, s.at("x.npy"), "-o", y, "--top", "2"].ok();
    near(&read_npy(&y), &values());
    assert!(first.stderr.contains("of keys uploaded"), "{}", first.stderr);
    assert_eq!(first.stdout.lines().count(), 3, "{}", first.stdout);

    // Several samples; the keys are there already.
    let three = scratch.path().join("three.npy");
    let rows = rows(3, true);
    std::fs::write(&three, floats(&[3, 1, 4, 4], &rows)).expect("writes");
    let second = fhec!["infer", "--server", served.url, "--key", key, three, "-o", y, "--json", "--top", "1"].ok();
    let told: Value = serde_json::from_str(&second.stdout).expect("json");
    assert_eq!(told["uploaded_key_bytes"], 0);
    let results = told["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    let all = read_npy(&y);
    for (i, result) in results.iter().enumerate() {
        let x: Vec<f64> = rows[16 * i..16 * (i + 1)].iter().map(|&v| f64::from(v)).collect();
        near(&all[3 * i..3 * (i + 1)], &small_result(1, &x));
        let listed: Vec<f64> =
            result["values"].as_array().expect("values").iter().map(|v| v.as_f64().expect("number")).collect();
        assert_eq!(listed, all[3 * i..3 * (i + 1)]);
        assert!(result["top"][0]["value"].is_number() && result["seconds"].is_number());
    }
    let header = String::from_utf8_lossy(&std::fs::read(&y).expect("reads")[10..80]).into_owned();
    assert!(header.contains("'shape': (3, 3)"), "{header}");

    // The same values as by files.
    let one = fhec!["infer", "--server", served.url, "--key", key, three, "--index", "1", "--json"].ok();
    let told: Value = serde_json::from_str(&one.stdout).expect("json");
    assert_eq!(told["results"].as_array().map(Vec::len), Some(1));
}

/// A plan for batches: all samples travel as one request, an image in a slot each.
#[test]
fn a_batch_is_served_as_one_request() {
    let (s, scratch) = (small(), small().scratch());
    let at = |name: &str| scratch.path().join(name);
    let (onnx, plan) = (s.at("small.onnx"), at("batch.plan"));
    fhec!["compile", onnx, "-o", plan, "--calibrate", s.at("calibration.npy"), "--mode", "throughput"].ok();
    fhec!["keygen", plan, "-o", at("keys")].ok();
    let mut run = command();
    run.arg("serve").arg(&plan).arg("--keys").arg(at("clients")).args(["--listen", "127.0.0.1:0"]);
    let served = Served::of(run);
    let rows = rows(5, true);
    std::fs::write(at("five.npy"), floats(&[5, 1, 4, 4], &rows)).expect("writes");
    let (key, y) = (at("keys/secret.key"), at("y.npy"));
    // In memory, and through temporary files.
    for memory in ["1GiB", "1KiB"] {
        let more = [scratch.path().as_os_str(), "--memory".as_ref(), memory.as_ref()];
        fhec![
            "infer",
            "--server",
            served.url,
            "--key",
            key,
            at("five.npy"),
            "-o",
            y,
            "--spill",
            more[0],
            more[1],
            more[2]
        ]
        .ok();
        let all = read_npy(&y);
        assert_eq!(all.len(), 15);
        for (row, got) in rows.chunks(16).zip(all.chunks(3)) {
            let x: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            near(got, &small_result(1, &x));
        }
        std::fs::remove_file(&y).expect("is there");
    }
    assert_eq!(metric(served.address(), "fhec_evaluation_seconds_count"), Some(2.0));
}

/// The sample picture `count` times, as the network's values; number `i` is `1 / (i + 1)` as bright with `fading`.
fn rows(count: usize, fading: bool) -> Vec<f32> {
    let picture: Vec<f32> = pixels().iter().map(|&b| f32::from(b) / 255.0).collect();
    let factor = |i: usize| if fading { 1.0 / (i + 1) as f32 } else { 1.0 };
    (0..count).flat_map(|i| picture.iter().map(move |v| v * factor(i))).collect()
}

#[test]
fn a_server_that_is_killed_and_started_again_costs_nobody_a_result() {
    let (s, scratch) = (small(), small().scratch());
    let clients = scratch.path().join("clients");
    let served = Served::start(&clients, "127.0.0.1:0");
    let address = served.address().to_owned();
    let many = scratch.path().join("many.npy");
    std::fs::write(&many, floats(&[120, 1, 4, 4], &rows(120, false))).expect("writes");
    let (key, y) = (s.at("small-keys/secret.key"), scratch.path().join("y.npy"));
    let mut infer = command();
    infer.arg("infer").args(["--server", &served.url, "--patience", "60s"]).arg("--key").arg(key).arg(&many);
    let client = infer.arg("-o").arg(&y).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let evaluated = |address: &str| metric(address, "fhec_evaluation_seconds_count").unwrap_or(0.0);
    while evaluated(&address) < 5.0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(served);
    let served = Served::start(&clients, &address);
    let outcome: Outcome = client.wait_with_output().expect("ends").into();
    let outcome = outcome.ok();
    let all = read_npy(&y);
    assert_eq!(all.len(), 3 * 120);
    all.chunks(3).for_each(|one| near(one, &values()));
    assert!(evaluated(served.address()) > 0.0, "the client had finished before:\n{}", outcome.stderr);
}

/// A figure of the page of metrics, where the server answers.
pub(crate) fn metric(address: &str, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let page = std::io::read_to_string(stream).ok()?;
    page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_server_in_order() {
    let scratch = small().scratch();
    let mut served = Served::start(&scratch.path().join("clients"), "127.0.0.1:0");
    let pid = served.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    assert!(served.process.wait().expect("ends").success());
}

#[test]
fn what_cannot_work_is_said_before_anything_is_sent() {
    let (s, scratch) = (small(), small().scratch());
    let served = Served::start(&scratch.path().join("clients"), "127.0.0.1:0");
    let infer = |more: &[&str], key: &str| {
        let mut run = command();
        run.arg("infer").arg("--key").arg(s.at(key)).arg(s.at("x.npy")).args(["--top", "1"]).args(more);
        Outcome::from(run.output().expect("starts"))
    };
    let there = ["--server", &served.url];
    infer(&there, "other-keys/secret.key").fails(&["another plan", &served.url]);
    infer(&there, "small-keys/eval.keys").fails(&["holds evaluation keys", "expected a secret key"]);
    let secret = s.at("small-keys/secret.key");
    let secret = secret.to_str().expect("UTF-8");
    infer(&[&there[..], &["--eval-keys", secret]].concat(), "small-keys/secret.key").fails(&["this is a secret key"]);
    let other = s.at("other-keys/eval.keys");
    let other = other.to_str().expect("UTF-8");
    infer(&[&there[..], &["--eval-keys", other]].concat(), "small-keys/secret.key").fails(&["another plan"]);
    infer(&["--server", "nowhere"], "small-keys/secret.key").fails(&["no address"]);
    // Nobody listens where a port was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("address").port();
    let gone = format!("http://127.0.0.1:{port}");
    let outcome = infer(&["--server", &gone, "--patience", "1s"], "small-keys/secret.key");
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("cannot be reached"), "{}", outcome.stderr);

    let serve = |more: &[&str]| {
        let mut run = command();
        run.arg("serve").arg(s.at("small.plan")).arg("--keys").arg(scratch.path().join("k")).args(more);
        Outcome::from(run.output().expect("starts"))
    };
    serve(&["--memory", "1MiB"]).fails(&["bytes of memory", "allowed are 1048576"]);
    serve(&["--listen", served.address()]).fails(&["cannot listen on"]);
    serve(&["--disk", "1KiB"]).fails(&["bytes on disk"]);
    let x = s.at("x.npy");
    let x = x.to_str().expect("UTF-8");
    serve(&["--tls-cert", x, "--tls-key", x]).fails(&["TLS"]);
    assert_eq!(serve(&["--tls-cert", x]).code, 2);
}
