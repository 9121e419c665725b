//! `fhec compile`: an ONNX model to a plan.

use super::calibrate;
use crate::data::{DataSet, InputSpec};
use crate::files::{self, Access, print, status, warn};
use crate::format;
use crate::plan_file::short_hash;
use crate::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use fhec_ir::Tensor;
use fhec_ir::nn::{Graph, Op, Range};
use fhec_math::SecurityLevel;
use fhec_passes::Complex;
use fhec_passes::approximate::{ApproximateOptions, Method};
use fhec_passes::driver::PassRun;
use fhec_passes::pipeline::{self, Compiled, Options};
use fhec_plan::Preprocess;
use fhec_plan::verify::{Insecure, verify};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Precision of minimax composites unless another is asked for: their error is then below what encryption leaves of a value
/// that is bootstrapped.
const MINIMAX_ALPHA: u32 = 12;

/// Most calibration samples that are used unless more are asked for.
const SAMPLES: u32 = 256;

/// Arguments of `fhec compile`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec compile mnist.onnx -o mnist.plan --calibrate calibration.npy
  fhec compile cifar.onnx -o cifar.plan --calibrate pictures/ --mean 0.49,0.48,0.45 --std 0.25
  fhec compile small.onnx -o small.plan --input-range 0,1 --precision-bits 16 --memory-budget 2GiB
  fhec compile mnist.onnx -o mnist.plan --calibrate calibration.npy --print-after approximate
  fhec compile resnet20.onnx -o resnet20.plan --calibrate pictures.npy --accuracy-drop 0.5
  fhec compile resnet20.onnx -o resnet20.plan --calibrate pictures.npy --activation relu-minimax
  fhec compile mnist.onnx -o mnist.plan --calibrate calibration.npy --cost-table costs.json
  fhec compile mnist.onnx -o batch.plan --calibrate calibration.npy --mode throughput
  fhec compile mnist.onnx -o batch.plan --calibrate calibration.npy --mode throughput --complex off
  fhec compile squeezenet.onnx -o aided.plan --calibrate pictures/ --mode client-aided
  fhec compile mnist.onnx -o small.plan --calibrate train.npy --sparsify --accuracy-drop 0.1
  fhec compile autoencoder.onnx -o encoder.plan --calibrate images.npy --output code

Calibration data are npy, npz, idx or CIFAR-10 files, a picture or a folder of pictures. They set
the ranges that activations are approximated on; a few hundred typical inputs are enough. Without
them ranges come from interval arithmetic, which is much worse.

Pictures, idx and CIFAR-10 files and uint8 arrays hold raw pixels: (pixel · scale − mean) / std
makes them inputs, and is stored in the plan for the client. Float arrays are taken as they stand.")]
pub(crate) struct Compile {
    /// The model
    model: PathBuf,
    /// Where the plan goes
    #[arg(short = 'o', long = "plan", value_name = "PLAN")]
    output: PathBuf,
    /// Tensor or node whose result is an output instead of those that the model declares; repeat it for several
    #[arg(long = "output", value_name = "NAME")]
    model_outputs: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// Print the graph after a pass; a wrong name lists them
    #[arg(long, value_name = "PASS")]
    print_after: Option<String>,
}

