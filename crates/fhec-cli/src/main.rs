//! The command `fhec`. One file per subcommand in [`commands`]; this crate alone touches the file system
//! (besides the ONNX loader, which reads the model and its external data).

mod cli;
mod commands;
mod data;
mod files;
mod format;
mod keys;
mod plan_file;
mod progress;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Wrong usage ends here, with status 2.
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if files::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell; the status still says it.
            let _ = writeln!(std::io::stderr(), "fhec: {error:#}");
            ExitCode::FAILURE
        }
    }
}
