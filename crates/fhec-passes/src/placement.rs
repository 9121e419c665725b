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

use std::collections::BTreeMap;

/// Most states kept after an operation. Far more than residual networks need; where it does not suffice the cheapest
/// ones and those with the highest levels are kept, and the result may not be the best.
const MAX_STATES: usize = 1 << 14;

/// What placement must know of an operation and its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Steps whose results it takes; none for a fresh input.
    pub inputs: Vec<usize>,
    /// Levels between its operands and its result.
    pub consumed: usize,
    /// Cost by level of the operands (for an input: its level).
    pub cost: Vec<f64>,
    /// How its result can be bootstrapped, if at all.
    pub bootstrap: Option<Refresh>,
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
    let mut last_use: Vec<usize> = (0..steps.len()).collect();
    for (i, step) in steps.iter().enumerate() {
        step.inputs.iter().for_each(|&v| last_use[v] = i);
    }
    let mut live: Vec<usize> = Vec::new();
    let root = State { available: vec![], cost: 0.0, parent: 0, decision: Decision { level: 0, bootstrap: None } };
    let mut history = vec![vec![root]];
    let mut exact = true;
    for (i, step) in steps.iter().enumerate() {
        let operands: Vec<usize> =
            step.inputs.iter().map(|v| live.binary_search(v).expect("operands come before and are alive")).collect();
        let kept: Vec<usize> = (0..live.len()).filter(|&k| last_use[live[k]] > i).collect();
        let used_later = last_use[i] > i;
        let mut found: BTreeMap<Vec<u8>, State> = BTreeMap::new();
        for (parent, state) in history.last()?.iter().enumerate() {
            let highest = operands.iter().map(|&k| usize::from(state.available[k])).min();
            for (decision, result, cost) in choices(step, highest.unwrap_or(step.cost.len() - 1), used_later) {
                let mut available: Vec<u8> = kept.iter().map(|&k| state.available[k]).collect();
                if used_later {
                    available.push(result as u8);
                }
                let next = State { available, cost: state.cost + cost, parent: parent as u32, decision };
                if found.get(&next.available).is_none_or(|known| next.cost < known.cost) {
                    found.insert(next.available.clone(), next);
                }
            }
        }
        let (states, all) = undominated(found.into_values().collect());
        exact &= all;
        history.push(states);
        live = kept.iter().map(|&k| live[k]).chain(used_later.then_some(i)).collect();
    }
    trace_back(history, exact)
}

/// What can be done with a step whose operands are available up to `highest`: the decision, the level at which the
/// result is available, and the cost.
fn choices(step: &Step, highest: usize, used_later: bool) -> Vec<(Decision, usize, f64)> {
    let levels = step.consumed..=highest.min(step.cost.len() - 1);
    let plain = |level: usize| (Decision { level, bootstrap: None }, level - step.consumed, step.cost[level]);
    let mut list: Vec<_> = levels.clone().map(plain).collect();
    // What nobody uses, an output of the network, needs no levels.
    if let Some(refresh) = step.bootstrap.as_ref().filter(|_| used_later) {
        let enough = levels.filter(|level| level - step.consumed >= refresh.from);
        if let Some(level) = enough.min_by(|&a, &b| step.cost[a].total_cmp(&step.cost[b])) {
            for (target, cost) in refresh.cost.iter().enumerate() {
                list.push((Decision { level, bootstrap: Some(target) }, target, step.cost[level] + cost));
            }
        }
    }
    list
}

