//! One clear message, status 1 (2 for wrong usage), and nothing half-written.

use crate::common::{Outcome, command, floats, listing, npy, small};
use crate::fhec;
use std::path::Path;

/// `fhec run` of the small plan with one thing changed; the output folder must stay empty.
fn run(plan: &Path, keys: &Path, input: &Path) -> Outcome {
    let scratch = small().scratch();
    let out = fhec!["run", plan, "--eval-keys", keys, "--input", input, "-o", scratch.path().join("y.ct")];
    assert_eq!(listing(scratch.path()), Vec::<String>::new(), "nothing half-written");
    out
}

/// A changed copy of a file.
fn changed(folder: &Path, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = std::fs::read(file).expect("reads");
    change(&mut bytes);
    let path = folder.join(file.file_name().expect("name"));
    std::fs::write(&path, bytes).expect("writes");
    path
}

#[test]
fn a_secret_key_is_refused_by_run_wherever_it_is_given() {
    let s = small();
    let (plan, secret) = (s.at("small.plan"), s.at("small-keys/secret.key"));
    run(&plan, &secret, &s.at("x.ct")).fails(&["secret.key", "secret key"]);
    run(&plan, &s.at("small-keys/eval.keys"), &secret).fails(&["secret.key", "secret key"]);
    let scratch = s.scratch();
    let out = scratch.path().join("y.ct");
    fhec!["run", plan, "--secret-key", secret, "--input", s.at("x.ct"), "-o", out]
        .fails(&["secret key", "--eval-keys"]);
    assert!(!out.exists());
}

#[test]
fn a_truncated_plan_is_refused_at_every_length() {
    let (s, scratch) = (small(), small().scratch());
    let len = std::fs::metadata(s.at("small.plan")).expect("plan").len() as usize;
    for keep in [0, 1, 7, 100, 319, 320, len / 3, len / 2, len - 1] {
        let plan = changed(scratch.path(), &s.at("small.plan"), |b| b.truncate(keep));
        run(&plan, &s.at("small-keys/eval.keys"), &s.at("x.ct")).fails(&["small.plan", "plan"]);
    }
    let plan = changed(scratch.path(), &s.at("small.plan"), |b| b.push(0));
    run(&plan, &s.at("small-keys/eval.keys"), &s.at("x.ct")).fails(&["small.plan"]);
}

#[test]
fn a_flipped_byte_in_any_section_of_the_plan_is_found_and_named() {
    let (s, scratch) = (small(), small().scratch());
    let file = std::fs::read(s.at("small.plan")).expect("plan");
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let mut places = vec![("header", 20), ("header", 250)];
    for (i, section) in ["head", "program", "weights", "report"].into_iter().enumerate() {
        let entry = 16 + 56 * i;
        let (start, len) = (number(entry + 8), number(entry + 16));
        places.extend([(section, start), (section, start + len / 2), (section, start + len - 1)]);
    }
    for (section, at) in places {
        let plan = changed(scratch.path(), &s.at("small.plan"), |b| b[at] ^= 0x10);
        run(&plan, &s.at("small-keys/eval.keys"), &s.at("x.ct")).fails(&["small.plan", section]);
    }
}

#[test]
fn a_flipped_byte_in_keys_and_ciphertexts_is_found() {
    let (s, scratch) = (small(), small().scratch());
    let plan = s.at("small.plan");
    for file in ["small-keys/eval.keys", "x.ct"] {
        let len = std::fs::metadata(s.at(file)).expect("file").len() as usize;
        for at in [0, 5, 20, 60, 100, len / 2, len - 1] {
            let bad = changed(scratch.path(), &s.at(file), |b| b[at] ^= 1);
            let name = bad.file_name().expect("name").to_string_lossy().into_owned();
            let out = match file {
                "x.ct" => run(&plan, &s.at("small-keys/eval.keys"), &bad),
                _ => run(&plan, &bad, &s.at("x.ct")),
            };
            out.fails(&[&name]);
        }
    }
}

#[test]
fn keys_and_ciphertexts_of_another_plan_are_refused_by_name() {
    let (s, scratch) = (small(), small().scratch());
    let out = scratch.path().join("out");
    let other = |file: &str| s.at(&format!("other-keys/{file}"));
    run(&s.at("small.plan"), &other("eval.keys"), &s.at("x.ct")).fails(&["eval.keys", "another plan"]);
    run(&s.at("other.plan"), &other("eval.keys"), &s.at("x.ct")).fails(&["x.ct", "another plan"]);
    fhec!["encrypt", s.at("small.plan"), "--secret-key", other("secret.key"), "--input", s.at("x.npy"), "-o", out]
        .fails(&["secret.key", "another plan"]);
    fhec!["encrypt", s.at("small.plan"), "--public-key", other("public.key"), "--input", s.at("x.npy"), "-o", out]
        .fails(&["public.key", "another plan"]);
    fhec!["decrypt", s.at("small.plan"), "--secret-key", other("secret.key"), "--input", s.at("x.ct"), "-o", out]
        .fails(&["secret.key", "another plan"]);
    assert_eq!(listing(scratch.path()), Vec::<String>::new());
}

