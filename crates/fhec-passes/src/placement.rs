//! Places bootstraps: which values are refreshed, to which level, and at which level every operation runs.
//!
//! The costs of all operations at all levels are known; wanted is the cheapest choice under which no operation runs out of
//! levels. A chain of layers is a shortest path over (layer, level), and a residual region becomes one edge of it once it is
//! solved for every pair of levels at its ends (Orion §5). Here both are cases of one method. What an operation costs
//! depends on two numbers, the level at which its operands are available and that at which its result is wanted
//! (`network`), and such levels are *eliminated* one after the other: what a level has to do with is added up, and
//! for every combination of its neighbours the best value of it is kept (`eliminate`). To eliminate a level with one neighbour is a
//! step of a shortest path; with two, it shortens a branch, and branches between the same two levels add up. Regions of
//! series and parallel parts, nested as deep as they may be, become one table this way, with never more than
//! three levels looked at together. Other graphs need more; nothing cheaper exists either, as long as it is done.
//!
//! Where a graph is so entangled that tables would become too large, some levels are held while the best for all others is
//! found, then others are held, until nothing changes. That is not the best for certain, and [`Placement::exact`] says so.
//!
//! One bootstrap of a value is enough: limbs can be dropped for nothing, so all users take the
//! refreshed one, or as few of its limbs as they want.
//!
//! An operation may have variants, as an activation has polynomials of several degrees: then one is chosen with the level, by
//! the same search. What a variant does to the result of the network is part of its cost (`crate::joint`).

mod eliminate;
mod network;

use eliminate::{Elimination, Order};
use network::Network;

/// What placement must know of an operation and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Steps whose results it takes; none for a fresh input.
    pub inputs: Vec<usize>,
    /// Ways to carry it out, at least one.
    pub variants: Vec<Variant>,
    /// How its result can be bootstrapped, if at all.
    pub bootstrap: Option<Refresh>,
}

/// A way to carry out an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Levels between its operands and its result.
    pub consumed: usize,
    /// Cost by level of the operands (for an input: its level); as many levels for every variant of every step.
    pub cost: Vec<f64>,
}

/// How a value can be bootstrapped.
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// Lowest level at which it can begin.
    pub from: usize,
    /// Cost by level of the result.
    pub cost: Vec<f64>,
}

/// What was decided for one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Level of its operands (for an input: its level).
    pub level: usize,
    /// Which of its variants is taken.
    pub variant: usize,
    /// Level that its result is bootstrapped to.
    pub bootstrap: Option<usize>,
}

/// The cheapest placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// One for every step.
    pub decisions: Vec<Decision>,
    /// Sum of all costs.
    pub cost: f64,
    /// Whether nothing cheaper exists; false where levels depend on each other in too many ways to be sure.
    pub exact: bool,
}

/// Most combinations of levels that are looked at.
#[derive(Clone, Copy)]
struct Bounds {
    /// Where no level is held.
    free: u64,
    /// Where some are, each time.
    held: u64,
    /// For one level where others are held; a sixteenth of it is tried as often as that is too much in all.
    each: u64,
}

/// Where nothing is held, about a hundredth of a second; a thousand operations in series and in parallel stay below. A compilation
/// asks for a few hundred placements.
const BOUNDS: Bounds = Bounds { free: 1 << 24, held: 1 << 21, each: 1 << 19 };
/// Most times that other levels are held.
const ROUNDS: usize = 16;
/// So many times in a row without a gain are enough.
const STALE: usize = 6;
/// Sums of the same costs in another order differ by less than this part.
const ROUNDING: f64 = 1e-9;

/// Finds the cheapest placement; `None` where there is none, because an operation alone takes more levels than there are.
///
/// Levels are those for which costs are given. Steps are in topological order.
pub fn place(steps: &[Step]) -> Option<Placement> {
    place_below(steps, f64::INFINITY)
}

/// [`place`], where only placements that cost less than `limit` are of interest: `None` where there is none.
pub fn place_below(steps: &[Step], limit: f64) -> Option<Placement> {
    place_within(steps, limit, BOUNDS)
}

fn place_within(steps: &[Step], limit: f64, bounds: Bounds) -> Option<Placement> {
    let network = Network::new(steps)?;
    if network.least() >= limit {
        return None;
    }
    let choices = network.all();
    let order = Order::new(&network, &choices, u64::MAX, &[]);
    let exact = order.combinations <= bounds.free;
    let levels = if exact {
        let found = Elimination::run(&network, &choices, &order, &network.highest());
        // Nobody asks for the decisions of what is too dear.
        if found.cost() >= limit {
            return None;
        }
        found.levels()
    } else {
        held(&network, bounds)
    };
    let decisions = network.decisions(&levels);
    let cost = cost(steps, &decisions);
    (cost < limit).then_some(Placement { decisions, cost, exact })
}

