//! The architecture's invariants (docs/architecture.md), read off the manifests and the sources.

use compiler_tests::root;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Direct workspace dependencies of every workspace crate, without dev-dependencies.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo prints json");
    let packages = json["packages"].as_array().expect("packages");
    let text = |v: &serde_json::Value| v.as_str().expect("string").to_string();
    let ours: BTreeSet<String> = packages.iter().map(|p| text(&p["name"])).collect();
    packages
        .iter()
        .map(|p| {
            let deps = p["dependencies"].as_array().expect("dependencies");
            let normal = deps.iter().filter(|d| d["kind"].is_null()).map(|d| text(&d["name"]));
            (text(&p["name"]), normal.filter(|d| ours.contains(d)).collect())
        })
        .collect()
}

/// Everything a crate links, directly or not.
fn links(edges: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut stack = vec![from.to_string()];
    while let Some(name) = stack.pop() {
        for d in &edges[&name] {
            if seen.insert(d.clone()) {
                stack.push(d.clone());
            }
        }
    }
    seen
}

#[test]
fn dependencies_point_downward_only() {
    let edges = edges();
    let allowed: [(&str, &[&str]); 12] = [
        ("fhec-math", &[]),
        ("fhec-ckks", &["fhec-math"]),
        ("fhec-plan", &["fhec-math"]),
        ("fhec-ir", &["fhec-math", "fhec-plan"]),
        ("fhec-onnx", &["fhec-ir"]),
        ("fhec-passes", &["fhec-ir", "fhec-math", "fhec-plan"]),
        ("fhec-runtime", &["fhec-ckks", "fhec-math", "fhec-plan"]),
        ("fhec-measure", &["fhec-ckks", "fhec-math", "fhec-passes", "fhec-plan"]),
        ("fhec-protocol", &[]),
        ("fhec-serve", &["fhec-ckks", "fhec-plan", "fhec-protocol", "fhec-runtime"]),
        ("fhec-client", &["fhec-protocol"]),
        (
            "fhec-cli",
            &[
                "fhec-ckks",
                "fhec-client",
                "fhec-ir",
                "fhec-math",
                "fhec-measure",
                "fhec-onnx",
                "fhec-passes",
                "fhec-plan",
                "fhec-protocol",
                "fhec-runtime",
                "fhec-serve",
            ],
        ),
    ];
    for (name, may) in allowed {
        for d in &edges[name] {
            assert!(may.contains(&d.as_str()), "{name} must not depend on {d}");
        }
    }
}

#[test]
fn compiler_and_runtime_meet_only_in_the_plan() {
    let edges = edges();
    for compiler in ["fhec-ir", "fhec-onnx", "fhec-passes"] {
        assert!(!links(&edges, compiler).contains("fhec-ckks"), "{compiler} links the engine");
    }
    assert!(!links(&edges, "fhec-runtime").contains("fhec-ir"), "the runtime links the compiler's graphs");
    // What measures the engine for the compiler knows both, and is linked by neither.
    for half in ["fhec-ir", "fhec-onnx", "fhec-passes", "fhec-runtime"] {
        assert!(!links(&edges, half).contains("fhec-measure"), "{half} links the measurements");
    }
}

/// Every source file below `dir`, without its test modules: what stands after `#[cfg(test)]`.
fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_some_and(|s| s != "tests") {
            let text = std::fs::read_to_string(&path).expect("utf-8");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            found.push((path, code));
        }
    }
    found
}

/// Fails when a source of `krate` contains one of `words`.
fn absent(krate: &str, words: &[&str]) {
    for (path, code) in sources(&root().join("crates").join(krate).join("src")) {
        for word in words {
            assert!(!code.contains(word), "{} contains {word}", path.display());
        }
    }
}

#[test]
fn only_the_command_the_model_loader_and_the_server_touch_files() {
    let none = ["fhec-math", "fhec-ckks", "fhec-plan", "fhec-ir", "fhec-passes", "fhec-runtime", "fhec-measure"];
    for krate in none.into_iter().chain(["fhec-protocol", "fhec-client"]) {
        absent(krate, &["std::fs", "fs::File", "File::open", "File::create", "std::net"]);
    }
}

#[test]
fn only_plan_and_model_types_are_serialised_as_messages() {
    for krate in ["fhec-math", "fhec-ckks", "fhec-ir", "fhec-passes", "fhec-runtime", "fhec-cli"] {
        absent(krate, &["prost::"]);
    }
}

#[test]
fn nothing_iterates_in_hash_order_where_plans_are_made() {
    for krate in ["fhec-ir", "fhec-onnx", "fhec-passes", "fhec-plan"] {
        absent(krate, &["HashMap", "HashSet"]);
    }
}

#[test]
fn servers_cannot_name_a_secret_key() {
    let mut files = 0;
    let commands = root().join("crates/fhec-cli/src/commands");
    for (path, code) in sources(&commands) {
        let place = path.strip_prefix(&commands).unwrap_or(&path).with_extension("");
        if place.components().any(|c| c.as_os_str() == "run" || c.as_os_str() == "serve") {
            files += 1;
            assert!(!code.contains("SecretKey"), "{} knows secret keys", path.display());
        }
    }
    assert!(files > 1, "the servers' commands are not where they were");
    // Nothing of the client's half of the runtime, nor what reads keys that are no evaluation keys.
    let clients = ["SecretKey", "secret_key", "EncryptionKey", "Encryptor", "runtime::Client", "runtime::client"];
    absent("fhec-serve", &clients);
}

/// Every ePrint number that the code cites, like 2020/1203, stands in docs/references.md.
#[test]
fn cited_papers_are_listed() {
    let listed = std::fs::read_to_string(root().join("docs/references.md")).expect("readable");
    let mut cited = 0;
    for krate in
        ["math", "ckks", "plan", "ir", "onnx", "passes", "runtime", "measure", "protocol", "serve", "client", "cli"]
    {
        for (path, text) in whole_files(&root().join(format!("crates/fhec-{krate}/src"))) {
            for number in eprint_numbers(&text) {
                cited += 1;
                assert!(listed.contains(&format!("| {number} |")), "{} cites {number}", path.display());
            }
        }
    }
    assert!(cited > 5, "the search found no citations: it is broken");
}

fn whole_files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(whole_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("utf-8");
            found.push((path, text));
        }
    }
    found
}

/// `20YY/N…` with one to four digits behind the slash.
fn eprint_numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("/") {
        let before: String = text[..at].chars().rev().take_while(char::is_ascii_digit).collect();
        let year: String = before.chars().rev().collect();
        let number: String = text[at + 1..].chars().take_while(char::is_ascii_digit).collect();
        if year.len() == 4 && year.starts_with("20") && (1..=4).contains(&number.len()) {
            found.push(format!("{year}/{number}"));
        }
    }
    found
}
