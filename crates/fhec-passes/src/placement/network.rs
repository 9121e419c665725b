//! The levels that placement chooses, and what they have to do with each other.
//!
//! Limbs can be dropped for nothing, so all that matters of a value is a level at which it is available *at least*: the highest that
//! one of its users wants. Values with the same users are wanted at the same level. So there is one *variable* for every set of
//! users that a value has, and the cost of a step is a table by two of them: the level of its operands and that of its
//! result, both at least, whatever variant, level and bootstrap are the cheapest between. A step that takes values with
//! different users, as a sum of a branch and a shortcut does, runs at a level of its own, that of the set of this one user; sets that
//! hold others are available at least as high as those.
//!
//! A set that holds another need not be compared with the users that both hold. Of nested sets, as in densely
//! connected networks where every layer takes all values before, each is compared with the next only.

use super::{Decision, Step, Variant};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A table over at most two variables.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    /// The level of the operands, or that which is at least as high; any, where there is none.
    pub(super) first: Option<usize>,
    /// The level of the result, or that which is at most as high; 0 where there is none.
    pub(super) second: Option<usize>,
    /// Costs by first and second level.
    values: &'a [f64],
}

/// The variables of a step's operands and of its result, where it has operands and its result is used.
type Ends = (Option<usize>, Option<usize>);

/// What there is to choose.
pub(super) struct Network<'a> {
    steps: &'a [Step],
    /// Levels that there are.
    count: usize,
    /// By variable: the lowest level that serves all of its users, and the highest that there is a way to.
    range: Vec<(usize, usize)>,
    /// The variable of the operands of every step, and that of its result.
    ends: Vec<Ends>,
    /// Cost by level of the operands and of the result, of every step.
    costs: Vec<Vec<f64>>,
    /// Pairs of variables of which the first is no lower.
    above: Vec<(usize, usize)>,
    /// The table of such a pair.
    no_lower: Vec<f64>,
    /// Users of each variable.
    users: Vec<Vec<usize>>,
}

impl<'a> Network<'a> {
    /// `None` where there is no placement.
    pub(super) fn new(steps: &'a [Step]) -> Option<Self> {
        let variants = || steps.iter().flat_map(|s| &s.variants).map(|v| v.cost.len());
        let count = variants().chain(steps.iter().flat_map(|s| &s.bootstrap).map(|b| b.cost.len())).max()?;
        let mut used_by: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
        for (i, step) in steps.iter().enumerate() {
            step.inputs.iter().for_each(|&v| used_by[v].push(i));
        }
        used_by.iter_mut().for_each(|users| users.dedup());
        let (ends, users) = variables(steps, &used_by);

        // The highest level of every value.
        let mut highest: Vec<usize> = Vec::with_capacity(steps.len());
        let mut range: Vec<(usize, usize)> = vec![(0, count - 1); users.len()];
        let mut costs: Vec<Vec<f64>> = Vec::with_capacity(steps.len());
        for ((step, used_by), &(operand, result)) in steps.iter().zip(&used_by).zip(&ends) {
            let refreshed = !used_by.is_empty();
            let cost = table(step, count, refreshed);
            let top = step.inputs.iter().map(|&v| highest[v]).min().unwrap_or(count - 1);
            let reached = (0..count).rev().find(|&r| cost[top * count + r].is_finite())?;
            highest.push(reached);
            if let Some(operand) = operand {
                let lowest = (0..=top).find(|&a| cost[a * count].is_finite())?;
                range[operand].0 = range[operand].0.max(lowest);
                range[operand].1 = range[operand].1.min(top);
            }
            if let Some(result) = result {
                range[result].1 = range[result].1.min(reached);
            }
            costs.push(cost);
        }
        let above = nested(&ends, &users);
        // From small sets to those that hold them, and the other way for what is reached.
        let mut links = above.clone();
        links.sort_by_key(|&(large, _)| users[large].len());
        links.iter().for_each(|&(large, small)| range[large].0 = range[large].0.max(range[small].0));
        links.iter().rev().for_each(|&(large, small)| range[small].1 = range[small].1.min(range[large].1));
        let no_lower = (0..count * count).map(|k| if k / count >= k % count { 0.0 } else { f64::INFINITY }).collect();
        let possible = range.iter().all(|&(low, high)| low <= high);
        possible.then_some(Network { steps, count, range, ends, costs, above, no_lower, users })
    }

