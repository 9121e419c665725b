//! Places levels: every value at the lowest level that its consumers allow.
//!
//! Outputs end at level 0 and a value lies at the highest level any of its consumers wants, so every
//! operation runs with as few limbs as possible and inputs are encrypted at no more levels than the network
//! uses. An operand that lies higher than its consumer wants gets a level drop. Where the chain is too short
//! [`placement`](crate::placement) decides, and [`apply`] carries out what it decided.

use crate::he_rewrite::Rebuild;
use crate::placement::{Decision, Refresh, Step, Variant};
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, Op, ValueId};
use fhec_ir::nn::Range;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::f64::consts::FRAC_1_SQRT_2;

/// A graph with level drops and bootstraps, and the level of each of its values.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The graph.
    pub graph: Graph,
    /// Level of every value.
    pub levels: Vec<usize>,
    /// By value that of the graph before: drops and bootstraps only add nodes that hold what another one does, shifted perhaps.
    pub before: Vec<ValueId>,
}

impl Placed {
    /// The highest level.
    pub fn top(&self) -> usize {
        self.levels.iter().copied().max().unwrap_or(0)
    }

    /// Whether any value takes more than one ciphertext.
    pub fn several(&self) -> bool {
        self.graph.nodes.iter().any(|n| n.layout.ciphertexts > 1)
    }
}

/// The level at which every value must be: the highest one that a consumer wants.
fn wanted(graph: &Graph) -> Vec<usize> {
    let mut level = vec![0; graph.nodes.len()];
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let node = graph.node(id);
        let operand = level[id.index()] + levels_consumed(graph, &node.op);
        for v in &node.inputs {
            let slot: &mut usize = &mut level[v.index()];
            *slot = operand.max(*slot);
        }
    }
    level
}

/// Levels consumed on the longest way from an input to each value of a graph without rescales; for
/// choosing where an extra level would not lengthen the whole.
pub fn heights(graph: &Graph) -> Vec<usize> {
    let mut height = vec![0; graph.nodes.len()];
    for id in graph.ids() {
        let node = graph.node(id);
        let operands = node.inputs.iter().map(|v| height[v.index()]).max().unwrap_or(0);
        // Products are rescaled sooner or later.
        let product = matches!(node.op, Op::Mul | Op::MulScalar { .. } | Op::MulVector { .. });
        height[id.index()] = operands + levels_consumed(graph, &node.op) + usize::from(product);
    }
    height
}

/// Inserts the level drops. Existing drops are placed anew.
pub fn run(graph: &Graph) -> Placed {
    let graph = &without_drops(graph);
    let wanted = wanted(graph);
    let decision = |id: ValueId| Decision {
        level: wanted[id.index()] + levels_consumed(graph, &graph.node(id).op),
        variant: 0,
        bootstrap: None,
    };
    apply(graph, &graph.ids().map(decision).collect::<Vec<_>>())
}

/// Carries out decisions, one for every node of a graph without level drops: operands are dropped to the level that their
/// user runs at, results are bootstrapped where it was decided, and outputs end at level 0.
pub fn apply(graph: &Graph, decisions: &[Decision]) -> Placed {
    let available = |id: ValueId| {
        let Decision { level, bootstrap, .. } = decisions[id.index()];
        bootstrap.unwrap_or_else(|| level - levels_consumed(graph, &graph.node(id).op))
    };
    let drops = RefCell::new(BTreeMap::new());
    // Everybody who wants a value at one level shares the drop.
    let at = |b: &mut Rebuild<'_>, old: ValueId, level: usize| {
        let value = b.value(old);
        if available(old) == level {
            return value;
        }
        *drops.borrow_mut().entry((value, level)).or_insert_with(|| b.derive(Op::LevelDrop(level), value))
    };
    let (placed, before) = Rebuild::run_tracing(
        graph,
        |b, id| {
            let Decision { level, bootstrap, .. } = decisions[id.index()];
            let operands = b.old().node(id).inputs.iter().map(|&v| at(b, v, level)).collect();
            let value = b.copy(id, operands);
            match bootstrap {
                Some(level) => refreshed(b, value, level),
                None => value,
            }
        },
        |b, value| at(b, value, 0),
    );
    let levels = levels_of(&placed, graph, decisions);
    Placed { graph: placed, levels, before }
}

