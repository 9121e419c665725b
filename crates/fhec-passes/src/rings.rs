//! Rings, levelled chains and bootstraps: all that can carry a network, and the cheapest of it.
//!
//! The smallest ring whose chain holds the network is nearly always the best one without bootstraps. With them every ring will
//! do that holds the circuit of a bootstrap, and deep networks are faster that way than in a ring large enough for all of
//! their levels. So both are tried where rings get large, and the predicted cost decides.

use crate::bootstrapped::{self, Chosen};
use crate::chain::Sizes;
use crate::common_subexpressions::common_subexpressions;
use crate::driver::Driver;
use crate::levels::{self, Placed};
use crate::lower::Lowering;
use crate::merge_linear::{absorb, merge_linear};
use crate::mode::{Complex, Mode};
use crate::parameters::{Demands, PRIME_MARGIN, Selected, Unfit};
use crate::pipeline::{CompileError, Options};
use crate::plan_bsgs::{KeyPrices, plan_bsgs, plan_sharing};
use crate::shape::Shape;
use crate::stage::{Analysis, Stage};
use crate::{relinearise, rescale, scales};
use fhec_ir::{Tensor, he, nn};
use fhec_math::security::SecurityLevel;
use fhec_plan::{KeyManifest, bootstrap_slots};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Ring degrees without bootstraps, as log2, smallest first.
pub(crate) const RINGS: std::ops::RangeInclusive<u32> = 12..=17;
/// Ring degrees with bootstraps; below no chain holds a bootstrap and levels to use. The largest ring comes last of all.
const BOOTSTRAPPED: [u32; 2] = [15, 16];
/// Rings above this are tried only where none up to it will do, or bootstraps would be needed: their keys are too large
/// to be a matter of taste.
const LARGEST_BY_CHOICE: u32 = 16;
/// Estimates of the objective are not above what it turns out to be by more than this.
const DEARER: f64 = 1.1;
/// Seconds that a byte of keys is worth where memory does not suffice: more than what any rotation takes.
const SHORT_OF_MEMORY: f64 = 1e-3;
/// A choice that is as precise as it was asked for may take so many times as long as one that is not.
const PRECISION_IS_WORTH: f64 = 2.0;

/// A way to carry a network.
pub(crate) struct Choice {
    pub(crate) stage: Stage,
    pub(crate) selected: Selected,
    pub(crate) keys: KeyManifest,
    /// Seconds by which choices are compared; in throughput mode those of one image.
    pub(crate) objective: f64,
    /// How bootstraps were placed, where there are any, and in which graph.
    pub(crate) chosen: Option<Box<(he::Graph, Chosen)>>,
}

impl Choice {
    /// Whether it is better than another one.
    pub(crate) fn beats(&self, other: Option<&Self>, demands: &Demands) -> bool {
        let weight = |c: &Self| {
            let precise = c.selected.prediction.bits >= demands.precision_bits;
            c.objective * if precise { 1.0 } else { PRECISION_IS_WORTH }
        };
        other.is_none_or(|other| weight(self) < weight(other))
    }
}

/// Parameters and the keys that they ask for, or why there are none.
type Selection = Result<(Selected, KeyManifest), Unfit>;

/// Why no ring will do, by log2 of its degree.
pub(crate) type Reasons = Vec<(u32, Unfit)>;

