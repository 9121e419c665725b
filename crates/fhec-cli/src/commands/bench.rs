//! `fhec bench`: micro-benchmarks of the engine, and pictures of what runs took.

use super::calibrate::{distinct, parse_seconds};
use super::plot;
use crate::files::print;
use crate::format::{self, Align, Table};
use crate::progress::Steps;
use crate::{machine, memory};
use anyhow::{Result, ensure};
use clap::Args;
use fhec_ckks::BootstrapPreset;
use fhec_measure::bench::{Options, Parameters, Report, Row, bench};
use fhec_measure::bootstrap;
use fhec_passes::cost_file::Machine;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `fhec bench`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec bench
  fhec bench --log-n 13,14,16 --threads 1,2
  fhec bench --log-n 16 --json > bench.json
  fhec bench --bootstrap
  fhec bench --bootstrap deep,twice --threads 1,2 --json
  fhec bench --ablation models/cryptonets.onnx --calibrate models/calibration.npy
  fhec bench --plot resnet20.svg --trace t.jsonl
  fhec bench --plot predicted.svg --plan resnet20.plan

Parameters are as large as 128 bits of security let them be, with primes of up to 47 bits. Times
are medians of a tight loop, each limb count by itself; rotations share nothing unless they are
called hoisted. A ring degree of 2^16 needs about 4 GiB, 2^17 about 25 GiB.

Bootstraps run at parameters of their own, all with 128 bits of security: compact and shallow (2^15), deep,
arcsine and twice (2^16), large (2^17). They need 2, 6 and 9 GiB; values are random in [-1, 1].
They run in turns, each once in a round, seven rounds at least. Times are medians, and so are the ratios of
times of the same round: to the time of a whole bootstrap, and to that on the first number of threads.

With --ablation a network is compiled for throughput mode and run on a full batch of encrypted samples, with all
techniques, without each of them, and without any. That takes minutes.

With --plot nothing is measured: the time of every layer is drawn, from the trace of a run (fhec run
--trace; the last evaluation in it) or as a plan predicts it.")]
pub(crate) struct Bench {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Measure what each technique of throughput mode saves on a network
    #[arg(long, value_name = "MODEL", requires = "calibrate", conflicts_with_all = ["plot", "log_n", "threads", "seconds", "bootstrap"])]
    ablation: Option<PathBuf>,
    /// Typical inputs of that network
    #[arg(long, value_name = "DATA", requires = "ablation")]
    calibrate: Option<PathBuf>,
    /// Draw the time of every layer as SVG
    #[arg(long, value_name = "FILE", requires = "source", conflicts_with_all = ["json", "log_n", "threads", "seconds", "bootstrap"])]
    plot: Option<PathBuf>,
    /// The trace to draw
    #[arg(long, value_name = "FILE", requires = "plot", group = "source")]
    trace: Option<PathBuf>,
    /// The plan to draw the predicted times of
    #[arg(long, value_name = "FILE", requires = "plot", group = "source")]
    plan: Option<PathBuf>,
    /// log2 of the ring degrees, 12 to 17
    #[arg(
        long, value_name = "N,…", value_delimiter = ',', default_value = "14,15,16",
        value_parser = clap::value_parser!(u32).range(12..=17)
    )]
    log_n: Vec<u32>,
    /// Numbers of threads
    #[arg(
        long, value_name = "T,…", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    threads: Vec<u16>,
    /// Run whole bootstraps instead, of these presets; the deep one by default
    #[arg(
        long, value_name = "PRESET,…", value_delimiter = ',', num_args = 0..=1, require_equals = false,
        default_missing_value = "deep", value_parser = ["compact", "shallow", "deep", "arcsine", "twice", "large"],
        conflicts_with = "log_n"
    )]
    bootstrap: Option<Vec<String>>,
    /// Seconds that each operation is repeated for
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_seconds, allow_negative_numbers = true)]
    seconds: f64,
}

