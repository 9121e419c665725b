//! `fhec bench --ablation`: what each technique of throughput mode saves, on a real network under encryption.

use super::compile::{Mode, Settings, load, specs, tensors};
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
    merge: bool,
    scalars: ScalarOptions,
}

/// All techniques, each one missing, and none.
fn variants() -> [Variant; 5] {
    let all = ScalarOptions::default();
    let (eager, encoded) =
        (ScalarOptions { lazy_rescaling: false, ..all }, ScalarOptions { scalar_encoding: false, ..all });
    let none = ScalarOptions { lazy_rescaling: false, scalar_encoding: false };
    [
        Variant { name: "all", merge: true, scalars: all },
        Variant { name: "without merging", merge: false, scalars: all },
        Variant { name: "without lazy rescaling", merge: true, scalars: eager },
        Variant { name: "without scalar encoding", merge: true, scalars: encoded },
        Variant { name: "none", merge: false, scalars: none },
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
    let mut prepared: Vec<(bool, Prepared)> = Vec::new();
    for variant in variants() {
        if prepared.iter().all(|(merge, _)| *merge != variant.merge) {
            steps.begin("compiling, keys and encryption");
            let own = prepare(&graph, model, data, variant.merge)?;
            // Once for the caches and the memory.
            own.evaluate(ScalarOptions::default())?;
            prepared.push((variant.merge, own));
        }
        let found = prepared.iter().find(|(merge, _)| *merge == variant.merge);
        let (_, own) = found.context("every plan was prepared")?;
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
    drop(steps);
    let all = &prepared[0].1;
    print(&if as_json {
        let parameters = &all.plan.parameters;
        format!(
            "{:#}\n",
            json!({
                "machine": machine,
                "model": graph.name,
                "threads": rayon::current_num_threads(),
                "log_n": parameters.log_n,
                "predicted_seconds": all.plan.report.seconds,
                "results": rows,
            })
        )
    } else {
        as_text(&machine, &all.plan, &rows)
    })
}

fn prepare(graph: &Graph, model: &Path, data: &Path, merge: bool) -> Result<Prepared> {
    let settings = Settings { mode: Mode::Throughput, no_merge: !merge, ..Settings::calibrated(data.to_owned()) };
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
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let largest = a.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / largest.max(f64::MIN_POSITIVE)
}

fn as_text(machine: &Machine, plan: &Plan, rows: &[Row]) -> String {
    let heads = [("techniques", Align::Left), ("time", Align::Right), ("images/s", Align::Right)];
    let mut table = Table::new(&[&heads[..], &[("factor", Align::Right), ("difference", Align::Right)]].concat());
    for row in rows {
        table.row(vec![
            row.variant.to_owned(),
            format::seconds(row.seconds),
            format!("{:.0}", row.images_per_second),
            format!("{:.2}", row.factor),
            format::small(row.difference),
        ]);
    }
    format!(
        "{}\n\n{}, {} images a run, N = 2^{}, {}\n{}",
        machine::describe(machine),
        plan.model,
        plan.batch(),
        plan.parameters.log_n,
        format::count(rayon::current_num_threads(), "thread"),
        table.render()
    )
}
