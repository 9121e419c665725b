//! `fhec decrypt`: an encrypted output back to numbers.

use super::compare::Compare;
use super::results::{Shown, batch_shape, finish, largest, top};
use crate::data::{Labels, npy};
use crate::files::{self, Access, print};
use crate::{format, keys, plan_file};
use anyhow::{Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `fhec decrypt`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec decrypt mnist.plan --secret-key keys/secret.key --input y.ct -o y.npy
  fhec decrypt mnist.plan --secret-key keys/secret.key --input y.ct --top 3 --labels classes.txt
  fhec decrypt batch.plan --secret-key keys/secret.key --input y.ct -o y.npy --truth labels.idx.gz
  fhec decrypt net.plan --secret-key keys/secret.key --input y.ct --compare net.onnx --encrypted x.npy

The output of a plan in throughput mode has an axis for the images in front, in place of a batch of one.

Values are rounded to the precision that the plan predicts: what lies below is the noise of the
encryption, which tells nothing about the result but something about the key. Do not give
unrounded values away.")]
pub(crate) struct Decrypt {
    /// The plan
    plan: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret_key: PathBuf,
    /// The encrypted output
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the values go, as a NumPy array of float64
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["top", "truth", "compare"])]
    output: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
    /// Print how many images have the right class on top: idx, npy or text with a number a line
    #[arg(long, value_name = "LABELS")]
    truth: Option<PathBuf>,
    /// Labels of --truth that belong to earlier images
    #[arg(long, value_name = "N", default_value_t = 0, requires = "truth")]
    skip: usize,
    /// Print how precise the result is, and how far from this model, which the plan was compiled from; see fhec compare
    #[arg(long, value_name = "MODEL", requires = "encrypted")]
    compare: Option<PathBuf>,
    /// What was encrypted, for --compare: the values, or NAME=FILE once for each input, or the encrypted input
    #[arg(long, value_name = "[NAME=]FILE", requires = "compare")]
    encrypted: Vec<String>,
}

impl Decrypt {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let head = plan_file::open_head(&self.plan)?;
        plan_file::in_one_round(head.rounds())?;
        let index = self.shown.output(&head.outputs)?;
        let output = &head.outputs[index];
        let labels = self.shown.labels()?;
        let client = keys::Client::new(&head)?;
        let secret = client.secret_key(&self.secret_key)?;
        let images = client.decrypt(&secret, &self.input, index)?;
        let images: Vec<Vec<f64>> = images.into_iter().map(|values| finish(output, values, self.shown.raw)).collect();
        if let Some(path) = &self.output {
            let shape = if head.is_batched() { batch_shape(&output.shape, images.len()) } else { output.shape.clone() };
            files::write(path, Access::Public, |out| npy::write(out, &shape, &images.concat()))?;
        }
        if let Some(k) = self.shown.top {
            for (i, values) in images.iter().enumerate() {
                if head.is_batched() {
                    print(&format!("{}image {i}\n", if i > 0 { "\n" } else { "" }))?;
                }
                print(&top(output, values, k as usize, labels.as_deref()))?;
            }
        }
        if let Some(path) = &self.truth {
            print(&self.accuracy(path, &images)?)?;
        }
        match &self.compare {
            Some(model) => Compare::of_result(&self.plan, &self.secret_key, &self.input, model, &self.encrypted).run(),
            None => Ok(()),
        }
    }

    /// How many images have their right class on top.
    fn accuracy(&self, path: &Path, images: &[Vec<f64>]) -> Result<String> {
        let truth = Labels::open(path)?;
        let truth = truth.as_slice().get(self.skip..).unwrap_or_default();
        ensure!(
            truth.len() >= images.len(),
            "{}: {} labels after --skip {} for {}",
            path.display(),
            truth.len(),
            self.skip,
            format::count(images.len(), "image")
        );
        let right = images.iter().zip(truth).filter(|(values, truth)| largest(values, 1) == [**truth]).count();
        let (n, share) = (images.len(), 100.0 * right as f64 / images.len().max(1) as f64);
        Ok(format!("{right} of {n} right ({share:.2} %)\n"))
    }
}
