//! `fhec explain`: what a plan does and what it will cost.

mod bootstraps;

use super::calibrate;
use crate::files::{self, Access, print};
use crate::format::{self, Align, Table, pairs};
use crate::plan_file;
use anyhow::Result;
use clap::Args;
use fhec_passes::pricing::price_plan;
use fhec_plan::verify::Verified;
use fhec_plan::{LayerReport, Op, Plan, Report};
use petgraph::dot::{Config, Dot, RankDir};
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `fhec explain`.
#[derive(Args)]
#[command(after_help = "Examples:
  fhec explain mnist.plan
  fhec explain mnist.plan --json | jq .totals
  fhec explain mnist.plan --dot | dot -Tsvg > mnist.svg
  fhec explain mnist.plan --listing
  fhec explain mnist.plan --head mnist.head
  fhec explain mnist.plan --cost-table costs.json

A head is all that keygen, encrypt and decrypt need of a plan; it holds no weights.

The figures are predictions for the first run of a process, on one thread of the machine that the cost
table was measured on, and the time in all for more threads too; the error of a layer is the standard deviation that encryption adds to its result.")]
pub(crate) struct Explain {
    /// The plan
    plan: PathBuf,
    /// Print JSON instead of tables
    #[arg(long, group = "form")]
    json: bool,
    /// Print a graph of the layers in the DOT language
    #[arg(long, group = "form")]
    dot: bool,
    /// Print the instructions, with the level and scale of every register
    #[arg(long, group = "form")]
    listing: bool,
    /// Write the plan's head for clients: parameters, keys, inputs and outputs, without the weights
    #[arg(long, group = "form", value_name = "FILE")]
    head: Option<PathBuf>,
    /// Predict times with these prices, from fhec calibrate, instead of those that the plan was compiled with
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listing", "head"])]
    cost_table: Option<PathBuf>,
    /// Predict the time in all on this many threads too; by default on as many as this machine has cores
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with_all = ["listing", "head", "dot"])]
    threads: Option<u16>,
}

impl Explain {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<()> {
        let plan = plan_file::open(&self.plan)?;
        if let Some(path) = &self.head {
            files::write(path, Access::Public, |out| Ok(plan.plan().write_head_to(out)?))?;
            return Ok(());
        }
        let report = self.report(&plan)?;
        print(&if self.json {
            format!("{:#}\n", as_json(&plan, &report, self.threads()))
        } else if self.dot {
            as_dot(plan.plan(), &report)
        } else if self.listing {
            fhec_plan::print::listing(plan.plan(), Some(plan.facts()))
        } else {
            as_text(&plan, &report, self.threads())
        })
    }

    /// Threads to predict the time on.
    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }

    /// The plan's report, with the times of the table that was given.
    fn report(&self, verified: &Verified) -> Result<Report> {
        let mut report = verified.plan().report.clone();
        if let Some(path) = &self.cost_table {
            let table = calibrate::read(Some(path))?;
            let price = price_plan(verified, &table.prices);
            report.seconds = price.seconds;
            report.sequential = table.prices.sequential;
            report.layers.resize(price.layers.len(), LayerReport::default());
            report.layers.iter_mut().zip(price.layers).for_each(|(layer, seconds)| layer.seconds = seconds);
        }
        Ok(report)
    }
}

/// Layers with their predicted figures; a plan may come without a report for them.
fn layers<'a>(plan: &'a Plan, report: &'a Report) -> impl Iterator<Item = (&'a fhec_plan::Layer, LayerReport)> {
    let reports = report.layers.iter().cloned().chain(std::iter::repeat(LayerReport::default()));
    plan.layers.iter().zip(reports)
}

fn levels(report: &LayerReport) -> String {
    if report.level_in == report.level_out {
        report.level_in.to_string()
    } else {
        format!("{}→{}", report.level_in, report.level_out)
    }
}

fn nonzero(n: u32) -> String {
    if n == 0 { "–".into() } else { n.to_string() }
}

