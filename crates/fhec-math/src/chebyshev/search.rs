//! The search for the cheapest plan of a given depth.
//!
//! A candidate says which powers may carry scalar terms (the babies `1..=g` and the giants `g·2^i`) and which may be
//! split off: all of these, or only the giants and the powers of two, which leaves odd babies alone for odd series.
//! For each candidate a memoised recursion over the *support* of the polynomial (which coefficients are not zero)
//! finds the splits `p = q·C_n + r` with the fewest products that keep the depth; then the power steps are chosen, placed
//! as late as their consumers allow, and the whole is priced. Working on supports makes odd, even and otherwise sparse
//! series cheap without special cases.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{ChebyshevPlan, ChebyshevWeights, MAX_DEGREE, Node, PowerStep, ProductTerm, Term, ceil_log2};

/// The cheapest plan; `coefficients` has degree ≥ 1 and `depth` suffices for it.
pub(super) fn best_plan(coefficients: &[f64], depth: usize, weights: &ChebyshevWeights) -> ChebyshevPlan {
    // Most of the time goes into comparing supports.
    if coefficients.len() <= FEW * 64 {
        best_of::<FEW>(coefficients, depth, weights)
    } else {
        best_of::<MANY>(coefficients, depth, weights)
    }
}

/// The same with supports of so many words, enough for the degree.
fn best_of<const WORDS: usize>(coefficients: &[f64], depth: usize, weights: &ChebyshevWeights) -> ChebyshevPlan {
    let degree = coefficients.len() - 1;
    // The best g lies near √degree; odd and even series have half as many babies below g.
    let last = |splits| match splits {
        Splits::Giants => 4 * degree.isqrt() + 4,
        Splits::All => 2 * degree.isqrt() + 2,
    };
    let mut best: Option<(f64, ChebyshevPlan)> = None;
    for splits in [Splits::Giants, Splits::All] {
        for g in 1..=last(splits).min(degree) {
            let candidate = Candidate::<WORDS>::new(g, splits, coefficients);
            let Some(plan) = candidate.plan(coefficients, depth, weights) else {
                continue;
            };
            let price = weights.price(&plan.operations());
            if best.as_ref().is_none_or(|(least, _)| price < *least) {
                best = Some((price, plan));
            }
        }
    }
    // Splitting at the largest power of two below the degree never fails within the least depth.
    best.expect("powers of two always give a plan").1
}

/// Words of a support of the degrees that most series have.
const FEW: usize = 2;
/// Words of any support.
const MANY: usize = MAX_DEGREE / 64 + 1;

/// Set of indices of coefficients that are not zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Support<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Support<WORDS> {
    fn empty() -> Self {
        Support([0; WORDS])
    }

    fn of(coefficients: &[f64]) -> Self {
        let mut set = Self::empty();
        for (i, &c) in coefficients.iter().enumerate() {
            if c != 0.0 {
                set.insert(i);
            }
        }
        set
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn remove(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }

    /// Largest index, 0 for a constant and for the empty set.
    fn degree(&self) -> usize {
        (0..WORDS).rev().find(|&w| self.0[w] != 0).map_or(0, |w| w * 64 + 63 - self.0[w].leading_zeros() as usize)
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..WORDS * 64).filter(|&i| self.0[i / 64] >> (i % 64) & 1 == 1)
    }

    /// Supports of quotient and remainder by `C_n`, assuming that nothing cancels.
    fn split(&self, n: usize) -> (Self, Self) {
        let (mut q, mut r) = (Self::empty(), Self::empty());
        for i in self.iter() {
            if i < n {
                r.insert(i);
            } else {
                q.insert(i - n);
                if i > n {
                    r.insert((2 * n).abs_diff(i));
                }
            }
        }
        (q, r)
    }
}

/// Quotient and remainder: `Σ a_i·C_i = q·C_n + r` in the basis `1, C_1, C_2, …`.
fn split(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let q = a[n..].to_vec();
    let mut r = a[..n].to_vec();
    // C_n·C_j = C_{n+j} + C_{|n−j|}, and C_0 = 2 is twice the constant 1.
    for (j, &c) in q.iter().enumerate().skip(1) {
        r[n.abs_diff(j)] -= if j == n { 2.0 * c } else { c };
    }
    (q, r)
}

