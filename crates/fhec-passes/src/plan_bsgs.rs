//! Chooses the baby-step count of every linear map, and counts what the maps of a graph cost.

use crate::layouts::diagonals::indices;
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, LinearTerm, Op, ValueId};
use fhec_math::bsgs::{BsgsChoice, BsgsPlan, BsgsSteps, BsgsWeights, DiagonalIndex};
use fhec_math::galois_element;
use fhec_plan::Diagonals;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A modulus and a set of diagonals.
type Set = (usize, Vec<DiagonalIndex>);

/// What the steps of sets of diagonals ask for: counted once, however often prices change from placement to
/// placement. Layers of one shape have equal diagonals, and deep networks repeat few of them.
#[derive(Debug, Default)]
pub struct Counted(Mutex<BTreeMap<Set, Arc<BsgsSteps>>>);

impl Counted {
    fn of(&self, modulus: usize, diagonals: Vec<DiagonalIndex>) -> Arc<BsgsSteps> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (modulus, diagonals);
        if let Some(steps) = known().get(&key) {
            return Arc::clone(steps);
        }
        // All threads count: none of them may wait for the lock meanwhile.
        let steps = Arc::new(BsgsSteps::new(modulus, &key.1));
        known().insert(key, Arc::clone(&steps));
        steps
    }
}

/// Sets `baby` of every term: the cheapest split of its diagonals under `weights(node)`.
///
/// Terms of one map whose inputs have one period are planned together, because they share giants.
pub fn plan_bsgs(graph: &Graph, weights: impl Fn(ValueId) -> BsgsWeights, counted: &Counted) -> Graph {
    let mut out = graph.clone();
    for id in graph.ids() {
        let Op::LinearMap { terms, .. } = &mut out.nodes[id.index()].op else { continue };
        for group in groups(graph, terms) {
            let n1 = counted.of(group.modulus, group.diagonals).cheapest_step(&weights(id));
            for &at in &group.terms {
                terms[at].baby = n1;
            }
        }
    }
    out
}

/// Most candidates for each map, and how much dearer than the cheapest they may be, where maps share keys.
const SHARING: (usize, f64) = (48, 1.5);
/// Rounds of choosing anew for every map. Few suffice: most maps settle in the first.
const ROUNDS: usize = 4;

/// Keys that maps share.
pub struct KeyPrices<'a> {
    /// log2 of the ring degree.
    pub log_n: u32,
    /// Elements for which there are keys anyway.
    pub given: &'a BTreeSet<u64>,
    /// What a further key costs that is used at a node.
    pub price: &'a dyn Fn(ValueId) -> f64,
}

/// [`plan_bsgs`] where every rotation key has a price too: maps prefer steps whose rotations others use as well.
///
/// Starting from the cheapest split of every map, each is chosen anew with the keys of all others at hand, until nothing changes.
pub fn plan_sharing(
    graph: &Graph,
    weights: impl Fn(ValueId) -> BsgsWeights,
    keys: &KeyPrices<'_>,
    counted: &Counted,
) -> Graph {
    let mut out = graph.clone();
    // Groups that are equal at equal prices are chosen together; where their terms are.
    let mut known: BTreeMap<([u64; 4], *const BsgsSteps), usize> = BTreeMap::new();
    let mut classes: Vec<Class> = Vec::new();
    for id in graph.ids() {
        let Op::LinearMap { terms, .. } = &graph.node(id).op else { continue };
        let w = weights(id);
        let prices = [w.decompose, w.baby, w.giant, w.product].map(f64::to_bits);
        for Group { terms, modulus, diagonals, .. } in groups(graph, terms) {
            let steps = counted.of(modulus, diagonals);
            let at = *known.entry((prices, Arc::as_ptr(&steps))).or_insert_with(|| {
                let element = |&r: &i64| galois_element(r, keys.log_n);
                let choice = |c: BsgsChoice| (c.n1, c.cost, c.rotations.iter().map(element).collect());
                let choices = steps.choices(&w, SHARING).into_iter().map(choice).collect();
                classes.push(Class { choices, chosen: 0, key: (keys.price)(id), members: Vec::new() });
                classes.len() - 1
            });
            classes[at].members.push((id, terms));
        }
    }
    share(&mut classes, keys.given);
    for class in &classes {
        let n1 = class.choices[class.chosen].0;
        for (id, own) in &class.members {
            if let Op::LinearMap { terms, .. } = &mut out.nodes[id.index()].op {
                own.iter().for_each(|&at| terms[at].baby = n1);
            }
        }
    }
    out
}