fn as_text(verified: &Verified, report: &Report, threads: usize) -> String {
    let plan = verified.plan();
    let mut out = format!("{}, compiled by fhec {}\n\n", plan.model, plan.compiler);
    let heads = [
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("layout", Align::Left),
        ("level", Align::Right),
        ("degree", Align::Right),
        ("rotations", Align::Right),
        ("key switches", Align::Right),
        ("products", Align::Right),
        ("time", Align::Right),
        ("error", Align::Right),
        ("approximation", Align::Right),
    ];
    let mut table = Table::new(&heads);
    for (layer, r) in layers(plan, report) {
        table.row(vec![
            layer.name.clone(),
            layer.kind.clone(),
            r.layout.clone(),
            levels(&r),
            nonzero(r.degree),
            nonzero(r.rotations),
            nonzero(r.key_switches),
            nonzero(r.plaintext_products),
            if r.seconds == 0.0 { "–".into() } else { format::seconds(r.seconds) },
            format::small(r.error_std),
            format::small(r.approximation_rms),
        ]);
    }
    out.push_str(&table.render());
    // Writing to a string cannot fail.
    if !report.bootstraps.is_empty() {
        let _ = write!(out, "\n{}", bootstraps::table(verified, report));
    }
    let _ = write!(out, "\n{}", pairs(&totals(verified, report, threads)));
    if !report.notes.is_empty() {
        out.push_str("\nnotes\n");
        for note in &report.notes {
            let _ = writeln!(out, "  {note}");
        }
    }
    out
}

fn totals(verified: &Verified, r: &Report, threads: usize) -> Vec<(&'static str, String)> {
    let (plan, p) = (verified.plan(), &verified.plan().parameters);
    let asked = p.security.map_or("none asked: a test plan".into(), |s| format!("{} asked", s.bits()));
    let for_bootstraps = verified.facts().bootstrap_elements().len();
    let relin = if plan.keys.relin.is_some() { " and products" } else { "" };
    let composed = match plan.keys.composed.len() {
        0 => String::new(),
        count => format!("; {count} more rotations are made of two"),
    };
    let low: usize = plan.keys.low.values().map(|keys| keys.galois.len()).sum();
    let own = match (plan.keys.raised.len(), plan.keys.low.len()) {
        (0, 0) => String::new(),
        (raised, 0) => format!("; {raised} smaller keys lead from the sparse secret"),
        (raised, rings) => {
            let rings = format::count(rings, "smaller ring");
            format!("; {raised} smaller keys lead from the sparse secret, and {low} serve bootstraps in {rings}")
        }
    };
    let mut rows = Vec::new();
    if plan.is_batched() {
        let each = if plan.complex { "two" } else { "one" };
        rows.push(("mode", format!("throughput: a run evaluates up to {} images, {each} a slot", plan.batch())));
    }
    rows.extend([
        (
            "parameters",
            format!(
                "N = 2^{}, {} chain and {} special primes, log2(QP) = {:.1}, {} key-switching digits",
                p.log_n,
                p.q.len(),
                p.p.len(),
                p.log_qp(),
                p.digits.len()
            ),
        ),
        ("security", format!("{:.0} bits ({asked})", r.security_bits)),
        (
            "evaluation keys",
            format!(
                "{} ({} in memory), for {} rotations{}{relin}{composed}{own}",
                format::bytes(r.key_bytes_disk),
                format::bytes(r.key_bytes_memory),
                plan.keys.galois.len(),
                if for_bootstraps > 0 { format!(" ({for_bootstraps} of them for bootstraps)") } else { String::new() },
            ),
        ),
        (
            "rotations",
            format!(
                "{} in the layers, {} key switches",
                r.layers.iter().map(|l| u64::from(l.rotations)).sum::<u64>(),
                r.layers.iter().map(|l| u64::from(l.key_switches)).sum::<u64>()
            ),
        ),
    ]);
    for input in &plan.inputs {
        let (shape, n) = (format::shape(&input.shape), input.layout.ciphertexts);
        let (lo, hi) = input.range;
        rows.push((
            "input",
            format!("{} {shape} in {}, values {lo} … {hi}", input.name, format::count(n, "ciphertext")),
        ));
    }
    for output in &plan.outputs {
        let (shape, n) = (format::shape(&output.shape), output.layout.ciphertexts);
        let left = if output.postprocess.is_empty() { "" } else { ", softmax left to the client" };
        rows.push(("output", format!("{} {shape} in {}{left}", output.name, format::count(n, "ciphertext"))));
    }
    if plan.rounds() > 1 {
        rows.push(("rounds", format::count(plan.rounds() as usize, "round")));
        for round in rounds(verified) {
            rows.push(("", round.as_text()));
        }
        if let Some(bytes) = client_values(plan) {
            rows.push((
                "client's values",
                format!("{} for {} images, in memory or on disk", format::bytes(bytes), plan.batch()),
            ));
        }
    }
    rows.extend([
        ("input bytes", format::bytes(r.input_bytes)),
        ("output bytes", format::bytes(r.output_bytes)),
        ("weights", format::bytes(plan.weights.bytes().len() as u64)),
        (
            "peak memory",
            format!(
                "{}, and {} more where weights and keys stay ready for several inputs",
                format::bytes(r.peak_memory),
                format::bytes(plan.kept_bytes())
            ),
        ),
        ("time", format!("{}{}", format::on_threads(r, threads), format::batch(plan.batch(), r.seconds))),
        (
            "precision",
            format!(
                "{:.1} bits of the output's range ({:.1} for inputs under the public key)",
                r.output_bits, r.output_bits_public
            ),
        ),
        ("hash", plan_file::short_hash(verified.hash())),
    ]);
    rows
}

