//! Seconds and bytes of a whole graph under given parameters, or of a plan that exists already.
//!
//! Graph and plan are brought to one form, a list of items, so that a plan costs what its graph was said to cost.

mod items;

use crate::bootstrap_price::Circuit;
use crate::cost::{CostTable, Prices};
use crate::matrices::MatrixInfo;
use crate::noise::Model;
use crate::parameters::Goal;
use crate::shape::Shape;
use fhec_ir::he::{Op, ValueId};
use fhec_math::buffer::POOL_BYTES;
use fhec_math::galois_element;
use fhec_plan::stream::{CHUNK, TILE};
use fhec_plan::verify::Verified;
use fhec_plan::{KeyManifest, Matrix, Vector};
pub(crate) use items::alike;
use items::{Group, Item, Work, graph_items, plan_items, work};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of code, of the allocator and of small tables that a run comes to touch.
const PROCESS: u64 = 12 << 20;
/// Bytes of a weight that is a scalar, ready for use.
const SCALAR_BYTES: u64 = 20;
/// Most bytes of encoded plaintexts kept between runs when no memory budget is given.
const DEFAULT_CACHE: u64 = 512 << 20;

/// What one evaluation costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Price {
    /// Seconds of every node, encoding of its plaintexts and first use of memory included.
    pub nodes: Vec<f64>,
    /// The part of all seconds that encodes plaintexts; it falls away while they stay cached.
    pub encode: f64,
    /// The part of all seconds in which the system hands out memory; only a process's first evaluation pays it.
    pub touch: f64,
    /// Bytes of the keys in memory.
    pub keys: u64,
    /// Bytes of all encoded plaintexts together.
    pub plaintexts: u64,
    /// Bytes needed besides the plaintext cache: process, keys, weights, ciphertexts and scratch at the worst moment.
    pub fixed: u64,
    /// The same where ciphertexts that are not in use can be on disk: less than [`fixed`](Self::fixed) where images share them.
    pub least: u64,
    /// The part that does not depend on ciphertexts: process, keys, weights.
    pub besides: u64,
    /// Whether the uniform halves of Galois keys are kept; otherwise they are made at every use, which takes half of the memory.
    pub keeps_keys: bool,
    /// With a memory budget: bytes of freed blocks that the engine may keep beyond what was ever in use at once. They are part of
    /// [`fixed`](Self::fixed), and of [`least`](Self::least) only where images share ciphertexts.
    pub freed: Option<u64>,
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
            Goal::Throughput => self.seconds() - self.encode - self.touch,
        }
    }

    /// Adds what making the uniform halves of keys at every use takes, by node.
    fn add_making(&mut self, expand: &[f64]) {
        self.nodes.iter_mut().zip(expand).for_each(|(node, expand)| *node += expand);
        self.encode += expand.iter().sum::<f64>();
    }

    /// Bytes for cached plaintexts under a memory budget; `None` where the rest alone exceeds it.
    pub fn cache(&self, budget: Option<u64>) -> Option<u64> {
        match budget {
            None => Some(self.plaintexts.min(DEFAULT_CACHE)),
            Some(budget) if budget < self.fixed => (budget >= self.least).then_some(0),
            Some(budget) => Some((budget - self.fixed).min(self.plaintexts)),
        }
    }
}

/// Levels of a chain with which freed blocks come to fill all of the engine's pool.
const SIZES: u64 = 32;
/// A run without bootstraps makes the uniform halves of keys at every use, unless keeping them brings the time of a process below this
/// part of it.
const WORTH_KEEPING: f64 = 0.85;

