//! `fhec bench --ablation`: what each technique of throughput mode saves, on a real network under encryption.

use super::compile::{ComplexPacking, Mode, Settings, load, specs, tensors};
use crate::data::DataSet;
use crate::files::print;
use crate::format::{self, Align, Table};
use crate::machine;
use crate::progress::Steps;
use anyhow::{Context, Result, ensure};
use fhec_ckks::SecretKey;
use fhec_ckks::container::BundleEntry;
use fhec_ckks::linear::ScalarOptions;
use fhec_ir::nn::Graph;
use fhec_math::SecretRng;
use fhec_passes::cost_file::Machine;
use fhec_plan::{Insecure, Plan, Verified};
use fhec_runtime::{Client, EncryptionKey, Server, server_context};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A way to compile and run the network.
struct Variant {
    name: &'static str,
    compiled: Techniques,
    scalars: ScalarOptions,
}

/// Those that are chosen when a network is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Techniques {
    merge: bool,
    complex: bool,
}

/// All techniques, each one missing, and none.
fn variants() -> [Variant; 6] {
    let all = ScalarOptions::default();
    let (eager, encoded) =
        (ScalarOptions { lazy_rescaling: false, ..all }, ScalarOptions { scalar_encoding: false, ..all });
    let none = ScalarOptions { lazy_rescaling: false, scalar_encoding: false };
    let each = Techniques { merge: true, complex: true };
    let (single, apart) = (Techniques { complex: false, ..each }, Techniques { merge: false, ..each });
    [
        Variant { name: "all", compiled: each, scalars: all },
        Variant { name: "without complex packing", compiled: single, scalars: all },
        Variant { name: "without merging", compiled: apart, scalars: all },
        Variant { name: "without lazy rescaling", compiled: each, scalars: eager },
        Variant { name: "without scalar encoding", compiled: each, scalars: encoded },
        Variant { name: "none", compiled: Techniques { merge: false, complex: false }, scalars: none },
    ]
}

/// What one way took.
#[derive(Serialize)]
struct Row {
    variant: &'static str,
    seconds: f64,
    images: usize,
    images_per_second: f64,
    /// Time, in times that of all techniques.
    factor: f64,
    /// Largest difference of an output from that of all techniques, relative to the largest output.
    difference: f64,
}

/// A compiled network with keys and an encrypted batch.
struct Prepared {
    plan: Plan,
    client: Client,
    secret: SecretKey,
    server: Server,
    batch: Vec<BundleEntry>,
}

/// Runs the ablation on the samples of `data`, repeated to a full batch, and prints the table.
pub(super) fn run(model: &Path, data: &Path, as_json: bool) -> Result<()> {
    let graph = load(model)?;
    let machine = machine::this();
    let steps = Steps::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut wanted: Vec<Vec<f64>> = Vec::new();
    // A batch takes a gigabyte, so only one is there at a time.
    let mut prepared: Option<(Techniques, Prepared)> = None;
    let mut all: Option<Plan> = None;
    let mut grouped = variants();
    grouped[1..].sort_by_key(|v| (!v.compiled.complex, !v.compiled.merge));
    for variant in grouped {
        if prepared.as_ref().is_none_or(|(compiled, _)| *compiled != variant.compiled) {
            steps.begin("compiling, keys and encryption");
            drop(prepared.take());
            let own = prepare(&graph, model, data, variant.compiled)?;
            // Once for the caches and the memory.
            own.evaluate(ScalarOptions::default())?;
            all.get_or_insert_with(|| own.plan.clone());
            prepared = Some((variant.compiled, own));
        }
        let (_, own) = prepared.as_ref().context("every plan was prepared")?;
        steps.begin(variant.name);
        let (seconds, outputs) = own.evaluate(variant.scalars)?;
        if wanted.is_empty() {
            wanted.clone_from(&outputs);
        }
        let images = own.plan.batch();
        let first = rows.first().map_or(seconds / images as f64, |r: &Row| r.seconds / r.images as f64);
        rows.push(Row {
            variant: variant.name,
            seconds,
            images,
            images_per_second: images as f64 / seconds,
            factor: seconds / images as f64 / first,
            difference: difference(&wanted, &outputs),
        });
    }
    rows.sort_by_key(|row| variants().iter().position(|v| v.name == row.variant));
    drop(steps);
    let all = all.context("all techniques were measured")?;
    print(&if as_json {
        let parameters = &all.parameters;
        format!(
            "{:#}\n",
            json!({
                "machine": machine,
                "model": graph.name,
                "threads": rayon::current_num_threads(),
                "log_n": parameters.log_n,
                "predicted_seconds": all.report.seconds,
                "results": rows,
            })
        )
    } else {
        as_text(&machine, &all, &rows)
    })
}

