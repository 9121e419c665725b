//! `fhec decrypt`: an encrypted output back to numbers.

use crate::data::{Labels, names, npy};
use crate::files::{self, Access, print};
use crate::format::{self, Align, Table};
use crate::{keys, plan_file};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fhec_plan::Output;
use fhec_runtime::postprocess;
use std::path::{Path, PathBuf};

/// Arguments of `fhec decrypt`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec decrypt mnist.plan --secret-key keys/secret.key --input y.ct -o y.npy
  fhec decrypt mnist.plan --secret-key keys/secret.key --input y.ct --top 3 --labels classes.txt
  fhec decrypt batch.plan --secret-key keys/secret.key --input y.ct -o y.npy --truth labels.idx.gz

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
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["top", "truth"])]
    output: Option<PathBuf>,
    /// Print the K largest values
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Names of the classes for --top, one a line
    #[arg(long, value_name = "FILE", requires = "top")]
    labels: Option<PathBuf>,
    /// Which output, for a model with several
    #[arg(long, value_name = "NAME")]
    select: Option<String>,
    /// Print how many images have the right class on top: idx, npy or text with a number a line
    #[arg(long, value_name = "LABELS")]
    truth: Option<PathBuf>,
    /// Labels of --truth that belong to earlier images
    #[arg(long, value_name = "N", default_value_t = 0, requires = "truth")]
    skip: usize,
    /// Do not round to the predicted precision
    #[arg(long)]
    raw: bool,
}

impl Decrypt {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let head = plan_file::open_head(&self.plan)?;
        plan_file::in_one_round(head.rounds())?;
        let index = choose(self.select.as_deref(), &head.outputs)?;
        let output = &head.outputs[index];
        let labels = self.labels.as_deref().map(names).transpose()?;
        let client = keys::Client::new(&head)?;
        let secret = client.secret_key(&self.secret_key)?;
        let images = client.decrypt(&secret, &self.input, index)?;
        let images: Vec<Vec<f64>> = images.into_iter().map(|values| finish(output, values, self.raw)).collect();
        if let Some(path) = &self.output {
            let shape = if head.is_batched() { batch_shape(&output.shape, images.len()) } else { output.shape.clone() };
            files::write(path, Access::Public, |out| npy::write(out, &shape, &images.concat()))?;
        }
        if let Some(k) = self.top {
            for (i, values) in images.iter().enumerate() {
                if head.is_batched() {
                    print(&format!("{}image {i}\n", if i > 0 { "\n" } else { "" }))?;
                }
                print(&top(output, values, k as usize, labels.as_deref()))?;
            }
        }
        match &self.truth {
            Some(path) => print(&self.accuracy(path, &images)?),
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

/// Index of the output that `select` names; it need not be named where there is only one.
pub(crate) fn choose(select: Option<&str>, outputs: &[Output]) -> Result<usize> {
    let known = || outputs.iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
    match select {
        Some(name) => outputs
            .iter()
            .position(|o| o.name == name)
            .with_context(|| format!("there is no output '{name}'; there are {}", known())),
        None if outputs.len() > 1 => bail!("the plan has several outputs; choose one with --select: {}", known()),
        None => {
            ensure!(!outputs.is_empty(), "the plan has no output");
            Ok(0)
        }
    }
}

/// The shape of several images' outputs: the batch axis of one image becomes theirs.
pub(crate) fn batch_shape(shape: &[usize], images: usize) -> Vec<usize> {
    let rest = if shape.first() == Some(&1) { &shape[1..] } else { shape };
    [&[images], rest].concat()
}

/// Rounds to the predicted precision (unless `raw`) and does what the plan leaves to the client.
pub(crate) fn finish(output: &Output, mut values: Vec<f64>, raw: bool) -> Vec<f64> {
    let step = if raw { None } else { rounding_step(output.error_std) };
    if let Some(step) = step {
        values.iter_mut().for_each(|v| *v = (*v / step).round() * step);
    }
    postprocess(&output.postprocess, &output.shape, &mut values);
    values
}

/// The power of two next below the predicted standard deviation of the error: rounding to it drops what is
/// noise and adds less than a third of the noise.
fn rounding_step(error_std: f64) -> Option<f64> {
    (error_std.is_finite() && error_std > 0.0).then(|| error_std.log2().floor().exp2()).filter(|s| *s > 0.0)
}

/// Indices of the largest values, largest first; of equal ones the first.
pub(crate) fn largest(values: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(k);
    order
}

/// A table of the largest values.
pub(crate) fn top(output: &Output, values: &[f64], k: usize, labels: Option<&[String]>) -> String {
    let mut table = Table::new(&[("class", Align::Left), ("value", Align::Right)]);
    for i in largest(values, k) {
        let name = labels.and_then(|l| l.get(i)).cloned().unwrap_or_else(|| i.to_string());
        let value = match output.postprocess.is_empty() {
            true => format!("{:.4}", values[i]),
            false => format!("{} %", format::figures(100.0 * values[i])),
        };
        table.row(vec![name, value]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_drops_noise_and_nothing_more() {
        assert_eq!(rounding_step(0.3), Some(0.25));
        assert_eq!(rounding_step(0.25), Some(0.25));
        for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(rounding_step(none), None);
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, f64::NEG_INFINITY], 3), [1, 2, 0]);
        assert_eq!(largest(&[1.0], 5), [0]);
    }
}