    /// All tables; those of the steps come first.
    pub(super) fn factors(&self) -> impl Iterator<Item = Factor<'_>> {
        let costs = self.ends.iter().zip(&self.costs);
        let costs = costs.map(|(&(first, second), values)| Factor { first, second, values });
        let of = |&(first, second)| Factor { first: Some(first), second: Some(second), values: &self.no_lower };
        costs.chain(self.above.iter().map(of))
    }

    /// One entry of a table, by the levels of its variables.
    pub(super) fn at(&self, factor: Factor<'_>, first: Option<usize>, second: Option<usize>) -> f64 {
        factor.values[first.unwrap_or(self.count - 1) * self.count + second.unwrap_or(0)]
    }

    /// The cost of a step whose result is not bootstrapped.
    pub(super) fn without_bootstrap(&self, step: usize) -> Vec<f64> {
        table(&self.steps[step], self.count, false)
    }

    /// The table of a step with other costs.
    pub(super) fn replaced<'b>(&self, step: usize, values: &'b [f64]) -> Factor<'b> {
        let (first, second) = self.ends[step];
        Factor { first, second, values }
    }

    /// All variables at the highest levels that can be reached: if there is a placement, this leads to one.
    pub(super) fn highest(&self) -> Vec<usize> {
        self.range.iter().map(|&(_, high)| high).collect()
    }

    /// The levels that each variable may have.
    pub(super) fn all(&self) -> Vec<Vec<usize>> {
        self.range.iter().map(|&(low, high)| (low..=high).collect()).collect()
    }

    /// Of these some that are far apart: the given ones, those by so much higher and lower, and both ends.
    pub(super) fn around(&self, levels: &[usize], by: usize) -> Vec<Vec<usize>> {
        let some = |(&level, &(low, high)): (&usize, &(usize, usize))| {
            let mut some = vec![low, level.saturating_sub(by).max(low), level, (level + by).min(high), high];
            some.sort_unstable();
            some.dedup();
            some
        };
        levels.iter().zip(&self.range).map(some).collect()
    }

    /// What all steps cost at least.
    pub(super) fn least(&self) -> f64 {
        let least = |cost: &Vec<f64>| cost.iter().copied().fold(f64::INFINITY, f64::min);
        self.costs.iter().map(least).sum()
    }

    /// The cheapest decisions for given levels of the variables.
    pub(super) fn decisions(&self, levels: &[usize]) -> Vec<Decision> {
        (0..self.steps.len()).map(|i| self.decision(i, &self.steps[i], levels)).collect()
    }

    /// The same without the bootstrap of one step.
    pub(super) fn decisions_without(&self, levels: &[usize], step: usize) -> Vec<Decision> {
        let mut decisions = self.decisions(levels);
        decisions[step] = self.decision(step, &Step { bootstrap: None, ..self.steps[step].clone() }, levels);
        decisions
    }

    fn decision(&self, i: usize, step: &Step, levels: &[usize]) -> Decision {
        let (operand, result) = self.ends[i];
        cheapest(step, operand.map_or(self.count - 1, |v| levels[v]), result.map(|v| levels[v]))
    }

    /// The levels of the variables that decisions need.
    pub(super) fn levels_of(&self, decisions: &[Decision]) -> Vec<usize> {
        let wanted = |users: &Vec<usize>| users.iter().map(|&i| decisions[i].level).max().unwrap_or(0);
        self.users.iter().zip(&self.range).map(|(users, &(low, high))| wanted(users).clamp(low, high)).collect()
    }
}

/// The variables of operands and result of every step, and the users of every variable.
fn variables(steps: &[Step], used_by: &[Vec<usize>]) -> (Vec<Ends>, Vec<Vec<usize>>) {
    let mut numbers: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    let mut number = |users: Vec<usize>| {
        let next = numbers.len();
        *numbers.entry(users).or_insert(next)
    };
    let mut ends: Vec<Ends> = Vec::with_capacity(steps.len());
    for (i, (step, users)) in steps.iter().zip(used_by).enumerate() {
        let operand = step.inputs.first().map(|&v| {
            let same = step.inputs.iter().all(|&w| used_by[w] == used_by[v]);
            number(if same { used_by[v].clone() } else { vec![i] })
        });
        ends.push((operand, (!users.is_empty()).then(|| number(users.clone()))));
    }
    let mut users = vec![Vec::new(); numbers.len()];
    numbers.into_iter().for_each(|(set, number)| users[number] = set);
    (ends, users)
}

