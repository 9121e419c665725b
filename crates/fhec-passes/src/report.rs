//! Fills the plan's report: what the compiler predicts, in total and for each layer.

use crate::cost::{CostTable, Prices};
use crate::emit::layers;
use crate::noise::Model;
use crate::parameters::Selected;
use crate::shape::Shape;
use fhec_ir::he::{Op, ValueId};
use fhec_math::bootstrap::{LowKeys, LowRing};
use fhec_math::galois_element;
use fhec_plan::{BootstrapReport, KeyManifest, LayerReport, LayerValue, Parameters, Reg, Report};
use std::collections::BTreeMap;

/// What the report takes from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Root mean square error of each approximated activation, by the origin's text.
    pub approximations: BTreeMap<String, f64>,
    /// What the user must know.
    pub notes: Vec<String>,
    /// Memory that an evaluation may use, bytes.
    pub memory_budget: Option<u64>,
    /// Standard deviation of the error of every value.
    pub errors: Vec<f64>,
    /// For every bootstrap, in the order of the nodes, how many seconds more the best placement without it takes, and what is
    /// bootstrapped there instead.
    pub alternatives: Vec<Option<(f64, Vec<ValueId>)>>,
}

/// The report of a compiled graph.
pub fn report(
    model: &Model<'_>,
    selected: &Selected,
    keys: &KeyManifest,
    table: &CostTable,
    context: &Context,
) -> Report {
    let shape = Shape::of(&selected.parameters);
    let prices = table.prices(&shape);
    let price = &selected.price;
    let cache = price.cache(context.memory_budget).unwrap_or(0);
    let graph = model.graph();
    let polynomial_bytes = |id: ValueId| {
        let level = model.levels()[id.index()];
        graph.node(id).layout.ciphertexts as u64 * packed_bytes(&selected.parameters, level)
    };
    // Half of a fresh ciphertext is a seed.
    let inputs = graph.ids().filter(|&id| matches!(graph.node(id).op, Op::Input(_)));
    let input_bytes = inputs.map(polynomial_bytes).sum();
    let output_bytes = graph.outputs.iter().map(|o| 2 * polynomial_bytes(o.value)).sum();
    let key_levels = || keys.galois.values().chain(&keys.relin);
    let encapsulation = match keys.raised.len() {
        0 => 0,
        raised => prices.encapsulation_bytes(raised, &keys.low),
    };
    Report {
        security_bits: selected.parameters.security_bits(),
        seconds: price.seconds(),
        sequential: table.sequential,
        peak_memory: price.fixed,
        keeps_keys: price.keeps_keys,
        freed_bytes: price.freed,
        key_bytes_disk: key_file_bytes(&selected.parameters, &shape, keys),
        key_bytes_memory: key_levels().map(|&level| prices.key_bytes(level)).sum::<u64>() + encapsulation,
        input_bytes,
        output_bytes,
        plaintext_budget: cache,
        output_bits: selected.prediction.bits,
        output_bits_public: selected.prediction.public_bits,
        layers: layer_reports(model, selected, context),
        notes: context.notes.iter().cloned().chain(lazy_rescaling(model, selected, &prices)).collect(),
        bootstraps: bootstrap_reports(model, selected, context),
    }
}

/// What rescaling sums instead of products saves where every weight is a scalar (nGraph-HE2 §4.1).
fn lazy_rescaling(model: &Model<'_>, selected: &Selected, prices: &Prices<'_>) -> Option<String> {
    let graph = model.graph();
    let (mut products, mut outputs, mut saved) = (0, 0, 0.0);
    for id in graph.ids().filter(|&id| graph.node(id).layout.slots == 1) {
        let Op::LinearMap { terms, .. } = &graph.node(id).op else { continue };
        let own: usize = terms.iter().map(|t| model.matrices()[t.matrix.index()].products).sum();
        let sums = graph.node(id).layout.ciphertexts;
        let level = model.levels()[graph.node(id).inputs[0].index()];
        products += own;
        outputs += sums;
        saved += own.saturating_sub(sums) as f64 * prices.rescale(level, 2);
    }
    let seconds = selected.price.seconds();
    (products > 0).then(|| {
        format!(
            "lazy rescaling: {outputs} rescales of sums instead of {products} of products; predicted time {:.3} s -> {seconds:.3} s",
            seconds + saved
        )
    })
}

fn bootstrap_reports(model: &Model<'_>, selected: &Selected, context: &Context) -> Vec<BootstrapReport> {
    let graph = model.graph();
    let bootstraps = graph.ids().filter(|&id| matches!(graph.node(id).op, Op::Bootstrap { .. }));
    let alternatives = context.alternatives.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    let report = |(id, other): (ValueId, Option<&(f64, Vec<ValueId>)>)| BootstrapReport {
        reg: Reg(id.0),
        level_in: model.levels()[graph.node(id).inputs[0].index()] as u32,
        level_out: model.levels()[id.index()] as u32,
        seconds: selected.price.nodes[id.index()],
        without: other.map(|(seconds, _)| *seconds),
        instead: other.iter().flat_map(|(_, values)| values).map(|id| Reg(id.0)).collect(),
    };
    bootstraps.zip(alternatives).map(report).collect()
}