/// The bootstrap of a value. One that lies to one side of zero, as what ReLU leaves does, goes through it around the middle of its
/// calibrated range: the scale may be larger by as much as the magnitude is smaller, and the errors of the bootstrap count that much
/// less. Sums with a constant cost no level.
fn refreshed(b: &mut Rebuild<'_>, value: ValueId, level: usize) -> ValueId {
    let op = Op::Bootstrap { level, out_scale: None };
    let Some(middle) = off_centre(b.range(value)).filter(|_| !b.old().complex) else { return b.derive(op, value) };
    let centred = b.shift(value, -middle);
    let fresh = b.derive(op, centred);
    b.shift(fresh, middle)
}

/// The middle of a range, where values around it are so much smaller that scales, which are powers of two, notice it. The slots
/// without an element hold zeros.
fn off_centre(range: Range) -> Option<f64> {
    let (lo, hi) = (range.lo.min(0.0), range.hi.max(0.0));
    let (width, most) = (hi - lo, hi.max(-lo));
    (width.is_finite() && width / 2.0 <= most * FRAC_1_SQRT_2).then_some((lo + hi) / 2.0)
}

/// Levels of the new graph: drops and bootstraps state theirs, results follow from operands, inputs come from the decisions.
fn levels_of(placed: &Graph, old: &Graph, decisions: &[Decision]) -> Vec<usize> {
    let mut inputs: BTreeMap<usize, usize> = BTreeMap::new();
    for id in old.ids() {
        if let Op::Input(index) = old.node(id).op {
            inputs.insert(index, decisions[id.index()].level);
        }
    }
    let mut levels: Vec<usize> = Vec::with_capacity(placed.nodes.len());
    for id in placed.ids() {
        let node = placed.node(id);
        levels.push(match (&node.op, node.inputs.first()) {
            (Op::Input(index), _) => inputs[index],
            (Op::LevelDrop(level) | Op::Bootstrap { level, .. }, _) => *level,
            (op, Some(first)) => levels[first.index()] - levels_consumed(placed, op),
            (_, None) => 0,
        });
    }
    levels
}

/// What [`placement`](crate::placement) must know of every node of a graph without level drops. `cost` is that of a node by
/// level of its operands, infinite below what it consumes; `refresh` tells how a value may be bootstrapped.
pub fn steps(
    graph: &Graph,
    cost: impl Fn(ValueId) -> Vec<f64>,
    refresh: impl Fn(ValueId) -> Option<Refresh>,
) -> Vec<Step> {
    let mut products: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    graph
        .ids()
        .map(|id| {
            let node = graph.node(id);
            // A product must be relinearised before it is bootstrapped.
            products.push(match node.op {
                Op::Mul => true,
                Op::Relinearise => false,
                _ => node.inputs.iter().any(|v| products[v.index()]),
            });
            Step {
                inputs: node.inputs.iter().map(|v| v.index()).collect(),
                variants: vec![Variant { consumed: levels_consumed(graph, &node.op), cost: cost(id) }],
                bootstrap: if products[id.index()] { None } else { refresh(id) },
            }
        })
        .collect()
}

fn without_drops(graph: &Graph) -> Graph {
    if !graph.nodes.iter().any(|n| matches!(n.op, Op::LevelDrop(_))) {
        return graph.clone();
    }
    Rebuild::run(
        graph,
        |b, id| {
            let node = b.old().node(id);
            let inputs: Vec<ValueId> = node.inputs.iter().map(|&v| b.value(v)).collect();
            match node.op {
                Op::LevelDrop(_) => inputs[0],
                _ => b.copy(id, inputs),
            }
        },
        |b, value| b.value(value),
    )
}