/// What a plan is compiled for.
#[derive(Args)]
pub(crate) struct Settings {
    /// Typical inputs
    #[arg(long, value_name = "DATA")]
    pub(crate) calibrate: Option<PathBuf>,
    /// Most samples of the calibration data to use, spread over all of them
    #[arg(
        long, value_name = "N", default_value_t = SAMPLES, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) calibration_samples: u32,
    /// Range of the input's values, where there are no calibration data
    #[arg(long, value_name = "LO,HI", value_parser = parse_range, allow_hyphen_values = true)]
    pub(crate) input_range: Option<(f64, f64)>,
    /// Security in bits (classical attacks)
    #[arg(long, value_name = "BITS", default_value = "128", value_parser = ["128", "192", "256"])]
    pub(crate) security: String,
    /// Precision of the worst output, in bits of its range; by default 15, or as many as make errors of encryption 1/16 of what
    /// --accuracy-drop allows
    #[arg(long, value_name = "B", value_parser = parse_bits, allow_negative_numbers = true)]
    pub(crate) precision_bits: Option<f64>,
    /// What becomes of activations that are no polynomials
    #[arg(long, value_enum, default_value_t = ActivationMode::Layerwise)]
    pub(crate) activation: ActivationMode,
    /// Bits of the argument's range to which relu-minimax is right
    #[arg(long, value_name = "BITS", default_value_t = MINIMAX_ALPHA, value_parser = clap::value_parser!(u32).range(4..=14))]
    pub(crate) minimax_alpha: u32,
    /// Classes that polynomials, and --sparsify, may change, in percent of all samples; by default 2 % error of the outputs are allowed
    #[arg(long, value_name = "POINTS", value_parser = parse_points, allow_negative_numbers = true)]
    pub(crate) accuracy_drop: Option<f64>,
    /// Take out units that the network can do without, as long as the classes of no more calibration samples change than
    /// --accuracy-drop allows
    #[arg(long, requires = "accuracy_drop")]
    pub(crate) sparsify: bool,
    /// Leave adjacent linear layers apart, to measure what merging them saves
    #[arg(long, hide = true)]
    pub(crate) no_merge: bool,
    /// Memory that one evaluation may use
    #[arg(long, value_name = "SIZE", value_parser = format::parse_bytes)]
    pub(crate) memory_budget: Option<u64>,
    /// How tensors are packed
    #[arg(long, value_enum, default_value_t = Mode::Latency)]
    pub(crate) mode: Mode,
    /// Images that will be evaluated together; in throughput mode as many as there is room for by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: Option<u32>,
    /// Two images a slot, one in its real and one in its imaginary part, where images share ciphertexts
    #[arg(long, value_enum, default_value_t = ComplexPacking::Auto)]
    pub(crate) complex: ComplexPacking,
    /// What to make fast
    #[arg(long, value_enum, default_value_t = Goal::Latency)]
    pub(crate) goal: Goal,
    /// Prices of operations, from fhec calibrate; the built-in table by default
    #[arg(long, value_name = "FILE")]
    pub(crate) cost_table: Option<PathBuf>,
    /// Factor for raw pixels 0…255
    #[arg(long, value_name = "X", default_value = "1/255", value_parser = parse_fraction, allow_hyphen_values = true)]
    pub(crate) pixel_scale: f64,
    /// Subtracted from scaled pixels: one value, or one per channel
    #[arg(long, value_name = "M,…", value_delimiter = ',', value_parser = parse_mean, allow_hyphen_values = true)]
    pub(crate) mean: Vec<f64>,
    /// Divides scaled pixels: one value, or one per channel
    #[arg(long, value_name = "S,…", value_delimiter = ',', value_parser = parse_deviation, allow_hyphen_values = true)]
    pub(crate) std: Vec<f64>,
}

/// What becomes of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActivationMode {
    /// A polynomial for each layer, of a degree that the calibration data ask for
    Layerwise,
    /// ReLU and other piecewise linear functions by composites of minimax polynomials, all equally accurate
    ReluMinimax,
    /// Refuse networks with other activations than polynomials
    Keep,
}

/// What to optimise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// One evaluation, with loading the keys and encoding the weights
    Latency,
    /// Each of many evaluations, one after another
    Throughput,
}

/// Whether slots hold two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComplexPacking {
    /// Where that takes less time for an image
    Auto,
    /// Always; networks with other activations than products are refused
    On,
    /// Never
    Off,
}

/// What shares a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One image over all slots: the least time for one image
    Latency,
    /// Thousands of images, one a slot: the least time for each of a batch
    Throughput,
    /// Linear layers by the server, everything else exactly by the client, in several rounds with 'fhec serve' and 'fhec infer'
    ClientAided,
    /// Latency or throughput, whichever takes less time for the images of --batch
    Auto,
}

