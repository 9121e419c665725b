//! Mutated files of every kind: never a panic, never a crash, never a file.

use crate::common::{command, floats, listing, small, small_model};
use crate::fhec;
use fhec_plan::{Plan, Polynomial};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Damages a file in ways that depend on `round`: bytes changed, cut, repeated.
fn mutate(bytes: &[u8], round: u64) -> Vec<u8> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % n.max(1)
    };
    let mut out = bytes.to_vec();
    match next(4) {
        0 => out.truncate(next(bytes.len())),
        1 => {
            let from = next(bytes.len());
            out.extend_from_within(from..);
        }
        _ => {}
    }
    for _ in 0..=next(8) {
        // Headers are where the damage is interesting.
        let within = if next(2) == 0 { out.len().min(512) } else { out.len() };
        let at = next(within);
        if let Some(byte) = out.get_mut(at) {
            *byte = [0, 0xff, *byte ^ 1 << next(8), next(256) as u8][next(4)];
        }
    }
    out
}

/// Runs a command on mutated versions of `file`.
fn rounds(file: &Path, count: u64, build: impl Fn(&mut Command, &Path, &Path)) {
    let scratch = small().scratch();
    let bytes = std::fs::read(file).expect("reads");
    let name = file.file_name().expect("name").to_string_lossy().into_owned();
    let (bad, out) = (scratch.path().join(&name), scratch.path().join("out"));
    for round in 0..count {
        let mutated = mutate(&bytes, round);
        if mutated == bytes {
            continue;
        }
        std::fs::write(&bad, mutated).expect("writes");
        let mut command = command();
        build(&mut command, &bad, &out);
        let done = command.output().expect("starts");
        let stderr = String::from_utf8_lossy(&done.stderr);
        let code = done.status.code();
        assert!(matches!(code, Some(0 | 1)), "{name}, round {round}: {code:?}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{name}, round {round}:\n{stderr}");
        if code == Some(1) {
            assert_eq!(listing(scratch.path()), [name.as_str()], "round {round}");
        }
        let _ = std::fs::remove_file(&out);
    }
}

#[test]
fn mutated_plans_are_refused() {
    let s = small();
    rounds(&s.at("small.plan"), 60, |c, bad, out| {
        c.arg("run").arg(bad).arg("--eval-keys").arg(s.at("small-keys/eval.keys"));
        c.arg("--input").arg(s.at("x.ct")).arg("-o").arg(out);
    });
    rounds(&s.at("small.plan"), 30, |c, bad, _| {
        c.arg("explain").arg(bad);
    });
}

#[test]
fn mutated_ciphertexts_and_keys_are_refused() {
    let s = small();
    let plan = s.at("small.plan");
    rounds(&s.at("x.ct"), 30, |c, bad, out| {
        c.arg("run").arg(&plan).arg("--eval-keys").arg(s.at("small-keys/eval.keys"));
        c.arg("--input").arg(bad).arg("-o").arg(out);
    });
    rounds(&s.at("small-keys/eval.keys"), 20, |c, bad, out| {
        c.arg("run").arg(&plan).arg("--eval-keys").arg(bad).arg("--input").arg(s.at("x.ct")).arg("-o").arg(out);
    });
    rounds(&s.at("small-keys/public.key"), 20, |c, bad, out| {
        c.arg("encrypt").arg(&plan).arg("--public-key").arg(bad).arg("--input").arg(s.at("x.npy")).arg("-o").arg(out);
    });
    rounds(&s.at("small-keys/secret.key"), 30, |c, bad, out| {
        c.arg("encrypt").arg(&plan).arg("--secret-key").arg(bad).arg("--input").arg(s.at("x.npy")).arg("-o").arg(out);
    });
}

#[test]
fn mutated_models_and_data_never_crash() {
    let s = small();
    let scratch = s.scratch();
    let model = scratch.path().join("model.onnx");
    std::fs::write(&model, small_model(1)).expect("writes");
    rounds(&model, 80, |c, bad, out| {
        c.arg("compile").arg(bad).arg("-o").arg(out).args(["--input-range", "0,1"]);
    });
    let samples = scratch.path().join("samples.npy");
    let values: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
    std::fs::write(&samples, floats(&[4, 1, 4, 4], &values)).expect("writes");
    rounds(&samples, 60, |c, bad, out| {
        c.arg("compile").arg(&model).arg("-o").arg(out).arg("--calibrate").arg(bad);
    });
    rounds(&s.at("x.npy"), 60, |c, bad, out| {
        c.arg("encrypt").arg(s.at("small.plan")).arg("--secret-key").arg(s.at("small-keys/secret.key"));
        c.arg("--input").arg(bad).arg("-o").arg(out);
    });
}

/// The small plan with something changed and all hashes right again, as a hostile writer would send it.
fn forged(folder: &Path, spoil: impl FnOnce(&mut Plan)) -> PathBuf {
    let file = std::fs::read(small().at("small.plan")).expect("reads");
    let mut plan = Plan::read(Arc::new(file)).expect("a plan");
    spoil(&mut plan);
    let path = folder.join("forged.plan");
    std::fs::write(&path, plan.to_bytes()).expect("writes");
    path
}

/// What every command says to a plan whose head is forged.
fn heads_refused(words: &[&str], spoil: impl FnOnce(&mut Plan)) {
    let (s, scratch) = (small(), small().scratch());
    let plan = forged(scratch.path(), spoil);
    let out = scratch.path().join("out");
    let secret = s.at("small-keys/secret.key");
    fhec!["keygen", plan, "-o", out].fails(words);
    fhec!["encrypt", plan, "--secret-key", secret, "--input", s.at("x.npy"), "-o", out].fails(words);
    fhec!["decrypt", plan, "--secret-key", secret, "--input", s.at("x.ct"), "-o", out].fails(words);
    run_refused(&plan, words);
    assert_eq!(listing(scratch.path()), ["forged.plan"]);
}