/// The best placement without one of the bootstraps.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// Sum of all costs.
    pub cost: f64,
    /// Steps whose results are bootstrapped instead: there, but not in the best placement.
    pub instead: Vec<usize>,
}

impl Alternative {
    fn new(cost: f64, decisions: &[Decision], best: &Placement) -> Self {
        let pairs = decisions.iter().zip(&best.decisions).enumerate();
        let instead = pairs.filter(|(_, (d, best))| d.bootstrap.is_some() && best.bootstrap.is_none());
        Alternative { cost: cost.max(best.cost), instead: instead.map(|(i, _)| i).collect() }
    }
}

/// What every bootstrap of a placement is worth: the best placement without it, or `None` where there is none.
/// By step; `None` too where nothing is bootstrapped. Where the placement is not exact neither are these.
pub fn alternatives(steps: &[Step], placement: &Placement) -> Vec<Option<Alternative>> {
    let none = vec![None; steps.len()];
    let Some(network) = Network::new(steps) else { return none };
    let choices = network.all();
    let order = if placement.exact {
        Order::new(&network, &choices, u64::MAX, &[])
    } else {
        bounded(&network, &choices, BOUNDS, &[])
    };
    let found = Elimination::run(&network, &choices, &order, &network.levels_of(&placement.decisions));
    let without = |(i, decision): (usize, &Decision)| {
        decision.bootstrap?;
        if let Some((cost, levels)) = found.with(i, &network.without_bootstrap(i)) {
            return Some(Alternative::new(cost, &network.decisions_without(&levels, i), placement));
        }
        if placement.exact {
            return None;
        }
        // There may be one at other levels than those held.
        let mut steps = steps.to_vec();
        steps[i].bootstrap = None;
        place(&steps).map(|p| Alternative::new(p.cost, &p.decisions, placement))
    };
    placement.decisions.iter().enumerate().map(without).collect()
}

/// Sum of all costs, in the order of the steps.
fn cost(steps: &[Step], decisions: &[Decision]) -> f64 {
    let of = |(step, decision): (&Step, &Decision)| {
        let refresh = step.bootstrap.as_ref().zip(decision.bootstrap).map_or(0.0, |(r, target)| r.cost[target]);
        step.variants[decision.variant].cost[decision.level] + refresh
    };
    steps.iter().zip(decisions).map(of).sum()
}

/// An order in which some levels are held, so that there are few enough combinations; those that were held less often before.
fn bounded(network: &Network<'_>, choices: &[Vec<usize>], bounds: Bounds, times: &[usize]) -> Order {
    let mut most = bounds.each;
    loop {
        let order = Order::new(network, choices, most, times);
        // At last no level has more than one neighbour: a chain.
        if order.combinations <= bounds.held || most < 1 << 8 {
            return order;
        }
        most /= 16;
    }
}

/// Good levels where the best ones cannot be found: from the highest possible on, which lead to a placement if any do, in turns the
/// best of a few for all levels (a corridor around those known, as in discrete differential dynamic programming) and the best of all for
/// as many levels as possible, where those are held that were held least. Nothing gets worse on the way.
fn held(network: &Network<'_>, bounds: Bounds) -> Vec<usize> {
    let mut levels = network.highest();
    let (mut least, mut stale) = (f64::INFINITY, 0);
    let all = network.all();
    let (mut times, mut times_of_few) = (vec![0; levels.len()], vec![0; levels.len()]);
    for round in 0..ROUNDS {
        // Every second time only a few levels each, nearer and nearer to the known one.
        let few = (round % 2 == 0).then(|| network.around(&levels, [4, 2, 1][round / 2 % 3]));
        let times = if few.is_some() { &mut times_of_few } else { &mut times };
        let choices = few.as_ref().unwrap_or(&all);
        let order = bounded(network, choices, bounds, times);
        order.held.iter().for_each(|&v| times[v] += 1);
        let found = Elimination::run(network, choices, &order, &levels);
        levels = found.levels();
        stale = if found.cost() < least * (1.0 - ROUNDING) { 0 } else { stale + 1 };
        least = least.min(found.cost());
        if stale == STALE {
            break;
        }
    }
    levels
}

#[cfg(test)]
mod tests;