impl Compile {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let start = Instant::now();
        files::writable(&self.output)?;
        let graph = load_outputs(&self.model, &self.model_outputs)?;
        let mut passes = Vec::new();
        let compiled = {
            let progress = Progress::new("compiling");
            self.settings.compile(&graph, &self.model, &mut |pass| {
                progress.set(passes.len(), passes.len() + 1);
                let printed =
                    if Some(pass.pass) == self.print_after.as_deref() { pass.graph.to_string() } else { String::new() };
                passes.push((pass.pass, pass.log_n, printed));
            })?
        };
        if let Some(wanted) = &self.print_after {
            self.print_graphs(wanted, &passes)?;
        }
        let plan = &compiled.plan;
        // Whoever opens the plan does so; what is not sound must not leave the house.
        verify(plan, Insecure::Refuse).context("internal error: the plan is not sound")?;
        files::write(&self.output, Access::Public, |out| Ok(plan.write_to(out)?))?;
        for note in &plan.report.notes {
            status(&format!("note: {note}"));
        }
        status(&summary(&compiled, &self.output, start.elapsed().as_secs_f64()));
        Ok(())
    }

    fn print_graphs(&self, wanted: &str, passes: &[(&str, Option<u32>, String)]) -> Result<()> {
        let mut names: Vec<&str> = Vec::new();
        for (name, ..) in passes {
            if !names.contains(name) {
                names.push(name);
            }
        }
        ensure!(names.contains(&wanted), "--print-after: there is no pass '{wanted}'; there are {}", names.join(", "));
        for (_, log_n, graph) in passes.iter().filter(|p| p.0 == wanted) {
            let ring = log_n.map_or(String::new(), |n| format!(", ring degree 2^{n}"));
            print(&format!("// after {wanted}{ring}\n{graph}\n"))?;
        }
        Ok(())
    }
}

/// Loads a model; it is called by the stem of its file name.
pub(crate) fn load(path: &Path) -> Result<Graph> {
    load_outputs(path, &[])
}

/// The same with other outputs than the file's, where some are given.
fn load_outputs(path: &Path, outputs: &[String]) -> Result<Graph> {
    let options = fhec_onnx::Options { outputs: outputs.to_vec(), ..fhec_onnx::Options::default() };
    let loaded = fhec_onnx::Model::load(path).and_then(|model| model.import(&options));
    let mut graph = loaded.with_context(|| path.display().to_string())?;
    if let Some(stem) = path.file_stem() {
        graph.name = stem.to_string_lossy().into_owned();
    }
    Ok(graph)
}

/// Names, shapes and preprocessing of a model's inputs.
pub(crate) fn specs(graph: &Graph, preprocess: Option<&Preprocess>) -> Vec<InputSpec> {
    graph
        .inputs()
        .into_iter()
        .map(|id| {
            let node = graph.node(id);
            let name = if let Op::Input { name } = &node.op { name.clone() } else { node.origin.to_string() };
            InputSpec { name, shape: node.shape.clone(), preprocess: preprocess.cloned() }
        })
        .collect()
}

impl Settings {
    /// The defaults, with calibration data.
    pub(crate) fn calibrated(data: PathBuf) -> Self {
        Settings {
            calibrate: Some(data),
            calibration_samples: SAMPLES,
            input_range: None,
            security: "128".into(),
            precision_bits: None,
            activation: ActivationMode::Layerwise,
            minimax_alpha: MINIMAX_ALPHA,
            accuracy_drop: None,
            sparsify: false,
            no_merge: false,
            memory_budget: None,
            mode: Mode::Latency,
            complex: ComplexPacking::Auto,
            batch: None,
            goal: Goal::Latency,
            cost_table: None,
            pixel_scale: 1.0 / 255.0,
            mean: Vec::new(),
            std: Vec::new(),
        }
    }