/// Pairs of variables of which the first is no lower, as few as say it of all users: first those with many users in common.
fn nested(ends: &[Ends], users: &[Vec<usize>]) -> Vec<(usize, usize)> {
    // The variables that each step is a user of, those with many users first.
    let mut of: Vec<Vec<usize>> = vec![Vec::new(); ends.len()];
    for (variable, users) in users.iter().enumerate() {
        users.iter().for_each(|&i| of[i].push(variable));
    }
    of.iter_mut().for_each(|list| list.sort_by_key(|&v| (Reverse(users[v].len()), v)));
    let mut pairs = Vec::new();
    for (large, set) in users.iter().enumerate() {
        // Those that take this variable as it is are served.
        let mut open: Vec<usize> = set.iter().copied().filter(|&i| ends[i].0 != Some(large)).collect();
        while let Some(&first) = open.first() {
            let inside =
                |&v: &usize| users[v].len() < set.len() && users[v].iter().all(|i| set.binary_search(i).is_ok());
            let small = of[first].iter().copied().find(inside).expect("the step has a variable of its own");
            open.retain(|i| users[small].binary_search(i).is_err());
            pairs.push((large, small));
        }
    }
    pairs
}

/// The least cost of a step by the level at which its operands are available and that at which its result is wanted, both at
/// least; infinite where there is no way.
fn table(step: &Step, count: usize, refreshed: bool) -> Vec<f64> {
    let mut costs = vec![f64::INFINITY; count * count];
    // What it costs at least to be able to bootstrap, by level of the operands.
    let mut before = vec![f64::INFINITY; count];
    let refresh = step.bootstrap.as_ref().filter(|_| refreshed);
    for Variant { consumed, cost } in &step.variants {
        for (level, &cost) in cost.iter().enumerate().skip(*consumed) {
            let result = level - consumed;
            let slot = &mut costs[level * count + result];
            *slot = slot.min(cost);
            if refresh.is_some_and(|r| result >= r.from) {
                before[level] = before[level].min(cost);
            }
        }
    }
    let targets = refresh.map(|refresh| at_least(&refresh.cost, count));
    let mut cheapest = f64::INFINITY;
    for (level, &before) in before.iter().enumerate() {
        cheapest = cheapest.min(before);
        let mut least = f64::INFINITY;
        for result in (0..count).rev() {
            let at = level * count + result;
            least = least.min(costs[at]);
            costs[at] = least;
            if let Some(targets) = &targets {
                costs[at] = costs[at].min(cheapest + targets[result]);
            }
            if level > 0 {
                costs[at] = costs[at].min(costs[at - count]);
            }
        }
    }
    costs
}

/// The least of the costs from each level on.
fn at_least(cost: &[f64], count: usize) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; count];
    let mut so_far = f64::INFINITY;
    for (level, &cost) in cost.iter().enumerate().rev() {
        so_far = so_far.min(cost);
        least[level] = so_far;
    }
    least
}

/// The decision behind an entry of [`table`]; of those that cost the same one without a bootstrap, at the lowest level: fresh inputs,
/// which cost nothing at any, are as small as they can be. A result that nobody wants is not bootstrapped.
fn cheapest(step: &Step, most: usize, result: Option<usize>) -> Decision {
    let wanted = result.unwrap_or(0);
    let refresh = step.bootstrap.as_ref().filter(|_| result.is_some());
    let target = refresh.and_then(|refresh| {
        let targets = refresh.cost.iter().enumerate().skip(wanted);
        targets.min_by(|a, b| a.1.total_cmp(b.1)).map(|(target, cost)| (refresh.from, target, cost))
    });
    let mut best: Option<(f64, Decision)> = None;
    let mut offer = |cost: f64, decision: Decision| {
        if best.as_ref().is_none_or(|&(least, _)| cost < least) {
            best = Some((cost, decision));
        }
    };
    for (variant, Variant { consumed, cost }) in step.variants.iter().enumerate() {
        for (level, &cost) in cost.iter().enumerate().take(most + 1).skip(*consumed) {
            if level - consumed >= wanted {
                offer(cost, Decision { level, variant, bootstrap: None });
            }
            if let Some((_, target, more)) = target.filter(|&(from, ..)| level - consumed >= from) {
                offer(cost + more, Decision { level, variant, bootstrap: Some(target) });
            }
        }
    }
    best.expect("levels were chosen between which there is a way").1
}