/// How to treat the leading coefficient.
#[derive(Clone, Copy)]
enum Choice {
    /// Only a constant is left.
    Constant,
    /// The leading term is a scalar multiple of an available power.
    Strip,
    /// Split off a multiple of `C_n`.
    Split(usize),
}

/// Products, then scalar terms: compared in this order.
type Effort = (usize, usize);

/// Which powers may be split off.
#[derive(Clone, Copy)]
enum Splits {
    /// Giants and powers of two.
    Giants,
    /// Every power that may carry a term.
    All,
}

/// Sets of powers that may be used, with what is known about supports under them.
struct Candidate<const WORDS: usize> {
    /// Powers that may carry scalar terms, ascending.
    terms: Vec<usize>,
    /// Powers that may be split off, ascending.
    splits: Vec<usize>,
    memo: HashMap<(Support<WORDS>, usize), Option<(Effort, Choice)>>,
}

impl<const WORDS: usize> Candidate<WORDS> {
    fn new(g: usize, splits: Splits, coefficients: &[f64]) -> Self {
        let degree = coefficients.len() - 1;
        let doubled = |n: usize| (0..).map(move |i| n << i).take_while(move |&n| n <= degree);
        let terms: Vec<usize> = (1..g).chain(doubled(g)).collect();
        let splits = match splits {
            Splits::All => terms.clone(),
            Splits::Giants => {
                let set: BTreeSet<usize> = doubled(1).chain(doubled(g)).collect();
                // An even C_n keeps the parity of quotient and remainder.
                let has = |parity| coefficients.iter().skip(parity).step_by(2).any(|&c| c != 0.0);
                let parity = degree > 1 && !(has(0) && has(1));
                set.into_iter().filter(|n| !parity || n % 2 == 0).collect()
            }
        };
        Self { terms, splits, memo: HashMap::new() }
    }

    /// Least effort for a polynomial whose value shall lie `depth` levels below the input; `None` if impossible.
    fn solve(&mut self, support: Support<WORDS>, depth: usize) -> Option<(Effort, Choice)> {
        let degree = support.degree();
        if degree == 0 {
            return Some(((0, 0), Choice::Constant));
        }
        if degree >= 1 << depth {
            return None;
        }
        if let Some(known) = self.memo.get(&(support, depth)) {
            return *known;
        }
        let mut best: Option<(Effort, Choice)> = None;
        let mut offer = |effort: Effort, choice| {
            if best.is_none_or(|(least, _)| effort < least) {
                best = Some((effort, choice));
            }
        };
        if self.terms.binary_search(&degree).is_ok() && ceil_log2(degree) < depth {
            let mut rest = support;
            rest.remove(degree);
            if let Some(((products, terms), _)) = self.solve(rest, depth) {
                offer((products, terms + 1), Choice::Strip);
            }
        }
        for i in (0..self.splits.len()).rev() {
            let n = self.splits[i];
            // degree < 3n keeps the remainder below n.
            if n >= degree || 3 * n <= degree || ceil_log2(n) >= depth {
                continue;
            }
            let (q, r) = support.split(n);
            let Some((left, _)) = self.solve(q, depth - 1) else { continue };
            let Some((right, _)) = self.solve(r, depth) else { continue };
            offer((left.0 + right.0 + 1, left.1 + right.1), Choice::Split(n));
        }
        self.memo.insert((support, depth), best);
        best
    }

    fn plan(mut self, coefficients: &[f64], depth: usize, weights: &ChebyshevWeights) -> Option<ChebyshevPlan> {
        let mut a: Vec<f64> = coefficients.iter().map(|c| 0.5 * c).collect();
        a[0] = coefficients[0];
        let mut nodes = Vec::new();
        self.build(a, depth, &mut nodes)?;
        let powers = place_powers(&nodes);
        let mut plan = ChebyshevPlan { coefficients: coefficients.to_vec(), depth, powers, nodes };
        choose_relinearisations(&mut plan, weights);
        Some(plan)
    }