/// Forgets states that another one is at least as good as. The flag tells whether that was enough to keep all others.
fn undominated(mut states: Vec<State>) -> (Vec<State>, bool) {
    states.sort_by(|a, b| a.cost.total_cmp(&b.cost).then_with(|| b.available.cmp(&a.available)));
    let mut kept: Vec<State> = Vec::new();
    let mut exact = true;
    for state in states {
        let covers = |k: &State| k.available.iter().zip(&state.available).all(|(a, b)| a >= b);
        if kept.iter().any(covers) {
            continue;
        }
        if kept.len() < MAX_STATES {
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

/// The decisions that lead to the cheapest of the last states.
fn trace_back(history: Vec<Vec<State>>, exact: bool) -> Option<Placement> {
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

/// What every bootstrap of a placement is worth: the cost of the best placement without it, or `None` where there is none.
/// By step; empty where nothing is bootstrapped.
pub fn alternatives(steps: &[Step], placement: &Placement) -> Vec<Option<f64>> {
    let mut steps = steps.to_vec();
    placement
        .decisions
        .iter()
        .enumerate()
        .map(|(i, decision)| {
            decision.bootstrap?;
            let refresh = steps[i].bootstrap.take();
            let without = place(&steps).map(|p| p.cost);
            steps[i].bootstrap = refresh;
            without
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cost of given decisions, if they are possible at all.
    fn judge(steps: &[Step], decisions: &[Decision]) -> Option<f64> {
        let mut available: Vec<usize> = Vec::new();
        let mut total = 0.0;
        for (step, decision) in steps.iter().zip(decisions) {
            if step.inputs.iter().any(|&v| available[v] < decision.level) {
                return None;
            }
            total += step.cost.get(decision.level)?;
            let raw = decision.level.checked_sub(step.consumed)?;
            available.push(match (decision.bootstrap, &step.bootstrap) {
                (None, _) => raw,
                (Some(target), Some(refresh)) if raw >= refresh.from => {
                    total += refresh.cost.get(target)?;
                    target
                }
                _ => return None,
            });
        }
        Some(total)
    }

    /// Every combination of decisions.
    fn exhaustive(steps: &[Step], chosen: &mut Vec<Decision>) -> Option<f64> {
        let Some(step) = steps.get(chosen.len()) else { return judge(steps, chosen) };
        let mut best: Option<f64> = None;
        for level in 0..step.cost.len() {
            let targets = step.bootstrap.iter().flat_map(|r| 0..r.cost.len()).map(Some);
            for bootstrap in std::iter::once(None).chain(targets) {
                chosen.push(Decision { level, bootstrap });
                if judge(&steps[..chosen.len()], chosen).is_some()
                    && let Some(cost) = exhaustive(steps, chosen)
                {
                    best = Some(best.map_or(cost, |b: f64| b.min(cost)));
                }
                chosen.pop();
            }
        }
        best
    }

    const TOP: usize = 3;

    /// Random graphs: every step takes one or two earlier values.
    fn graphs() -> impl Strategy<Value = Vec<Step>> {
        let costs = || prop::collection::vec((0u8..40).prop_map(f64::from), TOP + 1);
        let refresh = (0usize..2, costs()).prop_map(|(from, cost)| Refresh { from, cost });
        let step = (any::<[u16; 2]>(), 1usize..3, 0usize..3, costs(), prop::option::weighted(0.7, refresh));
        prop::collection::vec(step, 2..6).prop_map(|list| {
            let step = |(i, (picks, count, consumed, cost, bootstrap)): (usize, ([u16; 2], usize, usize, _, _))| Step {
                inputs: picks[..count.min(i)].iter().map(|&x| usize::from(x) % i).collect(),
                consumed: if i == 0 { 0 } else { consumed },
                cost,
                bootstrap,
            };
            list.into_iter().enumerate().map(step).collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_is_cheaper(steps in graphs()) {
            let placement = place(&steps);
            let best = exhaustive(&steps, &mut Vec::new());
            prop_assert_eq!(placement.as_ref().map(|p| p.cost), best);
            if let Some(p) = placement {
                prop_assert!(p.exact);
                prop_assert_eq!(judge(&steps, &p.decisions), Some(p.cost));
            }
        }
    }

    /// A step whose cost grows with the level, as real ones do.
    fn layer(inputs: &[usize], consumed: usize, top: usize) -> Step {
        let cost = (0..=top).map(|level| (1 + level) as f64).collect();
        let refresh = Refresh { from: 2, cost: (0..=top).map(|t| 100.0 + 5.0 * t as f64).collect() };
        Step { inputs: inputs.to_vec(), consumed, cost, bootstrap: Some(refresh) }
    }

    /// Bellman's recursion over (layer, level), by itself.
    fn shortest_path(steps: &[Step]) -> f64 {
        let top = steps[0].cost.len() - 1;
        let mut best: Vec<f64> = steps[0].cost.clone();
        for step in &steps[1..] {
            let mut next = vec![f64::INFINITY; top + 1];
            for (have, so_far) in best.iter().enumerate() {
                for level in step.consumed..=have {
                    let (raw, cost) = (level - step.consumed, so_far + step.cost[level]);
                    next[raw] = next[raw].min(cost);
                    if let Some(refresh) = step.bootstrap.as_ref().filter(|r| raw >= r.from) {
                        refresh.cost.iter().enumerate().for_each(|(t, c)| next[t] = next[t].min(cost + c));
                    }
                }
            }
            best = next;
        }
        best.into_iter().fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn a_chain_is_a_shortest_path() {
        let top = 14;
        let mut steps = vec![layer(&[], 0, top)];
        for i in 0..40 {
            steps.push(layer(&[i], [1, 5][i % 2], top));
        }
        let placement = place(&steps).expect("every step fits");
        assert_eq!(placement.cost, shortest_path(&steps));
        // 20 · 6 levels, of which a bootstrap gives at most 12.
        let bootstraps = placement.decisions.iter().filter(|d| d.bootstrap.is_some()).count();
        assert!((9..=11).contains(&bootstraps), "{bootstraps}");
        let alternatives = alternatives(&steps, &placement);
        for (decision, other) in placement.decisions.iter().zip(alternatives) {
            assert_eq!(decision.bootstrap.is_some(), other.is_some());
            assert!(other.is_none_or(|cost| cost >= placement.cost));
        }
    }

    #[test]
    fn a_hundred_residual_blocks_take_no_time_and_are_exact() {
        let top = 16;
        let mut steps = vec![layer(&[], 0, top)];
        for block in 0..100 {
            let x = steps.len() - 1;
            steps.push(layer(&[x], 1, top));
            steps.push(layer(&[x + 1], 6, top));
            steps.push(layer(&[x + 2], 1, top));
            // Every tenth shortcut is a convolution.
            let shortcut = if block % 10 == 0 {
                steps.push(layer(&[x], 1, top));
                x + 4
            } else {
                x
            };
            steps.push(layer(&[x + 3, shortcut], 0, top));
            let sum = steps.len() - 1;
            steps.push(layer(&[sum], 6, top));
        }
        let start = std::time::Instant::now();
        let placement = place(&steps).expect("every step fits");
        println!("{:?}", start.elapsed());
        assert!(placement.exact);
        assert_eq!(judge(&steps, &placement.decisions), Some(placement.cost));
    }

    #[test]
    fn too_deep_a_step_has_no_placement() {
        assert_eq!(place(&[layer(&[], 0, 4), layer(&[0], 5, 4)]), None);
        let without = Step { bootstrap: None, ..layer(&[], 0, 4) };
        assert_eq!(
            place(&[
                without.clone(),
                Step { inputs: vec![0], consumed: 3, ..without.clone() },
                Step { inputs: vec![1], consumed: 3, ..without }
            ]),
            None
        );
    }
}
