//! Variable elimination (Bertelè and Brioschi's nonserial dynamic programming) over levels.
//!
//! Tables that a variable is part of are added up and the best value of it is kept for every combination of the other variables in
//! them, its neighbours: a table over these, which takes the place of the others. After the last variable the cost of the best is
//! left, and the values follow in reverse. The work is the number of combinations that are looked at, which depends on the order;
//! taken next is always the variable with the fewest combinations.

use super::ROUNDING;
use super::network::{Factor, Network};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// In which order variables are eliminated.
pub(super) struct Order {
    variables: Vec<usize>,
    /// Variables that keep their value instead.
    pub(super) held: Vec<usize>,
    /// Combinations of values that are looked at.
    pub(super) combinations: u64,
}

impl Order {
    /// For variables with the given choices, with at most so many combinations for one: while every one has more, another one is held, first those that were
    /// held the fewest `times`, of these the one with the most neighbours.
    pub(super) fn new(network: &Network<'_>, choices: &[Vec<usize>], most: u64, times: &[usize]) -> Self {
        let size: Vec<u64> = choices.iter().map(|levels| levels.len() as u64).collect();
        let mut near: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); size.len()];
        for factor in network.factors() {
            if let (Some(a), Some(b)) = (factor.first, factor.second) {
                near[a].insert(b);
                near[b].insert(a);
            }
        }
        let combinations =
            |v: usize, near: &BTreeSet<usize>| near.iter().fold(size[v], |all, &w| all.saturating_mul(size[w]));
        let mut open: BTreeSet<(u64, usize)> = (0..size.len()).map(|v| (combinations(v, &near[v]), v)).collect();
        let mut order = Order { variables: Vec::with_capacity(size.len()), held: Vec::new(), combinations: 0 };
        while let Some(&(next, cheapest)) = open.first() {
            let hold = next > most;
            let v = if hold {
                let key = |&(_, v): &(u64, usize)| (times.get(v).copied().unwrap_or(0), Reverse(near[v].len()), v);
                open.iter().min_by_key(|entry| key(entry)).map_or(cheapest, |&(_, v)| v)
            } else {
                order.combinations = order.combinations.saturating_add(next);
                cheapest
            };
            let neighbours = std::mem::take(&mut near[v]);
            open.remove(&(combinations(v, &neighbours), v));
            for &w in &neighbours {
                open.remove(&(combinations(w, &near[w]), w));
                near[w].remove(&v);
                if !hold {
                    near[w].extend(neighbours.iter().filter(|&&other| other != w));
                }
                open.insert((combinations(w, &near[w]), w));
            }
            if hold { &mut order.held } else { &mut order.variables }.push(v);
        }
        order
    }
}

/// A table over variables by their place in the order, the first of which is that of the slowest index.
struct Table {
    scope: Vec<usize>,
    values: Vec<f64>,
}

/// A finished elimination. What belongs to a variable is listed by its place in the order.
pub(super) struct Elimination<'a> {
    network: &'a Network<'a>,
    /// Levels that each variable may have.
    choices: &'a [Vec<usize>],
    variables: Vec<usize>,
    /// Place of every variable; `None` for those held.
    place: Vec<Option<usize>>,
    /// The levels of those held.
    held: Vec<usize>,
    /// Tables of the factors in their order, then what every variable left.
    tables: Vec<Table>,
    /// The tables that are added up for a variable.
    parts: Vec<Vec<usize>>,
    /// Which choice is the best, for every combination of the neighbours.
    best: Vec<Vec<u8>>,
    cost: f64,
}