impl Bench {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        if let (Some(model), Some(data)) = (&self.ablation, &self.calibrate) {
            return super::ablation::run(model, data, self.json);
        }
        match (&self.plot, &self.trace, &self.plan) {
            (Some(output), Some(trace), _) => return plot::of_trace(trace, output),
            (Some(output), None, Some(plan)) => return plot::of_plan(plan, output),
            _ => {}
        }
        let threads: Vec<usize> = distinct(&self.threads).into_iter().map(usize::from).collect();
        ensure!(threads.iter().all(|&t| t <= 1024), "--threads: at most 1024");
        let machine = machine::this();
        if let Some(names) = &self.bootstrap {
            return self.bootstraps(names, threads, &machine);
        }
        let options = Options { log_n: distinct(&self.log_n), threads, seconds: self.seconds };
        let steps = Steps::new();
        let report = bench(&options, &mut |step| steps.begin(step))?;
        drop(steps);
        print(&if self.json {
            let Report { parameters, rows } = report;
            format!("{:#}\n", json!({ "machine": machine, "parameters": parameters, "results": rows }))
        } else {
            as_text(&machine, &report, &options.threads)
        })
    }

    fn bootstraps(&self, names: &[String], threads: Vec<usize>, machine: &Machine) -> Result<()> {
        let mut presets = BootstrapPreset::all();
        presets.retain(|p| names.iter().any(|name| name == p.name));
        let options = bootstrap::Options { presets, threads, seconds: self.seconds };
        let steps = Steps::new();
        let reports = bootstrap::bench(&options, &memory::peak, &mut |step| steps.begin(step))?;
        drop(steps);
        print(&if self.json {
            format!("{:#}\n", json!({ "machine": machine, "bootstraps": reports }))
        } else {
            bootstraps_as_text(machine, &reports)
        })
    }
}

fn as_text(machine: &Machine, report: &Report, threads: &[usize]) -> String {
    let mut out = format!("{}\n", machine::describe(machine));
    for p in &report.parameters {
        out.push_str(&format!("\n{}\n", describe(p)));
        let columns: Vec<String> = threads.iter().map(|&t| format::count(t, "thread")).collect();
        let mut heads = vec![("operation", Align::Left), ("limbs", Align::Right)];
        heads.extend(columns.iter().map(|c| (c.as_str(), Align::Right)));
        let mut table = Table::new(&heads);
        // One line for each operation and number of limbs, in the order they ran.
        let mut lines: Vec<(&str, usize)> = Vec::new();
        let mut times: BTreeMap<(&str, usize, usize), f64> = BTreeMap::new();
        let rows = report.rows.iter().filter(|r| r.log_n == p.log_n);
        for Row { operation, limbs, threads, seconds, .. } in rows {
            if !lines.contains(&(operation, *limbs)) {
                lines.push((operation, *limbs));
            }
            times.insert((operation, *limbs, *threads), *seconds);
        }
        for (operation, limbs) in lines {
            let time = |t: &usize| times.get(&(operation, limbs, *t)).map_or("–".into(), |&s| format::seconds(s));
            let mut cells = vec![operation.to_owned(), limbs.to_string()];
            cells.extend(threads.iter().map(time));
            table.row(cells);
        }
        out.push_str(&table.render());
    }
    out
}

fn describe(p: &Parameters) -> String {
    format!(
        "N = 2^{}, {} chain and {} special primes, log2(Q) = {:.0}, log2(QP) = {:.0}, {}, {:.0}-bit security, a key has {}",
        p.log_n,
        p.limbs,
        p.special,
        p.log2_q,
        p.log2_qp,
        format::count(p.digits, "digit"),
        p.security_bits,
        format::bytes(p.key_bytes as u64)
    )
}

fn bootstraps_as_text(machine: &Machine, reports: &[bootstrap::Report]) -> String {
    let mut out = format!("{}\n", machine::describe(machine));
    for r in reports {
        let peak = r.peak_bytes.map_or(String::new(), |bytes| format!(", peak {}", format::bytes(bytes)));
        out.push_str(&format!(
            "\n{}: N = 2^{}, {} chain and {} special primes, log2(QP) = {:.0}, {}, {:.0}-bit security, {} levels left, \
             keys {}, matrices {}{peak}\n",
            r.preset,
            r.log_n,
            r.limbs,
            r.special,
            r.log2_qp,
            format::count(r.digits, "digit"),
            r.security_bits,
            r.levels,
            format::bytes(r.key_bytes as u64),
            format::bytes(r.matrix_bytes as u64),
        ));
        let ratio = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.2}"));
        let mut table = Table::new(&[
            ("operation", Align::Left),
            ("slots", Align::Right),
            ("to level", Align::Right),
            ("threads", Align::Right),
            ("time", Align::Right),
            ("of whole", Align::Right),
            ("speed-up", Align::Right),
            ("bits", Align::Right),
            ("worst slot", Align::Right),
        ]);
        for row in &r.rows {
            table.row(vec![
                row.operation.clone(),
                format!("2^{}", row.log_slots),
                row.level.to_string(),
                row.threads.to_string(),
                format::seconds(row.seconds),
                ratio(row.of_whole),
                ratio(row.speedup),
                format!("{:.1}", row.precision_bits),
                format!("{:.1}", row.worst_slot_bits),
            ]);
        }
        out.push_str(&table.render());
    }
    out
}