    /// Compiles a model; `watch` sees every pass.
    pub(crate) fn compile(&self, graph: &Graph, model: &Path, watch: &mut dyn FnMut(PassRun<'_>)) -> Result<Compiled> {
        let preprocess = self.preprocess();
        let specs = specs(graph, Some(&preprocess));
        specs.iter().try_for_each(InputSpec::check_preprocess)?;
        let defaults = Options::default();
        let options = Options {
            security: self.level()?,
            precision_bits: self.precision_bits,
            least_bits: self.precision_bits.unwrap_or(defaults.least_bits),
            memory_budget: self.memory_budget,
            samples: self.samples(&specs)?,
            input_range: Some(self.range(&preprocess)),
            preprocess: vec![Some(preprocess); specs.len()],
            mode: self.mode()?,
            complex: match self.complex {
                ComplexPacking::Auto => Complex::Auto,
                ComplexPacking::On => Complex::On,
                ComplexPacking::Off => Complex::Off,
            },
            goal: match self.goal {
                Goal::Latency => fhec_passes::Goal::Latency,
                Goal::Throughput => fhec_passes::Goal::Throughput,
            },
            approximate: ApproximateOptions {
                method: match self.activation {
                    ActivationMode::Layerwise => Method::Layerwise,
                    ActivationMode::ReluMinimax => Method::Minimax(self.minimax_alpha),
                    ActivationMode::Keep => Method::Keep,
                },
                accuracy_drop: self.accuracy_drop.map(|points| points / 100.0),
                ..defaults.approximate
            },
            merge: !self.no_merge,
            sparsify: self.accuracy_drop.filter(|_| self.sparsify).map(|points| points / 100.0),
            cost: calibrate::read(self.cost_table.as_deref())?.prices,
        };
        let compiled = match self.batch {
            _ if self.mode == Mode::ClientAided => fhec_passes::compile_aided(graph, &options, watch),
            Some(batch) if self.mode == Mode::Auto => {
                fhec_passes::compile_cheaper(graph, &options, batch as usize, watch)
            }
            _ => pipeline::compile_watched(graph, &options, watch),
        };
        compiled.with_context(|| model.display().to_string())
    }

    fn mode(&self) -> Result<fhec_passes::Mode> {
        ensure!(
            self.batch.is_none() || self.mode != Mode::Latency,
            "--batch is for --mode throughput, client-aided and auto"
        );
        ensure!(
            self.complex != ComplexPacking::On || self.mode != Mode::Latency,
            "--complex on is for --mode throughput, client-aided and auto"
        );
        ensure!(self.batch.is_some() || self.mode != Mode::Auto, "--mode auto: say for how many images with --batch");
        Ok(match self.mode {
            Mode::Latency | Mode::Auto => fhec_passes::Mode::Latency,
            Mode::ClientAided if self.batch.is_none() => fhec_passes::Mode::Latency,
            Mode::Throughput | Mode::ClientAided => {
                fhec_passes::Mode::Throughput { batch: self.batch.map(|n| n as usize) }
            }
        })
    }

    fn level(&self) -> Result<SecurityLevel> {
        let found = SecurityLevel::ALL.into_iter().find(|l| l.bits().to_string() == self.security);
        found.with_context(|| format!("--security {}", self.security))
    }

    fn preprocess(&self) -> Preprocess {
        let or = |list: &[f64], otherwise| if list.is_empty() { vec![otherwise] } else { list.to_vec() };
        Preprocess { scale: self.pixel_scale, mean: or(&self.mean, 0.0), std: or(&self.std, 1.0) }
    }

    /// The declared range; that of preprocessed pixels where none is declared.
    fn range(&self, p: &Preprocess) -> Range {
        if let Some((lo, hi)) = self.input_range {
            return Range { lo, hi };
        }
        let channels = p.mean.len().max(p.std.len());
        let of = |list: &[f64], c: usize| list[c.min(list.len() - 1)];
        let ends =
            (0..channels).flat_map(|c| [0.0, 255.0].map(|pixel| (pixel * p.scale - of(&p.mean, c)) / of(&p.std, c)));
        let (lo, hi) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if self.calibrate.is_none() {
            warn(&format!(
                "neither --calibrate nor --input-range: the inputs are taken for pixels, with values {lo} … {hi}"
            ));
        }
        Range { lo, hi }
    }

    /// Calibration samples, spread evenly over the data.
    fn samples(&self, specs: &[InputSpec]) -> Result<Vec<Vec<Tensor>>> {
        let Some(path) = &self.calibrate else { return Ok(Vec::new()) };
        let set = DataSet::open(path, specs)?;
        let take = set.len().min(self.calibration_samples as usize);
        if take < set.len() {
            status(&format!("calibrating on {take} of {} samples", set.len()));
        }
        (0..take).map(|i| tensors(specs, set.sample(i * set.len() / take)?)).collect()
    }
}

/// Values of one sample as the tensors that a graph takes.
pub(crate) fn tensors(specs: &[InputSpec], values: Vec<Vec<f64>>) -> Result<Vec<Tensor>> {
    specs
        .iter()
        .zip(values)
        .map(|(spec, values)| {
            if values.len() != spec.len() {
                bail!("input '{}': {} values for shape {:?}", spec.name, values.len(), spec.shape);
            }
            Ok(Tensor::new(spec.shape.clone(), values))
        })
        .collect()
}

fn summary(compiled: &Compiled, output: &Path, seconds: f64) -> String {
    let (plan, r) = (&compiled.plan, &compiled.plan.report);
    let size = std::fs::metadata(output).map(|m| m.len()).unwrap_or(0);
    let rows = [
        ("plan", format!("{} ({}), compiled in {}", output.display(), format::bytes(size), format::seconds(seconds))),
        (
            "parameters",
            format!(
                "N = 2^{}, log2(QP) = {:.0}, {:.0}-bit security",
                plan.parameters.log_n,
                plan.parameters.log_qp(),
                r.security_bits
            ),
        ),
        (
            "predicted",
            format!(
                "{}{} and {} a run on one thread, {:.1} bits of precision",
                format::seconds(r.seconds),
                format::batch(plan.batch(), r.seconds),
                format::bytes(r.peak_memory),
                r.output_bits
            ),
        ),
        (
            "sizes",
            format!(
                "evaluation keys {}, input {}, output {}",
                format::bytes(r.key_bytes_disk),
                format::bytes(r.input_bytes),
                format::bytes(r.output_bytes)
            ),
        ),
        ("hash", short_hash(&plan.hash())),
    ];
    format::pairs(&rows).trim_end().to_owned()
}

fn parse_range(text: &str) -> Result<(f64, f64), String> {
    let wrong = || format!("'{text}' is not LO,HI with LO below HI");
    let (lo, hi) = text.split_once(',').ok_or_else(wrong)?;
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(wrong);
    let (lo, hi) = (number(lo)?, number(hi)?);
    if lo < hi { Ok((lo, hi)) } else { Err(wrong()) }
}

/// A positive number, or a fraction such as 1/255.
fn parse_fraction(text: &str) -> Result<f64, String> {
    let wrong = || format!("'{text}' is neither a positive number nor a fraction of two");
    let number = |t: &str| t.trim().parse::<f64>().map_err(|_| wrong());
    let value = match text.split_once('/') {
        Some((a, b)) => number(a)? / number(b)?,
        None => number(text)?,
    };
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(wrong()) }
}

