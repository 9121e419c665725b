//! Parameters and placement for networks deeper than any chain: which values are bootstrapped, over which chain.
//!
//! For every chain (`crate::chain`) that is secure the cheapest [placement] is found, and what it takes to load the keys that it
//! needs is added: a chain that is longer than it is used makes every key larger. Chains with the same number of special primes
//! are tried from the longest down, as long as a shorter one could still be cheaper.

use crate::bootstrap_price::Circuit;
use crate::chain::{self, Chain, LEAST_MESSAGES, Sizes};
use crate::cost::{CostTable, Prices};
use crate::levels::{self, Placed};
use crate::noise::Model;
use crate::parameters::{Demands, Goal};
use crate::placement::{self, Alternative, Placement, Refresh, Step};
use crate::plan_bsgs::{Counted, plan_bsgs};
use crate::pricing::{alike, node_seconds};
use crate::rotation_keys;
use crate::sensitivity::Sensitivity;
use crate::shape::Shape;
use crate::stage::Analysis;
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_math::bootstrap::BootstrapSpec;
use fhec_plan::{KeyManifest, bootstrap_slots};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What takes so many times as long is as good: prices are no better than that, and keys and matrices may be smaller.
const AS_GOOD: f64 = 1.03;
/// The share of the bytes of the fastest placement that one as good may take at most to be worth the difference.
const WORTH_IT: f64 = 0.95;
/// Placements that are tried before the fastest, for each size of primes.
const SMALLER: usize = 3;

/// log2 of the smallest ring that is bootstrapped in.
const SMALLEST: u32 = 15;

/// Special primes and levels of the chain whose prices split the maps into babies and giants at first; they are split anew
/// once levels are known.
const NOMINAL: (usize, usize) = (6, 10);

/// A placement of bootstraps and the chain that it was made for.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Sizes of the primes, and the circuit.
    pub shape: Shape,
    /// log2 of the largest values times their scale inside the network.
    pub amplitude: f64,
    /// What was decided, one for every node of the graph.
    pub placement: Placement,
    /// What the decisions were made from.
    pub steps: Vec<Step>,
    /// Seconds by which choices are compared, estimated.
    pub objective: f64,
    /// Bytes of keys and encoded matrices, estimated.
    pub bytes: u64,
    /// Whether it is there because it takes fewer bytes than a faster one.
    pub smaller: bool,
}

impl Chosen {
    /// The graph with bootstraps and level drops.
    pub fn placed(&self, graph: &Graph) -> Placed {
        levels::apply(graph, &self.placement.decisions)
    }

    /// For every bootstrap, in the order of the nodes, how many seconds more the best placement without it takes, and the values of the
    /// [`placed`](Self::placed) graph that are bootstrapped there instead; `None` where there is none.
    pub fn alternatives(&self, placed: &Placed) -> Vec<Option<(f64, Vec<ValueId>)>> {
        let without = placement::alternatives(&self.steps, &self.placement);
        let decisions = self.placement.decisions.iter().zip(without).filter(|(d, _)| d.bootstrap.is_some());
        // Drops and bootstraps of a value come after it.
        let node = |i: usize| placed.before.iter().position(|v| v.index() == i).map(|at| ValueId(at as u32));
        let other = |other: Alternative| {
            (other.cost - self.placement.cost, other.instead.into_iter().filter_map(node).collect())
        };
        decisions.map(|(_, without)| without.map(other)).collect()
    }
}

/// The cheapest placements over all chains of a ring, best first, for a graph whose products are rescaled and relinearised and
/// whose levels are not placed: those for larger and larger primes, and with a memory budget the one with the smallest keys. All
/// primes that are not the network's have the given sizes. Those with an objective above [`AS_GOOD`] times `limit` are left out.
///
/// None where an operation alone needs more levels than there are, or a polynomial is a constant, which no engine evaluates.
pub(crate) fn choose(
    graph: &Graph,
    analysis: &Analysis,
    (log_n, sizes): (u32, Sizes),
    demands: &Demands,
    (table, counted): (&CostTable, &Counted),
    limit: f64,
) -> Vec<Chosen> {
    let nominal = Chain::nominal(log_n, NOMINAL.0, NOMINAL.1);
    let Some(shape) = nominal.shape(nominal.largest).filter(|_| analysis.plans.all()) else { return Vec::new() };
    let weights = table.prices(&shape).linear_weights(NOMINAL.1 / 2);
    let planned = plan_bsgs(graph, |_| weights, counted);
    let sensitivity = Sensitivity::unknown(graph.nodes.len());
    let levels = vec![0; graph.nodes.len()];
    let model = Model::new(&planned, &levels, &analysis.matrices, &sensitivity, &analysis.plans);
    Search::new(model, (log_n, sizes), demands, table).run(limit)
}

