//! The binary `fhec`; see the library of the same crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    fhec_cli::main()
}