impl<'a> Elimination<'a> {
    /// Variables that are not in the order are held at their values in `levels`.
    pub(super) fn run(network: &'a Network<'a>, choices: &'a [Vec<usize>], order: &Order, levels: &[usize]) -> Self {
        let variables = order.variables.clone();
        let mut place = vec![None; choices.len()];
        variables.iter().enumerate().for_each(|(k, &v)| place[v] = Some(k));
        let parts = vec![Vec::new(); variables.len()];
        let held = levels.to_vec();
        let mut all =
            Elimination { network, choices, variables, place, held, tables: vec![], parts, best: vec![], cost: 0.0 };
        for factor in network.factors() {
            let table = all.table(factor);
            all.add(table);
        }
        for k in 0..all.variables.len() {
            let (table, best) = all.eliminate(k, &all.parts[k], None);
            all.add(table);
            all.best.push(best);
        }
        all
    }

    /// The least cost.
    pub(super) fn cost(&self) -> f64 {
        self.cost
    }

    /// The levels of all variables for which it is that.
    pub(super) fn levels(&self) -> Vec<usize> {
        self.levels_where(&BTreeMap::new())
    }

    /// The levels of all variables where other choices are the best for some, by their place.
    fn levels_where(&self, other: &BTreeMap<usize, Vec<u8>>) -> Vec<usize> {
        let mut levels = self.held.clone();
        let mut chosen = vec![0; self.variables.len()];
        for (k, &v) in self.variables.iter().enumerate().rev() {
            let neighbours = &self.left_by(k).scope;
            let at = neighbours.iter().fold(0, |at, &place| at * self.size(place) + chosen[place]);
            chosen[k] = usize::from(other.get(&k).unwrap_or(&self.best[k])[at]);
            levels[v] = self.choices[v][chosen[k]];
        }
        levels
    }

    /// The least cost if a step had other ones, and the levels for which it is that; the same variables are held. Nothing where there
    /// is no way.
    ///
    /// Only what was left by the variables from the step on can differ, and where all entries of a table differ by the same, so does
    /// the end.
    pub(super) fn with(&self, step: usize, values: &[f64]) -> Option<(f64, Vec<usize>)> {
        let (mut at, mut table) = (step, self.table(self.network.replaced(step, values)));
        let mut other = BTreeMap::new();
        loop {
            if let Some(more) = difference(&table, &self.tables[at]) {
                let cost = self.cost + more;
                return cost.is_finite().then(|| (cost, self.levels_where(&other)));
            }
            let &k = table.scope.first()?;
            let (left, best) = self.eliminate(k, &self.parts[k], Some((at, &table)));
            (at, table) = (self.number_of_left(k), left);
            other.insert(k, best);
        }
    }

    fn number_of_left(&self, k: usize) -> usize {
        self.tables.len() - self.variables.len() + k
    }

    fn left_by(&self, k: usize) -> &Table {
        &self.tables[self.number_of_left(k)]
    }

    /// Levels that a variable may have, by its place.
    fn size(&self, place: usize) -> usize {
        self.choices[self.variables[place]].len()
    }

    /// A factor as a table over those of its variables that are not held.
    fn table(&self, factor: Factor<'_>) -> Table {
        let ends = [factor.first, factor.second];
        let mut scope: Vec<usize> = ends.iter().flatten().filter_map(|&v| self.place[v]).collect();
        scope.sort_unstable();
        let sizes: Vec<usize> = scope.iter().map(|&k| self.size(k)).collect();
        let value = |number: usize| {
            // The level of a variable in this entry.
            let level = |v: usize| match self.place[v].and_then(|k| scope.iter().position(|&s| s == k)) {
                Some(dim) => {
                    let step: usize = sizes[dim + 1..].iter().product();
                    self.choices[v][number / step % sizes[dim]]
                }
                None => self.held[v],
            };
            self.network.at(factor, factor.first.map(level), factor.second.map(level))
        };
        Table { values: (0..sizes.iter().product()).map(value).collect(), scope }
    }

    /// Puts a table where the first of its variables is eliminated.
    fn add(&mut self, table: Table) {
        match table.scope.first() {
            Some(&k) => self.parts[k].push(self.tables.len()),
            None => self.cost += table.values[0],
        }
        self.tables.push(table);
    }

