//! `fhec simulate`: a plan over a data set, compared with the original network.

mod encrypted;
pub(super) mod layers;
mod probe;
mod streamed;

use super::compile;
use super::run::set_threads;
use crate::data::{DataSet, InputSpec, Labels};
use crate::files::{print, status};
use crate::format::{self, pairs};
use crate::memory;
use crate::plan_file;
use crate::progress::Progress;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use encrypted::Encrypted;
use fhec_ir::nn::{Graph, Interpreter};
use fhec_plan::Plan;
use fhec_plan::verify::Verified;
use fhec_runtime::clear::LANES;
use fhec_runtime::{Backend, ClearBackend, NoiseBackend, postprocess};
use rayon::prelude::*;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples of the data set on which layers are compared.
const LAYER_SAMPLES: usize = 32;

/// Arguments of `fhec simulate`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec simulate mnist.plan --model mnist.onnx --data images.idx.gz --labels labels.idx.gz
  fhec simulate mnist.plan --model mnist.onnx --data images.npy --limit 200 --backend noise
  fhec simulate mnist.plan --model mnist.onnx --data images.npy --json | jq .plan.accuracy
  fhec simulate resnet20.plan --model resnet20.onnx --data test_batch.bin.gz
  fhec simulate resnet20.plan --model resnet20.onnx --data test_batch.bin.gz --backend encrypted --limit 20

The clear backend shows what approximated activations change; the noise backend adds the errors
that encryption would. The encrypted one makes keys, encrypts, evaluates and decrypts, all in this
process, and tells time and memory too. Data are read as by compile; labels are an idx or npy file,
or text with a number a line; CIFAR-10 files have their own. A layer's values are compared with those
of the original node after one factor and one offset for all of them: plans scale and shift as they
like. Those of an encrypted run nobody sees; its layers are those of the clear backend.")]
pub(crate) struct Simulate {
    /// The plan
    plan: PathBuf,
    /// The model that it was compiled from
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The data set
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// The right class of every sample
    #[arg(long, value_name = "LABELS")]
    labels: Option<PathBuf>,
    /// Use only the first N samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// What computes
    #[arg(long, value_enum, default_value_t = Kind::Clear)]
    backend: Kind,
    /// Threads to use; all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Memory for ciphertexts and the client's values of the encrypted backend; half of the machine's by default
    #[arg(long, value_name = "SIZE", value_parser = format::parse_bytes)]
    memory: Option<u64>,
    /// Folder for temporary files with what does not fit --memory of a batch: ciphertexts, and values as they are; the system's by default
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Exact numbers
    Clear,
    /// Exact numbers plus the noise that encryption would add
    Noise,
    /// Ciphertexts, with fresh keys
    Encrypted,
}

/// Results of one sample, output after output.
struct Sample {
    original: Vec<f64>,
    clear: Vec<f64>,
    /// With the errors of encryption, modelled or real.
    noisy: Option<Vec<f64>>,
}

