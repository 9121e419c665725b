//! Seconds and bytes of a whole graph under given parameters.

use crate::cost::{CostTable, Prices};
use crate::noise::Model;
use crate::parameters::Goal;
use crate::shape::Shape;
use fhec_ir::he::{Op, ValueId};
use fhec_plan::{KeyManifest, bootstrap_slots};
use std::collections::BTreeSet;

/// Most bytes of encoded plaintexts kept between runs when no memory budget is given.
const DEFAULT_CACHE: u64 = 512 << 20;

/// What one evaluation costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Price {
    /// Seconds of every node, encoding of its plaintexts included.
    pub nodes: Vec<f64>,
    /// The part of all seconds that encodes plaintexts; it falls away while they stay cached.
    pub encode: f64,
    /// Bytes of the keys in memory.
    pub keys: u64,
    /// Bytes of all encoded plaintexts together.
    pub plaintexts: u64,
    /// Bytes needed besides the plaintext cache: process, keys, weights, ciphertexts and scratch at the worst moment.
    pub fixed: u64,
}

impl Price {
    /// Seconds of one evaluation.
    pub fn seconds(&self) -> f64 {
        self.nodes.iter().sum()
    }

    /// Seconds that decide between parameters.
    pub fn objective(&self, goal: Goal, table: &CostTable) -> f64 {
        match goal {
            Goal::Latency => self.seconds() + self.keys as f64 * table.read_byte * 1e-9,
            Goal::Throughput => self.seconds() - self.encode,
        }
    }

    /// Bytes for cached plaintexts under a memory budget; `None` where the rest alone exceeds it.
    pub fn cache(&self, budget: Option<u64>) -> Option<u64> {
        match budget {
            None => Some(self.plaintexts.min(DEFAULT_CACHE)),
            Some(budget) => Some(budget.checked_sub(self.fixed)?.min(self.plaintexts)),
        }
    }
}

/// Prices the model's graph.
pub fn price(model: &Model<'_>, keys: &KeyManifest, shape: &Shape, table: &CostTable) -> Price {
    let prices = table.prices(shape);
    let graph = model.graph();
    let mut price = Price::default();
    let mut scratch = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = node_price(model, &prices, id);
        price.nodes.push(node.seconds + node.encode);
        price.encode += node.encode;
        price.plaintexts += node.plaintexts;
        scratch.push(node.scratch);
    }
    price.keys = keys.galois.values().chain(&keys.relin).map(|&level| prices.key_bytes(level)).sum();
    price.fixed = table.base_memory + held_bytes(model, keys, &prices) + live_bytes(model, &prices, &scratch);
    price
}

/// Bytes that a run holds from its beginning to its end, and the weights that one map needs as numbers.
fn held_bytes(model: &Model<'_>, keys: &KeyManifest, prices: &Prices<'_>) -> u64 {
    let graph = model.graph();
    // Uniform halves of Galois keys are made when they are used, unless bootstraps use them again and again.
    let bootstraps = graph.nodes.iter().any(|n| matches!(n.op, Op::Bootstrap { .. }));
    let halves = if bootstraps { 2 } else { 1 };
    let galois: u64 = keys.galois.values().map(|&level| prices.key_bytes(level) / 2 * halves).sum();
    let relin: u64 = keys.relin.iter().map(|&level| prices.key_bytes(level)).sum();
    let weights: u64 = graph.tensors.iter().map(|t| 8 * t.len() as u64).sum();
    let diagonals: u64 = model.matrices().iter().map(|m| m.diagonals.bytes() as u64).sum();
    let loaded = |m: &fhec_plan::Matrix| {
        let tensors: BTreeSet<_> = m.nests.iter().filter_map(|n| n.tensor).collect();
        tensors.iter().map(|t| 8 * graph.tensors[t.index()].len() as u64).sum::<u64>()
    };
    let largest = graph.matrices.iter().map(loaded).max().unwrap_or(0);
    prices.table_bytes() + galois + relin + weights + diagonals + largest
}

