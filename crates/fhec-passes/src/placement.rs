//! Places bootstraps: which values are refreshed, to which level, and at which level every operation runs.
//!
//! The costs of all operations at all levels are known; wanted is the cheapest choice under which no operation runs out of
//! levels. A chain of layers is a shortest path over (layer, level) (Orion §5). Graphs are more: a value that two branches use
//! has one level for both, and a sum takes operands of one level. So operations are taken in order, and what is
//! known of a beginning of the graph is a *state*: the level at which each value that is still needed is available. Of two
//! states of which one has every level at least as high and costs no more the other is forgotten; what is left is few,
//! because few values are alive at a time (two in a residual network). At the end the cheapest state wins, and nothing
//! cheaper exists.
//!
//! One bootstrap of a value is enough: limbs can be dropped for nothing, so all users take the
//! refreshed one, or as few of its limbs as they want.
//!
//! An operation may have variants, as an activation has polynomials of several degrees: then one is chosen with the level, by
//! the same search. What a variant does to the result of the network is part of its cost (`crate::joint`).

use std::collections::BTreeMap;

/// Most states kept after an operation. Far more than residual networks need; where it does not suffice the cheapest
/// ones and those with the highest levels are kept, and the result may not be the best.
const MAX_STATES: usize = 1 << 14;

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
    /// Whether nothing cheaper exists; false where too many values were alive at once to be sure.
    pub exact: bool,
}

/// A way to have come so far.
#[derive(Clone, Debug)]
struct State {
    /// Level at which each live value is available, in the order of the values.
    available: Vec<u8>,
    cost: f64,
    /// The state before, in the list of the step before.
    parent: u32,
    decision: Decision,
}

/// Finds the cheapest placement; `None` where there is none, because an operation alone takes more levels than there are.
///
/// Levels are those for which costs are given. Steps are in topological order.
pub fn place(steps: &[Step]) -> Option<Placement> {
    place_below(steps, f64::INFINITY)
}

/// [`place`], where only placements that cost less than `limit` are of interest: `None` where there is none.
pub fn place_below(steps: &[Step], limit: f64) -> Option<Placement> {
    let search = Search::new(steps, limit);
    let (history, exact) = search.run(vec![vec![State::root()]], None)?;
    trace_back(&history, exact)
}

/// What every bootstrap of a placement is worth: the cost of the best placement without it, or `None` where there is none.
/// By step; `None` too where nothing is bootstrapped.
pub fn alternatives(steps: &[Step], placement: &Placement) -> Vec<Option<f64>> {
    let search = Search::new(steps, f64::INFINITY);
    let Some((history, _)) = search.run(vec![vec![State::root()]], None) else { return vec![None; steps.len()] };
    let without = |(i, decision): (usize, &Decision)| {
        decision.bootstrap?;
        search.without(&history, i, placement.cost)
    };
    placement.decisions.iter().enumerate().map(without).collect()
}

impl State {
    /// Before the first step.
    fn root() -> Self {
        State { available: vec![], cost: 0.0, parent: 0, decision: Decision { level: 0, variant: 0, bootstrap: None } }
    }
}

/// The search over one list of steps.
struct Search<'a> {
    steps: &'a [Step],
    /// The last step that takes each value; itself where there is none.
    last_use: Vec<usize>,
    /// Values that are alive before each step, in rising order.
    live: Vec<Vec<usize>>,
    /// What the steps from each one on cost at least.
    rest: Vec<f64>,
    /// Placements must cost less.
    limit: f64,
}