/// Groups of terms with equal diagonals and prices.
struct Class {
    /// Step, cost and elements of every candidate.
    choices: Vec<(usize, f64, BTreeSet<u64>)>,
    chosen: usize,
    /// Price of a key.
    key: f64,
    members: Vec<(ValueId, Vec<usize>)>,
}

/// Chooses for every class in turn, with the keys of all others at hand.
fn share(classes: &mut [Class], given: &BTreeSet<u64>) {
    let mut users: BTreeMap<u64, usize> = BTreeMap::new();
    for class in classes.iter() {
        class.choices[class.chosen].2.iter().for_each(|&e| *users.entry(e).or_default() += 1);
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for class in classes.iter_mut() {
            for e in &class.choices[class.chosen].2 {
                users.entry(*e).and_modify(|n| *n -= 1);
            }
            let count = class.members.len() as f64;
            let price = |(_, cost, elements): &(usize, f64, BTreeSet<u64>)| {
                let new = elements.iter().filter(|e| !given.contains(e) && users.get(e).is_none_or(|&n| n == 0));
                count * cost + class.key * new.count() as f64
            };
            let best =
                (0..class.choices.len()).min_by(|&a, &b| price(&class.choices[a]).total_cmp(&price(&class.choices[b])));
            let best = best.unwrap_or(class.chosen);
            changed |= best != class.chosen;
            class.chosen = best;
            class.choices[best].2.iter().for_each(|&e| *users.entry(e).or_default() += 1);
        }
        if !changed {
            break;
        }
    }
    together(classes, given);
}

/// Moves all classes with one step to another one that they offer, as long as that pays: while others keep the old keys in
/// use, none of them saves anything by moving alone.
fn together(classes: &mut [Class], given: &BTreeSet<u64>) {
    let step = |class: &Class| class.choices[class.chosen].0;
    let mut least = total(classes, given);
    loop {
        let steps: BTreeSet<usize> = classes.iter().map(step).collect();
        let offered: BTreeSet<usize> = classes.iter().flat_map(|c| c.choices.iter().map(|choice| choice.0)).collect();
        let mut best: Option<Vec<usize>> = None;
        let before: Vec<usize> = classes.iter().map(|c| c.chosen).collect();
        for (&from, &to) in steps.iter().flat_map(|from| offered.iter().map(move |to| (from, to))) {
            let mut moved = 0;
            for class in classes.iter_mut().filter(|c| step(c) == from) {
                if let Some(at) = class.choices.iter().position(|choice| choice.0 == to) {
                    moved += usize::from(class.chosen != at);
                    class.chosen = at;
                }
            }
            let price = if moved > 1 { total(classes, given) } else { f64::INFINITY };
            if price < least {
                least = price;
                best = Some(classes.iter().map(|c| c.chosen).collect());
            }
            classes.iter_mut().zip(&before).for_each(|(class, &chosen)| class.chosen = chosen);
        }
        let Some(best) = best else { return };
        classes.iter_mut().zip(best).for_each(|(class, chosen)| class.chosen = chosen);
    }
}

/// Price of all maps and of all keys that they need.
fn total(classes: &[Class], given: &BTreeSet<u64>) -> f64 {
    let mut keys: BTreeMap<u64, f64> = BTreeMap::new();
    let mut sum = 0.0;
    for class in classes {
        let (_, cost, elements) = &class.choices[class.chosen];
        sum += class.members.len() as f64 * cost;
        for &element in elements.difference(given) {
            let key = keys.entry(element).or_insert(class.key);
            *key = key.max(class.key);
        }
    }
    sum + keys.values().sum::<f64>()
}

/// Terms of one linear map that are evaluated as one block matrix.
struct Group {
    terms: Vec<usize>,
    modulus: usize,
    /// None where ciphertexts hold one element, and nothing is rotated.
    diagonals: Vec<DiagonalIndex>,
    folds: usize,
}

fn groups(graph: &Graph, terms: &[LinearTerm]) -> Vec<Group> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (at, term) in terms.iter().enumerate() {
        let period = graph.matrices[term.matrix.index()].in_period;
        match groups.iter_mut().find(|(p, _)| *p == period) {
            Some((_, list)) => list.push(at),
            None => groups.push((period, vec![at])),
        }
    }
    let build = |(_, terms_of): (usize, Vec<usize>)| {
        let mut diagonals = Vec::new();
        let mut blocks = 0;
        let (mut modulus, mut folds) = (1, 0);
        for &at in &terms_of {
            let m = &graph.matrices[terms[at].matrix.index()];
            diagonals.extend(indices(m).into_iter().map(|d| DiagonalIndex { in_block: d.in_block + blocks, ..d }));
            blocks += m.in_ciphertexts;
            modulus = m.diagonal_bound();
            folds = m.fold_steps().len() * m.out_ciphertexts;
        }
        Group { terms: terms_of, modulus, diagonals, folds }
    };
    groups.into_iter().map(build).collect()
}

