//! Chooses the baby-step count of every linear map, and counts what the maps of a graph cost.

use crate::layouts::diagonals::indices;
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, LinearTerm, Op, ValueId};
use fhec_math::bsgs::{BsgsPlan, BsgsWeights, DiagonalIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Sets `baby` of every term: the cheapest split of its diagonals under `weights(node)`.
///
/// Terms of one map whose inputs have one period are planned together, because they share giants.
pub fn plan_bsgs(graph: &Graph, weights: impl Fn(ValueId) -> BsgsWeights) -> Graph {
    let mut out = graph.clone();
    // Layers of one shape have equal diagonals: deep networks repeat few of them.
    let mut known: BTreeMap<(usize, [u64; 4], Vec<DiagonalIndex>), usize> = BTreeMap::new();
    for id in graph.ids() {
        let Op::LinearMap { terms, .. } = &mut out.nodes[id.index()].op else { continue };
        let w = weights(id);
        let prices = [w.decompose, w.baby, w.giant, w.product].map(f64::to_bits);
        for group in groups(graph, terms) {
            let choose = |(modulus, _, diagonals): &(usize, _, Vec<_>)| BsgsPlan::choose(*modulus, diagonals, &w).n1();
            let n1 = *known.entry((group.modulus, prices, group.diagonals)).or_insert_with_key(choose);
            for &at in &group.terms {
                terms[at].baby = n1;
            }
        }
    }
    out
}

/// Terms of one linear map that are evaluated as one block matrix.
struct Group {
    terms: Vec<usize>,
    modulus: usize,
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
                    out.plaintext_products += plan.products();
                    keys.extend(plan.rotations());
                    let m = &graph.matrices[terms[group.terms[0]].matrix.index()];
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
