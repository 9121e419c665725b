# What people run here. `just` alone lists it.
default:
    @just --list

# Formatting, lints, documentation: everything that must be clean.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# The test suite, as in the README.
test:
    cargo test --workspace --locked

# Longer runs too: residual networks, all 10 000 test digits, times against the cost model.
slow:
    FHEC_SLOW=1 cargo test --workspace --release --locked -- --nocapture

# Micro-benchmarks of the engine's parts.
bench:
    cargo bench --workspace

# Measures one of the tables that the compiler's built-in one is the mean of; on a machine that does nothing else.
calibrate NAME:
    cargo run --release --locked -p fhec-cli -- calibrate -o crates/fhec-passes/src/cost_tables/{{NAME}}.json

# Accept changed snapshots after reading them.
bless:
    INSTA_UPDATE=always cargo test -p compiler-tests --locked

# Mutate every file format for longer than the test suite does; then libFuzzer, SECONDS a target, if it is there.
fuzz seconds="60":
    #!/usr/bin/env bash
    set -euo pipefail
    PROPTEST_CASES=20000 cargo test --workspace --release --locked mutat
    if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
        echo "fuzz targets skipped: they need 'rustup toolchain install nightly' and 'cargo install cargo-fuzz'"
        exit
    fi
    cd compiler-tests
    for target in onnx plan container data; do
        cargo +nightly fuzz run "$target" -- -max_total_time={{seconds}} -rss_limit_mb=2048
    done

# Classify real digits under encryption with a bundled network.
demo:
    cargo run --release --locked -- demo

# Learn from encrypted digits: an encoder on the server, a small classifier at the client. DIR holds MNIST.
transfer dir="../shared/data/mnist":
    cargo build --release --locked -p fhec-cli
    python models/transfer.py --fhec target/release/fhec --data {{dir}}

# Licences, sources and duplicate versions of the dependencies.
deny:
    cargo deny --locked check licenses bans sources

# Known vulnerabilities; needs the advisory database from the network.
deny-advisories:
    cargo deny --locked check advisories