/// Most bytes of values that the client of a full batch holds at once.
fn client_values(plan: &Plan) -> Option<u64> {
    let aided = plan.aided.as_ref().filter(|_| plan.is_batched())?;
    Some(aided.peak_elements().saturating_mul(8 * plan.batch() as u64))
}

/// What one round of a client-aided plan takes.
struct Round {
    number: u32,
    sent: u64,
    received: u64,
    seconds: f64,
    /// Client functions before it.
    functions: Vec<&'static str>,
}

impl Round {
    fn as_text(&self) -> String {
        let functions =
            if self.functions.is_empty() { String::new() } else { format!("{}; ", self.functions.join(", ")) };
        format!(
            "{}: {functions}{} sent, {} back, {}",
            self.number,
            format::bytes(self.sent),
            format::bytes(self.received),
            format::seconds(self.seconds)
        )
    }
}

/// The rounds of a plan: bytes by the sizes of ciphertexts, times by those of layers.
fn rounds(verified: &Verified) -> Vec<Round> {
    let (plan, p) = (verified.plan(), &verified.plan().parameters);
    // Bytes of one polynomial; what is fresh is half a seed.
    let bytes = |level: usize, n: usize| {
        let bits: u32 = p.q[..=level].iter().map(|q| u64::BITS - q.leading_zeros()).sum();
        ((u64::from(bits) << p.log_n) / 8) * n as u64
    };
    let known = plan.aided.as_ref().map_or_else(Vec::new, |aided| aided.available());
    // A layer counts to the round of its last instruction.
    let mut round_of = vec![0u32; plan.layers.len()];
    for (round, range) in verified.facts().rounds().iter().enumerate() {
        for instruction in &plan.instructions[range.clone()] {
            round_of[instruction.layer.index()] = round as u32;
        }
    }
    let of = |number: u32| Round {
        number,
        sent: (0..plan.inputs.len())
            .filter(|&i| plan.input_round(i) == number)
            .map(|i| bytes(plan.inputs[i].level, plan.inputs[i].layout.ciphertexts))
            .sum(),
        received: (0..plan.outputs.len())
            .filter(|&i| plan.output_round(i) == number)
            .map(|i| 2 * bytes(plan.outputs[i].level, plan.outputs[i].layout.ciphertexts))
            .sum(),
        seconds: layers(plan, &plan.report)
            .zip(&round_of)
            .filter(|(_, r)| **r == number)
            .map(|((_, l), _)| l.seconds)
            .sum(),
        functions: plan.aided.iter().flat_map(|a| &a.steps).zip(&known).fold(vec![], |mut names, (step, &round)| {
            let own = round == number && !step.operands.is_empty() && !names.contains(&step.op.name());
            names.extend(own.then(|| step.op.name()));
            names
        }),
    };
    (0..plan.rounds()).map(of).collect()
}