/// Encrypts a file with the given content; nothing may be written.
fn refuse_input(name: &str, content: &[u8], extra: &[&str], parts: &[&str]) {
    let (s, scratch) = (small(), small().scratch());
    let input = scratch.path().join(name);
    std::fs::write(&input, content).expect("writes");
    let mut command = command();
    command.arg("encrypt").arg(s.at("small.plan")).arg("--secret-key").arg(s.at("small-keys/secret.key"));
    command.arg("--input").arg(&input).arg("-o").arg(scratch.path().join("out.ct")).args(extra);
    Outcome::from(command.output().expect("starts")).fails(&[&[name], parts].concat());
    assert_eq!(listing(scratch.path()), [name]);
}

#[test]
fn inputs_of_the_wrong_shape_or_value_are_refused() {
    refuse_input("a.npy", &npy("|u1", &[5, 4], &[0; 20]), &[], &["5×4", "1×1×4×4"]);
    refuse_input("b.npy", &npy("|u1", &[2, 4, 4], &[0; 32]), &[], &["2 samples", "--index"]);
    refuse_input("c.npy", &npy("|u1", &[2, 4, 4], &[0; 32]), &["--index", "2"], &["0 to 1"]);
    refuse_input("d.npy", &npy("<i8", &[4, 4], &[0; 128]), &[], &["integers"]);
    let mut values = [0.5f32; 16];
    values[6] = f32::NAN;
    refuse_input("e.npy", &floats(&[4, 4], &values), &[], &["NaN", "[0, 0, 1, 2]"]);
    values[6] = f32::NEG_INFINITY;
    refuse_input("f.npy", &floats(&[4, 4], &values), &[], &["-inf"]);
    refuse_input("g.idx", &[0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6], &[], &["3×2"]);
    refuse_input("h.txt", b"hello", &[], &["none of the known kinds"]);
    let digit = std::fs::read(crate::common::models().join("digits/00.png")).expect("digit");
    refuse_input("i.png", &digit, &[], &["28×28", "4×4"]);
    let mut whole = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(4, 4).write_to(&mut whole, image::ImageFormat::Png).expect("encodes");
    refuse_input("j.png", &whole.get_ref()[..45], &[], &["decoded"]);
}

