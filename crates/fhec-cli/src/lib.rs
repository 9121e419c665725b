//! The command `fhec`. One file per subcommand in `commands`; this crate alone touches the file system
//! (besides the ONNX loader, which reads the model and its external data).
//!
//! It is a library so that tests and fuzz targets reach its readers of untrusted data; its interface is the
//! command line.

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

pub use data::{read_labels, read_samples};

use clap::Parser;
use commands::run::Interrupted;
use std::io::Write;
use std::process::ExitCode;

/// An error and its causes in one line, outermost first. Causes that the text before already tells are left
/// out: most error types repeat their source.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// Shows what the passes do and take on standard error, where `FHEC_LOG` asks for it: `FHEC_LOG=debug`, or a filter such
/// as `fhec_passes=debug`.
fn trace() {
    let Ok(wanted) = std::env::var("FHEC_LOG") else { return };
    match tracing_subscriber::EnvFilter::try_new(&wanted) {
        Ok(filter) => tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init(),
        Err(error) => files::warn(&format!("FHEC_LOG={wanted}: {error}")),
    }
}

/// The whole command: reads the process's arguments, and returns its status (0 success, 1 failure, 128 and the signal's
/// number for a run that was stopped; wrong usage ends the process with 2).
pub fn main() -> ExitCode {
    memory::configure_allocator();
    // Wrong usage ends here, with status 2.
    let cli = cli::Cli::parse();
    trace();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if files::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Without standard error there is nobody to tell; the status still says it.
            let _ = writeln!(std::io::stderr(), "fhec: {}", message(&error));
            error.downcast_ref::<Interrupted>().map_or(ExitCode::FAILURE, |i| ExitCode::from(i.status()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let full = std::io::Error::new(std::io::ErrorKind::StorageFull, "disk full");
        let error = anyhow::Error::new(full).context("writing: disk full").context("cannot write x");
        assert_eq!(message(&error), "cannot write x: writing: disk full");
        assert_eq!(message(&anyhow::anyhow!("a").context("b")), "b: a");
    }
}