fn as_json(verified: &Verified, r: &Report, threads: usize) -> Value {
    let (plan, p) = (verified.plan(), &verified.plan().parameters);
    let layers: Vec<Value> = layers(plan, r)
        .map(|(layer, r)| {
            json!({
                "name": layer.name, "kind": layer.kind, "layout": r.layout,
                "level_in": r.level_in, "level_out": r.level_out, "degree": r.degree,
                "rotations": r.rotations, "key_switches": r.key_switches,
                "plaintext_products": r.plaintext_products, "seconds": r.seconds,
                "error_std": r.error_std, "approximation_rms": r.approximation_rms,
            })
        })
        .collect();
    let port = |name: &str, shape: &[usize], ciphertexts: usize, level: usize, range: (f64, f64)| json!({ "name": name, "shape": shape, "ciphertexts": ciphertexts, "level": level, "range": [range.0, range.1] });
    let inputs: Vec<Value> =
        plan.inputs.iter().map(|i| port(&i.name, &i.shape, i.layout.ciphertexts, i.level, i.range)).collect();
    let outputs: Vec<Value> = plan
        .outputs
        .iter()
        .map(|o| {
            let mut value = port(&o.name, &o.shape, o.layout.ciphertexts, o.level, o.range);
            value["error_std"] = json!(o.error_std);
            value["softmax"] = json!(!o.postprocess.is_empty());
            value
        })
        .collect();
    json!({
        "model": plan.model,
        "compiler": plan.compiler,
        "hash": verified.hash().iter().map(|b| format!("{b:02x}")).collect::<String>(),
        "parameters": {
            "log_n": p.log_n, "q": p.q, "p": p.p, "digits": p.digits, "log_qp": p.log_qp(),
            "security_asked": p.security.map(|s| s.bits()),
        },
        "keys": {
            "relinearisation_level": plan.keys.relin, "rotations": plan.keys.galois.len(),
            "composed": plan.keys.composed.len(), "raised": plan.keys.raised.len(),
            "low_rings": plan.keys.low.iter().map(|(log_n, keys)| json!({
                "log_n": log_n, "level": keys.level, "rotations": keys.galois.len(),
            })).collect::<Vec<_>>(),
        },
        "inputs": inputs,
        "outputs": outputs,
        "layers": layers,
        "bootstraps": bootstraps::json(verified, r),
        "client_value_bytes": client_values(plan),
        "rounds": rounds(verified).iter().map(|r| json!({
            "sent_bytes": r.sent, "received_bytes": r.received, "seconds": r.seconds, "functions": r.functions,
        })).collect::<Vec<_>>(),
        "totals": {
            "security_bits": r.security_bits, "seconds": r.seconds,
            "threads": threads, "seconds_on_threads": r.seconds_on(threads), "peak_memory": r.peak_memory,
            "key_bytes_disk": r.key_bytes_disk, "key_bytes_memory": r.key_bytes_memory,
            "input_bytes": r.input_bytes, "output_bytes": r.output_bytes,
            "plaintext_budget": r.plaintext_budget, "kept_bytes": plan.kept_bytes(), "output_bits": r.output_bits,
            "output_bits_public": r.output_bits_public,
            "images": plan.batch(), "images_a_slot": plan.images_per_slot(), "weight_bytes": plan.weights.bytes().len(), "instructions": plan.instructions.len(),
        },
        "notes": r.notes,
    })
}

/// A node of the drawing, in the order of drawing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Input(usize),
    Layer(usize),
    Output(usize),
}

/// A box per layer, an arrow for every value that goes from one to another.
fn as_dot(plan: &Plan, report: &Report) -> String {
    let mut writer = BTreeMap::new();
    let mut edges = BTreeSet::new();
    let mut used = BTreeSet::new();
    for instruction in &plan.instructions {
        let own = match &instruction.op {
            Op::Input(i) => Mark::Input(*i),
            Op::Output { output, .. } => Mark::Output(*output),
            _ => Mark::Layer(instruction.layer.index()),
        };
        used.insert(own);
        for source in instruction.op.sources() {
            if let Some(&from) = writer.get(&source).filter(|&&from| from != own) {
                edges.insert((from, own));
            }
        }
        writer.insert(instruction.dst, own);
    }
    let ellipse = |name: &str, shape: &[usize]| ("ellipse", format!("{name}\n{}", format::shape(shape)));
    let inputs = plan.inputs.iter().enumerate().map(|(i, v)| (Mark::Input(i), ellipse(&v.name, &v.shape)));
    let outputs = plan.outputs.iter().enumerate().map(|(i, v)| (Mark::Output(i), ellipse(&v.name, &v.shape)));
    let boxes =
        layers(plan, report).enumerate().filter(|(i, _)| used.contains(&Mark::Layer(*i))).map(|(i, (layer, r))| {
            let degree = if r.degree > 0 { format!(", degree {}", r.degree) } else { String::new() };
            let figures = format!("level {}, {}{degree}", levels(&r), format::seconds(r.seconds));
            (Mark::Layer(i), ("box", format!("{}\n{}\n{figures}", layer.name, layer.kind)))
        });
    let mut graph = DiGraph::new();
    let nodes: BTreeMap<Mark, NodeIndex> =
        inputs.chain(boxes).chain(outputs).map(|(mark, drawn)| (mark, graph.add_node(drawn))).collect();
    for (from, to) in edges {
        if let (Some(&from), Some(&to)) = (nodes.get(&from), nodes.get(&to)) {
            graph.add_edge(from, to, ());
        }
    }
    let config = [Config::RankDir(RankDir::TB), Config::NodeNoLabel, Config::EdgeNoLabel];
    let drawing = Dot::with_attr_getters(&graph, &config, &|_, _| String::new(), &|_, (_, (shape, label))| {
        format!("shape={shape}, fontname=\"sans-serif\", label={}", quote(label))
    });
    format!("{drawing:?}")
}

/// A string of the DOT language.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        assert_eq!(quote("a\"]; b\\\nc"), "\"a\\\"]; b\\\\\\nc\"");
    }
}