    /// Appends the nodes of `Σ a_i·C_i` and returns the index of its last one.
    fn build(&mut self, mut a: Vec<f64>, depth: usize, nodes: &mut Vec<Node>) -> Option<usize> {
        let (mut terms, mut products) = (Vec::new(), Vec::new());
        loop {
            let support = Support::of(&a);
            a.truncate(support.degree() + 1);
            let degree = a.len() - 1;
            match self.solve(support, depth)?.1 {
                Choice::Constant => break,
                Choice::Strip => terms.push(Term { power: degree, coefficient: a[degree] }),
                Choice::Split(n) => {
                    let (q, r) = split(&a, n);
                    let node = self.build(q, depth - 1, nodes)?;
                    products.push(ProductTerm { node, power: n });
                    a = r;
                    continue;
                }
            }
            a.truncate(degree);
        }
        nodes.push(Node { depth, constant: a[0], terms, products, relinearise: false });
        Some(nodes.len() - 1)
    }
}

/// Chooses the steps that make all powers the nodes use, each as many levels down as its consumers allow.
fn place_powers(nodes: &[Node]) -> Vec<PowerStep> {
    // Deepest level at which each power may arrive.
    let mut need = BTreeMap::new();
    let mut want = |power: usize, depth: usize| {
        let entry = need.entry(power).or_insert(depth);
        *entry = depth.min(*entry);
    };
    for node in nodes {
        let powers = node.terms.iter().map(|t| t.power);
        powers.chain(node.products.iter().map(|p| p.power)).for_each(|p| want(p, node.depth - 1));
    }
    let mut steps = Vec::new();
    // Consumers of a power have larger indices, so from the top down `depth` is final.
    while let Some((index, depth)) = need.pop_last() {
        if index == 1 {
            break;
        }
        let known: BTreeSet<usize> = need.keys().copied().chain([0, 1]).collect();
        let missing = |b: &usize| {
            let a = index - b;
            let new: BTreeSet<usize> = [a, *b, a - b].into_iter().filter(|k| !known.contains(k)).collect();
            (new.len(), a - b)
        };
        let b = (1..=index / 2)
            .filter(|b| ceil_log2(index - b) < depth)
            .min_by_key(missing)
            .expect("halving an index lowers its depth");
        let a = index - b;
        for power in [a, b, a - b] {
            if power > 0 {
                let entry = need.entry(power).or_insert(depth - 1);
                *entry = (depth - 1).min(*entry);
            }
        }
        steps.push(PowerStep { index, a, b, depth, relinearise: true });
    }
    steps.reverse();
    steps
}

/// Decides which powers stay at degree 2, and marks the nodes that are relinearised.
fn choose_relinearisations(plan: &mut ChebyshevPlan, weights: &ChebyshevWeights) {
    let mut operand: BTreeSet<usize> = plan.powers.iter().flat_map(|s| [s.a, s.b]).collect();
    operand.extend(plan.nodes.iter().flat_map(|n| n.products.iter().map(|p| p.power)));
    let free: Vec<usize> = (0..plan.powers.len()).filter(|&i| !operand.contains(&plan.powers[i].index)).collect();
    let price = |plan: &mut ChebyshevPlan| {
        mark_nodes(plan);
        weights.price(&plan.operations())
    };
    let mut least = price(plan);
    // All at once first: single powers often pay only together, because one of them already makes a node degree 2.
    for &i in &free {
        plan.powers[i].relinearise = false;
    }
    let together = price(plan);
    if together < least {
        least = together;
    } else {
        for &i in &free {
            plan.powers[i].relinearise = true;
        }
    }
    for &i in &free {
        plan.powers[i].relinearise ^= true;
        let changed = price(plan);
        if changed < least {
            least = changed;
        } else {
            plan.powers[i].relinearise ^= true;
        }
    }
    mark_nodes(plan);
}

fn mark_nodes(plan: &mut ChebyshevPlan) {
    let degree2: BTreeSet<usize> = plan.powers.iter().filter(|s| !s.relinearise).map(|s| s.index).collect();
    for node in &mut plan.nodes {
        node.relinearise = !node.products.is_empty() || node.terms.iter().any(|t| degree2.contains(&t.power));
    }
}