fn run_refused(plan: &Path, words: &[&str]) {
    let (s, scratch) = (small(), small().scratch());
    let out = scratch.path().join("out");
    fhec!["run", plan, "--eval-keys", s.at("small-keys/eval.keys"), "--input", s.at("x.ct"), "-o", out].fails(words);
    assert!(listing(scratch.path()).is_empty());
}

#[test]
fn forged_heads_are_refused_by_every_command() {
    let too_high = &["key manifest", "the chain ends at"];
    heads_refused(too_high, |p| p.keys.relin = Some(p.parameters.max_level() + 1));
    heads_refused(too_high, |p| p.keys.relin = Some(usize::MAX));
    heads_refused(&["key manifest"], |p| {
        p.keys.galois.insert(5, usize::MAX);
    });
    heads_refused(&["key manifest", "Galois element"], |p| {
        p.keys.galois.insert(u64::MAX, 0);
    });
    heads_refused(&["input 1", "twice"], |p| p.inputs.push(p.inputs[0].clone()));
    heads_refused(&["parameters", "prime"], |p| p.parameters.q[0] -= 2);
    heads_refused(&["parameters", "security"], |p| p.parameters.security = None);
    heads_refused(&["input 0", "level"], |p| p.inputs[0].level = usize::MAX);
}

#[test]
fn forged_programs_are_refused_before_they_run() {
    let program = |words: &[&str], spoil: &dyn Fn(&mut Plan)| {
        let scratch = small().scratch();
        run_refused(&forged(scratch.path(), |p| spoil(p)), words);
    };
    program(&["no nest"], &|p| p.matrices[0].nests.clear());
    program(&["input 0 is read twice"], &|p| p.instructions[1].op = p.instructions[0].op.clone());
    program(&["matrix 0"], &|p| p.matrices[0].nests[0].dims[0].extent = 1 << 40);
    program(&["leaves the matrix"], &|p| p.matrices[0].nests[0].row += 1 << 30);
    program(&["coefficients"], &|p| {
        p.polynomials.push(Polynomial { chebyshev: vec![0.5; 1 << 16], label: String::new() });
    });
    program(&["layers"], &|p| p.layers = vec![p.layers[0].clone(); 1 << 17]);
}

/// A plan may not say how much memory its runs take.
#[test]
fn the_memory_of_a_run_is_the_users_to_give() {
    let (s, scratch) = (small(), small().scratch());
    let plan = forged(scratch.path(), |p| p.report.plaintext_budget = u64::MAX);
    let (keys, out) = (scratch.path().join("keys"), scratch.path().join("y.ct"));
    fhec!["keygen", plan, "-o", keys].ok();
    let x = scratch.path().join("x.ct");
    fhec!["encrypt", plan, "--secret-key", keys.join("secret.key"), "--input", s.at("x.npy"), "-o", x].ok();
    let again = scratch.path().join("again.ct");
    fhec!["run", plan, "--eval-keys", keys.join("eval.keys"), "--input", x, "-o", out, "--input", x, "-o", again].ok();
    let more = ["--memory", "1KiB"];
    fhec!["run", plan, "--eval-keys", keys.join("eval.keys"), "--input", x, "-o", out, more[0], more[1]]
        .fails(&["1.00 KiB", "--memory"]);
}

/// A key file with something changed and its checksum right again.
fn resigned(folder: &Path, file: &str, spoil: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(small().at("small-keys").join(file)).expect("reads");
    bytes.truncate(bytes.len() - 32);
    spoil(&mut bytes);
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend(checksum);
    let path = folder.join(file);
    std::fs::write(&path, bytes).expect("writes");
    path
}

#[test]
fn keys_with_forged_contents_are_refused() {
    let (s, scratch) = (small(), small().scratch());
    let plan = s.at("small.plan");
    let run = |keys: &Path| {
        let out = scratch.path().join("out");
        fhec!["run", plan, "--eval-keys", keys, "--input", s.at("x.ct"), "-o", out]
    };
    run(&resigned(scratch.path(), "eval.keys", |_| ())).ok();
    // The first words behind the header of 80 bytes say how many keys there are and how large.
    for at in (80..100).step_by(4) {
        run(&resigned(scratch.path(), "eval.keys", |b| b[at..at + 4].fill(0xff))).fails(&["eval.keys"]);
    }
    run(&resigned(scratch.path(), "eval.keys", |b| b.truncate(b.len() - 1))).fails(&["eval.keys"]);
    let secret = resigned(scratch.path(), "secret.key", |b| *b.last_mut().expect("a byte") = 0xff);
    let out = scratch.path().join("other");
    fhec!["encrypt", plan, "--secret-key", secret, "--input", s.at("x.npy"), "-o", out].fails(&["secret.key"]);
}

#[cfg(target_os = "linux")]
#[test]
fn endless_files_are_not_read() {
    let s = small();
    let out = s.at("never");
    fhec!["explain", "/dev/zero"].fails(&["/dev/zero", "device"]);
    fhec![
        "encrypt",
        s.at("small.plan"),
        "--secret-key",
        s.at("small-keys/secret.key"),
        "--input",
        "/dev/zero",
        "-o",
        out
    ]
    .fails(&["/dev/zero", "device"]);
    fhec!["explain", s.at("small-keys")].fails(&["small-keys", "folder"]);
    assert!(!out.exists());
}
