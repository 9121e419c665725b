//! Tests of the public interface, run with the kernels that the processor has and again with the portable ones.

mod common;
mod convert;
mod diagonals;
mod galois;
mod modulus;
mod ntt;
mod packed;
mod pointwise;
mod poly;
mod sample;
mod scale;
mod security;

use std::process::Command;

use fhec_math::cpu::{Kernels, detect, kernels};

/// The choice of kernels is made once a process, so the other choice needs another process.
#[test]
fn everything_again_with_portable_kernels() {
    const VARIABLE: &str = "FHEC_KERNELS";
    if std::env::var_os(VARIABLE).is_some() {
        assert_eq!(kernels(), Kernels::Portable);
        return;
    }
    assert_eq!(kernels(), detect());
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).env(VARIABLE, "portable").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "portable kernels: {text}");
    assert!(text.contains("everything_again_with_portable_kernels ... ok"), "{text}");
}
