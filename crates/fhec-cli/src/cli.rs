//! The command line.

use crate::commands::bench::Bench;
use crate::commands::calibrate::Calibrate;
use crate::commands::check::Check;
use crate::commands::compare::Compare;
use crate::commands::compile::Compile;
use crate::commands::completions::Completions;
use crate::commands::decrypt::Decrypt;
use crate::commands::demo::Demo;
use crate::commands::encrypt::Encrypt;
use crate::commands::explain::Explain;
use crate::commands::infer::Infer;
use crate::commands::keygen::Keygen;
use crate::commands::run::Run;
use crate::commands::serve::Serve;
use crate::commands::simulate::Simulate;
use anyhow::Result;
use clap::{Parser, Subcommand};

/// Compiles neural networks to programs on encrypted data, and runs them.
///
/// The model owner compiles a network to a plan. The client makes keys for the plan, encrypts inputs and
/// decrypts outputs. The server runs the plan on encrypted inputs and never holds a secret.
#[derive(Parser)]
#[command(
    name = "fhec",
    version,
    max_term_width = 100,
    after_help = "The whole road:
  model owner  fhec compile mnist.onnx -o mnist.plan --calibrate images.npy
  client       fhec keygen  mnist.plan -o keys
  client       fhec encrypt mnist.plan --secret-key keys/secret.key --input seven.png -o x.ct
  server       fhec run     mnist.plan --eval-keys keys/eval.keys --input x.ct -o y.ct
  client       fhec decrypt mnist.plan --secret-key keys/secret.key --input y.ct --top 3

With a server instead of files to carry around:
  server       fhec serve mnist.plan --keys clients --listen 0.0.0.0:8080
  client       fhec infer --server http://HOST:8080 --key keys/secret.key seven.png --top 3

Or all of it on a bundled network:
  fhec demo

FHEC_LOG=debug shows every pass of the compiler with its time.

Exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile an ONNX model to a plan
    Compile(Box<Compile>),
    /// List everything in an ONNX model that cannot be compiled
    Check(Check),
    /// Show what a plan does and what it will cost
    Explain(Explain),
    /// Make the keys for a plan
    Keygen(Keygen),
    /// Encrypt an input
    Encrypt(Encrypt),
    /// Run a plan on encrypted inputs
    Run(Run),
    /// Decrypt an output
    Decrypt(Decrypt),
    /// Serve a plan to many clients over HTTP
    Serve(Serve),
    /// Have a server evaluate inputs that only you can read
    Infer(Infer),
    /// Run a plan unencrypted over a data set: accuracy, and the error of every layer
    Simulate(Simulate),
    /// Decrypt the result of a run, or every layer of it, and hold it against what it should be
    Compare(Compare),
    /// Measure what operations cost on this machine, for the compiler
    Calibrate(Calibrate),
    /// Run micro-benchmarks of the engine
    Bench(Bench),
    /// Classify handwritten digits under encryption with a bundled network
    Demo(Demo),
    /// Print completions for a shell
    Completions(Completions),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        match &self.command {
            Command::Compile(c) => c.run(),
            Command::Check(c) => c.run(),
            Command::Explain(c) => c.run(),
            Command::Keygen(c) => c.run(),
            Command::Encrypt(c) => c.run(),
            Command::Run(c) => c.run(),
            Command::Decrypt(c) => c.run(),
            Command::Serve(c) => c.run(),
            Command::Infer(c) => c.run(),
            Command::Simulate(c) => c.run(),
            Command::Compare(c) => c.run(),
            Command::Calibrate(c) => c.run(),
            Command::Bench(c) => c.run(),
            Command::Demo(c) => c.run(),
            Command::Completions(c) => c.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
