//! `fhec completions`: completions of the command line for a shell.

use crate::cli::Cli;
use crate::files::print;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `fhec completions`.
#[derive(Args)]
#[command(after_help = "Example:
  fhec completions bash > ~/.local/share/bash-completion/completions/fhec")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fhec", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
