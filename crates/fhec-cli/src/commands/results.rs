//! What `fhec decrypt` and `fhec infer` do with decrypted values: which of them are shown, and how.

use crate::data::names;
use crate::format::{self, Align, Table};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fhec_plan::Output;
use fhec_runtime::postprocess;
use std::path::PathBuf;

/// Arguments on what is shown of results.
#[derive(Args)]
pub(crate) struct Shown {
    /// Print the K largest values of each result
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: Option<u32>,
    /// Names of the classes for --top, one a line
    #[arg(long, value_name = "FILE", requires = "top")]
    labels: Option<PathBuf>,
    /// Which output, for a model with several
    #[arg(long, value_name = "NAME")]
    select: Option<String>,
    /// Do not round to the predicted precision
    #[arg(long)]
    pub(crate) raw: bool,
}

impl Shown {
    /// Names of the classes, if there are any.
    pub(crate) fn labels(&self) -> Result<Option<Vec<String>>> {
        self.labels.as_deref().map(names).transpose()
    }

    /// Index of the output to show.
    pub(crate) fn output(&self, outputs: &[Output]) -> Result<usize> {
        choose(self.select.as_deref(), outputs)
    }
}

/// Index of the output that `select` names; it need not be named where there is only one.
fn choose(select: Option<&str>, outputs: &[Output]) -> Result<usize> {
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