impl Simulate {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            set_threads(threads.into())?;
        }
        let verified = Arc::new(plan_file::open(&self.plan)?);
        let graph = compile::load(&self.model)?;
        let specs = plan_file::specs(verified.plan().network_inputs());
        same_model(&graph, &specs, verified.plan())
            .with_context(|| format!("{} was not compiled from {}", self.plan.display(), self.model.display()))?;
        let set = DataSet::open(&self.data, &specs)?;
        let count = set.len().min(self.limit.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX));
        let given = self.labels.as_deref().map(Labels::open).transpose()?;
        let labels = given.as_ref().map(Labels::as_slice).or(set.labels());
        if let Some(labels) = labels {
            ensure!(labels.len() == set.len(), "{} labels for {} samples", labels.len(), set.len());
        }
        let original = Interpreter::new(&graph).with_context(|| self.model.display().to_string())?;
        let clear = ClearBackend::new(&verified);
        let noise = match self.backend {
            Kind::Clear | Kind::Encrypted => None,
            Kind::Noise => Some(NoiseBackend::new(&verified, 0)?),
        };
        let (progress, done) = (Progress::new("samples"), AtomicUsize::new(0));
        let side_by_side = ClearBackend::with_lanes(&verified, LANES);
        let group = |first: usize| -> Result<Vec<Sample>> {
            let range = first..count.min(first + LANES);
            let values = range.clone().map(|i| set.sample(i)).collect::<Result<Vec<_>>>()?;
            let outputs = match values.len() {
                LANES => evaluate(&verified, &side_by_side, &values)?,
                n => evaluate(&verified, &ClearBackend::with_lanes(&verified, n), &values)?,
            };
            let sample = |((i, values), clear): ((usize, Vec<Vec<f64>>), Vec<f64>)| -> Result<Sample> {
                let noisy =
                    noise.as_ref().map(|n| evaluate(&verified, &n.with_seed(i as u64), std::slice::from_ref(&values)));
                let outputs = original.run(&compile::tensors(&specs, values)?)?;
                progress.set(done.fetch_add(1, Ordering::Relaxed) + 1, count);
                Ok(Sample {
                    original: outputs.iter().flat_map(|t| t.values()).copied().collect(),
                    clear,
                    noisy: noisy.transpose()?.map(|n| n.concat()),
                })
            };
            range.zip(values).zip(outputs).map(sample).collect()
        };
        let groups: Vec<usize> = (0..count).step_by(LANES).collect();
        let samples: Vec<Vec<Sample>> = groups.into_par_iter().map(group).collect::<Result<_>>()?;
        let mut samples: Vec<Sample> = samples.into_iter().flatten().collect();
        let seconds = progress.elapsed().as_secs_f64();
        drop(progress);
        let encrypted = match self.backend {
            Kind::Encrypted => {
                let memory = memory::allowance(self.memory);
                Some(encrypt(&verified, &set, &mut samples, memory, self.spill.as_deref())?)
            }
            Kind::Clear | Kind::Noise => None,
        };
        let some = count.min(LAYER_SAMPLES);
        let layers = layers::errors(&verified, &original, &graph, &set, &specs, some, |i, values| match &noise {
            None => layers::values(&verified, &clear, values),
            Some(n) => layers::values(&verified, &n.with_seed(i as u64), values),
        })?;
        let outputs = verified.plan().network_outputs();
        let first = outputs.first().map_or(0, |o| o.shape.iter().product());
        let report = Report::of(&samples, self.backend, first, labels.map(|l| &l[..count]));
        if self.json {
            let mut json = report.as_json(count, seconds, layers::as_json(&layers));
            if let Some(encrypted) = &encrypted {
                json["evaluation"] = encrypted.as_json();
            }
            return print(&format!("{json:#}\n"));
        }
        print(&format!("{}\n{}", report.as_text(count), layers::table(&layers)))?;
        if let Some(encrypted) = &encrypted {
            print(&format!("\n{}\n", encrypted.as_text()))?;
        }
        status(&format!("{} in {}", format::count(count, "sample"), format::seconds(seconds)));
        Ok(())
    }
}

/// Evaluates samples under encryption too.
fn encrypt(
    verified: &Arc<Verified>,
    set: &DataSet,
    samples: &mut [Sample],
    memory: u64,
    spill: Option<&Path>,
) -> Result<Encrypted> {
    let mut encrypted = Encrypted::new(verified, samples.len(), memory, spill)?;
    let outputs = encrypted.evaluate(set, samples.len())?;
    for (sample, values) in samples.iter_mut().zip(outputs) {
        sample.noisy = Some(values);
    }
    Ok(encrypted)
}

/// Outputs of a plan for samples that a backend does side by side, after what is left to the client: those of one sample
/// joined, sample after sample.
fn evaluate<B>(verified: &Verified, backend: &B, samples: &[Vec<Vec<f64>>]) -> Result<Vec<Vec<f64>>>
where
    B: Backend<Input = Vec<f64>, Output = Vec<f64>>,
{
    let plan = verified.plan();
    let count = plan.network_inputs().len();
    let inputs = (0..count).map(|i| samples.iter().flat_map(|s| s[i].iter().copied()).collect());
    let outputs = fhec_runtime::evaluate(verified, backend, inputs.collect(), samples.len())?;
    let mut own = vec![Vec::new(); samples.len()];
    for (values, output) in outputs.iter().zip(&plan.network_outputs()) {
        for (own, values) in own.iter_mut().zip(values.chunks(output.layout.elements())) {
            let mut values = values.to_vec();
            postprocess(&output.postprocess, &output.shape, &mut values);
            own.extend(values);
        }
    }
    Ok(own)
}