fn prepare(graph: &Graph, model: &Path, data: &Path, compiled: Techniques) -> Result<Prepared> {
    let settings = Settings {
        mode: Mode::Throughput,
        no_merge: !compiled.merge,
        complex: if compiled.complex { ComplexPacking::Auto } else { ComplexPacking::Off },
        ..Settings::calibrated(data.to_owned())
    };
    let plan = settings.compile(graph, model, &mut |_| {})?.plan;
    let preprocess = plan.inputs.first().and_then(|i| i.preprocess.clone());
    let specs = specs(graph, preprocess.as_ref());
    let set = DataSet::open(data, &specs)?;
    ensure!(set.len() > 0, "{}: no samples", data.display());
    let images = (0..set.len().min(plan.batch())).map(|i| {
        let sample = tensors(&specs, set.sample(i)?)?;
        Ok(sample.iter().map(|t| t.values().to_vec()).collect())
    });
    let images: Vec<Vec<Vec<f64>>> = images.collect::<Result<_>>()?;
    let batch: Vec<&Vec<Vec<f64>>> = images.iter().cycle().take(plan.batch()).collect();
    let client = Client::new(plan.head(), None)?;
    let mut rng = SecretRng::from_os()?;
    let secret = client.generate_secret(&mut rng);
    let keys = client.generate_evaluation(&secret, &mut rng, &|_, _| {})?;
    let batch = client.encrypt_batch(&batch, EncryptionKey::Secret(&secret), &mut rng)?;
    let verified = Arc::new(Verified::new(plan.clone(), Insecure::Refuse)?);
    let context = server_context(&verified, None)?;
    let server = Server::new(verified, &context, Arc::new(keys), 0)?;
    server.backend().prepare()?;
    Ok(Prepared { plan, client, secret, server, batch })
}

impl Prepared {
    /// Seconds of an evaluation, from ciphertexts to ciphertexts, and the outputs of all images.
    fn evaluate(&self, scalars: ScalarOptions) -> Result<(f64, Vec<Vec<f64>>)> {
        let server = self.server.with_scalar_options(scalars)?;
        let start = Instant::now();
        let (outputs, _) = server.run(&self.batch, &mut |_| {})?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((seconds, self.client.decrypt_batch(0, &outputs, &self.secret)?))
    }
}

fn difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    // Batches are of different sizes; the shorter one has the first images of the other.
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let largest = a.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / largest.max(f64::MIN_POSITIVE)
}

fn as_text(machine: &Machine, plan: &Plan, rows: &[Row]) -> String {
    let heads =
        [("techniques", Align::Left), ("time", Align::Right), ("images", Align::Right), ("images/s", Align::Right)];
    let mut table = Table::new(&[&heads[..], &[("factor", Align::Right), ("difference", Align::Right)]].concat());
    for row in rows {
        table.row(vec![
            row.variant.to_owned(),
            format::seconds(row.seconds),
            row.images.to_string(),
            format!("{:.0}", row.images_per_second),
            format!("{:.2}", row.factor),
            format::small(row.difference),
        ]);
    }
    format!(
        "{}\n\n{}, {} images a run of all techniques, N = 2^{}, {}\n{}",
        machine::describe(machine),
        plan.model,
        plan.batch(),
        plan.parameters.log_n,
        format::count(rayon::current_num_threads(), "thread"),
        table.render()
    )
}