/// One node's share.
#[derive(Default)]
struct NodePrice {
    seconds: f64,
    encode: f64,
    plaintexts: u64,
    scratch: u64,
}

fn node_price(model: &Model<'_>, prices: &Prices<'_>, id: ValueId) -> NodePrice {
    let graph = model.graph();
    let node = graph.node(id);
    let count = node.layout.ciphertexts as f64;
    let Some(operand) = node.inputs.first() else { return NodePrice::default() };
    let level = model.levels()[operand.index()];
    let simple = |each: f64| NodePrice { seconds: count * each, ..NodePrice::default() };
    let vector = |id: fhec_plan::VectorId, seconds: f64| {
        let v = &graph.vectors[id.index()];
        let encode = v.ciphertexts as f64 * prices.encode_plain(v.period, level);
        NodePrice { seconds, encode, ..NodePrice::default() }
    };
    match &node.op {
        Op::Input(_) => NodePrice::default(),
        Op::LinearMap { terms, bias, .. } => {
            let mut sum = bias.map_or_else(NodePrice::default, |b| vector(b, 0.0));
            for group in &model.groups()[id.index()] {
                let matrix = &graph.matrices[terms[group.terms[0]].matrix.index()];
                let (period, outputs) = (matrix.diagonal_period(), matrix.out_ciphertexts);
                sum.seconds += prices.linear(level, group, outputs);
                sum.encode += prices.encode_diagonals(level, group, period);
                sum.plaintexts += prices.diagonal_bytes(level, group, period);
                sum.scratch = sum.scratch.max(prices.linear_scratch(level, group, outputs, period));
            }
            sum
        }
        Op::Polynomial { .. } => match model.plan(id) {
            Some(plan) => NodePrice {
                seconds: count * prices.polynomial(level, plan),
                scratch: (plan.powers().len() + plan.nodes().len()) as u64 * prices.ciphertext_bytes(level),
                ..NodePrice::default()
            },
            None => NodePrice::default(),
        },
        Op::Add | Op::Sub | Op::Negate | Op::LevelDrop(_) => simple(prices.elementwise(level, 2)),
        Op::Mul => simple(prices.multiply(level)),
        Op::MulScalar { .. } => simple(prices.elementwise(level, 2)),
        Op::AddScalar(_) => simple(prices.elementwise(level, 1)),
        Op::MulVector { vector: v, .. } => vector(*v, count * prices.elementwise(level, 2)),
        Op::AddVector(v) => vector(*v, count * prices.elementwise(level, 1)),
        Op::Rotate(_) => simple(prices.rotate(level)),
        Op::Bootstrap { level, .. } => NodePrice {
            seconds: prices.bootstrap(node.layout.ciphertexts, bootstrap_slots(node.layout.period), *level),
            ..NodePrice::default()
        },
        Op::Relinearise if model.rescaled_at_once(id) => simple(prices.relinearise_rescale(level)),
        Op::Relinearise => simple(prices.relinearise(level)),
        Op::Rescale if model.rescaled_at_once(*operand) => simple(0.0),
        Op::Rescale => simple(prices.rescale(level, 2)),
    }
}

/// Most bytes of live ciphertexts and scratch at any node.
fn live_bytes(model: &Model<'_>, prices: &Prices<'_>, scratch: &[u64]) -> u64 {
    let graph = model.graph();
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for id in graph.ids() {
        graph.node(id).inputs.iter().for_each(|v| last_use[v.index()] = id.index());
    }
    graph.outputs.iter().for_each(|o| last_use[o.value.index()] = graph.nodes.len());
    let bytes = |i: usize| graph.nodes[i].layout.ciphertexts as u64 * prices.ciphertext_bytes(model.levels()[i]);
    (0..graph.nodes.len())
        .map(|now| {
            let live: u64 = (0..=now).filter(|&i| last_use[i] >= now).map(bytes).sum();
            live + scratch[now]
        })
        .max()
        .unwrap_or(0)
}
