//! `fhec calibrate`: prices of this machine for the compiler.

use crate::files::{self, Access, print, status};
use crate::format::{self, Align, Table};
use crate::progress::Steps;
use crate::{machine, memory};
use anyhow::{Context, Result};
use clap::Args;
use fhec_measure::calibrate::{self, BOOTSTRAP_MEMORY, BOOTSTRAP_RING, Calibration, Options};
use fhec_passes::CostFile;
use fhec_passes::cost_file::Measurement;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Arguments of `fhec calibrate`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec calibrate -o costs.json
  fhec calibrate --log-n 13,14 -o costs.json
  fhec calibrate --json | jq .prices
  fhec compile mnist.onnx -o mnist.plan --calibrate calibration.npy --cost-table costs.json
  fhec explain mnist.plan --cost-table costs.json

Times every operation that the compiler prices, on one thread, at several levels of every ring
degree, and fits the compiler's prices to the times. That takes some minutes and up to 3 GiB, or
7 GiB with whole bootstraps, which are measured at 2^16 where so much memory is free.
Nothing else should run meanwhile. Times are for a fresh process: caches are emptied before
every run, and what new memory costs is a price of its own.

The compiler's built-in table comes from this command.")]
pub(crate) struct Calibrate {
    /// Where the table goes
    #[arg(short, long, value_name = "TABLE")]
    output: Option<PathBuf>,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
    /// log2 of the ring degrees to measure, 12 to 16; all by default
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(12..=16))]
    log_n: Vec<u32>,
    /// Seconds that each operation is repeated for
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = parse_seconds, allow_negative_numbers = true)]
    seconds: f64,
    /// Do not measure whole bootstraps
    #[arg(long)]
    no_bootstraps: bool,
}

impl Calibrate {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let defaults = Options::default();
        let log_n = if self.log_n.is_empty() { defaults.log_n } else { distinct(&self.log_n) };
        let mut options = Options { log_n, seconds: self.seconds, ..defaults };
        options.bootstraps = !self.no_bootstraps && options.log_n.contains(&BOOTSTRAP_RING);
        if let Some(free) = memory::available().filter(|&free| options.bootstraps && free < BOOTSTRAP_MEMORY) {
            options.bootstraps = false;
            let (needed, free) = (format::bytes(BOOTSTRAP_MEMORY), format::bytes(free));
            status(&format!("bootstraps are not measured: they need {needed} of memory, and {free} are free"));
        }
        // Before anything is loaded: it is what a process has anyway.
        let base_memory = memory::resident();
        let steps = Steps::new();
        let mut found = calibrate::calibrate(&options, &mut |step| steps.begin(step))?;
        drop(steps);
        found.prices.base_memory = base_memory.unwrap_or(found.prices.base_memory);
        let worst = found.worst_ratio();
        if !self.json {
            print(&summary(&found))?;
        }
        let Calibration { prices, measurements } = found;
        let file = CostFile::new(machine::this(), 1, prices, measurements);
        if let Some(path) = &self.output {
            let text = file.to_json();
            files::write(path, Access::Public, |out| Ok(out.write_all(text.as_bytes())?))?;
            status(&format!("{}  {}", path.display(), machine::describe(&file.machine)));
        }
        status(&format!(
            "{}, predicted within a factor of {} at worst",
            format::count(file.measurements.len(), "measurement"),
            format::figures(worst)
        ));
        if self.json { print(&file.to_json()) } else { Ok(()) }
    }
}

/// Reads a cost table; the built-in one where none is given.
pub(crate) fn read(path: Option<&Path>) -> Result<CostFile> {
    let Some(path) = path else { return Ok(fhec_passes::cost_file::built_in().clone()) };
    let named = || path.display().to_string();
    let text = String::from_utf8(files::read(path)?).map_err(|_| anyhow::anyhow!("it is not a cost table: not UTF-8"));
    CostFile::parse(&text.with_context(named)?).with_context(named)
}

/// Each number once, in order.
pub(crate) fn distinct<T: Ord + Copy>(list: &[T]) -> Vec<T> {
    std::collections::BTreeSet::from_iter(list).into_iter().copied().collect()
}

pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|s| (0.0..=600.0).contains(s));
    seconds.ok_or_else(|| format!("'{text}' is no number of seconds between 0 and 600"))
}

/// Prices, and how well they predict each operation.
fn summary(found: &Calibration) -> String {
    let mut prices = Table::new(&[("price", Align::Left), ("ns", Align::Right)]);
    for (name, price) in found.prices.named() {
        prices.row(vec![name.into(), format::figures(price)]);
    }
    let factor = found.prices.bootstrap;
    let mut by_operation: BTreeMap<(u32, &str), Vec<&Measurement>> = BTreeMap::new();
    for m in &found.measurements {
        by_operation.entry((m.log_n, &m.operation)).or_default().push(m);
    }
    let heads = [
        ("ring", Align::Left),
        ("operation", Align::Left),
        ("levels", Align::Right),
        ("at the top", Align::Right),
        ("predicted / measured", Align::Right),
    ];
    let mut operations = Table::new(&heads);
    for ((log_n, operation), all) in by_operation {
        let ratios = all.iter().map(|m| m.predicted_seconds / m.seconds);
        let (least, most) = ratios.fold((f64::INFINITY, 0.0f64), |(l, m), r| (l.min(r), m.max(r)));
        let top = all.iter().max_by_key(|m| m.level).map_or(f64::NAN, |m| m.seconds);
        operations.row(vec![
            format!("2^{log_n}"),
            operation.into(),
            all.len().to_string(),
            format::seconds(top),
            format!("{} … {}", format::figures(least), format::figures(most)),
        ]);
    }
    let factor = format!("a bootstrap takes {} times what its parts cost", format::figures(factor));
    format!("{}\n{factor}\n\n{}", prices.render(), operations.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_or_refused() {
        assert_eq!(distinct(&[14, 12, 14]), [12, 14]);
        assert_eq!(parse_seconds("0.25"), Ok(0.25));
        for bad in ["", "-1", "nan", "inf", "601", "x"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
