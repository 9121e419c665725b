//! Mutated files of every kind: never a panic, never a crash, never a file.

use crate::common::{command, listing, small, small_model};
use crate::fhec;
use std::path::Path;
use std::process::Command;

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
    rounds(&s.at("x.npy"), 60, |c, bad, out| {
        c.arg("encrypt").arg(s.at("small.plan")).arg("--secret-key").arg(s.at("small-keys/secret.key"));
        c.arg("--input").arg(bad).arg("-o").arg(out);
    });
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
