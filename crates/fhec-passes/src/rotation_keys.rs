//! Chooses the evaluation keys: every Galois element in use, each up to the highest level at which it is used.

use crate::noise::Model;
use fhec_ir::he::{Graph, Op};
use fhec_math::galois_element;
use fhec_plan::KeyManifest;
use fhec_plan::linear::LinearGroup;

/// The manifest of a placed graph, given the groups of its linear maps.
pub fn manifest(model: &Model<'_>, log_n: u32) -> KeyManifest {
    choose(model.graph(), model.levels(), model.groups(), log_n)
}

/// See [`manifest`]: `levels` and `groups` by node.
fn choose(graph: &Graph, levels: &[usize], groups: &[Vec<LinearGroup>], log_n: u32) -> KeyManifest {
    let mut keys = KeyManifest::default();
    for id in graph.ids() {
        let node = graph.node(id);
        let Some(operand) = node.inputs.first() else { continue };
        let level = levels[operand.index()];
        let mut rotation = |steps: i64, level: usize| {
            let element = galois_element(steps, log_n);
            // A rotation by a multiple of the number of slots is none.
            if element != 1 {
                let entry = keys.galois.entry(element).or_insert(level);
                *entry = level.max(*entry);
            }
        };
        match &node.op {
            Op::LinearMap { .. } => {
                for group in &groups[id.index()] {
                    group.bsgs.rotations().into_iter().for_each(|r| rotation(r, level));
                    group.fold.iter().for_each(|&step| rotation(step as i64, level - 1));
                }
            }
            Op::Rotate(steps) => rotation(*steps, level),
            Op::Polynomial { .. } | Op::Relinearise => {
                let highest = relinearisation_level(&node.op, level);
                keys.relin = Some(keys.relin.map_or(highest, |k| k.max(highest)));
            }
            _ => {}
        }
    }
    keys
}

/// Highest level at which an operation relinearises; polynomials may do so from the first product on.
fn relinearisation_level(op: &Op, level: usize) -> usize {
    match op {
        Op::Polynomial { .. } | Op::Relinearise => level,
        _ => 0,
    }
}