fn parse_points(text: &str) -> Result<f64, String> {
    let points = text.parse::<f64>().ok().filter(|p| *p > 0.0 && *p < 100.0);
    points.ok_or_else(|| format!("'{text}' is no percentage above 0 and below 100"))
}

fn parse_mean(text: &str) -> Result<f64, String> {
    let mean = text.trim().parse::<f64>().ok().filter(|m| m.is_finite());
    mean.ok_or_else(|| format!("'{text}' is no finite number"))
}

fn parse_deviation(text: &str) -> Result<f64, String> {
    let deviation = text.trim().parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0);
    deviation.ok_or_else(|| format!("'{text}' is no positive number"))
}

fn parse_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse::<f64>().ok().filter(|b| (1.0..=40.0).contains(b));
    bits.ok_or_else(|| format!("'{text}' is no number of bits between 1 and 40"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_fractions_are_read_or_refused() {
        assert_eq!(parse_range("-1,2.5"), Ok((-1.0, 2.5)));
        for bad in ["", "1", "2,1", "1,1", "nan,1", "0,inf"] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_fraction("1/4"), Ok(0.25));
        assert_eq!(parse_fraction("2"), Ok(2.0));
        for bad in ["0", "-1", "1/0", "x", "1/"] {
            assert!(parse_fraction(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_points("0.5"), Ok(0.5));
        for bad in ["0", "-1", "100", "nan", "x"] {
            assert!(parse_points(bad).is_err(), "{bad}");
        }
        assert_eq!((parse_mean("-0.5"), parse_deviation("0.25")), (Ok(-0.5), Ok(0.25)));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(parse_deviation(bad).is_err(), "{bad}");
        }
        assert!(parse_mean("inf").is_err() && parse_mean("-").is_err());
        assert!(parse_bits("12.5").is_ok() && parse_bits("0").is_err() && parse_bits("nan").is_err());
    }
}