/// Inputs and outputs of plan and model have the same names and shapes.
pub(super) fn same_model(graph: &Graph, specs: &[InputSpec], plan: &Plan) -> Result<()> {
    let inputs: Vec<(String, Vec<usize>)> =
        compile::specs(graph, None).into_iter().map(|s| (s.name, s.shape)).collect();
    let own: Vec<(String, Vec<usize>)> = specs.iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    ensure!(inputs == own, "the plan has the inputs {own:?}, the model {inputs:?}");
    let outputs: Vec<_> = graph.outputs.iter().map(|o| (&o.name, &graph.node(o.value).shape)).collect();
    let own = plan.network_outputs();
    let own: Vec<_> = own.iter().map(|o| (&o.name, &o.shape)).collect();
    ensure!(outputs == own, "the plan has the outputs {own:?}, the model {outputs:?}");
    Ok(())
}

/// How one set of results compares with a reference.
struct Comparison {
    /// Right classes, where there are labels.
    correct: Option<usize>,
    /// Same class as the reference.
    agree: usize,
    /// Samples with a result that is wrong by more than the reference's span, or no number: an activation's argument has
    /// left the interval of its polynomial. They are not in the errors below.
    strayed: usize,
    /// Root mean square of the difference.
    rms: f64,
    /// Largest difference.
    max: f64,
    /// Span of the reference's values.
    span: f64,
}

impl Comparison {
    fn of<'a>(
        pairs: impl Iterator<Item = (&'a [f64], &'a [f64])> + Clone,
        first: usize,
        labels: Option<&[usize]>,
    ) -> Self {
        let all = pairs.clone().flat_map(|(_, reference)| reference);
        let (lo, hi) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &r| (lo.min(r), hi.max(r)));
        let span = hi - lo;
        // A single number has no span.
        let allowed = if span > 0.0 { span } else { 1.0 + hi.abs() };
        let (mut correct, mut agree, mut strayed, mut squares, mut n, mut max) = (0, 0, 0, 0.0, 0usize, 0.0f64);
        for (i, (got, reference)) in pairs.enumerate() {
            let class = class(&got[..first]);
            agree += usize::from(class == self::class(&reference[..first]));
            correct += usize::from(labels.is_some_and(|l| l[i] == class));
            let errors = got.iter().zip(reference).map(|(g, r)| (g - r).abs());
            // Not `>`: what is not a number has strayed too.
            if !errors.clone().all(|e| e <= allowed) {
                strayed += 1;
                continue;
            }
            for error in errors {
                squares += error * error;
                max = max.max(error);
                n += 1;
            }
        }
        let rms = (squares / n.max(1) as f64).sqrt();
        Comparison { correct: labels.map(|_| correct), agree, strayed, rms, max, span }
    }

    /// Bits of the reference's span that are right (standard deviation); `None` where all are.
    fn bits(&self) -> Option<f64> {
        (self.rms > 0.0).then(|| (self.span / self.rms).log2())
    }

    fn describe(&self, count: usize) -> String {
        let bits = self.bits().map_or("no error".into(), |b| {
            format!(
                "error {} rms, {} at most: {b:.1} bits of the outputs' span",
                format::small(self.rms),
                format::small(self.max)
            )
        });
        let strayed = match self.strayed {
            0 => String::new(),
            n => format!("; {} left the polynomials' intervals: calibrate on more", format::count(n, "sample")),
        };
        format!("same class on {} of {count}; {bits}{strayed}", self.agree)
    }

    fn as_json(&self, count: usize) -> serde_json::Value {
        json!({
            "accuracy": self.correct.map(|c| c as f64 / count.max(1) as f64), "correct": self.correct,
            "same_class": self.agree, "strayed": self.strayed, "rms": self.rms, "max": self.max, "bits": self.bits(),
        })
    }
}

