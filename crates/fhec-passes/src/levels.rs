//! Places levels: every value at the lowest level that its consumers allow.
//!
//! Outputs end at level 0 and a value lies at the highest level any of its consumers wants, so every
//! operation runs with as few limbs as possible and inputs are encrypted at no more levels than the network
//! uses. An operand that lies higher than its consumer wants gets a level drop. Placing bootstraps will
//! be the same walk with another choice where a level would exceed the chain.

use crate::he_rewrite::Rebuild;
use fhec_ir::he::facts::levels_consumed;
use fhec_ir::he::{Graph, Op, ValueId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A graph with level drops, and the level of each of its values.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The graph.
    pub graph: Graph,
    /// Level of every value.
    pub levels: Vec<usize>,
}

impl Placed {
    /// The highest level.
    pub fn top(&self) -> usize {
        self.levels.iter().copied().max().unwrap_or(0)
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
    let drops = RefCell::new(BTreeMap::new());
    let placed = Rebuild::run(
        graph,
        |b, id| {
            let node = b.old().node(id);
            let level = wanted[id.index()] + levels_consumed(graph, &node.op);
            let operands = node.inputs.iter().map(|&v| {
                let value = b.value(v);
                if wanted[v.index()] == level {
                    return value;
                }
                *drops.borrow_mut().entry((value, level)).or_insert_with(|| b.derive(Op::LevelDrop(level), value))
            });
            let operands = operands.collect();
            b.copy(id, operands)
        },
        |b, value| {
            let new = b.value(value);
            if wanted[value.index()] == 0 {
                return new;
            }
            *drops.borrow_mut().entry((new, 0)).or_insert_with(|| b.derive(Op::LevelDrop(0), new))
        },
    );
    let levels = levels_of(&placed, &wanted, graph);
    Placed { graph: placed, levels }
}

/// Levels of the new graph: drops state theirs, results follow from operands, inputs come from `wanted`.
fn levels_of(placed: &Graph, wanted: &[usize], old: &Graph) -> Vec<usize> {
    let mut inputs: BTreeMap<usize, usize> = BTreeMap::new();
    for id in old.ids() {
        if let Op::Input(index) = old.node(id).op {
            inputs.insert(index, wanted[id.index()]);
        }
    }
    let mut levels: Vec<usize> = Vec::with_capacity(placed.nodes.len());
    for id in placed.ids() {
        let node = placed.node(id);
        levels.push(match (&node.op, node.inputs.first()) {
            (Op::Input(index), _) => inputs[index],
            (Op::LevelDrop(level), _) => *level,
            (op, Some(first)) => levels[first.index()] - levels_consumed(placed, op),
            (_, None) => 0,
        });
    }
    levels
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