/// The least level at which an operation can run. Products of values go no lower than to where slots-to-coefficients begins:
/// the primes below are larger than those of the network, and scales would shrink from product to product.
fn least_level(graph: &Graph, id: ValueId, spec: &BootstrapSpec) -> usize {
    let op = &graph.node(id).op;
    let below = if matches!(op, Op::Polynomial { .. } | Op::Rescale) { spec.slots_to_coeffs.len() } else { 0 };
    levels_consumed(graph, op) + below
}

/// Whether the sparse secret of bootstraps is granted the security that is asked for, in a ring.
pub(crate) fn secure(log_n: u32, demands: &Demands) -> bool {
    Sizes::for_precision(demands.precision_bits).any(|sizes| chain::sparse_is_secure(log_n, demands.security, &sizes))
}

/// Whether the longest chain of a ring holds every operation of a graph by itself. If not, nothing more has to be known.
pub(crate) fn holds(graph: &Graph, log_n: u32, demands: &Demands) -> bool {
    let below = chain::spec(log_n).slots_to_coeffs.len();
    let chains = |sizes| chain::chains(log_n, demands.security, sizes).concat();
    let longest = Sizes::for_precision(demands.precision_bits).flat_map(chains).map(|c| c.levels + below).max();
    let largest = graph.ids().map(|id| least_level(graph, id, &chain::spec(log_n))).max();
    longest.is_some_and(|longest| largest.is_none_or(|largest| largest <= longest))
}

/// What the cheapest of all bootstraps takes at least: few slots, in the smallest ring, to the lowest level.
pub(crate) fn least_seconds(table: &CostTable) -> f64 {
    let chain = Chain::nominal(SMALLEST, NOMINAL.0, 1);
    let Some(shape) = chain.shape(chain.largest) else { return 0.0 };
    table.prices(&shape).bootstrap(&Circuit::new(&chain::spec(SMALLEST), 1, SMALLEST), 1, 0)
}

/// The largest of [`LEAST_MESSAGES`] that the network's primes can have, by its number.
fn class(chain: &Chain) -> usize {
    LEAST_MESSAGES.iter().rposition(|least| chain.message(*least).is_some()).unwrap_or(0)
}

/// The least objective for each of [`LEAST_MESSAGES`].
type Objectives = [f64; LEAST_MESSAGES.len()];

/// What stays the same for all chains.
struct Search<'a> {
    model: Model<'a>,
    log_n: u32,
    sizes: Sizes,
    demands: &'a Demands,
    table: &'a CostTable,
    /// The first node that costs the same, by node.
    alike: Vec<ValueId>,
    /// By log2 of the number of slots.
    circuits: BTreeMap<u32, Circuit>,
    /// Elements of the network's own keys.
    own_keys: KeyManifest,
}

/// A placement for one chain.
struct Found {
    chain: Chain,
    placement: Placement,
    steps: Vec<Step>,
    objective: f64,
    bytes: u64,
}

/// A placement that is worth trying, with primes of so many bits.
struct Pick {
    at: usize,
    message: u32,
    smaller: bool,
}

impl<'a> Search<'a> {
    fn new(model: Model<'a>, (log_n, sizes): (u32, Sizes), demands: &'a Demands, table: &'a CostTable) -> Self {
        let graph = model.graph();
        let slots: BTreeSet<u32> = graph.nodes.iter().map(|n| bootstrap_slots(n.layout.period)).collect();
        let spec = chain::spec(log_n);
        let circuits = slots.into_iter().map(|k| (k, Circuit::new(&spec, k, log_n))).collect();
        let own_keys = rotation_keys::manifest_at(&model, log_n, |id| levels_consumed(graph, &graph.node(id).op));
        Search { alike: alike(&model), model, log_n, sizes, demands, table, circuits, own_keys }
    }

    fn run(&self, limit: f64) -> Vec<Chosen> {
        let mut all = chain::chains(self.log_n, self.demands.security, self.sizes);
        // Likely ones first: what is cheap makes all others end early.
        all.sort_by_key(|chains| chains.first().map_or(0, |c| c.special.abs_diff(NOMINAL.0)));
        let Some((likely, others)) = all.split_first() else { return Vec::new() };
        let (mut found, best) = self.over_all(likely, [limit; LEAST_MESSAGES.len()], limit);
        found
            .extend(others.par_iter().flat_map_iter(|chains| self.over_all(chains, best, limit).0).collect::<Vec<_>>());
        self.ranked(&found)
    }

