//! Chooses the scale of every value, exactly.
//!
//! Inputs, linear maps, polynomials and constants may have any scale: each is an unknown. All other scales are
//! products of unknowns and primes of the chain, and of powers of two where a slot holds two images (a square that is rescaled at level ℓ has `s²/q_ℓ`), and every sum
//! is an equation between two such products. The equations are solved by elimination in the group
//! of monomials, so operands of a sum agree *exactly*, whatever the primes. What stays unknown is set to the power of two
//! that gives values the amplitude the parameters ask for. A sum whose equation has no solution gets an adapter:
//! one operand is multiplied by 1 (and the sum rescaled), which adds an unknown.

use crate::levels::{self, Placed};
use crate::relinearise;
use crate::rescale::{self, Adapters};
use fhec_ir::he::facts::{Fresh, bound};
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_math::scale::Scale;
use fhec_plan::LOG2_PARTS;
use std::collections::BTreeMap;

/// What a monomial is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Symbol {
    /// An unknown, by number.
    Unknown(usize),
    /// The prime `q_ℓ`.
    Prime(usize),
    /// 2, of products where a slot holds two images.
    Two,
}

/// A product of symbols with integer exponents; exponents are never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Monomial(BTreeMap<Symbol, i64>);

impl Monomial {
    fn of(symbol: Symbol) -> Self {
        Monomial(BTreeMap::from([(symbol, 1)]))
    }

    /// `self · other^k`.
    fn mul_pow(&self, other: &Self, k: i64) -> Self {
        let mut out = self.0.clone();
        for (&s, &e) in &other.0 {
            let slot = out.entry(s).or_insert(0);
            *slot += e * k;
            if *slot == 0 {
                out.remove(&s);
            }
        }
        Monomial(out)
    }
}

/// What an unknown is the scale of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The constant of a product.
    Constant,
    /// The result of a linear map.
    Linear,
    /// The result of a polynomial.
    Polynomial,
    /// The result of a bootstrap.
    Bootstrap,
    /// A fresh input.
    Input,
}

#[derive(Clone, Debug)]
struct Unknown {
    kind: Kind,
    node: ValueId,
    /// Its value in terms of others, once an equation has fixed it.
    solution: Option<Monomial>,
}

/// Scales of all values of a placed graph, as monomials in unknowns and primes.
#[derive(Clone, Debug)]
pub struct Symbolic {
    unknowns: Vec<Unknown>,
    /// Scale of every value.
    values: Vec<Monomial>,
    /// The unknown of nodes that have one.
    chosen: Vec<Option<usize>>,
    /// log2 of the largest bound among the values that have exactly the scale of each unknown.
    log2_bound: Vec<f64>,
}

/// A sum whose operands cannot be brought to one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsolvable {
    /// The sum.
    pub sum: ValueId,
}

/// Amplitudes (log2 of scale times bound) that values shall have, and the sizes of the primes.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    /// log2 of each prime of the chain.
    pub log2_q: Vec<f64>,
    /// Amplitude of values inside the network and of inputs.
    pub inner: f64,
    /// Amplitude of values at level 0.
    pub outer: f64,
}

/// Values of the unknowns: each a power of two, or a solved monomial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exponents(Vec<i64>);

/// Finds the scale of every value in terms of as few unknowns as needed.
///
/// # Errors
/// The first sum that needs an adapter.
pub fn solve(placed: &Placed) -> Result<Symbolic, Unsolvable> {
    let graph = &placed.graph;
    let mut s = Symbolic { unknowns: Vec::new(), values: Vec::new(), chosen: Vec::new(), log2_bound: Vec::new() };
    for id in graph.ids() {
        let node = graph.node(id);
        let operand = |s: &Symbolic, k: usize| s.values[node.inputs[k].index()].clone();
        let mut chosen = None;
        let mut unknown = |s: &mut Symbolic, kind| {
            s.unknowns.push(Unknown { kind, node: id, solution: None });
            chosen = Some(s.unknowns.len() - 1);
            Monomial::of(Symbol::Unknown(s.unknowns.len() - 1))
        };
        let value = match &node.op {
            Op::Input(_) => unknown(&mut s, Kind::Input),
            Op::LinearMap { .. } => unknown(&mut s, Kind::Linear),
            Op::Polynomial { .. } => unknown(&mut s, Kind::Polynomial),
            Op::Bootstrap { .. } => unknown(&mut s, Kind::Bootstrap),
            Op::MulScalar { .. } | Op::MulVector { .. } => {
                let constant = unknown(&mut s, Kind::Constant);
                operand(&s, 0).mul_pow(&constant, 1)
            }
            Op::Add | Op::Sub => {
                if !s.unify(&operand(&s, 0), &operand(&s, 1)) {
                    return Err(Unsolvable { sum: id });
                }
                operand(&s, 0)
            }
            Op::Mul => {
                let product = operand(&s, 0).mul_pow(&operand(&s, 1), 1);
                let parts = if graph.complex { LOG2_PARTS } else { 0 };
                product.mul_pow(&Monomial::of(Symbol::Two), parts)
            }
            Op::Rescale => {
                let prime = Symbol::Prime(placed.levels[node.inputs[0].index()]);
                operand(&s, 0).mul_pow(&Monomial::of(prime), -1)
            }
            _ => operand(&s, 0),
        };
        s.values.push(value);
        s.chosen.push(chosen);
    }
    // However small the argument of a polynomial is, its powers are near 1: a scale above that of a value near 1 would double with
    // every squaring.
    let mut least = vec![f64::NEG_INFINITY; graph.nodes.len()];
    for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Polynomial { .. })) {
        least[node.inputs[0].index()] = 0.0;
    }
    s.log2_bound = vec![f64::NEG_INFINITY; s.unknowns.len()];
    let shifted = shifted_for_bootstraps(graph);
    for id in graph.ids() {
        let value = s.resolve(&s.values[id.index()]);
        if let Some((&Symbol::Unknown(u), 1)) =
            value.0.iter().next().filter(|_| value.0.len() == 1 && !shifted[id.index()])
        {
            s.log2_bound[u] = s.log2_bound[u].max(log2_bound(graph, id)).max(least[id.index()]);
        }
        s.values[id.index()] = value;
    }
    Ok(s)
}

