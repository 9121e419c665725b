//! Seconds and bytes of a whole graph under given parameters, or of a plan that exists already.
//!
//! Graph and plan are brought to one form, a list of items, so that a plan costs what its graph was said to cost.

use crate::bootstrap_price::Circuit;
use crate::cost::{CostTable, Prices};
use crate::matrices::MatrixInfo;
use crate::noise::Model;
use crate::parameters::Goal;
use crate::shape::Shape;
use fhec_ir::he::{Op, ValueId};
use fhec_math::buffer::POOL_BYTES;
use fhec_math::chebyshev::ChebyshevPlan;
use fhec_math::galois_element;
use fhec_plan::linear::LinearGroup;
use fhec_plan::stream::{CHUNK, TILE};
use fhec_plan::verify::Verified;
use fhec_plan::{Diagonals, KeyManifest, Matrix, Vector, bootstrap_slots};
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

/// What a node or an instruction asks of the engine.
enum Work<'a> {
    /// Nothing: an input, an output, or something that another item does.
    Nothing,
    /// Groups of terms, and a bias.
    Linear(Vec<Group<'a>>, Option<&'a Vector>),
    Polynomial(&'a ChebyshevPlan),
    /// Sums and products with scalars of so many polynomials a ciphertext.
    Elementwise(usize),
    /// The same with an encoded vector.
    Vector(usize, &'a Vector),
    Multiply,
    /// Products of the parts of slots, with so many conjugations.
    MultiplyParts(usize),
    Rotate(i64),
    Relinearise,
    RelineariseRescale,
    Rescale,
    /// Bootstraps of 2^this slots.
    Bootstrap(u32),
}

/// Terms of a linear map that are evaluated together.
struct Group<'a> {
    group: &'a LinearGroup,
    /// The first matrix.
    matrix: &'a Matrix,
    /// Where images share ciphertexts: products with weights that are not zero.
    products: usize,
}

/// A node or an instruction.
struct Item<'a> {
    work: Work<'a>,
    /// Level of the operands.
    level: usize,
    /// Level of the result.
    result: usize,
    /// Ciphertexts of the result.
    count: usize,
    /// Ciphertexts of the result that are ever in memory together.
    kept: usize,
    /// The last item that reads the result.
    last_use: usize,
    /// Whether the result is in memory before the evaluation begins.
    given: bool,
}

/// How many operands must be conjugated for a product of parts: a square has one.
fn conjugations<T: PartialEq>(operands: &[T]) -> usize {
    1 + usize::from(operands.first() != operands.get(1))
}

/// What a node of a graph asks of the engine.
fn work<'a>(model: &'a Model<'_>, id: ValueId) -> Work<'a> {
    let graph = model.graph();
    match &graph.node(id).op {
        Op::Input(_) => Work::Nothing,
        Op::LinearMap { terms, bias, .. } => {
            let group = |group: &'a LinearGroup| {
                let products = group.terms.iter().map(|&t| model.matrices()[terms[t].matrix.index()].products);
                let matrix = &graph.matrices[terms[group.terms[0]].matrix.index()];
                Group { group, matrix, products: products.sum() }
            };
            let groups = model.groups()[id.index()].iter().map(group);
            Work::Linear(groups.collect(), bias.map(|b| &graph.vectors[b.index()]))
        }
        Op::Polynomial { .. } => model.plan(id).map_or(Work::Nothing, Work::Polynomial),
        Op::Add | Op::Sub | Op::Negate | Op::LevelDrop(_) | Op::MulScalar { .. } => Work::Elementwise(2),
        Op::AddScalar(_) => Work::Elementwise(1),
        Op::MulVector { vector, .. } => Work::Vector(2, &graph.vectors[vector.index()]),
        Op::AddVector(vector) => Work::Vector(1, &graph.vectors[vector.index()]),
        Op::Mul if graph.complex => Work::MultiplyParts(conjugations(&graph.node(id).inputs)),
        Op::Mul => Work::Multiply,
        Op::Rotate(steps) => Work::Rotate(*steps),
        Op::Relinearise if model.rescaled_at_once(id) => Work::RelineariseRescale,
        Op::Relinearise => Work::Relinearise,
        Op::Rescale if graph.node(id).inputs.first().is_some_and(|&v| model.rescaled_at_once(v)) => Work::Nothing,
        Op::Rescale => Work::Rescale,
        Op::Bootstrap { .. } => Work::Bootstrap(bootstrap_slots(graph.node(id).layout.period)),
    }
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