    /// Placements over chains with the same number of special primes, from the longest down. `best` is the least objective known
    /// for each of the least sizes of primes, and what has become of it; nothing above `dearest` is of interest, however small.
    fn over_all(&self, chains: &[Chain], mut best: Objectives, dearest: f64) -> (Vec<Found>, Objectives) {
        let mut found = Vec::new();
        let shortest = chains.last().copied();
        let mut longest = usize::MAX;
        for chain in chains.iter().filter(|c| c.levels > 0) {
            // Levels that the placement over a longer chain left unused are not missed.
            if chain.levels > longest {
                continue;
            }
            let class = class(chain);
            let limit = |class: usize| match self.demands.memory_budget {
                Some(_) => dearest,
                None => AS_GOOD * best[class],
            };
            // Shorter chains have larger primes and are compared with fewer others.
            let last = limit(shortest.as_ref().map_or(class, self::class));
            let limit = limit(class);
            let Some((next, used)) = self.over(*chain, limit) else {
                // Too dear or too short; the same holds for shorter ones, unless they may be dearer.
                if limit < last {
                    continue;
                }
                break;
            };
            longest = used.saturating_sub(chain::spec(self.log_n).slots_to_coeffs.len()).min(chain.levels - 1);
            let least = shortest.map_or(0.0, |shortest| next.placement.cost + self.least_keys(shortest));
            // What needs no bootstrap is better off without their circuit.
            if next.placement.decisions.iter().all(|d| d.bootstrap.is_none()) {
                continue;
            }
            best[..=class].iter_mut().for_each(|b| *b = b.min(next.objective));
            found.push(next);
            if least >= last {
                break;
            }
        }
        (found, best)
    }

    /// The best placement over a chain and the highest level that it uses.
    fn over(&self, chain: Chain, limit: f64) -> Option<(Found, usize)> {
        let shape = chain.shape(chain.message(LEAST_MESSAGES[0])?)?;
        let prices = self.table.prices(&shape);
        let steps = self.steps(&shape, &prices)?;
        let placement = placement::place_below(&steps, limit - self.least_keys(chain))?;
        let used = placement.decisions.iter().map(|d| d.level.max(d.bootstrap.unwrap_or(0))).max()?;
        let (seconds, bytes) = self.keys(&shape, &prices, &placement);
        let objective = placement.cost + seconds;
        Some((Found { chain, placement, steps, objective, bytes }, used))
    }

    /// What placement must know.
    fn steps(&self, shape: &Shape, prices: &Prices<'_>) -> Option<Vec<Step>> {
        let spec = shape.bootstrap.as_ref()?;
        let top = spec.output_level(shape.log2_q.len() - 1)?;
        let graph = self.model.graph();
        let mut costs: BTreeMap<ValueId, Vec<f64>> = BTreeMap::new();
        let mut refreshes: BTreeMap<(usize, u32), Refresh> = BTreeMap::new();
        for id in graph.ids() {
            let layout = &graph.node(id).layout;
            let (count, log_slots) = (layout.ciphertexts, bootstrap_slots(layout.period));
            refreshes.entry((count, log_slots)).or_insert_with(|| Refresh {
                from: spec.input_level(log_slots),
                cost: (0..=top).map(|target| prices.bootstrap(&self.circuits[&log_slots], count, target)).collect(),
            });
            if self.alike[id.index()] == id {
                let least = least_level(graph, id, spec);
                let cost = |level| node_seconds(&self.model, prices, id, level, self.demands.goal);
                let levels = (0..=top).map(|level| if level < least { f64::INFINITY } else { cost(level) });
                costs.insert(id, levels.collect());
            }
        }
        let refresh = |id: ValueId| {
            let layout = &graph.node(id).layout;
            refreshes.get(&(layout.ciphertexts, bootstrap_slots(layout.period))).cloned()
        };
        Some(levels::steps(graph, |id| costs[&self.alike[id.index()]].clone(), refresh))
    }