/// Bytes of the evaluation keys in a file, but for its head and manifest: half of each is a seed.
fn key_file_bytes(parameters: &Parameters, shape: &Shape, keys: &KeyManifest) -> u64 {
    let p = |count: usize| parameters.p[..count].iter();
    let key = |shape: &Shape, level: usize| {
        let limbs = parameters.q[..=level].iter().chain(p(shape.special_at(level)));
        32 + shape.digits_at(level) as u64 * limb_bytes(limbs, shape.log_n)
    };
    let switching: u64 = keys.galois.values().chain(&keys.relin).map(|&level| key(shape, level)).sum();
    if keys.raised.is_empty() {
        return switching;
    }
    let to_sparse = 32 + limb_bytes(parameters.q[..1].iter().chain(p(1)), parameters.log_n);
    let raised = 32 + limb_bytes(parameters.q.iter().chain(p(1)), parameters.log_n);
    let ring = |(&log_n, low): (&u32, &LowKeys)| {
        let ring = LowRing { log_n, level: low.level };
        let key = |log_n: u32| key(&shape.low(ring, log_n), ring.level);
        to_sparse + key(parameters.log_n) + low.galois.len() as u64 * key(log_n)
    };
    switching + to_sparse + keys.raised.len() as u64 * raised + keys.low.iter().map(ring).sum::<u64>()
}

/// Bytes of one polynomial in a file over the first primes of the chain.
fn packed_bytes(parameters: &Parameters, level: usize) -> u64 {
    limb_bytes(parameters.q[..=level].iter(), parameters.log_n)
}

/// Bytes of limbs in a file, where every residue has as many bits as its prime.
fn limb_bytes<'a>(primes: impl Iterator<Item = &'a u64>, log_n: u32) -> u64 {
    let bits: u32 = primes.map(|p| u64::BITS - p.leading_zeros()).sum();
    (u64::from(bits) << log_n) / 8
}

fn layer_reports(model: &Model<'_>, selected: &Selected, context: &Context) -> Vec<LayerReport> {
    let graph = model.graph();
    let (layers, layer_of) = layers(graph);
    let mut reports = vec![None::<LayerReport>; layers.len()];
    for id in graph.ids() {
        let node = graph.node(id);
        let level = model.levels()[id.index()];
        let operand_level = node.inputs.first().map_or(level, |v| model.levels()[v.index()]);
        let report = reports[layer_of[id.index()].index()]
            .get_or_insert_with(|| LayerReport { level_in: operand_level as u32, ..LayerReport::default() });
        report.layout = node.layout.describe();
        // Registers are numbered as nodes are; see `emit`.
        report.value = Some(LayerValue { reg: Reg(id.0), layout: node.layout.clone() });
        report.level_out = level as u32;
        report.seconds += selected.price.nodes[id.index()];
        report.error_std = context.errors.get(id.index()).copied().unwrap_or(0.0);
        let ciphertexts = node.layout.ciphertexts as u32;
        match &node.op {
            Op::LinearMap { terms, .. } => {
                for group in &model.groups()[id.index()] {
                    let folds = group.fold.len() as u32 * ciphertexts;
                    let switches = (group.bsgs.baby_switches() + group.bsgs.giant_switches()) as u32 + folds;
                    report.rotations += switches;
                    let twice = model.keys().composed_in(group, selected.parameters.log_n);
                    let twice = (twice.babies + twice.giants) as u32 + twice.folds as u32 * ciphertexts;
                    report.key_switches += switches + twice;
                    let nonzero = |&t: &usize| model.matrices()[terms[t].matrix.index()].products;
                    let batched = node.layout.slots == 1;
                    let products = if batched { group.terms.iter().map(nonzero).sum() } else { group.bsgs.products() };
                    report.plaintext_products += products as u32;
                }
            }
            Op::Polynomial { poly, .. } => {
                let c = &graph.polynomials[poly.index()].chebyshev;
                report.degree = report.degree.max(c.iter().rposition(|&c| c != 0.0).unwrap_or(0) as u32);
                let switches = model.plan(id).map_or(0, |p| p.cost().relinearisations);
                report.key_switches += switches as u32 * ciphertexts;
            }
            Op::Mul => {
                report.degree = report.degree.max(2);
                if graph.complex {
                    let conjugated = if node.inputs[0] == node.inputs[1] { 1 } else { 2 };
                    report.rotations += conjugated * ciphertexts;
                    report.key_switches += conjugated * ciphertexts;
                }
            }
            Op::MulVector { .. } => report.plaintext_products += ciphertexts,
            Op::Relinearise => report.key_switches += ciphertexts,
            Op::Rotate(steps) => {
                let element = galois_element(*steps, selected.parameters.log_n);
                let switches = if model.keys().composed.contains_key(&element) { 2 } else { 1 };
                report.rotations += ciphertexts;
                report.key_switches += switches * ciphertexts;
            }
            _ => {}
        }
    }
    layers
        .iter()
        .zip(reports)
        .map(|(layer, report)| LayerReport {
            approximation_rms: context.approximations.get(&layer.name).copied().unwrap_or(0.0),
            ..report.unwrap_or_default()
        })
        .collect()
}