/// For every node the first one that costs the same at every level.
pub(crate) fn alike(model: &Model<'_>) -> Vec<ValueId> {
    let graph = model.graph();
    let mut known: Vec<ValueId> = Vec::new();
    let first = |id: ValueId| {
        let (own, count) = (work(model, id), graph.node(id).layout.ciphertexts);
        let same = |&&k: &&ValueId| graph.node(k).layout.ciphertexts == count && work(model, k).costs_like(&own);
        known.iter().find(same).copied().unwrap_or_else(|| {
            known.push(id);
            id
        })
    };
    graph.ids().map(first).collect()
}

/// What the bootstraps among some items consist of, by log2 of the number of slots.
fn circuits(items: &[Item<'_>], shape: &Shape) -> BTreeMap<u32, Circuit> {
    let Some(spec) = &shape.bootstrap else { return BTreeMap::new() };
    let slots: BTreeSet<u32> =
        items.iter().filter_map(|i| if let Work::Bootstrap(k) = i.work { Some(k) } else { None }).collect();
    slots.into_iter().map(|k| (k, Circuit::new(spec, k, shape.log_n))).collect()
}

impl Work<'_> {
    /// Whether it costs the same at every level, for as many ciphertexts; rather false than wrong.
    fn costs_like(&self, other: &Self) -> bool {
        let vector = |v: &Vector| (v.ciphertexts, v.period);
        match (self, other) {
            (Work::Nothing, Work::Nothing)
            | (Work::Multiply, Work::Multiply)
            | (Work::Rotate(_), Work::Rotate(_))
            | (Work::Relinearise, Work::Relinearise)
            | (Work::RelineariseRescale, Work::RelineariseRescale)
            | (Work::Rescale, Work::Rescale) => true,
            (Work::Elementwise(a), Work::Elementwise(b)) | (Work::MultiplyParts(a), Work::MultiplyParts(b)) => a == b,
            (Work::Vector(a, v), Work::Vector(b, w)) => a == b && vector(v) == vector(w),
            (Work::Polynomial(a), Work::Polynomial(b)) => a.operations() == b.operations(),
            (Work::Linear(groups, bias), Work::Linear(others, other)) => {
                let same = |(g, h): (&Group<'_>, &Group<'_>)| {
                    let outer = |m: &Matrix| (m.diagonal_period(), m.out_ciphertexts);
                    let own = |g: &Group<'_>| (outer(g.matrix), g.products);
                    g.group.bsgs == h.group.bsgs && g.group.fold == h.group.fold && own(g) == own(h)
                };
                groups.len() == others.len()
                    && groups.iter().zip(others).all(same)
                    && bias.map(vector) == other.map(vector)
            }
            _ => false,
        }
    }
}

fn graph_items<'a>(model: &'a Model<'_>) -> Vec<Item<'a>> {
    let graph = model.graph();
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for id in graph.ids() {
        graph.node(id).inputs.iter().for_each(|v| last_use[v.index()] = id.index());
    }
    graph.outputs.iter().for_each(|o| last_use[o.value.index()] = graph.nodes.len());
    let mut kept: Vec<usize> = graph.nodes.iter().map(|n| n.layout.ciphertexts).collect();
    // Of hundreds of products only a few exist at a time, and none of their relinearised forms.
    for id in graph.ids().filter(|&id| graph.node(id).layout.slots == 1 && model.rescaled_at_once(id)) {
        let (product, rescale) = (graph.node(id).inputs[0], last_use[id.index()]);
        let readers = graph.nodes.iter().filter(|n| n.inputs.contains(&product)).count();
        if graph.node(product).op == Op::Mul && readers == 1 {
            kept[id.index()] = 0;
            kept[product.index()] = 0;
            let factors = graph.node(product).inputs.iter();
            factors.for_each(|f| last_use[f.index()] = last_use[f.index()].max(rescale));
        }
    }
    let item = |id: ValueId| {
        let node = graph.node(id);
        let result = model.levels()[id.index()];
        Item {
            work: work(model, id),
            level: node.inputs.first().map_or(result, |v| model.levels()[v.index()]),
            result,
            count: node.layout.ciphertexts,
            kept: kept[id.index()],
            last_use: last_use[id.index()],
            given: matches!(node.op, Op::Input(_)),
        }
    };
    graph.ids().map(item).collect()
}