    /// Seconds to load the keys of a placement, and bytes of keys and of the matrices of bootstraps.
    fn keys(&self, shape: &Shape, prices: &Prices<'_>, placement: &Placement) -> (f64, u64) {
        let graph = self.model.graph();
        let level = |id: ValueId| placement.decisions[id.index()].level;
        let mut keys = rotation_keys::manifest_at(&self.model, self.log_n, level);
        let refreshed = graph.ids().filter(|id| placement.decisions[id.index()].bootstrap.is_some());
        let slots: BTreeSet<u32> = refreshed.map(|id| bootstrap_slots(graph.node(id).layout.period)).collect();
        if let Some(spec) = shape.bootstrap.as_ref().filter(|_| !slots.is_empty()) {
            let output = spec.output_level(shape.log2_q.len() - 1).unwrap_or(0);
            keys.add_bootstrap(spec, self.log_n, output, &slots);
        }
        let bytes: u64 = keys.galois.values().chain(&keys.relin).map(|&level| prices.key_bytes(level)).sum();
        let circuits = self.circuits.iter().filter(|(k, _)| slots.contains(k)).map(|(&k, c)| (k, c.clone())).collect();
        (self.key_seconds(bytes), bytes + prices.bootstrap_bytes(&circuits))
    }

    fn key_seconds(&self, bytes: u64) -> f64 {
        match self.demands.goal {
            Goal::Latency => bytes as f64 * self.table.read_byte * 1e-9,
            Goal::Throughput => 0.0,
        }
    }

    /// Seconds that it takes at least to load the keys for a chain: those of the network, as low as possible, and those of
    /// bootstraps of the fewest slots.
    fn least_keys(&self, chain: Chain) -> f64 {
        let shape = chain.message(LEAST_MESSAGES[0]).and_then(|message| chain.shape(message));
        let (Some(shape), Some(&slots)) = (shape, self.circuits.keys().next()) else { return 0.0 };
        let prices = self.table.prices(&shape);
        let mut keys = self.own_keys.clone();
        let output = shape.bootstrap.as_ref().and_then(|spec| spec.output_level(shape.log2_q.len() - 1));
        if let (Some(spec), Some(output)) = (&shape.bootstrap, output) {
            keys.add_bootstrap(spec, self.log_n, output, &BTreeSet::from([slots]));
        }
        self.key_seconds(keys.galois.values().chain(&keys.relin).map(|&level| prices.key_bytes(level)).sum())
    }

    /// The best for each of the least sizes of primes, and under a memory budget those that seem to keep it; then the smallest. Some
    /// that are [as good](AS_GOOD) as the fastest come before it, those with the fewest bytes first.
    fn ranked(&self, found: &[Found]) -> Vec<Chosen> {
        let budget = self.demands.memory_budget.unwrap_or(u64::MAX);
        let mut picks: Vec<Pick> = Vec::new();
        let mut pick = |(at, found): (usize, &Found), least: u32, smaller: bool| {
            let Some(message) = found.chain.message(least) else { return };
            match picks.iter_mut().find(|p| (p.at, p.message) == (at, message)) {
                // What is the fastest for one size of primes stays that.
                Some(known) => known.smaller &= smaller,
                None => picks.push(Pick { at, message, smaller }),
            }
        };
        for least in LEAST_MESSAGES {
            let fits = |(_, f): &(usize, &Found)| f.chain.message(least).is_some() && f.bytes <= budget;
            let fitting = || found.iter().enumerate().filter(fits);
            let Some((best, fastest)) = fitting().min_by(|a, b| a.1.objective.total_cmp(&b.1.objective)) else {
                continue;
            };
            let few = |bytes: u64| bytes as f64 <= WORTH_IT * fastest.bytes as f64;
            let as_good = |f: &Found| f.objective <= AS_GOOD * fastest.objective && few(f.bytes);
            let mut smaller: Vec<(usize, &Found)> = fitting().filter(|(_, f)| as_good(f)).collect();
            smaller.sort_by_key(|(_, f)| f.bytes);
            smaller.into_iter().take(SMALLER).for_each(|found| pick(found, least, true));
            pick((best, fastest), least, false);
        }
        if self.demands.memory_budget.is_some()
            && let Some(smallest) = found.iter().enumerate().min_by_key(|(_, f)| f.bytes)
        {
            pick(smallest, LEAST_MESSAGES[0], false);
        }
        let chosen = |Pick { at, message, smaller }: Pick| {
            let Found { chain, placement, steps, objective, bytes } = &found[at];
            Some(Chosen {
                shape: chain.shape(message)?,
                amplitude: f64::from(message),
                placement: placement.clone(),
                steps: steps.clone(),
                objective: *objective,
                bytes: *bytes,
                smaller,
            })
        };
        picks.into_iter().filter_map(chosen).collect()
    }
}
