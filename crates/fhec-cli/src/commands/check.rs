//! `fhec check`: what keeps a model from being compiled, all of it, without compiling.

use super::compile;
use crate::files::print;
use crate::format;
use anyhow::{Result, bail};
use clap::Args;
use fhec_ir::nn::Graph;
use fhec_ir::{Diagnostic, Diagnostics};
use fhec_onnx::ImportError;
use fhec_passes::pipeline::{self, CompileError};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `fhec check`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec check model.onnx
  fhec check model.onnx --json | jq -r '.problems[].node'

Exit status 0: the model can be compiled, as far as that does not depend on data and options. Exit status 1: it cannot,
and every node that is to blame is listed with the reason and what to do instead.")]
pub(crate) struct Check {
    /// The model
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let (graph, problems) = match fhec_onnx::load(&self.model) {
            Ok(graph) => {
                let problems = match pipeline::check(&graph) {
                    Ok(()) => Diagnostics::default(),
                    Err(CompileError::Model(problems)) => problems,
                    Err(other) => return Err(anyhow::Error::new(other).context(self.model.display().to_string())),
                };
                (Some(graph), problems)
            }
            Err(ImportError::Unsupported(problems)) => (None, problems),
            Err(other) => return Err(anyhow::Error::new(other).context(self.model.display().to_string())),
        };
        if self.json {
            print(&format!("{:#}\n", as_json(graph.as_ref(), &problems)))?;
        } else if problems.0.is_empty() {
            print(&describe(graph.as_ref()))?;
        } else {
            print(&format!("{problems}\n"))?;
        }
        match problems.0.len() {
            0 => Ok(()),
            n => bail!("{}: {}", self.model.display(), format::count(n, "problem")),
        }
    }
}

fn describe(graph: Option<&Graph>) -> String {
    let Some(graph) = graph else { return String::new() };
    let inputs = compile::specs(graph, None);
    let inputs: Vec<String> = inputs.iter().map(|s| format!("{} {}", s.name, format::shape(&s.shape))).collect();
    let outputs = graph.outputs.iter().map(|o| format!("{} {}", o.name, format::shape(&graph.node(o.value).shape)));
    format!(
        "can be compiled: {}, input {}, output {}\n",
        format::count(graph.nodes.len(), "operation"),
        inputs.join(", "),
        outputs.collect::<Vec<_>>().join(", ")
    )
}

fn as_json(graph: Option<&Graph>, problems: &Diagnostics) -> serde_json::Value {
    let problem =
        |d: &Diagnostic| json!({ "node": d.origin.to_string(), "what": d.what, "message": d.message, "help": d.help });
    json!({
        "ok": problems.0.is_empty(),
        "operations": graph.map(|g| g.nodes.len()),
        "problems": problems.0.iter().map(problem).collect::<Vec<_>>(),
    })
}