/// Prices the model's graph, for a run in `budget` bytes.
pub fn price(model: &Model<'_>, keys: &KeyManifest, shape: &Shape, table: &CostTable, budget: Option<u64>) -> Price {
    let prices = table.prices(shape);
    let items = graph_items(model);
    let circuits = circuits(&items, shape);
    let (mut price, expand) = price_items(&items, &prices, &circuits, keys);
    price.keys = keys.galois.values().chain(&keys.relin).map(|&level| prices.key_bytes(level)).sum();
    let batched = model.graph().nodes.iter().all(|n| n.layout.slots == 1);
    // Freed blocks that fit nothing later stay in the engine's pool, of what was in use or of the pool the more, the more sizes of
    // blocks there are, one at each level. Where images share ciphertexts there is little but sums, and it is a quarter.
    let sizes = if batched { SIZES / 4 } else { SIZES.min(shape.log2_q.len() as u64) };
    let usual = price.fixed.min(POOL_BYTES as u64) * sizes / SIZES;
    let (held, whole) = held_bytes(model, keys, &prices);
    let besides = PROCESS + table.base_memory + held;
    price.fixed += besides + whole;
    price.besides = besides;
    let streamed = price.least + besides + schedule_bytes(model);
    price.least = if batched { price.fixed.min(streamed) } else { price.fixed };
    if !circuits.is_empty() {
        price.fixed += prices.bootstrap_bytes(&circuits);
        price.least = price.fixed;
    }
    // Bootstraps use keys again and again, and two images in a slot need one key for every product.
    let often = shape.bootstrap.is_some() || model.graph().complex || keys.galois.is_empty();
    let making = price.keys as f64 / 2.0 * table.expand * 1e-9;
    let seconds = price.seconds();
    let worth = seconds + making < WORTH_KEEPING * (seconds + expand.iter().sum::<f64>());
    price.keeps_keys = often || (worth && budget.is_none_or(|budget| price.fixed + usual <= budget));
    if !price.keeps_keys {
        let halves: u64 = keys.galois.values().map(|&level| prices.key_bytes(level) / 2).sum();
        price.add_making(&expand);
        price.fixed -= halves;
        price.least -= halves;
        price.besides -= halves;
    }
    // With a budget a run keeps no more of them than it has room for.
    let kept = match budget {
        Some(budget) if !batched => usual.min(budget.saturating_sub(price.fixed)),
        _ => usual,
    };
    price.freed = budget.map(|_| kept);
    price.fixed += kept;
    price.besides += kept;
    if batched {
        price.least += kept;
    }
    price
}

/// Bytes that a run holds from its beginning to its end, keys as a whole, and the weights that one map needs as numbers; apart from
/// that what it holds only where it has whole tensors of images that share ciphertexts: inputs, and weights as integers.
fn held_bytes(model: &Model<'_>, keys: &KeyManifest, prices: &Prices<'_>) -> (u64, u64) {
    let graph = model.graph();
    let galois: u64 = keys.galois.values().map(|&level| prices.key_bytes(level)).sum();
    let relin: u64 = keys.relin.iter().map(|&level| prices.key_bytes(level)).sum();
    let weights: u64 = graph.tensors.iter().map(|t| 8 * t.len() as u64).sum();
    let diagonals: u64 = model.matrices().iter().map(|m| m.diagonals.bytes() as u64).sum();
    let loaded = |m: &Matrix| {
        let tensors: BTreeSet<_> = m.nests.iter().filter_map(|n| n.tensor).collect();
        tensors.iter().map(|t| 8 * graph.tensors[t.index()].len() as u64).sum::<u64>()
    };
    let largest = graph.matrices.iter().map(loaded).max().unwrap_or(0);
    // Inputs are many then; a server holds them as they came, half of each a seed.
    let batched = |id: &ValueId| graph.node(*id).layout.slots == 1;
    let input = |id: ValueId| match graph.node(id).op {
        Op::Input(_) => {
            graph.node(id).layout.ciphertexts as u64 * prices.ciphertext_bytes(model.levels()[id.index()]) / 2
        }
        _ => 0,
    };
    let inputs: u64 = graph.ids().filter(batched).map(input).sum();
    let scalars: u64 = model
        .matrices()
        .iter()
        .zip(&graph.matrices)
        .filter(|(_, m)| m.slots == 1)
        .map(|(info, _)| SCALAR_BYTES * info.products as u64)
        .sum();
    (prices.table_bytes() + galois + relin + weights + diagonals + largest, inputs + scalars)
}