/// Which values are only there to be shifted to what a bootstrap takes: those are what scales are chosen for. Above the bottom of
/// the chain the modulus has room for values larger than they shall be.
fn shifted_for_bootstraps(graph: &Graph) -> Vec<bool> {
    let mut users = vec![0usize; graph.nodes.len()];
    graph.nodes.iter().flat_map(|n| &n.inputs).for_each(|v| users[v.index()] += 1);
    graph.outputs.iter().for_each(|o| users[o.value.index()] += 1);
    let mut shifted = vec![false; graph.nodes.len()];
    for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Bootstrap { .. })) {
        let taken = graph.node(node.inputs[0]);
        if let (Op::AddScalar(_), [v]) = (&taken.op, taken.inputs.as_slice()) {
            shifted[v.index()] = users[v.index()] == 1 && bound(taken) < bound(graph.node(*v));
        }
    }
    shifted
}

/// log2 of the bound of a value; 0 for values that are always zero.
fn log2_bound(graph: &Graph, id: ValueId) -> f64 {
    let b = bound(graph.node(id));
    if b > 0.0 { b.log2() } else { 0.0 }
}

impl Symbolic {
    /// Replaces all solved unknowns.
    fn resolve(&self, m: &Monomial) -> Monomial {
        let mut out = m.clone();
        // Solutions mention only unknowns that were unsolved when they were made, so this ends.
        while let Some((u, e)) = out.0.iter().find_map(|(&s, &e)| match s {
            Symbol::Unknown(u) if self.unknowns[u].solution.is_some() => Some((u, e)),
            _ => None,
        }) {
            out.0.remove(&Symbol::Unknown(u));
            if let Some(solution) = &self.unknowns[u].solution {
                out = out.mul_pow(solution, e);
            }
        }
        out
    }

    /// Makes two scales equal by solving for one unknown; false where that is impossible.
    fn unify(&mut self, a: &Monomial, b: &Monomial) -> bool {
        let ratio = self.resolve(a).mul_pow(&self.resolve(b), -1);
        if ratio.0.is_empty() {
            return true;
        }
        // An unknown can be solved for where its exponent divides all others: sᵉ = m needs the e-th root of m.
        // Constants adapt first, then the latest producers: what they feed is decided last.
        let divides = |e: i64| ratio.0.values().all(|other| other % e == 0);
        let pivot = ratio
            .0
            .iter()
            .filter_map(|(&s, &e)| match s {
                Symbol::Unknown(u) if divides(e) => Some((self.unknowns[u].kind, std::cmp::Reverse(u), e)),
                _ => None,
            })
            .min();
        let Some((_, std::cmp::Reverse(u), e)) = pivot else { return false };
        let rest = ratio.0.iter().filter(|(s, _)| **s != Symbol::Unknown(u)).map(|(&s, &k)| (s, -k / e)).collect();
        self.unknowns[u].solution = Some(Monomial(rest));
        true
    }

    /// log2 of a monomial.
    fn log2(&self, m: &Monomial, exponents: &Exponents, log2_q: &[f64]) -> f64 {
        let log2_of = |s: &Symbol| match *s {
            Symbol::Unknown(u) => exponents.0[u] as f64,
            Symbol::Prime(level) => log2_q[level],
            Symbol::Two => 1.0,
        };
        m.0.iter().map(|(s, &e)| log2_of(s) * e as f64).sum()
    }