/// States that agree in all values but those of a step: by the level up to which the step can run, the cheapest of them.
#[derive(Clone, Copy)]
struct Parent {
    highest: usize,
    cost: f64,
    number: u32,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step], limit: f64) -> Self {
        let mut last_use: Vec<usize> = (0..steps.len()).collect();
        for (i, step) in steps.iter().enumerate() {
            step.inputs.iter().for_each(|&v| last_use[v] = i);
        }
        let mut live = vec![Vec::new()];
        for i in 0..steps.len() {
            let before: &Vec<usize> = &live[i];
            live.push(before.iter().copied().chain([i]).filter(|&v| last_use[v] > i).collect());
        }
        let mut rest = vec![0.0; steps.len() + 1];
        for (i, step) in steps.iter().enumerate().rev() {
            let costs = step.variants.iter().flat_map(|v| v.cost.iter().copied());
            rest[i] = rest[i + 1] + costs.fold(f64::INFINITY, f64::min);
        }
        Search { steps, last_use, live, rest, limit }
    }

    /// Goes on from the last list of states to the end, `forbidden` being the step whose result is not bootstrapped. `None`
    /// where no state is left.
    fn run(&self, mut history: Vec<Vec<State>>, forbidden: Option<usize>) -> Option<(Vec<Vec<State>>, bool)> {
        let mut exact = true;
        for i in history.len() - 1..self.steps.len() {
            let (states, all) = self.advance(i, &history[i], forbidden != Some(i));
            if states.is_empty() {
                return None;
            }
            exact &= all;
            history.push(states);
        }
        Some((history, exact))
    }

    /// The least cost without the bootstrap of step `at`, where `history` is that of all placements and `best` the least cost
    /// with it.
    fn without(&self, history: &[Vec<State>], at: usize, best: f64) -> Option<f64> {
        let (mut states, _) = self.advance(at, &history[at], false);
        for (i, all) in history.iter().enumerate().take(self.steps.len()).skip(at + 1) {
            if states.is_empty() {
                return None;
            }
            // Where the difference is the same for every state, it stays so.
            if let Some(more) = difference(&states, all) {
                return Some(best + more);
            }
            states = self.advance(i, &states, true).0;
        }
        states.iter().map(|s| s.cost).min_by(f64::total_cmp)
    }

    /// The states after step `i`. The flag tells whether all that matter were kept.
    fn advance(&self, i: usize, states: &[State], refreshed: bool) -> (Vec<State>, bool) {
        let (step, live) = (&self.steps[i], &self.live[i]);
        let operands: Vec<usize> =
            step.inputs.iter().map(|v| live.binary_search(v).expect("operands come before and are alive")).collect();
        let kept: Vec<usize> = (0..live.len()).filter(|&k| self.last_use[live[k]] > i).collect();
        let used_later = self.last_use[i] > i;
        let top = step.variants.iter().map(|v| v.cost.len()).max().unwrap_or(1) - 1;
        let mut groups: BTreeMap<Vec<u8>, Vec<Parent>> = BTreeMap::new();
        for (number, state) in states.iter().enumerate() {
            let highest = operands.iter().map(|&k| usize::from(state.available[k])).min().unwrap_or(top).min(top);
            let parent = Parent { highest, cost: state.cost, number: number as u32 };
            groups.entry(kept.iter().map(|&k| state.available[k]).collect()).or_default().push(parent);
        }
        let mut next = Vec::new();
        for (available, parents) in groups {
            let refresh = step.bootstrap.as_ref().filter(|_| refreshed && used_later);
            for (result, parent, decision, cost) in choices(step, refresh, parents) {
                // What nobody uses, an output of the network, needs no levels.
                let result = used_later.then_some(result as u8);
                if cost + self.rest[i + 1] < self.limit {
                    let available = available.iter().copied().chain(result).collect();
                    next.push(State { available, cost, parent, decision });
                }
            }
        }
        undominated(next)
    }
}

/// What can be done with a step in states that agree in everything else: the level at which the result is available, the
/// parent, the decision and the cost. Of what is dearer and leads no higher nothing is listed.
fn choices(step: &Step, refresh: Option<&Refresh>, mut parents: Vec<Parent>) -> Vec<(usize, u32, Decision, f64)> {
    parents.sort_by(|a, b| b.highest.cmp(&a.highest).then(a.cost.total_cmp(&b.cost)));
    let mut list: Vec<(usize, u32, Decision, f64)> = Vec::new();
    for (variant, Variant { consumed, cost }) in step.variants.iter().enumerate() {
        // The cheapest parent for every level that the step may run at.
        let mut cheapest: Option<Parent> = None;
        let mut rest = parents.iter().copied().peekable();
        for level in (*consumed..cost.len()).rev() {
            while let Some(parent) = rest.next_if(|p| p.highest >= level) {
                if cheapest.is_none_or(|c| parent.cost < c.cost) {
                    cheapest = Some(parent);
                }
            }
            if let Some(parent) = cheapest {
                let decision = Decision { level, variant, bootstrap: None };
                list.push((level - consumed, parent.number, decision, parent.cost + cost[level]));
            }
        }
    }
    if let Some(refresh) = refresh {
        let enough = list.iter().copied().filter(|&(result, ..)| result >= refresh.from);
        if let Some((_, parent, decision, before)) = enough.min_by(|a, b| a.3.total_cmp(&b.3)) {
            let bootstrapped = |(target, cost): (usize, &f64)| {
                (target, parent, Decision { bootstrap: Some(target), ..decision }, before + cost)
            };
            list.extend(refresh.cost.iter().enumerate().map(bootstrapped));
        }
    }
    // From the highest results on only what is cheaper than all before.
    list.sort_by(|a, b| b.0.cmp(&a.0).then(a.3.total_cmp(&b.3)));
    let mut least = f64::INFINITY;
    list.retain(|&(.., cost)| {
        let cheaper = cost < least;
        least = least.min(cost);
        cheaper
    });
    list
}

