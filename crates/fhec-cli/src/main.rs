//! The binary `fhec`; see the library of the same crate.


mod cli;
mod commands;
mod data;
mod files;
mod format;
mod keys;
mod machine;
mod memory;
mod plan_file;
mod progress;
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    fhec_cli::main()
}