    /// The table that a variable leaves and its best values, from its tables, of which one may be another.
    fn eliminate(&self, k: usize, parts: &[usize], other: Option<(usize, &Table)>) -> (Table, Vec<u8>) {
        let table = |&at: &usize| other.filter(|o| o.0 == at).map_or(&self.tables[at], |o| o.1);
        let parts: Vec<&Table> = parts.iter().map(table).collect();
        let mut scope: Vec<usize> = parts.iter().flat_map(|t| t.scope.iter().copied()).filter(|&s| s != k).collect();
        scope.sort_unstable();
        scope.dedup();
        let sizes: Vec<usize> = scope.iter().map(|&s| self.size(s)).collect();
        // The last neighbour is the last variable of every table that it is in: its entries lie side by side.
        let (row, outer) = sizes.split_last().map_or((1, &[][..]), |(&last, outer)| (last, outer));
        let (rows, points): (Vec<&Table>, Vec<&Table>) =
            parts.iter().partition(|t| !scope.is_empty() && t.scope.last() == scope.last());
        let strides = |t: &&Table| Strides::of(t, k, &scope[..outer.len()], |s| self.size(s));
        let mut row_strides: Vec<Strides> = rows.iter().map(strides).collect();
        let mut point_strides: Vec<Strides> = points.iter().map(strides).collect();

        let all = sizes.iter().product();
        let (mut values, mut best) = (vec![f64::INFINITY; all], vec![0u8; all]);
        let mut sums = vec![0.0; row];
        let mut index = vec![0; outer.len()];
        for (values, best) in values.chunks_exact_mut(row).zip(best.chunks_exact_mut(row)) {
            for own in 0..self.size(k) {
                let at = |s: &Strides| s.base + own * s.own;
                let point: f64 = points.iter().zip(&point_strides).map(|(t, s)| t.values[at(s)]).sum();
                if point == f64::INFINITY {
                    continue;
                }
                sums.fill(point);
                for (table, strides) in rows.iter().zip(&row_strides) {
                    let part = &table.values[at(strides)..][..row];
                    sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                }
                for ((value, best), &sum) in values.iter_mut().zip(best.iter_mut()).zip(&sums) {
                    if sum < *value {
                        (*value, *best) = (sum, own as u8);
                    }
                }
            }
            // The next combination of all but the last neighbour.
            for dim in (0..outer.len()).rev() {
                let all = row_strides.iter_mut().chain(&mut point_strides);
                index[dim] += 1;
                if index[dim] < outer[dim] {
                    all.for_each(|s| s.base += s.outer[dim]);
                    break;
                }
                all.for_each(|s| s.base -= s.outer[dim] * (outer[dim] - 1));
                index[dim] = 0;
            }
        }
        (Table { scope, values }, best)
    }
}

/// Where entries of a table are while others run through theirs.
struct Strides {
    /// The present entry, for the lowest value of the variable that is eliminated.
    base: usize,
    /// From one value of that variable to the next.
    own: usize,
    /// From one value of each of its neighbours to the next, without the last.
    outer: Vec<usize>,
}

impl Strides {
    fn of(table: &Table, own: usize, outer: &[usize], size: impl Fn(usize) -> usize) -> Self {
        let stride = |place: usize| {
            let dim = table.scope.iter().position(|&s| s == place);
            dim.map_or(0, |dim| table.scope[dim + 1..].iter().map(|&s| size(s)).product())
        };
        Strides { base: 0, own: stride(own), outer: outer.iter().map(|&s| stride(s)).collect() }
    }
}

/// By how much the entries of one table exceed those of another, if that is the same for all.
fn difference(table: &Table, other: &Table) -> Option<f64> {
    let mut both = table.values.iter().zip(&other.values);
    let more = both.clone().find(|(a, b)| a.is_finite() && b.is_finite()).map(|(a, b)| a - b)?;
    let close = |a: &f64, b: &f64| a.is_finite() && b.is_finite() && (a - b - more).abs() <= ROUNDING * a.abs();
    let same = |(a, b): (&f64, &f64)| close(a, b) || (a.is_infinite() && b.is_infinite());
    both.all(same).then_some(more)
}