    /// Powers of two for all unknowns that no equation has fixed.
    pub fn exponents(&self, placed: &Placed, design: &Design) -> Exponents {
        let graph = &placed.graph;
        let mut exponents = Exponents(vec![0; self.unknowns.len()]);
        let free = |kind_is_constant: bool| {
            let matches = move |u: &&(usize, &Unknown)| {
                u.1.solution.is_none() && (u.1.kind == Kind::Constant) == kind_is_constant
            };
            self.unknowns.iter().enumerate().filter(move |u| matches(&u))
        };
        for (u, unknown) in free(false) {
            let level = placed.levels[unknown.node.index()];
            let amplitude = if level == 0 { design.outer } else { design.inner };
            exponents.0[u] = (amplitude - self.log2_bound[u]).round() as i64;
        }
        // A constant's scale depends on that of the value it multiplies, which is known by now or earlier in the list.
        for (u, unknown) in free(true) {
            let node = graph.node(unknown.node);
            let level = placed.levels[unknown.node.index()];
            let operand = self.log2(&self.values[node.inputs[0].index()], &exponents, &design.log2_q);
            let target = design.inner - log2_bound(graph, unknown.node) + design.log2_q[level];
            exponents.0[u] = (target - operand).round().max(0.0) as i64;
        }
        exponents
    }

    /// log2 of the scale of every value.
    pub fn log2_scales(&self, exponents: &Exponents, log2_q: &[f64]) -> Vec<f64> {
        self.values.iter().map(|m| self.log2(m, exponents, log2_q)).collect()
    }

    fn exact(&self, m: &Monomial, exponents: &Exponents, chain: &[u64]) -> Scale {
        let m = self.resolve(m);
        m.0.iter().fold(Scale::one(), |acc, (s, &e)| {
            let base = match *s {
                Symbol::Unknown(u) => Scale::pow2(exponents.0[u]),
                Symbol::Prime(level) => Scale::prime(chain[level]),
                Symbol::Two => Scale::pow2(1),
            };
            (0..e.abs()).fold(acc, |acc, _| if e > 0 { acc.mul(&base) } else { acc.div(&base) })
        })
    }

    /// Writes the chosen scales into the graph and returns those of the inputs.
    pub fn apply(&self, placed: &Placed, exponents: &Exponents, chain: &[u64]) -> (Graph, Vec<Fresh>) {
        let mut graph = placed.graph.clone();
        let zero = Fresh { level: 0, scale: Scale::one() };
        let mut inputs = vec![zero; graph.inputs.len()];
        for id in placed.graph.ids() {
            let Some(u) = self.chosen[id.index()] else { continue };
            let exact = self.exact(&Monomial::of(Symbol::Unknown(u)), exponents, chain);
            match &mut graph.nodes[id.index()].op {
                Op::LinearMap { out_scale, .. }
                | Op::Polynomial { out_scale, .. }
                | Op::Bootstrap { out_scale, .. } => *out_scale = Some(exact),
                Op::MulScalar { scale, .. } | Op::MulVector { scale, .. } => *scale = Some(exact),
                Op::Input(index) => inputs[*index] = Fresh { level: placed.levels[id.index()], scale: exact },
                _ => {}
            }
        }
        (graph, inputs)
    }
}

/// Which sums need an adapter so that all scales can be chosen, found by trying.
pub fn adapters(graph: &Graph) -> Adapters {
    let sums: Vec<ValueId> = graph.ids().filter(|&v| matches!(graph.node(v).op, Op::Add | Op::Sub)).collect();
    let heights = levels::heights(graph);
    let mut adapters = Adapters::new();
    // Every round adds one adapter to a sum; with one on each operand of every sum there is nothing left to do.
    for _ in 0..2 * sums.len() {
        let placed = levels::run(&relinearise::run(&rescale::run(graph, &adapters)));
        let Err(unsolvable) = solve(&placed) else { break };
        // No pass adds or removes sums, so they correspond by order.
        let is_sum = |v: &ValueId| matches!(placed.graph.node(*v).op, Op::Add | Op::Sub);
        let number = placed.graph.ids().filter(is_sum).take_while(|&v| v != unsolvable.sum).count();
        let sum = sums[number];
        let operands = &graph.node(sum).inputs;
        // The operand with fewer levels behind it: its extra level is the less likely to lengthen the network.
        let first = usize::from(heights[operands[1].index()] < heights[operands[0].index()]);
        if !adapters.insert((sum, first)) {
            adapters.insert((sum, 1 - first));
        }
    }
    adapters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(pairs: &[(Symbol, i64)]) -> Monomial {
        Monomial(pairs.iter().copied().collect())
    }

    #[test]
    fn monomials_multiply_and_cancel() {
        let (x, q) = (Symbol::Unknown(0), Symbol::Prime(3));
        let square = m(&[(x, 2)]).mul_pow(&m(&[(q, 1)]), -1);
        assert_eq!(square, m(&[(x, 2), (q, -1)]));
        assert_eq!(square.mul_pow(&square, -1), Monomial::default());
        assert_eq!(square.mul_pow(&m(&[(q, 1)]), 1), m(&[(x, 2)]));
    }
}