#[test]
fn values_outside_of_the_calibrated_range_are_reported_but_encrypted() {
    let (s, scratch) = (small(), small().scratch());
    let (input, output) = (scratch.path().join("x.npy"), scratch.path().join("x.ct"));
    std::fs::write(&input, floats(&[4, 4], &[1.5; 16])).expect("writes");
    let out = fhec![
        "encrypt",
        s.at("small.plan"),
        "--secret-key",
        s.at("small-keys/secret.key"),
        "--input",
        input,
        "-o",
        output,
    ]
    .ok();
    assert!(out.stderr.contains("warning") && out.stderr.contains("16 of 16"), "{}", out.stderr);
    assert!(output.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let s = small();
    let full = "/dev/full";
    let secret = s.at("small-keys/secret.key");
    let space = ["/dev/full", "No space left"];
    fhec!["compile", s.at("small.onnx"), "-o", full, "--calibrate", s.at("calibration.npy")]
        .fails_with_warnings(&space);
    fhec!["encrypt", s.at("small.plan"), "--secret-key", secret, "--input", s.at("x.npy"), "-o", full].fails(&space);
    fhec!["run", s.at("small.plan"), "--eval-keys", s.at("small-keys/eval.keys"), "--input", s.at("x.ct"), "-o", full]
        .fails(&space);
    fhec!["keygen", s.at("small.plan"), "-o", full].fails(&["/dev/full"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    let out = command().arg("explain").arg(s.at("small.plan")).stdout(full).output().expect("starts");
    Outcome::from(out).fails(&["standard output", "No space left"]);
}

#[test]
fn a_failed_run_leaves_the_old_output_alone() {
    let (s, scratch) = (small(), small().scratch());
    let out = scratch.path().join("y.ct");
    std::fs::write(&out, "old").expect("writes");
    fhec!["run", s.at("small.plan"), "--eval-keys", s.at("other-keys/eval.keys"), "--input", s.at("x.ct"), "-o", out]
        .fails(&["another plan"]);
    assert_eq!(std::fs::read(&out).expect("still there"), b"old");
    assert_eq!(listing(scratch.path()), ["y.ct"]);
}

#[test]
fn a_result_that_could_not_be_kept_is_not_begun() {
    let (s, scratch) = (small(), small().scratch());
    let nowhere = scratch.path().join("no/such/place");
    // The place is looked at before anything is loaded.
    fhec!["run", s.at("small.plan"), "--eval-keys", s.at("none.keys"), "--input", s.at("x.ct"), "-o", nowhere]
        .fails(&["cannot write", "no/such/place"]);
    let kept = scratch.path().join("y.ct");
    fhec!["run", s.at("small.plan"), "--eval-keys", s.at("none.keys"), "--input", s.at("x.ct"), "-o", kept]
        .fails(&["none.keys"]);
    assert!(listing(scratch.path()).is_empty());
}

#[test]
fn missing_files_and_unwritable_places_are_named() {
    let (s, scratch) = (small(), small().scratch());
    let nowhere = scratch.path().join("no/such/place");
    fhec!["explain", nowhere].fails(&["no/such/place", "No such file"]);
    fhec!["compile", nowhere, "-o", scratch.path().join("p")].fails(&["no/such/place"]);
    fhec![
        "encrypt",
        s.at("small.plan"),
        "--secret-key",
        s.at("small-keys/secret.key"),
        "--input",
        s.at("x.npy"),
        "-o",
        nowhere
    ]
    .fails(&["no/such/place"]);
    fhec![
        "encrypt",
        s.at("small.plan"),
        "--secret-key",
        s.at("small-keys/secret.key"),
        "--input",
        s.at("x.npy"),
        "-o",
        scratch.path()
    ]
    .fails(&["it is a folder"]);
    fhec!["explain", s.at("small.onnx")].fails(&["small.onnx", "not a plan"]);
    fhec!["compile", s.at("small.plan"), "-o", scratch.path().join("p")].fails(&["small.plan"]);
    assert_eq!(listing(scratch.path()), Vec::<String>::new());
}

#[test]
fn a_secret_key_is_never_overwritten_unasked() {
    let (s, scratch) = (small(), small().scratch());
    let keys = scratch.path().join("keys");
    fhec!["keygen", s.at("small.plan"), "-o", keys].ok();
    let before = std::fs::read(keys.join("secret.key")).expect("key");
    fhec!["keygen", s.at("small.plan"), "-o", keys].fails(&["secret.key", "--force"]);
    assert!(before == std::fs::read(keys.join("secret.key")).expect("key"));
    fhec!["keygen", s.at("small.plan"), "-o", keys, "--force"].ok();
    assert!(before != std::fs::read(keys.join("secret.key")).expect("key"));
    assert_eq!(listing(&keys), ["eval.keys", "public.key", "secret.key"]);
}

#[test]
fn wrong_usage_is_status_2() {
    let (s, plan) = (small(), small().at("small.plan"));
    for args in [
        &[][..],
        &["frobnicate"],
        &["compile"],
        &["compile", "m.onnx", "-o", "p", "--security", "100"],
        &["compile", "m.onnx", "-o", "p", "--input-range", "1,0"],
        &["compile", "m.onnx", "-o", "p", "--memory-budget", "lots"],
        &["explain", "p", "--json", "--dot"],
        &["decrypt", "p", "--secret-key", "k", "--input", "y.ct"],
        &["encrypt", "p", "--input", "x.npy", "-o", "x.ct"],
        &["encrypt", "p", "--secret-key", "a", "--public-key", "b", "--input", "x.npy", "-o", "x.ct"],
        &["run", "p", "--eval-keys", "k", "--input", "x.ct", "-o", "y.ct", "--threads", "0"],
    ] {
        assert_eq!(crate::common::fhec(args).code, 2, "{args:?}");
    }
    let uneven = fhec!["run", plan, "--eval-keys", "k", "--input", s.at("x.ct"), "--input", s.at("x.ct"), "-o", "y.ct"];
    assert_eq!(uneven.code, 2, "{}", uneven.stderr);
}

/// A number out of range is told to be that, also where its sign makes it look like an option.
#[test]
fn numbers_out_of_range_are_named() {
    let compile = ["compile", "m.onnx", "-o", "p"];
    let [bench, calibrate] = [["bench"], ["calibrate"]];
    for (command, option, value, reason) in [
        (&compile[..], "--accuracy-drop", "-1", "above 0 and below 100"),
        (&compile, "--accuracy-drop", "100", "above 0 and below 100"),
        (&compile, "--precision-bits", "-3", "between 1 and 40"),
        (&compile, "--calibration-samples", "0", "1.."),
        (&compile, "--calibration-samples", "-5", "1.."),
        (&compile, "--pixel-scale", "-1/255", "positive number"),
        (&compile, "--std", "0", "positive number"),
        (&compile, "--std", "0.5,-0.25", "positive number"),
        (&compile, "--mean", "-0.5,inf", "finite number"),
        (&bench, "--seconds", "-1", "between 0 and 600"),
        (&calibrate, "--seconds", "-0.5", "between 0 and 600"),
    ] {
        let out = crate::common::fhec(&[command, &[option, value]].concat());
        let named = out.stderr.contains(option) && out.stderr.contains(reason);
        assert!(out.code == 2 && named, "{option} {value}: {}", out.stderr);
        assert!(!out.stderr.contains("unexpected argument"), "{option} {value}: {}", out.stderr);
    }
}

impl Outcome {
    /// As [`Outcome::fails`], where warnings come before the message.
    #[cfg(target_os = "linux")]
    #[track_caller]
    fn fails_with_warnings(mut self, parts: &[&str]) -> Self {
        let lines: Vec<&str> = self.stderr.lines().filter(|l| !l.starts_with("fhec: warning:")).collect();
        self.stderr = lines.join("\n");
        self.fails(parts)
    }
}