/// Key switches and products of a graph's linear maps and products.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rotations, hoisted ones included.
    pub rotations: usize,
    /// Rotations that are whole key switches (giants and folds) and one per decomposed input.
    pub key_switches: usize,
    /// Products with plaintext diagonals.
    pub plaintext_products: usize,
    /// Products of ciphertexts outside of polynomials.
    pub products: usize,
    /// Rescales outside of polynomials: one for each ciphertext of a linear map or product.
    pub rescales: usize,
    /// Levels on the longest way from an input to an output.
    pub depth: usize,
    /// Different rotations, each one Galois key.
    pub keys: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rotations={} keyswitches={} pmul={} rescales={} depth={} keys={}",
            self.rotations, self.key_switches, self.plaintext_products, self.rescales, self.depth, self.keys
        )
    }
}

/// Counts a graph whose BSGS steps are planned and whose levels are not: every product counts as a level.
pub fn tally(graph: &Graph) -> Tally {
    let mut out = Tally::default();
    let mut keys = BTreeSet::new();
    let mut height = vec![0; graph.nodes.len()];
    for id in graph.ids() {
        let node = graph.node(id);
        let below = node.inputs.iter().map(|v| height[v.index()]).max().unwrap_or(0);
        let product = matches!(node.op, Op::Mul | Op::MulScalar { .. } | Op::MulVector { .. });
        height[id.index()] = below + if product { 1 } else { levels_consumed(graph, &node.op) };
        if product || matches!(node.op, Op::LinearMap { .. }) {
            out.rescales += node.layout.ciphertexts;
        }
        out.depth = out.depth.max(height[id.index()]);
        match &node.op {
            Op::LinearMap { terms, .. } => {
                for group in groups(graph, terms) {
                    let n1 = terms[group.terms[0]].baby.max(1);
                    let plan = BsgsPlan::new(group.modulus, &group.diagonals, n1);
                    out.rotations += plan.baby_switches() + plan.giant_switches() + group.folds;
                    out.key_switches += plan.decompositions() + plan.giant_switches() + group.folds;
                    keys.extend(plan.rotations());
                    let matrix = |&t: &usize| &graph.matrices[terms[t].matrix.index()];
                    let m = matrix(&group.terms[0]);
                    out.plaintext_products += match m.slots {
                        1 => group.terms.iter().map(|t| Diagonals::of(matrix(t)).len()).sum(),
                        _ => plan.products(),
                    };
                    keys.extend(m.fold_steps().into_iter().map(|s| s as i64));
                }
            }
            Op::Mul => out.products += node.layout.ciphertexts,
            Op::Rotate(steps) => {
                out.rotations += node.layout.ciphertexts;
                out.key_switches += node.layout.ciphertexts;
                keys.insert(*steps);
            }
            _ => {}
        }
    }
    out.key_switches += out.products;
    out.keys = keys.len();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(members: usize, choices: &[(usize, f64, &[u64])]) -> Class {
        let choices = choices.iter().map(|&(n1, cost, keys)| (n1, cost, keys.iter().copied().collect())).collect();
        Class { choices, chosen: 0, key: 1.0, members: vec![(ValueId(0), vec![0]); members] }
    }

    #[test]
    fn classes_leave_a_step_together() {
        let two = |cost| class(1, &[(8, 1.0, &[3, 5, 7]), (4, 1.0 + cost, &[3])]);
        // Each alone would still leave the other's keys in use.
        let mut classes = [two(0.9), two(0.9)];
        share(&mut classes, &BTreeSet::new());
        assert_eq!(classes.each_ref().map(|c| c.chosen), [1, 1]);
        let mut classes = [two(1.1), two(1.1)];
        share(&mut classes, &BTreeSet::new());
        assert_eq!(classes.each_ref().map(|c| c.chosen), [0, 0], "the keys are worth less than that");
        let mut classes = [two(0.9), two(0.9)];
        share(&mut classes, &BTreeSet::from([5]));
        assert_eq!(classes.each_ref().map(|c| c.chosen), [0, 0], "one of them is there anyway");
    }
}