/// By how much one list of states costs more than another, if that is the same for all.
fn difference(dearer: &[State], states: &[State]) -> Option<f64> {
    /// Costs are sums in different orders.
    const ROUNDING: f64 = 1e-9;
    let more = dearer.first()?.cost - states.first()?.cost;
    let same = |(a, b): (&State, &State)| {
        a.available == b.available && (a.cost - b.cost - more).abs() <= ROUNDING * a.cost.abs()
    };
    (dearer.len() == states.len() && dearer.iter().zip(states).all(same)).then_some(more)
}

/// Forgets states that another one is at least as good as. The flag tells whether that was enough to keep all others.
fn undominated(mut states: Vec<State>) -> (Vec<State>, bool) {
    states.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| b.available.cmp(&a.available)));
    let mut covered = Covered::of(&states);
    let mut kept: Vec<State> = Vec::new();
    let mut exact = true;
    for state in states {
        if covered.holds(&kept, &state) {
            continue;
        }
        if kept.len() < MAX_STATES {
            covered.add(&state);
            kept.push(state);
            continue;
        }
        // One that can go on longest must stay, or there may be no way on at all.
        exact = false;
        let sum = |s: &State| s.available.iter().map(|&a| u32::from(a)).sum::<u32>();
        let last = kept.len() - 1;
        if sum(&state) > sum(&kept[last]) {
            kept[last] = state;
        }
    }
    (kept, exact)
}

/// Which levels of the live values are no higher than those of a state that was kept.
enum Covered {
    /// A flag for every combination of levels; the first value's level counts by one, each further one's by the product of
    /// those before.
    Grid { flags: Vec<bool>, sizes: Vec<usize> },
    /// There are too many combinations for that.
    Compared,
}

impl Covered {
    /// Most combinations for which there are flags.
    const MAX_FLAGS: usize = 1 << 20;

    /// Nothing so far, for states like these.
    fn of(states: &[State]) -> Self {
        let values = states.first().map_or(0, |s| s.available.len());
        let size = |k: usize| 1 + states.iter().map(|s| usize::from(s.available[k])).max().unwrap_or(0);
        let sizes: Vec<usize> = (0..values).map(size).collect();
        match sizes.iter().try_fold(1, |all: usize, &size| all.checked_mul(size)) {
            Some(all) if all <= Self::MAX_FLAGS => Covered::Grid { flags: vec![false; all], sizes },
            _ => Covered::Compared,
        }
    }

    fn holds(&self, kept: &[State], state: &State) -> bool {
        match self {
            Covered::Grid { flags, sizes } => flags[Self::at(sizes, state)],
            Covered::Compared => kept.iter().any(|k| k.available.iter().zip(&state.available).all(|(a, b)| a >= b)),
        }
    }

    fn at(sizes: &[usize], state: &State) -> usize {
        state.available.iter().zip(sizes).rev().fold(0, |at, (&level, size)| at * size + usize::from(level))
    }

    /// Flags all that a state covers. What is below a flag is flagged already, so that each is set once.
    fn add(&mut self, state: &State) {
        let Covered::Grid { flags, sizes } = self else { return };
        let mut open = vec![Self::at(sizes, state)];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut flags[at], true) {
                continue;
            }
            let mut step = 1;
            for size in &*sizes {
                if at / step % size > 0 {
                    open.push(at - step);
                }
                step *= size;
            }
        }
    }
}

/// The decisions that lead to the cheapest of the last states.
fn trace_back(history: &[Vec<State>], exact: bool) -> Option<Placement> {
    let last = history.last()?;
    let (mut at, best) = last.iter().enumerate().min_by(|(_, a), (_, b)| a.cost.total_cmp(&b.cost))?;
    let cost = best.cost;
    let mut decisions = Vec::with_capacity(history.len() - 1);
    for states in history[1..].iter().rev() {
        decisions.push(states[at].decision);
        at = states[at].parent as usize;
    }
    decisions.reverse();
    Some(Placement { decisions, cost, exact })
}

#[cfg(test)]
mod tests;