/// Most bytes of the schedule of a streamed run: weights as numbers, tiles, and when they read what.
fn schedule_bytes(model: &Model<'_>) -> u64 {
    const ELEMENT: usize = 28;
    const READ: usize = 4;
    let graph = model.graph();
    let used: BTreeSet<_> = graph.matrices.iter().flat_map(|m| &m.nests).filter_map(|n| n.tensor).collect();
    let weights: usize = used.iter().map(|t| 8 * graph.tensors[t.index()].len()).sum();
    let elements: usize = graph.nodes.iter().map(|n| n.layout.ciphertexts).sum();
    // A tile reads an input once, however often it uses it.
    let reads = |(info, m): (&MatrixInfo, &Matrix)| {
        info.products.min(m.out_ciphertexts.div_ceil(TILE).saturating_mul(m.in_ciphertexts))
    };
    let reads: usize = model.matrices().iter().zip(&graph.matrices).map(reads).sum();
    (weights + ELEMENT * elements + READ * reads) as u64
}

/// Seconds of a plan with the prices of a table, which need not be the one that it was compiled with.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanPrice {
    /// Seconds of one evaluation.
    pub seconds: f64,
    /// Seconds of each layer, by its number.
    pub layers: Vec<f64>,
    /// Seconds of each instruction, by its number.
    pub instructions: Vec<f64>,
}

/// Prices a plan.
pub fn price_plan(verified: &Verified, table: &CostTable) -> PlanPrice {
    let plan = verified.plan();
    let shape = Shape::of(&plan.parameters);
    let items = plan_items(verified);
    let (mut price, expand) = price_items(&items, &table.prices(&shape), &circuits(&items, &shape), &plan.keys);
    if !plan.report.keeps_keys {
        price.add_making(&expand);
    }
    let mut layers = vec![0.0; plan.layers.len()];
    for (instruction, seconds) in plan.instructions.iter().zip(&price.nodes) {
        layers[instruction.layer.index()] += seconds;
    }
    PlanPrice { seconds: price.seconds(), layers, instructions: price.nodes }
}

/// Seconds of a node at another level than the model's, that of its operands, where a run pays for the encoding of plaintexts
/// or (for [`Goal::Throughput`]) does not.
pub(crate) fn node_seconds(model: &Model<'_>, prices: &Prices<'_>, id: ValueId, level: usize, goal: Goal) -> f64 {
    let count = model.graph().node(id).layout.ciphertexts;
    let work = work(model, id);
    let item = Item { work, level, result: level, count, kept: count, last_use: id.index(), given: false };
    let share = share(&item, prices, &BTreeMap::new(), &KeyManifest::default());
    match goal {
        Goal::Latency => share.seconds + share.encode,
        Goal::Throughput => share.seconds,
    }
}