/// The largest value's index, the first of equals.
fn class(values: &[f64]) -> usize {
    super::results::largest(values, 1).first().copied().unwrap_or(0)
}

/// All comparisons of a run.
struct Report {
    original: Comparison,
    plan: Comparison,
    /// What computed the third set of results, if there is one.
    backend: Kind,
    /// These against the original, and against the exact ones of the plan.
    noisy: Option<(Comparison, Comparison)>,
}

impl Report {
    fn of(samples: &[Sample], backend: Kind, first: usize, labels: Option<&[usize]>) -> Self {
        let pairs = |f: fn(&Sample) -> (&[f64], &[f64]), labels| Comparison::of(samples.iter().map(f), first, labels);
        let noisy = samples.iter().all(|s| s.noisy.is_some()) && !samples.is_empty();
        Report {
            original: pairs(|s| (&s.original, &s.original), labels),
            plan: pairs(|s| (&s.clear, &s.original), labels),
            backend,
            noisy: noisy.then(|| {
                (
                    pairs(|s| (s.noisy.as_deref().unwrap_or(&s.clear), &s.original), labels),
                    pairs(|s| (s.noisy.as_deref().unwrap_or(&s.clear), &s.clear), None),
                )
            }),
        }
    }

    fn as_text(&self, count: usize) -> String {
        let mut rows = Vec::new();
        let accuracy = |c: &Comparison| {
            c.correct.map(|n| format!("{n} of {count} right ({:.2} %)", 100.0 * n as f64 / count.max(1) as f64))
        };
        rows.extend(accuracy(&self.original).map(|text| ("original", text)));
        rows.extend(accuracy(&self.plan).map(|text| ("plan", text)));
        let [with, errors] = match self.backend {
            Kind::Encrypted => ["plan under encryption", "encryption against plan"],
            Kind::Clear | Kind::Noise => ["plan with noise", "noise against plan"],
        };
        if let Some((noisy, _)) = &self.noisy {
            rows.extend(accuracy(noisy).map(|text| (with, text)));
        }
        rows.push(("plan against original", self.plan.describe(count)));
        if let Some((_, noisy)) = &self.noisy {
            rows.push((errors, noisy.describe(count)));
        }
        pairs(&rows)
    }

    fn as_json(&self, count: usize, seconds: f64, layers: serde_json::Value) -> serde_json::Value {
        let name = if self.backend == Kind::Encrypted { "encrypted" } else { "noise" };
        json!({
            "samples": count,
            "seconds": seconds,
            "original": { "accuracy": self.original.correct.map(|c| c as f64 / count.max(1) as f64),
                          "correct": self.original.correct },
            "plan": self.plan.as_json(count),
            name: self.noisy.as_ref().map(|(original, clear)| {
                json!({ "against_original": original.as_json(count), "against_plan": clear.as_json(count) })
            }),
            "layers": layers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_count_classes_and_errors() {
        let samples = [
            Sample { original: vec![0.0, 4.0], clear: vec![0.0, 3.0], noisy: None },
            Sample { original: vec![1.0, 0.0], clear: vec![0.0, 1.0], noisy: None },
        ];
        let report = Report::of(&samples, Kind::Clear, 2, Some(&[1, 0]));
        assert_eq!((report.original.correct, report.plan.correct), (Some(2), Some(1)));
        assert_eq!((report.plan.agree, report.plan.max, report.plan.span), (1, 1.0, 4.0));
        assert!((report.plan.rms - 0.75f64.sqrt()).abs() < 1e-12 && report.plan.strayed == 0);
        assert!(report.noisy.is_none() && report.original.bits().is_none());
    }

    #[test]
    fn samples_that_stray_are_counted_apart() {
        for wrong in [f64::NAN, f64::INFINITY, -1e30, 6.5] {
            let pairs: [(&[f64], &[f64]); 2] = [(&[0.0, 1.5], &[0.0, 1.0]), (&[1.0, wrong], &[-1.0, 2.0])];
            let found = Comparison::of(pairs.into_iter(), 2, None);
            assert_eq!((found.strayed, found.max, found.span), (1, 0.5, 3.0), "{wrong}");
        }
    }
}