fn plan_items<'v>(verified: &'v Verified) -> Vec<Item<'v>> {
    use fhec_plan::Op;
    let plan = verified.plan();
    // Relinearisations that are only read by a rescale are done with it.
    let mut readers = vec![0; plan.instructions.len()];
    let mut rescaled = vec![false; plan.instructions.len()];
    let writer = |&source: &fhec_plan::Reg| verified.register(source).written;
    for instruction in &plan.instructions {
        for source in instruction.op.sources() {
            let at = writer(&source);
            readers[at] += 1;
            rescaled[at] = readers[at] == 1 && matches!(instruction.op, Op::Rescale(_));
        }
    }
    let at_once = |number: usize| matches!(plan.instructions[number].op, Op::Relinearise(_)) && rescaled[number];
    let work = |number: usize| match &plan.instructions[number].op {
        Op::Input(_) | Op::Output { .. } => Work::Nothing,
        Op::LinearMap { terms, bias, .. } => {
            let nonzero = |&t: &usize| {
                let (id, matrix) = (terms[t].matrix, &plan.matrices[terms[t].matrix.index()]);
                let rows = verified.facts().diagonals(id).rows();
                rows.map_or(0, |rows| rows.nonzero(matrix, &Diagonals::tensors(matrix, &plan.weights)))
            };
            let group = |group: &'v LinearGroup| {
                let own = &group.terms;
                let matrix = &plan.matrices[terms[own[0]].matrix.index()];
                Group { group, matrix, products: own.iter().map(nonzero).sum() }
            };
            let groups = verified.facts().groups(number).iter().map(group);
            Work::Linear(groups.collect(), bias.map(|b| &plan.vectors[b.index()]))
        }
        Op::Polynomial { poly, .. } => Work::Polynomial(verified.facts().polynomial(*poly)),
        Op::Add(..) | Op::Sub(..) | Op::Negate(_) | Op::LevelDrop { .. } | Op::MulScalar { .. } => Work::Elementwise(2),
        Op::AddScalar { .. } => Work::Elementwise(1),
        Op::MulVector { vector, .. } => Work::Vector(2, &plan.vectors[vector.index()]),
        Op::AddVector { vector, .. } => Work::Vector(1, &plan.vectors[vector.index()]),
        Op::Mul(a, b) if plan.complex => Work::MultiplyParts(conjugations(&[*a, *b])),
        Op::Mul(..) => Work::Multiply,
        Op::Rotate { steps, .. } => Work::Rotate(*steps),
        Op::Relinearise(_) if at_once(number) => Work::RelineariseRescale,
        Op::Relinearise(_) => Work::Relinearise,
        Op::Rescale(source) if at_once(writer(source)) => Work::Nothing,
        Op::Rescale(_) => Work::Rescale,
        Op::Bootstrap { .. } => {
            Work::Bootstrap(bootstrap_slots(verified.register(plan.instructions[number].dst).period))
        }
    };
    let item = |(number, instruction): (usize, &fhec_plan::Instruction)| {
        let facts = verified.register(instruction.dst);
        let output = matches!(instruction.op, Op::Output { .. });
        Item {
            work: work(number),
            level: instruction.op.sources().first().map_or(facts.level, |&r| verified.register(r).level),
            result: facts.level,
            // An output is the register that it names.
            count: if output { 0 } else { facts.ciphertexts },
            kept: if output { 0 } else { facts.ciphertexts },
            last_use: facts.last_read,
            given: matches!(instruction.op, Op::Input(_)),
        }
    };
    plan.instructions.iter().enumerate().map(item).collect()
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