/// What the bootstraps among some items consist of, by log2 of the number of slots.
fn circuits(items: &[Item<'_>], shape: &Shape) -> BTreeMap<u32, Circuit> {
    let Some(spec) = &shape.bootstrap else { return BTreeMap::new() };
    let slots: BTreeSet<u32> =
        items.iter().filter_map(|i| if let Work::Bootstrap(k) = i.work { Some(k) } else { None }).collect();
    slots.into_iter().map(|k| (k, Circuit::new(spec, k, shape.log_n))).collect()
}

/// One item's share.
#[derive(Default)]
struct Share {
    seconds: f64,
    encode: f64,
    /// Making the uniform halves of keys, where they are not kept.
    expand: f64,
    plaintexts: u64,
    scratch: u64,
}

fn share(item: &Item<'_>, prices: &Prices<'_>, circuits: &BTreeMap<u32, Circuit>, keys: &KeyManifest) -> Share {
    let (level, count) = (item.level, item.count as f64);
    let simple = |each: f64| Share { seconds: count * each, ..Share::default() };
    let vector = |v: &Vector| match v.slots {
        1 => prices.encode_scalars(level, v.ciphertexts),
        _ => v.ciphertexts as f64 * prices.encode_plain(v.period, level),
    };
    match &item.work {
        Work::Nothing => Share::default(),
        Work::Linear(groups, bias) => {
            let mut sum = Share { encode: bias.map_or(0.0, vector), ..Share::default() };
            for &Group { group, matrix, products } in groups {
                if matrix.slots == 1 {
                    sum.seconds += prices.scalar_map(level, products, matrix.out_ciphertexts);
                    sum.encode += prices.encode_scalars(level, products);
                    sum.scratch = sum.scratch.max(prices.scalar_scratch(level, matrix.out_ciphertexts));
                    continue;
                }
                let (period, outputs) = (matrix.diagonal_period(), matrix.out_ciphertexts);
                sum.seconds += prices.linear(level, group, outputs);
                let composed = keys.composed_in(group, prices.log_n());
                sum.seconds += prices.composed(level, composed, outputs);
                sum.encode += prices.encode_diagonals(level, group, period);
                sum.encode += prices.remade_babies(level, group, outputs, period);
                // Like encoded weights, these are there already when many inputs are evaluated.
                sum.expand += prices.expand(level, group, outputs);
                sum.plaintexts += prices.diagonal_bytes(level, group, period);
                sum.scratch = sum.scratch.max(prices.linear_scratch(level, group, outputs, (period, composed.babies)));
            }
            sum
        }
        Work::Polynomial(plan) => Share {
            scratch: (plan.powers().len() + plan.nodes().len()) as u64 * prices.ciphertext_bytes(level),
            ..simple(prices.polynomial(level, plan))
        },
        Work::Elementwise(polys) => simple(prices.elementwise(level, *polys)),
        Work::Vector(polys, v) => Share { encode: vector(v), ..simple(prices.elementwise(level, *polys)) },
        Work::Multiply => simple(prices.multiply(level)),
        Work::MultiplyParts(conjugations) => simple(prices.multiply_parts(level, *conjugations)),
        Work::Rotate(steps) => {
            let composed = keys.composed.contains_key(&galois_element(*steps, prices.log_n()));
            simple(prices.rotate(level) * if composed { 2.0 } else { 1.0 })
        }
        Work::Relinearise => simple(prices.relinearise(level)),
        Work::RelineariseRescale => simple(prices.relinearise_rescale(level)),
        Work::Rescale => simple(prices.rescale(level, 2)),
        Work::Bootstrap(log_slots) => circuits.get(log_slots).map_or(Share::default(), |circuit| Share {
            seconds: prices.bootstrap(circuit, item.count, item.result),
            scratch: prices.bootstrap_scratch(circuit, item.result),
            ..Share::default()
        }),
    }
}

/// Prices items that run one after another with keys that are kept, and for each item what making their uniform halves would take.
/// [`Price::fixed`] is what ciphertexts and scratch need; keys are not looked at.
fn price_items(
    items: &[Item<'_>],
    prices: &Prices<'_>,
    circuits: &BTreeMap<u32, Circuit>,
    keys: &KeyManifest,
) -> (Price, Vec<f64>) {
    let bytes = |item: &Item<'_>| item.kept as u64 * prices.ciphertext_bytes(item.result);
    let (mut price, mut expand) = (Price::default(), Vec::with_capacity(items.len()));
    // Memory grows where more is in use than ever before; what was in use once is used again, if the engine kept it.
    let mut most: u64 = items.iter().filter(|i| i.given).map(bytes).sum();
    let mut bootstrapped = false;
    for (now, item) in items.iter().enumerate() {
        let mut share = share(item, prices, circuits, keys);
        let live: u64 = items[..=now].iter().filter(|i| i.last_use >= now).map(bytes).sum();
        // Bootstraps work in blocks that the pool keeps from one to the next.
        let working = if matches!(item.work, Work::Bootstrap(_)) { 0 } else { share.scratch };
        let grown = (live + working).saturating_sub(most);
        most += grown;
        // What the engine does not keep goes back to the system every time.
        let mut touch = prices.touch(item.level, grown.max(working.saturating_sub(POOL_BYTES as u64)));
        if matches!(item.work, Work::Bootstrap(_)) && !std::mem::replace(&mut bootstrapped, true) {
            // The first one encodes the matrices of all.
            let (bytes, seconds) = prices.bootstrap_matrices(circuits);
            share.encode += seconds;
            touch += prices.touch(item.result, bytes);
        }
        price.nodes.push(share.seconds + share.encode + touch);
        price.encode += share.encode;
        expand.push(share.expand);
        price.touch += touch;
        price.plaintexts += share.plaintexts;
        price.fixed = price.fixed.max(live + share.scratch);
        // Sums before and after their rescale, and some operands; of products three parts.
        let (tile, some) = ((item.count.min(TILE)) as u64, CHUNK as u64);
        let streamed =
            (2 * tile + some) * prices.ciphertext_bytes(item.level) + 2 * tile * prices.ciphertext_bytes(item.result);
        price.least = price.least.max(streamed);
    }
    (price, expand)
}