/// The best choice over all rings, with two images a slot only where that is asked for ([`Complex::On`]).
///
/// # Errors
/// What keeps the network from being compiled at all; inside, why no ring will do.
pub(crate) fn best(
    graph: &nn::Graph,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Result<Choice, Reasons>, CompileError> {
    let found = search(graph, samples, options, demands, driver, f64::INFINITY);
    driver.analysed.keep_single();
    found
}

/// The best choice, if it beats what is known for another graph; what cannot do so is not looked at closely.
///
/// # Errors
/// As [`best`].
pub(crate) fn better(
    than: &Choice,
    graph: &nn::Graph,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Option<Choice>, CompileError> {
    let precise = than.selected.prediction.bits >= demands.precision_bits;
    let limit = if precise { than.objective } else { f64::INFINITY };
    let found = search(graph, samples, options, demands, driver, limit);
    driver.analysed.keep_single();
    Ok(found?.ok().filter(|choice| choice.beats(Some(than), demands)))
}

/// The best choice over all rings with an objective below a limit, and perhaps others.
fn search(
    graph: &nn::Graph,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
    limit: f64,
) -> Result<Result<Choice, Reasons>, CompileError> {
    // Nobody bootstraps as many ciphertexts as a batch has.
    let batched = options.mode != Mode::Latency;
    let mut reasons = Reasons::new();
    let mut best: Option<Choice> = None;
    // Levels of the network in the last ring that it was placed in.
    let mut depth = None;
    for log_n in *RINGS.start()..=LARGEST_BY_CHOICE {
        driver.for_ring(log_n);
        let (ready, placed) = match back(graph, log_n, options, driver) {
            Ok(both) => both,
            // A channel that does not fit a small ciphertext may fit a larger one.
            Err(CompileError::Model(_)) => continue,
            Err(other) => return Err(other),
        };
        depth = Some(placed.top());
        // Below this no chain fits; saves the analysis of hopeless rings.
        if !deep_enough(placed.top(), log_n, options.security) {
            reasons.push((log_n, Unfit::Security));
            continue;
        }
        let several = placed.several();
        match ring((&ready, placed), log_n, samples, options, demands, driver)? {
            Ok(choice) if best.as_ref().is_none_or(|b| choice.objective < b.objective) => best = Some(choice),
            // Twice the images in more than twice the time: a still larger ring is slower still.
            Ok(_) if batched => break,
            Ok(_) => {}
            Err(why) => reasons.push((log_n, why)),
        }
        // A larger ring can only pay where it packs values into fewer ciphertexts.
        if best.is_some() && !several {
            break;
        }
    }
    // A small ring holds the network, and no bootstrap alone takes less.
    let cheap = |b: &Choice| batched || b.objective <= bootstrapped::least_seconds(&options.cost);
    if best.as_ref().is_some_and(|b| b.selected.parameters.log_n < LARGEST_BY_CHOICE && cheap(b)) {
        return Ok(best.ok_or(reasons));
    }
    let levelled = best.is_some();
    // Bootstraps give levels but no precision: less than was asked for is accepted only where levels are what is missing.
    let too_deep = best.is_none() && reasons.iter().all(|(_, why)| *why == Unfit::Security);
    let least_bits = if too_deep { options.least_bits } else { demands.precision_bits };
    let asked = (samples, options, demands, least_bits, limit);
    // Likely ones first: what is cheap makes all others end early. The small ring holds enough where primes may be small.
    let mut likely = BOOTSTRAPPED;
    let small = Sizes::for_precision(demands.precision_bits).count() > 1;
    if !small {
        likely.reverse();
    }
    for log_n in likely.into_iter().filter(|_| !batched) {
        best = bootstrapped(graph, log_n, asked, driver, best, &mut reasons)?;
        // Twice the ring at twice the price leaves more levels between bootstraps, but a small chain has enough of them: only fewer
        // ciphertexts would pay.
        let enough = |b: &Choice| b.chosen.is_some() && b.selected.prediction.bits >= demands.precision_bits;
        if small && best.as_ref().is_some_and(|b| enough(b) && !b.stage.placed().several()) {
            break;
        }
    }
    let log_n = *RINGS.end();
    // What fits no smaller ring has so many levels, and the largest is so slow, that bootstraps are always faster.
    let precise = best.as_ref().is_some_and(|b| b.selected.prediction.bits >= demands.precision_bits);
    let deep_enough = || depth.is_none_or(|depth| deep_enough(depth, log_n, options.security));
    if !levelled && !precise && limit.is_infinite() && deep_enough() {
        driver.for_ring(log_n);
        match back(graph, log_n, options, driver) {
            Ok((ready, placed)) => match ring((&ready, placed), log_n, samples, options, demands, driver)? {
                Ok(choice) if choice.beats(best.as_ref(), demands) => best = Some(choice),
                Ok(_) => {}
                Err(why) => reasons.push((log_n, why)),
            },
            Err(CompileError::Model(_)) if best.is_some() => {}
            Err(other) => return Err(other),
        }
    }
    // What takes too much memory takes more in a larger ring: every key is twice as large.
    let too_large = reasons.iter().any(|(_, why)| matches!(why, Unfit::Memory(_)));
    if best.is_none() && !batched && !too_large {
        best = bootstrapped(graph, log_n, asked, driver, best, &mut reasons)?;
    }
    // One reason a ring will do, the one nearest to success.
    Ok(best.ok_or_else(|| nearest(reasons)))
}

/// One reason for each ring: that which is nearest to success.
fn nearest(reasons: Reasons) -> Reasons {
    let mut out = BTreeMap::new();
    for (log_n, why) in reasons {
        out.entry(log_n).and_modify(|known| *known = crate::parameters::nearer(*known, why)).or_insert(why);
    }
    out.into_iter().collect()
}

/// The best so far, or a placement of bootstraps in a ring that is better.
fn bootstrapped(
    graph: &nn::Graph,
    log_n: u32,
    (samples, options, demands, least_bits, limit): (&[Vec<Tensor>], &Options, &Demands, f64, f64),
    driver: &mut Driver<'_>,
    mut best: Option<Choice>,
    reasons: &mut Reasons,
) -> Result<Option<Choice>, CompileError> {
    if !bootstrapped::secure(log_n, demands) {
        reasons.push((log_n, Unfit::Sparse));
        return Ok(best);
    }
    driver.for_ring(log_n);
    let ready = match ready(graph, log_n, options, driver) {
        Ok(ready) => ready,
        Err(CompileError::Model(_)) if best.is_some() || log_n < *RINGS.end() => return Ok(best),
        Err(other) => return Err(other),
    };
    if !bootstrapped::holds(&ready, log_n, demands) {
        reasons.push((log_n, Unfit::Levels));
        return Ok(best);
    }
    let mut analysed = driver.analysed.known(&ready, samples);
    let analysis = analysed.clone().unwrap_or_else(|| Analysis::without_samples(&ready));
    // Small primes first: where they are precise enough nothing larger is cheaper.
    for sizes in Sizes::for_precision(demands.precision_bits) {
        // Dearer than what is there already, by estimates that are never far off.
        let known = best.as_ref().filter(|b| b.selected.prediction.bits >= demands.precision_bits);
        let limit = DEARER * known.map_or(limit, |known| known.objective.min(limit));
        // Prices do not depend on errors, nor errors on prices.
        let (mut list, made) = rayon::join(
            || {
                bootstrapped::choose(
                    &ready,
                    &analysis,
                    (log_n, sizes),
                    demands,
                    (&options.cost, &driver.counted),
                    limit,
                )
            },
            || analysed.is_none().then(|| analysis.clone().with_samples(&ready, samples)),
        );
        list.retain(|chosen| chosen.objective < limit);
        if list.is_empty() && limit.is_infinite() {
            reasons.push((log_n, Unfit::Levels));
        }
        if let Some(made) = made {
            analysed = Some(made?);
        }
        for chosen in list {
            let errors = analysed.as_ref().unwrap_or(&analysis);
            let Some((stage, selected)) = carried(&chosen, &ready, errors, options, demands, driver)? else { continue };
            let outcome = selected.as_ref().map(|(selected, _)| selected.prediction.bits);
            let primes = chosen.shape.log2_q.len();
            tracing::debug!(log_n, primes, objective = chosen.objective, ?outcome, "placement");
            match selected {
                Ok((selected, _)) if selected.prediction.bits.is_nan() || selected.prediction.bits < least_bits => {
                    reasons.push((log_n, Unfit::Precision(selected.prediction.bits)));
                }
                Ok((selected, keys)) => {
                    let objective = selected.price.objective(demands.goal, &options.cost);
                    let enough = selected.prediction.bits >= demands.precision_bits;
                    let fastest = !chosen.smaller;
                    let chosen = Some(Box::new((ready.clone(), chosen)));
                    let choice = Choice { stage, selected, keys, objective, chosen };
                    let better = choice.beats(best.as_ref(), demands);
                    if better {
                        best = Some(choice);
                    }
                    // Where a smaller one is no better than what was known, the fastest may still be.
                    if enough && (better || fastest) {
                        return Ok(best);
                    }
                }
                Err(why) => reasons.push((log_n, why)),
            }
        }
    }
    Ok(best)
}

/// A placement with babies and giants of every map, and with parameters or the reason why there are none.
fn carried(
    chosen: &Chosen,
    ready: &he::Graph,
    analysis: &Analysis,
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Option<(Stage, Selection)>, CompileError> {
    let log_n = chosen.shape.log_n;
    let Placed { graph: placed, levels, before } = chosen.placed(ready);
    let placed = driver.he("bootstraps", ready, |_| placed)?;
    let prices = options.cost.prices(&chosen.shape);
    let weights = |id: he::ValueId| prices.linear_weights(levels[placed.node(id).inputs[0].index()]);
    // Keys take long to load and much memory: maps share theirs, and those of bootstraps.
    let given = bootstrap_keys(&placed, &chosen.shape);
    let bytes = |id: he::ValueId| prices.key_bytes(levels[placed.node(id).inputs[0].index()]) as f64;
    let mut found: Option<(Stage, Selection)> = None;
    let seconds = |s: &Selected| s.price.objective(demands.goal, &options.cost);
    for byte in [options.cost.read_byte * 1e-9, SHORT_OF_MEMORY] {
        let keys = KeyPrices { log_n, given: &given, price: &|id| byte * bytes(id) };
        let counted = Arc::clone(&driver.counted);
        let planned = driver.he("plan-bsgs", &placed, |g| plan_sharing(g, weights, &keys, &counted))?;
        let planned = Placed { graph: planned, levels: levels.clone(), before: before.clone() };
        let own = analysis.placed(&planned);
        let stage = Stage::analysed(planned, own);
        let selected = stage.select_bootstrapped(chosen, demands, &options.cost);
        // What makes do with fewer keys by itself may be faster than what is made to.
        let enough = match &selected {
            Ok((_, keys)) => keys.composed.is_empty(),
            Err(why) => !matches!(why, Unfit::Memory(_)),
        };
        let better = match (&found, &selected) {
            (Some((_, Ok((known, _)))), Ok((new, _))) => seconds(new) < seconds(known),
            (Some((_, Ok(_))), Err(_)) => false,
            _ => true,
        };
        if better {
            found = Some((stage, selected));
        }
        if enough {
            break;
        }
    }
    Ok(found)
}

/// Elements of the keys that the bootstraps of a graph need.
fn bootstrap_keys(graph: &he::Graph, shape: &Shape) -> BTreeSet<u64> {
    let bootstraps = graph.nodes.iter().filter(|n| matches!(n.op, he::Op::Bootstrap { .. }));
    let slots: BTreeSet<u32> = bootstraps.map(|n| bootstrap_slots(n.layout.period)).collect();
    let keys = shape.bootstrap.as_ref().map(|spec| spec.keys(shape.log_n, 0, &slots).galois);
    keys.filter(|_| !slots.is_empty()).unwrap_or_default().into_keys().collect()
}

/// Passes on the ciphertext graph, for one ring without bootstraps: the graph before levels are placed, and with them.
fn back(
    graph: &nn::Graph,
    log_n: u32,
    options: &Options,
    driver: &mut Driver<'_>,
) -> Result<(he::Graph, Placed), CompileError> {
    let ready = ready(graph, log_n, options, driver)?;
    // Every value goes to the lowest level its users allow.
    let (mut levels, mut before) = (Vec::new(), Vec::new());
    let graph = driver.he("levels", &ready, |g| {
        let placed = levels::run(g);
        (levels, before) = (placed.levels, placed.before);
        placed.graph
    })?;
    Ok((ready, Placed { graph, levels, before }))
}

/// Passes on the ciphertext graph up to the placement of levels.
fn ready(graph: &nn::Graph, log_n: u32, options: &Options, driver: &mut Driver<'_>) -> Result<he::Graph, CompileError> {
    let slots = options.mode.image_slots(log_n);
    let cost = options.cost.linear_cost(log_n);
    // Adjacent linear layers become one where the whole network gets cheaper for it.
    let merge = |g: &nn::Graph| if options.merge { Ok(merge_linear(g, slots, &cost)?.graph) } else { Ok(absorb(g)) };
    let graph = driver.try_nn("merge-linear", graph, |g| merge(g).map_err(CompileError::Model))?;
    let lowering = Lowering::new(&graph)?;
    // Layouts are chosen and every linear region becomes one map between them.
    let complex = options.mode != Mode::Latency && options.complex == Complex::On;
    let graph = driver.lower("lower", &graph, |_| {
        lowering.pack(slots, &cost).map(|packed| he::Graph { complex, ..packed }).map_err(CompileError::from)
    })?;
    // Equal nodes and equal constants become one; what no output needs goes.
    let graph = driver.he("common-subexpressions", &graph, common_subexpressions)?;
    // Products are rescaled once per reduction, relinearised once per sum.
    let adapters = scales::adapters(&graph);
    let graph = driver.he("rescale", &graph, |g| rescale::run(g, &adapters))?;
    Ok(driver.he("relinearise", &graph, relinearise::run)?)
}

/// Babies and giants of every map, and parameters. Each depends on the other: babies are priced for plausible
/// parameters first, and once more for those that were selected.
fn ring(
    (ready, placed): (&he::Graph, Placed),
    log_n: u32,
    samples: &[Vec<Tensor>],
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Result<Choice, Unfit>, CompileError> {
    let mut shape = Shape::nominal(log_n, placed.top());
    let analysis = driver.analysed.of(ready, samples)?.placed(&placed);
    let analysed = Stage::analysed(placed, analysis);
    let mut best: Option<Choice> = None;
    for pass in ["plan-bsgs", "replan-bsgs"] {
        let placed = analysed.placed();
        let prices = options.cost.prices(&shape);
        let weights = |id: he::ValueId| {
            let operand = placed.graph.node(id).inputs[0];
            prices.linear_weights(placed.levels[operand.index()])
        };
        let counted = Arc::clone(&driver.counted);
        let stage = analysed.with_babies(driver.he(pass, &placed.graph, |g| plan_bsgs(g, weights, &counted))?);
        match stage.select(log_n, demands, &options.cost) {
            Ok((selected, keys)) => {
                shape = Shape::of(&selected.parameters);
                let objective = selected.price.objective(demands.goal, &options.cost) * share(log_n, options);
                if best.as_ref().is_none_or(|b| objective < b.objective) {
                    best = Some(Choice { stage, selected, keys, objective, chosen: None });
                }
            }
            Err(Unfit::Memory(_)) => break,
            Err(why) if best.is_none() => return Ok(Err(why)),
            Err(_) => {}
        }
    }
    // What makes do with fewer keys by itself may be faster than what is made to.
    if best.as_ref().is_none_or(|b| !b.keys.composed.is_empty()) {
        match fewer_keys(&analysed, &shape, log_n, options, demands, driver)? {
            Ok(other) if best.as_ref().is_none_or(|b| other.objective < b.objective) => best = Some(other),
            Err(why) if best.is_none() => return Ok(Err(why)),
            _ => {}
        }
    }
    Ok(best.ok_or(Unfit::Security))
}

/// The same with as few different rotations as possible, for a memory budget that does not hold the keys of the fastest maps.
fn fewer_keys(
    analysed: &Stage,
    shape: &Shape,
    log_n: u32,
    options: &Options,
    demands: &Demands,
    driver: &mut Driver<'_>,
) -> Result<Result<Choice, Unfit>, CompileError> {
    let placed = analysed.placed();
    let prices = options.cost.prices(shape);
    let level = |id: he::ValueId| placed.levels[placed.graph.node(id).inputs[0].index()];
    let given = BTreeSet::new();
    let price = |id: he::ValueId| SHORT_OF_MEMORY * prices.key_bytes(level(id)) as f64;
    let keys = KeyPrices { log_n, given: &given, price: &price };
    let weights = |id: he::ValueId| prices.linear_weights(level(id));
    let counted = Arc::clone(&driver.counted);
    let planned = driver.he("share-keys", &placed.graph, |g| plan_sharing(g, weights, &keys, &counted))?;
    let stage = analysed.with_babies(planned);
    Ok(stage.select(log_n, demands, &options.cost).map(|(selected, keys)| {
        let objective = selected.price.objective(demands.goal, &options.cost) * share(log_n, options);
        Choice { stage, selected, keys, objective, chosen: None }
    }))
}

/// The share of a run's time that one image costs.
fn share(log_n: u32, options: &Options) -> f64 {
    options.mode.share(log_n, 1 + usize::from(options.complex == Complex::On))
}

/// Whether a chain of the smallest useful primes with so many levels fits at all.
fn deep_enough(top: usize, log_n: u32, security: SecurityLevel) -> bool {
    let limit = fhec_math::security::max_log_qp(security, log_n).unwrap_or(0);
    (top as u32 + 2) * (log_n + PRIME_MARGIN) <= limit
}
